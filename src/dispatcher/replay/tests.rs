use serde_json::json;

use super::super::caches;
use super::super::model::{Author, BinaryEntity, Datastream, Source};
use super::super::world::{self, World};
use super::*;

const TTL_MS: i64 = 1000;

fn cache(size_bytes: u64) -> ReplayCache {
    ReplayCache::new(Options { size_bytes, ttl: Duration::from_secs(1), min_runtime: Duration::from_secs(10) })
}

fn node(sha256: &str, author: &str) -> PathNode {
    let author = Author { name: author.into(), ..Author::default() };
    PathNode { sha256: sha256.into(), author, action: "extracted".into(), ..PathNode::default() }
}

fn binary(source: &str, path: &[PathNode]) -> BinaryEvent {
    let sha256 = path.last().unwrap().sha256.clone();
    let source = Source { name: source.into(), path: path.to_vec(), ..Source::default() };
    let stream = Datastream { label: "content".into(), sha256: sha256.clone(), ..Datastream::default() };
    let entity = BinaryEntity { sha256, datastreams: vec![stream], ..BinaryEntity::default() };
    BinaryEvent { source, entity, action: "extracted".into(), ..BinaryEvent::default() }
}

/// Carver 1.2 found `b` in `a`.
fn status(runtime: f64) -> StatusEvent {
    let author = Author { name: "Carver".into(), version: "1.2".into(), ..Author::default() };
    let mut status = StatusEvent { author, ..StatusEvent::default() };
    status.entity.status = "completed".into();
    status.entity.runtime = runtime;
    status.entity.input = binary("lab", &[node("a", "amy")]);
    status.entity.results = vec![binary("lab", &[node("a", "amy"), node("b", "Carver")])];
    status
}

fn remember(cache: &ReplayCache, status: StatusEvent, now_ms: i64) -> bool {
    let completion = cache.worth(&Event::Status(Box::new(status)));
    let worth = completion.is_some();
    completion.into_iter().for_each(|completion| cache.put(completion, now_ms));
    worth
}

#[test]
fn slow_completed_runs_are_remembered_for_their_plugin_and_version() {
    let cache = cache(1 << 20);
    assert!(!remember(&cache, status(10.0), 0), "strictly longer");
    let mut failed = status(11.0);
    failed.entity.status = "error-exception".into();
    assert!(!remember(&cache, failed, 0));
    assert!(!cache.take_changed());
    assert!(remember(&cache, status(10.1), 0));
    assert!(cache.take_changed() && !cache.take_changed());
    let found = cache.find("a", "Carver", "1.2", 5).unwrap();
    assert_eq!(found.entity.results.len(), 1);
    for (sha256, name, version) in [("b", "Carver", "1.2"), ("a", "Carver", "1"), ("a", "Carver-1.2", "")] {
        assert!(cache.find(sha256, name, version, 5).is_none(), "{sha256} {name} {version}");
    }
}

#[test]
fn an_entry_is_forgotten_after_its_time_which_use_does_not_prolong() {
    let cache = cache(1 << 20);
    remember(&cache, status(11.0), 0);
    assert!(cache.find("a", "Carver", "1.2", TTL_MS - 1).is_some());
    assert!(cache.find("a", "Carver", "1.2", TTL_MS).is_none());
    assert_eq!(cache.lock().bytes, 0);
}

fn of_version(version: usize) -> StatusEvent {
    let mut status = status(11.0);
    status.author.version = version.to_string();
    status
}

#[test]
fn memory_is_bounded_and_the_ones_unused_longest_go() {
    let cache = cache(64 << 10);
    for version in 0..1000 {
        assert!(remember(&cache, of_version(version), 0));
        assert!(cache.find("a", "Carver", "0", 1).is_some(), "used all the time, kept at {version}");
        let state = cache.lock();
        assert!(state.bytes <= 64 << 10, "{}", state.bytes);
        assert_eq!(state.entries.len(), state.order.len());
    }
    assert!(cache.find("a", "Carver", "1", 1).is_none() && cache.find("a", "Carver", "999", 1).is_some());
    assert!(remember(&cache, of_version(999), 0), "in its own place");
    let sum: usize = cache.lock().entries.iter().map(|(run, entry)| cost(run, &entry.status)).sum();
    assert_eq!(cache.lock().bytes, sum);
    let mut large = status(11.0);
    large.entity.message = "x".repeat(1 << 10);
    assert!(!remember(&cache, large, 0), "larger than a 64th of the cache");
}

#[test]
fn what_was_saved_is_loaded_in_the_order_of_use() {
    let (one, other) = (cache(64 << 10), cache(32 << 10));
    (0..1000).for_each(|version| assert!(remember(&one, of_version(version), 7)));
    let mut saved = Vec::new();
    one.save(&mut saved).unwrap();
    other.load(&mut saved.as_slice()).unwrap();
    assert!(!other.take_changed());
    assert!(other.find("a", "Carver", "999", TTL_MS + 6).is_some(), "with the time it was stored at");
    assert!(other.find("a", "Carver", "999", TTL_MS + 7).is_none());
    assert!(other.lock().bytes <= 32 << 10);
    for cut in [0, 7, 8, 20, saved.len() - 1] {
        assert!(other.load(&mut &saved[..cut]).is_err(), "cut to {cut}");
    }
}

#[test]
fn results_descend_from_the_trigger() {
    let now = Timestamp::from_millis(5);
    let mut remembered = status(11.0);
    remembered.entity.results.push(binary("lab", &[node("a", "amy"), node("b", "Carver"), node("c", "Carver")]));
    let mut trigger = binary("other", &[node("z", "zoe"), node("a", "Unzip")]);
    trigger.flags.expedite = true;
    let made = status_for(&remembered, &trigger, "k.Carver.1.2.0".into(), now).unwrap();
    assert_eq!((made.author.name.as_str(), made.timestamp), ("Carver", now));
    assert_eq!((made.entity.status.as_str(), made.entity.runtime), ("completed", 0.0));
    assert_eq!(
        (made.entity.input.dequeued.as_str(), made.entity.input.entity.datastreams.len()),
        ("k.Carver.1.2.0", 0)
    );
    let paths: Vec<Vec<&str>> = made
        .entity
        .results
        .iter()
        .map(|result| {
            assert_eq!((result.source.name.as_str(), result.timestamp), ("other", now));
            result.source.path.iter().map(|node| node.sha256.as_str()).collect()
        })
        .collect();
    assert_eq!(paths, [vec!["z", "a", "b"], vec!["z", "a", "b", "c"]]);
    assert_eq!(made.entity.results[0].source.path[2].timestamp, now);
    assert_eq!(made.entity.results[0].source.path[1].author.name, "Unzip");
}

#[test]
fn results_that_do_not_follow_from_their_input_are_not_used() {
    let trigger = binary("lab", &[node("a", "amy")]);
    let mut empty = status(11.0);
    empty.entity.input.source.path.clear();
    empty.entity.results[0].source.path.clear();
    let mut same = status(11.0);
    same.entity.results[0].source.path.pop();
    let mut foreign = status(11.0);
    foreign.entity.results[0].source.path[0].sha256 = "x".into();
    for remembered in [empty, same, foreign] {
        let made = status_for(&remembered, &trigger, String::new(), Timestamp::from_millis(5));
        assert!(matches!(made, Err(NotReplayed::Path)), "{made:?}");
    }
}

/// A result below an `enriched` event is no valid event: nothing would be published.
#[tokio::test]
async fn a_task_whose_remembered_results_cannot_be_used_is_handed_out() {
    let replay = Options { size_bytes: 1 << 20, ..Options::default() };
    let world = World::with(caches::Options { replay, ..caches::Options::default() });
    world.put('a').await;
    let carver = |action: &str| format!("name=Carver&version=1.2&deadline=0&r-historic=true&r-action={action}");
    let got = world.get("binary/active", &carver("sourced")).await;
    let mut completed = world::status(&got.events[0], "completed");
    let mut child = world::sourced('b');
    child["action"] = json!("extracted");
    let found = child["source"]["path"][0].clone();
    child["source"]["path"] = json!([world::sourced('a')["source"]["path"][0], found]);
    completed[0]["entity"]["runtime"] = json!(15);
    completed[0]["entity"]["results"] = json!([child]);
    world.post("model=status", &completed).await.unwrap();

    let mut enriched = world::sourced('a');
    enriched["action"] = json!("enriched");
    enriched["entity"]["datastreams"] = json!([]);
    let mut node = enriched["source"]["path"][0].clone();
    node["action"] = json!("enriched");
    enriched["source"]["path"].as_array_mut().unwrap().push(node);
    world.post("model=binary", &json!([enriched])).await.unwrap();
    let got = world.get("binary/active", &carver("enriched")).await;
    assert_eq!((got.ids().as_str(), &got.info["filtered"]), ("a", &json!(0)), "{got:?}");
    let mut again = world::sourced('a');
    again["source"]["references"] = json!({"user": "zoe"});
    world.post("model=binary", &json!([again])).await.unwrap();
    let got = world.get("binary/active", &carver("sourced")).await;
    assert_eq!(got.info["filters"], json!({"ReplayPluginCompletion-cached": 1}), "it was remembered: {got:?}");
}

/// Carver completed `a`, which took it a while, and finds one child in it.
async fn completed_once(world: &World) {
    world.put('a').await;
    let got = world.get("binary/active", CARVER).await;
    let mut completed = world::status(&got.events[0], "completed");
    let mut child = world::sourced('b');
    child["action"] = json!("extracted");
    let found = child["source"]["path"][0].clone();
    child["source"]["path"] = json!([world::sourced('a')["source"]["path"][0], found]);
    completed[0]["entity"]["runtime"] = json!(15);
    completed[0]["entity"]["results"] = json!([child]);
    world.post("model=status", &completed).await.unwrap();
}

/// Commits of published events so far.
fn commits(world: &World) -> u64 {
    let mut page = String::new();
    prometheus_client::encoding::text::encode_registry(&mut page, world.dispatcher().metrics.registry()).unwrap();
    let count = "dispatcher_events_produce_duration_count{stage=\"produce\"} ";
    page.lines().find_map(|line| line.strip_prefix(count)?.parse().ok()).unwrap()
}

const CARVER: &str = "name=Carver&version=1.2&count=100&deadline=0&r-historic=true&r-action=sourced";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tasks_of_one_answer_are_answered_in_one_commit() {
    let replay = Options { size_bytes: 1 << 20, ..Options::default() };
    let world = World::with(caches::Options { replay, ..caches::Options::default() });
    completed_once(&world).await;
    let again = |user: usize| {
        let mut again = world::sourced('a');
        again["source"]["references"] = json!({"user": user.to_string()});
        again
    };
    world.post("model=binary", &json!((0..20).map(again).collect::<Vec<_>>())).await.unwrap();
    let other = CARVER.replace("version=1.2", "version=1.3");
    assert_eq!(world.get("binary/active", &other).await.events.len(), 21);
    let before = commits(&world);
    let got = world.get_and("binary/active", CARVER, false).await;
    assert_eq!(got.info["filters"], json!({"ReplayPluginCompletion-cached": 20}), "{got:?}");
    assert_eq!(commits(&world), before + 1);
    assert_eq!(world.statuses("s").await.len(), 21);
    let children =
        world.get("binary/passive", "name=i&version=1&count=100&deadline=0&r-historic=true&r-action=extracted");
    assert_eq!(children.await.events.len(), 21);
}
