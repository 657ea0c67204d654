//! Idempotent producers: a batch sent twice is stored once, whatever happens in between (`kafka.md` 5.1).
//!
//! `AZULITE_RUNS` sets how many random runs are made; a failing run prints its seed, `AZULITE_SEED` replays exactly that
//! one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod support;

use azulite_storage::batch::Producer;
use azulite_storage::fs::Fs;
use azulite_storage::ids::TopicPartition;
use azulite_storage::producers::{RefusedBatch, SequenceError};
use azulite_storage::{Append, AppendError, Appended, BatchBuilder, CheckedBatch, Codec, Durability, Lane, Options};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use support::rng::Rng;
use support::session::{Places, Session, fast_tempdir, same_rows, small_options};
use support::sim_fs::SimFs;

/// A batch of an idempotent producer, as the tests speak of it.
#[derive(Clone, Debug)]
struct Sent {
    partition: i32,
    id: i64,
    epoch: i16,
    first: i32,
    count: i32,
}

impl Sent {
    fn batch(&self, codec: Codec) -> CheckedBatch {
        let producer = Producer { id: self.id, epoch: self.epoch, base_sequence: self.first };
        let mut builder = BatchBuilder::default().codec(codec).producer(producer);
        (0..self.count).for_each(|at| builder.push(1, None, Some(self.text(at).as_bytes())));
        builder.build().unwrap()
    }

    fn text(&self, at: i32) -> String {
        let sequence = self.first.wrapping_add(at) & i32::MAX;
        format!("{} {} {sequence}", self.id, self.epoch)
    }

    fn last(&self) -> i32 {
        self.first.wrapping_add(self.count - 1) & i32::MAX
    }
}

fn sent(first: i32, count: i32) -> Sent {
    Sent { partition: 0, id: 7, epoch: 0, first, count }
}

fn name(partition: i32) -> TopicPartition {
    TopicPartition { topic: "t".to_owned(), partition }
}

type Answer = Result<Vec<Appended>, AppendError>;

fn send(session: &Session, parts: &[Sent], codec: Codec) -> mpsc::Receiver<Answer> {
    let (sender, receiver) = mpsc::channel();
    let append = |sent: &Sent| Append { partition: session.partition(&name(sent.partition)), batch: sent.batch(codec) };
    // The test may have stopped waiting.
    let done = Box::new(move |outcome| drop(sender.send(outcome)));
    session.store.append(Lane(1), parts.iter().map(append).collect(), done);
    receiver
}

fn send_wait(session: &Session, sent: &Sent) -> Result<Appended, AppendError> {
    let answer = send(session, std::slice::from_ref(sent), Codec::None).recv().unwrap();
    answer.map(|appended| appended[0])
}

/// What became of a batch, in short.
fn brief(answer: Answer) -> Result<Vec<(i64, bool)>, SequenceError> {
    match answer {
        Ok(all) => Ok(all.into_iter().map(|one| (one.base_offset, one.duplicate)).collect()),
        Err(AppendError::Sequence(refused)) => Err(refused.error),
        Err(other) => panic!("{other}"),
    }
}

/// One producer in one partition: everything it ever wrote in this epoch.
#[derive(Clone, Default)]
struct Written {
    epoch: i16,
    batches: Vec<(i32, i32, i64)>,
    seen: HashSet<i32>,
}

impl Written {
    fn next(&self) -> i32 {
        self.batches.last().map_or(0, |(_, last, _)| last.wrapping_add(1) & i32::MAX)
    }
}

#[derive(Clone, Default)]
struct Model {
    logs: BTreeMap<i32, Vec<String>>,
    producers: BTreeMap<(i32, i64), Written>,
}

impl Model {
    /// The rules once more, without the shortcuts of the store: everything is remembered.
    fn append(&mut self, sent: &Sent) -> Result<(i64, bool), SequenceError> {
        let log = self.logs.entry(sent.partition).or_default();
        let base = i64::try_from(log.len()).unwrap();
        let (first_sequence, last_sequence) = (sent.first, sent.last());
        let sequences = || (0..sent.count).map(|at| sent.first.wrapping_add(at) & i32::MAX);
        let written =
            self.producers.entry((sent.partition, sent.id)).or_insert(Written { epoch: -1, ..Written::default() });
        if sent.epoch < written.epoch {
            return Err(SequenceError::Epoch { epoch: sent.epoch, current: written.epoch });
        }
        if sent.epoch > written.epoch {
            if written.epoch >= 0 && sent.first != 0 {
                return Err(SequenceError::OutOfOrder { first_sequence, expected: 0 });
            }
            *written = Written { epoch: sent.epoch, ..Written::default() };
        } else {
            let last_five = written.batches.iter().rev().take(5);
            if let Some((_, _, base)) = last_five.copied().find(|b| (b.0, b.1) == (first_sequence, last_sequence)) {
                return Ok((base, true));
            }
            let expected = written.next();
            if sent.first != expected && sequences().all(|sequence| written.seen.contains(&sequence)) {
                return Err(SequenceError::Duplicate { first_sequence, last_sequence, expected });
            }
            if sent.first != expected {
                return Err(SequenceError::OutOfOrder { first_sequence, expected });
            }
        }
        written.batches.push((first_sequence, last_sequence, base));
        written.seen.extend(sequences());
        log.extend((0..sent.count).map(|at| sent.text(at)));
        Ok((base, false))
    }
}

struct Run {
    rng: Rng,
    fs: SimFs,
    real: tempfile::TempDir,
    durability: Durability,
    model: Model,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let modes = [Durability::Sync, Durability::None, Durability::Interval(Duration::from_millis(2))];
        let durability = *rng.pick(&modes);
        let (fs, real) = (SimFs::new(rng.next()), fast_tempdir());
        Self { rng, fs, real, durability, model: Model::default() }
    }

    fn places(&self) -> Places {
        Places::below(self.real.path())
    }

    fn open(&self) -> Session {
        let options = Options { durability: self.durability, ..small_options(&self.places()) };
        Session::open(&self.fs, options).unwrap()
    }

    fn run(&mut self) {
        let mut session = self.open();
        session.create_topic("t", 2).unwrap();
        for _ in 0..60 {
            match self.rng.below(100) {
                0..90 => self.flight(&session),
                _ => session = self.reopen(session),
            }
        }
        session = self.reopen(session);
        self.flight(&session);
        self.check(&session);
    }

    fn reopen(&mut self, session: Session) -> Session {
        if self.rng.chance(50) {
            session.store.close();
            drop(session);
        } else {
            let killed = self.fs.kill();
            drop(session);
            self.fs = killed;
        }
        if self.rng.chance(40) {
            self.places().remove();
        }
        let session = self.open();
        self.check(&session);
        session
    }

    /// Up to eight requests, sent without waiting for an answer in between.
    fn flight(&mut self, session: &Session) {
        let mut waiting = Vec::new();
        for _ in 0..self.rng.between(1, 8) {
            let parts: Vec<_> = (0..self.rng.between(1, 2)).map(|_| self.choose()).collect();
            // What of a request is refused takes the rest of it back.
            let before = self.model.clone();
            let wanted: Result<Vec<_>, _> = parts.iter().map(|sent| self.model.append(sent)).collect();
            if wanted.is_err() {
                self.model = before;
            }
            let codec = *self.rng.pick(&[Codec::None, Codec::None, Codec::Lz4]);
            waiting.push((send(session, &parts, codec), parts, wanted));
        }
        for (receiver, parts, wanted) in waiting {
            assert_eq!(brief(receiver.recv().unwrap()), wanted, "{parts:?}");
        }
    }

    fn choose(&mut self) -> Sent {
        let partition = i32::try_from(self.rng.below(2)).unwrap();
        let id = i64::try_from(self.rng.below(3)).unwrap();
        let count = i32::try_from(self.rng.between(1, 4)).unwrap();
        let written = self.model.producers.get(&(partition, id)).filter(|w| w.epoch >= 0).cloned();
        let Some(Written { epoch, batches, .. }) = written else {
            let first = *self.rng.pick(&[0, 0, 5, i32::MAX - 7]);
            return Sent { partition, id, epoch: 0, first, count };
        };
        let next = batches.last().map_or(0, |(_, last, _)| last.wrapping_add(1) & i32::MAX);
        let near = |rng: &mut Rng| {
            let step = i32::try_from(rng.below(30)).unwrap() - 20;
            next.wrapping_add(step) & i32::MAX
        };
        match self.rng.below(100) {
            0..60 => Sent { partition, id, epoch, first: next, count },
            60..80 => {
                let back = self.rng.index(batches.len().min(8)) + 1;
                let (first, last, _) = batches[batches.len() - back];
                Sent { partition, id, epoch, first, count: (last.wrapping_sub(first) & i32::MAX) + 1 }
            }
            80..92 => Sent { partition, id, epoch, first: near(&mut self.rng), count },
            92..95 => Sent { partition, id, epoch: epoch + 1, first: 0, count },
            95..97 => Sent { partition, id, epoch: epoch + 1, first: next, count },
            _ => Sent { partition, id, epoch: epoch - 1, first: near(&mut self.rng), count },
        }
    }

    fn check(&self, session: &Session) {
        for partition in 0..2 {
            let found = session.read_all(&name(partition)).unwrap();
            let texts: Vec<_> = found.into_iter().map(|f| String::from_utf8(f.line.value.unwrap()).unwrap()).collect();
            assert_eq!(texts, self.model.logs.get(&partition).cloned().unwrap_or_default());
            let states = session.store.producers(&session.partition(&name(partition)), 0).unwrap();
            let sequences =
                |batches: &[(i32, i32, i64)]| batches.iter().rev().take(5).rev().copied().collect::<Vec<_>>();
            let found: Vec<_> = states
                .into_iter()
                .map(|state| {
                    let batches = state.batches.iter().map(|b| (b.first_sequence, b.last_sequence, b.base_offset));
                    (state.producer_id, state.epoch, batches.collect::<Vec<_>>())
                })
                .collect();
            let wanted = self.model.producers.iter().filter(|((of, _), w)| *of == partition && w.epoch >= 0);
            let wanted: Vec<_> = wanted.map(|((_, id), w)| (*id, w.epoch, sequences(&w.batches))).collect();
            assert_eq!(found, wanted);
        }
        let rebuilt_in = fast_tempdir();
        let rebuilt = Session::open(&self.fs.snapshot(), small_options(&Places::below(rebuilt_in.path()))).unwrap();
        same_rows(&session.index_dump().unwrap(), &rebuilt.index_dump().unwrap()).unwrap();
    }
}

#[test]
fn the_store_and_a_model_that_forgets_nothing_agree() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("AZULITE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AZULITE_RUNS").unwrap_or(25),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| Run::new(seed).run());
        assert!(run.is_ok(), "AZULITE_SEED={seed}");
    }
}

fn bench(change: impl FnOnce(Options) -> Options) -> (SimFs, tempfile::TempDir, Session) {
    let (fs, real) = (SimFs::new(1), fast_tempdir());
    let session = Session::open(&fs, change(small_options(&Places::below(real.path())))).unwrap();
    session.create_topic("t", 2).unwrap();
    (fs, real, session)
}

/// Waits until the next segments are made, so that a fault meets the committer and not the keeper.
fn settled(fs: &SimFs, real: &tempfile::TempDir) {
    let log = small_options(&Places::below(real.path())).root.join("log");
    while fs.list(&log).unwrap().iter().filter(|entry| entry.name.ends_with(".seg")).count() < 4 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Queues the batches while the committer is held, so that they come into one commit; runs `meanwhile` before it goes
/// on.
fn in_one_commit(session: &Session, batches: &[Sent], meanwhile: impl FnOnce()) -> Vec<Answer> {
    let (held, holds) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let mut builder = BatchBuilder::default();
    builder.push(1, None, Some(b"before"));
    let append = Append { partition: session.partition(&name(1)), batch: builder.build().unwrap() };
    let done = Box::new(move |outcome: Answer| {
        outcome.unwrap();
        held.send(()).unwrap();
        released.recv().unwrap();
    });
    session.store.append(Lane(9), vec![append], done);
    holds.recv().unwrap();
    let waiting: Vec<_> = batches.iter().map(|b| send(session, std::slice::from_ref(b), Codec::None)).collect();
    meanwhile();
    release.send(()).unwrap();
    waiting.into_iter().map(|receiver| receiver.recv().unwrap()).collect()
}

#[test]
fn batches_under_way_are_checked_against_each_other() {
    let (_fs, _real, session) = bench(|options| options);
    let batches = [sent(0, 2), sent(2, 1), sent(0, 2), sent(4, 1), sent(3, 1), sent(2, 1), sent(0, 1)];
    let got: Vec<_> = in_one_commit(&session, &batches, || {}).into_iter().map(brief).collect();
    let wanted = [
        Ok(vec![(0, false)]),
        Ok(vec![(2, false)]),
        Ok(vec![(0, true)]),
        Err(SequenceError::OutOfOrder { first_sequence: 4, expected: 3 }),
        Ok(vec![(3, false)]),
        Ok(vec![(2, true)]),
        Err(SequenceError::Duplicate { first_sequence: 0, last_sequence: 0, expected: 4 }),
    ];
    assert_eq!(got, wanted);
    assert_eq!(session.read_all(&name(0)).unwrap().len(), 4);
}

#[test]
fn a_refused_commit_answers_nothing_and_takes_its_sequences_back() {
    let (fs, real, session) = bench(|options| options);
    send_wait(&session, &sent(0, 2)).unwrap();
    settled(&fs, &real);
    let batches = [sent(2, 3), sent(2, 3), sent(5, 1), sent(2, 1), sent(9, 1)];
    let got = in_one_commit(&session, &batches, || fs.fail_write(1));
    assert_eq!(got, vec![Err(AppendError::DiskFull); 5], "a duplicate of what is not durable is not a success");
    assert_eq!(send_wait(&session, &sent(5, 1)), Err(out_of_order(&sent(5, 1), 2)));
    let appended = send_wait(&session, &sent(2, 3)).unwrap();
    assert_eq!((appended.base_offset, appended.duplicate), (2, false));
    let twice = send_wait(&session, &sent(2, 3)).unwrap();
    assert_eq!(twice, Appended { duplicate: true, ..appended });
}

fn out_of_order(sent: &Sent, expected: i32) -> AppendError {
    let error = SequenceError::OutOfOrder { first_sequence: sent.first, expected };
    AppendError::Sequence(RefusedBatch { partition: name(sent.partition), producer_id: sent.id, error }.into())
}

#[test]
fn the_first_batch_ever_that_finds_no_room_is_not_overtaken() {
    let (fs, real, session) = bench(|options| options);
    settled(&fs, &real);
    let of = |id, first, count| Sent { id, ..sent(first, count) };
    let got = in_one_commit(&session, &[of(7, 0, 2), of(7, 2, 1), of(8, 40, 1)], || fs.fail_write(1));
    assert_eq!(got, vec![Err(AppendError::DiskFull); 3]);
    assert_eq!(send_wait(&session, &of(7, 2, 1)), Err(out_of_order(&of(7, 2, 1), 0)));
    assert_eq!(send_wait(&session, &of(8, 41, 1)), Err(out_of_order(&of(8, 41, 1), 40)));
    let flight: Vec<_> = [of(7, 0, 2), of(7, 2, 1), of(8, 40, 1), of(8, 41, 1)].map(|s| send_wait(&session, &s)).into();
    let offsets: Vec<_> = flight.into_iter().map(|answer| answer.unwrap().base_offset).collect();
    assert_eq!(offsets, [0, 2, 3, 4]);
    // One that begins a new epoch has given the refused batch up.
    let got = in_one_commit(&session, &[of(9, 0, 1)], || fs.fail_write(1));
    assert_eq!(got, [Err(AppendError::DiskFull)]);
    assert_eq!(send_wait(&session, &Sent { epoch: 1, ..of(9, 0, 1) }).unwrap().base_offset, 5);
}

#[test]
fn a_producer_refused_by_a_full_disk_begins_with_what_was_refused() {
    let (fs, real, session) = bench(|options| Options { reserve_bytes: 1 << 20, ..options });
    settled(&fs, &real);
    // The committer finds out by itself.
    fs.set_capacity(Some(fs.used() + (16 << 10)));
    let got = in_one_commit(&session, &[sent(0, 1)], || fs.fail_write(1));
    assert_eq!(got, [Err(AppendError::DiskFull)]);
    assert!(session.store.disk_full());
    let of = |first| Sent { id: 8, ..sent(first, 1) };
    assert_eq!(send_wait(&session, &of(5)), Err(AppendError::DiskFull));
    assert_eq!(send_wait(&session, &of(6)), Err(AppendError::DiskFull));
    fs.set_capacity(None);
    let started = std::time::Instant::now();
    let refused = loop {
        match send_wait(&session, &of(6)) {
            Err(AppendError::DiskFull) if started.elapsed().as_secs() < 20 => std::thread::yield_now(),
            other => break other,
        }
    };
    assert_eq!(refused, Err(out_of_order(&of(6), 5)));
    assert_eq!(send_wait(&session, &of(5)).unwrap().base_offset, 0);
    assert_eq!(send_wait(&session, &of(6)).unwrap().base_offset, 1);
}

#[test]
fn a_producer_that_was_silent_for_long_is_forgotten() {
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let change = |options| {
        let clock = clock.clone();
        let clock: azulite_storage::store::Clock = Arc::new(move || clock.load(Ordering::Relaxed));
        Options { producer_expiration_ms: 500, clock, ..options }
    };
    let (fs, real, session) = bench(change);
    send_wait(&session, &sent(0, 2)).unwrap();
    clock.fetch_add(500, Ordering::Relaxed);
    assert!(send_wait(&session, &sent(0, 2)).unwrap().duplicate);
    let producers = |now_ms| session.store.producers(&session.partition(&name(0)), now_ms).unwrap().len();
    assert_eq!([producers(1_000_500), producers(1_000_501)], [1, 0]);
    clock.fetch_add(1, Ordering::Relaxed);
    let fresh = send_wait(&session, &sent(40, 1)).unwrap();
    assert_eq!((fresh.base_offset, fresh.duplicate), (2, false), "any sequence will do");
    session.store.close();
    drop(session);
    clock.fetch_add(501, Ordering::Relaxed);
    let session = Session::open(&fs, change(small_options(&Places::below(real.path())))).unwrap();
    let mut builder = BatchBuilder::default();
    builder.push(1, None, None);
    let append = Append { partition: session.partition(&name(1)), batch: builder.build().unwrap() };
    session.store.append_wait(Lane(1), vec![append]).unwrap();
    let started = std::time::Instant::now();
    while session.index_dump().unwrap().iter().any(|(keyspace, _, _)| keyspace == "producers") {
        assert!(started.elapsed().as_secs() < 10, "their rows go behind the first commit");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn more_producers_than_memory_holds_are_remembered() {
    let (fs, real, session) = bench(|options| Options { durability: Durability::None, ..options });
    let of = |id: i64, first: i32| Sent { id, ..sent(first, 1) };
    let many = 40_000;
    let mut waiting: Vec<_> = (0..many).map(|id| (id, send(&session, &[of(id, 0)], Codec::None))).collect();
    for (id, receiver) in waiting.drain(..) {
        assert_eq!(brief(receiver.recv().unwrap()).unwrap(), [(id, false)]);
    }
    for id in (0..many).step_by(997) {
        assert_eq!(send_wait(&session, &of(id, 0)).map(|a| (a.base_offset, a.duplicate)), Ok((id, true)));
        send_wait(&session, &of(id, 5)).unwrap_err();
    }
    let killed = fs.kill();
    drop(session);
    Places::below(real.path()).remove();
    let session = Session::open(&killed, small_options(&Places::below(real.path()))).unwrap();
    assert!(session.store.report().index_rebuilt);
    assert_eq!(session.store.producers(&session.partition(&name(0)), 0).unwrap().len(), 40_000);
    for id in (0..many).step_by(997) {
        assert_eq!(send_wait(&session, &of(id, 0)).map(|a| (a.base_offset, a.duplicate)), Ok((id, true)));
    }
}

#[test]
fn no_producer_id_is_given_twice() {
    let (mut fs, real, mut session) = bench(|options| options);
    let mut given = HashSet::new();
    for round in 0..6 {
        for _ in 0..[1, 999, 1001, 10, 2500, 1][round] {
            let id = session.store.init_producer_id().unwrap();
            assert!(id >= 0 && given.insert(id), "{id} again");
        }
        let cut = fs.kill().cut(u64::try_from(round).unwrap());
        drop(session);
        if round % 2 == 0 {
            Places::below(real.path()).remove();
        }
        fs = cut;
        session = Session::open(&fs, small_options(&Places::below(real.path()))).unwrap();
    }
    drop(session);
}
