//! Keys and values of the index, one file per keyspace: layout drawing, encode, decode, tests.
//!
//! Keys are hand-laid big-endian so that engine order is the order wanted; values are bincode behind a format byte.

pub mod blob;
pub mod cleaned;
pub mod log;
pub mod marker;
pub mod producer;
pub mod time;

use bincode::{Decode, Encode};

/// Format byte in front of every value of this version.
const VALUE_FORMAT: u8 = 1;
/// No value of the index is longer than this.
const VALUE_LIMIT: usize = 1 << 20;

/// Writes a value: format byte, then bincode.
#[must_use]
pub(crate) fn encode_value<T: Encode>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VALUE_FORMAT];
    let written = bincode::encode_into_std_write(value, &mut bytes, bincode::config::standard());
    assert!(written.is_ok(), "writing to memory does not fail");
    bytes
}

/// Reads a value written by [`encode_value`]; `None` when the format byte, the content or the length is not right.
#[must_use]
pub(crate) fn decode_value<T: Decode<()>>(bytes: &[u8]) -> Option<T> {
    let (format, rest) = bytes.split_first()?;
    let config = bincode::config::standard().with_limit::<VALUE_LIMIT>();
    let (value, read) = bincode::decode_from_slice(rest, config).ok()?;
    (*format == VALUE_FORMAT && read == rest.len()).then_some(value)
}

/// Splits an array off the front of `bytes`.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}
