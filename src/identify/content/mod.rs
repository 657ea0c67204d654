//! The content rules (streams.md 8.6): which of the YARA rules in `rules.yar` match, and which type wins.
//!
//! Called by `Identifier::identify` for files that are `unknown` or `text/plain` so far. The rules run in C code over
//! hostile bytes, so a server and the commands look through [`Isolated`], a pool of child processes; [`InProcess`] is
//! for tests and measurements.

mod isolated;
mod rules;

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

#[cfg(feature = "libmagic")]
pub use isolated::serve_libmagic;
pub use isolated::{Isolated, SCANNER, serve};
use rules::Rules;
use serde::{Deserialize, Serialize};

use super::{Lines, LoadError};

/// Size above which content is not looked through, unless the configuration says otherwise.
pub const CONTENT_MAX_BYTES: u64 = 64 << 20;

/// What is known of a file before its content is looked through: the variables of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// First mime line that is not empty.
    pub mime: String,
    /// First magic line.
    pub magic: String,
    /// The type so far.
    pub file_type: String,
}

/// What came of looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The rules name a type.
    Type(String),
    /// They do not.
    Nothing,
    /// The content is too large.
    Skipped,
    /// They could not be evaluated, and why; the content may be the reason.
    Failed(String),
}

/// Looks through content.
pub trait ContentScanner: fmt::Debug + Send + Sync {
    /// What the rules say of the `size` bytes of `content`. Blocking.
    ///
    /// # Errors
    /// Only those of `content`.
    fn scan(&self, facts: &Facts, size: u64, content: &mut dyn Read) -> io::Result<Scan>;

    /// The magic and mime lines of the `size` bytes of `content`, if this scanner is to be asked for them. Blocking.
    ///
    /// # Errors
    /// Only those of `content`.
    fn lines(&self, _size: u64, _content: &mut dyn Read) -> io::Result<Option<Lines>> {
        Ok(None)
    }
}

/// A scanner for this process, over `workers` children at most: [`Isolated`], and in the tests of this crate, whose
/// program cannot be a child, [`InProcess`].
///
/// # Errors
/// It cannot be started.
pub fn scanner(workers: usize, max_bytes: u64) -> Result<Arc<dyn ContentScanner>, LoadError> {
    if cfg!(test) {
        return Ok(Arc::new(InProcess::load(max_bytes)?));
    }
    let scanner = Isolated::start(workers, max_bytes);
    Ok(Arc::new(scanner.map_err(|error| LoadError(format!("the content scanner: {error}")))?))
}

/// The rules in this very process. For bytes that can be trusted, and where nothing is lost with the process.
#[derive(Debug)]
pub struct InProcess {
    rules: Rules,
    max_bytes: u64,
}

impl InProcess {
    /// Compiles the rules; takes about 20 ms.
    ///
    /// # Errors
    /// They do not compile.
    pub fn load(max_bytes: u64) -> Result<Self, LoadError> {
        Ok(Self { rules: Rules::compile().map_err(LoadError)?, max_bytes })
    }
}

impl ContentScanner for InProcess {
    fn scan(&self, facts: &Facts, size: u64, content: &mut dyn Read) -> io::Result<Scan> {
        if size > self.max_bytes {
            return Ok(Scan::Skipped);
        }
        let mut bytes = Vec::new();
        content.take(size).read_to_end(&mut bytes)?;
        Ok(self.rules.scan(facts, &bytes).into())
    }
}

impl From<Result<Option<String>, String>> for Scan {
    fn from(found: Result<Option<String>, String>) -> Self {
        match found {
            Ok(Some(file_type)) => Self::Type(file_type),
            Ok(None) => Self::Nothing,
            Err(error) => Self::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests;
