//! The door between whoever speaks HTTP and the dispatcher: requests and answers as plain values.
//!
//! The HTTP edge calls a [`Hub`]; the dispatcher implements it. Errors name what happened, never a status code: those
//! are chosen in `http::error`. Spec: events.md 1.3 to 1.7.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// Publishes and hands out events.
///
/// Both calls may be dropped at any await point, when the client has gone; nothing may be lost by that.
pub trait Hub: Send + Sync + 'static {
    /// What a publish request does before its body is read, whatever becomes of the rest: it may ask for a pause of
    /// plugins, which is in effect when this is ready.
    fn begin_post(&self, query: &[(String, String)]) -> BoxFuture<'_, ()>;

    /// Publishes the events of one request body.
    ///
    /// # Durability
    /// `Ok` only after everything it counts is durable.
    /// # Errors
    /// [`PostError`]; after `Publish` some of the events are stored, after any other variant none.
    fn post(&self, request: PostRequest) -> BoxFuture<'_, Result<PostAnswer, PostError>>;

    /// Hands out events, waiting for them as long as the request allows.
    ///
    /// # Errors
    /// [`GetError`]; the reader's positions have not moved.
    /// # Cancel safety
    /// Dropping the future gives back what had been taken.
    fn get(&self, request: GetRequest) -> BoxFuture<'_, Result<GetAnswer, GetError>>;

    /// Tells which registered consumers would not get an event: JSON text. Nothing changes by it.
    ///
    /// # Errors
    /// [`SimulateError`].
    fn simulate(&self, request: SimulateRequest) -> BoxFuture<'_, Result<Bytes, SimulateError>>;
}

/// A question to the filters. Spec: events.md 1.8.
#[derive(Clone, Debug, Default)]
pub struct SimulateRequest {
    /// One binary event, JSON.
    pub body: Bytes,
    /// Whether every filter is asked, and each answer listed; strict clients refuse that list.
    pub extended: bool,
}

/// Why the filters were not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SimulateError {
    /// The body is not one valid binary event.
    Invalid(String),
    /// The process is stopping.
    Stopping,
}

/// One publish request.
#[derive(Clone, Debug, Default)]
pub struct PostRequest {
    /// Decoded query, in order, with repeats.
    pub query: Vec<(String, String)>,
    /// The whole body.
    pub body: Bytes,
    /// `User-Agent`, empty when there was none.
    pub user_agent: String,
}

/// Answer to a publish request: the JSON object of events.md 1.7.
#[derive(Clone, Debug)]
pub struct PostAnswer {
    /// JSON text.
    pub body: Bytes,
}

/// One fetch request.
#[derive(Clone, Debug, Default)]
pub struct GetRequest {
    /// Model as it stood in the path, decoded, not checked.
    pub model: String,
    /// True for `active`: the events are tasks and a completion is expected.
    pub task: bool,
    /// Decoded query, in order, with repeats.
    pub query: Vec<(String, String)>,
    /// `User-Agent`, empty when there was none.
    pub user_agent: String,
    /// From a worker inside this process, whose running jobs end with it.
    pub in_process: bool,
}

/// Answer to a fetch request.
#[derive(Debug)]
pub struct GetAnswer {
    /// Media type of the body, with its parameters.
    pub content_type: String,
    /// The body, in pieces that are sent one after another.
    pub body: Vec<Bytes>,
    /// Told what became of the answer, when the reader's positions depend on it.
    pub delivery: Option<DeliveryGuard>,
}

/// Told once what became of an answer: its last byte was accepted by the socket, or it was lost on the way.
///
/// Called on the connection's task: must not block. Work that waits is to be spawned.
pub trait Delivery: Send + 'static {
    /// Every byte of the answer has been written to the socket.
    fn on_delivered(self: Box<Self>);
    /// The connection ended, or the request was dropped, before that.
    fn on_lost(self: Box<Self>);
}

/// Holds a [`Delivery`] and sees to it that exactly one of its calls is made: dropped means lost.
pub struct DeliveryGuard(Option<Box<dyn Delivery>>);

impl DeliveryGuard {
    /// Guards `delivery`.
    #[must_use]
    pub fn new(delivery: impl Delivery) -> Self {
        Self(Some(Box::new(delivery)))
    }

    /// Reports the answer as delivered.
    pub fn delivered(mut self) {
        if let Some(delivery) = self.0.take() {
            delivery.on_delivered();
        }
    }
}

impl Drop for DeliveryGuard {
    fn drop(&mut self) {
        if let Some(delivery) = self.0.take() {
            delivery.on_lost();
        }
    }
}

impl fmt::Debug for DeliveryGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliveryGuard")
    }
}

/// Why nothing, or not everything, of a publish request was stored. Spec: events.md 1.7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostError {
    /// The `model` parameter is missing or names no model.
    UnknownModel(String),
    /// The body has no bytes.
    EmptyBody,
    /// The body could not be decoded; the text is the whole `detail`.
    Decode(String),
    /// Nothing was left to publish, and age-off was not involved.
    NothingLeft {
        /// Events dropped per stage.
        filters: Vec<(String, u64)>,
        /// Events that failed validation.
        total_failures: u64,
        /// Their error texts.
        errors: Vec<String>,
    },
    /// Nothing was left to publish, and age-off dropped at least one event.
    AgedOff,
    /// Some events could not be published.
    Publish {
        /// Events stored.
        stored: u64,
        /// Events that were to be stored.
        total: u64,
        /// One text per failed event.
        errors: Vec<String>,
    },
    /// The answer could not be encoded, although the events are stored.
    Encode(String),
    /// The body, or what it unfolds to, is over a limit.
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The disk is full.
    DiskFull,
    /// Too much is waiting already.
    Overloaded {
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// The process is stopping.
    Stopping,
    /// The store has stopped itself after a failed write.
    Poisoned,
}

/// Why no events were handed out. Spec: events.md 1.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GetError {
    /// A parameter is wrong; the text is the whole `detail`.
    BadParameter(String),
    /// The consumer could not be registered.
    Registration(String),
    /// Reading failed.
    FetchFailed(String),
    /// The info part could not be encoded.
    EncodeInfo(String),
    /// The events could not be encoded as Avro.
    EncodeAvro(String),
    /// The events could not be encoded as JSON.
    EncodeJson(String),
    /// The disk is full, so that the positions cannot be kept.
    DiskFull,
    /// Too many readers are waiting already.
    Overloaded {
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// The process is stopping.
    Stopping,
    /// The store has stopped itself after a failed write.
    Poisoned,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Count(Arc<AtomicU32>);

    impl Delivery for Count {
        fn on_delivered(self: Box<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn on_lost(self: Box<Self>) {
            self.0.fetch_add(100, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_guard_makes_exactly_one_call() {
        let count = Arc::new(AtomicU32::new(0));
        DeliveryGuard::new(Count(Arc::clone(&count))).delivered();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        drop(DeliveryGuard::new(Count(Arc::clone(&count))));
        assert_eq!(count.load(Ordering::Relaxed), 101);
    }
}
