//! Archives written byte by byte, so that every field can lie.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};

pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn gz_named(name: &[u8], bytes: &[u8]) -> Vec<u8> {
    let plain = gz(bytes);
    [&plain[..3], &[8], &plain[4..10], name, &[0], &plain[10..]].concat()
}

pub(crate) fn bz2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// One entry of a zip; what is `None` is true.
#[derive(Clone, Default)]
pub(crate) struct Entry {
    pub name: Vec<u8>,
    pub data: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub made_by: u16,
    pub attributes: u32,
    pub zipcrypto: Option<&'static str>,
    /// Bytes instead of the packed ones.
    pub packed: Option<Vec<u8>>,
    pub crc: Option<u32>,
    pub size: Option<u32>,
    pub packed_size: Option<u32>,
    pub offset: Option<u32>,
    pub local_name: Option<Vec<u8>>,
    pub local_method: Option<u16>,
    pub extra: Vec<u8>,
    /// Sizes and checksum behind the data.
    pub descriptor: bool,
}

pub(crate) fn entry(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
    Entry { name: name.as_ref().to_vec(), data: data.as_ref().to_vec(), ..Entry::default() }
}

pub(crate) fn deflated(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
    Entry { method: 8, ..entry(name, data) }
}

/// A zip64 end record, and where its locator says it is; what is `None` is true.
#[derive(Clone, Copy)]
pub(crate) struct Wide {
    pub records: u64,
    pub len: Option<u64>,
    pub offset: Option<u64>,
    pub locator: Option<u64>,
}

/// What the end records say; what is `None` is true.
#[derive(Clone, Default)]
pub(crate) struct Ends {
    pub records: Option<u16>,
    pub len: Option<u32>,
    pub offset: Option<u32>,
    pub comment: Vec<u8>,
    pub comment_len: Option<u16>,
    pub wide: Option<Wide>,
    pub no_end: bool,
    pub no_directory: bool,
}

pub(crate) fn zip(entries: &[Entry]) -> Vec<u8> {
    zip_with(entries, &Ends::default())
}

pub(crate) fn zip_with(entries: &[Entry], ends: &Ends) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        one(entry, &mut out, &mut directory);
    }
    if ends.no_directory {
        return out;
    }
    let (offset, len) = (out.len() as u64, directory.len() as u64);
    out.extend_from_slice(&directory);
    if ends.no_end {
        return out;
    }
    let mut records = ends.records.unwrap_or(entries.len() as u16);
    let (mut narrow_len, mut narrow_offset) = (ends.len.unwrap_or(len as u32), ends.offset.unwrap_or(offset as u32));
    if let Some(wide) = ends.wide {
        let at = out.len() as u64;
        out.extend_from_slice(b"PK\x06\x06");
        out.extend_from_slice(&44_u64.to_le_bytes());
        out.extend_from_slice(&[45, 0, 45, 0]);
        out.extend_from_slice(&[0; 8]);
        for value in [wide.records, wide.records, wide.len.unwrap_or(len), wide.offset.unwrap_or(offset)] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        out.extend_from_slice(&wide.locator.unwrap_or(at).to_le_bytes());
        out.extend_from_slice(&1_u32.to_le_bytes());
        (records, narrow_len, narrow_offset) = (0xffff, u32::MAX, u32::MAX);
    }
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for count in [records, records] {
        out.extend_from_slice(&count.to_le_bytes());
    }
    out.extend_from_slice(&narrow_len.to_le_bytes());
    out.extend_from_slice(&narrow_offset.to_le_bytes());
    out.extend_from_slice(&ends.comment_len.unwrap_or(ends.comment.len() as u16).to_le_bytes());
    out.extend_from_slice(&ends.comment);
    out
}

fn one(entry: &Entry, out: &mut Vec<u8>, directory: &mut Vec<u8>) {
    let crc = entry.crc.unwrap_or_else(|| crc32(&entry.data));
    let mut packed = entry.packed.clone().unwrap_or_else(|| match entry.method {
        8 => deflate(&entry.data),
        12 => bz2(&entry.data),
        _ => entry.data.clone(),
    });
    let mut flags = entry.flags | if entry.descriptor { 8 } else { 0 };
    if let Some(password) = entry.zipcrypto {
        flags |= 1;
        packed = zipcrypto(password.as_bytes(), crc, &packed);
    }
    let size = entry.size.unwrap_or(entry.data.len() as u32);
    let packed_size = entry.packed_size.unwrap_or(packed.len() as u32);
    let offset = entry.offset.unwrap_or(out.len() as u32);
    let local_name = entry.local_name.as_ref().unwrap_or(&entry.name);
    let sums =
        |crc: u32, packed: u32, size: u32| [crc.to_le_bytes(), packed.to_le_bytes(), size.to_le_bytes()].concat();
    let head = |method: u16| [&20_u16.to_le_bytes()[..], &flags.to_le_bytes(), &method.to_le_bytes(), &[0; 4]].concat();

    out.extend_from_slice(b"PK\x03\x04");
    out.extend(head(entry.local_method.unwrap_or(entry.method)));
    out.extend(if entry.descriptor { sums(0, 0, 0) } else { sums(crc, packed_size, size) });
    out.extend_from_slice(&(local_name.len() as u16).to_le_bytes());
    out.extend_from_slice(&(entry.extra.len() as u16).to_le_bytes());
    out.extend_from_slice(local_name);
    out.extend_from_slice(&entry.extra);
    out.extend_from_slice(&packed);
    if entry.descriptor {
        out.extend_from_slice(b"PK\x07\x08");
        out.extend(sums(crc, packed_size, size));
    }

    directory.extend_from_slice(b"PK\x01\x02");
    directory.extend_from_slice(&(20 | (entry.made_by << 8)).to_le_bytes());
    directory.extend(head(entry.method));
    directory.extend(sums(crc, packed_size, size));
    directory.extend_from_slice(&(entry.name.len() as u16).to_le_bytes());
    directory.extend_from_slice(&(entry.extra.len() as u16).to_le_bytes());
    directory.extend_from_slice(&[0; 6]);
    directory.extend_from_slice(&entry.attributes.to_le_bytes());
    directory.extend_from_slice(&offset.to_le_bytes());
    directory.extend_from_slice(&entry.name);
    directory.extend_from_slice(&entry.extra);
}

/// ZipCrypto as APPNOTE 6.1 says, with a fixed head.
fn zipcrypto(password: &[u8], crc: u32, plain: &[u8]) -> Vec<u8> {
    let step = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    };
    let mut keys = [0x1234_5678_u32, 0x2345_6789, 0x3456_7890];
    let mut update = |byte: u8| {
        keys[0] = step(keys[0], byte);
        keys[1] = keys[1].wrapping_add(keys[0] & 0xff).wrapping_mul(134_775_813).wrapping_add(1);
        keys[2] = step(keys[2], (keys[1] >> 24) as u8);
        let temp = (keys[2] | 2) & 0xffff;
        (temp.wrapping_mul(temp ^ 1) >> 8) as u8
    };
    let mut mask = 0;
    for byte in password {
        mask = update(*byte);
    }
    let mut head = *b"random bytes";
    head[11] = (crc >> 24) as u8;
    let mut out = Vec::new();
    for byte in head.iter().chain(plain) {
        out.push(byte ^ mask);
        mask = update(*byte);
    }
    out
}

/// A tar header; `size` is the text of the field.
pub(crate) fn header_with(name: &[u8], size: &[u8], kind: u8, change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..124 + size.len()].copy_from_slice(size);
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.to_vec()
}

pub(crate) fn header(name: &[u8], size: usize, kind: u8) -> Vec<u8> {
    header_with(name, format!("{size:011o}").as_bytes(), kind, |_| {})
}

/// An entry without the end of the archive.
pub(crate) fn tar_entry(name: impl AsRef<[u8]>, kind: u8, data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    [header(name.as_ref(), data.len(), kind), padded(data)].concat()
}

pub(crate) fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

/// Entries and the end of the archive.
pub(crate) fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.extend([0; 1024]);
    out
}

/// A pax header with these records, for the entry behind it.
pub(crate) fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let mut len = rest.len() + 1;
        while len != rest.len() + len.to_string().len() {
            len += 1;
        }
        text.push_str(&format!("{len}{rest}"));
    }
    tar_entry("PaxHeaders/x", b'x', text)
}
