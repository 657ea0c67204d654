//! What the stream routes need of a blob store, in the fewest words.
//!
//! The embedded store and S3 implement [`BlobStore`]; calls are synchronous and are made on blocking threads only. The
//! store keeps the laws `BLOB-HASH` and `BLOB-FIRST`: what it serves under a hash has that hash, and `publish` returns
//! only when bytes and reference are durable.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use azulite_storage::ids::Sha256;

use crate::dispatcher::model::Datastream;

/// Where a blob is referenced from. Both texts empty means "anywhere": the fall-back of older installations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Name of the source.
    pub source: String,
    /// Kind of stream.
    pub label: String,
}

impl Place {
    /// A place in a source.
    pub fn new(source: impl Into<String>, label: impl Into<String>) -> Self {
        Self { source: source.into(), label: label.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.label)
    }
}

/// What is known of a blob's content; stored with its reference. Texts that are not known are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct BlobRecord {
    /// Version of the rules that filled in the fields from `mime` on; 0 when they were skipped.
    pub identify_version: u32,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha512: String,
    /// Lower-case hex; never empty.
    pub sha256: String,
    /// Lower-case hex.
    pub sha1: String,
    /// Lower-case hex.
    pub md5: String,
    /// Empty for small blobs.
    pub ssdeep: String,
    /// Empty for small or monotonous blobs.
    pub tlsh: String,
    /// Media type.
    pub mime: String,
    /// Descriptive text.
    pub magic: String,
    /// Azul type.
    pub file_format: String,
    /// Without a dot; often empty.
    pub file_extension: String,
}

impl BlobRecord {
    /// As events carry a stream.
    #[must_use]
    pub fn into_stream(self, label: &str) -> Datastream {
        Datastream {
            identify_version: self.identify_version,
            label: label.to_owned(),
            size: self.size,
            sha512: self.sha512,
            sha256: self.sha256,
            sha1: self.sha1,
            md5: self.md5,
            ssdeep: self.ssdeep,
            tlsh: self.tlsh,
            mime: self.mime,
            magic: self.magic,
            file_format: self.file_format,
            file_extension: self.file_extension,
            language: String::new(),
        }
    }

    /// Whether another identification by rules of `version` would say the same: not where the last one had trouble.
    #[must_use]
    pub fn is_by_rules(&self, version: u32) -> bool {
        self.identify_version == version && !is_trouble(&self.magic)
    }

    /// Of two records of the same bytes the one that is worth more says more.
    pub(super) fn worth(&self) -> (u32, bool) {
        (self.identify_version, !is_trouble(&self.magic))
    }
}

/// Whether a description says why there is none.
pub(super) fn is_trouble(magic: &str) -> bool {
    magic.starts_with("error - ")
}

/// What a look-up tells of a stored blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// When the reference was last stored, milliseconds since 1970.
    pub stored_ms: i64,
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It was there and is gone.
    Yes,
    /// It is there and stays: not older than the limit.
    TooYoung,
    /// It was not there.
    NotFound,
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full; reads and deletions go on.
    #[error("the disk is full")]
    Full,
    /// The store takes nothing more after a failed sync; the process is about to stop.
    #[error("the store has stopped after a failed write")]
    Poisoned,
    /// Stored bytes are not what they should be; the text says where.
    #[error("damaged blob: {0}")]
    Damaged(String),
    /// Anything else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl StoreError {
    /// True when the store goes on, and another copy of the blob would do.
    pub(super) fn is_of_one_blob(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Io(_) => true,
            Self::Full | Self::Poisoned => false,
        }
    }
}

/// A blob store.
pub trait BlobStore: Send + Sync + 'static {
    /// Opens a staging file on the store's own file system.
    ///
    /// # Errors
    /// [`StoreError::Full`] before the disk is full in truth, so that other writes still fit.
    fn stage(&self) -> Result<Box<dyn Staged>, StoreError>;

    /// Looks up exactly this place. The fall-back to the empty place is the caller's.
    ///
    /// # Errors
    /// [`StoreError`].
    fn stat(&self, place: &Place, hash: &Sha256) -> Result<Option<Stat>, StoreError>;

    /// What is known of these bytes from an earlier upload to any place; the fullest record when there are several.
    ///
    /// # Errors
    /// [`StoreError`].
    fn known(&self, hash: &Sha256) -> Result<Option<BlobRecord>, StoreError>;

    /// Opens the bytes for reading, whatever place refers to them. What is open stays readable after a deletion.
    ///
    /// # Errors
    /// [`StoreError`].
    fn open(&self, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError>;

    /// As [`BlobStore::open`], for a blob that was seen at this place: a store may keep some of its blobs by place.
    ///
    /// # Errors
    /// [`StoreError`].
    fn open_at(&self, _place: &Place, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        self.open(hash)
    }

    /// Adds a reference to the same bytes with the same record; false when there is none at `from`. Copying onto an
    /// existing reference stores it anew.
    ///
    /// # Durability
    /// Durable on `Ok`.
    /// # Errors
    /// [`StoreError`]; unknown whether the reference was added.
    fn copy(&self, from: &Place, to: &Place, hash: &Sha256) -> Result<bool, StoreError>;

    /// Removes a reference, and the bytes with the last one. With `older_than` (Unix seconds) only when
    /// [`is_older`] says so of the time it was stored; test and removal are one step.
    ///
    /// # Durability
    /// Durable on `Ok`.
    /// # Errors
    /// [`StoreError`]; unknown whether the reference was removed.
    fn delete(&self, place: &Place, hash: &Sha256, older_than: Option<i64>) -> Result<Deleted, StoreError>;

    /// Every reference, in the order of hashes; a record that cannot be read is `None`. What changes meanwhile may be
    /// there or not.
    fn all(&self) -> Listed;

    /// Replaces the record of a reference and leaves its time alone; false when there is none.
    ///
    /// # Durability
    /// Durable on `Ok`.
    /// # Errors
    /// [`StoreError`]; unknown whether the record was replaced.
    fn redescribe(&self, place: &Place, hash: &Sha256, record: &BlobRecord) -> Result<bool, StoreError>;
}

/// Every reference of a store.
pub type Listed = Box<dyn Iterator<Item = Result<(Sha256, Place, Option<BlobRecord>), StoreError>> + Send>;

/// A blob that is being written. Dropping it removes what was written.
pub trait Staged: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`StoreError`]; drop it then.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Bytes written so far.
    fn len(&self) -> u64;

    /// True before the first byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the plain bytes back, from the beginning.
    ///
    /// # Errors
    /// [`StoreError`].
    fn reader(&mut self) -> Result<Box<dyn ReadSeek>, StoreError>;

    /// Makes the bytes a blob and refers to it from `place`. `hash` was computed over everything written. Bytes that are
    /// stored already are not stored again; the reference and its time are renewed in any case.
    ///
    /// # Durability
    /// Bytes and reference are durable on `Ok` (`BLOB-FIRST`).
    /// # Errors
    /// [`StoreError`]; nothing is referenced.
    fn publish(self: Box<Self>, hash: &Sha256, place: &Place, record: &BlobRecord) -> Result<(), StoreError>;
}

/// Something to read from anywhere in.
pub trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

/// An open blob; reads give plain bytes.
pub trait BlobReader: Send + Sync + 'static {
    /// Bytes in all.
    fn len(&self) -> u64;

    /// True for a blob without bytes, which is damage: none is ever stored.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `position` on.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the bytes end early or do not verify.
    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> Result<(), StoreError>;
}

/// Where a reader of `length` bytes at `position` gets to.
///
/// # Errors
/// A place before the beginning.
pub(crate) fn sought(to: SeekFrom, position: u64, length: u64) -> io::Result<u64> {
    let target = match to {
        SeekFrom::Start(position) => Some(position),
        SeekFrom::End(delta) => length.checked_add_signed(delta),
        SeekFrom::Current(delta) => position.checked_add_signed(delta),
    };
    target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the beginning of the blob"))
}

/// The age rule of S3: older only when stored in an earlier second than the limit; no limit, or one that is not
/// positive, makes everything old enough.
#[must_use]
pub fn is_older(stored_ms: i64, older_than: Option<i64>) -> bool {
    older_than.is_none_or(|limit| limit <= 0 || stored_ms.div_euclid(1000) < limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_failed_identification_is_not_as_good_as_a_new_one() {
        let record = |magic: &str| BlobRecord { identify_version: 2, magic: magic.into(), ..BlobRecord::default() };
        assert!(record("ASCII text").is_by_rules(2));
        assert!(!record("ASCII text").is_by_rules(3));
        assert!(!record("error - content rules: the scanner stopped").is_by_rules(2));
    }

    #[test]
    fn only_what_was_stored_in_an_earlier_second_is_older() {
        for (stored_ms, limit, older) in [
            (5_999, Some(6), true),
            (6_000, Some(6), false),
            (6_999, Some(6), false),
            (7_000, Some(6), false),
            (7_000, Some(0), true),
            (7_000, Some(-5), true),
            (7_000, None, true),
        ] {
            assert_eq!(is_older(stored_ms, limit), older, "{stored_ms} {limit:?}");
        }
    }
}
