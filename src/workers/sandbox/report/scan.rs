//! A report as a stream: read once, told value by value, copied without what is to be left out.
//!
//! Memory does not grow with the report: what is held is the path to the value at hand and that value. Sandboxes write
//! `NaN` and infinities, which are no JSON; the copy has `null` there.

use std::io::{self, Read, Write};

use serde::de::IgnoredAny;

/// Lists and objects inside one another.
const DEPTH_MAX: usize = 128;
/// Bytes of one text; the rest is left out, of the copy too.
const TEXT_MAX_BYTES: usize = 8 << 20;
/// Bytes of one name of a member, and of a number.
const NAME_MAX_BYTES: usize = 1024;
const BUFFER_BYTES: usize = 128 << 10;

/// One step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    /// An element of a list, whichever.
    Item,
}

impl Step {
    /// The name of the member, `[]` for an element.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Key(name) => name,
            Self::Item => "[]",
        }
    }
}

/// A value that holds no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar<'a> {
    Text(&'a str),
    /// As it is written.
    Number(&'a str),
    Bool(bool),
    Null,
}

/// Who is told of values.
pub(crate) trait Sink {
    /// True when what begins at `path` is left out: it is not told of, and not copied.
    fn leaves_out(&mut self, path: &[Step]) -> bool;
    /// A value.
    fn scalar(&mut self, path: &[Step], value: Scalar<'_>);
    /// The list or object at `path` is over.
    fn closed(&mut self, path: &[Step]);
}

/// Why a report was not read to its end. What was told until then is true.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("no JSON at byte {at}: {what}")]
    Syntax { at: u64, what: &'static str },
    #[error("nested deeper than {DEPTH_MAX} at byte {at}")]
    TooDeep { at: u64 },
    #[error("the copy cannot be written: {0}")]
    Write(io::Error),
    #[error("cannot be read: {0}")]
    Read(io::Error),
}

/// Reads one JSON value from `input`, tells `sink` of all in it, and writes what is not left out to `output`. The number of
/// texts that were cut.
///
/// # Errors
/// [`ScanError`]; `output` then holds a part.
pub(crate) fn scan(input: &mut dyn Read, output: &mut dyn Write, sink: &mut dyn Sink) -> Result<u64, ScanError> {
    let mut scanner = Scanner { input: Input::new(input), output, sink, path: Vec::new(), open: Vec::new(), cut: 0 };
    scanner.run()?;
    Ok(scanner.cut)
}

struct Scanner<'a> {
    input: Input<'a>,
    output: &'a mut dyn Write,
    sink: &'a mut dyn Sink,
    path: Vec<Step>,
    open: Vec<Open>,
    cut: u64,
}

/// A list or object that is being read.
struct Open {
    is_object: bool,
    /// Whether it is copied and told of.
    wanted: bool,
    /// How many of its values were copied.
    copied: u64,
}

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), ScanError> {
        self.value()?;
        while !self.open.is_empty() {
            match self.input.next_visible()? {
                b',' => {
                    self.enter()?;
                    self.value()?;
                }
                end @ (b'}' | b']') => self.close(end)?,
                _ => return Err(self.input.fault("a comma or the end is missing")),
            }
        }
        if self.input.skip_space()?.is_some() {
            return Err(self.input.fault("something behind the end"));
        }
        self.output.flush().map_err(ScanError::Write)
    }

    /// Puts the step to the next value of the innermost list or object on the path.
    fn enter(&mut self) -> Result<(), ScanError> {
        if !self.open.last().is_some_and(|open| open.is_object) {
            self.path.push(Step::Item);
            return Ok(());
        }
        if self.input.next_visible()? != b'"' {
            return Err(self.input.fault("a name is missing"));
        }
        let (name, _) = self.input.text(NAME_MAX_BYTES)?;
        if self.input.next_visible()? != b':' {
            return Err(self.input.fault("a colon is missing"));
        }
        self.path.push(Step::Key(name));
        Ok(())
    }

    /// Reads a value, or the beginning of a list or object and its first value, and so on.
    fn value(&mut self) -> Result<(), ScanError> {
        loop {
            let byte = self.input.next_visible()?;
            let wanted = self.open.last().is_none_or(|open| open.wanted) && !self.sink.leaves_out(&self.path);
            if wanted {
                self.separate()?;
            }
            match byte {
                b'{' | b'[' => {
                    if self.open.len() >= DEPTH_MAX {
                        return Err(ScanError::TooDeep { at: self.input.at });
                    }
                    self.write(wanted, &[byte])?;
                    self.open.push(Open { is_object: byte == b'{', wanted, copied: 0 });
                    match self.input.skip_space()? {
                        Some(end @ (b'}' | b']')) => {
                            self.input.next_visible()?;
                            return self.close(end);
                        }
                        _ => self.enter()?,
                    }
                }
                b'"' => {
                    let (text, is_cut) = self.input.text(TEXT_MAX_BYTES)?;
                    if wanted {
                        self.cut += u64::from(is_cut);
                        self.sink.scalar(&self.path, Scalar::Text(&text));
                        let written = serde_json::to_writer(&mut *self.output, &text);
                        written.map_err(|error| ScanError::Write(error.into()))?;
                    }
                    self.path.pop();
                    return Ok(());
                }
                first => return self.word(first, wanted),
            }
        }
    }

    /// Numbers and the words without quotes.
    fn word(&mut self, first: u8, wanted: bool) -> Result<(), ScanError> {
        let word = self.input.word(first)?;
        let value = match word.as_str() {
            "true" => Scalar::Bool(true),
            "false" => Scalar::Bool(false),
            "null" | "NaN" | "Infinity" | "-Infinity" | "nan" | "inf" | "-inf" => Scalar::Null,
            number if serde_json::from_str::<IgnoredAny>(number).is_ok() => Scalar::Number(number),
            _ => return Err(self.input.fault("no value")),
        };
        if wanted {
            self.sink.scalar(&self.path, value);
        }
        let copy = if value == Scalar::Null { "null" } else { &word };
        self.write(wanted, copy.as_bytes())?;
        self.path.pop();
        Ok(())
    }

    fn close(&mut self, end: u8) -> Result<(), ScanError> {
        let open = self.open.pop().filter(|open| open.is_object == (end == b'}'));
        let open = open.ok_or_else(|| self.input.fault("the wrong end"))?;
        self.write(open.wanted, &[end])?;
        if open.wanted {
            self.sink.closed(&self.path);
        }
        self.path.pop();
        Ok(())
    }

    /// Writes what stands before a value: a comma, a name.
    fn separate(&mut self) -> Result<(), ScanError> {
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        if open.copied > 0 {
            self.output.write_all(b",").map_err(ScanError::Write)?;
        }
        open.copied += 1;
        if let Some(Step::Key(name)) = self.path.last() {
            serde_json::to_writer(&mut *self.output, name).map_err(|error| ScanError::Write(error.into()))?;
            self.output.write_all(b":").map_err(ScanError::Write)?;
        }
        Ok(())
    }

    fn write(&mut self, wanted: bool, bytes: &[u8]) -> Result<(), ScanError> {
        if wanted { self.output.write_all(bytes).map_err(ScanError::Write) } else { Ok(()) }
    }
}

/// Bytes, one at a time.
struct Input<'a> {
    inner: &'a mut dyn Read,
    buffer: Vec<u8>,
    next: usize,
    end: usize,
    /// How many bytes were taken.
    at: u64,
}

impl<'a> Input<'a> {
    fn new(inner: &'a mut dyn Read) -> Self {
        Self { inner, buffer: vec![0; BUFFER_BYTES], next: 0, end: 0, at: 0 }
    }

    fn fault(&self, what: &'static str) -> ScanError {
        ScanError::Syntax { at: self.at, what }
    }

    fn peek(&mut self) -> Result<Option<u8>, ScanError> {
        while self.next >= self.end {
            match self.inner.read(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => (self.next, self.end) = (0, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ScanError::Read(error)),
            }
        }
        Ok(self.buffer.get(self.next).copied())
    }

    fn take(&mut self) -> Result<u8, ScanError> {
        let byte = self.peek()?.ok_or_else(|| self.fault("it breaks off"))?;
        self.next += 1;
        self.at += 1;
        Ok(byte)
    }

    /// The next byte that is no white space, not taken.
    fn skip_space(&mut self) -> Result<Option<u8>, ScanError> {
        loop {
            match self.peek()? {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.take().map(|_| ())?,
                other => return Ok(other),
            }
        }
    }

    fn next_visible(&mut self) -> Result<u8, ScanError> {
        self.skip_space()?;
        self.take()
    }

    /// The rest of a word that begins with `first`.
    fn word(&mut self, first: u8) -> Result<String, ScanError> {
        let mut word = String::from(char::from(first));
        while let Some(byte) = self.peek()? {
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')) {
                break;
            }
            self.take()?;
            word.push(char::from(byte));
            if word.len() > NAME_MAX_BYTES {
                return Err(self.fault("a word without end"));
            }
        }
        Ok(word)
    }

    /// The rest of a text behind its first quote, at most `limit` bytes of it, and whether that is less than there was.
    fn text(&mut self, limit: usize) -> Result<(String, bool), ScanError> {
        let mut bytes = Vec::new();
        let mut is_cut = false;
        loop {
            let byte = self.take()?;
            let mut utf8 = [0; 4];
            let piece: &[u8] = match byte {
                b'"' => break,
                b'\\' => self.escaped()?.encode_utf8(&mut utf8).as_bytes(),
                _ => &[byte],
            };
            if bytes.len() + piece.len() > limit {
                is_cut = true;
            } else if !is_cut {
                bytes.extend_from_slice(piece);
            }
        }
        let text =
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Ok((text, is_cut))
    }

    fn escaped(&mut self) -> Result<char, ScanError> {
        Ok(match self.take()? {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code_point(),
            other if other.is_ascii() => char::from(other),
            _ => return Err(self.fault("no such escape")),
        })
    }

    /// Half a pair of surrogates becomes U+FFFD; what follows a first half that has no second one is lost with it.
    fn code_point(&mut self) -> Result<char, ScanError> {
        let first = self.four_digits()?;
        if !(0xD800..0xDC00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if self.peek()? != Some(b'\\') {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        self.take()?;
        if self.peek()? != Some(b'u') {
            return self.escaped();
        }
        self.take()?;
        let second = self.four_digits()?;
        if !(0xDC00..0xE000).contains(&second) {
            return Ok(char::from_u32(second).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let joined = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        Ok(char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn four_digits(&mut self) -> Result<u32, ScanError> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = char::from(self.take()?).to_digit(16).ok_or_else(|| self.fault("no hexadecimal digit"))?;
            number = number * 16 + digit;
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Told {
        lines: Vec<String>,
        leave_out: Option<&'static str>,
    }

    fn joined(path: &[Step]) -> String {
        path.iter().map(Step::name).collect::<Vec<_>>().join(".")
    }

    impl Sink for Told {
        fn leaves_out(&mut self, path: &[Step]) -> bool {
            self.leave_out.is_some_and(|left| joined(path) == left)
        }
        fn scalar(&mut self, path: &[Step], value: Scalar<'_>) {
            self.lines.push(format!("{} {value:?}", joined(path)));
        }
        fn closed(&mut self, path: &[Step]) {
            self.lines.push(format!("{} end", joined(path)));
        }
    }

    fn run(text: &[u8], leave_out: Option<&'static str>) -> (Result<u64, ScanError>, String, Vec<String>) {
        let mut told = Told { leave_out, ..Told::default() };
        let mut copy = Vec::new();
        let done = scan(&mut &text[..], &mut copy, &mut told);
        (done, String::from_utf8(copy).unwrap(), told.lines)
    }

    #[test]
    fn values_are_told_with_their_paths_and_copied() {
        let text = br#" {"a" : [1, {"b": "x\u0041\ud83d\ude00"} , []], "c": {}, "d": true, "e": null} "#;
        let (done, copy, told) = run(text, None);
        assert_eq!(done.unwrap(), 0);
        assert_eq!(copy, "{\"a\":[1,{\"b\":\"xA\u{1f600}\"},[]],\"c\":{},\"d\":true,\"e\":null}");
        let expected = [
            "a.[] Number(\"1\")",
            "a.[].b Text(\"xA\u{1f600}\")",
            "a.[] end",
            "a.[] end",
            "a end",
            "c end",
            "d Bool(true)",
            "e Null",
            " end",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_left_out_is_neither_told_nor_copied() {
        let (done, copy, told) = run(br#"{"a":[1,[2],{"x":3}],"b":4}"#, Some("a.[]"));
        done.unwrap();
        assert_eq!(
            (copy.as_str(), told),
            ("{\"a\":[],\"b\":4}", vec!["a end".to_owned(), "b Number(\"4\")".to_owned(), " end".to_owned()])
        );
        let (_, copy, _) = run(br#"{"a":[1,2],"b":4}"#, Some("a"));
        assert_eq!(copy, "{\"b\":4}");
    }

    #[test]
    fn numbers_that_json_does_not_have_become_null() {
        let (done, copy, _) = run(b"[NaN, -Infinity, Infinity, 1e999, 123456789012345678901234567890]", None);
        done.unwrap();
        assert_eq!(copy, "[null,null,null,1e999,123456789012345678901234567890]");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let (done, copy, _) = run(b"[\"a\xff\x01\", \"\\ud800x\", \"\\udc00\", \"\\ud800\\n\"]", None);
        done.unwrap();
        assert_eq!(copy, "[\"a\u{fffd}\\u0001\",\"\u{fffd}x\",\"\u{fffd}\",\"\\n\"]");
    }

    #[test]
    fn long_texts_are_cut_and_counted() {
        let text = format!("[\"{}\"]", "x".repeat(TEXT_MAX_BYTES + 5));
        let (done, copy, _) = run(text.as_bytes(), None);
        assert_eq!((done.unwrap(), copy.len()), (1, TEXT_MAX_BYTES + 4));
    }

    #[test]
    fn broken_reports_are_refused_without_a_panic() {
        for bad in [
            &b""[..],
            b"{",
            b"[1",
            b"[1 2]",
            b"{\"a\"}",
            b"{\"a\":1,}",
            b"[1]]",
            b"{]",
            b"[}",
            b"nul",
            b"[01]",
            b"\"\\u12",
            b"\"\\u12x4\"",
            b"{a:1}",
            b"[,]",
            b"\xff",
            b"[1,",
            b"--1",
        ] {
            let (done, _, _) = run(bad, None);
            assert!(matches!(done, Err(ScanError::Syntax { .. })), "{}: {done:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn deep_nesting_is_refused_in_constant_memory() {
        for open in ["[", "{\"a\":"] {
            let (done, _, _) = run(open.repeat(2_000_000).as_bytes(), None);
            assert!(matches!(done, Err(ScanError::TooDeep { .. })), "{done:?}");
        }
        let deepest = "[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX);
        let (done, copy, _) = run(deepest.as_bytes(), None);
        assert_eq!((done.unwrap(), copy), (0, deepest));
    }

    #[test]
    fn every_beginning_of_a_report_is_read_or_refused() {
        let text = br#"{"a":["x\n\u0041",1.5e3,{"b":null}],"c":NaN}"#;
        for length in 0..text.len() {
            let (done, _, _) = run(&text[..length], None);
            assert!(done.is_err(), "{length}");
        }
    }
}
