//! Kafka record batches, format version 2: building, checking, reading.
//!
//! Layout: <https://kafka.apache.org/documentation/#recordbatch>. The base offset and the leader epoch lie outside the
//! batch's CRC and are filled in when the batch is appended; everything else is kept exactly as the producer sent it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::ids::Offset;

/// Length of a batch header, up to and with the record count.
pub const BATCH_HEADER_LEN: usize = 61;
/// Bytes before the field `batchLength` counts: base offset and the length itself.
const LENGTH_OVERHEAD: usize = 12;
/// The CRC covers everything from here on.
const CRC_FROM: usize = 21;

/// Why bytes are not a batch that can be appended or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or a length field that does not fit the bytes.
    #[error("record batch length is {found}, the bytes at hand say {expected}")]
    Length {
        /// What the batch says.
        found: i64,
        /// What is there.
        expected: i64,
    },
    /// Not format version 2.
    #[error("record batch magic is {0}, only 2 is supported")]
    Magic(i8),
    /// The CRC differs.
    #[error("record batch CRC is {found:#010x}, its bytes give {expected:#010x}")]
    Crc {
        /// What the batch says.
        found: u32,
        /// What its bytes give.
        expected: u32,
    },
    /// Record count and last offset delta do not belong together, or there are no records.
    #[error("record batch says {count} records and last offset delta {last_offset_delta}")]
    Count {
        /// Record count field.
        count: i32,
        /// Last offset delta field.
        last_offset_delta: i32,
    },
    /// A codec this version does not read.
    #[error("record batch is compressed with codec {0}, which is not supported here")]
    Codec(u8),
    /// A record's own fields do not add up.
    #[error("record {index} of the batch is malformed: {what}")]
    Record {
        /// Place of the record in the batch, from 0.
        index: i32,
        /// Which field.
        what: &'static str,
    },
}

/// The fields of a batch header that the log needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Length of the whole batch in bytes.
    pub total_len: usize,
    /// Attribute bits: codec 0..3, timestamp type 3, transactional 4, control 5.
    pub attributes: i16,
    /// Offset of the last record minus the base offset.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, milliseconds since 1970.
    pub base_timestamp: i64,
    /// Largest timestamp in the batch, milliseconds since 1970; -1 for none.
    pub max_timestamp: i64,
    /// Producer id; -1 for none.
    pub producer_id: i64,
    /// Number of records.
    pub count: i32,
    /// CRC as stored.
    crc: u32,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may hold more than one batch.
    ///
    /// # Errors
    /// [`BatchError::Length`] and [`BatchError::Magic`].
    pub fn read(bytes: &[u8]) -> Result<Self, BatchError> {
        let have = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        Self::read_fields(bytes).ok_or(BatchError::Length { found: have, expected: 61 })?
    }

    fn read_fields(bytes: &[u8]) -> Option<Result<Self, BatchError>> {
        let length = i32::from_be_bytes(array(bytes, 8)?);
        let [magic] = array::<1>(bytes, 16)?;
        let header = Self {
            base_offset: i64::from_be_bytes(array(bytes, 0)?),
            total_len: usize::try_from(length).unwrap_or(0).saturating_add(LENGTH_OVERHEAD),
            crc: u32::from_be_bytes(array(bytes, 17)?),
            attributes: i16::from_be_bytes(array(bytes, 21)?),
            last_offset_delta: i32::from_be_bytes(array(bytes, 23)?),
            base_timestamp: i64::from_be_bytes(array(bytes, 27)?),
            max_timestamp: i64::from_be_bytes(array(bytes, 35)?),
            producer_id: i64::from_be_bytes(array(bytes, 43)?),
            count: i32::from_be_bytes(array(bytes, 57)?),
        };
        if magic != 2 {
            return Some(Err(BatchError::Magic(i8::from_be_bytes([magic]))));
        }
        if header.total_len < BATCH_HEADER_LEN || header.total_len > bytes.len() {
            let expected = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            return Some(Err(BatchError::Length { found: i64::from(length) + 12, expected }));
        }
        Some(Ok(header))
    }

    /// The codec: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    #[must_use]
    pub fn codec(&self) -> u8 {
        u8::try_from(self.attributes & 7).unwrap_or(0)
    }
}

/// One batch that may be appended: lengths, magic, CRC and counts have been checked.
#[derive(Debug)]
pub struct CheckedBatch {
    bytes: BytesMut,
    header: BatchHeader,
}

impl CheckedBatch {
    /// Checks that `bytes` are exactly one batch (`kafka.md` 3.2).
    ///
    /// # Errors
    /// See [`BatchError`].
    pub fn check(bytes: BytesMut) -> Result<Self, BatchError> {
        let header = BatchHeader::read(&bytes)?;
        if header.total_len != bytes.len() {
            let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            return Err(BatchError::Length { found: number(header.total_len), expected: number(bytes.len()) });
        }
        let expected = crc32c::crc32c(bytes.get(CRC_FROM..).unwrap_or_default());
        if header.crc != expected {
            return Err(BatchError::Crc { found: header.crc, expected });
        }
        if header.count < 1 || header.last_offset_delta != header.count - 1 {
            return Err(BatchError::Count { count: header.count, last_offset_delta: header.last_offset_delta });
        }
        Ok(Self { bytes, header })
    }

    /// The header, with the base offset as the producer sent it.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The batch as it will be stored: base offset and leader epoch filled in.
    #[must_use]
    pub(crate) fn place(mut self, base_offset: Offset, leader_epoch: i32) -> Bytes {
        if let Some(place) = self.bytes.get_mut(0..8) {
            place.copy_from_slice(&base_offset.to_be_bytes());
        }
        if let Some(place) = self.bytes.get_mut(12..16) {
            place.copy_from_slice(&leader_epoch.to_be_bytes());
        }
        self.bytes.freeze()
    }
}

/// Builds one uncompressed batch record by record.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: BytesMut,
    record: BytesMut,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::with_capacity(4096)
    }
}

impl BatchBuilder {
    /// A builder that expects about `bytes` bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(bytes + BATCH_HEADER_LEN + 64);
        buffer.put_bytes(0, BATCH_HEADER_LEN);
        Self { bytes: buffer, record: BytesMut::new(), count: 0, base_timestamp: 0, max_timestamp: -1 }
    }

    /// Adds one record without headers. `timestamp` is milliseconds since 1970.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let head = &mut self.record;
        head.clear();
        head.reserve(key.map_or(0, <[u8]>::len) + 32);
        head.put_u8(0);
        put_varint(head, timestamp.wrapping_sub(self.base_timestamp));
        put_varint(head, i64::from(self.count));
        put_length(head, key);
        head.put_slice(key.unwrap_or_default());
        put_length(head, value);
        let value = value.unwrap_or_default();
        let len = head.len() + value.len() + 1;
        put_varint(&mut self.bytes, i64::try_from(len).unwrap_or(i64::MAX));
        self.bytes.put_slice(head);
        self.bytes.put_slice(value);
        self.bytes.put_u8(0);
        self.count += 1;
    }

    /// Bytes so far, with the header.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True before the first record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The finished batch; `None` when it has no record or is longer than 2 GiB.
    #[must_use]
    pub fn build(mut self) -> Option<CheckedBatch> {
        let length = i32::try_from(self.bytes.len() - LENGTH_OVERHEAD).ok()?;
        if self.count == 0 {
            return None;
        }
        let mut head = BytesMut::with_capacity(BATCH_HEADER_LEN);
        head.put_i64(0);
        head.put_i32(length);
        head.put_i32(0);
        head.put_i8(2);
        head.put_u32(0);
        head.put_i16(0);
        head.put_i32(self.count - 1);
        head.put_i64(self.base_timestamp);
        head.put_i64(self.max_timestamp);
        head.put_i64(-1);
        head.put_i16(-1);
        head.put_i32(-1);
        head.put_i32(self.count);
        self.bytes.get_mut(..BATCH_HEADER_LEN)?.copy_from_slice(&head);
        let crc = crc32c::crc32c(self.bytes.get(CRC_FROM..)?);
        self.bytes.get_mut(17..CRC_FROM)?.copy_from_slice(&crc.to_be_bytes());
        let header = BatchHeader::read(&self.bytes).ok()?;
        Some(CheckedBatch { bytes: self.bytes, header })
    }
}

fn put_length(out: &mut BytesMut, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |b| i64::try_from(b.len()).unwrap_or(i64::MAX)));
}

/// Writes a zig-zag variable-length integer.
fn put_varint(out: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.put_u8(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.put_u8(u8::try_from(rest).unwrap_or(0));
}

/// One record of a batch.
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
}

/// Iterates over the records of one stored, uncompressed batch. Headers are skipped.
#[derive(Debug)]
pub struct Records {
    body: Bytes,
    header: BatchHeader,
    index: i32,
}

impl Records {
    /// The records of the batch at the start of `batch`.
    ///
    /// # Errors
    /// As [`BatchHeader::read`]; [`BatchError::Codec`] when the batch is compressed.
    pub fn of(batch: &Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::read(batch)?;
        match header.codec() {
            0 => Ok(Self { body: batch.slice(BATCH_HEADER_LEN..header.total_len), header, index: 0 }),
            codec => Err(BatchError::Codec(codec)),
        }
    }

    fn take(&mut self) -> Result<Record, &'static str> {
        let length = self.varint().ok_or("length")?;
        let length = usize::try_from(length).ok().filter(|l| *l <= self.body.len()).ok_or("length")?;
        let rest = self.body.split_off(length);
        let mut record = std::mem::replace(&mut self.body, rest);
        let mut fields = Fields(&mut record);
        fields.skip(1).ok_or("attributes")?;
        let timestamp = self.header.base_timestamp.wrapping_add(fields.varint().ok_or("timestamp delta")?);
        let delta = fields.varint().ok_or("offset delta")?;
        let key = fields.bytes().ok_or("key")?;
        let value = fields.bytes().ok_or("value")?;
        let headers = fields.varint().ok_or("header count")?;
        for _ in 0..headers {
            fields.bytes().ok_or("header key")?;
            fields.bytes().ok_or("header value")?;
        }
        Ok(Record { offset: self.header.base_offset.wrapping_add(delta), timestamp, key, value })
    }

    fn varint(&mut self) -> Option<i64> {
        Fields(&mut self.body).varint()
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.count {
            return None;
        }
        let index = self.index;
        match self.take() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(what) => {
                self.index = self.header.count;
                Some(Err(BatchError::Record { index, what }))
            }
        }
    }
}

struct Fields<'a>(&'a mut Bytes);

impl Fields<'_> {
    fn skip(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.0.len()).then(|| self.0.split_to(count))
    }

    fn varint(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for (index, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index * 7).ok()?)?;
            if byte & 0x80 == 0 {
                self.skip(index + 1)?;
                return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        None
    }

    /// A length and that many bytes; `Some(None)` for length -1.
    fn bytes(&mut self) -> Option<Option<Bytes>> {
        match self.varint()? {
            -1 => Some(None),
            length => self.skip(usize::try_from(length).ok()?).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch() -> CheckedBatch {
        let mut builder = BatchBuilder::default();
        builder.push(1000, Some(b"k"), Some(b"value"));
        builder.push(990, None, None);
        builder.build().unwrap()
    }

    #[test]
    fn golden_bytes_of_a_batch() {
        let bytes = batch().place(5, 3);
        let mut golden = vec![0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 71, 0, 0, 0, 3, 2];
        let mut covered = vec![0, 0, 0, 0, 0, 1];
        covered.extend(1000_i64.to_be_bytes());
        covered.extend(1000_i64.to_be_bytes());
        covered.extend([0xff; 8 + 2 + 4]);
        covered.extend([0, 0, 0, 2]);
        covered.extend([24, 0, 0, 0, 2, b'k', 10, b'v', b'a', b'l', b'u', b'e', 0]);
        covered.extend([12, 0, 19, 2, 1, 1, 0]);
        golden.extend(crc32c::crc32c(&covered).to_be_bytes());
        golden.extend(&covered);
        let length = u32::try_from(golden.len() - 12).unwrap();
        golden[8..12].copy_from_slice(&length.to_be_bytes());
        assert_eq!(bytes, golden);
    }

    #[test]
    fn records_come_back_with_offsets_and_times() {
        let got: Vec<_> = Records::of(&batch().place(5, 0)).unwrap().map(Result::unwrap).collect();
        let first = Record { offset: 5, timestamp: 1000, key: Some("k".into()), value: Some("value".into()) };
        assert_eq!(got, [first, Record { offset: 6, timestamp: 990, key: None, value: None }]);
    }

    #[test]
    fn every_flipped_bit_behind_the_crc_is_refused() {
        let good = batch().place(0, 0);
        for byte in CRC_FROM..good.len() {
            let mut bad = BytesMut::from(&good[..]);
            bad[byte] ^= 0x10;
            let got = CheckedBatch::check(bad);
            assert!(matches!(got, Err(BatchError::Crc { .. })), "byte {byte}: got {got:?}");
        }
        let got = CheckedBatch::check(BytesMut::from(&[&good[..], b"x"].concat()[..]));
        assert!(matches!(got, Err(BatchError::Length { .. })), "got {got:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = batch().place(0, 0).to_vec();
            framed.truncate(BATCH_HEADER_LEN);
            framed.extend(&bytes);
            let length = u32::try_from(framed.len() - 12).unwrap();
            framed[8..12].copy_from_slice(&length.to_be_bytes());
            for batch in [Bytes::from(bytes), Bytes::from(framed)] {
                if let Ok(records) = Records::of(&batch) {
                    prop_assert!(records.count() <= 2);
                }
            }
        }

        #[test]
        fn what_is_pushed_comes_back(records in proptest::collection::vec(
            (any::<i64>(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
             proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200))), 1..20)) {
            let mut builder = BatchBuilder::default();
            for (time, key, value) in &records {
                builder.push(*time, key.as_deref(), value.as_deref());
            }
            let batch = CheckedBatch::check(BytesMut::from(&builder.build().unwrap().place(0, 0)[..])).unwrap();
            let back: Vec<_> = Records::of(&batch.place(7, 0)).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(back.len(), records.len());
            for (got, (time, key, value)) in back.iter().zip(&records) {
                prop_assert_eq!(got.timestamp, *time);
                prop_assert_eq!(got.key.as_deref(), key.as_deref());
                prop_assert_eq!(got.value.as_deref(), value.as_deref());
            }
        }
    }
}
