//! Topics: the registry in memory and its changes.

mod change;
mod log_start;
mod settings;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use change::{ConfigChange, MAX_CONFIG_BYTES, TopicError};
pub use log_start::DeleteRecordsError;
pub use settings::{CleanupPolicy, TimestampType, TopicSettings};

use crate::ids::{PartitionIndex, PartitionNumber, TopicId, TopicPartition};
use crate::index::{IndexError, StateKeyspace};
use crate::partition::Partition;
use crate::state::{Change, Counters, StateKey, TopicRecord, value};
use crate::store::{AppendError, Core, Store};

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
    /// What the store itself acts on of the configuration.
    pub settings: TopicSettings,
    view: View,
}

/// See [`Topic::view`].
#[derive(Default)]
struct View(OnceLock<Arc<dyn Any + Send + Sync>>);

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.get().is_some() { "View" } else { "none" })
    }
}

impl Topic {
    /// What the caller makes of the configuration, made once for each change of it. There is one such view: all callers
    /// ask for the same type.
    pub fn view<T: Any + Send + Sync>(&self, make: impl Fn(&Self) -> T) -> Arc<T> {
        let view = self.view.0.get_or_init(|| Arc::new(make(self))).clone();
        view.downcast().unwrap_or_else(|_| Arc::new(make(self)))
    }

    pub(crate) fn internal(partition: Arc<Partition>, id: u8) -> Self {
        let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let name = partition.name().topic.clone();
        let mut bytes = [0; 16];
        bytes[15] = id;
        let settings = TopicSettings::read(&TopicSettings::default(), &config);
        let (id, partitions, view) = (TopicId(bytes), vec![partition], View::default());
        Self { name, id, partitions, config, created_ms: 0, internal: true, settings, view }
    }

    pub(crate) fn from_record(name: &str, record: &TopicRecord, defaults: &TopicSettings) -> Self {
        let partition = |(index, number)| {
            let name = TopicPartition { topic: name.to_owned(), partition: index };
            Arc::new(Partition::new(number, name))
        };
        let partitions = (0..).zip(record.partitions()).map(partition).collect();
        let (id, config, created_ms) = (record.id(), record.config.clone(), record.created_ms);
        let settings = TopicSettings::read(defaults, &config);
        let (name, view) = (name.to_owned(), View::default());
        Self { name, id, partitions, config, created_ms, internal: false, settings, view }
    }

    /// The same topic with other partitions, configuration or defaults.
    fn changed(
        &self,
        partitions: Vec<Arc<Partition>>,
        config: BTreeMap<String, String>,
        defaults: &TopicSettings,
    ) -> Self {
        let settings = TopicSettings::read(defaults, &config);
        let (name, view) = (self.name.clone(), View::default());
        Self { name, partitions, config, settings, view, ..*self }
    }

    fn record(&self) -> TopicRecord {
        let numbers: Vec<_> = self.partitions.iter().map(|partition| partition.number()).collect();
        TopicRecord::new(self.id, &numbers, self.config.clone(), self.created_ms)
    }

    /// One partition by index.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// The topics there are.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
}

/// All topics.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    registry: RwLock<Registry>,
    /// One change at a time, of topics and of log starts. Its content: what topics take that do not say.
    changing: Mutex<TopicSettings>,
}

impl Topics {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        self.put(topic.clone());
        topic
    }

    fn put(&self, topic: Arc<Topic>) {
        let mut registry = self.write();
        registry.by_id.insert(topic.id, topic.clone());
        registry.by_name.insert(topic.name.clone(), topic);
    }

    fn remove(&self, topic: &Topic) {
        let mut registry = self.write();
        registry.by_id.remove(&topic.id);
        registry.by_name.remove(&topic.name);
    }

    /// Every topic.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.read().by_name.values().cloned().collect()
    }

    /// Held by whoever changes topics or log starts.
    pub(crate) fn change(&self) -> MutexGuard<'_, TopicSettings> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
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
    #[error("topic {0} already exists")]
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
        let defaults = topics.change();
        if self.topic(&name).is_some() {
            return Err(CreateTopicError::Exists(name));
        }
        let (numbers, next) = self.core.new_numbers(u32::try_from(partitions).unwrap_or(1))?;
        let record = TopicRecord::new(TopicId::random(), &numbers, config, self.core.now_ms());
        let put = |change| (StateKeyspace::State, change);
        let changes = vec![
            put(Change::put(&StateKey::Counters, &next)),
            put(Change::put(&StateKey::Topic(name.clone()), &record)),
        ];
        self.core.change_wait(changes, false)?;
        let topic = Topic::from_record(&name, &record, &defaults);
        self.core.add_partitions(&topic.partitions);
        Ok(topics.insert(topic))
    }

    /// A topic by name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.core.topics.read().by_name.get(name).cloned()
    }

    /// A topic by id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.core.topics.read().by_id.get(&id).cloned()
    }

    /// Every topic, in name order.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.core.topics.read().by_name.values().cloned().collect()
    }
}

impl Core {
    /// The next `count` partition numbers, and the counters once they are given.
    fn new_numbers(&self, count: u32) -> Result<(Vec<PartitionNumber>, Counters), IndexError> {
        let stored = self.state(StateKeyspace::State, &StateKey::Counters.encode())?;
        let counters: Counters = stored.and_then(|bytes| value(&bytes)).unwrap_or_default();
        let first = counters.next_partition;
        let numbers = (first..first + count).map(PartitionNumber).collect();
        Ok((numbers, Counters { next_partition: first + count }))
    }

    fn add_partitions(&self, partitions: &[Arc<Partition>]) {
        let mut by_number = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        by_number.extend(partitions.iter().map(|partition| (partition.number(), partition.clone())));
    }
}

#[cfg(test)]
mod tests;
