//! Produce pipeline: what happens to decoded, valid events between POST and publishing.
//!
//! Contract events.md section 3. Pure: [`Pipeline::run`] takes the events of one request and gives those to publish,
//! with everything the caller has to do about them once they are stored. Decoding, topics, encoding, size checks and
//! the one commit are the caller's.

use std::collections::BTreeMap;
use std::time::Instant;

use super::filter::{ageoff, previously_deleted};
use super::inserts::{self, Inserts};
use super::leases::Attempt;
use super::model::{self, BinaryEvent, Event, Flags, Model, StatusEvent, Timestamp};
use super::purge::PurgeOrders;
use super::replay::{self, Completion, ReplayCache};
use super::sources::Sources;
use crate::log_files::Excerpt;
use crate::metrics::Metrics;

/// Stage names, part of 425 texts and metric labels.
pub mod stage {
    /// Drops what its source does not keep any more (3.1).
    pub const AGEOFF: &str = super::ageoff::STAGE;
    /// Picks out the completions to remember (3.2).
    pub const REPLAY: &str = super::replay::STAGE;
    /// Ends tasks and takes the results out of statuses (3.3).
    pub const STATUS_RESULTS: &str = "ProduceStatusResults";
    /// Adds the children that people attached to these files (3.4).
    pub const INJECT_CHILDREN: &str = super::inserts::STAGE;
    /// Sets `kafka_key` (3.5).
    pub const INJECT_ID: &str = "InjectId";
    /// Drops what has been purged (6.6).
    pub const PREVIOUSLY_DELETED: &str = super::previously_deleted::STAGE;
    /// Clears the settings at the depth they name (3.6).
    pub const SETTING_REMOVAL: &str = "SourceSettingRemoval";
}

const COMPLETED: [&str; 3] = ["completed", "completed-empty", "completed-with-errors"];
/// Errors of one request that have their event with them.
const SHOWN_EVENTS: usize = 16;
const IN_PROGRESS: [&str; 2] = ["heartbeat", "dequeued"];

/// Whether a status of this word has results.
pub fn is_completed(status: &str) -> bool {
    COMPLETED.contains(&status)
}

/// One event on its way to the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The event in its present form.
    pub event: Event,
    /// Sent by the client, so that `ok` lists it; false for what the pipeline made of it.
    pub from_client: bool,
    /// The source its streams are to be copied from before it is published.
    pub streams_from: Option<String>,
}

impl Outgoing {
    /// An event whose streams are where it says.
    fn new(event: Event, from_client: bool) -> Self {
        Self { event, from_client, streams_from: None }
    }
}

/// How many events each stage dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops {
    counts: BTreeMap<&'static str, u64>,
}

impl Drops {
    /// Counts one drop.
    pub fn add(&mut self, stage: &'static str) {
        let count = self.counts.entry(stage).or_default();
        *count = count.saturating_add(1);
    }

    /// What one stage dropped.
    pub fn of(&self, stage: &str) -> u64 {
        self.counts.get(stage).copied().unwrap_or(0)
    }

    /// The drops of each stage that has any.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(stage, count)| (*stage, *count))
    }
}

/// A task that a posted status closes, to be forgotten once the status is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClosedTask {
    /// The task id the consumer was given.
    pub dequeued: String,
    /// The key of the event that it is about.
    pub kafka_key: String,
    /// Who says so: the consumer, or a part of it.
    pub author: String,
    /// The status that closes it.
    pub status: String,
    /// What the status says of an error.
    pub error: String,
    /// What else it says.
    pub message: String,
    /// Seconds that the run took, as it says.
    pub runtime: f64,
    /// What it says of runs that the consumer has made by itself: there is to be no other one.
    pub letter: Option<Box<OwnLetter>>,
}

/// What a consumer that tries again by itself says of an event in the end: the member `dead_letter` of
/// `entity.input.entity.info`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnLetter {
    /// The part of its work that failed.
    pub stage: String,
    /// Its runs.
    pub attempts: Vec<Attempt>,
    /// What helps to understand them.
    pub context: serde_json::Value,
}

impl OwnLetter {
    /// That of a status, if it has one. What is of another type than it should be is left out.
    fn of(info: &[u8]) -> Option<Box<Self>> {
        const MEMBER: &str = "dead_letter";
        memchr::memmem::find(info, MEMBER.as_bytes())?;
        let mut info: serde_json::Value = serde_json::from_slice(info).ok()?;
        let letter = info.get_mut(MEMBER).filter(|letter| letter.is_object())?;
        let text = |value: &serde_json::Value, name: &str| {
            value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        let attempt = |value: &serde_json::Value| Attempt {
            time_ms: Timestamp::parse(&text(value, "time")).map(Timestamp::millis).unwrap_or_default(),
            status: text(value, "status"),
            error: text(value, "error"),
            message: text(value, "message"),
            runtime: value.get("runtime").and_then(serde_json::Value::as_f64).unwrap_or_default(),
        };
        let attempts = letter.get("attempts").and_then(serde_json::Value::as_array);
        Some(Box::new(Self {
            stage: text(letter, "stage"),
            attempts: attempts.into_iter().flatten().map(attempt).collect(),
            context: letter.get_mut("context").map(serde_json::Value::take).unwrap_or_default(),
        }))
    }
}

/// A completed run, for the metric `dispatcher_processing_time_seconds`.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletedRun {
    /// Author of the status.
    pub publisher: String,
    /// What it reported.
    pub runtime_secs: f64,
}

/// Something a stage could not do, for the error log; a drop that follows from it is in [`Drops`] as well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {model} event of {author:?}: {reason}")]
pub struct StageError {
    /// The stage.
    pub stage: &'static str,
    /// Model of the event.
    pub model: Model,
    /// Author of the event.
    pub author: String,
    /// What was wrong.
    pub reason: String,
    /// The event, in the first errors of a request.
    pub event: Excerpt,
}

/// What the pipeline made of one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Produced {
    /// The events to publish, in the client's order, what came of a status behind it.
    pub events: Vec<Outgoing>,
    /// Drops, shown when nothing is left.
    pub drops: Drops,
    /// Events the pipeline added, by stage.
    pub added: BTreeMap<&'static str, u64>,
    /// Tasks to close. A status that is too old to be stored closes its task too.
    pub closed_tasks: Vec<ClosedTask>,
    /// Completed runs.
    pub completed_runs: Vec<CompletedRun>,
    /// Costly runs to remember once their statuses are stored.
    pub completions: Vec<Completion>,
    /// For the error log.
    pub errors: Vec<StageError>,
}

/// The produce stages with what they look at beside the events.
#[derive(Debug, Clone, Copy)]
pub struct Pipeline<'a> {
    /// Source expiries.
    pub sources: &'a Sources,
    /// Manual inserts.
    pub inserts: &'a Inserts,
    /// What has been purged.
    pub purges: &'a PurgeOrders,
    /// The time of the request.
    pub now: Timestamp,
    /// What remembers costly runs, if anything does.
    pub replay: Option<&'a ReplayCache>,
    /// Where it is counted how long the stages take.
    pub metrics: &'a Metrics,
}

impl Pipeline<'_> {
    /// Passes the client's events through every stage; the whole request passes one stage before the next one starts.
    ///
    /// `random` gives the keys of the models whose key is random (3.5).
    pub fn run(&self, events: Vec<Event>, mut random: impl FnMut() -> [u8; 32]) -> Produced {
        let mut produced = Produced {
            events: events.into_iter().map(|event| Outgoing::new(event, true)).collect(),
            ..Produced::default()
        };
        self.timed(stage::AGEOFF, || self.ageoff(&mut produced));
        self.timed(stage::REPLAY, || self.pick_completions(&mut produced));
        self.timed(stage::STATUS_RESULTS, || status_results(&mut produced));
        self.timed(stage::INJECT_CHILDREN, || inserts::inject(&mut produced, self.inserts, self.now));
        self.timed(stage::INJECT_ID, || inject_id(&mut produced, &mut random));
        // Tracking fields (3.7) come before the deletion check, so that all four kinds of purge see them (section 10, 19).
        produced.events.iter_mut().for_each(|outgoing| model::set_tracking(&mut outgoing.event));
        self.timed(stage::PREVIOUSLY_DELETED, || self.previously_deleted(&mut produced));
        self.timed(stage::SETTING_REMOVAL, || setting_removal(&mut produced));
        produced
    }

    fn timed(&self, stage: &'static str, pass: impl FnOnce()) {
        let started = Instant::now();
        pass();
        self.metrics.produce_pipelines_duration.observe([stage], started.elapsed());
    }

    /// 3.2: what is remembered has its results still; it never drops anything.
    fn pick_completions(&self, produced: &mut Produced) {
        let Some(cache) = self.replay else { return };
        produced.completions = produced.events.iter().filter_map(|outgoing| cache.worth(&outgoing.event)).collect();
    }

    fn ageoff(&self, produced: &mut Produced) {
        let Produced { events, drops, closed_tasks, .. } = produced;
        events.retain(|outgoing| {
            let aged = ageoff::check(self.sources, self.now, &outgoing.event).is_some();
            if aged {
                drops.add(stage::AGEOFF);
                if let Event::Status(status) = &outgoing.event {
                    closed_tasks.extend(closed_task(status));
                }
            }
            !aged
        });
    }

    fn previously_deleted(&self, produced: &mut Produced) {
        let Produced { events, drops, .. } = produced;
        events.retain(|outgoing| {
            let purged = previously_deleted::check(self.purges, &outgoing.event).is_some();
            if purged {
                drops.add(stage::PREVIOUSLY_DELETED);
            }
            !purged
        });
    }
}

/// The task a status closes, if it closes one.
fn closed_task(status: &StatusEvent) -> Option<ClosedTask> {
    let entity = &status.entity;
    let closes = !IN_PROGRESS.contains(&entity.status.as_str()) && !entity.input.dequeued.is_empty();
    closes.then(|| ClosedTask {
        dequeued: entity.input.dequeued.clone(),
        kafka_key: entity.input.kafka_key.clone(),
        author: status.author.name.clone(),
        status: entity.status.clone(),
        error: entity.error.clone(),
        message: entity.message.clone(),
        runtime: entity.runtime,
        letter: entity
            .status
            .starts_with("error")
            .then(|| OwnLetter::of(entity.input.entity.info.as_bytes()))
            .flatten(),
    })
}

/// 3.3: closes tasks and publishes the results of completed statuses as events of their own.
fn status_results(produced: &mut Produced) {
    let before = std::mem::take(&mut produced.events);
    produced.events.reserve(before.len());
    for mut outgoing in before {
        let results = match &mut outgoing.event {
            Event::Status(status) => take_results(status, produced),
            Event::Binary(_)
            | Event::Delete(_)
            | Event::Download(_)
            | Event::Insert(_)
            | Event::Plugin(_)
            | Event::Retrohunt(_) => Ok(Vec::new()),
        };
        match results {
            Ok(results) => {
                produced.events.push(outgoing);
                if !results.is_empty() {
                    let added = produced.added.entry(stage::STATUS_RESULTS).or_default();
                    *added = added.saturating_add(u64::try_from(results.len()).unwrap_or(u64::MAX));
                }
                produced.events.extend(results.into_iter().map(|event| Outgoing::new(event, false)));
            }
            Err(reason) => produced.drop_failed(stage::STATUS_RESULTS, &outgoing.event, reason),
        }
    }
}

/// The results to publish of one status, which loses them; every one of them, or the reason why none can be.
fn take_results(status: &mut StatusEvent, produced: &mut Produced) -> Result<Vec<Event>, String> {
    produced.closed_tasks.extend(closed_task(status));
    if !is_completed(&status.entity.status) {
        return Ok(Vec::new());
    }
    produced
        .completed_runs
        .push(CompletedRun { publisher: status.author.name.clone(), runtime_secs: status.entity.runtime });
    let input = status.entity.input.flags;
    let flags = Flags { expedite: input.expedite, bypass_cache: input.bypass_cache, ..Flags::default() };
    let result = |result: BinaryEvent| {
        model::check_binary(&result).map_err(|invalid| invalid.to_string())?;
        Ok(Event::Binary(Box::new(BinaryEvent { flags, ..result })))
    };
    std::mem::take(&mut status.entity.results).into_iter().map(result).collect()
}

/// 3.5: gives every event its key.
fn inject_id(produced: &mut Produced, random: &mut impl FnMut() -> [u8; 32]) {
    let before = std::mem::take(&mut produced.events);
    produced.events.reserve(before.len());
    for mut outgoing in before {
        let bytes = match outgoing.event.model() {
            Model::Delete | Model::Download | Model::Retrohunt => random(),
            Model::Binary | Model::Insert | Model::Plugin | Model::Status => [0; 32],
        };
        match model::kafka_key(&outgoing.event, bytes) {
            Ok(key) => {
                outgoing.event.set_kafka_key(key);
                produced.events.push(outgoing);
            }
            Err(invalid) => produced.drop_failed(stage::INJECT_ID, &outgoing.event, invalid.to_string()),
        }
    }
}

/// 3.6: clears the settings of binaries at the depth that the settings themselves name; the key is set already.
fn setting_removal(produced: &mut Produced) {
    let Produced { events, errors, .. } = produced;
    for outgoing in events {
        let Event::Binary(binary) = &mut outgoing.event else { continue };
        let Some(text) = binary.source.settings.get("remove_at_depth") else { continue };
        match text.parse::<i64>() {
            Ok(depth) if i64::try_from(binary.source.path.len()).is_ok_and(|nodes| nodes >= depth) => {
                binary.source.settings.clear();
            }
            Ok(_) => {}
            Err(_) => {
                let reason = format!("source.settings.remove_at_depth is no integer: {text:?}");
                note(errors, StageError::new(stage::SETTING_REMOVAL, &outgoing.event, reason), &outgoing.event);
            }
        }
    }
}

/// Adds an error, with its event as long as there are few.
fn note(errors: &mut Vec<StageError>, error: StageError, event: &Event) {
    let event = if errors.len() < SHOWN_EVENTS { Excerpt::of(event) } else { Excerpt::default() };
    errors.push(StageError { event, ..error });
}

impl Produced {
    fn drop_failed(&mut self, stage: &'static str, event: &Event, reason: String) {
        self.drops.add(stage);
        note(&mut self.errors, StageError::new(stage, event, reason), event);
    }
}

impl StageError {
    pub(super) fn new(stage: &'static str, event: &Event, reason: String) -> StageError {
        StageError {
            stage,
            model: event.model(),
            author: event.author().name.clone(),
            reason,
            event: Excerpt::default(),
        }
    }
}

#[cfg(test)]
mod tests;
