//! Tombstones only for purged records that are the newest of their key.
//!
//! One thread at a time reads on from the purged records to the end of their partition, with pauses, and writes the
//! tombstones of the keys that did not come again. What is appended with such a key between the look and the tombstone
//! is appended once more behind it. A record that has a newer one of its key needs no tombstone: compaction removes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use azulite_storage::Record;
use bytes::Bytes;

use super::super::follower::read_records;
use super::burial::{Burial, tombstones};
use crate::broker::{BatchBuilder, Offset, Partition, PartitionNumber, ReadError};

/// Records that may wait at once. Those that find no place are tried again when a reader meets them again.
const MAX_WAITING: usize = 65_536;
/// Longer keys are left alone: the filter keeps their events back all the same. Ours have 32 bytes.
const MAX_KEY_BYTES: usize = 256;
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
}

impl Waiting {
    /// False when there is no room, or the key is too long.
    fn add(&mut self, partition: &Arc<Partition>, key: &[u8], offset: Offset) -> bool {
        if self.records >= MAX_WAITING || key.len() > MAX_KEY_BYTES {
            return false;
        }
        let new = || Job { partition: partition.clone(), keys: HashMap::new() };
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
            match self.newest_of_their_key(&mut job) {
                Ok(Some(end)) => self.bury_newest(&job, end),
                // Stopping, or the topic has gone.
                Ok(None) | Err(ReadError::Gone { .. }) => {}
                Err(error) => {
                    tracing::warn!(%error, "purged events stay in the log: what follows them cannot be read");
                    self.count("failed", job.keys.len());
                }
            }
        }
    }

    /// Takes from the job the keys that come again. The offset up to which it looked, `None` when it was stopped.
    pub(super) fn newest_of_their_key(&self, job: &mut Job) -> Result<Option<Offset>, ReadError> {
        let all = job.keys.len();
        let mut from = job.keys.values().min().map_or(0, |offset| offset + 1);
        loop {
            let end = job.partition.offsets().high_watermark;
            if from >= end || job.keys.is_empty() {
                self.count("superseded", all - job.keys.len());
                return Ok(Some(end));
            }
            if self.stopping.is_cancelled() {
                return Ok(None);
            }
            let begun = Instant::now();
            let (records, next) = read_records(self.broker.log().as_ref(), &job.partition, from, end)?;
            for Record { key, offset, .. } in &records {
                let Some(key) = key.as_deref() else { continue };
                if job.keys.get(key).is_some_and(|purged| offset > purged) {
                    job.keys.remove(key);
                }
            }
            from = next;
            std::thread::sleep(begun.elapsed().min(MAX_PAUSE));
        }
    }

    /// Writes the tombstones of what is left of the job, which looked at everything below `end`.
    pub(super) fn bury_newest(&self, job: &Job, end: Offset) {
        let now_ms = azulite_storage::clock::now_ms();
        let Some(batch) = tombstones(job.keys.keys().map(|key| &key[..]), now_ms) else { return };
        let number = job.partition.number();
        match self.append(vec![(job.partition.clone(), batch)]) {
            Ok(appended) => {
                let Some(appended) = appended.first() else { return };
                job.keys.keys().for_each(|key| self.recent().note(number, key, appended.base_offset));
                self.count("written", job.keys.len());
                self.restore(job, end, appended.base_offset);
            }
            Err(error) => {
                tracing::warn!(%error, "the tombstones of purged events were not written");
                job.keys.keys().for_each(|key| self.recent().forget(number, key));
                self.count("failed", job.keys.len());
            }
        }
    }

    /// Appends again what came with one of the keys in `from..tombstones`.
    fn restore(&self, job: &Job, mut from: Offset, tombstones: Offset) {
        let mut batch = BatchBuilder::default();
        let mut restored = 0;
        while from < tombstones {
            let (records, next) = match read_records(self.broker.log().as_ref(), &job.partition, from, tombstones) {
                Ok(read) => read,
                Err(error) => {
                    let keys = job.keys.len();
                    tracing::error!(%error, keys, from, tombstones, "events newer than purged ones may be lost");
                    break;
                }
            };
            for Record { key, value, timestamp, headers, .. } in records {
                let Some(key) = key.filter(|key| job.keys.contains_key(&key[..])) else { continue };
                let headers: Vec<_> = headers.iter().map(|h| (&h.key[..], h.value.as_deref())).collect();
                batch.push_with_headers(timestamp, Some(&key), value.as_deref(), &headers);
                restored += 1;
            }
            from = next;
        }
        let Some(batch) = batch.build() else { return };
        match self.append(vec![(job.partition.clone(), batch)]) {
            Ok(_) => self.count("restored", restored),
            Err(error) => {
                let partition = job.partition.name();
                tracing::error!(%error, %partition, from, tombstones, "events newer than purged ones may be lost");
            }
        }
    }
}
