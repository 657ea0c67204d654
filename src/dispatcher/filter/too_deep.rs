//! Too deep: binaries whose path is longer than a consumer may see, so that plugins cannot feed each other for ever.
//!
//! Contract events.md 5.5.2.

use super::super::model::{EventOf, Text};

/// Stage name in counts and metrics.
pub const STAGE: &str = "FilterTooDeep";
/// Longest path that a task consumer gets.
pub const TASK_LIMIT: usize = 10;
/// Longest path that a passive consumer gets.
pub const PASSIVE_LIMIT: usize = 11;

/// Drops a binary with more than `limit` path nodes.
pub fn check<T: Text>(limit: usize, event: &EventOf<T>) -> Option<&'static str> {
    match event {
        EventOf::Binary(binary) => (binary.source.path.len() > limit).then_some("too_deep"),
        EventOf::Delete(_)
        | EventOf::Download(_)
        | EventOf::Insert(_)
        | EventOf::Plugin(_)
        | EventOf::Retrohunt(_)
        | EventOf::Status(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::model::{BinaryEvent, DownloadEvent, Event, PathNode, StatusEvent};
    use super::*;

    #[test]
    fn a_path_is_dropped_from_one_above_the_limit() {
        for (nodes, task, passive) in [(0, false, false), (10, false, false), (11, true, false), (12, true, true)] {
            let mut event = BinaryEvent::default();
            event.source.path = vec![PathNode::default(); nodes];
            let event = Event::Binary(Box::new(event));
            assert_eq!(check(TASK_LIMIT, &event), task.then_some("too_deep"), "{nodes}");
            assert_eq!(check(PASSIVE_LIMIT, &event), passive.then_some("too_deep"), "{nodes}");
        }
    }

    #[test]
    fn only_binaries_have_a_depth() {
        let path = vec![PathNode::default(); 20];
        let mut status = StatusEvent::default();
        status.entity.input.source.path.clone_from(&path);
        let mut download = DownloadEvent::default();
        download.source.path = path;
        assert_eq!(check(TASK_LIMIT, &Event::Status(Box::new(status))), None);
        assert_eq!(check(TASK_LIMIT, &Event::Download(Box::new(download))), None);
    }
}
