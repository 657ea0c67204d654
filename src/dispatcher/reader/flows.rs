//! Expedite, live and historic of one reader beside each other.

use azulite_storage::{Append, BatchBuilder};
use serde_json::{Value, json};

use super::super::plugin_key::TopicSelector;
use super::super::world::{Got, World, sourced};
use super::*;

const BOTH: &str = "name=p&version=1&deadline=0&r-expedite=true&r-live=true&r-historic=true";

/// Events that are told apart by the user of their references.
async fn put(world: &World, users: std::ops::Range<usize>) {
    let event = |user: usize| {
        let mut event = sourced('a');
        event["source"]["references"]["user"] = json!(user.to_string());
        event
    };
    world.post("model=binary", &Value::from_iter(users.map(event))).await.unwrap();
}

fn users(got: &Got) -> Vec<usize> {
    let user = |event: &Value| event["source"]["references"]["user"].as_str().unwrap().parse().unwrap();
    got.events.iter().map(user).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn historic_gets_its_share_although_live_never_ends_and_each_event_comes_once() {
    let world = World::new();
    put(&world, 0..10).await;
    let get = |count: usize| world.get("binary/passive", format!("{BOTH}&count={count}").leak());
    assert_eq!(users(&get(1).await), [0]);
    put(&world, 10..100).await;
    let mut seen = vec![0];
    for _ in 0..42 {
        seen.extend(users(&get(1).await));
    }
    let historic: BTreeMap<usize, usize> = seen.iter().copied().enumerate().filter(|(_, user)| *user < 10).collect();
    assert_eq!(historic, [(0, 0), (21, 1), (42, 2)].into(), "one for twenty");
    // More than one at a time: what is due comes first, and live is never behind more than that.
    assert_eq!(users(&get(40).await), (50..90).collect::<Vec<_>>());
    assert_eq!(users(&get(5).await), [3, 4, 90, 91, 92]);
    seen.extend((50..90).chain([3, 4, 90, 91, 92]));
    let expedited = {
        let mut event = sourced('b');
        event["flags"] = json!({"expedite": true});
        event
    };
    world.post("model=binary", &json!([expedited])).await.unwrap();
    let rest = get(100).await;
    assert!(rest.ids().starts_with("ba"), "expedited ones are before all: {}", rest.ids());
    let rest: Vec<usize> = rest.events.iter().skip(1).map(|event| users(&one(event))[0]).collect();
    assert_eq!(rest, (93..100).chain(5..10).collect::<Vec<_>>());
    seen.extend(rest);
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

fn one(event: &Value) -> Got {
    Got { info: Value::Null, events: vec![event.clone()] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_since_is_read_once_and_costs_no_group_its_whole_record() {
    let world = World::new();
    put(&world, 0..2).await;
    let get = async |world: &World| users(&world.get("binary/passive", &format!("{BOTH}&count=9")).await);
    assert_eq!(get(&world).await, [0, 1]);
    let records = |world: &World| {
        let group = |flow| format!("t1-azul-p-1-binary-allsrc-alltype-ELH-{flow}");
        let log = world.dispatcher().broker().log().clone();
        ["live", "historic"].map(|flow| log.kv(&GroupRecord::key(&group(flow))).unwrap().unwrap())
    };
    let before = records(&world);
    let mut event = sourced('a');
    event["source"]["name"] = json!("elsewhere");
    event["source"]["references"]["user"] = json!("7");
    world.post("model=binary", &json!([event])).await.unwrap();
    assert_eq!(get(&world).await, [7], "once, though live and historic both read it");
    assert_eq!(records(&world), before);
    let world = world.restart();
    assert!(get(&world).await.is_empty());
    event["source"]["references"]["user"] = json!("8");
    world.post("model=binary", &json!([event])).await.unwrap();
    assert_eq!(get(&world).await, [8]);
    assert_eq!(records(&world), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_behind_a_long_run_of_tombstones_come_in_one_answer_read_in_parts() {
    let world = World::new();
    put(&world, 0..1).await;
    let broker = world.dispatcher().broker();
    let partition = broker.log().topic("azul.t1.lab.binary.sourced").unwrap().partitions[0].clone();
    for n in 0..24_u32 {
        let mut batch = BatchBuilder::default();
        let key = vec![u8::try_from(n).unwrap(); 900 << 10];
        batch.push(1, Some(&key), None);
        broker.append(vec![Append { partition: partition.clone(), batch: batch.build().unwrap() }]).await.unwrap();
    }
    put(&world, 1..2).await;
    let context = ReaderContext {
        broker: broker.clone(),
        topic_prefix: "t1".into(),
        group_retention_ms: 86_400_000,
        historic_share: 0,
    };
    let subscription = Subscription {
        flow: Flow::Historic,
        group: "other".into(),
        start: Start::Earliest,
        topics: TopicSelector::One("azul.t1.lab.binary.sourced".into()),
    };
    let reader = Arc::new(Reader::new(context, vec![subscription]));
    let (found, parts) = tokio::task::block_in_place(|| {
        reader.open(world.now_ms(), &User::Passive).unwrap();
        let (mut found, mut parts) = (0, 0);
        loop {
            let (candidates, taken) = reader.take(9, 1 << 20).unwrap();
            if taken.is_empty() {
                break (found, parts);
            }
            (found, parts) = (found + candidates.len(), parts + 1);
            taken.delivered();
        }
    });
    assert_eq!((found, parts), (2, 3));
    let got = world.get("binary/passive", &format!("{BOTH}&count=2")).await;
    assert_eq!(users(&got), [0, 1], "nobody waits for more in between");
}

/// X17.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_is_read_before_what_was_made_of_it() {
    let world = World::new();
    let mut child = sourced('c');
    child["action"] = json!("extracted");
    child["source"]["path"] = json!([sourced('a')["source"]["path"][0], child["source"]["path"][0]]);
    let mut enriched = sourced('a');
    enriched["action"] = json!("enriched");
    enriched["entity"]["datastreams"] = json!([]);
    world.post("model=binary", &json!([enriched, child, sourced('a')])).await.unwrap();
    for (reader, count) in [("one", 1), ("all", 3)] {
        let mut actions = Vec::new();
        for _ in 0..3 / count {
            let query = format!("name={reader}&version=1&count={count}&deadline=0&r-historic=true");
            let events = world.get("binary/passive", &query).await.events;
            actions.extend(events.iter().map(|event| event["action"].as_str().unwrap().to_owned()));
        }
        assert_eq!(actions, ["sourced", "extracted", "enriched"]);
    }
}
