//! Age-off: events whose source keeps them only for a time that has passed.
//!
//! Contract events.md 3.1 and 5.5.1; the produce pipeline and the consume filters use the same check.

use super::super::model::{BinaryEventOf, EventOf, Text, Timestamp};
use super::super::sources::Sources;

/// Stage name in counts, metrics and 425 texts.
pub const STAGE: &str = "PipelineAgeoff";

/// Drops a binary, or a status by its input, whose source's expiry has passed at `now`.
pub fn check<T: Text>(sources: &Sources, now: Timestamp, event: &EventOf<T>) -> Option<&'static str> {
    let of_binary = |binary: &BinaryEventOf<T>| expired(sources, now, binary).then_some("ageoff");
    match event {
        EventOf::Binary(binary) => of_binary(binary),
        EventOf::Status(status) => of_binary(&status.entity.input),
        EventOf::Delete(_) | EventOf::Download(_) | EventOf::Insert(_) | EventOf::Plugin(_) | EventOf::Retrohunt(_) => {
            None
        }
    }
}

/// Strictly `source.timestamp + expiry < now`; sources that are unknown or have no expiry never expire.
fn expired<T: Text>(sources: &Sources, now: Timestamp, binary: &BinaryEventOf<T>) -> bool {
    let expiry_ms = sources.get(&binary.source.name).and_then(|source| source.expiry_ms);
    expiry_ms.is_some_and(|ms| nanos(binary.source.timestamp) + i128::from(ms) * 1_000_000 < nanos(now))
}

fn nanos(time: Timestamp) -> i128 {
    i128::from(time.seconds()) * 1_000_000_000 + i128::from(time.subsecond_nanos())
}

#[cfg(test)]
mod tests {
    use super::super::super::model::{BinaryEvent, DownloadEvent, Event, StatusEvent};
    use super::super::super::sources::SourcesConfig;
    use super::*;

    fn sources() -> Sources {
        let text = r#"{"lab":{},"short":{"expire_events_after":"2 days"},"never":{"expire_events_after":"-2 days"}}"#;
        let config: SourcesConfig = serde_json::from_str(text).unwrap();
        Sources::check(&config).unwrap()
    }

    fn binary(source: &str, time: &str) -> BinaryEvent {
        let mut event = BinaryEvent::default();
        event.source.name = source.to_owned();
        if !time.is_empty() {
            event.source.timestamp = Timestamp::parse(time).unwrap();
        }
        event
    }

    #[test]
    fn an_event_expires_strictly_after_its_source_says() {
        let now = Timestamp::parse("2026-01-04T03:04:05.5Z").unwrap();
        let table = [
            ("short", "2026-01-02T03:04:05.499999999Z", true),
            ("short", "2026-01-02T03:04:05.5Z", false),
            ("short", "2026-01-02T13:04:05.5+10:00", false),
            ("short", "2026-01-02T13:04:05.4+10:00", true),
            ("short", "2036-01-02T03:04:05Z", false),
            ("short", "", true),
            ("never", "", false),
            ("lab", "2001-01-02T03:04:05Z", false),
            ("unknown", "2001-01-02T03:04:05Z", false),
        ];
        for (source, time, wanted) in table {
            let event = Event::Binary(Box::new(binary(source, time)));
            assert_eq!(check(&sources(), now, &event).is_some(), wanted, "{source} {time}");
        }
    }

    #[test]
    fn a_status_expires_with_its_input() {
        let now = Timestamp::parse("2026-01-05T00:00:00Z").unwrap();
        let mut status = StatusEvent::default();
        status.entity.input = binary("short", "2026-01-02T03:04:05Z");
        assert_eq!(check(&sources(), now, &Event::Status(Box::new(status.clone()))), Some("ageoff"));
        status.entity.input = binary("lab", "2026-01-02T03:04:05Z");
        assert_eq!(check(&sources(), now, &Event::Status(Box::new(status))), None);
    }

    #[test]
    fn other_models_never_expire() {
        let source = binary("short", "2001-01-02T03:04:05Z").source;
        let download = DownloadEvent { source, ..DownloadEvent::default() };
        let now = Timestamp::parse("2026-01-05T00:00:00Z").unwrap();
        assert_eq!(check(&sources(), now, &Event::Download(Box::new(download))), None);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let mut event = binary("short", "");
        for (time, now, wanted) in
            [(i64::MIN, i64::MAX, true), (i64::MAX, i64::MIN, false), (i64::MAX, i64::MAX, false)]
        {
            event.source.timestamp = Timestamp::from_micros(time);
            let event = Event::Binary(Box::new(event.clone()));
            assert_eq!(check(&sources(), Timestamp::from_micros(now), &event).is_some(), wanted);
        }
    }
}
