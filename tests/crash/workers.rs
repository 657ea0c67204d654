//! Workers under kills: YARA workers in processes of their own scan what a server holds, and both sides are killed at
//! random moments. Every event ends in exactly one way, and the ledger holds all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::jobs::ledger;
use crate::support::events::{sourced, with};
use crate::support::random::Random;
use crate::support::{Client, Config, Server, WorkerProcess};

const EVENTS: u64 = 2_000;
const UPLOADERS: u64 = 3;
const WORKERS: usize = 2;
/// Kills of the server, and of each worker.
const KILLS: usize = 8;
/// The content of one event in so many is deleted before anybody scans it.
const GONE_EVERY: u64 = 100;
/// One event in so many holds what the rule looks for.
const HIT_EVERY: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(120);
const RULE: &str = "rule found { strings: $text = \"needle\" condition: $text }\n";

fn content(number: u64) -> String {
    format!("{number} {}", if number.is_multiple_of(HIT_EVERY) { "needle" } else { "hay" })
}

fn sha256(number: u64) -> String {
    Sha256::digest(content(number)).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The status that an event must end with.
fn wanted(number: u64) -> &'static str {
    match number {
        _ if number.is_multiple_of(GONE_EVERY) => "error-input",
        _ if number.is_multiple_of(HIT_EVERY) => "completed",
        _ => "completed-empty",
    }
}

/// Stores the contents, publishes their events, and deletes some of the contents.
fn fill(server: &Server) {
    std::thread::scope(|scope| {
        for first in 0..UPLOADERS {
            let mut client = server.client();
            scope.spawn(move || {
                for number in (first..EVENTS).step_by(usize::try_from(UPLOADERS).unwrap()) {
                    client.post("/api/v3/stream/lab/content", content(number).as_bytes()).expect_status(200);
                }
            });
        }
    });
    let event = |number: u64| {
        let size = json!(content(number).len());
        let event = with(sourced(&sha256(number), "lab"), "/entity/size", size.clone());
        with(event, "/entity/datastreams/0/size", size)
    };
    for first in (0..EVENTS).step_by(200) {
        let events: Vec<Value> = (first..(first + 200).min(EVENTS)).map(event).collect();
        server.publish_ok("binary", &json!(events));
    }
    let mut client = server.client();
    for number in (0..EVENTS).step_by(usize::try_from(GONE_EVERY).unwrap()) {
        let gone = client.delete(&format!("/api/v3/stream/lab/content/{}", sha256(number))).expect_status(200);
        assert_eq!(gone.json(), json!({"deleted": true}));
    }
}

/// A port that the server has again after a kill: not one of those that the system hands out to anybody.
fn port_to_keep(random: &mut Random) -> u16 {
    loop {
        let port = u16::try_from(20_000 + random.below(10_000)).expect("a port");
        if TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).is_ok() {
            return port;
        }
    }
}

/// Every event that a passive reader is given.
fn read_all(mut client: Client, what: &str) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let page =
            crate::support::Batch::read(&client.get(&format!(
                "/api/v2/event/{what}/passive?name=judge&version=1&r-historic=true&count=1000&deadline=0"
            )));
        if page.events.is_empty() && page.info["filtered"] == 0 {
            return all;
        }
        all.extend(page.events);
    }
}

/// The statuses that the workers ended each event with, by the entity.
///
/// A worker that is killed behind its report, or does not hear that it was stored, says the same again, and a lease that
/// ended under load has two workers scan one event. Such a status is stored again and counts once in the ledger, so it is
/// different statuses that are compared here, not how often one is there.
fn ends(statuses: &[Value]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut ends: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for status in statuses {
        let entity = &status["entity"];
        let word = entity["status"].as_str().expect("a status");
        // No ends: a heartbeat, the hand-out, and what the event comes again after, such as a lease that ran out.
        if !matches!(word, "heartbeat" | "dequeued" | "error-network" | "error-runner") {
            ends.entry(entity["input"]["entity"]["sha256"].as_str().expect("an entity")).or_default().insert(word);
        }
    }
    ends
}

/// What is stored in the end: one end for each event, a letter for each dead one, a result for each hit.
fn check_stored(server: &Server, gone: u64) {
    let statuses = read_all(server.client(), "status");
    let ends = ends(&statuses);
    for number in 0..EVENTS {
        let words = ends.get(sha256(number).as_str()).cloned().unwrap_or_default();
        assert_eq!(words, BTreeSet::from([wanted(number)]), "event {number}");
    }
    assert_eq!(ends.len(), usize::try_from(EVENTS).unwrap(), "only about what was published");
    let letters = server.cli(["dead", "list", "--json"]).expect_code(0).json();
    let letters = letters["letters"].as_array().expect("a list");
    let dead: BTreeSet<&str> = letters.iter().filter_map(|letter| letter["sha256"].as_str()).collect();
    assert_eq!((letters.len(), dead.len()), (usize::try_from(gone).unwrap(), usize::try_from(gone).unwrap()));
    assert!(dead.iter().all(|sha256| ends[sha256].contains("error-input")), "{dead:?}");
    let results = read_all(server.client(), "binary");
    let enriched = results.iter().filter(|event| event["action"] == "enriched");
    let hit: BTreeSet<&str> = enriched.filter_map(|event| event["entity"]["sha256"].as_str()).collect();
    for number in 0..EVENTS {
        assert_eq!(hit.contains(sha256(number).as_str()), wanted(number) == "completed", "results of event {number}");
    }
    println!("{} statuses, {} binary events", statuses.len(), results.len());
}

#[test]
fn every_event_is_scanned_to_exactly_one_end_whatever_is_killed_when() {
    let mut random = Random::new(Random::run_seed());
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).expect("a folder");
    std::fs::write(rules.join("a.yar"), RULE).expect("write the rule");
    let config = Config::examples().set("http", "listen", &format!("\"127.0.0.1:{}\"", port_to_keep(&mut random)));
    let config = config.set("delivery", "lease", "\"1s\"").set("delivery", "retry_delay", "\"50ms\"");
    let config = config.set("delivery", "max_attempts", "100").set("events", "lost_tasks_check", "\"10ms\"");
    let config = config.set("streams", "api_allow_delete", "true").set("workers.yara", "threads", "2");
    let mut server = Server::with(&config.set("workers.yara", "rules_dir", &format!("{:?}", rules.display())));
    for text in ["torn tail", "not shut down cleanly", "unclean", "dead letter"] {
        server.announce(text);
    }
    let start = Instant::now();
    fill(&server);
    println!("{EVENTS} events are there after {:?}", start.elapsed());
    let worker = |number: usize| {
        let data = folder.path().join(format!("worker{number}"));
        WorkerProcess::start(&["yara"], &server.config_path(), &data, server.address())
    };
    let mut workers: Vec<WorkerProcess> = (0..WORKERS).map(worker).collect();
    // 0 is the server. The kills are spread over the work, so that each of them meets some.
    let mut victims: Vec<usize> = (0..=WORKERS).flat_map(|victim| [victim; KILLS]).collect();
    let share = EVENTS / u64::try_from(victims.len() + 1).unwrap();
    let mut ended = 0;
    while !victims.is_empty() {
        let victim = victims.swap_remove(random.index(victims.len()));
        ended += share;
        await_ended(&server, &start, ended.saturating_sub(random.below(share)));
        std::thread::sleep(Duration::from_millis(random.below(30)));
        match victim.checked_sub(1) {
            None => server.crash(),
            Some(worker) => {
                workers[worker].kill();
                workers[worker].launch();
            }
        }
        ledger(&server, "yara");
    }
    await_ended(&server, &start, EVENTS);
    let gone = EVENTS.div_ceil(GONE_EVERY);
    let done = [EVENTS, EVENTS - gone, 0, gone, 0];
    assert_eq!(ledger(&server, "yara"), done);
    workers.clear();
    server.crash();
    assert_eq!(ledger(&server, "yara"), done, "after another kill");
    check_stored(&server, gone);
    println!("{KILLS} kills each of the server and {WORKERS} workers in {:?}", start.elapsed());
}

/// Waits until so many events are finished or dead. Looks again and again and does not wait for statuses: that the ledger
/// holds at every look, whenever that is, is what is tested.
fn await_ended(server: &Server, start: &Instant, count: u64) {
    loop {
        let counts = ledger(server, "yara");
        let [_, finished, _, dead, _] = counts;
        if finished + dead >= count {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{count} events have not ended: {counts:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
