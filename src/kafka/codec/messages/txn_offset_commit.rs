//! TxnOffsetCommit (28): offsets of a group, as part of a transaction.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Positions to keep if the transaction commits.
    pub struct TxnOffsetCommitRequest[0..=5, flexible 3] {
        transactional_id: Str,
        group_id: Str,
        producer_id: i64,
        producer_epoch: i16,
        generation_id: i32 [3..] = -1,
        member_id: Str [3..],
        group_instance_id: Option<Str> [3..],
        topics: Vec<TxnOffsetCommitRequestTopic>,
    }

    /// Positions in one topic.
    pub struct TxnOffsetCommitRequestTopic {
        name: Str,
        partitions: Vec<TxnOffsetCommitRequestPartition>,
    }

    /// The position in one partition.
    pub struct TxnOffsetCommitRequestPartition {
        partition_index: i32,
        committed_offset: i64,
        /// -1 for unknown.
        committed_leader_epoch: i32 [2..] = -1,
        committed_metadata: Option<Str>,
    }

    /// What was taken.
    pub struct TxnOffsetCommitResponse[0..=5, flexible 3] {
        throttle_time_ms: i32,
        topics: Vec<TxnOffsetCommitResponseTopic>,
    }

    /// Outcome for one topic.
    pub struct TxnOffsetCommitResponseTopic {
        name: Str,
        partitions: Vec<TxnOffsetCommitResponsePartition>,
    }

    /// Outcome for one partition.
    pub struct TxnOffsetCommitResponsePartition {
        partition_index: i32,
        error_code: ErrorCode,
    }
}
