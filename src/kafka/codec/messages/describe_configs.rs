//! DescribeConfigs (32): settings of topics, brokers and groups.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Resources asked for.
    pub struct DescribeConfigsRequest[1..=4, flexible 4] {
        resources: Vec<DescribeConfigsResource>,
        include_synonyms: bool,
        include_documentation: bool [3..],
    }

    /// One resource, with the settings wanted.
    pub struct DescribeConfigsResource {
        /// 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8,
        resource_name: Str,
        /// Null: all.
        configuration_keys: Option<Vec<Str>> = Some(Vec::new()),
    }

    /// Their settings.
    pub struct DescribeConfigsResponse[1..=4, flexible 4] {
        throttle_time_ms: i32,
        results: Vec<DescribeConfigsResult>,
    }

    /// Settings of one resource.
    pub struct DescribeConfigsResult {
        error_code: ErrorCode,
        error_message: Option<Str>,
        /// 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8,
        resource_name: Str,
        configs: Vec<DescribeConfigsResourceResult>,
    }

    /// One setting.
    pub struct DescribeConfigsResourceResult {
        name: Str,
        value: Option<Str>,
        read_only: bool,
        /// 1 topic, 2 broker, 3 all brokers, 4 file, 5 default.
        config_source: i8 = -1,
        is_sensitive: bool,
        synonyms: Vec<DescribeConfigsSynonym>,
        /// 0 unknown, 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password.
        config_type: i8 [3..],
        documentation: Option<Str> [3..] = Some(Str::default()),
    }

    /// Another place the setting could come from, in order of precedence.
    pub struct DescribeConfigsSynonym {
        name: Str,
        value: Option<Str>,
        /// As `config_source`.
        source: i8,
    }
}
