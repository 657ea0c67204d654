//! What members and strangers may do between rebalances: heartbeats, commits, leaving.

use super::{Effects, Group, GroupState};
use crate::broker::groups::GroupError;
use crate::broker::groups::member::Millis;
use crate::broker::groups::request::{Committer, MemberRef};

impl<J, S> Group<J, S> {
    /// A member is alive.
    ///
    /// # Errors
    /// [`GroupError::RebalanceInProgress`]: it is to join again.
    pub(in crate::broker::groups) fn heartbeat(
        &mut self,
        now: Millis,
        member: &MemberRef,
        generation: i32,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(member)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.refresh(&member.member_id, now);
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    /// Whether somebody may commit offsets now. The caller queues the commit before anything else is done to the group.
    ///
    /// # Errors
    /// ONE-GENERATION: [`GroupError::IllegalGeneration`] and its like.
    pub(in crate::broker::groups) fn check_commit(
        &mut self,
        now: Millis,
        committer: &Committer,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if committer.generation.is_none() && self.state == GroupState::Empty {
            return Ok(());
        }
        if committer.generation.is_some() && self.is_blank() {
            // Nobody ever joined: whatever generation this is, it is not of this group.
            return Err(GroupError::IllegalGeneration);
        }
        self.check_member(&committer.member)?;
        if committer.generation != Some(self.generation) {
            return Err(GroupError::IllegalGeneration);
        }
        self.refresh(&committer.member.member_id, now);
        match self.state {
            GroupState::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            // A generation nobody has an assignment of would be forgotten by a restart, and its commits not.
            GroupState::PreparingRebalance if self.generation != self.assigned_generation => {
                Err(GroupError::RebalanceInProgress)
            }
            GroupState::PreparingRebalance | GroupState::Stable => Ok(()),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    /// Members leave, or are sent away. One answer each, in order.
    pub(in crate::broker::groups) fn leave(
        &mut self,
        now: Millis,
        leaving: &[MemberRef],
        out: &mut Effects<J, S>,
    ) -> Vec<Result<(), GroupError>> {
        let before = (self.members.len(), self.pending.len());
        let answers = leaving.iter().map(|member| self.leave_one(member, out)).collect();
        if self.members.len() < before.0 {
            self.after_removal(now, out);
        } else if self.pending.len() < before.1 {
            self.maybe_complete_join(now, out);
        }
        answers
    }

    fn leave_one(&mut self, member: &MemberRef, out: &mut Effects<J, S>) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if self.pending.remove(&member.member_id).is_some() {
            return Ok(());
        }
        // A tool names a static member by its instance id alone.
        let instance = member.instance_id.as_ref().filter(|_| member.member_id.is_empty());
        let id = match instance {
            Some(instance) => self.instances.get(instance).ok_or(GroupError::UnknownMemberId)?.clone(),
            None => self.check_member(member)?.id.clone(),
        };
        self.remove(&id, &GroupError::UnknownMemberId, out);
        Ok(())
    }

    /// The group is to be deleted.
    ///
    /// # Errors
    /// [`GroupError::NonEmptyGroup`].
    pub(in crate::broker::groups) fn check_delete(&self) -> Result<(), GroupError> {
        match self.state {
            GroupState::Empty => Ok(()),
            GroupState::Dead => Err(GroupError::GroupIdNotFound),
            GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Stable => {
                Err(GroupError::NonEmptyGroup)
            }
        }
    }

    /// Ends the group. It is empty: nobody waits.
    pub(in crate::broker::groups) fn kill(&mut self, now: Millis) {
        self.pending.clear();
        self.writes.clear();
        self.enter(GroupState::Dead, now);
    }
}
