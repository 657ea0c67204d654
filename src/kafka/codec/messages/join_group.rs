//! JoinGroup (11): a member enters a group of the classic protocol.

use bytes::Bytes;

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// A member with all the assignment protocols it can follow.
    pub struct JoinGroupRequest[0..=9, flexible 6] {
        group_id: Str,
        session_timeout_ms: i32,
        /// -1: the session time-out stands for it.
        rebalance_timeout_ms: i32 [1..] = -1,
        member_id: Str,
        group_instance_id: Option<Str> [5..],
        protocol_type: Str,
        protocols: Vec<JoinGroupRequestProtocol>,
        /// For the log.
        reason: Option<Str> [8..],
    }

    /// An assignment protocol with the metadata meant for it.
    pub struct JoinGroupRequestProtocol {
        name: Str,
        metadata: Bytes,
    }

    /// The new generation, with all members if the caller leads it.
    pub struct JoinGroupResponse[0..=9, flexible 6] {
        throttle_time_ms: i32 [2..],
        error_code: ErrorCode,
        /// -1 if the join failed.
        generation_id: i32 = -1,
        protocol_type: Option<Str> [7..],
        protocol_name: Option<Str> [.., null 7..],
        leader: Str,
        /// The leader need not assign anew.
        skip_assignment: bool [9..],
        member_id: Str,
        /// Empty for all but the leader.
        members: Vec<JoinGroupResponseMember>,
    }

    /// A member and its metadata for the protocol chosen.
    pub struct JoinGroupResponseMember {
        member_id: Str,
        group_instance_id: Option<Str> [5..],
        metadata: Bytes,
    }
}
