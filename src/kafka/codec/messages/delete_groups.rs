//! DeleteGroups (42): groups removed with their offsets.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Groups to remove.
    pub struct DeleteGroupsRequest[0..=2, flexible 2] {
        groups_names: Vec<Str>,
    }

    /// What became of them.
    pub struct DeleteGroupsResponse[0..=2, flexible 2] {
        throttle_time_ms: i32,
        results: Vec<DeletableGroupResult>,
    }

    /// Outcome for one group.
    pub struct DeletableGroupResult {
        group_id: Str,
        error_code: ErrorCode,
    }
}
