use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::batch::{BatchBuilder, Records};
use crate::blob::BlobError;
use crate::blobs::Deleted;
use crate::fs::RealFs;
use crate::ids::{Offset, Sha256};
use crate::index::IndexRow;
use crate::maintenance::Now;
use crate::partition::Partition;
use crate::queue::{Append, Lane};
use crate::state::BlobRefKey;
use crate::store::Options;
use crate::topics::{NewTopic, Topic};

const SEGMENT: u64 = 32 << 10;

fn open(root: &Path) -> Store {
    let cleaner = CleanerOptions { interval: None, ..CleanerOptions::default() };
    let options = Options { segment_bytes: SEGMENT, cache_bytes: 0, cleaner, ..Options::new(root.to_owned()) };
    Store::open(Arc::new(RealFs), options).unwrap()
}

fn topic(store: &Store, name: &str, config: &[(&str, &str)]) -> Arc<Topic> {
    let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    store.create_topic(NewTopic { name: name.into(), partitions: 1, config }).unwrap()
}

/// One batch of one record of about `len` bytes.
fn append(store: &Store, partition: &Arc<Partition>, key: Option<&str>, value: Option<&str>, len: usize) -> Offset {
    let mut builder = BatchBuilder::default();
    let value = value.map(|value| format!("{value}{}", " ".repeat(len)));
    builder.push(1000, key.map(str::as_bytes), value.as_deref().map(str::as_bytes));
    let appends = vec![Append { partition: partition.clone(), batch: builder.build().unwrap() }];
    store.append_wait(Lane(1), appends).unwrap()[0].base_offset
}

/// Every record as offset, key and value; `-` for none.
fn read_all(store: &Store, partition: &Partition) -> Vec<(Offset, String, String)> {
    let offsets = partition.offsets();
    let (mut all, mut next) = (Vec::new(), offsets.log_start);
    while next < offsets.high_watermark {
        let batches = store.read(partition, next, 5000).unwrap();
        assert!(!batches.is_empty(), "nothing at {next} of {offsets:?}");
        for record in batches.iter().flat_map(|b| Records::of(b).unwrap()) {
            let record = record.unwrap();
            assert!(record.offset >= next || all.is_empty(), "offsets rise");
            next = record.offset + 1;
            let text = |bytes: Option<bytes::Bytes>| {
                bytes.map_or("-".to_owned(), |b| String::from_utf8(b.to_vec()).unwrap().trim_end().to_owned())
            };
            all.push((record.offset, text(record.key), text(record.value)));
        }
    }
    all.retain(|(offset, _, _)| *offset >= offsets.log_start);
    all
}

fn delete_below(store: &Store, partition: &Partition, offset: Offset) {
    let started = store.delete_records(&[(partition.name().clone(), Some(offset))]);
    assert_eq!(started, [Ok(offset)]);
    store.maintain(Now { wall_ms: 0, up_ms: 0 }).unwrap();
}

fn files(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join("log")).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The rows that are the same in an index built anew; time rows may lie elsewhere.
fn rows(store: &Store) -> Vec<IndexRow> {
    let mut rows = store.index_dump().unwrap();
    rows.retain(|row| row.0 != "time");
    rows
}

/// Closes the store, removes its index, opens it again; the rows must be what they were.
fn rebuilt(root: &Path, store: Store) -> Store {
    let before = rows(&store);
    drop(store);
    std::fs::remove_dir_all(root.join("index")).unwrap();
    let store = open(root);
    assert!(store.report().index_rebuilt);
    assert_eq!(store.report().damage, Vec::<String>::new());
    let after = rows(&store);
    let different = before.iter().zip(&after).find(|(a, b)| a != b);
    assert_eq!(different, None, "before and after the rebuild");
    assert_eq!(before.len(), after.len());
    store
}

#[test]
fn a_segment_below_the_log_start_is_unlinked_and_its_reader_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let t = topic(&store, "t", &[]);
    let p = &t.partitions[0];
    for n in 0..100 {
        append(&store, p, None, Some(&format!("v{n}")), 1000);
    }
    assert_eq!(store.clean(0).unwrap(), CleanReport::default(), "everything is alive");
    let before = files(dir.path());
    assert!(before.contains(&"00000002.seg".to_owned()), "{before:?}");
    let held = store.core.segments.open(SegmentNumber(2)).unwrap();
    delete_below(&store, p, 80);
    let report = store.clean(0).unwrap();
    assert!(report.unlinked >= 2 && report.freed_bytes > 50_000, "{report:?}");
    let after = files(dir.path());
    assert!(!after.contains(&"00000002.seg".to_owned()), "{after:?}");
    assert!(held.len().unwrap() > 0 && held.read_at(&mut [0], 0).unwrap() == 1);
    assert_eq!(read_all(&store, p).len(), 20);
    let store = rebuilt(dir.path(), store);
    let p = store.topic("t").unwrap().partitions[0].clone();
    assert_eq!(read_all(&store, &p).first().unwrap().0, 80);
    assert_eq!(append(&store, &p, None, Some("next"), 0), 100);
}

#[test]
fn everything_removed_leaves_the_end_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let p = topic(&store, "t", &[]).partitions[0].clone();
    for n in 0..60 {
        append(&store, &p, None, Some(&format!("v{n}")), 1000);
    }
    delete_below(&store, &p, 60);
    drop((store, p));
    let store = open(dir.path());
    // Moves the marker on, so that the segment it was in can go.
    topic(&store, "other", &[]);
    store.clean(0).unwrap();
    let store = rebuilt(dir.path(), store);
    drop(store);
    let store = open(dir.path());
    let p = store.topic("t").unwrap().partitions[0].clone();
    assert_eq!((p.offsets().log_start, p.offsets().high_watermark), (60, 60));
    assert_eq!(append(&store, &p, None, Some("next"), 0), 60);
    assert_eq!(read_all(&store, &p).len(), 1);
}

#[test]
fn a_sparse_segment_is_rewritten_by_what_dies_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let short = topic(&store, "short", &[("retention.ms", "1000")]).partitions[0].clone();
    let long = topic(&store, "long", &[("retention.ms", "-1")]).partitions[0].clone();
    for n in 0..100 {
        append(&store, &short, None, Some(&format!("s{n}")), 1000);
        append(&store, &long, Some("k"), Some(&format!("l{n}")), 200);
    }
    let wanted = read_all(&store, &long);
    delete_below(&store, &short, 95);
    let report = store.clean(0).unwrap();
    assert!(report.written >= 2 && report.unlinked >= 3, "{report:?}");
    assert_eq!(report.stuck, 0);
    let names = files(dir.path());
    assert!(!names.contains(&"00000001.seg".to_owned()), "{names:?}");
    assert_eq!(store.clean(0).unwrap(), CleanReport::default(), "one pass does it all");
    assert_eq!(read_all(&store, &long), wanted);
    assert_eq!(read_all(&store, &short).len(), 5);
    let mut store = rebuilt(dir.path(), store);
    // Again, with cleaned segments as sources.
    for round in 0..3 {
        let long = store.topic("long").unwrap().partitions[0].clone();
        for n in 0..20 {
            append(&store, &long, Some("k"), Some(&format!("m{round}-{n}")), 1000);
        }
        delete_below(&store, &long, 70 + round * 12);
        store.clean(0).unwrap();
        let at = 70 + usize::try_from(round).unwrap() * 12;
        assert_eq!(read_all(&store, &long)[..wanted.len() - at], wanted[at..], "round {round}");
        store = rebuilt(dir.path(), store);
    }
}

#[test]
fn an_index_that_lags_behind_is_brought_forward() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let short = topic(&store, "short", &[]).partitions[0].clone();
    let long = topic(&store, "long", &[("retention.ms", "-1")]).partitions[0].clone();
    for n in 0..100 {
        append(&store, &short, None, Some(&format!("s{n}")), 1000);
        append(&store, &long, Some("k"), Some(&format!("l{n}")), 200);
    }
    let wanted = read_all(&store, &long);
    delete_below(&store, &short, 95);
    drop((store, short, long));
    let copy = dir.path().join("copy");
    copy_tree(&dir.path().join("index"), &copy);
    let store = open(dir.path());
    topic(&store, "other", &[]);
    assert!(store.clean(0).unwrap().unlinked >= 3);
    let before = rows(&store);
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    copy_tree(&copy, &dir.path().join("index"));
    let store = open(dir.path());
    assert_eq!(store.report().damage, Vec::<String>::new());
    let long = store.topic("long").unwrap().partitions[0].clone();
    assert_eq!(read_all(&store, &long), wanted);
    store.maintain(Now { wall_ms: 0, up_ms: 0 }).unwrap();
    let after = rows(&store);
    assert_eq!(after.iter().zip(&before).find(|(a, b)| a != b), None);
    assert_eq!(after.len(), before.len());
    rebuilt(dir.path(), store);
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_read_stays_where_it_is_and_named() {
    for header in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let short = topic(&store, "short", &[]).partitions[0].clone();
        let long = topic(&store, "long", &[("retention.ms", "-1")]).partitions[0].clone();
        for n in 0..100 {
            append(&store, &short, None, Some(&format!("s{n}")), 1000);
            append(&store, &long, Some("k"), Some(&format!("l{n}")), 200);
        }
        store.core.pending.flush();
        let hit = store.core.index.batch(long.number(), 7).unwrap().unwrap();
        let path = store.core.segments.path(hit.segment());
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"xx", hit.position + if header { 30 } else { 100 }).unwrap();
        delete_below(&store, &short, 95);
        let report = store.clean(0).unwrap();
        assert_eq!(report.stuck, 1, "header {header}: {report:?}");
        assert!(path.exists());
        let got = store.read(&long, 7, 1);
        assert!(matches!(got, Err(crate::log::ReadError::Damaged { from: 7, end: 8, .. })), "got {got:?}");
        assert_eq!(store.read(&long, 8, 1).unwrap().len(), 1);
        drop((store, short, long));
        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        let store = open(dir.path());
        let named = store.report().damage.iter().filter(|line| line.starts_with("long-0 offsets 7 to 7 are lost"));
        assert_eq!(named.count(), 1, "header {header}: {:?}", store.report().damage);
        let long = store.topic("long").unwrap().partitions[0].clone();
        assert_eq!(store.read(&long, 8, 1).unwrap().len(), 1);
        assert_eq!(store.read(&long, 99, 1).unwrap().len(), 1);
    }
}

#[test]
fn damage_in_a_cleaned_segment_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let short = topic(&store, "short", &[]).partitions[0].clone();
    let long = topic(&store, "long", &[("retention.ms", "-1")]).partitions[0].clone();
    for n in 0..100 {
        append(&store, &short, None, Some(&format!("s{n}")), 1000);
        append(&store, &long, Some("k"), Some(&format!("l{n}")), 200);
    }
    delete_below(&store, &short, 95);
    store.clean(0).unwrap();
    let rows: Vec<_> = [3, 4].map(|o| store.core.index.batch(long.number(), o).unwrap().unwrap()).into();
    assert!(store.core.segments.is_cleaned(rows[0].segment()));
    let file = std::fs::OpenOptions::new().write(true).open(store.core.segments.path(rows[0].segment())).unwrap();
    file.write_all_at(b"xx", rows[0].position + 100).unwrap();
    file.write_all_at(b"xx", rows[1].position + 30).unwrap();
    for offset in [3, 4] {
        let got = store.read(&long, offset, 1);
        assert!(matches!(got, Err(crate::log::ReadError::Damaged { .. })), "got {got:?}");
    }
    drop((store, short, long));
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = open(dir.path());
    for offset in [3, 4] {
        let text = format!("long-0 offsets {offset} to {offset} are lost");
        assert_eq!(
            store.report().damage.iter().filter(|line| line.starts_with(&text)).count(),
            1,
            "{:?}",
            store.report()
        );
    }
    let long = store.topic("long").unwrap().partitions[0].clone();
    assert_eq!(store.read(&long, 5, 1).unwrap().len(), 1);
}

const COMPACT: (&str, &str) = ("cleanup.policy", "compact");
const DAY: i64 = 86_400_000;

/// Fills the segment being appended to, so that the one before is in reach.
fn roll(store: &Store) {
    let p = store.topic("filler").unwrap_or_else(|| topic(store, "filler", &[])).partitions[0].clone();
    for _ in 0..2 {
        append(store, &p, None, Some("x"), usize::try_from(SEGMENT).unwrap() - 1000);
    }
    store.core.pending.flush();
    store.core.keeper.settle();
}

#[test]
fn of_each_key_the_newest_record_stays_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let p = topic(&store, "t", &[COMPACT]).partitions[0].clone();
    for n in 0..100 {
        append(&store, &p, Some(&format!("k{}", n % 7)), Some(&format!("v{n}")), 1000);
    }
    append(&store, &p, None, Some("keyless"), 0);
    append(&store, &p, Some("last"), Some("1"), 0);
    append(&store, &p, Some("last"), Some("2"), 0);
    append(&store, &p, Some("end"), Some("x"), 0);
    roll(&store);
    let report = store.clean(0).unwrap();
    assert!(report.unlinked >= 3 && report.removed_records >= 94, "{report:?}");
    // State keys that were written twice are gone too.
    let left = |store: &Store| {
        let p = store.topic("t").unwrap().partitions[0].clone();
        read_all(store, &p).into_iter().map(|(o, k, v)| format!("{o} {k} {v}")).collect::<Vec<_>>()
    };
    let mut wanted: Vec<_> = (93..100).map(|n| format!("{n} k{} v{n}", n % 7)).collect();
    wanted.extend(["100 - keyless", "102 last 2", "103 end x"].map(str::to_owned));
    assert_eq!(left(&store), wanted);
    for from in [0, 50, 93] {
        let first = store.read(&p, from, 1).unwrap();
        assert_eq!(Records::of(&first[0]).unwrap().next().unwrap().unwrap().offset, 93, "from {from}");
    }
    assert_eq!(store.clean(0).unwrap(), CleanReport::default(), "one pass does it all");
    let mut store = rebuilt(dir.path(), store);
    assert_eq!(left(&store), wanted);
    for round in 0..4 {
        let p = store.topic("t").unwrap().partitions[0].clone();
        for n in 0..40 {
            append(&store, &p, Some(&format!("k{}", n % 5)), Some(&format!("w{round}-{n}")), 1000);
        }
        roll(&store);
        store.clean(0).unwrap();
        let left = left(&store);
        assert_eq!(left.len(), 11, "ten keys, and the last batch: round {round}: {left:?}");
        assert_eq!(store.clean(0).unwrap(), CleanReport::default(), "round {round}");
        store = rebuilt(dir.path(), store);
    }
    let names = files(dir.path());
    assert!(names.len() < 20, "{names:?}");
}

#[test]
fn a_tombstone_goes_when_it_has_been_seen_clean_long_enough() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let p = topic(&store, "t", &[COMPACT]).partitions[0].clone();
    for n in 0..40 {
        append(&store, &p, Some(&format!("k{}", n % 4)), Some(&format!("v{n}")), 1000);
    }
    append(&store, &p, Some("k1"), None, 0);
    append(&store, &p, Some("k2"), Some("after"), 0);
    append(&store, &p, Some("end"), Some("x"), 0);
    roll(&store);
    let now = 5 * DAY;
    store.clean(now).unwrap();
    let left = |store: &Store| {
        let p = store.topic("t").unwrap().partitions[0].clone();
        read_all(store, &p).into_iter().map(|(o, k, v)| format!("{o} {k} {v}")).collect::<Vec<_>>()
    };
    let all = ["36 k0 v36", "39 k3 v39", "40 k1 -", "41 k2 after", "42 end x"];
    assert_eq!(left(&store), all);
    store.clean(now + DAY - 1).unwrap();
    let store = rebuilt(dir.path(), store);
    store.clean(now + DAY - 1).unwrap();
    assert_eq!(left(&store), all);
    store.clean(now + DAY).unwrap();
    assert_eq!(left(&store), ["36 k0 v36", "39 k3 v39", "41 k2 after", "42 end x"]);
    assert_eq!(store.clean(now + 9 * DAY).unwrap(), CleanReport::default());
    rebuilt(dir.path(), store);
}

#[test]
fn no_tombstone_goes_by_a_clock_that_jumped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let start = crate::clock::now_ms();
    let maintain = |wall_ms, up_ms| store.maintain(Now { wall_ms, up_ms }).unwrap();
    let p = topic(&store, "t", &[COMPACT]).partitions[0].clone();
    let q = topic(&store, "q", &[COMPACT]).partitions[0].clone();
    let fill = |p: &Arc<Partition>| {
        for n in 0..40 {
            append(&store, p, Some(&format!("k{}", n % 4)), Some(&format!("v{n}")), 1000);
        }
        append(&store, p, Some("k1"), None, 0);
        append(&store, p, Some("k2"), Some("after"), 0);
        append(&store, p, Some("end"), Some("x"), 0);
    };
    let left = |p| read_all(&store, p).into_iter().map(|(o, k, v)| format!("{o} {k} {v}")).collect::<Vec<_>>();
    let tombstone = "40 k1 -".to_owned();
    fill(&p);
    roll(&store);
    maintain(start, 0);
    store.clean(start).unwrap();
    assert!(left(&p).contains(&tombstone));
    // Ten years in a minute of uptime. What is superseded goes all the same.
    let wrong = start + 3650 * DAY;
    maintain(wrong, 60_000);
    fill(&q);
    roll(&store);
    assert!(store.clean(wrong).unwrap().removed_records >= 36);
    assert_eq!((left(&p).contains(&tombstone), left(&q).contains(&tombstone)), (true, true));
    // Set right again: what was found meanwhile is aged from now on.
    maintain(start + 120_000, 120_000);
    store.clean(start + 120_000).unwrap();
    assert_eq!((left(&p).contains(&tombstone), left(&q).contains(&tombstone)), (true, true));
    let day_later = start + 120_000 + DAY;
    maintain(day_later, 120_000 + DAY);
    assert!(!store.retention_waits());
    store.clean(day_later).unwrap();
    assert_eq!((left(&p).contains(&tombstone), left(&q).contains(&tombstone)), (false, true));
    store.clean(day_later + DAY).unwrap();
    assert!(!left(&q).contains(&tombstone));
}

#[test]
fn a_pass_over_an_idle_store_reads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let p = topic(&store, "t", &[COMPACT, ("min.cleanable.dirty.ratio", "0.9")]).partitions[0].clone();
    let rows = || store.core.cleaner.memory.lock().unwrap().rows_looked_at;
    for n in 0..100 {
        append(&store, &p, Some(&format!("k{n}")), Some("v"), 1000);
    }
    roll(&store);
    assert!(store.clean(0).unwrap().read_bytes > 100_000, "everything is new");
    // Not enough of it is new to be compacted.
    for n in 0..50 {
        append(&store, &p, Some(&format!("k{n}")), Some("w"), 1000);
    }
    roll(&store);
    let first = rows();
    store.clean(0).unwrap();
    let second = rows();
    assert!(second - first > 30, "{}", second - first);
    for _ in 0..3 {
        assert_eq!(store.clean(0).unwrap(), CleanReport::default());
    }
    // One for each partition that can be compacted, to see whether more has come.
    let more = rows() - second;
    assert!(more <= 9, "{more} rows");
}

#[test]
fn each_tombstone_goes_in_its_own_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let p = topic(&store, "t", &[COMPACT, ("min.cleanable.dirty.ratio", "0")]).partitions[0].clone();
    let values = |store: &Store| read_all(store, &p).iter().filter(|(_, _, value)| value == "-").count();
    for round in 0..3 {
        for n in 0..10 {
            append(&store, &p, Some(&format!("k{}", n % 5)), Some("v"), 1000);
        }
        append(&store, &p, Some(&format!("gone{round}")), None, 0);
        append(&store, &p, Some("end"), Some("x"), 0);
        roll(&store);
        store.clean(round * DAY / 4).unwrap();
    }
    let left: Vec<_> = (3..8).map(|at| store.clean(at * DAY / 4).map(|_| values(&store)).unwrap()).collect();
    assert_eq!(left, [3, 2, 1, 0, 0]);
}

#[test]
fn young_records_wait_and_old_ones_do_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let config = [COMPACT, ("min.compaction.lag.ms", "500"), ("max.compaction.lag.ms", "2000")];
    let p = topic(&store, "t", &[config[0], config[1], config[2], ("min.cleanable.dirty.ratio", "1")]).partitions[0]
        .clone();
    for n in 0..10 {
        append(&store, &p, Some("k"), Some(&format!("v{n}")), 1000);
    }
    roll(&store);
    store.clean(1400).unwrap();
    assert_eq!(read_all(&store, &p).len(), 10, "younger than the lag");
    store.clean(1500).unwrap();
    assert_eq!(read_all(&store, &p).len(), 2, "the last batch stays, and the newest before it");
    for n in 0..10 {
        append(&store, &p, Some("k"), Some(&format!("w{n}")), 1000);
    }
    roll(&store);
    store.clean(2999).unwrap();
    let before = read_all(&store, &p).len();
    store.clean(3000).unwrap();
    assert_eq!((before, read_all(&store, &p).len()), (12, 2), "the ratio is not reached, the time is");
}

#[test]
fn records_come_within_reach_when_their_segment_is_not_full_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let p = topic(&store, "t", &[COMPACT, ("segment.ms", "5000")]).partitions[0].clone();
    for n in 0..10 {
        append(&store, &p, Some("k"), Some(&format!("v{n}")), 10);
    }
    store.clean(5999).unwrap();
    append(&store, &p, Some("l"), Some("x"), 10);
    store.clean(6000).unwrap();
    assert_eq!(read_all(&store, &p).len(), 11);
    append(&store, &p, Some("l"), Some("y"), 10);
    store.core.keeper.settle();
    store.clean(6000).unwrap();
    let left: Vec<_> = read_all(&store, &p).into_iter().map(|(_, _, v)| v).collect();
    assert_eq!(left, ["v9", "x", "y"]);
}

#[test]
fn many_keys_are_compacted_with_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let cleaner = CleanerOptions { interval: None, key_map_bytes: 64 * 20, ..CleanerOptions::default() };
    let options = Options { segment_bytes: SEGMENT, cleaner, ..Options::new(dir.path().to_owned()) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    let p = topic(&store, "t", &[COMPACT, ("min.cleanable.dirty.ratio", "0")]).partitions[0].clone();
    for n in 0..400 {
        append(&store, &p, Some(&format!("k{}", n % 100)), Some(&format!("v{n}")), 300);
    }
    roll(&store);
    store.clean(0).unwrap();
    let left: Vec<_> = read_all(&store, &p).into_iter().map(|(o, _, _)| o).collect();
    assert_eq!(left, (299..400).collect::<Vec<_>>(), "the last batch is out of reach");
    drop(p);
    rebuilt(dir.path(), store);
}

#[test]
fn compaction_goes_around_what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let p = topic(&store, "t", &[COMPACT]).partitions[0].clone();
    for n in 0..60 {
        append(&store, &p, Some(&format!("k{}", n % 5)), Some(&format!("v{n}")), 1000);
    }
    append(&store, &p, Some("end"), Some("x"), 0);
    roll(&store);
    let hit = store.core.index.batch(p.number(), 20).unwrap().unwrap();
    let path = store.core.segments.path(hit.segment());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"xx", hit.position + 100).unwrap();
    let report = store.clean(0).unwrap();
    assert_eq!((report.stuck, report.removed_records >= 54), (1, true), "{report:?}");
    for _ in 0..2 {
        let got = store.read(&p, 20, 1);
        assert!(matches!(got, Err(crate::log::ReadError::Damaged { from: 20, end: 21, .. })), "got {got:?}");
        let first = store.read(&p, 21, 1).unwrap();
        assert_eq!(Records::of(&first[0]).unwrap().next().unwrap().unwrap().offset, 55);
        store.clean(1).unwrap();
    }
    drop((store, p));
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = open(dir.path());
    assert_eq!(store.report().damage.len(), 1, "{:?}", store.report().damage);
    assert!(store.report().damage[0].starts_with("t-0 offsets 20 to 20 are lost"));
}

#[test]
fn compaction_goes_around_a_batch_that_does_not_decompress() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let p = topic(&store, "t", &[COMPACT]).partitions[0].clone();
    let fill = || {
        for n in 0..30 {
            append(&store, &p, Some(&format!("k{}", n % 5)), Some("v"), 1000);
        }
    };
    fill();
    // As it came in before the topic was compacted: nobody looked into it.
    let mut builder = BatchBuilder::default().codec(crate::compress::Codec::Zstd);
    builder.push(1000, Some(b"k1"), Some(&[7; 500]));
    let mut bytes = bytes::BytesMut::from(builder.build().unwrap().as_bytes());
    bytes[61..].fill(7);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let batch = crate::batch::CheckedBatch::check(bytes).unwrap();
    store.append_wait(Lane(1), vec![Append { partition: p.clone(), batch }]).unwrap();
    fill();
    append(&store, &p, Some("end"), Some("x"), 0);
    roll(&store);
    let report = store.clean(0).unwrap();
    assert!(report.removed_records >= 55, "{report:?}");
    assert_eq!(report.stuck, 0, "its frame is good");
    let kept = store.read(&p, 30, 1).unwrap();
    assert_eq!(crate::batch::BatchHeader::read(&kept[0]).unwrap().base_offset, 30);
    assert!(Records::of(&kept[0]).is_err());
    assert_eq!(store.offset_for_time(&p, 0).unwrap(), Some((30, 1000)), "it is the first that is left");
    assert_eq!(store.clean(0).unwrap(), CleanReport::default());
}

#[test]
fn the_thread_gives_room_back_beside_appends_and_ends_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let cleaner = CleanerOptions { interval: Some(Duration::from_millis(20)), ..CleanerOptions::default() };
    let options = Options { segment_bytes: SEGMENT, cleaner, ..Options::new(dir.path().to_owned()) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    let short = topic(&store, "short", &[]).partitions[0].clone();
    let long = topic(&store, "long", &[("retention.ms", "-1")]).partitions[0].clone();
    let start = std::time::Instant::now();
    let mut sent = 0;
    while files(dir.path()).contains(&"00000001.seg".to_owned()) {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", files(dir.path()));
        append(&store, &short, None, Some("s"), 1000);
        append(&store, &long, None, Some("l"), 100);
        sent += 1;
        delete_below(&store, &short, sent);
        assert!(store.read(&long, sent / 2, 1000).is_ok());
    }
    assert_eq!(read_all(&store, &long).len(), usize::try_from(sent).unwrap());
    assert_eq!(store.fatal(), None);
    drop((short, long));
    rebuilt(dir.path(), store);
}

#[test]
fn blobs_are_moved_together_and_read_on_and_leave_with_their_last_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = |n: u8| BlobRefKey { hash: Sha256([n; 32]), source: "lab".into(), label: "content".into() };
    let publish = |store: &Store, n: u8| {
        let mut staged = store.stage().unwrap();
        staged.write(&[n; 3000]).unwrap();
        store.publish(staged, &key(n), vec![]).unwrap();
    };
    let read = |store: &Store, n: u8| {
        let record = store.blob(&key(n)).unwrap().unwrap();
        let mut bytes = [0; 3000];
        assert_eq!(store.open_blob(key(n).hash, &record).unwrap().read_at(&mut bytes, 0).unwrap(), 3000);
        bytes == [n; 3000]
    };
    let delete = |store: &Store, key: &BlobRefKey| assert_eq!(store.delete_blob(key, None).unwrap(), Deleted::Removed);
    (0..60).for_each(|n| publish(&store, n));
    assert_eq!(store.clean(0).unwrap().written, 0, "everything is alive");
    let before = files(dir.path());
    let other = key(1);
    let other = BlobRefKey { source: "other".into(), ..other };
    assert!(store.copy_blob(&key(1), &other).unwrap());
    (0..60).filter(|n| n % 3 > 0).for_each(|n| delete(&store, &key(n)));
    let report = store.clean(0).unwrap();
    assert!(report.unlinked >= 2 && report.written >= 1 && report.stuck == 0, "{report:?}");
    let cleaned = files(dir.path()).into_iter().filter(|name| name.ends_with(".cln")).count();
    assert!(cleaned >= 1 && files(dir.path()).len() < before.len(), "{before:?} {:?}", files(dir.path()));
    let store = rebuilt(dir.path(), store);
    assert!((0..60).filter(|n| n % 3 == 0).all(|n| read(&store, n)));
    let record = store.blob(&other).unwrap().unwrap();
    assert_eq!(store.open_blob(key(1).hash, &record).unwrap().len(), 3000, "a second name keeps the bytes");
    // Stored again after it was deleted: the new frame counts, also in a rebuild.
    publish(&store, 2);
    let store = rebuilt(dir.path(), store);
    assert!(read(&store, 2));
    (0..60).filter(|n| n % 3 == 0 || *n == 2).for_each(|n| delete(&store, &key(n)));
    store.delete_blob(&other, None).unwrap();
    (100..120).for_each(|n| publish(&store, n));
    (100..120).for_each(|n| delete(&store, &key(n)));
    drop(store);
    let store = open(dir.path());
    topic(&store, "marker", &[]);
    store.clean(0).unwrap();
    let bytes = |name: &String| std::fs::metadata(dir.path().join("log").join(name)).unwrap().len();
    let sealed: u64 = files(dir.path()).iter().map(bytes).filter(|len| *len < SEGMENT).sum();
    assert!(sealed < 40_000, "{:?}", files(dir.path()).iter().map(bytes).collect::<Vec<_>>());
    let store = rebuilt(dir.path(), store);
    assert_eq!(rows(&store).iter().filter(|row| row.0 == "blobs").count(), 0);
}

#[test]
fn a_blob_frame_that_cannot_be_read_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = |n: u8| BlobRefKey { hash: Sha256([n; 32]), source: "lab".into(), label: "content".into() };
    for n in 0..40 {
        let mut staged = store.stage().unwrap();
        staged.write(&[n; 3000]).unwrap();
        store.publish(staged, &key(n), vec![]).unwrap();
    }
    assert_eq!(store.clean(0).unwrap().stuck, 0);
    let row = store.core.blob_row(key(0).hash).unwrap().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(store.core.segments.path(row.segment())).unwrap();
    file.write_all_at(b"x", row.position + 72 + 40 + 100).unwrap();
    (1..40).for_each(|n| assert_eq!(store.delete_blob(&key(n), None).unwrap(), Deleted::Removed));
    let report = store.clean(0).unwrap();
    assert!(report.stuck == 1 && report.unlinked >= 1, "{report:?}");
    let record = store.blob(&key(0)).unwrap().unwrap();
    let got = store.open_blob(key(0).hash, &record);
    assert!(
        matches!(&got, Err(BlobError::DamagedFrame { segment, position, .. })
            if *segment == row.segment() && *position == row.position),
        "got {got:?}"
    );
}
