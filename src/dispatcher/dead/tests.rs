//! Letters over a real store.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use azulite_storage::Store;
use azulite_storage::fs::RealFs;
use serde_json::{Value as Json, json};

use super::*;
use crate::dispatcher::leases::Attempt;
use crate::dispatcher::model::{Author, BinaryEntity, BinaryEvent, PathNode, Source, Timestamp};

const NOON_MS: i64 = 1_767_322_800_000;

struct World {
    store: Store,
    dead: DeadLetters,
    folder: tempfile::TempDir,
}

fn world() -> World {
    world_with(None)
}

fn world_with(keep: Option<Duration>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let (store, dead) = open(folder.path(), keep);
    World { store, dead, folder }
}

fn open(folder: &Path, keep: Option<Duration>) -> (Store, DeadLetters) {
    let options =
        azulite_storage::Options { segment_bytes: 1 << 20, ..azulite_storage::Options::new(folder.join("data")) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    let options = Options { dir: folder.join("dead"), keep, warn_per_hour: 2 };
    let broker = Broker::new(Arc::new(store.clone()));
    (store, DeadLetters::load(broker, "t1", options, Arc::new(Metrics::new())).unwrap())
}

fn event(key: &str) -> BinaryEvent {
    let author = Author { name: "amy".to_owned(), category: "user".to_owned(), ..Author::default() };
    let sha256 = "a".repeat(64);
    let node = PathNode {
        author: author.clone(),
        action: "mapped".to_owned(),
        sha256: sha256.clone(),
        filename: "a b.txt".to_owned(),
        ..PathNode::default()
    };
    let source = Source {
        name: "lab".to_owned(),
        path: vec![node],
        settings: [("passwords", "hunter2"), ("mode", "fast")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        timestamp: Timestamp::from_millis(NOON_MS),
        ..Source::default()
    };
    BinaryEvent {
        kafka_key: key.to_owned(),
        timestamp: Timestamp::from_millis(NOON_MS),
        author,
        source,
        entity: BinaryEntity { sha256, ..BinaryEntity::default() },
        action: "mapped".to_owned(),
        ..BinaryEvent::default()
    }
}

fn letter(key: &str, version: &str, time_ms: i64) -> DeadLetter {
    let attempt = |after_ms, error: &str| Attempt {
        time_ms: time_ms + after_ms,
        status: "error-exception".to_owned(),
        error: error.to_owned(),
        message: String::new(),
        runtime: 1.5,
    };
    DeadLetter {
        id: "made anew".to_owned(),
        time_ms,
        consumer: "Carver".to_owned(),
        version: version.to_owned(),
        stage: String::new(),
        attempts: vec![attempt(-60_000, "first"), attempt(0, "second\nline")],
        topic: "azul.t1.lab.binary.mapped".to_owned(),
        partition: 0,
        offset: 7,
        event: event(key),
        context: json!({"task": 9, "login": {"api_token": "s3cret"}}),
    }
}

impl World {
    fn commit(&self, parts: DeadParts) -> Vec<DeadRecord> {
        self.store.put_kv(parts.values).unwrap();
        self.dead.committed(parts.outcome);
        parts.records
    }

    fn record(&self, letter: &DeadLetter) -> Vec<DeadRecord> {
        self.commit(self.dead.record(letter).unwrap())
    }

    fn put_back(&self, id: &str, version: &str) {
        let mut change = self.dead.change();
        let Found::Letter(head) = change.find(id).unwrap() else { panic!("no letter {id}") };
        change.put_back(&head, Requeued { time_ms: NOON_MS, version: version.to_owned() });
        drop(self.commit(change.finish()));
    }

    fn heads(&self) -> Vec<Head> {
        self.dead.page(&Filter::default(), None, 1000).unwrap().0
    }

    fn files(&self) -> Vec<String> {
        self.dead.settle_files().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path().join("dead"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_letter_is_a_record_rows_and_a_file_until_its_run_succeeds() {
    let world = world();
    assert!(world.dead.succeeded("k1", "Carver", "1").unwrap().is_none());
    let [record] = &world.record(&letter("0123456789abcdef", "1", NOON_MS))[..] else { panic!("one record") };
    assert_eq!(record.topic, "azul.t1.system.dead");
    let id = id_of("0123456789abcdef", "Carver", "1", "");
    assert!(is_id(&id) && record.key == id);
    let text: Json = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
    let known = json!({"id": id, "time": "2026-01-02T03:00:00Z", "consumer": "Carver", "version": "1", "stage": "",
        "topic": "azul.t1.lab.binary.mapped", "partition": 0, "offset": 7, "kafka_key": "0123456789abcdef",
        "sha256": "a".repeat(64), "source": "lab", "filename": "a b.txt"});
    for (name, value) in known.as_object().unwrap() {
        assert_eq!(&text[name], value, "{name}");
    }
    let first = json!({"time": "2026-01-02T02:59:00Z", "status": "error-exception", "error": "first", "message": "",
        "runtime": 1.5});
    assert_eq!(text["attempts"][0], first);
    let head = &world.heads()[0];
    assert_eq!((head.reason.as_str(), head.attempts, head.status.as_str()), ("second", 2, "error-exception"));
    let name = "20260102T030000.000Z_Carver_0123456789ab.json";
    assert_eq!(world.files(), [name]);
    let path = world.folder.path().join("dead").join(name);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(serde_json::from_slice::<Json>(&std::fs::read(&path).unwrap()).unwrap(), text);
    assert!(world.dead.succeeded("0123456789abcdef", "Carver", "2").unwrap().is_none(), "another version");
    let parts = world.dead.succeeded("0123456789abcdef", "Carver", "1").unwrap().unwrap();
    let records = world.commit(parts);
    assert_eq!((records.len(), &records[0].value), (1, &None), "a tombstone");
    assert_eq!((world.heads(), world.files().len(), world.dead.counts()), (Vec::new(), 0, Vec::new()));
    assert_eq!(world.store.kv_page(b"dead", None, 10).unwrap(), [], "no row is left");
}

#[test]
fn a_later_failure_takes_the_place_of_an_earlier_one() {
    let world = world();
    drop(world.record(&letter("k", "1", NOON_MS)));
    drop(world.record(&letter("k", "1", NOON_MS + 5)));
    // The same millisecond at another version.
    drop(world.record(&letter("k", "2", NOON_MS + 5)));
    let files = world.files();
    assert_eq!((files.len(), world.heads().len()), (2, 2), "{files:?}");
    let id = id_of("k", "Carver", "1", "");
    world.put_back(&id, "3");
    let count = &world.dead.counts()[0];
    assert_eq!((count.dead, count.requeued), (1, 1));
    // It was put back for version 3, which fails too.
    let records = world.record(&letter("k", "3", NOON_MS + 6));
    assert_eq!(records.iter().filter(|record| record.value.is_none()).count(), 1);
    assert_eq!(world.heads().iter().map(|head| head.version.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    world.put_back(&id_of("k", "Carver", "2", ""), "4");
    let parts = world.dead.succeeded("k", "Carver", "4").unwrap().unwrap();
    drop(world.commit(parts));
    assert_eq!(world.heads().len(), 1);
    assert_eq!(world.dead.counts()[0].dead, 1);
}

#[test]
fn a_crash_before_the_file_loses_neither_the_letter_nor_the_file() {
    let World { store, dead, folder } = world();
    let parts = dead.record(&letter("k", "1", NOON_MS)).unwrap();
    store.put_kv(parts.values).unwrap();
    // Neither committed() nor the writer has run.
    drop(parts.outcome);
    drop(dead);
    store.close();
    drop(store);
    let (store, dead) = open(folder.path(), None);
    assert_eq!(dead.counts().len(), 1, "counted at the start");
    dead.settle_files().unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("dead")).unwrap().count(), 1);
    store.close();
}

#[test]
fn a_directory_that_cannot_be_used_is_named_and_its_files_follow_later() {
    let world = world();
    let dir = world.folder.path().join("dead");
    std::fs::write(&dir, b"in the way").unwrap();
    assert!(test_dir(&dir).is_err());
    drop(world.record(&letter("k", "1", NOON_MS)));
    assert!(world.dead.settle_files().is_err());
    assert!(
        world.dead.warning(NOON_MS).contains("the file of one dead letter is not"),
        "{}",
        world.dead.warning(NOON_MS)
    );
    std::fs::remove_file(&dir).unwrap();
    test_dir(&dir).unwrap();
    assert_eq!(world.files().len(), 1);
    assert_eq!(world.dead.warning(NOON_MS), "");
    for key in ["l", "m"] {
        drop(world.record(&letter(key, "1", NOON_MS - 1000)));
    }
    assert!(world.dead.warning(NOON_MS).contains("3 events"), "{}", world.dead.warning(NOON_MS));
    assert_eq!(world.dead.warning(NOON_MS + 2 * 3_600_000), "", "an hour later");
}

#[test]
fn what_looks_like_a_secret_stays_here() {
    let world = world();
    let records = world.record(&letter("k", "1", NOON_MS));
    let text = String::from_utf8(records[0].value.as_ref().unwrap().to_vec()).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("s3cret") && text.contains("fast"), "{text}");
    let text: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(text["withheld"], json!(["event.source.settings.passwords", "context.login.api_token"]));
    let kept = world.dead.letter(&id_of("k", "Carver", "1", "")).unwrap().unwrap();
    assert_eq!(kept.event.source.settings["passwords"], "hunter2", "runs here have it");
}

#[test]
fn a_text_is_read_back_and_one_from_nowhere_is_refused() {
    let written = letter("k", "1", NOON_MS);
    let read = DeadLetter::from_text(&written.to_text()).unwrap();
    assert_eq!(read.id, id_of("k", "Carver", "1", ""));
    assert_eq!((read.attempts, read.offset, read.time_ms), (written.attempts, 7, NOON_MS));
    assert_eq!(read.event.source.path, written.event.source.path);
    let text: Json = serde_json::from_slice(&letter("k", "1", NOON_MS).to_text()).unwrap();
    let with = |name: &str, value: Json| {
        let mut text = text.clone();
        text[name] = value;
        DeadLetter::from_text(text.to_string().as_bytes())
    };
    let hostile = with("consumer", json!("../../etc/\u{1b}passwd")).unwrap();
    assert_eq!(hostile.file_name(), "20260102T030000.000Z_.._.._etc__passwd_k.json");
    assert!(with("id", json!("../../x")).is_ok_and(|letter| is_id(&letter.id)), "ids are made anew");
    for (name, value) in [
        ("consumer", json!("")),
        ("consumer", json!("x".repeat(2000))),
        ("consumer", json!(7)),
        ("time", json!("yesterday")),
        ("event", json!({})),
        ("event", json!(null)),
        ("event", json!([1])),
        ("attempts", json!({"a": 1})),
        ("partition", json!(1_u64 << 40)),
    ] {
        assert!(with(name, value.clone()).is_err(), "{name} {value}");
    }
    for junk in [&b""[..], b"{", b"[]", b"\xff\xfe", b"null", b"{\"a\":1}"] {
        assert!(DeadLetter::from_text(junk).is_err());
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(DeadLetter::from_text(deep.as_bytes()).is_err());
    let too_long = vec![b' '; TEXT_LIMIT + 1];
    assert_eq!(DeadLetter::from_text(&too_long), Err(LetterError::TooLong(TEXT_LIMIT + 1)));
}

#[test]
fn what_comes_from_outside_is_cut() {
    let mut long = letter("k", "1", NOON_MS);
    long.context = json!("x".repeat(2 << 20));
    long.attempts = vec![Attempt { error: "é".repeat(10_000), ..long.attempts[0].clone() }; 500];
    let bounded = long.bounded();
    assert_eq!(bounded.attempts.len(), 100);
    assert!(bounded.context["left out"].is_string(), "{}", bounded.context);
    assert!(bounded.attempts[0].error.len() < 9000 && bounded.attempts[0].error.ends_with("(20000 bytes)"));
}

#[test]
fn old_letters_go_but_for_those_of_which_a_run_is_waited_for() {
    let world = world_with(Some(Duration::from_secs(3600)));
    for (key, time_ms) in [("old", 0), ("waiting", 0), ("young", 3_600_000)] {
        drop(world.record(&letter(key, "1", NOON_MS + time_ms)));
    }
    world.put_back(&id_of("waiting", "Carver", "1", ""), "1");
    assert_eq!(world.files().len(), 3);
    assert_eq!(world.dead.remove_old(NOON_MS + 3_600_001).unwrap(), 1);
    assert_eq!(world.dead.remove_old(NOON_MS + 3_600_001).unwrap(), 0);
    assert_eq!((world.heads().len(), world.files().len()), (2, 2));
}

#[test]
fn many_letters_are_listed_in_pages() {
    let world = world();
    let (all, per_commit) = (100_000_i64, 10_000);
    let head = Head::of(&letter("k", "1", NOON_MS), "f.json".to_owned());
    for from in (0..all).step_by(per_commit) {
        let rows = (from..from + i64::try_from(per_commit).unwrap()).map(|number| {
            let status = if number % 1000 == 0 { "error-input" } else { "error-timeout" };
            let id = format!("{number:020x}-0123456789ab");
            Head { id, time_ms: NOON_MS + number / 7, status: status.to_owned(), ..head.clone() }.put()
        });
        world.store.put_kv(rows.collect()).unwrap();
    }
    let (mut seen, mut after, mut pages) = (0, None, 0);
    loop {
        let (heads, next) = world.dead.page(&Filter::default(), after.as_ref(), 1000).unwrap();
        assert!(heads.len() <= 1000 && heads.is_sorted_by_key(|head| head.time_ms));
        (seen, pages) = (seen + heads.len(), pages + 1);
        // As a client sends it back.
        after = next.map(|next| next.to_string().parse().unwrap());
        if after.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (100_000, 101));
    let filter = Filter { status: Some("error-input".to_owned()), since_ms: Some(NOON_MS + 7143), ..Filter::default() };
    let (heads, next) = world.dead.page(&filter, None, 1000).unwrap();
    assert_eq!((heads.len(), next), (49, None));
    let world = World {
        dead: DeadLetters::load(world.dead.broker.clone(), "t1", world.dead.options.clone(), Arc::new(Metrics::new()))
            .unwrap(),
        ..world
    };
    assert_eq!(world.dead.counts().iter().map(|count| count.dead).sum::<u64>(), 100_000);
}

#[test]
fn two_changes_of_one_letter_are_one_after_the_other() {
    let world = world();
    drop(world.record(&letter("k", "1", NOON_MS)));
    let id = id_of("k", "Carver", "1", "");
    let success = world.dead.succeeded("k", "Carver", "1").unwrap().unwrap();
    let mut change = world.dead.change();
    assert_eq!(change.find(&id).unwrap(), Found::Busy, "a success is on its way to the disk");
    drop(world.commit(success));
    assert_eq!(change.find(&id).unwrap(), Found::Missing);
    assert_eq!(change.find("../../x").unwrap(), Found::Missing);
}
