//! What the configuration means for each part: how the store is opened, the plan of topics, limits, leases. Called by
//! [`serve`](super) and by the commands that work on a data directory without it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azulite_storage::Store;
use azulite_storage::fs::{Fs, RealFs};

use super::ServeError;
use crate::admin::reprocess;
use crate::broker::topic_config::ConfigMap;
use crate::config::{Config, Delivery, Durability, LabelOption, SecurityLabels};
use crate::dispatcher::labels::Labels;
use crate::dispatcher::leases::{Policies, Policy};
use crate::dispatcher::params::Limits;
use crate::dispatcher::sources::{Source, SourceTopicConfig, Sources, retention};
use crate::dispatcher::topic::{TopicDefaults, TopicOverride, TopicPlan};
use crate::dispatcher::{self, caches, dead, replay};
use crate::http;
use crate::kafka;
use crate::streams::{AdoptError, AdoptedBlobs, BlobStore, EmbeddedBlobs};

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

pub(super) fn http_options(config: &Config) -> http::Options {
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
pub(super) fn kafka_options(config: &Config) -> Option<kafka::listener::Options> {
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

/// How long a lease lasts that nobody renews.
pub(crate) fn lease_time(config: &Config) -> Duration {
    config.delivery.lease
}

/// Files identified at once.
pub(crate) fn identifications(config: &Config) -> usize {
    match usize::try_from(config.identify.jobs).unwrap_or(0) {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    }
}
