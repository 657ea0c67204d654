use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::batch::BatchBuilder;
use crate::fs::RealFs;
use crate::groups::CommitOffsetsError;
use crate::ids::Offset;
use crate::log::ReadError;
use crate::maintenance::Now;
use crate::offsets::CommittedOffset;
use crate::queue::{Append, Lane};
use crate::store::Options;

const T0: i64 = 1_700_000_000_000;

fn open_at(root: &Path, clock: &Arc<AtomicI64>) -> Store {
    let clock = clock.clone();
    let options = Options {
        segment_bytes: 1 << 20,
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        ..Options::new(root.to_owned())
    };
    Store::open(Arc::new(RealFs), options).unwrap()
}

fn open(root: &Path) -> Store {
    open_at(root, &Arc::new(AtomicI64::new(T0)))
}

fn create(store: &Store, name: &str, partitions: PartitionIndex) -> Arc<Topic> {
    store.create_topic(NewTopic { name: name.into(), partitions, config: BTreeMap::new() }).unwrap()
}

fn try_append(store: &Store, partition: &Arc<Partition>, records: i64) -> Result<Offset, AppendError> {
    let mut builder = BatchBuilder::default();
    (0..records).for_each(|n| builder.push(T0 + n, Some(b"k"), Some(b"value")));
    let append = Append { partition: partition.clone(), batch: builder.build().unwrap() };
    Ok(store.append_wait(Lane(1), vec![append])?[0].base_offset)
}

fn append(store: &Store, partition: &Arc<Partition>, records: i64) -> Offset {
    try_append(store, partition, records).unwrap()
}

fn place(topic: &str, partition: PartitionIndex) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}

fn commit(store: &Store, group: &str, topic: &str) -> Result<(), CommitOffsetsError> {
    let committed = CommittedOffset { offset: 1, leader_epoch: 0, metadata: String::new(), commit_time_ms: 5 };
    store.commit_offsets_wait(group, &vec![(place(topic, 0), Some(committed))], Vec::new())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            // The next segment gets its name while this runs.
            false => match std::fs::copy(entry.path(), to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            },
        }
    }
}

fn maintain(store: &Store) {
    store.maintain(Now { wall_ms: T0, up_ms: 0 }).unwrap();
}

/// Rows of the index by keyspace, of partitions that are not the store's own.
fn rows(store: &Store, keyspace: &str) -> Vec<(u32, Vec<u8>)> {
    let dump = store.index_dump().unwrap().into_iter().filter(|row| row.0 == keyspace);
    let number = |key: &[u8]| u32::from_be_bytes(*key.first_chunk().unwrap());
    dump.map(|row| (number(&row.1), row.1)).filter(|row| row.0 >= 2).collect()
}

#[test]
fn a_deleted_topic_takes_its_positions_along_and_those_who_hold_it_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (old, other) = (create(&store, "t", 2), create(&store, "t2", 1));
    for topic in [&old, &other] {
        append(&store, &topic.partitions[0], 3);
        commit(&store, "g", &topic.name).unwrap();
    }
    commit(&store, "only", "t").unwrap();
    store.delete_topic("t").unwrap();
    let held = &old.partitions[0];
    assert!(held.is_gone() && !other.partitions[0].is_gone());
    let got = store.read(held, 0, 100);
    assert!(matches!(&got, Err(ReadError::Gone { partition }) if *partition == place("t", 0)), "got {got:?}");
    let got = store.offset_for_time(held, 0);
    assert!(matches!(got, Err(ReadError::Gone { .. })), "got {got:?}");
    assert_eq!(try_append(&store, held, 1), Err(AppendError::Gone { partition: place("t", 0) }));
    let refused = CommitOffsetsError::UnknownTopic { group: "g".into(), topic: "t".into() };
    assert_eq!(commit(&store, "g", "t"), Err(refused));
    assert_eq!(store.delete_topic("t").unwrap_err(), TopicError::Unknown("t".into()));
    let id = old.id;
    drop((old, other));
    let mut store = store;
    for _ in 0..2 {
        assert!(store.topic("t").is_none() && store.topic_by_id(id).is_none());
        assert_eq!(store.groups().unwrap(), ["g".to_owned()].into());
        assert_eq!(store.group_offsets("g").unwrap().into_keys().collect::<Vec<_>>(), [place("t2", 0)]);
        drop(store);
        store = open(dir.path());
    }
}

#[test]
fn a_topic_made_again_is_another_one_from_offset_0_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old = create(&store, "t", 1);
    append(&store, &old.partitions[0], 3);
    store.delete_topic("t").unwrap();
    let new = create(&store, "t", 1);
    assert!(new.id != old.id && new.partitions[0].number() > old.partitions[0].number());
    assert_eq!(append(&store, &new.partitions[0], 1), 0);
    let id = new.id;
    drop((store, old, new));
    let store = open(dir.path());
    assert_eq!(store.topic("t").unwrap().id, id);
    assert_eq!(store.topic("t").unwrap().partitions[0].offsets().high_watermark, 1);
    assert_eq!(store.topic_by_id(id).unwrap().name, "t");
}

#[test]
fn a_deletion_by_id_leaves_a_topic_made_again_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old = create(&store, "t", 1);
    store.delete_topic("t").unwrap();
    let new = create(&store, "t", 1);
    append(&store, &new.partitions[0], 3);
    assert_eq!(store.delete_topic_by_id(old.id).unwrap_err(), TopicError::UnknownId(old.id));
    assert_eq!((store.topic("t").unwrap().id, new.partitions[0].is_gone()), (new.id, false));
    assert_eq!(store.delete_topic_by_id(new.id).unwrap().name, "t");
    assert!(store.topic("t").is_none() && new.partitions[0].is_gone());
    let internal = store.topic("__azulite_state").unwrap();
    assert_eq!(store.delete_topic_by_id(internal.id).unwrap_err(), TopicError::Internal(internal.name.clone()));
}

#[test]
fn rows_of_deleted_topics_leave_the_index_even_when_it_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (old, other) = (create(&store, "t", 2), create(&store, "t2", 1));
    let (dead, live) = (old.partitions[1].number().0, other.partitions[0].number().0);
    for _ in 0..3000 {
        append(&store, &old.partitions[1], 1);
    }
    append(&store, &other.partitions[0], 1);
    store.delete_topic("t").unwrap();
    assert!(rows(&store, "log").iter().any(|row| row.0 == dead), "not in the call itself");
    maintain(&store);
    let left = |store: &Store| [rows(store, "log"), rows(store, "time")].concat();
    assert_eq!(left(&store).iter().map(|row| row.0).collect::<Vec<_>>(), [live; 2]);
    drop((store, old, other));
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = open(dir.path());
    assert_eq!(store.report().damage, Vec::<String>::new());
    // The frames are still there, but a rebuild ends with what a sweep would leave.
    assert_eq!(left(&store).iter().map(|row| row.0).collect::<Vec<_>>(), [live; 2]);
    maintain(&store);
    assert_eq!(left(&store).iter().map(|row| row.0).collect::<Vec<_>>(), [live; 2]);
}

#[test]
fn a_topic_grows_and_never_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (small, other) = (create(&store, "t", 1), create(&store, "t2", 1));
    append(&store, &small.partitions[0], 3);
    let grown = store.grow_partitions("t", 3).unwrap();
    assert_eq!((grown.id, grown.partitions.len()), (small.id, 3));
    assert!(Arc::ptr_eq(&grown.partitions[0], &small.partitions[0]), "what holds a partition goes on with it");
    assert!(grown.partitions[1].number() > other.partitions[0].number());
    append(&store, &grown.partitions[2], 2);
    for wanted in [3, 2, 0, -1, MAX_PARTITIONS + 1] {
        let refused = TopicError::Partitions { topic: "t".into(), partitions: 3, wanted };
        assert_eq!(store.grow_partitions("t", wanted).unwrap_err(), refused);
    }
    drop((store, small, other, grown));
    let store = open(dir.path());
    let ends = |topic: &Topic| topic.partitions.iter().map(|p| p.offsets().high_watermark).collect::<Vec<_>>();
    assert_eq!(ends(&store.topic("t").unwrap()), [3, 0, 2]);
    let next = create(&store, "t3", 1).partitions[0].number();
    assert!(next > store.topic("t").unwrap().partitions[2].number());
}

#[test]
fn the_stores_own_topics_are_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for name in ["__azulite_state", "__consumer_offsets"] {
        let refused = Err(TopicError::Internal(name.into()));
        assert_eq!(store.delete_topic(name).map(drop), refused);
        assert_eq!(store.grow_partitions(name, 2).map(drop), refused);
        assert_eq!(store.alter_config(name, ConfigChange::Replace(BTreeMap::new())).map(drop), refused);
        let got = store.delete_records(&[(place(name, 0), None)]);
        assert_eq!(got, [Err(DeleteRecordsError::Policy(place(name, 0)))]);
    }
}

#[test]
fn a_changed_configuration_is_read_once_acted_upon_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old = create(&store, "t", 1);
    assert_eq!(old.settings, TopicSettings::default());
    let text = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let change = ConfigChange::Set([("retention.ms".into(), Some("5".into())), ("x".into(), None)].into());
    let altered = store.alter_config("t", change.clone()).unwrap();
    assert_eq!((altered.settings.retention_ms, old.settings.retention_ms), (Some(5), Some(604_800_000)));
    assert!(Arc::ptr_eq(&store.alter_config("t", change).unwrap(), &altered), "nothing changed, nothing written");
    let view = altered.view(|topic| topic.config.len());
    assert!(Arc::ptr_eq(&view, &altered.view(|_| 0)), "made once");
    store.alter_config("t", ConfigChange::Set([("segment.ms".into(), Some("7".into()))].into())).unwrap();
    assert_eq!(store.topic("t").unwrap().config, text(&[("retention.ms", "5"), ("segment.ms", "7")]));
    store.alter_config("t", ConfigChange::Replace(text(&[("retention.bytes", "9")]))).unwrap();
    let too_long = ConfigChange::Replace(text(&[("a", &"b".repeat(MAX_CONFIG_BYTES))]));
    let got = store.alter_config("t", too_long).unwrap_err();
    assert_eq!(got, TopicError::Config { topic: "t".into(), bytes: MAX_CONFIG_BYTES + 1 });
    store.set_topic_defaults(TopicSettings { retention_ms: Some(3), ..TopicSettings::default() });
    assert_eq!(store.topic("t").unwrap().settings.retention_ms, Some(3));
    assert_eq!(create(&store, "t2", 1).settings.retention_ms, Some(3));
    drop((store, old, altered));
    let topic = open(dir.path()).topic("t").unwrap();
    assert_eq!(topic.config, text(&[("retention.bytes", "9")]));
    assert_eq!((topic.settings.retention_bytes, topic.settings.retention_ms), (Some(9), Some(604_800_000)));
}

#[test]
fn deleted_records_are_out_of_range_to_the_record_and_stay_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let topic = create(&store, "t", 2);
    let p = &topic.partitions[0];
    for _ in 0..3 {
        append(&store, p, 10);
    }
    let (zero, one) = (place("t", 0), place("t", 1));
    let unknown = place("t", 2);
    let above = DeleteRecordsError::OutOfRange { partition: one.clone(), offset: 1, high_watermark: 0 };
    let asked = [
        (zero.clone(), Some(15)),
        (one.clone(), Some(1)),
        (unknown.clone(), None),
        (zero.clone(), Some(12)),
        (one, None),
    ];
    let wanted = [Ok(15), Err(above), Err(DeleteRecordsError::Unknown(unknown)), Ok(15), Ok(0)];
    assert_eq!(store.delete_records(&asked), wanted);
    assert_eq!(store.delete_records(&[(zero.clone(), Some(3))]), [Ok(15)], "never back");
    let check = |store: &Store, p: &Arc<Partition>| {
        let got = store.read(p, 14, 100);
        assert!(matches!(&got, Err(ReadError::OutOfRange { allowed, .. }) if *allowed == (15..30)), "got {got:?}");
        assert_eq!(store.read(p, 15, 1).unwrap().len(), 1, "the whole batch");
        assert_eq!(store.offset_for_time(p, T0).unwrap(), Some((15, T0 + 5)));
        assert_eq!(store.offset_for_time(p, T0 + 2).unwrap(), Some((15, T0 + 5)));
        assert_eq!(store.offset_for_time(p, T0 + 10).unwrap(), None);
        let offsets = p.offsets();
        assert_eq!((offsets.log_start, offsets.high_watermark), (15, 30));
    };
    check(&store, p);
    maintain(&store);
    check(&store, p);
    assert_eq!(rows(&store, "log").len(), 2, "the batch that holds the log start stays");
    let size = p.size_bytes();
    drop((store, topic));
    let store = open(dir.path());
    let p = store.topic("t").unwrap().partitions[0].clone();
    check(&store, &p);
    maintain(&store);
    assert_eq!(p.size_bytes(), size);
    assert_eq!(store.delete_records(&[(zero, None)]), [Ok(30)]);
    maintain(&store);
    assert_eq!((rows(&store, "log").len(), p.size_bytes()), (0, 0));
    drop((store, p));
    let store = open(dir.path());
    assert_eq!(store.report().damage, Vec::<String>::new());
    assert_eq!(append(&store, &store.topic("t").unwrap().partitions[0].clone(), 1), 30, "DENSE");
}

#[test]
fn records_written_behind_swept_ones_are_no_gap_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let store = open(&first);
    let topic = create(&store, "t", 1);
    append(&store, &topic.partitions[0], 10);
    store.delete_records(&[(place("t", 0), None)]).into_iter().for_each(|moved| assert_eq!(moved, Ok(10)));
    maintain(&store);
    append(&store, &topic.partitions[0], 5);
    // A copy of a store at work is what a kill leaves.
    copy(&first, &second);
    let store = open(&second);
    assert_eq!(store.report().damage, Vec::<String>::new());
    let offsets = store.topic("t").unwrap().partitions[0].offsets();
    assert_eq!((offsets.log_start, offsets.high_watermark), (10, 15));
}

#[test]
fn topics_that_are_only_compacted_lose_no_records_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    store.create_topic(NewTopic { name: "t".into(), partitions: 1, config }).unwrap();
    assert_eq!(store.delete_records(&[(place("t", 0), None)]), [Err(DeleteRecordsError::Policy(place("t", 0)))]);
}

#[test]
fn a_new_leader_epoch_begins_at_the_end_and_is_written_into_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let topic = create(&store, "t", 1);
    append(&store, &topic.partitions[0], 3);
    store.bump_leader_epochs().unwrap();
    drop((store, topic));
    let store = open(dir.path());
    let p = store.topic("t").unwrap().partitions[0].clone();
    assert_eq!((p.leader_epoch(), p.end_of_epoch(0), p.end_of_epoch(2)), (1, Some((0, 3)), None));
    append(&store, &p, 1);
    store.bump_leader_epochs().unwrap();
    append(&store, &p, 1);
    assert_eq!((p.end_of_epoch(1), p.end_of_epoch(2)), (Some((1, 4)), Some((2, 5))));
    let epochs = store.read(&p, 0, 1000).unwrap();
    let epochs = epochs.iter().map(|b| i32::from_be_bytes(*b[12..].first_chunk().unwrap()));
    assert_eq!(epochs.collect::<Vec<_>>(), [0, 1, 2]);
}
