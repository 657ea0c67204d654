//! The seven event models as plain values (section 3).
//!
//! There is no optional field: as in Avro, the empty value of a type means "absent". `model_version` is no field
//! either, because it is always [`MODEL_VERSION`] in memory. What holds the texts is open: an event of its own has
//! [`String`]s, one that is only looked at and handed on borrows them from the stored bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::json_text::JsonTextOf;
use super::text::Text;
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
pub enum EventOf<T: Text> {
    Binary(Box<BinaryEventOf<T>>),
    Delete(Box<DeleteEventOf<T>>),
    Download(Box<DownloadEventOf<T>>),
    Insert(Box<InsertEventOf<T>>),
    Plugin(Box<PluginEventOf<T>>),
    Retrohunt(Box<RetrohuntEventOf<T>>),
    Status(Box<StatusEventOf<T>>),
}

impl<T: Text> EventOf<T> {
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
    pub fn set_kafka_key(&mut self, key: T) {
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
    pub fn author(&self) -> &AuthorOf<T> {
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
pub struct AuthorOf<T: Text> {
    pub name: T,
    pub version: T,
    pub category: T,
    pub security: T,
}

/// One step from the original submission to the current entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathNodeOf<T: Text> {
    pub author: AuthorOf<T>,
    pub action: T,
    pub sha256: T,
    pub relationship: BTreeMap<T, T>,
    pub timestamp: Timestamp,
    pub file_format: T,
    /// Bytes.
    pub size: u64,
    pub filename: T,
    pub language: T,
}

/// Where an entity came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceOf<T: Text> {
    pub name: T,
    pub references: BTreeMap<T, T>,
    pub security: T,
    /// First node: the submission; last node: the current event.
    pub path: Vec<PathNodeOf<T>>,
    pub timestamp: Timestamp,
    pub settings: BTreeMap<T, T>,
}

/// What is known about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryEntityOf<T: Text> {
    pub sha256: T,
    pub sha512: T,
    pub sha1: T,
    pub md5: T,
    pub ssdeep: T,
    pub tlsh: T,
    /// Bytes.
    pub size: u64,
    pub mime: T,
    pub magic: T,
    pub file_format: T,
    pub file_extension: T,
    /// An object where typed readers are to understand it.
    pub info: JsonTextOf<T::Bytes>,
    pub features: Vec<FeatureOf<T>>,
    /// Only the streams added by this event.
    pub datastreams: Vec<DatastreamOf<T>>,
}

/// One observation about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureOf<T: Text> {
    pub name: T,
    pub value: T,
    /// Member `type`, one of [`FEATURE_TYPES`] where it was checked.
    pub feature_type: T,
    pub label: T,
    /// Bytes of the content it covers.
    pub size: u64,
    /// Bytes from the start of the content.
    pub offset: u64,
}

/// A stored stream of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatastreamOf<T: Text> {
    pub identify_version: u32,
    pub label: T,
    /// Bytes.
    pub size: u64,
    pub sha512: T,
    pub sha256: T,
    pub sha1: T,
    pub md5: T,
    pub ssdeep: T,
    pub tlsh: T,
    pub mime: T,
    pub magic: T,
    pub file_format: T,
    pub file_extension: T,
    pub language: T,
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
pub struct BinaryEventOf<T: Text> {
    pub kafka_key: T,
    pub timestamp: Timestamp,
    pub author: AuthorOf<T>,
    pub source: SourceOf<T>,
    pub entity: BinaryEntityOf<T>,
    pub action: T,
    /// Task id, set when the event is handed to a task consumer.
    pub dequeued: T,
    pub retries: u32,
    pub flags: Flags,
    pub track_source_references: T,
    pub track_links: Vec<T>,
    pub track_authors: Vec<T>,
}

/// A plugin's report about its work on one binary event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusEventOf<T: Text> {
    pub kafka_key: T,
    pub timestamp: Timestamp,
    pub author: AuthorOf<T>,
    pub entity: StatusEntityOf<T>,
}

/// Content of a status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatusEntityOf<T: Text> {
    /// The event that was worked on.
    pub input: BinaryEventOf<T>,
    pub status: T,
    /// Seconds.
    pub runtime: f64,
    pub error: T,
    pub message: T,
    pub results: Vec<BinaryEventOf<T>>,
}

/// A request for, or the outcome of, fetching a file by its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadEventOf<T: Text> {
    pub kafka_key: T,
    pub timestamp: Timestamp,
    pub author: AuthorOf<T>,
    pub source: SourceOf<T>,
    pub action: T,
    pub entity: DownloadEntityOf<T>,
}

/// Content of a download.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadEntityOf<T: Text> {
    pub hash: T,
    pub direct_url: T,
    pub direct_expiry: Timestamp,
    pub pcap: bool,
    pub category: T,
    pub category_quota: u32,
    /// An object where typed readers are to understand it.
    pub metadata: JsonTextOf<T::Bytes>,
}

/// A child file that a person attaches to a known parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsertEventOf<T: Text> {
    pub kafka_key: T,
    pub timestamp: Timestamp,
    pub author: AuthorOf<T>,
    pub entity: InsertEntityOf<T>,
    pub track_link: T,
    pub track_author: T,
}

/// Content of an insert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsertEntityOf<T: Text> {
    /// SourceOf<T> under which the child's streams are stored now.
    pub original_source: T,
    pub parent_sha256: T,
    pub child: BinaryEntityOf<T>,
    /// The node to append to the parent's path.
    pub child_history: PathNodeOf<T>,
}

/// A plugin's registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginEventOf<T: Text> {
    pub kafka_key: T,
    pub timestamp: Timestamp,
    pub author: AuthorOf<T>,
    pub entity: PluginEntityOf<T>,
}

/// Content of a plugin registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginEntityOf<T: Text> {
    pub name: T,
    pub version: T,
    pub category: T,
    pub contact: T,
    pub description: T,
    pub features: Vec<PluginFeatureOf<T>>,
    pub security: T,
    /// Values are JSON text.
    pub config: BTreeMap<T, T>,
}

/// A feature a plugin announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginFeatureOf<T: Text> {
    pub name: T,
    /// Member `type`, one of [`FEATURE_TYPES`] where it was checked.
    pub feature_type: T,
    pub desc: T,
    /// Kept in Avro, never written in JSON (D3).
    pub tags: Vec<T>,
}

/// Progress of a search over old files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetrohuntEventOf<T: Text> {
    pub kafka_key: T,
    pub timestamp: Timestamp,
    pub author: AuthorOf<T>,
    /// Any JSON, opaque to the server.
    pub entity: JsonTextOf<T::Bytes>,
    pub action: T,
    pub source: RetrohuntSourceOf<T>,
}

/// Where a retrohunt came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetrohuntSourceOf<T: Text> {
    pub submitter: T,
    pub security: T,
    pub timestamp: Timestamp,
}

/// An order to drop events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteEventOf<T: Text> {
    pub kafka_key: T,
    pub timestamp: Timestamp,
    pub author: AuthorOf<T>,
    pub entity: DeleteEntityOf<T>,
    pub action: T,
}

/// Content of a delete; the action says which part counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteEntityOf<T: Text> {
    pub reason: T,
    pub submission: DeleteSubmissionOf<T>,
    pub author: DeleteAuthorOf<T>,
    pub link: DeleteLinkOf<T>,
    pub ids: DeleteIdsOf<T>,
}

/// Drops events of one submission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteSubmissionOf<T: Text> {
    pub track_source_references: T,
    /// The zero time means: whatever the submission's time.
    pub timestamp: Timestamp,
}

/// Drops events of one author made before a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteAuthorOf<T: Text> {
    pub track_author: T,
    pub timestamp: Timestamp,
}

/// Drops events that have one link in their path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteLinkOf<T: Text> {
    pub track_link: T,
}

/// Drops events by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteIdsOf<T: Text> {
    pub ids: Vec<T>,
}

/// See [`AuthorOf`].
pub type Author = AuthorOf<String>;
/// See [`BinaryEntityOf`].
pub type BinaryEntity = BinaryEntityOf<String>;
/// See [`BinaryEventOf`].
pub type BinaryEvent = BinaryEventOf<String>;
/// See [`DatastreamOf`].
pub type Datastream = DatastreamOf<String>;
/// See [`DeleteAuthorOf`].
pub type DeleteAuthor = DeleteAuthorOf<String>;
/// See [`DeleteEntityOf`].
pub type DeleteEntity = DeleteEntityOf<String>;
/// See [`DeleteEventOf`].
pub type DeleteEvent = DeleteEventOf<String>;
/// See [`DeleteIdsOf`].
pub type DeleteIds = DeleteIdsOf<String>;
/// See [`DeleteLinkOf`].
pub type DeleteLink = DeleteLinkOf<String>;
/// See [`DeleteSubmissionOf`].
pub type DeleteSubmission = DeleteSubmissionOf<String>;
/// See [`DownloadEntityOf`].
pub type DownloadEntity = DownloadEntityOf<String>;
/// See [`DownloadEventOf`].
pub type DownloadEvent = DownloadEventOf<String>;
/// See [`EventOf`].
pub type Event = EventOf<String>;
/// See [`FeatureOf`].
pub type Feature = FeatureOf<String>;
/// See [`InsertEntityOf`].
pub type InsertEntity = InsertEntityOf<String>;
/// See [`InsertEventOf`].
pub type InsertEvent = InsertEventOf<String>;
/// See [`PathNodeOf`].
pub type PathNode = PathNodeOf<String>;
/// See [`PluginEntityOf`].
pub type PluginEntity = PluginEntityOf<String>;
/// See [`PluginEventOf`].
pub type PluginEvent = PluginEventOf<String>;
/// See [`PluginFeatureOf`].
pub type PluginFeature = PluginFeatureOf<String>;
/// See [`RetrohuntEventOf`].
pub type RetrohuntEvent = RetrohuntEventOf<String>;
/// See [`RetrohuntSourceOf`].
pub type RetrohuntSource = RetrohuntSourceOf<String>;
/// See [`SourceOf`].
pub type Source = SourceOf<String>;
/// See [`StatusEntityOf`].
pub type StatusEntity = StatusEntityOf<String>;
/// See [`StatusEventOf`].
pub type StatusEvent = StatusEventOf<String>;

/// An event whose texts lie in the bytes it was read from, as far as they are there as they are.
pub type EventIn<'a> = EventOf<Cow<'a, str>>;
