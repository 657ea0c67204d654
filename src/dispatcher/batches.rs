//! Record batches being filled, one for each partition, until they are committed together.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::topic;
use crate::broker::{Append, BatchBuilder, Partition, Topic};

/// A batch is closed once it holds this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    open: BTreeMap<(String, u32), (Arc<Partition>, BatchBuilder)>,
    closed: Vec<Append>,
}

impl Batches {
    /// Adds a record of an event topic to the partition that its key belongs to; a tombstone when there is no value.
    pub(crate) fn push(&mut self, topic: &Topic, now_ms: i64, key: &[u8], value: Option<&[u8]>) {
        let count = u32::try_from(topic.partitions.len()).unwrap_or(1);
        let index = topic::partition(key, count);
        let Some(partition) = i32::try_from(index).ok().and_then(|index| topic.partition(index)) else { return };
        let length = value.map_or(0, <[u8]>::len);
        let place = (topic.name.clone(), index);
        if self.open.get(&place).is_some_and(|(_, batch)| batch.len() + length > BATCH_BYTES && !batch.is_empty()) {
            self.close(&place);
        }
        let fresh = || (partition.clone(), BatchBuilder::with_capacity(length + 128));
        self.open.entry(place).or_insert_with(fresh).1.push(now_ms, Some(key), value);
    }

    fn close(&mut self, place: &(String, u32)) {
        if let Some((partition, builder)) = self.open.remove(place)
            && let Some(batch) = builder.build()
        {
            self.closed.push(Append { partition, batch });
        }
    }

    /// Everything, to be committed.
    pub(crate) fn finish(mut self) -> Vec<Append> {
        let open: Vec<_> = self.open.keys().cloned().collect();
        open.iter().for_each(|place| self.close(place));
        self.closed
    }
}
