//! DescribeGroups (15): groups of the classic protocol with their members.

use bytes::Bytes;

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Groups asked for.
    pub struct DescribeGroupsRequest[0..=6, flexible 5] {
        groups: Vec<Str>,
        include_authorized_operations: bool [3..],
    }

    /// What is known of them.
    pub struct DescribeGroupsResponse[0..=6, flexible 5] {
        throttle_time_ms: i32 [1..],
        groups: Vec<DescribedGroup>,
    }

    /// One group.
    pub struct DescribedGroup {
        error_code: ErrorCode,
        error_message: Option<Str> [6..],
        group_id: Str,
        /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
        group_state: Str,
        protocol_type: Str,
        protocol_data: Str,
        members: Vec<DescribedGroupMember>,
        /// Bits; `i32::MIN` when not asked for.
        authorized_operations: i32 [3..] = i32::MIN,
    }

    /// One member.
    pub struct DescribedGroupMember {
        member_id: Str,
        group_instance_id: Option<Str> [4..],
        client_id: Str,
        client_host: Str,
        member_metadata: Bytes,
        member_assignment: Bytes,
    }
}
