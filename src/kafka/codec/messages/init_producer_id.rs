//! InitProducerId (22): an id and an epoch for a producer.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// A producer that starts or comes back.
    pub struct InitProducerIdRequest[0..=5, flexible 2] {
        /// Null for a producer that is idempotent only.
        transactional_id: Option<Str>,
        transaction_timeout_ms: i32,
        /// -1 for a new one.
        producer_id: i64 [3..] = -1,
        /// -1 for a new one.
        producer_epoch: i16 [3..] = -1,
    }

    /// Its id and epoch.
    pub struct InitProducerIdResponse[0..=5, flexible 2] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        producer_id: i64 = -1,
        producer_epoch: i16,
    }
}
