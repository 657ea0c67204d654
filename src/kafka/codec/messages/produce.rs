//! Produce (0): record batches from a client.

use crate::kafka::codec::{Records, Str, Uuid, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Batches to append, by topic and partition.
    pub struct ProduceRequest[3..=13, flexible 9] {
        transactional_id: Option<Str>,
        /// -1, 0 or 1.
        acks: i16,
        timeout_ms: i32,
        topic_data: Vec<TopicProduceData>,
    }

    /// Batches for one topic.
    pub struct TopicProduceData {
        name: Str [..=12],
        topic_id: Uuid [13..],
        partition_data: Vec<PartitionProduceData>,
    }

    /// The batch for one partition.
    pub struct PartitionProduceData {
        index: i32,
        records: Option<Records> = Some(Records::default()),
    }

    /// Where the batches went.
    pub struct ProduceResponse[3..=13, flexible 9] {
        responses: Vec<TopicProduceResponse>,
        throttle_time_ms: i32,
        node_endpoints: Vec<NodeEndpoint> [10.., tag 0],
    }

    /// Outcome for one topic.
    pub struct TopicProduceResponse {
        name: Str [..=12],
        topic_id: Uuid [13..],
        partition_responses: Vec<PartitionProduceResponse>,
    }

    /// Outcome for one partition.
    pub struct PartitionProduceResponse {
        index: i32,
        error_code: ErrorCode,
        base_offset: i64,
        /// -1 if the producer's times were kept.
        log_append_time_ms: i64 = -1,
        log_start_offset: i64 [5..] = -1,
        record_errors: Vec<BatchIndexAndErrorMessage> [8..],
        error_message: Option<Str> [8..],
        current_leader: LeaderIdAndEpoch [10.., tag 0],
    }

    /// A record that made the broker refuse its batch.
    pub struct BatchIndexAndErrorMessage {
        batch_index: i32,
        batch_index_error_message: Option<Str>,
    }

    /// The leader a client should ask instead, -1 for unknown.
    pub struct LeaderIdAndEpoch {
        leader_id: i32 = -1,
        leader_epoch: i32 = -1,
    }

    /// Address of a leader named above.
    pub struct NodeEndpoint {
        node_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str>,
    }
}
