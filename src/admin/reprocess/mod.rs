//! Reprocessing: events of a previous prefix are copied to the topics of the current one, in today's model version and
//! under keys computed anew. Contract events.md 7.1.
//!
//! The `reprocess` verb runs one straight on a store, or asks a running server for it (`job`). What has been copied is
//! remembered in the group `<prefix>-reprocess-earliest`, so that a run that was interrupted goes on where it was:
//! positions move only behind copies that are durable, and only records since the last of them may be copied twice.

mod convert;
mod job;
mod progress;
mod select;
mod work;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azulite_storage::index::IndexError;
use serde::{Deserialize, Serialize};

use crate::broker::{AppendError, Broker, CommitOffsetsError, CreateTopicError, ReadError, Topic};
use crate::dispatcher::topic::TopicPlan;
use crate::metrics::Metrics;

pub use job::{JobError, Jobs};
pub use progress::{BadRecord, Progress, Stage, TopicProgress};

/// Which topics are reprocessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Binaries of all sources.
    #[default]
    Sources,
    /// System topics.
    System,
}

/// What is to be reprocessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Prefix of the topics that are read.
    pub previous_prefix: String,
    /// Which of them.
    pub profile: Profile,
    /// Full names of topics that are left out.
    #[serde(default)]
    pub deny_topics: Vec<String>,
    /// What the names of system topics begin with that are taken.
    #[serde(default = "include_system")]
    pub include_system: Vec<String>,
    /// Whether records may be JSON.
    #[serde(default)]
    pub legacy_json: bool,
    /// Read and count only.
    #[serde(default)]
    pub dry_run: bool,
}

/// The system topics that are taken unless something else is asked for.
#[must_use]
pub fn include_system() -> Vec<String> {
    ["delete", "error", "expedite", "insert"].map(str::to_owned).to_vec()
}

impl Default for Request {
    fn default() -> Self {
        Self {
            previous_prefix: String::new(),
            profile: Profile::Sources,
            deny_topics: Vec::new(),
            include_system: include_system(),
            legacy_json: false,
            dry_run: false,
        }
    }
}

/// Keeps plugins from taking tasks for a while; called when a run begins and about every minute until it ends.
pub type Hold = Arc<dyn Fn() + Send + Sync>;

/// What every run works with.
#[derive(Clone)]
pub struct Options {
    /// `events.topic_prefix`: copies go there.
    pub topic_prefix: String,
    /// How topics are made.
    pub plan: TopicPlan,
    /// Largest event in bytes, Avro.
    pub message_max_bytes: usize,
    /// Keeps plugins from taking the copies for new work, if anything does.
    pub hold: Option<Hold>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("topic_prefix", &self.topic_prefix).finish_non_exhaustive()
    }
}

/// Why a run did not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// There is nothing to read from.
    #[error("the previous prefix is empty: reprocess.previous_prefix or --previous-prefix says which events to copy")]
    NoPrefix,
    /// Reading and writing the same topics would never end.
    #[error("the previous prefix {0:?} is the current one: events are copied from one prefix to another")]
    SamePrefix(String),
    /// No topic of the previous prefix is asked for.
    #[error("no topics found to reprocess below azul.{0}.")]
    NoTopics(String),
}

/// Why a run ended before its end. What was copied is remembered; another run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A topic could not be made.
    #[error(transparent)]
    Create(#[from] CreateTopicError),
    /// Copies could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What was copied could not be remembered.
    #[error(transparent)]
    Commit(#[from] CommitOffsetsError),
    /// The queue of the log stayed full.
    #[error("the queue of the log had no room")]
    QueueFull,
}

/// One run: made by [`Run::begin`], worked off by [`Run::work`] on a blocking thread, looked at from others.
#[derive(Debug)]
pub struct Run {
    broker: Broker,
    metrics: Arc<Metrics>,
    options: Options,
    topics: Vec<Arc<Topic>>,
    progress: Mutex<Progress>,
    /// Topics that a rehearsal would have made.
    made: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
}

impl Run {
    /// Finds the topics. Nothing is written yet.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub fn begin(
        broker: Broker,
        metrics: Arc<Metrics>,
        options: Options,
        request: Request,
    ) -> Result<Arc<Self>, BeginError> {
        if request.previous_prefix.is_empty() {
            return Err(BeginError::NoPrefix);
        }
        if request.previous_prefix == options.topic_prefix {
            return Err(BeginError::SamePrefix(request.previous_prefix));
        }
        let all = broker.log().topics().into_iter();
        let topics: Vec<_> = all.filter(|topic| !topic.internal && select::wanted(&request, &topic.name)).collect();
        if topics.is_empty() {
            return Err(BeginError::NoTopics(request.previous_prefix));
        }
        let progress = Mutex::new(Progress::new(request));
        let (made, stop) = (Mutex::default(), AtomicBool::new(false));
        Ok(Arc::new(Self { broker, metrics, options, topics, progress, made, stop }))
    }

    /// Copies until the end of what was there at its beginning. Blocks on the log.
    pub fn work(&self) {
        let fault = Fault(self);
        let outcome = self.copy_all();
        std::mem::forget(fault);
        let mut progress = self.lock();
        match outcome {
            Ok(true) => progress.stage = Stage::Done,
            Ok(false) => progress.stage = Stage::Stopped,
            Err(error) => {
                tracing::error!(%error, "reprocessing has stopped; another run goes on from here");
                progress.stage = Stage::Failed;
                progress.error = Some(error.to_string());
            }
        }
    }

    /// Asks it to end behind what it is just copying.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.lock().clone()
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group that remembers what has been copied.
    fn group(&self) -> String {
        format!("{}-reprocess-earliest", self.options.topic_prefix)
    }
}

/// Dropped by a panic, it does not leave the run under way for ever.
struct Fault<'a>(&'a Run);

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        let mut progress = self.0.lock();
        progress.stage = Stage::Failed;
        progress.error = Some("an internal fault".to_owned());
    }
}

#[cfg(test)]
mod tests;
