//! The cleaner: gives back the bytes of what is dead in sealed segments.
//!
//! A frame is alive while an index row names its place; rows leave when their batch falls below the log start, its topic
//! is deleted, or a newer record supersedes all of it. So what a segment holds alive is found by walking its headers and
//! asking the index, exactly and without a reverse index; counts kept in memory ([`live`]) only say where to look. A
//! segment with nothing alive is unlinked ([`unlink`]). One whose live share is small is rewritten ([`rewrite`]): its live
//! frames go to cleaned segments, sorted by what will die together. Compacted topics are compacted ([`compact`]).
//!
//! One order keeps all of this safe in a power cut: the cleaned segment is complete and durable under its name; then its
//! rows are changed in the index; then the index is persisted; only then a segment that no row names is unlinked.
//! Whatever is cut short is found again: recovery takes in cleaned segments the index does not know, and of two frames
//! of one batch the one in the higher cleaned segment counts.
//!
//! It has a thread of its own; [`Store::clean`] does one pass by hand. Keeps the law NO-SKIP: a segment in which a
//! header cannot be read, or a live frame, stays as it is.

mod blobs;
mod compact;
pub(crate) mod file;
mod groups;
mod keymap;
mod live;
mod pace;
mod rewrite;
mod unlink;
mod write;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::compact::Compaction;
use self::groups::Policies;
use self::live::Files;
use self::pace::Pace;
use crate::fs::is_full;
use crate::ids::{PartitionNumber, SegmentNumber};
use crate::index::IndexError;
use crate::keys::marker::Marker;
use crate::maintenance::{Now, millis};
use crate::store::{Core, Store};

/// How the cleaner works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanerOptions {
    /// Time between two passes; `None`, the default: only by [`Store::clean`].
    pub interval: Option<Duration>,
    /// Bytes read and written per second, at most; `None` for no bound.
    pub bytes_per_second: Option<u64>,
    /// A segment with a smaller part of its bytes alive is rewritten; in percent.
    pub min_live_percent: u64,
    /// Memory for the keys of one compaction pass, in bytes.
    pub key_map_bytes: usize,
}

impl Default for CleanerOptions {
    fn default() -> Self {
        Self { interval: None, bytes_per_second: Some(32 << 20), min_live_percent: 60, key_map_bytes: 64 << 20 }
    }
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanReport {
    /// Segments unlinked.
    pub unlinked: u64,
    /// Bytes of their files.
    pub freed_bytes: u64,
    /// Cleaned segments written.
    pub written: u64,
    /// Bytes of frames in them.
    pub written_bytes: u64,
    /// Records that compaction left out.
    pub removed_records: u64,
    /// Segments that stay because something in them cannot be read.
    pub stuck: u64,
    /// Bytes of frames that were read, and of headers looked at.
    pub read_bytes: u64,
}

/// Why a pass ended early. What it was about to do is done by a later one.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The operating system refused.
    #[error("cleaning the log: {0}")]
    Io(#[from] io::Error),
    /// The store is closing.
    #[error("the store is closing")]
    Stopped,
}

/// What the cleaner remembers between passes; all of it can be found again.
#[derive(Default)]
struct Memory {
    files: Files,
    /// Segments that stay because something in them cannot be read.
    stuck: BTreeSet<SegmentNumber>,
    compaction: HashMap<PartitionNumber, Compaction>,
    /// Index rows looked at to find what there is to compact.
    rows_looked_at: u64,
}

#[derive(Default)]
struct Signal {
    stopped: bool,
    asked: bool,
}

/// The cleaner of a store.
#[derive(Default)]
pub(crate) struct Cleaner {
    memory: Mutex<Memory>,
    signal: Mutex<Signal>,
    work: Condvar,
    /// The segment being appended to holds what should come within reach: it is left with the next commit.
    roll: AtomicBool,
}

impl Cleaner {
    fn signal(&self) -> MutexGuard<'_, Signal> {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread, and a pass under way at its next step.
    pub(crate) fn stop(&self) {
        self.signal().stopped = true;
        self.work.notify_all();
    }

    fn stopped(&self) -> bool {
        self.signal().stopped
    }

    /// Whether the segment being appended to should be left although it is not full. Asked once.
    pub(crate) fn take_roll(&self) -> bool {
        self.roll.swap(false, Ordering::Relaxed)
    }

    /// Waits; false when it is to stop.
    fn wait(&self, time: Duration) -> bool {
        let idle = |signal: &mut Signal| !signal.stopped && !signal.asked;
        let signal = self.signal();
        let (mut signal, _) = self.work.wait_timeout_while(signal, time, idle).unwrap_or_else(PoisonError::into_inner);
        signal.asked = false;
        !signal.stopped
    }

    /// The cleaner thread: returns when stopped, or with the error that ends the store.
    pub(crate) fn run(&self, core: &Core) -> Result<(), IndexError> {
        let Some(interval) = core.options.cleaner.interval else { return Ok(()) };
        while self.wait(interval) {
            let now = Now { wall_ms: core.now_ms(), up_ms: millis(core.opened.elapsed()) };
            // A hold that cannot be kept now is one all the same.
            let trusted = core.is_clock_trusted(now).unwrap_or(false);
            match pass(core, (now.wall_ms, trusted), core.options.cleaner.bytes_per_second) {
                Ok(report) if report.unlinked + report.written > 0 => tracing::debug!(?report, "the log was cleaned"),
                Ok(_) | Err(CleanError::Stopped) => {}
                Err(CleanError::Index(error)) => return Err(error),
                Err(CleanError::Io(error)) => {
                    tracing::warn!(%error, "cleaning the log could not go on and is tried again");
                }
            }
        }
        Ok(())
    }
}

/// One pass and what it works with.
struct Pass<'a> {
    core: &'a Core,
    memory: MutexGuard<'a, Memory>,
    pace: Pace<'a>,
    policies: Policies,
    marker: Marker,
    now_ms: i64,
    /// The clock may be used to let go of something.
    trusted: bool,
    report: CleanReport,
}

/// One pass at a wall time that is trusted or not: everything that is due is done when it returns `Ok`.
fn pass(core: &Core, (now_ms, trusted): (i64, bool), bytes_per_second: Option<u64>) -> Result<CleanReport, CleanError> {
    let memory = core.cleaner.memory.lock().unwrap_or_else(PoisonError::into_inner);
    // Nothing is applied yet: nothing can be dead.
    let Some(marker) = core.index.marker()? else { return Ok(CleanReport::default()) };
    let pace = Pace::new(&core.cleaner, bytes_per_second);
    let policies = Policies::of(core);
    let report = CleanReport::default();
    let mut pass = Pass { core, memory, pace, policies, marker, now_ms, trusted, report };
    pass.look()?;
    // First what needs no room.
    pass.unlink()?;
    match pass.compact() {
        // Rewriting begins with what needs least room, and gives it back.
        Err(CleanError::Io(error)) if is_full(&error) => tracing::info!("no room to compact: the disk is full"),
        compacted => compacted?,
    }
    pass.unlink()?;
    pass.rewrite()?;
    pass.report.read_bytes = pass.pace.read();
    pass.report.stuck = u64::try_from(pass.memory.stuck.len()).unwrap_or(u64::MAX);
    Ok(pass.report)
}

impl Store {
    /// Does everything the cleaner has to do at wall time `now_ms`, unthrottled: after `Ok` nothing is left that is due,
    /// sealed, and out of the index ([`Store::maintain`] takes out what lies below log starts). While
    /// [`Store::retention_waits`] no tombstone goes.
    ///
    /// # Errors
    /// See [`CleanError`].
    pub fn clean(&self, now_ms: i64) -> Result<CleanReport, CleanError> {
        self.core.pending.flush();
        let trusted = !self.core.clock_held.load(Ordering::Relaxed);
        pass(&self.core, (now_ms, trusted), None)
    }
}

#[cfg(test)]
mod tests;
