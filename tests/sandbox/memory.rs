//! A dispatcher in memory: hands events out once, takes statuses and results, keeps streams.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Cursor, Read};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use azulite::dispatcher::model::{BinaryEvent, Datastream, PluginEvent, StatusEvent};
use azulite::workers::{Content, Fetched, Upstream, UpstreamError};
use sha2::{Digest as _, Sha256};

/// What a dispatcher holds.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) waiting: VecDeque<BinaryEvent>,
    pub(crate) registered: Vec<PluginEvent>,
    pub(crate) heartbeats: Vec<StatusEvent>,
    pub(crate) finals: Vec<StatusEvent>,
    pub(crate) published: Vec<BinaryEvent>,
    pub(crate) released: Vec<String>,
    /// By hash.
    pub(crate) streams: BTreeMap<String, Vec<u8>>,
    /// Requests fail while this is set.
    pub(crate) is_down: bool,
}

#[derive(Default)]
pub(crate) struct Memory(Mutex<Held>);

struct Bytes(Cursor<Vec<u8>>);

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::io::Seek for Bytes {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

impl Content for Bytes {
    fn size(&self) -> u64 {
        u64::try_from(self.0.get_ref().len()).unwrap()
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Memory {
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().expect("no test thread panicked")
    }

    fn up(&self) -> Result<MutexGuard<'_, Held>, UpstreamError> {
        let held = self.held();
        if held.is_down { Err(UpstreamError::Unavailable("the test says so".to_owned())) } else { Ok(held) }
    }
}

impl Upstream for Memory {
    fn register(&self, plugin: &PluginEvent) -> Result<(), UpstreamError> {
        self.up()?.registered.push(plugin.clone());
        Ok(())
    }

    fn lease(&self, query: &[(&str, &str)]) -> Result<Fetched, UpstreamError> {
        let count = query.iter().find(|(name, _)| *name == "count").expect("a count").1.parse().expect("a number");
        let mut held = self.up()?;
        let length = held.waiting.len().min(count);
        let events: Vec<BinaryEvent> = held.waiting.drain(..length).collect();
        drop(held);
        if events.is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Fetched { events, ..Fetched::default() })
    }

    fn report(&self, statuses: &[StatusEvent]) -> Result<(), UpstreamError> {
        let mut held = self.up()?;
        for status in statuses {
            let list = if status.entity.status == "heartbeat" { &mut held.heartbeats } else { &mut held.finals };
            list.push(status.clone());
        }
        Ok(())
    }

    fn publish(&self, events: &[BinaryEvent]) -> Result<(), UpstreamError> {
        self.up()?.published.extend_from_slice(events);
        Ok(())
    }

    fn release(&self, dequeued: &[&str]) -> Result<(), UpstreamError> {
        self.up()?.released.extend(dequeued.iter().map(|id| (*id).to_owned()));
        Ok(())
    }

    fn content(&self, _source: &str, _label: &str, hash: &str) -> Result<Option<Box<dyn Content>>, UpstreamError> {
        let found = self.up()?.streams.get(hash).cloned();
        Ok(found.map(|bytes| -> Box<dyn Content> { Box::new(Bytes(Cursor::new(bytes))) }))
    }

    fn upload(&self, _source: &str, label: &str, bytes: &mut dyn Read) -> Result<Datastream, UpstreamError> {
        let mut all = Vec::new();
        bytes.read_to_end(&mut all).map_err(|error| UpstreamError::Refused(error.to_string()))?;
        let mut held = self.up()?;
        let hash = sha256(&all);
        let size = u64::try_from(all.len()).unwrap();
        held.streams.insert(hash.clone(), all);
        Ok(Datastream { label: label.to_owned(), sha256: hash, size, ..Datastream::default() })
    }
}
