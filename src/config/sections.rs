//! The sections of `appliance.toml`, one struct each, with their defaults.
//!
//! A key exists only when something acts on it. Ranges and contradictions are in [`check`](super::check); the shipped
//! `appliance.toml` says why each default is what it is, and a test keeps the two equal.

use super::units::{self, Listen};
use azulite_storage::Encoding;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

const MI: u64 = 1 << 20;
const GI: u64 = 1 << 30;

/// `[http]`: the listener of the HTTP API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address to listen on.
    #[serde(with = "units::address")]
    pub listen: SocketAddr,
    /// Listen beyond loopback although there is no authentication and no TLS.
    pub allow_insecure: bool,
    /// Connections open at once; the next one waits in the kernel's queue.
    pub max_connections: u32,
    /// Size of a request line with all headers.
    #[serde(with = "units::size")]
    pub max_header_bytes: u64,
    /// Time for a client to send a complete request head.
    #[serde(with = "units::duration")]
    pub header_timeout: Duration,
    /// Time that a connection may wait for its next request.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// Time that a client may take no byte of its answer.
    #[serde(with = "units::duration")]
    pub write_timeout: Duration,
    /// Time that requests under way get to finish when the process stops.
    #[serde(with = "units::duration")]
    pub drain_timeout: Duration,
    /// Size of the body of one event POST.
    #[serde(with = "units::size")]
    pub max_event_body: u64,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8111),
            allow_insecure: false,
            max_connections: 1_024,
            max_header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(8),
            max_event_body: 256 * MI,
        }
    }
}

/// `[kafka]`: the Kafka listener, and what it tells clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Address to listen on, or `"off"`.
    pub listen: Listen,
    /// Host and port that clients are told; empty is the address that was bound.
    pub advertised: String,
    /// Listening beyond loopback without authentication is meant.
    pub allow_insecure: bool,
    /// Connections served at once.
    pub max_connections: u32,
    /// Largest request.
    #[serde(with = "units::size")]
    pub max_request_bytes: u64,
    /// Memory for requests under way, of all connections; one request at a time may go past it.
    #[serde(with = "units::size")]
    pub request_memory: u64,
    /// Most records in one answer.
    #[serde(with = "units::size")]
    pub fetch_max_bytes: u64,
    /// Memory for records in answers under way, of all connections.
    #[serde(with = "units::size")]
    pub fetch_memory: u64,
    /// A connection that says nothing for so long is closed.
    #[serde(with = "units::duration")]
    pub idle_timeout: Duration,
    /// A metadata request for an unknown topic makes it.
    pub auto_create_topics: bool,
    /// Partitions of a topic that does not say.
    pub num_partitions: u32,
    /// For which topics a replication factor above 1 is taken as 1.
    pub clamp_replication_factor: ClampReplicationFactor,
    /// How long a group that had no members waits for more of them.
    #[serde(with = "units::duration")]
    pub group_initial_rebalance_delay: Duration,
    /// How long positions outlive the last use of their group.
    #[serde(with = "units::duration")]
    pub offsets_retention: Duration,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            listen: Listen::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9092)),
            advertised: String::new(),
            allow_insecure: false,
            max_connections: 4096,
            max_request_bytes: 100 * MI,
            request_memory: 48 * MI,
            fetch_max_bytes: 16 * MI,
            fetch_memory: 64 * MI,
            idle_timeout: Duration::from_secs(600),
            auto_create_topics: true,
            num_partitions: 1,
            clamp_replication_factor: ClampReplicationFactor::Events,
            group_initial_rebalance_delay: Duration::ZERO,
            offsets_retention: Duration::from_secs(30 * 86_400),
        }
    }
}

impl Kafka {
    /// Host and port out of `advertised`; `None` when it is empty or not that. A port of 0 is the one that is bound.
    pub fn advertised(&self) -> Option<(String, u16)> {
        let (host, port) = self.advertised.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let wildcard = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        let legal = !host.is_empty() && host.len() <= 255 && !wildcard && host.chars().all(|c| c.is_ascii_graphic());
        legal.then_some((host.to_owned(), port.parse().ok()?))
    }
}

/// For which topics a replication factor above 1 is taken as 1 instead of refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClampReplicationFactor {
    /// For none.
    None,
    /// For event topics.
    Events,
    /// For all.
    All,
}

/// `[storage]`: where data lies, and what is true when a reply says stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// The data directory; a relative path is taken from the working directory.
    #[serde(serialize_with = "shown_path")]
    pub data_dir: PathBuf,
    /// What a reply promises.
    pub durability: Durability,
    /// Size of one file of the log.
    #[serde(with = "units::size")]
    pub segment_bytes: u64,
    /// Size up to which waiting writes share one sync.
    #[serde(with = "units::size")]
    pub commit_bytes: u64,
    /// Bytes that may wait for the committer.
    #[serde(with = "units::size")]
    pub queue_bytes: u64,
    /// The longest time between two looks at what is due to be let go.
    #[serde(with = "units::duration")]
    pub retention_check_interval: Duration,
    /// Time between two passes of the cleaner.
    #[serde(with = "units::duration")]
    pub clean_interval: Duration,
    /// Bytes the cleaner reads and writes per second.
    #[serde(with = "units::size")]
    pub clean_bytes_per_second: u64,
    /// Memory for the newest frames of the log.
    #[serde(with = "units::size")]
    pub cache_bytes: u64,
    /// Free space that is kept back: writes are refused below it.
    pub reserve: Reserve,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./azulite-data"),
            durability: Durability::Sync,
            segment_bytes: 64 * MI,
            commit_bytes: 8 * MI,
            queue_bytes: 128 * MI,
            retention_check_interval: Duration::from_secs(300),
            clean_interval: Duration::from_secs(20),
            clean_bytes_per_second: 32 * MI,
            cache_bytes: 32 * MI,
            reserve: Reserve { bytes: Some(GI), percent: Some(5) },
        }
    }
}

/// A path that is not UTF-8 (only `--data-dir` can give one) is shown as well as it goes.
fn shown_path<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Free space to keep: a size, a share of the file system, or the smaller of both (`kafka.md` section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    bytes: Option<u64>,
    percent: Option<u8>,
}

impl Reserve {
    const ALLOWED: &'static str =
        "a size such as \"1Gi\", a share from \"0%\" to \"90%\", or both as in \"1Gi or 5%\", when the smaller counts";

    /// Bytes to keep free on a file system of `total_bytes`.
    pub fn bytes_of(self, total_bytes: u64) -> u64 {
        let share = self.percent.map(|percent| u128::from(total_bytes) * u128::from(percent) / 100);
        let share = share.map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
        match (self.bytes, share) {
            (Some(bytes), Some(share)) => bytes.min(share),
            (bytes, share) => bytes.or(share).unwrap_or_default(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let percent = |part: &str| part.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 90);
        if let Some((size, share)) = text.split_once(" or ") {
            return Some(Self { bytes: Some(units::parse_size(size).ok()?), percent: Some(percent(share)?) });
        }
        if text.ends_with('%') {
            return Some(Self { bytes: None, percent: Some(percent(text)?) });
        }
        Some(Self { bytes: Some(units::parse_size(text).ok()?), percent: None })
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.map(units::format_size);
        let percent = self.percent.map(|percent| format!("{percent}%"));
        f.write_str(&bytes.into_iter().chain(percent).collect::<Vec<_>>().join(" or "))
    }
}

impl Serialize for Reserve {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reserve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = units::Written::deserialize(deserializer).map_err(|_| D::Error::custom(Self::ALLOWED))?;
        let text = match written {
            units::Written::Number(bytes) => bytes.to_string(),
            units::Written::Text(text) => text,
        };
        Self::parse(&text).ok_or_else(|| D::Error::custom(Self::ALLOWED))
    }
}

/// What is true when a reply says that something was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk.
    Sync,
    /// It will be on the disk at the latest after this time; a power cut may take what came since.
    Interval(Duration),
    /// The operating system has it.
    None,
}

impl Durability {
    const ALLOWED: &'static str = "\"sync\", \"interval:<milliseconds from 1 to 60000>\" or \"none\"";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "sync" => Some(Self::Sync),
            "none" => Some(Self::None),
            _ => {
                let milliseconds: u64 = text.strip_prefix("interval:")?.parse().ok()?;
                (1..=60_000).contains(&milliseconds).then(|| Self::Interval(Duration::from_millis(milliseconds)))
            }
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sync => f.write_str("sync"),
            Self::Interval(every) => write!(f, "interval:{}", every.as_millis()),
            Self::None => f.write_str("none"),
        }
    }
}

impl Serialize for Durability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| D::Error::custom(Self::ALLOWED))?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(Self::ALLOWED))
    }
}

/// `[events]`: names and limits of the events API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Second part of every topic name, `azul.<prefix>.`, and part of every group name.
    pub topic_prefix: String,
    /// Partitions of a topic that does not say otherwise.
    pub partition_count: u32,
    /// Most events that one GET returns, whatever it asks for.
    pub api_event_fetch_limit: u32,
    /// How long a GET that does not say otherwise waits for events.
    #[serde(with = "units::duration")]
    pub api_default_event_wait: Duration,
    /// Size of one event as it is stored (Avro).
    #[serde(with = "units::size")]
    pub message_max_bytes: u64,
    /// Size of one GET answer, about; a larger single event goes alone.
    #[serde(with = "units::size")]
    pub max_fetch_bytes: u64,
    /// Bytes of all GET answers together that clients have not taken yet.
    #[serde(with = "units::size")]
    pub fetch_memory: u64,
    /// A topic that has more partitions than it is to have is told, and does not stop the start.
    pub ignore_topic_mismatch: bool,
    /// Days after which the read position of a plugin that no longer asks is dropped.
    pub consumer_group_retention_days: u32,
    /// A reader in memory that nobody asks goes after so long; its positions stay.
    #[serde(with = "units::duration")]
    pub reader_idle: Duration,
    /// A plugin that reads live and historic gets a historic event for so many live ones; 0 is none before live is empty.
    pub historic_share: u32,
    /// After the start, leases end by themselves after so long at the earliest; and how often they are looked at at least.
    #[serde(with = "units::duration")]
    pub lost_tasks_check: Duration,
    /// Memory for remembering what consumers have been handed, so that they get no event twice; 0 is off.
    #[serde(with = "units::size")]
    pub dedupe_cache_bytes: u64,
    /// Results of costly plugin runs.
    pub replay_plugin_cache: ReplayPluginCache,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            topic_prefix: "test01".to_owned(),
            partition_count: 1,
            api_event_fetch_limit: 1_000,
            api_default_event_wait: Duration::from_secs(5),
            message_max_bytes: 3 * MI,
            max_fetch_bytes: 16 * MI,
            fetch_memory: 64 * MI,
            ignore_topic_mismatch: true,
            consumer_group_retention_days: 30,
            reader_idle: Duration::from_secs(24 * 3_600),
            historic_share: 20,
            lost_tasks_check: Duration::from_secs(5 * 60),
            dedupe_cache_bytes: 0,
            replay_plugin_cache: ReplayPluginCache::default(),
        }
    }
}

/// `[delivery]`: how long an active consumer has an event, and what follows when it fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// An event that was handed out is handed out again when its consumer was not heard of for so long.
    #[serde(with = "units::duration")]
    pub lease: Duration,
    /// The longest a consumer keeps one event, however often it is heard of.
    #[serde(with = "units::duration")]
    pub lease_max: Duration,
    /// Runs after the first one, before an event is a dead letter.
    pub max_attempts: u32,
    /// From a failed run to the next.
    #[serde(with = "units::duration")]
    pub retry_delay: Duration,
    /// What the delay is multiplied with after each further failed run.
    pub retry_backoff: f64,
    /// The longest delay.
    #[serde(with = "units::duration")]
    pub retry_delay_max: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30 * 60),
            lease_max: Duration::from_secs(24 * 3_600),
            max_attempts: 3,
            retry_delay: Duration::from_secs(60),
            retry_backoff: 1.0,
            retry_delay_max: Duration::from_secs(3_600),
        }
    }
}

/// `[consumers."<name>"]`: what is different for one consumer; what is not given is as in `[delivery]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consumer {
    /// See [`Delivery::lease`].
    #[serde(with = "units::optional_duration", skip_serializing_if = "Option::is_none")]
    pub lease: Option<Duration>,
    /// See [`Delivery::lease_max`].
    #[serde(with = "units::optional_duration", skip_serializing_if = "Option::is_none")]
    pub lease_max: Option<Duration>,
    /// See [`Delivery::max_attempts`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// See [`Delivery::retry_delay`].
    #[serde(with = "units::optional_duration", skip_serializing_if = "Option::is_none")]
    pub retry_delay: Option<Duration>,
    /// See [`Delivery::retry_backoff`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_backoff: Option<f64>,
    /// See [`Delivery::retry_delay_max`].
    #[serde(with = "units::optional_duration", skip_serializing_if = "Option::is_none")]
    pub retry_delay_max: Option<Duration>,
}

impl Consumer {
    /// `common` with what is different here.
    #[must_use]
    pub fn over(&self, common: &Delivery) -> Delivery {
        Delivery {
            lease: self.lease.unwrap_or(common.lease),
            lease_max: self.lease_max.unwrap_or(common.lease_max),
            max_attempts: self.max_attempts.unwrap_or(common.max_attempts),
            retry_delay: self.retry_delay.unwrap_or(common.retry_delay),
            retry_backoff: self.retry_backoff.unwrap_or(common.retry_backoff),
            retry_delay_max: self.retry_delay_max.unwrap_or(common.retry_delay_max),
        }
    }
}

/// `[events.replay_plugin_cache]`: results of costly plugin runs, used again for the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayPluginCache {
    /// Memory for them; 0 is off.
    #[serde(with = "units::size")]
    pub size_bytes: u64,
    /// How long one is used.
    #[serde(with = "units::duration")]
    pub ttl: Duration,
    /// Runs that took longer than this are remembered.
    #[serde(with = "units::duration")]
    pub min_runtime: Duration,
}

impl Default for ReplayPluginCache {
    fn default() -> Self {
        Self { size_bytes: 0, ttl: Duration::from_secs(1800), min_runtime: Duration::from_secs(10) }
    }
}

/// `[dead_letter]`: events that a consumer could not work on, after its last attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetter {
    /// Where each of them is written to a file; empty is `dead` in the data directory.
    pub dir: PathBuf,
    /// How long they are kept; 0 is until they are removed.
    #[serde(with = "units::duration")]
    pub keep: Duration,
    /// More in one hour than this are a warning in `/readyz`.
    pub warn_per_hour: u32,
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self { dir: PathBuf::new(), keep: Duration::ZERO, warn_per_hour: 20 }
    }
}

/// `[streams]`: upload and deletion of blobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streams {
    /// Whether clients may delete blobs.
    pub api_allow_delete: bool,
    /// Size of one upload; 0 is no limit but the disk.
    #[serde(with = "units::size")]
    pub max_upload_bytes: u64,
    /// Uploads under way at once.
    pub max_uploads: u32,
    /// Whether blobs leave a day after the events of their source.
    pub automatic_ageoff: bool,
    /// What is done to the bytes of blobs that are stored from now on.
    pub encoding: Encoding,
    /// Local store of the upstream service that is read where it lies; empty: none.
    pub adopt_dir: PathBuf,
    /// File of the AES key of that store; empty: none.
    pub adopt_key_file: PathBuf,
    /// Blobs of up to this size go into the log; 0: none does.
    #[serde(with = "units::size")]
    pub inline_threshold: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            api_allow_delete: false,
            max_upload_bytes: 0,
            max_uploads: 64,
            automatic_ageoff: false,
            encoding: Encoding::Xor,
            adopt_dir: PathBuf::new(),
            adopt_key_file: PathBuf::new(),
            inline_threshold: 64 << 10,
        }
    }
}

/// `[reprocess]`: what the `reprocess` command copies unless its flags say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reprocess {
    /// Prefix of the topics that are read.
    pub previous_prefix: String,
    /// Copy the events of all sources.
    pub upgrade_sources: bool,
    /// Copy system topics.
    pub upgrade_system: bool,
    /// What the names of system topics begin with that are copied.
    pub include_system: Vec<String>,
    /// Full names of topics that are left out.
    pub deny_topics: Vec<String>,
    /// Whether records may be JSON.
    pub legacy_json: bool,
}

impl Default for Reprocess {
    fn default() -> Self {
        Self {
            previous_prefix: String::new(),
            upgrade_sources: false,
            upgrade_system: false,
            include_system: ["delete", "error", "expedite", "insert"].map(str::to_owned).to_vec(),
            deny_topics: Vec::new(),
            legacy_json: false,
        }
    }
}

/// `[identify]`: file identification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identify {
    /// Files identified at once; 0 is one per processor.
    pub jobs: u32,
    /// Size above which the content rules do not look through a file.
    #[serde(with = "units::size")]
    pub content_max_bytes: u64,
}

impl Default for Identify {
    fn default() -> Self {
        Self { jobs: 0, content_max_bytes: 64 << 20 }
    }
}

/// `[logging]`: what the process says about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// Least level that is written.
    pub level: LogLevel,
    /// Shape of a line.
    pub format: LogFormat,
    /// Folder of the files with requests and refused events; empty is none.
    pub path: String,
}

/// Least level that is written to the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what a person should look at.
    Error,
    /// Also what was odd but went on.
    Warn,
    /// Also changes of state.
    #[default]
    Info,
    /// Also single requests.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `[metrics]`: `GET /metrics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Whether `GET /metrics` answers.
    pub enabled: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { enabled: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_reserve_counts() {
        let reserve = |text| Reserve::parse(text).unwrap();
        assert_eq!(Storage::default().reserve, reserve("1Gi or 5%"));
        assert_eq!(reserve("1Gi or 5%").bytes_of(10 * GI), GI / 2);
        assert_eq!(reserve("1Gi or 5%").bytes_of(u64::MAX), GI);
        assert_eq!(reserve("5%").bytes_of(1_000 * GI), 50 * GI);
        assert_eq!(reserve("1000TB").bytes_of(GI), 1_000_000_000_000_000);
        assert_eq!(reserve("0").bytes_of(GI), 0);
    }

    #[test]
    fn a_reserve_reads_back() {
        for text in ["1Gi or 5%", "5%", "16Mi", "0"] {
            assert_eq!(Reserve::parse(text).map(|reserve| reserve.to_string()).as_deref(), Some(text));
        }
        for text in ["", "91%", "%", "5% or 1Gi", "1Gi or 2Gi", "1Gi, 5%", "-1"] {
            assert_eq!(Reserve::parse(text), None, "{text}");
        }
    }

    #[test]
    fn durability_reads_back() {
        for text in ["sync", "none", "interval:1", "interval:60000"] {
            assert_eq!(Durability::parse(text).map(|d| d.to_string()).as_deref(), Some(text));
        }
        for text in ["", "interval:", "interval:0", "interval:60001", "interval:5s", "Sync"] {
            assert_eq!(Durability::parse(text), None, "{text}");
        }
    }
}
