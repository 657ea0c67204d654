//! Records written and read back over a real store.

use std::collections::BTreeMap;
use std::sync::Arc;

use azulite_storage::fs::RealFs;
use azulite_storage::{NewTopic, Options, Store};

use super::*;
use crate::admin::{Admin, Flow};
use crate::broker::Broker;
use crate::dispatcher::model::{self, Event};
use crate::streams::EmbeddedBlobs;

struct Setup {
    store: Store,
    admin: Admin,
    _folder: tempfile::TempDir,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1 << 20, ..Options::new(folder.path().join("data")) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    let blobs = Arc::new(EmbeddedBlobs::new(store.clone()));
    let admin = Admin::new(Broker::new(Arc::new(store.clone())), blobs, "t1".to_owned());
    Setup { store, admin, _folder: folder }
}

fn text(text: &str) -> Option<Data> {
    Some(Data::Text(text.to_owned()))
}

fn value(value: &str) -> NewRecord {
    NewRecord { value: text(value), ..NewRecord::default() }
}

const PAGE: Page = Page { max_records: u64::MAX, max_bytes: 1 << 20, decode: true };

impl Setup {
    fn topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.store.create_topic(NewTopic { name: name.to_owned(), partitions, config }).unwrap();
    }

    fn write(&self, topic: &str, records: Vec<NewRecord>) -> Result<Produced, AppendRecordsError> {
        let prepared = self.admin.prepare_records(topic, records)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Ok(runtime.block_on(self.admin.append_records(prepared))?)
    }

    fn page(&self, topic: &str, start: &Start, page: Page) -> (Vec<Found>, Vec<Span>) {
        let (topic, spans) = self.admin.spans(topic, start).unwrap();
        let mut found = Vec::new();
        let mut take = |one| {
            found.push(one);
            Flow::Continue(())
        };
        self.admin.read_records(&topic, spans, page, &mut take).unwrap();
        let Some(Found::End { end }) = found.pop() else { panic!("a page has an end: {found:?}") };
        (found, end)
    }

    fn values(&self, topic: &str, from: StartAt) -> Vec<String> {
        let (found, _) = self.page(topic, &Start::At { from, partition: None }, PAGE);
        found.iter().map(shown).collect()
    }
}

fn shown(found: &Found) -> String {
    if let Found::Record(record) = found
        && let Value::Value(Some(Data::Text(text))) = &record.value
    {
        return text.clone();
    }
    format!("{found:?}")
}

#[test]
fn everything_about_a_record_comes_back() {
    let setup = setup();
    let header = |name: &str, value| HeaderLine { name: Data::Text(name.to_owned()), value };
    let binary = Data::of(vec![0xff, 0]);
    let headers = vec![header("h", text("1")), header("h", None), header("b", Some(binary.clone()))];
    let record = NewRecord { timestamp_ms: Some(5), key: Some(binary.clone()), value: None, headers, partition: None };
    let produced = setup.write("plain", vec![record.clone(), value("x")]).unwrap();
    assert!(produced.created, "made on first use: {produced:?}");
    assert_eq!(produced.partitions, [ProducedTo { partition: 0, first_offset: 0, last_offset: 1 }]);
    let start = Start::At { from: StartAt::Earliest, partition: Some(0) };
    let (found, end) = setup.page("plain", &start, PAGE);
    assert_eq!(end, [Span { partition: 0, next: 2, end: 2 }]);
    for found in &found {
        let line = serde_json::to_string(found).unwrap();
        let back: Found = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), line);
    }
    let Some(Found::Record(read)) = found.first() else { panic!("got {found:?}") };
    assert_eq!((read.offset, read.timestamp_ms, read.key.as_ref()), (0, 5, Some(&binary)));
    assert_eq!(read.headers, record.headers);
    assert!(matches!(read.value, Value::Value(None)), "{read:?}");
}

#[test]
fn pages_go_on_where_the_last_one_ended() {
    let setup = setup();
    setup.topic("t", 3, &[]);
    for number in 0..10 {
        setup.write("t", vec![NewRecord { partition: Some(number % 3), ..value(&number.to_string()) }]).unwrap();
    }
    for page in [Page { max_records: 3, ..PAGE }, Page { max_bytes: 1, ..PAGE }] {
        let mut start = Start::At { from: StartAt::Earliest, partition: None };
        let mut seen = Vec::new();
        loop {
            let (found, end) = setup.page("t", &start, page);
            seen.extend(found.iter().map(shown));
            if end.iter().all(|span| span.next == span.end) {
                break;
            }
            assert!(!found.is_empty() && found.len() <= 3, "{found:?}");
            let positions = end.iter().map(|span| (span.partition, span.next, Some(span.end))).collect();
            let next = Start::Positions(positions);
            assert_eq!(next.to_string().strip_prefix("positions=").unwrap().parse(), Ok(next.clone()));
            start = next;
        }
        assert_eq!(seen, ["0", "3", "6", "9", "1", "4", "7", "2", "5", "8"], "{page:?}");
    }
}

#[test]
fn a_reader_begins_where_it_says() {
    let setup = setup();
    let at = |timestamp_ms| NewRecord { timestamp_ms: Some(timestamp_ms), ..value(&timestamp_ms.to_string()) };
    setup.write("t", vec![at(1000), at(2000), at(3000)]).unwrap();
    for (from, want) in [
        (StartAt::Earliest, &["1000", "2000", "3000"][..]),
        (StartAt::Latest, &[]),
        (StartAt::Offset(2), &["3000"]),
        (StartAt::Offset(3), &[]),
        (StartAt::Time(1500), &["2000", "3000"]),
        (StartAt::Time(9000), &[]),
    ] {
        assert_eq!(setup.values("t", from), want, "{from:?}");
    }
    let start = |from, partition| Start::At { from, partition };
    let refused = setup.admin.spans("t", &start(StartAt::Offset(4), None)).unwrap_err();
    assert!(matches!(refused, ReadRecordsError::Offset { offset: 4, end: 3, .. }), "got {refused:?}");
    let refused = setup.admin.spans("t", &start(StartAt::Latest, Some(1))).unwrap_err();
    assert!(matches!(refused, ReadRecordsError::Partition { partition: 1, last: 0, .. }), "got {refused:?}");
    let refused = setup.admin.spans("nope", &start(StartAt::Latest, None)).unwrap_err();
    assert!(matches!(refused, ReadRecordsError::Topic(_)), "got {refused:?}");
}

#[test]
fn events_are_shown_as_events_and_what_is_none_is_named() {
    let setup = setup();
    let event = model::encode_avro(&Event::Insert(Box::default()));
    let topic = "azul.t1.system.insert";
    setup.write(topic, vec![NewRecord { value: Some(Data::of(event.clone())), ..NewRecord::default() }]).unwrap();
    setup.write(topic, vec![value("junk")]).unwrap();
    let start = Start::At { from: StartAt::Earliest, partition: None };
    let (found, _) = setup.page(topic, &start, PAGE);
    let [Found::Record(first), Found::Odd { odd }, Found::Record(second)] = found.as_slice() else {
        panic!("got {found:?}")
    };
    assert!(matches!(&first.value, Value::Event(event) if event.get().starts_with('{')), "{first:?}");
    assert_eq!((odd.from_offset, second.offset), (1, 1));
    let line = serde_json::to_string(first).unwrap();
    assert!(
        matches!(serde_json::from_str(&line).unwrap(), Found::Record(back) if matches!(back.value, Value::Event(_)))
    );
    let (raw, _) = setup.page(topic, &start, Page { decode: false, ..PAGE });
    let Some(Found::Record(raw)) = raw.into_iter().next() else { panic!("a record is there") };
    let Value::Value(Some(data)) = raw.value else { panic!("got {raw:?}") };
    assert_eq!(data.into_bytes().unwrap(), event);
}

#[test]
fn keys_choose_partitions() {
    let setup = setup();
    setup.topic("t", 4, &[]);
    setup.topic("azul.t1.system.insert", 4, &[]);
    for (topic, partition) in [
        ("t", hash::partition(b"some key", 4)),
        ("azul.t1.system.insert", crate::dispatcher::topic::partition(b"some key", 4)),
    ] {
        let record = NewRecord { key: text("some key"), ..value("x") };
        let produced = setup.write(topic, vec![record.clone(), record]).unwrap();
        let to = ProducedTo { partition: i32::try_from(partition).unwrap(), first_offset: 0, last_offset: 1 };
        assert_eq!(produced.partitions, [to], "{topic}");
    }
    let partitions: BTreeMap<i32, ()> =
        (0..4).map(|_| (setup.write("t", vec![value("x")]).unwrap().partitions[0].partition, ())).collect();
    assert_eq!(partitions.len(), 4, "requests without a key take turns");
}

#[test]
fn one_bad_record_keeps_all_of_them_out() {
    let setup = setup();
    setup.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    setup.topic("small", 1, &[("max.message.bytes", "200")]);
    let refused = |topic: &str, bad: NewRecord| {
        let good = NewRecord { key: text("k"), ..value("v") };
        let error = setup.write(topic, vec![good, bad]).unwrap_err();
        if let Some(topic) = setup.store.topic(topic) {
            assert_eq!(topic.partitions[0].offsets().high_watermark, 0, "{error}");
        }
        error
    };
    let error = refused("compacted", value("x"));
    assert!(matches!(error, AppendRecordsError::Record { number: 2, .. }), "got {error:?}");
    let error = refused("small", value(&"x".repeat(150)));
    assert!(matches!(error, AppendRecordsError::TooLarge { number: 2, limit: 200, .. }), "got {error:?}");
    let error = refused("small", NewRecord { partition: Some(1), ..value("x") });
    assert!(error.to_string().contains("there is no partition 1"), "{error}");
    let bad = Data::Binary { base64: "?".to_owned() };
    let error = refused("small", NewRecord { value: Some(bad), ..NewRecord::default() });
    assert!(error.to_string().contains("base64"), "{error}");
    for (topic, want) in [("__mine", "none of that name is made"), ("a/b", "none of that name is made")] {
        let error = refused(topic, value("x"));
        assert!(error.to_string().contains(want), "{topic}: {error}");
    }
    let internal = setup.store.topics().into_iter().find(|topic| topic.internal).unwrap();
    let error = setup.write(&internal.name, vec![value("x")]).unwrap_err();
    assert!(matches!(error, AppendRecordsError::Internal(_)), "got {error:?}");
    assert!(!setup.store.topics().iter().any(|topic| topic.name == "a/b"));
}

#[test]
fn many_records_become_several_batches_of_one_commit() {
    let setup = setup();
    setup.topic("small", 1, &[("max.message.bytes", "1000")]);
    let produced = setup.write("small", (0..100).map(|n| value(&format!("{n:0>100}"))).collect()).unwrap();
    assert_eq!(produced.partitions, [ProducedTo { partition: 0, first_offset: 0, last_offset: 99 }]);
    let values = setup.values("small", StartAt::Earliest);
    assert_eq!(values, (0..100).map(|n| format!("{n:0>100}")).collect::<Vec<_>>());
    assert_eq!(setup.write("small", Vec::new()).unwrap().records, 0);
}

#[test]
fn no_topic_is_made_where_the_broker_makes_none() {
    let setup = setup();
    let off = BTreeMap::from([("auto.create.topics.enable".to_owned(), "false".to_owned())]);
    setup.admin.broker.set_fixed_config(off);
    let refused = setup.write("new", vec![value("x")]).unwrap_err();
    assert!(matches!(refused, AppendRecordsError::Topic(_)), "got {refused:?}");
    assert!(setup.store.topic("new").is_none());
}
