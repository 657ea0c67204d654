//! Open tasks: binary events that were handed out on `active` and whose closing status has not come yet.
//!
//! A task is written down before its event leaves, and gone in the commit that stores the status which closes it. A
//! heartbeat makes it young again. One that nobody has been heard of for too long is lost: its consumer's
//! `error-network` status and the end of the task are one commit too. Contract events.md 5.5.8, 6.1, 7.3.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azulite_storage::index::IndexError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Dispatcher;
use super::model::{self, Author, Event, EventOf, Model, StatusEntity, StatusEvent, Text, Timestamp};
use super::params::GetParams;
use super::pipeline::ClosedTask;
use super::publish;
use crate::broker::{AppendError, Broker, LogStore, Value};
use crate::metrics::Metrics;

const PREFIX: &[u8] = b"task\0";
/// Longest id that is tracked: well above what a key, a name and a version within their limits make.
const ID_MAX_BYTES: usize = 16 << 10;
/// Tasks read at once.
const PAGE: usize = 256;
/// Tasks that one look ends at most; the next look goes on.
const LOST_AT_ONCE: usize = 10_000;
/// A heartbeat that comes within this part of the time after which a task is lost changes nothing.
const REFRESH_PART: i64 = 10;
/// What upstream's dashboards call the process that looks for lost tasks.
const ORIGIN: &str = "lost-tasks";
/// How dashboards call a task that a status has closed; upstream counts the tries.
pub(super) const FINISHED: &str = "finished-0";

/// Everything about a task but its event, one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    name: String,
    version: String,
    sha256: String,
    since_ms: i64,
    heard_ms: i64,
}

/// One open task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTask {
    /// The id that the consumer was given.
    pub id: String,
    /// The consumer.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The entity it works on.
    pub sha256: String,
    /// When the event was handed out, milliseconds since 1970.
    pub since_ms: i64,
    /// When the consumer was last heard of, milliseconds since 1970.
    pub heard_ms: i64,
    /// The event without features, streams and info, Avro.
    event: Bytes,
}

impl OpenTask {
    /// The task of an event that is about to be handed out; `None` when it is none, or its id is too long.
    pub(super) fn of<T: Text>(event: EventOf<T>, params: &GetParams, now_ms: i64) -> Option<Self> {
        let EventOf::Binary(mut binary) = event else { return None };
        let id = binary.dequeued.to_string();
        if id.is_empty() || id.len() > ID_MAX_BYTES {
            return None;
        }
        // As statuses carry it.
        binary.entity.features.clear();
        binary.entity.datastreams.clear();
        binary.entity.info = model::JsonTextOf::default();
        Some(Self {
            id,
            name: params.name.clone(),
            version: params.version.clone(),
            sha256: binary.entity.sha256.to_string(),
            since_ms: now_ms,
            heard_ms: now_ms,
            event: model::encode_avro(&EventOf::Binary(binary)).into(),
        })
    }

    fn read(name: &[u8], bytes: &Bytes) -> Option<Self> {
        let id = String::from_utf8(name.strip_prefix(PREFIX)?.to_vec()).ok()?;
        let line = memchr::memchr(b'\n', bytes)?;
        let Head { name, version, sha256, since_ms, heard_ms } = serde_json::from_slice(bytes.get(..line)?).ok()?;
        Some(Self { id, name, version, sha256, since_ms, heard_ms, event: bytes.slice(line + 1..) })
    }

    fn put(&self) -> Value {
        let Self { id, name, version, sha256, since_ms, heard_ms, event } = self.clone();
        let head = Head { name, version, sha256, since_ms, heard_ms };
        let mut value = serde_json::to_vec(&head).unwrap_or_default();
        value.push(b'\n');
        value.extend_from_slice(&event);
        (key(&id), Some(value.into()))
    }

    /// What its consumer would say had it noticed (7.3); `None` when the event cannot be read any more.
    fn lost(&self, now: Timestamp) -> Option<Event> {
        let Ok(Event::Binary(input)) = model::decode_avro(Model::Binary, &self.event) else { return None };
        let author = Author {
            name: self.name.clone(),
            version: self.version.clone(),
            category: "plugin".to_owned(),
            ..Author::default()
        };
        let entity = StatusEntity {
            input: *input,
            status: "error-network".to_owned(),
            error: format!("lost task: {}", self.id),
            ..StatusEntity::default()
        };
        let mut event =
            Event::Status(Box::new(StatusEvent { timestamp: now, author, entity, ..StatusEvent::default() }));
        let key = model::kafka_key(&event, [0; 32]).ok()?;
        event.set_kafka_key(key);
        Some(event)
    }
}

fn key(id: &str) -> Vec<u8> {
    [PREFIX, id.as_bytes()].concat()
}

/// Up to `limit` open tasks whose id starts with `prefix`, in order of id, behind the id `after`. What cannot be read is
/// left out. Fewer names than `limit` come back in the second part when there are no more.
///
/// # Errors
/// The index failed.
fn page(
    log: &dyn LogStore,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<OpenTask>, Option<String>), IndexError> {
    let rows = log.kv_page(&key(prefix), after.map(key).as_deref(), limit)?;
    let last = rows.last().filter(|_| rows.len() >= limit);
    let next = last.and_then(|(name, _)| String::from_utf8(name.get(PREFIX.len()..)?.to_vec()).ok());
    Ok((rows.iter().filter_map(|(name, bytes)| OpenTask::read(name, bytes)).collect(), next))
}

/// Hands over every open task whose id starts with `prefix`, in order of id. False from `take` ends it.
///
/// # Errors
/// The index failed.
pub fn each(log: &dyn LogStore, prefix: &str, mut take: impl FnMut(OpenTask) -> bool) -> Result<(), IndexError> {
    let mut after = None;
    loop {
        let (tasks, next) = page(log, prefix, after.as_deref(), PAGE)?;
        if !tasks.into_iter().all(&mut take) {
            return Ok(());
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// What is under way about tasks. They themselves are in the log.
#[derive(Debug, Default)]
pub struct Tasks {
    /// Ids of tasks whose end is on its way to the disk: a heartbeat must not bring them back.
    ending: Mutex<HashSet<String>>,
}

impl Tasks {
    fn ending(&self) -> MutexGuard<'_, HashSet<String>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the end of those tasks that are open. Blocks on the index.
    ///
    /// # Errors
    /// The index failed.
    fn end(self: &Arc<Self>, log: &dyn LogStore, ids: impl IntoIterator<Item = String>) -> Result<Ending, IndexError> {
        let mut ending = Ending { tasks: self.clone(), ids: BTreeSet::new() };
        for id in ids.into_iter().filter(|id| id.len() <= ID_MAX_BYTES) {
            // Whoever was first ends it. Looked at only then: what another one ended meanwhile is gone from the log by the
            // time it is no longer noted here.
            if self.ending().insert(id.clone()) {
                ending.ids.insert(id.clone());
                if log.kv(&key(&id))?.is_none() {
                    ending.ids.remove(&id);
                    self.ending().remove(&id);
                }
            }
        }
        Ok(ending)
    }

    /// A consumer was heard of: its task is as young as on the day it was handed out. Blocks on the index.
    ///
    /// # Errors
    /// The index failed.
    fn refresh(&self, log: &dyn LogStore, id: &str, now_ms: i64, lost_after_ms: i64) -> Result<(), IndexError> {
        // Held until the change is queued, so that it is behind no end.
        let ending = self.ending();
        if id.len() > ID_MAX_BYTES || ending.contains(id) {
            return Ok(());
        }
        let (key, not_before_ms) = (key(id), now_ms.saturating_sub(lost_after_ms / REFRESH_PART));
        let task = log.kv(&key)?.and_then(|bytes| OpenTask::read(&key, &bytes));
        if let Some(mut task) = task.filter(|task| task.heard_ms <= not_before_ms) {
            task.heard_ms = now_ms;
            log.queue_kv(vec![task.put()], Box::new(log_failure));
        }
        Ok(())
    }
}

fn log_failure<T>(outcome: Result<T, AppendError>) {
    if let Err(error) = outcome {
        tracing::info!(%error, "a change of an open task was not written down");
    }
}

/// Tasks that end with the next commit of whoever holds this.
#[derive(Debug)]
pub(super) struct Ending {
    tasks: Arc<Tasks>,
    ids: BTreeSet<String>,
}

impl Ending {
    /// The changes that end them.
    pub(super) fn values(&self) -> Vec<Value> {
        self.ids.iter().map(|id| (key(id), None)).collect()
    }

    /// They have ended.
    pub(super) fn ended(&self, metrics: &Metrics, how: &str) {
        let count = self.ids.len();
        metrics.tracking_control.add([how], u64::try_from(count).unwrap_or(0));
        metrics.tracking.at([ORIGIN]).add(-i64::try_from(count).unwrap_or(0));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut ending = self.tasks.ending();
        ending.retain(|id| !self.ids.contains(id));
    }
}

/// Tasks whose events are on their way to a consumer. Dropped without [`HandedOut::delivered`], they never were.
#[derive(Debug)]
pub(super) struct HandedOut {
    broker: Broker,
    metrics: Arc<Metrics>,
    ids: Vec<String>,
}

impl HandedOut {
    /// The consumer has them.
    pub(super) fn delivered(mut self) {
        self.ids.clear();
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let count = self.ids.len();
        self.metrics.tracking.at([ORIGIN]).add(-i64::try_from(count).unwrap_or(0));
        let values = self.ids.iter().map(|id| (key(id), None)).collect();
        self.broker.log().queue_kv(values, Box::new(log_failure));
    }
}

/// How many tasks a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Still open.
    pub open: u64,
    /// Ended by this look.
    pub ended: u64,
}

/// Which tasks a look ends.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Those whose consumer was not heard of since; `None` for whenever.
    pub silent_since_ms: Option<i64>,
    /// Only those of the consumer of this name.
    pub name: Option<String>,
}

impl Ends {
    fn contains(&self, task: &OpenTask) -> bool {
        self.silent_since_ms.is_none_or(|ms| task.heard_ms <= ms)
            && self.name.as_ref().is_none_or(|name| *name == task.name)
    }
}

impl Dispatcher {
    /// Writes down tasks whose events are about to be handed out. Blocks for one commit when there are any.
    ///
    /// # Durability
    /// On `Ok` they are durable.
    /// # Errors
    /// See [`AppendError`].
    pub(super) fn open_tasks(&self, tasks: &[OpenTask]) -> Result<Option<HandedOut>, AppendError> {
        if tasks.is_empty() {
            return Ok(None);
        }
        let count = tasks.len();
        self.metrics.tracking.at([ORIGIN]).add(i64::try_from(count).unwrap_or(0));
        let ids = tasks.iter().map(|task| task.id.clone()).collect();
        let handed_out = HandedOut { broker: self.broker.clone(), metrics: self.metrics.clone(), ids };
        if let Err(error) = self.broker.log().put_kv(tasks.iter().map(OpenTask::put).collect()) {
            self.metrics.tracking_control.add(["errored"], u64::try_from(count).unwrap_or(0));
            return Err(error);
        }
        self.metrics.tracking_control.add(["started"], u64::try_from(count).unwrap_or(0));
        Ok(Some(handed_out))
    }

    /// Begins the end of the tasks that statuses close, notes heartbeats. What fails here is logged and found by the next
    /// look for lost tasks. Blocks on the index.
    pub(super) fn note_statuses<'a>(
        &self,
        closed: &[ClosedTask],
        stored: impl Iterator<Item = &'a Event>,
        now_ms: i64,
    ) -> Option<Ending> {
        let log = self.broker.log().as_ref();
        for event in stored {
            if let Event::Status(status) = event
                && status.entity.status == "heartbeat"
                && let Err(error) =
                    self.tasks.refresh(log, &status.entity.input.dequeued, now_ms, self.options.lost_after_ms)
            {
                tracing::warn!(%error, "a heartbeat was not noted");
            }
        }
        if closed.is_empty() {
            return None;
        }
        match self.tasks.end(log, closed.iter().map(|task| task.dequeued.clone())) {
            Ok(ending) => Some(ending).filter(|ending| !ending.ids.is_empty()),
            Err(error) => {
                tracing::warn!(%error, "a task was not closed");
                self.metrics.tracking_control.inc(["errored"]);
                None
            }
        }
    }

    /// Ends the tasks of statuses that are too old to be stored. Not waited for. Blocks on the index.
    pub(super) fn close_tasks(&self, closed: &[ClosedTask]) {
        if let Some(ending) = self.note_statuses(closed, std::iter::empty(), 0) {
            self.broker.log().queue_kv(ending.values(), Box::new(log_failure));
            ending.ended(&self.metrics, FINISHED);
        }
    }

    /// Goes through all open tasks, a page at a time, and ends those that `ends` names with the status of 7.3.
    ///
    /// # Errors
    /// The text of what failed; tasks ended before stay ended.
    pub async fn look_for_lost_tasks(self: &Arc<Self>, ends: &Ends, now_ms: i64) -> Result<Looked, String> {
        let mut looked = Looked::default();
        let mut after: Option<String> = None;
        let by_hand = ends.silent_since_ms.is_none();
        loop {
            let (this, ends, from) = (self.clone(), ends.clone(), after.take());
            let read = tokio::task::spawn_blocking(move || this.lost_page(&ends, from.as_deref())).await;
            let (lost, ending, open, next) =
                read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            looked.open += open;
            looked.ended += self.end_lost(&lost, &ending, (now_ms, by_hand)).await?;
            after = next;
            let enough = usize::try_from(looked.ended).is_ok_and(|ended| ended >= LOST_AT_ONCE);
            if after.is_none() || enough {
                break;
            }
        }
        if after.is_none() {
            self.metrics.tracking.at([ORIGIN]).set(i64::try_from(looked.open).unwrap_or(i64::MAX));
        }
        Ok(looked)
    }

    /// The tasks of one page that are to end, the number of others, and where the next page begins.
    fn lost_page(&self, ends: &Ends, after: Option<&str>) -> Result<LostPage, IndexError> {
        let log = self.broker.log().as_ref();
        let (tasks, next) = page(log, "", after, PAGE)?;
        let (mut lost, open): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| ends.contains(task));
        let ending = self.tasks.end(log, lost.iter().map(|task| task.id.clone()))?;
        lost.retain(|task| ending.ids.contains(&task.id));
        Ok((lost, ending, u64::try_from(open.len()).unwrap_or(0), next))
    }

    async fn end_lost(
        self: &Arc<Self>,
        lost: &[OpenTask],
        ending: &Ending,
        (now_ms, by_hand): (i64, bool),
    ) -> Result<u64, String> {
        if lost.is_empty() {
            return Ok(0);
        }
        let now = Timestamp::from_millis(now_ms);
        let statuses = lost.iter().filter_map(|task| task.lost(now)).collect();
        let stored = publish::store_own(self.clone(), statuses, ending.values(), now_ms).await;
        if let Err(error) = stored {
            self.metrics.tracking_control.add(["errored"], u64::try_from(lost.len()).unwrap_or(0));
            return Err(format!("the status of a lost task was not stored: {error:?}"));
        }
        for OpenTask { id, .. } in lost {
            match by_hand {
                true => tracing::info!(id, "a task was ended by hand"),
                false => tracing::info!(id, "a task was lost: its consumer has not been heard of"),
            }
        }
        ending.ended(&self.metrics, "lost");
        Ok(u64::try_from(lost.len()).unwrap_or(0))
    }
}

type LostPage = (Vec<OpenTask>, Ending, u64, Option<String>);

#[cfg(test)]
mod tests;
