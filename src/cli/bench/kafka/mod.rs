//! `azulite bench kafka`: produce, consume and end-to-end latency of any Kafka server, through librdkafka.
//!
//! Every round makes topics of its own and deletes them. One round that is not measured goes first. Time, bytes and
//! memory are bounded; whatever was acknowledged has to come back, or the measurement fails.

mod cluster;
mod consume;
mod latency;
mod produce;

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::super::args::BenchKafka;
use super::report::{Column, Report, Run, float};
use super::server::{Server, usage};
use super::{Bounds, Case, Shown, asked};
use cluster::Cluster;

pub use cluster::{Acks, Codec};

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`, or several with commas between.
    pub bootstrap: String,
    /// Bytes of one record's value.
    pub size_bytes: u64,
    /// Partitions of the topics.
    pub partitions: u16,
    /// What an acknowledgement asks for.
    pub acks: Acks,
    /// How batches are compressed.
    pub codec: Codec,
    /// Seconds that each part of a repetition is measured.
    pub seconds: u32,
    /// Repetitions, at least three.
    pub repetitions: u32,
    /// Records per second while latency is measured.
    pub rate: u32,
    /// The server's process, when it cannot be found by its port.
    pub server_pid: Option<u32>,
}

impl From<&BenchKafka> for Options {
    fn from(args: &BenchKafka) -> Self {
        let BenchKafka { ref bootstrap, size, partitions, acks, codec, seconds, repetitions, rate, server_pid } = *args;
        let bootstrap = bootstrap.clone();
        Self { bootstrap, size_bytes: size, partitions, acks, codec, seconds, repetitions, rate, server_pid }
    }
}

/// Room for the time that a latency record carries.
const MIN_SIZE: u64 = 16;
const MAX_SIZE: u64 = 16 << 20;
/// Records of one repetition are no more than this, bytes.
const MAX_BYTES: u64 = 4 << 30;
/// Before each part of a repetition counts.
const RAMP: Duration = Duration::from_millis(500);

const COLUMNS: [Column; 13] = [
    Column { title: "produce MB/s", key: "produce_mb_s", digits: 1 },
    Column { title: "produce records/s", key: "produce_rec_s", digits: 0 },
    Column { title: "consume MB/s", key: "consume_mb_s", digits: 1 },
    Column { title: "consume records/s", key: "consume_rec_s", digits: 0 },
    Column { title: "end to end p50 ms", key: "e2e_p50_ms", digits: 2 },
    Column { title: "end to end p99 ms", key: "e2e_p99_ms", digits: 2 },
    Column { title: "end to end p99.9 ms", key: "e2e_p99_9_ms", digits: 2 },
    Column { title: "end to end max ms", key: "e2e_max_ms", digits: 2 },
    Column { title: "server CPU s/GB produced", key: "produce_cpu_s_per_gb", digits: 2 },
    Column { title: "server CPU s/GB consumed", key: "consume_cpu_s_per_gb", digits: 2 },
    Column { title: "server CPU at the fixed rate, %", key: "e2e_cpu_percent", digits: 1 },
    Column { title: "server resident MiB", key: "server_rss_mib", digits: 0 },
    Column { title: "server resident MiB, most so far", key: "server_peak_rss_mib", digits: 0 },
];

/// Measures the server at `options.bootstrap`.
///
/// # Errors
/// A server that does not answer, refuses a topic or a record, or loses one; options out of range.
pub fn run(options: &Options, shown: Shown, out: &mut impl Write) -> anyhow::Result<()> {
    let size_bytes = options.size_bytes;
    asked((MIN_SIZE..=MAX_SIZE).contains(&size_bytes), || {
        format!("--size {size_bytes}: a size from {MIN_SIZE} bytes to 16 MiB can be measured")
    })?;
    let bounds = Bounds {
        warm_up: RAMP,
        measured: Duration::from_secs(options.seconds.into()),
        repetitions: options.repetitions.max(3),
        bytes: MAX_BYTES,
    };
    let cluster = Cluster::connect(options)?;
    let server = Server::find(&options.bootstrap, options.server_pid)?;
    let case = Case { size_bytes: u32::try_from(size_bytes)?, producers: options.partitions };
    let mut report = Report::new("kafka", "partitions", &COLUMNS, bounds, None);
    note(&mut report, options, &cluster, server.as_ref());
    let warm_up = Bounds { measured: (bounds.measured / 2).max(Duration::from_secs(1)), ..bounds };
    round(&cluster, server.as_ref(), warm_up, &mut Run::new(case))?;
    let mut run = Run::new(case);
    for repetition in 1..=bounds.repetitions {
        report.progress(shown, case, repetition);
        round(&cluster, server.as_ref(), bounds, &mut run)?;
    }
    report.runs.push(run);
    report.print(shown.json, out)
}

fn note(report: &mut Report, options: &Options, cluster: &Cluster, server: Option<&Server>) {
    report.note("bootstrap", json!(options.bootstrap));
    report.note("cluster_id", json!(cluster.id()));
    report.note("server", server.map_or(json!(null), |server| json!(server.name())));
    report.note("server_pid", server.map_or(json!(null), |server| json!(server.pid())));
    report.note("client", json!(cluster::version()));
    report.note("acks", json!(options.acks.value()));
    report.note("codec", json!(options.codec.value()));
    report.note("e2e_rate_rec_s", json!(options.rate));
}

/// Everything once.
fn round(cluster: &Cluster, server: Option<&Server>, bounds: Bounds, run: &mut Run) -> anyhow::Result<()> {
    let topic = cluster.make_topic("load")?;
    let before = usage(server)?;
    let produced = produce::run(cluster, topic.name(), bounds)?;
    run.add("produce_mb_s", produced.mb_s);
    run.add("produce_rec_s", produced.rec_s);
    run.add_cpu("produce_cpu_s_per_gb", before, usage(server)?, produced.all.gigabytes());

    let before = usage(server)?;
    let consumed = consume::run(cluster, topic.name(), produced.all.records, bounds)?;
    run.add("consume_mb_s", consumed.mb_s);
    run.add("consume_rec_s", consumed.rec_s);
    run.add_cpu("consume_cpu_s_per_gb", before, usage(server)?, consumed.all.gigabytes());
    topic.delete()?;

    let topic = cluster.make_topic("latency")?;
    let before = usage(server)?;
    let latency = latency::run(cluster, topic.name(), bounds)?;
    let ms = |permille| super::report::ms(super::report::percentile(&latency.sorted, permille));
    run.add("e2e_p50_ms", ms(500));
    run.add("e2e_p99_ms", ms(990));
    run.add("e2e_p99_9_ms", ms(999));
    run.add("e2e_max_ms", ms(1000));
    let after = usage(server)?;
    run.add_cpu("e2e_cpu_percent", before, after, latency.took.as_secs_f64() / 100.0);
    if let Some(usage) = after {
        run.add("server_rss_mib", usage.resident_mib);
        run.add("server_peak_rss_mib", usage.peak_mib);
    }
    topic.delete()
}

/// Records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    records: u64,
    bytes: u64,
}

impl Amount {
    fn gigabytes(self) -> f64 {
        float(self.bytes) / 1e9
    }

    /// Megabytes and records per second.
    fn rates(self, took: Duration) -> (f64, f64) {
        let seconds = took.as_secs_f64().max(1e-9);
        (float(self.bytes) / 1e6 / seconds, float(self.records) / seconds)
    }
}

impl std::ops::Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let Self { records, bytes } = self;
        Self { records: records.saturating_sub(other.records), bytes: bytes.saturating_sub(other.bytes) }
    }
}

/// What one part of a repetition gave.
#[derive(Clone, Copy, Debug)]
struct Throughput {
    mb_s: f64,
    rec_s: f64,
    /// With what was not measured.
    all: Amount,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            bootstrap: "127.0.0.1:1".to_owned(),
            size_bytes: 1024,
            partitions: 1,
            acks: Acks::All,
            codec: Codec::None,
            seconds: 1,
            repetitions: 3,
            rate: 1000,
            server_pid: None,
        }
    }

    fn refused(options: &Options) -> String {
        format!("{:#}", run(options, Shown { json: true, progress: false }, &mut Vec::new()).unwrap_err())
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for size_bytes in [0, 15, MAX_SIZE + 1] {
            let said = refused(&Options { size_bytes, ..options() });
            assert!(said.contains(&size_bytes.to_string()), "{said}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        let said = refused(&Options { bootstrap: "nonsense::".to_owned(), ..options() });
        assert!(said.contains("nonsense::"), "{said}");
    }

    #[test]
    fn rates_are_of_decimal_megabytes() {
        let amount = Amount { records: 1000, bytes: 3_000_000 } - Amount { records: 500, bytes: 1_000_000 };
        assert_eq!(amount.rates(Duration::from_secs(2)), (1.0, 250.0));
        assert_eq!(amount.gigabytes(), 0.002);
    }
}
