//! What a reader knows of its partitions: where each of its groups is, and what is on its way to clients.
//!
//! Only memory: held behind the one lock of a reader that is never kept for long.

use std::collections::BTreeMap;
use std::sync::Arc;

use azulite_storage::index::IndexError;
use serde::{Deserialize, Serialize};

use super::super::model::Model;
use super::super::plugin_key::{Flow, Subscription};
use super::super::position::Position;
use super::super::topic::Action;
use crate::broker::{
    Broker, Epoch, GroupPositions, LogStore, Offset, Partition, PartitionNumber, Rewind, TopicPartition, Value,
};

/// One partition of one subscription.
pub(super) struct Place {
    pub(super) partition: Arc<Partition>,
    pub(super) model: Option<Model>,
    pub(super) position: Position,
    /// What a record took in the last read, bytes; so that not much more is read than wanted.
    pub(super) record_bytes: usize,
}

/// A partition in the order in which those of one subscription are read: files before what was made of them, so that a
/// parent comes before its children (contract events.md X17), then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PlaceKey {
    rank: usize,
    pub(super) name: TopicPartition,
}

impl PlaceKey {
    pub(super) fn of(name: TopicPartition) -> Self {
        let action = name.topic.rsplit('.').next().unwrap_or_default();
        let rank = Action::ALL.iter().position(|known| known.as_str() == action).unwrap_or(0);
        Self { rank, name }
    }
}

pub(super) struct SubscriptionState {
    pub(super) flow: Flow,
    pub(super) positions: Arc<GroupPositions>,
    /// What the places belong to; `None` when they have to be read anew.
    pub(super) epoch: Option<Epoch>,
    /// Counts how often the places were to be read anew: what was taken before that means nothing any more.
    pub(super) generation: u64,
    /// Which deliveries of the past count.
    pub(super) rewind: Rewind,
    pub(super) places: BTreeMap<PlaceKey, Place>,
    /// Whether a row says that ranges below a position are open.
    pub(super) gaps_written: bool,
    /// The partition that was read last: the others come first next time.
    pub(super) last: Option<PlaceKey>,
}

#[derive(Default)]
pub(super) struct State {
    /// In the order of what is wanted; empty before it is opened.
    pub(super) subscriptions: Vec<SubscriptionState>,
    pub(super) topics_version: Option<u64>,
    pub(super) closed: bool,
    /// Records taken from live, while historic had some, for which it has not got its share yet.
    pub(super) ahead: usize,
}

/// One range of one partition.
#[derive(Debug)]
pub(super) struct TakenRange {
    /// The subscription it is of.
    pub(super) index: usize,
    /// One taken before the places were read anew means nothing any more.
    pub(super) generation: u64,
    pub(super) name: PlaceKey,
    /// One taken from a topic that has been deleted means nothing to another of that name.
    pub(super) partition: PartitionNumber,
    pub(super) from: Offset,
}

/// Ranges of one partition that a group has passed, but not done with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Gap {
    topic: String,
    partition: i32,
    next: Offset,
    open: Vec<(Offset, Offset)>,
}

/// Ranges that are kept of one partition at most; what lies behind more comes again after a restart.
const MOST_GAPS: usize = 1000;

impl Gap {
    fn of(name: &TopicPartition, position: &Position) -> Option<Self> {
        let (next, open) = position.gaps()?;
        let (topic, partition) = (name.topic.clone(), name.partition);
        (open.len() <= MOST_GAPS).then_some(Self { topic, partition, next, open })
    }
}

/// What a group had passed without being done with it when its positions were last written, so that another process hands
/// out again that and nothing else.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Gaps {
    /// They mean nothing once somebody has moved the positions.
    rewind: Option<[u8; 8]>,
    places: Vec<Gap>,
}

impl Gaps {
    pub(super) fn key(group: &str) -> Vec<u8> {
        [b"gaps\0", group.as_bytes()].concat()
    }

    /// Those of a group whose positions nobody has moved since.
    pub(super) fn read(log: &dyn LogStore, group: &str, rewind: Rewind) -> Result<Option<Self>, IndexError> {
        let gaps = log.kv(&Self::key(group))?.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        Ok(gaps.filter(|gaps| gaps.rewind == rewind.as_bytes()))
    }

    /// Where a group goes on in one partition, when it was left there at `stored` with gaps.
    pub(super) fn position(&self, name: &TopicPartition, stored: Offset, end: Option<Offset>) -> Option<Position> {
        let gap = self.places.iter().find(|gap| gap.topic == name.topic && gap.partition == name.partition)?;
        let first = gap.open.first().map(|(from, _)| *from);
        (first == Some(stored)).then(|| Position::resumed(gap.next, end, gap.open.iter().copied()))
    }
}

/// What is to be read next.
pub(super) struct Next {
    pub(super) range: TakenRange,
    pub(super) partition: Arc<Partition>,
    pub(super) model: Option<Model>,
    /// What a record takes, about.
    pub(super) record_bytes: usize,
    /// One past the last offset that is wanted.
    pub(super) limit: Offset,
}

impl State {
    pub(super) fn subscribe(&mut self, wanted: &[Subscription], broker: &Broker) {
        if self.subscriptions.is_empty() {
            let new = |subscription: &Subscription| SubscriptionState {
                flow: subscription.flow,
                positions: broker.positions(&subscription.group),
                epoch: None,
                generation: 0,
                rewind: Rewind::default(),
                places: BTreeMap::new(),
                gaps_written: false,
                last: None,
            };
            self.subscriptions = wanted.iter().map(new).collect();
        }
    }

    /// Takes note of records taken from live while the subscription `historic` may have some.
    pub(super) fn went_ahead(&mut self, historic: usize, records: usize) {
        let waits = self.subscriptions.get(historic).is_some_and(|historic| historic.next_place().is_some());
        self.ahead = if waits { self.ahead + records } else { 0 };
    }

    /// The place a range was taken from, unless its position was moved by somebody else since, or the topic of that name
    /// is another one now.
    pub(super) fn place_of(&mut self, range: &TakenRange) -> Option<&mut Place> {
        let subscription = self.subscriptions.get_mut(range.index).filter(|s| s.generation == range.generation)?;
        subscription.places.get_mut(&range.name).filter(|place| place.partition.number() == range.partition)
    }
}

/// Where live moved and historic has nothing left, historic moves along.
pub(super) fn move_along(state: &mut State, moved: &mut BTreeMap<usize, BTreeMap<PlaceKey, Offset>>) {
    let place_of = |flow| state.subscriptions.iter().position(|s| s.flow == flow);
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
    /// Whatever was taken of it so far means nothing any more, and its places are to be read anew. They stay until then,
    /// so that it is known what to wait for.
    pub(super) fn begin_anew(&mut self) {
        self.epoch = None;
        self.generation += 1;
    }

    /// Takes in places: all there are when it was to begin anew, else those made since.
    pub(super) fn open(&mut self, epoch: Epoch, rewind: Rewind, places: BTreeMap<PlaceKey, Place>, gaps: bool) {
        if self.epoch.is_none() {
            self.places.clear();
            self.last = None;
        }
        self.epoch = Some(epoch);
        self.rewind = rewind;
        self.gaps_written |= gaps;
        self.places.retain(|_, place| !place.partition.is_gone());
        self.places.extend(places);
    }

    /// The change that says which ranges below its positions are open; `None` when nothing is to be changed.
    pub(super) fn gaps(&mut self, group: &str) -> Option<Value> {
        let of_place = |(name, place): (&PlaceKey, &Place)| Gap::of(&name.name, &place.position);
        let gaps = Gaps { rewind: self.rewind.as_bytes(), places: self.places.iter().filter_map(of_place).collect() };
        let had = std::mem::replace(&mut self.gaps_written, !gaps.places.is_empty());
        match gaps.places.is_empty() {
            true => had.then(|| (Gaps::key(group), None)),
            false => Some((Gaps::key(group), Some(serde_json::to_vec(&gaps).unwrap_or_default().into()))),
        }
    }

    /// What is to be read next of it, the subscription `index`.
    pub(super) fn next(&mut self, index: usize) -> Option<Next> {
        loop {
            let name = self.next_place()?;
            let place = self.places.get_mut(&name)?;
            self.last = Some(name.clone());
            let offsets = place.partition.offsets();
            let (from, limit) = place.position.available(offsets.high_watermark)?;
            if from < offsets.log_start {
                place.position.skip_to(offsets.log_start);
                continue;
            }
            let (generation, number) = (self.generation, place.partition.number());
            let range = TakenRange { index, generation, name, partition: number, from };
            let Place { partition, model, record_bytes, .. } = place;
            let (partition, model, record_bytes) = (partition.clone(), *model, *record_bytes);
            return Some(Next { range, partition, model, record_bytes, limit });
        }
    }

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
