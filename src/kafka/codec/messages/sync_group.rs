//! SyncGroup (14): the leader hands out assignments, the others wait for theirs.

use bytes::Bytes;

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Assignments from the leader, none from others.
    pub struct SyncGroupRequest[0..=5, flexible 4] {
        group_id: Str,
        generation_id: i32,
        member_id: Str,
        group_instance_id: Option<Str> [3..],
        protocol_type: Option<Str> [5..],
        protocol_name: Option<Str> [5..],
        assignments: Vec<SyncGroupRequestAssignment>,
    }

    /// What one member is to read.
    pub struct SyncGroupRequestAssignment {
        member_id: Str,
        assignment: Bytes,
    }

    /// The caller's assignment.
    pub struct SyncGroupResponse[0..=5, flexible 4] {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode,
        protocol_type: Option<Str> [5..],
        protocol_name: Option<Str> [5..],
        assignment: Bytes,
    }
}
