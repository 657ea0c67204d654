//! Moving log starts: records deleted by hand, and what retention lets go.

use std::sync::Arc;

use crate::ids::{Offset, TopicPartition};
use crate::index::StateKeyspace;
use crate::partition::{Life, Partition};
use crate::state::{Change, StateKey};
use crate::store::{AppendError, Core, Store};

/// Why records were not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteRecordsError {
    /// There is no such partition.
    #[error("there is no partition {0}")]
    Unknown(TopicPartition),
    /// The topic's records do not leave by age: its policy is without `delete`, or it is the store's own.
    #[error("{0}: records of this topic are not deleted one after the other: its cleanup.policy is without delete")]
    Policy(TopicPartition),
    /// Above the high watermark.
    #[error("{partition}: offset {offset} is above the high watermark {high_watermark}")]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// What was asked for.
        offset: Offset,
        /// What may be asked for.
        high_watermark: Offset,
    },
    /// The change could not be committed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Store {
    /// Deletes the records below an offset (`None`: below the high watermark) in each of these partitions, in one
    /// commit; answers with the log starts, in the same order. Exact to the record, although a read still gives the whole
    /// batch that holds the log start. A log start never goes back.
    ///
    /// # Durability
    /// On `Ok` the log start is durable.
    /// # Errors
    /// See [`DeleteRecordsError`], for each partition on its own; a failed commit fails all that were to move.
    pub fn delete_records(
        &self,
        below: &[(TopicPartition, Option<Offset>)],
    ) -> Vec<Result<Offset, DeleteRecordsError>> {
        let core = &self.core;
        let _changing = core.topics.change();
        let checked: Vec<_> = below.iter().map(|(place, offset)| self.new_log_start(place, *offset)).collect();
        let moves = checked.iter().flatten().cloned().collect();
        let moved = core.move_log_starts(moves);
        let start = |checked: Result<(Arc<Partition>, Offset), DeleteRecordsError>| {
            let (partition, wanted) = checked?;
            let log_start = partition.offsets().log_start;
            match &moved {
                Err(error) if log_start < wanted => Err(error.clone().into()),
                _ => Ok(log_start),
            }
        };
        let starts = checked.into_iter().map(start).collect();
        core.maintenance.moved();
        starts
    }

    fn new_log_start(
        &self,
        place: &TopicPartition,
        offset: Option<Offset>,
    ) -> Result<(Arc<Partition>, Offset), DeleteRecordsError> {
        let topic = self.topic(&place.topic).ok_or_else(|| DeleteRecordsError::Unknown(place.clone()))?;
        let partition = topic.partition(place.partition).ok_or_else(|| DeleteRecordsError::Unknown(place.clone()))?;
        if topic.internal || !topic.settings.cleanup.delete {
            return Err(DeleteRecordsError::Policy(place.clone()));
        }
        let high_watermark = partition.offsets().high_watermark;
        let offset = offset.unwrap_or(high_watermark);
        if offset > high_watermark {
            return Err(DeleteRecordsError::OutOfRange { partition: place.clone(), offset, high_watermark });
        }
        Ok((partition.clone(), offset))
    }
}

impl Core {
    /// Makes new log starts durable in one commit and shows them. Called with [`Topics::change`] held, so that a log
    /// start never goes back and none is written for a deleted topic.
    ///
    /// [`Topics::change`]: crate::topics::Topics::change
    pub(crate) fn move_log_starts(&self, mut moves: Vec<(Arc<Partition>, Offset)>) -> Result<usize, AppendError> {
        moves.retain(|(partition, start)| partition.life() == Life::Live && *start > partition.offsets().log_start);
        // The last change of a key counts.
        moves.sort_by_key(|(partition, start)| (partition.number(), *start));
        if moves.is_empty() {
            return Ok(0);
        }
        let mut changes = Vec::with_capacity(moves.len());
        for (partition, start) in &moves {
            let number = partition.number();
            changes.push(Change::put(&StateKey::LogStart(number), start));
            let passed = partition.damage().into_iter().filter(|damage| damage.record.end <= *start);
            changes.extend(passed.map(|damage| Change::remove(&StateKey::Damage(number, damage.from))));
        }
        self.change_wait(changes.into_iter().map(|change| (StateKeyspace::State, change)).collect(), false)?;
        moves.iter().for_each(|(partition, start)| partition.start_at(*start));
        Ok(moves.len())
    }
}
