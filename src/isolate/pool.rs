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

use super::worker::{Body, Deadline, TIDY_AFTER, Wire, Worker, is_shared};
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
    /// And a request goes to a child that is at work on one that is not too large, which has the next without waiting for
    /// it. Worth it when the pool has more callers than children.
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
    /// Those that work and take the next request already.
    at_work: Vec<Arc<Line>>,
    /// Calls that wait for a child, and how many of them need one that has nothing to do.
    waiting: usize,
    waiting_for_idle: usize,
    /// Those that work and those that do not, and those that are being started.
    alive: usize,
}

/// What the pool's thread is for.
enum Order {
    /// A new child is wanted there.
    Start(SyncSender<io::Result<Worker>>),
    /// A child that has nothing to do keeps memory for large bodies.
    Tidy,
}

/// How often a call that waits behind another one looks whether there is a child elsewhere.
const LOOK: Duration = Duration::from_millis(500);

/// A child at work, for the call that comes after the one that has it.
struct Line {
    wire: Arc<Wire>,
    /// The next request's.
    number: u64,
    handed: Mutex<Handed>,
    came: Condvar,
}

enum Handed {
    NotYet,
    /// `None`: it was lost.
    Over(Option<Worker>),
    /// Nobody waits for it any more.
    GivenUp,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Handed> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the child. The call that has it ends in time, and then hands it over. `None` if the child is lost, or if
    /// there is one `elsewhere` before that call has ended.
    fn turn(&self, elsewhere: impl Fn() -> bool) -> Option<Worker> {
        let mut handed = self.lock();
        loop {
            if let Handed::Over(worker) = &mut *handed {
                return worker.take();
            }
            let (held, waited) = self.came.wait_timeout(handed, LOOK).unwrap_or_else(PoisonError::into_inner);
            handed = held;
            if waited.timed_out() && matches!(*handed, Handed::NotYet) && elsewhere() {
                *handed = Handed::GivenUp;
                return None;
            }
        }
    }

    /// Gives the child to the call that waits for it; `None` says that it was lost. The child comes back if nobody waits: it
    /// is at work on what nobody wants.
    fn hand(&self, worker: Option<Worker>) -> Option<Worker> {
        let mut handed = self.lock();
        if matches!(*handed, Handed::GivenUp) {
            return worker;
        }
        *handed = Handed::Over(worker);
        self.came.notify_one();
        None
    }
}

/// What a call gets.
enum Place<'a> {
    /// A child that has nothing to do.
    First(Lease<'a>),
    /// The next turn of one that works.
    Next(Arc<Line>),
}

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
        let shared = self.shared.options.shared;
        let framed = frame::request(0, request, size, shared && is_shared(size));
        let framed = framed.ok_or(CallError::Garbled("the request is too long"))?;
        let mut piece = |bytes: &[u8]| piece(frame::value(bytes).ok_or(CallError::Garbled("a piece of it is none"))?);
        if !shared {
            return self.lease()?.first(framed, Body::Read(body, size), patience, &mut piece);
        }
        let mut held = Vec::new();
        if !is_shared(size) {
            held.resize(usize::try_from(size).unwrap_or_default(), 0);
            body.read_exact(&mut held).map_err(CallError::Source)?;
        }
        let mut left = None;
        loop {
            let body = match &mut left {
                _ if !is_shared(size) => Body::Held(&held),
                Some(left) => Body::Read(left, size),
                None => Body::Read(&mut *body, size),
            };
            match self.place(true)? {
                Place::First(lease) => return lease.first(framed, body, patience, &mut piece),
                Place::Next(line) => match self.next(&line, &framed, body, patience, &mut piece) {
                    Some(answer) => return answer,
                    None => left = Some(line.wire.left(line.number)),
                },
            }
        }
    }

    /// A call that has the next turn. `None` if the child is lost to the call before: there are others, and the body is still
    /// where it was left.
    fn next<A: DeserializeOwned>(
        &self,
        line: &Line,
        request: &[u8],
        body: Body<'_>,
        patience: Patience,
        piece: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Option<Result<A, CallError>> {
        let (size, begun) = (body.len(), Instant::now());
        let sent = line.wire.send(line.number, request.to_vec(), body, Deadline::new(patience.limit.into()));
        let Some(mut worker) = line.turn(|| self.has_room()) else {
            return match sent {
                Ok(()) | Err(CallError::Died) => None,
                Err(error) => Some(Err(error)),
            };
        };
        let mut lease = Lease { pool: self, worker: None, line: None, well: false };
        if let Err(error) = sent {
            // One whose body cannot be read was sent nothing.
            lease.well = matches!(error, CallError::Source(_));
            lease.worker = Some(worker);
            // It ended with the call before: not this one's fault, of which it has not had all.
            return if matches!(error, CallError::Died) { None } else { Some(Err(error)) };
        }
        worker.was_sent(line.number, size);
        lease.worker = Some(worker);
        // The wait for the call before is part of the time that this one has.
        let limit = patience.limit.saturating_sub(begun.elapsed());
        let mut answer = match limit.is_zero() {
            true => Err(CallError::TimedOut(limit)),
            false => lease.answer(Patience { limit, ..patience }, size <= frame::AHEAD_MAX, piece),
        };
        if let Err(CallError::TimedOut(told)) = &mut answer {
            *told = patience.limit;
        }
        Some(answer)
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

    /// Whether a call would get a child at once.
    fn has_room(&self) -> bool {
        let state = self.shared.lock();
        !state.idle.is_empty() || state.alive < self.shared.options.workers.max(1)
    }

    /// A child for one call: one that is free, a new one, or the next that becomes free.
    fn lease(&self) -> Result<Lease<'_>, CallError> {
        match self.place(false)? {
            Place::First(lease) => Ok(lease),
            Place::Next(_) => Err(CallError::Busy),
        }
    }

    /// As [`Self::lease`]; with `next`, the next turn of a child that works is as good, unless others wait for its end.
    fn place(&self, next: bool) -> Result<Place<'_>, CallError> {
        let until = Instant::now() + self.shared.options.wait;
        let mut state = self.shared.lock();
        loop {
            while let Some((mut worker, _)) = state.idle.pop() {
                // Not the next file's fault when it was ended while it had nothing to do.
                if worker.lives() {
                    let lease = Lease { pool: self, worker: Some(worker), line: None, well: false };
                    return Ok(Place::First(lease));
                }
                state.alive -= 1;
            }
            if state.alive < self.shared.options.workers.max(1) {
                state.alive += 1;
                drop(state);
                return self.started().map(Place::First);
            }
            if next
                && state.waiting_for_idle == 0
                && let Some(line) = state.at_work.pop()
            {
                return Ok(Place::Next(line));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CallError::Busy);
            }
            state.waiting += 1;
            state.waiting_for_idle += usize::from(!next);
            state = self.shared.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
            state.waiting_for_idle -= usize::from(!next);
        }
    }

    fn started(&self) -> Result<Lease<'_>, CallError> {
        // Without a worker it gives the place back.
        let mut lease = Lease { pool: self, worker: None, line: None, well: false };
        let (order, answered) = sync_channel(1);
        let stopped = || CallError::Start("the thread that starts children stopped".into());
        self.orders.send(Order::Start(order)).map_err(|_| stopped())?;
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
    /// Processor time after which a child is not used any more.
    fn worn(&self) -> Duration {
        Duration::from_secs(self.options.limits.cpu_seconds / 2)
    }

    /// Something changed that calls may wait for.
    fn tell(&self, state: &State) {
        if state.waiting > 0 {
            self.freed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the pool's thread does, until the pool is gone.
    fn keep(&self, orders: &Receiver<Order>) {
        let mut large = false;
        loop {
            let wait = if large { TIDY_AFTER.min(self.options.idle) } else { self.options.idle };
            match orders.recv_timeout(wait) {
                Ok(Order::Start(order)) => {
                    // Nobody waits any more: the child goes.
                    let Options { program, setup, shared, .. } = &self.options;
                    order.send(Worker::start(program, setup.clone(), *shared)).ok();
                }
                Ok(Order::Tidy) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.stop_idle(Instant::now());
            large = self.tidy_idle(Instant::now());
        }
    }

    /// Gives back what those keep that have nothing to do; whether some still keep it.
    fn tidy_idle(&self, now: Instant) -> bool {
        let mut large = false;
        for (worker, _) in &mut self.lock().idle {
            // One that does not take it is found dead by the next call.
            worker.tidy(now).ok();
            large |= worker.is_large();
        }
        large
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
    pool: &'a Pool,
    worker: Option<Worker>,
    /// Where the next call waits, if there is one.
    line: Option<Arc<Line>>,
    /// The child can take another call.
    well: bool,
}

impl Lease<'_> {
    /// A call that has a child with nothing to do. Where bodies are shared, the next one may send its request before the
    /// answer to this one is there.
    fn first<A: DeserializeOwned>(
        mut self,
        request: Vec<u8>,
        body: Body<'_>,
        patience: Patience,
        piece: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<A, CallError> {
        let next = self.pool.shared.options.shared && body.len() <= frame::AHEAD_MAX;
        self.worker.as_mut().ok_or(CallError::Died)?.begin(request, body, patience)?;
        self.answer(patience, next, piece)
    }

    /// The answer to what was sent.
    fn answer<A: DeserializeOwned>(
        mut self,
        patience: Patience,
        next: bool,
        piece: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<A, CallError> {
        if next {
            self.offer();
        }
        let worker = self.worker.as_mut().ok_or(CallError::Died)?;
        let answer = worker.finish(patience, piece)?;
        let babbles = worker.babbles();
        if babbles && !self.is_followed() {
            return Err(CallError::Garbled("something follows it"));
        }
        let answer = frame::value(&answer).ok_or(CallError::Garbled("it is no answer to this request"))?;
        self.free();
        Ok(answer)
    }

    /// The next request may be sent.
    fn offer(&mut self) {
        let Some(worker) = self.worker.as_ref().filter(|worker| worker.busy < self.pool.shared.worn()) else { return };
        let (wire, number) = (Arc::clone(&worker.wire), worker.number + 1);
        let line = Arc::new(Line { wire, number, handed: Mutex::new(Handed::NotYet), came: Condvar::new() });
        self.line = Some(Arc::clone(&line));
        let mut state = self.pool.shared.lock();
        state.at_work.push(line);
        self.pool.shared.tell(&state);
    }

    /// Whether another call counts on the child; from now on, none will that does not already.
    fn is_followed(&mut self) -> bool {
        let Some(line) = &self.line else { return false };
        let mut state = self.pool.shared.lock();
        let place = state.at_work.iter().position(|offered| Arc::ptr_eq(offered, line));
        if let Some(place) = place {
            state.at_work.swap_remove(place);
            self.line = None;
        }
        place.is_none()
    }

    /// The call went well.
    fn free(mut self) {
        self.well = true;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let shared = &self.pool.shared;
        let line = if self.is_followed() { self.line.take() } else { None };
        let mut worker = self.worker.take();
        let had = worker.is_some();
        if let Some(line) = line.as_ref().filter(|_| self.well) {
            match line.hand(worker.take()) {
                None => return,
                Some(unwanted) => drop(unwanted),
            }
        }
        let kept = worker.take_if(|worker| self.well && worker.busy < shared.worn());
        // A child that is not kept ends before there is another.
        drop(worker);
        shared.lost.fetch_add(u64::from(had && !self.well), Ordering::Relaxed);
        line.iter().for_each(|line| drop(line.hand(None)));
        let large = kept.as_ref().is_some_and(Worker::is_large);
        let mut state = shared.lock();
        match kept {
            Some(worker) => state.idle.push((worker, Instant::now())),
            None => state.alive -= 1,
        }
        shared.tell(&state);
        drop(state);
        if large {
            // Without its thread the pool is at its end.
            self.pool.orders.send(Order::Tidy).ok();
        }
    }
}
