//! The store: one data directory, opened. Everything callers do goes through [`Store`].

mod core;
mod lost;
mod opening;

pub use core::Values;
use core::kv_change;
pub(crate) use core::{Core, state_batch, wait};

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::blob::BlobError;
use crate::catalogue::{Catalogue, CatalogueError, Replay};
use crate::cleaner::CleanerOptions;
use crate::clock;
use crate::encoding::Encoding;
use crate::format::{self, FormatError};
use crate::fs::{Fs, is_full};
use crate::ids::{Offset, PartitionNumber, SegmentNumber, TopicPartition};
use crate::index::{IndexError, IndexRow, StateKeyspace};
use crate::log::ReadError;
use crate::maintenance::{Now, millis};
use crate::partition::Damage;
use crate::producers::RefusedBatch;
use crate::queue::{Append, Appended, Done, Lane, Request};
use crate::secret::KeyError;
use crate::segments::Segments;
use crate::state::StateKey;

/// When an acknowledgement leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the sync of the commit. The default.
    Sync,
    /// After the write; a sync follows within this time. A power cut can lose what was acknowledged since.
    Interval(Duration),
    /// After the write; synced when a segment is full or the store closes. For tests.
    None,
}

/// Told once, with the reason, that a store has stopped itself.
pub type OnFatal = Arc<dyn Fn(&str) + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// The data directory.
    pub root: PathBuf,
    /// The index folder, where it is not `index` below the data directory.
    pub index_dir: Option<PathBuf>,
    /// The catalogue folder, where it is not `catalogue` below the data directory.
    pub catalogue_dir: Option<PathBuf>,
    /// When acknowledgements leave.
    pub durability: Durability,
    /// Length of a segment file in bytes.
    pub segment_bytes: u64,
    /// Bytes of frames in one commit, about; a larger request goes alone.
    pub commit_bytes: usize,
    /// Bytes that may wait to be committed before callers are turned away.
    pub queue_bytes: usize,
    /// Blobs of up to this many bytes go into the log; 0: none does.
    pub inline_bytes: usize,
    /// What is done to the bytes of blobs from now on. What is stored already stays as it is, and readable.
    pub encoding: Encoding,
    /// Bytes of newest batches kept in memory.
    pub cache_bytes: usize,
    /// How long a producer that writes nothing is remembered, in milliseconds.
    pub producer_expiration_ms: i64,
    /// Bytes of the disk kept free: below it only state is taken in.
    pub reserve_bytes: u64,
    /// How what is dead leaves the disk.
    pub cleaner: CleanerOptions,
    /// Called once when the store has stopped itself: nothing more is acknowledged, the process should end.
    pub on_fatal: Option<OnFatal>,
    /// The longest time between two looks of retention at a partition. `None`: nothing is done in the background, only
    /// by [`Store::maintain`].
    pub maintenance: Option<Duration>,
    /// Reads the wall clock, milliseconds since 1970.
    pub clock: Clock,
}

/// Reads the wall clock.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("root", &self.root).field("durability", &self.durability).finish()
    }
}

impl Options {
    /// The defaults for a data directory.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            index_dir: None,
            catalogue_dir: None,
            durability: Durability::Sync,
            segment_bytes: 64 << 20,
            commit_bytes: 8 << 20,
            queue_bytes: 64 << 20,
            inline_bytes: 64 << 10,
            encoding: Encoding::Plain,
            cache_bytes: 16 << 20,
            producer_expiration_ms: 86_400_000,
            reserve_bytes: 0,
            cleaner: CleanerOptions::default(),
            on_fatal: None,
            maintenance: None,
            clock: Arc::new(clock::now_ms),
        }
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path} is in use by another process ({holder})")]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Who, as far as the lock file says.
        holder: String,
    },
    /// Another layout than the one this program reads.
    #[error("{path} has format {found}, this program opens format {wanted}; {}", remedy(*found, *wanted))]
    Format {
        /// The data directory.
        path: PathBuf,
        /// What its stamp says.
        found: u32,
        /// What this program opens.
        wanted: u32,
    },
    /// The stamp could not be read or written.
    #[error(transparent)]
    Stamp(#[from] FormatError),
    /// State records that were acknowledged are damaged; nothing that depends on them can be trusted.
    #[error(
        "state record at offset {offset} is damaged: segment {segment}, position {position}; restore from a backup"
    )]
    StateDamaged {
        /// The segment.
        segment: SegmentNumber,
        /// Where in it, bytes from its start.
        position: u64,
        /// The record's offset.
        offset: Offset,
    },
    /// The operating system refused.
    #[error("{path}: {error}")]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The index failed while being brought forward.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The blob catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The key that blobs are stored with cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The blob folders failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The log could not be read while bringing the catalogue forward.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record of what recovery found could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why an append was not done. Nothing of the request is in the log, except after [`AppendError::Poisoned`], when it is
/// unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Less than the reserve is free. Comes back by itself when there is room.
    #[error("the disk is full")]
    DiskFull,
    /// Too much waits already; try again.
    #[error("{queued_bytes} bytes wait to be committed, at most {limit_bytes} may")]
    Overloaded {
        /// What waits.
        queued_bytes: usize,
        /// What may.
        limit_bytes: usize,
    },
    /// The store is closing.
    #[error("the store is closing")]
    Closed,
    /// A sync or an internal step failed: the store takes nothing more until it is opened again.
    #[error("the store has stopped itself: {reason}")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// The operating system refused before anything was acknowledged.
    #[error("the log could not be written: {reason}")]
    Io {
        /// What it said.
        reason: String,
    },
    /// The topic has been deleted.
    #[error("{partition}: the topic has been deleted")]
    Gone {
        /// The partition.
        partition: TopicPartition,
    },
    /// A batch could not be built: a record is too large.
    #[error("a record batch may hold at most 2 GiB")]
    TooLarge,
    /// The batch does not follow what its idempotent producer wrote before.
    #[error(transparent)]
    Sequence(Box<RefusedBatch>),
    /// Something was appended since, and the batch was to be taken only if nothing was ([`CheckedBatch::only_at`]).
    #[error("{partition}: the next offset is {next}, no longer {expected}")]
    Moved {
        /// The partition.
        partition: TopicPartition,
        /// Where the batch was to go.
        expected: Offset,
        /// The next offset.
        next: Offset,
    },
}

impl AppendError {
    pub(crate) fn from_io(error: &io::Error) -> Self {
        match is_full(error) {
            true => Self::DiskFull,
            false => Self::Io { reason: error.to_string() },
        }
    }
}

/// What to do about a store of another format.
fn remedy(found: u32, wanted: u32) -> &'static str {
    if found > wanted { "install the newer version that wrote it, or a later one" } else { "run `azulite migrate`" }
}

/// What opening a data directory found and did.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// Commits replayed from the log into the index.
    pub replayed_commits: u64,
    /// True when the index was built anew.
    pub index_rebuilt: bool,
    /// True when the blob catalogue was built anew.
    pub catalogue_rebuilt: bool,
    /// Bytes of a torn tail that were cut off and kept in `lost+found`.
    pub torn_bytes: u64,
    /// One line per damaged place found in this run, each naming segment and position, and partition and offsets where
    /// they are known.
    pub damage: Vec<String>,
    /// How many inline blobs were found in this run that cannot be read.
    pub damaged_blobs: u64,
}

/// An open data directory. Closed when the last clone is dropped, or by [`Store::close`].
#[derive(Clone)]
pub struct Store {
    pub(crate) core: Arc<Core>,
    owner: Arc<Owner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("root", &self.core.options.root).finish()
    }
}

/// Ends the threads when the last [`Store`] is gone.
struct Owner {
    core: Arc<Core>,
    threads: Mutex<Option<Threads>>,
    report: OpenReport,
}

/// What a storage thread does; `Err` stops the store.
type ThreadBody = Box<dyn FnOnce(&Core) -> Result<(), String> + Send>;

struct Threads {
    committer: JoinHandle<()>,
    applier: JoinHandle<()>,
    keeper: JoinHandle<()>,
    cleaner: JoinHandle<()>,
    catalogue: JoinHandle<()>,
    maintenance: Option<JoinHandle<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Owner {
    /// Takes nothing more in, finishes what waits, brings the index to the end, releases the directory.
    fn close(&self) {
        let Some(threads) = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let core = &self.core;
        core.maintenance.stop();
        core.queue.close(AppendError::Closed);
        let joined = |thread: JoinHandle<()>, name| {
            if thread.join().is_err() {
                tracing::error!(thread = name, "a storage thread ended by a panic");
            }
        };
        core.cleaner.stop();
        joined(threads.cleaner, "cleaner");
        joined(threads.committer, "committer");
        threads.maintenance.into_iter().for_each(|thread| joined(thread, "maintenance"));
        core.pending.stop();
        joined(threads.applier, "applier");
        core.keeper.stop();
        joined(threads.keeper, "keeper");
        core.catalogue.stop();
        joined(threads.catalogue, "catalogue");
        let healthy = core.fatal.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if healthy {
            let end = core.state_partition.offsets().high_watermark;
            let closed = core.index.persist().map_err(|e| e.to_string());
            let closed = closed.and_then(|()| core.catalogue.close(end).map_err(|e| e.to_string()));
            if let Err(error) = closed {
                tracing::warn!(error, "the index was not closed cleanly; the next start brings it forward");
            }
        }
    }
}

impl Store {
    /// Opens a data directory, making it when there is none, and recovers whatever the last process left.
    ///
    /// # Durability
    /// On `Ok` everything that was ever acknowledged is there, or [`OpenReport::damage`] names what is not.
    /// # Errors
    /// See [`OpenError`].
    pub fn open(fs: Arc<dyn Fs>, options: Options) -> Result<Self, OpenError> {
        let root = options.root.clone();
        let lock = opening::take_lock(fs.as_ref(), &options)?;
        match format::read_format(fs.as_ref(), &root)? {
            Some(format::FORMAT) => {
                format::create_directories(fs.as_ref(), &root)?;
                opening::settle_names(fs.as_ref(), &root)?;
            }
            Some(found) => return Err(OpenError::Format { path: root, found, wanted: format::FORMAT }),
            None => format::create(fs.as_ref(), &root)?,
        }
        let segments = Arc::new(Segments::new(fs.clone(), root.join("log")));
        let mut report = OpenReport::default();
        let (index, recovered, lost) = opening::recover(&fs, &segments, &options)?;
        let catalogue_dir = options.catalogue_dir.clone().unwrap_or_else(|| root.join("catalogue"));
        let (catalogue, replay) = Catalogue::open(&catalogue_dir)?;
        report.replayed_commits = recovered.replayed_commits;
        report.index_rebuilt = recovered.rebuilt;
        report.torn_bytes = recovered.torn_bytes;
        report.damaged_blobs = recovered.damaged_blobs();
        report.catalogue_rebuilt = replay == Replay::Everything;
        let core = opening::build_core(fs, options, (segments, index, catalogue, lock), &recovered)?;
        opening::bring_catalogue_forward(&core, replay)?;
        let core = Arc::new(core);
        let threads = opening::start_threads(&core, &recovered)?;
        let mut owner = Owner { core: core.clone(), threads: Mutex::new(Some(threads)), report };
        opening::note_key(&core)?;
        owner.report.damage = opening::report_damage(&core, &recovered, lost)?;
        Ok(Self { core, owner: Arc::new(owner) })
    }

    /// What opening found and did.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.owner.report
    }

    /// Takes nothing more in, commits what waits, ends the threads. The data directory is released when the last clone
    /// is dropped.
    pub fn close(&self) {
        self.owner.close();
    }

    /// Why the store stopped itself, if it did.
    #[must_use]
    pub fn fatal(&self) -> Option<String> {
        self.core.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True while less than the reserve is free on the disk.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        self.core.keeper.disk_full()
    }

    /// True while retention by time and the removal of tombstones wait because the wall clock is not trusted.
    #[must_use]
    pub fn retention_waits(&self) -> bool {
        self.core.clock_held.load(Ordering::Relaxed)
    }

    /// The wall clock, milliseconds since 1970, if something may be aged off by it; `None` while it is not trusted.
    ///
    /// # Errors
    /// Those of a commit: that the clock is not trusted any more, or again, is kept.
    pub fn trusted_now_ms(&self) -> Result<Option<i64>, AppendError> {
        let now = Now { wall_ms: self.core.now_ms(), up_ms: millis(self.core.opened.elapsed()) };
        Ok(self.core.is_clock_trusted(now)?.then_some(now.wall_ms))
    }

    /// Has `listener` called after every commit, on the committer thread, with the partitions that grew, and after
    /// a deletion with those that are gone. Once only.
    pub fn on_commit(&self, listener: impl Fn(&[PartitionNumber]) + Send + Sync + 'static) {
        let first = self.core.listener.set(Box::new(listener)).is_ok();
        assert!(first, "on_commit is called once");
    }

    /// Writes the HTTP address into the lock file, so that commands find the server.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn describe(&self, http: &str) -> io::Result<()> {
        self.core.lock.describe(Some(http))
    }

    /// Queues batches that are committed together or not at all.
    ///
    /// # Durability
    /// `done` gets `Ok` only once everything is durable as the mode says, and readers see it.
    /// # Errors
    /// Through `done`: see [`AppendError`].
    pub fn append(&self, lane: Lane, appends: Vec<Append>, done: Done) {
        let request =
            Request { appends, blobs: Vec::new(), changes: Vec::new(), catalogue: false, synced: false, done };
        if let Err((request, error)) = self.core.queue.push(Some(lane), request) {
            (request.done)(Err(error));
        }
    }

    /// [`Store::append`] with values of the caller's own ([`Store::put_kv`]) in the same commit, all or nothing.
    ///
    /// # Durability
    /// As [`Store::append`]; `done` gets what became of `appends` alone. Changes of one value through different lanes
    /// have no order among each other.
    /// # Errors
    /// Through `done`: see [`AppendError`].
    pub fn append_with(&self, lane: Lane, mut appends: Vec<Append>, values: Values, done: Done) {
        if values.is_empty() {
            return self.append(lane, appends, done);
        }
        let data = appends.len();
        let changes: Vec<_> = values.into_iter().map(kv_change).collect();
        match state_batch(changes.iter().map(|(_, change)| change), self.core.now_ms()) {
            Ok(Some(batch)) => appends.push(Append { partition: self.core.state_partition.clone(), batch }),
            Ok(None) => {}
            Err(error) => return done(Err(error)),
        }
        let done: Done = Box::new(move |outcome| {
            done(outcome.map(|mut appended| {
                appended.truncate(data);
                appended
            }));
        });
        if let Err((request, error)) = self
            .core
            .queue
            .push(Some(lane), Request { appends, blobs: Vec::new(), changes, catalogue: false, synced: false, done })
        {
            (request.done)(Err(error));
        }
    }

    /// [`Store::append`], unless the queue is full: then everything comes back, and nothing has happened.
    ///
    /// # Errors
    /// What was given, because there is no room for it now.
    pub fn try_append(&self, lane: Lane, appends: Vec<Append>, done: Done) -> Result<(), (Vec<Append>, Done)> {
        let request =
            Request { appends, blobs: Vec::new(), changes: Vec::new(), catalogue: false, synced: false, done };
        match self.core.queue.push(Some(lane), request) {
            Ok(()) => Ok(()),
            Err((request, AppendError::Overloaded { .. })) => Err((request.appends, request.done)),
            Err((request, error)) => {
                (request.done)(Err(error));
                Ok(())
            }
        }
    }

    /// [`Store::append`], waited for.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_wait(&self, lane: Lane, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        wait(|done| self.append(lane, appends, done))
    }

    /// A value that callers keep under a name of theirs.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn kv(&self, name: &[u8]) -> Result<Option<Bytes>, IndexError> {
        self.core.state(StateKeyspace::State, &StateKey::Kv(name.to_vec()).encode())
    }

    /// Sets (`None`: removes) values that callers keep, all or nothing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn put_kv(&self, values: Values) -> Result<(), AppendError> {
        self.core.change_wait(values.into_iter().map(kv_change).collect(), false)
    }

    /// [`Store::put_kv`], not waited for. Changes are made in the order of the calls.
    ///
    /// # Durability
    /// `done` gets `Ok` only once they are durable.
    pub fn queue_kv(&self, values: Values, done: Done) {
        self.core.change(values.into_iter().map(kv_change).collect(), false, done);
    }

    /// Up to `limit` values whose names start with `prefix`, in order of name; with `after` those behind that name.
    ///
    /// Fewer than `limit` means that there are no more. Memory is bounded by the page.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn kv_page(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
        let (prefix, after) = (StateKey::kv(prefix), after.map(StateKey::kv));
        let rows = self.core.pending.state_page(&self.core.index, &prefix, after.as_deref(), limit)?;
        Ok(rows.into_iter().map(|(key, value)| (key.slice(1..), value)).collect())
    }

    /// Every range of offsets known to be lost.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        let partitions = self.core.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.values().flat_map(|partition| partition.damage()).collect()
    }

    /// Every index row but the marker, sorted, after everything committed so far has been applied: for tests.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn index_dump(&self) -> Result<Vec<IndexRow>, IndexError> {
        self.core.settle();
        self.core.index.dump()
    }
}

#[cfg(test)]
mod tests;
