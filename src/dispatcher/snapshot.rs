//! Files that caches survive a restart in.
//!
//! Such a file only saves work: one that is missing, cut, damaged or of another version is an empty cache and a line in
//! the log, never a reason not to start. Written by name and rename, so that an older whole one is kept until the new one
//! is whole.
//!
//! | 0..8 | 8..12                     | 12..n-4           | n-4..n                          |
//! |------|---------------------------|-------------------|---------------------------------|
//! | kind | version, big-endian       | the cache's bytes | CRC-32C of all before, big-endian |

use std::io::{self, IoSlice, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use azulite_storage::fs::{self, Fs, FsFile};

/// Bytes read or written at once.
const CHUNK_BYTES: usize = 1 << 20;
const CRC_BYTES: u64 = 4;

/// One cache's file.
#[derive(Clone, Debug)]
pub(super) struct SnapshotFile {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    kind: [u8; 8],
    version: u32,
}

impl SnapshotFile {
    /// The file at `path` for caches of this kind, in this version of their layout.
    pub(super) fn new(fs: Arc<dyn Fs>, path: PathBuf, kind: [u8; 8], version: u32) -> Self {
        Self { fs, path, kind, version }
    }

    fn head(&self) -> [u8; 12] {
        let mut head = [0; 12];
        let (kind, version) = head.split_at_mut(8);
        kind.copy_from_slice(&self.kind);
        version.copy_from_slice(&self.version.to_be_bytes());
        head
    }

    /// Replaces the file with what `content` writes.
    ///
    /// # Durability
    /// On `Ok` the new content is on the disk; on `Err` the old one is.
    /// # Errors
    /// As the operating system reports them.
    pub(super) fn write(&self, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(std::path::Path::new("."));
        fs::create_dir_durably(self.fs.as_ref(), folder)?;
        let temporary = fs::with_suffix(&self.path, ".tmp");
        if self.fs.meta(&temporary)?.is_some() {
            self.fs.remove_file(&temporary)?;
        }
        let written = self.write_to(self.fs.create(&temporary)?, content);
        if let Err(error) = written {
            // What is left over is removed by the next attempt, if not now.
            drop(self.fs.remove_file(&temporary));
            return Err(error);
        }
        self.fs.rename(&temporary, &self.path)?;
        self.fs.sync_dir(folder)
    }

    fn write_to(
        &self,
        file: Arc<dyn FsFile>,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = Sum { file: Positioned { file, position: 0, end: u64::MAX }, crc: 0 };
        let mut buffered = io::BufWriter::with_capacity(CHUNK_BYTES, &mut out);
        buffered.write_all(&self.head())?;
        content(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        let crc = out.crc;
        out.write_all(&crc.to_be_bytes())?;
        out.file.file.sync_data()
    }

    /// Gives the content to `content`; `None` when there is no file.
    ///
    /// What `content` makes of the bytes counts only when this returns `Ok`: the checksum comes last.
    ///
    /// # Errors
    /// `InvalidData` for a file that is not whole or not of this kind and version, else as the operating system reports
    /// them.
    pub(super) fn read<T>(&self, content: impl FnOnce(&mut dyn Read) -> io::Result<T>) -> io::Result<Option<T>> {
        let file = match self.fs.open_read(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let end = file.len()?.checked_sub(CRC_BYTES).ok_or_else(|| invalid("it is too short"))?;
        let mut source = Sum { file: Positioned { file, position: 0, end }, crc: 0 };
        let mut buffered = io::BufReader::with_capacity(CHUNK_BYTES, &mut source);
        let mut head = [0; 12];
        buffered.read_exact(&mut head)?;
        if head != self.head() {
            return Err(invalid("it is of another kind or version"));
        }
        let read = content(&mut buffered)?;
        if io::copy(&mut buffered, &mut io::sink())? > 0 {
            return Err(invalid("it holds more than it says"));
        }
        let (crc, mut stored) = (source.crc, [0; 4]);
        fs::read_exact_at(source.file.file.as_ref(), &mut stored, end)?;
        if stored != crc.to_be_bytes() {
            return Err(invalid("its checksum is wrong"));
        }
        Ok(Some(read))
    }

    /// Reads the file as [`read`](Self::read) does; anything that is wrong with it is logged and nothing was read.
    pub(super) fn restore<T>(&self, content: impl FnOnce(&mut dyn Read) -> io::Result<T>) -> Option<T> {
        self.read(content).unwrap_or_else(|error| {
            let path = self.path.display();
            tracing::warn!(%path, %error, "a cache could not be read back and starts empty; nothing is lost by that");
            None
        })
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A file that is read or written from its beginning on.
struct Positioned {
    file: Arc<dyn FsFile>,
    position: u64,
    /// Reading stops here.
    end: u64,
}

/// With the checksum of all bytes that went through.
struct Sum {
    file: Positioned,
    crc: u32,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.file.write_all_at(&mut [IoSlice::new(bytes)], self.file.position)?;
        self.file.position += u64::try_from(bytes.len()).unwrap_or(0);
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Sum {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.file.end.saturating_sub(self.file.position)).unwrap_or(usize::MAX);
        let wanted = bytes.len().min(left);
        let Some(bytes) = bytes.get_mut(..wanted).filter(|bytes| !bytes.is_empty()) else { return Ok(0) };
        let read = self.file.file.read_at(bytes, self.file.position)?;
        self.file.position += u64::try_from(read).unwrap_or(0);
        self.crc = crc32c::crc32c_append(self.crc, bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use azulite_storage::fs::RealFs;

    fn file(folder: &std::path::Path, version: u32) -> SnapshotFile {
        SnapshotFile::new(Arc::new(RealFs), folder.join("caches").join("x"), *b"testtest", version)
    }

    fn all(from: &mut dyn Read) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_was_written_is_read_back_and_the_newest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = file(folder.path(), 1);
        assert_eq!(snapshot.read(all).unwrap(), None);
        for content in [vec![7; 3 << 20], b"short".to_vec(), Vec::new()] {
            snapshot.write(|out| out.write_all(&content)).unwrap();
            assert_eq!(snapshot.read(all).unwrap(), Some(content));
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = file(folder.path(), 1);
        snapshot.write(|out| out.write_all(b"old")).unwrap();
        let failed = snapshot.write(|out| {
            out.write_all(b"new")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err());
        assert_eq!(snapshot.read(all).unwrap(), Some(b"old".to_vec()));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = file(folder.path(), 1);
        snapshot.write(|out| out.write_all(b"content")).unwrap();
        let whole = std::fs::read(&snapshot.path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&snapshot.path, &whole[..length]).unwrap();
            assert!(snapshot.read(all).is_err(), "cut to {length}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&snapshot.path, &flipped).unwrap();
            assert!(snapshot.read(all).is_err(), "flipped at {at}");
        }
        std::fs::write(&snapshot.path, &whole).unwrap();
        assert!(file(folder.path(), 2).read(all).is_err(), "another version");
        assert!(file(folder.path(), 1).read(|_| Ok(())).is_err(), "content that was not read is noticed");
        assert!(file(folder.path(), 1).read(all).is_ok());
    }
}
