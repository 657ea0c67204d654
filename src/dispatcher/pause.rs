//! The pause of plugins: when it began, whether it lasts, and where task groups go on behind it.
//!
//! A restore or a reprocess asks for a pause, so that plugins do not work again on what is put back. While it lasts,
//! `active` answers at once and hands out nothing. Where the log ended when the pause ended is written down before
//! anything is appended behind it; a task group that was there before the pause goes on at that place the next time it is
//! used, however late that is. Contract events.md 6.4. Time is an argument everywhere.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azulite_storage::index::IndexError;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::topic::TopicRef;
use crate::broker::{LogStore, Offset, PartitionNumber};

/// A pause ends so long after the last request for it.
pub const PAUSE_MS: i64 = 10 * 60_000;
/// A task group first seen within this time after the last request begins where the pause ended.
pub const AFTERMATH_MS: i64 = 30 * 60_000;
/// While a pause lasts, further requests are written down at most so often.
const WRITE_EVERY_MS: i64 = 60_000;
/// Name of the value in the log.
const NAME: &[u8] = b"pause";

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Pauses are numbered from 1.
    number: i64,
    /// The last request, milliseconds since 1970.
    last_ms: i64,
    /// Where each partition ended when the pause ended, by partition number; absent before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends: Option<BTreeMap<u32, Offset>>,
}

impl Record {
    /// A clock that was set back far, or was far ahead when the pause began, ends it rather than make it last.
    fn lasts(&self, now_ms: i64) -> bool {
        now_ms.abs_diff(self.last_ms) < PAUSE_MS.unsigned_abs()
    }

    /// When it is to be written down where the log ends.
    fn due_ms(&self) -> i64 {
        if self.ends.is_some() { i64::MAX } else { self.last_ms.saturating_add(PAUSE_MS) }
    }
}

/// A pause that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    number: i64,
    last_ms: i64,
    ends: BTreeMap<u32, Offset>,
}

impl Ended {
    /// Its number, above zero; later pauses have higher ones.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// Whether a task group goes on behind the pause: one that has taken note of pauses up to `seen` and not of this one,
    /// or one that is seen for the first time (`None`) soon enough.
    pub fn concerns(&self, seen: Option<i64>, now_ms: i64) -> bool {
        match seen {
            Some(seen) => seen < self.number,
            None => now_ms.saturating_sub(self.last_ms) < AFTERMATH_MS,
        }
    }

    /// Where a partition ended; `None` for one made since.
    pub fn end_of(&self, partition: PartitionNumber) -> Option<Offset> {
        self.ends.get(&partition.0).copied()
    }
}

#[derive(Debug, Default)]
struct State {
    record: Option<Record>,
    ended: Option<Arc<Ended>>,
    /// The request that was written down last.
    written_ms: Option<i64>,
}

/// See the module.
#[derive(Debug)]
pub struct Pause {
    state: Mutex<State>,
    /// Held while something is written, so that the newest is written last. Never taken on an async thread.
    writing: Mutex<()>,
    /// When there will be something for [`Pause::settle`] to do; `i64::MAX` for never.
    due_ms: AtomicI64,
    /// Counts the pauses that began.
    begun: watch::Sender<u64>,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            writing: Mutex::default(),
            due_ms: AtomicI64::new(i64::MAX),
            begun: watch::Sender::new(0),
        }
    }
}

impl Pause {
    /// As it was written down; one that ended meanwhile is settled.
    ///
    /// # Errors
    /// The index failed.
    pub fn load(log: &dyn LogStore, topic_prefix: &str, now_ms: i64) -> Result<Self, IndexError> {
        let pause = Self::default();
        let read = |bytes: &[u8]| serde_json::from_slice::<Record>(bytes);
        match log.kv(NAME)?.map(|bytes| read(&bytes)) {
            Some(Ok(record)) => {
                pause.written(record.last_ms);
                pause.change(&mut pause.lock(), record);
            }
            Some(Err(error)) => tracing::error!(%error, "the pause of plugins cannot be read; there is none"),
            None => {}
        }
        pause.settle(log, topic_prefix, now_ms);
        Ok(pause)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, state: &mut State, record: Record) {
        let ended = |ends: &BTreeMap<u32, Offset>| {
            Arc::new(Ended { number: record.number, last_ms: record.last_ms, ends: ends.clone() })
        };
        state.ended = record.ends.as_ref().map(ended);
        self.due_ms.store(record.due_ms(), Ordering::Release);
        state.record = Some(record);
    }

    fn written(&self, last_ms: i64) {
        self.lock().written_ms = Some(last_ms);
    }

    /// Begins a pause, or makes the one that lasts last longer. Blocks for a commit, at most once a minute.
    ///
    /// In effect when this returns, also if it could not be written down; that is logged.
    pub fn request(&self, log: &dyn LogStore, topic_prefix: &str, now_ms: i64) {
        self.settle(log, topic_prefix, now_ms);
        let began = {
            let mut state = self.lock();
            let before = state.record.clone().filter(|record| record.ends.is_none() && record.lasts(now_ms));
            let number = state.record.as_ref().map_or(0, |record| record.number);
            let began = before.is_none();
            let number = if began { number + 1 } else { number };
            let last_ms = before.map_or(now_ms, |record| record.last_ms.max(now_ms));
            self.change(&mut state, Record { number, last_ms, ends: None });
            if began {
                state.written_ms = None;
            }
            began
        };
        if began {
            tracing::info!("plugins are paused");
            self.begun.send_modify(|count| *count += 1);
        }
        self.write(log, WRITE_EVERY_MS);
    }

    /// Whether task consumers are to wait.
    pub fn lasts(&self, now_ms: i64) -> bool {
        self.lock().record.as_ref().is_some_and(|record| record.ends.is_none() && record.lasts(now_ms))
    }

    /// The last pause, once it is over and settled.
    pub fn ended(&self) -> Option<Arc<Ended>> {
        self.lock().ended.clone()
    }

    /// Changes when a pause begins.
    pub fn beginnings(&self) -> watch::Receiver<u64> {
        self.begun.subscribe()
    }

    /// When [`Pause::settle`] is due, milliseconds since 1970; `i64::MAX` for never.
    pub fn due_ms(&self) -> i64 {
        self.due_ms.load(Ordering::Acquire)
    }

    /// Writes down where the log ends if a pause has ended. Called before anything is appended and before a task group is
    /// read; cheap when there is nothing to do, else it blocks for a commit.
    pub fn settle(&self, log: &dyn LogStore, topic_prefix: &str, now_ms: i64) {
        let over = |record: &Record| record.ends.is_none() && !record.lasts(now_ms);
        if self.due_ms() == i64::MAX || !self.lock().record.as_ref().is_some_and(over) {
            return;
        }
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else was faster, or it was asked for again.
        let Some(before) = self.lock().record.clone().filter(over) else { return };
        let settled = Record { ends: Some(ends_of(log, topic_prefix)), ..before };
        // Written before anybody can see it: what is appended from then on lies behind the end, also after a kill.
        self.put(log, &settled);
        let mut state = self.lock();
        let same = |record: &Record| over(record) && record.number == settled.number;
        if state.record.as_ref().is_some_and(same) {
            self.change(&mut state, settled);
            tracing::info!("the pause of plugins is over");
        }
        drop(state);
        drop(writing);
    }

    /// Writes down a request that was not yet; for now and then, and for the end.
    pub fn flush(&self, log: &dyn LogStore) {
        self.write(log, 1);
    }

    /// Writes the last request if it came at least `after_ms` behind the one that was written last.
    fn write(&self, log: &dyn LogStore, after_ms: i64) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = {
            let state = self.lock();
            let is_due =
                |record: &&Record| state.written_ms.is_none_or(|ms| record.last_ms.saturating_sub(ms) >= after_ms);
            state.record.as_ref().filter(is_due).cloned()
        };
        if let Some(record) = record {
            self.put(log, &record);
        }
    }

    fn put(&self, log: &dyn LogStore, record: &Record) {
        let value = serde_json::to_vec(record).unwrap_or_default();
        match log.put_kv(vec![(NAME.to_vec(), Some(value.into()))]) {
            Ok(()) => self.written(record.last_ms),
            Err(error) => {
                tracing::error!(%error, "the pause of plugins was not written; a restart would not know of it")
            }
        }
    }
}

fn ends_of(log: &dyn LogStore, topic_prefix: &str) -> BTreeMap<u32, Offset> {
    let topics = log.topics();
    let ours = topics.iter().filter(|topic| TopicRef::parse(topic_prefix, &topic.name).is_some());
    let partitions = ours.flat_map(|topic| &topic.partitions);
    partitions.map(|partition| (partition.number().0, partition.offsets().high_watermark)).collect()
}

#[cfg(test)]
mod tests;
