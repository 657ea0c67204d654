//! OffsetForLeaderEpoch (23): where an epoch ended.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Epochs to look up.
    pub struct OffsetForLeaderEpochRequest[2..=4, flexible 4] {
        /// -1 for a client.
        replica_id: i32 [3..] = -2,
        topics: Vec<OffsetForLeaderTopic>,
    }

    /// Epochs to look up in one topic.
    pub struct OffsetForLeaderTopic {
        topic: Str,
        partitions: Vec<OffsetForLeaderPartition>,
    }

    /// The epoch to look up in one partition.
    pub struct OffsetForLeaderPartition {
        partition: i32,
        /// -1: do not check.
        current_leader_epoch: i32 = -1,
        leader_epoch: i32,
    }

    /// Where they ended.
    pub struct OffsetForLeaderEpochResponse[2..=4, flexible 4] {
        throttle_time_ms: i32,
        topics: Vec<OffsetForLeaderTopicResult>,
    }

    /// Outcome for one topic.
    pub struct OffsetForLeaderTopicResult {
        topic: Str,
        partitions: Vec<EpochEndOffset>,
    }

    /// Outcome for one partition.
    pub struct EpochEndOffset {
        error_code: ErrorCode,
        partition: i32,
        leader_epoch: i32 = -1,
        end_offset: i64 = -1,
    }
}
