//! Changes of topics that exist: delete, grow, other configuration, leader epochs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use crate::ids::{PartitionIndex, TopicId, TopicPartition};
use crate::index::{IndexError, StateKeyspace};
use crate::offsets::{OFFSET_KEYS, decode_key};
use crate::partition::{LeaderEpoch, Life, Partition};
use crate::state::{Change, EpochsRecord, StateKey};
use crate::store::{AppendError, Core, Store};
use crate::topics::{MAX_PARTITIONS, Topic, TopicSettings};

/// The longest configuration of a topic, names and values, in bytes.
pub const MAX_CONFIG_BYTES: usize = 256 << 10;

/// Why a topic was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// There is none of that name.
    #[error("there is no topic {0:?}")]
    Unknown(String),
    /// There is none of that id.
    #[error("there is no topic with the id {0}")]
    UnknownId(TopicId),
    /// The store keeps it for itself.
    #[error("topic {0} is the store's own and cannot be changed")]
    Internal(String),
    /// Not more partitions than it has, or too many.
    #[error("topic {topic} has {partitions} partitions; {wanted} is not more than that, or above {MAX_PARTITIONS}")]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: usize,
        /// How many it was to have.
        wanted: PartitionIndex,
    },
    /// The configuration is too long to be kept.
    #[error("the configuration of topic {topic} has {bytes} bytes, at most {MAX_CONFIG_BYTES} are allowed")]
    Config {
        /// The topic.
        topic: String,
        /// Its length.
        bytes: usize,
    },
    /// The state could not be read.
    #[error("topic state: {0}")]
    State(String),
    /// The change could not be committed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<IndexError> for TopicError {
    fn from(error: IndexError) -> Self {
        Self::State(error.to_string())
    }
}

/// What becomes of a topic's configuration. Values are checked by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// This and nothing else.
    Replace(BTreeMap<String, String>),
    /// These keys get a value or (`None`) lose theirs; the others stay.
    Set(BTreeMap<String, Option<String>>),
}

impl ConfigChange {
    fn apply(self, old: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let changes = match self {
            Self::Replace(config) => return config,
            Self::Set(changes) => changes,
        };
        let mut config = old.clone();
        for (name, value) in changes {
            match value {
                Some(value) => config.insert(name, value),
                None => config.remove(&name),
            };
        }
        config
    }
}

type Changes = Vec<(StateKeyspace, Change)>;

fn put<T: bincode::Encode>(key: &StateKey, value: &T) -> (StateKeyspace, Change) {
    (StateKeyspace::State, Change::put(key, value))
}

fn remove(key: &StateKey) -> (StateKeyspace, Change) {
    (StateKeyspace::State, Change::remove(key))
}

impl Store {
    /// Deletes a topic, and the positions of all groups in it. Whoever still holds it gets `Gone`; those who wait for it
    /// to grow are told. Its rows leave the index in the background; its partition numbers are never used again.
    ///
    /// # Durability
    /// On `Ok` it is gone for good; on `Err` it is there as before, except after [`AppendError::Poisoned`], when that is
    /// unknown.
    /// # Errors
    /// See [`TopicError`].
    pub fn delete_topic(&self, name: &str) -> Result<Arc<Topic>, TopicError> {
        self.delete_found(|| self.changeable(name))
    }

    /// [`Store::delete_topic`] by id: a topic of the same name that was made meanwhile stays.
    ///
    /// # Durability
    /// As [`Store::delete_topic`].
    /// # Errors
    /// See [`TopicError`].
    pub fn delete_topic_by_id(&self, id: TopicId) -> Result<Arc<Topic>, TopicError> {
        self.delete_found(|| unless_internal(self.topic_by_id(id).ok_or(TopicError::UnknownId(id))?))
    }

    /// Deletes the topic that `find` finds while no other is changed.
    fn delete_found(&self, find: impl FnOnce() -> Result<Arc<Topic>, TopicError>) -> Result<Arc<Topic>, TopicError> {
        let core = &self.core;
        let changing = core.topics.change();
        let topic = find()?;
        // From here on nobody finds it, no position in it can be committed, and nothing is appended to it.
        core.topics.remove(&topic);
        let set = |life| topic.partitions.iter().for_each(|partition| partition.set_life(life));
        set(Life::Closing);
        if let Err(error) = core.forget_topic(&topic) {
            set(Life::Live);
            core.topics.put(topic);
            return Err(error);
        }
        set(Life::Gone);
        drop(changing);
        let numbers: Vec<_> = topic.partitions.iter().map(|partition| partition.number()).collect();
        let mut partitions = core.partitions.write().unwrap_or_else(PoisonError::into_inner);
        numbers.iter().for_each(|number| drop(partitions.remove(number)));
        drop(partitions);
        core.notify(&numbers);
        core.maintenance.dead(&numbers);
        Ok(topic)
    }

    /// Gives a topic more partitions, `total` in all. They are empty and begin at offset 0.
    ///
    /// # Durability
    /// On `Ok` they are durable.
    /// # Errors
    /// See [`TopicError`].
    pub fn grow_partitions(&self, name: &str, total: PartitionIndex) -> Result<Arc<Topic>, TopicError> {
        let core = &self.core;
        let defaults = core.topics.change();
        let topic = self.changeable(name)?;
        let (old, wanted) = (topic.partitions.len(), usize::try_from(total).unwrap_or(0));
        if wanted <= old || total > MAX_PARTITIONS {
            return Err(TopicError::Partitions { topic: name.to_owned(), partitions: old, wanted: total });
        }
        let (numbers, counters) = core.new_numbers(u32::try_from(wanted - old).unwrap_or(0))?;
        let first = PartitionIndex::try_from(old).unwrap_or(MAX_PARTITIONS);
        let fresh = (first..).zip(numbers).map(|(partition, number)| {
            Arc::new(Partition::new(number, TopicPartition { topic: name.to_owned(), partition }))
        });
        let fresh: Vec<_> = fresh.collect();
        let partitions = topic.partitions.iter().chain(&fresh).cloned().collect();
        let grown = topic.changed(partitions, topic.config.clone(), &defaults);
        let changes =
            vec![put(&StateKey::Counters, &counters), put(&StateKey::Topic(name.to_owned()), &grown.record())];
        core.change_wait(changes, false)?;
        core.add_partitions(&fresh);
        Ok(core.topics.insert(grown))
    }

    /// Changes a topic's configuration; it is acted upon at once. Nothing is written when nothing changes.
    ///
    /// # Durability
    /// On `Ok` the change is durable.
    /// # Errors
    /// See [`TopicError`].
    pub fn alter_config(&self, name: &str, change: ConfigChange) -> Result<Arc<Topic>, TopicError> {
        let core = &self.core;
        let defaults = core.topics.change();
        let topic = self.changeable(name)?;
        let config = change.apply(&topic.config);
        if config == topic.config {
            return Ok(topic);
        }
        let bytes = config.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MAX_CONFIG_BYTES {
            return Err(TopicError::Config { topic: name.to_owned(), bytes });
        }
        let altered = topic.changed(topic.partitions.clone(), config, &defaults);
        core.change_wait(vec![put(&StateKey::Topic(name.to_owned()), &altered.record())], false)?;
        let altered = core.topics.insert(altered);
        core.maintenance.ask();
        Ok(altered)
    }

    /// Sets what topics take whose configuration does not say; views of all topics are made anew. Not kept: the caller
    /// sets it after each opening.
    pub fn set_topic_defaults(&self, defaults: TopicSettings) {
        let core = &self.core;
        let mut current = core.topics.change();
        *current = defaults;
        for topic in self.topics().into_iter().filter(|topic| !topic.internal) {
            core.topics.insert(topic.changed(topic.partitions.clone(), topic.config.clone(), &defaults));
        }
        core.maintenance.ask();
    }

    /// Begins a new leader epoch in every partition of every topic: what clients have read may not be there any more.
    /// Called after a restore or a repair, before anything is appended (`kafka.md` 3.8).
    ///
    /// # Durability
    /// On `Ok` the new epochs are durable.
    /// # Errors
    /// See [`AppendError`].
    pub fn bump_leader_epochs(&self) -> Result<(), AppendError> {
        let core = &self.core;
        let _changing = core.topics.change();
        let topics = self.topics();
        let partitions: Vec<_> =
            topics.iter().filter(|topic| !topic.internal).flat_map(|topic| &topic.partitions).collect();
        let next = |partition: &Partition| LeaderEpoch {
            epoch: partition.leader_epoch() + 1,
            start: partition.offsets().high_watermark,
        };
        let change = |partition: &&Arc<Partition>| {
            let next = next(partition);
            let epochs = partition.epochs();
            let epochs = epochs.iter().chain([&next]).map(|epoch| (epoch.epoch, epoch.start));
            let record = EpochsRecord(epochs.collect());
            put(&StateKey::Epochs(partition.number()), &record)
        };
        core.change_wait(partitions.iter().map(change).collect(), false)?;
        partitions.iter().for_each(|partition| {
            let next = next(partition);
            partition.epochs().push(next);
        });
        Ok(())
    }

    fn changeable(&self, name: &str) -> Result<Arc<Topic>, TopicError> {
        unless_internal(self.topic(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?)
    }
}

fn unless_internal(topic: Arc<Topic>) -> Result<Arc<Topic>, TopicError> {
    if topic.internal { Err(TopicError::Internal(topic.name.clone())) } else { Ok(topic) }
}

impl Core {
    /// Commits that a topic is no more. It has been taken out of the registry before.
    fn forget_topic(&self, topic: &Topic) -> Result<(), TopicError> {
        // Positions queued before the topic left the registry are in the state once this is answered.
        self.change_wait(Vec::new(), false)?;
        let mut changes: Changes = vec![remove(&StateKey::Topic(topic.name.clone()))];
        for partition in &topic.partitions {
            let number = partition.number();
            let damage = partition.damage().into_iter().map(|damage| StateKey::Damage(number, damage.from));
            let epochs = (!partition.epochs().is_empty()).then_some(StateKey::Epochs(number));
            let log_start = (partition.offsets().log_start > 0).then_some(StateKey::LogStart(number));
            changes.extend(damage.chain(epochs).chain(log_start).map(|key| remove(&key)));
        }
        for key in self.state_prefix(StateKeyspace::Groups, &OFFSET_KEYS)?.into_keys() {
            if decode_key(&key).is_some_and(|(_, place)| place.topic == topic.name) {
                changes.push((StateKeyspace::Groups, Change { key, value: None }));
            }
        }
        Ok(self.change_wait(changes, false)?)
    }
}
