//! A second, independent opinion on a file's mime, for a metric and nothing else.
//!
//! It never changes an identification.

use std::panic::catch_unwind;

use file_format::FileFormat;

use super::{HEAD_LEN, Identification};

/// The mime that `file-format` gives for the beginning of a file, or `None` where it has no opinion.
pub fn second_opinion(head: &[u8]) -> Option<String> {
    let head = head.get(..HEAD_LEN).unwrap_or(head);
    let format = catch_unwind(|| FileFormat::from_bytes(head)).ok()?;
    let none = matches!(format, FileFormat::ArbitraryBinaryData | FileFormat::Empty);
    (!none).then(|| format.media_type().to_owned())
}

/// Whether the second opinion names another kind of file than `identification` does.
///
/// Different names for one thing (`application/x-foo`, `application/foo`, `application/vnd.foo`) and a missing opinion on
/// either side are no disagreement. Into a ZIP archive it does not look, so that it is one is no opinion either.
pub fn disagrees(identification: &Identification, head: &[u8]) -> bool {
    let Some(other) = second_opinion(head) else { return false };
    let (own, other) = (essence(&identification.mime), essence(&other));
    let vague = |mime: &(String, String)| matches!(mime.1.as_str(), "octet-stream" | "zip") || mime.0 == "text";
    !vague(&own) && !vague(&other) && own.1 != other.1
}

/// Type and bare subtype.
fn essence(mime: &str) -> (String, String) {
    let mime = mime.to_ascii_lowercase();
    let (kind, subtype) = mime.split_once('/').unwrap_or((mime.as_str(), ""));
    let subtype = subtype.split(';').next().unwrap_or_default().trim();
    let bare = ["x-", "vnd."].iter().find_map(|prefix| subtype.strip_prefix(prefix)).unwrap_or(subtype);
    (kind.into(), bare.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(mime: &str) -> Identification {
        Identification { mime: mime.into(), magic: String::new(), file_format: String::new(), file_extension: None }
    }

    #[test]
    fn opinions_are_compared_by_meaning() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
        assert_eq!(second_opinion(png).as_deref(), Some("image/png"));
        assert!(disagrees(&called("application/gzip"), png));
        assert!(!disagrees(&called("image/x-png"), png));
        assert!(!disagrees(&called("application/octet-stream"), png));
        assert!(!disagrees(&called("application/gzip"), b"\x01\x02\x03\x04"));
        let zip = b"PK\x03\x04\x14\0\0\0\0\0";
        assert!(!disagrees(&called("application/vnd.openxmlformats-officedocument.wordprocessingml.document"), zip));
    }

    /// One file, of which the directory says that it has four gigabytes less one byte, as many as it says are stored.
    #[test]
    fn nothing_is_reserved_for_what_an_archive_claims_to_hold() {
        let mut entry = b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        entry.extend([0xff; 8]);
        entry.extend(8_u16.to_le_bytes());
        entry.resize(46, 0);
        entry.extend(b"mimetype");
        let local = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0mimetype";
        let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
        end.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
        end.extend(u32::try_from(local.len()).unwrap().to_le_bytes());
        end.extend([0, 0]);
        let bomb = [&local[..], &entry, &end].concat();
        assert_eq!(second_opinion(&bomb).as_deref(), Some("application/zip"));
    }
}
