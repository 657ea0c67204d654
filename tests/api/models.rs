//! The verdicts on the example events of the model contract, and their golden keys, tracking fields and stored forms.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::events::without;

pub(crate) fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schemas").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

struct Example {
    file: String,
    model: String,
    verdict: String,
    text: String,
}

impl Example {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("an example is JSON")
    }
}

fn examples() -> Vec<Example> {
    let index: Value = serde_json::from_str(&fixture("examples/index.json")).expect("the index is JSON");
    let field = |entry: &Value, name: &str| entry[name].as_str().expect("text in the index").to_owned();
    let load = |entry: &Value| Example {
        file: field(entry, "file"),
        model: field(entry, "model"),
        verdict: field(entry, "verdict"),
        text: fixture(&format!("examples/{}", field(entry, "file"))).trim().to_owned(),
    };
    let all: Vec<Example> = index.as_array().expect("a list").iter().map(load).collect();
    assert_eq!(all.len(), 60, "all files of the index");
    all
}

/// The golden vectors of one kind: `single`, `bulk` or `legacy`.
pub(crate) fn vectors(kind: &str) -> Vec<Value> {
    let vectors: Value = serde_json::from_str(&fixture("vectors.json")).expect("the vectors are JSON");
    vectors[kind].as_array().expect("a list").clone()
}

/// What the stored form of an example is: the decoded vector after the produce pipeline.
pub(crate) fn expected(vector: &Value) -> Value {
    expected_form(vector["decoded_json_after_avro"].clone())
}

/// What the produce pipeline makes of a decoded event that has its key and tracking fields already.
pub(crate) fn expected_form(event: Value) -> Value {
    let event = if event["entity"]["status"].is_string() && event["entity"]["status"] == "completed" {
        without(event, "/entity/results")
    } else {
        event
    };
    let depth = event["source"]["path"].as_array().map_or(0, Vec::len);
    let limit = event["source"]["settings"]["remove_at_depth"].as_str().and_then(|text| text.parse::<usize>().ok());
    if limit.is_some_and(|limit| depth >= limit) { without(event, "/source/settings") } else { event }
}

pub(crate) fn has_random_key(model: &str) -> bool {
    ["delete", "download", "retrohunt"].contains(&model)
}

#[test]
fn refused_examples_are_refused_the_way_the_index_says() {
    let server = Server::start();
    let examples = examples();
    let good = |model: &str| examples.iter().find(|e| e.model == model && e.verdict == "ok").expect("a good one");
    for example in examples.iter().filter(|example| example.verdict != "ok") {
        let target = format!("/api/v2/event?model={}", example.model);
        let alone = server.client().post(&target, example.text.as_bytes());
        let companion = &good(&example.model).text;
        let pair = server.client().post(&target, format!("[{companion},{}]", example.text).as_bytes());
        match example.verdict.as_str() {
            "event" => {
                let detail = alone.expect_any_error(425).json()["detail"].to_string();
                assert!(detail.contains("innerNewMsgInFlight "), "{}: {detail}", example.file);
                let answer = pair.expect_status(200).json();
                assert_eq!(answer["total_ok"], 1, "{}: {answer}", example.file);
                assert_eq!(answer["total_failures"], 1, "{}: {answer}", example.file);
                assert_eq!(answer["failures"][0]["event"], example.text, "{}", example.file);
                let error = answer["failures"][0]["error"].as_str().unwrap_or_default();
                assert!(error.starts_with("innerNewMsgInFlight "), "{}: {error}", example.file);
            }
            "request" | "write" => {
                for answer in [alone, pair] {
                    let title = answer.expect_any_error(422).json()["title"].clone();
                    assert_eq!(title, "PostEvent TransformEvents invalid events", "{}", example.file);
                }
            }
            other => panic!("unknown verdict {other} of {}", example.file),
        }
    }
}

#[test]
fn accepted_examples_get_their_golden_keys_and_come_back_in_their_golden_form() {
    let server = Server::start();
    let (examples, vectors) = (examples(), vectors("single"));
    let read = |model: &str, deadline: u32| {
        let flows = if model == "binary" { "r-expedite=true&r-historic=true" } else { "r-historic=true" };
        let query = format!("name=golden&version=1&count=1000&deadline={deadline}&{flows}");
        server.fetch(&format!("{model}/passive"), &query).events
    };
    assert!(read("binary", 0).is_empty(), "registers for the expedite topic");
    // Deletes come last: they would filter the others.
    for model in ["binary", "status", "download", "plugin", "retrohunt", "insert", "delete"] {
        let mut wanted: Vec<Value> = Vec::new();
        for example in examples.iter().filter(|e| e.model == model && e.verdict == "ok") {
            let ok = server.publish_ok(model, &example.json());
            assert_eq!(ok.len(), 1, "{}", example.file);
            let name = example.file.trim_end_matches(".json");
            let vector = vectors.iter().find(|v| v["example"] == name).expect("a vector for each good example");
            check_ok(&ok[0], vector, &example.file);
            wanted.push(expected(vector));
        }
        let stored = read(model, 1);
        for event in &wanted {
            let key = if has_random_key(model) { "/kafka_key" } else { "/nothing" };
            let same = |other: &&Value| without((*other).clone(), key) == without(event.clone(), key);
            assert!(stored.iter().any(|other| same(&other)), "{model}: missing {event}\nin {stored:#?}");
        }
    }
}

pub(crate) fn check_ok(ok: &Value, vector: &Value, file: &str) {
    if let Some(key) = vector["kafka_key"].as_str() {
        assert_eq!(ok["kafka_key"], key, "{file}");
    }
    for field in ["track_source_references", "track_links", "track_authors", "track_link", "track_author"] {
        assert_eq!(ok.get(field), vector.get(field), "{field} of {file}");
    }
    assert_eq!(ok["model_version"], json!(6), "{file}");
}
