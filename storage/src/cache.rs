//! The newest batches in memory, so that live consumers never touch the disk.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::ids::{Offset, PartitionNumber};

type Key = (PartitionNumber, Offset);

/// First in, first out, up to a number of bytes and a little more: the applier drops the oldest ones behind the
/// committer, which does so itself only when they grow past the slack.
#[derive(Debug)]
pub(crate) struct BatchCache {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    batches: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

/// Memory one entry takes beside its payload, about.
const ENTRY_BYTES: usize = 128;
/// Entries dropped under one lock.
const TRIM_ENTRIES: usize = 128;

impl BatchCache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::default() }
    }

    /// Keeps batches just appended.
    pub(crate) fn put(&self, batches: impl Iterator<Item = (Key, Bytes)>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, batch) in batches {
            inner.bytes += batch.len() + ENTRY_BYTES;
            inner.batches.insert(key, batch);
            inner.order.push_back(key);
        }
        let slack = self.limit / 4;
        drop(inner.evict(self.limit + slack, usize::MAX));
    }

    /// Drops the oldest batches past the limit.
    pub(crate) fn trim(&self) {
        loop {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let evicted = inner.evict(self.limit, TRIM_ENTRIES);
            drop(inner);
            if evicted.len() < TRIM_ENTRIES {
                break;
            }
        }
    }

    pub(crate) fn get(&self, partition: PartitionNumber, base_offset: Offset) -> Option<Bytes> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.batches.get(&(partition, base_offset)).cloned()
    }
}

impl Inner {
    /// Takes out the oldest batches, at most `count`, until no more than `limit` bytes are left.
    fn evict(&mut self, limit: usize, count: usize) -> Vec<Bytes> {
        let mut evicted = Vec::new();
        while self.bytes > limit && evicted.len() < count {
            let Some(batch) = self.order.pop_front().and_then(|key| self.batches.remove(&key)) else { break };
            self.bytes -= batch.len() + ENTRY_BYTES;
            evicted.push(batch);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_batches_leave_first_and_the_limit_holds() {
        let cache = BatchCache::new(3 * (100 + ENTRY_BYTES));
        let batch = |n: i64| ((PartitionNumber(2), n), Bytes::from(vec![0; 100]));
        cache.put((0..4).map(batch));
        cache.trim();
        assert!(cache.get(PartitionNumber(2), 0).is_none());
        assert!((1..4).all(|n| cache.get(PartitionNumber(2), n).is_some()));
        assert_eq!(cache.inner.lock().unwrap().bytes, 3 * (100 + ENTRY_BYTES));
    }
}
