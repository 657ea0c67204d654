//! Blobs by name: publishing, looking up, copying, deleting. Files are [`crate::blob`]'s, small blobs [`crate::inline`]'s,
//! names the catalogue's.

use bytes::Bytes;

use crate::blob::{BlobError, HashLock, OpenBlob, io_error};
use crate::catalogue::CatalogueError;
use crate::ids::Sha256;
use crate::index::StateKeyspace;
use crate::inline::{BlobPrefix, PREFIX_LEN};
use crate::publish::Upload;
use crate::queue::{Append, InlineBlob, Lane, Request};
use crate::staged::StagedFile;
use crate::state::{BlobRecord, BlobRefKey, Change, StateKey, StoredRecord};
use crate::store::{AppendError, Core, Store, state_batch, wait};

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
    /// [`BlobError::DiskFull`].
    pub fn stage(&self) -> Result<StagedFile, BlobError> {
        if self.disk_full() {
            return Err(BlobError::DiskFull);
        }
        Ok(self.core.blobs.stage())
    }

    /// Stores an upload under a name: a small one in the commit of its state record, else the file first. The caller
    /// vouches that `key.hash` is the SHA-256 of the staged bytes. Storing the same name again renews its time and description; bytes that are stored
    /// already are read and compared, and replaced where they are damaged.
    ///
    /// # Durability
    /// On `Ok` bytes and name are durable; on `Err` only a file that nobody refers to may be left.
    /// # Errors
    /// See [`BlobError`].
    pub fn publish(&self, staged: StagedFile, key: &BlobRefKey, description: Vec<u8>) -> Result<BlobRecord, BlobError> {
        check_names(key)?;
        let core = &self.core;
        let _lock = core.blobs.lock(key.hash);
        let size = staged.len();
        let known = core.catalogue.names(key.hash)?;
        // Looked at, not trusted: what is damaged is stored anew while the good bytes are here.
        let good = |stored: OpenBlob| staged.reader().is_ok_and(|staged| staged.is_same(&stored));
        let there = !known.is_empty() && core.open_stored(key.hash, size).is_ok_and(good);
        let (key, before) = (key.clone(), core.stored(key.hash)?);
        let upload = |file, stored| Upload { file, key: key.clone(), size, description: description.clone(), stored };
        if there {
            return core.publishing.publish(core, upload(None, None));
        }
        if let Some(bytes) = staged.small() {
            let record = BlobRecord { size, stored_ms: core.now_ms(), description };
            core.publish_inline(&key, &record, bytes)?;
            if !known.is_empty() {
                core.drop_damaged(key.hash, before);
            }
            return Ok(record);
        }
        let stored = StoredRecord { inline: false, encoding: core.blobs.codecs().newest() };
        let file = core.blobs.harden(staged, key.hash)?;
        let outcome = core.publishing.publish(core, upload(Some(file), (stored != before).then_some(stored)));
        if outcome.is_ok() && !known.is_empty() && stored != before {
            core.drop_damaged(key.hash, before);
        }
        outcome
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
    /// See [`BlobError::is_damage`].
    pub fn open_blob(&self, hash: Sha256, record: &BlobRecord) -> Result<OpenBlob, BlobError> {
        self.core.open_stored(hash, record.size)
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
        self.core.open_stored(from.hash, record.size)?;
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
        let mut changes = vec![(StateKeyspace::State, Change::remove(&StateKey::BlobRef(key.clone())))];
        let last = self.core.catalogue.names(key.hash)?.iter().all(|(name, _)| name == key);
        let stored = self.core.stored(key.hash)?;
        if last && stored != StoredRecord::default() {
            changes.push((StateKeyspace::State, Change::remove(&StateKey::Stored(key.hash))));
        }
        if last && !stored.inline {
            // A power cut must not bring the name back without the file.
            self.core.change_synced(changes, true)?;
            self.core.blobs.remove(key.hash, stored.encoding)?;
        } else {
            self.core.change_wait(changes, true)?;
        }
        Ok(Deleted::Removed)
    }
}

impl Core {
    /// The bytes of a blob, wherever they are. What is not found is looked up once more: it may have been moved, or
    /// deleted and stored again, since.
    fn open_stored(&self, hash: Sha256, size: u64) -> Result<OpenBlob, BlobError> {
        match self.open_once(hash, size) {
            Err(error) if error.is_damage() => self.open_once(hash, size),
            opened => opened,
        }
    }

    fn open_once(&self, hash: Sha256, size: u64) -> Result<OpenBlob, BlobError> {
        let stored = self.stored(hash)?;
        if !stored.inline {
            return self.blobs.open_blob(hash, size, stored.encoding);
        }
        let (payload, place) = self.read_inline(hash)?;
        let prefix = BlobPrefix::decode(&payload).ok_or_else(|| place.damaged(hash))?;
        let codec = self.blobs.codecs().of(prefix.encoding).map_err(io_error(&self.options.root))?;
        let bytes = codec.open_all(payload.slice(PREFIX_LEN.min(payload.len())..), size);
        bytes.map(OpenBlob::in_memory).ok_or_else(|| place.damaged(hash))
    }

    /// Removes the file that a new upload has taken the place of.
    fn drop_damaged(&self, hash: Sha256, before: StoredRecord) {
        if !before.inline
            && let Err(error) = self.blobs.remove(hash, before.encoding)
        {
            tracing::warn!(%error, "the damaged file of a blob that was stored anew stays");
        }
    }

    /// Stores a small blob and its reference in one commit. The caller holds the hash's lock.
    fn publish_inline(&self, key: &BlobRefKey, record: &BlobRecord, bytes: &[u8]) -> Result<(), BlobError> {
        let codecs = self.blobs.codecs();
        let encoding = codecs.newest();
        let prefix = BlobPrefix { hash: key.hash, encoding }.encode();
        let sealed = codecs.of(encoding).and_then(|codec| codec.seal_all(bytes));
        let payload = Bytes::from([&prefix[..], &sealed.map_err(io_error(&self.options.root))?].concat());
        let stored = StoredRecord { inline: true, encoding };
        let changes = vec![
            (StateKeyspace::State, Change::put(&StateKey::BlobRef(key.clone()), record)),
            (StateKeyspace::State, Change::put(&StateKey::Stored(key.hash), &stored)),
        ];
        let batch =
            state_batch(changes.iter().map(|(_, change)| change), self.now_ms())?.ok_or(AppendError::TooLarge)?;
        let appends = vec![Append { partition: self.state_partition.clone(), batch }];
        let blobs = vec![InlineBlob { hash: key.hash, payload }];
        let done = wait(|done| {
            let request = Request { appends, blobs, changes, catalogue: true, synced: false, done };
            if let Err((request, error)) = self.queue.push_when_room(lane_of(key.hash), request) {
                (request.done)(Err(error));
            }
        });
        Ok(done.map(drop)?)
    }
}

/// Uploads give way to each other, and to everybody else.
fn lane_of(hash: Sha256) -> Lane {
    let first = hash.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Lane(first | 1 << 63)
}

fn check_names(key: &BlobRefKey) -> Result<(), BlobError> {
    for (field, value) in [("source", &key.source), ("label", &key.label)] {
        if value.contains('\0') {
            return Err(BlobError::Name { field, value: value.clone() });
        }
    }
    Ok(())
}
