//! Reading partitions from end to end with bounded memory. Keeps the law NO-SKIP: damage is handed over like records.

use std::ops::Range;

use azulite_storage::Record;
use azulite_storage::batch::BatchHeader;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::{LogStore, Offset, Partition, ReadError, Records, TopicPartition};

/// Bytes read from the log at once, about.
const READ_BYTES: usize = 1 << 20;

/// Whether a scan goes on.
pub type Flow = std::ops::ControlFlow<()>;

/// Offsets that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// First offset.
    pub from_offset: Offset,
    /// Last offset.
    pub last_offset: Offset,
    /// What is wrong.
    pub reason: String,
}

impl DamagedRange {
    pub(super) fn new(place: &TopicPartition, offsets: Range<Offset>, reason: String) -> Self {
        let TopicPartition { topic, partition } = place.clone();
        Self { topic, partition, from_offset: offsets.start, last_offset: offsets.end - 1, reason }
    }
}

/// One thing a scan came upon.
pub(super) enum Step {
    /// A record.
    Record(Record),
    /// Offsets that cannot be read.
    Damage(DamagedRange),
}

/// Hands over every record that is in the partition now, in order.
///
/// # Errors
/// As [`scan_range`].
pub(super) fn scan_partition(
    log: &dyn LogStore,
    partition: &Partition,
    take: &mut dyn FnMut(Step) -> Flow,
) -> Result<Flow, ReadError> {
    let offsets = partition.offsets();
    scan_range(log, partition, offsets.log_start..offsets.high_watermark, take)
}

/// Hands over every record of some offsets, in order; those below the log start have gone, and above the high watermark
/// there are none.
///
/// # Errors
/// The operating system or the index failed; damage is a step, not an error.
pub(super) fn scan_range(
    log: &dyn LogStore,
    partition: &Partition,
    offsets: Range<Offset>,
    take: &mut dyn FnMut(Step) -> Flow,
) -> Result<Flow, ReadError> {
    let end = offsets.end.min(partition.offsets().high_watermark);
    let mut from = offsets.start;
    while from < end {
        let batches = match log.read(partition, from, READ_BYTES) {
            Ok(batches) if batches.is_empty() => break,
            Ok(batches) => batches,
            Err(ReadError::OutOfRange { allowed, .. }) if allowed.start > from => {
                from = allowed.start;
                continue;
            }
            // Deleted meanwhile: there is nothing more.
            Err(ReadError::Gone { .. }) => break,
            Err(error) => {
                let Some(next) = past_damage(&error, end) else { return Err(error) };
                let next = next.max(from + 1);
                let range = DamagedRange::new(partition.name(), from..next, error.to_string());
                if take(Step::Damage(range)).is_break() {
                    return Ok(Flow::Break(()));
                }
                from = next;
                continue;
            }
        };
        for batch in batches {
            let next = after(&batch).unwrap_or(end);
            if scan_batch(partition, &batch, from..next.min(end), take).is_break() {
                return Ok(Flow::Break(()));
            }
            from = next.max(from + 1);
            if from >= end {
                break;
            }
        }
    }
    Ok(Flow::Continue(()))
}

/// Where reading can go on behind the damage that an error tells of; `None` when it tells of something else.
fn past_damage(error: &ReadError, end: Offset) -> Option<Offset> {
    match error {
        ReadError::Damaged { end, .. } => Some(*end),
        // Where the batch ends is in the bytes that cannot be read.
        ReadError::Batch { .. } => Some(end),
        ReadError::OutOfRange { .. } | ReadError::Gone { .. } | ReadError::Io { .. } | ReadError::Index(_) => None,
    }
}

/// The offset behind a batch.
fn after(batch: &Bytes) -> Option<Offset> {
    let header = BatchHeader::read(batch).ok()?;
    header.base_offset.checked_add(i64::from(header.last_offset_delta))?.checked_add(1)
}

fn scan_batch(
    partition: &Partition,
    batch: &Bytes,
    offsets: Range<Offset>,
    take: &mut dyn FnMut(Step) -> Flow,
) -> Flow {
    let from = offsets.start;
    let mut done = from;
    let bad = |from: Offset, reason: String| {
        Step::Damage(DamagedRange::new(partition.name(), from..offsets.end.max(from + 1), reason))
    };
    let records = match Records::of(batch) {
        Ok(records) => records,
        Err(error) => return take(bad(from, error.to_string())),
    };
    // Marks of transactions are no records of anybody's.
    if records.header().is_control() {
        return Flow::Continue(());
    }
    for record in records {
        match record {
            Ok(record) if record.offset < from => {}
            Ok(record) if record.offset >= offsets.end => break,
            Ok(record) => {
                done = record.offset + 1;
                take(Step::Record(record))?;
            }
            Err(error) => return take(bad(done, error.to_string())),
        }
    }
    Flow::Continue(())
}
