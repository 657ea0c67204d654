//! DescribeLogDirs (35): disk use of partitions.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Partitions asked for.
    pub struct DescribeLogDirsRequest[1..=4, flexible 2] {
        /// Null: all.
        topics: Option<Vec<DescribableLogDirTopic>> = Some(Vec::new()),
    }

    /// Partitions of one topic.
    pub struct DescribableLogDirTopic {
        topic: Str,
        partitions: Vec<i32>,
    }

    /// Folders with what lies in them.
    pub struct DescribeLogDirsResponse[1..=4, flexible 2] {
        throttle_time_ms: i32,
        error_code: ErrorCode [3..],
        results: Vec<DescribeLogDirsResult>,
    }

    /// One folder.
    pub struct DescribeLogDirsResult {
        error_code: ErrorCode,
        log_dir: Str,
        topics: Vec<DescribeLogDirsTopic>,
        /// Of the disk, -1 for unknown.
        total_bytes: i64 [4..] = -1,
        /// Of the disk, -1 for unknown.
        usable_bytes: i64 [4..] = -1,
    }

    /// One topic in it.
    pub struct DescribeLogDirsTopic {
        name: Str,
        partitions: Vec<DescribeLogDirsPartition>,
    }

    /// One partition in it.
    pub struct DescribeLogDirsPartition {
        partition_index: i32,
        /// Bytes.
        partition_size: i64,
        /// What a future replica lacks.
        offset_lag: i64,
        is_future_key: bool,
    }
}
