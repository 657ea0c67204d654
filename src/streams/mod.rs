//! Blobs: upload, download, existence, deletion and copies, over whatever keeps the bytes.
//!
//! Called by the stream routes, by ingest and, for copies, by the dispatcher. Owns the order of an upload's steps, the
//! fall-back to the empty place, and the bounds on what runs at once. Spec: streams.md 1 to 4.

mod adopted;
mod ageoff;
mod analyze;
mod copy;
mod download;
mod embedded;
mod engine;
#[cfg(test)]
pub(crate) mod memory;
mod range;
pub mod reidentify;
mod store;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use azulite_storage::ids::Sha256;
use tokio::sync::Semaphore;

pub use adopted::{AdoptError, AdoptedBlobs};
pub use ageoff::AgeOff;
pub use analyze::{Analyzer, DigestMode, DigestSink, Digests, Identified};
pub use copy::Copier;
pub use download::{Download, FetchError};
pub use embedded::EmbeddedBlobs;
pub use engine::Engine;
pub use range::{AfterEnd, Range, RangeError};
pub(crate) use store::sought;
pub use store::{
    BlobReader, BlobRecord, BlobStore, Deleted, Listed, Place, ReadSeek, Staged, Stat, StoreError, is_older,
};
pub use upload::{UploadError, UploadRequest};

use crate::metrics::Metrics;

/// Bounds of the service.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Uploads taken in at once; each holds one blocking thread.
    pub max_uploads: usize,
    /// Identifications at once; further uploads wait their turn.
    pub max_identifications: usize,
    /// How long an upload may wait for its turn before it is refused.
    pub upload_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_uploads: 64, max_identifications: 4, upload_wait: Duration::from_secs(10) }
    }
}

/// The blob service; cheap to clone.
#[derive(Clone)]
pub struct Streams {
    store: Arc<dyn BlobStore>,
    analyzer: Arc<dyn Analyzer>,
    metrics: Arc<Metrics>,
    options: Options,
    uploads: Arc<Semaphore>,
    identifications: Arc<Semaphore>,
}

impl Streams {
    /// A service over `store`.
    #[must_use]
    pub fn new(
        store: Arc<dyn BlobStore>,
        analyzer: Arc<dyn Analyzer>,
        metrics: Arc<Metrics>,
        options: Options,
    ) -> Self {
        let uploads = Arc::new(Semaphore::new(options.max_uploads.max(1)));
        let identifications = Arc::new(Semaphore::new(options.max_identifications.max(1)));
        Self { store, analyzer, metrics, options, uploads, identifications }
    }

    /// True when the blob can be downloaded under this place.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn exists(&self, place: Place, hash: Sha256) -> Result<bool, StoreError> {
        self.metrics.data_exist_requests.inc();
        let found = self.blocking(move |this| this.timed("exists", || this.find(&place, &hash))).await?;
        Ok(found.is_some())
    }

    /// Deletes one reference, at this place or else at the empty one. `older_than` is in Unix seconds.
    ///
    /// # Errors
    /// [`StoreError`]; unknown whether anything was deleted.
    pub async fn delete(&self, place: Place, hash: Sha256, older_than: Option<i64>) -> Result<Deleted, StoreError> {
        self.metrics.data_delete_requests.inc();
        self.blocking(move |this| {
            this.timed("delete", || {
                let there = this.store.delete(&place, &hash, older_than)?;
                if there != Deleted::NotFound || place == Place::default() {
                    return Ok(there);
                }
                let elsewhere = this.store.delete(&Place::default(), &hash, older_than)?;
                if elsewhere == Deleted::Yes {
                    tracing::info!(%place, %hash, "a blob was deleted through the fall-back to the empty place");
                }
                Ok(elsewhere)
            })
        })
        .await
    }

    /// Makes the blob of one place available at another as well; false when it is not there.
    ///
    /// # Durability
    /// Durable on `Ok(true)`.
    /// # Errors
    /// [`StoreError`]; unknown whether it is available.
    pub async fn copy(&self, from: Place, to: Place, hash: Sha256) -> Result<bool, StoreError> {
        self.blocking(move |this| Copier::new(this.store.clone(), this.metrics.clone()).copy(&from, &to, &hash)).await
    }

    fn find(&self, place: &Place, hash: &Sha256) -> Result<Option<(Place, Stat)>, StoreError> {
        copy::find(self.store.as_ref(), place, hash)
    }

    /// Runs store calls on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        match tokio::task::spawn_blocking(move || work(&this)).await {
            Ok(result) => result,
            Err(stopped) => Err(StoreError::Io(std::io::Error::other(stopped))),
        }
    }

    /// Notes how long a store operation took.
    fn timed<T, E>(&self, method: &str, operation: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        timed(&self.metrics, method, operation)
    }
}

fn timed<T, E>(metrics: &Metrics, method: &str, operation: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    let result = operation();
    let outcome = if result.is_ok() { "ok" } else { "error" };
    metrics.streams_op_duration.observe([method, outcome], begun.elapsed());
    result
}
