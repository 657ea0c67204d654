//! Sources and topics: from upstream's environment variables, raised and rewritten at start, and made on first use.
//! Contract events.md 4.3 and section 8.

use serde_json::{Value, json};

use crate::support::events::{e1, id, sourced};
use crate::support::http::Body;
use crate::support::process::azulite;
use crate::support::{Config, Server};

fn topic(server: &Server, name: &str) -> Value {
    server.cli(["topics", "describe", name, "--json"]).expect_code(0).json()
}

const SOURCES: &str = "sources:\n  yaml:\n    description: from a document\n    expire_events_after: 2 days\n\
                       \x20   kafka: {numpartitions: 3, config: {segment.bytes: \"1048576\"}}\n";

#[test]
fn documents_in_the_environment_make_topics() {
    let server = Server::prepared(&Config::examples())
        .env("DP__EVENTS__SOURCES", SOURCES)
        .env("DP__EVENTS__TOPICS", "[{topic: system.status, numpartitions: 2, config: {retention.ms: 5000}}]")
        .started();
    let made = topic(&server, "azul.t1.yaml.binary.enriched");
    assert_eq!(made["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(made["config"]["retention.ms"], "172800000");
    assert_eq!(made["config"]["cleanup.policy"], "delete");
    assert_eq!(made["config"]["segment.bytes"], "1048576");
    let status = topic(&server, "azul.t1.system.status");
    assert_eq!(status["partitions"].as_array().map(Vec::len), Some(2));
    assert_eq!(status["config"]["retention.ms"], "5000");
    assert_eq!(status["config"]["cleanup.policy"], "delete", "what is not given is kept");
    server.publish("binary", "", &json!([sourced(&id('a'), "yaml")])).expect_any_error(425);
}

#[test]
fn a_bad_document_stops_the_start_by_name() {
    let server = Server::prepared(&Config::examples());
    let config = server.config_path();
    for (variable, value, expected) in [
        (
            "DP__EVENTS__SOURCES",
            "sources: {a: {expire_events_after: 2 fortnights}}",
            "environment DP__EVENTS__SOURCES: sources.a.expire_events_after = \"2 fortnights\": allowed is",
        ),
        ("DP__EVENTS__SOURCES", "sources: [", "environment DP__EVENTS__SOURCES: sources = "),
        ("DP__EVENTS__SOURCES", "sources: {a.b: {}}", "sources.\"a.b\" = { .. }: a source name may not hold a dot"),
        (
            "DP__EVENTS__TOPICS",
            "[{topic: system.status, config: {retention.mss: 1}}]",
            "environment DP__EVENTS__TOPICS: topics.\"system.status\".config.\"retention.mss\" = \"1\": allowed is",
        ),
        ("DP__EVENTS__GLOBAL_REPLICA_COUNT", "none", "environment DP__EVENTS__GLOBAL_REPLICA_COUNT: "),
    ] {
        let ran = azulite().args(["config", "check", "--config"]).arg(&config).env(variable, value).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{variable}={value}: {said}");
    }
}

#[test]
fn topics_grow_and_are_configured_anew_at_the_next_start_and_keep_what_was_set_by_hand() {
    const TOPIC: &str = "azul.t1.lab.binary.sourced";
    let mut server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let change = Body::Sized(br#"{"config": {"max.message.bytes": "5000000"}}"#);
    server.client().request("PATCH", &format!("/api/azulite/v1/topics/{TOPIC}"), &[], change).expect_status(200);
    assert_eq!(topic(&server, TOPIC)["config"]["cleanup.policy"], "compact");
    server.stop();
    let grown = Config::examples().set("sources.lab", "kafka.numpartitions", "2");
    server.configure(&grown.clone().set("sources.lab", "expire_events_after", "\"99 years\""));
    server.launch();
    let changed = topic(&server, TOPIC);
    assert_eq!(changed["partitions"].as_array().map(Vec::len), Some(2));
    assert_eq!(changed["config"]["cleanup.policy"], "delete");
    assert_eq!(changed["config"]["max.message.bytes"], "5000000");
    let query = "name=p&version=1&count=1&deadline=0&r-historic=true";
    assert_eq!(server.fetch("binary/passive", query).events.len(), 1);

    server.stop();
    server.configure(&Config::examples());
    server.announce("more partitions than configured");
    server.launch();
    assert_eq!(topic(&server, TOPIC)["partitions"].as_array().map(Vec::len), Some(2));
    server.stop();
    server.configure(&Config::examples().set("events", "ignore_topic_mismatch", "false"));
    let ran = server.cli(["serve"]).expect_code(1);
    assert!(ran.stderr.contains("has 2 partitions and is to have 1"), "{ran:?}");
}

#[test]
fn readers_that_wait_get_the_first_event_of_a_source_nobody_configured() {
    let server = &Server::start();
    for (version, query) in [("1", "r-live=true"), ("2", "r-historic=true"), ("3", "r-live=true&r-source=surprise")] {
        let query = format!("name=w&version={version}&count=1&{query}");
        assert!(server.fetch("binary/passive", &format!("{query}&deadline=0")).events.is_empty());
    }
    std::thread::scope(|scope| {
        let waiting = ["name=w&version=1&count=1&r-live=true", "name=w&version=2&count=1&r-historic=true"];
        let only = "name=w&version=3&count=1&r-live=true&r-source=surprise";
        let waiters: Vec<_> = waiting
            .into_iter()
            .chain([only])
            .map(|query| scope.spawn(move || server.fetch("binary/passive", &format!("{query}&deadline=20"))))
            .collect();
        server.publish_ok("binary", &json!([sourced(&id('a'), "surprise")]));
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().only()["source"]["name"], "surprise");
        }
    });
    let made = topic(server, "azul.t1.surprise.binary.sourced");
    assert_eq!((&made["config"]["retention.ms"], &made["config"]["cleanup.policy"]), (&json!("-1"), &json!("compact")));
}
