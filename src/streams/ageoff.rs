//! Blobs leave when their source's events have: names that outlived `expire_events_after`, and with the last name the
//! bytes (streams.md 5.6).
//!
//! Called by `serve`, once at the beginning and then every hour, if `streams.automatic_ageoff` is on. A blob's age counts
//! from its last upload or copy under that name, and it stays a day longer than its events, as upstream's bucket rules
//! have it. Sources that never expire keep theirs. Nothing leaves while the clock is not trusted.

use std::collections::BTreeMap;
use std::sync::Arc;

use azulite_storage::blob::BlobError;
use azulite_storage::{Store, blobs};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// A blob outlives its events by this long.
const GRACE_MS: i64 = 86_400_000;

/// What removes old names of blobs; cheap to clone.
#[derive(Clone)]
pub struct AgeOff {
    store: Store,
    /// By source, after how many milliseconds.
    limits: Arc<BTreeMap<String, i64>>,
    metrics: Arc<Metrics>,
}

impl AgeOff {
    /// For sources with the milliseconds after which their events expire.
    pub fn new(store: Store, expiries: impl IntoIterator<Item = (String, i64)>, metrics: Arc<Metrics>) -> Self {
        let limits = expiries.into_iter().map(|(source, expiry)| (source, expiry.saturating_add(GRACE_MS)));
        Self { store, limits: Arc::new(limits.collect()), metrics }
    }

    /// Goes through all names once and tells how many it removed. Blocking: about a second for 300,000 names, and a
    /// commit for each that leaves. Ends early when `stop` says so.
    ///
    /// # Errors
    /// [`BlobError`]; what is left then is the next pass's.
    pub fn pass(&self, stop: &CancellationToken) -> Result<u64, BlobError> {
        let mut removed = 0;
        let Some(now_ms) = self.store.trusted_now_ms()?.filter(|_| !self.limits.is_empty()) else { return Ok(0) };
        for found in self.store.blobs() {
            if stop.is_cancelled() {
                break;
            }
            let (key, record) = found?;
            let Some(limit) = self.limits.get(&key.source) else { continue };
            let oldest = now_ms.saturating_sub(*limit);
            if record.stored_ms >= oldest {
                continue;
            }
            // The store looks at the time again, should the blob have been uploaded anew meanwhile.
            if self.store.delete_blob(&key, Some(oldest.div_euclid(1000)))? == blobs::Deleted::Removed {
                self.metrics.blobs_aged_off.add([&key.source], 1);
                tracing::debug!(source = key.source, label = key.label, hash = %key.hash, "a blob was aged off");
                removed += 1;
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use azulite_storage::fs::RealFs;
    use azulite_storage::state::BlobRefKey;
    use azulite_storage::{Options, Sha256};
    use sha2::Digest;

    use super::*;

    const DAY_MS: i64 = 86_400_000;
    /// The wall clock of this test's store.
    static CLOCK: AtomicI64 = AtomicI64::new(1_700_000_000_000);

    fn put(store: &Store, source: &str, bytes: &[u8]) -> BlobRefKey {
        let hash = Sha256(sha2::Sha256::digest(bytes).into());
        let key = BlobRefKey { hash, source: source.into(), label: "content".into() };
        let mut staged = store.stage().unwrap();
        staged.write(bytes).unwrap();
        store.publish(staged, &key, Vec::new()).unwrap();
        key
    }

    #[test]
    fn a_name_leaves_a_day_after_its_events_and_the_bytes_with_the_last_name() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(|| CLOCK.load(Ordering::Relaxed));
        let options = Options { clock, ..Options::new(folder.path().to_owned()) };
        let store = Store::open(Arc::new(RealFs), options).unwrap();
        let metrics = Arc::new(Metrics::new());
        let expiries = [("short".to_owned(), 2 * DAY_MS), ("long".to_owned(), 9 * DAY_MS)];
        let aging = AgeOff::new(store.clone(), expiries, metrics.clone());
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        stopped.cancel();
        let alone = put(&store, "short", b"only here");
        let shared = put(&store, "short", b"in two sources");
        let other = put(&store, "long", b"in two sources");
        let renewed = put(&store, "short", b"uploaded again");
        let kept = put(&store, "elsewhere", b"never expires");
        let there = |key: &BlobRefKey| store.blob(key).unwrap().is_some();

        // The clock guard takes steps of less than a day for granted.
        let advance = |days: i64| {
            for _ in 0..days * 2 {
                CLOCK.fetch_add(DAY_MS / 2, Ordering::Relaxed);
                store.trusted_now_ms().unwrap();
            }
        };
        advance(3);
        assert_eq!(aging.pass(&stop).unwrap(), 0, "three days are not more than three");
        put(&store, "short", b"uploaded again");
        CLOCK.fetch_add(2000, Ordering::Relaxed);
        assert_eq!(aging.pass(&stopped).unwrap(), 0);
        assert_eq!(aging.pass(&stop).unwrap(), 2);
        assert_eq!((there(&alone), there(&shared)), (false, false));
        assert!(there(&other) && there(&renewed) && there(&kept));
        assert!(store.open_blob(other.hash, &store.blob(&other).unwrap().unwrap()).is_ok(), "one name is left");
        assert_eq!(metrics.blobs_aged_off.at(["short"]).get(), 2);

        advance(8);
        assert_eq!(aging.pass(&stop).unwrap(), 2);
        assert!(store.blob_names(other.hash).unwrap().is_empty());
        assert!(there(&kept));

        CLOCK.fetch_add(100 * DAY_MS, Ordering::Relaxed);
        put(&store, "short", b"before the jump is seen");
        assert_eq!(aging.pass(&stop).unwrap(), 0, "a clock that jumps ages nothing off");
    }
}
