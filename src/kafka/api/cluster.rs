//! Metadata, DescribeCluster, DescribeTopicPartitions, FindCoordinator: one broker that leads everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use azulite_storage::topics::is_legal_name;

use super::{Api, keep_first, text};
use crate::broker::{NewTopic, Topic};
use crate::kafka::codec::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use crate::kafka::codec::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use crate::kafka::codec::messages::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::kafka::codec::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use crate::kafka::codec::{Str, Uuid};
use crate::kafka::error::ErrorCode;

/// Partitions in one answer of DescribeTopicPartitions at most, whatever the client says.
const MAX_PARTITION_PAGE: i32 = 2000;
/// Topics that one metadata request may make. The others are unknown, until it is sent again.
const MAX_NEW_TOPICS: usize = 1000;

impl Api {
    /// `kafka.md` 3.5.
    pub(super) async fn metadata(&self, request: MetadataRequest, version: i16) -> MetadataResponse {
        let may_create = version < 4 || request.allow_auto_topic_creation;
        let topics = match request.topics {
            None => self.all_topics(),
            Some(topics) if topics.is_empty() && version == 0 => self.all_topics(),
            Some(mut topics) => {
                keep_first(&mut topics, |topic| (topic.name.clone(), topic.topic_id));
                let mut answers = Vec::with_capacity(topics.len());
                let mut room = MAX_NEW_TOPICS;
                for topic in topics {
                    answers.push(self.one_topic(topic, may_create, &mut room).await);
                }
                answers
            }
        };
        let (host, port) = self.address();
        MetadataResponse {
            brokers: vec![MetadataResponseBroker { node_id: self.options.node_id, host, port, rack: None }],
            cluster_id: Some(text(&self.options.cluster_id)),
            controller_id: self.options.node_id,
            topics,
            ..Default::default()
        }
    }

    fn all_topics(&self) -> Vec<MetadataResponseTopic> {
        self.broker.log().topics().iter().map(|topic| self.described(topic)).collect()
    }

    /// `room` is how many more topics may be made.
    async fn one_topic(
        &self,
        wanted: MetadataRequestTopic,
        may_create: bool,
        room: &mut usize,
    ) -> MetadataResponseTopic {
        let failed = |error_code, name, topic_id| MetadataResponseTopic {
            error_code,
            name,
            topic_id,
            topic_authorized_operations: i32::MIN,
            ..Default::default()
        };
        // Java's admin client leaves the name empty, not null, where it asks by id.
        if wanted.topic_id != Uuid::ZERO {
            return match self.topic("", wanted.topic_id) {
                Some(topic) => self.described(&topic),
                None => failed(ErrorCode::UnknownTopicId, None, wanted.topic_id),
            };
        }
        let name = wanted.name.unwrap_or_default();
        if let Some(topic) = self.broker.log().topic(&name) {
            return self.described(&topic);
        }
        if !is_legal_name(&name) {
            return failed(ErrorCode::InvalidTopicException, Some(name), Uuid::ZERO);
        }
        if !may_create || !self.options.auto_create_topics || name.starts_with("__") || *room == 0 {
            return failed(ErrorCode::UnknownTopicOrPartition, Some(name), Uuid::ZERO);
        }
        *room -= 1;
        match self.make(&name).await {
            Ok(topic) => self.described(&topic),
            Err(error) => failed(error, Some(name), Uuid::ZERO),
        }
    }

    /// Makes a topic with the defaults; it is durable and usable afterwards.
    async fn make(&self, name: &str) -> Result<Arc<Topic>, ErrorCode> {
        let new =
            NewTopic { name: name.to_owned(), partitions: self.options.default_partitions, config: BTreeMap::new() };
        let broker = self.broker.clone();
        let making = tokio::task::spawn_blocking(move || broker.topic_or_create(&new.name.clone(), || new)).await;
        match making {
            Ok(Ok(topic)) => Ok(topic),
            Ok(Err(error)) => {
                if let Some(more) = self.complaints.due("metadata".to_owned()) {
                    tracing::warn!(topic = name, %error, more, "a topic asked for by a Kafka client was not made");
                }
                Err(ErrorCode::KafkaStorageError)
            }
            Err(_) => Err(ErrorCode::UnknownServerError),
        }
    }

    fn described(&self, topic: &Topic) -> MetadataResponseTopic {
        let node = self.options.node_id;
        let partition =
            |(partition_index, partition): (i32, &Arc<crate::broker::Partition>)| MetadataResponsePartition {
                error_code: ErrorCode::None,
                partition_index,
                leader_id: node,
                leader_epoch: partition.leader_epoch(),
                replica_nodes: vec![node],
                isr_nodes: vec![node],
                offline_replicas: Vec::new(),
            };
        MetadataResponseTopic {
            error_code: ErrorCode::None,
            name: Some(text(&topic.name)),
            topic_id: Uuid(topic.id.0),
            is_internal: topic.internal,
            partitions: (0..).zip(&topic.partitions).map(partition).collect(),
            topic_authorized_operations: i32::MIN,
        }
    }

    /// Host and port that clients are told.
    fn address(&self) -> (Str, i32) {
        (text(&self.options.advertised.0), self.options.advertised.1.into())
    }

    /// `kafka.md` 3.5.
    pub(super) fn describe_cluster(&self, request: &DescribeClusterRequest) -> DescribeClusterResponse {
        if request.endpoint_type != 1 {
            let (error_code, what) = match request.endpoint_type {
                2 => (ErrorCode::UnsupportedEndpointType, "this broker has no controller endpoint of its own"),
                _ => (ErrorCode::InvalidRequest, "endpoint type is 1 for brokers"),
            };
            return DescribeClusterResponse {
                error_code,
                error_message: Some(what.into()),
                endpoint_type: request.endpoint_type,
                ..Default::default()
            };
        }
        let (host, port) = self.address();
        let broker =
            DescribeClusterBroker { broker_id: self.options.node_id, host, port, rack: None, is_fenced: false };
        DescribeClusterResponse {
            cluster_id: text(&self.options.cluster_id),
            controller_id: self.options.node_id,
            brokers: vec![broker],
            ..Default::default()
        }
    }

    /// `kafka.md` 3.5: names sorted, pages bounded.
    pub(super) fn describe_topic_partitions(
        &self,
        request: DescribeTopicPartitionsRequest,
    ) -> DescribeTopicPartitionsResponse {
        let mut names: Vec<Str> = request.topics.into_iter().map(|topic| topic.name).collect();
        if names.is_empty() {
            names = self.broker.log().topics().iter().map(|topic| text(&topic.name)).collect();
        }
        names.sort_unstable();
        names.dedup();
        let (first, mut partition) = match &request.cursor {
            Some(cursor) => (cursor.topic_name.clone(), cursor.partition_index.max(0)),
            None => (Str::default(), 0),
        };
        let mut room = request.response_partition_limit.clamp(1, MAX_PARTITION_PAGE);
        let mut response = DescribeTopicPartitionsResponse::default();
        for name in names.into_iter().filter(|name| *name >= first) {
            let from = if name == first { partition } else { 0 };
            partition = 0;
            if room == 0 {
                response.next_cursor = Some(Cursor { topic_name: name, partition_index: 0 });
                break;
            }
            let (topic, more) = self.page(&name, from, room);
            room -= i32::try_from(topic.partitions.len()).unwrap_or(room);
            response.topics.push(topic);
            if let Some(next) = more {
                response.next_cursor = Some(Cursor { topic_name: name, partition_index: next });
                break;
            }
        }
        response
    }

    /// Partitions of one topic from `from` on, at most `room` of them, and where to go on.
    fn page(&self, name: &Str, from: i32, room: i32) -> (DescribeTopicPartitionsResponseTopic, Option<i32>) {
        let Some(topic) = self.broker.log().topic(name) else {
            let error_code = match is_legal_name(name) {
                true => ErrorCode::UnknownTopicOrPartition,
                false => ErrorCode::InvalidTopicException,
            };
            let name = Some(name.clone());
            return (DescribeTopicPartitionsResponseTopic { error_code, name, ..Default::default() }, None);
        };
        let whole = self.described(&topic);
        let (from, room) = (usize::try_from(from).unwrap_or(0), usize::try_from(room).unwrap_or(1));
        let partition = |p: MetadataResponsePartition| DescribeTopicPartitionsResponsePartition {
            error_code: p.error_code,
            partition_index: p.partition_index,
            leader_id: p.leader_id,
            leader_epoch: p.leader_epoch,
            replica_nodes: p.replica_nodes,
            isr_nodes: p.isr_nodes,
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            offline_replicas: Vec::new(),
        };
        let next = from.saturating_add(room);
        let more = (next < whole.partitions.len()).then(|| i32::try_from(next).unwrap_or(i32::MAX));
        let answer = DescribeTopicPartitionsResponseTopic {
            error_code: ErrorCode::None,
            name: whole.name,
            topic_id: whole.topic_id,
            is_internal: whole.is_internal,
            partitions: whole.partitions.into_iter().skip(from).take(room).map(partition).collect(),
            topic_authorized_operations: i32::MIN,
        };
        (answer, more)
    }

    /// `kafka.md` 3.5: always this node.
    pub(super) fn find_coordinator(&self, request: FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
        let (host, port) = self.address();
        let known = matches!(request.key_type, 0 | 1);
        let (error_code, message) = match known {
            true => (ErrorCode::None, None),
            false => (ErrorCode::InvalidRequest, Some(Str::from("key type is 0 for a group, 1 for a transaction"))),
        };
        let (node_id, host, port) = if known { (self.options.node_id, host, port) } else { (-1, Str::default(), -1) };
        if version < 4 {
            return FindCoordinatorResponse {
                error_code,
                error_message: message,
                node_id,
                host,
                port,
                ..Default::default()
            };
        }
        let coordinator =
            |key| Coordinator { key, node_id, host: host.clone(), port, error_code, error_message: message.clone() };
        let coordinators = request.coordinator_keys.into_iter().map(coordinator).collect();
        FindCoordinatorResponse { coordinators, ..Default::default() }
    }
}
