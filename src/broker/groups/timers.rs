//! When which group has to be looked at next: one ordered map and one task for all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::coordinator::Entry;
use super::member::Millis;

/// At most one entry per group.
#[derive(Default)]
pub(super) struct Timers {
    queue: Mutex<BTreeMap<(Millis, u64), Arc<Entry>>>,
    sooner: Notify,
}

impl Timers {
    fn queue(&self) -> MutexGuard<'_, BTreeMap<(Millis, u64), Arc<Entry>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a group is looked at by `deadline`. A time set before that is sooner stands: the group is looked
    /// at in vain then, which is cheaper than moving it with every heartbeat.
    pub(super) fn arm(&self, entry: &Arc<Entry>, armed: &mut Option<Millis>, deadline: Option<Millis>) {
        let Some(deadline) = deadline else { return };
        if armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        let mut queue = self.queue();
        if let Some(armed) = armed.replace(deadline) {
            queue.remove(&(armed, entry.number));
        }
        let first = queue.first_key_value().is_none_or(|((first, _), _)| deadline < *first);
        queue.insert((deadline, entry.number), entry.clone());
        drop(queue);
        if first {
            self.sooner.notify_one();
        }
    }

    /// Takes out one group whose time has come. The caller clears what [`Timers::arm`] remembered.
    pub(super) fn due(&self, now: Millis) -> Option<Arc<Entry>> {
        let mut queue = self.queue();
        let first = queue.first_entry().filter(|first| first.key().0 <= now);
        first.map(|first| first.remove())
    }

    /// The first time that is set.
    pub(super) fn next(&self) -> Option<Millis> {
        self.queue().first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Returns once a time was set that comes before all others.
    pub(super) async fn sooner(&self) {
        self.sooner.notified().await;
    }
}
