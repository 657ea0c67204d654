//! A dispatcher behind an address: the requests that any plugin makes.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_RANGE, CONTENT_TYPE};

use super::upstream::{Content, Fetched, Upstream, UpstreamError};
use super::wire;
use crate::client::{BadUrl, Client, NotOk, Payload, RequestError, Uploaded, encoded};
use crate::dispatcher::model::{BinaryEvent, Datastream, Event, Model, PluginEvent, StatusEvent};
use crate::streams::BlobRecord;

/// Bytes of a stream that are asked for at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Fetches that nobody waits for any more, at most; each ends with its deadline.
const ABANDONED_MAX: usize = 4;
/// An upload up to this size is held in memory, so that it can be sent once more.
const HELD_BYTES: u64 = 4 << 20;

/// See the module.
#[derive(Clone)]
pub struct RemoteUpstream {
    client: Arc<Client>,
    shared: Arc<(Mutex<Waits>, Condvar)>,
}

#[derive(Default)]
struct Waits {
    /// Raised by each interrupt.
    interrupts: u64,
    abandoned: usize,
}

/// A fetch on a thread of its own.
#[derive(Default)]
struct Fetch {
    answer: Mutex<Answer>,
}

#[derive(Default)]
enum Answer {
    #[default]
    Awaited,
    Here(Result<Fetched, UpstreamError>),
    /// Nobody waits for it.
    Unwanted,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RemoteUpstream {
    /// The dispatcher at `url`, for example `http://127.0.0.1:8111`.
    ///
    /// # Errors
    /// It is no address of one.
    pub fn new(url: &str) -> Result<Self, String> {
        let client = Client::new(url).map_err(|BadUrl(reason)| reason)?.without_waiting();
        Ok(Self { client: Arc::new(client), shared: Arc::default() })
    }

    /// The same dispatcher for another worker, whose interrupts are its own.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { client: self.client.clone(), shared: Arc::default() }
    }

    fn post(&self, model: Model, events: &[Event]) -> Result<(), UpstreamError> {
        let path = format!("/api/v2/event?{}", query_text(&wire::post_query(model)));
        let body = wire::body(model, events);
        match self.client.post_bytes(&path, "application/avro", &Payload::Bytes(&body)) {
            Ok(answer) => wire::posted(&answer),
            Err(RequestError::NotOk(answer)) => post_refused(answer),
            Err(RequestError::Transport(reason)) => Err(UpstreamError::Unavailable(reason)),
        }
    }

    fn fetch(&self, path: &str) -> Result<Fetched, UpstreamError> {
        let response = self.client.get(path).map_err(refused)?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let body = self.client.whole(response, wire::FETCH_BYTES_MAX).map_err(refused)?;
        wire::fetched(&content_type, &body)
    }

    /// On its own thread: hands the answer over, or gives back what nobody waits for.
    fn fetch_aside(&self, path: &str, fetch: &Fetch) {
        let answer = self.fetch(path);
        let (waits, changed) = &*self.shared;
        let mut place = lock(&fetch.answer);
        if matches!(*place, Answer::Unwanted) {
            drop(place);
            lock(waits).abandoned -= 1;
            let events = answer.map(|fetched| fetched.events).unwrap_or_default();
            let ids: Vec<&str> = events.iter().map(|event| event.dequeued.as_str()).collect();
            if !ids.is_empty()
                && let Err(error) = self.release(&ids)
            {
                tracing::warn!(%error, "leases that came too late could not be given back; they end by themselves");
            }
            return;
        }
        *place = Answer::Here(answer);
        drop(place);
        // Whoever waits looks under this lock.
        drop(lock(waits));
        changed.notify_all();
    }
}

impl Upstream for RemoteUpstream {
    fn register(&self, plugin: &PluginEvent) -> Result<(), UpstreamError> {
        self.post(Model::Plugin, &[Event::Plugin(Box::new(plugin.clone()))])
    }

    fn lease(&self, query: &[(&str, &str)]) -> Result<Fetched, UpstreamError> {
        let path = format!("/api/v2/event/binary/active?{}", query_text(&wire::fetch_query(query)));
        let (waits, changed) = &*self.shared;
        let mut held = lock(waits);
        let begun = held.interrupts;
        if held.abandoned >= ABANDONED_MAX {
            return Err(UpstreamError::Unavailable("too many fetches wait for their end".to_owned()));
        }
        let fetch = Arc::new(Fetch::default());
        let (this, its, to) = (self.clone(), Arc::clone(&fetch), path);
        let aside = std::thread::Builder::new().name("azulite-fetch".to_owned());
        aside
            .spawn(move || this.fetch_aside(&to, &its))
            .map_err(|error| UpstreamError::Unavailable(format!("no thread to fetch with: {error}")))?;
        loop {
            let interrupted = held.interrupts != begun;
            let mut place = lock(&fetch.answer);
            match std::mem::take(&mut *place) {
                Answer::Here(answer) => return answer,
                Answer::Awaited | Answer::Unwanted if interrupted => {
                    *place = Answer::Unwanted;
                    held.abandoned += 1;
                    return Ok(Fetched::default());
                }
                Answer::Awaited | Answer::Unwanted => {}
            }
            drop(place);
            held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn interrupt(&self) {
        let (waits, changed) = &*self.shared;
        lock(waits).interrupts += 1;
        changed.notify_all();
    }

    fn report(&self, statuses: &[StatusEvent]) -> Result<(), UpstreamError> {
        let events: Vec<Event> = statuses.iter().map(|status| Event::Status(Box::new(status.clone()))).collect();
        self.post(Model::Status, &events)
    }

    fn publish(&self, events: &[BinaryEvent]) -> Result<(), UpstreamError> {
        let events: Vec<Event> = events.iter().map(|event| Event::Binary(Box::new(event.clone()))).collect();
        self.post(Model::Binary, &events)
    }

    fn release(&self, dequeued: &[&str]) -> Result<(), UpstreamError> {
        #[derive(Serialize)]
        struct Ids<'a> {
            dequeued: &'a [&'a str],
        }
        let body = serde_json::to_vec(&Ids { dequeued }).unwrap_or_default();
        let path = "/api/azulite/v1/leases/release";
        self.client.post_bytes(path, "application/json", &Payload::Bytes(&body)).map(drop).map_err(refused)
    }

    fn content(&self, source: &str, label: &str, sha256: &str) -> Result<Option<Box<dyn Content>>, UpstreamError> {
        let path = format!("/api/v3/stream/{}/{}/{}", encoded(source), encoded(label), encoded(sha256));
        let mut stream = Stream { client: self.client.clone(), path, size: 0, position: 0, at: 0, piece: Vec::new() };
        match stream.fetch(0) {
            Ok(()) => Ok(Some(Box::new(stream))),
            Err(RequestError::NotOk(answer)) if answer.is_not_found() => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    fn upload(&self, source: &str, label: &str, bytes: &mut dyn Read) -> Result<Datastream, UpstreamError> {
        let path = format!("/api/v3/stream/{}/{}", encoded(source), encoded(label));
        let unreadable = |error: io::Error| UpstreamError::Refused(format!("the bytes cannot be read: {error}"));
        let mut held = Vec::new();
        bytes.take(HELD_BYTES).read_to_end(&mut held).map_err(unreadable)?;
        let octets = "application/octet-stream";
        let uploaded: Result<Uploaded, _> = match u64::try_from(held.len()) {
            Ok(length) if length < HELD_BYTES => self.client.post(&path, octets, &Payload::Bytes(&held)),
            // A request is made once, so the rest is read once.
            Ok(_) | Err(_) => {
                let rest = Mutex::new(Some(bytes));
                let begin = || -> Box<dyn Read + '_> {
                    match lock(&rest).take() {
                        Some(rest) => Box::new(held.as_slice().chain(rest)),
                        None => Box::new(io::empty()),
                    }
                };
                self.client.post(&path, octets, &Payload::Reader(&begin))
            }
        };
        Ok(BlobRecord::from(uploaded.map_err(refused)?).into_stream(label))
    }
}

fn query_text(query: &[(String, String)]) -> String {
    query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect::<Vec<_>>().join("&")
}

/// Statuses that another try may not meet.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504 | 507)
}

fn refused(error: RequestError) -> UpstreamError {
    match error {
        RequestError::NotOk(answer) if is_passing(answer.status) => UpstreamError::Unavailable(answer.message()),
        RequestError::NotOk(answer) if answer.status.is_server_error() => UpstreamError::Unavailable(answer.message()),
        RequestError::NotOk(answer) => UpstreamError::Refused(answer.message()),
        RequestError::Transport(reason) => UpstreamError::Unavailable(reason),
    }
}

/// As [`wire::post_refused`], from what the HTTP edge made of it.
fn post_refused(answer: NotOk) -> Result<(), UpstreamError> {
    let detail = &answer.problem.detail;
    match answer.status {
        StatusCode::TOO_EARLY if answer.problem.error_enum == "ErrorStringEnumAllEventsAgedOffImmediately" => Ok(()),
        StatusCode::TOO_EARLY if detail.contains("with 0 response failures") => Ok(()),
        StatusCode::INTERNAL_SERVER_ERROR if answer.problem.title == "Marshalling Failed" => Ok(()),
        StatusCode::INTERNAL_SERVER_ERROR => Err(wire::not_stored(&answer.message())),
        _ => Err(refused(RequestError::NotOk(answer))),
    }
}

/// A stored stream, read in pieces.
struct Stream {
    client: Arc<Client>,
    path: String,
    size: u64,
    position: u64,
    /// Where `piece` begins.
    at: u64,
    piece: Vec<u8>,
}

impl Stream {
    /// Has the piece that begins at `first`.
    fn fetch(&mut self, first: u64) -> Result<(), RequestError> {
        let broken =
            |what: &str| RequestError::Transport(format!("the range of {} is not as asked for: {what}", self.path));
        let response = self.client.get_range(&self.path, first, first.saturating_add(PIECE_BYTES - 1))?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let size = range.rsplit_once('/').and_then(|(_, size)| size.parse().ok());
        let began = range.strip_prefix("bytes ").and_then(|rest| rest.split('-').next()?.parse::<u64>().ok());
        let whole = response.status() == StatusCode::OK && first == 0;
        let piece = self.client.whole(response, if whole { wire::FETCH_BYTES_MAX } else { PIECE_BYTES })?;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let size: u64 = match size {
            Some(size) if began == Some(first) => size,
            None if whole => length,
            Some(_) | None => return Err(broken("it begins elsewhere")),
        };
        if length == 0 || first.saturating_add(length) > size || (self.size != 0 && self.size != size) {
            return Err(broken("its length is another one"));
        }
        (self.size, self.at, self.piece) = (size, first, piece);
        Ok(())
    }

    fn held(&self) -> Option<&[u8]> {
        let from = usize::try_from(self.position.checked_sub(self.at)?).ok()?;
        self.piece.get(from..).filter(|rest| !rest.is_empty())
    }
}

impl Content for Stream {
    fn size(&self) -> u64 {
        self.size
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.size || buf.is_empty() {
            return Ok(0);
        }
        if self.held().is_none() {
            self.fetch(self.position).map_err(|error| io::Error::other(error.message()))?;
        }
        let held = self.held().unwrap_or_default();
        let length = held.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..length), held.get(..length)) {
            to.copy_from_slice(from);
        }
        self.position = self.position.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        Ok(length)
    }
}

impl Seek for Stream {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = crate::streams::sought(to, self.position, self.size)?;
        Ok(self.position)
    }
}
