//! Random work on a store and on a plain model in memory, with reopening and kills in between: both must always say the
//! same.
//!
//! `AZULITE_RUNS` sets how many runs are made; a failing run prints its seed, `AZULITE_SEED` replays exactly that one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod support;

use azulite_storage::blobs::Deleted;
use azulite_storage::ids::TopicPartition;
use azulite_storage::log::ReadError;
use azulite_storage::offsets::CommittedOffset;
use azulite_storage::state::BlobRefKey;
use azulite_storage::topics::CreateTopicError;
use azulite_storage::{Durability, Encoding, NewTopic, Options};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::ledger::{Found, Line};
use support::rng::Rng;
use support::session::{Places, Session, content_hash, fast_tempdir, small_options};
use support::sim_fs::SimFs;

const STEPS: u64 = 150;
const GROUPS: [&str; 3] = ["g", "g1", "other"];
const NAMES: [&[u8]; 3] = [b"a", b"ab", b"b"];
/// Timestamps are drawn from a range so narrow that they repeat and go backwards.
const TIMES: u64 = 500;

type Batch = Vec<Found>;

/// What the store must say.
#[derive(Default)]
struct Model {
    topics: BTreeMap<String, i32>,
    partitions: BTreeMap<TopicPartition, Vec<Batch>>,
    offsets: BTreeMap<String, BTreeMap<TopicPartition, i64>>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    blobs: BTreeMap<BlobRefKey, Vec<u8>>,
}

impl Model {
    fn end(&self, partition: &TopicPartition) -> i64 {
        let last = self.partitions[partition].last().and_then(|batch| batch.last());
        last.map_or(0, |found| found.offset + 1)
    }

    fn append(&mut self, partition: &TopicPartition, lines: Vec<Line>) -> i64 {
        let base = self.end(partition);
        let batch = (base..).zip(lines).map(|(offset, line)| Found { offset, line }).collect();
        self.partitions.get_mut(partition).unwrap().push(batch);
        base
    }

    /// Records from the batch that holds `from` on.
    fn records_from_batch_of(&self, partition: &TopicPartition, from: i64) -> Vec<Found> {
        let before = |batch: &&Batch| batch.last().is_some_and(|found| found.offset < from);
        self.partitions[partition].iter().skip_while(before).flatten().cloned().collect()
    }

    fn first_at(&self, partition: &TopicPartition, timestamp: i64) -> Option<(i64, i64)> {
        let mut records = self.partitions[partition].iter().flatten();
        records.find(|f| f.line.timestamp >= timestamp).map(|f| (f.offset, f.line.timestamp))
    }
}

struct Run {
    rng: Rng,
    fs: SimFs,
    real: tempfile::TempDir,
    durability: Durability,
    model: Model,
    serial: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let modes =
            [Durability::Sync, Durability::Sync, Durability::None, Durability::Interval(Duration::from_millis(2))];
        let durability = *rng.pick(&modes);
        let (fs, real) = (SimFs::new(rng.next()), fast_tempdir());
        Self { rng, fs, real, durability, model: Model::default(), serial: 0 }
    }

    fn places(&self) -> Places {
        Places::below(self.real.path())
    }

    fn open(&self) -> Session {
        let encoding = *Rng::new(self.serial).pick(&Encoding::ALL);
        let options = Options { durability: self.durability, encoding, ..small_options(&self.places()) };
        let session = Session::open(&self.fs, options).unwrap();
        assert_eq!(session.store.report().damage, Vec::<String>::new());
        assert_eq!(session.store.report().torn_bytes, 0, "nothing is torn without a power cut");
        session
    }

    fn run(&mut self) {
        let mut session = self.open();
        for _ in 0..STEPS {
            match self.rng.below(100) {
                0..30 => self.append(&session),
                30..50 => self.read(&session),
                50..60 => self.look_up_time(&session),
                60..70 => self.commit_offsets(&session),
                70..76 => self.put_values(&session),
                76..80 => self.create_topic(&session),
                80..93 => self.change_blobs(&session),
                _ => session = self.reopen(session),
            }
        }
        self.check(&session);
        session = self.reopen(session);
        self.check(&session);
    }

    fn reopen(&mut self, session: Session) -> Session {
        let clean = self.rng.chance(50);
        if clean {
            session.store.close();
            drop(session);
        } else {
            // The process ends while the store is open: its threads find a disk that answers no more.
            let killed = self.fs.kill();
            drop(session);
            self.fs = killed;
        }
        if self.rng.chance(25) {
            self.places().remove();
        }
        let session = self.open();
        self.check(&session);
        session
    }

    fn partition(&mut self) -> Option<TopicPartition> {
        let partitions = self.model.partitions.keys().cloned().collect::<Vec<_>>();
        (!partitions.is_empty()).then(|| self.rng.pick(&partitions).clone())
    }

    fn lines(&mut self) -> Vec<Line> {
        let count = self.rng.between(1, 5);
        let line = |run: &mut Self| {
            run.serial += 1;
            let len = if run.rng.chance(2) { run.rng.index(300_000) } else { run.rng.index(2000) };
            let value = [format!("record {} ", run.serial).into_bytes(), run.rng.bytes(len)].concat();
            Line {
                key: run.rng.chance(50).then(|| b"key".to_vec()),
                value: run.rng.chance(90).then_some(value),
                timestamp: i64::try_from(run.rng.below(TIMES)).unwrap() + i64::try_from(run.serial).unwrap(),
            }
        };
        (0..count).map(|_| line(self)).collect()
    }

    fn append(&mut self, session: &Session) {
        let mut waiting = Vec::new();
        for _ in 0..self.rng.between(1, 5) {
            let mut parts = Vec::new();
            for _ in 0..self.rng.between(1, 3) {
                let Some(partition) = self.partition() else { return };
                parts.push((partition, self.lines()));
            }
            waiting.push((session.append(1, &parts), parts));
        }
        for (appending, parts) in waiting {
            let wanted = parts.into_iter().map(|(partition, lines)| self.model.append(&partition, lines));
            let wanted = wanted.collect::<Vec<_>>();
            assert_eq!(appending.wait(), Ok(wanted));
        }
    }

    fn read(&mut self, session: &Session) {
        let Some(partition) = self.partition() else { return };
        let end = self.model.end(&partition);
        let from = i64::try_from(self.rng.below(u64::try_from(end).unwrap() + 3)).unwrap() - 1;
        let max_bytes = *self.rng.pick(&[0, 1, 1000, 10_000, 10_000_000]);
        let handle = session.partition(&partition);
        if !(0..=end).contains(&from) {
            let got = session.store.read(&handle, from, max_bytes);
            let refused = matches!(&got, Err(ReadError::OutOfRange { offset, allowed, .. })
                if *offset == from && *allowed == (0..end));
            assert!(refused, "{partition} at {from} of {end}: got {got:?}");
            return;
        }
        let got = session.read(&partition, from, max_bytes).unwrap();
        let wanted = self.model.records_from_batch_of(&partition, from);
        assert_eq!(got[..], wanted[..got.len()], "{partition} from {from}");
        assert!(!got.is_empty() || from == end, "{partition} from {from} of {end}: nothing");
        if max_bytes == 10_000_000 {
            assert_eq!(got.len(), wanted.len(), "{partition} from {from}: all of it was asked for");
        }
    }

    fn look_up_time(&mut self, session: &Session) {
        let Some(partition) = self.partition() else { return };
        let timestamp = i64::try_from(self.rng.below(TIMES + self.serial + 10)).unwrap() - 5;
        let got = session.store.offset_for_time(&session.partition(&partition), timestamp).unwrap();
        assert_eq!(got, self.model.first_at(&partition, timestamp), "{partition} at time {timestamp}");
    }

    fn commit_offsets(&mut self, session: &Session) {
        let group = *self.rng.pick(&GROUPS);
        let mut changes = BTreeMap::new();
        for _ in 0..self.rng.between(1, 3) {
            let Some(partition) = self.partition() else { return };
            changes.insert(partition, self.rng.chance(80).then(|| i64::try_from(self.rng.below(1000)).unwrap()));
        }
        let committed =
            |offset| CommittedOffset { offset, leader_epoch: -1, metadata: "text".to_owned(), commit_time_ms: 5 };
        let wanted = changes.iter().map(|(name, offset)| (name.clone(), offset.map(committed))).collect();
        session.store.commit_offsets_wait(group, &wanted, Vec::new()).unwrap();
        let model = self.model.offsets.entry(group.to_owned()).or_default();
        for (name, offset) in changes {
            match offset {
                Some(offset) => model.insert(name, offset),
                None => model.remove(&name),
            };
        }
    }

    fn put_values(&mut self, session: &Session) {
        let mut changes = BTreeMap::new();
        for _ in 0..self.rng.between(1, 3) {
            let value = self.rng.chance(70).then(|| self.rng.bytes(20));
            changes.insert(self.rng.pick(&NAMES).to_vec(), value);
        }
        let values = changes.iter().map(|(name, value)| (name.clone(), value.clone().map(Bytes::from))).collect();
        session.store.put_kv(values).unwrap();
        for (name, value) in changes {
            match value {
                Some(value) => self.model.values.insert(name, value),
                None => self.model.values.remove(&name),
            };
        }
    }

    fn create_topic(&mut self, session: &Session) {
        let name = format!("topic-{}", self.rng.below(4));
        let partitions = i32::try_from(self.rng.between(1, 3)).unwrap();
        let got = session.store.create_topic(NewTopic { name: name.clone(), partitions, config: BTreeMap::new() });
        if self.model.topics.contains_key(&name) {
            assert_eq!(got.unwrap_err(), CreateTopicError::Exists(name));
            return;
        }
        got.unwrap();
        for partition in 0..partitions {
            self.model.partitions.insert(TopicPartition { topic: name.clone(), partition }, Vec::new());
        }
        self.model.topics.insert(name, partitions);
    }

    fn change_blobs(&mut self, session: &Session) {
        // From the smallest to more than what goes into the log.
        let content = format!("blob {} ", self.rng.below(5)).repeat(*self.rng.pick(&[1, 2, 400, 900])).into_bytes();
        let name = |rng: &mut Rng| BlobRefKey {
            hash: content_hash(&content),
            source: (*rng.pick(&["", "lab"])).to_owned(),
            label: (*rng.pick(&["content", "text"])).to_owned(),
        };
        let (key, other) = (name(&mut self.rng), name(&mut self.rng));
        match self.rng.below(3) {
            0 => {
                session.publish(&key, &content).unwrap();
                self.model.blobs.insert(key, content);
            }
            1 => {
                let known = self.model.blobs.contains_key(&key);
                assert_eq!(session.copy_blob(&key, &other).unwrap(), known);
                if known {
                    self.model.blobs.insert(other, content);
                }
            }
            _ => {
                let known = self.model.blobs.remove(&key).is_some();
                let wanted = if known { Deleted::Removed } else { Deleted::Missing };
                assert_eq!(session.delete_blob(&key).unwrap(), wanted);
            }
        }
    }

    /// Compares everything.
    fn check(&self, session: &Session) {
        assert_eq!(session.topics(), self.model.topics);
        for (name, batches) in &self.model.partitions {
            let wanted = batches.iter().flatten().cloned().collect::<Vec<_>>();
            assert_eq!(session.read_all(name).unwrap(), wanted, "{name}");
            let offsets = session.partition(name).offsets();
            let end = self.model.end(name);
            assert_eq!((offsets.log_start, offsets.last_stable, offsets.high_watermark), (0, end, end));
        }
        for group in GROUPS {
            let found = session.store.group_offsets(group).unwrap();
            let found = found.into_iter().map(|(name, committed)| (name, committed.offset)).collect::<BTreeMap<_, _>>();
            assert_eq!(found, self.model.offsets.get(group).cloned().unwrap_or_default(), "{group}");
        }
        let groups = self.model.offsets.iter().filter(|(_, offsets)| !offsets.is_empty());
        assert_eq!(session.store.groups().unwrap(), groups.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>());
        for name in NAMES {
            assert_eq!(session.store.kv(name).unwrap().map(|b| b.to_vec()), self.model.values.get(name).cloned());
        }
        assert_eq!(session.blobs().unwrap(), self.model.blobs.keys().cloned().collect::<Vec<_>>());
        for (key, content) in &self.model.blobs {
            assert_eq!(session.blob(key).unwrap().as_ref(), Some(content), "{key:?}");
        }
    }
}

#[test]
fn the_store_says_what_the_model_says() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("AZULITE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AZULITE_RUNS").unwrap_or(30),
    };
    for seed in seeds {
        // Shown when the run fails.
        println!("AZULITE_SEED={seed}");
        Run::new(seed).run();
    }
}
