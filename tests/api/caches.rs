//! The caches of the dispatcher: the duplicate filter and the replay of plugin completions.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::events::{E1_KEY, carved, carver_status, e1, e1_final, id, with, without};
use crate::support::{Batch, Config, Server, await_that};

const PASSIVE: &str = "binary/passive";
/// It takes what was sourced, not what it makes of that.
const CARVER: &str = "name=Carver&version=1.2&count=1&deadline=1&r-historic=true&r-action=sourced";

fn metric(server: &Server, line: &str) -> String {
    let page = server.client().get("/metrics").expect_status(200).text();
    let found = page.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ').map(str::to_owned));
    found.unwrap_or_else(|| panic!("no {line} in\n{page}"))
}

fn only_filtered(batch: &Batch, key: &str) {
    assert!(batch.events.is_empty(), "{batch:?}");
    assert_eq!(batch.info["filters"], json!({ key: 1 }), "{batch:?}");
}

fn deduping() -> Config {
    Config::examples().set("events", "dedupe_cache_bytes", "\"64Ki\"")
}

fn get(server: &Server, name: &str, version: &str, extra: &str) -> Batch {
    server.fetch(PASSIVE, &format!("name={name}&version={version}&count=5&deadline=0&r-historic=true{extra}"))
}

#[test]
fn an_event_published_again_is_handed_to_a_consumer_once() {
    let server = Server::with(&deduping());
    server.publish_ok("binary", &e1());
    assert_eq!(get(&server, "ab", "1", "").only(), &e1_final());
    server.publish_ok("binary", &e1());
    only_filtered(&get(&server, "ab", "1", ""), "FilterDuplicates-skipped");
    assert_eq!(metric(&server, "dispatcher_dedupe_hits_total"), "1");
    assert_eq!(metric(&server, "dispatcher_dedupe_lookups_total"), "2");
    let other = get(&server, "a", "b1", "");
    assert_eq!((other.events.len(), &other.info["filtered"]), (1, &json!(1)), "ab + 1 is not a + b1: {other:?}");
    assert_eq!(get(&server, "ab", "1", "&debug=true").events.len(), 2, "an inspector sees everything");
    assert_eq!(get(&server, "ab", "1", "&reset=true").events.len(), 1, "from the beginning");
    for flag in ["expedite", "bypass_cache"] {
        let expedite = "&r-expedite=true";
        get(&server, "ab", "1", expedite);
        server.publish_ok("binary", &with(e1(), "/flags", json!({ flag: true })));
        assert_eq!(get(&server, "ab", "1", expedite).events.len(), 1, "{flag} passes");
    }
}

#[test]
fn without_the_cache_an_event_is_handed_out_as_often_as_it_is_published() {
    let server = Server::start();
    for _ in 0..2 {
        server.publish_ok("binary", &e1());
        assert_eq!(get(&server, "p", "1", "").events.len(), 1);
    }
}

#[test]
fn an_answer_that_did_not_arrive_leaves_no_mark() {
    let server = Server::with(&deduping());
    server.publish_ok("binary", &e1());
    let taken = || metric(&server, "dispatcher_dedupe_lookups_total");
    assert_eq!(taken(), "0");
    let mut lost = TcpStream::connect(server.address()).expect("connect");
    let query = "name=p&version=1&count=2&deadline=20&r-historic=true";
    write!(lost, "GET /api/v2/event/binary/passive?{query} HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    await_that("the event is taken", || taken() == "1");
    drop(lost);
    let mut batch = get(&server, "p", "1", "");
    await_that("the event is given back and handed out", || {
        if batch.events.is_empty() {
            assert_eq!(batch.info["filtered"], 0, "it has not arrived anywhere: {batch:?}");
            batch = get(&server, "p", "1", "");
        }
        !batch.events.is_empty()
    });
    assert_eq!(batch.only(), &e1_final());
}

#[test]
fn what_was_handed_out_is_remembered_over_a_restart_and_a_damaged_memory_is_an_empty_one() {
    let mut server = Server::with(&deduping());
    let again = |server: &Server| {
        server.publish_ok("binary", &e1());
        get(server, "p", "1", "")
    };
    assert_eq!(again(&server).events.len(), 1);
    server.restart();
    only_filtered(&again(&server), "FilterDuplicates-skipped");
    server.stop();
    let file = server.data_dir().join("caches").join("duplicates");
    let mut bytes = std::fs::read(&file).expect("the snapshot");
    let at = bytes.len() - 9;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).expect("damage it");
    server.announce("a cache could not be read back");
    server.launch();
    assert_eq!(again(&server).events.len(), 1, "handed out once more");
    only_filtered(&again(&server), "FilterDuplicates-skipped");
}

#[test]
fn what_a_group_asks_to_read_again_is_not_kept_back_by_what_it_was_handed_before() {
    let mut server = Server::with(&deduping());
    server.publish_ok("binary", &e1());
    let events = |server: &Server, name: &str, extra: &str| get(server, name, "1", extra).events.len();
    assert_eq!((events(&server, "p", ""), events(&server, "q", "")), (1, 1));
    // Written down as it is now: what comes later is in no file.
    server.restart();
    assert_eq!(events(&server, "p", "&reset=true"), 1);
    server.kill();
    server.launch();
    assert_eq!(events(&server, "p", "&reset=true"), 1, "after a kill too");
    let group = "t1-azul-p-1-binary-allsrc-alltype-H-historic";
    let reset = json!({"to": "earliest"}).to_string();
    let path = format!("/api/azulite/v1/groups/{group}/reset");
    server.client().post(&path, reset.as_bytes()).expect_status(200);
    assert_eq!(events(&server, "p", ""), 1, "whoever resets it");
    server.stop();
    server.cli(["groups", "reset", group, "--to", "earliest"]).expect_code(0);
    server.launch();
    assert_eq!(events(&server, "p", ""), 1, "also while nothing runs");
    // The server takes note of a delivery when it has written the last byte, which may be behind our reading it.
    let described = || server.client().get(&format!("/api/azulite/v1/groups/{group}")).expect_status(200).json();
    await_that("the delivery is noted", || described()["lag"] == 0);
    server.publish_ok("binary", &e1());
    only_filtered(&get(&server, "p", "1", ""), "FilterDuplicates-skipped");
    only_filtered(&get(&server, "q", "1", ""), "FilterDuplicates-skipped");
}

fn replaying() -> Config {
    Config::examples().set("events.replay_plugin_cache", "size_bytes", "\"1Mi\"")
}

/// Publishes `event` and takes it as Carver's task.
fn task(server: &Server, event: &Value) -> Batch {
    server.publish_ok("binary", event);
    server.fetch("binary/active", CARVER)
}

/// Carver takes E1 and finds the child of X10 in it, in `runtime` seconds.
fn carve(server: &Server, runtime: f64, child: impl Fn(Value) -> Value) {
    let batch = task(server, &e1());
    let status = carver_status(batch.only(), "completed", &[child(carved(&e1()))]);
    server.publish_ok("status", &with(status, "/entity/runtime", json!(runtime)));
}

/// The same file, sent by somebody else.
fn by_zoe(source: &str) -> Value {
    let event = with(e1(), "/source/references/user", json!("zoe"));
    with(event, "/source/name", json!(source))
}

fn all(server: &Server, model: &str, version: &str) -> Vec<Value> {
    let query = format!("name=all&version={version}&count=100&deadline=0&r-historic=true");
    server.fetch(&format!("{model}/passive"), &query).events
}

#[test]
fn a_costly_run_is_answered_out_of_the_cache_with_results_that_descend_from_the_new_event() {
    let mut server = Server::with(&replaying());
    carve(&server, 15.0, |child| child);
    only_filtered(&task(&server, &by_zoe("lab")), "ReplayPluginCompletion-cached");
    assert_eq!(metric(&server, "dispatcher_replay_cache_hit_count{name=\"Carver\"}"), "1");
    assert_eq!(metric(&server, "dispatcher_replay_cache_hit_seconds{name=\"Carver\"}"), "15");

    let events = all(&server, "binary", "1");
    let child = events.iter().find(|e| e["action"] == "extracted" && e["source"]["references"]["user"] == "zoe");
    let child = child.unwrap_or_else(|| panic!("no new child in {events:#?}"));
    let path = child["source"]["path"].as_array().expect("a path");
    assert_eq!((path.len(), &path[1]["sha256"], &path[1]["author"]["name"]), (2, &json!(id('b')), &json!("Carver")));
    assert_eq!((&child["entity"]["sha256"], &child["flags"]), (&json!(id('b')), &json!({})));
    let statuses = all(&server, "status", "1");
    assert_eq!(statuses.len(), 2, "{statuses:#?}");
    assert_eq!(
        (&statuses[1]["entity"]["status"], &statuses[1]["author"]["name"]),
        (&json!("completed"), &json!("Carver"))
    );
    let zoe_key = server.publish_ok("binary", &by_zoe("lab"))[0]["kafka_key"].as_str().expect("a key").to_owned();
    assert_ne!(zoe_key, E1_KEY);
    let dequeued = statuses[1]["entity"]["input"]["dequeued"].as_str().expect("a task id");
    assert!(dequeued.starts_with(&format!("{zoe_key}.Carver.1.2.")), "{dequeued}");

    server.restart();
    let batch = server.fetch("binary/active", &CARVER.replace("count=1", "count=9"));
    assert_eq!(batch.info["filters"]["ReplayPluginCompletion-cached"], 1, "remembered over a restart: {batch:?}");
    let wanted = task(&server, &with(by_zoe("lab"), "/flags", json!({"bypass_cache": true})));
    assert_eq!(wanted.ids(), [id('a')], "bypass_cache is a task");
    let newer =
        server.fetch("binary/active", "name=Carver&version=1.3&count=1&deadline=1&r-historic=true&r-action=sourced");
    assert_eq!(newer.ids(), [id('a')], "another version runs");
    let passive = server.fetch(PASSIVE, &CARVER.replace("r-historic", "r-live=true&r-historic"));
    assert_eq!(passive.ids(), [id('a')], "only tasks are answered");
}

#[test]
fn quick_runs_are_not_remembered_and_without_the_cache_none_is() {
    for (config, runtime) in [(replaying(), 10.0), (Config::examples(), 60.0)] {
        let server = Server::with(&config);
        carve(&server, runtime, |child| child);
        assert_eq!(task(&server, &by_zoe("lab")).ids(), [id('a')]);
    }
}

#[test]
fn streams_follow_into_another_source_and_a_missing_one_makes_it_a_task() {
    let server = Server::with(&replaying());
    let content = b"what Carver found";
    let hash = "3d2e1b1a";
    let upload = server.client().post("/api/v3/stream/lab/content", content).expect_status(200).json();
    let hash = upload["data"]["sha256"].as_str().or(upload["sha256"].as_str()).unwrap_or(hash).to_owned();
    carve(&server, 15.0, |child| {
        let child = with(child, "/entity/datastreams/0/sha256", json!(hash));
        without(child, "/entity/datastreams/0/nothing")
    });
    let there = format!("/api/v3/stream/elsewhere/content/{hash}");
    server.client().get(&there).expect_any_error(404);
    only_filtered(&task(&server, &by_zoe("elsewhere")), "ReplayPluginCompletion-cached");
    assert_eq!(server.client().get(&there).expect_status(200).body, content);

    let server = Server::with(&replaying());
    carve(&server, 15.0, |child| child);
    let batch = task(&server, &by_zoe("elsewhere"));
    assert_eq!((batch.ids(), &batch.info["filtered"]), (vec![id('a')], &json!(0)), "the stream was never uploaded");
    assert_eq!(metric(&server, "dispatcher_events_consume_pipelines_error{pipeline=\"ReplayPluginCompletion\"}"), "1");
}
