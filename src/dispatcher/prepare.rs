//! Topics at start: made, given more partitions and configured as the plan says. Contract events.md 4.3.
//!
//! What the plan does not name stays: topics of sources that are no longer configured, and configuration that somebody
//! has set by hand.

use super::new_topic;
use super::topic::{TopicPlan, TopicSpec};
use crate::broker::topic_config::AlterOp;
use crate::broker::{AlterConfigError, Alteration, Broker, CreateTopicError, Topic, TopicError};

/// Why a topic is not as the plan wants it.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It could not be made.
    #[error(transparent)]
    Create(#[from] CreateTopicError),
    /// It could not be given more partitions.
    #[error(transparent)]
    Grow(#[from] TopicError),
    /// It could not be configured.
    #[error("topic {topic}: {error}")]
    Configure {
        /// The topic.
        topic: String,
        /// Why.
        error: AlterConfigError,
    },
    /// It has more partitions than it is to have, and that is not to be ignored.
    #[error(
        "topic {topic} has {found} partitions and is to have {planned}: partitions cannot be taken away; \
         events.ignore_topic_mismatch = true would leave it as it is"
    )]
    Mismatch {
        /// The topic.
        topic: String,
        /// Its partitions.
        found: usize,
        /// What the plan says.
        planned: u32,
    },
}

/// Makes every topic of the plan what it is to be. Blocks for one commit per change.
///
/// # Errors
/// See [`PrepareError`]; topics before the one it tells of have been changed.
pub(super) fn prepare(broker: &Broker, plan: &TopicPlan, ignore_mismatch: bool) -> Result<(), PrepareError> {
    for spec in plan.topics() {
        match broker.log().topic(&spec.name) {
            Some(topic) => adjust(broker, &topic, spec, ignore_mismatch)?,
            None => drop(broker.topic_or_create(&spec.name, || new_topic(spec.clone()))?),
        }
    }
    Ok(())
}

fn adjust(broker: &Broker, topic: &Topic, spec: &TopicSpec, ignore_mismatch: bool) -> Result<(), PrepareError> {
    let (found, planned) = (topic.partitions.len(), spec.partitions);
    let name = &spec.name;
    match u32::try_from(found).unwrap_or(u32::MAX).cmp(&planned) {
        std::cmp::Ordering::Equal => {}
        std::cmp::Ordering::Less => {
            broker.grow_partitions(name, i32::try_from(planned).unwrap_or(i32::MAX))?;
            tracing::info!(topic = %name, from = found, to = planned, "topic has more partitions now, as configured");
        }
        std::cmp::Ordering::Greater if ignore_mismatch => {
            tracing::warn!(topic = %name, found, planned, "topic has more partitions than configured, and keeps them");
        }
        std::cmp::Ordering::Greater => {
            return Err(PrepareError::Mismatch { topic: name.clone(), found, planned });
        }
    }
    let differs = |(key, value): &(&String, &String)| topic.config.get(*key) != Some(*value);
    let steps: Vec<_> = spec
        .config
        .iter()
        .filter(differs)
        .map(|(key, value)| {
            let before = topic.config.get(key).map_or("the default", String::as_str);
            tracing::info!(topic = %name, key, from = before, to = value, "topic is configured anew");
            (key.clone(), AlterOp::Set(value.clone()))
        })
        .collect();
    if steps.is_empty() {
        return Ok(());
    }
    let altered = broker.alter_topic_config(name, Alteration::Steps(steps), false);
    altered.map_err(|error| PrepareError::Configure { topic: name.clone(), error })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use azulite_storage::Store;
    use azulite_storage::fs::RealFs;

    use super::super::sources::{Source, SourceTopicConfig, Sources};
    use super::super::topic::TopicDefaults;
    use super::*;

    const TOPIC: &str = "azul.p.lab.binary.sourced";

    fn plan(partitions: u32, expiry_ms: Option<i64>, more: &[(&str, &str)]) -> TopicPlan {
        let config = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let topic = SourceTopicConfig { numpartitions: partitions, replicationfactor: 3, config };
        let sources: Sources = [("lab".to_owned(), Source::new(expiry_ms, topic))].into_iter().collect();
        TopicPlan::new("p", &sources, TopicDefaults::default(), &[]).unwrap()
    }

    fn broker(root: &std::path::Path) -> Broker {
        let options =
            azulite_storage::Options { segment_bytes: 1 << 20, ..azulite_storage::Options::new(root.to_owned()) };
        Broker::new(Arc::new(Store::open(Arc::new(RealFs), options).unwrap()))
    }

    fn topic(broker: &Broker) -> (usize, BTreeMap<String, String>) {
        let topic = broker.log().topic(TOPIC).unwrap();
        (topic.partitions.len(), topic.config.clone())
    }

    #[test]
    fn topics_are_made_grow_and_are_configured_as_planned() {
        let folder = tempfile::tempdir().unwrap();
        let broker = broker(folder.path());
        prepare(&broker, &plan(1, None, &[]), true).unwrap();
        let (partitions, config) = topic(&broker);
        assert_eq!(
            (partitions, config["cleanup.policy"].as_str(), config["retention.ms"].as_str()),
            (1, "compact", "-1")
        );

        prepare(&broker, &plan(3, Some(172_800_000), &[("segment.bytes", "1048576")]), true).unwrap();
        let (partitions, config) = topic(&broker);
        assert_eq!((partitions, config["cleanup.policy"].as_str()), (3, "delete"));
        assert_eq!((config["retention.ms"].as_str(), config["segment.bytes"].as_str()), ("172800000", "1048576"));
    }

    #[test]
    fn what_an_administrator_set_stays_unless_the_plan_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let broker = broker(folder.path());
        prepare(&broker, &plan(1, None, &[]), true).unwrap();
        let by_hand =
            ["max.message.bytes", "retention.ms"].map(|key| (key.to_owned(), AlterOp::Set("5000".to_owned())));
        broker.alter_topic_config(TOPIC, Alteration::Steps(by_hand.to_vec()), false).unwrap();
        prepare(&broker, &plan(1, None, &[]), true).unwrap();
        let (_, config) = topic(&broker);
        assert_eq!((config["max.message.bytes"].as_str(), config["retention.ms"].as_str()), ("5000", "-1"));
    }

    #[test]
    fn more_partitions_than_planned_stay_or_stop_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let broker = broker(folder.path());
        prepare(&broker, &plan(3, None, &[]), true).unwrap();
        prepare(&broker, &plan(2, Some(86_400_000), &[]), true).unwrap();
        let (partitions, config) = topic(&broker);
        assert_eq!((partitions, config["cleanup.policy"].as_str()), (3, "delete"), "configured all the same");
        let refused = prepare(&broker, &plan(2, None, &[]), false).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("azul.p.lab.binary.") && said.contains("3 partitions and is to have 2"), "{said}");
    }
}
