//! The children: started on demand, a bounded number of them, stopped when there is nothing to do.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, io};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::worker::Worker;
use super::{CallError, Limits, Program, frame};

/// A pool's properties.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a child is.
    pub program: Program,
    /// What the program was told to keep to.
    pub limits: Limits,
    /// Children at once.
    pub workers: usize,
    /// How long a child may have nothing to do before it is stopped.
    pub idle: Duration,
    /// How long a call waits for a child that is free.
    pub wait: Duration,
    /// What every child is told before its first request.
    pub setup: Option<Arc<Vec<u8>>>,
    /// Large bodies go through memory that child and parent share, not through the socket: worth it above some megabytes.
    pub shared: bool,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the request to the whole answer.
    pub limit: Duration,
    /// Between two pieces of the answer.
    pub quiet: Option<Duration>,
}

impl From<Duration> for Patience {
    fn from(limit: Duration) -> Self {
        Self { limit, quiet: None }
    }
}

/// How many children there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Started.
    pub started: u64,
    /// Given up because a call went wrong.
    pub lost: u64,
}

/// A bounded number of child processes that answer one request each at a time.
///
/// Dropping it ends the children. A thread of its own starts them, because the kernel ends a child with the thread that
/// started it.
pub struct Pool {
    shared: Arc<Shared>,
    orders: Sender<Order>,
}

struct Shared {
    options: Options,
    state: Mutex<State>,
    /// A child became free, or there is room for another.
    freed: Condvar,
    started: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The one used last is at the end.
    idle: Vec<(Worker, Instant)>,
    /// Those that work and those that do not, and those that are being started.
    alive: usize,
}

/// Where a new child is wanted.
type Order = SyncSender<io::Result<Worker>>;

impl Pool {
    /// A pool without children.
    ///
    /// # Errors
    /// Its thread cannot be started.
    pub fn start(options: Options) -> io::Result<Self> {
        let counts = (AtomicU64::new(0), AtomicU64::new(0));
        let (state, freed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { options, state, freed, started: counts.0, lost: counts.1 });
        let (orders, received) = channel();
        let keeper = Arc::clone(&shared);
        thread::Builder::new().name("isolate".into()).spawn(move || keeper.keep(&received))?;
        Ok(Self { shared, orders })
    }

    /// Sends `request` and the `size` bytes of `body` to a child and waits for its answer, at most `limit`.
    ///
    /// Blocking. The whole body is read unless there is an error.
    ///
    /// # Errors
    /// [`CallError`]; whatever it is, the next call has a child that knows nothing of this one.
    pub fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        request: &Q,
        body: &mut dyn Read,
        size: u64,
        limit: Duration,
    ) -> Result<A, CallError> {
        self.call_in_pieces(request, body, size, limit.into(), &mut |()| Ok(()))
    }

    /// As [`Self::call`]; `piece` gets what comes before the answer, in order, and may end the call with an error.
    ///
    /// # Errors
    /// As [`Self::call`], and those of `piece`.
    pub fn call_in_pieces<Q: Serialize, P: DeserializeOwned, A: DeserializeOwned>(
        &self,
        request: &Q,
        body: &mut dyn Read,
        size: u64,
        patience: Patience,
        piece: &mut dyn FnMut(P) -> Result<(), CallError>,
    ) -> Result<A, CallError> {
        let mut lease = self.lease()?;
        let worker = lease.worker.as_mut().ok_or(CallError::Died)?;
        worker.number += 1;
        let Some(framed) = frame::request(worker.number, request, size, worker.shares(size)) else {
            lease.free();
            return Err(CallError::Garbled("the request is too long"));
        };
        let answer = worker.exchange(framed, body, size, patience, &mut |bytes| {
            piece(frame::value(bytes).ok_or(CallError::Garbled("a piece of it is none"))?)
        })?;
        let answer = frame::value(&answer).ok_or(CallError::Garbled("it is no answer to this request"))?;
        lease.free();
        Ok(answer)
    }

    /// Starts children until there are `count`, at most as many as the pool may have, and tells them what they are told
    /// first; the next calls have them at once.
    ///
    /// # Errors
    /// A child that cannot be started or does not take what it is told.
    pub fn warm(&self, count: usize) -> Result<(), CallError> {
        let mut ready = Vec::new();
        for _ in 0..count.min(self.shared.options.workers) {
            let mut lease = self.lease()?;
            lease.worker.as_mut().ok_or(CallError::Died)?.prepare()?;
            ready.push(lease);
        }
        ready.into_iter().for_each(Lease::free);
        Ok(())
    }

    /// How many children there were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { started: count(&self.shared.started), lost: count(&self.shared.lost) }
    }

    /// A child for one call: one that is free, a new one, or the next that becomes free.
    fn lease(&self) -> Result<Lease<'_>, CallError> {
        let until = Instant::now() + self.shared.options.wait;
        let mut state = self.shared.lock();
        loop {
            while let Some((mut worker, _)) = state.idle.pop() {
                // Not the next file's fault when it was ended while it had nothing to do.
                if worker.lives() {
                    return Ok(Lease { shared: &self.shared, worker: Some(worker), well: false });
                }
                state.alive -= 1;
            }
            if state.alive < self.shared.options.workers.max(1) {
                state.alive += 1;
                drop(state);
                return self.started();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CallError::Busy);
            }
            state = self.shared.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn started(&self) -> Result<Lease<'_>, CallError> {
        // Without a worker it gives the place back.
        let mut lease = Lease { shared: &self.shared, worker: None, well: false };
        let (order, answered) = sync_channel(1);
        let stopped = || CallError::Start("the thread that starts children stopped".into());
        self.orders.send(order).map_err(|_| stopped())?;
        let worker = answered.recv().map_err(|_| stopped())?.map_err(|error| CallError::Start(error.to_string()))?;
        self.shared.started.fetch_add(1, Ordering::Relaxed);
        lease.worker = Some(worker);
        Ok(lease)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pool").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The thread may hold its share for a moment longer.
        let idle = std::mem::take(&mut self.shared.lock().idle);
        drop(idle);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the pool's thread does, until the pool is gone.
    fn keep(&self, orders: &Receiver<Order>) {
        loop {
            match orders.recv_timeout(self.options.idle) {
                Ok(order) => {
                    // Nobody waits any more: the child goes.
                    let Options { program, setup, shared, .. } = &self.options;
                    order.send(Worker::start(program, setup.clone(), *shared)).ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.stop_idle(Instant::now());
        }
    }

    fn stop_idle(&self, now: Instant) {
        let mut state = self.lock();
        // Those that have waited longest are at the beginning.
        let idle = |since: &Instant| now.saturating_duration_since(*since) >= self.options.idle;
        let count = state.idle.iter().take_while(|(_, since)| idle(since)).count();
        let stopped: Vec<_> = state.idle.drain(..count).collect();
        state.alive -= count;
        drop(state);
        self.freed.notify_all();
        drop(stopped);
    }
}

/// A place among the children, and mostly the child that has it.
struct Lease<'a> {
    shared: &'a Shared,
    worker: Option<Worker>,
    /// The child can take another call.
    well: bool,
}

impl Lease<'_> {
    /// The call went well.
    fn free(mut self) {
        self.well = true;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let worn = Duration::from_secs(self.shared.options.limits.cpu_seconds / 2);
        match self.worker.take() {
            Some(worker) if self.well && worker.busy < worn => {
                self.shared.lock().idle.push((worker, Instant::now()));
            }
            Some(worker) => {
                drop(worker);
                self.shared.lost.fetch_add(u64::from(!self.well), Ordering::Relaxed);
                self.shared.lock().alive -= 1;
            }
            None => self.shared.lock().alive -= 1,
        }
        self.shared.freed.notify_one();
    }
}
