//! A dispatcher in memory, a stand-in and a worker between them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azulite::dispatcher::model::{
    Author, BinaryEntity, BinaryEvent, Datastream, PathNode, Source, StatusEvent, Timestamp,
};
use azulite::workers::Upstream;
use azulite::workers::sandbox::{self, Options, Sandbox};

use super::memory::{Memory, sha256};
use super::stand_in::{Kind, StandIn};
pub(crate) use super::support::await_that;

pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// A dispatcher, a sandbox and a folder for jobs.
pub(crate) struct Bench {
    pub(crate) hub: Arc<Memory>,
    pub(crate) stand_in: StandIn,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) options: Options,
}

impl Bench {
    pub(crate) fn new(kind: Kind) -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let stand_in = StandIn::start(kind);
        let kind = match kind {
            Kind::Cuckoo => sandbox::Kind::Cuckoo,
            Kind::Cape => sandbox::Kind::Cape,
        };
        let mut options = Options::new("box", kind, &stand_in.url(), folder.path().join("jobs"));
        let short = Duration::from_millis(20);
        options.capacity_recheck = short;
        options.wait_between_requests = Duration::from_millis(1);
        options.settle_delay = Duration::ZERO;
        options.retry_delay = short;
        options.request_timeout = Duration::from_secs(2);
        options.request_tries = 2;
        options.heartbeat = short;
        options.parse_stages =
            vec![vec![sandbox::Parser::Info, sandbox::Parser::Signatures, sandbox::Parser::Behavior]];
        options.rate_limits.insert("default".to_owned(), String::new());
        Bench { hub: Arc::new(Memory::default()), stand_in, folder, options }
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.folder.path().join("jobs")
    }

    pub(crate) fn start(&self) -> Sandbox {
        self.start_in(self.jobs())
    }

    pub(crate) fn start_in(&self, jobs: PathBuf) -> Sandbox {
        let hub: Arc<dyn Upstream> = self.hub.clone();
        Sandbox::start(Options { state_dir: jobs, ..self.options.clone() }, hub).expect("it starts")
    }

    /// A file of the dispatcher that waits for the sandbox.
    pub(crate) fn submit(&self, bytes: &[u8]) -> BinaryEvent {
        let event = event(bytes);
        let mut held = self.hub.held();
        held.streams.insert(sha256(bytes), bytes.to_vec());
        held.waiting.push_back(event.clone());
        event
    }

    pub(crate) fn await_finals(&self, count: usize) -> Vec<StatusEvent> {
        await_that("final statuses", || self.hub.held().finals.len() >= count);
        self.hub.held().finals.clone()
    }

    pub(crate) fn await_call(&self, call: &str, count: usize) {
        await_that(call, || self.stand_in.count(call) >= count);
    }
}

pub(crate) fn event(bytes: &[u8]) -> BinaryEvent {
    let hash = sha256(bytes);
    let size = u64::try_from(bytes.len()).unwrap();
    let format = "executable/windows/pe32".to_owned();
    let author = Author { name: "amy".to_owned(), category: "user".to_owned(), ..Author::default() };
    let time = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
    let node = PathNode {
        author: author.clone(),
        action: "sourced".to_owned(),
        sha256: hash.clone(),
        timestamp: time,
        filename: "dir/a.exe".to_owned(),
        ..PathNode::default()
    };
    let content = Datastream {
        label: "content".to_owned(),
        sha256: hash.clone(),
        size,
        file_format: format.clone(),
        ..Datastream::default()
    };
    let key = hash[..32].to_owned();
    BinaryEvent {
        kafka_key: key.clone(),
        timestamp: time,
        author,
        source: Source { name: "lab".to_owned(), path: vec![node], timestamp: time, ..Source::default() },
        entity: BinaryEntity {
            sha256: hash,
            size,
            file_format: format,
            datastreams: vec![content],
            ..BinaryEntity::default()
        },
        action: "sourced".to_owned(),
        dequeued: format!("{key}.sandbox-box.1.1767323100"),
        ..BinaryEvent::default()
    }
}

/// Values of a feature in an event, with their labels.
pub(crate) fn values(event: &BinaryEvent, name: &str) -> Vec<(String, String)> {
    let features = event.entity.features.iter().filter(|feature| feature.name == name);
    features.map(|feature| (feature.value.clone(), feature.label.clone())).collect()
}

pub(crate) fn info(event: &BinaryEvent) -> serde_json::Value {
    serde_json::from_slice(event.entity.info.as_bytes()).expect("info is JSON")
}

pub(crate) fn with_action<'a>(events: &'a [BinaryEvent], action: &str) -> Vec<&'a BinaryEvent> {
    events.iter().filter(|event| event.action == action).collect()
}
