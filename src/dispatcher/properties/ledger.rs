//! What was sent, what each reader got, and whether that is what the contract promises.
//!
//! Everything is a [`Span`] of one common order, because threads only know that something happened between its beginning
//! and its end. A reader's positions are set by [`Move`]s: its first request, a reset, a tool, the end of a pause. Each
//! move hands out an event at most once; what every move that may have been the last one covers must have come.

use std::collections::BTreeMap;

/// From before something began until after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Span {
    fn surely_before(self, other: Span) -> bool {
        self.to < other.from
    }
}

/// One event on its way into the log.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) span: Span,
    pub(super) source: String,
    pub(super) action: &'static str,
    pub(super) expedite: bool,
}

/// Who reads: a plugin key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) task: bool,
    /// Letters of events.md 5.1.
    pub(super) flows: &'static str,
    pub(super) source: Option<&'static str>,
    pub(super) action: Option<&'static str>,
}

impl Key {
    /// Whether it is given this event, and if so, whether also one from before its beginning.
    fn reads(&self, event: &Sent) -> Option<Reach> {
        if event.expedite {
            return self.flows.contains('E').then_some(Reach::FromNow);
        }
        let source = self.source.is_none_or(|source| source == event.source);
        let action = self.action.is_none_or(|action| action == event.action);
        match (source && action, self.flows.contains('H'), self.flows.contains('L')) {
            (true, true, _) => Some(Reach::All),
            (true, false, true) => Some(Reach::FromNow),
            (false, ..) | (true, false, false) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    All,
    FromNow,
}

/// What sets positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// The first request, `reset=true`, or the group was deleted: it starts as any new one. A task group that is new soon
    /// after a pause starts where that ended.
    New { behind: Option<u64> },
    /// A tool set the historic group to the beginning.
    ToStart,
    /// A tool set the historic group to the end.
    ToEnd,
    /// A pause ended: nothing from before it is handed out any more.
    PauseEnd,
}

/// What one reader did and got.
#[derive(Debug)]
pub(super) struct Account {
    key: Key,
    /// The earliest moment at which its groups can have been made.
    first: Option<u64>,
    registered: bool,
    /// Answers that were lost. Of a task reader, what was in them waits on its own and comes again, wherever its positions
    /// are moved meanwhile.
    lost: usize,
    moves: Vec<(Span, Move)>,
    got: BTreeMap<u64, Vec<Span>>,
}

impl Account {
    pub(super) fn new(key: Key) -> Self {
        Self { key, first: None, registered: false, lost: 0, moves: Vec::new(), got: BTreeMap::new() }
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registered
    }

    /// A request was made whose answer did not come.
    pub(super) fn asked(&mut self, from: u64) {
        self.first = Some(self.first.map_or(from, |first| first.min(from)));
    }

    /// A request was answered, and not with a pause: the groups are there.
    pub(super) fn answered(&mut self, span: Span, behind: Option<u64>) {
        self.asked(span.from);
        let first = self.first.unwrap_or(span.from);
        if !self.registered {
            self.registered = true;
            self.moves.push((Span { from: first, to: span.to }, Move::New { behind }));
        } else if let Some((registration, _)) = self.moves.first_mut() {
            // Another thread's first request may have ended earlier than the one that was noted first.
            registration.from = registration.from.min(first);
            registration.to = registration.to.min(span.to);
        }
    }

    pub(super) fn moved(&mut self, span: Span, how: Move) {
        self.moves.push((span, how));
    }

    pub(super) fn paused_until(&mut self, tick: u64) {
        if self.registered && self.key.task {
            self.moves.push((Span { from: tick, to: tick }, Move::PauseEnd));
        }
    }

    pub(super) fn lost_an_answer(&mut self) {
        self.lost += 1;
    }

    pub(super) fn got(&mut self, id: u64, span: Span) {
        self.got.entry(id).or_default().push(span);
    }

    pub(super) fn arrivals(&self) -> usize {
        self.got.values().map(Vec::len).sum()
    }

    pub(super) fn repeated(&self) -> usize {
        self.arrivals() - self.got.len()
    }

    /// What has come and should not have; with `drained`, after it read until nothing was left, also what has not come.
    pub(super) fn faults(&self, sent: &BTreeMap<u64, Sent>, drained: bool) -> Vec<String> {
        let mut faults = Vec::new();
        for (id, spans) in &self.got {
            let Some(event) = sent.get(id) else {
                faults.push(format!("{}: event {id} was never sent", self.key.name));
                continue;
            };
            if !self.is_explained(event, spans) {
                let moves = &self.moves;
                faults.push(format!("{}: {id} {event:?} came at {spans:?} with moves {moves:?}", self.key.name));
            }
        }
        if drained && self.registered {
            let missing = sent.iter().filter(|(id, event)| self.is_missing(event, self.got.get(id)));
            let moves = &self.moves;
            faults.extend(missing.map(|(id, event)| {
                let name = self.key.name;
                format!("{name}: {id} {event:?} did not come, only at {:?}, with moves {moves:?}", self.got.get(id))
            }));
        }
        faults
    }

    /// Whether each arrival can be the work of another move.
    fn is_explained(&self, event: &Sent, arrivals: &[Span]) -> bool {
        let Some(reach) = self.key.reads(event) else { return false };
        let mut used = vec![false; self.moves.len()];
        let put_back = if self.key.task { self.lost } else { 0 };
        self.assign(event, reach, arrivals, &mut used, put_back)
    }

    fn assign(&self, event: &Sent, reach: Reach, arrivals: &[Span], used: &mut [bool], put_back: usize) -> bool {
        let Some((arrival, rest)) = arrivals.split_first() else { return true };
        if put_back > 0 && self.assign(event, reach, rest, used, put_back - 1) {
            return true;
        }
        (0..self.moves.len()).any(|index| {
            if used[index] || !self.may_hand_out(index, event, reach, *arrival) {
                return false;
            }
            used[index] = true;
            let fits = self.assign(event, reach, rest, used, put_back);
            used[index] = fits;
            fits
        })
    }

    fn may_hand_out(&self, index: usize, event: &Sent, reach: Reach, arrival: Span) -> bool {
        let (span, how) = self.moves[index];
        let covers = match how {
            // All flows start there, live and expedite too.
            Move::New { behind: Some(tick) } => event.span.to >= tick,
            Move::New { behind: None } => reach == Reach::All || event.span.to >= span.from,
            Move::ToStart => reach == Reach::All,
            Move::ToEnd => event.span.to >= span.from,
            Move::PauseEnd => false,
        };
        let overtaken = self.moves.iter().any(|(later, how)| {
            // What is sent behind the end of a pause is handed out by whatever came before it.
            let matters = match how {
                Move::PauseEnd => event.span.surely_before(*later),
                Move::New { .. } | Move::ToStart | Move::ToEnd => true,
            };
            matters && span.surely_before(*later) && later.surely_before(arrival)
        });
        covers && span.from <= arrival.to && !overtaken
    }

    /// Whether the event had to come and did not.
    fn is_missing(&self, event: &Sent, arrivals: Option<&Vec<Span>>) -> bool {
        let Some(reach) = self.key.reads(event) else { return false };
        let moves = || self.moves.iter();
        let is_last = |span: Span| !moves().any(|(other, _)| span.surely_before(*other));
        let due = moves().filter(|(span, _)| is_last(*span)).all(|(span, how)| match how {
            Move::New { behind: Some(tick) } => event.span.from > *tick,
            Move::New { behind: None } => reach == Reach::All || event.span.from > span.to,
            Move::ToStart => reach == Reach::All,
            Move::ToEnd | Move::PauseEnd => event.span.from > span.to,
        });
        let last = moves().map(|(span, _)| span.from).max().unwrap_or(0);
        due && !arrivals.is_some_and(|spans| spans.iter().any(|span| span.to >= last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: Key = Key { name: "h", task: false, flows: "H", source: None, action: None };
    const L: Key = Key { flows: "L", ..H };

    fn span(from: u64, to: u64) -> Span {
        Span { from, to }
    }

    fn sent(from: u64, to: u64) -> BTreeMap<u64, Sent> {
        let event = Sent { span: span(from, to), source: "lab".into(), action: "sourced", expedite: false };
        BTreeMap::from([(7, event)])
    }

    fn faults(key: Key, moves: &[(Span, Move)], arrivals: &[Span], sent: &BTreeMap<u64, Sent>) -> usize {
        let mut account = Account::new(key);
        account.registered = true;
        account.moves = moves.to_vec();
        arrivals.iter().for_each(|arrival| account.got(7, *arrival));
        account.faults(sent, true).len()
    }

    /// The judge itself: it finds what is missing, doubled, too early, and accepts what a reset explains.
    #[test]
    fn the_judge_finds_what_is_wrong_and_only_that() {
        let new = Move::New { behind: None };
        let (first, reset) = ((span(1, 2), new), (span(20, 21), new));
        let event = sent(3, 4);
        assert_eq!(faults(H, &[first], &[span(5, 6)], &event), 0);
        assert_eq!(faults(H, &[first], &[], &event), 1, "missing");
        assert_eq!(faults(H, &[first], &[span(5, 6), span(7, 8)], &event), 1, "twice");
        assert_eq!(faults(H, &[first, reset], &[span(5, 6)], &event), 1, "forgotten by the reset");
        assert_eq!(faults(H, &[first, reset], &[span(5, 6), span(22, 23)], &event), 0);
        assert_eq!(faults(H, &[first, reset], &[span(5, 6), span(22, 23), span(24, 25)], &event), 1);
        assert_eq!(faults(L, &[first], &[], &sent(0, 0)), 0, "from before the reader");
        assert_eq!(faults(L, &[first], &[span(5, 6)], &sent(0, 0)), 1);
        assert_eq!(faults(L, &[first, reset], &[span(5, 6), span(22, 23)], &event), 1, "live starts at the reset");
        let end = (span(10, 10), Move::PauseEnd);
        assert_eq!(faults(H, &[first, end], &[], &event), 0, "skipped");
        assert_eq!(faults(H, &[first, end], &[span(11, 12)], &event), 1, "not skipped");
        assert_eq!(faults(H, &[first, end], &[], &sent(11, 12)), 1);
    }
}
