//! The copying itself: partition by partition, a few megabytes at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use azulite_storage::Record;

use super::convert::convert;
use super::progress::{BadRecord, TopicProgress};
use super::{Request, Run, RunError, select};
use crate::admin::scan::{Flow, Step, scan_range};
use crate::broker::{
    Append, AppendError, CommittedOffset, GroupChanges, Lane, Offset, Partition, Topic, TopicPartition,
};
use crate::dispatcher::batches::Batches;
use crate::dispatcher::model::{self, Event, Model};
use crate::dispatcher::{new_topic, topic};

/// Copies are committed once they have so many bytes,
const COMMIT_BYTES: usize = 4 << 20;
/// or once so many offsets have been passed.
const COMMIT_OFFSETS: u64 = 10_000;
/// How often plugins are told to wait.
const HOLD_EVERY: Duration = Duration::from_secs(60);
/// Bad records of one partition that are logged one by one.
const BAD_LOGGED: u64 = 1_000;
/// How long the queue of the log may stay full, and between two looks.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One partition to be copied.
struct Part {
    topic: usize,
    partition: Arc<Partition>,
    from: Offset,
    end: Offset,
}

/// What one partition is read for, and what has not been committed yet.
struct Copying<'a> {
    run: &'a Run,
    request: Request,
    part: &'a Part,
    model: Model,
    /// Where deletions go.
    counterpart: Option<String>,
    targets: BTreeMap<String, Arc<Topic>>,
    batches: Batches,
    pending_bytes: usize,
    since: TopicProgress,
    next: Offset,
    bad: u64,
    held: Instant,
    lane: Lane,
}

impl Run {
    /// True at the end of everything, false when it was told to stop.
    pub(super) fn copy_all(&self) -> Result<bool, RunError> {
        let request = self.lock().request.clone();
        let parts = self.parts()?;
        for (index, topic) in self.topics.iter().enumerate() {
            self.metrics.reprocessor_eof.at([&topic.name]).set(0);
            tracing::info!(topic = %topic.name, "reprocessing");
            for part in parts.iter().filter(|part| part.topic == index) {
                // Many small ones take long together.
                self.hold();
                if !self.copy(&request, part)? {
                    return Ok(false);
                }
            }
            self.metrics.reprocessor_eof.at([&topic.name]).set(1);
        }
        self.hold();
        Ok(true)
    }

    fn hold(&self) {
        if let Some(hold) = self.options.hold.as_ref().filter(|_| !self.lock().request.dry_run) {
            hold();
        }
    }

    /// Notes that a run that is more than a rehearsal would have made this topic by now.
    fn would_make(&self, name: String) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }

    /// Whether a run that is more than a rehearsal would find this topic.
    fn would_exist(&self, name: &str) -> bool {
        let planned = self.options.plan.topics().any(|spec| spec.name == *name);
        planned || self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Every partition with what is left of it now.
    fn parts(&self) -> Result<Vec<Part>, RunError> {
        let positions = self.broker.log().group_offsets(&self.group())?;
        let mut parts = Vec::new();
        for (index, topic) in self.topics.iter().enumerate() {
            let mut total = 0;
            for partition in &topic.partitions {
                let offsets = partition.offsets();
                let committed = positions.get(partition.name()).map_or(0, |position| position.offset);
                let (from, end) = (committed.clamp(offsets.log_start, offsets.high_watermark), offsets.high_watermark);
                total += between(from, end);
                parts.push(Part { topic: index, partition: partition.clone(), from, end });
            }
            let topic = TopicProgress { topic: topic.name.clone(), total, ..TopicProgress::default() };
            self.lock().topics.push(topic);
        }
        Ok(parts)
    }

    fn copy(&self, request: &Request, part: &Part) -> Result<bool, RunError> {
        let place = part.partition.name();
        let Some(model) = select::model(request, &place.topic) else {
            tracing::warn!(topic = %place.topic, "no model is known by this name: the topic is left out");
            return Ok(true);
        };
        let counterpart = select::counterpart(request, &self.options.topic_prefix, &place.topic);
        let mut copying = Copying {
            run: self,
            request: request.clone(),
            part,
            model,
            counterpart,
            targets: BTreeMap::new(),
            batches: Batches::default(),
            pending_bytes: 0,
            since: TopicProgress::default(),
            next: part.from,
            bad: 0,
            held: Instant::now(),
            lane: self.broker.new_lane(),
        };
        let mut failed = Ok(());
        let log = self.broker.log().clone();
        let scanned = scan_range(log.as_ref(), &part.partition, part.from..part.end, &mut |step| {
            failed = copying.step(step);
            if failed.is_err() || self.stopping() { Flow::Break(()) } else { Flow::Continue(()) }
        });
        failed?;
        let to_the_end = scanned?.is_continue();
        if to_the_end {
            // Offsets without a record are done with as well.
            copying.pass(part.end);
        }
        copying.commit()?;
        Ok(to_the_end)
    }
}

fn between(from: Offset, to: Offset) -> u64 {
    u64::try_from(to - from).unwrap_or(0)
}

impl Copying<'_> {
    fn step(&mut self, step: Step) -> Result<(), RunError> {
        match step {
            Step::Record(record) => {
                let next = record.offset + 1;
                self.record(record)?;
                self.pass(next);
            }
            Step::Damage(damage) => {
                let reason = format!("offsets {} to {}: {}", damage.from_offset, damage.last_offset, damage.reason);
                self.bad(damage.from_offset, reason);
                self.pass(damage.last_offset + 1);
            }
        }
        if self.pending_bytes >= COMMIT_BYTES || self.since.passed >= COMMIT_OFFSETS {
            self.commit()?;
        }
        Ok(())
    }

    fn pass(&mut self, next: Offset) {
        self.since.passed += between(self.next, next);
        self.next = self.next.max(next);
    }

    fn bad(&mut self, offset: Offset, reason: String) {
        let TopicPartition { topic, partition } = self.part.partition.name();
        self.bad += 1;
        if self.bad <= BAD_LOGGED {
            tracing::warn!(topic, partition, offset, reason, "a record cannot be reprocessed");
        }
        if self.bad == BAD_LOGGED {
            tracing::warn!(topic, partition, "further records that cannot be reprocessed are only counted");
        }
        self.since.bad(BadRecord { partition: *partition, offset, reason });
    }

    fn record(&mut self, record: Record) -> Result<(), RunError> {
        let Record { offset, key, value, .. } = record;
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            // Where nothing was copied to, there is nothing to delete.
            let (Some(key), Some(name)) = (key, &self.counterpart) else { return Ok(()) };
            let topic = self.run.broker.log().topic(name);
            if topic.is_some() || (self.request.dry_run && self.run.would_exist(name)) {
                self.pending_bytes += key.len();
                self.since.deletions += 1;
            }
            if let Some(topic) = topic.filter(|_| !self.request.dry_run) {
                self.batches.push(&topic, azulite_storage::clock::now_ms(), &key, None);
            }
            return Ok(());
        };
        let place = (self.part.partition.name(), offset);
        match convert(self.model, &value, self.request.legacy_json, place) {
            Ok(event) => self.event(offset, &event),
            Err(reason) => {
                self.bad(offset, reason);
                Ok(())
            }
        }
    }

    fn event(&mut self, offset: Offset, event: &Event) -> Result<(), RunError> {
        let options = &self.run.options;
        let name = match topic::route(&options.topic_prefix, event) {
            Ok(name) => name,
            Err(error) => {
                self.bad(offset, error.to_string());
                return Ok(());
            }
        };
        let value = model::encode_avro(event);
        if value.len() > options.message_max_bytes {
            let reason = format!("{} bytes, more than events.message_max_bytes", value.len());
            self.bad(offset, reason);
            return Ok(());
        }
        self.since.copied += 1;
        self.pending_bytes += value.len();
        if self.request.dry_run {
            self.run.would_make(name);
            return Ok(());
        }
        if !self.targets.contains_key(&name) {
            let topic = self.run.broker.topic_or_create(&name, || new_topic(options.plan.spec(&name)))?;
            self.targets.insert(name.clone(), topic);
        }
        if let Some(topic) = self.targets.get(&name) {
            self.batches.push(topic, azulite_storage::clock::now_ms(), event.kafka_key().as_bytes(), Some(&value));
        }
        Ok(())
    }

    /// Makes the copies durable, then the position behind them.
    fn commit(&mut self) -> Result<(), RunError> {
        self.pending_bytes = 0;
        let since = std::mem::take(&mut self.since);
        let batches = std::mem::take(&mut self.batches);
        if !self.request.dry_run {
            self.append(batches.finish())?;
            self.move_position()?;
        }
        self.run.metrics.reprocessor_events.add([&self.part.partition.name().topic], since.copied);
        if let Some(topic) = self.run.lock().topics.get_mut(self.part.topic) {
            topic.add(since);
        }
        if self.held.elapsed() >= HOLD_EVERY {
            self.held = Instant::now();
            self.run.hold();
        }
        Ok(())
    }

    fn append(&self, appends: Vec<Append>) -> Result<(), RunError> {
        if appends.is_empty() {
            return Ok(());
        }
        let log = self.run.broker.log();
        let (sender, outcome) = mpsc::sync_channel(1);
        let done = Box::new(move |outcome: Result<_, AppendError>| {
            // Whoever waits is there until it comes.
            drop(sender.send(outcome.map(drop)));
        });
        let mut refused = log.try_append(self.lane, appends, done);
        let begun = Instant::now();
        while let Err((appends, done)) = refused {
            if begun.elapsed() > PATIENCE || self.run.stopping() {
                return Err(RunError::QueueFull);
            }
            std::thread::sleep(LOOK_EVERY);
            refused = log.try_append(self.lane, appends, done);
        }
        outcome.recv().unwrap_or(Err(AppendError::Closed))?;
        Ok(())
    }

    fn move_position(&self) -> Result<(), RunError> {
        let position = CommittedOffset {
            offset: self.next,
            leader_epoch: -1,
            metadata: String::new(),
            commit_time_ms: azulite_storage::clock::now_ms(),
        };
        let offsets = vec![(self.part.partition.name().clone(), Some(position))];
        let (log, group) = (self.run.broker.log(), self.run.group());
        let (sender, outcome) = mpsc::sync_channel(1);
        let done = Box::new(move |outcome: Result<_, AppendError>| {
            // Whoever waits is there until it comes.
            drop(sender.send(outcome.map(drop)));
        });
        let changes = GroupChanges { offsets, ..GroupChanges::default() };
        self.run.broker.positions(&group).overwrite(log.as_ref(), &group, changes, done)?;
        outcome.recv().unwrap_or(Err(AppendError::Closed))?;
        Ok(())
    }
}
