//! Who reads, and why something was not read: simulate (X20), consumers and backlog, open tasks, explain.

use serde_json::{Value, json};

use crate::support::events::{E1_KEY, carver_status, e1, id, sourced, with};
use crate::support::{Config, Server, await_that};

const CARVER: &str = "name=Carver&version=1.2&count=1&deadline=1&r-historic=true";

fn get(server: &Server, path: &str) -> Value {
    server.client().get(&format!("/api/azulite/v1/{path}")).expect_status(200).json()
}

fn simulate(server: &Server, query: &str, body: &Value) -> crate::support::Response {
    server.client().post(&format!("/api/v2/event/simulate{query}"), body.to_string().as_bytes())
}

#[test]
fn x20_simulate_names_every_registered_consumer() {
    let mut server = Server::start();
    assert_eq!(simulate(&server, "", &e1()).expect_status(200).json(), json!({"consumers": []}));
    server.fetch("binary/passive", "name=p1&version=1&deadline=0&r-live=true&r-under-content-size=4");
    server.fetch("binary/active", "name=p2&version=1&deadline=0&r-live=true&r-under-content-size=2000");
    let wanted = json!({"consumers": [
        {"name": "p1", "version": "1", "filter_out": true,
         "filter_out_trigger": "FilterConsumerRules-reject_content_too_large"},
        {"name": "p2", "version": "1", "filter_out": false, "filter_out_trigger": ""}]});
    let answer = simulate(&server, "", &e1()).expect_status(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), wanted);
    server.restart();
    assert_eq!(simulate(&server, "", &e1()).expect_status(200).json(), wanted, "registrations survive");
    let extended = simulate(&server, "?extended=true", &e1()).expect_status(200).json();
    assert_eq!(extended["consumers"][0]["filters"], json!(["FilterConsumerRules-reject_content_too_large"]));
    assert_eq!(extended["consumers"][1]["filters"], json!([]));
    assert_eq!(simulate(&server, "?extended=0", &e1()).expect_status(200).json(), wanted);
    let refused = simulate(&server, "?extended=maybe", &e1()).expect_error_titled(400, "bad parameters");
    assert!(refused.contains("extended = \"maybe\": allowed is true, 1, false or 0"), "{refused}");
    assert!(server.fetch("binary/passive", "name=all&version=1&deadline=0&r-historic=true").events.is_empty());
}

#[test]
fn x20_what_is_not_one_valid_event_is_refused() {
    let server = Server::start();
    let detail = |body: &Value| simulate(&server, "", body).expect_error_titled(422, "Failed to simulate event");
    assert!(detail(&json!([e1()])).contains("a list where one event is expected"));
    assert!(detail(&with(e1(), "/model_version", json!(5))).contains("too old"));
    let nameless = with(e1(), "/author/name", json!(""));
    assert_eq!(detail(&nameless), "innerNewMsgInFlight event is missing 'author' field");
    let answer = server.client().post("/api/v2/event/simulate", b"");
    assert!(answer.expect_error_titled(422, "Failed to simulate event").contains("too small"));
    assert_eq!(server.client().get("/api/v2/event/simulate").status, 404);
}

#[test]
fn deployments_and_consumers_are_listed_with_their_backlog() {
    let server = Server::start();
    let query = "name=p&version=1&deployment_key=d&deadline=0&r-live=true&r-historic=true";
    server.fetch("binary/active", query);
    server.publish_ok("binary", &json!([e1(), sourced(&id('b'), "lab"), sourced(&id('c'), "lab")]));
    let deployments = get(&server, "deployments");
    let deployment = &deployments["deployments"][0];
    assert_eq!((&deployment["key"], &deployment["kafka_prefix"]), (&json!("d"), &json!("p-1-binary")));
    let live = json!({"name": "t1-azul-p-1-binary-allsrc-alltype-LH-live", "partitions": 10, "lag": 3});
    assert!(deployment["groups"].as_array().unwrap().contains(&live), "{deployment}");
    server.fetch("binary/active", &format!("{query}&count=3"));
    await_that("the positions to move", || {
        let consumers = get(&server, "consumers");
        let consumer = &consumers["consumers"][0];
        assert_eq!((&consumer["key"], &consumer["task"]), (&json!("p-1-binary-allsrc-alltype-LH"), &json!(true)));
        consumer["backlog"] == 0
    });
    let page = server.client().get("/metrics").expect_status(200).text();
    assert!(page.contains("azulite_consumer_lag{group=\"t1-azul-p-1-binary-allsrc-alltype-LH-live\"} 0\n"), "{page}");
}

#[test]
fn a_lost_task_is_told_of_in_the_name_of_its_plugin_even_after_a_crash() {
    let config = Config::examples();
    let mut server = Server::with(&config);
    server.publish_ok("binary", &json!([e1()]));
    let task = server.fetch("binary/active", CARVER).only().clone();
    let listed = server.cli(["lost-tasks", "--json"]).expect_code(0).json();
    assert_eq!((&listed["open"], &listed["tasks"][0]["id"]), (&json!(1), &task["dequeued"]), "{listed}");
    server.kill();
    server.configure(&config.set("events", "lost_tasks_after", "\"1ms\"").set(
        "events",
        "lost_tasks_check",
        "\"10ms\"",
    ));
    server.launch();
    let mut lost = Vec::new();
    await_that("the status of the lost task", || {
        lost.extend(server.fetch("status/passive", "name=s&version=1&deadline=0&r-historic=true").events);
        !lost.is_empty()
    });
    assert_eq!(lost[0]["author"], json!({"name": "Carver", "version": "1.2", "category": "plugin"}));
    assert_eq!(lost[0]["entity"]["status"], "error-network");
    assert_eq!(lost[0]["entity"]["error"], format!("lost task: {}", task["dequeued"].as_str().unwrap()));
    assert_eq!(lost[0]["entity"]["input"]["kafka_key"], E1_KEY);
    let page = server.client().get("/metrics").expect_status(200).text();
    assert!(page.contains("dispatcher_events_redis_tracking_control{origin=\"lost\"} 1"), "{page}");
    assert!(page.contains("dispatcher_events_redis_tracking{origin=\"lost-tasks\"} 0"), "{page}");
}

#[test]
fn tasks_are_listed_and_released_with_and_without_a_server() {
    let mut server = Server::start();
    server.publish_ok("binary", &json!([e1(), sourced(&id('b'), "lab"), sourced(&id('c'), "lab")]));
    let task = || server.fetch("binary/active", CARVER).only().clone();
    let (first, _second, _third) = (task(), task(), task());
    server.publish_ok("status", &json!([carver_status(&first, "completed-empty", &[])]));
    await_that("the first one to be closed", || {
        server.cli(["lost-tasks", "--json"]).expect_code(0).json()["open"] == 2
    });
    let none = server.cli(["lost-tasks", "--release", "--plugin", "Other", "--json"]).expect_code(0).json();
    assert_eq!(none, json!({"open": 0, "tasks": [], "released": 0}));
    server.stop();
    let listed = server.cli(["lost-tasks"]).expect_code(0).stdout;
    assert!(listed.contains("Carver  1.2") && listed.contains(&id('b')), "{listed}");
    let released = server.cli(["lost-tasks", "--release", "--plugin", "Carver", "--json"]).expect_code(0).json();
    assert_eq!((&released["open"], &released["released"]), (&json!(2), &json!(2)));
    server.launch();
    let statuses = server.fetch("status/passive", "name=s&version=1&count=9&deadline=0&r-historic=true").events;
    let words: Vec<&Value> = statuses.iter().map(|status| &status["entity"]["status"]).collect();
    assert_eq!(words, ["completed-empty", "error-network", "error-network"]);
    assert_eq!(server.cli(["lost-tasks", "--json"]).expect_code(0).json()["open"], 0);
}

#[test]
fn explain_names_the_position_the_filter_and_the_open_task() {
    let mut server = Server::start();
    server.publish_ok("binary", &json!([e1(), sourced(&id('b'), "lab")]));
    server.fetch("binary/active", &format!("{CARVER}&r-live=true"));
    server.fetch("binary/passive", "name=small&version=1&deadline=0&count=9&r-historic=true&r-under-content-size=4");
    server.fetch("binary/passive", "name=late&version=1&deadline=0&r-live=true&r-source=short");
    for running in [true, false] {
        if !running {
            server.stop();
        }
        let explain = |letter: char, plugin: &str| {
            server.cli(["explain", &id(letter), "--plugin", plugin, "--json"]).expect_code(0).json()
        };
        let state =
            |explained: &Value, group: usize| explained["events"][0]["consumers"][0]["groups"][group]["state"].clone();
        let mut first = Value::Null;
        await_that("the position to move", || {
            first = explain('a', "Carver");
            state(&first, 1) == "read"
        });
        assert_eq!(state(&first, 0), "before-start", "live began behind it: {first}");
        let fate = &first["events"][0]["consumers"][0];
        assert_eq!((&fate["filters"], fate["tasks"].as_array().unwrap().len()), (&json!([]), 1), "{first}");
        let second = explain('b', "Carver");
        assert_eq!((state(&second, 1), &second["events"][0]["consumers"][0]["tasks"]), (json!("to-come"), &json!([])));
        let small = explain('a', "small");
        let filters = &small["events"][0]["consumers"][0]["filters"];
        let because = "the content has 5 bytes, at most 4 are wanted (r-under-content-size)";
        assert_eq!(filters, &json!([{"filter": "FilterConsumerRules-reject_content_too_large", "because": because}]));
        assert_eq!(explain('a', "late")["events"][0]["consumers"][0]["groups"], json!([]), "another source");
        assert_eq!(explain('a', "nobody")["consumers"], json!([]));
        assert_eq!(explain('c', "Carver")["events"], json!([]));
        let text = server.cli(["explain", &id('a'), "--plugin", "small"]).expect_code(0).stdout;
        assert!(text.contains("already read") && text.contains(because), "{text}");
    }
    server.launch();
    server.client().get("/api/azulite/v1/explain/xyz?plugin=p").expect_error_titled(400, "bad hash");
    let unnamed = server.client().get(&format!("/api/azulite/v1/explain/{}", id('a')));
    unnamed.expect_error_titled(400, "bad parameters");
    for version in 0..105 {
        server.fetch("binary/passive", &format!("name=many&version={version}&count=1&deadline=0&r-historic=true"));
    }
    let many = server.cli(["explain", &id('a'), "--plugin", "many", "--json"]).expect_code(0).json();
    let listed = many["consumers"].as_array().expect("a list").len();
    assert_eq!((listed, &many["more_consumers"], &many["more"]), (100, &json!(true), &json!(false)));
    assert_eq!(many["events"][0]["consumers"].as_array().expect("a list").len(), 100);
}

#[test]
fn a_reset_while_another_get_of_the_key_waits_serves_both() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let query = |extra: &str| format!("name=p&version=1&r-historic=true{extra}");
    assert_eq!(server.fetch("binary/passive", &query("&count=1&deadline=5")).ids(), [id('a')]);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.fetch("binary/passive", &query("&count=2&deadline=20")).ids());
        await_that("the second GET to reach its reader", || server.fetches_of("p") == 2);
        let mut ids = server.fetch("binary/passive", &query("&count=1&deadline=0&reset=true")).ids();
        server.publish_ok("binary", &json!([sourced(&id('b'), "lab"), sourced(&id('c'), "lab")]));
        ids.extend(waiting.join().unwrap());
        ids.extend(server.fetch("binary/passive", &query("&count=9&deadline=0")).ids());
        ids.sort();
        assert_eq!(ids, [id('a'), id('b'), id('c')], "each once");
    });
}
