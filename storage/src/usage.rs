//! What a store takes on its disk and how long its syncs last, for whoever watches it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::fs::{Fs, Room};
use crate::store::{Core, Store};

/// Called with the time that a sync took.
pub(crate) type SyncListener = Box<dyn Fn(Duration) + Send + Sync>;

/// Bytes on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Files of the log, with the segments that are prepared and hold nothing yet.
    pub log: u64,
    /// Files of the index.
    pub index: u64,
    /// Files of the blob catalogue.
    pub catalogue: u64,
    /// Of the file system that holds the log. Blobs that have files of their own show only here: there may be millions.
    pub room: Room,
}

impl Store {
    /// Looks at the files; there are hundreds at most.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn usage(&self) -> io::Result<Usage> {
        let Core { fs, options, .. } = self.core.as_ref();
        let folder = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| options.root.join(name));
        Ok(Usage {
            log: bytes_below(fs.as_ref(), &options.root.join("log"))?,
            index: bytes_below(fs.as_ref(), &folder(&options.index_dir, "index"))?,
            catalogue: bytes_below(fs.as_ref(), &folder(&options.catalogue_dir, "catalogue"))?,
            room: fs.room(&options.root)?,
        })
    }

    /// Has `listener` called after every sync of the log, on the committer thread. Once only.
    pub fn on_sync(&self, listener: impl Fn(Duration) + Send + Sync + 'static) {
        let first = self.core.sync_listener.set(Box::new(listener)).is_ok();
        assert!(first, "on_sync is called once");
    }
}

impl Core {
    /// Makes a file of the log durable, and says how long that took.
    pub(crate) fn timed_sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let started = Instant::now();
        let outcome = sync();
        if let Some(listener) = self.sync_listener.get() {
            listener(started.elapsed());
        }
        outcome
    }
}

/// Lengths of all files below a folder. What goes while it looks counts nothing.
fn bytes_below(fs: &dyn Fs, folder: &Path) -> io::Result<u64> {
    let entries = match fs.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        let path = folder.join(&entry.name);
        bytes += match entry.is_dir {
            true => bytes_below(fs, &path)?,
            false => fs.meta(&path)?.map_or(0, |meta| meta.len),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::fs::RealFs;
    use crate::{Append, BatchBuilder, Lane, NewTopic, Options};

    #[test]
    fn usage_grows_with_what_is_stored_and_every_sync_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { segment_bytes: 1 << 20, ..Options::new(folder.path().to_owned()) };
        let store = Store::open(Arc::new(RealFs), options).unwrap();
        let syncs = Arc::new(AtomicU64::new(0));
        let counted = syncs.clone();
        store.on_sync(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let before = store.usage().unwrap();
        assert!(before.index > 0 && before.room.total > before.room.free, "{before:?}");
        let new = NewTopic { name: "t".to_owned(), partitions: 1, config: BTreeMap::new() };
        let topic = store.create_topic(new).unwrap();
        let told = syncs.load(Ordering::Relaxed);
        for n in 1..=5 {
            let mut batch = BatchBuilder::default();
            batch.push(1, None, Some(&vec![7; 700 << 10]));
            let appends = vec![Append { partition: topic.partitions[0].clone(), batch: batch.build().unwrap() }];
            store.append_wait(Lane(1), appends).unwrap();
            assert!(syncs.load(Ordering::Relaxed) >= told + n, "each commit is synced");
        }
        let after = store.usage().unwrap();
        assert!(after.log >= before.log + ((4 * 700) << 10), "{before:?} {after:?}");
    }
}
