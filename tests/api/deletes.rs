//! Deletion and manual inserts: worked examples X16 and X17 with their variants, before and after a restart.

use serde_json::{Value, json};

use crate::support::events::{CHILD_KEY, E1_KEY, carved, carver_status, e1, e1_final, id, sourced, with};
use crate::support::{Batch, Config, Server, await_that};

const REFERENCES: &str = "lab.24595c1dbfa61e4c53f4b6e991cd0fe5";
const DELETED: &str = "FilterPreviouslyDeleted-deleted";

fn order(action: &str, part: Value) -> Value {
    let mut entity = json!({"reason": "test"});
    entity[action] = part;
    json!([{"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": {"name": "admin"}, "action": action,
        "entity": entity}])
}

fn ids(ids: &[&str]) -> Value {
    order("ids", json!({"ids": ids}))
}

fn submission(at: Option<&str>) -> Value {
    let mut part = json!({"track_source_references": REFERENCES});
    if let Some(at) = at {
        part["timestamp"] = json!(at);
    }
    order("submission", part)
}

fn author(author: &str, before: &str) -> Value {
    order("author", json!({"track_author": author, "timestamp": before}))
}

/// A historic consumer that was not there before reads everything.
fn read(server: &Server, version: &str) -> Batch {
    let query = format!("name=after&version={version}&count=100&deadline=0&r-historic=true");
    server.fetch("binary/passive", &query)
}

fn assert_purged(server: &Server, version: &str, event: &Value) {
    let batch = read(server, version);
    assert!(batch.events.is_empty(), "{batch:?}");
    assert!(batch.info["filtered"] == 0 || batch.info["filters"][DELETED] == 1, "{batch:?}");
    let answer = server.publish("binary", "", &json!([event])).expect_any_error(425).json();
    assert_eq!(answer["error_enum"], "ErrorStringEnumAllEventsFiltered");
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("following filters [FilterPreviouslyDeleted:1], with 0 response failures"), "{detail}");
}

fn assert_kept(server: &Server, version: &str, event: &Value) {
    let key = server.publish_ok("binary", &json!([event]))[0]["kafka_key"].clone();
    let batch = read(server, version);
    assert_eq!(batch.info["filtered"], 0, "{batch:?}");
    assert!(batch.events.iter().any(|event| event["kafka_key"] == key), "{batch:?}");
}

/// What holds before a restart holds after a stop and after a kill.
fn always(server: &mut Server, check: impl Fn(&Server, &str)) {
    check(server, "1");
    server.restart();
    check(server, "2");
    server.crash();
    check(server, "3");
}

#[test]
fn x16_the_four_kinds_of_delete_take_what_they_name() {
    let other = "d41d8cd98f00b204e9800998ecf8427e";
    for (delete, purged) in [
        (ids(&["00", E1_KEY]), true),
        (ids(&[other]), false),
        (submission(None), true),
        (submission(Some("2026-01-02T03:04:05Z")), true),
        (submission(Some("2026-01-02T14:04:05+11:00")), true),
        (submission(Some("2026-01-02T03:04:06Z")), false),
        (author("user.amy.", "2026-01-02T03:04:06Z"), false),
        (author("user.amy.", "2026-01-02T03:04:07Z"), true),
        (author("user.amy.1", "2026-01-02T03:04:07Z"), false),
        (order("link", json!({"track_link": format!("{}.{}.x", id('a'), id('b'))})), false),
    ] {
        let mut server = Server::start();
        server.publish_ok("binary", &json!([e1()]));
        server.publish_ok("delete", &delete);
        match purged {
            true => always(&mut server, |server, version| assert_purged(server, version, &e1())),
            false => assert_kept(&server, "1", &e1()),
        }
    }
}

/// The filter counts a purged event only as long as it is there.
#[test]
fn x16_a_purged_event_leaves_the_log_with_the_cleaner() {
    let mut server = Server::with(&Config::examples().set("storage", "clean_interval", "\"1s\""));
    server.publish_ok("binary", &json!([e1()]));
    server.publish_ok("delete", &ids(&[E1_KEY]));
    assert_purged(&server, "1", &e1());
    // Only what lies in segments that are full or left behind is cleaned.
    server.restart();
    let mut version = 0;
    await_that("the event is gone", || {
        version += 1;
        read(&server, &format!("gone-{version}")).info["filtered"] == 0
    });
    server.publish("binary", "", &json!([e1()])).expect_any_error(425);
}

#[test]
fn x16_a_link_takes_the_child_and_leaves_the_parent() {
    let mut server = Server::start();
    server.publish_ok("binary", &json!([e1(), carved(&e1())]));
    let link = format!("{}.{}.2026_01_02T03_05_00Z_00.plugin.Carver.1.2", id('a'), id('b'));
    server.publish_ok("delete", &order("link", json!({"track_link": link})));
    always(&mut server, |server, version| {
        let batch = read(server, version);
        assert_eq!(batch.events, [e1_final()]);
        server.publish("binary", "", &json!([carved(&e1())])).expect_any_error(425);
    });
}

#[test]
fn x16_deletes_of_two_submissions_stand_side_by_side() {
    let server = Server::start();
    let later = with(e1(), "/source/timestamp", json!("2026-01-02T03:04:09Z"));
    let third = with(e1(), "/source/timestamp", json!("2026-01-02T03:04:10Z"));
    server.publish_ok("delete", &submission(Some("2026-01-02T03:04:05Z")));
    server.publish_ok("delete", &submission(Some("2026-01-02T03:04:09Z")));
    for gone in [e1(), later] {
        server.publish("binary", "", &json!([gone])).expect_any_error(425);
    }
    assert_kept(&server, "1", &third);
}

#[test]
fn x16_a_purged_event_does_not_stop_the_others() {
    let server = Server::start();
    server.publish_ok("delete", &ids(&[E1_KEY]));
    let other = sourced(&id('c'), "lab");
    let answer = server.publish("binary", "&include_ok=true", &json!([e1(), other])).expect_status(200).json();
    assert_eq!(answer["total_ok"], 2, "what passed validation: {answer}");
    assert_eq!(answer["ok"].as_array().unwrap().len(), 1);
    assert_eq!(read(&server, "1").ids(), [id('c')]);
}

#[test]
fn x16_a_purged_result_of_a_task_is_not_published() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    server.publish_ok("delete", &ids(&[CHILD_KEY]));
    let task = with(e1_final(), "/dequeued", json!(format!("{E1_KEY}.Carver.1.2.1767323100")));
    server.publish_ok("status", &json!([carver_status(&task, "completed", &[carved(&task)])]));
    assert_eq!(read(&server, "1").events, [e1_final()]);
}

#[test]
fn x16_a_task_consumer_and_expedited_events_are_filtered_too() {
    let server = Server::start();
    let query = "name=Carver&version=1.2&count=5&deadline=0&r-expedite=true&r-live=true";
    assert!(server.fetch("binary/active", query).events.is_empty());
    server.publish_ok("binary", &json!([e1(), with(e1(), "/flags", json!({"expedite": true}))]));
    server.publish_ok("delete", &ids(&[E1_KEY]));
    let batch = server.fetch("binary/active", query);
    assert!(batch.events.is_empty());
    assert_eq!(batch.info["filters"], json!({ DELETED: 2 }));
}

#[test]
fn a_run_after_the_purge_of_its_author_is_kept_for_good() {
    let mut server = Server::start();
    server.publish_ok("binary", &json!([carved(&e1())]));
    server.publish_ok("delete", &author("plugin.Carver.1.2", "2026-01-05T00:00:00Z"));
    let again = with(carved(&e1()), "/timestamp", json!("2026-01-06T00:00:00Z"));
    assert_eq!(server.publish_ok("binary", &json!([again]))[0]["kafka_key"], CHILD_KEY, "the key is the same");
    let batch = read(&server, "1");
    assert_eq!((batch.ids(), &batch.info["filters"]), (vec![id('b')], &json!({ DELETED: 1 })));
    // No tombstone may follow the newer event.
    let looked = "azulite_purge_tombstones_total{result=\"superseded\"} 1";
    await_that("the sweep", || server.client().get("/metrics").text().lines().any(|line| line == looked));
    assert!(!server.client().get("/metrics").text().contains("{result=\"written\"}"));
    always(&mut server, |server, version| assert_eq!(read(server, &format!("later-{version}")).ids(), [id('b')]));
}

#[test]
fn a_delete_that_says_nothing_known_is_refused() {
    let server = Server::start();
    let answer = server.publish("delete", "", &order("everything", json!({})));
    let detail = answer.expect_any_error(425).json()["detail"].to_string();
    assert!(detail.contains("action"), "{detail}");
}

#[test]
fn the_sizes_of_the_sets_are_shown() {
    let mut server = Server::start();
    server.publish_ok("delete", &ids(&["00", E1_KEY, E1_KEY]));
    server.publish_ok("delete", &submission(None));
    server.publish_ok("insert", &insert("lab", &id('c')));
    always(&mut server, |server, _| {
        let page = server.client().get("/metrics").expect_status(200).text();
        for line in [
            "azulite_purge_orders{kind=\"id\"} 2",
            "azulite_purge_orders{kind=\"link\"} 0",
            "azulite_purge_orders{kind=\"submission\"} 1",
            "azulite_manual_inserts{kind=\"insert\"} 1",
            "azulite_manual_inserts{kind=\"parent\"} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing");
        }
    });
}

/// X17's insert: a child of `A` whose streams are stored under `source`.
fn insert(source: &str, sha256: &str) -> Value {
    let amy = json!({"name": "amy", "category": "user", "security": "OFFICIAL"});
    let stream = json!({"label": "content", "size": 5, "sha512": "H", "sha256": sha256, "sha1": "H", "md5": "H",
        "mime": "text/plain", "magic": "ASCII text", "file_format": "text/plain"});
    json!([{"model_version": 6, "timestamp": "2026-01-02T04:00:01Z", "author": amy,
        "entity": {"original_source": source, "parent_sha256": id('a'),
            "child": {"sha256": sha256, "size": 5, "datastreams": [stream]},
            "child_history": {"author": amy, "action": "extracted", "sha256": sha256,
                "timestamp": "2026-01-02T04:00:00Z"}}}])
}

fn assert_has_child(server: &Server, version: &str, sha256: &str) -> Value {
    let mut events = read(server, version).events;
    // Each copy of a parent that was posted again has brought its child again.
    let children: Vec<Value> = events.extract_if(.., |event| event["entity"]["sha256"] == sha256).collect();
    assert!(!children.is_empty() && !events.is_empty(), "{children:?} beside {events:?}");
    children[0].clone()
}

#[test]
fn x17_a_parent_brings_its_inserted_child() {
    let mut server = Server::start();
    let stored = server.publish_ok("insert", &insert("lab", &id('c')));
    assert_eq!(stored[0]["kafka_key"], "a07e8b99d901029eb8d0aeac36d3c104");
    assert_eq!(stored[0]["track_author"], "user.amy.");
    assert_eq!(stored[0]["track_link"], format!("{}.{}.2026_01_02T04_00_00Z_00.user.amy.", id('a'), id('c')));
    always(&mut server, |server, version| {
        let answer = server.publish("binary", "&include_ok=true", &json!([e1()])).expect_status(200).json();
        assert_eq!((&answer["total_ok"], &answer["ok"]), (&json!(1), &json!([e1_final()])), "the client's own events");
        let child = assert_has_child(server, version, &id('c'));
        assert_eq!(child["kafka_key"], "0beb4f8777aa2982c4e6df89579adbcf");
        assert_eq!(child["source"]["path"].as_array().map(Vec::len), Some(2));
        assert_eq!((&child["action"], &child["author"]["name"]), (&json!("extracted"), &json!("amy")));
        assert_eq!(child["track_authors"], json!(["user.amy.", "user.amy."]));
    });
    let added = "dispatcher_events_produce_pipelines_added{pipeline=\"InjectChildEvents\"} 1";
    assert!(server.client().get("/metrics").text().lines().any(|line| line == added));
}

#[test]
fn x17_metadata_of_a_parent_brings_no_child() {
    let server = Server::start();
    server.publish_ok("insert", &insert("lab", &id('c')));
    let enriched = with(e1(), "/action", json!("enriched"));
    let mut enriched = with(enriched, "/entity", json!({"sha256": id('a')}));
    let mut node = enriched["source"]["path"][0].clone();
    node["action"] = json!("enriched");
    enriched["source"]["path"].as_array_mut().unwrap().push(node);
    server.publish_ok("binary", &json!([enriched]));
    assert_eq!(read(&server, "1").ids(), [id('a')]);
}

#[test]
fn x17_the_result_of_a_task_brings_its_children_too() {
    let server = Server::start();
    let of_b = with(insert("lab", &id('c')).pointer("/0").unwrap().clone(), "/entity/parent_sha256", json!(id('b')));
    server.publish_ok("insert", &json!([of_b]));
    let task = with(e1_final(), "/dequeued", json!(format!("{E1_KEY}.Carver.1.2.1767323100")));
    server.publish_ok("status", &json!([carver_status(&task, "completed", &[carved(&task)])]));
    let child = assert_has_child(&server, "1", &id('c'));
    assert_eq!(child["source"]["path"].as_array().map(Vec::len), Some(3));
}

#[test]
fn x17_the_bytes_of_the_child_follow_it_to_the_parents_source() {
    let server = Server::start();
    let answer = server.client().post("/api/v3/stream/elsewhere/content", b"child").expect_status(200).json();
    let hash = answer["data"]["sha256"].as_str().unwrap();
    let here = format!("/api/v3/stream/lab/content/{hash}");
    server.publish_ok("insert", &insert("elsewhere", hash));
    server.client().get(&here).expect_status(404);
    server.publish_ok("binary", &json!([e1()]));
    assert_eq!(server.client().get(&here).expect_status(200).body, b"child");
    assert_has_child(&server, "1", hash);
}

#[test]
fn x17_a_purged_child_does_not_come_back_with_its_parent() {
    let server = Server::start();
    let answer = server.client().post("/api/v3/stream/elsewhere/content", b"child").expect_status(200).json();
    let hash = answer["data"]["sha256"].as_str().unwrap();
    let stored = server.publish_ok("insert", &insert("elsewhere", hash));
    server.publish_ok("delete", &order("link", json!({"track_link": stored[0]["track_link"]})));
    server.publish_ok("binary", &json!([e1()]));
    assert_eq!(read(&server, "1").events, [e1_final()]);
    server.client().get(&format!("/api/v3/stream/lab/content/{hash}")).expect_status(404);
}
