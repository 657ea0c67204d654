//! Azul's rules between the HTTP edge and the broker: which events are taken in, where they go, who gets them.
//!
//! The parts are pure but for [`publish`], [`consume`] and [`reader`], which speak to the broker. Contract `events.md`.

pub mod activity;
pub mod answer;
pub(crate) mod batches;
pub mod caches;
pub mod consume;
pub mod dead;
mod fetch_memory;
pub mod filter;
pub mod follower;
pub mod hub;
pub mod inserts;
pub mod labels;
pub mod leases;
pub mod model;
pub mod params;
pub mod pause;
pub mod pipeline;
pub mod plugin_key;
mod position;
mod prepare;
pub mod publish;
pub mod purge;
pub mod reader;
pub mod readers;
pub mod registry;
pub mod replay;
mod simulate;
mod snapshot;
pub mod sources;
pub mod topic;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use azulite_storage::index::IndexError;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, CreateTopicError, NewTopic, ReadError, Topic};
use crate::log_files::LogFiles;
use crate::metrics::Metrics;
pub use prepare::PrepareError;

use dead::DeadLetters;
use filter::Consumer;
use follower::Follower;
use hub::{GetAnswer, GetError, GetRequest, Hub, PostAnswer, PostError, PostRequest, SimulateError, SimulateRequest};
use inserts::{CopyStreams, Inserts};
use leases::{Leases, Policies};
use model::{Model, Timestamp};
use params::{GetParams, PostParams};
use pause::Pause;
use purge::{Burial, PurgeOrders};
use readers::Readers;
use registry::Registry;
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
    /// Bytes of all GET answers together that clients have not taken yet.
    pub fetch_memory: usize,
    /// GETs that may wait for events at once.
    pub max_waiting: usize,
    /// An idle group counts as new after this many milliseconds.
    pub group_retention_ms: i64,
    /// Historic gets an event for so many live ones even if there are more of those; 0 is none.
    pub historic_share: usize,
    /// A reader that nobody asks leaves memory after this many milliseconds.
    pub reader_idle_ms: i64,
    /// Readers kept in memory, at most.
    pub max_readers: usize,
    /// Where events are written down that something was wrong with, if anywhere.
    pub log_files: Option<Arc<LogFiles>>,
    /// Caches that save work.
    pub caches: caches::Options,
    /// Leases and retries.
    pub policies: Policies,
    /// For how long after the start leases do not end by themselves, and how often they are looked at at least.
    pub lost_check: Duration,
    /// What becomes of events that consumers could not work on.
    pub dead: dead::Options,
}

/// Tells the time, milliseconds since 1970.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The time that `now_ms` says it is.
    pub fn new(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// The event hub.
pub struct Dispatcher {
    options: Options,
    broker: Broker,
    metrics: Arc<Metrics>,
    caches: caches::Caches,
    readers: Readers,
    waiting: tokio::sync::Semaphore,
    memory: fetch_memory::Memory,
    stopping: CancellationToken,
    purges: Follower<PurgeOrders>,
    burial: Arc<Burial>,
    inserts: Follower<Inserts>,
    streams: Arc<dyn CopyStreams>,
    clock: Clock,
    registry: Registry,
    pause: Pause,
    leases: Arc<Leases>,
    dead: Arc<DeadLetters>,
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
    /// What is kept of consumers and of the pause of plugins could not be read.
    #[error("the state of consumers cannot be read: {0}")]
    State(#[from] IndexError),
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
        Self::start_at(options, broker, metrics, streams, Clock::new(azulite_storage::clock::now_ms))
    }

    /// [`Dispatcher::start`] with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Dispatcher::start`].
    pub fn start_at(
        options: Options,
        broker: Broker,
        metrics: Arc<Metrics>,
        streams: Arc<dyn CopyStreams>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        prepare_topics(&options, &broker)?;
        let context = reader::ReaderContext {
            broker: broker.clone(),
            topic_prefix: options.topic_prefix.clone(),
            group_retention_ms: options.group_retention_ms,
            historic_share: options.historic_share,
        };
        let readers = Readers::new(context, options.max_readers);
        let waiting = tokio::sync::Semaphore::new(options.max_waiting);
        let memory = fetch_memory::Memory::new(options.fetch_memory);
        let stopping = CancellationToken::new();
        let system = |model: Model| topic::system_topic(&options.topic_prefix, model.as_str());
        let purges = Follower::new(broker.clone(), system(Model::Delete), metrics.clone());
        let inserts = Follower::new(broker.clone(), system(Model::Insert), metrics.clone());
        let burial = Arc::new(Burial::new(broker.clone(), metrics.clone(), stopping.clone()));
        let caches = caches::Caches::open(&options.caches);
        let log = broker.log().as_ref();
        let registry = Registry::load(log, &options.limits)?;
        let pause = Pause::load(log, &options.topic_prefix, (clock.0)())?;
        let leases = Leases::load(log, options.policies.clone(), broker.new_lane(), metrics.clone())?;
        let leases = Arc::new(leases);
        let dead =
            Arc::new(DeadLetters::load(broker.clone(), &options.topic_prefix, options.dead.clone(), metrics.clone())?);
        let this = Self {
            options,
            broker,
            metrics,
            caches,
            readers,
            waiting,
            memory,
            stopping,
            purges,
            burial,
            inserts,
            streams,
            clock,
            registry,
            pause,
            leases,
            dead,
        };
        this.follow()?;
        this.release_undelivered()?;
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

    /// Records that a consumer has not looked at yet, in all its groups; `None` when it has not asked lately.
    pub fn left(&self, params: &GetParams) -> Option<u64> {
        let reader = self.readers.peek(&plugin_key::PluginKey::of(params))?;
        reader.left().map(|left| u64::try_from(left).unwrap_or(0))
    }

    /// Saves the caches, as far as they have changed. Blocks.
    pub fn save_caches(&self) {
        self.caches.save();
    }

    /// Where events are written down that something was wrong with.
    fn log_files(&self) -> Option<&LogFiles> {
        self.options.log_files.as_deref()
    }

    /// What its clock says.
    pub fn now_ms(&self) -> i64 {
        (self.clock.0)()
    }

    /// Asks the filters of one consumer, who know every purge order that was read so far.
    pub fn for_consumer<T>(
        &self,
        params: &GetParams,
        task: bool,
        now_ms: i64,
        ask: impl FnOnce(&Consumer<'_>) -> T,
    ) -> T {
        ask(&Consumer {
            params,
            task,
            sources: &self.options.sources,
            labels: &self.options.labels,
            purges: &self.purges.read(),
            now: Timestamp::from_millis(now_ms),
            duplicates: None,
            metrics: &self.metrics,
        })
    }

    /// Takes in every purge order that was committed before the call. Blocks when there are new ones.
    ///
    /// # Errors
    /// The log could not be read.
    pub fn follow_purges(&self) -> Result<(), ReadError> {
        self.purges.catch_up()
    }

    /// Lets go of readers that nobody has asked for long; their positions stay.
    fn drop_idle_readers(&self) {
        let dropped = self.readers.drop_idle(self.now_ms().saturating_sub(self.options.reader_idle_ms));
        if dropped > 0 {
            tracing::debug!(dropped, "readers were not asked for long and have left memory");
        }
    }

    /// Begins a pause of plugins, or makes it last longer. Blocks for a commit, at most once a minute.
    pub fn pause_plugins(&self) {
        self.pause.request(self.broker.log().as_ref(), &self.options.topic_prefix, self.now_ms());
    }

    /// Ends a pause that is over. Blocks for a commit when there is one.
    fn settle_pause(&self) {
        self.pause.settle(self.broker.log().as_ref(), &self.options.topic_prefix, self.now_ms());
    }

    /// Consumers and deployments of the last day.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Dead letters.
    pub fn dead(&self) -> &Arc<DeadLetters> {
        &self.dead
    }

    /// Whether task consumers are told to wait.
    pub fn is_paused(&self) -> bool {
        self.pause.lasts(self.now_ms())
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

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod world;

/// A topic as the plan wants it, to be made.
pub(crate) fn new_topic(spec: TopicSpec) -> NewTopic {
    let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
    NewTopic { name: spec.name, partitions, config: spec.config }
}

/// The hub that the HTTP edge calls.
#[derive(Debug, Clone)]
pub struct SharedDispatcher(pub Arc<Dispatcher>);

impl Hub for SharedDispatcher {
    fn begin_post(&self, query: &[(String, String)]) -> BoxFuture<'_, ()> {
        let pause = PostParams::parse(query).pause_plugins;
        publish::begin(self.0.clone(), pause).map(drop).boxed()
    }

    fn post(&self, request: PostRequest) -> BoxFuture<'_, Result<PostAnswer, PostError>> {
        publish::post(self.0.clone(), request).boxed()
    }

    fn get(&self, request: GetRequest) -> BoxFuture<'_, Result<GetAnswer, GetError>> {
        consume::get(self.0.clone(), request).boxed()
    }

    fn simulate(&self, request: SimulateRequest) -> BoxFuture<'_, Result<Bytes, SimulateError>> {
        simulate::simulate(self.0.clone(), request).boxed()
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
