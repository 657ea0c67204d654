//! DescribeTopicPartitions (75): partitions of topics, page by page.

use crate::kafka::codec::{Str, Uuid, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Topics, and where the last answer stopped.
    pub struct DescribeTopicPartitionsRequest[0..=0, flexible 0] {
        topics: Vec<TopicRequest>,
        /// Partitions in the answer at most.
        response_partition_limit: i32 = 2000,
        cursor: Option<Cursor>,
    }

    /// One topic.
    pub struct TopicRequest {
        name: Str,
    }

    /// Where an answer stopped.
    pub struct Cursor {
        topic_name: Str,
        /// First partition of the next answer.
        partition_index: i32,
    }

    /// Partitions, and where to go on.
    pub struct DescribeTopicPartitionsResponse[0..=0, flexible 0] {
        throttle_time_ms: i32,
        topics: Vec<DescribeTopicPartitionsResponseTopic>,
        next_cursor: Option<Cursor>,
    }

    /// One topic.
    pub struct DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode,
        name: Option<Str>,
        topic_id: Uuid,
        is_internal: bool,
        partitions: Vec<DescribeTopicPartitionsResponsePartition>,
        /// Bits; `i32::MIN` when not asked for.
        topic_authorized_operations: i32 = i32::MIN,
    }

    /// One partition.
    pub struct DescribeTopicPartitionsResponsePartition {
        error_code: ErrorCode,
        partition_index: i32,
        leader_id: i32,
        leader_epoch: i32 = -1,
        replica_nodes: Vec<i32>,
        isr_nodes: Vec<i32>,
        eligible_leader_replicas: Option<Vec<i32>>,
        last_known_elr: Option<Vec<i32>>,
        offline_replicas: Vec<i32>,
    }
}
