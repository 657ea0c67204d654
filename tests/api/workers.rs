//! Workers against a real server: a worker of a process of its own, and what the server shows of those inside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use azulite::dispatcher::model::{Author, PluginEvent, Timestamp};
use azulite::workers::{Frame, Job, Options, Outcome, RemoteUpstream, Worker, results};
use serde_json::{Value, json};

use crate::support::events::{carver_status, sourced, with};
use crate::support::{Config, Server, await_that};

/// Finds nothing, and counts how many jobs run at once.
struct Idler {
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Worker for Idler {
    fn announce(&self) -> PluginEvent {
        let author =
            Author { name: "idler".into(), version: "1".into(), category: "plugin".into(), ..Author::default() };
        results::registration(&author, "", &[], BTreeMap::new(), Timestamp::from_millis(0))
    }

    fn query(&self) -> Vec<(String, String)> {
        [("r-live", "true"), ("r-historic", "true"), ("r-action", "sourced"), ("d-self", "true")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    fn slots(&self) -> usize {
        4
    }

    fn bulk(&self) -> usize {
        20
    }

    fn run(&self, _: &Job) -> Outcome {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        std::thread::yield_now();
        self.running.fetch_sub(1, Ordering::SeqCst);
        Outcome::completed(Vec::new())
    }
}

fn statuses(server: &Server) -> Vec<Value> {
    server.fetch("status/passive", "name=t&version=1&count=1000&deadline=0&r-historic=true").events
}

#[test]
fn forty_five_events_are_each_worked_on_once_by_four_threads_and_the_next_one_at_once() {
    let server = Server::start();
    let event = |n: usize| sourced(&format!("{n:064x}"), "lab");
    server.publish_ok("binary", &Value::Array((0..45).map(event).collect()));
    let worker = Arc::new(Idler { running: AtomicUsize::new(0), most: AtomicUsize::new(0) });
    let upstream = Arc::new(RemoteUpstream::new(&format!("http://{}", server.address())).unwrap());
    let begun = Instant::now();
    let frame = Frame::start(worker.clone(), upstream, Options::default(), Arc::default()).unwrap();
    let mut seen = Vec::new();
    await_that("45 final statuses", || {
        seen.extend(statuses(&server));
        seen.len() >= 45
    });
    assert!(begun.elapsed() < Duration::from_secs(30), "there is no pause while work is left");
    let mut entities: Vec<_> =
        seen.iter().map(|status| status["entity"]["input"]["entity"]["sha256"].to_string()).collect();
    entities.sort();
    entities.dedup();
    assert_eq!((seen.len(), entities.len()), (45, 45));
    assert!(seen.iter().all(|status| status["entity"]["status"] == "completed-empty"));
    assert!(worker.most.load(Ordering::SeqCst) <= 4);
    // It waits for the next one now.
    server.await_readers(1);
    let published = Instant::now();
    server.publish_ok("binary", &json!([event(99)]));
    await_that("the status of a new event", || !statuses(&server).is_empty());
    assert!(published.elapsed() < Duration::from_secs(1), "{:?}", published.elapsed());
    frame.stop(Duration::from_secs(5));
}

#[test]
fn a_server_without_workers_says_so() {
    let server = Server::start();
    let answer = server.client().get("/api/azulite/v1/workers").expect_status(200);
    assert_eq!(answer.json(), json!({"workers": []}));
    assert_eq!(
        server.cli(["workers"]).expect_code(0).stdout,
        "no worker is configured, and no plugin has asked for events in the last day\n"
    );
    assert_eq!(server.cli(["workers", "--json"]).expect_code(0).json(), json!({"workers": []}));
}

#[test]
fn a_worker_that_is_not_configured_or_has_no_address_is_refused() {
    let server = Server::prepared(&crate::support::Config::examples());
    let ran = server.cli(["worker", "sandbox", "--name", "none"]).expect_code(2);
    assert!(ran.stderr.contains("no [[workers.sandbox]] has that name"), "{ran:?}");
    let ran = server.cli(["worker", "yara", "--url", "box"]).expect_code(2);
    assert!(ran.stderr.contains("http://HOST:PORT"), "{ran:?}");
    assert!(!server.data_dir().exists());
}

const ACTIVE: &str = "binary/active";
const CARVER: &str = "name=Carver&version=1.2&count=1&deadline=0&r-live=true&r-historic=true";

/// The one worker that is listed.
fn listed(server: &Server) -> Value {
    let list = server.client().get("/api/azulite/v1/workers").expect_status(200).json();
    assert_eq!(list["workers"].as_array().map(Vec::len), Some(1), "{list}");
    list["workers"][0].clone()
}

#[test]
fn a_plugin_of_any_client_is_shown_like_a_worker() {
    let server = Server::with(&Config::examples().set("delivery", "retry_delay", "\"1h\""));
    let event = |n: usize| sourced(&format!("{n:064x}"), "lab");
    server.publish_ok("binary", &Value::Array((0..3).map(event).collect()));
    let task = server.fetch(ACTIVE, CARVER).only().clone();
    let view = listed(&server);
    let stage = &view["stages"][0];
    assert_eq!((&view["name"], &view["version"], &view["where"]), (&json!("Carver"), &json!("1.2"), &json!("outside")));
    assert_eq!(
        (&view["state"], &stage["queue"], &stage["in_flight"]),
        (&json!("active"), &json!(2), &json!(1)),
        "{view}"
    );
    assert!(view["last_seen_ms"].is_i64() && stage.get("slots").is_none(), "{view}");
    server.publish_ok("status", &json!([carver_status(&task, "completed-empty", &[])]));
    let task = server.fetch(ACTIVE, CARVER).only().clone();
    let failed = carver_status(&task, "error-timeout", &[]);
    server.publish_ok("status", &json!([with(failed, "/entity/error", json!("too slow"))]));
    let view = listed(&server);
    let stage = &view["stages"][0];
    assert_eq!(stage["ended"], json!({"completed-empty": 1, "error-timeout": 1}), "{view}");
    assert_eq!((&view["state"], &stage["queue"], &stage["waiting"]), (&json!("idle"), &json!(2), &json!(1)), "{view}");
    assert!(stage["rate"].as_f64() > Some(0.0) && stage["median_s"].is_f64() && stage["mean_s"].is_f64(), "{view}");
    assert_eq!(
        (&stage["last_error"]["status"], &stage["last_error"]["error"]),
        (&json!("error-timeout"), &json!("too slow"))
    );
    let text = server.cli(["workers"]).expect_code(0).stdout;
    assert!(text.contains("Carver") && text.contains("outside") && text.contains("error-timeout"), "{text}");
    // Nobody takes from a plugin what it is there for.
    let refused = server.cli(["dead", "bury", "Carver", "1.2"]).expect_code(1);
    assert!(refused.stderr.contains("Carver 1.2 is there"), "{}", refused.stderr);
    let missing = server.cli(["dead", "bury", "Carver", "1.1"]).expect_code(1);
    assert!(missing.stdout.contains("nothing waits for Carver 1.1"), "{}", missing.stdout);
}

#[test]
fn what_a_filter_has_dropped_is_lag_and_no_queue() {
    let server = Server::start();
    let query = format!("{}&d-self=true", CARVER.replace("deadline=0", "deadline=20"));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| server.fetch(ACTIVE, &query));
        server.await_readers(1);
        let own = with(sourced(&format!("{:064x}", 1), "lab"), "/author/name", json!("Carver"));
        server.publish_ok("binary", &json!([own]));
        await_that("it is looked at", || {
            let view = listed(&server);
            (&view["stages"][0]["lag"], &view["stages"][0]["queue"]) == (&json!(1), &json!(0))
        });
        server.publish_ok("binary", &json!([sourced(&format!("{:064x}", 2), "lab")]));
        assert_eq!(waits.join().expect("an answer").events.len(), 1);
    });
    let stage = &listed(&server)["stages"][0];
    assert_eq!((&stage["lag"], &stage["queue"]), (&json!(0), &json!(0)));
}

#[test]
fn a_store_without_a_server_lists_what_is_stored() {
    let mut server = Server::start();
    server.publish_ok("binary", &json!([sourced(&format!("{:064x}", 1), "lab")]));
    server.fetch(ACTIVE, CARVER).only();
    server.stop();
    let text = server.cli(["workers"]).expect_code(0).stdout;
    assert!(text.starts_with("no server runs on the store at ") && text.contains("--data-dir"), "{text}");
    assert!(text.contains("Carver"), "{text}");
}
