//! State records: what `__azulite_state` holds, newest value per key.
//!
//! A key is one type byte and the fields that name the thing; a value is bincode behind a format byte. A tombstone
//! removes the key. Every record is also a row of the index keyspace `state`, byte for byte.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::encoding::Encoding;
use crate::ids::{Offset, PartitionNumber, Sha256, TopicId};
use crate::keys::{decode_value, encode_value, take};

/// The partition number of `__azulite_state`.
pub const STATE_PARTITION: PartitionNumber = PartitionNumber(0);
/// The partition number of `__consumer_offsets`.
pub const OFFSETS_PARTITION: PartitionNumber = PartitionNumber(1);
/// Name of the topic that holds state records.
pub const STATE_TOPIC: &str = "__azulite_state";
/// Name of the topic that holds group offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The first partition number given to other topics.
pub const FIRST_PARTITION: PartitionNumber = PartitionNumber(2);

/// First byte of a state record's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyType {
    Topic = 1,
    Counters = 2,
    BlobRef = 3,
    Damage = 4,
    LogStart = 5,
    Kv = 6,
    Epochs = 7,
    ClockHold = 8,
    ProducerIds = 9,
    Stored = 10,
    KeyCheck = 11,
}

impl KeyType {
    fn byte(self) -> u8 {
        match self {
            Self::Topic => 1,
            Self::Counters => 2,
            Self::BlobRef => 3,
            Self::Damage => 4,
            Self::LogStart => 5,
            Self::Kv => 6,
            Self::Epochs => 7,
            Self::ClockHold => 8,
            Self::ProducerIds => 9,
            Self::Stored => 10,
            Self::KeyCheck => 11,
        }
    }
}

/// Which thing a state record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateKey {
    /// A topic, by name.
    Topic(String),
    /// Numbers that only grow.
    Counters,
    /// One (source, label) under which a blob is stored.
    BlobRef(BlobRefKey),
    /// A range of a partition that is lost.
    Damage(PartitionNumber, Offset),
    /// Where a partition begins.
    LogStart(PartitionNumber),
    /// Something the storage layer keeps for its callers.
    Kv(Vec<u8>),
    /// The leader epochs of a partition.
    Epochs(PartitionNumber),
    /// Retention by time waits because the clock is not trusted.
    ClockHold,
    /// The first producer id that is not reserved.
    ProducerIds,
    /// How the bytes of a blob are stored.
    Stored(Sha256),
    /// What the store's key is known by.
    KeyCheck,
}

/// Names one stored blob as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobRefKey {
    /// SHA-256 of the plain bytes.
    pub hash: Sha256,
    /// Azul source; may be empty.
    pub source: String,
    /// Stream label; may be empty.
    pub label: String,
}

impl BlobRefKey {
    /// Bytes: hash, source, a zero byte, label. Neither name holds a zero byte.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&self.hash.0, self.source.as_bytes(), &[0], self.label.as_bytes()].concat()
    }

    /// Reads what [`BlobRefKey::encode`] wrote.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let hash = Sha256(take(&mut bytes)?);
        let text = std::str::from_utf8(bytes).ok()?;
        let (source, label) = text.split_once('\0')?;
        Some(Self { hash, source: source.to_owned(), label: label.to_owned() })
    }
}

impl StateKey {
    /// The key's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let with = |kind: KeyType, rest: &[u8]| [&[kind.byte()], rest].concat();
        match self {
            Self::Topic(name) => with(KeyType::Topic, name.as_bytes()),
            Self::Counters => with(KeyType::Counters, &[]),
            Self::BlobRef(key) => with(KeyType::BlobRef, &key.encode()),
            Self::Damage(partition, from) => {
                with(KeyType::Damage, &[&partition.0.to_be_bytes()[..], &from.to_be_bytes()].concat())
            }
            Self::LogStart(partition) => with(KeyType::LogStart, &partition.0.to_be_bytes()),
            Self::Kv(name) => with(KeyType::Kv, name),
            Self::Epochs(partition) => with(KeyType::Epochs, &partition.0.to_be_bytes()),
            Self::ClockHold => with(KeyType::ClockHold, &[]),
            Self::ProducerIds => with(KeyType::ProducerIds, &[]),
            Self::Stored(hash) => with(KeyType::Stored, &hash.0),
            Self::KeyCheck => with(KeyType::KeyCheck, &[]),
        }
    }

    /// Reads a key; `None` for a type this version does not know or a malformed one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let key = match kind {
            1 => return Some(Self::Topic(String::from_utf8(rest.to_vec()).ok()?)),
            2 => Self::Counters,
            3 => return BlobRefKey::decode(rest).map(Self::BlobRef),
            4 => Self::Damage(
                PartitionNumber(u32::from_be_bytes(take(&mut rest)?)),
                i64::from_be_bytes(take(&mut rest)?),
            ),
            5 => Self::LogStart(PartitionNumber(u32::from_be_bytes(take(&mut rest)?))),
            6 => return Some(Self::Kv(rest.to_vec())),
            7 => Self::Epochs(PartitionNumber(u32::from_be_bytes(take(&mut rest)?))),
            8 => Self::ClockHold,
            9 => Self::ProducerIds,
            10 => Self::Stored(Sha256(take(&mut rest)?)),
            11 => Self::KeyCheck,
            _ => return None,
        };
        rest.is_empty().then_some(key)
    }

    /// Prefix of all keys for topics.
    #[must_use]
    pub fn topics() -> [u8; 1] {
        [KeyType::Topic.byte()]
    }

    /// Prefix of all keys for blob references.
    #[must_use]
    pub fn blob_refs() -> [u8; 1] {
        [KeyType::BlobRef.byte()]
    }

    /// Prefix of all keys for damage.
    #[must_use]
    pub fn damage() -> [u8; 1] {
        [KeyType::Damage.byte()]
    }

    /// Prefix of all keys that say how a blob is stored.
    #[must_use]
    pub fn all_stored() -> [u8; 1] {
        [KeyType::Stored.byte()]
    }

    /// Prefix of all keys of callers that start with `prefix`.
    #[must_use]
    pub fn kv(prefix: &[u8]) -> Vec<u8> {
        [&[KeyType::Kv.byte()], prefix].concat()
    }
}

/// A topic as stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicRecord {
    id: [u8; 16],
    partitions: Vec<u32>,
    /// Topic configuration as given, Kafka's names.
    pub config: BTreeMap<String, String>,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
}

impl TopicRecord {
    /// A record of a topic whose partition `i` has number `partitions[i]`.
    #[must_use]
    pub fn new(id: TopicId, partitions: &[PartitionNumber], config: BTreeMap<String, String>, created_ms: i64) -> Self {
        Self { id: id.0, partitions: partitions.iter().map(|p| p.0).collect(), config, created_ms }
    }

    /// The topic's id.
    #[must_use]
    pub fn id(&self) -> TopicId {
        TopicId(self.id)
    }

    /// Numbers of its partitions, by index.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionNumber> {
        self.partitions.iter().map(|n| PartitionNumber(*n))
    }
}

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Counters {
    /// The next partition number to give.
    pub next_partition: u32,
}

impl Default for Counters {
    fn default() -> Self {
        Self { next_partition: FIRST_PARTITION.0 }
    }
}

/// What is known of a blob under one (source, label).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobRecord {
    /// Length of the plain bytes.
    pub size: u64,
    /// When it was stored under this name, milliseconds since 1970.
    pub stored_ms: i64,
    /// The caller's description of the content, opaque here.
    pub description: Vec<u8>,
}

/// How the bytes of a blob are stored, whatever names refer to them. A blob without such a record is a plain file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StoredRecord {
    /// In the log, as a frame; else in a file of its own.
    pub inline: bool,
    /// What was done to them.
    pub encoding: Encoding,
}

/// The blob whose frame, if it has one, is dead once this state record counts.
pub(crate) fn dead_frame(key: &[u8], record: Option<&[u8]>) -> Option<Sha256> {
    let Some(StateKey::Stored(hash)) = key.first().filter(|kind| **kind == 10).and_then(|_| StateKey::decode(key))
    else {
        return None;
    };
    let inline = record.and_then(value::<StoredRecord>).is_some_and(|record| record.inline);
    (!inline).then_some(hash)
}

/// The leader epochs of a partition: each with the offset where it began, both rising. Epoch 0, from offset 0 on, is
/// not written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct EpochsRecord(pub Vec<(i32, i64)>);

/// A range of offsets that was acknowledged and is gone.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DamageRecord {
    /// One past the last lost offset.
    pub end: i64,
    segment: u32,
    /// Where in the segment the damage begins, bytes from its start.
    pub position: u64,
}

impl DamageRecord {
    /// Offsets up to `end` were in segment `segment` from `position` on.
    #[must_use]
    pub fn new(end: Offset, segment: crate::ids::SegmentNumber, position: u64) -> Self {
        Self { end, segment: segment.0, position }
    }

    /// The segment that held them.
    #[must_use]
    pub fn segment(&self) -> crate::ids::SegmentNumber {
        crate::ids::SegmentNumber(self.segment)
    }
}

/// One change to the state: a key and its new value, or none to remove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The record's key.
    pub key: Bytes,
    /// The record's value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl Change {
    /// Sets `key` to `value`.
    #[must_use]
    pub fn put<T: Encode>(key: &StateKey, value: &T) -> Self {
        Self { key: key.encode().into(), value: Some(encode_value(value).into()) }
    }

    /// Removes `key`.
    #[must_use]
    pub fn remove(key: &StateKey) -> Self {
        Self { key: key.encode().into(), value: None }
    }

    /// Sets the caller's key `name` to raw bytes, or removes it.
    #[must_use]
    pub fn kv(name: &[u8], value: Option<Bytes>) -> Self {
        Self { key: StateKey::Kv(name.to_vec()).encode().into(), value }
    }
}

/// Reads a state record's value.
#[must_use]
pub(crate) fn value<T: Decode<()>>(bytes: &[u8]) -> Option<T> {
    decode_value(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SegmentNumber;

    #[test]
    fn golden_keys() {
        let blob = BlobRefKey { hash: Sha256([9; 32]), source: "lab".into(), label: "content".into() };
        let cases = [
            (StateKey::Topic("t".into()), vec![1, b't']),
            (StateKey::Counters, vec![2]),
            (StateKey::BlobRef(blob), [&[3][..], &[9; 32], b"lab\0content"].concat()),
            (StateKey::Damage(PartitionNumber(2), 3), vec![4, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]),
            (StateKey::LogStart(PartitionNumber(2)), vec![5, 0, 0, 0, 2]),
            (StateKey::Kv(b"x".to_vec()), vec![6, b'x']),
            (StateKey::Epochs(PartitionNumber(2)), vec![7, 0, 0, 0, 2]),
            (StateKey::ClockHold, vec![8]),
            (StateKey::ProducerIds, vec![9]),
            (StateKey::Stored(Sha256([9; 32])), [&[10][..], &[9; 32]].concat()),
            (StateKey::KeyCheck, vec![11]),
        ];
        for (key, golden) in cases {
            assert_eq!(key.encode(), golden);
            assert_eq!(StateKey::decode(&golden), Some(key));
        }
        for bad in [&[][..], &[0], &[7, 1], &[8, 0], &[10], &[2, 0], &[3, 1], &[4, 0], &[5, 0, 0, 0, 2, 0], &[1, 0xff]]
        {
            assert_eq!(StateKey::decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn golden_values() {
        let topic = TopicRecord::new(
            TopicId([1; 16]),
            &[PartitionNumber(2), PartitionNumber(3)],
            BTreeMap::from([("cleanup.policy".into(), "compact".into())]),
            5,
        );
        let mut golden = vec![1];
        golden.extend([1; 16]);
        golden.extend([2, 2, 3, 1, 14]);
        golden.extend(b"cleanup.policy\x07compact\x0a");
        assert_eq!(encode_value(&topic), golden);
        assert_eq!(value::<TopicRecord>(&golden), Some(topic));
        assert_eq!(encode_value(&Counters::default()), [1, 2]);
        let blob = BlobRecord { size: 3, stored_ms: 4, description: vec![7] };
        assert_eq!(encode_value(&blob), [1, 3, 8, 1, 7]);
        assert_eq!(encode_value(&DamageRecord::new(4, SegmentNumber(2), 9)), [1, 8, 2, 9]);
        assert_eq!(encode_value(&EpochsRecord(vec![(1, 4)])), [1, 1, 2, 8]);
        assert_eq!(encode_value(&StoredRecord { inline: true, encoding: Encoding::Aes256 }), [1, 1, 2]);
    }

    #[test]
    fn a_frame_is_dead_once_no_record_calls_its_blob_inline() {
        let hash = Sha256([9; 32]);
        let of = |inline| Change::put(&StateKey::Stored(hash), &StoredRecord { inline, ..StoredRecord::default() });
        let dead = |change: &Change| dead_frame(&change.key, change.value.as_deref());
        assert_eq!(dead(&of(true)), None);
        assert_eq!(dead(&of(false)), Some(hash));
        assert_eq!(dead(&Change::remove(&StateKey::Stored(hash))), Some(hash));
        assert_eq!(dead(&Change::remove(&StateKey::Counters)), None);
    }
}
