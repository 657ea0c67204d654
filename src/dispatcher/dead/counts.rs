//! How many letters there are: in memory, so that lists and metrics cost nothing however many there are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Head;
use crate::metrics::Metrics;

/// How letters that wait for another run are counted in the metric.
const REQUEUED: &str = "requeued";
const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// Letters of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The consumer.
    pub consumer: String,
    /// The status of their last attempt.
    pub status: String,
    /// Those that nothing is under way about.
    pub dead: u64,
    /// Those of which another run is waited for.
    pub requeued: u64,
}

/// What a change does to the counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    consumer: String,
    status: String,
    requeued: bool,
    change: i64,
    /// Of the letter, when it is new.
    new_ms: Option<i64>,
}

impl Effect {
    fn of(head: &Head, change: i64) -> Self {
        let (consumer, status) = (head.consumer.clone(), head.status.clone());
        Self { consumer, status, requeued: head.requeued.is_some(), change, new_ms: None }
    }

    /// One more like this; one that is not waiting for another run is new.
    pub(super) fn added(head: &Head) -> Self {
        let new_ms = head.requeued.is_none().then_some(head.time_ms);
        Self { new_ms, ..Self::of(head, 1) }
    }

    /// One less like this.
    pub(super) fn removed(head: &Head) -> Self {
        Self::of(head, -1)
    }

    /// One more like this that is not new.
    pub(super) fn changed(head: &Head) -> Self {
        Self::of(head, 1)
    }
}

#[derive(Debug, Default)]
struct State {
    total: i64,
    /// By consumer and status: dead, requeued.
    kinds: BTreeMap<(String, String), [i64; 2]>,
    /// Waiting for another run, by consumer.
    waiting: BTreeMap<String, i64>,
    /// Minutes of the last hour with the letters that became dead in them.
    minutes: VecDeque<(i64, u64)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Counts {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

impl Counts {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::default(), metrics }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn apply(&self, effects: impl IntoIterator<Item = Effect>) {
        let mut state = self.lock();
        for Effect { consumer, status, requeued, change, new_ms } in effects {
            state.total += change;
            let kind = state.kinds.entry((consumer.clone(), status.clone())).or_default();
            let [dead, waiting] = kind;
            *(if requeued { waiting } else { &mut *dead }) += change;
            let (dead, none_left) = (*dead, *kind == [0, 0]);
            self.metrics.dead_letters.at([&consumer, &status]).set(dead);
            if none_left {
                state.kinds.remove(&(consumer.clone(), status));
            }
            if requeued {
                let waiting = state.waiting.entry(consumer.clone()).or_default();
                *waiting += change;
                self.metrics.dead_letters.at([&consumer, REQUEUED]).set(*waiting);
            }
            if let Some(new_ms) = new_ms {
                state.note(new_ms);
            }
        }
    }

    pub(super) fn total(&self) -> u64 {
        u64::try_from(self.lock().total).unwrap_or(0)
    }

    pub(super) fn list(&self) -> Vec<Count> {
        let whole = |count: i64| u64::try_from(count).unwrap_or(0);
        let count = |((consumer, status), [dead, requeued]): (&(String, String), &[i64; 2])| Count {
            consumer: consumer.clone(),
            status: status.clone(),
            dead: whole(*dead),
            requeued: whole(*requeued),
        };
        self.lock().kinds.iter().map(count).collect()
    }

    /// How many became dead in the hour before `now_ms`.
    pub(super) fn last_hour(&self, now_ms: i64) -> u64 {
        let since = now_ms.saturating_sub(HOUR_MS);
        self.lock().minutes.iter().filter(|(minute, _)| *minute > since && *minute <= now_ms).map(|(_, n)| n).sum()
    }
}

impl State {
    fn note(&mut self, time_ms: i64) {
        let minute = time_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
        match self.minutes.iter_mut().find(|(noted, _)| *noted == minute) {
            Some((_, count)) => *count += 1,
            None => self.minutes.push_back((minute, 1)),
        }
        while self.minutes.len() > 61 {
            self.minutes.pop_front();
        }
    }
}
