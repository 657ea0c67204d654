//! `azulite bench ingest`: taking a tree in, beside computing the digests of the same files on as many threads.
//!
//! Each repetition computes digests, then digests and identification, then ingests into a fresh store, opening and
//! closing it included. The files were read once before, so that no turn pays for the disk they come from. Ratios are
//! taken within a turn, because a machine's speed changes with time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use azulite_storage::fs::remove_tree;

use super::files::{Work, compute, files};
use super::report::{Column, Report, Run};
use super::{Bounds, Case, Folder, Shown};
use crate::cli::args::Ingest;
use crate::cli::ingest;
use crate::config::Config;
use crate::identify::{Identifier, content};

const COLUMNS: [Column; 6] = [
    Column { title: "files/s", key: "files_s", digits: 0 },
    Column { title: "ingest MB/s", key: "mb_s", digits: 1 },
    Column { title: "digests MB/s", key: "limit_mb_s", digits: 1 },
    Column { title: "ratio", key: "ratio", digits: 2 },
    Column { title: "and identified MB/s", key: "identified_mb_s", digits: 1 },
    Column { title: "ratio", key: "identified_ratio", digits: 2 },
];

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
    let scanner = content::scanner(jobs.into(), config.identify.content_max_bytes)?;
    let identifier = Identifier::load(scanner)?;
    let (bytes, _) = compute(&files, jobs, Work::Digests)?;
    ensure!(bytes > 0, "there is nothing to take in");
    ensure!(bytes <= bounds.bytes, "{bytes} bytes are too many for the disk: an eighth of what is free may be used");
    let case = Case { size_bytes: u32::try_from(bytes / u64::try_from(files.len())?)?, producers: jobs };
    let mut report = Report::new("ingest", "jobs", &COLUMNS, bounds, Some(&folder.path));
    let mut run = Run::new(case);
    let mb = f64::from(u32::try_from(bytes / 1000)?) / 1e3;
    for repetition in 1..=bounds.repetitions {
        report.progress(shown, case, repetition);
        let (_, digests) = compute(&files, jobs, Work::Digests)?;
        let (_, identified) = compute(&files, jobs, Work::All(&identifier))?;
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
