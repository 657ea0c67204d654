use serde_json::json;

use super::super::leases::balances;
use super::super::world::{World, sourced, status};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_refused_at_the_last_step_do_not_count_as_published() {
    let world = World::new();
    let mut large = sourced('b');
    large["entity"]["datastreams"][0]["magic"] = json!("x".repeat(1 << 20));
    let refused = world.post("model=binary", &json!([sourced('a'), large])).await.unwrap_err();
    assert!(matches!(refused, PostError::Publish { stored: 1, total: 2, .. }), "{refused:?}");
    assert_eq!(world.dispatcher().metrics.events_published.at(["amy", "binary"]).get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_that_make_many_megabytes_of_letters_are_stored_in_parts() {
    const EVENTS: usize = 24;
    let world = World::new();
    let events: Vec<_> = (0..EVENTS)
        .map(|number| {
            let mut event = sourced('a');
            event["source"]["references"]["n"] = json!(number.to_string());
            event["entity"]["info"] = json!({"x": "y".repeat(900_000)});
            event
        })
        .collect();
    world.post("model=binary", &json!(events)).await.unwrap();
    let query = "name=Carver&version=1.2&count=100&deadline=0&r-historic=true";
    let mut tasks = Vec::new();
    while tasks.len() < EVENTS {
        tasks.append(&mut world.get("binary/active", query).await.events);
    }
    let statuses = |word: &str| -> Vec<_> { tasks.iter().map(|task| status(task, word)[0].clone()).collect() };
    let decoded = |word: &str| -> Vec<Event> {
        let body = json!(statuses(word)).to_string();
        let elements = model::decode_body_json(Model::Status, body.as_bytes()).unwrap();
        elements.into_iter().map(|element| element.event.unwrap()).collect()
    };
    let lengths = |word| parts(world.dispatcher(), decoded(word)).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths("completed"), [EVENTS], "nothing of them is read");
    assert_eq!(lengths("error-input"), [18, 6]);
    let answer = world.post("model=status&include_ok=true", &json!(statuses("error-input"))).await.unwrap();
    assert_eq!((&answer["total_ok"], answer["ok"].as_array().unwrap().len()), (&json!(EVENTS), EVENTS));
    let [balance] = &balances(world.dispatcher().broker().log().as_ref()).unwrap()[..] else { panic!("one consumer") };
    assert_eq!((balance.dead, balance.leases, balance.holds()), (24, 0, true));
    // Once more, they are about nothing that is open.
    assert_eq!(lengths("error-input"), [EVENTS]);
    world.post("model=status", &json!(statuses("error-input"))).await.unwrap();
}
