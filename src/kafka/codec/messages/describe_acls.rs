//! DescribeAcls (29): access rules that match a filter.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// A filter over rules.
    pub struct DescribeAclsRequest[1..=3, flexible 2] {
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

    /// The rules that match.
    pub struct DescribeAclsResponse[1..=3, flexible 2] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<Str>,
        resources: Vec<DescribeAclsResource>,
    }

    /// A resource with its rules.
    pub struct DescribeAclsResource {
        /// 2 topic, 3 group, 4 cluster, 5 transactional id.
        resource_type: i8,
        resource_name: Str,
        /// 3: the name itself; 4: a prefix.
        pattern_type: i8 = 3,
        acls: Vec<AclDescription>,
    }

    /// One rule.
    pub struct AclDescription {
        principal: Str,
        host: Str,
        operation: i8,
        /// 1 any, 2 deny, 3 allow.
        permission_type: i8,
    }
}
