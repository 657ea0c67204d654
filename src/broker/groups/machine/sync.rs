//! Syncing: the leader brings the assignments, everybody gets his own.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Effect, Effects, Group, GroupState, Write};
use crate::broker::groups::GroupError;
use crate::broker::groups::member::Millis;
use crate::broker::groups::request::SyncRequest;

impl<J, S> Group<J, S> {
    /// A member asks for its assignment.
    pub(in crate::broker::groups) fn sync(
        &mut self,
        now: Millis,
        request: SyncRequest,
        ticket: S,
        out: &mut Effects<J, S>,
    ) {
        if let Err(error) = self.check_sync(&request) {
            return out.push(Effect::Synced(ticket, Err(error)));
        }
        let id = request.member.member_id;
        self.unsynced.remove(&id);
        self.refresh(&id, now);
        let Some(member) = self.members.get_mut(&id) else { return };
        if self.state == GroupState::Stable {
            let assignment = member.assignment.clone();
            return out.push(Effect::Synced(ticket, Ok(self.synced(assignment))));
        }
        if let Some(earlier) = member.syncing.replace(ticket) {
            out.push(Effect::Synced(earlier, Err(GroupError::RebalanceInProgress)));
        }
        if self.is_leader(&id) && self.assigning.is_none() {
            let mut given: BTreeMap<String, Bytes> = request.assignments.into_iter().collect();
            let assignment = |id: &String| (id.clone(), given.remove(id).unwrap_or_default());
            let assignments = self.members.keys().map(assignment).collect();
            self.assigning = Some(self.store(Write::Assignments(assignments), out));
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(&request.member)?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let bytes: usize = request.assignments.iter().map(|(id, assignment)| id.len() + assignment.len()).sum();
        if bytes > self.limits.max_metadata_bytes {
            return Err(GroupError::InvalidRequest);
        }
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    /// The assignments are durable: everybody who waits gets his own.
    pub(super) fn become_stable(
        &mut self,
        now: Millis,
        mut assignments: BTreeMap<String, Bytes>,
        out: &mut Effects<J, S>,
    ) {
        self.assigning = None;
        self.assigned_generation = self.generation;
        self.enter(GroupState::Stable, now);
        let mut waiting = Vec::new();
        for member in self.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
            if let Some(ticket) = member.syncing.take() {
                member.refresh(now);
                waiting.push((ticket, member.assignment.clone()));
            }
        }
        out.extend(waiting.into_iter().map(|(ticket, assignment)| Effect::Synced(ticket, Ok(self.synced(assignment)))));
    }
}
