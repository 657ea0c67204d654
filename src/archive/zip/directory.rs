//! Where a zip's central directory stands, and its entries.

use super::fields::{u16_at, u32_at, u64_at, usize_of};

const END_LEN: usize = 22;
const LOCATOR_LEN: usize = 20;
const END64_LEN: usize = 56;
const ENTRY_LEN: usize = 46;
const LOCAL_LEN: usize = 30;
/// The end record is looked for in so many last bytes: its comment has up to 64 KiB, signatures may follow.
const TAIL: usize = 128 << 10;
/// End records looked at; a comment may be made of them.
const ENDS_MAX: usize = 64;

/// A central directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Directory<'z> {
    /// From its first entry to its end.
    pub(super) bytes: &'z [u8],
    /// What to add to offsets, because something stands in front of the archive.
    pub(super) shift: i128,
    /// Entries it should have.
    pub(super) records: u64,
    /// Its end record counts modulo 65536.
    pub(super) narrow: bool,
    /// Another end record that would be as good stands in a comment.
    pub(super) ambiguous: bool,
}

/// The directory that the last end record names.
///
/// A record whose comment ends with the file goes before one that something follows.
pub(super) fn find(zip: &[u8]) -> Option<Directory<'_>> {
    let from = zip.len().saturating_sub(TAIL);
    let tail = zip.get(from..)?;
    let mut exact = None;
    let mut other = None;
    let mut ambiguous = false;
    for at in memchr::memmem::rfind_iter(tail, b"PK\x05\x06").take(ENDS_MAX) {
        let at = from.saturating_add(at);
        let Some((directory, ends)) = at_end_record(zip, at) else { continue };
        if ends == zip.len() {
            // The second one found has the first in its comment.
            ambiguous |= exact.is_some() || other.is_some();
            exact.get_or_insert(directory);
        } else {
            other.get_or_insert(directory);
        }
    }
    let mut directory = exact.or(other)?;
    directory.ambiguous = ambiguous;
    Some(directory)
}

/// The directory named by the end record at `at`, and where that record's comment ends.
fn at_end_record(zip: &[u8], at: usize) -> Option<(Directory<'_>, usize)> {
    let record = zip.get(at..)?;
    let mut records = u64::from(u16_at(record, 10)?);
    let mut len = u64::from(u32_at(record, 12)?);
    let mut offset = u64::from(u32_at(record, 16)?);
    let ends = at.checked_add(END_LEN)?.checked_add(usize::from(u16_at(record, 20)?))?;
    let mut directory_end = at;
    let mut narrow = true;
    let wide = at.checked_sub(LOCATOR_LEN).and_then(|locator| wide_end_record(zip, locator));
    if let Some((wide_at, wide_record)) = wide {
        if records == 0xffff {
            records = u64_at(wide_record, 32)?;
            narrow = false;
        }
        if len == 0xffff_ffff {
            len = u64_at(wide_record, 40)?;
        }
        if offset == 0xffff_ffff {
            offset = u64_at(wide_record, 48)?;
        }
        directory_end = wide_at;
    }
    let start = directory_start(zip, directory_end, len, offset, records)?;
    let shift = i128::try_from(start).ok()? - i128::from(offset);
    let bytes = zip.get(start..directory_end)?;
    Some((Directory { bytes, shift, records, narrow, ambiguous: false }, ends))
}

/// The zip64 end record and its place: where the locator says, or else right in front of the locator.
fn wide_end_record(zip: &[u8], locator: usize) -> Option<(usize, &[u8])> {
    let record = zip.get(locator..).filter(|record| record.starts_with(b"PK\x06\x07"))?;
    let said = usize_of(u64_at(record, 8)?);
    [said, locator.saturating_sub(END64_LEN)].into_iter().find_map(|at| {
        let record = zip.get(at..locator)?;
        record.starts_with(b"PK\x06\x06").then_some((at, record))
    })
}

/// The directory ends at its end record, or else begins where the offset says.
fn directory_start(zip: &[u8], end: usize, len: u64, offset: u64, records: u64) -> Option<usize> {
    let is_entry = |at: usize| zip.get(at..end).is_some_and(|bytes| bytes.starts_with(b"PK\x01\x02"));
    let before = end.checked_sub(usize_of(len));
    if len == 0 && records == 0 {
        return before;
    }
    before.filter(|at| is_entry(*at)).or_else(|| Some(usize_of(offset)).filter(|at| is_entry(*at)))
}

/// One entry of the directory, or of a local header when there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'z> {
    pub(super) made_by: u8,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) time: u16,
    pub(super) crc: u32,
    pub(super) packed: u64,
    pub(super) size: u64,
    /// Of the local header, from the start of the archive.
    pub(super) offset: u64,
    pub(super) attributes: u32,
    pub(super) name: &'z [u8],
    pub(super) extra: &'z [u8],
}

impl<'z> Entry<'z> {
    /// The entry that `bytes` begin with, and what follows it.
    pub(super) fn parse(bytes: &'z [u8]) -> Option<(Self, &'z [u8])> {
        let header = bytes.strip_prefix(b"PK\x01\x02").and(bytes.get(..ENTRY_LEN))?;
        let (name, rest) = bytes.get(ENTRY_LEN..)?.split_at_checked(usize::from(u16_at(header, 28)?))?;
        let (extra, rest) = rest.split_at_checked(usize::from(u16_at(header, 30)?))?;
        let (_, rest) = rest.split_at_checked(usize::from(u16_at(header, 32)?))?;
        let mut entry = Self {
            made_by: header.get(5).copied()?,
            flags: u16_at(header, 8)?,
            method: u16_at(header, 10)?,
            time: u16_at(header, 12)?,
            crc: u32_at(header, 16)?,
            packed: u64::from(u32_at(header, 20)?),
            size: u64::from(u32_at(header, 24)?),
            offset: u64::from(u32_at(header, 42)?),
            attributes: u32_at(header, 38)?,
            name,
            extra,
        };
        entry.widen(true);
        Some((entry, rest))
    }

    /// Takes from the zip64 extra field what does not fit the narrow ones.
    fn widen(&mut self, with_offset: bool) {
        let Some(wide) = self.extra(1) else { return };
        let mut at = 0;
        let fields = [Some(&mut self.size), Some(&mut self.packed), with_offset.then_some(&mut self.offset)];
        for field in fields.into_iter().flatten() {
            if *field == 0xffff_ffff
                && let Some(value) = u64_at(wide, at)
            {
                *field = value;
                at = at.saturating_add(8);
            }
        }
    }

    /// The extra field of this kind.
    pub(super) fn extra(&self, kind: u16) -> Option<&'z [u8]> {
        let mut rest = self.extra;
        while let (Some(found), Some(len)) = (u16_at(rest, 0), u16_at(rest, 2)) {
            let (field, after) = rest.get(4..)?.split_at_checked(usize::from(len))?;
            if found == kind {
                return Some(field);
            }
            rest = after;
        }
        None
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// A local header as an entry, and what follows it.
pub(super) fn local(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let header = bytes.strip_prefix(b"PK\x03\x04").and(bytes.get(..LOCAL_LEN))?;
    let (name, rest) = bytes.get(LOCAL_LEN..)?.split_at_checked(usize::from(u16_at(header, 26)?))?;
    let (extra, rest) = rest.split_at_checked(usize::from(u16_at(header, 28)?))?;
    let mut entry = Entry {
        made_by: 0,
        flags: u16_at(header, 6)?,
        method: u16_at(header, 8)?,
        time: u16_at(header, 10)?,
        crc: u32_at(header, 14)?,
        packed: u64::from(u32_at(header, 18)?),
        size: u64::from(u32_at(header, 22)?),
        offset: 0,
        attributes: 0,
        name,
        extra,
    };
    entry.widen(false);
    Some((entry, rest))
}
