//! Which files an interrupted run had done, so that `--resume` need not read them again.
//!
//! One file per set of flags and paths: 16 bytes for each file that was done, a hash over its path, size and time of last
//! change. Only a shortcut: what is announced already is known from the log, and a lost journal costs reading.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::content::Look;
use crate::cli::output::complain;

/// A file as it was when it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry([u8; 16]);

impl Entry {
    /// The file at `path` as it looks.
    pub(super) fn new(path: &Path, look: Look) -> Self {
        let mut hasher = sha2::Sha256::new();
        hasher.update(path.as_os_str().as_bytes());
        hasher.update(b"\0");
        hasher.update(look.size.to_be_bytes());
        hasher.update(look.modified_ns.to_be_bytes());
        Self(first(&hasher.finalize()))
    }
}

fn first(hash: &[u8]) -> [u8; 16] {
    hash.first_chunk().copied().unwrap_or_default()
}

/// Where files that are done are noted.
#[derive(Debug, Default)]
pub(super) struct Journal {
    file: Option<(PathBuf, File)>,
}

impl Journal {
    /// The journal of runs with this `description` in `folder`, and what the last one had done: nothing unless it is to
    /// be continued. A journal that cannot be written is done without.
    pub(super) fn open(folder: &Path, description: &str, resume: bool) -> (Self, HashSet<Entry>) {
        let name: String = first(&sha2::Sha256::digest(description)).iter().map(|b| format!("{b:02x}")).collect();
        let path = folder.join(name);
        match Self::try_open(&path, resume) {
            Ok(journal) => journal,
            Err(error) => {
                complain(&format!("{}: {error}; --resume will not know what this run has done", path.display()));
                (Self::default(), HashSet::new())
            }
        }
    }

    fn try_open(path: &Path, resume: bool) -> io::Result<(Self, HashSet<Entry>)> {
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let done = if resume { read(path)? } else { HashSet::new() };
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        // A torn last entry would shift those behind it.
        let length = if resume { file.metadata()?.len() / 16 * 16 } else { 0 };
        file.set_len(length)?;
        Ok((Self { file: Some((path.to_owned(), file)) }, done))
    }

    /// Notes files that are done. A journal that cannot be written is given up.
    pub(super) fn add(&mut self, entries: &[Entry]) {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.0).collect();
        if let Some((path, file)) = &mut self.file
            && let Err(error) = file.write_all(&bytes)
        {
            complain(&format!("{}: {error}; --resume will not know the rest", path.display()));
            self.file = None;
        }
    }

    /// Removes it: the run went to its end.
    pub(super) fn remove(self) {
        if let Some((path, _)) = self.file
            && let Err(error) = std::fs::remove_file(&path)
        {
            complain(&format!("{}: {error}", path.display()));
        }
    }
}

fn read(path: &Path) -> io::Result<HashSet<Entry>> {
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(error),
    };
    let (mut done, mut entry) = (HashSet::new(), [0; 16]);
    loop {
        match reader.read_exact(&mut entry) {
            Ok(()) => done.insert(Entry(entry)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(done),
            Err(error) => return Err(error),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, size: u64) -> Entry {
        Entry::new(Path::new(path), Look { size, modified_ns: 5 })
    }

    #[test]
    fn an_interrupted_run_is_continued_and_another_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path(), "a", false);
        journal.add(&[entry("x", 1), entry("y", 1)]);
        drop(journal);
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"torn").unwrap();
        let (mut journal, done) = Journal::open(folder.path(), "a", true);
        assert_eq!(done, [entry("x", 1), entry("y", 1)].into());
        assert_ne!(entry("x", 1), entry("x", 2), "a changed file is another one");
        journal.add(&[entry("z", 1)]);
        let known = |description, resume| Journal::open(folder.path(), description, resume).1.len();
        assert_eq!((known("a", true), known("b", true), known("a", false), known("a", true)), (3, 0, 0, 0));
        Journal::open(folder.path(), "a", true).0.remove();
        assert!(!file.exists());
    }

    #[test]
    fn a_journal_that_cannot_be_written_is_done_without() {
        let (mut journal, done) = Journal::open(Path::new("/proc/none"), "a", true);
        journal.add(&[entry("x", 1)]);
        assert!(done.is_empty());
        journal.remove();
    }
}
