//! Compaction: of each key of a compacted topic the record with the highest offset stays (`kafka.md` 6).
//!
//! A pass reads the part of a partition that was not compacted yet, up to as many keys as fit into a [`KeyMap`], then
//! goes through the whole partition up to there, in pieces of about a segment. A piece in which nothing changes is left
//! alone; of the others the changed part is written to a cleaned segment, with a claim on its range of offsets, which
//! makes the old frames void. Each piece stands for itself, so a pass that is cut short is begun again and finds less to
//! do. "Compacted up to" is where the claims end: a function of the heads of cleaned segments.
//!
//! What stays whatever its keys: the last batch of the partition, everything behind a batch younger than
//! `min.compaction.lag.ms` or outside sealed segments, records without a key, batches that cannot be read. Batches of
//! transactions end what is compacted: what is theirs to supersede is known only with the outcome.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::groups::STATE;
use super::keymap::KeyMap;
use super::write::Shape;
use super::{CleanError, Pass};
use crate::batch::{BatchError, BatchHeader, Horizon, RECORDS_LIMIT, Records, Retained, retain};
use crate::frame::{FrameHeader, frame_len};
use crate::ids::{Offset, PartitionNumber, SegmentNumber};
use crate::keys::cleaned::{Claim, Claims, CleanedHead};
use crate::keys::log::{BatchKey, BatchRow};
use crate::topics::TopicSettings;

/// How long a batch without records stays to keep its producer's sequence numbers.
const PRODUCER_MS: i64 = 86_400_000;
/// Rows of one piece.
const PIECE_ROWS: usize = 65_536;

/// What is remembered of a partition between passes; all of it can be found again.
#[derive(Default)]
pub(super) struct Compaction {
    /// Up to here no two records have one key, beyond what claims say.
    done_to: Offset,
    /// When the first tombstone may go, as it was found when the partition was last gone through.
    horizon_ms: Option<i64>,
    /// Where a batch of a transaction begins.
    barrier: Option<Offset>,
    /// Bytes of a range of offsets, counted once.
    clean_bytes: Option<((Offset, Offset), u64)>,
    /// What was found in the part not compacted yet: a pass goes on where the one before it stopped.
    dirty: Option<Dirty>,
}

/// The beginning of the part of a partition that is not compacted yet, as far as it may be.
#[derive(Clone, Copy)]
struct Dirty {
    from: Offset,
    /// One past the last offset found so far.
    end: Offset,
    bytes: u64,
    oldest_ms: i64,
    /// The `min.compaction.lag.ms` it was found with.
    min_lag_ms: i64,
}

/// A partition that is to be compacted.
struct Due {
    partition: PartitionNumber,
    start: Offset,
    dirty_from: Offset,
    end: Offset,
    delete_retention_ms: i64,
    /// From here on tombstones stay: what they are about may be in a batch below that could not be read.
    tombstones_stay_from: Offset,
    /// When the first of those that stay may go.
    horizon_ms: i64,
    /// Batches whose records cannot be read: how many, and where and why the first.
    unreadable: Option<(u64, Offset, BatchError)>,
}

impl Pass<'_> {
    /// Compacts every partition that is due.
    pub(super) fn compact(&mut self) -> Result<(), CleanError> {
        loop {
            let claims = self.memory.files.claims(None);
            let mut due = Vec::new();
            for partition in self.policies.partitions() {
                due.extend(self.due(partition, &claims)?);
            }
            // State and data do not die together.
            let (state, data): (Vec<_>, Vec<_>) =
                due.into_iter().partition(|due| self.policies.group(due.partition) == STATE);
            let Some(due) = [state, data].into_iter().find(|due| !due.is_empty()) else { return Ok(()) };
            self.compact_these(due)?;
            self.unlink()?;
        }
    }

    /// Whether a partition is to be compacted, and which part of it.
    fn due(&mut self, partition: PartitionNumber, claims: &Claims) -> Result<Option<Due>, CleanError> {
        let Some(policy) = self.policies.get(partition) else { return Ok(None) };
        let Some(settings) = policy.compaction else { return Ok(None) };
        // Bytes are counted once after opening, and must not change meanwhile.
        if settings.retention_bytes.is_some() && policy.partition.exact_bytes().is_none() {
            return Ok(None);
        }
        let offsets = policy.partition.offsets();
        let known = self.memory.compaction.entry(partition).or_default();
        // The batch that holds the log start is part of it.
        let holds = self.core.index.batch_at_or_before(partition, offsets.log_start)?;
        let holds = holds.filter(|(base, row)| row.next_offset(*base) > offsets.log_start);
        let start = holds.map_or(offsets.log_start, |(base_offset, _)| base_offset);
        let dirty_from = start.max(known.done_to).max(claims.compacted_to(partition));
        let limit = known.barrier.unwrap_or(offsets.last_stable).min(offsets.high_watermark - 1);
        let min_lag_ms = settings.min_compaction_lag_ms;
        let new = Dirty { from: dirty_from, end: dirty_from, bytes: 0, oldest_ms: i64::MAX, min_lag_ms };
        let stands = |found: &Dirty| (found.from, found.min_lag_ms) == (dirty_from, min_lag_ms) && found.end <= limit;
        let found = known.dirty.filter(stands).unwrap_or(new);
        let found = self.find_dirty(partition, found, limit, &settings)?;
        self.memory.compaction.entry(partition).or_default().dirty = Some(found);
        let dirty = found.bytes > 0
            && self.is_dirty(partition, (start, dirty_from), found.bytes, found.oldest_ms, &settings)?;
        if !(dirty || self.has_old_tombstones(partition, start, claims)) {
            return Ok(None);
        }
        let end = if dirty { found.end } else { dirty_from };
        let (delete_retention_ms, tombstones_stay_from, horizon_ms) =
            (settings.delete_retention_ms, Offset::MAX, i64::MAX);
        let unreadable = None;
        Ok(Some(Due {
            partition,
            start,
            dirty_from,
            end,
            delete_retention_ms,
            tombstones_stay_from,
            horizon_ms,
            unreadable,
        }))
    }

    /// How far beyond what was `found` before a partition may be compacted, `limit` at most.
    fn find_dirty(
        &mut self,
        partition: PartitionNumber,
        mut found: Dirty,
        limit: Offset,
        settings: &TopicSettings,
    ) -> Result<Dirty, CleanError> {
        let min_lag_ms = found.min_lag_ms;
        let active_ms = settings.segment_ms.min(settings.max_compaction_lag_ms.unwrap_or(i64::MAX));
        for row in self.core.index.batches_from(partition, found.end) {
            let (base_offset, row) = row?;
            self.memory.rows_looked_at += 1;
            let (next, stamp_ms) = (row.next_offset(base_offset), stamp(&row));
            // How old a record is, is not known while the clock is not trusted.
            let young = min_lag_ms > 0 && (!self.trusted || stamp_ms > self.now_ms.saturating_sub(min_lag_ms));
            let sealed = self.memory.files.sealed.contains_key(&row.segment());
            if !sealed && stamp_ms.saturating_add(active_ms) <= self.now_ms {
                self.core.cleaner.roll.store(true, Ordering::Relaxed);
            }
            if next > limit || young || !sealed {
                break;
            }
            found.end = next;
            found.bytes += frame_len(row.payload_len);
            found.oldest_ms = found.oldest_ms.min(stamp_ms);
        }
        Ok(found)
    }

    /// Whether there is enough to compact, or it has waited long enough.
    fn is_dirty(
        &mut self,
        partition: PartitionNumber,
        clean: (Offset, Offset),
        dirty_bytes: u64,
        oldest_ms: i64,
        settings: &TopicSettings,
    ) -> Result<bool, CleanError> {
        if settings.max_compaction_lag_ms.is_some_and(|lag| oldest_ms.saturating_add(lag) <= self.now_ms) {
            return Ok(true);
        }
        let known = self.memory.compaction.entry(partition).or_default();
        let clean_bytes = match known.clean_bytes {
            Some((range, bytes)) if range == clean => bytes,
            Some(_) | None => {
                let mut bytes = 0;
                for row in self.core.index.batches_from(partition, clean.0) {
                    let (base_offset, row) = row?;
                    if base_offset >= clean.1 {
                        break;
                    }
                    bytes += frame_len(row.payload_len);
                }
                known.clean_bytes = Some((clean, bytes));
                bytes
            }
        };
        Ok(share(dirty_bytes, dirty_bytes + clean_bytes) >= settings.min_cleanable_dirty_ratio)
    }

    /// Whether tombstones may go now. Before a partition was gone through heads tell, which say when the first of all
    /// that are in a segment may go.
    fn has_old_tombstones(&self, partition: PartitionNumber, start: Offset, claims: &Claims) -> bool {
        if !self.trusted {
            return false;
        }
        if let Some(at) = self.memory.compaction.get(&partition).and_then(|known| known.horizon_ms) {
            return at <= self.now_ms;
        }
        let heads = self.memory.files.sealed.values().filter_map(|sealed| sealed.head.as_ref());
        let heads = heads.filter(|head| head.horizon_ms() <= self.now_ms);
        let mut old = heads.flat_map(|head| &head.claims).filter(|claim| claim.partition() == partition);
        // One that a later segment covers is not about what is there now.
        old.any(|c| {
            let later = SegmentNumber(c.below().0.saturating_add(1));
            !claims.uncovered(partition, c.from.max(start), c.to, later).is_empty()
        })
    }

    fn compact_these(&mut self, mut due: Vec<Due>) -> Result<(), CleanError> {
        let mut map = KeyMap::new(self.core.options.cleaner.key_map_bytes);
        let mut count = 0;
        while let Some(next) = due.get_mut(count).filter(|_| !map.is_full()) {
            self.read_keys(next, &mut map)?;
            count += 1;
        }
        due.truncate(count);
        let mut piece = Piece::default();
        for at in 0..due.len() {
            let Some(Due { partition, start, end, .. }) = due.get(at) else { break };
            let (partition, end) = (*partition, *end);
            for row in self.core.index.batches_from(partition, *start) {
                let (base_offset, row) = row?;
                if base_offset >= end {
                    break;
                }
                if piece.bytes >= self.core.options.segment_bytes || piece.rows.len() >= PIECE_ROWS {
                    self.write_piece(std::mem::take(&mut piece), &mut due, &map)?;
                }
                piece.bytes += frame_len(row.payload_len);
                piece.rows.push((at, BatchKey { partition, base_offset }, row));
            }
        }
        self.write_piece(piece, &mut due, &map)?;
        for Due { partition, end, horizon_ms, unreadable, .. } in due {
            if let (Some((batches, offset, error)), Some(policy)) = (unreadable, self.policies.get(partition)) {
                let partition = policy.partition.name();
                tracing::warn!(%partition, batches, offset, %error,
                    "compaction left batches as they are whose records cannot be read; offset and error are of the first");
            }
            let known = self.memory.compaction.entry(partition).or_default();
            known.done_to = known.done_to.max(end);
            known.horizon_ms = Some(horizon_ms);
        }
        Ok(())
    }

    /// Puts the keys of the dirty part into the map, and ends that part where the map is full.
    fn read_keys(&mut self, due: &mut Due, map: &mut KeyMap) -> Result<(), CleanError> {
        let partition = due.partition;
        for row in self.core.index.batches_from(partition, due.dirty_from) {
            let (base_offset, row) = row?;
            if base_offset >= due.end {
                break;
            }
            if map.is_full() {
                due.end = base_offset;
                break;
            }
            let Some((_, batch)) = self.read_frame(BatchKey { partition, base_offset }, &row)? else { continue };
            if is_transactional(&batch) {
                due.end = base_offset;
                self.memory.compaction.entry(partition).or_default().barrier = Some(base_offset);
                break;
            }
            // One that cannot be read to its end supersedes nothing.
            let Ok(records) = Records::of(&batch).and_then(Iterator::collect::<Result<Vec<_>, _>>) else { continue };
            for record in records {
                record.key.into_iter().for_each(|key| map.put(partition, &key, record.offset));
            }
        }
        Ok(())
    }

    /// Writes what changes in a piece.
    fn write_piece(&mut self, piece: Piece, due: &mut [Due], map: &KeyMap) -> Result<(), CleanError> {
        let mut ranges = Ranges::default();
        for (at, key, row) in &piece.rows {
            let Some(due) = due.get_mut(*at) else { continue };
            let Some((header, batch)) = self.read_frame(*key, row)? else {
                due.tombstones_stay_from = due.tombstones_stay_from.min(key.base_offset);
                ranges.end();
                continue;
            };
            match shape(due, map, (self.now_ms, self.trusted), &header, &batch) {
                Ok((shape, outcome)) => {
                    // What is old and stays has to stay; as long as the clock is not trusted, it is looked at again.
                    let horizon_ms = outcome.horizon_ms.filter(|at| *at > self.now_ms || !self.trusted);
                    due.horizon_ms = due.horizon_ms.min(horizon_ms.unwrap_or(i64::MAX));
                    ranges.add(*key, *row, !matches!(shape, Shape::Same));
                }
                Err(error) => {
                    let (batches, ..) = due.unreadable.get_or_insert((0, key.base_offset, error));
                    *batches += 1;
                    due.tombstones_stay_from = due.tombstones_stay_from.min(key.base_offset);
                    ranges.end();
                }
            }
        }
        ranges.end();
        let (moves, claimed) = (ranges.moves, ranges.claimed);
        let Some((first, _)) = moves.first() else { return Ok(()) };
        let (group, number) = (self.policies.group(first.partition), self.core.keeper.take_number());
        let claims = claimed.into_iter().map(|(p, from, to)| Claim::new(p, from, to, number)).collect();
        let by_partition: HashMap<_, _> = due.iter().map(|due| (due.partition, due)).collect();
        let (now, mut removed) = ((self.now_ms, self.trusted), 0);
        let mut each = |header: &FrameHeader, batch: &Bytes, head: &mut CleanedHead| {
            let shaped = by_partition.get(&header.partition).map(|due| shape(due, map, now, header, batch));
            let Some(Ok((shape, outcome))) = shaped else { return Shape::Same };
            removed += outcome.removed;
            outcome.horizon_ms.into_iter().for_each(|ms| head.note_horizon(ms));
            shape
        };
        let head = CleanedHead::new(group, self.marker.applied, claims);
        if !self.write_cleaned(number, head, &moves, true, &mut each)? {
            return Err(std::io::Error::other("a batch that was good cannot be read any more").into());
        }
        self.report.removed_records += removed;
        Ok(())
    }
}

/// A part of what is gone through, of one or more partitions.
#[derive(Default)]
struct Piece {
    rows: Vec<(usize, BatchKey, BatchRow)>,
    bytes: u64,
}

/// The changed parts of a piece: from the first change to the last, of each partition and between unreadable batches.
#[derive(Default)]
struct Ranges {
    moves: Vec<(BatchKey, BatchRow)>,
    claimed: Vec<(PartitionNumber, Offset, Offset)>,
    open: Vec<(BatchKey, BatchRow, bool)>,
}

impl Ranges {
    fn add(&mut self, key: BatchKey, row: BatchRow, changes: bool) {
        if self.open.first().is_some_and(|(first, ..)| first.partition != key.partition) {
            self.end();
        }
        if changes || !self.open.is_empty() {
            self.open.push((key, row, changes));
        }
    }

    fn end(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        while open.pop_if(|(.., changes)| !*changes).is_some() {}
        if let (Some((first, ..)), Some((last, row, _))) = (open.first(), open.last()) {
            let to = row.next_offset(last.base_offset);
            self.claimed.push((first.partition, first.base_offset, to));
            self.moves.extend(open.iter().map(|(key, row, _)| (*key, *row)));
        }
    }
}

/// What compacting one batch did.
struct Outcome {
    removed: u64,
    /// When a tombstone that stays may go.
    horizon_ms: Option<i64>,
}

/// What becomes of a batch, by a clock that is trusted or not: then nothing goes by age, and nothing is given a time to
/// go.
fn shape(
    due: &Due,
    map: &KeyMap,
    (now_ms, trusted): (i64, bool),
    frame: &FrameHeader,
    batch: &Bytes,
) -> Result<(Shape, Outcome), BatchError> {
    let header = BatchHeader::read(batch)?;
    let (mut removed, mut tombstones) = (0, false);
    if is_transactional(batch) {
        return Ok((Shape::Same, Outcome { removed, horizon_ms: None }));
    }
    let old = trusted
        && header.delete_horizon().is_some_and(|at| at <= now_ms)
        && header.base_offset < due.tombstones_stay_from;
    let horizon = match trusted {
        true => Horizon::WithTombstones(now_ms.saturating_add(due.delete_retention_ms)),
        false => Horizon::Unchanged,
    };
    let retained = retain(batch, RECORDS_LIMIT, horizon, |record| {
        let Some(key) = &record.key else { return true };
        let goes = map.supersedes(due.partition, key, record.offset) || old && record.value.is_none();
        removed += u64::from(goes);
        tombstones |= !goes && record.value.is_none();
        !goes
    })?;
    let shape = match retained {
        Retained::All => Shape::Same,
        Retained::Some(new) => Shape::New(new),
        // It still says how far its producer has come.
        Retained::None(empty)
            if header.producer_id >= 0 && (!trusted || frame.append_time_ms.saturating_add(PRODUCER_MS) > now_ms) =>
        {
            if empty == *batch {
                Shape::Same
            } else {
                Shape::New(empty)
            }
        }
        Retained::None(_) => Shape::Gone,
    };
    let after = match &shape {
        Shape::New(new) => BatchHeader::read(new)?.delete_horizon(),
        Shape::Same => header.delete_horizon(),
        Shape::Gone => None,
    };
    // Those without a time are given one as soon as that is possible.
    let after = if trusted { after } else { Some(after.unwrap_or(0)) };
    Ok((shape, Outcome { removed, horizon_ms: after.filter(|_| tombstones) }))
}

fn is_transactional(batch: &Bytes) -> bool {
    BatchHeader::read(batch).is_ok_and(|header| header.is_transactional() || header.is_control())
}

/// The time a batch's age is counted from: its own, but not later than when it was appended.
fn stamp(row: &BatchRow) -> i64 {
    match row.append_time_ms() {
        Some(seen) if row.max_timestamp < 0 => seen,
        Some(seen) => seen.min(row.max_timestamp),
        None => row.max_timestamp,
    }
}

/// `part` of `whole` as a fraction; 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    // Thousandths are exact enough, and no 64 bits need to fit into a float.
    let thousandths = part.saturating_mul(1000).checked_div(whole).unwrap_or(0);
    f64::from(u32::try_from(thousandths).unwrap_or(1000)) / 1000.0
}
