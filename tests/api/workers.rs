//! Workers against a real server: a worker of a process of its own, and what the server shows of those inside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use azulite::dispatcher::model::{Author, PluginEvent, Timestamp};
use azulite::workers::{Frame, Job, Options, Outcome, RemoteUpstream, Worker, results};
use serde_json::{Value, json};

use crate::support::events::sourced;
use crate::support::{Server, await_that};

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
    assert_eq!(server.cli(["workers"]).expect_code(0).stdout, "no worker is configured\n");
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
