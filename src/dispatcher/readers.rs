//! The readers in memory, by plugin key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::plugin_key::{PluginKey, Subscription};
use super::reader::{Reader, ReaderContext};

struct Entry {
    reader: Arc<Reader>,
    used_ms: i64,
}

/// Bounded: past the limit the ones idle longest leave, which costs nothing but opening them again.
pub struct Readers {
    context: ReaderContext,
    limit: usize,
    entries: Mutex<HashMap<PluginKey, Entry>>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readers")
    }
}

impl Readers {
    /// No readers yet, at most `limit` of them.
    pub fn new(context: ReaderContext, limit: usize) -> Self {
        Self { context, limit, entries: Mutex::default() }
    }

    /// The reader of a key. With `fresh` a new one takes the old one's place, which the caller resets.
    pub fn get(
        &self,
        key: PluginKey,
        wanted: impl FnOnce() -> Vec<Subscription>,
        now_ms: i64,
        fresh: bool,
    ) -> (Arc<Reader>, Option<Arc<Reader>>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if !fresh && let Some(entry) = entries.get_mut(&key) {
            entry.used_ms = now_ms;
            return (entry.reader.clone(), None);
        }
        if entries.len() >= self.limit {
            evict(&mut entries, self.limit / 2);
        }
        let reader = Arc::new(Reader::new(self.context.clone(), wanted()));
        let old = entries.insert(key, Entry { reader: reader.clone(), used_ms: now_ms });
        (reader, old.map(|entry| entry.reader))
    }
}

/// Removes the longest idle readers nobody holds until `keep` are left.
fn evict(entries: &mut HashMap<PluginKey, Entry>, keep: usize) {
    let mut idle: Vec<_> = entries
        .iter()
        .filter(|(_, entry)| Arc::strong_count(&entry.reader) == 1)
        .map(|(key, entry)| (entry.used_ms, key.clone()))
        .collect();
    idle.sort();
    let surplus = entries.len().saturating_sub(keep);
    idle.into_iter().take(surplus).for_each(|(_, key)| drop(entries.remove(&key)));
}
