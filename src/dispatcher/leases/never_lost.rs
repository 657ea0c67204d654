//! What could get lost or stuck: changes that are given up, records that go while their events wait, clocks that are set
//! back, requests with other filters.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::super::world::{MINUTE_MS, World, sourced, status};
use super::rows::lease_key;
use super::tests::{check, counted, dead, fail, of, one_task};
use super::*;
use azulite_storage::ids::TopicPartition;

const ACTIVE: &str = "binary/active";
const CARVER: &str = "name=Carver&version=1.2&count=10&deadline=0&r-historic=true";
const ALL: &str = "name=Carver&version=1.2&count=10&deadline=0&r-historic=true&r-live=true&r-expedite=true";
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// An event that failed once and is due again.
async fn due_again(world: &World) -> Value {
    let task = one_task(world).await;
    fail(world, &task, "error-network").await;
    world.pass_minutes(2);
    task
}

/// Every record of a topic ages off.
fn age_off(world: &World, topic: &str) {
    let name = TopicPartition { topic: topic.to_owned(), partition: 0 };
    let gone = tokio::task::block_in_place(|| world.dispatcher().broker().log().delete_records(&[(name, None)]));
    assert!(gone.iter().all(Result::is_ok), "{gone:?}");
}

/// A topic and all its records go.
fn delete_topic(world: &World, topic: &str) {
    tokio::task::block_in_place(|| world.dispatcher().broker().log().delete_topic(topic)).unwrap();
}

fn letter(world: &World, task: &Value) -> super::super::dead::DeadLetter {
    let key = task["kafka_key"].as_str().unwrap();
    let id = super::super::dead::id_of(key, "Carver", "1.2", "");
    world.dispatcher().dead().letter(&id).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_aged_off_status_changes_counts_only_once_it_is_stored() {
    let world = World::new();
    let mut event = sourced('a');
    event["source"]["name"] = json!("short");
    world.post("model=binary", &json!([event])).await.unwrap();
    let task = world.get(ACTIVE, CARVER).await.events[0].clone();
    world.pass_minutes(3 * 24 * 60);
    world.stop_writing();
    world.post("model=status", &status(&task, "completed")).await.unwrap_err();
    assert_eq!(counted(&world, "finished-0"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_given_up_hides_no_event_and_no_lease() {
    let world = World::new();
    due_again(&world).await;
    let (leases, log) = (world.dispatcher().leases(), world.dispatcher().broker().log().as_ref());
    let take = || leases.take_due(log, ("Carver", "1.2", 1), world.now_ms(), 10).unwrap().0;
    let [row] = &take()[..] else { panic!("one is due") };
    let mut edit = leases.edit(log, true);
    edit.remove(row.key.clone());
    let plan = edit.finish();
    // Somebody looks while it is about to go.
    assert_eq!(take(), []);
    drop(plan);
    let task = world.get(ACTIVE, CARVER).await.events[0].clone();

    let mut edit = leases.edit(log, false);
    edit.remove(lease_key(task["dequeued"].as_str().unwrap()));
    let plan = edit.finish();
    let ends = Ends { by_ms: Some(world.now_ms()), name: None };
    let looked = world.dispatcher().look_for_lost_tasks(&ends, world.now_ms()).await.unwrap();
    assert_eq!(looked, Looked { open: 0, ended: 0 });
    drop(plan);
    assert!(leases.next_end_ms() <= world.now_ms() + 30 * MINUTE_MS, "{}", leases.next_end_ms());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expedited_event_outlives_its_record() {
    for flag in ["expedite", "retry"] {
        let mut world = World::new();
        assert_eq!(world.get(ACTIVE, ALL).await.ids(), "");
        let mut event = sourced('a');
        event["flags"] = json!({ flag: true });
        world.post("model=binary", &json!([event])).await.unwrap();
        let task = world.get(ACTIVE, ALL).await.events[0].clone();
        // Two weeks without power, and the record's time is over.
        world.clock.fetch_add(14 * DAY_MS, Ordering::SeqCst);
        world = world.restart();
        age_off(&world, &format!("azul.t1.system.{}", if flag == "retry" { "error" } else { "expedite" }));
        let ends = Ends { by_ms: Some(world.now_ms()), name: None };
        let looked = world.dispatcher().look_for_lost_tasks(&ends, world.now_ms()).await.unwrap();
        assert_eq!(looked, Looked { open: 0, ended: 1 });
        for run in 1..4 {
            world.pass_minutes(2);
            let got = world.get(ACTIVE, ALL).await;
            assert_eq!(got.ids(), "a", "{flag}: run {run}");
            assert_eq!(got.events[0]["entity"], task["entity"], "it is whole");
            assert_eq!(got.events[0]["flags"], task["flags"]);
            fail(&world, &got.events[0], "error-exception").await;
        }
        assert_eq!((dead(&world).await, of(&check(&world), "Carver")), (1, [1, 0, 1, 0, 0, 0]));
        assert_eq!(letter(&world, &task).event.entity.datastreams.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_record_has_gone_is_a_dead_letter_unless_its_source_or_a_person_wanted_it_gone() {
    let world = World::new();
    let task = due_again(&world).await;
    delete_topic(&world, "azul.t1.lab.binary.sourced");
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "");
    assert_eq!((dead(&world).await, of(&check(&world), "Carver")), (1, [1, 0, 1, 0, 0, 0]));
    let letter = letter(&world, &task);
    assert_eq!((letter.status(), letter.reason()), ("error-input", "its record has gone from its topic"));
    assert_eq!((letter.attempts.len(), letter.sha256()), (2, task["entity"]["sha256"].as_str().unwrap()));

    let mut event = sourced('b');
    event["source"]["name"] = json!("short");
    world.post("model=binary", &json!([event])).await.unwrap();
    let task = world.get(ACTIVE, CARVER).await.events[0].clone();
    fail(&world, &task, "error-network").await;
    world.clock.fetch_add(3 * DAY_MS, Ordering::SeqCst);
    delete_topic(&world, "azul.t1.short.binary.sourced");
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "");
    assert_eq!((dead(&world).await, of(&check(&world), "Carver")), (1, [2, 0, 1, 1, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_run_again_is_no_duplicate_when_it_is_published_again() {
    let world = World::changed(|options| options.caches.dedupe_bytes = 1 << 16);
    let task = due_again(&world).await;
    // All of that author until a second after the event.
    let order = json!([{"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": {"name": "admin"},
        "action": "author", "entity": {"author": {"track_author": "user.amy.", "timestamp": "2026-01-02T03:04:07Z"}}}]);
    world.post("model=delete", &order).await.unwrap();
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "");
    assert_eq!(of(&check(&world), "Carver"), [1, 0, 0, 1, 0, 0]);
    let mut event = sourced('a');
    for place in ["/timestamp", "/source/path/0/timestamp"] {
        *event.pointer_mut(place).unwrap() = json!("2026-01-02T03:04:08Z");
    }
    world.post("model=binary", &json!([event])).await.unwrap();
    let got = world.get(ACTIVE, CARVER).await;
    assert_eq!(got.ids(), "a", "{}", got.info);
    assert_eq!(got.events[0]["kafka_key"], task["kafka_key"], "the same event");

    // And when its record has gone.
    fail(&world, &got.events[0], "error-network").await;
    world.pass_minutes(2);
    delete_topic(&world, "azul.t1.lab.binary.sourced");
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "");
    world.post("model=binary", &json!([event])).await.unwrap();
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_republished_event_is_skipped_as_long_as_the_first_one_is_still_to_be_run() {
    let world = World::changed(|options| options.caches.dedupe_bytes = 1 << 16);
    let task = one_task(&world).await;
    fail(&world, &task, "error-network").await;
    world.put('a').await;
    let got = world.get(ACTIVE, CARVER).await;
    assert_eq!((got.ids().as_str(), &got.info["filters"]), ("", &json!({"FilterDuplicates-skipped": 1})));
    world.pass_minutes(2);
    assert_eq!(world.get(ACTIVE, CARVER).await.events[0]["retries"], 1);
    assert_eq!(of(&check(&world), "Carver"), [1, 0, 0, 0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_filters_of_one_instance_keep_back_is_at_once_for_the_others_of_its_key() {
    let world = World::new();
    due_again(&world).await;
    let (large, without) = (format!("{CARVER}&r-over-content-size=100"), format!("{CARVER}&r-under-content-size=4"));
    for query in [&large, &large, &large] {
        assert_eq!(world.get(ACTIVE, query).await.ids(), "");
    }
    assert_eq!(of(&check(&world), "Carver"), [1, 0, 0, 0, 0, 1]);
    let task = world.get(ACTIVE, CARVER).await.events[0].clone();
    fail(&world, &task, "error-network").await;
    world.pass_minutes(2);
    // Two of them that do not want it end it in time, and it says why.
    for _ in 0..4 {
        for query in [&large, &without] {
            assert_eq!(world.get(ACTIVE, query).await.ids(), "");
        }
        world.pass_minutes(2);
    }
    assert_eq!((dead(&world).await, of(&check(&world), "Carver")), (1, [1, 0, 1, 0, 0, 0]));
    let letter = letter(&world, &task);
    assert_eq!(letter.status(), "filtered");
    assert!(letter.reason().starts_with("FilterConsumerRules-reject_content_too_"), "{}", letter.reason());
    // Of a queue the request that meets an event counts it.
    world.put('b').await;
    let got = world.get(ACTIVE, &large).await;
    assert_eq!(got.info["filters"], json!({"FilterConsumerRules-reject_content_too_small": 1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_due_in_another_year_is_due_now() {
    for restarts in [false, true] {
        let mut world = World::new();
        for letter in ['a', 'b', 'c'] {
            world.put(letter).await;
        }
        let tasks = world.get(ACTIVE, CARVER).await.events;
        fail(&world, &tasks[0], "error-network").await;
        // Written down under a clock that was wrong.
        world.clock.fetch_sub(365 * DAY_MS, Ordering::SeqCst);
        if restarts {
            world = world.restart();
        }
        let got = world.get(ACTIVE, CARVER).await;
        assert_eq!(got.ids(), "a", "after a restart: {restarts}");
        world.clock.fetch_add(365 * DAY_MS, Ordering::SeqCst);
        fail(&world, &got.events[0], "error-network").await;
        world.clock.fetch_sub(365 * DAY_MS, Ordering::SeqCst);
        // Beside one that waits as it should it comes with the next look.
        fail(&world, &tasks[1], "error-network").await;
        world.pass_minutes(2);
        assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "ba");
        // And what waits as long as it may does so.
        fail(&world, &tasks[2], "error-network").await;
        world.clock.fetch_sub(50 * MINUTE_MS, Ordering::SeqCst);
        assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "");
        world.pass_minutes(52);
        assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "c");
        check(&world);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_from_another_year_lasts_no_longer_than_any() {
    let world = World::new();
    one_task(&world).await;
    world.clock.fetch_sub(365 * DAY_MS, Ordering::SeqCst);
    for (minutes, ended) in [(0, 0), (29, 0), (2, 1)] {
        world.pass_minutes(minutes);
        let ends = Ends { by_ms: Some(world.now_ms()), name: None };
        let looked = world.dispatcher().look_for_lost_tasks(&ends, world.now_ms()).await.unwrap();
        assert_eq!(looked.ended, ended, "after {minutes} more minutes");
    }
    check(&world);
}
