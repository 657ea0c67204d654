//! One dead letter: its identity, the text that is published and written to a file, and that text read back.
//!
//! The text is the same in the topic and in the file. It holds everything that another machine needs to run the event
//! again, except what looks like a secret: those members are left out and named in `withheld`. The rows of the machine
//! where the event failed keep them, as its log does.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::dispatcher::leases::Attempt;
use crate::dispatcher::model::{self, BinaryEvent, Event, Model, Timestamp};

/// Attempts that are kept of one item, the last ones.
const ATTEMPTS_MAX: usize = 100;
/// Bytes of an error or a message of an attempt that are kept.
const TEXT_MAX_BYTES: usize = 8 << 10;
/// Bytes of the name of a consumer, a version or a stage that comes from a file.
const NAME_MAX_BYTES: usize = 1 << 10;
/// Bytes of the text of one letter that is read.
pub const TEXT_LIMIT: usize = 32 << 20;
/// Bytes of a context that are kept, as JSON; a larger one is not.
const CONTEXT_MAX_BYTES: usize = 1 << 20;

/// An event that a consumer could not work on, with everything that is known of the runs that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Made by [`id_of`].
    pub id: String,
    /// When the last attempt ended, milliseconds since 1970.
    pub time_ms: i64,
    /// Name of the consumer.
    pub consumer: String,
    /// Its version.
    pub version: String,
    /// The stage that failed; empty for consumers without stages.
    pub stage: String,
    /// In order of time.
    pub attempts: Vec<Attempt>,
    /// The topic the event was read from; empty when that is unknown.
    pub topic: String,
    /// The partition, -1 when it is unknown.
    pub partition: i32,
    /// The offset, -1 when it is unknown.
    pub offset: i64,
    /// The event as it was stored, whole.
    pub event: BinaryEvent,
    /// What else helps to understand or repeat it, for example task ids of a sandbox.
    pub context: serde_json::Value,
}

/// The id of the letter of one event at one stage of one consumer: the same whenever and wherever it is made, so that a
/// later failure takes the place of an earlier one. All ids of one event and consumer have the first part in common.
#[must_use]
pub fn id_of(kafka_key: &str, consumer: &str, version: &str, stage: &str) -> String {
    format!("{}-{}", family_of(kafka_key, consumer), short_hash(version, stage, 6))
}

/// The first part of the ids of an event at a consumer, whatever the version and the stage.
pub(super) fn family_of(kafka_key: &str, consumer: &str) -> String {
    short_hash(kafka_key, consumer, 10)
}

/// Whether a text can be an id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let hex =
        |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.split_once('-').is_some_and(|(family, rest)| hex(family, 20) && hex(rest, 12))
}

fn short_hash(one: &str, other: &str, bytes: usize) -> String {
    let length = u64::try_from(one.len()).unwrap_or(u64::MAX).to_be_bytes();
    let digest = Sha256::new().chain_update(length).chain_update(one).chain_update(other).finalize();
    digest.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

impl DeadLetter {
    /// The key of its event.
    #[must_use]
    pub fn kafka_key(&self) -> &str {
        &self.event.kafka_key
    }

    /// The entity of its event.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.event.entity.sha256
    }

    /// The source of its event.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.event.source.name
    }

    /// The name of the file that its event is about; empty when none is known.
    #[must_use]
    pub fn filename(&self) -> &str {
        let leaf = self.event.source.path.last().map(|node| node.filename.as_str()).unwrap_or_default();
        let feature = || self.event.entity.features.iter().find(|feature| feature.name == "filename");
        if leaf.is_empty() { feature().map(|feature| feature.value.as_str()).unwrap_or_default() } else { leaf }
    }

    /// The status that it ended with.
    #[must_use]
    pub fn status(&self) -> &str {
        self.attempts.last().map_or("", |attempt| attempt.status.as_str())
    }

    /// Why, in one line.
    #[must_use]
    pub fn reason(&self) -> &str {
        let Some(Attempt { error, message, .. }) = self.attempts.last() else { return "" };
        if error.is_empty() { message } else { error }
    }

    /// With no more of everything than is kept.
    pub(super) fn bounded(&self) -> Self {
        let mut letter = self.clone();
        let surplus = letter.attempts.len().saturating_sub(ATTEMPTS_MAX);
        letter.attempts.drain(..surplus);
        cut(&mut letter.topic);
        let bytes = letter.context.to_string().len();
        if bytes > CONTEXT_MAX_BYTES {
            letter.context =
                serde_json::json!({"left out": format!("{bytes} bytes, at most {CONTEXT_MAX_BYTES} are kept")});
        }
        for attempt in &mut letter.attempts {
            cut(&mut attempt.status);
            cut(&mut attempt.error);
            cut(&mut attempt.message);
        }
        letter
    }
}

fn cut(text: &mut String) {
    if text.len() > TEXT_MAX_BYTES {
        let bytes = text.len();
        text.truncate(text.floor_char_boundary(TEXT_MAX_BYTES));
        text.push_str(&format!("... ({bytes} bytes)"));
    }
}

/// One attempt in the text.
#[derive(Debug, Serialize, Deserialize)]
struct WrittenAttempt {
    time: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    runtime: f64,
}

/// The text, in the order of the contract.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    #[serde(default)]
    id: String,
    time: String,
    consumer: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    stage: String,
    #[serde(default)]
    attempts: Vec<WrittenAttempt>,
    #[serde(default)]
    topic: String,
    #[serde(default = "unknown_partition")]
    partition: i32,
    #[serde(default = "unknown_offset")]
    offset: i64,
    #[serde(default)]
    kafka_key: String,
    #[serde(default)]
    sha256: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    filename: String,
    event: Box<RawValue>,
    #[serde(default)]
    context: serde_json::Value,
    /// Members that are left out, because they look like secrets or are too large.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    withheld: Vec<String>,
}

fn unknown_partition() -> i32 {
    -1
}

fn unknown_offset() -> i64 {
    -1
}

/// A text that is no letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// It is too long to be read.
    #[error("it has {0} bytes, at most {TEXT_LIMIT} are read")]
    TooLong(usize),
    /// It is not the JSON of a letter.
    #[error("it is no dead letter: {0}")]
    Json(String),
    /// A time is none.
    #[error("{0:?} is no time such as 2026-01-02T03:04:05Z")]
    Time(String),
    /// A name is missing or too long.
    #[error("its {0} must have 1 to {NAME_MAX_BYTES} bytes")]
    Name(&'static str),
    /// The event cannot be used.
    #[error("its event cannot be used: {0}")]
    Event(String),
}

impl DeadLetter {
    /// The text of the topic and the file, on one line.
    #[must_use]
    pub fn to_text(&self) -> Vec<u8> {
        let mut withheld = Vec::new();
        let event = without_secrets(&self.event, &mut withheld);
        let json = String::from_utf8(model::to_json(&Event::Binary(Box::new(event)))).unwrap_or_default();
        // What our own writer has written is JSON.
        let event = RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned());
        self.written(event, withheld)
    }

    /// The text without the event, which is too large for a record.
    pub(super) fn to_text_without_event(&self) -> Vec<u8> {
        self.written(RawValue::NULL.to_owned(), vec!["event".to_owned()])
    }

    fn written(&self, event: Box<RawValue>, mut withheld: Vec<String>) -> Vec<u8> {
        let mut context = self.context.clone();
        strip_secrets(&mut context, "context", &mut withheld);
        let attempt = |attempt: &Attempt| WrittenAttempt {
            time: Timestamp::from_millis(attempt.time_ms).to_string(),
            status: attempt.status.clone(),
            error: attempt.error.clone(),
            message: attempt.message.clone(),
            runtime: if attempt.runtime.is_finite() { attempt.runtime } else { 0.0 },
        };
        let written = Written {
            id: self.id.clone(),
            time: Timestamp::from_millis(self.time_ms).to_string(),
            consumer: self.consumer.clone(),
            version: self.version.clone(),
            stage: self.stage.clone(),
            attempts: self.attempts.iter().map(attempt).collect(),
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.offset,
            kafka_key: self.kafka_key().to_owned(),
            sha256: self.sha256().to_owned(),
            source: self.source().to_owned(),
            filename: self.filename().to_owned(),
            event,
            context,
            withheld,
        };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Reads a text from anywhere. Nothing in it is believed that its event says too, and the id is made anew.
    ///
    /// # Errors
    /// See [`LetterError`].
    pub fn from_text(text: &[u8]) -> Result<Self, LetterError> {
        if text.len() > TEXT_LIMIT {
            return Err(LetterError::TooLong(text.len()));
        }
        let written: Written = serde_json::from_slice(text).map_err(|error| LetterError::Json(error.to_string()))?;
        let time = |text: &str| match Timestamp::parse(text) {
            Ok(time) if time.is_representable() => Ok(time.millis()),
            Ok(_) | Err(_) => Err(LetterError::Time(text.chars().take(100).collect())),
        };
        let named = |name: &str, what, least: usize| match (least..=NAME_MAX_BYTES).contains(&name.len()) {
            true => Ok(()),
            false => Err(LetterError::Name(what)),
        };
        named(&written.consumer, "consumer", 1)?;
        named(&written.version, "version", 0)?;
        named(&written.stage, "stage", 0)?;
        let event = read_event(written.event.get().as_bytes())?;
        let attempt = |attempt: WrittenAttempt| {
            let WrittenAttempt { time: at, status, error, message, runtime } = attempt;
            Ok(Attempt { time_ms: time(&at)?, status, error, message, runtime })
        };
        let letter = Self {
            id: id_of(&event.kafka_key, &written.consumer, &written.version, &written.stage),
            time_ms: time(&written.time)?,
            consumer: written.consumer,
            version: written.version,
            stage: written.stage,
            attempts: written.attempts.into_iter().map(attempt).collect::<Result<_, _>>()?,
            topic: written.topic,
            partition: written.partition,
            offset: written.offset,
            event,
            context: written.context,
        };
        Ok(letter.bounded())
    }
}

fn read_event(json: &[u8]) -> Result<BinaryEvent, LetterError> {
    let failed = |error: String| LetterError::Event(error.chars().take(500).collect());
    let element = model::decode_event_json(Model::Binary, json).map_err(|error| failed(error.to_string()))?;
    match element.event.map_err(|invalid| failed(invalid.to_string()))? {
        Event::Binary(event) if event.kafka_key.is_empty() => Err(failed("it has no kafka_key".to_owned())),
        Event::Binary(event) => Ok(*event),
        other @ (Event::Delete(_)
        | Event::Download(_)
        | Event::Insert(_)
        | Event::Plugin(_)
        | Event::Retrohunt(_)
        | Event::Status(_)) => Err(failed(format!("it is a {} event", other.model()))),
    }
}

/// Parts of names whose values are left out of texts that leave this machine.
const SECRET_NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "credential",
    "authorization",
    "cookie",
];

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

fn without_secrets(event: &BinaryEvent, withheld: &mut Vec<String>) -> BinaryEvent {
    let mut event = event.clone();
    for (what, map) in [("settings", &mut event.source.settings), ("references", &mut event.source.references)] {
        map.retain(|name, _| {
            let secret = is_secret(name);
            if secret {
                withheld.push(format!("event.source.{what}.{name}"));
            }
            !secret
        });
    }
    event
}

fn strip_secrets(value: &mut serde_json::Value, path: &str, withheld: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            members.retain(|name, _| {
                let secret = is_secret(name);
                if secret {
                    withheld.push(format!("{path}.{name}"));
                }
                !secret
            });
            members.iter_mut().for_each(|(name, value)| strip_secrets(value, &format!("{path}.{name}"), withheld));
        }
        serde_json::Value::Array(values) => {
            values.iter_mut().for_each(|value| strip_secrets(value, path, withheld));
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// Longest part of a file name that a name from outside makes.
const FILE_PART_CHARS: usize = 64;
/// Characters of the event's key in a file name.
const KEY_CHARS: usize = 12;

impl DeadLetter {
    /// The name of its file: `<UTC time>_<consumer>_<short event key>.json`.
    #[must_use]
    pub(super) fn file_name(&self) -> String {
        let time = Timestamp::from_millis(self.time_ms).key_form().replace(['-', ':'], "");
        let time = format!("{time}.{:03}Z", self.time_ms.rem_euclid(1000));
        let (consumer, key) = (safe(&self.consumer, FILE_PART_CHARS), safe(self.kafka_key(), KEY_CHARS));
        format!("{time}_{consumer}_{key}.json")
    }
}

/// A name with nothing in it that means something to a file system or a shell.
fn safe(name: &str, most: usize) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    name.chars().take(most).map(plain).collect()
}
