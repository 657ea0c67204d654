//! AlterClientQuotas (49): quotas set and removed.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Quotas to change.
    pub struct AlterClientQuotasRequest[0..=1, flexible 1] {
        entries: Vec<RequestedEntryData>,
        /// Check and change nothing.
        validate_only: bool,
    }

    /// Changes for one entity.
    pub struct RequestedEntryData {
        entity: Vec<EntityData>,
        ops: Vec<OpData>,
    }

    /// One part of an entity, for example a user.
    pub struct EntityData {
        entity_type: Str,
        /// Null: the default.
        entity_name: Option<Str>,
    }

    /// One change.
    pub struct OpData {
        key: Str,
        value: f64,
        /// Remove instead of setting.
        remove: bool,
    }

    /// What became of them.
    pub struct AlterClientQuotasResponse[0..=1, flexible 1] {
        throttle_time_ms: i32,
        entries: Vec<EntryData>,
    }

    /// Outcome for one entity.
    pub struct EntryData {
        error_code: ErrorCode,
        error_message: Option<Str>,
        entity: Vec<EntityData>,
    }
}
