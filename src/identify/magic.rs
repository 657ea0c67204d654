//! The two ordered lists that everything else is decided from: magic lines and mime lines (streams.md 8.1 step 1).
//!
//! Called by `Identifier::identify`. `pure-magic` gives all matches, strongest first; four corrections bring them nearer
//! to libmagic 5.47 (streams.md 12.1): texts in other encodings, position-independent executables, files of one byte,
//! and secondary lines of INI and XML files.

use std::io::{self, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;

use super::elf;
use super::engine::Engine;
use super::text::{LOOK, Text};
use super::view::View;

/// Longest time the engine may take over one file.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(10);
/// A magic line is cut here; libmagic's are shorter.
const LINE_MAX: usize = 2048;
/// More lines than this say nothing new.
const LINES_MAX: usize = 128;

/// What the magic engine says about one file, strongest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Descriptions.
    pub magics: Vec<String>,
    /// Mime names.
    pub mimes: Vec<String>,
}

/// Lines for a file of `size` bytes that begins with `head`.
///
/// # Errors
///
/// Only those of `source`. A failure of the engine, a panic included, is one magic line `error - ...`.
pub(super) fn lines<R: Read + Seek>(engine: &Engine, mut source: R, size: u64, head: &[u8]) -> io::Result<Lines> {
    if size == 1 {
        return Ok(Lines {
            magics: vec!["very short file (no magic)".into()],
            mimes: vec!["application/octet-stream".into()],
        });
    }
    let deadline = Instant::now() + TIME_LIMIT;
    let text = Text::of(head);
    let json = text.as_ref().and_then(|_| big_json(head));
    let mut found = match json {
        // The engine would build the whole document in memory, ninety times its size at worst.
        Some(_) => run(engine, io::Cursor::new(&[]), view_len(LOOK), head.get(..LOOK).unwrap_or(head), deadline)?,
        None => run(engine, &mut source, size, utf8_boundary(head), deadline)?,
    };
    if let Ok(lines) = &mut found {
        if let Some(kind) = json.flatten() {
            lines.put_first(kind.0, kind.1);
        }
        if let Some(text) = &text
            && std::str::from_utf8(head).is_err()
        {
            let plain = text.plain();
            let size = view_len(plain.len());
            match run(engine, io::Cursor::new(&[]), size, plain.as_bytes(), deadline)? {
                Ok(more) => lines.extend(more),
                Err(message) => found = Err(message),
            }
        }
    }
    Ok(match found {
        Ok(lines) => lines.completed(head, text.as_ref()),
        Err(message) => Lines { magics: vec![format!("error - {message}")], mimes: vec![format!("error - {message}")] },
    })
}

fn view_len(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// `head` without a character that its end cuts in two, so that a long UTF-8 text is not taken for data.
fn utf8_boundary(head: &[u8]) -> &[u8] {
    match std::str::from_utf8(head) {
        Err(error) if error.error_len().is_none() => head.get(..error.valid_up_to()).unwrap_or(head),
        Ok(_) | Err(_) => head,
    }
}

/// For a large text that begins like JSON: whether it is, and the lines for it.
fn big_json(head: &[u8]) -> Option<Option<(&'static str, &'static str)>> {
    if head.len() <= LOOK {
        return None;
    }
    let document = head.trim_ascii_start();
    if !matches!(document.first(), Some(b'{' | b'[')) {
        return None;
    }
    let mut documents = serde_json::Deserializer::from_slice(document).into_iter::<IgnoredAny>();
    if !matches!(documents.next(), Some(Ok(_))) {
        return Some(None);
    }
    Some(Some(match documents.next() {
        Some(Ok(_)) => ("New Line Delimited JSON text data", "application/x-ndjson"),
        Some(Err(_)) | None => ("JSON text data", "application/json"),
    }))
}

/// One pass of the engine. `Err` inside is the engine's own trouble.
fn run<R: Read + Seek>(
    engine: &Engine,
    source: R,
    size: u64,
    head: &[u8],
    deadline: Instant,
) -> io::Result<Result<Lines, String>> {
    let mut view = View::new(source, size, head, deadline);
    let outcome = catch_unwind(AssertUnwindSafe(|| collect(engine, &mut view, head)));
    if let Some(error) = view.failed {
        return Err(error);
    }
    if view.late {
        return Ok(Err(format!("took longer than {} s", TIME_LIMIT.as_secs())));
    }
    Ok(outcome.unwrap_or_else(|_panic| Err("the magic engine failed on this file".into())))
}

fn collect<R: Read + Seek>(engine: &Engine, view: &mut View<'_, R>, head: &[u8]) -> Result<Lines, String> {
    let mut lines = Lines::default();
    for magic in engine.matches(view, head)? {
        // The default one says data or text; `completed` knows better.
        if magic.is_default() || lines.magics.len() >= LINES_MAX {
            continue;
        }
        // Where a rule has no mime the engine makes one up; libmagic has none.
        let made_up = match magic.stream_kind() {
            Some(kind) if kind.is_text() => pure_magic::DEFAULT_TEXT_MIMETYPE,
            Some(_) | None => pure_magic::DEFAULT_BIN_MIMETYPE,
        };
        if magic.mime_type() != made_up {
            lines.mimes.push(magic.mime_type().to_owned());
        }
        lines.push_message(magic.message_parts());
    }
    Ok(lines)
}

impl Lines {
    /// Joins the parts of one message and splits it at newlines.
    fn push_message<'a>(&mut self, parts: impl Iterator<Item = &'a str>) {
        let mut message = String::new();
        for part in parts {
            match part.strip_prefix("\\b") {
                Some(joined) => message.push_str(joined),
                None => {
                    if !message.is_empty() {
                        message.push(' ');
                    }
                    message.push_str(part);
                }
            }
        }
        if message.starts_with("ELF ") {
            // libmagic breaks the line here.
            message = message.replacen(" (", "\n(", 1);
        }
        for piece in message.split('\n') {
            let piece = piece.strip_prefix("- ").unwrap_or(piece).trim();
            self.magics.push(piece.chars().take(LINE_MAX).collect());
        }
    }

    fn put_first(&mut self, magic: &str, mime: &str) {
        self.magics.retain(|line| line != magic);
        self.mimes.retain(|line| line != mime);
        self.magics.insert(0, magic.into());
        self.mimes.insert(0, mime.into());
    }

    fn extend(&mut self, more: Lines) {
        for line in more.magics {
            if !self.magics.contains(&line) {
                self.magics.push(line);
            }
        }
        for mime in more.mimes {
            if !self.mimes.contains(&mime) {
                self.mimes.push(mime);
            }
        }
    }

    /// The corrections, and the line of last resort.
    fn completed(mut self, head: &[u8], text: Option<&Text>) -> Self {
        if elf::is_position_independent_executable(head) {
            self.call_it_executable();
        }
        if let Some(text) = text {
            if is_xml(&text.plain()) && !self.magics.iter().any(|line| line.contains("XML")) {
                self.magics.push("XML 1.0 document text".into());
                self.mimes.push("text/xml".into());
            }
            // After other matches libmagic goes on with a comma, and names no second mime.
            let comma = if self.magics.is_empty() { "" } else { ", " };
            self.magics.push(format!("{comma}{}", text.line()));
            if self.mimes.is_empty() {
                self.mimes.push("text/plain".into());
            }
        }
        if self.magics.is_empty() {
            self.magics.push("data".into());
        }
        if self.mimes.is_empty() {
            self.mimes.push("application/octet-stream".into());
        }
        self
    }

    fn call_it_executable(&mut self) {
        for line in self.magics.iter_mut().filter(|line| line.starts_with("ELF ")) {
            *line = line.replace("shared object", "pie executable");
        }
        for mime in self.mimes.iter_mut().filter(|mime| *mime == "application/x-sharedlib") {
            *mime = "application/x-pie-executable".into();
        }
    }
}

/// An XML declaration at the beginning, which libmagic names beside whatever else the file is.
fn is_xml(text: &str) -> bool {
    let start = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    start.starts_with("<?xml") && start.chars().nth(5).is_some_and(|c| c.is_ascii_whitespace())
}
