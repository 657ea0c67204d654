//! The index: the only file that names `fjall`. Everything in it can be rebuilt from the segments.
//!
//! Called by the applier thread (writes) and by readers. Writes use persist mode Buffer: after a kill the index is
//! where its marker says, after a power cut it may be older or gone, and recovery brings it forward from the log.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::frame::frame_len;
use crate::ids::{Offset, PartitionNumber, SegmentNumber, Sha256};
use crate::keys::blob::BlobRow;
use crate::keys::cleaned::{CleanedHead, decode_number, encode_number};
use crate::keys::log::{BatchKey, BatchRow};
use crate::keys::marker::{MARKER_KEY, Marker};
use crate::keys::producer::{ProducerKey, ProducerRow};
use crate::keys::time::{TimeKey, decode_offset};
use crate::keys::{decode_value, encode_value};

/// Why the index could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The engine failed; what it holds can be rebuilt from the log.
    #[error("index engine: {0}")]
    Engine(#[from] fjall::Error),
    /// A row does not read as this version writes it.
    #[error("index row {key} of keyspace {keyspace} is damaged")]
    Row {
        /// Keyspace of the row.
        keyspace: &'static str,
        /// The key in hex.
        key: String,
    },
}

impl IndexError {
    /// True when somebody else has the index open.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self, Self::Engine(fjall::Error::Locked))
    }
}

/// Which keyspace a row of state belongs to: each but the last is the projection of an internal topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKeyspace {
    /// Newest value of each key of `__azulite_state`.
    State,
    /// Newest value of each key of `__consumer_offsets`.
    Groups,
    /// Where the frame of each inline blob lies.
    Blobs,
}

/// What one run of commits does to the index.
#[derive(Debug, Default)]
pub struct Rows {
    /// Rows of keyspace `log`.
    pub batches: Vec<(BatchKey, BatchRow)>,
    /// Rows of keyspace `time`.
    pub times: Vec<(TimeKey, Offset)>,
    /// Rows of keyspace `producers`.
    pub producers: Vec<(ProducerKey, ProducerRow)>,
    /// New values (`None`: removed) of state rows.
    pub state: Vec<(StateKeyspace, Bytes, Option<Bytes>)>,
}

impl Rows {
    /// Number of rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.batches.len() + self.times.len() + self.producers.len() + self.state.len()
    }
}

/// What recovery and the cleaner change in the index beside the commits. Every part of it may be done again.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// New rows of keyspace `log`.
    pub(crate) batches: Vec<(BatchKey, BatchRow)>,
    /// Rows of keyspace `log` to be removed.
    pub(crate) gone: Vec<BatchKey>,
    /// New rows of keyspace `time`.
    pub(crate) times: Vec<(TimeKey, Offset)>,
    /// Rows of keyspace `producers`.
    pub(crate) producers: Vec<(ProducerKey, ProducerRow)>,
    /// New values (`None`: removed) of state rows.
    pub(crate) state: Vec<(StateKeyspace, Bytes, Option<Bytes>)>,
    /// New rows (`None`: removed) of keyspace `cleaned`.
    pub(crate) cleaned: Vec<(SegmentNumber, Option<CleanedHead>)>,
}

impl Changes {
    /// Number of rows.
    pub(crate) fn count(&self) -> usize {
        let log = self.batches.len() + self.gone.len();
        log + self.times.len() + self.producers.len() + self.state.len() + self.cleaned.len()
    }
}

/// Keyspace, key and value of one row.
pub type IndexRow = (String, Vec<u8>, Vec<u8>);

/// The open index.
#[derive(Clone)]
pub struct Index {
    db: Database,
    log: Keyspace,
    time: Keyspace,
    producers: Keyspace,
    state: Keyspace,
    groups: Keyspace,
    blobs: Keyspace,
    cleaned: Keyspace,
    meta: Keyspace,
    dead: Arc<Mutex<HashMap<SegmentNumber, u64>>>,
    editing: Arc<Mutex<()>>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Index")
    }
}

const MEMTABLE_BYTES: u64 = 8 << 20;
const JOURNAL_BYTES: u64 = 128 << 20;
const BLOCK_CACHE_BYTES: u64 = 8 << 20;

impl Index {
    /// Opens the index at `path`, making it when there is none.
    ///
    /// # Errors
    /// [`IndexError::Engine`]: the caller deletes the folder and rebuilds.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let db = Database::builder(path)
            .cache_size(BLOCK_CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()?;
        let keyspace = |name| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES));
        let (log, time, state) = (keyspace("log")?, keyspace("time")?, keyspace("state")?);
        let (groups, producers, meta) = (keyspace("groups")?, keyspace("producers")?, keyspace("meta")?);
        let (cleaned, blobs) = (keyspace("cleaned")?, keyspace("blobs")?);
        let (dead, editing) = (Arc::default(), Arc::default());
        Ok(Self { db, log, time, producers, state, groups, blobs, cleaned, meta, dead, editing })
    }

    /// Up to where the index has been brought; `None` for a new one.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn marker(&self) -> Result<Option<Marker>, IndexError> {
        let row = self.meta.get(MARKER_KEY)?;
        row.map(|bytes| decode_value(&bytes).ok_or_else(|| damaged("meta", MARKER_KEY))).transpose()
    }

    /// Puts the rows in and moves the marker, all or nothing.
    ///
    /// # Durability
    /// Survives a kill of the process; a power cut may undo it whole.
    /// # Errors
    /// See [`IndexError`].
    pub fn apply(&self, rows: Rows, marker: Marker) -> Result<(), IndexError> {
        // The cleaner must not point a row to a new place that is taken out here.
        let of_blobs = rows.state.iter().any(|(keyspace, ..)| *keyspace == StateKeyspace::Blobs);
        let _editing = of_blobs.then(|| self.edit());
        let dead = self.dying_blobs(&rows.state)?;
        let mut batch = self.db.batch().durability(Some(PersistMode::Buffer));
        for (key, row) in rows.batches {
            batch.insert(&self.log, key.encode(), encode_value(&row));
        }
        for (key, offset) in rows.times {
            batch.insert(&self.time, key.encode(), offset.to_be_bytes());
        }
        for (key, row) in rows.producers {
            batch.insert(&self.producers, key.encode(), encode_value(&row));
        }
        for (keyspace, key, value) in rows.state {
            match value {
                Some(value) => batch.insert(self.keyspace(keyspace), key, value),
                None => batch.remove(self.keyspace(keyspace), key),
            }
        }
        batch.insert(&self.meta, MARKER_KEY, encode_value(&marker));
        batch.commit()?;
        self.note_dead_frames(dead.iter().map(|row| (row.segment(), row.payload_len)));
        Ok(())
    }

    /// The frames of blobs that lose their rows by these changes.
    fn dying_blobs(&self, rows: &[(StateKeyspace, Bytes, Option<Bytes>)]) -> Result<Vec<BlobRow>, IndexError> {
        let mut newest: HashMap<&Bytes, Option<BlobRow>> = HashMap::new();
        let mut dying = Vec::new();
        for (_, key, value) in rows.iter().filter(|(keyspace, ..)| *keyspace == StateKeyspace::Blobs) {
            let before = match (newest.get(key), value) {
                (Some(row), _) => *row,
                // What was not there before is not looked for.
                (None, Some(_)) => None,
                (None, None) => self.blob(key)?,
            };
            dying.extend(before);
            newest.insert(key, value.as_ref().and_then(|bytes| decode_value(bytes)));
        }
        Ok(dying)
    }

    /// Takes rows of batches out, all or nothing. The marker stays: rows that recovery puts in again are taken out
    /// again.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn remove(&self, batches: &[BatchKey], times: &[TimeKey]) -> Result<(), IndexError> {
        let _editing = self.edit();
        let mut batch = self.db.batch().durability(Some(PersistMode::Buffer));
        let mut dead = Vec::with_capacity(batches.len());
        for key in batches {
            dead.extend(self.batch(key.partition, key.base_offset)?);
            batch.remove(&self.log, key.encode());
        }
        times.iter().for_each(|key| batch.remove(&self.time, key.encode()));
        batch.commit()?;
        self.note_dead(dead.iter());
        Ok(())
    }

    /// The keyspaces whose keys begin with a partition number.
    fn by_partition(&self) -> [&Keyspace; 3] {
        [&self.log, &self.time, &self.producers]
    }

    /// Takes out up to `limit` rows of a partition whose topic is gone, whatever they are. Returns how many it found:
    /// fewer than `limit` when none is left.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn remove_partition(&self, partition: PartitionNumber, limit: usize) -> Result<usize, IndexError> {
        let _editing = self.edit();
        let mut batch = self.db.batch().durability(Some(PersistMode::Buffer));
        let (mut found, mut dead) = (0, Vec::new());
        for guard in self.log.prefix(partition.0.to_be_bytes()).take(limit) {
            let (key, value) = guard.into_inner()?;
            dead.extend(decode_value::<BatchRow>(&value));
            batch.remove(&self.log, key);
            found += 1;
        }
        for keyspace in [&self.time, &self.producers] {
            for guard in keyspace.prefix(partition.0.to_be_bytes()).take(limit - found) {
                batch.remove(keyspace, guard.key()?);
                found += 1;
            }
        }
        if found > 0 {
            batch.commit()?;
            self.note_dead(dead.iter());
        }
        Ok(found)
    }

    /// The lowest partition number from `from` on that has a row.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn partition_from(&self, from: PartitionNumber) -> Result<Option<PartitionNumber>, IndexError> {
        let mut lowest = None;
        for keyspace in self.by_partition() {
            let Some(guard) = keyspace.range(from.0.to_be_bytes()..).next() else { continue };
            let key = guard.key()?;
            let number = key.first_chunk().map(|bytes| PartitionNumber(u32::from_be_bytes(*bytes)));
            let number = number.ok_or_else(|| damaged("log, time or producers", &key))?;
            lowest = Some(lowest.map_or(number, |lowest: PartitionNumber| lowest.min(number)));
        }
        Ok(lowest)
    }

    /// Changes rows without moving the marker, all or nothing.
    ///
    /// # Durability
    /// As [`Index::apply`].
    /// # Errors
    /// See [`IndexError`].
    pub(crate) fn change(&self, changes: Changes) -> Result<(), IndexError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::Buffer));
        changes.gone.into_iter().for_each(|key| batch.remove(&self.log, key.encode()));
        for (key, row) in changes.batches {
            batch.insert(&self.log, key.encode(), encode_value(&row));
        }
        for (key, offset) in changes.times {
            batch.insert(&self.time, key.encode(), offset.to_be_bytes());
        }
        for (key, row) in changes.producers {
            batch.insert(&self.producers, key.encode(), encode_value(&row));
        }
        for (keyspace, key, value) in changes.state {
            match value {
                Some(value) => batch.insert(self.keyspace(keyspace), key, value),
                None => batch.remove(self.keyspace(keyspace), key),
            }
        }
        for (number, head) in changes.cleaned {
            match head {
                Some(head) => batch.insert(&self.cleaned, encode_number(number), encode_value(&head)),
                None => batch.remove(&self.cleaned, encode_number(number)),
            }
        }
        Ok(batch.commit()?)
    }

    /// Held while rows of keyspace `log` that are there already are read and then changed or removed.
    pub(crate) fn edit(&self) -> MutexGuard<'_, ()> {
        self.editing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dead(&self) -> MutexGuard<'_, HashMap<SegmentNumber, u64>> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts frames that no row names any more.
    pub(crate) fn note_dead<'a>(&self, rows: impl Iterator<Item = &'a BatchRow>) {
        self.note_dead_frames(rows.map(|row| (row.segment(), row.payload_len)));
    }

    /// Counts frames of these payload lengths that no row names any more.
    pub(crate) fn note_dead_frames(&self, frames: impl Iterator<Item = (SegmentNumber, u32)>) {
        let mut dead = self.dead();
        frames.for_each(|(segment, len)| *dead.entry(segment).or_default() += frame_len(len));
    }

    /// Bytes of a segment's frames that lost their rows since opening.
    pub(crate) fn dead_bytes(&self, segment: SegmentNumber) -> u64 {
        self.dead().get(&segment).copied().unwrap_or(0)
    }

    /// The segment is gone.
    pub(crate) fn forget_dead(&self, segment: SegmentNumber) {
        self.dead().remove(&segment);
    }

    /// True when it has no rows at all.
    pub(crate) fn is_empty(&self) -> Result<bool, IndexError> {
        for keyspace in [&self.log, &self.time, &self.producers, &self.state, &self.groups, &self.blobs, &self.cleaned]
        {
            if !keyspace.is_empty()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves the marker alone.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub(crate) fn mark(&self, marker: Marker) -> Result<(), IndexError> {
        self.apply(Rows::default(), marker)
    }

    /// The row of the batch that begins at `offset`.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub(crate) fn batch(&self, partition: PartitionNumber, offset: Offset) -> Result<Option<BatchRow>, IndexError> {
        let key = bound(partition, offset);
        let row = self.log.get(key)?;
        row.map(|bytes| decode_value(&bytes).ok_or_else(|| damaged("log", &key))).transpose()
    }

    /// The first partition numbered `from` or above that has rows in keyspace `log`.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub(crate) fn partition_at_or_after(&self, from: PartitionNumber) -> Result<Option<PartitionNumber>, IndexError> {
        let first = self.log.range(bound(from, 0)..).next();
        first.map(batch_row).transpose().map(|row| row.map(|(key, _)| key.partition))
    }

    /// What the heads of all cleaned segments say that the index knows of.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub(crate) fn cleaned(&self) -> Result<BTreeMap<SegmentNumber, CleanedHead>, IndexError> {
        let row = |guard: Guard| {
            let (key, value) = guard.into_inner()?;
            decode_number(&key).zip(decode_value(&value)).ok_or_else(|| damaged("cleaned", &key))
        };
        self.cleaned.iter().map(row).collect()
    }

    fn keyspace(&self, keyspace: StateKeyspace) -> &Keyspace {
        match keyspace {
            StateKeyspace::State => &self.state,
            StateKeyspace::Groups => &self.groups,
            StateKeyspace::Blobs => &self.blobs,
        }
    }

    /// Makes everything applied durable.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn persist(&self) -> Result<(), IndexError> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    /// Value of a state row.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn state(&self, keyspace: StateKeyspace, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        Ok(self.keyspace(keyspace).get(key)?.map(Bytes::from))
    }

    /// State rows whose key starts with `prefix`, in key order.
    ///
    /// # Errors
    /// See [`IndexError`], per row.
    pub fn state_prefix(
        &self,
        keyspace: StateKeyspace,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), IndexError>> + use<> {
        self.keyspace(keyspace).prefix(prefix).map(pair)
    }

    /// As [`Index::state_prefix`], from behind the key `after` on.
    ///
    /// # Errors
    /// See [`IndexError`], per row.
    pub fn state_behind(
        &self,
        keyspace: StateKeyspace,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), IndexError>> + use<> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = after.map_or(Included(prefix.to_vec()), |after| Excluded(after.to_vec()));
        let prefix = prefix.to_vec();
        let rows = self.keyspace(keyspace).range::<Vec<u8>, _>((from, Unbounded)).map(pair);
        rows.take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix)))
    }

    /// Where the frame of an inline blob lies.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub(crate) fn blob(&self, hash: &[u8]) -> Result<Option<BlobRow>, IndexError> {
        let row = self.blobs.get(hash)?;
        row.map(|bytes| decode_value(&bytes).ok_or_else(|| damaged("blobs", hash))).transpose()
    }

    /// Every inline blob, by hash.
    ///
    /// # Errors
    /// See [`IndexError`], per row.
    pub(crate) fn inline_blobs(&self) -> impl Iterator<Item = Result<(Sha256, BlobRow), IndexError>> + use<> {
        self.blobs.iter().map(|guard| {
            let (key, value) = guard.into_inner()?;
            let hash = <[u8; 32]>::try_from(key.as_ref()).ok().map(Sha256);
            hash.zip(decode_value(&value)).ok_or_else(|| damaged("blobs", &key))
        })
    }

    /// The last batch that begins at or before `offset`, with its row.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn batch_at_or_before(
        &self,
        partition: PartitionNumber,
        offset: Offset,
    ) -> Result<Option<(Offset, BatchRow)>, IndexError> {
        let (low, high) = (bound(partition, 0), bound(partition, offset));
        self.log.range(low..=high).next_back().map(batch_row).transpose().map(|r| r.map(|(k, r)| (k.base_offset, r)))
    }

    /// Rows of one partition from the batch that begins at or after `offset` on, in offset order.
    ///
    /// # Errors
    /// See [`IndexError`], per row.
    pub fn batches_from(
        &self,
        partition: PartitionNumber,
        offset: Offset,
    ) -> impl Iterator<Item = Result<(Offset, BatchRow), IndexError>> + use<> {
        let (low, high) = (bound(partition, offset), bound(partition, Offset::MAX));
        self.log.range(low..=high).map(|guard| batch_row(guard).map(|(key, row)| (key.base_offset, row)))
    }

    /// Time rows of one partition in time order: timestamp and the batch each names.
    ///
    /// # Errors
    /// See [`IndexError`], per row.
    pub fn time_rows(
        &self,
        partition: PartitionNumber,
    ) -> impl Iterator<Item = Result<(i64, Offset), IndexError>> + use<> {
        self.time.prefix(partition.0.to_be_bytes()).map(time_row)
    }

    /// Every row of keyspace `log`, for checks that walk it whole.
    ///
    /// # Errors
    /// See [`IndexError`], per row.
    pub fn all_batches(&self) -> impl Iterator<Item = Result<(BatchKey, BatchRow), IndexError>> + use<> {
        self.log.iter().map(batch_row)
    }

    /// Timestamp of a partition's last time row; `None` when no batch had one.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn last_time_row(&self, partition: PartitionNumber) -> Result<Option<i64>, IndexError> {
        Ok(self.time_row_up_to(partition, i64::MAX)?.map(|(timestamp, _)| timestamp))
    }

    /// The last time row at or below `timestamp`: its timestamp and the batch it names.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn time_row_up_to(
        &self,
        partition: PartitionNumber,
        timestamp: i64,
    ) -> Result<Option<(i64, Offset)>, IndexError> {
        let key = |timestamp| TimeKey { partition, timestamp }.encode();
        let Some(guard) = self.time.range(key(i64::MIN)..=key(timestamp)).next_back() else { return Ok(None) };
        time_row(guard).map(Some)
    }

    /// What a producer last wrote to a partition.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn producer(&self, key: ProducerKey) -> Result<Option<ProducerRow>, IndexError> {
        let key = key.encode();
        let row = self.producers.get(key)?;
        row.map(|bytes| decode_value(&bytes).ok_or_else(|| damaged("producers", &key))).transpose()
    }

    /// The producers of one partition, by id.
    ///
    /// # Errors
    /// See [`IndexError`], per row.
    pub fn producers(
        &self,
        partition: PartitionNumber,
    ) -> impl Iterator<Item = Result<(ProducerKey, ProducerRow), IndexError>> + use<> {
        self.producers.prefix(partition.0.to_be_bytes()).map(producer_row)
    }

    /// Looks at up to `limit` producers from `from` on and removes those that `expired` says are. Returns where to go on;
    /// `None` at the end. Only for the thread that writes the rows, so that none is removed that was just renewed.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub(crate) fn expire_producers(
        &self,
        from: ProducerKey,
        limit: usize,
        expired: impl Fn(&ProducerRow) -> bool,
    ) -> Result<Option<ProducerKey>, IndexError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::Buffer));
        let (mut removed, mut next) = (false, None);
        for (seen, guard) in self.producers.range(from.encode()..).enumerate() {
            let (key, row) = producer_row(guard)?;
            if seen == limit {
                next = Some(key);
                break;
            }
            if expired(&row) {
                batch.remove(&self.producers, key.encode());
                removed = true;
            }
        }
        if removed {
            batch.commit()?;
        }
        Ok(next)
    }

    /// Every row of every keyspace but the marker, sorted: for tests that compare two indexes.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn dump(&self) -> Result<Vec<IndexRow>, IndexError> {
        let mut rows = Vec::new();
        for (name, keyspace) in [
            ("blobs", &self.blobs),
            ("cleaned", &self.cleaned),
            ("groups", &self.groups),
            ("log", &self.log),
            ("producers", &self.producers),
            ("state", &self.state),
            ("time", &self.time),
        ] {
            for guard in keyspace.iter() {
                let (key, value) = guard.into_inner()?;
                rows.push((name.to_owned(), key.to_vec(), value.to_vec()));
            }
        }
        Ok(rows)
    }
}

fn bound(partition: PartitionNumber, base_offset: Offset) -> [u8; 12] {
    BatchKey { partition, base_offset }.encode()
}

fn pair(guard: Guard) -> Result<(Bytes, Bytes), IndexError> {
    let (key, value) = guard.into_inner()?;
    Ok((Bytes::from(key), Bytes::from(value)))
}

fn batch_row(guard: Guard) -> Result<(BatchKey, BatchRow), IndexError> {
    let (key, value) = guard.into_inner()?;
    BatchKey::decode(&key).zip(decode_value(&value)).ok_or_else(|| damaged("log", &key))
}

fn time_row(guard: Guard) -> Result<(i64, Offset), IndexError> {
    let (key, value) = guard.into_inner()?;
    let row = TimeKey::decode(&key).zip(decode_offset(&value));
    row.map(|(k, offset)| (k.timestamp, offset)).ok_or_else(|| damaged("time", &key))
}

fn producer_row(guard: Guard) -> Result<(ProducerKey, ProducerRow), IndexError> {
    let (key, value) = guard.into_inner()?;
    ProducerKey::decode(&key).zip(decode_value(&value)).ok_or_else(|| damaged("producers", &key))
}

fn damaged(keyspace: &'static str, key: &[u8]) -> IndexError {
    IndexError::Row { keyspace, key: key.iter().map(|b| format!("{b:02x}")).collect() }
}
