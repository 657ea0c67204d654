//! ApiVersions (18): what the broker speaks.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Who asks.
    pub struct ApiVersionsRequest[0..=4, flexible 3] {
        client_software_name: Str [3..],
        client_software_version: Str [3..],
    }

    /// Versions of all APIs, and features.
    pub struct ApiVersionsResponse[0..=4, flexible 3] {
        error_code: ErrorCode,
        api_keys: Vec<ApiVersion>,
        throttle_time_ms: i32 [1..],
        supported_features: Vec<SupportedFeatureKey> [3.., tag 0],
        /// -1 for unknown.
        finalized_features_epoch: i64 [3.., tag 1] = -1,
        finalized_features: Vec<FinalizedFeatureKey> [3.., tag 2],
        zk_migration_ready: bool [3.., tag 3],
    }

    /// Versions of one API.
    pub struct ApiVersion {
        api_key: i16,
        min_version: i16,
        max_version: i16,
    }

    /// A feature and the levels it could have.
    pub struct SupportedFeatureKey {
        name: Str,
        min_version: i16,
        max_version: i16,
    }

    /// A feature and the levels it has.
    pub struct FinalizedFeatureKey {
        name: Str,
        max_version_level: i16,
        min_version_level: i16,
    }
}
