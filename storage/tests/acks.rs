//! Acknowledgements leave after the sync, never without it: the law ACK-SYNCED, and what a failing disk makes of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod support;

use azulite_storage::fs::{Fs, RealFs};
use azulite_storage::ids::TopicPartition;
use azulite_storage::state::BlobRefKey;
use azulite_storage::{AppendError, Durability, Lane, Options};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use support::ledger::{Ledger, Line};
use support::recorder::{Event, RecordingFs, check_ack, check_named};
use support::rng::Rng;
use support::session::{Appending, Places, Session, content_hash, fast_tempdir, small_options};
use support::sim_fs::SimFs;

fn name(partition: i32) -> TopicPartition {
    TopicPartition { topic: "t".to_owned(), partition }
}

fn line(text: &str) -> Line {
    Line { key: None, value: Some(text.as_bytes().to_vec()), timestamp: 1 }
}

/// Asks until the answer is yes, for at most ten seconds.
fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let patience = std::time::Instant::now();
    while !happened() {
        assert!(patience.elapsed().as_secs() < 10, "{what}: not within ten seconds");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// A store on a simulated disk, with a topic `t` of two partitions, whose cause of death is kept.
struct Bench {
    fs: SimFs,
    real: tempfile::TempDir,
    session: Session,
    fatal: Arc<Mutex<Vec<String>>>,
    ledger: Ledger,
}

impl Bench {
    fn new(seed: u64, change: impl FnOnce(Options) -> Options) -> Self {
        let (fs, real) = (SimFs::new(seed), fast_tempdir());
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&fatal);
        let options = Options {
            on_fatal: Some(Arc::new(move |reason: &str| noted.lock().unwrap().push(reason.to_owned()))),
            ..small_options(&Places::below(real.path()))
        };
        let session = Session::open(&fs, change(options)).unwrap();
        session.create_topic("t", 2).unwrap();
        Self { fs, real, session, fatal, ledger: Ledger::default() }
    }

    /// Waits until the next segments are made, so that a fault meets the committer and not the keeper.
    fn settled(&self) {
        let log = small_options(&Places::below(self.real.path())).root.join("log");
        wait_for("four segments", || {
            let names: Vec<_> = self.fs.list(&log).unwrap().into_iter().map(|entry| entry.name).collect();
            names.len() == 4 && names.iter().all(|name| name.ends_with(".seg"))
        });
    }

    fn send(&mut self, texts: &[&str]) -> (u64, TopicPartition, Appending) {
        let parts = [(name(0), texts.iter().map(|text| line(text)).collect())];
        (self.ledger.send(&parts), name(0), self.session.append(1, &parts))
    }

    fn send_and_wait(&mut self, text: &str) -> Result<i64, AppendError> {
        let (request, partition, appending) = self.send(&[text]);
        let outcome = appending.wait();
        match &outcome {
            Ok(bases) => self.ledger.promise(request, &[(partition, bases[0])]),
            // Nothing of the request is in the log, now or later.
            Err(AppendError::DiskFull) => self.ledger.refuse(request),
            Err(_) => {}
        }
        Ok(outcome?[0])
    }

    /// Ends the process, makes the power fail as `seed` says, and checks what a new process finds.
    fn reopen_and_check(mut self, seed: u64) -> Session {
        let fs = self.fs.kill().cut(seed);
        drop(self.session);
        let session = Session::open(&fs, small_options(&Places::below(self.real.path()))).unwrap();
        assert_eq!(session.store.report().damage, Vec::<String>::new());
        let found = [0, 1].map(|partition| (name(partition), session.read_all(&name(partition)).unwrap()));
        self.ledger.settle(&found.into()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        session
    }
}

#[test]
fn every_reply_follows_the_sync_of_what_it_promises() {
    let dir = tempfile::tempdir().unwrap();
    let fs = RecordingFs::new(Arc::new(RealFs));
    let options = Options { segment_bytes: 64 << 10, ..Options::new(dir.path().join("data")) };
    let session = Session::open(&fs, options).unwrap();
    session.create_topic("t", 2).unwrap();
    fs.ack("topic");
    let producer = |producer: u64| {
        for round in 0..10 {
            let (sender, receiver) = mpsc::channel();
            for at in 0..4 {
                let label = format!("record {producer}-{round}-{at} ");
                let line = line(&label.repeat(1 + at * 40));
                let appends = session.appends(&[(name(i32::try_from(producer % 2).unwrap()), vec![line])]);
                let (fs, sender) = (fs.clone(), sender.clone());
                session.store.append(
                    Lane(producer),
                    appends,
                    Box::new(move |outcome| {
                        outcome.unwrap();
                        fs.ack(label);
                        sender.send(()).unwrap();
                    }),
                );
            }
            (0..4).for_each(|_| receiver.recv().unwrap());
            let group = format!("group-{producer}-{round}");
            session.commit_offsets(&group, &BTreeMap::from([(name(0), round)])).unwrap();
            fs.ack(group);
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|number| drop(scope.spawn(move || producer(number)))));
    let events = fs.events();
    check_ack(&events, "topic", b"\x01t").unwrap();
    for producer in 0..4 {
        for round in 0..10 {
            let group = format!("group-{producer}-{round}");
            check_ack(&events, &group, group.as_bytes()).unwrap();
            for at in 0..4 {
                let label = format!("record {producer}-{round}-{at} ");
                check_ack(&events, &label, label.as_bytes()).unwrap();
            }
        }
    }
    let segments =
        events.iter().filter(|e| matches!(e, Event::Renamed { to, .. } if to.extension().is_some_and(|x| x == "seg")));
    assert!(segments.count() > 3, "segments were rolled while the producers ran");
}

#[test]
fn reply_without_a_sync_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let fs = RecordingFs::new(Arc::new(RealFs));
    let options = Options { durability: Durability::None, ..Options::new(dir.path().join("data")) };
    let session = Session::open(&fs, options).unwrap();
    session.create_topic("t", 1).unwrap();
    session.append(1, &[(name(0), vec![line("unsynced")])]).wait().unwrap();
    fs.ack("unsynced");
    let got = check_ack(&fs.events(), "unsynced", b"unsynced").unwrap_err();
    assert!(got.contains("without a sync"), "{got}");
}

#[test]
fn file_of_a_blob_is_removed_after_its_tombstone_is_synced_in_every_mode() {
    for durability in [Durability::Sync, Durability::Interval(std::time::Duration::from_secs(3600)), Durability::None] {
        let dir = tempfile::tempdir().unwrap();
        let fs = RecordingFs::new(Arc::new(RealFs));
        let options = Options { durability, inline_bytes: 0, ..Options::new(dir.path().join("data")) };
        let session = Session::open(&fs, options).unwrap();
        let key = BlobRefKey { hash: content_hash(b"content"), source: "lab".into(), label: "tombstone".into() };
        session.publish(&key, b"content").unwrap();
        let published = fs.events().len();
        session.delete_blob(&key).unwrap();
        let events = fs.events();
        let is_removal =
            |event: &Event| matches!(event, Event::Removed { path } if path.ends_with(key.hash.to_string()));
        let removed = events.iter().position(is_removal).unwrap();
        let tombstone = events[published..removed].iter().zip(published..).find_map(|(event, at)| {
            let Event::Written { file, bytes, .. } = event else { return None };
            support::recorder::contains(bytes, b"tombstone").then_some((*file, at))
        });
        let (log, written) = tombstone.expect("the tombstone is written before the file goes");
        let is_sync =
            |event: &Event| matches!(event, Event::Synced { file, started } if *file == log && *started > written);
        assert!(events[..removed].iter().any(is_sync), "{durability:?}");
    }
}

#[test]
fn blob_is_answered_after_its_bytes_its_name_and_its_record_are_synced() {
    let dir = tempfile::tempdir().unwrap();
    let fs = RecordingFs::new(Arc::new(RealFs));
    let options = Options { inline_bytes: 0, ..Options::new(dir.path().join("data")) };
    let session = Session::open(&fs, options).unwrap();
    for number in 0..5 {
        let content = format!("content of blob {number} ").repeat(1000);
        let label = format!("label-{number}");
        let key = BlobRefKey { hash: content_hash(content.as_bytes()), source: "lab".into(), label: label.clone() };
        session.publish(&key, content.as_bytes()).unwrap();
        fs.ack(&label);
        let events = fs.events();
        check_ack(&events, &label, format!("blob {number} ").as_bytes()).unwrap();
        check_ack(&events, &label, label.as_bytes()).unwrap();
        let named =
            events.iter().position(|e| matches!(e, Event::Renamed { to, .. } if to.ends_with(key.hash.to_string())));
        let recorded = events.iter().position(|e| {
            matches!(e, Event::Written { bytes, .. }
            if support::recorder::contains(bytes, label.as_bytes()))
        });
        assert!(
            named.unwrap() < recorded.unwrap(),
            "BLOB-FIRST: the bytes have their name before the record is written"
        );
    }
}

#[test]
fn blobs_that_are_published_together_are_each_answered_after_their_own_syncs() {
    const PRODUCERS: usize = 24;
    const EACH: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let fs = RecordingFs::new(Arc::new(RealFs));
    let options = Options { inline_bytes: 0, ..Options::new(dir.path().join("data")) };
    let session = Session::open(&fs, options).unwrap();
    let label = |producer: usize, number: usize| format!("label {producer}-{number}.");
    // Every third content is the same for all: its publishers wait for each other.
    let content = |producer: usize, number: usize| match number % 3 {
        0 => format!("content shared by all, {number}."),
        _ => format!("content {producer}-{number}."),
    };
    let key = |producer, number| BlobRefKey {
        hash: content_hash(content(producer, number).as_bytes()),
        source: "lab".into(),
        label: label(producer, number),
    };
    let publish = |producer: usize| {
        for number in 0..EACH {
            session.publish(&key(producer, number), content(producer, number).as_bytes()).unwrap();
            fs.ack(label(producer, number));
        }
    };
    std::thread::scope(|scope| (0..PRODUCERS).for_each(|producer| drop(scope.spawn(move || publish(producer)))));
    let events = fs.events();
    let recorded = |label: &str| {
        let holds = |e: &Event| matches!(e, Event::Written { bytes, .. } if support::recorder::contains(bytes, label.as_bytes()));
        events.iter().position(holds).unwrap()
    };
    let mut records = std::collections::BTreeSet::new();
    for producer in 0..PRODUCERS {
        for number in 0..EACH {
            let label = label(producer, number);
            check_ack(&events, &label, label.as_bytes()).unwrap();
            // BLOB-FIRST: when the record is written, the bytes and their name are durable already.
            let record = recorded(&label);
            check_named(&events[..record], &key(producer, number).hash.to_string()).unwrap();
            records.insert(record);
        }
    }
    // How many share one depends on the machine; that they do is the point.
    assert!(records.len() < PRODUCERS * EACH, "{} commits for {} blobs", records.len(), PRODUCERS * EACH);
    assert_eq!(session.blobs().unwrap().len(), PRODUCERS * EACH);
}

#[test]
fn blob_whose_bytes_are_not_synced_is_refused_and_its_neighbours_are_not() {
    for seed in 0..20 {
        let bench = Bench::new(seed, |options| Options { inline_bytes: 0, ..options });
        bench.settled();
        bench.fs.fail_sync(1);
        let outcomes = Mutex::new(Vec::new());
        let publish = |number: u64| {
            let content = format!("content {number} of seed {seed}");
            let key = BlobRefKey { hash: content_hash(content.as_bytes()), source: "lab".into(), label: "l".into() };
            let outcome = bench.session.publish(&key, content.as_bytes());
            outcomes.lock().unwrap().push((key, content, outcome));
        };
        std::thread::scope(|scope| (0..8).for_each(|number| drop(scope.spawn(move || publish(number)))));
        let outcomes = outcomes.into_inner().unwrap();
        // The sync that fails is the first one: that of a staged file, never that of the log.
        let refused = outcomes.iter().filter(|(_, _, outcome)| outcome.is_err()).count();
        assert_eq!((refused, bench.session.store.fatal()), (1, None), "seed {seed}: {outcomes:?}");
        let Bench { fs, real, session, .. } = bench;
        let after = fs.cut(seed);
        drop(session);
        let session = Session::open(&after, small_options(&Places::below(real.path()))).unwrap();
        for (key, content, outcome) in outcomes {
            let found = session.blob(&key).unwrap();
            assert_eq!(found.is_some(), outcome.is_ok(), "seed {seed}: {key:?}");
            assert!(found.is_none_or(|found| found == content.as_bytes()), "seed {seed}: {key:?}");
        }
    }
}

#[test]
fn failed_sync_poisons_the_store() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let mut bench = Bench::new(seed, |options| options);
        for number in 0..5 {
            bench.send_and_wait(&format!("before {number}")).unwrap();
        }
        bench.settled();
        bench.fs.fail_sync(1);
        let waiting = (0..4).map(|number| bench.send(&[&format!("during {number}")])).collect::<Vec<_>>();
        for (_, _, appending) in waiting {
            let got = appending.wait();
            assert!(matches!(got, Err(AppendError::Poisoned { .. })), "seed {seed}: got {got:?}");
        }
        let got = bench.send_and_wait("after");
        let names_the_disk = |reason: &str| reason.contains("Input/output error");
        assert!(matches!(&got, Err(AppendError::Poisoned { reason }) if names_the_disk(reason)), "got {got:?}");
        let got = bench.session.commit_offsets("g", &BTreeMap::from([(name(0), 1)])).unwrap_err();
        assert!(names_the_disk(&got), "{got}");
        assert!(bench.session.store.fatal().is_some_and(|reason| names_the_disk(&reason)));
        wait_for("the owner is told", || !bench.fatal.lock().unwrap().is_empty());
        let found = bench.session.read_all(&name(0)).unwrap();
        assert_eq!(found.len(), 5, "READ-SYNCED: nobody reads what was not synced");
        let told = Arc::clone(&bench.fatal);
        bench.reopen_and_check(rng.next());
        assert_eq!(told.lock().unwrap().len(), 1, "once");
    }
}

#[test]
fn write_refused_for_room_fails_its_commit_alone() {
    for seed in 0..20 {
        let mut bench = Bench::new(seed, |options| options);
        for number in 0..3 {
            bench.send_and_wait(&format!("before {number}")).unwrap();
        }
        bench.settled();
        bench.fs.fail_write(1);
        let (request, _, appending) = bench.send(&["refused ".repeat(500).as_str(), "refused too"]);
        assert_eq!(appending.wait(), Err(AppendError::DiskFull), "seed {seed}");
        bench.ledger.refuse(request);
        for number in 0..3 {
            let base = bench.send_and_wait(&format!("after {number}")).unwrap();
            assert_eq!(base, 3 + number, "the offsets of a refused commit are given again");
        }
        assert_eq!(bench.session.store.fatal(), None);
        bench.reopen_and_check(seed);
    }
}

#[test]
fn full_disk_takes_state_alone_until_there_is_room() {
    for seed in 0..2 {
        let mut bench = Bench::new(seed, |options| Options { reserve_bytes: 100_000, ..options });
        bench.fs.set_capacity(Some(bench.fs.used() + 300_000));
        let big = "x".repeat(50_000);
        let refused = (0..200).find_map(|_| {
            let outcome = bench.send_and_wait(&big);
            outcome.err()
        });
        assert_eq!(refused, Some(AppendError::DiskFull), "seed {seed}");
        for offset in 0..20 {
            bench.session.commit_offsets("g", &BTreeMap::from([(name(0), offset)])).unwrap();
        }
        assert_eq!(bench.session.store.fatal(), None, "a full disk is a state, not a crash");
        bench.fs.set_capacity(None);
        // The store looks at the room every two seconds.
        wait_for("records are taken in again", || match bench.send_and_wait("there is room again") {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error, AppendError::DiskFull);
                false
            }
        });
        for number in 0..20 {
            bench.send_and_wait(&format!("more {number}")).unwrap();
        }
        let session = bench.reopen_and_check(seed);
        assert_eq!(session.committed("g", &name(0)), Ok(Some(19)));
    }
}

#[test]
fn small_blobs_are_answered_after_one_sync_of_the_log_and_touch_no_file_of_their_own() {
    let (fs, real) = (RecordingFs::new(Arc::new(SimFs::new(1))), fast_tempdir());
    let session = Session::open(&fs, small_options(&Places::below(real.path()))).unwrap();
    // The next segments are being made; what follows is the committer's.
    wait_for("segments", || fs.events().iter().filter(|e| matches!(e, Event::Renamed { .. })).count() >= 3);
    for number in 0..5 {
        let content = format!("content of small blob {number}.").into_bytes();
        let label = format!("label-{number}");
        let key = BlobRefKey { hash: content_hash(&content), source: "lab".into(), label: label.clone() };
        let before = fs.events().len();
        session.publish(&key, &content).unwrap();
        fs.ack(&label);
        let events = fs.events();
        check_ack(&events, &label, &content).unwrap();
        check_ack(&events, &label, label.as_bytes()).unwrap();
        let now = &events[before..];
        let with = |needle: &[u8]| {
            let holds =
                |e: &Event| matches!(e, Event::Written { bytes, .. } if support::recorder::contains(bytes, needle));
            now.iter().position(holds)
        };
        assert_eq!(with(&content), with(label.as_bytes()), "bytes and record in one write");
        let Event::Written { file: log, .. } = &now[with(&content).unwrap()] else { unreachable!() };
        let syncs = now.iter().filter(|e| matches!(e, Event::Synced { file, .. } if file == log)).count();
        assert_eq!(syncs, 1, "{now:?}");
        let elsewhere = |path: &std::path::Path| !path.starts_with("/data/log");
        let others = now.iter().any(|e| matches!(e, Event::Created { path, .. } if elsewhere(path)));
        assert!(!others, "{now:?}");
        session.publish(&key, &content).unwrap();
        let again = &fs.events()[events.len()..];
        let stored = again
            .iter()
            .any(|e| matches!(e, Event::Written { bytes, .. } if support::recorder::contains(bytes, &content)));
        assert!(!stored, "known bytes are not stored again: {again:?}");
    }
}
