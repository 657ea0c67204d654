//! Syncs of several directories, shared out among the threads that wait for them.
//!
//! Called by [`crate::publish`]. File systems and disks make one flush of syncs that come together, so many at once take
//! little longer than one; threads that would only wait are there already.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::fs::Fs;

/// Directories whose names are being made durable, each by one sync that began after this was made.
#[derive(Debug)]
pub(crate) struct DirSyncs {
    fs: Arc<dyn Fs>,
    paths: Vec<PathBuf>,
    next: AtomicUsize,
    done: Mutex<Done>,
    all: Condvar,
}

#[derive(Debug, Default)]
struct Done {
    count: usize,
    failed: BTreeMap<PathBuf, io::Error>,
}

impl DirSyncs {
    pub(crate) fn new(fs: Arc<dyn Fs>, paths: Vec<PathBuf>) -> Self {
        Self { fs, paths, next: AtomicUsize::new(0), done: Mutex::default(), all: Condvar::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Syncs directories that nobody has begun with, until there are none.
    pub(crate) fn help(&self) {
        while let Some(path) = self.paths.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = self.fs.sync_dir(path);
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.count += 1;
            done.failed.extend(outcome.err().map(|error| (path.clone(), error)));
            if done.count == self.paths.len() {
                self.all.notify_all();
            }
        }
    }

    /// Helps, waits for the others, and tells which syncs failed.
    pub(crate) fn finish(&self) -> BTreeMap<PathBuf, io::Error> {
        self.help();
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |done: &mut Done| done.count < self.paths.len();
        let mut done = self.all.wait_while(done, wait).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut done.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealFs;

    #[test]
    fn every_directory_is_synced_by_somebody_and_failures_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut paths: Vec<PathBuf> = (0..50).map(|number| folder.path().join(number.to_string())).collect();
        paths.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        let missing = folder.path().join("missing");
        paths.insert(20, missing.clone());
        let syncs = DirSyncs::new(Arc::new(RealFs), paths);
        let failed = std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(|| syncs.help())));
            syncs.finish()
        });
        assert_eq!(failed.keys().collect::<Vec<_>>(), [&missing]);
        assert!(DirSyncs::new(Arc::new(RealFs), Vec::new()).finish().is_empty());
    }
}
