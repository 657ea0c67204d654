//! Duplicates: binaries that a consumer of this name and version has been handed already.
//!
//! Contract events.md 5.5.6 and section 10, 27; off unless `events.dedupe_cache_bytes` says otherwise. It only saves
//! consumers work: what it forgets is handed out again. Unlike upstream's, it counts an event as seen only once the whole
//! answer has reached the client, and an inspector (`debug`) neither asks it nor tells it anything. What a group was handed
//! before its positions were moved by hand does not count afterwards ([`Rewind`]).

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use md5::{Digest, Md5};

use super::super::model::{BinaryEventOf, EventOf, Text};
use super::super::params::GetParams;
use crate::broker::Rewind;
use crate::metrics::Metrics;

/// Stage name in counts and metrics.
pub const STAGE: &str = "FilterDuplicates";
/// Reason of an event that was handed out before.
const SKIPPED: &str = "skipped";
/// Reason of an event without a key.
const ERROR: &str = "error";

/// What is remembered of one hand-out; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark(u64);

/// A fixed number of slots, each with the mark that came last; a mark that has to make room is forgotten.
pub struct Duplicates {
    slots: Vec<AtomicU64>,
    changed: AtomicBool,
}

impl std::fmt::Debug for Duplicates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Duplicates").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Duplicates {
    /// As many slots of eight bytes as fit into `bytes` rounded up to a power of two.
    pub fn new(bytes: u64) -> Self {
        let slots = bytes.max(8).next_power_of_two() / 8;
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        Self {
            slots: std::iter::repeat_with(AtomicU64::default).take(slots).collect(),
            changed: AtomicBool::new(false),
        }
    }

    fn slot(&self, mark: Mark) -> Option<&AtomicU64> {
        let mask = u64::try_from(self.slots.len()).ok()?.checked_sub(1)?;
        self.slots.get(usize::try_from(mark.0 & mask).ok()?)
    }

    fn has(&self, mark: Mark) -> bool {
        self.slot(mark).is_some_and(|slot| slot.load(Ordering::Relaxed) == mark.0)
    }

    /// Notes that these have reached their consumer. Quick: it is called on a connection's task.
    pub fn seen(&self, marks: &[Mark], metrics: &Metrics) {
        for mark in marks {
            let old = self.slot(*mark).map_or(0, |slot| slot.swap(mark.0, Ordering::Relaxed));
            if old != 0 && old != mark.0 {
                metrics.dedupe_collisions.inc();
            }
        }
        if !marks.is_empty() {
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    /// What this consumer was handed of that key does not count any more.
    pub fn forget(&self, consumer: (&GetParams, Rewind), kafka_key: &str) {
        let mark = mark(consumer, kafka_key);
        // Another one in its slot stays.
        let forgotten = self
            .slot(mark)
            .is_some_and(|slot| slot.compare_exchange(mark.0, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok());
        if forgotten {
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Whether there is something new to save since the last call.
    pub fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    /// What [`take_changed`](Self::take_changed) told of has not been saved after all.
    pub fn still_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Writes down every mark.
    ///
    /// # Errors
    /// As `out` reports them.
    pub fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        let marks = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        marks.filter(|mark| *mark != 0).try_for_each(|mark| out.write_all(&mark.to_be_bytes()))
    }

    /// Takes in what [`save`](Self::save) wrote, with another number of slots if need be. After an error it has to be
    /// cleared.
    ///
    /// # Errors
    /// As `from` reports them, and for bytes that are left over.
    pub fn load(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        loop {
            match from.read(&mut bytes)? {
                0 => return Ok(()),
                8 => {}
                read => from.read_exact(bytes.get_mut(read..).unwrap_or_default())?,
            }
            let mark = Mark(u64::from_be_bytes(bytes));
            if let Some(slot) = self.slot(mark) {
                slot.store(mark.0, Ordering::Relaxed);
            }
        }
    }
}

/// The filter of one GET, over all of its passes.
#[derive(Debug)]
pub struct Asking<'a> {
    duplicates: &'a Duplicates,
    metrics: &'a Metrics,
    consumer: (&'a GetParams, Rewind),
    /// What earlier passes have gathered.
    gathered: &'a HashSet<Mark>,
    /// What this pass has let through so far.
    passed: std::cell::RefCell<HashSet<Mark>>,
}

impl<'a> Asking<'a> {
    /// For one pass of the GET with these parameters; `None` for inspectors.
    pub fn new(
        duplicates: &'a Duplicates,
        metrics: &'a Metrics,
        consumer: (&'a GetParams, Rewind),
        gathered: &'a HashSet<Mark>,
    ) -> Option<Self> {
        let asks = !consumer.0.debug;
        asks.then(|| Self { duplicates, metrics, consumer, gathered, passed: Default::default() })
    }

    /// Drops what this consumer has, and what stands twice in this answer.
    pub fn check<T: Text>(&self, event: &EventOf<T>) -> Option<&'static str> {
        let EventOf::Binary(binary) = event else { return None };
        if passes(binary) {
            return None;
        }
        if binary.kafka_key.is_empty() {
            return Some(ERROR);
        }
        self.metrics.dedupe_lookups.inc();
        let mark = mark(self.consumer, &binary.kafka_key);
        let known = self.gathered.contains(&mark) || self.duplicates.has(mark);
        if known || !self.passed.borrow_mut().insert(mark) {
            self.metrics.dedupe_hits.inc();
            return Some(SKIPPED);
        }
        None
    }
}

/// Events that are wanted again, whatever was handed out before. A redelivered task is among them.
fn passes<T: Text>(binary: &BinaryEventOf<T>) -> bool {
    binary.flags.bypass_cache || binary.flags.expedite || binary.flags.retry || binary.retries > 0
}

/// The marks to leave once these events have been delivered.
pub fn marks<'a, T: Text + 'a>(
    consumer: (&'a GetParams, Rewind),
    events: impl IntoIterator<Item = &'a EventOf<T>, IntoIter: 'a>,
) -> impl Iterator<Item = Mark> + 'a {
    let of = move |event: &'a EventOf<T>| match event {
        EventOf::Binary(binary) if !passes(binary) && !binary.kafka_key.is_empty() => {
            Some(mark(consumer, &binary.kafka_key))
        }
        EventOf::Binary(_)
        | EventOf::Delete(_)
        | EventOf::Download(_)
        | EventOf::Insert(_)
        | EventOf::Plugin(_)
        | EventOf::Retrohunt(_)
        | EventOf::Status(_) => None,
    };
    events.into_iter().filter(move |_| !consumer.0.debug).filter_map(of)
}

/// Lengths stand before the parts, so that no two consumers share a mark. The digest is the same in every release,
/// because marks are saved.
fn mark((params, rewind): (&GetParams, Rewind), kafka_key: &str) -> Mark {
    let mut digest = Md5::new();
    if let Some(rewind) = rewind.as_bytes() {
        digest.update(rewind);
    }
    for part in [params.name.as_str(), params.version.as_str(), kafka_key] {
        digest.update(part.len().to_be_bytes());
        digest.update(part.as_bytes());
    }
    let digest: [u8; 16] = digest.finalize().into();
    let first = digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Mark(first.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::model::{BinaryEvent, Event};
    use crate::dispatcher::params::Limits;

    fn params(name: &str, version: &str, extra: &str) -> GetParams {
        let mut query = vec![("r-live".to_owned(), "true".to_owned())];
        query.extend([("name".to_owned(), name.to_owned()), ("version".to_owned(), version.to_owned())]);
        if !extra.is_empty() {
            query.push((extra.to_owned(), "true".to_owned()));
        }
        GetParams::parse("binary", &query, &Limits { fetch_limit: 10, default_wait_secs: 0 }).unwrap()
    }

    fn event(key: &str, change: impl Fn(&mut BinaryEvent)) -> Event {
        let mut event = BinaryEvent { kafka_key: key.to_owned(), ..BinaryEvent::default() };
        change(&mut event);
        Event::Binary(Box::new(event))
    }

    fn checked(duplicates: &Duplicates, params: &GetParams, events: &[Event]) -> Vec<Option<&'static str>> {
        let (metrics, gathered) = (Metrics::new(), HashSet::new());
        let asking = Asking::new(duplicates, &metrics, (params, Rewind::default()), &gathered);
        events.iter().map(|event| asking.as_ref().and_then(|asking| asking.check(event))).collect()
    }

    fn deliver(duplicates: &Duplicates, params: &GetParams, events: &[Event]) {
        duplicates.seen(&marks((params, Rewind::default()), events).collect::<Vec<_>>(), &Metrics::new());
    }

    #[test]
    fn an_event_is_seen_by_its_consumer_only_and_only_after_its_delivery() {
        let duplicates = Duplicates::new(1 << 12);
        let (ab1, a_b1) = (params("ab", "1", ""), params("a", "b1", ""));
        let events = [event("k", |_| {})];
        assert_eq!(checked(&duplicates, &ab1, &events), [None]);
        assert_eq!(checked(&duplicates, &ab1, &events), [None], "asking leaves no mark");
        deliver(&duplicates, &ab1, &events);
        assert_eq!(checked(&duplicates, &ab1, &events), [Some("skipped")]);
        assert_eq!(checked(&duplicates, &a_b1, &events), [None], "ab + 1 is not a + b1");
        assert_eq!(checked(&duplicates, &params("ab", "1", "debug"), &events), [None], "inspectors see everything");
        duplicates.clear();
        assert_eq!(checked(&duplicates, &ab1, &events), [None]);
    }

    #[test]
    fn an_event_twice_in_one_answer_is_one_too_many() {
        let duplicates = Duplicates::new(1 << 12);
        let events = [event("k", |_| {}), event("k", |_| {}), event("l", |_| {})];
        assert_eq!(checked(&duplicates, &params("p", "1", ""), &events), [None, Some("skipped"), None]);
    }

    #[test]
    fn what_is_wanted_again_passes_and_leaves_no_mark() {
        let duplicates = Duplicates::new(1 << 12);
        let consumer = params("p", "1", "");
        let changes: [fn(&mut BinaryEvent); 4] = [
            |event| event.flags.bypass_cache = true,
            |event| event.flags.expedite = true,
            |event| event.flags.retry = true,
            |event| event.retries = 1,
        ];
        for change in changes {
            let events = [event("k", change)];
            deliver(&duplicates, &consumer, &events);
            assert_eq!(checked(&duplicates, &consumer, &[event("k", |_| {})]), [None]);
            deliver(&duplicates, &consumer, &[event("k", |_| {})]);
            assert_eq!(checked(&duplicates, &consumer, &events), [None]);
            duplicates.clear();
        }
    }

    #[test]
    fn other_models_pass_and_a_binary_without_a_key_is_an_error() {
        let duplicates = Duplicates::new(1 << 12);
        let events = [Event::Status(Box::default()), Event::Status(Box::default()), event("", |_| {})];
        assert_eq!(checked(&duplicates, &params("p", "1", ""), &events), [None, None, Some("error")]);
        deliver(&duplicates, &params("p", "1", ""), &events);
        assert!(!duplicates.take_changed());
    }

    #[test]
    fn memory_is_what_was_given_and_the_latest_marks_are_kept() {
        let duplicates = Duplicates::new(1000);
        assert_eq!(duplicates.slots.len(), 128);
        let consumer = params("p", "1", "");
        for number in 0..10_000 {
            deliver(&duplicates, &consumer, &[event(&number.to_string(), |_| {})]);
        }
        assert_eq!(checked(&duplicates, &consumer, &[event("9999", |_| {})]), [Some("skipped")]);
        assert_eq!(checked(&duplicates, &consumer, &[event("1", |_| {})]), [None], "made room for others");
    }

    #[test]
    fn what_was_saved_is_loaded_into_any_number_of_slots() {
        let (small, large) = (Duplicates::new(64), Duplicates::new(1 << 12));
        let consumer = params("p", "1", "");
        deliver(&small, &consumer, &[event("k", |_| {})]);
        assert!(small.take_changed() && !small.take_changed());
        let mut saved = Vec::new();
        small.save(&mut saved).unwrap();
        large.load(&mut saved.as_slice()).unwrap();
        assert_eq!(checked(&large, &consumer, &[event("k", |_| {})]), [Some("skipped")]);
        assert!(large.load(&mut saved.get(..5).unwrap()).is_err());
    }
}
