//! Keyspace `log`: where each record batch lies.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
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
    /// No bits are in use yet.
    pub flags: u8,
}

impl BatchRow {
    /// A row without flags.
    #[must_use]
    pub fn new(
        segment: SegmentNumber,
        position: u64,
        payload_len: u32,
        last_offset_delta: u32,
        max_timestamp: i64,
    ) -> Self {
        Self { segment: segment.0, position, payload_len, last_offset_delta, max_timestamp, flags: 0 }
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
        assert_eq!(decode_value(&encode_value(&row)), Some(row));
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
