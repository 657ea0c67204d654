//! DeleteAcls (31): access rules removed by filter.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Filters over rules to remove.
    pub struct DeleteAclsRequest[1..=3, flexible 2] {
        filters: Vec<DeleteAclsFilter>,
    }

    /// One filter.
    pub struct DeleteAclsFilter {
        /// 1 any, 2 topic, 3 group, 4 cluster, 5 transactional id.
        resource_type_filter: i8,
        /// Null: any.
        resource_name_filter: Option<Str>,
        /// 1 any, 2 what applies, 3 the name itself, 4 a prefix.
        pattern_type_filter: i8 = 3,
        /// Null: any.
        principal_filter: Option<Str>,
        /// Null: any.
        host_filter: Option<Str>,
        operation: i8,
        /// 1 any, 2 deny, 3 allow.
        permission_type: i8,
    }

    /// What became of them, in the order asked.
    pub struct DeleteAclsResponse[1..=3, flexible 2] {
        throttle_time_ms: i32,
        filter_results: Vec<DeleteAclsFilterResult>,
    }

    /// Rules that one filter matched.
    pub struct DeleteAclsFilterResult {
        error_code: ErrorCode,
        error_message: Option<Str>,
        matching_acls: Vec<DeleteAclsMatchingAcl>,
    }

    /// One rule that matched.
    pub struct DeleteAclsMatchingAcl {
        error_code: ErrorCode,
        error_message: Option<Str>,
        /// 2 topic, 3 group, 4 cluster, 5 transactional id.
        resource_type: i8,
        resource_name: Str,
        /// 3: the name itself; 4: a prefix.
        pattern_type: i8 = 3,
        principal: Str,
        host: Str,
        operation: i8,
        /// 1 any, 2 deny, 3 allow.
        permission_type: i8,
    }
}
