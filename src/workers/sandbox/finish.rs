//! The end of a job: one final status, then the tasks on the sandbox are deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use azulite_storage::clock::now_ms;
use serde_json::{Map, Value, json};

use super::health::Counted;
use super::http::SHOWN_BYTES;
use super::job::{End, Failure, Job, Stage};
use super::report::{FEATURES, Findings, first_chars};
use super::worker::{HubError, Shared};
use crate::dispatcher::model::{BinaryEvent, Datastream, JsonText, STATUSES, StatusEvent, Timestamp};
use crate::workers::results;

const LOOK: Duration = Duration::from_millis(500);
const MESSAGE_MAX_CHARS: usize = 16_000;

/// Reports final statuses until the stop.
pub(super) fn run(shared: &Shared) {
    loop {
        let seen = shared.stop.nudges();
        for event in shared.store.pick(|job| (job.end == Some(End::Report)).then(|| job.event.clone())) {
            report(shared, &event);
        }
        if shared.stop.wait_for_news(seen, LOOK) {
            return;
        }
    }
}

/// Deletes tasks of jobs that are over until the stop. On a thread of its own, so that a sandbox that is slow at it delays
/// no status.
pub(super) fn run_cleanup(shared: &Shared) {
    loop {
        let seen = shared.stop.nudges();
        if shared.options.cleanup && shared.wait_until_up() {
            return;
        }
        for event in shared.store.pick(|job| (job.end == Some(End::Cleanup)).then(|| job.event.clone())) {
            clean(shared, &event);
        }
        if shared.stop.wait_for_news(seen, LOOK) {
            return;
        }
    }
}

/// Says how a job ended.
fn report(shared: &Shared, event: &str) {
    let Some(job) = shared.store.get(event) else { return };
    shared.health.begun(Counted::Finish, now_ms(), false);
    let statuses = match statuses(shared, &job) {
        Ok(statuses) => statuses,
        Err(error) => {
            tracing::error!("{}: the job {event} cannot be read: {error}", shared.author.name);
            shared.stop.wait(Duration::from_secs(5));
            return;
        }
    };
    let whole = shared.hub(|hub| hub.report(&statuses)).map(|()| true);
    let done = whole.or_else(|error| match error {
        HubError::Stopped => Err(HubError::Stopped),
        HubError::Refused(reason) => {
            let refused: Vec<StatusEvent> = statuses.iter().map(|status| without_results(status, &reason)).collect();
            shared.hub(|hub| hub.report(&refused)).map(|()| false)
        }
    });
    match done {
        Ok(is_whole) => {
            shared.health.done(Counted::Finish, now_ms());
            if let Some(last) = statuses.last() {
                let status = if is_whole { last.entity.status.as_str() } else { "error-output" };
                shared.health.job_ended(status, last.entity.runtime);
            }
        }
        Err(HubError::Stopped) => return,
        Err(HubError::Refused(reason)) => {
            // Nobody will take a status about this event; its lease ends by itself.
            tracing::error!("{}: the final status of {event} is refused: {reason}", shared.author.name);
            let failure = Failure::new("error-output", "the final status is refused", reason);
            shared.health.failed(Counted::Finish, &failure, &job.sha256, now_ms());
        }
    }
    shared.change(event, |now| {
        // What was adopted meanwhile gets a status of its own.
        now.dequeued.retain(|id| !job.dequeued.contains(id));
        if now.dequeued.is_empty() {
            now.end = Some(End::Cleanup);
        }
    });
}

fn without_results(status: &StatusEvent, reason: &str) -> StatusEvent {
    let mut status = status.clone();
    status.entity.status = "error-output".to_owned();
    status.entity.error = "the results are refused".to_owned();
    status.entity.message = first_chars(reason, MESSAGE_MAX_CHARS).0;
    status.entity.results = Vec::new();
    status
}

/// Deletes what the sandbox may forget, and the job.
fn clean(shared: &Shared, event: &str) {
    let Some(job) = shared.store.get(event) else { return };
    if shared.options.cleanup {
        for id in job.own_tasks() {
            match shared.api.delete(id) {
                Ok(()) => {}
                Err(_) if shared.stop.is_stopped() => return,
                // As the absorbed program: told of, and the job is over all the same.
                Err(error) => tracing::info!("{}: task {id} is not deleted: {}", shared.author.name, error.text()),
            }
        }
    }
    if let Err(error) = shared.store.remove(event) {
        tracing::error!("{}: the job {event} cannot be removed: {error}", shared.author.name);
        shared.stop.wait(Duration::from_secs(5));
    }
}

/// The final statuses of a job: one for each task of the dispatcher that waits for it; the last one carries the results.
fn statuses(shared: &Shared, job: &Job) -> std::io::Result<Vec<StatusEvent>> {
    let mut input = shared.store.event(&job.event)?;
    let mut end = if job.has_results() { completed(shared, job, &input)? } else { failed(job) };
    let runtime = Duration::from_millis(now_ms().saturating_sub(job.leased_ms).max(0).unsigned_abs()).as_secs_f64();
    let mut statuses = Vec::new();
    let last = job.dequeued.len().saturating_sub(1);
    for (number, id) in job.dequeued.iter().enumerate() {
        id.clone_into(&mut input.dequeued);
        let mut status = results::status(&shared.origin(&input), end.status, runtime);
        status.entity.message = first_chars(&end.message, MESSAGE_MAX_CHARS).0;
        status.entity.error = first_chars(&end.error, 500).0;
        if let Some(letter) = &end.letter {
            status.entity.input.entity.info = JsonText::new(letter.to_string().into_bytes());
        }
        if number == last {
            status.entity.results = std::mem::take(&mut end.results);
        }
        statuses.push(status);
    }
    Ok(statuses)
}

#[derive(Default)]
struct Ending {
    status: &'static str,
    error: String,
    message: String,
    results: Vec<BinaryEvent>,
    /// What belongs into a dead letter beside the status.
    letter: Option<Value>,
}

fn completed(shared: &Shared, job: &Job, input: &BinaryEvent) -> std::io::Result<Ending> {
    let (results, mut texts, mut is_whole) = results_of(shared, job, input)?;
    for (id, task) in job.tasks.iter().filter(|(_, task)| task.stage == Stage::Failed) {
        is_whole = false;
        let last = job.runs.last().map(|run| run.error.as_str()).unwrap_or_default();
        texts.push(format!("task {id} was given up in the state {}: {last}", task.state));
    }
    let status = if is_whole { "completed" } else { "completed-with-errors" };
    Ok(Ending { status, message: texts.join("; "), results, ..Ending::default() })
}

/// The end of a job that brought nothing, with what its dead letter is to hold.
fn failed(job: &Job) -> Ending {
    let last = job.runs.last().cloned().unwrap_or_default();
    let ids: Vec<u64> = job.tasks.keys().copied().collect();
    let answer: String = first_chars(&last.answer, SHOWN_BYTES).0;
    let listed = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let runs = job.runs.iter().filter(|run| run.stage == last.stage).count();
    let message =
        format!("stage {}, task ids [{listed}]: {} after {runs} runs\nlast answer: {answer}", last.stage, last.error);
    let attempts: Vec<Value> = job
        .runs
        .iter()
        .map(|run| {
            let mut time = String::new();
            Timestamp::from_millis(run.time_ms).push_rfc3339(&mut time);
            let message = first_chars(&run.answer, SHOWN_BYTES).0;
            json!({"time": time, "status": run.status, "error": run.error, "message": message, "runtime": 0.0})
        })
        .collect();
    let context = json!({"sandbox": job.sandbox, "task_ids": ids, "last_answer": answer});
    let letter = json!({"dead_letter": {"stage": last.stage, "attempts": attempts, "context": context}});
    let status = STATUSES.into_iter().find(|word| *word == last.status).unwrap_or("error-exception");
    Ending { status, error: last.error, message, results: Vec::new(), letter: Some(letter) }
}

/// What all tasks of a job have brought so far, as events; what people should be told; whether nothing is missing.
pub(super) fn results_of(
    shared: &Shared,
    job: &Job,
    input: &BinaryEvent,
) -> std::io::Result<(Vec<BinaryEvent>, Vec<String>, bool)> {
    let mut all = Findings::default();
    let mut tasks = Vec::new();
    for id in job.tasks.keys() {
        let found = shared.store.findings(&job.event, *id)?;
        if !found.sandbox.is_empty() {
            tasks.push(Value::Object(found.sandbox.clone()));
        }
        all.merge(found);
    }
    let mut info = std::mem::take(&mut all.info);
    if let Some(first) = tasks.first() {
        info.insert("sandbox".to_owned(), first.clone());
    }
    if tasks.len() > 1 {
        info.insert("sandbox_tasks".to_owned(), Value::Array(tasks));
    }
    let mut errors = std::mem::take(&mut all.errors);
    let features = features(&all, &mut errors);
    let origin = shared.origin(input);
    let mut events = Vec::new();
    let mut build = |event: Result<BinaryEvent, _>| match event {
        Ok(mut event) => {
            errors.extend(results::cut(&mut event));
            events.push(event);
        }
        Err(error) => errors.push(format!("a result is no valid event: {error}")),
    };
    if !info.is_empty() || !features.is_empty() {
        build(results::enriched(&origin, results::Findings { features, info: Value::Object(info) }));
    }
    let streams: Vec<Datastream> = all.streams.iter().filter_map(stream_of).collect();
    if !streams.is_empty() {
        build(results::augmented(&origin, streams, results::Findings::default()));
    }
    let is_whole = errors.is_empty();
    errors.extend(all.notes);
    Ok((events, errors, is_whole))
}

/// The values of all features, the weightiest first; what is missing is added to `errors`.
fn features(all: &Findings, errors: &mut Vec<String>) -> Vec<crate::dispatcher::model::Feature> {
    let mut features = Vec::new();
    for (name, kind, _) in FEATURES {
        let Some(kept) = all.features.get(name) else { continue };
        features
            .extend(kept.iter().map(|found| results::feature(name, kind, found.value.clone(), found.label.clone())));
        let (dropped, shortened) = kept.lost();
        if dropped > 0 {
            let count = kept.iter().count();
            errors.push(format!("{name}: the first {count} values are kept, {dropped} more were seen"));
        }
        if shortened > 0 {
            errors.push(format!("{name}: {shortened} values were longer than 4000 characters and are cut"));
        }
    }
    features
}

/// The members of a stream that are kept between stages.
pub(super) fn stream_json(stream: &Datastream) -> Value {
    let mut map = Map::new();
    for (name, text) in [
        ("label", &stream.label),
        ("sha512", &stream.sha512),
        ("sha256", &stream.sha256),
        ("sha1", &stream.sha1),
        ("md5", &stream.md5),
        ("ssdeep", &stream.ssdeep),
        ("tlsh", &stream.tlsh),
        ("mime", &stream.mime),
        ("magic", &stream.magic),
        ("file_format", &stream.file_format),
        ("file_extension", &stream.file_extension),
        ("language", &stream.language),
    ] {
        map.insert(name.to_owned(), json!(text));
    }
    map.insert("size".to_owned(), json!(stream.size));
    map.insert("identify_version".to_owned(), json!(stream.identify_version));
    Value::Object(map)
}

fn stream_of(value: &Value) -> Option<Datastream> {
    let texts: BTreeMap<&str, String> = value
        .as_object()?
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?.to_owned())))
        .collect();
    let text = |name: &str| texts.get(name).cloned().unwrap_or_default();
    Some(Datastream {
        identify_version: value.get("identify_version")?.as_u64()?.try_into().ok()?,
        label: text("label"),
        size: value.get("size")?.as_u64()?,
        sha512: text("sha512"),
        sha256: text("sha256"),
        sha1: text("sha1"),
        md5: text("md5"),
        ssdeep: text("ssdeep"),
        tlsh: text("tlsh"),
        mime: text("mime"),
        magic: text("magic"),
        file_format: text("file_format"),
        file_extension: text("file_extension"),
        language: text("language"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::job::Retry;
    use super::*;

    #[test]
    fn streams_come_back_as_they_were_kept() {
        let stream = Datastream {
            identify_version: 3,
            label: "report".to_owned(),
            size: 5,
            sha256: "h".to_owned(),
            ..Datastream::default()
        };
        assert_eq!(stream_of(&stream_json(&stream)), Some(stream));
        assert_eq!(stream_of(&json!(["x"])), None);
    }

    #[test]
    fn a_job_that_failed_says_stage_tasks_and_last_answer() {
        let mut job = Job { sandbox: "box".to_owned(), ..Job::default() };
        job.submitted(&[7, 8], false, 0);
        let retry = Retry { now_ms: 1_767_323_100_000, delay_ms: 1, max: 3 };
        let failure = Failure::new("error-exception", "failed_analysis", "x".repeat(9000));
        for id in [7, 8] {
            (0..4).for_each(|_| {
                job.task_failed(id, &failure, &retry);
            });
        }
        let end = failed(&job);
        assert_eq!((end.status, end.error.as_str()), ("error-exception", "failed_analysis"));
        assert!(
            end.message.starts_with("stage check, task ids [7, 8]: failed_analysis after 8 runs\nlast answer: xxx")
        );
        let letter = &end.letter.unwrap()["dead_letter"];
        assert_eq!((&letter["stage"], &letter["context"]["task_ids"]), (&json!("check"), &json!([7, 8])));
        assert_eq!(letter["context"]["last_answer"].as_str().unwrap().len(), 4096);
        assert_eq!(letter["attempts"].as_array().unwrap().len(), 8);
        assert_eq!(letter["attempts"][0]["time"], "2026-01-02T03:05:00Z");
    }
}
