//! The second stage of a commit: rows of durable commits on their way into the index, looked up here until they are
//! there.
//!
//! Replies depend on the sync alone; the applier thread brings rows into the index in large batches behind it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::ids::{CommitNumber, PartitionNumber};
use crate::index::{Index, IndexError, Rows, StateKeyspace};
use crate::keys::marker::Marker;
use crate::partition::Partition;

/// Rows applied at once as soon as that many wait.
const APPLY_ROWS: usize = 4096;
/// Rows that may wait; the committer stops until there is room.
const MAX_ROWS: usize = 65_536;
/// The longest a row waits.
const MAX_AGE: Duration = Duration::from_millis(100);

/// What one commit hands on.
pub(crate) struct CommitRows {
    pub(crate) rows: Rows,
    pub(crate) marker: Marker,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

#[derive(Default)]
struct Inner {
    rows: Rows,
    marker: Option<Marker>,
    partitions: HashMap<PartitionNumber, Arc<Partition>>,
    since: Option<Instant>,
    flush_wanted: bool,
    applied: CommitNumber,
    pushed: CommitNumber,
    stopped: bool,
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
        while inner.rows.count() > MAX_ROWS && !inner.stopped {
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.rows.batches.extend(commit.rows.batches);
        inner.rows.times.extend(commit.rows.times);
        inner.rows.state.extend(commit.rows.state);
        inner.pushed = commit.marker.applied;
        inner.marker = Some(commit.marker);
        for partition in commit.partitions {
            inner.partitions.insert(partition.number(), partition);
        }
        let first = inner.since.is_none();
        inner.since.get_or_insert_with(Instant::now);
        let wake = first || inner.rows.count() >= APPLY_ROWS;
        let alive = !inner.stopped;
        drop(inner);
        if wake {
            self.work.notify_one();
        }
        alive
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

    /// The applier thread: returns when stopped and empty, or with the error that ended it.
    pub(crate) fn run(&self, index: &Index) -> Result<(), IndexError> {
        while let Some((rows, marker, partitions)) = self.next() {
            let applied = index.apply(rows, marker);
            let mut inner = self.lock();
            inner.stopped |= applied.is_err();
            if applied.is_ok() {
                inner.applied = marker.applied;
            }
            drop(inner);
            if applied.is_ok() {
                partitions.values().for_each(|partition| partition.applied(marker.applied));
                self.overlay().retain(|_, (commit, _)| *commit > marker.applied);
            }
            self.room.notify_all();
            applied?;
        }
        Ok(())
    }

    fn next(&self) -> Option<(Rows, Marker, HashMap<PartitionNumber, Arc<Partition>>)> {
        let mut inner = self.lock();
        loop {
            let due = inner.since.map(|since| MAX_AGE.saturating_sub(since.elapsed()));
            let ready = inner.rows.count() >= APPLY_ROWS || inner.flush_wanted || inner.stopped;
            match (inner.marker, due) {
                (Some(marker), Some(due)) if ready || due.is_zero() => {
                    inner.marker = None;
                    inner.since = None;
                    inner.flush_wanted = false;
                    return Some((std::mem::take(&mut inner.rows), marker, std::mem::take(&mut inner.partitions)));
                }
                (_, Some(due)) => {
                    inner = self.work.wait_timeout(inner, due).unwrap_or_else(PoisonError::into_inner).0;
                }
                (_, None) if inner.stopped => return None,
                (_, None) => inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner),
            }
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
