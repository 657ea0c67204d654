//! Readers: the subscriptions behind one plugin key and their positions.
//!
//! A reader exists in memory while it is used; its groups and where they began are durable before the first answer.
//! What looks at the log blocks and is called on blocking threads, one at a time per reader. What only looks at the
//! positions, or moves them along behind a delivery, waits for none of that and may be called on any thread. Contract
//! events.md 5.1, 5.2, 5.8.

mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azulite_storage::batch::{BatchError, BatchHeader};
use azulite_storage::index::IndexError;
use azulite_storage::{Done, Record};
use bytes::Bytes;

use super::model::Model;
use super::pause::Ended;
use super::plugin_key::{Flow, Start, Subscription};
use super::position::Position;
use super::topic::TopicRef;
use crate::broker::{
    AppendError, Broker, CommitOffsetsError, CommittedOffset, Epoch, GroupChanges, GroupPositions, GroupRecord, Offset,
    OffsetChanges, Partition, PartitionNumber, ReadError, Records, Rewind, TopicPartition, Value,
};
use places::{Gaps, Next, Place, PlaceKey, State, SubscriptionState, TakenRange, move_along};

/// Bytes read from one partition at once, at most, about.
const READ_BYTES: usize = 1 << 20;
/// Bytes of records that one call reads at most, about, when hardly any of them is an event.
const TAKE_BYTES: usize = 8 << 20;
/// What a record of a partition takes before any was read, and what is read beyond those that are wanted, bytes.
const RECORD_BYTES: usize = 4 << 10;
/// What a record takes beside its value, about: mostly its key.
const RECORD_HEAD_BYTES: usize = 64;
/// How often "this group is in use" is written down.
const USED_EVERY_MS: i64 = 3_600_000;

/// Why a reader could not go on. Positions have not moved.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// The log could not be read; damage is named with its place.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The positions of a new group could not be made durable.
    #[error(transparent)]
    Commit(#[from] CommitOffsetsError),
}

/// What all readers share.
#[derive(Clone, Debug)]
pub struct ReaderContext {
    /// The log.
    pub broker: Broker,
    /// `events.topic_prefix`.
    pub topic_prefix: String,
    /// An idle group counts as new after this many milliseconds.
    pub group_retention_ms: i64,
    /// Historic gets a record for so many live ones even if there are more of those; 0 is none.
    pub historic_share: usize,
}

/// Who opens a reader.
#[derive(Clone, Debug, Default)]
pub enum User {
    /// A passive consumer: pauses are nothing to it.
    #[default]
    Passive,
    /// A task consumer, with the last pause that is over.
    Task(Option<Arc<Ended>>),
}

impl User {
    /// The number of the last pause that a group used by it has taken note of.
    fn pause(&self) -> Option<i64> {
        match self {
            Self::Passive => None,
            Self::Task(ended) => Some(ended.as_ref().map_or(0, |ended| ended.number())),
        }
    }

    /// The pause behind which a group goes on now that has taken note of those up to `seen`.
    fn concerned(&self, seen: Option<i64>, now_ms: i64) -> Option<Arc<Ended>> {
        match self {
            Self::Passive => None,
            Self::Task(ended) => ended.clone().filter(|ended| ended.concerns(seen, now_ms)),
        }
    }
}

/// What those look at who keep others from looking at the log.
#[derive(Default)]
struct Opening {
    /// When the groups were last looked at.
    opened_ms: i64,
    /// The last one to open it.
    user: User,
    /// The last pause its groups have taken note of; `None` before the first task consumer.
    pause: Option<i64>,
}

/// See the module.
pub struct Reader {
    context: ReaderContext,
    wanted: Vec<Subscription>,
    /// Held by whoever looks at the log, so across reads and commits: never taken on an async thread. Places come and go
    /// under it only.
    opening: Mutex<Opening>,
    /// Held for a moment only. Taken after `opening`.
    state: Mutex<State>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// One record on its way to a client.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What its topic holds; `None` for a topic that is not ours to read.
    pub model: Option<Model>,
    /// The event, Avro; empty for records that cannot be read at all.
    pub value: Bytes,
    /// The record's key, if any.
    pub key: Option<Bytes>,
    /// Where it lies; `None` for one that waited for this run.
    pub partition: Option<Arc<Partition>>,
    /// Where in it.
    pub offset: Offset,
    /// The subscription it was taken from.
    pub queue: usize,
}

/// Ranges handed out of one reader. Dropped without [`Taken::delivered`], they are given back.
#[derive(Debug)]
pub struct Taken {
    reader: Arc<Reader>,
    ranges: Vec<TakenRange>,
}

impl Taken {
    /// Nothing yet.
    pub fn nothing(reader: &Arc<Reader>) -> Self {
        Self { reader: reader.clone(), ranges: Vec::new() }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes over what `other` holds.
    pub fn join(&mut self, mut other: Taken) {
        self.ranges.append(&mut other.ranges);
    }

    /// The client has it: positions move.
    pub fn delivered(mut self) {
        let ranges = std::mem::take(&mut self.ranges);
        self.reader.acknowledge(&ranges);
    }

    /// A commit of these subscriptions failed: their positions are read anew, so that what was in it comes again.
    pub fn reread(&self, queues: &BTreeSet<usize>) {
        queues.iter().for_each(|queue| self.reader.begin_anew(*queue));
    }

    /// The subscriptions that something was taken from.
    pub fn queues(&self) -> BTreeSet<usize> {
        self.ranges.iter().map(|range| range.index).collect()
    }

    /// What was taken of one subscription is done with, in one commit with `values`. They come back when somebody else has
    /// moved the positions, so that they cannot be committed together.
    ///
    /// # Errors
    /// What was given; nothing has happened.
    pub fn commit(&mut self, queue: usize, values: Vec<Value>, done: Done) -> Result<(), (Vec<Value>, Done)> {
        let (of_queue, rest) = std::mem::take(&mut self.ranges).into_iter().partition(|range| range.index == queue);
        self.ranges = rest;
        self.reader.commit_ranges(queue, of_queue, values, done)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let ranges = std::mem::take(&mut self.ranges);
        if !ranges.is_empty() {
            self.reader.give_back(&ranges);
        }
    }
}

impl Reader {
    /// A reader of these subscriptions, in order of precedence. Nothing is looked up before it is used.
    pub fn new(context: ReaderContext, wanted: Vec<Subscription>) -> Self {
        Self { context, wanted, opening: Mutex::default(), state: Mutex::default() }
    }

    fn opening(&self) -> MutexGuard<'_, Opening> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fixes the positions of new groups, durably, and takes in topics made since the last call. Groups of a task consumer
    /// that a pause concerns go on behind it. Returns the flows that have no topic to read.
    ///
    /// # Errors
    /// See [`ReaderError`].
    pub fn open(&self, now_ms: i64, user: &User) -> Result<Vec<Flow>, ReaderError> {
        let mut opening = self.opening();
        let version = self.context.broker.topics_version();
        let pause_is_news = user.pause().is_some_and(|pause| opening.pause.is_none_or(|seen| seen < pause));
        opening.user = user.clone();
        // Also from time to time, so that it is written down that the groups are in use.
        let long_ago = opening.opened_ms.saturating_add(USED_EVERY_MS) < now_ms;
        let knows_topics = self.lock().topics_version == Some(version);
        if !knows_topics || long_ago || pause_is_news {
            self.look_for_topics(user, now_ms)?;
            self.lock().topics_version = Some(version);
            opening.opened_ms = now_ms;
            opening.pause = opening.pause.max(user.pause());
        }
        let state = self.lock();
        // Nobody has asked for those of other runs.
        let empty = state.subscriptions.iter().filter(|s| s.places.is_empty() && s.flow != Flow::Error);
        Ok(empty.map(|s| s.flow).collect())
    }

    /// Whether it knows all topics there are.
    pub fn is_current(&self) -> bool {
        self.lock().topics_version == Some(self.context.broker.topics_version())
    }

    /// Ends it: what is on its way is not acknowledged any more, nothing more is taken, and whoever waits is woken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.context.broker.wake(&self.partitions());
    }

    /// Whether another one has taken its place.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Whether it can leave the memory without a trace: else the next one would hand out again what was delivered behind
    /// an answer that was lost.
    pub fn is_settled(&self) -> bool {
        let state = self.lock();
        let mut places = state.subscriptions.iter().flat_map(|subscription| subscription.places.values());
        places.all(|place| place.position.is_settled())
    }

    /// Records of its groups that nobody has looked at yet: neither handed out nor passed over by a filter. `None` before it
    /// is opened, and while positions are read anew that somebody else has moved.
    pub fn left(&self) -> Option<i64> {
        let state = self.lock();
        let known = state.subscriptions.iter().all(|s| s.epoch == Some(s.positions.epoch()));
        if state.closed || state.subscriptions.is_empty() || !known {
            return None;
        }
        let places = state.subscriptions.iter().flat_map(|subscription| subscription.places.values());
        let live = places.filter(|place| !place.partition.is_gone());
        Some(live.map(|place| place.position.left(place.partition.offsets().high_watermark)).sum())
    }

    /// Forgets every position of its groups, durably, before it is opened.
    ///
    /// # Errors
    /// See [`ReaderError`].
    pub fn forget_groups(&self) -> Result<(), ReaderError> {
        let _opening = self.opening();
        self.wanted.iter().try_for_each(|subscription| self.forget(&subscription.group))
    }

    fn forget(&self, group: &str) -> Result<(), ReaderError> {
        let broker = &self.context.broker;
        let (log, positions) = (broker.log(), broker.positions(group));
        let offsets = log.group_offsets(group)?.into_keys().map(|place| (place, None)).collect();
        let values = vec![GroupRecord::remove(group), (Gaps::key(group), None)];
        let changes = GroupChanges { offsets, values, metadata: None };
        wait(|done| positions.overwrite(log.as_ref(), group, changes, done).map(|()| true))?;
        Ok(())
    }

    /// Reads positions anew that somebody else has moved.
    fn refresh(&self, user: &User) -> Result<(), ReaderError> {
        let any = {
            let mut state = self.lock();
            let moved = |(_, s): &(_, &mut SubscriptionState)| s.epoch != Some(s.positions.epoch());
            let moved = self.wanted.iter().zip(state.subscriptions.iter_mut()).filter(moved);
            moved.fold(false, |_, (wanted, subscription)| {
                tracing::info!(group = wanted.group, "the group's position was moved by somebody else");
                subscription.begin_anew();
                true
            })
        };
        match any {
            true => self.look_for_topics(user, azulite_storage::clock::now_ms()),
            false => Ok(()),
        }
    }

    fn look_for_topics(&self, user: &User, now_ms: i64) -> Result<(), ReaderError> {
        self.lock().subscribe(&self.wanted, &self.context.broker);
        // Live before historic, because historic ends where live began.
        let mut live_starts = BTreeMap::new();
        for (index, wanted) in self.wanted.iter().enumerate() {
            let bounded = wanted.flow == Flow::Historic && self.wanted.iter().any(|wanted| wanted.flow == Flow::Live);
            let ends = bounded.then_some(&live_starts);
            let starts = self.open_group(index, wanted, ends, user, now_ms)?;
            if wanted.flow == Flow::Live {
                live_starts = starts;
            }
        }
        Ok(())
    }

    /// Opens one group: stored positions, or new ones that are durable when this returns. Returns where it began.
    fn open_group(
        &self,
        index: usize,
        wanted: &Subscription,
        ends: Option<&BTreeMap<String, Vec<Offset>>>,
        user: &User,
        now_ms: i64,
    ) -> Result<BTreeMap<String, Vec<Offset>>, ReaderError> {
        loop {
            let group = self.begin_group(index, wanted, user, now_ms)?;
            if let Some(starts) = self.try_open_group(index, wanted, group, ends, now_ms)? {
                return Ok(starts);
            }
            // Somebody else wrote positions in between: they count.
            self.begin_anew(index);
        }
    }

    fn begin_anew(&self, index: usize) {
        if let Some(subscription) = self.lock().subscriptions.get_mut(index) {
            subscription.begin_anew();
        }
    }

    /// What is stored about a group, and the epoch that it belongs to.
    fn begin_group(
        &self,
        index: usize,
        wanted: &Subscription,
        user: &User,
        now_ms: i64,
    ) -> Result<OpenedGroup, ReaderError> {
        let ReaderContext { broker, group_retention_ms, .. } = &self.context;
        let (log, group) = (broker.log(), &wanted.group);
        let stored = GroupRecord::of(log.as_ref(), group)?;
        let expired = stored.as_ref().is_some_and(|r| r.used_ms.saturating_add(*group_retention_ms) < now_ms);
        if expired {
            tracing::info!(group, "the group was not used for its retention time and starts afresh");
            self.forget(group)?;
        }
        let seen = stored.filter(|_| !expired).and_then(|record| record.pause);
        let behind = user.concerned(seen, now_ms);
        if behind.is_some() {
            tracing::info!(group, "the group goes on where the last pause of plugins ended");
        }
        if expired || behind.is_some() {
            // First of all: what is on its way must not be written down behind what follows.
            self.begin_anew(index);
        }
        let (positions, epoch, rewind, known) = {
            let state = self.lock();
            let open = state.subscriptions.get(index);
            let known = open.filter(|open| open.epoch.is_some());
            let known = known.iter().flat_map(|open| &open.places).filter(|(_, place)| !place.partition.is_gone());
            let known = known.map(|(name, _)| name.clone()).collect();
            let positions = open.map(|open| open.positions.clone());
            (positions, open.and_then(|open| open.epoch), open.map(|open| open.rewind), known)
        };
        let positions = positions.unwrap_or_else(|| broker.positions(group));
        let (epoch, rewind, seen) = match epoch.zip(rewind) {
            Some((epoch, rewind)) => (epoch, rewind, None),
            None => {
                let (epoch, seen) = positions.settled_at();
                (epoch, Rewind::of(log.as_ref(), group)?, Some(seen))
            }
        };
        // What was read before the epoch began may have gone since.
        let stored = if expired { None } else { GroupRecord::of(log.as_ref(), group)? };
        let is_new = stored.is_none();
        let mut record = stored.unwrap_or_default();
        let mut changed = is_new || record.used_ms + USED_EVERY_MS < now_ms;
        if record.pause < user.pause() {
            record.pause = user.pause();
            changed = true;
        }
        Ok(OpenedGroup { positions, epoch, seen, rewind, known, is_new, record, changed, behind })
    }

    /// `None` when somebody else wrote the group's positions meanwhile.
    fn try_open_group(
        &self,
        index: usize,
        wanted: &Subscription,
        opened: OpenedGroup,
        ends: Option<&BTreeMap<String, Vec<Offset>>>,
        now_ms: i64,
    ) -> Result<Option<BTreeMap<String, Vec<Offset>>>, ReaderError> {
        let ReaderContext { broker, topic_prefix, .. } = &self.context;
        let log = broker.log();
        let Subscription { group, start, topics, .. } = wanted;
        let OpenedGroup {
            positions,
            epoch,
            seen,
            rewind,
            known: known_places,
            is_new,
            mut record,
            mut changed,
            behind,
        } = opened;
        let committed = log.group_offsets(group)?;
        let gaps = if behind.is_none() { Gaps::read(log.as_ref(), group, rewind)? } else { None };
        let (mut changes, mut all_starts) = (OffsetChanges::new(), BTreeMap::new());
        let mut fresh = BTreeMap::new();
        for topic in log.topics().iter().filter(|topic| topics.matches(&topic.name, topic_prefix)) {
            let model = TopicRef::parse(topic_prefix, &topic.name).and_then(TopicRef::model);
            let known = record.starts.get(&topic.name).cloned().unwrap_or_default();
            let mut starts = known.clone();
            for (index, partition) in topic.partitions.iter().enumerate() {
                let place = partition.name().clone();
                let offsets = partition.offsets();
                // Without a position it is another topic of that name than the one it began with.
                let began = known.get(index).filter(|_| committed.contains_key(&place));
                let pause_end =
                    behind.as_ref().map(|ended| ended.end_of(partition.number()).unwrap_or(offsets.log_start));
                let first = match (began, is_new, pause_end, start) {
                    (Some(start), ..) => *start,
                    (None, true, Some(end), _) => end.max(offsets.log_start),
                    (None, true, None, Start::Latest) => offsets.high_watermark,
                    // A topic made since: all of it is news to the group.
                    (None, _, _, Start::Earliest) | (None, false, _, Start::Latest) => offsets.log_start,
                };
                match starts.get_mut(index) {
                    Some(start) => *start = first,
                    None => starts.push(first),
                }
                let place_key = PlaceKey::of(place.clone());
                if known_places.contains(&place_key) {
                    continue;
                }
                let stored = committed.get(&place).map(|committed| committed.offset);
                let next = stored.unwrap_or(first);
                let next = pause_end.map_or(next, |end| next.max(end));
                if stored != Some(next) {
                    changes.push((place.clone(), Some(committed_offset(next, now_ms))));
                }
                let end = ends.map(|ends| ends.get(&place.topic).and_then(|o| o.get(index)).copied().unwrap_or(first));
                let gap =
                    gaps.as_ref().filter(|_| stored == Some(next)).and_then(|gaps| gaps.position(&place, next, end));
                let position = gap.unwrap_or_else(|| Position::new(next, end));
                let place = Place { partition: partition.clone(), model, position, record_bytes: RECORD_BYTES };
                fresh.insert(place_key, place);
            }
            // Partitions made since begin with their log start, which need not be written down.
            let written = if is_new { starts.len() } else { known.len() };
            if starts.get(..written) != Some(&known) {
                changed = true;
                record.starts.insert(topic.name.clone(), starts.clone());
            }
            all_starts.insert(topic.name.clone(), starts);
        }
        if changed || !changes.is_empty() {
            let mut values = Vec::new();
            if changed {
                record.used_ms = now_ms;
                values.push(record.put(group));
            }
            let changes = GroupChanges { offsets: changes, values, metadata: None };
            if !wait(|done| positions.write_behind(epoch, seen, log.as_ref(), group, changes, done))? {
                return Ok(None);
            }
        }
        if let Some(subscription) = self.lock().subscriptions.get_mut(index) {
            subscription.open(epoch, rewind, fresh, gaps.is_some());
        }
        Ok(Some(all_starts))
    }

    /// Tells what it hands out now from what its groups were handed before somebody moved their positions.
    pub fn rewind(&self) -> Rewind {
        self.lock().subscriptions.iter().map(|s| s.rewind).fold(Rewind::default(), Rewind::together)
    }

    /// Every partition it reads.
    pub fn partitions(&self) -> Vec<PartitionNumber> {
        let state = self.lock();
        state.subscriptions.iter().flat_map(|s| s.places.values().map(|place| place.partition.number())).collect()
    }

    /// Takes up to `count` records and about `max_bytes`, without waiting: by precedence, but for the share of historic
    /// (contract events.md 10.5), which comes before live once it is due. Tombstones are taken and left out; of a long run
    /// of them one call takes a part, so that nothing in the first part of the answer does not mean that there is nothing.
    ///
    /// # Errors
    /// [`ReaderError::Read`]; what was taken in this call has been given back.
    pub fn take(self: &Arc<Self>, count: usize, max_bytes: usize) -> Result<(Vec<Candidate>, Taken), ReaderError> {
        self.take_of(None, count, max_bytes)
    }

    /// [`Reader::take`], from the one subscription of `flow` only.
    ///
    /// # Errors
    /// As [`Reader::take`].
    pub fn take_flow(
        self: &Arc<Self>,
        flow: Flow,
        count: usize,
        max_bytes: usize,
    ) -> Result<(Vec<Candidate>, Taken), ReaderError> {
        self.take_of(Some(flow), count, max_bytes)
    }

    fn take_of(
        self: &Arc<Self>,
        flow: Option<Flow>,
        count: usize,
        max_bytes: usize,
    ) -> Result<(Vec<Candidate>, Taken), ReaderError> {
        let taken = Taken::nothing(self);
        let mut batch = Batch { candidates: Vec::new(), bytes: 0, read_bytes: 0, count, max_bytes, taken };
        {
            let opening = self.opening();
            if self.is_closed() {
                return Ok((batch.candidates, batch.taken));
            }
            self.refresh(&opening.user)?;
            match flow.map(|flow| self.wanted.iter().position(|wanted| wanted.flow == flow)) {
                None => self.take_by_precedence(&mut batch)?,
                Some(Some(index)) => self.take_from(index, &mut batch)?,
                Some(None) => {}
            }
        }
        Ok((batch.candidates, batch.taken))
    }

    fn take_by_precedence(&self, batch: &mut Batch) -> Result<(), ReaderError> {
        let place_of = |flow| self.wanted.iter().position(|wanted| wanted.flow == flow);
        let both = place_of(Flow::Live).zip(place_of(Flow::Historic)).filter(|_| self.context.historic_share > 0);
        for index in 0..self.wanted.len() {
            let shared = both.filter(|(live, _)| *live == index).map(|(_, historic)| historic);
            if let Some(historic) = shared {
                self.take_share(historic, batch)?;
            }
            let before = batch.candidates.len();
            self.take_from(index, batch)?;
            if let Some(historic) = shared {
                self.lock().went_ahead(historic, batch.candidates.len() - before);
            }
        }
        Ok(())
    }

    /// Takes from historic what it is due for the live records that went ahead of its own.
    fn take_share(&self, historic: usize, batch: &mut Batch) -> Result<(), ReaderError> {
        let share = self.context.historic_share;
        let due = self.lock().ahead / share;
        if due == 0 {
            return Ok(());
        }
        let (before, count) = (batch.candidates.len(), batch.count);
        batch.count = count.min(before + due);
        self.take_from(historic, batch)?;
        batch.count = count;
        self.lock().ahead -= (batch.candidates.len() - before).min(due) * share;
        Ok(())
    }

    fn take_from(&self, index: usize, batch: &mut Batch) -> Result<(), ReaderError> {
        while !batch.full() && batch.read_bytes < TAKE_BYTES {
            let next = self.lock().subscriptions.get_mut(index).and_then(|subscription| subscription.next(index));
            match next {
                Some(next) => self.take_range(next, batch)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Takes from one partition what one read gives.
    fn take_range(&self, next: Next, batch: &mut Batch) -> Result<(), ReaderError> {
        let Next { range, partition, model, record_bytes, limit } = next;
        let (name, from) = (range.name.clone(), range.from);
        let mut to = from;
        let read = match self.context.broker.log().read(&partition, from, batch.wanted_bytes(record_bytes)) {
            // Deleted, or let go by its age, meanwhile: the next call sees that.
            Err(ReadError::Gone { .. }) => return Ok(()),
            Err(ReadError::OutOfRange { allowed, .. }) if allowed.start > from => return Ok(()),
            read => read?,
        };
        batch.read_bytes += read.iter().map(Bytes::len).sum::<usize>();
        let (mut records, before, bytes_before) = (0_usize, batch.candidates.len(), batch.bytes);
        'read: for bytes in read {
            let bad = |reason| ReadError::Batch { partition: name.name.clone(), offset: from, reason };
            // Offsets without a record, in a batch that was cleaned, are done with as well.
            let end = BatchHeader::read(&bytes).map_err(bad)?.last_offset() + 1;
            for record in records_of(&bytes) {
                match record {
                    Ok(record) if record.offset < from => {}
                    Ok(record) if record.offset >= limit || batch.full() => break 'read,
                    Ok(record) => {
                        to = record.offset + 1;
                        records += 1;
                        batch.add(model, &partition, record, range.index);
                    }
                    // Stored as it was sent: no reader will ever get further, and what lies behind it is good.
                    Err(_) if batch.full() => break 'read,
                    Err(reason) => {
                        let (first, last) = (to, end - 1);
                        let TopicPartition { topic, partition: number } = &name.name;
                        tracing::warn!(topic, partition = number, first, last, %reason,
                            "records that a Kafka client sent cannot be read: they are left out");
                        batch.add_unreadable(model, &partition, first, range.index);
                    }
                }
            }
            to = to.max(end.min(limit));
        }
        // No record below the limit is left.
        let to = if to == from { limit } else { to };
        if let Some(place) = self.lock().place_of(&range) {
            place.position.take(from, to);
            let each = (batch.bytes - bytes_before).checked_div(records);
            place.record_bytes = each.map_or(place.record_bytes, |bytes| bytes + RECORD_HEAD_BYTES);
            batch.taken.ranges.push(range);
        } else {
            batch.candidates.truncate(before);
        }
        Ok(())
    }

    fn acknowledge(&self, ranges: &[TakenRange]) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let (moved, known) = done_with(&mut state, ranges);
        for index in known {
            let offsets = moved.get(&index).cloned().unwrap_or_default();
            self.commit(&mut state, index, offsets);
        }
    }

    fn commit_ranges(
        &self,
        queue: usize,
        ranges: Vec<TakenRange>,
        mut values: Vec<Value>,
        done: Done,
    ) -> Result<(), (Vec<Value>, Done)> {
        let mut state = self.lock();
        if state.closed {
            return Err((values, done));
        }
        let (mut moved, known) = done_with(&mut state, &ranges);
        let offsets = moved.remove(&queue).unwrap_or_default();
        for (index, offsets) in moved {
            self.commit(&mut state, index, offsets);
        }
        let own = state.subscriptions.get_mut(queue).zip(self.wanted.get(queue)).filter(|_| known.contains(&queue));
        let Some((subscription, wanted)) = own else { return Err((values, done)) };
        let Some(epoch) = subscription.epoch else { return Err((values, done)) };
        let kept = values.clone();
        values.extend(subscription.gaps(&wanted.group));
        let changes = GroupChanges { offsets: offset_changes(offsets), values, metadata: None };
        // It comes back out of a write that was not begun.
        let slot = Arc::new(Mutex::new(Some(done)));
        let called = slot.clone();
        let take = |slot: &Mutex<Option<Done>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let done = Box::new(move |outcome| {
            if let Some(done) = take(&called) {
                done(outcome);
            }
        });
        let log = self.context.broker.log();
        match subscription.positions.write(epoch, log.as_ref(), &wanted.group, changes, done) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => match take(&slot) {
                Some(done) => Err((kept, done)),
                None => Ok(()),
            },
        }
    }

    /// Queued under the reader's lock, so that positions reach the log in order. Left out when somebody else has moved
    /// them.
    fn commit(&self, state: &mut State, index: usize, offsets: BTreeMap<PlaceKey, Offset>) {
        let Some((subscription, wanted)) = state.subscriptions.get_mut(index).zip(self.wanted.get(index)) else {
            return;
        };
        let Some(epoch) = subscription.epoch else { return };
        let group = &wanted.group;
        let values: Vec<Value> = subscription.gaps(group).into_iter().collect();
        if offsets.is_empty() && values.is_empty() {
            return;
        }
        let name = group.clone();
        let done = Box::new(move |outcome: Result<_, _>| {
            if let Err(error) = outcome {
                tracing::error!(group = name, %error, "a group's position was not written; events will come again");
            }
        });
        let changes = GroupChanges { offsets: offset_changes(offsets), values, metadata: None };
        let log = self.context.broker.log();
        if let Err(error) = subscription.positions.write(epoch, log.as_ref(), group, changes, done) {
            tracing::error!(group, %error, "a group's position was not written; events will come again");
        }
    }

    fn give_back(&self, ranges: &[TakenRange]) {
        let mut state = self.lock();
        let mut numbers = Vec::with_capacity(ranges.len());
        for range in ranges {
            if let Some(place) = state.place_of(range) {
                place.position.give_back(range.from);
                numbers.push(place.partition.number());
            }
        }
        drop(state);
        self.context.broker.wake(&numbers);
    }
}

/// New durable positions by subscription and partition.
type Moved = BTreeMap<usize, BTreeMap<PlaceKey, Offset>>;

/// Takes note that ranges are done with: the positions that move, and the subscriptions they are of.
fn done_with(state: &mut State, ranges: &[TakenRange]) -> (Moved, BTreeSet<usize>) {
    let (mut moved, mut known) = (Moved::new(), BTreeSet::new());
    for range in ranges {
        let Some(place) = state.place_of(range).filter(|place| !place.partition.is_gone()) else { continue };
        known.insert(range.index);
        if let Some(offset) = place.position.done(range.from) {
            moved.entry(range.index).or_default().insert(range.name.clone(), offset);
        }
    }
    move_along(state, &mut moved);
    known.extend(moved.keys());
    (moved, known)
}

fn offset_changes(offsets: BTreeMap<PlaceKey, Offset>) -> OffsetChanges {
    let now_ms = azulite_storage::clock::now_ms();
    offsets.into_iter().map(|(place, offset)| (place.name, Some(committed_offset(offset, now_ms)))).collect()
}

/// What is known about a group that is being opened.
struct OpenedGroup {
    positions: Arc<GroupPositions>,
    epoch: Epoch,
    /// For a first opening, how many writes of the group there were: where it begins is no news to a group that another
    /// reader, which takes its place, has opened since.
    seen: Option<u64>,
    /// Which deliveries of the past count.
    rewind: Rewind,
    /// The places it has already.
    known: BTreeSet<PlaceKey>,
    is_new: bool,
    record: GroupRecord,
    /// The record is to be written.
    changed: bool,
    /// The pause behind which it goes on.
    behind: Option<Arc<Ended>>,
}

/// Queues a write with `start` and waits until it is durable. False when it was not queued.
fn wait(
    start: impl FnOnce(azulite_storage::Done) -> Result<bool, CommitOffsetsError>,
) -> Result<bool, CommitOffsetsError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    // It is waited for below.
    if !start(Box::new(move |outcome| drop(sender.send(outcome))))? {
        return Ok(false);
    }
    receiver.recv().unwrap_or(Err(AppendError::Closed))?;
    Ok(true)
}

struct Batch {
    candidates: Vec<Candidate>,
    /// Of the candidates.
    bytes: usize,
    /// Of everything that was read for them.
    read_bytes: usize,
    count: usize,
    max_bytes: usize,
    taken: Taken,
}

impl Batch {
    /// Bytes to read for what is still wanted, of records of `record_bytes`.
    fn wanted_bytes(&self, record_bytes: usize) -> usize {
        let records = self.count.saturating_sub(self.candidates.len()).saturating_mul(record_bytes);
        let room = self.max_bytes.saturating_sub(self.bytes).max(1);
        records.saturating_add(RECORD_BYTES).min(READ_BYTES).min(room)
    }

    fn full(&self) -> bool {
        self.candidates.len() >= self.count || self.bytes >= self.max_bytes
    }

    fn add(&mut self, model: Option<Model>, partition: &Arc<Partition>, record: Record, queue: usize) {
        let Record { offset, key, value, .. } = record;
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.bytes += value.len();
            let partition = Some(partition.clone());
            self.candidates.push(Candidate { model, value, key, partition, offset, queue });
        }
    }

    /// What stands for records that cannot be read: it is counted as an event that is none.
    fn add_unreadable(&mut self, model: Option<Model>, partition: &Arc<Partition>, offset: Offset, queue: usize) {
        let partition = Some(partition.clone());
        self.candidates.push(Candidate { model, value: Bytes::new(), key: None, partition, offset, queue });
    }
}

/// The records of a batch up to the first error.
fn records_of(batch: &Bytes) -> impl Iterator<Item = Result<Record, BatchError>> + use<> {
    let (records, unreadable) = match Records::of(batch) {
        Ok(records) => (Some(records), None),
        Err(error) => (None, Some(Err(error))),
    };
    records.into_iter().flatten().chain(unreadable)
}

fn committed_offset(offset: Offset, commit_time_ms: i64) -> CommittedOffset {
    CommittedOffset { offset, leader_epoch: -1, metadata: String::new(), commit_time_ms }
}

#[cfg(test)]
mod flows;
#[cfg(test)]
mod tests;
