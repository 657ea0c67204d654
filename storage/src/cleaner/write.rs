//! Writing one cleaned segment and giving it its rows.

use bytes::Bytes;

use super::file::{CleanedWriter, edges_len};
use super::{CleanError, Pass};
use crate::batch::BatchHeader;
use crate::frame::{FrameHeader, frame_len};
use crate::ids::{PartitionNumber, SegmentNumber};
use crate::index::Changes;
use crate::keys::cleaned::CleanedHead;
use crate::keys::log::{BatchKey, BatchRow};
use crate::recover::cleaned::frame_of;

/// Rows changed in the index at once.
const ROWS_AT_ONCE: usize = 256;

/// What becomes of a batch.
pub(super) enum Shape {
    /// It is moved as it is.
    Same,
    /// This is moved in its place.
    New(Bytes),
    /// It goes.
    Gone,
}

/// What becomes of one row.
struct Change {
    key: BatchKey,
    old: BatchRow,
    new: Option<BatchRow>,
}

impl Pass<'_> {
    /// Reads a live frame; `None` when it is not what its row says. That is damage, and stays where it is.
    pub(super) fn read_frame(
        &mut self,
        key: BatchKey,
        row: &BatchRow,
    ) -> Result<Option<(FrameHeader, Bytes)>, CleanError> {
        self.pace.spend_on_reading(frame_len(row.payload_len))?;
        let file = self.core.segments.open(row.segment())?;
        let frame = frame_of(file.as_ref(), key, row)?;
        if frame.is_none() {
            self.keep_as_it_is(row.segment());
        }
        Ok(frame)
    }

    /// Writes a cleaned segment of these frames and points their rows to it. `shape` says what becomes of each. One that
    /// cannot be read stays where it is; with `strict`, nothing at all is done then and the answer is false.
    pub(super) fn write_cleaned(
        &mut self,
        number: SegmentNumber,
        mut head: CleanedHead,
        moves: &[(BatchKey, BatchRow)],
        strict: bool,
        shape: &mut dyn FnMut(&FrameHeader, &Bytes, &mut CleanedHead) -> Shape,
    ) -> Result<bool, CleanError> {
        // What is moved must not be replayed into old places after a power cut.
        self.core.index.persist()?;
        let bytes = moves.iter().map(|(_, row)| frame_len(row.payload_len)).sum();
        let core = self.core;
        let mut writer = CleanedWriter::create(&core.segments, number, &mut head, bytes)?;
        let changes = match self.copy(&mut writer, &mut head, moves, strict, shape) {
            Ok(Some(changes)) => changes,
            refused => {
                writer.discard();
                return refused.map(|_| false);
            }
        };
        let frame_bytes = writer.finish(&head)?;
        self.repoint(number, &head, &changes)?;
        let len = frame_bytes + edges_len(&head);
        self.memory.files.add_cleaned(number, len, frame_bytes, head);
        self.report.written += 1;
        self.report.written_bytes += frame_bytes;
        Ok(true)
    }

    fn copy(
        &mut self,
        writer: &mut CleanedWriter<'_>,
        head: &mut CleanedHead,
        moves: &[(BatchKey, BatchRow)],
        strict: bool,
        shape: &mut dyn FnMut(&FrameHeader, &Bytes, &mut CleanedHead) -> Shape,
    ) -> Result<Option<Vec<Change>>, CleanError> {
        let mut changes = Vec::with_capacity(moves.len());
        for (key, old) in moves {
            let (key, old) = (*key, *old);
            let Some((header, batch)) = self.read_frame(key, &old)? else {
                if strict {
                    return Ok(None);
                }
                continue;
            };
            let batch = match shape(&header, &batch, head) {
                Shape::Same => batch,
                Shape::New(new) => new,
                Shape::Gone => {
                    changes.push(Change { key, old, new: None });
                    continue;
                }
            };
            self.pace.spend(frame_len(u32::try_from(batch.len()).unwrap_or(u32::MAX)))?;
            let position = writer.push(&header, &batch)?;
            changes.push(Change { key, old, new: Some(row_of(writer.number(), position, &header, &batch)) });
        }
        Ok(Some(changes))
    }

    /// The partition has grown smaller.
    fn count_bytes(&self, partition: PartitionNumber, old: &BatchRow, new: Option<&BatchRow>) {
        let bytes = |row: &BatchRow| i64::from(row.payload_len);
        if let Some(policy) = self.policies.get(partition) {
            policy.partition.count_bytes(new.map_or(0, bytes) - bytes(old));
        }
    }

    /// Points rows to their new places, some at a time: every one of them is right before and after. The last of them
    /// tell the index that it knows the segment.
    fn repoint(&self, number: SegmentNumber, head: &CleanedHead, changes: &[Change]) -> Result<(), CleanError> {
        let index = &self.core.index;
        let mut rest = changes;
        loop {
            let (now, later) = rest.split_at_checked(ROWS_AT_ONCE).unwrap_or((rest, &[]));
            let editing = index.edit();
            let mut rows = Changes::default();
            let mut dead = Vec::with_capacity(now.len());
            for Change { key, old, new } in now {
                if index.batch(key.partition, key.base_offset)? != Some(*old) {
                    // It was swept meanwhile.
                    dead.extend(*new);
                    continue;
                }
                dead.push(*old);
                self.count_bytes(key.partition, old, new.as_ref());
                match new {
                    Some(new) => rows.batches.push((*key, *new)),
                    None => rows.gone.push(*key),
                }
            }
            if later.is_empty() {
                rows.cleaned.push((number, Some(head.clone())));
            }
            index.change(rows)?;
            drop(editing);
            index.note_dead(dead.iter());
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }
}

/// The row of a batch at its new place.
fn row_of(number: SegmentNumber, position: u64, frame: &FrameHeader, batch: &Bytes) -> BatchRow {
    let len = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    let header = BatchHeader::read(batch).ok();
    let max_timestamp = header.map_or(-1, |header| header.max_timestamp);
    let row = BatchRow::new(number, position, len, frame.last_offset_delta, max_timestamp);
    let row = row.appended_at(frame.append_time_ms);
    if header.is_some_and(|header| header.count == 0) { row.without_records() } else { row }
}
