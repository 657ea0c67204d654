//! `[workers]`: the built-in workers and their defaults (`workers.md` 2.3, 3.4 and 3.5).

use super::sections::Delivery;
use super::units::{self, Written};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[workers]`: workers inside `serve`, and what `azulite worker` runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// How long running jobs may go on after a stop signal; `serve` gives them at most `http.drain_timeout`.
    #[serde(with = "units::duration")]
    pub shutdown_grace: Duration,
    /// The YARA worker.
    pub yara: YaraWorker,
    /// One for each sandbox.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sandbox: Vec<SandboxWorker>,
    /// The sink of sandbox results.
    pub crits: CritsSink,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            shutdown_grace: Duration::from_secs(30),
            yara: YaraWorker::default(),
            sandbox: Vec::new(),
            crits: CritsSink::default(),
        }
    }
}

/// `[workers.yara]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct YaraWorker {
    /// Whether `serve` runs it.
    pub enabled: bool,
    /// Folder of rule files; empty is `rules/yara` in the data directory.
    pub rules_dir: PathBuf,
    /// Most events in one fetch.
    pub bulk_size: u32,
    /// Longest idle wait.
    #[serde(with = "units::duration")]
    pub load_interval: Duration,
    /// Scans at once; 0 is one per processor.
    pub threads: u32,
    /// Largest object or member that is scanned.
    #[serde(with = "units::size")]
    pub max_scan_size: u64,
    /// Time for one member.
    #[serde(with = "units::duration")]
    pub file_timeout: Duration,
    /// Time for one event.
    #[serde(with = "units::duration")]
    pub job_timeout: Duration,
    /// What a change of the rules does to events that were scanned before.
    pub rules_change: RulesChange,
    /// How long a changed folder must be quiet before it is compiled.
    #[serde(with = "units::duration")]
    pub reload_settle: Duration,
    /// Beginnings of namespaces that are left out.
    pub deny_namespaces: Vec<String>,
    /// Regular expression for names of rule files; empty is every name.
    pub name_pattern: String,
    /// Which members of archives become entities of their own.
    pub publish_members: PublishMembers,
    /// Tried on encrypted members, after the event's own.
    pub passwords: Vec<String>,
    /// Most bytes that come out of one distribution.
    #[serde(with = "units::size")]
    pub max_total_expanded: u64,
    /// Most members of one distribution.
    pub max_members: u64,
    /// Most bytes that come out of one packed byte, once more than 16 MiB came out.
    pub max_ratio: u64,
    /// Archives inside archives.
    pub max_nesting: u32,
}

impl Default for YaraWorker {
    fn default() -> Self {
        Self {
            enabled: false,
            rules_dir: PathBuf::new(),
            bulk_size: 20,
            load_interval: Duration::from_secs(60),
            threads: 0,
            max_scan_size: 128_000_000,
            file_timeout: Duration::from_secs(10),
            job_timeout: Duration::from_secs(600),
            rules_change: RulesChange::Rescan,
            reload_settle: Duration::from_secs(10),
            deny_namespaces: Vec::new(),
            name_pattern: String::new(),
            publish_members: PublishMembers::Matched,
            passwords: ["password", "infected"].map(str::to_owned).to_vec(),
            max_total_expanded: 1 << 30,
            max_members: 50_000,
            max_ratio: 200,
            max_nesting: 3,
        }
    }
}

impl YaraWorker {
    /// Where the rules lie.
    pub fn rules_dir(&self, data_dir: &Path) -> PathBuf {
        if self.rules_dir.as_os_str().is_empty() { data_dir.join("rules").join("yara") } else { self.rules_dir.clone() }
    }

    /// Scans at once.
    pub fn threads(&self) -> usize {
        match usize::try_from(self.threads) {
            Ok(threads) if threads > 0 => threads,
            Ok(_) | Err(_) => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

/// `workers.yara.rules_change`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RulesChange {
    /// History is scanned again.
    #[default]
    Rescan,
    /// Only what comes from then on is scanned with the new rules.
    Forward,
}

/// `workers.yara.publish_members`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishMembers {
    /// No member.
    None,
    /// Those that a rule hit.
    #[default]
    Matched,
    /// Every member.
    All,
}

/// One `[[workers.sandbox]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxWorker {
    /// Its name; events say `sandbox-<name>`.
    pub name: String,
    /// What it speaks.
    pub kind: SandboxKind,
    /// Its address.
    pub url: String,
    /// File that holds nothing but its token; empty is none.
    pub token_file: PathBuf,
    /// Whether the certificate of an `https` address is checked.
    #[serde(default = "yes")]
    pub verify_tls: bool,
    /// Certificates to trust, PEM; empty is those of the system.
    #[serde(default)]
    pub ca_file: PathBuf,
    /// Whether free space on the sandbox counts.
    #[serde(default)]
    pub check_free_space: bool,
    /// Least free space on the sandbox.
    #[serde(default = "defaults::min_free_bytes", with = "units::size")]
    pub min_free_bytes: u64,
    /// Tasks that may wait on the sandbox.
    #[serde(default = "defaults::max_pending")]
    pub max_pending: u32,
    /// Time between two looks at the capacity, and between two probes of a sandbox that is down.
    #[serde(default = "defaults::capacity_recheck", with = "units::duration")]
    pub capacity_recheck: Duration,
    /// Items of the stage `submit` at once.
    #[serde(default = "defaults::submit_prefetch")]
    pub submit_prefetch: u32,
    /// Items of the stage `check` at once.
    #[serde(default = "defaults::check_prefetch")]
    pub check_prefetch: u32,
    /// Items of the stage `parse` at once.
    #[serde(default = "defaults::parse_prefetch")]
    pub parse_prefetch: u32,
    /// Time between two questions about the state of tasks.
    #[serde(default = "defaults::wait_between_requests", with = "units::duration")]
    pub wait_between_requests: Duration,
    /// Time between the end of a task and the fetch of its report.
    #[serde(default = "defaults::settle_delay", with = "units::duration")]
    pub settle_delay: Duration,
    /// Calls of the report that are kept.
    #[serde(default = "defaults::push_api_calls_max")]
    pub push_api_calls_max: u32,
    /// Whether tasks are deleted on the sandbox after the last stage; not given: true for `cuckoo`, false for `cape`.
    #[serde(default)]
    pub cleanup: Option<bool>,
    /// What is read from the report; not given: those of `parse_stages`, else info, signatures, behavior and dropped.
    #[serde(default)]
    pub parsers: Option<Vec<Parser>>,
    /// Which parsers run before results are first published, and which after that; empty is one stage with all.
    #[serde(default)]
    pub parse_stages: Vec<ParseStage>,
    /// Whether an earlier task for the same file is used.
    #[serde(default = "yes")]
    pub reuse_existing: bool,
    /// Time that a task may wait on the sandbox.
    #[serde(default = "defaults::start_timeout", with = "units::duration")]
    pub start_timeout: Duration,
    /// Time that a task may run.
    #[serde(default = "defaults::analysis_timeout", with = "units::duration")]
    pub analysis_timeout: Duration,
    /// Time for one request.
    #[serde(default = "defaults::request_timeout", with = "units::duration")]
    pub request_timeout: Duration,
    /// Tries of one request.
    #[serde(default = "defaults::request_tries")]
    pub request_tries: u32,
    /// Retries of a failed attempt.
    #[serde(default = "defaults::max_attempts")]
    pub max_attempts: u32,
    /// Time before a failed attempt is made again.
    #[serde(default = "defaults::retry_delay", with = "units::duration")]
    pub retry_delay: Duration,
    /// Beginnings of file formats that are accepted.
    #[serde(default = "defaults::content_types")]
    pub content_types: Vec<String>,
    /// Largest content that is accepted.
    #[serde(default = "defaults::max_content_size", with = "units::size")]
    pub max_content_size: u64,
    /// Form fields of the submission.
    #[serde(default)]
    pub submit_options: BTreeMap<String, String>,
    /// Limits of requests by the name of the call; what is not named has the limit that the kind is shipped with.
    #[serde(default)]
    pub rate_limits: BTreeMap<String, Vec<Rate>>,
}

fn yes() -> bool {
    true
}

mod defaults {
    use std::time::Duration;

    pub(super) fn min_free_bytes() -> u64 {
        268_435_456
    }
    pub(super) fn max_pending() -> u32 {
        10
    }
    pub(super) fn capacity_recheck() -> Duration {
        Duration::from_secs(30)
    }
    pub(super) fn submit_prefetch() -> u32 {
        1
    }
    pub(super) fn check_prefetch() -> u32 {
        100
    }
    pub(super) fn parse_prefetch() -> u32 {
        10
    }
    pub(super) fn wait_between_requests() -> Duration {
        Duration::from_secs(5)
    }
    pub(super) fn settle_delay() -> Duration {
        Duration::from_secs(5)
    }
    pub(super) fn push_api_calls_max() -> u32 {
        1000
    }
    pub(super) fn start_timeout() -> Duration {
        Duration::from_secs(600)
    }
    pub(super) fn analysis_timeout() -> Duration {
        Duration::from_secs(1200)
    }
    pub(super) fn request_timeout() -> Duration {
        Duration::from_secs(30)
    }
    pub(super) fn request_tries() -> u32 {
        3
    }
    pub(super) fn max_attempts() -> u32 {
        3
    }
    pub(super) fn retry_delay() -> Duration {
        Duration::from_secs(60)
    }
    pub(super) fn content_types() -> Vec<String> {
        ["executable/windows/", "executable/pe32", "executable/dll32"].map(str::to_owned).to_vec()
    }
    pub(super) fn max_content_size() -> u64 {
        16 << 20
    }
}

impl SandboxWorker {
    /// Whether tasks are deleted on the sandbox.
    pub fn cleanup(&self) -> bool {
        self.cleanup.unwrap_or(self.kind == SandboxKind::Cuckoo)
    }

    /// The parsers of each stage, in the order in which the stages run; `check` has seen to it that there is one.
    pub fn stages(&self) -> Vec<Vec<Parser>> {
        match self.stage_order() {
            Ok(order) => order.iter().map(|stage| stage.parsers.clone()).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// The stages as they run.
    ///
    /// # Errors
    /// Why they cannot.
    pub(super) fn stage_order(&self) -> Result<Vec<ParseStage>, String> {
        if self.parse_stages.is_empty() {
            let parsers = self.parsers.clone().unwrap_or_else(|| Parser::DEFAULT.to_vec());
            return Ok(vec![ParseStage { parsers, ..ParseStage::default() }]);
        }
        let mut order: Vec<usize> = Vec::new();
        let mut next = Some(0);
        while let Some(index) = next {
            if order.contains(&index) {
                return Err(format!("the stages make a cycle: {}", self.chain(&order, index)));
            }
            order.push(index);
            next = self.next_stage(index)?;
        }
        let stages: Vec<ParseStage> = order.iter().filter_map(|&index| self.parse_stages.get(index).cloned()).collect();
        if let Some(left) = (0..self.parse_stages.len()).find(|index| !order.contains(index)) {
            return Err(format!("no stage leads to {}", self.stage_name(left)));
        }
        let mut seen = Vec::new();
        for parser in stages.iter().flat_map(|stage| &stage.parsers) {
            if seen.contains(parser) {
                return Err(format!("the parser {parser} is in two stages: one would feed the other again"));
            }
            seen.push(*parser);
        }
        match &self.parsers {
            Some(parsers)
                if !(parsers.iter().all(|p| seen.contains(p)) && seen.iter().all(|p| parsers.contains(p))) =>
            {
                Err("parsers and parse_stages name different parsers: give only one of them".to_owned())
            }
            Some(_) | None => Ok(stages),
        }
    }

    fn next_stage(&self, index: usize) -> Result<Option<usize>, String> {
        let stage = self.parse_stages.get(index);
        match stage.and_then(|stage| stage.next.as_deref()) {
            None => Ok(Some(index + 1).filter(|next| *next < self.parse_stages.len())),
            Some("") => Ok(None),
            Some(name) => {
                let found = (0..self.parse_stages.len()).find(|other| self.stage_name(*other) == name);
                found
                    .map(Some)
                    .ok_or_else(|| format!("{} leads to {name:?}, which is no stage", self.stage_name(index)))
            }
        }
    }

    fn stage_name(&self, index: usize) -> String {
        let name = self.parse_stages.get(index).map(|stage| stage.name.clone()).filter(|name| !name.is_empty());
        name.unwrap_or_else(|| (index + 1).to_string())
    }

    fn chain(&self, order: &[usize], again: usize) -> String {
        order.iter().chain([&again]).map(|index| self.stage_name(*index)).collect::<Vec<_>>().join(" -> ")
    }

    /// Limits of the call `name`: those given, else those of the kind.
    pub fn rate_limits_of(&self, name: &str) -> Vec<Rate> {
        let given = self.rate_limits.get(name).or_else(|| self.rate_limits.get("default"));
        given.cloned().unwrap_or_else(|| self.kind.rate_limits(name))
    }
}

/// What a sandbox speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxKind {
    /// Cuckoo 1.x and 2.x.
    Cuckoo,
    /// CAPE v2.
    Cape,
}

/// Calls of a sandbox that may have limits.
pub const SANDBOX_CALLS: [&str; 15] = [
    "status",
    "search",
    "create",
    "view",
    "report",
    "dropped",
    "screenshot",
    "pcap",
    "payload",
    "procdump",
    "config",
    "iocs",
    "delete",
    "reschedule",
    "default",
];

impl SandboxKind {
    fn rate_limits(self, name: &str) -> Vec<Rate> {
        use Per::{Minute, Second};
        let rate = |(count, per)| Rate { count, per };
        if self == Self::Cuckoo {
            return Vec::new();
        }
        match name {
            "create" => [(1, Second), (2, Minute)].map(rate).to_vec(),
            "status" => vec![rate((4, Second))],
            "view" => [(1, Second), (10, Minute)].map(rate).to_vec(),
            "report" => [(1, Second), (6, Minute)].map(rate).to_vec(),
            "dropped" => [(1, Second), (20, Minute)].map(rate).to_vec(),
            "search" => [(2, Second), (10, Minute)].map(rate).to_vec(),
            "payload" | "procdump" | "iocs" | "config" => vec![rate((4, Minute))],
            _ => vec![rate((5, Minute))],
        }
    }
}

/// What is read from a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parser {
    /// Machine, times, score.
    Info,
    /// What the sandbox recognized.
    Signatures,
    /// Processes, files, keys, mutexes.
    Behavior,
    /// Files that were written.
    Dropped,
    /// Hosts, ports, domains.
    Network,
    /// Pictures of the screen.
    Screenshot,
    /// Recorded packets.
    Pcap,
    /// Extracted configurations.
    Config,
}

impl Parser {
    /// Those of a section that does not say.
    const DEFAULT: [Self; 4] = [Self::Info, Self::Signatures, Self::Behavior, Self::Dropped];

    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Signatures => "signatures",
            Self::Behavior => "behavior",
            Self::Dropped => "dropped",
            Self::Network => "network",
            Self::Screenshot => "screenshot",
            Self::Pcap => "pcap",
            Self::Config => "config",
        }
    }
}

impl fmt::Display for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One stage of `parse_stages`: a list of parsers, or a table that also names the stage and the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ParseStage {
    /// Its name; empty is its number, counted from 1.
    pub name: String,
    /// What runs in it.
    pub parsers: Vec<Parser>,
    /// The name of the stage behind it; empty is none, not given is the next one of the list.
    pub next: Option<String>,
}

impl<'de> Deserialize<'de> for ParseStage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(default)]
            name: String,
            parsers: Vec<Parser>,
            #[serde(default)]
            next: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            List(Vec<Parser>),
            Table(Table),
        }
        let allowed = "a list of parsers out of info, signatures, behavior, dropped, network, screenshot, pcap, config, \
                       or { name = \"first\", parsers = [..], next = \"second\" }";
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(allowed))? {
            Written::List(parsers) => Ok(Self { parsers, ..Self::default() }),
            Written::Table(Table { name, parsers, next }) => Ok(Self { name, parsers, next }),
        }
    }
}

/// So many requests in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests.
    pub count: u32,
    /// The time.
    pub per: Per,
}

/// A time that requests are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// `s`
    Second,
    /// `m`
    Minute,
    /// `h`
    Hour,
    /// `d`
    Day,
}

impl Per {
    const ALL: [(Self, &'static str, u64); 4] =
        [(Self::Second, "s", 1), (Self::Minute, "m", 60), (Self::Hour, "h", 3_600), (Self::Day, "d", 86_400)];

    /// How long that is.
    pub fn duration(self) -> Duration {
        Duration::from_secs(Self::ALL.iter().find(|(per, ..)| *per == self).map_or(1, |(_, _, seconds)| *seconds))
    }
}

impl Rate {
    fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let count = count.trim().parse().ok().filter(|count| *count > 0)?;
        // As CAPE's own configuration and the log of limits have it.
        let unit = if unit.trim() == "min" { "m" } else { unit.trim() };
        let (per, ..) = Per::ALL.iter().find(|(_, name, _)| *name == unit)?;
        Some(Self { count, per: *per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = Per::ALL.iter().find(|(per, ..)| *per == self.per).map_or("s", |(_, name, _)| name);
        write!(f, "{}/{unit}", self.count)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let allowed = || D::Error::custom("a number of requests and a time, \"1/s\", \"6/m\", \"100/h\" or \"1000/d\"");
        match Written::deserialize(deserializer).map_err(|_| allowed())? {
            Written::Text(text) => Self::parse(&text).ok_or_else(allowed),
            Written::Number(_) => Err(allowed()),
        }
    }
}

/// `[workers.crits]`: finished sandbox results go to a CRITs service too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CritsSink {
    /// Whether results are sent.
    pub enabled: bool,
    /// Its address.
    pub url: String,
    /// Who sends.
    pub username: String,
    /// File that holds nothing but the API key.
    pub api_key_file: PathBuf,
    /// Source that uploaded samples belong to there.
    pub source: String,
    /// Whether the certificate of an `https` address is checked.
    pub verify_tls: bool,
    /// Certificates to trust, PEM; empty is those of the system.
    pub ca_file: PathBuf,
    /// Pause after each upload and each relationship.
    #[serde(with = "units::duration")]
    pub sink_pause: Duration,
    /// Time for one request.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// Retries of a failed delivery.
    pub max_attempts: u32,
    /// Time before a failed delivery is made again.
    #[serde(with = "units::duration")]
    pub retry_delay: Duration,
}

impl Default for CritsSink {
    fn default() -> Self {
        Self {
            enabled: false,
            url: String::new(),
            username: String::new(),
            api_key_file: PathBuf::new(),
            source: "azulite".to_owned(),
            verify_tls: true,
            ca_file: PathBuf::new(),
            sink_pause: Duration::from_secs(1),
            request_timeout: Duration::from_secs(30),
            max_attempts: 3,
            retry_delay: Duration::from_secs(60),
        }
    }
}

impl CritsSink {
    /// Its name as a consumer of events.
    pub const CONSUMER: &str = "crits";

    /// `common` with what is different for the sink. A longer `retry_delay` than the longest delay is that one too.
    pub(super) fn over(&self, common: &Delivery) -> Delivery {
        Delivery {
            max_attempts: self.max_attempts,
            retry_delay: self.retry_delay,
            retry_delay_max: common.retry_delay_max.max(self.retry_delay),
            ..common.clone()
        }
    }
}

/// One thing that is wrong: the key, the value as text, what is allowed.
type Mistake = (String, String, String);

/// What is wrong with the sections of workers, beyond the ranges of single numbers.
pub(super) fn mistakes(workers: &Workers) -> Vec<Mistake> {
    let mut found = Vec::new();
    let mut say = |key: &str, value: String, message: String| found.push((key.to_owned(), value, message));
    let pattern = &workers.yara.name_pattern;
    if let Err(error) = regex_syntax::parse(pattern) {
        let reason = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        say("workers.yara.name_pattern", format!("{pattern:?}"), format!("allowed is a regular expression: {reason}"));
    }
    for (index, sandbox) in workers.sandbox.iter().enumerate() {
        for (key, value, message) in sandbox_mistakes(sandbox) {
            say(&sandbox_key(index, &sandbox.name, key), value, message);
        }
        if workers.sandbox.iter().take(index).any(|earlier| earlier.name == sandbox.name) {
            let message = "the name is taken by an earlier item".to_owned();
            say(&sandbox_key(index, &sandbox.name, "name"), format!("{:?}", sandbox.name), message);
        }
    }
    let crits = &workers.crits;
    if crits.enabled {
        if let Some(message) = url_mistake(&crits.url) {
            say("workers.crits.url", format!("{:?}", crits.url), message);
        }
        for (key, value) in [("username", crits.username.as_str()), ("source", &crits.source)] {
            if value.is_empty() {
                say(&format!("workers.crits.{key}"), "\"\"".to_owned(), "allowed is text that is not empty".to_owned());
            }
        }
        if crits.api_key_file.as_os_str().is_empty() {
            let message = "allowed is the path of a file that holds the API key".to_owned();
            say("workers.crits.api_key_file", "\"\"".to_owned(), message);
        }
    }
    found
}

/// A key of the sandbox at that place in the list, as messages write it: `workers.sandbox[1] "lab".url`.
fn sandbox_key(index: usize, name: &str, key: &str) -> String {
    let name = if name.is_empty() { String::new() } else { format!(" {name:?}") };
    format!("workers.sandbox[{}]{name}.{key}", index + 1)
}

/// The keys that a section cannot do without, with a value that is right.
const NEEDED: [(&str, &str); 4] = [("name", "a"), ("kind", "cape"), ("url", "http://localhost"), ("token_file", "")];

/// Everything that is wrong with a list of sandboxes that was refused as a whole: key, value, message. Each key is tried
/// alone, by `refused`, in a section that is right otherwise.
pub(super) fn each_sandbox_mistake(
    list: &serde_json::Value,
    refused: impl Fn(serde_json::Value) -> Option<String>,
) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (index, item) in list.as_array().into_iter().flatten().enumerate() {
        let Some(item) = item.as_object() else { continue };
        let name = item.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
        let needed = NEEDED.map(|(key, value)| (key.to_owned(), serde_json::Value::from(value)));
        let mut good: serde_json::Map<_, _> = needed.into_iter().collect();
        let mut bad = Vec::new();
        for (key, _) in NEEDED.iter().filter(|(key, _)| !item.contains_key(*key)) {
            bad.push(*key);
            found.push((sandbox_key(index, name, key), "(none)".to_owned(), format!("the key {key} is needed")));
        }
        for (key, value) in item {
            let mut probe = good.clone();
            probe.insert(key.clone(), value.clone());
            match refused(serde_json::Value::Array(vec![serde_json::Value::Object(probe)])) {
                None => drop(good.insert(key.clone(), value.clone())),
                Some(message) => {
                    let inside = message.strip_prefix("0.").unwrap_or(&message);
                    let message = inside.strip_prefix(key.as_str()).and_then(|rest| rest.strip_prefix(": "));
                    bad.push(key);
                    found.push((
                        sandbox_key(index, name, key),
                        value.to_string(),
                        message.unwrap_or(inside).to_owned(),
                    ));
                }
            }
        }
        if let Ok(sandbox) = serde_json::from_value::<SandboxWorker>(serde_json::Value::Object(good)) {
            let more = sandbox_mistakes(&sandbox).into_iter().filter(|(key, ..)| !bad.contains(key));
            found.extend(more.map(|(key, value, message)| (sandbox_key(index, name, key), value, message)));
        }
    }
    found
}

fn url_mistake(url: &str) -> Option<String> {
    let rest = ["http://", "https://"].into_iter().find_map(|scheme| url.strip_prefix(scheme));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    let good = host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
        && !url.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#'));
    (!good).then(|| "allowed is http://HOST:PORT or https://HOST:PORT, with or without a path".to_owned())
}

fn sandbox_mistakes(sandbox: &SandboxWorker) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    let name = &sandbox.name;
    let good = (1..=60).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if !good {
        found.push(("name", format!("{name:?}"), "allowed are 1 to 60 letters, digits, '_' and '-'".to_owned()));
    }
    if let Some(message) = url_mistake(&sandbox.url) {
        found.push(("url", format!("{:?}", sandbox.url), message));
    }
    let mut range = |key, value: u64, least: u64, most: u64| {
        if !(least..=most).contains(&value) {
            found.push((key, value.to_string(), format!("allowed is a whole number from {least} to {most}")));
        }
    };
    range("max_pending", sandbox.max_pending.into(), 1, 100_000);
    range("submit_prefetch", sandbox.submit_prefetch.into(), 1, 1_000);
    range("check_prefetch", sandbox.check_prefetch.into(), 1, 100_000);
    range("parse_prefetch", sandbox.parse_prefetch.into(), 1, 1_000);
    range("push_api_calls_max", sandbox.push_api_calls_max.into(), 0, 10_000_000);
    range("request_tries", sandbox.request_tries.into(), 1, 100);
    range("max_attempts", sandbox.max_attempts.into(), 0, 1_000);
    let mut time = |key, value: Duration, least_ms: u64, most_s: u64| {
        let (least, most) = (Duration::from_millis(least_ms), Duration::from_secs(most_s));
        if !(least..=most).contains(&value) {
            let [value, least, most] = [value, least, most].map(units::format_duration);
            found.push((key, format!("{value:?}"), format!("allowed is a duration from {least} to {most}")));
        }
    };
    time("capacity_recheck", sandbox.capacity_recheck, 100, 86_400);
    time("wait_between_requests", sandbox.wait_between_requests, 0, 3_600);
    time("settle_delay", sandbox.settle_delay, 0, 3_600);
    time("start_timeout", sandbox.start_timeout, 1_000, 30 * 86_400);
    time("analysis_timeout", sandbox.analysis_timeout, 1_000, 30 * 86_400);
    time("request_timeout", sandbox.request_timeout, 100, 3_600);
    time("retry_delay", sandbox.retry_delay, 0, 7 * 86_400);
    if let Err(reason) = sandbox.stage_order() {
        found.push(("parse_stages", "[ .. ]".to_owned(), reason));
    }
    if sandbox.stage_order().is_ok_and(|stages| stages.iter().any(|stage| stage.parsers.is_empty())) {
        let key = if sandbox.parse_stages.is_empty() { "parsers" } else { "parse_stages" };
        found.push((key, "[ .. ]".to_owned(), "a stage needs at least one parser".to_owned()));
    }
    for call in sandbox.rate_limits.keys().filter(|call| !SANDBOX_CALLS.contains(&call.as_str())) {
        let message = format!("there is no such call; allowed are {}", SANDBOX_CALLS.join(", "));
        found.push(("rate_limits", format!("{call:?}"), message));
    }
    found
}

/// Reads a secret from a file that holds nothing else.
///
/// # Errors
/// It cannot be read, is empty, longer than a line may be, or readable by others than its owner; never what it holds.
pub fn read_secret(path: &Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{}: mode {:04o} lets others than its owner read or change it; allowed is 0600 or 0400",
            path.display(),
            mode & 0o7777
        ));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let secret = text.trim();
    if secret.is_empty() || secret.len() > 4096 || secret.contains(char::is_control) {
        return Err(format!("{}: allowed is one line of 1 to 4096 characters", path.display()));
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn sandbox(more: &str) -> Result<SandboxWorker, String> {
        let json = format!(r#"{{"name": "c", "kind": "cape", "url": "http://h:1/apiv2", "token_file": ""{more}}}"#);
        serde_json::from_str(&json).map_err(|error| error.to_string())
    }

    fn mistakes_of(more: &str) -> String {
        let workers = Workers { sandbox: vec![sandbox(more).unwrap()], ..Workers::default() };
        let lines = mistakes(&workers).into_iter().map(|(key, value, message)| format!("{key} = {value}: {message}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_section_with_the_required_keys_has_the_defaults() {
        let cape = sandbox("").unwrap();
        assert_eq!(mistakes_of(""), "");
        assert!(!cape.cleanup());
        assert_eq!(cape.stages(), [Parser::DEFAULT.to_vec()]);
        assert_eq!(cape.rate_limits_of("create").iter().map(Rate::to_string).collect::<Vec<_>>(), ["1/s", "2/m"]);
        assert_eq!(cape.rate_limits_of("delete").len(), 1);
        let given = sandbox(r#", "rate_limits": {"create": ["3/min"]}"#).unwrap();
        assert_eq!(given.rate_limits_of("create").iter().map(Rate::to_string).collect::<Vec<_>>(), ["3/m"]);
        let cuckoo = SandboxWorker { kind: SandboxKind::Cuckoo, ..cape };
        assert!(cuckoo.cleanup() && cuckoo.rate_limits_of("create").is_empty());
    }

    #[test]
    fn stages_run_in_their_order_and_a_cycle_is_refused() {
        let stages = |text: &str| sandbox(&format!(r#", "parse_stages": {text}"#)).unwrap().stage_order();
        let names = |stages: Vec<ParseStage>| stages.iter().flat_map(|s| s.parsers.clone()).collect::<Vec<_>>();
        assert_eq!(names(stages(r#"[["info"], ["dropped"]]"#).unwrap()), [Parser::Info, Parser::Dropped]);
        let named = r#"[{"name": "a", "parsers": ["info"], "next": "c"}, {"name": "b", "parsers": ["pcap"], "next": ""},
                        {"name": "c", "parsers": ["dropped"], "next": "b"}]"#;
        assert_eq!(names(stages(named).unwrap()), [Parser::Info, Parser::Dropped, Parser::Pcap]);
        let cycle = r#"[{"name": "a", "parsers": ["info"]}, {"name": "b", "parsers": ["dropped"], "next": "a"}]"#;
        assert_eq!(stages(cycle).unwrap_err(), "the stages make a cycle: a -> b -> a");
        assert!(stages(r#"[["info"], ["info"]]"#).unwrap_err().contains("the parser info is in two stages"));
        assert!(stages(r#"[{"name": "a", "parsers": ["info"], "next": "x"}]"#).unwrap_err().contains("no stage"));
        let left = r#"[{"name": "a", "parsers": ["info"], "next": ""}, ["dropped"]]"#;
        assert_eq!(stages(left).unwrap_err(), "no stage leads to 2");
        assert!(sandbox(r#", "parse_stages": [["inof"]]"#).unwrap_err().contains("a list of parsers out of info"));
        assert!(mistakes_of(r#", "parsers": ["info"], "parse_stages": [["dropped"]]"#).contains("give only one"));
        assert!(mistakes_of(r#", "parsers": []"#).contains("at least one parser"));
    }

    #[test]
    fn what_is_refused_is_named() {
        assert!(sandbox(r#", "unknown": 1"#).unwrap_err().contains("unknown"));
        assert!(sandbox(r#", "rate_limits": {"create": ["often"]}"#).unwrap_err().contains("a number of requests"));
        let found = mistakes_of(r#", "max_pending": 0, "request_timeout": "0s", "rate_limits": {"x": []}"#);
        assert!(
            found.contains("workers.sandbox[1] \"c\".max_pending = 0: allowed is a whole number from 1"),
            "{found}"
        );
        assert!(found.contains("request_timeout = \"0s\"") && found.contains("there is no such call"), "{found}");
        for url in ["sandbox:8090", "ftp://h", "http://", "http://a b", "http://user:pass@h"] {
            assert!(url_mistake(url).is_some(), "{url}");
        }
        let two = Workers { sandbox: vec![sandbox("").unwrap(), sandbox("").unwrap()], ..Workers::default() };
        assert!(mistakes(&two).iter().any(|(.., message)| message.contains("taken by an earlier item")));
        let crits = CritsSink { enabled: true, ..CritsSink::default() };
        assert_eq!(mistakes(&Workers { crits, ..Workers::default() }).len(), 3);
        let yara = YaraWorker { name_pattern: "(".to_owned(), ..YaraWorker::default() };
        assert_eq!(mistakes(&Workers { yara, ..Workers::default() }).len(), 1);
    }

    #[test]
    fn a_secret_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        let refused = read_secret(&path).unwrap_err();
        assert!(refused.contains("0644") && !refused.contains("s3cret"), "{refused}");
        mode(0o600);
        assert_eq!(read_secret(&path).as_deref(), Ok("s3cret"));
        std::fs::write(&path, " \n").unwrap();
        assert!(read_secret(&path).is_err());
    }
}
