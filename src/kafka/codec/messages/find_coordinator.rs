//! FindCoordinator (10): which broker keeps a group or a transaction.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Keys to look up: one, or many from version 4 on.
    pub struct FindCoordinatorRequest[0..=6, flexible 3] {
        key: Str [..=3],
        /// 0: group; 1: transaction.
        key_type: i8 [1..],
        coordinator_keys: Vec<Str> [4..],
    }

    /// Who keeps them.
    pub struct FindCoordinatorResponse[0..=6, flexible 3] {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode [..=3],
        error_message: Option<Str> [1..=3] = Some(Str::default()),
        node_id: i32 [..=3],
        host: Str [..=3],
        port: i32 [..=3],
        coordinators: Vec<Coordinator> [4..],
    }

    /// Who keeps one key.
    pub struct Coordinator {
        key: Str,
        node_id: i32,
        host: Str,
        port: i32,
        error_code: ErrorCode,
        error_message: Option<Str>,
    }
}
