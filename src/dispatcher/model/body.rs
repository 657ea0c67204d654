//! Submission bodies: a JSON object, a list of them, or an Avro container, taken apart into checked events.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

use super::avro::decode_avro_bulk;
use super::avro_wire::AvroError;
use super::json_read::{Submitted, probe_version};
use super::types::{Event, MODEL_VERSION, Model};
use super::valid::{Invalid, check_valid, first_chars};

/// A body of at most this many bytes is refused without a look.
const TOO_SMALL_BYTES: usize = 2;
/// Longest reason given for a corrupt event.
const REASON_MAX_CHARS: usize = 300;

/// One event of a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// The exact JSON text it had, empty for Avro.
    pub raw: String,
    /// The event, or why it belongs among the `failures`.
    pub event: Result<Event, Invalid>,
}

/// Why a whole body is refused with 422; the text is the `detail` of the answer (`events.md` 1.6 and 1.7).
///
/// `index` counts the elements of the body from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Two bytes or less, so also `[]` and `{}`.
    #[error("ensure events were in json format: event message too small")]
    TooSmall,
    #[error("ensure events were in json format: event message invalid json")]
    InvalidJson,
    /// `model_version` absent or below 6.
    #[error("ensure events were in json format: event message version was too old")]
    TooOld { index: usize, version: u32 },
    /// `model_version` above 6 (D5).
    #[error(
        "ensure events were in json format: event message version is not known: event {index} has model_version \
         {version}, the newest known is {MODEL_VERSION}"
    )]
    VersionUnknown { index: usize, version: u32 },
    /// A member has the wrong type, range or form; line and column count from the start of the event.
    #[error(
        "ensure events were in json format: event message version was too old or was corrupt: event {index}: {reason}"
    )]
    Corrupt { index: usize, reason: String },
    /// JSON sent as Avro.
    #[error("supplied events were in json format, not avro")]
    JsonNotAvro,
    #[error("avro event did not match expected bulk schema: {0}")]
    Avro(#[from] AvroError),
}

/// Takes apart a JSON body: one event or a list of events of `model`, each checked by [`check_valid`].
///
/// # Errors
/// Any [`BodyError`] but the two about Avro; then nothing of the body may be stored.
pub fn decode_body_json(model: Model, body: &[u8]) -> Result<Vec<Element>, BodyError> {
    if body.len() <= TOO_SMALL_BYTES {
        return Err(BodyError::TooSmall);
    }
    let text = std::str::from_utf8(body).map_err(|_| BodyError::InvalidJson)?;
    read_any(model, text)
}

/// Takes apart a JSON body that must be one event, not a list, as `simulate` wants it.
///
/// # Errors
/// As [`decode_body_json`].
pub fn decode_event_json(model: Model, body: &[u8]) -> Result<Element, BodyError> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(BodyError::Corrupt { index: 0, reason: "a list where one event is expected".to_owned() });
    }
    decode_body_json(model, body)?.pop().ok_or(BodyError::InvalidJson)
}

/// Takes apart an Avro container of events of `model`, each checked by [`check_valid`] (D4).
///
/// # Errors
/// [`BodyError::JsonNotAvro`] or [`BodyError::Avro`]; then nothing of the body may be stored.
pub fn decode_body_avro(model: Model, body: &[u8]) -> Result<Vec<Element>, BodyError> {
    match decode_avro_bulk(model, body) {
        Ok(events) => Ok(events.into_iter().map(|event| checked(event, "")).collect()),
        Err(_) if looks_like_json(body) => Err(BodyError::JsonNotAvro),
        Err(error) => Err(BodyError::Avro(error)),
    }
}

fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
        && std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn checked(event: Event, raw: &str) -> Element {
    let event = check_valid(&event).map(|()| event);
    Element { raw: raw.to_owned(), event }
}

fn read_any(model: Model, text: &str) -> Result<Vec<Element>, BodyError> {
    match model {
        Model::Binary => read_body(text, |event| Event::Binary(Box::new(event))),
        Model::Delete => read_body(text, |event| Event::Delete(Box::new(event))),
        Model::Download => read_body(text, |event| Event::Download(Box::new(event))),
        Model::Insert => read_body(text, |event| Event::Insert(Box::new(event))),
        Model::Plugin => read_body(text, |event| Event::Plugin(Box::new(event))),
        Model::Retrohunt => read_body(text, |event| Event::Retrohunt(Box::new(event))),
        Model::Status => read_body(text, |event| Event::Status(Box::new(event))),
    }
}

/// One pass when all is well; what is wrong, and where, is found out in a second look.
fn read_body<T>(text: &str, wrap: fn(T) -> Event) -> Result<Vec<Element>, BodyError>
where
    Submitted<T>: DeserializeOwned,
{
    if let Some(events) = read_events(text) {
        return Ok(events.into_iter().map(|(event, raw)| checked(wrap(event), raw)).collect());
    }
    look_again(text, wrap)
}

/// Every event with its text, or nothing if anything at all is wrong.
fn read_events<T>(text: &str) -> Option<Vec<(T, &str)>>
where
    Submitted<T>: DeserializeOwned,
{
    let mut events = Vec::new();
    let Some(list) = skip_space(text).strip_prefix('[') else {
        let (event, raw, rest) = read_one(skip_space(text))?;
        events.push((event, raw));
        return skip_space(rest).is_empty().then_some(events);
    };
    let mut rest = skip_space(list);
    if rest.starts_with(']') {
        return skip_space(rest.strip_prefix(']')?).is_empty().then_some(events);
    }
    loop {
        let (event, raw, after) = read_one(rest)?;
        events.push((event, raw));
        let after = skip_space(after);
        if let Some(end) = after.strip_prefix(']') {
            return skip_space(end).is_empty().then_some(events);
        }
        rest = skip_space(after.strip_prefix(',')?);
    }
}

/// The event at the start of `text`, its exact text and what follows.
fn read_one<T>(text: &str) -> Option<(T, &str, &str)>
where
    Submitted<T>: DeserializeOwned,
{
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Submitted<T>>();
    let submitted = values.next()?.ok().filter(|submitted| submitted.model_version == MODEL_VERSION)?;
    let (raw, rest) = text.split_at_checked(values.byte_offset())?;
    Some((submitted.event, raw, rest))
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
}

/// Element by element: either the first thing that is wrong, or the events after all, because only half surrogate
/// pairs were in the way.
fn look_again<T>(text: &str, wrap: fn(T) -> Event) -> Result<Vec<Element>, BodyError>
where
    Submitted<T>: DeserializeOwned,
{
    let raws = if skip_space(text).starts_with('[') {
        serde_json::from_str::<Vec<&RawValue>>(text)
    } else {
        serde_json::from_str::<&RawValue>(text).map(|one| vec![one])
    };
    let raws = raws.map_err(|_| BodyError::InvalidJson)?;
    let elements = raws.into_iter().enumerate().map(|(index, raw)| {
        let event = explain(index, raw.get())?;
        Ok(checked(wrap(event), raw.get()))
    });
    elements.collect()
}

fn explain<T>(index: usize, raw: &str) -> Result<T, BodyError>
where
    Submitted<T>: DeserializeOwned,
{
    let text = replace_half_pairs(raw);
    let corrupt = |error: serde_json::Error| {
        // The reader quotes values in full.
        let reason = first_chars(&error.to_string(), REASON_MAX_CHARS).into_owned();
        BodyError::Corrupt { index, reason }
    };
    match probe_version(&text).map_err(corrupt)? {
        version if version < MODEL_VERSION => Err(BodyError::TooOld { index, version }),
        version if version > MODEL_VERSION => Err(BodyError::VersionUnknown { index, version }),
        _ => serde_json::from_str::<Submitted<T>>(&text).map(|submitted| submitted.event).map_err(corrupt),
    }
}

/// `text`, with each escape that is half of a surrogate pair replaced by the escape of U+FFFD.
///
/// Such an escape is within the grammar of JSON but stands for no character; upstream reads it as U+FFFD too.
fn replace_half_pairs(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let mut fixed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        fixed.push_str(before);
        let length = match (surrogate(from), from.get(6..).and_then(surrogate)) {
            (Some(Half::High), Some(Half::Low)) => 12,
            (Some(_), _) => {
                fixed.push_str("\\ufffd");
                rest = from.get(6..).unwrap_or_default();
                continue;
            }
            (None, _) => 1 + from.chars().nth(1).map_or(0, char::len_utf8),
        };
        let (kept, after) = from.split_at_checked(length).unwrap_or((from, ""));
        fixed.push_str(kept);
        rest = after;
    }
    fixed.push_str(rest);
    Cow::Owned(fixed)
}

enum Half {
    High,
    Low,
}

/// Which half of a surrogate pair the escape at the start of `text` is, if it is one.
fn surrogate(text: &str) -> Option<Half> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xD800..=0xDBFF => Some(Half::High),
        0xDC00..=0xDFFF => Some(Half::Low),
        _ => None,
    }
}
