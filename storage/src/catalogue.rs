//! The blob catalogue: the only file that names `sled`. (hash, source, label) to size, time and description.
//!
//! Derived from the blob references in `__azulite_state`: brought forward from the state offset it holds,
//! built anew when it is missing or does not open. Never the only copy of anything.

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::{Offset, Sha256};
use crate::index::StateKeyspace;
use crate::keys::{decode_value, encode_value};
use crate::queue::{Appended, Done};
use crate::state::{BlobRecord, BlobRefKey, Change, StateKey, value};
use crate::store::AppendError;

/// Key of the state offset up to which the catalogue was brought; shorter than any blob's key.
const APPLIED_KEY: &[u8] = b"applied";
const CACHE_BYTES: u64 = 8 << 20;

/// Why the catalogue could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The engine failed; what it holds can be rebuilt.
    #[error("blob catalogue engine: {0}")]
    Engine(#[from] sled::Error),
    /// An entry does not read as this version writes it.
    #[error("blob catalogue entry of {0} is damaged; delete the folder and it is rebuilt")]
    Entry(String),
    /// The folder could not be replaced.
    #[error("blob catalogue at {path}: {error}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

struct Work {
    state_end: Offset,
    changes: Vec<(StateKeyspace, Change)>,
    appended: Vec<Appended>,
    done: Done,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    stopped: bool,
}

/// The open catalogue.
pub struct Catalogue {
    db: sled::Db,
    queue: Mutex<Queue>,
    filled: Condvar,
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Catalogue")
    }
}

/// How long the folder may still be locked by a handle of this process that was just dropped.
const RELEASE_TIME: Duration = Duration::from_secs(5);

fn open_engine(path: &Path) -> Result<sled::Db, CatalogueError> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(Some(500));
    let started = Instant::now();
    loop {
        // The engine asserts its way through damaged files.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
        match opened.unwrap_or(Err(sled::Error::Corruption { at: None, bt: () })) {
            // Its threads release the lock some time after the last handle is gone.
            Err(sled::Error::Io(_)) if started.elapsed() < RELEASE_TIME => std::thread::sleep(Duration::from_millis(5)),
            other => return other.map_err(Into::into),
        }
    }
}

/// How much has to be replayed into a catalogue that was just opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// State records from this offset on.
    From(Offset),
    /// Every blob reference, into an empty catalogue.
    Everything,
}

impl Catalogue {
    /// Opens the catalogue at `path`, or starts an empty one when it is missing or does not open.
    pub(crate) fn open(path: &Path) -> Result<(Self, Replay), CatalogueError> {
        if path.exists() {
            match open_engine(path).and_then(|db| Self::replay_from(&db).map(|replay| (db, replay))) {
                Ok((db, replay)) => return Ok((Self::over(db), replay)),
                Err(error) => tracing::info!(%error, "the blob catalogue does not open and is built anew"),
            }
        }
        let fresh = path.with_extension("new");
        let io_error = |error| CatalogueError::Io { path: path.to_owned(), error };
        crate::fs::remove_tree(path).map_err(io_error)?;
        crate::fs::remove_tree(&fresh).map_err(io_error)?;
        drop(open_engine(&fresh)?);
        crate::fs::rename_tree(&fresh, path).map_err(io_error)?;
        Ok((Self::over(open_engine(path)?), Replay::Everything))
    }

    /// Forgets every entry, before all of them are put in again.
    pub(crate) fn clear(&self) -> Result<(), CatalogueError> {
        Ok(self.db.clear()?)
    }

    fn over(db: sled::Db) -> Self {
        Self { db, queue: Mutex::default(), filled: Condvar::new() }
    }

    fn replay_from(db: &sled::Db) -> Result<Replay, CatalogueError> {
        let applied = db.get(APPLIED_KEY)?.and_then(|bytes| Some(i64::from_be_bytes(*bytes.first_chunk()?)));
        Ok(applied.map_or(Replay::Everything, Replay::From))
    }

    /// Applies blob references found in state records up to `state_end`.
    pub(crate) fn apply<'a>(
        &self,
        state_end: Offset,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<(), CatalogueError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            let Some(StateKey::BlobRef(key)) = StateKey::decode(&change.key) else { continue };
            match change.value.as_ref().and_then(|bytes| value::<BlobRecord>(bytes)) {
                Some(record) => batch.insert(key.encode(), encode_value(&record)),
                None => batch.remove(key.encode()),
            }
        }
        batch.insert(APPLIED_KEY, &state_end.to_be_bytes());
        Ok(self.db.apply_batch(batch)?)
    }

    /// Queues a commit's changes; `done` is called once they can be looked up.
    pub(crate) fn push(
        &self,
        state_end: Offset,
        changes: Vec<(StateKeyspace, Change)>,
        appended: Vec<Appended>,
        done: Done,
    ) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.work.push_back(Work { state_end, changes, appended, done });
        drop(queue);
        self.filled.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.filled.notify_all();
    }

    /// The catalogue thread: returns when stopped and empty, or with the error that ended it.
    pub(crate) fn run(&self) -> Result<(), CatalogueError> {
        loop {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.work.is_empty() && !queue.stopped {
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let work: Vec<_> = queue.work.drain(..).collect();
            drop(queue);
            let Some(state_end) = work.last().map(|w| w.state_end) else { return Ok(()) };
            let changes = work.iter().flat_map(|w| w.changes.iter().map(|(_, change)| change));
            if let Err(error) = self.apply(state_end, changes) {
                let reason = AppendError::Poisoned { reason: error.to_string() };
                work.into_iter().for_each(|w| (w.done)(Err(reason.clone())));
                return Err(error);
            }
            work.into_iter().for_each(|w| (w.done)(Ok(w.appended)));
        }
    }

    /// What is known of a blob under one name.
    ///
    /// # Errors
    /// See [`CatalogueError`].
    pub fn get(&self, key: &BlobRefKey) -> Result<Option<BlobRecord>, CatalogueError> {
        let Some(bytes) = self.db.get(key.encode())? else { return Ok(None) };
        decode_value(&bytes).map(Some).ok_or_else(|| CatalogueError::Entry(key.hash.to_string()))
    }

    /// Every name under which a blob is stored.
    ///
    /// # Errors
    /// See [`CatalogueError`].
    pub fn names(&self, hash: Sha256) -> Result<Vec<(BlobRefKey, BlobRecord)>, CatalogueError> {
        self.db.scan_prefix(hash.0).map(|entry| Self::entry(entry?)).collect()
    }

    /// Every entry, in hash order.
    pub fn all(&self) -> impl Iterator<Item = Result<(BlobRefKey, BlobRecord), CatalogueError>> + use<> {
        let blobs = self.db.iter().filter(|entry| entry.as_ref().map_or(true, |(key, _)| key.len() > 32));
        blobs.map(|entry| Self::entry(entry?))
    }

    fn entry((key, record): (sled::IVec, sled::IVec)) -> Result<(BlobRefKey, BlobRecord), CatalogueError> {
        let damaged = || CatalogueError::Entry(key.iter().take(32).map(|b| format!("{b:02x}")).collect());
        BlobRefKey::decode(&key).zip(decode_value(&record)).ok_or_else(damaged)
    }

    /// Notes that everything up to `state_end` is in, so that the next start has nothing to replay.
    pub(crate) fn close(&self, state_end: Offset) -> Result<(), CatalogueError> {
        self.apply(state_end, std::iter::empty())?;
        self.db.flush()?;
        Ok(())
    }
}
