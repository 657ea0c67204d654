//! Joining: who may, under which id, and what it changes.

use std::collections::BTreeSet;

use super::{Effect, Effects, Group, GroupState, Write};
use crate::broker::groups::GroupError;
use crate::broker::groups::member::{Member, Millis, metadata_bytes};
use crate::broker::groups::request::{JoinRequest, MemberRef};
use crate::broker::groups::subscription;

/// No text of a request is longer, in bytes.
const MAX_TEXT: usize = 8192;
/// A member knows at most so many protocols.
const MAX_PROTOCOLS: usize = 64;

/// What a join that is not refused does.
enum Admission {
    /// The member is given an id and comes back.
    Pending,
    /// A new member of this id.
    New(String),
    /// A static member takes the place of the one of this id.
    Replace(String),
    /// A member the group knows.
    Known,
}

impl<J, S> Group<J, S> {
    /// A member wants to take part in the next generation.
    pub(in crate::broker::groups) fn join(
        &mut self,
        now: Millis,
        request: JoinRequest,
        ticket: J,
        out: &mut Effects<J, S>,
    ) {
        match self.admit(&request) {
            Err(error) => out.push(Effect::Joined(ticket, Err(error))),
            Ok(Admission::Pending) => {
                let member_id = request.new_member_id;
                self.pending.insert(member_id.clone(), now.saturating_add(request.session_timeout_ms.into()));
                out.push(Effect::Joined(ticket, Err(GroupError::MemberIdRequired { member_id })));
            }
            Ok(Admission::New(id)) => self.add(now, id, request, ticket, out),
            Ok(Admission::Replace(old)) => self.replace(now, &old, request, ticket, out),
            Ok(Admission::Known) => self.rejoin(now, request, ticket, out),
        }
    }

    fn admit(&self, request: &JoinRequest) -> Result<Admission, GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_sizes(request)?;
        let (min_ms, max_ms) = (self.limits.min_session_timeout_ms, self.limits.max_session_timeout_ms);
        let asked_ms = request.session_timeout_ms;
        if !(min_ms..=max_ms).contains(&asked_ms) {
            return Err(GroupError::InvalidSessionTimeout { asked_ms, min_ms, max_ms });
        }
        self.check_room(request)?;
        let id = &request.member.member_id;
        let known = id.is_empty() || self.pending.contains_key(id) || self.members.contains_key(id);
        if !known && request.member.instance_id.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        if !self.is_compatible(request) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match &request.member.instance_id {
            Some(instance) if id.is_empty() => Ok(match self.instances.get(instance) {
                Some(old) => Admission::Replace(old.clone()),
                None => Admission::New(request.new_member_id.clone()),
            }),
            None if id.is_empty() && request.member_id_required => Ok(Admission::Pending),
            None if id.is_empty() => Ok(Admission::New(request.new_member_id.clone())),
            None if self.pending.contains_key(id) => Ok(Admission::New(id.clone())),
            Some(_) | None => self.check_member(&request.member).map(|_| Admission::Known),
        }
    }

    fn check_sizes(&self, request: &JoinRequest) -> Result<(), GroupError> {
        let instance = request.member.instance_id.as_ref().map_or(0, String::len);
        let own = [request.client_id.len(), request.client_host.len(), request.protocol_type.len(), instance];
        let protocols = request.protocols.iter().map(|(name, _)| name.len());
        let names: BTreeSet<_> = request.protocols.iter().map(|(name, _)| name).collect();
        let too_long = own.into_iter().chain(protocols).any(|len| len > MAX_TEXT);
        let before = self.members.get(&request.member.member_id).map_or(0, Member::metadata_bytes);
        let bytes = self.metadata_bytes.saturating_sub(before).saturating_add(metadata_bytes(&request.protocols));
        let too_much = request.protocols.len() > MAX_PROTOCOLS || bytes > self.limits.max_metadata_bytes;
        match too_long || too_much || names.len() < request.protocols.len() {
            true => Err(GroupError::InvalidRequest),
            false => Ok(()),
        }
    }

    /// While a rebalance is prepared those count who have joined, because the others may be gone.
    fn check_room(&self, request: &JoinRequest) -> Result<(), GroupError> {
        let member = self.members.get(&request.member.member_id);
        let instance = request.member.instance_id.as_ref();
        let replaces = instance.is_some_and(|i| self.instances.contains_key(i));
        let taken = match self.state {
            GroupState::PreparingRebalance if member.is_some_and(|m| m.joining.is_some()) => 0,
            GroupState::PreparingRebalance => self.members.values().filter(|m| m.joining.is_some()).count(),
            GroupState::CompletingRebalance | GroupState::Stable if member.is_some() => 0,
            GroupState::CompletingRebalance | GroupState::Stable => self.members.len(),
            GroupState::Empty | GroupState::Dead => 0,
        };
        let asks_for_id = request.member == MemberRef::default() && request.member_id_required;
        let full = taken >= self.limits.max_members && !replaces;
        match full || (asks_for_id && self.pending.len() >= self.limits.max_members) {
            true => Err(GroupError::GroupMaxSizeReached),
            false => Ok(()),
        }
    }

    fn is_compatible(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let shared = |name: &str| self.members.values().all(|m| m.supports(name));
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && request.protocols.iter().any(|(name, _)| shared(name))
    }

    fn add(&mut self, now: Millis, id: String, request: JoinRequest, ticket: J, out: &mut Effects<J, S>) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        let member = Member::new(id.clone(), request, now, ticket);
        self.metadata_bytes += member.metadata_bytes();
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, member);
        if let Some(initial) = &mut self.initial {
            initial.extend = true;
        }
        self.rebalance(now, out);
    }

    fn rejoin(&mut self, now: Millis, request: JoinRequest, ticket: J, out: &mut Effects<J, S>) {
        let id = request.member.member_id.clone();
        let Some(member) = self.members.get(&id) else {
            return out.push(Effect::Joined(ticket, Err(GroupError::UnknownMemberId)));
        };
        let (unchanged, leads) = (member.protocols == request.protocols, self.is_leader(&id));
        // It did not get the answer, or asks what it knows.
        let repeated = match self.state {
            GroupState::CompletingRebalance => unchanged,
            GroupState::Stable => unchanged && !leads,
            GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => false,
        };
        if repeated {
            self.refresh(&id, now);
            let with_members = leads && self.state == GroupState::CompletingRebalance;
            return out.push(Effect::Joined(ticket, Ok(self.joined(&id, with_members, None))));
        }
        self.park_join(&id, request, ticket, &GroupError::RebalanceInProgress, out);
        self.rebalance(now, out);
    }

    /// Takes over what a member says and keeps its ticket; one it had parked before is answered with `error`.
    fn park_join(&mut self, id: &str, request: JoinRequest, ticket: J, error: &GroupError, out: &mut Effects<J, S>) {
        let Some(member) = self.members.get_mut(id) else { return };
        self.metadata_bytes = self.metadata_bytes.saturating_sub(member.metadata_bytes());
        member.update(request);
        self.metadata_bytes += member.metadata_bytes();
        if let Some(earlier) = member.joining.replace(ticket) {
            out.push(Effect::Joined(earlier, Err(error.clone())));
        }
    }

    /// A static member is back under a new id: the old one is fenced.
    fn replace(&mut self, now: Millis, old: &str, request: JoinRequest, ticket: J, out: &mut Effects<J, S>) {
        let Some(mut member) = self.members.remove(old) else { return };
        let (id, skip_assignment_understood) = (request.new_member_id.clone(), request.skip_assignment_understood);
        let leader = self.leader.clone().unwrap_or_default();
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        if self.is_leader(old) {
            self.leader = Some(id.clone());
        }
        if self.unsynced.remove(old) {
            self.unsynced.insert(id.clone());
        }
        let protocol = self.protocol.clone().unwrap_or_default();
        let before = member.metadata(&protocol);
        if let Some(ticket) = member.syncing.take() {
            out.push(Effect::Synced(ticket, Err(GroupError::FencedInstanceId)));
        }
        member.id.clone_from(&id);
        self.members.insert(id.clone(), member);
        self.park_join(&id, request, ticket, &GroupError::FencedInstanceId, out);
        self.refresh(&id, now);
        let now_says = self.members.get(&id).map(|m| m.metadata(&protocol)).unwrap_or_default();
        let protocol_type = self.protocol_type.clone().unwrap_or_default();
        let unchanged = self.state == GroupState::Stable
            && self.select_protocol() == protocol
            && subscription::is_unchanged(&protocol_type, &before, &now_says);
        if unchanged {
            self.store(Write::Return { member_id: id, leader, skip_assignment_understood }, out);
        } else {
            self.rebalance(now, out);
        }
    }

    /// Answers a static member whose return is durable, or was refused. One that found a rebalance on its return waits
    /// for that.
    pub(super) fn answer_return(
        &mut self,
        now: Millis,
        member_id: &str,
        leader: String,
        skip_assignment_understood: bool,
        outcome: Result<(), GroupError>,
        out: &mut Effects<J, S>,
    ) {
        if self.state != GroupState::Stable {
            return;
        }
        let skip_assignment = skip_assignment_understood && self.is_leader(member_id);
        // One that cannot be told to skip must not believe that it leads.
        let named = (!skip_assignment_understood).then_some(leader);
        let mut answer = self.joined(member_id, skip_assignment, named);
        answer.skip_assignment = skip_assignment;
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.is_new = false;
        member.refresh(now);
        if let Some(ticket) = member.joining.take() {
            out.push(Effect::Joined(ticket, outcome.map(|()| answer)));
        }
    }
}
