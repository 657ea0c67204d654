//! Reprocessing inside a running server.

use std::sync::Arc;

use super::super::slot::{self, Slot, Work};
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

impl Work for Run {
    const THREAD: &'static str = "azulite-reprocess";

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
#[derive(Debug)]
pub struct Jobs {
    broker: Broker,
    metrics: Arc<Metrics>,
    options: Options,
    slot: Slot<Run>,
}

impl Jobs {
    /// None yet.
    #[must_use]
    pub fn new(broker: Broker, metrics: Arc<Metrics>, options: Options) -> Self {
        Self { broker, metrics, options, slot: Slot::default() }
    }

    /// Begins a run on a thread of its own.
    ///
    /// # Errors
    /// See [`JobError`].
    pub fn begin(&self, request: Request) -> Result<Progress, JobError> {
        let make = || Run::begin(self.broker.clone(), self.metrics.clone(), self.options.clone(), request);
        match self.slot.begin(make, |_| {}) {
            Ok(run) => Ok(run.progress()),
            Err(slot::BeginError::Busy(run)) => Err(JobError::Busy(run.progress().request.previous_prefix)),
            Err(slot::BeginError::Refused(error)) => Err(error.into()),
            Err(slot::BeginError::Thread(error)) => Err(JobError::Thread(error.to_string())),
        }
    }

    /// The run under way, or the last one; `None` when there was none since the start.
    pub fn progress(&self) -> Option<Progress> {
        self.slot.last().map(|run| run.progress())
    }

    /// Asks the run under way to end behind what it is just copying.
    pub fn stop(&self) -> Option<Progress> {
        let run = self.slot.last()?;
        run.stop();
        Some(run.progress())
    }

    /// Ends the run under way and waits for that. What it has copied is remembered.
    pub fn close(&self) {
        self.slot.close();
    }
}
