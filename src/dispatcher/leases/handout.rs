//! Handing out: leases are made in the commit that moves the positions of what they are about. Contract workers.md 5.1.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::super::Dispatcher;
use super::super::reader::Taken;
use super::FINISHED_ORIGIN as ORIGIN;
use super::rows::{ID_MAX_BYTES, Job, Lease, Waiting, Work, each_row, json_row};
use super::state::{Edit, Plan, Settle};
use crate::broker::{AppendError, Appended, Value};

/// An event about to be handed out.
#[derive(Debug)]
pub(crate) struct NewLease {
    /// The id that its consumer will have.
    pub(crate) id: String,
    pub(crate) work: Work,
    pub(crate) from: From,
}

/// Where an event comes from that is about to be handed out.
#[derive(Debug)]
pub(crate) enum From {
    /// This subscription of the reader.
    Queue(usize),
    /// It waited for this run.
    Waiting(Box<Waiting>),
}

/// Leases whose events are on their way to a consumer. Dropped without [`HandedOut::delivered`], the events wait for
/// another request, and nothing was tried.
#[derive(Debug)]
pub(crate) struct HandedOut {
    dispatcher: Arc<Dispatcher>,
    leases: Vec<Lease>,
    /// The row that names them until they have arrived.
    row: Vec<u8>,
}

impl HandedOut {
    /// The consumer has them.
    pub(crate) fn delivered(mut self) {
        self.leases.clear();
        let done = |outcome: Result<_, AppendError>| {
            if let Err(error) = outcome {
                tracing::info!(%error, "it was not written down that events have arrived");
            }
        };
        self.dispatcher.broker.log().queue_kv(vec![(std::mem::take(&mut self.row), None)], Box::new(done));
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        if leases.is_empty() {
            return;
        }
        let ids = leases.iter().map(|lease| lease.id.as_str());
        match self.dispatcher.plan_release(ids, self.dispatcher.now_ms()) {
            Ok((mut plan, _)) => {
                plan.add(vec![(std::mem::take(&mut self.row), None)]);
                self.dispatcher.queue_early(plan);
            }
            Err(error) => tracing::warn!(%error, "events whose answer was lost wait until their leases end"),
        }
    }
}

/// Before the names of rows of leases that have not arrived yet.
const ON_THEIR_WAY: &[u8] = b"delivering\0";

fn on_their_way_key(number: u64) -> Vec<u8> {
    [ON_THEIR_WAY, format!("{number:016x}").as_bytes()].concat()
}

fn on_their_way<'a>(row: &[u8], leases: impl Iterator<Item = &'a Lease>) -> Value {
    let ids: Vec<&str> = leases.map(|lease| lease.id.as_str()).collect();
    json_row(row.to_vec(), &ids)
}

type Outcome = Result<(), AppendError>;

/// Waits for several commits.
struct Waits(Vec<Receiver<Outcome>>);

impl Waits {
    /// What tells it of one more.
    fn one_more(&mut self, settle: Settle) -> impl FnOnce(Result<Vec<Appended>, AppendError>) + Send + 'static {
        let (sender, receiver) = sync_channel(1);
        self.0.push(receiver);
        move |outcome| {
            settle.tell(outcome.is_ok());
            // Whoever waited may have gone.
            drop(sender.send(outcome.map(drop)));
        }
    }

    fn wait(self) -> Outcome {
        // All of them, also behind one that failed.
        let outcomes: Vec<Outcome> =
            self.0.into_iter().map(|receiver| receiver.recv().unwrap_or(Err(AppendError::Closed))).collect();
        outcomes.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }
}

impl Dispatcher {
    /// Makes leases of events that are about to be handed out; the positions of what was `taken` move with them. Blocks for
    /// one commit when there are any.
    ///
    /// # Durability
    /// On `Ok` they are durable, and so are the positions.
    /// # Errors
    /// See [`AppendError`]; nothing was handed out.
    pub(crate) fn hand_out(
        self: &Arc<Self>,
        new: Vec<NewLease>,
        taken: &mut Taken,
        in_process: bool,
    ) -> Result<Option<HandedOut>, AppendError> {
        if new.is_empty() {
            return Ok(None);
        }
        let now_ms = self.now_ms();
        let count = u64::try_from(new.len()).unwrap_or(0);
        let (mut by_queue, mut waited) = (BTreeMap::<usize, Vec<Lease>>::new(), Vec::new());
        for NewLease { id, work, from } in new {
            if id.len() > ID_MAX_BYTES {
                continue;
            }
            let policy = self.leases.policies.of(&work.name);
            let until_ms = now_ms.saturating_add(policy.lease_ms.min(policy.lease_max_ms));
            let life = in_process.then_some(self.leases.life);
            let lease = Lease { id, work, since_ms: now_ms, heard_ms: now_ms, until_ms, life };
            match from {
                From::Queue(index) => by_queue.entry(index).or_default().push(lease),
                From::Waiting(waiting) => waited.push((lease, *waiting)),
            }
        }
        let mut all: Vec<Lease> = by_queue.values().flatten().cloned().collect();
        let row = on_their_way_key(self.leases.random());
        let queues = taken.queues();
        let outcome = self.commit_leases(by_queue, waited, taken, &mut all, &row);
        if outcome.is_err() {
            taken.reread(&queues);
        }
        // With an error whatever of it became durable is given back.
        let handed_out = HandedOut { dispatcher: self.clone(), leases: all, row };
        self.metrics.tracking.at([ORIGIN]).add(i64::try_from(handed_out.leases.len()).unwrap_or(0));
        match outcome {
            Ok(()) => self.metrics.tracking_control.add(["started"], count),
            Err(_) => self.metrics.tracking_control.add(["errored"], count),
        }
        outcome.map(|()| Some(handed_out))
    }

    fn commit_leases(
        self: &Arc<Self>,
        by_queue: BTreeMap<usize, Vec<Lease>>,
        waited: Vec<(Lease, Waiting)>,
        taken: &mut Taken,
        all: &mut Vec<Lease>,
        row: &[u8],
    ) -> Outcome {
        let log = self.broker.log().as_ref();
        // Whatever of it becomes durable says which they are.
        let on_their_way = on_their_way(row, all.iter().chain(waited.iter().map(|(lease, _)| lease)));
        let mut waits = Waits(Vec::new());
        let mut of_queues: BTreeMap<usize, Plan> = BTreeMap::new();
        for (index, leases) in by_queue {
            let mut edit = self.leases.edit(log, true);
            for lease in &leases {
                edit.put_lease(lease);
                let delta = edit.count(&lease.work);
                delta.taken_in += 1;
                delta.leases += 1;
            }
            let mut plan = edit.finish();
            plan.add(vec![on_their_way.clone()]);
            of_queues.insert(index, plan);
        }
        if !waited.is_empty() {
            let mut edit = self.leases.edit(log, true);
            for (lease, waiting) in waited {
                if self.lease_waiting(&mut edit, &lease, &waiting).map_err(|error| index_failed(&error))? {
                    all.push(lease);
                }
            }
            let mut plan = edit.finish();
            plan.add(vec![on_their_way]);
            self.leases.queue(log, vec![plan], |values, settle| {
                log.queue_kv(values, Box::new(waits.one_more(settle)));
            });
        }
        let mut rest = Vec::new();
        for index in taken.queues() {
            match of_queues.remove(&index) {
                Some(plan) => self.leases.queue(log, vec![plan], |values, settle| {
                    self.commit_queue(taken, index, values, waits.one_more(settle));
                }),
                None => rest.push(index),
            }
        }
        // Nothing of theirs is handed out, but what was dropped of them is not looked at again either.
        for index in rest {
            let settle = self.leases.queue(log, Vec::new(), |_, settle| settle);
            self.commit_queue(taken, index, Vec::new(), waits.one_more(settle));
        }
        waits.wait()
    }

    fn commit_queue(
        &self,
        taken: &mut Taken,
        index: usize,
        values: Vec<Value>,
        done: impl FnOnce(Result<Vec<Appended>, AppendError>) + Send + 'static,
    ) {
        let log = self.broker.log().as_ref();
        if let Err((values, done)) = taken.commit(index, values, Box::new(done)) {
            // Somebody has moved the positions meanwhile: the events go out all the same.
            log.queue_kv(values, done);
        }
    }

    /// Makes a lease of an event that waited. False when it does not wait any more: a late status has ended it.
    fn lease_waiting(
        &self,
        edit: &mut Edit<'_>,
        lease: &Lease,
        waiting: &Waiting,
    ) -> Result<bool, azulite_storage::index::IndexError> {
        if edit.get(&waiting.key)?.is_none() {
            return Ok(false);
        }
        edit.remove(waiting.key.clone());
        edit.put_lease(lease);
        let delta = edit.count(&lease.work);
        delta.leases += 1;
        match waiting.fresh {
            true => delta.taken_in += 1,
            false => delta.waiting -= 1,
        }
        self.follow_move(edit, &lease.work, &waiting.key, &super::rows::lease_key(&lease.id))?;
        Ok(true)
    }

    /// Ids of ended leases mean the event where it is now.
    pub(super) fn follow_move(
        &self,
        edit: &mut Edit<'_>,
        work: &Work,
        from: &[u8],
        to: &[u8],
    ) -> Result<(), azulite_storage::index::IndexError> {
        let key = work.job_key();
        if let Some(mut job) = edit.get(&key)?.and_then(|bytes| Job::read(&bytes)) {
            job.moved(from, to);
            edit.set((key, Some(job.bytes())));
        }
        Ok(())
    }

    /// Gives back what an earlier process handed out without knowing that it has arrived. Blocks for a commit when there is
    /// any.
    ///
    /// # Errors
    /// The index failed.
    pub(crate) fn release_undelivered(&self) -> Result<(), azulite_storage::index::IndexError> {
        let (mut rows, mut ids) = (Vec::new(), Vec::<String>::new());
        each_row(self.broker.log().as_ref(), ON_THEIR_WAY, |key, bytes| {
            rows.push((key.to_vec(), None));
            ids.extend(serde_json::from_slice::<Vec<String>>(bytes).unwrap_or_default());
            true
        })?;
        if rows.is_empty() {
            return Ok(());
        }
        let (mut plan, released) = self.plan_release(ids.iter().map(String::as_str), self.now_ms())?;
        plan.add(rows);
        self.queue_early(plan);
        tracing::info!(released, "events that the last process was handing out are handed out again");
        Ok(())
    }

    /// Queues a change as deliveries are; not waited for.
    pub(super) fn queue_early(&self, plan: Plan) {
        if plan.is_empty() {
            return;
        }
        let log = self.broker.log().as_ref();
        self.leases.queue(log, vec![plan], |values, settle| {
            let done = move |outcome: Result<_, AppendError>| {
                settle.tell(outcome.is_ok());
                if let Err(error) = outcome {
                    tracing::warn!(%error, "a change of leases was not written down");
                }
            };
            log.queue_kv(values, Box::new(done));
        });
    }
}

fn index_failed(error: &azulite_storage::index::IndexError) -> AppendError {
    tracing::error!(%error, "the rows of waiting events cannot be read");
    AppendError::Closed
}
