//! What a sandbox says about a file: read in bounded memory, whatever it says, and turned into findings.

mod collect;
mod findings;
mod kept;
pub(super) mod scan;

#[cfg(test)]
mod tests;

use std::io::{BufWriter, Read, Write};

pub(super) use collect::Collector;
pub(super) use findings::{FEATURES, Findings};
pub(super) use kept::first_chars;
pub(super) use scan::ScanError;

/// What one reading of a report brought.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) findings: Findings,
    /// The log of the sandbox about its own work.
    pub(super) log: String,
    /// API calls the report has, and how many of them are not in the copy.
    pub(super) calls: u64,
    pub(super) calls_left_out: u64,
}

/// Reads a report; `copy` gets it without the API calls beyond the limit.
///
/// # Errors
/// [`ScanError`]; nothing of the report counts then.
pub(super) fn read(input: &mut dyn Read, copy: &mut dyn Write, mut collector: Collector) -> Result<Reading, ScanError> {
    let mut copy = BufWriter::with_capacity(128 << 10, copy);
    let cut = scan::scan(input, &mut copy, &mut collector)?;
    let mut read = collector.finish();
    if cut > 0 {
        read.findings.errors.push(format!("report: {cut} texts were longer than 8 MiB and are cut"));
    }
    Ok(read)
}
