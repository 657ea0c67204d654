//! The coordinator over a real store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use azulite_storage::fs::RealFs;
use azulite_storage::{Store, clock};
use bytes::Bytes;

use super::subscription::subscription;
use super::*;
use crate::broker::{Broker, CommittedOffset, GroupChanges, GroupRecord, NewTopic, TopicPartition};

const DAY_MS: i64 = 86_400_000;

struct World {
    store: Store,
    broker: Broker,
    coordinator: Coordinator,
}

fn options() -> Options {
    Options { min_session_timeout_ms: 50, ..Options::default() }
}

fn open_with(root: &Path, options: Options) -> World {
    let storage = azulite_storage::Options { segment_bytes: 1 << 20, ..azulite_storage::Options::new(root.to_owned()) };
    let store = Store::open(Arc::new(RealFs), storage).unwrap();
    let broker = Broker::new(Arc::new(store.clone()));
    for name in ["t", "u"] {
        let new = || NewTopic { name: name.into(), partitions: 3, config: BTreeMap::new() };
        broker.topic_or_create(name, new).unwrap();
    }
    let coordinator = Coordinator::start(broker.clone(), options).unwrap();
    World { store, broker, coordinator }
}

fn open(root: &Path) -> World {
    open_with(root, options())
}

impl World {
    /// As after a kill: nothing is left but what was durable.
    async fn reopen(self, root: &Path) -> World {
        self.coordinator.stop();
        self.store.close();
        let Self { store, broker, coordinator } = self;
        // Tasks that still hold the store end with the coordinator.
        drop((store, broker, coordinator));
        for _ in 0..200 {
            let storage = azulite_storage::Options::new(root.to_owned());
            match Store::open(Arc::new(RealFs), storage) {
                Ok(store) => drop(store),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            }
            break;
        }
        open(root)
    }

    async fn commit(
        &self,
        group: &str,
        committer: &Committer,
        offsets: Vec<OffsetToCommit>,
    ) -> Vec<Option<GroupError>> {
        let answers = self.coordinator.commit_offsets(group, committer, offsets).await.unwrap();
        answers.into_iter().map(|(_, answer)| answer.err()).collect()
    }

    async fn committed(&self, group: &str) -> BTreeMap<TopicPartition, i64> {
        let all = self.coordinator.fetch_offsets(group, None).await.unwrap();
        all.into_iter().map(|(place, committed)| (place, committed.unwrap().offset)).collect()
    }

    /// A group of one stable member; its name and generation as a committer.
    async fn one(&self, group: &str) -> Committer {
        let joined = self.coordinator.join(group, request("")).await.unwrap();
        let member = MemberRef { member_id: joined.member_id.clone(), instance_id: None };
        let sync = SyncRequest {
            member: member.clone(),
            generation: joined.generation,
            assignments: vec![(joined.member_id, Bytes::from_static(b"all"))],
            ..SyncRequest::default()
        };
        assert_eq!(self.coordinator.sync(group, sync).await.unwrap().assignment, "all");
        Committer { member, generation: Some(joined.generation) }
    }
}

fn request(id: &str) -> JoinRequest {
    JoinRequest {
        member: MemberRef { member_id: id.into(), instance_id: None },
        client_id: "c".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: Some(10_000),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"], b""))],
        ..JoinRequest::default()
    }
}

fn place(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}

fn offset(topic: &str, partition: i32, offset: i64) -> OffsetToCommit {
    OffsetToCommit { place: place(topic, partition), offset, leader_epoch: -1, metadata: String::new() }
}

#[tokio::test]
async fn offsets_and_the_group_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let member = world.one("g").await;
    let text = OffsetToCommit { leader_epoch: 4, metadata: "héllo".into(), ..offset("t", 1, 7) };
    assert_eq!(world.commit("g", &member, vec![text]).await, [None]);
    let world = world.reopen(dir.path()).await;
    let wanted = vec![place("t", 1), place("t", 0)];
    let fetched = world.coordinator.fetch_offsets("g", Some(wanted)).await.unwrap();
    let [(_, Some(committed)), (_, None)] = &fetched[..] else { panic!("{fetched:?}") };
    assert_eq!((committed.offset, committed.leader_epoch, committed.metadata.as_str()), (7, 4, "héllo"));
    // The member was not told of the restart and goes on.
    world.coordinator.heartbeat("g", &member.member, 1).unwrap();
    assert_eq!(world.commit("g", &member, vec![offset("t", 1, 8)]).await, [None]);
    let shown = world.coordinator.describe("g").await.unwrap().unwrap();
    assert_eq!((shown.state, shown.generation, shown.members.len()), (GroupState::Stable, 1, 1));
    assert_eq!(shown.members[0].assignment, "all");
    world.coordinator.leave("g", &[member.member]).unwrap();
    let second = world.one("g").await;
    assert_eq!(second.generation, Some(3), "generations go on");
    assert_eq!(world.coordinator.fetch_offsets("nobody", None).await, Ok(vec![]), "an unknown group is no error");
}

#[tokio::test]
async fn commits_are_checked_per_partition_and_by_generation() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let nobody = Committer::default();
    let long = |len: usize| OffsetToCommit { metadata: "x".repeat(len), ..offset("t", 0, 1) };
    let unknown = Some(GroupError::UnknownTopicOrPartition);
    let offsets = vec![offset("t", 0, 5), offset("t", 3, 5), offset("v", 0, 5), long(4_097), offset("t", 1, -1)];
    let answers = world.commit("simple", &nobody, offsets).await;
    let too_large = Some(GroupError::OffsetMetadataTooLarge);
    assert_eq!(answers, [None, unknown.clone(), unknown, too_large, Some(GroupError::InvalidRequest)]);
    assert_eq!(world.commit("simple", &nobody, vec![long(4_096)]).await, [None]);
    assert_eq!(world.committed("simple").await, BTreeMap::from([(place("t", 0), 1)]));
    let member = world.one("g").await;
    let commit = async |committer: &Committer| {
        world.coordinator.commit_offsets("g", committer, vec![offset("t", 0, 9)]).await.map(drop)
    };
    assert_eq!(commit(&nobody).await, Err(GroupError::UnknownMemberId));
    let older = Committer { generation: Some(0), ..member.clone() };
    assert_eq!(commit(&older).await, Err(GroupError::IllegalGeneration));
    let stranger = Committer { member: MemberRef { member_id: "x".into(), instance_id: None }, generation: Some(1) };
    assert_eq!(commit(&stranger).await, Err(GroupError::UnknownMemberId));
    assert_eq!(commit(&member).await, Ok(()));
    let empty = world.coordinator.commit_offsets("", &nobody, vec![]).await;
    assert_eq!(empty, Err(GroupError::InvalidGroupId));
    assert!(world.coordinator.shared.find("simple").is_none(), "a group nobody joined costs no memory");
}

#[tokio::test]
async fn offsets_of_topics_that_are_read_stay_and_others_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let member = world.one("g").await;
    assert_eq!(world.commit("g", &member, vec![offset("t", 0, 1), offset("u", 0, 2)]).await, [None, None]);
    let places = || vec![place("t", 0), place("u", 0), place("u", 1), place("v", 0)];
    let answers = world.coordinator.delete_offsets("g", places()).await.unwrap();
    let answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
    let (subscribed, unknown) = (Err(GroupError::GroupSubscribedToTopic), Err(GroupError::UnknownTopicOrPartition));
    assert_eq!(answers, [subscribed, Ok(()), Ok(()), unknown]);
    assert_eq!(world.committed("g").await, BTreeMap::from([(place("t", 0), 1)]));
    world.coordinator.leave("g", &[member.member]).unwrap();
    world.coordinator.delete_offsets("g", places()).await.unwrap();
    let world = world.reopen(dir.path()).await;
    assert_eq!(world.committed("g").await, BTreeMap::new());
    assert_eq!(world.coordinator.delete_offsets("x", places()).await, Err(GroupError::GroupIdNotFound));
}

#[tokio::test]
async fn a_group_whose_last_offset_was_deleted_is_there_until_it_is_deleted_itself() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.commit("simple", &Committer::default(), vec![offset("t", 0, 1)]).await;
    world.coordinator.delete_offsets("simple", vec![place("t", 0)]).await.unwrap();
    assert!(world.coordinator.describe("simple").await.unwrap().is_some());
    assert_eq!(world.coordinator.delete_group("simple").await, Ok(()));
    assert_eq!(world.coordinator.list(vec![], vec![]).await, Ok(vec![]));
}

#[tokio::test]
async fn a_group_is_deleted_whole_and_for_good_once_nobody_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let member = world.one("g").await;
    assert_eq!(world.commit("g", &member, vec![offset("t", 0, 1)]).await, [None]);
    assert_eq!(world.coordinator.delete_group("g").await, Err(GroupError::NonEmptyGroup));
    assert_eq!(world.coordinator.delete_group("x").await, Err(GroupError::GroupIdNotFound));
    world.coordinator.leave("g", std::slice::from_ref(&member.member)).unwrap();
    assert_eq!(world.coordinator.delete_group("g").await, Ok(()));
    assert_eq!(world.coordinator.delete_group("g").await, Err(GroupError::GroupIdNotFound));
    assert_eq!(world.coordinator.heartbeat("g", &member.member, 1), Err(GroupError::UnknownMemberId));
    assert_eq!(world.commit("simple", &Committer::default(), vec![offset("t", 0, 1)]).await, [None]);
    assert_eq!(world.coordinator.delete_group("simple").await, Ok(()));
    let world = world.reopen(dir.path()).await;
    assert_eq!(world.coordinator.list(vec![], vec![]).await, Ok(vec![]));
    assert_eq!(world.coordinator.describe("g").await, Ok(None));
    assert_eq!(world.one("g").await.generation, Some(1), "a new group");
}

#[tokio::test]
async fn lists_show_every_kind_of_group_and_filter_them() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.one("stable").await;
    let left = world.one("left").await;
    world.coordinator.leave("left", &[left.member]).unwrap();
    world.commit("simple", &Committer::default(), vec![offset("t", 0, 1)]).await;
    put_http_group(&world, "http", clock::now_ms(), 1);
    let list = async |states: &[&str], types: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let listed = world.coordinator.list(owned(states), owned(types)).await.unwrap();
        listed.into_iter().map(|g| (g.group, g.state.name(), g.protocol_type)).collect::<Vec<_>>()
    };
    let row = |name: &str, state, protocol_type: &str| (name.to_owned(), state, protocol_type.to_owned());
    let empty = vec![row("http", "Empty", ""), row("left", "Empty", "consumer"), row("simple", "Empty", "")];
    let stable = vec![row("stable", "Stable", "consumer")];
    assert_eq!(list(&[], &[]).await, [empty.clone(), stable.clone()].concat());
    assert_eq!(list(&["stable"], &[]).await, stable);
    assert_eq!(list(&["EMPTY", "dead"], &["Classic"]).await, empty);
    assert_eq!(list(&[], &["consumer"]).await, []);
    let http = world.coordinator.describe("http").await.unwrap().unwrap();
    assert_eq!((http.state, http.members.len()), (GroupState::Empty, 0));
    assert_eq!(world.committed("http").await, BTreeMap::from([(place("t", 0), 1)]));
}

fn put_http_group(world: &World, group: &str, used_ms: i64, offset: i64) {
    let committed = CommittedOffset { offset, leader_epoch: -1, metadata: String::new(), commit_time_ms: 1 };
    let record = GroupRecord { used_ms, ..GroupRecord::default() };
    let offsets = vec![(place("t", 0), Some(committed))];
    let changes = GroupChanges { offsets, values: vec![record.put(group)], metadata: None };
    super::offsets::overwrite(&world.broker, group, changes).unwrap();
}

#[tokio::test]
async fn offsets_expire_unless_somebody_uses_them() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let now_ms = clock::now_ms();
    world.commit("simple", &Committer::default(), vec![offset("t", 0, 1)]).await;
    let member = world.one("member").await;
    world.commit("member", &member, vec![offset("t", 0, 1), offset("u", 0, 1)]).await;
    let left = world.one("left").await;
    world.commit("left", &left, vec![offset("t", 0, 1)]).await;
    world.coordinator.leave("left", &[left.member]).unwrap();
    put_http_group(&world, "polled", now_ms + 20 * DAY_MS, 1);
    put_http_group(&world, "idle", now_ms, 1);
    let expire = async |days: i64| {
        let shared = world.coordinator.shared.clone();
        tokio::task::spawn_blocking(move || shared.expire(now_ms + days * DAY_MS + 60_000).unwrap()).await.unwrap()
    };
    assert_eq!(expire(29).await, 0);
    assert_eq!(expire(30).await, 4);
    // What is removed is queued; nobody waits for it but this.
    for group in ["idle", "left", "member", "simple"] {
        world.broker.positions(group).settled();
    }
    let listed = world.coordinator.list(vec![], vec![]).await.unwrap();
    let names: Vec<_> = listed.into_iter().map(|g| g.group).collect();
    assert_eq!(names, ["member", "polled"]);
    assert_eq!(world.committed("member").await, BTreeMap::from([(place("t", 0), 1)]), "u is not read");
    assert!(world.coordinator.shared.find("left").is_none());
    assert_eq!(expire(50).await, 1);
    let world = world.reopen(dir.path()).await;
    let listed = world.coordinator.list(vec![], vec![]).await.unwrap();
    assert_eq!(listed.into_iter().map(|g| g.group).collect::<Vec<_>>(), ["member"]);
}

#[tokio::test]
async fn a_topic_that_is_gone_leaves_no_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    for group in ["a", "b"] {
        world.commit(group, &Committer::default(), vec![offset("t", 0, 1), offset("u", 2, 1)]).await;
    }
    world.broker.log().delete_topic("t").unwrap();
    for group in ["a", "b"] {
        assert_eq!(world.committed(group).await, BTreeMap::from([(place("u", 2), 1)]));
    }
    let unknown = Some(GroupError::UnknownTopicOrPartition);
    let offsets = vec![offset("t", 0, 1), offset("u", 2, 1)];
    assert_eq!(world.commit("a", &Committer::default(), offsets).await, [unknown, None]);
    let world = world.reopen(dir.path()).await;
    for group in ["a", "b"] {
        assert_eq!(world.committed(group).await, BTreeMap::from([(place("u", 2), 1)]));
    }
}

#[tokio::test]
async fn a_silent_member_is_dropped_in_time_and_pending_ids_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let mut short = request("");
    (short.session_timeout_ms, short.member_id_required) = (100, true);
    let first = world.coordinator.join("g", short.clone()).await;
    let Err(GroupError::MemberIdRequired { member_id }) = first else { panic!("{first:?}") };
    assert!(member_id.starts_with("c-") && member_id.len() == 2 + 36, "{member_id}");
    short.member.member_id = member_id;
    let joined = world.coordinator.join("g", short.clone()).await.unwrap();
    let waiting = tokio::spawn({
        let coordinator = world.coordinator.clone();
        async move { coordinator.join("g", request("")).await }
    });
    let started = Instant::now();
    let other = waiting.await.unwrap().unwrap();
    assert_eq!((other.generation, other.members.len()), (2, 1));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(world.coordinator.heartbeat("g", &short.member, joined.generation), Err(GroupError::UnknownMemberId));
    let forgotten = short.clone();
    let answer = world.coordinator.join("h", JoinRequest { member: MemberRef::default(), ..forgotten }).await;
    assert!(matches!(answer, Err(GroupError::MemberIdRequired { .. })), "{answer:?}");
    for _ in 0..200 {
        if world.coordinator.shared.find("h").is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a group nobody came back to is still there");
}

#[tokio::test]
async fn groups_are_bounded_and_a_stop_answers_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let world = open_with(dir.path(), Options { max_groups: 1, ..options() });
    world.one("g").await;
    assert_eq!(world.coordinator.join("h", request("")).await, Err(GroupError::GroupMaxSizeReached));
    assert_eq!(world.coordinator.join("", request("")).await, Err(GroupError::InvalidGroupId));
    let waiting = tokio::spawn({
        let coordinator = world.coordinator.clone();
        async move { coordinator.join("g", request("")).await }
    });
    tokio::task::yield_now().await;
    world.coordinator.stop();
    assert_eq!(waiting.await.unwrap(), Err(GroupError::CoordinatorNotAvailable));
}

#[tokio::test]
async fn a_heartbeat_costs_little_whatever_the_number_of_groups() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let mut members = Vec::new();
    for n in 0..500 {
        let group = format!("g{n}");
        let member = world.one(&group).await;
        members.push((group, member.member));
    }
    let started = Instant::now();
    for _ in 0..20 {
        for (group, member) in &members {
            world.coordinator.heartbeat(group, member, 1).unwrap();
        }
    }
    let each = started.elapsed() / 10_000;
    // 500 members that beat every 3 s may cost 5 % of a core: 300 µs each, and most of that is the connection's.
    assert!(each < Duration::from_micros(150), "{each:?} per heartbeat");
}

/// A consumer as clients are: joins in two steps, assigns when it leads, beats, and leaves after a while.
struct Consumer {
    coordinator: Coordinator,
    group: String,
    member: MemberRef,
    explained: Arc<AtomicUsize>,
}

impl Consumer {
    async fn join(&mut self) -> i32 {
        loop {
            let mut request = request(&self.member.member_id);
            request.member_id_required = true;
            let joined = match self.coordinator.join(&self.group, request).await {
                Ok(joined) => joined,
                Err(GroupError::MemberIdRequired { member_id }) => {
                    self.member.member_id = member_id;
                    continue;
                }
                Err(GroupError::RebalanceInProgress) => continue,
                Err(error) => panic!("{}: join: {error:?}", self.group),
            };
            let given = |m: &JoinedMember| (m.member.member_id.clone(), Bytes::from(m.member.member_id.clone()));
            let sync = SyncRequest {
                member: self.member.clone(),
                generation: joined.generation,
                assignments: joined.members.iter().map(given).collect(),
                ..SyncRequest::default()
            };
            match self.coordinator.sync(&self.group, sync).await {
                Ok(synced) => {
                    assert_eq!(synced.assignment, self.member.member_id);
                    return joined.generation;
                }
                Err(GroupError::RebalanceInProgress | GroupError::IllegalGeneration) => {
                    self.explained.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => panic!("{}: sync: {error:?}", self.group),
            }
        }
    }

    /// Beats and commits for some rounds, joining again when it is told to.
    async fn live(&mut self, rounds: usize, partition: i32) {
        let mut generation = self.join().await;
        for round in 0..rounds {
            tokio::time::sleep(Duration::from_millis(3)).await;
            let beat = self.coordinator.heartbeat(&self.group, &self.member, generation);
            let committer = Committer { member: self.member.clone(), generation: Some(generation) };
            let offsets = vec![offset("t", partition, i64::try_from(round).unwrap())];
            let commit = self.coordinator.commit_offsets(&self.group, &committer, offsets).await;
            for answer in [beat, commit.map(drop)] {
                match answer {
                    Ok(()) => {}
                    Err(GroupError::RebalanceInProgress | GroupError::IllegalGeneration) => {
                        generation = self.join().await;
                        break;
                    }
                    Err(error) => panic!("{}: {error:?}", self.group),
                }
            }
        }
    }
}

/// Three groups, each fed by the one before, three members each that come and go: nobody is ever unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chained_groups_with_concurrent_joins_lose_no_member() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let explained = Arc::new(AtomicUsize::new(0));
    let mut running = Vec::new();
    for group in ["one", "two", "three"] {
        for partition in 0..3 {
            let (coordinator, explained) = (world.coordinator.clone(), explained.clone());
            running.push(tokio::spawn(async move {
                for life in 0..6 {
                    let mut consumer = Consumer {
                        coordinator: coordinator.clone(),
                        group: group.to_owned(),
                        member: MemberRef::default(),
                        explained: explained.clone(),
                    };
                    let rounds = 5 + usize::try_from(partition).unwrap() * 3 + life;
                    consumer.live(rounds, partition).await;
                    let left = consumer.coordinator.leave(group, std::slice::from_ref(&consumer.member)).unwrap();
                    assert_eq!(left, [Ok(())]);
                }
            }));
        }
    }
    for task in running {
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("no join waits for nothing").unwrap();
    }
    let listed = world.coordinator.list(vec![], vec![]).await.unwrap();
    let states: Vec<_> = listed.iter().map(|g| (g.group.as_str(), g.state)).collect();
    assert_eq!(states, [("one", GroupState::Empty), ("three", GroupState::Empty), ("two", GroupState::Empty)]);
    for group in ["one", "two", "three"] {
        assert_eq!(world.committed(group).await.len(), 3);
        assert_eq!(world.coordinator.delete_group(group).await, Ok(()), "at once after the last has left");
    }
}
