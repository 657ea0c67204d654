//! Field types: how each of them is read and written, in both layouts of the protocol.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use super::api::ApiKey;
use super::fault::{DecodeError, Fault};
use super::reader::Reader;
use super::writer::Writer;
use crate::kafka::error::ErrorCode;

/// Version of the message being read or written, and whether that version has compact lengths and tagged fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Version of the API.
    pub version: i16,
    /// Compact lengths and tagged fields.
    pub flexible: bool,
}

/// A value inside a message.
pub trait Field: Sized + Default {
    /// Bytes the value takes at least.
    fn min_size(layout: Layout) -> usize;
    /// Reads one.
    ///
    /// # Errors
    /// What was wrong with the bytes, and where.
    fn decode(reader: &mut Reader, layout: Layout) -> Result<Self, DecodeError>;
    /// Writes one.
    fn encode(&self, writer: &mut Writer, layout: Layout);
}

/// A value that can be null on the wire, where its schema allows that.
pub trait Nullable: Field {
    /// Reads one or null.
    ///
    /// # Errors
    /// What was wrong with the bytes, and where.
    fn decode_nullable(reader: &mut Reader, layout: Layout) -> Result<Option<Self>, DecodeError>;
    /// Writes null.
    fn encode_null(writer: &mut Writer, layout: Layout);
    /// Writes one where null would have been possible.
    fn encode_present(&self, writer: &mut Writer, layout: Layout);
}

/// A whole message, with its name and versions.
pub trait Message: Field {
    /// Name in the protocol guide.
    const NAME: &'static str;
    /// Lowest and highest version declared.
    const VERSIONS: (i16, i16);
    /// First version with compact lengths and tagged fields.
    const FIRST_FLEXIBLE: Option<i16>;

    /// The layout of a version.
    #[must_use]
    fn layout(version: i16) -> Layout {
        Layout { version, flexible: Self::FIRST_FLEXIBLE.is_some_and(|first| version >= first) }
    }

    /// Reads the message; a field that this version lacks gets its default.
    ///
    /// # Errors
    /// Message, version, field and what was wrong. Bytes behind the message are left in the reader.
    fn read_message(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let (min, max) = Self::VERSIONS;
        if version < min || version > max {
            return Err(reader.fault(Fault::Version { min, max }).within(Self::NAME, version));
        }
        Self::decode(reader, Self::layout(version)).map_err(|error| error.within(Self::NAME, version))
    }

    /// Writes the message; a field that this version lacks is left out, a null it does not allow becomes empty.
    fn write_message(&self, writer: &mut Writer, version: i16) {
        let (min, max) = Self::VERSIONS;
        if version < min || version > max {
            return writer.fail(super::EncodeError::Version { message: Self::NAME, version });
        }
        self.encode(writer, Self::layout(version));
    }
}

/// A message that asks; its answer is known.
pub trait RequestMessage: Message {
    /// API key of request and answer.
    const KEY: ApiKey;
    /// The answer.
    type Response: Message;
}

macro_rules! fixed {
    ($($ty:ty: $size:literal),*) => { $(
        impl Field for $ty {
            fn min_size(_: Layout) -> usize {
                $size
            }

            fn decode(reader: &mut Reader, _: Layout) -> Result<Self, DecodeError> {
                reader.array().map(Self::from_be_bytes)
            }

            fn encode(&self, writer: &mut Writer, _: Layout) {
                writer.slice(&self.to_be_bytes());
            }
        }
    )* };
}

fixed!(i8: 1, i16: 2, u16: 2, i32: 4, u32: 4, i64: 8, f64: 8);

impl Field for bool {
    fn min_size(_: Layout) -> usize {
        1
    }

    fn decode(reader: &mut Reader, _: Layout) -> Result<Self, DecodeError> {
        Ok(reader.array()? != [0])
    }

    fn encode(&self, writer: &mut Writer, _: Layout) {
        writer.slice(&[u8::from(*self)]);
    }
}

impl Field for ErrorCode {
    fn min_size(_: Layout) -> usize {
        2
    }

    fn decode(reader: &mut Reader, _: Layout) -> Result<Self, DecodeError> {
        Ok(Self::from(i16::from_be_bytes(reader.array()?)))
    }

    fn encode(&self, writer: &mut Writer, _: Layout) {
        writer.slice(&self.code().to_be_bytes());
    }
}

/// A topic id, directory id or the like; all zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// What stands for none.
    pub const ZERO: Self = Self([0; 16]);
}

impl Field for Uuid {
    fn min_size(_: Layout) -> usize {
        16
    }

    fn decode(reader: &mut Reader, _: Layout) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }

    fn encode(&self, writer: &mut Writer, _: Layout) {
        writer.slice(&self.0);
    }
}

/// A string of a message: UTF-8, usually a slice of the frame. What outlives the request should be a `String`.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Str(Bytes);

impl Str {
    /// Checks that the bytes are UTF-8.
    #[must_use]
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a Str is made of UTF-8 only")
    }
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<&'static str> for Str {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

/// Record batches as they are, in runs that follow each other.
#[derive(Clone, Debug, Default)]
pub struct Records(pub Vec<Bytes>);

impl Records {
    /// Bytes of all runs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is not one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// All of it in one piece; copies if there are several.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self.0.as_slice() {
            [one] => one.clone(),
            runs => runs.concat().into(),
        }
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(runs: Vec<Bytes>) -> Self {
        Self(runs)
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

fn width(layout: Layout, fixed: usize) -> usize {
    if layout.flexible { 1 } else { fixed }
}

impl<T: Nullable> Field for Option<T> {
    fn min_size(layout: Layout) -> usize {
        T::min_size(layout).min(1)
    }

    fn decode(reader: &mut Reader, layout: Layout) -> Result<Self, DecodeError> {
        T::decode_nullable(reader, layout)
    }

    fn encode(&self, writer: &mut Writer, layout: Layout) {
        match self {
            Some(value) => value.encode_present(writer, layout),
            None => T::encode_null(writer, layout),
        }
    }
}

/// Implements [`Field`] over [`Nullable`] for the types whose null is a length.
macro_rules! by_length {
    ([$($generic:tt)*] $ty:ty, $width:literal) => {
        impl $($generic)* Field for $ty {
            fn min_size(layout: Layout) -> usize {
                width(layout, $width)
            }

            fn decode(reader: &mut Reader, layout: Layout) -> Result<Self, DecodeError> {
                match Self::decode_nullable(reader, layout)? {
                    Some(value) => Ok(value),
                    None => Err(reader.fault(Fault::UnexpectedNull)),
                }
            }

            fn encode(&self, writer: &mut Writer, layout: Layout) {
                self.encode_present(writer, layout);
            }
        }
    };
}

by_length!([] Str, 2);
by_length!([] Bytes, 4);
by_length!([] Records, 4);
by_length!([<T: Field>] Vec<T>, 4);

impl Nullable for Str {
    fn decode_nullable(reader: &mut Reader, layout: Layout) -> Result<Option<Self>, DecodeError> {
        let Some(length) = reader.short_length(layout.flexible)? else { return Ok(None) };
        let start = reader.position();
        match Self::from_utf8(reader.take(length)?) {
            Some(text) => Ok(Some(text)),
            None => Err(DecodeError::new(Fault::NotUtf8, start)),
        }
    }

    fn encode_null(writer: &mut Writer, layout: Layout) {
        writer.short_length(None, layout.flexible);
    }

    fn encode_present(&self, writer: &mut Writer, layout: Layout) {
        writer.short_length(Some(self.0.len()), layout.flexible);
        writer.shared(&self.0);
    }
}

impl Nullable for Bytes {
    fn decode_nullable(reader: &mut Reader, layout: Layout) -> Result<Option<Self>, DecodeError> {
        reader.length(layout.flexible)?.map(|length| reader.take(length)).transpose()
    }

    fn encode_null(writer: &mut Writer, layout: Layout) {
        writer.length(None, layout.flexible);
    }

    fn encode_present(&self, writer: &mut Writer, layout: Layout) {
        writer.length(Some(self.len()), layout.flexible);
        writer.shared(self);
    }
}

impl Nullable for Records {
    fn decode_nullable(reader: &mut Reader, layout: Layout) -> Result<Option<Self>, DecodeError> {
        Ok(Bytes::decode_nullable(reader, layout)?.map(|run| Self(vec![run])))
    }

    fn encode_null(writer: &mut Writer, layout: Layout) {
        writer.length(None, layout.flexible);
    }

    fn encode_present(&self, writer: &mut Writer, layout: Layout) {
        writer.length(Some(self.len()), layout.flexible);
        self.0.iter().for_each(|run| writer.shared(run));
    }
}

impl<T: Field> Nullable for Vec<T> {
    fn decode_nullable(reader: &mut Reader, layout: Layout) -> Result<Option<Self>, DecodeError> {
        let Some(count) = reader.length(layout.flexible)? else { return Ok(None) };
        let mut values = reader.room(count, T::min_size(layout))?;
        for _ in 0..count {
            values.push(T::decode(reader, layout)?);
        }
        Ok(Some(values))
    }

    fn encode_null(writer: &mut Writer, layout: Layout) {
        writer.length(None, layout.flexible);
    }

    fn encode_present(&self, writer: &mut Writer, layout: Layout) {
        writer.length(Some(self.len()), layout.flexible);
        self.iter().for_each(|value| value.encode(writer, layout));
    }
}
