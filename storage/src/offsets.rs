//! Records of `__consumer_offsets`, in Kafka's own format: group offsets (key version 1, value version 3).
//!
//! Layout: the message schemas `OffsetCommitKey` and `OffsetCommitValue` of Apache Kafka. Group metadata (key version 2)
//! is in [`crate::membership`]; [`decode_key`] leaves it alone.

use bytes::{BufMut, Bytes};

use crate::ids::{Offset, PartitionIndex, TopicPartition};
use crate::keys::take;

/// A group's position in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Offset of the next record the group wants.
    pub offset: Offset,
    /// Leader epoch of the last record it had; -1 for unknown.
    pub leader_epoch: i32,
    /// The committer's free text.
    pub metadata: String,
    /// When it was committed, milliseconds since 1970.
    pub commit_time_ms: i64,
}

pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

pub(crate) fn take_string(bytes: &mut &[u8]) -> Option<String> {
    let len = usize::try_from(i16::from_be_bytes(take(bytes)?)).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

/// The longest group, topic name or metadata a record can hold, in bytes.
pub const MAX_STRING: usize = 32_767;

/// Key of a group's offset in one partition.
#[must_use]
pub fn encode_key(group: &str, place: &TopicPartition) -> Bytes {
    let mut key = group_prefix(group);
    put_string(&mut key, &place.topic);
    key.put_i32(place.partition);
    key.into()
}

/// What the keys of all offsets of one group start with.
#[must_use]
pub fn group_prefix(group: &str) -> Vec<u8> {
    let mut key = vec![0, 1];
    put_string(&mut key, group);
    key
}

/// What the keys of all group offsets start with.
pub const OFFSET_KEYS: [u8; 2] = [0, 1];

/// Reads an offset key; `None` for other kinds of keys.
#[must_use]
pub fn decode_key(mut bytes: &[u8]) -> Option<(String, TopicPartition)> {
    let version = i16::from_be_bytes(take(&mut bytes)?);
    let group = take_string(&mut bytes)?;
    let topic = take_string(&mut bytes)?;
    let partition: PartitionIndex = i32::from_be_bytes(take(&mut bytes)?);
    (version <= 1 && bytes.is_empty()).then_some((group, TopicPartition { topic, partition }))
}

/// Value of an offset record.
#[must_use]
pub fn encode_offset(committed: &CommittedOffset) -> Bytes {
    let mut value = vec![0, 3];
    value.put_i64(committed.offset);
    value.put_i32(committed.leader_epoch);
    put_string(&mut value, &committed.metadata);
    value.put_i64(committed.commit_time_ms);
    value.into()
}

/// Reads the value of an offset record.
#[must_use]
pub fn decode_offset(mut bytes: &[u8]) -> Option<CommittedOffset> {
    let version = i16::from_be_bytes(take(&mut bytes)?);
    let offset = i64::from_be_bytes(take(&mut bytes)?);
    let leader_epoch = i32::from_be_bytes(take(&mut bytes)?);
    let metadata = take_string(&mut bytes)?;
    let commit_time_ms = i64::from_be_bytes(take(&mut bytes)?);
    (version == 3).then_some(CommittedOffset { offset, leader_epoch, metadata, commit_time_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_are_kafkas() {
        let place = TopicPartition { topic: "t1".into(), partition: 2 };
        let key = encode_key("g", &place);
        assert_eq!(&key[..], b"\x00\x01\x00\x01g\x00\x02t1\x00\x00\x00\x02");
        assert_eq!(decode_key(&key), Some(("g".into(), place)));
        let committed = CommittedOffset { offset: 7, leader_epoch: 0, metadata: "m".into(), commit_time_ms: 256 };
        let value = encode_offset(&committed);
        assert_eq!(
            &value[..],
            b"\x00\x03\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x01m\x00\x00\x00\x00\x00\x00\x01\x00"
        );
        assert_eq!(decode_offset(&value), Some(committed));
    }

    #[test]
    fn cut_records_are_refused() {
        let key = encode_key("g", &TopicPartition { topic: "t".into(), partition: 0 });
        (0..key.len()).for_each(|len| assert_eq!(decode_key(&key[..len]), None, "{len}"));
        let value =
            encode_offset(&CommittedOffset { offset: 1, leader_epoch: -1, metadata: String::new(), commit_time_ms: 0 });
        (0..value.len()).for_each(|len| assert_eq!(decode_offset(&value[..len]), None, "{len}"));
    }
}
