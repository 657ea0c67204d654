//! Keyspace `blobs`: where the frame of each blob lies that is stored inline. A key is the blob's SHA-256, 32 bytes.

use bincode::{Decode, Encode};

use crate::ids::{CommitNumber, SegmentNumber};

/// Value of one inline blob: where its frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobRow {
    segment: u32,
    /// Place of the frame's header in the segment, bytes from its start.
    pub position: u64,
    /// Length of the frame's payload in bytes.
    pub payload_len: u32,
    /// The commit that stored it, which stays with a frame that is moved; 0 for a frame that cannot be read.
    pub commit: CommitNumber,
}

impl BlobRow {
    /// A frame of `commit` in `segment`.
    #[must_use]
    pub fn new(segment: SegmentNumber, position: u64, payload_len: u32, commit: CommitNumber) -> Self {
        Self { segment: segment.0, position, payload_len, commit }
    }

    /// The segment that holds the frame.
    #[must_use]
    pub fn segment(&self) -> SegmentNumber {
        SegmentNumber(self.segment)
    }

    /// Whether of two frames of one blob this one counts: the one stored later, and of its copies the newest.
    #[must_use]
    pub fn counts_before(&self, other: &Self) -> bool {
        (self.commit, self.segment) > (other.commit, other.segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{decode_value, encode_value};

    #[test]
    fn golden_row() {
        let row = BlobRow::new(SegmentNumber(7), 300, 61, 9);
        assert_eq!(encode_value(&row), [1, 7, 251, 44, 1, 61, 9]);
        assert_eq!(decode_value(&encode_value(&row)), Some(row));
        for bytes in [&[][..], &[2, 7, 0, 0, 0], &[1, 7], &[1, 7, 0, 0, 0, 0]] {
            assert_eq!(decode_value::<BlobRow>(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_later_upload_counts_and_of_its_copies_the_newest() {
        let row = |segment, commit| BlobRow::new(SegmentNumber(segment), 0, 0, commit);
        assert!(row(1, 6).counts_before(&row(9, 5)));
        assert!(row(9, 5).counts_before(&row(1, 5)));
        assert!(!row(1, 5).counts_before(&row(1, 5)));
        assert!(row(1, 5).counts_before(&row(9, 0)), "anything before what cannot be read");
    }
}
