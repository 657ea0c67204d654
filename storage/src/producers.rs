//! Idempotent producers: what each last wrote to each partition, so that a batch sent twice is stored once
//! (`kafka.md` 5.1).
//!
//! The committer owns [`Producers`] and asks it in arrival order, when offsets are given: it knows batches that are not
//! durable yet. What it knows goes to keyspace `producers` of the index in the same engine batch as the rows of the
//! record batches, and is a function of the frames alone ([`advance`]), so that replay and rebuild give the same rows.
//! Batches without a producer id cost nothing here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::batch::BatchHeader;
use crate::ids::{CommitNumber, Offset, TopicPartition};
use crate::index::{Index, IndexError, StateKeyspace};
use crate::keys::producer::{ProducerKey, ProducerRow, WrittenBatch};
use crate::partition::Partition;
use crate::state::{Change, StateKey, value};
use crate::store::{AppendError, Store};

/// Batches of a producer that are remembered in each partition: as many as it may have under way.
const REMEMBERED: usize = 5;
/// Sequence numbers are 0 to 2^31 - 1 and start again.
const SEQUENCES: i64 = 1 << 31;
/// Producers kept in memory, about. Those whose rows have not reached the index stay in any case.
const KEPT: usize = 16_384;
/// Producer ids reserved at once: each reservation is one commit.
const BLOCK: i64 = 1000;

/// Why a batch of an idempotent producer is not appended. It is not in the log, unless it is a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// It is in the log, but so long ago that its offset is forgotten.
    #[error("records {first_sequence} to {last_sequence} are in the log already, {expected} comes next")]
    Duplicate {
        /// Sequence number of its first record.
        first_sequence: i32,
        /// Sequence number of its last record.
        last_sequence: i32,
        /// What comes next.
        expected: i32,
    },
    /// Records before it are missing.
    #[error("record {first_sequence} came, {expected} comes next")]
    OutOfOrder {
        /// Sequence number of its first record.
        first_sequence: i32,
        /// What comes next.
        expected: i32,
    },
    /// A newer instance of the producer has written.
    #[error("epoch {epoch} came, epoch {current} has written")]
    Epoch {
        /// Its epoch.
        epoch: i16,
        /// The newest one.
        current: i16,
    },
}

/// A batch of an idempotent producer that is not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{partition}: producer {producer_id}: {error}")]
pub struct RefusedBatch {
    /// The partition.
    pub partition: TopicPartition,
    /// The producer.
    pub producer_id: i64,
    /// Why.
    pub error: SequenceError,
}

/// The sequence number `count` behind `sequence`.
fn behind(sequence: i32, count: i64) -> i32 {
    i32::try_from((i64::from(sequence) + count).rem_euclid(SEQUENCES)).unwrap_or(0)
}

/// Sequence number of the last record of a batch, also of one whose records were removed.
fn last_sequence(header: &BatchHeader) -> i32 {
    behind(header.base_sequence, i64::from(header.last_offset_delta))
}

/// What the producer has to send next; 0 behind a marker that began its epoch.
fn expected(row: &ProducerRow) -> i32 {
    row.batches.last().map_or(0, |last| behind(last.last_sequence, 1))
}

/// A producer's row behind one more batch of it, appended at `append_time_ms`; `old` is its row before, unless that
/// has expired.
pub(crate) fn advance(
    old: Option<ProducerRow>,
    header: &BatchHeader,
    base_offset: Offset,
    append_time_ms: i64,
) -> ProducerRow {
    let epoch = header.producer_epoch;
    let follows = |row: &ProducerRow| header.is_control() || expected(row) == header.base_sequence;
    let new = || ProducerRow { epoch, batches: Vec::new(), run: 0, last_write_ms: append_time_ms };
    // What does not follow was let in because the row had expired, or frames in between are gone.
    let mut row = old.filter(|row| row.epoch == epoch && follows(row)).unwrap_or_else(new);
    row.last_write_ms = append_time_ms;
    if !header.is_control() {
        let (first_sequence, last_sequence) = (header.base_sequence, last_sequence(header));
        row.batches.push(WrittenBatch { first_sequence, last_sequence, base_offset, append_time_ms });
        row.batches.drain(..row.batches.len().saturating_sub(REMEMBERED));
        let count = u32::try_from(header.last_offset_delta).unwrap_or(0).saturating_add(1);
        row.run = row.run.saturating_add(count).min(i32::MAX.unsigned_abs());
    }
    row
}

/// True when a row is as good as none.
pub(crate) fn has_expired(row: &ProducerRow, now_ms: i64, expiration_ms: i64) -> bool {
    row.last_write_ms.saturating_add(expiration_ms) < now_ms
}

/// Whether a batch follows what the producer wrote: `Ok(Some)` when it is one of the last five.
fn check(row: &ProducerRow, header: &BatchHeader) -> Result<Option<WrittenBatch>, SequenceError> {
    let BatchHeader { producer_epoch: epoch, base_sequence: first_sequence, .. } = *header;
    let last_sequence = last_sequence(header);
    if epoch < row.epoch {
        return Err(SequenceError::Epoch { epoch, current: row.epoch });
    }
    if header.is_control() {
        return Ok(None);
    }
    if epoch > row.epoch {
        let error = SequenceError::OutOfOrder { first_sequence, expected: 0 };
        return if first_sequence == 0 { Ok(None) } else { Err(error) };
    }
    let same =
        |written: &&WrittenBatch| (written.first_sequence, written.last_sequence) == (first_sequence, last_sequence);
    if let Some(written) = row.batches.iter().find(same) {
        return Ok(Some(*written));
    }
    let expected = expected(row);
    if first_sequence == expected {
        return Ok(None);
    }
    // How far back it begins. "In the log already" is said only of records that certainly are.
    let back = (i64::from(expected) - i64::from(first_sequence)).rem_euclid(SEQUENCES);
    let count = i64::from(header.last_offset_delta) + 1;
    if back <= i64::from(row.run) && count <= back {
        Err(SequenceError::Duplicate { first_sequence, last_sequence, expected })
    } else {
        Err(SequenceError::OutOfOrder { first_sequence, expected })
    }
}

struct Kept {
    row: ProducerRow,
    /// The commit that wrote it.
    commit: CommitNumber,
}

/// A producer that nothing is known of but that its first batch was refused for want of room.
#[derive(Clone, Copy)]
struct Held {
    epoch: i16,
    /// What it has to send again before anything else of this epoch is taken.
    sequence: i32,
    refused_ms: i64,
}

impl Held {
    fn by(header: &BatchHeader, refused_ms: i64) -> Self {
        Self { epoch: header.producer_epoch, sequence: header.base_sequence, refused_ms }
    }
}

/// What the commit under way changed of a producer.
struct Changed {
    key: ProducerKey,
    before: Option<Kept>,
    /// Set when nothing was known of it: what holds if the commit is refused.
    begun: Option<Held>,
}

/// Producers as of the newest batch, durable or not. Belongs to the committer.
pub(crate) struct Producers {
    expiration_ms: i64,
    kept: HashMap<ProducerKey, Kept>,
    changed: Vec<Changed>,
    /// Several batches of a producer are under way at once. One that is refused for want of room comes again, behind
    /// those that followed it: without this the first of them would pass, as a producer that is not known may begin
    /// with any sequence number, and the refused one would come too late for ever.
    held: HashMap<ProducerKey, Held>,
}

impl Producers {
    pub(crate) fn new(expiration_ms: i64) -> Self {
        Self { expiration_ms, kept: HashMap::new(), changed: Vec::new(), held: HashMap::new() }
    }

    /// The row of a producer, unless it has expired.
    fn live(&self, index: &Index, key: ProducerKey, now_ms: i64) -> Result<Option<ProducerRow>, AppendError> {
        let old = match self.kept.get(&key) {
            Some(kept) => Some(kept.row.clone()),
            None => index.producer(key).map_err(|error| AppendError::Io { reason: error.to_string() })?,
        };
        Ok(old.filter(|row| !has_expired(row, now_ms, self.expiration_ms)))
    }

    /// Takes in a batch that will get `base_offset` in `commit`, or says which one of the last five it is.
    pub(crate) fn admit(
        &mut self,
        index: &Index,
        partition: &Partition,
        header: &BatchHeader,
        (base_offset, append_time_ms, commit): (Offset, i64, CommitNumber),
    ) -> Result<Option<WrittenBatch>, AppendError> {
        let key = ProducerKey { partition: partition.number(), producer_id: header.producer_id };
        let live = self.live(index, key, append_time_ms)?;
        let checked = match &live {
            Some(row) => check(row, header),
            None => self.check_held(key, header, append_time_ms).map(|()| None),
        };
        if let Some(written) = checked.map_err(|error| named(partition.name(), header.producer_id, error))? {
            return Ok(Some(written));
        }
        let begun = live.is_none().then(|| Held::by(header, append_time_ms));
        let row = advance(live, header, base_offset, append_time_ms);
        let before = self.kept.insert(key, Kept { row, commit });
        self.changed.push(Changed { key, before, begun });
        Ok(None)
    }

    /// Whether a batch of a producer that is not known may be its first one.
    fn check_held(&self, key: ProducerKey, header: &BatchHeader, now_ms: i64) -> Result<(), SequenceError> {
        let first_sequence = header.base_sequence;
        let held =
            self.held.get(&key).filter(|held| held.epoch == header.producer_epoch && !self.is_over(held, now_ms));
        match held.map(|held| held.sequence) {
            Some(expected) if expected != first_sequence && !header.is_control() => {
                Err(SequenceError::OutOfOrder { first_sequence, expected })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn is_over(&self, held: &Held, now_ms: i64) -> bool {
        held.refused_ms.saturating_add(self.expiration_ms) < now_ms
    }

    /// Takes note of a batch that is refused for want of room before it was taken in.
    ///
    /// # Errors
    /// The index failed.
    pub(crate) fn refuse(
        &mut self,
        index: &Index,
        partition: &Partition,
        header: &BatchHeader,
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let key = ProducerKey { partition: partition.number(), producer_id: header.producer_id };
        // One that is known has to go on where it was.
        if self.live(index, key, now_ms)?.is_none() {
            self.hold(key, Held::by(header, now_ms));
        }
        Ok(())
    }

    /// Holds a producer back. Of the batches of one epoch the first that was refused counts.
    fn hold(&mut self, key: ProducerKey, held: Held) {
        let now_ms = held.refused_ms;
        // A marker has no place in a sequence.
        if held.sequence < 0 {
            return;
        }
        if self.held.len() >= KEPT && !self.held.contains_key(&key) {
            let expiration_ms = self.expiration_ms;
            self.held.retain(|_, held| held.refused_ms.saturating_add(expiration_ms) >= now_ms);
            if self.held.len() >= KEPT {
                return;
            }
        }
        let old = self.held.get(&key).copied().filter(|old| !self.is_over(old, now_ms));
        match old {
            Some(old) if old.epoch > held.epoch => return,
            Some(old) if old.epoch == held.epoch => self.held.insert(key, Held { refused_ms: now_ms, ..old }),
            Some(_) | None => self.held.insert(key, held),
        };
    }

    /// The commit under way is refused for want of room: takes back all it took in.
    pub(crate) fn refuse_all(&mut self) {
        let begun: Vec<_> = self.changed.iter().filter_map(|changed| Some((changed.key, changed.begun?))).collect();
        self.back_to(0);
        begun.into_iter().for_each(|(key, held)| self.hold(key, held));
    }

    /// A place to go back to.
    pub(crate) fn mark(&self) -> usize {
        self.changed.len()
    }

    /// Takes back what was taken in since the mark.
    pub(crate) fn back_to(&mut self, mark: usize) {
        while self.changed.len() > mark
            && let Some(Changed { key, before, .. }) = self.changed.pop()
        {
            match before {
                Some(before) => self.kept.insert(key, before),
                None => self.kept.remove(&key),
            };
        }
    }

    /// What the commit under way changed, now that it is written; `applied` is the last commit in the index.
    pub(crate) fn settle(&mut self, applied: impl FnOnce() -> CommitNumber) -> Vec<(ProducerKey, ProducerRow)> {
        let mut keys: Vec<_> = self.changed.drain(..).map(|changed| changed.key).collect();
        keys.sort_unstable();
        keys.dedup();
        if !self.held.is_empty() {
            self.held.retain(|key, _| keys.binary_search(key).is_err());
        }
        let row = |key: ProducerKey| Some((key, self.kept.get(&key)?.row.clone()));
        let rows = keys.into_iter().filter_map(row).collect();
        if self.kept.len() > KEPT {
            self.forget(applied());
        }
        rows
    }

    /// Lets go of the half that wrote longest ago, as far as the index has it.
    fn forget(&mut self, applied: CommitNumber) {
        let mut commits: Vec<_> = self.kept.values().map(|kept| kept.commit).collect();
        let middle = commits.len() / 2;
        let (_, middle, _) = commits.select_nth_unstable(middle);
        let oldest = (*middle).min(applied);
        self.kept.retain(|_, kept| kept.commit > oldest);
    }
}

/// Producers as recovery brings them forward, until their rows are written.
pub(crate) struct Replay {
    expiration_ms: i64,
    rows: BTreeMap<ProducerKey, ProducerRow>,
}

impl Default for Replay {
    fn default() -> Self {
        Self::new(i64::MAX)
    }
}

impl Replay {
    pub(crate) fn new(expiration_ms: i64) -> Self {
        Self { expiration_ms, rows: BTreeMap::new() }
    }

    /// A batch that is in the log, at this offset and time.
    pub(crate) fn replay(
        &mut self,
        index: &Index,
        key: ProducerKey,
        header: &BatchHeader,
        (base_offset, append_time_ms): (Offset, i64),
    ) -> Result<(), IndexError> {
        let old = match self.rows.remove(&key) {
            Some(row) => Some(row),
            None => index.producer(key)?,
        };
        let live = old.filter(|row| !has_expired(row, append_time_ms, self.expiration_ms));
        self.rows.insert(key, advance(live, header, base_offset, append_time_ms));
        Ok(())
    }

    /// True when the rows should be written before more come.
    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= KEPT
    }

    /// The rows to write.
    pub(crate) fn take(&mut self) -> Vec<(ProducerKey, ProducerRow)> {
        std::mem::take(&mut self.rows).into_iter().collect()
    }
}

fn named(partition: &TopicPartition, producer_id: i64, error: SequenceError) -> AppendError {
    AppendError::Sequence(Box::new(RefusedBatch { partition: partition.clone(), producer_id, error }))
}

/// What one producer last wrote to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The producer's id.
    pub producer_id: i64,
    /// Its newest epoch.
    pub epoch: i16,
    /// Its last batches of that epoch, oldest first: at most five, none behind a marker that began the epoch.
    pub batches: Vec<WrittenBatch>,
    /// When it last wrote, milliseconds since 1970.
    pub last_write_ms: i64,
}

/// Producer ids that are reserved and not given yet.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds(Mutex<Reserved>);

#[derive(Debug, Default)]
struct Reserved {
    next: i64,
    end: i64,
}

impl ProducerIds {
    /// Goes on behind everything that was ever reserved.
    pub(crate) fn read(index: &Index) -> Result<Self, IndexError> {
        let record = index.state(StateKeyspace::State, &StateKey::ProducerIds.encode())?;
        let end = record.and_then(|bytes| value::<i64>(&bytes)).unwrap_or(0);
        Ok(Self(Mutex::new(Reserved { next: end, end })))
    }
}

impl Store {
    /// A producer id that was never given before. Now and then this waits for a commit.
    ///
    /// # Durability
    /// No id is given again, whatever happens: ids are reserved in blocks, and a block that a crash interrupts is lost.
    /// # Errors
    /// See [`AppendError`].
    pub fn init_producer_id(&self) -> Result<i64, AppendError> {
        let mut reserved = self.core.producer_ids.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.next == reserved.end {
            let end = reserved.end + BLOCK;
            let change = Change::put(&StateKey::ProducerIds, &end);
            self.core.change_wait(vec![(StateKeyspace::State, change)], false)?;
            reserved.end = end;
        }
        let id = reserved.next;
        reserved.next += 1;
        Ok(id)
    }

    /// The producers that have written to a partition and have not expired at `now_ms`, by id.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn producers(&self, partition: &Partition, now_ms: i64) -> Result<Vec<ProducerState>, IndexError> {
        self.core.settle();
        let expiration_ms = self.core.options.producer_expiration_ms;
        let live = |row: &Result<(ProducerKey, ProducerRow), IndexError>| {
            !row.as_ref().is_ok_and(|(_, row)| has_expired(row, now_ms, expiration_ms))
        };
        let state = |(key, row): (ProducerKey, ProducerRow)| ProducerState {
            producer_id: key.producer_id,
            epoch: row.epoch,
            batches: row.batches,
            last_write_ms: row.last_write_ms,
        };
        self.core.index.producers(partition.number()).filter(live).map(|row| row.map(state)).collect()
    }
}

#[cfg(test)]
mod tests;
