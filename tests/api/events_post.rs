//! Publishing: worked examples X1 to X6, X10, X11, X16, X18, X21 and X23.

use serde_json::{Value, json};

use crate::support::events::{
    CHILD_KEY, E1_KEY, carved, carver_registration, carver_status, e1, e1_final, id, with, without,
};
use crate::support::{Body, Config, Response, Server};

const PLAIN: &str = "/api/v2/event?model=binary&sync=true&include_ok=true";
const ALL_FILTERED: &str = "All events to be published have been filtered out";

/// A POST answer of status 200, read as strictly as the Python client does.
fn accepted(answer: Response) -> Value {
    let answer = answer.expect_status(200);
    let media_type = answer.header("content-type").unwrap_or_default();
    assert!(media_type.starts_with("application/json"), "{answer:?}");
    let body = answer.json();
    let known = ["total_ok", "total_failures", "failures", "ok"];
    assert!(body.as_object().expect("an object").keys().all(|key| known.contains(&key.as_str())), "{body}");
    assert!(body["failures"].is_array(), "failures is a list, never null: {body}");
    body
}

fn filtered(answer: Response, error_enum: &str) -> String {
    let body = answer.clone().expect_any_error(425).json();
    assert_eq!(body["error_enum"], error_enum, "{body}");
    answer.expect_error_titled(425, ALL_FILTERED)
}

fn stored(server: &Server, model: &str, version: &str) -> Vec<Value> {
    server
        .fetch(
            &format!("{model}/passive"),
            &format!("name=look&version={version}&count=100&deadline=1&r-historic=true"),
        )
        .events
}

#[test]
fn x1_one_event_comes_back_in_its_final_form() {
    let server = Server::start();
    let body = json!([e1()]).to_string();
    let answer = accepted(server.client().request(
        "POST",
        PLAIN,
        &[("Content-Type", "application/json")],
        Body::Sized(body.as_bytes()),
    ));
    assert_eq!(answer, json!({"total_ok": 1, "total_failures": 0, "failures": [], "ok": [e1_final()]}));
}

#[test]
fn x1_the_bare_object_gives_the_same_answer_as_the_list() {
    let server = Server::start();
    let answer = accepted(server.client().post(PLAIN, e1().to_string().as_bytes()));
    assert_eq!(answer["ok"], json!([e1_final()]));
    assert_eq!(answer["total_ok"], 1);
}

#[test]
fn x1_include_ok_is_compared_literally() {
    let server = Server::start();
    for (value, given) in [("true", true), ("1", true), ("True", false), ("t", false), ("yes", false), ("", false)] {
        let target = format!("/api/v2/event?model=binary&include_ok={value}");
        let answer = accepted(server.client().post(&target, e1().to_string().as_bytes()));
        assert_eq!(answer.get("ok").is_some(), given, "include_ok={value}: {answer}");
    }
    let answer = accepted(server.client().post("/api/v2/event?model=binary", e1().to_string().as_bytes()));
    assert_eq!(answer, json!({"total_ok": 1, "total_failures": 0, "failures": []}));
}

#[test]
fn x1_white_space_before_a_list_and_unknown_parameters_do_no_harm() {
    let server = Server::start();
    let body = format!(" \r\n\t[{}]", e1());
    let answer = server.client().post("/api/v2/event?model=binary&name=meta&version=3&what=ever", body.as_bytes());
    assert_eq!(accepted(answer)["total_ok"], 1);
}

#[test]
fn x1_a_chunked_body_is_as_good_as_a_sized_one() {
    let server = Server::start();
    let body = json!([e1()]).to_string();
    let (first, second) = body.as_bytes().split_at(100);
    let answer = server.client().request("POST", PLAIN, &[], Body::Chunked(&[first, second]));
    assert_eq!(accepted(answer)["ok"], json!([e1_final()]));
}

#[test]
fn x2_an_invalid_event_is_listed_with_its_exact_text_and_the_other_one_is_stored() {
    let server = Server::start();
    let bad = serde_json::to_string_pretty(&with(e1(), "/author", json!({"name": ""}))).unwrap();
    let answer = accepted(server.client().post(PLAIN, format!("[{},\n  {bad} ]", e1()).as_bytes()));
    let failure = json!({"event": bad, "error": "innerNewMsgInFlight event is missing 'author' field"});
    assert_eq!(answer, json!({"total_ok": 1, "total_failures": 1, "failures": [failure], "ok": [e1_final()]}));
    assert_eq!(stored(&server, "binary", "1"), [e1_final()]);
}

#[test]
fn x3_only_invalid_events_are_a_425() {
    let server = Server::start();
    let bad = json!([with(e1(), "/author", json!({"name": ""}))]);
    let answer = server.publish("binary", "", &bad);
    let detail = filtered(answer.clone(), "ErrorStringEnumAllEventsFiltered");
    assert_eq!(
        detail,
        "failed to produce any of the provided events as they were all filtered out by the following filters [], \
         with 1 response failures which are: [innerNewMsgInFlight event is missing 'author' field]"
    );
    if let Some(params) = answer.json().get("error_params") {
        let failures = "[innerNewMsgInFlight event is missing 'author' field]";
        assert_eq!(params, &json!({"filters": "", "total_failures": "1", "response_failures": failures}));
    }
}

#[test]
fn x4_an_old_or_unversioned_event_refuses_the_whole_request() {
    let server = Server::start();
    for old in [with(e1(), "/model_version", json!(5)), without(e1(), "/model_version")] {
        let answer = server.publish("binary", "", &json!([e1(), old]));
        let detail = answer.expect_error_titled(422, "PostEvent TransformEvents invalid events");
        assert_eq!(detail, "ensure events were in json format: event message version was too old");
    }
    assert!(stored(&server, "binary", "1").is_empty(), "nothing is stored, not even the good event");
}

#[test]
fn a_version_from_the_future_refuses_the_whole_request() {
    let server = Server::start();
    let answer = server.publish("binary", "", &json!([e1(), with(e1(), "/model_version", json!(7))]));
    answer.expect_any_error(422);
    assert!(stored(&server, "binary", "1").is_empty());
}

#[test]
fn x5_request_errors_have_their_titles() {
    let server = Server::start();
    let list = json!([e1()]).to_string();
    let post = |target: &str, body: &[u8]| server.client().post(target, body);
    let unknown = "not a registered model type";
    let detail = post("/api/v2/event", list.as_bytes()).expect_error_titled(400, unknown);
    assert_eq!(detail, "not a registered model type: ");
    let detail = post("/api/v2/event?model=scrape", list.as_bytes()).expect_error_titled(400, unknown);
    assert_eq!(detail, "not a registered model type: scrape");
    let detail = post("/api/v2/event?model=Binary", list.as_bytes()).expect_error_titled(400, unknown);
    assert_eq!(detail, "not a registered model type: Binary");
    let detail = post("/api/v2/event?model=binary", b"").expect_error_titled(400, "Empty Request");
    assert_eq!(detail, "no events were provided to be published");
    let detail = post("/api/v2/event?model=scrape", b"").expect_error_titled(400, unknown);
    assert!(detail.ends_with("scrape"), "the model is checked before the body: {detail}");
}

#[test]
fn x5_bodies_that_cannot_be_decoded_are_a_422() {
    let server = Server::start();
    let number = with(e1(), "/timestamp", json!(7)).to_string();
    let cases: [(&[u8], &str); 5] = [
        (b"[]", "event message too small"),
        (b"{}", "event message too small"),
        (b"not json", "event message invalid json"),
        (b"[{]", "event message invalid json"),
        (number.as_bytes(), "event message version was too old or was corrupt"),
    ];
    for (body, wanted) in cases {
        let answer = server.client().post("/api/v2/event?model=binary", body);
        let detail = answer.expect_error_titled(422, "PostEvent TransformEvents invalid events");
        assert!(detail.starts_with("ensure events were in json format: "), "{detail}");
        assert!(detail.contains(wanted), "{detail} for {}", String::from_utf8_lossy(body));
    }
}

#[test]
fn x5_avro_flag_with_json_and_with_an_empty_bulk() {
    let server = Server::start();
    let avro = "/api/v2/event?model=binary&avro-format=true";
    let wrapped = json!({"events": [e1()]}).to_string();
    let detail = server.client().post(avro, wrapped.as_bytes());
    let detail = detail.expect_error_titled(422, "PostEvent TransformEvents invalid events");
    assert!(detail.contains("supplied events were in json format, not avro"), "{detail}");
    filtered(server.client().post(avro, &[0x0c, 0x00]), "ErrorStringEnumAllEventsFiltered");
}

#[test]
fn x6_an_event_past_its_age_is_refused_and_does_not_stop_the_others() {
    let server = Server::start();
    let old = with(e1(), "/source/name", json!("short"));
    let answer = server.publish("binary", "", &json!([old]));
    let detail = filtered(answer, "ErrorStringEnumAllEventsAgedOffImmediately");
    assert_eq!(detail, "all submitted events aged off immediately, is the submission time older than ageoff?");
    let answer = accepted(server.publish("binary", "&include_ok=true", &json!([old, e1()])));
    assert_eq!(answer["total_ok"], 2, "total_ok counts what passed validation");
    assert_eq!(answer["ok"], json!([e1_final()]));
    assert_eq!(stored(&server, "binary", "1"), [e1_final()]);
}

#[test]
fn x6_an_event_from_the_future_is_kept() {
    let server = Server::start();
    let event = with(with(e1(), "/source/name", json!("short")), "/source/timestamp", json!("2099-01-02T03:04:05Z"));
    server.publish_ok("binary", &json!([event]));
    assert_eq!(stored(&server, "binary", "1").len(), 1);
}

/// Publishes E1 and takes it as Carver's task; the event with its `dequeued`.
fn task(server: &Server) -> Value {
    server.publish_ok("binary", &json!([e1()]));
    let batch = server.fetch("binary/active", "name=Carver&version=1.2&count=1&deadline=1&r-historic=true");
    let task = batch.only().clone();
    let dequeued = task["dequeued"].as_str().expect("a task id");
    let seconds = dequeued.strip_prefix(&format!("{E1_KEY}.Carver.1.2.")).expect("key, name, version, time");
    assert!(seconds.parse::<u64>().is_ok_and(|seconds| seconds > 1_700_000_000), "{dequeued}");
    assert_eq!(without(task.clone(), "/dequeued"), e1_final());
    task
}

#[test]
fn x10_a_completed_task_publishes_its_results() {
    let server = Server::start();
    let task = task(&server);
    let child = carved(&task);
    let status = json!([carver_status(&task, "completed", std::slice::from_ref(&child))]);
    let answer = accepted(server.publish("status", "", &status));
    assert_eq!(answer, json!({"total_ok": 1, "total_failures": 0, "failures": []}));

    let statuses = stored(&server, "status", "1");
    assert_eq!(statuses.len(), 1, "{statuses:?}");
    assert_eq!(statuses[0]["entity"]["status"], "completed");
    assert!(statuses[0]["entity"].get("results").is_none(), "the results left the status: {}", statuses[0]);
    assert_eq!(statuses[0]["entity"]["input"]["dequeued"], task["dequeued"]);

    let binaries = stored(&server, "binary", "1");
    let child_final = with(child, "/kafka_key", json!(CHILD_KEY));
    let child_final = with(child_final, "/flags", json!({}));
    let link = format!("{}.{}.2026_01_02T03_05_00Z_00.plugin.Carver.1.2", id('a'), id('b'));
    let child_final = with(child_final, "/track_links", json!([link]));
    let child_final = with(child_final, "/track_authors", json!(["user.amy.", "plugin.Carver.1.2"]));
    let references = "lab.24595c1dbfa61e4c53f4b6e991cd0fe5";
    let child_final = with(child_final, "/track_source_references", json!(references));
    assert_eq!(binaries.len(), 2);
    assert!(binaries.contains(&e1_final()), "{binaries:?}");
    assert!(binaries.contains(&child_final), "wanted {child_final}\nin {binaries:?}");
}

#[test]
fn x10_the_task_is_closed_by_its_status() {
    let server = Server::start();
    let task = task(&server);
    server.publish("status", "", &json!([carver_status(&task, "completed", &[])])).expect_status(200);
    let again = server.fetch("binary/active", "name=Carver&version=1.2&count=1&deadline=1&r-historic=true");
    assert!(again.events.is_empty());
    assert_eq!(stored(&server, "status", "1").len(), 1);
}

#[test]
fn x10_only_a_completed_status_publishes_results() {
    for word in ["opt-out", "heartbeat", "error-exception"] {
        let server = Server::start();
        let task = task(&server);
        let status = json!([carver_status(&task, word, &[carved(&task)])]);
        let answer = accepted(server.publish("status", "&include_ok=true", &status));
        let ok = answer["ok"].as_array().expect("the status itself");
        assert_eq!(ok.len(), 1, "only the client's own event: {answer}");
        assert_eq!(ok[0]["entity"]["status"], word);
        assert_eq!(stored(&server, "binary", "1").len(), 1, "{word} publishes no binary");
        assert_eq!(stored(&server, "status", "1").len(), 1);
    }
}

#[test]
fn x10_include_ok_shows_the_status_only_and_its_key() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let task = with(e1_final(), "/dequeued", json!(format!("{E1_KEY}.Carver.1.2.1767323100")));
    let status = json!([carver_status(&task, "completed", &[carved(&task)])]);
    let ok = server.publish_ok("status", &status);
    assert_eq!(ok.len(), 1);
    assert_eq!(ok[0]["kafka_key"], "d1745d5585426bfa9fd44bbbb25cd40f", "vector V9");
    assert!(ok[0]["entity"].get("results").is_none(), "{}", ok[0]);
    assert_eq!(stored(&server, "status", "1"), ok, "what was promised is what consumers get");
    assert_eq!(stored(&server, "binary", "1").len(), 2);
}

#[test]
fn x11_a_status_without_a_task_id_is_refused() {
    let server = Server::start();
    let status = json!([carver_status(&without(e1_final(), "/dequeued"), "completed", &[])]);
    let detail = filtered(server.publish("status", "", &status), "ErrorStringEnumAllEventsFiltered");
    assert!(detail.contains("entity status missing entity.input.dequeued"), "{detail}");
}

#[test]
fn a_status_with_one_broken_result_publishes_nothing() {
    let server = Server::start();
    let task = task(&server);
    let broken = with(carved(&task), "/source/path", json!([]));
    let status = json!([carver_status(&task, "completed", &[carved(&task), broken])]);
    filtered(server.publish("status", "", &status), "ErrorStringEnumAllEventsFiltered");
    assert_eq!(stored(&server, "binary", "1").len(), 1);
    assert!(stored(&server, "status", "1").is_empty());
}

#[test]
fn x18_settings_leave_at_their_depth_and_the_key_still_has_them() {
    let server = Server::start();
    let settings = json!({"mode": "fast", "remove_at_depth": "2"});
    let parent = with(e1(), "/source/settings", settings.clone());
    let ok = server.publish_ok("binary", &json!([parent, carved(&parent)]));
    assert_eq!(ok[0]["kafka_key"], "161e021cffd805af4f4407ae1566e979", "vector V4");
    assert_eq!(ok[0]["source"]["settings"], settings);
    assert_eq!(ok[1]["kafka_key"], "4cbd187c6197b37a6676e5787121233c", "vector V5");
    assert!(ok[1]["source"].get("settings").is_none(), "{}", ok[1]);
    let events = stored(&server, "binary", "1");
    assert!(events.iter().all(|event| ok.contains(event)), "{events:?}");
    assert_eq!(events.len(), 2);
}

#[test]
fn keys_follow_the_vectors() {
    let server = Server::start();
    let b = id('b');
    let enriched_by_strings = json!({"author": {"name": "Strings", "category": "plugin"}, "action": "enriched",
        "sha256": b, "timestamp": "2026-01-02T03:06:00Z"});
    let mut deep = without(carved(&e1()), "/entity/datastreams");
    deep["source"]["path"].as_array_mut().unwrap().push(enriched_by_strings);
    let deep = with(deep, "/action", json!("enriched"));
    let offset = with(e1(), "/source/timestamp", json!("2026-01-02T13:04:05+10:00"));
    let secret = with(carved(&e1()), "/source/path/1/author/security", json!("SECRET"));
    let bare = without(without(e1(), "/source/references"), "/source/security");
    let bare = without(bare, "/source/path/0/author/security");
    let cases = [
        (e1(), E1_KEY, "V1"),
        (carved(&e1()), CHILD_KEY, "V2"),
        (deep, "4495b0157c8399a88f1c8266060acd14", "V3"),
        (offset, "3f0c55cd307a98ed79ccb13f6601c2f8", "V6"),
        (secret, "c2d225b2bf2ae13608f9f26514d78088", "V7"),
        (bare, "c1a65eda33569eb3321ea720024727fd", "V8"),
    ];
    for (event, key, vector) in cases {
        assert_eq!(server.publish_ok("binary", &event)[0]["kafka_key"], key, "vector {vector}");
    }
}

#[test]
fn tracking_fields_follow_the_vectors() {
    let server = Server::start();
    let two = with(e1(), "/source/references", json!({"user": "amy", "case": "77"}));
    let ok = server.publish_ok("binary", &two);
    assert_eq!(ok[0]["track_source_references"], "lab.abc8f68e0fcd62447cdc0a61b6cf9b72");
    let none = without(e1(), "/source/references");
    let ok = server.publish_ok("binary", &none);
    assert_eq!(ok[0]["track_source_references"], "lab.d41d8cd98f00b204e9800998ecf8427e");
    let elsewhere = with(carved(&e1()), "/source/path/1/timestamp", json!("2026-01-02T13:05:00.5+10:00"));
    let ok = server.publish_ok("binary", &elsewhere);
    let link = format!("{}.{}.2026_01_02T13_05_00+10_00.plugin.Carver.1.2", id('a'), id('b'));
    assert_eq!(ok[0]["track_links"], json!([link]));
}

#[test]
fn what_the_client_says_about_keys_and_tracking_is_overwritten() {
    let server = Server::start();
    let forged = with(e1_final(), "/kafka_key", json!("0".repeat(32)));
    let forged = with(forged, "/track_authors", json!(["user.eve."]));
    let forged = with(forged, "/track_links", json!(["x"]));
    let forged = with(forged, "/track_source_references", json!("x"));
    assert_eq!(server.publish_ok("binary", &forged), [e1_final()]);
}

#[test]
fn x21_a_too_large_event_is_named_and_harms_no_other() {
    let config = Config::examples().set("events", "message_max_bytes", "1000");
    let server = Server::with(&config);
    let large = with(e1(), "/entity/magic", json!("m".repeat(2000)));
    let detail = server.publish("binary", "", &json!([large])).expect_error_titled(500, "failed ProduceAnyEvents");
    assert!(detail.starts_with("successfully submitted 0/1 events"), "{detail}");
    assert!(detail.contains("message too large for kafka: "), "{detail}");
    assert!(stored(&server, "binary", "1").is_empty());
    server.publish_ok("binary", &json!([e1()]));
    assert_eq!(stored(&server, "binary", "2"), [e1_final()]);
}

#[test]
fn x23_every_plugin_registration_is_kept_under_one_key() {
    let server = Server::start();
    let registration = json!([carver_registration()]);
    for _ in 0..2 {
        let ok = server.publish_ok("plugin", &registration);
        assert_eq!(ok[0]["kafka_key"], "e51a5431ff9eb0660ed4e90d2d176905", "vector V10");
    }
    let expected = with(carver_registration(), "/kafka_key", json!("e51a5431ff9eb0660ed4e90d2d176905"));
    assert_eq!(stored(&server, "plugin", "1"), [expected.clone(), expected]);
}

#[test]
fn a_source_name_that_cannot_be_part_of_a_topic_is_listed_in_failures() {
    let server = Server::start();
    let long = "x".repeat(121);
    for name in ["la b", "lab/x", "läb", "a\u{0}b", long.as_str()] {
        let bad = with(e1(), "/source/name", json!(name));
        let answer = accepted(server.publish("binary", "", &json!([bad, e1()])));
        assert_eq!((&answer["total_ok"], &answer["total_failures"]), (&json!(1), &json!(1)), "{name:?}: {answer}");
        let error = answer["failures"][0]["error"].as_str().unwrap_or_default();
        assert!(error.starts_with("innerNewMsgInFlight ") && error.contains("source"), "{error}");
    }
}

#[test]
fn an_unknown_source_gets_a_topic_and_readers_see_it() {
    let server = Server::start();
    let query = "name=early&version=1&count=1&deadline=1&r-live=true&r-historic=true";
    assert!(server.fetch("binary/passive", query).events.is_empty());
    server.publish_ok("binary", &with(e1(), "/source/name", json!("brand-new")));
    let batch = server.fetch("binary/passive", query);
    assert_eq!(batch.only()["source"]["name"], "brand-new");
}
