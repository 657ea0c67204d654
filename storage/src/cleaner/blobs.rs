//! Moving the frames of inline blobs: as batches are moved, by the same order of steps, without a shape to change.

use super::file::{CleanedWriter, edges_len};
use super::groups::BLOBS;
use super::{CleanError, Pass};
use crate::frame::frame_len;
use crate::ids::{SegmentNumber, Sha256};
use crate::index::{Changes, StateKeyspace};
use crate::inline::{frame_of, hash_key};
use crate::keys::blob::BlobRow;
use crate::keys::cleaned::CleanedHead;
use crate::keys::encode_value;

/// Rows changed in the index at once.
const ROWS_AT_ONCE: usize = 256;

/// What becomes of one row.
struct Move {
    hash: Sha256,
    old: BlobRow,
    new: BlobRow,
}

impl Pass<'_> {
    /// Writes a cleaned segment of these blobs and points their rows to it. One that cannot be read stays where it is.
    pub(super) fn write_blobs(&mut self, number: SegmentNumber, moves: &[(Sha256, BlobRow)]) -> Result<(), CleanError> {
        // What is moved must not be replayed into old places after a power cut.
        self.core.index.persist()?;
        let bytes = moves.iter().map(|(_, row)| frame_len(row.payload_len)).sum();
        let core = self.core;
        let mut head = CleanedHead::new(BLOBS, self.marker.applied, Vec::new());
        let mut writer = CleanedWriter::create(&core.segments, number, &mut head, bytes)?;
        let moved = match self.copy_blobs(&mut writer, moves) {
            Ok(moved) if !moved.is_empty() => moved,
            nothing => {
                writer.discard();
                return nothing.map(drop);
            }
        };
        let frame_bytes = writer.finish(&head)?;
        self.repoint_blobs(number, &head, &moved)?;
        let len = frame_bytes + edges_len(&head);
        self.memory.files.add_cleaned(number, len, frame_bytes, head);
        self.report.written += 1;
        self.report.written_bytes += frame_bytes;
        Ok(())
    }

    fn copy_blobs(
        &mut self,
        writer: &mut CleanedWriter<'_>,
        moves: &[(Sha256, BlobRow)],
    ) -> Result<Vec<Move>, CleanError> {
        let mut moved = Vec::with_capacity(moves.len());
        for (hash, old) in moves {
            let (hash, old) = (*hash, *old);
            self.pace.spend_on_reading(frame_len(old.payload_len))?;
            let file = self.core.segments.open(old.segment())?;
            let Some((header, payload)) = frame_of(file.as_ref(), hash, &old)? else {
                self.keep_as_it_is(old.segment());
                continue;
            };
            self.pace.spend(header.frame_len())?;
            let position = writer.push(&header, &payload)?;
            let new = BlobRow::new(writer.number(), position, header.payload_len, header.commit);
            moved.push(Move { hash, old, new });
        }
        Ok(moved)
    }

    /// Points rows to their new places, some at a time: every one of them is right before and after. The last of them
    /// tell the index that it knows the segment.
    fn repoint_blobs(&self, number: SegmentNumber, head: &CleanedHead, moved: &[Move]) -> Result<(), CleanError> {
        let index = &self.core.index;
        let mut rest = moved;
        loop {
            let (now, later) = rest.split_at_checked(ROWS_AT_ONCE).unwrap_or((rest, &[]));
            let editing = index.edit();
            let mut rows = Changes::default();
            let mut dead = Vec::with_capacity(now.len());
            for Move { hash, old, new } in now {
                // Else it was deleted meanwhile, or stored again.
                let same = index.blob(&hash.0)? == Some(*old);
                dead.push(if same { *old } else { *new });
                if same {
                    rows.state.push((StateKeyspace::Blobs, hash_key(*hash), Some(encode_value(new).into())));
                }
            }
            if later.is_empty() {
                rows.cleaned.push((number, Some(head.clone())));
            }
            index.change(rows)?;
            drop(editing);
            index.note_dead_frames(dead.iter().map(|row| (row.segment(), row.payload_len)));
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }
}
