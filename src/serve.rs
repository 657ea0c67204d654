//! `serve`: boot order, listeners, stop. The only place that sees the whole configuration and wires the parts.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azulite_storage::cleaner::CleanerOptions;
use azulite_storage::clock::now_ms;
use azulite_storage::fs::{Fs, RealFs};
use azulite_storage::{OpenError, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::admin::reidentify::Reidentification;
use crate::admin::reprocess::{self, Hold, Jobs};
use crate::broker::Broker;
use crate::broker::groups::{self, Coordinator};
use crate::broker::topic_config::ConfigMap;
use crate::config::{ClampReplicationFactor, Config, Delivery, Durability, LabelOption, SecurityLabels};
use crate::dispatcher::labels::Labels;
use crate::dispatcher::leases::{Policies, Policy};
use crate::dispatcher::params::Limits;
use crate::dispatcher::sources::{Source, SourceTopicConfig, Sources, retention};
use crate::dispatcher::topic::{TopicDefaults, TopicOverride, TopicPlan};
use crate::dispatcher::{self, Dispatcher, SharedDispatcher, caches, dead, replay};
use crate::http::{self, Readiness, RouteLimits, Services, Subsystem};
use crate::identify::{Identifier, content};
use crate::kafka;
use crate::log_files::LogFiles;
use crate::metrics::Metrics;
use crate::notify::Notify;
use crate::streams::{self, AdoptError, AdoptedBlobs, AgeOff, BlobStore, Copier, EmbeddedBlobs, Engine, Streams};
use crate::workers::overseer::WARNING;
use crate::workers::start::{Setting, Workers};
use crate::workers::{self, LocalUpstream, Release, Upstream, WorkerView};

/// Why the appliance did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener could not be bound.
    #[error(transparent)]
    Bind(#[from] http::BindError),
    /// The Kafka listener could not be bound.
    #[error(transparent)]
    BindKafka(#[from] kafka::listener::BindError),
    /// `logging.path` cannot be written.
    #[error("logging.path: {0}")]
    LogFiles(std::io::Error),
    /// The data directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store that is to be adopted cannot be.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The files of dead letters have no place.
    #[error("dead_letter.dir: {}: {error}; it must be a directory that can be written and read", dir.display())]
    DeadLetters {
        /// The directory.
        dir: std::path::PathBuf,
        /// What cannot be done with it.
        error: std::io::Error,
    },
    /// Anything else that kept it from starting.
    #[error("{what}: {reason}")]
    Start {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        reason: String,
    },
    /// The store stopped itself; starting the process again recovers.
    #[error("stopped: {0}")]
    Stopped(String),
}

fn start_error<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> ServeError {
    move |error| ServeError::Start { what, reason: error.to_string() }
}

/// Runs the appliance until SIGTERM or SIGINT.
///
/// # Errors
/// See [`ServeError`].
pub fn run(config: &Config) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("azulite-async")
        .max_blocking_threads(256)
        .thread_keep_alive(Duration::from_secs(5))
        .build()
        .map_err(start_error("the runtime cannot be started"))?;
    let outcome = runtime.block_on(serve(config));
    // A thread in the middle of identification does not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(config: &Config) -> Result<(), ServeError> {
    let metrics = Arc::new(Metrics::new());
    let log_files = log_files(config, &metrics)?;
    let server = http::Server::bind(http_options(config)).await?;
    let address = server.local_addr();
    let kafka = match kafka_options(config) {
        Some(options) => Some(kafka::Listener::bind(options).await?),
        None => None,
    };
    let notify = Notify::from_environment();
    notify.status("opening the store");
    let fatal = Fatal::default();
    // The rules take as long to load as an empty store to open.
    let scanner = content::scanner(identifications(config), config.identify.content_max_bytes);
    let scanner = scanner.map_err(start_error("the content scanner cannot be started"))?;
    let loading = tokio::task::spawn_blocking(|| Identifier::load(scanner));
    let store = open(config, &fatal)?;
    let dispatcher_options = dispatcher_options(config)?;
    let dir = &dispatcher_options.dead.dir;
    dead::test_dir(dir).map_err(|error| ServeError::DeadLetters { dir: dir.clone(), error })?;
    let reprocess_options = reprocess_options(&dispatcher_options);
    let dispatcher_options = dispatcher::Options { log_files: log_files.clone(), ..dispatcher_options };
    let synced = metrics.clone();
    store.on_sync(move |took| synced.log_sync.observe([], took));
    let (broker, counted) = (Broker::new(Arc::new(store.clone())), metrics.clone());
    let blobs = blob_store(config, &store)?;
    broker.set_fixed_config(fixed_config(config));
    let admin = Admin::new(broker.clone(), blobs, config.events.topic_prefix.clone());
    let kafka_broker = broker.clone();
    let copier = Arc::new(Copier::new(admin.blobs().clone(), metrics.clone()));
    let start = move || Dispatcher::start(dispatcher_options, broker, counted, copier);
    let started = tokio::task::spawn_blocking(start).await;
    let started = started.map_err(start_error("the dispatcher cannot be started"))?;
    let dispatcher = Arc::new(started.map_err(start_error("the dispatcher cannot be started"))?);
    let admin = admin.with_dispatcher(dispatcher.clone());
    let loaded = loading.await.map_err(start_error("the identification rules cannot be loaded"))?;
    let identifier = loaded.map_err(start_error("the identification rules cannot be loaded"))?;
    let api = kafka.as_ref().map(|listener| kafka_api(config, &store, kafka_broker, listener)).transpose()?;
    let admin = match &api {
        Some(api) => admin.with_coordinator(api.coordinator().clone()),
        None => admin,
    };
    let pausing = dispatcher.clone();
    let hold: Hold = Arc::new(move || pausing.pause_plugins());
    let reprocess_options = reprocess::Options { hold: Some(hold), ..reprocess_options };
    let jobs = Arc::new(Jobs::new(dispatcher.broker().clone(), metrics.clone(), reprocess_options));
    let services = services(config, &store, &dispatcher, admin, &metrics, Arc::new(identifier));
    let reidentification = Arc::new(Reidentification::new(dispatcher.broker().clone(), services.streams.clone()));
    let workers =
        Arc::new(start_workers(config, &services, &dispatcher).map_err(start_error("a worker cannot be started"))?);
    let services = Arc::new(Services {
        workers: Some(workers.clone()),
        readiness: Arc::new(Ready { workers: workers.clone(), ..Ready::new(&store, &dispatcher) }),
        reprocess: Some(jobs.clone()),
        reidentify: Some(reidentification.clone()),
        log_files: log_files.clone(),
        ..services
    });

    store.describe(&address.to_string()).map_err(start_error("the lock file cannot be written"))?;
    tracing::info!("listening on http://{address}");
    if let Some(listener) = &kafka {
        let (host, port) = listener.advertised();
        tracing::info!("listening for Kafka clients on {}, which are told {host}:{port}", listener.local_addr());
    }
    notify.ready(&format!("serving HTTP on {address}"));
    let stop = CancellationToken::new();
    let saver = tokio::spawn(save_caches(dispatcher.clone()));
    let going_on = reidentification.clone();
    let going_on = tokio::task::spawn_blocking(move || going_on.go_on()).await;
    let going_on = going_on.map_err(start_error("the store cannot be read"))?;
    going_on.map_err(start_error("the store cannot be read"))?;
    dispatcher.dead().start().map_err(start_error("there is no thread for dead letters"))?;
    let upkeep = tokio::spawn(dispatcher.clone().upkeep());
    let aging = aging(config, &store, &metrics).map(|aging| tokio::spawn(age_blobs_off(aging, stop.clone())));
    let watcher = tokio::spawn(watch(stop.clone(), dispatcher.clone(), workers.clone(), fatal.clone(), notify.clone()));
    // With the connections: what is running goes on while they drain.
    let grace = config.workers.shutdown_grace.min(config.http.drain_timeout);
    let workers_stop = async {
        stop.cancelled().await;
        let stopping = tokio::task::spawn_blocking(move || workers.stop(grace));
        if let Err(error) = stopping.await {
            tracing::error!(%error, "the workers did not stop");
        }
    };
    let kafka = async {
        match kafka.zip(api) {
            Some((listener, api)) => listener.serve(api, stop.clone()).await,
            None => 0,
        }
    };
    let (drained, kafka_cut, ()) =
        tokio::join!(server.serve(services, stop.clone().cancelled_owned()), kafka, workers_stop);
    let cut = drained.cut + kafka_cut;
    if cut > 0 {
        tracing::warn!(connections = cut, "connections were still busy at the end of the drain time and were cut");
    }
    watcher.abort();
    saver.abort();
    upkeep.await.map_err(start_error("the upkeep of tasks and consumers did not end"))?;
    if let Some(aging) = aging {
        aging.await.map_err(start_error("the ageing of blobs did not end"))?;
    }
    notify.status("closing the store");
    let last = tokio::task::spawn_blocking(move || {
        jobs.close();
        reidentification.close();
        dispatcher.dead().close();
        dispatcher.save_caches();
        dispatcher.release_own();
        log_files.iter().for_each(|files| files.close());
    });
    last.await.map_err(start_error("the caches could not be saved"))?;
    tokio::task::spawn_blocking(move || store.close()).await.map_err(start_error("the store did not close"))?;
    match fatal.reason() {
        Some(reason) => Err(ServeError::Stopped(reason)),
        None => {
            tracing::info!("stopped");
            Ok(())
        }
    }
}

/// How often blobs that outlived their source's events are looked for.
const AGE_BLOBS_OFF: Duration = Duration::from_secs(3600);

/// What ages blobs off, if that is wanted.
fn aging(config: &Config, store: &Store, metrics: &Arc<Metrics>) -> Option<AgeOff> {
    let sources = config.sources.iter();
    let expiries =
        sources.filter_map(|(name, source)| Some((name.clone(), source.expire_events_after.milliseconds()?)));
    config.streams.automatic_ageoff.then(|| AgeOff::new(store.clone(), expiries, metrics.clone()))
}

async fn age_blobs_off(aging: AgeOff, stop: CancellationToken) {
    let mut due = tokio::time::interval(AGE_BLOBS_OFF);
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        let (aging, stop) = (aging.clone(), stop.clone());
        match tokio::task::spawn_blocking(move || aging.pass(&stop)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::info!(removed, "blobs that outlived their source's events were removed"),
            Ok(Err(error)) => tracing::error!(%error, "old blobs could not be removed; the next try is in an hour"),
            Err(error) => tracing::error!(%error, "old blobs could not be removed; the next try is in an hour"),
        }
    }
}

/// The files of `logging.path`, if they are wanted.
fn log_files(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<LogFiles>>, ServeError> {
    let path = Path::new(&config.logging.path);
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    LogFiles::open(path, metrics.clone()).map(|files| Some(Arc::new(files))).map_err(ServeError::LogFiles)
}

/// How often caches are saved while the server runs; what a crash takes of them is only work saved.
const SAVE_CACHES: Duration = Duration::from_secs(300);

async fn save_caches(dispatcher: Arc<Dispatcher>) {
    let mut due = tokio::time::interval(SAVE_CACHES);
    due.tick().await;
    loop {
        due.tick().await;
        let dispatcher = dispatcher.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || dispatcher.save_caches()).await {
            tracing::error!(%error, "the caches could not be saved");
        }
    }
}

/// Ends the long polls and then the listener, on a signal or when the store has stopped itself; keeps systemd's watchdog
/// fed meanwhile.
async fn watch(
    stop: CancellationToken,
    dispatcher: Arc<Dispatcher>,
    workers: Arc<Workers>,
    fatal: Fatal,
    notify: Notify,
) {
    let mut signals = Signals::new();
    let mut watchdog = tokio::time::interval(notify.watchdog_interval());
    loop {
        tokio::select! {
            name = signals.next() => match name {
                "SIGHUP" => {
                    let workers = workers.clone();
                    // What comes of it is logged; a second one meanwhile waits for nothing.
                    drop(tokio::task::spawn_blocking(move || crate::cli::worker::tell_reloaded(&workers)));
                }
                name => {
                    tracing::info!("{name}: finishing what is under way");
                    break;
                }
            },
            () = fatal.happened() => break,
            _ = watchdog.tick() => notify.watchdog(),
        }
    }
    notify.stopping();
    dispatcher.stop();
    stop.cancel();
}

pub(crate) struct Signals(Vec<(&'static str, tokio::signal::unix::Signal)>);

impl Signals {
    pub(crate) fn new() -> Self {
        let wanted = [
            ("SIGTERM", SignalKind::terminate()),
            ("SIGINT", SignalKind::interrupt()),
            ("SIGHUP", SignalKind::hangup()),
        ];
        let listen = |(name, kind)| match signal(kind) {
            Ok(signal) => Some((name, signal)),
            Err(error) => {
                tracing::error!(name, %error, "the signal cannot be listened for");
                None
            }
        };
        Self(wanted.into_iter().filter_map(listen).collect())
    }

    pub(crate) async fn next(&mut self) -> &'static str {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.0.iter_mut().map(|(name, signal)| {
            Box::pin(async move {
                signal.recv().await;
                *name
            })
        });
        futures_util::future::select_all(waits).await.0
    }
}

/// Set once when the store stops itself.
#[derive(Clone, Debug, Default)]
struct Fatal {
    reason: Arc<Mutex<Option<String>>>,
    happened: CancellationToken,
}

impl Fatal {
    fn set(&self, reason: &str) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        self.happened.cancel();
    }

    fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn happened(&self) {
        self.happened.cancelled().await;
    }
}

/// The blobs of the store and, where that is wanted, those of an existing store of the upstream service.
///
/// # Errors
/// See [`AdoptError`].
pub fn blob_store(config: &Config, store: &Store) -> Result<Arc<dyn BlobStore>, AdoptError> {
    let own = Arc::new(EmbeddedBlobs::new(store.clone()));
    let streams = &config.streams;
    if streams.adopt_dir.as_os_str().is_empty() {
        return Ok(own);
    }
    let key_file = Some(streams.adopt_key_file.as_path()).filter(|path| !path.as_os_str().is_empty());
    Ok(Arc::new(AdoptedBlobs::open(own, &streams.adopt_dir, key_file)?))
}

/// How the store is to be opened.
#[must_use]
pub fn store_options(config: &Config) -> azulite_storage::Options {
    let storage = &config.storage;
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    azulite_storage::Options {
        durability: match storage.durability {
            Durability::Sync => azulite_storage::Durability::Sync,
            Durability::Interval(interval) => azulite_storage::Durability::Interval(interval),
            Durability::None => azulite_storage::Durability::None,
        },
        segment_bytes: storage.segment_bytes,
        commit_bytes: bytes(storage.commit_bytes),
        queue_bytes: bytes(storage.queue_bytes),
        encoding: config.streams.encoding,
        inline_bytes: bytes(config.streams.inline_threshold),
        cache_bytes: bytes(storage.cache_bytes),
        reserve_bytes: storage.reserve.bytes_of(disk_size(&storage.data_dir)),
        ..azulite_storage::Options::new(storage.data_dir.clone())
    }
}

/// Size of the file system that holds `path` or the nearest folder above it that exists.
fn disk_size(path: &Path) -> u64 {
    let above = path.ancestors().chain([Path::new(".")]).find(|p| !p.as_os_str().is_empty() && p.exists());
    above.and_then(|path| RealFs.room(path).ok()).map_or(0, |room| room.total)
}

fn open(config: &Config, fatal: &Fatal) -> Result<Store, ServeError> {
    let fatal = fatal.clone();
    let options = azulite_storage::Options {
        on_fatal: Some(Arc::new(move |reason: &str| fatal.set(reason))),
        maintenance: Some(config.storage.retention_check_interval),
        cleaner: CleanerOptions {
            interval: Some(config.storage.clean_interval),
            bytes_per_second: Some(config.storage.clean_bytes_per_second),
            ..CleanerOptions::default()
        },
        ..store_options(config)
    };
    let durability = options.durability;
    let store = Store::open(Arc::new(RealFs), options)?;
    let report = store.report();
    let root = config.storage.data_dir.display();
    tracing::info!(data_dir = %root, replayed_commits = report.replayed_commits, "store open");
    if durability != azulite_storage::Durability::Sync {
        tracing::warn!("durability is {}: a power cut can lose what was acknowledged", config.storage.durability);
    }
    Ok(store)
}

/// What the configuration says in Kafka's names, for tools that ask the broker.
#[must_use]
pub fn fixed_config(config: &Config) -> ConfigMap {
    let data_dir = config.storage.data_dir.display().to_string();
    let said = [
        ("auto.create.topics.enable", config.kafka.auto_create_topics.to_string()),
        ("azulite.durability", config.storage.durability.to_string()),
        ("log.dir", data_dir.clone()),
        ("log.dirs", data_dir),
        ("num.partitions", config.kafka.num_partitions.to_string()),
    ];
    said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The event hub's settings.
///
/// # Errors
/// A source or a topic override that does not fit; names every mistake.
pub fn dispatcher_options(config: &Config) -> Result<dispatcher::Options, ServeError> {
    let source = |(name, source): (&String, &crate::config::Source)| {
        let topic = SourceTopicConfig {
            numpartitions: source.kafka.numpartitions,
            replicationfactor: source.kafka.replicationfactor,
            config: source.kafka.config.clone(),
        };
        (name.clone(), Source::new(source.expire_events_after.milliseconds(), topic))
    };
    let sources: Sources = config.sources.iter().map(source).collect();
    let given = config.topics.iter().map(|(topic, settings)| TopicOverride {
        topic: topic.clone(),
        numpartitions: settings.numpartitions,
        replicationfactor: settings.replicationfactor,
        config: settings.config.clone(),
    });
    let overrides: Vec<_> = dead_letter_topic(config).into_iter().chain(given).collect();
    let events = &config.events;
    let defaults = TopicDefaults { partitions: events.partition_count, replicas: 1 };
    let plan = TopicPlan::new(&events.topic_prefix, &sources, defaults, &overrides).map_err(|mistakes| {
        let reason = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        ServeError::Start { what: "topics", reason }
    })?;
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Ok(dispatcher::Options {
        topic_prefix: events.topic_prefix.clone(),
        sources,
        labels: labels(&config.security.labels),
        plan,
        ignore_topic_mismatch: events.ignore_topic_mismatch,
        limits: Limits {
            fetch_limit: usize::try_from(events.api_event_fetch_limit).unwrap_or(usize::MAX),
            default_wait_secs: events.api_default_event_wait.as_secs(),
        },
        message_max_bytes: bytes(events.message_max_bytes),
        fetch_max_bytes: bytes(events.max_fetch_bytes),
        fetch_memory: bytes(events.fetch_memory),
        max_waiting: usize::try_from(config.http.max_connections).unwrap_or(usize::MAX),
        group_retention_ms: i64::from(events.consumer_group_retention_days) * 86_400_000,
        historic_share: usize::try_from(events.historic_share).unwrap_or(usize::MAX),
        reader_idle_ms: i64::try_from(events.reader_idle.as_millis()).unwrap_or(i64::MAX),
        max_readers: 10_000,
        policies: policies(config),
        lost_check: events.lost_tasks_check,
        dead: dead_letters(config),
        log_files: None,
        caches: caches::Options {
            dedupe_bytes: events.dedupe_cache_bytes,
            replay: replay::Options {
                size_bytes: events.replay_plugin_cache.size_bytes,
                ttl: events.replay_plugin_cache.ttl,
                min_runtime: events.replay_plugin_cache.min_runtime,
            },
            folder: Some(config.storage.data_dir.join("caches")),
        },
    })
}

/// Leases and retries of every consumer.
fn policies(config: &Config) -> Policies {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let policy = |delivery: &Delivery| Policy {
        lease_ms: ms(delivery.lease),
        lease_max_ms: ms(delivery.lease_max),
        max_attempts: delivery.max_attempts,
        retry_delay_ms: ms(delivery.retry_delay),
        retry_backoff: delivery.retry_backoff,
        retry_delay_max_ms: ms(delivery.retry_delay_max),
    };
    let own = config.deliveries().into_iter().map(|(name, delivery)| (name, policy(&delivery)));
    Policies { common: policy(&config.delivery), by_name: own.collect() }
}

/// Where dead letters are kept, and how long.
fn dead_letters(config: &Config) -> dead::Options {
    let settings = &config.dead_letter;
    let dir = match settings.dir.as_os_str().is_empty() {
        true => config.storage.data_dir.join("dead"),
        false => settings.dir.clone(),
    };
    let keep = Some(settings.keep).filter(|keep| !keep.is_zero());
    dead::Options { dir, keep, warn_per_hour: settings.warn_per_hour.into() }
}

/// How long the topic of dead letters keeps its records, if not for ever; what `[topics]` says is stronger.
fn dead_letter_topic(config: &Config) -> Option<TopicOverride> {
    let keep = dead_letters(config).keep?;
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    let topic = format!("system.{}", dead::TOPIC);
    let config = retention(Some(keep_ms)).into();
    Some(TopicOverride { topic, config, ..TopicOverride::default() })
}

/// What copying from a previous prefix works with.
#[must_use]
pub fn reprocess_options(options: &dispatcher::Options) -> reprocess::Options {
    reprocess::Options {
        topic_prefix: options.topic_prefix.clone(),
        plan: options.plan.clone(),
        message_max_bytes: options.message_max_bytes,
        hold: None,
    }
}

/// The labels that markings are made of.
fn labels(labels: &SecurityLabels) -> Labels {
    let spellings = |name: &String, aliases: &[String]| [std::slice::from_ref(name), aliases].concat();
    let names = |options: &[LabelOption]| options.iter().map(|label| spellings(&label.name, &label.aliases)).collect();
    let tlp = labels.tlp.options.iter().map(|label| (spellings(&label.name, &label.aliases), label.enforce_security));
    let SecurityLabels { classification, caveat, releasability, .. } = labels;
    let groups = (releasability.prefix.clone(), names(&releasability.options));
    Labels::new(names(&classification.options), names(&caveat.options), groups, tlp.collect())
}

fn http_options(config: &Config) -> http::Options {
    let http = &config.http;
    http::Options {
        listen: http.listen.to_string(),
        max_connections: usize::try_from(http.max_connections).unwrap_or(usize::MAX),
        max_header_bytes: usize::try_from(http.max_header_bytes).unwrap_or(usize::MAX),
        header_timeout: http.header_timeout,
        idle_timeout: http.idle_timeout,
        write_timeout: http.write_timeout,
        drain_time: http.drain_timeout,
    }
}

/// How the Kafka listener behaves; `None` when it is switched off.
fn kafka_options(config: &Config) -> Option<kafka::listener::Options> {
    let kafka = &config.kafka;
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Some(kafka::listener::Options {
        listen: kafka.listen.address()?,
        advertised: kafka.advertised(),
        max_connections: usize::try_from(kafka.max_connections).unwrap_or(usize::MAX),
        max_request_bytes: bytes(kafka.max_request_bytes),
        request_memory: bytes(kafka.request_memory),
        idle_timeout: kafka.idle_timeout,
        drain_time: config.http.drain_timeout,
        ..kafka::listener::Options::default()
    })
}

/// The Kafka side of the broker.
fn kafka_api(
    config: &Config,
    store: &Store,
    broker: Broker,
    listener: &kafka::Listener,
) -> Result<Arc<kafka::Api>, ServeError> {
    let settings = &config.kafka;
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let whole = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let groups = groups::Options {
        initial_rebalance_delay_ms: i32::try_from(whole(settings.group_initial_rebalance_delay)).unwrap_or(i32::MAX),
        offsets_retention_ms: whole(settings.offsets_retention),
        ..groups::Options::default()
    };
    let cluster_id = kafka::cluster_id(store).map_err(start_error("the cluster id cannot be kept"))?;
    let (host, port) = listener.advertised();
    let advertised = (host.to_owned(), port);
    let address = listener.local_addr();
    let fixed = [
        ("advertised.listeners", format!("PLAINTEXT://{host}:{port}")),
        ("auto.create.topics.enable", settings.auto_create_topics.to_string()),
        ("azulite.durability", config.storage.durability.to_string()),
        ("connections.max.idle.ms", whole(settings.idle_timeout).to_string()),
        ("fetch.max.bytes", settings.fetch_max_bytes.to_string()),
        ("group.initial.rebalance.delay.ms", groups.initial_rebalance_delay_ms.to_string()),
        ("group.max.session.timeout.ms", groups.max_session_timeout_ms.to_string()),
        ("group.max.size", groups.max_members.to_string()),
        ("group.min.session.timeout.ms", groups.min_session_timeout_ms.to_string()),
        ("listeners", format!("PLAINTEXT://{address}")),
        ("log.dir", config.storage.data_dir.display().to_string()),
        ("log.dirs", config.storage.data_dir.display().to_string()),
        ("log.retention.check.interval.ms", whole(config.storage.retention_check_interval).to_string()),
        ("max.connections", settings.max_connections.to_string()),
        ("num.partitions", settings.num_partitions.to_string()),
        ("offset.metadata.max.bytes", groups.max_offset_metadata_bytes.to_string()),
        ("offsets.retention.minutes", (groups.offsets_retention_ms / 60_000).to_string()),
        ("socket.request.max.bytes", settings.max_request_bytes.to_string()),
    ];
    let mut all = fixed_config(config);
    all.extend(fixed.into_iter().map(|(name, value)| (name.to_owned(), value)));
    broker.set_fixed_config(all);
    let coordinator = Coordinator::start(broker.clone(), groups);
    let coordinator = coordinator.map_err(start_error("the consumer groups cannot be read"))?;
    let options = kafka::api::Options {
        cluster_id,
        advertised,
        data_dir: config.storage.data_dir.clone(),
        events_prefix: format!("azul.{}.", config.events.topic_prefix),
        clamp_replication: match settings.clamp_replication_factor {
            ClampReplicationFactor::None => kafka::ClampReplication::None,
            ClampReplicationFactor::Events => kafka::ClampReplication::Events,
            ClampReplicationFactor::All => kafka::ClampReplication::All,
        },
        auto_create_topics: settings.auto_create_topics,
        default_partitions: i32::try_from(settings.num_partitions).unwrap_or(1),
        fetch_max_bytes: bytes(settings.fetch_max_bytes),
        fetch_memory: bytes(settings.fetch_memory),
        ..kafka::api::Options::default()
    };
    Ok(Arc::new(kafka::Api::new(broker, Arc::new(coordinator), options)))
}

fn services(
    config: &Config,
    store: &Store,
    dispatcher: &Arc<Dispatcher>,
    admin: Admin,
    metrics: &Arc<Metrics>,
    identifier: Arc<Identifier>,
) -> Services {
    let options = streams::Options {
        max_uploads: usize::try_from(config.streams.max_uploads).unwrap_or(usize::MAX),
        max_identifications: identifications(config),
        ..streams::Options::default()
    };
    let engine = Arc::new(Engine::new(identifier, metrics.clone()));
    let streams = Streams::new(admin.blobs().clone(), engine, metrics.clone(), options);
    let upload_bytes = Some(config.streams.max_upload_bytes).filter(|limit| *limit > 0);
    Services {
        hub: Arc::new(SharedDispatcher(dispatcher.clone())),
        streams: Arc::new(streams),
        admin: Some(Arc::new(admin)),
        reprocess: None,
        reidentify: None,
        workers: None,
        readiness: Arc::new(Ready::new(store, dispatcher)),
        metrics: metrics.clone(),
        log_files: None,
        limits: RouteLimits {
            event_body_bytes: config.http.max_event_body,
            upload_bytes,
            allow_delete: config.streams.api_allow_delete,
            metrics: config.metrics.enabled,
            ..RouteLimits::default()
        },
    }
}

/// How long a lease lasts that nobody renews.
pub(crate) fn lease_time(config: &Config) -> Duration {
    config.delivery.lease
}

/// The workers that the configuration switches on.
fn start_workers(config: &Config, services: &Services, dispatcher: &Arc<Dispatcher>) -> Result<Workers, String> {
    let dispatcher = dispatcher.clone();
    let release: Release =
        Arc::new(move |ids: &[&str]| dispatcher.release(ids).map(drop).map_err(|error| error.to_string()));
    let runtime = tokio::runtime::Handle::current();
    let connect = |in_process: bool| -> Arc<dyn Upstream> {
        let (hub, streams) = (services.hub.clone(), services.streams.clone());
        Arc::new(LocalUpstream::new(hub, streams, release.clone(), runtime.clone()).in_process(in_process))
    };
    let setting = Setting {
        config: &config.workers,
        data_dir: &config.storage.data_dir,
        connect: &connect,
        metrics: services.metrics.clone(),
        lease: lease_time(config),
    };
    // Rules are compiled.
    tokio::task::block_in_place(|| workers::start::start(&setting))
}

/// Files identified at once.
pub(crate) fn identifications(config: &Config) -> usize {
    match usize::try_from(config.identify.jobs).unwrap_or(0) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    }
}

/// What `/readyz` shows.
struct Ready {
    store: Store,
    warned: AtomicBool,
    workers: Arc<Workers>,
    dead: Arc<dead::DeadLetters>,
}

impl Ready {
    fn new(store: &Store, dispatcher: &Dispatcher) -> Self {
        Self {
            store: store.clone(),
            warned: AtomicBool::new(false),
            workers: Arc::default(),
            dead: dispatcher.dead().clone(),
        }
    }

    /// One line for each; a worker that is down is no reason to send clients away.
    fn workers(&self) -> impl Iterator<Item = Subsystem> {
        let line = |view: WorkerView| {
            let running: u64 = view.stages.iter().map(|stage| stage.in_flight).sum();
            let detail = match (view.reason.as_str(), view.facts.get(WARNING)) {
                ("", None) => format!("{running} jobs under way"),
                ("", Some(warning)) => format!("warning: {warning}"),
                (reason, _) => format!("warning: {}: {reason}", view.state),
            };
            Subsystem { name: format!("worker {}", view.name), ready: true, detail }
        };
        self.workers.views(azulite_storage::clock::now_ms()).into_iter().map(line)
    }
}

impl Readiness for Ready {
    fn subsystems(&self) -> Vec<Subsystem> {
        let damage = self.store.damage();
        if !damage.is_empty() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::error!(
                ranges = damage.len(),
                "records are damaged; run `azulite topics describe` for their places"
            );
        }
        let log = match (self.store.fatal(), self.store.disk_full(), damage.len()) {
            (Some(reason), _, _) => (false, format!("stopped: {reason}")),
            (None, true, _) => (true, "disk full: records and blobs are refused".to_owned()),
            (None, false, 0) => (true, String::new()),
            (None, false, ranges) => (true, format!("warning: {ranges} ranges of records are damaged")),
        };
        let waits = self.store.retention_waits();
        let note = "retention by time waits for 24 hours of uptime: the clock jumped, is it right?";
        let log = if waits && log.1.is_empty() { (log.0, note.to_owned()) } else { log };
        let blobs = match self.store.report().damaged_blobs {
            0 => String::new(),
            count => format!("warning: {count} blobs were found damaged at the start; another upload of each heals it"),
        };
        let part = |name: &str, (ready, detail): (bool, String)| Subsystem { name: name.to_owned(), ready, detail };
        let dead = self.dead.warning(now_ms());
        let own = [
            part("log", log),
            part("blobs", (true, blobs)),
            part("events", (true, String::new())),
            part("dead letters", (true, dead)),
        ];
        own.into_iter().chain(self.workers()).collect()
    }
}
