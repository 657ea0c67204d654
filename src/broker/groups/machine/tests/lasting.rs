//! What outlives a generation: what is stored, committed offsets, deletion.

use bytes::Bytes;

use super::super::Group;
use super::super::sim::{LIMITS, Sim, fixed, member, request, subscribed, sync};
use super::super::view::Expiry;
use crate::broker::groups::GroupError;
use crate::broker::groups::request::GroupState;

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
