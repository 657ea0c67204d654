//! One member of a group in memory.

use azulite_storage::membership::StoredMember;
use bytes::Bytes;

use super::request::{DescribedMember, JoinRequest, JoinedMember, MemberRef};

/// Milliseconds since 1970 that never go backwards.
pub(super) type Millis = i64;

/// How long a new member's first join may wait: it knows no id yet, so that its silence says nothing.
pub(super) const NEW_MEMBER_JOIN_MS: Millis = 300_000;

/// A member; `J` and `S` stand for its parked join and sync requests.
#[derive(Debug)]
pub(super) struct Member<J, S> {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout_ms: i32,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// True until its first join is answered.
    pub(super) is_new: bool,
    /// False for a stored member until it calls for the first time since.
    pub(super) heard_of: bool,
    /// When it is taken for dead, unless it waits for us.
    pub(super) deadline: Millis,
    pub(super) joining: Option<J>,
    pub(super) syncing: Option<S>,
}

impl<J, S> Member<J, S> {
    pub(super) fn new(id: String, request: JoinRequest, now: Millis, ticket: J) -> Self {
        let rebalance_timeout_ms = request.rebalance_timeout_ms.unwrap_or(request.session_timeout_ms);
        Self {
            id,
            instance_id: request.member.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            is_new: true,
            heard_of: true,
            deadline: now.saturating_add(NEW_MEMBER_JOIN_MS),
            joining: Some(ticket),
            syncing: None,
        }
    }

    pub(super) fn restored(stored: StoredMember, protocol: &str, now: Millis) -> Self {
        let deadline = now.saturating_add(stored.session_timeout_ms.into());
        Self {
            id: stored.member_id,
            instance_id: stored.instance_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            session_timeout_ms: stored.session_timeout_ms,
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            protocols: vec![(protocol.to_owned(), stored.subscription)],
            assignment: stored.assignment,
            is_new: false,
            heard_of: false,
            deadline,
            joining: None,
            syncing: None,
        }
    }

    pub(super) fn stored(&self, protocol: &str, assignment: Bytes) -> StoredMember {
        StoredMember {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    pub(super) fn name(&self) -> MemberRef {
        MemberRef { member_id: self.id.clone(), instance_id: self.instance_id.clone() }
    }

    /// What it said under a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, m)| m.clone()).unwrap_or_default()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    pub(super) fn metadata_bytes(&self) -> usize {
        metadata_bytes(&self.protocols)
    }

    pub(super) fn as_joined(&self, protocol: &str) -> JoinedMember {
        JoinedMember { member: self.name(), metadata: self.metadata(protocol) }
    }

    pub(super) fn described(&self, protocol: Option<&str>) -> DescribedMember {
        DescribedMember {
            member: self.name(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            metadata: protocol.map(|protocol| self.metadata(protocol)).unwrap_or_default(),
            assignment: protocol.map(|_| self.assignment.clone()).unwrap_or_default(),
        }
    }

    /// It was heard of: its session starts again.
    pub(super) fn refresh(&mut self, now: Millis) {
        let patience = if self.is_new { NEW_MEMBER_JOIN_MS } else { self.session_timeout_ms.into() };
        self.deadline = now.saturating_add(patience);
        self.heard_of = true;
    }

    /// True while it waits for us: its silence says nothing.
    pub(super) fn is_held(&self) -> bool {
        self.syncing.is_some() || (self.joining.is_some() && !self.is_new)
    }

    /// Takes over what a join request says. The metadata may have changed with it.
    pub(super) fn update(&mut self, request: JoinRequest) {
        self.rebalance_timeout_ms = request.rebalance_timeout_ms.unwrap_or(request.session_timeout_ms);
        self.session_timeout_ms = request.session_timeout_ms;
        self.client_id = request.client_id;
        self.client_host = request.client_host;
        self.protocols = request.protocols;
    }
}

/// Bytes that a member's protocols take up.
pub(super) fn metadata_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum()
}
