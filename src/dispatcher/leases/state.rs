//! What is known of leases beside their rows, and how rows are changed.
//!
//! A change is planned under one lock, over rows as they will be once all that is planned is durable; it is queued under
//! the same lock, together with what it counts, so that counts and rows are one commit. Until its commit is known it lies
//! in memory; one that fails is taken back. Changes of statuses go through one lane of the log, those of deliveries
//! through its queue of state: each keeps its order, and what is counted is written by one of them only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azulite_storage::index::IndexError;
use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::super::activity::Activity;
use super::policy::{Policies, Policy};
use super::rows::{self, Ended, Lease, TakenIn, Waiting, each_row};
use super::standing::Run;
use crate::broker::{Lane, LogStore, Value};
use crate::metrics::{Account, Metrics};

/// Consumers whose counts are kept in memory; past it those without open work leave, and are read again when used.
const MOST_CONSUMERS: usize = 10_000;
/// Rows of waiting events that one look takes at most.
const MOST_TAKEN: usize = 256;
/// Bytes of them, about: some have whole events in them.
const MOST_TAKEN_BYTES: usize = 4 << 20;
/// Rows of others that one look goes past at most; those behind them are seen when these are due.
const MOST_PASSED: usize = 1024;

/// How far a time may lie ahead of the clock before the clock was set back for sure.
pub(super) const CLOCK_SLACK_MS: i64 = 60_000;

/// How often it is looked whether a status about the same lease is stored, and how long is waited in between.
const CLOSING_LOOKS: u32 = 400;
const CLOSING_LOOK: std::time::Duration = std::time::Duration::from_millis(5);

/// What a change adds to the counts of one consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) taken_in: i64,
    pub(super) deleted: i64,
    pub(super) finished: i64,
    pub(super) dead: i64,
    pub(super) leases: i64,
    pub(super) waiting: i64,
}

/// One consumer: name and version.
pub(super) type Who = (String, String);

/// The counts of one consumer.
pub(super) struct Tally {
    pub(super) taken: TakenIn,
    pub(super) ended: Ended,
    pub(super) leases: i64,
    pub(super) waiting: i64,
    /// No event that waits is due before.
    next_due_ms: i64,
    /// There may be some that are due, though not for whoever looked last.
    not_for_all: bool,
    wake: watch::Sender<()>,
    /// What its runs came to since the process began.
    pub(super) activity: Activity,
}

impl Tally {
    fn read(log: &dyn LogStore, (name, version): &Who) -> Self {
        let row = |key: Vec<u8>| log.kv(&key).ok().flatten();
        let taken = row(rows::taken_key(name, version)).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let ended = row(rows::ended_key(name, version)).and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self::new(taken.unwrap_or_default(), ended.unwrap_or_default())
    }

    fn new(taken: TakenIn, ended: Ended) -> Self {
        // Whoever asks first looks at the rows.
        let (wake, activity) = (watch::Sender::new(()), Activity::default());
        Self { taken, ended, leases: 0, waiting: 0, next_due_ms: 0, not_for_all: false, wake, activity }
    }

    fn add(&mut self, delta: &Delta, sign: i64) {
        let add = |count: &mut u64, n: i64| *count = count.saturating_add_signed(n.saturating_mul(sign));
        add(&mut self.taken.taken_in, delta.taken_in);
        add(&mut self.taken.deleted, delta.deleted);
        add(&mut self.ended.finished, delta.finished);
        add(&mut self.ended.dead, delta.dead);
        self.leases += delta.leases * sign;
        self.waiting += delta.waiting * sign;
    }

    fn is_idle(&self) -> bool {
        let nothing_waits = self.next_due_ms == i64::MAX && !self.not_for_all;
        self.leases == 0 && self.waiting == 0 && nothing_waits && self.wake.receiver_count() == 0
    }

    /// In how many milliseconds an event may be due; not positive when one may be now, `i64::MAX` when none waits.
    fn due_in_ms(&self, policy: &Policy, now_ms: i64) -> i64 {
        match self.next_due_ms {
            i64::MAX => i64::MAX,
            due_ms if due_ms > now_ms.saturating_add(policy.longest_wait_ms()) => 0,
            due_ms => due_ms.saturating_sub(now_ms),
        }
    }
}

/// A row as it will be.
struct Pending {
    plan: u64,
    value: Option<Bytes>,
    /// Queued in the order of deliveries: the next of them may build on it before it is durable.
    early: bool,
}

/// What is to be known when a commit is.
struct UnderWay {
    keys: Vec<Vec<u8>>,
    deltas: Vec<(Who, Delta)>,
    due: Vec<(Who, i64)>,
    runs: Vec<(Who, Run)>,
}

#[derive(Default)]
pub(super) struct State {
    pending: BTreeMap<Vec<u8>, Pending>,
    plans: u64,
    under_way: HashMap<u64, UnderWay>,
    tallies: HashMap<Who, Tally>,
    /// The second of the last id made of what its beginning is; only of this second and later ones.
    ids: HashMap<String, i64>,
    ids_of: i64,
    /// Waiting events on their way to a consumer.
    handed: HashSet<Vec<u8>>,
    /// No lease ends before.
    next_end_ms: i64,
}

/// See the module.
pub struct Leases {
    pub(super) policies: Policies,
    /// This process.
    pub(super) life: u64,
    pub(super) metrics: Arc<Metrics>,
    state: Mutex<State>,
    settled: Mutex<Vec<(u64, bool)>>,
    lane: Lane,
    random: AtomicU64,
    /// Told when a lease ends earlier than all others.
    pub(crate) ends_earlier: Notify,
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").field("policies", &self.policies).finish_non_exhaustive()
    }
}

impl Leases {
    /// Reads what is written down. Blocks.
    ///
    /// # Errors
    /// The index failed.
    pub(crate) fn load(
        log: &dyn LogStore,
        policies: Policies,
        lane: Lane,
        metrics: Arc<Metrics>,
    ) -> Result<Self, IndexError> {
        let mut state = State { next_end_ms: i64::MIN, ..State::default() };
        let tallies = std::cell::RefCell::new(&mut state.tallies);
        rows::each_count(
            log,
            |who, taken| drop(tallies.borrow_mut().insert(who, Tally::new(taken, Ended::default()))),
            |who, ended| {
                let mut tallies = tallies.borrow_mut();
                tallies.entry(who).or_insert_with(|| Tally::new(TakenIn::default(), ended)).ended = ended;
            },
        )?;
        let mut counted: HashMap<Who, Delta> = HashMap::new();
        each_row(log, rows::LEASE, |key, bytes| {
            if let Some(lease) = Lease::read(key, bytes) {
                counted.entry((lease.work.name, lease.work.version)).or_default().leases += 1;
            }
            true
        })?;
        each_row(log, rows::WAITING, |key, bytes| {
            if let Some(waiting) = Waiting::read(key, bytes).filter(|waiting| !waiting.fresh) {
                counted.entry((waiting.work.name, waiting.work.version)).or_default().waiting += 1;
            }
            true
        })?;
        for (who, delta) in counted {
            let known = state.tallies.contains_key(&who);
            let tally = state.tallies.entry(who.clone()).or_insert_with(|| Tally::read(log, &who));
            tally.add(&delta, 1);
            if !known {
                // Tasks from before anything was counted.
                tally.taken.taken_in = u64::try_from(delta.leases + delta.waiting).unwrap_or(0);
            }
        }
        for ((name, _), tally) in &state.tallies {
            show(&metrics, name, &whole(tally), 1);
        }
        let random = AtomicU64::new(super::super::random_u64());
        let (settled, ends_earlier) = (Mutex::default(), Notify::new());
        let life = super::super::random_u64();
        Ok(Self { policies, life, metrics, state: Mutex::new(state), settled, lane, random, ends_earlier })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = std::mem::take(&mut *self.settled.lock().unwrap_or_else(PoisonError::into_inner));
        for (plan, stored) in settled {
            state.settle(plan, stored, &self.metrics);
        }
        state
    }

    /// A number that is another one each time.
    pub(super) fn random(&self) -> u64 {
        // The increment of splitmix64; nobody gains by guessing it.
        self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// Begins a change. With `early` it is to be queued as deliveries are.
    pub(super) fn edit<'a>(self: &'a Arc<Self>, log: &'a dyn LogStore, early: bool) -> Edit<'a> {
        let mut state = self.lock();
        state.plans += 1;
        let plan = Plan {
            leases: self.clone(),
            number: state.plans,
            early,
            keys: Vec::new(),
            extra: Vec::new(),
            deltas: BTreeMap::new(),
            due: Vec::new(),
            runs: Vec::new(),
            queued: false,
        };
        Edit { log, state, plan }
    }

    /// Begins a change of statuses about these leases, once it is known what became of another one about any of them: what
    /// builds on a change that fails then would be true in part. Blocks, for a moment at most.
    pub(super) fn edit_closing<'a>(self: &'a Arc<Self>, log: &'a dyn LogStore, leases: &[Vec<u8>]) -> Edit<'a> {
        for _ in 0..CLOSING_LOOKS {
            let edit = self.edit(log, false);
            let closes = |key: &Vec<u8>| {
                edit.state.pending.get(key).is_some_and(|pending| !pending.early && pending.value.is_none())
            };
            if !leases.iter().any(closes) {
                return edit;
            }
            drop(edit);
            std::thread::sleep(CLOSING_LOOK);
        }
        self.edit(log, false)
    }

    /// Queues changes with what they count: `push` gets all values and is to hand the outcome to what it gets with them.
    pub(crate) fn queue<T>(
        self: &Arc<Self>,
        log: &dyn LogStore,
        plans: Vec<Plan>,
        push: impl FnOnce(Vec<Value>, Settle) -> T,
    ) -> T {
        let mut state = self.lock();
        let (mut values, mut numbers, mut wakes) = (Vec::new(), Vec::new(), Vec::new());
        let mut early = false;
        for mut plan in plans {
            plan.queued = true;
            early |= plan.early;
            values.append(&mut plan.extra);
            values
                .extend(plan.keys.iter().filter_map(|key| Some((key.clone(), state.pending.get(key)?.value.clone()))));
            let deltas: Vec<_> = std::mem::take(&mut plan.deltas).into_iter().collect();
            for (who, delta) in &deltas {
                let tally = state.tally(log, who);
                tally.add(delta, 1);
                show(&self.metrics, &who.0, delta, 1);
                if delta.taken_in != 0 || delta.deleted != 0 {
                    values.push(rows::json_row(rows::taken_key(&who.0, &who.1), &tally.taken));
                }
                if delta.finished != 0 || delta.dead != 0 {
                    values.push(rows::json_row(rows::ended_key(&who.0, &who.1), &tally.ended));
                }
            }
            if plan.early {
                state.is_due_at(&plan.due);
            }
            let (keys, due) = (std::mem::take(&mut plan.keys), std::mem::take(&mut plan.due));
            let runs = std::mem::take(&mut plan.runs);
            for (who, _) in &due {
                wakes.push(state.tally(log, who).wake.clone());
            }
            state.under_way.insert(plan.number, UnderWay { keys, deltas, due, runs });
            numbers.push(plan.number);
        }
        let settle = Settle { leases: self.clone(), numbers, wakes: wakes.clone(), told: false };
        let pushed = push(values, settle);
        drop(state);
        if early {
            wakes.iter().for_each(|wake| wake.send_replace(()));
        }
        pushed
    }

    /// The lane of changes that statuses make.
    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// Something that changes when an event may have become due for a consumer.
    pub(crate) fn watch(&self, log: &dyn LogStore, name: &str, version: &str) -> watch::Receiver<()> {
        self.lock().tally(log, &(name.to_owned(), version.to_owned())).wake.subscribe()
    }

    /// In how many milliseconds an event that waits for its next run by that consumer may be due for everybody; not positive
    /// when one may be now, `i64::MAX` when none waits.
    pub(crate) fn due_in_ms(&self, log: &dyn LogStore, (name, version): (&str, &str), now_ms: i64) -> i64 {
        let who = (name.to_owned(), version.to_owned());
        self.lock().tally(log, &who).due_in_ms(self.policies.of(name), now_ms)
    }

    /// Whether an event may be due for some request of that consumer.
    pub(crate) fn may_be_due(&self, log: &dyn LogStore, (name, version): (&str, &str), now_ms: i64) -> bool {
        let (who, mut state) = ((name.to_owned(), version.to_owned()), self.lock());
        let tally = state.tally(log, &who);
        tally.not_for_all || tally.due_in_ms(self.policies.of(name), now_ms) <= 0
    }

    /// Whoever waits for events of that consumer looks again.
    pub(super) fn look_again(&self, log: &dyn LogStore, name: &str, version: &str) {
        let who = (name.to_owned(), version.to_owned());
        let mut state = self.lock();
        let tally = state.tally(log, &who);
        tally.next_due_ms = 0;
        tally.wake.send_replace(());
    }

    /// No lease ends before.
    pub(crate) fn next_end_ms(&self) -> i64 {
        self.lock().next_end_ms
    }

    /// Whether a lease may have ended, or may say that it ends later than any can: then a clock was set back.
    pub(crate) fn may_have_ended(&self, now_ms: i64) -> bool {
        let next_end_ms = self.next_end_ms();
        let last_ms = now_ms.saturating_add(self.policies.longest_lease_ms()).saturating_add(CLOCK_SLACK_MS);
        next_end_ms <= now_ms || (last_ms < next_end_ms && next_end_ms < i64::MAX)
    }

    /// What a look at all leases found; ends that came up meanwhile count too.
    pub(super) fn begin_look(&self) {
        self.lock().next_end_ms = i64::MAX;
    }

    pub(super) fn ends_at(&self, until_ms: i64) {
        let mut state = self.lock();
        state.next_end_ms = state.next_end_ms.min(until_ms);
    }

    /// A row as it will be.
    pub(super) fn row(&self, log: &dyn LogStore, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        self.lock().get(log, key)
    }

    /// Ids for events that are about to be handed out: what each begins with, and the second now or a later one, so that no
    /// two of them are ever the same.
    pub(crate) fn ids(
        &self,
        log: &dyn LogStore,
        beginnings: Vec<String>,
        now_secs: i64,
    ) -> Result<Vec<String>, IndexError> {
        let mut state = self.lock();
        // Also when a clock was set back: else nothing would be forgotten until it has caught up.
        if state.ids_of != now_secs {
            state.ids_of = now_secs;
            state.ids.retain(|_, secs| *secs >= now_secs);
        }
        let mut ids = Vec::with_capacity(beginnings.len());
        for beginning in beginnings {
            let mut secs = state.ids.get(&beginning).map_or(now_secs, |last| now_secs.max(last + 1));
            let mut id = format!("{beginning}.{secs}");
            // Open ones from before a clock was set back, or the process began.
            while id.len() <= rows::ID_MAX_BYTES && state.get(log, &rows::lease_key(&id))?.is_some() {
                secs += 1;
                id = format!("{beginning}.{secs}");
            }
            state.ids.insert(beginning, secs);
            ids.push(id);
        }
        Ok(ids)
    }

    /// Takes events of a consumer that are due for a request with these filters: what waited longest first, up to `count`.
    /// They are given back when the second part is dropped.
    pub(crate) fn take_due(
        self: &Arc<Self>,
        log: &dyn LogStore,
        (name, version, filters): (&str, &str, u64),
        now_ms: i64,
        count: usize,
    ) -> Result<(Vec<Waiting>, Due), IndexError> {
        let who = (name.to_owned(), version.to_owned());
        let mut due = Due { leases: self.clone(), who: who.clone(), keys: Vec::new() };
        let policy = self.policies.of(name);
        let mut state = self.lock();
        let tally = state.tally(log, &who);
        if !tally.not_for_all && tally.due_in_ms(policy, now_ms) > 0 {
            return Ok((Vec::new(), due));
        }
        let mut look = Look::new(policy, filters, now_ms, count.min(MOST_TAKEN));
        for (key, value) in state.early_rows(&rows::waiting_prefix(name, version)) {
            look.at(&key, &value);
        }
        // Behind those that wait as they should there may be some from a clock that was ahead.
        for begin in [None, Some(rows::waiting_after(name, version, look.latest_ms))] {
            if look.is_full() || state.look_from(log, (name, version), begin, &mut look)? {
                break;
            }
        }
        let Look { taken, next_due_ms, passed, .. } = look;
        let tally = state.tally(log, &who);
        (tally.next_due_ms, tally.not_for_all) = (next_due_ms, passed > 0);
        due.keys = taken.iter().map(|waiting| waiting.key.clone()).collect();
        state.handed.extend(due.keys.iter().cloned());
        Ok((taken, due))
    }

    /// Looks at what is counted of every consumer in memory, at one moment.
    pub(super) fn each_tally(&self, mut look: impl FnMut(&Who, &Tally)) {
        self.lock().tallies.iter().for_each(|(who, tally)| look(who, tally));
    }

    /// What is counted of every consumer in memory.
    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<(Who, TakenIn, Ended)> {
        self.lock().tallies.iter().map(|(who, tally)| (who.clone(), tally.taken, tally.ended)).collect()
    }
}

/// A look at events that wait, for one request.
struct Look {
    filters: u64,
    now_ms: i64,
    /// What is due later is due now: no event waits so long.
    latest_ms: i64,
    held_ms: i64,
    count: usize,
    taken: Vec<Waiting>,
    taken_bytes: usize,
    /// When the first of the others is due.
    next_due_ms: i64,
    /// Rows that are due, but not for this request.
    passed: usize,
}

impl Look {
    fn new(policy: &Policy, filters: u64, now_ms: i64, count: usize) -> Self {
        let (latest_ms, held_ms) = (now_ms.saturating_add(policy.longest_wait_ms()), policy.held_ms());
        let (taken, taken_bytes) = (Vec::new(), 0);
        Self { filters, now_ms, latest_ms, held_ms, count, taken, taken_bytes, next_due_ms: i64::MAX, passed: 0 }
    }

    fn is_full(&self) -> bool {
        let full = self.taken.len() >= self.count || self.taken_bytes >= MOST_TAKEN_BYTES;
        full || self.passed >= MOST_PASSED
    }

    /// Takes a row when it is due and there is room. True when none behind it is to be looked at.
    fn at(&mut self, key: &[u8], value: &Bytes) -> bool {
        let Some(waiting) = Waiting::read(key, value) else { return false };
        let is_due = |due_ms: i64| due_ms <= self.now_ms || due_ms > self.latest_ms;
        let for_us_ms = waiting.due_ms.saturating_add(self.held_ms);
        let is_passed = waiting.not_for != 0 && waiting.not_for == self.filters && !is_due(for_us_ms);
        if is_passed && is_due(waiting.due_ms) {
            self.passed += 1;
            self.next_due_ms = self.next_due_ms.min(for_us_ms);
            return self.is_full();
        }
        if !is_due(waiting.due_ms) || self.is_full() {
            self.next_due_ms = self.next_due_ms.min(waiting.due_ms);
            return true;
        }
        self.taken_bytes += waiting.work.event.len();
        self.taken.push(waiting);
        false
    }
}

fn whole(tally: &Tally) -> Delta {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Delta {
        taken_in: signed(tally.taken.taken_in),
        deleted: signed(tally.taken.deleted),
        finished: signed(tally.ended.finished),
        dead: signed(tally.ended.dead),
        leases: tally.leases,
        waiting: tally.waiting,
    }
}

fn show(metrics: &Metrics, name: &str, delta: &Delta, sign: i64) {
    let change = Account {
        taken_in: delta.taken_in * sign,
        finished: delta.finished * sign,
        waiting: (delta.leases + delta.waiting) * sign,
        dead: delta.dead * sign,
        deleted: delta.deleted * sign,
    };
    metrics.ledger.add(name, &change);
    metrics.leases.add(delta.leases * sign);
}

impl State {
    fn tally(&mut self, log: &dyn LogStore, who: &Who) -> &mut Tally {
        if self.tallies.len() >= MOST_CONSUMERS && !self.tallies.contains_key(who) {
            self.tallies.retain(|_, tally| !tally.is_idle());
        }
        self.tallies.entry(who.clone()).or_insert_with(|| Tally::read(log, who))
    }

    pub(super) fn get(&self, log: &dyn LogStore, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        match self.pending.get(key) {
            Some(pending) => Ok(pending.value.clone()),
            None => log.kv(key),
        }
    }

    /// Looks at rows of waiting events in order of time, from there on; true when all were seen.
    fn look_from(
        &self,
        log: &dyn LogStore,
        (name, version): (&str, &str),
        begin: Option<Vec<u8>>,
        look: &mut Look,
    ) -> Result<bool, IndexError> {
        let (prefix, mut after) = (rows::waiting_prefix(name, version), begin);
        // Rows may be whole events: no more are read than are wanted, but for those that somebody else has.
        let page = look.count.saturating_add(1).saturating_add(self.handed.len()).min(rows::PAGE);
        loop {
            let rows = log.kv_page(&prefix, after.as_deref(), page)?;
            for (key, value) in &rows {
                let elsewhere = self.handed.contains(key.as_ref()) || self.pending.contains_key(key.as_ref());
                if !elsewhere && look.at(key, value) {
                    return Ok(false);
                }
            }
            match rows.last() {
                Some((key, _)) if rows.len() >= page => after = Some(key.to_vec()),
                _ => return Ok(true),
            }
        }
    }

    /// What these rows are about is looked at anew: somebody may have looked while they were to be others.
    fn look_anew(&mut self, keys: &[Vec<u8>]) {
        for who in keys.iter().filter_map(|key| rows::waits_for(key)) {
            if let Some(tally) = self.tallies.get_mut(&who) {
                tally.next_due_ms = 0;
                tally.wake.send_replace(());
            }
        }
        self.next_end_ms = i64::MIN;
    }

    fn is_due_at(&mut self, due: &[(Who, i64)]) {
        for (who, due_ms) in due {
            if let Some(tally) = self.tallies.get_mut(who) {
                tally.next_due_ms = tally.next_due_ms.min(*due_ms);
            }
        }
    }

    /// Rows that are not in the index yet, or not as they will be.
    fn early_rows(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Bytes)> {
        let from = self.pending.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let ready = from.filter(|(key, pending)| pending.early && !self.handed.contains(*key));
        ready.filter_map(|(key, pending)| Some((key.clone(), pending.value.clone()?))).collect()
    }

    fn settle(&mut self, plan: u64, stored: bool, metrics: &Metrics) {
        let Some(UnderWay { keys, deltas, due, runs }) = self.under_way.remove(&plan) else { return };
        self.forget(plan, &keys);
        if stored {
            self.is_due_at(&due);
            for (who, run) in runs {
                if let Some(tally) = self.tallies.get_mut(&who) {
                    run.note(&mut tally.activity);
                }
            }
            return;
        }
        for (who, delta) in &deltas {
            if let Some(tally) = self.tallies.get_mut(who) {
                tally.add(delta, -1);
            }
            show(metrics, &who.0, delta, -1);
        }
        self.look_anew(&keys);
    }

    fn forget(&mut self, plan: u64, keys: &[Vec<u8>]) {
        for key in keys {
            if self.pending.get(key).is_some_and(|pending| pending.plan == plan) {
                self.pending.remove(key);
            }
        }
    }
}

/// A change being planned; holds the lock.
pub(super) struct Edit<'a> {
    log: &'a dyn LogStore,
    state: MutexGuard<'a, State>,
    plan: Plan,
}

impl Edit<'_> {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        self.state.get(self.log, key)
    }

    /// The first rows whose keys begin with `prefix`.
    pub(super) fn page(&self, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
        let rows = self.log.kv_page(prefix, None, limit)?;
        let row = |(key, value): (Bytes, Bytes)| match self.state.pending.get(key.as_ref()) {
            Some(pending) => Some((key, pending.value.clone()?)),
            None => Some((key, value)),
        };
        let mut rows: Vec<_> = rows.into_iter().filter_map(row).collect();
        let new = self.state.pending.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let new = new.filter_map(|(key, pending)| Some((Bytes::from(key.clone()), pending.value.clone()?)));
        let new: Vec<_> = new.filter(|(key, _)| rows.iter().all(|(known, _)| known != key)).collect();
        rows.extend(new);
        Ok(rows)
    }

    pub(super) fn set(&mut self, (key, value): Value) {
        let pending = Pending { plan: self.plan.number, value, early: self.plan.early };
        if self.state.pending.insert(key.clone(), pending).is_none_or(|old| old.plan != self.plan.number) {
            self.plan.keys.push(key);
        }
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.set((key, None));
    }

    /// Removes a row that is hardly ever there.
    pub(super) fn remove_any(&mut self, key: Vec<u8>) -> Result<(), IndexError> {
        if self.get(&key)?.is_some() {
            self.remove(key);
        }
        Ok(())
    }

    pub(super) fn put_lease(&mut self, lease: &Lease) {
        self.set(lease.put());
        if lease.until_ms < self.state.next_end_ms {
            self.state.next_end_ms = lease.until_ms;
            self.plan.leases.ends_earlier.notify_one();
        }
    }

    pub(super) fn put_waiting(&mut self, waiting: &Waiting) {
        self.set(waiting.put());
        self.plan.due.push(((waiting.work.name.clone(), waiting.work.version.clone()), waiting.due_ms));
    }

    pub(super) fn count(&mut self, work: &rows::Work) -> &mut Delta {
        self.plan.deltas.entry((work.name.clone(), work.version.clone())).or_default()
    }

    /// Notes how a run ended; it counts once the change is durable.
    pub(super) fn run_ended(&mut self, work: &rows::Work, run: Run) {
        self.plan.runs.push(((work.name.clone(), work.version.clone()), run));
    }

    /// Notes a sign of life of a consumer.
    pub(super) fn heard(&mut self, work: &rows::Work, now_ms: i64) {
        if let Some(tally) = self.state.tallies.get_mut(&(work.name.clone(), work.version.clone())) {
            tally.activity.heard(now_ms);
        }
    }

    pub(super) fn finish(self) -> Plan {
        self.plan
    }
}

/// A planned change; taken back when it is dropped before it is queued.
pub(crate) struct Plan {
    leases: Arc<Leases>,
    number: u64,
    early: bool,
    keys: Vec<Vec<u8>>,
    extra: Vec<Value>,
    deltas: BTreeMap<Who, Delta>,
    due: Vec<(Who, i64)>,
    runs: Vec<(Who, Run)>,
    queued: bool,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("deltas", &self.deltas).finish_non_exhaustive()
    }
}

impl Plan {
    /// Values of others for the same commit.
    pub(super) fn add(&mut self, values: Vec<Value>) {
        self.extra.extend(values);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.extra.is_empty() && self.deltas.is_empty()
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        if !self.queued && !self.keys.is_empty() {
            let keys = std::mem::take(&mut self.keys);
            let mut state = self.leases.lock();
            state.forget(self.number, &keys);
            state.look_anew(&keys);
        }
    }
}

/// To be told what became of a commit; dropped, it failed. May be told on any thread, also inside of [`Leases::queue`].
pub(crate) struct Settle {
    leases: Arc<Leases>,
    numbers: Vec<u64>,
    wakes: Vec<watch::Sender<()>>,
    told: bool,
}

impl Settle {
    pub(crate) fn tell(mut self, stored: bool) {
        self.say(stored);
    }

    fn say(&mut self, stored: bool) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let mut settled = self.leases.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.extend(self.numbers.iter().map(|number| (*number, stored)));
        drop(settled);
        self.wakes.iter().for_each(|wake| wake.send_replace(()));
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        self.say(false);
    }
}

/// Waiting events of one consumer that nobody else is given until this is dropped.
pub(crate) struct Due {
    leases: Arc<Leases>,
    who: Who,
    keys: Vec<Vec<u8>>,
}

impl Due {
    /// Those of `other`, of the same consumer, too.
    pub(crate) fn join(&mut self, mut other: Due) {
        self.keys.append(&mut other.keys);
    }
}

impl std::fmt::Debug for Due {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Due").field("rows", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let mut state = self.leases.lock();
        for key in &self.keys {
            state.handed.remove(key);
        }
        if let Some(tally) = state.tallies.get_mut(&self.who) {
            tally.next_due_ms = 0;
            tally.wake.send_replace(());
        }
    }
}
