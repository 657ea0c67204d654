//! The life of a task: handed out, heard of, closed, lost.

use serde_json::{Value, json};

use super::super::world::{World, status};
use super::*;

const ACTIVE: &str = "binary/active";
const CARVER: &str = "name=Carver&version=1.2&count=10&deadline=0&r-historic=true";

fn open(world: &World) -> Vec<OpenTask> {
    let log = world.dispatcher().broker().log();
    // Whatever was queued before is there then.
    log.put_kv(vec![(b"x".to_vec(), None)]).unwrap();
    let mut tasks = Vec::new();
    each(log.as_ref(), "", |task| {
        tasks.push(task);
        true
    })
    .unwrap();
    tasks
}

async fn look(world: &World) -> Looked {
    let silent_since_ms = Some(world.now_ms() - world.dispatcher().options.lost_after_ms);
    let ends = Ends { silent_since_ms, name: None };
    world.dispatcher().look_for_lost_tasks(&ends, world.now_ms()).await.unwrap()
}

async fn one_task(world: &World) -> Value {
    world.put('a').await;
    let got = world.get(ACTIVE, CARVER).await;
    got.events[0].clone()
}

fn counted(world: &World, origin: &str) -> u64 {
    world.dispatcher().metrics.tracking_control.at([origin]).get()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_open_until_a_closing_status_is_stored() {
    let mut world = World::new();
    let task = one_task(&world).await;
    world = world.restart();
    let tasks = open(&world);
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].id, task["dequeued"].as_str().unwrap());
    assert_eq!((tasks[0].name.as_str(), tasks[0].version.as_str()), ("Carver", "1.2"));
    assert_eq!(tasks[0].sha256, "a".repeat(64));
    world.post("model=status", &status(&task, "heartbeat")).await.unwrap();
    assert_eq!(open(&world).len(), 1);
    world.post("model=status", &status(&task, "opt-out")).await.unwrap();
    assert_eq!(open(&world), []);
    assert_eq!(counted(&world, "finished-0"), 1);
    world.pass_minutes(24 * 60);
    assert_eq!(look(&world).await, Looked { open: 0, ended: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passive_reads_and_other_models_open_nothing() {
    let world = World::new();
    world.put('a').await;
    assert_eq!(world.get("binary/passive", CARVER).await.ids(), "a");
    world.post("model=status", &status(&one_task(&world).await, "completed")).await.unwrap();
    assert_eq!(world.get("status/active", CARVER).await.events.len(), 1);
    assert_eq!(open(&world), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_opens_nothing() {
    let world = World::new();
    world.put('a').await;
    assert_eq!(world.get_and(ACTIVE, CARVER, false).await.ids(), "a");
    assert_eq!(open(&world), []);
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "a", "the event comes again");
    assert_eq!(open(&world).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_task_gets_the_status_its_consumer_would_have_sent() {
    let world = World::new();
    let task = one_task(&world).await;
    world.pass_minutes(29);
    assert_eq!(look(&world).await, Looked { open: 1, ended: 0 });
    world.pass_minutes(1);
    assert_eq!(look(&world).await, Looked { open: 0, ended: 1 });
    assert_eq!(look(&world).await, Looked { open: 0, ended: 0 });
    let statuses = world.statuses("s").await;
    let [lost] = &statuses[..] else { panic!("got {statuses:?}") };
    assert_eq!(lost["author"], json!({"name": "Carver", "version": "1.2", "category": "plugin"}));
    assert_eq!(lost["entity"]["status"], "error-network");
    assert_eq!(lost["entity"]["error"], format!("lost task: {}", task["dequeued"].as_str().unwrap()));
    let input = &lost["entity"]["input"];
    assert_eq!(input["dequeued"], task["dequeued"]);
    assert_eq!(input["kafka_key"], task["kafka_key"]);
    assert!(input["entity"].get("datastreams").is_none() && input["entity"].get("features").is_none(), "{input}");
    assert_eq!((counted(&world, "started"), counted(&world, "lost")), (1, 1));
    // The plugin's own status, had it come, would have had the same key.
    world.post("model=status", &status(&task, "completed")).await.unwrap();
    let own = &world.statuses("s").await[0];
    assert_eq!(own["kafka_key"], lost["kafka_key"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_a_task_open_for_as_long_as_they_come() {
    let world = World::new();
    let task = one_task(&world).await;
    for _ in 0..6 {
        world.pass_minutes(20);
        world.post("model=status", &status(&task, "heartbeat")).await.unwrap();
        open(&world);
        assert_eq!(look(&world).await, Looked { open: 1, ended: 0 });
    }
    world.pass_minutes(30);
    assert_eq!(look(&world).await, Looked { open: 0, ended: 1 });
    world.post("model=status", &status(&task, "heartbeat")).await.unwrap();
    assert_eq!(open(&world), [], "a late heartbeat does not bring it back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_is_too_old_to_be_stored_closes_its_task() {
    let world = World::new();
    let mut event = super::super::world::sourced('a');
    event["source"]["name"] = json!("short");
    world.post("model=binary", &json!([event])).await.unwrap();
    let task = world.get(ACTIVE, CARVER).await.events[0].clone();
    assert_eq!(open(&world).len(), 1);
    world.pass_minutes(3 * 24 * 60);
    world.post("model=status", &status(&task, "completed")).await.unwrap_err();
    assert_eq!(open(&world), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_is_too_large_closes_nothing() {
    let world = World::new();
    let task = one_task(&world).await;
    let mut large = status(&task, "error-exception");
    large[0]["entity"]["message"] = json!("x".repeat(2 << 20));
    world.post("model=status", &large).await.unwrap_err();
    assert_eq!(open(&world).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_are_nobodys_close_nothing_and_cost_nothing() {
    let world = World::new();
    let mut task = one_task(&world).await;
    for id in ["x".to_owned(), "y".repeat(200_000)] {
        task["dequeued"] = json!(id);
        world.post("model=status", &status(&task, "heartbeat")).await.unwrap();
        world.post("model=status", &status(&task, "completed")).await.unwrap();
    }
    assert_eq!(open(&world).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_tasks_than_a_page_are_all_found() {
    let world = World::new();
    let events: Vec<Value> = (0..700)
        .map(|n| {
            let mut event = super::super::world::sourced('a');
            event["source"]["references"]["n"] = json!(n.to_string());
            event
        })
        .collect();
    world.post("model=binary", &json!(events)).await.unwrap();
    let query = CARVER.replace("count=10", "count=1000");
    assert_eq!(world.get(ACTIVE, &query).await.events.len(), 700);
    assert_eq!(world.get(ACTIVE, &query.replace("Carver", "Other").replace("=1000", "=5")).await.events.len(), 5);
    assert_eq!(look(&world).await, Looked { open: 705, ended: 0 });
    let ends = Ends { silent_since_ms: None, name: Some("Carver".into()) };
    let looked = world.dispatcher().look_for_lost_tasks(&ends, world.now_ms()).await.unwrap();
    assert_eq!(looked, Looked { open: 5, ended: 700 });
    assert_eq!(open(&world).len(), 5);
}
