//! OffsetCommit (8): a group says how far it has read.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Positions to keep.
    pub struct OffsetCommitRequest[2..=9, flexible 8] {
        group_id: Str,
        /// -1 for a commit from outside of the group.
        generation_id_or_member_epoch: i32 = -1,
        member_id: Str,
        group_instance_id: Option<Str> [7..],
        /// -1: as the broker is set.
        retention_time_ms: i64 [..=4] = -1,
        topics: Vec<OffsetCommitRequestTopic>,
    }

    /// Positions in one topic.
    pub struct OffsetCommitRequestTopic {
        name: Str,
        partitions: Vec<OffsetCommitRequestPartition>,
    }

    /// The position in one partition.
    pub struct OffsetCommitRequestPartition {
        partition_index: i32,
        committed_offset: i64,
        /// -1 for unknown.
        committed_leader_epoch: i32 [6..] = -1,
        committed_metadata: Option<Str>,
    }

    /// What was kept.
    pub struct OffsetCommitResponse[2..=9, flexible 8] {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetCommitResponseTopic>,
    }

    /// Outcome for one topic.
    pub struct OffsetCommitResponseTopic {
        name: Str,
        partitions: Vec<OffsetCommitResponsePartition>,
    }

    /// Outcome for one partition.
    pub struct OffsetCommitResponsePartition {
        partition_index: i32,
        error_code: ErrorCode,
    }
}
