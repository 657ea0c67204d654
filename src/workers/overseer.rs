//! What is shown of a worker: by `/api/azulite/v1/workers`, `azulite workers` and `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::frame::Status;
pub use crate::dispatcher::activity::LastError;
use crate::dispatcher::activity::{Activity, Lately};

/// Name of the fact that `/readyz` shows, too: the worker works, but somebody should look.
pub const WARNING: &str = "warning";

/// Where a worker runs that is inside of the server; see [`WorkerView::place`].
pub const SERVER: &str = "server";
/// Where every other plugin runs.
pub const OUTSIDE: &str = "outside";

/// Something that the overseer shows.
pub trait Overseen: Send + Sync + 'static {
    /// How it stands. Does not block on the disk or the network.
    fn view(&self, now_ms: i64) -> WorkerView;

    /// Jobs that it has taken and not ended.
    fn jobs(&self) -> u64;

    /// Reads again what may have changed on disk; see [`Worker::reload`](super::Worker::reload).
    ///
    /// # Errors
    /// Why everything stays as it is.
    fn reload(&self) -> Result<String, String>;
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its name, as events say it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version that its groups belong to.
    pub consumer_version: String,
    /// Where it runs: `server` for a worker inside of the server, `outside` for every other plugin.
    #[serde(rename = "where", default)]
    pub place: String,
    /// `up`, `down` or `stopping` of a worker inside of the server; `active`, `idle` or `not seen` of every other plugin.
    pub state: String,
    /// Why it is in that state, or since when; may be empty.
    pub reason: String,
    /// When it asked for events or said something of one last, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<i64>,
    /// Its stages, in the order in which an event goes through them.
    pub stages: Vec<StageView>,
    /// What else is worth knowing, such as the rule set in use.
    pub facts: BTreeMap<String, String>,
}

/// One stage of a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageView {
    /// Its name.
    pub name: String,
    /// Events that wait for it; absent when that is not known. Of the first stage: what its groups have not looked at yet,
    /// of which its filters may drop some, and what waits for another run. Of later stages: items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u64>,
    /// Events between the durable positions of its groups and the end, as `groups` shows it. Counts those, too, that were
    /// looked at and dropped since the positions were last written; absent where no group is behind the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Events that have failed and wait for another run; absent where no group is behind the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// Events under way.
    pub in_flight: u64,
    /// Events that may be under way at once; absent when only the plugin knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u64>,
    /// Runs of events that had failed before.
    pub retried: u64,
    /// Ended since the start, by status.
    pub ended: BTreeMap<String, u64>,
    /// Events ended per second over the last minutes.
    pub rate: f64,
    /// The middle one of the times that the last 100 events took, seconds; absent when none has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_s: Option<f64>,
    /// The mean of those times, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_s: Option<f64>,
    /// Seconds until the queue is empty at that rate; absent when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_finish_s: Option<u64>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

impl StageView {
    /// One that has done this.
    #[must_use]
    pub fn of(lately: Lately) -> Self {
        let Lately { ended, retried, rate, median_s, mean_s, last_error, .. } = lately;
        Self { ended, retried, rate, median_s, mean_s, last_error, ..Self::default() }
    }

    /// With a queue of that length, and the time until it is empty.
    #[must_use]
    pub fn with_queue(self, queue: u64) -> Self {
        // Far more events than a float holds exactly would take years.
        let seconds = f64::from(u32::try_from(queue).unwrap_or(u32::MAX)) / self.rate;
        let time_to_finish_s = match queue {
            0 => Some(0),
            _ if self.rate > 0.0 => std::time::Duration::try_from_secs_f64(seconds).ok().map(|time| time.as_secs()),
            _ => None,
        };
        Self { queue: Some(queue), time_to_finish_s, ..self }
    }
}

/// Counts what ends in one stage. Memory is bounded.
#[derive(Debug, Default)]
pub struct Counts(Mutex<Activity>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Activity> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something begins.
    pub fn begun(&self, now_ms: i64, is_retry: bool) {
        self.lock().begun(now_ms, is_retry);
    }

    /// Something has ended, after so many milliseconds where that is known.
    pub fn ended(&self, now_ms: i64, status: Status, took_ms: Option<i64>) {
        self.lock().ended(now_ms, status.as_str(), took_ms);
    }

    /// Something has failed.
    pub fn failed(&self, error: LastError) {
        self.lock().failed(error);
    }

    /// The stage, without its queue.
    pub fn view(&self, name: &str, now_ms: i64, in_flight: u64, slots: u64) -> StageView {
        let lately = self.lock().lately(now_ms);
        StageView { name: name.to_owned(), in_flight, slots: Some(slots), ..StageView::of(lately) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_ends_at_the_rate_of_the_last_minutes() {
        let counts = Counts::default();
        counts.begun(0, false);
        (0..100).for_each(|n| counts.ended(n * 1000, Status::Completed, None));
        let view = counts.view("s", 100_000, 2, 4);
        assert_eq!((view.rate, view.ended["completed"], view.in_flight, view.slots), (1.0, 100, 2, Some(4)));
        assert_eq!(view.clone().with_queue(50).time_to_finish_s, Some(50));
        assert_eq!(view.with_queue(0).time_to_finish_s, Some(0));
        let later = counts.view("s", 1_000_000, 0, 4);
        assert_eq!((later.rate, later.ended["completed"]), (0.0, 100));
        assert_eq!(later.with_queue(5).time_to_finish_s, None);
    }
}
