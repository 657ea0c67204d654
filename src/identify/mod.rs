//! Bytes to metadata: digests and file identification, without side effects (streams.md 7 and 8).
//!
//! Called by the upload route, by ingest and by the command line. Nothing here knows where the bytes come from, and
//! nothing here looks at a file name.
//!
//! [`Identifier`] runs the steps of streams.md 8.1 in order: `magic` (magic and mime lines; the magic rules are in
//! `engine`, behind `gates` made from their `shape`), `rules` (first type), `mimes` (trusted mimes), `indicators`,
//! `refine` (zip, cart, dos, pdf), `content` (the content rules, in child processes), `types` (the table with the
//! extensions).
//! [`Digester`] is independent of it.

pub mod content;
mod digest;
mod elf;
mod engine;
mod gates;
mod indicators;
#[cfg(feature = "libmagic")]
mod libmagic;
mod magic;
mod mimes;
mod opinion;
mod refine;
mod rules;
mod shape;
mod ssdeep;
mod text;
mod types;
mod view;
mod zip;

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;

pub use self::magic::Lines;
use content::{ContentScanner, Facts, Scan};
pub use digest::{DigestError, Digester, Digests, Mode, SPREAD_AT, digest_reader, ssdeep_reader};
pub use opinion::{disagrees, second_opinion};
pub use types::{FileType, TypeTable};

/// Version of the identification rules, reported as `identify_version`. It changes whenever any result changes; 2 claims
/// parity with the contract.
pub const IDENTIFY_VERSION: u32 = 2;

/// Bytes of the beginning that indicators and header tests look at.
pub const HEAD_LEN: usize = 32_000;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identification {
    pub mime: String,
    /// A description; informative only, its words depend on the version of the magic rules.
    pub magic: String,
    /// Azul's type, always one of the type table.
    pub file_format: String,
    /// Without dot.
    pub file_extension: Option<String>,
}

/// The loaded magic rules and type table. Load it once per process and share it.
#[derive(Debug)]
pub struct Identifier {
    engine: engine::Engine,
    types: TypeTable,
    scanner: Arc<dyn ContentScanner>,
}

/// What an identification was besides its result; for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// What came of looking through the content, if that was done.
    pub content: Option<Scan>,
    /// The second opinion names another kind of file.
    pub disputed: bool,
}

/// The magic rules that are built in could not be read.
#[derive(Debug, thiserror::Error)]
#[error("magic rules: {0}")]
pub struct LoadError(String);

impl Identifier {
    /// Loads the built-in rules; takes about 50 ms and 12 MB. `scanner` looks through content.
    pub fn load(scanner: Arc<dyn ContentScanner>) -> Result<Self, LoadError> {
        Ok(Self { engine: engine::Engine::load()?, types: TypeTable::load(), scanner })
    }

    /// The type table.
    pub fn types(&self) -> &TypeTable {
        &self.types
    }

    /// Identifies the whole of `source`, from its first byte.
    ///
    /// Blocking. Memory is bounded (about 20 MiB) whatever the size; the magic engine has a time limit of ten seconds,
    /// after which the result says so in `magic`, and so have the content rules. PDF files are read to their end, texts
    /// and unknown files up to the scanner's limit.
    ///
    /// # Errors
    ///
    /// Only those of `source`: no content is an error.
    pub fn identify(&self, source: impl Read + Seek) -> io::Result<Identification> {
        self.looked_at(source).map(|(identification, _, _)| identification)
    }

    /// As [`Self::identify`], and what is worth counting; the second opinion takes some time more.
    ///
    /// # Errors
    ///
    /// As [`Self::identify`].
    pub fn identify_noting(&self, source: impl Read + Seek) -> io::Result<(Identification, Notes)> {
        let (identification, content, head) = self.looked_at(source)?;
        let disputed = disagrees(&identification, &head);
        Ok((identification, Notes { content, disputed }))
    }

    /// The identification, what came of looking through the content, and the head.
    fn looked_at(&self, mut source: impl Read + Seek) -> io::Result<(Identification, Option<Scan>, Vec<u8>)> {
        let size = source.seek(SeekFrom::End(0))?;
        source.seek(SeekFrom::Start(0))?;
        let mut whole_head = Vec::new();
        source.by_ref().take(view::HEAD_MAX).read_to_end(&mut whole_head)?;
        if size == 0 || whole_head.is_empty() {
            return Ok((self.completed("unknown", "inode/x-empty", "empty"), None, whole_head));
        }
        source.seek(SeekFrom::Start(0))?;
        let lines = match self.scanner.lines(size, &mut source)? {
            Some(lines) => lines,
            None => magic::lines(&self.engine, &mut source, size, &whole_head)?,
        };
        let first = first_type(&lines);
        let head = whole_head.get(..HEAD_LEN).unwrap_or(&whole_head);
        let indicated = indicators::indicated(first, head).unwrap_or(first);
        let refined = refine::refined(indicated.into(), &mut source, size, head)?;
        let content = self.scanned(&refined, &lines, &mut source, size)?;
        let file_type = match &content {
            Some(Scan::Type(name)) => name,
            Some(Scan::Nothing | Scan::Skipped | Scan::Failed(_)) | None => &refined,
        };
        let line = |lines: &[String]| lines.first().cloned().unwrap_or_default();
        let magic = match &content {
            Some(Scan::Failed(error)) => format!("error - content rules: {error}"),
            Some(Scan::Type(_) | Scan::Nothing | Scan::Skipped) | None => line(&lines.magics),
        };
        Ok((self.completed(file_type, &line(&lines.mimes), &magic), content, whole_head))
    }

    /// What the content rules say of a file that is nothing better so far (streams.md 8.6).
    fn scanned<R: Read + Seek>(
        &self,
        file_type: &str,
        lines: &magic::Lines,
        source: &mut R,
        size: u64,
    ) -> io::Result<Option<Scan>> {
        if !matches!(file_type, "unknown" | "text/plain") {
            return Ok(None);
        }
        let facts = Facts {
            mime: lines.mimes.iter().find(|mime| !mime.is_empty()).cloned().unwrap_or_default(),
            magic: lines.magics.first().cloned().unwrap_or_default(),
            file_type: file_type.into(),
        };
        source.seek(SeekFrom::Start(0))?;
        self.scanner.scan(&facts, size, source).map(Some)
    }

    /// Identifies bytes in memory.
    pub fn identify_bytes(&self, bytes: &[u8]) -> Identification {
        self.identify(Cursor::new(bytes)).unwrap_or_else(|error| {
            // Memory has no read errors; should there be one, it is told like any other trouble.
            self.completed("unknown", "application/octet-stream", &format!("error - {error}"))
        })
    }

    fn completed(&self, name: &str, mime: &str, magic: &str) -> Identification {
        let file_type = self.types.reported(name);
        Identification {
            mime: ascii(mime),
            magic: ascii(magic),
            file_format: file_type.file_format,
            file_extension: file_type.extension,
        }
    }
}

/// Steps 2 and 3 of streams.md 8.1: the magic rules, and the trusted mimes where those were unsure.
fn first_type(lines: &magic::Lines) -> &'static str {
    let by_rule = rules::first_type(&lines.magics, &lines.mimes).map_or("unknown", |(file_type, _)| file_type);
    match by_rule {
        "unknown" | "text/plain" => lines.mimes.iter().find_map(|mime| mimes::trusted(mime)).unwrap_or(by_rule),
        sure => sure,
    }
}

/// One dot for every character that is not ASCII.
fn ascii(line: &str) -> String {
    line.chars().map(|c| if c.is_ascii() { c } else { '.' }).collect()
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "sizes in tests are small")]
mod tests;
