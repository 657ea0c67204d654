//! Jobs under kills: events of several consumers that finish, fail, fall silent and are wrong, while the server is killed
//! at random moments. Each ends in exactly one way, whatever was killed when, and the ledger holds all the time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::events::{carver_status, e1, with};
use crate::support::random::Random;
use crate::support::{Batch, Client, Config, Server};

const EVENTS: u64 = 700;
const CONSUMERS: [&str; 3] = ["one", "two", "three"];
/// Threads of each consumer.
const THREADS: u64 = 2;
/// One event in so many is wrong input.
const WRONG_EVERY: u64 = 10;
const KILLS: u64 = 12;
const PATIENCE: Duration = Duration::from_secs(120);

fn is_wrong(task: &Value) -> bool {
    let sha256 = task["entity"]["sha256"].as_str().expect("a hash");
    u64::from_str_radix(&sha256[48..], 16).expect("an id of this test").is_multiple_of(WRONG_EVERY)
}

fn publish(server: &Server) {
    let event = |number: u64| {
        let id = format!("{number:064x}");
        with(with(e1(), "/source/path/0/sha256", json!(id)), "/entity/sha256", json!(id))
    };
    for first in (0..EVENTS).step_by(100) {
        let events: Vec<Value> = (first..first + 100).map(event).collect();
        server.publish_ok("binary", &json!(events));
    }
}

/// Takes tasks and ends them, or not, until the server dies.
fn work(address: SocketAddr, consumer: &str, mut random: Random, stop: &AtomicBool) {
    let mut client = Client::new(address);
    while !stop.load(Ordering::Relaxed) {
        let count = 1 + random.below(20);
        let target = format!(
            "/api/v2/event/binary/active?name={consumer}&version=1.2&count={count}&deadline=0&r-historic=true&r-live=true"
        );
        let Ok(answer) = client.try_get(&target) else { return };
        let tasks = Batch::read(&answer).events;
        let mut statuses = Vec::new();
        for task in &tasks {
            let word = match random.below(20) {
                // Nobody hears of it any more.
                0 => continue,
                1 | 2 => "error-exception",
                3 => "opt-out",
                _ => "completed",
            };
            let word = if is_wrong(task) { "error-input" } else { word };
            statuses.push(with(carver_status(task, word, &[]), "/author/name", json!(consumer)));
        }
        if statuses.is_empty() {
            std::thread::sleep(Duration::from_millis(random.below(20)));
            continue;
        }
        // Some say so twice.
        for _ in 0..=random.below(2) {
            let body = Value::from(statuses.clone()).to_string();
            match client.try_post("/api/v2/event?model=status", body.as_bytes()) {
                Ok(answer) => drop(answer.expect_status(200)),
                Err(_) => return,
            }
        }
    }
}

/// Looks at the ledger until one is of a single moment.
const LOOKS: usize = 100;

/// Taken in, finished, waiting, dead, deleted; fails the test unless the first is the sum of the others. While jobs end, a
/// page may show one count from before and one from after a change, so that it is read again; a ledger that is wrong
/// stays wrong.
pub(crate) fn ledger(server: &Server, consumer: &str) -> [u64; 5] {
    let mut client = server.client();
    let mut counts = [0; 5];
    for _ in 0..LOOKS {
        let page = client.get("/metrics").expect_status(200).text();
        let count = |state: &str| {
            let name = format!("azulite_ledger{{consumer=\"{consumer}\",state=\"{state}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().expect("a count"))
        };
        counts = ["taken_in", "finished", "waiting", "dead", "deleted"].map(count);
        if counts[0] == counts[1..].iter().sum::<u64>() {
            return counts;
        }
    }
    panic!("{consumer}: the ledger does not hold: {counts:?}");
}

/// The consumers work until `until` returns.
fn life(address: SocketAddr, random: &Random, life: u64, until: impl FnOnce()) {
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (number, consumer) in (0..).zip(CONSUMERS) {
            for thread in 0..THREADS {
                let random = random.fork(life * 100 + number * 10 + thread);
                scope.spawn(move || work(address, consumer, random, stop));
            }
        }
        until();
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn every_job_ends_in_exactly_one_way_whatever_is_killed_when() {
    let mut random = Random::new(Random::run_seed());
    let config = Config::examples().set("delivery", "lease", "\"1s\"").set("delivery", "retry_delay", "\"50ms\"");
    let config = config.set("delivery", "max_attempts", "100").set("events", "lost_tasks_check", "\"10ms\"");
    let mut server = Server::with(&config);
    for text in ["torn tail", "not shut down cleanly", "unclean", "dead letter"] {
        server.announce(text);
    }
    publish(&server);
    let start = Instant::now();
    for round in 0..KILLS {
        // Kills shall hit every state.
        let time = Duration::from_millis(20 + random.below(400));
        life(server.address(), &random, round, || {
            std::thread::sleep(time);
            server.kill();
        });
        server.launch();
        for consumer in CONSUMERS {
            ledger(&server, consumer);
        }
    }
    let wrong = EVENTS.div_ceil(WRONG_EVERY);
    let done = [EVENTS, EVENTS - wrong, 0, wrong, 0];
    life(server.address(), &random, KILLS, || {
        // Looks and does not wait for an event: that the ledger holds at any time is what is looked for.
        while start.elapsed() < PATIENCE && CONSUMERS.iter().any(|consumer| ledger(&server, consumer) != done) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    for consumer in CONSUMERS {
        assert_eq!(ledger(&server, consumer), done, "{consumer}");
    }
    server.kill();
    server.launch();
    for consumer in CONSUMERS {
        assert_eq!(ledger(&server, consumer), done, "{consumer} after another kill");
    }
    println!("{} jobs, {KILLS} kills in {:?}", EVENTS * 3, start.elapsed());
}
