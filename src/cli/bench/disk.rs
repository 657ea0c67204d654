//! `azulite bench disk`: the raw limit per size and number of writers.

use super::raw::Raw;
use super::report::{Column, Report, Run, ms, percentile};
use super::{Bounds, Case, Folder, KIB, Shown, load};

const SIZES: [u32; 3] = [KIB, 16 * KIB, 128 * KIB];
const WRITERS: [u16; 3] = [1, 8, 64];

const COLUMNS: [Column; 7] = [
    Column { title: "MB/s", key: "append_mb_s", digits: 0 },
    Column { title: "records/s", key: "append_rec_s", digits: 0 },
    Column { title: "sync p50 ms", key: "sync_p50_ms", digits: 3 },
    Column { title: "sync p99 ms", key: "sync_p99_ms", digits: 3 },
    Column { title: "ack p50 ms", key: "ack_p50_ms", digits: 3 },
    Column { title: "ack p99 ms", key: "ack_p99_ms", digits: 3 },
    Column { title: "ack p99.9 ms", key: "ack_p99_9_ms", digits: 3 },
];

/// Every size with every number of writers. `sync` is one write with its fdatasync, `ack` what one writer waits.
pub(super) fn run(folder: &Folder, bounds: Bounds, shown: Shown) -> anyhow::Result<Report> {
    let mut report = Report::new("disk", "writers", &COLUMNS, bounds, Some(&folder.path));
    for size_bytes in SIZES {
        for producers in WRITERS {
            let case = Case { size_bytes, producers };
            let mut run = Run::new(case);
            for repetition in 1..=bounds.repetitions {
                report.progress(shown, case, repetition);
                measure(folder, case, bounds, &mut run)?;
            }
            report.runs.push(run);
        }
    }
    Ok(report)
}

fn measure(folder: &Folder, case: Case, bounds: Bounds, run: &mut Run) -> anyhow::Result<()> {
    let dir = folder.sub("raw")?;
    let raw = Raw::open(folder.fs.clone(), &dir)?;
    let seen = load::run(&raw, case, bounds)?;
    let mut syncs = raw.close()?;
    azulite_storage::fs::remove_tree(&dir)?;
    syncs.sort_unstable();
    run.add("append_mb_s", seen.mb_s);
    run.add("append_rec_s", seen.rec_s);
    run.add("sync_p50_ms", ms(percentile(&syncs, 500)));
    run.add("sync_p99_ms", ms(percentile(&syncs, 990)));
    run.add("ack_p50_ms", ms(percentile(&seen.latencies, 500)));
    run.add("ack_p99_ms", ms(percentile(&seen.latencies, 990)));
    run.add("ack_p99_9_ms", ms(percentile(&seen.latencies, 999)));
    Ok(())
}
