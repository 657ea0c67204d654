//! IncrementalAlterConfigs (44): settings changed one by one.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Resources with the settings to change.
    pub struct IncrementalAlterConfigsRequest[0..=1, flexible 1] {
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

    /// One change.
    pub struct AlterableConfig {
        name: Str,
        /// 0 set, 1 delete, 2 append, 3 subtract.
        config_operation: i8,
        /// Null removes it.
        value: Option<Str>,
    }

    /// What became of them.
    pub struct IncrementalAlterConfigsResponse[0..=1, flexible 1] {
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
