//! `azulite bench identify`: all digests and what each file is, beside ssdeep alone, the slowest of the digests.
//!
//! The files were read once before, so that no turn pays for the disk they come from. Ratios are taken within a turn,
//! because a machine's speed changes with time.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

use super::files::{Work, compute, files};
use super::report::{Column, Report, Run};
use super::{Bounds, Case, Shown};
use crate::identify::{Identifier, content};

const COLUMNS: [Column; 7] = [
    Column { title: "files/s", key: "files_s", digits: 0 },
    Column { title: "all MB/s", key: "mb_s", digits: 1 },
    Column { title: "ssdeep MB/s", key: "ssdeep_mb_s", digits: 1 },
    Column { title: "ratio", key: "ratio", digits: 2 },
    Column { title: "digests MB/s", key: "digests_mb_s", digits: 1 },
    Column { title: "identify MB/s", key: "identify_mb_s", digits: 1 },
    Column { title: "identify files/s", key: "identify_files_s", digits: 0 },
];

/// All repetitions over the files below `paths`.
pub(super) fn run(paths: &[PathBuf], jobs: u16, bounds: Bounds, shown: Shown) -> anyhow::Result<Report> {
    let files = files(paths);
    let scanner = content::scanner(jobs.into(), content::CONTENT_MAX_BYTES)?;
    let identifier = Identifier::load(scanner)?;
    let (bytes, _) = compute(&files, jobs, Work::All(&identifier))?;
    ensure!(bytes > 0, "there is nothing to identify");
    let count = f64::from(u32::try_from(files.len())?);
    let size_bytes = u32::try_from(bytes / u64::try_from(files.len())?).unwrap_or(u32::MAX);
    let case = Case { size_bytes, producers: jobs };
    let mut report = Report::new("identify", "jobs", &COLUMNS, bounds, None);
    let mut run = Run::new(case);
    let mb = f64::from(u32::try_from(bytes / 1000)?) / 1e3;
    for repetition in 1..=bounds.repetitions {
        report.progress(shown, case, repetition);
        let timed = |work| compute(&files, jobs, work).map(|(_, took): (_, Duration)| took.as_secs_f64());
        let ssdeep = timed(Work::Ssdeep)?;
        let digests = timed(Work::Digests)?;
        let identify = timed(Work::Identify(&identifier))?;
        let all = timed(Work::All(&identifier))?;
        run.add("files_s", count / all);
        run.add("mb_s", mb / all);
        run.add("ssdeep_mb_s", mb / ssdeep);
        run.add("ratio", ssdeep / all);
        run.add("digests_mb_s", mb / digests);
        run.add("identify_mb_s", mb / identify);
        run.add("identify_files_s", count / identify);
    }
    report.runs.push(run);
    Ok(report)
}
