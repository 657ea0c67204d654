//! Topics: the registry in memory and its changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::clock;
use crate::ids::{PartitionIndex, PartitionNumber, TopicId, TopicPartition};
use crate::index::{IndexError, StateKeyspace};
use crate::partition::Partition;
use crate::segments::random_u64;
use crate::state::{Change, Counters, StateKey, TopicRecord, value};
use crate::store::{AppendError, Store};

/// The longest legal topic name, in bytes.
pub const MAX_TOPIC_NAME: usize = 249;
/// The most partitions one topic may have.
pub const MAX_PARTITIONS: PartitionIndex = 10_000;

/// One topic.
#[derive(Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id, which a topic of the same name made later does not share.
    pub id: TopicId,
    /// Its partitions, by index; at least one.
    pub partitions: Vec<Arc<Partition>>,
    /// Its configuration as given, Kafka's names.
    pub config: BTreeMap<String, String>,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// True for topics the store keeps for itself.
    pub internal: bool,
}

impl Topic {
    pub(crate) fn internal(partition: Arc<Partition>, id: u8) -> Self {
        let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let name = partition.name().topic.clone();
        let mut bytes = [0; 16];
        bytes[15] = id;
        Self { name, id: TopicId(bytes), partitions: vec![partition], config, created_ms: 0, internal: true }
    }

    pub(crate) fn from_record(name: &str, record: &TopicRecord) -> Self {
        let partition = |(index, number)| {
            let name = TopicPartition { topic: name.to_owned(), partition: index };
            Arc::new(Partition::new(number, name))
        };
        let partitions = (0..).zip(record.partitions()).map(partition).collect();
        let (id, config, created_ms) = (record.id(), record.config.clone(), record.created_ms);
        Self { name: name.to_owned(), id, partitions, config, created_ms, internal: false }
    }

    /// One partition by index.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// All topics by name.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_name: RwLock<BTreeMap<String, Arc<Topic>>>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Topics {
    pub(crate) fn insert(&self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(topic.name.clone(), topic.clone());
        topic
    }
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name: 1 to 249 of `[A-Za-z0-9._-]`, not `.` or `..`.
    pub name: String,
    /// How many partitions: 1 to 10,000.
    pub partitions: PartitionIndex,
    /// Its configuration, Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// Why a topic was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// There is one of that name.
    #[error("topic {0} exists already")]
    Exists(String),
    /// Not a legal name.
    #[error("topic name {0:?} is not legal: 1 to 249 of A-Z a-z 0-9 . _ - are, and not . or ..")]
    Name(String),
    /// Not a legal number of partitions.
    #[error("topic {name}: {partitions} partitions were asked for, 1 to {MAX_PARTITIONS} are allowed")]
    Partitions {
        /// The topic.
        name: String,
        /// What was asked for.
        partitions: PartitionIndex,
    },
    /// The state could not be read.
    #[error("topic state: {0}")]
    State(String),
    /// The change could not be committed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<IndexError> for CreateTopicError {
    fn from(error: IndexError) -> Self {
        Self::State(error.to_string())
    }
}

/// Whether a topic may have this name.
#[must_use]
pub fn is_legal_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_TOPIC_NAME).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".."
}

impl Store {
    /// Makes a topic; it is usable when the call returns.
    ///
    /// # Durability
    /// On `Ok` the topic is durable.
    /// # Errors
    /// See [`CreateTopicError`].
    pub fn create_topic(&self, new: NewTopic) -> Result<Arc<Topic>, CreateTopicError> {
        let NewTopic { name, partitions, config } = new;
        if !is_legal_name(&name) {
            return Err(CreateTopicError::Name(name));
        }
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(CreateTopicError::Partitions { name, partitions });
        }
        let topics = &self.core.topics;
        let _changing = topics.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.topic(&name).is_some() {
            return Err(CreateTopicError::Exists(name));
        }
        let stored = self.core.state(StateKeyspace::State, &StateKey::Counters.encode())?;
        let counters: Counters = stored.and_then(|bytes| value(&bytes)).unwrap_or_default();
        let count = u32::try_from(partitions).unwrap_or(1);
        let numbers: Vec<_> = (0..count).map(|i| PartitionNumber(counters.next_partition + i)).collect();
        let id = [random_u64().to_be_bytes(), random_u64().to_be_bytes()].concat();
        let id = TopicId(id.first_chunk().copied().unwrap_or([1; 16]));
        let record = TopicRecord::new(id, &numbers, config, clock::now_ms());
        let next = Counters { next_partition: counters.next_partition + count };
        let put = |change| (StateKeyspace::State, change);
        let changes = vec![
            put(Change::put(&StateKey::Counters, &next)),
            put(Change::put(&StateKey::Topic(name.clone()), &record)),
        ];
        self.core.change_wait(changes, false)?;
        let topic = Topic::from_record(&name, &record);
        let mut by_number = self.core.partitions.write().unwrap_or_else(PoisonError::into_inner);
        by_number.extend(topic.partitions.iter().map(|p| (p.number(), p.clone())));
        drop(by_number);
        Ok(topics.insert(topic))
    }

    /// A topic by name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.core.topics.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Every topic, in name order.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.core.topics.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
