//! Frames off a socket: a length of four bytes and that many bytes, with a bound on each and on all together.
//!
//! Memory follows the bytes that arrived, not the length that was announced, and every byte of it is taken from a budget
//! shared by all connections. A connection that waits for a frame to begin has no buffer at all.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// The budget is counted in pieces of this size.
const UNIT_BYTES: usize = 1024;
/// Room for the first bytes of a frame, before the budget is asked; every connection that reads has it.
const FIRST_BYTES: usize = 8 * UNIT_BYTES;
/// The shortest frame: API key, version and correlation id.
const SHORTEST: usize = 8;
/// Slower than this, and beyond the time a client may stop for, a frame is not waited for: it would hold its memory.
pub(super) const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;

/// Bounds on what is read from one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Longest frame, bytes.
    pub(super) frame_bytes: usize,
    /// How long a connection may be silent between frames.
    pub(super) idle: Duration,
    /// How long it may be silent within a frame, and how long a frame may wait for room in the budget.
    pub(super) stalled: Duration,
}

/// Memory shared by all connections.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    units: Arc<Semaphore>,
    total: usize,
    /// Whoever has this one permit may go past the budget. Without it frames that each have a part of the budget and
    /// need more would wait for each other.
    beyond: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A share of a budget; comes back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Room {
    units: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Bytes it stands for; no bound for the one that may go past the budget.
    fn bytes(&self) -> usize {
        match (&self.beyond, &self.units) {
            (Some(_), _) => usize::MAX,
            (None, units) => units.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT_BYTES,
        }
    }

    /// Gives back what goes past `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let keep = bytes.div_ceil(UNIT_BYTES);
        if let Some(units) = &mut self.units {
            drop(units.split(units.num_permits().saturating_sub(keep)));
        }
    }

    fn merge(&mut self, other: Self) {
        match (&mut self.units, other.units) {
            (Some(units), Some(more)) => units.merge(more),
            (units, more) => *units = units.take().or(more),
        }
        self.beyond = self.beyond.take().or(other.beyond);
    }
}

/// Counts somebody who waits.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    /// A budget of about `bytes`; one share at a time may go past it.
    pub(super) fn new(bytes: usize) -> Self {
        let total = (bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        let (units, beyond) = (Arc::new(Semaphore::new(total)), Arc::new(Semaphore::new(1)));
        Self(Arc::new(Pool { units, total, beyond, waiting: AtomicUsize::new(0) }))
    }

    /// A share larger than all of the budget is cut to it.
    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES).min(self.0.total)).unwrap_or(u32::MAX)
    }

    /// Room for `bytes` if it is there now.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Room> {
        let units = self.0.units.clone().try_acquire_many_owned(self.units(bytes)).ok()?;
        Some(Room { units: Some(units), beyond: None })
    }

    /// Room for `bytes`, waited for in turn.
    ///
    /// # Cancel safety
    /// Nothing is taken when the future is dropped; the turn is lost.
    pub(super) async fn take(&self, bytes: usize) -> Room {
        if let Some(room) = self.try_take(bytes) {
            return room;
        }
        let _waits = Waits::new(&self.0.waiting);
        // Neither semaphore is ever closed.
        tokio::select! {
            biased;
            units = self.0.units.clone().acquire_many_owned(self.units(bytes)) => Room { units: units.ok(), beyond: None },
            beyond = self.0.beyond.clone().acquire_owned() => Room { units: None, beyond: beyond.ok() },
        }
    }

    /// Makes a share that may go past the budget one of the budget, of `bytes`, so that it can be held for long.
    pub(super) async fn settle(&self, room: &mut Room, bytes: usize) {
        if room.beyond.is_some() {
            let _waits = Waits::new(&self.0.waiting);
            let missing = bytes.saturating_sub(room.units.as_ref().map_or(0, |units| units.num_permits() * UNIT_BYTES));
            let units = self.0.units.clone().acquire_many_owned(self.units(missing)).await.ok();
            room.merge(Room { units, beyond: None });
            room.beyond = None;
        }
    }

    /// True while somebody waits for room.
    pub(super) fn is_short(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The peer closed it between frames.
    #[error("closed by the client")]
    Closed,
    /// The peer was silent too long between frames.
    #[error("idle for {0:?}")]
    Idle(Duration),
    /// The peer stopped within a frame.
    #[error("a frame of {len} bytes stopped after {have} for {waited:?}")]
    Stalled {
        /// Length announced.
        len: usize,
        /// Bytes that came.
        have: usize,
        /// How long nothing came.
        waited: Duration,
    },
    /// All memory for requests is in use.
    #[error("no room for a request of {len} bytes after {waited:?}: kafka.request_memory is in use")]
    NoRoom {
        /// Length announced.
        len: usize,
        /// How long it waited.
        waited: Duration,
    },
    /// The peer closed it within a frame.
    #[error("closed by the client in a frame of {len} bytes after {have}")]
    Cut {
        /// Length announced.
        len: usize,
        /// Bytes that came.
        have: usize,
    },
    /// Not a length that is allowed.
    #[error("frame length {len} is not one of {SHORTEST} to {limit}{}", .hint.map(|h| format!("; {h}")).unwrap_or_default())]
    Length {
        /// Length announced.
        len: i32,
        /// Longest allowed.
        limit: usize,
        /// What the bytes look like.
        hint: Option<&'static str>,
    },
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One request's bytes, without the length; its share of the budget comes back when it is dropped.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) room: Room,
}

/// Frames of one connection.
#[derive(Debug)]
pub(super) struct Frames<R> {
    source: R,
    buffer: BytesMut,
    room: Room,
    /// How long this frame's bytes have been waited for.
    waited: Duration,
    budget: Budget,
    limits: Limits,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(source: R, budget: Budget, limits: Limits) -> Self {
        Self { source, buffer: BytesMut::new(), room: Room::default(), waited: Duration::ZERO, budget, limits }
    }

    /// The next frame.
    ///
    /// # Errors
    /// See [`FrameError`]; the connection is of no use afterwards.
    /// # Cancel safety
    /// What was read stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<Frame, FrameError> {
        let len = self.length().await?;
        let total = 4 + len;
        while self.buffer.len() < total {
            self.grow(total).await?;
            self.more(total).await?;
        }
        self.buffer.advance(4);
        let bytes = self.buffer.split_to(len).freeze();
        let rest = std::mem::take(&mut self.buffer);
        // What follows gets a buffer of its own, so that this frame's memory ends with the frame.
        self.buffer.extend_from_slice(&rest);
        self.waited = Duration::ZERO;
        Ok(Frame { bytes, room: std::mem::take(&mut self.room) })
    }

    /// What is being read from.
    pub(super) fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// True when bytes of the next frame are here already.
    pub(super) fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes room for `bytes` more of what a request of `len` bytes has become; with `for_long` none of it stays past
    /// the budget.
    ///
    /// # Errors
    /// [`FrameError::NoRoom`].
    pub(super) async fn charge(
        &self,
        room: &mut Room,
        (len, bytes): (usize, usize),
        for_long: bool,
    ) -> Result<(), FrameError> {
        let waited = self.limits.stalled;
        let take = async {
            if bytes > 0 && room.beyond.is_none() {
                room.merge(self.budget.take(bytes).await);
            }
            if for_long {
                self.budget.settle(room, len + bytes).await;
            }
        };
        timeout(waited, take).await.map_err(|_| FrameError::NoRoom { len, waited })
    }

    async fn length(&mut self) -> Result<usize, FrameError> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<4>() {
                let len = i32::from_be_bytes(*prefix);
                let limit = self.limits.frame_bytes;
                let allowed = usize::try_from(len).ok().filter(|len| (SHORTEST..=limit).contains(len));
                return allowed.ok_or(FrameError::Length { len, limit, hint: looks_like(*prefix) });
            }
            let limit = if self.buffer.is_empty() { self.limits.idle } else { self.limits.stalled };
            match timeout(limit, self.first()).await.map_err(|_| FrameError::Idle(limit))?? {
                0 if self.buffer.is_empty() => return Err(FrameError::Closed),
                0 => return Err(FrameError::Cut { len: 0, have: self.buffer.len() }),
                _ => {}
            }
        }
    }

    /// The first bytes of a frame, and often all of it, by way of the stack: nothing is kept while nothing comes.
    async fn first(&mut self) -> io::Result<usize> {
        let Self { source, buffer, .. } = self;
        std::future::poll_fn(|context| {
            let mut space = [const { MaybeUninit::uninit() }; FIRST_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *source).poll_read(context, &mut read))?;
            buffer.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
        .await
    }

    /// Reads more of a frame of `total` bytes, and nothing of what follows it.
    async fn more(&mut self, total: usize) -> Result<(), FrameError> {
        let (len, have) = (total - 4, self.buffer.len().saturating_sub(4));
        let begun = Instant::now();
        let mut part = (&mut self.buffer).limit(total - have - 4);
        let read = timeout(self.limits.stalled, self.source.read_buf(&mut part)).await;
        self.waited += begun.elapsed();
        let slowest = Duration::from_secs(u64::try_from(len).unwrap_or(0) / SLOWEST_BYTES_PER_SECOND);
        let waited = self.waited;
        match read.ok().transpose()? {
            Some(0) => Err(FrameError::Cut { len, have }),
            Some(_) if waited <= self.limits.stalled + slowest => Ok(()),
            Some(_) | None => Err(FrameError::Stalled { len, have, waited }),
        }
    }

    /// Makes room for more of a frame of `total` bytes: twice what is here, never more than the frame.
    async fn grow(&mut self, total: usize) -> Result<(), FrameError> {
        if self.buffer.len() < self.buffer.capacity() && self.buffer.capacity() >= FIRST_BYTES.min(total) {
            return Ok(());
        }
        let wanted = total.min((2 * self.buffer.len()).max(FIRST_BYTES));
        let have = self.room.bytes().saturating_add(FIRST_BYTES);
        if wanted > have {
            let (len, waited) = (total - 4, self.limits.stalled);
            let taken = timeout(waited, self.budget.take(wanted - have)).await;
            self.room.merge(taken.map_err(|_| FrameError::NoRoom { len, waited })?);
        }
        self.buffer.reserve(wanted - self.buffer.len());
        Ok(())
    }
}

/// What a length that is none may be instead.
fn looks_like(prefix: [u8; 4]) -> Option<&'static str> {
    match &prefix {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"DELE" | b"OPTI" | b"PATC" => {
            Some("the bytes look like HTTP: this is the Kafka port")
        }
        [0x16, 3, ..] => Some("the bytes look like TLS: this listener is plaintext"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const LIMITS: Limits =
        Limits { frame_bytes: 1 << 20, idle: Duration::from_secs(5), stalled: Duration::from_millis(40) };

    fn frame(len: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(len).unwrap().to_be_bytes().to_vec();
        bytes.extend((0..len).map(|i| u8::try_from(i % 251).unwrap()));
        bytes
    }

    #[tokio::test]
    async fn frames_come_whole_however_they_are_cut() {
        let (mut client, server) = tokio::io::duplex(64);
        let sizes = [8, 9, 100, 8192, 8193, 300_000, 8];
        let sent = tokio::spawn(async move {
            for size in sizes {
                client.write_all(&frame(size)).await.unwrap();
            }
        });
        let budget = Budget::new(1 << 20);
        let patient = Limits { stalled: Duration::from_secs(20), ..LIMITS };
        let mut frames = Frames::new(server, budget.clone(), patient);
        for size in sizes {
            let got = frames.next().await.unwrap();
            assert_eq!(got.bytes, frame(size)[4..], "{size}");
        }
        sent.await.unwrap();
        assert!(matches!(frames.next().await, Err(FrameError::Closed)));
        drop(frames);
        assert_eq!(budget.0.units.available_permits(), 1024, "every share came back");
    }

    #[tokio::test]
    async fn lengths_out_of_bounds_are_refused_by_name() {
        for (bytes, hint) in [
            (*b"GET ", Some("HTTP")),
            ([0x16, 3, 1, 2], Some("TLS")),
            ([0, 0, 0, 7], None),
            ([0xff; 4], None),
            ([0, 0x10, 0, 1], None),
        ] {
            let mut frames = Frames::new(&bytes[..], Budget::new(0), LIMITS);
            let error = frames.next().await.unwrap_err().to_string();
            assert!(error.contains("is not one of 8 to 1048576"), "{error}");
            assert!(hint.is_none_or(|hint| error.contains(hint)), "{error}");
        }
    }

    #[tokio::test]
    async fn an_announced_length_costs_nothing_and_a_stalled_frame_ends() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(&frame(1 << 20)[..20_000]).await.unwrap();
        let budget = Budget::new(64 << 10);
        let mut frames = Frames::new(server, budget.clone(), LIMITS);
        let error = frames.next().await.unwrap_err();
        assert!(matches!(error, FrameError::Stalled { len: 1_048_576, have: 19_996, .. }), "{error}");
        assert!(frames.buffer.capacity() < 80_000, "memory follows what came: {}", frames.buffer.capacity());
        drop(frames);
        assert_eq!(budget.0.units.available_permits(), 64);
    }

    #[tokio::test]
    async fn a_frame_waits_for_room_in_the_budget_but_not_for_ever() {
        let budget = Budget::new(16 << 10);
        let all = budget.take(16 << 10).await;
        let beyond = budget.take(1).await;
        let whole = frame(12_000);
        let mut frames = Frames::new(&whole[..], budget.clone(), LIMITS);
        let error = frames.next().await.unwrap_err();
        assert!(matches!(error, FrameError::NoRoom { len: 12_000, .. }), "{error}");
        drop((all, beyond, frames));
        let mut frames = Frames::new(&whole[..], budget, LIMITS);
        assert_eq!(frames.next().await.unwrap().bytes.len(), 12_000);
    }

    #[tokio::test]
    async fn frames_that_each_have_a_part_of_the_budget_do_not_wait_for_each_other() {
        let budget = Budget::new(256 << 10);
        let limits = Limits { stalled: Duration::from_secs(5), ..LIMITS };
        let mut clients = Vec::new();
        let mut reading = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (mut client, server) = tokio::io::duplex(200 << 10);
            client.write_all(&frame(300 << 10)[..100 << 10]).await.unwrap();
            clients.push(client);
            let mut frames = Frames::new(server, budget.clone(), limits);
            reading.spawn(async move { frames.next().await.map(|frame| frame.bytes.len()) });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        for mut client in clients {
            tokio::spawn(async move { client.write_all(&frame(300 << 10)[100 << 10..]).await.unwrap() });
        }
        let all = async {
            while let Some(read) = reading.join_next().await {
                assert_eq!(read.unwrap().unwrap(), 300 << 10);
            }
        };
        timeout(Duration::from_secs(3), all).await.expect("all of them are read in the end");
    }

    #[tokio::test]
    async fn a_frame_that_drips_is_not_waited_for() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let drip = tokio::spawn(async move {
            for byte in frame(300) {
                if client.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        });
        let mut frames = Frames::new(server, Budget::new(1 << 20), LIMITS);
        let error = frames.next().await.unwrap_err();
        assert!(matches!(error, FrameError::Stalled { len: 300, have: 0..100, .. }), "{error}");
        drop(frames);
        drip.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_without_a_request_has_no_buffer() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut frames = Frames::new(server, Budget::new(1 << 20), LIMITS);
        assert!(timeout(Duration::from_millis(5), frames.next()).await.is_err(), "nothing came");
        assert_eq!(frames.buffer.capacity(), 0);
        client.write_all(&frame(100)).await.unwrap();
        assert_eq!(frames.next().await.unwrap().bytes.len(), 100);
        assert!(timeout(Duration::from_millis(5), frames.next()).await.is_err(), "nothing came");
        assert_eq!(frames.buffer.capacity(), 0);
    }
}
