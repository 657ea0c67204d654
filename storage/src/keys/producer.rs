//! Keyspace `producers`: what each idempotent producer last wrote to each partition.

use bincode::{Decode, Encode};

use super::take;
use crate::ids::{Offset, PartitionNumber};

/// Key of one producer in one partition: 12 bytes, big-endian.
///
/// | 0..4             | 4..12       |
/// |------------------|-------------|
/// | partition number | producer id |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerKey {
    /// The partition.
    pub partition: PartitionNumber,
    /// The producer: 0 or more.
    pub producer_id: i64,
}

impl ProducerKey {
    /// The key's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; 12] {
        let mut key = [0; 12];
        let (partition, producer_id) = key.split_at_mut(4);
        partition.copy_from_slice(&self.partition.0.to_be_bytes());
        producer_id.copy_from_slice(&self.producer_id.to_be_bytes());
        key
    }

    /// Reads a key; `None` unless it has exactly 12 bytes.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let partition = PartitionNumber(u32::from_be_bytes(take(&mut bytes)?));
        let producer_id = i64::from_be_bytes(take(&mut bytes)?);
        bytes.is_empty().then_some(Self { partition, producer_id })
    }
}

/// One batch that a producer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WrittenBatch {
    /// Sequence number of its first record.
    pub first_sequence: i32,
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// When it was appended, milliseconds since 1970.
    pub append_time_ms: i64,
}

/// Value of one producer in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProducerRow {
    /// Its epoch.
    pub epoch: i16,
    /// Its last batches of this epoch, oldest first: at most five.
    pub batches: Vec<WrittenBatch>,
    /// How many records of this epoch lie without a gap behind each other up to the last one, about 2^31 at most.
    pub run: u32,
    /// When it last wrote, milliseconds since 1970.
    pub last_write_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{decode_value, encode_value};

    #[test]
    fn golden_key_and_row() {
        let key = ProducerKey { partition: PartitionNumber(258), producer_id: 3 };
        assert_eq!(key.encode(), [0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(ProducerKey::decode(&key.encode()), Some(key));
        assert_eq!(ProducerKey::decode(&key.encode()[1..]), None);
        assert_eq!(ProducerKey::decode(&[0; 13]), None);
        let batch = WrittenBatch { first_sequence: 1, last_sequence: 2, base_offset: 300, append_time_ms: 5 };
        let row = ProducerRow { epoch: 2, batches: vec![batch], run: 7, last_write_ms: 5 };
        assert_eq!(encode_value(&row), [1, 4, 1, 2, 4, 251, 88, 2, 10, 7, 10]);
        assert_eq!(decode_value(&encode_value(&row)), Some(row));
    }
}
