//! What waits to be committed: state first, then one lane per connection or job, round robin, bounded in bytes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::batch::CheckedBatch;
use crate::ids::{Offset, Sha256};
use crate::index::StateKeyspace;
use crate::partition::Partition;
use crate::state::Change;
use crate::store::AppendError;

/// Where one appended batch landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// When it was appended, milliseconds since 1970.
    pub append_time_ms: i64,
    /// True when the producer had sent it before: offset and time are those of then, and nothing was appended now.
    pub duplicate: bool,
    /// The first offset that the partition keeps.
    pub log_start: Offset,
}

/// Called once with the outcome, on a storage thread: it must be quick and must not call back into the store.
pub type Done = Box<dyn FnOnce(Result<Vec<Appended>, AppendError>) + Send>;

/// One batch for one partition.
#[derive(Debug)]
pub struct Append {
    /// The partition.
    pub partition: Arc<Partition>,
    /// The batch.
    pub batch: CheckedBatch,
}

/// A small blob for the log: the payload of its frame.
#[derive(Debug)]
pub(crate) struct InlineBlob {
    pub(crate) hash: Sha256,
    pub(crate) payload: Bytes,
}

/// What is committed together or not at all.
pub(crate) struct Request {
    pub(crate) appends: Vec<Append>,
    pub(crate) blobs: Vec<InlineBlob>,
    /// The same changes that the appended state batches hold, as index rows.
    pub(crate) changes: Vec<(StateKeyspace, Change)>,
    /// True when the reply waits for the blob catalogue too.
    pub(crate) catalogue: bool,
    /// True when it is answered after a sync in every mode.
    pub(crate) synced: bool,
    pub(crate) done: Done,
}

impl Request {
    pub(crate) fn bytes(&self) -> usize {
        let batches: usize = self.appends.iter().map(|a| a.batch.len() + 128).sum();
        batches + self.blobs.iter().map(|blob| blob.payload.len() + 128).sum::<usize>()
    }
}

/// Which requests give way to which: requests of one lane keep their order; lanes take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane(pub u64);

/// What producers touch: kept so small that they hardly ever meet on its lock.
#[derive(Default)]
struct Inner {
    /// In arrival order; no lane: state.
    arrived: Vec<(Option<Lane>, Request)>,
    /// Bytes of all that was pushed and is not committed.
    bytes: usize,
    closed: Option<AppendError>,
    /// True while the committer sleeps: only then it has to be woken.
    idle: bool,
    /// How many wait for room.
    waiting: usize,
}

/// The queue in front of the committer.
pub(crate) struct Queue {
    limit: usize,
    inner: Mutex<Inner>,
    filled: Condvar,
    room: Condvar,
}

/// What the committer gets.
pub(crate) struct Taken {
    /// State requests, then data requests in turn order. Empty when only time passed.
    pub(crate) requests: Vec<Request>,
    /// True when nothing more will come.
    pub(crate) closed: bool,
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::default(), filled: Condvar::new(), room: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request, or hands it back with the reason.
    #[expect(
        clippy::result_large_err,
        reason = "a refusal hands the request back, which is moved as often as otherwise"
    )]
    pub(crate) fn push(&self, lane: Option<Lane>, request: Request) -> Result<(), (Request, AppendError)> {
        let bytes = request.bytes();
        let mut inner = self.lock();
        if let Some(error) = &inner.closed {
            let error = error.clone();
            return Err((request, error));
        }
        if lane.is_some() && inner.bytes > 0 && inner.bytes + bytes > self.limit {
            let error = AppendError::Overloaded { queued_bytes: inner.bytes, limit_bytes: self.limit };
            return Err((request, error));
        }
        inner.bytes += bytes;
        inner.arrived.push((lane, request));
        let idle = std::mem::take(&mut inner.idle);
        drop(inner);
        if idle {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// [`Queue::push`], once there is room: for callers that hold no more than what they push.
    #[expect(
        clippy::result_large_err,
        reason = "a refusal hands the request back, which is moved as often as otherwise"
    )]
    pub(crate) fn push_when_room(&self, lane: Lane, mut request: Request) -> Result<(), (Request, AppendError)> {
        loop {
            request = match self.push(Some(lane), request) {
                Err((request, AppendError::Overloaded { .. })) => request,
                other => return other,
            };
            let bytes = request.bytes();
            let mut inner = self.lock();
            inner.waiting += 1;
            while inner.closed.is_none() && inner.bytes > 0 && inner.bytes + bytes > self.limit {
                inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
            inner.waiting -= 1;
        }
    }

    /// Waits for requests, at most until `until`, and takes up to `limit` bytes of them (the first one whatever its
    /// size). What was taken before counts as committed.
    pub(crate) fn take(&self, lanes: &mut Lanes, limit: usize, until: Option<Instant>) -> Taken {
        let mut inner = self.lock();
        inner.bytes -= std::mem::take(&mut lanes.taken_bytes);
        if inner.waiting > 0 {
            self.room.notify_all();
        }
        while inner.arrived.is_empty() && lanes.is_empty() && inner.closed.is_none() {
            inner.idle = true;
            inner = match until.map(|u| u.saturating_duration_since(Instant::now())) {
                None => self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Taken { requests: Vec::new(), closed: false },
                Some(left) => self.filled.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        inner.idle = false;
        let closed = inner.closed.is_some();
        std::mem::swap(&mut inner.arrived, &mut lanes.arrived);
        drop(inner);
        let requests = lanes.fill(limit);
        Taken { closed: requests.is_empty() && closed, requests }
    }

    /// Takes nothing more: later pushes get `reason`.
    pub(crate) fn close(&self, reason: AppendError) {
        self.lock().closed.get_or_insert(reason);
        self.filled.notify_all();
        self.room.notify_all();
    }

    /// Takes everything that has not reached the committer.
    pub(crate) fn drain(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().arrived).into_iter().map(|(_, request)| request).collect()
    }
}

/// The committer's side of the queue: whose turn it is among what did not fit into a commit.
#[derive(Default)]
pub(crate) struct Lanes {
    /// What came since the last commit; empty between two, its memory goes back and forth.
    arrived: Vec<(Option<Lane>, Request)>,
    state: VecDeque<Request>,
    /// The lanes that wait, each with its first request, in turn order.
    turn: VecDeque<(Lane, Request)>,
    /// What waits behind the first request of each of those lanes.
    behind: HashMap<Lane, VecDeque<Request>>,
    /// Bytes of the last commit.
    taken_bytes: usize,
}

impl Lanes {
    fn is_empty(&self) -> bool {
        self.state.is_empty() && self.turn.is_empty()
    }

    fn fill(&mut self, limit: usize) -> Vec<Request> {
        let arrived: usize = self.arrived.iter().map(|(_, request)| request.bytes()).sum();
        if self.is_empty() && arrived <= limit {
            self.taken_bytes = arrived;
            return self.everything();
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.drain(..).for_each(|(lane, request)| self.queue(lane, request));
        self.arrived = arrived;
        self.in_turn(limit)
    }

    /// All that came, state first: what the turns come to when nothing has to wait.
    fn everything(&mut self) -> Vec<Request> {
        let mut requests = Vec::with_capacity(self.arrived.len());
        let state = self.arrived.extract_if(.., |(lane, _)| lane.is_none());
        requests.extend(state.map(|(_, request)| request));
        requests.extend(self.arrived.drain(..).map(|(_, request)| request));
        requests
    }

    fn queue(&mut self, lane: Option<Lane>, request: Request) {
        match lane {
            None => self.state.push_back(request),
            Some(lane) => match self.behind.entry(lane) {
                Entry::Occupied(mut behind) => behind.get_mut().push_back(request),
                Entry::Vacant(none) => {
                    none.insert(VecDeque::new());
                    self.turn.push_back((lane, request));
                }
            },
        }
    }

    fn in_turn(&mut self, limit: usize) -> Vec<Request> {
        let mut requests = Vec::with_capacity(self.state.len() + self.turn.len());
        let mut bytes = 0_usize;
        let fits = |bytes: usize, next: &Request, empty: bool| empty || bytes.saturating_add(next.bytes()) <= limit;
        while self.state.front().is_some_and(|next| fits(bytes, next, requests.is_empty())) {
            let Some(next) = self.state.pop_front() else { break };
            bytes += next.bytes();
            requests.push(next);
        }
        while let Some((lane, next)) = self.turn.pop_front_if(|(_, next)| fits(bytes, next, requests.is_empty())) {
            bytes += next.bytes();
            requests.push(next);
            match self.behind.get_mut(&lane).and_then(VecDeque::pop_front) {
                Some(behind) => self.turn.push_back((lane, behind)),
                None => drop(self.behind.remove(&lane)),
            }
        }
        self.taken_bytes = bytes;
        requests
    }

    /// What the committer still holds when it ends before its time.
    pub(crate) fn drain(&mut self) -> Vec<Request> {
        self.in_turn(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;
    use crate::ids::{PartitionNumber, TopicPartition};

    fn request(size: usize) -> Request {
        let name = TopicPartition { topic: "t".into(), partition: 0 };
        let partition = Arc::new(Partition::new(PartitionNumber(2), name));
        let mut builder = BatchBuilder::default();
        builder.push(0, None, Some(&vec![0; size]));
        let appends = vec![Append { partition, batch: builder.build().unwrap() }];
        Request {
            appends,
            blobs: Vec::new(),
            changes: Vec::new(),
            catalogue: false,
            synced: false,
            done: Box::new(|_| {}),
        }
    }

    #[test]
    fn lanes_take_turns_and_state_goes_first() {
        let queue = Queue::new(1 << 20);
        for size in [1000, 1001, 1002] {
            queue.push(Some(Lane(1)), request(size)).map_err(|e| e.1).unwrap();
        }
        queue.push(Some(Lane(2)), request(2000)).map_err(|e| e.1).unwrap();
        queue.push(None, request(1)).map_err(|e| e.1).unwrap();
        let mut lanes = Lanes::default();
        let sizes = |taken: Taken| taken.requests.iter().map(|r| r.bytes() / 1000).collect::<Vec<_>>();
        assert_eq!(sizes(queue.take(&mut lanes, 4000, None)), [0, 1, 2], "state, lane 1, lane 2");
        queue.push(Some(Lane(3)), request(3000)).map_err(|e| e.1).unwrap();
        queue.push(None, request(1)).map_err(|e| e.1).unwrap();
        assert_eq!(sizes(queue.take(&mut lanes, 5000, None)), [0, 1, 3], "state, lane 1, lane 3");
        assert_eq!(sizes(queue.take(&mut lanes, 4000, None)), [1], "the rest of lane 1");
        queue.push(Some(Lane(1)), request(1000)).map_err(|e| e.1).unwrap();
        queue.push(None, request(1)).map_err(|e| e.1).unwrap();
        assert_eq!(sizes(queue.take(&mut lanes, 4000, None)), [0, 1], "state first, also when all fits");
        assert_eq!(queue.lock().bytes, lanes.taken_bytes, "nothing else is under way");
    }

    #[test]
    fn a_full_queue_refuses_data_by_numbers_but_takes_state() {
        let queue = Queue::new(1000);
        queue.push(Some(Lane(1)), request(5000)).map_err(|e| e.1).unwrap();
        let refused = queue.push(Some(Lane(2)), request(10)).map_err(|e| e.1);
        assert!(matches!(refused, Err(AppendError::Overloaded { limit_bytes: 1000, .. })), "got {refused:?}");
        queue.push(None, request(10)).map_err(|e| e.1).unwrap();
        queue.close(AppendError::Closed);
        let refused = queue.push(None, request(10)).map_err(|e| e.1);
        assert!(matches!(refused, Err(AppendError::Closed)), "got {refused:?}");
        let mut lanes = Lanes::default();
        assert_eq!(queue.take(&mut lanes, usize::MAX, None).requests.len(), 2, "what was taken in is still committed");
        assert!(queue.take(&mut lanes, usize::MAX, None).closed);
    }

    #[test]
    fn who_waits_for_room_gets_it_with_the_next_commit_or_hears_that_there_is_none() {
        let queue = Queue::new(1000);
        queue.push(Some(Lane(1)), request(900)).map_err(|e| e.1).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| queue.push_when_room(Lane(2), request(500)).map_err(|e| e.1));
            while queue.lock().waiting == 0 {
                std::thread::yield_now();
            }
            let mut lanes = Lanes::default();
            assert_eq!(queue.take(&mut lanes, usize::MAX, None).requests.len(), 1);
            assert_eq!(queue.take(&mut lanes, usize::MAX, None).requests.len(), 1, "what waited");
            assert_eq!(waiter.join().unwrap(), Ok(()));
            let waiter = scope.spawn(|| queue.push_when_room(Lane(2), request(900)).map_err(|e| e.1));
            while queue.lock().waiting == 0 {
                std::thread::yield_now();
            }
            queue.close(AppendError::Closed);
            assert_eq!(waiter.join().unwrap(), Err(AppendError::Closed));
        });
    }
}
