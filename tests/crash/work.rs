//! The clients of a round: they work until the server dies under them and note what they were promised.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::support::events::{e1, with};
use crate::support::random::Random;
use crate::support::{Batch, Client, Server};

fn stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

/// What is known to be durable of things that nobody answers for, such as the position behind a delivery: what was queued
/// before two posts in a row were begun, each behind the answer of the one before, is on the disk with the second answer.
struct Moments {
    now: AtomicU64,
    durable: AtomicU64,
}

static MOMENTS: Moments = Moments { now: AtomicU64::new(0), durable: AtomicU64::new(0) };

impl Moments {
    /// A moment after everything that happened so far.
    fn mark(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn is_durable(&self, moment: u64) -> bool {
        moment <= self.durable.load(Ordering::SeqCst)
    }
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
        let mut before = None;
        while !stopped(stop) {
            let begun = MOMENTS.now.load(Ordering::SeqCst);
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
                    if let Some(before) = before.replace(begun) {
                        MOMENTS.durable.fetch_max(before, Ordering::SeqCst);
                    }
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

/// Whether plugins are paused for certain: a request for a pause was answered. It lasts longer than the test.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    certain: AtomicBool,
}

impl Pause {
    /// Asks for a pause until an answer comes. What is posted with it is refused, which changes nothing.
    pub(crate) fn request(&self, address: SocketAddr, mut random: Random, stop: &AtomicBool) {
        let mut client = Client::new(address);
        breathe(&mut random, 60);
        while !stopped(stop) {
            let Ok(answer) = client.try_post("/api/v2/event?model=binary&pause_plugins=true", b"[]") else { return };
            answer.expect_any_error(422);
            self.certain.store(true, Ordering::SeqCst);
            breathe(&mut random, 200);
        }
    }

    pub(crate) fn is_certain(&self) -> bool {
        self.certain.load(Ordering::SeqCst)
    }
}

/// A consumer group that goes on over all rounds.
#[derive(Debug)]
pub(crate) struct GroupReader {
    name: &'static str,
    task: bool,
    /// One request in so many is a reset; 0 for none at all.
    resets: u64,
    /// What was delivered since the last reset.
    seen: HashSet<String>,
    /// What was delivered before a reset that nobody answered: it comes again if that reset counts.
    before: HashSet<String>,
    /// Answers whose positions may not be durable, each with a moment behind the next request: its position was queued then.
    recent: VecDeque<(Option<u64>, Vec<String>)>,
    /// What may come again: the kill can have come before the server noted that its answer had been read.
    in_doubt: HashSet<String>,
    deliveries: usize,
    repeated: usize,
    reset_count: usize,
    /// Whether nobody answered since a reset that nobody answered.
    reset_in_doubt: bool,
}

impl GroupReader {
    pub(crate) fn new(name: &'static str) -> GroupReader {
        GroupReader {
            name,
            task: false,
            resets: 0,
            seen: HashSet::new(),
            before: HashSet::new(),
            recent: VecDeque::new(),
            in_doubt: HashSet::new(),
            deliveries: 0,
            repeated: 0,
            reset_count: 0,
            reset_in_doubt: false,
        }
    }

    /// One that starts over with every `resets`th request, about.
    pub(crate) fn resetting(name: &'static str, resets: u64) -> GroupReader {
        GroupReader { resets, ..GroupReader::new(name) }
    }

    /// One that takes tasks, and so waits while plugins are paused.
    pub(crate) fn of_tasks(name: &'static str) -> GroupReader {
        GroupReader { task: true, ..GroupReader::new(name) }
    }

    fn target(&self, count: u64) -> String {
        let (name, kind) = (self.name, if self.task { "active" } else { "passive" });
        format!("/api/v2/event/binary/{kind}?name={name}&version=1&count={count}&deadline=0&r-historic=true")
    }

    /// The name of its group in the log.
    fn group(&self) -> String {
        format!("t1-azul-{}-1-binary-allsrc-alltype-H-historic", self.name)
    }

    pub(crate) fn run(&mut self, address: SocketAddr, mut random: Random, stop: &AtomicBool, pause: &Pause) {
        let mut client = Client::new(address);
        while !stopped(stop) {
            let reset = self.resets > 0 && random.below(self.resets) == 0;
            let target = self.target(1 + random.below(100)) + if reset { "&reset=true" } else { "" };
            let paused = self.task && pause.is_certain();
            let answer = client.try_get(&target);
            self.reset_in_doubt = answer.is_err() && (reset || self.reset_in_doubt);
            let Ok(answer) = answer else {
                if reset {
                    self.before.extend(self.seen.drain());
                }
                break;
            };
            let batch = Batch::read(&answer);
            assert!(
                !paused || (batch.info["paused"] == true && batch.events.is_empty()),
                "a pause was forgotten: {batch:?}"
            );
            if reset {
                self.was_reset();
            }
            self.note(&batch);
            breathe(&mut random, 25);
        }
        self.forget_durable();
        self.in_doubt.extend(self.recent.drain(..).flat_map(|(_, ids)| ids));
    }

    /// Nothing of what came before counts any more.
    fn was_reset(&mut self) {
        self.seen.clear();
        self.before.clear();
        self.recent.clear();
        self.in_doubt.clear();
        self.reset_count += 1;
    }

    /// Moves the group to the beginning with the command, while no server runs.
    pub(crate) fn reset_by_command(&mut self, server: &Server) {
        // Before its first answer there need not be such a group.
        if self.deliveries == 0 {
            return;
        }
        let ran = server.cli(["groups", "reset", &self.group(), "--to", "earliest"]);
        // A reset by request forgets the group first: killed behind that, it has no position, which is the beginning too.
        let forgotten = self.reset_in_doubt && ran.code == Some(1) && ran.stderr.contains("there is no group");
        if !forgotten {
            ran.expect_code(0);
        }
        self.was_reset();
    }

    /// A pause that was answered holds tasks back, whatever was killed since.
    pub(crate) fn check_paused(&self, server: &Server, pause: &Pause) {
        let batch = Batch::read(&server.client().get(&self.target(1)));
        assert!(!pause.is_certain() || batch.info["paused"] == true, "a pause was forgotten: {batch:?}");
    }

    /// Reads to the end of everything.
    pub(crate) fn drain(&mut self, server: &Server) {
        let mut client = server.client();
        loop {
            let batch = Batch::read(&client.get(&self.target(1000)));
            if batch.events.is_empty() {
                return;
            }
            self.note(&batch);
        }
    }

    fn note(&mut self, batch: &Batch) {
        let ids = batch.ids();
        for id in &ids {
            let in_doubt = self.in_doubt.remove(id);
            assert!(!self.seen.contains(id) || in_doubt, "{}: {id} came again, and not around a kill", self.name);
            if self.before.contains(id) && !in_doubt {
                // The reset that nobody answered counts: everything has to come again.
                self.before.clear();
            }
            self.repeated += usize::from(in_doubt);
            self.deliveries += 1;
            self.seen.insert(id.clone());
        }
        if let Some((moment @ None, _)) = self.recent.back_mut() {
            *moment = Some(MOMENTS.mark());
        }
        self.forget_durable();
        if !ids.is_empty() {
            self.recent.push_back((None, ids));
        }
    }

    fn forget_durable(&mut self) {
        while self.recent.front().is_some_and(|(moment, _)| moment.is_some_and(|moment| MOMENTS.is_durable(moment))) {
            self.recent.pop_front();
        }
    }

    /// Every event of the log was delivered, and nothing else.
    pub(crate) fn check(&self, ledger: &Ledger) {
        for id in ledger.in_the_log() {
            let name = self.name;
            assert!(self.seen.contains(id) || self.before.contains(id), "{name} was never given {id}");
        }
        for id in self.seen.iter().chain(&self.before) {
            assert!(ledger.is_in_the_log(id), "{} was given {id}, which is not in the log", self.name);
        }
    }

    /// `deliveries`, those among them that came again around a kill, and resets.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.deliveries, self.repeated, self.reset_count)
    }
}
