//! Requests and answers as both upstreams make and read them, so that there is one form of each.

use serde::Deserialize;

use super::upstream::{Fetched, UpstreamError};
use crate::dispatcher::hub::{GetError, PostError};
use crate::dispatcher::model::{self, BinaryEvent, Event, Model};

/// How workers call themselves.
pub(super) const USER_AGENT: &str = concat!("azulite-worker/", env!("CARGO_PKG_VERSION"));
/// Largest answer to a fetch.
pub(super) const FETCH_BYTES_MAX: u64 = 1 << 30;

/// The parameters of a publish; the body is Avro.
pub(super) fn post_query(model: Model) -> Vec<(String, String)> {
    [("model", model.as_str()), ("avro-format", "true"), ("sync", "true")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// The parameters of a fetch; the events come as Avro.
pub(super) fn fetch_query(query: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = [("avro-format", "true")];
    query.iter().copied().chain(own).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The body of a publish.
pub(super) fn body(model: Model, events: &[Event]) -> Vec<u8> {
    model::encode_avro_bulk(model, events)
}

#[derive(Deserialize)]
struct Posted {
    #[serde(default)]
    failures: Option<Vec<Failure>>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    error: String,
}

/// What the answer to a publish that stored something says.
///
/// # Errors
/// Some events were refused.
pub(super) fn posted(answer: &[u8]) -> Result<(), UpstreamError> {
    let answer: Posted = serde_json::from_slice(answer).map_err(|error| not_understood(&error))?;
    let errors: Vec<String> = answer.failures.unwrap_or_default().into_iter().map(|failure| failure.error).collect();
    if errors.is_empty() { Ok(()) } else { Err(UpstreamError::Refused(errors.join("; "))) }
}

/// Events over the size limit stay over it; every other failure to store may pass.
pub(super) fn not_stored(detail: &str) -> UpstreamError {
    match detail.contains("too large") {
        true => UpstreamError::Refused(detail.to_owned()),
        false => UpstreamError::Unavailable(detail.to_owned()),
    }
}

pub(super) fn not_understood(what: &dyn std::fmt::Display) -> UpstreamError {
    UpstreamError::Refused(format!("the answer of the dispatcher cannot be understood: {what}"))
}

/// A publish that the hub refused. That everything has aged off, or was left out by a filter, is no error: there is
/// nothing to do any more.
pub(super) fn post_refused(error: PostError) -> Result<(), UpstreamError> {
    let unavailable = |reason: &str| Err(UpstreamError::Unavailable(reason.to_owned()));
    match error {
        PostError::AgedOff => Ok(()),
        PostError::NothingLeft { total_failures: 0, .. } => Ok(()),
        PostError::NothingLeft { errors, .. } => Err(UpstreamError::Refused(errors.join("; "))),
        PostError::Publish { errors, .. } => Err(not_stored(&errors.join("; "))),
        PostError::UnknownModel(detail) | PostError::Decode(detail) => Err(UpstreamError::Refused(detail)),
        PostError::EmptyBody => Err(UpstreamError::Refused("there was nothing to publish".to_owned())),
        // Everything is stored.
        PostError::Encode(_) => Ok(()),
        PostError::TooLarge { limit } => {
            Err(UpstreamError::Refused(format!("the events are over the limit of {limit} bytes")))
        }
        PostError::DiskFull => unavailable("the disk is full"),
        PostError::Overloaded { .. } => unavailable("too much is waiting already"),
        PostError::Stopping => unavailable("the dispatcher is stopping"),
        PostError::Poisoned => unavailable("the store has stopped after a failed write"),
    }
}

/// A fetch that the hub refused.
pub(super) fn fetch_refused(error: GetError) -> UpstreamError {
    match error {
        GetError::BadParameter(detail)
        | GetError::EncodeInfo(detail)
        | GetError::EncodeAvro(detail)
        | GetError::EncodeJson(detail) => UpstreamError::Refused(detail),
        GetError::Registration(detail) | GetError::FetchFailed(detail) => UpstreamError::Unavailable(detail),
        GetError::DiskFull => UpstreamError::Unavailable("the disk is full".to_owned()),
        GetError::Overloaded { .. } => UpstreamError::Unavailable("too many readers are waiting".to_owned()),
        GetError::Stopping => UpstreamError::Unavailable("the dispatcher is stopping".to_owned()),
        GetError::Poisoned => UpstreamError::Unavailable("the store has stopped after a failed write".to_owned()),
    }
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    filtered: u64,
    #[serde(default)]
    paused: bool,
}

/// Reads the two parts of a fetch's answer (events.md 1.5).
///
/// # Errors
/// It is none.
pub(super) fn fetched(content_type: &str, body: &[u8]) -> Result<Fetched, UpstreamError> {
    let bad = |what: &str| not_understood(&what);
    let boundary = boundary(content_type).ok_or_else(|| bad("no multipart boundary"))?;
    let mut info = None;
    let mut events = None;
    for (name, bytes) in parts(body, &boundary).ok_or_else(|| bad("the parts are cut off"))? {
        match name.as_str() {
            "info" => info = Some(serde_json::from_slice::<Info>(bytes).map_err(|error| not_understood(&error))?),
            "events" => events = Some(decode(bytes)?),
            _ => {}
        }
    }
    let (Some(Info { filtered, paused }), Some(events)) = (info, events) else { return Err(bad("a part is missing")) };
    Ok(Fetched { events, filtered, paused })
}

fn decode(bytes: &[u8]) -> Result<Vec<BinaryEvent>, UpstreamError> {
    let events = model::decode_avro_bulk(Model::Binary, bytes).map_err(|error| not_understood(&error))?;
    let binary = |event| match event {
        Event::Binary(event) => Some(*event),
        Event::Delete(_)
        | Event::Download(_)
        | Event::Insert(_)
        | Event::Plugin(_)
        | Event::Retrohunt(_)
        | Event::Status(_) => None,
    };
    Ok(events.into_iter().filter_map(binary).collect())
}

pub(super) fn boundary(content_type: &str) -> Option<String> {
    let mut parts = content_type.split(';');
    parts.next()?.trim().eq_ignore_ascii_case("multipart/form-data").then_some(())?;
    let value = parts.find_map(|part| part.trim().strip_prefix("boundary="))?.trim_matches('"');
    (!value.is_empty()).then(|| format!("--{value}"))
}

/// Name and bytes of each part.
pub(super) fn parts<'a>(body: &'a [u8], boundary: &str) -> Option<Vec<(String, &'a [u8])>> {
    let delimiter = format!("\r\n{boundary}");
    let mut rest = body.get(memchr::memmem::find(body, boundary.as_bytes())? + boundary.len()..)?;
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Some(parts);
        }
        rest = rest.strip_prefix(b"\r\n")?;
        let end = memchr::memmem::find(rest, delimiter.as_bytes())?;
        let part = rest.get(..end)?;
        let head_end = memchr::memmem::find(part, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(part.get(..head_end)?);
        let name = head.split(';').find_map(|piece| piece.trim().strip_prefix("name="));
        let name = name.and_then(|name| name.lines().next()).unwrap_or_default().trim_matches('"').to_owned();
        parts.push((name, part.get(head_end + 4..)?));
        rest = rest.get(end + delimiter.len()..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::answer::Multipart;

    fn answer(events: &[u8]) -> (String, Vec<u8>) {
        let info = br#"{"filtered":3,"fetched":1,"ready":true,"paused":false}"#;
        let Multipart { content_type, head, tail } = Multipart::new(info, &[events], || [7; 24]);
        (content_type, [&head, events, &tail].concat())
    }

    #[test]
    fn an_answer_is_read_back() {
        let event = BinaryEvent { kafka_key: "k".to_owned(), ..BinaryEvent::default() };
        let bulk = model::encode_avro_bulk(Model::Binary, &[Event::Binary(Box::new(event.clone()))]);
        let (content_type, body) = answer(&bulk);
        let got = fetched(&content_type, &body).unwrap();
        assert_eq!((got.events, got.filtered, got.paused), (vec![event], 3, false));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let (content_type, body) = answer(b"\x0c\x00");
        assert!(fetched(&content_type, &body).unwrap().events.is_empty());
        for (content_type, body) in [
            ("application/json", &body[..]),
            ("multipart/form-data", &body[..]),
            (content_type.as_str(), &body[..body.len() - 20]),
            (content_type.as_str(), &body[..10]),
            (content_type.as_str(), b""),
        ] {
            assert!(matches!(fetched(content_type, body), Err(UpstreamError::Refused(_))));
        }
    }

    #[test]
    fn nothing_left_to_do_is_no_error_and_a_refused_event_is_one() {
        let nothing = |total_failures| PostError::NothingLeft {
            filters: Vec::new(),
            total_failures,
            errors: vec!["bad".to_owned()],
        };
        assert!(post_refused(PostError::AgedOff).is_ok() && post_refused(nothing(0)).is_ok());
        assert!(matches!(post_refused(nothing(1)), Err(UpstreamError::Refused(_))));
        assert!(matches!(post_refused(PostError::DiskFull), Err(UpstreamError::Unavailable(_))));
        assert!(posted(br#"{"total_ok":1,"total_failures":0,"failures":[]}"#).is_ok());
        assert!(posted(br#"{"total_ok":1,"total_failures":0,"failures":null}"#).is_ok());
        let refused = posted(br#"{"failures":[{"event":"","error":"no"}]}"#);
        assert!(matches!(refused, Err(UpstreamError::Refused(reason)) if reason == "no"));
    }
}
