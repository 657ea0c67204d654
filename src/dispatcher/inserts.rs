//! Manual inserts: child files that people attach to a parent by its hash, whenever and wherever the parent comes.
//!
//! [`Inserts`] is what the `insert` topic says, kept current by a [`Follower`](super::follower::Follower); the stage
//! `InjectChildEvents` of the produce pipeline makes events of it. Contract events.md 3.4.

use std::collections::{BTreeMap, HashMap};

use super::follower::{Followed, Unusable};
use super::model::{self, BinaryEvent, Event, InsertEvent, Model, PathNode, Timestamp};
use super::pipeline::{Outgoing, Produced, StageError};
use crate::metrics::Metrics;

/// Stage name, part of metric labels.
pub const STAGE: &str = "InjectChildEvents";
/// Children that one event gets at most; the others are named in the error log.
const MAX_CHILDREN: usize = 1000;
/// Bytes that the children of all events of one request take, about, each with its copy of the parent's source; those
/// beyond are named in the error log.
const REQUEST_BYTES: usize = 32 << 20;
/// Actions whose events have bytes, and so can have children.
const WITH_BYTES: [&str; 3] = ["sourced", "extracted", "augmented"];

/// Makes a stored stream available under another source as well. Calls block.
pub trait CopyStreams: std::fmt::Debug + Send + Sync + 'static {
    /// Copies `label` of the blob `sha256` from one source to another; false when it is not there.
    ///
    /// # Durability
    /// Durable on `Ok(true)`.
    /// # Errors
    /// What the store said; unknown whether it was copied.
    fn copy_stream(&self, label: &str, sha256: &str, from: &str, to: &str) -> Result<bool, String>;
}

/// Every insert that counts, by the parent's hash: the newest of each record key.
///
/// Memory: the insert as it is stored (Avro), its key twice, the parent's hash, and about 200 bytes.
#[derive(Debug, Default)]
pub struct Inserts {
    by_parent: HashMap<Box<str>, Children>,
    parents: HashMap<Box<[u8]>, Box<str>>,
}

/// Inserts in Avro by record key.
type Children = BTreeMap<Box<[u8]>, Box<[u8]>>;

impl Inserts {
    /// Takes in an insert; an older one with this key goes.
    fn put(&mut self, key: &[u8], parent_sha256: &str, avro: &[u8]) {
        self.remove(key);
        self.by_parent.entry(parent_sha256.into()).or_default().insert(key.into(), avro.into());
        self.parents.insert(key.into(), parent_sha256.into());
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(parent) = self.parents.remove(key) else { return };
        if let Some(children) = self.by_parent.get_mut(&parent) {
            children.remove(key);
            if children.is_empty() {
                self.by_parent.remove(&parent);
            }
        }
    }

    /// The inserts for a parent, by key.
    fn of(&self, parent_sha256: &str) -> impl ExactSizeIterator<Item = &[u8]> {
        static NONE: Children = BTreeMap::new();
        self.by_parent.get(parent_sha256).unwrap_or(&NONE).values().map(|avro| &avro[..])
    }
}

fn decode(avro: &[u8]) -> Result<InsertEvent, Unusable> {
    match model::decode_avro(Model::Insert, avro) {
        Ok(Event::Insert(insert)) => Ok(*insert),
        Ok(other) => Err(Unusable { reason: "undecodable", detail: format!("a {} event", other.model()) }),
        Err(error) => Err(Unusable { reason: "undecodable", detail: error.to_string() }),
    }
}

impl Followed for Inserts {
    fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Unusable> {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            self.remove(key.unwrap_or_default());
            return Ok(());
        };
        let event = Event::Insert(Box::new(decode(value)?));
        model::check_valid(&event).map_err(|invalid| Unusable { reason: "invalid", detail: invalid.to_string() })?;
        let Event::Insert(insert) = event else { return Ok(()) };
        self.put(key.unwrap_or(insert.kafka_key.as_bytes()), &insert.entity.parent_sha256, value);
        Ok(())
    }

    fn show(&self, metrics: &Metrics) {
        for (kind, size) in [("insert", self.parents.len()), ("parent", self.by_parent.len())] {
            metrics.manual_inserts.at([kind]).set(i64::try_from(size).unwrap_or(i64::MAX));
        }
    }
}

/// Puts the children of the events so far behind them. Whatever is wrong with an insert, its parent goes on.
pub(super) fn inject(produced: &mut Produced, inserts: &Inserts, now: Timestamp) {
    if inserts.parents.is_empty() {
        return;
    }
    let before = std::mem::take(&mut produced.events);
    produced.events.reserve(before.len());
    let mut room = REQUEST_BYTES;
    for outgoing in before {
        let (mut children, mut errors) = (Vec::new(), Vec::new());
        if let Event::Binary(parent) = &outgoing.event
            && is_injectable(parent)
        {
            let found = inserts.of(&parent.entity.sha256);
            let waiting = found.len();
            let own_bytes = if waiting > 0 { model::encode_avro(&outgoing.event).len() } else { 0 };
            for (count, avro) in found.enumerate() {
                let bytes = own_bytes + avro.len();
                if count >= MAX_CHILDREN || bytes > room {
                    errors.push(format!("{waiting} inserts wait for this parent, it got {count}"));
                    break;
                }
                room -= bytes;
                match child(parent, avro, now) {
                    Ok(child) => children.push(child),
                    Err(reason) => errors.push(reason),
                }
            }
        }
        let error = |reason| StageError::new(STAGE, &outgoing.event, reason);
        produced.errors.extend(errors.into_iter().map(error));
        produced.events.push(outgoing);
        if !children.is_empty() {
            let added = produced.added.entry(STAGE).or_default();
            *added = added.saturating_add(u64::try_from(children.len()).unwrap_or(u64::MAX));
            produced.events.append(&mut children);
        }
    }
}

fn is_injectable(event: &BinaryEvent) -> bool {
    let another_file = match event.source.path.as_slice() {
        [.., before, last] => before.sha256 != last.sha256,
        [] | [PathNode { .. }] => true,
    };
    WITH_BYTES.contains(&event.action.as_str()) && another_file
}

fn child(parent: &BinaryEvent, insert: &[u8], now: Timestamp) -> Result<Outgoing, String> {
    let insert = decode(insert).map_err(|unusable| unusable.to_string())?;
    let InsertEvent { kafka_key, entity, .. } = insert;
    let node = entity.child_history;
    let mut source = parent.source.clone();
    source.path.push(node.clone());
    let child = BinaryEvent {
        timestamp: now,
        author: node.author,
        action: node.action,
        source,
        entity: entity.child,
        ..BinaryEvent::default()
    };
    model::check_binary(&child).map_err(|invalid| format!("insert {kafka_key}: {invalid}"))?;
    let event = Event::Binary(Box::new(child));
    Ok(Outgoing { event, from_client: false, streams_from: Some(entity.original_source) })
}

/// Makes the streams of injected children available under their parents' sources. Returns what failed; nothing else
/// depends on it.
pub(super) fn copy_streams(events: &[Outgoing], streams: &dyn CopyStreams) -> Vec<StageError> {
    let mut errors = Vec::new();
    for Outgoing { event, streams_from, .. } in events {
        let (Event::Binary(child), Some(from)) = (event, streams_from) else { continue };
        let to = &child.source.name;
        for stream in child.entity.datastreams.iter().filter(|_| from != to) {
            let copied = streams.copy_stream(&stream.label, &stream.sha256, from, to);
            let reason = match copied {
                Ok(true) => continue,
                Ok(false) => "is not there".to_owned(),
                Err(reason) => reason,
            };
            let what = format!("stream {} {} was not copied from {from} to {to}", stream.label, stream.sha256);
            errors.push(StageError::new(STAGE, event, format!("{what}: {reason}")));
        }
    }
    errors
}

#[cfg(test)]
mod tests;
