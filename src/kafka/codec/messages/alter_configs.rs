//! AlterConfigs (33): settings replaced as a whole.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Resources with all their settings; what is not listed goes back to its default.
    pub struct AlterConfigsRequest[0..=2, flexible 2] {
        resources: Vec<AlterConfigsResource>,
        /// Check and change nothing.
        validate_only: bool,
    }

    /// One resource.
    pub struct AlterConfigsResource {
        /// 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8,
        resource_name: Str,
        configs: Vec<AlterableConfig>,
    }

    /// One setting.
    pub struct AlterableConfig {
        name: Str,
        /// Null removes it.
        value: Option<Str>,
    }

    /// What became of them.
    pub struct AlterConfigsResponse[0..=2, flexible 2] {
        throttle_time_ms: i32,
        responses: Vec<AlterConfigsResourceResponse>,
    }

    /// Outcome for one resource.
    pub struct AlterConfigsResourceResponse {
        error_code: ErrorCode,
        error_message: Option<Str>,
        /// 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8,
        resource_name: Str,
    }
}
