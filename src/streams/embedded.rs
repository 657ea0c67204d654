//! The embedded store as a [`BlobStore`].

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use azulite_storage::blob::{BlobError, OpenBlob};
use azulite_storage::catalogue::CatalogueError;
use azulite_storage::ids::Sha256;
use azulite_storage::staged::StagedFile;
use azulite_storage::state::BlobRefKey;
use azulite_storage::{AppendError, Store, blobs};

use super::store::{
    BlobReader, BlobRecord, BlobStore, Deleted, Listed, Place, ReadSeek, Staged, Stat, StoreError, sought,
};

/// Format byte in front of a stored [`BlobRecord`].
const RECORD_FORMAT: u8 = 1;
/// No stored record is longer than this.
const RECORD_LIMIT: usize = 1 << 20;

/// Blobs in an open data directory.
#[derive(Clone, Debug)]
pub struct EmbeddedBlobs(Store);

impl EmbeddedBlobs {
    /// The blobs of `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(store)
    }
}

fn key(place: &Place, hash: Sha256) -> BlobRefKey {
    BlobRefKey { hash, source: place.source.clone(), label: place.label.clone() }
}

fn encode(record: &BlobRecord) -> Vec<u8> {
    let mut bytes = vec![RECORD_FORMAT];
    let written = bincode::encode_into_std_write(record, &mut bytes, bincode::config::standard());
    assert!(written.is_ok(), "writing to memory does not fail");
    bytes
}

/// Reads a stored record; one of another format counts as unknown and is made anew by the next upload.
fn decode(bytes: &[u8]) -> Option<BlobRecord> {
    let (format, rest) = bytes.split_first()?;
    let config = bincode::config::standard().with_limit::<RECORD_LIMIT>();
    let (record, read) = bincode::decode_from_slice(rest, config).ok()?;
    (*format == RECORD_FORMAT && read == rest.len()).then_some(record)
}

impl From<CatalogueError> for StoreError {
    fn from(error: CatalogueError) -> Self {
        Self::Io(io::Error::other(error))
    }
}

impl From<BlobError> for StoreError {
    fn from(error: BlobError) -> Self {
        match error {
            error if error.is_damage() => Self::Damaged(error.to_string()),
            BlobError::DiskFull | BlobError::Append(AppendError::DiskFull) => Self::Full,
            BlobError::Append(AppendError::Poisoned { .. } | AppendError::Closed) => Self::Poisoned,
            BlobError::Io { path, error } => {
                Self::Io(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
            }
            BlobError::Damaged { .. }
            | BlobError::DamagedFrame { .. }
            | BlobError::Lost { .. }
            | BlobError::Name { .. }
            | BlobError::Index(_)
            | BlobError::Catalogue(_)
            | BlobError::Append(_) => Self::Io(io::Error::other(error)),
        }
    }
}

impl BlobStore for EmbeddedBlobs {
    fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        Ok(Box::new(Upload { store: self.0.clone(), file: self.0.stage()? }))
    }

    fn stat(&self, place: &Place, hash: &Sha256) -> Result<Option<Stat>, StoreError> {
        let record = self.0.blob(&key(place, *hash))?;
        Ok(record.map(|record| Stat { size: record.size, stored_ms: record.stored_ms }))
    }

    fn known(&self, hash: &Sha256) -> Result<Option<BlobRecord>, StoreError> {
        let names = self.0.blob_names(*hash)?;
        let records = names.iter().filter_map(|(_, record)| decode(&record.description));
        Ok(records.max_by_key(BlobRecord::worth))
    }

    fn open(&self, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        let names = self.0.blob_names(*hash)?;
        let Some((_, record)) = names.first() else { return Ok(None) };
        match self.0.open_blob(*hash, record) {
            Ok(file) => Ok(Some(Arc::new(Reader { hash: *hash, file }))),
            // Deleted meanwhile.
            Err(error) if error.is_damage() && self.0.blob_names(*hash)?.is_empty() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn copy(&self, from: &Place, to: &Place, hash: &Sha256) -> Result<bool, StoreError> {
        Ok(self.0.copy_blob(&key(from, *hash), &key(to, *hash))?)
    }

    fn delete(&self, place: &Place, hash: &Sha256, older_than: Option<i64>) -> Result<Deleted, StoreError> {
        let limit = older_than.filter(|limit| *limit > 0);
        Ok(match self.0.delete_blob(&key(place, *hash), limit)? {
            blobs::Deleted::Removed => Deleted::Yes,
            blobs::Deleted::TooYoung => Deleted::TooYoung,
            blobs::Deleted::Missing => Deleted::NotFound,
        })
    }

    fn all(&self) -> Listed {
        Box::new(self.0.blobs().map(|found| {
            let (key, record) = found?;
            Ok((key.hash, Place::new(key.source, key.label), decode(&record.description)))
        }))
    }

    fn redescribe(&self, place: &Place, hash: &Sha256, record: &BlobRecord) -> Result<bool, StoreError> {
        Ok(self.0.describe_blob(&key(place, *hash), encode(record))?)
    }
}

struct Upload {
    store: Store,
    file: StagedFile,
}

impl Staged for Upload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.store.disk_full() {
            return Err(StoreError::Full);
        }
        Ok(self.file.write(bytes)?)
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    fn reader(&mut self) -> Result<Box<dyn ReadSeek>, StoreError> {
        Ok(Box::new(Cursor { file: self.file.reader()?, position: 0 }))
    }

    fn publish(self: Box<Self>, hash: &Sha256, place: &Place, record: &BlobRecord) -> Result<(), StoreError> {
        let description = encode(record);
        self.store.publish(self.file, &key(place, *hash), description)?;
        Ok(())
    }
}

struct Reader {
    hash: Sha256,
    file: OpenBlob,
}

impl BlobReader for Reader {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> Result<(), StoreError> {
        let mut cursor = Cursor { file: self.file.clone(), position };
        cursor.read_exact(buf).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                StoreError::Damaged(format!("{} ends before byte {}", self.hash, self.file.len()))
            } else if error.kind() == io::ErrorKind::InvalidData {
                StoreError::Damaged(format!("{}: {error}", self.hash))
            } else {
                StoreError::Io(error)
            }
        })
    }
}

/// A blob file with a reading position.
struct Cursor {
    file: OpenBlob,
    position: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buf, self.position)?;
        self.position += u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = sought(to, self.position, self.file.len())?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_others_count_as_unknown() {
        let record = BlobRecord { identify_version: 2, size: 5, sha256: "ab".into(), ..BlobRecord::default() };
        let bytes = encode(&record);
        assert_eq!(decode(&bytes), Some(record));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode(&[2, 0]), None);
        assert_eq!(decode(&[]), None);
    }
}
