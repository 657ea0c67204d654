//! Single members: ids, sessions, refusals.

use bytes::Bytes;

use super::super::Limits;
use super::super::sim::{LIMITS, Sim, fixed, member, request};
use crate::broker::groups::GroupError;
use crate::broker::groups::request::{GroupState, MemberRef};

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
