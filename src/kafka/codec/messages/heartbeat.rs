//! Heartbeat (12): a member is alive.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Member and generation.
    pub struct HeartbeatRequest[0..=4, flexible 4] {
        group_id: Str,
        generation_id: i32,
        member_id: Str,
        group_instance_id: Option<Str> [3..],
    }

    /// Whether both are still right.
    pub struct HeartbeatResponse[0..=4, flexible 4] {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode,
    }
}
