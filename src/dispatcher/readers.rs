//! The readers in memory, by plugin key. One that nobody asks for long leaves; so do the ones idle longest when there are
//! too many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::plugin_key::{PluginKey, Subscription};
use super::reader::{Reader, ReaderContext};

struct Entry {
    reader: Arc<Reader>,
    used_ms: i64,
}

/// Bounded: past the limit the ones idle longest leave, which costs nothing but opening them again. Those that lost an
/// answer which was not fetched again stay as long as there is room for twice as many: see [`Reader::is_settled`].
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
            evict(&mut entries, self.limit);
        }
        let reader = Arc::new(Reader::new(self.context.clone(), wanted()));
        let old = entries.insert(key, Entry { reader: reader.clone(), used_ms: now_ms });
        (reader, old.map(|entry| entry.reader))
    }

    /// The reader of a key, when it is in memory; that it was looked at is no use of it.
    pub fn peek(&self, key: &PluginKey) -> Option<Arc<Reader>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).map(|entry| entry.reader.clone())
    }

    /// Removes those that nobody has asked since and nobody holds, unless an answer of theirs was lost: what came behind it
    /// would come again. Returns how many they were. Contract events.md 5.2.
    pub fn drop_idle(&self, since_ms: i64) -> usize {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let before = entries.len();
        let idle = |entry: &Entry| entry.used_ms <= since_ms && Arc::strong_count(&entry.reader) == 1;
        entries.retain(|_, entry| !(idle(entry) && entry.reader.is_settled()));
        before - entries.len()
    }

    /// How many are in memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Removes the longest idle readers nobody holds until `limit / 2` are left; unsettled ones only from `2 * limit` on.
fn evict(entries: &mut HashMap<PluginKey, Entry>, limit: usize) {
    let mut idle: Vec<_> = entries
        .iter()
        .filter(|(_, entry)| Arc::strong_count(&entry.reader) == 1)
        .map(|(key, entry)| (!entry.reader.is_settled(), entry.used_ms, key.clone()))
        .collect();
    idle.sort();
    let full = entries.len() >= limit.saturating_mul(2);
    let surplus = entries.len().saturating_sub(limit / 2);
    let leaving = idle.into_iter().filter(|(unsettled, ..)| full || !unsettled).take(surplus);
    leaving.for_each(|(_, _, key)| drop(entries.remove(&key)));
}

#[cfg(test)]
mod tests {
    use super::super::world::{MINUTE_MS, World};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_that_nobody_asks_leaves_memory_and_goes_on_where_it_was() {
        let world = World::new();
        for letter in ['a', 'b', 'c'] {
            world.put(letter).await;
        }
        let get = async |version: u8, count: usize| {
            let query = format!("name=p&version={version}&count={count}&deadline=0&r-historic=true");
            world.get("binary/passive", &query).await.ids()
        };
        assert_eq!((get(1, 2).await, get(2, 1).await), ("ab".into(), "a".into()));
        let idle = |minutes: i64| world.dispatcher().readers.drop_idle(world.now_ms() - minutes * MINUTE_MS);
        world.pass_minutes(50);
        assert_eq!(get(2, 1).await, "b");
        world.pass_minutes(20);
        assert_eq!((idle(60), idle(60)), (1, 0), "the one that was not asked for an hour");
        assert_eq!((get(1, 9).await, get(2, 9).await), ("c".into(), "c".into()));
    }
}
