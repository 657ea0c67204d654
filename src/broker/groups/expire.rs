//! Offsets that nobody has used for the retention time are removed, and groups of which nothing is left.

use std::collections::BTreeSet;
use std::sync::Arc;

use azulite_storage::TopicPartition;
use azulite_storage::index::IndexError;

use super::coordinator::Shared;
use super::machine::Expiry;
use crate::broker::{CommittedOffset, GroupChanges, GroupRecord, OffsetChanges};

impl Shared {
    /// Removes what has expired at `now_ms`, milliseconds since 1970. Returns how many offsets. Blocks.
    ///
    /// # Errors
    /// The index failed; what was removed before stays removed.
    pub(super) fn expire(self: &Arc<Self>, now_ms: i64) -> Result<usize, IndexError> {
        let mut groups: BTreeSet<String> = self.broker.log().groups()?;
        groups.extend(self.groups().keys().cloned());
        let mut removed = 0;
        for group in groups {
            removed += self.expire_group(&group, now_ms)?;
        }
        Ok(removed)
    }

    fn expire_group(self: &Arc<Self>, group: &str, now_ms: i64) -> Result<usize, IndexError> {
        let log = self.broker.log().as_ref();
        let positions = self.broker.positions(group);
        // A group that is written to meanwhile is left for the next time.
        let Some(quiet) = positions.quiet() else { return Ok(0) };
        let committed = log.group_offsets(group)?;
        let record = GroupRecord::of(log, group)?;
        let oldest_ms = now_ms.saturating_sub(self.options.offsets_retention_ms);
        if record.as_ref().is_some_and(|record| record.used_ms > oldest_ms) {
            return Ok(0);
        }
        // Held to the end, so that nobody joins in between.
        let mut groups = self.groups();
        let entry = groups.get(group).cloned();
        let mut run = entry.as_ref().map(|entry| entry.lock());
        let expiry = run.as_ref().map_or(Expiry::SinceCommit, |run| run.machine.expiry());
        let empty = run.as_ref().is_none_or(|run| run.machine.is_empty());
        let total = committed.len();
        let expired = |(place, committed): &(TopicPartition, CommittedOffset)| {
            log.topic(&place.topic).is_none() || has_expired(&expiry, place, committed, oldest_ms)
        };
        let offsets: OffsetChanges = committed.into_iter().filter(expired).map(|(place, _)| (place, None)).collect();
        let (count, nothing_left) = (offsets.len(), offsets.len() == total && empty);
        let mut changes = GroupChanges { offsets, ..GroupChanges::default() };
        if nothing_left {
            changes.metadata = run.is_some().then_some(None);
            changes.values.extend(record.map(|_| GroupRecord::remove(group)));
        }
        if changes.offsets.is_empty() && changes.metadata.is_none() && changes.values.is_empty() {
            return Ok(0);
        }
        let name = group.to_owned();
        let done = Box::new(move |outcome: Result<_, _>| {
            if let Err(error) = outcome {
                tracing::warn!(group = name, %error, "expired offsets were not removed; they are next time");
            }
        });
        match positions.overwrite_if_quiet(quiet, log, group, changes, done) {
            Ok(true) => {}
            Ok(false) => return Ok(0),
            Err(error) => {
                tracing::warn!(group, %error, "expired offsets were not removed");
                return Ok(0);
            }
        }
        if nothing_left && let Some(run) = &mut run {
            run.machine.kill(self.now());
            groups.remove(group);
        }
        Ok(count)
    }
}

fn has_expired(expiry: &Expiry, place: &TopicPartition, committed: &CommittedOffset, oldest_ms: i64) -> bool {
    match expiry {
        Expiry::Never => false,
        Expiry::SinceCommit => committed.commit_time_ms <= oldest_ms,
        Expiry::Since(since_ms) => committed.commit_time_ms.max(*since_ms) <= oldest_ms,
        Expiry::Unsubscribed(topics) => !topics.contains(&place.topic) && committed.commit_time_ms <= oldest_ms,
    }
}
