//! Expedite, live and historic of one reader beside each other.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::world::{Got, World, sourced};

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
