//! Format 1, the first one: what a data directory of it looks like.
//!
//! Frozen with the first release: what stands here describes bytes on disks that exist, and is never changed afterwards.
//!
//! ```text
//! FORMAT                   "azulite 1\n", written last when a store is made
//! LOCK                     flock held by the owner; "pid=<pid> http=<address>\n"
//! log/NNNNNNNN.seg         frames, one after the other, each aligned to 8 bytes; the first is a head, in a sealed
//!                          segment the last is a foot
//! blobs/aa/bb/SHA256       blobs that are not in the log; plain, or masked (.xor), or encrypted (.aes)
//! keys/blobs.key           the key of the mask and the cipher, made when one of them is first needed
//! staging/  lost+found/    uploads under way; what was cut off or is damaged
//! ```
//!
//! Frame header, 72 bytes, big-endian, both CRCs CRC-32C, that of the header over its first 68 bytes:
//!
//! | 0..4  | 4      | 5    | 6..8  | 8..12          | 12..16      | 16..20  | 20..24           |
//! |-------|--------|------|-------|----------------|-------------|---------|------------------|
//! | magic | format | kind | flags | payload length | payload CRC | segment | partition number |
//!
//! | 24..32 | 32..40        | 40..48      | 48..56         | 56..60            | 60..64            | 64..68   | 68..72     |
//! |--------|---------------|-------------|----------------|-------------------|-------------------|----------|------------|
//! | commit | synced commit | base offset | append time ms | last offset delta | ordinal in commit | salt     | header CRC |
//!
//! The payload of a blob frame begins with 40 bytes: SHA-256 of the plain bytes (32), encoding (plain 0, masked 1,
//! encrypted 2), three zeroes, CRC-32C of these. A state record `10 SHA256` says of each blob whether it is in the log and
//! how it is encoded; a blob without one is a plain file.
//!
//! Everything else in the directory (the index, the blob catalogue) can be rebuilt from the log and the blobs, so a
//! migration away from this format has to read nothing but what is drawn here and the state records.

/// The number of this format.
pub const NUMBER: u32 = 1;
/// Content of the file `FORMAT`.
pub const STAMP: &str = "azulite 1\n";
/// Directories that a new store has.
pub const DIRECTORIES: [&str; 4] = ["log", "blobs", "staging", "lost+found"];
/// First bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"AZF\x01";
/// Fifth byte of every frame.
pub const FRAME_FORMAT: u8 = 1;
/// Length of a frame header in bytes.
pub const FRAME_HEADER_LEN: usize = 72;
/// Frames begin at multiples of this.
pub const FRAME_ALIGNMENT: u64 = 8;
/// Sixth byte of a frame, by what the payload is: record batch, blob, padding, head, foot.
pub const FRAME_KINDS: [u8; 5] = [1, 2, 3, 4, 5];
/// Topic and partition number of the state records.
pub const STATE: (&str, u32) = ("__azulite_state", 0);
/// Topic and partition number of the committed offsets of groups, in Kafka's own record format.
pub const OFFSETS: (&str, u32) = ("__consumer_offsets", 1);

#[cfg(test)]
mod tests {
    //! As long as this is the newest format, `storage` must write exactly what is described here. When the next format
    //! comes, these tests go and the fixture `migrations/fixtures/v1` stays.

    use super::*;
    use azulite_storage::format;
    use azulite_storage::frame::{ALIGNMENT, FrameHeader, FrameKind, HEADER_LEN};
    use azulite_storage::fs::RealFs;
    use azulite_storage::ids::{PartitionNumber, SegmentNumber};
    use azulite_storage::state;

    #[test]
    fn a_new_store_looks_as_described() {
        let dir = tempfile::tempdir().unwrap();
        format::create(&RealFs, dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("FORMAT")).unwrap(), STAMP);
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut expected: Vec<_> = DIRECTORIES.iter().map(ToString::to_string).chain(["FORMAT".to_owned()]).collect();
        expected.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_frame_looks_as_described() {
        assert_eq!((HEADER_LEN, ALIGNMENT), (FRAME_HEADER_LEN, FRAME_ALIGNMENT));
        let kinds = [FrameKind::Batch, FrameKind::Blob, FrameKind::Padding, FrameKind::Head, FrameKind::Foot];
        for (kind, code) in kinds.into_iter().zip(FRAME_KINDS) {
            let bytes = header(kind).encode();
            assert_eq!(bytes[..4], FRAME_MAGIC);
            assert_eq!(bytes[4..8], [FRAME_FORMAT, code, 0, 1], "flag 1 is the last frame of a commit");
            assert_eq!(bytes[8..24], [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]);
            assert_eq!(bytes[24..40], [0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6]);
            assert_eq!(bytes[40..56], [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8]);
            assert_eq!(bytes[56..68], [0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 11]);
        }
    }

    fn header(kind: FrameKind) -> FrameHeader {
        FrameHeader {
            kind,
            last_of_commit: true,
            payload_len: 1,
            payload_crc: 2,
            segment: SegmentNumber(3),
            partition: PartitionNumber(4),
            commit: 5,
            synced: 6,
            base_offset: 7,
            append_time_ms: 8,
            last_offset_delta: 9,
            ordinal: 10,
            salt: 11,
        }
    }

    #[test]
    fn the_internal_topics_are_as_described() {
        assert_eq!((state::STATE_TOPIC, state::STATE_PARTITION), (STATE.0, PartitionNumber(STATE.1)));
        assert_eq!((state::OFFSETS_TOPIC, state::OFFSETS_PARTITION), (OFFSETS.0, PartitionNumber(OFFSETS.1)));
    }
}
