//! Recovery: brings the index forward from the log, cuts a torn tail, names damage.
//!
//! Let S be the highest commit that any good frame or the marker calls synced. A bad or missing frame in a commit up to
//! S is damage; from the first incomplete commit after S on everything is a torn tail. Keeps the law NO-SKIP.

mod blobs;
pub(crate) mod cleaned;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{BatchHeader, Records};
use crate::frame::{ALIGNMENT, FrameHeader, FrameKind};
use crate::fs::{Fs, FsFile, read_exact_at};
use crate::ids::{CommitNumber, Offset, PartitionNumber, SegmentNumber, Sha256};
use crate::index::{Changes, Index, IndexError, Rows, StateKeyspace};
use crate::inline::{blob_in, row_of_dead_frame};
use crate::keys::log::{BatchKey, BatchRow};
use crate::keys::marker::Marker;
use crate::keys::producer::ProducerKey;
use crate::keys::time::{TimeKey, enters_new_second};
use crate::producers::Replay;
use crate::segments::{EDGE_LEN, Found, Scan, Sealing, Segments};
use crate::state::{DamageRecord, FIRST_PARTITION, OFFSETS_PARTITION, STATE_PARTITION, StateKey, value};
use crate::store::OpenError;

/// How many full segments may wait to be sealed when the process ends.
const SEALING_BEHIND: usize = 8;
/// Rows put into the index at once while replaying.
const ROWS_AT_ONCE: usize = 16_384;

/// Bytes of a segment that hold no good frame although a commit up to S should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRegion {
    /// The segment.
    pub segment: SegmentNumber,
    /// Where it begins, bytes from the segment's start.
    pub from: u64,
    /// Where the next good frame begins.
    pub to: u64,
    /// The partition and offsets it held, where they are known.
    pub lost: Option<(PartitionNumber, Offset, Offset)>,
    /// The inline blob it held, where that is known.
    pub blob: Option<Sha256>,
}

impl BadRegion {
    /// A region that does not say what it held.
    pub(crate) fn nameless(segment: SegmentNumber, from: u64, to: u64) -> Self {
        Self { segment, from, to, lost: None, blob: None }
    }
}

/// Inline blobs of which the log has no frame, good or bad.
#[derive(Clone, Debug, Default)]
pub struct LostBlobs {
    /// How many there are.
    pub count: u64,
    /// Some of them: 1,000 at most.
    pub some: Vec<Sha256>,
}

/// What recovery did and found.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Commits replayed into the index.
    pub replayed_commits: u64,
    /// True when the index was built anew from the segments.
    pub rebuilt: bool,
    /// Bytes of a torn tail, kept in `lost+found`.
    pub torn_bytes: u64,
    /// Damage found in this run.
    pub damage: Vec<BadRegion>,
    /// Inline blobs of which the log was found to have no frame.
    pub lost_blobs: LostBlobs,
    /// The last commit in the log.
    pub last_commit: CommitNumber,
    /// Append time of the newest frame seen, milliseconds since 1970.
    pub append_ms: i64,
    /// The number for the next segment.
    pub next_segment: u32,
}

impl Recovered {
    /// Inline blobs found that cannot be read.
    #[must_use]
    pub fn damaged_blobs(&self) -> u64 {
        let bad = self.damage.iter().filter(|bad| bad.blob.is_some()).count();
        self.lost_blobs.count + u64::try_from(bad).unwrap_or(u64::MAX)
    }
}

/// A frame as recovery needs it.
struct Framed {
    header: FrameHeader,
    position: u64,
    max_timestamp: i64,
    /// The header of a batch of an idempotent producer.
    produced: Option<BatchHeader>,
    /// The payload of a state record batch.
    state: Option<Bytes>,
    /// The blob that a blob frame holds.
    blob: Option<Sha256>,
}

/// One commit on the way through recovery.
struct Commit {
    number: CommitNumber,
    segment: SegmentNumber,
    start: u64,
    end: u64,
    frames: Vec<Framed>,
    bad: Vec<BadRegion>,
    complete: bool,
    /// The commits before it may have been removed with the segments that held them.
    after_gap: bool,
}

impl Commit {
    /// Bad bytes that tell nothing of any commit.
    fn is_noise(&self) -> bool {
        self.frames.is_empty() && self.bad.iter().all(|bad| bad.lost.is_none() && bad.blob.is_none())
    }

    /// Whether nothing is missing between it and the commit before `expected`.
    fn follows(&self, expected: CommitNumber) -> bool {
        self.number == expected || self.after_gap && self.number > expected
    }

    fn whole(&self) -> bool {
        self.complete && self.bad.is_empty() && self.frames.iter().zip(0..).all(|(f, n)| f.header.ordinal == n)
    }
}

/// Where a partition ends, as far as recovery has come.
#[derive(Clone, Copy)]
struct End {
    offset: Offset,
    last_time_row: i64,
    /// Where its last frame begins.
    place: (SegmentNumber, u64),
}

/// What a scan learned of a segment as a whole.
struct Span {
    salt: u32,
    end: u64,
    sealed: bool,
}

pub(crate) struct Recovery<'a> {
    pub(crate) fs: &'a Arc<dyn Fs>,
    pub(crate) segments: &'a Segments,
    pub(crate) index: &'a Index,
    pub(crate) lost_and_found: &'a Path,
    synced: CommitNumber,
    expected: CommitNumber,
    waiting: VecDeque<Commit>,
    rows: Rows,
    producers: Replay,
    marker: Option<Marker>,
    ends: HashMap<PartitionNumber, End>,
    report: Recovered,
    /// The newest region that does not say what it held.
    bad: Option<BadRegion>,
    spans: BTreeMap<SegmentNumber, Span>,
    /// Set while the index is built anew.
    rebuild: Option<cleaned::Rebuild>,
}

fn io_error(path: PathBuf) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::Io { path, error }
}

impl<'a> Recovery<'a> {
    /// `synced`: a commit known to be synced from elsewhere.
    pub(crate) fn new(
        fs: &'a Arc<dyn Fs>,
        segments: &'a Segments,
        index: &'a Index,
        lost_and_found: &'a Path,
        synced: CommitNumber,
    ) -> Self {
        Self {
            fs,
            segments,
            index,
            lost_and_found,
            synced,
            bad: None,
            expected: 1,
            waiting: VecDeque::new(),
            rows: Rows::default(),
            producers: Replay::default(),
            marker: None,
            ends: HashMap::new(),
            report: Recovered::default(),
            spans: BTreeMap::new(),
            rebuild: None,
        }
    }

    /// Forgets producers that wrote nothing for this long; without it none is forgotten.
    pub(crate) fn expiring_producers(mut self, expiration_ms: i64) -> Self {
        self.producers = Replay::new(expiration_ms);
        self
    }

    /// Brings the index to the end of the log, from its marker or, when it has none, from the start.
    pub(crate) fn run(mut self) -> Result<Recovered, OpenError> {
        let numbers = self.list()?;
        self.marker = self.index.marker()?;
        self.report.rebuilt = self.marker.is_none() && !(numbers.is_empty() && self.segments.cleaned().is_empty());
        if self.report.rebuilt {
            self.begin_rebuild()?;
        }
        if let Some(marker) = self.marker {
            self.synced = self.synced.max(marker.synced);
            self.expected = marker.applied + 1;
            self.report.last_commit = marker.applied;
            self.note_append_time(marker)?;
        }
        let start = self.marker.map_or(SegmentNumber(0), |m| m.segment());
        for number in numbers.iter().copied().filter(|n| *n >= start) {
            let from = self.marker.filter(|m| m.segment() == number).map_or(0, |m| m.position);
            self.scan(number, from)?;
        }
        self.settle(true)?;
        self.apply()?;
        match self.report.rebuilt {
            true => self.finish_rebuild()?,
            false => self.apply_unknown()?,
        }
        self.forget_replaced_blobs()?;
        self.cut_tail()?;
        self.seal_and_clean()?;
        self.seal_earlier(&numbers, start)?;
        let last = numbers.last().copied().max(self.segments.cleaned().last().copied());
        self.report.next_segment = last.map_or(1, |n| n.0 + 1);
        Ok(self.report)
    }

    fn list(&self) -> Result<Vec<SegmentNumber>, OpenError> {
        self.segments.list().map_err(io_error(self.segments.path(SegmentNumber(0))))
    }

    fn open(&self, number: SegmentNumber) -> Result<Arc<dyn FsFile>, OpenError> {
        self.fs.open_write(&self.segments.path(number)).map_err(io_error(self.segments.path(number)))
    }

    fn note_append_time(&mut self, marker: Marker) -> Result<(), OpenError> {
        let file = self.open(marker.segment())?;
        self.report.append_ms = header_at(file.as_ref(), marker.last_frame).map_or(0, |h| h.append_time_ms);
        Ok(())
    }

    /// Reads one segment and queues its commits.
    fn scan(&mut self, number: SegmentNumber, from: u64) -> Result<(), OpenError> {
        let path = self.segments.path(number);
        let scan = Scan::new(self.open(number)?, number, from).map_err(io_error(path.clone()))?;
        let mut span = Span { salt: scan.salt().unwrap_or(0), end: from.max(EDGE_LEN), sealed: false };
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.at_start = true;
        }
        for found in scan {
            match found.map_err(io_error(path.clone()))? {
                Found::Frame { header, position, payload } => {
                    span.end = position + header.frame_len();
                    self.frame(number, header, position, &payload);
                }
                Found::Bad { from, to, header } => {
                    span.end = to.next_multiple_of(ALIGNMENT);
                    self.bad(number, from, to, header)?;
                }
                Found::End { sealed, .. } => span.sealed = sealed,
            }
            self.settle(false)?;
        }
        self.spans.insert(number, span);
        Ok(())
    }

    fn frame(&mut self, segment: SegmentNumber, header: FrameHeader, position: u64, payload: &Bytes) {
        if header.kind == FrameKind::Head || header.kind == FrameKind::Foot {
            return;
        }
        self.synced = self.synced.max(header.synced);
        self.report.append_ms = self.report.append_ms.max(header.append_time_ms);
        let is_batch = header.kind == FrameKind::Batch;
        let batch = if is_batch { BatchHeader::read(payload).ok() } else { None };
        let state = (is_batch && header.partition < FIRST_PARTITION).then(|| payload.clone());
        let blob = blob_in(&header, payload);
        let max_timestamp = batch.map_or(-1, |b| b.max_timestamp);
        let end = position + header.frame_len();
        let produced = batch.filter(|batch| batch.producer().is_some());
        let framed = Framed { header, position, max_timestamp, produced, state, blob };
        self.add(segment, header.commit, position, end, Ok(framed));
        if header.last_of_commit
            && let Some(commit) = self.waiting.back_mut()
        {
            commit.complete = true;
        }
    }

    fn bad(
        &mut self,
        segment: SegmentNumber,
        from: u64,
        to: u64,
        header: Option<FrameHeader>,
    ) -> Result<(), OpenError> {
        let open = self.waiting.back().filter(|c| !c.complete).map(|c| c.number);
        let last = self.waiting.back().map_or(self.expected - 1, |c| c.number);
        let number = header.map_or(open.unwrap_or(last + 1), |h| h.commit);
        let lost = header.filter(|h| h.kind == FrameKind::Batch).map(|h| {
            let end = h.base_offset + i64::from(h.last_offset_delta) + 1;
            (h.partition, h.base_offset, end)
        });
        let blob = self.bad_blob(segment, from, header)?;
        self.add(segment, number, from, to, Err(BadRegion { segment, from, to, lost, blob }));
        if header.is_some_and(|h| h.last_of_commit)
            && let Some(commit) = self.waiting.back_mut()
        {
            commit.complete = true;
        }
        Ok(())
    }

    fn add(
        &mut self,
        segment: SegmentNumber,
        number: CommitNumber,
        start: u64,
        end: u64,
        item: Result<Framed, BadRegion>,
    ) {
        let fits = self.waiting.back().is_some_and(|c| c.number == number && c.segment == segment && !c.complete);
        if !fits {
            let (frames, bad, complete) = (Vec::new(), Vec::new(), false);
            let after_gap = self.rebuild.as_mut().is_some_and(|rebuild| std::mem::take(&mut rebuild.at_start));
            let commit = Commit { number, segment, start, end, frames, bad, complete, after_gap };
            self.waiting.push_back(commit);
        }
        if let Some(commit) = self.waiting.back_mut() {
            commit.end = end;
            match item {
                Ok(frame) => commit.frames.push(frame),
                Err(bad) => commit.bad.push(bad),
            }
        }
    }

    /// Takes commits off the front as far as it is decided what they are. `finished`: nothing more will be read.
    fn settle(&mut self, finished: bool) -> Result<(), OpenError> {
        while let Some(first) = self.waiting.front() {
            // Bad bytes without a name are judged by the commit behind them.
            let behind = self.waiting.get(1).filter(|next| next.complete || self.waiting.len() > 2);
            let closed =
                first.complete || finished || if first.is_noise() { behind.is_some() } else { self.waiting.len() > 1 };
            let good = first.whole() && first.follows(self.expected);
            let next_is_good = || self.waiting.get(1).is_some_and(|c| c.whole() && c.follows(self.expected));
            let noise = first.is_noise() && next_is_good();
            let synced = first.number <= self.synced || first.number < self.expected || noise;
            let decided = synced || finished && good;
            if !closed || !decided {
                return Ok(());
            }
            let Some(commit) = self.waiting.pop_front() else { break };
            if noise && self.is_half_foot(&commit) {
                self.forget_half_foot(&commit);
                continue;
            }
            if !synced {
                self.write_again(&commit)?;
            }
            self.take_in(commit, good)?;
        }
        Ok(())
    }

    /// Whether noise is what a power cut left of a foot: sealing goes on in the background, behind commits to the next
    /// segment, and what is missing no commit.
    fn is_half_foot(&self, noise: &Commit) -> bool {
        let in_next_segment = self.waiting.front().is_some_and(|next| next.segment > noise.segment);
        in_next_segment && noise.bad.iter().all(|bad| could_be_half_foot(bad.from, bad.to))
    }

    /// The segment is sealed again, over it.
    fn forget_half_foot(&mut self, noise: &Commit) {
        tracing::info!(segment = %noise.segment, position = noise.start, "a segment was not sealed to the end");
        if let Some(span) = self.spans.get_mut(&noise.segment)
            && !span.sealed
        {
            span.end = noise.start;
        }
    }

    /// A commit that is kept: its rows go to the index, what is bad in it is reported.
    fn take_in(&mut self, commit: Commit, good: bool) -> Result<(), OpenError> {
        let kept = !commit.is_noise() && commit.number >= self.expected;
        if !good && commit.bad.is_empty() {
            let (segment, from) = (commit.segment, commit.start);
            self.damaged(BadRegion::nameless(segment, from, from))?;
        }
        let last_frame = commit.frames.last().map_or(commit.start, |f| f.position);
        let mut bad = commit.bad.into_iter().peekable();
        for frame in commit.frames.into_iter().filter(|_| kept) {
            while let Some(bad) = bad.next_if(|bad| bad.from < frame.position) {
                self.damaged(bad)?;
            }
            match frame.blob {
                Some(hash) => self.blob_row(commit.segment, frame.position, &frame.header, hash)?,
                None if frame.header.kind == FrameKind::Batch => self.row(commit.segment, &frame)?,
                None => {}
            }
        }
        bad.try_for_each(|bad| self.damaged(bad))?;
        if !kept {
            return Ok(());
        }
        self.expected = commit.number + 1;
        self.report.last_commit = commit.number;
        self.report.replayed_commits += 1;
        // Commits behind this one are judged by what they say themselves; their numbers may be given again.
        self.marker = Some(Marker::new(commit.number, commit.number, commit.segment, commit.end, last_frame));
        if self.rows.count() >= ROWS_AT_ONCE || self.producers.is_full() {
            self.apply()?;
        }
        Ok(())
    }

    /// Bytes of a kept commit that are no good frame. A batch whose header is good keeps its place in the partition.
    fn damaged(&mut self, bad: BadRegion) -> Result<(), OpenError> {
        if let Some(hash) = bad.blob {
            return self.damaged_blob(bad, hash);
        }
        let Some((partition, from, next)) = bad.lost else {
            self.bad = Some(bad.clone());
            if let Some(rebuild) = &mut self.rebuild {
                rebuild.nameless.push(bad.clone());
            }
            self.report.damage.push(bad);
            return Ok(());
        };
        if self.is_replaced(bad.segment, partition, from)? {
            return Ok(());
        }
        if partition < FIRST_PARTITION {
            return Err(OpenError::StateDamaged { segment: bad.segment, position: bad.from, offset: from });
        }
        self.gap(bad.segment, bad.from, partition, from)?;
        let payload_len = u32::try_from((bad.to - bad.from).saturating_sub(EDGE_LEN)).unwrap_or(u32::MAX);
        let delta = u32::try_from(next - from - 1).unwrap_or(0);
        let row = BatchRow::new(bad.segment, bad.from, payload_len, delta, -1);
        self.rows.batches.push((BatchKey { partition, base_offset: from }, row));
        if let Some(end) = self.ends.get_mut(&partition) {
            (end.offset, end.place) = (next, (bad.segment, bad.from));
        }
        self.report.damage.push(bad);
        Ok(())
    }

    /// End of a partition as the rows so far say.
    fn end_of(&mut self, partition: PartitionNumber) -> Result<End, OpenError> {
        if let Some(end) = self.ends.get(&partition) {
            return Ok(*end);
        }
        let last = self.index.batch_at_or_before(partition, Offset::MAX)?;
        // Rows below the log start may have been swept.
        let log_start = log_start(self.index, partition)?;
        let offset = last.map_or(0, |(base, row)| row.next_offset(base)).max(log_start);
        let place = last.map_or((SegmentNumber(0), 0), |(_, row)| (row.segment(), row.position));
        let end = End { offset, last_time_row: self.index.last_time_row(partition)?.unwrap_or(-1), place };
        self.ends.insert(partition, end);
        Ok(end)
    }

    /// The rows of one good batch frame; offsets missing in front of it are damage.
    fn row(&mut self, segment: SegmentNumber, frame: &Framed) -> Result<(), OpenError> {
        let FrameHeader { partition, base_offset, payload_len, last_offset_delta, .. } = frame.header;
        if self.is_replaced(segment, partition, base_offset)? {
            return Ok(());
        }
        self.gap(segment, frame.position, partition, base_offset)?;
        let mut end = self.end_of(partition)?;
        end.offset = base_offset + i64::from(last_offset_delta) + 1;
        end.place = (segment, frame.position);
        if self.rebuild.is_none() && enters_new_second(end.last_time_row, frame.max_timestamp) {
            end.last_time_row = frame.max_timestamp;
            self.rows.times.push((TimeKey { partition, timestamp: frame.max_timestamp }, base_offset));
        }
        self.ends.insert(partition, end);
        let row = BatchRow::new(segment, frame.position, payload_len, last_offset_delta, frame.max_timestamp)
            .appended_at(frame.header.append_time_ms);
        self.rows.batches.push((BatchKey { partition, base_offset }, row));
        if let Some(rebuild) = self.rebuild.as_mut().filter(|rebuild| rebuild.state_waits()) {
            rebuild.produced.extend(frame.produced.map(|_| partition));
        } else if let Some(batch) = &frame.produced {
            let key = ProducerKey { partition, producer_id: batch.producer_id };
            self.producers.replay(self.index, key, batch, (base_offset, frame.header.append_time_ms))?;
        }
        match &frame.state {
            Some(batch) if !self.rebuild.as_ref().is_some_and(cleaned::Rebuild::state_waits) => {
                self.state_rows(segment, frame, batch)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Reports offsets that no frame holds although `next`, found at this place, is there.
    fn gap(
        &mut self,
        segment: SegmentNumber,
        position: u64,
        partition: PartitionNumber,
        next: Offset,
    ) -> Result<(), OpenError> {
        let end = self.end_of(partition)?;
        // While the index is built anew a walk over all rows finds them at the end.
        if end.offset >= next || self.rebuild.is_some() {
            return Ok(());
        }
        let held_it = self.bad.as_ref().filter(|bad| (bad.segment, bad.from) > end.place);
        let place = held_it.cloned().unwrap_or(BadRegion::nameless(segment, position, position));
        if partition < FIRST_PARTITION {
            let (segment, position) = (place.segment, place.from);
            return Err(OpenError::StateDamaged { segment, position, offset: end.offset });
        }
        let named = BadRegion { lost: Some((partition, end.offset, next)), ..place.clone() };
        match self.report.damage.iter_mut().find(|bad| **bad == place) {
            Some(bad) => *bad = named,
            None => self.report.damage.push(named),
        }
        Ok(())
    }

    fn state_rows(&mut self, segment: SegmentNumber, frame: &Framed, batch: &Bytes) -> Result<(), OpenError> {
        let keyspace = match frame.header.partition {
            STATE_PARTITION => StateKeyspace::State,
            OFFSETS_PARTITION => StateKeyspace::Groups,
            PartitionNumber(_) => return Ok(()),
        };
        let (position, offset) = (frame.position, frame.header.base_offset);
        let damaged = || OpenError::StateDamaged { segment, position, offset };
        for record in Records::of(batch).map_err(|_| damaged())? {
            let record = record.map_err(|_| damaged())?;
            let key = record.key.ok_or_else(damaged)?;
            // An index built anew asks at the end which blobs are inline.
            let dead = row_of_dead_frame(keyspace, &key, record.value.as_deref()).filter(|_| !self.report.rebuilt);
            self.rows.state.push((keyspace, key, record.value));
            self.rows.state.extend(dead);
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), OpenError> {
        self.rows.producers = self.producers.take();
        if self.rebuild.is_some() {
            // No marker before all is done: a half-built index is started over.
            let Rows { batches, times, producers, state } = std::mem::take(&mut self.rows);
            return Ok(self.index.change(Changes { batches, times, producers, state, ..Changes::default() })?);
        }
        match self.marker {
            Some(marker) if self.rows.count() > 0 || self.report.replayed_commits > 0 => {
                Ok(self.index.apply(std::mem::take(&mut self.rows), marker)?)
            }
            _ => Ok(()),
        }
    }

    /// Writes a commit again in place and syncs it: after a failed sync the page cache can hold what the disk does not.
    fn write_again(&self, commit: &Commit) -> Result<(), OpenError> {
        let path = self.segments.path(commit.segment);
        let file = self.open(commit.segment)?;
        let mut bytes = vec![0; usize::try_from(commit.end - commit.start).unwrap_or(0)];
        let again = read_exact_at(file.as_ref(), &mut bytes, commit.start)
            .and_then(|()| file.write_all_at(&mut [IoSlice::new(&bytes)], commit.start))
            .and_then(|()| file.sync_data());
        again.map_err(io_error(path))
    }

    /// Moves everything from the first undecided commit on to `lost+found`.
    fn cut_tail(&mut self) -> Result<(), OpenError> {
        let tail = std::mem::take(&mut self.waiting);
        if let Some(first) = tail.front() {
            tracing::info!(commit = first.number, segment = %first.segment, position = first.start,
                "a commit that was never acknowledged is cut off and kept in lost+found");
        }
        let mut cuts: BTreeMap<SegmentNumber, (u64, u64)> = BTreeMap::new();
        for commit in &tail {
            let cut = cuts.entry(commit.segment).or_insert((commit.start, commit.end));
            *cut = (cut.0.min(commit.start), cut.1.max(commit.end));
        }
        for (number, (start, end)) in cuts {
            self.keep(number, start, end)?;
            self.report.torn_bytes += end - start;
            if let Some(span) = self.spans.get_mut(&number) {
                span.end = start;
                span.sealed = false;
            }
        }
        Ok(())
    }

    /// Copies bytes of a segment into `lost+found`.
    fn keep(&self, number: SegmentNumber, start: u64, end: u64) -> Result<(), OpenError> {
        let path = self.free_name(&format!("torn-{number}-{start}"))?;
        let file = self.open(number)?;
        let end = end.min(file.len().map_err(io_error(self.segments.path(number)))?);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
        read_exact_at(file.as_ref(), &mut bytes, start).map_err(io_error(self.segments.path(number)))?;
        crate::fs::replace_durably(self.fs.as_ref(), &path, &bytes).map_err(io_error(path.clone()))
    }

    fn free_name(&self, name: &str) -> Result<PathBuf, OpenError> {
        let path = self.lost_and_found.join(name);
        let taken = |path: &Path| self.fs.meta(path).map(|m| m.is_some()).map_err(io_error(path.to_owned()));
        let mut free = path.clone();
        let mut number = 1_u32;
        while taken(&free)? {
            free = self.lost_and_found.join(format!("{name}.{number}"));
            number += 1;
        }
        Ok(free)
    }

    /// Seals full segments that a kill caught between being left and being sealed in the background.
    fn seal_earlier(&self, numbers: &[SegmentNumber], start: SegmentNumber) -> Result<(), OpenError> {
        for number in numbers.iter().copied().filter(|n| *n < start).rev().take(SEALING_BEHIND) {
            let path = self.segments.path(number);
            let file = self.open(number)?;
            let len = file.len().map_err(io_error(path.clone()))?;
            let foot = len.checked_sub(EDGE_LEN).and_then(|at| header_at(file.as_ref(), at));
            if foot.is_some_and(|foot| foot.kind == FrameKind::Foot) {
                continue;
            }
            let mut scan = Scan::new(file.clone(), number, 0).map_err(io_error(path.clone()))?;
            let salt = scan.salt().unwrap_or(0);
            let (mut end, mut frames, mut commit) = (EDGE_LEN, 0, 0);
            for found in &mut scan {
                match found.map_err(io_error(path.clone()))? {
                    Found::Frame { header, position, .. } => {
                        (end, frames, commit) = (position + header.frame_len(), frames + 1, header.commit);
                    }
                    // A frame behind it moves the end; else the foot is written over it.
                    Found::Bad { from, to, header: None } if could_be_half_foot(from, to) => {}
                    Found::Bad { to, .. } => end = to.next_multiple_of(ALIGNMENT),
                    Found::End { .. } => {}
                }
            }
            self.segments.seal(&Sealing { number, salt, file, end, frames, commit }).map_err(io_error(path))?;
        }
        Ok(())
    }

    /// Seals what was being appended to, and removes segments that hold nothing, so that no stale frame ever lies
    /// behind a new one.
    fn seal_and_clean(&self) -> Result<(), OpenError> {
        for (number, span) in &self.spans {
            let path = self.segments.path(*number);
            if span.end <= EDGE_LEN {
                self.segments.remove(*number).map_err(io_error(path))?;
            } else if !span.sealed {
                let (number, salt, end, file) = (*number, span.salt, span.end, self.open(*number)?);
                let sealing = Sealing { number, salt, file, end, frames: 0, commit: self.report.last_commit };
                self.segments.seal(&sealing).map_err(io_error(path))?;
            }
        }
        Ok(())
    }
}

fn could_be_half_foot(from: u64, to: u64) -> bool {
    to - from <= EDGE_LEN
}

/// The good header at a place, if there is one.
pub(crate) fn header_at(file: &dyn FsFile, position: u64) -> Option<FrameHeader> {
    let mut bytes = [0; crate::frame::HEADER_LEN];
    read_exact_at(file, &mut bytes, position).ok()?;
    FrameHeader::decode(&bytes)
}

/// Whether marker and log belong together: the segment is there, long enough, the last frame is where it should be, and
/// none is missing of the commits that were not known to be synced. Those all lie in the marker's segment, because what
/// came before is synced when a segment is left; so where every commit is synced before it is shown, nothing is read but
/// one header.
pub(crate) fn marker_fits(segments: &Segments, marker: Marker) -> io::Result<bool> {
    let file = match segments.open(marker.segment()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let header = header_at(file.as_ref(), marker.last_frame);
    if file.len()? < marker.position || header.is_some_and(|h| h.commit != marker.applied) {
        return Ok(false);
    }
    // Nothing there is damage where it was synced; where it was not, the log is behind the index.
    Ok(marker.synced >= marker.applied || unsynced_are_whole(file, marker)?)
}

/// Whether good frames lie one behind the other up to the marker, not counting what is bad in synced commits.
fn unsynced_are_whole(file: Arc<dyn FsFile>, marker: Marker) -> io::Result<bool> {
    let (mut end, mut bad) = (0, false);
    for found in Scan::new(file, marker.segment(), 0)? {
        match found? {
            Found::Frame { position, .. } | Found::Bad { from: position, .. } if position >= marker.position => break,
            // Bad bytes in front of a frame belong to its commit or an earlier one.
            Found::Frame { header, .. } if bad && header.commit > marker.synced => return Ok(false),
            Found::Frame { header, position, .. } => (end, bad) = (position + header.frame_len(), false),
            Found::Bad { header: Some(header), .. } if header.commit > marker.synced => return Ok(false),
            Found::Bad { to, header, .. } => (end, bad) = (to, header.is_none()),
            Found::End { .. } => break,
        }
    }
    Ok(end >= marker.position && !bad)
}

/// Where a partition begins, as the index says.
pub(crate) fn log_start(index: &Index, partition: PartitionNumber) -> Result<Offset, IndexError> {
    let row = index.state(StateKeyspace::State, &StateKey::LogStart(partition).encode())?;
    Ok(row.and_then(|bytes| value::<i64>(&bytes)).unwrap_or(0))
}

/// A lost range as a state record.
pub(crate) fn damage_record(bad: &BadRegion, end: Offset) -> DamageRecord {
    DamageRecord::new(end, bad.segment, bad.from)
}
