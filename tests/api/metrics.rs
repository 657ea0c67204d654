//! `/metrics` after real traffic: names, types, labels and buckets that dashboards of the upstream service ask for.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::events::{carved, carver_status, e1, with};
use crate::support::{Config, Server};

const A: &str = "1e-5 0.0001 0.001 0.01 0.1 1.0 5.0 10.0 +Inf";
const B: &str = "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 30.0 60.0 120.0 300.0 600.0 1200.0 1800.0 2400.0 +Inf";
const C: &str = "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 30.0 60.0 +Inf";

/// Name, type, and one series that must be there; for histograms the buckets.
///
/// Not among them are those that nothing counts here: `dispatcher_kafka_rebalance_count` (positions belong to one
/// process), `dispatcher_kafka_consumer_restart_count` (no consumer restarts).
const ROWS: &[(&str, &str, &str, &str)] = &[
    ("dispatcher_event_fetch_requests_total", "counter", r#"plugin="Carver",entity="binary""#, ""),
    ("dispatcher_events_fetched_total", "counter", r#"plugin="Carver",entity="binary""#, ""),
    ("dispatcher_events_filtered_total", "counter", r#"plugin="Carver",entity="binary""#, ""),
    ("dispatcher_events_consume_duration", "histogram", r#"stage="read_from_kafka""#, A),
    ("dispatcher_events_consume_duration", "histogram", r#"stage="upgrade_event""#, A),
    ("dispatcher_events_consume_duration", "histogram", r#"stage="run_pipelines""#, A),
    ("dispatcher_events_consume_duration", "histogram", r#"stage="metadata""#, A),
    ("dispatcher_events_consume_pipelines_duration", "histogram", r#"pipeline="PipelineAgeoff""#, A),
    ("dispatcher_events_consume_pipelines_duration", "histogram", r#"pipeline="FilterTooDeep""#, A),
    ("dispatcher_events_consume_pipelines_duration", "histogram", r#"pipeline="FilterConsumerRules""#, A),
    ("dispatcher_events_consume_pipelines_duration", "histogram", r#"pipeline="FilterPreviouslyDeleted""#, A),
    ("dispatcher_events_consume_pipelines_duration", "histogram", r#"pipeline="FilterDuplicates""#, A),
    ("dispatcher_events_consume_pipelines_duration", "histogram", r#"pipeline="ReplayPluginCompletion""#, A),
    ("dispatcher_events_consume_pipelines_removed", "counter", r#"pipeline="FilterDuplicates""#, ""),
    ("dispatcher_events_consume_pipelines_removed", "counter", r#"pipeline="ReplayPluginCompletion""#, ""),
    ("dispatcher_events_consume_pipelines_error", "counter", r#"pipeline="ReplayPluginCompletion""#, ""),
    ("dispatcher_events_consume_not_ready", "gauge", r#"plugin="Carver",version="1.2""#, ""),
    ("dispatcher_events_published_total", "counter", r#"plugin="amy",entity="binary""#, ""),
    ("dispatcher_events_status_published", "counter", r#"plugin="Carver",status="completed""#, ""),
    ("dispatcher_events_produce_duration", "histogram", r#"stage="buffer""#, A),
    ("dispatcher_events_produce_duration", "histogram", r#"stage="transform""#, A),
    ("dispatcher_events_produce_duration", "histogram", r#"stage="produce""#, A),
    ("dispatcher_events_produce_pipelines_duration", "histogram", r#"pipeline="PipelineAgeoff""#, A),
    ("dispatcher_events_produce_pipelines_duration", "histogram", r#"pipeline="ReplayPluginCompletion""#, A),
    ("dispatcher_events_produce_pipelines_duration", "histogram", r#"pipeline="ProduceStatusResults""#, A),
    ("dispatcher_events_produce_pipelines_duration", "histogram", r#"pipeline="InjectId""#, A),
    ("dispatcher_events_produce_pipelines_duration", "histogram", r#"pipeline="InjectChildEvents""#, A),
    ("dispatcher_events_produce_pipelines_duration", "histogram", r#"pipeline="FilterPreviouslyDeleted""#, A),
    ("dispatcher_events_produce_pipelines_duration", "histogram", r#"pipeline="SourceSettingRemoval""#, A),
    ("dispatcher_events_produce_pipelines_removed", "counter", r#"pipeline="PipelineAgeoff""#, ""),
    ("dispatcher_events_produce_pipelines_added", "counter", r#"pipeline="ProduceStatusResults""#, ""),
    ("dispatcher_events_produce_pipelines_error", "counter", r#"pipeline="SourceSettingRemoval""#, ""),
    ("dispatcher_events_produce_bad_version", "counter", r#"entity="binary",version="5",author="""#, ""),
    (
        "dispatcher_kafka_consumed_message_bytes_total",
        "gauge",
        r#"name="dispatcher",group="",topic="azul.t1.system.delete""#,
        "",
    ),
    ("dispatcher_kafka_produced_message_bytes_total", "gauge", r#"topic="azul.t1.lab.binary.sourced""#, ""),
    ("dispatcher_kafka_produced_message_error_total", "counter", r#"topic="azul.t1.lab.binary.sourced""#, ""),
    ("dispatcher_dedupe_lookups_total", "counter", "", ""),
    ("dispatcher_dedupe_hits_total", "counter", "", ""),
    ("dispatcher_dedupe_collisions_total", "counter", "", ""),
    ("dispatcher_replay_cache_hit_count", "gauge", r#"name="Carver""#, ""),
    ("dispatcher_replay_cache_hit_seconds", "gauge", r#"name="Carver""#, ""),
    ("dispatcher_processing_time_seconds", "histogram", r#"publisher="Carver""#, B),
    ("dispatcher_restapi_time_seconds", "histogram", r#"method="POST",path="/api/v2/event""#, C),
    ("dispatcher_restapi_time_seconds", "histogram", r#"method="GET",path="/api/v2/event/:model/passive""#, C),
    ("dispatcher_restapi_time_seconds", "histogram", r#"method="GET",path="/api/v2/event/:model/active""#, C),
    ("dispatcher_restapi_response_codes", "counter", r#"method="POST",path="/api/v2/event",code="200""#, ""),
    ("dispatcher_restapi_response_codes", "counter", r#"method="POST",path="/api/v2/event",code="422""#, ""),
    ("dispatcher_restapi_response_codes", "counter", r#"method="POST",path="/api/v2/event",code="425""#, ""),
    ("dispatcher_restapi_response_codes", "counter", r#"method="POST",path="/api/v2/event",code="500""#, ""),
    (
        "dispatcher_restapi_response_codes",
        "counter",
        r#"method="GET",path="/api/v2/event/:model/passive",code="422""#,
        "",
    ),
];

/// What events.md 9.2 asks for beside those: backlog, open leases, lost events, delete sets, store bytes, sync latency.
const OWN_ROWS: &[(&str, &str, &str)] = &[
    ("azulite_consumer_lag", "gauge", r#"group="t1-azul-idx-1-binary-allsrc-alltype-H-historic""#),
    ("dispatcher_events_redis_tracking", "gauge", r#"origin="lost-tasks""#),
    ("dispatcher_events_redis_tracking_control", "counter", r#"origin="started""#),
    ("dispatcher_events_redis_tracking_control", "counter", r#"origin="finished-0""#),
    ("azulite_purge_orders", "gauge", r#"kind="id""#),
    ("azulite_store_bytes", "gauge", r#"part="log""#),
    ("azulite_store_bytes", "gauge", r#"part="index""#),
    ("azulite_store_bytes", "gauge", r#"part="catalogue""#),
    ("azulite_disk_free_bytes", "gauge", ""),
    ("azulite_log_sync_seconds", "histogram", ""),
];

/// Every counter of the table goes up once at least.
fn traffic(server: &Server) {
    const CARVER: &str = "name=Carver&version=1.2&count=1&deadline=1&r-historic=true&r-action=sourced";
    server.publish_ok("binary", &e1());
    let task = server.fetch("binary/active", CARVER);
    let status = carver_status(task.only(), "completed", &[carved(&e1())]);
    server.publish_ok("status", &with(status, "/entity/runtime", json!(15.0)));
    let by = |user: &str, source: &str| {
        with(with(e1(), "/source/references/user", json!(user)), "/source/name", json!(source))
    };
    server.publish_ok("binary", &by("zoe", "lab"));
    assert_eq!(server.fetch("binary/active", CARVER).info["filtered"], 1, "answered out of the cache");
    server.publish_ok("binary", &e1());
    assert_eq!(server.fetch("binary/active", CARVER).info["filtered"], 1, "handed out before");
    server.publish_ok("binary", &by("zoe", "elsewhere"));
    assert_eq!(server.fetch("binary/active", CARVER).events.len(), 1, "its streams are nowhere");
    server.fetch("binary/passive", "name=idx&version=1&count=9&deadline=0&r-historic=true");
    server.publish("binary", "", &with(e1(), "/model_version", json!(5))).expect_any_error(422);
    server.publish("binary", "", &by("amy", "short")).expect_any_error(425);
    server.publish_ok("binary", &with(e1(), "/source/settings", json!({"remove_at_depth": "deep"})));
    let large = with(e1(), "/entity/datastreams/0/magic", json!("x".repeat(5000)));
    server.publish("binary", "", &large).expect_any_error(500);
    server.client().get("/api/v2/event/binary/passive").expect_any_error(422);
    let order = json!({"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": {"name": "admin"},
        "action": "ids", "entity": {"reason": "test", "ids": {"ids": ["nothing"]}}});
    server.publish_ok("delete", &order);
}

fn config() -> Config {
    Config::examples()
        .set("events", "dedupe_cache_bytes", "\"64Ki\"")
        .set("events", "message_max_bytes", "\"4Ki\"")
        .set("events.replay_plugin_cache", "size_bytes", "\"1Mi\"")
}

fn labels_of(text: &str) -> BTreeSet<&str> {
    text.split("\",").map(|label| label.trim_end_matches('"')).filter(|label| !label.is_empty()).collect()
}

#[test]
fn dashboards_find_every_metric_with_its_type_labels_and_buckets() {
    let server = Server::with(&config());
    traffic(&server);
    let page = server.client().get("/metrics").expect_status(200).text();
    let series = |name: &str| -> Vec<(&str, &str)> {
        let of = |line| -> Option<(&str, &str)> {
            let rest = str::strip_prefix(line, name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            match labels.strip_prefix('{') {
                Some(labels) => Some((labels.strip_suffix('}')?, value)),
                None => labels.is_empty().then_some(("", value)),
            }
        };
        page.lines().filter_map(of).collect()
    };
    let own =
        OWN_ROWS.iter().map(|(name, kind, labels)| (name, kind, labels, if *kind == "histogram" { &A } else { &"" }));
    for (name, kind, labels, buckets) in ROWS.iter().map(|(n, k, l, b)| (n, k, l, b)).chain(own) {
        assert!(page.lines().any(|line| line == format!("# TYPE {name} {kind}")), "{name} is no {kind} in\n{page}");
        let wanted = labels_of(labels);
        let shown = if *kind == "histogram" { format!("{name}_count") } else { (*name).to_owned() };
        let all = series(&shown);
        let found = all.iter().find(|(found, _)| labels_of(found) == wanted);
        let (_, value) = found.unwrap_or_else(|| panic!("{name}{{{labels}}} is not among {all:?}"));
        let still = ["dispatcher_events_consume_not_ready", "dispatcher_dedupe_collisions_total"].contains(name);
        assert!(still || *value != "0", "{name}{{{labels}}} counts nothing");
        if !buckets.is_empty() {
            let all = series(&format!("{name}_bucket"));
            let bounds: Vec<f64> = all
                .iter()
                .map(|(labels, _)| labels_of(labels))
                .filter(|labels| wanted.is_subset(labels))
                .filter_map(|labels| labels.into_iter().find_map(|label| label.strip_prefix("le=\"")?.parse().ok()))
                .collect();
            let wanted: Vec<f64> = buckets.split(' ').map(|bound| bound.parse().expect("a bound")).collect();
            assert_eq!(bounds, wanted, "{name}");
        }
    }
}

#[test]
fn log_files_hold_requests_and_refused_events_one_object_a_line() {
    let mut server = Server::prepared(&config());
    let folder = server.folder().join("logs").join("dispatcher");
    let path = format!("\"{}\"", folder.display());
    server.configure(&config().set("logging", "path", &path));
    server.launch();
    traffic(&server);
    server.client().request(
        "GET",
        "/api/v2/event/binary/passive?name=x&r-live=maybe",
        &[("User-Agent", "dpclient-py-test")],
        crate::support::Body::None,
    );
    server.stop();
    let lines = |name: &str| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(folder.join(name)).expect("the file");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let keys = |line: &serde_json::Value| line.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let base = ["duration_s", "method", "path", "query", "remote", "route", "status", "time", "user_agent"];
    let ok = lines("restapi.ok.log");
    assert!(
        ok.len() > 10 && ok.iter().all(|line| keys(line) == base && line["status"].as_u64() < Some(400)),
        "{ok:#?}"
    );
    let failed = lines("restapi.err.log");
    assert!(failed.iter().all(|line| line["status"].as_u64() >= Some(400)), "{failed:#?}");
    let last = failed.last().expect("a refused request");
    assert_eq!((&last["status"], &last["method"]), (&json!(422), &json!("GET")));
    assert_eq!(
        (&last["route"], &last["path"]),
        (&json!("/api/v2/event/:model/passive"), &json!("/api/v2/event/binary/passive"))
    );
    assert_eq!((&last["query"], &last["remote"]), (&json!("name=x&r-live=maybe"), &json!("127.0.0.1")));
    assert_eq!((&last["user_agent"], &last["response_body"]["status"]), (&json!("dpclient-py-test"), &json!("422")));
    let producer = lines("producer.err.log");
    let event_keys = ["description", "error", "event", "event_bytes", "pipeline", "time", "user_agent"];
    assert!(producer.iter().all(|line| keys(line) == event_keys), "{producer:#?}");
    let stages: Vec<&str> = producer.iter().filter_map(|line| line["pipeline"].as_str()).collect();
    assert_eq!(stages, ["SourceSettingRemoval", "publish"]);
    assert_eq!(producer[0]["event"]["source"]["settings"]["remove_at_depth"], "deep");
    let consumer = lines("consumer.err.log");
    assert_eq!((consumer.len(), &consumer[0]["plugin"], &consumer[0]["version"]), (1, &json!("Carver"), &json!("1.2")));
    assert_eq!(consumer[0]["pipeline"], "ReplayPluginCompletion");
}

#[test]
fn a_log_folder_that_cannot_be_written_is_a_start_error() {
    let server = Server::prepared(&Config::examples());
    let file = server.folder().join("file");
    std::fs::write(&file, b"").expect("a file");
    server.configure(&Config::examples().set("logging", "path", &format!("\"{}\"", file.join("logs").display())));
    let ran = server.cli(["serve"]).expect_code(2);
    assert!(ran.stderr.contains("logging.path: ") && ran.stderr.contains("file/logs"), "{ran:?}");
}
