//! One group's place in one partition: what comes next, what is on its way to a client, what came back.
//!
//! Pure bookkeeping over offset ranges. The durable position is the lowest offset that is not done with, so that
//! whatever was handed out but not delivered is handed out again after a restart.

use std::collections::BTreeMap;

use crate::broker::Offset;

/// Ranges of offsets, first to one past the last, that do not overlap.
type Ranges = BTreeMap<Offset, Offset>;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    next: Offset,
    committed: Offset,
    /// Nothing at or above it belongs to this group.
    end: Option<Offset>,
    outstanding: Ranges,
    returned: Ranges,
}

impl Position {
    /// A group that wants `next` next, and nothing from `end` on.
    pub(super) fn new(next: Offset, end: Option<Offset>) -> Self {
        Self { next, committed: next, end, outstanding: Ranges::new(), returned: Ranges::new() }
    }

    /// One that was left with `open` ranges below `next`, of which the lowest begins at the durable position.
    pub(super) fn resumed(next: Offset, end: Option<Offset>, open: impl IntoIterator<Item = (Offset, Offset)>) -> Self {
        let mut position = Self::new(next, end);
        position.returned = open.into_iter().filter(|(from, to)| from < to && *to <= next).collect();
        position.committed = position.low();
        position
    }

    /// What comes next, and the ranges below it that are not done with, when there are any.
    pub(super) fn gaps(&self) -> Option<(Offset, Vec<(Offset, Offset)>)> {
        let open = self.outstanding.iter().chain(&self.returned).map(|(from, to)| (*from, *to));
        let mut open: Vec<_> = open.collect();
        open.sort_unstable();
        (!open.is_empty()).then_some((self.next, open))
    }

    /// The range to take from: what came back first, then what is new up to `high_watermark`.
    pub(super) fn available(&self, high_watermark: Offset) -> Option<(Offset, Offset)> {
        let returned = self.returned.first_key_value().map(|(from, to)| (*from, *to));
        let limit = self.end.map_or(high_watermark, |end| end.min(high_watermark));
        returned.or_else(|| (self.next < limit).then_some((self.next, limit)))
    }

    /// Records that nobody has looked at yet, up to `high_watermark`: what is on its way is none of them.
    pub(super) fn left(&self, high_watermark: Offset) -> i64 {
        let limit = self.end.map_or(high_watermark, |end| end.min(high_watermark));
        let returned: i64 = self.returned.iter().map(|(from, to)| to - from).sum();
        (limit - self.next).max(0) + returned
    }

    /// Takes `from..to`, the start of what [`Position::available`] offered.
    pub(super) fn take(&mut self, from: Offset, to: Offset) {
        match self.returned.remove(&from) {
            Some(end) if to < end => drop(self.returned.insert(to, end)),
            Some(_) => {}
            None => self.next = self.next.max(to),
        }
        self.outstanding.insert(from, to);
    }

    /// What was taken has been delivered. Returns the new durable position when it moved.
    pub(super) fn done(&mut self, from: Offset) -> Option<Offset> {
        self.outstanding.remove(&from);
        let low = self.low();
        (low > self.committed).then(|| {
            self.committed = low;
            low
        })
    }

    /// What was taken was lost on the way: it is handed out again.
    pub(super) fn give_back(&mut self, from: Offset) {
        if let Some(to) = self.outstanding.remove(&from) {
            self.returned.insert(from, to);
        }
    }

    /// Moves past records that are gone: the partition begins at `log_start`.
    pub(super) fn skip_to(&mut self, log_start: Offset) {
        self.next = self.next.max(log_start);
        let gone: Vec<_> = self.returned.range(..log_start).map(|(from, to)| (*from, *to)).collect();
        for (from, to) in gone {
            self.returned.remove(&from);
            if to > log_start {
                self.returned.insert(log_start, to);
            }
        }
    }

    /// The lowest offset that is not done with.
    fn low(&self) -> Offset {
        let first = |ranges: &Ranges| ranges.first_key_value().map_or(Offset::MAX, |(from, _)| *from);
        self.next.min(first(&self.outstanding)).min(first(&self.returned))
    }

    /// Whether the durable position says all there is to say: nothing below what comes next is on its way or came back.
    pub(super) fn is_settled(&self) -> bool {
        self.outstanding.is_empty() && self.returned.is_empty()
    }

    /// True once everything below the end has been delivered.
    pub(super) fn finished(&self) -> bool {
        self.end.is_some_and(|end| self.low() >= end)
    }

    /// A finished group moves along with the one that took over, so that its lag is right. Returns the new position.
    pub(super) fn move_along(&mut self, to: Offset) -> Option<Offset> {
        if !self.finished() || to <= self.committed {
            return None;
        }
        self.next = self.next.max(to);
        self.committed = to;
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn deliveries_out_of_order_move_the_position_only_past_what_is_done() {
        let mut position = Position::new(5, None);
        position.take(5, 7);
        position.take(7, 9);
        assert_eq!(position.available(20), Some((9, 20)));
        assert_eq!(position.done(7), None);
        assert_eq!(position.done(5), Some(9));
        assert_eq!(position.available(9), None);
    }

    #[test]
    fn what_comes_back_is_handed_out_first_and_piece_by_piece() {
        let mut position = Position::new(0, None);
        position.take(0, 4);
        position.take(4, 6);
        position.give_back(0);
        assert_eq!(position.available(9), Some((0, 4)));
        position.take(0, 1);
        assert_eq!(position.available(9), Some((1, 4)));
        assert_eq!(position.done(4), None);
        assert_eq!(position.done(0), Some(1));
        position.take(1, 4);
        assert_eq!(position.done(1), Some(6));
    }

    #[test]
    fn a_bounded_group_ends_and_moves_along() {
        let mut position = Position::new(0, Some(3));
        assert_eq!(position.available(9), Some((0, 3)));
        position.take(0, 3);
        assert_eq!(position.move_along(5), None, "not delivered yet");
        assert_eq!(position.done(0), Some(3));
        assert_eq!(position.available(9), None);
        assert_eq!(position.move_along(5), Some(5));
        assert_eq!(position.move_along(5), None);
    }

    #[test]
    fn records_below_the_log_start_are_left_out() {
        let mut position = Position::new(0, None);
        position.take(0, 4);
        position.give_back(0);
        position.skip_to(2);
        assert_eq!(position.available(9), Some((2, 4)));
    }

    proptest! {
        #[test]
        fn every_offset_is_delivered_once_and_the_position_never_passes_an_open_one(
            steps in proptest::collection::vec((any::<bool>(), 1_i64..4, any::<prop::sample::Index>()), 1..200)
        ) {
            let mut position = Position::new(0, None);
            let mut open: Vec<(i64, i64)> = Vec::new();
            let mut delivered = std::collections::BTreeSet::new();
            let mut committed = 0;
            for (deliver, count, pick) in steps {
                if let Some((from, limit)) = position.available(100) {
                    let to = limit.min(from + count);
                    position.take(from, to);
                    open.push((from, to));
                }
                if open.is_empty() {
                    continue;
                }
                let (from, to) = open.remove(pick.index(open.len()));
                if deliver {
                    for offset in from..to {
                        prop_assert!(delivered.insert(offset), "{offset} twice");
                    }
                    if let Some(moved) = position.done(from) {
                        prop_assert!(moved > committed);
                        committed = moved;
                    }
                } else {
                    position.give_back(from);
                }
                prop_assert!((0..committed).all(|offset| delivered.contains(&offset)));
                // Another process would go on where this one is.
                if let Some((next, gaps)) = position.gaps() {
                    let resumed = Position::resumed(next, None, gaps.clone());
                    prop_assert_eq!(resumed.committed, committed);
                    let is_open = |offset: &i64| gaps.iter().any(|(from, to)| (*from..*to).contains(offset));
                    prop_assert!((0..next).all(|offset| delivered.contains(&offset) != is_open(&offset)));
                }
            }
        }
    }
}
