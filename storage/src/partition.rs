//! One partition in memory: its ends, its damage, and the rows of batches that are in the log but not yet in the index.
//!
//! Keeps the laws OFFSET-ORDER (log start <= last stable <= high watermark <= log end) and DENSE (the next base offset
//! is the last batch's base offset + last offset delta + 1). The committer alone moves the ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::{CommitNumber, Offset, PartitionNumber, TopicPartition};
use crate::keys::log::BatchRow;
use crate::keys::time::enters_new_second;
use crate::state::DamageRecord;

/// The ends of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The first offset that is kept.
    pub log_start: Offset,
    /// Up to here readers of committed transactions may read; equal to the high watermark while there are none.
    pub last_stable: Offset,
    /// Nobody reads at or above it: the durable end.
    pub high_watermark: Offset,
}

/// A batch in the log whose row has not reached the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailRow {
    pub(crate) base_offset: Offset,
    pub(crate) row: BatchRow,
    pub(crate) commit: CommitNumber,
}

impl TailRow {
    /// Offset of its last record.
    pub(crate) fn last(&self) -> Offset {
        self.base_offset + i64::from(self.row.last_offset_delta)
    }
}

/// A range of offsets that was acknowledged and is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The partition, by name.
    pub partition: TopicPartition,
    /// First lost offset.
    pub from: Offset,
    /// One past the last, and where it was.
    pub record: DamageRecord,
}

/// A leader epoch and the offset where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderEpoch {
    /// 0 for life, one more for each restore or repair.
    pub epoch: i32,
    /// The first offset of that epoch.
    pub start: Offset,
}

/// Whether a partition still takes records and answers reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// As usual.
    Live,
    /// Its topic is being deleted: nothing more is appended.
    Closing,
    /// Its topic is deleted, and that is durable.
    Gone,
}

/// One partition of one topic.
#[derive(Debug)]
pub struct Partition {
    number: PartitionNumber,
    name: TopicPartition,
    log_start: AtomicI64,
    high_watermark: AtomicI64,
    last_time_row: AtomicI64,
    /// Payload bytes of all rows: counted by the committer as they come and by upkeep as they go.
    bytes: AtomicI64,
    /// The high watermark at the opening: batches below it are counted afterwards.
    counted_from: AtomicI64,
    counted: AtomicBool,
    swept_below: AtomicI64,
    life: AtomicU8,
    /// Behind epoch 0; empty for nearly all partitions.
    epochs: Mutex<Vec<LeaderEpoch>>,
    tail: Mutex<VecDeque<TailRow>>,
    damage: Mutex<Vec<(Offset, DamageRecord)>>,
}

impl Partition {
    pub(crate) fn new(number: PartitionNumber, name: TopicPartition) -> Self {
        Self {
            number,
            name,
            log_start: AtomicI64::new(0),
            high_watermark: AtomicI64::new(0),
            last_time_row: AtomicI64::new(-1),
            bytes: AtomicI64::new(0),
            counted_from: AtomicI64::new(0),
            counted: AtomicBool::new(true),
            swept_below: AtomicI64::new(0),
            life: AtomicU8::new(0),
            epochs: Mutex::default(),
            tail: Mutex::default(),
            damage: Mutex::default(),
        }
    }

    /// Its number on disk.
    #[must_use]
    pub fn number(&self) -> PartitionNumber {
        self.number
    }

    /// Topic and index.
    #[must_use]
    pub fn name(&self) -> &TopicPartition {
        &self.name
    }

    /// Its ends now.
    #[must_use]
    pub fn offsets(&self) -> PartitionOffsets {
        // In this order: the log start may move up to the high watermark in between, and that only grows.
        let log_start = self.log_start.load(Ordering::Acquire);
        let high_watermark = self.high_watermark.load(Ordering::Acquire);
        PartitionOffsets { log_start, last_stable: high_watermark, high_watermark }
    }

    /// Sets what recovery found. Nothing else has the partition yet.
    pub(crate) fn restore(&self, log_start: Offset, end: Offset, last_time_row: Option<i64>) {
        self.log_start.store(log_start, Ordering::Release);
        self.high_watermark.store(end.max(log_start), Ordering::Release);
        self.counted_from.store(end.max(log_start), Ordering::Release);
        self.counted.store(end.max(log_start) == 0, Ordering::Release);
        self.last_time_row.store(last_time_row.unwrap_or(-1), Ordering::Release);
    }

    /// Recovery found that offsets up to `end` were given and lost.
    pub(crate) fn extend_to(&self, end: Offset) {
        self.high_watermark.fetch_max(end, Ordering::AcqRel);
    }

    /// Moves the log start forward, once that is durable; never back.
    pub(crate) fn start_at(&self, log_start: Offset) {
        self.log_start.fetch_max(log_start, Ordering::AcqRel);
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        damage.retain(|(_, record)| record.end > log_start);
    }

    /// True once its topic is deleted: nothing is appended or read any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.life() == Life::Gone
    }

    pub(crate) fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Live,
            1 => Life::Closing,
            _ => Life::Gone,
        }
    }

    pub(crate) fn set_life(&self, life: Life) {
        let byte = match life {
            Life::Live => 0,
            Life::Closing => 1,
            Life::Gone => 2,
        };
        self.life.store(byte, Ordering::Release);
    }

    /// Bytes of the record batches it holds, about: what lies below the log start counts until it is swept, and after a
    /// start it takes a moment until the batches of earlier runs are counted.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        u64::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// [`Partition::size_bytes`] once everything is counted and nothing lies below the log start.
    pub(crate) fn exact_bytes(&self) -> Option<u64> {
        let swept = self.swept_below() >= self.log_start.load(Ordering::Acquire);
        (swept && self.counted.load(Ordering::Acquire)).then(|| self.size_bytes())
    }

    /// No batch that ends below this offset has a row.
    pub(crate) fn swept_below(&self) -> Offset {
        self.swept_below.load(Ordering::Acquire)
    }

    pub(crate) fn set_swept(&self, below: Offset) {
        self.swept_below.store(below, Ordering::Release);
    }

    /// Where counting the batches of earlier runs ends.
    pub(crate) fn counted_from(&self) -> Offset {
        self.counted_from.load(Ordering::Acquire)
    }

    /// The batches of earlier runs are counted.
    pub(crate) fn set_counted(&self) {
        self.counted.store(true, Ordering::Release);
    }

    /// Corrects [`Partition::size_bytes`] for rows found, removed or shrunk.
    pub(crate) fn count_bytes(&self, change: i64) {
        self.bytes.fetch_add(change, Ordering::Relaxed);
    }

    /// The leader epoch that records are appended with (`kafka.md` 3.8).
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.epochs().last().map_or(0, |last| last.epoch)
    }

    /// What a client that has records of epoch `requested` may keep: the largest epoch up to that one, and one past its
    /// last offset. `None` for an epoch that has not been.
    #[must_use]
    pub fn end_of_epoch(&self, requested: i32) -> Option<(i32, Offset)> {
        let epochs = self.epochs();
        let current = epochs.last().map_or(0, |last| last.epoch);
        if requested < 0 || requested > current {
            return None;
        }
        let behind = epochs.partition_point(|epoch| epoch.epoch <= requested);
        let epoch = behind.checked_sub(1).and_then(|last| epochs.get(last)).map_or(0, |last| last.epoch);
        let end = epochs.get(behind).map(|next| next.start);
        drop(epochs);
        Some((epoch, end.unwrap_or_else(|| self.offsets().high_watermark)))
    }

    pub(crate) fn epochs(&self) -> MutexGuard<'_, Vec<LeaderEpoch>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Timestamp of the last time row; -1 for none.
    pub(crate) fn last_time_row(&self) -> i64 {
        self.last_time_row.load(Ordering::Acquire)
    }

    /// Takes note of a batch's largest timestamp; true when the batch gets a time row.
    pub(crate) fn gets_time_row(&self, timestamp: i64) -> bool {
        let due = enters_new_second(self.last_time_row(), timestamp);
        if due {
            self.last_time_row.store(timestamp, Ordering::Release);
        }
        due
    }

    /// Adds rows of a commit that is durable and shows them to readers.
    pub(crate) fn publish(&self, rows: impl Iterator<Item = TailRow>) {
        let mut tail = self.tail();
        let mut end = self.high_watermark.load(Ordering::Acquire);
        for row in rows {
            assert_eq!(row.base_offset, end, "DENSE: {}", self.name);
            end = row.last() + 1;
            self.count_bytes(i64::from(row.row.payload_len));
            tail.push_back(row);
        }
        self.high_watermark.store(end, Ordering::Release);
    }

    /// Drops rows that are in the index now.
    pub(crate) fn applied(&self, commit: CommitNumber) {
        let mut tail = self.tail();
        while tail.front().is_some_and(|row| row.commit <= commit) {
            tail.pop_front();
        }
        if tail.is_empty() {
            tail.shrink_to(64);
        }
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, VecDeque<TailRow>> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_damage(&self, from: Offset, record: DamageRecord) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if !damage.iter().any(|(f, r)| *f == from && *r == record) {
            damage.push((from, record));
        }
    }

    /// The damaged range that holds `offset`.
    #[must_use]
    pub fn damage_at(&self, offset: Offset) -> Option<Damage> {
        self.damage().into_iter().find(|d| d.from <= offset && offset < d.record.end)
    }

    /// Every range known to be lost.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |(from, record): &(Offset, DamageRecord)| Damage {
            partition: self.name.clone(),
            from: *from,
            record: record.clone(),
        };
        damage.iter().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_epoch_is_where_the_next_one_began() {
        let partition = Partition::new(PartitionNumber(2), TopicPartition { topic: "t".into(), partition: 0 });
        partition.restore(0, 50, None);
        assert_eq!((partition.leader_epoch(), partition.end_of_epoch(0)), (0, Some((0, 50))));
        assert_eq!((partition.end_of_epoch(1), partition.end_of_epoch(-1)), (None, None));
        partition.epochs().extend([LeaderEpoch { epoch: 1, start: 10 }, LeaderEpoch { epoch: 4, start: 30 }]);
        assert_eq!(partition.leader_epoch(), 4);
        let ends = (0..6).map(|epoch| partition.end_of_epoch(epoch)).collect::<Vec<_>>();
        let between = Some((1, 30));
        assert_eq!(ends, [Some((0, 10)), between, between, between, Some((4, 50)), None]);
    }
}
