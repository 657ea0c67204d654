//! Submission bodies: forms, refusals and the small print of reading JSON.

use serde_json::{Value, json as value};

use super::super::{
    BodyError, Event, Model, decode_body_avro, decode_body_json, decode_event_json, encode_avro, encode_avro_bulk,
    to_json,
};
use super::{e1, json, one};

fn detail(body: &str) -> String {
    decode_body_json(Model::Binary, body.as_bytes()).unwrap_err().to_string()
}

fn plugin(members: &str) -> Result<Event, String> {
    let body = format!("{{\"model_version\":6,\"author\":{{\"name\":\"x\"}}{members}}}");
    let mut elements = decode_body_json(Model::Plugin, body.as_bytes()).map_err(|error| error.to_string())?;
    elements.pop().unwrap().event.map_err(|invalid| invalid.to_string())
}

fn binary(change: impl Fn(&mut Value)) -> Result<Event, String> {
    let mut event = e1();
    change(&mut event);
    let body = event.to_string();
    let mut elements = decode_body_json(Model::Binary, body.as_bytes()).map_err(|error| error.to_string())?;
    elements.pop().unwrap().event.map_err(|invalid| invalid.to_string())
}

#[test]
fn a_list_and_a_bare_object_are_the_same_and_keep_their_text() {
    let text = format!(" {}", serde_json::to_string_pretty(&e1()).unwrap());
    let list = format!("\n\t [ {text} ,\r\n{text}] ");
    let elements = decode_body_json(Model::Binary, list.as_bytes()).unwrap();
    assert_eq!(elements.len(), 2);
    assert_eq!(elements[0].raw, text.trim());
    assert_eq!(elements[0], elements[1]);
    assert_eq!(one(Model::Binary, &text), elements[0]);
    assert_eq!(decode_body_json(Model::Binary, b"[ \n]"), Ok(vec![]));
}

#[test]
fn details_of_refused_bodies() {
    let event = e1().to_string();
    for body in ["", "[]", "{}", "1"] {
        assert_eq!(detail(body), "ensure events were in json format: event message too small");
    }
    let torn = event.strip_suffix('}').unwrap();
    for body in [
        "not json",
        "   ",
        torn,
        &format!("[{event}"),
        &format!("[{event},]"),
        &format!("[{event} {event}]"),
        &format!("{event} x"),
        &format!("[{event}]]"),
        "\u{feff}[1]",
        "{\"a\":\"\n\"}",
        "{\"timestamp\":7,}",
        "{\"model_version\":01}",
        &format!("[{{\"timestamp\":7}},{torn}]"),
        "[\"\\x\"]",
    ] {
        assert_eq!(detail(body), "ensure events were in json format: event message invalid json", "{body}");
    }
    assert_eq!(decode_body_json(Model::Binary, b"{\"a\":\"\xff\"}"), Err(BodyError::InvalidJson));
    let too_old = "ensure events were in json format: event message version was too old";
    for version in ["5", "0", "null"] {
        assert_eq!(detail(&format!("[{event},{{\"model_version\":{version},\"timestamp\":7}}]")), too_old);
    }
    assert_eq!(detail(&format!("{{\"events\":[{event}]}}")), too_old);
    for body in ["[null]", "null", "[1]", "[[]]", "\"text\"", "12345", "[{\"model_version\":\"6\"}]"] {
        assert!(detail(body).starts_with(too_old), "{body}");
    }
}

#[test]
fn corrupt_members_are_named() {
    let refused = |change: &dyn Fn(&mut Value)| binary(change).unwrap_err();
    let text = refused(&|event| event["timestamp"] = 7.into());
    let prefix = "ensure events were in json format: event message version was too old or was corrupt: event 0: ";
    assert!(text.starts_with(&format!("{prefix}timestamp: invalid type: integer `7`, expected an RFC 3339")), "{text}");
    let text = refused(&|event| event["source"]["path"][0]["author"]["name"] = 7.into());
    assert!(text.starts_with(&format!("{prefix}source: path: [0]: author: name: ")), "{text}");
    let text = refused(&|event| event["source"]["references"]["n"] = 7.into());
    assert!(text.starts_with(&format!("{prefix}source: references: n: ")), "{text}");
}

#[test]
fn error_texts_do_not_grow_with_what_they_complain_about() {
    let long = "x".repeat(100_000);
    for path in ["timestamp", "retries", "flags"] {
        assert!(binary(|event| event[path] = long.as_str().into()).unwrap_err().len() < 500, "{path}");
    }
    assert!(binary(|event| event["source"]["name"] = long.as_str().into()).unwrap_err().len() < 500);
    assert!(binary(|event| event["action"] = long.as_str().into()).unwrap_err().len() < 500);
}

#[test]
fn versions_above_six_are_refused_even_next_to_good_events() {
    let (mut newer, good) = (e1(), e1());
    newer["model_version"] = 7.into();
    let body = value!([good, newer]).to_string();
    let got = decode_body_json(Model::Binary, body.as_bytes());
    assert_eq!(got, Err(BodyError::VersionUnknown { index: 1, version: 7 }));
}

#[test]
fn null_is_no_value_and_a_repeated_member_replaces_the_one_before() {
    let event = plugin(r#","entity":{"name":"a","name":"b","name":null,"config":{"k":null,"l":"1"},"config":null}"#);
    let written = json(&event.unwrap());
    assert_eq!(written["entity"], value!({"name": "b", "config": {"k": "", "l": "1"}}));
    let event = plugin(r#","entity":{"name":"a","version":"1"},"entity":{"name":"b"}"#).unwrap();
    assert_eq!(json(&event)["entity"], value!({"name": "b"}));
    let event = plugin(r#","entity":{"features":[{"name":"f","type":"uri","tags":["t",null]}]},"model_version":6"#);
    assert_eq!(json(&event.unwrap())["entity"]["features"], value!([{"name": "f", "type": "uri", "desc": ""}]));
    assert!(plugin(r#","entity":{"features":[null]}"#).unwrap_err().contains("entity: features: [0]: "));
}

#[test]
fn all_members_of_an_event_may_be_null() {
    let event = e1();
    for name in event.as_object().unwrap().keys() {
        let got = binary(|event| event[name] = Value::Null);
        match name.as_str() {
            "model_version" => assert!(got.unwrap_err().ends_with("version was too old")),
            "author" | "source" | "action" | "entity" => assert!(!got.unwrap_err().starts_with("ensure")),
            _ => assert!(got.is_ok(), "{name}: {got:?}"),
        }
    }
}

#[test]
fn unknown_members_are_ignored_at_every_level() {
    let noise = value!({"deep": [[{"x": 1e300}], "\u{1F600}"], "n": null});
    let noisy = binary(|event| {
        event["Author"] = 7.into();
        event["colour"] = noise.clone();
        event["source"]["colour"] = noise.clone();
        event["source"]["path"][0]["author"]["colour"] = noise.clone();
        event["entity"]["datastreams"][0]["colour"] = noise.clone();
    });
    assert_eq!(noisy, binary(|_| {}));
}

#[test]
fn integers_have_no_sign_fraction_or_exponent_and_fit() {
    let size = |text: &str| {
        let body = e1().to_string().replacen("\"size\":5", &format!("\"size\":{text}"), 1);
        decode_body_json(Model::Binary, body.as_bytes()).is_ok()
    };
    for good in ["0", "18446744073709551615", "null"] {
        assert!(size(good), "{good}");
    }
    for bad in ["-1", "-0", "1.0", "1e2", "18446744073709551616", "\"1\"", "true", "[1]", "1e999"] {
        assert!(!size(bad), "{bad}");
    }
    assert!(binary(|event| event["retries"] = u32::MAX.into()).is_ok());
    assert!(binary(|event| event["retries"] = (u64::from(u32::MAX) + 1).into()).is_err());
}

#[test]
fn runtime_is_exact_and_finite() {
    let status = |runtime: &str| {
        let body = format!(
            r#"{{"model_version":6,"author":{{"name":"x"}},"entity":{{"status":"heartbeat","runtime":{runtime},
            "input":{{"dequeued":"d","action":"sourced","model_version":3}}}}}}"#
        );
        let mut elements = decode_body_json(Model::Status, body.as_bytes()).ok()?;
        let Ok(Event::Status(event)) = elements.pop()?.event else { return None };
        let text = String::from_utf8(to_json(&Event::Status(event.clone()))).unwrap();
        assert_eq!(text.contains("runtime"), event.entity.runtime != 0.0);
        Some(event.entity.runtime)
    };
    for (text, number) in [("1.5", 1.5), ("0.1", 0.1), ("1e-7", 1e-7), ("3", 3.0), ("-0", 0.0), ("1e22", 1e22)] {
        assert_eq!(status(text), Some(number), "{text}");
    }
    for text in ["1e999", "\"1\"", "true", "[1]"] {
        assert_eq!(status(text), None, "{text}");
    }
}

#[test]
fn half_surrogate_pairs_become_replacement_characters_and_leave_the_text_alone() {
    let body = r#"{"model_version":6,"author":{"name":"\ud800x\\ud800\udc00\ud83d\ude00\n\uD83D"},"x\udfff":"\udead"}"#;
    let element = one(Model::Plugin, body);
    assert_eq!(element.raw, body);
    assert_eq!(element.event.unwrap().author().name, "\u{fffd}x\\ud800\u{fffd}\u{1F600}\n\u{fffd}");
}

#[test]
fn info_keeps_its_exact_text() {
    let info = "{ \"b\" : 1.00,\n \"a\":\"\\u00e9\", \"b\":[ ] }";
    let body = e1().to_string().replacen("\"entity\":{", &format!("\"entity\":{{\"info\": {info} ,"), 1);
    let Event::Binary(event) = one(Model::Binary, &body).event.unwrap() else { panic!("a binary event") };
    assert_eq!(event.entity.info.as_bytes(), info.as_bytes());
    let text = String::from_utf8(to_json(&Event::Binary(event))).unwrap();
    assert!(text.contains(&format!("\"info\":{info}")));
    let event = binary(|event| event["entity"]["info"] = Value::Null).unwrap();
    assert_eq!(json(&event)["entity"].get("info"), None);
}

#[test]
fn depth_does_not_exhaust_the_stack() {
    let levels = 1_000_000;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
        assert!(decode_body_json(Model::Binary, deep.as_bytes()).is_err());
        assert_eq!(decode_body_json(Model::Binary, open.repeat(levels).as_bytes()), Err(BodyError::InvalidJson));
        assert!(plugin(&format!(",\"x\":{deep}")).is_ok());
        assert_eq!(plugin(&format!(",\"entity\":{deep}")).is_err(), open == "[");
        let body = e1().to_string().replacen("\"entity\":{", &format!("\"entity\":{{\"info\":{{\"x\":{deep}}},"), 1);
        let invalid = one(Model::Binary, &body).event.unwrap_err();
        assert_eq!((invalid.rule, invalid.message.as_str()), ("unreadable", "entity.info is nested too deeply"));
    }
}

#[test]
fn simulate_takes_one_object() {
    let event = e1().to_string();
    assert!(decode_event_json(Model::Binary, event.as_bytes()).is_ok_and(|element| element.event.is_ok()));
    assert!(decode_event_json(Model::Binary, format!(" [{event}]").as_bytes()).is_err());
}

#[test]
fn avro_bodies_are_containers_and_bad_events_in_them_are_listed() {
    let good = one(Model::Binary, &e1().to_string()).event.unwrap();
    let Event::Binary(mut bad) = good.clone() else { panic!("a binary event") };
    bad.author.name.clear();
    let body = encode_avro_bulk(Model::Binary, &[Event::Binary(bad), good.clone()]);
    let elements = decode_body_avro(Model::Binary, &body).unwrap();
    assert_eq!(elements[0].event.as_ref().unwrap_err().rule, "author-name");
    assert_eq!(elements[0].raw, "");
    assert_eq!(elements[1].event.as_ref(), Ok(&good));
    assert_eq!(decode_body_avro(Model::Binary, &[0x0c, 0x00]), Ok(vec![]));

    let json_body = format!("{{\"events\":[{}]}}", e1());
    let text = decode_body_avro(Model::Binary, json_body.as_bytes()).unwrap_err().to_string();
    assert_eq!(text, "supplied events were in json format, not avro");
    for body in [encode_avro(&good), b"{ not json".to_vec(), body[..40].to_vec(), vec![]] {
        let text = decode_body_avro(Model::Binary, &body).unwrap_err().to_string();
        assert!(text.starts_with("avro event did not match expected bulk schema: "), "{text}");
    }
}
