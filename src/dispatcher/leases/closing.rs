//! How leases end: by a final status, by silence, given back, or by a person. Contract workers.md 5.1 to 5.3.

use std::sync::Arc;

use azulite_storage::index::IndexError;

use super::super::Dispatcher;
use super::super::dead::{self, DeadLetter, DeadParts, Outcome as DeadOutcome};
use super::super::follower::read_records;
use super::super::model::{self, BinaryEvent, Event, Model};
use super::super::pipeline::{ClosedTask, OwnLetter};
use super::super::topic::system_topic;
use super::attempt::Attempt;
use super::policy::Outcome;
use super::rows::{ID_MAX_BYTES, Job, Lease, Waiting, Work, job_prefix, lease_key};
use super::standing::Run;
use super::state::{CLOCK_SLACK_MS, Edit, Plan};
use crate::broker::{Append, AppendError, CreateTopicError, ReadError};
use crate::dispatcher::batches::Batches;

/// A heartbeat that comes within this part of a lease changes nothing.
const REFRESH_PART: i64 = 10;
/// Consumers of one event that a late status is looked for among.
const MOST_JOBS: usize = 1000;
/// What the names of consumers begin with that try again by themselves, and say so in their final status.
const SANDBOXES: &str = "sandbox-";
/// An event that ended so many runs of the process itself has no further one.
const CRASHES: u32 = 2;
/// The status of an event that filters kept back.
const FILTERED: &str = "filtered";
/// That of one whose record has gone: what is needed to run it is not there.
const GONE_STATUS: &str = "error-input";

/// How a run ended.
pub(super) struct Closing<'a> {
    pub(super) task: &'a ClosedTask,
    /// The process did not outlive it.
    pub(super) crashed: bool,
    /// The status is too old to be stored, and so is the event.
    pub(super) aged_off: bool,
    /// Its consumer has not said so: nobody heard of it.
    pub(super) silent: bool,
}

/// What statuses change, ready to be committed with them.
#[derive(Debug)]
pub(crate) struct Ending {
    plan: Plan,
    appends: Vec<Append>,
    ended: Ended,
}

impl Ending {
    /// The change itself, and the records that belong to it.
    pub(crate) fn take(self) -> (Plan, Vec<Append>, Ended) {
        (self.plan, self.appends, self.ended)
    }
}

/// What is to be done once statuses are stored.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    letters: Vec<DeadOutcome>,
    closed: u64,
    retried: Vec<String>,
}

/// What is gathered beside the rows.
#[derive(Default)]
pub(super) struct Gathered {
    /// Without their events, which are read when nobody waits for the lock.
    letters: Vec<(DeadLetter, Work)>,
    finished: Vec<Work>,
    closed: u64,
    retried: Vec<String>,
    /// Leases whose consumers gave a sign of life, and no more.
    heard: Vec<String>,
}

/// Whether a status says how a part of a plugin ended, which reports as `<name>-<part>` under the id that the plugin was
/// given: the event ends with the plugin's own status, which follows. None follows when a part was killed, so that status
/// ends the run.
fn is_of_part(task: &ClosedTask, work: &Work) -> bool {
    let part = task.author.strip_prefix(work.name.as_str()).is_some_and(|rest| rest.starts_with('-'));
    part && !matches!(task.status.as_str(), "error-timeout" | "error-out-of-memory")
}

impl Dispatcher {
    /// Plans what closing statuses change. Blocks on the index.
    ///
    /// # Errors
    /// The index failed, or the topic of dead letters cannot be made.
    pub(super) fn plan_closings(&self, closings: &[Closing<'_>], now_ms: i64) -> Result<Option<Ending>, PlanError> {
        if closings.is_empty() {
            return Ok(None);
        }
        let retries = closings.iter().any(|closing| Outcome::of(&closing.task.status) != Outcome::Finished);
        if retries {
            // Made before the lock is taken.
            self.topic(&self.dead_topic())?;
        }
        let mut gathered = Gathered::default();
        let keys: Vec<Vec<u8>> = closings.iter().map(|closing| lease_key(&closing.task.dequeued)).collect();
        let mut edit = self.leases.edit_closing(self.broker.log().as_ref(), &keys);
        for closing in closings {
            self.plan_closing(&mut edit, closing, now_ms, &mut gathered)?;
        }
        let plan = edit.finish();
        // In the order of deliveries, as every sign of life: behind one of them that ends the lease, it would be back.
        self.note_heartbeats(gathered.heard.iter().map(String::as_str), now_ms)?;
        let ending = self.with_letters(plan, gathered, now_ms)?;
        Ok(Some(ending).filter(|ending| !ending.plan.is_empty()))
    }

    /// What dead letters add to a change. Not under its lock: letters that a person is putting back are waited for.
    pub(super) fn with_letters(&self, mut plan: Plan, gathered: Gathered, now_ms: i64) -> Result<Ending, IndexError> {
        let Gathered { letters, finished, closed, retried, .. } = gathered;
        let mut parts = Vec::new();
        for (mut letter, work) in letters {
            self.fill(&mut letter, &work);
            parts.push(self.dead.record(&letter)?);
        }
        for Work { kafka_key, name, version, .. } in &finished {
            parts.extend(self.dead.succeeded(kafka_key, name, version)?);
        }
        let (mut batches, mut outcomes) = (Batches::default(), Vec::new());
        for DeadParts { values, records, outcome } in parts {
            plan.add(values);
            for record in records {
                if let Some(topic) = self.broker.log().topic(&record.topic) {
                    batches.push(&topic, now_ms, &record.key, record.value.as_deref());
                }
            }
            outcomes.push(outcome);
        }
        Ok(Ending { plan, appends: batches.finish(), ended: Ended { letters: outcomes, closed, retried } })
    }

    pub(super) fn dead_topic(&self) -> String {
        system_topic(&self.options.topic_prefix, dead::TOPIC)
    }

    fn plan_closing(
        &self,
        edit: &mut Edit<'_>,
        closing: &Closing<'_>,
        now_ms: i64,
        gathered: &mut Gathered,
    ) -> Result<(), IndexError> {
        let id = closing.task.dequeued.as_str();
        if id.len() > ID_MAX_BYTES {
            return Ok(());
        }
        let key = lease_key(id);
        if let Some(lease) = edit.get(&key)?.and_then(|bytes| Lease::read(&key, &bytes)) {
            if is_of_part(closing.task, &lease.work) {
                gathered.heard.push(lease.id);
                return Ok(());
            }
            gathered.closed += 1;
            edit.remove(key.clone());
            edit.count(&lease.work).leases -= 1;
            edit.run_ended(&lease.work, Run::of(closing, &lease, now_ms));
            return self.end_run(edit, &lease.work, closing, now_ms, gathered);
        }
        self.close_late(edit, closing, now_ms, gathered)
    }

    /// A status about a lease that has ended already: the first that says how the event ended counts.
    fn close_late(
        &self,
        edit: &mut Edit<'_>,
        closing: &Closing<'_>,
        now_ms: i64,
        gathered: &mut Gathered,
    ) -> Result<(), IndexError> {
        let ClosedTask { dequeued, kafka_key, status, .. } = closing.task;
        let jobs = edit.page(&job_prefix(kafka_key), MOST_JOBS)?;
        let of_job = |(_, bytes): (bytes::Bytes, bytes::Bytes)| Job::read(&bytes)?.ended.remove(dequeued);
        let Some(place) = jobs.into_iter().find_map(of_job) else {
            tracing::debug!(dequeued, status, "a final status about nothing that is open changes nothing");
            return Ok(());
        };
        if Outcome::of(status) == Outcome::Retry {
            tracing::info!(dequeued, status, "a late status: its run is counted as a failed one already");
            return Ok(());
        }
        let place = place.into_bytes();
        let Some(bytes) = edit.get(&place)? else { return Ok(()) };
        let (leased, work, waits) = match Lease::read(&place, &bytes) {
            Some(lease) => (Some(Run::of(closing, &lease, now_ms)), lease.work, false),
            None => {
                let Some(waiting) = Waiting::read(&place, &bytes) else { return Ok(()) };
                (None, waiting.work, !waiting.fresh)
            }
        };
        if is_of_part(closing.task, &work) {
            return Ok(());
        }
        gathered.closed += u64::from(leased.is_some());
        let delta = edit.count(&work);
        delta.leases -= i64::from(leased.is_some());
        delta.waiting -= i64::from(waits);
        if let Some(run) = leased {
            edit.run_ended(&work, run);
        }
        tracing::info!(dequeued, status, "a late status is taken for that of the event, which is not run again");
        edit.remove(place);
        self.end_run(edit, &work, closing, now_ms, gathered)
    }

    /// What follows for an event that is in no row any more.
    fn end_run(
        &self,
        edit: &mut Edit<'_>,
        work: &Work,
        closing: &Closing<'_>,
        now_ms: i64,
        gathered: &mut Gathered,
    ) -> Result<(), IndexError> {
        let task = closing.task;
        // Anybody can write such a member, and plugins send back what others wrote into an event.
        let letter = task.letter.as_deref().filter(|_| work.name.starts_with(SANDBOXES));
        let outcome = Outcome::of(&task.status);
        if outcome == Outcome::Finished || closing.aged_off {
            edit.remove_any(work.job_key())?;
            edit.count(work).finished += 1;
            gathered.finished.push(work.clone());
            return Ok(());
        }
        let mut job = edit.get(&work.job_key())?.and_then(|bytes| Job::read(&bytes)).unwrap_or_default();
        job.attempts.push(Attempt {
            time_ms: now_ms,
            status: task.status.clone(),
            error: task.error.clone(),
            message: task.message.clone(),
            runtime: task.runtime,
        });
        job.crashes += u32::from(closing.crashed);
        let policy = self.leases.policies.of(&work.name);
        let runs_left = u32::try_from(job.attempts.len()).is_ok_and(|runs| runs <= policy.max_attempts);
        if outcome == Outcome::Dead || letter.is_some() || !runs_left || job.crashes >= CRASHES {
            Self::bury_work(edit, work, job.attempts, letter, now_ms, gathered);
            return Ok(());
        }
        let delay_ms = policy.delay_ms(job.attempts.len(), self.leases.random());
        let attempt = u32::try_from(job.attempts.len()).unwrap_or(u32::MAX);
        let work = Work { attempt, ..work.clone() };
        let waiting = Waiting::new(work, now_ms.saturating_add(delay_ms), &task.dequeued);
        job.moved(&lease_key(&task.dequeued), &waiting.key);
        job.end(&task.dequeued, &waiting.key);
        edit.set((waiting.work.job_key(), Some(job.bytes())));
        edit.count(&waiting.work).waiting += 1;
        gathered.retried.push(waiting.work.name.clone());
        edit.put_waiting(&waiting);
        Ok(())
    }

    /// Makes a dead letter of an event that is in no row any more; `own` is what its consumer says of it.
    pub(super) fn bury_work(
        edit: &mut Edit<'_>,
        work: &Work,
        attempts: Vec<Attempt>,
        own: Option<&OwnLetter>,
        now_ms: i64,
        gathered: &mut Gathered,
    ) {
        edit.remove(work.job_key());
        edit.count(work).dead += 1;
        let (topic, partition, offset) = match &work.place {
            Some(place) => (place.topic.clone(), place.partition, place.offset),
            None => (String::new(), -1, -1),
        };
        let context = own.map(|own| own.context.clone()).unwrap_or_default();
        let attempts = own.map(|own| &own.attempts).filter(|own| !own.is_empty()).cloned().unwrap_or(attempts);
        let stage = own.map_or("", |own| own.stage.as_str());
        let stage = if stage.is_empty() { work.stage.clone() } else { stage.to_owned() };
        let status = attempts.last().map(|attempt| attempt.status.clone()).unwrap_or_default();
        let (name, version, key) = (work.name.clone(), work.version.clone(), &work.kafka_key);
        tracing::warn!(name, version, key, status, "an event is a dead letter");
        let letter = DeadLetter {
            id: dead::id_of(key, &name, &version, &stage),
            time_ms: now_ms,
            consumer: name,
            version,
            stage,
            attempts,
            topic,
            partition,
            offset,
            event: BinaryEvent::default(),
            context,
        };
        gathered.letters.push((letter, work.clone()));
    }

    /// The event of a letter, as whole as it can be had. Blocks on the log.
    fn fill(&self, letter: &mut DeadLetter, work: &Work) {
        if let Some(event) = self.whole_event(work) {
            letter.event = event;
            return;
        }
        letter.event = work.kept_event().unwrap_or_default();
        if letter.context.is_null() {
            letter.context =
                serde_json::json!({"event": "only what statuses carry: the event has gone from its topic"});
        }
    }

    /// The event as it is stored; `None` when it has gone. Blocks.
    pub(crate) fn whole_event(&self, work: &Work) -> Option<BinaryEvent> {
        let place = match &work.place {
            Some(place) if !work.is_whole() => place,
            Some(_) | None => return work.kept_event(),
        };
        let bytes = match self.stored_event(work) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(?place, %error, "a stored event cannot be read");
                return None;
            }
        };
        let Ok(Event::Binary(binary)) = model::decode_avro(Model::Binary, &bytes) else {
            tracing::warn!(?place, "a stored event cannot be read any more");
            return None;
        };
        Some(*binary)
    }

    /// The bytes of an event as they are stored; `None` when it has gone. Blocks.
    ///
    /// # Errors
    /// Its record cannot be read: that says nothing of whether it is there.
    pub(crate) fn stored_event(&self, work: &Work) -> Result<Option<bytes::Bytes>, ReadError> {
        let place = match &work.place {
            Some(place) if !work.is_whole() => place,
            Some(_) | None => return Ok(Some(work.event.clone())),
        };
        let log = self.broker.log();
        let Some(topic) = log.topic(&place.topic) else { return Ok(None) };
        let Some(partition) = topic.partition(place.partition) else { return Ok(None) };
        if place.offset < partition.offsets().log_start {
            return Ok(None);
        }
        let records = match read_records(log.as_ref(), partition, place.offset, place.offset + 1) {
            Ok((records, _)) => records,
            // Its topic was deleted meanwhile.
            Err(ReadError::Gone { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(record) = records.into_iter().find(|record| record.offset == place.offset) else { return Ok(None) };
        // Under that offset of a topic that was made anew lies something else.
        let is_it = |bytes: &bytes::Bytes| match model::look_avro(Model::Binary, bytes) {
            Ok((event, _)) => event.kafka_key() == work.kafka_key,
            Err(_) => false,
        };
        Ok(record.value.filter(|bytes| !bytes.is_empty() && is_it(bytes)))
    }

    /// What follows once statuses are stored.
    pub(crate) fn closings_stored(&self, ended: Ended, how: &str) {
        let Ended { letters, closed, retried } = ended;
        self.metrics.tracking_control.add([how], closed);
        self.metrics.tracking.at([super::FINISHED_ORIGIN]).add(-i64::try_from(closed).unwrap_or(0));
        retried.iter().for_each(|name| self.metrics.retries.inc([name]));
        letters.into_iter().for_each(|outcome| self.dead.committed(outcome));
    }

    /// Plans what the statuses of a request change, and notes its heartbeats. What fails here is logged; the leases end by
    /// themselves. Blocks on the index.
    pub(crate) fn note_statuses<'a>(
        &self,
        closed: &[ClosedTask],
        stored: impl Iterator<Item = &'a Event>,
        now_ms: i64,
    ) -> Option<Ending> {
        let alive = stored.filter_map(|event| {
            let Event::Status(status) = event else { return None };
            (status.entity.status == "heartbeat").then_some(status.entity.input.dequeued.as_str())
        });
        if let Err(error) = self.note_heartbeats(alive, now_ms) {
            tracing::warn!(%error, "heartbeats were not noted");
        }
        let closings: Vec<_> =
            closed.iter().map(|task| Closing { task, crashed: false, aged_off: false, silent: false }).collect();
        self.planned(&closings, now_ms)
    }

    /// Bytes of the event that a status ends a run of, when it may become a dead letter by it. Blocks on the index.
    pub(crate) fn letter_bytes(&self, status: &str, dequeued: &str, kafka_key: &str) -> usize {
        if dequeued.len() > ID_MAX_BYTES || Outcome::of(status) == Outcome::Finished {
            return 0;
        }
        let log = self.broker.log().as_ref();
        let row = |key: &[u8]| self.leases.row(log, key).ok().flatten();
        let work_of = |key: &[u8], bytes: bytes::Bytes| match Lease::read(key, &bytes) {
            Some(lease) => Some(lease.work),
            None => Waiting::read(key, &bytes).map(|waiting| waiting.work),
        };
        let key = lease_key(dequeued);
        let work = row(&key).and_then(|bytes| work_of(&key, bytes)).or_else(|| {
            let jobs = log.kv_page(&job_prefix(kafka_key), None, MOST_JOBS).ok()?;
            let place = jobs.into_iter().find_map(|(_, bytes)| Job::read(&bytes)?.ended.remove(dequeued))?;
            row(place.as_bytes()).and_then(|bytes| work_of(place.as_bytes(), bytes))
        });
        work.map_or(0, |work| work.event_bytes())
    }

    fn planned(&self, closings: &[Closing<'_>], now_ms: i64) -> Option<Ending> {
        self.plan_closings(closings, now_ms).unwrap_or_else(|error| {
            tracing::warn!(%error, "what statuses say of leases was not noted");
            self.metrics.tracking_control.inc(["errored"]);
            None
        })
    }

    fn note_heartbeats<'a>(&self, ids: impl Iterator<Item = &'a str>, now_ms: i64) -> Result<(), IndexError> {
        let mut ids = ids.filter(|id| !id.is_empty() && id.len() <= ID_MAX_BYTES).peekable();
        if ids.peek().is_none() {
            return Ok(());
        }
        let mut edit = self.leases.edit(self.broker.log().as_ref(), true);
        for id in ids {
            let key = lease_key(id);
            let Some(lease) = edit.get(&key)?.and_then(|bytes| Lease::read(&key, &bytes)) else { continue };
            self.heard(&mut edit, lease, now_ms);
        }
        self.queue_early(edit.finish());
        Ok(())
    }

    /// Makes a lease last longer.
    fn heard(&self, edit: &mut Edit<'_>, lease: Lease, now_ms: i64) {
        edit.heard(&lease.work, now_ms);
        let policy = self.leases.policies.of(&lease.work.name);
        let is_new = lease.heard_ms > now_ms.saturating_sub(policy.lease_ms / REFRESH_PART);
        if !is_new || lease.heard_ms > now_ms.saturating_add(CLOCK_SLACK_MS) {
            edit.put_lease(&lease.heard_at(policy, now_ms));
        }
    }

    /// Ends the leases of statuses that are too old to be stored. What fails here is logged; the leases end by themselves.
    /// Blocks for a commit when there are any.
    pub(crate) fn close_aged_off(&self, closed: &[ClosedTask]) {
        let closings: Vec<_> =
            closed.iter().map(|task| Closing { task, crashed: false, aged_off: true, silent: false }).collect();
        let Some(ending) = self.planned(&closings, self.now_ms()) else { return };
        let (plan, appends, ended) = ending.take();
        match self.commit_closing(plan, appends) {
            Ok(()) => self.closings_stored(ended, super::FINISHED),
            Err(error) => {
                tracing::warn!(%error, "the end of leases whose statuses are too old was not written down");
                self.metrics.tracking_control.add(["errored"], u64::try_from(closed.len()).unwrap_or(u64::MAX));
            }
        }
    }

    /// Plans that leases end and their events are at once to be handed out again, with nothing tried. Also says how many
    /// there were.
    pub(super) fn plan_release<'a>(
        &self,
        ids: impl Iterator<Item = &'a str>,
        now_ms: i64,
    ) -> Result<(Plan, u64), IndexError> {
        let mut edit = self.leases.edit(self.broker.log().as_ref(), true);
        let mut released = 0;
        for id in ids.filter(|id| id.len() <= ID_MAX_BYTES) {
            let key = lease_key(id);
            let Some(lease) = edit.get(&key)?.and_then(|bytes| Lease::read(&key, &bytes)) else { continue };
            let waiting = Waiting::new(lease.work, now_ms, id);
            edit.remove(key.clone());
            let delta = edit.count(&waiting.work);
            delta.leases -= 1;
            delta.waiting += 1;
            let mut job = edit.get(&waiting.work.job_key())?.and_then(|bytes| Job::read(&bytes)).unwrap_or_default();
            job.moved(&key, &waiting.key);
            // Its consumer may have it all the same, and say so: the first word counts.
            job.end(id, &waiting.key);
            edit.set((waiting.work.job_key(), Some(job.bytes())));
            edit.put_waiting(&waiting);
            released += 1;
        }
        self.metrics.tracking.at([super::FINISHED_ORIGIN]).add(-i64::try_from(released).unwrap_or(0));
        Ok((edit.finish(), released))
    }

    /// What becomes of waiting events that a filter keeps back from the request that took them. What it will never let
    /// through is deleted; the others wait on, and those kept back too often are dead letters. Blocks for a commit.
    ///
    /// # Errors
    /// See [`PlanError`]; they wait as they did.
    pub(crate) fn end_kept_back(self: &Arc<Self>, kept: Vec<KeptBack>, now_ms: i64) -> Result<(), PlanError> {
        if kept.is_empty() {
            return Ok(());
        }
        self.topic(&self.dead_topic())?;
        let log = self.broker.log().as_ref();
        let mut gathered = Gathered::default();
        // Counted by two requests of different order, so two changes.
        let (mut deleted, mut held) = (Vec::new(), Vec::new());
        kept.into_iter().for_each(|kept| if kept.is_deleted() { deleted.push(kept) } else { held.push(kept) });
        let mut given_up = Vec::new();
        let mut edit = self.leases.edit(log, true);
        for KeptBack { waiting, why, .. } in deleted {
            if edit.get(&waiting.key)?.is_none() {
                continue;
            }
            let Waiting { key, work, fresh, .. } = waiting;
            edit.remove(key);
            edit.remove(work.job_key());
            let delta = edit.count(&work);
            delta.deleted += 1;
            match fresh {
                true => delta.taken_in += 1,
                false => delta.waiting -= 1,
            }
            tracing::info!(
                name = work.name,
                version = work.version,
                key = work.kafka_key,
                why,
                "an event is not run again"
            );
            given_up.push(work);
        }
        self.give_up(edit.finish(), &given_up)?;
        let mut edit = self.leases.edit(log, false);
        for kept in held {
            if edit.get(&kept.waiting.key)?.is_some() {
                self.hold(&mut edit, kept, now_ms, &mut gathered)?;
            }
        }
        let (plan, appends, ended) = self.with_letters(edit.finish(), gathered, now_ms)?.take();
        if plan.is_empty() {
            return Ok(());
        }
        self.commit_closing(plan, appends)?;
        self.closings_stored(ended, FILTERED);
        Ok(())
    }

    /// Commits the end of events that are not run again, and says so of their dead letters. Blocks for it.
    fn give_up(&self, mut plan: Plan, works: &[Work]) -> Result<(), PlanError> {
        let mut outcomes = Vec::new();
        for Work { kafka_key, name, version, .. } in works {
            // Those have no records.
            if let Some(DeadParts { values, outcome, .. }) = self.dead.given_up(kafka_key, name, version)? {
                plan.add(values);
                outcomes.push(outcome);
            }
        }
        if plan.is_empty() {
            return Ok(());
        }
        self.commit_plan(plan)?;
        outcomes.into_iter().for_each(|outcome| self.dead.committed(outcome));
        Ok(())
    }

    fn hold(
        &self,
        edit: &mut Edit<'_>,
        KeptBack { mut waiting, why, kept, filters }: KeptBack,
        now_ms: i64,
        gathered: &mut Gathered,
    ) -> Result<(), IndexError> {
        let policy = self.leases.policies.of(&waiting.work.name);
        edit.remove(waiting.key.clone());
        // Others have had no look at it yet; one of them after another is one time.
        let first = waiting.not_for == 0;
        let same = first || waiting.not_for == filters;
        let counts = kept == Kept::Unread || (kept == Kept::Here && same);
        waiting.held += u32::from(counts);
        let may_end = kept == Kept::Unread || (kept == Kept::Here && !first);
        let is_over = may_end && waiting.held > policy.max_attempts && !waiting.fresh;
        if is_over || kept == Kept::Lost {
            let job = edit.get(&waiting.work.job_key())?.and_then(|bytes| Job::read(&bytes)).unwrap_or_default();
            let mut attempts = job.attempts;
            let attempt = Attempt {
                time_ms: now_ms,
                status: if kept == Kept::Lost { GONE_STATUS } else { FILTERED }.to_owned(),
                error: why,
                message: String::new(),
                runtime: 0.0,
            };
            attempts.push(attempt);
            edit.count(&waiting.work).waiting -= 1;
            Self::bury_work(edit, &waiting.work, attempts, None, now_ms, gathered);
            return Ok(());
        }
        // At once for requests with other filters, unless two different ones have kept it back.
        let (due_ms, not_for) = match same && kept != Kept::Unread {
            true => (now_ms, filters),
            false => (now_ms.saturating_add(policy.held_ms()), 0),
        };
        let unique = format!("{:x}", self.leases.random());
        let next = Waiting {
            fresh: waiting.fresh,
            held: waiting.held,
            held_by: why,
            not_for,
            ..Waiting::new(waiting.work, due_ms, &unique)
        };
        self.follow_move(edit, &next.work, &waiting.key, &next.key)?;
        edit.put_waiting(&next);
        Ok(())
    }
}

/// A waiting event that was not handed out to the request that took it.
#[derive(Debug)]
pub(crate) struct KeptBack {
    pub(crate) waiting: Waiting,
    /// The filter, or what else the matter was.
    pub(crate) why: String,
    pub(crate) kept: Kept,
    /// Those of the request.
    pub(crate) filters: u64,
}

impl KeptBack {
    /// Whether nobody is to get it any more, and nobody misses it.
    fn is_deleted(&self) -> bool {
        // What a person puts back has no place that can be lost.
        self.kept == Kept::ForGood || (self.kept == Kept::Lost && self.waiting.fresh)
    }
}

/// For whom a waiting event is kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Requests with these filters, and no other that is known.
    Here,
    /// These; others of the same name and version that ask for other events would get it.
    Elsewhere,
    /// It could not be read this time.
    Unread,
    /// No request will ever get it: a person or its source wanted it gone.
    ForGood,
    /// No request will ever get it: its record has gone, whatever the reason.
    Lost,
}

/// Why a change could not be planned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The topic of dead letters cannot be made.
    #[error("the topic of dead letters cannot be made: {0}")]
    Topic(#[from] CreateTopicError),
    /// It could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}
