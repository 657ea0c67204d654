//! The writer: collects a frame in pieces, so that record batches leave without being copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::fault::EncodeError;

/// From this size on bytes become a piece of their own instead of being copied.
pub const PIECE_BYTES: usize = 1024;

/// Collects the bytes of one message: small fields in one buffer, large ones as they are, in between.
///
/// Writing cannot fail; the first thing that could not be said is remembered and reported by [`Writer::finish`].
#[derive(Debug, Default)]
pub struct Writer {
    small: BytesMut,
    /// Each with the place in `small` it goes to; places never decrease.
    large: Vec<(usize, Bytes)>,
    large_bytes: usize,
    error: Option<EncodeError>,
}

impl Writer {
    /// A writer with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.small.len() + self.large_bytes
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Remembers the first reason why this message cannot be written.
    pub fn fail(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }

    /// Bytes that are copied.
    pub fn slice(&mut self, bytes: &[u8]) {
        self.small.put_slice(bytes);
    }

    /// Bytes that are shared if they are large.
    pub fn shared(&mut self, bytes: &Bytes) {
        if bytes.len() < PIECE_BYTES {
            self.small.put_slice(bytes);
        } else {
            self.large_bytes += bytes.len();
            self.large.push((self.small.len(), bytes.clone()));
        }
    }

    /// An unsigned varint.
    pub fn uvarint(&mut self, value: u32) {
        self.varint_bits(u64::from(value));
    }

    /// A zig-zag varint of 32 bits.
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// A zig-zag varint of 64 bits.
    pub fn varlong(&mut self, value: i64) {
        self.varint_bits(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn varint_bits(&mut self, mut value: u64) {
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.small.put_u8(low | 0x80);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.small.put_u8(low);
    }

    /// A length of 16 bits or compact; `None` is null.
    pub fn short_length(&mut self, length: Option<usize>, compact: bool) {
        match length.map(i16::try_from).transpose() {
            _ if compact => self.compact_length(length),
            Ok(length) => self.small.put_i16(length.unwrap_or(-1)),
            Err(_) => self.fail(EncodeError::TooLong { len: length.unwrap_or_default(), width: 2 }),
        }
    }

    /// A length or count of 32 bits or compact; `None` is null.
    pub fn length(&mut self, length: Option<usize>, compact: bool) {
        match length.map(i32::try_from).transpose() {
            _ if compact => self.compact_length(length),
            Ok(length) => self.small.put_i32(length.unwrap_or(-1)),
            Err(_) => self.fail(EncodeError::TooLong { len: length.unwrap_or_default(), width: 4 }),
        }
    }

    fn compact_length(&mut self, length: Option<usize>) {
        let Some(len) = length else { return self.uvarint(0) };
        match i32::try_from(len) {
            Ok(short) => self.uvarint(short.cast_unsigned() + 1),
            Err(_) => self.fail(EncodeError::TooLong { len, width: 4 }),
        }
    }

    /// One tagged field: tag, size, and what `write` writes.
    pub fn tagged(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::new();
        write(&mut inner);
        self.uvarint(tag);
        match u32::try_from(inner.len()) {
            Ok(size) => self.uvarint(size),
            Err(_) => self.fail(EncodeError::TooLong { len: inner.len(), width: 4 }),
        }
        let start = self.small.len();
        self.small.unsplit(inner.small);
        self.large.extend(inner.large.into_iter().map(|(at, bytes)| (start + at, bytes)));
        self.large_bytes += inner.large_bytes;
        if let Some(error) = inner.error {
            self.fail(error);
        }
    }

    /// The pieces in order, without a length prefix.
    ///
    /// # Errors
    /// The first thing that could not be written.
    pub fn finish(self) -> Result<Frame, EncodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let (len, mut rest) = (self.len(), self.small.freeze());
        let mut pieces = VecDeque::with_capacity(2 * self.large.len() + 1);
        let mut done = 0;
        for (at, bytes) in self.large {
            let before = rest.split_to(at - done);
            done = at;
            pieces.extend([before, bytes].into_iter().filter(|piece| !piece.is_empty()));
        }
        pieces.extend((!rest.is_empty()).then_some(rest));
        Ok(Frame { pieces, len })
    }

    /// The pieces in order, behind the 4-byte length that opens every frame.
    ///
    /// # Errors
    /// The first thing that could not be written.
    pub fn finish_frame(self) -> Result<Frame, EncodeError> {
        let mut frame = self.finish()?;
        let len = i32::try_from(frame.len).map_err(|_| EncodeError::TooLong { len: frame.len, width: 4 })?;
        frame.pieces.push_front(Bytes::copy_from_slice(&len.to_be_bytes()));
        frame.len += 4;
        Ok(frame)
    }
}

/// A finished message as pieces, for a vectored write (`AsyncWriteExt::write_all_buf`).
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Frame {
    /// The pieces not written yet, none of them empty.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// All of it in one piece; copies if there are several.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        match self.pieces.len() {
            1 => self.pieces.pop_front().unwrap_or_default(),
            _ => self.copy_to_bytes(self.len),
        }
    }
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advance({count}) past the end of a frame of {} bytes", self.len);
        self.len -= count;
        while count > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            let step = count.min(piece.len());
            piece.advance(step);
            count -= step;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        slices.iter_mut().zip(&self.pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }
}
