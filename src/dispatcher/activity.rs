//! What runs of events came to lately: how many ended and how, how fast, how long they took, the last failure.
//!
//! Kept for every consumer beside its leases, and by the workers of this process for each of their stages. Only in memory,
//! and bounded.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Time over which the rate is taken, milliseconds.
const RATE_SPAN_MS: i64 = 5 * 60_000;
/// Time that is counted together, milliseconds.
const BUCKET_MS: i64 = 10_000;
/// Characters of an error that are kept.
const ERROR_CHARS: usize = 250;
/// Runs whose time is remembered, the last ones.
const MOST_TIMES: usize = 100;
/// Words of statuses that are told apart; clients may send any.
const MOST_WORDS: usize = 24;
/// Longest word of a status that is kept.
const WORD_BYTES: usize = 64;

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

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    ended: BTreeMap<String, u64>,
    /// Beginning of a span of time and what ended in it, oldest first.
    recent: VecDeque<(i64, u64)>,
    /// Milliseconds of the last runs, oldest first.
    took_ms: VecDeque<u32>,
    since_ms: Option<i64>,
    ended_ms: Option<i64>,
    heard_ms: Option<i64>,
    retried: u64,
    last_error: Option<LastError>,
}

/// An [`Activity`] at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lately {
    /// Ended since the process began, by status.
    pub ended: BTreeMap<String, u64>,
    /// Runs of events that had failed before.
    pub retried: u64,
    /// Ended per second over the last minutes.
    pub rate: f64,
    /// The middle one of the times that the last runs took, seconds.
    pub median_s: Option<f64>,
    /// Their mean, seconds.
    pub mean_s: Option<f64>,
    /// When one ended last, milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// When something was heard of it last, milliseconds since 1970.
    pub heard_ms: Option<i64>,
    /// The last failure.
    pub last_error: Option<LastError>,
}

impl Activity {
    /// Something begins.
    pub fn begun(&mut self, now_ms: i64, is_retry: bool) {
        self.since_ms.get_or_insert(now_ms);
        self.retried += u64::from(is_retry);
    }

    /// Something has ended, after so many milliseconds where that is known.
    pub fn ended(&mut self, now_ms: i64, status: &str, took_ms: Option<i64>) {
        let begun_ms = now_ms.saturating_sub(took_ms.unwrap_or(0));
        self.since_ms.get_or_insert(begun_ms);
        self.ended_ms = self.ended_ms.max(Some(now_ms));
        let known = self.ended.len() < MOST_WORDS || self.ended.contains_key(status);
        let status = if known && status.len() <= WORD_BYTES { status } else { "other" };
        match self.ended.get_mut(status) {
            Some(count) => *count += 1,
            None => drop(self.ended.insert(status.to_owned(), 1)),
        }
        let bucket = now_ms.div_euclid(BUCKET_MS) * BUCKET_MS;
        match self.recent.back_mut() {
            Some((begun, count)) if *begun >= bucket => *count += 1,
            Some(_) | None => self.recent.push_back((bucket, 1)),
        }
        while self.recent.front().is_some_and(|(begun, _)| *begun < now_ms - RATE_SPAN_MS) {
            self.recent.pop_front();
        }
        if let Some(took_ms) = took_ms {
            if self.took_ms.len() >= MOST_TIMES {
                self.took_ms.pop_front();
            }
            self.took_ms.push_back(u32::try_from(took_ms.max(0)).unwrap_or(u32::MAX));
        }
    }

    /// Something has failed.
    pub fn failed(&mut self, error: LastError) {
        let cut = |text: String| text.chars().take(ERROR_CHARS).collect();
        let LastError { time_ms, status, error, message, sha256 } = error;
        let (status, sha256) = (cut(status), cut(sha256));
        self.last_error = Some(LastError { time_ms, status, error: cut(error), message: cut(message), sha256 });
    }

    /// It gave a sign of life.
    pub fn heard(&mut self, now_ms: i64) {
        self.heard_ms = self.heard_ms.max(Some(now_ms));
    }

    /// How it stands.
    #[must_use]
    pub fn lately(&self, now_ms: i64) -> Lately {
        let from = now_ms - RATE_SPAN_MS;
        let count: u64 = self.recent.iter().filter(|(begun, _)| *begun >= from).map(|(_, count)| count).sum();
        let since = self.since_ms.unwrap_or(now_ms).max(from);
        let span_s = u32::try_from(((now_ms - since) / 1000).max(1)).unwrap_or(u32::MAX);
        let mut times: Vec<u32> = self.took_ms.iter().copied().collect();
        times.sort_unstable();
        let sum: f64 = times.iter().copied().map(f64::from).sum();
        let mean_ms = (!times.is_empty()).then(|| sum / f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX)));
        Lately {
            ended: self.ended.clone(),
            retried: self.retried,
            rate: f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / f64::from(span_s),
            median_s: times.get(times.len() / 2).map(|ms| f64::from(*ms) / 1000.0),
            mean_s: mean_ms.map(|ms| ms / 1000.0),
            ended_ms: self.ended_ms,
            heard_ms: self.heard_ms,
            last_error: self.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_minutes() {
        let mut activity = Activity::default();
        activity.begun(0, false);
        (0..100).for_each(|n| activity.ended(n * 1000, "completed", None));
        let now = activity.lately(100_000);
        assert_eq!((now.rate, now.ended["completed"], now.ended_ms), (1.0, 100, Some(99_000)));
        let later = activity.lately(1_000_000);
        assert_eq!((later.rate, later.ended["completed"]), (0.0, 100));
    }

    #[test]
    fn old_counts_times_and_words_are_bounded() {
        let mut activity = Activity::default();
        (0..10_000).for_each(|n| activity.ended(n * BUCKET_MS, &format!("word-{n}"), Some(n)));
        assert!(activity.recent.len() <= 32 && activity.took_ms.len() == MOST_TIMES);
        assert_eq!((activity.ended.len(), activity.ended["other"]), (MOST_WORDS + 1, 10_000 - 24));
    }

    #[test]
    fn times_are_those_of_the_last_runs() {
        let mut activity = Activity::default();
        assert_eq!((activity.lately(0).median_s, activity.lately(0).mean_s), (None, None));
        [1000, 1000, 7000].into_iter().for_each(|took| activity.ended(9000, "completed", Some(took)));
        assert_eq!((activity.lately(9000).median_s, activity.lately(9000).mean_s), (Some(1.0), Some(3.0)));
    }

    #[test]
    fn a_failure_is_kept_short() {
        let mut activity = Activity::default();
        activity.failed(LastError { message: "x".repeat(9000), ..LastError::default() });
        assert_eq!(activity.lately(0).last_error.map(|error| error.message.len()), Some(ERROR_CHARS));
    }
}
