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
        if let Some((cache, file)) = self.duplicates.as_ref().zip(self.duplicates_file.as_ref())
            && cache.take_changed()
        {
            report("duplicate filter", file.write(|out| cache.save(out)));
        }
        if let Some((cache, file)) = self.replay.as_ref().zip(self.replay_file.as_ref())
            && cache.take_changed()
        {
            report("plugin completions", file.write(|out| cache.save(out)));
        }
    }
}

fn report(cache: &'static str, saved: std::io::Result<()>) {
    if let Err(error) = saved {
        tracing::warn!(cache, %error, "a cache could not be saved; after a restart it has what was saved before");
    }
}
