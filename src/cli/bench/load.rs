//! The load: producers that each hand one record over, wait for its acknowledgement, and go on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Bounds, Case};

/// Where one producer waits for its acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Reply {
    outcome: Mutex<Option<Result<(), String>>>,
    given: Condvar,
}

impl Reply {
    pub(super) fn give(&self, outcome: Result<(), String>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.given.notify_one();
    }

    fn wait(&self) -> Result<(), String> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match outcome.take() {
                Some(outcome) => return outcome,
                None => outcome = self.given.wait(outcome).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// What takes records in.
pub(super) trait Target: Sync {
    /// A record as it is handed over.
    type Ready;

    /// Makes a record in a fresh buffer, as it would come from a socket. Not part of the latency.
    fn prepare(&self, producer: u16, value: &[u8]) -> Self::Ready;

    /// Hands a record over; `reply` hears when it is durable.
    fn submit(&self, producer: u16, ready: Self::Ready, reply: Arc<Reply>);
}

/// What the producers saw.
#[derive(Debug)]
pub(super) struct Seen {
    /// Records acknowledged per second.
    pub(super) rec_s: f64,
    /// Bytes of records acknowledged per second, in millions.
    pub(super) mb_s: f64,
    /// From handing a record over to its acknowledgement, sorted.
    pub(super) latencies: Vec<Duration>,
}

/// When the measured part begins and ends.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

/// Acknowledgements in the window: when the last one came, and how long each took.
struct Acks {
    last: Instant,
    latencies: Vec<Duration>,
}

/// Lets the producers of `case` run against `target` for as long as `bounds` says.
pub(super) fn run(target: &impl Target, case: Case, bounds: Bounds) -> anyhow::Result<Seen> {
    let from = Instant::now() + bounds.warm_up;
    let window = Window { from, until: from + bounds.measured };
    let left = AtomicU64::new(bounds.bytes);
    let acks = std::thread::scope(|scope| {
        let left = &left;
        let start = |producer| scope.spawn(move || produce(target, producer, case, window, left));
        let producers: Vec<_> = (0..case.producers).map(start).collect();
        producers.into_iter().map(|p| p.join().unwrap_or(Err("a producer panicked".to_owned()))).collect::<Vec<_>>()
    });
    let acks: Vec<Acks> = acks.into_iter().collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    let last = acks.iter().map(|a| a.last).max().unwrap_or(from);
    let mut latencies: Vec<Duration> = acks.into_iter().flat_map(|a| a.latencies).collect();
    latencies.sort_unstable();
    let seconds = last.duration_since(from).as_secs_f64().max(1e-9);
    let rec_s = f64::from(u32::try_from(latencies.len())?) / seconds;
    Ok(Seen { rec_s, mb_s: rec_s * f64::from(case.size_bytes) / 1e6, latencies })
}

fn produce(target: &impl Target, producer: u16, case: Case, window: Window, left: &AtomicU64) -> Result<Acks, String> {
    let value = noise(case.size_bytes, producer);
    let size = u64::from(case.size_bytes);
    let reply = Arc::new(Reply::default());
    let mut acks = Acks { last: window.from, latencies: Vec::with_capacity(1 << 12) };
    let more = || left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(size)).is_ok();
    while more() {
        let ready = target.prepare(producer, &value);
        let submitted = Instant::now();
        target.submit(producer, ready, reply.clone());
        reply.wait()?;
        let now = Instant::now();
        if now > window.until {
            break;
        }
        if submitted >= window.from {
            acks.latencies.push(now.duration_since(submitted));
            acks.last = now;
        }
    }
    Ok(acks)
}

/// Bytes without a pattern (xorshift), so that no layer below can shorten them.
fn noise(len: u32, seed: u16) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ u64::from(seed).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let len = usize::try_from(len).unwrap_or(0);
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}
