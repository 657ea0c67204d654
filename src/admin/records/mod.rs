//! Records of one topic, read and written by hand: what a line of the answer and a line of a request look like.
//!
//! A reader goes through a topic page by page and says itself where it is, so that the server keeps nothing for it and
//! nobody holds a scan for longer than a page. A writer sends a list of records, which become durable all or not at all.

mod append;
mod hash;
mod read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::scan::DamagedRange;
use crate::broker::Offset;

pub use append::{AppendRecordsError, Prepared};
pub use read::{Page, ReadRecordsError, Start, StartAt};

/// Bytes of a record in JSON: text where they are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Data {
    /// The bytes themselves.
    Text(String),
    /// The bytes in base64, standard alphabet, padded.
    Binary {
        /// In base64.
        base64: String,
    },
}

impl Data {
    /// From bytes.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Binary { base64: STANDARD.encode(error.as_bytes()) },
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// Text for people, when it is not base64.
    pub fn into_bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Binary { base64 } => STANDARD.decode(base64).map_err(|error| format!("not base64: {error}")),
        }
    }
}

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderLine {
    /// Its name.
    pub name: Data,
    /// Its value.
    #[serde(default)]
    pub value: Option<Data>,
}

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewRecord {
    /// Where it goes; by its key when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// Milliseconds since 1970; now when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<i64>,
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Data>,
    /// The value; absent for a tombstone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Data>,
    /// In this order; names may repeat.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderLine>,
}

/// What became of records that were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Produced {
    /// The topic.
    pub topic: String,
    /// How many are durable.
    pub records: u64,
    /// True when the topic was made for them.
    pub created: bool,
    /// Where they are, by partition.
    pub partitions: Vec<ProducedTo>,
}

/// Records of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducedTo {
    /// The partition.
    pub partition: i32,
    /// Offset of the first.
    pub first_offset: Offset,
    /// Offset of the last.
    pub last_offset: Offset,
}

impl Produced {
    /// Takes in what became of the next records.
    pub fn add(&mut self, next: Self) {
        self.records += next.records;
        self.created |= next.created;
        for to in next.partitions {
            match self.partitions.iter_mut().find(|known| known.partition == to.partition) {
                Some(known) => known.last_offset = to.last_offset,
                None => self.partitions.push(to),
            }
        }
        self.partitions.sort_by_key(|to| to.partition);
    }
}

/// A part of a partition that is still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// The next offset.
    pub next: Offset,
    /// One past the last that is there.
    pub end: Offset,
}

/// A record as it is read.
#[derive(Debug, Serialize)]
pub struct RecordLine {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: Offset,
    /// Milliseconds since 1970; -1 for none.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Data>,
    /// The value.
    #[serde(flatten)]
    pub value: Value,
    /// In the producer's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderLine>,
}

/// The value of a record.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// Its bytes; `None` for a tombstone.
    Value(Option<Data>),
    /// The event it is, as consumers see it.
    Event(Box<RawValue>),
}

/// One line of a page.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged, try_from = "Line")]
pub enum Found {
    /// A record.
    Record(Box<RecordLine>),
    /// Offsets that cannot be read.
    Damage {
        /// Where.
        damage: DamagedRange,
    },
    /// A value in an event topic that is no event; the record follows.
    Odd {
        /// Where, and what is wrong.
        odd: DamagedRange,
    },
    /// The last line: where to go on. A page without it broke off.
    End {
        /// In the order asked for.
        end: Vec<Span>,
    },
}

/// A [`Found`] as it is read: raw JSON cannot be read inside an untagged enum.
#[derive(Deserialize)]
struct Line {
    partition: Option<i32>,
    #[serde(default)]
    offset: Offset,
    #[serde(default)]
    timestamp_ms: i64,
    #[serde(default)]
    key: Option<Data>,
    #[serde(default)]
    value: Option<Data>,
    event: Option<Box<RawValue>>,
    #[serde(default)]
    headers: Vec<HeaderLine>,
    damage: Option<DamagedRange>,
    odd: Option<DamagedRange>,
    end: Option<Vec<Span>>,
}

impl TryFrom<Line> for Found {
    type Error = &'static str;

    fn try_from(line: Line) -> Result<Self, Self::Error> {
        let Line { partition, offset, timestamp_ms, key, value, event, headers, damage, odd, end } = line;
        match (partition, damage, odd, end) {
            (Some(partition), ..) => {
                let value = event.map_or(Value::Value(value), Value::Event);
                Ok(Self::Record(Box::new(RecordLine { partition, offset, timestamp_ms, key, value, headers })))
            }
            (None, Some(damage), ..) => Ok(Self::Damage { damage }),
            (None, None, Some(odd), _) => Ok(Self::Odd { odd }),
            (None, None, None, Some(end)) => Ok(Self::End { end }),
            (None, None, None, None) => Err("neither a record nor damage nor the end"),
        }
    }
}

#[cfg(test)]
mod tests;
