//! Every event about one entity: a scan over all event topics of the prefix.

use azulite_storage::Record;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Admin;
use super::scan::{DamagedRange, Flow, Step, scan_partition};
use crate::broker::{Offset, ReadError, TopicPartition};
use crate::dispatcher::model::{self, BinaryEvent, Event, Model};
use crate::dispatcher::topic::TopicRef;

/// One line of the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged, try_from = "Line")]
pub enum Finding {
    /// An event about the entity.
    Event(FoundEvent),
    /// Offsets that could not be read, so that events may be missing.
    Damage {
        /// Where.
        damage: DamagedRange,
    },
}

/// An event and where it lies.
#[derive(Debug, Serialize)]
pub struct FoundEvent {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: Offset,
    /// The event as consumers see it.
    pub event: Box<RawValue>,
}

/// A [`Finding`] as it is read: raw JSON cannot be read inside an untagged enum.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    topic: String,
    #[serde(default)]
    partition: i32,
    #[serde(default)]
    offset: Offset,
    event: Option<Box<RawValue>>,
    damage: Option<DamagedRange>,
}

impl TryFrom<Line> for Finding {
    type Error = &'static str;

    fn try_from(line: Line) -> Result<Self, Self::Error> {
        let Line { topic, partition, offset, event, damage } = line;
        match (event, damage) {
            (Some(event), _) => Ok(Self::Event(FoundEvent { topic, partition, offset, event })),
            (None, Some(damage)) => Ok(Self::Damage { damage }),
            (None, None) => Err("neither an event nor damage"),
        }
    }
}

impl Admin {
    /// Hands over every event about an entity, topic by topic in order of name, each partition in order of offset, until
    /// `take` says stop. About it are: binary events of the entity itself, statuses of work on it, inserts as parent or
    /// child, downloads of its hash, deletions of links from or to it.
    ///
    /// Reads every event topic from end to end; memory is bounded by one read of the log.
    ///
    /// # Errors
    /// The operating system or the index failed; damage is a finding, not an error.
    pub fn entity_events(&self, sha256: &str, take: &mut dyn FnMut(Finding) -> Flow) -> Result<(), ReadError> {
        self.about_entity(sha256, &mut |about| match about {
            About::Event(event, place, offset) => take(found(&event, &place, offset)),
            About::Damage(damage) => take(Finding::Damage { damage }),
        })
    }

    /// [`Admin::entity_events`], as events.
    pub(super) fn about_entity(&self, sha256: &str, take: &mut dyn FnMut(About) -> Flow) -> Result<(), ReadError> {
        let finder = Finder::new(sha256.as_bytes());
        for topic in self.broker.log().topics() {
            let Some(model) = TopicRef::parse(&self.topic_prefix, &topic.name).and_then(TopicRef::model) else {
                continue;
            };
            for partition in &topic.partitions {
                let place = partition.name();
                let mut step = |step| match step {
                    // Hashes are text inside Avro: most records are passed over without decoding them.
                    Step::Record(Record { offset, value: Some(value), .. }) if finder.find(&value).is_some() => {
                        match about(model, &value, sha256, place, offset) {
                            Some(about) => take(about),
                            None => Flow::Continue(()),
                        }
                    }
                    Step::Record(_) => Flow::Continue(()),
                    Step::Damage(damage) => take(About::Damage(damage)),
                };
                if scan_partition(self.broker.log().as_ref(), partition, &mut step)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// One thing a scan for an entity came upon.
pub(super) enum About {
    /// An event about it, and where it lies.
    Event(Box<Event>, TopicPartition, Offset),
    /// Offsets that cannot be read.
    Damage(DamagedRange),
}

fn damaged(place: &TopicPartition, offset: Offset, reason: String) -> DamagedRange {
    DamagedRange::new(place, offset..offset + 1, reason)
}

/// What a record that holds the hash somewhere is to the entity, if anything.
fn about(model: Model, value: &[u8], sha256: &str, place: &TopicPartition, offset: Offset) -> Option<About> {
    match model::decode_avro(model, value) {
        Ok(event) => is_about(&event, sha256).then(|| About::Event(Box::new(event), place.clone(), offset)),
        Err(error) => Some(About::Damage(damaged(place, offset, format!("the record is no {model} event: {error}")))),
    }
}

fn found(event: &Event, place: &TopicPartition, offset: Offset) -> Finding {
    let text = String::from_utf8(model::to_json(event)).map_err(|error| error.to_string());
    match text.and_then(|text| RawValue::from_string(text).map_err(|error| error.to_string())) {
        Ok(event) => {
            let TopicPartition { topic, partition } = place.clone();
            Finding::Event(FoundEvent { topic, partition, offset, event })
        }
        Err(error) => {
            let reason = format!("the event cannot be written as JSON: {error}");
            Finding::Damage { damage: damaged(place, offset, reason) }
        }
    }
}

fn is_about(event: &Event, sha256: &str) -> bool {
    match event {
        Event::Binary(event) => is_of(event, sha256),
        Event::Status(event) => is_of(&event.entity.input, sha256),
        Event::Insert(event) => {
            let entity = &event.entity;
            [&entity.parent_sha256, &entity.child.sha256, &entity.child_history.sha256].into_iter().any(|h| h == sha256)
        }
        Event::Download(event) => {
            event.entity.hash == sha256 || event.source.path.last().is_some_and(|node| node.sha256 == sha256)
        }
        Event::Delete(event) => event.entity.link.track_link.split('.').take(2).any(|hash| hash == sha256),
        Event::Plugin(_) | Event::Retrohunt(_) => false,
    }
}

fn is_of(event: &BinaryEvent, sha256: &str) -> bool {
    event.entity.sha256 == sha256 || event.source.path.last().is_some_and(|node| node.sha256 == sha256)
}
