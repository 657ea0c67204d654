//! What the magic engine may see of a file, and how long and how much it may read.
//!
//! The engine asks for ranges, some of them computed from the file itself: a hostile length field must not make us
//! buffer the rest of a huge file. So one range is at most [`HEAD_MAX`] bytes, reads behind the head have a budget, and
//! all reads end at a deadline. Used by `magic` only.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::Instant;

use pure_magic::readers::DataRead;

/// Bytes of the beginning of a file that are held in memory; libmagic looks no further either (7 MiB).
pub(super) const HEAD_MAX: u64 = 7 << 20;
/// Bytes that may be read from behind the head, all reads together.
const BEHIND_HEAD_MAX: u64 = 32 << 20;
/// Reads behind the head begin on multiples of this ...
const ALIGN: u64 = 4096;
/// ... and fetch at least this much.
const WINDOW: u64 = 64 << 10;

/// The clock is looked at before one in so many reads that are short, and before every long one: the engine makes
/// thousands of reads of a few bytes, and the clock costs more than such a read ...
const READS_PER_LOOK: u32 = 64;
/// ... which has at most this many bytes.
const SHORT: u64 = 1024;

/// A reader with a head in memory and one window behind it.
pub(super) struct View<'a, R> {
    source: R,
    size: u64,
    head: &'a [u8],
    window: Vec<u8>,
    window_start: u64,
    position: u64,
    budget: u64,
    deadline: Instant,
    /// Short reads until the next look at the clock.
    unhurried: u32,
    /// What is shown instead of the whole head, see [`Self::pretend`].
    stand_in: Option<&'static [u8]>,
    /// How often a place was asked for that counts from the end.
    pub(super) ends: Cell<u32>,
    /// Set when the deadline passed: what the engine said then is worth nothing.
    pub(super) late: bool,
    /// The first error of the source.
    pub(super) failed: Option<io::Error>,
}

impl<'a, R: Read + Seek> View<'a, R> {
    /// `head` must be the beginning of `source`, or all there is to see when `size` is its length.
    pub(super) fn new(source: R, size: u64, head: &'a [u8], deadline: Instant) -> Self {
        Self {
            source,
            size,
            head,
            window: Vec::new(),
            window_start: 0,
            position: 0,
            budget: BEHIND_HEAD_MAX,
            deadline,
            unhurried: 0,
            stand_in: None,
            ends: Cell::new(0),
            late: false,
            failed: None,
        }
    }

    /// Whether `head` is all there is.
    pub(super) fn is_all(&self, head: &[u8]) -> bool {
        u64::try_from(head.len()).is_ok_and(|len| len >= self.size)
    }

    /// From now on, shows the engine a few bytes when it wants to know what kind of file this is, and whether it is of
    /// a kind that needs no rule. It has asked that before and asks again with every database; it then reads all of the
    /// head as one range, which no rule does. The text is JSON, the quickest answer.
    pub(super) fn pretend(&mut self, is_text: bool) {
        self.stand_in = Some(if is_text { b"[]" } else { b"\xff" });
    }

    /// Shows everything again, with the whole budget.
    pub(super) fn restart(&mut self) {
        self.stand_in = None;
        self.budget = BEHIND_HEAD_MAX;
    }

    /// The bytes of `start..end`, fewer at the end of the file. The position is left alone.
    fn bytes(&mut self, start: u64, end: u64) -> io::Result<&[u8]> {
        self.look_at_the_clock(end.saturating_sub(start))?;
        let end = end.min(self.size).min(start.saturating_add(HEAD_MAX));
        if start >= end {
            return Ok(&[]);
        }
        let (from, to) = (index(start)?, index(end)?);
        if to <= self.head.len() {
            return Ok(self.head.get(from..to).unwrap_or_default());
        }
        let window_end = self.window_start.saturating_add(u64::try_from(self.window.len()).unwrap_or(0));
        if start < self.window_start || end > window_end {
            self.load(start, end)?;
        }
        let from = index(start.saturating_sub(self.window_start))?;
        let to = index(end.saturating_sub(self.window_start))?.min(self.window.len());
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    fn look_at_the_clock(&mut self, wanted: u64) -> io::Result<()> {
        match self.unhurried.checked_sub(1) {
            Some(left) if wanted <= SHORT => self.unhurried = left,
            Some(_) | None => {
                self.unhurried = READS_PER_LOOK;
                self.late |= Instant::now() >= self.deadline;
            }
        }
        if self.late { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(()) }
    }

    fn load(&mut self, start: u64, end: u64) -> io::Result<()> {
        let from = start - start % ALIGN;
        let wanted = end.max(from.saturating_add(WINDOW)).min(self.size).saturating_sub(from);
        let Some(left) = self.budget.checked_sub(wanted) else {
            return Err(io::Error::other("read budget spent"));
        };
        self.budget = left;
        self.window.clear();
        self.window_start = from;
        let window = &mut self.window;
        let read =
            self.source.seek(SeekFrom::Start(from)).and_then(|_| self.source.by_ref().take(wanted).read_to_end(window));
        if let Err(error) = read {
            self.window.clear();
            let told = io::Error::from(error.kind());
            self.failed.get_or_insert(error);
            return Err(told);
        }
        Ok(())
    }

    /// The bytes of `range`, and moves to its end.
    fn range(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        let end = range.end.min(self.size);
        if range.start < end {
            self.position = end;
        }
        self.bytes(range.start, range.end)
    }

    /// From the position on: the bytes before the first one that `wanted` refuses, with that one if `inclusive`.
    fn run(&mut self, wanted: impl Fn(u8) -> bool, limit: u64, inclusive: bool) -> io::Result<&[u8]> {
        let start = self.position;
        let bytes = self.bytes(start, start.saturating_add(limit))?;
        let stop = bytes.iter().position(|byte| !wanted(*byte));
        let len = stop.map_or(bytes.len(), |at| if inclusive { at + 1 } else { at });
        self.range(start..start.saturating_add(u64::try_from(len).unwrap_or(0)))
    }
}

fn exactly(bytes: &[u8], wanted: u64) -> io::Result<&[u8]> {
    if u64::try_from(bytes.len()).ok() == Some(wanted) { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

impl<R: Read + Seek> DataRead for View<'_, R> {
    fn stream_position(&self) -> u64 {
        self.position
    }

    fn offset_from_start(&self, pos: SeekFrom) -> u64 {
        let (base, distance) = match pos {
            SeekFrom::Start(place) => return place,
            SeekFrom::Current(distance) => (self.position, distance),
            SeekFrom::End(distance) => {
                self.ends.set(self.ends.get().saturating_add(1));
                (self.size, distance)
            }
        };
        base.saturating_add_signed(distance)
    }

    fn read_range(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        match self.stand_in {
            Some(stand_in) if range == (0..HEAD_MAX) => Ok(stand_in),
            Some(_) | None => self.range(range),
        }
    }

    fn read_count(&mut self, count: u64) -> io::Result<&[u8]> {
        self.range(self.position..self.position.saturating_add(count))
    }

    fn read_exact_range(&mut self, range: Range<u64>) -> io::Result<&[u8]> {
        let wanted = range.end.saturating_sub(range.start);
        exactly(self.read_range(range)?, wanted)
    }

    fn read_exact_count(&mut self, count: u64) -> io::Result<&[u8]> {
        // Near the largest position the range is shorter than the count.
        exactly(self.read_count(count)?, count)
    }

    fn read_until_any_delim_or_limit(&mut self, delims: &[u8], limit: u64) -> io::Result<&[u8]> {
        self.run(|byte| !delims.contains(&byte), limit, true)
    }

    fn read_until_or_limit(&mut self, byte: u8, limit: u64) -> io::Result<&[u8]> {
        self.run(|other| other != byte, limit, true)
    }

    fn read_while_or_limit<F: Fn(u8) -> bool>(&mut self, f: F, limit: u64) -> io::Result<&[u8]> {
        self.run(f, limit, false)
    }

    fn read_until_utf16_or_limit(&mut self, utf16_char: &[u8; 2], limit: u64) -> io::Result<&[u8]> {
        let start = self.position;
        let bytes = self.bytes(start, start.saturating_add(limit))?;
        let stop = bytes.chunks_exact(2).position(|unit| unit == utf16_char);
        let len = stop.map_or(bytes.len(), |at| 2 * at + 2);
        self.range(start..start.saturating_add(u64::try_from(len).unwrap_or(0)))
    }

    fn data_size(&self) -> u64 {
        self.size
    }

    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.position = self.offset_from_start(pos);
        Ok(self.position)
    }
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "sizes in tests are small")]
mod tests {
    use std::io::Cursor;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn ranges_inside_across_and_behind_the_head_are_the_files() {
        let data = sample(300_000);
        let mut view = View::new(Cursor::new(&data), 300_000, &data[..1000], soon());
        for (from, to) in [(0, 10), (990, 1000), (990, 1010), (200_000, 290_000), (299_999, 400_000), (5, 5), (9, 3)] {
            let want = data.get(from..to.min(300_000)).unwrap_or_default();
            assert_eq!(view.read_range(from as u64..to as u64).unwrap(), want, "{from}..{to}");
        }
        assert_eq!(view.read_range(300_000..300_001).unwrap(), b"");
        assert_eq!(view.read_range(u64::MAX - 1..u64::MAX).unwrap(), b"");
        assert!(view.read_exact_range(299_990..300_001).is_err());
        view.seek(SeekFrom::Start(u64::MAX)).unwrap();
        assert!(view.read_exact_into(&mut [0; 4]).is_err());
        view.seek(SeekFrom::End(-3)).unwrap();
        assert_eq!(view.read_exact_count(3).unwrap(), &data[299_997..]);
    }

    #[test]
    fn runs_end_at_their_delimiter_or_limit() {
        let data = b"abc\ndef\0\0".to_vec();
        let mut view = View::new(Cursor::new(&data), 9, &data, soon());
        assert_eq!(view.read_until_or_limit(b'\n', 100).unwrap(), b"abc\n");
        assert_eq!(view.stream_position(), 4);
        assert_eq!(view.read_while_or_limit(|byte| byte.is_ascii_alphabetic(), 2).unwrap(), b"de");
        assert_eq!(view.read_until_utf16_or_limit(b"\0\0", 100).unwrap(), b"f\0\0");
        view.seek(SeekFrom::Start(0)).unwrap();
        assert_eq!(view.read_until_any_delim_or_limit(b"xc", 100).unwrap(), b"abc");
    }

    #[test]
    fn a_huge_request_is_cut_and_the_budget_ends() {
        let size = 200 << 20;
        let mut view = View::new(io::repeat(7).take(size).seekable(), size, &[], soon());
        assert_eq!(view.read_range(0..u64::MAX).unwrap().len() as u64, HEAD_MAX);
        let spent =
            (1..100_u64).map(|at| view.read_range(at * (1 << 21)..u64::MAX).map(<[u8]>::len)).find(Result::is_err);
        assert!(spent.is_some());
        assert!(view.failed.is_none() && !view.late);
    }

    #[test]
    fn a_stand_in_is_shown_for_the_whole_head_only() {
        assert_eq!(HEAD_MAX, pure_magic::FILE_BYTES_MAX as u64, "the range the engine asks for");
        let mut view = View::new(Cursor::new(b"abc"), 3, b"abc", soon());
        view.pretend(true);
        assert_eq!(view.read_range(0..HEAD_MAX).unwrap(), b"[]");
        assert_eq!(view.stream_position(), 0);
        assert_eq!(view.read_count(HEAD_MAX).unwrap(), b"abc");
        assert_eq!(view.read_range(1..HEAD_MAX).unwrap(), b"bc");
        view.restart();
        assert_eq!(view.read_range(0..HEAD_MAX).unwrap(), b"abc");
    }

    #[test]
    fn places_from_the_end_are_counted() {
        let mut view = View::new(Cursor::new(b"abc"), 3, b"abc", soon());
        assert_eq!(view.offset_from_start(SeekFrom::End(-2)), 1);
        assert_eq!(view.seek(SeekFrom::End(-9)).unwrap(), 0);
        assert_eq!(view.seek(SeekFrom::Start(2)).unwrap(), 2);
        assert_eq!(view.seek(SeekFrom::Current(-1)).unwrap(), 1);
        assert_eq!(view.ends.get(), 2);
    }

    #[test]
    fn after_the_deadline_nothing_is_read() {
        let mut view = View::new(Cursor::new(b"abc"), 3, b"abc", Instant::now());
        assert!(view.read_range(0..1).is_err());
        assert!(view.late);
    }

    /// A reader that can be told to seek and does not mind.
    struct Anywhere<R>(R);

    impl<R: Read> Read for Anywhere<R> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read(buf)
        }
    }

    impl<R> Seek for Anywhere<R> {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }

    trait Seekable: Sized {
        fn seekable(self) -> Anywhere<Self> {
            Anywhere(self)
        }
    }

    impl<R: Read> Seekable for R {}
}
