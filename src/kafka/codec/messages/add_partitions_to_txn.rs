//! AddPartitionsToTxn (24): partitions join a transaction. Versions 4 and 5 are between brokers and not declared.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Partitions that the transaction will write to.
    pub struct AddPartitionsToTxnRequest[0..=3, flexible 3] {
        transactional_id: Str,
        producer_id: i64,
        producer_epoch: i16,
        topics: Vec<AddPartitionsToTxnTopic>,
    }

    /// Partitions of one topic.
    pub struct AddPartitionsToTxnTopic {
        name: Str,
        partitions: Vec<i32>,
    }

    /// What became of them.
    pub struct AddPartitionsToTxnResponse[0..=3, flexible 3] {
        throttle_time_ms: i32,
        results_by_topic: Vec<AddPartitionsToTxnTopicResult>,
    }

    /// Outcome for one topic.
    pub struct AddPartitionsToTxnTopicResult {
        name: Str,
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult>,
    }

    /// Outcome for one partition.
    pub struct AddPartitionsToTxnPartitionResult {
        partition_index: i32,
        partition_error_code: ErrorCode,
    }
}
