//! `azulite bench log`: the store beside the raw limit, same sizes, same run, turn by turn.
//!
//! Each repetition opens a fresh store, gives every producer a partition and a lane of its own, and appends record
//! batches of one record. Ratios are taken within a turn, because a disk's speed changes with time.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use azulite_storage::{Append, BatchBuilder, CheckedBatch, Lane, NewTopic, Options, Partition, Store, clock};

use super::load::{self, Reply, Seen, Target};
use super::raw::Raw;
use super::report::{Column, Report, Run, ms, percentile};
use super::{Bounds, Case, Folder, Shown};

const COLUMNS: [Column; 9] = [
    Column { title: "log MB/s", key: "durable_mb_s", digits: 0 },
    Column { title: "raw MB/s", key: "raw_mb_s", digits: 0 },
    Column { title: "ratio", key: "ratio", digits: 2 },
    Column { title: "p50 ms", key: "p50_ms", digits: 3 },
    Column { title: "raw", key: "raw_p50_ms", digits: 3 },
    Column { title: "p99 ms", key: "p99_ms", digits: 3 },
    Column { title: "raw", key: "raw_p99_ms", digits: 3 },
    Column { title: "p99.9 ms", key: "p99_9_ms", digits: 3 },
    Column { title: "raw", key: "raw_p99_9_ms", digits: 3 },
];

/// All cases, each repetition first raw, then the log.
pub(super) fn run(folder: &Folder, cases: &[Case], bounds: Bounds, shown: Shown) -> anyhow::Result<Report> {
    let mut report = Report::new("log", "producers", &COLUMNS, bounds, Some(&folder.path));
    for case in cases {
        let mut run = Run::new(*case);
        for repetition in 1..=bounds.repetitions {
            report.progress(shown, *case, repetition);
            let raw = measure_raw(folder, *case, bounds)?;
            let log = measure_log(folder, *case, bounds)?;
            note(&mut run, &raw, &log);
        }
        report.runs.push(run);
    }
    Ok(report)
}

fn note(run: &mut Run, raw: &Seen, log: &Seen) {
    run.add("durable_mb_s", log.mb_s);
    run.add("raw_mb_s", raw.mb_s);
    run.add("ratio", log.mb_s / raw.mb_s);
    run.add("durable_rec_s", log.rec_s);
    run.add("raw_rec_s", raw.rec_s);
    let percentiles = [
        (500, "p50_ms", "raw_p50_ms", "p50_ratio"),
        (990, "p99_ms", "raw_p99_ms", "p99_ratio"),
        (999, "p99_9_ms", "raw_p99_9_ms", "p99_9_ratio"),
    ];
    for (permille, log_key, raw_key, ratio_key) in percentiles {
        let (log, raw) = (ms(percentile(&log.latencies, permille)), ms(percentile(&raw.latencies, permille)));
        run.add(log_key, log);
        run.add(raw_key, raw);
        run.add(ratio_key, log / raw);
    }
}

fn measure_raw(folder: &Folder, case: Case, bounds: Bounds) -> anyhow::Result<Seen> {
    let dir = folder.sub("raw")?;
    let raw = Raw::open(folder.fs.clone(), &dir)?;
    let seen = load::run(&raw, case, bounds)?;
    raw.close()?;
    azulite_storage::fs::remove_tree(&dir)?;
    Ok(seen)
}

fn measure_log(folder: &Folder, case: Case, bounds: Bounds) -> anyhow::Result<Seen> {
    let dir = folder.path.join("log");
    let mut options = Options::new(dir.clone());
    let under_way = usize::try_from(case.size_bytes)? * usize::from(case.producers);
    options.queue_bytes = options.queue_bytes.max(2 * under_way);
    let store = Store::open(folder.fs.clone(), options)?;
    let topic = NewTopic { name: "bench".into(), partitions: i32::from(case.producers), config: BTreeMap::new() };
    let topic = store.create_topic(topic)?;
    let log = Log { store, partitions: topic.partitions.clone() };
    let seen = load::run(&log, case, bounds)?;
    log.store.close();
    drop((log, topic));
    azulite_storage::fs::remove_tree(&dir).with_context(|| dir.display().to_string())?;
    Ok(seen)
}

struct Log {
    store: Store,
    partitions: Vec<Arc<Partition>>,
}

impl Target for Log {
    type Ready = Option<CheckedBatch>;

    fn prepare(&self, _producer: u16, value: &[u8]) -> Option<CheckedBatch> {
        let mut builder = BatchBuilder::with_capacity(value.len());
        builder.push(clock::now_ms(), None, Some(value));
        builder.build()
    }

    fn submit(&self, producer: u16, batch: Option<CheckedBatch>, reply: Arc<Reply>) {
        let partition = self.partitions.get(usize::from(producer)).cloned();
        let Some((batch, partition)) = batch.zip(partition) else {
            return reply.give(Err("no partition or batch for a producer".to_owned()));
        };
        let done = move |outcome: Result<_, azulite_storage::AppendError>| {
            reply.give(outcome.map(drop).map_err(|error| error.to_string()));
        };
        self.store.append(Lane(u64::from(producer)), vec![Append { partition, batch }], Box::new(done));
    }
}
