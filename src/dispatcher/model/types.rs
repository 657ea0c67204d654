//! The seven event models as plain values (section 3).
//!
//! There is no optional field: as in Avro, the empty value of a type means "absent". `model_version` is no field
//! either, because it is always [`MODEL_VERSION`] in memory.

use std::collections::BTreeMap;
use std::fmt;

use super::json_text::JsonText;
use super::timestamp::Timestamp;

/// The version every event has in memory and on the way out (section 5).
pub const MODEL_VERSION: u32 = 6;

/// Actions of binary events and path nodes.
pub const BINARY_ACTIONS: [&str; 5] = ["sourced", "extracted", "augmented", "mapped", "enriched"];

/// Actions of download events.
pub const DOWNLOAD_ACTIONS: [&str; 5] =
    ["requested", "success", "failed", "failed-not-found", "skipped-already-present"];

/// Actions of retrohunt events.
pub const RETROHUNT_ACTIONS: [&str; 4] = ["submitted", "starting", "running", "completed"];

/// Actions of delete events.
pub const DELETE_ACTIONS: [&str; 4] = ["submission", "link", "author", "ids"];

/// Words a status may carry in `entity.status`.
pub const STATUSES: [&str; 14] = [
    "completed",
    "completed-empty",
    "completed-with-errors",
    "opt-out",
    "heartbeat",
    "dequeued",
    "download-requested",
    "error-exception",
    "error-network",
    "error-runner",
    "error-input",
    "error-output",
    "error-timeout",
    "error-out-of-memory",
];

/// Types of binary and plugin features.
pub const FEATURE_TYPES: [&str; 7] = ["integer", "float", "string", "binary", "datetime", "filepath", "uri"];

/// Labels a stream may have.
pub const STREAM_LABELS: [&str; 16] = [
    "assemblyline",
    "cape_report",
    "content",
    "cs_call_tree",
    "decompiled_cs",
    "decompiled_c",
    "decompiled_java",
    "deob_js",
    "password_dictionary",
    "pcap",
    "report",
    "safe_png",
    "screenshot",
    "test",
    "text",
    "yara_rule_hit",
];

/// Which of the seven models an event has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Model {
    Binary,
    Delete,
    Download,
    Insert,
    Plugin,
    Retrohunt,
    Status,
}

impl Model {
    /// Every model, in alphabetical order.
    pub const ALL: [Self; 7] =
        [Self::Binary, Self::Delete, Self::Download, Self::Insert, Self::Plugin, Self::Retrohunt, Self::Status];

    /// The model with exactly this lower-case name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.as_str() == name)
    }

    /// The name used in URLs and topic names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Delete => "delete",
            Self::Download => "download",
            Self::Insert => "insert",
            Self::Plugin => "plugin",
            Self::Retrohunt => "retrohunt",
            Self::Status => "status",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One event of any model.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Binary(Box<BinaryEvent>),
    Delete(Box<DeleteEvent>),
    Download(Box<DownloadEvent>),
    Insert(Box<InsertEvent>),
    Plugin(Box<PluginEvent>),
    Retrohunt(Box<RetrohuntEvent>),
    Status(Box<StatusEvent>),
}

impl Event {
    /// Which model this is.
    pub const fn model(&self) -> Model {
        match self {
            Self::Binary(_) => Model::Binary,
            Self::Delete(_) => Model::Delete,
            Self::Download(_) => Model::Download,
            Self::Insert(_) => Model::Insert,
            Self::Plugin(_) => Model::Plugin,
            Self::Retrohunt(_) => Model::Retrohunt,
            Self::Status(_) => Model::Status,
        }
    }

    /// The key the event carries: the server's once [`super::kafka_key`] was put in, before that whatever came.
    pub fn kafka_key(&self) -> &str {
        match self {
            Self::Binary(event) => &event.kafka_key,
            Self::Delete(event) => &event.kafka_key,
            Self::Download(event) => &event.kafka_key,
            Self::Insert(event) => &event.kafka_key,
            Self::Plugin(event) => &event.kafka_key,
            Self::Retrohunt(event) => &event.kafka_key,
            Self::Status(event) => &event.kafka_key,
        }
    }

    /// Puts `key` in place of the key the event carries.
    pub fn set_kafka_key(&mut self, key: String) {
        match self {
            Self::Binary(event) => event.kafka_key = key,
            Self::Delete(event) => event.kafka_key = key,
            Self::Download(event) => event.kafka_key = key,
            Self::Insert(event) => event.kafka_key = key,
            Self::Plugin(event) => event.kafka_key = key,
            Self::Retrohunt(event) => event.kafka_key = key,
            Self::Status(event) => event.kafka_key = key,
        }
    }

    /// Who made the event.
    pub fn author(&self) -> &Author {
        match self {
            Self::Binary(event) => &event.author,
            Self::Delete(event) => &event.author,
            Self::Download(event) => &event.author,
            Self::Insert(event) => &event.author,
            Self::Plugin(event) => &event.author,
            Self::Retrohunt(event) => &event.author,
            Self::Status(event) => &event.author,
        }
    }

    /// When the event was made.
    pub fn timestamp(&self) -> Timestamp {
        match self {
            Self::Binary(event) => event.timestamp,
            Self::Delete(event) => event.timestamp,
            Self::Download(event) => event.timestamp,
            Self::Insert(event) => event.timestamp,
            Self::Plugin(event) => event.timestamp,
            Self::Retrohunt(event) => event.timestamp,
            Self::Status(event) => event.timestamp,
        }
    }
}

/// Who produced something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    pub name: String,
    pub version: String,
    pub category: String,
    pub security: String,
}

/// One step from the original submission to the current entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathNode {
    pub author: Author,
    pub action: String,
    pub sha256: String,
    pub relationship: BTreeMap<String, String>,
    pub timestamp: Timestamp,
    pub file_format: String,
    /// Bytes.
    pub size: u64,
    pub filename: String,
    pub language: String,
}

/// Where an entity came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub references: BTreeMap<String, String>,
    pub security: String,
    /// First node: the submission; last node: the current event.
    pub path: Vec<PathNode>,
    pub timestamp: Timestamp,
    pub settings: BTreeMap<String, String>,
}

/// What is known about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryEntity {
    pub sha256: String,
    pub sha512: String,
    pub sha1: String,
    pub md5: String,
    pub ssdeep: String,
    pub tlsh: String,
    /// Bytes.
    pub size: u64,
    pub mime: String,
    pub magic: String,
    pub file_format: String,
    pub file_extension: String,
    /// An object where typed readers are to understand it.
    pub info: JsonText,
    pub features: Vec<Feature>,
    /// Only the streams added by this event.
    pub datastreams: Vec<Datastream>,
}

/// One observation about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feature {
    pub name: String,
    pub value: String,
    /// Member `type`, one of [`FEATURE_TYPES`] where it was checked.
    pub feature_type: String,
    pub label: String,
    /// Bytes of the content it covers.
    pub size: u64,
    /// Bytes from the start of the content.
    pub offset: u64,
}

/// A stored stream of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datastream {
    pub identify_version: u32,
    pub label: String,
    /// Bytes.
    pub size: u64,
    pub sha512: String,
    pub sha256: String,
    pub sha1: String,
    pub md5: String,
    pub ssdeep: String,
    pub tlsh: String,
    pub mime: String,
    pub magic: String,
    pub file_format: String,
    pub file_extension: String,
    pub language: String,
}

/// How a binary event wants to be handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub bypass_cache: bool,
    pub expedite: bool,
    pub retry: bool,
}

/// A fact about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryEvent {
    pub kafka_key: String,
    pub timestamp: Timestamp,
    pub author: Author,
    pub source: Source,
    pub entity: BinaryEntity,
    pub action: String,
    /// Task id, set when the event is handed to a task consumer.
    pub dequeued: String,
    pub retries: u32,
    pub flags: Flags,
    pub track_source_references: String,
    pub track_links: Vec<String>,
    pub track_authors: Vec<String>,
}

/// A plugin's report about its work on one binary event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusEvent {
    pub kafka_key: String,
    pub timestamp: Timestamp,
    pub author: Author,
    pub entity: StatusEntity,
}

/// Content of a status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusEntity {
    /// The event that was worked on.
    pub input: BinaryEvent,
    pub status: String,
    /// Seconds.
    pub runtime: f64,
    pub error: String,
    pub message: String,
    pub results: Vec<BinaryEvent>,
}

/// A request for, or the outcome of, fetching a file by its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadEvent {
    pub kafka_key: String,
    pub timestamp: Timestamp,
    pub author: Author,
    pub source: Source,
    pub action: String,
    pub entity: DownloadEntity,
}

/// Content of a download.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadEntity {
    pub hash: String,
    pub direct_url: String,
    pub direct_expiry: Timestamp,
    pub pcap: bool,
    pub category: String,
    pub category_quota: u32,
    /// An object where typed readers are to understand it.
    pub metadata: JsonText,
}

/// A child file that a person attaches to a known parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsertEvent {
    pub kafka_key: String,
    pub timestamp: Timestamp,
    pub author: Author,
    pub entity: InsertEntity,
    pub track_link: String,
    pub track_author: String,
}

/// Content of an insert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsertEntity {
    /// Source under which the child's streams are stored now.
    pub original_source: String,
    pub parent_sha256: String,
    pub child: BinaryEntity,
    /// The node to append to the parent's path.
    pub child_history: PathNode,
}

/// A plugin's registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginEvent {
    pub kafka_key: String,
    pub timestamp: Timestamp,
    pub author: Author,
    pub entity: PluginEntity,
}

/// Content of a plugin registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginEntity {
    pub name: String,
    pub version: String,
    pub category: String,
    pub contact: String,
    pub description: String,
    pub features: Vec<PluginFeature>,
    pub security: String,
    /// Values are JSON text.
    pub config: BTreeMap<String, String>,
}

/// A feature a plugin announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginFeature {
    pub name: String,
    /// Member `type`, one of [`FEATURE_TYPES`] where it was checked.
    pub feature_type: String,
    pub desc: String,
    /// Kept in Avro, never written in JSON (D3).
    pub tags: Vec<String>,
}

/// Progress of a search over old files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetrohuntEvent {
    pub kafka_key: String,
    pub timestamp: Timestamp,
    pub author: Author,
    /// Any JSON, opaque to the server.
    pub entity: JsonText,
    pub action: String,
    pub source: RetrohuntSource,
}

/// Where a retrohunt came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetrohuntSource {
    pub submitter: String,
    pub security: String,
    pub timestamp: Timestamp,
}

/// An order to drop events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteEvent {
    pub kafka_key: String,
    pub timestamp: Timestamp,
    pub author: Author,
    pub entity: DeleteEntity,
    pub action: String,
}

/// Content of a delete; the action says which part counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteEntity {
    pub reason: String,
    pub submission: DeleteSubmission,
    pub author: DeleteAuthor,
    pub link: DeleteLink,
    pub ids: DeleteIds,
}

/// Drops events of one submission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteSubmission {
    pub track_source_references: String,
    /// The zero time means: whatever the submission's time.
    pub timestamp: Timestamp,
}

/// Drops events of one author made before a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteAuthor {
    pub track_author: String,
    pub timestamp: Timestamp,
}

/// Drops events that have one link in their path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteLink {
    pub track_link: String,
}

/// Drops events by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteIds {
    pub ids: Vec<String>,
}
