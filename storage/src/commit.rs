//! The committer: the one thread that writes the log.
//!
//! A commit is what queued up during the last one, never a wait for more. It is written with one vectored write and one
//! sync, then shown to readers, acknowledged, and handed to the applier. Keeps the laws ACK-SYNCED and READ-SYNCED.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use crate::apply::CommitRows;
use crate::frame::{FrameHeader, FrameKind, HEADER_LEN, frame_len};
use crate::fs::is_full;
use crate::ids::{CommitNumber, Offset, PartitionNumber, Sha256};
use crate::index::{Rows, StateKeyspace};
use crate::inline::{hash_key, row_of_dead_frame};
use crate::keys::blob::BlobRow;
use crate::keys::encode_value;
use crate::keys::log::{BatchKey, BatchRow};
use crate::keys::marker::Marker;
use crate::keys::producer::WrittenBatch;
use crate::keys::time::TimeKey;
use crate::partition::{Life, Partition, TailRow};
use crate::producers::Producers;
use crate::queue::{Append, Appended, InlineBlob, Lanes, Request};
use crate::segments::{EDGE_LEN, Prepared, Sealing};
use crate::state::{Change, FIRST_PARTITION};
use crate::store::{AppendError, Core, Durability};

/// The segment being appended to.
struct Active {
    prepared: Prepared,
    position: u64,
    frames: u32,
    last_frame: u64,
}

/// What a frame of the commit under way holds.
enum Content {
    Batch(PlannedBatch),
    Blob(Sha256),
}

struct PlannedBatch {
    partition: Arc<Partition>,
    base_offset: Offset,
    last_offset_delta: u32,
    max_timestamp: i64,
}

/// One frame of the commit under way.
struct Planned {
    content: Content,
    payload: Bytes,
    position: u64,
}

impl Planned {
    fn payload_len(&self) -> u32 {
        u32::try_from(self.payload.len()).unwrap_or(u32::MAX)
    }

    fn is_state(&self) -> bool {
        match &self.content {
            Content::Batch(batch) => batch.partition.number() < FIRST_PARTITION,
            Content::Blob(_) => false,
        }
    }
}

pub(crate) struct Committer {
    core: Arc<Core>,
    lanes: Lanes,
    active: Option<Active>,
    commit: CommitNumber,
    synced: CommitNumber,
    append_ms: i64,
    sync_due: Option<Instant>,
    producers: Producers,
}

impl Committer {
    /// A committer that goes on after commit `last`, appended at `append_ms`.
    pub(crate) fn new(core: Arc<Core>, last: CommitNumber, append_ms: i64) -> Self {
        let producers = Producers::new(core.options.producer_expiration_ms);
        let lanes = Lanes::default();
        Self { core, lanes, active: None, commit: last, synced: last, append_ms, sync_due: None, producers }
    }

    /// The committer thread: returns after the queue is closed and empty, or with the error that poisons the store.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let outcome = self.commits().and_then(|()| self.finish());
        if let Err(error) = &outcome {
            let reason = AppendError::Poisoned { reason: error.to_string() };
            self.lanes.drain().into_iter().for_each(|request| (request.done)(Err(reason.clone())));
        }
        outcome
    }

    fn commits(&mut self) -> io::Result<()> {
        loop {
            let taken = self.core.queue.take(&mut self.lanes, self.core.options.commit_bytes, self.sync_due);
            if taken.closed {
                return Ok(());
            }
            if !taken.requests.is_empty() {
                self.commit(taken.requests)?;
            }
            if self.sync_due.is_some_and(|due| due <= Instant::now()) {
                self.sync()?;
            }
        }
    }

    /// Makes everything written so far durable.
    fn sync(&mut self) -> io::Result<()> {
        self.sync_due = None;
        if let Some(active) = &self.active {
            self.core.timed_sync(|| active.prepared.file.sync_data())?;
        }
        self.synced = self.commit;
        Ok(())
    }

    fn commit(&mut self, requests: Vec<Request>) -> io::Result<()> {
        let requests = refuse_gone(self.refuse_data_on_a_full_disk(requests));
        let synced = requests.iter().any(|request| request.synced);
        let (frames, outcomes) = self.plan(requests);
        if frames.is_empty() {
            self.reply(outcomes);
            return Ok(());
        }
        match self.write(frames, synced) {
            Ok(frames) => {
                self.publish(frames, outcomes);
                Ok(())
            }
            Err(WriteError::Refused(error)) => {
                self.producers.refuse_all();
                let error = AppendError::from_io(&error);
                outcomes.into_iter().for_each(|outcome| (outcome.request.done)(Err(error.clone())));
                Ok(())
            }
            Err(WriteError::Fatal(error)) => {
                let reason = AppendError::Poisoned { reason: error.to_string() };
                outcomes.into_iter().for_each(|outcome| (outcome.request.done)(Err(reason.clone())));
                Err(error)
            }
        }
    }

    fn refuse_data_on_a_full_disk(&mut self, requests: Vec<Request>) -> Vec<Request> {
        if !self.core.keeper.disk_full() {
            return requests;
        }
        let now_ms = self.append_ms.max(self.core.now_ms());
        let (state, data): (Vec<_>, Vec<_>) = requests.into_iter().partition(is_state);
        for request in data {
            let noted = request.appends.iter().filter(|append| append.batch.header().producer().is_some());
            let mut noted = noted.map(|append| {
                self.producers.refuse(&self.core.index, &append.partition, append.batch.header(), now_ms)
            });
            let error = noted.find_map(Result::err).unwrap_or(AppendError::DiskFull);
            (request.done)(Err(error));
        }
        state
    }

    /// Gives offsets and places. The ends of the partitions move only when the commit is durable.
    fn plan(&mut self, requests: Vec<Request>) -> (Vec<Planned>, Vec<Outcome>) {
        self.append_ms = self.append_ms.max(self.core.now_ms());
        let count = requests.len();
        let mut ends: HashMap<PartitionNumber, Offset> = HashMap::with_capacity(count);
        let (mut frames, mut outcomes) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for mut request in requests {
            let (first, mark) = (frames.len(), self.producers.mark());
            let mut appended = Vec::with_capacity(request.appends.len());
            let mut refused = None;
            let blob =
                |blob: InlineBlob| Planned { content: Content::Blob(blob.hash), payload: blob.payload, position: 0 };
            frames.extend(std::mem::take(&mut request.blobs).into_iter().map(blob));
            for append in std::mem::take(&mut request.appends) {
                match self.plan_one(append, &mut ends, &mut frames) {
                    Ok(one) => appended.push(one),
                    Err(error) => {
                        refused = Some(error);
                        break;
                    }
                }
            }
            if refused.is_some() {
                for frame in frames.drain(first..) {
                    if let Content::Batch(batch) = frame.content {
                        ends.insert(batch.partition.number(), batch.base_offset);
                    }
                }
                self.producers.back_to(mark);
            }
            outcomes.push(Outcome { request, appended: refused.map_or(Ok(appended), Err) });
        }
        (frames, outcomes)
    }

    /// Gives a batch its offset, unless its producer sent it before or may not send it now.
    fn plan_one(
        &mut self,
        append: Append,
        ends: &mut HashMap<PartitionNumber, Offset>,
        frames: &mut Vec<Planned>,
    ) -> Result<Appended, AppendError> {
        let Append { partition, mut batch } = append;
        batch.stamp(self.append_ms);
        let header = *batch.header();
        let offsets = partition.offsets();
        let (log_start, append_time_ms) = (offsets.log_start, self.append_ms);
        let end = ends.entry(partition.number()).or_insert(offsets.high_watermark);
        let base_offset = *end;
        if let Some(expected) = batch.expected_offset().filter(|expected| *expected != base_offset) {
            let partition = partition.name().clone();
            return Err(AppendError::Moved { partition, expected, next: base_offset });
        }
        if header.producer().is_some() {
            let place = (base_offset, append_time_ms, self.commit + 1);
            if let Some(written) = self.producers.admit(&self.core.index, &partition, &header, place)? {
                let WrittenBatch { base_offset, append_time_ms, .. } = written;
                return Ok(Appended { base_offset, append_time_ms, duplicate: true, log_start });
            }
        }
        *end += i64::from(header.last_offset_delta) + 1;
        let payload = batch.place(base_offset, partition.leader_epoch());
        let content = Content::Batch(PlannedBatch {
            partition,
            base_offset,
            last_offset_delta: u32::try_from(header.last_offset_delta).unwrap_or(0),
            max_timestamp: header.max_timestamp,
        });
        frames.push(Planned { content, payload, position: 0 });
        Ok(Appended { base_offset, append_time_ms, duplicate: false, log_start })
    }

    /// Writes the frames and makes them durable as the mode says.
    fn write(&mut self, mut frames: Vec<Planned>, synced: bool) -> Result<Vec<Planned>, WriteError> {
        let state_only = frames.iter().all(Planned::is_state);
        let total: u64 = frames.iter().map(|f| frame_len(f.payload_len())).sum();
        self.make_room(total, state_only)?;
        let Some(active) = &mut self.active else { return Err(WriteError::Fatal(io::Error::other("no segment"))) };
        let mut position = active.position;
        for frame in &mut frames {
            frame.position = position;
            position += frame_len(frame.payload_len());
        }
        let headers = headers(&frames, active, self.commit + 1, self.synced, self.append_ms);
        let mut slices = slices(&headers, &frames);
        if let Err(error) = active.prepared.file.write_all_at(&mut slices, active.position) {
            return Err(self.undo(error));
        }
        active.last_frame = frames.last().map_or(active.last_frame, |f| f.position);
        active.frames += u32::try_from(frames.len()).unwrap_or(u32::MAX);
        active.position = position;
        self.commit += 1;
        match self.core.options.durability {
            Durability::Sync => self.sync().map_err(WriteError::Fatal)?,
            Durability::Interval(_) | Durability::None if synced => self.sync().map_err(WriteError::Fatal)?,
            Durability::Interval(interval) => {
                self.sync_due.get_or_insert_with(|| Instant::now() + interval);
            }
            Durability::None => {}
        }
        Ok(frames)
    }

    /// A write failed before the sync. When the disk is full the segment is cut back and sealed, and the commit number
    /// is used again; anything else ends the store.
    fn undo(&mut self, error: io::Error) -> WriteError {
        if !is_full(&error) {
            return WriteError::Fatal(error);
        }
        self.core.keeper.check_room();
        let Some(active) = self.active.take() else { return WriteError::Fatal(error) };
        match self.core.segments.seal(&sealing(&active, self.commit)) {
            Ok(()) => {
                self.synced = self.commit;
                WriteError::Refused(error)
            }
            Err(error) => WriteError::Fatal(error),
        }
    }

    /// Rolls to a fresh segment when `total` bytes do not fit. A commit never spans two segments.
    fn make_room(&mut self, total: u64, state_only: bool) -> Result<(), WriteError> {
        let roll = self.core.cleaner.take_roll();
        let fits = |a: &Active| a.position + total + EDGE_LEN <= a.prepared.len && !(roll && a.frames > 0);
        if self.active.as_ref().is_some_and(fits) {
            return Ok(());
        }
        let len = total + 2 * EDGE_LEN;
        let prepared = self.core.keeper.take(len, state_only).map_err(|error| match is_full(&error) {
            true => WriteError::Refused(error),
            false => WriteError::Fatal(error),
        })?;
        if !matches!(self.core.options.durability, Durability::Sync) {
            self.sync().map_err(WriteError::Fatal)?;
        }
        let fresh = Active { prepared, position: EDGE_LEN, frames: 0, last_frame: 0 };
        if let Some(full) = self.active.replace(fresh) {
            self.core.keeper.seal_later(sealing(&full, self.commit));
        }
        Ok(())
    }

    /// Shows a durable commit: overlay and tails first, then the high watermarks, then replies, then the applier.
    fn publish(&mut self, frames: Vec<Planned>, outcomes: Vec<Outcome>) {
        let core = &self.core;
        let Some(active) = &self.active else { return };
        let producers = self.producers.settle(|| core.pending.applied());
        let mut rows = Rows { producers, ..Rows::default() };
        for outcome in outcomes.iter().filter(|outcome| outcome.appended.is_ok()) {
            let changes = outcome.request.changes.iter();
            for (keyspace, Change { key, value }) in changes {
                rows.state.push((*keyspace, key.clone(), value.clone()));
                rows.state.extend(row_of_dead_frame(*keyspace, key, value.as_deref()));
            }
        }
        for frame in &frames {
            if let Content::Blob(hash) = &frame.content {
                let row = BlobRow::new(active.prepared.number, frame.position, frame.payload_len(), self.commit);
                rows.state.push((StateKeyspace::Blobs, hash_key(*hash), Some(encode_value(&row).into())));
            }
        }
        core.pending.show(self.commit, &rows.state);
        let mut payloads = Vec::with_capacity(frames.len());
        let mut partitions = Vec::with_capacity(frames.len());
        for frame in frames {
            let len = frame.payload_len();
            let Content::Batch(PlannedBatch { partition: of, base_offset, last_offset_delta, max_timestamp }) =
                frame.content
            else {
                continue;
            };
            let partition = of.number();
            let row = BatchRow::new(active.prepared.number, frame.position, len, last_offset_delta, max_timestamp)
                .appended_at(self.append_ms);
            if of.gets_time_row(max_timestamp) {
                rows.times.push((TimeKey { partition, timestamp: max_timestamp }, base_offset));
            }
            rows.batches.push((BatchKey { partition, base_offset }, row));
            of.publish(std::iter::once(TailRow { base_offset, row, commit: self.commit }));
            payloads.push(((partition, base_offset), frame.payload));
            partitions.push(of);
        }
        let marker = Marker::new(self.commit, self.synced, active.prepared.number, active.position, active.last_frame);
        core.synced.store(self.synced, Ordering::Release);
        self.reply(outcomes);
        core.cache.put(payloads.into_iter());
        partitions.sort_unstable_by_key(|p| p.number());
        partitions.dedup_by_key(|p| p.number());
        core.notify(&partitions.iter().map(|p| p.number()).collect::<Vec<_>>());
        if !core.pending.push(CommitRows { rows, marker, partitions }) {
            tracing::error!("the index has stopped; the log goes on until the process is restarted");
        }
    }

    fn reply(&self, outcomes: Vec<Outcome>) {
        let state_end = self.core.state_partition.offsets().high_watermark;
        for Outcome { request, appended } in outcomes {
            match appended {
                Ok(appended) if request.catalogue => {
                    self.core.catalogue.push(state_end, request.changes, appended, request.done);
                }
                appended => (request.done)(appended),
            }
        }
    }

    /// Closing: everything durable, the segment sealed.
    fn finish(&mut self) -> io::Result<()> {
        self.sync()?;
        self.core.synced.store(self.synced, Ordering::Release);
        match self.active.take() {
            Some(active) => self.core.segments.seal(&sealing(&active, self.commit)),
            None => Ok(()),
        }
    }
}

struct Outcome {
    request: Request,
    /// Said only when the commit is durable: even a refusal can rest on what is in it.
    appended: Result<Vec<Appended>, AppendError>,
}

enum WriteError {
    /// Only this commit fails.
    Refused(io::Error),
    /// Nothing more can be trusted.
    Fatal(io::Error),
}

/// Fails what is for a topic that is deleted, or about to be: its tombstone is then in this commit or in a later one, so
/// that no frame ever lies behind it.
fn refuse_gone(requests: Vec<Request>) -> Vec<Request> {
    let keep = |request: Request| {
        let mut appends = request.appends.iter();
        let Some(gone) = appends.find(|append| append.partition.life() != Life::Live) else { return Some(request) };
        let partition = gone.partition.name().clone();
        (request.done)(Err(AppendError::Gone { partition }));
        None
    };
    requests.into_iter().filter_map(keep).collect()
}

fn is_state(request: &Request) -> bool {
    request.blobs.is_empty() && request.appends.iter().all(|a| a.partition.number() < FIRST_PARTITION)
}

fn sealing(active: &Active, commit: CommitNumber) -> Sealing {
    let Active { prepared, position, frames, .. } = active;
    let (number, salt, file) = (prepared.number, prepared.salt, prepared.file.clone());
    Sealing { number, salt, file, end: *position, frames: *frames, commit }
}

fn headers(
    frames: &[Planned],
    active: &Active,
    commit: CommitNumber,
    synced: CommitNumber,
    append_time_ms: i64,
) -> Vec<[u8; HEADER_LEN]> {
    let header = |(ordinal, frame): (usize, &Planned)| {
        let (kind, partition, base_offset, last_offset_delta) = match &frame.content {
            Content::Batch(b) => (FrameKind::Batch, b.partition.number(), b.base_offset, b.last_offset_delta),
            Content::Blob(_) => (FrameKind::Blob, PartitionNumber(0), 0, 0),
        };
        let header = FrameHeader {
            kind,
            last_of_commit: ordinal + 1 == frames.len(),
            payload_len: frame.payload_len(),
            payload_crc: crc32c::crc32c(&frame.payload),
            segment: active.prepared.number,
            partition,
            commit,
            synced,
            base_offset,
            append_time_ms,
            last_offset_delta,
            ordinal: u32::try_from(ordinal).unwrap_or(u32::MAX),
            salt: active.prepared.salt,
        };
        header.encode()
    };
    frames.iter().enumerate().map(header).collect()
}

const PADDING: [u8; 8] = [0; 8];

fn slices<'a>(headers: &'a [[u8; HEADER_LEN]], frames: &'a [Planned]) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::with_capacity(frames.len() * 3);
    for (header, frame) in headers.iter().zip(frames) {
        slices.push(IoSlice::new(header));
        slices.push(IoSlice::new(&frame.payload));
        let padding = (8 - frame.payload.len() % 8) % 8;
        if padding > 0 {
            slices.push(IoSlice::new(PADDING.get(..padding).unwrap_or_default()));
        }
    }
    slices
}
