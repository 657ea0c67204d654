//! Topics: their names, which one an event goes to, how they are configured, and which partition a key goes to.
//!
//! Contract events.md section 4. Boot builds the [`TopicPlan`]; the publish step asks [`route`] and [`partition`];
//! the readers match names through [`TopicRef`].

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::model::{BinaryEvent, Event, Model, is_source_name};
use super::sources::{Sources, legal_in_topic, null_is_default, retention, scalar_map};

/// Longest topic prefix in bytes: with the longest source name every topic name stays within Kafka's 249.
pub const PREFIX_MAX_BYTES: usize = 100;

const TOPIC_MAX_BYTES: usize = 249;
const EXPEDITE: &str = "expedite";
const ERROR: &str = "error";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Built-in system topics with the time their events live; `None` is for ever, compacted (events.md 4.2, workers.md 5.3).
const SYSTEM_TOPICS: [(&str, Option<i64>); 12] = [
    ("insert", None),
    ("delete", None),
    ("retrohunt", None),
    (EXPEDITE, Some(7 * DAY_MS)),
    (ERROR, Some(7 * DAY_MS)),
    ("plugin", Some(7 * DAY_MS)),
    ("status", Some(DAY_MS)),
    ("download", Some(DAY_MS / 2)),
    ("report", Some(28 * DAY_MS)),
    ("scrape", Some(28 * DAY_MS)),
    ("dead", None),
    ("audit", None),
];

/// What a binary event says was done; the last part of its topic's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Uploaded.
    Sourced,
    /// A new file found inside another.
    Extracted,
    /// Another representation of the same file.
    Augmented,
    /// Metadata from an outside database.
    Mapped,
    /// New metadata.
    Enriched,
}

impl Action {
    /// Every binary action in the contract's order.
    pub const ALL: [Action; 5] =
        [Action::Sourced, Action::Extracted, Action::Augmented, Action::Mapped, Action::Enriched];

    /// The action of that exact name.
    pub fn parse(name: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.as_str() == name)
    }

    /// Its name on the wire and in topic names.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Sourced => "sourced",
            Action::Extracted => "extracted",
            Action::Augmented => "augmented",
            Action::Mapped => "mapped",
            Action::Enriched => "enriched",
        }
    }
}

/// The name of the topic `azul.<prefix>.system.<name>`.
pub fn system_topic(prefix: &str, name: &str) -> String {
    format!("azul.{prefix}.system.{name}")
}

/// The topic of expedited binaries.
pub fn expedite_topic(prefix: &str) -> String {
    system_topic(prefix, EXPEDITE)
}

/// The topic of binaries that clients have flagged as tried before.
pub fn error_topic(prefix: &str) -> String {
    system_topic(prefix, ERROR)
}

/// The name of the topic `azul.<prefix>.<source>.binary.<action>`.
pub fn binary_topic(prefix: &str, source: &str, action: Action) -> String {
    format!("azul.{prefix}.{source}.binary.{}", action.as_str())
}

/// The topic an event is published to (events.md 4.1).
///
/// # Errors
/// A binary that is neither expedited nor retried and has no source or no known action.
pub fn route(prefix: &str, event: &Event) -> Result<String, RouteError> {
    match event {
        Event::Binary(binary) => route_binary(prefix, binary),
        Event::Delete(_)
        | Event::Download(_)
        | Event::Insert(_)
        | Event::Plugin(_)
        | Event::Retrohunt(_)
        | Event::Status(_) => Ok(system_topic(prefix, event.model().as_str())),
    }
}

fn route_binary(prefix: &str, binary: &BinaryEvent) -> Result<String, RouteError> {
    if binary.flags.expedite {
        return Ok(expedite_topic(prefix));
    }
    if binary.flags.retry {
        return Ok(error_topic(prefix));
    }
    if binary.source.name.is_empty() {
        return Err(RouteError::SourceMissing);
    }
    let action = Action::parse(&binary.action).ok_or_else(|| RouteError::Action(binary.action.clone()))?;
    Ok(binary_topic(prefix, &binary.source.name, action))
}

/// Why no topic can be chosen for an event; its text goes into the 500 of events.md 1.7.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// `source.name` is empty.
    #[error("no topic for a binary event without source.name")]
    SourceMissing,
    /// `action` is not a binary action.
    #[error("no topic for a binary event with action {0:?}")]
    Action(String),
}

/// A topic name of one prefix, taken apart again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicRef<'a> {
    /// `azul.<prefix>.system.<name>`
    System {
        /// A model, `expedite`, `error`, or something this version does not know.
        name: &'a str,
    },
    /// `azul.<prefix>.<source>.binary.<action>`
    Binary {
        /// The source.
        source: &'a str,
        /// The action.
        action: Action,
    },
}

impl<'a> TopicRef<'a> {
    /// Takes a topic name of `prefix` apart; `None` for any other topic.
    ///
    /// `azul.p.system.binary.sourced` belongs to a source named `system`, because no system topic has a dot in its name.
    /// A dotted source is none: with prefix `p` it would take the topics of prefix `p.x` for its own.
    pub fn parse(prefix: &str, topic: &'a str) -> Option<TopicRef<'a>> {
        let rest = topic.strip_prefix("azul.")?.strip_prefix(prefix)?.strip_prefix('.')?;
        if let Some(name) = rest.strip_prefix("system.").filter(|name| !name.contains('.')) {
            return Some(TopicRef::System { name });
        }
        let (head, action) = rest.rsplit_once('.')?;
        let source = head.strip_suffix(".binary").filter(|source| is_source_name(source))?;
        Some(TopicRef::Binary { source, action: Action::parse(action)? })
    }

    /// The model of the events in the topic, if it holds events of a model.
    pub fn model(self) -> Option<Model> {
        match self {
            TopicRef::Binary { .. } | TopicRef::System { name: EXPEDITE | ERROR } => Some(Model::Binary),
            TopicRef::System { name } => Model::parse(name).filter(|model| *model != Model::Binary),
        }
    }
}

/// The partition a key belongs to: FNV-1a (32 bit) as a signed number, remainder, minus sign dropped.
///
/// `partitions` is the topic's count; 0 is treated as 1. See events.md 4.4.
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let remainder = i64::from(hash.cast_signed()) % i64::from(partitions.max(1));
    u32::try_from(remainder.abs()).unwrap_or(0)
}

/// Partition and replica counts for topics that do not say otherwise (`global_*_count`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicDefaults {
    /// `global_partition_count`, at least 1.
    pub partitions: u32,
    /// `global_replica_count`, at least 1.
    pub replicas: u16,
}

impl Default for TopicDefaults {
    fn default() -> TopicDefaults {
        TopicDefaults { partitions: 1, replicas: 1 }
    }
}

/// One entry of `events.topics`; 0 or a missing option means "as it would be without this entry".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TopicOverride {
    /// Topic name without `azul.<prefix>.`.
    pub topic: String,
    /// Partitions.
    #[serde(default, deserialize_with = "null_is_default")]
    pub numpartitions: u32,
    /// Replicas.
    #[serde(default, deserialize_with = "null_is_default")]
    pub replicationfactor: u16,
    /// Topic options that win over the earlier layers.
    #[serde(default, deserialize_with = "scalar_map")]
    pub config: BTreeMap<String, String>,
}

/// How one topic is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Full name.
    pub name: String,
    /// Partitions, at least 1.
    pub partitions: u32,
    /// Replicas, at least 1.
    pub replicas: u16,
    /// Topic options.
    pub config: BTreeMap<String, String>,
}

/// Every topic that exists from the start, and how any other event topic is made when it is first needed.
///
/// Layers, later wins: built-in list, sources, `events.topics` entries (events.md 4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    prefix: String,
    defaults: TopicDefaults,
    specs: BTreeMap<String, TopicSpec>,
}

impl TopicPlan {
    /// Builds the plan for one prefix.
    ///
    /// # Errors
    /// All mistakes found: an illegal prefix, or an `events.topics` entry whose topic name Kafka would refuse.
    pub fn new(
        prefix: &str,
        sources: &Sources,
        defaults: TopicDefaults,
        overrides: &[TopicOverride],
    ) -> Result<TopicPlan, Vec<TopicPlanError>> {
        let mut mistakes = Vec::new();
        if let Err(mistake) = check_topic_part(prefix, PREFIX_MAX_BYTES) {
            mistakes.push(TopicPlanError::Prefix { prefix: prefix.to_owned(), mistake });
        }
        let mut plan = TopicPlan { prefix: prefix.to_owned(), defaults, specs: BTreeMap::new() };
        plan.add_system_topics();
        plan.add_source_topics(sources);
        for entry in overrides {
            match check_topic_part(&entry.topic, TOPIC_MAX_BYTES.saturating_sub("azul..".len() + prefix.len())) {
                Ok(()) => plan.apply(entry),
                Err(mistake) => mistakes.push(TopicPlanError::Override { topic: entry.topic.clone(), mistake }),
            }
        }
        if mistakes.is_empty() { Ok(plan) } else { Err(mistakes) }
    }

    /// Every topic to make at start, in order of name.
    pub fn topics(&self) -> impl Iterator<Item = &TopicSpec> {
        self.specs.values()
    }

    /// How to make the topic `name` (full name); one that is not planned lives for ever and is compacted.
    pub fn spec(&self, name: &str) -> TopicSpec {
        self.specs.get(name).cloned().unwrap_or_else(|| self.unplanned(name.to_owned()))
    }

    fn unplanned(&self, name: String) -> TopicSpec {
        TopicSpec {
            name,
            partitions: self.defaults.partitions.max(1),
            replicas: self.defaults.replicas.max(1),
            config: BTreeMap::from(retention(None)),
        }
    }

    fn add_system_topics(&mut self) {
        for (name, expiry_ms) in SYSTEM_TOPICS {
            let mut spec = self.unplanned(system_topic(&self.prefix, name));
            spec.config.extend(retention(expiry_ms));
            spec.config.insert("segment.bytes".to_owned(), "1073741824".to_owned());
            self.specs.insert(spec.name.clone(), spec);
        }
    }

    fn add_source_topics(&mut self, sources: &Sources) {
        for (source, settings) in sources.iter() {
            for action in Action::ALL {
                let mut spec = self.unplanned(binary_topic(&self.prefix, source, action));
                spec.config.clone_from(&settings.topic_config);
                set_counts(&mut spec, settings.partitions, settings.replicas);
                self.specs.insert(spec.name.clone(), spec);
            }
        }
    }

    fn apply(&mut self, entry: &TopicOverride) {
        let mut spec = self.spec(&format!("azul.{}.{}", self.prefix, entry.topic));
        spec.config.extend(entry.config.clone());
        set_counts(&mut spec, entry.numpartitions, entry.replicationfactor);
        self.specs.insert(spec.name.clone(), spec);
    }
}

fn set_counts(spec: &mut TopicSpec, partitions: u32, replicas: u16) {
    if partitions > 0 {
        spec.partitions = partitions;
    }
    if replicas > 0 {
        spec.replicas = replicas;
    }
}

fn check_topic_part(text: &str, max_bytes: usize) -> Result<(), TopicPartError> {
    if text.is_empty() {
        return Err(TopicPartError::Empty);
    }
    if text.len() > max_bytes {
        return Err(TopicPartError::TooLong { bytes: text.len(), max_bytes });
    }
    match text.chars().find(|c| !legal_in_topic(*c)) {
        Some(found) => Err(TopicPartError::Character(found)),
        None => Ok(()),
    }
}

/// One mistake in the settings that the topic plan is built from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicPlanError {
    /// `topic_prefix` cannot be part of a topic name.
    #[error("topic prefix {prefix:?} {mistake}")]
    Prefix {
        /// The prefix.
        prefix: String,
        /// What is wrong with it.
        mistake: TopicPartError,
    },
    /// An `events.topics` entry does not name a legal topic.
    #[error("events.topics: topic {topic:?} {mistake}")]
    Override {
        /// The name as written.
        topic: String,
        /// What is wrong with it.
        mistake: TopicPartError,
    },
}

/// Why a text cannot be part of a topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicPartError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Too long for Kafka's 249 characters.
    #[error("has {bytes} bytes, at most {max_bytes} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What is allowed at this place.
        max_bytes: usize,
    },
    /// A character that Kafka does not allow.
    #[error("has the character {0:?}, allowed are A-Z a-z 0-9 . _ -")]
    Character(char),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
