//! Purge orders: which binary events must not reach anybody any more, and how they leave the log.
//!
//! [`PurgeOrders`] is what the `delete` topic says, kept current by a [`Follower`](super::follower::Follower); both
//! pipelines ask it. [`Burial`] appends the tombstones for what a reader met. Contract events.md 6.6.

mod burial;
mod keys;
mod recent;
mod sweep;

use std::collections::{BTreeSet, HashMap, HashSet};

pub use burial::{Burial, Purged};
use keys::KeySet;

use super::follower::{Followed, Unusable};
use super::model::{self, BinaryEventOf, DeleteEvent, DeleteSubmission, Event, Model, Text, Timestamp};
use crate::metrics::Metrics;

/// Which kind of order an event falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeKind {
    /// Its key is named: whatever comes with this key later is purged too.
    Id,
    /// A link of its path is named.
    Link,
    /// An author of its path is named, and it was made before the order's time.
    Author,
    /// Its submission is named.
    Submission,
}

/// Every order given so far. Exact: no hash stands for a text.
///
/// Times count in microseconds, which is what the log keeps of them, so that a fresh event and the stored one are judged
/// alike. A text that is empty names nothing.
///
/// Memory: an id costs 19 to 39 bytes (see [`KeySet`]); a link, an author or a submission its text and about 60 to 100
/// bytes, each further time of a submission about 12.
#[derive(Debug, Default)]
pub struct PurgeOrders {
    ids: KeySet,
    links: HashSet<Box<str>>,
    /// The latest time counts: it includes the earlier ones.
    authors: HashMap<Box<str>, i64>,
    submissions: HashMap<Box<str>, Times>,
}

/// The submission times that are purged under one set of references.
#[derive(Debug, Default)]
struct Times {
    any: bool,
    at: BTreeSet<i64>,
}

impl Times {
    fn contains(&self, time: Timestamp) -> bool {
        self.any || self.at.contains(&time.micros())
    }
}

impl PurgeOrders {
    /// The first kind of order, in the contract's order, that the event falls under. Its key and tracking fields must be
    /// set.
    pub fn find<T: Text>(&self, event: &BinaryEventOf<T>) -> Option<PurgeKind> {
        if self.ids.contains(&event.kafka_key) {
            return Some(PurgeKind::Id);
        }
        if !self.links.is_empty() && event.track_links.iter().any(|link| self.links.contains(&**link)) {
            return Some(PurgeKind::Link);
        }
        if !self.authors.is_empty() {
            let made = event.timestamp.micros();
            let before = |author: &T| self.authors.get(&**author).is_some_and(|limit| made < *limit);
            if event.track_authors.iter().any(before) {
                return Some(PurgeKind::Author);
            }
        }
        let times = self.submissions.get(&*event.track_source_references)?;
        times.contains(event.source.timestamp).then_some(PurgeKind::Submission)
    }

    /// Adds one order.
    ///
    /// # Errors
    /// [`Unusable`] for an action of another name.
    pub fn add(&mut self, order: &DeleteEvent) -> Result<(), Unusable> {
        let entity = &order.entity;
        match order.action.as_str() {
            "ids" => entity.ids.ids.iter().for_each(|id| self.ids.insert(id)),
            "link" => self.add_link(&entity.link.track_link),
            "author" => self.add_author(&entity.author.track_author, entity.author.timestamp),
            "submission" => self.add_submission(&entity.submission),
            other => return Err(Unusable { reason: "unknown_action", detail: format!("no such action: {other:?}") }),
        }
        Ok(())
    }

    fn add_link(&mut self, link: &str) {
        if !link.is_empty() {
            self.links.insert(link.into());
        }
    }

    fn add_author(&mut self, author: &str, before: Timestamp) {
        if !author.is_empty() {
            let limit = self.authors.entry(author.into()).or_insert(i64::MIN);
            *limit = (*limit).max(before.micros());
        }
    }

    fn add_submission(&mut self, submission: &DeleteSubmission) {
        if submission.track_source_references.is_empty() {
            return;
        }
        let times = self.submissions.entry(submission.track_source_references.as_str().into()).or_default();
        if submission.timestamp.is_zero() {
            *times = Times { any: true, at: BTreeSet::new() };
        } else if !times.any {
            times.at.insert(submission.timestamp.micros());
        }
    }

    /// How much there is of each kind; a submission counts once for each of its times.
    fn sizes(&self) -> [(&'static str, usize); 4] {
        let submissions = self.submissions.values().map(|times| times.at.len() + usize::from(times.any)).sum();
        [
            ("id", self.ids.len()),
            ("link", self.links.len()),
            ("author", self.authors.len()),
            ("submission", submissions),
        ]
    }
}

impl Followed for PurgeOrders {
    /// Orders are never taken back: a tombstone in their topic changes nothing.
    fn apply(&mut self, _key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Unusable> {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(()) };
        match model::decode_avro(Model::Delete, value) {
            Ok(Event::Delete(order)) => self.add(&order),
            Ok(other) => Err(Unusable { reason: "undecodable", detail: format!("a {} event", other.model()) }),
            Err(error) => Err(Unusable { reason: "undecodable", detail: error.to_string() }),
        }
    }

    fn show(&self, metrics: &Metrics) {
        for (kind, size) in self.sizes() {
            metrics.purge_orders.at([kind]).set(i64::try_from(size).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests;
