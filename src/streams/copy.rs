//! Copies of references: the bytes of one place made available at another.

use std::sync::Arc;

use azulite_storage::ids::Sha256;

use super::store::{BlobStore, Place, Stat, StoreError};
use super::timed;
use crate::dispatcher::inserts::CopyStreams;
use crate::metrics::Metrics;

/// Copies between the places of one store. Calls block; the dispatcher makes them on its own blocking threads.
#[derive(Clone)]
pub struct Copier {
    store: Arc<dyn BlobStore>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Copier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Copier")
    }
}

impl Copier {
    /// Over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    /// Makes the blob of one place available at another as well; false when it is not there.
    ///
    /// # Durability
    /// Durable on `Ok(true)`.
    /// # Errors
    /// [`StoreError`]; unknown whether it is available.
    pub fn copy(&self, from: &Place, to: &Place, hash: &Sha256) -> Result<bool, StoreError> {
        timed(&self.metrics, "copy", || match find(self.store.as_ref(), from, hash)? {
            Some((place, _)) => self.store.copy(&place, to, hash),
            None => Ok(false),
        })
    }
}

impl CopyStreams for Copier {
    fn copy_stream(&self, label: &str, sha256: &str, from: &str, to: &str) -> Result<bool, String> {
        let hash = Sha256::parse(sha256).ok_or_else(|| "its sha256 is none".to_owned())?;
        let copied = self.copy(&Place::new(from, label), &Place::new(to, label), &hash);
        copied.map_err(|error| error.to_string())
    }
}

/// The place that has the blob: the one asked for, else the empty one. A blob without bytes counts as missing.
pub(super) fn find(store: &dyn BlobStore, place: &Place, hash: &Sha256) -> Result<Option<(Place, Stat)>, StoreError> {
    if let Some(stat) = store.stat(place, hash)?.filter(|stat| stat.size > 0) {
        return Ok(Some((place.clone(), stat)));
    }
    let anywhere = Place::default();
    let stat = store.stat(&anywhere, hash)?.filter(|stat| stat.size > 0);
    Ok(stat.map(|stat| {
        tracing::debug!(%place, %hash, "a blob was found through the fall-back to the empty place");
        (anywhere, stat)
    }))
}
