//! Leases, retries and what becomes of events that fail, as a plugin sees them: acceptance checks 17 to 20 of workers.md.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::events::{carver_status, e1, id, sourced, with};
use crate::support::{Config, Server, await_that};

const ACTIVE: &str = "binary/active";
const CARVER: &str = "name=Carver&version=1.2&count=9&deadline=0&r-historic=true";
/// Answered once there is one event.
const WAITING: &str = "name=Carver&version=1.2&count=1&deadline=30&r-historic=true";

fn quick() -> Config {
    let config = Config::examples().set("delivery", "retry_delay", "\"300ms\"");
    config.set("events", "lost_tasks_check", "\"10ms\"")
}

fn tell(server: &Server, task: &Value, word: &str) {
    server.publish_ok("status", &json!([carver_status(task, word, &[])]));
}

fn retries(task: &Value) -> u64 {
    task.get("retries").and_then(Value::as_u64).unwrap_or(0)
}

/// The ledger of one consumer as the metrics show it: taken in, finished, waiting, dead, deleted. It holds.
fn ledger(server: &Server, consumer: &str) -> [u64; 5] {
    let page = server.client().get("/metrics").expect_status(200).text();
    let count = |state: &str| {
        let name = format!("azulite_ledger{{consumer=\"{consumer}\",state=\"{state}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().expect("a count"))
    };
    let counts = ["taken_in", "finished", "waiting", "dead", "deleted"].map(count);
    assert_eq!(counts[0], counts[1..].iter().sum::<u64>(), "{counts:?}");
    counts
}

fn dead_records(server: &Server) -> u64 {
    let topic = server.cli(["topics", "describe", "azul.t1.system.dead", "--json"]).expect_code(0).json();
    let partitions = topic["partitions"].as_array().expect("partitions");
    partitions.iter().map(|partition| partition["high_watermark"].as_u64().expect("an offset")).sum()
}

/// Check 17, first half.
#[test]
fn a_plugin_that_dies_without_a_word_loses_its_event_to_the_next_one() {
    let server = Server::with(&quick().set("delivery", "lease", "\"500ms\""));
    server.publish_ok("binary", &json!([e1()]));
    let first = server.fetch(ACTIVE, CARVER).only().clone();
    let second = server.fetch(ACTIVE, WAITING).only().clone();
    assert_eq!((retries(&second), &second["kafka_key"]), (1, &first["kafka_key"]));
    assert_ne!(second["dequeued"], first["dequeued"]);
    assert_eq!(second["entity"], first["entity"], "it is whole");
    tell(&server, &second, "completed");
    assert_eq!(ledger(&server, "Carver"), [1, 1, 0, 0, 0]);
    let statuses = server.fetch("status/passive", "name=s&version=1&count=9&deadline=0&r-historic=true").events;
    let words: Vec<&Value> = statuses.iter().map(|status| &status["entity"]["status"]).collect();
    assert_eq!(words, ["error-network", "completed"]);
    assert_eq!(server.metric("azulite_lease_expired_total"), 1);
    assert_eq!(server.metric("azulite_leases"), 0);
}

/// Check 17, second half.
#[test]
fn heartbeats_keep_a_long_job() {
    let server = Server::with(&quick().set("delivery", "lease", "\"2s\""));
    server.publish_ok("binary", &json!([e1()]));
    let task = server.fetch(ACTIVE, CARVER).only().clone();
    let start = Instant::now();
    await_that("more than one lease to pass", || {
        tell(&server, &task, "heartbeat");
        start.elapsed() > Duration::from_secs(5)
    });
    assert!(server.fetch(ACTIVE, CARVER).events.is_empty());
    tell(&server, &task, "completed");
    assert_eq!(ledger(&server, "Carver"), [1, 1, 0, 0, 0]);
    assert_eq!(server.metric("azulite_lease_expired_total"), 0);
}

/// Check 18, without what people do with dead letters.
#[test]
fn an_event_that_always_fails_is_run_four_times_with_a_pause_between_and_is_a_dead_letter_then() {
    let mut server = Server::with(&quick());
    server.announce("dead letter");
    server.publish_ok("binary", &json!([e1()]));
    let mut last = Instant::now();
    for run in 0..4 {
        let task = server.fetch(ACTIVE, WAITING).only().clone();
        assert_eq!(retries(&task), run);
        assert!(run == 0 || last.elapsed() > Duration::from_millis(250), "{:?}", last.elapsed());
        assert_eq!(ledger(&server, "Carver"), [1, 0, 1, 0, 0]);
        last = Instant::now();
        tell(&server, &task, "error-exception");
    }
    assert_eq!((ledger(&server, "Carver"), dead_records(&server)), ([1, 0, 0, 1, 0], 1));
    let page = server.client().get("/metrics").expect_status(200).text();
    assert!(page.contains("azulite_retries_total{consumer=\"Carver\"} 3"), "{page}");
    assert!(server.fetch(ACTIVE, CARVER).events.is_empty());
}

/// Check 19.
#[test]
fn attempts_survive_a_restart_and_are_counted_for_each_consumer() {
    let mut server = Server::with(&quick());
    server.publish_ok("binary", &json!([e1()]));
    let other = WAITING.replace("Carver", "Other");
    for run in 0..3 {
        let task = server.fetch(ACTIVE, WAITING).only().clone();
        assert_eq!(retries(&task), run);
        tell(&server, &task, "error-timeout");
        if run == 1 {
            let task = server.fetch(ACTIVE, &other).only().clone();
            assert_eq!(retries(&task), 0);
            let own = with(carver_status(&task, "completed-empty", &[]), "/author/name", json!("Other"));
            server.publish_ok("status", &json!([own]));
            server.kill();
            server.announce("not shut down cleanly");
            server.launch();
        } else {
            server.restart();
        }
        assert_eq!(ledger(&server, "Carver"), [1, 0, 1, 0, 0]);
    }
    let task = server.fetch(ACTIVE, WAITING).only().clone();
    assert_eq!(retries(&task), 3);
    tell(&server, &task, "completed");
    // The same event once more begins from nothing.
    server.publish_ok("binary", &json!([e1()]));
    let task = server.fetch(ACTIVE, WAITING).only().clone();
    assert_eq!(retries(&task), 0);
    tell(&server, &task, "error-timeout");
    assert_eq!(retries(server.fetch(ACTIVE, WAITING).only()), 1);
    assert_eq!((ledger(&server, "Carver"), ledger(&server, "Other")), ([2, 1, 1, 0, 0], [1, 1, 0, 0, 0]));
}

/// Check 20.
#[test]
fn wrong_input_is_a_dead_letter_at_once() {
    let mut server = Server::with(&quick());
    server.announce("dead letter");
    server.publish_ok("binary", &json!([e1(), sourced(&id('b'), "lab")]));
    for (task, word) in server
        .fetch(ACTIVE, CARVER.replace("count=9", "count=2").as_str())
        .events
        .iter()
        .zip(["error-input", "error-output"])
    {
        tell(&server, task, word);
    }
    assert_eq!((ledger(&server, "Carver"), dead_records(&server)), ([2, 0, 0, 2, 0], 2));
}

#[test]
fn one_consumer_may_have_rules_of_its_own() {
    let own = r#"consumers."Carver""#;
    let mut server = Server::with(&quick().set(own, "max_attempts", "0"));
    server.announce("dead letter");
    server.publish_ok("binary", &json!([e1()]));
    let task = server.fetch(ACTIVE, CARVER).only().clone();
    tell(&server, &task, "error-network");
    assert_eq!((ledger(&server, "Carver"), dead_records(&server)), ([1, 0, 0, 1, 0], 1));
}

#[test]
fn what_is_given_back_comes_again_at_once_and_waiting_requests_are_woken() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let task = server.fetch(ACTIVE, CARVER).only().clone();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.fetch(ACTIVE, WAITING));
        server.await_readers(1);
        let body = json!({"dequeued": [task["dequeued"], "nobody's"]}).to_string();
        let answer = server.client().post("/api/azulite/v1/leases/release", body.as_bytes());
        assert_eq!(answer.expect_status(200).json(), json!({"released": 1, "missing": 1}));
        let again = waiting.join().unwrap().only().clone();
        assert_eq!((retries(&again), &again["kafka_key"]), (0, &task["kafka_key"]));
    });
    let refused = server.client().post("/api/azulite/v1/leases/release", b"{\"ids\": []}");
    refused.expect_any_error(400);
    assert_eq!(ledger(&server, "Carver"), [1, 0, 1, 0, 0]);
}

#[test]
fn explain_says_which_run_it_is_and_when_the_next_one_is_due() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let task = server.fetch(ACTIVE, CARVER).only().clone();
    let text = || server.cli(["explain", &id('a'), "--plugin", "Carver"]).expect_code(0).stdout;
    assert!(text().contains(", attempt 1, ends in "), "{}", text());
    tell(&server, &task, "error-network");
    await_that("the event to wait", || text().contains("waits for attempt 2, due in "));
    let listed = server.cli(["lost-tasks", "--json"]).expect_code(0).json();
    assert_eq!(listed["open"], 0);
}
