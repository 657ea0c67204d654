//! Reading a topic page by page.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use azulite_storage::Record;
use serde_json::value::RawValue;

use super::{Data, Found, HeaderLine, RecordLine, Span, Value};
use crate::admin::Admin;
use crate::admin::scan::{DamagedRange, Flow, Step, scan_range};
use crate::broker::{Offset, Partition, PartitionNumber, ReadError, Topic, Waiter};
use crate::dispatcher::model::{self, Model, Timestamp};
use crate::dispatcher::topic::TopicRef;

/// Where a reader begins in every partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record there is.
    Earliest,
    /// Behind the last.
    Latest,
    /// At an offset.
    Offset(Offset),
    /// At the first record of that time or later, milliseconds since 1970.
    Time(i64),
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        let offset = || text.parse().ok().filter(|offset| *offset >= 0).map(Self::Offset);
        let milliseconds = || text.strip_prefix('@')?.parse().ok().map(Self::Time);
        let time = || Timestamp::parse(text).ok().map(|time| Self::Time(time.millis()));
        offset().or_else(milliseconds).or_else(time).ok_or_else(|| {
            "must be earliest, latest, an offset, a time such as 2026-01-02T03:04:05Z, or @ and milliseconds since 1970"
                .to_owned()
        })
    }
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Everywhere the same, in one partition or in all.
    At {
        /// Where.
        from: StartAt,
        /// The partition; all when `None`.
        partition: Option<i32>,
    },
    /// Where an earlier page ended: partition, next offset, and one past the last that is wanted.
    Positions(Vec<(i32, Offset, Option<Offset>)>),
}

impl FromStr for Start {
    type Err = String;

    /// Positions: `PARTITION:NEXT` or `PARTITION:NEXT-END`, separated by commas.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let position = |part: &str| {
            let (partition, range) = part.split_once(':')?;
            let (next, end) = range.split_once('-').map_or((range, None), |(next, end)| (next, Some(end)));
            let next: Offset = next.parse().ok().filter(|next| *next >= 0)?;
            let end = end.map(str::parse).transpose().ok()?;
            Some((partition.parse().ok()?, next, end))
        };
        let positions: Option<Vec<_>> = text.split(',').map(position).collect();
        positions.map(Self::Positions).ok_or_else(|| format!("{text:?} is not a list of PARTITION:NEXT-END"))
    }
}

impl fmt::Display for StartAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Offset(offset) => write!(f, "{offset}"),
            Self::Time(time) => write!(f, "@{time}"),
        }
    }
}

impl fmt::Display for Start {
    /// As parameters of a request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { from, partition: None } => write!(f, "from={from}"),
            Self::At { from, partition: Some(partition) } => write!(f, "from={from}&partition={partition}"),
            Self::Positions(positions) => {
                f.write_str("positions=")?;
                for (number, (partition, next, end)) in positions.iter().enumerate() {
                    let comma = if number == 0 { "" } else { "," };
                    write!(f, "{comma}{partition}:{next}")?;
                    end.map_or(Ok(()), |end| write!(f, "-{end}"))?;
                }
                Ok(())
            }
        }
    }
}

/// How much a page may hold.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Records, at most.
    pub max_records: u64,
    /// Bytes of records, about; always at least one record.
    pub max_bytes: usize,
    /// Whether events are shown as events; else as the bytes they are.
    pub decode: bool,
}

/// Why a page could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum ReadRecordsError {
    /// There is no such topic.
    #[error("there is no topic {0:?}")]
    Topic(String),
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}, only 0 to {last}")]
    Partition {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: i32,
        /// The last there is.
        last: usize,
    },
    /// No partition asked for has the offset.
    #[error("topic {topic} has no offset {offset}: the next one to be written is at most {end}")]
    Offset {
        /// The topic.
        topic: String,
        /// What was asked for.
        offset: Offset,
        /// The highest end of all its partitions.
        end: Offset,
    },
    /// The log failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Admin {
    /// Finds the topic, and where in it a page begins and ends.
    ///
    /// # Errors
    /// See [`ReadRecordsError`].
    pub fn spans(&self, topic: &str, start: &Start) -> Result<(Arc<Topic>, Vec<Span>), ReadRecordsError> {
        let topic = self.broker.log().topic(topic).ok_or_else(|| ReadRecordsError::Topic(topic.to_owned()))?;
        let spans = match start {
            Start::At { from, partition: None } => {
                let all = topic.partitions.iter().map(|partition| self.first_span(partition, *from));
                all.collect::<Result<Vec<_>, _>>()?
            }
            Start::At { from, partition: Some(index) } => {
                vec![self.first_span(find(&topic, *index)?, *from)?]
            }
            Start::Positions(positions) => {
                let span = |(index, next, end): &(i32, Offset, Option<Offset>)| {
                    let high_watermark = find(&topic, *index)?.offsets().high_watermark;
                    let end = end.map_or(high_watermark, |end| end.min(high_watermark));
                    Ok(Span { partition: *index, next: *next, end })
                };
                positions.iter().map(span).collect::<Result<_, ReadRecordsError>>()?
            }
        };
        if let Start::At { from: StartAt::Offset(offset), .. } = start
            && spans.iter().all(|span| *offset > span.end)
        {
            let end = spans.iter().map(|span| span.end).max().unwrap_or_default();
            return Err(ReadRecordsError::Offset { topic: topic.name.clone(), offset: *offset, end });
        }
        Ok((topic, spans))
    }

    /// Something to wait on until one of the partitions grows.
    pub fn waiter(&self, partitions: impl Iterator<Item = PartitionNumber>) -> Waiter {
        self.broker.waiter(partitions)
    }

    fn first_span(&self, partition: &Partition, from: StartAt) -> Result<Span, ReadError> {
        let offsets = partition.offsets();
        let end = offsets.high_watermark;
        let next = match from {
            StartAt::Earliest => offsets.log_start,
            StartAt::Latest => end,
            StartAt::Offset(offset) => offset.clamp(offsets.log_start, end),
            StartAt::Time(time) => {
                self.broker.log().offset_for_time(partition, time)?.map_or(end, |(offset, _)| offset)
            }
        };
        Ok(Span { partition: partition.name().partition, next, end })
    }

    /// Hands over the records in `spans`, one after the other, then the end.
    ///
    /// # Errors
    /// The operating system or the index failed; damage is handed over, not an error.
    pub fn read_records(
        &self,
        topic: &Topic,
        mut spans: Vec<Span>,
        page: Page,
        take: &mut dyn FnMut(Found) -> Flow,
    ) -> Result<(), ReadError> {
        let model = TopicRef::parse(&self.topic_prefix, &topic.name).and_then(TopicRef::model);
        let model = model.filter(|_| page.decode);
        let (mut records, mut bytes) = (page.max_records, page.max_bytes);
        for span in &mut spans {
            let Some(partition) = topic.partition(span.partition).filter(|_| records > 0) else { continue };
            let range: Range<Offset> = span.next..span.end;
            let mut next = span.next;
            let mut step = |step| match step {
                Step::Record(record) => {
                    next = record.offset + 1;
                    records = records.saturating_sub(1);
                    bytes = bytes.saturating_sub(record_bytes(&record));
                    found(partition, record, model, take)?;
                    if records == 0 || bytes == 0 { Flow::Break(()) } else { Flow::Continue(()) }
                }
                Step::Damage(damage) => {
                    next = damage.last_offset + 1;
                    take(Found::Damage { damage })
                }
            };
            if scan_range(self.broker.log().as_ref(), partition, range, &mut step)?.is_break() {
                span.next = next;
                break;
            }
            span.next = span.end.max(next);
        }
        // Whoever went away does not take the end either.
        let _gone = take(Found::End { end: spans });
        Ok(())
    }
}

fn find(topic: &Topic, index: i32) -> Result<&Partition, ReadRecordsError> {
    topic.partition(index).map(AsRef::as_ref).ok_or_else(|| ReadRecordsError::Partition {
        topic: topic.name.clone(),
        partition: index,
        last: topic.partitions.len().saturating_sub(1),
    })
}

fn record_bytes(record: &Record) -> usize {
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers: usize = record.headers.iter().map(|header| header.key.len() + length(&header.value)).sum();
    length(&record.key) + length(&record.value) + headers + 64
}

/// Hands over a record, and before it what is odd about it.
fn found(partition: &Partition, record: Record, model: Option<Model>, take: &mut dyn FnMut(Found) -> Flow) -> Flow {
    let Record { offset, timestamp, key, value, headers } = record;
    let data = |bytes: bytes::Bytes| Data::of(bytes.into());
    let event = model.zip(value.as_ref()).map(|(model, value)| event(model, value));
    let value = match event {
        Some(Ok(event)) => Value::Event(event),
        Some(Err(reason)) => {
            let odd = DamagedRange::new(partition.name(), offset..offset + 1, reason);
            take(Found::Odd { odd })?;
            Value::Value(value.map(data))
        }
        None => Value::Value(value.map(data)),
    };
    let headers = headers
        .into_iter()
        .map(|header| HeaderLine { name: data(header.key), value: header.value.map(data) })
        .collect();
    let (partition, key) = (partition.name().partition, key.map(data));
    take(Found::Record(Box::new(RecordLine { partition, offset, timestamp_ms: timestamp, key, value, headers })))
}

/// The event in a value, as JSON.
fn event(model: Model, value: &[u8]) -> Result<Box<RawValue>, String> {
    let event = model::decode_avro(model, value).map_err(|error| format!("the value is no {model} event: {error}"))?;
    let text = String::from_utf8(model::to_json(&event)).map_err(|error| error.to_string())?;
    RawValue::from_string(text).map_err(|error| error.to_string())
}
