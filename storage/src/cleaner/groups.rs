//! What dies together: which frames go into one cleaned segment, and what is compacted.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use crate::ids::PartitionNumber;
use crate::partition::Partition;
use crate::state::FIRST_PARTITION;
use crate::store::Core;
use crate::topics::TopicSettings;

/// Frames of internal topics.
pub(super) const STATE: u32 = 0;
/// Frames of compacted topics.
const COMPACTED: u32 = 1;
/// Frames that nothing ages off.
const UNLIMITED: u32 = 2;
/// Inline blobs.
pub(super) const BLOBS: u32 = 3;
/// Frames aged off by time: this and the binary logarithm of the time in milliseconds.
const STEPS: u32 = 16;

/// What is done with one partition.
pub(super) struct Policy {
    pub(super) partition: Arc<Partition>,
    pub(super) group: u32,
    /// The topic's settings, where it is compacted.
    pub(super) compaction: Option<TopicSettings>,
}

/// What is done with each partition that is there.
pub(super) struct Policies(HashMap<PartitionNumber, Policy>);

impl Policies {
    /// As the topics are configured now.
    pub(super) fn of(core: &Core) -> Self {
        let mut policies = HashMap::new();
        for topic in core.topics.all() {
            let compaction = Some(topic.settings).filter(|settings| settings.cleanup.compact);
            for partition in &topic.partitions {
                let number = partition.number();
                let group = if number < FIRST_PARTITION { STATE } else { group(&topic.settings) };
                policies.insert(number, Policy { partition: partition.clone(), group, compaction });
            }
        }
        // A topic that is being made has its partitions here before it has a name.
        let partitions = core.partitions.read().unwrap_or_else(PoisonError::into_inner);
        for (number, partition) in partitions.iter() {
            let new = || Policy { partition: partition.clone(), group: UNLIMITED, compaction: None };
            policies.entry(*number).or_insert_with(new);
        }
        Self(policies)
    }

    pub(super) fn get(&self, partition: PartitionNumber) -> Option<&Policy> {
        self.0.get(&partition)
    }

    /// Where frames of a partition belong.
    pub(super) fn group(&self, partition: PartitionNumber) -> u32 {
        self.0.get(&partition).map_or(UNLIMITED, |policy| policy.group)
    }

    /// Partitions in number order.
    pub(super) fn partitions(&self) -> Vec<PartitionNumber> {
        let mut numbers: Vec<_> = self.0.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }
}

fn group(settings: &TopicSettings) -> u32 {
    match settings.retention_ms {
        _ if settings.cleanup.compact => COMPACTED,
        Some(ms @ 1..) if settings.cleanup.delete => STEPS + ms.ilog2(),
        Some(_) | None => UNLIMITED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_one_retention_step_go_together() {
        let of = |pairs: &[(&str, &str)]| {
            let config = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            group(&TopicSettings::read(&TopicSettings::default(), &config))
        };
        assert_eq!(of(&[]), of(&[("retention.ms", "604800000")]));
        assert_ne!(of(&[]), of(&[("retention.ms", "3600000")]));
        assert_eq!(of(&[("retention.ms", "-1")]), UNLIMITED);
        assert_eq!(of(&[("cleanup.policy", "compact,delete")]), COMPACTED);
    }
}
