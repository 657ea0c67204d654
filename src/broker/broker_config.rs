//! Configuration of the broker itself, as clients see it: what the file says, what was changed while it ran, defaults
//! (`kafka.md` 3.7, resource type 4).
//!
//! Changed while running can be what topics inherit; it is kept in the state and survives a restart. Everything else is
//! read-only.

use std::collections::BTreeMap;

use azulite_storage::topics::TopicSettings;

use super::topic_config::catalogue::{ConfigKey, ConfigType, TOPIC_KEYS};
use super::topic_config::{
    AlterOp, ConfigError, ConfigMap, ConfigSource, Described, Synonym, about, altered, check_value,
};

/// Under this name what was changed is kept.
pub(super) const KV_NAME: &[u8] = b"broker/config";

/// A key that topics know nothing of: name, type, default, what it is for.
type OwnKey = (&'static str, ConfigType, &'static str, &'static str);

use ConfigType::{Boolean, Int, List, Long, String as Text};

/// In order of name. What the file says goes before these defaults.
const OWN_KEYS: [OwnKey; 33] = [
    ("advertised.listeners", List, "", "Addresses that clients are told to use."),
    ("auto.create.topics.enable", Boolean, "true", "Makes a topic when a client first asks for it by name."),
    ("azulite.durability", Text, "sync", "What is true when an append is acknowledged."),
    ("broker.id", Int, "1", "Number of this node."),
    ("connections.max.idle.ms", Long, "600000", "A connection that says nothing for so long is closed."),
    ("default.replication.factor", Int, "1", "Copies of a topic that does not say. There is one."),
    ("delete.topic.enable", Boolean, "true", "Whether topics may be deleted."),
    ("fetch.max.bytes", Int, "57671680", "Bytes in one answer to a fetch, about."),
    ("group.consumer.heartbeat.interval.ms", Int, "5000", "How often members of the newer group protocol report."),
    ("group.consumer.session.timeout.ms", Int, "45000", "A member of the newer protocol silent for so long is out."),
    ("group.initial.rebalance.delay.ms", Int, "0", "How long a new group waits for more members."),
    ("group.max.session.timeout.ms", Int, "1800000", "The longest session a member may ask for."),
    ("group.max.size", Int, "2147483647", "Members of one group, at most."),
    ("group.min.session.timeout.ms", Int, "6000", "The shortest session a member may ask for."),
    ("listeners", List, "PLAINTEXT://127.0.0.1:9092", "Addresses listened on."),
    ("log.dir", Text, "", "Where data lies."),
    ("log.dirs", Text, "", "Where data lies."),
    ("log.retention.check.interval.ms", Long, "300000", "The longest time between two looks at a partition's age."),
    ("log.retention.hours", Int, "168", "Age at which batches are let go, where log.retention.ms does not say."),
    ("max.connections", Int, "2147483647", "Connections open at once."),
    ("node.id", Int, "1", "Number of this node."),
    ("num.partitions", Int, "1", "Partitions of a topic that does not say."),
    ("offset.metadata.max.bytes", Int, "4096", "The longest text beside a committed position."),
    ("offsets.retention.minutes", Int, "43200", "Positions of a group nobody uses are forgotten after so long."),
    ("offsets.topic.num.partitions", Int, "1", "Partitions of the topic of positions."),
    ("offsets.topic.replication.factor", Int, "1", "Copies of the topic of positions."),
    ("process.roles", List, "broker,controller", "What this node does."),
    ("producer.id.expiration.ms", Int, "86400000", "A producer silent for so long is forgotten."),
    ("replica.fetch.max.bytes", Int, "8388608", "There are no other copies that fetch."),
    ("socket.request.max.bytes", Int, "104857600", "The largest request."),
    ("transaction.max.timeout.ms", Int, "900000", "The longest a transaction may be open."),
    ("transaction.state.log.replication.factor", Int, "1", "Copies of the state of transactions."),
    ("transactional.id.expiration.ms", Int, "604800000", "A transactional id not used for so long is forgotten."),
];

/// What counts for the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerConfig {
    /// From the configuration file.
    fixed: ConfigMap,
    /// Changed while running.
    dynamic: ConfigMap,
}

/// The topic key that topics inherit from the broker key `name`, if that can be changed while running.
fn inherited_key(name: &str) -> Option<&'static ConfigKey> {
    TOPIC_KEYS.iter().find(|key| key.broker == Some(name) && key.acts)
}

impl BrokerConfig {
    /// What the file says, in Kafka's names, and what was changed.
    #[must_use]
    pub fn new(fixed: ConfigMap, dynamic: ConfigMap) -> Self {
        Self { fixed, dynamic }
    }

    /// What was changed while running.
    #[must_use]
    pub fn dynamic(&self) -> &ConfigMap {
        &self.dynamic
    }

    /// What the file says.
    #[must_use]
    pub fn fixed(&self) -> &ConfigMap {
        &self.fixed
    }

    /// What a topic that does not say it itself gets, and where from.
    #[must_use]
    pub fn inherited(&self, key: &'static ConfigKey) -> (String, ConfigSource) {
        let first = self.synonyms(key).into_iter().next();
        first.map_or((key.default.to_owned(), ConfigSource::Default), |first| (first.value, first.source))
    }

    /// Every value there is for a topic key beside the topic's own, the one that counts first.
    #[must_use]
    pub fn synonyms(&self, key: &'static ConfigKey) -> Vec<Synonym> {
        let Some(name) = key.broker else { return Vec::new() };
        let said = |map: &ConfigMap, source| map.get(name).map(|value| Synonym { name, value: value.clone(), source });
        let default = Synonym { name, value: key.default.to_owned(), source: ConfigSource::Default };
        let dynamic = said(&self.dynamic, ConfigSource::DynamicDefault);
        dynamic.into_iter().chain(said(&self.fixed, ConfigSource::Static)).chain([default]).collect()
    }

    /// What the store takes for topics that do not say.
    #[must_use]
    pub fn topic_defaults(&self) -> TopicSettings {
        let mut config = BTreeMap::new();
        for key in &TOPIC_KEYS {
            let (value, source) = self.inherited(key);
            if source != ConfigSource::Default {
                config.insert(key.name.to_owned(), value);
            }
        }
        TopicSettings::read(&TopicSettings::default(), &config)
    }

    /// Every key of the broker.
    #[must_use]
    pub fn describe(&self) -> Vec<Described> {
        let own = OWN_KEYS.iter().map(|(name, kind, default, about)| {
            let fixed = self.fixed.get(*name).map(|value| (value.clone(), ConfigSource::Static));
            let default = ((*default).to_owned(), ConfigSource::Default);
            let values = fixed.into_iter().chain([default]);
            let synonyms: Vec<_> = values.map(|(value, source)| Synonym { name, value, source }).collect();
            described(name, *kind, synonyms, true, (*about).to_owned())
        });
        let inherited = TOPIC_KEYS.iter().filter_map(|key| {
            let name = key.broker?;
            Some(described(name, key.kind, self.synonyms(key), !key.acts, about(key)))
        });
        let mut all: Vec<_> = own.chain(inherited).collect();
        all.sort_by_key(|key| key.name);
        all
    }

    /// The configuration after a change while running.
    ///
    /// # Errors
    /// [`ConfigError`]; [`ConfigError::ReadOnly`] for what only the file says.
    pub fn altered(&self, steps: impl IntoIterator<Item = (String, AlterOp)>) -> Result<Self, ConfigError> {
        let steps: Vec<_> = steps.into_iter().collect();
        steps.iter().try_for_each(|(name, _)| changeable(name).map(drop))?;
        let inherited = |key| self.inherited(key).0;
        let dynamic = altered(&self.dynamic, steps, inherited_key, inherited)?;
        self.with(dynamic)
    }

    /// The configuration with exactly this changed while running.
    ///
    /// # Errors
    /// As [`BrokerConfig::altered`].
    pub fn with(&self, dynamic: ConfigMap) -> Result<Self, ConfigError> {
        for (name, value) in &dynamic {
            check_value(name, changeable(name)?, value)?;
        }
        Ok(Self { fixed: self.fixed.clone(), dynamic })
    }
}

/// The key behind a name that may be changed while running.
fn changeable(name: &str) -> Result<&'static ConfigKey, ConfigError> {
    let own = OWN_KEYS.iter().any(|key| key.0 == name) || TOPIC_KEYS.iter().any(|key| key.broker == Some(name));
    let missing = || match own {
        true => ConfigError::ReadOnly { name: name.to_owned() },
        false => ConfigError::Unknown { name: name.to_owned() },
    };
    inherited_key(name).ok_or_else(missing)
}

fn described(
    name: &'static str,
    kind: ConfigType,
    synonyms: Vec<Synonym>,
    read_only: bool,
    about: String,
) -> Described {
    let (value, source) = match synonyms.first() {
        Some(first) => (first.value.clone(), first.source),
        None => (String::new(), ConfigSource::Default),
    };
    Described { name, value, source, read_only, kind, synonyms, about }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keys_are_named_once_in_order() {
        let all = BrokerConfig::default().describe();
        assert!(all.windows(2).all(|pair| pair[0].name < pair[1].name), "{all:?}");
        assert!(OWN_KEYS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(all.iter().any(|key| key.name == "message.max.bytes" && !key.read_only && key.value == "8388608"));
        assert!(all.iter().any(|key| key.name == "node.id" && key.read_only));
    }

    #[test]
    fn only_what_topics_inherit_is_changed_while_running() {
        let config = BrokerConfig::new(map(&[("log.retention.ms", "9")]), ConfigMap::new());
        let set = |name: &str, value: &str| config.altered([(name.to_owned(), AlterOp::Set(value.to_owned()))]);
        let changed = set("log.retention.ms", "5").unwrap();
        assert_eq!(changed.topic_defaults().retention_ms, Some(5));
        let deleted = changed.altered([("log.retention.ms".to_owned(), AlterOp::Delete)]).unwrap();
        assert_eq!((deleted.topic_defaults().retention_ms, &deleted), (Some(9), &config));
        assert_eq!(set("node.id", "2"), Err(ConfigError::ReadOnly { name: "node.id".into() }));
        assert_eq!(set("log.roll.jitter.ms", "2"), Err(ConfigError::ReadOnly { name: "log.roll.jitter.ms".into() }));
        assert_eq!(set("nonsense", "2"), Err(ConfigError::Unknown { name: "nonsense".into() }));
        let expected = "a whole number of at least -1".to_owned();
        let (name, value) = ("log.retention.ms".to_owned(), "x".to_owned());
        assert_eq!(set("log.retention.ms", "x"), Err(ConfigError::Value { name, value, expected }));
    }
}
