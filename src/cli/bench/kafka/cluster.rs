//! The server under test as librdkafka sees it: configuration of clients, topics that are made and deleted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::super::interrupt::Interrupt;
use super::{Amount, Options};

/// How long a server may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to make or delete a topic.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a record may take to be acknowledged.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Records that wait in the producer, bytes.
const QUEUE_KIB: u32 = 64 << 10;
/// Different records before they repeat, bytes.
const POOL_BYTES: usize = 8 << 20;

/// What an acknowledgement asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acks {
    /// Every replica in sync has the record
    All,
    /// The leader has it
    #[value(name = "1")]
    Leader,
}

impl Acks {
    pub(super) fn value(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Leader => "1",
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// Not at all
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

impl Codec {
    pub(super) fn value(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// The client library and its version.
pub(super) fn version() -> String {
    format!("librdkafka {}", rdkafka::util::get_rdkafka_version().1)
}

/// What librdkafka complains of, kept for the message when something fails.
#[derive(Clone, Debug, Default)]
struct Complaints(Arc<Mutex<String>>);

impl Complaints {
    fn take_note(&self, text: String) {
        tracing::debug!("librdkafka: {text}");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// The last one, as the end of a message.
    fn last(&self) -> String {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_empty() { String::new() } else { format!(" ({last})") }
    }
}

/// Hears of errors and acknowledgements of one client.
#[derive(Debug, Default)]
pub(super) struct Ear {
    complaints: Complaints,
    acked: Mutex<Amount>,
    refused: Mutex<Option<String>>,
}

impl ClientContext for Ear {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!("librdkafka: {facility}: {text}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Said behind the reason, and says less.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        let said = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        self.complaints.take_note(said);
    }
}

impl ConsumerContext for Ear {}

impl ProducerContext<NoCustomPartitioner> for Ear {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, bytes: usize) {
        match result {
            Ok(_) => {
                let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
                acked.records += 1;
                acked.bytes += u64::try_from(bytes).unwrap_or_default();
            }
            Err((error, _)) => {
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// A server, known to answer.
pub(super) struct Cluster {
    options: Options,
    admin: AdminClient<Ear>,
    id: String,
    /// Runs the futures of the admin client, one at a time.
    runtime: tokio::runtime::Runtime,
    run: u64,
    made: AtomicU32,
    interrupt: Interrupt,
}

impl Cluster {
    /// # Errors
    /// Nobody answers as a Kafka server does.
    pub(super) fn connect(options: &Options) -> anyhow::Result<Self> {
        use rdkafka::producer::Producer as _;
        let bootstrap = &options.bootstrap;
        let admin: AdminClient<Ear> =
            config(options).create_with_context(Ear::default()).with_context(|| format!("--bootstrap {bootstrap}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        // Unlike the admin client it hears why nobody answers.
        let client: BaseProducer<Ear> = config(options).create_with_context(Ear::default())?;
        if let Err(error) = client.client().fetch_metadata(Some(""), CONNECT_TIMEOUT)
            && !answered(&error)
        {
            // Long enough for everything that waits to be heard.
            client.poll(Duration::from_millis(100));
            let (seconds, complaint) = (CONNECT_TIMEOUT.as_secs(), client.context().complaints.last());
            bail!("no Kafka server answers at {bootstrap} within {seconds} s: {error}{complaint}");
        }
        let id = client.client().fetch_cluster_id(CONNECT_TIMEOUT).unwrap_or_default();
        let run = u64::from(std::process::id()) << 32 | u64::try_from(azulite_storage::clock::now_ms())? & 0xffff_ffff;
        let interrupt = Interrupt::listen()?;
        Ok(Self { options: options.clone(), admin, id, runtime, run, made: AtomicU32::new(0), interrupt })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether to go on: asked in every loop, so that topics are deleted before the process ends.
    ///
    /// # Errors
    /// The process has been asked to stop.
    pub(super) fn go_on(&self) -> anyhow::Result<()> {
        match self.interrupt.asked() {
            true => bail!("stopped by a signal before the end; the topics that were made are deleted"),
            false => Ok(()),
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// A new topic, deleted with [`BenchTopic::delete`], or when dropped because something failed.
    ///
    /// # Errors
    /// The server refuses it.
    pub(super) fn make_topic(&self, purpose: &str) -> anyhow::Result<BenchTopic<'_>> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("azulite-bench-{:x}-{purpose}-{number}", self.run);
        let partitions = i32::from(self.options.partitions);
        let largest = (self.options.size_bytes + OVERHEAD).max(1 << 20).to_string();
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", &largest);
        let made = self.runtime.block_on(self.admin.create_topics([&new], &limits()));
        outcome(made, RDKafkaErrorCode::TopicAlreadyExists).map_err(|error| {
            anyhow!("the server refuses to make topic {name} with {partitions} partitions: {error}")
        })?;
        Ok(BenchTopic { cluster: self, name, deleted: false })
    }

    fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        let deleted = self.runtime.block_on(self.admin.delete_topics(&[name], &limits()));
        outcome(deleted, RDKafkaErrorCode::UnknownTopicOrPartition)
            .map_err(|error| anyhow!("the server refuses to delete topic {name}: {error}"))
    }

    /// A producer; `linger` is how long it waits for a batch to fill, librdkafka's default when `None`.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub(super) fn producer(&self, linger: Option<Duration>) -> anyhow::Result<Producer> {
        let mut config = config(&self.options);
        config
            .set("acks", self.options.acks.value())
            .set("compression.type", self.options.codec.value())
            .set("message.max.bytes", (self.options.size_bytes + OVERHEAD).max(1_000_000).to_string())
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KIB.to_string());
        if let Some(linger) = linger {
            config.set("linger.ms", linger.as_millis().to_string());
        }
        let inner = config.create_with_context(Ear::default()).context("the producer cannot be made")?;
        Ok(Producer { inner })
    }

    /// A consumer of the whole topic from its beginning.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub(super) fn consumer(&self, topic: &str) -> anyhow::Result<BaseConsumer<Ear>> {
        let mut config = config(&self.options);
        config
            .set("group.id", topic)
            .set("enable.auto.commit", "false")
            .set("message.max.bytes", (self.options.size_bytes + OVERHEAD).max(1_000_000).to_string())
            // Instead of a whole second once the queue is full: the server is to be measured, not the pause.
            .set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer<Ear> =
            config.create_with_context(Ear::default()).context("the consumer cannot be made")?;
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::from(self.options.partitions) {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        Ok(consumer)
    }

    /// Values of records.
    pub(super) fn values(&self) -> Values {
        let size = usize::try_from(self.options.size_bytes).unwrap_or(usize::MAX);
        Values::new(size)
    }
}

/// Room in a batch beside the value.
const OVERHEAD: u64 = 16 << 10;

fn config(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.bootstrap)
        .set("client.id", "azulite-bench")
        .set("allow.auto.create.topics", "false")
        .set("socket.connection.setup.timeout.ms", "5000");
    config
}

fn limits() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TOPIC_TIMEOUT)).operation_timeout(Some(TOPIC_TIMEOUT))
}

/// The server said something, if only that it does not know the topic asked for.
fn answered(error: &KafkaError) -> bool {
    let silent = [
        RDKafkaErrorCode::BrokerTransportFailure,
        RDKafkaErrorCode::AllBrokersDown,
        RDKafkaErrorCode::OperationTimedOut,
        RDKafkaErrorCode::RequestTimedOut,
        RDKafkaErrorCode::Resolve,
    ];
    !error.rdkafka_error_code().is_none_or(|code| silent.contains(&code))
}

type TopicResults = Result<Vec<Result<String, (String, RDKafkaErrorCode)>>, KafkaError>;

/// What became of one topic. `done` says that it was so before: an answer got lost, and the request was sent again.
fn outcome(results: TopicResults, done: RDKafkaErrorCode) -> Result<(), String> {
    let results = results.map_err(|error| error.to_string())?;
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) if code == done => Ok(()),
        Some(Err((_, code))) => Err(code.to_string()),
        None => Err("it says nothing about it".to_owned()),
    }
}

/// A topic of ours.
pub(super) struct BenchTopic<'a> {
    cluster: &'a Cluster,
    name: String,
    deleted: bool,
}

impl BenchTopic<'_> {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// The server refuses.
    pub(super) fn delete(mut self) -> anyhow::Result<()> {
        self.deleted = true;
        self.cluster.delete_topic(&self.name)
    }
}

impl Drop for BenchTopic<'_> {
    fn drop(&mut self) {
        if !self.deleted
            && let Err(error) = self.cluster.delete_topic(&self.name)
        {
            tracing::warn!("{error}");
        }
    }
}

/// A producer that counts what is acknowledged.
pub(super) struct Producer {
    inner: BaseProducer<Ear>,
}

impl Producer {
    /// Queues a record; waits a moment when the queue is full, and says whether it was taken.
    ///
    /// # Errors
    /// The record is refused, or one before it was.
    pub(super) fn send(&self, topic: &str, partition: Option<i32>, value: &[u8]) -> anyhow::Result<bool> {
        let record: BaseRecord<'_, (), [u8], usize> = BaseRecord::with_opaque_to(topic, value.len()).payload(value);
        let record = BaseRecord { partition, ..record };
        match self.inner.send(record) {
            Ok(()) => Ok(true),
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                self.poll(Duration::from_millis(1))?;
                Ok(false)
            }
            Err((error, _)) => bail!("a record is refused: {error}"),
        }
    }

    /// Takes in acknowledgements.
    ///
    /// # Errors
    /// A record was not acknowledged.
    pub(super) fn poll(&self, wait: Duration) -> anyhow::Result<()> {
        use rdkafka::producer::Producer as _;
        self.inner.poll(wait);
        let context = self.inner.client().context();
        let refused = context.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        match refused {
            Some(error) => bail!("a record was not acknowledged: {error}{}", context.complaints.last()),
            None => Ok(()),
        }
    }

    /// Waits until everything is acknowledged.
    ///
    /// # Errors
    /// As [`Producer::poll`], or it takes too long.
    pub(super) fn flush(&self) -> anyhow::Result<()> {
        use rdkafka::producer::Producer as _;
        let waiting = self.inner.flush(DELIVERY_TIMEOUT);
        self.poll(Duration::ZERO)?;
        waiting.with_context(|| format!("records are not acknowledged within {} s", DELIVERY_TIMEOUT.as_secs()))
    }

    /// What has been acknowledged so far.
    pub(super) fn acked(&self) -> Amount {
        use rdkafka::producer::Producer as _;
        *self.inner.client().context().acked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a consumer complained of last, as the end of a message.
pub(super) fn complaint(consumer: &BaseConsumer<Ear>) -> String {
    consumer.client().context().complaints.last()
}

/// Values of one size: text of hexadecimal words, half of whose bits are random, so that codecs have something to do and
/// do not do wonders.
pub(super) struct Values {
    pool: Vec<u8>,
    size: usize,
    at: usize,
}

impl Values {
    fn new(size: usize) -> Self {
        let bytes = POOL_BYTES.max(size * 2);
        let mut pool = Vec::with_capacity(bytes + 16);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while pool.len() < bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            pool.extend_from_slice(format!("{state:016x}").as_bytes());
        }
        Self { pool, size, at: 0 }
    }

    /// The next value.
    pub(super) fn next(&mut self) -> &[u8] {
        if self.at + self.size > self.pool.len() {
            self.at = 0;
        }
        let value = self.pool.get(self.at..self.at + self.size).unwrap_or_default();
        self.at += self.size;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_size_asked_for_and_differ() {
        for size in [16, 1000, 10 << 20] {
            let mut values = Values::new(size);
            let first = values.next().to_vec();
            assert_eq!((first.len(), values.next().len()), (size, size));
            let mut values = Values::new(size);
            values.next();
            assert_ne!(first, values.next(), "{size}");
            (0..100).for_each(|_| assert_eq!(values.next().len(), size));
        }
    }

    #[test]
    fn only_silence_means_that_there_is_no_server() {
        assert!(!answered(&KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure)));
        assert!(answered(&KafkaError::MetadataFetch(RDKafkaErrorCode::InvalidTopic)));
        assert!(!answered(&KafkaError::Canceled));
    }

    #[test]
    fn a_repeated_request_finds_its_work_done() {
        let refused = |code| Ok(vec![Err((String::new(), code))]);
        let exists = RDKafkaErrorCode::TopicAlreadyExists;
        assert_eq!(outcome(refused(exists), exists), Ok(()));
        assert_eq!(outcome(Ok(vec![Ok(String::new())]), exists), Ok(()));
        let said = outcome(refused(RDKafkaErrorCode::PolicyViolation), exists).unwrap_err();
        assert!(said.contains("PolicyViolation"), "{said}");
        assert!(outcome(Ok(Vec::new()), exists).is_err());
    }
}
