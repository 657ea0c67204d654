//! Registration, its bounds, and simulate over it (X20).

use serde_json::json;

use super::super::hub::SimulateError;
use super::super::world::{World, sourced};
use super::*;

const DAY_MS: i64 = 86_400_000;

fn keys(world: &World) -> Vec<String> {
    world.dispatcher().registry().consumers(world.now_ms()).into_iter().map(|listed| listed.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x20_simulate_asks_every_registered_consumer() {
    let world = World::new();
    assert_eq!(world.simulate(&sourced('a'), false).await.unwrap(), json!({"consumers": []}));
    world.get("binary/active", "name=p1&version=1&deadline=0&r-live=true&r-under-content-size=4").await;
    world.get("binary/passive", "name=p2&version=1&deadline=0&r-live=true&r-under-content-size=2000").await;
    // The same plugin reads something else as well, which says nothing about binaries.
    world.get("status/passive", "name=p1&version=1&deadline=0&r-live=true").await;
    let answer = world.simulate(&sourced('a'), false).await.unwrap();
    assert_eq!(
        answer,
        json!({"consumers": [
            {"name": "p1", "version": "1", "filter_out": true,
             "filter_out_trigger": "FilterConsumerRules-reject_content_too_large"},
            {"name": "p2", "version": "1", "filter_out": false, "filter_out_trigger": ""}]})
    );
    world.clock.fetch_add(DAY_MS, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.simulate(&sourced('a'), false).await.unwrap(), json!({"consumers": []}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_long_answer_of_simulate_lists_every_filter() {
    let world = World::new();
    world.get("binary/active", "name=p&version=1&deadline=0&r-live=true&r-over-content-size=6").await;
    let mut event = sourced('a');
    event["source"]["name"] = json!("short");
    let node = event["source"]["path"][0].clone();
    event["source"]["path"] = json!(vec![node; 11]);
    world.pass_minutes(3 * 24 * 60);
    world.get("binary/active", "name=p&version=1&deadline=0&r-live=true&r-over-content-size=6").await;
    let answer = world.simulate(&event, true).await.unwrap();
    let consumer = &answer["consumers"][0];
    assert_eq!(consumer["filter_out_trigger"], "FilterConsumerRules-reject_content_too_small", "11 nodes pass here");
    let filters = ["PipelineAgeoff-ageoff", "FilterTooDeep-too_deep", "FilterConsumerRules-reject_content_too_small"];
    assert_eq!(consumer["filters"], json!(filters));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulate_refuses_what_is_not_one_valid_binary_event() {
    let world = World::new();
    for bad in [json!([sourced('a')]), json!({}), json!("x"), json!({"model_version": 5})] {
        let refused = world.simulate(&bad, false).await.unwrap_err();
        assert!(matches!(refused, SimulateError::Invalid(_)), "{refused:?}");
    }
    let mut nameless = sourced('a');
    nameless["author"]["name"] = json!("");
    let Err(SimulateError::Invalid(detail)) = world.simulate(&nameless, false).await else { panic!("it was taken") };
    assert_eq!(detail, "innerNewMsgInFlight event is missing 'author' field");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_and_deployments_survive_a_restart_and_go_after_a_day() {
    let mut world = World::new();
    let query = "name=p&version=1&deployment_key=d1&deadline=0&r-historic=true&count=3";
    world.get("binary/active", query).await;
    world.get("status/passive", "name=s&version=2&deadline=0&r-live=true").await;
    world = world.restart();
    assert_eq!(keys(&world), ["p-1-binary-allsrc-alltype-H", "s-2-status-L"]);
    let listed = world.dispatcher().registry().consumers(world.now_ms());
    assert!(listed[0].consumer.task && !listed[1].consumer.task);
    assert_eq!((listed[0].consumer.params.count, listed[0].consumer.user_agent.as_str()), (3, "test"));
    let seen_ms = world.now_ms();
    let deployment = Deployment { key: "d1".into(), kafka_prefix: "p-1-binary".into(), seen_ms };
    assert_eq!(world.dispatcher().registry().deployments(seen_ms), [deployment]);
    world.pass_minutes(12 * 60);
    world.get("binary/active", query).await;
    let log = world.dispatcher().broker().log().clone();
    world.dispatcher().registry().flush(log.as_ref(), world.now_ms());
    world.pass_minutes(13 * 60);
    assert_eq!(keys(&world), ["p-1-binary-allsrc-alltype-H"]);
    world.dispatcher().registry().flush(log.as_ref(), world.now_ms());
    drop(log);
    world = world.restart();
    assert_eq!(keys(&world), ["p-1-binary-allsrc-alltype-H"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_consumer_asking_again_is_not_written_each_time() {
    let world = World::new();
    let log = world.dispatcher().broker().log().clone();
    let written = || log.topic("__azulite_state").unwrap().partitions[0].offsets().high_watermark;
    let limits = Limits { fetch_limit: 10, default_wait_secs: 0 };
    let params = |count: usize| {
        let query = [("name", "p"), ("r-live", "1"), ("count", &count.to_string())];
        GetParams::parse("binary", &query.map(|(n, v)| (n.to_owned(), v.to_owned())), &limits).unwrap()
    };
    let registry = Registry::load(log.as_ref(), &limits).unwrap();
    let before = written();
    for n in 0..500 {
        registry.register(log.as_ref(), &params(1 + n % 2), true, "", n.try_into().unwrap());
    }
    // Whatever was queued is behind this one then.
    log.put_kv(vec![(b"x".to_vec(), Some("y".into()))]).unwrap();
    assert_eq!(written() - before, 2, "the first one, and ours");
    registry.flush(log.as_ref(), 500);
    registry.flush(log.as_ref(), 501);
    log.put_kv(vec![(b"x".to_vec(), None)]).unwrap();
    assert_eq!(written() - before, 4, "what has changed, once, and ours");
}

#[test]
fn the_ones_seen_longest_ago_make_room() {
    let mut table: Table<u64> = Table::new(CONSUMERS);
    let write = |_: i64, _: &u64| (Vec::new(), None);
    let most = i64::try_from(MOST).unwrap();
    for n in 0..most {
        assert_eq!(table.see(&n.to_string(), 0, n, write).len(), 1);
    }
    table.see("0", 0, most, write);
    let changes = table.see("new", 0, most, write);
    assert_eq!((changes.len(), table.entries.len()), (2 + MOST / 10, MOST - MOST / 10));
    assert!(table.entries.contains_key("0") && !table.entries.contains_key("1"));
}

#[test]
fn long_names_make_room_earlier() {
    let mut table: Table<usize> = Table::new(CONSUMERS);
    let write = |_: i64, bytes: &usize| (Vec::new(), Some(vec![0; *bytes].into()));
    for n in 0..100 {
        assert_eq!(table.see(&n.to_string(), 1000, n, write).len(), 1);
    }
    table.see("0", 2000, 100, write);
    assert_eq!(table.bytes, 101_000);
    for n in 100..200 {
        table.see(&n.to_string(), 1 << 20, n, write);
        assert!(table.bytes <= MOST_BYTES, "{}", table.bytes);
    }
    assert!(table.entries.contains_key("199") && !table.entries.contains_key("100"));
    let sum: usize = table.entries.values().map(|entry| entry.bytes).sum();
    assert_eq!(table.bytes, sum);
    table.forget_old(KEPT_MS + 200);
    assert_eq!((table.bytes, table.entries.len()), (0, 0));
}
