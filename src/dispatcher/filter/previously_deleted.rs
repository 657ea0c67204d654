//! Previously deleted: binary events that a purge order names.
//!
//! Contract events.md 6.6: dropped on both sides; what a reader meets gets a tombstone as well, which is the caller's.

use super::super::model::{EventOf, Text};
use super::super::purge::{PurgeKind, PurgeOrders};
use super::FilterKey;

/// Stage name in 425 texts, counts and metrics.
pub const STAGE: &str = "FilterPreviouslyDeleted";
/// The event was dropped, and its tombstone is written or seen to.
pub const DELETED: FilterKey = FilterKey { stage: STAGE, reason: "deleted" };
/// The event was dropped, and its tombstone could not be written.
pub const ERROR: FilterKey = FilterKey { stage: STAGE, reason: "error" };

/// The kind of order that a binary event falls under; any other model passes.
pub fn check<T: Text>(orders: &PurgeOrders, event: &EventOf<T>) -> Option<PurgeKind> {
    match event {
        EventOf::Binary(binary) => orders.find(binary),
        EventOf::Delete(_)
        | EventOf::Download(_)
        | EventOf::Insert(_)
        | EventOf::Plugin(_)
        | EventOf::Retrohunt(_)
        | EventOf::Status(_) => None,
    }
}
