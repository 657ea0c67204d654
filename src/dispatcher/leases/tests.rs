//! The life of a lease: handed out, heard of, closed, lost, tried again, dead.

use serde_json::{Value, json};

use super::super::dead;
use super::super::world::{MINUTE_MS, World, status};
use super::*;

const ACTIVE: &str = "binary/active";
const CARVER: &str = "name=Carver&version=1.2&count=10&deadline=0&r-historic=true";

fn open(world: &World) -> Vec<Lease> {
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
    let ends = Ends { by_ms: Some(world.now_ms()), name: None };
    world.dispatcher().look_for_lost_tasks(&ends, world.now_ms()).await.unwrap()
}

pub(super) async fn one_task(world: &World) -> Value {
    world.put('a').await;
    let got = world.get(ACTIVE, CARVER).await;
    got.events[0].clone()
}

pub(super) fn counted(world: &World, origin: &str) -> u64 {
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
    assert_eq!((tasks[0].work.name.as_str(), tasks[0].work.version.as_str()), ("Carver", "1.2"));
    assert_eq!(tasks[0].work.sha256, "a".repeat(64));
    world.post("model=status", &status(&task, "heartbeat")).await.unwrap();
    assert_eq!(open(&world).len(), 1);
    world.post("model=status", &status(&task, "opt-out")).await.unwrap();
    assert_eq!(open(&world), []);
    assert_eq!(counted(&world, "finished-0"), 1);
    world.pass_minutes(24 * 60);
    assert_eq!(look(&world).await, Looked { open: 0, ended: 0 });
}

fn standing(world: &World) -> Standing {
    let mut all = world.dispatcher().leases().standings(world.now_ms());
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_known_what_the_runs_of_any_consumer_came_to() {
    let world = World::new();
    for letter in ['a', 'b', 'c'] {
        world.put(letter).await;
    }
    let got = world.get(ACTIVE, CARVER).await;
    assert_eq!((got.events.len(), standing(&world).balance.leases), (3, 3));
    world.pass_minutes(2);
    for (task, word) in got.events.iter().zip(["completed-empty", "opt-out", "error-timeout"]) {
        world.post("model=status", &status(task, word)).await.unwrap();
    }
    let Standing { balance, lately } = standing(&world);
    assert!(balance.holds(), "{balance:?}");
    assert_eq!((balance.leases, balance.waiting, balance.finished), (0, 1, 2));
    let ended: Vec<_> = lately.ended.iter().map(|(word, count)| (word.as_str(), *count)).collect();
    assert_eq!(ended, [("completed-empty", 1), ("error-timeout", 1), ("opt-out", 1)]);
    assert_eq!((lately.median_s, lately.mean_s, lately.retried), (Some(120.0), Some(120.0), 0));
    assert_eq!(lately.rate, 3.0 / 120.0);
    let error = lately.last_error.unwrap();
    assert_eq!((error.status.as_str(), error.sha256.as_str()), ("error-timeout", "c".repeat(64).as_str()));
    // What nobody has said is no sign of life.
    let heard_ms = lately.heard_ms.unwrap();
    world.pass_minutes(5);
    assert_eq!(world.get(ACTIVE, CARVER).await.events.len(), 1);
    world.pass_minutes(60);
    assert_eq!(look(&world).await, Looked { open: 0, ended: 1 });
    let Standing { lately, .. } = standing(&world);
    assert_eq!((lately.heard_ms, lately.retried), (Some(heard_ms), 1));
    assert!(lately.last_error.unwrap().error.starts_with("lost task: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_consumer_that_is_gone_ends_as_dead_letters_and_the_account_holds() {
    let world = World::new();
    for letter in ['a', 'b', 'c'] {
        world.put(letter).await;
    }
    let got = world.get(ACTIVE, CARVER).await;
    for (task, word) in got.events.iter().zip(["error-network", "error-timeout", "error-input"]) {
        world.post("model=status", &status(task, word)).await.unwrap();
    }
    let dispatcher = world.dispatcher().clone();
    let now_ms = world.now_ms();
    // One of them was put back by a person meanwhile, and nobody has got it.
    let (heads, _) = dispatcher.dead().page(&dead::Filter::default(), None, 10).unwrap();
    assert_eq!(heads.len(), 1);
    let letter = dispatcher.dead().letter(&heads[0].id).unwrap().unwrap();
    let values = dispatcher.leases().requeue(&letter.event, "Carver", "1.2", "", now_ms, false);
    dispatcher.broker().log().put_kv(values).unwrap();
    let bury = |most| {
        let dispatcher = dispatcher.clone();
        let work = move || dispatcher.bury_waiting(("Carver", "1.2"), "nobody runs it", now_ms, most).unwrap();
        tokio::task::spawn_blocking(work)
    };
    let first = bury(1).await.unwrap();
    assert_eq!(first, Buried { buried: 0, given_up: 1 }, "what was put back comes first");
    assert_eq!(bury(1000).await.unwrap(), Buried { buried: 2, given_up: 0 });
    assert_eq!(bury(1000).await.unwrap(), Buried::default(), "it is safe to ask again");
    let Standing { balance, .. } = standing(&world);
    assert!(balance.holds(), "{balance:?}");
    assert_eq!((balance.dead, balance.deleted, balance.waiting), (3, 1, 0));
    assert_eq!(balances(dispatcher.broker().log().as_ref()).unwrap(), [balance]);
    let (heads, _) = dispatcher.dead().page(&dead::Filter::default(), None, 10).unwrap();
    let mut words: Vec<_> = heads.iter().map(|head| (head.status.as_str(), head.attempts)).collect();
    words.sort_unstable();
    assert_eq!(words, [("abandoned", 2), ("abandoned", 2), ("error-input", 1)]);
    world.pass_minutes(60);
    assert!(world.get(ACTIVE, CARVER).await.events.is_empty());
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
    let got = world.get(ACTIVE, CARVER).await;
    assert_eq!(got.ids(), "a", "the event comes again");
    assert_eq!(got.events[0].get("retries"), None, "nothing was tried");
    assert_eq!(open(&world).len(), 1);
    check(&world);
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
async fn a_part_of_a_plugin_ends_no_task_unless_it_was_killed() {
    let world = World::new();
    let task = one_task(&world).await;
    let of_part = |task: &Value, word: &str| {
        let mut statuses = status(task, word);
        statuses[0]["author"]["name"] = json!("Carver-strings");
        statuses
    };
    for word in ["heartbeat", "completed", "error-exception", "error-output", "opt-out"] {
        world.pass_minutes(20);
        world.post("model=status", &of_part(&task, word)).await.unwrap();
        assert_eq!(
            (open(&world).len(), look(&world).await),
            (1, Looked { open: 1, ended: 0 }),
            "{word} is a sign of life"
        );
    }
    world.post("model=status", &of_part(&task, "error-timeout")).await.unwrap();
    assert_eq!(open(&world), [], "its plugin was killed with it");
    world.post("model=status", &of_part(&task, "completed")).await.unwrap();
    world.pass_minutes(2);
    look(&world).await;
    let again = world.get(ACTIVE, CARVER).await.events[0].clone();
    assert_eq!(again["retries"], 1, "what a part says late is not how the event ended either");
    world.post("model=status", &status(&again, "completed")).await.unwrap();
    assert_eq!(open(&world), []);
    check(&world);
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
    let ends = Ends { by_ms: None, name: Some("Carver".into()) };
    let looked = world.dispatcher().look_for_lost_tasks(&ends, world.now_ms()).await.unwrap();
    assert_eq!(looked, Looked { open: 5, ended: 700 });
    assert_eq!(open(&world).len(), 5);
    check(&world);
    world.pass_minutes(2);
    let mut again = 0;
    while again < 700 {
        // A request may be over its time before it has all of them.
        let more = world.get(ACTIVE, &query).await.events.len();
        assert!(more > 0, "all of them are run again, not {again}");
        again += more;
    }
    assert_eq!(again, 700);
    check(&world);
}

/// The ledger holds, and is what is counted in memory.
pub(super) fn check(world: &World) -> Vec<Balance> {
    open(world);
    let leases = world.dispatcher().leases();
    let balances = balances(world.dispatcher().broker().log().as_ref()).unwrap();
    for balance in &balances {
        assert!(balance.holds(), "{balance:?}");
    }
    for ((name, version), taken, ended) in leases.counts() {
        let balance = balances.iter().find(|balance| (&balance.name, &balance.version) == (&name, &version));
        let Some(balance) = balance else { continue };
        assert_eq!((balance.taken_in, balance.deleted), (taken.taken_in, taken.deleted), "{name}");
        assert_eq!((balance.finished, balance.dead), (ended.finished, ended.dead), "{name}");
    }
    balances
}

pub(super) fn of(balances: &[Balance], name: &str) -> [u64; 6] {
    let balance = balances.iter().find(|balance| balance.name == name).cloned().unwrap_or_default();
    let Balance { taken_in, finished, dead, deleted, leases, waiting, .. } = balance;
    [taken_in, finished, dead, deleted, leases, waiting]
}

pub(super) async fn dead(world: &World) -> usize {
    let topic = world.dispatcher().broker().log().topic(&world.dispatcher().dead_topic());
    topic.map_or(0, |topic| topic.partitions.iter().map(|p| usize::try_from(p.offsets().high_watermark).unwrap()).sum())
}

pub(super) async fn fail(world: &World, task: &Value, word: &str) {
    world.post("model=status", &status(task, word)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_always_fails_is_run_four_times_a_minute_apart_and_is_a_dead_letter_then() {
    let mut world = World::new();
    world.put('a').await;
    let mut ids = Vec::new();
    for run in 0..4 {
        let got = world.get(ACTIVE, CARVER).await;
        assert_eq!(got.ids(), "a", "run {run}");
        let task = &got.events[0];
        assert_eq!(task.get("retries").and_then(Value::as_u64).unwrap_or(0), run);
        assert_eq!(task["entity"]["datastreams"][0]["label"], "content", "it is whole");
        ids.push(task["dequeued"].as_str().unwrap().to_owned());
        fail(&world, task, "error-exception").await;
        check(&world);
        assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "", "not at once");
        world = world.restart();
        check(&world);
        world.clock.fetch_add(67_000, std::sync::atomic::Ordering::SeqCst);
    }
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "");
    assert_eq!(dead(&world).await, 1);
    assert_eq!(of(&check(&world), "Carver"), [1, 0, 1, 0, 0, 0]);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each run has an id of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_input_is_a_dead_letter_at_once_and_success_counts_from_the_start_again() {
    let world = World::new();
    let task = one_task(&world).await;
    fail(&world, &task, "error-input").await;
    assert_eq!((dead(&world).await, of(&check(&world), "Carver")), (1, [1, 0, 1, 0, 0, 0]));
    world.put('b').await;
    for word in ["error-timeout", "error-timeout", "error-timeout", "completed-empty"] {
        let task = world.get(ACTIVE, CARVER).await.events[0].clone();
        fail(&world, &task, word).await;
        world.pass_minutes(2);
    }
    assert_eq!((dead(&world).await, of(&check(&world), "Carver")), (1, [2, 1, 1, 0, 0, 0]));
    // The same event once more: nothing is left of what failed.
    world.put('b').await;
    for retries in 0..2 {
        let task = world.get(ACTIVE, CARVER).await.events[0].clone();
        assert_eq!(task.get("retries").and_then(Value::as_u64).unwrap_or(0), retries);
        fail(&world, &task, "error-timeout").await;
        world.pass_minutes(2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_consumers_of_one_event_are_counted_apart() {
    let world = World::new();
    world.put('a').await;
    let other = CARVER.replace("Carver", "Other");
    let (one, two) =
        (world.get(ACTIVE, CARVER).await.events[0].clone(), world.get(ACTIVE, &other).await.events[0].clone());
    fail(&world, &one, "error-runner").await;
    fail(&world, &two, "completed").await;
    world.pass_minutes(2);
    assert_eq!(world.get(ACTIVE, &other).await.ids(), "");
    assert_eq!(world.get(ACTIVE, &CARVER.replace("1.2", "1.3")).await.events[0].get("retries"), None);
    assert_eq!(world.get(ACTIVE, CARVER).await.events[0]["retries"], 1);
    let balances = check(&world);
    assert_eq!(of(&balances, "Other"), [1, 1, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_task_is_handed_out_again_and_the_first_word_about_it_counts() {
    let world = World::new();
    let first = one_task(&world).await;
    world.pass_minutes(30);
    assert_eq!(look(&world).await.ended, 1);
    world.pass_minutes(2);
    let second = world.get(ACTIVE, CARVER).await.events[0].clone();
    assert_eq!(second["retries"], 1);
    // A late failure is counted already; a late success is one.
    fail(&world, &first, "error-exception").await;
    assert_eq!(of(&check(&world), "Carver"), [1, 0, 0, 0, 1, 0]);
    fail(&world, &first, "completed").await;
    assert_eq!(of(&check(&world), "Carver"), [1, 1, 0, 0, 0, 0]);
    fail(&world, &second, "error-input").await;
    fail(&world, &first, "completed").await;
    assert_eq!((dead(&world).await, of(&check(&world), "Carver")), (0, [1, 1, 0, 0, 0, 0]));
    world.pass_minutes(60);
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_success_takes_an_event_out_of_those_that_wait() {
    let world = World::new();
    let first = one_task(&world).await;
    world.pass_minutes(30);
    look(&world).await;
    fail(&world, &first, "opt-out").await;
    world.pass_minutes(60);
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "");
    assert_eq!(of(&check(&world), "Carver"), [1, 1, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_an_end_that_no_heartbeat_moves() {
    let world = World::changed(|options| options.policies.common.lease_max_ms = 60 * MINUTE_MS);
    let task = one_task(&world).await;
    for minutes in [20, 20] {
        world.pass_minutes(minutes);
        fail(&world, &task, "heartbeat").await;
        open(&world);
        assert_eq!(look(&world).await.ended, 0);
    }
    assert_eq!(open(&world)[0].until_ms, open(&world)[0].since_ms + 60 * MINUTE_MS);
    world.pass_minutes(20);
    assert_eq!(look(&world).await.ended, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_key_in_one_second_have_leases_of_their_own() {
    let world = World::new();
    world.put('a').await;
    world.put('a').await;
    let got = world.get(ACTIVE, CARVER).await;
    let ids: std::collections::BTreeSet<_> = got.events.iter().map(|event| event["dequeued"].to_string()).collect();
    assert_eq!((ids.len(), open(&world).len()), (2, 2));
    let again = world.get(ACTIVE, &format!("{CARVER}&reset=true")).await;
    assert!(again.events.iter().all(|event| !ids.contains(&event["dequeued"].to_string())));
    for task in got.events.iter().chain(&again.events) {
        fail(&world, task, "completed").await;
    }
    assert_eq!(of(&check(&world), "Carver"), [4, 4, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_back_comes_again_at_once_and_was_not_tried() {
    let world = World::new();
    let task = one_task(&world).await;
    let id = task["dequeued"].as_str().unwrap();
    let released = tokio::task::block_in_place(|| world.dispatcher().release(&[id, "nobody's"]).unwrap());
    assert_eq!(released, Released { released: 1, missing: 1 });
    let again = world.get(ACTIVE, CARVER).await.events[0].clone();
    assert_eq!(again.get("retries"), None);
    assert_ne!(again["dequeued"], task["dequeued"]);
    assert_eq!(of(&check(&world), "Carver"), [1, 0, 0, 0, 1, 0]);
    fail(&world, &task, "completed").await;
    assert_eq!(of(&check(&world), "Carver"), [1, 1, 0, 0, 0, 0], "done is done, whoever gave it up");
    fail(&world, &again, "completed").await;
    assert_eq!(of(&check(&world), "Carver"), [1, 1, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_ended_two_runs_of_the_process_has_no_third() {
    let mut world = World::new();
    world.put('a').await;
    for run in 0..2 {
        let got = world.get_in_process(ACTIVE, CARVER).await;
        assert_eq!(got.events[0].get("retries").and_then(Value::as_u64).unwrap_or(0), run);
        world = world.restart();
        assert_eq!(look(&world).await, Looked { open: 0, ended: 1 });
        check(&world);
        world.pass_minutes(2);
    }
    assert_eq!(world.get(ACTIVE, CARVER).await.ids(), "");
    assert_eq!((dead(&world).await, of(&check(&world), "Carver")), (1, [1, 0, 1, 0, 0, 0]));
    // One that ends in good order costs nothing.
    world.put('b').await;
    for _ in 0..5 {
        let got = world.get_in_process(ACTIVE, CARVER).await;
        assert_eq!(got.events[0].get("retries"), None);
        tokio::task::block_in_place(|| world.dispatcher().release_own());
        world = world.restart();
        assert_eq!(look(&world).await.ended, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_flagged_for_a_retry_reach_every_consumer_that_matches() {
    let world = World::new();
    let queries = [CARVER.to_owned(), CARVER.replace("Carver", "Other"), format!("{CARVER}&r-source=short")];
    for query in &queries {
        assert_eq!(world.get(ACTIVE, query).await.info["ready"], true);
    }
    let mut event = super::super::world::sourced('a');
    event["flags"] = json!({"retry": true});
    world.post("model=binary", &json!([event])).await.unwrap();
    let passive = world.get("binary/passive", &CARVER.replace("Carver", "p")).await;
    assert_eq!(passive.ids(), "", "its group is new");
    for (query, ids) in queries.iter().zip(["a", "a", ""]) {
        assert_eq!(world.get(ACTIVE, query).await.ids(), ids);
    }
    assert_eq!(open(&world).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_comes_behind_expedited_events_and_before_new_ones() {
    let world = World::new();
    let query = "name=Carver&version=1.2&count=1&deadline=0&r-historic=true&r-live=true&r-expedite=true";
    world.put('a').await;
    let task = world.get(ACTIVE, query).await.events[0].clone();
    fail(&world, &task, "error-network").await;
    world.pass_minutes(2);
    world.put('b').await;
    let mut urgent = super::super::world::sourced('c');
    urgent["flags"] = json!({"expedite": true});
    world.post("model=binary", &json!([urgent])).await.unwrap();
    for letter in ["c", "a", "b"] {
        assert_eq!(world.get(ACTIVE, query).await.ids(), letter);
    }
    check(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_while_it_waits_is_deleted_and_what_is_filtered_waits_and_is_a_dead_letter_in_the_end() {
    let world = World::new();
    let task = one_task(&world).await;
    fail(&world, &task, "error-network").await;
    let order = json!([{"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": {"name": "admin"},
        "action": "ids", "entity": {"ids": {"ids": [task["kafka_key"]]}}}]);
    world.post("model=delete", &order).await.unwrap();
    world.pass_minutes(2);
    let got = world.get(ACTIVE, CARVER).await;
    assert_eq!((got.ids().as_str(), &got.info["filters"]), ("", &json!({"FilterPreviouslyDeleted-deleted": 1})));
    assert_eq!(of(&check(&world), "Carver"), [1, 0, 0, 1, 0, 0]);

    world.put('b').await;
    let task = world.get(ACTIVE, CARVER).await.events[0].clone();
    fail(&world, &task, "error-network").await;
    for _ in 0..4 {
        assert_eq!(of(&check(&world), "Carver"), [2, 0, 0, 1, 0, 1]);
        world.pass_minutes(2);
        let got = world.get(ACTIVE, &format!("{CARVER}&r-over-content-size=100")).await;
        assert_eq!(got.info["filters"], json!({"FilterConsumerRules-reject_content_too_small": 1}));
    }
    assert_eq!((dead(&world).await, of(&check(&world), "Carver")), (1, [2, 0, 1, 1, 0, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_puts_back_is_handed_out_with_its_attempts_at_zero() {
    let world = World::new();
    let task = one_task(&world).await;
    fail(&world, &task, "error-input").await;
    let event: Event =
        model::decode_event_json(model::Model::Binary, task.to_string().as_bytes()).unwrap().event.unwrap();
    let Event::Binary(event) = event else { panic!("{event:?}") };
    let leases = world.dispatcher().leases();
    let values = leases.requeue(&event, "Carver", "1.2", "", world.now_ms(), false);
    world.dispatcher().broker().log().put_kv(values).unwrap();
    world.dispatcher().requeued("Carver", "1.2");
    assert_eq!(of(&check(&world), "Carver"), [1, 0, 1, 0, 0, 0]);
    let again = world.get(ACTIVE, CARVER).await.events[0].clone();
    assert_eq!((again.get("retries"), &again["entity"]), (None, &task["entity"]));
    fail(&world, &again, "completed").await;
    assert_eq!(of(&check(&world), "Carver"), [2, 1, 1, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_tried_by_itself_has_no_other_run() {
    let world = World::new();
    let carver = one_task(&world).await;
    let sandbox = world.get(ACTIVE, &CARVER.replace("Carver", "sandbox-x")).await.events[0].clone();
    for task in [&carver, &sandbox] {
        let mut last = status(task, "error-exception");
        last[0]["entity"]["input"]["entity"]["info"] = json!({"dead_letter": {"stage": "check", "attempts": [
            {"time": "2026-01-02T03:04:05Z", "status": "error-network", "error": "e", "message": "m", "runtime": 1.5}]}});
        world.post("model=status", &last).await.unwrap();
    }
    let balances = check(&world);
    assert_eq!((dead(&world).await, of(&balances, "sandbox-x")), (1, [1, 0, 1, 0, 0, 0]));
    assert_eq!(of(&balances, "Carver"), [1, 0, 0, 0, 0, 1], "another one has its retries, whatever it says");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_says_which_retry_it_is_whatever_its_publisher_wrote() {
    let world = World::new();
    let mut event = super::super::world::sourced('a');
    event["retries"] = 5.into();
    world.post("model=binary", &json!([event])).await.unwrap();
    let first = world.get(ACTIVE, CARVER).await.events[0].clone();
    fail(&world, &first, "error-exception").await;
    for retry in 1..=3 {
        world.pass_minutes(2);
        let again = world.get(ACTIVE, CARVER).await.events[0].clone();
        assert_eq!(again["retries"], retry);
        fail(&world, &again, "error-exception").await;
    }
}
