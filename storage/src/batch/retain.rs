//! A batch again with some of its records removed: what the cleaner does.

use bytes::{BufMut, Bytes, BytesMut};

use super::builder::{compressed, put_varint};
use super::records::{RawRecord, Record, body};
use super::{BATCH_HEADER_LEN, BatchError, BatchHeader, Records};
use crate::compress::Codec;

/// When a batch gets a delete horizon: the time from which on its tombstones and markers may go. One that has a horizon
/// keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Horizon {
    /// Not now.
    Unchanged,
    /// At this time (milliseconds since 1970) when a tombstone stays in it.
    WithTombstones(i64),
    /// At this time: it is a marker behind which no data is left.
    Always(i64),
}

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Everything, unchanged.
    All,
    /// These records, or all of them with a delete horizon: the batch to store in place of the old one.
    Some(Bytes),
    /// Nothing: a header without records, to store where the last offset or the producer's sequence has to stay.
    None(Bytes),
}

/// Rebuilds the batch at the start of `batch` with the records that `keep` keeps.
///
/// Base offset, last offset, leader epoch, codec, producer fields and the kept records' offsets, timestamps and headers
/// stay as they were; the largest timestamp becomes that of the kept records.
///
/// # Errors
/// As [`Records`]: nothing is removed from a batch that cannot be read to its end.
pub fn retain(
    batch: &Bytes,
    limit_bytes: usize,
    horizon: Horizon,
    mut keep: impl FnMut(&Record) -> bool,
) -> Result<Retained, BatchError> {
    let header = BatchHeader::read(batch)?;
    // Decompressed once here: the same bytes, seen as a batch without a codec.
    let plain = body(batch, &header, limit_bytes)?;
    let (mut kept, mut tombstones, mut max_timestamp) = (Vec::new(), false, -1);
    for record in Records::within(plain.clone(), header) {
        let record = record?;
        let keeps = keep(&record);
        kept.push(keeps);
        if keeps {
            tombstones |= record.value.is_none();
            max_timestamp = max_timestamp.max(record.timestamp);
        }
    }
    let horizon = match (horizon, header.delete_horizon()) {
        (Horizon::Unchanged, _) | (_, Some(_)) => None,
        (Horizon::WithTombstones(at), None) => tombstones.then_some(at),
        (Horizon::Always(at), None) => Some(at),
    };
    let count = kept.iter().filter(|kept| **kept).count();
    if count == 0 {
        return without_records(header).map(Retained::None);
    }
    if count == kept.len() && horizon.is_none() {
        return Ok(Retained::All);
    }
    let new = BatchHeader { count: i32::try_from(count).unwrap_or(header.count), ..header };
    let new = if header.has_append_time() { new } else { BatchHeader { max_timestamp, ..new } };
    rebuild(header, new, horizon, &plain, &kept).map(Retained::Some)
}

/// The kept records behind the new header.
fn rebuild(
    old: BatchHeader,
    mut new: BatchHeader,
    horizon: Option<i64>,
    plain: &[u8],
    kept: &[bool],
) -> Result<Bytes, BatchError> {
    if let Some(horizon) = horizon {
        new.set_delete_horizon(horizon);
    }
    let shift = old.base_timestamp.wrapping_sub(new.base_timestamp);
    let mut out = BytesMut::with_capacity(BATCH_HEADER_LEN + plain.len());
    out.put_bytes(0, BATCH_HEADER_LEN);
    let mut rest = plain;
    let mut again = BytesMut::new();
    for (index, kept) in (0..).zip(kept) {
        let record = RawRecord::take(&mut rest).map_err(|what| BatchError::Record { index, what })?;
        match (*kept, shift) {
            (false, _) => {}
            (true, 0) => out.put_slice(record.raw),
            (true, _) => {
                again.clear();
                again.put_u8(0);
                put_varint(&mut again, record.timestamp_delta.wrapping_add(shift));
                again.put_slice(record.after_timestamp);
                put_varint(&mut out, i64::try_from(again.len()).unwrap_or(i64::MAX));
                out.put_slice(&again);
            }
        }
    }
    let codec = old.codec()?;
    if codec != Codec::None {
        let records = out.get(BATCH_HEADER_LEN..).unwrap_or_default();
        out = compressed(codec, records).ok_or_else(|| too_long(&old))?;
    }
    new.seal(&mut out).ok_or_else(|| too_long(&old))?;
    Ok(out.freeze())
}

fn too_long(header: &BatchHeader) -> BatchError {
    let found = i64::try_from(header.total_len).unwrap_or(i64::MAX);
    BatchError::Length { found, expected: i64::from(i32::MAX) }
}

/// The batch with its last record gone, as Kafka's own cleaner leaves it.
fn without_records(mut header: BatchHeader) -> Result<Bytes, BatchError> {
    header.count = 0;
    header.set_codec(Codec::None);
    header.clear_delete_horizon();
    header.base_timestamp = -1;
    let mut out = BytesMut::zeroed(BATCH_HEADER_LEN);
    header.seal(&mut out).ok_or_else(|| too_long(&header))?;
    Ok(out.freeze())
}
