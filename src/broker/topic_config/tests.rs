use super::*;

fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn broker(dynamic: &[(&str, &str)]) -> BrokerConfig {
    BrokerConfig::new(map(&[("log.retention.ms", "1000"), ("node.id", "1")]), map(dynamic))
}

fn alter(old: &[(&str, &str)], steps: &[(&str, AlterOp)]) -> Result<ConfigMap, ConfigError> {
    let steps = steps.iter().map(|(name, step)| ((*name).to_owned(), step.clone()));
    altered(&map(old), steps, topic_key, |key| key.default.to_owned())
}

#[test]
fn defaults_are_ours() {
    let config = TopicConfig::read(&ConfigMap::new(), &BrokerConfig::default());
    assert_eq!(config.max_message_bytes, 8 << 20);
    assert_eq!((config.timestamp_before_max_ms, config.timestamp_after_max_ms), (None, None));
    assert_eq!(config.settings, TopicSettings::default());
    assert!(config.allows_timestamp(i64::MAX, 0) && config.allows_timestamp(0, i64::MAX));
}

#[test]
fn the_topic_goes_before_the_broker_and_the_broker_before_the_default() {
    let read = |topic: &[(&str, &str)], dynamic: &[(&str, &str)]| TopicConfig::read(&map(topic), &broker(dynamic));
    assert_eq!(read(&[], &[]).settings.retention_ms, Some(1000));
    assert_eq!(read(&[], &[("log.retention.ms", "5")]).settings.retention_ms, Some(5));
    assert_eq!(read(&[("retention.ms", "-1")], &[("log.retention.ms", "5")]).settings.retention_ms, None);
    assert_eq!(read(&[], &[("message.max.bytes", "70")]).max_message_bytes, 70);
    let bounded = [("message.timestamp.before.max.ms", "10"), ("message.timestamp.after.max.ms", "20")];
    let bounded = read(&bounded, &[]);
    let allowed = [89, 90, 120, 121, -1].map(|timestamp| bounded.allows_timestamp(timestamp, 100));
    assert_eq!(allowed, [false, true, true, false, true]);
}

#[test]
fn describe_names_every_key_with_its_sources() {
    let described = describe(&map(&[("retention.ms", "7")]), &broker(&[("log.retention.ms", "5")]));
    assert_eq!(described.len(), TOPIC_KEYS.len());
    let key = |name: &str| described.iter().find(|key| key.name == name).unwrap();
    let retention = key("retention.ms");
    assert_eq!((retention.value.as_str(), retention.source), ("7", ConfigSource::Topic));
    let synonyms: Vec<_> = retention.synonyms.iter().map(|s| (s.name, s.value.as_str(), s.source.code())).collect();
    let log = "log.retention.ms";
    assert_eq!(synonyms, [("retention.ms", "7", 1), (log, "5", 3), (log, "1000", 4), (log, "604800000", 5)]);
    let quiet = key("segment.jitter.ms");
    assert_eq!((quiet.value.as_str(), quiet.source), ("0", ConfigSource::Default));
    assert!(quiet.about.ends_with("Accepted, no effect.") && !retention.about.ends_with("no effect."));
    assert_eq!(key("leader.replication.throttled.replicas").value, "");
}

#[test]
fn checks_name_the_key_and_what_is_expected() {
    let got = |pairs: &[(&str, &str)]| check(&map(pairs), &BrokerConfig::default());
    assert_eq!(got(&[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")]), Ok(()));
    assert_eq!(got(&[("retention", "1")]), Err(ConfigError::Unknown { name: "retention".into() }));
    let says = got(&[("retention.ms", "soon")]).unwrap_err();
    assert_eq!(says.to_string(), "retention.ms cannot be \"soon\": a whole number of at least -1 is expected");
    assert!(!says.is_request());
    let lags = got(&[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")]);
    assert_eq!(lags, Err(ConfigError::Lags { least: 5, most: 4 }));
}

#[test]
fn steps_set_remove_add_and_take_away() {
    use AlterOp::{Append, Delete, Set, Subtract};
    let text = str::to_owned;
    let got = alter(&[("retention.ms", "1")], &[("retention.ms", Delete), ("segment.ms", Set(text("9")))]);
    assert_eq!(got, Ok(map(&[("segment.ms", "9")])));
    let got = alter(&[], &[("cleanup.policy", Append(text("compact,delete")))]);
    assert_eq!(got, Ok(map(&[("cleanup.policy", "delete,compact")])), "what counted before is there already");
    let got = alter(&[("cleanup.policy", "compact,delete")], &[("cleanup.policy", Subtract(text("compact,x")))]);
    assert_eq!(got, Ok(map(&[("cleanup.policy", "delete")])));
    for step in [Append(text("1")), Subtract(text("1"))] {
        let got = alter(&[], &[("retention.ms", step)]);
        assert_eq!(got, Err(ConfigError::NotAList { name: "retention.ms".into() }));
    }
    let twice = alter(&[], &[("retention.ms", Delete), ("retention.ms", Set(text("1")))]).unwrap_err();
    assert_eq!(twice, ConfigError::Twice { name: "retention.ms".into() });
    assert!(twice.is_request());
    assert_eq!(alter(&[], &[("x", Delete)]), Err(ConfigError::Unknown { name: "x".into() }));
    assert_eq!(alter(&[("x", "1")], &[("x", Delete)]), Ok(ConfigMap::new()));
}

#[test]
fn a_list_of_pairs_is_a_configuration_unless_a_value_is_missing_or_a_key_comes_twice() {
    let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
    assert_eq!(listed([pair("a", Some("1")), pair("b", Some(""))]), Ok(map(&[("a", "1"), ("b", "")])));
    assert_eq!(listed([pair("a", None)]), Err(ConfigError::Null { name: "a".into() }));
    assert_eq!(listed([pair("a", Some("1")), pair("a", Some("1"))]), Err(ConfigError::Twice { name: "a".into() }));
}
