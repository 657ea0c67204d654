//! The contract's example events get the verdicts its index lists.

use super::super::{BodyError, Model, check_valid, decode_body_json, is_source_name};
use super::{e1, example, fixture_json, json, model, node, one};

#[test]
fn every_example_gets_its_verdict_and_rule() {
    let index = fixture_json("examples/index.json");
    let entries = index.as_array().unwrap();
    assert_eq!(entries.len(), 60);
    for entry in entries {
        let file = entry["file"].as_str().unwrap();
        let text = example(file.strip_suffix(".json").unwrap());
        let rule = entry["rule"].as_str().unwrap();
        let got = decode_body_json(model(&entry["model"]), text.as_bytes());
        match entry["verdict"].as_str().unwrap() {
            "ok" => assert!(got.as_ref().is_ok_and(|elements| elements[0].event.is_ok()), "{file}: {got:?}"),
            "event" => {
                let elements = got.unwrap();
                assert_eq!(elements[0].raw, text.trim(), "{file}");
                assert_eq!(elements[0].event.as_ref().unwrap_err().rule, rule, "{file}");
            }
            "request" | "write" => assert_eq!(request_rule(&got.unwrap_err()), rule, "{file}"),
            other => panic!("{file}: verdict {other}"),
        }
    }
}

/// The rule a refusal stands for; members and timestamps share a variant and differ in the text.
fn request_rule(error: &BodyError) -> &'static str {
    match error {
        BodyError::TooOld { .. } => "version-too-old",
        BodyError::VersionUnknown { .. } => "version-unknown",
        BodyError::Corrupt { reason, .. } if reason.contains("RFC 3339") => "timestamp-form",
        BodyError::Corrupt { .. } => "member-type",
        BodyError::TooSmall | BodyError::InvalidJson | BodyError::JsonNotAvro | BodyError::Avro(_) => "other",
    }
}

#[test]
fn known_error_texts_are_kept() {
    let mut no_author = e1();
    no_author["author"] = serde_json::json!({"name": ""});
    let invalid = one(Model::Binary, &no_author.to_string()).event.unwrap_err();
    assert_eq!(invalid.to_string(), "event is missing 'author' field");
    let invalid = one(Model::Status, &example("bad_status_without_dequeued")).event.unwrap_err();
    assert_eq!(invalid.to_string(), "entity status missing entity.input.dequeued");
}

#[test]
fn unreadable_names_the_field_the_value_and_what_is_allowed() {
    let message = |model, name| one(model, &example(name)).event.unwrap_err().message;
    assert_eq!(message(Model::Binary, "binary_info_is_a_list"), "entity.info is a list, only an object is allowed");
    let text = message(Model::Binary, "binary_unknown_feature_type");
    assert!(text.starts_with("entity.features[0].type \"") && text.contains("one of: integer, float"), "{text}");
    let text = message(Model::Insert, "insert_unknown_child_action");
    assert!(text.starts_with("entity.child_history.action \""), "{text}");
}

#[test]
fn unreadable_parts_of_nested_events_are_found() {
    let mut status: serde_json::Value = serde_json::from_str(&example("status_completed_with_results")).unwrap();
    let mut result = status["entity"]["results"][0].clone();
    result["entity"]["info"] = serde_json::json!(7);
    status["entity"]["results"] = serde_json::json!([status["entity"]["results"][0], result]);
    let invalid = one(Model::Status, &status.to_string()).event.unwrap_err();
    assert_eq!(invalid.rule, "unreadable");
    assert_eq!(invalid.message, "entity.results[1].entity.info is a number, only an object is allowed");

    status["entity"]["input"]["action"] = serde_json::Value::Null;
    let invalid = one(Model::Status, &status.to_string()).event.unwrap_err();
    assert!(invalid.message.starts_with("entity.input.action \"\" is not one of: sourced"), "{invalid}");
}

#[test]
fn times_that_no_reader_can_represent_are_unreadable() {
    let mut event = e1();
    event["source"]["timestamp"] = serde_json::json!("0001-01-01T00:00:00+10:00");
    let invalid = one(Model::Binary, &event.to_string()).event.unwrap_err();
    assert_eq!(invalid.rule, "unreadable");
    assert!(invalid.message.starts_with("source.timestamp "), "{invalid}");
}

#[test]
fn first_failing_rule_wins() {
    let mut event = e1();
    let mut expect = |rule, change: &dyn Fn(&mut serde_json::Value)| {
        change(&mut event);
        assert_eq!(one(Model::Binary, &event.to_string()).event.unwrap_err().rule, rule);
    };
    // Each change breaks a rule that comes before those broken already.
    expect("unreadable", &|event| event["entity"]["info"] = serde_json::json!("x"));
    expect("enriched-not-leaf", &|event| {
        event["source"]["path"] = serde_json::json!([
            node("amy", "user", "", "enriched", 'a'),
            node("Carver", "plugin", "1", "extracted", 'b')
        ]);
    });
    expect("second-label-needed", &|event| event["action"] = serde_json::json!("augmented"));
    expect("content-needed", &|event| event["entity"]["datastreams"][0]["label"] = serde_json::json!("text"));
    expect("action-unknown", &|event| event["action"] = serde_json::json!("Sourced"));
    expect("stream-label", &|event| event["entity"]["datastreams"][0]["label"] = serde_json::json!("Content"));
    expect("node-author", &|event| event["source"]["path"][1]["author"]["name"] = serde_json::json!(""));
    expect("node-action", &|event| event["source"]["path"][1]["action"] = serde_json::json!("x"));
    expect("node-sha256", &|event| event["source"]["path"][1]["sha256"] = serde_json::json!(""));
    expect("source-name", &|event| event["source"]["name"] = serde_json::json!("a.b"));
    expect("path-empty", &|event| event["source"]["path"] = serde_json::json!([]));
    expect("action-missing", &|event| event["action"] = serde_json::json!(""));
    expect("author-name", &|event| event["author"] = serde_json::json!({}));
}

#[test]
fn source_names_are_parts_of_topic_names() {
    for name in ["a", "lab", "Lab_2-x", &"a".repeat(120)] {
        assert!(is_source_name(name), "{name}");
    }
    for name in ["", "a.b", ".", "a b", "a/b", "ä", "a\n", &"a".repeat(121)] {
        assert!(!is_source_name(name), "{name}");
    }
    let mut download: serde_json::Value = serde_json::from_str(&example("download_requested")).unwrap();
    download["source"]["name"] = serde_json::json!("../x");
    let invalid = one(Model::Download, &download.to_string()).event.unwrap_err();
    assert_eq!(invalid.rule, "source-name");
    assert!(invalid.message.starts_with("source.name \"../x\" is not allowed"), "{invalid}");
}

#[test]
fn accepted_examples_come_back_from_their_own_json() {
    for entry in fixture_json("examples/index.json").as_array().unwrap() {
        if entry["verdict"] == "ok" {
            let model = model(&entry["model"]);
            let event = one(model, &example(entry["file"].as_str().unwrap().strip_suffix(".json").unwrap()));
            let event = event.event.unwrap();
            let again = one(model, &json(&event).to_string()).event.unwrap();
            assert_eq!(json(&again), json(&event), "{}", entry["file"]);
            assert_eq!(check_valid(&again), Ok(()));
        }
    }
}
