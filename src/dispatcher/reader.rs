//! Readers: the subscriptions behind one plugin key and their positions.
//!
//! A reader exists in memory while it is used; its groups and where they began are durable before the first answer.
//! Every call here blocks on the log and is made on a blocking thread. Contract events.md 5.1, 5.2, 5.8.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azulite_storage::Record;
use azulite_storage::batch::{BatchError, BatchHeader};
use azulite_storage::index::IndexError;
use bytes::Bytes;

use super::model::Model;
use super::pause::Ended;
use super::plugin_key::{Flow, Start, Subscription};
use super::position::Position;
use super::topic::{Action, TopicRef};
use crate::broker::{
    AppendError, Broker, CommitOffsetsError, CommittedOffset, Epoch, GroupChanges, GroupPositions, GroupRecord, Offset,
    OffsetChanges, Partition, PartitionNumber, ReadError, Records, Rewind, TopicPartition,
};

/// Bytes read from one partition at once, about.
const READ_BYTES: usize = 1 << 20;
/// Bytes of records that one call reads at most, about, when hardly any of them is an event.
const TAKE_BYTES: usize = 8 << 20;
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

/// One partition of one subscription.
struct Place {
    partition: Arc<Partition>,
    model: Option<Model>,
    position: Position,
}

/// A partition in the order in which those of one subscription are read: files before what was made of them, so that a
/// parent comes before its children (contract events.md X17), then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PlaceKey {
    rank: usize,
    name: TopicPartition,
}

impl PlaceKey {
    fn of(name: TopicPartition) -> Self {
        let action = name.topic.rsplit('.').next().unwrap_or_default();
        let rank = Action::ALL.iter().position(|known| known.as_str() == action).unwrap_or(0);
        Self { rank, name }
    }
}

struct SubscriptionState {
    subscription: Subscription,
    positions: Arc<GroupPositions>,
    /// What the places belong to; `None` when they have to be read anew.
    epoch: Option<Epoch>,
    /// Which deliveries of the past count.
    rewind: Rewind,
    places: BTreeMap<PlaceKey, Place>,
    /// The partition that was read last: the others come first next time.
    last: Option<PlaceKey>,
}

#[derive(Default)]
struct State {
    subscriptions: Vec<SubscriptionState>,
    topics_version: Option<u64>,
    /// When the groups were last looked at.
    opened_ms: i64,
    /// The last one to open it.
    user: User,
    /// The last pause its groups have taken note of; `None` before the first task consumer.
    pause: Option<i64>,
    closed: bool,
    /// Records taken from live, while historic had some, for which it has not got its share yet.
    ahead: usize,
}

/// See the module.
pub struct Reader {
    context: ReaderContext,
    wanted: Vec<Subscription>,
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
    /// Where it lies.
    pub partition: Arc<Partition>,
    /// Where in it.
    pub offset: Offset,
}

/// Ranges handed out of one reader. Dropped without [`Taken::delivered`], they are given back.
#[derive(Debug)]
pub struct Taken {
    reader: Arc<Reader>,
    ranges: Vec<TakenRange>,
}

/// One range of one partition.
#[derive(Debug)]
struct TakenRange {
    /// The subscription it is of.
    index: usize,
    /// One taken before somebody else moved the group's position means nothing any more.
    epoch: Option<Epoch>,
    name: PlaceKey,
    /// One taken from a topic that has been deleted means nothing to another of that name.
    partition: PartitionNumber,
    from: Offset,
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
        Self { context, wanted, state: Mutex::default() }
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
        let mut state = self.lock();
        let version = self.context.broker.topics_version();
        let pause_is_news = user.pause().is_some_and(|pause| state.pause.is_none_or(|seen| seen < pause));
        state.user = user.clone();
        // Also from time to time, so that it is written down that the groups are in use.
        let long_ago = state.opened_ms.saturating_add(USED_EVERY_MS) < now_ms;
        if state.topics_version != Some(version) || long_ago || pause_is_news {
            self.look_for_topics(&mut state, now_ms)?;
            state.topics_version = Some(version);
            state.opened_ms = now_ms;
            state.pause = state.pause.max(user.pause());
        }
        let empty = state.subscriptions.iter().filter(|s| s.places.is_empty());
        Ok(empty.map(|s| s.subscription.flow).collect())
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

    /// Forgets every position of its groups, durably, before it is opened.
    ///
    /// # Errors
    /// See [`ReaderError`].
    pub fn forget_groups(&self) -> Result<(), ReaderError> {
        let _state = self.lock();
        self.wanted.iter().try_for_each(|subscription| self.forget(&subscription.group))
    }

    fn forget(&self, group: &str) -> Result<(), ReaderError> {
        let broker = &self.context.broker;
        let (log, positions) = (broker.log(), broker.positions(group));
        let offsets = log.group_offsets(group)?.into_keys().map(|place| (place, None)).collect();
        let changes = GroupChanges { offsets, values: vec![GroupRecord::remove(group)], metadata: None };
        wait(|done| positions.overwrite(log.as_ref(), group, changes, done).map(|()| true))?;
        Ok(())
    }

    /// Reads positions anew that somebody else has moved.
    fn refresh(&self, state: &mut State) -> Result<(), ReaderError> {
        let moved = |s: &&mut SubscriptionState| s.epoch != Some(s.positions.epoch());
        let mut any = false;
        for subscription in state.subscriptions.iter_mut().filter(moved) {
            tracing::info!(group = subscription.subscription.group, "the group's position was moved by somebody else");
            subscription.epoch = None;
            any = true;
        }
        match any {
            true => self.look_for_topics(state, azulite_storage::clock::now_ms()),
            false => Ok(()),
        }
    }

    fn look_for_topics(&self, state: &mut State, now_ms: i64) -> Result<(), ReaderError> {
        if state.subscriptions.is_empty() {
            let new = |subscription: &Subscription| SubscriptionState {
                positions: self.context.broker.positions(&subscription.group),
                subscription: subscription.clone(),
                epoch: None,
                rewind: Rewind::default(),
                places: BTreeMap::new(),
                last: None,
            };
            state.subscriptions = self.wanted.iter().map(new).collect();
        }
        // Live before historic, because historic ends where live began.
        let mut live_starts = BTreeMap::new();
        let user = state.user.clone();
        for subscription in &mut state.subscriptions {
            let bounded = subscription.subscription.flow == Flow::Historic
                && self.wanted.iter().any(|wanted| wanted.flow == Flow::Live);
            let ends = bounded.then_some(&live_starts);
            let starts = self.open_group(subscription, ends, &user, now_ms)?;
            if subscription.subscription.flow == Flow::Live {
                live_starts = starts;
            }
        }
        Ok(())
    }

    /// Opens one group: stored positions, or new ones that are durable when this returns. Returns where it began.
    fn open_group(
        &self,
        open: &mut SubscriptionState,
        ends: Option<&BTreeMap<String, Vec<Offset>>>,
        user: &User,
        now_ms: i64,
    ) -> Result<BTreeMap<String, Vec<Offset>>, ReaderError> {
        loop {
            if let Some(starts) = self.try_open_group(open, ends, user, now_ms)? {
                return Ok(starts);
            }
            // Somebody else wrote positions in between: they count.
            open.epoch = None;
        }
    }

    /// `None` when somebody else wrote the group's positions meanwhile.
    fn try_open_group(
        &self,
        open: &mut SubscriptionState,
        ends: Option<&BTreeMap<String, Vec<Offset>>>,
        user: &User,
        now_ms: i64,
    ) -> Result<Option<BTreeMap<String, Vec<Offset>>>, ReaderError> {
        let ReaderContext { broker, topic_prefix, group_retention_ms, .. } = &self.context;
        let log = broker.log();
        let Subscription { group, start, topics, .. } = &open.subscription;
        let stored = GroupRecord::of(log.as_ref(), group)?;
        let expired = stored.as_ref().is_some_and(|r| r.used_ms.saturating_add(*group_retention_ms) < now_ms);
        if expired {
            tracing::info!(group, "the group was not used for its retention time and starts afresh");
            self.forget(group)?;
            open.epoch = None;
        }
        if open.epoch.is_none() {
            open.epoch = Some(open.positions.settled());
            open.rewind = Rewind::of(log.as_ref(), group)?;
            open.places.clear();
            open.last = None;
        }
        // What was read before the epoch began may have gone since.
        let stored = if expired { None } else { GroupRecord::of(log.as_ref(), group)? };
        let is_new = stored.is_none();
        let mut record = stored.unwrap_or_default();
        let mut changed = is_new || record.used_ms + USED_EVERY_MS < now_ms;
        let behind = user.concerned(record.pause, now_ms);
        if record.pause < user.pause() {
            record.pause = user.pause();
            changed = true;
        }
        if behind.is_some() {
            tracing::info!(group, "the group goes on where the last pause of plugins ended");
            open.places.clear();
            open.last = None;
        }
        let committed = log.group_offsets(group)?;
        let (mut changes, mut all_starts) = (OffsetChanges::new(), BTreeMap::new());
        open.places.retain(|_, place| !place.partition.is_gone());
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
                if open.places.contains_key(&place_key) {
                    continue;
                }
                let stored = committed.get(&place).map(|committed| committed.offset);
                let next = stored.unwrap_or(first);
                let next = pause_end.map_or(next, |end| next.max(end));
                if stored != Some(next) {
                    changes.push((place.clone(), Some(committed_offset(next, now_ms))));
                }
                let end = ends.map(|ends| ends.get(&place.topic).and_then(|o| o.get(index)).copied().unwrap_or(first));
                let position = Position::new(next, end);
                open.places.insert(place_key, Place { partition: partition.clone(), model, position });
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
            let (positions, epoch) = (&open.positions, open.epoch);
            let write = |done| epoch.map_or(Ok(false), |e| positions.write(e, log.as_ref(), group, changes, done));
            if !wait(write)? {
                return Ok(None);
            }
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
        let taken = Taken::nothing(self);
        let mut batch = Batch { candidates: Vec::new(), bytes: 0, read_bytes: 0, count, max_bytes, taken };
        // Given back only after the lock is released.
        let outcome = {
            let mut state = self.lock();
            if state.closed {
                return Ok((batch.candidates, batch.taken));
            }
            self.refresh(&mut state)?;
            self.take_by_precedence(&mut state, &mut batch)
        };
        outcome?;
        Ok((batch.candidates, batch.taken))
    }

    fn take_by_precedence(&self, state: &mut State, batch: &mut Batch) -> Result<(), ReaderError> {
        let place_of = |flow| state.subscriptions.iter().position(|s| s.subscription.flow == flow);
        let both = place_of(Flow::Live).zip(place_of(Flow::Historic)).filter(|_| self.context.historic_share > 0);
        for index in 0..state.subscriptions.len() {
            let shared = both.filter(|(live, _)| *live == index).map(|(_, historic)| historic);
            if let Some(historic) = shared {
                self.take_share(state, historic, batch)?;
            }
            let before = batch.candidates.len();
            let Some(subscription) = state.subscriptions.get_mut(index) else { continue };
            self.take_from(index, subscription, batch)?;
            if let Some(historic) = shared.and_then(|historic| state.subscriptions.get(historic)) {
                let waits = historic.next_place().is_some();
                state.ahead = if waits { state.ahead + batch.candidates.len() - before } else { 0 };
            }
        }
        Ok(())
    }

    /// Takes from historic what it is due for the live records that went ahead of its own.
    fn take_share(&self, state: &mut State, historic: usize, batch: &mut Batch) -> Result<(), ReaderError> {
        let due = state.ahead / self.context.historic_share;
        let Some(subscription) = state.subscriptions.get_mut(historic).filter(|_| due > 0) else { return Ok(()) };
        let (before, count) = (batch.candidates.len(), batch.count);
        batch.count = count.min(before + due);
        self.take_from(historic, subscription, batch)?;
        batch.count = count;
        state.ahead -= (batch.candidates.len() - before).min(due) * self.context.historic_share;
        Ok(())
    }

    fn take_from(
        &self,
        index: usize,
        subscription: &mut SubscriptionState,
        batch: &mut Batch,
    ) -> Result<(), ReaderError> {
        loop {
            if batch.full() || batch.read_bytes >= TAKE_BYTES {
                return Ok(());
            }
            let Some(name) = subscription.next_place() else { return Ok(()) };
            let Some(place) = subscription.places.get_mut(&name) else { return Ok(()) };
            self.take_range((index, subscription.epoch), &name, place, batch)?;
            subscription.last = Some(name);
        }
    }

    /// Takes from one partition what one read gives.
    fn take_range(
        &self,
        (index, epoch): (usize, Option<Epoch>),
        name: &PlaceKey,
        place: &mut Place,
        batch: &mut Batch,
    ) -> Result<(), ReaderError> {
        let offsets = place.partition.offsets();
        let Some((from, limit)) = place.position.available(offsets.high_watermark) else { return Ok(()) };
        if from < offsets.log_start {
            place.position.skip_to(offsets.log_start);
            return Ok(());
        }
        let mut to = from;
        let wanted = READ_BYTES.min(batch.max_bytes.saturating_sub(batch.bytes).max(1));
        let read = match self.context.broker.log().read(&place.partition, from, wanted) {
            // Deleted, or let go by its age, meanwhile: the next call sees that.
            Err(ReadError::Gone { .. }) => return Ok(()),
            Err(ReadError::OutOfRange { allowed, .. }) if allowed.start > from => return Ok(()),
            read => read?,
        };
        batch.read_bytes += read.iter().map(Bytes::len).sum::<usize>();
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
                        batch.add(place, record);
                    }
                    // Stored as it was sent: no reader will ever get further, and what lies behind it is good.
                    Err(_) if batch.full() => break 'read,
                    Err(reason) => {
                        let (first, last) = (to, end - 1);
                        let TopicPartition { topic, partition } = &name.name;
                        tracing::warn!(topic, partition, first, last, %reason,
                            "records that a Kafka client sent cannot be read: they are left out");
                        batch.add_unreadable(place, first);
                    }
                }
            }
            to = to.max(end.min(limit));
        }
        // No record below the limit is left.
        let to = if to == from { limit } else { to };
        place.position.take(from, to);
        batch.taken.ranges.push(TakenRange {
            index,
            epoch,
            name: name.clone(),
            partition: place.partition.number(),
            from,
        });
        Ok(())
    }

    fn acknowledge(&self, ranges: &[TakenRange]) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let mut moved: BTreeMap<usize, BTreeMap<PlaceKey, Offset>> = BTreeMap::new();
        for range in ranges {
            let place = state.place_of(range).filter(|place| !place.partition.is_gone());
            if let Some(offset) = place.and_then(|place| place.position.done(range.from)) {
                moved.entry(range.index).or_default().insert(range.name.clone(), offset);
            }
        }
        move_along(&mut state, &mut moved);
        let now_ms = azulite_storage::clock::now_ms();
        for (index, offsets) in moved {
            let Some(subscription) = state.subscriptions.get(index) else { continue };
            let change = |(place, offset): (PlaceKey, _)| (place.name, Some(committed_offset(offset, now_ms)));
            self.commit(subscription, offsets.into_iter().map(change).collect());
        }
    }

    /// Queued under the reader's lock, so that positions reach the log in order. Left out when somebody else has moved
    /// them.
    fn commit(&self, of: &SubscriptionState, offsets: OffsetChanges) {
        let Some(epoch) = of.epoch else { return };
        let group = &of.subscription.group;
        let name = group.clone();
        let done = Box::new(move |outcome: Result<_, _>| {
            if let Err(error) = outcome {
                tracing::error!(group = name, %error, "a group's position was not written; events will come again");
            }
        });
        let changes = GroupChanges { offsets, ..GroupChanges::default() };
        let log = self.context.broker.log();
        if let Err(error) = of.positions.write(epoch, log.as_ref(), group, changes, done) {
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

impl State {
    /// The place a range was taken from, unless its position was moved by somebody else since, or the topic of that name
    /// is another one now.
    fn place_of(&mut self, range: &TakenRange) -> Option<&mut Place> {
        let subscription = self.subscriptions.get_mut(range.index).filter(|s| s.epoch == range.epoch)?;
        subscription.places.get_mut(&range.name).filter(|place| place.partition.number() == range.partition)
    }
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

/// Where live moved and historic has nothing left, historic moves along.
fn move_along(state: &mut State, moved: &mut BTreeMap<usize, BTreeMap<PlaceKey, Offset>>) {
    let place_of = |flow| state.subscriptions.iter().position(|s| s.subscription.flow == flow);
    let (Some(live), Some(historic)) = (place_of(Flow::Live), place_of(Flow::Historic)) else { return };
    let Some(offsets) = moved.get(&live).cloned() else { return };
    for (name, offset) in offsets {
        let place = state.subscriptions.get_mut(historic).and_then(|s| s.places.get_mut(&name));
        if let Some(offset) = place.and_then(|place| place.position.move_along(offset)) {
            moved.entry(historic).or_default().insert(name, offset);
        }
    }
}

impl SubscriptionState {
    /// The next partition that has something, after the one read last.
    fn next_place(&self) -> Option<PlaceKey> {
        let ready = |(_, place): &(&PlaceKey, &Place)| {
            let end = place.partition.offsets().high_watermark;
            !place.partition.is_gone() && place.position.available(end).is_some()
        };
        let after = self.last.as_ref().and_then(|last| {
            use std::ops::Bound::{Excluded, Unbounded};
            self.places.range::<PlaceKey, _>((Excluded(last), Unbounded)).find(ready)
        });
        after.or_else(|| self.places.iter().find(ready)).map(|(name, _)| name.clone())
    }
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
    fn full(&self) -> bool {
        self.candidates.len() >= self.count || self.bytes >= self.max_bytes
    }

    fn add(&mut self, place: &Place, record: Record) {
        let Record { offset, key, value, .. } = record;
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.bytes += value.len();
            let (model, partition) = (place.model, place.partition.clone());
            self.candidates.push(Candidate { model, value, key, partition, offset });
        }
    }

    /// What stands for records that cannot be read: it is counted as an event that is none.
    fn add_unreadable(&mut self, place: &Place, offset: Offset) {
        let (model, partition) = (place.model, place.partition.clone());
        self.candidates.push(Candidate { model, value: Bytes::new(), key: None, partition, offset });
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
