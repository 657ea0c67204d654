//! The pause of plugins as clients see it: the first part of X15. What needs a clock is tested beside the code.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::events::{e1, e1_final, id, sourced};
use crate::support::{Server, await_that};

const TASK: &str = "name=p&version=1&count=1&deadline=20&r-live=true&r-historic=true";

#[test]
fn x15_task_consumers_are_told_to_wait_and_passive_ones_go_on() {
    let mut server = Server::start();
    server.publish("binary", "&pause_plugins=true", &json!([e1()])).expect_status(200);
    for route in ["binary/active", "status/active"] {
        let begun = Instant::now();
        let batch = server.fetch(route, TASK);
        assert_eq!(batch.info, json!({"filtered": 0, "fetched": 0, "ready": false, "paused": true}));
        assert!(batch.events.is_empty());
        assert!(begun.elapsed() < Duration::from_secs(5), "it does not wait for the deadline");
    }
    let avro = server.client().get(&format!("/api/v2/event/binary/active?{TASK}&avro-format=true"));
    assert!(avro.body.windows(4).any(|bytes| bytes == b"\x0c\x00\r\n"), "no events, as Avro");
    assert_eq!(server.fetch("binary/passive", TASK).only(), &e1_final());
    server.crash();
    assert_eq!(server.fetch("binary/active", TASK).info["paused"], true, "a crash does not end it");
    let detail = server.client().get("/api/v2/event/binary/active?name=p").expect_error_titled(422, "bad parameters");
    assert!(detail.contains("requires at least one"), "parameters are looked at first: {detail}");
}

#[test]
fn x15_only_true_and_1_pause_and_rejected_requests_do_too() {
    let server = Server::start();
    for no in ["&pause_plugins=True", "&pause_plugins=yes", "&pause_plugins="] {
        server.publish("binary", no, &json!([e1()])).expect_status(200);
    }
    let batch = server.fetch("binary/active", TASK);
    assert_eq!((batch.info["paused"].clone(), batch.ids()), (json!(false), vec![id('a')]));
    server
        .client()
        .post("/api/v2/event?pause_plugins=1", b"[]")
        .expect_error_titled(400, "not a registered model type");
    assert_eq!(server.fetch("binary/active", TASK).info["paused"], true);
}

#[test]
fn a_waiting_task_consumer_is_told_when_the_pause_begins() {
    let server = Server::start();
    server.fetch("binary/active", &TASK.replace("deadline=20", "deadline=0"));
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let waiting = scope.spawn(|| server.fetch("binary/active", TASK));
        await_that("the second GET to reach its reader", || server.fetches_of("p") == 2);
        server.publish("binary", "&pause_plugins=true", &sourced(&id('b'), "lab")).expect_status(200);
        let batch = waiting.join().unwrap();
        assert_eq!((batch.info["paused"].clone(), batch.events.len()), (json!(true), 0));
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_body_that_is_refused_unread_has_asked_for_the_pause_all_the_same() {
    let config = crate::support::Config::examples().set("http", "max_event_body", "\"1Ki\"");
    let server = Server::with(&config);
    let body = vec![b' '; 4096];
    let mut client = server.client();
    assert_eq!(client.post("/api/v2/event?model=binary&pause_plugins=true", &body).status, 413);
    assert_eq!(server.fetch("binary/active", TASK).info["paused"], true);
}
