//! Topic configuration: what it says, where each value comes from, and how it may be changed (`kafka.md` 3.7 and 6).
//!
//! Pure functions over maps of names to texts; [`TopicConfig`] is the typed view that the paths of records use, made
//! once for each change. Called by the broker; keys are in [`catalogue`].

pub mod catalogue;

use std::collections::BTreeMap;

use azulite_storage::topics::TopicSettings;

use super::broker_config::BrokerConfig;
use catalogue::{ConfigKey, ConfigType, TOPIC_KEYS, topic_key, words_of};

/// Configuration as it is kept: Kafka's names, values as given.
pub type ConfigMap = BTreeMap<String, String>;

/// What the broker acts on for each batch; the store has what it acts on itself.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// What the store acts on.
    pub settings: TopicSettings,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `message.timestamp.before.max.ms`; `None` is no bound.
    pub timestamp_before_max_ms: Option<i64>,
    /// `message.timestamp.after.max.ms`; `None` is no bound.
    pub timestamp_after_max_ms: Option<i64>,
}

impl TopicConfig {
    /// Reads a topic's configuration over what the broker says for all.
    #[must_use]
    pub fn read(config: &ConfigMap, broker: &BrokerConfig) -> Self {
        let number = |name: &str| {
            let key = topic_key(name);
            let value = key.map(|key| config.get(name).cloned().unwrap_or_else(|| broker.inherited(key).0));
            let default = || key.and_then(|key| key.default.parse().ok());
            value.and_then(|value| value.trim().parse::<i64>().ok()).or_else(default).unwrap_or(i64::MAX)
        };
        let bound = |name: &str| Some(number(name)).filter(|bound| *bound < i64::MAX);
        Self {
            settings: TopicSettings::read(&broker.topic_defaults(), config),
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(usize::MAX),
            timestamp_before_max_ms: bound("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: bound("message.timestamp.after.max.ms"),
        }
    }

    /// Whether a record may carry `timestamp` at `now_ms`; only asked when the time is the producer's. A record without a
    /// time may.
    #[must_use]
    pub fn allows_timestamp(&self, timestamp: i64, now_ms: i64) -> bool {
        let ahead = timestamp.saturating_sub(now_ms);
        let early = self.timestamp_before_max_ms.is_some_and(|most| ahead.saturating_neg() > most);
        let late = self.timestamp_after_max_ms.is_some_and(|most| ahead > most);
        timestamp < 0 || !(early || late)
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// The topic's own.
    Topic,
    /// Set for this broker while it ran.
    DynamicBroker,
    /// Set for all brokers while they ran.
    DynamicDefault,
    /// The configuration file.
    Static,
    /// Nobody said anything.
    Default,
}

impl ConfigSource {
    /// As the protocol numbers it.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefault => 3,
            Self::Static => 4,
            Self::Default => 5,
        }
    }
}

impl ConfigType {
    /// As the protocol numbers it.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }
}

/// One of the values that were looked at for a key, the one that counts first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The key that says it.
    pub name: &'static str,
    /// What it says.
    pub value: String,
    /// Where.
    pub source: ConfigSource,
}

/// A key with its value, as clients are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// What counts.
    pub value: String,
    /// Where that comes from.
    pub source: ConfigSource,
    /// True when it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Its type.
    pub kind: ConfigType,
    /// Every value that was looked at.
    pub synonyms: Vec<Synonym>,
    /// What it is for; says so when nothing here depends on it.
    pub about: String,
}

/// Every key of a topic.
#[must_use]
pub fn describe(config: &ConfigMap, broker: &BrokerConfig) -> Vec<Described> {
    let described = |key: &'static ConfigKey| {
        let own = config.get(key.name);
        let own = own.map(|value| Synonym { name: key.name, value: value.clone(), source: ConfigSource::Topic });
        let synonyms: Vec<_> = own.into_iter().chain(broker.synonyms(key)).collect();
        let (value, source) = match synonyms.first() {
            Some(first) => (first.value.clone(), first.source),
            None => (key.default.to_owned(), ConfigSource::Default),
        };
        Described { name: key.name, value, source, read_only: false, kind: key.kind, synonyms, about: about(key) }
    };
    TOPIC_KEYS.iter().map(described).collect()
}

pub(super) fn about(key: &ConfigKey) -> String {
    let idle = if key.acts { "" } else { " Accepted, no effect." };
    format!("{}{idle}", key.about)
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such key.
    #[error("{name} is not a configuration that is known")]
    Unknown {
        /// The key.
        name: String,
    },
    /// The key takes other values.
    #[error("{name} cannot be {value:?}: {expected} is expected")]
    Value {
        /// The key.
        name: String,
        /// What it was to be.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// Only lists are added to and taken from.
    #[error("{name} is not a list: nothing can be added to it or taken from it")]
    NotAList {
        /// The key.
        name: String,
    },
    /// Two values exclude each other.
    #[error("min.compaction.lag.ms is {least} and max.compaction.lag.ms is {most}: the first may not be larger")]
    Lags {
        /// The shorter one.
        least: i64,
        /// The longer one.
        most: i64,
    },
    /// The request itself is wrong: the key is in it twice.
    #[error("{name} is given twice")]
    Twice {
        /// The key.
        name: String,
    },
    /// The request itself is wrong: the key has no value.
    #[error("{name} has no value")]
    Null {
        /// The key.
        name: String,
    },
    /// It is in the configuration file and needs a restart.
    #[error("{name} cannot be changed while the broker runs")]
    ReadOnly {
        /// The key.
        name: String,
    },
}

impl ConfigError {
    /// True when the request is wrong (INVALID_REQUEST), not the configuration (INVALID_CONFIG).
    #[must_use]
    pub fn is_request(&self) -> bool {
        match self {
            Self::Twice { .. } | Self::Null { .. } | Self::ReadOnly { .. } => true,
            Self::Unknown { .. } | Self::Value { .. } | Self::NotAList { .. } | Self::Lags { .. } => false,
        }
    }
}

/// Checks a topic's whole configuration.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(config: &ConfigMap, broker: &BrokerConfig) -> Result<(), ConfigError> {
    for (name, value) in config {
        let key = topic_key(name).ok_or_else(|| ConfigError::Unknown { name: name.clone() })?;
        check_value(name, key, value)?;
    }
    let settings = TopicSettings::read(&broker.topic_defaults(), config);
    let least = settings.min_compaction_lag_ms;
    match settings.max_compaction_lag_ms {
        Some(most) if least > most => Err(ConfigError::Lags { least, most }),
        _ => Ok(()),
    }
}

pub(super) fn check_value(name: &str, key: &ConfigKey, value: &str) -> Result<(), ConfigError> {
    let wrong = |expected| ConfigError::Value { name: name.to_owned(), value: value.to_owned(), expected };
    key.check(value).map_err(wrong)
}

/// What a request lists, as a configuration: the legacy call replaces everything by this.
///
/// # Errors
/// [`ConfigError::Null`] and [`ConfigError::Twice`].
pub fn listed(pairs: impl IntoIterator<Item = (String, Option<String>)>) -> Result<ConfigMap, ConfigError> {
    let mut config = ConfigMap::new();
    for (name, value) in pairs {
        let value = value.ok_or_else(|| ConfigError::Null { name: name.clone() })?;
        if config.insert(name.clone(), value).is_some() {
            return Err(ConfigError::Twice { name });
        }
    }
    Ok(config)
}

/// One step of an incremental change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterOp {
    /// 0: this value.
    Set(String),
    /// 1: back to what the broker says.
    Delete,
    /// 2: these words too.
    Append(String),
    /// 3: these words no longer.
    Subtract(String),
}

/// The configuration after the steps. Neither the old nor the new one is checked.
///
/// # Errors
/// [`ConfigError::Unknown`], [`ConfigError::NotAList`] and [`ConfigError::Twice`].
pub fn altered(
    old: &ConfigMap,
    steps: impl IntoIterator<Item = (String, AlterOp)>,
    find: impl Fn(&str) -> Option<&'static ConfigKey>,
    inherited: impl Fn(&'static ConfigKey) -> String,
) -> Result<ConfigMap, ConfigError> {
    let mut config = old.clone();
    let mut seen = std::collections::BTreeSet::new();
    for (name, step) in steps {
        if !seen.insert(name.clone()) {
            return Err(ConfigError::Twice { name });
        }
        // What is no longer known may still be taken away.
        let known = || find(&name).ok_or_else(|| ConfigError::Unknown { name: name.clone() });
        let value = match step {
            AlterOp::Delete if config.contains_key(&name) => None,
            AlterOp::Delete => known().map(|_| None)?,
            AlterOp::Set(value) => known().map(|_| Some(value))?,
            AlterOp::Append(words) => Some(edited(&name, known()?, &config, &inherited, (&words, true))?),
            AlterOp::Subtract(words) => Some(edited(&name, known()?, &config, &inherited, (&words, false))?),
        };
        match value {
            Some(value) => config.insert(name, value),
            None => config.remove(&name),
        };
    }
    Ok(config)
}

/// The list with more or fewer words.
fn edited(
    name: &str,
    key: &'static ConfigKey,
    config: &ConfigMap,
    inherited: &impl Fn(&'static ConfigKey) -> String,
    (words, add): (&str, bool),
) -> Result<String, ConfigError> {
    if key.kind != ConfigType::List {
        return Err(ConfigError::NotAList { name: name.to_owned() });
    }
    let old = config.get(name).cloned().unwrap_or_else(|| inherited(key));
    let mut list: Vec<&str> = words_of(&old).collect();
    for word in words_of(words) {
        list.retain(|there| *there != word || add);
        if add && !list.contains(&word) {
            list.push(word);
        }
    }
    Ok(list.join(","))
}

#[cfg(test)]
mod tests;
