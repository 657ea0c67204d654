//! `/api/azulite/v1/...`: topics with their records, groups, consumers, entities and blobs by hash. Spec: cli.md 4.
//!
//! Short answers are one JSON object. Scans of the log are streamed, one JSON object per line, while the log is read:
//! memory is bounded whatever the log holds, and a client that goes away ends the scan.

use std::io::{self, Write};
use std::sync::Arc;

use azulite_storage::ids::Sha256;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use warp::reply::Response;

use super::router::{Call, reply, reply_in_pieces, reply_in_pieces_of_unknown_length};
use super::url::{first, parse_query};
use super::{Services, error, records, tasks};
use crate::admin::{Admin, Flow, read_blob, write_line};
use crate::broker::ReadError;

pub(super) const LINES: &str = "application/x-ndjson";
/// Bytes gathered before they are sent.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces between the thread that reads and the connection that sends.
const PIECES_IN_FLIGHT: usize = 4;
/// Scans of the log at once; each holds one blocking thread.
pub(super) static SCANS: Semaphore = Semaphore::const_new(4);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Topics,
    Topic { name: String },
    Records { topic: String },
    Groups,
    Group { name: String },
    EntityEvents { sha256: String },
    Announced { source: String },
    Blob { sha256: String },
    Consumers,
    Deployments,
    Tasks,
    Workers,
    Explain { sha256: String },
}

impl Resource {
    /// From the decoded segments behind `/api/azulite/v1`.
    pub(super) fn find(segments: &[&str]) -> Option<Self> {
        let text = |text: &str| text.to_owned();
        Some(match *segments {
            ["topics", topic, "records"] if !topic.is_empty() => Self::Records { topic: text(topic) },
            ["topics"] => Self::Topics,
            ["topics", name] if !name.is_empty() => Self::Topic { name: text(name) },
            ["groups"] => Self::Groups,
            ["groups", name] if !name.is_empty() => Self::Group { name: text(name) },
            ["entities", sha256, "events"] if !sha256.is_empty() => Self::EntityEvents { sha256: text(sha256) },
            ["sources", source, "announced"] if !source.is_empty() => Self::Announced { source: text(source) },
            ["consumers"] => Self::Consumers,
            ["deployments"] => Self::Deployments,
            ["tasks"] => Self::Tasks,
            ["workers"] => Self::Workers,
            ["explain", sha256] if !sha256.is_empty() => Self::Explain { sha256: text(sha256) },
            ["blobs", sha256] if !sha256.is_empty() => Self::Blob { sha256: text(sha256) },
            _ => return None,
        })
    }

    /// The path as metrics name it.
    pub(super) fn template(&self) -> &'static str {
        match self {
            Self::Topics => "/api/azulite/v1/topics",
            Self::Topic { .. } => "/api/azulite/v1/topics/:name",
            Self::Records { .. } => "/api/azulite/v1/topics/:name/records",
            Self::Groups => "/api/azulite/v1/groups",
            Self::Group { .. } => "/api/azulite/v1/groups/:name",
            Self::EntityEvents { .. } => "/api/azulite/v1/entities/:sha256/events",
            Self::Announced { .. } => "/api/azulite/v1/sources/:source/announced",
            Self::Blob { .. } => "/api/azulite/v1/blobs/:sha256",
            Self::Consumers => "/api/azulite/v1/consumers",
            Self::Deployments => "/api/azulite/v1/deployments",
            Self::Tasks => "/api/azulite/v1/tasks",
            Self::Workers => "/api/azulite/v1/workers",
            Self::Explain { .. } => "/api/azulite/v1/explain/:sha256",
        }
    }

    pub(super) async fn answer(self, services: &Services, call: Call) -> Response {
        let Some(admin) = services.admin.clone() else { return error::no_such_page() };
        let query = call.query;
        match self {
            Self::Records { topic } => records::read(admin, topic, &query).await,
            Self::Topics => json(&admin.topics()),
            Self::Topic { name } => match admin.topic(&name) {
                Some(topic) => json(&topic),
                None => error::unknown("topic", &name),
            },
            Self::Groups => match blocking(move || admin.groups()).await {
                Ok(groups) => json(&groups),
                Err(problem) => error::scan(&problem),
            },
            Self::Group { name } => {
                let asked = name.clone();
                match blocking(move || admin.group(&asked)).await {
                    Ok(Some(group)) => json(&group),
                    Ok(None) => error::unknown("group", &name),
                    Err(problem) => error::scan(&problem),
                }
            }
            Self::EntityEvents { sha256 } => entity_events(admin, sha256).await,
            Self::Announced { source } => announced(admin, source, &query).await,
            Self::Blob { sha256 } => blob(admin, &sha256).await,
            Self::Consumers => read(move || admin.consumers()).await,
            Self::Deployments => read(move || admin.deployments()).await,
            Self::Tasks => tasks::list(admin, &query).await,
            Self::Workers => match services.workers.clone() {
                Some(workers) => {
                    let now_ms = azulite_storage::clock::now_ms();
                    let views = workers.views(now_ms);
                    read(move || admin.workers(views, now_ms)).await
                }
                None => error::no_such_page(),
            },
            Self::Explain { sha256 } => explain(admin, &sha256, &query).await,
        }
    }
}

pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => reply(StatusCode::OK, "application/json", body),
        Err(problem) => error::internal("Marshalling Failed", &problem.to_string()),
    }
}

/// Something that is read from the disk, as JSON.
async fn read<T: Serialize + Send + 'static>(work: impl FnOnce() -> Result<T, ReadError> + Send + 'static) -> Response {
    match blocking(work).await {
        Ok(value) => json(&value),
        Err(problem) => error::scan(&problem),
    }
}

async fn explain(admin: Arc<Admin>, sha256: &str, query: &str) -> Response {
    let Some(hash) = Sha256::parse(sha256) else { return error::no_hash(sha256) };
    let query = match parse_query(query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let Some(plugin) = first(&query, "plugin").map(str::to_owned) else { return error::parameter_needed("plugin") };
    let Some(dispatcher) = admin.dispatcher().cloned() else { return error::no_such_page() };
    let Ok(turn) = SCANS.try_acquire() else { return error::too_many_scans() };
    read(move || {
        let _turn = turn;
        admin.explain(&dispatcher, &hash.to_string(), &plugin)
    })
    .await
}

/// Runs something that reads the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|problem| problem.to_string()),
        Err(stopped) => Err(stopped.to_string()),
    }
}

async fn entity_events(admin: Arc<Admin>, sha256: String) -> Response {
    let Some(hash) = Sha256::parse(&sha256) else { return error::no_hash(&sha256) };
    let asked = hash.to_string();
    let scan = move |out: &mut Lines| {
        let mut sent = Ok(());
        let read = admin.entity_events(&asked, &mut |finding| flow(write_line(out, &finding), &mut sent));
        read.map_err(io::Error::other).and(sent)
    };
    match lines(scan).await {
        Ok(Some(response)) => response,
        Ok(None) => error::unknown("event about entity", &sha256),
        Err(refusal) => refusal,
    }
}

async fn announced(admin: Arc<Admin>, source: String, query: &str) -> Response {
    let query = match parse_query(query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let Some(author) = first(&query, "author").map(str::to_owned) else { return error::parameter_needed("author") };
    let scan = move |out: &mut Lines| {
        let mut sent = Ok(());
        let read = admin.announced(&source, &author, &mut |found| flow(write_line(out, &found), &mut sent));
        read.map_err(io::Error::other).and(sent)
    };
    match lines(scan).await {
        Ok(Some(response)) => response,
        Ok(None) => reply(StatusCode::OK, LINES, Bytes::new()),
        Err(refusal) => refusal,
    }
}

async fn blob(admin: Arc<Admin>, sha256: &str) -> Response {
    let Some(hash) = Sha256::parse(sha256) else { return error::no_hash(sha256) };
    let opened = tokio::task::spawn_blocking(move || admin.blob(&hash)).await;
    let reader = match opened {
        Ok(Ok(Some(reader))) => reader,
        Ok(Ok(None)) => return error::unknown("blob", sha256),
        Ok(Err(cause)) => return error::exists(&cause),
        Err(stopped) => return error::internal("store error in GetData", &stopped.to_string()),
    };
    let length = reader.len();
    let pieces = written_by(move |out| read_blob(reader.as_ref(), |piece| out.send(piece)).map_err(io::Error::other));
    let octets = HeaderValue::from_static("application/octet-stream");
    reply_in_pieces(StatusCode::OK, octets, length, pieces_of(pieces))
}

/// Ends a scan whose reader has gone.
pub(super) fn flow(written: io::Result<()>, sent: &mut io::Result<()>) -> Flow {
    *sent = written;
    if sent.is_ok() { Flow::Continue(()) } else { Flow::Break(()) }
}

/// A scan as an answer that is sent while it goes on; `None` when it ends without a line.
pub(super) async fn lines(
    scan: impl FnOnce(&mut Lines) -> io::Result<()> + Send + 'static,
) -> Result<Option<Response>, Response> {
    let Ok(turn) = SCANS.try_acquire() else { return Err(error::too_many_scans()) };
    let mut pieces = written_by(move |out| {
        let _turn = turn;
        scan(out)
    });
    match pieces.recv().await {
        None => Ok(None),
        Some(Err(problem)) => Err(error::scan(&problem.to_string())),
        Some(Ok(first)) => {
            let rest = stream::once(std::future::ready(Ok(first))).chain(pieces_of(pieces));
            let lines = HeaderValue::from_static(LINES);
            Ok(Some(reply_in_pieces_of_unknown_length(StatusCode::OK, lines, rest)))
        }
    }
}

type Pieces = mpsc::Receiver<io::Result<Bytes>>;

/// Runs `write` on a blocking thread; what it writes comes out of the channel, and its error last.
fn written_by(write: impl FnOnce(&mut Lines) -> io::Result<()> + Send + 'static) -> Pieces {
    let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    tokio::task::spawn_blocking(move || {
        let mut out = Lines { sender, gathered: Vec::new() };
        let written = write(&mut out).and_then(|()| out.flush());
        if let Err(problem) = written
            && !out.sender.is_closed()
        {
            tracing::error!(%problem, "an answer broke off");
            // The other side may have gone meanwhile.
            out.sender.blocking_send(Err(problem)).ok();
        }
    });
    receiver
}

fn pieces_of(mut pieces: Pieces) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    stream::poll_fn(move |context| pieces.poll_recv(context))
}

/// Gathers what is written into pieces for the connection; blocks while the connection is behind.
pub(super) struct Lines {
    sender: mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
}

impl Lines {
    fn send(&mut self, piece: Vec<u8>) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(Ok(Bytes::from(piece))).map_err(gone)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.gathered);
        self.send(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything_but_nothing() {
        let found = |path: &[&str]| Resource::find(path);
        assert_eq!(found(&["topics"]), Some(Resource::Topics));
        assert_eq!(found(&["groups", "a/b c"]), Some(Resource::Group { name: "a/b c".into() }));
        let events = Resource::EntityEvents { sha256: "x".into() };
        assert_eq!(found(&["entities", "x", "events"]), Some(events));
        for path in [&["topics", ""][..], &["groups", ""], &["entities", "", "events"], &["entities", "x"], &[]] {
            assert_eq!(found(path), None, "{path:?}");
        }
        let records = ["topics", "t", "records"];
        assert_eq!(found(&records), Some(Resource::Records { topic: "t".into() }));
    }

    #[tokio::test]
    async fn a_scan_without_a_line_is_no_answer_and_one_that_fails_is_a_500() {
        assert!(lines(|_| Ok(())).await.unwrap().is_none());
        let failed = lines(|_| Err(io::Error::other("disk on fire"))).await.unwrap_err();
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let answered = lines(|out| out.write_all(b"{}\n")).await.unwrap().unwrap();
        assert_eq!(answered.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_ends_the_scan() {
        let (told, ended) = tokio::sync::oneshot::channel();
        let pieces = written_by(move |out| {
            let line = [b'x'; 1 << 10];
            let ended = loop {
                if let Err(error) = out.write_all(&line) {
                    break error.kind();
                }
            };
            told.send(ended).unwrap();
            Ok(())
        });
        drop(pieces);
        assert_eq!(ended.await.unwrap(), io::ErrorKind::BrokenPipe);
    }
}
