//! What a system topic says, held in memory: read from its start before anything is served, then kept current.
//!
//! Nothing runs in the background. Whoever is about to use what was read first calls [`Follower::catch_up`], which costs
//! a comparison of offsets while nothing is new; so what is committed, through whatever door, is known to the next use.
//! Called by the produce and consume pipelines, on blocking threads.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::broker::{Broker, LogStore, Offset, Partition, ReadError, Records};
use crate::metrics::Metrics;
use azulite_storage::Record;

/// Bytes read from one partition at once, about.
const READ_BYTES: usize = 1 << 20;

/// What is made of the records of one topic.
pub trait Followed: Default + Send + Sync + 'static {
    /// Takes in one record; one without a value is a tombstone for its key.
    ///
    /// # Errors
    /// [`Unusable`]: it says nothing that can be used, and nothing has changed.
    fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Unusable>;

    /// Sets the gauges that show its size.
    fn show(&self, metrics: &Metrics);
}

/// Why a record is passed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Unusable {
    /// Metric label.
    pub reason: &'static str,
    /// For the log.
    pub detail: String,
}

/// See the module.
pub struct Follower<T> {
    broker: Broker,
    topic: String,
    metrics: Arc<Metrics>,
    cursor: Mutex<Cursor>,
    current: RwLock<T>,
}

impl<T> std::fmt::Debug for Follower<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// How far the topic has been read.
#[derive(Default)]
struct Cursor {
    topics_version: Option<u64>,
    places: Vec<Place>,
}

struct Place {
    partition: Arc<Partition>,
    next: Offset,
}

impl<T: Followed> Follower<T> {
    /// Of the topic of this name, which need not exist yet. Nothing is read before [`Follower::catch_up`].
    pub fn new(broker: Broker, topic: String, metrics: Arc<Metrics>) -> Self {
        Self { broker, topic, metrics, cursor: Mutex::default(), current: RwLock::default() }
    }

    /// Takes in everything that was committed before the call. Blocks on the log when there is something new.
    ///
    /// Records that cannot be used, damaged ones among them, are named in the log, counted and passed over.
    ///
    /// # Errors
    /// See [`ReadError`]; what was read so far counts, and the next call goes on from there.
    pub fn catch_up(&self) -> Result<(), ReadError> {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.broker.topics_version();
        if cursor.topics_version != Some(version) {
            self.look_for_partitions(&mut cursor);
            cursor.topics_version = Some(version);
        }
        let mut any = false;
        for place in &mut cursor.places {
            let end = place.partition.offsets().high_watermark;
            any |= place.next < end;
            while place.next < end {
                self.step(place, end)?;
            }
        }
        if any {
            self.read().show(&self.metrics);
        }
        Ok(())
    }

    /// What has been taken in so far.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A topic that was deleted takes with it what it said, as it would at the next start.
    fn look_for_partitions(&self, cursor: &mut Cursor) {
        let topic = self.broker.log().topic(&self.topic);
        let partitions = topic.as_ref().map_or(&[][..], |topic| &topic.partitions);
        let is_there = |place: &Place| partitions.iter().any(|p| p.number() == place.partition.number());
        if !cursor.places.iter().all(is_there) {
            tracing::warn!(topic = self.topic, "the topic was deleted: what it said does not count any more");
            cursor.places.clear();
            *self.write() = T::default();
            self.read().show(&self.metrics);
        }
        for partition in partitions {
            if !cursor.places.iter().any(|place| place.partition.number() == partition.number()) {
                cursor.places.push(Place { partition: partition.clone(), next: partition.offsets().log_start });
            }
        }
    }

    fn step(&self, place: &mut Place, end: Offset) -> Result<(), ReadError> {
        let (records, next) = match read_records(self.broker.log().as_ref(), &place.partition, place.next, end) {
            Ok(read) => read,
            // The next look at the topics sees that.
            Err(ReadError::Gone { .. }) => (Vec::new(), end),
            Err(ReadError::Damaged { end: after, .. }) => {
                self.pass_over(place, &[damaged(place)]);
                (Vec::new(), after.max(place.next + 1))
            }
            Err(ReadError::Batch { offset, reason, .. }) => {
                self.pass_over(place, &[Unusable { reason: "damaged", detail: reason.to_string() }]);
                (Vec::new(), offset.max(place.next) + 1)
            }
            Err(error @ (ReadError::OutOfRange { .. } | ReadError::Io { .. } | ReadError::Index(_))) => {
                return Err(error);
            }
        };
        let bytes: usize = records.iter().map(|record| record.value.as_ref().map_or(0, |value| value.len())).sum();
        // It is of no group.
        let consumed = self.metrics.kafka_consumed_bytes.at(["dispatcher", "", &self.topic]);
        consumed.add(i64::try_from(bytes).unwrap_or(0));
        let refused: Vec<Unusable> = {
            let mut current = self.write();
            let outcomes = records.iter().map(|record| current.apply(record.key.as_deref(), record.value.as_deref()));
            outcomes.filter_map(Result::err).collect()
        };
        self.pass_over(place, &refused);
        place.next = next;
        Ok(())
    }

    /// One line for all records of one read, however many there are.
    fn pass_over(&self, place: &Place, unusable: &[Unusable]) {
        let Some(first) = unusable.first() else { return };
        let (partition, from, records) = (place.partition.name(), place.next, unusable.len());
        tracing::warn!(%partition, from, records, %first, "records that cannot be used were passed over");
        unusable.iter().for_each(|one| self.metrics.followed_errors.inc([&self.topic, one.reason]));
    }
}

fn damaged(place: &Place) -> Unusable {
    let detail = format!("records from offset {} on cannot be read any more", place.next);
    Unusable { reason: "damaged", detail }
}

/// Some records of `from..end`, and the offset to go on from, which is above `from`. Blocks on the disk.
///
/// # Errors
/// See [`ReadError`], when it begins at `from`; what is met later ends the read before it. Offsets below the log start
/// are no error: nothing is there.
pub(super) fn read_records(
    log: &dyn LogStore,
    partition: &Partition,
    from: Offset,
    end: Offset,
) -> Result<(Vec<Record>, Offset), ReadError> {
    let batches = match log.read(partition, from, READ_BYTES) {
        Err(ReadError::OutOfRange { allowed, .. }) if allowed.start > from => {
            return Ok((Vec::new(), allowed.start.min(end)));
        }
        batches => batches?,
    };
    let (mut found, mut next) = (Vec::new(), from);
    for bytes in &batches {
        let of_batch = Records::of(bytes).and_then(|records| {
            let (header, control) = (records.header().last_offset(), records.header().is_control());
            let all: Vec<Record> = records.collect::<Result<_, _>>()?;
            Ok((header, if control { Vec::new() } else { all }))
        });
        match of_batch {
            Ok((last, records)) => {
                found.extend(records.into_iter().filter(|record| (from..end).contains(&record.offset)));
                next = next.max(last + 1);
            }
            Err(reason) if next == from => {
                let offset = last_offset(bytes).unwrap_or(from);
                return Err(ReadError::Batch { partition: partition.name().clone(), offset, reason });
            }
            Err(_) => return Ok((found, next)),
        }
    }
    // No record below the end is left.
    let next = if next == from { end } else { next.min(end) };
    Ok((found, next))
}

/// Of a batch whose header reads although its records do not.
fn last_offset(batch: &bytes::Bytes) -> Option<Offset> {
    azulite_storage::batch::BatchHeader::read(batch).ok().map(|header| header.last_offset())
}

#[cfg(test)]
mod tests;
