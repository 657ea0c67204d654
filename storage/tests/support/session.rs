//! One opened store, spoken to in the tests' own words, so that each test says what it means and not how to call it.

use super::ledger::{Found, Line};
use azulite_storage::batch::Producer;
use azulite_storage::blob::BlobError;
use azulite_storage::blobs::Deleted;
use azulite_storage::fs::Fs;
use azulite_storage::ids::{Offset, Sha256, TopicPartition};
use azulite_storage::offsets::CommittedOffset;
use azulite_storage::state::BlobRefKey;
use azulite_storage::{
    Append, AppendError, Appended, BatchBuilder, CheckedBatch, Lane, NewTopic, OpenError, Options, Partition, Records,
    Store,
};
use rustix::fs::SeekFrom;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

/// The data directory on the simulated disk.
pub(crate) const ROOT: &str = "/data";

/// A row of the index: keyspace, key, value.
pub(crate) type Row = (String, Vec<u8>, Vec<u8>);

/// The real directories of the engines that know no other disk.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) index: PathBuf,
    pub(crate) catalogue: PathBuf,
}

impl Places {
    pub(crate) fn below(dir: &Path) -> Self {
        Self { index: dir.join("index"), catalogue: dir.join("catalogue") }
    }

    pub(crate) fn remove(&self) {
        for dir in [&self.index, &self.catalogue] {
            if dir.exists() {
                std::fs::remove_dir_all(dir).unwrap();
            }
        }
    }

    /// Replaces what is here by a copy of what is at `from`.
    pub(crate) fn copy_from(&self, from: &Places) {
        self.remove();
        copy_tree(&from.index, &self.index);
        copy_tree(&from.catalogue, &self.catalogue);
    }
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            copy_file(&entry.path(), &to);
        }
    }
}

/// Copies a file without its holes: the engines reserve much more than they fill.
fn copy_file(from: &Path, to: &Path) {
    let (from, to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&from, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&from, SeekFrom::Hole(start)).unwrap();
        let mut bytes = vec![0; usize::try_from(at - start).unwrap()];
        from.read_exact_at(&mut bytes, start).unwrap();
        to.write_all_at(&bytes, start).unwrap();
    }
    to.set_len(from.metadata().unwrap().len()).unwrap();
}

/// A temporary directory, in memory where the system has such a place: these tests simulate the disk that matters.
pub(crate) fn fast_tempdir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A stand-in for SHA-256: the store takes the caller's word for it.
pub(crate) fn content_hash(content: &[u8]) -> Sha256 {
    let mut hash = [0; 32];
    for (lane, place) in (1_u64..).zip(hash.chunks_mut(8)) {
        let mix = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        let sum = content.iter().fold(0xcbf2_9ce4_8422_2325_u64.wrapping_mul(lane), mix);
        place.copy_from_slice(&sum.to_be_bytes());
    }
    Sha256(hash)
}

/// Options with segments so small that rolling is an everyday thing.
pub(crate) fn small_options(places: &Places) -> Options {
    Options {
        index_dir: Some(places.index.clone()),
        catalogue_dir: Some(places.catalogue.clone()),
        segment_bytes: 256 << 10,
        commit_bytes: 128 << 10,
        inline_bytes: 4 << 10,
        cache_bytes: 32 << 10,
        ..Options::new(PathBuf::from(ROOT))
    }
}

/// An open store.
pub(crate) struct Session {
    pub(crate) store: Store,
}

/// An append under way.
pub(crate) struct Appending(mpsc::Receiver<Result<Vec<Appended>, AppendError>>);

impl Appending {
    /// Base offsets, one for each part.
    pub(crate) fn wait(self) -> Result<Vec<Offset>, AppendError> {
        Ok(self.wait_whole()?.into_iter().map(|a| a.base_offset).collect())
    }

    pub(crate) fn wait_whole(self) -> Result<Vec<Appended>, AppendError> {
        self.0.recv().unwrap_or(Err(AppendError::Closed))
    }
}

pub(crate) fn batch(lines: &[Line]) -> CheckedBatch {
    fill(BatchBuilder::default(), lines)
}

fn fill(mut builder: BatchBuilder, lines: &[Line]) -> CheckedBatch {
    lines.iter().for_each(|line| builder.push(line.timestamp, line.key.as_deref(), line.value.as_deref()));
    builder.build().unwrap()
}

impl Session {
    pub(crate) fn open(fs: &(impl Fs + Clone + 'static), options: Options) -> Result<Self, OpenError> {
        Ok(Self { store: Store::open(Arc::new(fs.clone()), options)? })
    }

    pub(crate) fn partition(&self, name: &TopicPartition) -> Arc<Partition> {
        let topic = self.store.topic(&name.topic).unwrap_or_else(|| panic!("no topic {}", name.topic));
        topic.partition(name.partition).unwrap().clone()
    }

    pub(crate) fn appends(&self, parts: &[(TopicPartition, Vec<Line>)]) -> Vec<Append> {
        let append = |(name, lines): &(TopicPartition, Vec<Line>)| Append {
            partition: self.partition(name),
            batch: batch(lines),
        };
        parts.iter().map(append).collect()
    }

    pub(crate) fn append(&self, lane: u64, parts: &[(TopicPartition, Vec<Line>)]) -> Appending {
        self.send(lane, self.appends(parts))
    }

    fn send(&self, lane: u64, appends: Vec<Append>) -> Appending {
        let (sender, receiver) = mpsc::channel();
        // The test may have stopped waiting.
        self.store.append(Lane(lane), appends, Box::new(move |outcome| drop(sender.send(outcome))));
        Appending(receiver)
    }

    /// Appends one batch of an idempotent producer.
    pub(crate) fn append_of(&self, producer: Producer, lane: u64, name: &TopicPartition, lines: &[Line]) -> Appending {
        let batch = fill(BatchBuilder::default().producer(producer), lines);
        self.send(lane, vec![Append { partition: self.partition(name), batch }])
    }

    /// Names and partition counts of the topics that are not the store's own.
    pub(crate) fn topics(&self) -> BTreeMap<String, i32> {
        let topics = self.store.topics();
        let counted = topics.iter().filter(|t| !t.internal);
        counted.map(|t| (t.name.clone(), i32::try_from(t.partitions.len()).unwrap())).collect()
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> Result<(), String> {
        let new = NewTopic { name: name.to_owned(), partitions, config: BTreeMap::new() };
        self.store.create_topic(new).map(drop).map_err(|e| e.to_string())
    }

    /// Records from the batch that holds `from` on.
    pub(crate) fn read(&self, name: &TopicPartition, from: Offset, max_bytes: usize) -> Result<Vec<Found>, String> {
        let partition = self.partition(name);
        let batches = self.store.read(&partition, from, max_bytes).map_err(|e| e.to_string())?;
        let mut found = Vec::new();
        for batch in &batches {
            for record in Records::of(batch).map_err(|e| e.to_string())? {
                let record = record.map_err(|e| e.to_string())?;
                let bytes = |b: Option<bytes::Bytes>| b.map(|b| b.to_vec());
                let line = Line { key: bytes(record.key), value: bytes(record.value), timestamp: record.timestamp };
                found.push(Found { offset: record.offset, line });
            }
        }
        Ok(found)
    }

    /// Everything in a partition, from its log start to its high watermark.
    pub(crate) fn read_all(&self, name: &TopicPartition) -> Result<Vec<Found>, String> {
        let offsets = self.partition(name).offsets();
        let mut found: Vec<Found> = Vec::new();
        let mut next = offsets.log_start;
        while next < offsets.high_watermark {
            let read = self.read(name, next, 60_000).map_err(|e| format!("{name}: {e}"))?;
            let last = read.last().ok_or_else(|| format!("{name}: nothing at {next}, {offsets:?}"))?;
            next = last.offset + 1;
            found.extend(read);
        }
        Ok(found)
    }

    pub(crate) fn commit_offsets(&self, group: &str, wanted: &BTreeMap<TopicPartition, i64>) -> Result<(), String> {
        let committed = |offset: &i64| CommittedOffset {
            offset: *offset,
            leader_epoch: 0,
            metadata: String::new(),
            commit_time_ms: 1,
        };
        let changes = wanted.iter().map(|(name, offset)| (name.clone(), Some(committed(offset)))).collect();
        self.store.commit_offsets_wait(group, &changes, Vec::new()).map_err(|e| e.to_string())
    }

    pub(crate) fn committed(&self, group: &str, name: &TopicPartition) -> Result<Option<i64>, String> {
        let committed = self.store.committed(group, name).map_err(|e| e.to_string())?;
        Ok(committed.map(|c| c.offset))
    }

    pub(crate) fn publish(&self, key: &BlobRefKey, content: &[u8]) -> Result<(), BlobError> {
        let mut staged = self.store.stage()?;
        content.chunks(20_000).try_for_each(|chunk| staged.write(chunk))?;
        self.store.publish(staged, key, b"described".to_vec()).map(drop)
    }

    pub(crate) fn copy_blob(&self, from: &BlobRefKey, to: &BlobRefKey) -> Result<bool, BlobError> {
        self.store.copy_blob(from, to)
    }

    pub(crate) fn delete_blob(&self, key: &BlobRefKey) -> Result<Deleted, BlobError> {
        self.store.delete_blob(key, None)
    }

    /// The content stored under a name.
    pub(crate) fn blob(&self, key: &BlobRefKey) -> Result<Option<Vec<u8>>, String> {
        let Some(record) = self.store.blob(key).map_err(|e| e.to_string())? else { return Ok(None) };
        let file = self.store.open_blob(key.hash, &record).map_err(|e| e.to_string())?;
        let mut content = vec![0; usize::try_from(file.len()).unwrap()];
        let mut at = 0;
        while at < content.len() {
            let read = file.read_at(&mut content[at..], u64::try_from(at).unwrap()).map_err(|e| e.to_string())?;
            if read == 0 {
                return Err(format!("blob {} ends at {at}", key.hash));
            }
            at += read;
        }
        Ok(Some(content))
    }

    /// Every name a blob is stored under.
    pub(crate) fn blobs(&self) -> Result<Vec<BlobRefKey>, String> {
        self.store.blobs().map(|entry| Ok(entry.map_err(|e| e.to_string())?.0)).collect()
    }

    pub(crate) fn index_dump(&self) -> Result<Vec<Row>, String> {
        self.store.index_dump().map_err(|e| e.to_string())
    }
}

/// Compares two indexes row by row.
pub(crate) fn same_rows(kept: &[Row], rebuilt: &[Row]) -> Result<(), String> {
    let different = kept.iter().zip(rebuilt).find(|(kept, rebuilt)| kept != rebuilt);
    if let Some((kept, rebuilt)) = different {
        return Err(format!("the index has {kept:02x?}, rebuilt from the log it has {rebuilt:02x?}"));
    }
    let longer = kept.get(rebuilt.len()).or_else(|| rebuilt.get(kept.len()));
    longer.map_or(Ok(()), |row| {
        Err(format!("{} rows in the index, {} rebuilt from the log; one has {row:02x?}", kept.len(), rebuilt.len()))
    })
}
