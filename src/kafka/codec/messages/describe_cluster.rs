//! DescribeCluster (60): the brokers and the cluster id.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Which kind of endpoints is wanted.
    pub struct DescribeClusterRequest[0..=2, flexible 0] {
        include_cluster_authorized_operations: bool,
        /// 1 brokers, 2 controllers.
        endpoint_type: i8 [1..] = 1,
        include_fenced_brokers: bool [2..],
    }

    /// The cluster.
    pub struct DescribeClusterResponse[0..=2, flexible 0] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<Str>,
        /// 1 brokers, 2 controllers.
        endpoint_type: i8 [1..] = 1,
        cluster_id: Str,
        controller_id: i32 = -1,
        brokers: Vec<DescribeClusterBroker>,
        /// Bits; `i32::MIN` when not asked for.
        cluster_authorized_operations: i32 = i32::MIN,
    }

    /// One broker with its address.
    pub struct DescribeClusterBroker {
        broker_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str>,
        is_fenced: bool [2..],
    }
}
