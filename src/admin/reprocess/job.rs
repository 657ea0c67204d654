//! Reprocessing inside a running server: one run at a time, its progress kept until the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{BeginError, Options, Progress, Request, Run, Stage};
use crate::broker::Broker;
use crate::metrics::Metrics;

/// Why no run was begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// One is under way.
    #[error("events are being reprocessed already, from prefix {0:?}")]
    Busy(String),
    /// It cannot begin.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// There is no thread for it.
    #[error("no thread could be started: {0}")]
    Thread(String),
}

/// The runs of one server.
#[derive(Debug)]
pub struct Jobs {
    broker: Broker,
    metrics: Arc<Metrics>,
    options: Options,
    last: Mutex<Option<Job>>,
}

#[derive(Debug)]
struct Job {
    run: Arc<Run>,
    worker: Option<JoinHandle<()>>,
}

impl Jobs {
    /// None yet.
    #[must_use]
    pub fn new(broker: Broker, metrics: Arc<Metrics>, options: Options) -> Self {
        Self { broker, metrics, options, last: Mutex::default() }
    }

    fn last(&self) -> MutexGuard<'_, Option<Job>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run on a thread of its own.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn begin(&self, request: Request) -> Result<Progress, JobError> {
        let mut last = self.last();
        if let Some(running) = last.as_ref().map(|job| job.run.progress()).filter(|run| run.stage == Stage::Running) {
            return Err(JobError::Busy(running.request.previous_prefix));
        }
        let run = Run::begin(self.broker.clone(), self.metrics.clone(), self.options.clone(), request)?;
        let worker = run.clone();
        let worker = std::thread::Builder::new()
            .name("azulite-reprocess".to_owned())
            .spawn(move || worker.work())
            .map_err(|error| JobError::Thread(error.to_string()))?;
        let progress = run.progress();
        *last = Some(Job { run, worker: Some(worker) });
        Ok(progress)
    }

    /// The run under way, or the last one; `None` when there was none since the start.
    pub fn progress(&self) -> Option<Progress> {
        self.last().as_ref().map(|job| job.run.progress())
    }

    /// Asks the run under way to end behind what it is just copying.
    pub fn stop(&self) -> Option<Progress> {
        let last = self.last();
        let Job { run, .. } = last.as_ref()?;
        run.stop();
        Some(run.progress())
    }

    /// Ends the run under way and waits for that. What it has copied is remembered.
    pub fn close(&self) {
        let worker = self.last().as_mut().and_then(|job| {
            job.run.stop();
            job.worker.take()
        });
        if let Some(worker) = worker {
            // How it ended is in its progress.
            worker.join().ok();
        }
    }
}
