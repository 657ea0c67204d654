//! The one signal that ends a sandbox worker, and waits that it cuts short.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Set once. Whoever waits on it wakes at once.
#[derive(Debug, Default)]
pub(super) struct Stop {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// Counts [`Stop::nudge`]s, so that none is missed between a look and a wait.
    nudges: u64,
}

impl Stop {
    /// Ends everything.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// True after [`Stop::stop`].
    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Wakes those that wait in [`Stop::wait_for_news`].
    pub(super) fn nudge(&self) {
        let mut state = self.lock();
        state.nudges = state.nudges.wrapping_add(1);
        self.changed.notify_all();
    }

    /// What [`Stop::wait_for_news`] compares with.
    pub(super) fn nudges(&self) -> u64 {
        self.lock().nudges
    }

    /// Waits out `time`; true when stopped.
    pub(super) fn wait(&self, time: Duration) -> bool {
        self.wait_while(time, |_| true)
    }

    /// Waits until there were nudges since `seen`, at most `time`; true when stopped.
    pub(super) fn wait_for_news(&self, seen: u64, time: Duration) -> bool {
        self.wait_while(time, |state| state.nudges == seen)
    }

    fn wait_while(&self, time: Duration, goes_on: impl Fn(&State) -> bool) -> bool {
        let end = Instant::now().checked_add(time);
        let mut state = self.lock();
        while !state.stopped && goes_on(&state) {
            let left = end.map_or(time, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state =
                self.changed.wait_timeout(state, left).map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
        state.stopped
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
