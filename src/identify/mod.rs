//! Bytes to metadata: digests and file identification, without side effects (streams.md 7 and 8).
//!
//! Called by the upload route, by ingest and by the command line. Nothing here knows where the bytes come from, and
//! nothing here looks at a file name.
//!
//! [`Identifier`] runs the steps of streams.md 8.1 in order: `magic` (magic and mime lines; the magic rules are in
//! `engine`, behind `gates` made from their `shape`), `rules` (first type), `mimes` (trusted mimes), `indicators`,
//! `refine` (zip, cart, dos, pdf, and the place of the content rules), `types` (the table with the extensions).
//! [`Digester`] is independent of it.

mod digest;
mod elf;
mod engine;
mod gates;
mod indicators;
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
}

/// The magic rules that are built in could not be read.
#[derive(Debug, thiserror::Error)]
#[error("magic rules: {0}")]
pub struct LoadError(String);

impl Identifier {
    /// Loads the built-in rules; takes about 40 ms and 20 MB.
    pub fn load() -> Result<Self, LoadError> {
        Ok(Self { engine: engine::Engine::load()?, types: TypeTable::load() })
    }

    /// The type table.
    pub fn types(&self) -> &TypeTable {
        &self.types
    }

    /// Identifies the whole of `source`, from its first byte.
    ///
    /// Blocking. Memory is bounded (about 20 MiB) whatever the size; the magic engine has a time limit of ten seconds,
    /// after which the result says so in `magic`. PDF files are read to their end.
    ///
    /// # Errors
    ///
    /// Only those of `source`: no content is an error.
    pub fn identify(&self, mut source: impl Read + Seek) -> io::Result<Identification> {
        let size = source.seek(SeekFrom::End(0))?;
        source.seek(SeekFrom::Start(0))?;
        let mut head = Vec::new();
        source.by_ref().take(view::HEAD_MAX).read_to_end(&mut head)?;
        if size == 0 || head.is_empty() {
            return Ok(self.completed("unknown", "inode/x-empty", "empty"));
        }
        let lines = magic::lines(&self.engine, &mut source, size, &head)?;
        let first = first_type(&lines);
        let head = head.get(..HEAD_LEN).unwrap_or(&head);
        let indicated = indicators::indicated(first, head).unwrap_or(first);
        let refined = refine::refined(indicated.into(), &mut source, size, head)?;
        let line = |lines: &[String]| lines.first().cloned().unwrap_or_default();
        Ok(self.completed(&refined, &line(&lines.mimes), &line(&lines.magics)))
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
