//! What one `[[workers.sandbox]]` section says, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::metrics::Metrics;

/// Which interface a sandbox speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Cuckoo 1.x and 2.x.
    Cuckoo,
    /// CAPE v2.
    Cape,
}

impl Kind {
    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "cuckoo" => Some(Self::Cuckoo),
            "cape" => Some(Self::Cape),
            _ => None,
        }
    }

    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cuckoo => "cuckoo",
            Self::Cape => "cape",
        }
    }
}

/// Reads one part of what a sandbox found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parser {
    Info,
    Signatures,
    Behavior,
    Dropped,
    Network,
    Screenshot,
    Pcap,
    /// CAPE only.
    Config,
}

impl Parser {
    /// Every parser.
    pub const ALL: [Self; 8] = [
        Self::Info,
        Self::Signatures,
        Self::Behavior,
        Self::Dropped,
        Self::Network,
        Self::Screenshot,
        Self::Pcap,
        Self::Config,
    ];

    /// The parsers of a section that names none.
    pub const DEFAULT: [Self; 4] = [Self::Info, Self::Signatures, Self::Behavior, Self::Dropped];

    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
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

    /// The parser with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|parser| parser.as_str() == name)
    }

    /// True when it reads the report, not a download of its own.
    pub(super) const fn reads_report(self) -> bool {
        match self {
            Self::Info | Self::Signatures | Self::Behavior | Self::Network => true,
            Self::Dropped | Self::Screenshot | Self::Pcap | Self::Config => false,
        }
    }
}

/// One sandbox and how it is used (workers.md 3.4). [`Options::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// Part of the author name `sandbox-<name>`.
    pub name: String,
    pub kind: Kind,
    /// `http://` or `https://`; for CAPE with the path `/apiv2` or without.
    pub url: String,
    /// File with the token.
    pub token_file: Option<PathBuf>,
    /// Whether certificates are checked.
    pub verify_tls: bool,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether nothing is submitted while the sandbox has less than `min_free_bytes` left.
    pub check_free_space: bool,
    pub min_free_bytes: u64,
    /// Nothing is submitted while so many tasks are pending.
    pub max_pending: u64,
    /// How often a full sandbox is looked at, and one that is down.
    pub capacity_recheck: Duration,
    /// Most jobs in the stage `submit`, `check`, `parse`.
    pub submit_prefetch: usize,
    pub check_prefetch: usize,
    pub parse_prefetch: usize,
    /// Between two requests of the stage `check`.
    pub wait_between_requests: Duration,
    /// Between the end of an analysis and the fetch of its report.
    pub settle_delay: Duration,
    /// API calls that stay in the report, over all processes.
    pub push_api_calls_max: u64,
    /// Whether tasks are deleted when all is read.
    pub cleanup: bool,
    /// Run in this order; each publishes on its own.
    pub parse_stages: Vec<Vec<Parser>>,
    /// Whether a task that CAPE has for the file already is used.
    pub reuse_existing: bool,
    pub start_timeout: Duration,
    pub analysis_timeout: Duration,
    pub request_timeout: Duration,
    pub request_tries: u32,
    /// Retries of a stage after its first run.
    pub max_attempts: u32,
    pub retry_delay: Duration,
    /// Beginnings of the file formats that are taken.
    pub content_types: Vec<String>,
    /// Bytes.
    pub max_content_size: u64,
    /// Form fields of every submission.
    pub submit_options: BTreeMap<String, String>,
    /// Call -> limits such as `1/s, 20/min`.
    pub rate_limits: BTreeMap<String, String>,
    /// Folder of the jobs under way.
    pub state_dir: PathBuf,
    /// Between two heartbeats of a job.
    pub heartbeat: Duration,
    /// Where jobs are counted.
    pub metrics: Arc<Metrics>,
}

impl Options {
    /// A section that names nothing but what it must.
    pub fn new(name: &str, kind: Kind, url: &str, state_dir: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            url: url.to_owned(),
            token_file: None,
            verify_tls: true,
            ca_file: None,
            check_free_space: false,
            min_free_bytes: 268_435_456,
            max_pending: 10,
            capacity_recheck: Duration::from_secs(30),
            submit_prefetch: 1,
            check_prefetch: 100,
            parse_prefetch: 10,
            wait_between_requests: Duration::from_secs(5),
            settle_delay: Duration::from_secs(5),
            push_api_calls_max: 1000,
            cleanup: kind == Kind::Cuckoo,
            parse_stages: vec![Parser::DEFAULT.to_vec()],
            reuse_existing: true,
            start_timeout: Duration::from_secs(600),
            analysis_timeout: Duration::from_secs(1200),
            request_timeout: Duration::from_secs(30),
            request_tries: 3,
            max_attempts: 3,
            retry_delay: Duration::from_secs(60),
            content_types: vec!["executable/windows/pe".to_owned(), "executable/pe32".to_owned()],
            max_content_size: 16 << 20,
            submit_options: BTreeMap::new(),
            rate_limits: BTreeMap::new(),
            state_dir,
            heartbeat: Duration::from_secs(30),
            metrics: Arc::default(),
        }
    }

    /// What a section says; what it does not say is as in [`Options::new`].
    pub fn from_config(config: &config::SandboxWorker, state_dir: PathBuf) -> Self {
        let kind = match config.kind {
            config::SandboxKind::Cuckoo => Kind::Cuckoo,
            config::SandboxKind::Cape => Kind::Cape,
        };
        let named = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let limits = super::rate::Call::ALL.into_iter().map(|call| {
            let limits = config.rate_limits_of(call.name());
            let text: Vec<String> = limits.iter().map(|rate| format!("{}/{}", rate.count, per(rate.per))).collect();
            (call.name().to_owned(), text.join(", "))
        });
        Self {
            token_file: named(&config.token_file),
            verify_tls: config.verify_tls,
            ca_file: named(&config.ca_file),
            check_free_space: config.check_free_space,
            min_free_bytes: config.min_free_bytes,
            max_pending: config.max_pending.into(),
            capacity_recheck: config.capacity_recheck,
            submit_prefetch: number(config.submit_prefetch),
            check_prefetch: number(config.check_prefetch),
            parse_prefetch: number(config.parse_prefetch),
            wait_between_requests: config.wait_between_requests,
            settle_delay: config.settle_delay,
            push_api_calls_max: config.push_api_calls_max.into(),
            cleanup: config.cleanup(),
            parse_stages: config.stages().into_iter().map(|stage| stage.into_iter().map(parser).collect()).collect(),
            reuse_existing: config.reuse_existing,
            start_timeout: config.start_timeout,
            analysis_timeout: config.analysis_timeout,
            request_timeout: config.request_timeout,
            request_tries: config.request_tries,
            max_attempts: config.max_attempts,
            retry_delay: config.retry_delay,
            content_types: config.content_types.clone(),
            max_content_size: config.max_content_size,
            submit_options: config.submit_options.clone(),
            rate_limits: limits.collect(),
            ..Self::new(&config.name, kind, &config.url, state_dir)
        }
    }

    /// The name of the plugin.
    pub fn author(&self) -> String {
        format!("sandbox-{}", self.name)
    }

    /// Everything that is wrong with it, each for people, beginning with the key.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let named = |text: &str| {
            !text.is_empty()
                && text.len() <= 64
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if !named(&self.name) {
            found.push(format!("name: {:?} is no name: letters, digits, - and _, at most 64", self.name));
        }
        if let Err(reason) = super::http::check_url(&self.url) {
            found.push(format!("url: {reason}"));
        }
        for (key, number) in [
            ("submit_prefetch", self.submit_prefetch),
            ("check_prefetch", self.check_prefetch),
            ("parse_prefetch", self.parse_prefetch),
        ] {
            if !(1..=10_000).contains(&number) {
                found.push(format!("{key}: {number} is not from 1 to 10000"));
            }
        }
        if self.max_pending == 0 {
            found.push("max_pending: 0 would never submit anything".to_owned());
        }
        if !(1..=20).contains(&self.request_tries) {
            found.push(format!("request_tries: {} is not from 1 to 20", self.request_tries));
        }
        for (key, time) in [
            ("capacity_recheck", self.capacity_recheck),
            ("request_timeout", self.request_timeout),
            ("start_timeout", self.start_timeout),
            ("analysis_timeout", self.analysis_timeout),
            ("heartbeat", self.heartbeat),
        ] {
            if time.is_zero() {
                found.push(format!("{key}: must be longer than 0"));
            }
        }
        if let Err(reason) = super::rate::Rates::new(self.kind, &self.rate_limits) {
            found.push(reason);
        }
        found.extend(self.stage_problems());
        found
    }

    fn stage_problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        if self.parse_stages.is_empty() || self.parse_stages.iter().any(Vec::is_empty) {
            found.push("parse_stages: a stage without parsers".to_owned());
        }
        for (number, stage) in self.parse_stages.iter().enumerate() {
            for parser in stage {
                if !seen.insert(*parser) {
                    let (parser, number) = (parser.as_str(), number + 1);
                    found.push(format!("parse_stages: a cycle: {parser} is in stage {number} and was there before"));
                }
            }
        }
        if self.kind == Kind::Cuckoo && seen.contains(&Parser::Config) {
            found.push("parsers: config is read from CAPE only".to_owned());
        }
        found
    }
}

const fn parser(parser: config::Parser) -> Parser {
    match parser {
        config::Parser::Info => Parser::Info,
        config::Parser::Signatures => Parser::Signatures,
        config::Parser::Behavior => Parser::Behavior,
        config::Parser::Dropped => Parser::Dropped,
        config::Parser::Network => Parser::Network,
        config::Parser::Screenshot => Parser::Screenshot,
        config::Parser::Pcap => Parser::Pcap,
        config::Parser::Config => Parser::Config,
    }
}

const fn per(per: config::Per) -> &'static str {
    match per {
        config::Per::Second => "s",
        config::Per::Minute => "min",
        config::Per::Hour => "h",
        config::Per::Day => "day",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::new("box", Kind::Cuckoo, "http://127.0.0.1:8090", PathBuf::from("state"))
    }

    #[test]
    fn the_defaults_have_no_problems() {
        assert_eq!(options().problems(), Vec::<String>::new());
        let cape = Options::new("box", Kind::Cape, "https://cape/apiv2/", PathBuf::from("state"));
        assert_eq!(cape.problems(), Vec::<String>::new());
        assert!(options().cleanup && !cape.cleanup);
        assert_eq!(cape.author(), "sandbox-box");
    }

    #[test]
    fn a_parser_in_two_stages_is_a_cycle() {
        let mut options = options();
        options.parse_stages = vec![vec![Parser::Info], vec![Parser::Dropped, Parser::Info]];
        assert_eq!(options.problems(), ["parse_stages: a cycle: info is in stage 2 and was there before"]);
    }

    #[test]
    fn every_mistake_is_named() {
        let mut options = options();
        options.name = "../x".to_owned();
        options.url = "ftp://x".to_owned();
        options.check_prefetch = 0;
        options.max_pending = 0;
        options.request_tries = 0;
        options.request_timeout = Duration::ZERO;
        options.parse_stages = vec![vec![], vec![Parser::Config]];
        options.rate_limits = BTreeMap::from([("create".to_owned(), "often".to_owned())]);
        let problems = options.problems();
        let keys = [
            "name",
            "url",
            "check_prefetch",
            "max_pending",
            "request_tries",
            "request_timeout",
            "rate_limits",
            "parse_stages",
            "parsers",
        ];
        assert_eq!(problems.len(), keys.len(), "{problems:#?}");
        for (problem, key) in problems.iter().zip(keys) {
            assert!(problem.starts_with(key), "{problem}");
        }
    }

    #[test]
    fn names_are_read_back() {
        assert!(Parser::ALL.into_iter().all(|parser| Parser::parse(parser.as_str()) == Some(parser)));
        assert!([Kind::Cuckoo, Kind::Cape].into_iter().all(|kind| Kind::parse(kind.as_str()) == Some(kind)));
        assert_eq!((Parser::parse("all"), Kind::parse("joe")), (None, None));
    }
}
