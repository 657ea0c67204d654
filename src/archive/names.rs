//! Names of members as text.

use sha2::{Digest, Sha256};

/// Bytes of a name on one level; what is cut keeps apart names that differ.
const NAME_MAX: usize = 4000;

/// The upper half of code page 437.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// UTF-8; bytes that are none are written as U+FFFD and two hex digits, so that names that differ stay different.
pub(super) fn from_utf8(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\u{fffd}{byte:02x}"));
        }
    }
    text
}

/// Code page 437, the encoding of zip names without the UTF-8 flag.
pub(super) fn from_cp437(bytes: &[u8]) -> String {
    let upper = |byte: u8| CP437.chars().nth(usize::from(byte & 0x7f)).unwrap_or('\u{fffd}');
    bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { upper(*byte) }).collect()
}

/// ISO 8859-1, the encoding of names in gzip headers.
pub(super) fn from_latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The name to report: without `./` in front; above 4,000 bytes cut and marked with its digest.
pub(super) fn reported(name: &str) -> String {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    if name.len() <= NAME_MAX {
        return name.to_owned();
    }
    let digest = Sha256::digest(name.as_bytes());
    let mark: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let (kept, _) = name.split_at(name.floor_char_boundary(NAME_MAX));
    format!("{kept}~{mark}")
}

/// Whether a program that believes the name might leave its folder: `..`, absolute, a drive letter, NUL.
pub(super) fn is_unsafe(name: &str) -> bool {
    let mut start = name.chars();
    let drive = matches!((start.next(), start.next()), (Some(letter), Some(':')) if letter.is_ascii_alphabetic());
    drive || name.starts_with(['/', '\\']) || name.contains('\0') || name.split(['/', '\\']).any(|part| part == "..")
}

/// The name of what a gzip or bzip2 file named `archive` holds.
pub(super) fn without_suffix(archive: &str) -> String {
    let name = archive.rsplit(['/', '\\']).next().unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    for (suffix, instead) in [(".gz", ""), (".bz2", ""), (".tgz", ".tar"), (".tbz2", ".tar"), (".tbz", ".tar")] {
        if lower.ends_with(suffix)
            && let Some(stem) = name.get(..name.len().saturating_sub(suffix.len())).filter(|stem| !stem.is_empty())
        {
            return format!("{stem}{instead}");
        }
    }
    if name.is_empty() { "data".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_whatever_their_bytes() {
        assert_eq!(from_utf8(b"a\xff\xfeb"), "a\u{fffd}ff\u{fffd}feb");
        assert_eq!(from_utf8("ä".as_bytes()), "ä");
        assert_eq!(CP437.chars().count(), 128);
        assert_eq!(from_cp437(b"\x80\x81\xe1\xffz"), "Çüß\u{a0}z");
        assert_eq!(from_latin1(b"\xe4"), "ä");
    }

    #[test]
    fn reported_names_are_short_and_differ() {
        assert_eq!(reported("././a/b"), "a/b");
        assert_eq!(reported("./../a"), "../a");
        let (one, two) = ("ä".repeat(5000), "ä".repeat(5001));
        assert!(reported(&one).len() < 4020 && reported(&one) != reported(&two));
    }

    #[test]
    fn unsafe_names_are_seen() {
        for name in ["../a", "a/../b", "a/..", "/a", "\\a", "..\\a", "C:\\a", "c:a", "a\0b", "\\\\host\\a"] {
            assert!(is_unsafe(name), "{name:?}");
        }
        for name in ["a", "a/b", "..a", "a..", "a/.../b", "ä:b", ""] {
            assert!(!is_unsafe(name), "{name:?}");
        }
    }

    #[test]
    fn suffixes_are_taken_off() {
        let cases =
            [("a.gz", "a"), ("x/a.TGZ", "a.tar"), ("a.tar.bz2", "a.tar"), ("a", "a"), ("", "data"), (".gz", ".gz")];
        for (name, want) in cases {
            assert_eq!(without_suffix(name), want, "{name}");
        }
    }
}
