//! `serve`: boot order, listeners, stop. The only place that sees the whole configuration and wires the parts.

mod settings;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azulite_storage::cleaner::CleanerOptions;
use azulite_storage::clock::now_ms;
use azulite_storage::fs::RealFs;
use azulite_storage::{OpenError, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::admin::reidentify::Reidentification;
use crate::admin::reprocess::{self, Hold, Jobs};
use crate::broker::Broker;
use crate::broker::groups::{self, Coordinator};
use crate::config::{ClampReplicationFactor, Config};
use crate::dispatcher::{self, Dispatcher, SharedDispatcher, dead};
use crate::http::{self, Readiness, RouteLimits, Services, Subsystem};
use crate::identify::{Identifier, content};
use crate::kafka;
use crate::log_files::LogFiles;
use crate::metrics::Metrics;
use crate::notify::Notify;
use crate::streams::{self, AdoptError, AgeOff, Copier, Engine, Streams};
use crate::workers::overseer::WARNING;
use crate::workers::start::{Setting, Workers};
use crate::workers::{self, LocalUpstream, Release, Upstream, WorkerView};

pub use settings::{blob_store, dispatcher_options, fixed_config, reprocess_options, store_options};
use settings::{http_options, kafka_options};
pub(crate) use settings::{identifications, lease_time};

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
                // The server is ready without it.
                (reason, _) if view.state == "up" => format!("but waiting: {reason}"),
                (reason, _) => format!("but {}: {reason}", view.state),
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
