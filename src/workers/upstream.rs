//! What a worker needs of a dispatcher.

use std::io::{Read, Seek};

use crate::dispatcher::model::{BinaryEvent, Datastream, PluginEvent, StatusEvent};

/// Bytes of a stream, read where they are wanted.
pub trait Content: Read + Seek + Send {
    /// How many there are.
    fn size(&self) -> u64;
}

/// What a fetch brought.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Events that are this worker's now, until it says how it ended with each.
    pub events: Vec<BinaryEvent>,
    /// How many others a filter left out; with none fetched, there may be more behind them.
    pub filtered: u64,
    /// Task consumers are to wait.
    pub paused: bool,
}

/// Why a dispatcher did not do what it was asked for. Nothing was done, or it may be done again without harm.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It cannot be reached, is stopping, full or busy: the same request may go through later.
    #[error("{0}")]
    Unavailable(String),
    /// It refuses; the same request will not go through later.
    #[error("{0}")]
    Refused(String),
}

/// A dispatcher, in this process or behind an address.
///
/// Every call blocks and may be made from any thread but an async one. A call that has not been answered may have been
/// carried out.
pub trait Upstream: Send + Sync {
    /// Whether it is in this process: what is not available then is this machine's disk or store.
    fn is_local(&self) -> bool {
        false
    }

    /// Announces a plugin.
    ///
    /// # Errors
    /// [`UpstreamError`].
    fn register(&self, plugin: &PluginEvent) -> Result<(), UpstreamError>;

    /// Leases events on `binary/active`; `query` holds the parameters as they would stand in the address, decoded. Waits as
    /// long as its `deadline` says, and shorter when the process stops.
    ///
    /// # Errors
    /// [`UpstreamError`]; nothing was leased, or what was comes back when its lease ends.
    fn lease(&self, query: &[(&str, &str)]) -> Result<Fetched, UpstreamError>;

    /// Ends every [`Upstream::lease`] that waits, which then brings what it has; what an answer still brings is given back.
    fn interrupt(&self) {}

    /// Publishes statuses: heartbeats, and final ones with their results.
    ///
    /// # Durability
    /// On `Ok` they and their results are durable.
    /// # Errors
    /// [`UpstreamError`].
    fn report(&self, statuses: &[StatusEvent]) -> Result<(), UpstreamError>;

    /// Publishes result events that do not wait for the final status of their task, such as those of a first stage.
    ///
    /// # Durability
    /// On `Ok` they are durable.
    /// # Errors
    /// [`UpstreamError`]; some of them may have been published.
    fn publish(&self, events: &[BinaryEvent]) -> Result<(), UpstreamError>;

    /// Gives leases back without counting an attempt; `dequeued` holds the ids of the tasks. Those that are not open are
    /// left out.
    ///
    /// # Errors
    /// [`UpstreamError`].
    fn release(&self, dequeued: &[&str]) -> Result<(), UpstreamError>;

    /// A stored stream; `None` when there is none.
    ///
    /// # Errors
    /// [`UpstreamError`].
    fn content(&self, source: &str, label: &str, sha256: &str) -> Result<Option<Box<dyn Content>>, UpstreamError>;

    /// Stores a stream; what is answered goes into an event as it is.
    ///
    /// # Durability
    /// On `Ok` it is durable.
    /// # Errors
    /// [`UpstreamError`].
    fn upload(&self, source: &str, label: &str, bytes: &mut dyn Read) -> Result<Datastream, UpstreamError>;
}
