//! ListOffsets (2): offsets by time.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Times to look up, by topic and partition.
    pub struct ListOffsetsRequest[1..=10, flexible 6] {
        /// -1 for a client.
        replica_id: i32,
        /// 0: all records; 1: committed ones only.
        isolation_level: i8 [2..],
        topics: Vec<ListOffsetsTopic>,
        timeout_ms: i32 [10..],
    }

    /// Times to look up in one topic.
    pub struct ListOffsetsTopic {
        name: Str,
        partitions: Vec<ListOffsetsPartition>,
    }

    /// The time to look up in one partition.
    pub struct ListOffsetsPartition {
        partition_index: i32,
        /// -1: do not check.
        current_leader_epoch: i32 [4..] = -1,
        /// Milliseconds since 1970, or -1 to -5 for a place.
        timestamp: i64,
    }

    /// Offsets found.
    pub struct ListOffsetsResponse[1..=10, flexible 6] {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListOffsetsTopicResponse>,
    }

    /// Offsets found in one topic.
    pub struct ListOffsetsTopicResponse {
        name: Str,
        partitions: Vec<ListOffsetsPartitionResponse>,
    }

    /// The offset found in one partition.
    pub struct ListOffsetsPartitionResponse {
        partition_index: i32,
        error_code: ErrorCode,
        /// -1 for none.
        timestamp: i64 = -1,
        /// -1 for none.
        offset: i64 = -1,
        leader_epoch: i32 [4..] = -1,
    }
}
