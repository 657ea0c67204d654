//! Blobs by name: publishing, looking up, copying, deleting. Files are [`crate::blob`]'s, names the catalogue's.

use crate::blob::{BlobError, BlobFile, HashLock, StagedFile};
use crate::catalogue::CatalogueError;
use crate::ids::Sha256;
use crate::index::StateKeyspace;
use crate::publish::Upload;
use crate::state::{BlobRecord, BlobRefKey, Change, StateKey};
use crate::store::Store;

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Removed,
    /// It is there but not older than the limit.
    TooYoung,
    /// There was nothing of that name.
    Missing,
}

impl Store {
    /// Starts an upload.
    ///
    /// # Errors
    /// [`BlobError::DiskFull`] and [`BlobError::Io`].
    pub fn stage(&self) -> Result<StagedFile, BlobError> {
        if self.disk_full() {
            return Err(BlobError::DiskFull);
        }
        self.core.blobs.stage()
    }

    /// Stores an upload under a name: file first, then the state record. The caller vouches that `key.hash` is the
    /// SHA-256 of the staged bytes. Storing the same name again renews its time and description.
    ///
    /// # Durability
    /// On `Ok` bytes and name are durable; on `Err` only a file that nobody refers to may be left.
    /// # Errors
    /// See [`BlobError`].
    pub fn publish(&self, staged: StagedFile, key: &BlobRefKey, description: Vec<u8>) -> Result<BlobRecord, BlobError> {
        check_names(key)?;
        let _lock = self.core.blobs.lock(key.hash);
        let size = staged.len();
        let known = self.core.catalogue.names(key.hash)?;
        let there = !known.is_empty() && self.core.blobs.open_blob(key.hash, size).is_ok();
        let file = if there { None } else { Some(self.core.blobs.harden(staged, key.hash)?) };
        self.core.publishing.publish(&self.core, Upload { file, key: key.clone(), size, description })
    }

    fn put_reference(&self, _lock: &HashLock<'_>, key: &BlobRefKey, record: &BlobRecord) -> Result<(), BlobError> {
        let change = Change::put(&StateKey::BlobRef(key.clone()), record);
        Ok(self.core.change_wait(vec![(StateKeyspace::State, change)], true)?)
    }

    /// What is stored under a name.
    ///
    /// # Errors
    /// See [`CatalogueError`].
    pub fn blob(&self, key: &BlobRefKey) -> Result<Option<BlobRecord>, CatalogueError> {
        self.core.catalogue.get(key)
    }

    /// Every name a blob is stored under.
    ///
    /// # Errors
    /// See [`CatalogueError`].
    pub fn blob_names(&self, hash: Sha256) -> Result<Vec<(BlobRefKey, BlobRecord)>, CatalogueError> {
        self.core.catalogue.names(hash)
    }

    /// Every stored name, in hash order.
    pub fn blobs(&self) -> impl Iterator<Item = Result<(BlobRefKey, BlobRecord), CatalogueError>> + use<> {
        self.core.catalogue.all()
    }

    /// The bytes of a stored blob.
    ///
    /// # Errors
    /// [`BlobError::Damaged`] when the file is gone or has another length.
    pub fn open_blob(&self, hash: Sha256, record: &BlobRecord) -> Result<BlobFile, BlobError> {
        self.core.blobs.open_blob(hash, record.size)
    }

    /// Stores a blob under a second name without copying bytes. False when there is nothing under `from`.
    ///
    /// # Durability
    /// On `Ok(true)` the new name is durable.
    /// # Errors
    /// See [`BlobError`].
    pub fn copy_blob(&self, from: &BlobRefKey, to: &BlobRefKey) -> Result<bool, BlobError> {
        check_names(to)?;
        assert_eq!(from.hash, to.hash, "a copy keeps its hash");
        let lock = self.core.blobs.lock(from.hash);
        let Some(record) = self.core.catalogue.get(from)? else { return Ok(false) };
        self.core.blobs.open_blob(from.hash, record.size)?;
        let record = BlobRecord { stored_ms: self.core.now_ms(), ..record };
        self.put_reference(&lock, to, &record)?;
        Ok(true)
    }

    /// Replaces the description of a name and leaves its time alone. False when there is no such name.
    ///
    /// # Durability
    /// On `Ok(true)` the new description is durable.
    /// # Errors
    /// See [`BlobError`].
    pub fn describe_blob(&self, key: &BlobRefKey, description: Vec<u8>) -> Result<bool, BlobError> {
        let lock = self.core.blobs.lock(key.hash);
        let Some(record) = self.core.catalogue.get(key)? else { return Ok(false) };
        self.put_reference(&lock, key, &BlobRecord { description, ..record })?;
        Ok(true)
    }

    /// Removes a name, and the bytes with the last one. With `older_than` (Unix seconds) only when it was stored
    /// strictly before that second (`streams.md` 1.5).
    ///
    /// # Durability
    /// On `Ok` the name is durably gone; the file may come back as garbage after a power cut, never as a blob.
    /// # Errors
    /// See [`BlobError`].
    pub fn delete_blob(&self, key: &BlobRefKey, older_than: Option<i64>) -> Result<Deleted, BlobError> {
        let _lock = self.core.blobs.lock(key.hash);
        let Some(record) = self.core.catalogue.get(key)? else { return Ok(Deleted::Missing) };
        if older_than.is_some_and(|limit| record.stored_ms.div_euclid(1000) >= limit) {
            return Ok(Deleted::TooYoung);
        }
        let change = Change::remove(&StateKey::BlobRef(key.clone()));
        self.core.change_wait(vec![(StateKeyspace::State, change)], true)?;
        if self.core.catalogue.names(key.hash)?.is_empty() {
            self.core.blobs.remove(key.hash)?;
        }
        Ok(Deleted::Removed)
    }
}

fn check_names(key: &BlobRefKey) -> Result<(), BlobError> {
    for (field, value) in [("source", &key.source), ("label", &key.label)] {
        if value.contains('\0') {
            return Err(BlobError::Name { field, value: value.clone() });
        }
    }
    Ok(())
}
