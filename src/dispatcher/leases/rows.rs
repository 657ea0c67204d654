//! How leases, events that wait for their next run, and what is counted of them are written down.
//!
//! Every row is one line of JSON; those of leases and waiting events have the event behind it, Avro.

use std::collections::BTreeMap;

use azulite_storage::index::IndexError;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::model::{self, BinaryEvent, Event, Model};
use super::attempt::Attempt;
use super::policy::Policy;
use crate::broker::{LogStore, Value};

pub(super) const LEASE: &[u8] = b"task\0";
pub(super) const WAITING: &[u8] = b"retry\0";
const JOB: &[u8] = b"job\0";
const TAKEN: &[u8] = b"ledger-in\0";
const ENDED: &[u8] = b"ledger-out\0";
/// Ended leases of one event at one consumer of which a late status is still taken, the last ones.
const MOST_ENDED: usize = 64;
/// Longest id that is kept: well above what a key, a name and a version within their limits make.
pub(super) const ID_MAX_BYTES: usize = 16 << 10;

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// One event that is a consumer's to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// The consumer.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The part of the consumer's work, where it has parts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// The event.
    pub kafka_key: String,
    /// The entity.
    pub sha256: String,
    /// Failed runs before this one.
    pub attempt: u32,
    /// Where the event lies; `None` when only this row has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// It is kept here whole although it has a place, whose topic may forget it sooner than it is done with.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) whole: bool,
    /// Bytes of the stored event; 0 in rows from before that was noted.
    pub(super) bytes: u32,
    /// The event, Avro: whole, or as statuses carry it when it lies elsewhere.
    #[serde(skip)]
    pub(super) event: Bytes,
}

impl Work {
    /// The event as it is kept here.
    pub(crate) fn kept_event(&self) -> Option<BinaryEvent> {
        let Ok(Event::Binary(binary)) = model::decode_avro(Model::Binary, &self.event) else { return None };
        Some(*binary)
    }

    /// Whether this row is all that is needed to run the event again.
    pub(super) fn is_whole(&self) -> bool {
        self.whole || self.place.is_none()
    }

    /// Bytes of the event, about.
    pub(super) fn event_bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX).max(self.event.len())
    }

    /// Where the attempts are counted.
    pub(super) fn job_key(&self) -> Vec<u8> {
        let consumer = consumer_key(&self.name, &self.version);
        [JOB, self.kafka_key.as_bytes(), b"\0", consumer.as_bytes(), self.stage.as_bytes()].concat()
    }
}

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The id that the consumer was given.
    #[serde(skip)]
    pub id: String,
    /// What it is about.
    #[serde(flatten)]
    pub work: Work,
    /// When the event was handed out, milliseconds since 1970.
    pub since_ms: i64,
    /// When the consumer was last heard of, milliseconds since 1970.
    pub heard_ms: i64,
    /// When it ends, milliseconds since 1970; 0 in rows from before leases ended by themselves.
    #[serde(default)]
    pub until_ms: i64,
    /// The life of the process that the consumer runs in, when it is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<u64>,
}

impl Lease {
    pub(super) fn read(key: &[u8], bytes: &Bytes) -> Option<Self> {
        let id = String::from_utf8(key.strip_prefix(LEASE)?.to_vec()).ok()?;
        let (mut lease, event): (Self, Bytes) = read(bytes)?;
        lease.id = id;
        lease.work.event = event;
        if lease.work.kafka_key.is_empty() {
            lease.work.kafka_key = lease.work.kept_event()?.kafka_key;
        }
        Some(lease)
    }

    pub(super) fn put(&self) -> Value {
        (lease_key(&self.id), Some(write(self, &self.work.event)))
    }

    /// With its consumer heard of now. One from a clock that was ahead begins now.
    pub(super) fn heard_at(&self, policy: &Policy, now_ms: i64) -> Self {
        let since_ms = self.since_ms.min(now_ms);
        let until_ms = now_ms.saturating_add(policy.lease_ms).min(since_ms.saturating_add(policy.lease_max_ms));
        Self { since_ms, heard_ms: now_ms, until_ms, ..self.clone() }
    }
}

/// One event that waits for its next run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its row.
    #[serde(skip)]
    pub(super) key: Vec<u8>,
    /// What it is about.
    #[serde(flatten)]
    pub work: Work,
    /// When it is due, milliseconds since 1970.
    pub due_ms: i64,
    /// Put here by a person: it is taken in once it is handed out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// How often a filter kept it back since its last run.
    #[serde(default)]
    pub held: u32,
    /// The filter that kept it back last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub held_by: String,
    /// Requests with these filters kept it back: it is due for all others, for them only a while later. 0 is nobody.
    #[serde(default, skip_serializing_if = "is_nobody")]
    pub(super) not_for: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_nobody(filters: &u64) -> bool {
    *filters == 0
}

impl Waiting {
    /// One that is due at `due_ms`; `unique` tells it from others that are due then.
    pub(super) fn new(work: Work, due_ms: i64, unique: &str) -> Self {
        let mut key = waiting_prefix(&work.name, &work.version);
        key.extend_from_slice(format!("{:016x}\0{}\0{unique}", due_ms.max(0), work.kafka_key).as_bytes());
        Self { key, work, due_ms, fresh: false, held: 0, held_by: String::new(), not_for: 0 }
    }

    pub(super) fn read(key: &[u8], bytes: &Bytes) -> Option<Self> {
        let (mut waiting, event): (Self, Bytes) = read(bytes)?;
        waiting.key = key.to_vec();
        waiting.work.event = event;
        Some(waiting)
    }

    pub(super) fn put(&self) -> Value {
        (self.key.clone(), Some(write(self, &self.work.event)))
    }
}

/// The failed runs of one event by one consumer, as long as it is neither finished nor dead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) attempts: Vec<Attempt>,
    /// How many of them our own process did not outlive.
    #[serde(default)]
    pub(super) crashes: u32,
    /// Where the event is now (a key of a row), by the ids of leases that have ended.
    #[serde(default)]
    pub(super) ended: BTreeMap<String, String>,
}

impl Job {
    pub(super) fn read(bytes: &Bytes) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// A lease has ended, and the event is in this row now. Of too many the oldest is forgotten.
    pub(super) fn end(&mut self, id: &str, place: &[u8]) {
        self.ended.insert(id.to_owned(), String::from_utf8_lossy(place).into_owned());
        while self.ended.len() > MOST_ENDED {
            // All begin alike and end with a time.
            self.ended.pop_first();
        }
    }

    /// The event has moved from one row to another.
    pub(super) fn moved(&mut self, from: &[u8], to: &[u8]) {
        let (from, to) = (String::from_utf8_lossy(from), String::from_utf8_lossy(to));
        self.ended.values_mut().filter(|place| **place == from).for_each(|place| *place = to.clone().into_owned());
    }
}

/// What is counted when events are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct TakenIn {
    pub(super) taken_in: u64,
    pub(super) deleted: u64,
}

/// What is counted when statuses are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ended {
    pub(super) finished: u64,
    pub(super) dead: u64,
}

/// Two rows, because requests of two queues write them: each of them keeps its own order.
pub(super) fn taken_key(name: &str, version: &str) -> Vec<u8> {
    [TAKEN, consumer_key(name, version).as_bytes()].concat()
}

pub(super) fn ended_key(name: &str, version: &str) -> Vec<u8> {
    [ENDED, consumer_key(name, version).as_bytes()].concat()
}

pub(super) fn json_row<T: Serialize>(key: Vec<u8>, row: &T) -> Value {
    (key, Some(serde_json::to_vec(row).unwrap_or_default().into()))
}

/// A consumer's rows of what was taken in and of what ended.
pub(super) fn each_count(
    log: &dyn LogStore,
    mut taken: impl FnMut((String, String), TakenIn),
    mut ended: impl FnMut((String, String), Ended),
) -> Result<(), IndexError> {
    each_row(log, TAKEN, |key, bytes| {
        if let (Some(consumer), Ok(row)) = (consumer_of(key, TAKEN), serde_json::from_slice(bytes)) {
            taken(consumer, row);
        }
        true
    })?;
    each_row(log, ENDED, |key, bytes| {
        if let (Some(consumer), Ok(row)) = (consumer_of(key, ENDED), serde_json::from_slice(bytes)) {
            ended(consumer, row);
        }
        true
    })
}

/// Rows read at once: some have whole events in them.
pub(super) const PAGE: usize = 64;

/// Hands over every row whose key begins with `prefix`, in order. False from `take` ends it.
pub(super) fn each_row(
    log: &dyn LogStore,
    prefix: &[u8],
    mut take: impl FnMut(&[u8], &Bytes) -> bool,
) -> Result<(), IndexError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = log.kv_page(prefix, after.as_deref(), PAGE)?;
        if !rows.iter().all(|(key, bytes)| take(key, bytes)) || rows.len() < PAGE {
            return Ok(());
        }
        after = rows.last().map(|(key, _)| key.to_vec());
    }
}

pub(super) fn lease_key(id: &str) -> Vec<u8> {
    [LEASE, id.as_bytes()].concat()
}

pub(super) fn job_prefix(kafka_key: &str) -> Vec<u8> {
    [JOB, kafka_key.as_bytes(), b"\0"].concat()
}

pub(super) fn waiting_prefix(name: &str, version: &str) -> Vec<u8> {
    [WAITING, consumer_key(name, version).as_bytes()].concat()
}

/// Where the rows of those begin that wait until after `due_ms`.
pub(super) fn waiting_after(name: &str, version: &str, due_ms: i64) -> Vec<u8> {
    [waiting_prefix(name, version), format!("{:016x}\u{10ffff}", due_ms.max(0)).into_bytes()].concat()
}

/// Whose row of a waiting event that is; `None` for rows of other kinds.
pub(super) fn waits_for(key: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(key.strip_prefix(WAITING)?).ok()?;
    let name_len = usize::from_str_radix(text.get(..6)?, 16).ok()?;
    let version_len = usize::from_str_radix(text.get(6..12)?, 16).ok()?;
    let rest = text.get(12..)?;
    let (name, rest) = rest.split_at_checked(name_len)?;
    Some((name.to_owned(), rest.get(..version_len)?.to_owned()))
}

/// A name and a version, told from every other pair.
fn consumer_key(name: &str, version: &str) -> String {
    format!("{:06x}{:06x}{name}{version}", name.len(), version.len())
}

fn consumer_of(key: &[u8], prefix: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(key.strip_prefix(prefix)?).ok()?;
    let name_len = usize::from_str_radix(text.get(..6)?, 16).ok()?;
    let rest = text.get(12..)?;
    Some((rest.get(..name_len)?.to_owned(), rest.get(name_len..)?.to_owned()))
}

fn read<T: DeserializeOwned>(bytes: &Bytes) -> Option<(T, Bytes)> {
    let line = memchr::memchr(b'\n', bytes)?;
    Some((serde_json::from_slice(bytes.get(..line)?).ok()?, bytes.slice(line + 1..)))
}

fn write<T: Serialize>(head: &T, event: &Bytes) -> Bytes {
    let mut row = serde_json::to_vec(head).unwrap_or_default();
    row.push(b'\n');
    row.extend_from_slice(event);
    row.into()
}
