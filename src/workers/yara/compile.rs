//! Builds a rule set: every file is compiled on its own in a child process, those that compile together in another step.
//!
//! Called when a worker starts, when its rules change, and by `azulite rules check`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bincode::config::standard;
use bincode::serde::encode_to_vec;
use sha2::{Digest, Sha256};

use super::ask::{Ask, Found, Sources, Told};
use super::directory::{self, LeftOut, RuleFile, TOTAL_MAX_BYTES, Wanted};
use super::engine::{self, CHILD, hex};
use super::source;
use crate::isolate::{CallError, Options, Patience, Pool, Program};

/// What one file may take.
const FILE_LIMIT: Duration = Duration::from_secs(60);
/// What all of them may take.
const SET_LIMIT: Duration = Duration::from_secs(600);
/// Memory of a child that compiles.
const MEMORY_BYTES: u64 = 4 << 30;
/// How often files that do not go together are left out one by one.
const TRIES: usize = 50;

/// How children are started.
#[derive(Clone, Debug)]
pub struct Children {
    /// The program.
    pub path: PathBuf,
}

impl Children {
    /// This very program.
    #[must_use]
    pub fn this() -> Self {
        Self { path: Program::this([""]).path }
    }

    pub(super) fn program(&self, role: &str, body_bytes: u64, memory_bytes: u64) -> Program {
        let arguments = [CHILD.into(), role.into(), body_bytes.to_string(), memory_bytes.to_string()];
        Program { path: self.path.clone(), arguments: arguments.map(Into::into).to_vec() }
    }
}

/// A rule file in use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileInUse {
    /// Below the directory.
    pub path: String,
    /// Namespace of its rules.
    pub namespace: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Names of its rules, and of those it includes.
    pub rules: Vec<String>,
}

/// A set of rules, compiled.
pub struct RuleSet {
    /// What goes to a scanner.
    pub(super) compiled: Arc<Vec<u8>>,
    /// SHA-256 over path and SHA-256 of every file in use, in lower-case digits.
    pub hash: String,
    /// The files, in the order of their paths.
    pub files: Vec<FileInUse>,
    /// Those that are not in use.
    pub left_out: Vec<LeftOut>,
    /// Rules that look at signatures of PE files, which nobody here reads: they never match.
    pub signatures: Vec<String>,
    /// Where the text of a rule is: by namespace and name.
    texts: HashMap<(String, String), (Arc<str>, std::ops::Range<usize>)>,
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RuleSet").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl RuleSet {
    /// Number of rules.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.files.iter().map(|file| file.rules.len()).sum()
    }

    /// The text of a rule.
    #[must_use]
    pub fn text(&self, namespace: &str, name: &str) -> Option<&str> {
        let (text, place) = self.texts.get(&(namespace.to_owned(), name.to_owned()))?;
        text.get(place.clone())
    }

    /// The beginning of the hash, which is part of the worker's version.
    #[must_use]
    pub fn short_hash(&self) -> &str {
        self.hash.get(..8).unwrap_or(&self.hash)
    }
}

/// Why there is no set.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The directory cannot be read.
    #[error("{}: {error}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No file compiles; or there is none.
    #[error("{}: no rule file compiles{}", path.display(), first(left_out))]
    Nothing {
        /// The directory.
        path: PathBuf,
        /// Why each is left out.
        left_out: Vec<LeftOut>,
    },
    /// The rules do not go together, or the compiler failed.
    #[error("the rules cannot be compiled together: {0}")]
    Link(String),
    /// A child cannot be used.
    #[error("the rule compiler: {0}")]
    Child(#[from] CallError),
}

fn first(left_out: &[LeftOut]) -> String {
    match left_out {
        [] => "; there is none".into(),
        [first, ..] => format!("; {} line {}: {}", first.path, first.line, first.reason),
    }
}

/// Compiles the rules below `root`. Blocks until all is done.
///
/// # Errors
/// [`BuildError`]; files that are left out are none.
pub fn build(root: &Path, wanted: &Wanted, children: &Children) -> Result<RuleSet, BuildError> {
    let snapshot = directory::read(root, wanted);
    let snapshot = snapshot.map_err(|error| BuildError::Directory { path: root.to_owned(), error })?;
    let (files, mut left_out) = (snapshot.files, snapshot.left_out);
    let compiler = Compiler::start(children)?;
    let mut files = compiler.check(files, &mut left_out)?;
    let compiled = loop {
        if files.is_empty() {
            left_out.sort_by(|one, other| one.path.cmp(&other.path));
            return Err(BuildError::Nothing { path: root.to_owned(), left_out });
        }
        match compiler.link(&files)? {
            Ok(compiled) => break compiled,
            Err((Some(number), reason)) if number < files.len() && left_out.len() < TRIES + files.len() => {
                let file = files.remove(number);
                left_out.push(LeftOut { path: file.path, line: 0, reason: format!("with the others: {reason}") });
            }
            Err((_, reason)) => return Err(BuildError::Link(reason)),
        }
    };
    left_out.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(set(files, left_out, compiled))
}

fn set(files: Vec<RuleFile>, left_out: Vec<LeftOut>, compiled: Vec<u8>) -> RuleSet {
    let mut parts = BTreeMap::new();
    let (mut texts, mut signatures, mut in_use) = (HashMap::new(), Vec::new(), Vec::new());
    for file in files {
        for rule in &file.parsed.rules {
            let place = (Arc::clone(&file.text), rule.place.clone());
            texts.insert((file.namespace.clone(), rule.name.clone()), place);
            if rule.signatures {
                signatures.push(format!("{}.{}", file.namespace, rule.name));
            }
        }
        in_use.push(FileInUse {
            sha256: file.parts.get(&file.path).map(|sha256| hex(sha256)).unwrap_or_default(),
            rules: file.parsed.rules.into_iter().map(|rule| rule.name).collect(),
            path: file.path,
            namespace: file.namespace,
        });
        parts.extend(file.parts);
    }
    RuleSet { compiled: Arc::new(compiled), hash: set_hash(&parts), files: in_use, left_out, signatures, texts }
}

/// SHA-256 over a line for each file, in the order of the paths: path, NUL, SHA-256 in lower-case digits, line feed.
fn set_hash(parts: &BTreeMap<String, [u8; 32]>) -> String {
    let mut all = Sha256::new();
    for (path, sha256) in parts {
        all.update(format!("{path}\0{}\n", hex(sha256)));
    }
    hex(&all.finalize())
}

/// Children that compile.
struct Compiler {
    pool: Pool,
}

type Linked = Result<Vec<u8>, (Option<usize>, String)>;

impl Compiler {
    fn start(children: &Children) -> Result<Self, CallError> {
        let body_bytes = 4 * TOTAL_MAX_BYTES;
        let options = Options {
            program: children.program("compile", body_bytes, MEMORY_BYTES),
            limits: engine::limits(body_bytes, MEMORY_BYTES),
            workers: 1,
            idle: FILE_LIMIT,
            wait: SET_LIMIT,
            setup: None,
            shared: true,
        };
        Ok(Self { pool: Pool::start(options).map_err(|error| CallError::Start(error.to_string()))? })
    }

    /// The files that compile; the others are left out. One that the compiler does not survive costs only itself.
    fn check(&self, files: Vec<RuleFile>, left_out: &mut Vec<LeftOut>) -> Result<Vec<RuleFile>, CallError> {
        let mut results: Vec<Option<(usize, String)>> = Vec::new();
        while results.len() < files.len() {
            let before = results.len();
            let rest = files.get(before..).unwrap_or_default();
            match self.call(&Ask::Check, rest, &mut |found| match found {
                Found::Checked(result) if results.len() < files.len() => {
                    results.push(result);
                    Ok(())
                }
                Found::Checked(_)
                | Found::Bytes(_)
                | Found::Began { .. }
                | Found::Hit(_)
                | Found::Rows(_)
                | Found::Member(_)
                | Found::Again { .. } => Err(CallError::Garbled("it is no result of a file")),
            }) {
                Ok(Told::Checked) if results.len() == files.len() => {}
                Ok(_) => return Err(CallError::Garbled("it is not about every file")),
                Err(error @ (CallError::Died | CallError::OutOfMemory | CallError::Silent(_))) => {
                    results.push(Some((0, format!("the compiler did not survive it: {error}"))));
                }
                Err(error) => return Err(error),
            }
        }
        let mut kept = Vec::new();
        for (file, result) in files.into_iter().zip(results) {
            match result {
                None => kept.push(file),
                Some((line, reason)) => left_out.push(file.problem(line, &reason)),
            }
        }
        Ok(kept)
    }

    /// All of them in one; or which does not go with those before it, and why.
    fn link(&self, files: &[RuleFile]) -> Result<Linked, CallError> {
        let mut compiled = Vec::new();
        let most = usize::try_from(engine::SETUP_MAX).unwrap_or(usize::MAX);
        let told = self.call(&Ask::Link, files, &mut |found| match found {
            Found::Bytes(bytes) if compiled.len() + bytes.len() <= most => {
                compiled.extend(bytes);
                Ok(())
            }
            Found::Bytes(_)
            | Found::Checked(_)
            | Found::Began { .. }
            | Found::Hit(_)
            | Found::Rows(_)
            | Found::Member(_)
            | Found::Again { .. } => Err(CallError::Garbled("they are no rules")),
        })?;
        match told {
            Told::Linked(Ok(())) => Ok(Ok(compiled)),
            Told::Linked(Err((number, reason))) => {
                Ok(Err((number.and_then(|number| usize::try_from(number).ok()), reason)))
            }
            Told::Checked | Told::Scanned(_) => Err(CallError::Garbled("it is about something else")),
        }
    }

    fn call(
        &self,
        ask: &Ask,
        files: &[RuleFile],
        found: &mut dyn FnMut(Found) -> Result<(), CallError>,
    ) -> Result<Told, CallError> {
        let source = |file: &RuleFile| {
            (file.namespace.clone(), source::without_signatures(&file.text, &file.parsed).into_owned())
        };
        let sources: Sources = files.iter().map(source).collect();
        let body = encode_to_vec(&sources, standard()).map_err(|_| CallError::Garbled("the rules are too long"))?;
        let size = u64::try_from(body.len()).unwrap_or(u64::MAX);
        // Compiling all of them says nothing in between.
        let quiet = matches!(ask, Ask::Check).then_some(FILE_LIMIT);
        self.pool.call_in_pieces(ask, &mut body.as_slice(), size, Patience { limit: SET_LIMIT, quiet }, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_paths_and_digests_in_order() {
        let parts = BTreeMap::from([("b".to_owned(), [1; 32]), ("a".to_owned(), [2; 32])]);
        let text = format!("a\0{}\nb\0{}\n", "02".repeat(32), "01".repeat(32));
        assert_eq!(set_hash(&parts), hex(&Sha256::digest(text)));
    }
}
