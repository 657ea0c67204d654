//! A file system that writes down, in one global order, what was asked of it and when replies left.
//!
//! With it a test proves the order that a kill or even a power cut shows only by luck: each reply came after the sync of
//! the file that holds what it promised, and after the sync of the directory that holds the file's name.

use azulite_storage::fs::{DirEntry, Fs, FsFile, FsLock, Meta, Room};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Number of a file in a recording; it stays the same when the file is renamed.
pub(crate) type FileNumber = usize;

/// One thing that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A file was made.
    Created { file: FileNumber, path: PathBuf },
    /// Bytes were written; the call has returned.
    Written { file: FileNumber, position: u64, bytes: Vec<u8> },
    /// A file's length was set or reserved.
    Resized { file: FileNumber, len: u64 },
    /// A sync was asked for.
    SyncStarted { file: FileNumber },
    /// The sync that started at `started` returned well.
    Synced { file: FileNumber, started: usize },
    /// A file got a name.
    Renamed { file: FileNumber, from: PathBuf, to: PathBuf },
    /// A name was removed.
    Removed { path: PathBuf },
    /// A directory was made.
    DirCreated { path: PathBuf },
    /// A directory's names were synced; the sync had started at `started`.
    DirSynced { path: PathBuf, started: usize },
    /// A directory sync was asked for.
    DirSyncStarted { path: PathBuf },
    /// The test received a reply.
    Acked { label: String },
}

#[derive(Debug, Default)]
struct Recording {
    events: Vec<Event>,
    files: HashMap<PathBuf, FileNumber>,
    next_file: FileNumber,
}

impl Recording {
    fn push(&mut self, event: Event) -> usize {
        self.events.push(event);
        self.events.len() - 1
    }

    fn number(&mut self, path: &Path) -> FileNumber {
        if let Some(number) = self.files.get(path) {
            return *number;
        }
        self.next_file += 1;
        self.files.insert(path.to_path_buf(), self.next_file);
        self.next_file
    }
}

/// Another file system, with a recording of what it was asked. A clone shares the recording.
#[derive(Clone, Debug)]
pub(crate) struct RecordingFs {
    inner: Arc<dyn Fs>,
    recording: Arc<Mutex<Recording>>,
}

#[derive(Debug)]
struct RecordingFile {
    inner: Arc<dyn FsFile>,
    recording: Arc<Mutex<Recording>>,
    file: FileNumber,
}

impl RecordingFs {
    pub(crate) fn new(inner: Arc<dyn Fs>) -> Self {
        Self { inner, recording: Arc::default() }
    }

    /// Notes that the reply called `label` was received now.
    pub(crate) fn ack(&self, label: impl Into<String>) {
        self.push(Event::Acked { label: label.into() });
    }

    /// What happened so far, oldest first.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.recording.lock().unwrap().events.clone()
    }

    fn push(&self, event: Event) -> usize {
        self.recording.lock().unwrap().push(event)
    }

    fn number(&self, path: &Path) -> FileNumber {
        self.recording.lock().unwrap().number(path)
    }

    fn wrap(&self, inner: Arc<dyn FsFile>, file: FileNumber) -> Arc<dyn FsFile> {
        Arc::new(RecordingFile { inner, recording: Arc::clone(&self.recording), file })
    }
}

/// Checks that the reply called `label`, which promised that `needle` is stored, came after the sync of a file that holds
/// it and after that file's name was durable.
///
/// Returns what is wrong, if anything is.
pub(crate) fn check_ack(events: &[Event], label: &str, needle: &[u8]) -> Result<(), String> {
    let acked = events.iter().position(|e| matches!(e, Event::Acked { label: l } if l == label));
    let acked = acked.ok_or_else(|| format!("{label} was never acknowledged"))?;
    let before = &events[..acked];
    let holds = |event: &Event| match event {
        Event::Written { file, bytes, .. } if contains(bytes, needle) => Some(*file),
        _ => None,
    };
    let (written, file) = before
        .iter()
        .enumerate()
        .find_map(|(at, event)| Some((at, holds(event)?)))
        .ok_or_else(|| format!("{label} was acknowledged before it was written"))?;
    let synced =
        before.iter().any(|e| matches!(e, Event::Synced { file: f, started } if *f == file && *started > written));
    if !synced {
        return Err(format!("{label} was written at event {written} and acknowledged at {acked} without a sync"));
    }
    check_name(before, file).map_err(|e| format!("{label}, acknowledged at event {acked}: {e}"))
}

/// Checks that by the end of `events` a file has the last path component `name`, that it was synced before it got that
/// name, and that the name is durable.
pub(crate) fn check_named(events: &[Event], name: &str) -> Result<(), String> {
    let named = events.iter().enumerate().find_map(|(at, event)| match event {
        Event::Renamed { file, to, .. } if to.ends_with(name) => Some((at, *file)),
        _ => None,
    });
    let (at, file) = named.ok_or_else(|| format!("nothing was called {name}"))?;
    let synced = events[..at].iter().any(|e| matches!(e, Event::Synced { file: f, .. } if *f == file));
    if !synced {
        return Err(format!("{name} got its name at event {at} before its bytes were synced"));
    }
    check_name(events, file)
}

/// Checks that the newest name of `file` is durable by the end of `events`.
fn check_name(events: &[Event], file: FileNumber) -> Result<(), String> {
    let named = events.iter().enumerate().rev().find_map(|(at, event)| match event {
        Event::Created { file: f, path } if *f == file => Some((at, path)),
        Event::Renamed { file: f, to, .. } if *f == file => Some((at, to)),
        _ => None,
    });
    // A file that was there before the recording began was named before, too.
    let Some((named, path)) = named else { return Ok(()) };
    let parent = path.parent().unwrap();
    if !dir_synced(events, parent, named) {
        return Err(format!("{} got its name at event {named} and its directory was not synced since", path.display()));
    }
    for folder in parent.ancestors() {
        let made = events.iter().position(|e| matches!(e, Event::DirCreated { path } if path == folder));
        if let Some(made) = made
            && !dir_synced(events, folder.parent().unwrap(), made)
        {
            return Err(format!("{} was made at event {made} and is not durable since", folder.display()));
        }
    }
    Ok(())
}

/// True when a sync of `folder` started behind event `since` and ended well.
fn dir_synced(events: &[Event], folder: &Path, since: usize) -> bool {
    events.iter().any(|e| matches!(e, Event::DirSynced { path, started } if path == folder && *started > since))
}

/// True when `bytes` hold `needle`.
pub(crate) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

impl RecordingFile {
    fn push(&self, event: Event) -> usize {
        self.recording.lock().unwrap().push(event)
    }
}

impl FsFile for RecordingFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buf, position)
    }

    fn write_all_at(&self, bufs: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        bufs.iter().for_each(|buf| bytes.extend_from_slice(buf));
        self.inner.write_all_at(bufs, position)?;
        self.push(Event::Written { file: self.file, position, bytes });
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)?;
        self.push(Event::Resized { file: self.file, len });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)?;
        self.push(Event::Resized { file: self.file, len });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        let started = self.push(Event::SyncStarted { file: self.file });
        self.inner.sync_data()?;
        self.push(Event::Synced { file: self.file, started });
        Ok(())
    }
}

impl Fs for RecordingFs {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let inner = self.inner.open_read(path)?;
        Ok(self.wrap(inner, self.number(path)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let inner = self.inner.open_write(path)?;
        Ok(self.wrap(inner, self.number(path)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let inner = self.inner.create(path)?;
        let file = self.number(path);
        self.push(Event::Created { file, path: path.to_path_buf() });
        Ok(self.wrap(inner, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)?;
        let mut recording = self.recording.lock().unwrap();
        let file = recording.number(from);
        recording.files.remove(from);
        recording.files.insert(to.to_path_buf(), file);
        recording.push(Event::Renamed { file, from: from.to_path_buf(), to: to.to_path_buf() });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)?;
        self.recording.lock().unwrap().files.remove(path);
        self.push(Event::Removed { path: path.to_path_buf() });
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        // Whoever sees the directory must also see that it was made.
        let mut recording = self.recording.lock().unwrap();
        self.inner.create_dir(path)?;
        recording.push(Event::DirCreated { path: path.to_path_buf() });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let started = self.push(Event::DirSyncStarted { path: path.to_path_buf() });
        self.inner.sync_dir(path)?;
        self.push(Event::DirSynced { path: path.to_path_buf(), started });
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn meta(&self, path: &Path) -> io::Result<Option<Meta>> {
        self.inner.meta(path)
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        self.inner.room(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        self.inner.lock(path)
    }
}
