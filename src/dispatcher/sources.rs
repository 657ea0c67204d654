//! Sources: the configured names, how long their events live, and which names may become part of a topic.
//!
//! Owns the reading of `events.sources` (contract events.md 4.3, models.md 10). The configuration reads
//! [`SourcesConfig`], boot checks it into [`Sources`]; the age-off filters and the topic plan use the checked form.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::Deserializer;

use super::model::is_source_name;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// `events.sources` as written: source name to its settings, not yet checked. Unknown members are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SourcesConfig {
    /// Settings by source name.
    pub sources: BTreeMap<String, Option<SourceConfig>>,
}

/// Settings of one source as written; the members of the search side are not read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SourceConfig {
    /// `<integer> days|weeks|months|years`, or `0` or nothing for never.
    #[serde(default, deserialize_with = "scalar")]
    pub expire_events_after: String,
    /// Topic settings of this source.
    #[serde(default, deserialize_with = "null_is_default")]
    pub kafka: SourceTopicConfig,
}

/// Topic settings of one source as written; 0 means the deployment's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SourceTopicConfig {
    /// Partitions of each topic of the source.
    #[serde(default, deserialize_with = "null_is_default")]
    pub numpartitions: u32,
    /// Replicas of each topic of the source.
    #[serde(default, deserialize_with = "null_is_default")]
    pub replicationfactor: u16,
    /// Topic options; `cleanup.policy` and `retention.ms` are overwritten from the expiry.
    #[serde(default, deserialize_with = "scalar_map")]
    pub config: BTreeMap<String, String>,
}

/// The configured sources after checking; fixed for the life of the process (events.md 6.5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    sources: BTreeMap<String, Source>,
}

/// One checked source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// How long its events live after `source.timestamp`, in milliseconds, above zero; `None` for ever.
    pub expiry_ms: Option<i64>,
    /// Partitions of each of its topics; 0 means the deployment's default.
    pub partitions: u32,
    /// Replicas of each of its topics; 0 means the deployment's default.
    pub replicas: u16,
    /// Topic options with `cleanup.policy` and `retention.ms` derived from the expiry.
    pub topic_config: BTreeMap<String, String>,
}

impl Sources {
    /// Checks every configured source and derives its topic options.
    ///
    /// # Errors
    /// All mistakes found, each with the source it belongs to; the server does not start with any of them.
    pub fn check(config: &SourcesConfig) -> Result<Sources, Vec<SourceError>> {
        let mut sources = BTreeMap::new();
        let mut mistakes = Vec::new();
        for (name, written) in &config.sources {
            let written = written.clone().unwrap_or_default();
            if let Err(mistake) = check_source_name(name) {
                mistakes.push(SourceError { name: name.clone(), mistake: SourceMistake::Name(mistake) });
            }
            match parse_expiry(&written.expire_events_after) {
                Ok(expiry_ms) => drop(sources.insert(name.clone(), Source::new(expiry_ms, written.kafka))),
                Err(mistake) => {
                    mistakes.push(SourceError { name: name.clone(), mistake: SourceMistake::Expiry(mistake) });
                }
            }
        }
        if mistakes.is_empty() { Ok(Sources { sources }) } else { Err(mistakes) }
    }

    /// The source of that name, if it is configured.
    pub fn get(&self, name: &str) -> Option<&Source> {
        self.sources.get(name)
    }

    /// Every configured source in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.sources.iter().map(|(name, source)| (name.as_str(), source))
    }
}

impl FromIterator<(String, Source)> for Sources {
    /// Sources that were checked elsewhere, by the configuration.
    fn from_iter<I: IntoIterator<Item = (String, Source)>>(sources: I) -> Sources {
        Sources { sources: sources.into_iter().collect() }
    }
}

impl Source {
    /// A source whose events live `expiry_ms`, above zero (`None` for ever); the topic options that follow from it are
    /// put over those given.
    pub fn new(expiry_ms: Option<i64>, topic: SourceTopicConfig) -> Source {
        let mut topic_config = topic.config;
        topic_config.extend(retention(expiry_ms));
        Source { expiry_ms, partitions: topic.numpartitions, replicas: topic.replicationfactor, topic_config }
    }
}

/// `retention.ms` and `cleanup.policy` of a topic whose events live `expiry_ms` (`None` for ever).
pub fn retention(expiry_ms: Option<i64>) -> [(String, String); 2] {
    let policy = if expiry_ms.is_some() { "delete" } else { "compact" };
    [("retention.ms".to_owned(), expiry_ms.unwrap_or(-1).to_string()), ("cleanup.policy".to_owned(), policy.to_owned())]
}

/// Reads an expiry text into milliseconds; `None` means never (empty, `0`, zero and negative numbers).
///
/// # Errors
/// Anything but `<integer> days|weeks|months|years` with one space (models.md 10), or a span beyond 64 bits.
pub fn parse_expiry(text: &str) -> Result<Option<i64>, ExpiryError> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (number, unit) = text.split_once(' ').ok_or_else(|| ExpiryError::Form(text.to_owned()))?;
    let days = match unit {
        "days" => 1,
        "weeks" => 7,
        "months" => 30,
        "years" => 365,
        _ => return Err(ExpiryError::Unit(unit.to_owned())),
    };
    let number: i64 = number.parse().map_err(|_| ExpiryError::Number(number.to_owned()))?;
    let span_ms = number.checked_mul(days * DAY_MS).ok_or_else(|| ExpiryError::TooLong(text.to_owned()))?;
    Ok((span_ms > 0).then_some(span_ms))
}

/// Accepts a name that can be a source: the rule of [`is_source_name`], with the reason of a refusal.
///
/// # Errors
/// The first thing wrong with it.
pub fn check_source_name(name: &str) -> Result<(), SourceNameError> {
    if is_source_name(name) {
        return Ok(());
    }
    if name.is_empty() {
        return Err(SourceNameError::Empty);
    }
    match name.chars().find(|c| !legal_in_topic(*c) || *c == '.') {
        Some(found) => Err(SourceNameError::Character(found)),
        None => Err(SourceNameError::TooLong { bytes: name.len() }),
    }
}

/// Whether Kafka allows the character in a topic name.
pub(super) fn legal_in_topic(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// One mistake in `events.sources`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("source {name:?}: {mistake}")]
pub struct SourceError {
    /// The source it was found at.
    pub name: String,
    /// What is wrong.
    pub mistake: SourceMistake,
}

/// What can be wrong with one configured source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceMistake {
    /// Its name cannot be part of a topic name.
    #[error("the name {0}")]
    Name(SourceNameError),
    /// `expire_events_after` is not an expiry.
    #[error("expire_events_after: {0}")]
    Expiry(ExpiryError),
}

/// Why a source name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceNameError {
    /// No name at all.
    #[error("is empty")]
    Empty,
    /// Longer than a source name may be.
    #[error("has {bytes} bytes, which is too long")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A character that Kafka does not allow in topic names, or a dot.
    #[error("has the character {0:?}, allowed are A-Z a-z 0-9 _ -")]
    Character(char),
}

/// Why an expiry text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpiryError {
    /// Not a number, one space and a unit.
    #[error("{0:?} is neither \"0\" nor of the form \"<integer> days|weeks|months|years\"")]
    Form(String),
    /// The part before the space.
    #[error("{0:?} is not an integer")]
    Number(String),
    /// The part after the space.
    #[error("{0:?} is not one of days, weeks, months, years")]
    Unit(String),
    /// More milliseconds than 64 bits hold.
    #[error("{0:?} is too long")]
    TooLong(String),
}

/// A value that YAML and TOML writers may leave unquoted although it is text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Scalar::Text(text) => text,
            Scalar::Integer(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
            Scalar::Bool(yes) => yes.to_string(),
        }
    }
}

fn scalar<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<Scalar>::deserialize(from)?.map(Scalar::into_text).unwrap_or_default())
}

/// Reads a map of text to text whose values may be unquoted numbers or booleans.
pub(super) fn scalar_map<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let written = Option::<BTreeMap<String, Scalar>>::deserialize(from)?.unwrap_or_default();
    Ok(written.into_iter().map(|(key, value)| (key, value.into_text())).collect())
}

/// Reads a member whose `null` means the same as leaving it out.
pub(super) fn null_is_default<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
