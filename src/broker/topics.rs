//! Changes of topics and of configuration: checked here, made durable by the log, told to whoever waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use azulite_storage::topics::{
    ConfigChange, CreateTopicError, DeleteRecordsError, MAX_PARTITIONS, NewTopic, Topic, TopicError, is_legal_name,
};
use azulite_storage::{AppendError, Offset, TopicId, TopicPartition};

use super::Broker;
use super::broker_config::{BrokerConfig, KV_NAME};
use super::store::LogStore;
use super::topic_config::{self, AlterOp, ConfigError, ConfigMap, Described, TopicConfig};

/// The broker's configuration, and the order of changes of any configuration.
#[derive(Debug, Default)]
pub(super) struct ConfigState {
    current: RwLock<Arc<BrokerConfig>>,
    /// Held from reading a configuration that is to be changed until the change is made.
    changing: Mutex<()>,
}

impl ConfigState {
    pub(super) fn load(log: &dyn LogStore) -> Self {
        let kept = log.kv(KV_NAME).map_err(|error| error.to_string());
        let read = |bytes: &[u8]| serde_json::from_slice::<ConfigMap>(bytes).map_err(|error| error.to_string());
        let dynamic = kept.and_then(|bytes| bytes.map_or(Ok(ConfigMap::new()), |bytes| read(&bytes)));
        let dynamic = dynamic.unwrap_or_else(|error| {
            tracing::error!(error, "configuration changed while running cannot be read; the file's counts");
            ConfigMap::new()
        });
        let config = BrokerConfig::new(ConfigMap::new(), dynamic);
        log.set_topic_defaults(config.topic_defaults());
        Self { current: RwLock::new(Arc::new(config)), changing: Mutex::default() }
    }

    fn current(&self) -> Arc<BrokerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a configuration is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// This and nothing else: the legacy call.
    Replace(ConfigMap),
    /// Step by step.
    Steps(Vec<(String, AlterOp)>),
}

/// Why a configuration was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterConfigError {
    /// It may not be what it was to be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The topic is not there, or the change could not be kept.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The change could not be kept.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a topic was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NewTopicError {
    /// Its configuration may not be that.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The rest.
    #[error(transparent)]
    Create(#[from] CreateTopicError),
}

impl Broker {
    pub(super) fn topics_changed(&self) {
        self.topics_version.fetch_add(1, Ordering::AcqRel);
        self.waiters.wake_all();
    }

    /// What counts for a topic; read once for each change.
    pub fn topic_config(&self, topic: &Topic) -> Arc<TopicConfig> {
        topic.view(|topic| TopicConfig::read(&topic.config, &self.config.current()))
    }

    /// Every configuration key of a topic.
    pub fn describe_topic_config(&self, topic: &Topic) -> Vec<Described> {
        topic_config::describe(&topic.config, &self.config.current())
    }

    /// Checks a new topic and its configuration without making it.
    ///
    /// # Errors
    /// See [`NewTopicError`].
    pub fn check_new_topic(&self, new: &NewTopic) -> Result<(), NewTopicError> {
        let name = || new.name.clone();
        if !is_legal_name(&new.name) {
            return Err(CreateTopicError::Name(name()).into());
        }
        if self.log.topic(&new.name).is_some() {
            return Err(CreateTopicError::Exists(name()).into());
        }
        if !(1..=MAX_PARTITIONS).contains(&new.partitions) {
            return Err(CreateTopicError::Partitions { name: name(), partitions: new.partitions }.into());
        }
        Ok(topic_config::check(&new.config, &self.config.current())?)
    }

    /// Makes a topic. Blocks for one commit.
    ///
    /// # Durability
    /// On `Ok` the topic is durable and open readers are told of it.
    /// # Errors
    /// See [`NewTopicError`].
    pub fn create_topic(&self, new: NewTopic) -> Result<Arc<Topic>, NewTopicError> {
        self.check_new_topic(&new)?;
        let topic = self.log.create_topic(new)?;
        self.topics_changed();
        Ok(topic)
    }

    /// Deletes a topic and the positions of all groups in it; whoever waits for it is told. Blocks for two commits.
    ///
    /// # Durability
    /// On `Ok` it is gone for good.
    /// # Errors
    /// See [`TopicError`].
    pub fn delete_topic(&self, name: &str) -> Result<Arc<Topic>, TopicError> {
        let topic = self.log.delete_topic(name)?;
        self.topics_changed();
        Ok(topic)
    }

    /// [`Broker::delete_topic`] by id: a topic of the same name that was made meanwhile stays.
    ///
    /// # Durability
    /// On `Ok` it is gone for good.
    /// # Errors
    /// See [`TopicError`].
    pub fn delete_topic_by_id(&self, id: TopicId) -> Result<Arc<Topic>, TopicError> {
        let topic = self.log.delete_topic_by_id(id)?;
        self.topics_changed();
        Ok(topic)
    }

    /// Gives a topic more partitions, `total` in all. Blocks for one commit.
    ///
    /// # Durability
    /// On `Ok` they are durable and open readers are told of them.
    /// # Errors
    /// See [`TopicError`].
    pub fn grow_partitions(&self, name: &str, total: i32) -> Result<Arc<Topic>, TopicError> {
        let topic = self.log.grow_partitions(name, total)?;
        self.topics_changed();
        Ok(topic)
    }

    /// Checks a change of a topic's configuration and, unless `validate_only`, makes it. Blocks for one commit.
    ///
    /// # Durability
    /// On `Ok` the change is durable and acted upon.
    /// # Errors
    /// See [`AlterConfigError`].
    pub fn alter_topic_config(
        &self,
        name: &str,
        alteration: Alteration,
        validate_only: bool,
    ) -> Result<(), AlterConfigError> {
        let _changing = self.config.change();
        let broker = self.config.current();
        let topic = self.log.topic(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        let config = match alteration {
            Alteration::Replace(config) => config,
            Alteration::Steps(steps) => {
                let find = topic_config::catalogue::topic_key;
                topic_config::altered(&topic.config, steps, find, |key| broker.inherited(key).0)?
            }
        };
        topic_config::check(&config, &broker)?;
        if topic.internal {
            return Err(TopicError::Internal(name.to_owned()).into());
        }
        if !validate_only {
            self.log.alter_config(name, ConfigChange::Replace(config))?;
        }
        Ok(())
    }

    /// Deletes the records below an offset (`None`: below the high watermark) in each of these partitions; answers with
    /// the log starts. Blocks for one commit.
    ///
    /// # Durability
    /// On `Ok` the log start is durable.
    /// # Errors
    /// See [`DeleteRecordsError`], for each partition on its own.
    pub fn delete_records(
        &self,
        below: &[(TopicPartition, Option<Offset>)],
    ) -> Vec<Result<Offset, DeleteRecordsError>> {
        self.log.delete_records(below)
    }

    /// The broker's own configuration.
    pub fn broker_config(&self) -> Arc<BrokerConfig> {
        self.config.current()
    }

    /// Sets what the configuration file says, in Kafka's names; once, before anything is served.
    pub fn set_fixed_config(&self, fixed: ConfigMap) {
        let _changing = self.config.change();
        let dynamic = self.config.current().dynamic().clone();
        self.use_config(BrokerConfig::new(fixed, dynamic));
    }

    /// Changes the broker's configuration while it runs, for all topics that do not say it themselves. Blocks for one
    /// commit.
    ///
    /// # Durability
    /// On `Ok` the change is durable and acted upon.
    /// # Errors
    /// See [`AlterConfigError`].
    pub fn alter_broker_config(&self, alteration: Alteration, validate_only: bool) -> Result<(), AlterConfigError> {
        let _changing = self.config.change();
        let current = self.config.current();
        let altered = match alteration {
            Alteration::Replace(dynamic) => current.with(dynamic)?,
            Alteration::Steps(steps) => current.altered(steps)?,
        };
        topic_config::check(&ConfigMap::new(), &altered)?;
        if validate_only || altered == *current {
            return Ok(());
        }
        let value = serde_json::to_vec(altered.dynamic()).unwrap_or_default();
        self.log.put_kv(vec![(KV_NAME.to_vec(), Some(value.into()))])?;
        self.use_config(altered);
        Ok(())
    }

    /// Topics read their configuration anew behind this.
    fn use_config(&self, config: BrokerConfig) {
        let defaults = config.topic_defaults();
        *self.config.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.log.set_topic_defaults(defaults);
    }
}

#[cfg(test)]
mod tests;
