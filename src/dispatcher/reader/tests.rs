//! A reader beside tools that move its group's positions through the coordinator.

use std::path::Path;

use azulite_storage::fs::RealFs;
use azulite_storage::{Append, BatchBuilder, CheckedBatch, Codec, Lane, NewTopic, Store, clock};
use bytes::BytesMut;

use super::*;
use crate::broker::groups::{Committer, Coordinator, GroupError, OffsetToCommit, Options};
use crate::dispatcher::plugin_key::TopicSelector;

const DAY_MS: i64 = 86_400_000;

struct World {
    broker: Broker,
    store: Store,
    coordinator: Coordinator,
    reader: Arc<Reader>,
}

fn subscription() -> Subscription {
    let topics = TopicSelector::One("azul.p.system.status".into());
    Subscription { flow: Flow::Historic, group: "g".into(), start: Start::Earliest, topics }
}

fn open(root: &Path) -> World {
    let storage = azulite_storage::Options { segment_bytes: 1 << 20, ..azulite_storage::Options::new(root.to_owned()) };
    let store = Store::open(Arc::new(RealFs), storage).unwrap();
    let broker = Broker::new(Arc::new(store.clone()));
    let name = "azul.p.system.status".to_owned();
    let topic = broker.topic_or_create(&name.clone(), || NewTopic { name, partitions: 1, config: BTreeMap::new() });
    let topic = topic.unwrap();
    for n in 0..10 {
        let mut batch = BatchBuilder::default();
        batch.push(n, Some(b"k"), Some(format!("v{n}").as_bytes()));
        let appends = vec![Append { partition: topic.partitions[0].clone(), batch: batch.build().unwrap() }];
        store.append_wait(Lane(1), appends).unwrap();
    }
    let context = ReaderContext {
        broker: broker.clone(),
        topic_prefix: "p".into(),
        group_retention_ms: 30 * DAY_MS,
        historic_share: 4,
    };
    let reader = Arc::new(Reader::new(context, vec![subscription()]));
    reader.open(clock::now_ms(), &User::Passive).unwrap();
    let coordinator = Coordinator::start(broker.clone(), Options::default()).unwrap();
    World { broker, store, coordinator, reader }
}

fn place() -> TopicPartition {
    TopicPartition { topic: "azul.p.system.status".into(), partition: 0 }
}

impl World {
    fn take(&self, count: usize) -> (Vec<String>, Taken) {
        let (candidates, taken) = self.reader.take(count, 1 << 20).unwrap();
        (candidates.iter().map(|c| String::from_utf8(c.value.to_vec()).unwrap()).collect(), taken)
    }

    fn committed(&self) -> Option<Offset> {
        // What was queued before is durable then.
        self.broker.positions("g").settled();
        self.store.committed("g", &place()).unwrap().map(|committed| committed.offset)
    }

    async fn reset_to(&self, offset: Offset) {
        let offsets = vec![OffsetToCommit { place: place(), offset, leader_epoch: -1, metadata: String::new() }];
        let answers = self.coordinator.commit_offsets("g", &Committer::default(), offsets).await.unwrap();
        assert_eq!(answers, [(place(), Ok(()))]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_a_tool_moves_is_where_the_reader_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let (values, taken) = world.take(4);
    assert_eq!(values, ["v0", "v1", "v2", "v3"]);
    taken.delivered();
    assert_eq!(world.committed(), Some(4));
    world.reset_to(8).await;
    let (values, taken) = world.take(4);
    assert_eq!(values, ["v8", "v9"]);
    taken.delivered();
    assert_eq!(world.committed(), Some(10));
    world.reset_to(0).await;
    assert_eq!(world.take(2).0, ["v0", "v1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_does_not_undo_a_reset() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let (values, taken) = world.take(6);
    assert_eq!(values.len(), 6);
    let lost = world.take(1).1;
    world.reset_to(2).await;
    taken.delivered();
    drop(lost);
    assert_eq!(world.committed(), Some(2));
    let (values, again) = world.take(3);
    assert_eq!(values, ["v2", "v3", "v4"]);
    again.delivered();
    assert_eq!(world.committed(), Some(5));
}

/// One that a reset has taken the place of may still be opening the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_opens_late_does_not_undo_what_another_has_read_since() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = open(dir.path());
    let another = || Arc::new(Reader::new(world.reader.context.clone(), vec![subscription()]));
    let (late, next) = (another(), another());
    next.forget_groups().unwrap();
    late.lock().subscribe(&late.wanted, &world.broker);
    let wanted = subscription();
    let begun = late.begin_group(0, &wanted, &User::Passive, clock::now_ms()).unwrap();
    next.open(clock::now_ms(), &User::Passive).unwrap();
    world.reader = next;
    let (values, taken) = world.take(4);
    assert_eq!(values.len(), 4);
    taken.delivered();
    assert_eq!(world.committed(), Some(4));
    let opened = late.try_open_group(0, &wanted, begun, None, clock::now_ms()).unwrap();
    assert_eq!((opened, world.committed()), (None, Some(4)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_a_tool_deletes_starts_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.take(4).1.delivered();
    assert_eq!(world.committed(), Some(4));
    assert_eq!(world.coordinator.delete_group("g").await, Ok(()));
    assert_eq!(world.committed(), None);
    assert_eq!(world.coordinator.delete_group("g").await, Err(GroupError::GroupIdNotFound));
    assert_eq!(world.take(1).0, ["v0"]);
    assert_eq!(world.committed(), Some(0), "it is a group again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_in_use_writes_down_that_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let later_ms = clock::now_ms() + 31 * DAY_MS;
    let used = || GroupRecord::of(world.broker.log().as_ref(), "g").unwrap().unwrap().used_ms;
    let before_ms = used();
    world.reader.open(before_ms + 1_000, &User::Passive).unwrap();
    assert_eq!(used(), before_ms, "at most once an hour");
    world.reader.open(before_ms + 29 * DAY_MS, &User::Passive).unwrap();
    assert_eq!(used(), before_ms + 29 * DAY_MS);
    world.take(4).1.delivered();
    world.reader.open(later_ms, &User::Passive).unwrap();
    assert_eq!(world.take(1).0, ["v4"], "its positions are kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_means_nothing_to_a_topic_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let (values, delivered) = world.take(4);
    assert_eq!(values, ["v0", "v1", "v2", "v3"]);
    let (_, given_back) = world.take(4);
    let name = place().topic;
    world.broker.delete_topic(&name).unwrap();
    let new = NewTopic { name: name.clone(), partitions: 1, config: BTreeMap::new() };
    let topic = world.broker.create_topic(new).unwrap();
    for n in 0..10 {
        let mut batch = BatchBuilder::default();
        batch.push(n, Some(b"k"), Some(format!("w{n}").as_bytes()));
        let appends = vec![Append { partition: topic.partitions[0].clone(), batch: batch.build().unwrap() }];
        world.store.append_wait(Lane(1), appends).unwrap();
    }
    world.reader.open(clock::now_ms(), &User::Passive).unwrap();
    let (values, open) = world.take(6);
    assert_eq!(values, ["w0", "w1", "w2", "w3", "w4", "w5"]);
    delivered.delivered();
    drop(given_back);
    assert_eq!(world.committed(), Some(0), "nothing of the new topic is delivered yet");
    assert_eq!(world.take(10).0, ["w6", "w7", "w8", "w9"]);
    drop(open);
    assert_eq!(world.take(1).0, ["w0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_delivers_waits_for_nobody_who_looks_at_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let (_, delivered) = world.take(4);
    let (_, lost) = world.take(2);
    let looks = world.reader.opening();
    delivered.delivered();
    drop(lost);
    assert!(world.reader.is_current() && !world.reader.is_closed());
    assert_eq!(world.reader.partitions().len(), 1);
    drop(looks);
    assert_eq!(world.committed(), Some(4));
    assert_eq!(world.take(10).0, ["v4", "v5", "v6", "v7", "v8", "v9"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_before_a_pause_says_nothing_about_what_is_taken_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let now_ms = clock::now_ms();
    world.reader.open(now_ms, &User::Task(None)).unwrap();
    let log = world.broker.log().as_ref();
    let pause = crate::dispatcher::pause::Pause::default();
    pause.request(log, "p", now_ms);
    pause.settle(log, "p", now_ms + crate::dispatcher::pause::PAUSE_MS);
    for n in 10..16 {
        let mut batch = BatchBuilder::default();
        batch.push(n, Some(b"k"), Some(format!("v{n}").as_bytes()));
        let partition = world.store.topic(&place().topic).unwrap().partitions[0].clone();
        world.store.append_wait(Lane(1), vec![Append { partition, batch: batch.build().unwrap() }]).unwrap();
    }
    // A request that has not heard of the end of the pause reads on.
    world.take(10).1.delivered();
    let (values, early) = world.take(2);
    assert_eq!(values, ["v10", "v11"]);
    world.reader.open(now_ms, &User::Task(pause.ended())).unwrap();
    let (values, late) = world.take(4);
    assert_eq!(values, ["v10", "v11", "v12", "v13"], "handed out anew from the end of the pause on");
    early.delivered();
    drop(late);
    assert_eq!(world.committed(), Some(10));
    assert_eq!(world.take(10).0, ["v10", "v11", "v12", "v13", "v14", "v15"], "nothing of it was left out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_much_more_is_read_than_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let partition = world.store.topic(&place().topic).unwrap().partitions[0].clone();
    for n in 0..500 {
        let mut batch = BatchBuilder::default();
        batch.push(n, Some(b"k"), Some(&[7; 2000]));
        let appends = vec![Append { partition: partition.clone(), batch: batch.build().unwrap() }];
        world.store.append_wait(Lane(1), appends).unwrap();
    }
    world.take(10).1.delivered();
    let before = world.store.read_bytes();
    for _ in 0..50 {
        let (values, taken) = world.take(10);
        assert_eq!(values.len(), 10);
        taken.delivered();
    }
    let read = world.store.read_bytes() - before;
    assert!((1_000_000..2_000_000).contains(&read), "{read}");
}

/// A batch whose compressed records are these bytes, sent as a Kafka client would.
fn sent(codec: Codec, values: usize, corrupt: bool) -> CheckedBatch {
    let mut builder = BatchBuilder::default().codec(codec);
    let value = vec![0; 1 << 20];
    (0..values).for_each(|_| builder.push(1, Some(b"k"), Some(&value)));
    let mut bytes = BytesMut::from(builder.build().unwrap().as_bytes());
    if corrupt {
        bytes[70..].fill(7);
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    CheckedBatch::check(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_nobody_can_read_do_not_stop_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    let partition = world.store.topic(&place().topic).unwrap().partitions[0].clone();
    // More than a reader takes into memory, and no such compression at all.
    for batch in [sent(Codec::Lz4, 65, false), sent(Codec::Zstd, 2, true)] {
        let appends = vec![Append { partition: partition.clone(), batch }];
        world.store.append_wait(Lane(1), appends).unwrap();
    }
    let mut batch = BatchBuilder::default();
    batch.push(1, Some(b"k"), Some(b"behind"));
    let appends = vec![Append { partition, batch: batch.build().unwrap() }];
    world.store.append_wait(Lane(1), appends).unwrap();
    let (first, taken) = world.take(10);
    assert_eq!((first.len(), first[9].as_str()), (10, "v9"));
    taken.delivered();
    let (values, taken) = world.take(10);
    assert_eq!(values, ["", "", "behind"], "each is counted once, as an event that is none");
    taken.delivered();
    assert_eq!(world.committed(), Some(10 + 65 + 2 + 1));
    assert!(world.take(10).0.is_empty());
}
