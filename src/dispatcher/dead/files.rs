//! One file for each letter, behind the commits: written and removed by one thread, from rows that say what is due.
//!
//! A file appears under its name only when it is whole and on the disk, with mode 0600. What cannot be done is tried again
//! later, for ever; a post never waits for it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use azulite_storage::clock::now_ms;
use azulite_storage::fs::{self, Fs, RealFs};
use azulite_storage::index::IndexError;

use super::rows::{self, Due};
use super::{DeadLetters, PAGE};
use crate::broker::AppendError;

/// Between two tries of what could not be done.
const AGAIN: Duration = Duration::from_secs(30);
/// How often letters are looked for that are older than is kept.
const LOOK_FOR_OLD: Duration = Duration::from_secs(3600);
/// What the directory is tested with.
const TEST_FILE: &str = ".azulite-test.tmp";

/// Why the files of letters are behind.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The rows could not be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// What was done could not be noted.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A file could not be written or removed.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The directory and the thread that fills it.
#[derive(Debug)]
pub(super) struct Files {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    state: Mutex<State>,
    woken: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    due: bool,
    stopping: bool,
    /// How many files are behind, and why the first of them is.
    behind: Option<(usize, String)>,
}

impl Files {
    pub(super) fn new(dir: PathBuf) -> Self {
        let (state, woken, thread) = (Mutex::default(), Condvar::new(), Mutex::new(None));
        Self { fs: Arc::new(RealFs), dir, state, woken, thread }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to do. Never blocks for long.
    pub(super) fn wake(&self) {
        self.lock().due = true;
        self.woken.notify_all();
    }

    pub(super) fn behind(&self) -> Option<(usize, String)> {
        self.lock().behind.clone()
    }

    /// Waits until there is something to do, or `until`; false when it is time to stop.
    fn wait(&self, until: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if std::mem::take(&mut state.due) || left.is_zero() {
                return true;
            }
            state = self.woken.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn do_one(&self, dead: &DeadLetters, due: &Due) -> Result<(), FileError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| FileError::Io { path, error }
        };
        match due {
            Due::Remove { file } => {
                let path = self.dir.join(file);
                match self.fs.remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path)(error)),
                    _ => Ok(()),
                }
            }
            Due::Write { file, id } => {
                // It may have gone meanwhile.
                let Some(letter) = rows::letter(dead.broker.log().as_ref(), id)? else { return Ok(()) };
                let path = self.dir.join(file);
                let mut text = letter.to_text();
                text.push(b'\n');
                fs::replace_durably(self.fs.as_ref(), &path, &text).map_err(failed(&path))
            }
        }
    }
}

/// Tests that a directory can be made, written and read.
///
/// # Errors
/// What cannot be done with it.
pub fn test_dir(dir: &Path) -> io::Result<()> {
    let fs = RealFs;
    fs::create_dir_durably(&fs, dir)?;
    let path = dir.join(TEST_FILE);
    if fs.meta(&path)?.is_some() {
        fs.remove_file(&path)?;
    }
    let content = b"azulite tests that this directory can be written and read";
    let file = fs.create(&path)?;
    let tested = file
        .write_all_at(&mut [IoSlice::new(content)], 0)
        .and_then(|()| file.sync_data())
        .and_then(|()| fs::read_small(&fs, &path, content.len()));
    fs.remove_file(&path)?;
    match tested? == content {
        true => fs.list(dir).map(drop),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "what was written there reads back as something else")),
    }
}

impl DeadLetters {
    /// Brings the files up to date, once. Blocks on the disk.
    ///
    /// # Errors
    /// The first of what could not be done; everything else is done.
    pub fn settle_files(&self) -> Result<(), FileError> {
        let log = self.broker.log().as_ref();
        let (mut gone, mut written) = (String::new(), String::new());
        let (mut behind, mut first) = (0, None);
        loop {
            let due = rows::due(log, [&gone, &written], PAGE)?;
            if due.is_empty() {
                break;
            }
            // Where it cannot be made, each file says so.
            fs::create_dir_durably(self.files.fs.as_ref(), &self.files.dir).ok();
            let mut done = Vec::with_capacity(due.len());
            for due in due {
                match self.files.do_one(self, &due) {
                    Ok(()) => done.push(due.done()),
                    Err(error) => {
                        behind += 1;
                        self.metrics.dead_letter_file_errors.inc();
                        first.get_or_insert(error);
                    }
                }
                match due {
                    Due::Remove { file } => gone = file,
                    Due::Write { file, .. } => written = file,
                }
            }
            if !done.is_empty() {
                if !gone.is_empty() {
                    // Names that have gone must not come back behind the rows that say so.
                    let synced = self.files.fs.sync_dir(&self.files.dir);
                    synced.map_err(|error| FileError::Io { path: self.files.dir.clone(), error })?;
                }
                log.put_kv(done)?;
            }
        }
        self.files.lock().behind = first.as_ref().map(|error: &FileError| (behind, error.to_string()));
        first.map_or(Ok(()), Err)
    }

    /// Begins to keep the files up to date, and to remove letters that are older than is kept, on a thread of its own.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let this = self.clone();
        let thread = std::thread::Builder::new().name("azulite-dead".to_owned()).spawn(move || this.keep_up())?;
        *self.files.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Ends what [`DeadLetters::start`] began, behind the file that is being written; the rest is done at the next start.
    pub fn close(&self) {
        self.files.lock().stopping = true;
        self.files.woken.notify_all();
        let thread = self.files.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the files of dead letters are no longer written: an internal fault");
        }
    }

    fn keep_up(&self) {
        let mut old_at = Instant::now();
        let mut complained = false;
        loop {
            if Instant::now() >= old_at {
                old_at = Instant::now() + LOOK_FOR_OLD;
                match self.remove_old(now_ms()) {
                    Ok(0) => {}
                    Ok(removed) => tracing::info!(removed, "dead letters older than dead_letter.keep were removed"),
                    Err(error) => tracing::warn!(%error, "old dead letters could not be removed"),
                }
            }
            let again = match self.settle_files() {
                Ok(()) => {
                    complained = false;
                    old_at
                }
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(%error, "files of dead letters are not written; they are tried again until they are");
                    }
                    old_at.min(Instant::now() + AGAIN)
                }
            };
            if !self.files.wait(again) {
                return;
            }
        }
    }
}
