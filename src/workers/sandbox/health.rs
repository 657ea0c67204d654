//! Whether the sandbox is there, and what the stages have done: for the stages themselves and for the overseer.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::job::Failure;
use crate::metrics::Metrics;
use crate::workers::overseer::{Counts, LastError};
use crate::workers::{StageView, Status};

/// The stages that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Submit,
    Check,
    Parse,
    Finish,
}

impl Counted {
    pub(super) const ALL: [Self; 4] = [Self::Submit, Self::Check, Self::Parse, Self::Finish];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Check => "check",
            Self::Parse => "parse",
            Self::Finish => "finish",
        }
    }
}

/// Shared by all stages of one sandbox.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: Mutex<State>,
    submit: StageCounts,
    check: StageCounts,
    parse: StageCounts,
    finish: StageCounts,
    /// How metrics call the worker.
    name: String,
    metrics: Arc<Metrics>,
}

/// One stage, which has one thread.
#[derive(Debug, Default)]
struct StageCounts {
    counts: Counts,
    /// When the run under way began, milliseconds since 1970.
    begun_ms: AtomicI64,
}

impl StageCounts {
    fn took_ms(&self, now_ms: i64) -> Option<i64> {
        let begun_ms = self.begun_ms.load(Ordering::Relaxed);
        (begun_ms > 0).then(|| now_ms.saturating_sub(begun_ms))
    }
}

#[derive(Debug, Default)]
struct State {
    /// Why the sandbox cannot be used, and since when.
    down: Option<(String, i64)>,
    /// Why nothing is submitted though the sandbox is there.
    full: Option<String>,
}

impl Health {
    /// Of the worker of this name.
    pub(super) fn new(name: &str, metrics: Arc<Metrics>) -> Self {
        Self { name: name.to_owned(), metrics, ..Self::default() }
    }

    /// A final status of a job is stored.
    pub(super) fn job_ended(&self, status: &str, runtime_s: f64) {
        self.metrics.worker_jobs.inc([&self.name, status]);
        let runtime = Duration::try_from_secs_f64(runtime_s).unwrap_or_default();
        self.metrics.worker_job_time.observe([&self.name], runtime);
    }

    /// Why the sandbox is down.
    pub(super) fn down(&self) -> Option<String> {
        self.lock().down.as_ref().map(|(reason, _)| reason.clone())
    }

    /// The sandbox cannot be used; true when that is news.
    pub(super) fn set_down(&self, reason: &str, now_ms: i64) -> bool {
        let mut state = self.lock();
        let is_news = state.down.is_none();
        let since = state.down.as_ref().map_or(now_ms, |(_, since)| *since);
        state.down = Some((reason.to_owned(), since));
        is_news
    }

    /// The sandbox can be used; since when it could not, when that is news.
    pub(super) fn set_up(&self) -> Option<i64> {
        self.lock().down.take().map(|(_, since)| since)
    }

    /// Why nothing is submitted, or that it is.
    pub(super) fn set_full(&self, reason: Option<String>) {
        self.lock().full = reason;
    }

    /// See [`Health::set_full`].
    pub(super) fn full(&self) -> Option<String> {
        self.lock().full.clone()
    }

    /// A run of a stage begins.
    pub(super) fn begun(&self, stage: Counted, now_ms: i64, is_retry: bool) {
        let stage = self.counts(stage);
        stage.begun_ms.store(now_ms, Ordering::Relaxed);
        stage.counts.begun(now_ms, is_retry);
    }

    /// A run of a stage ended well.
    pub(super) fn done(&self, stage: Counted, now_ms: i64) {
        let stage = self.counts(stage);
        stage.counts.ended(now_ms, Status::Completed, stage.took_ms(now_ms));
    }

    /// A run of a stage failed.
    pub(super) fn failed(&self, stage: Counted, failure: &Failure, sha256: &str, time_ms: i64) {
        let status = Status::ALL.into_iter().find(|status| status.as_str() == failure.status);
        let status = status.unwrap_or(Status::ErrorException);
        let stage = self.counts(stage);
        stage.counts.ended(time_ms, status, stage.took_ms(time_ms));
        stage.counts.failed(LastError {
            time_ms,
            status: status.as_str().to_owned(),
            error: failure.error.clone(),
            message: failure.answer.clone(),
            sha256: sha256.to_owned(),
        });
    }

    /// What a stage has done.
    pub(super) fn view(&self, stage: Counted, now_ms: i64, in_flight: u64, slots: u64) -> StageView {
        self.counts(stage).counts.view(stage.as_str(), now_ms, in_flight, slots)
    }

    const fn counts(&self, stage: Counted) -> &StageCounts {
        match stage {
            Counted::Submit => &self.submit,
            Counted::Check => &self.check,
            Counted::Parse => &self.parse,
            Counted::Finish => &self.finish,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_is_news_once_and_keeps_its_beginning() {
        let health = Health::default();
        assert!(health.set_down("a", 5));
        assert!(!health.set_down("b", 9));
        assert_eq!((health.down(), health.set_up(), health.set_up()), (Some("b".to_owned()), Some(5), None));
    }

    #[test]
    fn stages_are_counted_on_their_own() {
        let health = Health::default();
        (0..6).for_each(|_| health.done(Counted::Parse, 1000));
        let failure = Failure::new("error-timeout", "pending", "answer");
        health.failed(Counted::Parse, &failure, "hash", 7);
        let view = health.view(Counted::Parse, 1000, 1, 10);
        assert_eq!((view.ended["completed"], view.ended["error-timeout"]), (6, 1));
        assert_eq!(view.last_error.unwrap().error, "pending");
        assert!(health.view(Counted::Submit, 1000, 0, 1).ended.is_empty());
    }
}
