//! When the wall clock is not to be trusted with ageing records off (`design.md`, point 5, *Clock*).

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::index::StateKeyspace;
use crate::maintenance::Now;
use crate::state::{Change, StateKey};
use crate::store::{AppendError, Core};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// A larger step of the wall clock against the monotonic one is not believed at once.
const STEP_MS: i64 = DAY_MS;
/// A larger distance between the newest append and the start is not believed at once.
const ABSENCE_MS: i64 = 30 * DAY_MS;
/// How long records are kept then, in uptime: time enough to see it and set the clock.
const HOLD_MS: i64 = 24 * HOUR_MS;

/// Watches the wall clock: a dead clock battery must not age evidence off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockGuard {
    last: Now,
    held_until_ms: Option<i64>,
}

impl ClockGuard {
    /// At the first look after an opening. `newest_append_ms`: when, by the wall clock, the newest frame was appended;
    /// `held`: the last run ended while waiting, and the clock may be what it was then.
    #[must_use]
    pub fn start(now: Now, newest_append_ms: Option<i64>, held: bool) -> Self {
        let mut guard = Self { last: now, held_until_ms: None };
        let absence_ms = newest_append_ms.map_or(0, |newest| now.wall_ms.saturating_sub(newest));
        if absence_ms > ABSENCE_MS {
            guard.hold(now, "the clock is far past the newest record", absence_ms);
        } else if held {
            guard.hold(now, "the clock was not trusted when the store was closed", 0);
        }
        guard
    }

    /// Takes note of both clocks.
    pub fn observe(&mut self, now: Now) {
        let passed = now.up_ms.saturating_sub(self.last.up_ms);
        let step = now.wall_ms.saturating_sub(self.last.wall_ms).saturating_sub(passed);
        self.last = now;
        if step.saturating_abs() > STEP_MS {
            self.hold(now, "the clock was set, or the machine slept", step);
        }
        if self.held_until_ms.is_some_and(|until| until <= now.up_ms) {
            self.held_until_ms = None;
            tracing::info!("retention by time goes on, and tombstones go again");
        }
    }

    /// Until when, by the uptime, nothing may be aged off; `None` when the clock is trusted.
    #[must_use]
    pub fn held_until_ms(&self) -> Option<i64> {
        self.held_until_ms
    }

    fn hold(&mut self, now: Now, why: &str, by_ms: i64) {
        self.held_until_ms = Some(now.up_ms.saturating_add(HOLD_MS));
        let hours = by_ms / HOUR_MS;
        tracing::warn!(
            why,
            hours,
            "retention by time and the removal of tombstones wait for 24 hours of uptime; set the clock if it is wrong"
        );
    }
}

impl Core {
    /// Whether something may be aged off now, as all who do so have to ask; a change of that is kept. Takes note of both
    /// clocks.
    pub(crate) fn is_clock_trusted(&self, now: Now) -> Result<bool, AppendError> {
        let mut guard = self.clock_guard.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.clock_held.load(Ordering::Relaxed);
        let newest = Some(self.newest_append_ms).filter(|newest| *newest > 0);
        let guard = guard.get_or_insert_with(|| ClockGuard::start(now, newest, kept));
        guard.observe(now);
        let holds = guard.held_until_ms().is_some();
        if holds != kept {
            let key = StateKey::ClockHold.encode().into();
            let value = holds.then(|| Bytes::from_static(b"\x01"));
            self.change_wait(vec![(StateKeyspace::State, Change { key, value })], false)?;
            self.clock_held.store(holds, Ordering::Relaxed);
        }
        Ok(!holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(wall_ms: i64, up_ms: i64) -> Now {
        Now { wall_ms, up_ms }
    }

    #[test]
    fn a_clock_that_runs_along_is_trusted_for_a_year() {
        let mut guard = ClockGuard::start(now(1000, 0), None, false);
        for minutes in (0..365 * 24 * 60).step_by(5) {
            let up = minutes * 60_000;
            // A machine that sleeps eight hours now and then.
            let slept = up / (7 * DAY_MS) * (8 * HOUR_MS);
            guard.observe(now(1000 + up + slept, up));
            assert_eq!(guard.held_until_ms(), None, "minute {minutes}");
        }
    }

    #[test]
    fn a_step_of_more_than_a_day_either_way_waits_for_a_day_of_uptime() {
        for step in [STEP_MS + 1, -STEP_MS - 1, i64::MAX] {
            let mut guard = ClockGuard::start(now(0, 0), Some(0), false);
            guard.observe(now(5000, 5000));
            assert_eq!(guard.held_until_ms(), None);
            guard.observe(now(10_000_i64.saturating_add(step), 10_000));
            assert_eq!(guard.held_until_ms(), Some(10_000 + HOLD_MS), "{step}");
            let wall = 10_000_i64.saturating_add(step);
            guard.observe(now(wall.saturating_add(HOLD_MS - 1), 9_999 + HOLD_MS));
            assert!(guard.held_until_ms().is_some());
            guard.observe(now(wall.saturating_add(HOLD_MS), 10_000 + HOLD_MS));
            assert_eq!(guard.held_until_ms(), None);
        }
    }

    #[test]
    fn a_start_far_past_the_newest_record_waits_and_a_restart_waits_again() {
        assert_eq!(ClockGuard::start(now(ABSENCE_MS + 7, 3), Some(7), false).held_until_ms(), None);
        let held = ClockGuard::start(now(ABSENCE_MS + 8, 3), Some(7), false);
        assert_eq!(held.held_until_ms(), Some(3 + HOLD_MS));
        assert_eq!(
            ClockGuard::start(now(ABSENCE_MS + 8, 3), Some(ABSENCE_MS), true).held_until_ms(),
            Some(3 + HOLD_MS)
        );
        assert_eq!(ClockGuard::start(now(i64::MAX, 0), None, false).held_until_ms(), None, "an empty store");
    }
}
