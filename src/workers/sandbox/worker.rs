//! The threads of one sandbox: started, stopped, looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use azulite_storage::clock::now_ms;

use super::api::{Api, ApiError};
use super::health::{Counted, Health};
use super::http::Trouble;
use super::job::{Failure, Job, Retry, Stage, SubmitState};
use super::options::Options;
use super::report::FEATURES;
use super::stop::Stop;
use super::store::Store;
use crate::dispatcher::model::{Author, BinaryEvent, PluginEvent, Timestamp};
use crate::workers::overseer::SERVER;
use crate::workers::results;
use crate::workers::{Overseen, Upstream, UpstreamError, WorkerView};

/// Version of the worker as a plugin: with another one the dispatcher hands out everything again.
const VERSION: &str = "1";
/// Between two tries to reach a dispatcher that is not available.
const HUB_WAIT: Duration = Duration::from_secs(1);
const HUB_WAIT_MAX: Duration = Duration::from_secs(30);
/// After a failure of our own disk.
const DISK_WAIT: Duration = Duration::from_secs(2);

/// What all stages of one sandbox share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) author: Author,
    pub(super) upstream: Arc<dyn Upstream>,
    pub(super) api: Api,
    pub(super) store: Store,
    pub(super) health: Health,
    pub(super) stop: Arc<Stop>,
}

/// Why the dispatcher did not take something.
#[derive(Debug)]
pub(super) enum HubError {
    /// It refuses.
    Refused(String),
    /// The worker stops.
    Stopped,
}

/// What follows from an error of the sandbox.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The worker stops; nothing follows.
    Stopped,
    /// The sandbox is down, which uses up no attempt.
    Down,
    /// The same may be tried after a while, which uses up no attempt.
    Later(Duration),
    /// The attempt failed.
    Failed(Failure),
}

impl Shared {
    /// When a run that fails now is made again.
    pub(super) fn retry(&self) -> Retry {
        let delay_ms = i64::try_from(self.options.retry_delay.as_millis()).unwrap_or(i64::MAX);
        Retry { now_ms: now_ms(), delay_ms, max: self.options.max_attempts }
    }

    /// What an error of the sandbox means for the item at hand.
    pub(super) fn verdict(&self, error: ApiError) -> Verdict {
        let text = error.text();
        match error {
            ApiError::Trouble(Trouble::Stopped) => Verdict::Stopped,
            ApiError::Trouble(Trouble::Throttled(wait)) => Verdict::Later(wait),
            ApiError::Trouble(Trouble::Local(_)) => Verdict::Failed(Failure::new("error-runner", text, "")),
            // There is nothing to ask: the next probe comes after `capacity_recheck`.
            ApiError::Trouble(Trouble::Refused(reason)) => {
                self.is_down(&reason);
                Verdict::Down
            }
            ApiError::Trouble(Trouble::Unreachable(_) | Trouble::Unsure(_)) => {
                if self.is_up() {
                    Verdict::Failed(Failure::new("error-network", text, ""))
                } else if self.stop.is_stopped() {
                    Verdict::Stopped
                } else {
                    Verdict::Down
                }
            }
            ApiError::Trouble(Trouble::TooLarge(_))
            | ApiError::Off(_)
            | ApiError::Unknown(_)
            | ApiError::Refused(_) => {
                Verdict::Failed(Failure::new("error-exception", super::report::first_chars(&text, 300).0, text))
            }
        }
    }

    /// Asks whether the sandbox is there, and remembers.
    pub(super) fn is_up(&self) -> bool {
        let reason = match self.api.capacity() {
            Err(ApiError::Trouble(
                Trouble::Unreachable(reason) | Trouble::Refused(reason) | Trouble::Unsure(reason),
            )) => reason,
            Err(ApiError::Trouble(Trouble::Stopped)) => return false,
            Ok(_) | Err(_) => {
                if let Some(since) = self.health.set_up() {
                    let seconds = now_ms().saturating_sub(since) / 1000;
                    tracing::info!("{}: the sandbox is up again after {seconds} s", self.section());
                    self.stop.nudge();
                }
                return true;
            }
        };
        self.is_down(&reason);
        false
    }

    fn is_down(&self, reason: &str) {
        if self.health.set_down(reason, now_ms()) {
            let recheck = crate::config::format_duration(self.options.capacity_recheck);
            let section = self.section();
            tracing::warn!("{section}: the sandbox is down, its jobs wait, next look in {recheck}: {reason}");
        }
    }

    /// What log lines call it: its section and its address.
    fn section(&self) -> String {
        format!("workers.sandbox {:?}, {}", self.options.name, self.options.url)
    }

    /// Waits while the sandbox is down; true when stopped.
    pub(super) fn wait_until_up(&self) -> bool {
        while self.health.down().is_some() {
            let seen = self.stop.nudges();
            if self.health.down().is_none() {
                break;
            }
            if self.stop.wait_for_news(seen, Duration::from_secs(5)) {
                return true;
            }
        }
        self.stop.is_stopped()
    }

    /// Calls the dispatcher until it is available.
    pub(super) fn hub<T>(&self, call: impl Fn(&dyn Upstream) -> Result<T, UpstreamError>) -> Result<T, HubError> {
        let mut wait = HUB_WAIT;
        loop {
            match call(self.upstream.as_ref()) {
                Ok(done) => return Ok(done),
                Err(UpstreamError::Refused(reason)) => return Err(HubError::Refused(reason)),
                Err(UpstreamError::Unavailable(reason)) => {
                    tracing::debug!("{}: the dispatcher is not available: {reason}", self.author.name);
                    if self.stop.wait(wait) {
                        return Err(HubError::Stopped);
                    }
                    wait = (wait * 2).min(HUB_WAIT_MAX);
                }
            }
        }
    }

    /// Changes a job and writes it, again and again while our disk fails; `None` when there is no such job or the worker
    /// stops.
    pub(super) fn change<T>(&self, event: &str, change: impl Fn(&mut Job) -> T) -> Option<T> {
        loop {
            match self.store.change(event, &change) {
                Ok(done) => {
                    self.stop.nudge();
                    return done;
                }
                Err(error) => {
                    tracing::error!("{}: the job {event} cannot be written: {error}", self.author.name);
                    if self.stop.wait(DISK_WAIT) {
                        return None;
                    }
                }
            }
        }
    }

    /// What results and statuses about `input` are made from.
    pub(super) fn origin<'a>(&'a self, input: &'a BinaryEvent) -> results::Origin<'a> {
        results::Origin { input, author: &self.author, now: Timestamp::from_millis(now_ms()) }
    }

    /// The registration.
    pub(super) fn announce(&self) -> PluginEvent {
        let options = &self.options;
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let parsers: Vec<&str> = options.parse_stages.iter().flatten().map(|parser| parser.as_str()).collect();
        let config = BTreeMap::from([
            ("kind".to_owned(), text(options.kind.as_str())),
            ("url".to_owned(), text(&options.url)),
            ("parsers".to_owned(), text(&parsers.join(","))),
            ("max_content_size".to_owned(), options.max_content_size.to_string()),
        ]);
        let now = Timestamp::from_millis(now_ms());
        results::registration(&self.author, "Runs files in a sandbox and reports what they do", &FEATURES, config, now)
    }

    /// How many jobs are in the stage `submit`, and how many tasks in `check` and `parse`.
    pub(super) fn counts(&self) -> InStages {
        let mut counts = InStages::default();
        self.store.pick(|job| {
            counts.submit += usize::from(job.is_submitting());
            counts.finish += usize::from(job.end.is_some());
            for task in job.tasks.values() {
                match task.stage {
                    Stage::Check => counts.check += 1,
                    Stage::Parse(_) => counts.parse += 1,
                    Stage::Done | Stage::Failed => {}
                }
            }
            None::<()>
        });
        counts
    }
}

/// Items in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct InStages {
    pub(super) submit: usize,
    pub(super) check: usize,
    pub(super) parse: usize,
    pub(super) finish: usize,
}

/// A running sandbox worker.
pub struct Sandbox {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

/// What a thread does until the stop.
type Run = fn(&Shared);

struct Threads {
    handles: Vec<JoinHandle<()>>,
    /// Says nothing; its other end is gone when all threads have ended.
    ended: mpsc::Receiver<()>,
}

impl Sandbox {
    /// As [`Sandbox::start`] with what the configuration says. Heartbeats come every 30 s, or three times in a lease when
    /// that is shorter.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub fn from_config(
        config: &crate::config::SandboxWorker,
        upstream: Arc<dyn Upstream>,
        state_dir: std::path::PathBuf,
        lease: Duration,
        metrics: Arc<crate::metrics::Metrics>,
    ) -> Result<Self, String> {
        let options = Options::from_config(config, state_dir);
        let heartbeat = options.heartbeat.min(lease / 3).max(Duration::from_millis(100));
        Self::start(Options { heartbeat, metrics, ..options }, upstream)
    }

    /// Opens the folder of jobs and starts the stages.
    ///
    /// # Errors
    /// Text for people: everything wrong with `options`, a folder that cannot be used or is in use, files that cannot be
    /// read.
    pub fn start(options: Options, upstream: Arc<dyn Upstream>) -> Result<Self, String> {
        let problems = options.problems();
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        let folder = options.state_dir.clone();
        let (store, odd) = Store::open(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for text in odd {
            tracing::error!("a job is left out: {text}");
        }
        let stop = Arc::new(Stop::default());
        let api = Api::new(&options, store.temporary(), Arc::clone(&stop))?;
        let author = Author {
            name: options.author(),
            version: VERSION.to_owned(),
            category: "plugin".to_owned(),
            security: String::new(),
        };
        let health = Health::new(&author.name, options.metrics.clone());
        let shared = Arc::new(Shared { options, author, upstream, api, store, health, stop });
        let (alive, ended) = mpsc::channel::<()>();
        let mut threads = Vec::new();
        let stages: [(&str, Run); 7] = [
            ("intake", super::intake::run),
            ("submit", super::submit::run),
            ("check", super::check::run),
            ("parse", super::parse::run),
            ("finish", super::finish::run),
            ("cleanup", super::finish::run_cleanup),
            ("beat", super::beat::run),
        ];
        for (name, run) in stages {
            let (shared, alive) = (Arc::clone(&shared), alive.clone());
            let thread = std::thread::Builder::new().name(format!("sandbox-{name}")).spawn(move || {
                run(&shared);
                drop(alive);
            });
            threads.push(thread.map_err(|error| format!("a thread cannot be started: {error}"))?);
        }
        Ok(Self { shared, threads: Mutex::new(Some(Threads { handles: threads, ended })) })
    }

    /// Ends leasing at once, lets requests that run end within `grace`, and gives back the events of which nothing was
    /// sent. All others stay open: the next start goes on with them. The second call does nothing.
    pub fn stop(&self, grace: Duration) {
        let Some(threads) = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let shared = &self.shared;
        shared.stop.stop();
        shared.upstream.interrupt();
        let end = Instant::now() + grace;
        while let Ok(()) = threads.ended.recv_timeout(end.saturating_duration_since(Instant::now())) {}
        let slow = threads.handles.iter().filter(|thread| !thread.is_finished()).count();
        if slow > 0 {
            // What they were at is on disk as it was before.
            tracing::info!("{}: {slow} requests go on after the grace", shared.author.name);
        }
        let unsent = shared.store.pick(|job| {
            let is_unsent = job.is_submitting() && job.submit.state == SubmitState::Waiting && job.tasks.is_empty();
            is_unsent.then(|| (job.event.clone(), job.dequeued.clone()))
        });
        for (event, dequeued) in unsent {
            let ids: Vec<&str> = dequeued.iter().map(String::as_str).collect();
            let given_back = shared.upstream.release(&ids).map_err(|error| error.to_string());
            if let Err(reason) =
                given_back.and_then(|()| shared.store.remove(&event).map_err(|error| error.to_string()))
            {
                tracing::info!("{}: the event {event} stays open: {reason}", shared.author.name);
            }
        }
    }

    /// Why nothing is submitted though the sandbox can be used, if so.
    pub fn full(&self) -> Option<String> {
        self.shared.health.full()
    }

    /// Why the sandbox cannot be used, if so.
    pub fn down(&self) -> Option<String> {
        self.shared.health.down()
    }

    /// Jobs that are open.
    pub fn open_jobs(&self) -> usize {
        self.shared.store.pick(|_| Some(())).len()
    }
}

impl Overseen for Sandbox {
    fn view(&self, now_ms: i64) -> WorkerView {
        let shared = &self.shared;
        let (counts, options) = (shared.counts(), &shared.options);
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let stage = |stage: Counted| {
            let (queue, slots) = match stage {
                Counted::Submit => (counts.submit, options.submit_prefetch),
                Counted::Check => (counts.check, options.check_prefetch),
                Counted::Parse => (counts.parse, options.parse_prefetch),
                Counted::Finish => (counts.finish, 1),
            };
            shared.health.view(stage, now_ms, number(queue), number(slots)).with_queue(number(queue))
        };
        let is_stopping = shared.stop.is_stopped();
        let (state, reason) = match shared.health.down() {
            _ if is_stopping => ("stopping", String::new()),
            Some(reason) => ("down", reason),
            None => ("up", shared.health.full().unwrap_or_default()),
        };
        WorkerView {
            name: shared.author.name.clone(),
            version: shared.author.version.clone(),
            consumer_version: shared.author.version.clone(),
            place: SERVER.to_owned(),
            state: state.to_owned(),
            reason,
            last_seen_ms: None,
            stages: Counted::ALL.map(stage).to_vec(),
            facts: BTreeMap::from([
                ("kind".to_owned(), options.kind.as_str().to_owned()),
                ("url".to_owned(), options.url.clone()),
                ("open jobs".to_owned(), self.open_jobs().to_string()),
            ]),
        }
    }

    fn jobs(&self) -> u64 {
        u64::try_from(self.open_jobs()).unwrap_or(u64::MAX)
    }

    fn reload(&self) -> Result<String, String> {
        Ok("nothing to reload".to_owned())
    }
}
