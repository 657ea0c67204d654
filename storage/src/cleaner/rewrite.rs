//! Rewriting segments of which little is alive.

use std::collections::BTreeMap;

use super::{CleanError, Pass};
use crate::frame::frame_len;
use crate::ids::{SegmentNumber, Sha256};
use crate::keys::blob::BlobRow;
use crate::keys::cleaned::{Claim, CleanedHead};
use crate::keys::log::{BatchKey, BatchRow};

/// Frames moved in one round.
const ROUND_FRAMES: usize = 65_536;
/// So many small cleaned segments of one group are put together.
const SMALL_ONES: usize = 8;

/// What is moved together.
#[derive(Default)]
struct Round {
    groups: BTreeMap<u32, Vec<(BatchKey, BatchRow)>>,
    blobs: Vec<(Sha256, BlobRow)>,
    frames: usize,
    bytes: u64,
    claims: Vec<Claim>,
    horizon_ms: Option<i64>,
    /// A group for claims that come without frames.
    group: u32,
}

impl Pass<'_> {
    /// Rewrites until no segment is sparse.
    pub(super) fn rewrite(&mut self) -> Result<(), CleanError> {
        loop {
            let mut sources = self.sources();
            if self.core.keeper.disk_full() {
                // The one that needs least room; then its own bytes are free.
                sources.truncate(1);
            }
            let round = self.gather(&sources)?;
            if round.groups.is_empty() && round.blobs.is_empty() && round.claims.is_empty() {
                return self.unlink();
            }
            self.write_round(round)?;
            self.unlink()?;
        }
    }

    /// Segments to be rewritten, those with the least alive first: sparse ones, and small ones where there are many.
    fn sources(&self) -> Vec<SegmentNumber> {
        let mut sources = Vec::new();
        let mut small: BTreeMap<u32, Vec<SegmentNumber>> = BTreeMap::new();
        for (number, sealed) in &self.memory.files.sealed {
            if self.memory.stuck.contains(number) {
                continue;
            }
            if self.is_sparse(*number, sealed) {
                sources.push((self.alive(*number, sealed), *number));
            } else if let Some(head) = &sealed.head
                && sealed.len < self.core.options.segment_bytes / 4
            {
                small.entry(head.group).or_default().push(*number);
            }
        }
        sources.sort_unstable();
        let merged = small.into_values().filter(|numbers| numbers.len() >= SMALL_ONES).flatten();
        sources.into_iter().map(|(_, number)| number).chain(merged).collect()
    }

    /// The live frames of the first of these segments, as many as make one round.
    fn gather(&mut self, sources: &[SegmentNumber]) -> Result<Round, CleanError> {
        let mut round = Round::default();
        for number in sources {
            if round.frames >= ROUND_FRAMES || round.bytes >= self.core.options.segment_bytes {
                break;
            }
            let walked = self.walk(*number, ROUND_FRAMES - round.frames)?;
            if !walked.clean {
                self.keep_as_it_is(*number);
                continue;
            }
            let bytes = walked.bytes();
            round.frames += walked.count();
            if !walked.more {
                self.found_alive(*number, bytes);
            }
            for (key, row) in walked.alive {
                round.groups.entry(self.policies.group(key.partition)).or_default().push((key, row));
            }
            round.blobs.extend(walked.blobs);
            round.bytes += bytes;
            self.inherit(*number, &mut round);
        }
        Ok(round)
    }

    /// What a segment says and is needed goes on being said.
    fn inherit(&self, number: SegmentNumber, round: &mut Round) {
        let Some(head) = self.memory.files.sealed.get(&number).and_then(|sealed| sealed.head.as_ref()) else { return };
        let needed: Vec<_> = head.claims.iter().filter(|claim| self.is_needed(claim, number)).copied().collect();
        if !needed.is_empty() {
            round.horizon_ms = round.horizon_ms.min(Some(head.horizon_ms())).or(Some(head.horizon_ms()));
            round.group = head.group;
            round.claims.extend(needed);
        }
    }

    /// One cleaned segment or more for each group.
    fn write_round(&mut self, mut round: Round) -> Result<(), CleanError> {
        if round.groups.is_empty() && (round.blobs.is_empty() || !round.claims.is_empty()) {
            round.groups.insert(round.group, Vec::new());
        }
        for (group, mut moves) in std::mem::take(&mut round.groups) {
            moves.sort_unstable_by_key(|(key, _)| *key);
            for moves in files(&moves, self.core.options.segment_bytes) {
                let mut head = CleanedHead::new(group, self.marker.applied, std::mem::take(&mut round.claims));
                round.horizon_ms.take().into_iter().for_each(|ms| head.note_horizon(ms));
                let number = self.core.keeper.take_number();
                self.write_cleaned(number, head, moves, false, &mut |_, _, _| super::write::Shape::Same)?;
            }
        }
        let mut blobs = round.blobs.as_slice();
        while !blobs.is_empty() {
            let count = fitting(blobs.iter().map(|(_, row)| row.payload_len), self.core.options.segment_bytes);
            let (moves, rest) = blobs.split_at_checked(count).unwrap_or((blobs, &[]));
            self.write_blobs(self.core.keeper.take_number(), moves)?;
            blobs = rest;
        }
        Ok(())
    }
}

/// How many of these frames make about `bytes` bytes; at least one.
fn fitting(payload_lens: impl Iterator<Item = u32>, bytes: u64) -> usize {
    let mut sum = 0;
    let fits = |len: &u32| {
        sum += frame_len(*len);
        sum <= bytes
    };
    payload_lens.take_while(fits).count().max(1)
}

/// Cuts what is to be written into pieces of about `bytes` bytes; at least one piece.
fn files(mut moves: &[(BatchKey, BatchRow)], bytes: u64) -> Vec<&[(BatchKey, BatchRow)]> {
    let mut files = Vec::new();
    loop {
        let count = fitting(moves.iter().map(|(_, row)| row.payload_len), bytes);
        let (file, rest) = moves.split_at_checked(count).unwrap_or((moves, &[]));
        files.push(file);
        moves = rest;
        if moves.is_empty() {
            return files;
        }
    }
}
