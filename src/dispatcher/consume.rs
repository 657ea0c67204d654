//! GET: events are gathered by precedence, filtered, and handed out. Contract events.md 5.3 to 5.5.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Dispatcher;
use super::answer::{Info, Multipart, events_json};
use super::filter::duplicates::{self, Asking, Mark};
use super::filter::{self, Consumer, FilterCounts, FilterKey, UNDECODABLE, previously_deleted};
use super::hub::{Delivery, DeliveryGuard, GetAnswer, GetError, GetRequest};
use super::model::{self, Event, Model};
use super::params::GetParams;
use super::plugin_key::{Flow, PluginKey, subscriptions};
use super::purge::{PurgeKind, Purged};
use super::reader::{Candidate, Reader, ReaderError, Taken, User};
use super::replay::{self, NotReplayed, Replayer};
use super::tasks::HandedOut;
use crate::broker::{AppendError, CommitOffsetsError, Waiter};
use crate::log_files::{EventLine, Excerpt};

/// Filter stage and reason of a task whose event has no key.
const NO_ID: FilterKey = FilterKey { stage: "RaiseDequeuedStatus", reason: "error_no_id" };
/// Filter stage and reason of a task that was answered with an earlier result.
const REPLAYED: FilterKey = FilterKey { stage: replay::STAGE, reason: replay::CACHED };
/// The longest one sweep without waiting (`deadline=0`) goes on while everything is filtered.
const SWEEP: Duration = Duration::from_secs(1);
/// When another try makes sense after an overload.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes of stored events that one pass takes, about: decoded they are several times as much.
const PASS_BYTES: usize = 2 << 20;
/// Room for the answer that a pass begins with; what it does not need comes back at its end.
const PASS_ROOM: usize = 4 << 20;
/// How long a request waits until answers that others have not taken yet leave room for its own.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// What room for answers is counted in, bytes.
const ROOM_UNIT: usize = 1024;

/// What one request has gathered so far.
struct Gathered {
    /// The events themselves, where tasks are made of them.
    events: Vec<Event>,
    /// Each event as it goes out.
    encoded: Vec<Vec<u8>>,
    bytes: usize,
    counts: FilterCounts,
    taken: Taken,
    /// The place that `bytes` take among all answers; comes back when the answer has left.
    room: Option<OwnedSemaphorePermit>,
}

/// What bounds the memory of all GETs together: how many decode events at once, and the bytes of answers that clients
/// have not taken yet.
#[derive(Debug)]
pub(super) struct Memory {
    passes: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    total_units: usize,
    /// How many wait for room.
    short: watch::Sender<usize>,
}

/// Counts somebody who waits for room.
struct Short<'a>(&'a watch::Sender<usize>);

impl<'a> Short<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|waiting| *waiting += 1);
        Self(count)
    }
}

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// What one pass may use.
struct Place {
    turn: Option<OwnedSemaphorePermit>,
    turns: Arc<Semaphore>,
    room: OwnedSemaphorePermit,
}

impl Place {
    /// Does something that waits for a disk, without a turn. For blocking threads.
    fn without_turn<T>(&mut self, work: impl FnOnce() -> T) -> T {
        drop(self.turn.take());
        let done = work();
        // It is never closed.
        self.turn = tokio::runtime::Handle::current().block_on(self.turns.clone().acquire_owned()).ok();
        done
    }
}

impl Memory {
    /// Room for `bytes` of answers.
    pub(super) fn new(bytes: usize) -> Self {
        let total_units = bytes.div_ceil(ROOM_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let passes = std::thread::available_parallelism().map_or(4, |processors| 2 * processors.get());
        Self {
            passes: Arc::new(Semaphore::new(passes)),
            answers: Arc::new(Semaphore::new(total_units)),
            total_units,
            short: watch::Sender::new(0),
        }
    }

    /// A turn to decode, and room for what comes of it; `None` after `wait`.
    async fn place(&self, wait: Duration) -> Option<Place> {
        let units = u32::try_from(PASS_ROOM.div_ceil(ROOM_UNIT).min(self.total_units)).unwrap_or(u32::MAX);
        let room = match self.answers.clone().try_acquire_many_owned(units) {
            Ok(room) => room,
            Err(_) if wait.is_zero() => return None,
            Err(_) => {
                let _short = Short::new(&self.short);
                tokio::time::timeout(wait, self.answers.clone().acquire_many_owned(units)).await.ok()?.ok()?
            }
        };
        let turns = self.passes.clone();
        Some(Place { turn: turns.clone().acquire_owned().await.ok(), turns, room })
    }

    /// Returns once somebody waits for room.
    async fn is_short(&self) {
        // The sender lives as long as this.
        drop(self.short.subscribe().wait_for(|waiting| *waiting > 0).await);
    }

    /// Makes `room` one for `bytes`, as far as there is more.
    fn fit(&self, room: &mut OwnedSemaphorePermit, bytes: usize) {
        let units = bytes.div_ceil(ROOM_UNIT);
        let has = room.num_permits();
        if units < has {
            drop(room.split(has - units));
        } else if let Ok(more) = u32::try_from(units - has)
            && let Ok(more) = self.answers.clone().try_acquire_many_owned(more)
        {
            room.merge(more);
        }
    }
}

/// Hands out events.
///
/// # Cancel safety
/// Dropping the future gives back what had been taken.
pub(super) async fn get(dispatcher: Arc<Dispatcher>, request: GetRequest) -> Result<GetAnswer, GetError> {
    let params = GetParams::parse(&request.model, &request.query, &dispatcher.options.limits)
        .map_err(|bad| GetError::BadParameter(bad.to_string()))?;
    if params.filter_ignored {
        tracing::info!(name = params.name, "the parameter `filter` of old releases has no meaning any more");
    }
    let GetRequest { task, user_agent, .. } = request;
    let (log, now_ms) = (dispatcher.broker.log().as_ref(), dispatcher.now_ms());
    dispatcher.registry.register(log, &params, task, &user_agent, now_ms);
    let beginnings = dispatcher.pause.beginnings();
    let request = Arc::new(Gather { dispatcher, params, task, user_agent, gathered: Mutex::default() });
    if request.is_paused() {
        return Ok(request.paused());
    }
    let (reader, not_ready) = request.clone().open(request.params.reset).await?;
    let labels = [request.params.name.as_str(), request.params.model.as_str()];
    request.dispatcher.metrics.event_fetch_requests.inc(labels);
    let waiting = i64::try_from(not_ready.len()).unwrap_or(0);
    let gauge = request.dispatcher.metrics.consume_not_ready.at([&request.params.name, &request.params.version]);
    gauge.set(waiting);
    let Some(gathered) = request.clone().gather(reader, beginnings).await? else { return Ok(request.paused()) };
    let (tasks, gathered) = request.clone().open_tasks(gathered).await?;
    Ok(request.answer(gathered, tasks, &not_ready))
}

/// One GET under way.
struct Gather {
    dispatcher: Arc<Dispatcher>,
    params: GetParams,
    task: bool,
    user_agent: String,
    /// What the passes so far have gathered, for the duplicate filter; empty without it.
    gathered: Mutex<HashSet<Mark>>,
}

/// Runs on a blocking thread; its result is dropped there, and what was taken given back, when the request has gone.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReaderError> + Send + 'static,
) -> Result<T, GetError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(refusal),
        Err(_) => Err(GetError::Stopping),
    }
}

fn refusal(error: ReaderError) -> GetError {
    match error {
        ReaderError::Commit(CommitOffsetsError::Append(AppendError::DiskFull)) => GetError::DiskFull,
        ReaderError::Commit(CommitOffsetsError::Append(AppendError::Closed)) => GetError::Stopping,
        ReaderError::Commit(CommitOffsetsError::Append(AppendError::Poisoned { .. })) => GetError::Poisoned,
        ReaderError::Read(_) | ReaderError::Index(_) | ReaderError::Commit(_) => {
            tracing::error!(%error, "events could not be read");
            GetError::FetchFailed(error.to_string())
        }
    }
}

impl Gather {
    /// The reader of this plugin key, with its positions fixed; on `reset` a new one whose groups start afresh.
    async fn open(self: Arc<Self>, reset: bool) -> Result<(Arc<Reader>, Vec<Flow>), GetError> {
        blocking(move || {
            let Self { dispatcher, params, .. } = self.as_ref();
            let now_ms = dispatcher.now_ms();
            let wanted = || subscriptions(params, &dispatcher.options.topic_prefix);
            let (reader, old) = dispatcher.readers.get(PluginKey::of(params), wanted, now_ms, reset);
            if let Some(old) = old {
                old.close();
            }
            if reset {
                reader.forget_groups()?;
            }
            let not_ready = self.open_reader(&reader, now_ms)?;
            Ok((reader, not_ready))
        })
        .await
    }

    fn open_reader(&self, reader: &Reader, now_ms: i64) -> Result<Vec<Flow>, ReaderError> {
        if !self.task {
            return reader.open(now_ms, &User::Passive);
        }
        self.dispatcher.settle_pause();
        reader.open(now_ms, &User::Task(self.dispatcher.pause.ended()))
    }

    /// Whether what is handed out becomes a task (5.5.8).
    fn makes_tasks(&self) -> bool {
        self.task && self.params.model == Model::Binary
    }

    /// Whether it is a task consumer that has to wait for the end of a pause.
    fn is_paused(&self) -> bool {
        self.task && self.dispatcher.is_paused()
    }

    /// The answer to a task consumer while plugins are paused (6.4).
    fn paused(&self) -> GetAnswer {
        let info = Info { filters: &FilterCounts::default(), fetched: 0, not_ready: &[], paused: true };
        let body = if self.params.avro { model::avro_bulk_of(&[]) } else { events_json(&[]) };
        multipart(&info, body, None)
    }

    /// Writes down the tasks that are about to be handed out.
    async fn open_tasks(self: Arc<Self>, gathered: Gathered) -> Result<(Option<HandedOut>, Gathered), GetError> {
        if !self.makes_tasks() || gathered.events.is_empty() {
            return Ok((None, gathered));
        }
        blocking(move || {
            let now_ms = self.dispatcher.now_ms();
            let tasks = self.dispatcher.open_tasks(&gathered.events, &self.params, now_ms);
            let tasks = tasks.map_err(|error| ReaderError::Commit(CommitOffsetsError::Append(error)))?;
            Ok((tasks, gathered))
        })
        .await
    }

    /// The loop of events.md 5.4, with wake-ups in place of polls. `None` when plugins are paused.
    async fn gather(
        self: Arc<Self>,
        mut reader: Arc<Reader>,
        mut beginnings: watch::Receiver<u64>,
    ) -> Result<Option<Gathered>, GetError> {
        let started = Instant::now();
        let no_wait = self.params.deadline.is_zero();
        let end = started + if no_wait { SWEEP } else { self.params.deadline };
        let mut gathered = Gathered::nothing(Taken::nothing(&reader));
        let mut waiter = self.watch(&reader).await?;
        loop {
            let wanted = self.params.count - gathered.encoded.len();
            let room = self.dispatcher.options.fetch_max_bytes.saturating_sub(gathered.bytes);
            if wanted == 0 || room == 0 {
                break;
            }
            if reader.is_closed() {
                // Somebody reset it. What it gave is handed out; else the new one is waited for.
                if !gathered.taken.is_empty() {
                    break;
                }
                reader = self.clone().open(false).await?.0;
                gathered.taken = Taken::nothing(&reader);
                waiter = self.watch(&reader).await?;
            }
            let Some(place) = self.room(&gathered).await? else { break };
            let (this, source) = (self.clone(), reader.clone());
            let Some((found, pass)) = blocking(move || this.pass(&source, wanted, room, place)).await? else {
                if gathered.encoded.is_empty() {
                    return Ok(None);
                }
                break;
            };
            gathered.add(pass);
            let over = Instant::now() >= end;
            if found && !over {
                continue;
            }
            if no_wait || over {
                break;
            }
            if !self.wait(&waiter, &mut beginnings, end, !gathered.encoded.is_empty()).await? {
                break;
            }
            if !reader.is_current() {
                waiter = self.watch(&reader).await?;
            }
        }
        self.dispatcher.metrics.consume_duration.observe(["read_from_kafka"], started.elapsed());
        Ok(Some(gathered))
    }

    /// Room for what the next pass takes; `None` when there is none and the request has something already.
    async fn room(&self, gathered: &Gathered) -> Result<Option<Place>, GetError> {
        let nothing_yet = gathered.encoded.is_empty();
        let wait = if nothing_yet { ROOM_WAIT } else { Duration::ZERO };
        match self.dispatcher.memory.place(wait).await {
            None if nothing_yet => Err(GetError::Overloaded { retry_after: RETRY_AFTER }),
            place => Ok(place),
        }
    }

    /// Something to wait on for every topic there is to read: none is made or deleted unseen between looking for topics
    /// and waiting for them.
    async fn watch(self: &Arc<Self>, reader: &Arc<Reader>) -> Result<Waiter, GetError> {
        loop {
            let waiter = self.dispatcher.broker.waiter(reader.partitions().into_iter());
            if reader.is_current() {
                return Ok(waiter);
            }
            let (this, source) = (self.clone(), reader.clone());
            blocking(move || this.open_reader(&source, this.dispatcher.now_ms())).await?;
        }
    }

    /// Waits until something may have come, or plugins are paused. False at the deadline, when the process stops, and when
    /// others lack the room that `has_some` events of this request take.
    async fn wait(
        &self,
        waiter: &Waiter,
        beginnings: &mut watch::Receiver<u64>,
        end: Instant,
        has_some: bool,
    ) -> Result<bool, GetError> {
        let Ok(_place) = self.dispatcher.waiting.try_acquire() else {
            return if has_some { Ok(false) } else { Err(GetError::Overloaded { retry_after: RETRY_AFTER }) };
        };
        let memory = &self.dispatcher.memory;
        tokio::select! {
            () = memory.is_short(), if has_some => Ok(false),
            () = waiter.woken() => Ok(true),
            Ok(()) = beginnings.changed(), if self.task => Ok(true),
            () = tokio::time::sleep_until(end.into()) => Ok(false),
            () = self.dispatcher.stopping.cancelled() => Ok(false),
        }
    }

    /// Takes what is there and filters it. The first part is false when there was nothing; `None` when plugins are paused.
    fn pass(
        &self,
        reader: &Arc<Reader>,
        count: usize,
        max_bytes: usize,
        mut place: Place,
    ) -> Result<Option<(bool, Gathered)>, ReaderError> {
        let (candidates, taken) = reader.take(count, max_bytes.min(PASS_BYTES))?;
        // Behind the look at the log: what came with the request for a pause is given back.
        if self.is_paused() {
            return Ok(None);
        }
        let mut gathered = Gathered::nothing(taken);
        if candidates.is_empty() {
            // A run of tombstones has more behind it.
            return Ok(Some((!gathered.taken.is_empty(), gathered)));
        }
        let Dispatcher { metrics, caches, purges, .. } = self.dispatcher.as_ref();
        let started = Instant::now();
        let mut fetched = self.decode(candidates, &mut gathered.counts);
        metrics.consume_duration.observe(["upgrade_event"], started.elapsed());
        let started = Instant::now();
        let now_ms = self.dispatcher.now_ms();
        if self.params.model == Model::Binary {
            purges.catch_up()?;
        }
        let mut earlier = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let duplicates = caches.duplicates.as_ref();
        let rewind = duplicates.map(|_| reader.rewind()).unwrap_or_default();
        let asking = duplicates.and_then(|d| Asking::new(d, metrics, (&self.params, rewind), &earlier));
        let purged = self.dispatcher.for_consumer(&self.params, self.task, now_ms, |consumer| {
            let consumer = Consumer { duplicates: asking.as_ref(), ..*consumer };
            filter::consume(&mut fetched, |(event, _)| event, &consumer, &mut gathered.counts)
        });
        drop(asking);
        self.bury(purged, &mut gathered.counts, now_ms);
        gathered.events = fetched.into_iter().map(|(event, _)| event).collect();
        if self.makes_tasks() {
            self.replay(&mut gathered, &mut place, now_ms);
            self.raise_dequeued(&mut gathered, now_ms / 1000);
        }
        if duplicates.is_some() {
            earlier.extend(duplicates::marks((&self.params, rewind), &gathered.events));
        }
        drop(earlier);
        metrics.consume_duration.observe(["run_pipelines"], started.elapsed());
        let encode = if self.params.avro { model::encode_avro } else { model::to_json };
        gathered.encoded = gathered.events.iter().map(encode).collect();
        if !self.makes_tasks() {
            gathered.events = Vec::new();
        }
        gathered.bytes = gathered.encoded.iter().map(Vec::len).sum();
        self.dispatcher.memory.fit(&mut place.room, gathered.bytes);
        gathered.room = Some(place.room);
        Ok(Some((true, gathered)))
    }

    /// Sees to the tombstones of purged events and counts them (6.6).
    fn bury(&self, purged: Vec<((Event, Candidate), PurgeKind)>, counts: &mut FilterCounts, now_ms: i64) {
        let total = u64::try_from(purged.len()).unwrap_or(u64::MAX);
        let record = |((event, candidate), kind): ((Event, Candidate), PurgeKind)| {
            let Candidate { key, partition, offset, .. } = candidate;
            // Under another record key than its own, other events may lie.
            let for_good = kind == PurgeKind::Id && key.as_deref() == Some(event.kafka_key().as_bytes());
            Purged { partition, offset, key, for_good }
        };
        let failed = match purged.is_empty() {
            true => 0,
            false => self.dispatcher.burial.bury(purged.into_iter().map(record).collect(), now_ms),
        };
        (0..failed).for_each(|_| counts.add(previously_deleted::ERROR));
        (failed..total).for_each(|_| counts.add(previously_deleted::DELETED));
        self.dispatcher.metrics.consume_pipelines_error.add([previously_deleted::STAGE], failed);
    }

    /// Writes down an event that something is wrong with, if anybody wants to know.
    fn log(&self, pipeline: &'static str, what: &str, error: &str, excerpt: impl FnOnce() -> Excerpt) {
        if let Some(files) = self.dispatcher.log_files() {
            let line = EventLine::new(&self.user_agent, pipeline, what, error, excerpt());
            files.consumer(&self.params.name, &self.params.version, line);
        }
    }

    /// Decodes what was taken; records that are no events of their topic's model are counted (design.md 16).
    fn decode(&self, candidates: Vec<Candidate>, counts: &mut FilterCounts) -> Vec<(Event, Candidate)> {
        let mut events = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let Some(model) = candidate.model else {
                counts.add(UNDECODABLE);
                continue;
            };
            match model::decode_avro(model, &candidate.value) {
                Ok(event) => events.push((event, candidate)),
                Err(error) => {
                    counts.add(UNDECODABLE);
                    let what = format!("a record is no {model} event");
                    self.log(UNDECODABLE.stage, &what, &error.to_string(), || Excerpt::of_bytes(&candidate.value));
                }
            }
        }
        events
    }

    /// Answers tasks with what the same plugin made of the same bytes before (5.5.7).
    fn replay(&self, gathered: &mut Gathered, place: &mut Place, now_ms: i64) {
        let Some(replayer) = Replayer::new(&self.dispatcher, &self.params, now_ms) else { return };
        let started = Instant::now();
        let Gathered { events, counts, .. } = gathered;
        if events.iter().any(|event| replayer.knows(event)) {
            let failed = |event: &Event, error: &NotReplayed| {
                self.log(replay::STAGE, "the task is handed out instead", &error.to_string(), || Excerpt::of(event));
            };
            let mut answered = place.without_turn(|| replayer.answer(events, failed)).into_iter();
            events.retain(|_| {
                let answered = answered.next().unwrap_or(false);
                if answered {
                    counts.add(REPLAYED);
                }
                !answered
            });
        }
        self.dispatcher.metrics.consume_pipelines_duration.observe([replay::STAGE], started.elapsed());
    }

    /// Marks events as tasks (5.5.8).
    fn raise_dequeued(&self, gathered: &mut Gathered, now_secs: i64) {
        let GetParams { name, version, .. } = &self.params;
        let counts = &mut gathered.counts;
        gathered.events.retain_mut(|event| match event {
            Event::Binary(binary) if binary.kafka_key.is_empty() => {
                counts.add(NO_ID);
                false
            }
            Event::Binary(binary) => {
                binary.dequeued = format!("{}.{name}.{version}.{now_secs}", binary.kafka_key);
                true
            }
            Event::Delete(_)
            | Event::Download(_)
            | Event::Insert(_)
            | Event::Plugin(_)
            | Event::Retrohunt(_)
            | Event::Status(_) => true,
        });
    }

    fn answer(&self, gathered: Gathered, tasks: Option<HandedOut>, not_ready: &[Flow]) -> GetAnswer {
        let started = Instant::now();
        let Gathered { encoded, counts, taken, room, .. } = gathered;
        let metrics = &self.dispatcher.metrics;
        let labels = [self.params.name.as_str(), self.params.model.as_str()];
        let fetched = encoded.len();
        metrics.events_fetched.add(labels, u64::try_from(fetched).unwrap_or(0));
        metrics.events_filtered.add(labels, counts.total());
        for (key, count) in counts.iter() {
            metrics.consume_pipelines_removed.add([key.stage], count);
        }
        let info = Info { filters: &counts, fetched, not_ready, paused: false };
        let body = match self.params.avro {
            true => model::avro_bulk_of(&encoded),
            false => events_json(&encoded),
        };
        let marks = std::mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
        let (marks, dispatcher) = (marks.into_iter().collect(), self.dispatcher.clone());
        let answer = multipart(
            &info,
            body,
            Some(DeliveryGuard::new(Positions { taken, tasks, marks, dispatcher, _room: room })),
        );
        metrics.consume_duration.observe(["metadata"], started.elapsed());
        answer
    }
}

fn multipart(info: &Info<'_>, body: Vec<u8>, delivery: Option<DeliveryGuard>) -> GetAnswer {
    let Multipart { content_type, head, tail } = Multipart::new(&info.to_json(), &body, super::random_bytes);
    GetAnswer { content_type, body: vec![Bytes::from(head), Bytes::from(body), Bytes::from(tail)], delivery }
}

impl Gathered {
    fn nothing(taken: Taken) -> Self {
        Self { events: Vec::new(), encoded: Vec::new(), bytes: 0, counts: FilterCounts::default(), taken, room: None }
    }

    fn add(&mut self, pass: Gathered) {
        self.events.extend(pass.events);
        self.encoded.extend(pass.encoded);
        self.bytes += pass.bytes;
        for (key, count) in pass.counts.iter() {
            (0..count).for_each(|_| self.counts.add(key));
        }
        self.taken.join(pass.taken);
        match (&mut self.room, pass.room) {
            (Some(room), Some(more)) => room.merge(more),
            (room, more) => *room = room.take().or(more),
        }
    }
}

/// Moves the positions once the client has the answer, and remembers that it has; without that the tasks in it never
/// were.
struct Positions {
    // Before the events are free for others: a task of the same second would have the same id.
    tasks: Option<HandedOut>,
    taken: Taken,
    marks: Vec<Mark>,
    dispatcher: Arc<Dispatcher>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Delivery for Positions {
    fn on_delivered(self: Box<Self>) {
        let Self { taken, tasks, marks, dispatcher, _room } = *self;
        if let Some(duplicates) = &dispatcher.caches.duplicates {
            duplicates.seen(&marks, &dispatcher.metrics);
        }
        taken.delivered();
        if let Some(tasks) = tasks {
            tasks.delivered();
        }
    }

    fn on_lost(self: Box<Self>) {
        drop(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn who_lacks_room_is_noticed_by_those_who_have_some() {
        let memory = Memory::new(PASS_ROOM);
        let mut first = memory.place(Duration::ZERO).await.unwrap();
        assert!(memory.place(Duration::ZERO).await.is_none(), "all of it is taken");
        let (second, ()) = tokio::join!(memory.place(ROOM_WAIT), async {
            memory.is_short().await;
            memory.fit(&mut first.room, 10);
            drop(first);
        });
        assert!(second.is_some());
        assert!(tokio::time::timeout(SOON, memory.is_short()).await.is_err(), "nobody waits any more");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_waits_for_the_turn_of_who_waits_for_a_disk() {
        let memory = Memory::new(PASS_ROOM);
        let turns = || memory.passes.available_permits();
        let (all, mut place) = (turns(), memory.place(Duration::ZERO).await.unwrap());
        assert_eq!(turns(), all - 1);
        tokio::task::block_in_place(|| place.without_turn(|| assert_eq!(turns(), all)));
        assert_eq!(turns(), all - 1, "it goes on with one");
        drop(place);
        assert_eq!(turns(), all);
    }

    #[tokio::test]
    async fn room_is_fitted_to_what_came_of_it_and_comes_back() {
        let memory = Memory::new(2 * PASS_ROOM);
        let units = || memory.answers.available_permits();
        let all = units();
        let mut place = memory.place(Duration::ZERO).await.unwrap();
        memory.fit(&mut place.room, 3 * ROOM_UNIT);
        assert_eq!(all - units(), 3);
        memory.fit(&mut place.room, PASS_ROOM + ROOM_UNIT);
        assert_eq!(all - units(), PASS_ROOM / ROOM_UNIT + 1);
        memory.fit(&mut place.room, 3 * PASS_ROOM);
        assert_eq!(all - units(), PASS_ROOM / ROOM_UNIT + 1, "what does not fit goes without");
        drop(place);
        assert_eq!(units(), all);
        let _held = memory.place(ROOM_WAIT).await.unwrap();
        let _other = memory.place(ROOM_WAIT).await.unwrap();
        assert!(memory.place(SOON).await.is_none(), "it is waited for, and not for ever");
    }
}
