//! The calls of CRITs (workers.md 3.5).

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use azulite_storage::clock::now_us;
use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;
use ureq::{Body, SendBody};

use super::super::http::{agent, check_url, shown};
use super::super::multipart::{FilePart, Multipart};
use super::super::token::Token;
use super::rows::Row;
use crate::config::CritsSink;

/// Rows in one request.
const ROWS_AT_ONCE: usize = 500;
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// What rows belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) analysis_id: String,
    pub(super) object_type: String,
    pub(super) object_id: String,
}

/// Why CRITs did not take something.
#[derive(Debug)]
pub(super) enum SinkError {
    Unreachable(String),
    Refused(String),
    /// The job is over its time, or the process stops.
    Stopped,
}

/// A CRITs.
pub(super) struct Client {
    agent: Agent,
    base: String,
    username: String,
    key: Token,
    source: String,
    pause: Duration,
}

impl Client {
    pub(super) fn new(config: &CritsSink) -> Result<Self, String> {
        check_url(&config.url)?;
        let ca_file = Some(config.ca_file.as_path()).filter(|path| *path != Path::new(""));
        Ok(Self {
            agent: agent(&config.url, config.request_timeout, config.verify_tls, ca_file)?,
            base: config.url.trim_end_matches('/').to_owned(),
            username: config.username.clone(),
            key: Token::read(&config.api_key_file)?,
            source: config.source.clone(),
            pause: config.sink_pause,
        })
    }

    /// Sends rows; with the last of a `report`, that the analysis is finished.
    pub(super) fn results(
        &self,
        target: &Target,
        rows: &[Row],
        report: bool,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), SinkError> {
        let count = rows.len().div_ceil(ROWS_AT_ONCE);
        for (number, some) in rows.chunks(ROWS_AT_ONCE).enumerate() {
            if is_over() {
                return Err(SinkError::Stopped);
            }
            let list = |texts: Vec<String>| Value::from(texts).to_string();
            let results = list(some.iter().map(|row| row.result.clone()).collect());
            let subtypes = list(some.iter().map(|row| row.subtype.to_owned()).collect());
            let types = list(some.iter().map(|row| Value::Object(row.data.clone()).to_string()).collect());
            let mut fields = vec![
                ("result_is_batch", "true"),
                ("result", results.as_str()),
                ("result_subtype", subtypes.as_str()),
                ("result_type", types.as_str()),
                ("analysis_id", target.analysis_id.as_str()),
                ("object_type", target.object_type.as_str()),
                ("object_id", target.object_id.as_str()),
                ("username", self.username.as_str()),
                ("api_key", self.key.expose()),
            ];
            if report && number + 1 == count {
                fields.push(("finish", "true"));
            }
            let url = format!("{}/api/v1/services/", self.base);
            let sent = self.agent.post(url).content_type(FORM).send(form(&fields).as_slice());
            let answer = read(sent)?;
            if code(&answer) != Some(0) {
                return Err(refused(&answer));
            }
        }
        Ok(())
    }

    /// Uploads a sample; its id.
    pub(super) fn upload(
        &self,
        name: &str,
        size: u64,
        sha256: &str,
        bytes: &mut dyn Read,
    ) -> Result<String, SinkError> {
        let fields = [
            ("username", self.username.as_str()),
            ("api_key", self.key.expose()),
            ("source", self.source.as_str()),
            ("upload_type", "file"),
            ("file_format", "raw"),
        ];
        let boundary = format!("azulite-{}-{}", now_us(), sha256.get(..32).unwrap_or(sha256));
        let mut body = Multipart::new(boundary, fields.into_iter(), FilePart { field: "filedata", name, size, bytes });
        let request = self.agent.post(format!("{}/api/v1/samples/", self.base));
        let request =
            request.header("content-type", body.content_type()).header("content-length", body.length().to_string());
        let answer = read(request.send(SendBody::from_reader(&mut body)))?;
        std::thread::sleep(self.pause);
        let id = answer
            .get("id")
            .and_then(|id| id.as_str().map(str::to_owned).or_else(|| id.as_u64().map(|id| id.to_string())));
        id.filter(|_| code(&answer) == Some(0)).ok_or_else(|| refused(&answer))
    }

    /// Says that a sample belongs to the object; that it does already is fine.
    pub(super) fn relate(&self, target: &Target, sample: &str) -> Result<(), SinkError> {
        if target.object_id.contains(['/', '?', '#', '%']) {
            return Err(SinkError::Refused("the object id is no path segment".to_owned()));
        }
        let fields = [
            ("action", "forge_relationship"),
            ("right_type", "Sample"),
            ("right_id", sample),
            ("rel_type", "Related To"),
        ];
        let url = format!("{}/api/v1/samples/{}/", self.base, target.object_id);
        let authorization = format!("ApiKey {}:{}", self.username, self.key.expose());
        let request = self.agent.patch(url).header("authorization", authorization).content_type(FORM);
        let answer = read(request.send(form(&fields).as_slice()))?;
        std::thread::sleep(self.pause);
        let message = answer.get("message").and_then(Value::as_str).unwrap_or_default().to_lowercase();
        if code(&answer) == Some(0) || message.contains("already exist") { Ok(()) } else { Err(refused(&answer)) }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push(b'&');
        }
        encode(name, &mut out);
        out.push(b'=');
        encode(value, &mut out);
    }
    out
}

fn encode(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

fn read(sent: Result<Response<Body>, ureq::Error>) -> Result<Value, SinkError> {
    let unreachable = |error: String| SinkError::Unreachable(error);
    let response = sent.map_err(|error| unreachable(error.to_string()))?;
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    let read: io::Result<usize> = response.into_body().into_reader().take(ANSWER_MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| unreachable(format!("the answer broke off: {error}")))?;
    match status {
        200..=299 => {
            serde_json::from_slice(&bytes).map_err(|_| SinkError::Refused(format!("no JSON: {}", shown(&bytes))))
        }
        429 | 502..=504 => Err(unreachable(format!("answered {status}"))),
        _ => Err(SinkError::Refused(format!("answered {status}: {}", shown(&bytes)))),
    }
}

fn code(answer: &Value) -> Option<i64> {
    answer.get("return_code").and_then(Value::as_i64)
}

fn refused(answer: &Value) -> SinkError {
    SinkError::Refused(shown(answer.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a", "b c&d=é"), ("x", "")]), b"a=b%20c%26d%3D%C3%A9&x=");
    }
}
