use std::collections::BTreeMap;
use std::path::Path;

use azulite_storage::fs::RealFs;
use azulite_storage::{Append, BatchBuilder, Lane, Options, Store};

use super::*;
use crate::broker::topic_config::ConfigSource;

fn open(root: &Path) -> (Store, Broker) {
    let options = Options { segment_bytes: 1 << 20, ..Options::new(root.to_owned()) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    (store.clone(), Broker::new(Arc::new(store)))
}

fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn new(name: &str, config: &[(&str, &str)]) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: 1, config: map(config) }
}

fn set(name: &str, value: &str) -> Alteration {
    Alteration::Steps(vec![(name.to_owned(), AlterOp::Set(value.to_owned()))])
}

#[test]
fn a_new_topic_is_checked_whole_before_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (store, broker) = open(dir.path());
    let refused = |new: NewTopic| broker.create_topic(new).unwrap_err();
    assert_eq!(refused(new("a/b", &[])), CreateTopicError::Name("a/b".into()).into());
    let none = NewTopic { partitions: 0, ..new("t", &[]) };
    assert_eq!(refused(none), CreateTopicError::Partitions { name: "t".into(), partitions: 0 }.into());
    assert_eq!(refused(new("t", &[("x", "1")])), ConfigError::Unknown { name: "x".into() }.into());
    broker.check_new_topic(&new("t", &[("retention.ms", "5")])).unwrap();
    assert!(store.topic("t").is_none());
    let version = broker.topics_version();
    broker.create_topic(new("t", &[("retention.ms", "5")])).unwrap();
    assert!(broker.topics_version() > version);
    assert_eq!(refused(new("t", &[])), CreateTopicError::Exists("t".into()).into());
}

#[test]
fn the_legacy_call_replaces_and_steps_change_what_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let (_, broker) = open(dir.path());
    let topic = broker.create_topic(new("t", &[("retention.ms", "5"), ("segment.jitter.ms", "1")])).unwrap();
    assert_eq!(broker.topic_config(&topic).settings.retention_ms, Some(5));
    broker.alter_topic_config("t", set("max.message.bytes", "100"), false).unwrap();
    let altered = broker.log().topic("t").unwrap();
    assert_eq!(broker.topic_config(&altered).max_message_bytes, 100);
    assert!(Arc::ptr_eq(&broker.topic_config(&altered), &broker.topic_config(&altered)), "read once");
    let expected = map(&[("max.message.bytes", "100"), ("retention.ms", "5"), ("segment.jitter.ms", "1")]);
    assert_eq!(altered.config, expected);
    broker.alter_topic_config("t", Alteration::Replace(map(&[("flush.ms", "7")])), true).unwrap();
    assert_eq!(broker.log().topic("t").unwrap().config, expected, "only validated");
    broker.alter_topic_config("t", Alteration::Replace(map(&[("flush.ms", "7")])), false).unwrap();
    assert_eq!(broker.log().topic("t").unwrap().config, map(&[("flush.ms", "7")]));
    let got = broker.alter_topic_config("t", set("cleanup.policy", "none"), true).unwrap_err();
    assert!(matches!(got, AlterConfigError::Config(ConfigError::Value { .. })), "got {got:?}");
    let got = broker.alter_topic_config("u", set("flush.ms", "7"), false).unwrap_err();
    assert_eq!(got, TopicError::Unknown("u".into()).into());
    let got = broker.alter_topic_config("__azulite_state", set("flush.ms", "7"), false).unwrap_err();
    assert_eq!(got, TopicError::Internal("__azulite_state".into()).into());
}

#[test]
fn what_the_broker_says_counts_for_all_topics_that_do_not_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, broker) = open(dir.path());
    broker.create_topic(new("t", &[])).unwrap();
    broker.create_topic(new("own", &[("retention.ms", "5")])).unwrap();
    broker.set_fixed_config(map(&[("log.retention.ms", "77"), ("node.id", "4")]));
    assert_eq!(store.topic("t").unwrap().settings.retention_ms, Some(77));
    broker.alter_broker_config(set("log.retention.ms", "9"), true).unwrap();
    assert_eq!(store.topic("t").unwrap().settings.retention_ms, Some(77));
    broker.alter_broker_config(set("log.retention.ms", "9"), false).unwrap();
    broker.alter_broker_config(set("message.max.bytes", "1000"), false).unwrap();
    let got = broker.alter_broker_config(set("node.id", "9"), false).unwrap_err();
    assert_eq!(got, ConfigError::ReadOnly { name: "node.id".into() }.into());
    drop((store, broker));
    let (store, broker) = open(dir.path());
    let topic = store.topic("t").unwrap();
    assert_eq!((topic.settings.retention_ms, broker.topic_config(&topic).max_message_bytes), (Some(9), 1000));
    assert_eq!(store.topic("own").unwrap().settings.retention_ms, Some(5));
    let described = broker.describe_topic_config(&topic);
    let retention = described.iter().find(|key| key.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_str(), retention.source), ("9", ConfigSource::DynamicDefault));
    broker.alter_broker_config(Alteration::Replace(BTreeMap::new()), false).unwrap();
    assert_eq!(store.topic("t").unwrap().settings.retention_ms, Some(604_800_000));
}

#[tokio::test]
async fn whoever_waits_for_a_topic_is_told_when_it_goes_or_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (store, broker) = open(dir.path());
    let topic = broker.create_topic(new("t", &[])).unwrap();
    let waiter = broker.waiter(topic.partitions.iter().map(|partition| partition.number()));
    let version = broker.topics_version();
    assert_eq!(broker.grow_partitions("t", 2).unwrap().partitions.len(), 2);
    waiter.woken().await;
    assert!(broker.topics_version() > version);
    let mut builder = BatchBuilder::default();
    builder.push(1, None, Some(b"v"));
    let append = Append { partition: topic.partitions[0].clone(), batch: builder.build().unwrap() };
    store.append_wait(Lane(1), vec![append]).unwrap();
    let place = TopicPartition { topic: "t".into(), partition: 0 };
    assert_eq!(broker.delete_records(&[(place, None)]), [Ok(1)]);
    let waiter = broker.waiter(topic.partitions.iter().map(|partition| partition.number()));
    broker.delete_topic("t").unwrap();
    waiter.woken().await;
    assert!(topic.partitions[0].is_gone());
    assert_eq!(broker.delete_topic("t").unwrap_err(), TopicError::Unknown("t".into()));
}
