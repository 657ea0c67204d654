//! The second stage of a commit: rows of durable commits on their way into the index, looked up here until they are
//! there.
//!
//! Replies depend on the sync alone; the applier thread brings rows into the index behind it. It starts when many wait,
//! and then takes small bites and gives way after each: a thread that only computes can keep the committer, or the
//! kernel's part of its sync, off a processor for a whole scheduler tick, and that showed as acknowledgements of 4 ms.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::cache::BatchCache;
use crate::ids::{CommitNumber, PartitionNumber};
use crate::index::{Index, IndexError, Rows, StateKeyspace};
use crate::keys::marker::Marker;
use crate::keys::producer::ProducerKey;
use crate::partition::Partition;
use crate::producers::has_expired;
use crate::store::{Clock, Options};

/// Rows that make the applier start before their time.
const START_ROWS: usize = 1024;
/// Rows applied at once, about: a bite is whole commits.
const BITE_ROWS: usize = 64;
/// Rows that may wait; the committer stops until there is room.
const MAX_ROWS: usize = 65_536;
/// How often expired producers are looked for.
const EXPIRY_ROUND: Duration = Duration::from_secs(600);
/// The longest a row waits.
const MAX_AGE: Duration = Duration::from_millis(100);

/// What one commit hands on.
pub(crate) struct CommitRows {
    pub(crate) rows: Rows,
    pub(crate) marker: Marker,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

impl CommitRows {
    /// Adds the commit after this one.
    fn add(&mut self, next: Self) {
        self.rows.batches.extend(next.rows.batches);
        self.rows.times.extend(next.rows.times);
        self.rows.producers.extend(next.rows.producers);
        self.rows.state.extend(next.rows.state);
        self.partitions.extend(next.partitions);
        self.marker = next.marker;
    }
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<CommitRows>,
    /// Rows of all that waits.
    rows: usize,
    /// When the oldest that waits came.
    since: Option<Instant>,
    /// True from the first bite until nothing waits.
    started: bool,
    flush_wanted: bool,
    applied: CommitNumber,
    pushed: CommitNumber,
    stopped: bool,
    /// True while the applier sleeps: only then it has to be woken.
    idle: bool,
}

impl Inner {
    fn ready(&self) -> bool {
        self.started || self.rows >= START_ROWS || self.flush_wanted || self.stopped
    }

    fn bite(&mut self) -> Option<CommitRows> {
        let mut bite = self.waiting.pop_front()?;
        while bite.rows.count() < BITE_ROWS
            && let Some(next) = self.waiting.pop_front()
        {
            bite.add(next);
        }
        self.rows -= bite.rows.count();
        self.started = !self.waiting.is_empty();
        if !self.started {
            self.since = None;
            self.flush_wanted = false;
        }
        Some(bite)
    }
}

/// Takes producers that have written nothing for long out of the index, a few behind each bite.
pub(crate) struct Expiry {
    expiration_ms: i64,
    clock: Clock,
    /// Where this round goes on; `None` between rounds.
    at: Option<ProducerKey>,
    next_round: Instant,
}

impl Expiry {
    pub(crate) fn new(options: &Options) -> Self {
        let (expiration_ms, clock) = (options.producer_expiration_ms, options.clock.clone());
        Self { expiration_ms, clock, at: None, next_round: Instant::now() }
    }

    fn go_on(&mut self, index: &Index) -> Result<(), IndexError> {
        let now = Instant::now();
        if self.at.is_none() {
            if now < self.next_round {
                return Ok(());
            }
            self.next_round = now + EXPIRY_ROUND;
        }
        let now_ms = (self.clock)();
        let from = self.at.unwrap_or(ProducerKey { partition: PartitionNumber(0), producer_id: 0 });
        self.at = index.expire_producers(from, BITE_ROWS, |row| has_expired(row, now_ms, self.expiration_ms))?;
        Ok(())
    }
}

/// A state row that is not in the index yet: the commit it came with, and its value (`None`: removed).
type Overlay = BTreeMap<(StateKeyspace, Bytes), (CommitNumber, Option<Bytes>)>;

/// The rows in between.
#[derive(Default)]
pub(crate) struct Pending {
    inner: Mutex<Inner>,
    work: Condvar,
    room: Condvar,
    overlay: Mutex<Overlay>,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a commit's state rows to readers.
    pub(crate) fn show(&self, commit: CommitNumber, rows: &[(StateKeyspace, Bytes, Option<Bytes>)]) {
        let mut overlay = self.overlay();
        for (keyspace, key, value) in rows {
            overlay.insert((*keyspace, key.clone()), (commit, value.clone()));
        }
    }

    /// Hands a durable commit on; waits while too much is under way. False when the applier has stopped.
    pub(crate) fn push(&self, commit: CommitRows) -> bool {
        let mut inner = self.lock();
        while inner.rows > MAX_ROWS && !inner.stopped {
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.pushed = commit.marker.applied;
        inner.rows += commit.rows.count();
        inner.waiting.push_back(commit);
        let first = inner.since.is_none();
        inner.since.get_or_insert_with(Instant::now);
        let wake = inner.idle && (first || inner.ready());
        let alive = !inner.stopped;
        drop(inner);
        if wake {
            self.work.notify_one();
        }
        alive
    }

    /// The last commit that is in the index.
    pub(crate) fn applied(&self) -> CommitNumber {
        self.lock().applied
    }

    /// Waits until everything pushed so far is in the index. False when the applier has stopped before.
    pub(crate) fn flush(&self) -> bool {
        let mut inner = self.lock();
        let target = inner.pushed;
        while inner.applied < target && !inner.stopped {
            inner.flush_wanted = true;
            self.work.notify_one();
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.applied >= target
    }

    /// Ends the applier once everything pushed is in.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// The applier thread: returns when stopped and empty, or with the error that ended it. Drops what `cache` has too
    /// much of as it goes.
    pub(crate) fn run(&self, index: &Index, cache: &BatchCache, mut expiry: Expiry) -> Result<(), IndexError> {
        while let Some(CommitRows { rows, marker, mut partitions }) = self.next() {
            let keys: Vec<_> = rows.state.iter().map(|(keyspace, key, _)| (*keyspace, key.clone())).collect();
            let applied = index.apply(rows, marker);
            let mut inner = self.lock();
            inner.stopped |= applied.is_err();
            if applied.is_ok() {
                inner.applied = marker.applied;
            }
            drop(inner);
            if applied.is_ok() {
                partitions.sort_unstable_by_key(|partition| partition.number());
                partitions.dedup_by_key(|partition| partition.number());
                partitions.iter().for_each(|partition| partition.applied(marker.applied));
                self.hide(marker.applied, &keys);
            }
            self.room.notify_all();
            applied?;
            expiry.go_on(index)?;
            cache.trim();
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Takes state rows of commits up to `applied` out of what is looked up here: the index has them.
    fn hide(&self, applied: CommitNumber, keys: &[(StateKeyspace, Bytes)]) {
        if keys.is_empty() {
            return;
        }
        let mut overlay = self.overlay();
        for key in keys {
            if overlay.get(key).is_some_and(|(commit, _)| *commit <= applied) {
                overlay.remove(key);
            }
        }
    }

    fn next(&self) -> Option<CommitRows> {
        let mut inner = self.lock();
        loop {
            let due = inner.since.map(|since| MAX_AGE.saturating_sub(since.elapsed()));
            match due {
                Some(due) if inner.ready() || due.is_zero() => return inner.bite(),
                None if inner.stopped => return None,
                Some(_) | None => {}
            }
            inner.idle = true;
            inner = match due {
                Some(due) => self.work.wait_timeout(inner, due).unwrap_or_else(PoisonError::into_inner).0,
                None => self.work.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
            inner.idle = false;
        }
    }

    /// Newest value of a state row.
    pub(crate) fn state(
        &self,
        index: &Index,
        keyspace: StateKeyspace,
        key: &[u8],
    ) -> Result<Option<Bytes>, IndexError> {
        if let Some((_, value)) = self.overlay().get(&(keyspace, Bytes::copy_from_slice(key))) {
            return Ok(value.clone());
        }
        index.state(keyspace, key)
    }

    /// The first `limit` rows of keyspace `state` whose key starts with `prefix` and is above `after`, newest values.
    pub(crate) fn state_page(
        &self,
        index: &Index,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
        let inside = |key: &Bytes| key.starts_with(prefix) && after.is_none_or(|after| key.as_ref() > after);
        let from = (StateKeyspace::State, Bytes::copy_from_slice(after.unwrap_or(prefix)));
        let newer: BTreeMap<Bytes, Option<Bytes>> = {
            let overlay = self.overlay();
            let range =
                overlay.range(from..).take_while(|(k, _)| k.0 == StateKeyspace::State && k.1.starts_with(prefix));
            range.filter(|(k, _)| inside(&k.1)).map(|((_, key), (_, value))| (key.clone(), value.clone())).collect()
        };
        let mut page = BTreeMap::new();
        let mut read_up_to = None;
        for row in index.state_behind(StateKeyspace::State, prefix, after) {
            let (key, value) = row?;
            if !newer.contains_key(&key) {
                page.insert(key.clone(), value);
            }
            if page.len() >= limit {
                read_up_to = Some(key);
                break;
            }
        }
        // Above the last row that was read there may be others that belong before newer ones.
        let known = newer.into_iter().filter(|(key, _)| read_up_to.as_ref().is_none_or(|last| key <= last));
        page.extend(known.filter_map(|(key, value)| value.map(|value| (key, value))));
        Ok(page.into_iter().take(limit).collect())
    }

    /// Newest state rows whose key starts with `prefix`.
    pub(crate) fn state_prefix(
        &self,
        index: &Index,
        keyspace: StateKeyspace,
        prefix: &[u8],
    ) -> Result<BTreeMap<Bytes, Bytes>, IndexError> {
        let from = (keyspace, Bytes::copy_from_slice(prefix));
        let newer: Vec<_> = {
            let overlay = self.overlay();
            let inside = |k: &(StateKeyspace, Bytes)| k.0 == keyspace && k.1.starts_with(prefix);
            let range = overlay.range(from..).take_while(|(k, _)| inside(k));
            range.map(|((_, key), (_, value))| (key.clone(), value.clone())).collect()
        };
        let mut rows = index.state_prefix(keyspace, prefix).collect::<Result<BTreeMap<_, _>, _>>()?;
        for (key, value) in newer {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(rows)
    }
}
