//! Every event ends in exactly one way at every consumer, and the ledger holds at every step: random failures, heartbeats,
//! lost answers, silence, late words, restarts and people against a plain model of workers.md 5.1 and 5.2.
//!
//! `AZULITE_SEED` replays a world, `AZULITE_LEASE_ROUNDS` sets how many there are.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::environment;
use crate::dispatcher::leases::{Ends, balances};
use crate::dispatcher::model::{self, Event, Model};
use crate::dispatcher::world::{MINUTE_MS, World, sourced, status};
use crate::kafka::codec::random::Rng;

/// How many worlds are made unless the environment says otherwise.
const ROUNDS: u64 = 16;
const STEPS: usize = 120;
const CONSUMERS: [&str; 2] = ["Carver", "Other"];
const LEASE_MS: i64 = 30 * MINUTE_MS;
const LEASE_MAX_MS: i64 = 24 * 60 * MINUTE_MS;
const MOST_RUNS: u64 = 4;

/// Where an event is for one consumer.
#[derive(Clone, Debug)]
enum Place {
    Leased {
        task: Value,
        since_ms: i64,
        heard_ms: i64,
    },
    /// Due between these two.
    Waiting {
        from_ms: i64,
        to_ms: i64,
        fresh: bool,
    },
    Over,
}

#[derive(Clone, Debug)]
struct Job {
    place: Place,
    failed: u64,
    /// Tasks whose leases have ended, but not the event.
    ended: Vec<Value>,
    event: Value,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    taken_in: u64,
    finished: u64,
    dead: u64,
}

/// One consumer as it should be.
#[derive(Debug, Default)]
struct Plain {
    /// By kafka key.
    jobs: BTreeMap<String, Job>,
    /// Events of the log it has not got yet.
    to_come: u64,
    counts: Counts,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Plain {
    fn waiting(&self) -> u64 {
        let open = self.jobs.values().filter(|job| match job.place {
            Place::Leased { .. } | Place::Waiting { fresh: false, .. } => true,
            Place::Waiting { fresh: true, .. } | Place::Over => false,
        });
        u64::try_from(open.count()).unwrap()
    }

    /// The answer to a GET of everything.
    fn got(&mut self, events: &[Value], arrives: bool, now_ms: i64) {
        let given: BTreeMap<String, &Value> = events.iter().map(|event| (text(&event["kafka_key"]), event)).collect();
        assert_eq!(given.len(), events.len(), "an event twice in one answer");
        for (key, job) in &self.jobs {
            if let Place::Waiting { from_ms, to_ms, .. } = job.place {
                assert!(to_ms > now_ms || given.contains_key(key), "{key} was due at {to_ms}, it is {now_ms}");
                assert!(from_ms <= now_ms || !given.contains_key(key), "{key} is due at {from_ms}, it is {now_ms}");
            } else {
                assert!(!given.contains_key(key), "{key} is {job:?} and was handed out");
            }
        }
        for (key, event) in given {
            let new = Place::Waiting { from_ms: 0, to_ms: 0, fresh: true };
            let job = self.jobs.entry(key).or_insert_with(|| {
                self.to_come -= 1;
                Job { place: new, failed: 0, ended: Vec::new(), event: event.clone() }
            });
            if matches!(job.place, Place::Waiting { fresh: true, .. }) {
                self.counts.taken_in += 1;
            }
            assert_eq!(event.get("retries").and_then(Value::as_u64).unwrap_or(0), job.failed, "{event}");
            job.place = match arrives {
                true => Place::Leased { task: event.clone(), since_ms: now_ms, heard_ms: now_ms },
                false => {
                    job.ended.push(event.clone());
                    Place::Waiting { from_ms: now_ms, to_ms: now_ms, fresh: false }
                }
            };
        }
        assert_eq!(self.to_come, 0, "not everything came");
    }

    fn failed(counts: &mut Counts, job: &mut Job, task: Value, now_ms: i64) {
        job.failed += 1;
        if job.failed >= MOST_RUNS {
            return Self::over(job, &mut counts.dead);
        }
        job.ended.push(task);
        job.place = Place::Waiting { from_ms: now_ms + 54_000, to_ms: now_ms + 66_000, fresh: false };
    }

    fn over(job: &mut Job, count: &mut u64) {
        *count += 1;
        (job.place, job.failed) = (Place::Over, 0);
        job.ended.clear();
    }

    fn told(&mut self, key: &str, task: &Value, word: &str, now_ms: i64) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let own = match &mut job.place {
            Place::Leased { task: own, heard_ms, .. } if own["dequeued"] == task["dequeued"] => {
                if word == "heartbeat" {
                    if *heard_ms <= now_ms - LEASE_MS / 10 {
                        *heard_ms = now_ms;
                    }
                    return;
                }
                true
            }
            Place::Leased { .. } | Place::Waiting { .. } | Place::Over => false,
        };
        let late = job.ended.iter().any(|ended| ended["dequeued"] == task["dequeued"]);
        match word {
            "heartbeat" => {}
            "completed" | "opt-out" if own || late => Self::over(job, &mut self.counts.finished),
            "error-input" if own || late => Self::over(job, &mut self.counts.dead),
            "error-exception" if own => Self::failed(&mut self.counts, job, task.clone(), now_ms),
            _ => {}
        }
    }

    fn looked(&mut self, now_ms: i64) {
        for job in self.jobs.values_mut() {
            if let Place::Leased { task, since_ms, heard_ms } = job.place.clone()
                && (heard_ms + LEASE_MS).min(since_ms + LEASE_MAX_MS) <= now_ms
            {
                Self::failed(&mut self.counts, job, task, now_ms);
            }
        }
    }
}

struct Round {
    world: World,
    plain: [Plain; 2],
    events: u64,
}

impl Round {
    async fn post(&mut self, random: &mut Rng) {
        let count = 1 + random.below(4);
        let event = |n: u64| {
            let mut event = sourced('a');
            event["source"]["references"]["n"] = json!(n.to_string());
            event
        };
        let next = self.events + u64::try_from(count).unwrap();
        let events: Vec<Value> = (self.events..next).map(event).collect();
        self.world.post("model=binary", &json!(events)).await.unwrap();
        self.plain.iter_mut().for_each(|plain| plain.to_come += next - self.events);
        self.events = next;
    }

    async fn get(&mut self, random: &mut Rng) {
        let index = random.below(2);
        let arrives = !random.one_in(4);
        let query = format!("name={}&version=1.2&count=1000&deadline=0&r-historic=true", CONSUMERS[index]);
        let got = self.world.get_and("binary/active", &query, arrives).await;
        let now_ms = self.world.now_ms();
        self.plain[index].got(&got.events, arrives, now_ms);
    }

    async fn tell(&mut self, random: &mut Rng) {
        let index = random.below(2);
        let mut tasks = Vec::new();
        for (key, job) in &self.plain[index].jobs {
            if let Place::Leased { task, .. } = &job.place {
                tasks.push((key.clone(), task.clone()));
            }
            if random.one_in(4) {
                tasks.extend(job.ended.iter().map(|task| (key.clone(), task.clone())));
            }
        }
        if tasks.is_empty() {
            return;
        }
        // Several in one request, also about one event.
        let mut all = Vec::new();
        for _ in 0..=random.below(3) {
            let (key, task) = tasks[random.below(tasks.len())].clone();
            let word = ["completed", "opt-out", "error-input", "heartbeat", "error-exception", "error-exception"]
                [random.below(6)];
            all.push((key, task, word));
        }
        // Heartbeats of a request are noted before what it ends.
        all.sort_by_key(|(.., word)| *word != "heartbeat");
        let statuses: Vec<Value> = all.iter().map(|(_, task, word)| status(task, word)[0].clone()).collect();
        self.world.post("model=status", &json!(statuses)).await.unwrap();
        let now_ms = self.world.now_ms();
        for (key, task, word) in all {
            self.plain[index].told(&key, &task, word, now_ms);
        }
    }

    fn give_back(&mut self, random: &mut Rng) {
        let now_ms = self.world.now_ms();
        let plain = &mut self.plain[random.below(2)];
        let leased = plain.jobs.values_mut().find(|job| matches!(job.place, Place::Leased { .. }));
        let Some(job) = leased else { return };
        let Place::Leased { task, .. } = job.place.clone() else { return };
        let released = tokio::task::block_in_place(|| self.world.dispatcher().release(&[&text(&task["dequeued"])]));
        assert_eq!(released.unwrap().released, 1);
        job.ended.push(task);
        job.place = Place::Waiting { from_ms: now_ms, to_ms: now_ms, fresh: false };
    }

    fn put_back(&mut self, random: &mut Rng) {
        let (now_ms, index) = (self.world.now_ms(), random.below(2));
        let over = self.plain[index].jobs.values_mut().find(|job| matches!(job.place, Place::Over));
        let Some(job) = over else { return };
        let event = model::decode_event_json(Model::Binary, job.event.to_string().as_bytes()).unwrap().event.unwrap();
        let Event::Binary(event) = event else { panic!("{event:?}") };
        let dispatcher = self.world.dispatcher();
        let values = dispatcher.leases().requeue(&event, CONSUMERS[index], "1.2", "", now_ms, random.one_in(2));
        dispatcher.broker().log().put_kv(values).unwrap();
        dispatcher.requeued(CONSUMERS[index], "1.2");
        job.place = Place::Waiting { from_ms: 0, to_ms: now_ms, fresh: true };
    }

    async fn look(&mut self) {
        let now_ms = self.world.now_ms();
        let ends = Ends { by_ms: Some(now_ms), name: None };
        self.world.dispatcher().look_for_lost_tasks(&ends, now_ms).await.unwrap();
        self.plain.iter_mut().for_each(|plain| plain.looked(now_ms));
    }

    fn check(&self) {
        let log = self.world.dispatcher().broker().log();
        // Whatever was queued before is there then.
        log.put_kv(vec![(b"x".to_vec(), None)]).unwrap();
        let balances = balances(log.as_ref()).unwrap();
        for (name, plain) in CONSUMERS.iter().zip(&self.plain) {
            let Some(balance) = balances.iter().find(|balance| balance.name == *name) else {
                assert_eq!(plain.counts, Counts::default());
                continue;
            };
            assert!(balance.holds(), "{balance:?}");
            let counts = Counts { taken_in: balance.taken_in, finished: balance.finished, dead: balance.dead };
            assert_eq!(counts, plain.counts, "{balance:?}");
            assert_eq!((balance.leases + balance.waiting, balance.deleted), (plain.waiting(), 0), "{balance:?}");
        }
    }
}

async fn run(seed: u64) -> Counts {
    let mut random = Rng(seed);
    let mut round = Round { world: World::new(), plain: Default::default(), events: 0 };
    for _ in 0..STEPS {
        match random.below(20) {
            0..=2 => round.post(&mut random).await,
            3..=8 => round.get(&mut random).await,
            9..=14 => round.tell(&mut random).await,
            15 => round.give_back(&mut random),
            16 => round.put_back(&mut random),
            17 => round.look().await,
            18 => {
                let _: i64 =
                    round.world.clock.fetch_add([20_000, 70_000, 31 * MINUTE_MS][random.below(3)], Ordering::SeqCst);
            }
            _ => round.world = round.world.restart(),
        }
        round.check();
    }
    // In the end nothing is left that is neither finished nor dead.
    for _ in 0..2 * MOST_RUNS {
        round.world.pass_minutes(31);
        round.look().await;
        round.world.pass_minutes(2);
        for name in CONSUMERS {
            let query = format!("name={name}&version=1.2&count=1000&deadline=0&r-historic=true");
            let got = round.world.get("binary/active", &query).await;
            let (now_ms, index) = (round.world.now_ms(), CONSUMERS.iter().position(|other| *other == name).unwrap());
            round.plain[index].got(&got.events, true, now_ms);
        }
        round.check();
    }
    let mut all = Counts::default();
    for plain in &round.plain {
        assert_eq!(plain.waiting(), 0);
        let Counts { taken_in, finished, dead } = plain.counts;
        assert_eq!(taken_in, finished + dead);
        all = Counts { taken_in: all.taken_in + taken_in, finished: all.finished + finished, dead: all.dead + dead };
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_ends_once_at_every_consumer_and_the_ledger_always_holds() {
    let replayed = environment("AZULITE_SEED");
    let first = replayed.unwrap_or_else(crate::dispatcher::random_u64);
    let rounds = environment("AZULITE_LEASE_ROUNDS").unwrap_or(if replayed.is_some() { 1 } else { ROUNDS });
    let (mut taken_in, mut finished, mut dead) = (0, 0, 0);
    for number in 0..rounds {
        let seed = first.wrapping_add(number);
        println!("AZULITE_SEED={seed}");
        let counts = run(seed).await;
        (taken_in, finished, dead) = (taken_in + counts.taken_in, finished + counts.finished, dead + counts.dead);
    }
    println!("{taken_in} taken in, {finished} finished, {dead} dead letters");
    assert!(rounds < ROUNDS || (finished > 50 && dead > 50), "hardly anything happened");
}
