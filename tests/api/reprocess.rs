//! `reprocess`: events of another prefix, with and without a running server. Contract events.md 7.1.

use serde_json::{Value, json};

use crate::support::events::{E1_KEY, e1, e1_final};
use crate::support::{Config, Server};

/// A store with `E1` under prefix `t0`, and a configuration for prefix `t1`; no process.
fn moved() -> Server {
    let mut server = Server::with(&Config::examples().set("events", "topic_prefix", "\"t0\""));
    server.publish_ok("binary", &json!([e1()]));
    server.stop();
    server.configure(&Config::examples());
    server
}

fn legacy(model: &str, version: u64) -> Vec<u8> {
    use base64::Engine as _;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/schemas/vectors.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let wanted =
        |vector: &&Value| vector["model"] == model && vector["version"] == version && vector["form"] == "single";
    let vector = vectors["legacy"].as_array().unwrap().iter().find(wanted).unwrap();
    base64::engine::general_purpose::STANDARD.decode(vector["avro_base64"].as_str().unwrap()).unwrap()
}

/// Writes values into a topic by hand.
fn produce(server: &Server, topic: &str, values: &[&[u8]]) {
    for value in values {
        let file = server.folder().join("value");
        std::fs::write(&file, value).unwrap();
        server.cli(["produce", topic, "--key", "k", "--file", file.to_str().unwrap()]).expect_code(0);
    }
}

const FLAGS: [&str; 4] = ["reprocess", "--sources", "--previous-prefix", "t0"];

fn copied(ran: &Value) -> u64 {
    ran["topics"].as_array().unwrap().iter().map(|topic| topic["copied"].as_u64().unwrap()).sum()
}

fn historic(server: &Server, version: &str) -> Vec<Value> {
    let query = format!("name=r&version={version}&count=10&deadline=0&r-historic=true");
    server.fetch("binary/passive", &query).events
}

#[test]
fn events_move_to_another_prefix_without_a_server() {
    let mut server = moved();
    let dry = server.cli(FLAGS.iter().chain(&["--dry-run", "--json"]).copied()).expect_code(0).json();
    assert_eq!((copied(&dry), &dry["stage"]), (1, &json!("done")), "{dry}");
    let ran = server.cli(FLAGS.iter().chain(&["--json"]).copied()).expect_code(0).json();
    assert_eq!((copied(&ran), &ran["stage"]), (1, &json!("done")), "{ran}");
    let again = server.cli(FLAGS).expect_code(0);
    assert!(again.stdout.starts_with("TOPIC"), "{again:?}");
    server.launch();
    assert_eq!(historic(&server, "1"), [e1_final()], "once, with the same key");
    assert!(server.cli(["groups", "list"]).expect_code(0).stdout.contains("t1-reprocess-earliest"));
}

#[test]
fn old_versions_and_bad_records_go_through_a_running_server() {
    let mut server = Server::start();
    let (v4, v5) = (legacy("binary", 4), legacy("binary", 5));
    produce(&server, "azul.t0.samples.binary.sourced", &[&v4, b"rubbish", &v5]);
    server.announce("a record cannot be reprocessed");
    let ran = server.cli(FLAGS.iter().chain(&["--json"]).copied()).expect_code(1);
    assert!(ran.stderr.contains("azul.t0.samples.binary.sourced, partition 0, offset 1"), "{ran:?}");
    let ran = ran.json();
    assert_eq!((copied(&ran), &ran["topics"][0]["bad"]), (2, &json!(1)), "{ran}");
    let events = historic(&server, "1");
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event["model_version"] == 6 && event["kafka_key"] != E1_KEY), "{events:?}");

    let looked = server.client().get("/api/azulite/v1/reprocess").expect_status(200).json();
    assert_eq!(looked, ran, "the last run is shown until the next one");
    let metrics = server.client().get("/metrics").text();
    let count = "reprocessor_event_count{source_topic=\"azul.t0.samples.binary.sourced\"} 2";
    let eof = "reprocessor_eof{source_topic=\"azul.t0.samples.binary.sourced\"} 1";
    assert!(metrics.contains(count) && metrics.contains(eof), "{metrics}");

    produce(&server, "azul.t0.system.insert", &[&legacy("insert", 5)]);
    let system = ["reprocess", "--system", "--previous-prefix", "t0", "--json"];
    assert_eq!(copied(&server.cli(system).expect_code(0).json()), 1);
    let query = "name=r&version=1&count=5&deadline=0&r-historic=true";
    assert_eq!(server.fetch("insert/passive", query).events.len(), 1);
}

#[test]
fn runs_without_sense_are_refused() {
    let server = Server::start();
    let ran = server.cli(["reprocess", "--previous-prefix", "t0"]).expect_code(2);
    assert!(ran.stderr.contains("no configured profile for reprocessor"), "{ran:?}");
    server.cli(["reprocess", "--sources", "--system", "--previous-prefix", "t0"]).expect_code(2);
    let none = server.cli(FLAGS).expect_code(1);
    assert!(none.stderr.contains("no topics found to reprocess"), "{none:?}");
    let same = server.cli(["reprocess", "--sources", "--previous-prefix", "t1"]).expect_code(2);
    assert!(same.stderr.contains("is the current one"), "{same:?}");
    server.client().get("/api/azulite/v1/reprocess").expect_any_error(404);
    server.client().post("/api/azulite/v1/reprocess", b"{}").expect_any_error(400);
    let body = br#"{"previous_prefix": "", "profile": "sources"}"#;
    server.client().post("/api/azulite/v1/reprocess", body).expect_any_error(400);
    let mut server = server;
    server.stop();
    server.cli(["reprocess", "--sources", "--previous-prefix", "t1"]).expect_code(2);
}

#[test]
fn plugins_are_paused_by_copying_with_and_without_a_server() {
    for running in [true, false] {
        let mut server = moved();
        if running {
            server.launch();
        }
        server.cli(FLAGS).expect_code(0);
        if !running {
            server.launch();
        }
        let batch = server.fetch("binary/active", "name=p&version=1&count=1&deadline=5&r-historic=true");
        assert_eq!((&batch.info["paused"], batch.events.len()), (&json!(true), 0), "server: {running}");
    }
}
