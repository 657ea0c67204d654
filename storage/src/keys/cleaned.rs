//! Keyspace `cleaned`: what the head of each cleaned segment says, so that opening does not read them all.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use super::take;
use crate::ids::{CommitNumber, Offset, PartitionNumber, SegmentNumber};

/// A range of a partition that was compacted: its frames lie in the segment that says so or in a later one, and are
/// void in all segments numbered below `below`. Gaps between offsets inside it are no damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Claim {
    partition: u32,
    /// The first base offset it speaks of.
    pub from: i64,
    /// One past the last.
    pub to: i64,
    below: u32,
}

impl Claim {
    /// Batches of `partition` that begin in `from..to` are void in segments before `below`.
    #[must_use]
    pub fn new(partition: PartitionNumber, from: Offset, to: Offset, below: SegmentNumber) -> Self {
        Self { partition: partition.0, from, to, below: below.0 }
    }

    /// The partition it speaks of.
    #[must_use]
    pub fn partition(&self) -> PartitionNumber {
        PartitionNumber(self.partition)
    }

    /// The first segment in which the range's frames count.
    #[must_use]
    pub fn below(&self) -> SegmentNumber {
        SegmentNumber(self.below)
    }
}

/// What a cleaned segment says of itself, in its head and again in its foot; also the row of keyspace `cleaned`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CleanedHead {
    /// The segment's random number: the number in its name may have been another segment's before.
    pub salt: u32,
    /// Which frames were put together in it; see [`crate::cleaner`].
    pub group: u32,
    /// No frame in it is of a later commit.
    pub last_commit: CommitNumber,
    /// Big-endian and of fixed length, so that a head can be written again when everything in it is known.
    horizon_ms: [u8; 8],
    /// The ranges it speaks of.
    pub claims: Vec<Claim>,
}

impl CleanedHead {
    /// A head without tombstones; the salt is set when the segment is begun.
    #[must_use]
    pub fn new(group: u32, last_commit: CommitNumber, claims: Vec<Claim>) -> Self {
        Self { salt: 0, group, last_commit, horizon_ms: i64::MAX.to_be_bytes(), claims }
    }

    /// When the first tombstone in it may go, milliseconds since 1970; `i64::MAX` when there is none.
    #[must_use]
    pub fn horizon_ms(&self) -> i64 {
        i64::from_be_bytes(self.horizon_ms)
    }

    /// Takes note of a tombstone that may go at `ms`.
    pub fn note_horizon(&mut self, ms: i64) {
        self.horizon_ms = self.horizon_ms().min(ms).to_be_bytes();
    }
}

/// Key of a cleaned segment: 4 bytes, big-endian.
#[must_use]
pub fn encode_number(number: SegmentNumber) -> [u8; 4] {
    number.0.to_be_bytes()
}

/// Reads a key; `None` unless it has exactly 4 bytes.
#[must_use]
pub fn decode_number(mut bytes: &[u8]) -> Option<SegmentNumber> {
    let number = SegmentNumber(u32::from_be_bytes(take(&mut bytes)?));
    bytes.is_empty().then_some(number)
}

/// All claims in force, by partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<PartitionNumber, Vec<Claim>>);

impl Claims {
    /// Adds one.
    pub fn add(&mut self, claim: Claim) {
        let claims = self.0.entry(claim.partition()).or_default();
        if !claims.contains(&claim) {
            claims.push(claim);
        }
    }

    /// Claims on one partition.
    #[must_use]
    pub fn of(&self, partition: PartitionNumber) -> &[Claim] {
        self.0.get(&partition).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a frame in `segment` counts no more.
    #[must_use]
    pub fn void(&self, partition: PartitionNumber, base_offset: Offset, segment: SegmentNumber) -> bool {
        self.of(partition).iter().any(|c| c.from <= base_offset && base_offset < c.to && segment < c.below())
    }

    /// One past the last offset up to which a partition was compacted; 0 for never.
    #[must_use]
    pub fn compacted_to(&self, partition: PartitionNumber) -> Offset {
        self.of(partition).iter().map(|c| c.to).max().unwrap_or(0)
    }

    /// The parts of `from..to` in which offsets may not be missing: those that no claim of `below` or later covers.
    #[must_use]
    pub fn uncovered(
        &self,
        partition: PartitionNumber,
        from: Offset,
        to: Offset,
        below: SegmentNumber,
    ) -> Vec<(Offset, Offset)> {
        let mut claims: Vec<_> = self.of(partition).iter().filter(|c| c.below() >= below).collect();
        claims.sort_unstable_by_key(|c| c.from);
        let (mut open, mut at) = (Vec::new(), from);
        for claim in claims {
            if claim.from > at {
                open.push((at, claim.from.min(to)));
            }
            at = at.max(claim.to);
            if at >= to {
                break;
            }
        }
        if at < to {
            open.push((at, to));
        }
        open.retain(|(a, b)| a < b);
        open
    }
}

impl Extend<Claim> for Claims {
    fn extend<T: IntoIterator<Item = Claim>>(&mut self, claims: T) {
        claims.into_iter().for_each(|claim| self.add(claim));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{decode_value, encode_value};

    const P: PartitionNumber = PartitionNumber(3);

    fn claim(from: Offset, to: Offset, below: u32) -> Claim {
        Claim::new(P, from, to, SegmentNumber(below))
    }

    #[test]
    fn golden_key_and_value() {
        assert_eq!(encode_number(SegmentNumber(258)), [0, 0, 1, 2]);
        assert_eq!(decode_number(&[0, 0, 1, 2]), Some(SegmentNumber(258)));
        assert_eq!((decode_number(&[0; 3]), decode_number(&[0; 5])), (None, None));
        let mut head = CleanedHead::new(1, 7, vec![claim(0, 9, 4)]);
        head.note_horizon(5);
        head.salt = 9;
        assert_eq!(encode_value(&head), [1, 9, 1, 7, 0, 0, 0, 0, 0, 0, 0, 5, 1, 3, 0, 18, 4]);
        assert_eq!(decode_value(&encode_value(&head)), Some(head));
    }

    #[test]
    fn frames_in_earlier_segments_are_void_inside_the_range_only() {
        let mut claims = Claims::default();
        claims.extend([claim(10, 20, 5), claim(10, 20, 5), claim(15, 30, 7)]);
        assert_eq!(claims.of(P).len(), 2);
        let void = |offset, segment| claims.void(P, offset, SegmentNumber(segment));
        assert!(void(10, 4) && void(15, 6) && void(29, 6));
        assert!(!void(10, 5) && !void(9, 4) && !void(30, 4) && !void(15, 7));
        assert!(!claims.void(PartitionNumber(4), 10, SegmentNumber(0)));
        assert_eq!((claims.compacted_to(P), claims.compacted_to(PartitionNumber(4))), (30, 0));
    }

    #[test]
    fn what_no_claim_covers_is_left_over() {
        let mut claims = Claims::default();
        claims.extend([claim(10, 20, 5), claim(25, 30, 7), claim(20, 22, 5)]);
        let left = |from, to, below| claims.uncovered(P, from, to, SegmentNumber(below));
        assert_eq!(left(0, 40, 0), [(0, 10), (22, 25), (30, 40)]);
        assert_eq!(left(0, 40, 6), [(0, 25), (30, 40)]);
        assert_eq!(left(12, 22, 0), []);
        assert_eq!(left(5, 7, 0), [(5, 7)]);
        assert_eq!(left(12, 12, 0), []);
    }
}
