//! Entries of a zip: by its central directory, or, when that is missing or unreadable, by the local headers.
//!
//! Entries that share bytes are visited within the limits and noted as [`LimitName::Overlap`], because no writer makes
//! them. Where a local header says something else than the directory, the directory holds and the fault is noted.

mod crypto;
mod directory;
mod fields;

use std::io::BufRead;

use crypto::AesField;
use directory::{Directory, Entry};
use fields::{u32_at, u64_at, usize_of};
use flate2::Crc;

use super::LimitName;
use super::names;
use super::source::{Bz2, CUT_OFF, Inflate, Plain};
use super::walker::{End, Found, Place, Walker, len_u64};

/// Wrong passwords that are tried in one walk: so many of ZipCrypto, or a [`TRY_AES`]th of AES, which takes about a
/// millisecond each.
pub(super) const TRIES_MAX: u64 = 2_000_000;
const TRY_AES: u64 = 100;
/// Bytes under a wrong password that take as long as one try of ZipCrypto. Whoever writes an archive can make a wrong
/// password fit its check bytes, and let many entries share the same data.
const TRY_BYTES: u64 = 2 << 10;

/// The most that deflate makes of one byte.
const DEFLATE_RATIO: u64 = 1032;

/// Whether there is a zip in `bytes`, at its start or behind something else.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    starts_as_zip(bytes) || directory::find(bytes).is_some_and(|directory| directory.records > 0)
}

fn starts_as_zip(bytes: &[u8]) -> bool {
    [&b"PK\x03\x04"[..], b"PK\x05\x06", b"PK\x07\x08PK\x03\x04", b"PK00PK\x03\x04"]
        .iter()
        .any(|start| bytes.starts_with(start))
}

/// Visits the entries of `bytes`.
pub(super) fn walk(walker: &mut Walker<'_, '_>, bytes: &[u8], place: &Place<'_>) -> Result<(), End> {
    let mut reader = Reader { walker, zip: bytes, place, buffer: Vec::new() };
    match directory::find(bytes) {
        Some(directory) => reader.by_directory(&directory),
        None => {
            reader.note("no central directory");
            reader.by_local_headers()
        }
    }
}

struct Reader<'r, 'a, 'v> {
    walker: &'r mut Walker<'a, 'v>,
    zip: &'r [u8],
    place: &'r Place<'r>,
    /// The bytes of the present member.
    buffer: Vec<u8>,
}

/// An entry's bytes as they stand in the archive.
#[derive(Clone, Copy)]
struct Packed<'z> {
    bytes: &'z [u8],
    /// Some are missing at the end.
    cut: bool,
}

/// A file about to be read.
struct File<'z> {
    path: String,
    unsafe_path: bool,
    entry: &'z Entry<'z>,
    data: Packed<'z>,
    /// Under an encryption, the method of what is encrypted.
    method: u16,
}

/// How a member's bytes came out.
struct Opened {
    /// The password's place in the list.
    password: Option<usize>,
    fault: Option<String>,
}

impl<'r> Reader<'r, '_, '_> {
    fn note(&mut self, reason: &str) {
        self.walker.report.note_fault(self.place.fault(reason));
    }

    fn by_directory(&mut self, directory: &Directory<'r>) -> Result<(), End> {
        if directory.ambiguous {
            self.note("a second end record in the comment");
        }
        let overlapping = self.overlapping(directory);
        let (mut rest, mut count) = (directory.bytes, 0_u64);
        while let Some((entry, after)) = Entry::parse(rest) {
            self.walker.check()?;
            count += 1;
            self.listed(&entry, directory)?;
            rest = after;
        }
        if overlapping > 0 {
            self.walker.report.note_limit(LimitName::Overlap, 0, overlapping);
        }
        let mask = if directory.narrow { 0xffff } else { u64::MAX };
        if count & mask != directory.records & mask {
            let records = directory.records;
            self.note(&format!("central directory with {count} entries instead of {records}"));
        }
        Ok(())
    }

    /// How many entries begin before the end of another one that begins earlier or at the same place.
    ///
    /// Looks at no more entries than may be visited.
    fn overlapping(&self, directory: &Directory<'r>) -> u64 {
        let mut ranges = Vec::new();
        let mut rest = directory.bytes;
        let max = usize_of(self.walker.options.limits.max_members).saturating_add(1);
        while let Some((entry, after)) = Entry::parse(rest).filter(|_| ranges.len() < max) {
            if let Some((start, _, data)) = self.local(&entry, directory.shift) {
                let data_at = self.zip.len().saturating_sub(data.len());
                ranges.push((start, data_at.saturating_add(usize_of(entry.packed))));
            }
            rest = after;
        }
        ranges.sort_unstable();
        let (mut furthest, mut overlapping) = (0, 0_u64);
        for (start, end) in ranges {
            overlapping += u64::from(start < furthest);
            furthest = furthest.max(end);
        }
        overlapping
    }

    /// The place of an entry's local header, that header and what follows it.
    ///
    /// Offsets may or may not count what stands in front of the archive.
    fn local(&self, entry: &Entry<'_>, shift: i128) -> Option<(usize, Entry<'r>, &'r [u8])> {
        [shift, 0].into_iter().find_map(|shift| {
            let at = usize::try_from(i128::from(entry.offset) + shift).ok()?;
            let (header, data) = directory::local(self.zip.get(at..)?)?;
            Some((at, header, data))
        })
    }

    /// An entry of the central directory.
    fn listed(&mut self, entry: &Entry<'_>, directory: &Directory<'r>) -> Result<(), End> {
        let name = text(entry);
        let Some((_, local, data)) = self.local(entry, directory.shift) else {
            if !is_directory(entry) {
                self.walker.count_file()?;
            }
            let name = names::reported(&name);
            self.note(&format!("no local header of {name}"));
            return Ok(());
        };
        let unknown = local.flags & 8 != 0;
        let same_size = unknown || (local.packed == entry.packed && local.size == entry.size);
        let same = local.name == entry.name && local.method == entry.method && local.flags & 1 == entry.flags & 1;
        if !same || !same_size {
            let name = names::reported(&name);
            self.note(&format!("local header of {name} differs from the directory"));
        }
        let wanted = usize_of(entry.packed);
        let bytes = data.get(..wanted.min(data.len())).unwrap_or_default();
        self.entry(entry, &name, Packed { bytes, cut: bytes.len() < wanted })
    }

    /// What can be read without a directory: entry after entry from the start.
    fn by_local_headers(&mut self) -> Result<(), End> {
        let mut rest = self.zip;
        for marker in [b"PK\x07\x08", b"PK00"] {
            rest = rest.strip_prefix(marker).unwrap_or(rest);
        }
        while let Some((mut entry, data)) = directory::local(rest) {
            self.walker.check()?;
            let mut wanted = usize_of(entry.packed);
            let mut known = true;
            if entry.flags & 8 != 0 && entry.packed == 0 {
                known = self.sizes_behind(&mut entry, data);
                wanted = if known { usize_of(entry.packed) } else { data.len() };
            }
            let bytes = data.get(..wanted.min(data.len())).unwrap_or_default();
            let name = text(&entry);
            self.entry(&entry, &name, Packed { bytes, cut: bytes.len() < wanted || !known })?;
            rest = data.get(bytes.len()..).unwrap_or_default();
            if entry.flags & 8 != 0
                && let Some(next) = next_header(rest)
            {
                rest = next;
            }
        }
        Ok(())
    }

    /// Sizes and checksum from the data descriptor behind `data`: the first whose length fits its place.
    fn sizes_behind(&self, entry: &mut Entry<'_>, data: &[u8]) -> bool {
        for at in memchr::memmem::find_iter(data, b"PK\x07\x08") {
            let Some(descriptor) = data.get(at..) else { return false };
            let distance = u64::try_from(at).unwrap_or(u64::MAX);
            let narrow = (u32_at(descriptor, 8).map(u64::from), u32_at(descriptor, 12).map(u64::from));
            for (packed, size) in [narrow, (u64_at(descriptor, 8), u64_at(descriptor, 16))] {
                if let (Some(packed), Some(size), Some(crc)) = (packed, size, u32_at(descriptor, 4))
                    && packed == distance
                {
                    (entry.packed, entry.size, entry.crc) = (packed, size, crc);
                    return true;
                }
            }
        }
        false
    }

    fn entry(&mut self, entry: &Entry<'_>, name: &str, data: Packed<'_>) -> Result<(), End> {
        let report = &mut self.walker.report;
        if is_directory(entry) {
            report.directories += 1;
            return Ok(());
        }
        // Unix and macOS keep the type of the file in the high half.
        let kind = if matches!(entry.made_by, 3 | 19) { (entry.attributes >> 16) & 0xf000 } else { 0 };
        match kind {
            0xa000 => report.links += 1,
            0 | 0x8000 | 0x4000 => return self.file(entry, name, data),
            _ => report.specials += 1,
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry<'_>, name: &str, data: Packed<'_>) -> Result<(), End> {
        self.walker.count_file()?;
        let (path, unsafe_path) = self.place.path(name);
        let aes = if entry.method == 99 { AesField::of(entry) } else { None };
        let method = aes.map_or(entry.method, |field| field.method);
        let file = File { path, unsafe_path, entry, data, method };
        if !matches!(method, 0 | 8 | 12) {
            self.walker.report.note_unsupported(method);
            return Ok(());
        }
        if let Some(size) = self.too_large(&file) {
            self.walker.report.note_too_large(file.path, size);
            return Ok(());
        }
        let opened = if entry.is_encrypted() || aes.is_some() {
            self.decrypt(&file, aes)?
        } else {
            let fault = self.unpack(&file, data.bytes, true)?;
            Some(Opened { password: None, fault })
        };
        match opened {
            Some(opened) => self.visit(file, opened),
            None => {
                self.walker.report.encrypted += 1;
                Ok(())
            }
        }
    }

    /// The size that is surely above the limit, without reading. A claim that deflate cannot keep is not believed.
    fn too_large(&self, file: &File<'_>) -> Option<u64> {
        let packed = len_u64(file.data.bytes);
        let most = match file.method {
            0 => packed,
            8 => packed.saturating_mul(DEFLATE_RATIO),
            _ => u64::MAX,
        };
        let size = if file.method == 0 { packed } else { file.entry.size };
        (size > self.walker.options.limits.max_member && size <= most).then_some(size)
    }

    /// Unpacks `plain` into the buffer, up to one byte more than a member may have; what is wrong with it.
    fn unpack(&mut self, file: &File<'_>, plain: impl BufRead, has_crc: bool) -> Result<Option<String>, End> {
        let entry = file.entry;
        let most = self.walker.options.limits.max_member.saturating_add(1);
        let (walker, buffer) = (&mut *self.walker, &mut self.buffer);
        let fault = match file.method {
            0 => walker.take(&mut Plain(plain), most, buffer)?,
            8 => walker.take(&mut Inflate::new(plain), most, buffer)?,
            _ => walker.take(&mut Bz2::new(plain), most, buffer)?,
        };
        let len = len_u64(&self.buffer);
        if fault.is_some() || len == most {
            return Ok(fault);
        }
        if len != entry.size {
            return Ok(Some(if file.data.cut {
                CUT_OFF.to_owned()
            } else {
                format!("length {len} instead of {}", entry.size)
            }));
        }
        let mut crc = Crc::new();
        crc.update(&self.buffer);
        Ok((has_crc && crc.sum() != entry.crc).then(|| "checksum differs".to_owned()))
    }

    /// Tries the passwords; the buffer then holds what the right one gives. `None`: none opens it.
    fn decrypt(&mut self, file: &File<'_>, aes: Option<AesField>) -> Result<Option<Opened>, End> {
        // Strong encryption, whose format is not public.
        if file.entry.flags & 0x40 != 0 {
            return Ok(None);
        }
        let passwords = self.walker.options.passwords;
        let known = self.walker.opened.clone();
        let others = (0..passwords.len()).filter(|at| !known.contains(at));
        let cost = if aes.is_some() { TRY_AES } else { 1 };
        for at in known.iter().copied().chain(others) {
            let Some(password) = passwords.get(at) else { continue };
            let is_known = known.contains(&at);
            if !is_known && self.walker.tries < cost {
                self.walker.report.tries_cut = true;
                return Ok(None);
            }
            self.walker.check()?;
            let before = self.walker.report.expanded;
            let opened = match aes {
                Some(field) => self.try_aes(file, field, password.as_bytes())?,
                None => self.try_zipcrypto(file, password.as_bytes(), is_known)?,
            };
            if let Some(fault) = opened {
                return Ok(Some(Opened { password: Some(at), fault }));
            }
            // What came out under a wrong password was never anybody's.
            let wasted = self.walker.report.expanded.saturating_sub(before) / TRY_BYTES;
            self.walker.report.expanded = before;
            self.walker.tries = self.walker.tries.saturating_sub(cost.saturating_add(wasted));
        }
        Ok(None)
    }

    /// `None`: not this password. `Some(fault)`: this one.
    fn try_aes(&mut self, file: &File<'_>, field: AesField, password: &[u8]) -> Result<Option<Option<String>>, End> {
        let Some(opened) = crypto::aes(file.data.bytes, field, file.data.cut, password) else { return Ok(None) };
        let fault = self.unpack(file, opened.plain, field.has_crc)?;
        if opened.authentic {
            return Ok(Some(fault));
        }
        // Changed or cut bytes, or one wrong password in 65536: text that unpacks to its length decides.
        let plausible = fault.is_none() || file.data.cut || len_u64(&self.buffer) == file.entry.size;
        Ok(plausible.then(|| Some(fault.unwrap_or_else(|| "authentication code differs".to_owned()))))
    }

    /// As [`Self::try_aes`]. The check byte of a wrong password fits once in 256: only the checksum, the length that
    /// deflate comes to, or an earlier success tell.
    fn try_zipcrypto(&mut self, file: &File<'_>, password: &[u8], known: bool) -> Result<Option<Option<String>>, End> {
        let Some(plain) = crypto::zipcrypto(file.data.bytes, file.entry, password) else { return Ok(None) };
        let fault = self.unpack(file, plain, true)?;
        let unpacked = file.method != 0 && len_u64(&self.buffer) == file.entry.size;
        Ok((fault.is_none() || known || unpacked).then_some(fault))
    }

    fn visit(&mut self, file: File<'_>, opened: Opened) -> Result<(), End> {
        let Opened { password, fault } = opened;
        let password = password.and_then(|at| {
            if !self.walker.opened.contains(&at) {
                self.walker.opened.push(at);
            }
            self.walker.options.passwords.get(at)
        });
        if let Some(password) = password {
            self.walker.report.note_password(password);
        }
        let len = len_u64(&self.buffer);
        if len > self.walker.options.limits.max_member {
            self.walker.report.note_too_large(file.path, len.max(file.entry.size));
            return Ok(());
        }
        let File { path, unsafe_path, .. } = file;
        let damaged = fault.is_some();
        if let Some(reason) = fault {
            self.walker.report.note_fault(format!("{path}: {reason}"));
        }
        let encrypted_with = password.map(String::as_str);
        let found = Found { path: &path, unsafe_path, bytes: &self.buffer, encrypted_with, damaged };
        self.walker.member(self.place, &found)
    }
}

/// A name that ends in `/`, with no more bytes than an empty file has when it is deflated and encrypted.
fn is_directory(entry: &Entry<'_>) -> bool {
    entry.name.ends_with(b"/") && entry.size == 0 && entry.packed <= 64
}

/// The name as text: the Unicode path field when it belongs to this name, else UTF-8 or code page 437 by the flag.
///
/// Names from DOS and Windows that know only `\` get `/`.
fn text(entry: &Entry<'_>) -> String {
    let unicode = entry.extra(0x7075).and_then(|field| {
        let (version, name) = field.split_first()?;
        let (crc, name) = name.split_first_chunk::<4>()?;
        let mut sum = Crc::new();
        sum.update(entry.name);
        (*version == 1 && u32::from_le_bytes(*crc) == sum.sum()).then_some(name)
    });
    let name = match unicode {
        Some(name) => names::from_utf8(name),
        None if entry.flags & 0x800 != 0 => names::from_utf8(entry.name),
        None => names::from_cp437(entry.name),
    };
    let windows = matches!(entry.made_by, 0 | 10 | 11 | 14);
    if windows && !name.contains('/') { name.replace('\\', "/") } else { name }
}

/// Behind a data descriptor of one of its four lengths, the next header.
fn next_header(bytes: &[u8]) -> Option<&[u8]> {
    [0, 12, 16, 20, 24].into_iter().filter_map(|len| bytes.get(len..)).find(|rest| rest.starts_with(b"PK\x03\x04"))
}
