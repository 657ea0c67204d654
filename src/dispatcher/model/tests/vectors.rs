//! Golden vectors: keys, tracking strings, Avro bytes, decoded JSON.

use serde_json::{Value, json as value};

use super::super::{
    Event, Model, check_valid, decode_avro, decode_avro_bulk, encode_avro, encode_avro_bulk, kafka_key, key_descriptor,
    set_tracking, unreadable,
};
use super::avro_walk::{schema, walk};
use super::{e1, example, fixture_json, json, model, node, one};

/// The key the vectors show where the real one is random.
const RANDOM_KEY: &str = "ffffffffffffffffffffffffffffffff";

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("no Base64: {other}"),
    };
    let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(digit).collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

/// As golden JSON has it: unreadable examples stay as decoded, so members the emit rules add or drop are ignored there.
fn assert_decoded(event: &Event, expected: &Value, what: &str) {
    let got = json(event);
    if unreadable(event).is_none() {
        assert_eq!(&got, expected, "{what}");
    } else {
        assert_eq!(got["kafka_key"], expected["kafka_key"], "{what}");
        assert_eq!(got["author"], expected["author"], "{what}");
        assert_eq!(got["action"], expected["action"], "{what}");
        assert_eq!(got["entity"]["info"], expected["entity"]["info"], "{what}");
        assert_eq!(got["entity"]["features"], expected["entity"]["features"], "{what}");
        assert_eq!(got["entity"]["status"], expected["entity"]["status"], "{what}");
        assert_eq!(got["entity"]["child_history"], expected["entity"]["child_history"], "{what}");
    }
}

#[test]
fn single_events_decode_to_the_golden_json_and_encode_to_the_same_fields() {
    let vectors = fixture_json("vectors.json");
    let singles = vectors["single"].as_array().unwrap();
    assert_eq!(singles.len(), 29);
    for vector in singles {
        let name = vector["example"].as_str().unwrap();
        let model = model(&vector["model"]);
        let golden = base64(vector["avro_v6_base64"].as_str().unwrap());
        let event = decode_avro(model, &golden).unwrap();
        assert_decoded(&event, &vector["decoded_json_after_avro"], name);
        let schema = schema("v6", model.as_str());
        let ours = encode_avro(&event);
        assert_eq!(walk(&schema, &ours), walk(&schema, &golden), "{name}");
        assert_eq!(decode_avro(model, &ours).as_ref(), Ok(&event), "{name}");
    }
}

#[test]
fn submitted_examples_are_stored_as_the_golden_bytes_say() {
    let vectors = fixture_json("vectors.json");
    for vector in vectors["single"].as_array().unwrap() {
        let name = vector["example"].as_str().unwrap();
        let model = model(&vector["model"]);
        let Ok(mut event) = one(model, &example(name)).event else {
            continue;
        };
        let key = vector["kafka_key"].as_str().map_or(RANDOM_KEY.to_owned(), str::to_owned);
        event.set_kafka_key(key);
        set_tracking(&mut event);
        let golden = base64(vector["avro_v6_base64"].as_str().unwrap());
        let schema = schema("v6", model.as_str());
        assert_eq!(walk(&schema, &encode_avro(&event)), walk(&schema, &golden), "{name}");
    }
}

#[test]
fn keys_and_tracking_strings_are_the_golden_ones() {
    let vectors = fixture_json("vectors.json");
    for vector in vectors["single"].as_array().unwrap() {
        let name = vector["example"].as_str().unwrap();
        let Ok(mut event) = one(model(&vector["model"]), &example(name)).event else {
            continue;
        };
        if let Some(descriptor) = vector["key_descriptor"].as_str() {
            let got = key_descriptor(&event, [7; 32]).unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), descriptor, "{name}");
            assert_eq!(kafka_key(&event, [7; 32]).unwrap(), vector["kafka_key"].as_str().unwrap(), "{name}");
        } else {
            assert_eq!(key_descriptor(&event, [7; 32]).unwrap(), [7; 32], "{name}");
        }
        set_tracking(&mut event);
        let written = json(&event);
        for member in ["track_source_references", "track_links", "track_authors", "track_link", "track_author"] {
            assert_eq!(written.get(member), vector.get(member), "{name}: {member}");
        }
    }
}

#[test]
fn containers_decode_to_the_golden_json_and_come_back() {
    let vectors = fixture_json("vectors.json");
    let bulks = vectors["bulk"].as_array().unwrap();
    assert_eq!(bulks.len(), 14);
    for vector in bulks {
        let model = model(&vector["model"]);
        let golden = base64(vector["avro_v6_base64"].as_str().unwrap());
        let events = decode_avro_bulk(model, &golden).unwrap();
        let expected = vector["decoded_json"]["events"].as_array().unwrap();
        assert_eq!(events.len(), expected.len());
        for (event, expected) in events.iter().zip(expected) {
            assert_decoded(event, expected, model.as_str());
        }
        let ours = encode_avro_bulk(model, &events);
        let schema = schema("v6", &format!("{model}.bulk"));
        assert_eq!(walk(&schema, &ours), walk(&schema, &golden), "{model}");
        assert_eq!(decode_avro_bulk(model, &ours), Ok(events));
    }
}

#[test]
fn empty_container_is_two_bytes() {
    for model in Model::ALL {
        assert_eq!(encode_avro_bulk(model, &[]), [0x0c, 0x00]);
        assert_eq!(decode_avro_bulk(model, &[0x0c, 0x00]), Ok(vec![]));
        assert_eq!(decode_avro_bulk(model, &[0x0a, 0x00]), Ok(vec![]));
        assert_eq!(decode_avro_bulk(model, &[0x00]), Ok(vec![]));
    }
}

#[test]
fn legacy_versions_are_read_and_upgraded() {
    let vectors = fixture_json("vectors.json");
    let legacy = vectors["legacy"].as_array().unwrap();
    assert_eq!(legacy.len(), 30);
    for vector in legacy {
        let model = model(&vector["model"]);
        let bytes = base64(vector["avro_base64"].as_str().unwrap());
        let what = format!("{model} {} {}", vector["version"], vector["form"]);
        if vector["form"] == "single" {
            assert_decoded(&decode_avro(model, &bytes).unwrap(), &vector["decoded_json"], &what);
        } else {
            let events = decode_avro_bulk(model, &bytes).unwrap();
            let expected = vector["decoded_json"]["events"].as_array().unwrap();
            assert_eq!(events.len(), expected.len(), "{what}");
            for (event, expected) in events.iter().zip(expected) {
                assert_decoded(event, expected, &what);
            }
        }
    }
}

#[test]
fn what_follows_an_event_or_is_missing_from_it_is_refused() {
    let Ok(event) = one(Model::Binary, &e1().to_string()).event else {
        panic!("E1 is valid");
    };
    let mut bytes = encode_avro(&event);
    for end in 0..bytes.len() {
        assert!(decode_avro(Model::Binary, &bytes[..end]).is_err(), "{end}");
    }
    bytes.push(0);
    assert!(decode_avro(Model::Binary, &bytes).is_err());
    bytes.pop();
    bytes[0] = 0x0e;
    assert!(decode_avro(Model::Binary, &bytes).is_err());
}

fn binary_key(event: &Value) -> String {
    let event = one(Model::Binary, &event.to_string()).event.unwrap();
    kafka_key(&event, [0; 32]).unwrap()
}

/// V1 to V8 of `events.md` 3.5.
#[test]
fn binary_keys_of_the_worked_examples() {
    let v1 = e1();
    assert_eq!(binary_key(&v1), "419d55d8a85cf11e3b9bd17486279a68");
    let with_path = |nodes: &[Value]| {
        let mut event = e1();
        event["source"]["path"] = nodes.into();
        event["action"] = "extracted".into();
        event
    };
    let amy = v1["source"]["path"][0].clone();
    let carver = node("Carver", "plugin", "1.2", "extracted", 'b');
    let v2 = with_path(&[amy.clone(), carver.clone()]);
    assert_eq!(binary_key(&v2), "c28af1bebcf545170cbc589b715b25aa");
    let v3 = with_path(&[amy.clone(), carver.clone(), node("Strings", "plugin", "1", "enriched", 'b')]);
    assert_eq!(binary_key(&v3), "4495b0157c8399a88f1c8266060acd14");
    let settings = value!({"mode": "fast", "remove_at_depth": "2"});
    let (mut v4, mut v5) = (e1(), v2.clone());
    v4["source"]["settings"] = settings.clone();
    assert_eq!(binary_key(&v4), "161e021cffd805af4f4407ae1566e979");
    v5["source"]["settings"] = settings;
    assert_eq!(binary_key(&v5), "4cbd187c6197b37a6676e5787121233c");
    let mut v6 = e1();
    v6["source"]["timestamp"] = "2026-01-02T13:04:05+10:00".into();
    assert_eq!(binary_key(&v6), "3f0c55cd307a98ed79ccb13f6601c2f8");
    let mut v7 = v2.clone();
    v7["source"]["path"][1]["author"]["security"] = "SECRET".into();
    assert_eq!(binary_key(&v7), "c2d225b2bf2ae13608f9f26514d78088");
    let mut v8 = e1();
    v8["source"]["references"] = Value::Null;
    v8["source"]["security"] = "".into();
    v8["source"]["path"][0]["author"]["security"] = "".into();
    assert_eq!(binary_key(&v8), "c1a65eda33569eb3321ea720024727fd");
}

/// V9 to V11 of `events.md` 3.5.
#[test]
fn other_keys_of_the_worked_examples() {
    let key = |model, event: Value| {
        let event = one(model, &event.to_string()).event.unwrap();
        kafka_key(&event, [0; 32]).unwrap()
    };
    let mut input = e1();
    input["dequeued"] = "419d55d8a85cf11e3b9bd17486279a68.Carver.1.2.1767323100".into();
    let status = value!({
        "model_version": 6, "author": {"name": "Carver"}, "entity": {"status": "completed", "input": input}
    });
    assert_eq!(key(Model::Status, status), "d1745d5585426bfa9fd44bbbb25cd40f");
    let plugin = value!({"model_version": 6, "author": {"name": "x"}, "entity": {"name": "Carver", "version": "1.2"}});
    assert_eq!(key(Model::Plugin, plugin), "e51a5431ff9eb0660ed4e90d2d176905");
    let insert = value!({
        "model_version": 6, "author": {"name": "x"},
        "entity": {
            "parent_sha256": "a".repeat(64), "child": {"sha256": "c".repeat(64)},
            "child_history": node("amy", "user", "", "extracted", 'c')
        }
    });
    assert_eq!(key(Model::Insert, insert), "a07e8b99d901029eb8d0aeac36d3c104");
}

#[test]
fn entries_are_sorted_by_their_whole_text_in_keys_and_by_name_in_tracking_strings() {
    let mut event = e1();
    event["source"]["references"] = value!({"a": "x", "a!": "y"});
    let mut event = one(Model::Binary, &event.to_string()).event.unwrap();
    let descriptor = String::from_utf8(key_descriptor(&event, [0; 32]).unwrap()).unwrap();
    assert!(descriptor.contains(".a!.y.a.x."), "{descriptor}");
    set_tracking(&mut event);
    // MD5 of "a.x.a!.y."
    assert_eq!(json(&event)["track_source_references"], "lab.a39e75dd871336da1665928b32eb3a8a");
}

#[test]
fn tracking_strings_of_the_worked_examples() {
    let mut event = one(Model::Binary, &e1().to_string()).event.unwrap();
    set_tracking(&mut event);
    let written = json(&event);
    assert_eq!(written["track_source_references"], "lab.24595c1dbfa61e4c53f4b6e991cd0fe5");
    assert_eq!(written["track_authors"], value!(["user.amy."]));
    assert_eq!(written.get("track_links"), None);
    assert_eq!(written["flags"], value!({}));
    assert_eq!(check_valid(&event), Ok(()));
}
