//! Tests that need more than one part of the module: the contract's examples and golden vectors, and properties.

mod avro_walk;
mod bodies;
mod emit_schema;
mod examples;
mod properties;
mod vectors;

use serde_json::Value;

use super::body::{Element, decode_body_json};
use super::types::{Event, Model};

/// A file of the contract's schemas folder.
fn fixture(path: &str) -> String {
    let file = format!("{}/tests/fixtures/schemas/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn fixture_json(path: &str) -> Value {
    serde_json::from_str(&fixture(path)).unwrap()
}

fn model(value: &Value) -> Model {
    Model::parse(value.as_str().unwrap()).unwrap()
}

fn json(event: &Event) -> Value {
    let text = super::to_json(event);
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)))
}

/// The only event of a JSON body.
fn one(model: Model, body: &str) -> Element {
    let mut elements = decode_body_json(model, body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert_eq!(elements.len(), 1);
    elements.remove(0)
}

/// An example of the contract as text, without the `.json` of its file name.
fn example(name: &str) -> String {
    fixture(&format!("examples/{name}.json"))
}

/// The path of `E1` of `events.md` section 11, the letters standing for hashes of 64 equal ones.
fn node(name: &str, category: &str, version: &str, action: &str, letter: char) -> Value {
    let hash = letter.to_string().repeat(64);
    serde_json::json!({
        "author": {"name": name, "category": category, "version": version, "security": "OFFICIAL"},
        "action": action, "sha256": hash, "timestamp": "2026-01-02T03:04:05Z"
    })
}

/// `E1` of `events.md` section 11.
fn e1() -> Value {
    let hash = "a".repeat(64);
    serde_json::json!({
        "model_version": 6, "kafka_key": "tmp", "timestamp": "2026-01-02T03:04:06Z",
        "author": {"name": "amy", "category": "user", "security": "OFFICIAL"},
        "source": {
            "name": "lab", "security": "OFFICIAL", "references": {"user": "amy"}, "timestamp": "2026-01-02T03:04:05Z",
            "path": [{
                "author": {"name": "amy", "category": "user", "security": "OFFICIAL"}, "action": "sourced",
                "sha256": hash, "timestamp": "2026-01-02T03:04:05Z", "file_format": "text/plain", "size": 5,
                "filename": "a.txt"
            }]
        },
        "entity": {
            "sha256": hash, "size": 5, "file_format": "text/plain",
            "datastreams": [{
                "label": "content", "size": 5, "sha512": "h", "sha256": hash, "sha1": "h", "md5": "h",
                "mime": "text/plain", "magic": "ASCII text", "file_format": "text/plain"
            }]
        },
        "action": "sourced"
    })
}
