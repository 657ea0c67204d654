//! `azulite bench ingest`: taking a tree in, beside computing the digests of the same files on as many threads.
//!
//! Each repetition computes digests, then digests and identification, then ingests into a fresh store, opening and
//! closing it included. The files were read once before, so that no turn pays for the disk they come from. Ratios are
//! taken within a turn, because a machine's speed changes with time.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use azulite_storage::fs::remove_tree;

use super::report::{Column, Report, Run};
use super::{Bounds, Case, Folder, Shown};
use crate::cli::args::Ingest;
use crate::cli::ingest;
use crate::cli::walk::{Found, Walked, open, walk};
use crate::config::Config;
use crate::identify::{Digester, Identifier, Mode};

const COLUMNS: [Column; 6] = [
    Column { title: "files/s", key: "files_s", digits: 0 },
    Column { title: "ingest MB/s", key: "mb_s", digits: 1 },
    Column { title: "digests MB/s", key: "limit_mb_s", digits: 1 },
    Column { title: "ratio", key: "ratio", digits: 2 },
    Column { title: "and identified MB/s", key: "identified_mb_s", digits: 1 },
    Column { title: "ratio", key: "identified_ratio", digits: 2 },
];
/// Bytes that are read and hashed at once.
const PIECE: u64 = 128 << 10;

/// All repetitions over the files below `paths`.
pub(super) fn run(
    folder: &Folder,
    config: &Config,
    paths: &[PathBuf],
    jobs: u16,
    bounds: Bounds,
    shown: Shown,
) -> anyhow::Result<Report> {
    let files = files(paths);
    let identifier = Identifier::load()?;
    let (bytes, _) = compute(&files, jobs, None)?;
    ensure!(bytes > 0, "there is nothing to take in");
    ensure!(bytes <= bounds.bytes, "{bytes} bytes are too many for the disk: an eighth of what is free may be used");
    let case = Case { size_bytes: u32::try_from(bytes / u64::try_from(files.len())?)?, producers: jobs };
    let mut report = Report::new("ingest", "jobs", &COLUMNS, bounds, Some(&folder.path));
    let mut run = Run::new(case);
    let mb = f64::from(u32::try_from(bytes / 1000)?) / 1e3;
    for repetition in 1..=bounds.repetitions {
        report.progress(shown, case, repetition);
        let (_, digests) = compute(&files, jobs, None)?;
        let (_, identified) = compute(&files, jobs, Some(&identifier))?;
        let (count, ingested) = take_in(folder, config, paths, jobs)?;
        let [digests, identified, ingested] = [digests, identified, ingested].map(|took| took.as_secs_f64());
        run.add("files_s", f64::from(u32::try_from(count)?) / ingested);
        run.add("mb_s", mb / ingested);
        run.add("limit_mb_s", mb / digests);
        run.add("ratio", digests / ingested);
        run.add("identified_mb_s", mb / identified);
        run.add("identified_ratio", identified / ingested);
    }
    report.runs.push(run);
    Ok(report)
}

fn files(paths: &[PathBuf]) -> Vec<Found> {
    let mut files = Vec::new();
    for path in paths {
        walk(path, None, &mut |walked| {
            if let Walked::File(found) = walked {
                files.push(found);
            }
            true
        });
    }
    files
}

/// Computes all digests, and with an `identifier` what the files are; tells the bytes read and the time it took.
fn compute(files: &[Found], jobs: u16, identifier: Option<&Identifier>) -> anyhow::Result<(u64, Duration)> {
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> anyhow::Result<()> {
        while let Some(found) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let size = one(found, identifier).with_context(|| found.path.display().to_string())?;
            bytes.fetch_add(size, Ordering::Relaxed);
        }
        Ok(())
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok((bytes.into_inner(), begun.elapsed()))
}

fn one(found: &Found, identifier: Option<&Identifier>) -> anyhow::Result<u64> {
    let mut file = open(found)?;
    let mut left = file.metadata()?.len();
    let mut digester = Digester::new(Mode::Full);
    loop {
        let mut piece = Vec::with_capacity(usize::try_from((left + 1).min(PIECE))?);
        let read = u64::try_from(file.by_ref().take(PIECE).read_to_end(&mut piece)?)?;
        if read == 0 {
            break;
        }
        left = left.saturating_sub(read);
        digester.update(piece.into());
    }
    if let Some(identifier) = identifier {
        file.seek(SeekFrom::Start(0))?;
        identifier.identify(&file)?;
    }
    Ok(digester.finish()?.size)
}

/// Ingests into a store of its own, which is removed.
fn take_in(folder: &Folder, config: &Config, paths: &[PathBuf], jobs: u16) -> anyhow::Result<(u64, Duration)> {
    let mut config = config.clone();
    config.storage.data_dir = folder.path.join("ingest");
    let args = Ingest {
        paths: paths.to_vec(),
        source: "bench".to_owned(),
        references: Vec::new(),
        security: None,
        timestamp: None,
        label: "content".to_owned(),
        jobs: Some(jobs),
        resume: false,
        url: None,
    };
    let begun = Instant::now();
    let count = ingest::quietly(&config, &args).map_err(|refusal| anyhow!("{refusal}"))?;
    let took = begun.elapsed();
    remove_tree(&config.storage.data_dir).with_context(|| config.storage.data_dir.display().to_string())?;
    Ok((count, took))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_small_tree_is_measured_and_nothing_stays_behind() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        for number in 0..5 {
            std::fs::write(tree.join(number.to_string()), format!("file {number}\n").repeat(1000)).unwrap();
        }
        let disk = place.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let mut config = Config::default();
        config.storage.segment_bytes = 1 << 20;
        let mut out = Vec::new();
        let shown = Shown { json: true, progress: false };
        super::super::ingest(&disk, &config, &[tree], Some(2), Some(3), shown, &mut out).unwrap();
        let printed: Value = serde_json::from_slice(&out).unwrap();
        for key in ["files_s", "mb_s", "limit_mb_s", "ratio", "identified_mb_s", "identified_ratio"] {
            assert!(printed[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {printed}");
        }
        assert_eq!(std::fs::read_dir(&disk).unwrap().count(), 0);
    }
}
