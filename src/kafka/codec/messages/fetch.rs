//! Fetch (1): record batches for a client.

use crate::kafka::codec::{Records, Str, Uuid, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// From where to read, and how much to wait for.
    pub struct FetchRequest[4..=18, flexible 12] {
        cluster_id: Option<Str> [12.., tag 0],
        /// -1 for a client.
        replica_id: i32 [..=14] = -1,
        replica_state: ReplicaState [15.., tag 1],
        max_wait_ms: i32,
        min_bytes: i32,
        max_bytes: i32 = i32::MAX,
        /// 0: all records; 1: committed ones only.
        isolation_level: i8,
        /// 0 for none.
        session_id: i32 [7..],
        /// -1 for no session, 0 to open one.
        session_epoch: i32 [7..] = -1,
        topics: Vec<FetchTopic>,
        /// Leave the session.
        forgotten_topics_data: Vec<ForgottenTopic> [7..],
        rack_id: Str [11..],
    }

    /// Who asks, if it is a broker.
    pub struct ReplicaState {
        /// -1 for a client.
        replica_id: i32 = -1,
        replica_epoch: i64 = -1,
    }

    /// Partitions of one topic to read.
    pub struct FetchTopic {
        topic: Str [..=12],
        topic_id: Uuid [13..],
        partitions: Vec<FetchPartition>,
    }

    /// From where to read one partition.
    pub struct FetchPartition {
        partition: i32,
        /// -1: do not check.
        current_leader_epoch: i32 [9..] = -1,
        fetch_offset: i64,
        /// -1 for unknown.
        last_fetched_epoch: i32 [12..] = -1,
        /// Of a follower; -1 for a client.
        log_start_offset: i64 [5..] = -1,
        partition_max_bytes: i32,
        replica_directory_id: Uuid [17.., tag 0],
        /// What a follower knows.
        high_watermark: i64 [18.., tag 1] = i64::MAX,
    }

    /// Partitions to drop from the session.
    pub struct ForgottenTopic {
        topic: Str [..=12],
        topic_id: Uuid [13..],
        partitions: Vec<i32>,
    }

    /// Whole batches, by topic and partition.
    pub struct FetchResponse[4..=18, flexible 12] {
        throttle_time_ms: i32,
        error_code: ErrorCode [7..],
        /// 0 for none.
        session_id: i32 [7..],
        responses: Vec<FetchableTopicResponse>,
        node_endpoints: Vec<NodeEndpoint> [16.., tag 0],
    }

    /// Batches of one topic.
    pub struct FetchableTopicResponse {
        topic: Str [..=12],
        topic_id: Uuid [13..],
        partitions: Vec<PartitionData>,
    }

    /// Batches of one partition, and its offsets.
    pub struct PartitionData {
        partition_index: i32,
        error_code: ErrorCode,
        high_watermark: i64,
        last_stable_offset: i64 = -1,
        log_start_offset: i64 [5..] = -1,
        diverging_epoch: EpochEndOffset [12.., tag 0],
        current_leader: LeaderIdAndEpoch [12.., tag 1],
        snapshot_id: SnapshotId [12.., tag 2],
        /// Null unless committed records only were asked for.
        aborted_transactions: Option<Vec<AbortedTransaction>>,
        /// -1: this one.
        preferred_read_replica: i32 [11..] = -1,
        /// Runs of whole batches.
        records: Option<Records> = Some(Records::default()),
    }

    /// Where an epoch ended, -1 for unknown.
    pub struct EpochEndOffset {
        epoch: i32 = -1,
        end_offset: i64 = -1,
    }

    /// The leader a client should ask instead, -1 for unknown.
    pub struct LeaderIdAndEpoch {
        leader_id: i32 = -1,
        leader_epoch: i32 = -1,
    }

    /// A snapshot of the metadata log; unused between clients and brokers.
    pub struct SnapshotId {
        end_offset: i64 = -1,
        epoch: i32 = -1,
    }

    /// An aborted transaction that overlaps the range returned.
    pub struct AbortedTransaction {
        producer_id: i64,
        first_offset: i64,
    }

    /// Address of a leader named above.
    pub struct NodeEndpoint {
        node_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str>,
    }
}
