//! Kafka record batches, format version 2: building, checking, reading, cleaning.
//!
//! Layout: <https://kafka.apache.org/documentation/#recordbatch>. The base offset and the leader epoch lie outside the
//! batch's CRC and are filled in when the batch is appended; everything else is kept exactly as the producer sent it,
//! unless the topic wants the append time in its records.

mod builder;
mod check;
mod header;
mod records;
mod retain;

pub use builder::{BatchBuilder, HeaderRef};
pub use check::{CheckedBatch, RecordRules};
pub use header::{BatchHeader, Producer};
pub use records::{Record, RecordHeader, Records};
pub use retain::{Horizon, Retained, retain};

use crate::compress::Codec;
use crate::ids::Offset;

/// Length of a batch header, up to and with the record count.
pub const BATCH_HEADER_LEN: usize = 61;
/// Bytes of records that a compressed batch may hold where nobody says otherwise: eight times the largest batch that a
/// topic takes by default.
pub const RECORDS_LIMIT: usize = 64 << 20;

/// Why bytes are not a batch that can be appended or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// No batch at all.
    #[error("there is no record batch")]
    Empty,
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
    /// Bytes behind the batch.
    #[error("record batch ends after {first} of {all} bytes; exactly one batch is taken at a time")]
    Several {
        /// Length of the first batch.
        first: usize,
        /// Length of everything.
        all: usize,
    },
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
    /// A producer id without an epoch or a sequence number.
    #[error("record batch of producer {producer_id} has epoch {producer_epoch} and base sequence {base_sequence}")]
    Sequence {
        /// The producer.
        producer_id: i64,
        /// Producer epoch field.
        producer_epoch: i16,
        /// Base sequence field.
        base_sequence: i32,
    },
    /// A control batch: clients may not write one.
    #[error("record batch is a control batch")]
    Control,
    /// A codec number that stands for none.
    #[error("record batch is compressed with unknown codec {0}")]
    Codec(u8),
    /// A compressed batch that holds more than it may.
    #[error("record batch at offset {base_offset}, compressed with {codec}, holds more than {limit_bytes} bytes")]
    TooLarge {
        /// Base offset of the batch, as far as it has one.
        base_offset: Offset,
        /// Its codec.
        codec: Codec,
        /// What it may hold.
        limit_bytes: usize,
    },
    /// A compressed batch that is not what its codec writes.
    #[error("record batch at offset {base_offset} is not {codec}: {reason}")]
    Compression {
        /// Base offset of the batch, as far as it has one.
        base_offset: Offset,
        /// Its codec.
        codec: Codec,
        /// What the codec says.
        reason: String,
    },
    /// A record's own fields do not add up.
    #[error("record {index} of the batch is malformed: {what}")]
    Record {
        /// Place of the record in the batch, from 0.
        index: i32,
        /// Which field.
        what: &'static str,
    },
    /// A record without a key where the topic needs one.
    #[error("record {index} of the batch has no key; the topic is compacted")]
    NoKey {
        /// Place of the record in the batch, from 0.
        index: i32,
    },
    /// A timestamp that the topic does not take.
    #[error("record {index} of the batch has timestamp {timestamp}, outside {earliest} to {latest}")]
    Timestamp {
        /// Place of the record in the batch, from 0.
        index: i32,
        /// Milliseconds since 1970.
        timestamp: i64,
        /// The earliest that is taken.
        earliest: i64,
        /// The latest that is taken.
        latest: i64,
    },
    /// Bytes behind the last record.
    #[error("{bytes} bytes follow the last record of the batch")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests;
