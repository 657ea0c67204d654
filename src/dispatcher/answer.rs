//! Bodies of the answers: POST result, and the two-part body of a GET.
//!
//! Contract events.md 1.5 and 1.7. Only bytes are made here; the HTTP edge sends them, and makes errors.

use std::collections::BTreeMap;

use serde::Serialize;

use super::filter::FilterCounts;
use super::plugin_key::{Flow, join_flows};

/// One event that did not pass validation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The element's exact JSON text; empty for Avro.
    pub event: String,
    /// `innerNewMsgInFlight ` and the reason.
    pub error: String,
}

/// The answer to a POST that stored something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostAnswer<'a> {
    /// Events that passed validation, whatever became of them later.
    pub total_ok: usize,
    /// Events that did not.
    pub failures: &'a [Failure],
    /// JSON of the client's own events in their final form; left out when empty.
    pub ok: &'a [Vec<u8>],
}

impl PostAnswer<'_> {
    /// The JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        let ok_bytes: usize = self.ok.iter().map(|event| event.len() + 1).sum();
        let head = format!(r#"{{"total_ok":{},"total_failures":{},"failures":"#, self.total_ok, self.failures.len());
        let mut text = Vec::with_capacity(head.len() + ok_bytes + 64);
        text.extend_from_slice(head.as_bytes());
        text.extend_from_slice(&json(self.failures));
        if !self.ok.is_empty() {
            text.extend_from_slice(br#","ok":"#);
            push_list(&mut text, self.ok);
        }
        text.push(b'}');
        text
    }
}

/// The `info` part of a GET answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info<'a> {
    /// Drops of this call by filter.
    pub filters: &'a FilterCounts,
    /// Events in the other part.
    pub fetched: usize,
    /// Flows of which no topic exists yet.
    pub not_ready: &'a [Flow],
    /// A task consumer is told to wait; then nothing is ready.
    pub paused: bool,
}

impl Info<'_> {
    /// The JSON text; what is empty is left out, because strict readers refuse `null`.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Wire {
            filtered: u64,
            fetched: usize,
            ready: bool,
            paused: bool,
            #[serde(skip_serializing_if = "String::is_empty")]
            consumers_not_ready: String,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            filters: BTreeMap<String, u64>,
        }
        json(&Wire {
            filtered: self.filters.total(),
            fetched: self.fetched,
            ready: !self.paused && self.not_ready.is_empty(),
            paused: self.paused,
            consumers_not_ready: join_flows(self.not_ready),
            filters: self.filters.iter().map(|(key, count)| (key.to_string(), count)).collect(),
        })
    }
}

/// What the `events` part of a GET answer in JSON begins with, before the events, which are JSON texts already and have
/// commas between them; [`EVENTS_TAIL`] ends it.
pub const EVENTS_HEAD: &[u8] = br#"{"events":["#;
/// What the `events` part of a GET answer in JSON ends with.
pub const EVENTS_TAIL: &[u8] = b"]}";

/// The body of a GET answer: `head`, the events part as it is, `tail`; so that large events are not copied once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    /// Value of the `Content-Type` header.
    pub content_type: String,
    /// Everything before the bytes of the events part.
    pub head: Vec<u8>,
    /// Everything after them.
    pub tail: Vec<u8>,
}

impl Multipart {
    /// Frames the two parts of a GET answer (events.md 1.5, X7).
    ///
    /// `random` gives the bytes of the boundary; it is asked again when a boundary occurs in the data. `events` are pieces
    /// of the events part, cut where no boundary can lie across.
    pub fn new(info: &[u8], events: &[&[u8]], random: impl FnMut() -> [u8; BOUNDARY_BYTES]) -> Multipart {
        let boundary = boundary(&[&[info], events].concat(), random);
        let mut head = Vec::with_capacity(info.len() + 512);
        push_part_head(&mut head, &boundary, "info");
        head.extend_from_slice(info);
        head.extend_from_slice(b"\r\n");
        push_part_head(&mut head, &boundary, "events");
        Multipart {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            head,
            tail: format!("\r\n--{boundary}--\r\n").into_bytes(),
        }
    }

    /// Length of the body around an events part of `events_len` bytes.
    pub fn content_length(&self, events_len: usize) -> usize {
        self.head.len() + events_len + self.tail.len()
    }
}

/// Random bytes that one boundary is made of.
pub const BOUNDARY_BYTES: usize = 24;

/// A text of letters and digits, at most 70 characters, that does not occur in any of the parts.
///
/// A number is appended from the second try on, so that the search ends whatever `random` gives.
fn boundary(parts: &[&[u8]], mut random: impl FnMut() -> [u8; BOUNDARY_BYTES]) -> String {
    let mut tries = 0_u64;
    loop {
        let mut text: String = random().iter().map(|byte| format!("{byte:02x}")).collect();
        if tries > 0 {
            text.push_str(&tries.to_string());
        }
        if !parts.iter().any(|part| occurs(text.as_bytes(), part)) {
            return text;
        }
        tries += 1;
    }
}

/// Whether `needle` occurs in `data`.
fn occurs(needle: &[u8], data: &[u8]) -> bool {
    memchr::memmem::find(data, needle).is_some()
}

fn push_part_head(body: &mut Vec<u8>, boundary: &str, name: &str) {
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}.json\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
}

fn push_list(text: &mut Vec<u8>, items: &[Vec<u8>]) {
    text.push(b'[');
    let mut separator: &[u8] = b"";
    for item in items {
        text.extend_from_slice(separator);
        text.extend_from_slice(item);
        separator = b",";
    }
    text.push(b']');
}

fn json<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own structs of texts and numbers always become JSON")
}

#[cfg(test)]
mod tests;
