//! Inline blobs in recovery: the rows of their frames, and which of several frames of one blob counts.

use super::{BadRegion, ROWS_AT_ONCE, Recovery, io_error};
use crate::frame::{FrameHeader, FrameKind};
use crate::ids::{SegmentNumber, Sha256};
use crate::index::{Changes, StateKeyspace};
use crate::inline::{blob_in, hash_key, is_inline, prefix_at};
use crate::keys::blob::BlobRow;
use crate::keys::encode_value;
use crate::state::{StateKey, StoredRecord, value};
use crate::store::OpenError;

/// Lost blobs that are named; more are counted.
const LOST_NAMED: usize = 1000;

fn put(hash: Sha256, row: &BlobRow) -> (StateKeyspace, bytes::Bytes, Option<bytes::Bytes>) {
    (StateKeyspace::Blobs, hash_key(hash), Some(encode_value(row).into()))
}

impl Recovery<'_> {
    /// Whose bytes a bad frame held, if it was a blob's and still tells.
    pub(super) fn bad_blob(
        &self,
        segment: SegmentNumber,
        position: u64,
        header: Option<FrameHeader>,
    ) -> Result<Option<Sha256>, OpenError> {
        if header.is_none_or(|header| header.kind != FrameKind::Blob) {
            return Ok(None);
        }
        let prefix = prefix_at(self.open(segment)?.as_ref(), position);
        Ok(prefix.map_err(io_error(self.segments.path(segment)))?.map(|prefix| prefix.hash))
    }

    /// The row of a plain segment's good blob frame.
    pub(super) fn blob_row(
        &mut self,
        segment: SegmentNumber,
        position: u64,
        header: &FrameHeader,
        hash: Sha256,
    ) -> Result<(), OpenError> {
        let row = BlobRow::new(segment, position, header.payload_len, header.commit);
        if !self.report.rebuilt || self.blob_counts(hash, &row)? {
            self.rows.state.push(put(hash, &row));
        }
        Ok(())
    }

    /// Reading the blob will name the place, unless there is another frame of it.
    pub(super) fn damaged_blob(&mut self, bad: BadRegion, hash: Sha256) -> Result<(), OpenError> {
        let len = bad.to.saturating_sub(bad.from).saturating_sub(crate::segments::EDGE_LEN);
        let row = BlobRow::new(bad.segment, bad.from, u32::try_from(len).unwrap_or(u32::MAX), 0);
        if self.report.rebuilt {
            // Rows of good frames that still wait count before this one as well.
            self.apply()?;
        }
        if !self.report.rebuilt || self.blob_counts(hash, &row)? {
            self.rows.state.push(put(hash, &row));
        }
        self.report.damage.push(bad);
        Ok(())
    }

    /// Whether no other frame of the blob that the index knows counts before this one.
    fn blob_counts(&self, hash: Sha256, row: &BlobRow) -> Result<bool, OpenError> {
        let known = self.index.blob(&hash.0)?;
        Ok(known.is_none_or(|known| row.counts_before(&known)))
    }

    /// The row of a cleaned segment's good blob frame, as a change; none when another frame counts, or the blob is gone.
    pub(super) fn cleaned_blob(
        &self,
        segment: SegmentNumber,
        position: u64,
        header: &FrameHeader,
        payload: &[u8],
        changes: &mut Changes,
    ) -> Result<(), OpenError> {
        let Some(hash) = blob_in(header, payload) else { return Ok(()) };
        self.cleaned_blob_row(hash, BlobRow::new(segment, position, header.payload_len, header.commit), changes)
    }

    fn cleaned_blob_row(&self, hash: Sha256, row: BlobRow, changes: &mut Changes) -> Result<(), OpenError> {
        // While an index is built anew there is no state to ask yet.
        let alive = self.report.rebuilt || is_inline(self.index, hash)?;
        if alive && self.blob_counts(hash, &row)? {
            changes.state.push(put(hash, &row));
        }
        Ok(())
    }

    /// A cleaned segment's bad blob frame.
    pub(super) fn bad_cleaned_blob(
        &mut self,
        bad: BadRegion,
        hash: Sha256,
        payload_len: u32,
        changes: &mut Changes,
    ) -> Result<(), OpenError> {
        self.cleaned_blob_row(hash, BlobRow::new(bad.segment, bad.from, payload_len, 0), changes)?;
        self.report.damage.push(bad);
        Ok(())
    }

    /// Takes the rows of blobs out that no state record calls inline: they were deleted, and their frames are still there.
    pub(super) fn drop_dead_blobs(&self) -> Result<(), OpenError> {
        let mut changes = Changes::default();
        for blob in self.index.inline_blobs() {
            let (hash, _) = blob?;
            if !is_inline(self.index, hash)? {
                changes.state.push((StateKeyspace::Blobs, hash_key(hash), None));
            }
            if changes.count() >= ROWS_AT_ONCE {
                self.index.change(std::mem::take(&mut changes))?;
            }
        }
        Ok(self.index.change(changes)?)
    }

    /// Finds the blobs that a state record calls inline and that have no row: their frames do not even tell whose they were.
    pub(super) fn find_lost_blobs(&mut self) -> Result<(), OpenError> {
        for row in self.index.state_prefix(StateKeyspace::State, &StateKey::all_stored()) {
            let (key, record) = row?;
            let inline = value::<StoredRecord>(&record).is_some_and(|record| record.inline);
            let Some(StateKey::Stored(hash)) = StateKey::decode(&key).filter(|_| inline) else { continue };
            if self.index.blob(&hash.0)?.is_none() {
                let lost = &mut self.report.lost_blobs;
                lost.count += 1;
                lost.some.extend((lost.some.len() < LOST_NAMED).then_some(hash));
            }
        }
        Ok(())
    }

    /// A bad frame of a blob that is gone, or that another frame holds, is no damage.
    pub(super) fn forget_replaced_blobs(&mut self) -> Result<(), OpenError> {
        let mut kept = Vec::with_capacity(self.report.damage.len());
        for bad in std::mem::take(&mut self.report.damage) {
            let alive = match bad.blob {
                Some(hash) => {
                    let row = self.index.blob(&hash.0)?;
                    row.is_some_and(|row| row.segment() == bad.segment && row.position == bad.from)
                }
                None => true,
            };
            kept.extend(alive.then_some(bad));
        }
        self.report.damage = kept;
        Ok(())
    }
}
