//! What a worker is to the frame that runs it: jobs come in, outcomes go out.
//!
//! A worker implements [`Worker`]; registering, leasing, heartbeats, statuses and the stop are the frame's. Spec:
//! workers.md 1 and 4.3.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::results::Origin;
use super::upstream::{Content, Upstream, UpstreamError};
use crate::dispatcher::model::{Author, BinaryEvent, PluginEvent, Timestamp};

/// How a job ended (workers.md 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// With results.
    Completed,
    /// There was nothing to find.
    CompletedEmpty,
    /// With results, and something is missing from them.
    CompletedWithErrors,
    /// The event is not for this worker.
    OptOut,
    /// The worker failed.
    ErrorException,
    /// The input cannot be worked on, now or later.
    ErrorInput,
    /// The results cannot be published, now or later.
    ErrorOutput,
    /// This machine failed.
    ErrorRunner,
    /// It took too long.
    ErrorTimeout,
    /// It took too much memory.
    ErrorOutOfMemory,
    /// Something over the network could not be reached.
    ErrorNetwork,
}

impl Status {
    /// Every one, in the order of the enum.
    pub const ALL: [Self; 11] = [
        Self::Completed,
        Self::CompletedEmpty,
        Self::CompletedWithErrors,
        Self::OptOut,
        Self::ErrorException,
        Self::ErrorInput,
        Self::ErrorOutput,
        Self::ErrorRunner,
        Self::ErrorTimeout,
        Self::ErrorOutOfMemory,
        Self::ErrorNetwork,
    ];

    /// As `entity.status` says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::CompletedEmpty => "completed-empty",
            Self::CompletedWithErrors => "completed-with-errors",
            Self::OptOut => "opt-out",
            Self::ErrorException => "error-exception",
            Self::ErrorInput => "error-input",
            Self::ErrorOutput => "error-output",
            Self::ErrorRunner => "error-runner",
            Self::ErrorTimeout => "error-timeout",
            Self::ErrorOutOfMemory => "error-out-of-memory",
            Self::ErrorNetwork => "error-network",
        }
    }

    /// True for the three that may carry results.
    #[must_use]
    pub const fn is_completed(self) -> bool {
        matches!(self, Self::Completed | Self::CompletedEmpty | Self::CompletedWithErrors)
    }

    /// True when the job is to count as failed.
    #[must_use]
    pub const fn is_error(self) -> bool {
        !self.is_completed() && !matches!(self, Self::OptOut)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a job came to.
///
/// Results over a limit of workers.md 1.6 are cut by the frame ([`super::results::cut`]), which says so in `message`;
/// results that are no valid events end the job as `error-output`. Results beside a status that may not carry any are left
/// out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The final status.
    pub status: Status,
    /// For people, long; every cut and every opt-out has its reason here.
    pub message: String,
    /// For people, short: the kind of error.
    pub error: String,
    /// Result events, as the builders of [`super::results`] make them.
    pub results: Vec<BinaryEvent>,
    /// Who did it, when that is another version than the job was leased for.
    pub author: Option<Box<Author>>,
}

impl Outcome {
    /// `completed`, or `completed-empty` without results.
    #[must_use]
    pub fn completed(results: Vec<BinaryEvent>) -> Self {
        let status = if results.is_empty() { Status::CompletedEmpty } else { Status::Completed };
        Self { results, ..Self::without_results(status, "", "") }
    }

    /// `completed-with-errors`; `message` says what is missing.
    #[must_use]
    pub fn completed_with_errors(results: Vec<BinaryEvent>, message: impl Into<String>) -> Self {
        Self { results, ..Self::without_results(Status::CompletedWithErrors, "", message) }
    }

    /// `opt-out`; `message` names the limit and the value.
    #[must_use]
    pub fn opt_out(message: impl Into<String>) -> Self {
        Self::without_results(Status::OptOut, "", message)
    }

    /// A failure.
    #[must_use]
    pub fn failed(status: Status, error: impl Into<String>, message: impl Into<String>) -> Self {
        Self::without_results(status, error, message)
    }

    fn without_results(status: Status, error: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), error: error.into(), results: Vec::new(), author: None }
    }
}

/// The dispatcher did not do what the job needs: `error-network` when it may later, else `error-runner`.
impl From<UpstreamError> for Outcome {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Unavailable(reason) => {
                Self::failed(Status::ErrorNetwork, "the dispatcher is not available", reason)
            }
            UpstreamError::Refused(reason) => Self::failed(Status::ErrorRunner, "the dispatcher refused", reason),
        }
    }
}

/// One leased event, on its way through [`Worker::run`].
pub struct Job {
    /// The event, as it was handed out.
    pub event: BinaryEvent,
    /// The worker as it was registered when the event was leased; the author of the status, and of results.
    pub author: Author,
    upstream: Arc<dyn Upstream>,
    deadline: Instant,
    over: Arc<AtomicBool>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("dequeued", &self.event.dequeued).finish_non_exhaustive()
    }
}

impl Job {
    /// A job that has `timeout` from now on. `over` is set when its result is wanted no more.
    #[must_use]
    pub fn new(
        event: BinaryEvent,
        author: Author,
        upstream: Arc<dyn Upstream>,
        timeout: Duration,
        over: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        Self { event, author, upstream, deadline: now.checked_add(timeout).unwrap_or(now), over }
    }

    /// The dispatcher that the event came from.
    #[must_use]
    pub fn upstream(&self) -> &Arc<dyn Upstream> {
        &self.upstream
    }

    /// True when the result is wanted no more: the job is over its time, or the process stops and its grace is over.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.over.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }

    /// When the job will have taken too long.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What result events of this job are made from.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        let now = Timestamp::from_millis(azulite_storage::clock::now_ms());
        Origin { input: &self.event, author: &self.author, now }
    }

    /// The event's `content` stream.
    ///
    /// # Errors
    /// The outcome of the job: `error-input` when the bytes are gone, or as [`UpstreamError`] says.
    pub fn content(&self) -> Result<Box<dyn Content>, Outcome> {
        let sha256 = &self.event.entity.sha256;
        self.stream("content", sha256)?.ok_or_else(|| {
            let source = &self.event.source.name;
            let message = format!("there is no content {sha256} in the source {source}: it was deleted or aged off");
            Outcome::failed(Status::ErrorInput, "the content is missing", message)
        })
    }

    /// Another stream of the event's source; `None` when there is none.
    ///
    /// # Errors
    /// The outcome of the job, as [`UpstreamError`] says.
    pub fn stream(&self, label: &str, sha256: &str) -> Result<Option<Box<dyn Content>>, Outcome> {
        let found = self.upstream.content(&self.event.source.name, label, sha256);
        found.map_err(|error| self.failed(error))
    }

    /// How the job ends when [`Self::upstream`] did not do what it needs: as [`UpstreamError`] says, but trouble with the
    /// disk or store of this machine is `error-runner`.
    #[must_use]
    pub fn failed(&self, error: UpstreamError) -> Outcome {
        match error {
            UpstreamError::Unavailable(reason) if self.upstream.is_local() => {
                Outcome::failed(Status::ErrorRunner, "the store of this machine failed", reason)
            }
            error @ (UpstreamError::Unavailable(_) | UpstreamError::Refused(_)) => error.into(),
        }
    }
}

/// Work on binary events, one at a time on each of several threads.
pub trait Worker: Send + Sync + 'static {
    /// The registration, whose entity names the worker and its version. Asked for before every fetch: when the version is
    /// another one it is registered again, and what is fetched from then on is leased for that version.
    fn announce(&self) -> PluginEvent;

    /// Its version; asked for every second, so that a change is noticed while a fetch waits.
    fn version(&self) -> String {
        self.announce().entity.version
    }

    /// Parameters of the fetch: groups and filters of workers.md 4.4, decoded. `name`, `version` and `deployment_key` are
    /// those of [`Worker::announce`] unless they are named here; `count` and `deadline` are the frame's.
    fn query(&self) -> Vec<(String, String)>;

    /// Jobs at once.
    fn slots(&self) -> usize;

    /// Most events in one fetch.
    fn bulk(&self) -> usize;

    /// The longest idle wait; a new event ends it at once.
    fn load_interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// What a job may take until it ends as `error-timeout`. [`Job::is_stopping`] is true from then on, and the slot stays
    /// taken until `run` returns.
    fn job_timeout(&self) -> Duration {
        Duration::from_secs(600)
    }

    /// Does the work. May block; a panic ends this job as `error-runner`.
    fn run(&self, job: &Job) -> Outcome;

    /// Reads again what may have changed on disk (SIGHUP, `rules reload`); says what came of it.
    ///
    /// # Errors
    /// Why everything stays as it is.
    fn reload(&self) -> Result<String, String> {
        Ok("nothing to reload".to_owned())
    }

    /// Why the worker cannot work at all, if so: nothing is leased meanwhile, and the overseer shows it.
    fn down(&self) -> Option<String> {
        None
    }

    /// What the overseer shows beside the figures, such as the rule set in use: names and values.
    fn facts(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}
