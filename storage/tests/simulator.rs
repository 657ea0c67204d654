//! The test disk itself: what it must keep in a power cut, and that it does lose what it may lose.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests: a panic is how they fail")]

mod support;

use azulite_storage::fs::{Fs, FsFile, create_dir_durably, read_small, replace_durably};
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use support::recorder::{RecordingFs, check_ack};
use support::sim_fs::SimFs;
use support::sim_nodes::SECTOR;

const CUTS: u64 = 300;

fn write(file: &Arc<dyn FsFile>, position: u64, bytes: &[u8]) {
    file.write_all_at(&mut [IoSlice::new(bytes)], position).unwrap();
}

fn read(fs: &SimFs, path: &str) -> Vec<u8> {
    read_small(fs, Path::new(path), 1 << 20).unwrap()
}

fn exists(fs: &SimFs, path: &str) -> bool {
    fs.meta(Path::new(path)).unwrap().is_some()
}

/// A disk with the file `/f`, durable in name and content.
fn disk_with(content: &[u8]) -> (SimFs, Arc<dyn FsFile>) {
    let fs = SimFs::new(1);
    let file = fs.create(Path::new("/f")).unwrap();
    write(&file, 0, content);
    file.sync_data().unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    (fs, file)
}

#[test]
fn synced_content_under_a_synced_name_survives_every_cut() {
    for seed in 0..CUTS {
        let (fs, _file) = disk_with(b"kept");
        assert_eq!(read(&fs.cut(seed), "/f"), b"kept");
    }
}

#[test]
fn calls_after_a_cut_fail_on_every_handle() {
    let (fs, file) = disk_with(b"x");
    let _next = fs.cut(0);
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(file.write_all_at(&mut [IoSlice::new(b"y")], 0).is_err());
    assert!(file.sync_data().is_err());
    assert!(fs.open_read(Path::new("/f")).is_err());
    assert!(fs.create(Path::new("/g")).is_err());
    assert!(fs.meta(Path::new("/f")).is_err());
}

#[test]
fn unsynced_writes_are_kept_lost_or_torn_at_sectors() {
    let mut seen = BTreeSet::new();
    for seed in 0..CUTS {
        let (fs, file) = disk_with(&[b'a'; 3 * SECTOR]);
        write(&file, 0, &[b'b'; 3 * SECTOR]);
        let found = read(&fs.cut(seed), "/f");
        let sectors = found.chunks(SECTOR).map(|sector| {
            assert!(sector.iter().all(|b| *b == sector[0]), "seed {seed}: a sector is torn inside");
            sector[0]
        });
        seen.insert(sectors.collect::<Vec<_>>());
    }
    assert_eq!(seen.len(), 8, "all combinations of three sectors");
}

#[test]
fn later_write_can_survive_an_earlier_lost_one() {
    let survivors = (0..CUTS).filter(|seed| {
        let (fs, file) = disk_with(&[0; 2 * SECTOR]);
        write(&file, 0, b"first");
        write(&file, 512, b"second");
        let found = read(&fs.cut(*seed), "/f");
        found[0] == 0 && &found[SECTOR..SECTOR + 6] == b"second"
    });
    assert!(survivors.count() > 10);
}

#[test]
fn size_and_content_are_kept_independently() {
    let mut seen = BTreeSet::new();
    for seed in 0..CUTS {
        let (fs, file) = disk_with(b"");
        write(&file, 0, &[b'x'; 2 * SECTOR]);
        let found = read(&fs.cut(seed), "/f");
        seen.insert((found.len(), found.iter().filter(|b| **b == b'x').count()));
    }
    let whole = 2 * SECTOR;
    for wanted in [(0, 0), (whole, 0), (whole, SECTOR), (whole, whole)] {
        assert!(seen.contains(&wanted), "{wanted:?} never happened");
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn lost_truncation_brings_the_old_end_back() {
    let lengths = (0..CUTS).map(|seed| {
        let (fs, file) = disk_with(&[b'x'; 1000]);
        file.set_len(10).unwrap();
        read(&fs.cut(seed), "/f").len()
    });
    assert_eq!(lengths.collect::<BTreeSet<_>>(), BTreeSet::from([10, 1000]));
}

#[test]
fn file_whose_name_was_not_synced_can_vanish() {
    let found = (0..CUTS).map(|seed| {
        let fs = SimFs::new(1);
        let file = fs.create(Path::new("/f")).unwrap();
        write(&file, 0, b"x");
        file.sync_data().unwrap();
        let fs = fs.cut(seed);
        exists(&fs, "/f").then(|| read(&fs, "/f"))
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), BTreeSet::from([None, Some(b"x".to_vec())]));
}

#[test]
fn rename_in_one_directory_is_whole_or_not_at_all() {
    let mut seen = BTreeSet::new();
    for seed in 0..CUTS {
        let (fs, _file) = disk_with(b"old");
        let new = fs.create(Path::new("/g")).unwrap();
        write(&new, 0, b"new");
        new.sync_data().unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        fs.rename(Path::new("/g"), Path::new("/f")).unwrap();
        let fs = fs.cut(seed);
        seen.insert((read(&fs, "/f"), exists(&fs, "/g")));
    }
    assert_eq!(seen, BTreeSet::from([(b"old".to_vec(), true), (b"new".to_vec(), false)]));
}

#[test]
fn rename_between_directories_needs_both_syncs() {
    let outcomes = |sync_target: bool, sync_source: bool| {
        let mut seen = BTreeSet::new();
        for seed in 0..CUTS {
            let fs = SimFs::new(1);
            for dir in ["/a", "/b"] {
                create_dir_durably(&fs, Path::new(dir)).unwrap();
            }
            let file = fs.create(Path::new("/a/f")).unwrap();
            file.sync_data().unwrap();
            fs.sync_dir(Path::new("/a")).unwrap();
            fs.rename(Path::new("/a/f"), Path::new("/b/f")).unwrap();
            if sync_target {
                fs.sync_dir(Path::new("/b")).unwrap();
            }
            if sync_source {
                fs.sync_dir(Path::new("/a")).unwrap();
            }
            let fs = fs.cut(seed);
            seen.insert((exists(&fs, "/a/f"), exists(&fs, "/b/f")));
        }
        seen
    };
    assert_eq!(outcomes(false, false).len(), 4);
    assert_eq!(outcomes(true, false), BTreeSet::from([(true, true), (false, true)]));
    assert_eq!(outcomes(true, true), BTreeSet::from([(false, true)]));
}

#[test]
fn operations_on_one_name_keep_their_order() {
    for seed in 0..CUTS {
        let fs = SimFs::new(1);
        let file = fs.create(Path::new("/f.tmp")).unwrap();
        file.sync_data().unwrap();
        fs.rename(Path::new("/f.tmp"), Path::new("/f")).unwrap();
        fs.remove_file(Path::new("/f")).unwrap();
        let fs = fs.cut(seed);
        assert!(!(exists(&fs, "/f.tmp") && exists(&fs, "/f")), "seed {seed}");
    }
}

#[test]
fn directory_whose_name_was_not_synced_takes_what_is_in_it_along() {
    let found = (0..CUTS).map(|seed| {
        let fs = SimFs::new(1);
        fs.create_dir(Path::new("/d")).unwrap();
        let file = fs.create(Path::new("/d/f")).unwrap();
        file.sync_data().unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        let fs = fs.cut(seed);
        (exists(&fs, "/d"), exists(&fs, "/d/f"))
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), BTreeSet::from([(false, false), (true, true)]));
}

#[test]
fn durable_replacement_is_always_old_or_new() {
    for seed in 0..CUTS {
        let (fs, _file) = disk_with(b"old");
        fs.cut_after(seed % 6 + 1);
        let result = replace_durably(&fs, Path::new("/f"), b"new");
        let found = read(&fs.cut(seed), "/f");
        assert!(found == b"new" || (found == b"old" && result.is_err()), "seed {seed}: {found:?} after {result:?}");
    }
}

#[test]
fn armed_cut_ends_the_session_in_that_call() {
    let (fs, file) = disk_with(b"x");
    fs.cut_after(2);
    write(&file, 0, b"y");
    assert!(file.sync_data().is_err());
    assert!(fs.is_off());
}

#[test]
fn kill_loses_nothing_but_a_later_cut_may() {
    let mut seen = BTreeSet::new();
    for seed in 0..CUTS {
        let (fs, file) = disk_with(b"old");
        write(&file, 0, b"new");
        let fs = fs.kill();
        assert_eq!(read(&fs, "/f"), b"new");
        seen.insert(read(&fs.cut(seed), "/f"));
    }
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
}

#[test]
fn failed_sync_loses_what_reads_still_show_and_the_next_one_is_silent() {
    let mut seen = BTreeSet::new();
    for seed in 0..CUTS {
        let fs = SimFs::new(seed);
        let file = fs.create(Path::new("/f")).unwrap();
        write(&file, 0, b"old");
        file.sync_data().unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        write(&file, 0, b"new");
        fs.fail_sync(1);
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
        assert_eq!(read(&fs, "/f"), b"new");
        file.sync_data().unwrap();
        seen.insert(read(&fs.cut(seed), "/f"));
    }
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
}

#[test]
fn full_disk_refuses_writes_but_not_into_reserved_room() {
    let fs = SimFs::new(1);
    fs.set_capacity(Some(1000));
    let file = fs.create(Path::new("/f")).unwrap();
    file.allocate(800).unwrap();
    assert_eq!(fs.room(Path::new("/")).unwrap().free, 200);
    let other = fs.create(Path::new("/g")).unwrap();
    let refused = other.write_all_at(&mut [IoSlice::new(&[1; 300])], 0).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert_eq!(other.allocate(201).unwrap_err().kind(), io::ErrorKind::StorageFull);
    write(&file, 0, &[2; 800]);
    drop(other);
    fs.remove_file(Path::new("/g")).unwrap();
    assert_eq!(fs.room(Path::new("/")).unwrap().free, 200);
}

#[test]
fn failed_write_leaves_a_prefix_and_the_next_one_works() {
    let (fs, file) = disk_with(&[b'a'; 100]);
    fs.fail_write(1);
    let refused = file.write_all_at(&mut [IoSlice::new(&[b'b'; 100])], 0).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    let found = read(&fs, "/f");
    let written = found.iter().take_while(|b| **b == b'b').count();
    assert!(written < 100 && found[written..].iter().all(|b| *b == b'a'));
    write(&file, 0, &[b'c'; 100]);
    assert_eq!(read(&fs, "/f"), [b'c'; 100]);
}

#[test]
fn open_file_is_read_across_its_removal() {
    let (fs, file) = disk_with(b"still here");
    fs.remove_file(Path::new("/f")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let mut buf = [0; 10];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 10);
    assert_eq!(&buf, b"still here");
}

#[test]
fn lock_is_held_once_and_released_by_drop_kill_and_cut() {
    let fs = SimFs::new(1);
    let lock = fs.lock(Path::new("/LOCK")).unwrap();
    lock.describe("pid 1").unwrap();
    assert_eq!(fs.lock(Path::new("/LOCK")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(read(&fs, "/LOCK"), b"pid 1");
    drop(lock);
    let _lock = fs.lock(Path::new("/LOCK")).unwrap();
    let fs = fs.kill();
    let _lock = fs.lock(Path::new("/LOCK")).unwrap();
    fs.cut(1).lock(Path::new("/LOCK")).unwrap();
}

#[test]
fn same_seed_gives_the_same_cut() {
    let image = |seed| {
        let (fs, file) = disk_with(&[0; 10 * SECTOR]);
        write(&file, 100, &[7; 8 * SECTOR]);
        read(&fs.cut(seed), "/f")
    };
    for seed in 0..20 {
        assert_eq!(image(seed), image(seed));
    }
}

#[test]
fn recorder_sees_an_acknowledgement_before_its_sync() {
    let steps = |ack_at: usize, sync_dir: bool| {
        let fs = RecordingFs::new(Arc::new(SimFs::new(1)));
        let file = fs.create(Path::new("/f.tmp")).unwrap();
        fs.rename(Path::new("/f.tmp"), Path::new("/f")).unwrap();
        if sync_dir {
            fs.sync_dir(Path::new("/")).unwrap();
        }
        for at in 0..3 {
            if at == ack_at {
                fs.ack("a");
            }
            match at {
                0 => file.write_all_at(&mut [IoSlice::new(b"--needle--")], 0).unwrap(),
                1 => file.sync_data().unwrap(),
                _ => {}
            }
        }
        check_ack(&fs.events(), "a", b"needle")
    };
    assert!(steps(0, true).unwrap_err().contains("before it was written"));
    assert!(steps(1, true).unwrap_err().contains("without a sync"));
    assert!(steps(2, false).unwrap_err().contains("directory was not synced"));
    assert_eq!(steps(2, true), Ok(()));
}

mod ledger {
    use super::support::ledger::{Found, Ledger, Line, Register};
    use azulite_storage::ids::TopicPartition;
    use std::collections::BTreeMap;

    fn line(value: &str) -> Line {
        Line { key: None, value: Some(value.into()), timestamp: 1 }
    }

    fn partition(index: i32) -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: index }
    }

    fn found(partitions: &[&[&str]]) -> BTreeMap<TopicPartition, Vec<Found>> {
        let records = |values: &[&str]| (0..).zip(values).map(|(offset, v)| Found { offset, line: line(v) }).collect();
        (0..).zip(partitions).map(|(index, values)| (partition(index), records(values))).collect()
    }

    /// "a" promised in partition 0, then "b", "c" to 0 and "d" to 1 in one request without a reply, then "e" to 0.
    fn sent() -> Ledger {
        let mut ledger = Ledger::default();
        let first = ledger.send(&[(partition(0), vec![line("a")])]);
        ledger.promise(first, &[(partition(0), 0)]);
        ledger.send(&[(partition(0), vec![line("b"), line("c")]), (partition(1), vec![line("d")])]);
        ledger.send(&[(partition(0), vec![line("e")])]);
        ledger
    }

    #[test]
    fn whole_requests_may_be_there_or_not() {
        for good in
            [[&["a"][..], &[][..]], [&["a", "b", "c"], &["d"]], [&["a", "e"], &[]], [&["a", "b", "c", "e"], &["d"]]]
        {
            assert_eq!(sent().settle(&found(&good)), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn lost_torn_reordered_and_invented_records_are_found() {
        for (bad, wanted) in [
            ([&[][..], &[][..]], "was acknowledged at offset 0"),
            ([&["b", "c"], &["d"]], "was acknowledged at offset 0"),
            ([&["a", "b"], &["d"]], "1 of 2 records"),
            ([&["a", "b", "c"], &[]], "in part only"),
            ([&["a"], &["d"]], "in part only"),
            ([&["a", "e", "b", "c"], &["d"]], "never sent"),
            ([&["a", "x"], &[]], "never sent"),
        ] {
            let got = sent().settle(&found(&bad)).unwrap_err();
            assert!(got.contains(wanted), "{bad:?}: {got}");
        }
    }

    #[test]
    fn what_was_once_gone_must_not_come_back() {
        let mut ledger = sent();
        ledger.settle(&found(&[&["a"], &[]])).unwrap();
        assert!(ledger.settle(&found(&[&["a", "e"], &[]])).unwrap_err().contains("never sent"));
        let mut ledger = sent();
        ledger.settle(&found(&[&["a", "e"], &[]])).unwrap();
        assert!(ledger.settle(&found(&[&["a"], &[]])).unwrap_err().contains("acknowledged at offset 1"));
    }

    #[test]
    fn register_takes_over_what_was_found() {
        let mut register = Register::new(1);
        register.attempt(2);
        register.attempt(3);
        assert!(register.clone().settle(4).is_err());
        register.settle(2).unwrap();
        assert!(register.settle(1).is_err());
    }
}
