//! Blobs on disk: staging, durable publishing, reading, deletion. Keeps the laws BLOB-HASH and BLOB-FIRST.
//!
//! A blob is written to staging, synced, renamed to `blobs/aa/bb/SHA256`, its folder synced, and only then referenced
//! by a state record. Deletion goes the other way: state record first, then the file. One file per hash, whatever the
//! number of sources and labels.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::catalogue::CatalogueError;
use crate::fs::{Fs, FsFile, is_full};
use crate::ids::Sha256;
use crate::segments::random_u64;
use crate::store::AppendError;

/// Why a blob could not be stored, read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk has no room above the reserve.
    #[error("the disk is full")]
    DiskFull,
    /// A source or label that cannot name a blob.
    #[error("{field} {value:?} cannot name a blob: it holds a zero byte")]
    Name {
        /// `source` or `label`.
        field: &'static str,
        /// What was given.
        value: String,
    },
    /// The file of a blob that the catalogue names is gone or has another length.
    #[error("blob {hash} is damaged: {path} has {found} bytes, {expected} are expected")]
    Damaged {
        /// The blob.
        hash: Sha256,
        /// Its file.
        path: PathBuf,
        /// Length found; 0 when the file is gone.
        found: u64,
        /// Length recorded.
        expected: u64,
    },
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The reference could not be committed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BlobError + '_ {
    move |error| match is_full(&error) {
        true => BlobError::DiskFull,
        false => BlobError::Io { path: path.to_owned(), error },
    }
}

/// The folders of blobs and of uploads under way.
#[derive(Debug)]
pub(crate) struct BlobFiles {
    fs: Arc<dyn Fs>,
    blobs: PathBuf,
    staging: PathBuf,
    counter: AtomicU64,
    busy: Mutex<HashSet<Sha256>>,
    freed: Condvar,
    /// Folders whose names this process has made durable: at most 256 and 65,536 below them.
    settled: Mutex<HashSet<PathBuf>>,
}

/// Holds the lock of one hash: upload, copy and deletion of it wait for each other.
pub(crate) struct HashLock<'a> {
    files: &'a BlobFiles,
    hash: Sha256,
}

impl Drop for HashLock<'_> {
    fn drop(&mut self) {
        self.files.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.hash);
        self.files.freed.notify_all();
    }
}

impl BlobFiles {
    /// The folders below `root`; staging is emptied.
    pub(crate) fn open(fs: Arc<dyn Fs>, root: &Path) -> Result<Self, BlobError> {
        let (blobs, staging) = (root.join("blobs"), root.join("staging"));
        for entry in fs.list(&staging).map_err(io_error(&staging))? {
            let path = staging.join(&entry.name);
            fs.remove_file(&path).map_err(io_error(&path))?;
        }
        let counter = AtomicU64::new(random_u64());
        Ok(Self {
            fs,
            blobs,
            staging,
            counter,
            busy: Mutex::default(),
            freed: Condvar::new(),
            settled: Mutex::default(),
        })
    }

    pub(crate) fn lock(&self, hash: Sha256) -> HashLock<'_> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.insert(hash) {
            busy = self.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        HashLock { files: self, hash }
    }

    pub(crate) fn path(&self, hash: Sha256) -> PathBuf {
        let text = hash.to_string();
        let (first, second) = (text.get(0..2).unwrap_or_default(), text.get(2..4).unwrap_or_default());
        self.blobs.join(first).join(second).join(text.as_str())
    }

    pub(crate) fn stage(&self) -> Result<StagedFile, BlobError> {
        let name = format!("{:016x}", self.counter.fetch_add(1, Ordering::Relaxed));
        let path = self.staging.join(name);
        let file = self.fs.create(&path).map_err(io_error(&path))?;
        Ok(StagedFile { fs: self.fs.clone(), path, file, len: 0, kept: false })
    }

    /// Gives staged bytes their final, durable name. An existing file counts only if its length fits. The caller holds
    /// the hash's lock.
    pub(crate) fn seal(&self, mut staged: StagedFile, hash: Sha256) -> Result<(), BlobError> {
        let path = self.path(hash);
        let folder = path.parent().unwrap_or(&self.blobs);
        let existing = self.fs.meta(&path).map_err(io_error(&path))?;
        if existing.is_some_and(|m| m.len == staged.len) {
            // Whoever named it may have been stopped before the name was durable.
            let file = self.fs.open_write(&path).map_err(io_error(&path))?;
            file.sync_data().map_err(io_error(&path))?;
        } else {
            staged.file.sync_data().map_err(io_error(&staged.path))?;
            self.make(folder)?;
            self.fs.rename(&staged.path, &path).map_err(io_error(&path))?;
            staged.kept = true;
        }
        self.fs.sync_dir(folder).map_err(io_error(folder))?;
        self.settle(folder)
    }

    /// Makes a folder and the one above it, where they are missing; durable after [`BlobFiles::settle`].
    fn make(&self, folder: &Path) -> Result<(), BlobError> {
        if self.fs.meta(folder).map_err(io_error(folder))?.is_some() {
            return Ok(());
        }
        if let Some(above) = folder.parent().filter(|above| *above != self.blobs) {
            self.make(above)?;
        }
        match self.fs.create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error(folder)(error)),
            _ => Ok(()),
        }
    }

    /// Makes a folder's own name durable, once: one found there may have been made by someone stopped before it was.
    fn settle(&self, folder: &Path) -> Result<(), BlobError> {
        if self.settled.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        let above = folder.parent().unwrap_or(&self.blobs);
        self.fs.sync_dir(above).map_err(io_error(above))?;
        if above != self.blobs {
            self.settle(above)?;
        }
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }

    /// The bytes of a blob whose recorded length is `size`.
    pub(crate) fn open_blob(&self, hash: Sha256, size: u64) -> Result<BlobFile, BlobError> {
        let path = self.path(hash);
        let damaged = |found| BlobError::Damaged { hash, path: path.clone(), found, expected: size };
        let file = match self.fs.open_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged(0)),
            Err(error) => return Err(io_error(&path)(error)),
        };
        let found = file.len().map_err(io_error(&path))?;
        if found != size {
            return Err(damaged(found));
        }
        Ok(BlobFile { file, len: size })
    }

    /// Removes the bytes of a blob nobody refers to any more. The caller holds the hash's lock.
    pub(crate) fn remove(&self, hash: Sha256) -> Result<(), BlobError> {
        let path = self.path(hash);
        match self.fs.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path)(error)),
            _ => Ok(()),
        }
    }
}

/// A blob opened for reading; stays readable when the blob is deleted meanwhile.
#[derive(Clone, Debug)]
pub struct BlobFile {
    file: Arc<dyn FsFile>,
    len: u64,
}

impl BlobFile {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for the blob of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads plain bytes at `position`; 0 at the end.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }
}

/// Bytes of an upload under way. Dropped without being published, they are gone.
#[derive(Debug)]
pub struct StagedFile {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    file: Arc<dyn FsFile>,
    len: u64,
    kept: bool,
}

impl StagedFile {
    /// Adds bytes at the end.
    ///
    /// # Errors
    /// [`BlobError::DiskFull`] and [`BlobError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let written = self.file.write_all_at(&mut [IoSlice::new(bytes)], self.len);
        written.map_err(io_error(&self.path))?;
        self.len += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True before the first byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes so far, for reading.
    #[must_use]
    pub fn reader(&self) -> BlobFile {
        BlobFile { file: self.file.clone(), len: self.len }
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.fs.remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "a staging file stays until the next start");
        }
    }
}
