use super::super::model::BinaryEvent;
use super::super::sources::{Sources, SourcesConfig};
use super::*;

fn binary(source: &str, action: &str, expedite: bool, retry: bool) -> Event {
    let mut event = BinaryEvent { action: action.to_owned(), ..BinaryEvent::default() };
    event.source.name = source.to_owned();
    event.flags.expedite = expedite;
    event.flags.retry = retry;
    Event::Binary(Box::new(event))
}

fn sources(json: &str) -> Sources {
    let config: SourcesConfig = serde_json::from_str(json).unwrap();
    Sources::check(&config).unwrap()
}

fn plan(overrides: &str) -> Result<TopicPlan, Vec<TopicPlanError>> {
    let overrides: Vec<TopicOverride> = serde_json::from_str(overrides).unwrap();
    let sources = sources(r#"{"lab":{},"short":{"expire_events_after":"2 days","kafka":{"numpartitions":3}}}"#);
    TopicPlan::new("t1", &sources, TopicDefaults { partitions: 2, replicas: 1 }, &overrides)
}

#[test]
fn a_binary_goes_to_expedite_then_error_then_its_source_and_action() {
    let table = [
        (binary("lab", "sourced", false, false), "azul.t1.lab.binary.sourced"),
        (binary("a-b", "enriched", false, false), "azul.t1.a-b.binary.enriched"),
        (binary("lab", "sourced", false, true), "azul.t1.system.error"),
        (binary("lab", "sourced", true, true), "azul.t1.system.expedite"),
        (binary("lab", "sourced", true, false), "azul.t1.system.expedite"),
    ];
    for (event, topic) in table {
        assert_eq!(route("t1", &event).as_deref(), Ok(topic));
    }
    assert_eq!(route("t1", &binary("", "sourced", false, false)), Err(RouteError::SourceMissing));
    assert_eq!(route("t1", &binary("lab", "", false, false)), Err(RouteError::Action(String::new())));
}

#[test]
fn the_other_models_go_to_their_system_topic() {
    let events = [
        Event::Delete(Box::default()),
        Event::Download(Box::default()),
        Event::Insert(Box::default()),
        Event::Plugin(Box::default()),
        Event::Retrohunt(Box::default()),
        Event::Status(Box::default()),
    ];
    for event in events {
        assert_eq!(route("t1", &event), Ok(format!("azul.t1.system.{}", event.model())));
    }
}

#[test]
fn every_name_is_taken_apart_into_what_it_was_made_of() {
    for source in ["lab", "system", "binary", "a-b_C9"] {
        for action in Action::ALL {
            let name = binary_topic("t1", source, action);
            let parsed = TopicRef::parse("t1", &name);
            assert_eq!(parsed, Some(TopicRef::Binary { source, action }), "{name}");
            assert_eq!(parsed.unwrap().model(), Some(Model::Binary));
        }
    }
    for model in Model::ALL {
        let name = system_topic("t1", model.as_str());
        let parsed = TopicRef::parse("t1", &name).unwrap();
        assert_eq!(parsed, TopicRef::System { name: model.as_str() });
        assert_eq!(parsed.model(), Some(model).filter(|model| *model != Model::Binary));
    }
    for (name, model) in [("expedite", Some(Model::Binary)), ("error", Some(Model::Binary)), ("report", None)] {
        assert_eq!(TopicRef::parse("t1", &system_topic("t1", name)).unwrap().model(), model);
    }
}

#[test]
fn foreign_topics_are_not_taken_apart() {
    for name in [
        "",
        "azul",
        "azul.t1",
        "azul.t1.",
        "azul.t1.lab",
        "azul.t1.binary.sourced",
        "azul.t1..binary.sourced",
        "azul.t1.lab.binary.requested",
        "azul.t1.lab.binary.Sourced",
        "azul.t1.lab.binary.sourced.data",
        "azul.t1.labbinary.sourced",
        "azul.t1.x.lab.binary.sourced",
        "azul.t12.lab.binary.sourced",
        "azul.t2.lab.binary.sourced",
        "xazul.t1.lab.binary.sourced",
        "__consumer_offsets",
    ] {
        assert_eq!(TopicRef::parse("t1", name), None, "{name}");
    }
}

/// FNV-1a vectors: `a` is 0xe40c292c (as signed -468965076), `foobar` 0xbf9cf968 (-1080231576).
#[test]
fn partitions_are_those_of_a_signed_fnv_1a() {
    let table: [(&[u8], u32, u32); 16] = [
        (b"", 1, 0),
        (b"", 3, 0),
        (b"", 10, 5),
        (b"", 64, 59),
        (b"a", 3, 0),
        (b"a", 7, 6),
        (b"a", 10, 6),
        (b"a", 64, 20),
        (b"foobar", 7, 4),
        (b"foobar", 10, 6),
        (b"419d55d8a85cf11e3b9bd17486279a68", 1, 0),
        (b"419d55d8a85cf11e3b9bd17486279a68", 3, 1),
        (b"419d55d8a85cf11e3b9bd17486279a68", 10, 6),
        (b"c28af1bebcf545170cbc589b715b25aa", 7, 4),
        (b"e51a5431ff9eb0660ed4e90d2d176905", 64, 35),
        (b"a", u32::MAX, 468_965_076),
    ];
    for (key, partitions, wanted) in table {
        assert_eq!(partition(key, partitions), wanted, "{key:?} of {partitions}");
    }
    assert_eq!(partition(b"a", 0), 0);
}

/// Section 4.2.
#[test]
fn the_built_in_topics_are_those_of_the_contract() {
    let plan = plan("[]").unwrap();
    let table = [
        ("system.insert", "-1", "compact"),
        ("system.delete", "-1", "compact"),
        ("system.retrohunt", "-1", "compact"),
        ("system.expedite", "604800000", "delete"),
        ("system.error", "604800000", "delete"),
        ("system.plugin", "604800000", "delete"),
        ("system.status", "86400000", "delete"),
        ("system.download", "43200000", "delete"),
        ("system.report", "2419200000", "delete"),
        ("system.scrape", "2419200000", "delete"),
        ("system.dead", "-1", "compact"),
        ("system.audit", "-1", "compact"),
    ];
    for (name, retention_ms, policy) in table {
        let spec = plan.specs.get(&format!("azul.t1.{name}")).unwrap();
        assert_eq!(spec.config["retention.ms"], retention_ms, "{name}");
        assert_eq!(spec.config["cleanup.policy"], policy, "{name}");
        assert_eq!(spec.config["segment.bytes"], "1073741824", "{name}");
        assert_eq!((spec.partitions, spec.replicas), (2, 1), "{name}");
    }
    assert_eq!(plan.topics().count(), table.len() + 2 * Action::ALL.len());
}

#[test]
fn each_source_has_five_topics_configured_from_its_expiry() {
    let plan = plan("[]").unwrap();
    for action in Action::ALL {
        let lab = plan.spec(&binary_topic("t1", "lab", action));
        assert_eq!((lab.partitions, lab.replicas), (2, 1));
        assert_eq!((lab.config["retention.ms"].as_str(), lab.config["cleanup.policy"].as_str()), ("-1", "compact"));
        let short = plan.spec(&binary_topic("t1", "short", action));
        assert_eq!((short.partitions, short.replicas), (3, 1));
        assert_eq!(short.config["retention.ms"], "172800000");
        assert_eq!(short.config["cleanup.policy"], "delete");
    }
}

#[test]
fn the_topic_of_an_unknown_source_lives_for_ever() {
    let plan = plan("[]").unwrap();
    let spec = plan.spec("azul.t1.stranger.binary.sourced");
    assert_eq!((spec.name.as_str(), spec.partitions, spec.replicas), ("azul.t1.stranger.binary.sourced", 2, 1));
    assert_eq!(spec.config, BTreeMap::from(retention(None)));
    assert!(!plan.topics().any(|planned| planned.name == spec.name));
}

#[test]
fn an_override_wins_and_what_it_does_not_give_is_kept() {
    let plan = plan(
        r#"[{"topic":"system.status"},
            {"topic":"system.plugin","config":{"retention.ms":5}},
            {"topic":"short.binary.sourced","numpartitions":8,"replicationfactor":null,"config":null},
            {"topic":"other.binary.mapped","replicationfactor":2,"config":{"x":"y"}}]"#,
    )
    .unwrap();
    let status = plan.spec("azul.t1.system.status");
    assert_eq!((status.config["retention.ms"].as_str(), status.partitions), ("86400000", 2));
    let plugin = plan.spec("azul.t1.system.plugin");
    assert_eq!(plugin.config["retention.ms"], "5");
    assert_eq!(plugin.config["segment.bytes"], "1073741824");
    let short = plan.spec("azul.t1.short.binary.sourced");
    assert_eq!((short.partitions, short.config["retention.ms"].as_str()), (8, "172800000"));
    let other = plan.spec("azul.t1.other.binary.mapped");
    assert_eq!((other.partitions, other.replicas, other.config["x"].as_str()), (2, 2, "y"));
    assert_eq!(other.config["cleanup.policy"], "compact");
    assert!(plan.topics().any(|planned| planned.name == other.name));
}

#[test]
fn names_that_kafka_would_refuse_are_refused_at_start() {
    let long = "x".repeat(PREFIX_MAX_BYTES + 1);
    for (prefix, mistake) in [
        ("", TopicPartError::Empty),
        ("t 1", TopicPartError::Character(' ')),
        (long.as_str(), TopicPartError::TooLong { bytes: 101, max_bytes: 100 }),
    ] {
        let got = TopicPlan::new(prefix, &Sources::default(), TopicDefaults::default(), &[]);
        assert_eq!(got, Err(vec![TopicPlanError::Prefix { prefix: prefix.to_owned(), mistake }]));
    }
    let wanted = TopicPlanError::Override { topic: "a/b".to_owned(), mistake: TopicPartError::Character('/') };
    assert_eq!(plan(r#"[{"topic":"a/b"},{"topic":"system.status"}]"#), Err(vec![wanted]));
}

#[test]
fn the_longest_name_is_legal_in_kafka() {
    let name = binary_topic(
        &"p".repeat(PREFIX_MAX_BYTES),
        &"s".repeat(super::super::model::SOURCE_NAME_MAX_CHARS),
        Action::Augmented,
    );
    assert!(name.len() <= TOPIC_MAX_BYTES);
}
