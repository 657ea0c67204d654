//! What a group keeps: commits, what tools do with offsets and whole groups, and how groups look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use azulite_storage::index::IndexError;
use azulite_storage::membership::GroupMetadata;
use azulite_storage::{Done, TopicPartition, clock};
use tokio::sync::oneshot;

use super::coordinator::{Coordinator, Shared, check_group_id};
use super::{CLASSIC, Committer, GroupDescription, GroupError, GroupState, ListedGroup, OffsetToCommit, PerPartition};
use crate::broker::{
    AppendError, Broker, CommitOffsetsError, CommittedOffset, GroupChanges, GroupRecord, OffsetChanges, PartitionNumber,
};

/// Why a change could not be queued, in the group's terms.
pub(super) fn refused(group: &str, error: &CommitOffsetsError) -> GroupError {
    match error {
        // Deleted since it was looked up: the next try says so per partition.
        CommitOffsetsError::UnknownTopic { .. } => GroupError::CoordinatorNotAvailable,
        CommitOffsetsError::TooLong { .. } => GroupError::InvalidRequest,
        CommitOffsetsError::Append(error) => unavailable(group, error),
    }
}

/// A failure of the store, logged, in the group's terms.
pub(super) fn unavailable(group: &str, error: &dyn std::fmt::Display) -> GroupError {
    tracing::error!(group, %error, "a group's offsets cannot be read or written");
    GroupError::CoordinatorNotAvailable
}

impl Coordinator {
    /// Commits offsets. One answer per partition, in order.
    ///
    /// # Durability
    /// What is answered with `Ok` is durable.
    /// # Errors
    /// Nothing was committed: see [`GroupError`].
    /// # Cancel safety
    /// Dropping the future does not take the commit back.
    pub async fn commit_offsets(
        &self,
        group: &str,
        committer: &Committer,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<PerPartition, GroupError> {
        check_group_id(group)?;
        let commit_time_ms = clock::now_ms();
        let (mut answers, mut changes) = (PerPartition::new(), OffsetChanges::new());
        let mut numbers = Vec::new();
        for offset in offsets {
            let checked = self.shared.check_offset(&offset);
            answers.push((offset.place.clone(), checked.clone().map(drop)));
            if let Ok(number) = checked {
                let OffsetToCommit { place, offset, leader_epoch, metadata } = offset;
                changes.push((place, Some(CommittedOffset { offset, leader_epoch, metadata, commit_time_ms })));
                numbers.push(number);
            }
        }
        let durable = self.shared.with_new(group, |entry, machine, now, _| {
            machine.check_commit(now, committer)?;
            if changes.is_empty() {
                return Ok(None);
            }
            let (sender, durable) = oneshot::channel();
            // The client may have gone; the commit stands.
            let done: Done = Box::new(move |outcome| drop(sender.send(outcome)));
            let changes = GroupChanges { offsets: changes, ..GroupChanges::default() };
            let queued = entry.positions.overwrite(self.shared.broker.log().as_ref(), group, changes, done);
            queued.map_err(|error| refused(group, &error))?;
            Ok(Some(durable))
        })??;
        if let Some(durable) = durable {
            let outcome = durable.await.unwrap_or(Err(AppendError::Closed));
            outcome.map_err(|error| unavailable(group, &error))?;
            // A reader of this group may wait there for what it now has to read again.
            self.shared.broker.wake(&numbers);
        }
        Ok(answers)
    }

    /// Committed offsets: those of `places`, in order, or all.
    ///
    /// # Errors
    /// [`GroupError::CoordinatorNotAvailable`]: the index failed. A group that is not known is no error.
    pub async fn fetch_offsets(
        &self,
        group: &str,
        places: Option<Vec<TopicPartition>>,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, GroupError> {
        check_group_id(group)?;
        self.blocking(group, move |shared, group| {
            let committed = shared.broker.log().group_offsets(group)?;
            let of = |place: TopicPartition| {
                let committed = committed.get(&place).cloned();
                (place, committed)
            };
            Ok(Ok(match places {
                Some(places) => places.into_iter().map(of).collect(),
                None => committed.into_iter().map(|(place, offset)| (place, Some(offset))).collect(),
            }))
        })
        .await
    }

    /// Deletes offsets of a group. One answer per partition, in order.
    ///
    /// # Durability
    /// What is answered with `Ok` is gone for good.
    /// # Errors
    /// Nothing was deleted: see [`GroupError`].
    pub async fn delete_offsets(&self, group: &str, places: Vec<TopicPartition>) -> Result<PerPartition, GroupError> {
        check_group_id(group)?;
        self.blocking(group, move |shared, group| shared.delete_offsets(group, places)).await
    }

    /// Deletes a group with everything it keeps.
    ///
    /// # Durability
    /// On `Ok` it is gone for good.
    /// # Errors
    /// [`GroupError::NonEmptyGroup`], [`GroupError::GroupIdNotFound`], [`GroupError::CoordinatorNotAvailable`].
    pub async fn delete_group(&self, group: &str) -> Result<(), GroupError> {
        check_group_id(group)?;
        self.blocking(group, |shared, group| shared.delete_group(group)).await
    }

    /// Groups in order of id, those that only have offsets too. `states` and `types` are Kafka's names in any case, an
    /// empty list stands for all.
    ///
    /// # Errors
    /// [`GroupError::CoordinatorNotAvailable`]: the index failed.
    pub async fn list(&self, states: Vec<String>, types: Vec<String>) -> Result<Vec<ListedGroup>, GroupError> {
        let named =
            |wanted: &[String], is: &str| wanted.is_empty() || wanted.iter().any(|w| w.eq_ignore_ascii_case(is));
        let mut groups = self.blocking("", |shared, _| Ok(Ok(shared.list()?))).await?;
        groups.retain(|group| named(&states, group.state.name()) && named(&types, group.group_type));
        Ok(groups)
    }

    /// A group in full; `None` when there is none.
    ///
    /// # Errors
    /// [`GroupError::CoordinatorNotAvailable`]: the index failed.
    pub async fn describe(&self, group: &str) -> Result<Option<GroupDescription>, GroupError> {
        check_group_id(group)?;
        let known = self.shared.find(group).map(|entry| entry.lock().machine.describe());
        match known {
            Some(description) => Ok(Some(description)),
            None => self.blocking(group, |shared, group| Ok(Ok(shared.offsets_only(group)?))).await,
        }
    }

    /// Runs on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        group: &str,
        work: impl FnOnce(&Arc<Shared>, &str) -> Result<Result<T, GroupError>, IndexError> + Send + 'static,
    ) -> Result<T, GroupError> {
        let (shared, group) = (self.shared.clone(), group.to_owned());
        let outcome = tokio::task::spawn_blocking(move || {
            work(&shared, &group).unwrap_or_else(|error| Err(unavailable(&group, &error)))
        });
        outcome.await.unwrap_or(Err(GroupError::CoordinatorNotAvailable))
    }
}

/// Queues a change with `start` and waits until it is durable. Blocks.
pub(super) fn wait(group: &str, start: impl FnOnce(Done) -> Result<(), GroupError>) -> Result<(), GroupError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    // It is waited for below.
    start(Box::new(move |outcome| drop(sender.send(outcome))))?;
    let outcome = receiver.recv().unwrap_or(Err(AppendError::Closed));
    outcome.map(drop).map_err(|error| unavailable(group, &error))
}

/// Changes a group past whoever reads it, and waits until that is durable. Blocks.
pub(super) fn overwrite(broker: &Broker, group: &str, changes: GroupChanges) -> Result<(), GroupError> {
    let (log, positions) = (broker.log().as_ref(), broker.positions(group));
    let queued = |outcome: Result<_, _>| outcome.map_err(|error| refused(group, &error));
    wait(group, |done| queued(positions.overwrite(log, group, changes, done)))
}

pub(super) fn removed(places: impl IntoIterator<Item = TopicPartition>) -> OffsetChanges {
    places.into_iter().map(|place| (place, None)).collect()
}

impl Shared {
    fn check_offset(&self, offset: &OffsetToCommit) -> Result<PartitionNumber, GroupError> {
        let topic = self.broker.log().topic(&offset.place.topic);
        let partition = topic.as_ref().and_then(|topic| topic.partition(offset.place.partition));
        let number = partition.ok_or(GroupError::UnknownTopicOrPartition)?.number();
        if offset.metadata.len() > self.options.max_offset_metadata_bytes {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        if offset.offset < 0 {
            return Err(GroupError::InvalidRequest);
        }
        Ok(number)
    }

    /// A group without a machine: it is there as long as it keeps anything.
    fn offsets_only(&self, group: &str) -> Result<Option<GroupDescription>, IndexError> {
        let log = self.broker.log().as_ref();
        if log.group_offsets(group)?.is_empty() && GroupRecord::of(log, group)?.is_none() {
            return Ok(None);
        }
        Ok(Some(GroupDescription {
            state: GroupState::Empty,
            protocol_type: String::new(),
            protocol: String::new(),
            generation: 0,
            members: Vec::new(),
        }))
    }

    fn list(&self) -> Result<Vec<ListedGroup>, IndexError> {
        let offsets_only = |group: String| {
            let listed = ListedGroup {
                group: group.clone(),
                state: GroupState::Empty,
                protocol_type: String::new(),
                group_type: CLASSIC,
            };
            (group, listed)
        };
        let mut listed: BTreeMap<_, _> = self.broker.log().groups()?.into_iter().map(offsets_only).collect();
        let entries: Vec<_> = self.groups().values().cloned().collect();
        for entry in entries {
            let run = entry.lock();
            if !run.machine.is_dead() && !run.machine.is_blank() {
                listed.insert(entry.name.clone(), run.machine.listed(&entry.name));
            }
        }
        Ok(listed.into_values().collect())
    }

    fn delete_offsets(
        self: &Arc<Self>,
        group: &str,
        places: Vec<TopicPartition>,
    ) -> Result<Result<PerPartition, GroupError>, IndexError> {
        let committed: BTreeSet<_> = self.broker.log().group_offsets(group)?.into_keys().collect();
        let entry = self.find(group);
        if entry.is_none() && self.offsets_only(group)?.is_none() {
            return Ok(Err(GroupError::GroupIdNotFound));
        }
        let log = self.broker.log();
        let check = |place: &TopicPartition| {
            let topic = log.topic(&place.topic);
            if topic.as_ref().and_then(|topic| topic.partition(place.partition)).is_none() {
                return Err(GroupError::UnknownTopicOrPartition);
            }
            match entry.as_ref().is_some_and(|entry| entry.lock().machine.reads(&place.topic)) {
                true => Err(GroupError::GroupSubscribedToTopic),
                false => Ok(()),
            }
        };
        if entry.as_ref().is_some_and(|entry| entry.lock().machine.has_other_members()) {
            return Ok(Err(GroupError::NonEmptyGroup));
        }
        let answers: PerPartition = places.into_iter().map(|place| (place.clone(), check(&place))).collect();
        let gone = answers.iter().filter(|(place, answer)| answer.is_ok() && committed.contains(place));
        let offsets = removed(gone.map(|(place, _)| place.clone()));
        if offsets.is_empty() {
            return Ok(Ok(answers));
        }
        // A group that only had these is there all the same until it is deleted or expires, as at Kafka's.
        let emptied = entry.is_none() && offsets.len() == committed.len();
        let kept = emptied.then(|| GroupMetadata { state_since_ms: clock::now_ms(), ..GroupMetadata::default() });
        let changes = GroupChanges { offsets, metadata: kept.clone().map(Some), ..GroupChanges::default() };
        let deleted = overwrite(&self.broker, group, changes);
        if deleted.is_ok()
            && let Some(kept) = kept
        {
            self.restore(group.to_owned(), kept);
        }
        Ok(deleted.map(|()| answers))
    }
}
