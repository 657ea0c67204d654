//! The newest offset of each key in a bounded part of the log.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::ids::{Offset, PartitionNumber};

/// Memory one key takes, with room for growth.
const KEY_BYTES: usize = 64;

/// Keys are held as 16 bytes of keyed hashes that nobody outside the process can guess, so that no producer can make two
/// keys pass for one.
pub(super) struct KeyMap {
    hashers: [RandomState; 2],
    newest: HashMap<(u64, u64), Offset>,
    limit: usize,
}

impl KeyMap {
    /// A map that takes about `bytes` bytes when full.
    pub(super) fn new(bytes: usize) -> Self {
        let limit = (bytes / KEY_BYTES).max(1);
        Self { hashers: [RandomState::new(), RandomState::new()], newest: HashMap::new(), limit }
    }

    fn hash(&self, partition: PartitionNumber, key: &[u8]) -> (u64, u64) {
        let [first, second] = &self.hashers;
        (first.hash_one((partition, key)), second.hash_one((partition, key)))
    }

    /// Takes note of a key at an offset behind all before.
    pub(super) fn put(&mut self, partition: PartitionNumber, key: &[u8], offset: Offset) {
        self.newest.insert(self.hash(partition, key), offset);
    }

    /// Whether there is a newer record of the key.
    pub(super) fn supersedes(&self, partition: PartitionNumber, key: &[u8], offset: Offset) -> bool {
        self.newest.get(&self.hash(partition, key)).is_some_and(|newest| *newest > offset)
    }

    /// True when no further batch should be put in.
    pub(super) fn is_full(&self) -> bool {
        self.newest.len() >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_a_partitions_key_counts() {
        let mut map = KeyMap::new(3 * KEY_BYTES);
        let (p, q) = (PartitionNumber(2), PartitionNumber(3));
        map.put(p, b"k", 5);
        map.put(p, b"k", 9);
        map.put(q, b"l", 1);
        assert!(map.supersedes(p, b"k", 8) && !map.supersedes(p, b"k", 9) && !map.supersedes(q, b"k", 0));
        assert!(!map.is_full());
        map.put(q, b"", 2);
        assert!(map.is_full());
    }
}
