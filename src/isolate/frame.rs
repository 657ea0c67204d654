//! What goes through the socket, on both sides. Integers are little-endian; values are bincode.
//!
//! A request, then its bytes:
//!
//! | 0..8   | 8..12              | 12..20    | 20..20 + n | ... |
//! |--------|--------------------|-----------|------------|-----|
//! | number | length of value, n | body size | value      | body |
//!
//! With the highest bit of the length set, the body does not follow: it is in the file that child and parent share, at
//! [`shared_place`]. A request may come before the last one is answered; their bodies do not meet.
//!
//! An answer, of the same number. Number 0 is the greeting: whether the child is ready.
//!
//! | 0..8   | 8..12              | 12..12 + n |
//! |--------|--------------------|------------|
//! | number | length of value, n | value      |
//!
//! With the highest bit of the length set it is a piece: a value that belongs to the answer and comes before it.

use bincode::config::{Configuration, standard};
use bincode::serde::{decode_from_slice, encode_to_vec};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest value of a request.
pub(super) const VALUE_MAX: usize = 64 << 10;

/// Longest value of an answer.
pub(super) const ANSWER_MAX: usize = 1 << 20;

/// In a length: the body is in the shared file, or this is a piece.
const MARK: u32 = 1 << 31;

/// Number of the request that tells a child what all others have in common; its answer is a [`Greeting`].
pub(super) const SETUP: u64 = u64::MAX;

/// Number of the request that has no answer: memory that was kept for large bodies is given back.
pub(super) const TIDY: u64 = u64::MAX - 1;

/// Largest body behind which the next request is sent already: nobody waits for long behind it.
pub(super) const AHEAD_MAX: u64 = 16 << 20;

/// Room for a body in the shared file, which takes no more memory than the bodies.
const ROOM: u64 = 1 << 33;

/// Length of the fixed part of a request.
pub(super) const REQUEST_LEN: usize = 20;

/// Length of the fixed part of an answer.
pub(super) const ANSWER_LEN: usize = 12;

/// What the child says first.
pub(super) type Greeting = Result<(), String>;

const CONFIG: Configuration = standard();

/// The fixed part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestHeader {
    pub(super) number: u64,
    pub(super) value_len: usize,
    pub(super) body_bytes: u64,
    /// The body is in the shared file.
    pub(super) shared: bool,
}

/// The fixed part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerHeader {
    pub(super) number: u64,
    pub(super) length: usize,
    /// More of this answer follows.
    pub(super) piece: bool,
}

impl RequestHeader {
    /// `None` if the value is longer than allowed.
    pub(super) fn decode(bytes: &[u8; REQUEST_LEN]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk()?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (value_len, shared) = length(*value_len, VALUE_MAX)?;
        let body_bytes = u64::from_le_bytes(*rest.first_chunk()?);
        Some(Self { number: u64::from_le_bytes(*number), value_len, body_bytes, shared })
    }
}

/// A length of at most `most`, and whether it is marked.
fn length(bytes: [u8; 4], most: usize) -> Option<(usize, bool)> {
    let number = u32::from_le_bytes(bytes);
    let length = usize::try_from(number & !MARK).ok().filter(|length| *length <= most)?;
    Some((length, number & MARK != 0))
}

/// A request up to its body, which is in the `shared` file or follows. `None` if the value is too long.
pub(super) fn request(number: u64, value: &impl Serialize, body_bytes: u64, shared: bool) -> Option<Vec<u8>> {
    let value = encode_to_vec(value, CONFIG).ok().filter(|value| value.len() <= VALUE_MAX)?;
    let length = u32::try_from(value.len()).ok()? | if shared { MARK } else { 0 };
    let fixed = [&number.to_le_bytes()[..], &length.to_le_bytes(), &body_bytes.to_le_bytes()].concat();
    Some([fixed, value].concat())
}

/// The request with this number instead of its own.
pub(super) fn renumber(request: &mut [u8], number: u64) {
    if let Some(held) = request.first_chunk_mut() {
        *held = number.to_le_bytes();
    }
}

/// Where a body begins in the shared file: those of two requests in a row do not meet.
pub(super) fn shared_place(number: u64) -> u64 {
    (number % 2) * ROOM
}

/// A whole answer. `None` if the value is too long.
pub(super) fn answer(number: u64, value: &impl Serialize) -> Option<Vec<u8>> {
    marked(number, &encoded(value)?, 0)
}

/// A value, encoded, that belongs to an answer and comes before it. `None` if it is too long.
pub(super) fn piece(number: u64, value: &[u8]) -> Option<Vec<u8>> {
    marked(number, value, MARK)
}

/// The bytes of a value. `None` if they are too many.
pub(super) fn encoded(value: &impl Serialize) -> Option<Vec<u8>> {
    encode_to_vec(value, CONFIG).ok().filter(|value| value.len() <= ANSWER_MAX)
}

fn marked(number: u64, value: &[u8], mark: u32) -> Option<Vec<u8>> {
    let length = u32::try_from(value.len()).ok().filter(|_| value.len() <= ANSWER_MAX)? | mark;
    Some([&number.to_le_bytes()[..], &length.to_le_bytes(), value].concat())
}

/// The fixed part of an answer; `None` if the value is longer than allowed.
pub(super) fn answer_header(bytes: &[u8; ANSWER_LEN]) -> Option<AnswerHeader> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (length, piece) = length(*rest.first_chunk()?, ANSWER_MAX)?;
    Some(AnswerHeader { number: u64::from_le_bytes(*number), length, piece })
}

/// The value that `bytes` are, all of them.
pub(super) fn value<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let config = CONFIG.with_limit::<ANSWER_MAX>();
    let (value, used) = decode_from_slice(bytes, config).ok()?;
    (used == bytes.len()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_drawn() {
        let bytes = request(7, &"ab", 300, false).unwrap();
        assert_eq!(bytes, b"\x07\0\0\0\0\0\0\0\x03\0\0\0\x2c\x01\0\0\0\0\0\0\x02ab");
        let header = RequestHeader::decode(bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(header, RequestHeader { number: 7, value_len: 3, body_bytes: 300, shared: false });
        assert_eq!(value::<String>(&bytes[REQUEST_LEN..]).as_deref(), Some("ab"));
    }

    #[test]
    fn a_request_whose_body_is_elsewhere_is_marked() {
        let bytes = request(7, &"ab", 300, true).unwrap();
        assert_eq!(bytes, b"\x07\0\0\0\0\0\0\0\x03\0\0\x80\x2c\x01\0\0\0\0\0\0\x02ab");
        let header = RequestHeader::decode(bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(header, RequestHeader { number: 7, value_len: 3, body_bytes: 300, shared: true });
    }

    #[test]
    fn a_request_gets_its_number_when_it_is_sent() {
        let mut bytes = request(0, &"ab", 300, true).unwrap();
        renumber(&mut bytes, 7);
        assert_eq!(bytes, request(7, &"ab", 300, true).unwrap());
    }

    #[test]
    fn bodies_of_requests_in_a_row_do_not_meet() {
        assert!(shared_place(7).abs_diff(shared_place(8)) >= ROOM);
    }

    #[test]
    fn a_piece_is_marked() {
        let bytes = piece(7, &encoded(&Some(1_u8)).unwrap()).unwrap();
        assert_eq!(bytes, b"\x07\0\0\0\0\0\0\0\x02\0\0\x80\x01\x01");
        let header = AnswerHeader { number: 7, length: 2, piece: true };
        assert_eq!(answer_header(bytes.first_chunk().unwrap()), Some(header));
    }

    #[test]
    fn an_answer_is_laid_out_as_drawn() {
        let bytes = answer(7, &Some(1_u8)).unwrap();
        assert_eq!(bytes, b"\x07\0\0\0\0\0\0\0\x02\0\0\0\x01\x01");
        assert_eq!(
            answer_header(bytes.first_chunk().unwrap()),
            Some(AnswerHeader { number: 7, length: 2, piece: false })
        );
        assert_eq!(value::<Option<u8>>(&bytes[ANSWER_LEN..]), Some(Some(1)));
    }

    #[test]
    fn values_that_are_too_long_are_refused_on_both_sides() {
        assert_eq!(request(1, &"x".repeat(VALUE_MAX), 0, false), None);
        assert_eq!(answer(1, &"x".repeat(ANSWER_MAX)), None);
        assert_eq!(RequestHeader::decode(&[0xff; REQUEST_LEN]), None);
        assert_eq!(answer_header(&[0xff; ANSWER_LEN]), None);
    }

    #[test]
    fn bytes_behind_a_value_and_values_cut_short_are_no_value() {
        assert_eq!(value::<u8>(&[1, 2]), None);
        assert_eq!(value::<String>(b"\x05ab"), None);
        // A length that would take all memory.
        assert_eq!(value::<Vec<u64>>(&[0xfd; 9]), None);
    }
}
