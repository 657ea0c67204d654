//! DescribeClientQuotas (48): quotas that match a filter.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// A filter over quotas.
    pub struct DescribeClientQuotasRequest[0..=1, flexible 1] {
        components: Vec<ComponentData>,
        strict: bool,
    }

    /// What one part of the entity has to be.
    pub struct ComponentData {
        entity_type: Str,
        /// 0 this name, 1 the default, 2 any name.
        match_type: i8,
        /// The name, null unless `match_type` is 0.
        match_value: Option<Str>,
    }

    /// The quotas that match; an empty answer has an empty list, never null.
    pub struct DescribeClientQuotasResponse[0..=1, flexible 1] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<Str>,
        entries: Option<Vec<EntryData>> = Some(Vec::new()),
    }

    /// Quotas of one entity.
    pub struct EntryData {
        entity: Vec<EntityData>,
        values: Vec<ValueData>,
    }

    /// One part of an entity, for example a user.
    pub struct EntityData {
        entity_type: Str,
        /// Null: the default.
        entity_name: Option<Str>,
    }

    /// One quota.
    pub struct ValueData {
        key: Str,
        value: f64,
    }
}
