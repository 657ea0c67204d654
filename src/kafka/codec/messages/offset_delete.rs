//! OffsetDelete (47): committed offsets removed.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Offsets to remove.
    pub struct OffsetDeleteRequest[0..=0] {
        group_id: Str,
        topics: Vec<OffsetDeleteRequestTopic>,
    }

    /// Partitions of one topic.
    pub struct OffsetDeleteRequestTopic {
        name: Str,
        partitions: Vec<OffsetDeleteRequestPartition>,
    }

    /// One partition.
    pub struct OffsetDeleteRequestPartition {
        partition_index: i32,
    }

    /// What became of them.
    pub struct OffsetDeleteResponse[0..=0] {
        error_code: ErrorCode,
        throttle_time_ms: i32,
        topics: Vec<OffsetDeleteResponseTopic>,
    }

    /// Outcome for one topic.
    pub struct OffsetDeleteResponseTopic {
        name: Str,
        partitions: Vec<OffsetDeleteResponsePartition>,
    }

    /// Outcome for one partition.
    pub struct OffsetDeleteResponsePartition {
        partition_index: i32,
        error_code: ErrorCode,
    }
}
