//! The file layer: the only place in this crate that opens for writing, renames, syncs or removes files.
//!
//! Everything durable goes through [`Fs`], so a test can replace the disk by one that loses power. What is promised is
//! what POSIX file systems promise and no more: written bytes may be lost or torn until [`FsFile::sync_data`], a name
//! may be lost until [`Fs::sync_dir`] of its directory.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One open file. Reads and writes are positioned; the file has no cursor.
#[expect(clippy::len_without_is_empty, reason = "a file's length, not a collection's")]
pub trait FsFile: Send + Sync + fmt::Debug {
    /// Reads up to `buf.len()` bytes at `position`; 0 at the end of the file.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `bufs`, one after another, from `position` on.
    ///
    /// # Durability
    /// None before [`FsFile::sync_data`]. On `Err` any prefix may have been written.
    /// # Errors
    /// As the operating system reports them; `StorageFull` when the disk is.
    fn write_all_at(&self, bufs: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;

    /// Tells the disk to begin with what was written there. A hint: nothing is durable by it, and it waits for nothing.
    fn begin_writing(&self, _position: u64, _len: u64) {}

    /// Reserves disk blocks up to `len` and makes the file at least that long; the new bytes read as zero.
    ///
    /// # Errors
    /// `StorageFull` when the disk cannot hold it.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts or extends the file to `len` bytes.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn len(&self) -> io::Result<u64>;

    /// Makes the content and the length durable (`fdatasync`).
    ///
    /// # Errors
    /// After an error nothing is known about any write since the last sync: the caller must not go on writing.
    fn sync_data(&self) -> io::Result<()>;
}

/// What a directory holds under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Last path component. Names that are not UTF-8 are shown lossily; we never write such names.
    pub name: String,
    /// True for directories.
    pub is_dir: bool,
}

/// What is known of a path without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Length in bytes.
    pub len: u64,
    /// True for directories.
    pub is_dir: bool,
    /// Last modification, milliseconds since 1970.
    pub modified_ms: i64,
}

/// Room on the file system that holds a path, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes an unprivileged process may still write.
    pub free: u64,
    /// Size of the file system.
    pub total: u64,
}

/// A lock held on a file until dropped.
pub trait FsLock: Send + Sync + fmt::Debug {
    /// Replaces the text inside the locked file. Not durable: the text only helps others to find the holder.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn describe(&self, text: &str) -> io::Result<()>;
}

/// A file system, or a test's stand-in for one.
pub trait Fs: Send + Sync + fmt::Debug {
    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// `NotFound` and whatever else the operating system reports.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` and whatever else the operating system reports.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    /// Creates a file, mode 0600, that must not exist yet. The name is durable after [`Fs::sync_dir`] of its directory.
    ///
    /// # Errors
    /// `AlreadyExists` and whatever else the operating system reports.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;
    /// Gives `from` the name `to`, replacing what was there. Durable after [`Fs::sync_dir`] of both directories.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name. Durable after [`Fs::sync_dir`].
    ///
    /// # Errors
    /// As the operating system reports them.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Creates one directory, mode 0700. Durable after [`Fs::sync_dir`] of its parent.
    ///
    /// # Errors
    /// `AlreadyExists` and whatever else the operating system reports.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As for [`FsFile::sync_data`].
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound` and whatever else the operating system reports.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// What is known of a path; `None` when nothing has that name.
    ///
    /// # Errors
    /// Whatever the operating system reports other than `NotFound`.
    fn meta(&self, path: &Path) -> io::Result<Option<Meta>>;
    /// Room on the file system that holds `path`.
    ///
    /// # Errors
    /// As the operating system reports them.
    fn room(&self, path: &Path) -> io::Result<Room>;
    /// Takes the exclusive lock on a file, creating it; held until the guard is dropped or the process ends, and not
    /// inherited by children.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>>;
}

/// Creates a directory and its missing parents below `root`, each made durable in its parent.
///
/// # Errors
/// As [`Fs::create_dir`] and [`Fs::sync_dir`]; an existing directory is not an error.
pub fn create_dir_durably(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    if fs.meta(path)?.is_some() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir_durably(fs, parent)?;
    }
    match fs.create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    fs.sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Reads a small file whole.
///
/// # Errors
/// As [`Fs::open_read`]; `InvalidData` when it is longer than `limit` bytes.
pub fn read_small(fs: &dyn Fs, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = fs.open_read(path)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    if len > limit {
        let text = format!("{} is {len} bytes long, at most {limit} are expected", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; len];
    read_exact_at(file.as_ref(), &mut bytes, 0)?;
    Ok(bytes)
}

/// Fills `buf` from `position` on.
///
/// # Errors
/// `UnexpectedEof` when the file ends before the buffer is full.
pub fn read_exact_at(file: &dyn FsFile, mut buf: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = buf.get_mut(n..).unwrap_or_default();
                position += u64::try_from(n).unwrap_or(u64::MAX);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes a small file so that either its old or its new content is there after a power cut: temporary name, sync,
/// rename, directory sync.
///
/// # Errors
/// As the steps; the old content is kept.
pub fn replace_durably(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(path, ".tmp");
    if fs.meta(&temporary)?.is_some() {
        fs.remove_file(&temporary)?;
    }
    let file = fs.create(&temporary)?;
    file.write_all_at(&mut [IoSlice::new(bytes)], 0)?;
    file.sync_data()?;
    fs.rename(&temporary, path)?;
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// `path` with `suffix` put after its last component.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// True when the disk, or what this user may have of it, is used up.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The operating system's own files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

#[derive(Debug)]
struct RealFile(File);

/// Linux takes at most this many slices in one vectored write.
const MAX_SLICES: usize = 1024;

impl FsFile for RealFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buf, position)
    }

    fn write_all_at(&self, mut bufs: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut bufs, 0);
        while !bufs.is_empty() {
            let group = bufs.get(..MAX_SLICES).unwrap_or(bufs);
            match rustix::io::pwritev(&self.0, group, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    IoSlice::advance_slices(&mut bufs, n);
                    position += u64::try_from(n).unwrap_or(u64::MAX);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn begin_writing(&self, position: u64, len: u64) {
        // Linux writes dirty pages of the range first, without waiting, and lets go only of those that are clean already.
        let advice = rustix::fs::Advice::DontNeed;
        rustix::fs::fadvise(&self.0, position, std::num::NonZeroU64::new(len), advice).ok();
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.fill_with_zeroes(len),
            Err(e) => Err(e.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl RealFile {
    /// The slow way to reserve blocks, for file systems without `fallocate`.
    fn fill_with_zeroes(&self, len: u64) -> io::Result<()> {
        let zeroes = vec![0_u8; 1 << 20];
        let mut position = self.len()?;
        while position < len {
            let step = usize::try_from(len - position).unwrap_or(usize::MAX).min(zeroes.len());
            self.0.write_all_at(zeroes.get(..step).unwrap_or_default(), position)?;
            position += u64::try_from(step).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct RealLock(File);

impl FsLock for RealLock {
    fn describe(&self, text: &str) -> io::Result<()> {
        self.0.write_all_at(text.as_bytes(), 0)?;
        self.0.set_len(u64::try_from(text.len()).unwrap_or(0))
    }
}

impl Fs for RealFs {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "this is the one file that renames")]
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn meta(&self, path: &Path) -> io::Result<Option<Meta>> {
        match std::fs::metadata(path) {
            Ok(m) => {
                let modified_ms = m.mtime().saturating_mul(1000).saturating_add(m.mtime_nsec() / 1_000_000);
                Ok(Some(Meta { len: m.len(), is_dir: m.is_dir(), modified_ms }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        let s = rustix::fs::statvfs(path)?;
        Ok(Room { free: s.f_bavail.saturating_mul(s.f_frsize), total: s.f_blocks.saturating_mul(s.f_frsize) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock(file)))
    }
}

/// Removes a folder of derived data and everything in it. Always the real disk: engines know no other.
///
/// # Errors
/// As the operating system reports them; a missing folder is not an error.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives a folder of derived data its final name. Always the real disk.
///
/// # Errors
/// As the operating system reports them.
pub fn rename_tree(from: &Path, to: &Path) -> io::Result<()> {
    RealFs.rename(from, to)?;
    RealFs.sync_dir(to.parent().unwrap_or(Path::new(".")))
}
