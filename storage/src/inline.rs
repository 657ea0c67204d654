//! Small blobs in the log: the payload of their frames, and reading one back.
//!
//! An inline blob is one frame, written in the commit that holds its reference. Its row in keyspace `blobs` says where
//! the frame lies; the cleaner moves it, and drops it when the state record that says "inline" is gone. Frames are read
//! whole: they are small, and the CRC covers all of one. Keeps the law BLOB-HASH.

use std::io;

use bytes::Bytes;

use crate::blob::BlobError;
use crate::encoding::Encoding;
use crate::frame::{FrameHeader, FrameKind, HEADER_LEN};
use crate::fs::{FsFile, read_exact_at};
use crate::ids::Sha256;
use crate::index::{Index, IndexError, StateKeyspace};
use crate::keys::blob::BlobRow;
use crate::keys::{decode_value, take};
use crate::state::{StateKey, StoredRecord, dead_frame, value};
use crate::store::Core;

/// Bytes in front of the blob's own.
pub(crate) const PREFIX_LEN: usize = 40;

/// What the payload of a blob frame begins with: 40 bytes.
///
/// | 0..32                      | 32       | 33..36 | 36..40             | 40..            |
/// |----------------------------|----------|--------|--------------------|-----------------|
/// | SHA-256 of the plain bytes | encoding | zeroes | CRC-32C of 0..36   | the stored bytes |
///
/// The CRC of its own lets the cleaner, and a report of damage, tell whose frame it is without reading all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobPrefix {
    pub(crate) hash: Sha256,
    pub(crate) encoding: Encoding,
}

impl BlobPrefix {
    /// The prefix's bytes.
    pub(crate) fn encode(&self) -> [u8; PREFIX_LEN] {
        let mut out = [0; PREFIX_LEN];
        let (hash, rest) = out.split_at_mut(32);
        hash.copy_from_slice(&self.hash.0);
        rest.iter_mut().take(1).for_each(|byte| *byte = self.encoding.code());
        let (covered, crc) = out.split_at_mut(PREFIX_LEN - 4);
        crc.copy_from_slice(&crc32c::crc32c(covered).to_be_bytes());
        out
    }

    /// Reads a prefix; `None` unless its CRC is right and it is one this version writes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let prefix: &[u8; PREFIX_LEN] = bytes.first_chunk()?;
        let (mut covered, crc) = prefix.split_last_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_be_bytes(*crc) {
            return None;
        }
        let hash = Sha256(take(&mut covered)?);
        let [encoding, 0, 0, 0] = take(&mut covered)? else { return None };
        Some(Self { hash, encoding: Encoding::from_code(encoding)? })
    }
}

/// The prefix of the blob frame at `position`, without reading the rest of it; `None` when it is no good one.
pub(crate) fn prefix_at(file: &dyn FsFile, position: u64) -> io::Result<Option<BlobPrefix>> {
    let mut bytes = [0; PREFIX_LEN];
    match read_exact_at(file, &mut bytes, position + u64::try_from(HEADER_LEN).unwrap_or(0)) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        other => other.map(|()| BlobPrefix::decode(&bytes)),
    }
}

/// The frame that a row names, with its payload; `None` when it is not what the row says.
pub(crate) fn frame_of(file: &dyn FsFile, hash: Sha256, row: &BlobRow) -> io::Result<Option<(FrameHeader, Bytes)>> {
    let mut bytes = vec![0; HEADER_LEN + usize::try_from(row.payload_len).unwrap_or(0)];
    match read_exact_at(file, &mut bytes, row.position) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let bytes = Bytes::from(bytes);
    let Some(header) = FrameHeader::decode(&bytes) else { return Ok(None) };
    let payload = bytes.slice(HEADER_LEN..);
    let right = header.kind == FrameKind::Blob
        && header.segment == row.segment()
        && header.payload_len == row.payload_len
        && crc32c::crc32c(&payload) == header.payload_crc
        && BlobPrefix::decode(&payload).is_some_and(|prefix| prefix.hash == hash);
    Ok(right.then_some((header, payload)))
}

/// The blob in a frame, if it is a blob's.
pub(crate) fn blob_in(header: &FrameHeader, payload: &[u8]) -> Option<Sha256> {
    (header.kind == FrameKind::Blob).then(|| BlobPrefix::decode(payload)).flatten().map(|prefix| prefix.hash)
}

/// Key of an inline blob's row.
pub(crate) fn hash_key(hash: Sha256) -> Bytes {
    Bytes::copy_from_slice(&hash.0)
}

/// What a state record does to the row of its blob's frame: it takes it out, when the blob is no longer inline.
pub(crate) fn row_of_dead_frame(
    keyspace: StateKeyspace,
    key: &[u8],
    record: Option<&[u8]>,
) -> Option<(StateKeyspace, Bytes, Option<Bytes>)> {
    let hash = if keyspace == StateKeyspace::State { dead_frame(key, record)? } else { return None };
    Some((StateKeyspace::Blobs, hash_key(hash), None))
}

/// Whether the newest state that the index has says that a blob is inline.
pub(crate) fn is_inline(index: &Index, hash: Sha256) -> Result<bool, IndexError> {
    let record = index.state(StateKeyspace::State, &StateKey::Stored(hash).encode())?;
    Ok(record.and_then(|bytes| value::<StoredRecord>(&bytes)).is_some_and(|record| record.inline))
}

impl Core {
    /// How the bytes of a blob are stored.
    pub(crate) fn stored(&self, hash: Sha256) -> Result<StoredRecord, IndexError> {
        let key = StateKey::Stored(hash).encode();
        let Some(bytes) = self.state(StateKeyspace::State, &key)? else { return Ok(StoredRecord::default()) };
        value(&bytes).ok_or_else(|| IndexError::Row { keyspace: "state", key: format!("{key:02x?}") })
    }

    /// The newest row of an inline blob.
    pub(crate) fn blob_row(&self, hash: Sha256) -> Result<Option<BlobRow>, IndexError> {
        let row = self.state(StateKeyspace::Blobs, &hash.0)?;
        let damaged = || IndexError::Row { keyspace: "blobs", key: hash.to_string() };
        row.map(|bytes| decode_value(&bytes).ok_or_else(damaged)).transpose()
    }

    /// The payload of an inline blob's frame, and where that lies.
    pub(crate) fn read_inline(&self, hash: Sha256) -> Result<(Bytes, BlobRow), BlobError> {
        let Some(row) = self.blob_row(hash)? else { return Err(BlobError::Lost { hash }) };
        let frame = self.segments.open(row.segment()).and_then(|file| frame_of(file.as_ref(), hash, &row));
        match frame {
            Ok(frame) => frame.map(|(_, payload)| (payload, row)).ok_or_else(|| row.damaged(hash)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(row.damaged(hash)),
            Err(error) => Err(BlobError::Io { path: self.segments.path(row.segment()), error }),
        }
    }
}

impl BlobRow {
    /// The blob's frame is not what it should be.
    pub(crate) fn damaged(&self, hash: Sha256) -> BlobError {
        BlobError::DamagedFrame { hash, segment: self.segment(), position: self.position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_bytes_are_as_drawn_and_any_flipped_bit_is_refused() {
        let prefix = BlobPrefix { hash: Sha256([7; 32]), encoding: Encoding::Aes256 };
        let mut golden = [7; 36];
        golden[32..].copy_from_slice(&[2, 0, 0, 0]);
        let crc = crc32c::crc32c(&golden);
        let golden = [&golden[..], &crc.to_be_bytes()].concat();
        assert_eq!(prefix.encode().as_slice(), golden);
        assert_eq!(BlobPrefix::decode(&golden), Some(prefix));
        for bit in 0..PREFIX_LEN * 8 {
            let mut bad = golden.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BlobPrefix::decode(&bad), None, "bit {bit}");
        }
        for len in 0..PREFIX_LEN {
            assert_eq!(BlobPrefix::decode(&golden[..len]), None);
        }
    }
}
