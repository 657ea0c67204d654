//! Power cuts at any moment of random work: whatever was promised before is there after, whole and in order.
//!
//! `AZULITE_CUTS` sets how many cuts are made (1,000 when unset). A failing life prints at once its seed, its last steps
//! and the whole error; `AZULITE_SEED` leads that life again (the threads' timing is not the seed's to set).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod support;

use azulite_storage::batch::Producer;
use azulite_storage::blob::BlobError;
use azulite_storage::blobs::Deleted;
use azulite_storage::ids::{Offset, TopicPartition};
use azulite_storage::state::BlobRefKey;
use azulite_storage::{Encoding, Options};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use support::ledger::{Found, Ledger, Line, Register, RequestNumber};
use support::rng::Rng;
use support::session::{Appending, Places, Session, content_hash, fast_tempdir, same_rows, small_options};
use support::sim_fs::SimFs;

/// Cuts in the life of one data directory. A seed stands for one life.
const CUTS_PER_LIFE: u64 = 5;
const SOURCES: [&str; 2] = ["alpha", "beta"];
const LABELS: [&str; 2] = ["content", "text"];
const GROUPS: [&str; 2] = ["g1", "g2"];

/// What became of the real directories of the index and the catalogue in a cut.
const AFTERMATHS: [Aftermath; 6] =
    [Aftermath::Kept, Aftermath::Kept, Aftermath::Kept, Aftermath::Older, Aftermath::Older, Aftermath::Gone];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Aftermath {
    Kept,
    /// An older copy, taken after a clean close.
    Older,
    Gone,
}

/// A batch of an idempotent producer. What is not known to be stored is sent again until it is.
struct Numbered {
    first_sequence: i32,
    lines: Vec<Line>,
    /// Where it is, once that was said or seen.
    base: Option<Offset>,
}

/// One data directory, what was done to it, and what it owes.
struct Life {
    rng: Rng,
    fs: SimFs,
    real: tempfile::TempDir,
    copies: u64,
    ledger: Ledger,
    topics: BTreeMap<String, Register<Option<i32>>>,
    offsets: BTreeMap<(String, TopicPartition), Register<Option<i64>>>,
    blobs: BTreeMap<BlobRefKey, Register<bool>>,
    contents: BTreeMap<[u8; 32], Vec<u8>>,
    numbered: BTreeMap<(TopicPartition, i64), Vec<Numbered>>,
    /// What the last check saw.
    found: BTreeMap<TopicPartition, Vec<Found>>,
    cuts: u64,
    serial: u64,
    trace: Vec<String>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            fs: SimFs::new(rng.next()),
            rng,
            real: fast_tempdir(),
            copies: 0,
            ledger: Ledger::default(),
            topics: BTreeMap::new(),
            offsets: BTreeMap::new(),
            blobs: BTreeMap::new(),
            contents: BTreeMap::new(),
            numbered: BTreeMap::new(),
            found: BTreeMap::new(),
            cuts: 0,
            serial: 0,
            trace: Vec::new(),
        }
    }

    fn places(&self) -> Places {
        Places::below(self.real.path())
    }

    fn copy_of(&self, number: u64) -> Places {
        Places::below(&self.real.path().join(format!("copy{number}")))
    }

    fn run(&mut self, cuts: u64) -> Result<(), String> {
        while self.cuts < cuts {
            if self.rng.chance(25) {
                self.fs.cut_after(self.rng.between(1, 60));
            }
            let opened = self.open();
            if let Some(session) = opened? {
                self.session(session)?;
            }
            self.end_session();
        }
        let session = self.open()?.ok_or("no session without a cut")?;
        self.check(&session)
    }

    /// Opens the store; `None` when the power failed while it opened.
    fn open(&mut self) -> Result<Option<Session>, String> {
        self.trace.push(format!("open, mutation {}", self.fs.mutations()));
        let encoding = *self.rng.pick(&Encoding::ALL);
        match Session::open(&self.fs, Options { encoding, ..small_options(&self.places()) }) {
            Ok(session) => Ok(Some(session)),
            Err(_) if self.fs.is_off() => Ok(None),
            Err(e) => Err(format!("the store does not open: {}", chain(&e))),
        }
    }

    fn session(&mut self, session: Session) -> Result<(), String> {
        if let Err(e) = self.check(&session)
            && !self.fs.is_off()
        {
            return Err(e);
        }
        if !self.fs.is_off() && self.rng.chance(80) {
            self.fs.cut_after(self.rng.between(1, 80));
        }
        for _ in 0..self.rng.between(1, 25) {
            if self.fs.is_off() {
                break;
            }
            self.work(&session)?;
        }
        if !self.fs.is_off() && self.rng.chance(40) {
            self.trace.push("close".to_owned());
            session.store.close();
            if let (false, Some(reason)) = (self.fs.is_off(), session.store.fatal()) {
                return Err(format!("closing failed: {reason}"));
            }
            if !self.fs.is_off() {
                self.copies += 1;
                self.copy_of(self.copies).copy_from(&self.places());
            }
        } else {
            self.trace.push("drop".to_owned());
            if self.rng.chance(50) {
                // The power fails first, the process ends with it.
                let _image = self.fs.cut(0);
            }
            drop(session);
        }
        Ok(())
    }

    /// Ends what is left of the session by a cut, a kill, or nothing (after a clean close).
    fn end_session(&mut self) {
        // What stopped the session may have been the end of the process alone.
        if self.rng.chance(30) {
            self.trace.push("kill".to_owned());
            self.fs = self.fs.kill();
            return;
        }
        let seed = self.rng.next();
        self.fs = self.fs.cut(seed);
        self.cuts += 1;
        let aftermath = *self.rng.pick(&AFTERMATHS);
        self.trace.push(format!("cut, index and catalogue {aftermath:?}"));
        match aftermath {
            Aftermath::Kept => {}
            Aftermath::Older if self.copies > 0 => {
                let number = self.rng.between(1, self.copies);
                self.places().copy_from(&self.copy_of(number));
            }
            Aftermath::Older | Aftermath::Gone => self.places().remove(),
        }
    }

    fn work(&mut self, session: &Session) -> Result<(), String> {
        match self.rng.below(100) {
            0..30 => self.append(session),
            30..45 => self.append_numbered(session),
            45..55 => self.create_topic(session),
            55..70 => self.commit_offsets(session),
            70..80 => self.publish(session),
            80..85 => self.publish_together(session),
            85..93 => self.copy(session),
            _ => self.delete(session),
        }
    }

    fn append(&mut self, session: &Session) -> Result<(), String> {
        let partitions = self.partitions();
        if partitions.is_empty() {
            return self.create_topic(session);
        }
        let mut waiting = Vec::new();
        for _ in 0..self.rng.between(1, 6) {
            // Requests of one lane keep their order, so the partitions of a producer are its own.
            let lane = self.rng.below(2);
            let mut parts = Vec::new();
            for _ in 0..self.rng.between(1, 3) {
                let partition = self.rng.pick(&partitions).clone();
                let its_own = u64::try_from(partition.partition % 2).unwrap() == lane;
                if its_own && parts.iter().all(|(p, _)| *p != partition) {
                    parts.push((partition, self.lines()));
                }
            }
            if parts.is_empty() {
                continue;
            }
            let request = self.ledger.send(&parts);
            self.trace.push(format!("append {request} to {}", parts.len()));
            waiting.push((request, parts.iter().map(|(p, _)| p.clone()).collect(), session.append(lane, &parts)));
        }
        waiting
            .into_iter()
            .try_for_each(|(request, partitions, appending)| self.await_append(request, partitions, appending))
    }

    fn await_append(
        &mut self,
        request: RequestNumber,
        partitions: Vec<TopicPartition>,
        appending: Appending,
    ) -> Result<(), String> {
        match appending.wait() {
            Ok(bases) => {
                self.trace.push(format!("append {request} acknowledged at {bases:?}"));
                self.ledger.promise(request, &partitions.into_iter().zip(bases).collect::<Vec<_>>());
                Ok(())
            }
            Err(e) => self.failed("append", &e),
        }
    }

    /// An idempotent producer sends again what it has no answer for, something it has an answer for, and new batches, all
    /// at once. What is stored already is answered with the offset it has.
    fn append_numbered(&mut self, session: &Session) -> Result<(), String> {
        let partitions = self.partitions();
        if partitions.is_empty() {
            return self.create_topic(session);
        }
        let partition = self.rng.pick(&partitions).clone();
        let (lane, id) = (u64::try_from(partition.partition % 2).unwrap(), i64::try_from(self.rng.below(2)).unwrap());
        let place = (partition.clone(), id);
        let mut batches = self.numbered.remove(&place).unwrap_or_default();
        let mut wanted: Vec<_> = (0..batches.len()).filter(|at| batches[*at].base.is_none()).collect();
        if !batches.is_empty() && self.rng.chance(50) {
            wanted.push(batches.len() - 1 - self.rng.index(batches.len().min(3)));
        }
        for _ in 0..self.rng.below(3) {
            let next = |last: &Numbered| last.first_sequence + i32::try_from(last.lines.len()).unwrap();
            let first_sequence = batches.last().map_or(0, next);
            wanted.push(batches.len());
            batches.push(Numbered { first_sequence, lines: self.lines(), base: None });
        }
        let mut waiting = Vec::new();
        let mut sent = BTreeSet::new();
        for at in wanted {
            let Numbered { first_sequence, lines, base } = &batches[at];
            let stored = base.or_else(|| place_of(self.found.get(&partition)?, lines));
            let fresh = stored.is_none() && sent.insert(at);
            let request = fresh.then(|| self.ledger.send(&[(partition.clone(), lines.clone())]));
            let producer = Producer { id, epoch: 0, base_sequence: *first_sequence };
            waiting.push((at, stored, request, session.append_of(producer, lane, &partition, lines)));
        }
        let outcome = waiting.into_iter().try_for_each(|(at, stored, request, appending)| {
            self.trace
                .push(format!("producer {id} sent {at} to {partition}, stored at {stored:?}, request {request:?}"));
            let appended = match appending.wait_whole() {
                Ok(appended) => appended[0],
                Err(error) => return self.failed("append with a sequence", &error),
            };
            let stored = stored.or(batches[at].base);
            if stored.is_some_and(|base| base != appended.base_offset) || appended.duplicate != stored.is_some() {
                return Err(format!("producer {id} got {appended:?} for what is stored at {stored:?}"));
            }
            if let Some(request) = request {
                self.ledger.promise(request, &[(partition.clone(), appended.base_offset)]);
            }
            batches[at].base = Some(appended.base_offset);
            Ok(())
        });
        self.numbered.insert(place, batches);
        outcome
    }

    /// A call may fail only because the power did.
    fn failed(&mut self, what: &str, error: &dyn std::fmt::Display) -> Result<(), String> {
        self.trace.push(format!("{what} failed: {error}"));
        if self.fs.is_off() { Ok(()) } else { Err(format!("{what} failed while the power was on: {error}")) }
    }

    fn lines(&mut self) -> Vec<Line> {
        let count = self.rng.between(1, 4);
        let line = |life: &mut Self| {
            life.serial += 1;
            let len = match life.rng.below(20) {
                0 => life.rng.index(40_000),
                1..6 => life.rng.index(3000),
                _ => life.rng.index(200),
            };
            let mut value = format!("record {} ", life.serial).into_bytes();
            value.extend(life.rng.bytes(len));
            let key = life.rng.chance(50).then(|| format!("key {}", life.serial % 7).into_bytes());
            Line { key, value: Some(value), timestamp: i64::try_from(life.rng.below(1 << 40)).unwrap() }
        };
        (0..count).map(|_| line(self)).collect()
    }

    /// Partitions of the topics that certainly exist.
    fn partitions(&self) -> Vec<TopicPartition> {
        let certain =
            |(name, register): (&String, &Register<Option<i32>>)| Some((name.clone(), (*register.certain())?));
        let partitions = |(topic, count): (String, i32)| {
            (0..count).map(move |partition| TopicPartition { topic: topic.clone(), partition })
        };
        self.topics.iter().filter_map(certain).flat_map(partitions).collect()
    }

    fn create_topic(&mut self, session: &Session) -> Result<(), String> {
        if self.topics.len() >= 4 {
            return Ok(());
        }
        self.serial += 1;
        let name = format!("topic-{}", self.serial);
        let partitions = i32::try_from(self.rng.between(1, 3)).unwrap();
        self.trace.push(format!("create {name} with {partitions} partitions"));
        let register = self.topics.entry(name.clone()).or_insert_with(|| Register::new(None));
        register.attempt(Some(partitions));
        match session.create_topic(&name, partitions) {
            Ok(()) => {
                register.promise(Some(partitions));
                Ok(())
            }
            Err(e) => self.failed("create topic", &e),
        }
    }

    fn commit_offsets(&mut self, session: &Session) -> Result<(), String> {
        let partitions = self.partitions();
        if partitions.is_empty() {
            return self.create_topic(session);
        }
        let group = (*self.rng.pick(&GROUPS)).to_owned();
        let mut wanted = BTreeMap::new();
        for _ in 0..self.rng.between(1, 3) {
            let partition = self.rng.pick(&partitions).clone();
            wanted.insert(partition, i64::try_from(self.rng.below(1 << 40)).unwrap());
        }
        self.trace.push(format!("commit {group} {wanted:?}"));
        for (partition, offset) in &wanted {
            self.register(&group, partition).attempt(Some(*offset));
        }
        if let Err(e) = session.commit_offsets(&group, &wanted) {
            return self.failed("commit offsets", &e);
        }
        for (partition, offset) in &wanted {
            self.register(&group, partition).promise(Some(*offset));
        }
        Ok(())
    }

    fn register(&mut self, group: &str, partition: &TopicPartition) -> &mut Register<Option<i64>> {
        self.offsets.entry((group.to_owned(), partition.clone())).or_insert_with(|| Register::new(None))
    }

    fn publish(&mut self, session: &Session) -> Result<(), String> {
        let (key, content) = self.new_blob();
        self.trace.push(format!("publish {key:?}, {} bytes", content.len()));
        self.blob_call(&key, true, |k| session.publish(k, &content))
    }

    /// Several at the same time, so that they share syncs and a commit.
    fn publish_together(&mut self, session: &Session) -> Result<(), String> {
        let blobs = (0..self.rng.between(2, 6)).map(|_| self.new_blob()).collect::<BTreeMap<_, _>>();
        self.trace.push(format!("publish together {:?}", blobs.keys()));
        for key in blobs.keys() {
            self.blobs.entry(key.clone()).or_insert_with(|| Register::new(false)).attempt(true);
        }
        let outcomes = std::thread::scope(|scope| {
            let threads = blobs.iter().map(|(key, content)| scope.spawn(|| session.publish(key, content)));
            let threads = threads.collect::<Vec<_>>();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for (key, outcome) in blobs.keys().zip(outcomes) {
            match outcome {
                Ok(()) => self.blobs.get_mut(key).unwrap().promise(true),
                Err(e) => self.failed("blob among others", &e)?,
            }
        }
        Ok(())
    }

    /// A name and content; one in a few contents was used before.
    fn new_blob(&mut self) -> (BlobRefKey, Vec<u8>) {
        self.serial += 1;
        let len = if self.rng.chance(60) { self.rng.index(2000) } else { self.rng.index(90_000) };
        let mut content = format!("blob {} ", self.serial).into_bytes();
        content.extend(self.rng.bytes(len));
        if let Some(known) = self.contents.values().nth(self.rng.index(6)) {
            content.clone_from(known);
        }
        let hash = content_hash(&content);
        self.contents.insert(hash.0, content.clone());
        let source = *self.rng.pick(&SOURCES);
        let label = *self.rng.pick(&LABELS);
        let key = BlobRefKey { source: source.to_owned(), label: label.to_owned(), hash };
        (key, content)
    }

    fn copy(&mut self, session: &Session) -> Result<(), String> {
        let Some(from) = self.known_blob() else { return Ok(()) };
        let to = BlobRefKey {
            label: (*self.rng.pick(&LABELS)).to_owned(),
            source: (*self.rng.pick(&SOURCES)).to_owned(),
            ..from.clone()
        };
        self.trace.push(format!("copy {from:?} to {to:?}"));
        self.blob_call(&to, true, |to| session.copy_blob(&from, to).map(|found| assert!(found)))
    }

    fn delete(&mut self, session: &Session) -> Result<(), String> {
        let Some(key) = self.known_blob() else { return Ok(()) };
        self.trace.push(format!("delete {key:?}"));
        self.blob_call(&key, false, |k| session.delete_blob(k).map(|d| assert_eq!(d, Deleted::Removed)))
    }

    /// A blob that is certainly there.
    fn known_blob(&mut self) -> Option<BlobRefKey> {
        let known = self.blobs.iter().filter(|(_, r)| *r.certain()).map(|(k, _)| k.clone()).collect::<Vec<_>>();
        (!known.is_empty()).then(|| self.rng.pick(&known).clone())
    }

    fn blob_call(
        &mut self,
        key: &BlobRefKey,
        there: bool,
        call: impl FnOnce(&BlobRefKey) -> Result<(), BlobError>,
    ) -> Result<(), String> {
        let register = self.blobs.entry(key.clone()).or_insert_with(|| Register::new(false));
        register.attempt(there);
        match call(key) {
            Ok(()) => {
                register.promise(there);
                Ok(())
            }
            Err(e) => self.failed("blob", &e),
        }
    }

    /// Holds everything the session finds against what was promised.
    fn check(&mut self, session: &Session) -> Result<(), String> {
        if let Some(damage) = session.store.report().damage.first() {
            return Err(format!("damage is reported: {damage}"));
        }
        let mut topics = session.topics();
        let mut records = BTreeMap::new();
        for (name, register) in &mut self.topics {
            let found = topics.remove(name);
            register.settle(found).map_err(|e| format!("topic {name}: {e}"))?;
            for partition in 0..found.unwrap_or(0) {
                let partition = TopicPartition { topic: name.clone(), partition };
                records.insert(partition.clone(), session.read_all(&partition)?);
            }
        }
        if let Some(extra) = topics.first_key_value() {
            return Err(format!("topic {extra:?} was never created"));
        }
        self.ledger.settle(&records)?;
        self.found = records;
        for ((group, partition), register) in &mut self.offsets {
            let found = session.committed(group, partition)?;
            register.settle(found).map_err(|e| format!("offset of {group} in {partition}: {e}"))?;
        }
        for (key, register) in &mut self.blobs {
            let found = session.blob(key)?;
            register.settle(found.is_some()).map_err(|e| format!("blob {key:?}: {e}"))?;
            if found.is_some_and(|content| content != self.contents[&key.hash.0]) {
                return Err(format!("blob {key:?} has other content"));
            }
        }
        if let Some(extra) = session.blobs()?.iter().find(|key| !self.blobs.contains_key(key)) {
            return Err(format!("blob {extra:?} was never stored"));
        }
        self.check_index(session)
    }

    /// The index must be, row by row, what a rebuild from the segments gives.
    fn check_index(&self, session: &Session) -> Result<(), String> {
        let rebuilt_in = fast_tempdir();
        let places = Places::below(rebuilt_in.path());
        let rebuilt = Session::open(&self.fs.snapshot(), small_options(&places))
            .map_err(|e| format!("the index is not rebuilt: {}", chain(&e)))?;
        same_rows(&session.index_dump()?, &rebuilt.index_dump()?)
    }
}

/// An error with everything below it, and how it is built.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |e| e.source());
    let texts = sources.map(ToString::to_string).collect::<Vec<_>>();
    format!("{} ({error:?})", texts.join(", because: "))
}

/// Leads a life. Whatever ends it before its time, an error or a panic, is printed at once with the seed and the last
/// steps: a run that is stopped, or that fails once in many thousand cuts, must not take it along.
fn lead(seed: u64, body: impl FnOnce(&mut Life) -> Result<(), String>) -> Result<(), String> {
    let mut life = Life::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| body(&mut life)));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panicked: {}", text.unwrap_or_else(|| "without a text".to_owned())))
    });
    result.map_err(|e| {
        let steps = life.trace.iter().rev().take(40).rev().cloned().collect::<Vec<_>>().join("\n  ");
        let text = format!("AZULITE_SEED={seed}, after {} cuts: {e}\n  {steps}", life.cuts);
        eprintln!("{text}");
        text
    })
}

/// Where these lines lie among what was read back.
fn place_of(found: &[Found], lines: &[Line]) -> Option<Offset> {
    let here = |at: &&[Found]| at.iter().zip(lines).all(|(found, line)| found.line == *line);
    found.windows(lines.len()).find(here).map(|at| at[0].offset)
}

fn live(seed: u64, cuts: u64) -> Result<(), String> {
    lead(seed, |life| life.run(cuts))
}

#[test]
fn promises_outlive_power_cuts() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("AZULITE_SEED") {
        live(seed, CUTS_PER_LIFE).unwrap_or_else(|e| panic!("{e}"));
        return;
    }
    let lives = number("AZULITE_CUTS").unwrap_or(1000).div_ceil(CUTS_PER_LIFE);
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let worker = || {
        let seeds = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        for seed in seeds.take_while(|seed| *seed < lives) {
            failures.lock().unwrap().extend(live(seed, CUTS_PER_LIFE).err());
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker))));
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {lives} lives failed\n{}", failures.len(), failures[0]);
}

/// A data directory whose creation is interrupted again and again by kills and power cuts.
fn come_to_be(life: &mut Life) -> Result<(), String> {
    for _ in 0..life.rng.between(1, 3) {
        life.fs.cut_after(life.rng.between(1, 30));
        drop(life.open()?);
        let killed = life.rng.chance(60);
        life.trace.push(format!("interrupted at mutation {}, killed: {killed}", life.fs.mutations()));
        let seed = life.rng.next();
        life.fs = if killed { life.fs.kill() } else { life.fs.cut(seed) };
    }
    let session = life.open()?.ok_or("no session without a cut")?;
    life.create_topic(&session)?;
    life.append(&session)?;
    life.publish(&session)?;
    let seed = life.rng.next();
    life.fs = life.fs.cut(seed);
    drop(session);
    life.trace.push("cut".to_owned());
    let session = life.open()?.ok_or("no session without a cut")?;
    life.check(&session)
}

#[test]
fn interrupted_creation_keeps_later_promises() {
    let failures = (0..150).filter_map(|seed| lead(seed, come_to_be).err()).collect::<Vec<_>>();
    assert!(failures.is_empty(), "{} failed\n{}", failures.len(), failures.join("\n"));
}
