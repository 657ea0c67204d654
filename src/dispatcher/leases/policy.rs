//! What follows from how a run ended, and when the next one begins. Contract workers.md 5.1, 5.2.

use std::collections::BTreeMap;

use super::super::pipeline::is_completed;

/// Leases and retries of one consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long a lease lasts, and how long one that was heard of goes on.
    pub lease_ms: i64,
    /// The longest a lease lasts, however often its consumer is heard of.
    pub lease_max_ms: i64,
    /// Runs after the first one.
    pub max_attempts: u32,
    /// From the end of the first failed run to the next one.
    pub retry_delay_ms: i64,
    /// What the delay is multiplied with for each further one.
    pub retry_backoff: f64,
    /// The longest delay.
    pub retry_delay_max_ms: i64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease_ms: 30 * 60_000,
            lease_max_ms: 24 * 3_600_000,
            max_attempts: 3,
            retry_delay_ms: 60_000,
            retry_backoff: 1.0,
            retry_delay_max_ms: 3_600_000,
        }
    }
}

/// The delay differs from the configured one by at most one part in so many, so that what failed together does not all
/// come back together.
const JITTER_PART: i64 = 10;
/// The least that an event waits that filters kept back.
const LEAST_HELD_MS: i64 = 1000;

impl Policy {
    /// The time from the end of failed run `attempts` (the first is 1) to the next; `random` moves it by up to a tenth.
    pub(super) fn delay_ms(&self, attempts: usize, random: u64) -> i64 {
        let steps = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let factor = self.retry_backoff.max(0.0).powi(steps);
        let seconds = std::time::Duration::try_from_secs_f64(millis_to_secs(self.retry_delay_ms) * factor);
        let delay = seconds.ok().and_then(|delay| i64::try_from(delay.as_millis()).ok()).unwrap_or(i64::MAX);
        let delay = delay.min(self.retry_delay_max_ms).max(0);
        let range = delay / JITTER_PART;
        let off = i64::try_from(random % (u64::try_from(range).unwrap_or(0) * 2 + 1)).unwrap_or(0) - range;
        delay.saturating_add(off)
    }

    /// How long an event waits that filters kept back.
    pub(super) fn held_ms(&self) -> i64 {
        self.retry_delay_ms.min(self.retry_delay_max_ms).max(LEAST_HELD_MS)
    }

    /// No event waits longer. One that is due later was written down under another clock or other rules.
    pub(super) fn longest_wait_ms(&self) -> i64 {
        let longest = self.retry_delay_max_ms.max(LEAST_HELD_MS);
        longest.saturating_add(longest / JITTER_PART)
    }
}

fn millis_to_secs(ms: i64) -> f64 {
    std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0)).as_secs_f64()
}

/// The policy of each consumer.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// For consumers that have none of their own.
    pub common: Policy,
    /// By the consumer's name.
    pub by_name: BTreeMap<String, Policy>,
}

impl Policies {
    /// That of the consumer `name`.
    pub fn of(&self, name: &str) -> &Policy {
        self.by_name.get(name).unwrap_or(&self.common)
    }

    /// The longest lease that nobody is heard of under.
    pub(super) fn longest_lease_ms(&self) -> i64 {
        self.by_name.values().map(|policy| policy.lease_ms).fold(self.common.lease_ms, i64::max)
    }
}

/// What follows from a final status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done with.
    Finished,
    /// It is run again, unless it was run often enough.
    Retry,
    /// The same input would give the same error.
    Dead,
}

impl Outcome {
    /// Of a final status of this word. The contract's list is closed; whatever else begins with `error` is an error that
    /// may go away, and anything else is taken for an answer of the consumer's.
    pub(super) fn of(status: &str) -> Self {
        match status {
            "error-input" | "error-output" => Self::Dead,
            other if is_completed(other) || other == "opt-out" => Self::Finished,
            other if other.starts_with("error") => Self::Retry,
            _ => Self::Finished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_tried_again_but_those_of_input_and_output() {
        for word in ["error-network", "error-timeout", "error-runner", "error-out-of-memory", "error-exception"] {
            assert_eq!(Outcome::of(word), Outcome::Retry, "{word}");
        }
        assert_eq!(Outcome::of("error-input"), Outcome::Dead);
        assert_eq!(Outcome::of("error-output"), Outcome::Dead);
        for word in ["completed", "completed-empty", "completed-with-errors", "opt-out", "custom"] {
            assert_eq!(Outcome::of(word), Outcome::Finished, "{word}");
        }
        assert_eq!(Outcome::of("error-of-my-own"), Outcome::Retry);
    }

    #[test]
    fn delays_grow_up_to_their_limit_and_differ_by_a_tenth_at_most() {
        let policy = Policy { retry_backoff: 2.0, ..Policy::default() };
        // Half of what is random is in the middle.
        let middle = |attempts, delay: i64| policy.delay_ms(attempts, u64::try_from(delay / 10).unwrap());
        assert_eq!([middle(1, 60_000), middle(2, 120_000), middle(3, 240_000)], [60_000, 120_000, 240_000]);
        assert_eq!(middle(500, 3_600_000), 3_600_000);
        for random in 0..30_000 {
            assert!((54_000..=66_000).contains(&policy.delay_ms(1, random * 7919)));
        }
        let none = Policy { retry_delay_ms: 0, ..Policy::default() };
        assert_eq!(none.delay_ms(3, 77), 0);
    }
}
