//! Where files and events go: the data directory itself or a running server.

use serde::Deserialize;

use super::content::Content;
use super::gate::Pass;
use crate::admin::Announcement;
use crate::cli::output::Refusal;
use crate::streams::BlobRecord;

/// Why a file was not stored.
#[derive(Debug)]
pub(super) enum StoreFault {
    /// This one cannot be.
    File(String),
    /// No other one can be either.
    Fatal(Refusal),
}

impl From<std::io::Error> for StoreFault {
    fn from(error: std::io::Error) -> Self {
        Self::File(error.to_string())
    }
}

/// What became of the events of one request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Published {
    /// Events taken.
    pub(super) total_ok: u64,
    /// Events refused.
    pub(super) failures: Vec<Refused>,
}

/// An event that was refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refused {
    /// Why.
    pub(super) error: String,
}

/// See the module. All calls block.
pub(super) trait Sink: Send + Sync {
    /// Hands over what ingest has announced in the source before.
    ///
    /// # Errors
    /// The log cannot be read.
    fn announced(&self, take: &mut dyn FnMut(Announcement)) -> Result<(), Refusal>;

    /// Whether the bytes are stored in the source.
    ///
    /// # Errors
    /// [`StoreFault`].
    fn has(&self, sha256: &str) -> Result<bool, StoreFault>;

    /// Stores a file and tells what it is; `sha256` is its hash if that was computed already. Content and `pass` are
    /// given up once there is nothing more to compute.
    ///
    /// # Durability
    /// On `Ok` bytes and name are durable.
    /// # Errors
    /// [`StoreFault`].
    fn store(&self, content: Content, sha256: Option<&str>, pass: Pass<'_>) -> Result<BlobRecord, StoreFault>;

    /// Publishes events, each a JSON object.
    ///
    /// # Durability
    /// On `Ok` every event counted is durable.
    /// # Errors
    /// Nothing can be published.
    fn publish(&self, events: &[Vec<u8>]) -> Result<Published, Refusal>;
}

/// Events as the body of one request.
pub(super) fn body(events: &[Vec<u8>]) -> Vec<u8> {
    [&b"["[..], &events.join(&b","[..]), b"]"].concat()
}

/// The file was not the same when it was read again.
pub(super) fn changed() -> StoreFault {
    StoreFault::File("it changed while it was read".to_owned())
}
