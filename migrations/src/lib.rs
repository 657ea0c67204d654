//! Frozen descriptions of released on-disk formats and the steps between them.
//!
//! Called by `azulite migrate` only: `serve` opens exactly one format and never migrates (`storage::format`). One module
//! per released format, `m0001_first` and so on; each describes its format with constants of its own, because it must go
//! on reading bytes written years ago while the types of `storage` change. A step from one format to the next takes a
//! checkpoint first, which `--undo` goes back to. Of `storage` this crate uses `format` (stamp and lock) and the file
//! system door that `format` asks for.

use azulite_storage::format::{FORMAT, FormatError, read_format};
use azulite_storage::fs::Fs;
use std::fmt;
use std::path::{Path, PathBuf};

pub mod m0001_first;

/// The newest format that this crate knows; `serve` opens this one and no other.
pub const NEWEST: u32 = FORMAT;
/// The oldest format that can still be brought to [`NEWEST`].
pub const OLDEST: u32 = m0001_first::NUMBER;

/// One step between two neighbouring formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The format that the step reads.
    pub from: u32,
    /// The format that the step leaves behind.
    pub to: u32,
}

/// What has to be done to a store, in order; empty when it has the newest format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The format that was found.
    pub found: u32,
    /// The steps to [`NEWEST`].
    pub steps: Vec<Step>,
}

/// What `azulite migrate` was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bring the store to [`NEWEST`].
    Run,
    /// Say what [`Mode::Run`] would do.
    DryRun,
    /// Go back to the checkpoint of the last migration.
    Undo,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is no store at this place; `serve` makes one in the newest format.
    NoStore,
    /// The store has the newest format already, nothing was changed.
    UpToDate {
        /// That format.
        format: u32,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore => write!(f, "nothing to do: there is no store yet, serve makes one in format {NEWEST}"),
            Self::UpToDate { format } => write!(f, "nothing to do: the store has format {format}, the newest one"),
        }
    }
}

/// Why a store was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The store was made by a later version of azulite.
    #[error(
        "{path}: the store has format {found}, this azulite knows formats {OLDEST} to {NEWEST}: it was made by a later version, use that one"
    )]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The format of the store.
        found: u32,
    },
    /// No released version made this format.
    #[error(
        "{path}: the store has format {found}, this azulite knows formats {OLDEST} to {NEWEST}: no version made that one, look at the FORMAT file"
    )]
    Unknown {
        /// The data directory.
        path: PathBuf,
        /// The format of the store.
        found: u32,
    },
    /// `--undo` without a migration before it.
    #[error(
        "{path}: there is no checkpoint to go back to: format {OLDEST} is the first one, so nothing was ever migrated here"
    )]
    NoCheckpoint {
        /// The data directory.
        path: PathBuf,
    },
    /// The stamp could not be read, or there is data without one.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// What has to be done to the store in `dir`, which has format `found`.
///
/// # Errors
/// [`MigrateError::Newer`] and [`MigrateError::Unknown`].
pub fn plan(dir: &Path, found: u32) -> Result<Plan, MigrateError> {
    let path = || dir.to_owned();
    match found {
        _ if found > NEWEST => Err(MigrateError::Newer { path: path(), found }),
        _ if found < OLDEST => Err(MigrateError::Unknown { path: path(), found }),
        _ => Ok(Plan { found, steps: (found..NEWEST).map(|from| Step { from, to: from + 1 }).collect() }),
    }
}

/// Does what `mode` says to the store in `dir`. There is one format so far, so no store is ever changed, and no lock is
/// needed to say so.
///
/// # Errors
/// [`MigrateError`]; the store is as it was.
pub fn migrate(fs: &dyn Fs, dir: &Path, mode: Mode) -> Result<Outcome, MigrateError> {
    let Some(found) = read_format(fs, dir)? else {
        return match mode {
            Mode::Run | Mode::DryRun => Ok(Outcome::NoStore),
            Mode::Undo => Err(MigrateError::NoCheckpoint { path: dir.to_owned() }),
        };
    };
    let plan = plan(dir, found)?;
    // With the second format this becomes the loop over the steps.
    assert!(plan.steps.is_empty(), "no step has been written yet, so format {found} is the newest");
    match mode {
        Mode::Run | Mode::DryRun => Ok(Outcome::UpToDate { format: plan.found }),
        Mode::Undo => Err(MigrateError::NoCheckpoint { path: dir.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use azulite_storage::format::{FORMAT_FILE, create};
    use azulite_storage::fs::RealFs;

    fn stamped(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FORMAT_FILE), text).unwrap();
        dir
    }

    #[test]
    fn a_new_store_needs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        create(&RealFs, dir.path()).unwrap();
        for mode in [Mode::Run, Mode::DryRun] {
            assert_eq!(migrate(&RealFs, dir.path(), mode).unwrap(), Outcome::UpToDate { format: NEWEST });
        }
    }

    #[test]
    fn a_place_without_a_store_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        assert_eq!(migrate(&RealFs, &root, Mode::Run).unwrap(), Outcome::NoStore);
        assert!(!root.exists(), "migrate must not make the directory");
    }

    #[test]
    fn a_newer_format_is_refused_with_both_versions() {
        let dir = stamped("azulite 7\n");
        let got = migrate(&RealFs, dir.path(), Mode::Run).unwrap_err();
        assert!(matches!(got, MigrateError::Newer { found: 7, .. }), "got {got:?}");
        assert!(got.to_string().contains("has format 7, this azulite knows formats 1 to 1"), "{got}");
    }

    #[test]
    fn a_format_that_never_was_is_refused() {
        let dir = stamped("azulite 0\n");
        let got = migrate(&RealFs, dir.path(), Mode::DryRun);
        assert!(matches!(got, Err(MigrateError::Unknown { found: 0, .. })), "got {got:?}");
    }

    #[test]
    fn an_unreadable_stamp_is_refused() {
        let dir = stamped("something else\n");
        let got = migrate(&RealFs, dir.path(), Mode::Run);
        assert!(matches!(got, Err(MigrateError::Format(FormatError::Unreadable { .. }))), "got {got:?}");
    }

    #[test]
    fn there_is_nothing_to_undo() {
        let dir = stamped("azulite 1\n");
        for root in [dir.path(), &dir.path().join("nothing")] {
            let got = migrate(&RealFs, root, Mode::Undo);
            assert!(matches!(got, Err(MigrateError::NoCheckpoint { .. })), "got {got:?}");
        }
    }

    #[test]
    fn the_newest_format_has_a_description() {
        assert_eq!(NEWEST, m0001_first::NUMBER, "a new format needs its module and its step");
        assert_eq!(plan(Path::new("d"), NEWEST).unwrap(), Plan { found: NEWEST, steps: Vec::new() });
    }
}
