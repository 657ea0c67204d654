//! How often a sandbox may be asked for what.
//!
//! Windows slide: in no span of a window's length are there more calls than its count. A server that counts in fixed
//! windows sees no more either, which a bucket that refills would not promise.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::options::Kind;
use super::stop::Stop;

/// Calls that a limit may allow in its window: the times of that many are remembered.
const COUNT_MAX: u32 = 100_000;

/// What is asked of a sandbox; limits are kept for each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    Capacity,
    Search,
    Create,
    Status,
    View,
    Report,
    Dropped,
    Screenshot,
    Pcap,
    Config,
    Delete,
}

impl Call {
    /// Every call.
    pub(super) const ALL: [Self; 11] = [
        Self::Capacity,
        Self::Search,
        Self::Create,
        Self::Status,
        Self::View,
        Self::Report,
        Self::Dropped,
        Self::Screenshot,
        Self::Pcap,
        Self::Config,
        Self::Delete,
    ];

    /// The name in `rate_limits`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Search => "search",
            Self::Create => "create",
            Self::Status => "status",
            Self::View => "view",
            Self::Report => "report",
            Self::Dropped => "dropped",
            Self::Screenshot => "screenshot",
            Self::Pcap => "pcap",
            Self::Config => "config",
            Self::Delete => "delete",
        }
    }

    /// What CAPE ships with (workers.md 3.2); Cuckoo has no limits.
    const fn shipped(self) -> &'static str {
        match self {
            Self::Create => "1/s, 2/min",
            Self::Status => "4/s",
            Self::View => "1/s, 10/min",
            Self::Report => "1/s, 6/min",
            Self::Dropped => "1/s, 20/min",
            Self::Search => "2/s, 10/min",
            Self::Config => "4/min",
            Self::Capacity | Self::Screenshot | Self::Pcap | Self::Delete => "5/min",
        }
    }
}

/// So many calls in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    count: u32,
    window: Duration,
}

/// The limits of one sandbox and what was used of them.
#[derive(Debug)]
pub(super) struct Rates {
    limits: BTreeMap<Call, Vec<Limit>>,
    /// When each call was made, oldest first, as far back as its longest window.
    made: Mutex<BTreeMap<Call, VecDeque<Instant>>>,
}

impl Rates {
    /// The shipped limits of a kind with those of `configured` in place of them: call -> text such as `1/s, 20/min`, an
    /// empty text for none. `default` stands for every call that is not named.
    ///
    /// # Errors
    /// Text for people, naming the key.
    pub(super) fn new(kind: Kind, configured: &BTreeMap<String, String>) -> Result<Self, String> {
        for name in configured.keys() {
            if name != "default" && !Call::ALL.iter().any(|call| call.name() == name) {
                let known: Vec<&str> = Call::ALL.iter().map(|call| call.name()).chain(["default"]).collect();
                return Err(format!("rate_limits: no call is named {name}, only {}", known.join(", ")));
            }
        }
        let mut limits = BTreeMap::new();
        for call in Call::ALL {
            let shipped = match kind {
                Kind::Cape => call.shipped(),
                Kind::Cuckoo => "",
            };
            let text = configured.get(call.name()).or_else(|| configured.get("default"));
            let parsed = parse(text.map_or(shipped, String::as_str));
            limits.insert(call, parsed.map_err(|reason| format!("rate_limits.{}: {reason}", call.name()))?);
        }
        Ok(Self { limits, made: Mutex::default() })
    }

    /// Waits until a call may be made and counts it; false when stopped first.
    pub(super) fn acquire(&self, call: Call, stop: &Stop) -> bool {
        loop {
            let Some(wait) = self.take(call, Instant::now()) else { return !stop.is_stopped() };
            if stop.wait(wait) {
                return false;
            }
        }
    }

    /// Counts a call at `now` when the limits allow it, else says how long to wait.
    fn take(&self, call: Call, now: Instant) -> Option<Duration> {
        let limits = self.limits.get(&call).map(Vec::as_slice).unwrap_or_default();
        if limits.is_empty() {
            return None;
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let times = made.entry(call).or_default();
        let longest = limits.iter().map(|limit| limit.window).max().unwrap_or_default();
        while times.front().is_some_and(|time| now.saturating_duration_since(*time) >= longest) {
            times.pop_front();
        }
        let wait = limits.iter().filter_map(|limit| {
            // The call that must have left the window before another one may come.
            let count = usize::try_from(limit.count).unwrap_or(usize::MAX);
            let oldest = times.len().checked_sub(count).and_then(|at| times.get(at))?;
            Some(limit.window.saturating_sub(now.saturating_duration_since(*oldest)))
        });
        let wait = wait.max().unwrap_or_default();
        if wait.is_zero() {
            times.push_back(now);
            return None;
        }
        Some(wait)
    }
}

/// Reads `1/s, 20/min`.
fn parse(text: &str) -> Result<Vec<Limit>, String> {
    let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    parts
        .map(|part| limit(part).ok_or_else(|| format!("{part} is no limit such as 1/s, 20/min, 100/h, 500/day")))
        .collect()
}

fn limit(part: &str) -> Option<Limit> {
    let (count, unit) = part.split_once('/')?;
    let count = count.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count))?;
    let seconds = match unit {
        "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" | "hour" => 3600,
        "d" | "day" => 86_400,
        _ => return None,
    };
    let window = Duration::from_secs(seconds);
    // Two calls may arrive closer together than they were sent.
    Some(Limit { count, window: window + window / 50 + Duration::from_millis(30) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(call: &str, text: &str) -> Rates {
        Rates::new(Kind::Cape, &BTreeMap::from([(call.to_owned(), text.to_owned())])).unwrap()
    }

    #[test]
    fn no_window_of_the_length_holds_more_than_the_count() {
        let rates = rates("create", "1/s, 3/min");
        let start = Instant::now();
        let mut now = start;
        let mut at = Vec::new();
        while at.len() < 10 {
            match rates.take(Call::Create, now) {
                None => at.push(now),
                Some(wait) => now += wait,
            }
        }
        for (first, fourth) in at.iter().zip(at.iter().skip(3)) {
            assert!(*fourth - *first > Duration::from_secs(60));
        }
        for (one, next) in at.iter().zip(at.iter().skip(1)) {
            assert!(*next - *one > Duration::from_secs(1));
        }
        assert!(at[9] - start < Duration::from_secs(200), "and it does not wait longer than needed");
    }

    #[test]
    fn calls_are_limited_on_their_own_and_no_text_means_no_limit() {
        let rates = rates("view", "");
        let now = Instant::now();
        assert_eq!(rates.take(Call::Create, now), None);
        assert!(rates.take(Call::Create, now).is_some());
        assert!((0..100).all(|_| rates.take(Call::View, now).is_none()));
    }

    #[test]
    fn default_stands_for_every_call_that_is_not_named() {
        let texts = BTreeMap::from([("default".to_owned(), "2/s".to_owned()), ("view".to_owned(), "1/s".to_owned())]);
        let rates = Rates::new(Kind::Cuckoo, &texts).unwrap();
        let now = Instant::now();
        assert!(rates.take(Call::View, now).is_none() && rates.take(Call::View, now).is_some());
        assert!((0..2).all(|_| rates.take(Call::Report, now).is_none()) && rates.take(Call::Report, now).is_some());
    }

    #[test]
    fn odd_limits_are_refused_by_name() {
        for (call, text) in
            [("create", "1"), ("create", "0/s"), ("create", "1/week"), ("create", "9999999/s"), ("make", "")]
        {
            let texts = BTreeMap::from([(call.to_owned(), text.to_owned())]);
            let refused = Rates::new(Kind::Cape, &texts).unwrap_err();
            assert!(refused.contains("rate_limits"), "{refused}");
        }
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_limit() {
        let (rates, stop) = (rates("create", "1/day"), Stop::default());
        assert!(rates.acquire(Call::Create, &stop));
        stop.stop();
        assert!(!rates.acquire(Call::Create, &stop));
    }
}
