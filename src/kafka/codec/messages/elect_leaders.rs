//! ElectLeaders (43): leader elections, of which one broker needs none.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Partitions that want a leader.
    pub struct ElectLeadersRequest[0..=2, flexible 2] {
        /// 0 preferred, 1 unclean.
        election_type: i8 [1..],
        /// Null: all.
        topic_partitions: Option<Vec<TopicPartitions>> = Some(Vec::new()),
        timeout_ms: i32 = 60000,
    }

    /// Partitions of one topic.
    pub struct TopicPartitions {
        topic: Str,
        partitions: Vec<i32>,
    }

    /// What became of them.
    pub struct ElectLeadersResponse[0..=2, flexible 2] {
        throttle_time_ms: i32,
        error_code: ErrorCode [1..],
        replica_election_results: Vec<ReplicaElectionResult>,
    }

    /// Outcome for one topic.
    pub struct ReplicaElectionResult {
        topic: Str,
        partition_result: Vec<PartitionResult>,
    }

    /// Outcome for one partition.
    pub struct PartitionResult {
        partition_id: i32,
        error_code: ErrorCode,
        error_message: Option<Str>,
    }
}
