//! Regular files below the paths that a user named.
//!
//! Symbolic links are followed only when the user named them; devices, pipes and sockets are left out. Names come in
//! order, so that two runs over the same tree go the same way.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// A regular file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its path below the directory that the user named; its own name when the user named the file.
    pub(super) name: PathBuf,
    /// True when the user named it.
    pub(super) explicit: bool,
}

/// What failed at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Looking at it.
    Stat,
    /// Reading the directory.
    WalkDir,
    /// Opening or reading the file.
    Open,
}

impl Step {
    /// The words of upstream's messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::WalkDir => "walk dir",
            Self::Open => "open",
        }
    }
}

/// A path that could not be dealt with.
#[derive(Debug)]
pub(super) struct Trouble {
    /// The path.
    pub(super) path: PathBuf,
    /// What failed.
    pub(super) step: Step,
    /// Why.
    pub(super) error: io::Error,
}

/// What a walk comes upon.
#[derive(Debug)]
pub(super) enum Walked {
    /// A regular file.
    File(Found),
    /// Something that cannot be looked at.
    Trouble(Trouble),
}

/// A directory, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    /// Of what is at `path`; `None` when nothing is.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self(meta.dev(), meta.ino()))
    }
}

/// Hands over every regular file at or below `root`, until `take` returns false. The directory `without` is left out.
/// False when it was told to end.
pub(super) fn walk(root: &Path, without: Option<Identity>, take: &mut dyn FnMut(Walked) -> bool) -> bool {
    let trouble = |step, error| Walked::Trouble(Trouble { path: root.to_owned(), step, error });
    let meta = match fs::metadata(root) {
        Ok(meta) => meta,
        Err(error) => return take(trouble(Step::Stat, error)),
    };
    if meta.is_file() {
        let name = root.file_name().map_or_else(|| root.to_owned(), PathBuf::from);
        return take(Walked::File(Found { path: root.to_owned(), name, explicit: true }));
    }
    if !meta.is_dir() {
        return take(trouble(Step::Open, io::Error::other("not a regular file")));
    }
    let mut ahead = vec![(root.to_owned(), true)];
    while let Some((path, is_dir)) = ahead.pop() {
        let goes_on = match is_dir {
            false => {
                let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
                take(Walked::File(Found { path, name, explicit: false }))
            }
            true if without.is_some() && Identity::of(&path) == without => true,
            true => match entries(&path) {
                Ok(mut below) => {
                    ahead.append(&mut below);
                    true
                }
                Err(error) => take(Walked::Trouble(Trouble { path, step: Step::WalkDir, error })),
            },
        };
        if !goes_on {
            return false;
        }
    }
    true
}

/// Files and directories (true) in a directory, last name first.
fn entries(path: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() || kind.is_dir() {
            names.push((entry.file_name(), kind.is_dir()));
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names.into_iter().map(|(name, is_dir)| (path.join(name), is_dir)).collect())
}

/// Opens a file that was found, as what it was then: a pipe put in its place does not hang, a link is not followed.
///
/// # Errors
/// As the operating system reports them.
pub(super) fn open(found: &Found) -> io::Result<File> {
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if !found.explicit {
        flags |= OFlags::NOFOLLOW;
    }
    let file = File::from(rustix::fs::open(&found.path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path, without: Option<Identity>) -> Vec<String> {
        let mut names = Vec::new();
        walk(root, without, &mut |walked| {
            match walked {
                Walked::File(found) => names.push(found.name.display().to_string()),
                Walked::Trouble(trouble) => names.push(format!("{} {}", trouble.step.as_str(), trouble.error.kind())),
            }
            true
        });
        names
    }

    #[test]
    fn files_come_in_order_without_links_pipes_and_the_directory_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for directory in ["b", "store/log"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in ["b/2", "b/1", "c", "a", "store/log/x"] {
            fs::write(root.join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
        std::os::unix::fs::symlink(root, root.join("loop")).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        assert_eq!(names(root, Identity::of(&root.join("store"))), ["a", "b/1", "b/2", "c"]);
        assert_eq!(names(&root.join("link"), None), ["link"], "a link that was named is followed");
        assert_eq!(names(&root.join("none"), None), ["stat entity not found"]);
        assert_eq!(names(&root.join("socket"), None), ["open other error"]);
    }

    #[test]
    fn a_link_put_in_place_of_a_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let found = |explicit| Found { path: path.clone(), name: "f".into(), explicit };
        assert!(open(&found(false)).is_err());
        assert!(open(&found(true)).is_ok());
    }

    #[test]
    fn a_walk_ends_when_told() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["1", "2"] {
            fs::write(folder.path().join(file), "x").unwrap();
        }
        let mut seen = 0;
        assert!(!walk(folder.path(), None, &mut |_| {
            seen += 1;
            false
        }));
        assert_eq!(seen, 1);
    }
}
