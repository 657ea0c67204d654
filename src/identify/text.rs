//! Is it text, and which: the encodings and the line of words that libmagic gives for plain text.
//!
//! Called by `magic`. The engine there knows only ASCII and UTF-8, and counts bytes that libmagic calls data.

use std::borrow::Cow;

/// Text is judged by this much of the beginning, as in libmagic.
pub(super) const LOOK: usize = 64 << 10;
/// Lines longer than this are "very long".
const LONG_LINE: usize = 300;

/// Encodings that count as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Ascii,
    Utf8Bom,
    Utf8,
    Utf16Le,
    Utf16Be,
    Latin1,
    Extended,
}

/// A text: its encoding and its first characters.
#[derive(Debug)]
pub(super) struct Text<'a> {
    pub(super) encoding: Encoding,
    chars: Chars<'a>,
}

/// Characters, in place where the encoding allows it.
#[derive(Debug)]
enum Chars<'a> {
    /// ASCII and UTF-8.
    Str(&'a str),
    /// One byte each.
    Bytes(&'a [u8]),
    /// Decoded.
    Decoded(Vec<char>),
}

impl Chars<'_> {
    fn line_ends(&self) -> LineEnds {
        match self {
            Self::Str(text) => LineEnds::count(text.chars()),
            Self::Bytes(bytes) => LineEnds::count(bytes.iter().map(|byte| char::from(*byte))),
            Self::Decoded(chars) => LineEnds::count(chars.iter().copied()),
        }
    }

    /// `c` is ASCII.
    fn contains(&self, c: u8) -> bool {
        match self {
            Self::Str(text) => text.as_bytes().contains(&c),
            Self::Bytes(bytes) => bytes.contains(&c),
            Self::Decoded(chars) => chars.contains(&char::from(c)),
        }
    }
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Encoding::Ascii => "ASCII",
            Encoding::Utf8Bom => "Unicode text, UTF-8 (with BOM)",
            Encoding::Utf8 => "Unicode text, UTF-8",
            Encoding::Utf16Le => "Unicode text, UTF-16, little-endian",
            Encoding::Utf16Be => "Unicode text, UTF-16, big-endian",
            Encoding::Latin1 => "ISO-8859",
            Encoding::Extended => "Non-ISO extended-ASCII",
        }
    }
}

impl<'a> Text<'a> {
    /// The text that a file with this beginning is, or `None` for data.
    pub(super) fn of(head: &'a [u8]) -> Option<Self> {
        let mut look = head.get(..LOOK).unwrap_or(head);
        if look.len() == head.len() {
            let end = look.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            // A trailing zero byte may be half of a UTF-16 unit.
            let end = if look.len().is_multiple_of(2) { end.next_multiple_of(2) } else { end };
            look = look.get(..end).unwrap_or(look);
        }
        if look.is_empty() {
            return None;
        }
        let (encoding, chars) = detect(look)?;
        Some(Self { encoding, chars })
    }

    /// libmagic's words for it, as `ASCII text, with CRLF line terminators`.
    pub(super) fn line(&self) -> String {
        let ends = self.chars.line_ends();
        let mut line = format!("{} text", self.encoding.name());
        if ends.longest > LONG_LINE {
            line.push_str(&format!(", with very long lines ({})", ends.longest));
        }
        line.push_str(&ends.words());
        if self.chars.contains(0x1b) {
            line.push_str(", with escape sequences");
        }
        if self.chars.contains(0x08) {
            line.push_str(", with overstriking");
        }
        line
    }

    /// The first characters in ASCII or UTF-8, for rules that know nothing else.
    ///
    /// Single-byte encodings keep their offsets: each high byte becomes one `?`.
    pub(super) fn plain(&self) -> Cow<'a, str> {
        match &self.chars {
            Chars::Str(text) => Cow::Borrowed(text),
            Chars::Bytes(bytes) => {
                bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect()
            }
            Chars::Decoded(chars) => chars.iter().copied().collect(),
        }
    }
}

fn detect(look: &[u8]) -> Option<(Encoding, Chars<'_>)> {
    if let Some(text) = utf8(look.strip_prefix(b"\xef\xbb\xbf").unwrap_or(look)) {
        let encoding = match look.starts_with(b"\xef\xbb\xbf") {
            true => Encoding::Utf8Bom,
            false if look.is_ascii() => Encoding::Ascii,
            false => Encoding::Utf8,
        };
        return Some((encoding, Chars::Str(text)));
    }
    if let Some(units) = look.strip_prefix(b"\xff\xfe") {
        return utf16(units, u16::from_le_bytes).map(|chars| (Encoding::Utf16Le, Chars::Decoded(chars)));
    }
    if let Some(units) = look.strip_prefix(b"\xfe\xff") {
        return utf16(units, u16::from_be_bytes).map(|chars| (Encoding::Utf16Be, Chars::Decoded(chars)));
    }
    if look.iter().all(|byte| is_plain(*byte) || *byte >= 0xa0) {
        return Some((Encoding::Latin1, Chars::Bytes(look)));
    }
    if look.iter().all(|byte| is_plain(*byte) || *byte >= 0x80) {
        return Some((Encoding::Extended, Chars::Bytes(look)));
    }
    None
}

/// Bytes of plain text: printable, BEL to CR, and escape. DEL is none.
fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x07..=0x0d | 0x1b | 0x20..=0x7e)
}

/// UTF-8 without control characters; a character cut off at the end does not count.
fn utf8(look: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(look) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(look.get(..error.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    text.bytes().all(|byte| byte >= 0x80 || is_plain(byte)).then_some(text)
}

/// UTF-16 after its byte-order mark, without control characters.
fn utf16(units: &[u8], from_bytes: fn([u8; 2]) -> u16) -> Option<Vec<char>> {
    let (units, _half) = units.as_chunks::<2>();
    let mut chars = Vec::with_capacity(units.len());
    for c in char::decode_utf16(units.iter().map(|unit| from_bytes(*unit))) {
        let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
        let control = u8::try_from(c).is_ok_and(|byte| byte < 0x80 && !is_plain(byte));
        if control || c == '\u{fffe}' || c == '\u{ffff}' {
            return None;
        }
        chars.push(c);
    }
    Some(chars)
}

/// How lines end, and how long the longest is.
#[derive(Default)]
struct LineEnds {
    lf: bool,
    crlf: bool,
    cr: bool,
    nel: bool,
    longest: usize,
}

impl LineEnds {
    fn count(chars: impl Iterator<Item = char>) -> Self {
        let mut ends = Self::default();
        let mut after_cr = false;
        let mut line_start = 0;
        for (at, c) in chars.enumerate() {
            match c {
                '\n' if after_cr => ends.crlf = true,
                '\n' => ends.lf = true,
                _ if after_cr => ends.cr = true,
                _ => {}
            }
            after_cr = c == '\r';
            ends.nel |= c == '\u{85}';
            if matches!(c, '\n' | '\r' | '\u{85}') {
                line_start = at + 1;
            }
            ends.longest = ends.longest.max((at + 1).saturating_sub(line_start));
        }
        ends
    }

    /// Named only when there is one other than LF, or none at all.
    fn words(&self) -> String {
        let named = [(self.crlf, "CRLF"), (self.cr, "CR"), (self.lf, "LF"), (self.nel, "NEL")];
        let names: Vec<&str> = named.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        match names.as_slice() {
            [] => ", with no line terminators".into(),
            ["LF"] => String::new(),
            names => format!(", with {} line terminators", names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: &[u8]) -> Option<String> {
        Text::of(bytes).map(|text| text.line())
    }

    #[test]
    fn encodings_are_told_apart() {
        for (bytes, want) in [
            (&b"one\n"[..], Some("ASCII text")),
            (b"one", Some("ASCII text, with no line terminators")),
            (b"a\r\nb\r\n", Some("ASCII text, with CRLF line terminators")),
            (b"a\r\nb\n", Some("ASCII text, with CRLF, LF line terminators")),
            (b"\x1b[1mbold\n", Some("ASCII text, with escape sequences")),
            ("h\u{e9}llo\n".as_bytes(), Some("Unicode text, UTF-8 text")),
            (b"\xef\xbb\xbfx\n", Some("Unicode text, UTF-8 (with BOM) text")),
            (b"h\xe9llo\n", Some("ISO-8859 text")),
            (b"h\x93llo\n", Some("Non-ISO extended-ASCII text")),
            (b"\xff\xfeh\0i\0\n\0", Some("Unicode text, UTF-16, little-endian text")),
            (b"\xfe\xff\0h\0i\0\n", Some("Unicode text, UTF-16, big-endian text")),
            (b"text\n\0\0", Some("ASCII text")),
            (b"text\n\0\0\0", None),
            (b"te\0xt\n", None),
            (b"\0\0\0\0", None),
            (b"", None),
            (b"\xff\xfe\x01\0\x02\0", None),
        ] {
            assert_eq!(line(bytes).as_deref(), want, "{bytes:?}");
        }
    }

    #[test]
    fn long_lines_are_named_with_their_length() {
        let mut text = b"\n".to_vec();
        text.extend([b'x'; 400]);
        text.push(b'\n');
        assert_eq!(line(&text).as_deref(), Some("ASCII text, with very long lines (400)"));
    }

    #[test]
    fn a_character_cut_at_the_end_of_the_look_is_no_reason_for_data() {
        let mut text = vec![b'x'; LOOK - 1];
        text.extend("\u{e9}".as_bytes());
        text.push(b'\n');
        assert_eq!(Text::of(&text).unwrap().encoding, Encoding::Utf8);
    }
}
