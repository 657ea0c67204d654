//! Ranges of single values, and settings that contradict each other.
//!
//! Runs on the merged configuration, so that only what will be used is judged.

use super::layer::{KeyPath, Origin};
use super::problem::Problem;
use super::topics::{TopicSettings, name_problem, topic_config_problem};
use super::units::{format_duration, format_size};
use super::{Config, Delivery, Origins};
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

const KI: u64 = 1 << 10;
const MI: u64 = 1 << 20;
const GI: u64 = 1 << 30;
const TI: u64 = 1 << 40;
const SECOND: u64 = 1_000;
const DAY: u64 = 86_400_000;

/// Longest source name (`design.md` point 16), and room enough for it in Kafka's 249 characters.
const SOURCE_NAME_MAX: usize = 120;
const TOPIC_PREFIX_MAX: usize = 64;
const TOPIC_NAME_MAX: usize = 170;
const PARTITIONS_MAX: u64 = 1_000;
const ATTEMPTS_MAX: u64 = 1_000;
/// What a delay is multiplied with at most.
const BACKOFF_MAX: f64 = 1_000.0;

#[derive(Clone, Copy)]
enum Unit {
    Count,
    Size,
    Duration,
}

/// What one number may be.
struct Range {
    key: &'static str,
    unit: Unit,
    least: u64,
    most: u64,
    of: fn(&Config) -> u64,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most, .. } = *self;
        match self.unit {
            Unit::Count => write!(f, "a whole number from {least} to {most}"),
            Unit::Size => {
                let (least, most) = (format_size(least), format_size(most));
                write!(f, "a size from {least} to {most}, written like 4096, 64Ki or 2MB")
            }
            Unit::Duration => {
                let [least, most] = [least, most].map(|ms| format_duration(Duration::from_millis(ms)));
                write!(f, "a duration from {least} to {most}, written like 250ms, 5s, 30m, 12h or 7d")
            }
        }
    }
}

const fn count(key: &'static str, least: u64, most: u64, of: fn(&Config) -> u64) -> Range {
    Range { key, unit: Unit::Count, least, most, of }
}

const fn size(key: &'static str, least: u64, most: u64, of: fn(&Config) -> u64) -> Range {
    Range { key, unit: Unit::Size, least, most, of }
}

const fn duration(key: &'static str, least: u64, most: u64, of: fn(&Config) -> u64) -> Range {
    Range { key, unit: Unit::Duration, least, most, of }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const RANGES: [Range; 62] = [
    count("http.max_connections", 1, 65_535, |c| c.http.max_connections.into()),
    size("http.max_header_bytes", 8 * KI, MI, |c| c.http.max_header_bytes),
    duration("http.header_timeout", 100, 600 * SECOND, |c| ms(c.http.header_timeout)),
    duration("http.idle_timeout", SECOND, DAY, |c| ms(c.http.idle_timeout)),
    duration("http.write_timeout", SECOND, DAY, |c| ms(c.http.write_timeout)),
    duration("http.drain_timeout", 0, 600 * SECOND, |c| ms(c.http.drain_timeout)),
    size("http.max_event_body", KI, 4 * GI, |c| c.http.max_event_body),
    count("kafka.max_connections", 1, 65_535, |c| c.kafka.max_connections.into()),
    size("kafka.max_request_bytes", MI, GI, |c| c.kafka.max_request_bytes),
    size("kafka.request_memory", MI, 64 * GI, |c| c.kafka.request_memory),
    size("kafka.fetch_max_bytes", MI, GI, |c| c.kafka.fetch_max_bytes),
    size("kafka.fetch_memory", MI, 64 * GI, |c| c.kafka.fetch_memory),
    duration("kafka.idle_timeout", SECOND, 30 * DAY, |c| ms(c.kafka.idle_timeout)),
    count("kafka.num_partitions", 1, PARTITIONS_MAX, |c| c.kafka.num_partitions.into()),
    duration("kafka.group_initial_rebalance_delay", 0, 300 * SECOND, |c| ms(c.kafka.group_initial_rebalance_delay)),
    duration("kafka.offsets_retention", 60 * SECOND, 36_500 * DAY, |c| ms(c.kafka.offsets_retention)),
    size("storage.segment_bytes", MI, GI, |c| c.storage.segment_bytes),
    size("storage.commit_bytes", 64 * KI, 512 * MI, |c| c.storage.commit_bytes),
    size("storage.queue_bytes", 64 * KI, 64 * GI, |c| c.storage.queue_bytes),
    duration("storage.retention_check_interval", 100, 7 * DAY, |c| ms(c.storage.retention_check_interval)),
    duration("storage.clean_interval", 100, DAY, |c| ms(c.storage.clean_interval)),
    size("storage.clean_bytes_per_second", MI, TI, |c| c.storage.clean_bytes_per_second),
    size("storage.cache_bytes", 0, TI, |c| c.storage.cache_bytes),
    count("events.partition_count", 1, PARTITIONS_MAX, |c| c.events.partition_count.into()),
    count("events.api_event_fetch_limit", 1, 1_000_000, |c| c.events.api_event_fetch_limit.into()),
    duration("events.api_default_event_wait", 0, 3_600 * SECOND, |c| ms(c.events.api_default_event_wait)),
    size("events.message_max_bytes", 1, 256 * MI, |c| c.events.message_max_bytes),
    size("events.max_fetch_bytes", MI, 4 * GI, |c| c.events.max_fetch_bytes),
    size("events.fetch_memory", MI, 64 * GI, |c| c.events.fetch_memory),
    count("events.consumer_group_retention_days", 1, 36_500, |c| c.events.consumer_group_retention_days.into()),
    duration("events.reader_idle", 60 * SECOND, 365 * DAY, |c| ms(c.events.reader_idle)),
    count("events.historic_share", 0, 1_000_000, |c| c.events.historic_share.into()),
    size("events.dedupe_cache_bytes", 0, 4 * GI, |c| c.events.dedupe_cache_bytes),
    size("events.replay_plugin_cache.size_bytes", 0, 64 * GI, |c| c.events.replay_plugin_cache.size_bytes),
    duration("events.replay_plugin_cache.ttl", SECOND, 365 * DAY, |c| ms(c.events.replay_plugin_cache.ttl)),
    duration("events.replay_plugin_cache.min_runtime", 0, DAY, |c| ms(c.events.replay_plugin_cache.min_runtime)),
    duration("delivery.lease", 1, 365 * DAY, |c| ms(c.delivery.lease)),
    duration("delivery.lease_max", 1, 365 * DAY, |c| ms(c.delivery.lease_max)),
    count("delivery.max_attempts", 0, ATTEMPTS_MAX, |c| c.delivery.max_attempts.into()),
    duration("delivery.retry_delay", 0, 365 * DAY, |c| ms(c.delivery.retry_delay)),
    duration("delivery.retry_delay_max", 0, 365 * DAY, |c| ms(c.delivery.retry_delay_max)),
    duration("events.lost_tasks_check", 1, DAY, |c| ms(c.events.lost_tasks_check)),
    duration("dead_letter.keep", 0, 36_500 * DAY, |c| ms(c.dead_letter.keep)),
    count("dead_letter.warn_per_hour", 0, 1_000_000_000, |c| c.dead_letter.warn_per_hour.into()),
    size("streams.max_upload_bytes", 0, 1_024 * TI, |c| c.streams.max_upload_bytes),
    size("streams.inline_threshold", 0, MI, |c| c.streams.inline_threshold),
    count("streams.max_uploads", 1, 65_535, |c| c.streams.max_uploads.into()),
    count("identify.jobs", 0, 1_024, |c| c.identify.jobs.into()),
    size("identify.content_max_bytes", 0, GI, |c| c.identify.content_max_bytes),
    duration("workers.shutdown_grace", 0, 3_600 * SECOND, |c| ms(c.workers.shutdown_grace)),
    count("workers.yara.bulk_size", 1, 1_000, |c| c.workers.yara.bulk_size.into()),
    duration("workers.yara.load_interval", SECOND, 3_600 * SECOND, |c| ms(c.workers.yara.load_interval)),
    count("workers.yara.threads", 0, 256, |c| c.workers.yara.threads.into()),
    size("workers.yara.max_scan_size", 1, 4 * GI, |c| c.workers.yara.max_scan_size),
    duration("workers.yara.file_timeout", 100, 3_600 * SECOND, |c| ms(c.workers.yara.file_timeout)),
    duration("workers.yara.job_timeout", SECOND, DAY, |c| ms(c.workers.yara.job_timeout)),
    duration("workers.yara.reload_settle", 0, 3_600 * SECOND, |c| ms(c.workers.yara.reload_settle)),
    size("workers.yara.max_total_expanded", MI, TI, |c| c.workers.yara.max_total_expanded),
    count("workers.yara.max_members", 1, 10_000_000, |c| c.workers.yara.max_members),
    count("workers.yara.max_ratio", 2, 1_000_000, |c| c.workers.yara.max_ratio),
    count("workers.crits.max_attempts", 0, ATTEMPTS_MAX, |c| c.workers.crits.max_attempts.into()),
    duration("workers.crits.retry_delay", 0, 365 * DAY, |c| ms(c.workers.crits.retry_delay)),
];

/// What the number `key` may be, for a message.
pub(super) fn range_of(key: &str) -> Option<String> {
    RANGES.iter().find(|range| range.key == key).map(Range::to_string)
}

/// Gathers what is wrong with the values of `config`. Keys in `refused` have no value of their own any more, so
/// nothing is said about how they fit to others.
pub(super) fn check(config: &Config, origins: &Origins, refused: &BTreeSet<KeyPath>) -> Vec<Problem> {
    let mut report = Report { origins, refused, problems: Vec::new() };
    for range in &RANGES {
        let value = (range.of)(config);
        if !(range.least..=range.most).contains(&value) {
            report.value(&KeyPath::of(range.key), &shown(range.unit, value), &format!("allowed is {range}"));
        }
    }
    check_names(config, &mut report);
    check_listeners(config, &mut report);
    check_sizes(config, &mut report);
    for (key, value, message) in super::security::mistakes(&config.security) {
        report.value(&KeyPath::of(key), &value, &message);
    }
    for (key, value, message) in super::workers::mistakes(&config.workers) {
        // An item of a list is where the list is.
        let list = key.split('[').next().unwrap_or_default();
        let origin = origins.of(&KeyPath::of(list)).clone();
        report.problems.push(Problem { origin, key, value, message });
    }
    report.problems
}

fn shown(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Count => value.to_string(),
        Unit::Size => format!("{:?}", format_size(value)),
        Unit::Duration => format!("{:?}", format_duration(Duration::from_millis(value))),
    }
}

struct Report<'a> {
    origins: &'a Origins,
    refused: &'a BTreeSet<KeyPath>,
    problems: Vec<Problem>,
}

impl Report<'_> {
    fn value(&mut self, key: &KeyPath, value: &str, message: &str) {
        let origin = self.origins.of(key).clone();
        let (key, value, message) = (key.to_string(), value.to_owned(), message.to_owned());
        self.problems.push(Problem { origin, key, value, message });
    }

    /// Two settings that contradict each other; the place is that of the one somebody gave.
    fn pair(&mut self, first: (&str, String), second: (&str, String), message: &str) {
        let keys = [KeyPath::of(first.0), KeyPath::of(second.0)];
        if keys.iter().any(|key| self.refused.contains(key)) {
            return;
        }
        let [one, other] = keys.each_ref().map(|key| self.origins.of(key));
        let (blamed, value, (fixed, fixed_value), at) =
            if *one == Origin::Default { (&keys[1], second.1, first, one) } else { (&keys[0], first.1, second, other) };
        self.value(blamed, &value, &format!("contradicts {fixed} = {fixed_value} ({at}): {message}"));
    }
}

fn check_names(config: &Config, report: &mut Report<'_>) {
    let prefix = &config.events.topic_prefix;
    if let Some(allowed) = name_problem(prefix, TOPIC_PREFIX_MAX) {
        report.value(&KeyPath::of("events.topic_prefix"), &format!("{prefix:?}"), &format!("allowed is {allowed}"));
    }
    let previous = &config.reprocess.previous_prefix;
    if let Some(allowed) = name_problem(previous, TOPIC_PREFIX_MAX).filter(|_| !previous.is_empty()) {
        report.value(
            &KeyPath::of("reprocess.previous_prefix"),
            &format!("{previous:?}"),
            &format!("allowed is {allowed}"),
        );
    }
    if config.reprocess.include_system.iter().any(String::is_empty) {
        let shown = serde_json::Value::from(config.reprocess.include_system.clone()).to_string();
        report.value(&KeyPath::of("reprocess.include_system"), &shown, "allowed are names that are not empty");
    }
    if config.storage.data_dir.as_os_str().is_empty() {
        report.value(&KeyPath::of("storage.data_dir"), "\"\"", "allowed is the path of a directory");
    }
    check_backoff(KeyPath::of("delivery.retry_backoff"), config.delivery.retry_backoff, report);
    for (name, consumer) in &config.consumers {
        check_consumer(name, &consumer.over(&config.delivery), report);
    }
    for (name, source) in &config.sources {
        let path = vec!["sources".to_owned(), name.clone()];
        check_name(path.clone(), name, SOURCE_NAME_MAX, report);
        if name.contains('.') {
            let key = KeyPath::new(path.clone());
            report.value(
                &key,
                "{ .. }",
                "a source name may not hold a dot: consumers match sources up to the next dot",
            );
        }
        check_topic([path, vec!["kafka".to_owned()]].concat(), &source.kafka, report);
    }
    for (name, topic) in &config.topics {
        let path = vec!["topics".to_owned(), name.clone()];
        check_name(path.clone(), name, TOPIC_NAME_MAX, report);
        check_topic(path, topic, report);
    }
}

/// What `[delivery]` may be, every consumer may.
fn check_consumer(name: &str, delivery: &Delivery, report: &mut Report<'_>) {
    let key = |key: &str| KeyPath::new(vec!["consumers".to_owned(), name.to_owned(), key.to_owned()]);
    let own = Config { delivery: delivery.clone(), ..Config::default() };
    for range in RANGES.iter().filter_map(|range| Some((range, range.key.strip_prefix("delivery.")?))) {
        let (value, (range, name)) = ((range.0.of)(&own), range);
        if !(range.least..=range.most).contains(&value) {
            report.value(&key(name), &shown(range.unit, value), &format!("allowed is {range}"));
        }
    }
    check_backoff(key("retry_backoff"), delivery.retry_backoff, report);
}

fn check_backoff(key: KeyPath, backoff: f64, report: &mut Report<'_>) {
    if !(1.0..=BACKOFF_MAX).contains(&backoff) {
        report.value(&key, &backoff.to_string(), &format!("allowed is a number from 1.0 to {BACKOFF_MAX:?}"));
    }
}

fn check_name(path: Vec<String>, name: &str, max_length: usize, report: &mut Report<'_>) {
    if let Some(allowed) = name_problem(name, max_length) {
        let key = KeyPath::new(path);
        report.value(&key, "{ .. }", &format!("a name may be {allowed}"));
    }
}

fn check_topic(path: Vec<String>, topic: &TopicSettings, report: &mut Report<'_>) {
    if u64::from(topic.numpartitions) > PARTITIONS_MAX {
        let key = KeyPath::new([path.clone(), vec!["numpartitions".to_owned()]].concat());
        let allowed = format!("allowed is a whole number from 0 to {PARTITIONS_MAX}; 0 is events.partition_count");
        report.value(&key, &topic.numpartitions.to_string(), &allowed);
    }
    for (name, value) in &topic.config {
        if let Some(allowed) = topic_config_problem(name, value) {
            let key = KeyPath::new([path.clone(), vec!["config".to_owned(), name.clone()]].concat());
            report.value(&key, &format!("{value:?}"), &format!("allowed is {allowed}"));
        }
    }
}

fn check_listeners(config: &Config, report: &mut Report<'_>) {
    let http = config.http.listen;
    if !http.ip().is_loopback() && !config.http.allow_insecure {
        let message = "this version has no authentication and no TLS, so that it listens beyond loopback only when \
                       http.allow_insecure = true says that this is meant";
        let (listen, allow) = (format!("{:?}", http.to_string()), "false".to_owned());
        report.pair(("http.listen", listen), ("http.allow_insecure", allow), message);
    }
    let Some(kafka) = config.kafka.listen.address() else { return };
    let listen = || ("kafka.listen", format!("{:?}", kafka.to_string()));
    if !kafka.ip().is_loopback() && !config.kafka.allow_insecure {
        let message = "this version has no authentication and no TLS, so that it listens beyond loopback only when \
                       kafka.allow_insecure = true says that this is meant";
        report.pair(listen(), ("kafka.allow_insecure", "false".to_owned()), message);
    }
    if overlap(http, kafka) {
        let http = format!("{:?}", http.to_string());
        report.pair(("http.listen", http), listen(), "two listeners cannot share an address");
    }
    if !config.kafka.advertised.is_empty() && config.kafka.advertised().is_none() {
        let (key, value) = (KeyPath::of("kafka.advertised"), format!("{:?}", config.kafka.advertised));
        report.value(&key, &value, "allowed is host:port, where the host is not 0.0.0.0 or [::], or nothing");
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (everywhere || one.ip() == other.ip())
}

fn check_sizes(config: &Config, report: &mut Report<'_>) {
    let (storage, events) = (&config.storage, &config.events);
    let mut at_most = |small: (&str, u64), large: (&str, u64), message: &str| {
        if small.1 > large.1 {
            let [small_value, large_value] = [small.1, large.1].map(|bytes| shown(Unit::Size, bytes));
            report.pair((small.0, small_value), (large.0, large_value), message);
        }
    };
    let commit = ("storage.commit_bytes", storage.commit_bytes);
    let queue = ("storage.queue_bytes", storage.queue_bytes);
    let message = ("events.message_max_bytes", events.message_max_bytes);
    at_most(commit, ("storage.segment_bytes", storage.segment_bytes), "a commit never spans two segments");
    at_most(commit, queue, "a commit is filled from the queue");
    at_most(message, queue, "the largest event must fit into the queue");
    let kafka = &config.kafka;
    let answers = ("kafka.fetch_memory", kafka.fetch_memory);
    let answered = ("events.fetch_memory", config.events.fetch_memory);
    at_most(("events.max_fetch_bytes", config.events.max_fetch_bytes), answered, "the largest answer must fit");
    at_most(("kafka.fetch_max_bytes", kafka.fetch_max_bytes), answers, "the largest answer must fit");
}

/// What is allowed but deserves a line in the log.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if !config.http.listen.ip().is_loopback() {
        warnings.push(format!(
            "http.listen = \"{}\": whoever reaches this address can read and write everything, because this version has \
             no authentication and no TLS",
            config.http.listen
        ));
    }
    if let Some(kafka) = config.kafka.listen.address().filter(|address| !address.ip().is_loopback()) {
        warnings.push(format!(
            "kafka.listen = \"{kafka}\": whoever reaches this address can read and write every topic, because this \
             version has no authentication and no TLS"
        ));
    }
    if let Some(kafka) = config.kafka.listen.address().filter(|address| address.ip().is_unspecified())
        && config.kafka.advertised.is_empty()
    {
        warnings.push(format!(
            "kafka.listen = \"{kafka}\" and kafka.advertised is not set: clients are told 127.0.0.1, which is of no use on \
             other machines"
        ));
    }
    if config.workers.yara.enabled {
        let dir = config.workers.yara.rules_dir(&config.storage.data_dir);
        if let Err(error) = std::fs::metadata(&dir) {
            warnings.push(format!(
                "workers.yara.rules_dir = {:?}: {error}; the worker does nothing until there are rules",
                dir.display().to_string()
            ));
        }
    }
    for (name, source) in &config.sources {
        for overwritten in ["cleanup.policy", "retention.ms"] {
            if source.kafka.config.contains_key(overwritten) {
                warnings.push(format!(
                    "sources.{name}.kafka.config.\"{overwritten}\" has no effect: expire_events_after decides"
                ));
            }
        }
    }
    warnings
}
