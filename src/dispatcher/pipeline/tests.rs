use std::cell::Cell;

use serde_json::{Value, json};

use super::super::model::decode_body_json;
use super::super::sources::SourcesConfig;
use super::*;

const NOW: &str = "2026-01-04T03:04:05Z";

/// E1 of events.md section 11.
fn e1() -> Value {
    let (a, amy) = ("a".repeat(64), json!({"name":"amy","category":"user","security":"OFFICIAL"}));
    json!({"model_version":6,"kafka_key":"tmp","timestamp":"2026-01-02T03:04:06Z","author":amy,
        "source":{"name":"lab","security":"OFFICIAL","references":{"user":"amy"},"timestamp":"2026-01-02T03:04:05Z",
            "path":[{"author":amy,"action":"sourced","sha256":a,"timestamp":"2026-01-02T03:04:05Z",
                "file_format":"text/plain","size":5,"filename":"a.txt"}]},
        "entity":{"sha256":a,"size":5,"file_format":"text/plain",
            "datastreams":[{"label":"content","size":5,"sha512":"H","sha256":a,"sha1":"H","md5":"H",
                "mime":"text/plain","magic":"ASCII text","file_format":"text/plain"}]},
        "action":"sourced"})
}

/// The child of X10: extracted by Carver from E1 or from `parent`.
fn child(parent: &Value) -> Value {
    let (b, carver) = ("b".repeat(64), json!({"name":"Carver","version":"1.2","category":"plugin"}));
    let mut source = parent["source"].clone();
    let node = json!({"author":carver,"action":"extracted","sha256":b,"timestamp":"2026-01-02T03:05:00Z"});
    source["path"].as_array_mut().unwrap().push(node);
    json!({"model_version":6,"timestamp":"2026-01-02T03:05:00Z","action":"extracted","author":carver,"source":source,
        "entity":{"sha256":b,"datastreams":[{"label":"content","size":3,"sha512":"H","sha256":b,"sha1":"H","md5":"H",
            "mime":"x","magic":"x"}]}})
}

const DEQUEUED: &str = "419d55d8a85cf11e3b9bd17486279a68.Carver.1.2.1767323100";

/// The status of X10.
fn status(word: &str, results: &[Value]) -> Value {
    let mut input = e1();
    input["dequeued"] = json!(DEQUEUED);
    json!({"model_version":6,"timestamp":"2026-01-02T03:05:01Z",
        "author":{"name":"Carver","version":"1.2","category":"plugin"},
        "entity":{"status":word,"runtime":1.5,"input":input,"results":results}})
}

fn decoded(model: Model, value: &Value) -> Event {
    let mut elements = decode_body_json(model, value.to_string().as_bytes()).unwrap();
    elements.pop().unwrap().event.unwrap()
}

fn run(events: Vec<Event>) -> Produced {
    run_with(events, &Inserts::default(), &PurgeOrders::default())
}

fn run_with(events: Vec<Event>, inserts: &Inserts, purges: &PurgeOrders) -> Produced {
    let config: SourcesConfig = serde_json::from_str(r#"{"lab":{},"short":{"expire_events_after":"2 days"}}"#).unwrap();
    let sources = Sources::check(&config).unwrap();
    let calls = Cell::new(0);
    let random = || {
        calls.set(calls.get() + 1);
        [calls.get(); 32]
    };
    let now = Timestamp::parse(NOW).unwrap();
    Pipeline { sources: &sources, inserts, purges, now, replay: None, metrics: &Metrics::new() }.run(events, random)
}

fn binary(outgoing: &Outgoing) -> &BinaryEvent {
    let Event::Binary(binary) = &outgoing.event else { panic!("not a binary: {outgoing:?}") };
    binary
}

fn keys(produced: &Produced) -> Vec<(Model, &str, bool)> {
    let events = produced.events.iter();
    events.map(|Outgoing { event, from_client, .. }| (event.model(), event.kafka_key(), *from_client)).collect()
}

/// X1.
#[test]
fn a_binary_gets_its_key_and_its_tracking_fields() {
    let produced = run(vec![decoded(Model::Binary, &e1())]);
    assert_eq!(keys(&produced), [(Model::Binary, "419d55d8a85cf11e3b9bd17486279a68", true)]);
    let event = binary(&produced.events[0]);
    assert_eq!(event.track_source_references, "lab.24595c1dbfa61e4c53f4b6e991cd0fe5");
    assert_eq!(event.track_authors, ["user.amy."]);
    assert_eq!(event.track_links, Vec::<String>::new());
    let nothing_else = Produced { events: produced.events.clone(), ..Produced::default() };
    assert_eq!(produced, nothing_else);
}

/// X6.
#[test]
fn an_aged_event_is_dropped_and_the_others_go_on() {
    let mut aged = e1();
    aged["source"]["name"] = json!("short");
    aged["source"]["timestamp"] = json!("2026-01-02T03:04:04Z");
    let produced = run(vec![decoded(Model::Binary, &aged), decoded(Model::Binary, &e1())]);
    assert_eq!(keys(&produced), [(Model::Binary, "419d55d8a85cf11e3b9bd17486279a68", true)]);
    assert_eq!(produced.drops.iter().collect::<Vec<_>>(), [("PipelineAgeoff", 1)]);
}

/// X10.
#[test]
fn a_completed_status_gives_its_results_and_closes_its_task() {
    let produced = run(vec![decoded(Model::Status, &status("completed", &[child(&e1())]))]);
    let wanted = [
        (Model::Status, "d1745d5585426bfa9fd44bbbb25cd40f", true),
        (Model::Binary, "c28af1bebcf545170cbc589b715b25aa", false),
    ];
    assert_eq!(keys(&produced), wanted);
    let Event::Status(stored) = &produced.events[0].event else { panic!("{produced:?}") };
    assert!(stored.entity.results.is_empty());
    let result = binary(&produced.events[1]);
    let link = format!("{}.{}.2026_01_02T03_05_00Z_00.plugin.Carver.1.2", "a".repeat(64), "b".repeat(64));
    assert_eq!(result.track_links, [link]);
    assert_eq!(result.track_authors, ["user.amy.", "plugin.Carver.1.2"]);
    assert_eq!((result.flags, result.dequeued.as_str()), (Flags::default(), ""));
    let closed = ClosedTask {
        dequeued: DEQUEUED.into(),
        kafka_key: "tmp".into(),
        author: "Carver".into(),
        status: "completed".into(),
        runtime: 1.5,
        ..ClosedTask::default()
    };
    assert_eq!(produced.closed_tasks, [closed]);
    assert_eq!(produced.completed_runs, [CompletedRun { publisher: "Carver".into(), runtime_secs: 1.5 }]);
    assert_eq!(produced.added, BTreeMap::from([("ProduceStatusResults", 1)]));
}

/// X10 and section 3.3, steps 1 and 2.
#[test]
fn only_the_completed_class_publishes_results_and_only_progress_leaves_the_task_open() {
    let table = [
        ("completed", true, true),
        ("completed-empty", true, true),
        ("completed-with-errors", true, true),
        ("opt-out", false, true),
        ("error-exception", false, true),
        ("download-requested", false, true),
        ("heartbeat", false, false),
        ("dequeued", false, false),
    ];
    for (word, publishes, closes) in table {
        let produced = run(vec![decoded(Model::Status, &status(word, &[child(&e1())]))]);
        assert_eq!(produced.events.len(), if publishes { 2 } else { 1 }, "{word}");
        let Event::Status(stored) = &produced.events[0].event else { panic!("{produced:?}") };
        assert_eq!(stored.entity.results.is_empty(), publishes, "{word}");
        assert_eq!(produced.closed_tasks.len(), usize::from(closes), "{word}");
        assert_eq!(produced.completed_runs.len(), usize::from(publishes), "{word}");
    }
}

/// Section 3.3, step 3: `retry` is cleared, the other two come from the input.
#[test]
fn results_inherit_two_flags_and_lose_their_own() {
    let mut posted = status("completed", &[]);
    posted["entity"]["input"]["flags"] = json!({"expedite":true,"retry":true});
    let mut result = child(&e1());
    result["flags"] = json!({"bypass_cache":true,"retry":true});
    posted["entity"]["results"] = json!([result]);
    let produced = run(vec![decoded(Model::Status, &posted)]);
    assert_eq!(binary(&produced.events[1]).flags, Flags { expedite: true, ..Flags::default() });
}

/// Section 3.3, step 4.
#[test]
fn one_bad_result_drops_the_status_and_all_its_results() {
    let mut event = decoded(Model::Status, &status("completed", &[child(&e1()), child(&e1())]));
    let Event::Status(status) = &mut event else { panic!("{event:?}") };
    status.entity.results[1].action.clear();
    let produced = run(vec![event, decoded(Model::Binary, &e1())]);
    assert_eq!(keys(&produced), [(Model::Binary, "419d55d8a85cf11e3b9bd17486279a68", true)]);
    assert_eq!(produced.drops.iter().collect::<Vec<_>>(), [("ProduceStatusResults", 1)]);
    assert_eq!(produced.closed_tasks.len(), 1);
    let wanted = "ProduceStatusResults: status event of \"Carver\": event is missing 'action' field";
    assert_eq!(produced.errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [wanted]);
}

/// Section 3.1 for a status, and section 10, 25.
#[test]
fn an_aged_status_is_dropped_with_its_results_but_closes_its_task() {
    let mut posted = status("completed", &[child(&e1())]);
    posted["entity"]["input"]["source"]["name"] = json!("short");
    posted["entity"]["input"]["source"]["timestamp"] = json!("2025-01-02T03:04:05Z");
    let produced = run(vec![decoded(Model::Status, &posted)]);
    assert_eq!((produced.events.len(), produced.drops.of("PipelineAgeoff")), (0, 1));
    assert_eq!(produced.closed_tasks.len(), 1);
    posted["entity"]["status"] = json!("heartbeat");
    assert_eq!(run(vec![decoded(Model::Status, &posted)]).closed_tasks, []);
}

/// Each stage sees only what was there before it: a result's own age is not looked at.
#[test]
fn results_are_seen_by_later_stages_only() {
    let mut parent = e1();
    parent["source"]["name"] = json!("short");
    parent["source"]["timestamp"] = json!("2025-01-02T03:04:05Z");
    let produced = run(vec![decoded(Model::Status, &status("completed", &[child(&parent)]))]);
    assert_eq!(produced.events.len(), 2);
}

/// X18.
#[test]
fn settings_go_at_their_depth_after_the_key_was_made() {
    let mut parent = e1();
    parent["source"]["settings"] = json!({"mode":"fast","remove_at_depth":"2"});
    let produced =
        run(vec![decoded(Model::Binary, &parent), decoded(Model::Status, &status("completed", &[child(&parent)]))]);
    let [first, _, third] = produced.events.as_slice() else { panic!("{produced:?}") };
    assert_eq!(first.event.kafka_key(), "161e021cffd805af4f4407ae1566e979");
    assert_eq!(binary(first).source.settings.len(), 2);
    assert_eq!(third.event.kafka_key(), "4cbd187c6197b37a6676e5787121233c");
    assert!(binary(third).source.settings.is_empty());
}

#[test]
fn settings_stay_below_their_depth_and_when_the_depth_is_no_integer() {
    let table = [("1", true, 0), ("0", true, 0), ("-1", true, 0), ("2", false, 0), ("two", false, 1), ("", false, 1)];
    for (depth, cleared, errors) in table {
        let mut event = e1();
        event["source"]["settings"] = json!({"remove_at_depth":depth});
        let produced = run(vec![decoded(Model::Binary, &event)]);
        assert_eq!(binary(&produced.events[0]).source.settings.is_empty(), cleared, "{depth:?}");
        assert_eq!(produced.errors.len(), errors, "{depth:?}");
        assert_eq!(produced.drops, Drops::default());
    }
}

#[test]
fn an_event_without_a_key_is_dropped() {
    let produced = run(vec![Event::Binary(Box::default())]);
    assert_eq!(produced.events, []);
    assert_eq!((produced.drops.of("InjectId"), produced.errors.len()), (1, 1));
}

#[test]
fn random_keys_are_drawn_for_each_event_that_needs_one() {
    let deletes = || (0..2).map(|_| Event::Delete(Box::default()));
    let plugin: Vec<Event> = vec![Event::Plugin(Box::default())];
    let produced = run(plugin.into_iter().chain(deletes()).collect());
    let [_, first, second] = produced.events.as_slice() else { panic!("{produced:?}") };
    assert_ne!(first.event.kafka_key(), second.event.kafka_key());
    let keys = [[1; 32], [2; 32]].map(|bytes| model::kafka_key(&first.event, bytes).unwrap());
    assert_eq!([first.event.kafka_key(), second.event.kafka_key()], [keys[0].as_str(), keys[1].as_str()]);
}

fn order(action: &str, entity: Value) -> PurgeOrders {
    let order = json!({"model_version":6,"timestamp":"2026-01-03T00:00:00Z","author":{"name":"admin"},"action":action,
        "entity":entity});
    let Event::Delete(order) = decoded(Model::Delete, &order) else { panic!("{order}") };
    let mut orders = PurgeOrders::default();
    orders.add(&order).unwrap();
    orders
}

/// Section 10, 19: the tracking fields are there when the orders are asked.
#[test]
fn all_four_kinds_of_purge_drop_a_fresh_event() {
    let link = format!("{}.{}.2026_01_02T03_05_00Z_00.plugin.Carver.1.2", "a".repeat(64), "b".repeat(64));
    let references = "lab.24595c1dbfa61e4c53f4b6e991cd0fe5";
    let (early, late) = ("2026-01-02T03:05:00Z", "2026-01-02T03:05:00.000001Z");
    let orders = [
        (order("ids", json!({"ids":{"ids":["c28af1bebcf545170cbc589b715b25aa"]}})), 0),
        (order("link", json!({"link":{"track_link":link}})), 0),
        (order("author", json!({"author":{"track_author":"plugin.Carver.1.2","timestamp":late}})), 0),
        (order("author", json!({"author":{"track_author":"plugin.Carver.1.2","timestamp":early}})), 1),
        (order("submission", json!({"submission":{"track_source_references":references}})), 0),
        (order("ids", json!({"ids":{"ids":["419d55d8a85cf11e3b9bd17486279a68"]}})), 1),
    ];
    for (orders, left) in orders {
        let mut posted = child(&e1());
        posted["track_links"] = json!(["what the client says"]);
        let produced = run_with(vec![decoded(Model::Binary, &posted)], &Inserts::default(), &orders);
        assert_eq!(produced.events.len(), left, "{orders:?}");
        assert_eq!(produced.drops.of("FilterPreviouslyDeleted"), if left == 0 { 1 } else { 0 });
    }
}

#[test]
fn a_purged_result_is_dropped_and_its_status_goes_on() {
    let orders = order("ids", json!({"ids":{"ids":["c28af1bebcf545170cbc589b715b25aa"]}}));
    let posted = decoded(Model::Status, &status("completed", &[child(&e1())]));
    let produced = run_with(vec![posted], &Inserts::default(), &orders);
    assert_eq!(keys(&produced), [(Model::Status, "d1745d5585426bfa9fd44bbbb25cd40f", true)]);
    assert_eq!(produced.drops.iter().collect::<Vec<_>>(), [("FilterPreviouslyDeleted", 1)]);
}
