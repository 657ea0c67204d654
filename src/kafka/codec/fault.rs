//! What can be wrong with bytes that claim to be a message, and with a message that is to become bytes.

use std::fmt;

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The frame ends inside the field.
    #[error("{wanted} bytes wanted, {left} left")]
    Short {
        /// Bytes the field needs.
        wanted: usize,
        /// Bytes the frame still has.
        left: usize,
    },
    /// A length or count below -1.
    #[error("length {0} is negative")]
    NegativeLength(i64),
    /// Null where the schema has none at this version.
    #[error("null is not allowed here")]
    UnexpectedNull,
    /// A string that is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A varint that is longer than its type.
    #[error("varint is too long")]
    VarintTooLong,
    /// An array count that the rest of the frame cannot hold.
    #[error("{count} elements claimed, the {left} bytes left cannot hold them")]
    TooManyElements {
        /// Count on the wire.
        count: usize,
        /// Bytes the frame still has.
        left: usize,
    },
    /// The arrays of this message need more memory than the reader may use.
    #[error("arrays need {wanted} bytes of memory, {left} may still be used")]
    OverBudget {
        /// Bytes this array would take.
        wanted: usize,
        /// Bytes of the budget not used yet.
        left: usize,
    },
    /// Bytes after the last field.
    #[error("{0} bytes left over")]
    Trailing(usize),
    /// A version that is not declared.
    #[error("version is not one of {min} to {max}")]
    Version {
        /// Lowest version declared.
        min: i16,
        /// Highest version declared.
        max: i16,
    },
    /// An API key that is not declared.
    #[error("API key {0} is unknown")]
    UnknownApiKey(i16),
}

/// A [`Fault`] with its place: message, version, field and position in the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(Box<Place>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    fault: Fault,
    position: usize,
    message: &'static str,
    version: i16,
    /// Innermost field first.
    fields: Vec<&'static str>,
}

impl DecodeError {
    /// A fault found at `position`, counted from the first byte the reader was given.
    #[must_use]
    pub fn new(fault: Fault, position: usize) -> Self {
        Self(Box::new(Place { fault, position, message: "", version: 0, fields: Vec::new() }))
    }

    /// What was wrong.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.0.fault
    }

    /// Name of the message, empty if it is not known yet.
    #[must_use]
    pub fn message(&self) -> &'static str {
        self.0.message
    }

    /// The field as `outer.inner`, empty if the fault lies outside of fields.
    #[must_use]
    pub fn field(&self) -> String {
        self.0.fields.iter().rev().copied().collect::<Vec<_>>().join(".")
    }

    pub(super) fn under(mut self, field: &'static str) -> Self {
        self.0.fields.push(field);
        self
    }

    pub(super) fn within(mut self, message: &'static str, version: i16) -> Self {
        self.0.message = message;
        self.0.version = version;
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { fault, position, message, version, .. } = &*self.0;
        if !message.is_empty() {
            write!(f, "{message} version {version}, ")?;
        }
        match self.field().as_str() {
            "" => write!(f, "byte {position}: {fault}"),
            field => write!(f, "field {field}, byte {position}: {fault}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Why a message cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string, an array or the whole frame is longer than its length field can say.
    #[error("{len} does not fit into a length field of {width} bytes")]
    TooLong {
        /// Length or count to be written.
        len: usize,
        /// Width of the length field.
        width: usize,
    },
    /// A version that is not declared.
    #[error("{message}: version {version} is not declared")]
    Version {
        /// Name of the message.
        message: &'static str,
        /// Version asked for.
        version: i16,
    },
}
