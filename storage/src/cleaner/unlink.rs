//! Unlinking segments in which nothing is alive.

use super::live::Sealed;
use super::{CleanError, Pass};
use crate::frame::{FrameHeader, FrameKind, frame_len};
use crate::fs::FsFile;
use crate::ids::{SegmentNumber, Sha256};
use crate::index::Changes;
use crate::inline::prefix_at;
use crate::keys::blob::BlobRow;
use crate::keys::cleaned::Claim;
use crate::keys::log::{BatchKey, BatchRow};
use crate::segments::walk_headers;
use crate::store::Durability;

/// What a walk over a segment's headers found.
pub(super) struct Walked {
    /// Every header could be read, and nothing is in it that has no rows.
    pub(super) clean: bool,
    /// Frames that rows name, in order; not all when `more` is set.
    pub(super) alive: Vec<(BatchKey, BatchRow)>,
    /// The same of inline blobs.
    pub(super) blobs: Vec<(Sha256, BlobRow)>,
    /// There are more than were asked for.
    pub(super) more: bool,
}

impl Walked {
    pub(super) fn count(&self) -> usize {
        self.alive.len() + self.blobs.len()
    }

    /// Bytes of the frames in it.
    pub(super) fn bytes(&self) -> u64 {
        let batches: u64 = self.alive.iter().map(|(_, row)| frame_len(row.payload_len)).sum();
        batches + self.blobs.iter().map(|(_, row)| frame_len(row.payload_len)).sum::<u64>()
    }
}

/// Bytes a header costs to look at, about: a small read and a look into the index.
const HEADER_COST: u64 = 1024;

impl Pass<'_> {
    /// The live frames of a segment, up to `limit` of them.
    pub(super) fn walk(&self, number: SegmentNumber, limit: usize) -> Result<Walked, CleanError> {
        let file = self.core.segments.open(number)?;
        let mut walked = Walked { clean: true, alive: Vec::new(), blobs: Vec::new(), more: false };
        let mut unknown = false;
        let complete = walk_headers(file.as_ref(), number, |position, header: FrameHeader| {
            self.pace.spend_on_reading(HEADER_COST)?;
            match header.kind {
                FrameKind::Batch => {}
                FrameKind::Padding => return Ok(()),
                FrameKind::Blob => {
                    unknown |= !self.walk_blob(file.as_ref(), (number, position), limit, &mut walked)?;
                    return Ok(());
                }
                FrameKind::Head | FrameKind::Foot => {
                    unknown = true;
                    return Ok(());
                }
            }
            let key = BatchKey { partition: header.partition, base_offset: header.base_offset };
            let row = self.core.index.batch(key.partition, key.base_offset)?;
            match row.filter(|row| row.segment() == number && row.position == position) {
                Some(row) if walked.count() < limit => walked.alive.push((key, row)),
                Some(_) => walked.more = true,
                None => {}
            }
            Ok::<(), CleanError>(())
        })?;
        walked.clean = complete && !unknown;
        Ok(walked)
    }

    /// Takes note of a blob frame if it is alive. False when it does not say whose it is.
    fn walk_blob(
        &self,
        file: &dyn FsFile,
        (number, position): (SegmentNumber, u64),
        limit: usize,
        walked: &mut Walked,
    ) -> Result<bool, CleanError> {
        let Some(prefix) = prefix_at(file, position)? else { return Ok(false) };
        let row = self.core.index.blob(&prefix.hash.0)?;
        match row.filter(|row| row.segment() == number && row.position == position) {
            Some(row) if walked.count() < limit => walked.blobs.push((prefix.hash, row)),
            Some(_) => walked.more = true,
            None => {}
        }
        Ok(true)
    }

    /// Leaves a segment as it is from now on.
    pub(super) fn keep_as_it_is(&mut self, number: SegmentNumber) {
        if self.memory.stuck.insert(number) {
            let path = self.core.segments.path(number);
            tracing::error!(segment = %path.display(), "something in this segment cannot be read: it is not cleaned");
        }
    }

    /// Whether a claim still says something that no other segment says.
    pub(super) fn is_needed(&self, claim: &Claim, except: SegmentNumber) -> bool {
        let Some(policy) = self.policies.get(claim.partition()) else { return false };
        let from = claim.from.max(policy.partition.offsets().log_start);
        let others = self.memory.files.claims(Some(except));
        from < claim.to && !others.uncovered(claim.partition(), from, claim.to, claim.below()).is_empty()
    }

    /// Unlinks every segment that no row names and whose claims are not needed.
    pub(super) fn unlink(&mut self) -> Result<(), CleanError> {
        let mut dead = Vec::new();
        let hinted: Vec<_> = self.memory.files.sealed.iter().filter(|(n, s)| self.alive(**n, s) == 0).collect();
        let hinted: Vec<_> = hinted.into_iter().map(|(n, s)| (*n, s.clone())).collect();
        for (number, sealed) in hinted {
            let claims = sealed.head.iter().flat_map(|head| &head.claims);
            if self.memory.stuck.contains(&number) || claims.into_iter().any(|c| self.is_needed(c, number)) {
                continue;
            }
            let walked = self.walk(number, 1)?;
            if !walked.clean {
                self.keep_as_it_is(number);
            } else if walked.count() > 0 {
                self.found_alive(number, walked.bytes());
            } else {
                // Gone at once, so that of two that say the same one stays.
                self.memory.files.sealed.remove(&number);
                dead.push((number, sealed));
            }
        }
        if dead.is_empty() {
            return Ok(());
        }
        let removed = self.remove(&dead);
        if removed.is_err() {
            self.memory.files.sealed.extend(dead);
        }
        removed
    }

    /// Removes files that nothing names any more. What made them dead is durable before they go.
    fn remove(&mut self, dead: &[(SegmentNumber, Sealed)]) -> Result<(), CleanError> {
        let core = self.core;
        let cleaned = dead.iter().filter(|(n, _)| core.segments.is_cleaned(*n)).map(|(n, _)| (*n, None)).collect();
        core.index.change(Changes { cleaned, ..Changes::default() })?;
        if core.options.durability != Durability::Sync {
            self.sync_unsealed()?;
        }
        core.index.persist()?;
        let numbers: Vec<_> = dead.iter().map(|(number, _)| *number).collect();
        core.segments.remove_all(&numbers)?;
        for (number, sealed) in dead {
            core.index.forget_dead(*number);
            self.report.unlinked += 1;
            self.report.freed_bytes += sealed.len;
        }
        Ok(())
    }

    /// The state records that made something dead may be acknowledged and not yet synced: they are now.
    fn sync_unsealed(&self) -> Result<(), CleanError> {
        for number in self.core.segments.plain()? {
            if !self.memory.files.sealed.contains_key(&number) {
                self.core.segments.open(number)?.sync_data()?;
            }
        }
        Ok(())
    }
}
