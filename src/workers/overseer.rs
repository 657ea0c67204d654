//! What is shown of a worker: by `/api/azulite/v1/workers`, `azulite workers` and `/readyz`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::frame::Status;

/// Time over which the rate is taken, milliseconds.
const RATE_SPAN_MS: i64 = 5 * 60_000;
/// Time that is counted together, milliseconds.
const BUCKET_MS: i64 = 10_000;
/// Characters of an error that are kept.
const ERROR_CHARS: usize = 1000;

/// Name of the fact that `/readyz` shows, too: the worker works, but somebody should look.
pub const WARNING: &str = "warning";

/// Something that the overseer shows.
pub trait Overseen: Send + Sync + 'static {
    /// How it stands. Does not block on the disk or the network.
    fn view(&self, now_ms: i64) -> WorkerView;

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
    /// `up`, `down` or `stopping`.
    pub state: String,
    /// Why it is not up; may be empty.
    pub reason: String,
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
    /// Events that wait for it: the lag of its groups, or items of its queue; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u64>,
    /// Events under way.
    pub in_flight: u64,
    /// Events that may be under way at once.
    pub slots: u64,
    /// Events that are tried again.
    pub retried: u64,
    /// Ended since the start, by status.
    pub ended: BTreeMap<String, u64>,
    /// Events ended per second over the last minutes.
    pub rate: f64,
    /// Seconds until the queue is empty at that rate; absent when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_finish_s: Option<u64>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

impl StageView {
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

/// A failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When, milliseconds since 1970.
    pub time_ms: i64,
    /// The status, such as `error-timeout`.
    pub status: String,
    /// The kind.
    pub error: String,
    /// The rest.
    pub message: String,
    /// The entity that was worked on.
    pub sha256: String,
}

/// Counts what ends in one stage. Memory is bounded.
#[derive(Debug, Default)]
pub struct Counts(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    ended: BTreeMap<&'static str, u64>,
    /// Beginning of a span of time and what ended in it, oldest first.
    recent: VecDeque<(i64, u64)>,
    since_ms: Option<i64>,
    retried: u64,
    last_error: Option<LastError>,
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something begins.
    pub fn begun(&self, now_ms: i64, is_retry: bool) {
        let mut counted = self.lock();
        counted.since_ms.get_or_insert(now_ms);
        counted.retried += u64::from(is_retry);
    }

    /// Something has ended.
    pub fn ended(&self, now_ms: i64, status: Status) {
        let mut counted = self.lock();
        *counted.ended.entry(status.as_str()).or_default() += 1;
        let bucket = now_ms.div_euclid(BUCKET_MS) * BUCKET_MS;
        match counted.recent.back_mut() {
            Some((begun, count)) if *begun == bucket => *count += 1,
            Some(_) | None => counted.recent.push_back((bucket, 1)),
        }
        while counted.recent.front().is_some_and(|(begun, _)| *begun < now_ms - RATE_SPAN_MS) {
            counted.recent.pop_front();
        }
    }

    /// Something has failed.
    pub fn failed(&self, error: LastError) {
        let cut = |text: String| text.chars().take(ERROR_CHARS).collect();
        let LastError { time_ms, status, error, message, sha256 } = error;
        self.lock().last_error = Some(LastError { time_ms, status, error: cut(error), message: cut(message), sha256 });
    }

    /// The stage, without its queue.
    pub fn view(&self, name: &str, now_ms: i64, in_flight: u64, slots: u64) -> StageView {
        let counted = self.lock();
        let from = now_ms - RATE_SPAN_MS;
        let count: u64 = counted.recent.iter().filter(|(begun, _)| *begun >= from).map(|(_, count)| count).sum();
        let since = counted.since_ms.unwrap_or(now_ms).max(from);
        let span_s = u32::try_from(((now_ms - since) / 1000).max(1)).unwrap_or(u32::MAX);
        StageView {
            name: name.to_owned(),
            queue: None,
            in_flight,
            slots,
            retried: counted.retried,
            ended: counted.ended.iter().map(|(status, count)| ((*status).to_owned(), *count)).collect(),
            rate: f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / f64::from(span_s),
            time_to_finish_s: None,
            last_error: counted.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_minutes() {
        let counts = Counts::default();
        counts.begun(0, false);
        (0..100).for_each(|n| counts.ended(n * 1000, Status::Completed));
        let view = counts.view("s", 100_000, 2, 4);
        assert_eq!((view.rate, view.ended["completed"], view.in_flight, view.slots), (1.0, 100, 2, 4));
        assert_eq!(view.clone().with_queue(50).time_to_finish_s, Some(50));
        assert_eq!(view.with_queue(0).time_to_finish_s, Some(0));
        let later = counts.view("s", 1_000_000, 0, 4);
        assert_eq!((later.rate, later.ended["completed"]), (0.0, 100));
        assert_eq!(later.with_queue(5).time_to_finish_s, None);
    }

    #[test]
    fn old_counts_are_forgotten() {
        let counts = Counts::default();
        (0..10_000).for_each(|n| counts.ended(n * BUCKET_MS, Status::OptOut));
        assert!(counts.lock().recent.len() <= 32);
    }

    #[test]
    fn a_failure_is_kept_short() {
        let counts = Counts::default();
        counts.failed(LastError { message: "x".repeat(9000), ..LastError::default() });
        assert_eq!(counts.view("s", 0, 0, 0).last_error.map(|error| error.message.len()), Some(ERROR_CHARS));
    }
}
