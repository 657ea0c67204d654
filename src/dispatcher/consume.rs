//! GET: events are gathered by precedence, filtered, and handed out. Contract events.md 5.3 to 5.5.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Dispatcher;
use super::answer::{EVENTS_HEAD, EVENTS_TAIL, Info, Multipart};
use super::fetch_memory::Place;
use super::filter::duplicates::{self, Asking, Mark};
use super::filter::{self, Consumer, FilterCounts, FilterKey, UNDECODABLE, previously_deleted};
use super::hub::{Delivery, DeliveryGuard, GetAnswer, GetError, GetRequest};
use super::leases::{Due, From, HandedOut, Kept, KeptBack, NewLease, Place as StoredPlace, Waiting, Work};
use super::model::{self, Event, EventIn, EventOf, Model};
use super::params::GetParams;
use super::plugin_key::{Flow, PluginKey, subscriptions};
use super::purge::{PurgeKind, Purged};
use super::reader::{Candidate, Reader, ReaderError, Taken, User};
use super::replay::{self, NotReplayed, Replayer};
use super::topic::{error_topic, expedite_topic};
use crate::broker::{AppendError, CommitOffsetsError, Waiter};
use crate::log_files::{EventLine, Excerpt};

/// Filter stage and reason of a task whose event has no key.
const NO_ID: FilterKey = FilterKey { stage: "RaiseDequeuedStatus", reason: "error_no_id" };
/// Filter stage and reason of a task that was answered with an earlier result.
const REPLAYED: FilterKey = FilterKey { stage: replay::STAGE, reason: replay::CACHED };
/// Why an event is not run again whose record has been removed, or has given way to a newer one of its key.
const GONE: &str = "its record has gone from its topic";
/// The longest one sweep without waiting (`deadline=0`) goes on while everything is filtered.
const SWEEP: Duration = Duration::from_secs(1);
/// The longest wait for an event that is due later; then it is looked again.
const DUE_WAIT: Duration = Duration::from_secs(3600);
/// When another try makes sense after an overload.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes of stored events that one pass takes, about: decoded they are several times as much.
const PASS_BYTES: usize = 2 << 20;
/// How long a request waits until answers that others have not taken yet leave room for its own.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// What one request has gathered so far.
struct Gathered {
    /// The leases that are to be made of the events.
    tasks: Vec<NewLease>,
    /// Those of them that waited, and others, which nobody else gets meanwhile.
    due: Option<Due>,
    /// How many events go out.
    count: usize,
    /// The events as they go out, of each pass that found some.
    parts: Vec<Vec<u8>>,
    bytes: usize,
    counts: FilterCounts,
    taken: Taken,
    /// The place that `bytes` take among all answers; comes back when the answer has left.
    room: Option<OwnedSemaphorePermit>,
    /// A pause of plugins began before there was an event to hand out.
    paused: bool,
}

/// One event on its way through the filters, which borrows what it can from its record.
struct Item<'a> {
    event: EventIn<'a>,
    candidate: &'a Candidate,
    /// The record's value is what writing the event as Avro would give.
    plain: bool,
}

/// A reader that was opened, and what came of it at once.
struct Begun {
    reader: Arc<Reader>,
    waiter: Waiter,
    /// Changes when an event may be due for another run.
    due: Option<watch::Receiver<()>>,
    not_ready: Vec<Flow>,
    /// The first pass, where there was room for it; `None` in it when plugins are paused.
    first: Option<Option<(bool, Gathered)>>,
    started: Instant,
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
    let GetRequest { task, user_agent, in_process, .. } = request;
    let (log, now_ms) = (dispatcher.broker.log().as_ref(), dispatcher.now_ms());
    dispatcher.registry.register(log, &params, task, &user_agent, now_ms);
    let beginnings = dispatcher.pause.beginnings();
    let request = Arc::new(Gather { dispatcher, params, task, user_agent, in_process, gathered: Mutex::default() });
    if request.is_paused() {
        return Ok(request.paused());
    }
    let begun = request.clone().begin().await?;
    let not_ready = begun.not_ready.clone();
    let Some(gathered) = request.clone().gather(begun, beginnings).await? else { return Ok(request.paused()) };
    let (tasks, gathered) = request.clone().open_tasks(gathered).await?;
    Ok(request.answer(gathered, tasks, &not_ready))
}

/// One GET under way.
struct Gather {
    dispatcher: Arc<Dispatcher>,
    params: GetParams,
    task: bool,
    user_agent: String,
    in_process: bool,
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
    /// Opens the reader and makes the first pass, all in one go where there is room for that: each thread that is waited
    /// for costs as much as a few events.
    async fn begin(self: Arc<Self>) -> Result<Begun, GetError> {
        blocking(move || {
            let (reader, waiter, not_ready) = self.open(self.params.reset)?;
            let due = self.makes_tasks().then(|| self.watch_due());
            // Behind what waits for the disk.
            let place = self.dispatcher.memory.place_now();
            let GetParams { name, version, model, count, .. } = &self.params;
            let metrics = &self.dispatcher.metrics;
            metrics.event_fetch_requests.inc([name, model.as_str()]);
            metrics.consume_not_ready.at([name, version]).set(i64::try_from(not_ready.len()).unwrap_or(0));
            let started = Instant::now();
            let room = self.dispatcher.options.fetch_max_bytes;
            let first = place.map(|place| self.pass(&reader, *count, room, place)).transpose()?;
            Ok(Begun { reader, waiter, due, not_ready, first, started })
        })
        .await
    }

    /// The reader of this plugin key, with its positions fixed, and something to wait on for what it reads; on `reset` a
    /// new one whose groups start afresh.
    fn open(&self, reset: bool) -> Result<(Arc<Reader>, Waiter, Vec<Flow>), ReaderError> {
        let Self { dispatcher, params, .. } = self;
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
        let waiter = self.watch(&reader)?;
        Ok((reader, waiter, not_ready))
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
        multipart(&info, self.params.avro, Vec::new(), None)
    }

    /// Leases what is about to be handed out.
    async fn open_tasks(self: Arc<Self>, mut gathered: Gathered) -> Result<(Option<HandedOut>, Gathered), GetError> {
        if gathered.tasks.is_empty() {
            return Ok((None, gathered));
        }
        blocking(move || {
            let new = std::mem::take(&mut gathered.tasks);
            let tasks = self.dispatcher.hand_out(new, &mut gathered.taken, self.in_process);
            let tasks = tasks.map_err(|error| ReaderError::Commit(CommitOffsetsError::Append(error)))?;
            // From here on they are in rows of another kind.
            gathered.due = None;
            Ok((tasks, gathered))
        })
        .await
    }

    fn watch_due(&self) -> watch::Receiver<()> {
        let Self { dispatcher, params, .. } = self;
        dispatcher.leases().watch(dispatcher.broker.log().as_ref(), &params.name, &params.version)
    }

    /// In how many milliseconds an event may be due for another run; not positive when one may be now.
    fn due_in_ms(&self) -> i64 {
        let Self { dispatcher, params: GetParams { name, version, .. }, .. } = self;
        dispatcher.leases().due_in_ms(dispatcher.broker.log().as_ref(), (name, version), dispatcher.now_ms())
    }

    fn may_be_due(&self) -> bool {
        let Self { dispatcher, params: GetParams { name, version, .. }, .. } = self;
        dispatcher.leases().may_be_due(dispatcher.broker.log().as_ref(), (name, version), dispatcher.now_ms())
    }

    /// The loop of events.md 5.4, with wake-ups in place of polls. `None` when plugins are paused.
    async fn gather(
        self: Arc<Self>,
        begun: Begun,
        mut beginnings: watch::Receiver<u64>,
    ) -> Result<Option<Gathered>, GetError> {
        let Begun { mut reader, mut waiter, mut due, mut first, started, .. } = begun;
        let no_wait = self.params.deadline.is_zero();
        let end = started + if no_wait { SWEEP } else { self.params.deadline };
        let mut gathered = Gathered::nothing(Taken::nothing(&reader));
        loop {
            let passed = match first.take() {
                Some(passed) => passed,
                None => {
                    let wanted = self.params.count - gathered.count;
                    let room = self.dispatcher.options.fetch_max_bytes.saturating_sub(gathered.bytes);
                    if wanted == 0 || room == 0 {
                        break;
                    }
                    if reader.is_closed() {
                        // Somebody reset it. What it gave is handed out; else the new one is waited for.
                        if !gathered.taken.is_empty() {
                            break;
                        }
                        let this = self.clone();
                        (reader, waiter, _) = blocking(move || this.open(false)).await?;
                        gathered.taken = Taken::nothing(&reader);
                    }
                    let Some(place) = self.room(&gathered).await? else { break };
                    let (this, source) = (self.clone(), reader.clone());
                    blocking(move || this.pass(&source, wanted, room, place)).await?
                }
            };
            let Some((found, pass)) = passed else {
                if gathered.taken.is_empty() {
                    return Ok(None);
                }
                // What was left out so far is done with, and some of it was replayed: it is told of, not given back.
                gathered.paused = gathered.count == 0;
                break;
            };
            gathered.add(pass);
            let over = Instant::now() >= end;
            if gathered.count >= self.params.count {
                break;
            }
            if reader.is_closed() && gathered.taken.is_empty() && !over {
                continue;
            }
            if found && !over {
                continue;
            }
            if no_wait || over {
                break;
            }
            if !self.wait(&waiter, due.as_mut(), &mut beginnings, end, gathered.count > 0).await? {
                break;
            }
            if !reader.is_current() {
                let (this, source) = (self.clone(), reader.clone());
                waiter = blocking(move || this.watch(&source)).await?;
            }
        }
        self.dispatcher.metrics.consume_duration.observe(["read_from_kafka"], started.elapsed());
        Ok(Some(gathered))
    }

    /// Room for what the next pass takes; `None` when there is none and the request has something already.
    async fn room(&self, gathered: &Gathered) -> Result<Option<Place>, GetError> {
        let nothing_yet = gathered.count == 0;
        let wait = if nothing_yet { ROOM_WAIT } else { Duration::ZERO };
        match self.dispatcher.memory.place(wait).await {
            None if nothing_yet => Err(GetError::Overloaded { retry_after: RETRY_AFTER }),
            place => Ok(place),
        }
    }

    /// Something to wait on for every topic there is to read: none is made or deleted unseen between looking for topics
    /// and waiting for them.
    fn watch(&self, reader: &Reader) -> Result<Waiter, ReaderError> {
        loop {
            let waiter = self.dispatcher.broker.waiter(reader.partitions().into_iter());
            if reader.is_current() {
                return Ok(waiter);
            }
            self.open_reader(reader, self.dispatcher.now_ms())?;
        }
    }

    /// Waits until something may have come, or plugins are paused. False at the deadline, when the process stops, and when
    /// others lack the room that `has_some` events of this request take.
    async fn wait(
        &self,
        waiter: &Waiter,
        due: Option<&mut watch::Receiver<()>>,
        beginnings: &mut watch::Receiver<u64>,
        end: Instant,
        has_some: bool,
    ) -> Result<bool, GetError> {
        let Ok(_place) = self.dispatcher.waiting.try_acquire() else {
            return if has_some { Ok(false) } else { Err(GetError::Overloaded { retry_after: RETRY_AFTER }) };
        };
        let memory = &self.dispatcher.memory;
        let is_due = async {
            let Some(due) = due else { return std::future::pending().await };
            let due_in = Duration::from_millis(u64::try_from(self.due_in_ms()).unwrap_or(0)).min(DUE_WAIT);
            tokio::select! {
                changed = due.changed() => if changed.is_err() { std::future::pending().await },
                () = tokio::time::sleep(due_in) => {}
            }
        };
        tokio::select! {
            () = memory.is_short(), if has_some => Ok(false),
            () = waiter.woken() => Ok(true),
            () = is_due => Ok(true),
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
        let max_bytes = max_bytes.min(PASS_BYTES);
        let mut taken = None;
        if self.makes_tasks() && self.may_be_due() {
            // They are before all others but expedited ones.
            let (candidates, expedited) = reader.take_flow(Flow::Expedite, count, max_bytes)?;
            match expedited.is_empty() {
                false => taken = Some((candidates, expedited)),
                true if self.is_paused() => return Ok(None),
                true => match self.pass_waiting(reader, count, max_bytes, place)? {
                    Ok(gathered) => return Ok(Some((true, gathered))),
                    Err(unused) => place = unused,
                },
            }
        }
        let (candidates, taken) = match taken {
            Some(taken) => taken,
            None => reader.take(count, max_bytes)?,
        };
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
        let mut items = self.decode(&candidates, &mut gathered.counts);
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
            filter::consume(&mut items, |item| &item.event, &consumer, &mut gathered.counts)
        });
        drop(asking);
        if !purged.is_empty() {
            place.without_turn(|| self.bury(purged, &mut gathered.counts, now_ms));
        }
        if self.makes_tasks() {
            self.replay(&mut items, &mut gathered.counts, &mut place, now_ms);
            self.raise_dequeued(&mut items, &mut gathered.counts, now_ms / 1000)?;
        }
        if duplicates.is_some() {
            earlier.extend(duplicates::marks((&self.params, rewind), items.iter().map(|item| &item.event)));
        }
        drop(earlier);
        metrics.consume_duration.observe(["run_pipelines"], started.elapsed());
        gathered.count = items.len();
        let encoded = self.encode(&items);
        // What frames the events is no room taken when there are none.
        if gathered.count > 0 {
            gathered.bytes = encoded.len();
            gathered.parts.push(encoded);
        }
        if self.makes_tasks() {
            gathered.tasks = items.into_iter().filter_map(|item| self.new_lease(item)).collect();
        }
        self.dispatcher.memory.fit(&mut place.room, gathered.bytes);
        gathered.room = Some(place.room);
        Ok(Some((true, gathered)))
    }

    /// The events as they go out, one behind the other; JSON with what the events part begins with.
    fn encode(&self, items: &[Item<'_>]) -> Vec<u8> {
        let stored: usize = items.iter().map(|item| item.candidate.value.len()).sum();
        // JSON is longer by the names of its members.
        let capacity = if self.params.avro { stored } else { stored + stored / 4 * 3 };
        let mut out = Vec::with_capacity(capacity + EVENTS_HEAD.len() + EVENTS_TAIL.len());
        if self.params.avro {
            for item in items {
                match item.plain {
                    true => out.extend_from_slice(&item.candidate.value),
                    false => model::write_avro(&item.event, &mut out),
                }
            }
            return out;
        }
        out.extend_from_slice(EVENTS_HEAD);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            model::write_json(&item.event, &mut out);
        }
        out
    }

    /// Sees to the tombstones of purged events and counts them (6.6).
    fn bury(&self, purged: Vec<(Item<'_>, PurgeKind)>, counts: &mut FilterCounts, now_ms: i64) {
        let total = u64::try_from(purged.len()).unwrap_or(u64::MAX);
        let record = |(Item { event, candidate, .. }, kind): (Item<'_>, PurgeKind)| {
            let Candidate { key, partition, offset, .. } = candidate.clone();
            // Under another record key than its own, other events may lie.
            let for_good = kind == PurgeKind::Id && key.as_deref() == Some(event.kafka_key().as_bytes());
            Some(Purged { partition: partition?, offset, key, for_good })
        };
        let failed = match purged.is_empty() {
            true => 0,
            false => self.dispatcher.burial.bury(purged.into_iter().filter_map(record).collect(), now_ms),
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
    fn decode<'a>(&self, candidates: &'a [Candidate], counts: &mut FilterCounts) -> Vec<Item<'a>> {
        let mut items = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let Some(model) = candidate.model else {
                counts.add(UNDECODABLE);
                continue;
            };
            match model::look_avro(model, &candidate.value) {
                Ok((event, plain)) => items.push(Item { event, candidate, plain }),
                Err(error) => {
                    counts.add(UNDECODABLE);
                    let what = format!("a record is no {model} event");
                    self.log(UNDECODABLE.stage, &what, &error.to_string(), || Excerpt::of_bytes(&candidate.value));
                }
            }
        }
        items
    }

    /// Answers tasks with what the same plugin made of the same bytes before (5.5.7).
    fn replay(&self, items: &mut Vec<Item<'_>>, counts: &mut FilterCounts, place: &mut Place, now_ms: i64) {
        let Some(replayer) = Replayer::new(&self.dispatcher, &self.params, now_ms) else { return };
        let started = Instant::now();
        let known = items.iter().enumerate().filter(|(_, item)| replayer.knows(&item.event));
        let owned = known
            .filter_map(|(index, item)| Some((index, model::decode_avro(Model::Binary, &item.candidate.value).ok()?)));
        let (indices, events): (Vec<usize>, Vec<Event>) = owned.unzip();
        if !events.is_empty() {
            let failed = |event: &Event, error: &NotReplayed| {
                self.log(replay::STAGE, "the task is handed out instead", &error.to_string(), || Excerpt::of(event));
            };
            let answered = place.without_turn(|| replayer.answer(&events, failed));
            let answered: HashSet<usize> =
                indices.into_iter().zip(answered).filter_map(|(index, answered)| answered.then_some(index)).collect();
            let mut index = 0..;
            items.retain(|_| !index.next().is_some_and(|index| answered.contains(&index)));
            answered.iter().for_each(|_| counts.add(REPLAYED));
        }
        self.dispatcher.metrics.consume_pipelines_duration.observe([replay::STAGE], started.elapsed());
    }

    /// Marks events as tasks (5.5.8).
    fn raise_dequeued(
        &self,
        items: &mut Vec<Item<'_>>,
        counts: &mut FilterCounts,
        now_secs: i64,
    ) -> Result<(), ReaderError> {
        items.retain(|Item { event, .. }| {
            let no_id = matches!(event, EventOf::Binary(binary) if binary.kafka_key.is_empty());
            if no_id {
                counts.add(NO_ID);
            }
            !no_id
        });
        let GetParams { name, version, .. } = &self.params;
        let beginning = |item: &Item<'_>| format!("{}.{name}.{version}", item.event.kafka_key());
        let beginnings = items.iter().map(beginning).collect();
        let log = self.dispatcher.broker.log().as_ref();
        let ids = self.dispatcher.leases().ids(log, beginnings, now_secs)?;
        for (Item { event, plain, .. }, id) in items.iter_mut().zip(ids) {
            if let EventOf::Binary(binary) = event {
                binary.dequeued = Cow::Owned(id);
                *plain = false;
            }
        }
        Ok(())
    }

    /// The lease of an event taken from the log.
    fn new_lease(&self, Item { event, candidate, .. }: Item<'_>) -> Option<NewLease> {
        let EventOf::Binary(binary) = &event else { return None };
        let id = binary.dequeued.to_string();
        let name = candidate.partition.as_ref()?.name();
        let place = StoredPlace { topic: name.topic.clone(), partition: name.partition, offset: candidate.offset };
        // Those topics forget by themselves, however long an event waits.
        let prefix = &self.dispatcher.options.topic_prefix;
        let whole = [expedite_topic(prefix), error_topic(prefix)].contains(&place.topic);
        let consumer = (self.params.name.as_str(), self.params.version.as_str());
        let work = Work::of(event, consumer, place, &candidate.value, whole)?;
        Some(NewLease { id, work, from: From::Queue(candidate.queue) })
    }

    /// Takes events that are due for another run. The place comes back when there are none.
    fn pass_waiting(
        &self,
        reader: &Arc<Reader>,
        count: usize,
        max_bytes: usize,
        mut place: Place,
    ) -> Result<Result<Gathered, Place>, ReaderError> {
        let (dispatcher, GetParams { name, version, .. }) = (&self.dispatcher, &self.params);
        let (log, now_ms) = (dispatcher.broker.log().as_ref(), dispatcher.now_ms());
        let filters = self.params.filters();
        let (rows, due) = dispatcher.leases().take_due(log, (name, version, filters), now_ms, count)?;
        if rows.is_empty() {
            return Ok(Err(place));
        }
        dispatcher.purges.catch_up()?;
        let mut gathered = Gathered::nothing(Taken::nothing(reader));
        let (mut waiting, mut kept, mut candidates) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for row in rows {
            // What does not fit stays.
            if bytes >= max_bytes {
                break;
            }
            match dispatcher.stored_event(&row.work) {
                Ok(Some(value)) => {
                    bytes += value.len();
                    candidates.push(candidate_of(value, waiting.len()));
                    waiting.push(row);
                }
                // It is tried again, and a dead letter in the end.
                Err(error) => {
                    tracing::warn!(?row.work.place, %error, "an event that is to be run again cannot be read");
                    let why = format!("its record cannot be read: {error}");
                    kept.push(KeptBack { waiting: row, why, kept: Kept::Unread, filters });
                }
                Ok(None) => {
                    let (why, fate) = match self.wanted_gone(&row.work, now_ms) {
                        Some(why) => (why.to_string(), Kept::ForGood),
                        None => (GONE.to_owned(), Kept::Lost),
                    };
                    kept.push(KeptBack { waiting: row, why, kept: fate, filters });
                }
            }
        }
        let mut items = self.admit(&candidates, &waiting, &mut gathered.counts, &mut kept, now_ms);
        for kept in kept.iter_mut().filter(|kept| kept.kept == Kept::Here) {
            if self.is_wanted_elsewhere(&kept.waiting.work, now_ms) {
                kept.kept = Kept::Elsewhere;
            }
        }
        let over = kept.iter().filter(|kept| matches!(kept.kept, Kept::ForGood | Kept::Lost));
        let over: Vec<String> = over.map(|kept| kept.waiting.work.kafka_key.clone()).collect();
        match place.without_turn(|| dispatcher.end_kept_back(kept, now_ms)) {
            Ok(()) => self.is_new_again(reader, &over),
            Err(error) => tracing::warn!(%error, "events that are not run again were not seen to"),
        }
        self.raise_dequeued(&mut items, &mut gathered.counts, now_ms / 1000)?;
        let row_of = |candidate: &Candidate| waiting.get(usize::try_from(candidate.offset).unwrap_or(usize::MAX));
        for item in &mut items {
            if let (EventOf::Binary(binary), Some(row)) = (&mut item.event, row_of(item.candidate)) {
                // What a client wrote there stays for the first run only.
                if row.work.attempt > 0 {
                    binary.retries = row.work.attempt;
                }
            }
        }
        gathered.count = items.len();
        if gathered.count > 0 {
            let encoded = self.encode(&items);
            gathered.bytes = encoded.len();
            gathered.parts.push(encoded);
        }
        let lease = |Item { event, candidate, .. }: Item<'_>| {
            let (EventOf::Binary(binary), row) = (event, row_of(candidate)?.clone()) else { return None };
            Some(NewLease {
                id: binary.dequeued.into_owned(),
                work: row.work.clone(),
                from: From::Waiting(Box::new(row)),
            })
        };
        gathered.tasks = items.into_iter().filter_map(lease).collect();
        gathered.due = Some(due);
        dispatcher.memory.fit(&mut place.room, gathered.bytes);
        gathered.room = Some(place.room);
        Ok(Ok(gathered))
    }

    /// Events that waited, filtered one by one: what keeps one back is noted with it.
    fn admit<'a>(
        &self,
        candidates: &'a [Candidate],
        waiting: &[Waiting],
        counts: &mut FilterCounts,
        kept: &mut Vec<KeptBack>,
        now_ms: i64,
    ) -> Vec<Item<'a>> {
        let mut admitted = Vec::with_capacity(candidates.len());
        self.dispatcher.for_consumer(&self.params, self.task, now_ms, |consumer| {
            for (candidate, row) in candidates.iter().zip(waiting) {
                let mut own = FilterCounts::default();
                let mut one = self.decode(std::slice::from_ref(candidate), &mut own);
                if !filter::consume(&mut one, |item| &item.event, consumer, &mut own).is_empty() {
                    own.add(previously_deleted::DELETED);
                }
                admitted.append(&mut one);
                for (key, _) in own.iter() {
                    counts.add(key);
                    let fate = if is_wanted_gone(key) { Kept::ForGood } else { Kept::Here };
                    let (waiting, filters) = (row.clone(), self.params.filters());
                    kept.push(KeptBack { waiting, why: key.to_string(), kept: fate, filters });
                }
            }
        });
        admitted
    }

    /// What was never run to its end is no duplicate when somebody publishes it again.
    fn is_new_again(&self, reader: &Reader, kafka_keys: &[String]) {
        let Some(duplicates) = self.dispatcher.caches.duplicates.as_ref().filter(|_| !kafka_keys.is_empty()) else {
            return;
        };
        let rewind = reader.rewind();
        kafka_keys.iter().for_each(|key| duplicates.forget((&self.params, rewind), key));
    }

    /// Why nobody misses the record of an event that has gone, if its source or a person wanted it gone.
    fn wanted_gone(&self, work: &Work, now_ms: i64) -> Option<FilterKey> {
        let event = Event::Binary(Box::new(work.kept_event()?));
        self.dispatcher.for_consumer(&self.params, self.task, now_ms, |consumer| {
            filter::verdicts(&event, consumer).into_iter().find(|key| is_wanted_gone(*key))
        })
    }

    /// Whether an event that filters keep back from this request passes those of another one of the same consumer.
    fn is_wanted_elsewhere(&self, work: &Work, now_ms: i64) -> bool {
        let Some(event) = self.dispatcher.whole_event(work) else { return false };
        let event = Event::Binary(Box::new(event));
        let GetParams { name, version, .. } = &self.params;
        self.dispatcher.registry.consumers(now_ms).iter().any(|listed| {
            let params = &listed.consumer.params;
            let is_same = params.name == *name && params.version == *version && params.model == Model::Binary;
            let passes = |consumer: &Consumer<'_>| filter::verdicts(&event, consumer).is_empty();
            is_same && listed.consumer.task && self.dispatcher.for_consumer(params, true, now_ms, passes)
        })
    }

    fn answer(&self, gathered: Gathered, tasks: Option<HandedOut>, not_ready: &[Flow]) -> GetAnswer {
        let started = Instant::now();
        let Gathered { count: fetched, parts, counts, taken, room, paused, .. } = gathered;
        let metrics = &self.dispatcher.metrics;
        let labels = [self.params.name.as_str(), self.params.model.as_str()];
        metrics.events_fetched.add(labels, u64::try_from(fetched).unwrap_or(0));
        metrics.events_filtered.add(labels, counts.total());
        for (key, count) in counts.iter() {
            metrics.consume_pipelines_removed.add([key.stage], count);
        }
        let not_ready = if paused { &[] } else { not_ready };
        let info = Info { filters: &counts, fetched, not_ready, paused };
        let marks = std::mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
        let (marks, dispatcher) = (marks.into_iter().collect(), self.dispatcher.clone());
        let delivery = DeliveryGuard::new(Positions { taken, tasks, marks, dispatcher, _room: room });
        let answer = multipart(&info, self.params.avro, parts, Some(delivery));
        metrics.consume_duration.observe(["metadata"], started.elapsed());
        answer
    }
}

/// Whether a filter drops what is to be gone for everybody.
fn is_wanted_gone(key: FilterKey) -> bool {
    [previously_deleted::STAGE, filter::ageoff::STAGE].contains(&key.stage)
}

/// An event that waited, as if it had just been read; its offset is its number among those.
fn candidate_of(value: Bytes, number: usize) -> Candidate {
    let offset = i64::try_from(number).unwrap_or(i64::MAX);
    Candidate { model: Some(Model::Binary), value, key: None, partition: None, offset, queue: usize::MAX }
}

/// The answer with these parts of events in it, each as [`Gather::encode`] makes it.
fn multipart(info: &Info<'_>, avro: bool, mut parts: Vec<Vec<u8>>, delivery: Option<DeliveryGuard>) -> GetAnswer {
    if !avro {
        match parts.last_mut() {
            Some(last) => last.extend_from_slice(EVENTS_TAIL),
            None => parts.push([EVENTS_HEAD, EVENTS_TAIL].concat()),
        }
    }
    // No boundary lies across parts: it is made of digits and letters, and they end with `}` or begin with the version of
    // an event.
    let pieces: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let Multipart { content_type, mut head, mut tail } = Multipart::new(&info.to_json(), &pieces, super::random_bytes);
    if avro {
        head.extend_from_slice(&model::avro_bulk_head(info.fetched));
        tail.splice(..0, model::AVRO_BULK_TAIL.iter().copied());
    }
    let mut body = vec![Bytes::from(head)];
    for (index, part) in parts.into_iter().map(Bytes::from).enumerate() {
        let goes_on = !avro && index > 0;
        body.extend(goes_on.then_some(Bytes::from_static(b",")));
        body.push(if goes_on { part.slice(EVENTS_HEAD.len().min(part.len())..) } else { part });
    }
    body.push(Bytes::from(tail));
    GetAnswer { content_type, body, delivery }
}

impl Gathered {
    fn nothing(taken: Taken) -> Self {
        Self {
            tasks: Vec::new(),
            due: None,
            count: 0,
            parts: Vec::new(),
            bytes: 0,
            counts: FilterCounts::default(),
            taken,
            room: None,
            paused: false,
        }
    }

    fn add(&mut self, pass: Gathered) {
        self.tasks.extend(pass.tasks);
        self.count += pass.count;
        self.parts.extend(pass.parts);
        self.bytes += pass.bytes;
        for (key, count) in pass.counts.iter() {
            (0..count).for_each(|_| self.counts.add(key));
        }
        self.taken.join(pass.taken);
        match (&mut self.due, pass.due) {
            (Some(due), Some(more)) => due.join(more),
            (due, more) => *due = due.take().or(more),
        }
        match (&mut self.room, pass.room) {
            (Some(room), Some(more)) => room.merge(more),
            (room, more) => *room = room.take().or(more),
        }
    }
}

/// Moves the positions once the client has the answer, and remembers that it has; without that the tasks in it never
/// were.
struct Positions {
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
