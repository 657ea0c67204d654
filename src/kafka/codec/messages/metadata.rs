//! Metadata (3): brokers, topics and partitions.

use crate::kafka::codec::{Str, Uuid, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Topics asked for.
    pub struct MetadataRequest[0..=13, flexible 9] {
        /// Null (empty at version 0): all.
        topics: Option<Vec<MetadataRequestTopic>> [.., null 1..] = Some(Vec::new()),
        /// Versions before 4 always allow it.
        allow_auto_topic_creation: bool [4..] = true,
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }

    /// One topic, by name or by id.
    pub struct MetadataRequestTopic {
        topic_id: Uuid [10..],
        name: Option<Str> [.., null 10..],
    }

    /// The cluster as this broker sees it.
    pub struct MetadataResponse[0..=13, flexible 9] {
        throttle_time_ms: i32 [3..],
        brokers: Vec<MetadataResponseBroker>,
        cluster_id: Option<Str> [2..],
        controller_id: i32 [1..] = -1,
        topics: Vec<MetadataResponseTopic>,
        /// Bits; `i32::MIN` when not asked for.
        cluster_authorized_operations: i32 [8..=10] = i32::MIN,
        error_code: ErrorCode [13..],
    }

    /// One broker with its address.
    pub struct MetadataResponseBroker {
        node_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str> [1..],
    }

    /// One topic.
    pub struct MetadataResponseTopic {
        error_code: ErrorCode,
        name: Option<Str> [.., null 12..],
        topic_id: Uuid [10..],
        is_internal: bool [1..],
        partitions: Vec<MetadataResponsePartition>,
        /// Bits; `i32::MIN` when not asked for.
        topic_authorized_operations: i32 [8..] = i32::MIN,
    }

    /// One partition.
    pub struct MetadataResponsePartition {
        error_code: ErrorCode,
        partition_index: i32,
        leader_id: i32,
        leader_epoch: i32 [7..] = -1,
        replica_nodes: Vec<i32>,
        isr_nodes: Vec<i32>,
        offline_replicas: Vec<i32> [5..],
    }
}
