//! The wall clock, read in this one place and passed on as a number, so that everything that depends on time can be
//! tested without waiting.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC. A clock set before 1970 reads as 0.
#[must_use]
pub fn now_ms() -> i64 {
    now_us() / 1000
}

/// Microseconds since 1970-01-01 UTC. A clock set before 1970 reads as 0.
#[must_use]
pub fn now_us() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
