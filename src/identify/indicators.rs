//! Indicators: patterns in the head that may replace a weak first type (streams.md 8.4).
//!
//! Called by `Identifier::identify` after the trusted mimes.

const EMAIL: &str = "document/email";
const RTF: &str = "document/office/rtf";
const BIOPSY: &str = "meta/memory/biopsy";

/// Every type an indicator can give.
#[cfg(test)]
pub(super) const TYPES: [&str; 3] = [EMAIL, RTF, BIOPSY];

/// A strong pattern alone is enough.
const STRONG: usize = 15;
/// Occurrences of one pattern that count.
const COUNTED: usize = 100;

/// OLE signature of a saved mail.
const OLE: &[u8] = b"\xd0\xcf\x11";
/// Read as UTF-16LE between the signature and the first newline byte.
const OLE_MARKS: [&str; 6] = ["xchange", "_recip_version1", "_attach_version1", "x-ms-tnef", "SMTP", "IPM.Note"];
/// Mail headers; they count only where some character other than a newline stands before them.
const HEADERS: [&[u8]; 3] = [b"From: ", b"To: ", b"Subject: "];
/// The same, with one more character behind.
const VERSION_HEADERS: [&[u8]; 2] = [b"Mime-Version: 1", b"MIME-Version: 1"];

const RTF_WORDS: [&[u8]; 12] = [
    b"\\lsdpriority",
    b"\\lsdlocked",
    b"\\lsdqformat",
    b"\\lsdsemihidden",
    b"\\listlevel",
    b"\\leveltemplateid",
    b"\\theme",
    b"\\wrapdefault",
    b"{\\revtim",
    b"{\\creatim",
    b"{\\leveltext",
    b"{\\object",
];

/// The type that the head indicates, if the current type leaves room for one.
pub(super) fn indicated(current: &str, head: &[u8]) -> Option<&'static str> {
    let unknown = current == "unknown";
    let scored = [
        (EMAIL, if unknown { email(head) } else { 0 }),
        (RTF, if unknown || current == "text/plain" { rtf(head) } else { 0 }),
        (BIOPSY, if unknown && head.starts_with(b"HBS_SECTUS_BIOPSY:") { STRONG } else { 0 }),
    ];
    // The first of equals wins, so the last one in reverse.
    let (file_type, score) = scored.into_iter().rev().max_by_key(|(_, score)| *score)?;
    (score >= STRONG).then_some(file_type)
}

fn email(head: &[u8]) -> usize {
    let ole = if head.starts_with(OLE) {
        let before_newline = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let wide = |mark: &&&str| {
            let units: Vec<u8> = mark.encode_utf16().flat_map(u16::to_le_bytes).collect();
            count(before_newline, &units, |_, _| true) > 0
        };
        OLE_MARKS.iter().filter(wide).count()
    } else {
        0
    };
    let inline = |before: Option<&u8>, _: Option<&u8>| before.is_some_and(|byte| *byte != b'\n');
    let headers: usize = HEADERS.iter().map(|header| count(head, header, inline)).sum();
    let versioned =
        |before: Option<&u8>, after: Option<&u8>| inline(before, after) && after.is_some_and(|byte| *byte != b'\n');
    let versions: usize = VERSION_HEADERS.iter().map(|header| count(head, header, versioned)).sum();
    (ole + headers + versions) * STRONG
}

fn rtf(head: &[u8]) -> usize {
    let strong = head.strip_prefix(b"{\\").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"rt"));
    let weak: usize = RTF_WORDS.iter().map(|word| count(head, word, |_, _| true)).sum();
    usize::from(strong) * STRONG + weak
}

/// Occurrences of `pattern` whose neighbours suit, at most [`COUNTED`].
fn count(head: &[u8], pattern: &[u8], suits: impl Fn(Option<&u8>, Option<&u8>) -> bool) -> usize {
    let neighbours = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| head.get(before));
        (before, head.get(at + pattern.len()))
    };
    let places = memchr::memmem::find_iter(head, pattern).map(neighbours);
    places.filter(|(before, after)| suits(*before, *after)).take(COUNTED).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_count_only_inside_a_line() {
        assert_eq!(indicated("unknown", b"xFrom: a"), Some(EMAIL));
        assert_eq!(indicated("unknown", b"From: a\nTo: b\nSubject: c"), None);
        assert_eq!(indicated("text/plain", b"xFrom: a"), None);
        assert_eq!(indicated("unknown", b".MIME-Version: 1"), None);
        assert_eq!(indicated("unknown", b".MIME-Version: 1\n"), None);
        assert_eq!(indicated("unknown", b".MIME-Version: 1.0"), Some(EMAIL));
    }

    #[test]
    fn saved_mail_is_told_by_wide_marks_before_the_first_newline() {
        let wide: Vec<u8> = "SMTP".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = [OLE, &b"\0\0"[..], &wide].concat();
        assert_eq!(indicated("unknown", &marked), Some(EMAIL));
        assert_eq!(indicated("unknown", &[OLE, &b"\n"[..], &wide].concat()), None);
    }

    #[test]
    fn rtf_needs_its_start_or_fifteen_words() {
        assert_eq!(indicated("text/plain", b"{\\ \t rtx"), Some(RTF));
        assert_eq!(indicated("unknown", &b"\\theme".repeat(14)), None);
        assert_eq!(indicated("unknown", &[&b"\\theme".repeat(14)[..], b"{\\object"].concat()), Some(RTF));
        assert_eq!(indicated("document/pdf", b"{\\rtf1"), None);
    }

    #[test]
    fn the_best_score_wins_and_the_first_of_equals() {
        assert_eq!(indicated("unknown", b"{\\rtf xTo: "), Some(EMAIL));
        assert_eq!(indicated("unknown", b"{\\rtf xTo: \\theme"), Some(RTF));
        assert_eq!(indicated("unknown", b"HBS_SECTUS_BIOPSY: 1"), Some(BIOPSY));
    }
}
