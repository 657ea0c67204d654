//! The data directory of each released format, as the version that released it left it: it opens, or is migrated, and
//! everything that was acknowledged is there.
//!
//! `AZULITE_WRITE_FIXTURE=1 cargo test -p azulite-migrations` writes the folder of the present format, once, when it is
//! released; after that the folder never changes. Index and catalogue are left out: they are derived, and engines'
//! files are large.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use azulite_migrations::{Mode, migrate};
use azulite_storage::fs::RealFs;
use azulite_storage::offsets::CommittedOffset;
use azulite_storage::state::BlobRefKey;
use azulite_storage::{
    Append, BatchBuilder, Encoding, Lane, NewTopic, Options, Records, Sha256, Store, TopicPartition,
};

const BLOB: &[u8] = b"azulite sample line one\n";
const BLOB_SHA256: &str = "7fb5af0ab20332773c5553f3f940141bd933e205e8c192505fad4ab9e59f8dcb";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn blob_key() -> BlobRefKey {
    BlobRefKey { hash: Sha256::parse(BLOB_SHA256).unwrap(), source: "lab".into(), label: "content".into() }
}

fn place() -> TopicPartition {
    TopicPartition { topic: "azul.test01.lab.binary.sourced".into(), partition: 1 }
}

fn open(root: &Path) -> Store {
    Store::open(Arc::new(RealFs), Options { segment_bytes: 1 << 20, ..Options::new(root.to_owned()) }).unwrap()
}

fn write(root: &Path) {
    let store = open(root);
    let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    let topic = store.create_topic(NewTopic { name: place().topic, partitions: 2, config }).unwrap();
    for (time, values) in [(1_000, ["one", "two"]), (2_000, ["three", "four"])] {
        let mut builder = BatchBuilder::default();
        values.iter().for_each(|value| builder.push(time, Some(b"key"), Some(value.as_bytes())));
        let append = Append { partition: topic.partitions[1].clone(), batch: builder.build().unwrap() };
        store.append_wait(Lane(1), vec![append]).unwrap();
    }
    let committed = CommittedOffset { offset: 3, leader_epoch: 0, metadata: "note".into(), commit_time_ms: 5_000 };
    store.commit_offsets_wait("group", &vec![(place(), Some(committed))], vec![]).unwrap();
    store.put_kv(vec![(b"key".to_vec(), Some("value".into()))]).unwrap();
    let mut staged = store.stage().unwrap();
    staged.write(BLOB).unwrap();
    store.publish(staged, &blob_key(), b"description".to_vec()).unwrap();
}

fn check(root: &Path, encoding: Encoding) {
    let options = Options { segment_bytes: 1 << 20, encoding, ..Options::new(root.to_owned()) };
    let store = Store::open(Arc::new(RealFs), options).unwrap();
    assert_eq!(store.report().damage, Vec::<String>::new());
    let topic = store.topic(&place().topic).unwrap();
    assert_eq!(topic.config["cleanup.policy"], "compact");
    let partition = &topic.partitions[1];
    let batches = store.read(partition, 0, 1 << 20).unwrap();
    let records: Vec<_> = batches.iter().flat_map(|b| Records::of(b).unwrap()).map(Result::unwrap).collect();
    let values: Vec<_> = records.iter().map(|r| (r.offset, r.value.clone().unwrap())).collect();
    assert_eq!(values, [(0, "one".into()), (1, "two".into()), (2, "three".into()), (3, "four".into())]);
    assert_eq!(store.offset_for_time(partition, 1_500).unwrap(), Some((2, 2_000)));
    let committed = store.committed("group", &place()).unwrap().unwrap();
    assert_eq!((committed.offset, committed.metadata.as_str()), (3, "note"));
    assert_eq!(store.kv(b"key").unwrap().unwrap(), "value");
    let record = store.blob(&blob_key()).unwrap().unwrap();
    assert_eq!(record.description, b"description");
    let mut bytes = [0; 64];
    let read = store.open_blob(blob_key().hash, &record).unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes[..read], BLOB);
}

#[test]
fn a_directory_of_format_1_opens_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    if std::env::var_os("AZULITE_WRITE_FIXTURE").is_some() {
        write(dir.path());
        for name in ["index", "catalogue"] {
            fs::remove_dir_all(dir.path().join(name)).unwrap();
        }
        fs::remove_file(dir.path().join("LOCK")).unwrap();
        copy(dir.path(), &fixture());
    }
    let root = dir.path().join("copy");
    copy(&fixture(), &root);
    let outcome = migrate(&RealFs, &root, Mode::Run).unwrap();
    assert!(outcome.to_string().starts_with("nothing to do"), "{outcome}");
    check(&root, Encoding::Plain);
    check(&root, Encoding::Xor);
    check(&root, Encoding::Aes256);
}
