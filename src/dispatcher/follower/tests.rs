//! Followers over a store.

use std::collections::BTreeMap;
use std::path::Path;

use azulite_storage::fs::RealFs;
use azulite_storage::{Append, BatchBuilder, Lane, NewTopic, Store};

use super::*;

/// Every value it was given; `bad` is none.
#[derive(Default)]
struct Heard(Vec<String>);

impl Followed for Heard {
    fn apply(&mut self, _key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Unusable> {
        let value = String::from_utf8_lossy(value.unwrap_or(b"-")).into_owned();
        if value == "bad" {
            return Err(Unusable { reason: "bad", detail: String::new() });
        }
        self.0.push(value);
        Ok(())
    }

    fn show(&self, metrics: &Metrics) {
        metrics.purge_orders.at(["heard"]).set(i64::try_from(self.0.len()).unwrap());
    }
}

struct World {
    store: Store,
    broker: Broker,
    metrics: Arc<Metrics>,
    follower: Follower<Heard>,
}

fn open(root: &Path) -> World {
    let options = azulite_storage::Options { segment_bytes: 1 << 20, ..azulite_storage::Options::new(root.to_owned()) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    let broker = Broker::new(Arc::new(store.clone()));
    let metrics = Arc::new(Metrics::new());
    let follower = Follower::new(broker.clone(), "t".into(), metrics.clone());
    World { store, broker, metrics, follower }
}

impl World {
    fn create(&self) {
        let new = || NewTopic { name: "t".into(), partitions: 1, config: BTreeMap::new() };
        self.broker.topic_or_create("t", new).unwrap();
    }

    fn append(&self, partition: usize, values: &[&str]) {
        let topic = self.broker.log().topic("t").unwrap();
        let mut batch = BatchBuilder::default();
        values.iter().for_each(|value| batch.push(1, None, Some(value.as_bytes())));
        let append = Append { partition: topic.partitions[partition].clone(), batch: batch.build().unwrap() };
        self.store.append_wait(Lane(1), vec![append]).unwrap();
    }

    fn heard(&self) -> Vec<String> {
        self.follower.catch_up().unwrap();
        self.follower.read().0.clone()
    }
}

#[test]
fn everything_from_the_start_and_then_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    assert_eq!(world.heard(), Vec::<String>::new(), "no topic yet");
    world.create();
    world.append(0, &["a", "b"]);
    world.append(0, &["c"]);
    assert_eq!(world.heard(), ["a", "b", "c"]);
    assert_eq!(world.heard(), ["a", "b", "c"]);
    world.append(0, &["d"]);
    assert_eq!(world.heard(), ["a", "b", "c", "d"]);
    let later = Follower::<Heard>::new(world.broker.clone(), "t".into(), world.metrics.clone());
    later.catch_up().unwrap();
    assert_eq!(later.read().0, ["a", "b", "c", "d"]);
}

#[test]
fn more_than_one_read_holds_is_read_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.create();
    let large = "x".repeat(300_000);
    for _ in 0..10 {
        world.append(0, &[&large]);
    }
    assert_eq!(world.heard().len(), 10);
}

#[test]
fn what_cannot_be_used_is_counted_and_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.create();
    world.append(0, &["a", "bad", "bad", "b"]);
    assert_eq!(world.heard(), ["a", "b"]);
    assert_eq!(world.metrics.followed_errors.at(["t", "bad"]).get(), 2);
}

#[test]
fn a_partition_added_later_is_followed_too() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.create();
    world.append(0, &["a"]);
    assert_eq!(world.heard(), ["a"]);
    world.broker.grow_partitions("t", 2).unwrap();
    world.append(1, &["b"]);
    world.append(0, &["c"]);
    let mut heard = world.heard();
    heard.sort();
    assert_eq!(heard, ["a", "b", "c"]);
}

#[test]
fn a_topic_deleted_and_made_again_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.create();
    world.append(0, &["a"]);
    assert_eq!(world.heard(), ["a"]);
    world.broker.delete_topic("t").unwrap();
    assert_eq!(world.heard(), Vec::<String>::new());
    world.create();
    world.append(0, &["b"]);
    assert_eq!(world.heard(), ["b"]);
    world.broker.delete_topic("t").unwrap();
    world.create();
    world.append(0, &["c"]);
    assert_eq!(world.heard(), ["c"], "nobody looked in between");
}

#[test]
fn records_that_were_deleted_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.create();
    world.append(0, &["a"]);
    world.append(0, &["b"]);
    let place = world.broker.log().topic("t").unwrap().partitions[0].name().clone();
    world.broker.delete_records(&[(place, Some(1))]).remove(0).unwrap();
    assert_eq!(world.heard(), ["b"]);
}
