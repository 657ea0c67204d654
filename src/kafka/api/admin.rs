//! What tools of a cluster ask, answered for one broker: leader epochs, log directories, producers, and what there is
//! none of.

use std::collections::HashSet;

use azulite_storage::fs::Fs as _;
use azulite_storage::producers::ProducerState;

use super::fetch::check_epoch;
use super::{Api, keep_first};
use crate::broker::{Partition, Topic};
use crate::kafka::codec::Str;
use crate::kafka::codec::messages::create_acls::{AclCreationResult, CreateAclsRequest, CreateAclsResponse};
use crate::kafka::codec::messages::delete_acls::{DeleteAclsFilterResult, DeleteAclsRequest, DeleteAclsResponse};
use crate::kafka::codec::messages::describe_acls::DescribeAclsResponse;
use crate::kafka::codec::messages::describe_client_quotas::DescribeClientQuotasResponse;
use crate::kafka::codec::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};
use crate::kafka::codec::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState as DescribedProducer,
    TopicResponse,
};
use crate::kafka::codec::messages::describe_transactions::{
    self, DescribeTransactionsRequest, DescribeTransactionsResponse,
};
use crate::kafka::codec::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use crate::kafka::codec::messages::list_partition_reassignments::ListPartitionReassignmentsResponse;
use crate::kafka::codec::messages::list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
use crate::kafka::codec::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use crate::kafka::error::ErrorCode;

/// What is said of access control.
const NO_ACLS: &str = "no authorizer is configured on the broker";

impl Api {
    /// `kafka.md` 3.8.
    pub(super) fn offset_for_leader_epoch(&self, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
        let topics = request.topics.into_iter().map(|asked| {
            let topic = self.broker.log().topic(&asked.topic);
            let partitions = asked.partitions.into_iter().map(|p| {
                let partition = topic.as_ref().and_then(|topic| topic.partition(p.partition));
                let looked = partition.ok_or(ErrorCode::UnknownTopicOrPartition);
                let looked = looked.and_then(|partition| {
                    check_epoch(p.current_leader_epoch, partition).map(|()| partition.end_of_epoch(p.leader_epoch))
                });
                let (error_code, (leader_epoch, end_offset)) = match looked {
                    Ok(end) => (ErrorCode::None, end.unwrap_or((-1, -1))),
                    Err(error) => (error, (-1, -1)),
                };
                EpochEndOffset { error_code, partition: p.partition, leader_epoch, end_offset }
            });
            OffsetForLeaderTopicResult { partitions: partitions.collect(), topic: asked.topic }
        });
        OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
    }

    /// `kafka.md` 3.9: one directory that holds everything.
    pub(super) async fn describe_log_dirs(&self, mut request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
        if let Some(topics) = &mut request.topics {
            keep_first(topics, |topic| topic.topic.clone());
        }
        let path = self.options.data_dir.clone();
        let room = tokio::task::spawn_blocking(move || azulite_storage::fs::RealFs.room(&path)).await;
        let room = room.ok().and_then(Result::ok);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let size = |index: i32, partition: &Partition| DescribeLogDirsPartition {
            partition_index: index,
            partition_size: bytes(partition.size_bytes()),
            offset_lag: 0,
            is_future_key: false,
        };
        let whole = |topic: &Topic, wanted: Option<&[i32]>| {
            let wanted = wanted.map(|wanted| wanted.iter().copied().collect::<HashSet<_>>());
            let all =
                (0..).zip(&topic.partitions).filter(|(index, _)| wanted.as_ref().is_none_or(|w| w.contains(index)));
            DescribeLogDirsTopic {
                name: topic.name.clone().into(),
                partitions: all.map(|(index, partition)| size(index, partition)).collect(),
            }
        };
        let topics = match &request.topics {
            None => self.broker.log().topics().iter().map(|topic| whole(topic, None)).collect(),
            Some(asked) => {
                let found = asked.iter().filter_map(|a| Some((self.broker.log().topic(&a.topic)?, &a.partitions)));
                found.map(|(topic, partitions)| whole(&topic, Some(partitions.as_slice()))).collect()
            }
        };
        let result = DescribeLogDirsResult {
            error_code: ErrorCode::None,
            log_dir: self.options.data_dir.display().to_string().into(),
            topics,
            total_bytes: room.map_or(-1, |room| bytes(room.total)),
            usable_bytes: room.map_or(-1, |room| bytes(room.free)),
        };
        DescribeLogDirsResponse { results: vec![result], ..Default::default() }
    }

    /// Every partition has its leader.
    pub(super) fn elect_leaders(&self, request: &ElectLeadersRequest) -> ElectLeadersResponse {
        let answer = |index: i32, known: bool| PartitionResult {
            partition_id: index,
            error_code: if known { ErrorCode::ElectionNotNeeded } else { ErrorCode::UnknownTopicOrPartition },
            error_message: None,
        };
        let asked = request.topic_partitions.iter().flatten().map(|asked| {
            let topic = self.broker.log().topic(&asked.topic);
            let known = |index: i32| topic.as_ref().is_some_and(|topic| topic.partition(index).is_some());
            let results = asked.partitions.iter().map(|index| answer(*index, known(*index)));
            ReplicaElectionResult { topic: asked.topic.clone(), partition_result: results.collect() }
        });
        // With no list all partitions are meant, and none of them needs anything.
        ElectLeadersResponse { replica_election_results: asked.collect(), ..Default::default() }
    }

    /// `kafka.md` 5.1: who writes a partition.
    pub(super) async fn describe_producers(&self, mut request: DescribeProducersRequest) -> DescribeProducersResponse {
        keep_first(&mut request.topics, |topic| topic.name.clone());
        let mut topics = Vec::with_capacity(request.topics.len());
        for mut asked in request.topics {
            keep_first(&mut asked.partition_indexes, |index| *index);
            let topic = self.broker.log().topic(&asked.name);
            let mut partitions = Vec::with_capacity(asked.partition_indexes.len());
            for partition_index in asked.partition_indexes {
                let partition = topic.as_ref().and_then(|topic| topic.partition(partition_index)).cloned();
                let Some(partition) = partition else {
                    let error_code = ErrorCode::UnknownTopicOrPartition;
                    partitions.push(PartitionResponse { partition_index, error_code, ..Default::default() });
                    continue;
                };
                let now_ms = azulite_storage::clock::now_ms();
                let producers = self.blocking(move |broker| broker.log().producers(&partition, now_ms)).await;
                let producers = producers.and_then(|p| p.map_err(|e| (ErrorCode::KafkaStorageError, e.to_string())));
                partitions.push(match producers {
                    Ok(producers) => PartitionResponse {
                        partition_index,
                        active_producers: producers.iter().map(described_producer).collect(),
                        ..Default::default()
                    },
                    Err((error_code, message)) => PartitionResponse {
                        partition_index,
                        error_code,
                        error_message: Some(message.into()),
                        ..Default::default()
                    },
                });
            }
            topics.push(TopicResponse { name: asked.name, partitions });
        }
        DescribeProducersResponse { topics, ..Default::default() }
    }

    /// Nothing ever moves.
    pub(super) fn list_partition_reassignments() -> ListPartitionReassignmentsResponse {
        ListPartitionReassignmentsResponse::default()
    }

    /// None are kept.
    pub(super) fn describe_client_quotas() -> DescribeClientQuotasResponse {
        DescribeClientQuotasResponse { entries: Some(Vec::new()), ..Default::default() }
    }

    /// There are none yet.
    pub(super) fn list_transactions(request: &ListTransactionsRequest) -> ListTransactionsResponse {
        let known = |state: &Str| {
            ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead"]
                .contains(&state.as_str())
        };
        let unknown_state_filters = request.state_filters.iter().filter(|state| !known(state)).cloned().collect();
        ListTransactionsResponse { unknown_state_filters, ..Default::default() }
    }

    /// There are none yet.
    pub(super) fn describe_transactions(request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
        let none = |transactional_id| describe_transactions::TransactionState {
            error_code: ErrorCode::TransactionalIdNotFound,
            transactional_id,
            producer_id: -1,
            producer_epoch: -1,
            transaction_start_time_ms: -1,
            ..Default::default()
        };
        let transaction_states = request.transactional_ids.into_iter().map(none).collect();
        DescribeTransactionsResponse { transaction_states, ..Default::default() }
    }

    /// There are no access control lists.
    pub(super) fn describe_acls() -> DescribeAclsResponse {
        DescribeAclsResponse {
            error_code: ErrorCode::SecurityDisabled,
            error_message: Some(NO_ACLS.into()),
            ..Default::default()
        }
    }

    /// There are no access control lists.
    pub(super) fn create_acls(request: &CreateAclsRequest) -> CreateAclsResponse {
        let refused =
            AclCreationResult { error_code: ErrorCode::SecurityDisabled, error_message: Some(Str::from(NO_ACLS)) };
        CreateAclsResponse { results: vec![refused; request.creations.len()], ..Default::default() }
    }

    /// There are no access control lists.
    pub(super) fn delete_acls(request: &DeleteAclsRequest) -> DeleteAclsResponse {
        let refused = DeleteAclsFilterResult {
            error_code: ErrorCode::SecurityDisabled,
            error_message: Some(Str::from(NO_ACLS)),
            ..Default::default()
        };
        DeleteAclsResponse { filter_results: vec![refused; request.filters.len()], ..Default::default() }
    }
}

fn described_producer(producer: &ProducerState) -> DescribedProducer {
    DescribedProducer {
        producer_id: producer.producer_id,
        producer_epoch: producer.epoch.into(),
        last_sequence: producer.batches.last().map_or(-1, |batch| batch.last_sequence),
        last_timestamp: producer.last_write_ms,
        coordinator_epoch: -1,
        current_txn_start_offset: -1,
    }
}
