use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::batch::BatchBuilder;
use crate::fs::RealFs;
use crate::queue::{Append, Lane};
use crate::store::{Options, Store};
use crate::topics::{CleanupPolicy, ConfigChange, NewTopic};

const T0: i64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn settings(retention_ms: Option<i64>, retention_bytes: Option<u64>) -> TopicSettings {
    TopicSettings { retention_ms, retention_bytes, ..TopicSettings::default() }
}

/// Batches of one record and 10 bytes each: own time and append time.
fn batches(times: &[(i64, i64)]) -> Vec<BatchAge> {
    let batch = |(next_offset, (own, seen)): (Offset, &(i64, i64))| BatchAge {
        next_offset,
        bytes: 10,
        max_timestamp: *own,
        append_time_ms: Some(*seen),
    };
    (1..).zip(times).map(batch).collect()
}

fn verdict(settings: &TopicSettings, now_ms: Option<i64>, batches: &[BatchAge], limit: usize) -> Verdict {
    let bytes = Some(batches.iter().map(|batch| batch.bytes).sum());
    let last_stable = batches.last().map_or(0, |batch| batch.next_offset);
    let grounds = Grounds { settings, now_ms, bytes, last_stable };
    decide(&grounds, batches.iter().copied().map(Ok::<_, Infallible>), limit).unwrap()
}

fn start(settings: &TopicSettings, now_ms: i64, batches: &[BatchAge]) -> Option<Offset> {
    verdict(settings, Some(now_ms), batches, usize::MAX).log_start
}

#[test]
fn a_batch_leaves_one_millisecond_after_its_time_and_takes_none_behind_it() {
    let all = batches(&[(100, 100), (200, 200), (150, 300)]);
    let settings = settings(Some(50), None);
    assert_eq!(start(&settings, 150, &all), None);
    assert_eq!(start(&settings, 151, &all), Some(1));
    assert_eq!(start(&settings, 201, &all), Some(1), "the second protects the third");
    assert_eq!(start(&settings, 251, &all), Some(3));
    assert_eq!(verdict(&settings, Some(201), &all, 9).due_ms, Some(250));
    assert_eq!(verdict(&settings, None, &all, 9).log_start, None, "an untrusted clock");
    let cut = verdict(&settings, Some(999), &all, 2);
    assert_eq!((cut.log_start, cut.looked_at, cut.more), (Some(2), 2, true));
}

#[test]
fn a_date_in_the_future_counts_from_when_it_was_seen_and_log_append_time_always_does() {
    let all = batches(&[(i64::MAX, 100), (0, 100), (-1, 100)]);
    let create = settings(Some(50), None);
    assert_eq!(start(&create, 150, &all), None);
    assert_eq!(start(&create, 151, &all), Some(3));
    assert_eq!(start(&create, 60, &all[1..]), Some(2), "a date in the past counts from itself");
    let append = TopicSettings { timestamp_type: TimestampType::LogAppend, ..create };
    assert_eq!(start(&append, 150, &all[1..]), None);
    assert_eq!(start(&append, 151, &all[1..]), Some(3));
}

#[test]
fn size_lets_the_oldest_go_down_to_the_bound_and_never_the_newest() {
    let all = batches(&[(1, 1); 5]);
    for (most, wanted) in [(50, None), (49, Some(1)), (30, Some(2)), (9, Some(4)), (0, Some(4))] {
        assert_eq!(start(&settings(None, Some(most)), 0, &all), wanted, "{most}");
    }
    assert_eq!(start(&settings(Some(5), Some(30)), 7, &all), Some(5), "whichever is stricter");
}

#[test]
fn what_is_not_stable_what_is_only_compacted_and_what_has_no_bound_stays() {
    let all = batches(&[(1, 1); 5]);
    let settings = settings(Some(5), None);
    let grounds = Grounds { settings: &settings, now_ms: Some(99), bytes: None, last_stable: 3 };
    let got = decide(&grounds, all.iter().copied().map(Ok::<_, Infallible>), 99).unwrap();
    assert_eq!(got.log_start, Some(3));
    let policy = |delete, compact| TopicSettings { cleanup: CleanupPolicy { delete, compact }, ..settings };
    assert_eq!(start(&policy(false, true), 99, &all), None);
    assert_eq!(start(&policy(false, false), 99, &all), None);
    assert_eq!(start(&policy(true, true), 99, &all), Some(5));
    assert_eq!(start(&TopicSettings { retention_ms: None, ..settings }, i64::MAX, &all), None);
}

#[test]
fn a_batch_of_unknown_age_goes_with_the_one_behind_it() {
    let mut all = batches(&[(1, 1), (9, 9), (90, 90)]);
    all[0] = BatchAge { max_timestamp: -1, append_time_ms: None, ..all[0] };
    let settings = settings(Some(5), None);
    assert_eq!(start(&settings, 14, &all), None);
    assert_eq!(start(&settings, 15, &all), Some(2));
    assert_eq!(start(&settings, 15, &all[..1]), None);
}

proptest! {
    /// The definition, word by word, against the one pass.
    #[test]
    fn the_one_pass_finds_what_the_definition_says(
        times in proptest::collection::vec((0_i64..100, 0_i64..60), 0..12),
        (age, most, now) in (proptest::option::of(0_i64..60), proptest::option::of(0_u64..130), 0_i64..160),
    ) {
        let all = batches(&times);
        let settings = settings(age, most);
        let due = |batch: &BatchAge| age.is_some_and(|age| batch.stamp(TimestampType::Create).unwrap() + age < now);
        let mut kept = &all[..];
        while let Some(first) = kept.first() {
            let bytes: u64 = kept.iter().map(|batch| batch.bytes).sum();
            if !(due(first) || kept.len() > 1 && most.is_some_and(|most| bytes > most)) {
                break;
            }
            kept = &kept[1..];
        }
        let gone = i64::try_from(all.len() - kept.len()).unwrap();
        prop_assert_eq!(start(&settings, now, &all), (gone > 0).then_some(gone));
        // In bites of any size it comes to the same.
        let (mut from, mut bites) = (0, 0);
        while let Some(next) = verdict(&settings, Some(now), &all[from..], 2).log_start {
            from = usize::try_from(next).unwrap();
            bites += 1;
        }
        prop_assert_eq!(from, all.len() - kept.len());
        prop_assert!(bites <= all.len());
    }
}

// From here on: a whole store in virtual time.

struct World {
    dir: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    opened_ms: i64,
    store: Option<Store>,
}

fn open(root: &Path, clock: &Arc<AtomicI64>) -> Store {
    let clock = clock.clone();
    let options = Options {
        segment_bytes: 1 << 20,
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        durability: crate::store::Durability::None,
        ..Options::new(root.to_owned())
    };
    Store::open(Arc::new(RealFs), options).unwrap()
}

impl World {
    fn new() -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(AtomicI64::new(T0)));
        let store = Some(open(dir.path(), &clock));
        Self { dir, clock, opened_ms: T0, store }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn sleep(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    fn reopen(&mut self) {
        self.store = None;
        self.opened_ms = self.now();
        self.store = Some(open(self.dir.path(), &self.clock));
        assert_eq!(self.store().report().damage, Vec::<String>::new());
    }

    fn create(&self, name: &str, config: &[(&str, &str)]) {
        let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.store().create_topic(NewTopic { name: name.into(), partitions: 1, config }).unwrap();
    }

    fn partition(&self, name: &str) -> Arc<Partition> {
        self.store().topic(name).unwrap().partitions[0].clone()
    }

    /// Appends one batch; its length.
    fn append(&self, name: &str, timestamps: &[i64], bytes: usize) -> u64 {
        let mut builder = BatchBuilder::default();
        timestamps.iter().for_each(|time| builder.push(*time, Some(b"k"), Some(&vec![7; bytes])));
        let batch = builder.build().unwrap();
        let len = u64::try_from(batch.len()).unwrap();
        self.store().append_wait(Lane(1), vec![Append { partition: self.partition(name), batch }]).unwrap();
        len
    }

    fn pass(&self) {
        let now = Now { wall_ms: self.now(), up_ms: self.now() - self.opened_ms };
        self.store().maintain(now).unwrap();
    }

    fn log_start(&self, name: &str) -> Offset {
        self.partition(name).offsets().log_start
    }
}

#[derive(Clone)]
struct Kept {
    next: Offset,
    stamp: i64,
    bytes: u64,
}

/// A topic of the model: what its configuration says, and its batches.
struct Modelled {
    name: &'static str,
    age: Option<i64>,
    most: Option<u64>,
    append_time: bool,
    kept: Vec<Kept>,
    end: Offset,
    log_start: Offset,
}

impl Modelled {
    fn pass(&mut self, now: i64) {
        while let Some(first) = self.kept.first() {
            let bytes: u64 = self.kept.iter().map(|batch| batch.bytes).sum();
            let too_old = self.age.is_some_and(|age| first.stamp + age < now);
            let too_much = self.kept.len() > 1 && self.most.is_some_and(|most| bytes > most);
            if !(too_old || too_much) {
                break;
            }
            self.log_start = first.next;
            self.kept.remove(0);
        }
    }
}

const TOPICS: [(&str, &[(&str, &str)]); 8] = [
    ("hours", &[("retention.ms", "43200000")]),
    ("days", &[]),
    ("month", &[("retention.ms", "2592000000"), ("retention.bytes", "200000")]),
    ("ever", &[("retention.ms", "-1")]),
    ("size", &[("retention.ms", "-1"), ("retention.bytes", "20000")]),
    ("compact", &[("cleanup.policy", "compact"), ("retention.ms", "1"), ("retention.bytes", "1")]),
    ("both", &[("cleanup.policy", "compact,delete"), ("retention.ms", "86400000")]),
    ("append", &[("message.timestamp.type", "LogAppendTime"), ("retention.ms", "86400000")]),
];

fn modelled((name, config): (&'static str, &[(&str, &str)])) -> Modelled {
    let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
    let settings = TopicSettings::read(&TopicSettings::default(), &config);
    let (age, most) = match settings.cleanup.delete {
        true => (settings.retention_ms, settings.retention_bytes),
        false => (None, None),
    };
    let append_time = settings.timestamp_type == TimestampType::LogAppend;
    Modelled { name, age, most, append_time, kept: Vec::new(), end: 0, log_start: 0 }
}

/// A year in steps of some hours: a pass, some batches with dates now, past and future, now and then another opening,
/// and at every step store and model say the same.
#[test]
fn a_year_of_mixed_topics_goes_as_the_model_says() {
    let mut world = World::new();
    let mut model = TOPICS.map(modelled);
    TOPICS.iter().for_each(|(name, config)| world.create(name, config));
    let mut random = 7_u64;
    let mut below = |bound: i64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(random >> 33).unwrap() % bound
    };
    while world.now() < T0 + 365 * DAY {
        world.sleep(below(20 * HOUR));
        for topic in &mut model {
            if below(3) > 0 {
                continue;
            }
            let count = 1 + below(4);
            let dates = [0, 0, 0, -below(9 * DAY), below(400 * DAY)];
            let date = dates[usize::try_from(below(5)).unwrap()];
            let times: Vec<_> = (0..count).map(|_| world.now() + date - below(HOUR)).collect();
            let bytes = world.append(topic.name, &times, usize::try_from(below(2000)).unwrap());
            let newest = *times.iter().max().unwrap();
            topic.end += count;
            let stamp = if topic.append_time { world.now() } else { newest.min(world.now()) };
            topic.kept.push(Kept { next: topic.end, stamp, bytes });
        }
        if below(60) == 0 {
            world.reopen();
        }
        world.pass();
        for topic in &mut model {
            topic.pass(world.now());
            let partition = world.partition(topic.name);
            let offsets = partition.offsets();
            let day = (world.now() - T0) / DAY;
            assert_eq!(
                (offsets.log_start, offsets.high_watermark),
                (topic.log_start, topic.end),
                "{} day {day}",
                topic.name
            );
            let bytes: u64 = topic.kept.iter().map(|batch| batch.bytes).sum();
            assert_eq!(partition.size_bytes(), bytes, "{} day {day}", topic.name);
        }
    }
    let swept = world.store().index_dump().unwrap().into_iter().filter(|row| row.0 == "log" && row.1[3] > 1);
    assert_eq!(swept.count(), model.iter().map(|topic| topic.kept.len()).sum::<usize>());
}

#[test]
fn log_starts_are_exact_after_another_opening_with_and_without_the_index() {
    let mut world = World::new();
    world.create("t", &[("retention.ms", "1000")]);
    for _ in 0..5 {
        world.append("t", &[world.now(), world.now() - 500], 10);
        world.sleep(600);
    }
    world.pass();
    assert_eq!(world.log_start("t"), 8);
    world.reopen();
    assert_eq!(world.log_start("t"), 8);
    world.store = None;
    std::fs::remove_dir_all(world.dir.path().join("index")).unwrap();
    world.reopen();
    assert_eq!(world.log_start("t"), 8);
    let partition = world.partition("t");
    assert_eq!(partition.exact_bytes(), None, "not counted yet");
    world.pass();
    assert_eq!(partition.exact_bytes(), Some(partition.size_bytes()));
}

#[test]
fn another_configuration_is_acted_upon_at_once() {
    let world = World::new();
    world.create("t", &[("retention.ms", "-1")]);
    for _ in 0..3 {
        world.append("t", &[world.now()], 1000);
        world.sleep(DAY);
    }
    world.pass();
    assert_eq!(world.log_start("t"), 0);
    let set = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned())));
        world.store().alter_config("t", ConfigChange::Set(pairs.collect())).unwrap();
    };
    set(&[("retention.ms", "172800000")]);
    world.pass();
    assert_eq!(world.log_start("t"), 1);
    set(&[("retention.ms", "-1"), ("retention.bytes", "1500")]);
    world.pass();
    assert_eq!(world.log_start("t"), 2);
}

#[test]
fn a_clock_that_jumps_ages_nothing_off_for_a_day_but_size_goes_on() {
    let mut world = World::new();
    world.create("age", &[]);
    world.create("size", &[("retention.bytes", "1500")]);
    world.append("age", &[T0], 1000);
    world.append("size", &[T0], 1000);
    world.pass();
    assert!(!world.store().retention_waits());
    // Ten years in a second of uptime.
    world.sleep(3650 * DAY);
    world.opened_ms += 3650 * DAY - 1000;
    world.append("size", &[T0], 1000);
    world.pass();
    assert!(world.store().retention_waits());
    assert_eq!((world.log_start("age"), world.log_start("size")), (0, 1));
    world.sleep(DAY - 2000);
    world.reopen();
    assert!(world.store().retention_waits(), "a restart does not make the clock right");
    world.pass();
    world.sleep(DAY - 1);
    world.pass();
    assert_eq!(world.log_start("age"), 0);
    world.sleep(1);
    world.pass();
    assert!(!world.store().retention_waits());
    assert_eq!(world.log_start("age"), 1);
    world.reopen();
    assert!(!world.store().retention_waits());
}

#[test]
fn a_start_long_after_the_newest_record_waits() {
    let mut world = World::new();
    world.create("age", &[]);
    world.append("age", &[T0], 10);
    world.sleep(31 * DAY);
    world.reopen();
    world.pass();
    assert!(world.store().retention_waits());
    assert_eq!(world.log_start("age"), 0);
}

#[test]
fn the_thread_does_what_a_pass_by_hand_does() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { maintenance: Some(Duration::from_millis(20)), ..Options::new(dir.path().to_owned()) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    let config = BTreeMap::from([("retention.ms".to_owned(), "0".to_owned())]);
    let topic = store.create_topic(NewTopic { name: "t".into(), partitions: 1, config }).unwrap();
    let mut builder = BatchBuilder::default();
    builder.push(5, None, Some(b"v"));
    let append = Append { partition: topic.partitions[0].clone(), batch: builder.build().unwrap() };
    store.append_wait(Lane(1), vec![append]).unwrap();
    let began = std::time::Instant::now();
    while topic.partitions[0].offsets().log_start == 0 || topic.partitions[0].size_bytes() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "nothing happened");
        std::thread::sleep(Duration::from_millis(5));
    }
    store.delete_topic("t").unwrap();
    store.close();
}

#[test]
fn five_thousand_partitions_with_nothing_due_are_not_looked_at_again() {
    let mut retention = Retention::new(None);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Arc::new(AtomicI64::new(T0)));
    let new = NewTopic { name: "t".into(), partitions: 5000, config: BTreeMap::new() };
    let topic = store.create_topic(new).unwrap();
    topic.partitions.iter().for_each(|partition| partition.restore(0, 10, None));
    let now = Now { wall_ms: T0, up_ms: 0 };
    let looked = |log_start| Looked {
        log_start,
        due_ms: Some(T0 + DAY),
        not_before_ms: 5000,
        at_latest_ms: 300_000,
        uncounted: false,
    };
    retention.looked = topic.partitions.iter().map(|p| (p.number(), looked(0))).collect::<HashMap<_, _>>();
    assert_eq!(retention.list(&store.core, now, Some(T0)).len(), 0);
    retention.looked.insert(topic.partitions[9].number(), looked(3));
    assert_eq!(retention.list(&store.core, now, Some(T0)).len(), 1, "its log start moved meanwhile");
    assert_eq!(retention.list(&store.core, Now { up_ms: 5000, ..now }, Some(T0 + DAY + 1)).len(), 5000, "due");
    assert_eq!(retention.list(&store.core, Now { up_ms: 4999, ..now }, Some(T0 + DAY + 1)).len(), 1, "too often");
    assert_eq!(retention.list(&store.core, Now { up_ms: 300_000, ..now }, None).len(), 5000, "at the latest");
}
