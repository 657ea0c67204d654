//! The machines of all groups, run: requests are parked, time passes, what has to last becomes durable.
//!
//! A group is locked while its machine works and while what comes of that is queued, so that the log has it in the same
//! order. No lock is held while anybody waits.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use azulite_storage::clock;
use azulite_storage::index::IndexError;
use azulite_storage::membership::GroupMetadata;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::machine::{Effect, Effects, Group, Limits, WriteId};
use super::member::Millis;
use super::timers::Timers;
use super::{GroupError, JoinRequest, Joined, MemberRef, Options, SyncRequest, Synced};
use crate::broker::{Broker, GroupChanges, GroupPositions};

pub(super) type JoinTicket = oneshot::Sender<Result<Joined, GroupError>>;
pub(super) type SyncTicket = oneshot::Sender<Result<Synced, GroupError>>;
pub(super) type Machine = Group<JoinTicket, SyncTicket>;
type MachineEffects = Effects<JoinTicket, SyncTicket>;

/// The longest group id, in bytes.
const MAX_GROUP_ID: usize = 4_096;

/// The coordinator of all groups; cheap to clone. Its tasks end with the last clone.
#[derive(Clone)]
pub struct Coordinator {
    pub(super) shared: Arc<Shared>,
    _ends_tasks: Arc<DropGuard>,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coordinator")
    }
}

/// Wall time that never goes backwards.
struct Clock {
    started: Instant,
    started_ms: Millis,
}

impl Clock {
    fn now(&self) -> Millis {
        let passed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.started_ms.saturating_add(passed)
    }
}

/// One group.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) number: u64,
    pub(super) positions: Arc<GroupPositions>,
    run: Mutex<Run>,
}

pub(super) struct Run {
    pub(super) machine: Machine,
    armed: Option<Millis>,
}

impl Entry {
    pub(super) fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Groups by id.
pub(super) type Groups = HashMap<String, Arc<Entry>>;

pub(super) struct Shared {
    pub(super) broker: Broker,
    pub(super) options: Options,
    clock: Clock,
    groups: Mutex<Groups>,
    next_number: AtomicU64,
    timers: Timers,
    runtime: tokio::runtime::Handle,
    stopping: CancellationToken,
}

/// Whether an id may name a group.
pub(super) fn check_group_id(group: &str) -> Result<(), GroupError> {
    match group.is_empty() || group.len() > MAX_GROUP_ID {
        true => Err(GroupError::InvalidGroupId),
        false => Ok(()),
    }
}

impl Coordinator {
    /// Takes up the groups that were stored. Blocks on the disk; called within a runtime.
    ///
    /// # Errors
    /// The index failed.
    pub fn start(broker: Broker, options: Options) -> Result<Self, IndexError> {
        let stored = broker.log().group_metadata()?;
        let stopping = CancellationToken::new();
        let shared = Arc::new(Shared {
            broker,
            options,
            clock: Clock { started: Instant::now(), started_ms: clock::now_ms() },
            groups: Mutex::default(),
            next_number: AtomicU64::new(0),
            timers: Timers::default(),
            runtime: tokio::runtime::Handle::current(),
            stopping: stopping.clone(),
        });
        stored.into_iter().for_each(|(name, metadata)| shared.restore(name, metadata));
        shared.runtime.spawn(watch(shared.clone()));
        shared.runtime.spawn(expire_again_and_again(shared.clone()));
        Ok(Self { shared, _ends_tasks: Arc::new(stopping.drop_guard()) })
    }

    /// Ends it: whoever waits is told to try again elsewhere or later.
    pub fn stop(&self) {
        self.shared.stopping.cancel();
    }

    /// A member takes part in the next generation; waits for it.
    ///
    /// # Errors
    /// See [`GroupError`]; [`GroupError::MemberIdRequired`] is the answer to a first join that asks for it.
    /// # Cancel safety
    /// Dropping the future does not take the member out again.
    pub async fn join(&self, group: &str, mut request: JoinRequest) -> Result<Joined, GroupError> {
        check_group_id(group)?;
        let name = request.member.instance_id.as_ref().unwrap_or(&request.client_id);
        request.new_member_id = format!("{name}-{}", fresh_uuid());
        let (ticket, answer) = oneshot::channel();
        self.shared.with_new(group, |_, machine, now, out| machine.join(now, request, ticket, out))?;
        self.answer(answer).await
    }

    /// A member gets its assignment; waits for the leader, and until what the leader brings is durable.
    ///
    /// # Errors
    /// See [`GroupError`].
    /// # Cancel safety
    /// Dropping the future takes nothing back.
    pub async fn sync(&self, group: &str, request: SyncRequest) -> Result<Synced, GroupError> {
        check_group_id(group)?;
        let (ticket, answer) = oneshot::channel();
        let entry = self.shared.find(group).ok_or(GroupError::UnknownMemberId)?;
        self.shared.with(&entry, |machine, now, out| machine.sync(now, request, ticket, out));
        self.answer(answer).await
    }

    /// A member is alive.
    ///
    /// # Errors
    /// See [`GroupError`]; [`GroupError::RebalanceInProgress`] when it is to join again.
    pub fn heartbeat(&self, group: &str, member: &MemberRef, generation: i32) -> Result<(), GroupError> {
        check_group_id(group)?;
        let entry = self.shared.find(group).ok_or(GroupError::UnknownMemberId)?;
        // Deadlines only move later by it: nothing to set.
        entry.lock().machine.heartbeat(self.shared.clock.now(), member, generation)
    }

    /// Members leave. One answer each, in order.
    ///
    /// # Errors
    /// [`GroupError::InvalidGroupId`].
    pub fn leave(&self, group: &str, leaving: &[MemberRef]) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id(group)?;
        let Some(entry) = self.shared.find(group) else {
            return Ok(leaving.iter().map(|_| Err(GroupError::UnknownMemberId)).collect());
        };
        Ok(self.shared.with(&entry, |machine, now, out| machine.leave(now, leaving, out)))
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, GroupError>>) -> Result<T, GroupError> {
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or(Err(GroupError::CoordinatorNotAvailable)),
            () = self.shared.stopping.cancelled() => Err(GroupError::CoordinatorNotAvailable),
        }
    }
}

impl Shared {
    pub(super) fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }

    fn limits(&self) -> Limits {
        Limits {
            min_session_timeout_ms: self.options.min_session_timeout_ms,
            max_session_timeout_ms: self.options.max_session_timeout_ms,
            initial_rebalance_delay_ms: self.options.initial_rebalance_delay_ms,
            max_members: self.options.max_members,
            max_metadata_bytes: self.options.max_metadata_bytes,
        }
    }

    fn entry(&self, name: &str, machine: Machine) -> Arc<Entry> {
        Arc::new(Entry {
            name: name.to_owned(),
            number: self.next_number.fetch_add(1, Ordering::Relaxed),
            positions: self.broker.positions(name),
            run: Mutex::new(Run { machine, armed: None }),
        })
    }

    pub(super) fn restore(&self, name: String, metadata: GroupMetadata) {
        let entry = self.entry(&name, Group::restored(self.limits(), metadata, self.now()));
        let mut run = entry.lock();
        let deadline = run.machine.next_deadline();
        self.timers.arm(&entry, &mut run.armed, deadline);
        drop(run);
        // One that was made meanwhile knows more.
        self.groups().entry(name).or_insert(entry);
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        self.groups().get(name).cloned()
    }

    /// Works on a group, which is made when there is none.
    pub(super) fn with_new<T>(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(&Arc<Entry>, &mut Machine, Millis, &mut MachineEffects) -> T,
    ) -> Result<T, GroupError> {
        loop {
            let entry = {
                let mut groups = self.groups();
                let room = groups.len() < self.options.max_groups;
                match groups.get(name) {
                    Some(entry) => entry.clone(),
                    None if !room => return Err(GroupError::GroupMaxSizeReached),
                    None => {
                        let entry = self.entry(name, Group::new(self.limits(), self.now()));
                        groups.insert(name.to_owned(), entry.clone());
                        entry
                    }
                }
            };
            let run = entry.lock();
            // One that has died since has left the list as well.
            if !run.machine.is_dead() {
                return Ok(self.work(&entry, run, |machine, now, out| work(&entry, machine, now, out)));
            }
        }
    }

    /// Works on a group.
    pub(super) fn with<T>(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        work: impl FnOnce(&mut Machine, Millis, &mut MachineEffects) -> T,
    ) -> T {
        self.work(entry, entry.lock(), work)
    }

    fn work<T>(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        mut run: MutexGuard<'_, Run>,
        work: impl FnOnce(&mut Machine, Millis, &mut MachineEffects) -> T,
    ) -> T {
        let (now, mut effects) = (self.now(), Vec::new());
        let outcome = work(&mut run.machine, now, &mut effects);
        self.carry_out(entry, &mut run.machine, now, effects);
        let deadline = run.machine.next_deadline();
        self.timers.arm(entry, &mut run.armed, deadline);
        let blank = run.machine.is_blank();
        drop(run);
        if blank {
            self.forget_blank(entry);
        }
        outcome
    }

    /// Forgets a group nobody joined, unless somebody has begun to.
    fn forget_blank(&self, entry: &Arc<Entry>) {
        let mut groups = self.groups();
        let mut run = entry.lock();
        if run.machine.is_blank() {
            run.machine.kill(self.now());
            groups.remove(&entry.name);
        }
    }

    fn carry_out(self: &Arc<Self>, entry: &Arc<Entry>, machine: &mut Machine, now: Millis, effects: MachineEffects) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                // The client may have gone; it is a member all the same.
                Effect::Joined(ticket, answer) => drop(ticket.send(answer)),
                Effect::Synced(ticket, answer) => drop(ticket.send(answer)),
                Effect::Store(write, metadata) => {
                    if let Err(error) = self.store(entry, write, metadata) {
                        let mut more = Vec::new();
                        machine.stored(now, write, Err(error), &mut more);
                        effects.extend(more);
                    }
                }
            }
        }
    }

    /// Queues a group's metadata; the machine is told when it is durable.
    fn store(self: &Arc<Self>, entry: &Arc<Entry>, write: WriteId, metadata: GroupMetadata) -> Result<(), GroupError> {
        let (sender, outcome) = oneshot::channel();
        let changes = GroupChanges { metadata: Some(Some(metadata)), ..GroupChanges::default() };
        let done = Box::new(move |outcome: Result<_, _>| {
            // The task below waits for it.
            drop(sender.send(outcome.map(drop)));
        });
        if let Err(error) = self.broker.log().change_group(&entry.name, changes, done) {
            tracing::error!(group = entry.name, %error, "a group cannot be stored");
            return Err(GroupError::InvalidRequest);
        }
        let (shared, entry) = (self.clone(), entry.clone());
        self.runtime.spawn(async move {
            let outcome = match outcome.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => {
                    tracing::error!(group = entry.name, %error, "a group was not stored; its members try again");
                    Err(GroupError::CoordinatorNotAvailable)
                }
                Err(_) => Err(GroupError::CoordinatorNotAvailable),
            };
            shared.with(&entry, |machine, now, out| machine.stored(now, write, outcome, out));
        });
        Ok(())
    }
}

/// Looks at each group when its time has come, until the coordinator stops.
async fn watch(shared: Arc<Shared>) {
    loop {
        let now = shared.now();
        while let Some(entry) = shared.timers.due(now) {
            let mut run = entry.lock();
            run.armed = None;
            shared.work(&entry, run, |machine, now, out| machine.tick(now, out));
        }
        let wait = async {
            match shared.timers.next() {
                // One millisecond more, so that it is over when the clock is read.
                Some(next) => {
                    let left = u64::try_from(next.saturating_sub(shared.now())).unwrap_or(0);
                    tokio::time::sleep(Duration::from_millis(left + 1)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => {}
            () = shared.timers.sooner() => {}
            () = shared.stopping.cancelled() => return,
        }
    }
}

/// Looks for expired offsets from time to time, until the coordinator stops.
async fn expire_again_and_again(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(shared.options.expire_every) => {}
            () = shared.stopping.cancelled() => return,
        }
        let this = shared.clone();
        let expired = tokio::task::spawn_blocking(move || this.expire(clock::now_ms())).await;
        match expired {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(offsets)) => tracing::info!(offsets, "group offsets have expired"),
            Ok(Err(error)) => tracing::warn!(%error, "expired group offsets were not all removed"),
        }
    }
}

/// A random UUID, version 4.
fn fresh_uuid() -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = || std::hash::RandomState::new().build_hasher().finish();
    let (high, low) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}
