//! POST: a request body becomes record batches of one commit. Contract events.md 1.6, 1.7, 3.7.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Dispatcher;
use super::answer::{self, Failure};
use super::batches::Batches;
use super::hub::{PostAnswer, PostError, PostRequest};
use super::inserts;
use super::leases::{Ended, Ending, FINISHED, LETTERS_BYTES, Plan};
use super::model::{self, BodyError, Element, Event, Model, Timestamp};
use super::params::PostParams;
use super::pipeline::{Outgoing, Pipeline, Produced};
use super::topic;
use crate::broker::{Append, AppendError, CreateTopicError, Topic};
use crate::log_files::{EventLine, Excerpt};

/// The last step of publishing, which is no named stage.
const PUBLISH: &str = "publish";
/// How dashboards call leases that ended without a status.
const LOST: &str = "lost";
/// How files of what went wrong name us.
const OWN_USER_AGENT: &str = "azulite";
/// When another try makes sense after an overload.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Everything about a request but the commit.
pub(super) struct Prepared {
    user_agent: String,
    total_ok: usize,
    failures: Vec<Failure>,
    /// Its events are those that are stored.
    produced: Produced,
    /// Events that were to be stored.
    total: usize,
    batches: Vec<Append>,
    /// Avro bytes per topic, for the metrics.
    topic_bytes: BTreeMap<String, u64>,
    stored: u64,
    errors: Vec<String>,
    ok: Vec<Vec<u8>>,
    /// The leases that end with it.
    ending: Option<Ending>,
    /// How dashboards call that.
    how: &'static str,
    /// What is to be done once they have.
    ended: Option<Ended>,
}

impl Prepared {
    fn new(produced: Produced, user_agent: &str) -> Self {
        Self {
            user_agent: user_agent.to_owned(),
            total_ok: 0,
            failures: Vec::new(),
            total: produced.events.len(),
            produced,
            batches: Vec::new(),
            topic_bytes: BTreeMap::new(),
            stored: 0,
            errors: Vec::new(),
            ok: Vec::new(),
            ending: None,
            how: FINISHED,
            ended: None,
        }
    }

    /// Bytes that it stores.
    pub(super) fn bytes(&self) -> u64 {
        self.topic_bytes.values().sum()
    }
}

/// Publishes one request.
///
/// # Durability
/// `Ok` only after everything is durable; all events that can be published are in one commit, but for statuses that make
/// many megabytes of dead letters: each of those is, with its letter. An error may then come after some are stored; sending
/// them again does no harm.
pub(super) async fn post(dispatcher: Arc<Dispatcher>, request: PostRequest) -> Result<PostAnswer, PostError> {
    let params = PostParams::parse(&request.query);
    let dispatcher = begin(dispatcher, params.pause_plugins).await;
    let model = params.model.clone().map_err(PostError::UnknownModel)?;
    if request.body.is_empty() {
        return Err(PostError::EmptyBody);
    }
    let (prepared, stored) =
        tokio::spawn(run_to_end(dispatcher, model, params, request)).await.map_err(|_| PostError::Stopping)??;
    stored?;
    let answer = answer::PostAnswer { total_ok: prepared.total_ok, failures: &prepared.failures, ok: &prepared.ok };
    Ok(PostAnswer { body: answer.to_json().into() })
}

/// Everything about one request but its answer. A task of its own: what is in the log has its consequences whether the
/// client still waits for the answer or not, and a task that is about to be closed does not stay open.
async fn run_to_end(
    dispatcher: Arc<Dispatcher>,
    model: Model,
    params: PostParams,
    request: PostRequest,
) -> Result<(Prepared, Result<(), PostError>), PostError> {
    let started = Instant::now();
    let (this, user_agent, include_ok) = (dispatcher.clone(), request.user_agent.clone(), params.include_ok);
    let prepare = move || prepare(&this, model, &params, &request);
    let (first, rest) = tokio::task::spawn_blocking(prepare).await.map_err(|_| PostError::Stopping)??;
    dispatcher.metrics.produce_duration.observe(["transform"], started.elapsed());
    let mut parts = Parts::default();
    let mut stored = parts.store(&dispatcher, first).await;
    for events in rest {
        if stored.is_err() {
            break;
        }
        let (this, user_agent) = (dispatcher.clone(), user_agent.clone());
        let prepare = move || run_and_list(&this, model, events, Vec::new(), (&user_agent, include_ok));
        let part = tokio::task::spawn_blocking(prepare).await.map_err(|_| PostError::Stopping)?;
        stored = parts.store(&dispatcher, part).await;
    }
    if matches!(model, Model::Delete | Model::Insert) {
        follow(&dispatcher).await;
    }
    stored.and_then(|()| parts.finish())
}

/// One part of a request: how many events it had, and what came of them.
type Part = (usize, Result<Prepared, PostError>);

/// What became of the parts of a request, hardly ever more than one.
#[derive(Default)]
struct Parts {
    /// Of which something could be stored.
    joined: Option<Prepared>,
    /// Events of parts of which nothing was left.
    left_out: usize,
    nothing_left: Option<PostError>,
    /// Stored, all, and why the others were not.
    refused: (u64, u64, Vec<String>),
}

impl Parts {
    async fn store(&mut self, dispatcher: &Dispatcher, (events, part): Part) -> Result<(), PostError> {
        let mut part = match part {
            Ok(part) => part,
            Err(nothing @ (PostError::AgedOff | PostError::NothingLeft { .. })) => {
                self.left_out += events;
                self.nothing_left.get_or_insert(nothing);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (count, total) = (part.stored, u64::try_from(part.total).unwrap_or(u64::MAX));
        let errors = match store(dispatcher, std::slice::from_mut(&mut part)).await {
            Ok(()) => Vec::new(),
            Err(PostError::Publish { errors, .. }) => errors,
            Err(error) => return Err(error),
        };
        self.refused.0 += count;
        self.refused.1 += total;
        self.refused.2.extend(errors);
        match &mut self.joined {
            Some(joined) => {
                joined.total_ok += part.total_ok;
                joined.failures.append(&mut part.failures);
                joined.ok.append(&mut part.ok);
            }
            None => self.joined = Some(part),
        }
        Ok(())
    }

    fn finish(self) -> Result<(Prepared, Result<(), PostError>), PostError> {
        let Self { joined, left_out, nothing_left, refused: (stored, total, errors), .. } = self;
        let Some(mut joined) = joined else { return Err(nothing_left.unwrap_or(PostError::EmptyBody)) };
        joined.total_ok += left_out;
        let outcome = if errors.is_empty() { Ok(()) } else { Err(PostError::Publish { stored, total, errors }) };
        Ok((joined, outcome))
    }
}

/// What was just stored is known to the filters before the answer. A failure shows again at their next use.
async fn follow(dispatcher: &Arc<Dispatcher>) {
    let this = dispatcher.clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || this.follow()).await {
        tracing::error!(%error, "what was just deleted or inserted cannot be read back");
    }
}

/// Takes an event that the dispatcher makes itself through every stage, to be stored by [`post_own`] with all that comes
/// of it; `None` when it is too old for its source, so that there is nothing to publish. Blocks.
///
/// # Errors
/// As [`post`]: what a stage could not use is one, and so is anything that cannot be published.
pub(super) fn prepare_own(
    dispatcher: &Dispatcher,
    event: Event,
    user_agent: &str,
) -> Result<Option<Prepared>, PostError> {
    match run(dispatcher, event.model(), vec![event], Vec::new(), user_agent) {
        Ok(Prepared { errors, total, .. }) if !errors.is_empty() => {
            let total = u64::try_from(total).unwrap_or(u64::MAX);
            Err(PostError::Publish { stored: 0, total, errors })
        }
        Ok(prepared) => Ok(Some(prepared)),
        Err(PostError::AgedOff) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stores events that the dispatcher has made itself, all or none, in one commit. Blocks; for blocking threads.
///
/// # Durability
/// As [`post`].
/// # Errors
/// As [`post`].
pub(super) fn post_own(dispatcher: &Dispatcher, mut prepared: Vec<Prepared>) -> Result<(), PostError> {
    match prepared.is_empty() {
        true => Ok(()),
        false => tokio::runtime::Handle::current().block_on(store(dispatcher, &mut prepared)),
    }
}

/// What comes before everything else of a request: the pause it asks for, and the end of one that is over.
pub(super) async fn begin(dispatcher: Arc<Dispatcher>, pause: bool) -> Arc<Dispatcher> {
    if pause || dispatcher.pause.due_ms() <= dispatcher.now_ms() {
        let this = dispatcher.clone();
        let begun = tokio::task::spawn_blocking(move || match pause {
            true => this.pause_plugins(),
            false => this.settle_pause(),
        });
        if let Err(stopped) = begun.await {
            tracing::error!(%stopped, "the pause of plugins was not looked at");
        }
    }
    dispatcher
}

/// Stores statuses of our own as they are, keys and all, together with the end of the leases that they are about.
///
/// # Durability
/// On `Ok` they are durable. An event that cannot be published is logged and does not hold up the rest.
pub(super) async fn store_own(
    dispatcher: Arc<Dispatcher>,
    events: Vec<Event>,
    ending: Ending,
    now_ms: i64,
) -> Result<(), PostError> {
    let this = dispatcher.clone();
    let prepare = move || {
        let events =
            events.into_iter().map(|event| Outgoing { event, from_client: false, streams_from: None }).collect();
        let mut prepared = Prepared::new(Produced { events, ..Produced::default() }, OWN_USER_AGENT);
        encode(&this, now_ms, &mut prepared).map(|()| prepared)
    };
    let mut prepared = tokio::task::spawn_blocking(prepare).await.map_err(|_| PostError::Stopping)??;
    for error in std::mem::take(&mut prepared.errors) {
        tracing::error!(error, "an event of our own cannot be published");
    }
    (prepared.ending, prepared.how) = (Some(ending), LOST);
    store(&dispatcher, std::slice::from_mut(&mut prepared)).await
}

/// The one commit, with the end of the leases that it closes, and what follows from it.
async fn store(dispatcher: &Dispatcher, all: &mut [Prepared]) -> Result<(), PostError> {
    let started = Instant::now();
    let (mut batches, mut plans) = (Vec::new(), Vec::new());
    for prepared in all.iter_mut() {
        batches.append(&mut prepared.batches);
        if let Some(ending) = prepared.ending.take() {
            let (plan, mut appends, ended) = ending.take();
            batches.append(&mut appends);
            plans.push(plan);
            prepared.ended = Some(ended);
        }
    }
    if !batches.is_empty() || !plans.is_empty() {
        let stored = commit(dispatcher, batches, plans).await;
        if stored.is_err() {
            let failed = |topic: &String| dispatcher.metrics.kafka_produced_errors.inc([topic]);
            all.iter().flat_map(|prepared| prepared.topic_bytes.keys()).for_each(failed);
        }
        stored.map_err(refusal)?;
    }
    dispatcher.metrics.produce_duration.observe(["produce"], started.elapsed());
    // Each of them is looked at, whatever is said of the others.
    let outcomes: Vec<_> = all.iter_mut().map(|prepared| stored(dispatcher, prepared)).collect();
    outcomes.into_iter().collect()
}

async fn commit(dispatcher: &Dispatcher, batches: Vec<Append>, plans: Vec<Plan>) -> Result<(), AppendError> {
    if plans.is_empty() {
        return dispatcher.broker.append(batches).await.map(drop);
    }
    let log = dispatcher.broker.log().as_ref();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let leases = dispatcher.leases();
    leases.queue(log, plans, |values, settle| {
        let done = Box::new(move |outcome: Result<_, AppendError>| {
            settle.tell(outcome.is_ok());
            // Whoever waited may have gone.
            drop(sender.send(outcome.map(drop)));
        });
        log.append_with(leases.lane(), batches, values, done);
    });
    receiver.await.unwrap_or(Err(AppendError::Closed))
}

/// What follows once everything of one request that could be published is durable.
fn stored(dispatcher: &Dispatcher, prepared: &mut Prepared) -> Result<(), PostError> {
    if let Some(ended) = prepared.ended.take() {
        dispatcher.closings_stored(ended, prepared.how);
    }
    count(dispatcher, prepared);
    if !prepared.errors.is_empty() {
        let total = u64::try_from(prepared.total).unwrap_or(u64::MAX);
        let errors = std::mem::take(&mut prepared.errors);
        return Err(PostError::Publish { stored: prepared.stored, total, errors });
    }
    if let Some(cache) = &dispatcher.caches.replay {
        let now_ms = dispatcher.now_ms();
        std::mem::take(&mut prepared.produced.completions).into_iter().for_each(|c| cache.put(c, now_ms));
    }
    Ok(())
}

/// The first part of a request, ready to be stored, and the events of the others, if it is one of many.
fn prepare(
    dispatcher: &Dispatcher,
    model: Model,
    params: &PostParams,
    request: &PostRequest,
) -> Result<(Part, Vec<Vec<Event>>), PostError> {
    let PostRequest { body, user_agent, .. } = request;
    let decoded = match params.avro {
        true => model::decode_body_avro(model, body),
        false => model::decode_body_json(model, body),
    };
    let elements = decoded.map_err(|error| {
        if let BodyError::TooOld { version, .. } | BodyError::VersionUnknown { version, .. } = &error {
            // Nobody reads the author of an event of another version.
            dispatcher.metrics.produce_bad_version.inc([model.as_str(), &version.to_string(), ""]);
        }
        PostError::Decode(error.to_string())
    })?;
    let (mut events, mut failures) = (Vec::with_capacity(elements.len()), Vec::new());
    for Element { raw, event } in elements {
        match event {
            Ok(event) => events.push(event),
            Err(invalid) => failures.push(Failure { event: raw, error: format!("innerNewMsgInFlight {invalid}") }),
        }
    }
    let mut parts = parts(dispatcher, events).into_iter();
    let first = parts.next().unwrap_or_default();
    let part = run_and_list(dispatcher, model, first, failures, (user_agent, params.include_ok));
    Ok((part, parts.collect()))
}

/// Statuses that make more dead letters than one commit is to hold come in several, each event and its status in one of
/// them. There is always a part, and nearly always only one.
fn parts(dispatcher: &Dispatcher, events: Vec<Event>) -> Vec<Vec<Event>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
    for event in events {
        if let Event::Status(status) = &event {
            let entity = &status.entity;
            let own = dispatcher.letter_bytes(&entity.status, &entity.input.dequeued, &entity.input.kafka_key);
            if bytes + own > LETTERS_BYTES && !part.is_empty() {
                parts.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += own;
        }
        part.push(event);
    }
    parts.push(part);
    parts
}

/// [`run`], with the client's events as they are stored if it wants to see them.
fn run_and_list(
    dispatcher: &Dispatcher,
    model: Model,
    events: Vec<Event>,
    failures: Vec<Failure>,
    (user_agent, include_ok): (&str, bool),
) -> Part {
    let count = events.len();
    let prepared = run(dispatcher, model, events, failures, user_agent).map(|mut prepared| {
        if include_ok {
            let own = prepared.produced.events.iter().filter(|outgoing| outgoing.from_client);
            prepared.ok = own.map(|outgoing| model::to_json(&outgoing.event)).collect();
        }
        prepared
    });
    (count, prepared)
}

/// The stages and the record batches.
fn run(
    dispatcher: &Dispatcher,
    model: Model,
    events: Vec<Event>,
    failures: Vec<Failure>,
    user_agent: &str,
) -> Result<Prepared, PostError> {
    let total_ok = events.len();
    let now_ms = dispatcher.now_ms();
    let mut produced = run_pipeline(dispatcher, model, events, now_ms)?;
    if produced.events.is_empty() {
        count_drops(dispatcher, &produced, user_agent);
        dispatcher.close_aged_off(&produced.closed_tasks);
        return Err(nothing_left(&produced, &failures));
    }
    produced.errors.extend(inserts::copy_streams(&produced.events, dispatcher.streams.as_ref()));
    let mut prepared = Prepared { total_ok, failures, ..Prepared::new(produced, user_agent) };
    encode(dispatcher, now_ms, &mut prepared)?;
    let Produced { closed_tasks, events, .. } = &prepared.produced;
    prepared.ending = dispatcher.note_statuses(closed_tasks, events.iter().map(|outgoing| &outgoing.event), now_ms);
    Ok(prepared)
}

fn run_pipeline(dispatcher: &Dispatcher, model: Model, events: Vec<Event>, now_ms: i64) -> Result<Produced, PostError> {
    // Statuses bring binaries with them.
    if matches!(model, Model::Binary | Model::Status) {
        dispatcher.follow().map_err(|error| {
            tracing::error!(%error, "what has been deleted or inserted cannot be read, so nothing is published");
            let total = u64::try_from(events.len()).unwrap_or(u64::MAX);
            PostError::Publish { stored: 0, total, errors: vec![error.to_string()] }
        })?;
    }
    let pipeline = Pipeline {
        sources: &dispatcher.options.sources,
        inserts: &dispatcher.inserts.read(),
        purges: &dispatcher.purges.read(),
        now: Timestamp::from_millis(now_ms),
        replay: dispatcher.caches.replay.as_ref(),
        metrics: &dispatcher.metrics,
    };
    Ok(pipeline.run(events, super::random_bytes))
}

fn nothing_left(produced: &Produced, failures: &[Failure]) -> PostError {
    if produced.drops.of(super::pipeline::stage::AGEOFF) > 0 {
        return PostError::AgedOff;
    }
    PostError::NothingLeft {
        filters: produced.drops.iter().map(|(stage, count)| (stage.to_owned(), count)).collect(),
        total_failures: u64::try_from(failures.len()).unwrap_or(u64::MAX),
        errors: failures.iter().map(|failure| failure.error.clone()).collect(),
    }
}

/// Builds the record batches. An event that cannot be published is named in `errors` and does not take the others with
/// it.
fn encode(dispatcher: &Dispatcher, now_ms: i64, prepared: &mut Prepared) -> Result<(), PostError> {
    let options = &dispatcher.options;
    let user_agent = prepared.user_agent.as_str();
    let mut topics: BTreeMap<String, Arc<Topic>> = BTreeMap::new();
    let mut batches = Batches::default();
    let mut kept = Vec::with_capacity(prepared.produced.events.len());
    for outgoing in std::mem::take(&mut prepared.produced.events) {
        let event = &outgoing.event;
        let name = match topic::route(&options.topic_prefix, event) {
            Ok(name) => name,
            Err(error) => {
                refused(dispatcher, user_agent, event, &error.to_string(), &mut prepared.errors);
                continue;
            }
        };
        let value = model::encode_avro(event);
        if value.len() > options.message_max_bytes {
            let (size, limit) = (value.len(), options.message_max_bytes);
            let reason = format!("message too large for kafka: {size} vs {limit} bytes");
            refused(dispatcher, user_agent, event, &reason, &mut prepared.errors);
            dispatcher.metrics.kafka_produced_errors.inc([&name]);
            if let Event::Status(status) = event {
                // It is not stored, so it ends nothing.
                let id = &status.entity.input.dequeued;
                prepared.produced.closed_tasks.retain(|task| task.dequeued != *id);
            }
            continue;
        }
        if !topics.contains_key(&name) {
            topics.insert(name.clone(), dispatcher.topic(&name).map_err(topic_refusal)?);
        }
        let Some(topic) = topics.get(&name) else { continue };
        *prepared.topic_bytes.entry(name).or_default() += u64::try_from(value.len()).unwrap_or(0);
        batches.push(topic, now_ms, event.kafka_key().as_bytes(), Some(&value));
        prepared.stored += 1;
        kept.push(outgoing);
    }
    prepared.produced.events = kept;
    prepared.batches = batches.finish();
    Ok(())
}

/// Notes that one event cannot be published.
fn refused(dispatcher: &Dispatcher, user_agent: &str, event: &Event, reason: &str, errors: &mut Vec<String>) {
    errors.push(reason.to_owned());
    if let Some(files) = dispatcher.log_files() {
        let what = format!("{} event of {:?}", event.model(), event.author().name);
        files.producer(&EventLine::new(user_agent, PUBLISH, &what, reason, Excerpt::of(event)));
    }
}

fn refusal(error: AppendError) -> PostError {
    match error {
        AppendError::DiskFull => PostError::DiskFull,
        // A topic deleted in between is made again by the next attempt.
        AppendError::Overloaded { .. } | AppendError::Gone { .. } => PostError::Overloaded { retry_after: RETRY_AFTER },
        AppendError::Closed => PostError::Stopping,
        // No producer of ours has an id, and no batch a certain offset.
        AppendError::Poisoned { .. }
        | AppendError::Io { .. }
        | AppendError::TooLarge
        | AppendError::Sequence(_)
        | AppendError::Moved { .. } => PostError::Poisoned,
    }
}

fn topic_refusal(error: CreateTopicError) -> PostError {
    match error {
        CreateTopicError::Append(error) => refusal(error),
        CreateTopicError::Exists(_)
        | CreateTopicError::Name(_)
        | CreateTopicError::Partitions { .. }
        | CreateTopicError::State(_) => PostError::Publish { stored: 0, total: 0, errors: vec![error.to_string()] },
    }
}

/// Counts what was stored.
fn count(dispatcher: &Dispatcher, prepared: &Prepared) {
    let metrics = &dispatcher.metrics;
    count_drops(dispatcher, &prepared.produced, &prepared.user_agent);
    for (stage, added) in &prepared.produced.added {
        metrics.produce_pipelines_added.add([stage], *added);
    }
    for run in &prepared.produced.completed_runs {
        let took = Duration::try_from_secs_f64(run.runtime_secs).unwrap_or_default();
        metrics.processing_time.observe([&run.publisher], took);
    }
    for (topic, bytes) in &prepared.topic_bytes {
        metrics.kafka_produced_bytes.at([topic]).add(i64::try_from(*bytes).unwrap_or(0));
    }
    for Outgoing { event, .. } in &prepared.produced.events {
        let author = event.author();
        metrics.events_published.inc([&author.name, event.model().as_str()]);
        if let Event::Status(status) = event
            && author.category != "user"
        {
            metrics.status_published.inc([&author.name, &status.entity.status]);
        }
    }
}

fn count_drops(dispatcher: &Dispatcher, produced: &Produced, user_agent: &str) {
    for (stage, dropped) in produced.drops.iter() {
        dispatcher.metrics.produce_pipelines_removed.add([stage], dropped);
    }
    for error in &produced.errors {
        dispatcher.metrics.produce_pipelines_error.inc([error.stage]);
        tracing::info!(%error, "publishing went on without something");
        if let Some(files) = dispatcher.log_files() {
            let what = format!("{} event of {:?}", error.model, error.author);
            files.producer(&EventLine::new(user_agent, error.stage, &what, &error.reason, error.event.clone()));
        }
    }
}

#[cfg(test)]
mod abandoned;
#[cfg(test)]
mod tests;
