//! A cleaned segment on disk: writing one, reading what it says of itself.
//!
//! Frames lie between a head and a foot as in a plain segment, but head and foot have a payload: a
//! [`CleanedHead`], the same in both, so that one bad sector does not lose it. A file with its final name is complete.

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::frame::{ALIGNMENT, FrameHeader, FrameKind, HEADER_LEN, frame_len};
use crate::fs::{FsFile, read_exact_at};
use crate::ids::{PartitionNumber, SegmentNumber};
use crate::keys::cleaned::CleanedHead;
use crate::keys::{decode_value, encode_value};
use crate::segments::{Found, Scan, Segments, random_u64};

/// Bytes written at once.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes written between two syncs, so that no sync of the committer waits for all of them.
const SYNC_BYTES: u64 = 4 << 20;

/// Bytes of frames that a cleaned segment of this head cannot hold: its head and foot.
pub(crate) fn edges_len(head: &CleanedHead) -> u64 {
    2 * frame_len(u32::try_from(encode_value(head).len()).unwrap_or(u32::MAX))
}

/// A cleaned segment being written.
pub(crate) struct CleanedWriter<'a> {
    segments: &'a Segments,
    number: SegmentNumber,
    salt: u32,
    file: Arc<dyn FsFile>,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    written: u64,
    unsynced: u64,
    frames: u32,
}

impl<'a> CleanedWriter<'a> {
    /// Starts a segment that will hold about `frame_bytes` bytes of frames and gives its head the salt. The head is
    /// written by [`CleanedWriter::finish`] and may differ then in its horizon only.
    pub(crate) fn create(
        segments: &'a Segments,
        number: SegmentNumber,
        head: &mut CleanedHead,
        frame_bytes: u64,
    ) -> io::Result<Self> {
        let file = segments.create_cleaned(number)?;
        let salt = u32::try_from(random_u64() >> 32).unwrap_or(0);
        head.salt = salt;
        let edges = edges_len(head);
        let written = edges / 2;
        let writer = Self { segments, number, salt, file, buffer: Vec::new(), written, unsynced: 0, frames: 0 };
        match writer.file.allocate(edges + frame_bytes) {
            Ok(()) => Ok(writer),
            Err(error) => {
                writer.discard();
                Err(error)
            }
        }
    }

    /// The segment's number.
    pub(crate) fn number(&self) -> SegmentNumber {
        self.number
    }

    /// Removes the file again.
    pub(crate) fn discard(self) {
        self.segments.drop_temporary(self.number);
    }

    /// Adds a frame that was `header` elsewhere; returns where it lies here.
    pub(crate) fn push(&mut self, header: &FrameHeader, payload: &[u8]) -> io::Result<u64> {
        let position = self.written + to_u64(self.buffer.len());
        let header = FrameHeader {
            segment: self.number,
            salt: self.salt,
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            payload_crc: crc32c::crc32c(payload),
            ..*header
        };
        append_frame(&mut self.buffer, &header, payload);
        self.frames += 1;
        if self.buffer.len() >= WRITE_BYTES {
            self.write_out()?;
        }
        Ok(position)
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.file.write_all_at(&mut [IoSlice::new(&self.buffer)], self.written)?;
        self.written += to_u64(self.buffer.len());
        self.unsynced += to_u64(self.buffer.len());
        self.buffer.clear();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Completes the segment and gives it its name; returns the bytes of its frames.
    ///
    /// # Durability
    /// On `Ok` the segment survives a power cut. On `Err` it may be there, whole, or not at all.
    pub(crate) fn finish(mut self, head: &CleanedHead) -> io::Result<u64> {
        match self.complete(head) {
            Ok(frame_bytes) => self.segments.name_cleaned(self.number).map(|()| frame_bytes),
            Err(error) => {
                self.discard();
                Err(error)
            }
        }
    }

    fn complete(&mut self, head: &CleanedHead) -> io::Result<u64> {
        let payload = encode_value(head);
        let end = self.written + to_u64(self.buffer.len());
        let foot = self.edge(FrameKind::Foot, head, &payload);
        append_frame(&mut self.buffer, &foot, &payload);
        self.write_out()?;
        let mut first = Vec::new();
        append_frame(&mut first, &self.edge(FrameKind::Head, head, &payload), &payload);
        self.file.write_all_at(&mut [IoSlice::new(&first)], 0)?;
        self.file.set_len(self.written)?;
        self.file.sync_data()?;
        Ok(end - to_u64(first.len()))
    }

    fn edge(&self, kind: FrameKind, head: &CleanedHead, payload: &[u8]) -> FrameHeader {
        FrameHeader {
            kind,
            last_of_commit: false,
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            payload_crc: crc32c::crc32c(payload),
            segment: self.number,
            partition: PartitionNumber(0),
            commit: head.last_commit,
            synced: head.last_commit,
            base_offset: 0,
            append_time_ms: 0,
            last_offset_delta: 0,
            ordinal: self.frames,
            salt: self.salt,
        }
    }
}

fn append_frame(buffer: &mut Vec<u8>, header: &FrameHeader, payload: &[u8]) {
    buffer.extend_from_slice(&header.encode());
    buffer.extend_from_slice(payload);
    let padding = payload.len().next_multiple_of(usize::try_from(ALIGNMENT).unwrap_or(8)) - payload.len();
    buffer.resize(buffer.len() + padding, 0);
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// What a cleaned segment says of itself, from its head or, when that is bad, from its foot; `None` when both are.
pub(crate) fn read_head(file: &Arc<dyn FsFile>, number: SegmentNumber) -> io::Result<Option<CleanedHead>> {
    if let Some(head) = head_at(file.as_ref(), number, 0, FrameKind::Head)? {
        return Ok(Some(head));
    }
    for found in Scan::new(file.clone(), number, 0)? {
        if let Found::End { position, .. } = found? {
            return head_at(file.as_ref(), number, position, FrameKind::Foot);
        }
    }
    Ok(None)
}

fn head_at(file: &dyn FsFile, number: SegmentNumber, at: u64, kind: FrameKind) -> io::Result<Option<CleanedHead>> {
    let mut bytes = [0; HEADER_LEN];
    let len = file.len()?;
    if at.saturating_add(to_u64(HEADER_LEN)) > len {
        return Ok(None);
    }
    read_exact_at(file, &mut bytes, at)?;
    let header = FrameHeader::decode(&bytes).filter(|h| h.kind == kind && h.segment == number);
    let Some(header) = header.filter(|h| at.saturating_add(h.frame_len()) <= len) else { return Ok(None) };
    let mut payload = vec![0; usize::try_from(header.payload_len).unwrap_or(0)];
    read_exact_at(file, &mut payload, at + to_u64(HEADER_LEN))?;
    let good = crc32c::crc32c(&payload) == header.payload_crc;
    Ok(good.then(|| decode_value(&payload)).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealFs;
    use crate::keys::cleaned::Claim;

    fn header(base_offset: i64) -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Batch,
            last_of_commit: true,
            payload_len: 0,
            payload_crc: 0,
            segment: SegmentNumber(1),
            partition: PartitionNumber(3),
            commit: 9,
            synced: 8,
            base_offset,
            append_time_ms: 5,
            last_offset_delta: 2,
            ordinal: 1,
            salt: 1,
        }
    }

    #[test]
    fn frames_keep_what_they_said_and_head_and_foot_stand_in_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::new(Arc::new(RealFs), dir.path().to_owned());
        let mut head = CleanedHead::new(2, 9, vec![Claim::new(PartitionNumber(3), 0, 50, SegmentNumber(7))]);
        let mut writer = CleanedWriter::create(&segments, SegmentNumber(7), &mut head, 1000).unwrap();
        let places = [writer.push(&header(0), b"one").unwrap(), writer.push(&header(3), &[7; 20]).unwrap()];
        head.note_horizon(77);
        assert_eq!(writer.finish(&head).unwrap(), 80 + 96);
        assert_eq!(segments.list().unwrap(), []);
        assert_eq!(segments.cleaned(), [SegmentNumber(7)].into());
        let file = segments.open(SegmentNumber(7)).unwrap();
        assert_eq!(file.len().unwrap(), edges_len(&head) + 176);
        let found: Vec<_> = Scan::new(file.clone(), SegmentNumber(7), 0).unwrap().map(Result::unwrap).collect();
        let Found::Frame { header: first, position, payload } = &found[0] else { panic!("{found:?}") };
        assert_eq!((*position, payload.as_ref()), (places[0], &b"one"[..]));
        let kept = FrameHeader { segment: first.segment, salt: first.salt, payload_len: 0, payload_crc: 0, ..*first };
        assert_eq!(kept, FrameHeader { segment: SegmentNumber(7), salt: first.salt, ..header(0) });
        assert!(matches!(found[2], Found::End { sealed: true, .. }), "{found:?}");
        assert_eq!(read_head(&file, SegmentNumber(7)).unwrap(), Some(head.clone()));
        let writable = crate::fs::Fs::open_write(&RealFs, &segments.path(SegmentNumber(7))).unwrap();
        let hit = |position| writable.write_all_at(&mut [IoSlice::new(b"x")], position).unwrap();
        hit(75);
        assert_eq!(read_head(&file, SegmentNumber(7)).unwrap(), Some(head.clone()), "from the foot");
        hit(file.len().unwrap() - 20);
        assert_eq!(read_head(&file, SegmentNumber(7)).unwrap(), None);
        segments.remove(SegmentNumber(7)).unwrap();
        assert_eq!((segments.cleaned().len(), segments.exists(SegmentNumber(7)).unwrap()), (0, false));
    }

    #[test]
    fn a_discarded_segment_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::new(Arc::new(RealFs), dir.path().to_owned());
        let writer =
            CleanedWriter::create(&segments, SegmentNumber(1), &mut CleanedHead::new(0, 0, vec![]), 10).unwrap();
        writer.discard();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
