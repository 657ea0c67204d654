//! Keyspace `meta`: up to where the index has been brought.

use bincode::{Decode, Encode};

use crate::ids::SegmentNumber;

/// Key of the marker row in keyspace `meta`.
pub const MARKER_KEY: &[u8] = b"marker";

/// "Applied up to commit N at this segment and position, synced up to commit S." Moves in the same engine batch as the
/// rows it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Marker {
    /// The last commit whose rows are in the index.
    pub applied: u64,
    /// The last commit known to be synced when this was written.
    pub synced: u64,
    segment: u32,
    /// Where that commit ends in the segment, bytes from its start.
    pub position: u64,
    /// Where its last frame begins: a check that log and index belong together.
    pub last_frame: u64,
}

impl Marker {
    /// A marker behind commit `applied`.
    #[must_use]
    pub fn new(applied: u64, synced: u64, segment: SegmentNumber, position: u64, last_frame: u64) -> Self {
        Self { applied, synced, segment: segment.0, position, last_frame }
    }

    /// The segment that holds the end of the commit.
    #[must_use]
    pub fn segment(&self) -> SegmentNumber {
        SegmentNumber(self.segment)
    }
}
