//! CreatePartitions (37): more partitions for topics.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Topics to grow.
    pub struct CreatePartitionsRequest[0..=3, flexible 2] {
        topics: Vec<CreatePartitionsTopic>,
        timeout_ms: i32,
        /// Check and change nothing.
        validate_only: bool,
    }

    /// One topic to grow.
    pub struct CreatePartitionsTopic {
        name: Str,
        /// Partitions there should be afterwards.
        count: i32,
        assignments: Option<Vec<CreatePartitionsAssignment>>,
    }

    /// Brokers for one new partition.
    pub struct CreatePartitionsAssignment {
        broker_ids: Vec<i32>,
    }

    /// What became of them; lists every topic asked for.
    pub struct CreatePartitionsResponse[0..=3, flexible 2] {
        throttle_time_ms: i32,
        results: Vec<CreatePartitionsTopicResult>,
    }

    /// Outcome for one topic.
    pub struct CreatePartitionsTopicResult {
        name: Str,
        error_code: ErrorCode,
        error_message: Option<Str>,
    }
}
