//! LeaveGroup (13): members leave their group.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// One member, or many from version 3 on.
    pub struct LeaveGroupRequest[0..=5, flexible 4] {
        group_id: Str,
        member_id: Str [..=2],
        members: Vec<MemberIdentity> [3..],
    }

    /// A member that leaves.
    pub struct MemberIdentity {
        member_id: Str,
        group_instance_id: Option<Str>,
        /// For the log.
        reason: Option<Str> [5..],
    }

    /// What became of them.
    pub struct LeaveGroupResponse[0..=5, flexible 4] {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode,
        members: Vec<MemberResponse> [3..],
    }

    /// Outcome for one member.
    pub struct MemberResponse {
        member_id: Str,
        group_instance_id: Option<Str>,
        error_code: ErrorCode,
    }
}
