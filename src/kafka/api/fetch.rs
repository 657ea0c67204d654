//! Fetch: whole batches as they lie in the log, with long polls that commits wake.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{Api, Peer, Reply, unknown_topic};
use crate::broker::{Broker, Offset, Partition, ReadError};
use crate::kafka::codec::messages::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use crate::kafka::codec::{Records, Str, Uuid};
use crate::kafka::error::ErrorCode;
use crate::kafka::frame::Room;

/// Longest a fetch waits, whatever the client says.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// Between two looks of a fetch that waits for more than there is, so that many small appends do not each cost a read:
/// at first, and at most, as it doubles.
const GATHER: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));
/// Room in memory that every read has; a larger batch gets what it needs.
const LEAST_BYTES: usize = 1 << 20;
/// How long a fetch that is due waits for room in memory before it is answered without records.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// One partition of a fetch.
struct Wanted {
    topic: usize,
    index: i32,
    from: Offset,
    max_bytes: usize,
    leader_epoch: i32,
}

/// What a look at one partition gave.
struct Looked {
    partition: Option<Arc<Partition>>,
    error: ErrorCode,
    log_start: Offset,
    last_stable: Offset,
    high_watermark: Offset,
    records: Vec<Bytes>,
    /// The topic was deleted between the look and the read.
    is_gone: bool,
}

impl Looked {
    fn failed(error: ErrorCode) -> Self {
        let (partition, records) = (None, Vec::new());
        Self { partition, error, log_start: -1, last_stable: -1, high_watermark: -1, records, is_gone: false }
    }

    /// Whether it failed; a topic that is gone is said to be so as this version says it.
    fn check(&mut self, unknown: ErrorCode) -> bool {
        if self.is_gone {
            self.error = unknown;
        }
        self.error != ErrorCode::None
    }

    /// True when there is something to read from `from` on.
    fn has_more(&self, from: Offset, committed_only: bool) -> bool {
        let end = if committed_only { self.last_stable } else { self.high_watermark };
        self.error == ErrorCode::None && from < end
    }
}

impl Api {
    /// `kafka.md` 3.3.
    pub(super) async fn fetch(&self, peer: &Peer, request: FetchRequest, version: i16) -> Reply {
        if let Some(error_code) = session_error(&request) {
            return FetchResponse { error_code, ..Default::default() }.into();
        }
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
        let deadline = Instant::now() + wait;
        let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(self.options.fetch_max_bytes);
        let min_bytes = min_bytes.min(max_bytes);
        let committed_only = request.isolation_level == 1;
        let topics: Vec<(Str, Uuid)> = request.topics.iter().map(|t| (t.topic.clone(), t.topic_id)).collect();
        let wanted = wanted(&request);
        drop(request);
        let mut gather = GATHER.0;
        loop {
            let looked = self.look(&topics, &wanted, version);
            let numbers = looked.iter().filter_map(|l| l.partition.as_ref()).map(|p| p.number());
            let waiter = self.broker.waiter(numbers);
            // Again, now that nothing can slip in between look and wait.
            let mut looked = self.look(&topics, &wanted, version);
            let more = |(l, w): (&Looked, &Wanted)| l.has_more(w.from, committed_only);
            let failed = looked.iter().any(|l| l.error != ErrorCode::None);
            let any = looked.iter().zip(&wanted).any(more);
            let due = failed || wanted.is_empty() || min_bytes == 0 || Instant::now() >= deadline;
            // What does not suffice is not read: it would be read again when more has come.
            let worth = any && (due || min_bytes == 1 || self.suffices(&looked, &wanted, max_bytes, min_bytes).await);
            if worth {
                let turn = peer.turn.fetch_add(1, atomic::Ordering::Relaxed);
                let (held, enough) = self.read(&mut looked, &wanted, (max_bytes, min_bytes), turn, deadline).await;
                let failed =
                    looked.iter_mut().fold(failed, |failed, looked| failed | looked.check(unknown_topic(version)));
                if due || failed || enough || Instant::now() >= deadline {
                    return Reply::Held(answer(&topics, &wanted, looked, committed_only).into(), held);
                }
                drop(held);
            } else if due {
                return answer(&topics, &wanted, looked, committed_only).into();
            }
            drop(looked);
            if timeout_at(deadline, waiter.woken()).await.is_ok() && any {
                tokio::time::sleep_until(deadline.min(Instant::now() + gather)).await;
                gather = GATHER.1.min(2 * gather);
            }
        }
    }

    /// Ends and errors of each partition, without touching the disk.
    fn look(&self, topics: &[(Str, Uuid)], wanted: &[Wanted], version: i16) -> Vec<Looked> {
        let found: Vec<_> = topics.iter().map(|(name, id)| self.topic(name, *id)).collect();
        let unknown = unknown_topic(version);
        let look = |w: &Wanted| {
            let Some(topic) = found.get(w.topic).and_then(Option::as_ref) else { return Looked::failed(unknown) };
            let Some(partition) = topic.partition(w.index) else {
                return Looked::failed(ErrorCode::UnknownTopicOrPartition);
            };
            let offsets = partition.offsets();
            let out_of_range = w.from < offsets.log_start || w.from > offsets.high_watermark;
            let error = match check_epoch(w.leader_epoch, partition) {
                Err(error) => error,
                Ok(()) if out_of_range => ErrorCode::OffsetOutOfRange,
                Ok(()) => ErrorCode::None,
            };
            Looked {
                partition: Some(partition.clone()),
                error,
                log_start: offsets.log_start,
                last_stable: offsets.last_stable,
                high_watermark: offsets.high_watermark,
                records: Vec::new(),
                is_gone: false,
            }
        };
        wanted.iter().map(look).collect()
    }

    /// Whether the partitions have `min_bytes`, as the index tells. An error counts as well: the read that follows says it.
    async fn suffices(&self, looked: &[Looked], wanted: &[Wanted], max_bytes: usize, min_bytes: usize) -> bool {
        let (broker, plan) = (self.broker.clone(), plan(looked, wanted));
        let counting = tokio::task::spawn_blocking(move || {
            let mut sum = 0_usize;
            plan.into_iter().any(|(_, partition, from, partition_max)| {
                let limit = max_bytes.saturating_sub(sum).min(partition_max);
                match broker.log().readable_bytes(&partition, from, limit) {
                    Ok(bytes) => sum += bytes,
                    Err(_) => return true,
                }
                sum >= min_bytes
            })
        });
        counting.await.unwrap_or(true)
    }

    /// Reads what the partitions have, up to `max_bytes` in all but at least one batch. Returns the room it takes in
    /// memory, and whether that is `min_bytes` or all there is room for.
    async fn read(
        &self,
        looked: &mut [Looked],
        wanted: &[Wanted],
        (max_bytes, min_bytes): (usize, usize),
        turn: usize,
        deadline: Instant,
    ) -> (Room, bool) {
        let Some((mut room, max_bytes)) = self.room_for(max_bytes, deadline).await else {
            return (Room::default(), false);
        };
        let plan = plan(looked, wanted);
        let mut read = self.read_plan(plan.clone(), turn, max_bytes).await;
        let mut total = size(&read);
        if total > max_bytes.max(LEAST_BYTES) {
            // One batch that is larger: once more, with the room for it.
            drop((read, room));
            let larger = timeout_at(deadline.max(Instant::now() + ROOM_PATIENCE), self.fetch_memory.take(total));
            let Ok(larger) = larger.await else { return (Room::default(), false) };
            room = larger;
            read = self.read_plan(plan, turn, max_bytes).await;
            total = size(&read);
        }
        room.shrink_to(total);
        for (place, outcome) in read {
            let Some(looked) = looked.get_mut::<usize>(place) else { continue };
            match outcome {
                Ok(batches) => looked.records = batches,
                Err(error) => {
                    looked.error = self.read_code(&error);
                    looked.is_gone = matches!(error, ReadError::Gone { .. });
                }
            }
        }
        (room, total >= min_bytes.min(max_bytes))
    }

    /// Room in memory for records, and for how many bytes of them. `None` when there is none in time.
    async fn room_for(&self, max_bytes: usize, deadline: Instant) -> Option<(Room, usize)> {
        if let Some(room) = self.fetch_memory.try_take(max_bytes.max(LEAST_BYTES)) {
            return Some((room, max_bytes));
        }
        let room = timeout_at(deadline.max(Instant::now() + ROOM_PATIENCE), self.fetch_memory.take(LEAST_BYTES));
        Some((room.await.ok()?, max_bytes.min(LEAST_BYTES)))
    }

    async fn read_plan(&self, plan: Vec<Planned>, turn: usize, max_bytes: usize) -> Vec<Outcome> {
        let broker = self.broker.clone();
        let reading = tokio::task::spawn_blocking(move || read_all(&broker, plan, turn, max_bytes)).await;
        reading.unwrap_or_else(|error| {
            tracing::error!(%error, "a fetch failed");
            Vec::new()
        })
    }

    /// The code for a failed read. What a client meets again and again is logged once in a while.
    pub(super) fn read_code(&self, error: &ReadError) -> ErrorCode {
        match error {
            ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            ReadError::Gone { .. } => ErrorCode::UnknownTopicOrPartition,
            ReadError::Damaged { .. } | ReadError::Batch { .. } | ReadError::Io { .. } | ReadError::Index(_) => {
                if let Some(more) = self.complaints.due(error.to_string()) {
                    tracing::error!(%error, more, "a Kafka client cannot be given records");
                }
                ErrorCode::KafkaStorageError
            }
        }
    }
}

type Planned = (usize, Arc<Partition>, Offset, usize);
type Outcome = (usize, Result<Vec<Bytes>, ReadError>);

/// The partitions that have something.
fn plan(looked: &[Looked], wanted: &[Wanted]) -> Vec<Planned> {
    (0..)
        .zip(looked.iter().zip(wanted))
        .filter(|(_, (l, w))| l.error == ErrorCode::None && w.from < l.high_watermark)
        .filter_map(|(i, (l, w))| Some((i, l.partition.clone()?, w.from, w.max_bytes)))
        .collect()
}

fn size(outcomes: &[Outcome]) -> usize {
    outcomes.iter().flat_map(|(_, outcome)| outcome.iter().flatten()).map(Bytes::len).sum()
}

/// Reads partitions in turn, beginning with another one each time.
fn read_all(broker: &Broker, mut plan: Vec<Planned>, turn: usize, max_bytes: usize) -> Vec<Outcome> {
    let first = turn % plan.len().max(1);
    plan.rotate_left(first);
    let mut left = max_bytes;
    let mut outcomes = Vec::with_capacity(plan.len());
    let mut empty = true;
    for (place, partition, from, partition_max) in plan {
        let limit = left.min(partition_max);
        let outcome = broker.log().read(&partition, from, limit);
        let had = outcome.as_ref().is_ok_and(|batches| !batches.is_empty());
        let outcome = outcome.map(|mut batches| {
            // Only the first partition that has something may go past the bounds.
            while !empty && batches.iter().map(Bytes::len).sum::<usize>() > limit {
                batches.pop();
            }
            batches
        });
        let read: usize = outcome.iter().flatten().map(Bytes::len).sum();
        empty &= read == 0;
        left = left.saturating_sub(read);
        outcomes.push((place, outcome));
        // Nothing is read only to find that the answer has no room for it.
        if left == 0 || had && read == 0 && limit == left {
            break;
        }
    }
    outcomes
}

/// Compares the epoch a client knows with the partition's; -1 is not compared.
pub(super) fn check_epoch(known: i32, partition: &Partition) -> Result<(), ErrorCode> {
    match known.cmp(&partition.leader_epoch()) {
        _ if known == -1 => Ok(()),
        Ordering::Greater => Err(ErrorCode::UnknownLeaderEpoch),
        Ordering::Less => Err(ErrorCode::FencedLeaderEpoch),
        Ordering::Equal => Ok(()),
    }
}

/// Sessions are declined: whoever names one has it from elsewhere.
fn session_error(request: &FetchRequest) -> Option<ErrorCode> {
    match (request.session_id, request.session_epoch) {
        (_, -1) | (0, 0) => None,
        (0, _) => Some(ErrorCode::InvalidFetchSessionEpoch),
        _ => Some(ErrorCode::FetchSessionIdNotFound),
    }
}

fn wanted(request: &FetchRequest) -> Vec<Wanted> {
    let partitions =
        request.topics.iter().enumerate().flat_map(|(t, topic)| topic.partitions.iter().map(move |p| (t, p)));
    let wanted = |(topic, p): (usize, &crate::kafka::codec::messages::fetch::FetchPartition)| Wanted {
        topic,
        index: p.partition,
        from: p.fetch_offset,
        max_bytes: usize::try_from(p.partition_max_bytes).unwrap_or(0),
        leader_epoch: p.current_leader_epoch,
    };
    partitions.map(wanted).collect()
}

fn answer(topics: &[(Str, Uuid)], wanted: &[Wanted], looked: Vec<Looked>, committed_only: bool) -> FetchResponse {
    let empty = |(topic, topic_id): &(Str, Uuid)| FetchableTopicResponse {
        topic: topic.clone(),
        topic_id: *topic_id,
        partitions: Vec::new(),
    };
    let mut responses: Vec<_> = topics.iter().map(empty).collect();
    for (wanted, looked) in wanted.iter().zip(looked) {
        let data = PartitionData {
            partition_index: wanted.index,
            error_code: looked.error,
            high_watermark: looked.high_watermark,
            last_stable_offset: looked.last_stable,
            log_start_offset: looked.log_start,
            aborted_transactions: committed_only.then(Vec::new),
            records: Some(Records::from(looked.records)),
            ..Default::default()
        };
        if let Some(topic) = responses.get_mut(wanted.topic) {
            topic.partitions.push(data);
        }
    }
    FetchResponse { responses, ..Default::default() }
}
