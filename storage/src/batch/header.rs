//! The 61 bytes in front of a batch's records.

use bytes::BytesMut;

use super::{BATCH_HEADER_LEN, BatchError};
use crate::compress::Codec;
use crate::ids::Offset;

/// Bytes before the field `batchLength` counts: base offset and the length itself.
const LENGTH_OVERHEAD: usize = 12;
/// Bytes up to and with the magic, which every version of the format has in the same places.
const MAGIC_END: usize = 17;
/// The CRC covers everything from here on.
pub(super) const CRC_FROM: usize = 21;

const CODEC_BITS: i16 = 7;
const APPEND_TIME_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// Who wrote a batch, when it was an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Producer id: 0 or more.
    pub id: i64,
    /// Producer epoch: 0 or more.
    pub epoch: i16,
    /// Sequence number of the first record; -1 in control batches.
    pub base_sequence: i32,
}

/// Header of a record batch: 61 bytes, big-endian.
///
/// | 0..8        | 8..12  | 12..16       | 16    | 17..21 | 21..23     | 23..27            | 27..35         | 35..43        |
/// |-------------|--------|--------------|-------|--------|------------|-------------------|----------------|---------------|
/// | base offset | length | leader epoch | magic | CRC    | attributes | last offset delta | base timestamp | max timestamp |
///
/// | 43..51      | 51..53         | 53..57        | 57..61 |
/// |-------------|----------------|---------------|--------|
/// | producer id | producer epoch | base sequence | count  |
///
/// The length counts from byte 12. The CRC is CRC-32C over everything from byte 21 to the end of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Length of the whole batch in bytes.
    pub total_len: usize,
    /// Epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// Attribute bits: codec 0..3, timestamp type 3, transactional 4, control 5, delete horizon 6.
    pub attributes: i16,
    /// Offset of the last record minus the base offset; also of one that was removed.
    pub last_offset_delta: i32,
    /// Milliseconds since 1970 that the records' timestamps are counted from.
    pub base_timestamp: i64,
    /// Largest timestamp in the batch, milliseconds since 1970; -1 for none.
    pub max_timestamp: i64,
    /// Producer id; -1 for none.
    pub producer_id: i64,
    /// Producer epoch; -1 for none.
    pub producer_epoch: i16,
    /// Sequence number of the first record; -1 for none.
    pub base_sequence: i32,
    /// Number of records; 0 when all were removed.
    pub count: i32,
    /// CRC as stored.
    pub(super) crc: u32,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn number(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may hold more than one batch.
    ///
    /// # Errors
    /// [`BatchError::Length`], then [`BatchError::Magic`]. A whole batch of an older format is told by its magic.
    pub fn read(bytes: &[u8]) -> Result<Self, BatchError> {
        let expected = number(bytes.len());
        let short = BatchError::Length { found: number(BATCH_HEADER_LEN), expected };
        let (Some(length), Some([magic])) = (array(bytes, 8).map(i32::from_be_bytes), array::<1>(bytes, 16)) else {
            return Err(short);
        };
        let found = i64::from(length) + number(LENGTH_OVERHEAD);
        let total_len = usize::try_from(found).ok().filter(|total| (MAGIC_END..=bytes.len()).contains(total));
        let total_len = total_len.ok_or(BatchError::Length { found, expected })?;
        match i8::from_be_bytes([magic]) {
            2 if total_len < BATCH_HEADER_LEN => Err(BatchError::Length { found, expected }),
            2 => Self::fields(bytes, total_len).ok_or(short),
            magic => Err(BatchError::Magic(magic)),
        }
    }

    fn fields(bytes: &[u8], total_len: usize) -> Option<Self> {
        Some(Self {
            base_offset: i64::from_be_bytes(array(bytes, 0)?),
            total_len,
            leader_epoch: i32::from_be_bytes(array(bytes, 12)?),
            crc: u32::from_be_bytes(array(bytes, 17)?),
            attributes: i16::from_be_bytes(array(bytes, 21)?),
            last_offset_delta: i32::from_be_bytes(array(bytes, 23)?),
            base_timestamp: i64::from_be_bytes(array(bytes, 27)?),
            max_timestamp: i64::from_be_bytes(array(bytes, 35)?),
            producer_id: i64::from_be_bytes(array(bytes, 43)?),
            producer_epoch: i16::from_be_bytes(array(bytes, 51)?),
            base_sequence: i32::from_be_bytes(array(bytes, 53)?),
            count: i32::from_be_bytes(array(bytes, 57)?),
        })
    }

    /// Puts this header in the first 61 bytes of `batch`, with length and CRC made to fit; `None` when the batch is
    /// longer than 2 GiB.
    pub(super) fn seal(mut self, batch: &mut BytesMut) -> Option<Self> {
        self.total_len = batch.len();
        let length = i32::try_from(batch.len().checked_sub(LENGTH_OVERHEAD)?).ok()?;
        let mut at = 0;
        let mut put = |field: &[u8]| {
            let place = batch.get_mut(at..at + field.len())?;
            place.copy_from_slice(field);
            at += field.len();
            Some(())
        };
        put(&self.base_offset.to_be_bytes())?;
        put(&length.to_be_bytes())?;
        put(&self.leader_epoch.to_be_bytes())?;
        put(&[2])?;
        put(&[0; 4])?;
        put(&self.attributes.to_be_bytes())?;
        put(&self.last_offset_delta.to_be_bytes())?;
        put(&self.base_timestamp.to_be_bytes())?;
        put(&self.max_timestamp.to_be_bytes())?;
        put(&self.producer_id.to_be_bytes())?;
        put(&self.producer_epoch.to_be_bytes())?;
        put(&self.base_sequence.to_be_bytes())?;
        put(&self.count.to_be_bytes())?;
        self.crc = crc_of(batch);
        batch.get_mut(MAGIC_END..CRC_FROM)?.copy_from_slice(&self.crc.to_be_bytes());
        Some(self)
    }

    /// The codec.
    ///
    /// # Errors
    /// [`BatchError::Codec`] for a number that stands for none.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        let number = u8::try_from(self.attributes & CODEC_BITS).unwrap_or(0);
        Codec::from_number(number).ok_or(BatchError::Codec(number))
    }

    pub(super) fn set_codec(&mut self, codec: Codec) {
        self.attributes = self.attributes & !CODEC_BITS | i16::from(codec.number());
    }

    /// Offset of the last record, also of one that was removed.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The idempotent producer that wrote it; `None` when it was none.
    #[must_use]
    pub fn producer(&self) -> Option<Producer> {
        let Self { producer_id: id, producer_epoch: epoch, base_sequence, .. } = *self;
        (id >= 0).then_some(Producer { id, epoch, base_sequence })
    }

    /// True when every record has the time it was appended, which is then `max_timestamp`.
    #[must_use]
    pub fn has_append_time(&self) -> bool {
        self.attributes & APPEND_TIME_BIT != 0
    }

    pub(super) fn set_append_time(&mut self, append_ms: i64) {
        self.attributes |= APPEND_TIME_BIT;
        self.max_timestamp = append_ms;
    }

    /// True for a batch of a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    pub(super) fn set_transactional(&mut self) {
        self.attributes |= TRANSACTIONAL_BIT;
    }

    /// True for a batch that consumers do not see: the end of a transaction.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    pub(super) fn set_control(&mut self) {
        self.attributes |= CONTROL_BIT;
    }

    /// From when on the cleaner may remove the batch's tombstones and markers, milliseconds since 1970; `None` before
    /// it has seen them clean.
    #[must_use]
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    pub(super) fn set_delete_horizon(&mut self, horizon_ms: i64) {
        self.attributes |= DELETE_HORIZON_BIT;
        self.base_timestamp = horizon_ms;
    }

    pub(super) fn clear_delete_horizon(&mut self) {
        self.attributes &= !DELETE_HORIZON_BIT;
    }

    /// Timestamp of a record whose timestamp delta is `delta`.
    pub(super) fn timestamp(&self, delta: i64) -> i64 {
        if self.has_append_time() { self.max_timestamp } else { self.base_timestamp.wrapping_add(delta) }
    }
}

/// The CRC a batch should have.
pub(super) fn crc_of(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default())
}
