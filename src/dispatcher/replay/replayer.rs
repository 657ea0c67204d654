//! The consume side: tasks are answered out of what is remembered.

use std::time::Duration;

use super::super::Dispatcher;
use super::super::model::{BinaryEvent, BinaryEventOf, Event, EventOf, Text, Timestamp};
use super::super::params::GetParams;
use super::super::publish::{self, Prepared};
use super::{NotReplayed, ReplayCache, STAGE, USER_AGENT, copy_streams, status_for};

/// Bytes that one commit of results stores at most, about; as a rule one is enough for all tasks of a pass.
const COMMIT_BYTES: u64 = 8 << 20;

/// Answers the tasks of one consumer.
#[derive(Debug)]
pub(in crate::dispatcher) struct Replayer<'a> {
    dispatcher: &'a Dispatcher,
    cache: &'a ReplayCache,
    params: &'a GetParams,
    now_ms: i64,
}

/// The results for one task, on their way.
struct Ready {
    index: usize,
    runtime_secs: f64,
    /// `None` where they are too old to be stored.
    prepared: Option<Prepared>,
}

impl<'a> Replayer<'a> {
    /// `None` when nothing is remembered, and for inspectors.
    pub(in crate::dispatcher) fn new(dispatcher: &'a Dispatcher, params: &'a GetParams, now_ms: i64) -> Option<Self> {
        let cache = dispatcher.caches.replay.as_ref().filter(|_| !params.debug)?;
        Some(Self { dispatcher, cache, params, now_ms })
    }

    fn trigger<'e, T: Text>(&self, event: &'e EventOf<T>) -> Option<&'e BinaryEventOf<T>> {
        let EventOf::Binary(binary) = event else { return None };
        let wanted = !binary.flags.bypass_cache && !binary.kafka_key.is_empty();
        let GetParams { name, version, .. } = self.params;
        (wanted && self.cache.has(&binary.entity.sha256, name, version, self.now_ms)).then_some(binary)
    }

    /// Whether the event may be answered.
    pub(in crate::dispatcher) fn knows<T: Text>(&self, event: &EventOf<T>) -> bool {
        self.trigger(event).is_some()
    }

    /// Publishes the results for those events that have some; tells which they are. All of them are one commit as long as
    /// they are not too large. Blocks; for blocking threads.
    ///
    /// # Durability
    /// Results of an event that counts as answered are durable.
    pub(in crate::dispatcher) fn answer(
        &self,
        events: &[Event],
        mut failed: impl FnMut(&Event, &NotReplayed),
    ) -> Vec<bool> {
        let mut answered = vec![false; events.len()];
        let (mut ready, mut bytes) = (Vec::new(), 0);
        let mut failed = |event: &Event, error: NotReplayed| {
            let GetParams { name, version, .. } = self.params;
            self.dispatcher.metrics.consume_pipelines_error.inc([STAGE]);
            tracing::info!(name, version, %error, "an earlier result was not used and the task is handed out");
            failed(event, &error);
        };
        for (index, event) in events.iter().enumerate() {
            match self.trigger(event).map(|trigger| self.prepare(index, trigger)) {
                None | Some(Ok(None)) => continue,
                Some(Ok(Some(one))) => {
                    bytes += one.prepared.as_ref().map_or(0, Prepared::bytes);
                    ready.push(one);
                }
                Some(Err(error)) => failed(event, error),
            }
            if bytes >= COMMIT_BYTES {
                self.commit(std::mem::take(&mut ready), events, &mut answered, &mut failed);
                bytes = 0;
            }
        }
        self.commit(ready, events, &mut answered, &mut failed);
        answered
    }

    /// `None` when it was forgotten just now.
    fn prepare(&self, index: usize, trigger: &BinaryEvent) -> Result<Option<Ready>, NotReplayed> {
        let GetParams { name, version, .. } = self.params;
        let Some(remembered) = self.cache.find(&trigger.entity.sha256, name, version, self.now_ms) else {
            return Ok(None);
        };
        let dequeued = format!("{}.{name}.{version}.{}", trigger.kafka_key, self.now_ms / 1000);
        let status = status_for(&remembered, trigger, dequeued, Timestamp::from_millis(self.now_ms))?;
        copy_streams(self.dispatcher.streams.as_ref(), &remembered, &trigger.source.name)?;
        let prepared = publish::prepare_own(self.dispatcher, Event::Status(Box::new(status)), USER_AGENT);
        let prepared = prepared.map_err(|error| NotReplayed::Publish(format!("{error:?}")))?;
        Ok(Some(Ready { index, runtime_secs: remembered.entity.runtime, prepared }))
    }

    fn commit(
        &self,
        ready: Vec<Ready>,
        events: &[Event],
        answered: &mut [bool],
        failed: &mut impl FnMut(&Event, NotReplayed),
    ) {
        let (mut prepared, mut places) = (Vec::with_capacity(ready.len()), Vec::with_capacity(ready.len()));
        for one in ready {
            prepared.extend(one.prepared);
            places.push((one.index, one.runtime_secs));
        }
        let stored = publish::post_own(self.dispatcher, prepared).map_err(|error| format!("{error:?}"));
        let metrics = &self.dispatcher.metrics;
        for (index, runtime_secs) in places {
            match (&stored, answered.get_mut(index), events.get(index)) {
                (Ok(()), Some(answered), _) => {
                    *answered = true;
                    metrics.replay_hits.at([&self.params.name]).add(1);
                    metrics.replay_seconds.at([&self.params.name]).add(whole_seconds(runtime_secs));
                }
                (Err(error), _, Some(event)) => failed(event, NotReplayed::Publish(error.clone())),
                (Ok(()), None, _) | (Err(_), _, None) => {}
            }
        }
    }
}

/// The whole part of a run time; what is no time at all is 0.
fn whole_seconds(runtime: f64) -> i64 {
    Duration::try_from_secs_f64(runtime).map_or(0, |took| i64::try_from(took.as_secs()).unwrap_or(0))
}
