//! One connection: requests in, answers out, in the order of the requests.
//!
//! A request is answered before the next one is looked at, as clients of a Kafka broker expect, with one exception:
//! produce requests that follow each other are handed to the log in their order and then wait together for its sync, so
//! that a producer with several requests in flight does not pay one sync for each.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Peer, Reply};
use super::codec::{
    ApiKey, DecodeError, EncodeError, Reader, Request, RequestHeader, Response, ResponseHeader, Writer,
};
use super::frame::{Budget, Frame, FrameError, Frames, Limits};

/// Produce requests of one connection that may wait for the log at once.
const MAX_UNDER_WAY: usize = 64;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// Nothing usable came, or nothing at all.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Bytes that are no request.
    #[error("not a request: {0}")]
    Decode(#[from] DecodeError),
    /// A version that is not served.
    #[error("{} version {version} is not served, {min} to {max} are", .key.name())]
    Version {
        /// What was asked.
        key: ApiKey,
        /// In which version.
        version: i16,
        /// Lowest one served.
        min: i16,
        /// Highest one served.
        max: i16,
    },
    /// An API that is not served.
    #[error("{} ({}) is not served", .0.name(), .0.code())]
    Api(ApiKey),
    /// The peer did not take its answers.
    #[error("the client took no answer for {0:?}")]
    Write(Duration),
    /// A request that asks for no answer failed; closing tells the client.
    #[error("a request without answer failed: {0}")]
    Unanswered(String),
    /// An answer that cannot be said in the version asked for.
    #[error("answer: {0}")]
    Encode(#[from] EncodeError),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The process is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl Ended {
    /// True for what happens every day and needs no line in the log.
    pub(super) fn is_ordinary(&self) -> bool {
        match self {
            Self::Frame(FrameError::Closed | FrameError::Idle(_) | FrameError::Io(_))
            | Self::Io(_)
            | Self::Stopping => true,
            Self::Frame(_)
            | Self::Decode(_)
            | Self::Version { .. }
            | Self::Api(_)
            | Self::Write(_)
            | Self::Unanswered(_)
            | Self::Encode(_) => false,
        }
    }
}

/// An answer on its way: `None` when the request wants none.
type UnderWay = Pin<Box<dyn Future<Output = Result<Option<super::codec::Frame>, Ended>> + Send>>;

/// One client.
pub(super) struct Connection {
    frames: Frames<OwnedReadHalf>,
    sink: OwnedWriteHalf,
    api: Arc<Api>,
    peer: Peer,
    stop: CancellationToken,
    write_timeout: Duration,
    under_way: FuturesOrdered<UnderWay>,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        peer: Peer,
        api: Arc<Api>,
        budget: Budget,
        limits: Limits,
        (write_timeout, stop): (Duration, CancellationToken),
    ) -> Self {
        let (source, sink) = stream.into_split();
        let frames = Frames::new(source, budget, limits);
        Self { frames, sink, api, peer, stop, write_timeout, under_way: FuturesOrdered::new() }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self) -> Ended {
        let ended = match self.serve().await {
            Ok(()) => Ended::Stopping,
            Err(ended) => ended,
        };
        // What the log was given is answered if that is still possible.
        while let Some(Ok(Some(answer))) = self.under_way.next().await {
            if self.write(answer).await.is_err() {
                break;
            }
        }
        ended
    }

    /// Until the stop, or an error.
    async fn serve(&mut self) -> Result<(), Ended> {
        loop {
            let room = self.under_way.len() < MAX_UNDER_WAY;
            let frame = tokio::select! {
                biased;
                Some(done) = self.under_way.next(), if !self.under_way.is_empty() => {
                    if let Some(answer) = done? {
                        self.write(answer).await?;
                    }
                    continue;
                }
                () = self.stop.cancelled() => return Ok(()),
                frame = self.frames.next(), if room => frame?,
            };
            self.request(frame).await?;
        }
    }

    async fn request(&mut self, frame: Frame) -> Result<(), Ended> {
        let Frame { bytes, room } = frame;
        let mut reader = Reader::new(bytes);
        let header = RequestHeader::read(&mut reader)?;
        let (key, version) = (header.api_key, header.api_version);
        if !self.api.serves(key) {
            return Err(Ended::Api(key));
        }
        if !key.has_version(version) {
            if key == ApiKey::ApiVersions {
                let response = self.api.unsupported_api_versions();
                return self.answer(key, 0, header.correlation_id, &response.into()).await;
            }
            let (min, max) = key.versions();
            return Err(Ended::Version { key, version, min, max });
        }
        let request = Request::read(key, &mut reader, version)?;
        drop(reader);
        self.peer.note(&header);
        if !matches!(request, Request::Produce(_)) {
            self.settle().await?;
        }
        let reply = self.handle(&header, request).await?;
        match reply {
            Reply::Now(response) => self.answer(key, version, header.correlation_id, &response).await,
            Reply::Held(response, held) => {
                let outcome = self.answer(key, version, header.correlation_id, &response).await;
                drop(held);
                outcome
            }
            Reply::Unserved => Err(Ended::Api(key)),
            Reply::Later(response) => {
                self.under_way.push_back(Box::pin(async move {
                    let outcome = response.await;
                    drop(room);
                    match outcome {
                        Ok(Some(response)) => encode(key, version, header.correlation_id, &response).map(Some),
                        Ok(None) => Ok(None),
                        Err(reason) => Err(Ended::Unanswered(reason)),
                    }
                }));
                Ok(())
            }
        }
    }

    /// Has the request worked on; ends early when the client goes away or the process stops.
    async fn handle(&mut self, header: &RequestHeader, request: Request) -> Result<Reply, Ended> {
        let quiet = !self.frames.has_more();
        let handling = self.api.handle(&self.peer, header, request);
        tokio::select! {
            biased;
            reply = handling => Ok(reply),
            () = self.stop.cancelled() => Err(Ended::Stopping),
            () = gone(self.frames.source()), if quiet => Err(FrameError::Closed.into()),
        }
    }

    /// Answers everything that waits for the log.
    async fn settle(&mut self) -> Result<(), Ended> {
        while let Some(done) = self.under_way.next().await {
            if let Some(answer) = done? {
                self.write(answer).await?;
            }
        }
        Ok(())
    }

    async fn answer(&mut self, key: ApiKey, version: i16, id: i32, response: &Response) -> Result<(), Ended> {
        let frame = encode(key, version, id, response)?;
        self.write(frame).await
    }

    async fn write(&mut self, mut frame: super::codec::Frame) -> Result<(), Ended> {
        let writing = timeout(self.write_timeout, self.sink.write_all_buf(&mut frame));
        writing.await.map_err(|_| Ended::Write(self.write_timeout))?.map_err(Ended::Io)
    }
}

fn encode(key: ApiKey, version: i16, id: i32, response: &Response) -> Result<super::codec::Frame, Ended> {
    let mut writer = Writer::new();
    ResponseHeader { correlation_id: id }.write(&mut writer, key, version);
    response.write(&mut writer, version);
    Ok(writer.finish_frame()?)
}

/// Returns when the peer has closed; never when it has sent something more.
async fn gone(source: &mut OwnedReadHalf) {
    match source.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}
