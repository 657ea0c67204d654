//! Recovery where the cleaner has been at work: cleaned segments, removed segments, compacted ranges.
//!
//! Of the frames of one batch the one in the highest cleaned segment counts; a frame that a claim makes void counts no
//! more. An index that lags behind is brought forward from the cleaned segments it does not know; one that cannot be, or
//! a missing one, is built anew: rows of cleaned segments first, then those of plain ones that nothing replaces, then
//! state in offset order through them, and at last a walk over all rows that finds missing offsets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use bytes::Bytes;

use super::{BadRegion, Framed, ROWS_AT_ONCE, Recovery, header_at, io_error, log_start, marker_fits};
use crate::batch::BatchHeader;
use crate::cleaner::file::read_head;
use crate::frame::{FrameHeader, FrameKind, HEADER_LEN};
use crate::fs::{FsFile, read_exact_at};
use crate::ids::{Offset, PartitionNumber, SegmentNumber};
use crate::index::{Changes, Index, IndexError, StateKeyspace};
use crate::keys::cleaned::{Claims, CleanedHead};
use crate::keys::log::{BatchKey, BatchRow};
use crate::keys::marker::Marker;
use crate::keys::producer::ProducerKey;
use crate::keys::time::{TimeKey, enters_new_second};
use crate::segments::{EDGE_LEN, Found, Scan, Segments};
use crate::state::{FIRST_PARTITION, OFFSETS_PARTITION, STATE_PARTITION, StateKey, TopicRecord, value};
use crate::store::OpenError;

/// Whether an index and the segments belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It can be brought forward.
    Yes,
    /// It does not know what has been removed since; nothing is missing for that reason alone.
    IndexBehind,
    /// It names what the log does not have: acknowledged records are missing.
    IndexAhead,
}

/// Holds an index against the segments. `segments` have been listed.
pub(crate) fn fit(
    index: &Index,
    segments: &Segments,
    numbers: &[SegmentNumber],
    marker: Marker,
) -> Result<Fit, OpenError> {
    let fail = |error| io_error(segments.path(marker.segment()))(error);
    let later = numbers.iter().any(|n| *n > marker.segment());
    if !segments.exists(marker.segment()).map_err(fail)? && later {
        return Ok(Fit::IndexBehind);
    }
    if begins_behind(segments, marker).map_err(fail)? {
        return Ok(Fit::IndexBehind);
    }
    if !marker_fits(segments, marker).map_err(fail)? {
        return Ok(Fit::IndexAhead);
    }
    let (known, present) = (index.cleaned()?, segments.cleaned());
    if known.keys().any(|number| !present.contains(number)) {
        return Ok(Fit::IndexBehind);
    }
    // Only a number above the marker's segment can have been given twice while that segment is there.
    for (number, row) in known.iter().filter(|(number, _)| **number > marker.segment()) {
        let head = segments.open(*number).and_then(|file| read_head(&file, *number)).map_err(fail)?;
        if head.is_some_and(|head| head != *row) {
            return Ok(Fit::IndexBehind);
        }
    }
    for number in present.into_iter().filter(|n| !known.contains_key(n)) {
        let head = segments.open(number).and_then(|file| read_head(&file, number)).map_err(fail)?;
        if head.is_none_or(|head| head.last_commit > marker.applied) {
            return Ok(Fit::IndexBehind);
        }
    }
    Ok(if is_continuous(segments, numbers, marker).map_err(fail)? { Fit::Yes } else { Fit::IndexBehind })
}

/// Whether the marker's segment is another one now, under the same number.
fn begins_behind(segments: &Segments, marker: Marker) -> io::Result<bool> {
    if !segments.exists(marker.segment())? {
        return Ok(false);
    }
    let first = header_at(segments.open(marker.segment())?.as_ref(), EDGE_LEN);
    let first = first.filter(|h| h.segment == marker.segment() && h.kind != FrameKind::Foot);
    Ok(first.is_some_and(|first| first.commit > marker.applied))
}

/// Whether the commits of the sealed segments from the marker's on follow one another, as far as their edges tell.
fn is_continuous(segments: &Segments, numbers: &[SegmentNumber], marker: Marker) -> io::Result<bool> {
    let mut before = None;
    for number in numbers.iter().filter(|n| **n >= marker.segment()) {
        let file = segments.open(*number)?;
        let first = header_at(file.as_ref(), EDGE_LEN).filter(|h| h.segment == *number && h.kind != FrameKind::Foot);
        if let (Some(before), Some(first)) = (before, first)
            && first.commit > before + 1
        {
            return Ok(false);
        }
        let foot = file.len()?.checked_sub(EDGE_LEN).and_then(|at| header_at(file.as_ref(), at));
        let foot = foot.filter(|h| h.kind == FrameKind::Foot && h.segment == *number && h.commit > 0);
        before = foot.map(|foot| foot.commit);
    }
    Ok(true)
}

/// What building an index anew needs to remember.
#[derive(Default)]
pub(super) struct Rebuild {
    heads: BTreeMap<SegmentNumber, CleanedHead>,
    claims: Claims,
    /// True until the first commit of a segment.
    pub(super) at_start: bool,
    /// Regions that do not say what they held, in log order.
    pub(super) nameless: Vec<BadRegion>,
    /// Partitions with batches of idempotent producers, where these have to wait as well.
    pub(super) produced: BTreeSet<PartitionNumber>,
}

impl Rebuild {
    /// True when what depends on the order of batches has to wait for the end, because scan order is not offset order.
    pub(super) fn state_waits(&self) -> bool {
        !self.heads.is_empty()
    }
}

/// Where each partition that is there begins.
pub(crate) fn log_starts(index: &Index) -> Result<HashMap<PartitionNumber, Offset>, IndexError> {
    let mut numbers = vec![STATE_PARTITION, OFFSETS_PARTITION];
    for row in index.state_prefix(StateKeyspace::State, &StateKey::topics()) {
        let (key, bytes) = row?;
        let record = value::<TopicRecord>(&bytes);
        let record = record.ok_or_else(|| IndexError::Row { keyspace: "state", key: format!("{key:?}") })?;
        numbers.extend(record.partitions());
    }
    let start = |number| Ok((number, log_start(index, number)?));
    numbers.into_iter().map(start).collect()
}

/// Reads the frame a row names; `None` when it is not what the row says.
pub(crate) fn frame_of(file: &dyn FsFile, key: BatchKey, row: &BatchRow) -> io::Result<Option<(FrameHeader, Bytes)>> {
    let mut bytes = vec![0; HEADER_LEN + usize::try_from(row.payload_len).unwrap_or(0)];
    match read_exact_at(file, &mut bytes, row.position) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let bytes = Bytes::from(bytes);
    let Some(header) = FrameHeader::decode(&bytes) else { return Ok(None) };
    let payload = bytes.slice(HEADER_LEN..);
    let right = header.partition == key.partition
        && header.base_offset == key.base_offset
        && header.segment == row.segment()
        && header.payload_len == row.payload_len
        && crc32c::crc32c(&payload) == header.payload_crc;
    Ok(right.then_some((header, payload)))
}

impl Recovery<'_> {
    /// Takes in the heads and frames of all cleaned segments, before any plain one.
    pub(super) fn begin_rebuild(&mut self) -> Result<(), OpenError> {
        let mut rebuild = Rebuild::default();
        for number in self.segments.cleaned() {
            let path = self.segments.path(number);
            match read_head(&self.open(number)?, number).map_err(io_error(path))? {
                Some(head) => {
                    rebuild.claims.extend(head.claims.iter().copied());
                    self.report.last_commit = self.report.last_commit.max(head.last_commit);
                    rebuild.heads.insert(number, head);
                }
                None => self.report.damage.push(BadRegion::nameless(number, 0, EDGE_LEN)),
            }
        }
        let heads = rebuild.heads.clone();
        self.rebuild = Some(rebuild);
        for number in self.segments.cleaned() {
            self.take_in_cleaned(number, heads.get(&number).cloned())?;
        }
        Ok(())
    }

    /// Brings an index forward over the cleaned segments it does not know.
    pub(super) fn apply_unknown(&mut self) -> Result<(), OpenError> {
        let mut claims = Claims::default();
        let known = self.index.cleaned()?;
        let mut unknown = BTreeMap::new();
        known.values().for_each(|head| claims.extend(head.claims.iter().copied()));
        for number in self.segments.cleaned().into_iter().filter(|n| !known.contains_key(n)) {
            let head = read_head(&self.open(number)?, number).map_err(io_error(self.segments.path(number)))?;
            claims.extend(head.iter().flat_map(|head| head.claims.iter().copied()));
            unknown.insert(number, head);
        }
        let heads = BTreeMap::new();
        self.rebuild = (!unknown.is_empty()).then(|| Rebuild { heads, claims, ..Rebuild::default() });
        for (number, head) in unknown {
            self.make_void(head.as_ref())?;
            self.take_in_cleaned(number, head)?;
        }
        self.rebuild = None;
        Ok(())
    }

    /// Removes the rows that a head's claims make void.
    fn make_void(&mut self, head: Option<&CleanedHead>) -> Result<(), OpenError> {
        for claim in head.into_iter().flat_map(|head| &head.claims) {
            let mut changes = Changes::default();
            for row in self.index.batches_from(claim.partition(), claim.from) {
                let (base_offset, row) = row?;
                if base_offset >= claim.to {
                    break;
                }
                if row.segment() < claim.below() {
                    changes.gone.push(BatchKey { partition: claim.partition(), base_offset });
                }
            }
            self.index.change(changes)?;
        }
        Ok(())
    }

    /// The rows of one cleaned segment's frames, unless a later segment has them or makes them void.
    fn take_in_cleaned(&mut self, number: SegmentNumber, head: Option<CleanedHead>) -> Result<(), OpenError> {
        let path = self.segments.path(number);
        let scan = Scan::new(self.open(number)?, number, 0).map_err(io_error(path.clone()))?;
        let mut changes = Changes::default();
        for found in scan {
            match found.map_err(io_error(path.clone()))? {
                Found::Frame { header, position, payload } => {
                    self.report.append_ms = self.report.append_ms.max(header.append_time_ms);
                    self.cleaned_blob(number, position, &header, &payload, &mut changes)?;
                    let batch = BatchHeader::read(&payload).ok().filter(|_| header.kind == FrameKind::Batch);
                    let counts = header.kind == FrameKind::Batch && self.counts(number, &header, false)?;
                    if let (Some(rebuild), Some(_)) = (&mut self.rebuild, batch.and_then(|batch| batch.producer())) {
                        rebuild.produced.insert(header.partition);
                    }
                    changes.batches.extend(counts.then(|| row_of(number, position, &header, batch)));
                }
                Found::Bad { from, to, header: Some(header) } if header.kind == FrameKind::Batch => {
                    self.index.change(std::mem::take(&mut changes))?;
                    if self.counts(number, &header, true)? {
                        changes.batches.push(row_of(number, from, &header, None));
                        let end = header.base_offset + i64::from(header.last_offset_delta) + 1;
                        let lost = Some((header.partition, header.base_offset, end));
                        self.report.damage.push(BadRegion { segment: number, from, to, lost, blob: None });
                    }
                }
                Found::Bad { from, to, header } => {
                    let blob = self.bad_blob(number, from, header)?;
                    let bad = BadRegion { blob, ..BadRegion::nameless(number, from, to) };
                    match blob.zip(header) {
                        Some((hash, header)) => {
                            self.bad_cleaned_blob(bad, hash, header.payload_len, &mut changes)?;
                        }
                        None => self.report.damage.push(bad),
                    }
                }
                Found::End { sealed: true, .. } => {}
                Found::End { position, sealed: false } => {
                    self.report.damage.push(BadRegion::nameless(number, position, position));
                }
            }
            if changes.count() >= ROWS_AT_ONCE {
                self.index.change(std::mem::take(&mut changes))?;
            }
        }
        changes.cleaned.extend(head.map(|head| (number, Some(head))));
        Ok(self.index.change(changes)?)
    }

    /// Whether a cleaned segment's frame is the one that counts, as far as the index knows. A bad one gives way to any.
    fn counts(&self, number: SegmentNumber, header: &FrameHeader, bad: bool) -> Result<bool, OpenError> {
        let FrameHeader { partition, base_offset, .. } = *header;
        if self.rebuild.as_ref().is_some_and(|r| r.claims.void(partition, base_offset, number)) {
            return Ok(false);
        }
        let row = self.index.batch(partition, base_offset)?;
        let cleaned = |row: BatchRow| self.segments.is_cleaned(row.segment());
        Ok(!row.is_some_and(|row| row.segment() > number || bad && cleaned(row) && row.segment() != number))
    }

    /// Whether a plain segment's frame has been replaced or made void. Only while an index is built anew.
    pub(super) fn is_replaced(
        &self,
        segment: SegmentNumber,
        partition: PartitionNumber,
        base_offset: Offset,
    ) -> Result<bool, OpenError> {
        let Some(rebuild) = self.rebuild.as_ref().filter(|r| !r.heads.is_empty()) else { return Ok(false) };
        if rebuild.claims.void(partition, base_offset, segment) {
            return Ok(true);
        }
        let row = self.index.batch(partition, base_offset)?;
        Ok(row.is_some_and(|row| self.segments.is_cleaned(row.segment())))
    }

    /// Completes an index built anew: state, what is below a log start, missing offsets, time rows, the marker.
    pub(super) fn finish_rebuild(&mut self) -> Result<(), OpenError> {
        let Some(rebuild) = self.rebuild.take() else { return Ok(()) };
        if rebuild.state_waits() {
            self.replay_state()?;
        }
        self.drop_dead_blobs()?;
        self.find_lost_blobs()?;
        let starts = log_starts(self.index)?;
        let kept = |bad: &BadRegion| {
            bad.lost.is_none_or(|(partition, _, end)| starts.get(&partition).is_some_and(|start| end > *start))
        };
        self.report.damage.retain(kept);
        let mut next = PartitionNumber(0);
        while let Some(partition) = self.index.partition_at_or_after(next)? {
            self.walk_rows(partition, starts.get(&partition).copied(), &rebuild)?;
            next = PartitionNumber(partition.0 + 1);
        }
        self.put_producers()?;
        if let Some(marker) = self.marker {
            self.index.mark(marker)?;
        }
        Ok(())
    }

    /// Newest value of each key of the internal topics, in offset order.
    fn replay_state(&mut self) -> Result<(), OpenError> {
        for partition in [STATE_PARTITION, OFFSETS_PARTITION] {
            for row in self.index.batches_from(partition, 0) {
                let (base_offset, row) = row?;
                let (segment, position) = (row.segment(), row.position);
                let file = self.segments.open(segment).map_err(io_error(self.segments.path(segment)))?;
                let frame = frame_of(file.as_ref(), BatchKey { partition, base_offset }, &row);
                let frame = frame.map_err(io_error(self.segments.path(segment)))?;
                let damaged = || OpenError::StateDamaged { segment, position, offset: base_offset };
                let (header, payload) = frame.ok_or_else(damaged)?;
                let framed = Framed { header, position, max_timestamp: -1, produced: None, state: None, blob: None };
                self.state_rows(segment, &framed, &payload)?;
                if self.rows.count() >= ROWS_AT_ONCE {
                    self.put_state()?;
                }
            }
            self.put_state()?;
        }
        Ok(())
    }

    fn put_state(&mut self) -> Result<(), OpenError> {
        let state = std::mem::take(&mut self.rows.state);
        Ok(self.index.change(Changes { state, ..Changes::default() })?)
    }

    /// One partition's rows in offset order: removes those below the log start, finds missing offsets, makes time rows.
    /// `start` is `None` when its topic is gone.
    fn walk_rows(
        &mut self,
        partition: PartitionNumber,
        start: Option<Offset>,
        rebuild: &Rebuild,
    ) -> Result<(), OpenError> {
        let (mut changes, mut last_time_row, mut dead_time) = (Changes::default(), -1, None);
        let (mut end, mut place) = (start.unwrap_or(0), (SegmentNumber(0), 0));
        for row in self.index.batches_from(partition, 0) {
            let (base_offset, row) = row?;
            let next = row.next_offset(base_offset);
            let dead = start.is_none_or(|start| next <= start);
            if dead {
                changes.gone.push(BatchKey { partition, base_offset });
            } else {
                for (from, to) in rebuild.claims.uncovered(partition, end, base_offset, SegmentNumber(0)) {
                    self.missing(rebuild, partition, (from, to), place, (row.segment(), row.position))?;
                }
                (end, place) = (next, (row.segment(), row.position));
                if rebuild.produced.contains(&partition) {
                    self.replay_producer(BatchKey { partition, base_offset }, &row)?;
                }
            }
            if enters_new_second(last_time_row, row.max_timestamp) {
                last_time_row = row.max_timestamp;
                let time = (TimeKey { partition, timestamp: last_time_row }, base_offset);
                dead_time = dead.then_some(time);
                changes.times.extend((!dead).then_some(time));
            }
            if changes.count() >= ROWS_AT_ONCE {
                self.index.change(std::mem::take(&mut changes))?;
            }
        }
        // A partition's last time row stays, as in a sweep: what comes later is held against it.
        changes.times.extend(dead_time.filter(|_| start.is_some()));
        Ok(self.index.change(changes)?)
    }

    /// What a batch says of its producer.
    fn replay_producer(&mut self, key: BatchKey, row: &BatchRow) -> Result<(), OpenError> {
        let path = || self.segments.path(row.segment());
        let file = self.segments.open(row.segment()).map_err(io_error(path()))?;
        // A damaged one is named elsewhere.
        let Some((frame, batch)) = frame_of(file.as_ref(), key, row).map_err(io_error(path()))? else { return Ok(()) };
        let batch = BatchHeader::read(&batch).ok().filter(|batch| batch.producer().is_some());
        if let Some(batch) = batch {
            let producer = ProducerKey { partition: key.partition, producer_id: batch.producer_id };
            self.producers.replay(self.index, producer, &batch, (key.base_offset, frame.append_time_ms))?;
        }
        if self.producers.is_full() {
            self.put_producers()?;
        }
        Ok(())
    }

    fn put_producers(&mut self) -> Result<(), OpenError> {
        Ok(self.index.change(Changes { producers: self.producers.take(), ..Changes::default() })?)
    }

    /// Reports offsets that no frame holds between two that are there; they were where something unreadable lies.
    fn missing(
        &mut self,
        rebuild: &Rebuild,
        partition: PartitionNumber,
        (from, to): (Offset, Offset),
        after: (SegmentNumber, u64),
        before: (SegmentNumber, u64),
    ) -> Result<(), OpenError> {
        let between = |bad: &&BadRegion| (bad.segment, bad.from) > after && (bad.segment, bad.from) < before;
        let (segment, position) = before;
        let here = BadRegion::nameless(segment, position, position);
        let place = rebuild.nameless.iter().rfind(between).cloned().unwrap_or(here);
        if partition < FIRST_PARTITION {
            let (segment, position) = (place.segment, place.from);
            return Err(OpenError::StateDamaged { segment, position, offset: from });
        }
        let named = BadRegion { lost: Some((partition, from, to)), ..place.clone() };
        match self.report.damage.iter_mut().find(|bad| **bad == place) {
            Some(bad) => *bad = named,
            None => self.report.damage.push(named),
        }
        Ok(())
    }
}

fn row_of(
    number: SegmentNumber,
    position: u64,
    header: &FrameHeader,
    batch: Option<BatchHeader>,
) -> (BatchKey, BatchRow) {
    let FrameHeader { partition, base_offset, payload_len, last_offset_delta, .. } = *header;
    let max_timestamp = batch.map_or(-1, |batch| batch.max_timestamp);
    let row = BatchRow::new(number, position, payload_len, last_offset_delta, max_timestamp);
    let row = if batch.is_some() { row.appended_at(header.append_time_ms) } else { row };
    let row = if batch.is_some_and(|batch| batch.count == 0) { row.without_records() } else { row };
    (BatchKey { partition, base_offset }, row)
}
