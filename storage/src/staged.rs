//! Uploads under way: the bytes of a blob before anybody knows its name.
//!
//! They are kept in memory as long as they may become an inline blob; more than that goes to a file in staging, a
//! chunk at a time. Small uploads never touch staging.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::blob::{BlobError, OpenBlob, Stage, io_error};
use crate::encoding::{CHUNK, Codec, Opener, Sealer};
use crate::fs::{Fs, FsFile};

/// Bytes after which the disk begins with what was written, while more comes in: the sync at the end finds less to do.
const WRITE_AHEAD: u64 = 8 << 20;

/// The file of an upload that is no small one. Dropped without a name of its own, it is removed.
#[derive(Debug)]
pub(crate) struct StagingFile {
    fs: Arc<dyn Fs>,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn FsFile>,
    sealer: Sealer,
    /// Plain bytes of the blob in it.
    len: u64,
    /// Bytes written.
    stored: u64,
    /// Those that the disk has been told to begin with.
    begun: u64,
    /// It has got its name.
    pub(crate) kept: bool,
}

impl StagingFile {
    pub(crate) fn create(fs: Arc<dyn Fs>, path: PathBuf, codec: Codec) -> Result<Self, BlobError> {
        let file = fs.create(&path).map_err(io_error(&path))?;
        Ok(Self { fs, path, file, sealer: Sealer::new(codec), len: 0, stored: 0, begun: 0, kept: false })
    }

    /// Adds whole chunks or, at the end, what is left.
    fn append(&mut self, plain: &[u8], last: bool) -> Result<(), BlobError> {
        let mut sealed = Vec::new();
        let bytes = if self.sealer.is_plain() {
            plain
        } else {
            self.sealer.seal(plain, last, &mut sealed).map_err(io_error(&self.path))?;
            &sealed
        };
        if !bytes.is_empty() {
            let written = self.file.write_all_at(&mut [IoSlice::new(bytes)], self.stored);
            written.map_err(io_error(&self.path))?;
        }
        self.len += to_u64(plain.len());
        self.stored += to_u64(bytes.len());
        if self.stored - self.begun >= WRITE_AHEAD {
            self.file.begin_writing(self.begun, self.stored - self.begun);
            self.begun = self.stored;
        }
        Ok(())
    }
}

impl Drop for StagingFile {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.fs.remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "a staging file stays until the next start");
        }
    }
}

/// Bytes of an upload under way. Dropped without being published, they are gone.
#[derive(Debug)]
pub struct StagedFile {
    stage: Stage,
    /// `None` while everything fits into `tail`.
    file: Option<StagingFile>,
    /// What is not in the file: all of it, or up to a chunk.
    tail: Vec<u8>,
    len: u64,
}

impl StagedFile {
    pub(crate) fn new(stage: Stage) -> Self {
        Self { stage, file: None, tail: Vec::new(), len: 0 }
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// [`BlobError::DiskFull`] and [`BlobError::Io`]; drop it then.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        self.len += to_u64(bytes.len());
        if self.file.is_none() && self.tail.len() + bytes.len() <= self.stage.inline_bytes() {
            self.tail.extend_from_slice(bytes);
            return Ok(());
        }
        // From here on it is no small one, whatever has been written of it.
        Self::file(&mut self.file, &self.stage)?;
        // Whole chunks go out as soon as something follows them: what may be the last one waits.
        let missing = self.tail.len().next_multiple_of(CHUNK) - self.tail.len();
        let Some((head, rest)) = bytes.split_at_checked(missing).filter(|(_, rest)| !rest.is_empty()) else {
            self.tail.extend_from_slice(bytes);
            return Ok(());
        };
        self.tail.extend_from_slice(head);
        bytes = rest;
        self.write_tail(false)?;
        if let Some((whole, rest)) = bytes.split_at_checked((bytes.len() - 1) / CHUNK * CHUNK) {
            if !whole.is_empty() {
                Self::file(&mut self.file, &self.stage)?.append(whole, false)?;
            }
            bytes = rest;
        }
        self.tail.extend_from_slice(bytes);
        Ok(())
    }

    /// The file, which is made when there is none.
    fn file<'a>(file: &'a mut Option<StagingFile>, stage: &Stage) -> Result<&'a mut StagingFile, BlobError> {
        Ok(match file {
            Some(file) => file,
            none => none.insert(stage.create()?),
        })
    }

    /// Moves what is in memory to the file.
    fn write_tail(&mut self, last: bool) -> Result<(), BlobError> {
        let file = Self::file(&mut self.file, &self.stage)?;
        // Also of no bytes at all something may be stored.
        if last || !self.tail.is_empty() {
            file.append(&self.tail, last)?;
            self.tail.clear();
        }
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
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn reader(&self) -> Result<OpenBlob, BlobError> {
        let tail = Bytes::copy_from_slice(&self.tail);
        let Some(staging) = &self.file else { return Ok(OpenBlob::in_memory(tail)) };
        let opener = Opener::new(staging.file.clone(), staging.sealer.codec(), staging.len, false);
        Ok(OpenBlob::staged(opener.map_err(io_error(&staging.path))?, tail))
    }

    /// All of the bytes, when they are so few that they go into the log.
    pub(crate) fn small(&self) -> Option<&[u8]> {
        (self.file.is_none() && self.stage.inline_bytes() > 0).then_some(self.tail.as_slice())
    }

    /// All of the bytes in their file.
    pub(crate) fn into_file(mut self) -> Result<StagingFile, BlobError> {
        self.write_tail(true)?;
        // Made by the line above, where it was not there before.
        self.file.map_or_else(|| self.stage.create(), Ok)
    }
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
