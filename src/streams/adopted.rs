//! A local store of the upstream service beside our own: read where it lies, deleted from, never added to.
//!
//! What is not ours is looked for there, under the same source and label; new blobs, and copies, are ours. Trouble there
//! is no trouble for what is ours, and what is damaged of ours may be read there. Spec: streams.md 5.2 to 5.4.

mod verified;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use azulite_storage::adopted::{AES_KEY_LEN, AdoptedDir, AdoptedKey};
use azulite_storage::fs::{RealFs, read_small};
use azulite_storage::ids::Sha256;

use self::verified::{Adopted, copy_out};
use super::store::{BlobReader, BlobRecord, BlobStore, Deleted, Listed, Place, Staged, Stat, StoreError, is_older};

/// Why an existing store of the upstream service cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// `streams.adopt_dir` is no folder that can be read.
    #[error("streams.adopt_dir: {path}: {error}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The key file cannot be read.
    #[error("streams.adopt_key_file: {path}: {error}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A key of another length.
    #[error("streams.adopt_key_file: {path} holds {found} bytes, an AES key of the upstream service has {AES_KEY_LEN}")]
    KeyLength {
        /// The file.
        path: PathBuf,
        /// Its length, without an end of line.
        found: usize,
    },
}

/// Our own blobs and, behind them, those of an adopted store.
pub struct AdoptedBlobs {
    own: Arc<dyn BlobStore>,
    adopted: Arc<Adopted>,
}

impl AdoptedBlobs {
    /// `own` with `adopted` behind it.
    #[must_use]
    pub fn new(own: Arc<dyn BlobStore>, adopted: AdoptedDir) -> Self {
        Self { own, adopted: Arc::new(Adopted::new(adopted)) }
    }

    /// `own` with the store in `folder` behind it, whose AES key is in `key_file`.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub fn open(own: Arc<dyn BlobStore>, folder: &Path, key_file: Option<&Path>) -> Result<Self, AdoptError> {
        let key = key_file.map(read_key).transpose()?;
        let adopted = AdoptedDir::open(Arc::new(RealFs), folder.to_owned(), key);
        let adopted = adopted.map_err(|error| AdoptError::Folder { path: folder.to_owned(), error })?;
        Ok(Self::new(own, adopted))
    }

    /// Trouble with the adopted store at a place where nothing is ours: told, unless the caller will look at the empty place
    /// next and find ours there.
    fn trouble(&self, place: &Place, hash: &Sha256, error: StoreError) -> Result<(), StoreError> {
        let anywhere = Place::default();
        if *place == anywhere || self.own.stat(&anywhere, hash)?.is_none() {
            return Err(error);
        }
        tracing::warn!(%place, %hash, %error, "the adopted store cannot be read; the blob is ours as well");
        Ok(())
    }

    /// Our own bytes, or, where those are damaged, those of the adopted store.
    fn open_own(&self, place: &Place, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        match self.own.open(hash) {
            Ok(Some(own)) => {
                let (place, adopted) = (place.clone(), self.adopted.clone());
                Ok(Some(Arc::new(Backed { own, hash: *hash, place, adopted, other: OnceLock::new() })))
            }
            Err(error) if error.is_of_one_blob() => self.adopted.instead(place, hash, error).map(Some),
            other => other,
        }
    }

    /// Makes an adopted blob ours, under `to`. Its bytes are checked on the way.
    fn take_over(&self, from: &Place, to: &Place, hash: &Sha256) -> Result<bool, StoreError> {
        let Some((file, blob)) = self.adopted.open_unchecked(from, hash)? else { return Ok(false) };
        let mut staged = self.own.stage()?;
        copy_out(&blob, hash, &file, |bytes| staged.write(bytes))?;
        let sparse = || BlobRecord { size: blob.len(), sha256: hash.to_string(), ..BlobRecord::default() };
        let record = self.own.known(hash)?.unwrap_or_else(sparse);
        staged.publish(hash, to, &record)?;
        Ok(true)
    }
}

/// A blob of ours, of which the adopted store may have another copy.
struct Backed {
    own: Arc<dyn BlobReader>,
    hash: Sha256,
    place: Place,
    adopted: Arc<Adopted>,
    /// The other copy, once ours was found to be damaged.
    other: OnceLock<Arc<dyn BlobReader>>,
}

impl BlobReader for Backed {
    fn len(&self) -> u64 {
        self.own.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> Result<(), StoreError> {
        if let Some(other) = self.other.get() {
            return other.read_exact_at(buf, position);
        }
        match self.own.read_exact_at(buf, position) {
            Err(error) if error.is_of_one_blob() => {
                let other = self.adopted.instead(&self.place, &self.hash, error)?;
                self.other.get_or_init(|| other).read_exact_at(buf, position)
            }
            read => read,
        }
    }
}

impl BlobStore for AdoptedBlobs {
    fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        self.own.stage()
    }

    fn stat(&self, place: &Place, hash: &Sha256) -> Result<Option<Stat>, StoreError> {
        if let Some(stat) = self.own.stat(place, hash)? {
            return Ok(Some(stat));
        }
        match self.adopted.find_open(place, hash) {
            Ok(found) => Ok(found.map(|found| Stat { size: found.size, stored_ms: found.modified_ms })),
            Err(error) => self.trouble(place, hash, error).map(|()| None),
        }
    }

    fn known(&self, hash: &Sha256) -> Result<Option<BlobRecord>, StoreError> {
        self.own.known(hash)
    }

    fn open(&self, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        self.open_at(&Place::default(), hash)
    }

    fn open_at(&self, place: &Place, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        match self.open_own(place, hash)? {
            Some(blob) => Ok(Some(blob)),
            None => self.adopted.open(place, hash),
        }
    }

    /// Ours alone: of the others nothing is known but where they lie.
    fn all(&self) -> Listed {
        self.own.all()
    }

    fn redescribe(&self, place: &Place, hash: &Sha256, record: &BlobRecord) -> Result<bool, StoreError> {
        self.own.redescribe(place, hash, record)
    }

    fn copy(&self, from: &Place, to: &Place, hash: &Sha256) -> Result<bool, StoreError> {
        match self.own.copy(from, to, hash) {
            Ok(false) => self.take_over(from, to, hash),
            Err(error) if error.is_of_one_blob() => match self.take_over(from, to, hash) {
                Ok(true) => Ok(true),
                Ok(false) | Err(_) => Err(error),
            },
            copied => copied,
        }
    }

    fn delete(&self, place: &Place, hash: &Sha256, older_than: Option<i64>) -> Result<Deleted, StoreError> {
        let found = match self.adopted.find(place, hash) {
            Ok(Some(found)) => found,
            Ok(None) => return self.own.delete(place, hash, older_than),
            Err(error) => {
                let deleted = self.own.delete(place, hash, older_than)?;
                match deleted {
                    Deleted::NotFound => self.trouble(place, hash, error)?,
                    Deleted::Yes | Deleted::TooYoung => {
                        tracing::warn!(%place, %hash, %error, "the adopted store cannot be read; it may hold the blob still");
                    }
                }
                return Ok(deleted);
            }
        };
        if !is_older(found.modified_ms, older_than) {
            return Ok(Deleted::TooYoung);
        }
        // Ours first: where that one is too young, both stay.
        if self.own.delete(place, hash, older_than)? == Deleted::TooYoung {
            return Ok(Deleted::TooYoung);
        }
        self.adopted.remove(place, hash)?;
        Ok(Deleted::Yes)
    }
}

/// The key in a file; an end of line behind it is not counted.
fn read_key(path: &Path) -> Result<AdoptedKey, AdoptError> {
    let read = read_small(&RealFs, path, 4096);
    let mut bytes = read.map_err(|error| AdoptError::KeyFile { path: path.to_owned(), error })?;
    if bytes.len() > AES_KEY_LEN && bytes.ends_with(b"\n") {
        bytes.pop();
    }
    let found = bytes.len();
    bytes.try_into().map(AdoptedKey).map_err(|_| AdoptError::KeyLength { path: path.to_owned(), found })
}

#[cfg(test)]
mod tests;
