//! Settings from environment variables: our own `AZULITE_<SECTION>__<KEY>`, and the names that the upstream dispatcher
//! reads (`events.md` section 8, `streams.md` section 6), so that a deployment can move over as it is.

use super::documents::{self, Document};
use super::layer::{KeyPath, Origin, Setting};
use super::problem::Problem;
use super::upstream::successor;
use std::collections::BTreeMap;

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct FromEnvironment {
    /// Upstream names first, then our own, which are stronger.
    pub(super) settings: Vec<Setting>,
    /// Variables that ask for something this version must not pretend to do.
    pub(super) problems: Vec<Problem>,
    /// Variables that have no effect.
    pub(super) warnings: Vec<String>,
}

/// The variables of this process that [`Config::load`](super::Config::load) looks at.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || is_labels(name))
}

const PREFIXES: [&str; 6] = ["AZULITE_", "DP__", "DP.", "BED__", "BED.", "DISPATCHER_"];

/// The label configuration of other parts of Azul, whose names are in any case.
fn is_labels(name: &str) -> bool {
    name.eq_ignore_ascii_case("security_labels")
}

/// Sorts `variables` into settings, refusals and warnings.
pub(super) fn read(variables: impl Iterator<Item = (String, String)>) -> FromEnvironment {
    let sorted: BTreeMap<String, String> = variables.collect();
    let mut found = FromEnvironment::default();
    let mut unused = Unused::default();
    // The dotted form is read first, so that the other one wins.
    for separator in [".", "__"] {
        for (name, value) in &sorted {
            if let Some(upstream) = upstream_name(name, separator) {
                found.upstream(name, &upstream, value, &mut unused);
            }
        }
    }
    for (name, value) in &sorted {
        if is_labels(name) {
            found.document(documents::labels(name, value));
        }
    }
    for (name, value) in &sorted {
        if let Some(rest) = name.strip_prefix("AZULITE_") {
            found.own(name, rest, value);
        } else if let Some(rest) = name.strip_prefix("DISPATCHER_") {
            let now = match successor(rest) {
                Some(now) if has_effect(&format!("DP__{now}")) => format!("use DP__{now}"),
                Some(now) => format!("which has become DP__{now}, and that has no effect here"),
                None => "which has no successor".to_owned(),
            };
            unused.obsolete.push(format!("{name} ({now})"));
        }
    }
    unused.report(&mut found.warnings);
    found
}

/// Sections of the configuration; a test keeps the list complete.
const SECTIONS: [&str; 16] = [
    "http",
    "kafka",
    "storage",
    "events",
    "delivery",
    "consumers",
    "dead_letter",
    "streams",
    "identify",
    "logging",
    "metrics",
    "security",
    "reprocess",
    "workers",
    "sources",
    "topics",
];

/// `EVENTS__TOPIC_PREFIX` -> `events.topic_prefix`; the name of a source or topic is taken as it is written.
fn own_key(rest: &str) -> KeyPath {
    let named = ["consumers", "sources", "topics"]
        .iter()
        .any(|table| rest.split("__").next().is_some_and(|first| first.eq_ignore_ascii_case(table)));
    let parts = rest.split("__").enumerate();
    KeyPath::new(
        parts.map(|(i, part)| if named && i == 1 { part.to_owned() } else { part.to_ascii_lowercase() }).collect(),
    )
}

/// `DP__EVENTS__Sources` or `DP.EVENTS.Sources` -> `DP__EVENTS__SOURCES`; only the prefix is case-sensitive.
fn upstream_name(name: &str, separator: &str) -> Option<String> {
    ["DP", "BED"].iter().find_map(|prefix| {
        let rest = name.strip_prefix(prefix)?.strip_prefix(separator)?;
        Some(format!("{prefix}__{}", rest.replace(separator, "__").to_ascii_uppercase()))
    })
}

impl FromEnvironment {
    /// Names without `__` belong to scripts around us, unless they look like a setting that lacks an underscore.
    fn own(&mut self, name: &str, rest: &str, value: &str) {
        let origin = Origin::Environment { name: name.to_owned() };
        if rest.contains("__") {
            self.settings.push(Setting::text(own_key(rest), value, origin));
            return;
        }
        let section = rest.split('_').next().unwrap_or_default().to_ascii_lowercase();
        if SECTIONS.contains(&section.as_str()) {
            let message =
                "a setting is written AZULITE_<SECTION>__<KEY>, with two underscores between the two".to_owned();
            let (key, value) = (section, "(not read)".to_owned());
            self.problems.push(Problem { origin, key, value, message });
        }
    }

    fn upstream(&mut self, name: &str, upstream: &str, value: &str, unused: &mut Unused) {
        let origin = Origin::Environment { name: name.to_owned() };
        match upstream {
            "DP__EVENTS__SOURCES" => return self.document(documents::sources(name, value)),
            "DP__EVENTS__TOPICS" => return self.document(documents::topics(name, value)),
            "DP__EVENTS__GLOBAL_REPLICA_COUNT" => return self.replicas(origin, value),
            _ => {}
        }
        if let Some((_, key, convert)) = KEPT.iter().find(|(kept, ..)| *kept == upstream) {
            self.settings.push(Setting::text(KeyPath::of(key), convert(value), origin));
        } else if let Some(message) = refusal(upstream, value) {
            let (key, value) = (upstream.to_owned(), "(not shown)".to_owned());
            self.problems.push(Problem { origin, key, value, message });
        } else if let Some(instead) = unread(upstream) {
            self.warnings.push(format!("{name} is not read by this version: {instead}"));
        } else if TUNING.iter().any(|prefix| upstream.starts_with(prefix)) {
            unused.tuning.push(name.to_owned());
        } else {
            unused.unknown.push(name.to_owned());
        }
    }
}

impl FromEnvironment {
    fn document(&mut self, document: Document) {
        self.settings.extend(document.settings);
        self.problems.extend(document.problems);
    }

    /// One process keeps one copy, whatever number a cluster would be told.
    fn replicas(&mut self, origin: Origin, value: &str) {
        match value.parse::<u16>() {
            Ok(1) => {}
            Ok(count) if count > 1 => {
                self.warnings.push(format!("{origin}: {count} replicas are not kept: one process keeps one copy"));
            }
            Ok(_) | Err(_) => {
                let (key, value) = ("replicas".to_owned(), format!("{value:?}"));
                let message = "allowed is a whole number from 1 to 65535; one process keeps one copy".to_owned();
                self.problems.push(Problem { origin, key, value, message });
            }
        }
    }
}

/// Whether an upstream name means something here.
fn has_effect(upstream: &str) -> bool {
    ["DP__EVENTS__SOURCES", "DP__EVENTS__TOPICS"].contains(&upstream) || KEPT.iter().any(|(kept, ..)| *kept == upstream)
}

/// An upstream name, our key, and how its value is written in our terms.
type Kept = (&'static str, &'static str, fn(&str) -> String);

const KEPT: [Kept; 26] = [
    ("DP__LISTEN_ADDR", "http.listen", str::to_owned),
    ("DP__EVENTS__KAFKA__TOPIC_PREFIX", "events.topic_prefix", str::to_owned),
    ("DP__EVENTS__KAFKA__MESSAGE_MAX_BYTES", "events.message_max_bytes", whole_size),
    ("DP__EVENTS__KAFKA__CONSUMER_GROUP_RETENTION_DAYS", "events.consumer_group_retention_days", str::to_owned),
    ("DP__EVENTS__API_EVENT_FETCH_LIMIT", "events.api_event_fetch_limit", str::to_owned),
    ("DP__EVENTS__API_DEFAULT_EVENT_WAIT", "events.api_default_event_wait", seconds),
    ("DP__EVENTS__LOST_TASKS_AFTER_MINUTES", "delivery.lease", minutes),
    ("DP__EVENTS__LOST_TASKS_CHECK_MINUTES", "events.lost_tasks_check", minutes),
    ("DP__EVENTS__OLD_CONSUMER_GROUP_DROPPED_MINUTES", "events.reader_idle", minutes),
    ("DP__EVENTS__GLOBAL_PARTITION_COUNT", "events.partition_count", str::to_owned),
    ("DP__EVENTS__IGNORE_TOPIC_MISMATCH", "events.ignore_topic_mismatch", go_boolean),
    ("DP__EVENTS__REPROCESS__DENY_TOPICS", "reprocess.deny_topics", list),
    ("DP__EVENTS__REPROCESS__INCLUDE_SYSTEM", "reprocess.include_system", list),
    ("DP__EVENTS__REPROCESS__LEGACY_JSON", "reprocess.legacy_json", go_boolean),
    ("DP__EVENTS__REPROCESS__PREVIOUS_PREFIX", "reprocess.previous_prefix", str::to_owned),
    ("DP__EVENTS__REPROCESS__UPGRADE_SOURCES", "reprocess.upgrade_sources", go_boolean),
    ("DP__EVENTS__REPROCESS__UPGRADE_SYSTEM", "reprocess.upgrade_system", go_boolean),
    ("DP__EVENTS__DEDUPE_CACHE_BYTES", "events.dedupe_cache_bytes", whole_size),
    ("DP__EVENTS__REPLAY_PLUGIN_CACHE__SIZE_BYTES", "events.replay_plugin_cache.size_bytes", whole_size),
    ("DP__EVENTS__REPLAY_PLUGIN_CACHE__TTL_SECONDS", "events.replay_plugin_cache.ttl", seconds),
    ("DP__EVENTS__REPLAY_PLUGIN_CACHE__MIN_RUNTIME_SECONDS", "events.replay_plugin_cache.min_runtime", seconds),
    ("DP__LOG_PATH", "logging.path", str::to_owned),
    ("DP__STREAMS__API_ALLOW_DELETE", "streams.api_allow_delete", go_boolean),
    ("DP__STREAMS__S3__ENABLE_AUTOMATIC_AGEOFF", "streams.automatic_ageoff", go_boolean),
    ("BED__LOG_LEVEL", "logging.level", str::to_ascii_lowercase),
    ("BED__LOG_PRETTY", "logging.format", pretty),
];

/// Upstream cuts the fraction of a size off: `1.5Gi` is 1 Gi.
fn whole_size(value: &str) -> String {
    let Some((whole, rest)) = value.split_once('.') else { return value.to_owned() };
    format!("{whole}{}", rest.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

fn seconds(value: &str) -> String {
    format!("{value}s")
}

fn minutes(value: &str) -> String {
    format!("{value}m")
}

fn go_boolean(value: &str) -> String {
    match value {
        "1" | "t" | "T" | "TRUE" | "True" => "true".to_owned(),
        "0" | "f" | "F" | "FALSE" | "False" => "false".to_owned(),
        other => other.to_owned(),
    }
}

/// Upstream separates the items by commas.
fn list(value: &str) -> String {
    let items: Vec<&str> = value.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    serde_json::Value::from(items).to_string()
}

fn pretty(value: &str) -> String {
    match go_boolean(value).as_str() {
        "true" => "text".to_owned(),
        "false" => "json".to_owned(),
        other => other.to_owned(),
    }
}

/// Why a variable stops the start: doing without what it asks for would not be noticed.
fn refusal(upstream: &str, value: &str) -> Option<String> {
    if upstream == "DP__STREAMS__S3__ENABLE_AUTOMATIC_AGEOFF_CLEANUP" {
        return None;
    }
    let remote = ["DP__STREAMS__S3__", "DP__STREAMS__AZURE__"].iter().any(|prefix| upstream.starts_with(prefix));
    if (remote && !value.is_empty()) || (upstream == "DP__STREAMS__BACKEND" && value != "local") {
        return Some(
            "this version keeps blobs in storage.data_dir only, not in S3 or Azure; remove the variable".to_owned(),
        );
    }
    (upstream == "DP__STREAMS__AES_ENABLED" && !matches!(value, "" | "disabled")).then(|| {
        "streams.encoding = \"aes256\" encrypts new blobs, and streams.adopt_dir with streams.adopt_key_file reads an \
             existing store; set those instead and remove the variable"
            .to_owned()
    })
}

/// What to do instead of a variable that means something but is not read yet.
fn unread(upstream: &str) -> Option<&'static str> {
    match upstream {
        "DP__STREAMS__BACKEND" | "DP__STREAMS__LOCAL__PATH" => {
            Some("blobs are kept in storage.data_dir; streams.adopt_dir reads an existing store where it lies")
        }
        "DP__STREAMS__XOR_ENCODING" | "DP__STREAMS__AES_ENABLED" | "DP__STREAMS__AES_KEY" => Some(
            "streams.encoding says how blobs are kept; streams.adopt_dir reads an existing store whatever its form",
        ),
        _ => None,
    }
}

/// Upstream names that tune a broker, a cache or a library that does not exist here, or a feature that comes later.
const TUNING: [&str; 12] = [
    "DP__EVENTS__KAFKA__",
    "DP__EVENTS__REDIS__",
    "DP__EVENTS__REPROCESS__",
    "DP__EVENTS__LOST_TASKS_",
    "DP__EVENTS__OLD_CONSUMER_GROUP_",
    "DP__EVENTS__MAX_CONSUMED_EVENTS_PER_CONSUMER",
    "DP__EVENTS__ENABLE_EXTENDED_KAFKA_METRICS",
    "DP__STREAMS__CACHE__",
    "DP__STREAMS__FCACHE__",
    "DP__STREAMS__S3__",
    "DP__STREAMS__AZURE__",
    "BED__",
];

/// Variables without effect, told in one line per kind.
#[derive(Default)]
struct Unused {
    tuning: Vec<String>,
    unknown: Vec<String>,
    obsolete: Vec<String>,
}

impl Unused {
    fn report(self, warnings: &mut Vec<String>) {
        let mut tell = |names: Vec<String>, why: &str| {
            if !names.is_empty() {
                warnings.push(format!("{why}: {}", names.join(", ")));
            }
        };
        tell(self.tuning, "variables of the upstream service that have no effect here");
        tell(self.unknown, "unknown variables");
        tell(self.obsolete, "obsolete variables of the upstream service, not read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> FromEnvironment {
        read(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn settings(found: &FromEnvironment) -> Vec<(String, String)> {
        found.settings.iter().map(|setting| (setting.key.to_string(), setting.shown())).collect()
    }

    #[test]
    fn the_dotted_form_comes_before_the_underscore_form() {
        let found = from(&[("DP__EVENTS__KAFKA__TOPIC_PREFIX", "under"), ("DP.Events.Kafka.Topic_Prefix", "dotted")]);
        let key = "events.topic_prefix".to_owned();
        assert_eq!(settings(&found), [(key.clone(), "\"dotted\"".to_owned()), (key, "\"under\"".to_owned())]);
    }

    #[test]
    fn upstream_values_are_put_in_our_terms() {
        for (name, value, shown) in [
            ("DP__EVENTS__API_DEFAULT_EVENT_WAIT", "7", "\"7s\""),
            ("DP__EVENTS__KAFKA__MESSAGE_MAX_BYTES", "1.5Gi", "\"1Gi\""),
            ("DP__EVENTS__DEDUPE_CACHE_BYTES", "64Mi", "\"64Mi\""),
            ("DP__EVENTS__REPLAY_PLUGIN_CACHE__TTL_SECONDS", "60", "\"60s\""),
            ("DP__STREAMS__API_ALLOW_DELETE", "1", "\"true\""),
            ("BED__LOG_LEVEL", "WARN", "\"warn\""),
            ("BED__LOG_PRETTY", "false", "\"json\""),
        ] {
            let found = from(&[(name, value)]);
            assert_eq!(found.settings.first().map(Setting::shown).as_deref(), Some(shown), "{name}");
        }
    }

    #[test]
    fn obsolete_names_are_told_with_what_to_use() {
        let found = from(&[("DISPATCHER_KAFKA_ENDPOINT", "x"), ("DISPATCHER_TOPICS_YAML", "x"), ("DISPATCHER_X", "x")]);
        let expected = "DISPATCHER_KAFKA_ENDPOINT (which has become DP__EVENTS__KAFKA__ENDPOINT, and that has no effect \
                        here), DISPATCHER_TOPICS_YAML (use DP__EVENTS__TOPICS), DISPATCHER_X (which has no successor)";
        assert_eq!(found.warnings.len(), 1);
        assert!(found.warnings[0].ends_with(expected), "{:?}", found.warnings);
    }

    #[test]
    fn replicas_above_one_are_told_and_nonsense_is_refused() {
        let replicas = |value: &str| {
            let found = from(&[("DP__EVENTS__GLOBAL_REPLICA_COUNT", value)]);
            (found.warnings.len(), found.problems.len())
        };
        assert_eq!(["1", "3", "0", "many"].map(replicas), [(0, 0), (1, 0), (0, 1), (0, 1)]);
    }

    #[test]
    fn remote_stores_and_encryption_are_refused_without_showing_secrets() {
        let found = from(&[
            ("DP__STREAMS__BACKEND", "s3"),
            ("DP__STREAMS__S3__SECRET_KEY", "hunter2"),
            ("DP__STREAMS__AES_ENABLED", "readonly"),
        ]);
        assert_eq!(found.problems.len(), 3);
        assert!(!format!("{:?}", found.problems).contains("hunter2"));
    }

    #[test]
    fn tuning_is_one_warning_line_and_unknown_names_another() {
        let found = from(&[
            ("DP__EVENTS__REDIS__PASSWORD", "hunter2"),
            ("DP__EVENTS__KAFKA__ENDPOINT", "broker:9092"),
            ("DP__NONSENSE", "1"),
            ("DISPATCHER_KAFKA_ENDPOINT", "x"),
        ]);
        assert_eq!(found.warnings.len(), 3, "{:?}", found.warnings);
        assert!(found.warnings[0].ends_with("DP__EVENTS__KAFKA__ENDPOINT, DP__EVENTS__REDIS__PASSWORD"));
        assert!(!found.warnings.concat().contains("hunter2"));
    }

    #[test]
    fn a_setting_that_lacks_an_underscore_is_refused_and_other_names_are_not_ours() {
        let found = from(&[("AZULITE_HTTP_LISTEN", "x"), ("AZULITE_BIN", "x"), ("AZULITE_SEED", "1")]);
        let problems: Vec<_> = found.problems.iter().map(|problem| problem.origin.to_string()).collect();
        assert_eq!(
            (problems.as_slice(), found.settings.len()),
            (&["environment AZULITE_HTTP_LISTEN".to_owned()][..], 0)
        );
    }

    #[test]
    fn the_sections_are_those_of_the_configuration() {
        let config = serde_json::to_value(super::super::Config::default()).unwrap();
        let mut known: Vec<_> = SECTIONS.to_vec();
        known.sort_unstable();
        let mut sections: Vec<_> = config.as_object().unwrap().keys().map(String::as_str).collect();
        sections.sort_unstable();
        assert_eq!(sections, known);
    }

    #[test]
    fn a_source_name_is_taken_as_written() {
        let found = from(&[("AZULITE_SOURCES__Ab-c__EXPIRE_EVENTS_AFTER", "2 days")]);
        assert_eq!(found.settings[0].key.to_string(), "sources.Ab-c.expire_events_after");
        let found = from(&[("AZULITE_TOPICS__x__CONFIG__RETENTION__MS", "5")]);
        assert_eq!(found.settings[0].key.to_string(), "topics.x.config.\"retention.ms\"");
    }
}
