//! Rows of the tables of events.md 1.4 and 5.5 that need the whole hub: what stages count under which key, on which
//! route.

use std::time::Duration;

use serde_json::{Value, json};

use crate::dispatcher::batches::Batches;
use crate::dispatcher::caches;
use crate::dispatcher::labels::tests::contract_labels;
use crate::dispatcher::model::{self, BinaryEvent, Event, JsonText};
use crate::dispatcher::replay;
use crate::dispatcher::world::{START_MS, World, sourced, status};

/// Appends records as another door would.
fn append(world: &World, topic: &str, values: &[Vec<u8>]) {
    let broker = world.dispatcher().broker();
    let topic = broker.log().topic(topic).unwrap();
    let mut batches = Batches::default();
    values.iter().for_each(|value| batches.push(&topic, START_MS, b"k", Some(value)));
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let done = Box::new(move |outcome: Result<_, _>| sender.send(outcome.is_ok()).unwrap());
    broker.log().append(broker.new_lane(), batches.finish(), done);
    assert!(receiver.recv().unwrap());
}

fn avro(change: impl FnOnce(&mut BinaryEvent)) -> Vec<u8> {
    let mut event = BinaryEvent { action: "sourced".into(), kafka_key: "k".into(), ..BinaryEvent::default() };
    event.source.name = "lab".into();
    change(&mut event);
    model::encode_avro(&Event::Binary(Box::new(event)))
}

const SOURCED: &str = "azul.t1.lab.binary.sourced";

async fn filters(world: &World, route: &str, query: &str) -> Value {
    let got = world.get(route, &format!("version=1.2&count=10&deadline=0&r-historic=true&{query}")).await;
    let fetched = usize::try_from(got.info["fetched"].as_u64().unwrap()).unwrap();
    assert_eq!(fetched, got.events.len());
    match got.info.get("filters") {
        Some(filters) => filters.clone(),
        None => json!(fetched),
    }
}

/// The table of stages in 5.5, columns passive and active: a task is stopped by what concerns tasks only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stage_counts_under_its_key_on_the_routes_it_is_on() {
    let replay = replay::Options { size_bytes: 1 << 20, min_runtime: Duration::ZERO, ..replay::Options::default() };
    let world = |dedupe_bytes| {
        World::changed(|options| {
            options.labels = contract_labels();
            options.caches = caches::Options { dedupe_bytes, replay, folder: None };
        })
    };
    let marked = |source: &str, security: &str, nodes: usize| {
        let mut event = sourced('a');
        (event["source"]["name"], event["source"]["security"]) = (json!(source), json!(security));
        event["source"]["path"] = json!(vec![event["source"]["path"][0].clone(); nodes]);
        event
    };
    let one = |key: &str| json!({ key: 1 });
    let table = [
        (marked("short", "", 1), "", one("PipelineAgeoff-ageoff"), one("PipelineAgeoff-ageoff")),
        (marked("lab", "", 11), "", json!(1), one("FilterTooDeep-too_deep")),
        (marked("lab", "", 12), "", one("FilterTooDeep-too_deep"), one("FilterTooDeep-too_deep")),
        (
            marked("lab", "HIGH", 1),
            "max-security=LOW",
            one("FilterSecurity-max_security"),
            one("FilterSecurity-max_security"),
        ),
        (
            marked("lab", "", 1),
            "r-under-content-size=4",
            one("FilterConsumerRules-reject_content_too_large"),
            one("FilterConsumerRules-reject_content_too_large"),
        ),
    ];
    for (event, query, passive, active) in table {
        let world = world(0);
        world.post("model=binary", &json!([event])).await.unwrap();
        world.pass_minutes(3 * 24 * 60);
        for (route, wanted) in [("binary/passive", passive), ("binary/active", active)] {
            let found = filters(&world, route, &format!("name={}&{query}", &route[7..])).await;
            assert_eq!(found, wanted, "{route} {event}");
        }
    }
    // Records of another door: no event, no readable one, and one without a key, which only a task cannot do without.
    let world = world(0);
    let odd = avro(|event| event.entity.info = JsonText::new("[1]"));
    append(&world, SOURCED, &[b"no event".to_vec(), odd, avro(|event| event.kafka_key.clear())]);
    let passive = json!({"AzuliteUnreadable-info_not_object": 1, "AzuliteUnreadable-undecodable": 1});
    assert_eq!(filters(&world, "binary/passive", "name=p").await, passive);
    let mut active = passive;
    active["RaiseDequeuedStatus-error_no_id"] = json!(1);
    assert_eq!(filters(&world, "binary/active", "name=a").await, active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caches_count_under_their_keys_and_replay_is_for_tasks_only() {
    let replay = replay::Options { size_bytes: 1 << 20, min_runtime: Duration::ZERO, ..replay::Options::default() };
    let dedupe_bytes = 1 << 12;
    let world = World::with(caches::Options { dedupe_bytes, replay, folder: None });
    world.put('a').await;
    world.put('a').await;
    let twice = json!({"FilterDuplicates-skipped": 1});
    assert_eq!(filters(&world, "binary/passive", "name=p").await, twice);
    let got = world.get("binary/active", "name=Carver&version=1.2&count=10&deadline=0&r-historic=true").await;
    assert_eq!((got.events.len(), &got.info["filters"]), (1, &twice));
    world.post("model=status", &status(&got.events[0], "completed")).await.unwrap();
    // The same file from somebody else has another key and the same plugin.
    let mut again = sourced('a');
    again["source"]["references"]["user"] = json!("zoe");
    world.post("model=binary", &json!([again])).await.unwrap();
    assert_eq!(
        filters(&world, "binary/passive", "name=Carver&debug=true").await,
        json!(3),
        "no cache for an inspector"
    );
    let cached = json!({"ReplayPluginCompletion-cached": 1});
    assert_eq!(filters(&world, "binary/active", "name=Carver").await, cached);
    append(&world, SOURCED, &[avro(|event| event.kafka_key.clear())]);
    assert_eq!(filters(&world, "binary/passive", "name=p").await["FilterDuplicates-error"], 1);
}

/// 6.6 and the row `FilterPreviouslyDeleted-error`: the event stays away from the reader also when its tombstone cannot
/// be written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_event_is_counted_as_deleted() {
    let world = World::new();
    assert_eq!(filters(&world, "binary/passive", "name=late").await, json!(0));
    let key = "419d55d8a85cf11e3b9bd17486279a68";
    world.put('a').await;
    let order = json!([{"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": {"name": "admin"},
        "action": "ids", "entity": {"reason": "test", "ids": {"ids": [key]}}}]);
    world.post("model=delete", &order).await.unwrap();
    for route in ["binary/passive", "binary/active"] {
        let found = filters(&world, route, &format!("name={}", &route[7..])).await;
        assert_eq!(found, json!({"FilterPreviouslyDeleted-deleted": 1}), "{route}");
    }
    let other = "f".repeat(64);
    let mut event = sourced('b');
    event["source"]["path"][0]["sha256"] = json!(other);
    let stored = world.post("model=binary&include_ok=true", &json!([event])).await.unwrap();
    let mut order = order;
    order[0]["entity"]["ids"]["ids"] = json!([stored["ok"][0]["kafka_key"]]);
    world.post("model=delete", &order).await.unwrap();
    world.stop_writing();
    let both = json!({"FilterPreviouslyDeleted-deleted": 1, "FilterPreviouslyDeleted-error": 1});
    assert_eq!(filters(&world, "binary/passive", "name=late").await, both, "the first one is buried already");
}

/// 1.4, below the table: registration comes before the pause check and before a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_and_resetting_requests_register() {
    let world = World::new();
    world.post("model=binary&pause_plugins=true", &json!([sourced('a')])).await.unwrap();
    assert!(world.get("binary/active", "name=waits&deadline=0&r-historic=true").await.is_paused());
    assert_eq!(world.get("binary/passive", "name=starts&deadline=0&r-historic=true&reset=true").await.ids(), "a");
    let names = world.dispatcher().registry().consumers(world.now_ms());
    let names: Vec<&str> = names.iter().map(|listed| listed.consumer.params.name.as_str()).collect();
    assert_eq!(names, ["starts", "waits"]);
}
