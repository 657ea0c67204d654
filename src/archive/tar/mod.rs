//! Entries of a tar archive: V7, ustar, GNU and pax.
//!
//! Headers that say something about the next one (long names, pax records) are read up to [`EXTENSION_MAX`]; a longer one
//! is a fault and says nothing. Zero blocks do not end the reading: archives may follow each other, and the checksum of
//! the compression stands behind them.

mod header;
mod pax;
mod sparse;

pub(super) use header::BLOCK;
use header::{Block, Header};
use pax::Pax;
use sparse::Map;

use super::names;
use super::source::{CUT_OFF, Source};
use super::walker::{End, Fault, Found, Place, Walker, len_u64};

/// Bytes of a long name or of the pax records of one entry.
const EXTENSION_MAX: u64 = 1 << 20;

/// Whether `bytes` begin with a tar header.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    bytes.first_chunk::<BLOCK>().and_then(Header::parse).is_some_and(|header| header.is_plausible())
}

/// Visits the entries of the archive that `source` gives.
pub(super) fn walk(walker: &mut Walker<'_, '_>, source: &mut dyn Source, place: &Place<'_>) -> Result<(), End> {
    let mut reader =
        Reader { walker, source, place, buffer: Vec::new(), peeked: None, long_name: None, pax: Pax::default() };
    match reader.run() {
        Ok(()) => Ok(()),
        Err(Fault::Corrupt(reason)) => {
            walker.report.note_fault(place.fault(&reason));
            Ok(())
        }
        Err(Fault::End) => Err(End),
    }
}

struct Reader<'r, 'a, 'v> {
    walker: &'r mut Walker<'a, 'v>,
    source: &'r mut dyn Source,
    place: &'r Place<'r>,
    /// The bytes of the present member.
    buffer: Vec<u8>,
    /// A block that was read to see whether it is a header.
    peeked: Option<Box<Block>>,
    long_name: Option<Vec<u8>>,
    pax: Pax,
}

/// A file's entry.
struct File {
    path: String,
    unsafe_path: bool,
    /// Bytes in the archive.
    size: u64,
}

impl Reader<'_, '_, '_> {
    fn run(&mut self) -> Result<(), Fault> {
        let mut zeros = 0_u64;
        while let Some(block) = self.next_block(zeros > 0)? {
            if block.iter().all(|byte| *byte == 0) {
                zeros = zeros.saturating_add(1);
                continue;
            }
            match Header::parse(&block) {
                Some(header) => self.entry(&header)?,
                None if zeros > 0 => return self.drain(),
                None => return Err(Fault::Corrupt("tar header: checksum differs".to_owned())),
            }
            zeros = 0;
        }
        if zeros == 0 { Err(Fault::Corrupt("cut off: no end of the tar archive".to_owned())) } else { Ok(()) }
    }

    /// The next block; `None` at the end, which may stand anywhere once the archive has ended.
    fn next_block(&mut self, ended: bool) -> Result<Option<Box<Block>>, Fault> {
        if let Some(block) = self.peeked.take() {
            return Ok(Some(block));
        }
        let mut block = Box::new([0; BLOCK]);
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.walker.pull(self.source, rest)? {
                0 if filled == 0 || ended => return Ok(None),
                0 => return Err(Fault::Corrupt("cut off in a tar header".to_owned())),
                got => filled += got,
            }
        }
        Ok(Some(block))
    }

    /// Reads what is left, for the checksum behind it.
    fn drain(&mut self) -> Result<(), Fault> {
        let mut scratch = vec![0; 64 << 10];
        while self.walker.pull(self.source, &mut scratch)? > 0 {}
        Ok(())
    }

    fn entry(&mut self, header: &Header<'_>) -> Result<(), Fault> {
        match header.kind() {
            b'L' => self.long_name = self.extension(header.size()?, "GNU long name")?,
            b'x' | b'X' => {
                let records = self.extension(header.size()?, "pax header")?.unwrap_or_default();
                match Pax::parse(&records) {
                    Ok(pax) => self.pax = pax,
                    Err(reason) => self.note(&reason),
                }
            }
            // Names of links, records for all entries, labels, lists of folders: bytes that are no file's.
            b'K' | b'g' | b'V' | b'N' => self.skip_padded(header.size()?)?,
            kind => {
                let (long_name, pax) = (self.long_name.take(), std::mem::take(&mut self.pax));
                let name = pax.path.clone().or(long_name).unwrap_or_else(|| header.name());
                let size = match pax.size {
                    Some(size) => size,
                    None => header.size()?,
                };
                self.described(kind, header, &name, size, pax)?;
            }
        }
        Ok(())
    }

    /// An entry of which the name and the size are known.
    fn described(&mut self, kind: u8, header: &Header<'_>, name: &[u8], size: u64, pax: Pax) -> Result<(), Fault> {
        let report = &mut self.walker.report;
        match kind {
            b'1' | b'2' => report.links += 1,
            b'3' | b'4' | b'6' => report.specials += 1,
            b'5' => report.directories += 1,
            b'D' => {
                report.directories += 1;
                return self.skip_padded(size);
            }
            // Old writers have no type for directories.
            b'0' | 0 if name.ends_with(b"/") && size == 0 => {
                report.directories += 1;
                return Ok(());
            }
            _ => return self.file(kind, header, name, size, pax),
        }
        self.skip_if_stored(size)
    }

    /// Links and directories claim sizes, but most writers store nothing: the next block decides.
    fn skip_if_stored(&mut self, size: u64) -> Result<(), Fault> {
        if size == 0 {
            return Ok(());
        }
        let Some(block) = self.next_block(false)? else { return Ok(()) };
        if block.iter().all(|byte| *byte == 0) || Header::parse(&block).is_some() {
            self.peeked = Some(block);
            return Ok(());
        }
        self.skip_padded(size.saturating_sub(len_u64(block.as_slice())))
    }

    fn file(&mut self, kind: u8, header: &Header<'_>, name: &[u8], size: u64, pax: Pax) -> Result<(), Fault> {
        self.walker.count_file()?;
        let name = pax.sparse.name.as_deref().unwrap_or(name);
        let (path, unsafe_path) = self.place.path(&names::from_utf8(name));
        let file = File { path, unsafe_path, size };
        match self.sparse(kind, header, pax)? {
            Some((map, real_size, head)) => self.sparse_file(&file, &map, real_size, head),
            None => self.plain_file(&file),
        }
    }

    fn plain_file(&mut self, file: &File) -> Result<(), Fault> {
        let max = self.walker.options.limits.max_member;
        let wanted = file.size.min(max);
        let fault = self.walker.take(self.source, wanted, &mut self.buffer)?;
        let missing = wanted.saturating_sub(len_u64(&self.buffer));
        if missing > 0 {
            return self.cut(file, fault);
        }
        if file.size > max {
            self.walker.report.note_too_large(file.path.clone(), file.size);
        } else {
            self.visit(file, false)?;
        }
        self.walker.skip(self.source, file.size.saturating_sub(wanted))?;
        self.skip_padding(file.size)
    }

    /// The file's bytes end before they should: what there is is visited.
    fn cut(&mut self, file: &File, fault: Option<String>) -> Result<(), Fault> {
        self.visit(file, true)?;
        let reason = fault.unwrap_or_else(|| CUT_OFF.to_owned());
        Err(Fault::Corrupt(format!("{reason} in {}", file.path)))
    }

    fn visit(&mut self, file: &File, damaged: bool) -> Result<(), End> {
        let File { path, unsafe_path, .. } = file;
        let found = Found { path, unsafe_path: *unsafe_path, bytes: &self.buffer, encrypted_with: None, damaged };
        self.walker.member(self.place, &found)
    }

    /// The map of a sparse file, its real length and the bytes that its map took of the stored ones.
    fn sparse(&mut self, kind: u8, header: &Header<'_>, pax: Pax) -> Result<Option<(Map, u64, u64)>, Fault> {
        let refused = || Fault::Corrupt("sparse map is corrupt".to_owned());
        if kind == b'S' {
            let map = self.old_map(header)?;
            return Ok(Some((map, header.real_size()?, 0)));
        }
        let sparse = pax.sparse;
        if sparse.major == Some(1) {
            let (map, head) = self.map_in_data()?;
            return Ok(Some((map, sparse.real_size.ok_or_else(refused)?, head)));
        }
        let known = !sparse.map.pieces().is_empty();
        Ok(sparse.real_size.filter(|_| known).map(|real_size| (sparse.map, real_size, 0)))
    }

    /// The map in an old GNU header and the blocks behind it.
    fn old_map(&mut self, header: &Header<'_>) -> Result<Map, Fault> {
        let refused = || Fault::Corrupt("sparse map is corrupt".to_owned());
        let mut map = Map::default();
        let (mut pairs, mut more) = header.sparse()?;
        loop {
            for (place, len) in pairs {
                map.push(place, len).ok_or_else(refused)?;
            }
            if !more {
                return Ok(map);
            }
            let block = self.next_block(false)?.ok_or_else(|| Fault::Corrupt(CUT_OFF.to_owned()))?;
            (pairs, more) = header::more_pairs(&block)?;
        }
    }

    /// The map of format 1.0: decimal lines in the first blocks of the data, and the length of those blocks.
    fn map_in_data(&mut self) -> Result<(Map, u64), Fault> {
        let refused = || Fault::Corrupt("sparse map is corrupt".to_owned());
        let (mut map, mut head, mut digits) = (Map::default(), 0, Vec::new());
        let (mut left, mut place) = (None, None);
        while left != Some(0) {
            let block = self.next_block(false)?.ok_or_else(|| Fault::Corrupt(CUT_OFF.to_owned()))?;
            head += len_u64(block.as_slice());
            for byte in block.iter() {
                if *byte != b'\n' {
                    digits.push(*byte);
                    if digits.len() > 20 {
                        return Err(refused());
                    }
                    continue;
                }
                let number = pax::decimal(&digits).ok_or_else(refused)?;
                digits.clear();
                match (left, place.take()) {
                    (None, _) => left = Some(number),
                    (Some(_), None) => place = Some(number),
                    (Some(count), Some(place)) => {
                        map.push(place, number).ok_or_else(refused)?;
                        left = Some(count.saturating_sub(1));
                    }
                }
                if left == Some(0) {
                    break;
                }
            }
        }
        Ok((map, head))
    }

    /// A file with holes: they come out as zeros, and count as such.
    fn sparse_file(&mut self, file: &File, map: &Map, real_size: u64, head: u64) -> Result<(), Fault> {
        if map.end() > real_size || map.stored().checked_add(head) != Some(file.size) {
            return Err(Fault::Corrupt("sparse map is corrupt".to_owned()));
        }
        if real_size > self.walker.options.limits.max_member {
            self.walker.report.note_too_large(file.path.clone(), real_size);
            self.walker.skip(self.source, map.stored())?;
            return self.skip_padding(file.size);
        }
        self.buffer.clear();
        for (place, len) in map.pieces() {
            self.hole_until(*place)?;
            let fault = self.walker.append(self.source, *len, &mut self.buffer)?;
            if len_u64(&self.buffer) < place.saturating_add(*len) {
                return self.cut(file, fault);
            }
        }
        self.hole_until(real_size)?;
        self.visit(file, false)?;
        self.skip_padding(file.size)
    }

    /// Zeros up to `end`, which is at most `max_member`.
    fn hole_until(&mut self, end: u64) -> Result<(), Fault> {
        let hole = end.saturating_sub(len_u64(&self.buffer));
        self.walker.charge(hole)?;
        let end = usize::try_from(end).map_err(|_| Fault::Corrupt("sparse map is corrupt".to_owned()))?;
        self.buffer.reserve_exact(end.saturating_sub(self.buffer.len()));
        self.buffer.resize(end.max(self.buffer.len()), 0);
        Ok(())
    }

    /// The data of a header that describes the next one; `None`, and a fault, when it is too long.
    fn extension(&mut self, size: u64, what: &str) -> Result<Option<Vec<u8>>, Fault> {
        if size > EXTENSION_MAX {
            self.note(&format!("{what} of {size} bytes"));
            self.skip_padded(size)?;
            return Ok(None);
        }
        let mut bytes = Vec::new();
        if let Some(reason) = self.walker.take(self.source, size, &mut bytes)? {
            return Err(Fault::Corrupt(reason));
        }
        if len_u64(&bytes) < size {
            return Err(Fault::Corrupt(format!("cut off in a {what}")));
        }
        self.skip_padding(size)?;
        if what.starts_with("GNU") {
            bytes = header::until_nul(&bytes).to_vec();
        }
        Ok(Some(bytes))
    }

    fn note(&mut self, reason: &str) {
        self.walker.report.note_fault(self.place.fault(reason));
    }

    fn skip_padded(&mut self, size: u64) -> Result<(), Fault> {
        self.walker.skip(self.source, size)?;
        self.skip_padding(size)
    }

    /// Up to the next block.
    fn skip_padding(&mut self, size: u64) -> Result<(), Fault> {
        let padding = size.wrapping_neg() & 511;
        self.walker.skip(self.source, padding)
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Corrupt(reason)
    }
}
