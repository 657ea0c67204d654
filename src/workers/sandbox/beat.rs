//! Heartbeats of all open jobs, in bulk.

use crate::dispatcher::model::{BinaryEvent, StatusEvent};
use crate::workers::{UpstreamError, results};

use super::job::End;
use super::worker::Shared;

/// Statuses in one request.
const AT_ONCE: usize = 200;

/// Runs until the stop. The first heartbeats go out at once: after a restart they are overdue.
pub(super) fn run(shared: &Shared) {
    loop {
        beat(shared);
        if shared.stop.wait(shared.options.heartbeat) {
            return;
        }
    }
}

fn beat(shared: &Shared) {
    let open = shared.store.pick(|job| {
        let is_open = job.end != Some(End::Cleanup);
        is_open.then(|| (job.event.clone(), job.dequeued.clone()))
    });
    let mut statuses: Vec<StatusEvent> = Vec::new();
    for (event, dequeued) in open {
        // A job that ended meanwhile has no event any more.
        let Ok(input) = shared.store.event(&event) else { continue };
        for id in dequeued {
            let input = BinaryEvent { dequeued: id, ..results::reduced(&input) };
            statuses.push(results::status(&shared.origin(&input), "heartbeat", 0.0));
        }
    }
    for some in statuses.chunks(AT_ONCE) {
        match shared.upstream.report(some) {
            Ok(()) => {}
            Err(UpstreamError::Unavailable(reason)) => {
                tracing::debug!("{}: no heartbeats: {reason}", shared.author.name);
                return;
            }
            Err(UpstreamError::Refused(reason)) => {
                tracing::error!("{}: heartbeats are refused: {reason}", shared.author.name);
            }
        }
    }
}
