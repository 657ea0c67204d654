//! Refinements: closer looks at some first types (streams.md 8.5).
//!
//! Called by `Identifier::identify`. Order: zip, cart, dos, pdf; the content rules come after them. All memory is bounded;
//! the PDF test reads the whole file.

use std::io::{self, Read, Seek, SeekFrom};

use memchr::memmem::Finder;

use super::zip;

/// Every type a refinement can give.
#[cfg(test)]
pub(super) const TYPES: [&str; 17] = [
    "android/apk",
    "archive/cart",
    "archive/zip",
    "document/office/excel",
    "document/office/powerpoint",
    "document/office/unknown",
    "document/office/word",
    "document/pdf/passwordprotected",
    "document/pdf/portfolio",
    "executable/windows/dll32",
    "executable/windows/dll64",
    "executable/windows/dos",
    "executable/windows/pe32",
    "executable/windows/pe64",
    "ios/ipa",
    "java/jar",
    "unknown",
];

/// The type after all refinements.
///
/// # Errors
///
/// Only those of `source`.
pub(super) fn refined<R: Read + Seek>(
    mut current: String,
    source: &mut R,
    size: u64,
    head: &[u8],
) -> io::Result<String> {
    let mut stepped = false;
    if matches!(current.as_str(), "document/office/unknown" | "archive/zip" | "java/jar" | "unknown") {
        stepped = true;
        if let Some(found) = zip::layout(source, size)? {
            current = found.file_type().into();
        }
    }
    if current == "unknown" && is_cart(head) {
        stepped = true;
        current = "archive/cart".into();
    }
    if current == "executable/windows/dos" && !stepped {
        current = dos(head).into();
    }
    if current == "document/pdf"
        && let Some(found) = pdf(source)?
    {
        current = found.into();
    }
    Ok(current)
}

/// `CART`, version 1, a reserved zero; more than the 38 bytes of its header.
fn is_cart(head: &[u8]) -> bool {
    head.len() > 38 && head.starts_with(b"CART\x01\0\0\0\0\0\0\0\0\0")
}

/// What an MZ file is, from the head alone.
fn dos(head: &[u8]) -> &'static str {
    if head.len() < 48 {
        return "unknown";
    }
    pe(head).unwrap_or("executable/windows/dos")
}

fn pe(head: &[u8]) -> Option<&'static str> {
    if head.len() < 64 || !head.starts_with(b"MZ") {
        return None;
    }
    let at = usize::try_from(u32::from_le_bytes(*head.get(0x3c..)?.first_chunk()?)).ok()?;
    if at > head.len() - 24 {
        return None;
    }
    let header = head.get(at..)?.strip_prefix(b"PE\0\0")?;
    let machine = u16::from_le_bytes(*header.first_chunk()?);
    let flags = u16::from_le_bytes(*header.get(18..)?.first_chunk()?);
    let (library, executable) = (flags & 0x2000 != 0, flags & 0x0002 != 0);
    match (machine, library, executable) {
        (0x014c, true, _) => Some("executable/windows/dll32"),
        (0x014c, false, true) => Some("executable/windows/pe32"),
        (0x8664, true, _) => Some("executable/windows/dll64"),
        (0x8664, false, true) => Some("executable/windows/pe64"),
        _ => None,
    }
}

/// Looks through the whole file: encrypted, else a portfolio, else plain.
fn pdf<R: Read + Seek>(source: &mut R) -> io::Result<Option<&'static str>> {
    const CHUNK: u64 = 256 << 10;
    const ENCRYPT: &[u8] = b"/Encrypt";
    const COLLECTION: &[u8] = b"/Type/Catalog/Collection";
    let (encrypt, collection) = (Finder::new(ENCRYPT), Finder::new(COLLECTION));
    let mut portfolio = false;
    let mut buffer = Vec::new();
    source.seek(SeekFrom::Start(0))?;
    loop {
        // What is kept of the last chunk is too short to hold either text.
        let keep = buffer.len().min(COLLECTION.len() - 1);
        buffer.drain(..buffer.len() - keep);
        if source.by_ref().take(CHUNK).read_to_end(&mut buffer)? == 0 {
            return Ok(portfolio.then_some("document/pdf/portfolio"));
        }
        if encrypt.find(&buffer).is_some() {
            return Ok(Some("document/pdf/passwordprotected"));
        }
        portfolio |= collection.find(&buffer).is_some();
    }
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "sizes in tests are small")]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn of(current: &str, bytes: &[u8]) -> String {
        let head = &bytes[..bytes.len().min(32_000)];
        refined(current.into(), &mut Cursor::new(bytes), bytes.len() as u64, head).unwrap()
    }

    fn mz(machine: u16, flags: u16, at: u32) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c..0x40].copy_from_slice(&at.to_le_bytes());
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
        bytes[0x96..0x98].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    #[test]
    fn dos_files_are_looked_at_for_a_pe_header() {
        const DOS: &str = "executable/windows/dos";
        for (bytes, want) in [
            (mz(0x014c, 0x2002, 0x80), "executable/windows/dll32"),
            (mz(0x014c, 0x0002, 0x80), "executable/windows/pe32"),
            (mz(0x8664, 0x2000, 0x80), "executable/windows/dll64"),
            (mz(0x8664, 0x0102, 0x80), "executable/windows/pe64"),
            (mz(0x8664, 0, 0x80), DOS),
            (mz(0xaa64, 2, 0x80), DOS),
            (mz(0x8664, 2, 0x81), DOS),
            (mz(0x8664, 2, u32::MAX), DOS),
            (mz(0x8664, 2, 512 - 23), DOS),
            (mz(0x8664, 2, 0x80)[..47].to_vec(), "unknown"),
            (mz(0x8664, 2, 0x80)[..63].to_vec(), DOS),
            (vec![0; 64], DOS),
        ] {
            assert_eq!(of(DOS, &bytes), want);
        }
    }

    #[test]
    fn cart_needs_its_whole_header_and_one_byte_more() {
        let mut bytes = b"CART\x01\0".to_vec();
        bytes.resize(39, 0);
        assert_eq!(of("unknown", &bytes), "archive/cart");
        assert_eq!(of("unknown", &bytes[..38]), "unknown");
        assert_eq!(of("text/plain", &bytes), "text/plain");
        bytes[13] = 1;
        assert_eq!(of("unknown", &bytes), "unknown");
    }

    #[test]
    fn pdf_marks_are_found_across_chunks_anywhere_in_the_file() {
        for at in [0, 100, (256 << 10) - 4, (512 << 10) - 1, 1_000_000] {
            for (mark, want) in [
                (&b"/Encrypt"[..], "document/pdf/passwordprotected"),
                (b"/Type/Catalog/Collection", "document/pdf/portfolio"),
                (b"/Type/Catalog /Collection", "document/pdf"),
            ] {
                let mut bytes = vec![b' '; 1_100_000];
                bytes[at..at + mark.len()].copy_from_slice(mark);
                assert_eq!(of("document/pdf", &bytes), want, "{at}");
            }
        }
        assert_eq!(of("document/pdf", b"/Type/Catalog/Collection /Encrypt"), "document/pdf/passwordprotected");
    }
}
