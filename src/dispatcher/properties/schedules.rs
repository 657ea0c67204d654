//! Every event reaches every group, and none reaches a group twice, whatever happens at the same time.
//!
//! Random schedules: threads publish, read, lose answers, give up, reset and move positions at once; between such rounds
//! the pause of plugins begins and ends, time passes and the store is opened again, with fewer readers kept in memory than
//! there are. Then everything is read out and the [ledger](super::ledger) judges. `AZULITE_SEED` replays a schedule as far as threads
//! can be replayed, `AZULITE_SCHEDULES` sets how many there are. Contract events.md 5.2, 5.3, 5.6, 5.8, 6.4.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::environment;
use super::ledger::{Account, Key, Move, Sent, Span};
use crate::broker::TopicPartition;
use crate::broker::groups::{GroupError, OffsetToCommit, delete_unattended, reset_unattended};
use crate::dispatcher::model::Model;
use crate::dispatcher::params::{GetParams, Limits};
use crate::dispatcher::plugin_key::{Flow, PluginKey};
use crate::dispatcher::world::{Got, MINUTE_MS, World, sourced};
use crate::kafka::codec::random::Rng;

/// How many schedules run unless the environment says otherwise.
const SCHEDULES: u64 = 12;
const THREADS: usize = 4;
const STEPS: usize = 14;
/// Fewer than there are keys: readers leave the memory and come back.
const READERS: usize = 6;

const PASSIVE: Key = Key { name: "h", task: false, flows: "H", source: None, action: None };
const KEYS: [Key; 11] = [
    PASSIVE,
    Key { name: "lh", flows: "LH", ..PASSIVE },
    Key { name: "elh", flows: "ELH", ..PASSIVE },
    Key { name: "l", flows: "L", ..PASSIVE },
    Key { name: "e", flows: "E", ..PASSIVE },
    Key { name: "debug", flows: "HD", ..PASSIVE },
    Key { name: "new source", source: Some("new1"), ..PASSIVE },
    Key { name: "extracted", flows: "LH", action: Some("extracted"), ..PASSIVE },
    Key { name: "task h", task: true, ..PASSIVE },
    Key { name: "task elh", task: true, flows: "ELH", ..PASSIVE },
    Key { name: "task l", task: true, flows: "L", ..PASSIVE },
];

/// The pause as the schedule knows it.
#[derive(Clone, Copy, Debug, Default)]
struct Paused {
    last_ms: Option<i64>,
    /// When it ended, in ticks.
    ended: Option<u64>,
}

struct Schedule {
    runtime: Runtime,
    world: Option<World>,
    ticks: AtomicU64,
    ids: AtomicU64,
    sent: Mutex<BTreeMap<u64, Sent>>,
    accounts: Vec<Mutex<Account>>,
    paused: Paused,
    /// A pause may begin in this round: what else a task reader does then has two outcomes, and is left out.
    pauses: bool,
}

fn query(key: &Key, count: usize, more: &str) -> String {
    let mut query = format!("name={}&version=1&count={count}", key.name);
    for (letter, parameter) in [('E', "r-expedite"), ('L', "r-live"), ('H', "r-historic"), ('D', "debug")] {
        if key.flows.contains(letter) {
            query += &format!("&{parameter}=true");
        }
    }
    key.source.iter().for_each(|source| query += &format!("&r-source={source}"));
    key.action.iter().for_each(|action| query += &format!("&r-action={action}"));
    query + more
}

/// The historic group of a key.
fn group(key: &Key) -> String {
    let pairs = query(key, 1, "");
    let pairs = pairs.split('&').map(|pair| pair.split_once('=').unwrap());
    let pairs: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let limits = Limits { fetch_limit: 1000, default_wait_secs: 0 };
    let params = GetParams::parse(Model::Binary.as_str(), &pairs, &limits).unwrap();
    PluginKey::of(&params).group("t1", Flow::Historic)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Schedule {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let world = World::changed(|options| options.max_readers = READERS);
        // Positions that a tool has moved are read anew by the clock on the wall: groups must not look idle by it.
        world.clock.store(azulite_storage::clock::now_ms(), Ordering::SeqCst);
        Self {
            runtime,
            world: Some(world),
            ticks: AtomicU64::new(1),
            ids: AtomicU64::new(1),
            sent: Mutex::default(),
            accounts: KEYS.iter().map(|key| Mutex::new(Account::new(*key))).collect(),
            paused: Paused::default(),
            pauses: false,
        }
    }

    fn world(&self) -> &World {
        self.world.as_ref().unwrap()
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    fn timed<T>(&self, work: impl FnOnce() -> T) -> (Span, T) {
        let from = self.tick();
        let outcome = work();
        (Span { from, to: self.tick() }, outcome)
    }

    /// Where a task group starts that is new now.
    fn behind(&self, key: &Key) -> Option<u64> {
        let recent = self.paused.last_ms.is_some_and(|last| self.world().now_ms() - last < 30 * MINUTE_MS);
        self.paused.ended.filter(|_| key.task && recent)
    }

    fn post(&self, random: &mut Rng, pause: bool) {
        let mut events = Vec::new();
        let mut records = Vec::new();
        for _ in 0..=random.below(4) {
            let id = self.ids.fetch_add(1, Ordering::SeqCst);
            let source = match random.below(4) {
                0 => format!("new{}", random.below(4)),
                _ => "lab".to_owned(),
            };
            let action = ["sourced", "extracted"][random.below(2)];
            let expedite = random.one_in(4);
            events.push(event(id, &source, action, expedite));
            records.push((id, source, action, expedite));
        }
        let parameters = if pause { "model=binary&pause_plugins=true" } else { "model=binary" };
        let events = Value::Array(events);
        let (span, answer) = self.timed(|| self.runtime.block_on(self.world().post(parameters, &events)));
        assert_eq!(answer.unwrap()["total_ok"], records.len());
        let mut sent = lock(&self.sent);
        for (id, source, action, expedite) in records {
            sent.insert(id, Sent { span, source, action, expedite });
        }
    }

    /// One GET. What it gives counts as delivered when it `arrives`.
    fn get(&self, index: usize, count: usize, more: &str, arrives: bool) -> usize {
        let key = &KEYS[index];
        let route = if key.task { "binary/active" } else { "binary/passive" };
        let query = query(key, count, more);
        let (span, got) = self.timed(|| self.runtime.block_on(self.world().get_and(route, &query, arrives)));
        if got.is_paused() {
            assert!(key.task && got.events.is_empty(), "{got:?}");
            return 0;
        }
        assert!(got.events.len() <= count, "{got:?}");
        let mut account = lock(&self.accounts[index]);
        if more.contains("reset") {
            account.moved(span, Move::New { behind: self.behind(key) });
        }
        account.answered(span, self.behind(key));
        match arrives {
            true => ids(&got).for_each(|id| account.got(id, span)),
            false => account.lost_an_answer(),
        }
        got.events.len()
    }

    /// A GET whose client goes away.
    fn give_up(&self, random: &mut Rng, index: usize) {
        let key = &KEYS[index];
        let route = if key.task { "binary/active" } else { "binary/passive" };
        let tick = self.tick();
        let mut account = lock(&self.accounts[index]);
        account.asked(tick);
        account.lost_an_answer();
        drop(account);
        let query = query(key, 1 + random.below(20), "&deadline=1");
        let patience = Duration::from_micros(random.next() % 3_000);
        let get = self.world().get_and(route, &query, false);
        // Answered or not, nobody sees it.
        drop(self.runtime.block_on(async { tokio::time::timeout(patience, get).await }));
    }

    /// What `groups reset` and `groups delete` do to a group that HTTP readers own.
    fn move_by_tool(&self, random: &mut Rng, index: usize) {
        let key = &KEYS[index];
        let how = [Move::ToStart, Move::ToEnd, Move::New { behind: None }][random.below(3)];
        let broker = self.world().dispatcher().broker();
        let (span, outcome) = self.timed(|| {
            if matches!(how, Move::New { .. }) {
                return delete_unattended(broker, &group(key));
            }
            let partitions = broker.log().topics().into_iter().flat_map(|topic| topic.partitions.clone());
            let offsets = partitions.filter(|partition| partition.name().topic.contains(".binary.")).map(|partition| {
                let offsets = partition.offsets();
                let offset = if how == Move::ToEnd { offsets.high_watermark } else { offsets.log_start };
                let place: TopicPartition = partition.name().clone();
                OffsetToCommit { place, offset, leader_epoch: -1, metadata: String::new() }
            });
            reset_unattended(broker, &group(key), offsets.collect())
        });
        match outcome {
            Ok(()) => lock(&self.accounts[index]).moved(span, how),
            // Another thread deleted it just now.
            Err(GroupError::GroupIdNotFound) => {}
            Err(error) => panic!("{how:?}: {error:?}"),
        }
    }

    fn step(&self, random: &mut Rng) {
        let index = random.below(KEYS.len());
        let (key, registered) = (&KEYS[index], lock(&self.accounts[index]).is_registered());
        let two_outcomes = key.task && (self.pauses || !registered);
        match random.below(40) {
            0..=11 => self.post(random, false),
            12 => self.post(random, self.pauses),
            13..=14 if !two_outcomes => drop(self.get(index, 1 + random.below(9), "&deadline=0&reset=true", true)),
            15..=18 if !two_outcomes => self.give_up(random, index),
            19..=20 if registered && key.flows == "H" && !key.task && key.source.is_none() => {
                self.move_by_tool(random, index);
            }
            21..=25 => drop(self.get(index, 1 + random.below(9), "&deadline=0", false)),
            26 => drop(self.get(index, 1, "&deadline=1", true)),
            _ => drop(self.get(index, 1 + random.below(30), "&deadline=0", true)),
        }
    }

    fn round(&mut self, random: &mut Rng) {
        let task_readers = KEYS.iter().zip(&self.accounts).filter(|(key, _)| key.task);
        self.pauses = random.one_in(3) && task_readers.fold(true, |all, (_, a)| all && lock(a).is_registered());
        let seeds: Vec<u64> = (0..THREADS).map(|_| random.next()).collect();
        std::thread::scope(|scope| {
            for seed in seeds {
                let this = &*self;
                scope.spawn(move || {
                    let mut random = Rng(seed);
                    (0..STEPS).for_each(|_| this.step(&mut random));
                });
            }
        });
        if self.world().dispatcher().is_paused() && self.pauses {
            self.paused = Paused { last_ms: Some(self.world().now_ms()), ended: None };
        }
        self.settle();
    }

    /// Waits for what requests whose clients have gone still do.
    fn settle(&self) {
        let start = Instant::now();
        while std::sync::Arc::strong_count(self.world().dispatcher()) > 1 {
            assert!(start.elapsed() < Duration::from_secs(30), "a request does not end");
            std::thread::yield_now();
        }
    }

    /// What happens while nobody asks.
    fn between(&mut self, random: &mut Rng) {
        match random.below(4) {
            0 => self.pass_minutes(1 + i64::try_from(random.below(8)).unwrap()),
            1 => self.pass_minutes(11 + i64::try_from(random.below(30)).unwrap()),
            _ => {}
        }
        if random.one_in(2) {
            self.world = self.world.take().map(World::restart);
        }
        if random.one_in(3) {
            self.read_out();
        }
    }

    fn pass_minutes(&mut self, minutes: i64) {
        self.world().pass_minutes(minutes);
        let over = |last: i64| self.world().now_ms() - last >= 10 * MINUTE_MS;
        if self.paused.ended.is_none() && self.paused.last_ms.is_some_and(over) {
            let tick = self.tick();
            self.paused.ended = Some(tick);
            self.accounts.iter().for_each(|account| lock(account).paused_until(tick));
        }
    }

    /// Every reader that may reads until nothing is left, and is judged.
    fn read_out(&self) {
        let is_paused = self.world().dispatcher().is_paused();
        let mut faults = Vec::new();
        for (index, key) in KEYS.iter().enumerate() {
            let drained = !(key.task && is_paused);
            let mut answers = 0;
            while drained && self.get(index, 100, "&deadline=0", true) > 0 {
                answers += 1;
                assert!(answers < 1_000, "{} is given events without an end", key.name);
            }
            faults.extend(lock(&self.accounts[index]).faults(&lock(&self.sent), drained));
        }
        let shown: Vec<_> = faults.iter().take(5).collect();
        assert!(faults.is_empty(), "{} faults, the first ones: {shown:#?}", faults.len());
    }

    fn totals(&self) -> (usize, usize, usize) {
        let sum = |count: fn(&Account) -> usize| self.accounts.iter().map(|account| count(&lock(account))).sum();
        (lock(&self.sent).len(), sum(Account::arrivals), sum(Account::repeated))
    }
}

fn event(id: u64, source: &str, action: &str, expedite: bool) -> Value {
    let mut event = sourced('a');
    let sha256 = json!(format!("{id:064x}"));
    event["source"]["name"] = json!(source);
    event["source"]["path"][0]["sha256"] = sha256.clone();
    event["source"]["path"][0]["action"] = json!(action);
    event["entity"]["sha256"] = sha256;
    event["action"] = json!(action);
    if expedite {
        event["flags"] = json!({"expedite": true});
    }
    event
}

fn ids(got: &Got) -> impl Iterator<Item = u64> {
    let id = |event: &Value| u64::from_str_radix(event["entity"]["sha256"].as_str().unwrap(), 16).unwrap();
    got.events.iter().map(id)
}

fn run(seed: u64) -> (usize, usize, usize) {
    let (mut random, mut schedule) = (Rng(seed), Schedule::new());
    for _ in 0..3 + random.below(4) {
        schedule.round(&mut random);
        schedule.between(&mut random);
    }
    // Behind every pause, so that task readers are read out too.
    schedule.pass_minutes(11);
    schedule.read_out();
    schedule.totals()
}

#[test]
fn every_event_reaches_every_group_and_none_twice_without_a_reason() {
    let replayed = environment("AZULITE_SEED");
    let first = replayed.unwrap_or_else(crate::dispatcher::random_u64);
    let count = environment("AZULITE_SCHEDULES").unwrap_or(if replayed.is_some() { 1 } else { SCHEDULES });
    let start = Instant::now();
    let (mut events, mut arrivals, mut repeated) = (0, 0, 0);
    for number in 0..count {
        let seed = first.wrapping_add(number);
        println!("schedule {number}: AZULITE_SEED={seed}");
        let (sent, got, again) = run(seed);
        (events, arrivals, repeated) = (events + sent, arrivals + got, repeated + again);
    }
    let took = start.elapsed();
    println!("{count} schedules in {took:?}: {events} events, {arrivals} arrivals, {repeated} after a reset");
    assert!(arrivals > events, "the schedules did next to nothing");
}
