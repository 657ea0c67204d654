//! What the store itself acts on of a topic's configuration, read once when it changes.
//!
//! Names and values are Kafka's and are checked by the broker before they come here; what does not read as it should
//! counts as not given.

use std::collections::BTreeMap;

/// What happens to old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// They leave by time and size.
    pub delete: bool,
    /// They leave when a newer one has their key.
    pub compact: bool,
}

/// Whose time a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    Create,
    /// The time of the append.
    LogAppend,
}

/// The part of a topic's configuration that the store acts on. `None` is "no bound".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicSettings {
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `retention.ms`.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`, for each partition.
    pub retention_bytes: Option<u64>,
    /// `segment.ms`: how long records may stay out of the cleaner's reach.
    pub segment_ms: i64,
    /// `segment.bytes`: how many bytes may stay out of the cleaner's reach.
    pub segment_bytes: u64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: Option<i64>,
    /// `min.cleanable.dirty.ratio`, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `delete.retention.ms`: how long a tombstone stays after it was first seen clean.
    pub delete_retention_ms: i64,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
}

const DAY_MS: i64 = 86_400_000;

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            cleanup: CleanupPolicy { delete: true, compact: false },
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            segment_ms: 7 * DAY_MS,
            segment_bytes: 1 << 30,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: None,
            min_cleanable_dirty_ratio: 0.5,
            delete_retention_ms: DAY_MS,
            timestamp_type: TimestampType::Create,
        }
    }
}

impl TopicSettings {
    /// Reads a configuration, over `defaults` for what it does not name.
    #[must_use]
    pub fn read(defaults: &Self, config: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| config.get(name).map(|value| value.trim());
        let number = |name: &str, default: i64| text(name).and_then(|value| value.parse().ok()).unwrap_or(default);
        let bounded = |name: &str, default: Option<i64>| {
            let number = text(name).and_then(|value| value.parse::<i64>().ok());
            number.map_or(default, |number| (number >= 0).then_some(number))
        };
        let bytes = |number: i64| u64::try_from(number).ok();
        let retention_bytes = bounded("retention.bytes", defaults.retention_bytes.and_then(|b| i64::try_from(b).ok()));
        let lag = bounded("max.compaction.lag.ms", defaults.max_compaction_lag_ms).filter(|lag| *lag < i64::MAX);
        let ratio = text("min.cleanable.dirty.ratio").and_then(|value| value.parse::<f64>().ok());
        Self {
            cleanup: text("cleanup.policy").map_or(defaults.cleanup, cleanup_policy),
            retention_ms: bounded("retention.ms", defaults.retention_ms),
            retention_bytes: retention_bytes.and_then(bytes),
            segment_ms: number("segment.ms", defaults.segment_ms),
            segment_bytes: text("segment.bytes").and_then(|v| v.parse().ok()).unwrap_or(defaults.segment_bytes),
            min_compaction_lag_ms: number("min.compaction.lag.ms", defaults.min_compaction_lag_ms),
            max_compaction_lag_ms: lag,
            min_cleanable_dirty_ratio: ratio
                .filter(|ratio| (0.0..=1.0).contains(ratio))
                .unwrap_or(defaults.min_cleanable_dirty_ratio),
            delete_retention_ms: number("delete.retention.ms", defaults.delete_retention_ms),
            timestamp_type: match text("message.timestamp.type") {
                Some("LogAppendTime") => TimestampType::LogAppend,
                Some("CreateTime") => TimestampType::Create,
                Some(_) | None => defaults.timestamp_type,
            },
        }
    }
}

/// An empty policy keeps everything.
fn cleanup_policy(value: &str) -> CleanupPolicy {
    let has = |word: &str| value.split(',').any(|part| part.trim() == word);
    CleanupPolicy { delete: has("delete"), compact: has("compact") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> TopicSettings {
        let config = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TopicSettings::read(&TopicSettings::default(), &config)
    }

    #[test]
    fn what_is_not_named_or_does_not_read_is_the_default() {
        let wrong =
            [("retention.ms", "x"), ("segment.bytes", "-1"), ("min.cleanable.dirty.ratio", "2"), ("other", "1")];
        assert_eq!(read(&[]), TopicSettings::default());
        assert_eq!(read(&wrong), TopicSettings::default());
        let defaults = TopicSettings { retention_ms: None, ..TopicSettings::default() };
        assert_eq!(TopicSettings::read(&defaults, &BTreeMap::new()), defaults);
    }

    #[test]
    fn minus_one_is_no_bound_and_policies_add_up() {
        let got = read(&[("retention.ms", "-1"), ("retention.bytes", "5"), ("cleanup.policy", "compact,delete")]);
        assert_eq!((got.retention_ms, got.retention_bytes), (None, Some(5)));
        assert_eq!(got.cleanup, CleanupPolicy { delete: true, compact: true });
        assert_eq!(read(&[("cleanup.policy", "compact")]).cleanup, CleanupPolicy { delete: false, compact: true });
        assert_eq!(read(&[("cleanup.policy", "")]).cleanup, CleanupPolicy { delete: false, compact: false });
        assert_eq!(read(&[("message.timestamp.type", "LogAppendTime")]).timestamp_type, TimestampType::LogAppend);
        assert_eq!(read(&[("max.compaction.lag.ms", "9223372036854775807")]).max_compaction_lag_ms, None);
    }
}
