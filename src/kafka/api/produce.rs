//! Produce and InitProducerId.
//!
//! Each partition of a request is a request of its own to the log, in the connection's lane: one that fails does not
//! block its neighbours, and batches reach the log in the order in which they came. When the log's queue is full they
//! wait for room in that order; a connection that waits too long is closed without an answer, because a batch that is
//! refused while the one behind it is taken cannot be sent again by an idempotent producer.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use azulite_storage::batch::{BatchError, CheckedBatch, RecordRules};
use azulite_storage::compress::Codec;
use azulite_storage::producers::SequenceError;
use azulite_storage::topics::TimestampType;
use bytes::{Bytes, BytesMut};

use super::{Api, Later, Peer, message, unknown_topic};
use crate::broker::topic_config::TopicConfig;
use crate::broker::{Append, AppendError, Appended, Outcome, QueueFull, Topic};
use crate::kafka::codec::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::kafka::codec::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use crate::kafka::codec::{Records, Str};
use crate::kafka::error::ErrorCode;

/// First version of Produce that takes zstd.
const ZSTD_SINCE: i16 = 7;
/// How long a batch waits for room in the log's queue: as long as clients wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Larger batches, and compressed ones that are looked into, are checked on a thread that may be busy.
const QUICK_BYTES: usize = 1 << 20;

/// A batch that is refused, before it comes to the log or by it.
#[derive(Debug)]
struct Refused {
    code: ErrorCode,
    message: String,
    /// The record that is to blame.
    record: Option<i32>,
}

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), record: None }
    }
}

impl From<BatchError> for Refused {
    fn from(error: BatchError) -> Self {
        let (code, record) = match &error {
            BatchError::Length { .. } | BatchError::Crc { .. } => (ErrorCode::CorruptMessage, None),
            BatchError::Magic(_) => (ErrorCode::UnsupportedForMessageFormat, None),
            BatchError::TooLarge { .. } => (ErrorCode::MessageTooLarge, None),
            BatchError::Empty
            | BatchError::Several { .. }
            | BatchError::Count { .. }
            | BatchError::Sequence { .. }
            | BatchError::Control
            | BatchError::Codec(_)
            | BatchError::Compression { .. }
            | BatchError::Trailing { .. } => (ErrorCode::InvalidRecord, None),
            BatchError::Timestamp { index, .. } => (ErrorCode::InvalidTimestamp, Some(*index)),
            BatchError::Record { index, .. } | BatchError::NoKey { index } => (ErrorCode::InvalidRecord, Some(*index)),
        };
        Self { code, message: error.to_string(), record }
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        let code = match &error {
            AppendError::TooLarge => ErrorCode::MessageTooLarge,
            AppendError::Gone { .. } => ErrorCode::UnknownTopicOrPartition,
            AppendError::Sequence(refused) => match refused.error {
                SequenceError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
                SequenceError::Duplicate { .. } => ErrorCode::DuplicateSequenceNumber,
                SequenceError::Epoch { .. } => ErrorCode::InvalidProducerEpoch,
            },
            AppendError::DiskFull
            | AppendError::Overloaded { .. }
            | AppendError::Closed
            | AppendError::Poisoned { .. }
            | AppendError::Io { .. }
            // No batch of a client has to have a certain offset.
            | AppendError::Moved { .. } => ErrorCode::KafkaStorageError,
        };
        Self::new(code, error.to_string())
    }
}

/// A batch on its way through the log.
struct UnderWay {
    append_time: bool,
    outcome: Outcome,
}

type Started = Result<UnderWay, Refused>;

impl Api {
    /// `kafka.md` 3.2. Everything has been handed to the log when this returns.
    ///
    /// # Errors
    /// The log takes nothing more; nothing behind this request may be handed to it.
    pub(in super::super) async fn produce(
        &self,
        peer: &Peer,
        request: ProduceRequest,
        version: i16,
    ) -> Result<Later, QueueFull> {
        let ProduceRequest { transactional_id, acks, topic_data, .. } = request;
        let whole = match (transactional_id, acks) {
            (Some(id), _) => {
                Some((ErrorCode::UnsupportedVersion, format!("transactional id {id:?}: {NO_TRANSACTIONS}")))
            }
            (None, -1..=1) => None,
            (None, acks) => Some((ErrorCode::InvalidRequiredAcks, format!("acks {acks} is not one of -1, 0, 1"))),
        };
        let mut topics = Vec::with_capacity(topic_data.len());
        for data in topic_data {
            let topic = self.topic(&data.name, data.topic_id);
            let mut partitions = Vec::with_capacity(data.partition_data.len());
            for part in data.partition_data {
                let started = match (&whole, &topic) {
                    (Some((code, message)), _) => Err(Refused::new(*code, message.clone())),
                    (None, None) => Err(Refused::new(unknown_topic(version), "there is no such topic")),
                    (None, Some(topic)) => self.start(peer, topic, part.index, part.records, version).await?,
                };
                partitions.push((part.index, started));
            }
            // A copy: the name must not keep the request's memory until the log is done.
            topics.push((Str::from(data.name.to_string()), data.topic_id, partitions));
        }
        Ok(Box::pin(async move {
            let mut responses = Vec::with_capacity(topics.len());
            let mut refused = None;
            for (name, topic_id, partitions) in topics {
                let mut partition_responses = Vec::with_capacity(partitions.len());
                for (index, started) in partitions {
                    let outcome = finish(started, version).await;
                    if let Err(error) = &outcome {
                        tracing::debug!(topic = %name, index, code = %error.code, reason = %error.message, "produce refused");
                        refused.get_or_insert_with(|| format!("produce to {name} {index}: {}", error.message));
                    }
                    partition_responses.push(response(index, outcome));
                }
                responses.push(TopicProduceResponse { name, topic_id, partition_responses });
            }
            match (acks, refused) {
                (0, Some(reason)) => Err(reason),
                (0, None) => Ok(None),
                _ => Ok(Some(ProduceResponse { responses, ..Default::default() }.into())),
            }
        }))
    }

    /// Checks one batch and hands it to the log.
    async fn start(
        &self,
        peer: &Peer,
        topic: &Arc<Topic>,
        index: i32,
        records: Option<Records>,
        version: i16,
    ) -> Result<Started, QueueFull> {
        if topic.internal {
            let message = "only the broker itself writes this topic";
            return Ok(Err(Refused::new(ErrorCode::InvalidTopicException, message)));
        }
        let Some(partition) = topic.partition(index).cloned() else {
            return Ok(Err(Refused::new(ErrorCode::UnknownTopicOrPartition, "there is no such partition")));
        };
        let config = self.broker.topic_config(topic);
        let append_time = uses_append_time(&config);
        let records = records.map(|records| records.to_bytes()).unwrap_or_default();
        let batch = if is_quick(&config, &records) {
            checked(&config, &records, version)
        } else {
            let failed = |(code, message): super::topics::Failure| Err(Refused::new(code, message));
            self.blocking(move |_| checked(&config, &records, version)).await.unwrap_or_else(failed)
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(refused) => return Ok(Err(refused)),
        };
        let appends = vec![Append { partition, batch }];
        let outcome = self.broker.append_in_turn(peer.lane, appends, PATIENCE).await?;
        Ok(Ok(UnderWay { append_time, outcome }))
    }

    /// `kafka.md` 5.1.
    pub(super) async fn init_producer_id(&self, request: InitProducerIdRequest) -> InitProducerIdResponse {
        let failed = |error_code| InitProducerIdResponse {
            error_code,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        if let Some(id) = request.transactional_id.filter(|id| !id.is_empty()) {
            tracing::warn!(transactional_id = %id, "a Kafka client asked for transactions: {NO_TRANSACTIONS}");
            return failed(ErrorCode::UnsupportedVersion);
        }
        let broker = self.broker.clone();
        match tokio::task::spawn_blocking(move || broker.log().init_producer_id()).await {
            Ok(Ok(producer_id)) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
            Ok(Err(error)) => {
                tracing::error!(%error, "no producer id could be given");
                failed(ErrorCode::KafkaStorageError)
            }
            Err(_) => failed(ErrorCode::UnknownServerError),
        }
    }
}

/// What is said to those who want transactions.
const NO_TRANSACTIONS: &str = "transactions are not served by this version";

/// Whether the checks take no longer than other requests may wait.
fn is_quick(config: &TopicConfig, records: &[u8]) -> bool {
    let is_compressed = records.get(22).is_some_and(|attributes| attributes & 7 != 0);
    let looks_inside = config.settings.cleanup.compact || uses_append_time(config) || bounds_timestamps(config);
    records.len() <= QUICK_BYTES && !(is_compressed && looks_inside)
}

/// The checks of `kafka.md` 3.2, in its order.
fn checked(config: &TopicConfig, records: &Bytes, version: i16) -> Result<CheckedBatch, Refused> {
    if records.len() > config.max_message_bytes {
        let (len, limit) = (records.len(), config.max_message_bytes);
        let message = format!("the batch has {len} bytes, max.message.bytes is {limit}");
        return Err(Refused::new(ErrorCode::MessageTooLarge, message));
    }
    // A copy: what is kept of the batch must not keep the whole request.
    let mut batch = CheckedBatch::check(BytesMut::from(&records[..]))?;
    let header = batch.header();
    if header.is_transactional() {
        return Err(Refused::new(ErrorCode::InvalidRecord, NO_TRANSACTIONS));
    }
    if batch.codec() == Codec::Zstd && version < ZSTD_SINCE {
        return Err(Refused::new(ErrorCode::UnsupportedCompressionType, "zstd is taken from Produce version 7 on"));
    }
    let append_time = uses_append_time(config);
    let timestamps = match append_time {
        true => i64::MIN..=i64::MAX,
        false => timestamps(config, azulite_storage::clock::now_ms()),
    };
    let rules = RecordRules { keys: config.settings.cleanup.compact, timestamps, ..RecordRules::default() };
    // Plain records are looked at in any case, which costs little; compressed ones only when something depends on it.
    if batch.codec() == Codec::None || rules.keys || append_time || rules.timestamps != (i64::MIN..=i64::MAX) {
        batch.validate(&rules)?;
    }
    if append_time {
        batch.use_append_time();
    }
    Ok(batch)
}

fn uses_append_time(config: &TopicConfig) -> bool {
    config.settings.timestamp_type == TimestampType::LogAppend
}

fn bounds_timestamps(config: &TopicConfig) -> bool {
    config.timestamp_before_max_ms.is_some() || config.timestamp_after_max_ms.is_some()
}

/// Timestamps that the topic takes now.
fn timestamps(config: &TopicConfig, now_ms: i64) -> RangeInclusive<i64> {
    let before = config.timestamp_before_max_ms.map_or(i64::MIN, |most| now_ms.saturating_sub(most));
    let after = config.timestamp_after_max_ms.map_or(i64::MAX, |most| now_ms.saturating_add(most));
    before..=after
}

async fn finish(started: Started, version: i16) -> Result<(Appended, bool), Refused> {
    let UnderWay { append_time, outcome } = started?;
    let outcome = match outcome.await.unwrap_or(Err(AppendError::Closed)) {
        Err(error @ AppendError::Gone { .. }) => Err(Refused::new(unknown_topic(version), error.to_string())),
        outcome => outcome.map_err(Refused::from),
    }?;
    let appended = outcome.first().copied().ok_or_else(|| Refused::from(AppendError::Closed))?;
    Ok((appended, append_time))
}

fn response(index: i32, outcome: Result<(Appended, bool), Refused>) -> PartitionProduceResponse {
    match outcome {
        Ok((appended, append_time)) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset,
            log_append_time_ms: if append_time { appended.append_time_ms } else { -1 },
            log_start_offset: appended.log_start,
            ..Default::default()
        },
        Err(Refused { code, message: said, record }) => {
            let said = message(said);
            let blamed =
                |batch_index| BatchIndexAndErrorMessage { batch_index, batch_index_error_message: said.clone() };
            PartitionProduceResponse {
                index,
                error_code: code,
                base_offset: -1,
                log_append_time_ms: -1,
                log_start_offset: -1,
                record_errors: record.map(blamed).into_iter().collect(),
                error_message: said,
                ..Default::default()
            }
        }
    }
}
