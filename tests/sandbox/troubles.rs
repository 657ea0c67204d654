//! What is done about a sandbox that fails, hangs, lies, or is not there.

use std::time::Duration;

use super::stand_in::Fault;
use azulite::dispatcher::model::StatusEvent;
use azulite::workers::sandbox::Parser;
use serde_json::{Value, json};

use super::bench::*;
use super::stand_in;
use super::stand_in::Kind;

fn letter(status: &StatusEvent) -> Value {
    serde_json::from_slice(status.entity.input.entity.info.as_bytes()).expect("a letter")
}

#[test]
fn an_analysis_that_failed_is_given_up_after_three_retries_with_the_task_id() {
    for (kind, word) in [(Kind::Cuckoo, "failed_analysis"), (Kind::Cape, "banned"), (Kind::Cape, "failed_processing")] {
        let bench = Bench::new(kind);
        bench.stand_in.state().script = vec!["pending", word];
        bench.submit(b"MZ");
        let sandbox = bench.start();
        let status = bench.await_finals(1).remove(0);
        assert_eq!((status.entity.status.as_str(), status.entity.error.as_str()), ("error-exception", word));
        assert!(status.entity.message.starts_with("stage check, task ids [1]: "), "{}", status.entity.message);
        let letter = letter(&status);
        let letter = &letter["dead_letter"];
        assert_eq!((&letter["stage"], &letter["context"]["task_ids"]), (&json!("check"), &json!([1])));
        assert_eq!(letter["attempts"].as_array().unwrap().len(), 4, "one run and three retries");
        await_that("the job is gone", || sandbox.open_jobs() == 0);
        sandbox.stop(GRACE);
        assert_eq!((bench.stand_in.count("create"), bench.hub.held().finals.len()), (1, 1));
    }
}

#[test]
fn a_sandbox_that_is_off_uses_up_no_attempts_and_work_goes_on_by_itself() {
    let mut bench = Bench::new(Kind::Cuckoo);
    bench.options.max_attempts = 0;
    bench.options.request_tries = 1;
    bench.stand_in.state().script = vec!["running"];
    bench.submit(b"MZ one");
    let sandbox = bench.start();
    bench.await_call("view", 1);
    bench.stand_in.switch_off();
    await_that("down", || sandbox.down().is_some());
    bench.submit(b"MZ two");
    // Long enough for many probes and heartbeats.
    let heartbeats = bench.hub.held().heartbeats.len();
    await_that("heartbeats go on", || bench.hub.held().heartbeats.len() > heartbeats + 20);
    assert_eq!(bench.hub.held().finals.len(), 0);
    bench.stand_in.state().script = vec!["reported"];
    bench.stand_in.state().tasks.values_mut().for_each(|task| task.states = ["reported".to_owned()].into());
    bench.stand_in.switch_on();
    let statuses = bench.await_finals(2);
    assert!(statuses.iter().all(|status| status.entity.status == "completed"), "{statuses:?}");
    assert_eq!((sandbox.down(), bench.stand_in.count("create")), (None, 2));
    sandbox.stop(GRACE);
}

#[test]
fn the_first_refused_connection_is_down_and_no_attempt() {
    let mut bench = Bench::new(Kind::Cape);
    // Were it asked a second time, that would be a minute later.
    bench.options.rate_limits.insert("default".to_owned(), "1/min".to_owned());
    bench.options.rate_limits.insert("status".to_owned(), "1/min".to_owned());
    bench.options.rate_limits.insert("search".to_owned(), "1/min".to_owned());
    bench.stand_in.switch_off();
    bench.submit(b"MZ one");
    let begun = std::time::Instant::now();
    let sandbox = bench.start();
    await_that("down", || sandbox.down().is_some());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((bench.hub.held().finals.len(), sandbox.open_jobs()), (0, 1));
    sandbox.stop(GRACE);
}

#[test]
fn a_task_the_sandbox_forgot_is_submitted_again_as_an_attempt() {
    let mut bench = Bench::new(Kind::Cuckoo);
    bench.options.max_attempts = 1;
    bench.stand_in.state().script = vec!["running"];
    bench.submit(b"MZ");
    let sandbox = bench.start();
    bench.await_call("view", 1);
    bench.stand_in.state().tasks.clear();
    bench.await_call("create", 2);
    assert_eq!(bench.hub.held().finals.len(), 0);
    bench.stand_in.state().tasks.clear();
    let status = bench.await_finals(1).remove(0);
    assert_eq!(status.entity.status, "error-exception");
    assert!(status.entity.error.contains("knows no task 2"), "{}", status.entity.error);
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.count("create"), 2);
}

#[test]
fn waiting_and_running_too_long_end_as_timeouts() {
    for word in ["pending", "running"] {
        let mut bench = Bench::new(Kind::Cuckoo);
        bench.options.max_attempts = 0;
        bench.options.start_timeout = Duration::from_millis(200);
        bench.options.analysis_timeout = Duration::from_millis(200);
        bench.stand_in.state().script = vec![word];
        bench.submit(b"MZ");
        let sandbox = bench.start();
        let status = bench.await_finals(1).remove(0);
        assert_eq!(status.entity.status, "error-timeout", "{word}");
        assert!(status.entity.error.starts_with(word), "{}", status.entity.error);
        sandbox.stop(GRACE);
    }
}

#[test]
fn errors_garbage_half_answers_and_hangs_are_overcome() {
    let garbage = "\u{1}<html>\"{[";
    for call in ["capacity", "view", "report"] {
        for fault in [
            Fault::Answer(500, "oops"),
            Fault::Answer(200, garbage),
            Fault::Answer(503, ""),
            Fault::Answer(302, ""),
            Fault::HalfAnswer,
            Fault::DisconnectAfter,
            Fault::Hang(Duration::from_millis(700)),
        ] {
            let mut bench = Bench::new(Kind::Cuckoo);
            bench.options.request_timeout = Duration::from_millis(300);
            bench.stand_in.state().faults.insert(call, vec![fault.clone(); 3].into());
            bench.submit(b"MZ");
            let sandbox = bench.start();
            let status = bench.await_finals(1).remove(0);
            assert_eq!(status.entity.status, "completed", "{call} {fault:?}: {}", status.entity.message);
            sandbox.stop(GRACE);
            assert_eq!(bench.stand_in.count("create"), 1, "{call} {fault:?}");
        }
    }
}

#[test]
fn an_upload_without_an_answer_is_looked_for_before_it_is_sent_again() {
    for kind in [Kind::Cuckoo, Kind::Cape] {
        for fault in [Fault::DisconnectAfter, Fault::HalfAnswer] {
            let mut bench = Bench::new(kind);
            bench.options.reuse_existing = false;
            bench.stand_in.state().faults.insert("create", [fault].into());
            bench.submit(b"MZ");
            let sandbox = bench.start();
            assert_eq!(bench.await_finals(1)[0].entity.status, "completed");
            sandbox.stop(GRACE);
            assert_eq!(bench.stand_in.count("create"), 1);
        }
    }
}

#[test]
fn a_refused_upload_is_sent_again_and_then_given_up() {
    let mut bench = Bench::new(Kind::Cuckoo);
    bench.options.max_attempts = 2;
    bench.stand_in.state().faults.insert("create", vec![Fault::Answer(400, r#"{"message":"file exists"}"#); 9].into());
    bench.submit(b"MZ");
    let sandbox = bench.start();
    let status = bench.await_finals(1).remove(0);
    assert_eq!(status.entity.status, "error-exception");
    assert!(status.entity.message.contains("file exists") && status.entity.message.starts_with("stage submit"));
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.count("create"), 3);
}

#[test]
fn content_that_is_gone_ends_as_error_input_without_a_retry() {
    let bench = Bench::new(Kind::Cuckoo);
    bench.submit(b"MZ");
    bench.hub.held().streams.clear();
    let sandbox = bench.start();
    let status = bench.await_finals(1).remove(0);
    assert_eq!(status.entity.status, "error-input");
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.count("create"), 0);
}

#[test]
fn a_parser_that_fails_is_named_and_the_others_count() {
    let mut bench = Bench::new(Kind::Cape);
    bench.options.parse_stages = vec![vec![Parser::Info, Parser::Signatures, Parser::Screenshot, Parser::Config]];
    bench.stand_in.state().off.insert("screenshot");
    bench.submit(b"MZ");
    let sandbox = bench.start();
    let status = bench.await_finals(1).remove(0);
    assert_eq!(status.entity.status, "completed-with-errors");
    assert_eq!(status.entity.message, "screenshot: Task screenshot API is Disabled");
    assert_eq!(values(with_action(&status.entity.results, "enriched")[0], "behaviour_signature").len(), 2);
    sandbox.stop(GRACE);
}

#[test]
fn hostile_reports_end_the_job_with_a_reason_and_bounded_results() {
    let deep = "[".repeat(1_000_000).into_bytes();
    for (raw, part) in
        [(deep, "nested deeper"), (b"\x00\xff".to_vec(), "no JSON"), (b"{\"info\":".to_vec(), "breaks off")]
    {
        let mut bench = Bench::new(Kind::Cuckoo);
        bench.options.max_attempts = 1;
        bench.stand_in.state().raw_report = Some(raw);
        bench.submit(b"MZ");
        let sandbox = bench.start();
        let status = bench.await_finals(1).remove(0);
        assert_eq!(status.entity.status, "error-exception");
        assert!(status.entity.error.contains(part), "{}", status.entity.error);
        sandbox.stop(GRACE);
    }
    let many: Vec<Value> =
        (0..30_000).map(|n| json!({"name": format!("s{n:05}"), "severity": n % 5, "x": null})).collect();
    let mut report = stand_in::report();
    report["signatures"] = Value::Array(many);
    let bench = Bench::new(Kind::Cuckoo);
    bench.stand_in.state().raw_report = Some(report.to_string().replace("null", "NaN").into_bytes());
    bench.submit(b"MZ");
    let sandbox = bench.start();
    let status = bench.await_finals(1).remove(0);
    assert_eq!(status.entity.status, "completed-with-errors");
    assert!(
        status.entity.message.contains("behaviour_signature: the first 1000 values are kept"),
        "{}",
        status.entity.message
    );
    let kept = values(with_action(&status.entity.results, "enriched")[0], "behaviour_signature");
    assert!(kept.len() == 1000 && kept.iter().all(|(_, label)| label.contains("Severity: 4")));
    sandbox.stop(GRACE);
}

#[test]
fn a_dispatcher_that_is_not_there_is_waited_for() {
    let bench = Bench::new(Kind::Cuckoo);
    bench.stand_in.state().held.insert("report");
    bench.submit(b"MZ");
    let sandbox = bench.start();
    bench.await_call("report", 1);
    bench.hub.held().is_down = true;
    bench.stand_in.state().held.clear();
    std::thread::sleep(Duration::from_millis(100));
    bench.hub.held().is_down = false;
    assert_eq!(bench.await_finals(1)[0].entity.status, "completed");
    sandbox.stop(GRACE);
}
