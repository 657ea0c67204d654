//! CreateTopics (19): new topics.

use crate::kafka::codec::{Str, Uuid, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Topics to make.
    pub struct CreateTopicsRequest[2..=7, flexible 5] {
        topics: Vec<CreatableTopic>,
        timeout_ms: i32 = 60000,
        /// Check and change nothing.
        validate_only: bool,
    }

    /// One topic to make.
    pub struct CreatableTopic {
        name: Str,
        /// -1: as the broker is set.
        num_partitions: i32,
        /// -1: as the broker is set.
        replication_factor: i16,
        /// If given, counts are -1.
        assignments: Vec<CreatableReplicaAssignment>,
        configs: Vec<CreatableTopicConfig>,
    }

    /// Brokers for one partition.
    pub struct CreatableReplicaAssignment {
        partition_index: i32,
        broker_ids: Vec<i32>,
    }

    /// One setting.
    pub struct CreatableTopicConfig {
        name: Str,
        value: Option<Str>,
    }

    /// What became of them.
    pub struct CreateTopicsResponse[2..=7, flexible 5] {
        throttle_time_ms: i32,
        topics: Vec<CreatableTopicResult>,
    }

    /// Outcome for one topic.
    pub struct CreatableTopicResult {
        name: Str,
        topic_id: Uuid [7..],
        error_code: ErrorCode,
        error_message: Option<Str>,
        topic_config_error_code: ErrorCode [5.., tag 0],
        /// -1: as the broker is set.
        num_partitions: i32 [5..] = -1,
        /// -1: as the broker is set.
        replication_factor: i16 [5..] = -1,
        configs: Option<Vec<CreatableTopicConfigs>> [5..] = Some(Vec::new()),
    }

    /// One setting of a topic made.
    pub struct CreatableTopicConfigs {
        name: Str,
        value: Option<Str>,
        read_only: bool,
        /// 1 topic, 2 broker, 3 all brokers, 4 file, 5 default.
        config_source: i8 = -1,
        is_sensitive: bool,
    }
}
