//! Frames off a socket: a length of four bytes and that many bytes, with a bound on each and on all together.
//!
//! Memory follows the bytes that arrived, not the length that was announced, and every byte of it is taken from a budget
//! shared by all connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The budget is counted in pieces of this size.
const UNIT_BYTES: usize = 1024;
/// Room for the first bytes of a frame, before the budget is asked; every connection that reads has it.
const FIRST_BYTES: usize = 8 * UNIT_BYTES;
/// The shortest frame: API key, version and correlation id.
const SHORTEST: usize = 8;

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

/// Memory for frames, shared by all connections.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    /// A budget of about `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS))))
    }

    /// Room for `bytes`, waited for. The semaphore is never closed; a request larger than all of it is cut to it.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        self.0.clone().acquire_many_owned(units).await.ok()
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
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Frames of one connection.
#[derive(Debug)]
pub(super) struct Frames<R> {
    source: R,
    buffer: BytesMut,
    room: Option<OwnedSemaphorePermit>,
    budget: Budget,
    limits: Limits,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(source: R, budget: Budget, limits: Limits) -> Self {
        Self { source, buffer: BytesMut::new(), room: None, budget, limits }
    }

    /// The next frame.
    ///
    /// # Errors
    /// See [`FrameError`]; the connection is of no use afterwards.
    /// # Cancel safety
    /// What was read stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<Frame, FrameError> {
        let len = self.length().await?;
        while self.buffer.len() < 4 + len {
            self.grow(4 + len).await?;
            let (have, waited) = (self.buffer.len().saturating_sub(4), self.limits.stalled);
            let read = timeout(waited, self.source.read_buf(&mut self.buffer)).await;
            let read = read.map_err(|_| FrameError::Stalled { len, have, waited })??;
            if read == 0 {
                return Err(FrameError::Cut { len, have });
            }
        }
        self.buffer.advance(4);
        let bytes = self.buffer.split_to(len).freeze();
        let rest = std::mem::take(&mut self.buffer);
        // What follows gets a buffer of its own, so that this frame's memory ends with the frame.
        self.buffer.extend_from_slice(&rest);
        Ok(Frame { bytes, room: self.room.take() })
    }

    /// What is being read from.
    pub(super) fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// True when bytes of the next frame are here already.
    pub(super) fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    async fn length(&mut self) -> Result<usize, FrameError> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<4>() {
                let len = i32::from_be_bytes(*prefix);
                let limit = self.limits.frame_bytes;
                let allowed = usize::try_from(len).ok().filter(|len| (SHORTEST..=limit).contains(len));
                return allowed.ok_or(FrameError::Length { len, limit, hint: looks_like(*prefix) });
            }
            self.buffer.reserve(FIRST_BYTES - self.buffer.len().min(FIRST_BYTES));
            let read = timeout(self.limits.idle, self.source.read_buf(&mut self.buffer)).await;
            match read.map_err(|_| FrameError::Idle(self.limits.idle))?? {
                0 if self.buffer.is_empty() => return Err(FrameError::Closed),
                0 => return Err(FrameError::Cut { len: 0, have: self.buffer.len() }),
                _ => {}
            }
        }
    }

    /// Makes room for more of a frame of `total` bytes: twice what is here, never more than the frame.
    async fn grow(&mut self, total: usize) -> Result<(), FrameError> {
        if self.buffer.len() < self.buffer.capacity() && self.buffer.capacity() >= FIRST_BYTES.min(total) {
            return Ok(());
        }
        let wanted = total.min((2 * self.buffer.len()).max(FIRST_BYTES));
        let have = self.room.as_ref().map_or(FIRST_BYTES, |room| room.num_permits() * UNIT_BYTES + FIRST_BYTES);
        if wanted > have {
            let (len, waited) = (total - 4, self.limits.stalled);
            let taken = timeout(waited, self.budget.take(wanted - have)).await;
            let taken = taken.map_err(|_| FrameError::NoRoom { len, waited })?;
            match (&mut self.room, taken) {
                (Some(room), Some(taken)) => room.merge(taken),
                (room, taken) => *room = taken,
            }
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
        let mut frames = Frames::new(server, budget.clone(), LIMITS);
        for size in sizes {
            let got = frames.next().await.unwrap();
            assert_eq!(got.bytes, frame(size)[4..], "{size}");
        }
        sent.await.unwrap();
        assert!(matches!(frames.next().await, Err(FrameError::Closed)));
        drop(frames);
        assert_eq!(budget.0.available_permits(), 1024, "every share came back");
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
        assert_eq!(budget.0.available_permits(), 64);
    }

    #[tokio::test]
    async fn a_frame_waits_for_room_in_the_budget_but_not_for_ever() {
        let budget = Budget::new(16 << 10);
        let all = budget.take(16 << 10).await;
        let whole = frame(12_000);
        let mut frames = Frames::new(&whole[..], budget.clone(), LIMITS);
        let error = frames.next().await.unwrap_err();
        assert!(matches!(error, FrameError::NoRoom { len: 12_000, .. }), "{error}");
        drop((all, frames));
        let mut frames = Frames::new(&whole[..], budget, LIMITS);
        assert_eq!(frames.next().await.unwrap().bytes.len(), 12_000);
    }
}
