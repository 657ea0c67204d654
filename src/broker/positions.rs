//! One door per group for whoever writes its positions, so that nobody overwrites what he has not seen.
//!
//! The positions of one group may be moved by readers of ours, which keep them in memory, and by members and tools that
//! commit through the coordinator. Both write here. A reader writes as long as nobody else has; otherwise it reads its
//! positions anew. The order of the calls is the order in the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use azulite_storage::groups::{CommitOffsetsError, GroupChanges};
use azulite_storage::index::IndexError;
use azulite_storage::{Done, Offset};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::store::LogStore;

/// Changes whenever somebody but the group's own reader moves its positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

#[derive(Debug, Default)]
struct Order {
    epoch: u64,
    /// Writes begun.
    started: u64,
}

/// The positions of one group, as far as those who write them have to agree.
#[derive(Debug, Default)]
pub struct GroupPositions {
    order: Mutex<Order>,
    /// Writes that have ended, well or not.
    finished: Mutex<u64>,
    ended: Condvar,
}

impl GroupPositions {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finished(&self) -> MutexGuard<'_, u64> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch now. Cheap.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.order().epoch)
    }

    /// The epoch, once every write begun before is in the log: what is read then belongs to it. Blocks for a commit.
    pub fn settled(&self) -> Epoch {
        self.settled_at().0
    }

    /// [`GroupPositions::settled`], and how many writes were begun by then.
    pub fn settled_at(&self) -> (Epoch, u64) {
        let (epoch, started) = {
            let order = self.order();
            (Epoch(order.epoch), order.started)
        };
        let mut finished = self.finished();
        while *finished < started {
            finished = self.ended.wait(finished).unwrap_or_else(PoisonError::into_inner);
        }
        (epoch, started)
    }

    /// How many writes were begun, when all of them have ended; `None` while one is under way.
    pub(super) fn quiet(&self) -> Option<u64> {
        let started = self.order().started;
        (*self.finished() >= started).then_some(started)
    }

    /// Queues a write of the group's reader. False, with nothing queued, when somebody else has written since `epoch`.
    ///
    /// # Durability
    /// As [`LogStore::change_group`].
    /// # Errors
    /// See [`CommitOffsetsError`].
    pub fn write(
        self: &Arc<Self>,
        epoch: Epoch,
        log: &dyn LogStore,
        group: &str,
        changes: GroupChanges,
        done: Done,
    ) -> Result<bool, CommitOffsetsError> {
        self.write_behind(epoch, None, log, group, changes, done)
    }

    /// [`GroupPositions::write`]; with `seen`, only if no other reader of the group has written either since
    /// [`GroupPositions::settled_at`] said so.
    pub fn write_behind(
        self: &Arc<Self>,
        epoch: Epoch,
        seen: Option<u64>,
        log: &dyn LogStore,
        group: &str,
        changes: GroupChanges,
        done: Done,
    ) -> Result<bool, CommitOffsetsError> {
        let mut order = self.order();
        if order.epoch != epoch.0 || seen.is_some_and(|seen| seen != order.started) {
            return Ok(false);
        }
        self.queue(&mut order, log, group, changes, done)?;
        Ok(true)
    }

    /// Queues a write of anybody else; the reader notices before it goes on, and [`Rewind::of`] its group is another one.
    ///
    /// # Durability
    /// As [`LogStore::change_group`].
    /// # Errors
    /// See [`CommitOffsetsError`].
    pub fn overwrite(
        self: &Arc<Self>,
        log: &dyn LogStore,
        group: &str,
        mut changes: GroupChanges,
        done: Done,
    ) -> Result<(), CommitOffsetsError> {
        changes.values.extend(Rewind::renew(group));
        let mut order = self.order();
        self.queue(&mut order, log, group, changes, done)?;
        order.epoch += 1;
        Ok(())
    }

    /// [`GroupPositions::overwrite`], unless anybody has written since [`GroupPositions::quiet`] said `quiet`. False
    /// then.
    pub(super) fn overwrite_if_quiet(
        self: &Arc<Self>,
        quiet: u64,
        log: &dyn LogStore,
        group: &str,
        changes: GroupChanges,
        done: Done,
    ) -> Result<bool, CommitOffsetsError> {
        let mut order = self.order();
        if order.started != quiet {
            return Ok(false);
        }
        self.queue(&mut order, log, group, changes, done)?;
        order.epoch += 1;
        Ok(true)
    }

    fn queue(
        self: &Arc<Self>,
        order: &mut Order,
        log: &dyn LogStore,
        group: &str,
        changes: GroupChanges,
        done: Done,
    ) -> Result<(), CommitOffsetsError> {
        order.started += 1;
        let write = Write(self.clone());
        let done = Box::new(move |outcome| {
            drop(write);
            done(outcome);
        });
        log.change_group(group, changes, done)
    }
}

/// A write under way; dropped when it has ended. Takes no lock that its beginner holds.
struct Write(Arc<GroupPositions>);

impl Drop for Write {
    fn drop(&mut self) {
        *self.0.finished() += 1;
        self.0.ended.notify_all();
    }
}

/// The doors in use, by group.
#[derive(Debug, Default)]
pub(super) struct PositionRegistry(Mutex<Doors>);

#[derive(Debug, Default)]
struct Doors {
    by_group: HashMap<String, Weak<GroupPositions>>,
    /// Number of entries at which the unused ones are looked for.
    clean_at: usize,
}

impl PositionRegistry {
    /// The door of a group: the same one for everybody while anybody holds it.
    pub(super) fn of(&self, group: &str) -> Arc<GroupPositions> {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(door) = doors.by_group.get(group).and_then(Weak::upgrade) {
            return door;
        }
        if doors.by_group.len() >= doors.clean_at {
            doors.by_group.retain(|_, door| door.strong_count() > 0);
            doors.clean_at = (2 * doors.by_group.len()).max(64);
        }
        let door = Arc::new(GroupPositions::default());
        doors.by_group.insert(group.to_owned(), Arc::downgrade(&door));
        door
    }
}

/// Tells what a plugin's group was handed before its positions were moved by hand from what it was handed since.
///
/// Random, and in the same commit as the positions, so that nothing that was remembered of earlier deliveries means
/// anything afterwards, whoever moved them and whatever happens to the process. It outlives the group. Groups that no
/// plugin has (`-azul-` is part of the name of every one that does) have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewind(u64);

impl Rewind {
    fn key(group: &str) -> Vec<u8> {
        [b"rewind\0", group.as_bytes()].concat()
    }

    /// The change that makes it another one.
    fn renew(group: &str) -> Option<(Vec<u8>, Option<Bytes>)> {
        use std::hash::{BuildHasher, Hasher};
        let random = || std::hash::RandomState::new().build_hasher().finish().max(1);
        group.contains("-azul-").then(|| (Self::key(group), Some(random().to_be_bytes().to_vec().into())))
    }

    /// That of a group; the default one when nobody has ever moved its positions.
    ///
    /// # Errors
    /// The index failed.
    pub fn of(log: &dyn LogStore, group: &str) -> Result<Self, IndexError> {
        let stored = log.kv(&Self::key(group))?;
        Ok(Self(stored.and_then(|bytes| bytes.first_chunk::<8>().map(|id| u64::from_be_bytes(*id))).unwrap_or(0)))
    }

    /// That of several groups together; the default one stands for nothing.
    pub fn together(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// Its bytes; none for the default one.
    pub fn as_bytes(self) -> Option<[u8; 8]> {
        (self.0 != 0).then(|| self.0.to_be_bytes())
    }
}

/// What is written down about a group that is read without members, beside its positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// When it was last known to be used, milliseconds since 1970.
    pub used_ms: i64,
    /// Where each partition began for it, by topic; those that were made later began with their log start.
    pub starts: BTreeMap<String, Vec<Offset>>,
    /// For a group that tasks are handed out from: the number of the last pause it has taken note of, 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<i64>,
}

impl GroupRecord {
    /// Key under which the record of a group is kept.
    pub fn key(group: &str) -> Vec<u8> {
        [b"http-group\0", group.as_bytes()].concat()
    }

    /// The record of a group; `None` for a group that has none, or none that can be read.
    ///
    /// # Errors
    /// The index failed.
    pub fn of(log: &dyn LogStore, group: &str) -> Result<Option<Self>, IndexError> {
        Ok(log.kv(&Self::key(group))?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// The change that writes it down.
    pub fn put(&self, group: &str) -> (Vec<u8>, Option<Bytes>) {
        (Self::key(group), Some(serde_json::to_vec(self).unwrap_or_default().into()))
    }

    /// The change that removes a group's record.
    pub fn remove(group: &str) -> (Vec<u8>, Option<Bytes>) {
        (Self::key(group), None)
    }
}
