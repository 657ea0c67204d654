//! Topics are made, grown, altered, emptied and deleted while the power fails: what is found after is the state before
//! the call that was under way, or the one behind it, and nothing in between.
//!
//! `AZULITE_CUTS` sets how many cuts are made (200 when unset); `AZULITE_SEED` leads the life of a failing seed again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod support;

use azulite_storage::ids::TopicPartition;
use azulite_storage::maintenance::Now;
use azulite_storage::topics::ConfigChange;
use azulite_storage::{NewTopic, Options};
use std::collections::{BTreeMap, BTreeSet};
use support::ledger::{Found, Line};
use support::rng::Rng;
use support::session::{Places, ROOT, Session, fast_tempdir, same_rows, small_options};
use support::sim_fs::SimFs;

const NAMES: [&str; 3] = ["a", "b", "c"];
const GROUPS: [&str; 2] = ["g1", "g2"];
const CUTS_PER_LIFE: u64 = 5;

#[derive(Clone, Debug, Default, PartialEq)]
struct Log {
    log_start: i64,
    /// Whole batches; the first may begin below the log start.
    batches: Vec<Vec<Found>>,
    end: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ModelTopic {
    config: BTreeMap<String, String>,
    partitions: Vec<Log>,
}

/// Everything a store is to say.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    topics: BTreeMap<String, ModelTopic>,
    offsets: BTreeMap<(String, TopicPartition), i64>,
}

#[derive(Clone, Debug)]
enum Op {
    Create(String, i32),
    Delete(String),
    Grow(String, i32),
    Alter(String, String),
    DeleteRecords(TopicPartition, i64),
    Append(TopicPartition, Vec<Line>),
    Commit(String, TopicPartition, i64),
}

fn index(partition: i32) -> usize {
    usize::try_from(partition).unwrap()
}

impl Model {
    fn log(&mut self, place: &TopicPartition) -> &mut Log {
        &mut self.topics.get_mut(&place.topic).unwrap().partitions[index(place.partition)]
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(name, partitions) => {
                let partitions = vec![Log::default(); index(*partitions)];
                self.topics.insert(name.clone(), ModelTopic { config: keep_all(), partitions });
            }
            Op::Delete(name) => {
                self.topics.remove(name);
                self.offsets.retain(|(_, place), _| place.topic != *name);
            }
            Op::Grow(name, total) => {
                self.topics.get_mut(name).unwrap().partitions.resize(index(*total), Log::default());
            }
            Op::Alter(name, value) => {
                self.topics.get_mut(name).unwrap().config.insert("segment.ms".to_owned(), value.clone());
            }
            Op::DeleteRecords(place, below) => {
                let log = self.log(place);
                log.log_start = log.log_start.max(*below);
                let log_start = log.log_start;
                log.batches.retain(|batch| batch.last().is_some_and(|found| found.offset >= log_start));
            }
            Op::Append(place, lines) => {
                let log = self.log(place);
                let batch: Vec<_> =
                    (log.end..).zip(lines).map(|(offset, line)| Found { offset, line: line.clone() }).collect();
                log.end += i64::try_from(batch.len()).unwrap();
                log.batches.push(batch);
            }
            Op::Commit(group, place, offset) => {
                self.offsets.insert((group.clone(), place.clone()), *offset);
            }
        }
    }

    fn places(&self) -> Vec<TopicPartition> {
        let places = |(topic, model): (&String, &ModelTopic)| {
            let count = i32::try_from(model.partitions.len()).unwrap();
            let topic = topic.clone();
            (0..count).map(move |partition| TopicPartition { topic: topic.clone(), partition }).collect::<Vec<_>>()
        };
        self.topics.iter().flat_map(places).collect()
    }

    /// What an open store says.
    fn of(session: &Session) -> Result<Self, String> {
        let mut found = Self::default();
        for topic in session.store.topics().iter().filter(|topic| !topic.internal) {
            let mut partitions = Vec::new();
            for partition in &topic.partitions {
                let offsets = partition.offsets();
                let mut batches = Vec::new();
                let mut next = offsets.log_start;
                while next < offsets.high_watermark {
                    let batch = session.read(partition.name(), next, 1)?;
                    next = batch.last().ok_or(format!("{}: nothing at {next}", partition.name()))?.offset + 1;
                    batches.push(batch);
                }
                partitions.push(Log { log_start: offsets.log_start, batches, end: offsets.high_watermark });
            }
            found.topics.insert(topic.name.clone(), ModelTopic { config: topic.config.clone(), partitions });
        }
        for group in session.store.groups().map_err(|e| e.to_string())? {
            for (place, committed) in session.store.group_offsets(&group).map_err(|e| e.to_string())? {
                found.offsets.insert((group.clone(), place), committed.offset);
            }
        }
        Ok(found)
    }
}

/// Retention is not what is tested here.
fn keep_all() -> BTreeMap<String, String> {
    BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())])
}

struct Life {
    rng: Rng,
    fs: SimFs,
    real: tempfile::TempDir,
    model: Model,
    /// What is there instead when the call under way was done.
    maybe: Option<Model>,
    /// Numbers of partitions that have been given.
    numbers: BTreeMap<u32, TopicPartition>,
    highest: u32,
    serial: u64,
    trace: Vec<String>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let fs = SimFs::new(rng.next());
        let (real, model) = (fast_tempdir(), Model::default());
        let (numbers, trace) = (BTreeMap::new(), Vec::new());
        Self { rng, fs, real, model, maybe: None, numbers, highest: 0, serial: 0, trace }
    }

    fn places(&self) -> Places {
        Places::below(self.real.path())
    }

    fn open(&self) -> Result<Session, String> {
        let options = Options { commit_bytes: 8 << 10, ..small_options(&self.places()) };
        Session::open(&self.fs, options).map_err(|e| format!("does not open: {e}"))
    }

    fn live(&mut self) -> Result<(), String> {
        for _ in 0..CUTS_PER_LIFE {
            if let Err(error) = self.session()
                && !self.fs.is_off()
            {
                return Err(error);
            }
            let seed = self.rng.next();
            let killed = self.rng.chance(25);
            self.fs = if killed { self.fs.kill() } else { self.fs.cut(seed) };
            let rebuilt = !killed && self.rng.chance(35);
            if rebuilt {
                self.places().remove();
            }
            self.trace.push(format!("killed: {killed}, index gone: {rebuilt}"));
        }
        let session = self.open()?;
        self.check(&session)?;
        self.compare_with_rebuilt(session)
    }

    fn session(&mut self) -> Result<(), String> {
        let session = self.open()?;
        self.check(&session)?;
        self.fs.cut_after(self.rng.between(1, 120));
        for _ in 0..self.rng.between(5, 40) {
            let op = self.op();
            if self.rng.chance(15) {
                session.store.maintain(Now { wall_ms: 0, up_ms: 0 }).map_err(|e| e.to_string())?;
            }
            let mut next = self.model.clone();
            next.apply(&op);
            self.trace.push(format!("{op:?}").chars().take(160).collect());
            match run(&session, &op) {
                Ok(()) => self.model = next,
                Err(error) => {
                    self.maybe = Some(next);
                    return Err(format!("{op:?} failed while the power was on: {error}"));
                }
            }
            self.note_numbers(&session)?;
        }
        Ok(())
    }

    fn check(&mut self, session: &Session) -> Result<(), String> {
        let damage = &session.store.report().damage;
        if !damage.is_empty() {
            return Err(format!("damage: {damage:?}"));
        }
        let found = Model::of(session)?;
        let maybe = self.maybe.take();
        if found != self.model && maybe.as_ref() != Some(&found) {
            return Err(format!("found\n{found:?}\npromised\n{:?}\npossible\n{maybe:?}", self.model));
        }
        self.model = found;
        self.note_numbers(session)
    }

    /// A number stands for one partition of one topic for ever.
    fn note_numbers(&mut self, session: &Session) -> Result<(), String> {
        let mut now = BTreeMap::new();
        for topic in session.store.topics().iter().filter(|topic| !topic.internal) {
            now.extend(topic.partitions.iter().map(|p| (p.number().0, p.name().clone())));
        }
        let fresh: Vec<_> = now.keys().filter(|number| !self.numbers.contains_key(number)).copied().collect();
        // Numbers of calls that were cut off may be given again, those that were seen may not.
        if let Some(again) = fresh.iter().find(|number| **number <= self.highest) {
            return Err(format!("number {again} was given again"));
        }
        self.highest = now.keys().copied().chain([self.highest]).max().unwrap();
        self.numbers = now;
        Ok(())
    }

    fn name(&mut self, there: bool) -> Option<String> {
        let fits = NAMES.iter().filter(|name| self.model.topics.contains_key(**name) == there);
        let fits: Vec<_> = fits.map(|name| (*name).to_owned()).collect();
        (!fits.is_empty()).then(|| self.rng.pick(&fits).clone())
    }

    fn op(&mut self) -> Op {
        let kind = self.rng.below(100);
        let place = match self.model.places() {
            places if places.is_empty() => None,
            places => Some(self.rng.pick(&places).clone()),
        };
        let (Some(place), Some(name)) = (place, self.name(true)) else { return self.create() };
        match kind {
            0..10 => self.create(),
            10..18 => Op::Delete(name),
            18..24 => {
                let more = i32::try_from(self.model.topics[&name].partitions.len()).unwrap() + 1;
                Op::Grow(name, more)
            }
            24..32 => {
                self.serial += 1;
                Op::Alter(name, self.serial.to_string())
            }
            32..45 => {
                let (start, end) = (self.model.log(&place).log_start, self.model.log(&place).end);
                let below = start + i64::try_from(self.rng.below(u64::try_from(end - start).unwrap() + 1)).unwrap();
                Op::DeleteRecords(place, below)
            }
            45..85 => {
                let count = self.rng.between(1, 4);
                let lines = (0..count).map(|_| self.line()).collect();
                Op::Append(place, lines)
            }
            _ => {
                let group = (*self.rng.pick(&GROUPS)).to_owned();
                Op::Commit(group, place, i64::try_from(self.rng.below(1000)).unwrap())
            }
        }
    }

    fn create(&mut self) -> Op {
        let partitions = i32::try_from(self.rng.between(1, 3)).unwrap();
        match self.name(false) {
            Some(name) => Op::Create(name, partitions),
            None => Op::Delete(NAMES[0].to_owned()),
        }
    }

    fn line(&mut self) -> Line {
        self.serial += 1;
        let len = if self.rng.chance(5) { self.rng.index(60_000) } else { self.rng.index(300) };
        let value = [format!("record {} ", self.serial).into_bytes(), self.rng.bytes(len)].concat();
        Line { key: None, value: Some(value), timestamp: i64::try_from(self.rng.below(1 << 40)).unwrap() }
    }

    /// After upkeep an index that was kept through all of this and one built anew hold the same rows of live topics.
    fn compare_with_rebuilt(&self, session: Session) -> Result<(), String> {
        let upkeep = |session: &Session| {
            session.store.maintain(Now { wall_ms: 0, up_ms: 0 }).map_err(|e| e.to_string())?;
            let live: BTreeSet<_> = session
                .store
                .topics()
                .iter()
                .flat_map(|topic| topic.partitions.iter().map(|p| p.number().0.to_be_bytes().to_vec()))
                .collect();
            let rows = session.index_dump()?;
            let stray = rows.iter().find(|row| row.0 == "log" && !live.contains(&row.1[..4]));
            stray.map_or(Ok(()), |row| Err(format!("a row of a deleted topic: {row:02x?}")))?;
            let sizes: Vec<_> = session
                .store
                .topics()
                .iter()
                .flat_map(|topic| topic.partitions.iter().map(|p| p.size_bytes()).collect::<Vec<_>>())
                .collect();
            Ok::<_, String>((rows, sizes))
        };
        let (kept, sizes) = upkeep(&session)?;
        drop(session);
        self.places().remove();
        let (rebuilt, again) = upkeep(&self.open()?)?;
        same_rows(&kept, &rebuilt)?;
        if sizes == again { Ok(()) } else { Err(format!("sizes {sizes:?}, of a rebuilt index {again:?}")) }
    }
}

fn run(session: &Session, op: &Op) -> Result<(), String> {
    let store = &session.store;
    match op {
        Op::Create(name, partitions) => {
            let new = NewTopic { name: name.clone(), partitions: *partitions, config: keep_all() };
            store.create_topic(new).map(drop).map_err(|e| e.to_string())
        }
        Op::Delete(name) => store.delete_topic(name).map(drop).map_err(|e| e.to_string()),
        Op::Grow(name, total) => store.grow_partitions(name, *total).map(drop).map_err(|e| e.to_string()),
        Op::Alter(name, value) => {
            let change = ConfigChange::Set([("segment.ms".to_owned(), Some(value.clone()))].into());
            store.alter_config(name, change).map(drop).map_err(|e| e.to_string())
        }
        Op::DeleteRecords(place, below) => {
            let mut starts = store.delete_records(&[(place.clone(), Some(*below))]);
            starts.remove(0).map(drop).map_err(|e| e.to_string())
        }
        Op::Append(place, lines) => {
            let appending = session.append(1, &[(place.clone(), lines.clone())]);
            appending.wait().map(drop).map_err(|e| e.to_string())
        }
        Op::Commit(group, place, offset) => session.commit_offsets(group, &BTreeMap::from([(place.clone(), *offset)])),
    }
}

#[test]
fn topics_are_as_before_or_as_after_the_call_that_was_cut_off() {
    assert_eq!(ROOT, "/data");
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let lives = number("AZULITE_CUTS").unwrap_or(200).div_ceil(CUTS_PER_LIFE);
    let seeds = number("AZULITE_SEED").map_or(0..lives, |seed| seed..seed + 1);
    for seed in seeds {
        let mut life = Life::new(seed);
        if let Err(error) = life.live() {
            let last = life.trace.iter().rev().take(25).rev().cloned().collect::<Vec<_>>().join("\n  ");
            panic!("AZULITE_SEED={seed}\n  {last}\n{error}");
        }
    }
}
