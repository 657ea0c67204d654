//! Changes of topics by hand: what the `topics` verbs and the HTTP routes behind them do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Admin, TopicDetail};
use crate::broker::topic_config::{AlterOp, ConfigError};
use crate::broker::{AlterConfigError, Alteration, AppendError, CreateTopicError, NewTopic, NewTopicError, TopicError};

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    #[serde(default = "one")]
    pub partitions: i32,
    /// Configuration in Kafka's names.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

fn one() -> i32 {
    1
}

/// What of a topic is to change; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlterTopic {
    /// How many partitions it is to have: more than now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// Configuration in Kafka's names; null goes back to the default.
    #[serde(default)]
    pub config: BTreeMap<String, Option<String>>,
}

/// Why a topic was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicRefusal {
    /// There is none of that name.
    #[error("{0}")]
    Missing(String),
    /// What was asked for does not go.
    #[error("{0}")]
    Bad(String),
    /// There is one of that name.
    #[error("{0}")]
    Exists(String),
    /// Not now: it may be tried again.
    #[error("{0}")]
    Later(String),
    /// The store failed.
    #[error("{0}")]
    Failed(String),
}

impl From<AppendError> for TopicRefusal {
    fn from(error: AppendError) -> Self {
        let text = error.to_string();
        match error {
            AppendError::DiskFull | AppendError::Overloaded { .. } | AppendError::Closed => Self::Later(text),
            AppendError::Gone { .. } => Self::Missing(text),
            // No topic is changed with a producer id.
            AppendError::Poisoned { .. }
            | AppendError::Io { .. }
            | AppendError::TooLarge
            | AppendError::Sequence(_)
            | AppendError::Moved { .. } => Self::Failed(text),
        }
    }
}

impl From<TopicError> for TopicRefusal {
    fn from(error: TopicError) -> Self {
        let text = error.to_string();
        match error {
            TopicError::Unknown(_) | TopicError::UnknownId(_) => Self::Missing(text),
            TopicError::Internal(_) | TopicError::Partitions { .. } | TopicError::Config { .. } => Self::Bad(text),
            TopicError::State(_) => Self::Failed(text),
            TopicError::Append(error) => error.into(),
        }
    }
}

impl From<ConfigError> for TopicRefusal {
    fn from(error: ConfigError) -> Self {
        Self::Bad(error.to_string())
    }
}

impl From<NewTopicError> for TopicRefusal {
    fn from(error: NewTopicError) -> Self {
        let text = error.to_string();
        match error {
            NewTopicError::Config(error) => error.into(),
            NewTopicError::Create(CreateTopicError::Exists(_)) => Self::Exists(text),
            NewTopicError::Create(CreateTopicError::Append(error)) => error.into(),
            NewTopicError::Create(CreateTopicError::State(_)) => Self::Failed(text),
            NewTopicError::Create(CreateTopicError::Name(_) | CreateTopicError::Partitions { .. }) => Self::Bad(text),
        }
    }
}

impl From<AlterConfigError> for TopicRefusal {
    fn from(error: AlterConfigError) -> Self {
        match error {
            AlterConfigError::Config(error) => error.into(),
            AlterConfigError::Topic(error) => error.into(),
            AlterConfigError::Append(error) => error.into(),
        }
    }
}

impl Admin {
    fn shown(&self, name: &str) -> Result<TopicDetail, TopicRefusal> {
        self.topic(name).ok_or_else(|| TopicError::Unknown(name.to_owned()).into())
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// See [`TopicRefusal`].
    pub fn create_topic(&self, new: CreateTopic) -> Result<TopicDetail, TopicRefusal> {
        let CreateTopic { name, partitions, config } = new;
        self.broker.create_topic(NewTopic { name: name.clone(), partitions, config })?;
        self.shown(&name)
    }

    /// Changes a topic: configuration first, then its partitions. Nothing is changed when the configuration is refused.
    ///
    /// # Errors
    /// See [`TopicRefusal`].
    pub fn alter_topic(&self, name: &str, change: AlterTopic) -> Result<TopicDetail, TopicRefusal> {
        let step = |(name, value): (String, Option<String>)| (name, value.map_or(AlterOp::Delete, AlterOp::Set));
        let steps: Vec<_> = change.config.into_iter().map(step).collect();
        if !steps.is_empty() {
            self.broker.alter_topic_config(name, Alteration::Steps(steps), false)?;
        }
        if let Some(total) = change.partitions {
            self.broker.grow_partitions(name, total)?;
        }
        self.shown(name)
    }

    /// Deletes a topic with all its records and the positions of all groups in it; answers with what it was.
    ///
    /// # Errors
    /// See [`TopicRefusal`].
    pub fn delete_topic(&self, name: &str) -> Result<TopicDetail, TopicRefusal> {
        let shown = self.shown(name)?;
        self.broker.delete_topic(name)?;
        Ok(shown)
    }
}
