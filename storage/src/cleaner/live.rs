//! Where to look: the sealed segments and about how many bytes of each are alive.
//!
//! The index counts the bytes of frames whose rows it lost; a scan of all rows, once after opening, tells what was lost
//! before. The counts are hints: nothing is unlinked or moved without a walk that asks the index itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{CleanError, Pass};
use crate::frame::{FrameKind, frame_len};
use crate::ids::{PartitionNumber, SegmentNumber};
use crate::keys::cleaned::{Claims, CleanedHead};
use crate::recover::header_at;
use crate::segments::EDGE_LEN;

/// A sealed segment.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    /// Length of the file.
    pub(super) len: u64,
    /// Bytes of its frames.
    frame_bytes: u64,
    /// Bytes of frames that were dead when it was first looked at.
    dead_before: u64,
    /// What it says of itself, when it is a cleaned one.
    pub(super) head: Option<CleanedHead>,
}

/// The sealed segments.
#[derive(Default)]
pub(super) struct Files {
    scanned: bool,
    pub(super) sealed: BTreeMap<SegmentNumber, Sealed>,
}

impl Files {
    /// All claims of cleaned segments, but for those of `except`.
    pub(super) fn claims(&self, except: Option<SegmentNumber>) -> Claims {
        let mut claims = Claims::default();
        let others = self.sealed.iter().filter(|(number, _)| Some(**number) != except);
        claims
            .extend(others.filter_map(|(_, sealed)| sealed.head.as_ref()).flat_map(|head| head.claims.iter().copied()));
        claims
    }

    /// A cleaned segment just written.
    pub(super) fn add_cleaned(&mut self, number: SegmentNumber, len: u64, frame_bytes: u64, head: CleanedHead) {
        self.sealed.insert(number, Sealed { len, frame_bytes, dead_before: 0, head: Some(head) });
    }
}

/// Rows looked at between two questions whether to stop.
const ROWS_AT_ONCE: usize = 4096;
/// Bytes a row takes, about.
const ROW_BYTES: u64 = 64;

impl Pass<'_> {
    /// Takes note of segments sealed since the last pass; after opening, counts what is alive in each.
    pub(super) fn look(&mut self) -> Result<(), CleanError> {
        let segments = &self.core.segments;
        let known = self.core.index.cleaned()?;
        let present: BTreeSet<_> = segments.cleaned().into_iter().chain(segments.plain()?).collect();
        self.memory.files.sealed.retain(|number, _| present.contains(number));
        let mut fresh = Vec::new();
        for number in present {
            if self.memory.files.sealed.contains_key(&number) {
                continue;
            }
            let head = known.get(&number).cloned();
            // The marker's segment says where the log ends; the index needs it.
            if head.is_none() && (segments.is_cleaned(number) || number >= self.marker.segment()) {
                continue;
            }
            let file = segments.open(number)?;
            let len = file.len()?;
            let edges = match &head {
                Some(head) => Some(super::file::edges_len(head)),
                None => {
                    let foot = len.checked_sub(EDGE_LEN).and_then(|at| header_at(file.as_ref(), at));
                    foot.filter(|foot| foot.kind == FrameKind::Foot && foot.segment == number).map(|_| 2 * EDGE_LEN)
                }
            };
            let Some(edges) = edges else { continue };
            let frame_bytes = len.saturating_sub(edges);
            self.memory.files.sealed.insert(number, Sealed { len, frame_bytes, dead_before: 0, head });
            fresh.push(number);
        }
        if !self.memory.files.scanned {
            let alive = self.count_alive()?;
            for number in fresh {
                let alive = alive.get(&number).copied().unwrap_or(0);
                if let Some(sealed) = self.memory.files.sealed.get_mut(&number) {
                    sealed.dead_before = sealed.frame_bytes.saturating_sub(alive);
                }
            }
            self.memory.files.scanned = true;
        }
        Ok(())
    }

    /// Bytes of frames that rows name, per segment.
    fn count_alive(&self) -> Result<BTreeMap<SegmentNumber, u64>, CleanError> {
        let mut alive: BTreeMap<SegmentNumber, u64> = BTreeMap::new();
        let mut next = PartitionNumber(0);
        while let Some(partition) = self.core.index.partition_at_or_after(next)? {
            for (row, count) in self.core.index.batches_from(partition, 0).zip(1_usize..) {
                let (_, row) = row?;
                *alive.entry(row.segment()).or_default() += frame_len(row.payload_len);
                if count.is_multiple_of(ROWS_AT_ONCE) {
                    self.pace.spend(ROW_BYTES * u64::try_from(ROWS_AT_ONCE).unwrap_or(0))?;
                }
            }
            next = PartitionNumber(partition.0 + 1);
        }
        for (blob, count) in self.core.index.inline_blobs().zip(1_usize..) {
            let (_, row) = blob?;
            *alive.entry(row.segment()).or_default() += frame_len(row.payload_len);
            if count.is_multiple_of(ROWS_AT_ONCE) {
                self.pace.spend(ROW_BYTES * u64::try_from(ROWS_AT_ONCE).unwrap_or(0))?;
            }
        }
        Ok(alive)
    }

    /// About how many bytes of a sealed segment are alive.
    pub(super) fn alive(&self, number: SegmentNumber, sealed: &Sealed) -> u64 {
        sealed.frame_bytes.saturating_sub(sealed.dead_before).saturating_sub(self.core.index.dead_bytes(number))
    }

    /// Whether so little of a segment is alive that it is worth rewriting.
    pub(super) fn is_sparse(&self, number: SegmentNumber, sealed: &Sealed) -> bool {
        let alive = self.alive(number, sealed);
        let percent = self.core.options.cleaner.min_live_percent.min(100);
        alive < sealed.frame_bytes && alive.saturating_mul(100) < sealed.frame_bytes.saturating_mul(percent)
    }

    /// Corrects the hint by what a walk found.
    pub(super) fn found_alive(&mut self, number: SegmentNumber, alive: u64) {
        let dead = self.core.index.dead_bytes(number);
        if let Some(sealed) = self.memory.files.sealed.get_mut(&number) {
            sealed.dead_before = sealed.frame_bytes.saturating_sub(dead).saturating_sub(alive);
        }
    }
}
