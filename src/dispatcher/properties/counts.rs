//! What is fetched and what is filtered add up: in each answer, in the metrics, and to the records that were passed.
//!
//! Random events, also such as no POST lets in, deletes, ageing and earlier results, against random consumer rules.
//! `AZULITE_COUNT_ROUNDS` sets how many worlds are made. Contract events.md 1.5, 5.5.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::environment;
use crate::broker::GroupRecord;
use crate::dispatcher::batches::Batches;
use crate::dispatcher::caches;
use crate::dispatcher::follower::read_records;
use crate::dispatcher::hub::PostError;
use crate::dispatcher::labels::tests::contract_labels;
use crate::dispatcher::leases::each_waiting;
use crate::dispatcher::model::{self, BinaryEvent, Event, JsonText, Model};
use crate::dispatcher::params::{GetParams, Limits};
use crate::dispatcher::plugin_key::subscriptions;
use crate::dispatcher::replay;
use crate::dispatcher::world::{Got, World, sourced, status};
use crate::kafka::codec::random::Rng;

/// How many worlds are made unless the environment says otherwise.
const ROUNDS: u64 = 16;
const STEPS: usize = 40;
const CONSUMERS: usize = 8;

/// A consumer and what it was told so far.
struct Consumer {
    name: &'static str,
    route: &'static str,
    query: String,
    groups: Vec<String>,
    /// Events and drops of all answers that arrived.
    told: u64,
}

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from[random.below(from.len())]
}

impl Consumer {
    fn random(random: &mut Rng, number: usize) -> Self {
        let name = ["amy", "kim", "Carver"][number % 3];
        // The one whose results are remembered has this version.
        let (version, task) =
            if number == 2 { ("1.2".to_owned(), true) } else { (number.to_string(), random.one_in(2)) };
        let mut query = format!("name={name}&version={version}&deadline=0");
        query +=
            pick(random, &["&r-historic=true", "&r-historic=true", "&r-live=true", "&r-expedite=true&r-historic=1"]);
        let rules = [
            "&r-source=lab",
            "&r-source=short",
            "&r-action=sourced&r-action=augmented",
            "&d-action=extracted",
            "&d-self=true",
            "&r-under-content-size=12",
            "&r-over-content-size=5",
            "&r-streams=content,text/",
            "&r-streams=content&r-streams=pcap",
            "&max-security=LOW",
            "&max-security=MEDIUM MOD1 REL:APPLE",
            "&max-security=nonsense",
            "&debug=true",
        ];
        for _ in 0..random.below(4) {
            query += pick(random, &rules);
        }
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let limits = Limits { fetch_limit: 1000, default_wait_secs: 0 };
        let params = GetParams::parse(Model::Binary.as_str(), &pairs, &limits).unwrap();
        let groups = subscriptions(&params, "t1").into_iter().map(|subscription| subscription.group).collect();
        let route = if task { "binary/active" } else { "binary/passive" };
        Self { name, route, query, groups, told: 0 }
    }

    /// Events that wait for it apart from its groups.
    fn waiting(&self, world: &World) -> u64 {
        if self.route != "binary/active" {
            return 0;
        }
        let log = world.dispatcher().broker().log();
        // Whatever was queued before is there then.
        log.put_kv(vec![(b"x".to_vec(), None)]).unwrap();
        let value = |name: &str| self.query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap();
        let mut count = 0;
        each_waiting(log.as_ref(), value("name="), value("version="), |_| {
            count += 1;
            true
        })
        .unwrap();
        count
    }

    /// Records, without tombstones, that its groups have gone past.
    fn passed(&self, world: &World) -> u64 {
        let broker = world.dispatcher().broker();
        let log = broker.log().as_ref();
        let mut passed = 0;
        for group in &self.groups {
            broker.positions(group).settled();
            let Some(record) = GroupRecord::of(log, group).unwrap() else { continue };
            for (place, committed) in log.group_offsets(group).unwrap() {
                let topic = broker.log().topic(&place.topic).unwrap();
                let partition = topic.partition(place.partition).unwrap();
                let mut next = record.starts[&place.topic][usize::try_from(place.partition).unwrap()];
                while next < committed.offset {
                    let (records, end) = read_records(log, partition, next, committed.offset).unwrap();
                    let values = records.iter().filter(|record| record.value.as_ref().is_some_and(|v| !v.is_empty()));
                    passed += u64::try_from(values.count()).unwrap();
                    next = end;
                }
            }
        }
        passed
    }
}

fn event(random: &mut Rng) -> Value {
    let mut event = sourced('a');
    let sha256 = json!(format!("{:064x}", random.below(12)));
    let action = pick(random, &["sourced", "sourced", "extracted", "augmented", "mapped", "enriched"]);
    let format = pick(random, &["text/plain", "image/png"]);
    event["author"]["name"] = json!(pick(random, &["amy", "kim"]));
    event["action"] = json!(action);
    event["source"]["name"] = json!(pick(random, &["lab", "lab", "short"]));
    event["source"]["security"] = json!(pick(random, &["", "LOW", "LOW", "MEDIUM MOD1", "TOP HIGH", "junk"]));
    event["source"]["path"][0]["sha256"] = sha256.clone();
    let nodes = [1, 1, 1, 2, 10, 11, 12][random.below(7)];
    event["source"]["path"] = json!(vec![event["source"]["path"][0].clone(); nodes]);
    event["entity"]["sha256"] = sha256.clone();
    let content = &mut event["entity"]["datastreams"][0];
    content["size"] = json!(random.below(20));
    content["file_format"] = json!(format);
    let mut pcap = content.clone();
    pcap["label"] = json!("pcap");
    let streams = event["entity"]["datastreams"].as_array_mut().unwrap();
    match action {
        "augmented" => streams.push(pcap),
        "mapped" => *streams = vec![pcap],
        "enriched" => streams.clear(),
        _ => {}
    }
    let flags = [json!({}), json!({}), json!({}), json!({"expedite": true}), json!({"bypass_cache": true})];
    event["flags"] = flags[random.below(flags.len())].clone();
    event
}

/// Records that came in by another door: no event at all, one that JSON readers could not read, one without a key.
fn append_odd_records(world: &World, random: &mut Rng) {
    let broker = world.dispatcher().broker();
    let topic = broker.log().topic("azul.t1.lab.binary.sourced").unwrap();
    let mut odd = BinaryEvent { action: "sourced".into(), ..BinaryEvent::default() };
    odd.source.name = "lab".into();
    let value = match random.below(3) {
        0 => b"no event".to_vec(),
        1 => {
            odd.kafka_key = "odd".into();
            odd.entity.info = JsonText::new("[1]");
            model::encode_avro(&Event::Binary(Box::new(odd)))
        }
        _ => model::encode_avro(&Event::Binary(Box::new(odd))),
    };
    let mut batches = Batches::default();
    (0..=random.below(3)).for_each(|_| batches.push(&topic, world.now_ms(), b"odd", Some(&value)));
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let done = Box::new(move |outcome: Result<_, _>| sender.send(outcome.is_ok()).unwrap());
    broker.log().append(broker.new_lane(), batches.finish(), done);
    assert!(receiver.recv().unwrap());
}

/// What `info` says is dropped; its parts make the whole.
fn check_info(got: &Got, context: &str) -> u64 {
    let info = &got.info;
    let parts = info["filters"].as_object().map_or(0, |filters| {
        assert!(!filters.is_empty() && filters.values().all(|count| count.as_u64().unwrap() > 0), "{context}: {info}");
        filters.values().map(|count| count.as_u64().unwrap()).sum()
    });
    let filtered = info["filtered"].as_u64().unwrap();
    assert_eq!(filtered, parts, "{context}: {info}");
    assert_eq!(info["fetched"], got.events.len(), "{context}: {info}");
    filtered
}

#[derive(Default)]
struct Round {
    keys: Vec<String>,
    /// Fetched and filtered by consumer name, of all answers, for the metrics.
    by_name: BTreeMap<&'static str, [u64; 2]>,
    reasons: BTreeMap<String, u64>,
}

impl Round {
    async fn post(&mut self, world: &World, random: &mut Rng) {
        let events = Value::Array((0..=random.below(5)).map(|_| event(random)).collect());
        match world.post("model=binary&include_ok=true", &events).await {
            Ok(answer) => {
                assert_eq!(answer["failures"], json!([]), "{answer}");
                let ok = answer["ok"].as_array().into_iter().flatten();
                self.keys.extend(ok.map(|event| event["kafka_key"].as_str().unwrap().to_owned()));
            }
            Err(PostError::NothingLeft { .. } | PostError::AgedOff) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn delete(&self, world: &World, random: &mut Rng) {
        if self.keys.is_empty() {
            return;
        }
        let key = &self.keys[random.below(self.keys.len())];
        let (action, entity) = match random.below(3) {
            0 => ("author", json!({"author": {"track_author": "user.amy.", "timestamp": "2026-01-02T03:04:06.5Z"}})),
            _ => ("ids", json!({"ids": {"ids": [key]}})),
        };
        // Not all of amy's events go in every world.
        if action == "author" && !random.one_in(4) {
            return;
        }
        let order = json!([{"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": {"name": "admin"},
            "action": action, "entity": entity}]);
        world.post("model=delete", &order).await.unwrap();
    }

    async fn get(&mut self, world: &World, random: &mut Rng, consumer: &mut Consumer, seed: u64) {
        let arrives = !random.one_in(6);
        let count = [1, 3, 10, 1000][random.below(4)];
        let query = format!("{}&count={count}", consumer.query);
        let waited = consumer.waiting(world);
        let got = world.get_and(consumer.route, &query, arrives).await;
        let context = format!("AZULITE_SEED={seed} {} {query}", consumer.route);
        let filtered = check_info(&got, &context);
        let fetched = u64::try_from(got.events.len()).unwrap();
        assert!(fetched <= count, "{context}: {}", got.info);
        let [all_fetched, all_filtered] = self.by_name.entry(consumer.name).or_default();
        (*all_fetched, *all_filtered) = (*all_fetched + fetched, *all_filtered + filtered);
        for (key, count) in got.info["filters"].as_object().into_iter().flatten() {
            *self.reasons.entry(key.clone()).or_default() += count.as_u64().unwrap();
        }
        // A task whose answer is lost waits for another one by itself: its record is passed, and not passed once more.
        let passes_at_once = consumer.route == "binary/active" && fetched > 0;
        if arrives || passes_at_once {
            let put_back = if arrives { 0 } else { fetched };
            consumer.told += fetched + filtered - (waited + put_back - consumer.waiting(world));
        }
        assert_eq!(consumer.told, consumer.passed(world), "{context}: {}", got.info);
        for task in got.events.iter().filter(|task| task["dequeued"].as_str().is_some_and(|id| id.contains("Carver"))) {
            if random.one_in(2) {
                world.post("model=status", &status(task, "completed")).await.unwrap();
            }
        }
    }
}

fn world(random: &mut Rng) -> World {
    let dedupe_bytes = if random.one_in(2) { 1 << 16 } else { 0 };
    let replay = replay::Options { size_bytes: 1 << 20, min_runtime: Duration::ZERO, ..replay::Options::default() };
    World::changed(|options| {
        options.labels = contract_labels();
        options.caches = caches::Options { dedupe_bytes, replay, folder: None };
    })
}

async fn run(seed: u64) -> BTreeMap<String, u64> {
    let mut random = Rng(seed);
    let (world, mut round) = (world(&mut random), Round::default());
    let mut consumers: Vec<_> = (0..CONSUMERS).map(|number| Consumer::random(&mut random, number)).collect();
    for _ in 0..STEPS {
        match random.below(12) {
            0..=3 => round.post(&world, &mut random).await,
            4 => append_odd_records(&world, &mut random),
            5 => round.delete(&world, &mut random).await,
            6 if random.one_in(4) => world.pass_minutes(24 * 60),
            _ => {
                let consumer = &mut consumers[random.below(CONSUMERS)];
                round.get(&world, &mut random, consumer, seed).await;
            }
        }
    }
    for consumer in &mut consumers {
        round.get(&world, &mut random, consumer, seed).await;
    }
    let metrics = &world.dispatcher().metrics;
    for (name, [fetched, filtered]) in round.by_name {
        assert_eq!(metrics.events_fetched.at([name, "binary"]).get(), fetched, "AZULITE_SEED={seed} {name}");
        assert_eq!(metrics.events_filtered.at([name, "binary"]).get(), filtered, "AZULITE_SEED={seed} {name}");
    }
    round.reasons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetched_and_filtered_add_up_to_the_records_that_were_passed() {
    let replayed = environment("AZULITE_SEED");
    let first = replayed.unwrap_or_else(crate::dispatcher::random_u64);
    let rounds = environment("AZULITE_COUNT_ROUNDS").unwrap_or(if replayed.is_some() { 1 } else { ROUNDS });
    let mut reasons = BTreeMap::new();
    for number in 0..rounds {
        let seed = first.wrapping_add(number);
        println!("AZULITE_SEED={seed}");
        for (reason, count) in run(seed).await {
            *reasons.entry(reason).or_insert(0) += count;
        }
    }
    println!("{reasons:#?}");
    assert!(rounds < ROUNDS || reasons.len() >= 10, "the rules hardly dropped anything: {reasons:#?}");
}
