//! One file on its way in: its beginning in memory, the rest read as it is needed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};

use bytes::Bytes;
use sha2::Digest as _;

use azulite_storage::ids::Sha256;

/// Files up to this size are read once, whole.
pub(super) const HEAD_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 128 << 10;

/// An open file.
pub(super) struct Content {
    head: Bytes,
    file: File,
    whole: bool,
}

/// What a file was like when it was opened: a changed file is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Bytes.
    pub(super) size: u64,
    /// Last change, nanoseconds since 1970.
    pub(super) modified_ns: i128,
}

impl Look {
    /// At an open file.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub(super) fn at(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let modified_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Ok(Self { size: meta.len(), modified_ns })
    }
}

impl Content {
    /// Reads the beginning of a file of about `size` bytes.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub(super) fn begin(mut file: File, size: u64) -> io::Result<Self> {
        let limit = u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX);
        // Room for one more byte, so that the end is found without growing.
        let mut head = Vec::with_capacity(usize::try_from(size.saturating_add(1).min(limit)).unwrap_or(0));
        file.by_ref().take(limit).read_to_end(&mut head)?;
        let whole = head.len() < HEAD_BYTES;
        Ok(Self { head: head.into(), file, whole })
    }

    /// All of it, when it is that short.
    pub(super) fn whole(&self) -> Option<Bytes> {
        self.whole.then(|| self.head.clone())
    }

    /// True for a file without bytes.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Reads from the first byte on.
    pub(super) fn reader(&self) -> ContentReader<'_> {
        ContentReader { content: self, position: 0 }
    }

    /// Hands over all of it in pieces.
    ///
    /// # Errors
    /// Reading failed, or `take` did.
    pub(super) fn pieces<E: From<io::Error>>(&self, mut take: impl FnMut(Bytes) -> Result<(), E>) -> Result<(), E> {
        let mut head = self.head.clone();
        while !head.is_empty() {
            take(head.split_to(PIECE_BYTES.min(head.len())))?;
        }
        let mut position = u64::try_from(self.head.len()).unwrap_or(u64::MAX);
        if self.whole {
            return Ok(());
        }
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = self.file.read_at(&mut piece, position)?;
            if read == 0 {
                return Ok(());
            }
            piece.truncate(read);
            position += u64::try_from(read).unwrap_or(0);
            take(piece.into())?;
        }
    }

    /// Its hash, read through once.
    ///
    /// # Errors
    /// Reading failed.
    pub(super) fn sha256(&self) -> io::Result<String> {
        let mut hasher = sha2::Sha256::new();
        self.pieces(|piece| {
            hasher.update(&piece);
            io::Result::Ok(())
        })?;
        Ok(Sha256(hasher.finalize().into()).to_string())
    }
}

/// See [`Content::reader`].
pub(super) struct ContentReader<'a> {
    content: &'a Content,
    position: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let head = usize::try_from(self.position).ok().and_then(|at| self.content.head.get(at..)).unwrap_or_default();
        let read = match head.is_empty() {
            false => (&mut &*head).read(buf)?,
            true if self.content.whole => 0,
            true => self.content.file.read_at(buf, self.position)?,
        };
        self.position += u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_any_size_are_read_to_their_end_by_every_way() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, PIECE_BYTES, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 3 * HEAD_BYTES + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let path = folder.path().join("f");
            std::fs::write(&path, &bytes).unwrap();
            let guess = u64::try_from(size / 2).unwrap();
            let content = Content::begin(File::open(&path).unwrap(), guess).unwrap();
            assert_eq!((content.is_empty(), content.whole().is_some()), (size == 0, size < HEAD_BYTES), "{size}");
            let mut pieces = Vec::new();
            content
                .pieces(|piece| {
                    pieces.extend_from_slice(&piece);
                    io::Result::Ok(())
                })
                .unwrap();
            assert!(pieces == bytes, "{size}");
            let mut read = Vec::new();
            content.reader().read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{size}");
            let hash: [u8; 32] = sha2::Sha256::digest(&bytes).into();
            assert_eq!(content.sha256().unwrap(), Sha256(hash).to_string());
        }
    }
}
