//! One partition in memory: its ends, its damage, and the rows of batches that are in the log but not yet in the index.
//!
//! Keeps the laws OFFSET-ORDER (log start <= last stable <= high watermark <= log end) and DENSE (the next base offset
//! is the last batch's base offset + last offset delta + 1). The committer alone moves the ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
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

/// One partition of one topic.
#[derive(Debug)]
pub struct Partition {
    number: PartitionNumber,
    name: TopicPartition,
    log_start: AtomicI64,
    high_watermark: AtomicI64,
    last_time_row: AtomicI64,
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
        let high_watermark = self.high_watermark.load(Ordering::Acquire);
        let log_start = self.log_start.load(Ordering::Acquire);
        PartitionOffsets { log_start, last_stable: high_watermark, high_watermark }
    }

    /// Sets what recovery found. Nothing else has the partition yet.
    pub(crate) fn restore(&self, log_start: Offset, end: Offset, last_time_row: Option<i64>) {
        self.log_start.store(log_start, Ordering::Release);
        self.high_watermark.store(end.max(log_start), Ordering::Release);
        self.last_time_row.store(last_time_row.unwrap_or(-1), Ordering::Release);
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
