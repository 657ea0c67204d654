//! Dead letters: events that a consumer could not work on, after its last attempt. Contract workers.md 5.3 and 5.4.
//!
//! A letter is written in the commit that ends the last attempt: its rows, and a record of the topic
//! `azul.<prefix>.system.dead` under its id. A tombstone under the same id follows when it is gone: because another run
//! succeeded, or because a person purged it. Files are written behind the commit by `files`; what is still to be written
//! or removed is a row too, so that no crash loses it. Whoever stores final statuses calls [`DeadLetters::record`] and
//! [`DeadLetters::succeeded`].

mod change;
mod claims;
mod counts;
mod files;
mod letter;
mod rows;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azulite_storage::index::IndexError;
use bytes::Bytes;

use crate::broker::{Broker, Value};
use crate::metrics::Metrics;

use super::topic::system_topic;
pub use change::{Change, ChangeError, Filter, Found};
use claims::{Claim, Claims};
pub use counts::Count;
use counts::{Counts, Effect};
pub use files::{FileError, test_dir};
pub use letter::{DeadLetter, LetterError, TEXT_LIMIT, id_of, is_id};
pub use rows::{After, Head, Requeued};

/// Name of the topic behind `azul.<prefix>.system.`.
pub const TOPIC: &str = "dead";
/// Heads read at once.
const PAGE: usize = 256;
/// Bytes of a text that go into the topic; of a longer letter the event is left out there.
const RECORD_MAX_BYTES: usize = 8 << 20;

/// One record of an event topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRecord {
    /// The topic's name.
    pub topic: String,
    /// The record's key.
    pub key: Bytes,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// What belongs into the caller's commit. Dropped without [`DeadLetters::committed`], nothing has changed.
#[derive(Debug)]
#[must_use]
pub struct DeadParts {
    /// State rows.
    pub values: Vec<Value>,
    /// Records, partitioned by their key as those of every event topic.
    pub records: Vec<DeadRecord>,
    /// What is true behind the commit.
    pub outcome: Outcome,
}

/// What is true once the parts are durable.
#[derive(Debug)]
#[must_use]
pub struct Outcome {
    effects: Vec<Effect>,
    /// Nobody else changes these letters meanwhile.
    _claim: Claim,
}

/// What the configuration says of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where their files are.
    pub dir: PathBuf,
    /// How long they are kept; `None` is until they are removed.
    pub keep: Option<Duration>,
    /// More in one hour than this deserve a warning.
    pub warn_per_hour: u64,
}

/// The dead letters of one store.
pub struct DeadLetters {
    broker: Broker,
    topic: String,
    options: Options,
    counts: Counts,
    claims: Arc<Claims>,
    files: files::Files,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Those that the log holds. Reads all heads, to count them.
    ///
    /// # Errors
    /// The index failed.
    pub fn load(broker: Broker, prefix: &str, options: Options, metrics: Arc<Metrics>) -> Result<Self, IndexError> {
        let counts = Counts::new(metrics.clone());
        let mut after = None;
        loop {
            let (heads, next) = rows::page(broker.log().as_ref(), after.as_ref(), PAGE)?;
            counts.apply(heads.iter().map(Effect::added));
            after = next;
            if after.is_none() {
                break;
            }
        }
        let topic = system_topic(prefix, TOPIC);
        let files = files::Files::new(options.dir.clone());
        Ok(Self { broker, topic, options, counts, claims: Arc::default(), files, metrics })
    }

    /// What belongs into the commit that ends the last attempt. A letter of the same item gives way, and so does one that
    /// was put back for the version that failed now. Blocks on the index.
    ///
    /// # Errors
    /// The index failed.
    pub fn record(&self, letter: &DeadLetter) -> Result<DeadParts, IndexError> {
        let mut letter = letter.bounded();
        letter.id = id_of(letter.kafka_key(), &letter.consumer, &letter.version, &letter.stage);
        let letter = &letter;
        let log = self.broker.log().as_ref();
        let family = letter::family_of(letter.kafka_key(), &letter.consumer);
        let claim = self.claims.wait(&family);
        let others = rows::family(log, &family)?;
        let (mut values, mut records, mut effects) = (Vec::new(), Vec::new(), Vec::new());
        for other in &others {
            let put_back = other.requeued.as_ref().is_some_and(|requeued| requeued.version == letter.version);
            if other.id == letter.id {
                values.extend(rows::replace(other));
            } else if put_back && other.stage == letter.stage {
                values.extend(rows::remove(other));
                records.push(self.tombstone(&other.id));
            } else {
                continue;
            }
            effects.push(Effect::removed(other));
        }
        let head = Head::of(letter, free_name(letter, &others));
        // A row that is removed and put is put: a file of the same name stays.
        let put = rows::put(letter, &head);
        values.retain(|(name, _)| put.iter().all(|(kept, _)| kept != name));
        values.extend(put);
        effects.push(Effect::added(&head));
        records.push(self.record_of(letter));
        Ok(DeadParts { values, records, outcome: Outcome { effects, _claim: claim } })
    }

    /// What belongs into the commit of a success: letters of that item at this version, or put back for it, go. `None`
    /// when there are none. Blocks on the index, unless there are no letters at all.
    ///
    /// # Errors
    /// The index failed.
    pub fn succeeded(&self, kafka_key: &str, consumer: &str, version: &str) -> Result<Option<DeadParts>, IndexError> {
        if self.counts.total() == 0 {
            return Ok(None);
        }
        let family = letter::family_of(kafka_key, consumer);
        let claim = self.claims.wait(&family);
        let is_over = |head: &Head| {
            let put_back = head.requeued.as_ref().is_some_and(|requeued| requeued.version == version);
            head.version == version || put_back
        };
        let heads = rows::family(self.broker.log().as_ref(), &family)?;
        let over: Vec<Head> = heads.into_iter().filter(is_over).collect();
        Ok((!over.is_empty()).then(|| self.removal(&over, claim)))
    }

    /// What belongs into the commit that gives an item up without another run: letters that were put back for this version
    /// wait for none any more, and may be put back again. `None` when there are none. Blocks on the index, unless there are
    /// no letters at all.
    ///
    /// # Errors
    /// The index failed.
    pub fn given_up(&self, kafka_key: &str, consumer: &str, version: &str) -> Result<Option<DeadParts>, IndexError> {
        if self.counts.total() == 0 {
            return Ok(None);
        }
        let family = letter::family_of(kafka_key, consumer);
        let claim = self.claims.wait(&family);
        let waits = |head: &Head| head.requeued.as_ref().is_some_and(|requeued| requeued.version == version);
        let (mut values, mut effects) = (Vec::new(), Vec::new());
        for head in rows::family(self.broker.log().as_ref(), &family)?.into_iter().filter(waits) {
            let changed = Head { requeued: None, ..head.clone() };
            values.push(changed.put());
            effects.extend([Effect::removed(&head), Effect::changed(&changed)]);
        }
        let outcome = Outcome { effects, _claim: claim };
        Ok((!values.is_empty()).then_some(DeadParts { values, records: Vec::new(), outcome }))
    }

    fn removal(&self, heads: &[Head], claim: Claim) -> DeadParts {
        DeadParts {
            values: heads.iter().flat_map(rows::remove).collect(),
            records: heads.iter().map(|head| self.tombstone(&head.id)).collect(),
            outcome: Outcome { effects: heads.iter().map(Effect::removed).collect(), _claim: claim },
        }
    }

    /// Behind the commit: counts follow, and files soon. Never blocks.
    pub fn committed(&self, outcome: Outcome) {
        self.counts.apply(outcome.effects);
        self.files.wake();
    }

    /// What a person should know, in one line; empty when all is well.
    pub fn warning(&self, now_ms: i64) -> String {
        let (new, most) = (self.counts.last_hour(now_ms), self.options.warn_per_hour);
        match self.files.behind() {
            Some((1, error)) => format!("warning: the file of one dead letter is not written: {error}"),
            Some((files, error)) => format!("warning: {files} files of dead letters are not written: {error}"),
            None if new > most && new == 1 => {
                "warning: one event became a dead letter in the last hour; `azulite dead list` names it".to_owned()
            }
            None if new > most => {
                format!("warning: {new} events became dead letters in the last hour; `azulite dead list` names them")
            }
            None => String::new(),
        }
    }

    /// How many there are, by consumer, status and whether another run is waited for.
    pub fn counts(&self) -> Vec<Count> {
        self.counts.list()
    }

    fn record_of(&self, letter: &DeadLetter) -> DeadRecord {
        let mut text = letter.to_text();
        if text.len() > RECORD_MAX_BYTES {
            text = letter.to_text_without_event();
        }
        self.entry(&letter.id, Some(text.into()))
    }

    fn tombstone(&self, id: &str) -> DeadRecord {
        self.entry(id, None)
    }

    fn entry(&self, id: &str, value: Option<Bytes>) -> DeadRecord {
        DeadRecord { topic: self.topic.clone(), key: Bytes::copy_from_slice(id.as_bytes()), value }
    }
}

/// The name of a letter's file. Letters of the same millisecond, consumer and event are told apart by their ids.
fn free_name(letter: &DeadLetter, others: &[Head]) -> String {
    let name = letter.file_name();
    match others.iter().any(|other| other.file == name && other.id != letter.id) {
        true => name.replace(".json", &format!("-{}.json", letter.id)),
        false => name,
    }
}

#[cfg(test)]
mod tests;
