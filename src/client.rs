//! HTTP to a running server: loopback, or an address the user gave. The only part of the commands and of workers in
//! processes of their own that opens a socket to one.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, SendBody};

use crate::streams::BlobRecord;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may take until it begins to answer; an upload is hashed and identified before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// Largest answer that is read whole.
const ANSWER_BYTES: u64 = 64 << 20;
/// Times a request is made that the server is too busy for.
const ATTEMPTS: u32 = 8;
/// Connections kept for the next request: one for each file under way.
const IDLE_CONNECTIONS: usize = 64;
const BETWEEN_ATTEMPTS_MAX: Duration = Duration::from_secs(10);

/// A server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: String,
    agent: Agent,
    attempts: u32,
}

/// The error body of every answer outside 2xx.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    /// Short.
    pub(crate) title: String,
    /// What a person can act on.
    pub(crate) detail: String,
    /// Which of the kinds that clients tell apart.
    pub(crate) error_enum: String,
}

/// The body of a request; it can be sent more than once.
pub(crate) enum Payload<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// Read from its beginning for each attempt, and sent in chunks.
    Reader(&'a dyn Fn() -> Box<dyn Read + 'a>),
}

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct NotOk {
    /// Its status.
    pub(crate) status: StatusCode,
    /// What it says.
    pub(crate) problem: Problem,
}

impl NotOk {
    /// True when the thing asked for does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// True when what was asked for cannot be done as it was asked for.
    pub(crate) fn is_bad_request(&self) -> bool {
        self.status == StatusCode::BAD_REQUEST
    }

    /// True when it is the path that does not exist, for example on a server of another version.
    pub(crate) fn is_no_such_page(&self) -> bool {
        self.is_not_found() && self.problem.detail.is_empty()
    }

    /// Text for people.
    pub(crate) fn message(&self) -> String {
        let Problem { title, detail, .. } = &self.problem;
        format!("the server answered {}: {title}: {detail}", self.status.as_u16())
    }
}

/// What can go wrong with a request.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The server cannot be talked to.
    Transport(String),
    /// It said no.
    NotOk(NotOk),
}

impl RequestError {
    /// Text for people.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Transport(message) => message.clone(),
            Self::NotOk(answer) => answer.message(),
        }
    }
}

/// No address of a server; the text says what is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadUrl(pub(crate) String);

impl Client {
    /// A client of the server at `url`, for example `http://127.0.0.1:8111`.
    ///
    /// # Errors
    /// It is not such an address.
    pub(crate) fn new(url: &str) -> Result<Self, BadUrl> {
        let base = url.trim_end_matches('/');
        let host = base.strip_prefix("http://").filter(|host| !host.is_empty() && !host.contains(['/', '?', '#', ' ']));
        if host.is_none() {
            let allowed = "allowed is http://HOST:PORT without a path";
            return Err(BadUrl(format!("--url {url}: {allowed}")));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .user_agent(concat!("azulite/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { base: base.to_owned(), agent: config.into(), attempts: ATTEMPTS })
    }

    /// The same, but a request is made once: whoever calls comes again by itself.
    pub(crate) fn without_waiting(self) -> Self {
        Self { attempts: 1, ..self }
    }

    /// GET of a JSON object; `None` when there is no such thing.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(crate) fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, RequestError> {
        match self.get(path) {
            Ok(response) => self.json(response).map(Some),
            Err(RequestError::NotOk(answer)) if answer.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// GET of a body to be read as it comes.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(crate) fn get(&self, path: &str) -> Result<Response<Body>, RequestError> {
        self.again(|| self.agent.get(self.url(path)).call())
    }

    /// GET of some bytes of a body, counted from 0, both ends included.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(crate) fn get_range(&self, path: &str, first: u64, last: u64) -> Result<Response<Body>, RequestError> {
        let range = format!("bytes={first}-{last}");
        self.again(|| self.agent.get(self.url(path)).header("Range", &range).call())
    }

    /// A whole body of at most `limit` bytes; a longer one is an error.
    ///
    /// # Errors
    /// A transport error.
    pub(crate) fn whole(&self, response: Response<Body>, limit: u64) -> Result<Vec<u8>, RequestError> {
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(limit.saturating_add(1)).read_to_end(&mut bytes);
        let read = read.map_err(|error| self.broken(&error))?;
        match u64::try_from(read) {
            Ok(read) if read <= limit => Ok(bytes),
            Ok(_) | Err(_) => Err(self.broken(&format_args!("it has more than {limit} bytes"))),
        }
    }

    /// True when a HEAD request finds something.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(crate) fn exists(&self, path: &str) -> Result<bool, RequestError> {
        match self.again(|| self.agent.head(self.url(path)).call()) {
            Ok(_) => Ok(true),
            Err(RequestError::NotOk(answer)) if answer.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// POST; the answer is JSON.
    ///
    /// # Errors
    /// [`RequestError`]; what a reader fails with is a transport error.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        payload: &Payload<'_>,
    ) -> Result<T, RequestError> {
        self.json(self.send(path, content_type, payload)?)
    }

    /// POST; the answer as it is.
    ///
    /// # Errors
    /// [`RequestError`]; what a reader fails with is a transport error.
    pub(crate) fn post_bytes(
        &self,
        path: &str,
        content_type: &str,
        payload: &Payload<'_>,
    ) -> Result<Vec<u8>, RequestError> {
        self.whole(self.send(path, content_type, payload)?, ANSWER_BYTES)
    }

    fn send(&self, path: &str, content_type: &str, payload: &Payload<'_>) -> Result<Response<Body>, RequestError> {
        self.again(|| {
            let request = self.agent.post(self.url(path)).content_type(content_type);
            match payload {
                Payload::Bytes(bytes) => request.send(*bytes),
                Payload::Reader(begin) => request.send(SendBody::from_reader(&mut begin())),
            }
        })
    }

    /// PATCH with a JSON body; the answer is JSON.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(crate) fn patch<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, RequestError> {
        let send = || self.agent.patch(self.url(path)).content_type("application/json").send(body);
        self.json(self.again(send)?)
    }

    /// DELETE; the answer is JSON.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.json(self.again(|| self.agent.delete(self.url(path)).call())?)
    }

    /// GET of lines of JSON, each handed over as it comes; `None` when there is no such thing, false from `take` ends it.
    ///
    /// # Errors
    /// [`RequestError`], also when the answer breaks off.
    pub(crate) fn get_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        take: impl FnMut(T) -> bool,
    ) -> Result<Option<()>, RequestError> {
        match self.lines(path, take) {
            Ok(()) => Ok(Some(())),
            Err(RequestError::NotOk(answer)) if answer.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Client::get_lines`], for things of which there are several that may not exist.
    ///
    /// # Errors
    /// [`RequestError`], also when the answer breaks off.
    pub(crate) fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        mut take: impl FnMut(T) -> bool,
    ) -> Result<(), RequestError> {
        let response = self.get(path)?;
        for line in BufReader::with_capacity(64 << 10, response.into_body().into_reader()).lines() {
            let line = line.map_err(|error| self.broken(&error))?;
            let value = serde_json::from_str(&line).map_err(|error| self.broken(&error))?;
            if !take(value) {
                break;
            }
        }
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> RequestError {
        RequestError::Transport(format!("the answer of {} cannot be read: {error}", self.base))
    }

    fn json<T: DeserializeOwned>(&self, response: Response<Body>) -> Result<T, RequestError> {
        let body = response.into_body().into_reader().take(ANSWER_BYTES);
        serde_json::from_reader(BufReader::new(body)).map_err(|error| self.broken(&error))
    }

    /// Makes a request until the server is not too busy for it.
    fn again(
        &self,
        mut request: impl FnMut() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, RequestError> {
        let mut attempt = 1;
        loop {
            let response =
                request().map_err(|error| RequestError::Transport(format!("no answer from {}: {error}", self.base)))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let busy = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
            if !busy || attempt == self.attempts {
                return Err(RequestError::NotOk(not_ok(response)));
            }
            std::thread::sleep(pause(&response));
            attempt += 1;
        }
    }
}

fn not_ok(response: Response<Body>) -> NotOk {
    let status = response.status();
    let mut text = String::new();
    let read = response.into_body().into_reader().take(64 << 10).read_to_string(&mut text);
    let text = if read.is_ok() { text } else { String::new() };
    let problem = serde_json::from_str(&text)
        .unwrap_or_else(|_| Problem { title: text.trim().chars().take(200).collect(), ..Problem::default() });
    NotOk { status, problem }
}

/// How long the server asks to be left alone.
fn pause(response: &Response<Body>) -> Duration {
    let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).min(BETWEEN_ATTEMPTS_MAX)
}

/// The answer to an upload (streams.md 3).
#[derive(Deserialize)]
pub(crate) struct Uploaded {
    data: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    identify_version: u32,
    size: u64,
    sha512: String,
    sha256: String,
    sha1: String,
    md5: String,
    ssdeep: String,
    tlsh: String,
    mime: String,
    magic: String,
    file_format: String,
    file_extension: String,
}

impl From<Uploaded> for BlobRecord {
    fn from(Uploaded { data }: Uploaded) -> Self {
        Self {
            identify_version: data.identify_version,
            size: data.size,
            sha512: data.sha512,
            sha256: data.sha256,
            sha1: data.sha1,
            md5: data.md5,
            ssdeep: data.ssdeep,
            tlsh: data.tlsh,
            mime: data.mime,
            magic: data.magic,
            file_format: data.file_format,
            file_extension: data.file_extension,
        }
    }
}

/// A path segment or query value, percent-encoded.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        for good in ["http://127.0.0.1:8111", "http://[::1]:8111/", "http://box"] {
            assert!(Client::new(good).is_ok(), "{good}");
        }
        for bad in ["https://127.0.0.1", "127.0.0.1:8111", "http://", "http://a/b", "http://a b"] {
            let refused = Client::new(bad).unwrap_err();
            assert!(refused.0.contains(bad), "{refused:?}");
        }
    }

    #[test]
    fn segments_are_encoded() {
        assert_eq!(encoded("a-b.c_d~/é %"), "a-b.c_d~%2F%C3%A9%20%25");
    }
}
