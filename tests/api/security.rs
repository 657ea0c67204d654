//! `max-security` with configured labels, and without any. Contract events.md 5.5.3.

use serde_json::{Value, json};

use crate::support::events::{id, sourced, with};
use crate::support::process::run;
use crate::support::{Config, Server};

fn labelled() -> Config {
    let labels = |names: &[&str]| {
        let options: Vec<String> = names.iter().map(|name| format!("{{ name = \"{name}\" }}")).collect();
        format!("[{}]", options.join(", "))
    };
    Config::examples()
        .set("security.labels.classification", "options", &labels(&["LOW", "LOW: LY", "MEDIUM", "HIGH", "TOP HIGH"]))
        .set("security.labels.caveat", "options", &labels(&["MOD1", "MOD2", "MOD3"]))
        .set("security.labels.releasability", "options", &labels(&["REL:APPLE", "REL:BEE"]))
        .set("security.labels.tlp", "options", "[{ name = \"TLP:AMBER\", enforce_security = true }]")
}

/// One event for each marking; the letters of the ids say which.
fn marked(markings: &[&str]) -> Value {
    let event =
        |(letter, marking): (char, &&str)| with(sourced(&id(letter), "lab"), "/source/security", json!(marking));
    ('a'..='z').zip(markings).map(event).collect()
}

fn got(server: &Server, path: &str, version: &str, max: &str, count: usize) -> (Vec<String>, u64) {
    let query = format!("name=p&version={version}&count={count}&deadline=0&r-historic=true&max-security={max}");
    let batch = server.fetch(path, &query);
    let dropped = batch.info["filters"]["FilterSecurity-max_security"].as_u64().unwrap_or(0);
    assert_eq!(batch.info["filtered"], dropped, "{batch:?}");
    let first = |id: String| id.chars().take(1).collect::<String>();
    (batch.ids().into_iter().map(first).collect(), dropped)
}

#[test]
fn consumers_get_what_their_marking_lets_them_see() {
    let server = Server::with(&labelled());
    let markings =
        ["LOW", "low//mod1", "MEDIUM REL:APPLE,BEE", "TOP HIGH", "MEDIUM MOD2", "Random", "LOW TLP:AMBER", ""];
    server.publish_ok("binary", &marked(&markings));
    let letters = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
    assert_eq!(got(&server, "binary/passive", "1", "MEDIUM%20MOD1%20REL:APPLE", 20), (letters("abch"), 4));
    assert_eq!(got(&server, "binary/passive", "2", "low", 20), (letters("ah"), 6));
    assert_eq!(got(&server, "binary/passive", "3", "TOP%20HIGH%20MOD1%20MOD2%20REL:BEE%20TLP:AMBER", 20).1, 1);
    assert_eq!(got(&server, "binary/passive", "4", "Random", 20), (letters("h"), 7));
    assert_eq!(got(&server, "binary/passive", "5", "", 20).0.len(), 8, "who asks for no limit has none");
    assert_eq!(got(&server, "binary/active", "6", "LOW", 20), (letters("ah"), 6));
}

#[test]
fn downloads_are_withheld_and_other_models_are_not() {
    let server = Server::with(&labelled());
    let amy = json!({"name": "amy", "category": "user"});
    let source = sourced(&id('a'), "lab")["source"].clone();
    let download = json!({"model_version": 6, "timestamp": "2026-01-02T03:04:06Z", "author": amy, "action": "requested",
        "source": source, "entity": {"hash": id('a')}});
    let high = with(download.clone(), "/source/security", json!("HIGH"));
    let low = with(download, "/source/security", json!("LOW"));
    server.publish_ok("download", &json!([high, low]));
    let batch =
        server.fetch("download/passive", "name=p&version=1&count=5&deadline=0&r-historic=true&max-security=MEDIUM");
    assert_eq!(batch.only()["source"]["security"], "LOW");
    assert_eq!(batch.info["filters"], json!({"FilterSecurity-max_security": 1}));
}

#[test]
fn without_labels_a_limit_lets_nothing_through_that_is_marked() {
    let server = Server::start();
    server.publish_ok("binary", &marked(&["LOW", ""]));
    assert_eq!(got(&server, "binary/passive", "1", "LOW", 5), (vec!["b".to_owned()], 1));
}

#[test]
fn bad_labels_stop_the_start_by_name() {
    let bad = labelled().set("security.labels.caveat", "options", "[{ name = \"LOW\" }]");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, bad.text()).unwrap();
    let ran = run(["--config", file.to_str().unwrap(), "serve"]).expect_code(2);

    assert!(ran.stderr.contains("security.labels.caveat.options = \"LOW\": is also in"), "{}", ran.stderr);
    assert!(ran.stderr.contains("bad.toml:"), "{}", ran.stderr);
}
