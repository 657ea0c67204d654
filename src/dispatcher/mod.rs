//! Azul's rules between the HTTP edge and the broker: which events are taken in, where they go, who gets them.
//!
//! The parts are pure but for [`publish`], [`consume`] and [`reader`], which speak to the broker. Contract `events.md`.

pub mod answer;
pub(crate) mod batches;
pub mod caches;
pub mod consume;
pub mod filter;
pub mod follower;
pub mod hub;
pub mod inserts;
pub mod labels;
pub mod model;
pub mod params;
pub mod pipeline;
pub mod plugin_key;
mod position;
mod prepare;
pub mod publish;
pub mod purge;
pub mod reader;
pub mod readers;
pub mod replay;
mod snapshot;
pub mod sources;
pub mod topic;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, CreateTopicError, NewTopic, ReadError, Topic};
use crate::log_files::LogFiles;
use crate::metrics::Metrics;
pub use prepare::PrepareError;

use follower::Follower;
use hub::{GetAnswer, GetError, GetRequest, Hub, PostAnswer, PostError, PostRequest};
use inserts::{CopyStreams, Inserts};
use model::Model;
use purge::{Burial, PurgeOrders};
use readers::Readers;
use sources::Sources;
use topic::{TopicPlan, TopicSpec};

/// What the dispatcher is told by the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// `events.topic_prefix`.
    pub topic_prefix: String,
    /// Sources that have settings.
    pub sources: Sources,
    /// What security markings are made of.
    pub labels: labels::Labels,
    /// Topics to make.
    pub plan: TopicPlan,
    /// Whether a topic with more partitions than planned is only told of.
    pub ignore_topic_mismatch: bool,
    /// Clamps of GET.
    pub limits: params::Limits,
    /// Largest event in bytes, Avro.
    pub message_max_bytes: usize,
    /// Bytes of events in one GET answer, about; a larger single event goes alone.
    pub fetch_max_bytes: usize,
    /// GETs that may wait for events at once.
    pub max_waiting: usize,
    /// An idle group counts as new after this many milliseconds.
    pub group_retention_ms: i64,
    /// Readers kept in memory, at most.
    pub max_readers: usize,
    /// Where events are written down that something was wrong with, if anywhere.
    pub log_files: Option<Arc<LogFiles>>,
    /// Caches that save work.
    pub caches: caches::Options,
}

/// The event hub.
pub struct Dispatcher {
    options: Options,
    broker: Broker,
    metrics: Arc<Metrics>,
    caches: caches::Caches,
    readers: Readers,
    waiting: tokio::sync::Semaphore,
    stopping: CancellationToken,
    purges: Follower<PurgeOrders>,
    burial: Arc<Burial>,
    inserts: Follower<Inserts>,
    streams: Arc<dyn CopyStreams>,
}

/// Why there is no dispatcher.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A topic is not as it should be.
    #[error(transparent)]
    Topics(#[from] PrepareError),
    /// What has been deleted or inserted could not be read.
    #[error("the deletes and inserts cannot be read: {0}")]
    Read(#[from] ReadError),
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher over a log. Makes the topics of the plan that are missing, changes those that differ, and reads every
    /// delete and insert; blocks while it does.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        options: Options,
        broker: Broker,
        metrics: Arc<Metrics>,
        streams: Arc<dyn CopyStreams>,
    ) -> Result<Self, StartError> {
        prepare_topics(&options, &broker)?;
        let context = reader::ReaderContext {
            broker: broker.clone(),
            topic_prefix: options.topic_prefix.clone(),
            group_retention_ms: options.group_retention_ms,
        };
        let readers = Readers::new(context, options.max_readers);
        let waiting = tokio::sync::Semaphore::new(options.max_waiting);
        let stopping = CancellationToken::new();
        let system = |model: Model| topic::system_topic(&options.topic_prefix, model.as_str());
        let purges = Follower::new(broker.clone(), system(Model::Delete), metrics.clone());
        let inserts = Follower::new(broker.clone(), system(Model::Insert), metrics.clone());
        let burial = Arc::new(Burial::new(broker.clone(), metrics.clone(), stopping.clone()));
        let caches = caches::Caches::open(&options.caches);
        let this =
            Self { options, broker, metrics, caches, readers, waiting, stopping, purges, burial, inserts, streams };
        this.follow()?;
        Ok(this)
    }

    /// Takes in every delete and insert that was committed before the call. Blocks when there are new ones.
    fn follow(&self) -> Result<(), ReadError> {
        self.purges.catch_up()?;
        self.inserts.catch_up()
    }

    /// Ends requests that wait for events; they answer with what they have.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Saves the caches, as far as they have changed. Blocks.
    pub fn save_caches(&self) {
        self.caches.save();
    }

    /// Where events are written down that something was wrong with.
    fn log_files(&self) -> Option<&LogFiles> {
        self.options.log_files.as_deref()
    }

    /// The log behind it.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The topic an event goes to, made on first use.
    fn topic(&self, name: &str) -> Result<Arc<Topic>, CreateTopicError> {
        self.broker.topic_or_create(name, || new_topic(self.options.plan.spec(name)))
    }
}

/// Makes the topics of the plan that are missing, and changes those that differ. Blocks for one commit per change.
///
/// # Errors
/// See [`PrepareError`]; topics before the one it tells of have been changed.
pub fn prepare_topics(options: &Options, broker: &Broker) -> Result<(), PrepareError> {
    prepare::prepare(broker, &options.plan, options.ignore_topic_mismatch)
}

/// A topic as the plan wants it, to be made.
pub(crate) fn new_topic(spec: TopicSpec) -> NewTopic {
    let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
    NewTopic { name: spec.name, partitions, config: spec.config }
}

/// The hub that the HTTP edge calls.
#[derive(Debug, Clone)]
pub struct SharedDispatcher(pub Arc<Dispatcher>);

impl Hub for SharedDispatcher {
    fn post(&self, request: PostRequest) -> BoxFuture<'_, Result<PostAnswer, PostError>> {
        publish::post(self.0.clone(), request).boxed()
    }

    fn get(&self, request: GetRequest) -> BoxFuture<'_, Result<GetAnswer, GetError>> {
        consume::get(self.0.clone(), request).boxed()
    }
}

/// 64 bits nobody outside the process can guess.
fn random_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// Random bytes.
fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(8) {
        let random = random_u64().to_be_bytes();
        chunk.copy_from_slice(random.get(..chunk.len()).unwrap_or_default());
    }
    bytes
}
