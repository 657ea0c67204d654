//! State rows of dead letters.
//!
//! | name                              | value                                                        |
//! |-----------------------------------|--------------------------------------------------------------|
//! | `dead.id\0` id                    | time of the letter, 8 bytes, big-endian                      |
//! | `dead.head\0` time, id            | [`Head`], JSON: what lists show, and what may change         |
//! | `dead.body\0` id                  | the rest as JSON on one line, then the event as Avro         |
//! | `dead.write\0` file name          | the id of the letter that is still to be written to the file |
//! | `dead.gone\0` file name           | nothing: the file is still to be removed                     |
//!
//! Times order the heads, so that lists are read in order of time, a page at a time.

use azulite_storage::index::IndexError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::DeadLetter;
use crate::broker::{LogStore, Value};
use crate::dispatcher::leases::Attempt;
use crate::dispatcher::model::{self, Event, Model};

const ID: &[u8] = b"dead.id\0";
const HEAD: &[u8] = b"dead.head\0";
const BODY: &[u8] = b"dead.body\0";
const WRITE: &[u8] = b"dead.write\0";
const GONE: &[u8] = b"dead.gone\0";

/// Characters of each text that lists show.
const SHOWN_CHARS: usize = 300;
/// Letters of one event at one consumer that are looked at, over versions and stages.
const FAMILY_MAX: usize = 256;

/// Times as letters have them; rows of earlier versions have milliseconds.
mod written_time {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::dispatcher::model::Timestamp;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Millis(i64),
        Text(String),
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(time_ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Timestamp::from_millis(*time_ms))
    }

    /// A text that is no time is the oldest one: no letter is to vanish for that.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        Ok(match Either::deserialize(deserializer)? {
            Either::Millis(time_ms) => time_ms,
            Either::Text(text) => Timestamp::parse(&text).map(Timestamp::millis).unwrap_or_default(),
        })
    }
}

/// That a letter was put back for another run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requeued {
    /// When, milliseconds since 1970; a time such as 2026-01-02T03:04:05Z in JSON.
    #[serde(rename = "time", alias = "time_ms", with = "written_time")]
    pub time_ms: i64,
    /// For which version of the consumer.
    pub version: String,
}

/// What lists show of a letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its id.
    #[serde(default)]
    pub id: String,
    /// When the last attempt ended, milliseconds since 1970; a time such as 2026-01-02T03:04:05Z in JSON.
    #[serde(rename = "time", alias = "time_ms", default, with = "written_time")]
    pub time_ms: i64,
    /// Name of the consumer.
    pub consumer: String,
    /// Its version.
    pub version: String,
    /// The stage that failed; empty for consumers without stages.
    pub stage: String,
    /// The status of the last attempt.
    pub status: String,
    /// What it said, cut to one line.
    pub reason: String,
    /// How many attempts there were.
    pub attempts: u64,
    /// The key of the event.
    pub kafka_key: String,
    /// The entity.
    pub sha256: String,
    /// The source.
    pub source: String,
    /// The name of the file that the event is about.
    pub filename: String,
    /// The name of the file with this letter.
    pub file: String,
    /// Set while another run is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requeued: Option<Requeued>,
}

impl Head {
    pub(super) fn of(letter: &DeadLetter, file: String) -> Self {
        let reason = letter.reason().trim().lines().next().unwrap_or_default();
        let shown = |text: &str| text.chars().take(SHOWN_CHARS).collect::<String>();
        Self {
            id: letter.id.clone(),
            time_ms: letter.time_ms,
            consumer: letter.consumer.clone(),
            version: letter.version.clone(),
            stage: letter.stage.clone(),
            status: shown(letter.status()),
            reason: shown(reason),
            attempts: u64::try_from(letter.attempts.len()).unwrap_or(u64::MAX),
            kafka_key: shown(letter.kafka_key()),
            sha256: shown(letter.sha256()),
            source: shown(letter.source()),
            filename: shown(letter.filename()),
            file,
            requeued: None,
        }
    }

    /// The row.
    pub(super) fn put(&self) -> Value {
        let value = serde_json::to_vec(self).unwrap_or_default();
        (head_name(self.time_ms, &self.id), Some(value.into()))
    }

    fn read(name: &[u8], bytes: &[u8]) -> Option<Self> {
        let (time, id) = name.strip_prefix(HEAD)?.split_first_chunk::<8>()?;
        let head: Self = serde_json::from_slice(bytes).ok()?;
        Some(Self { id: String::from_utf8(id.to_vec()).ok()?, time_ms: i64::from_be_bytes(*time), ..head })
    }
}

/// Times below 1970 come from files with wrong clocks; they are all the oldest.
fn time_bytes(time_ms: i64) -> [u8; 8] {
    time_ms.max(0).to_be_bytes()
}

fn head_name(time_ms: i64, id: &str) -> Vec<u8> {
    [HEAD, &time_bytes(time_ms), id.as_bytes()].concat()
}

fn named(prefix: &[u8], name: &str) -> Vec<u8> {
    [prefix, name.as_bytes()].concat()
}

/// The body without the event.
#[derive(Serialize, Deserialize)]
struct Body {
    time_ms: i64,
    consumer: String,
    version: String,
    stage: String,
    attempts: Vec<Attempt>,
    topic: String,
    partition: i32,
    offset: i64,
    context: serde_json::Value,
}

/// All rows of a new letter.
pub(super) fn put(letter: &DeadLetter, head: &Head) -> Vec<Value> {
    let body = Body {
        time_ms: letter.time_ms,
        consumer: letter.consumer.clone(),
        version: letter.version.clone(),
        stage: letter.stage.clone(),
        attempts: letter.attempts.clone(),
        topic: letter.topic.clone(),
        partition: letter.partition,
        offset: letter.offset,
        context: letter.context.clone(),
    };
    let mut value = serde_json::to_vec(&body).unwrap_or_default();
    value.push(b'\n');
    model::write_avro(&Event::Binary(Box::new(letter.event.clone())), &mut value);
    let time = Bytes::copy_from_slice(&time_bytes(letter.time_ms));
    vec![
        (named(ID, &letter.id), Some(time)),
        head.put(),
        (named(BODY, &letter.id), Some(value.into())),
        (named(WRITE, &head.file), Some(letter.id.clone().into())),
        (named(GONE, &head.file), None),
    ]
}

/// What removes a letter, and later its file.
pub(super) fn remove(head: &Head) -> Vec<Value> {
    vec![
        (named(ID, &head.id), None),
        (head_name(head.time_ms, &head.id), None),
        (named(BODY, &head.id), None),
        (named(WRITE, &head.file), None),
        (named(GONE, &head.file), Some(Bytes::new())),
    ]
}

/// What removes the head and the file of a letter whose place another one takes.
pub(super) fn replace(head: &Head) -> Vec<Value> {
    remove(head).into_iter().filter(|(name, _)| !name.starts_with(ID) && !name.starts_with(BODY)).collect()
}

/// The head of a letter; `None` when there is no such letter.
pub(super) fn head(log: &dyn LogStore, id: &str) -> Result<Option<Head>, IndexError> {
    let Some(time) = log.kv(&named(ID, id))? else { return Ok(None) };
    let name = [HEAD, &time, id.as_bytes()].concat();
    Ok(log.kv(&name)?.and_then(|bytes| Head::read(&name, &bytes)))
}

/// A whole letter; `None` when there is no such letter, or it cannot be read.
pub(super) fn letter(log: &dyn LogStore, id: &str) -> Result<Option<DeadLetter>, IndexError> {
    let Some(bytes) = log.kv(&named(BODY, id))? else { return Ok(None) };
    Ok(read_body(id, &bytes))
}

fn read_body(id: &str, bytes: &Bytes) -> Option<DeadLetter> {
    let line = memchr::memchr(b'\n', bytes)?;
    let body: Body = serde_json::from_slice(bytes.get(..line)?).ok()?;
    let Ok(Event::Binary(event)) = model::decode_avro(Model::Binary, bytes.get(line + 1..)?) else { return None };
    let Body { time_ms, consumer, version, stage, attempts, topic, partition, offset, context } = body;
    let (id, event) = (id.to_owned(), *event);
    Some(DeadLetter { id, time_ms, consumer, version, stage, attempts, topic, partition, offset, event, context })
}

/// The heads of all letters whose ids begin with `family`.
pub(super) fn family(log: &dyn LogStore, family: &str) -> Result<Vec<Head>, IndexError> {
    let rows = log.kv_page(&named(ID, family), None, FAMILY_MAX)?;
    let mut heads = Vec::with_capacity(rows.len());
    for (name, _) in rows {
        let id = name.strip_prefix(ID).and_then(|id| std::str::from_utf8(id).ok());
        if let Some(id) = id {
            heads.extend(head(log, id)?);
        }
    }
    Ok(heads)
}

/// Where a list goes on: behind this head. As text `<time>.<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    time_ms: i64,
    id: String,
}

impl After {
    /// Behind everything before this time.
    #[must_use]
    pub fn time(time_ms: i64) -> Self {
        Self { time_ms, id: String::new() }
    }

    /// Behind this head.
    #[must_use]
    pub fn head(head: &Head) -> Self {
        Self { time_ms: head.time_ms.max(0), id: head.id.clone() }
    }
}

impl std::fmt::Display for After {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.time_ms, self.id)
    }
}

impl std::str::FromStr for After {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('.').and_then(|(time, id)| Some((time.parse().ok()?, id)));
        let (time_ms, id) = parsed.ok_or("must be what `next` of the page before says")?;
        Ok(Self { time_ms, id: id.to_owned() })
    }
}

/// Up to `limit` heads in order of time, with a place to go on when there may be more.
pub(super) fn page(
    log: &dyn LogStore,
    after: Option<&After>,
    limit: usize,
) -> Result<(Vec<Head>, Option<After>), IndexError> {
    let from = after.map(|after| head_name(after.time_ms, &after.id));
    let rows = log.kv_page(HEAD, from.as_deref(), limit)?;
    let heads: Vec<Head> = rows.iter().filter_map(|(name, bytes)| Head::read(name, bytes)).collect();
    let last = rows.last().filter(|_| rows.len() >= limit);
    let next = last.and_then(|(name, _)| {
        let (time, id) = name.strip_prefix(HEAD)?.split_first_chunk::<8>()?;
        Some(After { time_ms: i64::from_be_bytes(*time), id: String::from_utf8(id.to_vec()).ok()? })
    });
    Ok((heads, next))
}

/// A file that is behind its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It is to hold the letter of this id.
    Write { file: String, id: String },
    /// It is to go.
    Remove { file: String },
}

impl Due {
    /// What is true once it is done.
    pub(super) fn done(&self) -> Value {
        match self {
            Self::Write { file, .. } => (named(WRITE, file), None),
            Self::Remove { file } => (named(GONE, file), None),
        }
    }
}

/// Files that are behind, behind the file `after` of each kind, up to `limit` of each.
pub(super) fn due(log: &dyn LogStore, after: [&str; 2], limit: usize) -> Result<Vec<Due>, IndexError> {
    let text = |bytes: &[u8], prefix: &[u8]| String::from_utf8(bytes.get(prefix.len()..)?.to_vec()).ok();
    let [gone_after, write_after] = after;
    let from = |prefix: &[u8], after: &str| (!after.is_empty()).then(|| named(prefix, after));
    let gone = log.kv_page(GONE, from(GONE, gone_after).as_deref(), limit)?;
    let write = log.kv_page(WRITE, from(WRITE, write_after).as_deref(), limit)?;
    let gone = gone.iter().filter_map(|(name, _)| Some(Due::Remove { file: text(name, GONE)? }));
    let write = write.iter().filter_map(|(name, id)| {
        Some(Due::Write { file: text(name, WRITE)?, id: String::from_utf8(id.to_vec()).ok()? })
    });
    Ok(gone.chain(write).collect())
}
