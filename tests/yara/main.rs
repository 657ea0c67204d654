//! The YARA worker against a dispatcher in memory: acceptance checks of workers.md 6, with the program's own scanners.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions, reason = "a test may panic")]

mod archives;
mod queue;
mod rules;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use azulite::workers::Status;
use support::{Bench, labelled, rule, scanners, values};

#[test]
fn a_hit_makes_features_info_and_the_text_of_the_rule() {
    let text = rule("found", "needle", "weight = 3 description = \"says so\"");
    let bench = Bench::new(&[("a.yar", &format!("// before\n{text}// behind\n"))]);
    let outcome = bench.scan("x.bin", b"hay needle hay".to_vec());
    assert_eq!((outcome.status, outcome.message.as_str()), (Status::Completed, ""));
    assert_eq!(values(&outcome, "enriched", "yararule"), ["a.found"]);
    assert_eq!(values(&outcome, "enriched", "yararule_description"), ["says so"]);
    assert_eq!(values(&outcome, "enriched", "yararule_match_name"), ["$text"]);
    assert_eq!(labelled(&outcome, "yara_file_score")[""], "3");
    let event = &outcome.results[0];
    let matched = event.entity.features.iter().find(|feature| feature.name == "yararule_match").unwrap();
    assert_eq!((matched.value.as_str(), matched.offset, matched.size), ("bmVlZGxl", 4, 6));
    let info: serde_json::Value = serde_json::from_slice(event.entity.info.as_bytes()).unwrap();
    assert_eq!(info["matches"], serde_json::json!([["a.found", 4, "$text", "bmVlZGxl", ""]]));
    let augmented = outcome.results.iter().find(|event| event.action == "augmented").unwrap();
    let hit = augmented.entity.datastreams.iter().find(|stream| stream.label == "yara_rule_hit").unwrap();
    let streams = bench.memory.streams.lock().unwrap();
    let stored = &streams[&("yara_rule_hit".to_owned(), hit.sha256.clone())];
    assert_eq!(String::from_utf8_lossy(stored), format!("// a.found\n{}\n", text.trim()));
}

#[test]
fn nothing_to_find_is_an_empty_success() {
    let bench = Bench::new(&[("a.yar", &rule("found", "needle", ""))]);
    let outcome = bench.scan("x.bin", b"hay".to_vec());
    assert_eq!((outcome.status, outcome.results.len()), (Status::CompletedEmpty, 0));
    assert_eq!(bench.scan("empty", Vec::new()).status, Status::CompletedEmpty);
}

#[test]
fn external_variables_are_those_of_the_object() {
    let conditions =
        "filename == \"b.EXE\" and filepath == \"a/b.EXE\" and extension == \"EXE\" and filetype == \"executable/x\"";
    let bench = Bench::new(&[("a.yar", &format!("rule found {{ condition: {conditions} }}"))]);
    let mut event = bench.event("a/b.EXE", b"x".to_vec());
    event.entity.file_format = "executable/x".into();
    assert_eq!(bench.run(event).status, Status::Completed);
    assert_eq!(bench.scan("b.EXE", b"x".to_vec()).status, Status::CompletedEmpty);
}

#[test]
fn an_object_of_the_largest_size_is_scanned_and_one_byte_more_is_not() {
    let bench = Bench::new(&[("a.yar", "rule last { condition: uint8(filesize - 1) == 0x41 }")]);
    let mut bytes = vec![0; 128_000_000];
    bytes[127_999_999] = b'A';
    assert_eq!(bench.scan("largest", bytes.clone()).status, Status::Completed);
    bytes.push(b'A');
    let outcome = bench.scan("larger", bytes);
    assert_eq!(outcome.status, Status::OptOut);
    assert!(outcome.message.contains("128000001") && outcome.message.contains("128000000"), "{}", outcome.message);
}

#[test]
fn content_that_is_gone_is_an_input_error() {
    let bench = Bench::new(&[("a.yar", &rule("found", "needle", ""))]);
    let event = bench.event("x", b"needle".to_vec());
    bench.memory.streams.lock().unwrap().clear();
    assert_eq!(bench.run(event).status, Status::ErrorInput);
}

#[test]
fn weights_add_up_over_files_and_a_package_has_the_highest_of_its_distributions() {
    let rules = [rule("three", "needle3", "weight = 3"), rule("five", "needle5", "weight = 5")].concat();
    let bench = Bench::new(&[("a.yar", &rules)]);
    let outcome = |name: &str, bytes: &[u8]| {
        let mut event = bench.event(name, bytes.to_vec());
        event.source.references.insert("package_name".into(), "p".into());
        event.source.references.insert("package_version".into(), "1".into());
        bench.run(event)
    };
    let first = outcome("one", b"needle3 needle5 needle3");
    let second = outcome("two", b"needle5");
    assert_eq!(values(&first, "enriched", "yara_distribution_score"), ["8"]);
    assert_eq!(values(&second, "enriched", "yara_distribution_score"), ["5"]);
    assert_eq!(labelled(&second, "yara_package_score")["p 1"], "8");
    let report = serde_json::to_value(bench.yara.report("p", "1").unwrap().unwrap()).unwrap();
    assert_eq!((&report["score"], &report["name"], &report["version"]), (&8.into(), &"p".into(), &"1".into()));
    assert_eq!(report["rules_matched"], serde_json::json!(["a.five", "a.three"]));
    assert_eq!(report["distributions"].as_array().unwrap().len(), 2);
    assert_eq!(report["commit"], support::rules_hash(&first));
    let address = report["inspector_url"].as_str().unwrap();
    assert_eq!(address, format!("/api/v3/stream/samples/content/{}", support::sha256(b"needle3 needle5 needle3")));
}

#[test]
fn a_rule_that_takes_too_long_is_named_and_the_next_object_is_scanned() {
    let slow = "rule slow { condition: filename == \"slow\" and for all i in (0..1000000000) : (uint8(i % 100) >= 0) }";
    let change = |options: &mut azulite::workers::yara::Options| options.file_timeout = Duration::from_secs(1);
    let bench = Bench::with(&[("a.yar", &format!("{slow}\n{}", rule("found", "needle", "")))], change);
    let begun = Instant::now();
    let outcome = bench.scan("slow", vec![b'x'; 1000]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(outcome.status, Status::CompletedWithErrors);
    assert!(outcome.message.contains("file_timeout"), "{}", outcome.message);
    assert_eq!(bench.scan("quick", b"needle".to_vec()).status, Status::Completed);
}

#[test]
fn a_scanner_that_is_killed_costs_one_job() {
    // Under a name of its own, so that scanners of other tests are left alone.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("azulite");
    std::fs::copy(env!("CARGO_BIN_EXE_azulite"), &program).unwrap();
    let bench = Bench::with(&[("a.yar", &rule("found", "needle", ""))], |options| {
        options.threads = 1;
        options.children.path.clone_from(&program);
    });
    let killed = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&killed);
    *bench.memory.hook.lock().unwrap() = Some(Arc::new(move |place| {
        if place > 0 && !once.swap(true, Ordering::Relaxed) {
            let found = scanners(&program);
            assert!(!found.is_empty());
            for pid in found {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        }
    }));
    let mut bytes = vec![b'x'; 1 << 20];
    bytes.extend(b"needle");
    let outcome = bench.scan("first", bytes.clone());
    assert!(killed.load(Ordering::Relaxed));
    assert_eq!((outcome.status, outcome.error.as_str()), (Status::ErrorRunner, "the scanner failed"));
    *bench.memory.hook.lock().unwrap() = None;
    assert_eq!(bench.scan("second", bytes).status, Status::Completed);
}

#[test]
fn the_texts_of_the_rules_with_the_greatest_weight_are_kept() {
    let text: String = (0..201).map(|n| rule(&format!("r{n:03}"), "needle", &format!("weight = {n}"))).collect();
    let bench = Bench::new(&[("a.yar", &text)]);
    let outcome = bench.scan("x.bin", b"needle".to_vec());
    let streams = bench.memory.streams.lock().unwrap();
    let texts: Vec<String> = streams
        .iter()
        .filter(|((label, _), _)| label == "yara_rule_hit")
        .map(|(_, text)| String::from_utf8_lossy(text).into_owned())
        .collect();
    let has = |name: &str| texts.iter().any(|text| text.contains(&format!("rule {name} ")));
    assert_eq!((has("r200"), has("r000")), (true, false), "{}", outcome.message);
}

#[test]
fn the_first_match_of_a_rule_is_told_however_many_came_before() {
    let many = rule("many", "aa", "");
    let bench = Bench::new(&[("a.yar", &(many + &rule("heavy", "needle", "weight = 100")))]);
    let mut archive = zip::write::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for number in 0..30 {
        archive.start_file(format!("{number:02}"), zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut archive, format!("{}{number}", "a".repeat(2500)).as_bytes()).unwrap();
    }
    archive.start_file("last", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut archive, b"needle").unwrap();
    let outcome = bench.scan("p.zip", archive.finish().unwrap().into_inner());
    assert!(values(&outcome, "enriched", "yararule_match").contains(&"bmVlZGxl".to_owned()), "{}", outcome.message);
}
