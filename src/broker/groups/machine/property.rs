//! Random members in virtual time, against the laws of a group.
//!
//! Clients behave as real ones do: they join, sync, beat, commit, die, come back, time out and try again, some of them
//! static. Whatever they do, and however slow the store is: see the assertions.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::sim::{LIMITS, Sim, fixed, request};
use super::{Group, GroupState, Limits};
use crate::broker::groups::request::{Committer, JoinRequest, MemberRef, SyncRequest};
use crate::broker::groups::{GroupError, subscription};

const CLIENTS: usize = 6;
const REBALANCE_MS: i64 = 20_000;

/// What a client waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Waits {
    /// Nothing: it is to join.
    Idle,
    Join(u64),
    Sync(u64),
    /// It has an assignment of its generation.
    Owns(Bytes),
}

#[derive(Clone, Debug)]
struct Client {
    instance: Option<String>,
    member_id: String,
    generation: i32,
    waits: Waits,
    alive: bool,
    topics: usize,
    since: i64,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Pass(i64),
    Beat(usize),
    Commit(usize),
    Die(usize),
    Return(usize),
    Leave(usize),
    /// The client gave up its parked request and sends another.
    TryAgain(usize),
    ChangeTopics(usize),
    SlowStore(bool),
    FailStore,
    /// The broker is killed and comes back with what was durable.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let step = prop_oneof![
        6 => (1_i64..4_000).prop_map(Step::Pass),
        6 => client.clone().prop_map(Step::Beat),
        3 => client.clone().prop_map(Step::Commit),
        1 => client.clone().prop_map(Step::Die),
        2 => client.clone().prop_map(Step::Return),
        1 => client.clone().prop_map(Step::Leave),
        1 => client.clone().prop_map(Step::TryAgain),
        1 => client.prop_map(Step::ChangeTopics),
        1 => any::<bool>().prop_map(Step::SlowStore),
        1 => Just(Step::FailStore),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..150)
}

struct World {
    sim: Sim,
    limits: Limits,
    clients: Vec<Client>,
    two_steps: bool,
    generation: i32,
    /// State and generation, and since when.
    phase: ((GroupState, i32), i64),
    committed: i64,
    /// Assignments given, by generation and member: each once.
    given: BTreeMap<(i32, String), Bytes>,
}

impl World {
    fn new(statics: usize, two_steps: bool, delay_ms: i32) -> Self {
        let client = |n: usize| Client {
            instance: (n < statics).then(|| format!("i{n}")),
            member_id: String::new(),
            generation: -1,
            waits: Waits::Idle,
            alive: n.is_multiple_of(2),
            topics: 1,
            since: 0,
        };
        let limits = Limits { initial_rebalance_delay_ms: delay_ms, max_members: 100, ..LIMITS };
        Self {
            sim: Sim::with(limits.clone()),
            limits,
            clients: (0..CLIENTS).map(client).collect(),
            two_steps,
            generation: 0,
            phase: ((GroupState::Empty, 0), 0),
            committed: 0,
            given: BTreeMap::new(),
        }
    }

    fn join_request(&self, n: usize) -> JoinRequest {
        let client = &self.clients[n];
        let topics = ["a", "b", "c"];
        let said = subscription::subscription(&topics[..client.topics], b"");
        let base = client.instance.as_deref().map_or_else(|| request(""), fixed);
        JoinRequest {
            member: self.name(n),
            // Every other one is waited for longer than a rebalance may take.
            session_timeout_ms: if n.is_multiple_of(2) { 45_000 } else { 10_000 },
            rebalance_timeout_ms: Some(i32::try_from(REBALANCE_MS).unwrap()),
            protocols: vec![("range".into(), said)],
            member_id_required: self.two_steps,
            ..base
        }
    }

    fn name(&self, n: usize) -> MemberRef {
        let client = &self.clients[n];
        MemberRef { member_id: client.member_id.clone(), instance_id: client.instance.clone() }
    }

    fn wait(&mut self, n: usize, waits: Waits) {
        self.clients[n].since = self.sim.now;
        self.clients[n].waits = waits;
    }

    /// Does what a client does when it is not waiting, and takes in answers that have come. True when anything happened.
    fn step_client(&mut self, n: usize) -> bool {
        let client = self.clients[n].clone();
        if !client.alive {
            return false;
        }
        match client.waits {
            Waits::Idle => {
                let ticket = self.sim.send_join(self.join_request(n));
                self.wait(n, Waits::Join(ticket));
                true
            }
            Waits::Join(ticket) => match self.sim.join_answer(ticket) {
                None => false,
                Some(answer) => {
                    self.joined(n, answer);
                    true
                }
            },
            Waits::Sync(ticket) => match self.sim.sync_answer(ticket) {
                None => false,
                Some(Ok(synced)) => {
                    let key = (client.generation, client.member_id.clone());
                    let earlier = self.given.insert(key, synced.assignment.clone());
                    assert!(earlier.is_none_or(|earlier| earlier == synced.assignment), "one assignment a generation");
                    self.wait(n, Waits::Owns(synced.assignment));
                    true
                }
                Some(Err(error)) => {
                    self.refused(n, &error);
                    true
                }
            },
            Waits::Owns(_) => false,
        }
    }

    fn joined(&mut self, n: usize, answer: super::sim::JoinAnswer) {
        match answer {
            Ok(joined) => {
                assert!(joined.generation >= self.generation, "generations only grow");
                self.generation = joined.generation;
                self.clients[n].member_id.clone_from(&joined.member_id);
                self.clients[n].generation = joined.generation;
                let leads = joined.leader == joined.member_id && !joined.members.is_empty();
                let given = |m: &MemberRef| {
                    (m.member_id.clone(), Bytes::from(format!("{}@{}", m.member_id, joined.generation)))
                };
                let given = joined.members.iter().map(|m| given(&m.member)).collect();
                let assignments = if leads { given } else { Vec::new() };
                let ticket = self.sim.send_sync(SyncRequest {
                    member: self.name(n),
                    generation: joined.generation,
                    assignments,
                    ..SyncRequest::default()
                });
                self.wait(n, Waits::Sync(ticket));
            }
            Err(GroupError::MemberIdRequired { member_id }) => {
                self.clients[n].member_id = member_id;
                self.wait(n, Waits::Idle);
            }
            Err(error) => self.refused(n, &error),
        }
    }

    fn refused(&mut self, n: usize, error: &GroupError) {
        let expected = [
            GroupError::UnknownMemberId,
            GroupError::IllegalGeneration,
            GroupError::RebalanceInProgress,
            GroupError::CoordinatorNotAvailable,
        ];
        assert!(expected.contains(error), "client {n} was told {error:?}");
        if *error == GroupError::UnknownMemberId {
            self.clients[n].member_id.clear();
        }
        self.wait(n, Waits::Idle);
    }

    fn beat(&mut self, n: usize) {
        let client = self.clients[n].clone();
        if !client.alive || !matches!(client.waits, Waits::Owns(_)) {
            return;
        }
        if let Err(error) = self.sim.group.heartbeat(self.sim.now, &self.name(n), client.generation) {
            self.refused(n, &error);
        }
    }

    /// The client commits one more than everybody before; only a member of the present generation may.
    fn commit(&mut self, n: usize) {
        let client = self.clients[n].clone();
        let committer = Committer { member: self.name(n), generation: Some(client.generation) };
        let answer = self.sim.group.check_commit(self.sim.now, &committer);
        if answer.is_ok() {
            let described = self.sim.group.describe();
            assert_eq!(described.generation, client.generation, "ONE-GENERATION");
            assert!(described.members.iter().any(|m| m.member.member_id == client.member_id));
            let offset = i64::from(client.generation);
            assert!(offset >= self.committed, "a commit of an older generation went through");
            self.committed = offset;
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Pass(ms) => self.pass(ms),
            Step::Beat(n) => self.beat(n),
            Step::Commit(n) => self.commit(n),
            Step::Die(n) => self.clients[n].alive = false,
            Step::Return(n) => {
                if !self.clients[n].alive {
                    // A new process: it knows nothing.
                    let client = &mut self.clients[n];
                    (client.alive, client.generation) = (true, -1);
                    client.member_id.clear();
                    self.wait(n, Waits::Idle);
                }
            }
            Step::Leave(n) => {
                if self.clients[n].alive && !self.clients[n].member_id.is_empty() {
                    self.sim.leave(&[self.name(n)]);
                    self.clients[n].alive = false;
                }
            }
            Step::TryAgain(n) => {
                if self.clients[n].alive && matches!(self.clients[n].waits, Waits::Join(_) | Waits::Sync(_)) {
                    self.wait(n, Waits::Idle);
                }
            }
            Step::ChangeTopics(n) => {
                self.clients[n].topics = 1 + self.clients[n].topics % 3;
                if self.clients[n].alive && matches!(self.clients[n].waits, Waits::Owns(_)) {
                    self.wait(n, Waits::Idle);
                }
            }
            Step::SlowStore(slow) => {
                self.sim.slow_store = slow;
                self.sim.store(Ok(()));
            }
            Step::FailStore => self.sim.store(Err(GroupError::CoordinatorNotAvailable)),
            Step::Restart => self.restart(),
        }
        while (0..CLIENTS).any(|n| self.step_client(n)) {}
        self.check();
    }

    fn restart(&mut self) {
        let limits = self.limits.clone();
        let durable = self.sim.durable.clone();
        self.generation = durable.as_ref().map_or(0, |stored| stored.generation);
        let group = match durable {
            Some(stored) => Group::restored(limits, stored, self.sim.now),
            None => Group::new(limits, self.sim.now),
        };
        self.sim.restart(group);
        for n in 0..CLIENTS {
            if matches!(self.clients[n].waits, Waits::Join(_) | Waits::Sync(_)) {
                self.wait(n, Waits::Idle);
            }
        }
    }

    fn pass(&mut self, ms: i64) {
        let end = self.sim.now + ms;
        while self.sim.now < end {
            self.sim.pass_to(end.min(self.sim.now + 500));
            while (0..CLIENTS).any(|n| self.step_client(n)) {}
            self.check();
        }
    }

    fn check(&mut self) {
        let described = self.sim.group.describe();
        assert!(described.generation >= self.generation, "generations only grow");
        self.generation = described.generation;
        let instances: Vec<_> = described.members.iter().filter_map(|m| m.member.instance_id.clone()).collect();
        let distinct: BTreeSet<_> = instances.iter().cloned().collect();
        assert_eq!(distinct.len(), instances.len(), "one member per instance id");
        if described.state == GroupState::Stable {
            let assigned = |m: &&crate::broker::groups::request::DescribedMember| !m.assignment.is_empty();
            let suffix = format!("@{}", described.generation);
            for member in described.members.iter().filter(assigned) {
                assert!(member.assignment.ends_with(suffix.as_bytes()), "an assignment of another generation");
            }
            let distinct: BTreeSet<_> = described.members.iter().map(|m| m.assignment.clone()).collect();
            assert!(distinct.len() >= described.members.iter().filter(assigned).count(), "one assignment each");
        }
        let phase = (described.state, described.generation);
        if self.phase.0 != phase {
            self.phase = (phase, self.sim.now);
        }
        // A parked request of a live client waits in one state for a rebalance time-out and a second of slack at most.
        for (n, client) in self.clients.iter().enumerate().filter(|(_, client)| client.alive) {
            let waited = self.sim.now - client.since.max(self.phase.1);
            let parked = matches!(client.waits, Waits::Join(_) | Waits::Sync(_));
            let slow = !self.sim.writes.is_empty();
            assert!(!parked || slow || waited <= REBALANCE_MS + 1_000, "client {n} waits since {waited} ms");
        }
    }

    /// Everybody alive behaves for a while: then everybody is in, nobody else is, and nothing is parked.
    fn settle(&mut self) {
        self.sim.slow_store = false;
        self.sim.store(Ok(()));
        for _ in 0..120 {
            self.pass(1_000);
            (0..CLIENTS).for_each(|n| self.beat(n));
            while (0..CLIENTS).any(|n| self.step_client(n)) {}
        }
        let described = self.sim.group.describe();
        let members: BTreeSet<_> = described.members.iter().map(|m| m.member.member_id.clone()).collect();
        let alive: Vec<_> = self.clients.iter().filter(|client| client.alive).collect();
        let wanted: BTreeSet<_> = alive.iter().map(|client| client.member_id.clone()).collect();
        assert_eq!(members, wanted, "every member that keeps calling is in, and no other");
        assert_eq!(wanted.len(), alive.len());
        let state = if alive.is_empty() { GroupState::Empty } else { GroupState::Stable };
        assert_eq!(described.state, state);
        for client in alive {
            assert_eq!(client.generation, described.generation);
            assert!(matches!(&client.waits, Waits::Owns(assignment) if !assignment.is_empty()), "{:?}", client.waits);
        }
        assert!(self.sim.open.is_empty(), "tickets {:?} are lost", self.sim.open);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_members_do_the_laws_of_a_group_hold(
        steps in steps(),
        statics in 0..CLIENTS,
        two_steps in any::<bool>(),
        delay_ms in prop_oneof![Just(0), Just(3_000)],
    ) {
        let mut world = World::new(statics, two_steps, delay_ms);
        for step in steps {
            world.take(step);
        }
        world.settle();
    }
}
