//! EndTxn (26): commit or abort.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// The end of a transaction.
    pub struct EndTxnRequest[0..=5, flexible 3] {
        transactional_id: Str,
        producer_id: i64,
        producer_epoch: i16,
        /// False: abort.
        committed: bool,
    }

    /// Whether it ended; id and epoch for the next one.
    pub struct EndTxnResponse[0..=5, flexible 3] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        producer_id: i64 [5..] = -1,
        producer_epoch: i16 [5..] = -1,
    }
}
