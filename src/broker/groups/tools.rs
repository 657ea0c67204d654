//! Whole groups by hand: positions moved, groups deleted, by the coordinator or, where none runs, without one.
//!
//! Everything here blocks. A group with live members is left alone; one that HTTP readers own has none and may be
//! changed at any time: the reader notices before it goes on ([`GroupPositions`](crate::broker::GroupPositions)).

use std::sync::Arc;

use azulite_storage::clock;
use azulite_storage::index::IndexError;
use azulite_storage::membership::GroupMetadata;

use super::coordinator::{Coordinator, Shared, check_group_id};
use super::offsets::{overwrite, refused, removed, unavailable, wait};
use super::{GroupError, OffsetToCommit};
use crate::broker::{Broker, CommittedOffset, GroupChanges, GroupRecord, OffsetChanges, PartitionNumber};

/// What of a group is left is looked for so often when it is deleted: positions may be under way.
const DELETE_PASSES: usize = 4;

impl Coordinator {
    /// Moves positions of a group, all or none; one that is not there is made. Blocks for a commit.
    ///
    /// # Durability
    /// On `Ok` they are durable.
    /// # Errors
    /// Nothing was moved: [`GroupError::NonEmptyGroup`], [`GroupError::UnknownTopicOrPartition`],
    /// [`GroupError::InvalidRequest`], [`GroupError::CoordinatorNotAvailable`].
    pub fn reset_offsets(&self, group: &str, offsets: Vec<OffsetToCommit>) -> Result<(), GroupError> {
        let (changes, numbers) = moved(&self.shared.broker, group, offsets)?;
        let log = self.shared.broker.log().as_ref();
        wait(group, |done| {
            // Held until it is queued, so that nobody joins in between.
            let groups = self.shared.groups();
            let run = groups.get(group).map(|entry| entry.lock());
            if run.as_ref().is_some_and(|run| run.machine.check_delete() == Err(GroupError::NonEmptyGroup)) {
                return Err(GroupError::NonEmptyGroup);
            }
            let positions = self.shared.broker.positions(group);
            positions.overwrite(log, group, changes, done).map_err(|error| refused(group, &error))
        })?;
        self.shared.broker.wake(&numbers);
        Ok(())
    }

    /// [`Coordinator::delete_group`], for a thread that may block.
    ///
    /// # Durability
    /// On `Ok` it is gone for good.
    /// # Errors
    /// As [`Coordinator::delete_group`].
    pub fn delete_group_blocking(&self, group: &str) -> Result<(), GroupError> {
        check_group_id(group)?;
        self.shared.delete_group(group).unwrap_or_else(|error| Err(unavailable(group, &error)))
    }
}

/// [`Coordinator::reset_offsets`] where no coordinator runs, and so nobody is a member: whoever was one when it last ran
/// has to join again.
///
/// # Durability
/// On `Ok` they are durable.
/// # Errors
/// As [`Coordinator::reset_offsets`].
pub fn reset_unattended(broker: &Broker, group: &str, offsets: Vec<OffsetToCommit>) -> Result<(), GroupError> {
    let (mut changes, numbers) = moved(broker, group, offsets)?;
    let log = broker.log().as_ref();
    let stored = log.group_metadata().map_err(|error| unavailable(group, &error))?.remove(group);
    let emptied = |stored: GroupMetadata| GroupMetadata {
        protocol: None,
        leader: None,
        members: Vec::new(),
        state_since_ms: clock::now_ms(),
        ..stored
    };
    changes.metadata = stored.filter(|stored| !stored.members.is_empty()).map(|stored| Some(emptied(stored)));
    overwrite(broker, group, changes)?;
    broker.wake(&numbers);
    Ok(())
}

/// [`Coordinator::delete_group`] where no coordinator runs, and so nobody is a member. Blocks.
///
/// # Durability
/// On `Ok` it is gone for good.
/// # Errors
/// [`GroupError::GroupIdNotFound`], [`GroupError::CoordinatorNotAvailable`].
pub fn delete_unattended(broker: &Broker, group: &str) -> Result<(), GroupError> {
    check_group_id(group)?;
    let log = broker.log().as_ref();
    let delete = || {
        let begun_ms = clock::now_ms();
        let mut changes = what_is_kept(broker, group)?;
        let stored = log.group_metadata()?.contains_key(group);
        if !stored && changes.offsets.is_empty() && changes.values.is_empty() {
            return Ok(Err(GroupError::GroupIdNotFound));
        }
        changes.metadata = stored.then_some(None);
        if let Err(error) = overwrite(broker, group, changes) {
            return Ok(Err(error));
        }
        remove_left(broker, group, begun_ms)
    };
    delete().unwrap_or_else(|error: IndexError| Err(unavailable(group, &error)))
}

/// The change that moves positions, and the partitions it is about.
fn moved(
    broker: &Broker,
    group: &str,
    offsets: Vec<OffsetToCommit>,
) -> Result<(GroupChanges, Vec<PartitionNumber>), GroupError> {
    check_group_id(group)?;
    let commit_time_ms = clock::now_ms();
    let (mut changes, mut numbers) = (OffsetChanges::new(), Vec::new());
    for OffsetToCommit { place, offset, leader_epoch, metadata } in offsets {
        let topic = broker.log().topic(&place.topic);
        let partition = topic.as_ref().and_then(|topic| topic.partition(place.partition));
        numbers.push(partition.ok_or(GroupError::UnknownTopicOrPartition)?.number());
        changes.push((place, Some(CommittedOffset { offset, leader_epoch, metadata, commit_time_ms })));
    }
    Ok((GroupChanges { offsets: changes, ..GroupChanges::default() }, numbers))
}

/// The change that removes a group's positions and its record.
fn what_is_kept(broker: &Broker, group: &str) -> Result<GroupChanges, IndexError> {
    let log = broker.log().as_ref();
    let offsets = removed(log.group_offsets(group)?.into_keys());
    let record = GroupRecord::of(log, group)?.map(|_| GroupRecord::remove(group));
    Ok(GroupChanges { offsets, values: record.into_iter().collect(), ..GroupChanges::default() })
}

/// Removes the positions of a group that were committed up to `until_ms`, until none is left.
fn remove_left(broker: &Broker, group: &str, until_ms: i64) -> Result<Result<(), GroupError>, IndexError> {
    for _ in 0..DELETE_PASSES {
        let committed = broker.log().group_offsets(group)?;
        let left = committed.into_iter().filter(|(_, committed)| committed.commit_time_ms <= until_ms);
        let offsets = removed(left.map(|(place, _)| place));
        if offsets.is_empty() {
            break;
        }
        let changes = GroupChanges { offsets, ..GroupChanges::default() };
        if let Err(error) = overwrite(broker, group, changes) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

impl Shared {
    pub(super) fn delete_group(self: &Arc<Self>, group: &str) -> Result<Result<(), GroupError>, IndexError> {
        let log = self.broker.log().as_ref();
        let (begun_ms, positions) = (clock::now_ms(), self.broker.positions(group));
        let mut changes = what_is_kept(&self.broker, group)?;
        let deleted = wait(group, |done| {
            let mut groups = self.groups();
            if let Some(entry) = groups.get(group).cloned() {
                let mut run = entry.lock();
                run.machine.check_delete()?;
                changes.metadata = Some(None);
                positions.overwrite(log, group, changes, done).map_err(|error| refused(group, &error))?;
                run.machine.kill(self.now());
                groups.remove(group);
                return Ok(());
            }
            if changes.offsets.is_empty() && changes.values.is_empty() {
                return Err(GroupError::GroupIdNotFound);
            }
            positions.overwrite(log, group, changes, done).map_err(|error| refused(group, &error))
        });
        if let Err(error) = deleted {
            return Ok(Err(error));
        }
        // What was on its way when the group was read has arrived before it was deleted.
        remove_left(&self.broker, group, begun_ms)
    }
}
