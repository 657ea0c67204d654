//! Writing events as JSON so that strict readers accept them (section 2, emit rules, and D1 to D3, D7).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Deref;

use super::json_text::{JsonKind, JsonTextOf};
use super::text::Text;
use super::timestamp::Timestamp;
use super::types::{
    AuthorOf, BinaryEntityOf, BinaryEventOf, DatastreamOf, DeleteEntityOf, DeleteEventOf, DownloadEntityOf,
    DownloadEventOf, EventOf, FeatureOf, Flags, InsertEventOf, MODEL_VERSION, PathNodeOf, PluginEntityOf,
    PluginEventOf, PluginFeatureOf, RetrohuntEventOf, SourceOf, StatusEntityOf, StatusEventOf,
};

/// The event as JSON text.
///
/// The text is always valid JSON. It satisfies the emit schema if and only if [`super::unreadable`] finds nothing.
pub fn to_json<T: Text>(event: &EventOf<T>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_json(event, &mut out);
    out
}

/// Appends what [`to_json`] returns.
pub fn write_json<T: Text>(event: &EventOf<T>, out: &mut Vec<u8>) {
    match event {
        EventOf::Binary(event) => binary(event, out),
        EventOf::Delete(event) => delete(event, out),
        EventOf::Download(event) => download(event, out),
        EventOf::Insert(event) => insert(event, out),
        EventOf::Plugin(event) => plugin(event, out),
        EventOf::Retrohunt(event) => retrohunt(event, out),
        EventOf::Status(event) => status(event, out),
    }
}

/// A JSON object under construction; the plain methods always write, those with `some_` drop what is empty.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn close(self) {
        self.out.push(b'}');
    }

    /// Starts a member; names are our own and need no escapes.
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn text(&mut self, name: &str, value: &str) {
        string(value, self.name(name));
    }

    fn some_text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        written(write!(self.name(name), "{value}"));
    }

    fn some_number(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.number(name, value);
        }
    }

    fn some_true(&mut self, name: &str, value: bool) {
        if value {
            self.name(name).extend_from_slice(b"true");
        }
    }

    fn time(&mut self, name: &str, value: Timestamp) {
        written(write!(self.name(name), "\"{value}\""));
    }

    fn some_time(&mut self, name: &str, value: Timestamp) {
        if !value.is_zero() {
            self.time(name, value);
        }
    }

    fn some_map<T: Text>(&mut self, name: &str, value: &BTreeMap<T, T>) {
        if value.is_empty() {
            return;
        }
        let out = self.name(name);
        out.push(b'{');
        for (index, (key, value)) in value.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            string(key, out);
            out.push(b':');
            string(value, out);
        }
        out.push(b'}');
    }

    fn list<T>(&mut self, name: &str, values: &[T], write: fn(&T, &mut Vec<u8>)) {
        let out = self.name(name);
        out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(value, out);
        }
        out.push(b']');
    }

    fn some_list<T>(&mut self, name: &str, values: &[T], write: fn(&T, &mut Vec<u8>)) {
        if !values.is_empty() {
            self.list(name, values, write);
        }
    }

    fn some_texts<T: Text>(&mut self, name: &str, values: &[T]) {
        self.some_list(name, values, |value, out| string(value, out));
    }

    /// Free-form JSON: left out when absent, `null`, or (in from Avro) not JSON at all.
    fn some_json<B: Deref<Target = [u8]>>(&mut self, name: &str, value: &JsonTextOf<B>) {
        if let Ok(JsonKind::Object | JsonKind::Other(_)) = value.kind() {
            self.name(name).extend_from_slice(value.as_bytes());
        }
    }

    fn head<T: Text>(&mut self, kafka_key: &str, timestamp: Timestamp, by: &AuthorOf<T>) {
        self.number("model_version", u64::from(MODEL_VERSION));
        self.text("kafka_key", kafka_key);
        self.time("timestamp", timestamp);
        author(by, self.name("author"));
    }
}

/// A JSON string, with only the escapes that JSON demands.
fn string(text: &str, out: &mut Vec<u8>) {
    // No early end: so the compiler looks at many bytes at once. Nearly all texts need no escapes.
    let escapes = text.bytes().fold(false, |any, byte| any | (byte < b' ') | (byte == b'"') | (byte == b'\\'));
    if escapes {
        return serde_json::to_writer(out, text).expect("writing a string to a vector cannot fail");
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn written(outcome: std::io::Result<()>) {
    outcome.expect("writing to a vector cannot fail");
}

fn author<T: Text>(author: &AuthorOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.text("name", &author.name);
    object.some_text("version", &author.version);
    object.some_text("category", &author.category);
    object.some_text("security", &author.security);
    object.close();
}

fn path_node<T: Text>(node: &PathNodeOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    author(&node.author, object.name("author"));
    object.text("action", &node.action);
    object.text("sha256", &node.sha256);
    object.some_map("relationship", &node.relationship);
    object.time("timestamp", node.timestamp);
    object.some_text("file_format", &node.file_format);
    object.some_number("size", node.size);
    object.some_text("filename", &node.filename);
    object.some_text("language", &node.language);
    object.close();
}

fn source<T: Text>(source: &SourceOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.text("name", &source.name);
    object.some_map("references", &source.references);
    object.some_text("security", &source.security);
    object.list("path", &source.path, path_node);
    object.time("timestamp", source.timestamp);
    object.some_map("settings", &source.settings);
    object.close();
}

fn feature<T: Text>(feature: &FeatureOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.text("name", &feature.name);
    object.text("value", &feature.value);
    object.text("type", &feature.feature_type);
    object.some_text("label", &feature.label);
    object.some_number("size", feature.size);
    object.some_number("offset", feature.offset);
    object.close();
}

fn datastream<T: Text>(stream: &DatastreamOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.some_number("identify_version", u64::from(stream.identify_version));
    object.text("label", &stream.label);
    object.number("size", stream.size);
    object.text("sha512", &stream.sha512);
    object.text("sha256", &stream.sha256);
    object.text("sha1", &stream.sha1);
    object.text("md5", &stream.md5);
    object.some_text("ssdeep", &stream.ssdeep);
    object.some_text("tlsh", &stream.tlsh);
    object.text("mime", &stream.mime);
    object.text("magic", &stream.magic);
    object.some_text("file_format", &stream.file_format);
    object.some_text("file_extension", &stream.file_extension);
    object.some_text("language", &stream.language);
    object.close();
}

fn binary_entity<T: Text>(entity: &BinaryEntityOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.text("sha256", &entity.sha256);
    object.some_text("sha512", &entity.sha512);
    object.some_text("sha1", &entity.sha1);
    object.some_text("md5", &entity.md5);
    object.some_text("ssdeep", &entity.ssdeep);
    object.some_text("tlsh", &entity.tlsh);
    object.some_number("size", entity.size);
    object.some_text("mime", &entity.mime);
    object.some_text("magic", &entity.magic);
    object.some_text("file_format", &entity.file_format);
    object.some_text("file_extension", &entity.file_extension);
    object.some_json("info", &entity.info);
    object.some_list("features", &entity.features, feature);
    object.some_list("datastreams", &entity.datastreams, datastream);
    object.close();
}

fn flags(flags: Flags, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.some_true("bypass_cache", flags.bypass_cache);
    object.some_true("expedite", flags.expedite);
    object.some_true("retry", flags.retry);
    object.close();
}

fn binary<T: Text>(event: &BinaryEventOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.head(&event.kafka_key, event.timestamp, &event.author);
    source(&event.source, object.name("source"));
    binary_entity(&event.entity, object.name("entity"));
    object.text("action", &event.action);
    object.some_text("dequeued", &event.dequeued);
    object.some_number("retries", u64::from(event.retries));
    flags(event.flags, object.name("flags"));
    object.some_text("track_source_references", &event.track_source_references);
    object.some_texts("track_links", &event.track_links);
    object.some_texts("track_authors", &event.track_authors);
    object.close();
}

fn status<T: Text>(event: &StatusEventOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.head(&event.kafka_key, event.timestamp, &event.author);
    status_entity(&event.entity, object.name("entity"));
    object.close();
}

fn status_entity<T: Text>(entity: &StatusEntityOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    binary(&entity.input, object.name("input"));
    object.text("status", &entity.status);
    if entity.runtime != 0.0 && entity.runtime.is_finite() {
        let text = format!("{:?}", entity.runtime);
        object.name("runtime").extend_from_slice(text.as_bytes());
    }
    object.some_text("error", &entity.error);
    object.some_text("message", &entity.message);
    object.some_list("results", &entity.results, binary);
    object.close();
}

fn download<T: Text>(event: &DownloadEventOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.head(&event.kafka_key, event.timestamp, &event.author);
    source(&event.source, object.name("source"));
    object.text("action", &event.action);
    download_entity(&event.entity, object.name("entity"));
    object.close();
}

fn download_entity<T: Text>(entity: &DownloadEntityOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.text("hash", &entity.hash);
    object.some_text("direct_url", &entity.direct_url);
    object.some_time("direct_expiry", entity.direct_expiry);
    object.some_true("pcap", entity.pcap);
    object.some_text("category", &entity.category);
    object.some_number("category_quota", u64::from(entity.category_quota));
    object.some_json("metadata", &entity.metadata);
    object.close();
}

fn insert<T: Text>(event: &InsertEventOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.head(&event.kafka_key, event.timestamp, &event.author);
    let mut entity = Object::open(object.name("entity"));
    entity.text("original_source", &event.entity.original_source);
    entity.text("parent_sha256", &event.entity.parent_sha256);
    binary_entity(&event.entity.child, entity.name("child"));
    path_node(&event.entity.child_history, entity.name("child_history"));
    entity.close();
    object.some_text("track_link", &event.track_link);
    object.some_text("track_author", &event.track_author);
    object.close();
}

fn plugin<T: Text>(event: &PluginEventOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.head(&event.kafka_key, event.timestamp, &event.author);
    plugin_entity(&event.entity, object.name("entity"));
    object.close();
}

fn plugin_entity<T: Text>(entity: &PluginEntityOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.text("name", &entity.name);
    object.some_text("version", &entity.version);
    object.some_text("category", &entity.category);
    object.some_text("contact", &entity.contact);
    object.some_text("description", &entity.description);
    object.some_list("features", &entity.features, plugin_feature);
    object.some_text("security", &entity.security);
    object.some_map("config", &entity.config);
    object.close();
}

/// No `tags`, always `desc` (D3).
fn plugin_feature<T: Text>(feature: &PluginFeatureOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.text("name", &feature.name);
    object.text("type", &feature.feature_type);
    object.text("desc", &feature.desc);
    object.close();
}

fn retrohunt<T: Text>(event: &RetrohuntEventOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.head(&event.kafka_key, event.timestamp, &event.author);
    let is_json = matches!(event.entity.kind(), Ok(JsonKind::Object | JsonKind::Other(_)));
    let entity = if is_json { event.entity.as_bytes() } else { b"null" };
    object.name("entity").extend_from_slice(entity);
    object.some_text("action", &event.action);
    let mut source = Object::open(object.name("source"));
    source.some_text("submitter", &event.source.submitter);
    source.some_text("security", &event.source.security);
    source.time("timestamp", event.source.timestamp);
    source.close();
    object.close();
}

fn delete<T: Text>(event: &DeleteEventOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.head(&event.kafka_key, event.timestamp, &event.author);
    delete_entity(&event.entity, object.name("entity"));
    object.text("action", &event.action);
    object.close();
}

/// The parts that carry nothing stay out (D2); typed readers want both members of `author`.
fn delete_entity<T: Text>(entity: &DeleteEntityOf<T>, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.text("reason", &entity.reason);
    if !entity.submission.track_source_references.is_empty() || !entity.submission.timestamp.is_zero() {
        let mut submission = Object::open(object.name("submission"));
        submission.text("track_source_references", &entity.submission.track_source_references);
        submission.some_time("timestamp", entity.submission.timestamp);
        submission.close();
    }
    if !entity.author.track_author.is_empty() || !entity.author.timestamp.is_zero() {
        let mut author = Object::open(object.name("author"));
        author.text("track_author", &entity.author.track_author);
        author.time("timestamp", entity.author.timestamp);
        author.close();
    }
    if !entity.link.track_link.is_empty() {
        let mut link = Object::open(object.name("link"));
        link.text("track_link", &entity.link.track_link);
        link.close();
    }
    if !entity.ids.ids.is_empty() {
        let mut ids = Object::open(object.name("ids"));
        ids.some_texts("ids", &entity.ids.ids);
        ids.close();
    }
    object.close();
}
