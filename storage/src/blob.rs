//! Blobs on disk: durable publishing, reading, deletion. Keeps the laws BLOB-HASH and BLOB-FIRST.
//!
//! A blob that is no small one (see [`crate::staged`]) is written to staging, synced, renamed to `blobs/aa/bb/SHA256`, its folder synced, and only then referenced
//! by a state record; uploads that come together share the later steps (see [`crate::publish`]). Deletion goes the other
//! way: state record first, then the file. One file per hash, whatever the number of sources and labels.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;

use crate::catalogue::CatalogueError;
use crate::dir_syncs::DirSyncs;
use crate::encoding::{Codec, Codecs, Encoding, Opener, copy_at};
use crate::fs::{Fs, is_full};
use crate::ids::{SegmentNumber, Sha256};
use crate::index::IndexError;
use crate::segments::random_u64;
use crate::staged::{StagedFile, StagingFile};
use crate::store::AppendError;

/// Bytes compared at once, of each of two blobs.
const COMPARED: usize = 128 << 10;

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
    /// The frame of an inline blob cannot be read, or its segment is gone.
    #[error("blob {hash} is damaged: segment {segment}, position {position}")]
    DamagedFrame {
        /// The blob.
        hash: Sha256,
        /// The segment that should hold it.
        segment: SegmentNumber,
        /// Where in it, bytes from its start.
        position: u64,
    },
    /// No frame of an inline blob was found in the log.
    #[error("blob {hash} is damaged: the log has no frame of it")]
    Lost {
        /// The blob.
        hash: Sha256,
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
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The reference could not be committed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl BlobError {
    /// True when stored bytes are not what they should be.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::DamagedFrame { .. } | Self::Lost { .. })
    }
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BlobError + '_ {
    move |error| match is_full(&error) {
        true => BlobError::DiskFull,
        false => BlobError::Io { path: path.to_owned(), error },
    }
}

/// One error for each of those that wait for the same step.
fn copied(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

/// A blob whose bytes are durable and whose folder is there, on its way to its name. Dropped without one, it is gone.
#[derive(Debug)]
pub(crate) struct Hardened {
    path: PathBuf,
    staged: StagingFile,
}

/// Blobs that have their names, which are not durable yet.
pub(crate) struct Naming<'a> {
    files: &'a BlobFiles,
    /// Each with the folder that holds it, if it got its name just now.
    named: Vec<Result<Option<PathBuf>, BlobError>>,
    syncs: Arc<DirSyncs>,
}

impl Naming<'_> {
    /// What is to be synced, for whoever wants to help.
    pub(crate) fn syncs(&self) -> &Arc<DirSyncs> {
        &self.syncs
    }

    /// Makes the names durable; one outcome for each blob.
    pub(crate) fn finish(self) -> Vec<Result<(), BlobError>> {
        let failed = self.syncs.finish();
        let settle = |folder: Option<PathBuf>| folder.map_or(Ok(()), |folder| self.files.settle(&folder, &failed));
        self.named.into_iter().map(|folder| folder.and_then(settle)).collect()
    }
}

/// Where uploads are staged.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    fs: Arc<dyn Fs>,
    staging: PathBuf,
    counter: Arc<AtomicU64>,
    inline_bytes: usize,
    codecs: Codecs,
}

impl Stage {
    /// Uploads of up to this many bytes stay in memory.
    pub(crate) fn inline_bytes(&self) -> usize {
        self.inline_bytes
    }

    /// A new file.
    pub(crate) fn create(&self) -> Result<StagingFile, BlobError> {
        let name = format!("{:016x}", self.counter.fetch_add(1, Ordering::Relaxed));
        let path = self.staging.join(name);
        let codec = self.codec(&path)?;
        StagingFile::create(self.fs.clone(), path, codec)
    }

    fn codec(&self, path: &Path) -> Result<Codec, BlobError> {
        self.codecs.of(self.codecs.newest()).map_err(io_error(path))
    }
}

/// The folders of blobs and of uploads under way.
#[derive(Debug)]
pub(crate) struct BlobFiles {
    fs: Arc<dyn Fs>,
    blobs: PathBuf,
    stage: Stage,
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
    /// The folders below `root`; staging is emptied. Uploads of up to `inline_bytes` bytes are kept in memory.
    pub(crate) fn open(fs: Arc<dyn Fs>, root: &Path, inline_bytes: usize, codecs: Codecs) -> Result<Self, BlobError> {
        let (blobs, staging) = (root.join("blobs"), root.join("staging"));
        for entry in fs.list(&staging).map_err(io_error(&staging))? {
            let path = staging.join(&entry.name);
            fs.remove_file(&path).map_err(io_error(&path))?;
        }
        let counter = Arc::new(AtomicU64::new(random_u64()));
        Ok(Self {
            stage: Stage { fs: fs.clone(), staging, counter, inline_bytes, codecs },
            fs,
            blobs,
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

    pub(crate) fn codecs(&self) -> &Codecs {
        &self.stage.codecs
    }

    /// Where the file of a blob is.
    pub(crate) fn path(&self, hash: Sha256, encoding: Encoding) -> PathBuf {
        let text = hash.to_string();
        let (first, second) = (text.get(0..2).unwrap_or_default(), text.get(2..4).unwrap_or_default());
        self.blobs.join(first).join(second).join(format!("{text}{}", encoding.suffix()))
    }

    pub(crate) fn stage(&self) -> StagedFile {
        StagedFile::new(self.stage.clone())
    }

    /// First half of publishing: makes the bytes durable and the folder they go to, but gives no name yet. A file that
    /// has the name already is not looked at: nobody knows what is in it, and it is replaced. The caller holds the hash's
    /// lock, and keeps it until the name is durable.
    ///
    /// The folder comes before the sync, because journalling file systems then write both in one go.
    pub(crate) fn harden(&self, staged: StagedFile, hash: Sha256) -> Result<Hardened, BlobError> {
        let path = self.path(hash, self.codecs().newest());
        self.make(path.parent().unwrap_or(&self.blobs))?;
        let staged = staged.into_file()?;
        staged.file.sync_data().map_err(io_error(&staged.path))?;
        Ok(Hardened { path, staged })
    }

    /// Second half of publishing, for several blobs at once: gives all names. They are durable after the syncs of the
    /// folders that hold them, each of which is synced once. Blobs that are `None` have durable names already. What
    /// fails for one blob does not keep the others from theirs.
    pub(crate) fn name_all(&self, blobs: Vec<Option<Hardened>>) -> Naming<'_> {
        let name = |blob: Option<Hardened>| blob.map(|blob| self.name(blob)).transpose();
        let named: Vec<_> = blobs.into_iter().map(name).collect();
        let mut unsynced = BTreeSet::new();
        for folder in named.iter().flatten().flatten() {
            unsynced.extend(self.unsettled(folder));
        }
        Naming { files: self, named, syncs: Arc::new(DirSyncs::new(self.fs.clone(), unsynced.into_iter().collect())) }
    }

    /// Gives a blob its name, and tells the folder that has it now.
    fn name(&self, Hardened { path, mut staged }: Hardened) -> Result<PathBuf, BlobError> {
        self.fs.rename(&staged.path, &path).map_err(io_error(&path))?;
        staged.kept = true;
        Ok(path.parent().unwrap_or(&self.blobs).to_owned())
    }

    /// The folders to sync for a new name in `folder`: itself, and those above it whose newest name was never synced by
    /// this process. A folder found there may have been made by someone stopped before its name was durable.
    fn unsettled(&self, folder: &Path) -> Vec<PathBuf> {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folders = vec![folder.to_owned()];
        let below = folder.ancestors().take_while(|folder| *folder != self.blobs && !settled.contains(*folder));
        folders.extend(below.filter_map(Path::parent).map(Path::to_owned));
        folders
    }

    /// Notes the folders above a new name as durable, unless one that it needs is among the `failed`.
    fn settle(&self, folder: &Path, failed: &BTreeMap<PathBuf, io::Error>) -> Result<(), BlobError> {
        let needed = self.unsettled(folder);
        if let Some((path, error)) = needed.iter().find_map(|needed| failed.get_key_value(needed)) {
            return Err(io_error(path)(copied(error)));
        }
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.extend(folder.ancestors().take_while(|folder| *folder != self.blobs).map(Path::to_owned));
        Ok(())
    }

    /// Makes a folder and the one above it, where they are missing; durable after [`Naming::finish`].
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

    /// The bytes of a blob whose recorded length is `size`.
    pub(crate) fn open_blob(&self, hash: Sha256, size: u64, encoding: Encoding) -> Result<OpenBlob, BlobError> {
        let path = self.path(hash, encoding);
        let expected = encoding.stored_len(size);
        let damaged = |found| BlobError::Damaged { hash, path: path.clone(), found, expected };
        let file = match self.fs.open_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged(0)),
            Err(error) => return Err(io_error(&path)(error)),
        };
        let found = file.len().map_err(io_error(&path))?;
        if found != expected {
            return Err(damaged(found));
        }
        let opener = self.codecs().of(encoding).and_then(|codec| Opener::new(file, &codec, size, true));
        Ok(OpenBlob::staged(opener.map_err(io_error(&path))?, Bytes::new()))
    }

    /// Removes the bytes of a blob nobody refers to any more. The caller holds the hash's lock.
    pub(crate) fn remove(&self, hash: Sha256, encoding: Encoding) -> Result<(), BlobError> {
        let path = self.path(hash, encoding);
        match self.fs.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path)(error)),
            _ => Ok(()),
        }
    }
}

/// Where the bytes of an open blob are.
#[derive(Clone, Debug)]
enum Source {
    Memory(Bytes),
    /// The first bytes in a file, the rest in memory.
    File {
        file: Opener,
        rest: Bytes,
    },
}

/// A blob opened for reading; stays readable when the blob is deleted meanwhile.
#[derive(Clone, Debug)]
pub struct OpenBlob {
    source: Source,
    len: u64,
}

impl OpenBlob {
    pub(crate) fn in_memory(bytes: Bytes) -> Self {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self { source: Source::Memory(bytes), len }
    }

    /// What is in a file, and `rest` behind it.
    pub(crate) fn staged(file: Opener, rest: Bytes) -> Self {
        let len = file.len() + u64::try_from(rest.len()).unwrap_or(0);
        Self { source: Source::File { file, rest }, len }
    }

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
    /// `InvalidData` when what is stored has been changed; else as the operating system reports them.
    pub fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        match &self.source {
            Source::Memory(bytes) => Ok(copy_at(bytes, buf, position)),
            Source::File { file, .. } if position < file.len() => file.read_at(buf, position),
            Source::File { file, rest } => Ok(copy_at(rest, buf, position - file.len())),
        }
    }
    /// Whether the two hold the same bytes; false as well where one of them cannot be read.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (vec![0; COMPARED], vec![0; COMPARED]);
        let mut position = 0;
        while self.len == other.len && position < self.len {
            let count = usize::try_from(self.len - position).map_or(COMPARED, |left| left.min(COMPARED));
            let (Some(ours), Some(theirs)) = (ours.get_mut(..count), theirs.get_mut(..count)) else { return false };
            if self.fill(ours, position).is_err() || other.fill(theirs, position).is_err() || ours != theirs {
                return false;
            }
            position += u64::try_from(count).unwrap_or(u64::MAX);
        }
        self.len == other.len
    }

    fn fill(&self, mut buf: &mut [u8], mut position: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let read = self.read_at(buf, position)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf = buf.get_mut(read..).unwrap_or_default();
            position += u64::try_from(read).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}
