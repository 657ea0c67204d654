//! A request body as it comes in, with its limits: size, pauses, overall speed, and memory of all bodies together.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connection::Connection;

/// Why a request body could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is longer than allowed.
    TooLarge { limit: u64 },
    /// The client sends nothing, or next to nothing.
    TooSlow,
    /// Other bodies take up all the memory there is for them.
    Overloaded,
    /// The client went away, or sent broken framing.
    Broken(String),
}

/// Limits of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    pub(super) bytes: Option<u64>,
    pub(super) pause: Duration,
    pub(super) min_rate: u64,
}

/// Memory that whole bodies may take together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    kib: Arc<Semaphore>,
    total_kib: u32,
    wait: Duration,
}

impl Budget {
    /// A budget of `bytes`; who finds it used up waits for `wait`.
    pub(super) fn new(bytes: u64, wait: Duration) -> Self {
        let total_kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(1);
        let permits = usize::try_from(total_kib).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { kib: Arc::new(Semaphore::new(permits)), total_kib, wait }
    }

    async fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, BodyError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(self.total_kib);
        let permit = tokio::time::timeout(self.wait, Arc::clone(&self.kib).acquire_many_owned(kib)).await;
        permit.ok().and_then(Result::ok).ok_or(BodyError::Overloaded)
    }
}

/// A body that was read whole; its share of the [`Budget`] is given back when this is dropped.
#[derive(Debug)]
pub(super) struct WholeBody {
    pub(super) bytes: Bytes,
    _reserved: OwnedSemaphorePermit,
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// The body of one request, not read yet.
pub(super) struct RequestBody {
    pieces: Pieces,
    /// `Content-Length`, when there is one.
    declared: Option<u64>,
    connection: Option<Arc<Connection>>,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new<S, B, E>(pieces: S, declared: Option<u64>, connection: Option<Arc<Connection>>) -> Self
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: Buf,
        E: std::error::Error,
    {
        let pieces = pieces.map(|piece| match piece {
            Ok(mut piece) => Ok(piece.copy_to_bytes(piece.remaining())),
            Err(error) => Err(reason(&error)),
        });
        Self { pieces: Box::pin(pieces), declared, connection, ended: false }
    }

    /// Refuses a body whose declared length is over the limit, before anything of it is read.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`].
    pub(super) fn check_length(&self, limits: BodyLimits) -> Result<(), BodyError> {
        match (self.declared, limits.bytes) {
            (Some(declared), Some(limit)) if declared > limit => Err(BodyError::TooLarge { limit }),
            _ => Ok(()),
        }
    }

    /// The pieces as they come in. After an error the stream ends.
    pub(super) fn into_pieces(self, limits: BodyLimits) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
        let state = (self, Instant::now(), 0_u64);
        stream::unfold(Some(state), move |state| async move {
            let (mut body, begun, read) = state?;
            match body.next_piece(limits, begun, read).await {
                Ok(Some(piece)) => {
                    let read = read.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                    Some((Ok(piece), Some((body, begun, read))))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The whole body in one piece.
    ///
    /// # Errors
    /// [`BodyError`].
    pub(super) async fn collect(mut self, limits: BodyLimits, budget: &Budget) -> Result<WholeBody, BodyError> {
        self.check_length(limits)?;
        let mut reserved = budget.reserve(self.declared.unwrap_or(0)).await?;
        let (begun, mut read) = (Instant::now(), 0_u64);
        let mut whole: Option<Bytes> = None;
        let mut buffer = BytesMut::new();
        while let Some(piece) = self.next_piece(limits, begun, read).await? {
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            read = read.saturating_add(length);
            if self.declared.is_none() {
                reserved.merge(budget.reserve(length).await?);
            }
            match whole.take() {
                None if buffer.is_empty() => whole = Some(piece),
                first => {
                    buffer.extend_from_slice(&first.unwrap_or_default());
                    buffer.extend_from_slice(&piece);
                }
            }
        }
        Ok(WholeBody { bytes: whole.unwrap_or_else(|| buffer.freeze()), _reserved: reserved })
    }

    async fn next_piece(&mut self, limits: BodyLimits, begun: Instant, read: u64) -> Result<Option<Bytes>, BodyError> {
        let next = tokio::time::timeout(limits.pause, self.pieces.next());
        let piece = match next.await {
            Err(_) => return Err(BodyError::TooSlow),
            Ok(None) => {
                self.ended = true;
                return Ok(None);
            }
            Ok(Some(Err(reason))) => return Err(BodyError::Broken(reason)),
            Ok(Some(Ok(piece))) => piece,
        };
        let read = read.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        match limits.bytes {
            Some(limit) if read > limit => Err(BodyError::TooLarge { limit }),
            _ if is_crawling(limits, begun.elapsed(), read) => Err(BodyError::TooSlow),
            _ => Ok(Some(piece)),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended
            && self.declared != Some(0)
            && let Some(connection) = &self.connection
        {
            connection.body_left_unread();
        }
    }
}

fn is_crawling(limits: BodyLimits, elapsed: Duration, read: u64) -> bool {
    elapsed > limits.pause && read < limits.min_rate.saturating_mul(elapsed.as_secs())
}

/// The innermost cause: the outer ones only say that a body could not be read.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BodyLimits = BodyLimits { bytes: Some(10), pause: Duration::from_secs(30), min_rate: 1024 };

    fn body(pieces: Vec<&'static str>, declared: Option<u64>) -> RequestBody {
        let pieces = stream::iter(pieces.into_iter().map(|p| Ok::<_, std::io::Error>(Bytes::from(p))));
        RequestBody::new(pieces, declared, None)
    }

    async fn collect(body: RequestBody) -> Result<Bytes, BodyError> {
        let budget = Budget::new(1 << 20, Duration::ZERO);
        body.collect(LIMITS, &budget).await.map(|whole| whole.bytes)
    }

    #[tokio::test]
    async fn bodies_that_do_not_fit_beside_each_other_wait_and_are_refused_in_the_end() {
        let budget = Budget::new(2048, Duration::from_millis(50));
        let limits = BodyLimits { bytes: None, ..LIMITS };
        let kib = || Box::leak("x".repeat(1024).into_boxed_str());
        let first = body(vec![kib()], Some(1024)).collect(limits, &budget).await.unwrap();
        let second = body(vec![kib()], None).collect(limits, &budget).await.unwrap();
        for declared in [None, Some(1024)] {
            let third = body(vec![kib()], declared).collect(limits, &budget).await;
            assert_eq!(third.unwrap_err(), BodyError::Overloaded);
        }
        drop((first, second));
        let larger_than_all = body(vec![kib()], Some(1 << 40)).collect(limits, &budget).await;
        assert_eq!(larger_than_all.unwrap().bytes.len(), 1024);
    }

    #[tokio::test]
    async fn pieces_are_joined_in_order() {
        for (pieces, whole) in [(vec![], ""), (vec!["abc"], "abc"), (vec!["a", "", "b", "cd"], "abcd")] {
            assert_eq!(collect(body(pieces, None)).await.unwrap(), whole);
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_declared_or_not() {
        let too_large = Err(BodyError::TooLarge { limit: 10 });
        assert_eq!(collect(body(vec!["0123456789"], Some(11))).await, too_large);
        assert_eq!(collect(body(vec!["0123456789", "a"], None)).await, too_large);
        assert_eq!(collect(body(vec!["0123456789"], Some(10))).await.unwrap(), "0123456789");
    }

    #[test]
    fn a_crawling_body_is_noticed_after_the_grace_time() {
        assert!(!is_crawling(LIMITS, Duration::from_secs(29), 0));
        assert!(is_crawling(LIMITS, Duration::from_secs(60), 60 * 1024 - 1));
        assert!(!is_crawling(LIMITS, Duration::from_secs(60), 60 * 1024));
    }
}
