//! How fast the cleaner goes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{CleanError, Cleaner};

/// Work done ahead of the rate before it waits.
const SLACK: Duration = Duration::from_millis(20);

/// Spends bytes at a bounded rate and stops when the store closes.
pub(super) struct Pace<'a> {
    cleaner: &'a Cleaner,
    bytes_per_second: Option<u64>,
    /// When everything spent so far is paid for.
    paid: Cell<Instant>,
    /// Bytes read so far.
    read: Cell<u64>,
}

impl<'a> Pace<'a> {
    pub(super) fn new(cleaner: &'a Cleaner, bytes_per_second: Option<u64>) -> Self {
        Self { cleaner, bytes_per_second, paid: Cell::new(Instant::now()), read: Cell::new(0) }
    }

    /// [`Pace::spend`] for bytes of the log about to be read.
    pub(super) fn spend_on_reading(&self, bytes: u64) -> Result<(), CleanError> {
        self.read.set(self.read.get().saturating_add(bytes));
        self.spend(bytes)
    }

    /// Bytes of the log read so far.
    pub(super) fn read(&self) -> u64 {
        self.read.get()
    }

    /// Accounts for bytes about to be read or written, and waits when they come too fast.
    pub(super) fn spend(&self, bytes: u64) -> Result<(), CleanError> {
        if self.cleaner.stopped() {
            return Err(CleanError::Stopped);
        }
        let Some(rate) = self.bytes_per_second else { return Ok(()) };
        let now = Instant::now();
        let paid = self.paid.get().max(now) + Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
        self.paid.set(paid);
        let ahead = paid.saturating_duration_since(now);
        if ahead > SLACK {
            let idle = |signal: &mut super::Signal| !signal.stopped;
            let signal = self.cleaner.signal();
            drop(self.cleaner.work.wait_timeout_while(signal, ahead, idle));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_and_a_stop_ends_the_wait() {
        let cleaner = Cleaner::default();
        let pace = Pace::new(&cleaner, Some(1_000_000));
        let start = Instant::now();
        (0..10).for_each(|_| pace.spend(10_000).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
        cleaner.stop();
        assert!(matches!(pace.spend(u64::MAX), Err(CleanError::Stopped)));
    }
}
