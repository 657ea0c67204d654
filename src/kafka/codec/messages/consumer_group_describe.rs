//! ConsumerGroupDescribe (69): groups of the `consumer` protocol with their members.

use crate::kafka::codec::{Str, Uuid, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Groups asked for.
    pub struct ConsumerGroupDescribeRequest[0..=1, flexible 0] {
        group_ids: Vec<Str>,
        include_authorized_operations: bool,
    }

    /// What is known of them.
    pub struct ConsumerGroupDescribeResponse[0..=1, flexible 0] {
        throttle_time_ms: i32,
        groups: Vec<DescribedGroup>,
    }

    /// One group.
    pub struct DescribedGroup {
        error_code: ErrorCode,
        error_message: Option<Str>,
        group_id: Str,
        /// `Empty`, `Assigning`, `Reconciling`, `Stable` or `Dead`.
        group_state: Str,
        group_epoch: i32,
        assignment_epoch: i32,
        assignor_name: Str,
        members: Vec<Member>,
        /// Bits; `i32::MIN` when not asked for.
        authorized_operations: i32 = i32::MIN,
    }

    /// One member.
    pub struct Member {
        member_id: Str,
        instance_id: Option<Str>,
        rack_id: Option<Str>,
        member_epoch: i32,
        client_id: Str,
        client_host: Str,
        subscribed_topic_names: Vec<Str>,
        subscribed_topic_regex: Option<Str>,
        assignment: Assignment,
        target_assignment: Assignment,
        /// 0 classic, 1 consumer, -1 unknown.
        member_type: i8 [1..] = -1,
    }

    /// Partitions assigned to a member.
    pub struct Assignment {
        topic_partitions: Vec<TopicPartitions>,
    }

    /// Partitions of one topic.
    pub struct TopicPartitions {
        topic_id: Uuid,
        topic_name: Str,
        partitions: Vec<i32>,
    }
}
