//! ListTransactions (66): all transactions.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Filters; an empty one lets all through.
    pub struct ListTransactionsRequest[0..=2, flexible 0] {
        state_filters: Vec<Str>,
        /// Empty: all.
        producer_id_filters: Vec<i64>,
        /// Only those that run longer, milliseconds; -1: all.
        duration_filter: i64 [1..] = -1,
        /// RE2; null or empty: all.
        transactional_id_pattern: Option<Str> [2..],
    }

    /// The transactions that pass.
    pub struct ListTransactionsResponse[0..=2, flexible 0] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        unknown_state_filters: Vec<Str>,
        transaction_states: Vec<TransactionState>,
    }

    /// One transaction.
    pub struct TransactionState {
        transactional_id: Str,
        producer_id: i64,
        transaction_state: Str,
    }
}
