//! `azulite bench`: what this machine's disk can do, what the log makes of it, what taking files in costs beside computing
//! their digests, what identifying them and scanning them with YARA rules costs, what a dispatcher does over HTTP, and what a Kafka server does.
//!
//! Called by `main` with the checked flags. What is written to disk goes to a folder of its own below the directory asked
//! for, which is removed at the end; time and bytes are bounded. Figures are medians over repetitions with their spread.

pub mod blobs;
mod disk;
pub mod events;
mod files;
mod identify;
mod ingest;
pub mod kafka;
pub mod leases;
mod load;
mod log;
mod raw;
mod report;
mod server;
mod yara;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use azulite_storage::fs::{Fs, FsLock, RealFs, create_dir_durably, remove_tree};

use crate::config::Config;

/// One size at one number of producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Bytes of one record.
    pub size_bytes: u32,
    /// Producers that each wait for one acknowledgement before they send the next record.
    pub producers: u16,
}

/// How results are shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// One JSON object instead of a table.
    pub json: bool,
    /// A line on standard error for each measurement.
    pub progress: bool,
}

/// How long, how often and how much is measured.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    warm_up: Duration,
    measured: Duration,
    repetitions: u32,
    /// Bytes of records in one repetition, at most.
    bytes: u64,
}

const KIB: u32 = 1024;
/// What `bench log` measures when neither size nor producers are given: the cases the log is built for.
const LOG_CASES: [Case; 4] = [
    Case { size_bytes: 16 * KIB, producers: 64 },
    Case { size_bytes: 128 * KIB, producers: 8 },
    Case { size_bytes: KIB, producers: 64 },
    Case { size_bytes: KIB, producers: 1 },
];
/// The largest record measured.
const MAX_SIZE: u32 = 16 << 20;
/// The most that producers may have under way.
const MAX_UNDER_WAY: u64 = 1 << 30;
/// The most that one repetition writes, where there is room for it.
const MAX_BYTES: u64 = 6 << 30;
/// Less than this per repetition says nothing.
const MIN_BYTES: u64 = 128 << 20;

/// Something was asked for that cannot be measured: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(String);

/// Refuses what cannot be measured.
fn asked(possible: bool, otherwise: impl FnOnce() -> String) -> Result<(), BadRequest> {
    if possible { Ok(()) } else { Err(BadRequest(otherwise())) }
}

/// Measures the disk that holds `dir`.
///
/// # Errors
/// Whatever the disk or `out` refuse; too little room is an error.
pub fn disk(dir: &Path, shown: Shown, out: &mut impl Write) -> anyhow::Result<()> {
    let bounds = Bounds {
        warm_up: Duration::from_millis(300),
        measured: Duration::from_millis(1200),
        repetitions: 3,
        bytes: room(dir)?,
    };
    let folder = Folder::create(dir)?;
    let report = disk::run(&folder, bounds, shown)?;
    report.print(shown.json, out)
}

/// Measures the log beside the disk that holds `dir`: one case when a size or a number of producers is given (the other
/// is then 16 KiB or 64), else those the log is built for. `repetitions` is at least three.
///
/// # Errors
/// As for [`disk()`].
pub fn log(
    dir: &Path,
    size_bytes: Option<u64>,
    producers: Option<u16>,
    repetitions: Option<u32>,
    shown: Shown,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let cases = log_cases(size_bytes, producers)?;
    let bounds = Bounds {
        warm_up: Duration::from_millis(500),
        measured: Duration::from_millis(2500),
        repetitions: repetitions.unwrap_or(3).max(3),
        bytes: room(dir)?,
    };
    let folder = Folder::create(dir)?;
    let report = log::run(&folder, &cases, bounds, shown)?;
    report.print(shown.json, out)
}

/// Measures how fast files are taken in to the disk that holds `dir`, beside their digests alone.
///
/// # Errors
/// As for [`disk()`]; also when nothing below `paths` can be read.
pub fn ingest(
    dir: &Path,
    config: &Config,
    paths: &[PathBuf],
    jobs: Option<u16>,
    repetitions: Option<u32>,
    shown: Shown,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let jobs = jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let bounds = Bounds {
        warm_up: Duration::ZERO,
        measured: Duration::ZERO,
        repetitions: repetitions.unwrap_or(5).max(3),
        bytes: room(dir)?,
    };
    let folder = Folder::create(dir)?;
    let report = ingest::run(&folder, config, paths, u16::try_from(jobs)?, bounds, shown)?;
    report.print(shown.json, out)
}

/// Measures digests and identification of the files below `paths` on `jobs` threads, one unless told otherwise.
///
/// # Errors
/// When nothing below `paths` can be read, or `out` refuses.
pub fn identify(
    paths: &[PathBuf],
    jobs: Option<u16>,
    repetitions: Option<u32>,
    shown: Shown,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let repetitions = repetitions.unwrap_or(5).max(3);
    let bounds = Bounds { warm_up: Duration::ZERO, measured: Duration::ZERO, repetitions, bytes: 0 };
    identify::run(paths, jobs.unwrap_or(1), bounds, shown)?.print(shown.json, out)
}

/// Measures the scanners of the YARA worker over the files below `paths`, on one and on two threads, or on `threads`, beside
/// the tool `yara` where there is one.
///
/// # Errors
/// When nothing below `paths` can be read, a rule file does not compile, the tool that was named fails, or `out` refuses.
pub fn yara(
    paths: &[PathBuf],
    rules: &Path,
    tool: Option<&Path>,
    threads: Option<u16>,
    repetitions: Option<u32>,
    shown: Shown,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let repetitions = repetitions.unwrap_or(3).max(3);
    let bounds = Bounds { warm_up: Duration::ZERO, measured: Duration::ZERO, repetitions, bytes: 0 };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&path).map(|folder| folder.join("yara")).find(|tool| tool.is_file());
    let tool = tool.map(Path::to_owned).or_else(found);
    let threads = threads.map_or_else(|| vec![1, 2], |threads| vec![threads]);
    yara::run(&yara::Asked { paths, rules, tool, threads: &threads }, bounds, shown)?.print(shown.json, out)
}

fn log_cases(size_bytes: Option<u64>, producers: Option<u16>) -> anyhow::Result<Vec<Case>> {
    if size_bytes.is_none() && producers.is_none() {
        return Ok(LOG_CASES.to_vec());
    }
    let size = size_bytes.unwrap_or(u64::from(16 * KIB));
    asked((1..=u64::from(MAX_SIZE)).contains(&size), || {
        format!("--size {size}: a size from 1 byte to 16 MiB can be measured")
    })?;
    let producers = producers.unwrap_or(64);
    asked(size * u64::from(producers) <= MAX_UNDER_WAY, || {
        format!("{producers} producers of {size} bytes need more than 1 GiB of memory")
    })?;
    Ok(vec![Case { size_bytes: u32::try_from(size)?, producers }])
}

/// Bytes that one repetition may write: an eighth of what is free, so that the disk is never close to full.
fn room(dir: &Path) -> anyhow::Result<u64> {
    let dir = existing(dir);
    let free = RealFs.room(dir).with_context(|| dir.display().to_string())?.free;
    let bytes = (free / 8).min(MAX_BYTES);
    ensure!(bytes >= MIN_BYTES, "{}: {free} bytes are free, at least 1 GiB is needed to measure", dir.display());
    Ok(bytes)
}

/// `dir`, or the nearest folder above it that exists: the data directory need not have been made yet.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."))
}

const FOLDER_PREFIX: &str = ".azulite-bench-";

/// The folder everything is written to, removed when dropped. Locked, so that what a killed run left is told from what
/// another run uses.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    fs: Arc<dyn Fs>,
    _lock: Box<dyn FsLock>,
}

impl Folder {
    fn create(dir: &Path) -> anyhow::Result<Self> {
        let fs: Arc<dyn Fs> = Arc::new(RealFs);
        let dir = existing(dir).canonicalize()?;
        remove_leftovers(fs.as_ref(), &dir);
        let path = dir.join(format!("{FOLDER_PREFIX}{}", std::process::id()));
        create_dir_durably(fs.as_ref(), &path).with_context(|| path.display().to_string())?;
        let lock = fs.lock(&path.join("LOCK")).with_context(|| path.display().to_string())?;
        Ok(Self { path, fs, _lock: lock })
    }

    /// A new folder below this one, for one repetition.
    fn sub(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        create_dir_durably(self.fs.as_ref(), &path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the folder of the measurement could not be removed");
        }
    }
}

/// Removes folders of runs that were killed.
fn remove_leftovers(fs: &dyn Fs, dir: &Path) {
    let Ok(entries) = fs.list(dir) else { return };
    for entry in entries.iter().filter(|e| e.is_dir && e.name.starts_with(FOLDER_PREFIX)) {
        let path = dir.join(OsStr::new(&entry.name));
        if fs.lock(&path.join("LOCK")).is_ok()
            && let Err(error) = remove_tree(&path)
        {
            tracing::warn!(path = %path.display(), %error, "what a killed measurement left could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flag_makes_one_case_and_none_the_usual_ones() {
        assert_eq!(log_cases(None, None).unwrap(), LOG_CASES);
        assert_eq!(log_cases(Some(100), None).unwrap(), [Case { size_bytes: 100, producers: 64 }]);
        assert_eq!(log_cases(None, Some(3)).unwrap(), [Case { size_bytes: 16384, producers: 3 }]);
        for (size, producers) in [(0, 1), (1 << 30, 1), (16 << 20, 1024)] {
            assert!(log_cases(Some(size), Some(producers)).is_err(), "{size} x {producers}");
        }
    }

    #[test]
    fn a_folder_leaves_nothing_behind_and_clears_what_a_killed_run_left() {
        let dir = tempfile::tempdir().unwrap();
        let killed = dir.path().join(format!("{FOLDER_PREFIX}0"));
        std::fs::create_dir_all(killed.join("log")).unwrap();
        let folder = Folder::create(&dir.path().join("not").join("there")).unwrap();
        folder.sub("raw").unwrap();
        assert!(!killed.exists() && folder.path.join("raw").is_dir());
        remove_leftovers(&RealFs, dir.path());
        assert!(folder.path.is_dir(), "a folder in use stays");
        drop(folder);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
