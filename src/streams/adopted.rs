//! A local store of the upstream service beside our own: read where it lies, deleted from, never added to.
//!
//! What is not ours is looked for there, under the same source and label; new blobs, and copies, are ours. Spec:
//! streams.md 5.2 to 5.4.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use azulite_storage::adopted::{AES_KEY_LEN, AdoptedBlob, AdoptedDir, AdoptedFile, AdoptedKey};
use azulite_storage::fs::{RealFs, read_small};
use azulite_storage::ids::Sha256;
use sha2::Digest as _;

use super::store::{BlobReader, BlobRecord, BlobStore, Deleted, Listed, Place, Staged, Stat, StoreError, is_older};

/// Bytes read at once by a copy.
const PIECE_BYTES: usize = 128 << 10;

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
    adopted: AdoptedDir,
}

impl AdoptedBlobs {
    /// `own` with `adopted` behind it.
    #[must_use]
    pub fn new(own: Arc<dyn BlobStore>, adopted: AdoptedDir) -> Self {
        Self { own, adopted }
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

    fn find(&self, place: &Place, hash: &Sha256) -> Result<Option<AdoptedFile>, StoreError> {
        Ok(self.adopted.find(&place.source, &place.label, *hash)?)
    }

    fn open_adopted(&self, place: &Place, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        let Some(found) = self.find(place, hash)? else { return Ok(None) };
        let blob = self.adopted.read(&found)?;
        Ok(blob.map(|blob| -> Arc<dyn BlobReader> { Arc::new(Reader { hash: *hash, blob }) }))
    }

    /// Makes an adopted blob ours, under `to`. Its bytes are checked on the way.
    fn take_over(&self, blob: &dyn BlobReader, to: &Place, hash: &Sha256) -> Result<(), StoreError> {
        let mut staged = self.own.stage()?;
        let mut digest = sha2::Sha256::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut position = 0;
        while position < blob.len() {
            let count = usize::try_from(blob.len() - position).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let bytes = piece.get_mut(..count).unwrap_or_default();
            blob.read_exact_at(bytes, position)?;
            digest.update(&*bytes);
            staged.write(bytes)?;
            position += u64::try_from(count).unwrap_or(u64::MAX);
        }
        if digest.finalize().as_slice() != hash.0.as_slice() {
            return Err(StoreError::Damaged(format!("{hash} of the adopted store has other bytes")));
        }
        let sparse = || BlobRecord { size: blob.len(), sha256: hash.to_string(), ..BlobRecord::default() };
        let record = self.own.known(hash)?.unwrap_or_else(sparse);
        staged.publish(hash, to, &record)
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
        let found = self.find(place, hash)?;
        Ok(found.map(|found| Stat { size: found.size, stored_ms: found.modified_ms }))
    }

    fn known(&self, hash: &Sha256) -> Result<Option<BlobRecord>, StoreError> {
        self.own.known(hash)
    }

    fn open(&self, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        match self.own.open(hash)? {
            Some(blob) => Ok(Some(blob)),
            None => self.open_adopted(&Place::default(), hash),
        }
    }

    fn open_at(&self, place: &Place, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        match self.own.open(hash)? {
            Some(blob) => Ok(Some(blob)),
            None => self.open_adopted(place, hash),
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
        if self.own.copy(from, to, hash)? {
            return Ok(true);
        }
        let Some(blob) = self.open_adopted(from, hash)? else { return Ok(false) };
        self.take_over(blob.as_ref(), to, hash)?;
        Ok(true)
    }

    fn delete(&self, place: &Place, hash: &Sha256, older_than: Option<i64>) -> Result<Deleted, StoreError> {
        let Some(found) = self.find(place, hash)? else { return self.own.delete(place, hash, older_than) };
        if !is_older(found.modified_ms, older_than) {
            return Ok(Deleted::TooYoung);
        }
        // Ours first: where that one is too young, both stay.
        if self.own.delete(place, hash, older_than)? == Deleted::TooYoung {
            return Ok(Deleted::TooYoung);
        }
        self.adopted.remove(&place.source, &place.label, *hash)?;
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

struct Reader {
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

#[cfg(test)]
mod tests {
    use azulite_storage::upstream::xor;

    use super::super::memory::MemoryStore;
    use super::*;

    const PLAIN: &[u8] = b"attack at dawn!\n";

    fn hash() -> Sha256 {
        Sha256(sha2::Sha256::digest(PLAIN).into())
    }

    fn put(root: &Path, place: &str, suffix: &str, bytes: &[u8]) -> std::path::PathBuf {
        let text = hash().to_string();
        let folder = root.join(place).join(&text[0..1]).join(&text[1..2]);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{text}{suffix}"));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn masked() -> Vec<u8> {
        let mut bytes = PLAIN.to_vec();
        xor(&mut bytes, 0);
        bytes
    }

    fn store(root: &Path) -> (Arc<MemoryStore>, AdoptedBlobs) {
        let own = Arc::new(MemoryStore::default());
        let adopted = AdoptedDir::open(Arc::new(RealFs), root.to_owned(), None).unwrap();
        (own.clone(), AdoptedBlobs::new(own, adopted))
    }

    fn part(blobs: &AdoptedBlobs, place: &Place, from: u64, count: usize) -> Vec<u8> {
        let blob = blobs.open_at(place, &hash()).unwrap().unwrap();
        let mut bytes = vec![0; count];
        blob.read_exact_at(&mut bytes, from).unwrap();
        bytes
    }

    /// R18.
    #[test]
    fn a_masked_blob_is_seen_read_in_ranges_and_deleted_where_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let path = put(dir.path(), "lab/content", ".xor", &masked());
        let (_, blobs) = store(dir.path());
        let place = Place::new("lab", "content");
        assert_eq!(blobs.stat(&place, &hash()).unwrap().unwrap().size, 16);
        assert_eq!(blobs.stat(&Place::new("lab", "text"), &hash()).unwrap(), None);
        assert_eq!((part(&blobs, &place, 0, 16), part(&blobs, &place, 7, 5)), (PLAIN.to_vec(), PLAIN[7..12].to_vec()));
        assert_eq!(blobs.delete(&place, &hash(), Some(946_684_800)).unwrap(), Deleted::TooYoung);
        assert_eq!(blobs.delete(&place, &hash(), None).unwrap(), Deleted::Yes);
        assert!(!path.exists());
        assert_eq!(blobs.delete(&place, &hash(), None).unwrap(), Deleted::NotFound);
        assert_eq!(blobs.stat(&place, &hash()).unwrap(), None);
    }

    /// R17, as far as the store goes: the fall-back to the empty place is the service's.
    #[test]
    fn a_blob_without_source_and_label_is_at_the_empty_place() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "", "", PLAIN);
        let (_, blobs) = store(dir.path());
        let found = super::super::copy::find(&blobs, &Place::new("any", "thing"), &hash()).unwrap();
        assert_eq!(found.map(|(place, stat)| (place, stat.size)), Some((Place::default(), 16)));
        assert_eq!(part(&blobs, &Place::default(), 0, 16), PLAIN);
    }

    #[test]
    fn a_copy_is_ours_and_outlives_what_it_was_made_of() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "lab/content", ".xor", &masked());
        let (own, blobs) = store(dir.path());
        let (from, to) = (Place::new("lab", "content"), Place::new("other", "content"));
        assert!(!blobs.copy(&to, &from, &hash()).unwrap());
        assert!(blobs.copy(&from, &to, &hash()).unwrap());
        assert_eq!(blobs.delete(&from, &hash(), None).unwrap(), Deleted::Yes);
        assert_eq!((own.blobs(), part(&blobs, &to, 0, 16)), (1, PLAIN.to_vec()));
    }

    #[test]
    fn what_has_other_bytes_is_not_copied_and_a_deletion_takes_ours_along() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "lab/content", "", b"something else.\n");
        let (own, blobs) = store(dir.path());
        let (from, to) = (Place::new("lab", "content"), Place::new("other", "content"));
        let got = blobs.copy(&from, &to, &hash());
        assert!(matches!(got, Err(StoreError::Damaged(_))), "got {got:?}");
        assert_eq!(own.blobs(), 0);
        own.put(from.clone(), PLAIN);
        assert_eq!(part(&blobs, &from, 0, 16), PLAIN, "ours counts before theirs");
        assert_eq!(blobs.delete(&from, &hash(), None).unwrap(), Deleted::Yes);
        assert_eq!((own.blobs(), blobs.stat(&from, &hash()).unwrap()), (0, None));
    }

    #[test]
    fn a_missing_folder_and_a_key_of_another_length_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let open = |folder: &Path, key: Option<&Path>| {
            AdoptedBlobs::open(Arc::new(MemoryStore::default()), folder, key).map(drop).map_err(|e| e.to_string())
        };
        let missing = dir.path().join("missing");
        assert!(open(&missing, None).unwrap_err().starts_with("streams.adopt_dir: "));
        assert!(open(dir.path(), Some(&missing)).unwrap_err().starts_with("streams.adopt_key_file: "));
        for (text, wanted) in
            [("abcdefghijklmnopqrstuvwx", None), ("abcdefghijklmnopqrstuvwx\n", None), ("short", Some("5"))]
        {
            std::fs::write(&key, text).unwrap();
            let got = open(dir.path(), Some(&key));
            match wanted {
                Some(found) => assert!(got.unwrap_err().contains(&format!("holds {found} bytes")), "{text:?}"),
                None => assert_eq!(got, Ok(()), "{text:?}"),
            }
        }
    }
}
