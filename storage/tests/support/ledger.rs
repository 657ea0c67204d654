//! What was asked of a store and what it promised, to be held against what a later session finds.

use azulite_storage::ids::{Offset, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// Number of one request; its parts are stored together or not at all.
pub(crate) type RequestNumber = u64;

/// One record, as sent or as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) timestamp: i64,
}

/// A record read back from a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: Offset,
    pub(crate) line: Line,
}

#[derive(Clone, Debug)]
struct Sent {
    request: RequestNumber,
    lines: Vec<Line>,
    /// The base offset that was promised; `None` while nothing was.
    promised: Option<Offset>,
}

/// A value that is replaced as a whole: what it certainly was, and what it may have become since.
#[derive(Clone, Debug)]
pub(crate) struct Register<T> {
    certain: T,
    maybe: Vec<T>,
}

impl<T: Clone + PartialEq + Debug> Register<T> {
    pub(crate) fn new(certain: T) -> Self {
        Self { certain, maybe: Vec::new() }
    }

    /// A change was asked for and its outcome is not known.
    pub(crate) fn attempt(&mut self, value: T) {
        self.maybe.push(value);
    }

    /// The newest attempt was acknowledged.
    pub(crate) fn promise(&mut self, value: T) {
        self.certain = value;
        self.maybe.clear();
    }

    pub(crate) fn certain(&self) -> &T {
        &self.certain
    }

    /// Holds what a later session finds against this, and takes it over as certain.
    pub(crate) fn settle(&mut self, found: T) -> Result<(), String> {
        if found != self.certain && !self.maybe.contains(&found) {
            return Err(format!("found {found:?}, promised {:?}, possible {:?}", self.certain, self.maybe));
        }
        self.promise(found);
        Ok(())
    }
}

/// Everything sent to the partitions of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    partitions: BTreeMap<TopicPartition, Vec<Sent>>,
    last_request: RequestNumber,
}

impl Ledger {
    /// Notes a request before it is handed to the store.
    pub(crate) fn send(&mut self, parts: &[(TopicPartition, Vec<Line>)]) -> RequestNumber {
        self.last_request += 1;
        for (partition, lines) in parts {
            let sent = Sent { request: self.last_request, lines: lines.clone(), promised: None };
            self.partitions.entry(partition.clone()).or_default().push(sent);
        }
        self.last_request
    }

    /// The request was acknowledged with these base offsets, in the order of its parts.
    pub(crate) fn promise(&mut self, request: RequestNumber, bases: &[(TopicPartition, Offset)]) {
        for (partition, base) in bases {
            let sent = self.partitions.get_mut(partition).unwrap();
            let open = sent.iter_mut().find(|s| s.request == request && s.promised.is_none());
            open.unwrap_or_else(|| panic!("request {request} sent less to {partition}")).promised = Some(*base);
        }
    }

    /// The request was refused in a way that says that nothing of it is stored.
    pub(crate) fn refuse(&mut self, request: RequestNumber) {
        for sent in self.partitions.values_mut() {
            sent.retain(|s| s.request != request);
        }
    }

    /// Every record that was promised, per partition.
    pub(crate) fn promised(&self) -> BTreeMap<TopicPartition, Vec<Found>> {
        let found = |sent: &Sent, base: Offset| {
            (base..).zip(&sent.lines).map(|(offset, line)| Found { offset, line: line.clone() }).collect::<Vec<_>>()
        };
        let partition = |sent: &[Sent]| sent.iter().filter_map(|s| Some(found(s, s.promised?))).flatten().collect();
        self.partitions.iter().map(|(name, sent)| (name.clone(), partition(sent))).collect()
    }

    /// Holds what a later session finds in all partitions against what was sent, and takes it over: what is there is
    /// promised from now on, what is not must never appear.
    pub(crate) fn settle(&mut self, found: &BTreeMap<TopicPartition, Vec<Found>>) -> Result<(), String> {
        let mut present = BTreeSet::new();
        let mut absent = BTreeSet::new();
        for name in found.keys() {
            self.partitions.entry(name.clone()).or_default();
        }
        for (name, sent) in &mut self.partitions {
            let found = found.get(name).map(Vec::as_slice).unwrap_or_default();
            settle_partition(sent, found, &mut present, &mut absent).map_err(|e| format!("{name}: {e}"))?;
        }
        match present.intersection(&absent).next() {
            Some(request) => Err(format!("request {request} is there in part only")),
            None => Ok(()),
        }
    }
}

fn settle_partition(
    sent: &mut Vec<Sent>,
    found: &[Found],
    present: &mut BTreeSet<RequestNumber>,
    absent: &mut BTreeSet<RequestNumber>,
) -> Result<(), String> {
    for (wanted, found) in (0..).zip(found) {
        if found.offset != wanted {
            return Err(format!("offset {wanted} is missing, {} follows", found.offset));
        }
    }
    let mut rest = found;
    for sent in sent.iter_mut() {
        let matching = sent.lines.iter().zip(rest).take_while(|(line, found)| **line == found.line).count();
        let at = (found.len() - rest.len()).try_into().unwrap();
        if matching == sent.lines.len() && sent.promised.is_none_or(|base| base == at) {
            sent.promised = Some(at);
            present.insert(sent.request);
            rest = &rest[matching..];
        } else if let Some(base) = sent.promised {
            let got = rest.get(matching).map(|f| (f.offset, brief(&f.line)));
            let request = sent.request;
            return Err(format!("request {request} was acknowledged at offset {base}; at {at} there is {got:?}"));
        } else if matching > 0 {
            return Err(format!("request {}: {matching} of {} records are there", sent.request, sent.lines.len()));
        } else {
            absent.insert(sent.request);
        }
    }
    sent.retain(|s| s.promised.is_some());
    match rest.first() {
        Some(extra) => Err(format!("offset {} holds what was never sent: {}", extra.offset, brief(&extra.line))),
        None => Ok(()),
    }
}

fn brief(line: &Line) -> String {
    let start =
        |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| String::from_utf8_lossy(&b[..b.len().min(40)]).into_owned());
    format!("key {:?} value {:?} time {}", start(&line.key), start(&line.value), line.timestamp)
}
