//! Decoders: bytes out of packed bytes, in pieces, with a word for what is wrong with them.

use std::io::{self, BufRead};

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::names;

pub(super) const CUT_OFF: &str = "cut off";

/// Bytes in pieces.
pub(super) trait Source {
    /// Fills a part of `out`, which is not empty; 0 is the end.
    ///
    /// # Errors
    ///
    /// What is wrong with the packed bytes. All bytes that could be read came before.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String>;
}

/// Bytes as they are.
pub(super) struct Plain<R>(pub(super) R);

impl<R: BufRead> Source for Plain<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        self.0.read(out).map_err(failed)
    }
}

/// Raw deflate data; what follows their end is left in `input`.
pub(super) struct Inflate<R> {
    input: R,
    state: Decompress,
    /// How it ended, to be said once everything before it was given.
    end: Option<Result<(), String>>,
}

impl<R: BufRead> Inflate<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, state: Decompress::new(false), end: None }
    }

    /// One step: bytes that came out.
    fn step(&mut self, out: &mut [u8]) -> Result<usize, String> {
        let packed = self.input.fill_buf().map_err(failed)?;
        let cut = packed.is_empty();
        let (in_before, out_before) = (self.state.total_in(), self.state.total_out());
        let result = self.state.decompress(packed, out, FlushDecompress::None);
        let consumed = usize::try_from(self.state.total_in() - in_before).unwrap_or(usize::MAX);
        let produced = usize::try_from(self.state.total_out() - out_before).unwrap_or(usize::MAX);
        self.input.consume(consumed);
        match result {
            Ok(Status::StreamEnd) => self.end = Some(Ok(())),
            Err(_) => self.end = Some(Err("deflate data are corrupt".to_owned())),
            Ok(Status::Ok | Status::BufError) if produced == 0 && cut => self.end = Some(Err(CUT_OFF.to_owned())),
            Ok(Status::Ok | Status::BufError) if produced == 0 && consumed == 0 => {
                self.end = Some(Err("deflate data are corrupt".to_owned()));
            }
            Ok(Status::Ok | Status::BufError) => {}
        }
        Ok(produced)
    }
}

impl<R: BufRead> Source for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        loop {
            if let Some(end) = &self.end {
                return end.clone().map(|()| 0);
            }
            match self.step(out)? {
                0 => {}
                produced => return Ok(produced),
            }
        }
    }
}

/// One or more gzip members; what follows them and is none is left alone, as gzip does.
pub(super) struct Gz<'a> {
    rest: &'a [u8],
    member: Option<GzMember<'a>>,
    members: u64,
}

struct GzMember<'a> {
    data: Inflate<&'a [u8]>,
    crc: Crc,
}

impl<'a> Gz<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, member: None, members: 0 }
    }

    /// Begins the next member; whether there is one.
    fn begin(&mut self) -> Result<bool, String> {
        if self.members > 0 && !self.rest.starts_with(&[0x1f, 0x8b, 8]) {
            return Ok(false);
        }
        let header = gz_header(self.rest)?;
        self.members = self.members.saturating_add(1);
        self.member = Some(GzMember { data: Inflate::new(header.data), crc: Crc::new() });
        Ok(true)
    }

    /// Checks the trailer behind the data of `member`.
    fn finish(&mut self, member: GzMember<'a>) -> Result<(), String> {
        let (crc, rest) = member.data.input.split_first_chunk::<4>().ok_or(CUT_OFF)?;
        let (len, rest) = rest.split_first_chunk::<4>().ok_or(CUT_OFF)?;
        self.rest = rest;
        if u32::from_le_bytes(*crc) != member.crc.sum() {
            return Err("gzip checksum differs".to_owned());
        }
        if u32::from_le_bytes(*len) != member.crc.amount() {
            return Err("gzip length differs".to_owned());
        }
        Ok(())
    }
}

impl Source for Gz<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        loop {
            let Some(member) = &mut self.member else {
                if self.begin()? {
                    continue;
                }
                return Ok(0);
            };
            let produced = member.data.read(out)?;
            if produced > 0 {
                member.crc.update(out.get(..produced).unwrap_or_default());
                return Ok(produced);
            }
            if let Some(member) = self.member.take() {
                self.finish(member)?;
            }
        }
    }
}

/// The head of a gzip member.
pub(super) struct GzHeader<'a> {
    pub(super) name: Option<String>,
    data: &'a [u8],
}

pub(super) fn gz_header(bytes: &[u8]) -> Result<GzHeader<'_>, String> {
    let (head, mut data) = bytes.split_first_chunk::<10>().ok_or(CUT_OFF)?;
    let [0x1f, 0x8b, 8, flags, ..] = head else { return Err("no gzip header".to_owned()) };
    if flags & 4 != 0 {
        let (len, rest) = data.split_first_chunk::<2>().ok_or(CUT_OFF)?;
        data = rest.get(usize::from(u16::from_le_bytes(*len))..).ok_or(CUT_OFF)?;
    }
    let mut name = None;
    if flags & 8 != 0 {
        let (text, rest) = until_nul(data)?;
        name = Some(names::from_latin1(text)).filter(|name| !name.is_empty());
        data = rest;
    }
    if flags & 16 != 0 {
        data = until_nul(data)?.1;
    }
    if flags & 2 != 0 {
        data = data.get(2..).ok_or(CUT_OFF)?;
    }
    Ok(GzHeader { name, data })
}

/// What stands before and behind the next NUL.
fn until_nul(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let at = memchr::memchr(0, bytes).ok_or(CUT_OFF)?;
    let (text, rest) = bytes.split_at_checked(at).ok_or(CUT_OFF)?;
    Ok((text, rest.get(1..).unwrap_or_default()))
}

/// One or more bzip2 streams; what follows them and is none is left alone.
pub(super) struct Bz2<R> {
    input: R,
    state: bzip2::Decompress,
    /// Something of the present stream was read.
    begun: bool,
    end: Option<Result<(), String>>,
}

impl<R: BufRead> Bz2<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, state: bzip2::Decompress::new(false), begun: false, end: None }
    }

    fn step(&mut self, out: &mut [u8]) -> Result<usize, String> {
        let packed = self.input.fill_buf().map_err(failed)?;
        let cut = packed.is_empty();
        let (in_before, out_before) = (self.state.total_in(), self.state.total_out());
        let result = self.state.decompress(packed, out);
        let consumed = usize::try_from(self.state.total_in() - in_before).unwrap_or(usize::MAX);
        let produced = usize::try_from(self.state.total_out() - out_before).unwrap_or(usize::MAX);
        self.input.consume(consumed);
        self.begun |= consumed > 0;
        match result {
            Ok(bzip2::Status::StreamEnd) => self.next_stream()?,
            Err(_) => self.end = Some(Err("bzip2 data are corrupt".to_owned())),
            Ok(_) if produced == 0 && cut => self.end = Some(Err(CUT_OFF.to_owned())),
            Ok(_) if produced == 0 && consumed == 0 => self.end = Some(Err("bzip2 data are corrupt".to_owned())),
            Ok(_) => {}
        }
        Ok(produced)
    }

    fn next_stream(&mut self) -> Result<(), String> {
        if self.begun && self.input.fill_buf().map_err(failed)?.starts_with(b"BZh") {
            self.state = bzip2::Decompress::new(false);
            self.begun = false;
        } else {
            self.end = Some(Ok(()));
        }
        Ok(())
    }
}

impl<R: BufRead> Source for Bz2<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        loop {
            if let Some(end) = &self.end {
                return end.clone().map(|()| 0);
            }
            match self.step(out)? {
                0 => {}
                produced => return Ok(produced),
            }
        }
    }
}

/// Sources here read from memory; this has no case, and needs none.
#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn failed(error: io::Error) -> String {
    error.to_string()
}
