//! The dispatcher of this process.
//!
//! What is asked of it are the plain requests that the HTTP edge makes of bodies and addresses, so nothing can come out
//! differently.

use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use azulite_storage::ids::Sha256;
use bytes::Bytes;
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::upstream::{Content, Fetched, Upstream, UpstreamError};
use super::wire;
use crate::dispatcher::hub::{GetRequest, Hub, PostRequest};
use crate::dispatcher::model::{BinaryEvent, Datastream, Event, Model, PluginEvent, StatusEvent};
use crate::streams::{BlobReader, Place, StoreError, Streams, UploadError, UploadRequest};

/// Bytes of an upload that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Gives leases back by the ids of their tasks; says why it could not.
pub type Release = Arc<dyn Fn(&[&str]) -> Result<(), String> + Send + Sync>;

/// See the module.
pub struct LocalUpstream {
    hub: Arc<dyn Hub>,
    streams: Arc<Streams>,
    release: Release,
    runtime: Handle,
    interrupted: Notify,
    loses_jobs: bool,
}

impl LocalUpstream {
    /// Over the parts of this process; `runtime` is the one that they run on.
    #[must_use]
    pub fn new(hub: Arc<dyn Hub>, streams: Arc<Streams>, release: Release, runtime: Handle) -> Self {
        Self { hub, streams, release, runtime, interrupted: Notify::new(), loses_jobs: false }
    }

    /// For a worker whose running jobs end with this process when `loses_jobs`: what ended it may have been one of them.
    #[must_use]
    pub fn in_process(self, loses_jobs: bool) -> Self {
        Self { loses_jobs, ..self }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn post(&self, model: Model, events: &[Event]) -> Result<(), UpstreamError> {
        let query = wire::post_query(model);
        let body = Bytes::from(wire::body(model, events));
        let user_agent = wire::USER_AGENT.to_owned();
        let posted = self.wait(async {
            self.hub.begin_post(&query).await;
            self.hub.post(PostRequest { query: query.clone(), body, user_agent }).await
        });
        match posted {
            Ok(answer) => wire::posted(&answer.body),
            Err(error) => wire::post_refused(error),
        }
    }
}

impl Upstream for LocalUpstream {
    fn is_local(&self) -> bool {
        true
    }

    fn register(&self, plugin: &PluginEvent) -> Result<(), UpstreamError> {
        self.post(Model::Plugin, &[Event::Plugin(Box::new(plugin.clone()))])
    }

    fn lease(&self, query: &[(&str, &str)]) -> Result<Fetched, UpstreamError> {
        let request = GetRequest {
            model: Model::Binary.as_str().to_owned(),
            task: true,
            query: wire::fetch_query(query),
            user_agent: wire::USER_AGENT.to_owned(),
            in_process: self.loses_jobs,
        };
        let answer = self.wait(async {
            tokio::select! {
                // What has come is taken before what says that nobody waits any more.
                biased;
                answer = self.hub.get(request) => answer.map(Some),
                () = self.interrupted.notified() => Ok(None),
            }
        });
        let Some(answer) = answer.map_err(wire::fetch_refused)? else { return Ok(Fetched::default()) };
        let body: Vec<u8> = answer.body.iter().flat_map(|piece| piece.iter().copied()).collect();
        let fetched = wire::fetched(&answer.content_type, &body)?;
        if let Some(delivery) = answer.delivery {
            let _runtime = self.runtime.enter();
            delivery.delivered();
        }
        Ok(fetched)
    }

    fn interrupt(&self) {
        self.interrupted.notify_waiters();
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
        (self.release)(dequeued).map_err(UpstreamError::Unavailable)
    }

    fn content(&self, source: &str, label: &str, sha256: &str) -> Result<Option<Box<dyn Content>>, UpstreamError> {
        let Some(hash) = Sha256::parse(sha256) else { return Ok(None) };
        let reader = self.streams.reader(&Place::new(source, label), &hash).map_err(store_failed)?;
        Ok(reader.map(|reader| -> Box<dyn Content> { Box::new(Blob { reader, position: 0 }) }))
    }

    fn upload(&self, source: &str, label: &str, bytes: &mut dyn Read) -> Result<Datastream, UpstreamError> {
        let pieces = std::iter::from_fn(|| piece(bytes).transpose());
        let uploading = self.streams.upload(Place::new(source, label), UploadRequest::default(), stream::iter(pieces));
        let record = self.wait(uploading).map_err(upload_failed)?;
        Ok(record.into_stream(label))
    }
}

fn piece(bytes: &mut dyn Read) -> io::Result<Option<Bytes>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let limit = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
    bytes.take(limit).read_to_end(&mut piece)?;
    Ok((!piece.is_empty()).then(|| Bytes::from(piece)))
}

/// A damaged blob stays one; the rest may pass.
fn store_failed(error: StoreError) -> UpstreamError {
    match error {
        StoreError::Damaged(_) => UpstreamError::Refused(error.to_string()),
        StoreError::Full | StoreError::Poisoned | StoreError::Io(_) => UpstreamError::Unavailable(error.to_string()),
    }
}

fn upload_failed(error: UploadError<io::Error>) -> UpstreamError {
    match error {
        UploadError::Overloaded => UpstreamError::Unavailable(error.to_string()),
        UploadError::Receive(cause) => UpstreamError::Refused(format!("the bytes cannot be read: {cause}")),
        UploadError::Stage(cause) | UploadError::Write(cause) | UploadError::Publish(cause) => store_failed(cause),
        UploadError::HashNeeded
        | UploadError::Digest(_)
        | UploadError::Empty
        | UploadError::Mismatch { .. }
        | UploadError::Identify(_) => UpstreamError::Refused(error.to_string()),
    }
}

/// A stored stream with a place to read from.
struct Blob {
    reader: Arc<dyn BlobReader>,
    position: u64,
}

impl Content for Blob {
    fn size(&self) -> u64 {
        self.reader.len()
    }
}

impl Read for Blob {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.reader.len().saturating_sub(self.position);
        let length = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(part) = buf.get_mut(..length).filter(|part| !part.is_empty()) else { return Ok(0) };
        self.reader.read_exact_at(part, self.position).map_err(io::Error::other)?;
        self.position = self.position.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        Ok(length)
    }
}

impl Seek for Blob {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = crate::streams::sought(to, self.position, self.reader.len())?;
        Ok(self.position)
    }
}
