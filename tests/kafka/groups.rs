//! Groups: one member from joining to leaving, and how the server stops under parked requests.

use std::time::{Duration, Instant};

use azulite::kafka::codec::Str;
use azulite::kafka::codec::messages::describe_groups::DescribeGroupsRequest;
use azulite::kafka::codec::messages::fetch::FetchRequest;
use azulite::kafka::codec::messages::heartbeat::HeartbeatRequest;
use azulite::kafka::codec::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use azulite::kafka::codec::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use azulite::kafka::codec::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use azulite::kafka::codec::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic,
};
use azulite::kafka::codec::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use azulite::kafka::error::ErrorCode;

use crate::support::await_that;
use crate::wire::{self, Wire, fetch};

fn joining(group: &str, member: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.to_owned().into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: member.to_owned().into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: b"wants"[..].into() }],
        ..Default::default()
    }
}

/// Joins in both steps; the answer to the second.
pub(crate) fn join(wire: &mut Wire, group: &str, reason: Option<Str>) -> JoinGroupResponse {
    let first = wire.ask(&joining(group, ""), 9);
    assert_eq!(first.error_code, ErrorCode::MemberIdRequired, "{first:?}");
    let joined = wire.ask(&JoinGroupRequest { reason, ..joining(group, &first.member_id) }, 9);
    assert_eq!((joined.error_code, &joined.leader), (ErrorCode::None, &joined.member_id), "{joined:?}");
    joined
}

fn committed(wire: &mut Wire, group: &str) -> Vec<(i64, Option<Str>)> {
    let wanted = OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0, 0, 1] };
    let group =
        OffsetFetchRequestGroup { group_id: group.to_owned().into(), topics: Some(vec![wanted]), ..Default::default() };
    let answer = wire.ask(&OffsetFetchRequest { groups: vec![group], ..Default::default() }, 9);
    assert_eq!(answer.groups[0].error_code, ErrorCode::None, "{answer:?}");
    let partitions = answer.groups[0].topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|p| (p.committed_offset, p.metadata.clone())).collect()
}

#[test]
fn a_member_joins_syncs_commits_and_leaves_and_its_position_survives_a_kill() {
    let mut server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 2, &[]);
    let joined = join(&mut wire, "g", None);
    assert_eq!(joined.members[0].metadata, b"wants"[..]);
    let (member_id, generation_id) = (joined.member_id.clone(), joined.generation_id);
    let assignment = SyncGroupRequestAssignment { member_id: member_id.clone(), assignment: b"has"[..].into() };
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id,
        member_id: member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![assignment],
        ..Default::default()
    };
    assert_eq!(wire.ask(&request, 5).assignment, b"has"[..]);
    let beat = |generation_id| HeartbeatRequest {
        group_id: "g".into(),
        generation_id,
        member_id: member_id.clone(),
        ..Default::default()
    };
    assert_eq!(wire.ask(&beat(generation_id), 4).error_code, ErrorCode::None);
    assert_eq!(wire.ask(&beat(generation_id + 1), 4).error_code, ErrorCode::IllegalGeneration);
    let partition = OffsetCommitRequestPartition {
        committed_offset: 7,
        committed_metadata: Some("where".into()),
        ..Default::default()
    };
    let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition] }];
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: generation_id,
        member_id: member_id.clone(),
        topics,
        ..Default::default()
    };
    assert_eq!(wire.ask(&commit, 9).topics[0].partitions[0].error_code, ErrorCode::None);
    let expected = [(7, Some("where".into())), (7, Some("where".into())), (-1, Some("".into()))];
    assert_eq!(committed(&mut wire, "g"), expected, "also what is asked for twice");
    let members = vec![MemberIdentity { member_id: member_id.clone(), ..Default::default() }];
    let left = wire.ask(&LeaveGroupRequest { group_id: "g".into(), members, ..Default::default() }, 5);
    assert_eq!(left.members[0].error_code, ErrorCode::None);
    assert_eq!(wire.ask(&beat(generation_id), 4).error_code, ErrorCode::UnknownMemberId);
    server.crash();
    assert_eq!(committed(&mut Wire::to(&server), "g"), expected);
}

#[test]
fn a_group_with_members_is_left_alone_by_hand_until_they_are_gone() {
    let mut server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 1, &[]);
    assert_eq!(wire.produce("t", wire::batch(&[b"a", b"b"])).error_code, ErrorCode::None);
    let joined = join(&mut wire, "g", None);
    let reset = ["groups", "reset", "g", "--topic", "t", "--to", "latest"];
    for verb in [&reset[..], &["groups", "delete", "g"]] {
        let ran = server.cli(verb).expect_code(1);
        assert!(ran.stderr.contains("\"g\" has live members"), "{ran:?}");
    }
    let refused = server.client().delete("/api/azulite/v1/groups/g").expect_status(409);
    assert!(refused.text().contains("live members"), "{refused:?}");
    let members = vec![MemberIdentity { member_id: joined.member_id.clone(), ..Default::default() }];
    let left = wire.ask(&LeaveGroupRequest { group_id: "g".into(), members, ..Default::default() }, 5);
    assert_eq!(left.members[0].error_code, ErrorCode::None);
    server.cli(reset).expect_code(0);
    assert_eq!(committed(&mut wire, "g")[0].0, 2);
    // With the server gone nobody is a member, whatever was written down.
    join_and_sync(&mut wire, "g");
    server.stop();
    server.cli(["groups", "reset", "g", "--topic", "t", "--to", "earliest"]).expect_code(0);
    server.launch();
    let mut wire = Wire::to(&server);
    assert_eq!(committed(&mut wire, "g")[0].0, 0);
    server.cli(["groups", "delete", "g"]).expect_code(0);
    assert_eq!(committed(&mut wire, "g")[0].0, -1);
}

/// Makes a group of one member, with its assignment.
fn join_and_sync(wire: &mut Wire, group: &str) {
    let JoinGroupResponse { member_id, generation_id, .. } = join(wire, group, None);
    let assignment = SyncGroupRequestAssignment { member_id: member_id.clone(), assignment: b"has"[..].into() };
    let request = SyncGroupRequest {
        group_id: group.to_owned().into(),
        generation_id,
        member_id,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![assignment],
        ..Default::default()
    };
    assert_eq!(wire.ask(&request, 5).error_code, ErrorCode::None);
}

#[test]
fn the_server_stops_at_once_under_parked_requests() {
    let mut server = wire::start();
    let mut wires: Vec<_> = (0..20).map(|_| Wire::to(&server)).collect();
    wires[0].create("t", 1, &[]);
    let mut first = Wire::to(&server);
    join(&mut first, "g", None);
    // It waits for the first member, which does not come back for a minute.
    let mut second = Wire::to(&server);
    let given = second.ask(&joining("g", ""), 9);
    second.send(&joining("g", &given.member_id), 9);
    for wire in &mut wires {
        wire.send(&FetchRequest { max_wait_ms: 60_000, ..fetch("t", 0, 0) }, 11);
    }
    server.await_readers(20);
    let asked = DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() };
    await_that("the second member", || first.ask(&asked, 5).groups[0].group_state[..] == *"PreparingRebalance");
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(wires.iter_mut().all(Wire::is_closed) && second.is_closed());
}
