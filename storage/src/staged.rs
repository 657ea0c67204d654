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
    /// It has got its name.
    pub(crate) kept: bool,
}

impl StagingFile {
    pub(crate) fn create(fs: Arc<dyn Fs>, path: PathBuf, codec: Codec) -> Result<Self, BlobError> {
        let file = fs.create(&path).map_err(io_error(&path))?;
        Ok(Self { fs, path, file, sealer: Sealer::new(codec), len: 0, stored: 0, kept: false })
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
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.tail.extend_from_slice(bytes);
        self.len += to_u64(bytes.len());
        if self.file.is_none() && self.tail.len() <= self.stage.inline_bytes() {
            return Ok(());
        }
        // What may be the last chunk waits.
        let whole = self.tail.len().saturating_sub(1) / CHUNK * CHUNK;
        self.write_out(whole, false)
    }

    /// Moves the first `count` bytes of what is in memory to the file, which is made when there is none.
    fn write_out(&mut self, count: usize, last: bool) -> Result<(), BlobError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.stage.create()?),
        };
        // Also of no bytes at all something may be stored.
        if count > 0 || last {
            file.append(self.tail.get(..count).unwrap_or_default(), last)?;
            self.tail.drain(..count);
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
        self.write_out(self.tail.len(), true)?;
        // Made by the line above, where it was not there before.
        self.file.map_or_else(|| self.stage.create(), Ok)
    }
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
