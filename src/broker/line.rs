//! Appends that wait for room in the log's queue, in the order in which they came.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use azulite_storage::{Append, AppendError, Appended, Done, Lane};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{sleep, timeout};

use super::Broker;

/// Between two looks for room. Whoever looks waits for commits, which take about as long.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The log took nothing more for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue of the log had no room for {0:?}")]
pub struct QueueFull(pub Duration);

/// Tells what became of an append.
pub type Outcome = oneshot::Receiver<Result<Vec<Appended>, AppendError>>;

/// Whoever waits for room.
#[derive(Debug, Default)]
pub(super) struct Line {
    first: Mutex<()>,
    /// The one at the front counts too.
    len: AtomicUsize,
}

/// A place in the line.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn new(len: &'a AtomicUsize) -> Self {
        len.fetch_add(1, Ordering::AcqRel);
        Self(len)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Broker {
    /// Queues batches that are committed together or not at all, behind everything queued in this lane before. Waits
    /// for room up to `patience`, so that what follows in the lane does not overtake what was refused.
    ///
    /// # Durability
    /// The outcome is `Ok` only once everything is durable as the mode says, and readers see it.
    /// # Errors
    /// [`QueueFull`]: nothing was queued.
    /// # Cancel safety
    /// Dropping the future before it is ready queues nothing.
    pub async fn append_in_turn(
        &self,
        lane: Lane,
        appends: Vec<Append>,
        patience: Duration,
    ) -> Result<Outcome, QueueFull> {
        let (sender, outcome) = oneshot::channel();
        // The caller may have gone; the append stands.
        let done: Done = Box::new(move |outcome| drop(sender.send(outcome)));
        let mut refused = (appends, done);
        if self.line.len.load(Ordering::Acquire) == 0 {
            match self.log.try_append(lane, refused.0, refused.1) {
                Ok(()) => return Ok(outcome),
                Err(back) => refused = back,
            }
        }
        let _place = Place::new(&self.line.len);
        let in_line = async {
            let _first = self.line.first.lock().await;
            while let Err(back) = self.log.try_append(lane, refused.0, refused.1) {
                refused = back;
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(patience, in_line).await.map_err(|_| QueueFull(patience))?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use azulite_storage::fs::RealFs;
    use azulite_storage::{BatchBuilder, NewTopic, Store};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_queue_refuses_nobody_who_waits_and_keeps_the_order_of_a_lane() {
        let dir = tempfile::tempdir().unwrap();
        let options = azulite_storage::Options {
            segment_bytes: 1 << 20,
            queue_bytes: 20_000,
            commit_bytes: 10_000,
            ..azulite_storage::Options::new(dir.path().to_owned())
        };
        let store = Store::open(Arc::new(RealFs), options).unwrap();
        let broker = Broker::new(Arc::new(store));
        let new = NewTopic { name: "t".to_owned(), partitions: 8, config: BTreeMap::new() };
        let topic = broker.create_topic(new).unwrap();
        let mut lanes = tokio::task::JoinSet::new();
        for partition in topic.partitions.clone() {
            let broker = broker.clone();
            lanes.spawn(async move {
                let (lane, mut outcomes) = (broker.new_lane(), Vec::new());
                for _ in 0..20 {
                    let mut batch = BatchBuilder::default();
                    batch.push(0, None, Some(&[0; 6_000]));
                    let appends = vec![Append { partition: partition.clone(), batch: batch.build().unwrap() }];
                    outcomes.push(broker.append_in_turn(lane, appends, Duration::from_secs(20)).await.unwrap());
                }
                for (n, outcome) in (0..).zip(outcomes) {
                    assert_eq!(outcome.await.unwrap().unwrap()[0].base_offset, n);
                }
            });
        }
        lanes.join_all().await;
        assert_eq!(broker.line.len.load(Ordering::Acquire), 0);
    }
}
