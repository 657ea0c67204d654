//! DeleteTopics (20): topics removed.

use crate::kafka::codec::{Str, Uuid, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Topics to remove.
    pub struct DeleteTopicsRequest[1..=6, flexible 4] {
        topics: Vec<DeleteTopicState> [6..],
        topic_names: Vec<Str> [..=5],
        timeout_ms: i32,
    }

    /// One topic, by name or by id.
    pub struct DeleteTopicState {
        name: Option<Str>,
        topic_id: Uuid,
    }

    /// What became of them.
    pub struct DeleteTopicsResponse[1..=6, flexible 4] {
        throttle_time_ms: i32,
        responses: Vec<DeletableTopicResult>,
    }

    /// Outcome for one topic.
    pub struct DeletableTopicResult {
        name: Option<Str> [.., null 6..],
        topic_id: Uuid [6..],
        error_code: ErrorCode,
        error_message: Option<Str> [5..],
    }
}
