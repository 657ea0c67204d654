//! CreateAcls (30): new access rules.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Rules to make.
    pub struct CreateAclsRequest[1..=3, flexible 2] {
        creations: Vec<AclCreation>,
    }

    /// One rule to make.
    pub struct AclCreation {
        /// 2 topic, 3 group, 4 cluster, 5 transactional id.
        resource_type: i8,
        resource_name: Str,
        /// 3: the name itself; 4: a prefix.
        resource_pattern_type: i8 = 3,
        principal: Str,
        host: Str,
        operation: i8,
        /// 1 any, 2 deny, 3 allow.
        permission_type: i8,
    }

    /// What became of them, in the order asked.
    pub struct CreateAclsResponse[1..=3, flexible 2] {
        throttle_time_ms: i32,
        results: Vec<AclCreationResult>,
    }

    /// Outcome for one rule.
    pub struct AclCreationResult {
        error_code: ErrorCode,
        error_message: Option<Str>,
    }
}
