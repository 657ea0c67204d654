//! Building batches record by record.

use bytes::{BufMut, BytesMut};

use super::{BATCH_HEADER_LEN, BatchHeader, CheckedBatch, Producer};
use crate::compress::{Codec, compress};

/// Builds one batch record by record.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: BytesMut,
    record: BytesMut,
    codec: Codec,
    header: BatchHeader,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::with_capacity(4096)
    }
}

/// A header for [`BatchBuilder::push_with_headers`]: name and value.
pub type HeaderRef<'a> = (&'a [u8], Option<&'a [u8]>);

impl BatchBuilder {
    /// A builder that expects about `bytes` bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(bytes + BATCH_HEADER_LEN + 64);
        buffer.put_bytes(0, BATCH_HEADER_LEN);
        let header = BatchHeader {
            base_offset: 0,
            total_len: 0,
            leader_epoch: 0,
            attributes: 0,
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: 0,
            crc: 0,
        };
        Self { bytes: buffer, record: BytesMut::new(), codec: Codec::None, header }
    }

    /// Has the records compressed.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self.header.set_codec(codec);
        self
    }

    /// Names the idempotent producer.
    #[must_use]
    pub fn producer(mut self, producer: Producer) -> Self {
        self.header.producer_id = producer.id;
        self.header.producer_epoch = producer.epoch;
        self.header.base_sequence = producer.base_sequence;
        self
    }

    /// Makes it part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.set_transactional();
        self
    }

    /// Makes it a batch that consumers do not see.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.set_control();
        self
    }

    /// Adds one record without headers. `timestamp` is milliseconds since 1970.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.push_with_headers(timestamp, key, value, &[]);
    }

    /// Adds one record. `timestamp` is milliseconds since 1970.
    pub fn push_with_headers(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) {
        if self.header.count == 0 {
            self.header.base_timestamp = timestamp;
        }
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        let head = &mut self.record;
        head.clear();
        head.reserve(key.map_or(0, <[u8]>::len) + 32);
        head.put_u8(0);
        put_varint(head, timestamp.wrapping_sub(self.header.base_timestamp));
        put_varint(head, i64::from(self.header.count));
        put_field(head, key);
        put_length(head, value);
        // The value is copied once, into its place; what follows it waits behind the head.
        let (head_len, value) = (head.len(), value.unwrap_or_default());
        put_varint(head, i64::try_from(headers.len()).unwrap_or(i64::MAX));
        for (name, value) in headers {
            put_field(head, Some(name));
            put_field(head, *value);
        }
        let (head, tail) = head.split_at(head_len);
        put_varint(&mut self.bytes, i64::try_from(head.len() + value.len() + tail.len()).unwrap_or(i64::MAX));
        self.bytes.put_slice(head);
        self.bytes.put_slice(value);
        self.bytes.put_slice(tail);
        self.header.count += 1;
    }

    /// Bytes so far, with the header, before they are compressed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True before the first record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.count == 0
    }

    /// The finished batch; `None` when it has no record or is longer than 2 GiB.
    #[must_use]
    pub fn build(mut self) -> Option<CheckedBatch> {
        if self.header.count == 0 {
            return None;
        }
        if self.codec != Codec::None {
            self.bytes = compressed(self.codec, self.bytes.get(BATCH_HEADER_LEN..)?)?;
        }
        self.header.last_offset_delta = self.header.count - 1;
        let header = self.header.seal(&mut self.bytes)?;
        Some(CheckedBatch::built(self.bytes, header))
    }
}

/// Records behind room for a header; `None` when the codec fails, which it does for want of memory only.
pub(super) fn compressed(codec: Codec, records: &[u8]) -> Option<BytesMut> {
    let mut out = BytesMut::with_capacity(BATCH_HEADER_LEN + records.len() / 2 + 64);
    out.put_bytes(0, BATCH_HEADER_LEN);
    compress(codec, records, &mut out).ok()?;
    Some(out)
}

fn put_length(out: &mut BytesMut, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |b| i64::try_from(b.len()).unwrap_or(i64::MAX)));
}

fn put_field(out: &mut BytesMut, bytes: Option<&[u8]>) {
    put_length(out, bytes);
    out.put_slice(bytes.unwrap_or_default());
}

/// Writes a zig-zag variable-length integer.
pub(super) fn put_varint(out: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.put_u8(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.put_u8(u8::try_from(rest).unwrap_or(0));
}
