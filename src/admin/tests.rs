//! Views and scans over a real store.

use std::sync::Arc;

use azulite_storage::fs::RealFs;
use azulite_storage::{Lane, NewTopic, Options, Store};

use super::*;
use crate::broker::{Append, BatchBuilder, CommittedOffset, TopicPartition};
use crate::dispatcher::model::{
    self, Author, BinaryEntity, BinaryEvent, Event, PathNode, Source, StatusEntity, StatusEvent, Timestamp,
};
use crate::dispatcher::topic::{Action, binary_topic, route};
use crate::streams::EmbeddedBlobs;

const PREFIX: &str = "t1";

struct Setup {
    store: Store,
    admin: Admin,
    _folder: tempfile::TempDir,
}

fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1 << 20, ..Options::new(folder.path().join("data")) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    let broker = Broker::new(Arc::new(store.clone()));
    let admin = Admin::new(broker, Arc::new(EmbeddedBlobs::new(store.clone())), PREFIX.to_owned());
    Setup { store, admin, _folder: folder }
}

fn author(name: &str) -> Author {
    Author { name: name.to_owned(), category: "loader".to_owned(), ..Author::default() }
}

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn binary(sha256: &str, by: &str, at: &str) -> BinaryEvent {
    let node =
        PathNode { author: author(by), action: "sourced".to_owned(), sha256: sha256.to_owned(), ..PathNode::default() };
    let source = Source {
        name: "lab".to_owned(),
        timestamp: Timestamp::parse(at).unwrap(),
        path: vec![node],
        ..Source::default()
    };
    BinaryEvent {
        author: author(by),
        source,
        entity: BinaryEntity { sha256: sha256.to_owned(), ..BinaryEntity::default() },
        action: "sourced".to_owned(),
        ..BinaryEvent::default()
    }
}

impl Setup {
    fn topic(&self, name: &str) -> Arc<Topic> {
        self.store.topic(name).unwrap_or_else(|| {
            let new = NewTopic { name: name.to_owned(), partitions: 1, config: BTreeMap::new() };
            self.store.create_topic(new).unwrap()
        })
    }

    fn put(&self, topic: &str, value: &[u8]) {
        let mut batch = BatchBuilder::default();
        batch.push(0, Some(b"k"), Some(value));
        let partition = self.topic(topic).partitions[0].clone();
        let append = Append { partition, batch: batch.build().unwrap() };
        self.store.append_wait(Lane(0), vec![append]).unwrap();
    }

    fn publish(&self, mut event: Event) {
        let key = model::kafka_key(&event, [0; 32]).unwrap();
        event.set_kafka_key(key);
        self.put(&route(PREFIX, &event).unwrap(), &model::encode_avro(&event));
    }

    fn events(&self, sha256: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut take = |finding| {
            findings.push(finding);
            Flow::Continue(())
        };
        self.admin.entity_events(sha256, &mut take).unwrap();
        findings
    }
}

fn topics_of(findings: &[Finding]) -> Vec<&str> {
    fn name(finding: &Finding) -> &str {
        match finding {
            Finding::Event(event) => &event.topic,
            Finding::Damage { .. } => "damage",
        }
    }
    findings.iter().map(name).collect()
}

#[test]
fn topics_and_groups_are_shown_with_offsets_and_lag() {
    let setup = setup();
    setup.put("azul.t1.system.insert", b"x");
    setup.put("azul.t1.system.insert", b"y");
    let place = TopicPartition { topic: "azul.t1.system.insert".to_owned(), partition: 0 };
    let position = CommittedOffset { offset: 1, leader_epoch: -1, metadata: String::new(), commit_time_ms: 7 };
    setup.store.commit_offsets_wait("g", &vec![(place, Some(position))], Vec::new()).unwrap();

    let list = setup.admin.topics();
    let listed = list.topics.iter().find(|topic| topic.name == "azul.t1.system.insert").unwrap();
    assert_eq!((listed.records, listed.partitions, listed.internal), (2, 1, false));
    assert!(list.topics.iter().any(|topic| topic.internal));
    let topic = setup.admin.topic("azul.t1.system.insert").unwrap();
    assert_eq!((topic.partitions[0].log_start_offset, topic.partitions[0].high_watermark), (0, 2));
    assert!(setup.admin.topic("nope").is_none());

    let groups = setup.admin.groups().unwrap().groups;
    assert_eq!(groups, [GroupSummary { name: "g".to_owned(), partitions: 1, lag: 1 }]);
    let group = setup.admin.group("g").unwrap().unwrap();
    assert_eq!((group.lag, group.positions[0].end_offset, group.positions[0].committed_ms), (1, Some(2), 7));
    assert!(setup.admin.group("nope").unwrap().is_none());
}

#[test]
fn an_entity_is_found_in_every_topic_it_is_in() {
    let setup = setup();
    let (a, b) = (hash('a'), hash('b'));
    let time = "2026-01-02T03:04:05Z";
    setup.publish(Event::Binary(Box::new(binary(&a, "amy", time))));
    setup.publish(Event::Binary(Box::new(binary(&b, "amy", time))));
    let mut expedited = binary(&a, "amy", time);
    expedited.flags.expedite = true;
    setup.publish(Event::Binary(Box::new(expedited)));
    let entity = StatusEntity { input: binary(&a, "amy", time), ..StatusEntity::default() };
    let status = StatusEvent { author: author("p"), entity, ..StatusEvent::default() };
    setup.publish(Event::Status(Box::new(status)));

    let found = setup.events(&a);
    assert_eq!(topics_of(&found), ["azul.t1.lab.binary.sourced", "azul.t1.system.expedite", "azul.t1.system.status"]);
    let Finding::Event(first) = &found[0] else { panic!("got {found:?}") };
    assert!(first.event.get().contains(r#""kafka_key":"#), "{first:?}");
    let back: Finding = serde_json::from_str(&serde_json::to_string(&found[0]).unwrap()).unwrap();
    assert!(matches!(&back, Finding::Event(back) if back.event.get() == first.event.get()), "got {back:?}");
    assert_eq!(topics_of(&setup.events(&b)), ["azul.t1.lab.binary.sourced"]);
    assert!(setup.events(&hash('c')).is_empty());
}

#[test]
fn a_record_that_names_the_entity_and_is_no_event_is_reported() {
    let setup = setup();
    let a = hash('a');
    setup.put(&binary_topic(PREFIX, "lab", Action::Sourced), format!("junk about {a}").as_bytes());
    setup.put(&binary_topic(PREFIX, "lab", Action::Sourced), b"junk about nothing");
    let found = setup.events(&a);
    let [Finding::Damage { damage }] = found.as_slice() else { panic!("got {found:?}") };
    assert_eq!((damage.from_offset, damage.last_offset), (0, 0));
    let line = serde_json::to_string(&found[0]).unwrap();
    let back: Finding = serde_json::from_str(&line).unwrap();
    assert!(matches!(back, Finding::Damage { .. }), "got {back:?} from {line}");
}

#[test]
fn a_scan_ends_when_it_is_told_to() {
    let setup = setup();
    for _ in 0..3 {
        setup.publish(Event::Binary(Box::new(binary(&hash('a'), "amy", "2026-01-02T03:04:05Z"))));
    }
    let mut seen = 0;
    let mut once = |_| {
        seen += 1;
        Flow::Break(())
    };
    setup.admin.entity_events(&hash('a'), &mut once).unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn announcements_of_one_author_are_told_apart_by_time_only_in_their_key() {
    let setup = setup();
    for (sha256, by, at) in [
        (hash('a'), "loader", "2026-01-02T03:04:05Z"),
        (hash('a'), "loader", "2027-01-02T03:04:05Z"),
        (hash('b'), "somebody else", "2026-01-02T03:04:05Z"),
    ] {
        setup.publish(Event::Binary(Box::new(binary(&sha256, by, at))));
    }
    let mut found = Vec::new();
    let mut take = |announcement| {
        found.push(announcement);
        Flow::Continue(())
    };
    setup.admin.announced("lab", "loader", &mut take).unwrap();
    let [Announcement::Sourced { key: one, identity: same, .. }, Announcement::Sourced { key: two, identity, .. }] =
        found.as_slice()
    else {
        panic!("got {found:?}")
    };
    assert_ne!(one, two);
    assert_eq!(same, identity);
    assert_eq!(*identity, super::identity(&binary(&hash('a'), "loader", "2030-01-01T00:00:00Z")));
    let line = serde_json::to_string(&found[0]).unwrap();
    assert_eq!(serde_json::from_str::<Announcement>(&line).unwrap(), found[0]);
}

#[test]
fn topics_are_made_changed_and_deleted_by_hand() {
    let setup = setup();
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let new =
        |name: &str| CreateTopic { name: name.to_owned(), partitions: 2, config: pairs(&[("retention.ms", "5")]) };
    let made = setup.admin.create_topic(new("t")).unwrap();
    assert_eq!((made.partitions.len(), &made.config), (2, &pairs(&[("retention.ms", "5")])));
    assert!(matches!(setup.admin.create_topic(new("t")), Err(TopicRefusal::Exists(_))));
    assert!(matches!(setup.admin.create_topic(new("a b")), Err(TopicRefusal::Bad(_))));
    let change: AlterTopic =
        serde_json::from_str(r#"{"partitions": 3, "config": {"retention.ms": null, "max.message.bytes": "9"}}"#)
            .unwrap();
    let changed = setup.admin.alter_topic("t", change.clone()).unwrap();
    assert_eq!((changed.partitions.len(), &changed.config), (3, &pairs(&[("max.message.bytes", "9")])));
    let got = setup.admin.alter_topic("t", change).unwrap_err();
    assert!(matches!(&got, TopicRefusal::Bad(text) if text.contains("3 partitions")), "got {got:?}");
    assert_eq!(setup.admin.delete_topic("t").unwrap().id, made.id);
    assert!(matches!(setup.admin.delete_topic("t"), Err(TopicRefusal::Missing(_))));
    assert!(matches!(setup.admin.delete_topic("__azulite_state"), Err(TopicRefusal::Bad(_))));
    assert!(serde_json::from_str::<AlterTopic>(r#"{"partition": 3}"#).is_err(), "a typing mistake is no empty change");
}
