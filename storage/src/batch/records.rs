//! Reading the records of a batch.

use bytes::Bytes;

use super::{BATCH_HEADER_LEN, BatchError, BatchHeader, RECORDS_LIMIT};
use crate::compress::{Codec, DecompressError, decompress};
use crate::ids::Offset;

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its name, usually UTF-8.
    pub key: Bytes,
    /// Its value, if any.
    pub value: Option<Bytes>,
}

/// One record of a batch. Its bytes are slices of the batch, or of what the batch decompressed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// Headers in the producer's order; names may repeat.
    pub headers: Vec<RecordHeader>,
}

/// One record as it lies in the batch.
///
/// | varint | 1          | varlong         | varint       | bytes      | bytes        | varint       | headers                      |
/// |--------|------------|-----------------|--------------|------------|--------------|--------------|------------------------------|
/// | length | attributes | timestamp delta | offset delta | key (or -1) | value (or -1) | header count | key, value (or -1), each bytes |
#[derive(Clone, Copy, Debug)]
pub(super) struct RawRecord<'a> {
    /// All of it, with the length.
    pub(super) raw: &'a [u8],
    pub(super) timestamp_delta: i64,
    /// What follows the timestamp delta.
    pub(super) after_timestamp: &'a [u8],
    pub(super) offset_delta: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    header_count: i64,
    headers: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Splits a record off the front of `rest`. The error names the field that does not read.
    pub(super) fn take(rest: &mut &'a [u8]) -> Result<Self, &'static str> {
        let whole = *rest;
        let length = take_varint(rest).and_then(|len| usize::try_from(len).ok()).ok_or("length")?;
        let (mut body, behind) = rest.split_at_checked(length).ok_or("length")?;
        let body = &mut body;
        take_bytes(body, 1).ok_or("attributes")?;
        let timestamp_delta = take_varint(body).ok_or("timestamp delta")?;
        let after_timestamp = *body;
        let offset_delta = take_varint(body).ok_or("offset delta")?;
        let key = take_field(body).ok_or("key")?;
        let value = take_field(body).ok_or("value")?;
        let header_count = take_varint(body).filter(|count| *count >= 0).ok_or("header count")?;
        let headers = *body;
        for _ in 0..header_count {
            take_field(body).flatten().ok_or("header key")?;
            take_field(body).ok_or("header value")?;
        }
        if !body.is_empty() {
            return Err("bytes behind the headers");
        }
        *rest = behind;
        let raw = whole.get(..whole.len() - behind.len()).unwrap_or_default();
        Ok(Self { raw, timestamp_delta, after_timestamp, offset_delta, key, value, header_count, headers })
    }

    /// The record with its bytes as slices of `body`, which it was taken from.
    fn within(&self, body: &Bytes, header: &BatchHeader) -> Record {
        let slice = |bytes: &[u8]| body.slice_ref(bytes);
        let mut headers = Vec::new();
        let mut rest = self.headers;
        for _ in 0..self.header_count {
            let Some((Some(key), value)) = take_field(&mut rest).zip(take_field(&mut rest)) else { break };
            headers.push(RecordHeader { key: slice(key), value: value.map(slice) });
        }
        Record {
            offset: header.base_offset.wrapping_add(self.offset_delta),
            timestamp: header.timestamp(self.timestamp_delta),
            key: self.key.map(slice),
            value: self.value.map(slice),
            headers,
        }
    }
}

fn take_bytes<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}

/// Reads a zig-zag variable-length integer.
fn take_varint(from: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

/// A length and that many bytes; `Some(None)` for length -1.
fn take_field<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match take_varint(from)? {
        -1 => Some(None),
        length => take_bytes(from, usize::try_from(length).ok()?).map(Some),
    }
}

/// The records' bytes without their codec, at most `limit_bytes` of them. No copy when there is none.
pub(super) fn body(batch: &Bytes, header: &BatchHeader, limit_bytes: usize) -> Result<Bytes, BatchError> {
    let bytes = batch.slice(BATCH_HEADER_LEN..header.total_len);
    let codec = header.codec()?;
    if codec == Codec::None {
        return Ok(bytes);
    }
    decompressed(codec, &bytes, header, limit_bytes).map(Bytes::from)
}

/// The records of a compressed batch.
pub(super) fn decompressed(
    codec: Codec,
    records: &[u8],
    header: &BatchHeader,
    limit_bytes: usize,
) -> Result<Vec<u8>, BatchError> {
    let base_offset = header.base_offset;
    decompress(codec, records, limit_bytes).map_err(|error| match error {
        DecompressError::TooLarge => BatchError::TooLarge { base_offset, codec, limit_bytes },
        DecompressError::Malformed(reason) => BatchError::Compression { base_offset, codec, reason },
    })
}

/// Iterates over the records of one batch, whatever its codec. A batch from which records were removed has gaps.
///
/// After an error it ends.
#[derive(Debug)]
pub struct Records {
    body: Bytes,
    at: usize,
    header: BatchHeader,
    index: i32,
    /// The least offset delta that the next record may have.
    next_delta: i64,
}

impl Records {
    /// The records of the batch at the start of `batch`; a compressed one may hold up to [`RECORDS_LIMIT`] bytes of
    /// them.
    ///
    /// # Errors
    /// As [`Records::with_limit`].
    pub fn of(batch: &Bytes) -> Result<Self, BatchError> {
        Self::with_limit(batch, RECORDS_LIMIT)
    }

    /// The records of the batch at the start of `batch`; a compressed one may hold up to `limit_bytes` of them.
    ///
    /// # Errors
    /// As [`BatchHeader::read`]; [`BatchError::Codec`], [`BatchError::TooLarge`], [`BatchError::Compression`].
    pub fn with_limit(batch: &Bytes, limit_bytes: usize) -> Result<Self, BatchError> {
        let header = BatchHeader::read(batch)?;
        Ok(Self::within(body(batch, &header, limit_bytes)?, header))
    }

    /// The records in `body`, which is not compressed, of a batch with this header.
    pub(super) fn within(body: Bytes, header: BatchHeader) -> Self {
        Self { body, at: 0, header, index: 0, next_delta: 0 }
    }

    /// The header of the batch.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    fn take(&mut self) -> Result<Record, &'static str> {
        let all = self.body.get(self.at..).unwrap_or_default();
        let mut rest = all;
        let raw = RawRecord::take(&mut rest)?;
        if raw.offset_delta < self.next_delta || raw.offset_delta > i64::from(self.header.last_offset_delta) {
            return Err("offset delta");
        }
        self.next_delta = raw.offset_delta + 1;
        self.at += all.len() - rest.len();
        Ok(raw.within(&self.body, &self.header))
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.count {
            return None;
        }
        let index = self.index;
        let record = self.take().map_err(|what| BatchError::Record { index, what });
        self.index = if record.is_ok() { index + 1 } else { self.header.count };
        Some(record)
    }
}
