//! Azul event models: what an event is in memory, in JSON and in Avro, which events are acceptable, and how keys and
//! tracking strings are computed.
//!
//! Everything here is pure: bytes and values in, bytes and values out. The dispatcher's pipelines and the HTTP and
//! Kafka edges call it; it knows no topics, sockets or clocks. The contract is `models.md`; section numbers in the doc
//! comments refer to it. Time goes through [`Timestamp`], which remembers the offset it arrived with, because keys
//! depend on it.

mod avro;
mod avro_wire;
mod body;
mod json_read;
mod json_text;
mod json_write;
mod key;
mod text;
mod timestamp;
mod types;
mod valid;

#[cfg(test)]
mod tests;

pub use avro::{
    AVRO_BULK_TAIL, avro_bulk_head, decode_avro, decode_avro_bulk, encode_avro, encode_avro_bulk, look_avro, write_avro,
};
pub use avro_wire::{AvroError, Wire};
pub use body::{BodyError, Element, decode_body_avro, decode_body_json, decode_event_json};
pub use json_text::{JsonText, JsonTextOf, MAX_JSON_DEPTH};
pub use json_write::{to_json, write_json};
pub use key::{kafka_key, key_descriptor, set_tracking};
pub use text::Text;
pub use timestamp::{Timestamp, TimestampError};
pub use types::{
    Author, AuthorOf, BINARY_ACTIONS, BinaryEntity, BinaryEntityOf, BinaryEvent, BinaryEventOf, DELETE_ACTIONS,
    DOWNLOAD_ACTIONS, Datastream, DatastreamOf, DeleteAuthor, DeleteAuthorOf, DeleteEntity, DeleteEntityOf,
    DeleteEvent, DeleteEventOf, DeleteIds, DeleteIdsOf, DeleteLink, DeleteLinkOf, DeleteSubmission, DeleteSubmissionOf,
    DownloadEntity, DownloadEntityOf, DownloadEvent, DownloadEventOf, Event, EventIn, EventOf, FEATURE_TYPES, Feature,
    FeatureOf, Flags, InsertEntity, InsertEntityOf, InsertEvent, InsertEventOf, MODEL_VERSION, Model, PathNode,
    PathNodeOf, PluginEntity, PluginEntityOf, PluginEvent, PluginEventOf, PluginFeature, PluginFeatureOf,
    RETROHUNT_ACTIONS, RetrohuntEvent, RetrohuntEventOf, RetrohuntSource, RetrohuntSourceOf, STATUSES, STREAM_LABELS,
    Source, SourceOf, StatusEntity, StatusEntityOf, StatusEvent, StatusEventOf,
};
pub use valid::{Invalid, SOURCE_NAME_MAX_CHARS, Unreadable, check_binary, check_valid, is_source_name, unreadable};
