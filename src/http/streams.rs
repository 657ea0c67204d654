//! The stream routes: upload, download, existence, deletion, copy. Spec: streams.md 1 to 3.

use azulite_storage::ids::Sha256;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, RANGE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use warp::reply::Response;

use super::body::BodyLimits;
use super::router::{Call, reply, reply_in_pieces};
use super::url::{first, parse_query};
use super::{Services, error};
use crate::streams::{BlobRecord, Deleted, Download, Place, Range, UploadRequest};

const OCTETS: &str = "application/octet-stream";
const JSON: &str = "application/json";

/// A source or label that could be mistaken for something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadName(pub(super) String);

/// Source and label as a place, when both are names: `[A-Za-z0-9._-]`, at most 255 of them, neither `.` nor `..`.
fn place(source: &str, label: &str) -> Result<Place, BadName> {
    for name in [source, label] {
        let characters = name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'));
        if !characters || matches!(name, "" | "." | "..") || name.len() > 255 {
            return Err(BadName(name.to_owned()));
        }
    }
    Ok(Place::new(source, label))
}

/// `POST /api/v3/stream/{source}/{label}`.
pub(super) async fn upload(services: &Services, call: Call, source: String, label: String) -> Response {
    let place = match place(&source, &label) {
        Ok(place) => place,
        Err(bad) => return error::bad_name(&bad),
    };
    let query = match parse_query(&call.query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let skip_identify = match first(&query, "skip-identify").map_or(Ok(false), parse_bool) {
        Ok(skip) => skip,
        Err(bad) => return error::bad_skip_identify(bad),
    };
    let expected_sha256 = first(&query, "expected-sha256").map(str::to_owned);
    let limits = BodyLimits {
        bytes: services.limits.upload_bytes,
        pause: services.limits.body_timeout,
        min_rate: services.limits.body_min_rate,
    };
    let request = UploadRequest { skip_identify, expected_sha256 };
    if skip_identify && request.expected_sha256.is_none() {
        return error::hash_needed();
    }
    if let Err(problem) = call.body.check_length(limits) {
        return error::upload_body(&problem);
    }
    match services.streams.upload(place, request, call.body.into_pieces(limits)).await {
        Ok(record) => json(&UploadAnswer { data: Metadata::of(&record) }),
        Err(problem) => error::upload(&problem),
    }
}

/// Go's booleans.
fn parse_bool(text: &str) -> Result<bool, &str> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(text),
    }
}

/// Answer to an upload.
#[derive(Serialize)]
struct UploadAnswer<'a> {
    data: Metadata<'a>,
}

/// The object under `data`: strict clients refuse any other key.
#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    identify_version: u32,
    label: &'static str,
    size: u64,
    sha512: &'a str,
    sha256: &'a str,
    sha1: &'a str,
    md5: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ssdeep: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tlsh: &'a str,
    mime: &'a str,
    magic: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file_format: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file_extension: &'a str,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<'a> Metadata<'a> {
    fn of(record: &'a BlobRecord) -> Self {
        Self {
            identify_version: record.identify_version,
            // Whatever the path says; clients put in their own.
            label: "content",
            size: record.size,
            sha512: &record.sha512,
            sha256: &record.sha256,
            sha1: &record.sha1,
            md5: &record.md5,
            ssdeep: &record.ssdeep,
            tlsh: &record.tlsh,
            mime: &record.mime,
            magic: &record.magic,
            file_format: &record.file_format,
            file_extension: &record.file_extension,
        }
    }
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => reply(StatusCode::OK, JSON, text),
        Err(bad) => error::internal("Marshalling Failed", &bad.to_string()),
    }
}

/// `GET /api/v3/stream/{source}/{label}/{hash}`.
pub(super) async fn download(services: &Services, call: Call, source: String, label: String, hash: &str) -> Response {
    let range = match Range::parse(&call.header(&RANGE)) {
        Ok(range) => range,
        Err(bad) => return error::bad_range(bad),
    };
    let (place, hash) = match address(&source, &label, hash) {
        Ok(address) => address,
        Err(refusal) => return refusal.response(),
    };
    match services.streams.fetch(place, hash, range).await {
        Ok(download) => sent(download, range.is_some()),
        Err(problem) => error::fetch(&problem),
    }
}

fn sent(download: Download, part: bool) -> Response {
    let Download { size, first, length, .. } = download;
    let status = if part { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = match download.into_whole() {
        Ok(whole) => reply(status, OCTETS, whole),
        Err(download) => reply_in_pieces(status, HeaderValue::from_static(OCTETS), length, download.into_pieces()),
    };
    if !part {
        response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        return response;
    }
    let range = format!("bytes {first}-{}/{size}", first.saturating_add(length).saturating_sub(1));
    match HeaderValue::try_from(range) {
        Ok(range) => response.headers_mut().insert(CONTENT_RANGE, range),
        Err(bad) => return error::internal("bad content range", &bad.to_string()),
    };
    response
}

/// Why a path names no blob.
enum Refusal {
    Name(BadName),
    Hash,
}

impl Refusal {
    fn response(self) -> Response {
        match self {
            Self::Name(bad) => error::bad_name(&bad),
            Self::Hash => error::not_found(),
        }
    }
}

fn address(source: &str, label: &str, hash: &str) -> Result<(Place, Sha256), Refusal> {
    let place = place(source, label).map_err(Refusal::Name)?;
    Ok((place, Sha256::parse(hash).ok_or(Refusal::Hash)?))
}

/// `HEAD /api/v3/stream/{source}/{label}/{hash}`. Errors have no body either.
pub(super) async fn exists(services: &Services, source: String, label: String, hash: &str) -> Response {
    let (place, hash) = match address(&source, &label, hash) {
        Ok(address) => address,
        Err(refusal) => return error::without_body(&refusal.response()),
    };
    match services.streams.exists(place, hash).await {
        Ok(true) => Response::new(Default::default()),
        Ok(false) => error::without_body(&error::not_found()),
        Err(problem) => error::without_body(&error::exists(&problem)),
    }
}

/// Answer to a deletion.
#[derive(Serialize)]
struct DeleteAnswer {
    deleted: bool,
}

/// `DELETE /api/v3/stream/{source}/{label}/{hash}`.
pub(super) async fn delete(services: &Services, call: Call, source: String, label: String, hash: &str) -> Response {
    let query = match parse_query(&call.query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let older_than =
        match first(&query, "ifOlderThan").map(|text| text.parse::<i64>().map_err(|e| (text, e))).transpose() {
            Ok(seconds) => seconds,
            Err((text, bad)) => return error::bad_older_than(text, &bad),
        };
    let (place, hash) = match address(&source, &label, hash) {
        Ok(address) => address,
        Err(refusal) => return refusal.response(),
    };
    match services.streams.delete(place, hash, older_than).await {
        Ok(Deleted::Yes) => json(&DeleteAnswer { deleted: true }),
        Ok(Deleted::TooYoung) => json(&DeleteAnswer { deleted: false }),
        Ok(Deleted::NotFound) => error::not_found(),
        Err(problem) => error::delete(&problem),
    }
}

/// `PATCH /api/v3/stream/{sourceA}/{sourceB}/{label}/{hash}`.
pub(super) async fn copy(services: &Services, [from, to]: [String; 2], label: String, hash: &str) -> Response {
    let places = place(&from, &label).and_then(|from| Ok((from, place(&to, &label)?)));
    let (from, to) = match places {
        Ok(places) => places,
        Err(bad) => return error::bad_name(&bad),
    };
    let Some(hash) = Sha256::parse(hash) else { return error::not_found() };
    match services.streams.copy(from, to, hash).await {
        Ok(true) => Response::new(Default::default()),
        Ok(false) => error::not_found(),
        Err(problem) => error::copy(&problem),
    }
}
