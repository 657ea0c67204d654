//! Leases: events that were handed out on `active` and whose final status has not come yet, and those that wait for
//! another run.
//!
//! A lease is made in the commit that moves the position behind its event, and ends in the commit that stores the status
//! which closes it; with that commit the event is finished, waits in the `error` group of its consumer, or is a dead
//! letter. A heartbeat makes a lease last longer. One that nobody hears of ends by itself: its consumer's `error-network`
//! status and what follows from it are one commit too. [`state`] keeps the counts, [`handout`] makes leases, [`closing`]
//! ends them. Contract events.md 5.5.8, 6.1, 7.3, workers.md 5.

mod abandoned;
pub mod attempt;
mod closing;
mod handout;
mod ledger;
mod policy;
mod rows;
mod standing;
mod state;

use std::sync::Arc;

use azulite_storage::Done;
use azulite_storage::index::IndexError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Dispatcher;
use super::model::{self, Author, BinaryEvent, Event, EventOf, StatusEntity, StatusEvent, Text, Timestamp};
use super::pipeline::ClosedTask;
use super::publish;
use crate::broker::{Append, AppendError, LogStore, Value};

pub use abandoned::Buried;
pub use attempt::Attempt;
pub(crate) use closing::PlanError;
pub(super) use closing::{Ended, Ending, Kept, KeptBack};
pub(super) use handout::{From, HandedOut, NewLease};
pub use ledger::{Balance, balances};
pub use policy::{Policies, Policy};
pub use rows::{Lease, Place, Waiting, Work};
pub use standing::Standing;
pub use state::Leases;
pub(super) use state::{Due, Plan};

use closing::Closing;
use rows::PAGE;

/// Leases that one look ends at most; the next look goes on.
const LOST_AT_ONCE: usize = 10_000;
/// Bytes of stored events of which one commit makes dead letters, about: each is read, and written twice.
pub(super) const LETTERS_BYTES: usize = 16 << 20;
/// What upstream's dashboards call the process that looks for lost tasks.
const FINISHED_ORIGIN: &str = "lost-tasks";
/// How dashboards call a task that a status has closed; upstream counts the tries.
pub(super) const FINISHED: &str = "finished-0";
/// The status of a run whose consumer nobody heard of.
const LOST: &str = "error-network";

impl Work {
    /// What an event that is about to be handed out is to its consumer; `None` when it is no binary.
    ///
    /// `stored` is its record; with `whole` that is kept, because the topic may forget it sooner.
    pub(super) fn of<T: Text>(
        event: EventOf<T>,
        (name, version): (&str, &str),
        place: Place,
        stored: &Bytes,
        whole: bool,
    ) -> Option<Self> {
        let EventOf::Binary(mut binary) = event else { return None };
        // As statuses carry it, without what a redelivery sets.
        binary.entity.features.clear();
        binary.entity.datastreams.clear();
        binary.entity.info = model::JsonTextOf::default();
        Some(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            stage: String::new(),
            kafka_key: binary.kafka_key.to_string(),
            sha256: binary.entity.sha256.to_string(),
            attempt: 0,
            place: Some(place),
            whole,
            bytes: u32::try_from(stored.len()).unwrap_or(u32::MAX),
            event: if whole { stored.clone() } else { model::encode_avro(&EventOf::Binary(binary)).into() },
        })
    }
}

/// Hands over every lease whose id starts with `prefix`, in order of id. False from `take` ends it.
///
/// # Errors
/// The index failed.
pub fn each(log: &dyn LogStore, prefix: &str, mut take: impl FnMut(Lease) -> bool) -> Result<(), IndexError> {
    let mut read = |key: &[u8], bytes: &Bytes| Lease::read(key, bytes).is_none_or(&mut take);
    rows::each_row(log, &rows::lease_key(prefix), &mut read)
}

/// Hands over every event that waits for its next run by a consumer, in the order in which they are due. False from `take`
/// ends it.
///
/// # Errors
/// The index failed.
pub fn each_waiting(
    log: &dyn LogStore,
    name: &str,
    version: &str,
    mut take: impl FnMut(Waiting) -> bool,
) -> Result<(), IndexError> {
    let mut read = |key: &[u8], bytes: &Bytes| Waiting::read(key, bytes).is_none_or(&mut take);
    rows::each_row(log, &rows::waiting_prefix(name, version), &mut read)
}

/// How many leases a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Still open.
    pub open: u64,
    /// Ended by this look.
    pub ended: u64,
}

/// How many leases were given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Those that were open.
    pub released: u64,
    /// Those that were not.
    pub missing: u64,
}

/// Which leases a look ends, beside those of workers inside processes that have ended.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Those that were to end by then; `None` for all.
    pub by_ms: Option<i64>,
    /// Only those of the consumer of this name.
    pub name: Option<String>,
}

impl Ends {
    fn contains(&self, lease: &Lease, until_ms: i64) -> bool {
        self.by_ms.is_none_or(|ms| until_ms <= ms) && self.name.as_ref().is_none_or(|name| *name == lease.work.name)
    }
}

/// The status that its consumer would have sent had it noticed (7.3); `None` when the event cannot be read any more.
fn lost_status(lease: &Lease, now: Timestamp) -> Option<Event> {
    let mut input = lease.work.kept_event()?;
    input.dequeued = lease.id.clone();
    input.retries = lease.work.attempt;
    input.entity.features.clear();
    input.entity.datastreams.clear();
    input.entity.info = model::JsonText::default();
    let author = Author {
        name: lease.work.name.clone(),
        version: lease.work.version.clone(),
        category: "plugin".to_owned(),
        ..Author::default()
    };
    let entity =
        StatusEntity { input, status: LOST.to_owned(), error: lost_error(&lease.id), ..StatusEntity::default() };
    let mut event = Event::Status(Box::new(StatusEvent { timestamp: now, author, entity, ..StatusEvent::default() }));
    let key = model::kafka_key(&event, [0; 32]).ok()?;
    event.set_kafka_key(key);
    Some(event)
}

fn lost_error(id: &str) -> String {
    format!("lost task: {id}")
}

impl Leases {
    /// Puts an event into the `error` group of one consumer, due at once, with its attempts at 0: the values for the
    /// caller's commit, behind which [`Leases::requeued`] is to be called. With `expedite` it comes before all that wait.
    pub fn requeue(
        &self,
        event: &BinaryEvent,
        consumer: &str,
        version: &str,
        stage: &str,
        now_ms: i64,
        expedite: bool,
    ) -> Vec<Value> {
        let mut event = event.clone();
        event.dequeued.clear();
        event.retries = 0;
        let work = Work {
            name: consumer.to_owned(),
            version: version.to_owned(),
            stage: stage.to_owned(),
            kafka_key: event.kafka_key.clone(),
            sha256: event.entity.sha256.clone(),
            attempt: 0,
            place: None,
            event: model::encode_avro(&Event::Binary(Box::new(event))).into(),
            ..Work::default()
        };
        let key = work.job_key();
        let due_ms = if expedite { 0 } else { now_ms };
        let waiting = Waiting { fresh: true, ..Waiting::new(work, due_ms, &format!("{:016x}", self.random())) };
        // So that it is found when it is asked for again; no lease has an empty id.
        let mut job = rows::Job::default();
        job.end("", &waiting.key);
        vec![waiting.put(), (key, Some(job.bytes()))]
    }
}

/// Where an event is that is to be run again now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hastened {
    /// Nowhere: it is for the caller to put it there.
    No,
    /// It waited for its next run, which is due now.
    Due,
    /// That run is under way.
    Running,
}

impl Dispatcher {
    /// An event that waits for its next run by a consumer need not wait any longer; its attempts stay counted. One run of
    /// it is enough: with another row for it, it would come again behind its final status. Blocks for a commit.
    ///
    /// # Durability
    /// On `Ok` it is due, durably.
    /// # Errors
    /// See [`AppendError`].
    pub fn hasten(&self, kafka_key: &str, consumer: &str, version: &str) -> Result<Hastened, AppendError> {
        let (plan, found) = self.plan_haste(kafka_key, consumer, version).map_err(|error| {
            tracing::error!(%error, "the rows of waiting events cannot be read");
            AppendError::Closed
        })?;
        if !plan.is_empty() {
            self.commit_plan(plan)?;
            self.requeued(consumer, version);
        }
        Ok(found)
    }

    fn plan_haste(&self, kafka_key: &str, consumer: &str, version: &str) -> Result<(Plan, Hastened), IndexError> {
        let [name, version, kafka_key] = [consumer, version, kafka_key].map(str::to_owned);
        let of = Work { name, version, kafka_key, ..Work::default() };
        let mut edit = self.leases.edit(self.broker.log().as_ref(), true);
        let job = edit.get(&of.job_key())?.and_then(|bytes| rows::Job::read(&bytes)).unwrap_or_default();
        let places: std::collections::BTreeSet<String> = job.ended.into_values().collect();
        let mut found = Hastened::No;
        for key in places.into_iter().map(String::into_bytes) {
            let Some(bytes) = edit.get(&key)? else { continue };
            if key.starts_with(rows::LEASE) {
                found = Hastened::Running;
            } else if let Some(Waiting { work, fresh, held, held_by, .. }) = Waiting::read(&key, &bytes) {
                let new = Waiting::new(work, 0, &format!("{:016x}", self.leases.random()));
                let new = Waiting { fresh, held, held_by, ..new };
                edit.remove(key.clone());
                edit.put_waiting(&new);
                self.follow_move(&mut edit, &new.work, &key, &new.key)?;
                found = Hastened::Due;
            }
        }
        Ok((edit.finish(), found))
    }

    /// Commits a change in the order of deliveries. Blocks for it.
    fn commit_plan(&self, plan: Plan) -> Result<(), AppendError> {
        let log = self.broker.log().as_ref();
        self.commit_with(plan, |values, done| log.queue_kv(values, done))
    }

    /// Commits a change in the order of statuses, with its records. Blocks for it.
    fn commit_closing(&self, plan: Plan, appends: Vec<Append>) -> Result<(), AppendError> {
        let log = self.broker.log().as_ref();
        self.commit_with(plan, |values, done| log.append_with(self.leases.lane(), appends, values, done))
    }

    fn commit_with(&self, plan: Plan, push: impl FnOnce(Vec<Value>, Done)) -> Result<(), AppendError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.leases.queue(self.broker.log().as_ref(), vec![plan], |values, settle| {
            let done = move |outcome: Result<_, _>| {
                settle.tell(outcome.is_ok());
                drop(sender.send(outcome.map(drop)));
            };
            push(values, Box::new(done));
        });
        receiver.recv().unwrap_or(Err(AppendError::Closed))
    }

    /// What is leased and what waits for another run.
    pub fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }

    /// Behind a commit of [`Leases::requeue`]: whoever waits for events of that consumer is woken. Blocks on the index.
    pub fn requeued(&self, consumer: &str, version: &str) {
        self.leases.look_again(self.broker.log().as_ref(), consumer, version);
    }

    /// Gives leases back: their events wait for another request at once, and nothing counts as tried. Ids of which none is
    /// open are left out. Blocks for one commit.
    ///
    /// # Durability
    /// On `Ok` they are given back, durably.
    /// # Errors
    /// See [`AppendError`].
    pub fn release(&self, ids: &[&str]) -> Result<Released, AppendError> {
        let (plan, released) = self.plan_release(ids.iter().copied(), self.now_ms()).map_err(|error| {
            tracing::error!(%error, "leases cannot be read");
            AppendError::Closed
        })?;
        let missing = u64::try_from(ids.len()).unwrap_or(u64::MAX).saturating_sub(released);
        if released > 0 {
            self.commit_plan(plan)?;
        }
        Ok(Released { released, missing })
    }

    /// What workers inside this process still hold is given back: the process ends in good order. Blocks.
    pub fn release_own(&self) {
        let mut ids = Vec::new();
        let read = each(self.broker.log().as_ref(), "", |lease| {
            if lease.life == Some(self.leases.life) {
                ids.push(lease.id);
            }
            true
        });
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let released = read.map_err(|error| error.to_string());
        if let Err(error) = released.and_then(|()| self.release(&ids).map_err(|error| error.to_string())) {
            tracing::warn!(error, "what workers of this process hold was not given back");
        }
    }

    /// Goes through all leases, a page at a time, and ends those that `ends` names, and those of workers inside processes
    /// that have ended, with the status of 7.3 and a redelivery.
    ///
    /// # Errors
    /// The text of what failed; leases ended before stay ended.
    pub async fn look_for_lost_tasks(self: &Arc<Self>, ends: &Ends, now_ms: i64) -> Result<Looked, String> {
        let mut looked = Looked::default();
        let mut after: Option<Vec<u8>> = None;
        self.leases.begin_look();
        loop {
            let (this, wanted, from) = (self.clone(), ends.clone(), after.take());
            let read = tokio::task::spawn_blocking(move || this.lost_page(&wanted, from.as_deref(), now_ms)).await;
            let page = match read {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return self.look_failed(error.to_string()),
                Err(error) => return self.look_failed(error.to_string()),
            };
            looked.open += page.open;
            after = page.next.clone();
            match self.end_lost(page, (now_ms, ends.by_ms.is_none())).await {
                Ok(ended) => looked.ended += ended,
                Err(error) => return self.look_failed(error),
            }
            let enough = usize::try_from(looked.ended).is_ok_and(|ended| ended >= LOST_AT_ONCE);
            if after.is_none() || enough {
                break;
            }
        }
        match after {
            None => self.metrics.tracking.at([FINISHED_ORIGIN]).set(i64::try_from(looked.open).unwrap_or(i64::MAX)),
            Some(_) => self.leases.ends_at(now_ms),
        }
        Ok(looked)
    }

    fn look_failed(&self, error: String) -> Result<Looked, String> {
        self.leases.ends_at(i64::MIN);
        Err(error)
    }

    /// The leases of one page that are to end, the number of others, and where the next page begins.
    fn lost_page(&self, ends: &Ends, after: Option<&[u8]>, now_ms: i64) -> Result<LostPage, closing::PlanError> {
        let log = self.broker.log().as_ref();
        let rows = log.kv_page(rows::LEASE, after, PAGE)?;
        let mut next = rows.last().filter(|_| rows.len() >= PAGE).map(|(key, _)| key.to_vec());
        let (mut lost, mut ahead, mut open, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
        for (key, _) in &rows {
            let Some(lease) = self.leases.row(log, key)?.and_then(|bytes| Lease::read(key, &bytes)) else { continue };
            let gone = lease.life.is_some_and(|life| life != self.leases.life);
            // A shorter lease than before counts for those that are open, and one from before leases had an end has one.
            let silent_ms = lease.heard_ms.saturating_add(self.leases.policies.of(&lease.work.name).lease_ms);
            let until_ms = if lease.until_ms == 0 { silent_ms } else { lease.until_ms.min(silent_ms) };
            if gone || ends.contains(&lease, until_ms) {
                bytes += lease.work.event_bytes();
                lost.push((lease, gone));
                if bytes >= LETTERS_BYTES {
                    next = Some(key.to_vec());
                    break;
                }
            } else if lease.heard_ms > now_ms.saturating_add(state::CLOCK_SLACK_MS) {
                open += 1;
                ahead.push(key);
            } else {
                open += 1;
                self.leases.ends_at(until_ms);
            }
        }
        self.set_back(ahead.into_iter().map(AsRef::as_ref), now_ms)?;
        let tasks: Vec<ClosedTask> = lost.iter().map(|(lease, _)| closed_by_silence(lease)).collect();
        let crashed = lost.iter().map(|(_, crashed)| *crashed);
        let closings: Vec<_> = tasks
            .iter()
            .zip(crashed)
            .map(|(task, crashed)| Closing { task, crashed, aged_off: false, silent: true })
            .collect();
        let ending = self.plan_closings(&closings, now_ms)?;
        let lost = lost.into_iter().map(|(lease, _)| lease).collect();
        Ok(LostPage { lost, ending, open, next })
    }

    /// Leases that were made or heard of under a clock that was ahead begin now. Not waited for.
    fn set_back<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, now_ms: i64) -> Result<(), IndexError> {
        let mut edit = self.leases.edit(self.broker.log().as_ref(), true);
        for key in keys {
            let Some(lease) = edit.get(key)?.and_then(|bytes| Lease::read(key, &bytes)) else { continue };
            edit.put_lease(&lease.heard_at(self.leases.policies.of(&lease.work.name), now_ms));
        }
        self.queue_early(edit.finish());
        Ok(())
    }

    async fn end_lost(self: &Arc<Self>, page: LostPage, (now_ms, by_hand): (i64, bool)) -> Result<u64, String> {
        let LostPage { lost, ending, .. } = page;
        let Some(ending) = ending else { return Ok(0) };
        let now = Timestamp::from_millis(now_ms);
        let statuses = lost.iter().filter_map(|lease| lost_status(lease, now)).collect();
        let stored = publish::store_own(self.clone(), statuses, ending, now_ms).await;
        if let Err(error) = stored {
            self.metrics.tracking_control.add(["errored"], u64::try_from(lost.len()).unwrap_or(0));
            return Err(format!("the status of a lost task was not stored: {error:?}"));
        }
        for Lease { id, life, .. } in &lost {
            match (by_hand, life) {
                (true, _) => tracing::info!(id, "a lease was ended by hand"),
                (false, Some(_)) => tracing::warn!(id, "the process ended, and a worker in it, before its lease did"),
                (false, None) => tracing::info!(id, "a lease has ended: its consumer has not been heard of"),
            }
        }
        let count = u64::try_from(lost.len()).unwrap_or(0);
        self.metrics.lease_expired.add(count);
        Ok(count)
    }
}

fn closed_by_silence(lease: &Lease) -> ClosedTask {
    ClosedTask {
        dequeued: lease.id.clone(),
        kafka_key: lease.work.kafka_key.clone(),
        status: LOST.to_owned(),
        error: lost_error(&lease.id),
        ..ClosedTask::default()
    }
}

struct LostPage {
    lost: Vec<Lease>,
    ending: Option<Ending>,
    open: u64,
    next: Option<Vec<u8>>,
}

#[cfg(test)]
mod never_lost;
#[cfg(test)]
mod tests;
