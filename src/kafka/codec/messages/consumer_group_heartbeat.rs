//! ConsumerGroupHeartbeat (68): the one call of the `consumer` group protocol.

use crate::kafka::codec::{Str, Uuid, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// A member; what did not change since its last call is null or -1.
    pub struct ConsumerGroupHeartbeatRequest[0..=1, flexible 0] {
        group_id: Str,
        member_id: Str,
        /// 0 joins, -1 leaves, -2 leaves for a while as a static member.
        member_epoch: i32,
        instance_id: Option<Str>,
        rack_id: Option<Str>,
        /// -1: unchanged.
        rebalance_timeout_ms: i32 = -1,
        subscribed_topic_names: Option<Vec<Str>>,
        /// RE2.
        subscribed_topic_regex: Option<Str> [1..],
        server_assignor: Option<Str>,
        /// What the member owns.
        topic_partitions: Option<Vec<TopicPartitions>>,
    }

    /// Partitions of one topic.
    pub struct TopicPartitions {
        topic_id: Uuid,
        partitions: Vec<i32>,
    }

    /// Its epoch, and its assignment if that changed.
    pub struct ConsumerGroupHeartbeatResponse[0..=1, flexible 0] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<Str>,
        member_id: Option<Str>,
        member_epoch: i32,
        heartbeat_interval_ms: i32,
        /// Null: unchanged.
        assignment: Option<Assignment>,
    }

    /// Partitions assigned to a member.
    pub struct Assignment {
        topic_partitions: Vec<TopicPartitions>,
    }
}
