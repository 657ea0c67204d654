//! The reader: takes a message apart without copying, and never asks for more memory than the message can fill.

use bytes::{Buf, Bytes};

use super::fault::{DecodeError, Fault};

/// Memory that the arrays of one message may take, unless the caller says otherwise.
pub const ARRAY_BUDGET_BYTES: usize = 64 << 20;

/// A cursor over the bytes of one frame; strings and byte fields are slices of it.
///
/// Nothing here panics or trusts a length: every read is checked against the bytes left, every array against the bytes
/// its elements need at least and against a budget of memory.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    /// Position just behind `bytes`, counted from the first byte.
    end: usize,
    budget_bytes: usize,
}

impl Reader {
    /// A reader over a frame, without its length prefix.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self::with_budget(bytes, ARRAY_BUDGET_BYTES)
    }

    /// The same, with another bound on the memory that arrays may take.
    #[must_use]
    pub fn with_budget(bytes: Bytes, budget_bytes: usize) -> Self {
        Self { end: bytes.len(), bytes, budget_bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.end - self.bytes.len()
    }

    /// Memory that arrays may still take.
    #[must_use]
    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// An error at the current position.
    #[must_use]
    pub fn fault(&self, fault: Fault) -> DecodeError {
        DecodeError::new(fault, self.position())
    }

    /// Refuses bytes after the last field.
    ///
    /// # Errors
    /// [`Fault::Trailing`]. Apache Kafka does not check this, so a server may choose not to.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.fault(Fault::Trailing(self.left()))) }
    }

    /// The next `len` bytes, as a slice of the frame.
    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.left() {
            return Err(self.fault(Fault::Short { wanted: len, left: self.left() }));
        }
        Ok(self.bytes.split_to(len))
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(found) = self.bytes.first_chunk::<N>().copied() else {
            return Err(self.fault(Fault::Short { wanted: N, left: self.left() }));
        };
        self.bytes.advance(N);
        Ok(found)
    }

    /// An unsigned varint of at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let wide = self.varint_bits(5)?;
        u32::try_from(wide).map_err(|_| self.fault(Fault::VarintTooLong))
    }

    /// A zig-zag varint of 32 bits, as in records.
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let wide = self.uvarint()?;
        Ok((wide >> 1).cast_signed() ^ -(wide & 1).cast_signed())
    }

    /// A zig-zag varint of 64 bits, as in records.
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let wide = self.varint_bits(10)?;
        Ok((wide >> 1).cast_signed() ^ -(wide & 1).cast_signed())
    }

    fn varint_bits(&mut self, most: u32) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for step in 0..most {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if step == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * step);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.fault(Fault::VarintTooLong))
    }

    /// A length whose 16-bit or compact form has -1 or 0 for null.
    pub fn short_length(&mut self, compact: bool) -> Result<Option<usize>, DecodeError> {
        if compact {
            return self.compact_length();
        }
        let length = i16::from_be_bytes(self.array()?);
        self.signed_length(i64::from(length))
    }

    /// A length or count whose 32-bit or compact form has -1 or 0 for null.
    pub fn length(&mut self, compact: bool) -> Result<Option<usize>, DecodeError> {
        if compact {
            return self.compact_length();
        }
        let length = i32::from_be_bytes(self.array()?);
        self.signed_length(i64::from(length))
    }

    fn signed_length(&self, length: i64) -> Result<Option<usize>, DecodeError> {
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| self.fault(Fault::NegativeLength(length))),
        }
    }

    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        let length = usize::try_from(self.uvarint()?).map_err(|_| self.fault(Fault::VarintTooLong))?;
        Ok(length.checked_sub(1))
    }

    /// An empty vector with room for `count` elements, once it is certain that the frame can hold them.
    ///
    /// # Errors
    /// [`Fault::TooManyElements`] if `count` elements of `min_size` wire bytes are more than what is left,
    /// [`Fault::OverBudget`] if the arrays of this message would take more memory than agreed.
    pub fn room<T>(&mut self, count: usize, min_size: usize) -> Result<Vec<T>, DecodeError> {
        if count > self.left() / min_size.max(1) {
            return Err(self.fault(Fault::TooManyElements { count, left: self.left() }));
        }
        let wanted = count.saturating_mul(size_of::<T>());
        let Some(budget_bytes) = self.budget_bytes.checked_sub(wanted) else {
            return Err(self.fault(Fault::OverBudget { wanted, left: self.budget_bytes }));
        };
        self.budget_bytes = budget_bytes;
        Ok(Vec::with_capacity(count))
    }

    /// Reads a section of tagged fields: `known` reads the ones it knows and says so, the others are skipped.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Self) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = usize::try_from(self.uvarint()?).map_err(|_| self.fault(Fault::VarintTooLong))?;
            if size > self.left() {
                return Err(self.fault(Fault::Short { wanted: size, left: self.left() }));
            }
            let rest = self.bytes.split_off(size);
            self.end -= rest.len();
            if known(tag, self)? {
                self.finish()?;
            }
            self.end += rest.len();
            self.bytes = rest;
        }
        Ok(())
    }
}
