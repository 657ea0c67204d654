//! Keyspace `log`: where each record batch lies.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use super::take;
use crate::ids::{Offset, PartitionNumber, SegmentNumber};

/// Key of one record batch: 12 bytes, big-endian, so engine order is log order.
///
/// | 0..4             | 4..12       |
/// |------------------|-------------|
/// | partition number | base offset |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchKey {
    /// The partition.
    pub partition: PartitionNumber,
    /// Offset of the batch's first record.
    pub base_offset: Offset,
}

impl BatchKey {
    /// The key's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; 12] {
        let mut key = [0; 12];
        let (partition, offset) = key.split_at_mut(4);
        partition.copy_from_slice(&self.partition.0.to_be_bytes());
        offset.copy_from_slice(&self.base_offset.to_be_bytes());
        key
    }

    /// Reads a key; `None` unless it has exactly 12 bytes.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let partition = PartitionNumber(u32::from_be_bytes(take(&mut bytes)?));
        let base_offset = i64::from_be_bytes(take(&mut bytes)?);
        bytes.is_empty().then_some(Self { partition, base_offset })
    }
}

/// Value of one record batch: where its frame lies and what is in it, without reading it.
///
/// The fields in order, as bincode writes them; the append time follows the flags, as the distance from the largest
/// timestamp, when flag 1 says so. Rows of earlier versions have no such flag and no append time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRow {
    segment: u32,
    /// Place of the frame's header in the segment, bytes from its start.
    pub position: u64,
    /// Length of the batch in bytes, without the frame's header and padding.
    pub payload_len: u32,
    /// Offset of the last record minus the base offset.
    pub last_offset_delta: u32,
    /// Largest timestamp in the batch, milliseconds since 1970; -1 for none.
    pub max_timestamp: i64,
    /// Bit 1: the batch has no records left. Bit 0 is for the encoding.
    pub flags: u8,
    append_time_ms: Option<i64>,
}

/// The append time follows.
const HAS_APPEND_TIME: u8 = 1;

impl Encode for BatchRow {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let flags = self.flags | if self.append_time_ms.is_some() { HAS_APPEND_TIME } else { 0 };
        let place = (self.segment, self.position, self.payload_len);
        (place, self.last_offset_delta, self.max_timestamp, flags).encode(encoder)?;
        match self.append_time_ms {
            Some(time) => time.wrapping_sub(self.max_timestamp).encode(encoder),
            None => Ok(()),
        }
    }
}

impl<Context> Decode<Context> for BatchRow {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (segment, position, payload_len) = Decode::decode(decoder)?;
        let (last_offset_delta, max_timestamp): (u32, i64) = Decode::decode(decoder)?;
        let flags = u8::decode(decoder)?;
        let append_time_ms = match flags & HAS_APPEND_TIME {
            0 => None,
            _ => Some(i64::decode(decoder)?.wrapping_add(max_timestamp)),
        };
        let flags = flags & !HAS_APPEND_TIME;
        Ok(Self { segment, position, payload_len, last_offset_delta, max_timestamp, flags, append_time_ms })
    }
}

/// The batch has no records left; it keeps a place in the partition.
const WITHOUT_RECORDS: u8 = 2;

impl BatchRow {
    /// A row without flags and append time.
    #[must_use]
    pub fn new(
        segment: SegmentNumber,
        position: u64,
        payload_len: u32,
        last_offset_delta: u32,
        max_timestamp: i64,
    ) -> Self {
        let segment = segment.0;
        Self { segment, position, payload_len, last_offset_delta, max_timestamp, flags: 0, append_time_ms: None }
    }

    /// The same row with the time its frame was appended, milliseconds since 1970.
    #[must_use]
    pub fn appended_at(self, append_time_ms: i64) -> Self {
        Self { append_time_ms: Some(append_time_ms), ..self }
    }

    /// When the frame was appended, milliseconds since 1970; `None` in rows of damaged frames and of earlier versions.
    #[must_use]
    pub fn append_time_ms(&self) -> Option<i64> {
        self.append_time_ms
    }

    /// Offset of the record behind the last one, where the batch begins at `base_offset`.
    #[must_use]
    pub fn next_offset(&self, base_offset: Offset) -> Offset {
        base_offset + i64::from(self.last_offset_delta) + 1
    }

    /// The same row of a batch that compaction left without records.
    #[must_use]
    pub fn without_records(self) -> Self {
        Self { flags: self.flags | WITHOUT_RECORDS, ..self }
    }

    /// Whether the batch has no records left. Nobody needs to read it.
    #[must_use]
    pub fn is_without_records(&self) -> bool {
        self.flags & WITHOUT_RECORDS != 0
    }

    /// The segment that holds the frame.
    #[must_use]
    pub fn segment(&self) -> SegmentNumber {
        SegmentNumber(self.segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{decode_value, encode_value};

    #[test]
    fn golden_key_and_row() {
        let key = BatchKey { partition: PartitionNumber(258), base_offset: 3 };
        assert_eq!(key.encode(), [0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(BatchKey::decode(&key.encode()), Some(key));
        let row = BatchRow::new(SegmentNumber(7), 300, 61, 4, -1);
        assert_eq!(encode_value(&row), [1, 7, 251, 44, 1, 61, 4, 1, 0]);
        assert_eq!(decode_value(&encode_value(&row)), Some(row), "rows of earlier versions");
        let row = row.appended_at(4);
        assert_eq!(encode_value(&row), [1, 7, 251, 44, 1, 61, 4, 1, 1, 10]);
        assert_eq!(decode_value(&encode_value(&row)), Some(row));
        assert_eq!((row.append_time_ms(), row.next_offset(3)), (Some(4), 8));
        let far = BatchRow { max_timestamp: i64::MIN, ..row }.appended_at(i64::MAX);
        assert_eq!(decode_value(&encode_value(&far)), Some(far));
        let empty = row.without_records();
        assert!(empty.is_without_records() && !row.is_without_records());
        assert_eq!(encode_value(&empty), [1, 7, 251, 44, 1, 61, 4, 1, 3, 10]);
        assert_eq!(decode_value(&encode_value(&empty)), Some(empty));
    }

    #[test]
    fn short_and_long_bytes_are_refused() {
        let key = BatchKey { partition: PartitionNumber(1), base_offset: 3 }.encode();
        assert_eq!(BatchKey::decode(&key[..11]), None);
        assert_eq!(BatchKey::decode(&[&key[..], &[0]].concat()), None);
        for bytes in [&[][..], &[2, 7, 0, 0, 0, 0, 0], &[1, 7], &[1, 7, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(decode_value::<BatchRow>(bytes), None, "{bytes:?}");
        }
    }
}
