//! The way of a file when nothing goes wrong.

use std::io::Write as _;
use std::time::{Duration, Instant};

use azulite::workers::sandbox::Parser;
use serde_json::json;

use super::bench::*;
use super::memory::sha256;
use super::stand_in;
use super::stand_in::{Fault, Kind};

#[test]
fn a_file_goes_through_all_stages_once() {
    for kind in [Kind::Cuckoo, Kind::Cape] {
        let bench = Bench::new(kind);
        let event = bench.submit(b"MZ one");
        let sandbox = bench.start();
        let status = bench.await_finals(1).remove(0);
        assert_eq!((status.entity.status.as_str(), status.entity.message.as_str()), ("completed", ""));
        assert_eq!(status.entity.input.dequeued, event.dequeued);
        assert_eq!((status.author.name.as_str(), status.entity.input.entity.datastreams.len()), ("sandbox-box", 0));
        let results = &status.entity.results;
        let [enriched] = with_action(results, "enriched")[..] else { panic!("{results:?}") };
        let expected = [
            ("high_one", "does much (Severity: 3 Confidence: 90)"),
            ("low_one", "does little (Severity: 1 Confidence: 50)"),
        ];
        assert_eq!(values(enriched, "behaviour_signature"), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(values(enriched, "mutex"), [("mtx".to_owned(), String::new())]);
        assert_eq!(values(enriched, "domain"), [], "nobody asked for the network");
        let told = info(enriched);
        let word = if kind == Kind::Cape { "cape" } else { "cuckoo" };
        assert_eq!(
            told["sandbox"],
            json!({"kind": word, "name": "box", "task_id": 1, "machine": "win10",
            "started": "2026-01-02 03:04:05", "ended": "2026-01-02 03:06:05"})
        );
        let [augmented] = with_action(results, "augmented")[..] else { panic!("{results:?}") };
        let labels: Vec<&str> = augmented.entity.datastreams.iter().map(|stream| stream.label.as_str()).collect();
        let report = if kind == Kind::Cape { "cape_report" } else { "report" };
        assert_eq!(labels, ["content", report, "text"]);
        let task = bench.stand_in.state().tasks.get(&1).cloned();
        if kind == Kind::Cape {
            assert_eq!(values(enriched, "cape_malscore"), [("7.5".to_owned(), String::new())]);
            let task = task.expect("CAPE keeps its tasks");
            assert_eq!((task.bytes.as_slice(), task.filename.as_str()), (&b"MZ one"[..], "a.exe"));
            assert!(task.fields["custom"].starts_with("azulite:box:"), "{:?}", task.fields);
        } else {
            await_that("cleanup", || bench.stand_in.state().deleted.contains(&1));
        }
        await_that("the job is gone", || sandbox.open_jobs() == 0);
        sandbox.stop(GRACE);
        assert_eq!((bench.stand_in.count("create"), bench.hub.held().finals.len()), (1, 1));
        assert!(!bench.hub.held().heartbeats.is_empty());
    }
}

#[test]
fn a_full_sandbox_gets_nothing_until_it_has_room() {
    for kind in [Kind::Cuckoo, Kind::Cape] {
        let bench = Bench::new(kind);
        bench.stand_in.state().pending = 10;
        bench.submit(b"MZ");
        let sandbox = bench.start();
        bench.await_call("capacity", 5);
        assert_eq!(bench.stand_in.count("create"), 0);
        assert!(sandbox.full().unwrap().contains("10 tasks are pending"), "{:?}", sandbox.full());
        bench.stand_in.state().pending = 9;
        bench.await_finals(1);
        sandbox.stop(GRACE);
    }
}

#[test]
fn a_sandbox_without_space_gets_nothing() {
    let mut bench = Bench::new(Kind::Cuckoo);
    bench.options.check_free_space = true;
    bench.stand_in.state().free = bench.options.min_free_bytes;
    bench.submit(b"MZ");
    let sandbox = bench.start();
    bench.await_call("capacity", 5);
    assert_eq!(bench.stand_in.count("create"), 0);
    bench.stand_in.state().free += 1;
    bench.await_finals(1);
    sandbox.stop(GRACE);
}

#[test]
fn the_token_is_sent_and_never_kept() {
    for (kind, expected) in [(Kind::Cuckoo, "Bearer s3cret-token"), (Kind::Cape, "Token s3cret-token")] {
        let mut bench = Bench::new(kind);
        let path = bench.folder.path().join("token");
        std::fs::write(&path, "s3cret-token\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        bench.options.token_file = Some(path);
        bench.stand_in.state().script = vec!["running"];
        bench.submit(b"MZ");
        let sandbox = bench.start();
        bench.await_call("view", if kind == Kind::Cape { 0 } else { 2 });
        await_that("a task", || !bench.stand_in.state().tasks.is_empty());
        assert_eq!(bench.stand_in.state().authorizations.iter().collect::<Vec<_>>(), [expected]);
        sandbox.stop(GRACE);
        for entry in std::fs::read_dir(bench.jobs()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                assert!(!String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains("s3cret"), "{path:?}");
            }
        }
        assert!(!format!("{:?}", bench.hub.held().registered).contains("s3cret"));
    }
}

#[test]
fn results_of_the_first_stage_are_published_before_the_second_begins_and_tasks_are_deleted_last() {
    let mut bench = Bench::new(Kind::Cuckoo);
    bench.options.parse_stages = vec![vec![Parser::Info, Parser::Signatures], vec![Parser::Network, Parser::Pcap]];
    bench.stand_in.state().pcap = b"pcap bytes".to_vec();
    bench.stand_in.state().held.insert("pcap");
    bench.submit(b"MZ");
    let sandbox = bench.start();
    bench.await_call("pcap", 1);
    {
        let held = bench.hub.held();
        assert_eq!(held.finals.len(), 0);
        let [enriched] = with_action(&held.published, "enriched")[..] else { panic!("{:?}", held.published) };
        assert_eq!(values(enriched, "behaviour_signature").len(), 2);
        assert_eq!(values(enriched, "domain"), []);
    }
    assert_eq!(bench.stand_in.count("delete"), 0);
    bench.stand_in.state().held.clear();
    let status = bench.await_finals(1).remove(0);
    let [enriched] = with_action(&status.entity.results, "enriched")[..] else { panic!() };
    assert_eq!(
        values(enriched, "behaviour_signature").len(),
        2,
        "the key is the same: what was found first is there too"
    );
    assert_eq!(values(enriched, "domain"), [("evil.example".to_owned(), "DNS lookup".to_owned())]);
    let [augmented] = with_action(&status.entity.results, "augmented")[..] else { panic!() };
    let labels: Vec<&str> = augmented.entity.datastreams.iter().map(|stream| stream.label.as_str()).collect();
    assert_eq!(labels, ["content", "report", "text", "pcap"]);
    bench.await_call("delete", 1);
    sandbox.stop(GRACE);
}

#[test]
fn several_tasks_of_one_file_are_all_kept() {
    let bench = Bench::new(Kind::Cape);
    bench.stand_in.state().tasks_of_one = 3;
    bench.submit(b"MZ");
    let sandbox = bench.start();
    let status = bench.await_finals(1).remove(0);
    assert_eq!(status.entity.status, "completed");
    let [enriched] = with_action(&status.entity.results, "enriched")[..] else { panic!() };
    let told = info(enriched);
    let ids: Vec<u64> =
        told["sandbox_tasks"].as_array().unwrap().iter().map(|task| task["task_id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
    sandbox.stop(GRACE);
    assert_eq!((bench.stand_in.count("create"), bench.stand_in.count("report")), (1, 3));
}

#[test]
fn cape_with_status_and_delete_switched_off_still_works() {
    let mut bench = Bench::new(Kind::Cape);
    bench.options.cleanup = true;
    bench.stand_in.state().off.extend(["status", "delete", "capacity"]);
    bench.submit(b"MZ");
    let sandbox = bench.start();
    assert_eq!(bench.await_finals(1)[0].entity.status, "completed");
    await_that("the job is gone", || sandbox.open_jobs() == 0);
    sandbox.stop(GRACE);
    assert_eq!((bench.stand_in.count("status"), bench.stand_in.count("delete")), (1, 1), "asked once, not again");
}

#[test]
fn a_task_that_cape_has_already_is_used_and_not_deleted() {
    let mut bench = Bench::new(Kind::Cape);
    bench.options.cleanup = true;
    let event = bench.submit(b"MZ");
    let states = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    for (id, word) in [(4, "reported"), (7, "failed_analysis")] {
        let task = stand_in::Task {
            sha256: event.entity.sha256.clone(),
            states: states(&[word]),
            ..stand_in::Task::default()
        };
        bench.stand_in.state().tasks.insert(id, task);
    }
    let sandbox = bench.start();
    let status = bench.await_finals(1).remove(0);
    assert_eq!(info(with_action(&status.entity.results, "enriched")[0])["sandbox"]["task_id"], 4);
    await_that("the job is gone", || sandbox.open_jobs() == 0);
    sandbox.stop(GRACE);
    assert_eq!((bench.stand_in.count("create"), bench.stand_in.count("delete")), (0, 0));
}

#[test]
fn request_limits_are_kept() {
    let mut bench = Bench::new(Kind::Cape);
    let limits = [("view", 5), ("status", 3), ("report", 2), ("capacity", 4)];
    for (call, count) in limits {
        bench.stand_in.state().limits.insert(call, vec![(count, Duration::from_secs(1))]);
        bench.options.rate_limits.insert(call.to_owned(), format!("{count}/s"));
    }
    bench.options.submit_prefetch = 4;
    bench.options.reuse_existing = false;
    (0..6_u8).for_each(|number| {
        bench.submit(&[b'M', b'Z', number]);
    });
    let start = Instant::now();
    let sandbox = bench.start();
    let statuses = bench.await_finals(6);
    assert!(statuses.iter().all(|status| status.entity.status == "completed"));
    assert!(start.elapsed() > Duration::from_secs(2), "six reports at two a second");
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.state().throttled, 0);
}

#[test]
fn a_sandbox_that_is_asked_too_often_is_left_alone_and_no_attempt_is_used_up() {
    let mut bench = Bench::new(Kind::Cape);
    bench.options.max_attempts = 0;
    for call in ["report", "status", "create"] {
        bench
            .stand_in
            .state()
            .limits
            .insert(call, vec![(0, Duration::from_millis(1)), (1, Duration::from_millis(300))]);
    }
    bench.stand_in.state().faults.insert("create", [stand_in::Fault::Answer(429, "{}")].into());
    bench.stand_in.state().limits.clear();
    bench.submit(b"MZ");
    let sandbox = bench.start();
    assert_eq!(bench.await_finals(1)[0].entity.status, "completed");
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.state().tasks.len(), 1);
}

#[test]
fn events_that_are_not_for_it_end_as_opt_out_with_limit_and_value() {
    let mut bench = Bench::new(Kind::Cuckoo);
    bench.options.max_content_size = 100;
    let mut long = event(&[b'x'; 101]);
    let mut text = event(b"text");
    text.entity.datastreams[0].file_format = "text/plain".to_owned();
    let mut bare = event(b"bare");
    bare.entity.datastreams.clear();
    let mut deep = event(b"deep");
    deep.source.path = vec![deep.source.path[0].clone(); 10];
    let fits = event(&[b'x'; 100]);
    bench.hub.held().streams.insert(sha256(&[b'x'; 100]), vec![b'x'; 100]);
    for (number, event) in [&mut long, &mut text, &mut bare, &mut deep].into_iter().enumerate() {
        event.kafka_key = format!("key{number}");
        bench.hub.held().waiting.push_back(event.clone());
    }
    bench.hub.held().waiting.push_back(fits);
    let sandbox = bench.start();
    let statuses = bench.await_finals(5);
    let told: Vec<(&str, &str)> =
        statuses.iter().map(|status| (status.entity.status.as_str(), status.entity.message.as_str())).collect();
    for (expected, (status, message)) in
        ["101 bytes, max_content_size is 100", "\"text/plain\"", "no content", "10 nodes"].iter().zip(&told)
    {
        assert!(*status == "opt-out" && message.contains(expected), "{status} {message}");
    }
    assert_eq!(told[4].0, "completed");
    sandbox.stop(GRACE);
}

#[test]
fn the_registration_names_every_feature() {
    let bench = Bench::new(Kind::Cape);
    let sandbox = bench.start();
    await_that("the registration", || !bench.hub.held().registered.is_empty());
    sandbox.stop(GRACE);
    let plugin = bench.hub.held().registered.remove(0);
    assert_eq!((plugin.entity.name.as_str(), plugin.entity.category.as_str()), ("sandbox-box", "plugin"));
    let names: Vec<&str> = plugin.entity.features.iter().map(|feature| feature.name.as_str()).collect();
    for name in [
        "attack",
        "behaviour_signature",
        "cape_malscore",
        "contacted_port",
        "file_accessed",
        "registry_key_set",
        "mutex",
    ] {
        assert!(names.contains(&name), "{name}");
    }
}

/// A zip without compression.
pub(super) fn zip(members: &[(&str, &[u8])], password: Option<&str>) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = zip::ZipWriter::new(&mut bytes);
    for (name, content) in members {
        let options = zip::write::SimpleFileOptions::default();
        let options = match password {
            Some(password) => options.with_aes_encryption(zip::AesMode::Aes256, password),
            None => options,
        };
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap();
    bytes.into_inner()
}

fn tar_bz2(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast()));
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap());
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[test]
fn files_that_were_left_behind_become_children() {
    for kind in [Kind::Cuckoo, Kind::Cape] {
        let mut bench = Bench::new(kind);
        bench.options.parse_stages = vec![vec![Parser::Info], vec![Parser::Dropped]];
        let itself: &[u8] = b"MZ parent";
        bench.stand_in.state().dropped = match kind {
            Kind::Cuckoo => tar_bz2(&[
                ("files.json", b"{}"),
                ("files/12_a.bin", b"left"),
                ("files/empty", b""),
                ("files/self", itself),
            ]),
            Kind::Cape => zip(&[("12_a.bin", b"left"), ("empty", b""), ("self", itself)], Some("infected")),
        };
        bench.submit(itself);
        let sandbox = bench.start();
        let status = bench.await_finals(1).remove(0);
        assert_eq!(
            (status.entity.status.as_str(), status.entity.message.as_str()),
            ("completed", "dropped: the file itself was left behind as well")
        );
        let held = bench.hub.held();
        let [child] = with_action(&held.published, "extracted")[..] else { panic!("{:?}", held.published) };
        assert_eq!(child.entity.sha256, sha256(b"left"));
        let node = child.source.path.last().unwrap();
        assert_eq!((node.relationship["action"].as_str(), node.filename.as_str()), ("dropped", "12_a.bin"));
        assert_eq!(values(child, "filename"), [("12_a.bin".to_owned(), String::new())]);
        assert_eq!(held.streams[&sha256(b"left")], b"left");
        drop(held);
        sandbox.stop(GRACE);
    }
}

#[test]
fn a_cape_task_that_left_nothing_behind_has_no_errors() {
    let mut bench = Bench::new(Kind::Cape);
    bench.options.parse_stages = vec![vec![Parser::Info, Parser::Dropped, Parser::Screenshot, Parser::Pcap]];
    for (call, answer) in [
        ("dropped", r#"{"error":true,"error_value":"No files dropped for task 1"}"#),
        ("screenshot", r#"{"error":true,"error_value":"No screenshots created for task 1"}"#),
        ("pcap", r#"{"error":true,"error_value":"PCAP does not exist for task 1"}"#),
    ] {
        bench.stand_in.state().faults.insert(call, [Fault::Answer(200, answer)].into());
    }
    bench.submit(b"MZ");
    let sandbox = bench.start();
    let status = bench.await_finals(1).remove(0);
    assert_eq!((status.entity.status.as_str(), status.entity.message.as_str()), ("completed", ""));
    sandbox.stop(GRACE);
}

#[test]
fn pictures_capture_and_configuration_are_fetched_when_asked_for() {
    let mut bench = Bench::new(Kind::Cape);
    bench.options.parse_stages = vec![vec![Parser::Info, Parser::Screenshot, Parser::Pcap, Parser::Config]];
    let picture = b"\xff\xd8\xff picture".as_slice();
    bench.stand_in.state().screenshots = zip(&[("shots/0001.jpg", picture), ("shots/readme", b"x")], None);
    bench.stand_in.state().pcap = b"pcap".to_vec();
    bench.submit(b"MZ");
    let sandbox = bench.start();
    let status = bench.await_finals(1).remove(0);
    assert_eq!(status.entity.status, "completed", "{}", status.entity.message);
    let told = info(with_action(&status.entity.results, "enriched")[0]);
    assert_eq!((&told["screenshot_count"], &told["screenshot_hash"]), (&json!(1), &json!(sha256(picture))));
    assert_eq!(told["config"]["configs"][0]["Family"]["C2"], "10.0.0.1");
    let streams = &with_action(&status.entity.results, "augmented")[0].entity.datastreams;
    let labels: Vec<&str> = streams.iter().map(|stream| stream.label.as_str()).collect();
    assert_eq!(labels, ["content", "cape_report", "text", "screenshot", "pcap"]);
    sandbox.stop(GRACE);
}
