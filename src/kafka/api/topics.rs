//! CreateTopics, DeleteTopics, CreatePartitions, DeleteRecords. One bad topic never spoils the others.

use std::collections::HashMap;

use azulite_storage::ids::TopicId;
use azulite_storage::topics::{DeleteRecordsError, MAX_PARTITIONS, TopicError};

use super::{Api, ClampReplication, message};
use crate::broker::topic_config::{self, ConfigError, Described};
use crate::broker::{AppendError, CreateTopicError, NewTopic, NewTopicError, TopicPartition};
use crate::kafka::codec::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use crate::kafka::codec::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use crate::kafka::codec::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::kafka::codec::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::kafka::codec::{Str, Uuid};
use crate::kafka::error::ErrorCode;

/// Partitions that one request may make, as at Kafka's.
const MAX_NEW_PARTITIONS: i32 = 10_000;

/// A code with the text that goes with it.
pub(super) type Failure = (ErrorCode, String);

pub(super) fn append_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Gone { .. } => ErrorCode::UnknownTopicOrPartition,
        AppendError::DiskFull
        | AppendError::Overloaded { .. }
        | AppendError::Closed
        | AppendError::Poisoned { .. }
        | AppendError::Io { .. }
        | AppendError::TooLarge
        | AppendError::Sequence(_)
        | AppendError::Moved { .. } => ErrorCode::KafkaStorageError,
    }
}

fn create_failure(error: &CreateTopicError) -> Failure {
    let code = match error {
        CreateTopicError::Exists(_) => ErrorCode::TopicAlreadyExists,
        CreateTopicError::Name(_) => ErrorCode::InvalidTopicException,
        CreateTopicError::Partitions { .. } => ErrorCode::InvalidPartitions,
        CreateTopicError::State(_) => ErrorCode::KafkaStorageError,
        CreateTopicError::Append(error) => append_code(error),
    };
    (code, error.to_string())
}

fn new_topic_failure(error: &NewTopicError) -> Failure {
    match error {
        // Whatever is wrong with a configuration here is wrong with the configuration, not with the request.
        NewTopicError::Config(error) => (ErrorCode::InvalidConfig, error.to_string()),
        NewTopicError::Create(error) => create_failure(error),
    }
}

pub(super) fn topic_failure(error: &TopicError) -> Failure {
    let code = match error {
        TopicError::Unknown(_) => ErrorCode::UnknownTopicOrPartition,
        TopicError::UnknownId(_) => ErrorCode::UnknownTopicId,
        TopicError::Internal(_) => ErrorCode::InvalidTopicException,
        TopicError::Partitions { .. } => ErrorCode::InvalidPartitions,
        TopicError::Config { .. } => ErrorCode::InvalidConfig,
        TopicError::State(_) => ErrorCode::KafkaStorageError,
        TopicError::Append(error) => append_code(error),
    };
    (code, error.to_string())
}

impl Api {
    /// `kafka.md` 3.6.
    pub(super) async fn create_topics(&self, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let mut times = HashMap::<Str, usize>::new();
        request.topics.iter().for_each(|topic| *times.entry(topic.name.clone()).or_default() += 1);
        let mut topics = Vec::with_capacity(times.len());
        let mut room = MAX_NEW_PARTITIONS;
        for wanted in request.topics {
            let name = wanted.name.clone();
            let outcome = match times.get_mut(&name) {
                Some(1) => self.create_one(wanted, request.validate_only, &mut room).await,
                // Said once for all that are meant.
                Some(count) if *count > 1 => {
                    *count = 0;
                    Err((ErrorCode::InvalidRequest, format!("topic {name} is in the request more than once")))
                }
                Some(_) | None => continue,
            };
            topics.push(match outcome {
                Ok(created) => created,
                Err((error_code, said)) => CreatableTopicResult {
                    name,
                    error_code,
                    error_message: message(said),
                    configs: None,
                    ..Default::default()
                },
            });
        }
        CreateTopicsResponse { topics, ..Default::default() }
    }

    /// `room` is how many more partitions may be made.
    async fn create_one(
        &self,
        wanted: CreatableTopic,
        validate_only: bool,
        room: &mut i32,
    ) -> Result<CreatableTopicResult, Failure> {
        let new = self.new_topic(&wanted)?;
        if new.partitions > *room {
            let message = format!("one request makes {MAX_NEW_PARTITIONS} partitions at most");
            return Err((ErrorCode::PolicyViolation, message));
        }
        *room -= new.partitions.max(0);
        let (partitions, config) = (new.partitions, new.config.clone());
        let made = self.blocking(move |broker| match validate_only {
            true => broker.check_new_topic(&new).map(|()| None),
            false => broker.create_topic(new).map(Some),
        });
        let topic = made.await?.map_err(|error| new_topic_failure(&error))?;
        let described = topic_config::describe(&config, &self.broker.broker_config());
        let shown = |described: Described| CreatableTopicConfigs {
            name: described.name.into(),
            value: Some(described.value.into()),
            read_only: false,
            config_source: described.source.code(),
            is_sensitive: false,
        };
        Ok(CreatableTopicResult {
            name: wanted.name,
            topic_id: topic.map_or(Uuid::ZERO, |topic| Uuid(topic.id.0)),
            num_partitions: partitions,
            replication_factor: 1,
            configs: Some(described.into_iter().map(shown).collect()),
            ..Default::default()
        })
    }

    /// What a topic asked for comes to; nothing is made yet.
    fn new_topic(&self, wanted: &CreatableTopic) -> Result<NewTopic, Failure> {
        let name = wanted.name.to_string();
        let partitions = match wanted.assignments.is_empty() {
            true => self.counted(wanted)?,
            false => self.assigned(wanted)?,
        };
        let pairs = wanted.configs.iter().map(|c| (c.name.to_string(), c.value.as_ref().map(ToString::to_string)));
        let refused = |error: ConfigError| new_topic_failure(&error.into());
        let config = topic_config::listed(pairs).map_err(refused)?;
        Ok(NewTopic { name, partitions, config })
    }

    fn counted(&self, wanted: &CreatableTopic) -> Result<i32, Failure> {
        let clamped = match self.options.clamp_replication {
            ClampReplication::None => false,
            ClampReplication::Events => wanted.name.starts_with(&*self.options.events_prefix),
            ClampReplication::All => true,
        };
        match wanted.replication_factor {
            -1 | 1 => {}
            2.. if clamped => {}
            factor => {
                let message = format!("replication factor {factor}: there is one broker, so it is 1");
                return Err((ErrorCode::InvalidReplicationFactor, message));
            }
        }
        Ok(if wanted.num_partitions == -1 { self.options.default_partitions } else { wanted.num_partitions })
    }

    /// Partitions by hand: 0 to n-1, all on this node.
    fn assigned(&self, wanted: &CreatableTopic) -> Result<i32, Failure> {
        if wanted.num_partitions != -1 || wanted.replication_factor != -1 {
            let message = "with replica assignments the counts must be -1".to_owned();
            return Err((ErrorCode::InvalidRequest, message));
        }
        let mut indexes: Vec<_> = wanted.assignments.iter().map(|a| a.partition_index).collect();
        indexes.sort_unstable();
        let dense = indexes.iter().zip(0..).all(|(index, n)| *index == n);
        let ours = wanted.assignments.iter().all(|a| a.broker_ids == [self.options.node_id]);
        if !dense || !ours {
            let node = self.options.node_id;
            let message = format!("replica assignments must name partitions 0, 1 and so on, each on node {node} alone");
            return Err((ErrorCode::InvalidReplicaAssignment, message));
        }
        Ok(i32::try_from(indexes.len()).unwrap_or(i32::MAX))
    }

    /// `kafka.md` 3.6: by name, or by id from version 6 on.
    pub(super) async fn delete_topics(&self, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
        let by_name =
            request.topic_names.into_iter().map(|name| DeleteTopicState { name: Some(name), topic_id: Uuid::ZERO });
        let mut responses = Vec::new();
        for wanted in by_name.chain(request.topics) {
            let DeleteTopicState { name, topic_id } = wanted;
            let deleted = match (&name, topic_id) {
                (Some(name), Uuid::ZERO) => {
                    let name = name.to_string();
                    self.blocking(move |broker| broker.delete_topic(&name)).await
                }
                (None, id) if id != Uuid::ZERO => {
                    self.blocking(move |broker| broker.delete_topic_by_id(TopicId(id.0))).await
                }
                _ => Err((ErrorCode::InvalidRequest, "a topic is named by name or by id".to_owned())),
            };
            responses.push(match deleted.and_then(|deleted| deleted.map_err(|error| topic_failure(&error))) {
                Ok(topic) => DeletableTopicResult {
                    name: Some(topic.name.clone().into()),
                    topic_id: Uuid(topic.id.0),
                    ..Default::default()
                },
                Err((error_code, said)) => {
                    DeletableTopicResult { name, topic_id, error_code, error_message: message(said) }
                }
            });
        }
        DeleteTopicsResponse { responses, ..Default::default() }
    }

    /// `kafka.md` 3.6: only growth; every topic asked for is in the answer.
    pub(super) async fn create_partitions(&self, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
        let mut results = Vec::with_capacity(request.topics.len());
        for wanted in request.topics {
            let name = wanted.name.clone();
            let outcome = self.grow(wanted, request.validate_only).await;
            let (error_code, error_message) = match outcome {
                Ok(()) => (ErrorCode::None, None),
                Err((code, said)) => (code, message(said)),
            };
            results.push(CreatePartitionsTopicResult { name, error_code, error_message });
        }
        CreatePartitionsResponse { results, ..Default::default() }
    }

    async fn grow(&self, wanted: CreatePartitionsTopic, validate_only: bool) -> Result<(), Failure> {
        let name = wanted.name.to_string();
        let unknown = || topic_failure(&TopicError::Unknown(name.clone()));
        let topic = self.broker.log().topic(&name).ok_or_else(unknown)?;
        let (old, count) = (topic.partitions.len(), wanted.count);
        let more = usize::try_from(count).unwrap_or(0).saturating_sub(old);
        if more == 0 || count > MAX_PARTITIONS {
            let error = TopicError::Partitions { topic: name, partitions: old, wanted: count };
            return Err(topic_failure(&error));
        }
        if let Some(assignments) = &wanted.assignments {
            let node = self.options.node_id;
            if assignments.len() != more || assignments.iter().any(|a| a.broker_ids != [node]) {
                let message = format!("{more} assignments are wanted, each on node {node} alone");
                return Err((ErrorCode::InvalidReplicaAssignment, message));
            }
        }
        if validate_only {
            return Ok(());
        }
        let grown = self.blocking(move |broker| broker.grow_partitions(&name, count)).await?;
        grown.map(drop).map_err(|error| topic_failure(&error))
    }

    /// `kafka.md` 3.6.
    pub(super) async fn delete_records(&self, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
        // -1 stands for the high watermark; nothing else below zero is an offset.
        let legal = |offset: i64| offset >= -1;
        let below: Vec<_> = request
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().filter(|p| legal(p.offset)).map(|p| (topic.name.to_string(), p)))
            .map(|(topic, p)| {
                let place = TopicPartition { topic, partition: p.partition_index };
                (place, Some(p.offset).filter(|offset| *offset >= 0))
            })
            .collect();
        let moved = self.blocking(move |broker| broker.delete_records(&below)).await;
        let mut moved = moved.unwrap_or_default().into_iter();
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|p| {
                let outcome = match legal(p.offset) {
                    false => Err(ErrorCode::OffsetOutOfRange),
                    true => match moved.next() {
                        Some(outcome) => outcome.map_err(|error| delete_records_code(&error)),
                        None => Err(ErrorCode::UnknownServerError),
                    },
                };
                DeleteRecordsPartitionResult {
                    partition_index: p.partition_index,
                    low_watermark: outcome.unwrap_or(-1),
                    error_code: outcome.err().unwrap_or_default(),
                }
            });
            DeleteRecordsTopicResult { partitions: partitions.collect(), name: topic.name }
        });
        DeleteRecordsResponse { topics: topics.collect(), ..Default::default() }
    }
}

fn delete_records_code(error: &DeleteRecordsError) -> ErrorCode {
    match error {
        DeleteRecordsError::Unknown(_) => ErrorCode::UnknownTopicOrPartition,
        DeleteRecordsError::Policy(_) => ErrorCode::PolicyViolation,
        DeleteRecordsError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        DeleteRecordsError::Append(error) => append_code(error),
    }
}
