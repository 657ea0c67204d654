//! What a run did, counted and told.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::output::{self, complain, printable};

/// Failures that are kept for the list at the end; more are only counted.
const FAILURES_KEPT: usize = 100_000;

/// One file that was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Failure {
    /// Its path.
    pub(super) path: String,
    /// Why.
    pub(super) error: String,
}

/// Counts of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Report {
    /// Files looked at.
    pub(super) files: u64,
    /// Bytes of files that were stored in this run.
    pub(super) bytes: u64,
    /// Events that were published in this run.
    pub(super) announced: u64,
    /// Files that had been announced before, or were found a second time in this run.
    pub(super) known: u64,
    /// Files that `--resume` did not look at again.
    pub(super) resumed: u64,
    /// Files without bytes, which cannot be stored.
    pub(super) empty: u64,
    /// Paths that could not be taken in.
    pub(super) failed: u64,
    /// The paths, up to 100,000 of them.
    pub(super) failures: Vec<Failure>,
    /// Whether the run ended before its end.
    pub(super) interrupted: bool,
    /// How long it took.
    pub(super) seconds: f64,
}

impl Report {
    /// Counts a path that could not be taken in.
    pub(super) fn fail(&mut self, path: &Path, error: impl Into<String>) {
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(Failure { path: path.to_string_lossy().into_owned(), error: error.into() });
        }
    }

    /// Names what failed, and prints the summary.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn print(&self, json: bool, out: &mut impl Write) -> io::Result<()> {
        for Failure { path, error } in &self.failures {
            complain(&format!("not ingested: {}: {}", printable(path), printable(error)));
        }
        let left_out = self.failed.saturating_sub(u64::try_from(self.failures.len()).unwrap_or(u64::MAX));
        if left_out > 0 {
            complain(&format!("not ingested: {left_out} more"));
        }
        if json {
            return output::print_json(out, self);
        }
        writeln!(out, "{}", self.line())?;
        out.flush()
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{} files in {:.1} s: {} announced ({}), {} known already",
            self.files,
            self.seconds,
            self.announced,
            HumanBytes(self.bytes),
            self.known
        );
        for (count, what) in [(self.resumed, "done by the last run"), (self.empty, "empty"), (self.failed, "failed")] {
            if count > 0 {
                line.push_str(&format!(", {count} {what}"));
            }
        }
        line
    }
}

/// The line on a terminal while a run goes on.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Shown or not.
    pub(super) fn new(shown: bool) -> Self {
        let bar = if shown { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        if shown {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    /// Shows how far the run is.
    pub(super) fn show(&self, report: &Report) {
        if !self.0.is_hidden() {
            let Report { files, bytes, known, failed, .. } = report;
            self.0.set_message(format!("{files} files, {} new, {known} known, {failed} failed", HumanBytes(*bytes)));
        }
    }

    /// Removes it.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_only_what_happened() {
        let mut report = Report { files: 3, announced: 2, bytes: 2048, known: 1, seconds: 0.25, ..Report::default() };
        assert_eq!(report.line(), "3 files in 0.2 s: 2 announced (2.00 KiB), 1 known already");
        report.fail(Path::new("x"), "gone");
        assert!(report.line().ends_with("1 known already, 1 failed"), "{}", report.line());
    }

    #[test]
    fn json_names_the_failures() {
        let mut report = Report::default();
        report.fail(Path::new("x"), "gone");
        let mut out = Vec::new();
        report.print(true, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&value["failed"], &value["failures"][0]["path"]), (&1.into(), &"x".into()));
    }
}
