//! Sets of rules: what is left out, and how they change.

use std::fs;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azulite::workers::yara::{Children, Wanted, build};
use azulite::workers::{Status, Worker};

use super::support::{Bench, rule, rules_hash, values};

#[test]
fn a_broken_file_is_left_out_and_named_and_the_others_work() {
    let mut files: Vec<_> =
        (0..9).map(|n| (format!("f{n}.yar"), rule(&format!("r{n}"), &format!("needle{n}"), ""))).collect();
    files.push(("g.yar".into(), "rule good { condition: true }\nrule broken {\n  condition: $missing }\n".into()));
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let bench = Bench::new(&files);
    let listing = bench.yara.listing();
    assert_eq!((listing.files.len(), listing.rules, listing.errors.len()), (9, 9, 1));
    let left_out = &listing.errors[0];
    assert_eq!((left_out.path.as_str(), left_out.line), ("g.yar", 3));
    assert!(left_out.reason.contains("$missing"), "{left_out:?}");
    let outcome = bench.scan("x", b"needle1 needle8".to_vec());
    assert_eq!(values(&outcome, "enriched", "yararule"), ["f1.r1", "f8.r8"]);
    assert_eq!(Some(rules_hash(&outcome)), listing.hash);
    // Only what is in use counts.
    fs::remove_file(bench.rules_dir().join("g.yar")).unwrap();
    assert_eq!(bench.yara.reload_rules().unwrap().hash, listing.hash);
}

#[test]
fn a_job_keeps_the_rules_it_began_with_and_the_next_has_the_new_ones() {
    let bench = Arc::new(Bench::new(&[("a.yar", &rule("old", "needle", ""))]));
    let (reading, read) = channel();
    let (go_on, gone_on) = channel::<()>();
    let (reading, gone_on) = (Mutex::new(Some(reading)), Mutex::new(gone_on));
    *bench.memory.hook.lock().unwrap() = Some(Arc::new(move |_| {
        if let Some(reading) = reading.lock().unwrap().take() {
            reading.send(()).unwrap();
            gone_on.lock().unwrap().recv().unwrap();
        }
    }));
    let job = bench.job(bench.event("x", b"a needle".to_vec()));
    let (ours, version) = (Arc::clone(&bench), job.author.version.clone());
    let running = std::thread::spawn(move || ours.yara.run(&job));
    read.recv().unwrap();
    let old = bench.yara.listing().hash.unwrap();
    fs::write(bench.rules_dir().join("a.yar"), rule("new", "needle", "")).unwrap();
    let new = bench.yara.reload_rules().unwrap().hash.unwrap();
    assert_ne!(old, new);
    go_on.send(()).unwrap();
    let first = running.join().unwrap();
    assert_eq!((first.status, rules_hash(&first)), (Status::Completed, old));
    assert_eq!(values(&first, "enriched", "yararule"), ["a.old"]);
    assert_eq!(first.results[0].author.version, version);
    let second = bench.scan("x", b"a needle".to_vec());
    assert_eq!((rules_hash(&second), values(&second, "enriched", "yararule")), (new.clone(), vec!["a.new".to_owned()]));
    let announced = bench.yara.announce().entity.version;
    assert!(announced.ends_with(&new[..8]) && announced != version, "{announced}");
}

#[test]
fn a_changed_directory_is_read_when_it_has_been_quiet() {
    let rules = rule("old", "needle", "");
    let bench = Bench::with(&[("a.yar", &rules)], |options| options.reload_settle = Duration::from_millis(200));
    let old = bench.yara.announce().entity.version;
    fs::write(bench.rules_dir().join("b.yar"), rule("more", "needle", "")).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while bench.yara.announce().entity.version == old {
        assert!(std::time::Instant::now() < until, "the change was not seen");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(values(&bench.scan("x", b"needle".to_vec()), "enriched", "yararule"), ["a.old", "b.more"]);
}

#[test]
fn without_a_file_that_compiles_the_old_rules_stay() {
    let bench = Bench::new(&[("a.yar", &rule("old", "needle", ""))]);
    fs::write(bench.rules_dir().join("a.yar"), "rule broken {").unwrap();
    let refused = bench.yara.reload_rules().unwrap_err().to_string();
    assert!(refused.contains("no rule file compiles; a.yar line "), "{refused}");
    assert_eq!(bench.yara.down(), None);
    assert_eq!(values(&bench.scan("x", b"needle".to_vec()), "enriched", "yararule"), ["a.old"]);
    assert!(bench.yara.listing().failure.is_some());
}

#[test]
fn without_any_rules_the_worker_is_down_until_there_are_some() {
    let bench = Bench::new(&[]);
    assert!(bench.yara.down().unwrap().contains("no rule file compiles"), "{:?}", bench.yara.down());
    assert_eq!(bench.scan("x", b"needle".to_vec()).status, Status::ErrorRunner);
    fs::write(bench.rules_dir().join("a.yar"), rule("new", "needle", "")).unwrap();
    bench.yara.reload_rules().unwrap();
    assert_eq!((bench.yara.down(), bench.scan("x", b"needle".to_vec()).status), (None, Status::Completed));
}

#[test]
fn rules_that_need_signatures_are_named_and_never_match() {
    let rules = "import \"pe\"\nrule signed { strings: $a = \"x\" condition: $a or not pe.is_signed }\nrule other { condition: true }";
    let bench = Bench::new(&[("a.yar", rules)]);
    assert_eq!(bench.yara.listing().need_signatures, ["a.signed"]);
    assert_eq!(values(&bench.scan("x", b"x".to_vec()), "enriched", "yararule"), ["a.other"]);
}

#[test]
fn files_of_one_namespace_share_it_and_a_rule_that_is_there_twice_costs_the_second_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yar"), rule("one", "x", "")).unwrap();
    fs::write(folder.path().join("a.yara"), rule("one", "y", "")).unwrap();
    let children = Children { path: env!("CARGO_BIN_EXE_azulite").into() };
    let set = build(folder.path(), &Wanted::default(), &children).unwrap();
    assert_eq!(set.files.len(), 1);
    assert!(set.left_out[0].reason.contains("duplicated"), "{:?}", set.left_out);
}

#[test]
fn rules_of_old_encodings_match_their_bytes() {
    let folder = b"rule a { meta: author = \"J\xfcrgen\" strings: $a = \"\xe4x\" condition: $a }".to_vec();
    let bench = Bench::new(&[]);
    fs::write(bench.rules_dir().join("a.yar"), folder).unwrap();
    bench.yara.reload_rules().unwrap();
    assert_eq!(bench.scan("x", b"..\xe4x..".to_vec()).status, Status::Completed);
    assert_eq!(bench.scan("x", "..äx..".as_bytes().to_vec()).status, Status::CompletedEmpty);
}
