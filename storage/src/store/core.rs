//! What the threads of an open store share, and how state changes are queued and waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::time::Instant;

use bytes::Bytes;

use super::{AppendError, Options};
use crate::apply::Pending;
use crate::batch::{BatchBuilder, CheckedBatch};
use crate::blob::BlobFiles;
use crate::cache::BatchCache;
use crate::catalogue::Catalogue;
use crate::cleaner::Cleaner;
use crate::format::DirLock;
use crate::fs::Fs;
use crate::ids::PartitionNumber;
use crate::index::{Index, IndexError, StateKeyspace};
use crate::keeper::Keeper;
use crate::maintenance::Maintenance;
use crate::partition::Partition;
use crate::producers::ProducerIds;
use crate::publish::Publishing;
use crate::queue::{Append, Appended, Done, Queue, Request};
use crate::retention::ClockGuard;
use crate::segments::Segments;
use crate::state::Change;
use crate::topics::Topics;
use crate::usage::SyncListener;

pub(super) type Listener = Box<dyn Fn(&[PartitionNumber]) + Send + Sync>;

/// What the threads of an open store share.
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) segments: Arc<Segments>,
    pub(crate) index: Index,
    pub(crate) pending: Pending,
    pub(crate) cache: BatchCache,
    pub(crate) queue: Queue,
    pub(crate) keeper: Keeper,
    pub(crate) cleaner: Cleaner,
    pub(crate) catalogue: Catalogue,
    pub(crate) blobs: BlobFiles,
    pub(crate) publishing: Publishing,
    pub(crate) state_partition: Arc<Partition>,
    pub(crate) offsets_partition: Arc<Partition>,
    pub(crate) partitions: RwLock<HashMap<PartitionNumber, Arc<Partition>>>,
    pub(crate) topics: Topics,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) synced: AtomicU64,
    pub(crate) maintenance: Maintenance,
    /// When the newest frame found at the opening was appended, milliseconds since 1970; 0 when there was none.
    pub(crate) newest_append_ms: i64,
    /// Watches the wall clock from the first look on.
    pub(crate) clock_guard: Mutex<Option<ClockGuard>>,
    /// What ages records off waits, and that is kept.
    pub(crate) clock_held: AtomicBool,
    /// Bytes of record batches given to readers.
    pub(crate) read_bytes: AtomicU64,
    /// For the time since.
    pub(crate) opened: Instant,
    pub(super) listener: OnceLock<Listener>,
    pub(crate) sync_listener: OnceLock<SyncListener>,
    pub(crate) fs: Arc<dyn Fs>,
    pub(super) fatal: Mutex<Option<String>>,
    /// Declared last, so that the engines above have let go of their folders before the lock is.
    pub(super) lock: DirLock,
}

impl Core {
    pub(crate) fn notify(&self, partitions: &[PartitionNumber]) {
        if let Some(listener) = self.listener.get() {
            listener(partitions);
        }
    }

    /// The wall clock.
    pub(crate) fn now_ms(&self) -> i64 {
        (self.options.clock)()
    }

    /// Waits until everything committed so far is in the index; false when the store has stopped.
    pub(crate) fn settle(&self) -> bool {
        // A commit is answered just before it is handed to the applier, and the next one is begun after that.
        let answered = self.change_wait(Vec::new(), false).is_ok();
        self.pending.flush() && answered
    }

    /// Stops taking anything in, fails what waits, tells the owner. The first reason counts.
    pub(super) fn stop_with(&self, reason: &str) {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        if fatal.is_some() {
            return;
        }
        *fatal = Some(reason.to_owned());
        drop(fatal);
        tracing::error!(reason, "the store stops itself; nothing more is acknowledged, restart the process");
        let error = AppendError::Poisoned { reason: reason.to_owned() };
        self.queue.close(error.clone());
        self.queue.drain().into_iter().for_each(|request| (request.done)(Err(error.clone())));
        self.pending.stop();
        self.keeper.stop();
        self.maintenance.stop();
        self.cleaner.stop();
        if let Some(on_fatal) = &self.options.on_fatal {
            on_fatal(reason);
        }
    }

    pub(crate) fn state(&self, keyspace: StateKeyspace, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        self.pending.state(&self.index, keyspace, key)
    }

    pub(crate) fn state_prefix(
        &self,
        keyspace: StateKeyspace,
        prefix: &[u8],
    ) -> Result<BTreeMap<Bytes, Bytes>, IndexError> {
        self.pending.state_prefix(&self.index, keyspace, prefix)
    }

    /// Queues state changes as one batch per internal topic, committed together.
    pub(crate) fn change(&self, changes: Vec<(StateKeyspace, Change)>, catalogue: bool, done: Done) {
        self.queue_change(changes, catalogue, false, done);
    }

    fn queue_change(&self, changes: Vec<(StateKeyspace, Change)>, catalogue: bool, synced: bool, done: Done) {
        let mut appends = Vec::with_capacity(2);
        for (keyspace, partition) in
            [(StateKeyspace::State, &self.state_partition), (StateKeyspace::Groups, &self.offsets_partition)]
        {
            let of_this = changes.iter().filter(|(k, _)| *k == keyspace).map(|(_, change)| change);
            match state_batch(of_this, self.now_ms()) {
                Ok(Some(batch)) => appends.push(Append { partition: partition.clone(), batch }),
                Ok(None) => {}
                Err(error) => return done(Err(error)),
            }
        }
        let request = Request { appends, blobs: Vec::new(), changes, catalogue, synced, done };
        if let Err((request, error)) = self.queue.push(None, request) {
            (request.done)(Err(error));
        }
    }

    /// [`Core::change`], waited for.
    pub(crate) fn change_wait(
        &self,
        changes: Vec<(StateKeyspace, Change)>,
        catalogue: bool,
    ) -> Result<(), AppendError> {
        wait(|done| self.change(changes, catalogue, done)).map(drop)
    }

    /// [`Core::change_wait`], synced in every mode: for what files are removed after.
    pub(crate) fn change_synced(
        &self,
        changes: Vec<(StateKeyspace, Change)>,
        catalogue: bool,
    ) -> Result<(), AppendError> {
        wait(|done| self.queue_change(changes, catalogue, true, done)).map(drop)
    }
}

/// Values that callers keep under names of theirs; `None` removes one.
pub type Values = Vec<(Vec<u8>, Option<Bytes>)>;

pub(super) fn kv_change((name, value): (Vec<u8>, Option<Bytes>)) -> (StateKeyspace, Change) {
    (StateKeyspace::State, Change::kv(&name, value))
}

pub(crate) fn state_batch<'a>(
    changes: impl Iterator<Item = &'a Change>,
    now: i64,
) -> Result<Option<CheckedBatch>, AppendError> {
    let mut builder = BatchBuilder::default();
    changes.for_each(|change| builder.push(now, Some(&change.key), change.value.as_deref()));
    if builder.is_empty() {
        return Ok(None);
    }
    builder.build().map(Some).ok_or(AppendError::TooLarge)
}

/// Runs something that answers through a [`Done`] and waits for the answer.
pub(crate) fn wait(start: impl FnOnce(Done)) -> Result<Vec<Appended>, AppendError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    start(Box::new(move |outcome| {
        // The receiver waits below; it cannot be gone.
        drop(sender.send(outcome));
    }));
    receiver.recv().unwrap_or(Err(AppendError::Closed))
}
