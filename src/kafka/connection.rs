//! One connection: requests in, answers out, in the order of the requests.
//!
//! A request is answered before the next one is looked at, as clients of a Kafka broker expect, with one exception:
//! produce requests that follow each other are handed to the log in their order and then wait together for its sync, so
//! that a producer with several requests in flight does not pay one sync for each.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::api::{Api, Peer, Reply};
use super::codec::messages::produce::ProduceRequest;
use super::codec::{
    ApiKey, DecodeError, EncodeError, Reader, Request, RequestHeader, Response, ResponseHeader, Writer,
};
use super::frame::{Budget, Frame, FrameError, Frames, Limits, Room, SLOWEST_BYTES_PER_SECOND};
use crate::broker::QueueFull;

/// Produce requests of one connection that may wait for the log at once.
const MAX_UNDER_WAY: usize = 64;
/// Memory that the arrays of one request may take: tens of thousands of partitions.
const ARRAY_BYTES: usize = 16 << 20;
/// Of it, what is not counted: nearly every request has less.
const FREE_ARRAY_BYTES: usize = 32 << 10;
/// Larger answers take their memory from the budget of fetches.
const SMALL_ANSWER: usize = 64 << 10;
/// How long a client may take no bytes of an answer while others wait for the memory it takes.
const SHORT_OF_MEMORY: Duration = Duration::from_secs(5);

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
    /// The log took no more. An answer would let the batches behind it go first.
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
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
            | Self::QueueFull(_)
            | Self::Encode(_) => false,
        }
    }

    /// What goes wrong, without particulars: lines about the same thing are not repeated.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Frame(FrameError::Length { hint: Some(hint), .. }) => hint,
            Self::Frame(FrameError::Length { .. }) => "length",
            Self::Frame(FrameError::Stalled { .. }) => "stalled",
            Self::Frame(FrameError::NoRoom { .. }) => "no room",
            Self::Frame(FrameError::Cut { .. }) => "cut",
            Self::Frame(FrameError::Closed | FrameError::Idle(_) | FrameError::Io(_)) | Self::Io(_) => "gone",
            Self::Decode(_) => "decode",
            Self::Version { .. } | Self::Api(_) => "version",
            Self::Write(_) => "write",
            Self::Unanswered(_) => "unanswered",
            Self::QueueFull(_) => "queue",
            Self::Encode(_) => "encode",
            Self::Stopping => "stopping",
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
        let takes_no_more = matches!(ended, Ended::Write(_) | Ended::Io(_) | Ended::Frame(FrameError::Io(_)));
        // What the log was given is answered if that is still possible.
        while !takes_no_more && let Some(Ok(answer)) = self.under_way.next().await {
            let Some(answer) = answer else { continue };
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
        let Frame { bytes, mut room } = frame;
        let len = bytes.len();
        let mut reader = Reader::with_budget(bytes, ARRAY_BYTES);
        let header = RequestHeader::read(&mut reader)?;
        let (key, version, id) = (header.api_key, header.api_version, header.correlation_id);
        if !self.api.serves(key) {
            return Err(Ended::Api(key));
        }
        if !key.has_version(version) {
            if key == ApiKey::ApiVersions {
                self.settle().await?;
                let response = self.api.unsupported_api_versions();
                return self.answer(key, 0, id, &response.into()).await;
            }
            let (min, max) = key.versions();
            return Err(Ended::Version { key, version, min, max });
        }
        let request = Request::read(key, &mut reader, version)?;
        let arrays = ARRAY_BYTES.saturating_sub(reader.budget_bytes());
        drop(reader);
        self.peer.note(&header);
        drop(header);
        // What is made of the question, and the answer.
        let more = 4 * arrays.saturating_sub(FREE_ARRAY_BYTES);
        if more > 0 || parks(key) {
            self.frames.charge(&mut room, (len, more), parks(key)).await?;
        }
        if let Request::Produce(request) = request {
            return self.produce(version, id, request, room).await;
        }
        self.settle().await?;
        let building = self.turn_to_build(key).await?;
        match self.handle(key, version, request).await? {
            Reply::Now(response) => {
                let frame = encode(key, version, id, &response)?;
                drop(response);
                let held = self.room_to_answer(frame.remaining()).await?;
                drop(building);
                let outcome = self.write(frame).await;
                drop(held);
                outcome
            }
            Reply::Held(response, held) => {
                let outcome = self.answer(key, version, id, &response).await;
                drop(held);
                outcome
            }
            Reply::Unserved => Err(Ended::Api(key)),
        }
    }

    /// Hands batches to the log, and writes answers meanwhile if that takes long.
    async fn produce(&mut self, version: i16, id: i32, request: ProduceRequest, room: Room) -> Result<(), Ended> {
        let Self { api, peer, under_way, sink, stop, write_timeout, .. } = self;
        let mut handing_over = pin!(api.produce(peer, request, version));
        let response = loop {
            tokio::select! {
                biased;
                response = &mut handing_over => break response?,
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    if let Some(answer) = done? {
                        write(sink, answer, *write_timeout, || false).await?;
                    }
                }
                () = stop.cancelled() => return Err(Ended::Stopping),
            }
        };
        self.under_way.push_back(Box::pin(async move {
            let outcome = response.await;
            drop(room);
            match outcome {
                Ok(Some(response)) => encode(ApiKey::Produce, version, id, &response).map(Some),
                Ok(None) => Ok(None),
                Err(reason) => Err(Ended::Unanswered(reason)),
            }
        }));
        Ok(())
    }

    /// A turn to build an answer that may be large; few are built at once, because what one takes is known only then.
    async fn turn_to_build(&mut self, key: ApiKey) -> Result<Option<OwnedSemaphorePermit>, Ended> {
        if !lists(key) {
            return Ok(None);
        }
        tokio::select! {
            biased;
            turn = self.api.turn_to_build() => Ok(turn),
            () = self.stop.cancelled() => Err(Ended::Stopping),
        }
    }

    /// The room in memory that a large answer takes until it has left.
    async fn room_to_answer(&mut self, bytes: usize) -> Result<Room, Ended> {
        if bytes <= SMALL_ANSWER {
            return Ok(Room::default());
        }
        tokio::select! {
            biased;
            room = self.api.room_to_answer(bytes) => Ok(room),
            () = self.stop.cancelled() => Err(Ended::Stopping),
        }
    }

    /// Has the request worked on; one that is parked ends early when the client goes away or the process stops.
    async fn handle(&mut self, key: ApiKey, version: i16, request: Request) -> Result<Reply, Ended> {
        let (parks, quiet) = (parks(key), !self.frames.has_more());
        // On the heap, so that a connection without a request is small.
        let handling = Box::pin(self.api.handle(&self.peer, version, request));
        tokio::select! {
            biased;
            reply = handling => Ok(reply),
            () = self.stop.cancelled(), if parks => Err(Ended::Stopping),
            () = gone(self.frames.source()), if parks && quiet => Err(FrameError::Closed.into()),
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

    async fn write(&mut self, frame: super::codec::Frame) -> Result<(), Ended> {
        let api = &self.api;
        write(&mut self.sink, frame, self.write_timeout, || api.is_short_of_memory()).await
    }
}

/// Writes one answer as fast as the client takes it: not slower than [`SLOWEST_BYTES_PER_SECOND`] in all, with no pause
/// longer than `limit`, or than [`SHORT_OF_MEMORY`] while `others_wait`.
async fn write(
    sink: &mut OwnedWriteHalf,
    mut frame: super::codec::Frame,
    limit: Duration,
    others_wait: impl Fn() -> bool,
) -> Result<(), Ended> {
    let len = u64::try_from(frame.remaining()).unwrap_or(u64::MAX);
    let end = Instant::now() + limit + Duration::from_secs(len / SLOWEST_BYTES_PER_SECOND);
    let mut silent = Duration::ZERO;
    while frame.has_remaining() {
        let pause = SHORT_OF_MEMORY.min(limit);
        match timeout(pause, sink.write_buf(&mut frame)).await {
            Ok(written) => {
                written?;
                silent = Duration::ZERO;
            }
            Err(_) => silent += pause,
        }
        if frame.has_remaining() && (silent >= limit || Instant::now() >= end || !silent.is_zero() && others_wait()) {
            return Err(Ended::Write(limit));
        }
    }
    Ok(())
}

/// Requests that may wait for something that other clients do.
fn parks(key: ApiKey) -> bool {
    matches!(key, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup)
}

/// Requests whose answers grow with the number of topics, groups or settings.
fn lists(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::Metadata
            | ApiKey::OffsetFetch
            | ApiKey::ListOffsets
            | ApiKey::DescribeGroups
            | ApiKey::ListGroups
            | ApiKey::DescribeConfigs
            | ApiKey::DescribeLogDirs
            | ApiKey::DescribeProducers
            | ApiKey::DescribeTopicPartitions
            | ApiKey::ListConfigResources
    )
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
