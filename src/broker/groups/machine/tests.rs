//! The table of kafka.md 4.1, row by row, and what stands below it.

use bytes::Bytes;

use super::sim::{LIMITS, Sim, fixed, member, request, subscribed, sync};
use super::view::Expiry;
use super::{Group, Limits};
use crate::broker::groups::request::{Committer, GroupState, MemberRef};
use crate::broker::groups::subscription::subscription;
use crate::broker::groups::{GroupError, SyncRequest};

#[test]
fn a_session_timeout_outside_the_limits_is_refused() {
    for asked_ms in [-1, 0, 5_999, 1_800_001] {
        let mut asked = request("");
        asked.session_timeout_ms = asked_ms;
        let refused = GroupError::InvalidSessionTimeout { asked_ms, min_ms: 6_000, max_ms: 1_800_000 };
        assert_eq!(Sim::new().join(asked), Err(refused));
    }
}

#[test]
fn a_first_join_gets_an_id_to_come_back_with() {
    let mut sim = Sim::new();
    let mut first = request("");
    first.member_id_required = true;
    let Err(GroupError::MemberIdRequired { member_id }) = sim.join(first.clone()) else { panic!("an id is required") };
    assert_eq!(sim.group.state(), GroupState::Empty);
    let mut again = request(&member_id);
    again.member_id_required = true;
    let joined = sim.join(again).unwrap();
    assert_eq!((joined.member_id, joined.generation), (member_id.clone(), 1));
    assert_eq!(joined.leader, member_id);
    // A static member needs no second step.
    let mut sim = Sim::new();
    let mut first = fixed("i");
    first.member_id_required = true;
    assert_eq!(sim.join(first).unwrap().generation, 1);
}

#[test]
fn an_id_nobody_comes_back_with_is_forgotten_after_the_session() {
    let mut sim = Sim::new();
    let mut first = request("");
    first.member_id_required = true;
    let Err(GroupError::MemberIdRequired { member_id }) = sim.join(first) else { panic!("an id is required") };
    assert!(!sim.group.is_blank());
    sim.pass(10_000);
    assert!(sim.group.is_blank());
    assert_eq!(sim.join(request(&member_id)), Err(GroupError::UnknownMemberId));
}

#[test]
fn pending_ids_are_bounded_and_can_leave() {
    let mut sim = Sim::new();
    let mut first = request("");
    first.member_id_required = true;
    let ids: Vec<_> = (0..LIMITS.max_members).map(|_| sim.join(first.clone())).collect();
    assert_eq!(sim.join(first.clone()), Err(GroupError::GroupMaxSizeReached));
    let Err(GroupError::MemberIdRequired { member_id }) = &ids[0] else { panic!("an id is required") };
    assert_eq!(sim.leave(&[member(member_id)]), [Ok(())]);
    assert!(matches!(sim.join(first), Err(GroupError::MemberIdRequired { .. })));
}

#[test]
fn another_protocol_type_or_no_common_protocol_is_inconsistent() {
    let mut sim = Sim::new();
    let mut none = request("");
    none.protocols.clear();
    assert_eq!(sim.join(none), Err(GroupError::InconsistentGroupProtocol));
    let mut untyped = request("");
    untyped.protocol_type.clear();
    assert_eq!(sim.join(untyped), Err(GroupError::InconsistentGroupProtocol));
    let id = sim.one();
    let mut connect = request("");
    connect.protocol_type = "connect".into();
    assert_eq!(sim.join(connect.clone()), Err(GroupError::InconsistentGroupProtocol));
    let mut other = request("");
    other.protocols = vec![("sticky".into(), Bytes::new())];
    assert_eq!(sim.join(other), Err(GroupError::InconsistentGroupProtocol));
    // An empty group takes up another type.
    assert_eq!(sim.leave(&[member(&id)]), [Ok(())]);
    assert_eq!(sim.join(connect).unwrap().protocol_type, "connect");
}

#[test]
fn unknown_members_are_told_so_everywhere() {
    let mut sim = Sim::new();
    sim.one();
    assert_eq!(sim.join(request("x")), Err(GroupError::UnknownMemberId));
    assert_eq!(sim.sync("x", 1, &[]), Err(GroupError::UnknownMemberId));
    assert_eq!(sim.heartbeat("x", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(sim.commit("x", Some(1)), Err(GroupError::UnknownMemberId));
    assert_eq!(sim.leave(&[member("x")]), [Err(GroupError::UnknownMemberId)]);
    let stranger = MemberRef { member_id: "x".into(), instance_id: Some("i".into()) };
    assert_eq!(sim.group.heartbeat(0, &stranger, 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn another_generation_is_illegal_everywhere() {
    let mut sim = Sim::new();
    let id = sim.one();
    for generation in [-1, 0, 2] {
        assert_eq!(sim.sync(&id, generation, &[]), Err(GroupError::IllegalGeneration));
        assert_eq!(sim.heartbeat(&id, generation), Err(GroupError::IllegalGeneration));
        assert_eq!(sim.commit(&id, Some(generation)), Err(GroupError::IllegalGeneration));
    }
    assert_eq!(sim.commit(&id, None), Err(GroupError::IllegalGeneration));
    assert_eq!(Sim::new().commit("m", Some(0)), Err(GroupError::IllegalGeneration), "a group nobody joined");
}

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
fn a_second_member_of_an_instance_id_fences_the_first() {
    let mut sim = Sim::new();
    let first = sim.join(fixed("i")).unwrap().member_id;
    sim.sync(&first, 1, &[(&first, "a")]).unwrap();
    let second = sim.join(fixed("i")).unwrap();
    assert_ne!(second.member_id, first);
    assert_eq!(second.generation, 1);
    let old = MemberRef { member_id: first.clone(), instance_id: Some("i".into()) };
    assert_eq!(sim.group.heartbeat(0, &old, 1), Err(GroupError::FencedInstanceId));
    let committer = Committer { member: old.clone(), generation: Some(1) };
    assert_eq!(sim.group.check_commit(0, &committer), Err(GroupError::FencedInstanceId));
    let late = SyncRequest { member: old.clone(), generation: 1, ..SyncRequest::default() };
    let late = sim.send_sync(late);
    assert_eq!(sim.sync_answer(late), Some(Err(GroupError::FencedInstanceId)));
    let mut again = fixed("i");
    again.member = old.clone();
    assert_eq!(sim.join(again), Err(GroupError::FencedInstanceId));
    assert_eq!(sim.leave(&[old]), [Err(GroupError::FencedInstanceId)]);
    assert_eq!(sim.sync(&second.member_id, 1, &[]).unwrap().assignment, "a");
}

#[test]
fn parked_requests_of_a_fenced_member_are_answered() {
    let mut sim = Sim::new();
    sim.one();
    let first = sim.send_join(fixed("i"));
    let second = sim.send_join(fixed("i"));
    assert_eq!(sim.join_answer(first), Some(Err(GroupError::FencedInstanceId)));
    assert_eq!(sim.join_answer(second), None);
    assert_eq!(sim.open.len(), 1);
}

#[test]
fn a_full_group_takes_nobody_but_its_own() {
    let mut sim = Sim::with(Limits { max_members: 2, ..LIMITS });
    let (leader, second) = sim.two();
    assert_eq!(sim.join(request("")), Err(GroupError::GroupMaxSizeReached));
    assert_eq!(sim.join(fixed("i")), Err(GroupError::GroupMaxSizeReached));
    let back = sim.send_join(request(&leader));
    assert_eq!(sim.join(request(&second)).unwrap().generation, 3);
    assert!(sim.join_answer(back).is_some());
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
fn heartbeat_commit_and_sync_refresh_the_session_and_silence_ends_it() {
    let mut sim = Sim::new();
    let id = sim.one();
    sim.pass(9_999);
    assert_eq!(sim.heartbeat(&id, 1), Ok(()));
    sim.pass(9_999);
    assert_eq!(sim.commit(&id, Some(1)), Ok(()));
    sim.pass(9_999);
    sim.sync(&id, 1, &[]).unwrap();
    sim.pass(9_999);
    assert_eq!(sim.heartbeat(&id, 1), Ok(()));
    sim.pass(10_000);
    assert_eq!(sim.group.state(), GroupState::Empty);
    assert_eq!(sim.heartbeat(&id, 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_parked_join_does_not_expire_its_own_member() {
    let mut sim = Sim::new();
    let (leader, second) = sim.two();
    let mut new = request("");
    new.session_timeout_ms = 6_000;
    let new = sim.send_join(new);
    let waits = sim.send_join(request(&second));
    for _ in 0..11 {
        sim.pass(5_000);
        assert_eq!(sim.heartbeat(&leader, 2), Err(GroupError::RebalanceInProgress));
    }
    assert_eq!(sim.group.describe().members.len(), 3, "nobody is gone after 55 s");
    sim.join(request(&leader)).unwrap();
    assert_eq!(sim.join_answer(waits).unwrap().unwrap().generation, 3);
    assert_eq!(sim.join_answer(new).unwrap().unwrap().generation, 3);
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

#[test]
fn a_static_member_that_is_back_gets_its_assignment_without_a_rebalance() {
    let mut sim = Sim::new();
    let leader = sim.one();
    let new = sim.send_join(fixed("i"));
    sim.join(request(&leader)).unwrap();
    let old = sim.join_answer(new).unwrap().unwrap().member_id;
    let waits = sim.send_sync(SyncRequest {
        member: MemberRef { member_id: old.clone(), instance_id: Some("i".into()) },
        ..sync(&old, 2, &[])
    });
    sim.sync(&leader, 2, &[(&leader, "a"), (&old, "b")]).unwrap();
    assert!(sim.sync_answer(waits).is_some());
    sim.pass(5_000);
    sim.heartbeat(&leader, 2).unwrap();
    // What it owned before has changed, what it wants has not.
    let mut again = fixed("i");
    again.protocols = vec![("range".into(), subscription(&["t"], b"owned"))];
    let back = sim.join(again).unwrap();
    assert_eq!((back.generation, back.members.len(), back.skip_assignment), (2, 0, false));
    assert_eq!(sim.sync(&back.member_id, 2, &[]).unwrap().assignment, "b");
    assert_eq!(sim.heartbeat(&leader, 2), Ok(()), "the others notice nothing");
    let stored = sim.durable.clone().unwrap();
    assert!(stored.members.iter().any(|m| m.member_id == back.member_id && m.assignment == "b"));
    let mut other = fixed("i");
    other.protocols = vec![("range".into(), subscription(&["u"], b""))];
    sim.send_join(other);
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance, "it wants something else");
}

#[test]
fn a_static_leader_that_is_back_does_not_assign() {
    for understood in [true, false] {
        let mut sim = Sim::new();
        let old = sim.join(fixed("i")).unwrap().member_id;
        sim.sync(&old, 1, &[(&old, "a")]).unwrap();
        let mut again = fixed("i");
        again.skip_assignment_understood = understood;
        let back = sim.join(again).unwrap();
        assert_eq!(back.skip_assignment, understood);
        assert_eq!(back.members.len(), usize::from(understood));
        assert_eq!(back.leader, if understood { back.member_id.clone() } else { old });
        assert_eq!(sim.sync(&back.member_id, 1, &[]).unwrap().assignment, "a");
    }
}

#[test]
fn a_static_member_that_is_away_keeps_its_place_until_its_session_ends() {
    let mut sim = Sim::new();
    let leader = sim.one();
    let mut lasting = fixed("i");
    lasting.session_timeout_ms = 300_000;
    let new = sim.send_join(lasting);
    sim.join(request(&leader)).unwrap();
    let away = sim.join_answer(new).unwrap().unwrap().member_id;
    let waits = sim.send_sync(SyncRequest {
        member: MemberRef { member_id: away.clone(), instance_id: Some("i".into()) },
        ..sync(&away, 2, &[])
    });
    sim.sync(&leader, 2, &[]).unwrap();
    assert!(sim.sync_answer(waits).unwrap().is_ok());
    let leads = sim.send_join(request(&leader));
    assert_eq!(sim.join_answer(leads), None, "waits for the one that is away");
    sim.pass(60_000);
    assert_eq!(sim.join_answer(leads).unwrap().unwrap().members.len(), 2, "it is still a member");
    sim.sync(&leader, 3, &[(&away, "b")]).unwrap();
    for _ in 0..48 {
        sim.pass(5_000);
        if sim.heartbeat(&leader, 3).is_err() {
            break;
        }
    }
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance, "its session is over");
    assert_eq!(sim.join(request(&leader)).unwrap().members.len(), 1);
}

#[test]
fn a_group_of_static_members_that_are_all_away_waits_for_them_and_ends_empty() {
    let mut sim = Sim::new();
    let mut lasting = fixed("i");
    lasting.session_timeout_ms = 300_000;
    let first = sim.join(lasting.clone()).unwrap().member_id;
    sim.sync(&first, 1, &[]).unwrap();
    let passing = sim.send_join(request(""));
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance);
    let gone = MemberRef { member_id: sim.group.describe().members[1].member.member_id.clone(), instance_id: None };
    assert_eq!(sim.leave(&[gone]), [Ok(())]);
    assert!(sim.join_answer(passing).unwrap().is_err());
    sim.pass(200_000);
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance);
    let back = sim.join(lasting).unwrap();
    assert_eq!((back.generation, back.members.len()), (2, 1));
    sim.pass(300_000);
    assert_eq!(sim.group.state(), GroupState::Empty);
}

#[test]
fn leaving_takes_a_list_and_reports_per_member() {
    let mut sim = Sim::new();
    let (leader, second) = sim.two();
    let by_instance = MemberRef { member_id: String::new(), instance_id: Some("i".into()) };
    let answers = sim.leave(&[member(&second), member("x"), by_instance.clone(), member(&second)]);
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(answers, [Ok(()), unknown.clone(), unknown.clone(), unknown]);
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance);
    sim.join(request(&leader)).unwrap();
    sim.send_join(fixed("i"));
    assert_eq!(sim.leave(&[by_instance, member(&leader)]), [Ok(()), Ok(())]);
    assert_eq!(sim.group.state(), GroupState::Empty, "at once, so that it can be deleted");
    assert_eq!(sim.group.check_delete(), Ok(()));
    let stored = sim.durable.clone().unwrap();
    assert_eq!((stored.members.len(), stored.protocol, stored.protocol_type), (0, None, "consumer".to_owned()));
}

#[test]
fn only_an_empty_group_can_be_deleted() {
    let mut sim = Sim::new();
    let joined = sim.join(request("")).unwrap();
    assert_eq!(sim.group.check_delete(), Err(GroupError::NonEmptyGroup), "completing");
    sim.sync(&joined.member_id, 1, &[]).unwrap();
    assert_eq!(sim.group.check_delete(), Err(GroupError::NonEmptyGroup), "stable");
    sim.send_join(request(""));
    assert_eq!(sim.group.check_delete(), Err(GroupError::NonEmptyGroup), "preparing");
    let mut sim = Sim::new();
    assert_eq!(sim.group.check_delete(), Ok(()));
    sim.group.kill(0);
    assert_eq!(sim.group.check_delete(), Err(GroupError::GroupIdNotFound));
    assert_eq!(sim.join(request("")), Err(GroupError::CoordinatorNotAvailable));
}

#[test]
fn a_simple_commit_is_taken_while_nobody_is_a_member() {
    let mut sim = Sim::new();
    assert_eq!(sim.commit("", None), Ok(()));
    let id = sim.one();
    assert_eq!(sim.commit("", None), Err(GroupError::UnknownMemberId));
    sim.leave(&[member(&id)]);
    assert_eq!(sim.commit("", None), Ok(()));
    assert_eq!(sim.commit(&id, Some(1)), Err(GroupError::UnknownMemberId));
}

#[test]
fn nobody_gets_an_assignment_before_it_is_durable() {
    let mut sim = Sim::new();
    let joined = sim.join(request("")).unwrap();
    sim.slow_store = true;
    let waits = sim.send_sync(sync(&joined.member_id, 1, &[(&joined.member_id, "a")]));
    assert_eq!(sim.sync_answer(waits), None);
    assert_eq!(sim.group.state(), GroupState::CompletingRebalance);
    sim.pass(20_000);
    sim.store(Ok(()));
    assert_eq!(sim.sync_answer(waits).unwrap().unwrap().assignment, "a");
    assert_eq!(sim.group.state(), GroupState::Stable);
}

#[test]
fn assignments_that_could_not_be_stored_are_not_given_out() {
    let mut sim = Sim::new();
    let joined = sim.join(request("")).unwrap();
    sim.slow_store = true;
    let waits = sim.send_sync(sync(&joined.member_id, 1, &[]));
    sim.store(Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(sim.sync_answer(waits), Some(Err(GroupError::CoordinatorNotAvailable)));
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance);
    let back = sim.send_join(fixed("i"));
    assert_eq!(sim.join(request(&joined.member_id)).unwrap().generation, 2);
    assert!(sim.join_answer(back).is_some());
}

#[test]
fn a_write_that_ends_after_its_generation_changes_nothing() {
    let mut sim = Sim::new();
    let joined = sim.join(request("")).unwrap();
    sim.slow_store = true;
    let waits = sim.send_sync(sync(&joined.member_id, 1, &[]));
    let new = sim.send_join(request(""));
    assert_eq!(sim.sync_answer(waits), Some(Err(GroupError::RebalanceInProgress)));
    sim.store(Ok(()));
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance);
    sim.join(request(&joined.member_id)).unwrap();
    assert_eq!(sim.join_answer(new).unwrap().unwrap().generation, 2);
}

#[test]
fn a_static_member_that_comes_back_into_a_rebalance_takes_part_in_it() {
    let mut sim = Sim::new();
    let old = sim.join(fixed("i")).unwrap().member_id;
    sim.sync(&old, 1, &[]).unwrap();
    sim.slow_store = true;
    let back = sim.send_join(fixed("i"));
    assert_eq!(sim.join_answer(back), None, "not durable yet");
    let new = sim.send_join(request(""));
    assert_eq!(sim.join_answer(back).unwrap().unwrap().generation, 2);
    assert_eq!(sim.join_answer(new).unwrap().unwrap().generation, 2);
    sim.store(Ok(()));
    assert_eq!(sim.group.state(), GroupState::CompletingRebalance);
}

#[test]
fn a_restored_group_goes_on_where_it_was() {
    let mut sim = Sim::new();
    let (leader, second) = sim.two();
    let stored = sim.durable.clone().unwrap();
    let mut sim = Sim::of(Group::restored(LIMITS, stored, 0));
    assert_eq!(sim.group.state(), GroupState::Stable);
    assert_eq!(sim.heartbeat(&leader, 2), Ok(()));
    assert_eq!(sim.sync(&second, 2, &[]).unwrap().assignment, "s");
    assert_eq!(sim.commit(&second, Some(2)), Ok(()));
    assert_eq!(sim.commit(&second, Some(1)), Err(GroupError::IllegalGeneration));
    sim.pass(9_999);
    sim.heartbeat(&leader, 2).unwrap();
    sim.pass(1);
    assert_eq!(sim.heartbeat(&leader, 2), Err(GroupError::RebalanceInProgress), "the other did not come back");
    assert_eq!(sim.join(request(&leader)).unwrap().generation, 3);
    sim.leave(&[member(&leader)]);
    let stored = sim.durable.clone().unwrap();
    let mut sim = Sim::of(Group::restored(LIMITS, stored, 0));
    assert_eq!(sim.group.state(), GroupState::Empty);
    assert_eq!(sim.join(request("")).unwrap().generation, 5, "generations go on");
}

#[test]
fn a_static_member_stored_under_an_older_id_may_join_anew() {
    let mut sim = Sim::new();
    let old = sim.join(fixed("i")).unwrap().member_id;
    sim.sync(&old, 1, &[]).unwrap();
    let stored = sim.durable.clone().unwrap();
    let newer = MemberRef { member_id: "i-newer".into(), instance_id: Some("i".into()) };
    let mut sim = Sim::of(Group::restored(LIMITS, stored, 0));
    assert_eq!(sim.group.heartbeat(0, &newer, 1), Err(GroupError::UnknownMemberId));
    sim.heartbeat(&old, 1).unwrap();
    assert_eq!(sim.group.heartbeat(0, &newer, 1), Err(GroupError::FencedInstanceId), "the stored one is alive");
}

#[test]
fn a_generation_without_assignments_takes_no_commits() {
    let mut sim = Sim::new();
    let (leader, second) = sim.two();
    let new = sim.send_join(request(""));
    assert_eq!(sim.commit(&second, Some(2)), Ok(()));
    let leads = sim.send_join(request(&leader));
    assert_eq!(sim.join(request(&second)).unwrap().generation, 3);
    let new = sim.join_answer(new).unwrap().unwrap().member_id;
    assert!(sim.join_answer(leads).is_some());
    sim.leave(&[member(&new)]);
    assert_eq!(sim.group.state(), GroupState::PreparingRebalance);
    assert_eq!(sim.commit(&second, Some(3)), Err(GroupError::RebalanceInProgress), "a restart would forget it");
}

#[test]
fn what_is_too_large_or_said_twice_is_refused() {
    let mut sim = Sim::new();
    let mut large = request("");
    large.protocols = vec![("range".into(), Bytes::from(vec![0; 10_000]))];
    assert_eq!(sim.join(large), Err(GroupError::InvalidRequest));
    let mut twice = request("");
    twice.protocols = vec![("range".into(), Bytes::new()), ("range".into(), Bytes::new())];
    assert_eq!(sim.join(twice), Err(GroupError::InvalidRequest));
    let mut long = request("");
    long.client_id = "x".repeat(8_193);
    assert_eq!(sim.join(long), Err(GroupError::InvalidRequest));
    let mut half = request("");
    half.protocols = vec![("range".into(), Bytes::from(vec![0; 6_000]))];
    let id = sim.join(half.clone()).unwrap().member_id;
    assert_eq!(sim.join(half.clone()), Err(GroupError::InvalidRequest), "too much for one group");
    half.member.member_id = id.clone();
    assert!(sim.join(half).is_ok(), "its own counts once");
    let large: &'static str = Box::leak("x".repeat(10_001).into_boxed_str());
    assert_eq!(sim.sync(&id, 1, &[(&id, large)]), Err(GroupError::InvalidRequest));
}

#[test]
fn offsets_expire_by_what_the_group_does() {
    let mut sim = Sim::new();
    assert_eq!(sim.group.expiry(), Expiry::SinceCommit);
    sim.now = 500;
    let id = sim.one();
    assert_eq!(sim.group.expiry(), Expiry::Unsubscribed(["t".to_owned()].into()));
    assert!(sim.group.reads("t") && !sim.group.reads("u"));
    sim.now = 700;
    sim.leave(&[member(&id)]);
    assert_eq!(sim.group.expiry(), Expiry::Since(700));
    assert!(!sim.group.reads("t"));
    let mut unreadable = request("");
    unreadable.protocols = vec![("range".into(), Bytes::from_static(b"x"))];
    let id = sim.join(unreadable).unwrap().member_id;
    sim.sync(&id, 3, &[]).unwrap();
    assert_eq!(sim.group.expiry(), Expiry::Never, "nobody knows what it reads");
    assert!(sim.group.reads("u"));
}

#[test]
fn a_description_shows_metadata_and_assignments_only_when_stable() {
    let mut sim = Sim::new();
    let id = sim.one();
    let shown = sim.group.describe();
    assert_eq!((shown.state, shown.protocol.as_str(), shown.generation), (GroupState::Stable, "range", 1));
    let [member] = &shown.members[..] else { panic!("one member") };
    assert_eq!((&member.member.member_id, member.client_id.as_str(), member.client_host.as_str()), (&id, "c", "/h"));
    assert_eq!((member.metadata.clone(), &member.assignment[..]), (subscribed(), &b"a"[..]));
    sim.send_join(request(""));
    let shown = sim.group.describe();
    assert_eq!((shown.state, shown.protocol.as_str()), (GroupState::PreparingRebalance, ""));
    assert!(shown.members.iter().all(|m| m.metadata.is_empty() && m.assignment.is_empty()));
}
