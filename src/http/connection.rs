//! One client connection: what is under way on it, its time limits, and what became of the answers sent over it.
//!
//! [`TrackedIo`] sits between hyper and the socket, [`TrackedBody`] around every response body; both share a
//! [`Connection`]. An answer counts as delivered once hyper has taken its last byte and everything hyper held was then
//! written and flushed: hyper flushes the socket only when its own buffer is empty.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::dispatcher::hub::DeliveryGuard;

/// Bytes read and thrown away after the last answer, so that a client still sending gets to read that answer.
const LINGER_BYTES: usize = 16 << 20;

/// Time limits of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long a connection may wait for the first byte of a request.
    pub(super) idle: Duration,
    /// How long the head of a request may take once it has begun.
    pub(super) header: Duration,
    /// How long a write may make no progress because the client does not read.
    pub(super) write: Duration,
    /// How long a client that is still sending is listened to after the last answer.
    pub(super) linger: Duration,
}

/// State shared by the socket, the service and the bodies of one connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    state: Mutex<State>,
    /// Address of the client.
    peer: Option<IpAddr>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests whose answer is not wholly handed to hyper yet.
    in_flight: usize,
    /// An answer was handed over and not flushed since.
    unflushed: bool,
    /// Bytes of the next request have come in.
    head_begun: bool,
    /// A request body was left unread.
    body_unread: bool,
    /// Answers handed over whole, waiting for the flush.
    written: Vec<DeliveryGuard>,
}

/// What a connection waits for while nothing is under way on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Idle,
    Header,
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection with this client.
    pub(super) fn with(peer: Option<IpAddr>) -> Self {
        Self { peer, ..Self::default() }
    }

    /// Address of the client, where it is known.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Notes that a request's head was read. The request counts as under way until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        let mut state = self.state();
        state.in_flight += 1;
        state.head_begun = false;
        state.body_unread = false;
        drop(state);
        InFlight(Arc::clone(self))
    }

    /// Notes that a request body was dropped before its end.
    pub(super) fn body_left_unread(&self) {
        self.state().body_unread = true;
    }

    fn waiting(&self) -> Option<Waiting> {
        let state = self.state();
        if state.in_flight > 0 || state.unflushed {
            None
        } else if state.head_begun {
            Some(Waiting::Header)
        } else {
            Some(Waiting::Idle)
        }
    }

    fn bytes_came_in(&self) {
        let mut state = self.state();
        if state.in_flight == 0 {
            state.head_begun = true;
        }
    }

    /// Everything handed over so far is in the socket's hands.
    fn flushed(&self) {
        let mut state = self.state();
        state.unflushed = false;
        let written = std::mem::take(&mut state.written);
        drop(state);
        written.into_iter().for_each(DeliveryGuard::delivered);
    }

    /// The socket is gone: what was not flushed is lost.
    fn closed(&self) {
        let written = std::mem::take(&mut self.state().written);
        drop(written);
    }
}

/// Keeps a request counted as under way.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Connection>);

impl InFlight {
    /// Ends the request with its answer handed over whole.
    fn handed_over(self, delivery: Option<DeliveryGuard>) {
        let mut state = self.0.state();
        state.unflushed = true;
        state.written.extend(delivery);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight = state.in_flight.saturating_sub(1);
    }
}

/// A response body that knows when its last byte was taken.
pub(super) struct TrackedBody<B> {
    body: B,
    /// Bytes still to come, when that is known.
    remaining: Option<u64>,
    /// Present until the last byte was taken.
    open: Option<(InFlight, Option<DeliveryGuard>)>,
}

impl<B: Body<Data = Bytes>> TrackedBody<B> {
    /// Wraps `body`, of `length` bytes where that is known.
    pub(super) fn new(body: B, length: Option<u64>, in_flight: InFlight, delivery: Option<DeliveryGuard>) -> Self {
        let remaining = length.or_else(|| body.size_hint().exact());
        Self { body, remaining, open: Some((in_flight, delivery)) }
    }

    fn hand_over(&mut self) {
        if let Some((in_flight, delivery)) = self.open.take() {
            in_flight.handed_over(delivery);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrackedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None if self.remaining.unwrap_or(0) == 0 => self.hand_over(),
            Some(Ok(frame)) => {
                let taken = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
                self.remaining = self.remaining.map(|r| r.saturating_sub(taken));
                if self.is_end_stream() {
                    self.hand_over();
                }
            }
            None | Some(Err(_)) => self.open = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0) || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}

impl<B> Drop for TrackedBody<B> {
    fn drop(&mut self) {
        // hyper does not poll a body that has no bytes.
        if self.remaining == Some(0)
            && let Some((in_flight, delivery)) = self.open.take()
        {
            in_flight.handed_over(delivery);
        }
    }
}

/// A socket with the time limits of [`Limits`] that reports flushes to its [`Connection`].
///
/// A wait that takes too long reads as the end of the stream, so that hyper closes in its orderly way; a write that
/// makes no progress is an error.
#[derive(Debug)]
pub(super) struct TrackedIo<S> {
    io: S,
    connection: Arc<Connection>,
    limits: Limits,
    reading: Option<(Waiting, Pin<Box<Sleep>>)>,
    writing: Option<Pin<Box<Sleep>>>,
    closing: Closing,
}

#[derive(Debug)]
enum Closing {
    No,
    Lingering { until: Pin<Box<Sleep>>, bytes: usize },
    Done,
}

impl<S> TrackedIo<S> {
    pub(super) fn new(io: S, connection: Arc<Connection>, limits: Limits) -> Self {
        Self { io, connection, limits, reading: None, writing: None, closing: Closing::No }
    }

    /// True when the connection has waited too long for a request.
    fn waited_too_long(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(waiting) = self.connection.waiting() else {
            self.reading = None;
            return false;
        };
        if self.reading.as_ref().is_none_or(|(for_what, _)| *for_what != waiting) {
            let limit = match waiting {
                Waiting::Idle => self.limits.idle,
                Waiting::Header => self.limits.header,
            };
            self.reading = Some((waiting, Box::pin(tokio::time::sleep_until(Instant::now() + limit))));
        }
        self.reading.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready())
    }

    /// Turns a write that stays pending for too long into an error.
    fn limit_write<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.writing = None;
            return poll;
        }
        let limit = self.limits.write;
        let sleep = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    self.connection.bytes_came_in();
                }
                Poll::Ready(result)
            }
            Poll::Pending if self.waited_too_long(cx) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TrackedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write(cx, buf);
        self.limit_write(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.limit_write(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.io).poll_flush(cx);
        let poll = self.limit_write(cx, poll);
        if let Poll::Ready(Ok(())) = poll {
            self.connection.flushed();
        }
        poll
    }

    /// Ends the sending side. A client that is still sending is then read for a while: closing at once would reset the
    /// connection, and the reset could overtake the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Closing::No = this.closing {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            let state = this.connection.state();
            let still_sending = state.body_unread || state.head_begun;
            drop(state);
            this.closing = if still_sending {
                Closing::Lingering { until: Box::pin(tokio::time::sleep(this.limits.linger)), bytes: LINGER_BYTES }
            } else {
                Closing::Done
            };
        }
        if let Closing::Lingering { until, bytes } = &mut this.closing {
            let mut scratch = [0; 8192];
            while *bytes > 0 && until.as_mut().poll(cx).is_pending() {
                let mut buf = ReadBuf::new(&mut scratch);
                match ready!(Pin::new(&mut this.io).poll_read(cx, &mut buf)) {
                    Ok(()) if !buf.filled().is_empty() => *bytes = bytes.saturating_sub(buf.filled().len()),
                    Ok(()) | Err(_) => break,
                }
            }
            this.closing = Closing::Done;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for TrackedIo<S> {
    fn drop(&mut self) {
        self.connection.closed();
    }
}
