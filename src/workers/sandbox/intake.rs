//! The thread that leases events.

use std::time::Duration;

use azulite_storage::clock::now_ms;

use super::job::{End, Job};
use super::store::is_key;
use super::worker::{HubError, Shared};
use crate::dispatcher::model::BinaryEvent;
use crate::workers::{UpstreamError, results};

/// What one fetch waits for events, in seconds.
const DEADLINE_S: &str = "20";
const IDLE: Duration = Duration::from_secs(5);

/// Runs until the stop.
pub(super) fn run(shared: &Shared) {
    if !register(shared) {
        return;
    }
    while !shared.stop.is_stopped() {
        let seen = shared.stop.nudges();
        let free = shared.options.submit_prefetch.saturating_sub(shared.counts().submit);
        let wait = if free == 0 { IDLE } else { lease(shared, free) };
        if !wait.is_zero() && shared.stop.wait_for_news(seen, wait) {
            return;
        }
    }
}

fn register(shared: &Shared) -> bool {
    loop {
        match shared.hub(|hub| hub.register(&shared.announce())) {
            Ok(()) => {
                let author = &shared.author;
                tracing::info!(worker = author.name, version = author.version, url = shared.options.url, "registered");
                return true;
            }
            Err(HubError::Stopped) => return false,
            Err(HubError::Refused(reason)) => {
                tracing::error!("{}: the registration is refused: {reason}", shared.author.name);
                if shared.stop.wait(Duration::from_secs(30)) {
                    return false;
                }
            }
        }
    }
}

/// Leases at most `free` events; how long to wait before the next fetch.
fn lease(shared: &Shared, free: usize) -> Duration {
    let count = free.to_string();
    let query = [
        ("name", shared.author.name.as_str()),
        ("version", shared.author.version.as_str()),
        ("deployment_key", shared.author.name.as_str()),
        ("count", count.as_str()),
        ("deadline", DEADLINE_S),
        ("r-expedite", "true"),
        ("r-live", "true"),
        ("r-historic", "true"),
        ("r-action", "sourced"),
        ("r-action", "extracted"),
        ("d-self", "true"),
    ];
    let fetched = match shared.upstream.lease(&query) {
        Ok(fetched) => fetched,
        Err(UpstreamError::Unavailable(_)) => return IDLE,
        Err(UpstreamError::Refused(reason)) => {
            tracing::error!("{}: the fetch is refused: {reason}", shared.author.name);
            return IDLE * 6;
        }
    };
    let wait = if fetched.paused { IDLE } else { Duration::ZERO };
    for event in fetched.events {
        take(shared, event);
    }
    wait
}

/// Opens a job for an event, or says why not.
fn take(shared: &Shared, event: BinaryEvent) {
    let is_redelivery = event.retries > 0;
    let open = shared.store.get(&event.kafka_key);
    if open.as_ref().is_some_and(|job| job.end != Some(End::Cleanup)) {
        // Handed out again: after a lost lease, by a second group, or because somebody asked for it.
        shared.change(&event.kafka_key, |job| job.adopt(&event.dequeued, is_redelivery));
        return;
    }
    if let Some((status, message)) = not_for_us(shared, &event) {
        say(shared, &event, status, message);
        return;
    }
    if open.is_some() && shared.store.remove(&event.kafka_key).is_err() {
        // Its tasks are being deleted: the event comes again with the end of its lease.
        return;
    }
    let job = Job {
        event: event.kafka_key.clone(),
        sha256: event.entity.sha256.clone(),
        sandbox: shared.options.name.clone(),
        dequeued: vec![event.dequeued.clone()],
        leased_ms: now_ms(),
        ..Job::default()
    };
    if let Err(error) = shared.store.add(job, &event) {
        tracing::error!("{}: the job {} cannot be written: {error}", shared.author.name, event.kafka_key);
        say(shared, &event, "error-runner", format!("the job cannot be written: {error}"));
        return;
    }
    shared.stop.nudge();
}

/// The status, and the limit and value, for an event that is not worked on.
fn not_for_us(shared: &Shared, event: &BinaryEvent) -> Option<(&'static str, String)> {
    let options = &shared.options;
    if !is_key(&event.kafka_key) {
        return Some(("error-input", "the event has no key of the dispatcher".to_owned()));
    }
    let depth = event.source.path.len();
    if depth >= results::DEPTH_MAX {
        return Some(("opt-out", format!("the path has {depth} nodes, the limit is {}", results::DEPTH_MAX)));
    }
    let Some(content) = event.entity.datastreams.iter().find(|stream| stream.label == "content") else {
        return Some(("opt-out", "the event has no content stream".to_owned()));
    };
    let limit = options.max_content_size;
    if content.size > limit {
        return Some(("opt-out", format!("the content has {} bytes, max_content_size is {limit}", content.size)));
    }
    let format = &content.file_format;
    if !options.content_types.is_empty() && !options.content_types.iter().any(|start| format.starts_with(start)) {
        let accepted = options.content_types.join(", ");
        return Some(("opt-out", format!("the file format is {format:?}, content_types are {accepted}")));
    }
    None
}

fn say(shared: &Shared, event: &BinaryEvent, status: &str, message: String) {
    let mut status = results::status(&shared.origin(event), status, 0.0);
    status.entity.message = message;
    let statuses = [status];
    match shared.hub(|hub| hub.report(&statuses)) {
        Ok(()) => statuses.iter().for_each(|status| shared.health.job_ended(&status.entity.status, 0.0)),
        Err(HubError::Refused(reason)) => {
            tracing::error!("{}: a status is refused: {reason}", shared.author.name);
        }
        Err(HubError::Stopped) => {}
    }
}
