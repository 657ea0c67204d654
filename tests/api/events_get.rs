//! Fetching: worked examples X7 to X9, X12 to X14, X16, X22 and X24.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::batch::parts;
use crate::support::events::{E1_KEY, carved, carver_status, e1, e1_final, id, sourced, with, without};
use crate::support::{Batch, Config, Server};

const PASSIVE: &str = "binary/passive";
const ACTIONS: [&str; 5] = ["sourced", "extracted", "augmented", "mapped", "enriched"];

fn one_filter(batch: &Batch, key: &str) {
    assert!(batch.events.is_empty(), "{batch:?}");
    assert_eq!(batch.info["filtered"], 1, "{batch:?}");
    assert_eq!(batch.info["filters"], json!({ key: 1 }));
}

#[test]
fn x7_a_stored_event_is_read_back_in_exactly_two_parts() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let query = "/api/v2/event/binary/passive?name=idx&version=1&count=10&deadline=1&r-historic=true";
    let start = Instant::now();
    let answer = server.client().get(query);
    assert!(start.elapsed() >= Duration::from_millis(700), "count was not reached: the call lasts until its deadline");
    let (info, events) = parts(&answer);
    let info: Value = serde_json::from_slice(&info).unwrap();
    assert_eq!(info, json!({"filtered": 0, "fetched": 1, "ready": true, "paused": false}));
    let events: Value = serde_json::from_slice(&events).unwrap();
    assert_eq!(events, json!({"events": [e1_final()]}));
}

#[test]
fn x7_an_event_is_handed_to_a_group_once_and_to_the_next_version_again() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let get = |version: &str, count: u32| {
        server.fetch(PASSIVE, &format!("name=idx&version={version}&count={count}&deadline=1&r-historic=true"))
    };
    let start = Instant::now();
    assert_eq!(get("1", 1).only(), &e1_final());
    assert!(start.elapsed() < Duration::from_millis(900), "count reached: answers at once");
    let (_, events) = parts(
        &server.client().get("/api/v2/event/binary/passive?name=idx&version=1&count=10&deadline=1&r-historic=true"),
    );
    assert_eq!(events, br#"{"events":[]}"#, "nothing to give is a normal answer");
    assert_eq!(get("2", 1).only(), &e1_final());
}

#[test]
fn x7_a_waiting_get_is_woken_by_a_post() {
    let server = Server::start();
    let query = "name=wait&version=1&count=1&deadline=20&r-live=true";
    assert!(server.fetch(PASSIVE, "name=wait&version=1&count=1&deadline=0&r-live=true").events.is_empty());
    std::thread::scope(|scope| {
        let start = Instant::now();
        let waiter = scope.spawn(|| server.fetch(PASSIVE, query));
        server.publish_ok("binary", &json!([e1()]));
        assert_eq!(waiter.join().unwrap().only(), &e1_final());
        assert!(start.elapsed() < Duration::from_secs(5), "woken, not timed out");
    });
}

#[test]
fn no_deadline_is_one_sweep_that_answers_at_once() {
    let server = Server::start();
    let start = Instant::now();
    for deadline in ["0", "-5"] {
        let query =
            format!("name=go&version=1&count=0&deadline={deadline}&avro-format=false&deployment_key=&r-historic=true");
        assert!(server.fetch(PASSIVE, &query).events.is_empty());
    }
    server.publish_ok("binary", &json!([e1()]));
    let batch = server.fetch(PASSIVE, "name=go&version=1&count=50&deadline=0&r-historic=true");
    assert_eq!(batch.only(), &e1_final());
    assert!(start.elapsed() < Duration::from_secs(4), "none of the three waited: {:?}", start.elapsed());
}

#[test]
fn x8_bad_parameters_are_named() {
    let server = Server::start();
    let live = "name=p&version=1&r-live=true";
    let exact: [(&str, String, &str); 5] = [
        (PASSIVE, "name=p&version=1".into(), "requires at least one of r-expedite, r-live or r-historic"),
        (PASSIVE, "r-live=&r-historic=".into(), "requires at least one of r-expedite, r-live or r-historic"),
        ("status/passive", "r-expedite=true".into(), "can only r-expedite with binary events"),
        ("report/passive", "r-live=true".into(), "bad parameter for model: not a registered model type: report"),
        (
            PASSIVE,
            format!("{live}&r-content=true&r-action=sourced"),
            "cannot combine r-action with r-content or d-action",
        ),
    ];
    for (path, query, detail) in exact {
        server.client().get(&format!("/api/v2/event/{path}?{query}")).expect_error(422, "bad parameters", detail);
    }
    let prefixes: [(String, &str); 13] = [
        ("r-live=maybe".into(), "r-live"),
        ("r-historic=yes".into(), "r-historic"),
        ("r-expedite=2".into(), "r-expedite"),
        (format!("{live}&avro-format=json"), "avro-format"),
        (format!("{live}&count=many"), "count"),
        (format!("{live}&count=1.5"), "count"),
        (format!("{live}&deadline=5s"), "deadline"),
        (format!("{live}&r-under-content-size=10&r-over-content-size=20"), "r-over-content-size"),
        (format!("{live}&r-under-content-size=big"), "r-under-content-size"),
        (format!("{live}&r-action=requested"), "r-action"),
        (format!("{live}&r-action="), "r-action"),
        (format!("{live}&r-content=maybe"), "r-content"),
        (format!("{live}&debug=on"), "debug"),
    ];
    for (query, name) in prefixes {
        let answer = server.client().get(&format!("/api/v2/event/{PASSIVE}?{query}"));
        assert_eq!(answer.clone().expect_any_error(422).json()["error_enum"], "ErrorStringEnumUnset");
        let detail = answer.expect_error_titled(422, "bad parameters");
        assert!(detail.starts_with(&format!("bad parameter for {name}: ")), "{query}: {detail}");
    }
}

#[test]
fn x8_what_is_wrong_first_is_told_first() {
    let server = Server::start();
    let detail = |path: &str, query: &str| {
        let answer = server.client().get(&format!("/api/v2/event/{path}?{query}"));
        answer.expect_error_titled(422, "bad parameters")
    };
    assert!(detail("report/passive", "avro-format=x&r-live=x").contains("not a registered model type"));
    assert!(detail("status/passive", "avro-format=x&r-expedite=x").contains("avro-format"));
    assert!(detail("status/passive", "r-expedite=true&r-live=x").contains("can only r-expedite"));
    assert!(detail(PASSIVE, "r-live=x&count=x").contains("r-live"));
    assert!(detail(PASSIVE, "count=x").contains("requires at least one"));
    assert!(detail(PASSIVE, "r-live=1&count=x&r-under-content-size=x").contains("count"));
    assert!(detail(PASSIVE, "r-live=1&r-over-content-size=x&r-content=x").contains("r-over-content-size"));
    assert!(detail(PASSIVE, "r-live=1&r-content=1&d-action=junk").contains("cannot combine"));
    assert!(detail(PASSIVE, "r-live=1&r-action=junk&d-self=x").contains("r-action"));
}

#[test]
fn x8_lenient_parameters_stay_lenient() {
    let server = Server::start();
    for number in 0..6 {
        server.publish_ok("binary", &sourced(&format!("{number:064}"), "lab"));
    }
    let get = |version: &str, extra: &str| {
        let query = format!("name=p&version={version}&deadline=1&r-historic=true&{extra}");
        server.fetch(PASSIVE, &query).events.len()
    };
    assert_eq!(get("1", "is-task=junk&count=1"), 1);
    assert_eq!(get("2", "count=0"), 1);
    assert_eq!(get("3", "count=-3"), 1);
    assert_eq!(get("4", "count=5000"), 6);
    assert_eq!(get("5", ""), 1, "count defaults to 1");
    assert_eq!(get("6", "count=2&count=6"), 2, "the first one counts");
    assert_eq!(get("7", "count=6&unknown=1&filter=x"), 6);
    assert_eq!(get("8", "count=6&r-under-content-size=-1&r-over-content-size=-1"), 6, "negative is off");
    assert_eq!(get("9", "count=6&r-under-content-size=5&r-over-content-size=5"), 6, "equal bounds are allowed");
    assert_eq!(get("10", "count=6&r-streams=&r-streams=,"), 6, "r-streams without pieces is ignored");
}

#[test]
fn x9_live_starts_at_registration() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let live = "name=p&version=1&count=5&deadline=1&r-live=true";
    assert!(server.fetch(PASSIVE, live).events.is_empty());
    server.publish_ok("binary", &json!([e1()]));
    assert_eq!(server.fetch(PASSIVE, live).only(), &e1_final());
    let both = server.fetch(PASSIVE, &format!("{live}&r-historic=true"));
    assert!([1, 2].contains(&both.events.len()), "two stored copies, one if compaction ran: {both:?}");
}

#[test]
fn live_and_historic_of_one_key_hand_out_each_record_once() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let query = "name=p&version=1&count=5&deadline=1&r-live=true&r-historic=true";
    assert_eq!(server.fetch(PASSIVE, query).ids(), [id('a')]);
    server.publish_ok("binary", &sourced(&id('b'), "lab"));
    assert_eq!(server.fetch(PASSIVE, query).ids(), [id('b')]);
    assert!(server.fetch(PASSIVE, query).events.is_empty());
}

#[test]
fn x12_filters_are_accounted_for() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let rejected: [(&str, &str); 8] = [
        ("name=x&r-under-content-size=4", "reject_content_too_large"),
        ("name=x&r-over-content-size=6", "reject_content_too_small"),
        ("name=x&r-streams=content,executable/&r-streams=pcap", "reject_file_format"),
        ("name=x&r-streams=content&r-streams=pcap", "reject_stream"),
        ("name=x&r-streams=*,image/", "reject_file_format"),
        ("name=x&r-streams=pcap", "reject_stream"),
        ("name=amy&d-self=true", "reject_self"),
        ("name=x&d-action=sourced", "reject_event_type"),
    ];
    let kept = [
        "r-under-content-size=5",
        "r-over-content-size=5",
        "r-streams=content,",
        "r-streams=content,text/",
        "r-streams=*,text/",
        "r-streams=content,image/,text/",
        "r-content=true",
        "r-source=lab",
        "r-source=other&r-source=lab",
        "r-action=sourced",
        "d-action=enriched",
        "d-self=true",
    ];
    std::thread::scope(|scope| {
        for (number, (query, reason)) in rejected.into_iter().enumerate() {
            let server = &server;
            scope.spawn(move || {
                let query = format!("{query}&version=r{number}&count=1&deadline=1&r-historic=true");
                let batch = server.fetch(PASSIVE, &query);
                one_filter(&batch, &format!("FilterConsumerRules-{reason}"));
                assert_eq!(batch.info["ready"], true);
            });
        }
        for (number, query) in kept.into_iter().enumerate() {
            let query = format!("name=x&version=k{number}&count=1&deadline=1&r-historic=true&{query}");
            assert_eq!(server.fetch(PASSIVE, &query).events.len(), 1, "{query}");
        }
    });
}

#[test]
fn x12_topics_that_do_not_match_are_never_read() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let batch = server.fetch(PASSIVE, "name=x&version=1&count=1&deadline=1&r-historic=true&r-source=other");
    let expected =
        json!({"filtered": 0, "fetched": 0, "ready": false, "paused": false, "consumers_not_ready": "historic"});
    assert_eq!(batch.info, expected);
    let batch = server.fetch(PASSIVE, "name=x&version=1&count=1&deadline=1&r-historic=true&r-action=enriched");
    assert_eq!((&batch.info["filtered"], batch.events.len()), (&json!(0), 0));
    let batch = server.fetch(PASSIVE, "name=x&version=1&count=1&deadline=1&r-historic=true&r-source=l.b");
    assert!(batch.events.is_empty(), "a source name is no pattern");
}

#[test]
fn x12_every_stream_of_an_event_must_be_wanted() {
    let server = Server::start();
    let pcap = json!({"label": "pcap", "size": 9, "sha512": "H", "sha256": id('c'), "sha1": "H", "md5": "H",
        "mime": "x", "magic": "x"});
    let mut augmented = with(e1(), "/action", json!("augmented"));
    augmented["entity"]["datastreams"].as_array_mut().unwrap().push(pcap);
    server.publish_ok("binary", &augmented);
    let get = |version: &str, extra: &str| {
        server.fetch(PASSIVE, &format!("name=x&version={version}&count=1&deadline=1&r-historic=true&{extra}"))
    };
    one_filter(&get("1", "r-streams=content"), "FilterConsumerRules-reject_stream");
    assert_eq!(get("2", "r-streams=content&r-streams=pcap").events.len(), 1);
    assert_eq!(get("3", "r-streams=content&r-streams=*").events.len(), 1);
}

#[test]
fn x12_an_event_without_streams_passes_a_stream_filter_but_has_no_content() {
    let server = Server::start();
    let enriched = with(without(e1(), "/entity/datastreams"), "/action", json!("enriched"));
    server.publish_ok("binary", &enriched);
    let get = |version: &str, extra: &str| {
        server.fetch(PASSIVE, &format!("name=x&version={version}&count=1&deadline=1&r-historic=true&{extra}"))
    };
    assert_eq!(get("1", "r-streams=content").events.len(), 1);
    let never = get("2", "r-content=true");
    assert_eq!((never.events.len(), &never.info["filtered"]), (0, &json!(0)));
    one_filter(&get("3", "r-under-content-size=200"), "FilterConsumerRules-reject_no_content");
}

#[test]
fn filtered_events_are_replaced_from_the_queue() {
    let server = Server::start();
    for number in 0..10 {
        let size = if number == 9 { 5 } else { 5000 };
        let event = with(sourced(&format!("{number:064}"), "lab"), "/entity/datastreams/0/size", json!(size));
        server.publish_ok("binary", &event);
    }
    let batch = server.fetch(PASSIVE, "name=x&version=1&count=1&deadline=5&r-historic=true&r-under-content-size=100");
    assert_eq!(batch.ids(), [format!("{:064}", 9)]);
    assert_eq!(batch.info["filters"], json!({"FilterConsumerRules-reject_content_too_large": 9}));
}

/// E1 with a path of `nodes` nodes.
fn deep(nodes: usize) -> Value {
    let mut event = e1();
    let node = event["source"]["path"][0].clone();
    event["source"]["path"] = json!(vec![node; nodes]);
    event
}

#[test]
fn x13_too_deep_is_ten_for_tasks_and_eleven_for_others() {
    let cases = [(10, true, true), (11, true, false), (12, false, false)];
    for (nodes, passive, active) in cases {
        let server = Server::start();
        server.publish_ok("binary", &deep(nodes));
        for (kind, kept) in [("passive", passive), ("active", active)] {
            let query = format!("name=deep&version={kind}&count=1&deadline=1&r-historic=true");
            let batch = server.fetch(&format!("binary/{kind}"), &query);
            if kept {
                assert_eq!(batch.events.len(), 1, "{nodes} nodes, {kind}");
            } else {
                one_filter(&batch, "FilterTooDeep-too_deep");
            }
        }
    }
}

#[test]
fn x14_expedited_events_come_first_and_only_to_those_who_ask() {
    let server = Server::start();
    let carver = "name=Carver&version=1.2&count=1&deadline=1&r-expedite=true&r-live=true";
    assert!(server.fetch("binary/active", carver).events.is_empty());
    server.publish_ok("binary", &json!([e1()]));
    server.publish_ok("binary", &with(sourced(&id('b'), "lab"), "/flags", json!({"expedite": true})));
    let first = server.fetch("binary/active", carver);
    assert_eq!(first.ids(), [id('b')]);
    let second = server.fetch("binary/active", carver);
    assert_eq!(second.ids(), [id('a')]);
    let others = server.fetch(PASSIVE, "name=h&version=1&count=5&deadline=1&r-historic=true");
    assert_eq!(others.ids(), [id('a')], "without r-expedite the event is never seen");

    let watch = "name=watch&version=1&count=5&deadline=1&r-expedite=true&r-historic=true&r-action=extracted";
    assert!(server.fetch(PASSIVE, watch).events.is_empty());
    let task = first.only();
    let child = with(carved(task), "/entity/sha256", json!(id('c')));
    server.publish("status", "", &json!([carver_status(task, "completed", &[child])])).expect_status(200);
    let results = server.fetch(PASSIVE, watch);
    assert_eq!(results.ids(), [id('c')]);
    assert_eq!(results.only()["flags"], json!({"expedite": true}));
    let others = server.fetch(PASSIVE, "name=h&version=1&count=5&deadline=1&r-historic=true");
    assert!(others.events.is_empty(), "results of an expedited task go to the expedite topic only");
}

#[test]
fn x16_a_delete_by_id_filters_stored_and_new_events() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let delete = json!([{"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": {"name": "admin"},
        "action": "ids", "entity": {"reason": "test", "ids": {"ids": [E1_KEY]}}}]);
    server.publish_ok("delete", &delete);
    let batch = server.fetch(PASSIVE, "name=after&version=1&count=1&deadline=1&r-historic=true");
    one_filter(&batch, "FilterPreviouslyDeleted-deleted");
    let answer = server.publish("binary", "", &json!([e1()])).expect_any_error(425).json();
    assert_eq!(answer["error_enum"], "ErrorStringEnumAllEventsFiltered");
    assert!(answer["detail"].to_string().contains("[FilterPreviouslyDeleted:1]"), "{answer}");
}

#[test]
fn x22_reset_starts_over_and_debug_reads_beside() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1(), sourced(&id('b'), "lab")]));
    let get = |extra: &str| {
        let query = format!("name=p&version=1&count=10&deadline=1&r-historic=true{extra}");
        server.fetch(PASSIVE, &query).ids()
    };
    let both = [id('a'), id('b')];
    assert_eq!(get(""), both);
    assert!(get("").is_empty());
    assert_eq!(get("&reset=true"), both);
    assert_eq!(get("&debug=true"), both);
    assert!(get("").is_empty(), "debug left the other positions alone");
    assert!(get("&debug=true").is_empty());
    assert_eq!(get("&reset=true"), both);
    assert_eq!(get("&reset=true"), both);
}

#[test]
fn x24_old_names_mean_the_same_and_share_positions() {
    let server = Server::start();
    let old = "name=p&version=1&count=5&timeout=1&ignore-historic=true&f-max-content-size=4";
    let new = "name=p&version=1&count=5&deadline=1&r-expedite=true&r-live=true";
    let start = Instant::now();
    assert!(server.fetch(PASSIVE, old).events.is_empty());
    assert!(start.elapsed() < Duration::from_secs(4), "timeout is the old name of deadline");
    server.publish_ok("binary", &json!([e1()]));
    one_filter(&server.fetch(PASSIVE, old), "FilterConsumerRules-reject_content_too_large");
    let batch = server.fetch(PASSIVE, new);
    assert_eq!((batch.events.len(), &batch.info["filtered"]), (0, &json!(0)), "taken under the old names already");
    server.publish_ok("binary", &sourced(&id('b'), "lab"));
    assert_eq!(server.fetch(PASSIVE, new).ids(), [id('b')]);
    let detail = server.client().get("/api/v2/event/binary/passive?name=p&version=1");
    detail.expect_error_titled(422, "bad parameters");
}

#[test]
fn x24_a_current_name_wins_over_its_old_one() {
    let server = Server::start();
    server.publish_ok("binary", &json!([e1()]));
    let query =
        "name=p&version=1&count=1&deadline=1&timeout=30&r-historic=true&r-under-content-size=5&f-max-content-size=4";
    assert_eq!(server.fetch(PASSIVE, query).events.len(), 1);
}

#[test]
fn two_readers_of_one_key_share_the_events() {
    let server = Server::start();
    let total = 60;
    for number in 0..total {
        server.publish_ok("binary", &sourced(&format!("{number:064}"), "lab"));
    }
    let mut ids: Vec<String> = std::thread::scope(|scope| {
        let reader = || {
            let mut seen = Vec::new();
            loop {
                let batch = server.fetch(PASSIVE, "name=two&version=1&count=7&deadline=0&r-historic=true");
                if batch.events.is_empty() {
                    return seen;
                }
                seen.extend(batch.ids());
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    });
    ids.sort();
    assert_eq!(ids, (0..total).map(|number| format!("{number:064}")).collect::<Vec<_>>(), "each exactly once");
}

/// What the process has read from files so far, in bytes; what comes over sockets is not in it.
fn bytes_read(server: &Server) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", server.pid())).expect("the process runs");
    io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).expect("rchar")
}

/// Five source topics of five actions each, and nothing new in any of them.
#[test]
fn polls_with_nothing_new_read_nothing_from_the_disk() {
    let sources = ["one", "two", "three", "four", "five"];
    let config = sources.iter().fold(Config::examples(), |config, name| config.section(&format!("sources.{name}")));
    let server = Server::with(&config);
    let mut events = 0;
    for (source, action) in sources.iter().flat_map(|source| ACTIONS.map(|action| (source, action))) {
        server.publish_ok("binary", &with_action(sourced(&id('a'), source), action));
        events += 1;
    }
    let sources: String = sources.iter().map(|source| format!("&r-source={source}")).collect();
    let actions: String = ACTIONS.iter().map(|action| format!("&r-action={action}")).collect();
    for (kind, flows) in [("passive", "r-historic=true"), ("active", "r-expedite=true&r-live=true&r-historic=true")] {
        let query = format!("name=poll&version=1&count=1000&deadline=0&{flows}{sources}{actions}");
        let target = format!("/api/v2/event/binary/{kind}?{query}");
        let mut client = server.client();
        assert_eq!(Batch::read(&client.get(&target)).events.len(), events);
        assert!(Batch::read(&client.get(&target)).events.is_empty());
        let (of_the_log, of_all) = (server.metric("azulite_log_read_bytes_total"), bytes_read(&server));
        for _ in 0..100 {
            assert!(Batch::read(&client.get(&target)).events.is_empty());
        }
        let of_all = bytes_read(&server) - of_all;
        assert_eq!(server.metric("azulite_log_read_bytes_total"), of_the_log, "{kind}");
        // Wake-ups between threads are counted as reads of eight bytes.
        assert!(of_all < 100 * 64, "{kind}: {of_all} bytes");
    }
}

/// The event with this action, and the streams it has to have.
fn with_action(event: Value, action: &str) -> Value {
    let event = with(with(event, "/action", json!(action)), "/source/path/0/action", json!(action));
    let content = event["entity"]["datastreams"][0].clone();
    let text = with(content.clone(), "/label", json!("text"));
    let streams = match action {
        "augmented" => json!([content, text]),
        "mapped" => json!([text]),
        "enriched" => json!([]),
        _ => json!([content]),
    };
    with(event, "/entity/datastreams", streams)
}

#[test]
fn an_event_of_every_other_model_comes_back_through_its_own_route() {
    let server = Server::start();
    let admin = json!({"name": "admin"});
    let hunt = json!({"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": admin, "action": "submitted",
        "entity": {"id": "h"}, "source": {"submitter": "amy", "timestamp": "2026-01-03T00:00:00Z"}});
    let download = json!({"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": admin,
        "action": "requested", "entity": {"hash": id('d')}, "source": e1()["source"]});
    for (model, event) in [("retrohunt", hunt), ("download", download)] {
        let ok = server.publish_ok(model, &json!([event]));
        let query = "name=m&version=1&count=1&deadline=1&r-historic=true";
        assert_eq!(server.fetch(&format!("{model}/passive"), query).events, ok, "{model}");
        let batch = server.fetch(&format!("{model}/active"), "name=m&version=2&count=1&deadline=1&r-historic=true");
        assert!(batch.only().get("dequeued").is_none(), "only binaries are tracked tasks: {batch:?}");
    }
}
