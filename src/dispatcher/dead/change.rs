//! Changes that a person asks for: letters are put back, removed, or come from another machine.

use azulite_storage::index::IndexError;

use super::counts::Effect;
use super::rows::{self, After, Head, Requeued};
use super::{Claim, DeadLetter, DeadLetters, DeadParts, DeadRecord, Outcome, PAGE};
use crate::broker::{AppendError, CreateTopicError, Value};
use crate::dispatcher::Dispatcher;
use crate::dispatcher::batches::Batches;
use crate::dispatcher::model::{self, BinaryEvent, Event, STATUSES};
use crate::dispatcher::topic::system_topic;

/// Letters that are removed in one commit.
const REMOVED_AT_ONCE: usize = 256;

/// Which letters are meant; what is empty does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Name of the consumer.
    pub consumer: Option<String>,
    /// Status of the last attempt, or `requeued` for those of which another run is waited for.
    pub status: Option<String>,
    /// Milliseconds since 1970 from which on.
    pub since_ms: Option<i64>,
    /// The source.
    pub source: Option<String>,
    /// The entity.
    pub sha256: Option<String>,
}

/// Statuses that the filter knows beside those of errors.
const OTHER_STATUSES: [&str; 2] = ["filtered", REQUEUED];
/// Of letters that wait for another run.
const REQUEUED: &str = "requeued";

impl Filter {
    /// Whether its status is one that letters have: that of an error, of what filters kept back, or of any letter there is.
    ///
    /// # Errors
    /// Names the status and those that are allowed.
    pub fn check(&self, counts: &[super::Count]) -> Result<(), String> {
        let Some(status) = self.status.as_deref() else { return Ok(()) };
        let errors = STATUSES.into_iter().filter(|status| status.starts_with("error"));
        let known = errors.chain(OTHER_STATUSES).chain(counts.iter().map(|count| count.status.as_str()));
        let known: std::collections::BTreeSet<&str> = known.filter(|known| !known.is_empty()).collect();
        if known.contains(status) {
            return Ok(());
        }
        let known: Vec<&str> = known.into_iter().collect();
        Err(format!("no dead letter has the status {status:?}; allowed: {}", known.join(", ")))
    }

    fn takes(&self, head: &Head) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let status = match self.status.as_deref() {
            Some(REQUEUED) => head.requeued.is_some(),
            Some(status) => head.status == status && head.requeued.is_none(),
            None => true,
        };
        status
            && is(&self.consumer, &head.consumer)
            && is(&self.source, &head.source)
            && is(&self.sha256, &head.sha256)
            && self.since_ms.is_none_or(|since| head.time_ms >= since)
    }
}

/// What is found under an id by whoever wants to change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A letter, which nobody else changes until the change is over.
    Letter(Box<Head>),
    /// Nothing.
    Missing,
    /// A letter that is being changed at this moment.
    Busy,
}

/// A change being put together. Dropped without a commit, it never was.
pub struct Change<'a> {
    dead: &'a DeadLetters,
    claim: Claim,
    values: Vec<Value>,
    records: Vec<DeadRecord>,
    effects: Vec<Effect>,
}

impl std::fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

impl Change<'_> {
    /// Looks at a letter to change it.
    ///
    /// # Errors
    /// The index failed.
    pub fn find(&mut self, id: &str) -> Result<Found, IndexError> {
        let Some((family, _)) = id.split_once('-').filter(|_| super::is_id(id)) else { return Ok(Found::Missing) };
        if !self.claim.try_add(family) {
            return Ok(Found::Busy);
        }
        let head = rows::head(self.dead.broker.log().as_ref(), id)?;
        Ok(head.map_or(Found::Missing, |head| Found::Letter(Box::new(head))))
    }

    /// Bytes of what is to be committed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let length = |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, bytes::Bytes::len);
        let values = self.values.iter().map(|(name, value)| name.len() + length(value));
        values.chain(self.records.iter().map(|record| length(&record.value))).sum()
    }

    /// True when there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.records.is_empty()
    }

    /// The letter goes, and its file soon.
    pub fn remove(&mut self, head: &Head) {
        self.values.extend(rows::remove(head));
        self.records.push(self.dead.tombstone(&head.id));
        self.effects.push(Effect::removed(head));
    }

    /// Another run is waited for.
    pub fn put_back(&mut self, head: &Head, requeued: Requeued) {
        let changed = Head { requeued: Some(requeued), ..head.clone() };
        self.values.push(changed.put());
        self.effects.extend([Effect::removed(head), Effect::changed(&changed)]);
    }

    /// A letter that is not here yet, as it came from another machine.
    ///
    /// # Errors
    /// The index failed.
    pub fn add(&mut self, letter: &DeadLetter, requeued: Option<Requeued>) -> Result<(), IndexError> {
        let family = super::letter::family_of(letter.kafka_key(), &letter.consumer);
        let others = rows::family(self.dead.broker.log().as_ref(), &family)?;
        let head = Head { requeued, ..Head::of(letter, super::free_name(letter, &others)) };
        self.values.extend(rows::put(letter, &head));
        self.records.push(self.dead.record_of(letter));
        self.effects.push(Effect::changed(&head));
        Ok(())
    }

    /// A record of the audit log.
    pub fn note(&mut self, topic: String, key: String, value: Vec<u8>) {
        self.records.push(DeadRecord { topic, key: key.into(), value: Some(value.into()) });
    }

    /// Values of the caller's own.
    pub fn extend(&mut self, values: Vec<Value>) {
        self.values.extend(values);
    }

    /// What is to be committed.
    pub fn finish(self) -> DeadParts {
        let Self { claim, values, records, effects, .. } = self;
        DeadParts { values, records, outcome: Outcome { effects, _claim: claim } }
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// It could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A topic could not be made.
    #[error("a topic cannot be made: {0}")]
    Topic(String),
}

impl From<CreateTopicError> for ChangeError {
    fn from(error: CreateTopicError) -> Self {
        match error {
            CreateTopicError::Append(error) => Self::Append(error),
            other @ (CreateTopicError::Exists(_)
            | CreateTopicError::Name(_)
            | CreateTopicError::Partitions { .. }
            | CreateTopicError::State(_)) => Self::Topic(other.to_string()),
        }
    }
}

impl DeadLetters {
    /// Begins a change.
    pub fn change(&self) -> Change<'_> {
        let (values, records, effects) = (Vec::new(), Vec::new(), Vec::new());
        Change { dead: self, claim: self.claims.none(), values, records, effects }
    }

    /// Up to `limit` heads that the filter takes, in order of time, and where to go on.
    ///
    /// # Errors
    /// The index failed.
    pub fn page(
        &self,
        filter: &Filter,
        after: Option<&After>,
        limit: usize,
    ) -> Result<(Vec<Head>, Option<After>), IndexError> {
        let log = self.broker.log().as_ref();
        let mut heads = Vec::new();
        let since = filter.since_ms.filter(|_| after.is_none()).map(After::time);
        let mut from = after.cloned().or(since);
        loop {
            let (page, next) = rows::page(log, from.as_ref(), PAGE)?;
            for head in page.into_iter().filter(|head| filter.takes(head)) {
                heads.push(head);
                if let Some(last) = heads.last().filter(|_| heads.len() >= limit) {
                    let after = After::head(last);
                    return Ok((heads, Some(after)));
                }
            }
            match next {
                Some(next) => from = Some(next),
                None => return Ok((heads, None)),
            }
        }
    }

    /// A letter's head; `None` when there is none of that id.
    ///
    /// # Errors
    /// The index failed.
    pub fn head(&self, id: &str) -> Result<Option<Head>, IndexError> {
        rows::head(self.broker.log().as_ref(), id)
    }

    /// A whole letter; `None` when there is none of that id.
    ///
    /// # Errors
    /// The index failed.
    pub fn letter(&self, id: &str) -> Result<Option<DeadLetter>, IndexError> {
        rows::letter(self.broker.log().as_ref(), id)
    }

    /// The letters of one event at one consumer, of all its versions and stages.
    ///
    /// # Errors
    /// The index failed.
    pub fn of_event(&self, kafka_key: &str, consumer: &str) -> Result<Vec<Head>, IndexError> {
        match self.counts.total() {
            0 => Ok(Vec::new()),
            _ => rows::family(self.broker.log().as_ref(), &super::letter::family_of(kafka_key, consumer)),
        }
    }

    /// Removes letters that are older than is kept, but for those of which another run is waited for. Says how many.
    ///
    /// # Errors
    /// The index failed, or a change could not be written.
    pub(super) fn remove_old(&self, now_ms: i64) -> Result<u64, ChangeError> {
        let Some(keep) = self.options.keep else { return Ok(0) };
        let before_ms = now_ms.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        let (mut removed, mut after) = (0, None);
        loop {
            let (heads, next) = rows::page(self.broker.log().as_ref(), after.as_ref(), REMOVED_AT_ONCE)?;
            let is_young = heads.last().is_none_or(|last| last.time_ms >= before_ms);
            let mut change = self.change();
            for head in heads.iter().filter(|head| head.time_ms < before_ms && head.requeued.is_none()) {
                if let Found::Letter(head) = change.find(&head.id)? {
                    change.remove(&head);
                    removed += 1;
                }
            }
            // The records age off by themselves.
            let parts = change.finish();
            self.broker.log().put_kv(parts.values)?;
            self.committed(parts.outcome);
            after = next;
            if is_young || after.is_none() {
                return Ok(removed);
            }
        }
    }
}

impl Dispatcher {
    /// Commits a change. Blocks for it.
    ///
    /// # Durability
    /// On `Ok` it is durable, but for files, which follow.
    /// # Errors
    /// See [`ChangeError`]; nothing has changed.
    pub fn commit_dead(&self, parts: DeadParts) -> Result<(), ChangeError> {
        let DeadParts { values, records, outcome } = parts;
        let mut batches = Batches::default();
        for DeadRecord { topic, key, value } in records {
            let topic = self.topic(&topic)?;
            batches.push(&topic, self.now_ms(), &key, value.as_deref());
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let done = Box::new(move |outcome| {
            // Waited for below.
            drop(sender.send(outcome));
        });
        self.broker.log().append_with(self.broker.new_lane(), batches.finish(), values, done);
        receiver.recv().unwrap_or(Err(AppendError::Closed))?;
        self.dead.committed(outcome);
        Ok(())
    }

    /// Why an event from elsewhere is not taken, if it is larger than one may be.
    pub fn too_large(&self, event: &BinaryEvent) -> Option<String> {
        let bytes = model::encode_avro(&Event::Binary(Box::new(event.clone()))).len();
        let most = self.options.message_max_bytes;
        (bytes > most).then(|| format!("its event has {bytes} bytes, events.message_max_bytes is {most}"))
    }

    /// A topic of ours and a fresh key for a line of the audit log.
    pub fn audit_line(&self) -> (String, String) {
        let key = format!("{}-{:016x}", self.now_ms(), crate::dispatcher::random_u64());
        (system_topic(&self.options.topic_prefix, "audit"), key)
    }
}
