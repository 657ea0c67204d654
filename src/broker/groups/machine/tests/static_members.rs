//! Members with a lasting name.

use super::super::Group;
use super::super::sim::{LIMITS, Sim, fixed, request, sync};
use crate::broker::groups::request::{Committer, GroupState, MemberRef};
use crate::broker::groups::subscription::subscription;
use crate::broker::groups::{GroupError, SyncRequest};

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
