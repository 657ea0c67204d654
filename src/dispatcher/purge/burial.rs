//! Tombstones for purged events that a reader met.
//!
//! A tombstone makes the cleaner remove every older record of its key from a compacted topic. That is right at once for
//! an event whose id is purged: whatever comes with this key is purged too. Under the other kinds of order a later event
//! with the same key may be wanted (the plugin ran again after the purge), and a tombstone behind it would take it along.
//! So there the records that follow are looked at first, in the background: see [`super::sweep`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azulite_storage::CheckedBatch;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::recent::Recent;
use super::sweep::Waiting;
use crate::broker::{Append, AppendError, Appended, BatchBuilder, Broker, Offset, Partition, PartitionNumber};
use crate::metrics::Metrics;

/// A purged record.
#[derive(Clone, Debug)]
pub struct Purged {
    /// Where it lies.
    pub partition: Arc<Partition>,
    /// Where in it.
    pub offset: Offset,
    /// Its record key. Without one no tombstone can name it, and none is written.
    pub key: Option<Bytes>,
    /// Everything that will ever come with this key is purged.
    pub for_good: bool,
}

/// Writes tombstones, one for each record however many readers meet it, within the bounds of [`Recent`].
#[derive(Debug)]
pub struct Burial {
    pub(super) broker: Broker,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stopping: CancellationToken,
    recent: Mutex<Recent>,
    waiting: Mutex<Waiting>,
}

/// What is to be written into one partition: how many of the records at hand each key stands for.
type Graves = BTreeMap<PartitionNumber, (Arc<Partition>, BTreeMap<Bytes, u64>)>;

impl Burial {
    /// Nothing is written or remembered yet. `stopping` ends what goes on in the background.
    pub fn new(broker: Broker, metrics: Arc<Metrics>, stopping: CancellationToken) -> Self {
        Self { broker, metrics, stopping, recent: Mutex::default(), waiting: Mutex::default() }
    }

    /// Writes the tombstones of these records, or sees to it that they are written. Blocks for one commit at most.
    /// Returns for how many of them that failed: they are tried again when a reader meets them again.
    ///
    /// # Durability
    /// The tombstones written by the call are durable; those that come later are lost when the process ends before.
    pub fn bury(self: &Arc<Self>, purged: Vec<Purged>, now_ms: i64) -> u64 {
        let (mut now, mut later) = (Graves::new(), Vec::new());
        {
            let mut recent = self.recent();
            for Purged { partition, offset, key, for_good } in purged {
                let Some(key) = key else { continue };
                let number = partition.number();
                if recent.covers(number, &key, offset) {
                    continue;
                }
                recent.note(number, &key, offset);
                if for_good {
                    let (_, keys) = now.entry(number).or_insert_with(|| (partition, BTreeMap::new()));
                    *keys.entry(key).or_default() += 1;
                } else {
                    later.push((partition, key, offset));
                }
            }
        }
        self.sweep_later(later);
        match now.is_empty() {
            true => 0,
            false => self.bury_now(&now, now_ms),
        }
    }

    fn bury_now(&self, graves: &Graves, now_ms: i64) -> u64 {
        let batches = graves.values().filter_map(|(partition, keys)| {
            let batch = tombstones(keys.keys().map(|key| &key[..]), now_ms)?;
            Some((partition.clone(), batch))
        });
        let outcome = self.append(batches.collect());
        let mut recent = self.recent();
        match outcome {
            Ok(appended) => {
                for ((partition, (_, keys)), appended) in graves.iter().zip(appended) {
                    keys.keys().for_each(|key| recent.note(*partition, key, appended.base_offset));
                    self.count("written", keys.len());
                }
                0
            }
            Err(error) => {
                tracing::warn!(%error, "the tombstones of purged events were not written");
                for (partition, (_, keys)) in graves {
                    keys.keys().for_each(|key| recent.forget(*partition, key));
                    self.count("failed", keys.len());
                }
                graves.values().flat_map(|(_, keys)| keys.values()).sum()
            }
        }
    }

    /// Appends in one commit and waits for it.
    pub(super) fn append(&self, batches: Vec<(Arc<Partition>, CheckedBatch)>) -> Result<Vec<Appended>, AppendError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let appends = batches.into_iter().map(|(partition, batch)| Append { partition, batch }).collect();
        // It is waited for below.
        let done = Box::new(move |outcome| drop(sender.send(outcome)));
        self.broker.log().append(self.broker.new_lane(), appends, done);
        receiver.recv().unwrap_or(Err(AppendError::Closed))
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, result: &str, tombstones: usize) {
        self.metrics.purge_tombstones.add([result], u64::try_from(tombstones).unwrap_or(u64::MAX));
    }
}

/// A batch of tombstones for these keys, unless there are none.
pub(super) fn tombstones<'a>(keys: impl Iterator<Item = &'a [u8]>, now_ms: i64) -> Option<CheckedBatch> {
    let mut batch = BatchBuilder::default();
    keys.for_each(|key| batch.push(now_ms, Some(key), None));
    batch.build()
}
