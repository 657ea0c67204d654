//! Free-form JSON inside events: kept as its text, looked at only to tell what kind of value it is.

use std::fmt;
use std::ops::Deref;

use serde::de::IgnoredAny;

/// Nesting of free-form JSON beyond this makes an event unreadable; common parsers give up at 200 for a whole answer.
pub const MAX_JSON_DEPTH: usize = 128;

/// Free-form JSON carried as its text, white space included; empty means absent.
///
/// Text that came in JSON is valid JSON. Text that came in Avro is whatever the writer put there, so whoever needs
/// it to be JSON asks [`super::unreadable`] first.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct JsonTextOf<B>(B);

/// See [`JsonTextOf`].
pub type JsonText = JsonTextOf<Vec<u8>>;

/// What a [`JsonTextOf`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonKind {
    /// No text, or `null`.
    Absent,
    Object,
    /// Another value, by name.
    Other(&'static str),
}

/// Why a [`JsonTextOf`] cannot be written into JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonFault {
    NotJson,
    TooDeep,
}

impl<B: Deref<Target = [u8]>> JsonTextOf<B> {
    /// Takes the bytes as they are.
    pub fn new(text: impl Into<B>) -> Self {
        Self(text.into())
    }

    /// The bytes as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True when the member is absent.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it holds, after a look at all of it.
    pub(super) fn kind(&self) -> Result<JsonKind, JsonFault> {
        if self.0.is_empty() {
            return Ok(JsonKind::Absent);
        }
        let text = std::str::from_utf8(&self.0).map_err(|_| JsonFault::NotJson)?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| JsonFault::NotJson)?;
        if depth(&self.0) > MAX_JSON_DEPTH {
            return Err(JsonFault::TooDeep);
        }
        Ok(match self.0.trim_ascii_start().first() {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::Other("a list"),
            Some(b'"') => JsonKind::Other("a string"),
            Some(b't' | b'f') => JsonKind::Other("a boolean"),
            Some(b'n') => JsonKind::Absent,
            _ => JsonKind::Other("a number"),
        })
    }
}

impl<B: Deref<Target = [u8]>> fmt::Debug for JsonTextOf<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonText({})", String::from_utf8_lossy(&self.0))
    }
}

/// How deep the lists and objects of a valid JSON text are nested.
fn depth(text: &[u8]) -> usize {
    let (mut now, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let kind = |text: &str| JsonText::new(text).kind();
        assert_eq!(kind(""), Ok(JsonKind::Absent));
        assert_eq!(kind(" null "), Ok(JsonKind::Absent));
        assert_eq!(kind("\n{\"a\":[1]}"), Ok(JsonKind::Object));
        assert_eq!(kind("[1]"), Ok(JsonKind::Other("a list")));
        assert_eq!(kind("-1.5"), Ok(JsonKind::Other("a number")));
        assert_eq!(kind("{\"a\":1} x"), Err(JsonFault::NotJson));
        assert_eq!(JsonText::new(vec![b'"', 0xff, b'"']).kind(), Err(JsonFault::NotJson));
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert_eq!(depth(br#"{"a[[":["\"[",{}]}"#), 3);
        let nested = |levels: usize| JsonText::new("[".repeat(levels) + &"]".repeat(levels)).kind();
        assert_eq!(nested(MAX_JSON_DEPTH), Ok(JsonKind::Other("a list")));
        assert_eq!(nested(MAX_JSON_DEPTH + 1), Err(JsonFault::TooDeep));
        assert_eq!(nested(2_000_000), Err(JsonFault::TooDeep));
    }
}
