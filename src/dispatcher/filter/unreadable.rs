//! Unreadable: events that came in by another door than POST and that typed readers could not read.
//!
//! Contract models.md D10, design.md 14: they stay in the log, and only JSON answers leave them out, because one of
//! them makes a strict client discard the whole answer.

use super::super::model::{self, EventOf, Text};

/// Stage name in counts and metrics.
pub const STAGE: &str = "AzuliteUnreadable";

/// Drops an event that would break a typed reader of the JSON form.
pub fn check<T: Text>(event: &EventOf<T>) -> Option<&'static str> {
    model::unreadable(event).map(|unreadable| unreadable.reason)
}

#[cfg(test)]
mod tests {
    use super::super::super::model::{BinaryEvent, Event, JsonText, StatusEvent};
    use super::*;

    #[test]
    fn an_event_is_dropped_with_the_reason_of_the_model() {
        let mut event = BinaryEvent { action: "sourced".into(), ..BinaryEvent::default() };
        assert_eq!(check(&Event::Binary(Box::new(event.clone()))), None);
        event.entity.info = JsonText::new("[1]");
        assert_eq!(check(&Event::Binary(Box::new(event))), Some("info_not_object"));
        let mut status = StatusEvent::default();
        status.entity.status = "done".into();
        assert_eq!(check(&Event::Status(Box::new(status))), Some("unknown_status"));
    }
}
