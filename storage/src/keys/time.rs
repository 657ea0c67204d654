//! Keyspace `time`: the first batch of a partition that reaches a timestamp.
//!
//! A batch has a row only when its largest timestamp is above that of every batch before it. So the first row at or
//! above a time names the first batch in offset order that holds a record of that time or later, whatever order the
//! producers' clocks came in.

use super::take;
use crate::ids::{Offset, PartitionNumber};

/// Key of one time row: 12 bytes, big-endian, sign bit flipped, so engine order is time order.
///
/// | 0..4             | 4..12                      |
/// |------------------|----------------------------|
/// | partition number | largest timestamp xor 2^63 |
///
/// The value is the base offset, 8 bytes big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeKey {
    /// The partition.
    pub partition: PartitionNumber,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

impl TimeKey {
    /// The key's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; 12] {
        let mut key = [0; 12];
        let (partition, time) = key.split_at_mut(4);
        partition.copy_from_slice(&self.partition.0.to_be_bytes());
        time.copy_from_slice(&(self.timestamp ^ i64::MIN).to_be_bytes());
        key
    }

    /// Reads a key; `None` unless it has exactly 12 bytes.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let partition = PartitionNumber(u32::from_be_bytes(take(&mut bytes)?));
        let timestamp = i64::from_be_bytes(take(&mut bytes)?) ^ i64::MIN;
        bytes.is_empty().then_some(Self { partition, timestamp })
    }
}

/// Reads a value; `None` unless it has exactly 8 bytes.
#[must_use]
pub fn decode_offset(mut bytes: &[u8]) -> Option<Offset> {
    let offset = i64::from_be_bytes(take(&mut bytes)?);
    bytes.is_empty().then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_key_and_order() {
        let key = |timestamp| TimeKey { partition: PartitionNumber(1), timestamp };
        assert_eq!(key(5).encode(), [0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 5]);
        assert!(key(-1).encode() < key(0).encode() && key(0).encode() < key(i64::MAX).encode());
        assert_eq!(TimeKey::decode(&key(-9).encode()), Some(key(-9)));
        assert_eq!(TimeKey::decode(&[0; 11]), None);
        assert_eq!(decode_offset(&[0, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(decode_offset(&[0; 7]), None);
    }
}
