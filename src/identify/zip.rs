//! What the entry names of a ZIP file say about it (streams.md 8.5, "zip").
//!
//! Called by `refine`. Only the central directory is read, entry by entry, so memory is bounded by one name and a ZIP
//! glued to the end of something else counts. The rules of reading are those of the reader upstream uses.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

const END_LEN: usize = 22;
const LOCATOR_LEN: u64 = 20;
const END64_LEN: u64 = 56;
const ENTRY_LEN: usize = 46;
/// The end record stands in the last 65 KiB, because of its comment.
const END_SEARCH: u64 = 65 << 10;
/// Entries beyond this do not change the answer; a file may hold millions.
const ENTRIES_MAX: u64 = 1 << 20;

/// Which kinds of entry there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    entries: u64,
    /// Names that end in `.class` or `.jar`.
    java: u64,
    meta_inf: bool,
    android_manifest: bool,
    classes_dex: bool,
    ios_plist: bool,
    nuspec: bool,
    psmdcp: bool,
    word: bool,
    excel: bool,
    powerpoint: bool,
    properties_or_rels: bool,
    content_types: bool,
}

impl Layout {
    pub(super) fn file_type(&self) -> &'static str {
        let jar_like = self.meta_inf || self.java.saturating_mul(2) > self.entries;
        if jar_like && self.android_manifest && self.classes_dex {
            "android/apk"
        } else if self.ios_plist {
            "ios/ipa"
        } else if jar_like {
            "java/jar"
        } else if self.properties_or_rels && self.content_types {
            self.office_type()
        } else {
            "archive/zip"
        }
    }

    fn office_type(&self) -> &'static str {
        if self.word {
            "document/office/word"
        } else if self.excel {
            "document/office/excel"
        } else if self.powerpoint {
            "document/office/powerpoint"
        } else if self.nuspec && self.psmdcp {
            "archive/zip"
        } else {
            "document/office/unknown"
        }
    }

    /// Classes one entry name by the first kind that fits.
    fn note(&mut self, name: &[u8]) {
        self.entries = self.entries.saturating_add(1);
        let java = name.ends_with(b".class") || name.ends_with(b".jar");
        match name {
            _ if name.starts_with(b"META-INF/") => self.meta_inf = true,
            b"AndroidManifest.xml" => self.android_manifest = true,
            b"classes.dex" => self.classes_dex = true,
            _ if name.starts_with(b"Payload/") && name.ends_with(b".app/Info.plist") => self.ios_plist = true,
            _ if name.ends_with(b".nuspec") => self.nuspec = true,
            _ if name.starts_with(b"package/services/metadata/core-properties/") && name.ends_with(b".psmdcp") => {
                self.psmdcp = true;
            }
            _ if java => self.java = self.java.saturating_add(1),
            _ if name.starts_with(b"word/") => self.word = true,
            _ if name.starts_with(b"xl/") => self.excel = true,
            _ if name.starts_with(b"ppt/") => self.powerpoint = true,
            _ if name.starts_with(b"docProps/") || name.starts_with(b"_rels/") => self.properties_or_rels = true,
            b"[Content_Types].xml" => self.content_types = true,
            _ => {}
        }
    }
}

/// The layout of the ZIP file that `source` holds or ends with; `None` when its directory cannot be read.
///
/// # Errors
///
/// Only those of `source`.
pub(super) fn layout<R: Read + Seek>(source: &mut R, size: u64) -> io::Result<Option<Layout>> {
    match end_record(source, size)? {
        Some(end) => directory(source, size, &end),
        None => Ok(None),
    }
}

/// The end of central directory record.
struct End {
    records: u64,
    directory_offset: u64,
    /// Bytes that stand before the archive.
    prepended: u64,
}

fn end_record<R: Read + Seek>(source: &mut R, size: u64) -> io::Result<Option<End>> {
    let tail_len = size.min(END_SEARCH);
    let tail_start = size - tail_len;
    let tail = read_at(source, tail_start, tail_len)?;
    let Some((at, record)) = last_end(&tail) else { return Ok(None) };
    let at = tail_start.saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
    let (Some(records), Some(mut len), Some(mut offset)) = (u16_at(record, 10), u32_at(record, 12), u32_at(record, 16))
    else {
        return Ok(None);
    };
    let mut records = u64::from(records);
    let mut end_at = at;
    if records == 0xffff || len == 0xffff_ffff || offset == 0xffff_ffff {
        let Some(wide) = end_record_64(source, at)? else { return Ok(None) };
        (end_at, records, len, offset) = wide;
    }
    let Some(prepended) = end_at.checked_sub(len).and_then(|rest| rest.checked_sub(offset)) else { return Ok(None) };
    if prepended.checked_add(offset).is_none_or(|start| start >= size) {
        return Ok(None);
    }
    Ok(Some(End { records, directory_offset: offset, prepended }))
}

/// The last end record in `tail`; a comment that runs past the end of the file spoils it.
fn last_end(tail: &[u8]) -> Option<(usize, &[u8])> {
    let searched = tail.get(..tail.len().checked_sub(END_LEN)?.checked_add(4)?)?;
    let at = memchr::memmem::rfind(searched, b"PK\x05\x06")?;
    let record = tail.get(at..)?;
    let comment = usize::from(u16_at(record, 20)?);
    (END_LEN + comment <= record.len()).then_some((at, record))
}

/// Place of the ZIP64 end record, and its number of records, directory length and directory offset.
///
/// Without a locator the narrow values stand, upstream's reader says; they are then too large to be true.
fn end_record_64<R: Read + Seek>(source: &mut R, end_at: u64) -> io::Result<Option<(u64, u64, u64, u64)>> {
    let Some(locator_at) = end_at.checked_sub(LOCATOR_LEN) else { return Ok(None) };
    let locator = read_at(source, locator_at, LOCATOR_LEN)?;
    let one_disk = u32_at(&locator, 4) == Some(0) && u32_at(&locator, 16) == Some(1);
    let Some(at) = u64_at(&locator, 8).filter(|_| one_disk && locator.starts_with(b"PK\x06\x07")) else {
        return Ok(None);
    };
    let record = read_at(source, at, END64_LEN)?;
    let values = (u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48));
    let (Some(records), Some(len), Some(offset)) = values else { return Ok(None) };
    Ok(record.starts_with(b"PK\x06\x06").then_some((at, records, len, offset)))
}

fn directory<R: Read + Seek>(source: &mut R, size: u64, end: &End) -> io::Result<Option<Layout>> {
    // Offsets may or may not count what was prepended: an entry where they say decides.
    let mut starts = vec![end.directory_offset, end.prepended.saturating_add(end.directory_offset)];
    starts.dedup();
    let mut layout = Layout::default();
    for start in starts.into_iter().filter(|start| *start < size) {
        layout = entries(source, start)?;
        if layout.entries > 0 {
            break;
        }
    }
    // The record counts modulo 65536.
    let counted = layout.entries & 0xffff == end.records & 0xffff;
    Ok((counted || layout.entries == ENTRIES_MAX).then_some(layout))
}

/// All entries from `start` on, up to the first thing that is none.
fn entries<R: Read + Seek>(source: &mut R, start: u64) -> io::Result<Layout> {
    source.seek(SeekFrom::Start(start))?;
    let mut source = BufReader::with_capacity(64 << 10, source);
    let mut layout = Layout::default();
    let mut header = [0; ENTRY_LEN];
    let mut rest = Vec::new();
    while layout.entries < ENTRIES_MAX {
        match source.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            other => other?,
        }
        let lens = (u16_at(&header, 28), u16_at(&header, 30), u16_at(&header, 32));
        let (Some(name), Some(extra), Some(comment)) = lens else { break };
        if !header.starts_with(b"PK\x01\x02") {
            break;
        }
        let wanted = u64::from(name) + u64::from(extra) + u64::from(comment);
        rest.clear();
        source.by_ref().take(wanted).read_to_end(&mut rest)?;
        if u64::try_from(rest.len()).ok() != Some(wanted) {
            break;
        }
        layout.note(rest.get(..usize::from(name)).unwrap_or_default());
    }
    Ok(layout)
}

/// Up to `len` bytes at `at`; fewer at the end of the file.
fn read_at<R: Read + Seek>(source: &mut R, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A place beyond what a file can have is simply beyond the end.
    if i64::try_from(at).is_err() {
        return Ok(bytes);
    }
    source.seek(SeekFrom::Start(at))?;
    source.by_ref().take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(|four| u64::from(u32::from_le_bytes(four)))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "sizes in tests are small")]
#[path = "zip_tests.rs"]
mod tests;
