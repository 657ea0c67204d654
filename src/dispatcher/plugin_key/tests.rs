use super::super::params::{Limits, REPEATS_MAX, SOURCES_MAX_BYTES, TEXT_MAX_BYTES};
use super::super::topic::PREFIX_MAX_BYTES;
use super::*;

fn params(model: &str, query: &str) -> GetParams {
    let pairs: Vec<(String, String)> = query
        .split('&')
        .map(|piece| piece.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    GetParams::parse(model, &pairs, &Limits { fetch_limit: 1000, default_wait_secs: 5 }).unwrap()
}

fn key(model: &str, query: &str) -> String {
    PluginKey::of(&params(model, query)).to_string()
}

#[test]
fn plugin_keys_are_those_of_the_contract() {
    let carver = "name=Carver&version=1.2";
    let table = [
        ("binary", "r-expedite=1&r-live=1&r-historic=1", "Carver-1.2-binary-allsrc-alltype-ELH"),
        ("binary", "r-source=tasking&r-historic=1", "Carver-1.2-binary-tasking-alltype-H"),
        ("binary", "r-content=1&r-live=1", "Carver-1.2-binary-allsrc-sourced.extracted-L"),
        ("status", "r-live=1&r-historic=1&debug=1", "Carver-1.2-status-LHD"),
        (
            "binary",
            "r-source=b&r-source=a&r-action=mapped&r-action=sourced&r-live=1",
            "Carver-1.2-binary-b.a-mapped.sourced-L",
        ),
        ("binary", "r-source=&r-live=1&debug=1", "Carver-1.2-binary--alltype-LD"),
        ("status", "r-source=lab&r-action=mapped&r-live=1", "Carver-1.2-status-L"),
        (
            "binary",
            "d-action=mapped&d-self=1&r-under-content-size=4&r-streams=content&max-security=LOW&count=9&deadline=1&deployment_key=d&avro-format=1&reset=1&r-live=1",
            "Carver-1.2-binary-allsrc-alltype-L",
        ),
    ];
    for (model, query, wanted) in table {
        assert_eq!(key(model, &format!("{carver}&{query}")), wanted, "{query}");
    }
    assert_eq!(key("binary", "r-live=1"), "--binary-allsrc-alltype-L");
}

/// X24.
#[test]
fn an_old_client_has_the_key_of_its_translation() {
    let query = "name=p&version=1&count=5&timeout=1&ignore-historic=true&f-max-content-size=4";
    assert_eq!(key("binary", query), "p-1-binary-allsrc-alltype-EL");
}

#[test]
fn groups_start_as_their_flow_says_and_come_in_order_of_precedence() {
    let all = subscriptions(&params("binary", "name=p&version=1&r-expedite=1&r-live=1&r-historic=1"), "t1");
    let every = TopicSelector::Binaries { sources: vec![], actions: vec![] };
    let wanted = [
        (Flow::Expedite, "expedite", Start::Latest, TopicSelector::One("azul.t1.system.expedite".into())),
        (Flow::Error, "error", Start::Latest, TopicSelector::One("azul.t1.system.error".into())),
        (Flow::Live, "live", Start::Latest, every.clone()),
        (Flow::Historic, "historic", Start::Earliest, every),
    ];
    let wanted = wanted.map(|(flow, suffix, start, topics)| Subscription {
        flow,
        group: format!("t1-azul-p-1-binary-allsrc-alltype-ELH-{suffix}"),
        start,
        topics,
    });
    assert_eq!(all, wanted);
}

#[test]
fn other_models_read_their_system_topic() {
    let all = subscriptions(&params("status", "name=p&version=1&r-live=1&r-source=lab"), "t1");
    let wanted = Subscription {
        flow: Flow::Live,
        group: "t1-azul-p-1-status-L-live".into(),
        start: Start::Latest,
        topics: TopicSelector::One("azul.t1.system.status".into()),
    };
    assert_eq!(all, [wanted]);
}

#[test]
fn neither_expedite_nor_error_is_narrowed_by_source_or_action() {
    let query = "r-expedite=1&r-live=1&r-source=lab&r-action=mapped";
    let all = subscriptions(&params("binary", query), "t1");
    assert_eq!(all[0].topics, TopicSelector::One("azul.t1.system.expedite".into()));
    let wanted = TopicSelector::Binaries { sources: vec!["lab".into()], actions: vec![Action::Mapped] };
    assert_eq!(all[1].topics, TopicSelector::One("azul.t1.system.error".into()));
    assert_eq!(all[2].topics, wanted);
}

#[test]
fn a_selector_takes_sources_literally_and_new_topics_too() {
    let select = |sources: &[&str], actions: &[Action]| TopicSelector::Binaries {
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
        actions: actions.to_vec(),
    };
    let table = [
        (select(&[], &[]), "azul.t1.never-seen.binary.mapped", true),
        (select(&[], &[]), "azul.t1.a.b.binary.mapped", false),
        (select(&[], &[]), "azul.t1.system.expedite", false),
        (select(&[], &[]), "azul.t1.system.status", false),
        (select(&[], &[]), "azul.t1.lab.binary.requested", false),
        (select(&[], &[]), "azul.t2.lab.binary.mapped", false),
        (select(&[], &[]), "mapped", false),
        (select(&["lab"], &[]), "azul.t1.lab.binary.mapped", true),
        (select(&["lab"], &[]), "azul.t1.lab2.binary.mapped", false),
        (select(&["other", "lab"], &[Action::Mapped]), "azul.t1.lab.binary.mapped", true),
        (select(&["lab"], &[Action::Mapped]), "azul.t1.lab.binary.sourced", false),
        (select(&["l.b"], &[]), "azul.t1.lab.binary.mapped", false),
        (select(&[".*"], &[]), "azul.t1.lab.binary.mapped", false),
        (select(&[""], &[]), "azul.t1..binary.mapped", false),
        (TopicSelector::One("azul.t1.system.expedite".into()), "azul.t1.system.expedite", true),
        (TopicSelector::One("azul.t1.system.expedite".into()), "azul.t1.system.error", false),
    ];
    for (selector, topic, wanted) in table {
        assert_eq!(selector.matches(topic, "t1"), wanted, "{selector:?} {topic}");
    }
}

#[test]
fn the_longest_group_name_fits_a_kafka_string() {
    let text = "x".repeat(TEXT_MAX_BYTES);
    let source = format!("&r-source={}", "s".repeat(SOURCES_MAX_BYTES / 2 - 1)).repeat(2);
    let actions = "&r-action=extracted".repeat(REPEATS_MAX);
    let query = format!("name={text}&version={text}&r-expedite=1&r-live=1&r-historic=1&debug=1{source}{actions}");
    let prefix = "p".repeat(PREFIX_MAX_BYTES);
    for subscription in subscriptions(&params("binary", &query), &prefix) {
        assert!(subscription.group.len() < 27 * 1024, "{}", subscription.group.len());
    }
}

#[test]
fn not_ready_flows_are_joined_by_commas() {
    assert_eq!(join_flows(&[]), "");
    assert_eq!(join_flows(&[Flow::Historic]), "historic");
    assert_eq!(join_flows(&[Flow::Expedite, Flow::Live, Flow::Historic]), "expedite,live,historic");
}
