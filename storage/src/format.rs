//! The stamp and the lock of a data directory: which layout it has, and that one process owns it.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::{self, Fs, FsLock};

/// The layout this crate reads and writes. `serve` opens exactly this one.
pub const FORMAT: u32 = 1;

/// Name of the stamp file; its content is `azulite <format>` and a newline.
pub const FORMAT_FILE: &str = "FORMAT";
/// Name of the lock file; its content is `pid=<pid> http=<address>` and a newline.
pub const LOCK_FILE: &str = "LOCK";

/// Directories below the data directory that a new one gets, in the order they are made.
pub const DIRECTORIES: [&str; 4] = ["log", "blobs", "staging", "lost+found"];

/// Why a data directory could not be recognised.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The stamp is there but does not say `azulite <number>`.
    #[error("{path}: the stamp reads {found:?}, expected \"azulite <format number>\"")]
    Unreadable {
        /// The stamp file.
        path: PathBuf,
        /// The start of what it holds.
        found: String,
    },
    /// The directory holds data but no stamp, so nobody knows its layout.
    #[error(
        "{path} holds data ({found}) but no {FORMAT_FILE} file; it was not made by azulite, or its creation was undone"
    )]
    Missing {
        /// The data directory.
        path: PathBuf,
        /// A name found in it.
        found: String,
    },
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FormatError + '_ {
    move |error| FormatError::Io { path: path.to_owned(), error }
}

/// Where people put rules for workers.
const RULES_DIRECTORY: &str = "rules";

/// The format of the data directory at `root`; `None` when there is no directory or it holds no data yet.
///
/// # Errors
/// See [`FormatError`].
pub fn read_format(fs: &dyn Fs, root: &Path) -> Result<Option<u32>, FormatError> {
    let path = root.join(FORMAT_FILE);
    if fs.meta(&path).map_err(io_error(&path))?.is_some() {
        let bytes = fs::read_small(fs, &path, 4096).map_err(io_error(&path))?;
        let text = String::from_utf8_lossy(&bytes);
        let number = text.strip_prefix("azulite ").and_then(|n| n.strip_suffix('\n')).and_then(|n| n.parse().ok());
        let start = || text.chars().take(40).collect();
        return number.map(Some).ok_or_else(|| FormatError::Unreadable { path: path.clone(), found: start() });
    }
    match data_in(fs, root).map_err(io_error(root))? {
        Some(found) => Err(FormatError::Missing { path: root.to_owned(), found }),
        None => Ok(None),
    }
}

/// A name below `root` that holds data: a segment, a blob, an index. Empty directories and the lock are not data.
fn data_in(fs: &dyn Fs, root: &Path) -> io::Result<Option<String>> {
    if fs.meta(root)?.is_none() {
        return Ok(None);
    }
    for entry in fs.list(root)? {
        let temporary = entry.name.ends_with(".tmp");
        // Rules are put there by people, also before the first start.
        if [LOCK_FILE, RULES_DIRECTORY].contains(&entry.name.as_str()) || temporary {
            continue;
        }
        if !DIRECTORIES.contains(&entry.name.as_str()) {
            return Ok(Some(entry.name));
        }
        if let Some(inner) = fs.list(&root.join(&entry.name))?.first() {
            return Ok(Some(format!("{}/{}", entry.name, inner.name)));
        }
    }
    Ok(None)
}

/// Makes the directories of a new data directory and then, last, its stamp.
///
/// # Durability
/// On `Ok` everything is on disk; on `Err` the directory is still "no data yet".
/// # Errors
/// See [`FormatError`].
pub fn create(fs: &dyn Fs, root: &Path) -> Result<(), FormatError> {
    create_directories(fs, root)?;
    let path = root.join(FORMAT_FILE);
    fs::replace_durably(fs, &path, format!("azulite {FORMAT}\n").as_bytes()).map_err(io_error(&path))
}

/// Makes those of [`DIRECTORIES`] that are missing: a copy of a data directory may have lost the empty ones.
///
/// # Errors
/// See [`FormatError`].
pub fn create_directories(fs: &dyn Fs, root: &Path) -> Result<(), FormatError> {
    for name in DIRECTORIES {
        let path = root.join(name);
        fs::create_dir_durably(fs, &path).map_err(io_error(&path))?;
    }
    Ok(())
}

/// What the lock file of a data directory says about its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: Option<u32>,
    /// HTTP address of a running server, once it listens.
    pub http: Option<String>,
}

impl Holder {
    /// Reads `pid=<pid> http=<address>`; unknown words are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |key: &str| text.split_whitespace().find_map(|word| word.strip_prefix(key)).map(str::to_owned);
        Self { pid: value("pid=").and_then(|v| v.parse().ok()), http: value("http=") }
    }
}

/// Who holds the lock of the data directory at `root`, as far as the file says; empty when there is no file.
#[must_use]
pub fn holder(fs: &dyn Fs, root: &Path) -> Holder {
    let bytes = fs::read_small(fs, &root.join(LOCK_FILE), 4096).unwrap_or_default();
    Holder::parse(&String::from_utf8_lossy(&bytes))
}

/// The lock on a data directory, held until dropped.
#[derive(Debug)]
pub struct DirLock(Box<dyn FsLock>);

impl DirLock {
    /// Takes the lock, making the data directory if there is none.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it; else as the operating system reports.
    pub fn take(fs: &dyn Fs, root: &Path) -> io::Result<Self> {
        fs::create_dir_durably(fs, root)?;
        let lock = Self(fs.lock(&root.join(LOCK_FILE))?);
        lock.describe(None)?;
        Ok(lock)
    }

    /// Writes the process id and, once known, the HTTP address into the lock file.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn describe(&self, http: Option<&str>) -> io::Result<()> {
        let address = http.map(|a| format!(" http={a}")).unwrap_or_default();
        self.0.describe(&format!("pid={}{address}\n", std::process::id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealFs;

    #[test]
    fn a_new_directory_is_stamped_and_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        assert_eq!(read_format(&RealFs, &root).unwrap(), None);
        create(&RealFs, &root).unwrap();
        assert_eq!(read_format(&RealFs, &root).unwrap(), Some(FORMAT));
    }

    #[test]
    fn data_without_a_stamp_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        create(&RealFs, dir.path()).unwrap();
        std::fs::remove_file(dir.path().join(FORMAT_FILE)).unwrap();
        assert_eq!(read_format(&RealFs, dir.path()).unwrap(), None, "empty directories are not data");
        std::fs::create_dir_all(dir.path().join("rules/yara")).unwrap();
        std::fs::write(dir.path().join("rules/yara/a.yar"), b"x").unwrap();
        assert_eq!(read_format(&RealFs, dir.path()).unwrap(), None, "rules of people are not data");
        std::fs::write(dir.path().join("log/00000001.seg"), b"x").unwrap();
        let got = read_format(&RealFs, dir.path());
        assert!(matches!(&got, Err(FormatError::Missing { found, .. }) if found == "log/00000001.seg"), "got {got:?}");
    }

    #[test]
    fn a_stamp_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["azulite", "azulite x\n", "other 1\n", ""] {
            std::fs::write(dir.path().join(FORMAT_FILE), text).unwrap();
            let got = read_format(&RealFs, dir.path());
            assert!(matches!(got, Err(FormatError::Unreadable { .. })), "{text:?}: got {got:?}");
        }
    }

    #[test]
    fn the_second_lock_is_refused_and_the_holder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(&RealFs, dir.path()).unwrap();
        lock.describe(Some("127.0.0.1:8111")).unwrap();
        let got = DirLock::take(&RealFs, dir.path());
        assert!(matches!(&got, Err(e) if e.kind() == io::ErrorKind::WouldBlock), "got {got:?}");
        let found = holder(&RealFs, dir.path());
        assert_eq!(found, Holder { pid: Some(std::process::id()), http: Some("127.0.0.1:8111".into()) });
        drop(lock);
        DirLock::take(&RealFs, dir.path()).unwrap();
    }
}
