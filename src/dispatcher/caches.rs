//! The dispatcher's caches and the files they survive a restart in; each only saves work, and is off by default.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use azulite_storage::fs::RealFs;

use super::filter::duplicates::Duplicates;
use super::replay::{self, ReplayCache};
use super::snapshot::SnapshotFile;

/// Which caches there are.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `events.dedupe_cache_bytes`; 0 switches the duplicate filter off.
    pub dedupe_bytes: u64,
    /// `events.replay_plugin_cache`.
    pub replay: replay::Options,
    /// Where they are saved; they are not without it.
    pub folder: Option<PathBuf>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Caches {
    /// What consumers have been handed.
    pub duplicates: Option<Duplicates>,
    /// What plugins made of what they were handed.
    pub replay: Option<ReplayCache>,
    duplicates_file: Option<SnapshotFile>,
    replay_file: Option<SnapshotFile>,
    /// One at a time writes.
    saving: Mutex<()>,
}

impl Caches {
    /// The caches as they were saved last, empty ones where nothing can be read back. Blocks.
    pub fn open(options: &Options) -> Self {
        let file = |name: &str, kind: &[u8; 8]| {
            let folder = options.folder.as_ref()?;
            Some(SnapshotFile::new(Arc::new(RealFs), folder.join(name), *kind, 1))
        };
        let duplicates_file = file("duplicates", b"azl-seen").filter(|_| options.dedupe_bytes > 0);
        let replay_file = file("completions", b"azl-runs").filter(|_| options.replay.size_bytes > 0);
        let duplicates = (options.dedupe_bytes > 0).then(|| {
            let duplicates = Duplicates::new(options.dedupe_bytes);
            let restored = duplicates_file.as_ref().and_then(|file| file.restore(|from| duplicates.load(from)));
            if restored.is_none() {
                duplicates.clear();
            }
            duplicates
        });
        let replay = (options.replay.size_bytes > 0).then(|| {
            let restored = replay_file.as_ref().and_then(|file| {
                file.restore(|from| {
                    let cache = ReplayCache::new(options.replay);
                    cache.load(from).map(|()| cache)
                })
            });
            restored.unwrap_or_else(|| ReplayCache::new(options.replay))
        });
        Self { duplicates, replay, duplicates_file, replay_file, saving: Mutex::default() }
    }

    /// Saves what has changed since the last time. Blocks; a failure is logged, and costs nothing but work later on.
    pub fn save(&self) {
        let _one = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked before it is written: what changes meanwhile is saved the next time.
        if let Some((cache, file)) = self.duplicates.as_ref().zip(self.duplicates_file.as_ref())
            && cache.take_changed()
            && !is_saved("duplicate filter", file.write(|out| cache.save(out)))
        {
            cache.still_changed();
        }
        if let Some((cache, file)) = self.replay.as_ref().zip(self.replay_file.as_ref())
            && cache.take_changed()
            && !is_saved("plugin completions", file.write(|out| cache.save(out)))
        {
            cache.still_changed();
        }
    }
}

fn is_saved(cache: &'static str, saved: std::io::Result<()>) -> bool {
    if let Err(error) = &saved {
        tracing::warn!(cache, %error, "a cache could not be saved; it will be tried again");
    }
    saved.is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::filter::duplicates;
    use super::super::model::{BinaryEvent, Event, StatusEvent};
    use super::super::params::{GetParams, Limits};
    use super::*;
    use crate::broker::Rewind;
    use crate::metrics::Metrics;

    fn options(folder: &std::path::Path) -> Options {
        let replay = replay::Options { size_bytes: 1 << 20, ..replay::Options::default() };
        Options { dedupe_bytes: 1 << 12, replay, folder: Some(folder.join("caches")) }
    }

    fn params() -> GetParams {
        let query = [("r-live", "true"), ("name", "p"), ("version", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        GetParams::parse("binary", &query, &Limits { fetch_limit: 10, default_wait_secs: 0 }).unwrap()
    }

    fn completion() -> Event {
        let mut status = StatusEvent::default();
        (status.author.name, status.author.version) = ("p".into(), "1".into());
        (status.entity.status, status.entity.runtime) = ("completed".into(), 60.0);
        (status.entity.input.entity.sha256, status.entity.input.kafka_key) = ("a".repeat(64), "k".into());
        status.entity.input.dequeued = "k.p.1.5".into();
        Event::Status(Box::new(status))
    }

    #[test]
    fn what_could_not_be_saved_is_saved_by_the_next_try() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path());
        let caches = Caches::open(&options);
        let event = Event::Binary(Box::new(BinaryEvent { kafka_key: "k".into(), ..BinaryEvent::default() }));
        let (consumer, duplicates) = (params(), caches.duplicates.as_ref().unwrap());
        let marks: Vec<_> = duplicates::marks((&consumer, Rewind::default()), [&event]).collect();
        duplicates.seen(&marks, &Metrics::new());
        let replay = caches.replay.as_ref().unwrap();
        replay.put(replay.worth(&completion()).unwrap(), 0);

        std::fs::write(folder.path().join("caches"), "a file where the folder has to be").unwrap();
        caches.save();
        std::fs::remove_file(folder.path().join("caches")).unwrap();
        caches.save();
        let restored = Caches::open(&options);
        let (metrics, none) = (Metrics::new(), std::collections::HashSet::new());
        let asking = duplicates::Asking::new(
            restored.duplicates.as_ref().unwrap(),
            &metrics,
            (&consumer, Rewind::default()),
            &none,
        );
        assert_eq!(asking.unwrap().check(&event), Some("skipped"));
        assert!(restored.replay.unwrap().find(&"a".repeat(64), "p", "1", 0).is_some());

        std::fs::remove_dir_all(folder.path().join("caches")).unwrap();
        caches.save();
        assert!(!folder.path().join("caches").exists(), "nothing has changed since");
    }
}
