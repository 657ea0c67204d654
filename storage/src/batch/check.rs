//! Batches that may be appended: what a producer sent, checked (`kafka.md` 3.2).

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

use super::header::crc_of;
use super::records::{RawRecord, decompressed};
use super::{BATCH_HEADER_LEN, BatchError, BatchHeader};
use crate::compress::Codec;
use crate::ids::Offset;

/// One batch that may be appended: lengths, magic, CRC and counts have been checked.
#[derive(Debug)]
pub struct CheckedBatch {
    bytes: BytesMut,
    header: BatchHeader,
    wants_append_time: bool,
    /// The only offset it may get.
    only_at: Option<Offset>,
}

/// What [`CheckedBatch::validate`] looks for in the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRules {
    /// Every record needs a key: the topic is compacted.
    pub keys: bool,
    /// Timestamps that are taken in, milliseconds since 1970. A record without one (-1) always is.
    pub timestamps: RangeInclusive<i64>,
    /// Bytes of records that a compressed batch may hold.
    pub limit_bytes: usize,
}

impl Default for RecordRules {
    /// Records must add up; nothing else is asked of them.
    fn default() -> Self {
        Self { keys: false, timestamps: i64::MIN..=i64::MAX, limit_bytes: super::RECORDS_LIMIT }
    }
}

impl CheckedBatch {
    /// Checks that `bytes` are exactly one batch that a client may send. The records themselves are not looked at.
    ///
    /// # Errors
    /// The first that applies, in the order of `kafka.md` 3.2: [`BatchError::Empty`], [`BatchError::Length`],
    /// [`BatchError::Magic`], [`BatchError::Several`], [`BatchError::Crc`], [`BatchError::Count`],
    /// [`BatchError::Sequence`], [`BatchError::Control`], [`BatchError::Codec`].
    pub fn check(bytes: BytesMut) -> Result<Self, BatchError> {
        if bytes.is_empty() {
            return Err(BatchError::Empty);
        }
        let header = BatchHeader::read(&bytes)?;
        let BatchHeader { count, last_offset_delta, base_sequence, producer_epoch, producer_id, .. } = header;
        if header.total_len != bytes.len() {
            return Err(BatchError::Several { first: header.total_len, all: bytes.len() });
        }
        let expected = crc_of(&bytes);
        if header.crc != expected {
            return Err(BatchError::Crc { found: header.crc, expected });
        }
        if count < 1 || last_offset_delta != count - 1 {
            return Err(BatchError::Count { count, last_offset_delta });
        }
        if producer_id >= 0 && (base_sequence < 0 || producer_epoch < 0) {
            return Err(BatchError::Sequence { producer_id, producer_epoch, base_sequence });
        }
        if header.is_control() {
            return Err(BatchError::Control);
        }
        header.codec()?;
        Ok(Self::built(bytes, header))
    }

    /// A batch made here.
    pub(super) fn built(bytes: BytesMut, header: BatchHeader) -> Self {
        Self { bytes, header, wants_append_time: false, only_at: None }
    }

    /// Looks at every record: they read, their offset deltas are 0, 1, 2 and so on, their count is the header's,
    /// nothing follows them, and the rules hold.
    ///
    /// # Errors
    /// The first that applies: [`BatchError::TooLarge`], [`BatchError::Compression`], then per record
    /// [`BatchError::Record`], [`BatchError::NoKey`], [`BatchError::Timestamp`]; at the end [`BatchError::Trailing`].
    pub fn validate(&self, rules: &RecordRules) -> Result<(), BatchError> {
        let records = self.bytes.get(BATCH_HEADER_LEN..).unwrap_or_default();
        let codec = self.codec();
        let plain;
        let mut rest = if codec == Codec::None {
            records
        } else {
            plain = decompressed(codec, records, &self.header, rules.limit_bytes)?;
            plain.as_slice()
        };
        for index in 0..self.header.count {
            let record = RawRecord::take(&mut rest).map_err(|what| BatchError::Record { index, what })?;
            if record.offset_delta != i64::from(index) {
                return Err(BatchError::Record { index, what: "offset delta" });
            }
            if rules.keys && record.key.is_none() {
                return Err(BatchError::NoKey { index });
            }
            let timestamp = self.header.timestamp(record.timestamp_delta);
            if timestamp != -1 && !rules.timestamps.contains(&timestamp) {
                let (earliest, latest) = (*rules.timestamps.start(), *rules.timestamps.end());
                return Err(BatchError::Timestamp { index, timestamp, earliest, latest });
            }
        }
        match rest.len() {
            0 => Ok(()),
            bytes => Err(BatchError::Trailing { bytes }),
        }
    }

    /// Has every record get the time of the append (`LogAppendTime`), whatever the producer said.
    pub fn use_append_time(&mut self) {
        self.wants_append_time = true;
    }

    /// Has the batch taken only as the one that begins at `offset`: only if nothing is appended to its partition before.
    #[must_use]
    pub fn only_at(mut self, offset: Offset) -> Self {
        self.only_at = Some(offset);
        self
    }

    /// The offset it has to get, if it may get one only.
    pub(crate) fn expected_offset(&self) -> Option<Offset> {
        self.only_at
    }

    /// Writes the append time where it was asked for. The CRC changes with it.
    pub(crate) fn stamp(&mut self, append_ms: i64) {
        if self.wants_append_time {
            self.header.set_append_time(append_ms);
            // The length is the one that was checked: it fits.
            if let Some(header) = self.header.seal(&mut self.bytes) {
                self.header = header;
            }
        }
    }

    /// The header, with the base offset as the producer sent it.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.header.codec().unwrap_or_default()
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes as a client sends them: base offset and leader epoch are not filled in yet.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }

    /// The batch as it will be stored: base offset and leader epoch filled in.
    #[must_use]
    pub(crate) fn place(mut self, base_offset: Offset, leader_epoch: i32) -> Bytes {
        if let Some(place) = self.bytes.get_mut(0..8) {
            place.copy_from_slice(&base_offset.to_be_bytes());
        }
        if let Some(place) = self.bytes.get_mut(12..16) {
            place.copy_from_slice(&leader_epoch.to_be_bytes());
        }
        self.bytes.freeze()
    }
}
