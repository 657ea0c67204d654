//! One group of the classic protocol as a pure state machine: no clock, no I/O, no tasks.
//!
//! Time comes in with every call; what is to happen comes out as [`Effect`]s. A request that has to wait is a ticket
//! (`J` for joins, `S` for syncs) that the machine keeps and gives back exactly once with its answer. Keeps the law
//! ONE-GENERATION: whatever names another generation than the present one is refused. Contract kafka.md 4.1.
//!
//! | state | waits for | leaves it when |
//! |---|---|---|
//! | Empty | nothing | a member joins |
//! | PreparingRebalance | members to join | all have, or the largest rebalance time-out is over |
//! | CompletingRebalance | the leader's assignments | they are durable, or somebody comes or goes |
//! | Stable | nothing | somebody comes, goes or changes his mind |
//! | Dead | nothing | never |

mod join;
mod members;
mod sync;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use azulite_storage::membership::GroupMetadata;
use bytes::Bytes;

use super::member::{Member, Millis};
use super::request::{GroupState, Joined, JoinedMember, MemberRef, Synced};
use super::{GroupError, subscription};

pub(super) use view::Expiry;

/// What a group allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) min_session_timeout_ms: i32,
    pub(super) max_session_timeout_ms: i32,
    pub(super) initial_rebalance_delay_ms: i32,
    pub(super) max_members: usize,
    /// Bytes of metadata of all members, and of all assignments.
    pub(super) max_metadata_bytes: usize,
}

/// Names one write of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriteId(u64);

/// What is to happen. In the order given.
#[derive(Debug)]
pub(super) enum Effect<J, S> {
    /// Answer a join.
    Joined(J, Result<Joined, GroupError>),
    /// Answer a sync.
    Synced(S, Result<Synced, GroupError>),
    /// Make this durable, then call [`Group::stored`].
    Store(WriteId, GroupMetadata),
}

/// What a machine call adds its effects to.
pub(super) type Effects<J, S> = Vec<Effect<J, S>>;

/// What a write is for.
#[derive(Debug)]
enum Write {
    /// Nobody waits for it.
    Plain,
    /// The group becomes stable with these assignments.
    Assignments(BTreeMap<String, Bytes>),
    /// A static member is back and gets its answer.
    Return { member_id: String, leader: String, skip_assignment_understood: bool },
}

/// The wait for more members when the first one came to an empty group.
#[derive(Clone, Copy, Debug)]
struct InitialDelay {
    /// How much longer it may be extended.
    remaining_ms: Millis,
    /// True when somebody came since it was last extended.
    extend: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Group<J, S> {
    limits: Limits,
    state: GroupState,
    state_since: Millis,
    generation: i32,
    /// The last generation whose assignments became durable: an earlier one cannot come back, a later one can be lost.
    assigned_generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member<J, S>>,
    metadata_bytes: usize,
    /// Member id by instance id.
    instances: BTreeMap<String, String>,
    /// Ids given to members that have yet to come back, and when they are forgotten.
    pending: BTreeMap<String, Millis>,
    /// Topics of all consumers of this generation; `None` when that is not known.
    subscribed: Option<BTreeSet<String>>,
    /// When a rebalance stops waiting for joins.
    join_until: Millis,
    initial: Option<InitialDelay>,
    /// Members of this generation that have not asked for their assignment, and until when they may.
    unsynced: BTreeSet<String>,
    sync_until: Millis,
    next_write: u64,
    /// The write that makes the group stable.
    assigning: Option<WriteId>,
    writes: BTreeMap<WriteId, Write>,
}

impl<J, S> Group<J, S> {
    /// A group nobody has joined.
    pub(super) fn new(limits: Limits, now: Millis) -> Self {
        Self {
            limits,
            state: GroupState::Empty,
            state_since: now,
            generation: 0,
            assigned_generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            metadata_bytes: 0,
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            subscribed: None,
            join_until: 0,
            initial: None,
            unsynced: BTreeSet::new(),
            sync_until: 0,
            next_write: 0,
            assigning: None,
            writes: BTreeMap::new(),
        }
    }

    /// A group as it was stored. Its members have a whole session to be heard of.
    pub(super) fn restored(limits: Limits, stored: GroupMetadata, now: Millis) -> Self {
        let mut group = Self::new(limits, now);
        group.generation = stored.generation;
        group.assigned_generation = stored.generation;
        group.protocol_type = Some(stored.protocol_type).filter(|t| !t.is_empty());
        let protocol = stored.protocol.unwrap_or_default();
        for member in stored.members {
            let member = Member::restored(member, &protocol, now);
            group.metadata_bytes += member.metadata_bytes();
            if let Some(instance) = &member.instance_id {
                group.instances.insert(instance.clone(), member.id.clone());
            }
            group.members.insert(member.id.clone(), member);
        }
        group.state_since = if stored.state_since_ms < 0 { now } else { stored.state_since_ms };
        if let Some(first) = group.members.keys().next().cloned() {
            group.leader = Some(stored.leader.filter(|l| group.members.contains_key(l)).unwrap_or(first));
            group.protocol = Some(protocol);
            group.subscribed = group.subscribed_topics();
            group.state = GroupState::Stable;
        }
        group
    }

    fn enter(&mut self, state: GroupState, now: Millis) {
        self.state = state;
        self.state_since = now;
    }

    /// The member, if it is who it says it is.
    fn check_member(&self, member: &MemberRef) -> Result<&Member<J, S>, GroupError> {
        if let Some(instance) = &member.instance_id {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                // One that came back just before a restart is not the one that was stored: it may join anew.
                Some(id) if *id != member.member_id => match self.members.get(id) {
                    Some(stored) if !stored.heard_of => return Err(GroupError::UnknownMemberId),
                    Some(_) | None => return Err(GroupError::FencedInstanceId),
                },
                Some(_) => {}
            }
        }
        self.members.get(&member.member_id).ok_or(GroupError::UnknownMemberId)
    }

    fn refresh(&mut self, member_id: &str, now: Millis) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.refresh(now);
        }
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    fn rebalance_timeout(&self) -> Millis {
        self.members.values().map(|m| Millis::from(m.rebalance_timeout_ms.max(0))).max().unwrap_or(0)
    }

    /// Somebody came or changed: a rebalance begins, or the one under way may be complete.
    fn rebalance(&mut self, now: Millis, out: &mut Effects<J, S>) {
        match self.state {
            GroupState::PreparingRebalance => self.maybe_complete_join(now, out),
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => self.prepare(now, out),
            GroupState::Dead => {}
        }
    }

    fn prepare(&mut self, now: Millis, out: &mut Effects<J, S>) {
        self.reset_assignments(now, &GroupError::RebalanceInProgress, out);
        let first = self.state == GroupState::Empty;
        let (longest, delay) = (self.rebalance_timeout(), Millis::from(self.limits.initial_rebalance_delay_ms.max(0)));
        self.enter(GroupState::PreparingRebalance, now);
        self.join_until = now.saturating_add(longest);
        self.initial = None;
        if !first {
            return self.maybe_complete_join(now, out);
        }
        let delay = delay.min(longest);
        if delay == 0 {
            return self.complete_join(now, out);
        }
        self.join_until = now.saturating_add(delay);
        self.initial = Some(InitialDelay { remaining_ms: longest - delay, extend: false });
    }

    /// Whoever waits for an assignment does so in vain.
    fn reset_assignments(&mut self, now: Millis, error: &GroupError, out: &mut Effects<J, S>) {
        self.assigning = None;
        self.unsynced.clear();
        for member in self.members.values_mut() {
            if self.state == GroupState::CompletingRebalance {
                member.assignment = Bytes::new();
            }
            if let Some(ticket) = member.syncing.take() {
                member.refresh(now);
                out.push(Effect::Synced(ticket, Err(error.clone())));
            }
        }
    }

    fn maybe_complete_join(&mut self, now: Millis, out: &mut Effects<J, S>) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        let all_joined = self.pending.is_empty() && self.members.values().all(|m| m.joining.is_some());
        if self.members.is_empty() || (all_joined && self.initial.is_none()) {
            self.complete_join(now, out);
        }
    }

    /// The time for joins is over.
    fn join_due(&mut self, now: Millis, out: &mut Effects<J, S>) {
        if let Some(initial) = &mut self.initial
            && initial.extend
            && initial.remaining_ms > 0
        {
            let delay = Millis::from(self.limits.initial_rebalance_delay_ms).min(initial.remaining_ms);
            initial.remaining_ms -= delay;
            initial.extend = false;
            self.join_until = now.saturating_add(delay);
            return;
        }
        self.complete_join(now, out);
    }

    /// The next generation begins with whoever has joined, and with static members that are away.
    fn complete_join(&mut self, now: Millis, out: &mut Effects<J, S>) {
        let missing = self.members.values().filter(|m| m.joining.is_none() && m.instance_id.is_none());
        let missing: Vec<_> = missing.map(|m| m.id.clone()).collect();
        missing.iter().for_each(|id| self.remove(id, &GroupError::UnknownMemberId, out));
        self.initial = None;
        let first_joined = self.members.values().find(|m| m.joining.is_some()).map(|m| m.id.clone());
        let Some(first_joined) = first_joined else {
            if self.members.is_empty() {
                return self.become_empty(now, out);
            }
            // Only static members that are away: one of them comes back, or their sessions end.
            self.join_until = now.saturating_add(self.rebalance_timeout().max(1));
            return;
        };
        let leads = |id: &String| self.members.get(id).is_some_and(|m| m.joining.is_some());
        let leader = self.leader.take().filter(leads).unwrap_or(first_joined);
        self.leader = Some(leader);
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = Some(self.select_protocol());
        self.subscribed = self.subscribed_topics();
        self.enter(GroupState::CompletingRebalance, now);
        self.sync_until = now.saturating_add(self.rebalance_timeout());
        self.answer_joins(now, out);
    }

    fn answer_joins(&mut self, now: Millis, out: &mut Effects<J, S>) {
        let joined: Vec<_> = self.members.values().filter(|m| m.joining.is_some()).map(|m| m.id.clone()).collect();
        for id in joined {
            let answer = self.joined(&id, self.is_leader(&id), None);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.is_new = false;
            member.refresh(now);
            if let Some(ticket) = member.joining.take() {
                out.push(Effect::Joined(ticket, Ok(answer)));
            }
            self.unsynced.insert(id);
        }
    }

    fn become_empty(&mut self, now: Millis, out: &mut Effects<J, S>) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = None;
        self.leader = None;
        self.subscribed = None;
        self.enter(GroupState::Empty, now);
        self.store(Write::Plain, out);
    }

    fn store(&mut self, write: Write, out: &mut Effects<J, S>) -> WriteId {
        let id = WriteId(self.next_write);
        self.next_write += 1;
        let metadata = match &write {
            Write::Plain | Write::Return { .. } => self.metadata(|member| member.assignment.clone()),
            Write::Assignments(assignments) => {
                self.metadata(|member| assignments.get(&member.id).cloned().unwrap_or_default())
            }
        };
        self.writes.insert(id, write);
        out.push(Effect::Store(id, metadata));
        id
    }

    fn metadata(&self, assignment: impl Fn(&Member<J, S>) -> Bytes) -> GroupMetadata {
        let protocol = self.protocol.clone().unwrap_or_default();
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since_ms: self.state_since,
            members: self.members.values().map(|m| m.stored(&protocol, assignment(m))).collect(),
        }
    }

    /// A write has ended: durable, or refused with `error`.
    pub(super) fn stored(
        &mut self,
        now: Millis,
        write: WriteId,
        outcome: Result<(), GroupError>,
        out: &mut Effects<J, S>,
    ) {
        match self.writes.remove(&write) {
            Some(Write::Assignments(assignments)) if self.assigning == Some(write) => match outcome {
                Ok(()) => self.become_stable(now, assignments, out),
                Err(error) => {
                    self.reset_assignments(now, &error, out);
                    self.prepare(now, out);
                }
            },
            Some(Write::Return { member_id, leader, skip_assignment_understood }) => {
                self.answer_return(now, &member_id, leader, skip_assignment_understood, outcome, out);
            }
            Some(Write::Plain | Write::Assignments(_)) | None => {}
        }
    }

    /// Removes a member; whatever it waits for is answered with `error`.
    fn remove(&mut self, id: &str, error: &GroupError, out: &mut Effects<J, S>) {
        let Some(member) = self.members.remove(id) else { return };
        self.metadata_bytes = self.metadata_bytes.saturating_sub(member.metadata_bytes());
        self.unsynced.remove(id);
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance).is_some_and(|of| of == id)
        {
            self.instances.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        if let Some(ticket) = member.joining {
            out.push(Effect::Joined(ticket, Err(error.clone())));
        }
        if let Some(ticket) = member.syncing {
            out.push(Effect::Synced(ticket, Err(error.clone())));
        }
    }

    /// Members have gone.
    fn after_removal(&mut self, now: Millis, out: &mut Effects<J, S>) {
        match self.state {
            GroupState::PreparingRebalance => self.maybe_complete_join(now, out),
            GroupState::CompletingRebalance | GroupState::Stable => self.prepare(now, out),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    /// Does what time asks for.
    pub(super) fn tick(&mut self, now: Millis, out: &mut Effects<J, S>) {
        let before = self.pending.len();
        self.pending.retain(|_, until| *until > now);
        let expired = self.members.values().filter(|m| !m.is_held() && m.deadline <= now);
        let expired: Vec<_> = expired.map(|m| m.id.clone()).collect();
        expired.iter().for_each(|id| self.remove(id, &GroupError::UnknownMemberId, out));
        if !expired.is_empty() {
            self.after_removal(now, out);
        } else if self.pending.len() < before {
            self.maybe_complete_join(now, out);
        }
        if self.state == GroupState::PreparingRebalance && self.join_until <= now {
            self.join_due(now, out);
        }
        if !self.unsynced.is_empty() && self.sync_until <= now {
            let silent = std::mem::take(&mut self.unsynced);
            silent.iter().for_each(|id| self.remove(id, &GroupError::UnknownMemberId, out));
            self.after_removal(now, out);
        }
    }

    /// When [`Group::tick`] has to be called next. Between calls it only ever moves later by heartbeats and commits.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let members = self.members.values().filter(|m| !m.is_held()).map(|m| m.deadline).min();
        let pending = self.pending.values().copied().min();
        let join = (self.state == GroupState::PreparingRebalance).then_some(self.join_until);
        let sync = (!self.unsynced.is_empty()).then_some(self.sync_until);
        [members, pending, join, sync].into_iter().flatten().min()
    }

    /// The protocol most members prefer among those that all of them know; on a tie the one the leader prefers.
    fn select_protocol(&self) -> String {
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        let all = |name: &&String| self.members.values().all(|m| m.supports(name));
        let names = leader.into_iter().flat_map(|m| m.protocols.iter().map(|(name, _)| name));
        let candidates: Vec<&String> = names.filter(all).collect();
        let votes = |candidate: &String| {
            let choice = |m: &&Member<J, S>| {
                let mine = m.protocols.iter().map(|(name, _)| name);
                mine.into_iter().find(|name| candidates.contains(name)) == Some(candidate)
            };
            self.members.values().filter(choice).count()
        };
        // The first of the largest.
        let best = candidates.iter().rev().max_by_key(|candidate| votes(candidate));
        best.map(|name| (*name).clone()).unwrap_or_default()
    }

    fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        let protocol = self.protocol.as_deref()?;
        if self.protocol_type.as_deref() != Some(subscription::CONSUMER) {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.append(&mut subscription::topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    /// The answer to a member's join in the present generation. `leader` overrides who is said to lead.
    fn joined(&self, member_id: &str, with_members: bool, leader: Option<String>) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if with_members { self.members.values().collect() } else { Vec::new() };
        let members: Vec<JoinedMember> = members.iter().map(|m| m.as_joined(&protocol)).collect();
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            leader: leader.or_else(|| self.leader.clone()).unwrap_or_default(),
            member_id: member_id.to_owned(),
            protocol,
            members,
            skip_assignment: false,
        }
    }

    /// The answer to a member's sync in the present generation.
    fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment,
        }
    }
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
