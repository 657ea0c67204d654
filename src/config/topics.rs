//! `[sources]` and `[topics]`: which topics exist and how long their records stay (`models.md` section 10, `events.md` 4.3).
//!
//! Member names are those of the YAML document that other parts of Azul read too, so that one document can serve both.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

use crate::broker::topic_config::catalogue::TOPIC_KEYS;

const DAY_MS: i64 = 86_400_000;

/// One `[sources.<name>]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// How long after `source.timestamp` an event of this source is of no more use.
    pub expire_events_after: Expiry,
    /// The topics of this source.
    pub kafka: TopicSettings,
    /// What the source is.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub description: Elsewhere,
    /// Used by the user interface.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub icon_class: Elsewhere,
    /// Used by the search side.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub partition_unit: Elsewhere,
    /// Used by the backup of the search side.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub exclude_from_backup: Elsewhere,
    /// Used by the search side.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub elastic: Elsewhere,
    /// Checked by the metastore before it submits.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub references: Elsewhere,
}

/// A member of a source that only other parts of Azul act on; it is accepted and left alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Elsewhere(serde_json::Value);

impl Elsewhere {
    /// Not given.
    pub(super) const ABSENT: Self = Self(serde_json::Value::Null);

    pub(super) fn is_absent(&self) -> bool {
        self.0.is_null()
    }
}

/// Settings of one topic: one `[topics."<name>"]`, or the `kafka` table of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicSettings {
    /// Partitions; 0 is `events.partition_count`.
    pub numpartitions: u32,
    /// Copies that a cluster would keep; one process keeps one, so any number is accepted and 1 is what it gets.
    pub replicationfactor: u16,
    /// Topic configuration in Kafka's names (`kafka.md` section 6).
    #[serde(deserialize_with = "scalars_as_text")]
    pub config: BTreeMap<String, String>,
}

/// A topic configuration value may be written as a number or a boolean: Kafka knows only text.
fn scalars_as_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Flag(bool),
        Whole(i64),
        Fraction(f64),
        Text(String),
    }
    let map = BTreeMap::<String, Scalar>::deserialize(deserializer)
        .map_err(|_| D::Error::custom("text, a number or a boolean"))?;
    Ok(map
        .into_iter()
        .map(|(name, value)| {
            let text = match value {
                Scalar::Flag(flag) => flag.to_string(),
                Scalar::Whole(number) => number.to_string(),
                Scalar::Fraction(number) => number.to_string(),
                Scalar::Text(text) => text,
            };
            (name, text)
        })
        .collect())
}

/// `expire_events_after`: `"<int> days|weeks|months|years"`, a month being 30 and a year 365 days, or never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    text: String,
    milliseconds: Option<i64>,
}

impl Expiry {
    const ALLOWED: &'static str =
        "\"0\" for never, or a whole number, one space and days, weeks, months or years, for example \"2 months\"";

    /// Milliseconds until an event expires; `None` is never.
    pub fn milliseconds(&self) -> Option<i64> {
        self.milliseconds
    }

    /// Reads the text form; zero and negative numbers are never, as upstream has it.
    fn parse(text: &str) -> Option<Self> {
        let milliseconds = if matches!(text, "" | "0") { 0 } else { Self::parse_some(text)? };
        Some(Self { text: text.to_owned(), milliseconds: (milliseconds > 0).then_some(milliseconds) })
    }

    fn parse_some(text: &str) -> Option<i64> {
        let (number, unit) = text.split_once(' ')?;
        let days = match unit {
            "days" => 1,
            "weeks" => 7,
            "months" => 30,
            "years" => 365,
            _ => return None,
        };
        number.parse::<i64>().ok()?.checked_mul(days)?.checked_mul(DAY_MS)
    }
}

impl Default for Expiry {
    fn default() -> Self {
        Self { text: "0".to_owned(), milliseconds: None }
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Expiry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| D::Error::custom(Self::ALLOWED))?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(Self::ALLOWED))
    }
}

/// What a topic or source name may be (`design.md` point 16), or what is wrong with it.
pub(super) fn name_problem(name: &str, max_length: usize) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = !name.is_empty() && name.len() <= max_length && name.bytes().all(legal);
    (!fits).then(|| format!("1 to {max_length} characters out of A-Z a-z 0-9 . _ -"))
}

/// What `value` of the topic configuration `name` may be, if it may not be this. Keys that nothing here acts on are
/// refused: in a file that a person wrote they are a mistake.
pub(super) fn topic_config_problem(name: &str, value: &str) -> Option<String> {
    let acts = TOPIC_KEYS.iter().filter(|key| key.acts);
    match acts.clone().find(|key| key.name == name) {
        Some(key) => key.check(value).err(),
        None => {
            let names: Vec<_> = acts.map(|key| key.name).collect();
            Some(format!("a topic configuration out of {}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_counted_in_whole_days() {
        for (text, milliseconds) in [
            ("", None),
            ("0", None),
            ("0 days", None),
            ("-3 weeks", None),
            ("7 days", Some(604_800_000)),
            ("3 months", Some(7_776_000_000)),
            ("1 years", Some(365 * DAY_MS)),
        ] {
            assert_eq!(Expiry::parse(text).map(|e| e.milliseconds()), Some(milliseconds), "{text}");
        }
    }

    #[test]
    fn expiry_in_other_words_is_refused() {
        for text in ["7", "7 day", "7  days", " 7 days", "7 days ", "x days", "1.5 days", "99999999999999 years"] {
            assert_eq!(Expiry::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_topic_configuration_that_is_acted_upon_may_be_written() {
        assert_eq!(topic_config_problem("retention.ms", "-1"), None);
        assert_eq!(topic_config_problem("cleanup.policy", "compact,delete"), None);
        assert_eq!(topic_config_problem("retention.ms", "-2"), Some("a whole number of at least -1".to_owned()));
        for name in ["retention.mss", "preallocate"] {
            let problem = topic_config_problem(name, "1").unwrap();
            assert!(problem.contains("retention.ms") && !problem.contains(name), "{name}: {problem}");
        }
    }

    #[test]
    fn names_are_topic_parts() {
        assert_eq!(name_problem("incidents.2024-a_b", 120), None);
        for name in ["", "a b", "a/b", "\u{e9}"] {
            assert!(name_problem(name, 120).is_some(), "{name:?}");
        }
        assert!(name_problem(&"a".repeat(121), 120).is_some());
    }
}
