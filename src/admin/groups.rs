//! Changes of groups by hand: what the `groups` verbs and the HTTP routes behind them do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Admin;
use super::records::StartAt;
use crate::broker::groups::{GroupError, OffsetToCommit, delete_unattended, reset_unattended};
use crate::broker::{Offset, Partition, ReadError, TopicPartition};

/// Where the positions of a group are to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetGroup {
    /// `earliest`, `latest`, an offset, a time, or `@` and milliseconds since 1970.
    pub to: String,
    /// Only positions in this topic, those too that the group does not have yet; all it has when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Only this partition of the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of a group's positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReset {
    /// The group.
    pub name: String,
    /// True when nothing was changed.
    pub dry_run: bool,
    /// By topic and partition.
    pub positions: Vec<MovedPosition>,
}

/// One position that is moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedPosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where it was; absent when the group had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_offset: Option<Offset>,
    /// Where it is now: within what the partition holds.
    pub new_offset: Offset,
}

/// A group that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedGroup {
    /// The group.
    pub name: String,
    /// Positions that it had.
    pub partitions: usize,
}

/// Why a group was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupRefusal {
    /// There is no such group, topic or partition.
    #[error("{0}")]
    Missing(String),
    /// What was asked for does not go.
    #[error("{0}")]
    Bad(String),
    /// It has live members.
    #[error("{0}")]
    Busy(String),
    /// Not now: it may be tried again.
    #[error("{0}")]
    Later(String),
    /// The store failed.
    #[error("{0}")]
    Failed(String),
}

impl GroupRefusal {
    fn no_group(name: &str) -> Self {
        Self::Missing(format!("there is no group {name:?}"))
    }

    fn of(name: &str, error: &GroupError) -> Self {
        match error {
            GroupError::NonEmptyGroup => Self::Busy(format!(
                "group {name:?} has live members: stop them first (one that was killed counts until its session ends)"
            )),
            GroupError::GroupIdNotFound => Self::no_group(name),
            GroupError::UnknownTopicOrPartition => Self::Missing("a topic was deleted meanwhile".to_owned()),
            GroupError::CoordinatorNotAvailable => Self::Later(format!("group {name:?} could not be changed now")),
            GroupError::InvalidGroupId
            | GroupError::InvalidRequest
            | GroupError::InvalidSessionTimeout { .. }
            | GroupError::MemberIdRequired { .. }
            | GroupError::UnknownMemberId
            | GroupError::IllegalGeneration
            | GroupError::InconsistentGroupProtocol
            | GroupError::RebalanceInProgress
            | GroupError::FencedInstanceId
            | GroupError::GroupMaxSizeReached
            | GroupError::GroupSubscribedToTopic
            | GroupError::OffsetMetadataTooLarge => Self::Bad(format!("group {name:?}: {error}")),
        }
    }
}

impl From<ReadError> for GroupRefusal {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Admin {
    /// Moves positions of a group, all or none; says where they were and are.
    ///
    /// # Durability
    /// On `Ok` they are durable, unless it was a dry run.
    /// # Errors
    /// See [`GroupRefusal`].
    pub fn reset_group(&self, name: &str, reset: &ResetGroup) -> Result<GroupReset, GroupRefusal> {
        let to: StartAt =
            reset.to.parse().map_err(|allowed| GroupRefusal::Bad(format!("to {:?}: {allowed}", reset.to)))?;
        let had = self.broker.group_lag(name)?;
        let mut positions = Vec::new();
        for partition in self.meant(name, reset, had.keys())? {
            let place = partition.name();
            positions.push(MovedPosition {
                topic: place.topic.clone(),
                partition: place.partition,
                old_offset: had.get(place).map(|had| had.committed.offset),
                new_offset: self.offset_at(&partition, to)?,
            });
        }
        if !reset.dry_run {
            let offset = |moved: &MovedPosition| OffsetToCommit {
                place: TopicPartition { topic: moved.topic.clone(), partition: moved.partition },
                offset: moved.new_offset,
                leader_epoch: -1,
                metadata: String::new(),
            };
            let offsets = positions.iter().map(offset).collect();
            let moved = match &self.coordinator {
                Some(coordinator) => coordinator.reset_offsets(name, offsets),
                None => reset_unattended(&self.broker, name, offsets),
            };
            moved.map_err(|error| GroupRefusal::of(name, &error))?;
        }
        Ok(GroupReset { name: name.to_owned(), dry_run: reset.dry_run, positions })
    }

    /// The partitions that a reset is about, in order.
    fn meant<'a>(
        &self,
        name: &str,
        reset: &ResetGroup,
        had: impl Iterator<Item = &'a TopicPartition>,
    ) -> Result<Vec<Arc<Partition>>, GroupRefusal> {
        let log = self.broker.log();
        let Some(topic) = &reset.topic else {
            if reset.partition.is_some() {
                return Err(GroupRefusal::Bad("a partition needs its topic beside it".to_owned()));
            }
            let of = |place: &TopicPartition| log.topic(&place.topic)?.partition(place.partition).cloned();
            let partitions: Vec<_> = had.filter_map(of).collect();
            return if partitions.is_empty() { Err(GroupRefusal::no_group(name)) } else { Ok(partitions) };
        };
        let found = log.topic(topic).ok_or_else(|| GroupRefusal::Missing(format!("there is no topic {topic:?}")))?;
        match reset.partition {
            None => Ok(found.partitions.clone()),
            Some(index) => {
                let count = found.partitions.len();
                let missing =
                    || GroupRefusal::Missing(format!("topic {topic:?} has {count} partitions, none is {index}"));
                Ok(vec![found.partition(index).cloned().ok_or_else(missing)?])
            }
        }
    }

    fn offset_at(&self, partition: &Partition, to: StartAt) -> Result<Offset, ReadError> {
        let offsets = partition.offsets();
        Ok(match to {
            StartAt::Earliest => offsets.log_start,
            StartAt::Latest => offsets.high_watermark,
            StartAt::Offset(offset) => offset.clamp(offsets.log_start, offsets.high_watermark),
            StartAt::Time(time) => {
                let found = self.broker.log().offset_for_time(partition, time)?;
                found.map_or(offsets.high_watermark, |(offset, _)| offset)
            }
        })
    }

    /// Deletes a group with all its positions; answers with what it was.
    ///
    /// # Durability
    /// On `Ok` it is gone for good.
    /// # Errors
    /// See [`GroupRefusal`].
    pub fn delete_group(&self, name: &str) -> Result<DeletedGroup, GroupRefusal> {
        let partitions = self.broker.group_lag(name)?.len();
        let deleted = match &self.coordinator {
            Some(coordinator) => coordinator.delete_group_blocking(name),
            None => delete_unattended(&self.broker, name),
        };
        deleted.map_err(|error| GroupRefusal::of(name, &error))?;
        Ok(DeletedGroup { name: name.to_owned(), partitions })
    }
}
