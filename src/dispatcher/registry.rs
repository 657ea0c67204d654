//! Registered consumers and deployments: who asked for events in the last day, and how.
//!
//! Kept in memory and written down now and then: at once when a consumer is new, else when what it asks for has changed
//! or an hour has passed, at the next look of the upkeep. Read by `simulate`, `explain` and the overview of backlogs.
//! Contract events.md 6.2 and 6.3.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azulite_storage::index::IndexError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::params::{GetParams, Limits};
use super::plugin_key::{PluginKey, plugin_prefix};
use crate::broker::{LogStore, Value};

/// Who has not asked for so long is forgotten.
pub const KEPT_MS: i64 = 24 * 3_600_000;
/// How far what is written down may be behind.
const WRITE_EVERY_MS: i64 = 3_600_000;
/// Most consumers, and most deployments, that are remembered; past it the ones seen longest ago go.
const MOST: usize = 10_000;
/// Bytes of all consumers, and of all deployments, as they are written down, at most; in memory they take about three times
/// as much.
const MOST_BYTES: usize = 32 << 20;
/// Most characters of a user agent that are kept.
const USER_AGENT_CHARS: usize = 128;
/// Values read at once.
const PAGE: usize = 256;

const CONSUMERS: &[u8] = b"consumer\0";
const DEPLOYMENTS: &[u8] = b"deployment\0";

/// One consumer as it asked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// What it asked for.
    pub params: GetParams,
    /// Whether it asked for tasks.
    pub task: bool,
    /// What it called itself.
    pub user_agent: String,
}

/// [`Registered`] as it is written down: the query in its current names, so that it is read as any other.
#[derive(Serialize, Deserialize)]
struct Written {
    model: String,
    query: Vec<(String, String)>,
    task: bool,
    user_agent: String,
}

impl From<&Registered> for Written {
    fn from(consumer: &Registered) -> Self {
        let Registered { params, task, user_agent } = consumer;
        let (model, query) = (params.model.to_string(), params.to_query());
        Self { model, query, task: *task, user_agent: user_agent.clone() }
    }
}

impl Written {
    fn read(self, limits: &Limits) -> Option<Registered> {
        let Self { model, query, task, user_agent } = self;
        GetParams::parse(&model, &query, limits).ok().map(|params| Registered { params, task, user_agent })
    }
}

/// Something with the time it was seen last, as it is written down.
#[derive(Serialize, Deserialize)]
struct Seen<T> {
    seen_ms: i64,
    #[serde(flatten)]
    value: T,
}

/// What [`Seen`] holds for a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Deployed {
    kafka_prefix: String,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    seen_ms: i64,
    /// When it was seen, as far as that is written down.
    written_ms: i64,
    /// Of its key and of what is written down.
    bytes: usize,
    /// Something else than the time has changed since.
    changed: bool,
}

/// What was seen, by name.
#[derive(Debug)]
struct Table<V> {
    prefix: &'static [u8],
    entries: HashMap<String, Entry<V>>,
    /// Of all entries.
    bytes: usize,
}

impl<V: Clone + PartialEq> Table<V> {
    fn new(prefix: &'static [u8]) -> Self {
        Self { prefix, entries: HashMap::new(), bytes: 0 }
    }

    fn load<T: DeserializeOwned>(
        &mut self,
        log: &dyn LogStore,
        read: impl Fn(T) -> Option<V>,
    ) -> Result<(), IndexError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = log.kv_page(self.prefix, after.as_deref(), PAGE)?;
            for (name, bytes) in &page {
                let seen = serde_json::from_slice::<Seen<T>>(bytes).ok();
                let key = name.strip_prefix(self.prefix).and_then(|key| String::from_utf8(key.to_vec()).ok());
                let value = seen.and_then(|seen| read(seen.value).map(|value| (value, seen.seen_ms)));
                if let (Some(key), Some((value, seen_ms))) = (key, value) {
                    let size = name.len() + bytes.len();
                    self.insert(key, Entry { value, seen_ms, written_ms: seen_ms, bytes: size, changed: false });
                }
            }
            after = page.last().map(|(name, _)| name.to_vec());
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Notes that `key` was seen. Returns what has to be written at once.
    fn see(&mut self, key: &str, value: V, now_ms: i64, write: impl Fn(i64, &V) -> Value) -> Vec<Value> {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.seen_ms = entry.seen_ms.max(now_ms);
            if entry.value != value {
                let bytes = size(&write(now_ms, &value));
                self.bytes = self.bytes + bytes - std::mem::replace(&mut entry.bytes, bytes);
                entry.value = value;
                entry.changed = true;
            }
            return self.make_room(now_ms, key);
        }
        let put = write(now_ms, &value);
        let entry = Entry { value, seen_ms: now_ms, written_ms: now_ms, bytes: size(&put), changed: false };
        self.insert(key.to_owned(), entry);
        let mut changes = self.make_room(now_ms, key);
        changes.push(put);
        changes
    }

    fn insert(&mut self, key: String, entry: Entry<V>) {
        self.remove(&key);
        self.bytes += entry.bytes;
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &str) {
        self.bytes -= self.entries.remove(key).map_or(0, |entry| entry.bytes);
    }

    fn is_full(&self, count: usize, bytes: usize) -> bool {
        self.entries.len() > count || self.bytes > bytes
    }

    /// Past the limits, forgets what is old and then those seen longest ago, down to a tenth below them; never `key`.
    fn make_room(&mut self, now_ms: i64, key: &str) -> Vec<Value> {
        if !self.is_full(MOST, MOST_BYTES) {
            return Vec::new();
        }
        let mut changes = self.forget_old(now_ms);
        let mut by_age: Vec<_> = self.entries.iter().map(|(key, entry)| (entry.seen_ms, key.clone())).collect();
        by_age.sort();
        for (_, oldest) in by_age.into_iter().filter(|(_, oldest)| oldest != key) {
            if !self.is_full(MOST - MOST / 10, MOST_BYTES - MOST_BYTES / 10) {
                break;
            }
            self.remove(&oldest);
            changes.push((self.name(&oldest), None));
        }
        changes
    }

    fn forget_old(&mut self, now_ms: i64) -> Vec<Value> {
        let old: Vec<String> = self
            .entries
            .iter()
            .filter(|(_, entry)| is_old(entry.seen_ms, now_ms))
            .map(|(key, _)| key.clone())
            .collect();
        old.iter().for_each(|key| self.remove(key));
        old.iter().map(|key| (self.name(key), None)).collect()
    }

    /// What has to be written now.
    fn due(&mut self, now_ms: i64, write: impl Fn(&str, i64, &V) -> Value) -> Vec<Value> {
        let mut changes = self.forget_old(now_ms);
        for (key, entry) in &mut self.entries {
            if entry.changed || entry.seen_ms.saturating_sub(entry.written_ms) >= WRITE_EVERY_MS {
                changes.push(write(key, entry.seen_ms, &entry.value));
                entry.written_ms = entry.seen_ms;
                entry.changed = false;
            }
        }
        changes
    }

    fn name(&self, key: &str) -> Vec<u8> {
        [self.prefix, key.as_bytes()].concat()
    }

    fn list(&self, now_ms: i64) -> Vec<(String, i64, V)> {
        let fresh = self.entries.iter().filter(|(_, entry)| !is_old(entry.seen_ms, now_ms));
        let mut list: Vec<_> = fresh.map(|(key, entry)| (key.clone(), entry.seen_ms, entry.value.clone())).collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }
}

fn size((name, value): &Value) -> usize {
    name.len() + value.as_ref().map_or(0, |value| value.len())
}

fn is_old(seen_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(seen_ms) >= KEPT_MS
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Its key.
    pub key: String,
    /// What the plugin keys of its consumer begin with: `<name>-<version>-<model>`.
    pub kafka_prefix: String,
    /// When it was seen last, milliseconds since 1970.
    pub seen_ms: i64,
}

/// One registered consumer in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its plugin key.
    pub key: String,
    /// When it asked last, milliseconds since 1970.
    pub seen_ms: i64,
    /// How.
    pub consumer: Arc<Registered>,
}

#[derive(Debug)]
struct Tables {
    consumers: Table<Arc<Registered>>,
    deployments: Table<Deployed>,
}

/// See the module.
#[derive(Debug)]
pub struct Registry(Mutex<Tables>);

impl Registry {
    /// What was written down.
    ///
    /// # Errors
    /// The index failed. A record that cannot be read is left out.
    pub fn load(log: &dyn LogStore, limits: &Limits) -> Result<Self, IndexError> {
        let (mut consumers, mut deployments) = (Table::new(CONSUMERS), Table::new(DEPLOYMENTS));
        consumers.load(log, |written: Written| written.read(limits).map(Arc::new))?;
        deployments.load(log, |deployed: Deployed| Some(deployed))?;
        Ok(Self(Mutex::new(Tables { consumers, deployments })))
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request. Never blocks; what is new is on its way to the disk when this returns.
    pub fn register(&self, log: &dyn LogStore, params: &GetParams, task: bool, user_agent: &str, now_ms: i64) {
        let key = PluginKey::of(params);
        let user_agent = user_agent.chars().take(USER_AGENT_CHARS).collect();
        let consumer = Registered { params: params.clone(), task, user_agent };
        let mut tables = self.lock();
        let known = tables.consumers.entries.get(key.as_str()).filter(|entry| *entry.value == consumer);
        let consumer = known.map_or_else(|| Arc::new(consumer), |entry| entry.value.clone());
        let put = |seen_ms, value: &Arc<Registered>| put_consumer(key.as_str(), seen_ms, value);
        let mut changes = tables.consumers.see(key.as_str(), consumer, now_ms, put);
        let deployment = &params.deployment_key;
        if !deployment.is_empty() {
            let put = |seen_ms, value: &Deployed| put_deployment(deployment, seen_ms, value);
            let deployed = Deployed { kafka_prefix: plugin_prefix(params) };
            changes.extend(tables.deployments.see(deployment, deployed, now_ms, put));
        }
        queue(log, changes);
    }

    /// Writes down what has changed, forgets what is old. Never blocks.
    pub fn flush(&self, log: &dyn LogStore, now_ms: i64) {
        let mut tables = self.lock();
        let mut changes = tables.consumers.due(now_ms, put_consumer);
        changes.extend(tables.deployments.due(now_ms, put_deployment));
        queue(log, changes);
    }

    /// The consumers of the last day, in order of plugin key.
    pub fn consumers(&self, now_ms: i64) -> Vec<Listed> {
        let list = self.lock().consumers.list(now_ms);
        list.into_iter().map(|(key, seen_ms, consumer)| Listed { key, seen_ms, consumer }).collect()
    }

    /// The deployments of the last day, in order of key.
    pub fn deployments(&self, now_ms: i64) -> Vec<Deployment> {
        let list = self.lock().deployments.list(now_ms);
        let deployment = |(key, seen_ms, Deployed { kafka_prefix })| Deployment { key, kafka_prefix, seen_ms };
        list.into_iter().map(deployment).collect()
    }
}

fn put_consumer(key: &str, seen_ms: i64, consumer: &Arc<Registered>) -> Value {
    put(CONSUMERS, key, &Seen { seen_ms, value: Written::from(consumer.as_ref()) })
}

fn put_deployment(key: &str, seen_ms: i64, deployed: &Deployed) -> Value {
    put(DEPLOYMENTS, key, &Seen { seen_ms, value: deployed.clone() })
}

fn put(prefix: &[u8], key: &str, value: &impl Serialize) -> Value {
    ([prefix, key.as_bytes()].concat(), Some(serde_json::to_vec(value).unwrap_or_default().into()))
}

fn queue(log: &dyn LogStore, changes: Vec<Value>) {
    if changes.is_empty() {
        return;
    }
    let done = Box::new(|outcome: Result<_, _>| {
        if let Err(error) = outcome {
            tracing::info!(%error, "registered consumers were not written down");
        }
    });
    log.queue_kv(changes, done);
}

#[cfg(test)]
mod tests;
