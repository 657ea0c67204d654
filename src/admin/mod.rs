//! What a person may ask of a store: topics, groups with their lag, records of a topic, events of one entity, what ingest
//! announced.
//!
//! Plain functions over the broker and the blob store, read-only but for the changes of topics and groups and new records.
//! Called by the `azulite/v1` routes and, when no server runs, by the commands themselves; both print the same views.
//! Everything here blocks on the disk.

mod abandoned;
mod announced;
mod consumers;
pub mod dead;
mod entity;
mod explain;
mod groups;
mod open_tasks;
pub mod records;
pub mod reidentify;
pub mod reprocess;
mod scan;
mod slot;
mod topics;
mod workers;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use azulite_storage::ids::Sha256;
use azulite_storage::index::IndexError;
use azulite_storage::usage::Usage;
use serde::{Deserialize, Serialize};

use crate::broker::groups::Coordinator;
use crate::broker::{Broker, Partition, ReadError, Topic};
use crate::dispatcher::Dispatcher;
use crate::metrics::Metrics;
use crate::streams::{BlobReader, BlobStore, StoreError};

pub use abandoned::BuryRequest;
pub use announced::{Announcement, identity};
pub use consumers::{ConsumerList, ConsumerView, DeploymentList, DeploymentView};
pub use entity::{Finding, FoundEvent};
pub use explain::{ExplainedConsumer, ExplainedEvent, Explanation, Fate, FilteredBy, Place, Standing};
pub use groups::{DeletedGroup, GroupRefusal, GroupReset, MovedPosition, ResetGroup};
pub use open_tasks::{TaskView, WaitingView};
pub use scan::{DamagedRange, Flow};
pub use topics::{AlterTopic, CreateTopic, TopicRefusal};
pub use workers::WorkerList;

/// Answers questions about one store; cheap to clone.
#[derive(Clone)]
pub struct Admin {
    broker: Broker,
    blobs: Arc<dyn BlobStore>,
    topic_prefix: String,
    /// Who knows the members of groups; `None` where no group has any.
    coordinator: Option<Coordinator>,
    /// Chooses the partition of the next records without a key.
    next_partition: Arc<AtomicUsize>,
    /// What serves events, where something does.
    dispatcher: Option<Arc<Dispatcher>>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("topic_prefix", &self.topic_prefix).finish_non_exhaustive()
    }
}

/// All topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicList {
    /// In order of name.
    pub topics: Vec<TopicSummary>,
}

/// One topic in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// Its id, 32 hex digits.
    pub id: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// Offsets between log start and high watermark, over all partitions.
    pub records: i64,
    /// True for topics the store keeps for itself.
    pub internal: bool,
    /// Configuration in Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// Everything about one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDetail {
    /// Its name.
    pub name: String,
    /// Its id, 32 hex digits.
    pub id: String,
    /// When it was made, milliseconds since 1970; 0 for internal topics.
    pub created_ms: i64,
    /// Offsets between log start and high watermark, over all partitions.
    pub records: i64,
    /// True for topics the store keeps for itself.
    pub internal: bool,
    /// Configuration in Kafka's names.
    pub config: BTreeMap<String, String>,
    /// By index.
    pub partitions: Vec<PartitionDetail>,
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionDetail {
    /// Its index.
    pub partition: i32,
    /// The first offset that is kept.
    pub log_start_offset: i64,
    /// One past the last offset that is durable.
    pub high_watermark: i64,
    /// Bytes of its record batches.
    #[serde(default)]
    pub bytes: u64,
    /// Ranges known to be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<DamagedRange>,
}

/// All groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupList {
    /// In order of name.
    pub groups: Vec<GroupSummary>,
}

/// One group in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSummary {
    /// Its name.
    pub name: String,
    /// Partitions it has a position in.
    pub partitions: usize,
    /// Records it has not taken yet, over all partitions.
    pub lag: i64,
}

/// Everything about one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDetail {
    /// Its name.
    pub name: String,
    /// Records it has not taken yet, over all partitions.
    pub lag: i64,
    /// By topic and partition.
    pub positions: Vec<Position>,
}

/// A group's position in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset it takes next.
    pub committed_offset: i64,
    /// When that was committed, milliseconds since 1970.
    pub committed_ms: i64,
    /// One past the last offset that is durable; absent when the topic is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_offset: Option<i64>,
    /// Records between the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
}

impl Admin {
    /// Over an open store whose event topics begin with `azul.<topic_prefix>.`.
    #[must_use]
    pub fn new(broker: Broker, blobs: Arc<dyn BlobStore>, topic_prefix: String) -> Self {
        Self { broker, blobs, topic_prefix, coordinator: None, next_partition: Arc::default(), dispatcher: None }
    }

    /// With the coordinator of the groups that have members.
    #[must_use]
    pub fn with_coordinator(self, coordinator: Coordinator) -> Self {
        Self { coordinator: Some(coordinator), ..self }
    }

    /// Brings the metrics that are looked up, not counted, up to date. Blocks on a look at the files of the store.
    pub fn measure(&self, metrics: &Metrics) {
        metrics.waiting_readers.set(i64::try_from(self.broker.waiting()).unwrap_or(i64::MAX));
        metrics.log_read_bytes.raise_to(self.broker.log().read_bytes());
        match self.broker.log().usage() {
            Ok(Usage { log, index, catalogue, room }) => {
                for (part, bytes) in [("log", log), ("index", index), ("catalogue", catalogue)] {
                    metrics.store_bytes.at([part]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
                }
                metrics.disk_free_bytes.set(i64::try_from(room.free).unwrap_or(i64::MAX));
            }
            Err(error) => tracing::warn!(%error, "the size of the store could not be looked up"),
        }
    }

    /// All topics, internal ones too.
    #[must_use]
    pub fn topics(&self) -> TopicList {
        let summary = |topic: Arc<Topic>| TopicSummary {
            name: topic.name.clone(),
            id: topic.id.to_string(),
            partitions: topic.partitions.len(),
            records: records(&topic),
            internal: topic.internal,
            config: topic.config.clone(),
        };
        TopicList { topics: self.broker.log().topics().into_iter().map(summary).collect() }
    }

    /// One topic; `None` when there is none of that name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<TopicDetail> {
        let topic = self.broker.log().topic(name)?;
        Some(TopicDetail {
            name: topic.name.clone(),
            id: topic.id.to_string(),
            created_ms: topic.created_ms,
            records: records(&topic),
            internal: topic.internal,
            config: topic.config.clone(),
            partitions: topic.partitions.iter().map(|partition| partition_detail(partition)).collect(),
        })
    }

    /// All groups that have a position somewhere.
    ///
    /// # Errors
    /// The index failed.
    pub fn groups(&self) -> Result<GroupList, ReadError> {
        let names = self.broker.log().groups().map_err(|error: IndexError| ReadError::from(error))?;
        let summary = |name: String| self.group_summary(name);
        Ok(GroupList { groups: names.into_iter().map(summary).collect::<Result<_, ReadError>>()? })
    }

    /// One group; `None` when it has no position anywhere.
    ///
    /// # Errors
    /// The index failed.
    pub fn group(&self, name: &str) -> Result<Option<GroupDetail>, ReadError> {
        let positions = self.broker.group_lag(name)?;
        if positions.is_empty() {
            return Ok(None);
        }
        let lag = positions.values().filter_map(|position| position.lag).sum();
        let position = |(place, position): (crate::broker::TopicPartition, crate::broker::GroupPosition)| Position {
            topic: place.topic,
            partition: place.partition,
            committed_offset: position.committed.offset,
            committed_ms: position.committed.commit_time_ms,
            end_offset: position.end,
            lag: position.lag,
        };
        let positions = positions.into_iter().map(position).collect();
        Ok(Some(GroupDetail { name: name.to_owned(), lag, positions }))
    }

    /// The bytes of a blob, whatever source and label it is stored under; `None` when it is not stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn blob(&self, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        self.blobs.open(hash)
    }

    /// The blob store, for whoever stores.
    #[must_use]
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.blobs
    }
}

fn records(topic: &Topic) -> i64 {
    let count = |partition: &Arc<Partition>| {
        let offsets = partition.offsets();
        offsets.high_watermark - offsets.log_start
    };
    topic.partitions.iter().map(count).sum()
}

fn partition_detail(partition: &Partition) -> PartitionDetail {
    let offsets = partition.offsets();
    let damaged = partition.damage().into_iter().map(|damage| {
        let reason = format!("lost: segment {}, position {}", damage.record.segment(), damage.record.position);
        DamagedRange::new(partition.name(), damage.from..damage.record.end, reason)
    });
    PartitionDetail {
        partition: partition.name().partition,
        log_start_offset: offsets.log_start,
        high_watermark: offsets.high_watermark,
        bytes: partition.size_bytes(),
        damage: damaged.collect(),
    }
}

/// Bytes of a blob read at once.
const PIECE_BYTES: u64 = 128 << 10;

/// Why a blob was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadBlobError {
    /// The store failed, or the bytes are damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What had been read could not be handed over.
    #[error(transparent)]
    Taken(#[from] io::Error),
}

/// Reads a blob from its beginning to its end, piece by piece.
///
/// # Errors
/// See [`ReadBlobError`].
pub fn read_blob(
    reader: &dyn BlobReader,
    mut take: impl FnMut(Vec<u8>) -> io::Result<()>,
) -> Result<(), ReadBlobError> {
    let (mut position, end) = (0, reader.len());
    while position < end {
        let length = PIECE_BYTES.min(end - position);
        let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
        reader.read_exact_at(&mut piece, position)?;
        take(piece)?;
        position += length;
    }
    Ok(())
}

/// Writes a value as one line of JSON.
///
/// # Errors
/// Those of `out`.
pub fn write_line(out: &mut dyn io::Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests;
