//! Reading of an adopted store: what is served under a hash has that hash.
//!
//! Nothing in the files says so: they may be cut short, changed, or decrypted with a key of another store. So a file is
//! hashed as a whole before its first byte is served; what was good stays good while length and time are the same.
//! Keeps the law BLOB-HASH.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use azulite_storage::adopted::{AdoptedBlob, AdoptedDir, AdoptedFile};
use azulite_storage::ids::Sha256;
use sha2::Digest as _;

use super::super::store::{BlobReader, Place, StoreError};

/// Bytes read at once.
const PIECE_BYTES: usize = 128 << 10;
/// Files remembered as good; when there are more, all are forgotten.
const REMEMBERED: usize = 65_536;

/// Path, length, and time of its last change.
type Seen = (PathBuf, u64, i64);

/// The folder of an adopted store.
pub(super) struct Adopted {
    dir: AdoptedDir,
    good: Mutex<HashSet<Seen>>,
}

impl Adopted {
    pub(super) fn new(dir: AdoptedDir) -> Self {
        Self { dir, good: Mutex::default() }
    }

    /// The file of a blob, be there a key for it or not.
    pub(super) fn find(&self, place: &Place, hash: &Sha256) -> Result<Option<AdoptedFile>, StoreError> {
        Ok(self.dir.find(&place.source, &place.label, *hash)?)
    }

    /// The file of a blob that can be read.
    ///
    /// # Errors
    /// Those of the file system; one that names the missing key.
    pub(super) fn find_open(&self, place: &Place, hash: &Sha256) -> Result<Option<AdoptedFile>, StoreError> {
        match self.find(place, hash)? {
            Some(found) if found.locked => {
                let text = format!("{} is encrypted, and streams.adopt_key_file names no key", found.path().display());
                Err(StoreError::Io(io::Error::other(text)))
            }
            found => Ok(found),
        }
    }

    /// Removes a blob in every form.
    pub(super) fn remove(&self, place: &Place, hash: &Sha256) -> Result<bool, StoreError> {
        Ok(self.dir.remove(&place.source, &place.label, *hash)?)
    }

    /// Opens a blob whose bytes were not looked at.
    pub(super) fn open_unchecked(
        &self,
        place: &Place,
        hash: &Sha256,
    ) -> Result<Option<(AdoptedFile, Reader)>, StoreError> {
        let Some(found) = self.find_open(place, hash)? else { return Ok(None) };
        let blob = self.dir.read(&found)?;
        Ok(blob.map(|blob| (found, Reader { hash: *hash, blob })))
    }

    /// Opens a blob whose bytes have that hash.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], naming the file, when they do not.
    pub(super) fn open(&self, place: &Place, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        let Some((found, blob)) = self.open_unchecked(place, hash)? else { return Ok(None) };
        let seen = (found.path().to_owned(), found.size, found.modified_ms);
        if !self.good().contains(&seen) {
            copy_out(&blob, hash, &found, |_| Ok(()))?;
            let mut good = self.good();
            if good.len() >= REMEMBERED {
                good.clear();
            }
            good.insert(seen);
        }
        Ok(Some(Arc::new(blob)))
    }

    fn good(&self) -> std::sync::MutexGuard<'_, HashSet<Seen>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens another copy of what is damaged elsewhere: at its place, else at the empty one.
    ///
    /// # Errors
    /// The damage, when there is none that is good.
    pub(super) fn instead(
        &self,
        place: &Place,
        hash: &Sha256,
        damage: StoreError,
    ) -> Result<Arc<dyn BlobReader>, StoreError> {
        for place in [place, &Place::default()] {
            match self.open(place, hash) {
                Ok(Some(blob)) => {
                    tracing::warn!(%place, %hash, %damage, "a blob is read from the adopted store");
                    return Ok(blob);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%place, %hash, %error, "the adopted store does not help either"),
            }
        }
        Err(damage)
    }
}

/// Gives all bytes of a blob away, in pieces.
///
/// # Errors
/// [`StoreError::Damaged`] after the last one, when they are not those of `hash`.
pub(super) fn copy_out(
    blob: &Reader,
    hash: &Sha256,
    file: &AdoptedFile,
    mut each: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut digest = sha2::Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut position = 0;
    while position < blob.len() {
        let count = usize::try_from(blob.len() - position).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let bytes = piece.get_mut(..count).unwrap_or_default();
        blob.read_exact_at(bytes, position)?;
        digest.update(&*bytes);
        each(bytes)?;
        position += u64::try_from(count).unwrap_or(u64::MAX);
    }
    if digest.finalize().as_slice() == hash.0.as_slice() {
        return Ok(());
    }
    let why = match file.is_encrypted() {
        true => "it was changed, or the key in streams.adopt_key_file is another",
        false => "it was changed or cut short",
    };
    Err(StoreError::Damaged(format!("{} does not hold the bytes it is named after: {why}", file.path().display())))
}

/// A blob of the adopted store.
pub(super) struct Reader {
    hash: Sha256,
    blob: AdoptedBlob,
}

impl BlobReader for Reader {
    fn len(&self) -> u64 {
        self.blob.len()
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut position: u64) -> Result<(), StoreError> {
        while !buf.is_empty() {
            match self.blob.read_at(buf, position) {
                Ok(0) => {
                    return Err(StoreError::Damaged(format!("{} ends before byte {}", self.hash, self.blob.len())));
                }
                Ok(read) => {
                    buf = buf.get_mut(read..).unwrap_or_default();
                    position += u64::try_from(read).unwrap_or(0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
