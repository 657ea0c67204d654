//! The keeper of segments: prepares the next ones ahead of need, seals the full ones, watches the room on the disk.
//!
//! Two prepared segments are kept that only state records may use, so that deletes, offset commits and retention work
//! on a full disk.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fs::{Fs, is_full};
use crate::ids::SegmentNumber;
use crate::segments::{Prepared, Sealing, Segments};

/// Prepared segments only state records may use.
const RESERVED: usize = 2;
/// How often the room on the disk is looked at.
const ROOM_INTERVAL: Duration = Duration::from_secs(2);

struct Inner {
    ready: VecDeque<Prepared>,
    sealing: VecDeque<Sealing>,
    next: SegmentNumber,
    failed: Option<io::ErrorKind>,
    wanted: bool,
    stopped: bool,
}

impl Inner {
    fn take_number(&mut self) -> SegmentNumber {
        let number = self.next;
        self.next = SegmentNumber(number.0 + 1);
        number
    }
}

/// Shared by the committer, which takes segments, and the keeper thread, which makes them.
pub(crate) struct Keeper {
    fs: Arc<dyn Fs>,
    segments: Arc<Segments>,
    root: PathBuf,
    segment_bytes: u64,
    reserve_bytes: u64,
    disk_full: AtomicBool,
    inner: Mutex<Inner>,
    work: Condvar,
    made: Condvar,
}

impl Keeper {
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        segments: Arc<Segments>,
        root: PathBuf,
        (segment_bytes, reserve_bytes): (u64, u64),
        next: SegmentNumber,
    ) -> Self {
        let inner = Inner {
            ready: VecDeque::new(),
            sealing: VecDeque::new(),
            next,
            failed: None,
            wanted: true,
            stopped: false,
        };
        let disk_full = AtomicBool::new(false);
        let (work, made) = (Condvar::new(), Condvar::new());
        let inner = Mutex::new(inner);
        Self { fs, segments, root, segment_bytes, reserve_bytes, disk_full, inner, work, made }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True while less than the reserve is free: only state records are taken in.
    pub(crate) fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Looks at the room on the disk now.
    pub(crate) fn check_room(&self) {
        match self.fs.room(&self.root) {
            Ok(room) => {
                let full = room.free < self.reserve_bytes;
                if self.disk_full.swap(full, Ordering::Relaxed) != full {
                    let (free, reserve) = (room.free, self.reserve_bytes);
                    if full {
                        tracing::error!(free, reserve, "disk full: records and blobs are refused until there is room");
                    } else {
                        tracing::info!(free, reserve, "disk has room again: records and blobs are taken in");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "room on the disk cannot be read"),
        }
    }

    /// A segment for at least `len` bytes; waits for the keeper. `reserved` opens the state-only ones.
    pub(crate) fn take(&self, len: u64, reserved: bool) -> io::Result<Prepared> {
        let keep = if reserved { 0 } else { RESERVED };
        let mut inner = self.lock();
        // What failed before may go now.
        inner.failed = None;
        while inner.ready.len() <= keep {
            if inner.stopped {
                return Err(io::Error::other("the store is closing"));
            }
            if let Some(kind) = inner.failed.take() {
                return Err(kind.into());
            }
            inner.wanted = true;
            self.work.notify_one();
            inner = self.made.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let mut prepared = inner.ready.pop_front().ok_or_else(|| io::Error::other("no segment"))?;
        if prepared.len < len {
            if let Err(error) = prepared.file.allocate(len).and_then(|()| prepared.file.sync_data()) {
                inner.ready.push_front(prepared);
                return Err(error);
            }
            prepared.len = len;
        }
        inner.wanted = true;
        drop(inner);
        self.work.notify_one();
        Ok(prepared)
    }

    /// A number for a cleaned segment: higher than that of every segment that is sealed.
    pub(crate) fn take_number(&self) -> SegmentNumber {
        self.lock().take_number()
    }

    /// Seals a full segment in the background.
    pub(crate) fn seal_later(&self, sealing: Sealing) {
        self.lock().sealing.push_back(sealing);
        self.work.notify_one();
    }

    /// Waits until every full segment is sealed, for tests.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        while !self.lock().sealing.is_empty() {
            std::thread::yield_now();
        }
        // The last one may be under way.
        std::thread::sleep(Duration::from_millis(50));
    }

    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.work.notify_all();
        self.made.notify_all();
    }

    /// The keeper thread: returns when stopped, or with the error that ended it.
    pub(crate) fn run(&self) -> io::Result<()> {
        loop {
            let mut inner = self.lock();
            if let Some(sealing) = inner.sealing.pop_front() {
                drop(inner);
                self.segments.seal(&sealing)?;
                continue;
            }
            if inner.stopped {
                return self.remove_spares(inner);
            }
            if inner.ready.len() <= RESERVED && inner.wanted {
                let number = inner.take_number();
                drop(inner);
                self.make(number);
                continue;
            }
            let (_inner, timeout) =
                self.work.wait_timeout(inner, ROOM_INTERVAL).unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                drop(_inner);
                self.check_room();
            }
        }
    }

    fn make(&self, number: SegmentNumber) {
        self.check_room();
        let made = self.segments.prepare(number, self.segment_bytes);
        let mut inner = self.lock();
        match made {
            Ok(prepared) => {
                inner.ready.push_back(prepared);
                inner.failed = None;
            }
            Err(error) => {
                tracing::warn!(%error, segment = %number, "the next segment cannot be made");
                if is_full(&error) {
                    self.disk_full.store(true, Ordering::Relaxed);
                }
                inner.failed = Some(error.kind());
                inner.wanted = false;
            }
        }
        drop(inner);
        self.made.notify_all();
    }

    /// Spare segments hold nothing but a head; the next start makes its own.
    fn remove_spares(&self, mut inner: MutexGuard<'_, Inner>) -> io::Result<()> {
        let spares = std::mem::take(&mut inner.ready);
        drop(inner);
        spares.iter().try_for_each(|spare| self.segments.remove(spare.number))
    }
}
