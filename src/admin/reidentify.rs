//! Identifying everything stored anew inside a running server. What was asked for is kept until it is done, so that a
//! server that was stopped goes on with it when it runs again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use azulite_storage::index::IndexError;
use bytes::Bytes;

use super::slot::{BeginError, Slot, Work};
use crate::broker::{AppendError, Broker};
use crate::streams::Streams;
use crate::streams::reidentify::{Progress, Request, Run, Stage};

/// The name under which it is kept that a run is wanted.
const WANTED: &[u8] = b"reidentify";

/// Why no run was begun.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// One is under way.
    #[error("blobs are being identified anew already")]
    Busy,
    /// That it is wanted cannot be kept.
    #[error(transparent)]
    Keep(#[from] AppendError),
    /// There is no thread for it.
    #[error("no thread could be started: {0}")]
    Thread(#[source] std::io::Error),
}

impl Work for Run {
    const THREAD: &'static str = "azulite-reidentify";

    fn work(&self) {
        self.work();
    }

    fn stop(&self) {
        self.stop();
    }

    fn is_running(&self) -> bool {
        self.progress().stage == Stage::Running
    }
}

/// The runs of one server.
pub struct Reidentification {
    broker: Broker,
    streams: Arc<Streams>,
    slot: Slot<Run>,
    /// The server ends: what is stopped now is wanted still.
    closing: Arc<AtomicBool>,
}

impl Reidentification {
    /// None yet.
    #[must_use]
    pub fn new(broker: Broker, streams: Arc<Streams>) -> Self {
        Self { broker, streams, slot: Slot::default(), closing: Arc::default() }
    }

    /// Begins a run if the server was stopped during one. Call it inside the runtime.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn go_on(&self) -> Result<(), IndexError> {
        if self.broker.log().kv(WANTED)?.is_some() {
            match self.begin(Request::default()) {
                Ok(_) => tracing::info!("blobs are identified anew: the last run was interrupted"),
                Err(error) => tracing::error!(%error, "blobs are not identified anew, though that was asked for"),
            }
        }
        Ok(())
    }

    /// Begins a run on a thread of its own. Blocks on the log; call it inside the runtime.
    ///
    /// # Durability
    /// On `Ok` it goes on after a restart, unless it is a rehearsal.
    /// # Errors
    /// See [`JobError`].
    pub fn begin(&self, request: Request) -> Result<Progress, JobError> {
        let make = || -> Result<_, AppendError> {
            if !request.dry_run {
                self.broker.log().put_kv(vec![(WANTED.to_vec(), Some(Bytes::from_static(b"1")))])?;
            }
            Ok(Arc::new(Run::new(self.streams.as_ref().clone(), request)))
        };
        let (broker, closing) = (self.broker.clone(), self.closing.clone());
        let ended = move |run: &Run| {
            let cut_off = closing.load(Ordering::Acquire) || run.progress().stage == Stage::Failed;
            if !request.dry_run
                && !cut_off
                && let Err(error) = broker.log().put_kv(vec![(WANTED.to_vec(), None)])
            {
                tracing::warn!(%error, "blobs will be looked through once more after the next start");
            }
        };
        let run = match self.slot.begin(make, ended) {
            Ok(run) => run,
            Err(BeginError::Refused(error)) => return Err(error.into()),
            Err(BeginError::Busy(_)) => return Err(JobError::Busy),
            Err(BeginError::Thread(error)) => return Err(JobError::Thread(error)),
        };
        Ok(run.progress())
    }

    /// The run under way, or the last one; `None` when there was none since the start.
    pub fn progress(&self) -> Option<Progress> {
        self.slot.last().map(|run| run.progress())
    }

    /// Asks the run under way to end behind the blob it is at.
    pub fn stop(&self) -> Option<Progress> {
        let run = self.slot.last()?;
        run.stop();
        Some(run.progress())
    }

    /// Ends the run under way and waits for that; the next start goes on with it.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.slot.close();
    }
}

#[cfg(test)]
mod tests {
    use azulite_storage::fs::RealFs;
    use azulite_storage::{Options, Store};

    use super::*;
    use crate::metrics::Metrics;
    use crate::streams::memory::{MemoryStore, TestAnalyzer};
    use crate::streams::{self, BlobRecord, BlobStore, Place};

    struct World {
        _folder: tempfile::TempDir,
        store: Store,
        broker: Broker,
        analyzer: Arc<TestAnalyzer>,
        streams: Arc<Streams>,
    }

    impl World {
        /// With one blob of earlier rules, whose identification waits.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(Arc::new(RealFs), Options::new(folder.path().to_owned())).unwrap();
            let (blobs, analyzer) = (Arc::new(MemoryStore::default()), Arc::new(TestAnalyzer::default()));
            let place = Place::new("a", "content");
            let hash = blobs.put(place.clone(), b"WAIT for it");
            let record = BlobRecord { identify_version: 1, sha512: "known".to_owned(), ..BlobRecord::default() };
            assert!(blobs.redescribe(&place, &hash, &record).unwrap());
            let options = streams::Options::default();
            let streams = Streams::new(blobs, analyzer.clone(), Arc::new(Metrics::new()), options);
            let broker = Broker::new(Arc::new(store.clone()));
            Self { _folder: folder, store, broker, analyzer, streams: Arc::new(streams) }
        }

        fn jobs(&self) -> Reidentification {
            Reidentification::new(self.broker.clone(), self.streams.clone())
        }

        fn is_wanted(&self) -> bool {
            self.store.kv(WANTED).unwrap().is_some()
        }

        fn await_identifying(&self) {
            while self.analyzer.running.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_run_that_the_end_of_the_server_cuts_off_goes_on_with_the_next_start() {
        let world = World::new();
        let jobs = world.jobs();
        jobs.go_on().unwrap();
        assert!(jobs.progress().is_none(), "nobody asked for it");
        jobs.begin(Request::default()).unwrap();
        assert!(matches!(jobs.begin(Request::default()), Err(JobError::Busy)));
        world.await_identifying();
        assert!(world.is_wanted());
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| jobs.close());
            while !jobs.closing.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            world.analyzer.release();
            closing.join().unwrap();
        });
        assert!(world.is_wanted(), "it was not done when the server ended");

        let next = world.jobs();
        next.go_on().unwrap();
        assert!(next.progress().is_some());
        while next.progress().unwrap().stage == Stage::Running || world.is_wanted() {
            std::thread::yield_now();
        }
        assert_eq!(next.progress().unwrap().passed, 1);
        world.store.close();
    }

    #[test]
    fn a_rehearsal_is_not_gone_on_with_and_a_run_that_is_stopped_neither() {
        let world = World::new();
        let jobs = world.jobs();
        jobs.begin(Request { dry_run: true }).unwrap();
        world.await_identifying();
        assert!(!world.is_wanted());
        world.analyzer.release();
        while jobs.progress().unwrap().stage == Stage::Running {
            std::thread::yield_now();
        }
        jobs.begin(Request::default()).unwrap();
        jobs.stop().unwrap();
        while world.is_wanted() {
            std::thread::yield_now();
        }
        world.store.close();
    }
}
