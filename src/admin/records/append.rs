//! Writing records to a topic, with the rules that hold for whoever produces to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use azulite_storage::batch::HeaderRef;
use azulite_storage::topics::{TimestampType, is_legal_name};

use super::{Data, HeaderLine, NewRecord, Produced, ProducedTo, hash};
use crate::admin::Admin;
use crate::broker::{
    Append, AppendError, BatchBuilder, CreateTopicError, NewTopic, NewTopicError, Partition, Topic, TopicConfig,
};
use crate::dispatcher::topic::{self as event_topic, TopicRef};

/// A batch is closed once it holds this many bytes, where the topic does not want smaller ones.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of a batch beside keys, values and headers: its header, and lengths and deltas of one record.
const OVERHEAD: usize = 61 + 32;
const HEADER_OVERHEAD: usize = 10;

/// Why records were not written.
#[derive(Debug, thiserror::Error)]
pub enum AppendRecordsError {
    /// There is no such topic, and none is made.
    #[error("there is no topic {0:?}, and none of that name is made on first use")]
    Topic(String),
    /// The store keeps the topic for itself.
    #[error("topic {0} is internal: only the store itself writes to it")]
    Internal(String),
    /// It could not be made.
    #[error("the topic cannot be made: {0}")]
    Create(#[from] NewTopicError),
    /// A record may not be that.
    #[error("record {number}: {reason}")]
    Record {
        /// Its place in the request, from 1.
        number: usize,
        /// What is wrong.
        reason: String,
    },
    /// A record is larger than the topic takes.
    #[error("record {number} has about {bytes} bytes, topic {topic} takes {limit} (max.message.bytes)")]
    TooLarge {
        /// Its place in the request, from 1.
        number: usize,
        /// The topic.
        topic: String,
        /// Bytes of a batch with only this record.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// They could not be committed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Records that only have to be committed.
#[derive(Debug)]
pub struct Prepared {
    appends: Vec<Append>,
    answer: Produced,
}

impl Admin {
    /// Checks records and makes batches of them; makes the topic where the broker makes topics on first use. Blocks for
    /// one commit when it does.
    ///
    /// # Errors
    /// The first thing that is wrong with any of them; then nothing is written.
    pub fn prepare_records(&self, topic: &str, records: Vec<NewRecord>) -> Result<Prepared, AppendRecordsError> {
        let (topic, created) = self.topic_for_records(topic)?;
        let config = self.broker.topic_config(&topic);
        let keyless = self.next_partition.fetch_add(1, Ordering::Relaxed);
        let mut batches = Batches {
            topic: &topic,
            config: &config,
            now_ms: azulite_storage::clock::now_ms(),
            fnv: TopicRef::parse(&self.topic_prefix, &topic.name).is_some(),
            keyless,
            open: BTreeMap::new(),
            done: Vec::new(),
        };
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        for (number, record) in (1..).zip(records) {
            batches.add(number, record)?;
        }
        let appends = batches.finish();
        let answer = Produced { topic: topic.name.clone(), records: count, created, partitions: Vec::new() };
        Ok(Prepared { appends, answer })
    }

    /// Commits them.
    ///
    /// # Durability
    /// ACK-SYNCED: on `Ok` all of them are durable.
    /// # Errors
    /// See [`AppendError`].
    pub async fn append_records(&self, prepared: Prepared) -> Result<Produced, AppendError> {
        let Prepared { appends, mut answer } = prepared;
        if appends.is_empty() {
            return Ok(answer);
        }
        let lengths: Vec<_> = appends
            .iter()
            .map(|append| (append.partition.name().partition, i64::from(append.batch.header().last_offset_delta)))
            .collect();
        let appended = self.broker.append(appends).await?;
        for ((partition, last_delta), appended) in lengths.into_iter().zip(appended) {
            let first_offset = appended.base_offset;
            let to = ProducedTo { partition, first_offset, last_offset: first_offset + last_delta };
            answer.add(Produced { partitions: vec![to], ..Produced::default() });
        }
        Ok(answer)
    }

    fn topic_for_records(&self, name: &str) -> Result<(Arc<Topic>, bool), AppendRecordsError> {
        match self.broker.log().topic(name) {
            Some(topic) if topic.internal => return Err(AppendRecordsError::Internal(name.to_owned())),
            Some(topic) => return Ok((topic, false)),
            None => {}
        }
        let keys = self.broker.broker_config().describe();
        let value = |name: &str| keys.iter().find(|key| key.name == name).map(|key| key.value.as_str());
        let may_create = value("auto.create.topics.enable") == Some("true");
        if !may_create || name.starts_with("__") || !is_legal_name(name) {
            return Err(AppendRecordsError::Topic(name.to_owned()));
        }
        let partitions = value("num.partitions").and_then(|value| value.parse().ok()).unwrap_or(1);
        match self.broker.create_topic(NewTopic { name: name.to_owned(), partitions, config: BTreeMap::new() }) {
            Ok(topic) => Ok((topic, true)),
            // Somebody else was faster.
            Err(NewTopicError::Create(CreateTopicError::Exists(_))) => match self.broker.log().topic(name) {
                Some(topic) => Ok((topic, false)),
                None => Err(AppendRecordsError::Topic(name.to_owned())),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// Batches being filled, one for each partition.
struct Batches<'a> {
    topic: &'a Topic,
    config: &'a TopicConfig,
    now_ms: i64,
    /// Whether keys choose partitions as events do.
    fnv: bool,
    /// Chooses the partition of records without a key.
    keyless: usize,
    open: BTreeMap<i32, (Arc<Partition>, BatchBuilder)>,
    done: Vec<Append>,
}

impl Batches<'_> {
    fn add(&mut self, number: usize, record: NewRecord) -> Result<(), AppendRecordsError> {
        let wrong = |reason: String| AppendRecordsError::Record { number, reason };
        let NewRecord { partition, timestamp_ms, key, value, headers } = record;
        let bytes = |what: &str, data: Option<Data>| {
            data.map(Data::into_bytes).transpose().map_err(|reason| wrong(format!("the {what} is {reason}")))
        };
        let (key, value) = (bytes("key", key)?, bytes("value", value)?);
        let header = |HeaderLine { name, value }| Ok((bytes("name of a header", Some(name))?, bytes("header", value)?));
        let headers: Vec<_> = headers.into_iter().map(header).collect::<Result<_, AppendRecordsError>>()?;
        let headers: Vec<HeaderRef<'_>> =
            headers.iter().map(|(name, value)| (name.as_deref().unwrap_or_default(), value.as_deref())).collect();
        if self.config.settings.cleanup.compact && key.is_none() {
            return Err(wrong("topic is compacted, so that every record needs a key".to_owned()));
        }
        let timestamp = timestamp_ms.unwrap_or(self.now_ms);
        let append_time = self.config.settings.timestamp_type == TimestampType::LogAppend;
        if !append_time && !self.config.allows_timestamp(timestamp, self.now_ms) {
            return Err(wrong(format!("the topic does not take timestamp {timestamp}")));
        }
        let index = partition.unwrap_or_else(|| self.partition(key.as_deref()));
        let place =
            self.topic.partition(index).cloned().ok_or_else(|| wrong(format!("there is no partition {index}")))?;
        let in_headers: usize =
            headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + HEADER_OVERHEAD).sum();
        let length = key.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len) + in_headers + OVERHEAD;
        let limit = self.config.max_message_bytes;
        if length > limit {
            let topic = self.topic.name.clone();
            return Err(AppendRecordsError::TooLarge { number, topic, bytes: length, limit });
        }
        if self.open.get(&index).is_some_and(|(_, batch)| batch.len() + length > limit.min(BATCH_BYTES)) {
            self.close(index);
        }
        let fresh = || (place, BatchBuilder::with_capacity(length));
        let (_, batch) = self.open.entry(index).or_insert_with(fresh);
        batch.push_with_headers(timestamp, key.as_deref(), value.as_deref(), &headers);
        Ok(())
    }

    fn partition(&self, key: Option<&[u8]>) -> i32 {
        let count = self.topic.partitions.len().max(1);
        let partitions = u32::try_from(count).unwrap_or(1);
        let index = match key {
            Some(key) if self.fnv => event_topic::partition(key, partitions),
            Some(key) => hash::partition(key, partitions),
            None => u32::try_from(self.keyless % count).unwrap_or(0),
        };
        i32::try_from(index).unwrap_or(0)
    }

    fn close(&mut self, index: i32) {
        let Some((partition, builder)) = self.open.remove(&index) else { return };
        if let Some(mut batch) = builder.build() {
            if self.config.settings.timestamp_type == TimestampType::LogAppend {
                batch.use_append_time();
            }
            self.done.push(Append { partition, batch });
        }
    }

    fn finish(mut self) -> Vec<Append> {
        let open: Vec<i32> = self.open.keys().copied().collect();
        open.into_iter().for_each(|index| self.close(index));
        self.done
    }
}
