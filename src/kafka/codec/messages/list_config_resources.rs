//! ListConfigResources (74): what has settings.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Kinds of resources; none means client metrics at version 0, all kinds from version 1 on.
    pub struct ListConfigResourcesRequest[0..=1, flexible 0] {
        /// 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_types: Vec<i8> [1..],
    }

    /// The resources.
    pub struct ListConfigResourcesResponse[0..=1, flexible 0] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        config_resources: Vec<ConfigResource>,
    }

    /// One resource.
    pub struct ConfigResource {
        resource_name: Str,
        /// 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8 [1..] = 16,
    }
}
