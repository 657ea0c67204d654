//! What is known of one job: the item that every stage works on and that survives a restart (workers.md 3.4).
//!
//! Pure. A job is one event on one sandbox; it has one [`Task`] for each task the sandbox made of the file. File bytes and
//! tokens are never part of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Failed runs that are remembered with their texts.
const RUNS_MAX: usize = 12;
/// Tasks of one event that wait for their final status under one job.
const LEASES_MAX: usize = 8;

/// One event on its way through one sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    /// `kafka_key` of the event.
    pub(super) event: String,
    pub(super) sha256: String,
    pub(super) sandbox: String,
    /// Ids of the tasks of the dispatcher that wait for the final status, the newest last.
    pub(super) dequeued: Vec<String>,
    pub(super) leased_ms: i64,
    pub(super) submit: Submit,
    /// By id.
    pub(super) tasks: BTreeMap<u64, Task>,
    /// Failed runs, over all stages; the last ones.
    #[serde(default)]
    pub(super) runs: Vec<Run>,
    /// Set when all stages are over.
    #[serde(default)]
    pub(super) end: Option<End>,
}

/// The stage `submit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Submit {
    pub(super) state: SubmitState,
    #[serde(default)]
    pub(super) failures: u32,
    /// Not before.
    #[serde(default)]
    pub(super) next_ms: i64,
    /// How many submissions were begun; part of the mark that each carries.
    #[serde(default)]
    pub(super) begun: u32,
    /// When the sandbox did not list the last of them for the first time; 0 before.
    #[serde(default)]
    pub(super) missed_ms: i64,
}

/// How far a submission is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SubmitState {
    /// Nothing was sent.
    #[default]
    Waiting,
    /// The file was sent or is about to be: the sandbox may have a task of it. It is asked before anything is sent again.
    Begun,
    /// The tasks are known.
    Done,
}

/// One task of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) stage: Stage,
    /// Not before.
    #[serde(default)]
    pub(super) next_ms: i64,
    /// When this attempt at its stage began.
    #[serde(default)]
    pub(super) since_ms: i64,
    /// When the task was first seen to run, in this attempt.
    #[serde(default)]
    pub(super) running_ms: Option<i64>,
    /// The sandbox's word at the last look.
    #[serde(default)]
    pub(super) state: String,
    /// Failed runs of the stages `check` and `parse`.
    #[serde(default)]
    pub(super) check_failures: u32,
    #[serde(default)]
    pub(super) parse_failures: u32,
    /// It was there before: it is not deleted.
    #[serde(default)]
    pub(super) reused: bool,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    #[default]
    Check,
    /// Which of `parse_stages` comes next.
    Parse(usize),
    /// All stages are done.
    Done,
    /// Given up.
    Failed,
}

/// A run that failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) stage: String,
    pub(super) time_ms: i64,
    /// The status it would be on its own.
    pub(super) status: String,
    pub(super) error: String,
    /// What the sandbox last answered, its beginning.
    pub(super) answer: String,
}

/// How a job ended, until that is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum End {
    /// The final status is to be reported.
    Report,
    /// It was; tasks are to be deleted.
    Cleanup,
}

/// Why a run of a stage failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// `error-…`.
    pub(super) status: &'static str,
    pub(super) error: String,
    pub(super) answer: String,
}

impl Failure {
    pub(super) fn new(status: &'static str, error: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { status, error: error.into(), answer: answer.into() }
    }
}

/// When a failed run is made again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) now_ms: i64,
    pub(super) delay_ms: i64,
    /// Retries after the first run.
    pub(super) max: u32,
}

impl Retry {
    fn next_ms(&self) -> i64 {
        self.now_ms.saturating_add(self.delay_ms)
    }
}

impl Job {
    /// True while the file is to be submitted.
    pub(super) fn is_submitting(&self) -> bool {
        self.end.is_none() && self.submit.state != SubmitState::Done
    }

    /// What the submission at hand carries in its field `custom`.
    pub(super) fn mark(&self) -> String {
        format!("{}{}", self.marks(), self.submit.begun)
    }

    /// What the marks of all submissions of this job begin with.
    pub(super) fn marks(&self) -> String {
        format!("azulite:{}:{}:{}:", self.sandbox, self.event, self.leased_ms)
    }

    /// The job waits for the final status of one more task of the dispatcher. A redelivery takes the place of the others:
    /// their leases are lost.
    pub(super) fn adopt(&mut self, dequeued: &str, is_redelivery: bool) {
        if is_redelivery {
            self.dequeued.clear();
        }
        self.dequeued.retain(|known| known != dequeued);
        self.dequeued.push(dequeued.to_owned());
        if self.dequeued.len() > LEASES_MAX {
            self.dequeued.remove(0);
        }
    }

    /// The sandbox has these tasks of the file.
    pub(super) fn submitted(&mut self, ids: &[u64], reused: bool, now_ms: i64) {
        self.submit.state = SubmitState::Done;
        self.submit.failures = 0;
        let lost = |task: &Task| task.stage == Stage::Failed && task.state == LOST;
        let failures = self.tasks.values().filter(|task| lost(task)).map(|task| task.check_failures).max();
        self.tasks.retain(|_, task| !lost(task));
        for id in ids {
            let check_failures = failures.unwrap_or(0);
            let task = Task { since_ms: now_ms, reused, check_failures, ..Task::default() };
            self.tasks.entry(*id).or_insert(task);
        }
    }

    /// A run of the stage `submit` failed; true when it was the last.
    pub(super) fn submit_failed(&mut self, failure: &Failure, retry: &Retry) -> bool {
        self.note("submit", failure, retry.now_ms);
        self.submit.failures = self.submit.failures.saturating_add(1);
        self.submit.next_ms = retry.next_ms();
        let over = self.submit.failures > retry.max;
        if over {
            self.submit.state = SubmitState::Done;
        }
        self.settle();
        over
    }

    /// A run of the stage at which a task is failed; true when it was the last.
    pub(super) fn task_failed(&mut self, id: u64, failure: &Failure, retry: &Retry) -> bool {
        let Some(task) = self.tasks.get_mut(&id) else { return false };
        let (stage, failures) = match task.stage {
            Stage::Check | Stage::Failed => ("check", &mut task.check_failures),
            Stage::Parse(_) | Stage::Done => ("parse", &mut task.parse_failures),
        };
        *failures = failures.saturating_add(1);
        let over = *failures > retry.max;
        if over {
            task.stage = Stage::Failed;
        }
        task.next_ms = retry.next_ms();
        task.since_ms = retry.next_ms();
        task.running_ms = None;
        self.note(stage, failure, retry.now_ms);
        self.settle();
        over
    }

    /// The sandbox does not know a task any more: back to `submit`, which counts as an attempt.
    pub(super) fn task_lost(&mut self, id: u64, failure: &Failure, retry: &Retry) -> bool {
        let over = self.task_failed(id, failure, retry);
        if let Some(task) = self.tasks.get_mut(&id).filter(|_| !over) {
            task.stage = Stage::Failed;
            task.state = LOST.to_owned();
            self.submit.state = SubmitState::Waiting;
            self.submit.next_ms = retry.next_ms();
            self.end = None;
        }
        over
    }

    /// A task was seen in a state.
    pub(super) fn seen(&mut self, id: u64, state: &str, now_ms: i64) {
        if let Some(task) = self.tasks.get_mut(&id) {
            state.clone_into(&mut task.state);
            if state != "pending" && task.running_ms.is_none() {
                task.running_ms = Some(now_ms);
            }
        }
    }

    /// A task goes to a stage.
    pub(super) fn advance(&mut self, id: u64, stage: Stage, next_ms: i64) {
        if let Some(task) = self.tasks.get_mut(&id) {
            (task.stage, task.next_ms) = (stage, next_ms);
            task.check_failures = 0;
            task.parse_failures = 0;
        }
        self.settle();
    }

    /// The job is over when nothing of it is under way.
    fn settle(&mut self) {
        let over = |task: &Task| matches!(task.stage, Stage::Done | Stage::Failed);
        if self.end.is_none() && self.submit.state == SubmitState::Done && self.tasks.values().all(over) {
            self.end = Some(End::Report);
        }
    }

    fn note(&mut self, stage: &str, failure: &Failure, time_ms: i64) {
        let Failure { status, error, answer } = failure;
        let (status, error, answer) = ((*status).to_owned(), error.clone(), answer.clone());
        self.runs.push(Run { stage: stage.to_owned(), time_ms, status, error, answer });
        if self.runs.len() > RUNS_MAX {
            self.runs.remove(0);
        }
    }

    /// True when a task of it is done.
    pub(super) fn has_results(&self) -> bool {
        self.tasks.values().any(|task| task.stage == Stage::Done)
    }

    /// Tasks the sandbox made for this job and may forget.
    pub(super) fn own_tasks(&self) -> Vec<u64> {
        let own = self.tasks.iter().filter(|(_, task)| !task.reused && task.stage == Stage::Done);
        own.map(|(id, _)| *id).collect()
    }
}

/// State of a task that new ones stand for.
const LOST: &str = "(lost)";

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job { event: "k".to_owned(), sandbox: "box".to_owned(), dequeued: vec!["k.1".to_owned()], ..Job::default() }
    }

    const RETRY: Retry = Retry { now_ms: 1000, delay_ms: 60, max: 3 };

    fn failure() -> Failure {
        Failure::new("error-exception", "failed_analysis", "{}")
    }

    #[test]
    fn a_task_that_fails_one_time_more_than_it_has_retries_is_given_up() {
        let mut job = job();
        job.submitted(&[7], false, 0);
        let over: Vec<bool> = (0..4).map(|_| job.task_failed(7, &failure(), &RETRY)).collect();
        assert_eq!(over, [false, false, false, true]);
        assert_eq!((job.end, job.runs.len(), job.tasks[&7].next_ms), (Some(End::Report), 4, 1060));
        assert!(!job.has_results());
    }

    #[test]
    fn a_lost_task_goes_back_to_submit_and_its_failures_count_on() {
        let mut job = job();
        job.submit.begun = 1;
        for (number, id) in [5, 6, 7, 8].into_iter().enumerate() {
            job.submitted(&[id], false, 0);
            assert_eq!(job.tasks.len(), 1, "the lost one is gone");
            let over = job.task_lost(id, &failure(), &RETRY);
            assert_eq!((over, job.is_submitting()), (number == 3, number < 3), "{number}");
        }
        assert_eq!(job.end, Some(End::Report));
    }

    #[test]
    fn success_of_a_stage_resets_its_failures() {
        let mut job = job();
        job.submitted(&[7], false, 0);
        job.task_failed(7, &failure(), &RETRY);
        job.advance(7, Stage::Parse(0), 5);
        assert!((0..3).all(|_| !job.task_failed(7, &failure(), &RETRY)));
        job.advance(7, Stage::Done, 0);
        assert_eq!((job.end, job.has_results(), job.own_tasks()), (Some(End::Report), true, vec![7]));
    }

    #[test]
    fn a_job_with_several_tasks_is_over_with_the_last() {
        let mut job = job();
        job.submitted(&[7, 8], false, 0);
        job.advance(7, Stage::Done, 0);
        assert_eq!(job.end, None);
        for _ in 0..4 {
            job.task_failed(8, &failure(), &RETRY);
        }
        assert_eq!((job.end, job.has_results()), (Some(End::Report), true));
    }

    #[test]
    fn tasks_that_were_there_before_are_not_ours_to_delete() {
        let mut job = job();
        job.submitted(&[7], true, 0);
        job.advance(7, Stage::Done, 0);
        assert_eq!(job.own_tasks(), [0; 0]);
    }

    #[test]
    fn a_redelivery_takes_the_place_of_lost_leases_and_others_stand_beside_them() {
        let mut job = job();
        job.adopt("k.2", false);
        assert_eq!(job.dequeued, ["k.1", "k.2"]);
        job.adopt("k.3", true);
        assert_eq!(job.dequeued, ["k.3"]);
        (0..20).for_each(|number| job.adopt(&format!("k.{number}"), false));
        assert_eq!(job.dequeued.len(), LEASES_MAX);
    }

    #[test]
    fn every_submission_has_a_mark_of_its_own() {
        let mut job = job();
        let first = job.mark();
        job.submit.begun += 1;
        assert_ne!(first, job.mark());
        assert_eq!(job.mark(), "azulite:box:k:0:1");
    }

    #[test]
    fn runs_that_are_remembered_are_bounded() {
        let mut job = job();
        let endless = Retry { max: u32::MAX, ..RETRY };
        (0..100).for_each(|_| assert!(!job.submit_failed(&failure(), &endless)));
        assert_eq!((job.runs.len(), job.submit.failures), (RUNS_MAX, 100));
    }
}
