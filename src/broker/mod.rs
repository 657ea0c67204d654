//! Policy over the log: one door for everything that is appended, fetches that wait, groups whose start is fixed before
//! they are first answered.
//!
//! Knows topics, partitions and groups; nothing of sockets, wire versions or Azul. Speaks to a [`LogStore`], of which
//! the embedded store is one.

pub mod broker_config;
pub mod groups;
mod line;
mod positions;
mod store;
pub mod topic_config;
mod topics;
mod waiters;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use azulite_storage::groups::{CommitOffsetsError, GroupChanges, OffsetChanges};
pub use azulite_storage::log::ReadError;
pub use azulite_storage::offsets::CommittedOffset;
pub use azulite_storage::topics::{ConfigChange, CreateTopicError, DeleteRecordsError, TopicError};
pub use azulite_storage::{
    Append, AppendError, Appended, BatchBuilder, Lane, NewTopic, Offset, Partition, PartitionNumber, Records, Topic,
    TopicId, TopicPartition,
};
pub use line::{Outcome, QueueFull};
pub use positions::{Epoch, GroupPositions, GroupRecord, Rewind};
pub use store::{CommitListener, LogStore, Value};
pub use topic_config::TopicConfig;
pub use topics::{AlterConfigError, Alteration, NewTopicError};
pub use waiters::Waiter;

use line::Line;
use positions::PositionRegistry;
use topics::ConfigState;
use waiters::Waiters;

/// The one door to the log.
#[derive(Clone)]
pub struct Broker {
    log: Arc<dyn LogStore>,
    waiters: Arc<Waiters>,
    positions: Arc<PositionRegistry>,
    topics_version: Arc<AtomicU64>,
    config: Arc<ConfigState>,
    next_lane: Arc<AtomicU64>,
    line: Arc<Line>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

impl Broker {
    /// A broker over a log that nobody else listens to.
    pub fn new(log: Arc<dyn LogStore>) -> Self {
        let waiters = Arc::new(Waiters::default());
        let wake = waiters.clone();
        log.on_commit(Box::new(move |grown| wake.wake(grown)));
        let config = Arc::new(ConfigState::load(log.as_ref()));
        let (positions, topics_version, next_lane) = (Arc::default(), Arc::default(), Arc::default());
        Self { log, waiters, positions, topics_version, config, next_lane, line: Arc::default() }
    }

    /// The log itself, for calls on blocking threads.
    pub fn log(&self) -> &Arc<dyn LogStore> {
        &self.log
    }

    /// A topic, made with `new` when there is none of that name yet. Blocks for one commit when it makes one.
    ///
    /// # Durability
    /// On `Ok` the topic is durable and open readers are told of it.
    /// # Errors
    /// See [`CreateTopicError`].
    pub fn topic_or_create(&self, name: &str, new: impl FnOnce() -> NewTopic) -> Result<Arc<Topic>, CreateTopicError> {
        if let Some(topic) = self.log.topic(name) {
            return Ok(topic);
        }
        match self.log.create_topic(new()) {
            // Somebody else was faster.
            Err(CreateTopicError::Exists(name)) => self.log.topic(&name).ok_or(CreateTopicError::Exists(name)),
            Ok(topic) => {
                self.topics_changed();
                Ok(topic)
            }
            Err(error) => Err(error),
        }
    }

    /// Changes whenever a topic is made, grows or is deleted: a reader that kept the old number looks at the topics
    /// again.
    pub fn topics_version(&self) -> u64 {
        self.topics_version.load(Ordering::Acquire)
    }

    /// A lane nobody else has.
    pub fn new_lane(&self) -> Lane {
        Lane(self.next_lane.fetch_add(1, Ordering::Relaxed))
    }

    /// Appends batches, all or nothing, in a lane of their own.
    ///
    /// # Durability
    /// ACK-SYNCED: `Ok` only after the sync.
    /// # Errors
    /// See [`AppendError`].
    /// # Cancel safety
    /// Dropping the future does not take the append back; it is unknown whether it happens.
    pub async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        self.append_with(appends, Vec::new()).await
    }

    /// [`Broker::append`] with values of the caller's own in the same commit.
    ///
    /// # Durability
    /// As [`Broker::append`].
    /// # Errors
    /// See [`AppendError`].
    /// # Cancel safety
    /// As [`Broker::append`].
    pub async fn append_with(&self, appends: Vec<Append>, values: Vec<Value>) -> Result<Vec<Appended>, AppendError> {
        let lane = self.new_lane();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done = Box::new(move |outcome| {
            // The caller may have gone; the append stands.
            drop(sender.send(outcome));
        });
        self.log.append_with(lane, appends, values, done);
        receiver.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Something to wait on until one of the partitions grows or a topic is made or
    /// deleted. Take it before looking at the log, so
    /// that nothing is missed in between.
    pub fn waiter(&self, partitions: impl Iterator<Item = PartitionNumber>) -> Waiter {
        Waiters::register(&self.waiters, partitions)
    }

    /// How many requests wait for something to read.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Wakes whoever waits on these partitions although they did not grow: something was given back.
    pub fn wake(&self, partitions: &[PartitionNumber]) {
        self.waiters.wake(partitions);
    }

    /// The door through which the positions of a group are written.
    pub fn positions(&self, group: &str) -> Arc<GroupPositions> {
        self.positions.of(group)
    }

    /// Positions of a group with the lag of each: what tools show.
    ///
    /// # Errors
    /// The index failed.
    pub fn group_lag(&self, group: &str) -> Result<BTreeMap<TopicPartition, GroupPosition>, ReadError> {
        let positions = self.log.group_offsets(group)?;
        let lag = |(place, committed): (TopicPartition, CommittedOffset)| {
            let topic = self.log.topic(&place.topic);
            let partition = topic.as_ref().and_then(|t| t.partition(place.partition));
            let end = partition.map(|p| p.offsets().high_watermark);
            let lag = end.map(|end| (end - committed.offset).max(0));
            (place, GroupPosition { committed, end, lag })
        };
        Ok(positions.into_iter().map(lag).collect())
    }
}

/// A group's position in one partition beside the partition's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    /// What the group committed.
    pub committed: CommittedOffset,
    /// The partition's high watermark; `None` when the topic is gone.
    pub end: Option<Offset>,
    /// Records between the two.
    pub lag: Option<i64>,
}
