//! AddOffsetsToTxn (25): the offsets of a group join a transaction.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// The group whose offsets the transaction will commit.
    pub struct AddOffsetsToTxnRequest[0..=4, flexible 3] {
        transactional_id: Str,
        producer_id: i64,
        producer_epoch: i16,
        group_id: Str,
    }

    /// Whether it may.
    pub struct AddOffsetsToTxnResponse[0..=4, flexible 3] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
    }
}
