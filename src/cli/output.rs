//! How commands print: tables for people, JSON for programs, failures on standard error.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use super::exit::Exit;
use crate::client::{BadUrl, RequestError};

/// A command that could not do what it was asked: the text for people and how the process ends.
#[derive(Debug)]
pub(super) struct Refusal {
    exit: Exit,
    message: String,
}

impl Refusal {
    /// Ends with `exit` after printing `message`.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// Ends with exit code 1.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Ends with exit code 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The text.
    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        // Whoever read our output has seen enough; nobody is left to tell.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, String::new());
        }
        Self::failed(error.to_string())
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::failed(error.message())
    }
}

impl From<BadUrl> for Refusal {
    fn from(BadUrl(message): BadUrl) -> Self {
        Self::usage(message)
    }
}

/// Prints what went wrong, if something did, and gives the exit code.
pub(super) fn finish(outcome: Result<Exit, Refusal>) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(Refusal { exit, message }) => {
            if !message.is_empty() {
                complain(&message);
            }
            exit
        }
    }
}

/// One line on standard error.
pub(super) fn complain(message: &str) {
    // There is no other place to say that standard error is closed.
    drop(writeln!(io::stderr(), "azulite: {message}"));
}

/// Standard output, buffered.
pub(super) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// One JSON value, indented, and a newline.
///
/// # Errors
/// Those of `out`.
pub(super) fn print_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    out.flush()
}

/// Columns of text; numbers stand at the right of theirs.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints it.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let column = |index: usize| self.rows.iter().filter_map(move |row| row.get(index));
        let widths: Vec<usize> =
            (0..columns).map(|index| column(index).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
        let numbers: Vec<bool> = (0..columns).map(|index| column(index).skip(1).all(|cell| is_number(cell))).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&numbers) {
                let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, after) = if *right { (gap.as_str(), "") } else { ("", gap.as_str()) };
                line.extend([before, cell, after, "  "]);
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        out.flush()
    }
}

fn is_number(cell: &str) -> bool {
    cell == "-" || !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit())
}

/// A text from outside for people: control characters, which could steer a terminal, are written as escapes.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        return Cow::Owned(text.chars().map(escape).collect());
    }
    Cow::Borrowed(text)
}

/// Whether a progress bar may be shown.
pub(super) fn progress_allowed(quiet: bool) -> bool {
    !quiet && io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let mut table = Table::new(&["TOPIC", "RECORDS", "NOTE"]);
        table.row(["a".to_owned(), "5".to_owned(), String::new()]);
        table.row(["longer".to_owned(), "12345678".to_owned(), "x".to_owned()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        let want = "TOPIC    RECORDS  NOTE\na              5\nlonger  12345678  x\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{9b}é"), "a\\u{1b}[2Jb\\n\\u{9b}é");
        assert!(matches!(printable("plain é"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        assert_eq!(finish(Err(io::Error::from(io::ErrorKind::BrokenPipe).into())), Exit::Done);
        assert_eq!(finish(Err(Refusal::usage("x"))), Exit::Usage);
    }
}
