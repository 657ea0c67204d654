//! Joining and syncing: how a generation comes about and what breaks it up.

use bytes::Bytes;

use super::super::Limits;
use super::super::sim::{LIMITS, Sim, fixed, member, request, subscribed, sync};
use crate::broker::groups::request::{GroupState, MemberRef};
use crate::broker::groups::subscription::subscription;
use crate::broker::groups::{GroupError, SyncRequest};

#[test]
fn while_preparing_a_member_is_told_to_join_and_may_still_commit() {
    let mut sim = Sim::new();
    let id = sim.one();
    sim.send_join(request(""));
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance);
    assert_eq!(sim.heartbeat(&id, 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(sim.sync(&id, 1, &[]), Err(GroupError::RebalanceInProgress));
    assert_eq!(sim.commit(&id, Some(1)), Ok(()));
}

#[test]
fn while_completing_heartbeats_are_fine_and_commits_wait() {
    let mut sim = Sim::new();
    let joined = sim.join(request("")).unwrap();
    assert_eq!(sim.group.state(), GroupState::CompletingRebalance);
    assert_eq!(sim.heartbeat(&joined.member_id, 1), Ok(()));
    assert_eq!(sim.commit(&joined.member_id, Some(1)), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_join_waits_for_all_and_at_most_the_largest_rebalance_timeout() {
    let mut sim = Sim::new();
    let id = sim.one();
    let new = sim.send_join(request(""));
    for _ in 0..11 {
        sim.pass(5_000);
        let answer = sim.heartbeat(&id, 1);
        assert_eq!(answer, Err(GroupError::RebalanceInProgress), "{}", sim.now);
    }
    assert_eq!(sim.join_answer(new), None);
    sim.pass(5_000);
    let joined = sim.join_answer(new).unwrap().unwrap();
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(sim.heartbeat(&id, 1), Err(GroupError::UnknownMemberId), "it did not join in time");
}

#[test]
fn without_a_rebalance_timeout_the_session_counts() {
    let mut sim = Sim::new();
    let mut old = request("");
    old.rebalance_timeout_ms = None;
    let id = sim.join(old.clone()).unwrap().member_id;
    sim.sync(&id, 1, &[]).unwrap();
    let new = sim.send_join(old);
    sim.pass(9_999);
    assert_eq!(sim.join_answer(new), None);
    sim.pass(1);
    assert_eq!(sim.join_answer(new).unwrap().unwrap().generation, 2);
}

#[test]
fn the_leader_sees_everybody_and_the_others_nobody() {
    let mut sim = Sim::new();
    let id = sim.one();
    let mut second = request("");
    second.protocols = vec![("range".into(), subscription(&["u"], b""))];
    let second = sim.send_join(second);
    let leads = sim.join(request(&id)).unwrap();
    let follows = sim.join_answer(second).unwrap().unwrap();
    assert_eq!(follows.members, []);
    assert_eq!((&follows.leader, &leads.leader), (&id, &id));
    let seen: Vec<_> = leads.members.iter().map(|m| (m.member.member_id.clone(), m.metadata.clone())).collect();
    let mut wanted = vec![(id, subscribed()), (follows.member_id, subscription(&["u"], b""))];
    wanted.sort();
    assert_eq!(seen, wanted);
}

#[test]
fn the_protocol_is_voted_for_among_those_all_know() {
    let protocols = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), Bytes::new())).collect::<Vec<_>>();
    let mut sim = Sim::new();
    let mut leader = request("");
    leader.protocols = protocols(&["only-me", "a", "b"]);
    let joined = sim.join(leader.clone()).unwrap();
    assert_eq!(joined.protocol, "only-me");
    let mut others = Vec::new();
    for names in [["b", "a"], ["b", "a"]] {
        let mut other = request("");
        other.protocols = protocols(&names);
        others.push(sim.send_join(other));
    }
    leader.member.member_id = joined.member_id;
    assert_eq!(sim.join(leader.clone()).unwrap().protocol, "b", "two votes against one");
    let gone = sim.join_answer(others[0]).unwrap().unwrap().member_id;
    let stays = sim.join_answer(others[1]).unwrap().unwrap().member_id;
    assert_eq!(sim.leave(&[member(&gone)]), [Ok(())]);
    let mut other = request(&stays);
    other.protocols = protocols(&["b", "a"]);
    let other = sim.send_join(other);
    assert_eq!(sim.join(leader).unwrap().protocol, "a", "on a tie the leader's");
    assert_eq!(sim.join_answer(other).unwrap().unwrap().protocol, "a");
}

#[test]
fn a_member_the_leader_left_out_gets_an_empty_assignment() {
    let mut sim = Sim::new();
    let id = sim.one();
    let second = sim.send_join(request(""));
    sim.join(request(&id)).unwrap();
    let second = sim.join_answer(second).unwrap().unwrap().member_id;
    let waits = sim.send_sync(sync(&second, 2, &[]));
    sim.sync(&id, 2, &[(&id, "a"), ("nobody", "b")]).unwrap();
    assert_eq!(sim.sync_answer(waits).unwrap().unwrap().assignment, "");
}

#[test]
fn a_dead_leader_sends_everybody_back_to_joining() {
    let mut sim = Sim::new();
    let id = sim.one();
    let second = sim.send_join(request(""));
    sim.join(request(&id)).unwrap();
    let second = sim.join_answer(second).unwrap().unwrap().member_id;
    let waits = sim.send_sync(sync(&second, 2, &[]));
    // The leader's session ends; the parked sync of the other keeps that one alive.
    sim.pass(10_000);
    assert_eq!(sim.sync_answer(waits), Some(Err(GroupError::RebalanceInProgress)));
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance);
    let joined = sim.join(request(&second)).unwrap();
    assert_eq!((joined.generation, &joined.leader), (3, &second));
}

#[test]
fn who_joins_but_never_syncs_is_dropped_after_the_rebalance_timeout() {
    let mut sim = Sim::new();
    let id = sim.one();
    let second = sim.send_join(request(""));
    sim.join(request(&id)).unwrap();
    let second = sim.join_answer(second).unwrap().unwrap().member_id;
    sim.sync(&id, 2, &[]).unwrap();
    for _ in 0..12 {
        assert_eq!(sim.heartbeat(&id, 2), Ok(()));
        assert_eq!(sim.heartbeat(&second, 2), Ok(()));
        sim.pass(5_000);
    }
    assert_eq!(sim.heartbeat(&second, 2), Err(GroupError::UnknownMemberId));
    assert_eq!(sim.heartbeat(&id, 2), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_sync_that_names_another_protocol_is_inconsistent() {
    let mut sim = Sim::new();
    let id = sim.one();
    let named = |protocol_type: &str, protocol: &str| SyncRequest {
        member: member(&id),
        generation: 1,
        protocol_type: Some(protocol_type.into()),
        protocol: Some(protocol.into()),
        assignments: Vec::new(),
    };
    for (protocol_type, protocol) in [("consumer", "sticky"), ("connect", "range")] {
        let ticket = sim.send_sync(named(protocol_type, protocol));
        assert_eq!(sim.sync_answer(ticket), Some(Err(GroupError::InconsistentGroupProtocol)));
    }
    let ticket = sim.send_sync(named("consumer", "range"));
    assert_eq!(sim.sync_answer(ticket).unwrap().unwrap().assignment, "a");
}

#[test]
fn the_initial_delay_holds_for_an_empty_group_only_and_grows_with_each_newcomer() {
    let mut sim = Sim::with(Limits { initial_rebalance_delay_ms: 3_000, ..LIMITS });
    let first = sim.send_join(request(""));
    sim.pass(2_000);
    let second = sim.send_join(request(""));
    sim.pass(1_000);
    assert_eq!(sim.join_answer(first), None, "somebody came, once more 3 s");
    sim.pass(3_000);
    let one = sim.join_answer(first).unwrap().unwrap();
    let two = sim.join_answer(second).unwrap().unwrap();
    assert_eq!((one.generation, two.generation), (1, 1));
    let waits = sim.send_sync(sync(&two.member_id, 1, &[]));
    sim.sync(&one.leader, 1, &[]).unwrap();
    assert!(sim.sync_answer(waits).unwrap().is_ok());
    let leads = sim.send_join(request(&one.leader));
    let again = sim.join(request(&two.member_id)).unwrap();
    assert_eq!(again.generation, 2, "the next rebalance waits for members only");
    assert!(sim.join_answer(leads).is_some());
}

#[test]
fn the_initial_delay_never_exceeds_the_rebalance_timeout() {
    let mut sim = Sim::with(Limits { initial_rebalance_delay_ms: 3_000, max_members: 100, ..LIMITS });
    let mut quick = request("");
    quick.rebalance_timeout_ms = Some(8_000);
    let first = sim.send_join(quick.clone());
    for _ in 0..8 {
        assert_eq!(sim.join_answer(first), None);
        sim.send_join(quick.clone());
        sim.pass(1_000);
    }
    assert_eq!(sim.join_answer(first).unwrap().unwrap().generation, 1);
}

#[test]
fn a_group_whose_last_member_leaves_during_the_initial_delay_is_empty_at_once() {
    let mut sim = Sim::with(Limits { initial_rebalance_delay_ms: 3_000, ..LIMITS });
    let waits = sim.send_join(fixed("i"));
    let by_instance = MemberRef { member_id: String::new(), instance_id: Some("i".into()) };
    assert_eq!(sim.leave(&[by_instance]), [Ok(())]);
    assert_eq!(sim.join_answer(waits), Some(Err(GroupError::UnknownMemberId)));
    assert_eq!(sim.group.state(), GroupState::Empty);
}

#[test]
fn a_repeated_join_gets_the_same_answer_and_disturbs_nobody() {
    let mut sim = Sim::new();
    let joined = sim.join(request("")).unwrap();
    let id = joined.member_id.clone();
    assert_eq!(sim.join(request(&id)), Ok(joined), "the leader while completing");
    sim.sync(&id, 1, &[]).unwrap();
    let (mut sim, second) = {
        let mut sim = Sim::new();
        let (_, second) = sim.two();
        (sim, second)
    };
    let again = sim.join(request(&second)).unwrap();
    assert_eq!((again.generation, again.members.len()), (2, 0), "a follower while stable");
    assert_eq!(sim.group.state(), GroupState::Stable);
}

#[test]
fn new_metadata_or_a_leader_that_joins_again_starts_a_rebalance() {
    let mut sim = Sim::new();
    let (leader, second) = sim.two();
    let mut changed = request(&second);
    changed.protocols = vec![("range".into(), subscription(&["u"], b""))];
    let waits = sim.send_join(changed);
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance);
    sim.join(request(&leader)).unwrap();
    assert_eq!(sim.join_answer(waits).unwrap().unwrap().generation, 3);
    let mut sim = Sim::new();
    let id = sim.one();
    assert_eq!(sim.join(request(&id)).unwrap().generation, 2, "the leader wants to assign anew");
}

#[test]
fn a_newcomer_while_completing_sends_everybody_back() {
    let mut sim = Sim::new();
    let leader = sim.one();
    let second = sim.send_join(request(""));
    sim.join(request(&leader)).unwrap();
    let second = sim.join_answer(second).unwrap().unwrap().member_id;
    let waits = sim.send_sync(sync(&second, 2, &[]));
    let third = sim.send_join(request(""));
    assert_eq!(sim.sync_answer(waits), Some(Err(GroupError::RebalanceInProgress)));
    let waits = sim.send_join(request(&second));
    assert_eq!(sim.join(request(&leader)).unwrap().members.len(), 3);
    assert!(sim.join_answer(waits).is_some() && sim.join_answer(third).is_some());
}

#[test]
fn a_second_try_takes_the_place_of_a_parked_request() {
    let mut sim = Sim::new();
    let (_, second) = sim.two();
    let mut changed = request(&second);
    changed.protocols = vec![("range".into(), Bytes::from_static(b"x"))];
    let first_try = sim.send_join(changed.clone());
    let second_try = sim.send_join(changed);
    assert_eq!(sim.join_answer(first_try), Some(Err(GroupError::RebalanceInProgress)));
    assert_eq!(sim.join_answer(second_try), None);
}
