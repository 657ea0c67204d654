//! Every counter, gauge and histogram the appliance shows, under the names that existing dashboards ask for.
//!
//! Made once in `serve.rs` and handed to whoever counts; `http::metrics` prints it. Names and labels: events.md 9.1 and
//! streams.md 9. Label values that come from outside are bounded: past [`MAX_SERIES`] distinct label sets of one metric
//! new ones are counted under `other`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

/// Distinct label sets one metric may have before new ones are counted under `other`.
pub const MAX_SERIES: usize = 1000;

/// Longest label value that is shown; longer ones are cut.
const MAX_LABEL_CHARS: usize = 80;

/// Buckets A of events.md 9.1, in seconds.
const BUCKETS_A: [f64; 8] = [1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0, 5.0, 10.0];
/// Buckets B of events.md 9.1, in seconds.
const BUCKETS_B: [f64; 18] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 2400.0];
/// Buckets C of events.md 9.1, in seconds; the same as those of streams.md 9.
const BUCKETS_C: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A counter whose name is shown exactly as given: the library would add `_total`, which upstream's names lack.
///
/// Its type is "unknown" to the library; `http::metrics` prints that as `counter`.
#[derive(Clone, Debug, Default)]
pub struct PlainCounter(Arc<AtomicU64>);

impl PlainCounter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes over a count that is kept elsewhere.
    pub fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TypedMetric for PlainCounter {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for PlainCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A whole number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct PlainGauge(Arc<AtomicI64>);

impl PlainGauge {
    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

impl TypedMetric for PlainGauge {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for PlainGauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.encode_gauge(&self.0.load(Ordering::Relaxed))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// What has become of the events of one consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Events handed out for the first time.
    pub taken_in: i64,
    /// Those that were completed or opted out of.
    pub finished: i64,
    /// Those under way, and those that wait for another run.
    pub waiting: i64,
    /// Those that became dead letters.
    pub dead: i64,
    /// Those that went before they were finished.
    pub deleted: i64,
}

/// An [`Account`] for each consumer, with the labels `consumer` and `state`. A change of one account is one step for
/// whoever prints them: no page shows half of it.
#[derive(Clone, Debug, Default)]
pub struct Accounts(Arc<Mutex<BTreeMap<String, Account>>>);

impl Accounts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a change, whose parts may be negative, to the account of one consumer.
    pub fn add(&self, consumer: &str, change: &Account) {
        let short = consumer.char_indices().nth(MAX_LABEL_CHARS).and_then(|(end, _)| consumer.get(..end));
        let consumer = short.unwrap_or(consumer);
        let mut accounts = self.lock();
        let known = accounts.len() < MAX_SERIES || accounts.contains_key(consumer);
        let consumer = if known { consumer } else { "other" };
        if !accounts.contains_key(consumer) {
            accounts.insert(consumer.to_owned(), Account::default());
        }
        let Some(account) = accounts.get_mut(consumer) else { return };
        account.taken_in += change.taken_in;
        account.finished += change.finished;
        account.waiting += change.waiting;
        account.dead += change.dead;
        account.deleted += change.deleted;
    }
}

impl TypedMetric for Accounts {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Accounts {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (consumer, account) in &*self.lock() {
            for (state, count) in [
                ("taken_in", account.taken_in),
                ("finished", account.finished),
                ("waiting", account.waiting),
                ("dead", account.dead),
                ("deleted", account.deleted),
            ] {
                encoder.encode_family(&[("consumer", consumer.as_str()), ("state", state)])?.encode_gauge(&count)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

type LabelSet<const N: usize> = [(&'static str, String); N];

/// Makes a histogram with fixed buckets.
#[derive(Clone, Copy, Debug)]
pub struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// One metric with `N` labels and a bounded number of series.
#[derive(Clone, Debug)]
pub struct Labelled<const N: usize, M, C = fn() -> M> {
    names: [&'static str; N],
    /// How many of the first labels hold values from outside, which become `other` when there are too many.
    outside: usize,
    series: Arc<AtomicUsize>,
    family: Family<LabelSet<N>, M, C>,
}

impl<const N: usize, M: Clone, C: MetricConstructor<M>> Labelled<N, M, C> {
    fn with(names: [&'static str; N], outside: usize, constructor: C) -> Self {
        Self { names, outside, series: Arc::default(), family: Family::new_with_constructor(constructor) }
    }

    /// The series with these label values, in the order of the label names.
    #[must_use]
    pub fn at(&self, values: [&str; N]) -> M {
        let mut index = 0;
        let mut labels = self.names.map(|name| {
            let value = values.get(index).copied().unwrap_or_default();
            index += 1;
            (name, value.chars().take(MAX_LABEL_CHARS).collect())
        });
        if let Some(known) = self.family.get(&labels) {
            return known.clone();
        }
        if self.series.fetch_add(1, Ordering::Relaxed) >= MAX_SERIES {
            labels.iter_mut().take(self.outside).for_each(|label| "other".clone_into(&mut label.1));
        }
        self.family.get_or_create_owned(&labels)
    }

    /// Forgets all series, for labels that name what comes and goes.
    pub fn clear(&self) {
        self.family.clear();
        self.series.store(0, Ordering::Relaxed);
    }
}

/// Counters by `N` labels.
pub type Counters<const N: usize> = Labelled<N, PlainCounter>;
/// Gauges by `N` labels.
pub type Gauges<const N: usize> = Labelled<N, PlainGauge>;
/// Histograms of seconds by `N` labels.
pub type Histograms<const N: usize> = Labelled<N, Histogram, Buckets>;

impl<const N: usize> Counters<N> {
    /// Adds one to the series.
    pub fn inc(&self, values: [&str; N]) {
        self.at(values).inc();
    }

    /// Adds `n` to the series; nothing happens for 0.
    pub fn add(&self, values: [&str; N], n: u64) {
        if n > 0 {
            self.at(values).add(n);
        }
    }
}

impl<const N: usize> Histograms<N> {
    /// Notes how long something took.
    pub fn observe(&self, values: [&str; N], took: Duration) {
        self.at(values).observe(took.as_secs_f64());
    }
}

/// Registers metrics one after another.
struct Register(Registry);

impl Register {
    fn counter(&mut self, name: &'static str, help: &'static str) -> PlainCounter {
        let metric = PlainCounter::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        outside: usize,
    ) -> Counters<N> {
        let metric = Counters::with(labels, outside, PlainCounter::default);
        self.0.register(name, help, metric.family.clone());
        metric
    }

    fn accounts(&mut self, name: &'static str, help: &'static str) -> Accounts {
        let metric = Accounts::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn gauge(&mut self, name: &'static str, help: &'static str) -> PlainGauge {
        let metric = PlainGauge::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn gauges<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        outside: usize,
    ) -> Gauges<N> {
        let metric = Gauges::with(labels, outside, PlainGauge::default);
        self.0.register(name, help, metric.family.clone());
        metric
    }

    fn histograms<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        outside: usize,
        buckets: &'static [f64],
    ) -> Histograms<N> {
        let metric = Histograms::with(labels, outside, Buckets(buckets));
        self.0.register(name, help, metric.family.clone());
        metric
    }
}

/// Declares the struct and its registration in one list, so that a metric cannot have the one and lack the other.
macro_rules! metrics {
    ($( $field:ident: $type:ty = $name:literal, $help:literal, $make:ident $args:tt; )*) => {
        /// Handles of all metrics; fields carry the exposed names without their `dispatcher_` prefix.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $( #[doc = concat!("`", $name, "`: ", $help, ".")] pub $field: $type, )*
        }

        impl Metrics {
            /// All metrics at zero.
            #[must_use]
            pub fn new() -> Self {
                let mut register = Register(Registry::default());
                $( let $field = metrics!(@make register, $make, $name, $help, $args); )*
                Self { registry: register.0, $($field,)* }
            }
        }
    };
    (@make $register:ident, $make:ident, $name:literal, $help:literal, ($($arg:expr),*)) => {
        $register.$make($name, $help $(, $arg)*)
    };
}

metrics! {
    event_fetch_requests: Counters<2> = "dispatcher_event_fetch_requests_total", "Fetches that reached a reader",
        counters(["plugin", "entity"], 1);
    events_fetched: Counters<2> = "dispatcher_events_fetched_total", "Events handed out", counters(["plugin", "entity"], 1);
    events_filtered: Counters<2> = "dispatcher_events_filtered_total", "Events dropped on reading",
        counters(["plugin", "entity"], 1);
    consume_duration: Histograms<1> = "dispatcher_events_consume_duration", "Seconds per stage of a fetch",
        histograms(["stage"], 0, &BUCKETS_A);
    consume_pipelines_duration: Histograms<1> = "dispatcher_events_consume_pipelines_duration",
        "Seconds per filter pass on reading", histograms(["pipeline"], 0, &BUCKETS_A);
    consume_pipelines_removed: Counters<1> = "dispatcher_events_consume_pipelines_removed",
        "Events dropped per filter on reading", counters(["pipeline"], 0);
    consume_pipelines_error: Counters<1> = "dispatcher_events_consume_pipelines_error",
        "Failures per filter on reading", counters(["pipeline"], 0);
    consume_not_ready: Gauges<2> = "dispatcher_events_consume_not_ready", "Subscriptions that cannot be read",
        gauges(["plugin", "version"], 2);
    events_published: Counters<2> = "dispatcher_events_published_total", "Events stored", counters(["plugin", "entity"], 1);
    status_published: Counters<2> = "dispatcher_events_status_published", "Statuses stored, by author and status",
        counters(["plugin", "status"], 2);
    produce_duration: Histograms<1> = "dispatcher_events_produce_duration", "Seconds per stage of a publish",
        histograms(["stage"], 0, &BUCKETS_A);
    produce_pipelines_duration: Histograms<1> = "dispatcher_events_produce_pipelines_duration",
        "Seconds per stage pass on publishing", histograms(["pipeline"], 0, &BUCKETS_A);
    produce_pipelines_removed: Counters<1> = "dispatcher_events_produce_pipelines_removed",
        "Events dropped per stage on publishing", counters(["pipeline"], 0);
    produce_pipelines_added: Counters<1> = "dispatcher_events_produce_pipelines_added",
        "Events added per stage on publishing", counters(["pipeline"], 0);
    produce_pipelines_error: Counters<1> = "dispatcher_events_produce_pipelines_error",
        "Failures per stage on publishing", counters(["pipeline"], 0);
    produce_bad_version: Counters<3> = "dispatcher_events_produce_bad_version", "Publishes refused for an event's version",
        counters(["entity", "version", "author"], 3);
    tracking: Gauges<1> = "dispatcher_events_redis_tracking", "Open tasks", gauges(["origin"], 0);
    tracking_control: Counters<1> = "dispatcher_events_redis_tracking_control", "Changes of open tasks",
        counters(["origin"], 0);
    ledger: Accounts = "azulite_ledger", "Events of active consumers: taken in, and what has become of them", accounts();
    leases: PlainGauge = "azulite_leases", "Events that active consumers work on", gauge();
    lease_expired: PlainCounter = "azulite_lease_expired_total", "Leases that ended without a status", counter();
    retries: Counters<1> = "azulite_retries_total", "Failed runs that another one follows", counters(["consumer"], 1);
    kafka_produced_bytes: Gauges<1> = "dispatcher_kafka_produced_message_bytes_total", "Bytes appended per topic",
        gauges(["topic"], 1);
    kafka_produced_errors: Counters<1> = "dispatcher_kafka_produced_message_error_total",
        "Events that could not be appended", counters(["topic"], 1);
    kafka_consumed_bytes: Gauges<3> = "dispatcher_kafka_consumed_message_bytes_total",
        "Bytes read by what follows topics within the process", gauges(["name", "group", "topic"], 0);
    kafka_rebalances: Counters<2> = "dispatcher_kafka_rebalance_count", "Rebalances", counters(["name", "group"], 2);
    dedupe_lookups: PlainCounter = "dispatcher_dedupe_lookups_total", "Look-ups of the duplicate filter", counter();
    dedupe_hits: PlainCounter = "dispatcher_dedupe_hits_total", "Duplicates found", counter();
    dedupe_collisions: PlainCounter = "dispatcher_dedupe_collisions_total", "Slots of the duplicate filter overwritten",
        counter();
    replay_hits: Gauges<1> = "dispatcher_replay_cache_hit_count", "Results answered from earlier runs",
        gauges(["name"], 1);
    replay_seconds: Gauges<1> = "dispatcher_replay_cache_hit_seconds", "Seconds of plugin time saved", gauges(["name"], 1);
    reprocessor_events: Counters<1> = "reprocessor_event_count", "Events copied from a previous prefix",
        counters(["source_topic"], 1);
    reprocessor_eof: Gauges<1> = "reprocessor_eof", "1 for topics of a previous prefix that are copied to their end",
        gauges(["source_topic"], 1);
    processing_time: Histograms<1> = "dispatcher_processing_time_seconds", "Run time of completed tasks",
        histograms(["publisher"], 1, &BUCKETS_B);
    restapi_time: Histograms<2> = "dispatcher_restapi_time_seconds", "Seconds per request",
        histograms(["method", "path"], 0, &BUCKETS_C);
    restapi_codes: Counters<3> = "dispatcher_restapi_response_codes", "Requests by status code",
        counters(["method", "path", "code"], 0);
    log_lines_dropped: Counters<1> = "azulite_log_lines_dropped_total", "Lines of log files that were not written",
        counters(["file"], 0);
    data_exist_requests: PlainCounter = "dispatcher_data_exist_requests_total", "Existence tests of blobs", counter();
    data_upload_requests: PlainCounter = "dispatcher_data_upload_requests_total", "Uploads", counter();
    data_uploaded_bytes: PlainCounter = "dispatcher_data_uploaded_bytes_total", "Bytes of stored uploads", counter();
    data_download_requests: PlainCounter = "dispatcher_data_download_requests_total", "Downloads", counter();
    data_downloaded_bytes: PlainCounter = "dispatcher_data_downloaded_bytes_total", "Bytes handed to downloads", counter();
    data_delete_requests: PlainCounter = "dispatcher_data_delete_requests_total", "Deletions asked for", counter();
    metadata_requests: PlainCounter = "dispatcher_metadata_requests_total", "Never counted, as upstream", counter();
    data_cache_lookups: PlainCounter = "dispatcher_data_cache_lookups_total", "Look-ups of the blob cache", counter();
    data_cache_hits: PlainCounter = "dispatcher_data_cache_hits_total", "Hits of the blob cache", counter();
    waiting_readers: PlainGauge = "azulite_waiting_readers", "Requests that wait for something to read", gauge();
    log_read_bytes: PlainCounter = "azulite_log_read_bytes_total", "Bytes of record batches read from the log", counter();
    blobs_aged_off: Counters<1> = "azulite_blobs_aged_off_total", "Names of blobs that outlived their source's events",
        counters(["source"], 0);
    log_sync: Histograms<0> = "azulite_log_sync_seconds", "Seconds that syncs of the log took", histograms([], 0, &BUCKETS_A);
    store_bytes: Gauges<1> = "azulite_store_bytes", "Bytes of the files of the log, the index and the blob catalogue",
        gauges(["part"], 0);
    disk_free_bytes: PlainGauge = "azulite_disk_free_bytes", "Bytes free on the file system of the store", gauge();
    identify_fail: Counters<2> = "dispatcher_identify_fail", "Files whose format stayed unknown",
        counters(["mime", "magic"], 2);
    identify_content: Counters<1> = "azulite_identify_content_total",
        "Files looked through by the content rules, by what came of it: type, nothing, skipped for their size, failed",
        counters(["result"], 0);
    identify_disputed: PlainCounter = "azulite_identify_disputed_total",
        "Files that a second, independent identification calls something else", counter();
    purge_orders: Gauges<1> = "azulite_purge_orders", "What the deletion filter looks for, by kind", gauges(["kind"], 0);
    manual_inserts: Gauges<1> = "azulite_manual_inserts", "Inserts that wait for their parents, and those parents",
        gauges(["kind"], 0);
    followed_errors: Counters<2> = "azulite_followed_errors_total",
        "Records of the delete and insert topics that could not be used", counters(["topic", "reason"], 0);
    purge_tombstones: Counters<1> = "azulite_purge_tombstones_total",
        "Tombstones for purged events, by what became of them", counters(["result"], 0);
    dead_letters: Gauges<2> = "azulite_dead_letters",
        "Events that a consumer gave up, by the status of the last attempt; `requeued` for those put back",
        gauges(["consumer", "status"], 2);
    dead_letter_file_errors: PlainCounter = "azulite_dead_letter_file_errors_total",
        "Tries to write or remove the file of a dead letter that failed", counter();
    worker_jobs: Counters<2> = "azulite_worker_jobs_total", "Jobs of built-in workers by how they ended",
        counters(["worker", "status"], 0);
    worker_job_time: Histograms<1> = "azulite_worker_job_seconds", "Seconds from the lease of a job to its end",
        histograms(["worker"], 0, &BUCKETS_B);
    yara_rules: Gauges<0> = "azulite_yara_rules", "YARA rules in use", gauges([], 0);
    yara_rule_files: Gauges<1> = "azulite_yara_rule_files", "YARA rule files in use and left out", gauges(["state"], 0);
    yara_rule_file_left_out: Gauges<1> = "azulite_yara_rule_file_left_out",
        "1 for each YARA rule file that is left out; the first 100 of them", gauges(["file"], 1);
    yara_reload_failed: Gauges<0> = "azulite_yara_reload_failed", "1 when the last reload of YARA rules changed nothing",
        gauges([], 0);
    worker_in_flight: Gauges<1> = "azulite_worker_in_flight", "Jobs that built-in workers have taken and not ended",
        gauges(["worker"], 0);
    worker_up: Gauges<1> = "azulite_worker_up", "1 for built-in workers that can work, 0 for those that are down or stop",
        gauges(["worker"], 0);
    worker_stage_in_flight: Gauges<2> = "azulite_worker_stage_in_flight", "Items in each stage of built-in workers",
        gauges(["worker", "stage"], 0);
    worker_stage_runs: Counters<3> = "azulite_worker_stage_runs_total",
        "Runs of each stage of built-in workers by how they ended", counters(["worker", "stage", "status"], 0);
    streams_op_duration: Histograms<2> = "dispatcher_streams_op_duration", "Seconds per operation of the blob store",
        histograms(["method", "result"], 0, &BUCKETS_C);
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything that is registered, for printing.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_limit_outside_values_become_other_and_known_ones_go_on() {
        let metrics = Metrics::new();
        for plugin in 0..MAX_SERIES + 50 {
            metrics.events_fetched.add([&plugin.to_string(), "binary"], 1);
        }
        metrics.events_fetched.add(["7", "binary"], 1);
        assert_eq!(metrics.events_fetched.at(["7", "binary"]).get(), 2);
        assert_eq!(metrics.events_fetched.at(["other", "binary"]).get(), 50);
    }

    #[test]
    fn an_account_is_shown_whole_and_accounts_are_bounded() {
        let metrics = Metrics::new();
        for consumer in 0..MAX_SERIES + 50 {
            metrics.ledger.add(&consumer.to_string(), &Account { taken_in: 2, waiting: 2, ..Account::default() });
        }
        metrics.ledger.add("7", &Account { finished: 1, waiting: -1, ..Account::default() });
        let mut page = String::new();
        prometheus_client::encoding::text::encode_registry(&mut page, metrics.registry()).unwrap();
        let of = |consumer: &str| {
            let start = format!("azulite_ledger{{consumer=\"{consumer}\",state=");
            page.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of("7").join(" "), r#""taken_in"} 2 "finished"} 1 "waiting"} 1 "dead"} 0 "deleted"} 0"#);
        assert_eq!(of("other").first().map(String::as_str), Some(r#""taken_in"} 100"#));
    }

    #[test]
    fn every_scrape_while_jobs_end_is_one_moment() {
        let metrics = Metrics::new();
        let (jobs, done) = (20_000, std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..jobs {
                    metrics.ledger.add("p", &Account { taken_in: 1, waiting: 1, ..Account::default() });
                    metrics.ledger.add("p", &Account { finished: 1, waiting: -1, ..Account::default() });
                }
                done.store(true, Ordering::SeqCst);
            });
            let mut last = false;
            while !last {
                last = done.load(Ordering::SeqCst);
                let mut page = String::new();
                prometheus_client::encoding::text::encode_registry(&mut page, metrics.registry()).unwrap();
                let lines = page.lines().filter(|line| line.starts_with("azulite_ledger{"));
                let counts: Vec<i64> = lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
                let (taken_in, rest) = counts.split_first().unwrap_or((&0, &[]));
                assert_eq!(*taken_in, rest.iter().sum::<i64>(), "{counts:?}");
            }
        });
    }

    #[test]
    fn long_label_values_are_cut() {
        let metrics = Metrics::new();
        metrics.events_fetched.add([&"x".repeat(500), "binary"], 1);
        assert_eq!(metrics.events_fetched.at([&"x".repeat(MAX_LABEL_CHARS), "binary"]).get(), 1);
    }
}
