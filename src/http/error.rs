//! From what went wrong to a status and a body: the only file that chooses either for HTTP.
//!
//! Clients decide on the status, show `title: detail` to people, and refuse unknown keys in the body. Spec: events.md 1.2,
//! 1.4 and 1.7, streams.md 1.1 and 1.2.

use std::collections::BTreeMap;
use std::num::ParseIntError;
use std::time::Duration;

use http::header::{RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use warp::reply::Response;

use super::body::BodyError;
use super::router::{reply, text};
use super::streams::BadName;
use super::url::NotUtf8;
use crate::admin::dead::DeadError;
use crate::admin::records::{AppendRecordsError, ReadRecordsError};
use crate::admin::reidentify;
use crate::admin::reprocess::{BeginError, JobError};
use crate::admin::{GroupRefusal, TopicRefusal};
use crate::broker::{AppendError, CreateTopicError, NewTopicError};
use crate::dispatcher::dead::{ChangeError, LetterError};
use crate::dispatcher::hub::{GetError, PostError, SimulateError};
use crate::streams::{AfterEnd, FetchError, RangeError, StoreError, UploadError};

/// Detail of an error without a cause.
const NO_CAUSE: &str = "no error provided";

/// Values of `error_enum`; strict clients accept no others.
#[derive(Clone, Copy, Serialize)]
enum Kind {
    #[serde(rename = "ErrorStringEnumUnset")]
    Unset,
    #[serde(rename = "ErrorStringEnumAllEventsFiltered")]
    AllEventsFiltered,
    #[serde(rename = "ErrorStringEnumAllEventsAgedOffImmediately")]
    AllEventsAgedOff,
}

/// The body of every error, keys in wire order.
#[derive(Serialize)]
struct Body<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    title: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    error_enum: Kind,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    error_params: BTreeMap<&'static str, String>,
}

fn plain(status: StatusCode, title: &str, detail: &str) -> Response {
    with_params(status, title, detail, Kind::Unset, BTreeMap::new())
}

fn with_params(
    status: StatusCode,
    title: &str,
    detail: &str,
    error_enum: Kind,
    error_params: BTreeMap<&'static str, String>,
) -> Response {
    let body = Body { status: status.as_str(), title, detail, error_enum, error_params };
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let mut response = reply(status, "application/json; charset=utf-8", body);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn later(title: &str, detail: &str, after: Duration) -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, title, detail);
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

/// A path or method that does not exist.
pub(super) fn no_such_page() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

/// The same status without a body, for HEAD.
pub(super) fn without_body(response: &Response) -> Response {
    let mut empty = Response::default();
    *empty.status_mut() = response.status();
    empty
}

/// A failure of our own that no client caused.
pub(super) fn internal(title: &str, detail: &str) -> Response {
    tracing::error!(title, detail, "a request failed");
    plain(StatusCode::INTERNAL_SERVER_ERROR, title, detail)
}

fn disk_full(title: &str) -> Response {
    plain(StatusCode::INSUFFICIENT_STORAGE, title, "the disk is full: free some space, reads and deletions go on")
}

fn stopping() -> Response {
    later("stopping", "the service is stopping, try again when it is back", Duration::from_secs(5))
}

fn poisoned() -> Response {
    later("store stopped", "the store has stopped after a failed write and is about to restart", Duration::from_secs(5))
}

/// A query that is not text.
pub(super) fn bad_query(bad: &NotUtf8) -> Response {
    plain(StatusCode::BAD_REQUEST, "bad parameters", &not_utf8(bad))
}

/// The same for a fetch, whose parameter errors have a status of their own.
pub(super) fn bad_fetch_query(bad: &NotUtf8) -> Response {
    plain(StatusCode::UNPROCESSABLE_ENTITY, "bad parameters", &not_utf8(bad))
}

fn not_utf8(bad: &NotUtf8) -> String {
    format!("bad parameter for {}: not valid UTF-8", bad.name)
}

/// A body of an event request that could not be read.
pub(super) fn event_body(problem: &BodyError) -> Response {
    body(problem, "Couldn't read request body")
}

/// A body of an upload that could not be read.
pub(super) fn upload_body(problem: &BodyError) -> Response {
    body(problem, "filebuffering error, failed to read file in PutData")
}

fn body(problem: &BodyError, broken: &str) -> Response {
    match problem {
        BodyError::TooLarge { limit } => too_large(*limit),
        BodyError::Overloaded => {
            later("too many requests", "too many request bodies are under way, try again", Duration::from_secs(2))
        }
        BodyError::TooSlow => plain(StatusCode::REQUEST_TIMEOUT, broken, "the body came in too slowly"),
        // The client's doing: nothing to log, and hardly anybody left to read this.
        BodyError::Broken(reason) => plain(StatusCode::INTERNAL_SERVER_ERROR, broken, reason),
    }
}

fn too_large(limit: u64) -> Response {
    let detail = format!("the request body is over the limit of {limit} bytes");
    plain(StatusCode::PAYLOAD_TOO_LARGE, "request body too large", &detail)
}

/// A publish request that failed.
pub(super) fn post(problem: &PostError) -> Response {
    match problem {
        PostError::UnknownModel(model) => {
            let title = "not a registered model type";
            plain(StatusCode::BAD_REQUEST, title, &format!("{title}: {model}"))
        }
        PostError::EmptyBody => {
            plain(StatusCode::BAD_REQUEST, "Empty Request", "no events were provided to be published")
        }
        PostError::Decode(detail) => {
            plain(StatusCode::UNPROCESSABLE_ENTITY, "PostEvent TransformEvents invalid events", detail)
        }
        PostError::NothingLeft { filters, total_failures, errors } => nothing_left(filters, *total_failures, errors),
        PostError::AgedOff => {
            let detail = "all submitted events aged off immediately, is the submission time older than ageoff?";
            with_params(StatusCode::TOO_EARLY, ALL_FILTERED, detail, Kind::AllEventsAgedOff, BTreeMap::new())
        }
        PostError::Publish { stored, total, errors } => {
            let errors: String = errors.iter().flat_map(|error| [error.as_str(), ";\n"]).collect();
            let detail = format!(
                "successfully submitted {stored}/{total} events with the failed events providing the following errors: \
                 {errors}"
            );
            plain(StatusCode::INTERNAL_SERVER_ERROR, "failed ProduceAnyEvents", &detail)
        }
        PostError::Encode(detail) => internal("Marshalling Failed", detail),
        PostError::TooLarge { limit } => too_large(*limit),
        PostError::DiskFull => disk_full("failed ProduceAnyEvents"),
        PostError::Overloaded { retry_after } => {
            later("too many requests", "too much is waiting already", *retry_after)
        }
        PostError::Stopping => stopping(),
        PostError::Poisoned => poisoned(),
    }
}

const ALL_FILTERED: &str = "All events to be published have been filtered out";

fn nothing_left(filters: &[(String, u64)], total_failures: u64, errors: &[String]) -> Response {
    let filters: Vec<String> = filters.iter().map(|(stage, count)| format!("{stage}:{count}")).collect();
    let filters = filters.join(",");
    let errors = format!("[{}]", errors.join(" "));
    let detail = format!(
        "failed to produce any of the provided events as they were all filtered out by the following filters \
         [{filters}], with {total_failures} response failures which are: {errors}"
    );
    let params = BTreeMap::from([
        ("filters", filters),
        ("total_failures", total_failures.to_string()),
        ("response_failures", errors),
    ]);
    with_params(StatusCode::TOO_EARLY, ALL_FILTERED, &detail, Kind::AllEventsFiltered, params)
}

/// A fetch that failed.
pub(super) fn get(problem: &GetError) -> Response {
    match problem {
        GetError::BadParameter(detail) => plain(StatusCode::UNPROCESSABLE_ENTITY, "bad parameters", detail),
        GetError::Registration(detail) => {
            tracing::error!(detail, "a consumer could not be registered");
            plain(StatusCode::UNPROCESSABLE_ENTITY, "bad parameters", detail)
        }
        GetError::FetchFailed(detail) => internal("Fetch Failed", detail),
        GetError::EncodeInfo(detail) => internal("info marshal Failed", detail),
        GetError::EncodeAvro(detail) => internal("events MsgInFlightsToAvroBulk Failed", detail),
        GetError::EncodeJson(detail) => internal("Marshalling Failed", detail),
        GetError::DiskFull => disk_full("Fetch Failed"),
        GetError::Overloaded { retry_after } => {
            later("too many requests", "too many readers are waiting", *retry_after)
        }
        GetError::Stopping => stopping(),
        GetError::Poisoned => poisoned(),
    }
}

/// A question to the filters that has no answer.
pub(super) fn simulate(problem: &SimulateError) -> Response {
    match problem {
        SimulateError::Invalid(detail) => plain(StatusCode::UNPROCESSABLE_ENTITY, "Failed to simulate event", detail),
        SimulateError::Stopping => stopping(),
    }
}

/// A thing of ours that does not exist: which kind and which name.
pub(super) fn unknown(kind: &str, name: &str) -> Response {
    plain(StatusCode::NOT_FOUND, "not found", &format!("there is no {kind} {name:?}"))
}

/// Rules that were not read again; those in use stay.
pub(super) fn rules(detail: &str) -> Response {
    plain(StatusCode::CONFLICT, "the rules stay as they are", detail)
}

/// A change of a topic that was not made.
pub(super) fn topic(problem: &TopicRefusal) -> Response {
    let detail = problem.to_string();
    match problem {
        TopicRefusal::Missing(_) => plain(StatusCode::NOT_FOUND, "not found", &detail),
        TopicRefusal::Bad(_) => plain(StatusCode::BAD_REQUEST, "bad topic", &detail),
        TopicRefusal::Exists(_) => plain(StatusCode::CONFLICT, "topic exists", &detail),
        TopicRefusal::Later(_) => later("try again later", &detail, Duration::from_secs(2)),
        TopicRefusal::Failed(_) => internal("the topic cannot be changed", &detail),
    }
}

/// Reprocessing that did not begin.
pub(super) fn reprocess(problem: &JobError) -> Response {
    let detail = problem.to_string();
    match problem {
        JobError::Busy(_) => plain(StatusCode::CONFLICT, "reprocessing already", &detail),
        JobError::Begin(BeginError::NoTopics(_)) => plain(StatusCode::NOT_FOUND, "nothing to reprocess", &detail),
        JobError::Begin(BeginError::NoPrefix | BeginError::SamePrefix(_)) => {
            plain(StatusCode::BAD_REQUEST, "bad parameters", &detail)
        }
        JobError::Thread(_) => internal("reprocessing did not begin", &detail),
    }
}

/// Identifying anew that did not begin.
pub(super) fn reidentify(problem: &reidentify::JobError) -> Response {
    let detail = problem.to_string();
    match problem {
        reidentify::JobError::Busy => plain(StatusCode::CONFLICT, "identifying anew already", &detail),
        reidentify::JobError::Keep(AppendError::DiskFull) => disk_full("identifying anew did not begin"),
        reidentify::JobError::Keep(_) | reidentify::JobError::Thread(_) => {
            internal("identifying anew did not begin", &detail)
        }
    }
}

/// A change of a group that was not made.
pub(super) fn group(problem: &GroupRefusal) -> Response {
    let detail = problem.to_string();
    match problem {
        GroupRefusal::Missing(_) => plain(StatusCode::NOT_FOUND, "not found", &detail),
        GroupRefusal::Bad(_) => plain(StatusCode::BAD_REQUEST, "bad group change", &detail),
        GroupRefusal::Busy(_) => plain(StatusCode::CONFLICT, "group in use", &detail),
        GroupRefusal::Later(_) => later("try again later", &detail, Duration::from_secs(2)),
        GroupRefusal::Failed(_) => internal("the group cannot be changed", &detail),
    }
}

/// Something about dead letters that was not done.
pub(super) fn dead(problem: &DeadError) -> Response {
    let (title, detail) = ("dead letters", problem.to_string());
    match problem {
        DeadError::Change(ChangeError::Append(error)) => append(title, error),
        DeadError::Change(ChangeError::Index(_) | ChangeError::Topic(_)) => internal(title, &detail),
        DeadError::Read(_) => scan(&detail),
        DeadError::Blobs(cause) => store(title, cause),
        DeadError::Letter(LetterError::TooLong(_)) => plain(StatusCode::PAYLOAD_TOO_LARGE, title, &detail),
        DeadError::Letter(_) | DeadError::Bad(_) => plain(StatusCode::BAD_REQUEST, title, &detail),
        DeadError::Stopped(_) => internal(title, &detail),
    }
}

/// A body that should be JSON of a certain form.
pub(super) fn bad_json(problem: &serde_json::Error) -> Response {
    plain(StatusCode::BAD_REQUEST, "bad request body", &problem.to_string())
}

/// A path segment that should be a hash.
pub(super) fn no_hash(text: &str) -> Response {
    plain(StatusCode::BAD_REQUEST, "bad hash", &format!("{text:?} is not a SHA-256 of 64 hexadecimal digits"))
}

/// A parameter that has to be there.
pub(super) fn parameter_needed(name: &str) -> Response {
    plain(StatusCode::BAD_REQUEST, "bad parameters", &format!("the parameter {name} is needed"))
}

/// A parameter that is not what it may be.
pub(super) fn bad_parameter(reason: &str) -> Response {
    plain(StatusCode::BAD_REQUEST, "bad parameters", reason)
}

/// Records could not be read.
pub(super) fn read_records(problem: &ReadRecordsError) -> Response {
    match problem {
        ReadRecordsError::Topic(name) => unknown("topic", name),
        ReadRecordsError::Partition { .. } => plain(StatusCode::NOT_FOUND, "not found", &problem.to_string()),
        ReadRecordsError::Offset { .. } => {
            plain(StatusCode::RANGE_NOT_SATISFIABLE, "offset out of range", &problem.to_string())
        }
        ReadRecordsError::Read(error) => scan(&error.to_string()),
    }
}

/// Records could not be written.
pub(super) fn append_records(problem: &AppendRecordsError) -> Response {
    let title = "records not written";
    match problem {
        AppendRecordsError::Topic(_) => plain(StatusCode::NOT_FOUND, "not found", &problem.to_string()),
        AppendRecordsError::Internal(_) => plain(StatusCode::FORBIDDEN, title, &problem.to_string()),
        AppendRecordsError::Record { .. } => plain(StatusCode::BAD_REQUEST, title, &problem.to_string()),
        AppendRecordsError::TooLarge { .. } => plain(StatusCode::PAYLOAD_TOO_LARGE, title, &problem.to_string()),
        AppendRecordsError::Create(NewTopicError::Create(CreateTopicError::Append(error)))
        | AppendRecordsError::Append(error) => append(title, error),
        AppendRecordsError::Create(NewTopicError::Config(_) | NewTopicError::Create(_)) => {
            plain(StatusCode::BAD_REQUEST, title, &problem.to_string())
        }
    }
}

fn append(title: &str, problem: &AppendError) -> Response {
    match problem {
        AppendError::DiskFull => disk_full(title),
        AppendError::Overloaded { .. } => later(title, &problem.to_string(), Duration::from_secs(1)),
        AppendError::Closed => stopping(),
        AppendError::Gone { .. } => plain(StatusCode::NOT_FOUND, title, &problem.to_string()),
        AppendError::TooLarge => plain(StatusCode::PAYLOAD_TOO_LARGE, title, &problem.to_string()),
        // Records from here have no producer id and no sequence.
        AppendError::Sequence(_) | AppendError::Moved { .. } => internal(title, &problem.to_string()),
        AppendError::Poisoned { .. } | AppendError::Io { .. } => poisoned(),
    }
}

/// The log could not be read.
pub(super) fn scan(problem: &str) -> Response {
    internal("the log cannot be read", problem)
}

/// As many scans of the log as are allowed at once are under way.
pub(super) fn too_many_scans() -> Response {
    later("too many requests", "too many scans of the log are under way, try again", Duration::from_secs(2))
}

/// A blob that is not there.
pub(super) fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "not found", "not found")
}

/// A source or label that is no name.
pub(super) fn bad_name(bad: &BadName) -> Response {
    let detail = format!("{:?} is not a name of letters, digits, '.', '_' and '-'", bad.0);
    plain(StatusCode::BAD_REQUEST, "bad source or label", &detail)
}

/// `skip-identify` is no boolean.
pub(super) fn bad_skip_identify(text: &str) -> Response {
    let detail = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
    plain(StatusCode::BAD_REQUEST, "bad param skip identify", &detail)
}

/// Identification is to be skipped without a hash to compare with.
pub(super) fn hash_needed() -> Response {
    plain(StatusCode::BAD_REQUEST, "must supply sha256 when skipping identify", NO_CAUSE)
}

/// `ifOlderThan` is no integer.
pub(super) fn bad_older_than(text: &str, bad: &ParseIntError) -> Response {
    plain(StatusCode::BAD_REQUEST, "ifOlderThan error", &format!("{text:?} is not a number of Unix seconds: {bad}"))
}

/// A `Range` that was not understood.
pub(super) fn bad_range(bad: RangeError) -> Response {
    plain(StatusCode::BAD_REQUEST, "invalid range provided", &bad.to_string())
}

/// An upload that failed.
pub(super) fn upload(problem: &UploadError<BodyError>) -> Response {
    match problem {
        UploadError::HashNeeded => hash_needed(),
        UploadError::Overloaded => {
            later("too many uploads", "too many uploads are under way, try again", Duration::from_secs(2))
        }
        UploadError::Stage(cause) => store("filecaching error in PutData", cause),
        UploadError::Receive(problem) => upload_body(problem),
        UploadError::Write(cause) => store("filebuffering error, failed to write file in PutData", cause),
        UploadError::Digest(cause) => internal("hasher error", cause),
        UploadError::Empty => plain(StatusCode::BAD_REQUEST, "no content in request body", NO_CAUSE),
        UploadError::Mismatch { .. } => plain(StatusCode::BAD_REQUEST, "sha256 mismatch", &problem.to_string()),
        UploadError::Identify(cause) => internal("identify error", cause),
        UploadError::Publish(cause) => store("store error in PutData", cause),
    }
}

/// A download that could not begin.
pub(super) fn fetch(problem: &FetchError) -> Response {
    match problem {
        FetchError::NotFound => not_found(),
        FetchError::AfterEnd(AfterEnd { size }) => {
            plain(StatusCode::BAD_REQUEST, "invalid range end", &format!("offset after EOF: {size}"))
        }
        FetchError::Store(cause) => store("store error in GetData", cause),
    }
}

/// An existence test that failed.
pub(super) fn exists(cause: &StoreError) -> Response {
    store("store error in HasData", cause)
}

/// A deletion that failed.
pub(super) fn delete(cause: &StoreError) -> Response {
    store("store error in DeleteData", cause)
}

/// A copy that failed.
pub(super) fn copy(cause: &StoreError) -> Response {
    store("copy error", cause)
}

fn store(title: &str, cause: &StoreError) -> Response {
    match cause {
        StoreError::Full => disk_full(title),
        StoreError::Poisoned => poisoned(),
        StoreError::Damaged(_) | StoreError::Io(_) => internal(title, &cause.to_string()),
    }
}
