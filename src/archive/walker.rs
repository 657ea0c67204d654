//! The state of one walk: what came out so far, what was found, and the limits that end it.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::source::{Bz2, CUT_OFF, Gz, Plain, Source, gz_header};
use super::{Kind, LimitName, Member, NESTING_MAX, Options, Report, kind, names, tar, zip};

/// Bytes asked of a decoder at once.
const PIECE: usize = 64 << 10;

/// The walk is over: a limit was reached or somebody stopped it. The report says which.
#[derive(Debug)]
pub(super) struct End;

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Fault {
    /// This archive cannot be read further; the others can.
    Corrupt(String),
    End,
}

impl From<End> for Fault {
    fn from(_: End) -> Self {
        Self::End
    }
}

/// Where an archive stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    /// Paths of the archives around its members, each followed by `!/`.
    pub(super) prefix: &'p str,
    pub(super) unsafe_path: bool,
    pub(super) nesting: u32,
    /// The archive's own name.
    pub(super) name: &'p str,
}

impl Place<'_> {
    /// The path of a member of this name, and whether it is unsafe.
    pub(super) fn path(&self, name: &str) -> (String, bool) {
        (format!("{}{}", self.prefix, names::reported(name)), self.unsafe_path || names::is_unsafe(name))
    }

    /// `reason`, with the archive it is about.
    pub(super) fn fault(&self, reason: &str) -> String {
        match self.prefix.strip_suffix("!/") {
            Some(path) => format!("{path}: {reason}"),
            None => reason.to_owned(),
        }
    }
}

/// A member about to be visited.
pub(super) struct Found<'m> {
    pub(super) path: &'m str,
    pub(super) unsafe_path: bool,
    pub(super) bytes: &'m [u8],
    pub(super) encrypted_with: Option<&'m str>,
    pub(super) damaged: bool,
}

pub(super) struct Walker<'a, 'v> {
    pub(super) options: Options<'a>,
    pub(super) report: Report,
    /// Passwords that have opened a member, by their place in the list.
    pub(super) opened: Vec<usize>,
    /// Units of work that wrong passwords may still take.
    pub(super) tries: u64,
    visit: &'v mut dyn FnMut(Member<'_>) -> ControlFlow<()>,
    seen: HashSet<[u8; 32]>,
    /// Bytes of the object.
    packed: u64,
    /// Files met on all levels, visited or not.
    files: u64,
}

impl<'a, 'v> Walker<'a, 'v> {
    pub(super) fn new(
        bytes: &[u8],
        kind: Kind,
        options: &Options<'a>,
        visit: &'v mut dyn FnMut(Member<'_>) -> ControlFlow<()>,
    ) -> Self {
        Self {
            options: *options,
            report: Report::new(kind),
            opened: Vec::new(),
            tries: zip::TRIES_MAX,
            visit,
            seen: HashSet::new(),
            packed: len_u64(bytes),
            files: 0,
        }
    }

    /// Visits the members of `bytes`; what is wrong with them is noted.
    pub(super) fn open(&mut self, bytes: &[u8], kind: Kind, place: &Place<'_>) -> Result<(), End> {
        match kind {
            Kind::Zip => zip::walk(self, bytes, place),
            Kind::Tar => tar::walk(self, &mut Plain(bytes), place),
            Kind::TarGz => tar::walk(self, &mut Gz::new(bytes), place),
            Kind::TarBz2 => tar::walk(self, &mut Bz2::new(bytes), place),
            Kind::Gz => {
                let stored = gz_header(bytes).ok().and_then(|header| header.name);
                let claimed = bytes.last_chunk::<4>().map_or(0, |four| u64::from(u32::from_le_bytes(*four)));
                self.single(&mut Gz::new(bytes), stored, claimed, place)
            }
            Kind::Bz2 => self.single(&mut Bz2::new(bytes), None, 0, place),
        }
    }

    /// The one member of a gzip or bzip2 file.
    fn single(
        &mut self,
        source: &mut dyn Source,
        stored: Option<String>,
        claimed: u64,
        place: &Place<'_>,
    ) -> Result<(), End> {
        self.count_file()?;
        let (path, unsafe_path) = place.path(&stored.unwrap_or_else(|| names::without_suffix(place.name)));
        let mut bytes = Vec::new();
        let max = self.options.limits.max_member;
        let fault = self.take(source, max.saturating_add(1), &mut bytes)?;
        if len_u64(&bytes) > max {
            self.report.note_too_large(path, claimed.max(len_u64(&bytes)));
            return Ok(());
        }
        let damaged = fault.is_some();
        if let Some(reason) = fault {
            self.report.note_fault(place.fault(&reason));
        }
        self.member(place, &Found { path: &path, unsafe_path, bytes: &bytes, encrypted_with: None, damaged })
    }

    /// One more file, before it is read.
    pub(super) fn count_file(&mut self) -> Result<(), End> {
        self.check()?;
        let limit = self.options.limits.max_members;
        if self.files >= limit {
            self.report.note_limit(LimitName::Members, limit, self.files.saturating_add(1));
            return Err(End);
        }
        self.files += 1;
        Ok(())
    }

    /// Whether the walk may go on.
    pub(super) fn check(&mut self) -> Result<(), End> {
        if (self.options.go_on)() {
            return Ok(());
        }
        self.report.stopped = true;
        Err(End)
    }

    /// `len` more bytes come out.
    pub(super) fn charge(&mut self, len: u64) -> Result<(), End> {
        self.report.expanded = self.report.expanded.saturating_add(len);
        let (expanded, limits) = (self.report.expanded, self.options.limits);
        if expanded > limits.max_total_expanded {
            self.report.note_limit(LimitName::TotalExpanded, limits.max_total_expanded, expanded);
            return Err(End);
        }
        let packed = self.packed.max(1);
        if expanded > limits.ratio_from && expanded > limits.max_ratio.saturating_mul(packed) {
            self.report.note_limit(LimitName::Ratio, limits.max_ratio, expanded.div_ceil(packed));
            return Err(End);
        }
        Ok(())
    }

    /// The next piece of `source`, at most all of `out`; 0 is its end.
    pub(super) fn pull(&mut self, source: &mut dyn Source, out: &mut [u8]) -> Result<usize, Fault> {
        self.check()?;
        let got = source.read(out).map_err(Fault::Corrupt)?;
        self.charge(u64::try_from(got).unwrap_or(u64::MAX))?;
        Ok(got)
    }

    /// Appends up to `len` bytes of `source` to `buffer`. Fewer came when the source ended, or for the reason given.
    ///
    /// Memory follows what comes out, never what `len` says.
    pub(super) fn append(
        &mut self,
        source: &mut dyn Source,
        len: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<String>, End> {
        let mut left = len;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let filled = buffer.len();
            make_room(buffer, piece, left);
            buffer.resize(filled.saturating_add(piece), 0);
            let got = self.pull(source, buffer.get_mut(filled..).unwrap_or_default());
            buffer.truncate(filled.saturating_add(*got.as_ref().unwrap_or(&0)));
            match got {
                Ok(0) => break,
                Ok(got) => left = left.saturating_sub(u64::try_from(got).unwrap_or(u64::MAX)),
                Err(Fault::Corrupt(reason)) => return Ok(Some(reason)),
                Err(Fault::End) => return Err(End),
            }
        }
        Ok(None)
    }

    /// [`Self::append`] to an empty buffer.
    pub(super) fn take(
        &mut self,
        source: &mut dyn Source,
        len: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<String>, End> {
        buffer.clear();
        self.append(source, len, buffer)
    }

    /// Reads `len` bytes and forgets them.
    pub(super) fn skip(&mut self, source: &mut dyn Source, len: u64) -> Result<(), Fault> {
        let mut scratch = vec![0; PIECE.min(usize::try_from(len).unwrap_or(PIECE))];
        let mut left = len;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            match self.pull(source, scratch.get_mut(..piece).unwrap_or_default())? {
                0 => return Err(Fault::Corrupt(CUT_OFF.to_owned())),
                got => left = left.saturating_sub(u64::try_from(got).unwrap_or(u64::MAX)),
            }
        }
        Ok(())
    }

    /// Visits a member, and what is in it when it is an archive. A damaged one of which nothing could be read is none.
    pub(super) fn member(&mut self, place: &Place<'_>, found: &Found<'_>) -> Result<(), End> {
        if found.damaged && found.bytes.is_empty() {
            return Ok(());
        }
        let sha256: [u8; 32] = Sha256::digest(found.bytes).into();
        let duplicate = !self.seen.insert(sha256);
        self.report.members += 1;
        self.report.duplicates += u64::from(duplicate);
        self.report.unsafe_paths += u64::from(found.unsafe_path);
        let Found { path, unsafe_path, bytes, encrypted_with, damaged } = *found;
        let nesting = place.nesting;
        let member = Member { path, unsafe_path, bytes, sha256, duplicate, nesting, encrypted_with, damaged };
        if (self.visit)(member).is_break() {
            self.report.stopped = true;
            return Err(End);
        }
        match kind(bytes) {
            Some(kind) => self.descend(kind, place, found),
            None => Ok(()),
        }
    }

    fn descend(&mut self, kind: Kind, place: &Place<'_>, found: &Found<'_>) -> Result<(), End> {
        let limit = self.options.limits.max_nesting.min(NESTING_MAX);
        let nesting = place.nesting.saturating_add(1);
        if nesting > limit {
            self.report.note_limit(LimitName::Nesting, u64::from(limit), u64::from(nesting));
            return Ok(());
        }
        let prefix = format!("{}!/", found.path);
        let name = found.path.rsplit('/').next().unwrap_or_default();
        self.open(found.bytes, kind, &Place { prefix: &prefix, unsafe_path: found.unsafe_path, nesting, name })
    }
}

/// Room for `piece` more bytes: twice what there is, but not beyond the `left` that may come.
fn make_room(buffer: &mut Vec<u8>, piece: usize, left: u64) {
    if buffer.capacity().saturating_sub(buffer.len()) < piece {
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        buffer.reserve_exact(buffer.len().max(piece).min(left));
    }
}

pub(super) fn len_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
