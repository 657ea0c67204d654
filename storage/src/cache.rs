//! The newest batches in memory, so that live consumers never touch the disk.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::ids::{Offset, PartitionNumber};

type Key = (PartitionNumber, Offset);

/// First in, first out, up to a number of bytes.
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

impl BatchCache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::default() }
    }

    /// Keeps batches just appended, dropping the oldest ones past the limit.
    pub(crate) fn put(&self, batches: impl Iterator<Item = (Key, Bytes)>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, batch) in batches {
            inner.bytes += batch.len() + ENTRY_BYTES;
            inner.batches.insert(key, batch);
            inner.order.push_back(key);
        }
        while inner.bytes > self.limit {
            let Some(key) = inner.order.pop_front() else { break };
            let freed = inner.batches.remove(&key).map_or(0, |b| b.len() + ENTRY_BYTES);
            inner.bytes -= freed;
        }
    }

    pub(crate) fn get(&self, partition: PartitionNumber, base_offset: Offset) -> Option<Bytes> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.batches.get(&(partition, base_offset)).cloned()
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
        assert!(cache.get(PartitionNumber(2), 0).is_none());
        assert!((1..4).all(|n| cache.get(PartitionNumber(2), n).is_some()));
        assert_eq!(cache.inner.lock().unwrap().bytes, 3 * (100 + ENTRY_BYTES));
    }
}
