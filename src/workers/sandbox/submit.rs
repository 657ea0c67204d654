//! The stage `submit`: room on the sandbox, a task that is there already, or a new one. The one that looks whether a
//! sandbox that is down is up again.

use std::time::Duration;

use azulite_storage::clock::{now_ms, now_us};
use sha2::{Digest as _, Sha256};

use super::api::{ApiError, Submission};
use super::health::Counted;
use super::http::Trouble;
use super::job::{End, Failure, Job, Run, SubmitState};
use super::options::Kind;
use super::worker::{HubError, Shared, Verdict};
use crate::dispatcher::model::BinaryEvent;

/// The longest wait between two looks at what is due.
const LOOK: Duration = Duration::from_millis(500);
/// Characters of a file name that a sandbox is told.
const NAME_MAX_CHARS: usize = 100;

/// Runs until the stop.
pub(super) fn run(shared: &Shared) {
    loop {
        let seen = shared.stop.nudges();
        if shared.stop.is_stopped() {
            return;
        }
        if shared.health.down().is_some() {
            if shared.stop.wait(shared.options.capacity_recheck) {
                return;
            }
            shared.is_up();
            continue;
        }
        let wait = match next(shared) {
            Some(event) => submit(shared, &event),
            None => LOOK,
        };
        if !wait.is_zero() && shared.stop.wait_for_news(seen, wait) {
            return;
        }
    }
}

/// The job that is due the longest, when the stage behind has room.
fn next(shared: &Shared) -> Option<String> {
    if shared.counts().check >= shared.options.check_prefetch {
        return None;
    }
    let now = now_ms();
    let due = shared.store.pick(|job| {
        let is_due = job.is_submitting() && job.submit.next_ms <= now;
        is_due.then(|| (job.submit.next_ms, job.leased_ms, job.event.clone()))
    });
    due.into_iter().min().map(|(_, _, event)| event)
}

/// One run; how long to wait after it.
fn submit(shared: &Shared, event: &str) -> Duration {
    let Some(job) = shared.store.get(event) else { return Duration::ZERO };
    shared.health.begun(Counted::Submit, now_ms(), job.submit.failures > 0);
    match try_submit(shared, &job) {
        Ok(Submitted::Tasks(ids, reused)) => {
            shared.health.done(Counted::Submit, now_ms());
            shared.change(event, |job| job.submitted(&ids, reused, now_ms()));
            Duration::ZERO
        }
        Ok(Submitted::NotSeenYet(next_ms)) => {
            shared.change(event, |job| {
                job.submit.next_ms = next_ms;
                job.submit.missed_ms = if job.submit.missed_ms == 0 { now_ms() } else { job.submit.missed_ms };
            });
            Duration::ZERO
        }
        Ok(Submitted::NoRoom(reason)) => {
            shared.health.set_full(Some(reason));
            // Not cut short by what other stages do.
            shared.stop.wait(shared.options.capacity_recheck);
            Duration::ZERO
        }
        Ok(Submitted::NoContent(reason)) => {
            let failure = Failure::new("error-input", reason.clone(), "");
            shared.health.failed(Counted::Submit, &failure, &job.sha256, now_ms());
            let run = Run {
                stage: "submit".to_owned(),
                time_ms: now_ms(),
                status: "error-input".to_owned(),
                error: reason,
                answer: String::new(),
            };
            shared.change(event, |job| {
                job.submit.state = SubmitState::Done;
                job.runs.push(run.clone());
                job.end = Some(End::Report);
            });
            Duration::ZERO
        }
        Err(error) => after_error(shared, &job, error),
    }
}

enum Submitted {
    /// Ids, and whether they were there before.
    Tasks(Vec<u64>, bool),
    /// A submission may be on its way still: when to look again.
    NotSeenYet(i64),
    /// The sandbox is full.
    NoRoom(String),
    /// The file is gone.
    NoContent(String),
}

fn after_error(shared: &Shared, job: &Job, error: ApiError) -> Duration {
    let event = job.event.as_str();
    let verdict = shared.verdict(error);
    match verdict {
        Verdict::Stopped | Verdict::Down => Duration::ZERO,
        Verdict::Later(wait) => {
            // Not cut short by what other stages do.
            shared.stop.wait(wait);
            Duration::ZERO
        }
        Verdict::Failed(failure) => {
            shared.health.failed(Counted::Submit, &failure, &job.sha256, now_ms());
            let retry = shared.retry();
            shared.change(event, |job| job.submit_failed(&failure, &retry));
            Duration::ZERO
        }
    }
}

fn try_submit(shared: &Shared, job: &Job) -> Result<Submitted, ApiError> {
    if job.submit.state == SubmitState::Begun {
        match shared.api.marked(&job.sha256, &job.marks()) {
            Ok(tasks) => {
                let new = tasks.into_iter().map(|task| task.id).filter(|id| !job.tasks.contains_key(id));
                let ids: Vec<u64> = new.collect();
                if !ids.is_empty() {
                    return Ok(Submitted::Tasks(ids, false));
                }
                // What a sandbox has taken it may list a while later only.
                let patience = i64::try_from(shared.options.capacity_recheck.as_millis()).unwrap_or(i64::MAX);
                let now = now_ms();
                let missed = if job.submit.missed_ms == 0 { now } else { job.submit.missed_ms };
                let over = missed.saturating_add(patience);
                // A clock that was set back makes nobody wait longer.
                if now < over && over <= now.saturating_add(patience) {
                    return Ok(Submitted::NotSeenYet(over));
                }
            }
            // A sandbox that cannot say: the file is sent again.
            Err(ApiError::Off(_) | ApiError::Unknown(_) | ApiError::Refused(_)) => {
                tracing::info!("{}: it cannot be asked whether {} arrived", shared.author.name, job.sha256);
            }
            // Still unsure.
            Err(ApiError::Trouble(Trouble::Unreachable(reason))) => return Err(Trouble::Unsure(reason).into()),
            Err(other) => return Err(other),
        }
    }
    if let Some(reason) = no_room(shared)? {
        return Ok(Submitted::NoRoom(reason));
    }
    shared.health.set_full(None);
    if let Some(id) = known(shared, job)? {
        return Ok(Submitted::Tasks(vec![id], true));
    }
    create(shared, job)
}

/// Why nothing may be submitted now.
fn no_room(shared: &Shared) -> Result<Option<String>, ApiError> {
    let options = &shared.options;
    let capacity = match shared.api.capacity() {
        Ok(capacity) => capacity,
        Err(ApiError::Off(_)) => {
            let own = u64::try_from(shared.counts().check).unwrap_or(u64::MAX);
            let full = own >= options.max_pending;
            return Ok(
                full.then(|| format!("{own} tasks of this worker are open, max_pending is {}", options.max_pending))
            );
        }
        Err(error) => return Err(error),
    };
    if capacity.pending >= options.max_pending {
        return Ok(Some(format!("{} tasks are pending, max_pending is {}", capacity.pending, options.max_pending)));
    }
    let free = capacity.free.filter(|free| options.check_free_space && *free <= options.min_free_bytes);
    Ok(free.map(|free| format!("{free} bytes are free, min_free_bytes is {}", options.min_free_bytes)))
}

/// The newest task that the sandbox has for the file already.
fn known(shared: &Shared, job: &Job) -> Result<Option<u64>, ApiError> {
    // A task that was lost is not looked for again.
    if !shared.options.reuse_existing || shared.options.kind != Kind::Cape || job.submit.begun > 0 {
        return Ok(None);
    }
    let tasks = match shared.api.search(&job.sha256) {
        Ok(tasks) => tasks,
        Err(ApiError::Off(_) | ApiError::Unknown(_) | ApiError::Refused(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let usable = |status: &str| !status.starts_with("failed_") && status != "banned";
    Ok(tasks.into_iter().find(|task| usable(&task.status) && !job.tasks.contains_key(&task.id)).map(|task| task.id))
}

fn create(shared: &Shared, job: &Job) -> Result<Submitted, ApiError> {
    let local = |reason: String| ApiError::Trouble(Trouble::Local(reason));
    let input = shared.store.event(&job.event).map_err(|error| local(error.to_string()))?;
    let (source, sha256) = (input.source.name.as_str(), input.entity.sha256.as_str());
    let mut content = match shared.hub(|hub| hub.content(source, "content", sha256)) {
        Ok(Some(content)) => content,
        Ok(None) => {
            return Ok(Submitted::NoContent(format!("there is no content {sha256} in the source {source}")));
        }
        Err(HubError::Refused(reason)) => return Err(local(reason)),
        Err(HubError::Stopped) => return Err(Trouble::Stopped.into()),
    };
    let begun = shared.change(&job.event, |job| {
        job.submit.state = SubmitState::Begun;
        job.submit.begun = job.submit.begun.saturating_add(1);
        job.submit.missed_ms = 0;
        job.mark()
    });
    let Some(mark) = begun else { return Err(Trouble::Stopped.into()) };
    let options = &shared.options.submit_options;
    let custom = match options.get("custom") {
        Some(text) if !text.is_empty() => format!("{text} {mark}"),
        _ => mark.clone(),
    };
    let others =
        options.iter().filter(|(name, _)| *name != "custom").map(|(name, value)| (name.as_str(), value.as_str()));
    let fields = others.chain([("custom", custom.as_str())]).collect();
    let size = content.size();
    let name = file_name(&input);
    let boundary = boundary(&mark);
    let submission = Submission { name: &name, size, bytes: &mut content, fields, boundary };
    let created = shared.api.create(submission);
    let has_not_arrived = matches!(&created, Err(error) if !is_unsure(error));
    if has_not_arrived && job.submit.state == SubmitState::Waiting {
        // Only what may have arrived has to be looked for before it is sent again.
        shared.change(&job.event, |job| job.submit.state = SubmitState::Waiting);
    }
    Ok(Submitted::Tasks(created?, false))
}

/// True when the sandbox may have made a task all the same.
const fn is_unsure(error: &ApiError) -> bool {
    matches!(error, ApiError::Trouble(Trouble::Unsure(_) | Trouble::Stopped))
}

/// The name under which the file came, without folders: sandboxes go by its ending.
fn file_name(input: &BinaryEvent) -> String {
    let feature = input.entity.features.iter().find(|feature| feature.name == "filename");
    let node = input.source.path.last().map(|node| node.filename.as_str());
    let name = node.filter(|name| !name.is_empty()).or_else(|| feature.map(|feature| feature.value.as_str()));
    let name = name.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    let shown: String = name.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    let count = shown.chars().count();
    let name: String = shown.chars().skip(count.saturating_sub(NAME_MAX_CHARS)).collect();
    if name.trim_matches(['.', ' ']).is_empty() { input.entity.sha256.clone() } else { name }
}

/// A line that is in no file: nobody knows the clock to the microsecond in advance.
fn boundary(mark: &str) -> String {
    let hash = Sha256::digest(format!("{mark} {}", now_us()).as_bytes());
    let digits: String = hash.iter().take(20).map(|byte| format!("{byte:02x}")).collect();
    format!("azulite-{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::model::PathNode;

    #[test]
    fn a_file_keeps_the_end_of_its_name_and_no_folders() {
        let named = |name: &str| {
            let mut event = BinaryEvent::default();
            event.entity.sha256 = "hash".to_owned();
            event.source.path.push(PathNode { filename: name.to_owned(), ..PathNode::default() });
            file_name(&event)
        };
        assert_eq!(named("C:\\a\\b.exe"), "b.exe");
        assert_eq!(named("../../etc/x"), "x");
        assert_eq!(named(""), "hash");
        assert_eq!(named("a/.."), "hash");
        assert_eq!(named("a\r\nb"), "a__b");
        let long = named(&format!("{}.exe", "é".repeat(500)));
        assert!(long.ends_with("é.exe") && long.chars().count() == NAME_MAX_CHARS);
    }
}
