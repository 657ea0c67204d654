//! Keyspace `time`: the batches of a partition that enter a new second, so that a time is found without a row for each.
//!
//! A batch has a row when its largest timestamp lies in a later second (of 1024 ms) than that of the row before it. So
//! the last row below a time names a batch that comes before every one that reaches it, and the batch looked for lies
//! within about a second's worth of log rows behind it, whatever order the producers' clocks came in.

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

/// Milliseconds that share one row.
const SECOND_MS: i64 = 1024;

/// Whether a batch whose largest timestamp is `timestamp` gets a row behind a row of `last` (-1 when there is none).
#[must_use]
pub fn enters_new_second(last: i64, timestamp: i64) -> bool {
    timestamp.div_euclid(SECOND_MS) > last.div_euclid(SECOND_MS)
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
    fn a_row_is_due_once_a_second_and_never_for_times_that_went_back() {
        assert!(enters_new_second(-1, 0) && !enters_new_second(-1, -1) && !enters_new_second(-1, i64::MIN));
        assert!(!enters_new_second(0, 1023) && enters_new_second(0, 1024) && enters_new_second(1023, 1024));
        assert!(!enters_new_second(5000, 4999) && enters_new_second(5000, i64::MAX));
    }

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
