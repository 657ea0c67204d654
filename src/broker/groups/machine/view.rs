//! What a group looks like from outside.

use std::collections::BTreeSet;

use super::{Group, GroupState};
use crate::broker::groups::member::{Member, Millis};
use crate::broker::groups::request::{CLASSIC, GroupDescription, ListedGroup};
use crate::broker::groups::subscription;

/// Which offsets of a group may expire, and from when their age counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker::groups) enum Expiry {
    /// None.
    Never,
    /// All, from the later of their commit and this time.
    Since(Millis),
    /// All, from their commit.
    SinceCommit,
    /// Those of topics other than these, from their commit.
    Unsubscribed(BTreeSet<String>),
}

impl<J, S> Group<J, S> {
    #[cfg(test)]
    pub(in crate::broker::groups) fn state(&self) -> GroupState {
        self.state
    }

    pub(in crate::broker::groups) fn is_dead(&self) -> bool {
        self.state == GroupState::Dead
    }

    /// True for a group that nobody joined and nobody is about to join: nothing is lost when it is forgotten.
    pub(in crate::broker::groups) fn is_blank(&self) -> bool {
        self.state == GroupState::Empty && self.generation == 0 && self.pending.is_empty()
    }

    pub(in crate::broker::groups) fn is_empty(&self) -> bool {
        self.state == GroupState::Empty && self.pending.is_empty()
    }

    /// True while the members read a topic, or may do so.
    pub(in crate::broker::groups) fn reads(&self, topic: &str) -> bool {
        let consumers = self.protocol_type.as_deref() == Some(subscription::CONSUMER) && !self.members.is_empty();
        consumers && self.subscribed.as_ref().is_none_or(|topics| topics.contains(topic))
    }

    /// True for a group with members that are not consumers: what they read is not known.
    pub(in crate::broker::groups) fn has_other_members(&self) -> bool {
        self.protocol_type.as_deref() != Some(subscription::CONSUMER) && !self.members.is_empty()
    }

    pub(in crate::broker::groups) fn expiry(&self) -> Expiry {
        match (self.state, &self.subscribed) {
            (GroupState::Empty, _) if self.protocol_type.is_none() => Expiry::SinceCommit,
            (GroupState::Empty, _) => Expiry::Since(self.state_since),
            (GroupState::Stable, Some(topics)) => Expiry::Unsubscribed(topics.clone()),
            (GroupState::Stable, None) => Expiry::Never,
            (GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Dead, _) => Expiry::Never,
        }
    }

    pub(in crate::broker::groups) fn listed(&self, group: &str) -> ListedGroup {
        ListedGroup {
            group: group.to_owned(),
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            group_type: CLASSIC,
        }
    }

    pub(in crate::broker::groups) fn describe(&self) -> GroupDescription {
        let stable = self.state == GroupState::Stable;
        let protocol = self.protocol.as_deref().filter(|_| stable);
        let described = |member: &Member<J, S>| member.described(protocol);
        GroupDescription {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            generation: self.generation,
            members: self.members.values().map(described).collect(),
        }
    }
}
