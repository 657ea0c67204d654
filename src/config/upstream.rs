//! The names of upstream's settings (`events.md` section 8, `streams.md` section 6), and which of them an obsolete name
//! has become.

/// Upstream's settings behind `DP__`; what only tunes a library is not listed.
pub(super) const NAMES: [&str; 68] = [
    "LISTEN_ADDR",
    "LOG_PATH",
    "EVENTS__SOURCES",
    "EVENTS__TOPICS",
    "EVENTS__IGNORE_TOPIC_MISMATCH",
    "EVENTS__GLOBAL_REPLICA_COUNT",
    "EVENTS__GLOBAL_PARTITION_COUNT",
    "EVENTS__API_EVENT_FETCH_LIMIT",
    "EVENTS__API_DEFAULT_EVENT_WAIT",
    "EVENTS__DEDUPE_CACHE_BYTES",
    "EVENTS__MAX_CONSUMED_EVENTS_PER_CONSUMER",
    "EVENTS__ENABLE_EXTENDED_KAFKA_METRICS",
    "EVENTS__LOST_TASKS_AFTER_MINUTES",
    "EVENTS__LOST_TASKS_CHECK_MINUTES",
    "EVENTS__LOST_TASKS_BULK_CREATE_LIMIT",
    "EVENTS__OLD_CONSUMER_GROUP_DROPPED_MINUTES",
    "EVENTS__OLD_CONSUMER_GROUP_DROPPER_CHECK_FREQUENCY_MINUTES",
    "EVENTS__REPLAY_PLUGIN_CACHE__SIZE_BYTES",
    "EVENTS__REPLAY_PLUGIN_CACHE__TTL_SECONDS",
    "EVENTS__REPLAY_PLUGIN_CACHE__MIN_RUNTIME_SECONDS",
    "EVENTS__KAFKA__ENDPOINT",
    "EVENTS__KAFKA__TOPIC_PREFIX",
    "EVENTS__KAFKA__CONNECT_RETRIES",
    "EVENTS__KAFKA__CONSUMER_GROUP_RETENTION_DAYS",
    "EVENTS__KAFKA__POLL_WAIT_EVENTS",
    "EVENTS__KAFKA__POLL_WAIT_PIPELINE",
    "EVENTS__KAFKA__POLL_WAIT_REPROCESSOR",
    "EVENTS__KAFKA__MESSAGE_MAX_BYTES",
    "EVENTS__KAFKA__CONSUMER_FETCH_BATCH_BYTES",
    "EVENTS__KAFKA__NETWORK_CONNECTIONS_PER_ACTION",
    "EVENTS__KAFKA__PRODUCER_QUEUE_BUFFERING_MAX_MESSAGES",
    "EVENTS__KAFKA__CONSUMER_QUEUE_BUFFERING_MAX_MESSAGES",
    "EVENTS__KAFKA__PRODUCER_MAX_MESSAGES",
    "EVENTS__REDIS__ENDPOINT",
    "EVENTS__REDIS__USERNAME",
    "EVENTS__REDIS__PASSWORD",
    "EVENTS__REDIS__MAX_RETRIES",
    "EVENTS__REDIS__CONNECTION_TIMEOUT_SECONDS",
    "EVENTS__REPROCESS__DENY_TOPICS",
    "EVENTS__REPROCESS__CONSUMER_GROUP",
    "EVENTS__REPROCESS__UPGRADE_SOURCES",
    "EVENTS__REPROCESS__UPGRADE_SYSTEM",
    "EVENTS__REPROCESS__INCLUDE_SYSTEM",
    "EVENTS__REPROCESS__PREVIOUS_PREFIX",
    "EVENTS__REPROCESS__LEGACY_JSON",
    "EVENTS__REPROCESS__MAX_NUMBER_OF_EMPTY_POLLS",
    "STREAMS__BACKEND",
    "STREAMS__LOCAL__PATH",
    "STREAMS__S3__ENDPOINT",
    "STREAMS__S3__ACCESS_KEY",
    "STREAMS__S3__SECRET_KEY",
    "STREAMS__S3__SECURE",
    "STREAMS__S3__REGION",
    "STREAMS__S3__BUCKET",
    "STREAMS__S3__ENABLE_AUTOMATIC_AGEOFF",
    "STREAMS__S3__ENABLE_AUTOMATIC_AGEOFF_CLEANUP",
    "STREAMS__AZURE__ENDPOINT",
    "STREAMS__AZURE__STORAGE_ACCOUNT",
    "STREAMS__AZURE__ACCESS_KEY",
    "STREAMS__AZURE__CONTAINER",
    "STREAMS__CACHE__SIZE_BYTES",
    "STREAMS__CACHE__SHARDS",
    "STREAMS__CACHE__TTL_SECONDS",
    "STREAMS__FCACHE__PATH",
    "STREAMS__API_ALLOW_DELETE",
    "STREAMS__XOR_ENCODING",
    "STREAMS__AES_ENABLED",
    "STREAMS__AES_KEY",
];

/// Obsolete names that were not only shortened.
const RENAMED: [(&str, &str); 2] = [("SOURCES_HELM", "EVENTS__SOURCES"), ("TOPICS_YAML", "EVENTS__TOPICS")];

/// The setting that `DISPATCHER_<name>` has become, without `DP__`; `None` when there is none of its kind.
pub(super) fn successor(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    if let Some((_, now)) = RENAMED.iter().find(|(old, _)| *old == name) {
        return Some(now);
    }
    // `STORE_S3_ENDPOINT` has become `STREAMS__S3__ENDPOINT`, `KAFKA_ENDPOINT` `EVENTS__KAFKA__ENDPOINT`.
    let name = name.strip_prefix("STORE_").unwrap_or(&name).replace("__", "_");
    NAMES.into_iter().find(|now| {
        let flat = now.replace("__", "_");
        flat == name || ["EVENTS_", "STREAMS_"].iter().any(|part| flat.strip_prefix(part) == Some(&name))
    })
}

#[cfg(test)]
mod tests {
    use super::super::environment::{FromEnvironment, read};
    use super::super::layer::Setting;
    use super::*;

    /// What becomes of a setting.
    enum Verdict {
        /// It is our setting of this key.
        Kept(&'static str),
        /// It has no effect, and that is said.
        Told,
        /// It has no effect when it asks for what there is, else that is said.
        ToldUnless(&'static str),
        /// This value stops the start; another is told to have no effect.
        Refused(&'static str),
    }

    use Verdict::{Kept, Refused, Told, ToldUnless};

    /// The tables of `events.md` section 8 and `streams.md` section 6, with a value that is not the default.
    const TABLE: [(&str, &str, Verdict); 69] = [
        ("DP__LISTEN_ADDR", ":8112", Kept("http.listen")),
        ("DP__LOG_PATH", "/tmp/x", Kept("logging.path")),
        ("DP__EVENTS__SOURCES", "sources: {a: {expire_events_after: 1 days}}", Kept("sources.a")),
        ("DP__EVENTS__TOPICS", "[{topic: system.status, numpartitions: 2}]", Kept("topics.\"system.status\"")),
        ("DP__EVENTS__IGNORE_TOPIC_MISMATCH", "f", Kept("events.ignore_topic_mismatch")),
        ("DP__EVENTS__GLOBAL_REPLICA_COUNT", "3", ToldUnless("1")),
        ("DP__EVENTS__GLOBAL_PARTITION_COUNT", "3", Kept("events.partition_count")),
        ("DP__EVENTS__API_EVENT_FETCH_LIMIT", "10", Kept("events.api_event_fetch_limit")),
        ("DP__EVENTS__API_DEFAULT_EVENT_WAIT", "10", Kept("events.api_default_event_wait")),
        ("DP__EVENTS__DEDUPE_CACHE_BYTES", "1Mi", Kept("events.dedupe_cache_bytes")),
        ("DP__EVENTS__MAX_CONSUMED_EVENTS_PER_CONSUMER", "5", Told),
        ("DP__EVENTS__ENABLE_EXTENDED_KAFKA_METRICS", "true", Told),
        ("DP__EVENTS__LOST_TASKS_AFTER_MINUTES", "20", Kept("delivery.lease")),
        ("DP__EVENTS__LOST_TASKS_CHECK_MINUTES", "20", Kept("events.lost_tasks_check")),
        ("DP__EVENTS__LOST_TASKS_BULK_CREATE_LIMIT", "20", Told),
        ("DP__EVENTS__OLD_CONSUMER_GROUP_DROPPED_MINUTES", "20", Kept("events.reader_idle")),
        ("DP__EVENTS__OLD_CONSUMER_GROUP_DROPPER_CHECK_FREQUENCY_MINUTES", "20", Told),
        ("DP__EVENTS__REPLAY_PLUGIN_CACHE__SIZE_BYTES", "1Mi", Kept("events.replay_plugin_cache.size_bytes")),
        ("DP__EVENTS__REPLAY_PLUGIN_CACHE__TTL_SECONDS", "20", Kept("events.replay_plugin_cache.ttl")),
        ("DP__EVENTS__REPLAY_PLUGIN_CACHE__MIN_RUNTIME_SECONDS", "20", Kept("events.replay_plugin_cache.min_runtime")),
        ("DP__EVENTS__KAFKA__ENDPOINT", "b:9092", Told),
        ("DP__EVENTS__KAFKA__TOPIC_PREFIX", "p", Kept("events.topic_prefix")),
        ("DP__EVENTS__KAFKA__CONNECT_RETRIES", "20", Told),
        ("DP__EVENTS__KAFKA__CONSUMER_GROUP_RETENTION_DAYS", "20", Kept("events.consumer_group_retention_days")),
        ("DP__EVENTS__KAFKA__POLL_WAIT_EVENTS", "2ms", Told),
        ("DP__EVENTS__KAFKA__POLL_WAIT_PIPELINE", "2s", Told),
        ("DP__EVENTS__KAFKA__POLL_WAIT_REPROCESSOR", "2s", Told),
        ("DP__EVENTS__KAFKA__MESSAGE_MAX_BYTES", "2Mi", Kept("events.message_max_bytes")),
        ("DP__EVENTS__KAFKA__CONSUMER_FETCH_BATCH_BYTES", "2Mi", Told),
        ("DP__EVENTS__KAFKA__NETWORK_CONNECTIONS_PER_ACTION", "2", Told),
        ("DP__EVENTS__KAFKA__PRODUCER_QUEUE_BUFFERING_MAX_MESSAGES", "2", Told),
        ("DP__EVENTS__KAFKA__CONSUMER_QUEUE_BUFFERING_MAX_MESSAGES", "2", Told),
        ("DP__EVENTS__KAFKA__PRODUCER_MAX_MESSAGES", "2", Told),
        ("DP__EVENTS__REDIS__ENDPOINT", "r:6379", Told),
        ("DP__EVENTS__REDIS__USERNAME", "u", Told),
        ("DP__EVENTS__REDIS__PASSWORD", "hunter2", Told),
        ("DP__EVENTS__REDIS__MAX_RETRIES", "2", Told),
        ("DP__EVENTS__REDIS__CONNECTION_TIMEOUT_SECONDS", "2", Told),
        ("DP__EVENTS__REPROCESS__DENY_TOPICS", "azul.a.b, azul.c.d", Kept("reprocess.deny_topics")),
        ("DP__EVENTS__REPROCESS__CONSUMER_GROUP", "g", Told),
        ("DP__EVENTS__REPROCESS__UPGRADE_SOURCES", "T", Kept("reprocess.upgrade_sources")),
        ("DP__EVENTS__REPROCESS__UPGRADE_SYSTEM", "1", Kept("reprocess.upgrade_system")),
        ("DP__EVENTS__REPROCESS__INCLUDE_SYSTEM", "delete", Kept("reprocess.include_system")),
        ("DP__EVENTS__REPROCESS__PREVIOUS_PREFIX", "qa01", Kept("reprocess.previous_prefix")),
        ("DP__EVENTS__REPROCESS__LEGACY_JSON", "TRUE", Kept("reprocess.legacy_json")),
        ("DP__EVENTS__REPROCESS__MAX_NUMBER_OF_EMPTY_POLLS", "2", Told),
        ("DP__STREAMS__BACKEND", "s3", Refused("s3")),
        ("DP__STREAMS__LOCAL__PATH", "/tmp/x", Told),
        ("DP__STREAMS__S3__ENDPOINT", "m:9000", Refused("m:9000")),
        ("DP__STREAMS__S3__ACCESS_KEY", "k", Refused("k")),
        ("DP__STREAMS__S3__SECRET_KEY", "hunter2", Refused("hunter2")),
        ("DP__STREAMS__S3__SECURE", "true", Refused("true")),
        ("DP__STREAMS__S3__REGION", "r", Refused("r")),
        ("DP__STREAMS__S3__BUCKET", "b", Refused("b")),
        ("DP__STREAMS__S3__ENABLE_AUTOMATIC_AGEOFF", "true", Kept("streams.automatic_ageoff")),
        ("DP__STREAMS__S3__ENABLE_AUTOMATIC_AGEOFF_CLEANUP", "true", Told),
        ("DP__STREAMS__AZURE__ENDPOINT", "a", Refused("a")),
        ("DP__STREAMS__AZURE__STORAGE_ACCOUNT", "a", Refused("a")),
        ("DP__STREAMS__AZURE__ACCESS_KEY", "hunter2", Refused("hunter2")),
        ("DP__STREAMS__AZURE__CONTAINER", "c", Refused("c")),
        ("DP__STREAMS__CACHE__SIZE_BYTES", "2Mi", Told),
        ("DP__STREAMS__CACHE__SHARDS", "2", Told),
        ("DP__STREAMS__CACHE__TTL_SECONDS", "2", Told),
        ("DP__STREAMS__FCACHE__PATH", "/tmp/x", Told),
        ("DP__STREAMS__API_ALLOW_DELETE", "true", Kept("streams.api_allow_delete")),
        ("DP__STREAMS__XOR_ENCODING", "true", Told),
        ("DP__STREAMS__AES_ENABLED", "enabled", Refused("enabled")),
        ("BED__LOG_LEVEL", "WARN", Kept("logging.level")),
        ("BED__LOG_PRETTY", "false", Kept("logging.format")),
    ];

    fn of(name: &str, value: &str) -> FromEnvironment {
        read([(name.to_owned(), value.to_owned())].into_iter())
    }

    #[test]
    fn every_setting_of_upstream_is_kept_told_of_or_refused() {
        for (name, value, verdict) in TABLE {
            let found = of(name, value);
            let counts = (found.settings.is_empty(), found.warnings.len(), found.problems.len());
            let said = format!("{:?}{:?}", found.warnings, found.problems);
            assert!(!said.contains("hunter2"), "{said}");
            match verdict {
                Kept(key) => {
                    assert_eq!(counts, (false, 0, 0), "{name}: {said}");
                    let keys: Vec<_> = found.settings.iter().map(|setting| setting.key.to_string()).collect();
                    assert!(keys.iter().all(|found| found.starts_with(key)), "{name}: {keys:?}");
                    let refused = found.settings.iter().filter_map(|setting| Setting::checked(setting).err());
                    assert_eq!(refused.collect::<Vec<_>>(), [], "{name}");
                }
                Told => {
                    assert_eq!(counts, (true, 1, 0), "{name}: {said}");
                    assert!(said.contains(name), "{said}");
                }
                ToldUnless(fits) => {
                    assert_eq!(counts, (true, 1, 0), "{name}: {said}");
                    assert!(said.contains(name), "{said}");
                    assert!(of(name, fits).warnings.is_empty());
                }
                Refused(value) => {
                    let found = of(name, value);
                    let problems: Vec<_> = found.problems.iter().map(|problem| problem.origin.to_string()).collect();
                    assert_eq!(problems, [format!("environment {name}")]);
                }
            }
        }
    }

    #[test]
    fn the_table_has_every_setting() {
        // The key is of no use without AES, and has its own words.
        for name in NAMES.into_iter().filter(|name| *name != "STREAMS__AES_KEY") {
            let name = format!("DP__{name}");
            assert!(TABLE.iter().any(|(row, ..)| *row == name), "{name}");
        }
        assert!(of("DP__STREAMS__AES_KEY", "hunter2").warnings.concat().contains("DP__STREAMS__AES_KEY"));
        assert!(of("DP__EVENTS__NONSENSE", "1").warnings.concat().contains("unknown variables"));
    }

    #[test]
    fn obsolete_names_lead_to_current_ones() {
        for (old, now) in [
            ("KAFKA_ENDPOINT", Some("EVENTS__KAFKA__ENDPOINT")),
            ("STORE_S3_SECRET_KEY", Some("STREAMS__S3__SECRET_KEY")),
            ("GLOBAL_PARTITION_COUNT", Some("EVENTS__GLOBAL_PARTITION_COUNT")),
            ("SOURCES_HELM", Some("EVENTS__SOURCES")),
            ("TOPICS_YAML", Some("EVENTS__TOPICS")),
            ("LISTEN_ADDR", Some("LISTEN_ADDR")),
            ("REPLAY_PLUGIN_CACHE_SIZE_BYTES", Some("EVENTS__REPLAY_PLUGIN_CACHE__SIZE_BYTES")),
            ("NONSENSE", None),
        ] {
            assert_eq!(successor(old), now, "{old}");
        }
        for (old, told) in [
            ("DISPATCHER_KAFKA_ENDPOINT", "which has become DP__EVENTS__KAFKA__ENDPOINT, and that has no effect here"),
            ("DISPATCHER_LISTEN_ADDR", "use DP__LISTEN_ADDR"),
            ("DISPATCHER_SOURCES_HELM", "use DP__EVENTS__SOURCES"),
            ("DISPATCHER_NONSENSE", "which has no successor"),
        ] {
            let found = read(std::iter::once((old.to_owned(), "x".to_owned())));
            assert!(found.warnings[0].contains(&format!("{old} ({told})")), "{:?}", found.warnings);
        }
    }
}
