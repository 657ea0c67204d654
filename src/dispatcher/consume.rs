//! GET: events are gathered by precedence, filtered, and handed out. Contract events.md 5.3 to 5.5.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Dispatcher;
use super::answer::{Info, Multipart, events_json};
use super::filter::{self, Consumer, FilterCounts, FilterKey, UNDECODABLE, previously_deleted};
use super::hub::{Delivery, DeliveryGuard, GetAnswer, GetError, GetRequest};
use super::model::{self, Event, Model, Timestamp};
use super::params::GetParams;
use super::plugin_key::{Flow, PluginKey, subscriptions};
use super::purge::{PurgeKind, Purged};
use super::reader::{Candidate, Reader, ReaderError, Taken};
use crate::broker::{AppendError, CommitOffsetsError, Waiter};

/// Filter stage and reason of a task whose event has no key.
const NO_ID: FilterKey = FilterKey { stage: "RaiseDequeuedStatus", reason: "error_no_id" };
/// The longest one sweep without waiting (`deadline=0`) goes on while everything is filtered.
const SWEEP: Duration = Duration::from_secs(1);
/// When another try makes sense after an overload.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What one request has gathered so far.
struct Gathered {
    events: Vec<Event>,
    encoded: Vec<Vec<u8>>,
    bytes: usize,
    counts: FilterCounts,
    taken: Taken,
}

/// Hands out events.
///
/// # Cancel safety
/// Dropping the future gives back what had been taken.
pub(super) async fn get(dispatcher: Arc<Dispatcher>, request: GetRequest) -> Result<GetAnswer, GetError> {
    let params = GetParams::parse(&request.model, &request.query, &dispatcher.options.limits)
        .map_err(|bad| GetError::BadParameter(bad.to_string()))?;
    if params.filter_ignored {
        tracing::info!(name = params.name, "the parameter `filter` of old releases has no meaning any more");
    }
    let request = Arc::new(Gather { dispatcher, params, task: request.task });
    let (reader, not_ready) = request.clone().open().await?;
    let labels = [request.params.name.as_str(), request.params.model.as_str()];
    request.dispatcher.metrics.event_fetch_requests.inc(labels);
    let waiting = i64::try_from(not_ready.len()).unwrap_or(0);
    let gauge = request.dispatcher.metrics.consume_not_ready.at([&request.params.name, &request.params.version]);
    gauge.set(waiting);
    let gathered = request.clone().gather(&reader).await?;
    request.answer(gathered, &not_ready)
}

/// One GET under way.
struct Gather {
    dispatcher: Arc<Dispatcher>,
    params: GetParams,
    task: bool,
}

/// Runs on a blocking thread; its result is dropped there, and what was taken given back, when the request has gone.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReaderError> + Send + 'static,
) -> Result<T, GetError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(refusal),
        Err(_) => Err(GetError::Stopping),
    }
}

fn refusal(error: ReaderError) -> GetError {
    match error {
        ReaderError::Commit(CommitOffsetsError::Append(AppendError::DiskFull)) => GetError::DiskFull,
        ReaderError::Commit(CommitOffsetsError::Append(AppendError::Closed)) => GetError::Stopping,
        ReaderError::Commit(CommitOffsetsError::Append(AppendError::Poisoned { .. })) => GetError::Poisoned,
        ReaderError::Read(_) | ReaderError::Index(_) | ReaderError::Commit(_) => {
            tracing::error!(%error, "events could not be read");
            GetError::FetchFailed(error.to_string())
        }
    }
}

impl Gather {
    /// The reader of this plugin key, with its positions fixed; on `reset` a new one whose groups start afresh.
    async fn open(self: Arc<Self>) -> Result<(Arc<Reader>, Vec<Flow>), GetError> {
        blocking(move || {
            let now_ms = azulite_storage::clock::now_ms();
            let Self { dispatcher, params, .. } = self.as_ref();
            let wanted = || subscriptions(params, &dispatcher.options.topic_prefix);
            let (reader, old) = dispatcher.readers.get(PluginKey::of(params), wanted, now_ms, params.reset);
            if let Some(old) = old {
                old.close();
            }
            if params.reset {
                reader.forget_groups()?;
            }
            let not_ready = reader.open(now_ms)?;
            Ok((reader, not_ready))
        })
        .await
    }

    /// The loop of events.md 5.4, with wake-ups in place of polls.
    async fn gather(self: Arc<Self>, reader: &Arc<Reader>) -> Result<Gathered, GetError> {
        let started = Instant::now();
        let no_wait = self.params.deadline.is_zero();
        let end = started + if no_wait { SWEEP } else { self.params.deadline };
        let mut gathered = Gathered {
            events: Vec::new(),
            encoded: Vec::new(),
            bytes: 0,
            counts: FilterCounts::default(),
            taken: Taken::nothing(reader),
        };
        let mut waiter = self.watch(reader).await?;
        loop {
            let wanted = self.params.count - gathered.events.len();
            let room = self.dispatcher.options.fetch_max_bytes.saturating_sub(gathered.bytes);
            if wanted == 0 || room == 0 {
                break;
            }
            let (this, source) = (self.clone(), reader.clone());
            let (found, pass) = blocking(move || this.pass(&source, wanted, room)).await?;
            gathered.add(pass);
            let over = Instant::now() >= end;
            if found && !over {
                continue;
            }
            if no_wait || over {
                break;
            }
            if !self.wait(&waiter, end).await? {
                break;
            }
            if !reader.is_current() {
                waiter = self.watch(reader).await?;
            }
        }
        self.dispatcher.metrics.consume_duration.observe(["read_from_kafka"], started.elapsed());
        Ok(gathered)
    }

    /// Something to wait on for every topic there is to read: none is made or deleted unseen between looking for topics
    /// and waiting for them.
    async fn watch(&self, reader: &Arc<Reader>) -> Result<Waiter, GetError> {
        loop {
            let waiter = self.dispatcher.broker.waiter(reader.partitions().into_iter());
            if reader.is_current() {
                return Ok(waiter);
            }
            let source = reader.clone();
            blocking(move || source.open(azulite_storage::clock::now_ms())).await?;
        }
    }

    /// Waits until something may have come. False at the deadline and when the process stops.
    async fn wait(&self, waiter: &Waiter, end: Instant) -> Result<bool, GetError> {
        let Ok(_place) = self.dispatcher.waiting.try_acquire() else {
            return Err(GetError::Overloaded { retry_after: RETRY_AFTER });
        };
        tokio::select! {
            () = waiter.woken() => Ok(true),
            () = tokio::time::sleep_until(end.into()) => Ok(false),
            () = self.dispatcher.stopping.cancelled() => Ok(false),
        }
    }

    /// Takes what is there and filters it. The first part is false when there was nothing.
    fn pass(&self, reader: &Arc<Reader>, count: usize, max_bytes: usize) -> Result<(bool, Gathered), ReaderError> {
        let (candidates, taken) = reader.take(count, max_bytes)?;
        let mut gathered =
            Gathered { events: Vec::new(), encoded: Vec::new(), bytes: 0, counts: FilterCounts::default(), taken };
        if candidates.is_empty() {
            return Ok((false, gathered));
        }
        let taken_bytes = candidates.iter().map(|candidate| candidate.value.len()).sum();
        let mut fetched = decode(candidates, &mut gathered.counts);
        let now_ms = azulite_storage::clock::now_ms();
        if self.params.model == Model::Binary {
            self.dispatcher.purges.catch_up()?;
        }
        let purged = {
            let consumer = Consumer {
                params: &self.params,
                task: self.task,
                sources: &self.dispatcher.options.sources,
                labels: &self.dispatcher.options.labels,
                purges: &self.dispatcher.purges.read(),
                now: Timestamp::from_millis(now_ms),
            };
            filter::consume(&mut fetched, |(event, _)| event, &consumer, &mut gathered.counts)
        };
        self.bury(purged, &mut gathered.counts, now_ms);
        gathered.events = fetched.into_iter().map(|(event, _)| event).collect();
        if self.task && self.params.model == Model::Binary {
            self.raise_dequeued(&mut gathered, now_ms / 1000);
        }
        if self.params.avro {
            gathered.bytes = taken_bytes;
        } else {
            gathered.encoded = gathered.events.iter().map(model::to_json).collect();
            gathered.bytes = gathered.encoded.iter().map(Vec::len).sum();
        }
        Ok((true, gathered))
    }

    /// Sees to the tombstones of purged events and counts them (6.6).
    fn bury(&self, purged: Vec<((Event, Candidate), PurgeKind)>, counts: &mut FilterCounts, now_ms: i64) {
        let total = u64::try_from(purged.len()).unwrap_or(u64::MAX);
        let record = |((event, candidate), kind): ((Event, Candidate), PurgeKind)| {
            let Candidate { key, partition, offset, .. } = candidate;
            // Under another record key than its own, other events may lie.
            let for_good = kind == PurgeKind::Id && key.as_deref() == Some(event.kafka_key().as_bytes());
            Purged { partition, offset, key, for_good }
        };
        let failed = match purged.is_empty() {
            true => 0,
            false => self.dispatcher.burial.bury(purged.into_iter().map(record).collect(), now_ms),
        };
        (0..failed).for_each(|_| counts.add(previously_deleted::ERROR));
        (failed..total).for_each(|_| counts.add(previously_deleted::DELETED));
        self.dispatcher.metrics.consume_pipelines_error.add([previously_deleted::STAGE], failed);
    }

    /// Marks events as tasks (5.5.8).
    fn raise_dequeued(&self, gathered: &mut Gathered, now_secs: i64) {
        let GetParams { name, version, .. } = &self.params;
        let counts = &mut gathered.counts;
        gathered.events.retain_mut(|event| match event {
            Event::Binary(binary) if binary.kafka_key.is_empty() => {
                counts.add(NO_ID);
                false
            }
            Event::Binary(binary) => {
                binary.dequeued = format!("{}.{name}.{version}.{now_secs}", binary.kafka_key);
                true
            }
            Event::Delete(_)
            | Event::Download(_)
            | Event::Insert(_)
            | Event::Plugin(_)
            | Event::Retrohunt(_)
            | Event::Status(_) => true,
        });
    }

    fn answer(&self, gathered: Gathered, not_ready: &[Flow]) -> Result<GetAnswer, GetError> {
        let Gathered { events, encoded, counts, taken, .. } = gathered;
        let metrics = &self.dispatcher.metrics;
        let labels = [self.params.name.as_str(), self.params.model.as_str()];
        let fetched = events.len();
        metrics.events_fetched.add(labels, u64::try_from(fetched).unwrap_or(0));
        metrics.events_filtered.add(labels, counts.total());
        for (key, count) in counts.iter() {
            metrics.consume_pipelines_removed.add([key.stage], count);
        }
        let info = Info { filters: &counts, fetched, not_ready, paused: false }.to_json();
        let body = match self.params.avro {
            true => model::encode_avro_bulk(self.params.model, &events),
            false => events_json(&encoded),
        };
        let Multipart { content_type, head, tail } = Multipart::new(&info, &body, super::random_bytes);
        let body = vec![Bytes::from(head), Bytes::from(body), Bytes::from(tail)];
        Ok(GetAnswer { content_type, body, delivery: Some(DeliveryGuard::new(Positions(taken))) })
    }
}

impl Gathered {
    fn add(&mut self, pass: Gathered) {
        self.events.extend(pass.events);
        self.encoded.extend(pass.encoded);
        self.bytes += pass.bytes;
        for (key, count) in pass.counts.iter() {
            (0..count).for_each(|_| self.counts.add(key));
        }
        self.taken.join(pass.taken);
    }
}

fn decode(candidates: Vec<Candidate>, counts: &mut FilterCounts) -> Vec<(Event, Candidate)> {
    let mut events = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        match candidate.model.and_then(|model| model::decode_avro(model, &candidate.value).ok()) {
            Some(event) => events.push((event, candidate)),
            None => counts.add(UNDECODABLE),
        }
    }
    events
}

/// Moves the positions once the client has the answer.
struct Positions(Taken);

impl Delivery for Positions {
    fn on_delivered(self: Box<Self>) {
        self.0.delivered();
    }

    fn on_lost(self: Box<Self>) {
        drop(self.0);
    }
}
