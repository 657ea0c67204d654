//! OffsetFetch (9): a group asks how far it has read.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Positions asked for: of one group, or of many from version 8 on.
    pub struct OffsetFetchRequest[1..=9, flexible 6] {
        group_id: Str [..=7],
        /// Null: all.
        topics: Option<Vec<OffsetFetchRequestTopic>> [..=7, null 2..] = Some(Vec::new()),
        groups: Vec<OffsetFetchRequestGroup> [8..],
        require_stable: bool [7..],
    }

    /// Partitions of one topic.
    pub struct OffsetFetchRequestTopic {
        name: Str,
        partition_indexes: Vec<i32>,
    }

    /// Partitions of one group.
    pub struct OffsetFetchRequestGroup {
        group_id: Str,
        member_id: Option<Str> [9..],
        /// -1 outside of the `consumer` protocol.
        member_epoch: i32 [9..] = -1,
        /// Null: all.
        topics: Option<Vec<OffsetFetchRequestTopic>> = Some(Vec::new()),
    }

    /// Positions kept: of one group, or of many from version 8 on.
    pub struct OffsetFetchResponse[1..=9, flexible 6] {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetFetchResponseTopic> [..=7],
        error_code: ErrorCode [2..=7],
        groups: Vec<OffsetFetchResponseGroup> [8..],
    }

    /// Positions in one topic.
    pub struct OffsetFetchResponseTopic {
        name: Str,
        partitions: Vec<OffsetFetchResponsePartition>,
    }

    /// The position in one partition.
    pub struct OffsetFetchResponsePartition {
        partition_index: i32,
        /// -1 for none.
        committed_offset: i64,
        /// -1 for unknown.
        committed_leader_epoch: i32 [5..] = -1,
        metadata: Option<Str>,
        error_code: ErrorCode,
    }

    /// Positions of one group.
    pub struct OffsetFetchResponseGroup {
        group_id: Str,
        topics: Vec<OffsetFetchResponseTopic>,
        error_code: ErrorCode,
    }
}
