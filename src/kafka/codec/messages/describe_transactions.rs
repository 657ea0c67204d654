//! DescribeTransactions (65): transactions by transactional id.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Transactional ids asked for.
    pub struct DescribeTransactionsRequest[0..=0, flexible 0] {
        transactional_ids: Vec<Str>,
    }

    /// Their state.
    pub struct DescribeTransactionsResponse[0..=0, flexible 0] {
        throttle_time_ms: i32,
        transaction_states: Vec<TransactionState>,
    }

    /// One transaction.
    pub struct TransactionState {
        error_code: ErrorCode,
        transactional_id: Str,
        transaction_state: Str,
        transaction_timeout_ms: i32,
        transaction_start_time_ms: i64,
        producer_id: i64,
        producer_epoch: i16,
        topics: Vec<TopicData>,
    }

    /// Partitions of one topic in it.
    pub struct TopicData {
        topic: Str,
        partitions: Vec<i32>,
    }
}
