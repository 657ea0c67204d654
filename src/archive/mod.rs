//! Members of archives, out of the object's bytes in memory: zip, tar, gzip, bzip2 and archives inside archives
//! (workers.md 2.3, "Distributions").
//!
//! Called by the YARA worker's scanner, inside its confined process, and by the sandbox worker for dropped files. Nothing
//! here opens a file or a socket. What a header claims is never reserved: memory is the object, and per nesting level one
//! member of at most `max_member` bytes. Every walk ends: see [`Limits`] and [`Options::go_on`].
//!
//! What is recognised: zip (wheels, jars, office documents; data in front of it as in self-extracting files; zip64), plain
//! tar (V7, ustar, GNU, pax), gzip and bzip2 around a tar or around one member. All other kinds (7z, rar, xz, zstd, cab ...)
//! are no archives here: they are scanned as one object.

mod names;
mod report;
mod source;
mod tar;
#[cfg(test)]
mod tests;
mod walker;
mod zip;

use std::ops::ControlFlow;

pub use report::{LimitHit, LimitName, Report};
use source::{Bz2, Gz, Source};
use walker::{End, Place, Walker};

/// How far a walk may go. What reaches one of these ends the walk, except `max_nesting` and `max_member`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that may come out of the object, on all levels together, read or skipped.
    pub max_total_expanded: u64,
    /// Members on all levels together; directories and links do not count.
    pub max_members: u64,
    /// Bytes that came out : bytes of the object, looked at once more than `ratio_from` came out.
    pub max_ratio: u64,
    pub ratio_from: u64,
    /// Archives inside archives: 0 is only the object itself. A deeper one is visited as a member, but not opened; the
    /// others go on. At most [`NESTING_MAX`], whatever stands here.
    pub max_nesting: u32,
    /// Bytes of one member. A longer one is listed and left out; the others go on.
    pub max_member: u64,
}

/// The deepest nesting that a walk follows, because each level holds one member.
pub const NESTING_MAX: u32 = 16;

impl Default for Limits {
    /// The defaults of `[workers.yara]`.
    fn default() -> Self {
        Self {
            max_total_expanded: 1 << 30,
            max_members: 50_000,
            max_ratio: 200,
            ratio_from: 16 << 20,
            max_nesting: 3,
            max_member: 128_000_000,
        }
    }
}

/// What an object is, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Zip,
    Tar,
    TarGz,
    TarBz2,
    /// One member that is no tar.
    Gz,
    Bz2,
}

/// What a walk goes by.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The object's own file name, empty when unknown: names the one member of a gzip or bzip2 file.
    pub name: &'a str,
    pub limits: &'a Limits,
    /// Tried in this order on encrypted members, after those that have already opened one.
    pub passwords: &'a [String],
    /// Asked at every entry, at least once per MiB that comes out and between passwords; `false` ends the walk.
    pub go_on: &'a dyn Fn() -> bool,
}

/// A regular file in the archive.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// As the archive says, `./` in front left off; levels are joined with `!/`.
    pub path: &'a str,
    /// `..`, absolute, a drive letter or NUL, on any level.
    pub unsafe_path: bool,
    pub bytes: &'a [u8],
    pub sha256: [u8; 32],
    /// Another member with the same bytes was visited before.
    pub duplicate: bool,
    /// 0 is a member of the object itself.
    pub nesting: u32,
    /// The password that opened it.
    pub encrypted_with: Option<&'a str>,
    /// Cut off, or its checksum or length differ: `bytes` are what could be read. The report is `corrupt` too.
    pub damaged: bool,
}

/// What `bytes` are; `None` for no archive that can be walked.
///
/// The start decides; a zip may also stand behind something else.
pub fn kind(bytes: &[u8]) -> Option<Kind> {
    if bytes.starts_with(&[0x1f, 0x8b, 8]) {
        return Some(if holds_tar(&mut Gz::new(bytes)) { Kind::TarGz } else { Kind::Gz });
    }
    if is_bzip2(bytes) {
        return Some(if holds_tar(&mut Bz2::new(bytes)) { Kind::TarBz2 } else { Kind::Bz2 });
    }
    if tar::is_tar(bytes) {
        return Some(Kind::Tar);
    }
    zip::is_zip(bytes).then_some(Kind::Zip)
}

/// `BZh`, a level, and the mark of a block or, in an empty file, of the end.
fn is_bzip2(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return false };
    let marks: [&[u8]; 2] = [&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59], &[0x17, 0x72, 0x45, 0x38, 0x50, 0x90]];
    matches!(head, [b'B', b'Z', b'h', b'1'..=b'9']) && marks.iter().any(|mark| rest.starts_with(mark))
}

/// Whether what comes out first is a tar header.
fn holds_tar(source: &mut dyn Source) -> bool {
    let mut head = [0; tar::BLOCK];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) | Err(_) => break,
            Ok(got) => filled += got,
        }
    }
    tar::is_tar(head.get(..filled).unwrap_or_default())
}

/// Visits every member of the archive in `bytes`, in the archive's order; the members of an inner archive follow that.
///
/// Links, devices and directories are counted only. `visit` may end the walk. `None`: no archive.
pub fn walk(
    bytes: &[u8],
    options: &Options<'_>,
    visit: &mut dyn FnMut(Member<'_>) -> ControlFlow<()>,
) -> Option<Report> {
    let kind = kind(bytes)?;
    let mut walker = Walker::new(bytes, kind, options, visit);
    let place = Place { prefix: "", unsafe_path: false, nesting: 0, name: options.name };
    // Why it ended early stands in the report.
    match walker.open(bytes, kind, &place) {
        Ok(()) | Err(End) => Some(walker.report),
    }
}
