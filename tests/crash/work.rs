//! The clients of a round: they work until the server dies under them and note what they were promised.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::support::events::{e1, with};
use crate::support::random::Random;
use crate::support::{Batch, Client, Server};

fn stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

/// A pause of up to `limit` milliseconds: the moments of the kill shall hit every state, also the idle one.
fn breathe(random: &mut Random, limit: u64) {
    std::thread::sleep(Duration::from_millis(random.below(limit)));
}

/// The id of event `sequence` of client `client`: unique, and it tells both.
pub(crate) fn id_of(client: u64, sequence: u64) -> String {
    format!("{client:02x}{sequence:062x}")
}

/// Client and sequence of an id made by [`id_of`].
pub(crate) fn parse_id(id: &str) -> (u64, u64) {
    let number = |text: &str| u64::from_str_radix(text, 16).expect("an id of this test");
    (number(&id[..2]), number(&id[48..]))
}

/// One POST: its events and whether the server said yes.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) ids: Vec<String>,
    /// The events as acknowledged; `None` when no answer came.
    pub(crate) promised: Option<Vec<Value>>,
}

/// A client that publishes batches of events, each event once.
#[derive(Debug)]
pub(crate) struct Poster {
    pub(crate) client: u64,
    pub(crate) source: &'static str,
    next: u64,
    /// What was posted since the ledger last took it, in order.
    pub(crate) posted: Vec<Posted>,
}

impl Poster {
    pub(crate) fn new(client: u64, source: &'static str) -> Poster {
        Poster { client, source, next: 0, posted: Vec::new() }
    }

    pub(crate) fn run(&mut self, address: SocketAddr, mut random: Random, stop: &AtomicBool) {
        let mut client = Client::new(address);
        while !stopped(stop) {
            let count = if random.below(20) == 0 { 20 } else { 1 + random.below(4) };
            let ids: Vec<String> =
                (self.next..self.next + count).map(|sequence| id_of(self.client, sequence)).collect();
            self.next += count;
            let events: Vec<Value> = ids.iter().map(|id| event(id, self.source, &mut random)).collect();
            let sync = if random.below(2) == 0 { "&sync=true" } else { "" };
            let target = format!("/api/v2/event?model=binary&include_ok=true{sync}");
            match client.try_post(&target, Value::from(events).to_string().as_bytes()) {
                Ok(answer) => {
                    let answer = answer.expect_status(200).json();
                    assert_eq!(answer["total_ok"], ids.len(), "{answer}");
                    let promised = answer["ok"].as_array().expect("include_ok gives the events").clone();
                    self.posted.push(Posted { ids, promised: Some(promised) });
                }
                Err(_) => {
                    self.posted.push(Posted { ids, promised: None });
                    return;
                }
            }
            breathe(&mut random, 12);
        }
    }
}

fn event(id: &str, source: &str, random: &mut Random) -> Value {
    let event = with(e1(), "/source/name", json!(source));
    let event = with(event, "/source/path/0/sha256", json!(id));
    let event = with(event, "/entity/sha256", json!(id));
    let length = if random.below(50) == 0 { 50_000 } else { random.index(300) };
    with(event, "/entity/magic", json!("m".repeat(length)))
}

/// A client that uploads blobs of every size class.
#[derive(Debug, Default)]
pub(crate) struct Uploader {
    stored: Vec<Blob>,
    checked: usize,
}

/// The bytes can be made again from the seed.
#[derive(Debug)]
struct Blob {
    sha256: String,
    seed: u64,
    length: usize,
}

impl Uploader {
    pub(crate) fn run(&mut self, address: SocketAddr, mut random: Random, stop: &AtomicBool) {
        let mut client = Client::new(address);
        while !stopped(stop) {
            let limit = [100, 5_000, 65_536, 70_000, 300_000][random.index(5)];
            let (seed, length) = (random.next(), 1 + random.index(limit));
            let Ok(answer) = client.try_post("/api/v3/stream/own/content", &Random::new(seed).bytes(length)) else {
                return;
            };
            let data = answer.expect_status(200).json()["data"].clone();
            assert_eq!(data["size"], length, "{data}");
            let sha256 = data["sha256"].as_str().expect("a hash").to_owned();
            self.stored.push(Blob { sha256, seed, length });
            breathe(&mut random, 30);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.stored.len()
    }

    /// Checks the blobs of this round.
    pub(crate) fn check_new(&mut self, server: &Server) {
        check_blobs(server, &self.stored[self.checked..]);
        self.checked = self.stored.len();
    }

    /// Checks every blob of all rounds.
    pub(crate) fn check_all(&self, server: &Server) {
        check_blobs(server, &self.stored);
    }
}

fn check_blobs(server: &Server, blobs: &[Blob]) {
    let mut client = server.client();
    for blob in blobs {
        let answer = client.get(&format!("/api/v3/stream/own/content/{}", blob.sha256)).expect_status(200);
        assert!(answer.body == Random::new(blob.seed).bytes(blob.length), "{blob:?} changed");
    }
}

/// A consumer group that goes on over all rounds.
#[derive(Debug, Default)]
pub(crate) struct GroupReader {
    /// How often each id was delivered.
    seen: HashMap<String, usize>,
    /// The last two answers of this life of the server.
    recent: VecDeque<Vec<String>>,
    /// What may come again: the kill can have come before the server noted that its answer had been read.
    in_doubt: HashSet<String>,
}

impl GroupReader {
    pub(crate) fn run(&mut self, address: SocketAddr, mut random: Random, stop: &AtomicBool) {
        let mut client = Client::new(address);
        while !stopped(stop) {
            let count = 1 + random.below(100);
            let Ok(answer) = client.try_get(&target(count)) else {
                break;
            };
            self.note(&Batch::read(&answer));
            breathe(&mut random, 25);
        }
        self.in_doubt.extend(self.recent.drain(..).flatten());
    }

    /// Reads to the end of everything.
    pub(crate) fn drain(&mut self, server: &Server) {
        let mut client = server.client();
        loop {
            let batch = Batch::read(&client.get(&target(1000)));
            if batch.events.is_empty() {
                return;
            }
            self.note(&batch);
        }
    }

    fn note(&mut self, batch: &Batch) {
        let ids = batch.ids();
        for id in &ids {
            let times = self.seen.entry(id.clone()).or_default();
            assert!(*times == 0 || self.in_doubt.remove(id), "{id} came again, and not around a kill");
            *times += 1;
        }
        if !ids.is_empty() {
            self.recent.push_back(ids);
        }
        if self.recent.len() > 2 {
            self.recent.pop_front();
        }
    }

    /// Every event of the log was delivered, and nothing else.
    pub(crate) fn check(&self, ledger: &Ledger) {
        for id in ledger.in_the_log() {
            assert!(self.seen.contains_key(id), "the group was never given {id}");
        }
        for id in self.seen.keys() {
            assert!(ledger.is_in_the_log(id), "the group was given {id}, which is not in the log");
        }
    }

    pub(crate) fn deliveries(&self) -> usize {
        self.seen.values().sum()
    }

    pub(crate) fn repeated(&self) -> usize {
        self.deliveries() - self.seen.len()
    }
}

fn target(count: u64) -> String {
    format!("/api/v2/event/binary/passive?name=group&version=1&count={count}&deadline=0&r-historic=true")
}
