//! DeleteRecords (21): the log start moves forward.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// New log starts.
    pub struct DeleteRecordsRequest[0..=2, flexible 2] {
        topics: Vec<DeleteRecordsTopic>,
        timeout_ms: i32,
    }

    /// New log starts in one topic.
    pub struct DeleteRecordsTopic {
        name: Str,
        partitions: Vec<DeleteRecordsPartition>,
    }

    /// The new log start of one partition.
    pub struct DeleteRecordsPartition {
        partition_index: i32,
        /// First offset to keep; -1: the high watermark.
        offset: i64,
    }

    /// Log starts as they are now.
    pub struct DeleteRecordsResponse[0..=2, flexible 2] {
        throttle_time_ms: i32,
        topics: Vec<DeleteRecordsTopicResult>,
    }

    /// Outcome for one topic.
    pub struct DeleteRecordsTopicResult {
        name: Str,
        partitions: Vec<DeleteRecordsPartitionResult>,
    }

    /// Outcome for one partition.
    pub struct DeleteRecordsPartitionResult {
        partition_index: i32,
        /// The log start; -1 on an error.
        low_watermark: i64,
        error_code: ErrorCode,
    }
}
