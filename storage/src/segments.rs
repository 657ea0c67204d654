//! The log on disk: append-only segment files of frames.
//!
//! A segment is prepared ahead of need (preallocated, head frame, synced, named), appended to by the committer alone,
//! then sealed: a foot frame, cut to size, synced. Zeroes behind the last frame are room in an unsealed segment and
//! damage in a sealed one. Cleaned segments (`NNNNNNNN.cln`, see [`crate::cleaner`]) share the numbers and are read the
//! same way.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::frame::{FrameHeader, FrameKind, HEADER_LEN, frame_len};
use crate::fs::{Fs, FsFile, read_exact_at, with_suffix};
use crate::ids::{CommitNumber, PartitionNumber, SegmentNumber};

/// Segment files held open for reading, at most.
const MAX_OPEN: usize = 256;
/// Bytes a head or foot frame takes.
pub const EDGE_LEN: u64 = 72;

/// The folder of segment files.
#[derive(Debug)]
pub struct Segments {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    open: Mutex<VecDeque<(SegmentNumber, Arc<dyn FsFile>)>>,
    /// Numbers of the cleaned ones.
    cleaned: Mutex<BTreeSet<SegmentNumber>>,
}

/// A segment that is ready to be appended to.
#[derive(Debug)]
pub struct Prepared {
    /// Its number.
    pub number: SegmentNumber,
    /// Its random number; see [`FrameHeader`].
    pub salt: u32,
    /// The open file.
    pub file: Arc<dyn FsFile>,
    /// Its preallocated length in bytes.
    pub len: u64,
}

/// A random number nobody outside the process can guess.
#[must_use]
pub(crate) fn random_u64() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

impl Segments {
    /// The segments below `dir`.
    #[must_use]
    pub fn new(fs: Arc<dyn Fs>, dir: PathBuf) -> Self {
        Self { fs, dir, open: Mutex::default(), cleaned: Mutex::default() }
    }

    /// Path of a segment file.
    #[must_use]
    pub fn path(&self, number: SegmentNumber) -> PathBuf {
        if self.is_cleaned(number) { self.cleaned_path(number) } else { self.dir.join(number.to_string()) }
    }

    fn cleaned_path(&self, number: SegmentNumber) -> PathBuf {
        self.dir.join(format!("{:08}.cln", number.0))
    }

    /// Numbers of all plain segments, rising; takes note of the cleaned ones. Left-over temporary files are removed.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn list(&self) -> io::Result<Vec<SegmentNumber>> {
        let (mut numbers, mut cleaned) = (Vec::new(), BTreeSet::new());
        for entry in self.fs.list(&self.dir)? {
            let number = |suffix| entry.name.strip_suffix(suffix).and_then(|n| n.parse().ok()).map(SegmentNumber);
            match (number(".seg"), number(".cln")) {
                (Some(plain), _) => numbers.push(plain),
                (None, Some(number)) => drop(cleaned.insert(number)),
                (None, None) if entry.name.ends_with(".tmp") => self.fs.remove_file(&self.dir.join(&entry.name))?,
                (None, None) => {}
            }
        }
        numbers.sort_unstable();
        *self.cleaned_mut() = cleaned;
        Ok(numbers)
    }

    /// Numbers of the plain segments that are there now, rising.
    pub(crate) fn plain(&self) -> io::Result<Vec<SegmentNumber>> {
        let plain = |entry: crate::fs::DirEntry| entry.name.strip_suffix(".seg").and_then(|n| n.parse().ok());
        let mut numbers: Vec<_> = self.fs.list(&self.dir)?.into_iter().filter_map(plain).map(SegmentNumber).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn cleaned_mut(&self) -> MutexGuard<'_, BTreeSet<SegmentNumber>> {
        self.cleaned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a segment was written by the cleaner.
    #[must_use]
    pub fn is_cleaned(&self, number: SegmentNumber) -> bool {
        self.cleaned_mut().contains(&number)
    }

    /// Numbers of the cleaned segments, rising.
    #[must_use]
    pub fn cleaned(&self) -> BTreeSet<SegmentNumber> {
        self.cleaned_mut().clone()
    }

    /// Whether there is a file for this number.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn exists(&self, number: SegmentNumber) -> io::Result<bool> {
        Ok(self.fs.meta(&self.path(number))?.is_some())
    }

    /// A new file for a cleaned segment, under a temporary name.
    pub(crate) fn create_cleaned(&self, number: SegmentNumber) -> io::Result<Arc<dyn FsFile>> {
        self.fs.create(&with_suffix(&self.cleaned_path(number), ".tmp"))
    }

    /// Gives a cleaned segment, which is complete and synced, its name, durably.
    pub(crate) fn name_cleaned(&self, number: SegmentNumber) -> io::Result<()> {
        let path = self.cleaned_path(number);
        self.fs.rename(&with_suffix(&path, ".tmp"), &path)?;
        self.cleaned_mut().insert(number);
        self.fs.sync_dir(&self.dir)
    }

    /// Removes what is left of a cleaned segment that could not be finished.
    pub(crate) fn drop_temporary(&self, number: SegmentNumber) {
        let path = with_suffix(&self.cleaned_path(number), ".tmp");
        if let Err(error) = self.fs.remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a half-made segment could not be removed");
        }
    }

    /// A segment opened for reading; at most 256 are held open.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn open(&self, number: SegmentNumber) -> io::Result<Arc<dyn FsFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = open.iter().position(|(n, _)| *n == number)
            && let Some((_, file)) = open.remove(place)
        {
            open.push_back((number, file.clone()));
            return Ok(file);
        }
        drop(open);
        let file = self.fs.open_read(&self.path(number))?;
        self.remember(number, file.clone());
        // Whoever removes the file forgets it afterwards; whoever opened it before that must not keep it here.
        if !self.exists(number)? {
            self.forget(number);
        }
        Ok(file)
    }

    fn forget(&self, number: SegmentNumber) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|(n, _)| *n != number);
    }

    fn remember(&self, number: SegmentNumber, file: Arc<dyn FsFile>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_OPEN {
            open.pop_front();
        }
        open.push_back((number, file));
    }

    /// Makes a segment of at least `len` bytes: temporary name, preallocation, head frame, sync, rename, directory sync.
    ///
    /// # Durability
    /// On `Ok` the empty segment survives a power cut; on `Err` only a temporary file may be left.
    /// # Errors
    /// `StorageFull` when the disk cannot hold it.
    pub fn prepare(&self, number: SegmentNumber, len: u64) -> io::Result<Prepared> {
        let path = self.path(number);
        let temporary = with_suffix(&path, ".tmp");
        if self.fs.meta(&temporary)?.is_some() {
            self.fs.remove_file(&temporary)?;
        }
        let prepared = self.fill(&temporary, number, len);
        if prepared.is_err() && self.fs.remove_file(&temporary).is_err() {
            tracing::warn!(path = %temporary.display(), "a half-made segment could not be removed");
        }
        let prepared = prepared?;
        self.fs.rename(&temporary, &path)?;
        self.fs.sync_dir(&self.dir)?;
        self.remember(number, prepared.file.clone());
        Ok(prepared)
    }

    fn fill(&self, path: &Path, number: SegmentNumber, len: u64) -> io::Result<Prepared> {
        let file = self.fs.create(path)?;
        file.allocate(len)?;
        let salt = u32::try_from(random_u64() >> 32).unwrap_or(0);
        let head = edge(FrameKind::Head, number, salt, 0, 0, 0);
        file.write_all_at(&mut [IoSlice::new(&head)], 0)?;
        file.sync_data()?;
        Ok(Prepared { number, salt, file, len })
    }

    /// Seals a segment at `end`: foot frame, cut to size, sync.
    ///
    /// # Errors
    /// As the operating system reports them. The segment stays readable either way.
    pub fn seal(&self, sealing: &Sealing) -> io::Result<()> {
        let foot = edge(FrameKind::Foot, sealing.number, sealing.salt, sealing.frames, sealing.commit, sealing.commit);
        sealing.file.set_len(sealing.end)?;
        sealing.file.write_all_at(&mut [IoSlice::new(&foot)], sealing.end)?;
        sealing.file.sync_data()
    }

    /// Removes a segment's name, durably.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn remove(&self, number: SegmentNumber) -> io::Result<()> {
        self.remove_all(&[number])
    }

    /// Removes the names of several segments, durably. Who holds one open goes on reading it.
    ///
    /// # Errors
    /// As the operating system reports them; some may be gone.
    pub fn remove_all(&self, numbers: &[SegmentNumber]) -> io::Result<()> {
        for number in numbers {
            match self.fs.remove_file(&self.path(*number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => self.forget(*number),
            }
        }
        self.fs.sync_dir(&self.dir)?;
        self.cleaned_mut().retain(|number| !numbers.contains(number));
        Ok(())
    }
}

/// What sealing a segment needs to know.
#[derive(Clone, Debug)]
pub struct Sealing {
    /// The segment.
    pub number: SegmentNumber,
    /// Its random number.
    pub salt: u32,
    /// The file, open for writing.
    pub file: Arc<dyn FsFile>,
    /// Where its last frame ends.
    pub end: u64,
    /// Number of frames between head and foot.
    pub frames: u32,
    /// Its last commit, which is synced.
    pub commit: CommitNumber,
}

/// A head or foot frame: no payload. A foot carries the number of frames as its ordinal and the segment's last commit.
fn edge(
    kind: FrameKind,
    segment: SegmentNumber,
    salt: u32,
    frames: u32,
    commit: CommitNumber,
    synced: CommitNumber,
) -> [u8; HEADER_LEN] {
    let header = FrameHeader {
        kind,
        last_of_commit: false,
        payload_len: 0,
        payload_crc: 0,
        segment,
        partition: PartitionNumber(0),
        commit,
        synced,
        base_offset: 0,
        append_time_ms: 0,
        last_offset_delta: 0,
        ordinal: frames,
        salt,
    };
    header.encode()
}

/// One thing a scan finds.
#[derive(Debug)]
pub enum Found {
    /// A frame whose both CRCs are right.
    Frame {
        /// Its header.
        header: FrameHeader,
        /// Where it begins.
        position: u64,
        /// Its payload.
        payload: bytes::Bytes,
    },
    /// Bytes that are no good frame.
    Bad {
        /// Where they begin.
        from: u64,
        /// Where the next good frame begins, or the end of what is not zero.
        to: u64,
        /// The frame's header when only its payload is bad.
        header: Option<FrameHeader>,
    },
    /// The end: what follows is room, or nothing.
    End {
        /// Where the last frame ends.
        position: u64,
        /// True when a foot frame says so.
        sealed: bool,
    },
}

/// Walks the frames of one segment from a position on.
#[derive(Debug)]
pub struct Scan {
    file: Arc<dyn FsFile>,
    number: SegmentNumber,
    salt: Option<u32>,
    len: u64,
    position: u64,
    window: Vec<u8>,
    window_at: u64,
    done: bool,
}

const WINDOW: usize = 1 << 20;

impl Scan {
    /// A scan of `file` from `from` on (0: from the head).
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn new(file: Arc<dyn FsFile>, number: SegmentNumber, from: u64) -> io::Result<Self> {
        let len = file.len()?;
        let mut scan =
            Self { file, number, salt: None, len, position: 0, window: Vec::new(), window_at: 0, done: false };
        let head = scan.header_at(0)?.filter(|h| h.kind == FrameKind::Head);
        scan.salt = head.map(|h| h.salt);
        scan.position = head.map_or(from, |h| from.max(h.frame_len()));
        Ok(scan)
    }

    /// The segment's random number, when its head is good.
    #[must_use]
    pub fn salt(&self) -> Option<u32> {
        self.salt
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// Bytes from `position`, up to a window long; reads the file when they are not at hand.
    fn bytes_at(&mut self, position: u64, want: usize) -> io::Result<&[u8]> {
        let offset = position.checked_sub(self.window_at).and_then(|o| usize::try_from(o).ok());
        let inside = offset.is_some_and(|o| o.saturating_add(want) <= self.window.len());
        if !inside {
            let left = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
            self.window.resize(left.min(WINDOW.max(want)), 0);
            read_exact_at(self.file.as_ref(), &mut self.window, position)?;
            self.window_at = position;
        }
        let offset = usize::try_from(position - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.get(offset..).unwrap_or_default())
    }

    /// The header at `position`, if a good one of this segment is there.
    fn header_at(&mut self, position: u64) -> io::Result<Option<FrameHeader>> {
        let (number, salt) = (self.number, self.salt);
        let bytes = self.bytes_at(position, HEADER_LEN)?;
        let header = FrameHeader::decode(bytes);
        Ok(header.filter(|h| h.segment == number && salt.is_none_or(|s| s == h.salt)))
    }

    fn step(&mut self) -> io::Result<Found> {
        let from = self.position;
        let Some(header) = self.header_at(from)? else { return self.past_bad(from) };
        let end = from + header.frame_len();
        if header.kind == FrameKind::Foot {
            self.done = true;
            return Ok(Found::End { position: from, sealed: true });
        }
        if end > self.len {
            return self.past_bad(from);
        }
        let len = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
        let bytes = self.bytes_at(from, HEADER_LEN + len)?;
        let payload = bytes::Bytes::copy_from_slice(bytes.get(HEADER_LEN..HEADER_LEN + len).unwrap_or_default());
        self.position = end;
        if crc32c::crc32c(&payload) != header.payload_crc {
            return Ok(Found::Bad { from, to: end, header: Some(header) });
        }
        Ok(Found::Frame { header, position: from, payload })
    }

    /// Finds the next good header behind `from`; none, and the rest is a bad tail or room.
    fn past_bad(&mut self, from: u64) -> io::Result<Found> {
        let mut nonzero_end = from;
        let mut at = from;
        while at < self.len {
            if at > from && self.header_at(at)?.is_some() {
                self.position = at;
                return Ok(Found::Bad { from, to: at, header: None });
            }
            let zeroes = self.zeroes_at(at)?;
            if zeroes == 0 {
                nonzero_end = (at + 8).min(self.len);
            }
            at += zeroes.max(8);
        }
        self.position = self.len;
        if nonzero_end == from {
            self.done = true;
            return Ok(Found::End { position: from, sealed: false });
        }
        Ok(Found::Bad { from, to: nonzero_end, header: None })
    }

    /// How many zero bytes, in whole groups of 8, follow `at` in what one read gives.
    fn zeroes_at(&mut self, at: u64) -> io::Result<u64> {
        let bytes = self.bytes_at(at, 8)?;
        let groups = bytes.chunks(8).take_while(|group| group.iter().all(|b| *b == 0)).count();
        Ok(u64::try_from(groups).unwrap_or(0) * 8)
    }
}

impl Iterator for Scan {
    type Item = io::Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.position >= self.len {
            self.done = true;
            return Some(Ok(Found::End { position: self.len, sealed: false }));
        }
        let step = self.step();
        self.done |= step.is_err();
        Some(step)
    }
}

/// Calls `each` with the place and header of every frame between head and foot, without reading payloads. False when it
/// ended before a foot: at a bad header, an unknown one, or the end of the file.
pub(crate) fn walk_headers<E: From<io::Error>>(
    file: &dyn FsFile,
    number: SegmentNumber,
    mut each: impl FnMut(u64, FrameHeader) -> Result<(), E>,
) -> Result<bool, E> {
    let len = file.len()?;
    let header_at = |position: u64| -> io::Result<Option<FrameHeader>> {
        let mut bytes = [0; HEADER_LEN];
        if position.saturating_add(EDGE_LEN) > len {
            return Ok(None);
        }
        read_exact_at(file, &mut bytes, position)?;
        Ok(FrameHeader::decode(&bytes).filter(|h| h.segment == number))
    };
    let Some(head) = header_at(0)?.filter(|h| h.kind == FrameKind::Head) else { return Ok(false) };
    let mut position = head.frame_len();
    loop {
        let Some(header) = header_at(position)?.filter(|h| h.salt == head.salt) else { return Ok(false) };
        if header.kind == FrameKind::Foot {
            return Ok(position + header.frame_len() == len);
        }
        each(position, header)?;
        position += header.frame_len();
    }
}

/// Bytes a batch frame takes in a segment.
#[must_use]
pub fn batch_frame_len(payload_len: u32) -> u64 {
    frame_len(payload_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealFs;

    fn segments() -> (tempfile::TempDir, Segments) {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::new(Arc::new(RealFs), dir.path().to_owned());
        (dir, segments)
    }

    fn frame(prepared: &Prepared, position: u64, ordinal: u32, payload: &[u8]) -> u64 {
        let payload_len = u32::try_from(payload.len()).unwrap();
        let header = FrameHeader {
            kind: FrameKind::Batch,
            last_of_commit: true,
            payload_len,
            payload_crc: crc32c::crc32c(payload),
            segment: prepared.number,
            partition: PartitionNumber(3),
            commit: u64::from(ordinal) + 1,
            synced: 0,
            base_offset: 0,
            append_time_ms: 0,
            last_offset_delta: 0,
            ordinal,
            salt: prepared.salt,
        };
        let bytes = header.encode();
        prepared.file.write_all_at(&mut [IoSlice::new(&bytes), IoSlice::new(payload)], position).unwrap();
        position + header.frame_len()
    }

    fn scan(segments: &Segments, number: SegmentNumber) -> Vec<String> {
        let scan = Scan::new(segments.open(number).unwrap(), number, 0).unwrap();
        scan.map(|found| match found.unwrap() {
            Found::Frame { position, payload, .. } => format!("frame {position} {}", payload.len()),
            Found::Bad { from, to, header } => format!("bad {from}..{to} {}", header.is_some()),
            Found::End { position, sealed } => format!("end {position} {sealed}"),
        })
        .collect()
    }

    #[test]
    fn a_scan_finds_its_way_past_bad_frames_and_stops_at_the_foot() {
        let (_dir, segments) = segments();
        let prepared = segments.prepare(SegmentNumber(1), 4096).unwrap();
        let mut at = EDGE_LEN;
        for ordinal in 0..3 {
            at = frame(&prepared, at, ordinal, &[7; 20]);
        }
        assert_eq!(scan(&segments, SegmentNumber(1)), ["frame 72 20", "frame 168 20", "frame 264 20", "end 360 false"]);
        prepared.file.write_all_at(&mut [IoSlice::new(b"x")], 168 + 72).unwrap();
        assert_eq!(scan(&segments, SegmentNumber(1))[1], "bad 168..264 true");
        prepared.file.write_all_at(&mut [IoSlice::new(b"x")], 168).unwrap();
        assert_eq!(scan(&segments, SegmentNumber(1))[1], "bad 168..264 false");
        let (number, salt, file) = (prepared.number, prepared.salt, prepared.file.clone());
        segments.seal(&Sealing { number, salt, file, end: at, frames: 3, commit: 3 }).unwrap();
        assert_eq!(scan(&segments, SegmentNumber(1))[3], "end 360 true");
        prepared.file.write_all_at(&mut [IoSlice::new(&[0; 96])], 168).unwrap();
        assert_eq!(scan(&segments, SegmentNumber(1))[1], "bad 168..264 false", "zeroes in a sealed segment are damage");
    }

    #[test]
    fn a_frame_inside_a_payload_does_not_pass_for_one() {
        let (_dir, segments) = segments();
        let prepared = segments.prepare(SegmentNumber(1), 4096).unwrap();
        let mut copy = FrameHeader::decode(&edge(FrameKind::Batch, SegmentNumber(1), prepared.salt, 0, 9, 9)).unwrap();
        copy.salt ^= 1;
        let end = frame(&prepared, EDGE_LEN, 0, &copy.encode());
        prepared.file.write_all_at(&mut [IoSlice::new(b"x")], EDGE_LEN).unwrap();
        assert_eq!(scan(&segments, SegmentNumber(1)), [format!("bad 72..{end} false"), format!("end {} false", 4096)]);
    }
}
