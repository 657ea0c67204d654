//! The key of a store, `keys/blobs.key`: made once, at random, and needed as long as there are blobs stored with it.
//!
//! A state record holds a value derived from the key, so that a key that is lost or another one is told at the start and
//! never gives garbage. The key is durable before that record is, and the record before any blob needs the key.

use std::io;
use std::path::{Path, PathBuf};

use bincode::{Decode, Encode};

use crate::encoding::Key;
use crate::fs::{self, Fs};
use crate::ids::Sha256;

/// Folder of keys below the data directory.
const FOLDER: &str = "keys";
/// Name of the file of the key for blobs.
const FILE: &str = "blobs.key";
/// What is in front of the key's 64 hex digits.
const LABEL: &str = "azulite key 1 ";

/// Why the key of a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none, and blobs may have been stored with it.
    #[error("{path} is gone; blobs in this data directory cannot be read without it: put it back from a backup")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is another data directory's.
    #[error("{path} is not the key of this data directory; its blobs cannot be read with it: put the right one back")]
    Wrong {
        /// The file.
        path: PathBuf,
    },
    /// It does not read as a key.
    #[error("{path} does not hold a key; put it back from a backup")]
    Unreadable {
        /// The file.
        path: PathBuf,
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

/// What a key is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyCheck([u8; 32]);

impl KeyCheck {
    pub(crate) fn of(key: &Key) -> Self {
        Self(key.derive("check", &[]))
    }
}

/// The key of the data directory at `root`. Without a `check` none was ever needed: then one is made, if it is `wanted`.
pub(crate) fn open(fs: &dyn Fs, root: &Path, check: Option<KeyCheck>, wanted: bool) -> Result<Option<Key>, KeyError> {
    if check.is_none() && !wanted {
        return Ok(None);
    }
    let path = root.join(FOLDER).join(FILE);
    let io_error = |error| KeyError::Io { path: path.clone(), error };
    let Some(text) = read(fs, &path).map_err(io_error)? else {
        return match check {
            Some(_) => Err(KeyError::Missing { path }),
            None => create(fs, &path).and_then(|key| settle(fs, &path).map(|()| Some(key))).map_err(io_error),
        };
    };
    let digits = std::str::from_utf8(&text).ok().and_then(|text| text.strip_prefix(LABEL)?.strip_suffix('\n'));
    let key = digits.and_then(Sha256::parse).map(|digits| Key(digits.0));
    let key = key.ok_or_else(|| KeyError::Unreadable { path: path.clone() })?;
    match check {
        Some(check) if check != KeyCheck::of(&key) => Err(KeyError::Wrong { path }),
        Some(_) => Ok(Some(key)),
        None => settle(fs, &path).map(|()| Some(key)).map_err(io_error),
    }
}

fn read(fs: &dyn Fs, path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read_small(fs, path, 4096) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // Too long for a key.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(Vec::new())),
        other => other.map(Some),
    }
}

/// Makes the names of file and folder durable: who made them may have been killed before they were.
fn settle(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    path.ancestors().skip(1).take(2).try_for_each(|folder| fs.sync_dir(folder))
}

/// A new key, durable under its name once that of the folder is.
fn create(fs: &dyn Fs, path: &Path) -> io::Result<Key> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    fs::create_dir_durably(fs, path.parent().unwrap_or(Path::new(".")))?;
    fs::replace_durably(fs, path, format!("{LABEL}{}\n", Sha256(bytes)).as_bytes())?;
    Ok(Key(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::fs::RealFs;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_only_when_it_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let open = |check, wanted| super::open(&RealFs, dir.path(), check, wanted);
        assert_eq!(open(None, false).unwrap(), None);
        assert!(!dir.path().join("keys").exists());
        let key = open(None, true).unwrap().unwrap();
        let check = KeyCheck::of(&key);
        for (check, wanted) in [(None, true), (Some(check), true), (Some(check), false)] {
            assert_eq!(open(check, wanted).unwrap(), Some(key.clone()));
        }
        let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("keys"), mode("keys/blobs.key")), (0o700, 0o600));
    }

    #[test]
    fn a_lost_another_or_a_garbled_key_is_refused_by_its_name_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/blobs.key");
        let key = open(&RealFs, dir.path(), None, true).unwrap().unwrap();
        let check = Some(KeyCheck::of(&key));
        let text = std::fs::read_to_string(&path).unwrap();
        let open = |check| super::open(&RealFs, dir.path(), check, true);
        for bad in ["", "azulite key 1 12\n", &text.replace("key 1", "key 2"), text.trim_end(), &"x".repeat(5000)] {
            std::fs::write(&path, bad).unwrap();
            for check in [check, None] {
                let got = open(check);
                assert!(matches!(&got, Err(KeyError::Unreadable { path: p }) if *p == path), "{bad:?}: got {got:?}");
            }
        }
        std::fs::write(&path, format!("{LABEL}{}\n", "07".repeat(32))).unwrap();
        let got = open(check);
        assert!(matches!(&got, Err(KeyError::Wrong { path: p }) if *p == path), "got {got:?}");
        std::fs::remove_file(&path).unwrap();
        let got = open(check);
        assert!(matches!(&got, Err(KeyError::Missing { path: p }) if *p == path), "got {got:?}");
        assert!(!path.exists());
        std::fs::write(&path, &text).unwrap();
        assert_eq!(open(check).unwrap(), Some(key));
    }
}
