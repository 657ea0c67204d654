//! From method and path to a handler.
//!
//! One warp filter takes every request apart; the table is ours, because thirty boxed routes joined by `or` cost a fifth
//! of the request rate, and because a wrong method has to look like an unknown path. Spec: events.md 1.1.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use warp::Filter;
use warp::path::FullPath;
use warp::reply::Response;

use super::body::{Budget, RequestBody};
use super::connection::Connection;
use super::url::path_segments;
use super::{
    Services, azulite, dead, error, events, groups, jobs, metrics, records, root, rules, streams, tasks, topics,
};
use crate::log_files::{LogFiles, RequestLine};

/// The largest answer that is shown in a log file.
const NOTED_ANSWER_BYTES: u64 = 16 << 10;

/// One request, taken apart.
pub(super) struct Call {
    /// The query, not decoded.
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: RequestBody,
    /// What bodies that are read whole have to share.
    pub(super) budget: Budget,
    /// Address of the client, where it is known.
    pub(super) peer: Option<IpAddr>,
}

impl Call {
    /// A header as text; empty when absent, bytes that are not UTF-8 replaced.
    pub(super) fn header(&self, name: &HeaderName) -> String {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
    }

    pub(super) fn user_agent(&self) -> String {
        self.header(&USER_AGENT)
    }
}

/// A handler and what the path said to it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    Name,
    Health,
    Ready,
    Metrics,
    PostEvents,
    Simulate,
    GetEvents { model: String, task: bool },
    Upload { source: String, label: String },
    Download { source: String, label: String, hash: String },
    Exists { source: String, label: String, hash: String },
    Delete { source: String, label: String, hash: String },
    Copy { from: String, to: String, label: String, hash: String },
    Azulite(azulite::Resource),
    Topics(topics::Change),
    Groups(groups::Change),
    AppendRecords { topic: String },
    Job(jobs::Job),
    Rules(rules::Asked),
    ReleaseTasks,
    GiveBack,
    Dead(dead::Dead),
}

impl Route {
    fn find(method: &Method, path: &str) -> Option<Self> {
        let segments = path_segments(path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (get, post) = (method == Method::GET, method == Method::POST);
        Some(match *segments.as_slice() {
            [""] if get => Self::Name,
            ["healthz"] if get => Self::Health,
            ["readyz"] if get => Self::Ready,
            ["metrics"] if get => Self::Metrics,
            ["api", "v2", "event"] if post => Self::PostEvents,
            ["api", "v2", "event", "simulate"] if post => Self::Simulate,
            ["api", "v2", "event", model, mode @ ("passive" | "active")] if get && !model.is_empty() => {
                Self::GetEvents { model: model.to_owned(), task: mode == "active" }
            }
            ["api", "v3", "stream", ref names @ ..] if names.iter().all(|name| !name.is_empty()) => {
                return Self::find_stream(method, names);
            }
            ["api", "azulite", "v1", name @ ("reprocess" | "reidentify")] => {
                return jobs::Job::find(method, name).map(Self::Job);
            }
            ["api", "azulite", "v1", ref names @ ..] if matches!(names.first(), Some(&("dead" | "retry"))) => {
                return dead::Dead::find(method, names).map(Self::Dead);
            }
            ["api", "azulite", "v1", "rules", ref names @ ..] => {
                return rules::Asked::find(method, names).map(Self::Rules);
            }
            ["api", "azulite", "v1", ref names @ ..] if get => {
                return azulite::Resource::find(names).map(Self::Azulite);
            }
            ["api", "azulite", "v1", "topics", topic, "records"] if post && !topic.is_empty() => {
                Self::AppendRecords { topic: topic.to_owned() }
            }
            ["api", "azulite", "v1", "tasks", "release"] if post => Self::ReleaseTasks,
            ["api", "azulite", "v1", "leases", "release"] if post => Self::GiveBack,
            ["api", "azulite", "v1", "topics"] if post => Self::Topics(topics::Change::Create),
            ["api", "azulite", "v1", "topics", name] if !name.is_empty() => {
                let name = name.to_owned();
                match *method {
                    Method::PATCH => Self::Topics(topics::Change::Alter { name }),
                    Method::DELETE => Self::Topics(topics::Change::Delete { name }),
                    _ => return None,
                }
            }
            ["api", "azulite", "v1", "groups", name, "reset"] if post && !name.is_empty() => {
                Self::Groups(groups::Change::Reset { name: name.to_owned() })
            }
            ["api", "azulite", "v1", "groups", name] if method == Method::DELETE && !name.is_empty() => {
                Self::Groups(groups::Change::Delete { name: name.to_owned() })
            }
            _ => return None,
        })
    }

    fn find_stream(method: &Method, names: &[&str]) -> Option<Self> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        if let Ok([source, label]) = <[String; 2]>::try_from(names.clone()) {
            return (method == Method::POST).then_some(Self::Upload { source, label });
        }
        if let Ok([source, label, hash]) = <[String; 3]>::try_from(names.clone()) {
            return match *method {
                Method::GET => Some(Self::Download { source, label, hash }),
                Method::HEAD => Some(Self::Exists { source, label, hash }),
                Method::DELETE => Some(Self::Delete { source, label, hash }),
                _ => None,
            };
        }
        let [from, to, label, hash] = <[String; 4]>::try_from(names).ok()?;
        (method == Method::PATCH).then_some(Self::Copy { from, to, label, hash })
    }

    /// The path as metrics name it.
    fn template(&self) -> &'static str {
        match self {
            Self::Name => "/",
            Self::Health => "/healthz",
            Self::Ready => "/readyz",
            Self::Metrics => "/metrics",
            Self::PostEvents => "/api/v2/event",
            Self::Simulate => "/api/v2/event/simulate",
            Self::GetEvents { task: false, .. } => "/api/v2/event/:model/passive",
            Self::GetEvents { task: true, .. } => "/api/v2/event/:model/active",
            Self::Upload { .. } => "/api/v3/stream/:source/:label",
            Self::Download { .. } | Self::Exists { .. } | Self::Delete { .. } => "/api/v3/stream/:source/:label/:hash",
            Self::Copy { .. } => "/api/v3/stream/:sourceA/:sourceB/:label/:hash",
            Self::Azulite(resource) => resource.template(),
            Self::Topics(change) => change.template(),
            Self::Groups(change) => change.template(),
            Self::ReleaseTasks => "/api/azulite/v1/tasks/release",
            Self::GiveBack => "/api/azulite/v1/leases/release",
            Self::AppendRecords { .. } => "/api/azulite/v1/topics/:name/records",
            Self::Job(job) => job.template(),
            Self::Dead(dead) => dead.template(),
            Self::Rules(asked) => asked.template(),
        }
    }

    async fn answer(self, services: &Services, call: Call) -> Response {
        match self {
            Self::Name => root::name(),
            Self::Health => root::health(),
            Self::Ready => root::readiness(&services.readiness.subsystems()),
            Self::Metrics if !services.limits.metrics => error::no_such_page(),
            Self::Metrics => metrics::page(services).await,
            Self::PostEvents => events::post(services, call).await,
            Self::Simulate => events::simulate(services, call).await,
            Self::GetEvents { model, task } => events::get(services, call, model, task).await,
            Self::Upload { source, label } => streams::upload(services, call, source, label).await,
            Self::Download { source, label, hash } => streams::download(services, call, source, label, &hash).await,
            Self::Exists { source, label, hash } => streams::exists(services, source, label, &hash).await,
            Self::Delete { source, label, hash } => streams::delete(services, call, source, label, &hash).await,
            Self::Copy { from, to, label, hash } => streams::copy(services, [from, to], label, &hash).await,
            Self::Azulite(resource) => resource.answer(services, call).await,
            Self::Topics(change) => change.answer(services, call).await,
            Self::Groups(change) => change.answer(services, call).await,
            Self::ReleaseTasks => tasks::release(services, call).await,
            Self::GiveBack => tasks::give_back(services, call).await,
            Self::Rules(asked) => asked.answer(services).await,
            Self::AppendRecords { topic } => records::append(services, call, topic).await,
            Self::Job(job) => job.answer(services, call).await,
            Self::Dead(dead) => dead.answer(services, call).await,
        }
    }
}

/// The one filter that serves everything.
pub(super) fn routes(
    services: Arc<Services>,
) -> impl Filter<Extract = (Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    let budget = Budget::new(services.limits.event_memory_bytes, services.limits.body_timeout);
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Arc<Connection>>())
        .and(warp::body::stream())
        .then(move |method, path, query, headers, connection: Option<Arc<Connection>>, pieces| {
            let services = Arc::clone(&services);
            let peer = connection.as_ref().and_then(|connection| connection.peer());
            let body = request_body(&headers, connection, pieces);
            let call = Call { query, headers, body, budget: budget.clone(), peer };
            async move { serve(&services, &method, &path, call).await }
        })
}

fn request_body<B: Buf>(
    headers: &HeaderMap,
    connection: Option<Arc<Connection>>,
    pieces: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
) -> RequestBody {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    // Without either header there is no body, and nothing is left unread when nobody reads it.
    let declared = declared.or_else(|| (!headers.contains_key(TRANSFER_ENCODING)).then_some(0));
    RequestBody::new(pieces, declared, connection)
}

async fn serve(services: &Services, method: &Method, path: &FullPath, call: Call) -> Response {
    let begun = Instant::now();
    let path = path.as_str();
    let route = Route::find(method, path).filter(|route| {
        // A route that is switched off is not there.
        services.limits.allow_delete || !matches!(route, Route::Delete { .. })
    });
    let template = route.as_ref().map_or("other", Route::template);
    let noted = services.log_files.as_ref().map(|files| {
        let remote = call.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let (method, path) = (method.to_string(), path.to_owned());
        let (query, user_agent) = (call.query.clone(), call.user_agent());
        (files, RequestLine { method, route: template, path, query, remote, user_agent, ..RequestLine::default() })
    });
    let response = match route {
        Some(route) => route.answer(services, call).await,
        None => without_slash(method, path, &call.query).unwrap_or_else(error::no_such_page),
    };
    let method = known_method(method);
    services.metrics.restapi_time.observe([method, template], begun.elapsed());
    services.metrics.restapi_codes.inc([method, template, response.status().as_str()]);
    match noted {
        Some((files, line)) => {
            note(files, RequestLine { duration_s: begun.elapsed().as_secs_f64(), ..line }, response).await
        }
        None => response,
    }
}

/// Writes down a request, with the answer when it failed.
async fn note(files: &LogFiles, line: RequestLine, response: Response) -> Response {
    let status = response.status();
    let mut line = RequestLine { status: status.as_u16(), ..line };
    let small = response.size_hint().exact().is_some_and(|bytes| bytes <= NOTED_ANSWER_BYTES);
    if !small || !(status.is_client_error() || status.is_server_error()) {
        files.request(line);
        return response;
    }
    let (parts, body) = response.into_parts();
    // Answers of known length to failed requests lie in memory.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    match serde_json::from_slice(&body) {
        Ok(json) => line.response_body = Some(json),
        Err(_) if body.is_empty() => {}
        Err(_) => line.response_body_invalid = Some(String::from_utf8_lossy(&body).into_owned()),
    }
    files.request(line);
    Response::from_parts(parts, body.into())
}

/// A redirect to the path without its trailing slash, when there is a route for that.
fn without_slash(method: &Method, path: &str, query: &str) -> Option<Response> {
    let shorter = path.strip_suffix('/').filter(|path| path.starts_with('/') && path.len() > 1)?;
    Route::find(method, shorter)?;
    let location = if query.is_empty() { shorter.to_owned() } else { format!("{shorter}?{query}") };
    let status = if method == Method::GET { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
    let mut response = text(status, "");
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(location).ok()?);
    Some(response)
}

/// Methods are text from outside; metrics show only those we know.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "OTHER",
    }
}

/// An answer of one piece.
pub(super) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer of plain text.
pub(super) fn text(status: StatusCode, body: &str) -> Response {
    reply(status, "text/plain", body.to_owned())
}

/// An answer in pieces of known length together.
pub(super) fn reply_in_pieces<S, E>(status: StatusCode, content_type: HeaderValue, length: u64, pieces: S) -> Response
where
    S: Stream<Item = Result<Bytes, E>> + Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut response = reply_in_pieces_of_unknown_length(status, content_type, pieces);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// An answer in pieces that are made while it is sent.
pub(super) fn reply_in_pieces_of_unknown_length<S, E>(
    status: StatusCode,
    content_type: HeaderValue,
    pieces: S,
) -> Response
where
    S: Stream<Item = Result<Bytes, E>> + Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut response = warp::Reply::into_response(warp::reply::stream(pieces));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Makes pieces that are all there already into a stream.
pub(super) fn pieces_of(body: Vec<Bytes>) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + Sync + 'static {
    futures_util::stream::iter(body.into_iter().map(Ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_method_finds_no_route() {
        let topic = Some(Route::Topics(topics::Change::Delete { name: "t".into() }));
        assert_eq!(Route::find(&Method::DELETE, "/api/azulite/v1/topics/t"), topic);
        assert_eq!(Route::find(&Method::POST, "/api/azulite/v1/topics/t"), None);
        let records = "/api/azulite/v1/topics/t/records";
        assert_eq!(Route::find(&Method::POST, records), Some(Route::AppendRecords { topic: "t".into() }));
        assert_eq!(Route::find(&Method::DELETE, records), None);
        let paths = ["/", "/metrics", "/api/v2/event/binary/passive", "/api/v3/stream/a/b/c", "/api/v3/stream/a/b/c/d"];
        for (path, good) in
            paths.into_iter().zip([Method::GET, Method::GET, Method::GET, Method::DELETE, Method::PATCH])
        {
            assert!(Route::find(&good, path).is_some(), "{path}");
            for bad in [Method::PUT, Method::OPTIONS, Method::POST] {
                assert_eq!(Route::find(&bad, path), None, "{bad} {path}");
            }
        }
    }

    #[test]
    fn unknown_and_odd_paths_find_no_route() {
        let paths = ["//", "/api", "//api/v2/event/binary/passive", "/api/v2/event/binary", "/api/v2/event//passive"];
        for path in paths {
            assert_eq!(Route::find(&Method::GET, path), None, "{path}");
        }
        assert_eq!(Route::find(&Method::POST, "/api/v3/stream//label"), None);
    }
}
