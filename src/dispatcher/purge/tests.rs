//! The orders against the contract and against a plain model; tombstones over a store.

use std::path::Path;
use std::sync::Arc;

use azulite_storage::fs::RealFs;
use azulite_storage::{Append, BatchBuilder, CheckedBatch, Lane, NewTopic, Record, Store};
use bytes::Bytes;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::super::follower::read_records;
use super::super::model::{BinaryEvent, DeleteAuthor, DeleteEntity, DeleteIds, DeleteLink};
use super::sweep::Job;
use super::*;
use crate::broker::{Broker, Offset, Partition};

fn text(text: &str) -> String {
    text.to_owned()
}

fn order(action: &str, entity: DeleteEntity) -> DeleteEvent {
    DeleteEvent { action: action.into(), entity, ..DeleteEvent::default() }
}

fn ids(ids: &[&str]) -> DeleteEvent {
    let ids = DeleteIds { ids: ids.iter().map(|id| text(id)).collect() };
    order("ids", DeleteEntity { ids, ..DeleteEntity::default() })
}

fn link(link: &str) -> DeleteEvent {
    order("link", DeleteEntity { link: DeleteLink { track_link: link.into() }, ..DeleteEntity::default() })
}

fn author(author: &str, before: i64) -> DeleteEvent {
    let author = DeleteAuthor { track_author: author.into(), timestamp: Timestamp::from_micros(before) };
    order("author", DeleteEntity { author, ..DeleteEntity::default() })
}

fn submission(references: &str, at: Option<i64>) -> DeleteEvent {
    let timestamp = at.map_or(Timestamp::zero(), Timestamp::from_micros);
    let submission = DeleteSubmission { track_source_references: references.into(), timestamp };
    order("submission", DeleteEntity { submission, ..DeleteEntity::default() })
}

fn orders(all: &[DeleteEvent]) -> PurgeOrders {
    let mut orders = PurgeOrders::default();
    all.iter().for_each(|order| orders.add(order).unwrap());
    orders
}

fn event() -> BinaryEvent {
    let mut event = BinaryEvent {
        kafka_key: text("k"),
        timestamp: Timestamp::from_micros(10),
        track_links: vec![text("l1"), text("l2")],
        track_authors: vec![text("a1"), text("a2")],
        track_source_references: text("s"),
        ..BinaryEvent::default()
    };
    event.source.timestamp = Timestamp::from_micros(5);
    event
}

#[test]
fn each_kind_of_order_finds_what_it_names() {
    let table = [
        (ids(&["x", "k"]), Some(PurgeKind::Id)),
        (ids(&["x"]), None),
        (link("l2"), Some(PurgeKind::Link)),
        (link("l3"), None),
        (author("a2", 11), Some(PurgeKind::Author)),
        (author("a2", 10), None),
        (author("a3", 11), None),
        (submission("s", None), Some(PurgeKind::Submission)),
        (submission("s", Some(5)), Some(PurgeKind::Submission)),
        (submission("s", Some(6)), None),
        (submission("t", None), None),
    ];
    for (order, found) in table {
        assert_eq!(orders(std::slice::from_ref(&order)).find(&event()), found, "{order:?}");
    }
}

/// events.md section 10, 20.
#[test]
fn several_times_of_one_submission_stand_side_by_side() {
    let at = |micros| {
        let mut event = event();
        event.source.timestamp = Timestamp::from_micros(micros);
        event
    };
    let some = orders(&[submission("s", Some(5)), submission("s", Some(7))]);
    assert_eq!([5, 6, 7].map(|time| some.find(&at(time)).is_some()), [true, false, true]);
    assert_eq!(some.sizes()[3], ("submission", 2));
    let any = orders(&[submission("s", Some(5)), submission("s", None), submission("s", Some(7))]);
    assert_eq!([5, 6, 7].map(|time| any.find(&at(time)).is_some()), [true, true, true]);
    assert_eq!(any.sizes()[3], ("submission", 1));
}

#[test]
fn a_later_order_about_an_author_never_shrinks_an_earlier_one() {
    for all in [[author("a1", 11), author("a1", 3)], [author("a1", 3), author("a1", 11)]] {
        assert_eq!(orders(&all).find(&event()), Some(PurgeKind::Author));
    }
}

/// What the log keeps is judged as what was sent.
#[test]
fn times_count_to_the_microsecond() {
    let mut sent = event();
    sent.source.timestamp = Timestamp::parse("2026-01-02T03:04:05.123456789Z").unwrap();
    let at = sent.source.timestamp.micros();
    assert!(orders(&[submission("s", Some(at))]).find(&sent).is_some());
    sent.source.timestamp = sent.source.timestamp.stored();
    assert!(orders(&[submission("s", Some(at))]).find(&sent).is_some());
}

#[test]
fn an_order_that_names_nothing_finds_nothing() {
    let all = orders(&[ids(&["", ""]), link(""), author("", 100), submission("", None)]);
    let nobody = BinaryEvent { track_links: vec![text("")], track_authors: vec![text("")], ..BinaryEvent::default() };
    assert_eq!(all.find(&nobody), None);
    assert_eq!(all.sizes().map(|(_, size)| size), [0; 4]);
}

#[test]
fn only_the_part_that_belongs_to_the_action_counts() {
    let mut both = ids(&["x"]);
    both.entity.link.track_link = text("l1");
    assert_eq!(orders(&[both]).find(&event()), None);
}

#[test]
fn unknown_actions_and_other_bytes_change_nothing_and_are_named() {
    let mut orders = PurgeOrders::default();
    let stored = |order: DeleteEvent| model::encode_avro(&Event::Delete(Box::new(order)));
    let unknown = DeleteEvent { action: text("everything"), ..ids(&["k"]) };
    assert_eq!(orders.apply(None, Some(&stored(unknown))).unwrap_err().reason, "unknown_action");
    assert_eq!(orders.apply(None, Some(b"{}")).unwrap_err().reason, "undecodable");
    assert_eq!(orders.apply(Some(b"k"), None), Ok(()));
    assert_eq!(orders.apply(Some(b"k"), Some(b"")), Ok(()));
    assert_eq!(orders.find(&event()), None);
    assert_eq!(orders.apply(None, Some(&stored(ids(&["k"])))), Ok(()));
    assert_eq!(orders.find(&event()), Some(PurgeKind::Id));
}

/// Every order looked at for every event: what the sets must agree with.
fn plainly_found(all: &[DeleteEvent], event: &BinaryEvent) -> bool {
    all.iter().any(|DeleteEvent { action, entity, .. }| match action.as_str() {
        "ids" => !event.kafka_key.is_empty() && entity.ids.ids.contains(&event.kafka_key),
        "link" => !entity.link.track_link.is_empty() && event.track_links.contains(&entity.link.track_link),
        "author" => {
            let DeleteAuthor { track_author, timestamp } = &entity.author;
            !track_author.is_empty() && event.track_authors.contains(track_author) && event.timestamp < *timestamp
        }
        _ => {
            let DeleteSubmission { track_source_references, timestamp } = &entity.submission;
            let time = timestamp.is_zero() || event.source.timestamp == *timestamp;
            !track_source_references.is_empty() && event.track_source_references == *track_source_references && time
        }
    })
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![Just(text("")), "[ab]", "[ab]{31,33}", "[AB]{32}", (0_u32..4).prop_map(|n| format!("{n:032x}")),]
}

fn some_order() -> impl Strategy<Value = DeleteEvent> {
    let time = || prop_oneof![Just(None), (-3_i64..3).prop_map(Some)];
    prop_oneof![
        proptest::collection::vec(word(), 0..3)
            .prop_map(|words| ids(&words.iter().map(String::as_str).collect::<Vec<_>>())),
        word().prop_map(|word| link(&word)),
        (word(), -3_i64..3).prop_map(|(word, before)| author(&word, before)),
        (word(), time()).prop_map(|(word, at)| submission(&word, at)),
    ]
}

fn some_event() -> impl Strategy<Value = BinaryEvent> {
    let words = || proptest::collection::vec(word(), 0..3);
    (word(), words(), words(), word(), -3_i64..3, -3_i64..3).prop_map(|(key, links, authors, references, made, at)| {
        let mut event = BinaryEvent {
            kafka_key: key,
            timestamp: Timestamp::from_micros(made),
            track_links: links,
            track_authors: authors,
            track_source_references: references,
            ..BinaryEvent::default()
        };
        event.source.timestamp = Timestamp::from_micros(at);
        event
    })
}

proptest! {
    #[test]
    fn the_sets_agree_with_a_list_of_all_orders(
        all in proptest::collection::vec(some_order(), 0..20),
        events in proptest::collection::vec(some_event(), 1..20),
    ) {
        let mut orders = PurgeOrders::default();
        for (n, order) in all.iter().enumerate() {
            let bytes = model::encode_avro(&Event::Delete(Box::new(order.clone())));
            prop_assert_eq!(orders.apply(None, Some(&bytes)), Ok(()));
            for event in &events {
                prop_assert_eq!(orders.find(event).is_some(), plainly_found(&all[..=n], event), "{:?}", event);
            }
        }
    }
}

struct World {
    store: Store,
    partition: Arc<Partition>,
    burial: Arc<Burial>,
    metrics: Arc<Metrics>,
}

fn open(root: &Path) -> World {
    let options = azulite_storage::Options { segment_bytes: 1 << 20, ..azulite_storage::Options::new(root.to_owned()) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    let broker = Broker::new(Arc::new(store.clone()));
    let new = || NewTopic { name: "t".into(), partitions: 1, config: std::collections::BTreeMap::new() };
    let partition = broker.topic_or_create("t", new).unwrap().partitions[0].clone();
    let metrics = Arc::new(Metrics::new());
    let burial = Arc::new(Burial::new(broker, metrics.clone(), CancellationToken::new()));
    World { store, partition, burial, metrics }
}

fn batch(records: &[(&str, Option<&str>)]) -> CheckedBatch {
    let mut batch = BatchBuilder::default();
    records.iter().for_each(|(key, value)| batch.push(1, Some(key.as_bytes()), value.map(str::as_bytes)));
    batch.build().unwrap()
}

impl World {
    fn append(&self, records: &[(&str, Option<&str>)]) {
        let append = Append { partition: self.partition.clone(), batch: batch(records) };
        self.store.append_wait(Lane(1), vec![append]).unwrap();
    }

    /// Keys and values from an offset on.
    fn from(&self, mut from: Offset) -> Vec<(String, Option<String>)> {
        let end = self.partition.offsets().high_watermark;
        let mut all = Vec::new();
        while from < end {
            let (records, next) = read_records(self.burial.broker.log().as_ref(), &self.partition, from, end).unwrap();
            let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            all.extend(records.into_iter().map(|Record { key, value, .. }| (text(key.unwrap()), value.map(text))));
            from = next;
        }
        all
    }

    fn purged(&self, key: &str, offset: Offset, for_good: bool) -> Purged {
        Purged {
            partition: self.partition.clone(),
            offset,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            for_good,
        }
    }

    fn job(&self, keys: &[(&str, Offset)]) -> Job {
        let keys = keys.iter().map(|(key, offset)| (key.as_bytes().into(), *offset)).collect();
        Job { keys, ..Job::new(self.partition.clone()) }
    }

    fn counted(&self, result: &str) -> u64 {
        self.metrics.purge_tombstones.at([result]).get()
    }
}

fn tombstone(key: &str) -> (String, Option<String>) {
    (text(key), None)
}

#[test]
fn one_tombstone_for_each_key_however_often_it_is_met() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.append(&[("k", Some("1")), ("j", Some("2")), ("k", Some("3"))]);
    let met = || vec![world.purged("k", 0, true), world.purged("k", 2, true), world.purged("j", 1, true)];
    assert_eq!(world.burial.bury(met(), 1), 0);
    assert_eq!(world.from(3), [tombstone("j"), tombstone("k")]);
    assert_eq!(world.burial.bury(met(), 1), 0);
    assert_eq!(world.burial.bury(vec![world.purged("k", 2, true)], 1), 0);
    assert_eq!(world.from(3).len(), 2, "every reader met the same records");
    world.append(&[("k", Some("4"))]);
    assert_eq!(world.burial.bury(vec![world.purged("k", 5, true)], 1), 0);
    assert_eq!(world.from(5), [(text("k"), Some(text("4"))), tombstone("k")], "a new record is buried anew");
    assert_eq!(world.counted("written"), 3);
}

#[test]
fn a_record_without_a_key_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.append(&[("k", Some("1"))]);
    let nameless = Purged { key: None, ..world.purged("k", 0, true) };
    assert_eq!(world.burial.bury(vec![nameless], 1), 0);
    assert_eq!(world.from(1), []);
}

#[test]
fn a_tombstone_that_cannot_be_written_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.append(&[("k", Some("1")), ("k", Some("2"))]);
    world.store.close();
    for _ in 0..2 {
        let met = vec![world.purged("k", 0, true), world.purged("k", 1, true)];
        assert_eq!(world.burial.bury(met, 1), 2, "both events count as errors");
    }
    assert_eq!((world.counted("failed"), world.counted("written")), (2, 0));
}

#[test]
fn only_the_newest_record_of_a_key_is_buried() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.append(&[("again", Some("old")), ("gone", Some("old")), ("dead", Some("old"))]);
    world.append(&[("again", Some("new")), ("dead", None)]);
    let mut job = world.job(&[("again", 0), ("gone", 1), ("dead", 2)]);
    assert!(world.burial.newest_of_their_key(&mut job).unwrap() && world.burial.bury_newest(&job));
    assert_eq!(world.from(5), [tombstone("gone")]);
    assert_eq!((world.counted("superseded"), world.counted("written")), (2, 1));
}

#[test]
fn what_comes_between_the_look_and_the_tombstone_stays_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.append(&[("k", Some("old")), ("j", Some("old"))]);
    let mut job = world.job(&[("k", 0), ("j", 1)]);
    assert!(world.burial.newest_of_their_key(&mut job).unwrap());
    world.append(&[("other", Some("x")), ("k", Some("new"))]);
    assert!(!world.burial.bury_newest(&job), "it looks again");
    assert_eq!(world.from(4), [], "nothing was written behind the new one");
    assert!(world.burial.newest_of_their_key(&mut job).unwrap() && world.burial.bury_newest(&job));
    assert_eq!(world.from(4), [tombstone("j")]);
}

#[test]
fn what_is_not_purged_for_good_is_buried_in_the_background_once() {
    let dir = tempfile::tempdir().unwrap();
    let world = open(dir.path());
    world.append(&[("k", Some("1")), ("k", Some("2")), ("j", Some("3"))]);
    for _ in 0..3 {
        let met = vec![world.purged("k", 1, false), world.purged("j", 2, false)];
        assert_eq!(world.burial.bury(met, 1), 0);
    }
    while world.counted("written") < 2 {
        std::thread::yield_now();
    }
    let mut after = world.from(3);
    after.sort();
    assert_eq!(after, [tombstone("j"), tombstone("k")]);
}
