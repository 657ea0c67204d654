//! Values of flags that are more than text.

use crate::dispatcher::model::Timestamp;

/// Bytes that were given as text with escapes.
pub type Escaped = std::sync::Arc<[u8]>;

/// A topic, or one partition of it. Names of topics hold no colon.
pub(super) fn topic_partition(text: &str) -> Result<(String, Option<i32>), String> {
    let (topic, partition) = text.split_once(':').map_or((text, None), |(topic, index)| (topic, Some(index)));
    if topic.is_empty() {
        return Err("must be the name of a topic, or TOPIC:PARTITION".to_owned());
    }
    let index = |text: &str| text.parse().ok().filter(|index| *index >= 0);
    let partition = partition.map(|text| index(text).ok_or("the partition must be a number from 0 on")).transpose()?;
    Ok((topic.to_owned(), partition))
}

/// Text with `\n`, `\t`, `\r`, `\0`, `\\` and `\xNN`.
pub(super) fn unescaped(text: &str) -> Result<Escaped, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = match escape.as_bytes() {
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'r', ..] => (b'\r', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', ..] => {
                let byte = escape.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.ok_or("behind \\x two hexadecimal digits are needed")?, 3)
            }
            _ => return Err("a backslash goes before n, t, r, 0, x or another one".to_owned()),
        };
        bytes.push(byte);
        rest = escape.get(length..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes.into())
}

pub(super) fn unescaped_some(text: &str) -> Result<Escaped, String> {
    unescaped(text).and_then(|bytes| if bytes.is_empty() { Err("must not be empty".to_owned()) } else { Ok(bytes) })
}

/// A count of which 0 would mean nothing.
pub(super) fn at_least_one(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "must be a whole number from 1 on".to_owned())
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

/// A hash in lower case, as everything is stored.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    let fits = text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if fits { Ok(text.to_ascii_lowercase()) } else { Err("must be 64 hexadecimal digits".to_owned()) }
}

pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    crate::config::parse_duration(text)
}

/// Milliseconds since 1970 of a time, or of how long ago something was.
pub(super) fn since(text: &str) -> Result<i64, String> {
    if let Ok(time) = Timestamp::parse(text) {
        return Ok(time.millis());
    }
    let ago =
        duration(text).map_err(|_| "must be a time such as 2026-01-02T03:04:05Z, or how long ago, such as 12h")?;
    Ok(azulite_storage::clock::now_ms().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
}
