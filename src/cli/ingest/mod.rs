//! `azulite ingest`: takes files in, in bulk.
//!
//! One thread walks, many work (one file each: read, hash, identify, store), this one publishes events in batches. As many
//! files are read and hashed at once as there are processors; more wait for their syncs meanwhile. A file is read once,
//! unless it may be known already: then its hash is taken first.
//!
//! A second run adds nothing: a file counts as known when its source's topic holds an announcement of the same content
//! with the same references and security by this author, and its bytes are stored. See [`submission`] about time. Two
//! runs at the same time may both announce a file.

mod content;
mod direct;
mod gate;
mod journal;
mod remote;
mod report;
mod sink;
mod submission;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use azulite_storage::clock::now_ms;
use azulite_storage::format;
use azulite_storage::fs::RealFs;

use super::args::{Global, Ingest};
use super::exit::Exit;
use super::output::{self, Refusal, complain};
use super::target::Target;
use super::walk::{Found, Identity, Step, Trouble, Walked, open, walk};
use crate::admin::Announcement;
use crate::config::Config;
use content::{Content, Look};
use direct::Direct;
use gate::Gate;
use journal::{Entry, Journal};
use remote::Remote;
use report::{Progress, Report};
use sink::{Sink, StoreFault};
use submission::{Mark, Submission};

/// Paths found and not begun.
const PATHS_AHEAD: usize = 1024;
/// Files done and not counted.
const OUTCOMES_AHEAD: usize = 256;
/// Workers for each file that is hashed: the others wait for the disk, and what waits together is synced together.
const WORKERS_PER_JOB: usize = 24;
const WORKERS_MAX: usize = 96;
/// Events are published when there are so many, or so many bytes of them, or when none came for a while.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 512 << 10;
const BATCH_WAIT: Duration = Duration::from_millis(100);

/// Does what `args` say.
pub(super) fn run(global: &Global, config: &Config, args: &Ingest) -> Exit {
    output::finish(ingest(global, config, args))
}

fn ingest(global: &Global, config: &Config, args: &Ingest) -> Result<Exit, Refusal> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(&stop);
    let progress = Progress::new(output::progress_allowed(global.quiet));
    all(config, args, &stop, progress)?.tell(global.json)
}

/// Takes in what `args` names, without a word, and tells how many files that were; for `bench ingest`.
///
/// # Errors
/// The run ended before its end, or a file could not be taken in.
pub(super) fn quietly(config: &Config, args: &Ingest) -> Result<u64, Refusal> {
    let Ended { report, fatal, journal } = all(config, args, &AtomicBool::new(false), Progress::new(false))?;
    if let Some(refusal) = fatal {
        return Err(refusal);
    }
    if let Some(failure) = report.failures.first() {
        return Err(Refusal::failed(format!("{}: {}", failure.path, failure.error)));
    }
    journal.remove();
    Ok(report.files)
}

/// From opening the store to closing it.
fn all(config: &Config, args: &Ingest, stop: &AtomicBool, progress: Progress) -> Result<Ended, Refusal> {
    let begun = Instant::now();
    let submission = Submission::check(args, now_ms())?;
    let place = submission.place();
    let sink: Box<dyn Sink> = match Target::for_writing(config, args.url.as_deref())? {
        Target::Server(client) => Box::new(Remote::new(client, place)),
        Target::Store(opened) => Box::new(Direct::new(config, opened, place)?),
    };
    let known = Known::load(sink.as_ref(), &submission)?;
    let (journal, done) = match journal_folder(config, args) {
        Some(folder) => Journal::open(&folder, &description(&submission, &args.paths), args.resume),
        None => (Journal::default(), HashSet::new()),
    };
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let run = Run {
        sink: sink.as_ref(),
        submission: &submission,
        known: &known,
        done: &done,
        gate: Gate::new(jobs),
        stop,
        without: Identity::of(&config.storage.data_dir),
    };
    let mut collector = Collector {
        run: &run,
        batch: Vec::new(),
        batch_bytes: 0,
        entries: Vec::new(),
        journal,
        report: Report::default(),
        progress,
        fatal: None,
    };
    run.go(&args.paths, (jobs * WORKERS_PER_JOB).min(WORKERS_MAX.max(jobs)), &mut collector);
    let mut ended = collector.end();
    drop(sink);
    ended.report.seconds = begun.elapsed().as_secs_f64();
    Ok(ended)
}

/// The flags and paths that make two runs the same one for `--resume`.
fn description(submission: &Submission, paths: &[PathBuf]) -> String {
    format!("{} {paths:?} {:?}", submission.text(), std::env::current_dir().ok())
}

/// Where journals are: in the data directory, or with the user's own state when that belongs to another machine or user.
fn journal_folder(config: &Config, args: &Ingest) -> Option<PathBuf> {
    let root = &config.storage.data_dir;
    let ours = args.url.is_none() && matches!(format::read_format(&RealFs, root), Ok(Some(_)));
    let writable = rustix::fs::access(root, rustix::fs::Access::WRITE_OK).is_ok();
    if ours && writable {
        return Some(root.join("ingest"));
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(state.join("azulite/ingest"))
}

/// The first SIGINT or SIGTERM ends the run after the files under way, the second one ends the process.
fn stop_on_signal(stop: &Arc<AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = stop.clone();
    let watch = move || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if stop.swap(true, Ordering::SeqCst) {
                    std::process::exit(i32::from(Exit::Failed.code()));
                }
                complain("finishing the files under way; once more ends at once");
            }
        })
    };
    let watched = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Err(error) = watch() {
            complain(&format!("signals cannot be listened for: {error}"));
        }
    });
    if let Err(error) = watched {
        complain(&format!("signals cannot be listened for: {error}"));
    }
}

/// What has been announced, by earlier runs and by this one.
struct Known {
    marks: Mutex<HashSet<Mark>>,
    /// True when there was anything before this run.
    before: bool,
    /// Sizes of files seen in this run: only one of the same size can be the same again.
    sizes: Mutex<HashSet<u64>>,
}

impl Known {
    fn load(sink: &dyn Sink, submission: &Submission) -> Result<Self, Refusal> {
        let mut marks = HashSet::new();
        sink.announced(&mut |announcement| match announcement {
            Announcement::Sourced { key, identity, .. } => marks.extend(submission.mark_of(&key, &identity)),
            Announcement::Damage { damage } => complain(&format!(
                "{}-{}: offsets {} to {} cannot be read, what they announced may be announced again: {}",
                damage.topic, damage.partition, damage.from_offset, damage.last_offset, damage.reason
            )),
        })?;
        Ok(Self { before: !marks.is_empty(), marks: Mutex::new(marks), sizes: Mutex::default() })
    }

    /// Whether a file of this size may be known, so that its hash is worth taking first.
    fn is_possible(&self, size: u64) -> bool {
        let seen = !self.sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(size);
        seen || self.before
    }

    fn has(&self, mark: Mark) -> bool {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).contains(&mark)
    }

    /// True for the first who asks.
    fn claim(&self, mark: Mark) -> bool {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).insert(mark)
    }
}

/// What became of one path.
enum Outcome {
    /// Stored; the event is to be published.
    Announce { path: PathBuf, event: Vec<u8>, size: u64, entry: Entry },
    /// Announced before.
    Known { entry: Entry },
    /// Done by the run that is continued.
    Resumed,
    /// No bytes.
    Empty { entry: Entry },
    /// Not taken in.
    Failed { path: PathBuf, error: String },
    /// Nothing can be taken in any more.
    Fatal(Refusal),
}

/// What the threads share.
struct Run<'a> {
    sink: &'a dyn Sink,
    submission: &'a Submission,
    known: &'a Known,
    done: &'a HashSet<Entry>,
    gate: Gate,
    stop: &'a AtomicBool,
    without: Option<Identity>,
}

impl Run<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Takes in everything below the paths.
    fn go(&self, paths: &[PathBuf], workers: usize, collector: &mut Collector<'_>) {
        let (to_workers, found) = sync_channel(PATHS_AHEAD);
        let (to_collector, outcomes) = sync_channel(OUTCOMES_AHEAD);
        let found = Mutex::new(found);
        std::thread::scope(|scope| {
            let walker = to_collector.clone();
            scope.spawn(move || self.walk(paths, &to_workers, &walker));
            for _ in 0..workers {
                let (found, outcomes) = (&found, to_collector.clone());
                scope.spawn(move || self.work(found, &outcomes));
            }
            drop(to_collector);
            collector.collect(&outcomes);
        });
    }

    fn walk(&self, paths: &[PathBuf], to_workers: &SyncSender<Found>, to_collector: &SyncSender<Outcome>) {
        let mut take = |walked| {
            let sent = match walked {
                Walked::File(found) => to_workers.send(found).is_ok(),
                Walked::Trouble(Trouble { path, step, error }) => {
                    let error = match step {
                        Step::Stat | Step::WalkDir => format!("unable to {}: {error}", step.as_str()),
                        Step::Open => error.to_string(),
                    };
                    to_collector.send(Outcome::Failed { path, error }).is_ok()
                }
            };
            sent && !self.stopped()
        };
        for path in paths {
            let goes_on = match path.as_os_str() == "-" {
                false => walk(path, self.without, &mut take),
                true => listed(&mut io::stdin().lock(), &mut |path| walk(path, self.without, &mut take))
                    .unwrap_or_else(|error| {
                        let path = PathBuf::from("-");
                        take(Walked::Trouble(Trouble { path, step: Step::Open, error }))
                    }),
            };
            if !goes_on {
                return;
            }
        }
    }

    fn work(&self, found: &Mutex<Receiver<Found>>, outcomes: &SyncSender<Outcome>) {
        loop {
            let next = found.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(found) = next else { return };
            // The rest is taken off the walker's hands, so that it ends.
            if self.stopped() {
                continue;
            }
            let outcome = self.take_in(&found).unwrap_or_else(|fault| match fault {
                StoreFault::File(error) => Outcome::Failed { path: found.path, error },
                StoreFault::Fatal(refusal) => Outcome::Fatal(refusal),
            });
            if outcomes.send(outcome).is_err() {
                return;
            }
        }
    }

    fn take_in(&self, found: &Found) -> Result<Outcome, StoreFault> {
        let file = open(found)?;
        let look = Look::at(&file)?;
        let entry = Entry::new(&found.path, look);
        if self.done.contains(&entry) {
            return Ok(Outcome::Resumed);
        }
        let pass = self.gate.pass();
        let content = Content::begin(file, look.size)?;
        if content.is_empty() {
            return Ok(Outcome::Empty { entry });
        }
        let sha256 = if self.known.is_possible(look.size) { Some(content.sha256()?) } else { None };
        let mark = sha256.as_deref().and_then(|hash| self.submission.mark(hash));
        if let Some((hash, mark)) = sha256.as_deref().zip(mark)
            && self.known.has(mark)
            && self.sink.has(hash)?
        {
            return Ok(Outcome::Known { entry });
        }
        let record = self.sink.store(content, sha256.as_deref(), pass)?;
        let first = self.submission.mark(&record.sha256).is_none_or(|mark| self.known.claim(mark));
        if !first {
            return Ok(Outcome::Known { entry });
        }
        let event = self.submission.event(&record, &found.name, now_ms());
        Ok(Outcome::Announce { path: found.path.clone(), event, size: record.size, entry })
    }
}

/// Paths separated by NUL, each handed over as it comes until `take` returns false.
fn listed(input: &mut dyn BufRead, take: &mut dyn FnMut(&Path) -> bool) -> io::Result<bool> {
    let mut path = Vec::new();
    while input.read_until(0, &mut path)? > 0 {
        path.pop_if(|last| *last == 0);
        let path = PathBuf::from(OsString::from_vec(std::mem::take(&mut path)));
        if !path.as_os_str().is_empty() && !take(&path) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Counts what comes of the files, and publishes their events.
struct Collector<'a> {
    run: &'a Run<'a>,
    batch: Vec<(PathBuf, Vec<u8>)>,
    batch_bytes: usize,
    /// Files whose events are in the batch, or that need none.
    entries: Vec<Entry>,
    journal: Journal,
    report: Report,
    progress: Progress,
    fatal: Option<Refusal>,
}

impl Collector<'_> {
    fn collect(&mut self, outcomes: &Receiver<Outcome>) {
        loop {
            match outcomes.recv_timeout(BATCH_WAIT) {
                Ok(outcome) => self.take(outcome),
                Err(RecvTimeoutError::Timeout) => self.publish(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.progress.show(&self.report);
            if self.batch.len() >= BATCH_EVENTS || self.batch_bytes >= BATCH_BYTES {
                self.publish();
            }
        }
        self.publish();
        self.progress.end();
    }

    fn take(&mut self, outcome: Outcome) {
        if !matches!(outcome, Outcome::Fatal(_)) {
            self.report.files += 1;
        }
        match outcome {
            Outcome::Announce { path, event, size, entry } => {
                self.report.bytes += size;
                self.batch_bytes += event.len();
                self.batch.push((path, event));
                self.entries.push(entry);
            }
            Outcome::Known { entry } => {
                self.report.known += 1;
                self.entries.push(entry);
            }
            Outcome::Resumed => self.report.resumed += 1,
            Outcome::Empty { entry } => {
                self.report.empty += 1;
                self.entries.push(entry);
            }
            Outcome::Failed { path, error } => self.report.fail(&path, error),
            Outcome::Fatal(refusal) => self.give_up(refusal),
        }
    }

    /// The first reason counts.
    fn give_up(&mut self, refusal: Refusal) {
        self.run.stop.store(true, Ordering::SeqCst);
        self.fatal.get_or_insert(refusal);
    }

    /// Publishes what there is, and notes the files as done.
    fn publish(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let entries = std::mem::take(&mut self.entries);
        self.batch_bytes = 0;
        if !batch.is_empty() {
            if self.fatal.is_some() {
                return;
            }
            let (paths, events): (Vec<PathBuf>, Vec<Vec<u8>>) = batch.into_iter().unzip();
            match self.run.sink.publish(&events) {
                Ok(published) => {
                    self.report.announced += published.total_ok;
                    for refused in &published.failures {
                        let among = paths.first().map_or(Path::new(""), PathBuf::as_path);
                        let error =
                            format!("an event of {} files from here on was refused: {}", paths.len(), refused.error);
                        self.report.fail(among, error);
                    }
                    if !published.failures.is_empty() {
                        return;
                    }
                }
                Err(refusal) => return self.give_up(refusal),
            }
        }
        self.journal.add(&entries);
    }

    fn end(self) -> Ended {
        let Self { run, mut report, journal, fatal, .. } = self;
        report.interrupted = run.stopped();
        Ended { report, journal, fatal }
    }
}

/// A run that has ended.
struct Ended {
    report: Report,
    journal: Journal,
    fatal: Option<Refusal>,
}

impl Ended {
    /// Says what was done, and how the process ends.
    fn tell(self, json: bool) -> Result<Exit, Refusal> {
        self.report.print(json, &mut output::stdout())?;
        if let Some(refusal) = self.fatal {
            complain("the run ended early; the same command with --resume goes on");
            return Err(refusal);
        }
        if self.report.interrupted {
            return Err(Refusal::failed("interrupted; the same command with --resume goes on"));
        }
        if self.report.failed > 0 {
            return Ok(Exit::Failed);
        }
        self.journal.remove();
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests;
