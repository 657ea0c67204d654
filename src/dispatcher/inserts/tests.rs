use std::sync::Mutex;

use super::super::model::{Author, BinaryEntity, Datastream, Source};
use super::*;

fn stream(label: &str, sha256: &str) -> Datastream {
    Datastream { label: label.into(), sha256: sha256.into(), size: 1, ..Datastream::default() }
}

fn node(sha256: &str, action: &str) -> PathNode {
    let author = Author { name: "amy".into(), category: "user".into(), ..Author::default() };
    PathNode { sha256: sha256.into(), action: action.into(), author, ..PathNode::default() }
}

/// A child of `parent` whose streams are in source `old`.
fn insert(parent: &str, child: &str) -> InsertEvent {
    let mut insert = InsertEvent { kafka_key: format!("{parent}-{child}"), ..InsertEvent::default() };
    insert.author.name = "amy".into();
    insert.entity.original_source = "old".into();
    insert.entity.parent_sha256 = parent.into();
    insert.entity.child = BinaryEntity {
        sha256: child.into(),
        datastreams: vec![stream("content", child), stream("text", "other")],
        ..BinaryEntity::default()
    };
    insert.entity.child_history = node(child, "extracted");
    insert
}

fn avro(insert: InsertEvent) -> Vec<u8> {
    model::encode_avro(&Event::Insert(Box::new(insert)))
}

fn inserts(all: impl IntoIterator<Item = InsertEvent>) -> Inserts {
    let mut inserts = Inserts::default();
    for insert in all {
        let key = insert.kafka_key.clone();
        inserts.apply(Some(key.as_bytes()), Some(&avro(insert))).unwrap();
    }
    inserts
}

fn parent(sha256: &str, action: &str, path: &[&str]) -> BinaryEvent {
    let mut event = BinaryEvent { action: action.into(), ..BinaryEvent::default() };
    event.entity.sha256 = sha256.into();
    event.author.name = "amy".into();
    event.source = Source {
        name: "lab".into(),
        path: path.iter().map(|sha256| node(sha256, "sourced")).collect(),
        ..Source::default()
    };
    event
}

fn run(parents: Vec<BinaryEvent>, inserts: &Inserts) -> Produced {
    let mut produced = Produced {
        events: parents
            .into_iter()
            .map(|event| Outgoing { event: Event::Binary(Box::new(event)), from_client: true, streams_from: None })
            .collect(),
        ..Produced::default()
    };
    inject(&mut produced, inserts, Timestamp::from_micros(77));
    produced
}

fn hashes(produced: &Produced) -> Vec<&str> {
    let sha256 = |outgoing| match outgoing {
        &Outgoing { event: Event::Binary(ref event), .. } => event.entity.sha256.as_str(),
        other => panic!("{other:?}"),
    };
    produced.events.iter().map(sha256).collect()
}

#[test]
fn a_child_comes_behind_its_parent_with_the_parents_source() {
    let mut parent = parent("A", "sourced", &["A"]);
    parent.flags.expedite = true;
    let produced = run(vec![parent.clone(), self::parent("B", "sourced", &["B"])], &inserts([insert("A", "C")]));
    assert_eq!(hashes(&produced), ["A", "C", "B"]);
    let Event::Binary(child) = &produced.events[1].event else { panic!("{produced:?}") };
    let mut source = parent.source;
    source.path.push(node("C", "extracted"));
    assert_eq!(child.source, source);
    assert_eq!((child.action.as_str(), child.timestamp), ("extracted", Timestamp::from_micros(77)));
    assert_eq!((&child.author, child.flags), (&node("C", "extracted").author, Default::default()));
    assert_eq!(produced.events[1].streams_from.as_deref(), Some("old"));
    assert!(!produced.events[1].from_client);
    assert_eq!(produced.added, BTreeMap::from([("InjectChildEvents", 1)]));
    assert!(produced.errors.is_empty() && produced.drops.iter().next().is_none());
}

#[test]
fn only_events_that_bring_another_file_get_children() {
    let inserts = inserts([insert("A", "C")]);
    let table: [(&str, &[&str], bool); 8] = [
        ("sourced", &["A"], true),
        ("sourced", &[], true),
        ("extracted", &["P", "A"], true),
        ("augmented", &["P", "Q", "A"], true),
        ("augmented", &["A", "A"], false),
        ("enriched", &["A"], false),
        ("mapped", &["P", "A"], false),
        ("", &["A"], false),
    ];
    for (action, path, gets) in table {
        let mut event = parent("A", action, path);
        // A path without nodes would give a child of one node.
        event.source.name = "lab".into();
        let produced = run(vec![event], &inserts);
        assert_eq!(produced.events.len() == 2, gets, "{action} {path:?}: {produced:?}");
    }
}

#[test]
fn an_injected_child_gets_no_children_in_the_same_call() {
    let produced = run(vec![parent("A", "sourced", &["A"])], &inserts([insert("A", "C"), insert("C", "D")]));
    assert_eq!(hashes(&produced), ["A", "C"]);
}

#[test]
fn the_newest_insert_of_a_key_counts_and_a_tombstone_takes_it_away() {
    let mut inserts = inserts([insert("A", "C"), insert("A", "D")]);
    let moved = InsertEvent { kafka_key: "A-C".into(), ..insert("B", "E") };
    inserts.apply(Some(b"A-C"), Some(&avro(moved))).unwrap();
    let both = || vec![parent("A", "sourced", &["A"]), parent("B", "sourced", &["B"])];
    assert_eq!(hashes(&run(both(), &inserts)), ["A", "D", "B", "E"]);
    for gone in [None, Some(&b""[..])] {
        inserts.apply(Some(b"A-C"), gone).unwrap();
        assert_eq!(hashes(&run(both(), &inserts)), ["A", "D", "B"]);
    }
    inserts.apply(Some(b"A-D"), None).unwrap();
    inserts.apply(None, None).unwrap();
    assert!(inserts.by_parent.is_empty() && inserts.parents.is_empty());
}

#[test]
fn inserts_that_cannot_be_used_are_named_and_not_kept() {
    let mut inserts = Inserts::default();
    assert_eq!(inserts.apply(Some(b"k"), Some(b"{}")).unwrap_err().reason, "undecodable");
    let orphan = InsertEvent { kafka_key: "k".into(), ..insert("", "C") };
    assert_eq!(inserts.apply(Some(b"k"), Some(&avro(orphan))).unwrap_err().reason, "invalid");
    assert!(inserts.parents.is_empty());
}

/// Section 10, 23.
#[test]
fn a_bad_insert_does_not_drop_the_parent_or_its_other_children() {
    let mut bad = insert("A", "B");
    bad.entity.child.datastreams.clear();
    let produced = run(vec![parent("A", "sourced", &["A"])], &inserts([bad, insert("A", "C")]));
    assert_eq!(hashes(&produced), ["A", "C"]);
    assert_eq!(produced.drops.iter().next(), None);
    let errors: Vec<_> = produced.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("InjectChildEvents: binary event of \"amy\": insert A-B: "), "{errors:?}");
}

#[test]
fn children_of_one_event_are_bounded() {
    let many = (0..MAX_CHILDREN + 5).map(|n| insert("A", &format!("c{n}")));
    let produced = run(vec![parent("A", "sourced", &["A"])], &inserts(many));
    assert_eq!((produced.events.len(), produced.errors.len()), (1 + MAX_CHILDREN, 1));
}

#[test]
fn children_of_all_events_of_a_request_are_bounded_together() {
    let inserts = inserts((0..100).map(|n| insert("A", &format!("c{n}"))));
    let large = || {
        let mut parent = parent("A", "sourced", &["A"]);
        parent.source.references.insert("user".to_owned(), "x".repeat(100_000));
        parent
    };
    let produced = run((0..10).map(|_| large()).collect(), &inserts);
    let children = produced.events.len() - 10;
    assert!((300..340).contains(&children), "{children} of about 100 kB in 32 MiB");
    assert_eq!(produced.errors.len(), 7);
    assert!(
        produced.errors[6].reason.contains("100 inserts wait for this parent, it got 0"),
        "{:?}",
        produced.errors[6]
    );
}

#[derive(Debug, Default)]
struct Copies(Mutex<Vec<[String; 4]>>);

impl CopyStreams for Copies {
    fn copy_stream(&self, label: &str, sha256: &str, from: &str, to: &str) -> Result<bool, String> {
        self.0.lock().unwrap().push([label, sha256, from, to].map(str::to_owned));
        match label {
            "content" => Ok(true),
            "text" => Ok(false),
            other => Err(format!("no {other}")),
        }
    }
}

/// Section 10, 22.
#[test]
fn each_stream_is_copied_under_its_own_hash() {
    let mut with_report = insert("A", "C");
    with_report.entity.child.datastreams.push(stream("report", "R"));
    let produced = run(vec![parent("A", "sourced", &["A"])], &inserts([with_report]));
    let copies = Copies::default();
    let errors = copy_streams(&produced.events, &copies);
    let wanted =
        [["content", "C"], ["text", "other"], ["report", "R"]].map(|[label, hash]| [label, hash, "old", "lab"]);
    assert_eq!(*copies.0.lock().unwrap(), wanted);
    let reasons: Vec<_> = errors.iter().map(|error| error.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "stream text other was not copied from old to lab: is not there",
            "stream report R was not copied from old to lab: no report",
        ]
    );
    let same = InsertEvent { kafka_key: "k".into(), ..insert("A", "C") };
    let mut same = same;
    same.entity.original_source = "lab".into();
    let produced = run(vec![parent("A", "sourced", &["A"])], &inserts([same]));
    let copies = Copies::default();
    assert_eq!(copy_streams(&produced.events, &copies), []);
    assert!(copies.0.lock().unwrap().is_empty(), "they are there already");
}
