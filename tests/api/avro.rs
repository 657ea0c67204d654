//! Avro over HTTP, both ways: worked example X19, the golden containers of every model and version, and bad ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::models::{check_ok, expected, expected_form, has_random_key, vectors};
use crate::support::batch::parts;
use crate::support::events::{e1, e1_final, id, sourced, with, without};
use crate::support::{Client, Server};

const EMPTY: &[u8] = &[0x0c, 0x00];
/// Deletes come last: they would filter the others.
const MODELS: [&str; 7] = ["binary", "status", "download", "plugin", "retrohunt", "insert", "delete"];

fn bytes_of(vector: &Value, field: &str) -> Vec<u8> {
    STANDARD.decode(vector[field].as_str().expect("base64 text")).expect("base64")
}

/// The info and the bytes of the events part.
fn get_avro(server: &Server, model: &str, query: &str) -> (Value, Vec<u8>) {
    let target = format!("/api/v2/event/{model}/passive?{query}&avro-format=true");
    let (info, events) = parts(&server.client().get(&target));
    (serde_json::from_slice(&info).expect("info is JSON"), events)
}

fn all_flows(model: &str) -> &'static str {
    if model == "binary" { "r-expedite=true&r-historic=true" } else { "r-historic=true" }
}

fn post_avro(server: &Server, model: &str, body: &[u8]) -> crate::support::Response {
    server.client().post(&format!("/api/v2/event?model={model}&avro-format=true&include_ok=true"), body)
}

/// What was taken of a container: every event of it.
fn taken(server: &Server, model: &str, body: &[u8], count: usize) -> Vec<Value> {
    let answer = post_avro(server, model, body).expect_status(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer = answer.json();
    assert_eq!(answer["total_ok"], count, "{model}: {answer}");
    assert_eq!(answer["total_failures"], 0, "{model}: {answer}");
    assert_eq!(answer["failures"], json!([]), "{model}: a list, never null");
    answer["ok"].as_array().expect("include_ok gives JSON for Avro posts too").clone()
}

/// One event in a container of version 6, written as one block without its length.
fn container(event: &[u8]) -> Vec<u8> {
    [&[0x0c, 0x02], event, &[0x00]].concat()
}

fn replace_first(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = body.windows(from.len()).position(|window| window == from).expect("the bytes to replace");
    [&body[..at], to, &body[at + from.len()..]].concat()
}

#[test]
fn x19_nothing_is_two_bytes_for_every_model() {
    let server = Server::start();
    for model in MODELS {
        let (info, events) = get_avro(&server, model, "name=n&version=1&deadline=0&r-historic=true");
        assert_eq!((info["fetched"].as_u64(), events.as_slice()), (Some(0), EMPTY), "{model}");
    }
    let bulk = vectors("bulk");
    for vector in bulk.iter().filter(|vector| vector["events"].as_array().is_some_and(Vec::is_empty)) {
        assert_eq!(bytes_of(vector, "avro_v6_base64"), EMPTY, "the golden bytes are the same: {vector}");
    }
}

#[test]
fn x19_a_container_read_from_one_instance_has_the_same_keys_in_another() {
    let (first, second) = (Server::start(), Server::start());
    for server in [&first, &second] {
        assert_eq!(get_avro(server, "binary", "name=n&version=1&deadline=0&r-expedite=true&r-historic=true").1, EMPTY);
    }
    let examples = vectors("single");
    for model in MODELS {
        let good: Vec<&Value> = examples.iter().filter(|v| v["model"] == model && is_readable(v)).collect();
        for vector in &good {
            taken(&first, model, &container(&bytes_of(vector, "avro_v6_base64")), 1);
        }
        let (info, bulk) =
            get_avro(&first, model, &format!("name=n&version=1&count=100&deadline=1&{}", all_flows(model)));
        let stored = info["fetched"].as_u64().and_then(|n| usize::try_from(n).ok()).expect("a count");
        assert!(stored >= good.len(), "{model}: {info}");
        let copied = taken(&second, model, &bulk, stored);
        let keys = |server: &Server| -> Vec<Value> {
            let query = format!("name=keys&version=1&count=100&deadline=1&{}", all_flows(model));
            let mut keys: Vec<_> = server.fetch(&format!("{model}/passive"), &query).events;
            keys.iter_mut().for_each(|event| *event = event["kafka_key"].take());
            keys.sort_by_key(ToString::to_string);
            keys
        };
        // A binary whose settings were cleared at their depth has another key without them.
        if !has_random_key(model) && model != "binary" {
            assert_eq!(keys(&first), keys(&second), "{model}");
        }
        assert_eq!(copied.len(), stored, "{model}");
    }
}

/// Whether typed readers can read the event; the others are refused at POST.
fn is_readable(vector: &Value) -> bool {
    let unreadable = [
        "binary_info_is_a_list",
        "binary_unknown_feature_type",
        "status_unknown_status_word",
        "insert_unknown_child_action",
        "delete_unknown_action",
    ];
    !unreadable.iter().any(|name| vector["example"] == *name)
}

#[test]
fn keys_survive_the_way_through_avro_unless_the_zone_of_the_source_time_was_in_them() {
    let (first, second) = (Server::start(), Server::start());
    first.publish_ok("binary", &json!([e1(), sourced(&id('b'), "lab")]));
    let zoned = with(sourced(&id('c'), "lab"), "/source/timestamp", json!("2026-01-02T13:04:05+10:00"));
    let in_its_zone = first.publish_ok("binary", &zoned);
    let (info, bulk) = get_avro(&first, "binary", "name=n&version=1&count=10&deadline=1&r-historic=true");
    assert_eq!(info["fetched"], 3);
    let ok = taken(&second, "binary", &bulk, 3);
    assert_eq!(ok[0], e1_final());
    let in_utc = second.publish_ok("binary", &sourced(&id('c'), "lab"));
    assert_eq!(ok[2]["kafka_key"], in_utc[0]["kafka_key"]);
    assert_ne!(ok[2]["kafka_key"], in_its_zone[0]["kafka_key"]);
    let events = second.fetch("binary/passive", "name=n&version=1&count=10&deadline=1&r-historic=true").events;
    assert_eq!(events[0], e1_final());
}

#[test]
fn every_golden_event_is_taken_as_avro_with_the_verdict_of_its_example() {
    let server = Server::start();
    for model in MODELS {
        for vector in vectors("single").iter().filter(|vector| vector["model"] == model) {
            let name = vector["example"].to_string();
            let body = container(&bytes_of(vector, "avro_v6_base64"));
            if !is_readable(vector) {
                let detail = post_avro(&server, model, &body).expect_any_error(425).json()["detail"].to_string();
                assert!(detail.contains("innerNewMsgInFlight "), "{name}: {detail}");
                continue;
            }
            let ok = taken(&server, model, &body, 1);
            // In Avro the source's time has no zone: the key is that of the same instant in UTC.
            let vector = match name.contains("binary_offset_timestamps") {
                true => &in_utc(vector),
                false => vector,
            };
            check_ok(&ok[0], vector, &name);
            let key = if has_random_key(model) { "/kafka_key" } else { "/nothing" };
            let (found, wanted) = (without(ok[0].clone(), key), without(expected(vector), key));
            assert_eq!(found, wanted, "{name}");
        }
    }
}

/// `vector` with the key and the tracking fields its event has when all its times are UTC.
fn in_utc(vector: &Value) -> Value {
    let all = vectors("single");
    let twin = all.iter().find(|v| v["example"] == "binary_extracted_two_node_path").expect("the example in UTC");
    let mut vector = vector.clone();
    for field in ["kafka_key", "track_links", "track_authors", "track_source_references"] {
        vector[field] = twin[field].clone();
        vector["decoded_json_after_avro"][field] = twin[field].clone();
    }
    vector
}

#[test]
fn containers_of_versions_4_to_6_are_read_and_upgraded() {
    let server = Server::start();
    let (bulk, legacy) = (vectors("bulk"), vectors("legacy"));
    let current = bulk.iter().map(|vector| (vector, "avro_v6_base64"));
    let old = legacy.iter().filter(|vector| vector["form"] == "bulk").map(|vector| (vector, "avro_base64"));
    let mut seen = 0;
    for (vector, field) in old.chain(current) {
        let model = vector["model"].as_str().expect("a model");
        let events = vector["decoded_json"]["events"].as_array().expect("events");
        if events.is_empty() {
            continue;
        }
        seen += 1;
        let ok = taken(&server, model, &bytes_of(vector, field), events.len());
        for (found, wanted) in ok.iter().zip(events) {
            // The key is made anew, and in version 4 a source had no settings to go into it.
            let settings_lost =
                vector["version"] == 4 && wanted["source"]["path"].as_array().is_some_and(|p| p.len() > 1);
            let key = if has_random_key(model) || settings_lost { "/kafka_key" } else { "/nothing" };
            let wanted = without(expected_form(wanted.clone()), key);
            assert_eq!(without(found.clone(), key), wanted, "{model} {}", vector["version"]);
        }
    }
    assert_eq!(seen, 7 + 14, "one container of each model and version");
}

#[test]
fn a_bad_event_in_a_container_is_listed_and_does_not_take_the_others_with_it() {
    let server = Server::start();
    let bulk = vectors("bulk");
    let both = bytes_of(&bulk[0], "avro_v6_base64");
    // The action of the first event's only path node, followed by the length of the id.
    let body = replace_first(&both, b"\x0esourced\x80\x01", b"\x0esourcex\x80\x01");
    let answer = post_avro(&server, "binary", &body).expect_status(200).json();
    assert_eq!((&answer["total_ok"], &answer["total_failures"]), (&json!(1), &json!(1)), "{answer}");
    let failures = answer["failures"].as_array().expect("a list");
    assert_eq!((failures.len(), &failures[0]["event"]), (1, &json!("")), "Avro has no text to show");
    let error = failures[0]["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("innerNewMsgInFlight "), "{error}");
    let second = &bulk[0]["decoded_json"]["events"][1];
    assert_eq!(answer["ok"][0]["kafka_key"], second["kafka_key"], "the event after the bad one is stored");
    let stored = server.fetch("binary/passive", "name=n&version=1&count=9&deadline=1&r-historic=true");
    assert_eq!(stored.only()["kafka_key"], second["kafka_key"]);

    let alone = container(&replace_first(
        &bytes_of(&vectors("single")[0], "avro_v6_base64"),
        b"\x0esourced\x80\x01",
        b"\x0esourcex\x80\x01",
    ));
    let detail = post_avro(&server, "binary", &alone).expect_any_error(425).json()["detail"].to_string();
    assert!(detail.contains("filters [], with 1 response failures"), "{detail}");
}

#[test]
fn what_is_no_container_is_a_422_and_nothing_is_stored() {
    let server = Server::start();
    let bulk = vectors("bulk");
    let both = bytes_of(&bulk[0], "avro_v6_base64");
    let single = bytes_of(&vectors("single")[0], "avro_v6_base64");
    let future = [&[0x0c, 0x02, 0x0e], &single[1..], &[0x00]].concat();
    let other_model = bytes_of(&bulk[1], "avro_v6_base64");
    let mixed = [both.as_slice(), e1().to_string().as_bytes()].concat();
    let (wrapped, list) = (json!({"events": [e1()]}).to_string(), json!([e1()]).to_string());
    let schema = "avro event did not match expected bulk schema";
    let json_text = "supplied events were in json format, not avro";
    let cases: [(&str, &[u8], &str); 10] = [
        ("a single event", &single, schema),
        ("half a container", &both[..both.len() / 2], schema),
        ("bytes after the end", &mixed, schema),
        ("another model", &other_model, schema),
        ("a version from the future", &future, schema),
        ("noise", &[0xff; 64], schema),
        ("text", b"not json, not avro", schema),
        (
            "a count that memory cannot hold",
            &[0x0c, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            schema,
        ),
        ("JSON in an object", wrapped.as_bytes(), json_text),
        ("JSON in a list", list.as_bytes(), json_text),
    ];
    for (what, body, wanted) in cases {
        let answer = post_avro(&server, "binary", body);
        let detail = answer.expect_error_titled(422, "PostEvent TransformEvents invalid events");
        assert!(detail.contains(wanted), "{what}: {detail}");
    }
    let as_json = server.client().post("/api/v2/event?model=binary", &both);
    let detail = as_json.expect_error_titled(422, "PostEvent TransformEvents invalid events");
    assert!(detail.starts_with("ensure events were in json format: "), "{detail}");
    assert_eq!(get_avro(&server, "binary", "name=n&version=1&deadline=0&r-historic=true").1, EMPTY);
}

#[test]
fn tasks_are_handed_out_as_avro_with_their_ids() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let query = "name=Carver&version=1.2&count=1&deadline=1&r-historic=true&avro-format=true";
    let answer = Client::new(server.address()).get(&format!("/api/v2/event/binary/active?{query}"));
    let (_, events) = parts(&answer);
    let task = b"419d55d8a85cf11e3b9bd17486279a68.Carver.1.2.";
    assert!(events.windows(task.len()).any(|window| window == task), "the task id is in the container");
}
