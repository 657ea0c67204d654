//! DescribeProducers (61): producers that write to partitions.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Partitions asked for.
    pub struct DescribeProducersRequest[0..=0, flexible 0] {
        topics: Vec<TopicRequest>,
    }

    /// Partitions of one topic.
    pub struct TopicRequest {
        name: Str,
        partition_indexes: Vec<i32>,
    }

    /// Who writes to them.
    pub struct DescribeProducersResponse[0..=0, flexible 0] {
        throttle_time_ms: i32,
        topics: Vec<TopicResponse>,
    }

    /// Producers of one topic.
    pub struct TopicResponse {
        name: Str,
        partitions: Vec<PartitionResponse>,
    }

    /// Producers of one partition.
    pub struct PartitionResponse {
        partition_index: i32,
        error_code: ErrorCode,
        error_message: Option<Str>,
        active_producers: Vec<ProducerState>,
    }

    /// One producer.
    pub struct ProducerState {
        producer_id: i64,
        producer_epoch: i32,
        last_sequence: i32 = -1,
        last_timestamp: i64 = -1,
        /// -1 for none.
        coordinator_epoch: i32,
        /// -1 for none.
        current_txn_start_offset: i64 = -1,
    }
}
