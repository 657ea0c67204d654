//! `azulite bench yara`: the YARA worker's scanners over files, beside the `yara` command line tool with the same rules on the
//! same files in the same run; and how long scanning stands still while the rules are compiled again.
//!
//! The files were read once before, so that no turn pays for the disk they come from. Archives are scanned as they are, as
//! the tool does. The tool compiles its rules in every run: what it takes for an empty file is taken off its time.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};

use super::files::files;
use super::report::{Column, Report, Run};
use super::{Bounds, Case, Folder, Shown};
use crate::cli::walk::{Found, open};
use crate::workers::yara::{
    Children, Externals, Publish, RuleSet, Scan, ScannerOptions, Scanners, Wanted, build, jobs_at_once,
};

const COLUMNS: [Column; 7] = [
    Column { title: "MB/s", key: "mb_s", digits: 1 },
    Column { title: "files/s", key: "files_s", digits: 0 },
    Column { title: "hits", key: "hits", digits: 0 },
    Column { title: "tool MB/s", key: "tool_mb_s", digits: 1 },
    Column { title: "tool hits", key: "tool_hits", digits: 0 },
    Column { title: "ratio", key: "ratio", digits: 2 },
    Column { title: "x one", key: "speedup", digits: 2 },
];

/// Largest file that is scanned; larger ones are left out on both sides.
const FILE_MAX: u64 = 128_000_000;
/// Time for one object.
const LIMIT: Duration = Duration::from_secs(600);
/// Size of the object that is scanned again and again while rules are compiled.
const PROBE: usize = 4096;

/// What is measured.
pub(super) struct Asked<'a> {
    pub(super) paths: &'a [PathBuf],
    pub(super) rules: &'a Path,
    /// The tool; `None` for none.
    pub(super) tool: Option<PathBuf>,
    pub(super) threads: &'a [u16],
}

/// All repetitions.
pub(super) fn run(asked: &Asked<'_>, bounds: Bounds, shown: Shown) -> anyhow::Result<Report> {
    let mut files = files(asked.paths);
    files.retain(|found| fs::metadata(&found.path).is_ok_and(|meta| meta.len() <= FILE_MAX));
    ensure!(!files.is_empty(), "there is nothing to scan");
    let set = rules(asked.rules)?;
    ensure!(set.left_out.is_empty(), "{} rule files do not compile: see azulite rules check", set.left_out.len());
    let tool = asked.tool.as_deref().map(|path| Tool::new(path, asked.rules, &set, &files)).transpose()?;
    let mut report = Report::new("yara", "threads", &COLUMNS, bounds, None);
    report.note("rules", set.rules().into());
    report.note("files", files.len().into());
    drop(set);
    let mut one = None;
    for &threads in asked.threads {
        let scanners = scanners(asked.rules, threads)?;
        let (bytes, ..) = scan_all(&scanners, &files, threads)?;
        let size_bytes = u32::try_from(bytes / u64::try_from(files.len())?).unwrap_or(u32::MAX);
        let case = Case { size_bytes, producers: threads };
        let mut run = Run::new(case);
        let mut took_all = Vec::new();
        for repetition in 1..=bounds.repetitions {
            report.progress(shown, case, repetition);
            let (bytes, hits, took) = scan_all(&scanners, &files, threads)?;
            let mb = f64::from(u32::try_from(bytes / 1000)?) / 1e3;
            let took = took.as_secs_f64();
            took_all.push(took);
            run.add("mb_s", mb / took);
            run.add("files_s", f64::from(u32::try_from(files.len())?) / took);
            run.add("hits", f64::from(u32::try_from(hits)?));
            if let Some(tool) = &tool {
                let (hits, tool_took) = tool.scan(threads)?;
                run.add("tool_mb_s", mb / tool_took);
                run.add("tool_hits", f64::from(u32::try_from(hits)?));
                run.add("ratio", tool_took / took);
            }
        }
        took_all.sort_by(f64::total_cmp);
        let median = took_all.get(took_all.len() / 2).copied().unwrap_or(f64::NAN);
        run.add("speedup", *one.get_or_insert(median) / median);
        report.runs.push(run);
    }
    let (reload_s, pause_ms, usual_ms) = reload(asked.rules)?;
    report.note("reload_s", reload_s.into());
    report.note("reload_pause_ms", pause_ms.into());
    report.note("usual_pause_ms", usual_ms.into());
    Ok(report)
}

fn rules(dir: &Path) -> anyhow::Result<RuleSet> {
    Ok(build(dir, &Wanted::default(), &Children::this())?)
}

fn scanners(dir: &Path, threads: u16) -> anyhow::Result<Scanners> {
    let options =
        ScannerOptions { children: Children::this(), threads: threads.into(), max_scan_size: FILE_MAX, max_nesting: 0 };
    Ok(Scanners::start(rules(dir)?, &options)?)
}

fn scan(
    scanners: &Scanners,
    name: &str,
    size: u64,
    read: impl Fn() -> std::io::Result<Box<dyn Read>>,
) -> anyhow::Result<u64> {
    let scan = Scan {
        externals: Externals::of(name, ""),
        expand: None,
        file_timeout_s: 60,
        publish: Publish::None,
        publish_max: 0,
        skip: Vec::new(),
    };
    let found = scanners.scan(&scan, size, Instant::now() + LIMIT, &mut || read(), &mut |_, _| Ok(()))?;
    let hits = found.files.iter().map(|file| file.hits.len()).sum::<usize>();
    Ok(u64::try_from(hits)?)
}

/// Bytes, hits and time of all files with so many scanners, and as many jobs at once as the worker has.
fn scan_all(scanners: &Scanners, files: &[Found], threads: u16) -> anyhow::Result<(u64, u64, Duration)> {
    let (next, bytes, hits) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = || -> anyhow::Result<()> {
        while let Some(found) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let one = || {
                let file = open(found)?;
                let size = file.metadata()?.len();
                let file = Cell::new(Some(file));
                let again = || file.take().map_or_else(|| File::open(&found.path), Ok);
                let hit = scan(scanners, "", size, || Ok(Box::new(again()?)))?;
                bytes.fetch_add(size, Ordering::Relaxed);
                hits.fetch_add(hit, Ordering::Relaxed);
                anyhow::Ok(())
            };
            one().with_context(|| found.path.display().to_string())?;
        }
        Ok(())
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..jobs_at_once(threads.into())).map(|_| scope.spawn(work)).collect();
        jobs.into_iter().try_for_each(|job| job.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok((bytes.into_inner(), hits.into_inner(), begun.elapsed()))
}

/// The tool with the rules and files it is given.
struct Tool {
    path: PathBuf,
    rules: Vec<String>,
    folder: Folder,
}

impl Tool {
    fn new(path: &Path, dir: &Path, set: &RuleSet, files: &[Found]) -> anyhow::Result<Self> {
        let folder = Folder::create(&std::env::temp_dir())?;
        fs::write(folder.path.join("empty"), b"")?;
        let mut list = File::create(folder.path.join("list"))?;
        for found in files {
            writeln!(list, "{}", fs::canonicalize(&found.path)?.display())?;
        }
        writeln!(File::create(folder.path.join("none"))?, "{}", folder.path.join("empty").display())?;
        let rule =
            |file: &crate::workers::yara::FileInUse| format!("{}:{}", file.namespace, dir.join(&file.path).display());
        Ok(Self { path: path.to_owned(), rules: set.files.iter().map(rule).collect(), folder })
    }

    /// Hits and seconds without those for an empty file.
    fn scan(&self, threads: u16) -> anyhow::Result<(u64, f64)> {
        let (_, start) = self.run("none", threads)?;
        let (hits, all) = self.run("list", threads)?;
        Ok((hits, (all - start).max(f64::MIN_POSITIVE)))
    }

    fn run(&self, list: &str, threads: u16) -> anyhow::Result<(u64, f64)> {
        let begun = Instant::now();
        let output = Command::new(&self.path)
            .args(["-w", "-p", &threads.to_string(), "--scan-list"])
            .args(
                ["filename", "filepath", "extension", "filetype"]
                    .iter()
                    .flat_map(|name| ["-d".to_owned(), format!("{name}=")]),
            )
            .args(&self.rules)
            .arg(self.folder.path.join(list))
            .stdin(Stdio::null())
            .output()
            .with_context(|| self.path.display().to_string())?;
        let took = begun.elapsed().as_secs_f64();
        if !output.status.success() {
            bail!("{}: {}", self.path.display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok((u64::try_from(memchr::memchr_iter(b'\n', &output.stdout).count())?, took))
    }
}

/// Seconds that a new set takes, the longest time between two results meanwhile, and the longest before it, in milliseconds.
fn reload(dir: &Path) -> anyhow::Result<(f64, f64, f64)> {
    let current = RwLock::new(Arc::new(scanners(dir, 1)?));
    let (over, began) = (AtomicBool::new(false), AtomicBool::new(false));
    let probe = || -> anyhow::Result<(f64, f64)> {
        let bytes = vec![b'x'; PROBE];
        let (mut usual, mut pause) = (0.0_f64, 0.0_f64);
        let mut last = Instant::now();
        while !over.load(Ordering::Relaxed) {
            let began = began.load(Ordering::Relaxed);
            let set: Arc<Scanners> = current.read().map_err(|_| anyhow!("a thread panicked"))?.clone();
            let body = bytes.clone();
            scan(&set, "", u64::try_from(PROBE)?, || Ok(Box::new(std::io::Cursor::new(body.clone()))))?;
            let gap = last.elapsed().as_secs_f64() * 1e3;
            last = Instant::now();
            if began { pause = pause.max(gap) } else { usual = usual.max(gap) }
        }
        Ok((pause, usual))
    };
    std::thread::scope(|scope| {
        let probe = scope.spawn(probe);
        std::thread::sleep(Duration::from_secs(1));
        began.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let new = scanners(dir, 1);
        let took = begun.elapsed().as_secs_f64();
        if let Ok(new) = new {
            let new = Arc::new(new);
            drop(std::mem::replace(&mut *current.write().map_err(|_| anyhow!("a thread panicked"))?, new));
        }
        std::thread::sleep(Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        let (pause, usual) = probe.join().map_err(|_| anyhow!("a thread panicked"))??;
        Ok((took, pause, usual))
    })
}
