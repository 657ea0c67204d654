//! Tombstones only for purged records that are the newest of their key.
//!
//! One thread at a time reads on from the purged records to the end of their partition, with pauses, and writes the
//! tombstones of the keys that did not come again. The log takes them only if nothing was appended since the look;
//! otherwise it looks on. A record that has a newer one of its key needs no tombstone: compaction removes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use azulite_storage::Record;
use bytes::Bytes;

use super::super::follower::read_records;
use super::burial::{Burial, tombstones};
use crate::broker::{AppendError, Offset, Partition, PartitionNumber, ReadError};

/// Records that may wait at once. Those that find no place are tried again when a reader meets them again.
const MAX_WAITING: usize = 65_536;
/// Longer keys are left alone: the filter keeps their events back all the same. Ours have 32 bytes.
const MAX_KEY_BYTES: usize = 256;
/// How often tombstones may come too late for a partition that is written all the time.
const MAX_ATTEMPTS: u32 = 100;
/// The longest pause after one read; a shorter read is followed by a pause as long as itself.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Purged records whose tombstones are to be thought about.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    running: bool,
    records: usize,
    partitions: HashMap<PartitionNumber, Job>,
}

/// The purged records of one partition: the newest one met of each key.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) partition: Arc<Partition>,
    pub(super) keys: HashMap<Box<[u8]>, Offset>,
    /// What has been looked at: everything of interest below.
    pub(super) looked: Offset,
}

impl Job {
    pub(super) fn new(partition: Arc<Partition>) -> Self {
        Self { partition, keys: HashMap::new(), looked: 0 }
    }
}

impl Waiting {
    /// False when there is no room, or the key is too long.
    fn add(&mut self, partition: &Arc<Partition>, key: &[u8], offset: Offset) -> bool {
        if self.records >= MAX_WAITING || key.len() > MAX_KEY_BYTES {
            return false;
        }
        let new = || Job::new(partition.clone());
        let keys = &mut self.partitions.entry(partition.number()).or_insert_with(new).keys;
        match keys.get_mut(key) {
            Some(newest) => *newest = (*newest).max(offset),
            None => {
                keys.insert(key.into(), offset);
                self.records += 1;
            }
        }
        true
    }

    fn next(&mut self) -> Option<Job> {
        let number = self.partitions.keys().next().copied()?;
        let job = self.partitions.remove(&number)?;
        self.records = self.records.saturating_sub(job.keys.len());
        Some(job)
    }
}

impl Burial {
    /// Puts these records in the line, and somebody at its end.
    pub(super) fn sweep_later(self: &Arc<Self>, records: Vec<(Arc<Partition>, Bytes, Offset)>) {
        if records.is_empty() {
            return;
        }
        let mut waiting = self.waiting();
        for (partition, key, offset) in records {
            if !waiting.add(&partition, &key, offset) {
                self.recent().forget(partition.number(), &key);
            }
        }
        if waiting.running {
            return;
        }
        let this = self.clone();
        let thread = std::thread::Builder::new().name("azulite-purge".to_owned());
        match thread.spawn(move || this.sweep_all()) {
            Ok(_) => waiting.running = true,
            Err(error) => tracing::warn!(%error, "no thread for the tombstones of purged events; they wait"),
        }
    }

    fn sweep_all(&self) {
        loop {
            let job = {
                let mut waiting = self.waiting();
                let job = waiting.next().filter(|_| !self.stopping.is_cancelled());
                waiting.running = job.is_some();
                job
            };
            let Some(mut job) = job else { return };
            match self.sweep(&mut job) {
                // Or the topic has gone.
                Ok(()) | Err(ReadError::Gone { .. }) => {}
                Err(error) => {
                    tracing::warn!(%error, "purged events stay in the log: what follows them cannot be read");
                    self.count("failed", job.keys.len());
                }
            }
        }
    }

    fn sweep(&self, job: &mut Job) -> Result<(), ReadError> {
        for _ in 0..MAX_ATTEMPTS {
            if !self.newest_of_their_key(job)? || self.bury_newest(job) {
                return Ok(());
            }
        }
        let (partition, keys) = (job.partition.name(), job.keys.len());
        tracing::info!(%partition, keys, "the partition is too busy for tombstones of purged events: a reader tries again");
        self.not_written(job);
        Ok(())
    }

    /// Takes from the job the keys that come again, up to the end of the partition. False when it was stopped.
    pub(super) fn newest_of_their_key(&self, job: &mut Job) -> Result<bool, ReadError> {
        let all = job.keys.len();
        job.looked = job.looked.max(job.keys.values().min().map_or(0, |offset| offset + 1));
        loop {
            let end = job.partition.offsets().high_watermark;
            if job.looked >= end || job.keys.is_empty() {
                self.count("superseded", all - job.keys.len());
                return Ok(true);
            }
            if self.stopping.is_cancelled() {
                return Ok(false);
            }
            let begun = Instant::now();
            let (records, next) = read_records(self.broker.log().as_ref(), &job.partition, job.looked, end)?;
            for Record { key, offset, .. } in &records {
                let Some(key) = key.as_deref() else { continue };
                if job.keys.get(key).is_some_and(|purged| offset > purged) {
                    job.keys.remove(key);
                }
            }
            job.looked = next;
            std::thread::sleep(begun.elapsed().min(MAX_PAUSE));
        }
    }

    /// Writes the tombstones of what is left of the job. False when something was appended since the look.
    pub(super) fn bury_newest(&self, job: &Job) -> bool {
        let now_ms = azulite_storage::clock::now_ms();
        let Some(batch) = tombstones(job.keys.keys().map(|key| &key[..]), now_ms) else { return true };
        match self.append(vec![(job.partition.clone(), batch.only_at(job.looked))]) {
            Ok(appended) => {
                let Some(appended) = appended.first() else { return true };
                let number = job.partition.number();
                job.keys.keys().for_each(|key| self.recent().note(number, key, appended.base_offset));
                self.count("written", job.keys.len());
                true
            }
            Err(AppendError::Moved { .. }) => false,
            Err(error) => {
                tracing::warn!(%error, "the tombstones of purged events were not written");
                self.not_written(job);
                true
            }
        }
    }

    /// Lets the next reader that meets them try again.
    fn not_written(&self, job: &Job) {
        let number = job.partition.number();
        job.keys.keys().for_each(|key| self.recent().forget(number, key));
        self.count("failed", job.keys.len());
    }
}
