//! Runs a [`Worker`]: registration, leases, threads, heartbeats, final statuses, the stop.
//!
//! One thread fetches, one looks after the clock, and as many as the worker has slots run jobs. A fetch never asks for
//! more events than there are free slots, so what is in memory is bounded and the log holds the rest. A slot is free again
//! once its final status is stored. Spec: workers.md 1.1 to 1.5, 4.3.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::frame::{Job, Outcome, Status, Worker};
use super::overseer::{Counts, LastError, Overseen, SERVER, WorkerView};
use super::results;
use super::upstream::{Fetched, Upstream, UpstreamError};
use crate::dispatcher::model::{Author, BinaryEvent, Event, PluginEvent, StatusEvent, Timestamp};
use crate::metrics::Metrics;

/// Pause after plugins were paused (workers.md 4.3).
const PAUSED: Duration = Duration::from_secs(5);
/// First and longest pause after something that did not go.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest one fetch waits; the next one follows at once.
const POLL_MAX: Duration = Duration::from_secs(300);
/// Results in one status; more are published before it.
const RESULTS_MAX: usize = 1000;
/// Bytes of results in one request, about.
const RESULTS_BYTES: usize = 8 << 20;
/// Characters of the message of a status.
const MESSAGE_CHARS: usize = 16_000;

/// Times of the frame.
#[derive(Clone)]
pub struct Options {
    /// Time between two heartbeats of a job.
    pub heartbeat: Duration,
    /// How long a final status is tried to be stored after the dispatcher was last heard of: then the lease is over.
    pub lease: Duration,
    /// How often the clock is looked at.
    pub tick: Duration,
    /// The clock.
    pub now: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("heartbeat", &self.heartbeat).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(30),
            lease: Duration::from_secs(30 * 60),
            tick: Duration::from_secs(1),
            now: Arc::new(Instant::now),
        }
    }
}

/// A job from its lease to the end of its slot.
struct Open {
    job: Job,
    begun: Instant,
    deadline: Instant,
    /// Set by whoever sends the final status, or gives the lease back.
    claimed: AtomicBool,
    /// Set once nothing more is said about it.
    ended: AtomicBool,
    /// Set when the result is wanted no more.
    over: Arc<AtomicBool>,
    /// When the dispatcher last took something about it.
    heard: Mutex<Instant>,
}

impl Open {
    /// True for the one caller that may end it.
    fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }
}

#[derive(Default)]
struct State {
    /// Leased, and no thread has them yet.
    queue: VecDeque<u64>,
    /// Every job whose slot is taken.
    open: BTreeMap<u64, Arc<Open>>,
    next: u64,
    stopping: bool,
    /// The grace is over.
    given_up: bool,
    /// Whether a fetch waits.
    fetching: bool,
    /// What was registered last.
    registered: Option<PluginEvent>,
    /// Why nothing is fetched.
    trouble: Option<String>,
    /// Last time that jobs were told of.
    beat: Option<Instant>,
}

struct Shared {
    worker: Arc<dyn Worker>,
    upstream: Arc<dyn Upstream>,
    options: Options,
    metrics: Arc<Metrics>,
    slots: usize,
    state: Mutex<State>,
    changed: Condvar,
    counts: Counts,
}

/// A worker that runs.
pub struct Frame {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Frame {
    /// Starts the threads of a worker.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        worker: Arc<dyn Worker>,
        upstream: Arc<dyn Upstream>,
        options: Options,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Arc<Self>> {
        let slots = worker.slots().max(1);
        let name = worker.announce().entity.name;
        // Heartbeats count from here, however late their thread comes to run.
        let state = Mutex::new(State { beat: Some((options.now)()), ..State::default() });
        let (changed, counts) = (Condvar::new(), Counts::default());
        let shared = Arc::new(Shared { worker, upstream, options, metrics, slots, state, changed, counts });
        let frame = Arc::new(Self { shared: shared.clone(), threads: Mutex::default() });
        let spawn = |role: &str, work: fn(&Arc<Shared>)| {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("{role}-{name}").chars().take(15).collect());
            builder.spawn(move || work(&shared)).map(|thread| lock(&frame.threads).push(thread))
        };
        let started = spawn("fetch", |shared| shared.fetch_all())
            .and_then(|()| spawn("clock", Shared::look_after))
            .and_then(|()| (0..slots).try_for_each(|_| spawn("run", |shared| shared.run_jobs())));
        if let Err(error) = started {
            frame.stop(Duration::ZERO);
            return Err(error);
        }
        Ok(frame)
    }

    /// Ends leasing at once, lets running jobs finish for `grace`, and gives the leases of the others back. Blocks; a job
    /// that goes on after that changes nothing any more.
    pub fn stop(&self, grace: Duration) {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        state.stopping = true;
        let waiting: Vec<u64> = state.queue.drain(..).collect();
        let waiting: Vec<Arc<Open>> = waiting.iter().filter_map(|id| state.open.remove(id)).collect();
        drop(state);
        shared.changed.notify_all();
        shared.upstream.interrupt();
        shared.give_back(&waiting);
        let end = Instant::now().checked_add(grace).unwrap_or_else(Instant::now);
        let mut state = lock(&shared.state);
        // What a fetch still brings is given back by it.
        while !state.open.is_empty() || state.fetching {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.given_up = true;
        let left: Vec<Arc<Open>> = state.open.values().cloned().collect();
        drop(state);
        shared.changed.notify_all();
        left.iter().for_each(|open| open.over.store(true, Ordering::Relaxed));
        shared.give_back(&left);
        let threads = std::mem::take(&mut *lock(&self.threads));
        if left.is_empty() {
            // Nothing blocks them any more but a fetch that nobody can end; the rest ends by itself.
            for thread in threads.into_iter().filter(JoinHandle::is_finished) {
                drop(thread.join());
            }
        }
    }

    /// Reads again what may have changed on disk, and registers what came of it.
    ///
    /// # Errors
    /// Why everything stays as it is.
    pub fn reload(&self) -> Result<String, String> {
        let told = self.shared.worker.reload();
        self.shared.changed.notify_all();
        told
    }
}

impl Overseen for Frame {
    fn view(&self, now_ms: i64) -> WorkerView {
        let shared = &self.shared;
        let state = lock(&shared.state);
        let in_flight = u64::try_from(state.open.len()).unwrap_or(u64::MAX);
        let trouble = shared.worker.down().or_else(|| state.trouble.clone());
        let (stopping, registered) = (state.stopping, state.registered.clone());
        drop(state);
        let announced = registered.unwrap_or_else(|| shared.worker.announce());
        let slots = u64::try_from(shared.slots).unwrap_or(u64::MAX);
        let version = announced.entity.version;
        let query = shared.worker.query();
        let given = query.into_iter().find_map(|(name, value)| (name == "version").then_some(value));
        let word = if stopping {
            "stopping"
        } else if trouble.is_some() {
            "down"
        } else {
            "up"
        };
        WorkerView {
            name: announced.entity.name,
            consumer_version: given.unwrap_or_else(|| version.clone()),
            version,
            place: SERVER.to_owned(),
            state: word.to_owned(),
            reason: trouble.unwrap_or_default(),
            last_seen_ms: None,
            stages: vec![shared.counts.view("run", now_ms, in_flight, slots)],
            facts: shared.worker.facts().into_iter().collect(),
        }
    }

    fn jobs(&self) -> u64 {
        u64::try_from(lock(&self.shared.state).open.len()).unwrap_or(u64::MAX)
    }

    fn reload(&self) -> Result<String, String> {
        Self::reload(self)
    }
}

/// What the fetching thread does next.
enum Next {
    /// Fetches again.
    Now,
    /// Fetches what is there; nothing waits.
    Sweep,
    /// Waits for the next event.
    Wait,
    /// Leaves the dispatcher alone for a while.
    Pause(Duration),
}

impl Shared {
    fn now(&self) -> Instant {
        (self.options.now)()
    }

    /// Waits for a change, at most so long; false when leasing is over.
    fn rest(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut state = lock(&self.state);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if state.stopping || left.is_zero() {
                return !state.stopping;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The fetching thread.
    fn fetch_all(&self) {
        let mut next = Next::Sweep;
        let mut pause = BACK_OFF.0;
        while let Some(free) = self.free_slots() {
            let fetched = match self.registered() {
                Ok(plugin) => self.fetch(&plugin, free, &next),
                Err(error) => Err(error),
            };
            match fetched {
                Ok(then) => {
                    (next, pause) = (then, BACK_OFF.0);
                    lock(&self.state).trouble = None;
                }
                Err(error) => {
                    let mut state = lock(&self.state);
                    if state.trouble.is_none() {
                        tracing::warn!(worker = self.worker.announce().entity.name, %error, "no events are fetched");
                    }
                    state.trouble = Some(error.to_string());
                    drop(state);
                    next = Next::Pause(pause);
                    pause = (pause * 2).min(BACK_OFF.1);
                }
            }
            if let Next::Pause(time) = next {
                if !self.rest(time) {
                    return;
                }
                next = Next::Sweep;
            }
        }
    }

    /// Waits for a free slot of a worker that can work; `None` when leasing is over.
    fn free_slots(&self) -> Option<usize> {
        let mut state = lock(&self.state);
        loop {
            if state.stopping {
                return None;
            }
            let free = self.slots.saturating_sub(state.open.len());
            let wait = self.options.tick;
            if free > 0 {
                drop(state);
                if self.worker.down().is_none() {
                    return Some(free);
                }
                state = lock(&self.state);
                if state.stopping {
                    return None;
                }
            }
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The registration of the version that works now, made if it was another one.
    fn registered(&self) -> Result<PluginEvent, UpstreamError> {
        let plugin = self.worker.announce();
        let known = lock(&self.state).registered.as_ref().is_some_and(|known| known.entity == plugin.entity);
        if !known {
            self.upstream.register(&plugin)?;
            tracing::info!(worker = plugin.entity.name, version = plugin.entity.version, "registered");
            lock(&self.state).registered = Some(plugin.clone());
        }
        Ok(plugin)
    }

    /// One fetch.
    fn fetch(&self, plugin: &PluginEvent, free: usize, next: &Next) -> Result<Next, UpstreamError> {
        let count = self.worker.bulk().clamp(1, free);
        // The dispatcher holds a request until it has all that was asked for: what waits asks for one.
        let waits = count == 1 || matches!(next, Next::Wait);
        let count = if waits { 1 } else { count };
        let deadline = match waits {
            true => self.worker.load_interval().clamp(Duration::from_secs(1), POLL_MAX).as_secs(),
            false => 0,
        };
        let query = query(plugin, self.worker.query(), count, deadline);
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        {
            let mut state = lock(&self.state);
            if state.stopping {
                return Ok(Next::Now);
            }
            state.fetching = true;
        }
        let asked = Instant::now();
        let fetched = self.upstream.lease(&query);
        let Fetched { events, filtered, paused } = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                lock(&self.state).fetching = false;
                self.changed.notify_all();
                return Err(error);
            }
        };
        let came = events.len();
        self.take_in(plugin, events);
        Ok(match came {
            _ if paused => Next::Pause(PAUSED),
            0 if filtered > 0 => Next::Now,
            0 if !waits => Next::Wait,
            // Nothing came, and nobody waited for it: not at once again.
            0 if asked.elapsed() < BACK_OFF.0 => Next::Pause(BACK_OFF.0),
            0 => Next::Wait,
            _ => Next::Sweep,
        })
    }

    /// Queues leased events for the threads; after the stop they are given back.
    fn take_in(&self, plugin: &PluginEvent, events: Vec<BinaryEvent>) {
        let now = self.now();
        let timeout = self.worker.job_timeout();
        let now_ms = azulite_storage::clock::now_ms();
        let mut late = Vec::new();
        let mut state = lock(&self.state);
        for event in events {
            self.counts.begun(now_ms, event.retries > 0);
            let over = Arc::new(AtomicBool::new(false));
            let author = author(plugin);
            let open = Arc::new(Open {
                job: Job::new(event, author, self.upstream.clone(), timeout, over.clone()),
                begun: now,
                deadline: now.checked_add(timeout).unwrap_or(now),
                claimed: AtomicBool::new(false),
                ended: AtomicBool::new(false),
                over,
                heard: Mutex::new(now),
            });
            if state.stopping {
                late.push(open);
                continue;
            }
            let id = state.next;
            state.next += 1;
            state.open.insert(id, open);
            state.queue.push_back(id);
        }
        self.gauge(&state);
        drop(state);
        self.give_back(&late);
        lock(&self.state).fetching = false;
        self.changed.notify_all();
    }

    fn gauge(&self, state: &State) {
        let name = state.registered.as_ref().map_or("", |plugin| plugin.entity.name.as_str());
        self.metrics.worker_in_flight.at([name]).set(i64::try_from(state.open.len()).unwrap_or(i64::MAX));
    }

    /// Gives leases back whose final status nobody has sent, without counting an attempt.
    fn give_back(&self, open: &[Arc<Open>]) {
        let ours: Vec<&Arc<Open>> = open.iter().filter(|open| open.claim()).collect();
        ours.iter().for_each(|open| open.ended.store(true, Ordering::Release));
        let ids: Vec<&str> = ours.iter().map(|open| open.job.event.dequeued.as_str()).collect();
        if ids.is_empty() {
            return;
        }
        match self.upstream.release(&ids) {
            Ok(()) => tracing::info!(events = ids.len(), "leases were given back"),
            Err(error) => {
                tracing::warn!(events = ids.len(), %error, "leases could not be given back; they end by themselves");
            }
        }
    }

    /// A thread that runs jobs.
    fn run_jobs(&self) {
        while let Some((id, open)) = self.next_job() {
            let outcome = self.outcome(&open);
            if open.claim() {
                self.end(&open, outcome);
            } else {
                self.until_ended(&open);
            }
            let mut state = lock(&self.state);
            state.open.remove(&id);
            self.gauge(&state);
            drop(state);
            self.changed.notify_all();
        }
    }

    fn next_job(&self) -> Option<(u64, Arc<Open>)> {
        let mut state = lock(&self.state);
        loop {
            if let Some(id) = state.queue.pop_front()
                && let Some(open) = state.open.get(&id)
            {
                return Some((id, open.clone()));
            }
            if state.stopping {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn outcome(&self, open: &Open) -> Outcome {
        let depth = open.job.event.source.path.len();
        if depth >= results::DEPTH_MAX {
            let limit = results::DEPTH_MAX;
            return Outcome::opt_out(format!("source.path has {depth} nodes; from {limit} on nothing is worked on"));
        }
        match catch_unwind(AssertUnwindSafe(|| self.worker.run(&open.job))) {
            Ok(outcome) => outcome,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
                Outcome::failed(Status::ErrorRunner, "the worker panicked", text)
            }
        }
    }

    /// Sends the final status of a job that the caller has claimed.
    fn end(&self, open: &Open, outcome: Outcome) {
        self.send(open, outcome);
        open.ended.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits until whoever has claimed a job has nothing more to say about it: as long as its slot is taken it has
    /// heartbeats, and a stop waits for its status.
    fn until_ended(&self, open: &Open) {
        let mut state = lock(&self.state);
        while !open.ended.load(Ordering::Acquire) {
            state = self.changed.wait_timeout(state, self.options.tick).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn send(&self, open: &Open, outcome: Outcome) {
        let now_ms = azulite_storage::clock::now_ms();
        let author = outcome.author.clone().map_or_else(|| open.job.author.clone(), |author| *author);
        let runtime = self.now().saturating_duration_since(open.begun);
        let Outcome { status, message, error, results, .. } = settled(outcome);
        let status_event = |status: Status, error: &str, message: &str, results: Vec<BinaryEvent>| {
            let origin =
                results::Origin { input: &open.job.event, author: &author, now: Timestamp::from_millis(now_ms) };
            let mut event = results::status(&origin, status.as_str(), runtime.as_secs_f64());
            event.entity.error = error.to_owned();
            event.entity.message = message.chars().take(MESSAGE_CHARS).collect();
            event.entity.results = results;
            event
        };
        let (first, rest) = split(results);
        let mut ended = (status, error, message);
        let sent = rest.iter().try_for_each(|batch| self.persist(open, || self.upstream.publish(batch)));
        let sent = sent.and_then(|()| {
            let event = status_event(status, &ended.1, &ended.2, first);
            self.persist(open, || self.upstream.report(std::slice::from_ref(&event)))
        });
        let sent = match sent {
            Err(UpstreamError::Refused(reason)) => {
                ended = (Status::ErrorOutput, "the results were refused".to_owned(), reason);
                let event = status_event(ended.0, &ended.1, &ended.2, Vec::new());
                self.persist(open, || self.upstream.report(std::slice::from_ref(&event)))
            }
            sent => sent,
        };
        let (status, error, message) = ended;
        if let Err(reason) = sent {
            let task = &open.job.event.dequeued;
            tracing::error!(task, %status, %reason, "a final status could not be stored; the event comes again");
            return;
        }
        let name = open.job.author.name.as_str();
        self.metrics.worker_jobs.inc([name, status.as_str()]);
        self.metrics.worker_job_time.observe([name], runtime);
        if status.is_error() {
            let sha256 = open.job.event.entity.sha256.clone();
            let status = status.as_str().to_owned();
            self.counts.failed(LastError { time_ms: now_ms, status, error, message, sha256 });
        }
        self.counts.ended(now_ms, status, i64::try_from(runtime.as_millis()).ok());
    }

    /// Makes a request until it has gone through, for as long as the lease lasts.
    fn persist(
        &self,
        open: &Open,
        mut request: impl FnMut() -> Result<(), UpstreamError>,
    ) -> Result<(), UpstreamError> {
        let mut pause = BACK_OFF.0;
        loop {
            let error = match request() {
                Ok(()) => {
                    *lock(&open.heard) = self.now();
                    return Ok(());
                }
                Err(error @ UpstreamError::Refused(_)) => return Err(error),
                Err(error @ UpstreamError::Unavailable(_)) => error,
            };
            if self.now().saturating_duration_since(*lock(&open.heard)) > self.options.lease {
                return Err(error);
            }
            let end = Instant::now() + pause;
            let mut state = lock(&self.state);
            loop {
                let left = end.saturating_duration_since(Instant::now());
                if state.given_up {
                    return Err(error);
                }
                if left.is_zero() {
                    break;
                }
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(state);
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    /// The thread that looks at the clock.
    fn look_after(self: &Arc<Self>) {
        loop {
            let mut state = lock(&self.state);
            let ended = state.stopping && state.open.is_empty() && !state.fetching;
            if ended || state.given_up {
                return;
            }
            let tick = self.options.tick;
            state = self.changed.wait_timeout(state, tick).unwrap_or_else(PoisonError::into_inner).0;
            let now = self.now();
            let beats = state.beat.is_some_and(|beat| now.saturating_duration_since(beat) >= self.options.heartbeat);
            let open: Vec<Arc<Open>> = state.open.values().cloned().collect();
            // Without jobs the time runs from the next one on.
            if beats || open.is_empty() {
                state.beat = Some(now);
            }
            let outdated = state.registered.as_ref().map(|plugin| plugin.entity.version.clone());
            let (fetching, stopping) = (state.fetching, state.stopping);
            drop(state);
            let late = open.iter().filter(|open| now >= open.deadline && open.claim());
            late.for_each(|open| self.time_out(open.clone()));
            if beats && !open.is_empty() {
                self.heartbeat(&open);
            }
            let changed = fetching && outdated.is_some_and(|version| version != self.worker.version());
            if changed || (stopping && fetching) || (fetching && self.worker.down().is_some()) {
                self.upstream.interrupt();
            }
        }
    }

    /// Ends a claimed job that has taken too long; its slot stays taken until its thread comes back.
    fn time_out(self: &Arc<Self>, open: Arc<Open>) {
        open.over.store(true, Ordering::Relaxed);
        let limit = self.worker.job_timeout();
        let message = format!("it took longer than {} s", limit.as_secs());
        let outcome = Outcome::failed(Status::ErrorTimeout, "the job took too long", message);
        // On this thread nothing may wait for the dispatcher. There is one such thread for a slot at most.
        let (this, its, told) = (self.clone(), open.clone(), outcome.clone());
        let aside = std::thread::Builder::new().name("late".to_owned()).spawn(move || this.end(&its, told));
        if let Err(error) = aside {
            tracing::warn!(%error, "no thread to end a job with");
            self.end(&open, outcome);
        }
    }

    /// Says of all running jobs in one request that they go on.
    fn heartbeat(&self, open: &[Arc<Open>]) {
        let now = Timestamp::from_millis(azulite_storage::clock::now_ms());
        let status = |open: &Arc<Open>| -> StatusEvent {
            let origin = results::Origin { input: &open.job.event, author: &open.job.author, now };
            let runtime = self.now().saturating_duration_since(open.begun);
            results::status(&origin, "heartbeat", runtime.as_secs_f64())
        };
        let running: Vec<&Arc<Open>> = open.iter().filter(|open| !open.ended.load(Ordering::Acquire)).collect();
        let statuses: Vec<StatusEvent> = running.iter().map(|open| status(open)).collect();
        if statuses.is_empty() {
            return;
        }
        match self.upstream.report(&statuses) {
            Ok(()) => running.iter().for_each(|open| *lock(&open.heard) = self.now()),
            Err(error) => tracing::warn!(jobs = statuses.len(), %error, "the heartbeat of running jobs did not arrive"),
        }
    }
}

fn author(plugin: &PluginEvent) -> Author {
    let entity = &plugin.entity;
    Author {
        name: entity.name.clone(),
        version: entity.version.clone(),
        category: "plugin".to_owned(),
        security: entity.security.clone(),
    }
}

/// The parameters of a fetch.
fn query(plugin: &PluginEvent, own: Vec<(String, String)>, count: usize, deadline_s: u64) -> Vec<(String, String)> {
    let entity = &plugin.entity;
    let defaults = [("name", &entity.name), ("version", &entity.version), ("deployment_key", &entity.name)];
    let missing = defaults.into_iter().filter(|(name, _)| !own.iter().any(|(given, _)| given == name));
    let mut query: Vec<(String, String)> = missing.map(|(name, value)| (name.to_owned(), value.clone())).collect();
    query.extend(own.into_iter().filter(|(name, _)| !matches!(name.as_str(), "count" | "deadline" | "avro-format")));
    query.push(("count".to_owned(), count.to_string()));
    query.push(("deadline".to_owned(), deadline_s.to_string()));
    query
}

/// The outcome as it can be published: cut to the limits, with a status that fits its results.
fn settled(outcome: Outcome) -> Outcome {
    let Outcome { mut status, mut message, error, mut results, author } = outcome;
    let mut add = |note: &str| {
        let gap = if message.is_empty() { "" } else { "; " };
        message.push_str(&format!("{gap}{note}"));
    };
    if !status.is_completed() && !results.is_empty() {
        add(&format!("{} results were left out: {status} carries none", results.len()));
        results.clear();
    }
    let mut notes: BTreeMap<String, usize> = BTreeMap::new();
    for result in &mut results {
        results::cut(result).into_iter().for_each(|note| *notes.entry(note).or_default() += 1);
    }
    for (note, events) in &notes {
        add(&if *events == 1 { note.clone() } else { format!("{note} (in {events} results)") });
    }
    if let Some(invalid) = results.iter().find_map(|result| results::check(result).err()) {
        let reason = format!("{} ({})", invalid.message, invalid.rule);
        return Outcome::failed(Status::ErrorOutput, "a result is no valid event", reason);
    }
    if matches!(status, Status::Completed | Status::CompletedEmpty) {
        status = match (notes.is_empty(), results.is_empty()) {
            (false, _) => Status::CompletedWithErrors,
            (true, true) => Status::CompletedEmpty,
            (true, false) => Status::Completed,
        };
    }
    Outcome { status, message, error, results, author }
}

/// What goes into the status, and the rest in pieces that are published before it.
fn split(results: Vec<BinaryEvent>) -> (Vec<BinaryEvent>, Vec<Vec<BinaryEvent>>) {
    let mut batches: Vec<Vec<BinaryEvent>> = vec![Vec::new()];
    let mut bytes = 0;
    for result in results {
        let size = crate::dispatcher::model::encode_avro(&Event::Binary(Box::new(result.clone()))).len();
        let full = batches
            .last()
            .is_some_and(|batch| batch.len() >= RESULTS_MAX || (!batch.is_empty() && bytes + size > RESULTS_BYTES));
        if full {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(batch) = batches.last_mut() {
            batch.push(result);
        }
    }
    let mut batches = batches.into_iter();
    (batches.next().unwrap_or_default(), batches.collect())
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
