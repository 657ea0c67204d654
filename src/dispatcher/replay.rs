//! Replay of plugin completions: a costly run is not made twice on the same bytes.
//!
//! Contract events.md 3.2, 5.5.7 and section 10, 24; off unless `events.replay_plugin_cache.size_bytes` says otherwise.
//! The produce side remembers statuses once they are stored; the consume side answers a task out of what is remembered.
//! Where that does not work out, for whatever reason, the task is handed out as if nothing were remembered.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::inserts::CopyStreams;
use super::model::{self, BinaryEvent, Event, Flags, Model, PathNode, StatusEntity, StatusEvent, Timestamp};

mod replayer;

pub(super) use replayer::Replayer;

/// Stage name on both sides, in counts and metrics.
pub const STAGE: &str = "ReplayPluginCompletion";
/// Reason of a task that was answered out of the cache.
pub const CACHED: &str = "cached";
/// Who publishes on the consume side, for the error log.
pub const USER_AGENT: &str = "replay_plugin_completion";

/// What an entry costs beside its bytes, about.
const ENTRY_BYTES: usize = 256;
/// A saved entry of more bytes than this is damage.
const SAVED_LIMIT: usize = 1 << 28;

/// `events.replay_plugin_cache`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Memory for remembered statuses; 0 switches the cache off.
    pub size_bytes: u64,
    /// How long one is remembered.
    pub ttl: Duration,
    /// Runs that took longer than this are remembered.
    pub min_runtime: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { size_bytes: 0, ttl: Duration::from_secs(1800), min_runtime: Duration::from_secs(10) }
    }
}

/// Which bytes went through which plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
struct Run {
    sha256: String,
    name: String,
    version: String,
}

impl Run {
    fn bytes(&self) -> usize {
        self.sha256.len() + self.name.len() + self.version.len()
    }
}

/// A status worth remembering, in the form it is remembered in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    run: Run,
    status: Bytes,
}

#[derive(Debug)]
struct Entry {
    status: Bytes,
    stored_ms: i64,
    /// Its place in the order of use.
    used: u64,
}

/// One entry in a snapshot.
#[derive(bincode::Encode, bincode::Decode)]
struct Saved {
    run: Run,
    stored_ms: i64,
    status: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Run, Entry>,
    /// Longest unused first.
    order: BTreeMap<u64, Run>,
    bytes: usize,
    tick: u64,
    changed: bool,
}

/// Remembered statuses, at most `size_bytes` of them in all; the ones unused longest make room.
#[derive(Debug)]
pub struct ReplayCache {
    size_bytes: usize,
    entry_bytes: usize,
    ttl_ms: i64,
    min_runtime_secs: f64,
    state: Mutex<State>,
}

impl ReplayCache {
    /// An empty cache.
    pub fn new(options: Options) -> Self {
        let size_bytes = usize::try_from(options.size_bytes).unwrap_or(usize::MAX);
        Self {
            size_bytes,
            entry_bytes: (size_bytes / 64).saturating_sub(1),
            ttl_ms: i64::try_from(options.ttl.as_millis()).unwrap_or(i64::MAX),
            min_runtime_secs: options.min_runtime.as_secs_f64(),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event in the form to remember it in, if it is a status that took long enough and is not too large.
    pub fn worth(&self, event: &Event) -> Option<Completion> {
        let Event::Status(status) = event else { return None };
        let input = &status.entity.input;
        let slow = status.entity.runtime > self.min_runtime_secs;
        if !slow || !super::pipeline::is_completed(&status.entity.status) || input.entity.sha256.is_empty() {
            return None;
        }
        let bytes = Bytes::from(model::encode_avro(event));
        let author = &status.author;
        let run =
            Run { sha256: input.entity.sha256.clone(), name: author.name.clone(), version: author.version.clone() };
        (bytes.len() <= self.entry_bytes).then_some(Completion { run, status: bytes })
    }

    /// Remembers a status that has been stored, in place of an earlier one of the same run.
    pub fn put(&self, completion: Completion, now_ms: i64) {
        let Completion { run, status } = completion;
        let mut state = self.lock();
        state.remove(&run);
        state.insert(run, status, now_ms);
        state.changed = true;
        while state.bytes > self.size_bytes {
            let Some((_, oldest)) = state.order.pop_first() else { break };
            state.remove(&oldest);
        }
    }

    /// Whether this plugin's run on these bytes is remembered.
    pub fn has(&self, sha256: &str, name: &str, version: &str, now_ms: i64) -> bool {
        let run = Run { sha256: sha256.to_owned(), name: name.to_owned(), version: version.to_owned() };
        self.lock().entries.get(&run).is_some_and(|entry| entry.stored_ms.saturating_add(self.ttl_ms) > now_ms)
    }

    /// The remembered status of this plugin's run on these bytes.
    pub fn find(&self, sha256: &str, name: &str, version: &str, now_ms: i64) -> Option<StatusEvent> {
        let run = Run { sha256: sha256.to_owned(), name: name.to_owned(), version: version.to_owned() };
        let bytes = {
            let mut state = self.lock();
            let stored_ms = state.entries.get(&run)?.stored_ms;
            if stored_ms.saturating_add(self.ttl_ms) <= now_ms {
                state.remove(&run);
                state.changed = true;
                return None;
            }
            state.used(&run)?
        };
        match model::decode_avro(Model::Status, &bytes) {
            Ok(Event::Status(status)) => Some(*status),
            Ok(_) | Err(_) => None,
        }
    }

    /// Whether there is something new to save since the last call.
    pub fn take_changed(&self) -> bool {
        std::mem::take(&mut self.lock().changed)
    }

    /// What [`take_changed`](Self::take_changed) told of has not been saved after all.
    pub fn still_changed(&self) {
        self.lock().changed = true;
    }

    /// Writes down every entry, longest unused first.
    ///
    /// # Errors
    /// As `out` reports them.
    pub fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        // The bytes are shared, not copied, so that nobody waits for the disk.
        let entries: Vec<(Run, i64, Bytes)> = {
            let state = self.lock();
            let entry = |run: &Run| state.entries.get(run).map(|e| (run.clone(), e.stored_ms, e.status.clone()));
            state.order.values().filter_map(entry).collect()
        };
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        out.write_all(&count.to_be_bytes())?;
        for (run, stored_ms, status) in entries {
            let saved = Saved { run, stored_ms, status: status.to_vec() };
            let mut out = &mut *out;
            bincode::encode_into_std_write(saved, &mut out, bincode::config::standard()).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Takes in what [`save`](Self::save) wrote; what does not fit any more makes room as ever. After an error it has to
    /// be thrown away.
    ///
    /// # Errors
    /// As `from` reports them, and for bytes that are no entries.
    pub fn load(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut count = [0; 8];
        from.read_exact(&mut count)?;
        let config = bincode::config::standard().with_limit::<SAVED_LIMIT>();
        for _ in 0..u64::from_be_bytes(count) {
            let mut from = &mut *from;
            let saved: Saved = bincode::decode_from_std_read(&mut from, config).map_err(io::Error::other)?;
            self.put(Completion { run: saved.run, status: saved.status.into() }, saved.stored_ms);
        }
        self.lock().changed = false;
        Ok(())
    }
}

impl State {
    fn insert(&mut self, run: Run, status: Bytes, stored_ms: i64) {
        self.tick += 1;
        self.bytes += cost(&run, &status);
        self.order.insert(self.tick, run.clone());
        self.entries.insert(run, Entry { status, stored_ms, used: self.tick });
    }

    fn remove(&mut self, run: &Run) {
        if let Some(entry) = self.entries.remove(run) {
            self.order.remove(&entry.used);
            self.bytes = self.bytes.saturating_sub(cost(run, &entry.status));
        }
    }

    /// Moves an entry to the end of the order.
    fn used(&mut self, run: &Run) -> Option<Bytes> {
        let entry = self.entries.get_mut(run)?;
        self.tick += 1;
        let before = std::mem::replace(&mut entry.used, self.tick);
        self.order.remove(&before);
        self.order.insert(self.tick, run.clone());
        Some(entry.status.clone())
    }
}

fn cost(run: &Run, status: &Bytes) -> usize {
    // The run stands in both tables.
    status.len() + 2 * run.bytes() + ENTRY_BYTES
}

/// Why a task is handed out although its result is remembered.
#[derive(Debug, thiserror::Error)]
pub enum NotReplayed {
    /// A remembered result's path does not go on from that of its input.
    #[error("a remembered result does not follow from its input's path")]
    Path,
    /// A stream is not at hand; the text says why.
    #[error("stream {label} {sha256} of the earlier result: {reason}")]
    Stream {
        /// Its label.
        label: String,
        /// The stream.
        sha256: String,
        /// Why it could not be copied.
        reason: String,
    },
    /// The results could not be published; the text says why.
    #[error("the results cannot be published: {0}")]
    Publish(String),
}

/// The status to publish for `trigger` in place of a run: the remembered one, with results that descend from the trigger.
///
/// Its run time is 0, because nothing ran; that also keeps it from being remembered in its turn.
///
/// # Errors
/// [`NotReplayed::Path`].
pub fn status_for(
    remembered: &StatusEvent,
    trigger: &BinaryEvent,
    dequeued: String,
    now: Timestamp,
) -> Result<StatusEvent, NotReplayed> {
    let StatusEntity { input, status, error, message, results, .. } = &remembered.entity;
    let result = |result: &BinaryEvent| {
        let mut source = trigger.source.clone();
        let own = own_nodes(&input.source.path, &result.source.path).ok_or(NotReplayed::Path)?;
        source.path.extend(own.iter().map(|node| PathNode { timestamp: now, ..node.clone() }));
        Ok(BinaryEvent { source, timestamp: now, flags: Flags::default(), retries: 0, ..result.clone() })
    };
    let results = results.iter().map(result).collect::<Result<_, NotReplayed>>()?;
    let mut input = BinaryEvent { dequeued, ..trigger.clone() };
    input.entity.features.clear();
    input.entity.datastreams.clear();
    input.entity.info = model::JsonText::default();
    let (status, error, message) = (status.clone(), error.clone(), message.clone());
    let entity = StatusEntity { input, status, runtime: 0.0, error, message, results };
    Ok(StatusEvent { kafka_key: String::new(), timestamp: now, author: remembered.author.clone(), entity })
}

/// What a result's path has beyond its input's.
fn own_nodes<'a>(input: &[PathNode], result: &'a [PathNode]) -> Option<&'a [PathNode]> {
    let (shared, own) = result.split_at_checked(input.len())?;
    let same = shared.iter().zip(input).all(|(one, other)| one.sha256 == other.sha256);
    (same && !own.is_empty()).then_some(own)
}

/// Makes the streams of remembered results available in the trigger's source, if it is another one. Blocks.
///
/// # Errors
/// [`NotReplayed`]; some may have been copied, which does no harm.
pub fn copy_streams(streams: &dyn CopyStreams, remembered: &StatusEvent, to: &str) -> Result<(), NotReplayed> {
    let from = &remembered.entity.input.source.name;
    if from == to {
        return Ok(());
    }
    for stream in remembered.entity.results.iter().flat_map(|result| &result.entity.datastreams) {
        let reason = match streams.copy_stream(&stream.label, &stream.sha256, from, to) {
            Ok(true) => continue,
            Ok(false) => format!("it is not in source {from} any more"),
            Err(reason) => reason,
        };
        return Err(NotReplayed::Stream { label: stream.label.clone(), sha256: stream.sha256.clone(), reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
