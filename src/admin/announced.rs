//! What an author has announced in a source: how ingest knows what a second run need not do again.
//!
//! The log itself is the memory: nothing is kept beside it that could disagree with it after a purge, a restore or a
//! crash between two writes.

use azulite_storage::Record;
use azulite_storage::ids::Sha256;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::scan::{DamagedRange, Flow, Step, scan_partition};
use crate::broker::ReadError;
use crate::dispatcher::model::{self, BinaryEvent, Event, Model, Timestamp};
use crate::dispatcher::topic::{Action, binary_topic};

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Announcement {
    /// A submission.
    Sourced {
        /// Its `kafka_key`, which the time of the submission is a part of.
        key: String,
        /// Its [`identity`], which it is not a part of.
        identity: String,
        /// Its entity.
        sha256: String,
    },
    /// Offsets that could not be read, so that submissions may be missing.
    Damage {
        /// Where.
        damage: DamagedRange,
    },
}

/// What two submissions of the same thing have in common whenever they were made: the `kafka_key` they would have without
/// `source.timestamp`. Source, references, security, settings, author and entity are in it.
///
/// Empty for an event without a path, which has no key.
#[must_use]
pub fn identity(event: &BinaryEvent) -> String {
    let mut event = event.clone();
    event.source.timestamp = Timestamp::zero();
    model::kafka_key(&Event::Binary(Box::new(event)), [0; 32]).unwrap_or_default()
}

impl Admin {
    /// Hands over every `sourced` event of one author in one source, until `take` says stop.
    ///
    /// Reads the source's topic from end to end; memory is bounded by one read of the log.
    ///
    /// # Errors
    /// The operating system or the index failed; damage is handed over, not an error.
    pub fn announced(
        &self,
        source: &str,
        author: &str,
        take: &mut dyn FnMut(Announcement) -> Flow,
    ) -> Result<(), ReadError> {
        let name = binary_topic(&self.topic_prefix, source, Action::Sourced);
        let Some(topic) = self.broker.log().topic(&name) else { return Ok(()) };
        let finder = Finder::new(author.as_bytes());
        let mut step = |step| match step {
            Step::Record(Record { value: Some(value), .. }) if finder.find(&value).is_some() => {
                match sourced(&value, author) {
                    Some(announcement) => take(announcement),
                    None => Flow::Continue(()),
                }
            }
            Step::Record(_) => Flow::Continue(()),
            Step::Damage(damage) => take(Announcement::Damage { damage }),
        };
        for partition in &topic.partitions {
            if scan_partition(self.broker.log().as_ref(), partition, &mut step)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The submission in a record. What cannot be decoded was not written by the author asked for.
fn sourced(value: &[u8], author: &str) -> Option<Announcement> {
    let Ok(Event::Binary(event)) = model::decode_avro(Model::Binary, value) else { return None };
    let [node] = event.source.path.as_slice() else { return None };
    if event.author.name != author || Sha256::parse(&node.sha256).is_none() {
        return None;
    }
    let (sha256, identity) = (node.sha256.clone(), identity(&event));
    Some(Announcement::Sourced { key: event.kafka_key, identity, sha256 })
}
