//! A group in virtual time, with numbers for tickets and a store that answers when it is told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use azulite_storage::membership::GroupMetadata;
use bytes::Bytes;

use super::{Effect, Group, Limits, WriteId};
use crate::broker::groups::request::{Committer, JoinRequest, Joined, MemberRef, SyncRequest, Synced};
use crate::broker::groups::{GroupError, subscription};

pub(super) const LIMITS: Limits = Limits {
    min_session_timeout_ms: 6_000,
    max_session_timeout_ms: 1_800_000,
    initial_rebalance_delay_ms: 0,
    max_members: 5,
    max_metadata_bytes: 10_000,
};

pub(super) type JoinAnswer = Result<Joined, GroupError>;
pub(super) type SyncAnswer = Result<Synced, GroupError>;

pub(super) struct Sim {
    pub(super) group: Group<u64, u64>,
    pub(super) now: i64,
    tickets: u64,
    pub(super) open: BTreeSet<u64>,
    joined: BTreeMap<u64, JoinAnswer>,
    synced: BTreeMap<u64, SyncAnswer>,
    /// Writes under way; done at once unless `slow_store`.
    pub(super) writes: VecDeque<WriteId>,
    pub(super) slow_store: bool,
    /// The metadata that was made durable last.
    pub(super) durable: Option<GroupMetadata>,
    written: VecDeque<GroupMetadata>,
}

pub(super) fn subscribed() -> Bytes {
    subscription::subscription(&["t"], b"")
}

/// A join with a session of 10 s and a rebalance time-out of 60 s; `id` empty for a first one that needs no second step.
pub(super) fn request(id: &str) -> JoinRequest {
    JoinRequest {
        member: MemberRef { member_id: id.into(), instance_id: None },
        client_id: "c".into(),
        client_host: "/h".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: Some(60_000),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscribed())],
        ..JoinRequest::default()
    }
}

pub(super) fn fixed(instance: &str) -> JoinRequest {
    let mut request = request("");
    request.member.instance_id = Some(instance.into());
    request
}

pub(super) fn member(id: &str) -> MemberRef {
    MemberRef { member_id: id.into(), instance_id: None }
}

impl Sim {
    pub(super) fn new() -> Self {
        Self::with(LIMITS)
    }

    pub(super) fn with(limits: Limits) -> Self {
        Self::of(Group::new(limits, 0))
    }

    pub(super) fn of(group: Group<u64, u64>) -> Self {
        Self {
            group,
            now: 0,
            tickets: 0,
            open: BTreeSet::new(),
            joined: BTreeMap::new(),
            synced: BTreeMap::new(),
            writes: VecDeque::new(),
            slow_store: false,
            durable: None,
            written: VecDeque::new(),
        }
    }

    /// Another machine takes over; what is parked or being written is lost.
    pub(super) fn restart(&mut self, group: Group<u64, u64>) {
        self.group = group;
        self.open.clear();
        self.writes.clear();
        self.written.clear();
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.open.insert(self.tickets);
        self.tickets
    }

    fn settle(&mut self, effects: Vec<Effect<u64, u64>>) {
        for effect in effects {
            match effect {
                Effect::Joined(ticket, answer) => {
                    assert!(self.open.remove(&ticket), "join {ticket} answered twice");
                    self.joined.insert(ticket, answer);
                }
                Effect::Synced(ticket, answer) => {
                    assert!(self.open.remove(&ticket), "sync {ticket} answered twice");
                    self.synced.insert(ticket, answer);
                }
                Effect::Store(write, metadata) => {
                    self.writes.push_back(write);
                    self.written.push_back(metadata);
                }
            }
        }
        if !self.slow_store {
            self.store(Ok(()));
        }
    }

    /// Ends all writes under way.
    pub(super) fn store(&mut self, outcome: Result<(), GroupError>) {
        while let Some(write) = self.writes.pop_front() {
            let metadata = self.written.pop_front();
            if outcome.is_ok() {
                self.durable = metadata;
            }
            let mut out = Vec::new();
            self.group.stored(self.now, write, outcome.clone(), &mut out);
            self.settle(out);
        }
    }

    /// Sends a join; the number to ask for its answer with.
    pub(super) fn send_join(&mut self, mut request: JoinRequest) -> u64 {
        let ticket = self.ticket();
        let name = request.member.instance_id.clone().unwrap_or("m".into());
        request.new_member_id = format!("{name}{ticket}");
        let mut out = Vec::new();
        self.group.join(self.now, request, ticket, &mut out);
        self.settle(out);
        ticket
    }

    pub(super) fn send_sync(&mut self, request: SyncRequest) -> u64 {
        let ticket = self.ticket();
        let mut out = Vec::new();
        self.group.sync(self.now, request, ticket, &mut out);
        self.settle(out);
        ticket
    }

    pub(super) fn join_answer(&mut self, ticket: u64) -> Option<JoinAnswer> {
        self.joined.remove(&ticket)
    }

    pub(super) fn sync_answer(&mut self, ticket: u64) -> Option<SyncAnswer> {
        self.synced.remove(&ticket)
    }

    /// Sends a join that is answered at once.
    pub(super) fn join(&mut self, request: JoinRequest) -> JoinAnswer {
        let ticket = self.send_join(request);
        self.join_answer(ticket).expect("answered at once")
    }

    /// Sends a sync that is answered at once.
    pub(super) fn sync(&mut self, id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> SyncAnswer {
        let ticket = self.send_sync(sync(id, generation, assignments));
        self.sync_answer(ticket).expect("answered at once")
    }

    pub(super) fn heartbeat(&mut self, id: &str, generation: i32) -> Result<(), GroupError> {
        self.group.heartbeat(self.now, &member(id), generation)
    }

    pub(super) fn commit(&mut self, id: &str, generation: Option<i32>) -> Result<(), GroupError> {
        self.group.check_commit(self.now, &Committer { member: member(id), generation })
    }

    pub(super) fn leave(&mut self, leaving: &[MemberRef]) -> Vec<Result<(), GroupError>> {
        let mut out = Vec::new();
        let answers = self.group.leave(self.now, leaving, &mut out);
        self.settle(out);
        answers
    }

    /// Lets time pass to `now`, looking at the group exactly when it asks for it.
    pub(super) fn pass_to(&mut self, now: i64) {
        while let Some(deadline) = self.group.next_deadline().filter(|deadline| *deadline <= now) {
            self.now = self.now.max(deadline);
            let mut out = Vec::new();
            self.group.tick(self.now, &mut out);
            self.settle(out);
            let next = self.group.next_deadline();
            assert!(next.is_none_or(|next| next > self.now), "a tick leaves nothing due: {next:?} at {}", self.now);
        }
        self.now = now;
    }

    pub(super) fn pass(&mut self, ms: i64) {
        self.pass_to(self.now + ms);
    }

    /// A stable group of one member; its id.
    pub(super) fn one(&mut self) -> String {
        let joined = self.join(request("")).unwrap();
        let id = joined.member_id.clone();
        self.sync(&id, joined.generation, &[(&id, "a")]).unwrap();
        id
    }

    /// A stable group of two, the first one leads; their ids. Generation 2.
    pub(super) fn two(&mut self) -> (String, String) {
        let leader = self.one();
        let second = self.send_join(request(""));
        let leads = self.join(request(&leader)).unwrap();
        let second = self.join_answer(second).unwrap().unwrap().member_id;
        assert_eq!((leads.generation, leads.members.len()), (2, 2));
        let waits = self.send_sync(sync(&second, 2, &[]));
        self.sync(&leader, 2, &[(&leader, "l"), (&second, "s")]).unwrap();
        assert_eq!(self.sync_answer(waits).unwrap().unwrap().assignment, "s");
        (leader, second)
    }
}

pub(super) fn sync(id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> SyncRequest {
    SyncRequest {
        member: member(id),
        generation,
        protocol_type: None,
        protocol: None,
        assignments: assignments.iter().map(|(id, a)| ((*id).to_owned(), Bytes::from_static(a.as_bytes()))).collect(),
    }
}
