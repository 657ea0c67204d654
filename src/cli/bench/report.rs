//! What a measurement says: the machine, medians over the repetitions, their spread; as a table or as JSON.

use std::fs::read_to_string;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::server::Usage;
use super::{Bounds, Case, KIB, Shown};

/// One column of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) key: &'static str,
    /// Digits behind the point.
    pub(super) digits: usize,
}

/// One case and what each repetition of it gave.
#[derive(Debug)]
pub(super) struct Run {
    case: Case,
    samples: Vec<(&'static str, Vec<f64>)>,
}

impl Run {
    pub(super) fn new(case: Case) -> Self {
        Self { case, samples: Vec::new() }
    }

    /// Notes what one repetition gave for `key`.
    pub(super) fn add(&mut self, key: &'static str, value: f64) {
        match self.samples.iter_mut().find(|(k, _)| *k == key) {
            Some((_, values)) => values.push(value),
            None => self.samples.push((key, vec![value])),
        }
    }

    /// Notes the CPU seconds between two looks at a server, per unit of work.
    pub(super) fn add_cpu(&mut self, key: &'static str, before: Option<Usage>, after: Option<Usage>, work: f64) {
        if let (Some(before), Some(after)) = (before, after)
            && work > 0.0
        {
            self.add(key, (after.cpu_s - before.cpu_s) / work);
        }
    }

    fn values(&self, key: &str) -> &[f64] {
        self.samples.iter().find(|(k, _)| *k == key).map_or(&[], |(_, values)| values)
    }

    fn to_json(&self, producers: &str) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("size_bytes".into(), json!(self.case.size_bytes));
        object.insert(producers.into(), json!(self.case.producers));
        let mut spreads = Map::new();
        for (key, values) in &self.samples {
            object.insert((*key).to_owned(), json!(rounded(median(values))));
            let (low, high) = spread(values);
            spreads.insert((*key).to_owned(), json!([rounded(low), rounded(high)]));
        }
        object.insert("spread".into(), Value::Object(spreads));
        object
    }
}

/// A finished measurement.
#[derive(Debug)]
pub(super) struct Report {
    name: &'static str,
    producers: &'static str,
    columns: &'static [Column],
    bounds: Bounds,
    machine: Machine,
    notes: Vec<(&'static str, Value)>,
    pub(super) runs: Vec<Run>,
}

impl Report {
    /// `producers` is what the writers of this measurement are called; `dir` lies on the disk measured, if one is.
    pub(super) fn new(
        name: &'static str,
        producers: &'static str,
        columns: &'static [Column],
        bounds: Bounds,
        dir: Option<&Path>,
    ) -> Self {
        Self { name, producers, columns, bounds, machine: Machine::look(dir), notes: Vec::new(), runs: Vec::new() }
    }

    /// Says something more about what is measured. A report with notes has a line for each figure.
    pub(super) fn note(&mut self, key: &'static str, value: Value) {
        self.notes.push((key, value));
    }

    pub(super) fn progress(&self, shown: Shown, case: Case, repetition: u32) {
        if shown.progress {
            let (size, count, of) = (size_text(case.size_bytes), case.producers, self.bounds.repetitions);
            eprintln!("bench {}: {size} x {count} {}, repetition {repetition} of {of}", self.name, self.producers);
        }
    }

    /// Writes the object or the table.
    pub(super) fn print(&self, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
        if json {
            writeln!(out, "{:#}", self.to_json())?
        } else {
            write!(out, "{}", self.to_text())?
        }
        Ok(())
    }

    /// The figures of 16 KiB from 64 producers (or of the first case) stand at the top, all of them in `runs`.
    fn to_json(&self) -> Value {
        let usual = Case { size_bytes: 16 * KIB, producers: 64 };
        let first = self.runs.iter().find(|run| run.case == usual).or(self.runs.first());
        let mut object = first.map(|run| run.to_json(self.producers)).unwrap_or_default();
        object.extend(self.notes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        object.insert("bench".into(), json!(self.name));
        object.insert("machine".into(), self.machine.to_json());
        object.insert("repetitions".into(), json!(self.bounds.repetitions));
        if !self.bounds.measured.is_zero() {
            object.insert("seconds".into(), json!(self.bounds.measured.as_secs_f64()));
        }
        let runs = self.runs.iter().map(|run| Value::Object(run.to_json(self.producers)));
        object.insert("runs".into(), runs.collect());
        Value::Object(object)
    }

    fn to_text(&self) -> String {
        if !self.notes.is_empty() {
            return self.to_lines();
        }
        let titles = ["size", self.producers].into_iter().chain(self.columns.iter().map(|c| c.title));
        let mut rows = vec![titles.map(str::to_owned).collect::<Vec<_>>()];
        rows.extend(self.runs.iter().map(|run| self.row(run)));
        let Bounds { repetitions, measured, .. } = self.bounds;
        // Without a time of its own each repetition takes as long as its work.
        let length = if measured.is_zero() { String::new() } else { format!(" of {:.1} s", measured.as_secs_f64()) };
        format!(
            "{}\nmedian of {repetitions} repetitions{length}, in brackets the least and the most\n\n{}",
            self.machine.to_text(),
            aligned(&rows)
        )
    }

    fn row(&self, run: &Run) -> Vec<String> {
        let mut row = vec![size_text(run.case.size_bytes), run.case.producers.to_string()];
        row.extend(self.columns.iter().map(|column| cell(column, run.values(column.key))));
        row
    }

    /// For many figures of few cases.
    fn to_lines(&self) -> String {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let notes = self.notes.iter().map(|(key, value)| format!("{} {}", key.replace('_', " "), plain(value)));
        let Bounds { repetitions, measured, .. } = self.bounds;
        let mut text = format!(
            "{}\n{}\nmedian of {repetitions} repetitions of {:.1} s, in brackets the least and the most\n",
            self.machine.to_text(),
            notes.collect::<Vec<_>>().join(", "),
            measured.as_secs_f64(),
        );
        for run in &self.runs {
            let seen = self.columns.iter().filter(|column| !run.values(column.key).is_empty());
            let rows: Vec<_> =
                seen.map(|column| vec![column.title.to_owned(), cell(column, run.values(column.key))]).collect();
            let Case { size_bytes, producers } = run.case;
            text += &format!("\n{} x {producers} {}\n{}", size_text(size_bytes), self.producers, aligned(&rows));
        }
        text
    }
}

/// Median, least and most.
fn cell(column: &Column, values: &[f64]) -> String {
    let (digits, (low, high)) = (column.digits, spread(values));
    format!("{:.digits$} ({low:.digits$}-{high:.digits$})", median(values))
}

fn size_text(bytes: u32) -> String {
    match bytes {
        b if b >= KIB * KIB && b.is_multiple_of(KIB * KIB) => format!("{} MiB", b / KIB / KIB),
        b if b >= KIB && b.is_multiple_of(KIB) => format!("{} KiB", b / KIB),
        b => format!("{b} B"),
    }
}

/// Columns as wide as their widest cell, right-aligned.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    rows.iter().map(line).collect()
}

/// The middle value; the mean of the two middle ones of an even number; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) } else { at(middle) }
}

/// The least and the most.
fn spread(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().min_by(f64::total_cmp);
    let most = values.iter().copied().max_by(f64::total_cmp);
    (least.unwrap_or(0.0), most.unwrap_or(0.0))
}

/// The smallest of the sorted values that at least `permille` in a thousand do not exceed; zero of none.
pub(super) fn percentile(sorted: &[Duration], permille: usize) -> Duration {
    let rank = (sorted.len() * permille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// A duration in milliseconds.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(clippy::as_conversions, reason = "figures need no more than 53 bits")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// What the figures were measured on.
#[derive(Debug)]
struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// Of the disk measured.
    file_system: Option<String>,
    load: String,
}

impl Machine {
    /// What the kernel says about itself and the disk that holds `dir`.
    fn look(dir: Option<&Path>) -> Self {
        let text = |path| read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_owned();
        let memory_kib = field(&text("/proc/meminfo"), "MemTotal").and_then(|m| m.split(' ').next()?.parse().ok());
        Self {
            cpu: field(&text("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_kib.unwrap_or(0_u64) / 1024,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: dir.map(|dir| file_system(&text("/proc/self/mountinfo"), dir).unwrap_or_else(unknown)),
            load: text("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "cpu": self.cpu, "cores": self.cores, "memory_mib": self.memory_mib, "kernel": self.kernel,
            "file_system": self.file_system, "load_before": self.load,
        })
    }

    fn to_text(&self) -> String {
        let Self { cpu, cores, memory_mib, kernel, file_system, load } = self;
        let file_system = file_system.iter().map(|name| format!(", {name}")).collect::<String>();
        format!("{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}{file_system}, load before {load}")
    }
}

/// The value of the first `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// Type of the file system that holds `path`, from `/proc/self/mountinfo`: the deepest mount point above it, the last
/// one mounted there.
fn file_system(mountinfo: &str, path: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?.replace("\\040", " ");
        let kind = kind.split(' ').next()?;
        path.starts_with(&point).then(|| (Path::new(&point).components().count(), kind.to_owned()))
    });
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let sorted: Vec<Duration> = (1..=1000).map(Duration::from_micros).collect();
        let got = [1, 500, 990, 999, 1000].map(|permille| percentile(&sorted, permille).as_micros());
        assert_eq!(got, [1, 500, 990, 999, 1000]);
        assert_eq!(percentile(&sorted[..3], 500).as_micros(), 2);
        assert_eq!(percentile(&sorted[..3], 999).as_micros(), 3);
        assert_eq!(percentile(&[], 500), Duration::ZERO);
    }

    #[test]
    fn median_and_spread_do_not_depend_on_order() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), spread(&[3.0, 1.0, 2.0])), (2.0, (1.0, 3.0)));
        assert_eq!((median(&[4.0, 1.0, 2.0, 3.0]), median(&[7.0]), median(&[])), (2.5, 7.0, 0.0));
        assert_eq!(spread(&[]), (0.0, 0.0));
    }

    #[test]
    fn the_deepest_mount_names_the_file_system() {
        let mounts = "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      22 21 0:5 / /da rw - devtmpfs d rw\n\
                      23 21 8:1 / /data/big\\040one rw - xfs /dev/sda1 rw\n";
        let kind = |path: &str| file_system(mounts, Path::new(path));
        assert_eq!(kind("/data/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/data/big one/x").as_deref(), Some("xfs"));
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn the_object_has_medians_on_top_and_every_case_below() {
        let column = Column { title: "MB/s", key: "append_mb_s", digits: 1 };
        let columns: &'static [Column] = Box::leak(Box::new([column]));
        let second = Duration::from_secs(1);
        let bounds = Bounds { warm_up: second, measured: second, repetitions: 3, bytes: 1 };
        let mut report = Report::new("disk", "writers", columns, bounds, Some(Path::new("/")));
        for (size_bytes, by) in [(KIB, 1.0), (16 * KIB, 10.0)] {
            let mut run = Run::new(Case { size_bytes, producers: 64 });
            [3.0, 1.0, 2.0].into_iter().for_each(|value| run.add("append_mb_s", value * by));
            report.runs.push(run);
        }
        let object = report.to_json();
        assert_eq!((&object["append_mb_s"], &object["size_bytes"]), (&json!(20.0), &json!(16384)));
        assert_eq!(object["runs"][0]["spread"]["append_mb_s"], json!([1.0, 3.0]));
        let text = report.to_text();
        assert!(text.contains("\n  size  writers              MB/s\n 1 KiB       64     2.0 (1.0-3.0)\n"), "{text}");
    }
    #[test]
    fn a_report_with_notes_has_a_line_for_each_figure_there_is() {
        const COLUMNS: [Column; 2] =
            [Column { title: "MB/s", key: "a", digits: 1 }, Column { title: "not seen", key: "b", digits: 1 }];
        let second = Duration::from_secs(1);
        let bounds = Bounds { warm_up: second, measured: second, repetitions: 3, bytes: 1 };
        let mut report = Report::new("kafka", "partitions", &COLUMNS, bounds, None);
        report.note("server_pid", json!(7));
        report.note("acks", json!("all"));
        let mut run = Run::new(Case { size_bytes: KIB, producers: 6 });
        [3.0, 1.0, 2.0].into_iter().for_each(|value| run.add("a", value));
        report.runs.push(run);
        let text = report.to_text();
        assert!(text.contains("\nserver pid 7, acks all\n"), "{text}");
        assert!(text.ends_with("\n1 KiB x 6 partitions\nMB/s  2.0 (1.0-3.0)\n"), "{text}");
        let object = report.to_json();
        assert_eq!((&object["server_pid"], &object["partitions"], &object["a"]), (&json!(7), &json!(6), &json!(2.0)));
        assert_eq!(object["machine"]["file_system"], Value::Null);
    }
}
