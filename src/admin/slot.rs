//! Long work inside a running server: one run of a kind at a time, on a thread of its own, kept until the next one.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Something that takes long.
pub(super) trait Work: Send + Sync + 'static {
    /// Name of its thread.
    const THREAD: &'static str;

    /// Works until the end, or until it was asked to stop.
    fn work(&self);

    /// Asks it to stop.
    fn stop(&self);

    /// True until `work` has returned.
    fn is_running(&self) -> bool;
}

/// Why no run was begun.
#[derive(Debug)]
pub(super) enum BeginError<R, E> {
    /// This one is under way.
    Busy(Arc<R>),
    /// It cannot begin.
    Refused(E),
    /// There is no thread for it.
    Thread(io::Error),
}

/// The runs of one kind.
#[derive(Debug)]
pub(super) struct Slot<R>(Mutex<Option<Last<R>>>);

#[derive(Debug)]
struct Last<R> {
    run: Arc<R>,
    worker: Option<JoinHandle<()>>,
}

impl<R> Default for Slot<R> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<R: Work> Slot<R> {
    fn lock(&self) -> MutexGuard<'_, Option<Last<R>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a run and lets it work, unless one is under way; `ended` is called behind it.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub(super) fn begin<E>(
        &self,
        make: impl FnOnce() -> Result<Arc<R>, E>,
        ended: impl FnOnce(&R) + Send + 'static,
    ) -> Result<Arc<R>, BeginError<R, E>> {
        let mut last = self.lock();
        if let Some(running) = last.as_ref().filter(|last| last.run.is_running()) {
            return Err(BeginError::Busy(running.run.clone()));
        }
        // What follows its end is over before the next one begins.
        if let Some(worker) = last.as_mut().and_then(|last| last.worker.take()) {
            worker.join().ok();
        }
        let run = make().map_err(BeginError::Refused)?;
        let working = run.clone();
        let work = move || {
            working.work();
            ended(&working);
        };
        let worker = std::thread::Builder::new().name(R::THREAD.to_owned()).spawn(work).map_err(BeginError::Thread)?;
        *last = Some(Last { run: run.clone(), worker: Some(worker) });
        Ok(run)
    }

    /// The run under way, or the last one; `None` when there was none since the start.
    pub(super) fn last(&self) -> Option<Arc<R>> {
        self.lock().as_ref().map(|last| last.run.clone())
    }

    /// Ends the run under way and waits for that.
    pub(super) fn close(&self) {
        let worker = self.lock().as_mut().and_then(|last| {
            last.run.stop();
            last.worker.take()
        });
        if let Some(worker) = worker {
            // How it ended is in its progress.
            worker.join().ok();
        }
    }
}
