//! Reading the log: runs of adjacent frames in one read, newest batches from memory. Keeps the laws READ-SYNCED and
//! NO-SKIP.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::batch::{BatchError, BatchHeader, Records};
use crate::frame::{FrameHeader, HEADER_LEN, frame_len};
use crate::fs::read_exact_at;
use crate::ids::{Offset, SegmentNumber, TopicPartition};
use crate::index::IndexError;
use crate::keys::log::BatchRow;
use crate::partition::{Partition, TailRow};
use crate::store::{Core, Store};

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the log start or above the high watermark.
    #[error("{partition}: offset {offset} is out of range, {allowed:?} is there")]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// What was asked for.
        offset: Offset,
        /// Log start and high watermark.
        allowed: Range<Offset>,
    },
    /// Acknowledged records that cannot be read any more.
    #[error(
        "{partition}: offsets {from} to {last} are damaged: segment {segment}, position {position}",
        last = end - 1
    )]
    Damaged {
        /// The partition.
        partition: TopicPartition,
        /// First damaged offset.
        from: Offset,
        /// One past the last damaged offset.
        end: Offset,
        /// The segment.
        segment: SegmentNumber,
        /// Where in it, bytes from its start.
        position: u64,
    },
    /// The topic has been deleted.
    #[error("{partition}: the topic has been deleted")]
    Gone {
        /// The partition.
        partition: TopicPartition,
    },
    /// A batch whose frame is good does not read as one.
    #[error("{partition}: the batch at offset {offset} cannot be read: {reason}")]
    Batch {
        /// The partition.
        partition: TopicPartition,
        /// An offset in the batch.
        offset: Offset,
        /// What is wrong with it.
        reason: BatchError,
    },
    /// The operating system refused.
    #[error("segment {segment}: {error}")]
    Io {
        /// The segment.
        segment: SegmentNumber,
        /// The reason.
        error: io::Error,
    },
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl ReadError {
    pub(crate) fn batch(partition: &Partition, offset: Offset, reason: &BatchError) -> Self {
        Self::Batch { partition: partition.name().clone(), offset, reason: reason.clone() }
    }
}

/// A batch and where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) base_offset: Offset,
    pub(crate) row: BatchRow,
}

impl Place {
    fn next(&self) -> Offset {
        self.base_offset + i64::from(self.row.last_offset_delta) + 1
    }

    fn frame_len(&self) -> u64 {
        frame_len(self.row.payload_len)
    }

    fn frame_end(&self) -> u64 {
        self.row.position + self.frame_len()
    }
}

/// Rows not in the index yet that are looked at when all are asked for.
const TAIL_ROWS: usize = 8192;
/// Bytes read from a segment at once, at most, unless a single batch is larger.
const RUN_BYTES: u64 = 1 << 20;

/// What can be read of a partition, when `from` is in it or just behind it.
fn allowed(partition: &Partition, from: Offset) -> Result<Range<Offset>, ReadError> {
    if partition.is_gone() {
        return Err(ReadError::Gone { partition: partition.name().clone() });
    }
    let offsets = partition.offsets();
    let allowed = offsets.log_start..offsets.high_watermark;
    match allowed.contains(&from) || from == allowed.end {
        true => Ok(allowed),
        false => Err(ReadError::OutOfRange { partition: partition.name().clone(), offset: from, allowed }),
    }
}

impl Core {
    /// Whole batches from the one that holds `from` on, up to about `max_bytes` and always at least one.
    pub(crate) fn read(&self, partition: &Partition, from: Offset, max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        let allowed = allowed(partition, from)?;
        if from == allowed.end {
            return Ok(Vec::new());
        }
        let read = self.read_within(partition, from, max_bytes, allowed.end);
        match read {
            // What went missing meanwhile because it was deleted is not damage.
            Err(ReadError::Damaged { .. }) if partition.is_gone() || from < partition.offsets().log_start => {
                self.read(partition, from, max_bytes)
            }
            // Nor is what the cleaner has moved since its rows were read.
            Err(ReadError::Damaged { segment, .. }) if !self.segments.exists(segment).unwrap_or(true) => {
                self.read_within(partition, from, max_bytes, allowed.end)
            }
            read => read,
        }
    }

    fn read_within(
        &self,
        partition: &Partition,
        from: Offset,
        max_bytes: usize,
        end: Offset,
    ) -> Result<Vec<Bytes>, ReadError> {
        let places = self.places(partition, from, max_bytes)?;
        let places = before_gap(partition, from, &places)?;
        let batches = self.batches(partition, places)?;
        if batches.is_empty() {
            return Err(self.nothing_there(partition, from, end)?);
        }
        Ok(batches)
    }

    /// Base offset of the first batch that reaches `timestamp` and does not end below `from`. Looks at the log rows of
    /// about a second, and at those of batches whose clocks went back meanwhile.
    fn batch_for_time(&self, partition: &Partition, timestamp: i64, from: Offset) -> Result<Option<Offset>, ReadError> {
        let (in_tail, tail_start) = {
            let tail = partition.tail();
            let reaches = |row: &&TailRow| row.row.max_timestamp >= timestamp && row.last() >= from;
            let found = tail.iter().find(reaches).map(|row| row.base_offset);
            (found, tail.front().map_or(Offset::MAX, |row| row.base_offset))
        };
        let before = match timestamp.checked_sub(1) {
            Some(below) => self.index.time_row_up_to(partition.number(), below)?,
            None => None,
        };
        let holds_from = self.index.batch_at_or_before(partition.number(), from)?.map_or(0, |(offset, _)| offset);
        let first = before.map_or(0, |(_, offset)| offset).max(holds_from);
        for row in self.index.batches_from(partition.number(), first) {
            let (base_offset, row) = row?;
            if base_offset >= tail_start {
                break;
            }
            if row.max_timestamp >= timestamp && base_offset + i64::from(row.last_offset_delta) >= from {
                return Ok(Some(base_offset));
            }
        }
        Ok(in_tail)
    }

    /// Offsets below the high watermark that no row names: never an empty answer, which would read as the end.
    fn nothing_there(&self, partition: &Partition, from: Offset, end: Offset) -> Result<ReadError, ReadError> {
        let next = self.index.batches_from(partition.number(), from).next().transpose()?;
        let end = next.map_or(end, |(base, _)| base).max(from + 1);
        let (partition, segment) = (partition.name().clone(), SegmentNumber(0));
        Ok(ReadError::Damaged { partition, from, end, segment, position: 0 })
    }

    /// Every batch from the one that holds `from` on, without reading any.
    pub(crate) fn rows_from(
        &self,
        partition: &Partition,
        from: Offset,
    ) -> Result<impl Iterator<Item = Result<Place, IndexError>> + use<>, IndexError> {
        let tail: Vec<_> = {
            let tail = partition.tail();
            let rows = tail.iter().filter(|row| row.last() >= from).take(TAIL_ROWS);
            rows.map(|row| Place { base_offset: row.base_offset, row: row.row }).collect()
        };
        let tail_start = tail.first().map_or(Offset::MAX, |place| place.base_offset);
        let first = self.index.batch_at_or_before(partition.number(), from)?;
        let start = first.map_or(from, |(base, row)| if row.next_offset(base) > from { base } else { from });
        let rows = self.index.batches_from(partition.number(), start);
        let rows = rows.map(|row| row.map(|(base_offset, row)| Place { base_offset, row }));
        let before_tail = rows.take_while(move |row| !matches!(row, Ok(place) if place.base_offset >= tail_start));
        Ok(before_tail.chain(tail.into_iter().map(Ok)))
    }

    /// Where the batches lie: from the index, then from the tail that has not reached it yet.
    fn places(&self, partition: &Partition, from: Offset, max_bytes: usize) -> Result<Vec<Place>, ReadError> {
        let mut budget = Budget { left: max_bytes, places: Vec::new() };
        let (tail, tail_start) = {
            let tail = partition.tail();
            let start = tail.front().map_or(Offset::MAX, |row| row.base_offset);
            let first = tail.partition_point(|row| row.last() < from);
            let mut fit = Budget { left: max_bytes, places: Vec::new() };
            let rows = tail.iter().skip(first).map(|row| Place { base_offset: row.base_offset, row: row.row });
            let more = rows.take_while(|place| fit.add(*place)).count();
            debug_assert!(more <= fit.places.len());
            (fit.places, start)
        };
        if from < tail_start {
            let first = self.index.batch_at_or_before(partition.number(), from)?;
            let start = first.map_or(from, |(base, _)| base);
            for row in self.index.batches_from(partition.number(), start) {
                let (base_offset, row) = row?;
                let place = Place { base_offset, row };
                let wanted = place.next() > from && !row.is_without_records();
                if base_offset >= tail_start || wanted && !budget.add(place) {
                    break;
                }
            }
        }
        for place in tail {
            let next = budget.places.last().map_or(from, Place::next);
            if place.base_offset >= next.min(tail_start) && !budget.add(place) {
                break;
            }
        }
        Ok(budget.places)
    }

    /// Reads the frames, adjacent ones together, and checks each.
    fn batches(&self, partition: &Partition, places: &[Place]) -> Result<Vec<Bytes>, ReadError> {
        let mut batches = Vec::with_capacity(places.len());
        let mut rest = places;
        while let Some(first) = rest.first() {
            // One of another length is from before the batch was compacted.
            let cached = self.cache.get(partition.number(), first.base_offset);
            if let Some(batch) = cached.filter(|batch| u32::try_from(batch.len()) == Ok(first.row.payload_len)) {
                batches.push(batch);
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let run = adjacent(rest);
            match self.run(partition, rest.get(..run).unwrap_or_default()) {
                Ok(read) => {
                    let whole = read.len() == run;
                    batches.extend(read);
                    if !whole {
                        break;
                    }
                }
                // What was read before the damage is handed out first; the next read names it.
                Err(ReadError::Damaged { .. }) if !batches.is_empty() => break,
                Err(error) => return Err(error),
            }
            rest = rest.get(run..).unwrap_or_default();
        }
        Ok(batches)
    }

    /// One read of adjacent frames.
    fn run(&self, partition: &Partition, places: &[Place]) -> Result<Vec<Bytes>, ReadError> {
        let Some((first, last)) = places.first().zip(places.last()) else { return Ok(Vec::new()) };
        let segment = first.row.segment();
        let len = usize::try_from(last.frame_end() - first.row.position).unwrap_or(0);
        let mut bytes = vec![0; len];
        let read =
            self.segments.open(segment).and_then(|file| read_exact_at(file.as_ref(), &mut bytes, first.row.position));
        match read {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                return Err(damaged(partition, first));
            }
            Err(error) => return Err(ReadError::Io { segment, error }),
        }
        let mut bytes = Bytes::from(bytes);
        let mut batches = Vec::with_capacity(places.len());
        for place in places {
            let frame = bytes.split_to(usize::try_from(place.frame_len()).unwrap_or(0).min(bytes.len()));
            match payload(partition, place, &frame) {
                Some(batch) => batches.push(batch),
                None if batches.is_empty() => return Err(damaged(partition, place)),
                None => break,
            }
        }
        Ok(batches)
    }
}

/// The batch in a frame, if header and payload are what the row says.
fn payload(partition: &Partition, place: &Place, frame: &Bytes) -> Option<Bytes> {
    let header = FrameHeader::decode(frame)?;
    let right = header.partition == partition.number()
        && header.base_offset == place.base_offset
        && header.segment == place.row.segment()
        && header.payload_len == place.row.payload_len;
    let len = usize::try_from(header.payload_len).ok()?;
    let payload = frame.get(HEADER_LEN..HEADER_LEN + len)?;
    (right && crc32c::crc32c(payload) == header.payload_crc).then(|| frame.slice_ref(payload))
}

fn damaged(partition: &Partition, place: &Place) -> ReadError {
    ReadError::Damaged {
        partition: partition.name().clone(),
        from: place.base_offset,
        end: place.next(),
        segment: place.row.segment(),
        position: place.row.position,
    }
}

/// How many of the first places lie behind each other and make one read.
fn adjacent(places: &[Place]) -> usize {
    let Some(first) = places.first() else { return 0 };
    let pairs = places.iter().zip(places.iter().skip(1));
    let close = |(a, b): &(&Place, &Place)| {
        a.row.segment() == b.row.segment()
            && a.frame_end() == b.row.position
            && b.frame_end() - first.row.position <= RUN_BYTES
    };
    pairs.take_while(close).count() + 1
}

/// Places up to the first damaged gap; a gap right at `from` is an error that names it.
fn before_gap<'a>(partition: &Partition, from: Offset, places: &'a [Place]) -> Result<&'a [Place], ReadError> {
    let mut expected = from;
    for (index, place) in places.iter().enumerate() {
        if place.base_offset > expected
            && let Some(damage) = partition.damage_at(expected)
        {
            return if index == 0 { Err(gap(damage)) } else { Ok(places.get(..index).unwrap_or_default()) };
        }
        expected = place.next();
    }
    match partition.damage_at(from) {
        Some(damage) if places.is_empty() => Err(gap(damage)),
        _ => Ok(places),
    }
}

fn gap(damage: crate::partition::Damage) -> ReadError {
    let (from, end) = (damage.from, damage.record.end);
    let (segment, position) = (damage.record.segment(), damage.record.position);
    ReadError::Damaged { partition: damage.partition, from, end, segment, position }
}

/// Collects places until the bytes wanted are there; always takes the first.
struct Budget {
    left: usize,
    places: Vec<Place>,
}

impl Budget {
    /// False when the budget is used up; the place is then not taken.
    fn add(&mut self, place: Place) -> bool {
        let bytes = usize::try_from(place.row.payload_len).unwrap_or(usize::MAX);
        if !self.places.is_empty() && bytes > self.left {
            self.left = 0;
            return false;
        }
        self.left = self.left.saturating_sub(bytes);
        self.places.push(place);
        true
    }
}

/// The first record of a batch that is not before this time, nor below this offset.
fn first_since(records: Records, timestamp: i64, from: Offset) -> Result<Option<(Offset, i64)>, BatchError> {
    for record in records {
        let record = record?;
        if record.timestamp >= timestamp && record.offset >= from {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

impl Store {
    /// Whole record batches from the one that holds `from` on, up to about `max_bytes` and always at least one; none at
    /// the high watermark. The first batch may begin below `from`.
    ///
    /// # Errors
    /// See [`ReadError`]. Damage is an error when the read begins in it; a read that meets it later ends before it.
    pub fn read(&self, partition: &Partition, from: Offset, max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        let batches = self.core.read(partition, from, max_bytes)?;
        let bytes: usize = batches.iter().map(Bytes::len).sum();
        self.core.read_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(batches)
    }

    /// How many bytes [`Store::read`] would give: told by the index, without reading any.
    ///
    /// # Errors
    /// As [`Store::read`], but for damage that only a read can find.
    pub fn readable_bytes(&self, partition: &Partition, from: Offset, max_bytes: usize) -> Result<usize, ReadError> {
        if from == allowed(partition, from)?.end {
            return Ok(0);
        }
        let places = self.core.places(partition, from, max_bytes)?;
        let places = before_gap(partition, from, &places)?;
        Ok(places.iter().map(|place| usize::try_from(place.row.payload_len).unwrap_or(usize::MAX)).sum())
    }

    /// Bytes of record batches given to readers since the opening.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.core.read_bytes.load(Ordering::Relaxed)
    }

    /// The first record whose timestamp is `timestamp` or later: its offset and timestamp; `None` when there is none. Of
    /// a batch whose records cannot be read, the first offset and the largest timestamp.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_for_time(&self, partition: &Partition, timestamp: i64) -> Result<Option<(Offset, i64)>, ReadError> {
        if partition.is_gone() {
            return Err(ReadError::Gone { partition: partition.name().clone() });
        }
        let offsets = partition.offsets();
        let mut from = offsets.log_start;
        // A batch that says it reaches the time may have lost the record that did: then the next one is asked.
        while let Some(base) = self.core.batch_for_time(partition, timestamp, from)? {
            let (start, bad) = (base.max(from), |error: &BatchError| ReadError::batch(partition, base, error));
            let batches = match self.core.read(partition, start, 1) {
                // The log start moved meanwhile.
                Err(ReadError::OutOfRange { allowed, .. }) if allowed.start > start => {
                    from = allowed.start;
                    continue;
                }
                batches => batches?,
            };
            for batch in batches {
                let header = BatchHeader::read(&batch).map_err(|error| bad(&error))?;
                from = from.max(header.last_offset() + 1);
                match Records::of(&batch).and_then(|records| first_since(records, timestamp, start)) {
                    Ok(None) => {}
                    Ok(found) => return Ok(found),
                    // Stored as it was sent. What comes first of it is not known: nobody misses it from its beginning on.
                    Err(_) => return Ok(Some((start, header.max_timestamp))),
                }
            }
            if from <= start || from >= offsets.high_watermark {
                break;
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp: its offset and timestamp, the first of several; `None` when there is none.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn newest_record(&self, partition: &Partition) -> Result<Option<(Offset, i64)>, ReadError> {
        let log_start = partition.offsets().log_start;
        // Whatever lies before the batch that opened the last second is older than it.
        let last = self.core.index.time_row_up_to(partition.number(), i64::MAX)?;
        let from = last.map_or(log_start, |(_, base)| base.max(log_start));
        let mut newest: Option<(i64, Offset)> = None;
        for place in self.core.rows_from(partition, from)? {
            let place = place?;
            if newest.is_none_or(|(timestamp, _)| place.row.max_timestamp > timestamp) {
                newest = Some((place.row.max_timestamp, place.base_offset));
            }
        }
        let Some((_, base)) = newest else { return Ok(None) };
        let bad = |error: &BatchError| ReadError::batch(partition, base, error);
        let mut found: Option<(Offset, i64)> = None;
        for batch in self.core.read(partition, base.max(log_start), 1)? {
            let max_timestamp = BatchHeader::read(&batch).map_err(|error| bad(&error))?.max_timestamp;
            let records = Records::of(&batch).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            // Of one that cannot be read it is only known that it holds the newest.
            let Ok(records) = records else { return Ok(Some((base.max(log_start), max_timestamp))) };
            for record in records {
                if record.offset >= log_start && found.is_none_or(|(_, timestamp)| record.timestamp > timestamp) {
                    found = Some((record.offset, record.timestamp));
                }
            }
        }
        Ok(found)
    }
}
