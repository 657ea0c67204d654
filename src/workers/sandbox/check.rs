//! The stage `check`: one task after the other is asked for its state.

use std::time::Duration;

use azulite_storage::clock::now_ms;

use super::api::ApiError;
use super::health::Counted;
use super::job::{Failure, Stage, Task};
use super::options::Options;
use super::worker::{Shared, Verdict};

/// The longest wait between two looks at what is due.
const LOOK: Duration = Duration::from_millis(500);

/// Runs until the stop.
pub(super) fn run(shared: &Shared) {
    let mut last = (String::new(), 0);
    loop {
        let seen = shared.stop.nudges();
        if shared.wait_until_up() {
            return;
        }
        let Some(next) = next(shared, &last) else {
            if shared.stop.wait_for_news(seen, LOOK) {
                return;
            }
            continue;
        };
        let later = check(shared, &next.0, next.1);
        last = next;
        if shared.stop.wait(shared.options.wait_between_requests.max(later)) {
            return;
        }
    }
}

/// The task behind `last` in the round, when the stage behind has room.
fn next(shared: &Shared, last: &(String, u64)) -> Option<(String, u64)> {
    if shared.counts().parse >= shared.options.parse_prefetch {
        return None;
    }
    let now = now_ms();
    let due: Vec<(String, u64)> = shared
        .store
        .pick(|job| {
            let due = job.tasks.iter().filter(|(_, task)| task.stage == Stage::Check && task.next_ms <= now);
            Some(due.map(|(id, _)| (job.event.clone(), *id)).collect::<Vec<_>>())
        })
        .concat();
    due.iter().find(|item| *item > last).or_else(|| due.first()).cloned()
}

/// One question; how long to wait on top of the usual.
fn check(shared: &Shared, event: &str, id: u64) -> Duration {
    shared.health.begun(Counted::Check, now_ms(), false);
    let state = match shared.api.state(id) {
        Ok(state) => state,
        Err(ApiError::Unknown(answer)) => {
            let failure = Failure::new("error-exception", format!("the sandbox knows no task {id} any more"), answer);
            failed(shared, event, &failure);
            let retry = shared.retry();
            shared.change(event, |job| job.task_lost(id, &failure, &retry));
            return Duration::ZERO;
        }
        Err(error) => match shared.verdict(error) {
            Verdict::Stopped | Verdict::Down => return Duration::ZERO,
            Verdict::Later(wait) => return wait,
            Verdict::Failed(failure) => {
                fail(shared, event, id, &failure);
                return Duration::ZERO;
            }
        },
    };
    let now = now_ms();
    let Some(Some(task)) = shared.change(event, |job| {
        job.seen(id, &state, now);
        job.tasks.get(&id).cloned()
    }) else {
        return Duration::ZERO;
    };
    match outcome(&shared.options, &task, now) {
        Outcome::Wait => {}
        Outcome::Reported => {
            shared.health.done(Counted::Check, now);
            let settle = i64::try_from(shared.options.settle_delay.as_millis()).unwrap_or(0);
            shared.change(event, |job| job.advance(id, Stage::Parse(0), now.saturating_add(settle)));
        }
        Outcome::Failed(failure) => fail(shared, event, id, &failure),
    }
    Duration::ZERO
}

fn fail(shared: &Shared, event: &str, id: u64, failure: &Failure) {
    failed(shared, event, failure);
    let retry = shared.retry();
    shared.change(event, |job| job.task_failed(id, failure, &retry));
}

fn failed(shared: &Shared, event: &str, failure: &Failure) {
    let sha256 = shared.store.get(event).map(|job| job.sha256).unwrap_or_default();
    shared.health.failed(Counted::Check, failure, &sha256, now_ms());
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Wait,
    Reported,
    Failed(Failure),
}

/// What follows from the state a task was last seen in.
fn outcome(options: &Options, task: &Task, now_ms: i64) -> Outcome {
    let longer = |since: i64, limit: Duration| {
        u128::from(now_ms.saturating_sub(since).max(0).unsigned_abs()) >= limit.as_millis()
    };
    match task.state.as_str() {
        "reported" => Outcome::Reported,
        word @ ("failed_analysis" | "failed_processing" | "failed_reporting" | "banned") => {
            Outcome::Failed(Failure::new("error-exception", word, word))
        }
        "pending" if longer(task.since_ms, options.start_timeout) => {
            let limit = options.start_timeout.as_secs();
            Outcome::Failed(Failure::new("error-timeout", format!("pending for more than {limit} s"), "pending"))
        }
        "pending" => Outcome::Wait,
        word if longer(task.running_ms.unwrap_or(now_ms), options.analysis_timeout) => {
            let limit = options.analysis_timeout.as_secs();
            Outcome::Failed(Failure::new("error-timeout", format!("{word} for more than {limit} s"), word))
        }
        _ => Outcome::Wait,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::options::Kind;
    use super::*;

    fn of(state: &str, since_ms: i64, running_ms: Option<i64>, now_ms: i64) -> Outcome {
        let options = Options::new("box", Kind::Cape, "http://x", PathBuf::new());
        outcome(&options, &Task { state: state.to_owned(), since_ms, running_ms, ..Task::default() }, now_ms)
    }

    #[test]
    fn only_reported_ends_well_and_every_failure_ends_the_attempt_with_its_word() {
        assert_eq!(of("reported", 0, None, 9_999_999), Outcome::Reported);
        for word in ["failed_analysis", "failed_processing", "failed_reporting", "banned"] {
            assert_eq!(of(word, 0, None, 1), Outcome::Failed(Failure::new("error-exception", word, word)));
        }
        for word in ["pending", "running", "completed", "recovered", "distributed", "distributed_completed", "odd"] {
            assert_eq!(of(word, 0, Some(0), 1000), Outcome::Wait, "{word}");
        }
    }

    #[test]
    fn waiting_and_running_have_limits_of_their_own() {
        let error = |outcome: Outcome| match &outcome {
            Outcome::Failed(failure) => (failure.status, failure.error.clone()),
            Outcome::Wait | Outcome::Reported => panic!("{outcome:?}"),
        };
        assert_eq!(of("pending", 0, None, 599_999), Outcome::Wait);
        assert_eq!(error(of("pending", 0, None, 600_000)), ("error-timeout", "pending for more than 600 s".to_owned()));
        assert_eq!(of("running", 0, Some(600_000), 1_799_999), Outcome::Wait);
        assert_eq!(error(of("running", 0, Some(600_000), 1_800_000)).0, "error-timeout");
    }
}
