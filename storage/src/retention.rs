//! Retention: which batches of a partition have outlived what its topic's configuration grants them (`kafka.md` 6).
//!
//! [`decide`] is a pure function of rows, settings and time; [`Retention`] walks the partitions with it and moves log
//! starts, all that one step finds in one commit. Whole batches only, never beyond the last stable offset. Called by
//! [`maintenance`](crate::maintenance). Bytes are freed by others.

mod clock_guard;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub use clock_guard::ClockGuard;

use crate::ids::{Offset, PartitionNumber};
use crate::index::IndexError;
use crate::keys::log::BatchRow;
use crate::maintenance::{MaintenanceError, Now, Task, Turn};
use crate::partition::Partition;
use crate::store::Core;
use crate::topics::{TimestampType, Topic, TopicSettings};

/// One batch as retention sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchAge {
    /// One past its last offset.
    pub next_offset: Offset,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its largest timestamp, milliseconds since 1970; negative for none.
    pub max_timestamp: i64,
    /// When it was first seen here, milliseconds since 1970; `None` when that is not known.
    pub append_time_ms: Option<i64>,
}

impl BatchAge {
    fn of(base_offset: Offset, row: &BatchRow) -> Self {
        Self {
            next_offset: row.next_offset(base_offset),
            bytes: u64::from(row.payload_len),
            max_timestamp: row.max_timestamp,
            append_time_ms: row.append_time_ms(),
        }
    }

    /// The time its age is counted from: its own, but not later than when it was first seen, so that a date in the
    /// future does not keep it for ever. `None` when nothing is known: it then goes with the batch behind it.
    #[must_use]
    pub fn stamp(&self, timestamps: TimestampType) -> Option<i64> {
        let own = Some(self.max_timestamp).filter(|timestamp| *timestamp >= 0);
        match (timestamps, self.append_time_ms) {
            (TimestampType::Create, Some(seen)) => Some(own.map_or(seen, |own| own.min(seen))),
            (TimestampType::LogAppend, Some(seen)) => Some(seen),
            (_, None) => own,
        }
    }
}

/// What a decision rests on beside the batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grounds<'a> {
    /// The topic's settings.
    pub settings: &'a TopicSettings,
    /// The wall clock; `None` while it is not trusted: then nothing leaves by time.
    pub now_ms: Option<i64>,
    /// Bytes of all batches from the log start on; `None` while they are not counted: then nothing leaves by size.
    pub bytes: Option<u64>,
    /// Nothing at or above it leaves.
    pub last_stable: Offset,
}

/// What is to become of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The new log start; `None` when it stays.
    pub log_start: Option<Offset>,
    /// When, by the wall clock, the first batch that stays is due; `None` when none is or time has no part in it.
    pub due_ms: Option<i64>,
    /// Batches looked at.
    pub looked_at: usize,
    /// True when `limit` ended it.
    pub more: bool,
}

/// Looks at up to `limit` batches from the log start on, in offset order, and no further than the first that stays.
///
/// By time a batch leaves when its [`BatchAge::stamp`] is more than `retention.ms` ago; by size as long as the batches
/// from it on have more than `retention.bytes`, but the newest stays. Without `delete` in the policy all stay.
///
/// # Errors
/// Those of `batches`.
pub fn decide<E>(
    grounds: &Grounds<'_>,
    batches: impl Iterator<Item = Result<BatchAge, E>>,
    limit: usize,
) -> Result<Verdict, E> {
    let mut verdict = Verdict { log_start: None, due_ms: None, looked_at: 0, more: false };
    let settings = grounds.settings;
    if !settings.cleanup.delete {
        return Ok(verdict);
    }
    let mut bytes = grounds.bytes;
    for batch in batches {
        let batch = batch?;
        if batch.next_offset > grounds.last_stable {
            break;
        }
        if verdict.looked_at == limit {
            verdict.more = true;
            break;
        }
        verdict.looked_at += 1;
        let due_ms =
            settings.retention_ms.and_then(|age| Some(batch.stamp(settings.timestamp_type)?.saturating_add(age)));
        let too_old = due_ms.zip(grounds.now_ms).is_some_and(|(due, now)| due < now);
        let newest = batch.next_offset == grounds.last_stable;
        let too_much = bytes.zip(settings.retention_bytes).is_some_and(|(bytes, most)| bytes > most) && !newest;
        let unknown = settings.retention_ms.is_some() && due_ms.is_none();
        if too_old || too_much {
            verdict.log_start = Some(batch.next_offset);
        } else if !unknown {
            verdict.due_ms = due_ms;
            break;
        }
        bytes = bytes.map(|bytes| bytes.saturating_sub(batch.bytes));
    }
    Ok(verdict)
}

/// How often the partitions are gone through in memory.
const TICK_MS: i64 = 5000;
/// Batches looked at in one step, over all partitions.
const STEP_ROWS: usize = 8192;
/// Partitions whose rows are looked at in one step.
const STEP_PARTITIONS: usize = 512;
/// The longest time between two looks at a partition, unless the options say otherwise.
const INTERVAL: Duration = Duration::from_secs(300);

/// What the last look at a partition found.
#[derive(Clone, Copy)]
struct Looked {
    /// The log start it was about.
    log_start: Offset,
    /// By the wall clock, when its first batch is due.
    due_ms: Option<i64>,
    /// By the uptime, when it may be looked at again.
    not_before_ms: i64,
    /// By the uptime, when it is looked at whatever is known.
    at_latest_ms: i64,
    /// Its bytes mattered and were not known.
    uncounted: bool,
}

/// A partition on the list of a pass.
type Listed = (Arc<Topic>, Arc<Partition>);

/// Walks the partitions. See the module.
pub(crate) struct Retention {
    interval_ms: i64,
    looked: HashMap<PartitionNumber, Looked>,
    /// What is left of the pass under way.
    pass: Vec<Listed>,
}

impl Retention {
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        let interval = interval.unwrap_or(INTERVAL).as_millis();
        let interval_ms = i64::try_from(interval).unwrap_or(i64::MAX).max(1);
        Self { interval_ms, looked: HashMap::new(), pass: Vec::new() }
    }

    /// The partitions that have to be looked at now.
    fn list(&mut self, core: &Core, now: Now, trusted: Option<i64>) -> Vec<Listed> {
        let topics: Vec<_> = core.topics.read().by_name.values().cloned().collect();
        let mut listed = Vec::new();
        for topic in topics.iter().filter(|topic| !topic.internal && bounded(&topic.settings)) {
            let partitions = topic.partitions.iter().filter(|partition| self.wants(topic, partition, now, trusted));
            listed.extend(partitions.map(|partition| (topic.clone(), partition.clone())));
        }
        if listed.is_empty() {
            let partitions = core.partitions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.looked.retain(|number, _| partitions.contains_key(number));
        }
        listed
    }

    fn wants(&self, topic: &Topic, partition: &Partition, now: Now, trusted: Option<i64>) -> bool {
        let offsets = partition.offsets();
        if offsets.log_start >= offsets.last_stable {
            return false;
        }
        let Some(looked) = self.looked.get(&partition.number()).filter(|l| l.log_start == offsets.log_start) else {
            return true;
        };
        let due = looked.due_ms.zip(trusted).is_some_and(|(due, now)| due < now);
        let most = topic.settings.retention_bytes;
        let bytes = most.and_then(|_| partition.exact_bytes());
        let large = bytes.zip(most).is_some_and(|(bytes, most)| bytes > most);
        let counted = looked.uncounted && bytes.is_some();
        counted || now.up_ms >= looked.at_latest_ms || (due || large) && now.up_ms >= looked.not_before_ms
    }

    /// Looks at one partition; its new log start, if it is to move.
    fn look(
        &mut self,
        core: &Core,
        (topic, partition): &Listed,
        (now, trusted): (Now, Option<i64>),
        limit: usize,
    ) -> Result<Verdict, IndexError> {
        let offsets = partition.offsets();
        let settings = &topic.settings;
        let grounds = Grounds {
            settings,
            now_ms: trusted,
            bytes: settings.retention_bytes.and_then(|_| partition.exact_bytes()),
            last_stable: offsets.last_stable,
        };
        let batches = core.rows_from(partition, offsets.log_start)?;
        let batches = batches.map(|place| place.map(|place| BatchAge::of(place.base_offset, &place.row)));
        let verdict = decide(&grounds, batches, limit)?;
        let shortest = settings.retention_ms.map_or(self.interval_ms, |age| age / 20).clamp(TICK_MS, INTERVAL_MS);
        let shortest = if settings.retention_bytes.is_some() { TICK_MS } else { shortest }.min(self.interval_ms);
        let uncounted = settings.retention_bytes.is_some() && grounds.bytes.is_none();
        let looked = Looked {
            uncounted,
            log_start: verdict.log_start.unwrap_or(offsets.log_start),
            due_ms: verdict.due_ms,
            not_before_ms: now.up_ms.saturating_add(if verdict.more { 0 } else { shortest }),
            at_latest_ms: now.up_ms.saturating_add(if verdict.more { 0 } else { self.interval_ms }),
        };
        self.looked.insert(partition.number(), looked);
        Ok(verdict)
    }
}

const INTERVAL_MS: i64 = 300_000;

/// Whether anything of the topic ever leaves by age or size.
fn bounded(settings: &TopicSettings) -> bool {
    settings.cleanup.delete && (settings.retention_ms.is_some() || settings.retention_bytes.is_some())
}

impl Task for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn ask(&mut self) {
        self.looked.clear();
        self.pass.clear();
    }

    fn step(&mut self, core: &Core, now: Now) -> Result<Turn, MaintenanceError> {
        let trusted = core.is_clock_trusted(now)?.then_some(now.wall_ms);
        if self.pass.is_empty() {
            self.pass = self.list(core, now, trusted);
        }
        let mut rows = STEP_ROWS;
        let mut moves = Vec::new();
        for _ in 0..STEP_PARTITIONS {
            if rows == 0 {
                break;
            }
            let Some(listed) = self.pass.pop() else { break };
            let verdict = self.look(core, &listed, (now, trusted), rows)?;
            rows = rows.saturating_sub(verdict.looked_at.max(4));
            moves.extend(verdict.log_start.map(|start| (listed.1.clone(), start)));
            if verdict.more {
                self.pass.push(listed);
            }
        }
        if !moves.is_empty() {
            let changing = core.topics.change();
            core.move_log_starts(moves)?;
            drop(changing);
            core.maintenance.moved();
        }
        Ok(if self.pass.is_empty() { Turn::Idle(TICK_MS.min(self.interval_ms)) } else { Turn::More })
    }
}

#[cfg(test)]
mod tests;
