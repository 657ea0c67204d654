use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::batch::{BatchBuilder, CheckedBatch, Records};
use crate::blobs::Deleted;
use crate::compress::Codec;
use crate::fs::RealFs;
use crate::ids::{Sha256, TopicPartition};
use crate::offsets::CommittedOffset;
use crate::partition::Partition;
use crate::state::BlobRefKey;
use crate::topics::NewTopic;

fn open(root: &Path) -> Store {
    let options = Options { segment_bytes: 1 << 20, ..Options::new(root.to_owned()) };
    Store::open(Arc::new(RealFs), options).unwrap()
}

fn topic(name: &str) -> NewTopic {
    NewTopic { name: name.into(), partitions: 2, config: BTreeMap::new() }
}

fn batch(values: &[&str]) -> CheckedBatch {
    let mut builder = BatchBuilder::default();
    for (time, value) in (100..).zip(values) {
        builder.push(time, Some(b"k"), Some(value.as_bytes()));
    }
    builder.build().unwrap()
}

fn append(store: &Store, partition: &Arc<Partition>, values: &[&str]) -> Offset {
    let appends = vec![Append { partition: partition.clone(), batch: batch(values) }];
    store.append_wait(Lane(1), appends).unwrap()[0].base_offset
}

fn read_all(store: &Store, partition: &Partition, mut from: Offset) -> Vec<(Offset, String)> {
    let mut all = Vec::new();
    loop {
        let batches = store.read(partition, from, 100).unwrap();
        if batches.is_empty() {
            return all;
        }
        for record in batches.iter().flat_map(|b| Records::of(b).unwrap()) {
            let record = record.unwrap();
            from = record.offset + 1;
            all.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
    }
}

#[test]
fn a_batch_for_one_offset_is_taken_there_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let t = store.create_topic(topic("t")).unwrap();
    let [one, other] = [0, 1].map(|index: usize| t.partitions[index].clone());
    append(&store, &one, &["a", "b"]);
    let late = Append { partition: one.clone(), batch: batch(&["late"]).only_at(1) };
    let with_it = Append { partition: other.clone(), batch: batch(&["x"]) };
    let partition = one.name().clone();
    let refused = store.append_wait(Lane(1), vec![with_it, late]).unwrap_err();
    assert_eq!(refused, AppendError::Moved { partition, expected: 1, next: 2 });
    let early = Append { partition: one.clone(), batch: batch(&["early"]).only_at(3) };
    assert!(matches!(store.append_wait(Lane(1), vec![early]), Err(AppendError::Moved { next: 2, .. })));
    let due = Append { partition: one.clone(), batch: batch(&["c"]).only_at(2) };
    assert_eq!(store.append_wait(Lane(1), vec![due]).unwrap()[0].base_offset, 2);
    assert_eq!(append(&store, &one, &["d"]), 3);
    assert_eq!(read_all(&store, &one, 0).len(), 4);
    assert_eq!(append(&store, &other, &["first"]), 0, "nothing else of a refused request is taken");
}

#[test]
fn of_many_that_want_one_offset_one_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let t = store.create_topic(topic("t")).unwrap();
    let partition = &t.partitions[0];
    let try_at = |lane: u64, offset| {
        let append = Append { partition: partition.clone(), batch: batch(&["v"]).only_at(offset) };
        store.append_wait(Lane(lane), vec![append]).is_ok()
    };
    let won: usize = std::thread::scope(|scope| {
        let racers: Vec<_> =
            (0..8).map(|lane| scope.spawn(move || (0..50).filter(|offset| try_at(lane, *offset)).count())).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!(won, read_all(&store, partition, 0).len());
    assert!((1..=50).contains(&won), "{won}");
}

#[test]
fn records_groups_and_topics_survive_close_and_drop() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let t = store.create_topic(topic("t")).unwrap();
    assert_eq!(append(&store, &t.partitions[1], &["a", "b"]), 0);
    assert_eq!(append(&store, &t.partitions[1], &["c"]), 2);
    let place = TopicPartition { topic: "t".into(), partition: 1 };
    let committed = CommittedOffset { offset: 2, leader_epoch: 0, metadata: "m".into(), commit_time_ms: 5 };
    let changes = vec![(place.clone(), Some(committed.clone()))];
    store.commit_offsets_wait("g", &changes, vec![(b"x".to_vec(), Some("y".into()))]).unwrap();
    drop((store, t));
    for _ in 0..3 {
        let store = open(dir.path());
        let t = store.topic("t").unwrap();
        let all = [(0, "a".to_owned()), (1, "b".into()), (2, "c".into())];
        assert_eq!(read_all(&store, &t.partitions[1], 0), all);
        assert_eq!(read_all(&store, &t.partitions[1], 2), all[2..]);
        assert_eq!(store.committed("g", &place).unwrap(), Some(committed.clone()));
        assert_eq!(store.groups().unwrap(), ["g".to_owned()].into());
        assert_eq!(store.kv(b"x").unwrap().unwrap(), "y");
        assert_eq!(store.report().replayed_commits, 0, "a clean close leaves nothing to replay");
        assert_eq!(store.report().damage, Vec::<String>::new());
    }
}

#[test]
fn values_are_paged_in_order_of_name_whether_applied_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let name = |n: usize| format!("p{n:03}").into_bytes();
    let all = |store: &Store| {
        let (mut names, mut after) = (Vec::new(), None::<Bytes>);
        loop {
            let page = store.kv_page(b"p", after.as_deref(), 7).unwrap();
            after = page.last().map(|(name, _)| name.clone());
            names.extend(page.iter().map(|(name, value)| (name.to_vec(), value.to_vec())));
            if page.len() < 7 {
                return names;
            }
        }
    };
    let put = |n: usize, value: Option<&'static str>| (name(n), value.map(Bytes::from));
    store.put_kv((0..40).map(|n| put(n, Some("a"))).chain([(b"o".to_vec(), Some("x".into()))]).collect()).unwrap();
    assert_eq!(all(&store).len(), 40);
    store.index_dump().unwrap();
    store.put_kv((10..30).map(|n| put(n, None)).collect()).unwrap();
    store.put_kv(vec![put(12, Some("b")), put(50, Some("b")), (b"q".to_vec(), Some("x".into()))]).unwrap();
    let want = |n: usize| (name(n), if n == 12 || n == 50 { b"b".to_vec() } else { b"a".to_vec() });
    let wanted: Vec<_> = (0..10).chain([12]).chain(30..40).chain([50]).map(want).collect();
    assert_eq!(all(&store), wanted);
    store.index_dump().unwrap();
    assert_eq!(all(&store), wanted);
    assert_eq!(store.kv_page(b"none", None, 7).unwrap(), []);
}

#[test]
fn values_are_committed_with_the_records_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let t = store.create_topic(topic("t")).unwrap();
    let append = |value: Option<Bytes>| {
        let mut batch = BatchBuilder::default();
        batch.push(0, Some(b"k"), Some(b"v"));
        let append = Append { partition: t.partitions[0].clone(), batch: batch.build().unwrap() };
        wait(|done| store.append_with(Lane(1), vec![append], vec![(b"x".to_vec(), value)], done))
    };
    assert_eq!(append(Some("1".into())).unwrap().len(), 1, "only the caller's own batches are reported");
    assert_eq!(store.kv(b"x").unwrap().unwrap(), "1");
    store.delete_topic("t").unwrap();
    assert!(matches!(append(None), Err(AppendError::Gone { .. })));
    assert_eq!(store.kv(b"x").unwrap().unwrap(), "1");
}

#[test]
fn a_deleted_index_and_catalogue_are_rebuilt_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let hash = Sha256([7; 32]);
    let key = BlobRefKey { hash, source: "lab".into(), label: "content".into() };
    let store = open(dir.path());
    let t = store.create_topic(topic("t")).unwrap();
    for round in 0..50 {
        append(&store, &t.partitions[round % 2], &["x".repeat(round * 900).as_str(), "y"]);
    }
    let mut staged = store.stage().unwrap();
    staged.write(b"hello").unwrap();
    store.publish(staged, &key, vec![9]).unwrap();
    let before = store.index_dump().unwrap();
    assert_eq!(before.iter().filter(|row| row.0 == "log").count(), 52);
    drop((store, t));
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    std::fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    let store = open(dir.path());
    assert!(store.report().index_rebuilt && store.report().catalogue_rebuilt);
    assert_eq!(store.index_dump().unwrap(), before);
    let record = store.blob(&key).unwrap().unwrap();
    assert_eq!((record.size, record.description.as_slice()), (5, &[9][..]));
    let mut bytes = [0; 8];
    assert_eq!(store.open_blob(hash, &record).unwrap().read_at(&mut bytes, 1).unwrap(), 4);
    assert_eq!(&bytes[..4], b"ello");
}

#[test]
fn blobs_are_shared_copied_and_removed_with_their_last_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let name = |source: &str| BlobRefKey { hash: Sha256([7; 32]), source: source.into(), label: "content".into() };
    let mut staged = store.stage().unwrap();
    staged.write(b"hello").unwrap();
    store.publish(staged, &name("a"), vec![]).unwrap();
    assert!(store.copy_blob(&name("a"), &name("b")).unwrap());
    assert!(!store.copy_blob(&name("x"), &name("b")).unwrap());
    assert_eq!(store.delete_blob(&name("a"), Some(1)).unwrap(), Deleted::TooYoung);
    assert_eq!(store.delete_blob(&name("a"), None).unwrap(), Deleted::Removed);
    assert_eq!(store.delete_blob(&name("a"), None).unwrap(), Deleted::Missing);
    let record = store.blob(&name("b")).unwrap().unwrap();
    store.open_blob(Sha256([7; 32]), &record).unwrap();
    assert_eq!(store.delete_blob(&name("b"), Some(i64::MAX)).unwrap(), Deleted::Removed);
    assert!(matches!(store.open_blob(Sha256([7; 32]), &record), Err(BlobError::Damaged { found: 0, .. })));
    let big = vec![7; 100_000];
    let mut staged = store.stage().unwrap();
    staged.write(&big).unwrap();
    store.publish(staged, &name("a"), vec![]).unwrap();
    let record = store.blob(&name("a")).unwrap().unwrap();
    let open = store.open_blob(Sha256([7; 32]), &record).unwrap();
    assert_eq!(store.delete_blob(&name("a"), None).unwrap(), Deleted::Removed);
    let mut bytes = vec![0; 100];
    assert_eq!(open.read_at(&mut bytes, 99_950).unwrap(), 50, "what is open stays readable");
    let staging = std::fs::read_dir(dir.path().join("staging")).unwrap().count();
    assert_eq!(staging, 0);
}

#[test]
fn the_first_record_of_a_time_is_found_whatever_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let t = store.create_topic(topic("t")).unwrap();
    let p = &t.partitions[0];
    for times in [[10, 20], [5, 6], [30, 25]] {
        let mut builder = BatchBuilder::default();
        times.iter().for_each(|time| builder.push(*time, None, Some(b"v")));
        let appends = vec![Append { partition: p.clone(), batch: builder.build().unwrap() }];
        store.append_wait(Lane(1), appends).unwrap();
    }
    for _ in 0..2 {
        let found = |time| store.offset_for_time(p, time).unwrap();
        assert_eq!(found(0), Some((0, 10)));
        assert_eq!(found(11), Some((1, 20)));
        assert_eq!(found(21), Some((4, 30)));
        assert_eq!(found(31), None);
        store.index_dump().unwrap();
    }
}

#[test]
fn a_second_opener_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let options = Options::new(dir.path().to_owned());
    let got = Store::open(Arc::new(RealFs), options);
    let pid = format!("process {}", std::process::id());
    assert!(matches!(&got, Err(OpenError::Locked { holder, .. }) if *holder == pid), "got {got:?}");
    drop(store);
    open(dir.path());
}

#[test]
fn a_time_is_found_exactly_inside_compressed_batches() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.create_topic(topic("t")).unwrap().partitions[0].clone();
    let mut model: Vec<(Offset, i64)> = Vec::new();
    for (round, codec) in (0_i64..).zip(Codec::ALL.repeat(4)) {
        let mut builder = BatchBuilder::default().codec(codec);
        // Clocks go forward and back within a batch and between batches.
        for (offset, step) in (round * 5..).zip([0, 700, -300, 2000, 100]) {
            let time = 10_000 + (round % 7) * 1500 + step;
            builder.push(time, None, Some(&[1; 50]));
            model.push((offset, time));
        }
        let appends = vec![Append { partition: partition.clone(), batch: builder.build().unwrap() }];
        store.append_wait(Lane(1), appends).unwrap();
    }
    let check = |store: &Store, partition: &Partition| {
        for time in (9_000..25_000).step_by(50) {
            let wanted = model.iter().find(|(_, t)| *t >= time).copied();
            assert_eq!(store.offset_for_time(partition, time).unwrap(), wanted, "{time}");
        }
    };
    check(&store, &partition);
    drop((store, partition));
    let store = open(dir.path());
    check(&store, &store.topic("t").unwrap().partitions[0]);
}

#[test]
fn an_append_time_is_the_time_of_the_frame() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let partition = store.create_topic(topic("t")).unwrap().partitions[0].clone();
    let mut stamped = batch(&["a", "b"]);
    stamped.use_append_time();
    let appends = vec![Append { partition: partition.clone(), batch: stamped }];
    let appended = store.append_wait(Lane(1), appends).unwrap()[0];
    assert!(appended.append_time_ms > 1_000_000);
    let read = store.read(&partition, 0, 100).unwrap();
    let times: Vec<_> = Records::of(&read[0]).unwrap().map(|r| r.unwrap().timestamp).collect();
    assert_eq!(times, [appended.append_time_ms; 2]);
    assert_eq!(store.offset_for_time(&partition, 101).unwrap(), Some((0, appended.append_time_ms)));
}

#[test]
fn an_upload_touches_staging_only_once_it_is_no_small_one_and_reads_back_at_every_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let staging = || std::fs::read_dir(dir.path().join("staging")).unwrap().count();
    let content: Vec<u8> = (0..200_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let inline = Options::new(dir.path().into()).inline_bytes;
    let lens = [0, 1, inline - 1, inline, inline + 1, 131_072, 131_073, 200_000];
    // Pieces shorter than a chunk, as long, longer, and all at once.
    let cases = [1000, 65_536, 70_001, 200_000].into_iter().flat_map(|piece| lens.map(|len| (piece, len)));
    for (number, (piece, len)) in (0_u8..).zip(cases) {
        let key = BlobRefKey { hash: Sha256([number; 32]), source: "lab".into(), label: "content".into() };
        let mut staged = store.stage().unwrap();
        content[..len].chunks(piece).for_each(|piece| staged.write(piece).unwrap());
        assert_eq!(staging(), usize::from(len > inline), "{len}");
        let same = |open: crate::blob::OpenBlob| {
            assert_eq!(open.len(), u64::try_from(len).unwrap());
            let mut at = 0;
            while at < len {
                let mut piece = vec![0; 777];
                let read = open.read_at(&mut piece, u64::try_from(at).unwrap()).unwrap();
                assert!(read > 0 && piece[..read] == content[at..at + read], "{len} at {at}");
                at += read;
            }
            assert_eq!(open.read_at(&mut [0; 10], u64::try_from(len).unwrap()).unwrap(), 0);
            assert_eq!(open.read_at(&mut [0; 10], u64::MAX).unwrap(), 0);
        };
        same(staged.reader().unwrap());
        let record = store.publish(staged, &key, vec![]).unwrap();
        same(store.open_blob(key.hash, &record).unwrap());
        assert_eq!((staging(), store.core.blobs.path(key.hash, Encoding::Plain).exists()), (0, len > inline), "{len}");
    }
}

fn blob_of(len: usize) -> (Vec<u8>, BlobRefKey) {
    let content: Vec<u8> = (0..len).map(|n| u8::try_from((n * 7 + len) % 251).unwrap()).collect();
    let hash = Sha256(<[u8; 32]>::try_from(format!("{len:032}").as_bytes()).unwrap());
    (content, BlobRefKey { hash, source: "lab".into(), label: "content".into() })
}

fn publish_blob(store: &Store, len: usize) {
    let (content, key) = blob_of(len);
    let mut staged = store.stage().unwrap();
    content.chunks(30_000).for_each(|piece| staged.write(piece).unwrap());
    let mut bytes = vec![0; 10];
    let read = staged.reader().unwrap().read_at(&mut bytes, u64::try_from(len - 3).unwrap()).unwrap();
    assert_eq!(bytes[..read], content[len - 3..], "read back before it is stored");
    store.publish(staged, &key, vec![]).unwrap();
}

fn assert_blob(store: &Store, len: usize) {
    let (content, key) = blob_of(len);
    let record = store.blob(&key).unwrap().unwrap();
    let open = store.open_blob(key.hash, &record).unwrap();
    for from in [0, 1, 5000, len / 2, len - 1] {
        let wanted = &content[from.min(len)..len.min(from + 1000)];
        let (mut bytes, mut done) = (vec![0; wanted.len()], 0);
        while done < wanted.len() {
            let read = open.read_at(&mut bytes[done..], u64::try_from(from + done).unwrap()).unwrap();
            assert!(read > 0, "{len} from {from}");
            done += read;
        }
        assert_eq!(bytes, wanted, "{len} from {from}");
    }
}

#[test]
fn the_encoding_may_change_at_any_time_and_everything_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    let with = |encoding| {
        let options = Options { segment_bytes: 1 << 20, encoding, ..Options::new(dir.path().to_owned()) };
        Store::open(Arc::new(RealFs), options).unwrap()
    };
    let order = [Encoding::Plain, Encoding::Xor, Encoding::Aes256, Encoding::Plain, Encoding::Xor];
    let len = |round: usize| [1000 + round, 200_000 + round];
    for (round, encoding) in order.into_iter().enumerate() {
        let store = with(encoding);
        len(round).into_iter().for_each(|len| publish_blob(&store, len));
        (0..=round).flat_map(len).for_each(|len| assert_blob(&store, len));
        let (_, big) = blob_of(200_000 + round);
        assert!(store.core.blobs.path(big.hash, encoding).exists());
        // Known bytes stay as they are.
        publish_blob(&store, 200_000);
        assert!(store.core.blobs.path(blob_of(200_000).1.hash, Encoding::Plain).exists());
        let before = store.index_dump().unwrap();
        drop(store);
        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        std::fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
        let store = with(encoding);
        assert_eq!(store.index_dump().unwrap(), before);
        (0..=round).flat_map(len).for_each(|len| assert_blob(&store, len));
    }
    let store = with(Encoding::Plain);
    for (round, encoding) in order.into_iter().enumerate() {
        for len in len(round) {
            let (_, key) = blob_of(len);
            assert_eq!(store.delete_blob(&key, None).unwrap(), Deleted::Removed);
            assert!(!store.core.blobs.path(key.hash, encoding).exists());
        }
    }
    assert_eq!(store.blobs().count(), 0);
}

#[test]
fn a_damaged_file_is_replaced_by_an_upload_in_the_encoding_of_today() {
    let dir = tempfile::tempdir().unwrap();
    let with = |encoding, inline_bytes| {
        let options = Options { encoding, inline_bytes, ..Options::new(dir.path().to_owned()) };
        Store::open(Arc::new(RealFs), options).unwrap()
    };
    let (_, key) = blob_of(100_000);
    for (encoding, inline_bytes) in
        [(Encoding::Plain, 0), (Encoding::Aes256, 0), (Encoding::Xor, 1 << 20), (Encoding::Xor, 0)]
    {
        let store = with(encoding, inline_bytes);
        publish_blob(&store, 100_000);
        let encodings = Encoding::ALL.map(|encoding| store.core.blobs.path(key.hash, encoding));
        for path in encodings.iter().filter(|path| path.exists()) {
            std::fs::write(path, b"short").unwrap();
        }
        if inline_bytes == 0 {
            publish_blob(&store, 100_000);
        }
        assert_blob(&store, 100_000);
        let left = encodings.iter().filter(|path| path.exists()).count();
        assert_eq!(left, usize::from(inline_bytes == 0), "{encoding:?}");
        if inline_bytes == 0 {
            let damaged = store.core.blobs.path(key.hash, encoding);
            std::fs::write(damaged, b"short").unwrap();
        }
        if inline_bytes > 0 {
            assert_eq!(store.delete_blob(&key, None).unwrap(), Deleted::Removed);
        }
    }
}

#[test]
fn a_flipped_byte_is_healed_by_an_upload_in_every_encoding() {
    for encoding in Encoding::ALL {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { encoding, ..Options::new(dir.path().to_owned()) };
        let store = Store::open(Arc::new(RealFs), options).unwrap();
        publish_blob(&store, 200_000);
        let path = store.core.blobs.path(blob_of(200_000).1.hash, encoding);
        let len = std::fs::read(&path).unwrap().len();
        for at in [0, 5000, 150_000, len - 1] {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            publish_blob(&store, 200_000);
            assert_blob(&store, 200_000);
            assert_ne!(std::fs::read(&path).unwrap(), bytes, "{encoding:?} at {at}");
        }
        let before = std::fs::read(&path).unwrap();
        publish_blob(&store, 200_000);
        assert_eq!(std::fs::read(&path).unwrap(), before, "{encoding:?}: what is good stays as it is");
    }
}

#[test]
fn a_file_nobody_refers_to_is_replaced_by_an_upload_whatever_its_length() {
    for encoding in Encoding::ALL {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { encoding, ..Options::new(dir.path().to_owned()) };
        let store = Store::open(Arc::new(RealFs), options).unwrap();
        let path = store.core.blobs.path(blob_of(200_000).1.hash, encoding);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let len = usize::try_from(encoding.stored_len(200_000)).unwrap();
        std::fs::write(&path, vec![b'x'; len]).unwrap();
        publish_blob(&store, 200_000);
        assert_blob(&store, 200_000);
        assert_eq!(std::fs::read_dir(dir.path().join("staging")).unwrap().count(), 0);
    }
}

#[test]
fn a_blob_of_no_bytes_is_read_back_in_every_encoding_as_a_file_and_in_the_log() {
    for (encoding, inline_bytes) in Encoding::ALL.into_iter().flat_map(|encoding| [(encoding, 0), (encoding, 100)]) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { encoding, inline_bytes, ..Options::new(dir.path().to_owned()) };
        let store = Store::open(Arc::new(RealFs), options).unwrap();
        let (_, key) = blob_of(0);
        for upload in 0..2 {
            let record = store.publish(store.stage().unwrap(), &key, vec![]).unwrap();
            let open = store.open_blob(key.hash, &record).unwrap();
            let read = open.read_at(&mut [0; 9], 0).unwrap();
            assert_eq!((open.len(), read), (0, 0), "{encoding:?} {inline_bytes}, upload {upload}");
        }
        if inline_bytes == 0 {
            let len = std::fs::metadata(store.core.blobs.path(key.hash, encoding)).unwrap().len();
            assert_eq!(len, encoding.stored_len(0), "{encoding:?}");
        }
    }
}

#[test]
fn a_store_whose_key_is_lost_or_another_does_not_open() {
    use crate::secret::KeyError;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys/blobs.key");
    let with = |encoding| {
        let options = Options { encoding, ..Options::new(dir.path().to_owned()) };
        Store::open(Arc::new(RealFs), options)
    };
    drop(with(Encoding::Plain).unwrap());
    assert!(!path.exists(), "nobody needs one");
    let store = with(Encoding::Xor).unwrap();
    [10_000, 100_000].into_iter().for_each(|len| publish_blob(&store, len));
    drop(store);
    let text = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for encoding in Encoding::ALL {
        let got = with(encoding);
        assert!(matches!(&got, Err(OpenError::Key(KeyError::Missing { path: p })) if *p == path), "got {got:?}");
        assert!(!path.exists());
    }
    let other = [&text[..20], if text[20] == b'0' { b"1" } else { b"0" }, &text[21..]].concat();
    std::fs::write(&path, other).unwrap();
    let got = with(Encoding::Plain);
    assert!(matches!(&got, Err(OpenError::Key(KeyError::Wrong { .. }))), "got {got:?}");
    std::fs::write(&path, &text).unwrap();
    let store = with(Encoding::Plain).unwrap();
    [10_000, 100_000].into_iter().for_each(|len| assert_blob(&store, len));
}
