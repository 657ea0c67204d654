//! Which purged records have been dealt with lately.

use std::collections::HashMap;

use crate::broker::{Offset, PartitionNumber};

/// Keys remembered at once; beyond it all are forgotten, which costs a second tombstone for some.
const MAX_KEYS: usize = 65_536;
/// Longer keys are not remembered.
const MAX_KEY_BYTES: usize = 256;

/// For each key the highest offset up to which nothing is left to do. About 100 bytes for each key, at most 24 MiB.
#[derive(Debug, Default)]
pub(super) struct Recent(HashMap<PartitionNumber, HashMap<Box<[u8]>, Offset>>, usize);

impl Recent {
    /// Whether nothing is left to do about this record.
    pub(super) fn covers(&self, partition: PartitionNumber, key: &[u8], offset: Offset) -> bool {
        self.0.get(&partition).and_then(|keys| keys.get(key)).is_some_and(|done| *done >= offset)
    }

    /// Notes that nothing is left to do about records of this key up to `offset`.
    pub(super) fn note(&mut self, partition: PartitionNumber, key: &[u8], offset: Offset) {
        if key.len() > MAX_KEY_BYTES {
            return;
        }
        if self.1 >= MAX_KEYS {
            self.0.clear();
            self.1 = 0;
        }
        let keys = self.0.entry(partition).or_default();
        match keys.get_mut(key) {
            Some(done) => *done = (*done).max(offset),
            None => {
                keys.insert(key.into(), offset);
                self.1 += 1;
            }
        }
    }

    /// Takes a note back: what was to be done has failed.
    pub(super) fn forget(&mut self, partition: PartitionNumber, key: &[u8]) {
        if self.0.get_mut(&partition).is_some_and(|keys| keys.remove(key).is_some()) {
            self.1 -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_done_with_up_to_its_offset_in_its_partition() {
        let mut recent = Recent::default();
        let (here, there) = (PartitionNumber(1), PartitionNumber(2));
        recent.note(here, b"k", 7);
        recent.note(here, b"k", 5);
        assert!(recent.covers(here, b"k", 7) && !recent.covers(here, b"k", 8));
        assert!(!recent.covers(there, b"k", 1) && !recent.covers(here, b"j", 1));
        recent.forget(here, b"k");
        recent.forget(here, b"k");
        assert!(!recent.covers(here, b"k", 1));
        assert_eq!(recent.1, 0);
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let mut recent = Recent::default();
        for n in 0..MAX_KEYS + 10 {
            recent.note(PartitionNumber(1), &n.to_be_bytes(), 0);
        }
        assert_eq!(recent.1, 10);
        recent.note(PartitionNumber(1), &[7; MAX_KEY_BYTES + 1], 0);
        assert_eq!(recent.1, 10);
    }
}
