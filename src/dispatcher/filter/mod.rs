//! Consume-side filters: which of the events taken from the log reach a client, and the counts of those that do not.
//!
//! Contract events.md 5.5: one filter per file, each a pure `check` that gives the reason of a drop. [`consume`] runs
//! the stages in the contract's order; the whole batch passes one stage before the next one starts. [`verdicts`] asks the
//! same stages about one event, for people who want to know why.

pub mod ageoff;
pub mod consumer_rules;
pub mod duplicates;
pub mod previously_deleted;
pub mod security;
pub mod too_deep;
pub mod unreadable;
mod why;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use super::labels::Labels;
use super::model::{Event, EventOf, Text, Timestamp};
use super::params::GetParams;
use super::purge::{PurgeKind, PurgeOrders};
use super::sources::Sources;
use crate::metrics::Metrics;
pub use why::why;

/// A reason to drop an event, with the stage that found it; its text is a key of `info.filters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterKey {
    /// Name of the stage, also a metric label.
    pub stage: &'static str,
    /// Why the event was dropped.
    pub reason: &'static str,
}

impl fmt::Display for FilterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stage, self.reason)
    }
}

/// A record whose bytes are no event of its topic's model (design.md 16).
pub const UNDECODABLE: FilterKey = FilterKey { stage: unreadable::STAGE, reason: "undecodable" };

/// How many events each filter dropped in one GET.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterCounts {
    counts: BTreeMap<FilterKey, u64>,
}

impl FilterCounts {
    /// Counts one dropped event.
    pub fn add(&mut self, key: FilterKey) {
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// All drops together: `info.filtered`.
    pub fn total(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether nothing was dropped.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The drops of each key that has any.
    pub fn iter(&self) -> impl Iterator<Item = (FilterKey, u64)> {
        self.counts.iter().map(|(key, count)| (*key, *count))
    }
}

/// What the filters of one GET look at beside the event.
#[derive(Debug, Clone, Copy)]
pub struct Consumer<'a> {
    /// The request.
    pub params: &'a GetParams,
    /// Whether it came in by `active`.
    pub task: bool,
    /// Source expiries.
    pub sources: &'a Sources,
    /// What has been purged.
    pub purges: &'a PurgeOrders,
    /// What security markings are made of.
    pub labels: &'a Labels,
    /// The time of this pass.
    pub now: Timestamp,
    /// What it has been handed already, if that is remembered.
    pub duplicates: Option<&'a duplicates::Asking<'a>>,
    /// Where it is counted how long the stages take.
    pub metrics: &'a Metrics,
}

/// Drops from `batch` what the consumer must not get and counts it.
///
/// `event_of` finds the event inside an item. Nothing is allocated for events that pass. Returns those that have been
/// purged, which the caller counts when it knows what became of their tombstones.
pub fn consume<I, T: Text>(
    batch: &mut Vec<I>,
    event_of: fn(&I) -> &EventOf<T>,
    consumer: &Consumer<'_>,
    counts: &mut FilterCounts,
) -> Vec<(I, PurgeKind)> {
    let mut purged = Vec::new();
    each_stage(consumer, |stage| {
        let started = Instant::now();
        let name = match stage {
            Stage::Check(stage, check) => {
                batch.retain(|item| match check(event_of(item)) {
                    None => true,
                    Some(reason) => {
                        counts.add(FilterKey { stage, reason });
                        false
                    }
                });
                stage
            }
            Stage::Purged(purges) => {
                purged = take_purged(batch, event_of, purges);
                previously_deleted::STAGE
            }
        };
        consumer.metrics.consume_pipelines_duration.observe([name], started.elapsed());
    });
    purged
}

/// Every reason that the consumer would not get `event` for, in the order of the stages; nothing changes by asking.
pub fn verdicts(event: &Event, consumer: &Consumer<'_>) -> Vec<FilterKey> {
    let mut keys = Vec::new();
    each_stage(consumer, |stage: Stage<'_, String>| {
        keys.extend(match stage {
            Stage::Check(stage, check) => check(event).map(|reason| FilterKey { stage, reason }),
            Stage::Purged(purges) => previously_deleted::check(purges, event).map(|_| previously_deleted::DELETED),
        });
    });
    keys
}

/// The reason for which `simulate` says that the consumer of `params` would not get `event`: depth as for passive
/// consumers, then the consumer's rules, nothing else (events.md 1.8).
pub fn simulated(event: &Event, params: &GetParams) -> Option<FilterKey> {
    let key = |stage| move |reason| FilterKey { stage, reason };
    let depth = too_deep::check(too_deep::PASSIVE_LIMIT, event).map(key(too_deep::STAGE));
    depth.or_else(|| consumer_rules::check(params, event).map(key(consumer_rules::STAGE)))
}

/// Gives the reason to drop an event, if there is one.
type Check<'a, T> = dyn Fn(&EventOf<T>) -> Option<&'static str> + 'a;

/// One filter.
enum Stage<'a, T: Text> {
    /// Drops what its check gives a reason for.
    Check(&'static str, &'a Check<'a, T>),
    /// Takes out what these orders name.
    Purged(&'a PurgeOrders),
}

/// The one list of stages, in the contract's order. Whatever remembers what it
/// was asked, as [`Consumer::duplicates`] does, is left out by those who only want to know.
fn each_stage<T: Text>(consumer: &Consumer<'_>, mut run: impl FnMut(Stage<'_, T>)) {
    let Consumer { params, task, sources, labels, purges, now, duplicates, metrics: _ } = *consumer;
    let mut stage = |name, check: &Check<'_, T>| run(Stage::Check(name, check));
    let depth_limit = if task { too_deep::TASK_LIMIT } else { too_deep::PASSIVE_LIMIT };
    let clearance = (!params.max_security.is_empty()).then(|| labels.clearance(&params.max_security));
    stage(ageoff::STAGE, &|event| ageoff::check(sources, now, event));
    stage(too_deep::STAGE, &|event| too_deep::check(depth_limit, event));
    stage(security::STAGE, &|event| security::check(clearance.as_ref(), event));
    stage(consumer_rules::STAGE, &|event| consumer_rules::check(params, event));
    run(Stage::Purged(purges));
    // Before the duplicates: what is not handed out must not keep back a readable event of the same key behind it.
    if !params.avro {
        run(Stage::Check(unreadable::STAGE, &unreadable::check));
    }
    if let Some(duplicates) = duplicates {
        run(Stage::Check(duplicates::STAGE, &|event| duplicates.check(event)));
    }
    // ReplayPluginCompletion (5.5.7) and RaiseDequeuedStatus (5.5.8) are the caller's: the one publishes, the other opens
    // the task of an event that passed.
}

fn take_purged<I, T: Text>(
    batch: &mut Vec<I>,
    event_of: fn(&I) -> &EventOf<T>,
    purges: &PurgeOrders,
) -> Vec<(I, PurgeKind)> {
    let kind = |item: &I| previously_deleted::check(purges, event_of(item));
    let purged = batch.extract_if(.., |item| kind(item).is_some());
    purged.filter_map(|item| kind(&item).map(|kind| (item, kind))).collect()
}

#[cfg(test)]
mod tests;
