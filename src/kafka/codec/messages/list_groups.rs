//! ListGroups (16): all groups.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Filters; an empty one lets all through.
    pub struct ListGroupsRequest[0..=5, flexible 3] {
        states_filter: Vec<Str> [4..],
        types_filter: Vec<Str> [5..],
    }

    /// The groups that pass.
    pub struct ListGroupsResponse[0..=5, flexible 3] {
        throttle_time_ms: i32 [1..],
        error_code: ErrorCode,
        groups: Vec<ListedGroup>,
    }

    /// One group.
    pub struct ListedGroup {
        group_id: Str,
        protocol_type: Str,
        group_state: Str [4..],
        group_type: Str [5..],
    }
}
