//! Who waits for which partitions to grow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use azulite_storage::PartitionNumber;
use tokio::sync::Notify;

#[derive(Default)]
struct Inner {
    next: u64,
    by_partition: HashMap<PartitionNumber, HashMap<u64, Arc<Notify>>>,
    all: HashMap<u64, Arc<Notify>>,
}

/// Registered waiters; each costs memory only while its request waits.
#[derive(Default)]
pub(super) struct Waiters(Mutex<Inner>);

impl Waiters {
    pub(super) fn register(waiters: &Arc<Self>, partitions: impl Iterator<Item = PartitionNumber>) -> Waiter {
        let notify = Arc::new(Notify::new());
        let partitions: Vec<_> = partitions.collect();
        let mut inner = waiters.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.next += 1;
        let id = inner.next;
        for partition in &partitions {
            inner.by_partition.entry(*partition).or_default().insert(id, notify.clone());
        }
        inner.all.insert(id, notify.clone());
        drop(inner);
        Waiter { waiters: waiters.clone(), id, partitions, notify }
    }

    pub(super) fn wake(&self, grown: &[PartitionNumber]) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = grown.iter().filter_map(|partition| inner.by_partition.get(partition));
        waiting.flat_map(HashMap::values).for_each(|notify| notify.notify_one());
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all.len()
    }

    pub(super) fn wake_all(&self) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.all.values().for_each(|notify| notify.notify_one());
    }
}

/// One registration; ends when dropped.
pub struct Waiter {
    waiters: Arc<Waiters>,
    id: u64,
    partitions: Vec<PartitionNumber>,
    notify: Arc<Notify>,
}

impl Waiter {
    /// Returns once something happened since the registration or the last call.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut inner = self.waiters.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.all.remove(&self.id);
        for partition in &self.partitions {
            if let Some(waiting) = inner.by_partition.get_mut(partition) {
                waiting.remove(&self.id);
                if waiting.is_empty() {
                    inner.by_partition.remove(partition);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wake_before_the_wait_is_not_missed_and_others_are_left_alone() {
        let waiters = Arc::new(Waiters::default());
        let one = Waiters::register(&waiters, [PartitionNumber(2)].into_iter());
        let other = Waiters::register(&waiters, [PartitionNumber(3)].into_iter());
        waiters.wake(&[PartitionNumber(2)]);
        one.woken().await;
        let waited = tokio::time::timeout(std::time::Duration::from_millis(5), other.woken()).await;
        assert!(waited.is_err(), "nothing grew");
        waiters.wake_all();
        other.woken().await;
        drop((one, other));
        let inner = waiters.0.lock().unwrap();
        assert!(inner.by_partition.is_empty() && inner.all.is_empty());
    }
}
