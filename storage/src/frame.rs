//! The frame: the unit everything durable is written in.

use crate::ids::{CommitNumber, Offset, PartitionNumber, SegmentNumber};

/// First four bytes of every frame; never zero, so preallocated zeroes never pass for a frame.
const MAGIC: [u8; 4] = *b"AZF\x01";
/// Version of the header layout.
const FORMAT: u8 = 1;
/// Length of a frame header in bytes.
pub const HEADER_LEN: usize = 72;
/// Frames start at multiples of this, so that a scan finds its way past a bad one.
pub const ALIGNMENT: u64 = 8;
/// The longest payload of one frame, in bytes.
pub const MAX_PAYLOAD: u32 = 1 << 30;

/// Set on the last frame of a commit.
const FLAG_LAST: u16 = 1;

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A Kafka record batch, version 2, exactly as clients see it.
    Batch,
    /// A small blob stored inline.
    Blob,
    /// Nothing: skipped when read.
    Padding,
    /// First frame of a segment; see [`crate::segments`].
    Head,
    /// Last frame of a sealed segment.
    Foot,
}

impl FrameKind {
    fn code(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Blob => 2,
            Self::Padding => 3,
            Self::Head => 4,
            Self::Foot => 5,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Batch, Self::Blob, Self::Padding, Self::Head, Self::Foot].into_iter().find(|k| k.code() == code)
    }
}

/// Header of a frame: 72 bytes, big-endian.
///
/// | 0..4  | 4      | 5    | 6..8  | 8..12          | 12..16      | 16..20  | 20..24           |
/// |-------|--------|------|-------|----------------|-------------|---------|------------------|
/// | magic | format | kind | flags | payload length | payload CRC | segment | partition number |
///
/// | 24..32 | 32..40        | 40..48      | 48..56         | 56..60            | 60..64            | 64..68   | 68..72     |
/// |--------|---------------|-------------|----------------|-------------------|-------------------|----------|------------|
/// | commit | synced commit | base offset | append time ms | last offset delta | ordinal in commit | salt     | header CRC |
///
/// Both CRCs are CRC-32C; the header's covers bytes 0..68, so a scan can trust a header without reading its payload.
/// `synced commit` is the last commit known to be synced when this frame was written. Append time per partition never
/// goes backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the payload is.
    pub kind: FrameKind,
    /// True for the last frame of its commit.
    pub last_of_commit: bool,
    /// Length of the payload in bytes, without the padding to 8.
    pub payload_len: u32,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
    /// The segment this frame was written to.
    pub segment: SegmentNumber,
    /// The partition of a batch; 0 where it means nothing.
    pub partition: PartitionNumber,
    /// The commit this frame belongs to; 0 for heads and feet.
    pub commit: CommitNumber,
    /// The last commit known to be synced when this was written.
    pub synced: CommitNumber,
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// When the frame was appended, milliseconds since 1970.
    pub append_time_ms: i64,
    /// Offset of the batch's last record minus the base offset.
    pub last_offset_delta: u32,
    /// Place of the frame in its commit, from 0.
    pub ordinal: u32,
    /// The segment's random number.
    pub salt: u32,
}

impl FrameHeader {
    /// Bytes the whole frame takes in its segment: header, payload and padding.
    #[must_use]
    pub fn frame_len(&self) -> u64 {
        frame_len(self.payload_len)
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let flags = if self.last_of_commit { FLAG_LAST } else { 0 };
        let mut out = [0; HEADER_LEN];
        let mut put = Writer { out: &mut out, at: 0 };
        put.bytes(&MAGIC);
        put.bytes(&[FORMAT, self.kind.code()]);
        put.bytes(&flags.to_be_bytes());
        put.bytes(&self.payload_len.to_be_bytes());
        put.bytes(&self.payload_crc.to_be_bytes());
        put.bytes(&self.segment.0.to_be_bytes());
        put.bytes(&self.partition.0.to_be_bytes());
        put.bytes(&self.commit.to_be_bytes());
        put.bytes(&self.synced.to_be_bytes());
        put.bytes(&self.base_offset.to_be_bytes());
        put.bytes(&self.append_time_ms.to_be_bytes());
        put.bytes(&self.last_offset_delta.to_be_bytes());
        put.bytes(&self.ordinal.to_be_bytes());
        put.bytes(&self.salt.to_be_bytes());
        let crc = crc32c::crc32c(put.written());
        put.bytes(&crc.to_be_bytes());
        out
    }

    /// Reads a header; `None` unless magic, format, kind, header CRC and length are all right.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        if !header.starts_with(&MAGIC) {
            return None;
        }
        let (covered, crc) = header.split_last_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut take = Reader(covered.get(4..)?);
        let [format, kind] = take.array()?;
        let flags = u16::from_be_bytes(take.array()?);
        let header = Self {
            kind: FrameKind::from_code(kind)?,
            last_of_commit: flags & FLAG_LAST != 0,
            payload_len: u32::from_be_bytes(take.array()?),
            payload_crc: u32::from_be_bytes(take.array()?),
            segment: SegmentNumber(u32::from_be_bytes(take.array()?)),
            partition: PartitionNumber(u32::from_be_bytes(take.array()?)),
            commit: u64::from_be_bytes(take.array()?),
            synced: u64::from_be_bytes(take.array()?),
            base_offset: i64::from_be_bytes(take.array()?),
            append_time_ms: i64::from_be_bytes(take.array()?),
            last_offset_delta: u32::from_be_bytes(take.array()?),
            ordinal: u32::from_be_bytes(take.array()?),
            salt: u32::from_be_bytes(take.array()?),
        };
        (format == FORMAT && header.payload_len <= MAX_PAYLOAD).then_some(header)
    }
}

/// Bytes a frame with a payload of `payload_len` bytes takes: header, payload and padding to 8.
#[must_use]
pub fn frame_len(payload_len: u32) -> u64 {
    (72 + u64::from(payload_len)).next_multiple_of(ALIGNMENT)
}

struct Writer<'a> {
    out: &'a mut [u8; HEADER_LEN],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(place) = self.out.get_mut(self.at..self.at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self.at += bytes.len();
    }

    fn written(&self) -> &[u8] {
        self.out.get(..self.at).unwrap_or_default()
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Batch,
            last_of_commit: true,
            payload_len: 61,
            payload_crc: 0x0102_0304,
            segment: SegmentNumber(7),
            partition: PartitionNumber(9),
            commit: 10,
            synced: 9,
            base_offset: 1000,
            append_time_ms: 1_700_000_000_000,
            last_offset_delta: 4,
            ordinal: 2,
            salt: 0x0a0b_0c0d,
        }
    }

    #[test]
    fn header_bytes_are_as_drawn() {
        let mut golden = b"AZF\x01\x01\x01\x00\x01\x00\x00\x00\x3d\x01\x02\x03\x04".to_vec();
        golden.extend(b"\x00\x00\x00\x07\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x0a");
        golden.extend(b"\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x03\xe8");
        golden.extend(b"\x00\x00\x01\x8b\xcf\xe5\x68\x00\x00\x00\x00\x04\x00\x00\x00\x02\x0a\x0b\x0c\x0d");
        let crc = crc32c::crc32c(&golden);
        golden.extend(crc.to_be_bytes());
        assert_eq!(header().encode().as_slice(), golden);
        assert_eq!(FrameHeader::decode(&golden), Some(header()));
    }

    #[test]
    fn any_flipped_bit_and_any_short_header_is_refused() {
        let good = header().encode();
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bad), None, "bit {bit}");
        }
        for len in 0..HEADER_LEN {
            assert_eq!(FrameHeader::decode(&good[..len]), None);
        }
        assert_eq!(FrameHeader::decode(&[0; HEADER_LEN]), None, "zeroes are not a frame");
    }

    #[test]
    fn frames_take_whole_multiples_of_eight() {
        assert_eq!(frame_len(0), 72);
        assert_eq!(frame_len(1), 80);
        assert_eq!(frame_len(8), 80);
    }
}
