//! Security: binaries and downloads whose source is marked above what the request may see.
//!
//! Contract events.md 5.5.3. Markings that cannot be read, and any marking while no labels are configured, count as
//! above.

use super::super::labels::Clearance;
use super::super::model::{EventOf, Text};

/// Stage name in counts and metrics.
pub const STAGE: &str = "FilterSecurity";

/// Drops an event whose `source.security` the reader may not see. `clearance` is that of `max-security`; `None` when the
/// request says nothing.
pub fn check<T: Text>(clearance: Option<&Clearance<'_>>, event: &EventOf<T>) -> Option<&'static str> {
    let source = match event {
        EventOf::Binary(binary) => &binary.source,
        EventOf::Download(download) => &download.source,
        EventOf::Delete(_) | EventOf::Insert(_) | EventOf::Plugin(_) | EventOf::Retrohunt(_) | EventOf::Status(_) => {
            return None;
        }
    };
    let withheld = !source.security.is_empty() && clearance.is_some_and(|held| !held.allows(&source.security));
    withheld.then_some("max_security")
}

#[cfg(test)]
mod tests {
    use super::super::super::labels::Labels;
    use super::super::super::labels::tests::contract_labels;
    use super::super::super::model::{BinaryEvent, DownloadEvent, Event, StatusEvent};
    use super::*;

    fn dropped(max: &str, security: &str) -> [bool; 2] {
        let labels = contract_labels();
        let clearance = Some(labels.clearance(max)).filter(|_| !max.is_empty());
        let (mut binary, mut download) = (BinaryEvent::default(), DownloadEvent::default());
        binary.source.security = security.into();
        download.source.security = security.into();
        let events = [Event::Binary(Box::new(binary)), Event::Download(Box::new(download))];
        events.each_ref().map(|event| check(clearance.as_ref(), event) == Some("max_security"))
    }

    /// The table of events.md 5.5.3, and its rule for what cannot be read.
    #[test]
    fn binaries_and_downloads_above_the_limit_are_dropped() {
        for security in ["LOW", "LOW MOD1", "MEDIUM", "MEDIUM MOD1", "MEDIUM REL:APPLE", "MEDIUM REL:APPLE,BEE"] {
            assert_eq!(dropped("MEDIUM MOD1 REL:APPLE", security), [false; 2], "{security}");
        }
        for security in ["HIGH", "TOP HIGH", "HIGH MOD1", "HIGH REL:APPLE", "LOW MOD1", "LOW MOD2", "MEDIUM MOD3"] {
            assert_eq!(dropped("MEDIUM", security), [true; 2], "{security}");
        }
        assert_eq!(dropped("Random", "Random"), [true; 2]);
        assert_eq!(dropped("Random", "LOW"), [true; 2]);
        assert_eq!(dropped("TOP HIGH", "Random"), [true; 2]);
    }

    #[test]
    fn without_a_limit_or_a_marking_nothing_is_dropped() {
        assert_eq!(dropped("", "TOP HIGH"), [false; 2]);
        assert_eq!(dropped("", "Random"), [false; 2]);
        assert_eq!(dropped("LOW", ""), [false; 2]);
        assert_eq!(dropped("Random", ""), [false; 2]);
    }

    #[test]
    fn without_labels_every_marked_event_is_dropped() {
        let labels = Labels::default();
        let mut binary = BinaryEvent::default();
        binary.source.security = "LOW".into();
        assert_eq!(check(Some(&labels.clearance("LOW")), &Event::Binary(Box::new(binary))), Some("max_security"));
    }

    #[test]
    fn other_models_pass() {
        let labels = contract_labels();
        let mut status = StatusEvent::default();
        status.entity.input.source.security = "TOP HIGH".into();
        assert_eq!(check(Some(&labels.clearance("LOW")), &Event::Status(Box::new(status))), None);
    }
}
