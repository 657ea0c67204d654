//! The events of the worked examples, and small ways to change them.

use serde_json::{Value, json};

/// The key of the event `e1` (vector V1).
pub(crate) const E1_KEY: &str = "419d55d8a85cf11e3b9bd17486279a68";
/// The key of its child extracted by Carver (vector V2).
pub(crate) const CHILD_KEY: &str = "c28af1bebcf545170cbc589b715b25aa";

/// The contract's `A`, `B`, `C`: 64 times the letter in lower case.
pub(crate) fn id(letter: char) -> String {
    std::iter::repeat_n(letter.to_ascii_lowercase(), 64).collect()
}

/// The example event `E1`: `a.txt` of five bytes, sourced by amy in `lab`.
pub(crate) fn e1() -> Value {
    sourced(&id('a'), "lab")
}

/// `E1` for another file and source.
pub(crate) fn sourced(sha256: &str, source: &str) -> Value {
    let amy = json!({"name": "amy", "category": "user", "security": "OFFICIAL"});
    json!({"model_version": 6, "kafka_key": "tmp", "timestamp": "2026-01-02T03:04:06Z",
        "author": amy,
        "source": {"name": source, "security": "OFFICIAL", "references": {"user": "amy"},
            "timestamp": "2026-01-02T03:04:05Z",
            "path": [{"author": amy, "action": "sourced", "sha256": sha256, "timestamp": "2026-01-02T03:04:05Z",
                "file_format": "text/plain", "size": 5, "filename": "a.txt"}]},
        "entity": {"sha256": sha256, "size": 5, "file_format": "text/plain",
            "datastreams": [{"label": "content", "size": 5, "sha512": "H", "sha256": sha256, "sha1": "H",
                "md5": "H", "mime": "text/plain", "magic": "ASCII text", "file_format": "text/plain"}]},
        "action": "sourced"})
}

/// `E1` as it is stored: with its key and tracking fields.
pub(crate) fn e1_final() -> Value {
    let event = with(e1(), "/kafka_key", json!(E1_KEY));
    let event = with(event, "/track_source_references", json!("lab.24595c1dbfa61e4c53f4b6e991cd0fe5"));
    let event = with(event, "/track_authors", json!(["user.amy."]));
    with(event, "/flags", json!({}))
}

/// The file `B` that Carver extracts from `parent`, as in X10.
pub(crate) fn carved(parent: &Value) -> Value {
    let carver = json!({"name": "Carver", "version": "1.2", "category": "plugin"});
    let b = id('b');
    let mut source = parent["source"].clone();
    source["path"]
        .as_array_mut()
        .expect("a path")
        .push(json!({"author": carver, "action": "extracted", "sha256": b, "timestamp": "2026-01-02T03:05:00Z"}));
    json!({"model_version": 6, "timestamp": "2026-01-02T03:05:00Z", "action": "extracted", "author": carver,
        "source": source,
        "entity": {"sha256": b, "datastreams": [{"label": "content", "size": 3, "sha512": "H", "sha256": b,
            "sha1": "H", "md5": "H", "mime": "x", "magic": "x"}]}})
}

/// Carver's status `word` about the task it got, as in X10, with `results`.
pub(crate) fn carver_status(task: &Value, word: &str, results: &[Value]) -> Value {
    let input = ["features", "datastreams", "info"]
        .iter()
        .fold(task.clone(), |event, member| without(event, &format!("/entity/{member}")));
    json!({"model_version": 6, "timestamp": "2026-01-02T03:05:01Z",
        "author": {"name": "Carver", "version": "1.2", "category": "plugin"},
        "entity": {"status": word, "runtime": 1.5, "input": input, "results": results}})
}

/// A plugin registration of Carver 1.2, as in X23.
pub(crate) fn carver_registration() -> Value {
    let carver = json!({"name": "Carver", "version": "1.2", "category": "plugin"});
    json!({"model_version": 6, "timestamp": "2026-01-02T00:00:00Z", "author": carver, "entity": carver})
}

/// `event` with the member at `pointer` (JSON Pointer) set to `value`.
pub(crate) fn with(mut event: Value, pointer: &str, value: Value) -> Value {
    let (parent, member) = pointer.rsplit_once('/').expect("a JSON pointer");
    let parent = event.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent} in the event"));
    parent.as_object_mut().expect("an object").insert(member.to_owned(), value);
    event
}

/// `event` without the member at `pointer`.
pub(crate) fn without(mut event: Value, pointer: &str) -> Value {
    let (parent, member) = pointer.rsplit_once('/').expect("a JSON pointer");
    if let Some(object) = event.pointer_mut(parent).and_then(Value::as_object_mut) {
        object.remove(member);
    }
    event
}
