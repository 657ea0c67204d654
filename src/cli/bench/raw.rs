//! The raw limit: a plain append with CRC-32C and group commit, without index, record batches or anything to read with.
//!
//! Producers hand payloads to one committer thread; it writes all that wait with one vectored write and one fdatasync
//! into preallocated files, the next of which is prepared meanwhile, and wakes the producers. Files and file layer are
//! the store's own, so that what is compared is what the store adds.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use azulite_storage::fs::Fs;
use azulite_storage::ids::SegmentNumber;
use azulite_storage::segments::{EDGE_LEN, Prepared, Sealing, Segments};

use super::load::{Reply, Target};

/// Length of a file, as the store's segments.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of one commit, about, as the store's.
const COMMIT_BYTES: usize = 8 << 20;

struct Item {
    payload: Vec<u8>,
    reply: Arc<Reply>,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Item>,
    /// True while the committer sleeps: only then it has to be woken.
    idle: bool,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that waits, up to a commit's bytes; nothing when closed.
    fn take(&self) -> Vec<Item> {
        let mut inner = self.lock();
        while inner.waiting.is_empty() && !inner.closed {
            inner.idle = true;
            inner = self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.idle = false;
        }
        let mut items = Vec::with_capacity(inner.waiting.len());
        let mut bytes = 0;
        while let Some(item) = inner.waiting.pop_front_if(|i| bytes == 0 || bytes + i.payload.len() <= COMMIT_BYTES) {
            bytes += item.payload.len();
            items.push(item);
        }
        items
    }
}

/// An open raw log.
pub(super) struct Raw {
    queue: Arc<Queue>,
    committer: JoinHandle<io::Result<Vec<Duration>>>,
    preparer: JoinHandle<io::Result<()>>,
}

impl Raw {
    /// A raw log in the folder `dir`.
    pub(super) fn open(fs: Arc<dyn Fs>, dir: &Path) -> io::Result<Self> {
        let segments = Segments::new(fs, dir.to_owned());
        let (files, prepared) = sync_channel(0);
        let (full, sealing) = channel();
        let queue = Arc::new(Queue::default());
        let preparer = std::thread::Builder::new().name("raw-files".into()).spawn(move || {
            let outcome = prepare(&segments, &files, &sealing);
            drop(files);
            outcome
        })?;
        let shared = queue.clone();
        let committer = std::thread::Builder::new().name("raw-commit".into()).spawn(move || {
            let mut committer = Committer { prepared, full, active: None, syncs: Vec::new() };
            let outcome = committer.run(&shared);
            let reason = outcome.as_ref().map_or_else(ToString::to_string, |()| "closed".to_owned());
            let mut inner = shared.lock();
            inner.closed = true;
            inner.waiting.drain(..).for_each(|item| item.reply.give(Err(reason.clone())));
            drop(inner);
            outcome.map(|()| committer.syncs)
        })?;
        Ok(Self { queue, committer, preparer })
    }

    /// Ends the threads: how long each write with its sync took, in order.
    pub(super) fn close(self) -> io::Result<Vec<Duration>> {
        self.queue.lock().closed = true;
        self.queue.filled.notify_all();
        let panicked = || io::Error::other("a thread of the raw log panicked");
        let syncs = self.committer.join().map_err(|_| panicked())?;
        self.preparer.join().map_err(|_| panicked())??;
        syncs
    }
}

impl Target for Raw {
    type Ready = Vec<u8>;

    fn prepare(&self, _producer: u16, value: &[u8]) -> Vec<u8> {
        value.to_vec()
    }

    fn submit(&self, _producer: u16, payload: Vec<u8>, reply: Arc<Reply>) {
        let mut inner = self.queue.lock();
        if inner.closed {
            drop(inner);
            return reply.give(Err("the raw log has stopped".to_owned()));
        }
        inner.waiting.push_back(Item { payload, reply });
        let idle = std::mem::take(&mut inner.idle);
        drop(inner);
        if idle {
            self.queue.filled.notify_one();
        }
    }
}

/// Keeps one file ahead of the committer and seals those that are full, as the store does.
fn prepare(segments: &Segments, files: &SyncSender<Prepared>, full: &Receiver<Sealing>) -> io::Result<()> {
    for number in 1.. {
        let prepared = segments.prepare(SegmentNumber(number), FILE_BYTES)?;
        if files.send(prepared).is_err() {
            break;
        }
        full.try_iter().try_for_each(|sealing| segments.seal(&sealing))?;
    }
    full.iter().try_for_each(|sealing| segments.seal(&sealing))
}

struct Active {
    file: Prepared,
    position: u64,
}

struct Committer {
    prepared: Receiver<Prepared>,
    full: Sender<Sealing>,
    active: Option<Active>,
    syncs: Vec<Duration>,
}

/// Length and CRC before each payload.
const HEADER_LEN: usize = 8;

impl Committer {
    fn run(&mut self, queue: &Queue) -> io::Result<()> {
        loop {
            let items = queue.take();
            if items.is_empty() {
                return Ok(());
            }
            let outcome = self.commit(&items);
            let reply = outcome.as_ref().copied().map_err(ToString::to_string);
            items.iter().for_each(|item| item.reply.give(reply.clone()));
            outcome?;
        }
    }

    fn commit(&mut self, items: &[Item]) -> io::Result<()> {
        let headers: Vec<[u8; HEADER_LEN]> = items.iter().map(|item| header(&item.payload)).collect();
        let mut slices = Vec::with_capacity(items.len() * 2);
        for (header, item) in headers.iter().zip(items) {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(&item.payload));
        }
        let total = slices.iter().map(|s| u64::try_from(s.len()).unwrap_or(u64::MAX)).sum::<u64>();
        let active = self.room(total)?;
        let begun = Instant::now();
        active.file.file.write_all_at(&mut slices, active.position)?;
        active.file.file.sync_data()?;
        active.position += total;
        self.syncs.push(begun.elapsed());
        Ok(())
    }

    fn room(&mut self, total: u64) -> io::Result<&mut Active> {
        let full = self.active.take_if(|a| a.position + total + EDGE_LEN > a.file.len);
        if let Some(Active { file: Prepared { number, salt, file, .. }, position }) = full {
            let sealing = Sealing { number, salt, file, end: position, frames: 0, commit: 0 };
            self.full.send(sealing).map_err(|_| io::Error::other("no file could be prepared"))?;
        }
        if self.active.is_none() {
            let mut file = self.prepared.recv().map_err(|_| io::Error::other("no file could be prepared"))?;
            let len = total + 2 * EDGE_LEN;
            if file.len < len {
                file.file.allocate(len)?;
                file.file.sync_data()?;
                file.len = len;
            }
            self.active = Some(Active { file, position: EDGE_LEN });
        }
        self.active.as_mut().ok_or_else(|| io::Error::other("no file"))
    }
}

fn header(payload: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let (len, crc) = header.split_at_mut(HEADER_LEN / 2);
    len.copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    crc.copy_from_slice(&crc32c::crc32c(payload).to_be_bytes());
    header
}
