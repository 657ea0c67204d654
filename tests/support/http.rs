//! A plain HTTP/1.1 client over one socket: every byte of a request can be chosen, every byte of an answer is checked.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;

/// The body of a request.
#[derive(Clone, Debug)]
pub(crate) enum Body<'a> {
    /// No body and no `Content-Length`.
    None,
    /// With `Content-Length`.
    Sized(&'a [u8]),
    /// With `Transfer-Encoding: chunked`, one chunk per piece.
    Chunked(&'a [&'a [u8]]),
}

/// A client that keeps its connection from request to request.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    wire: Option<Wire>,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Client {
        Client { address, wire: None, timeout: PATIENCE }
    }

    /// Uses `timeout` for every read and write from the next connection on.
    pub(crate) fn timeout(mut self, timeout: Duration) -> Client {
        self.timeout = timeout;
        self
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[], Body::None)
    }

    pub(crate) fn try_get(&mut self, target: &str) -> io::Result<Response> {
        self.try_request("GET", target, &[], Body::None)
    }

    pub(crate) fn head(&mut self, target: &str) -> Response {
        self.request("HEAD", target, &[], Body::None)
    }

    pub(crate) fn delete(&mut self, target: &str) -> Response {
        self.request("DELETE", target, &[], Body::None)
    }

    pub(crate) fn patch(&mut self, target: &str) -> Response {
        self.request("PATCH", target, &[], Body::None)
    }

    pub(crate) fn post(&mut self, target: &str, body: &[u8]) -> Response {
        self.request("POST", target, &[], Body::Sized(body))
    }

    pub(crate) fn try_post(&mut self, target: &str, body: &[u8]) -> io::Result<Response> {
        self.try_request("POST", target, &[], Body::Sized(body))
    }

    /// One request; fails the test when no well-formed answer comes back.
    pub(crate) fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: Body<'_>) -> Response {
        self.try_request(method, target, headers, body).unwrap_or_else(|e| panic!("{method} {target}: {e}"))
    }

    /// One request. After an error the connection is gone; nothing is ever sent twice.
    pub(crate) fn try_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> io::Result<Response> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => Wire::connect(self.address, self.timeout)?,
        };
        let sent = wire.send(&request_bytes(self.address, method, target, headers, body));
        // A server may answer before it has read everything (413): the answer counts, not the broken pipe.
        let response = wire.response(method).map_err(|e| sent.err().unwrap_or(e))?;
        if !response.closes() {
            self.wire = Some(wire);
        }
        Ok(response)
    }
}

fn request_bytes(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: Body<'_>) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    match body {
        Body::None => bytes.extend_from_slice(b"\r\n"),
        Body::Sized(body) => {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(body);
        }
        Body::Chunked(pieces) => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
    }
    bytes
}

/// One connection, for tests that send half a request or none at all.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Wire> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, buffer: Vec::new() })
    }

    /// Writes these bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent; answers can still be read.
    pub(crate) fn end_of_request(&mut self) {
        drop(self.stream.shutdown(Shutdown::Write));
    }

    /// Reads until the server closes; a reset counts as closing.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().or_else(|e| if closed_by_peer(&e) { Ok(0) } else { Err(e) })? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Waits until the answer begins.
    pub(crate) fn first_byte(&mut self) -> io::Result<()> {
        self.stream.read_exact(&mut [0])
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = vec![0; 64 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.buffer.extend(piece.get(..count).into_iter().flatten());
        Ok(count)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut seen = 0;
        loop {
            let fresh = self.buffer.get(seen..).unwrap_or_default();
            if let Some(at) = fresh.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..seen + at + 2).take(seen + at).collect();
                return String::from_utf8(line).map_err(io::Error::other);
            }
            seen = self.buffer.len().saturating_sub(1);
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line()?.trim(), 16).map_err(io::Error::other)?;
            body.extend(self.exactly(size)?);
            if !self.line()?.is_empty() {
                return Err(io::Error::other("a chunk longer than it says, or a trailer"));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads one answer to a request with `method`.
    pub(crate) fn response(&mut self, method: &str) -> io::Result<Response> {
        let first = self.line()?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::other(format!("not a status line: {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(format!("header {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        response.body = if method == "HEAD" || status == 204 || status == 304 {
            Vec::new()
        } else if response.header("transfer-encoding") == Some("chunked") {
            self.chunks()?
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            self.exactly(length)?
        } else {
            self.rest()?
        };
        Ok(response)
    }
}

fn closed_by_peer(error: &io::Error) -> bool {
    [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionAborted]
        .contains(&error.kind())
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of the only header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "header {name} more than once in {self:?}");
        first
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// Fails the test on any other status.
    pub(crate) fn expect_status(self, status: u16) -> Response {
        assert_eq!(self.status, status, "status; headers {:?}, body {}", self.headers, self.text());
        self
    }

    /// An error body with exactly these bytes and the two headers that go with it.
    pub(crate) fn expect_error(self, status: u16, title: &str, detail: &str) -> Response {
        let quoted = |text: &str| Value::from(text).to_string();
        let expected = format!(
            "{{\"status\":\"{status}\",\"title\":{},\"detail\":{},\"error_enum\":\"ErrorStringEnumUnset\"}}",
            quoted(title),
            quoted(detail)
        );
        let answer = self.expect_status(status);
        assert_eq!(answer.text(), expected);
        answer.expect_error_headers()
    }

    /// An error body in the right form with this title; the detail is free. Returns the detail.
    pub(crate) fn expect_error_titled(self, status: u16, title: &str) -> String {
        let answer = self.expect_any_error(status);
        let body = answer.json();
        assert_eq!(body["title"], title, "{body}");
        body["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// An error body in the right form, whatever it says: no other keys, the status as text, a known enum value.
    pub(crate) fn expect_any_error(self, status: u16) -> Response {
        let answer = self.expect_status(status).expect_error_headers();
        let body = answer.json();
        let object = body.as_object().expect("an error is an object");
        let known = ["status", "title", "detail", "error_enum", "error_params"];
        assert!(object.keys().all(|key| known.contains(&key.as_str())), "{body}");
        assert_eq!(body["status"], status.to_string(), "{body}");
        let enums =
            ["ErrorStringEnumUnset", "ErrorStringEnumAllEventsFiltered", "ErrorStringEnumAllEventsAgedOffImmediately"];
        assert!(enums.iter().any(|value| body["error_enum"] == *value), "{body}");
        assert!(body["title"].is_string() && body.get("detail").is_none_or(Value::is_string), "{body}");
        if let Some(params) = body.get("error_params") {
            assert!(params.as_object().is_some_and(|map| map.values().all(Value::is_string)), "{body}");
        }
        answer
    }

    fn expect_error_headers(self) -> Response {
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"), "{self:?}");
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{self:?}");
        self
    }

    /// The plain text answer to a path or method that does not exist.
    pub(crate) fn expect_no_such_page(self) -> Response {
        let answer = self.expect_status(404);
        assert_eq!(answer.text(), "404 page not found");
        let media_type = answer.header("content-type").unwrap_or_default();
        assert!(media_type == "text/plain" || media_type.starts_with("text/plain;"), "{answer:?}");
        answer
    }
}
