//! ListPartitionReassignments (46): replicas on the move, of which one broker has none.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Partitions asked for.
    pub struct ListPartitionReassignmentsRequest[0..=0, flexible 0] {
        timeout_ms: i32 = 60000,
        topics: Option<Vec<ListPartitionReassignmentsTopics>>,
    }

    /// Partitions of one topic.
    pub struct ListPartitionReassignmentsTopics {
        name: Str,
        partition_indexes: Vec<i32>,
    }

    /// Those on the move.
    pub struct ListPartitionReassignmentsResponse[0..=0, flexible 0] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<Str>,
        topics: Vec<OngoingTopicReassignment>,
    }

    /// Those of one topic.
    pub struct OngoingTopicReassignment {
        name: Str,
        partitions: Vec<OngoingPartitionReassignment>,
    }

    /// One partition on the move.
    pub struct OngoingPartitionReassignment {
        partition_index: i32,
        replicas: Vec<i32>,
        adding_replicas: Vec<i32>,
        removing_replicas: Vec<i32>,
    }
}
