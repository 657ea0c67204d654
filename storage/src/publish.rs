//! Publishing blobs in groups: uploads that end at about the same time share their directory syncs and their commit.
//!
//! Called by [`Store::publish`](crate::Store::publish) with bytes that are durable but have no name yet. The first that
//! comes leads: it takes along whoever waits, gives all of them their names, has each directory synced once with the
//! help of those that wait, hands over to the next in line, commits all references at once, and answers. As with
//! commits, a group is what came together during the last one, never a wait for more; a lone upload goes as it would
//! without groups. Keeps the law BLOB-FIRST.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::blob::{BlobError, Hardened};
use crate::dir_syncs::DirSyncs;
use crate::index::StateKeyspace;
use crate::state::{BlobRecord, BlobRefKey, Change, StateKey, StoredRecord};
use crate::store::{AppendError, Core};

/// Uploads in one group, at most.
const GROUP_MAX: usize = 256;

/// What is to be published. Whoever publishes holds the lock of its hash.
pub(crate) struct Upload {
    /// `None` when bytes and name are durable already.
    pub(crate) file: Option<Hardened>,
    pub(crate) key: BlobRefKey,
    pub(crate) size: u64,
    pub(crate) description: Vec<u8>,
    /// How the bytes are stored, where that is new.
    pub(crate) stored: Option<StoredRecord>,
}

type Outcome = Result<BlobRecord, BlobError>;

/// What one that waits is told.
enum Word {
    /// It is the next to lead; its own upload is the first that waits.
    Lead,
    /// There are directories to sync for its group.
    Help(Arc<DirSyncs>),
    /// It is done.
    Done(Outcome),
}

struct Waiting {
    upload: Upload,
    told: SyncSender<Word>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    led: bool,
}

/// Where uploads wait for their group.
#[derive(Default)]
pub(crate) struct Publishing(Mutex<Line>);

impl Publishing {
    /// Publishes with whoever else waits.
    ///
    /// # Durability
    /// On `Ok` bytes, name and reference are durable; on `Err` only a file that nobody refers to may be left.
    pub(crate) fn publish(&self, core: &Core, upload: Upload) -> Outcome {
        // One of each word at most, so telling never waits.
        let (told, words) = sync_channel(3);
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.waiting.push_back(Waiting { upload, told });
        let leads = !std::mem::replace(&mut line.led, true);
        drop(line);
        if leads {
            self.lead(core);
        }
        self.wait(core, &words)
    }

    fn wait(&self, core: &Core, words: &Receiver<Word>) -> Outcome {
        loop {
            match words.recv() {
                Ok(Word::Lead) => self.lead(core),
                Ok(Word::Help(syncs)) => syncs.help(),
                Ok(Word::Done(outcome)) => return outcome,
                // The leader panicked.
                Err(_) => return Err(AppendError::Closed.into()),
            }
        }
    }

    /// Does one group whose first is the caller's own. The lead is passed on once all names are durable, whatever
    /// happens, so that the next group syncs its directories while this one is committed.
    fn lead(&self, core: &Core) {
        let successor = Successor(self);
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = line.waiting.len().min(GROUP_MAX);
        let group: Vec<Waiting> = line.waiting.drain(..count).collect();
        drop(line);
        let (mut files, mut references, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for Waiting { upload, told: one } in group {
            files.push(upload.file);
            references.push((upload.key, upload.size, upload.description, upload.stored));
            told.push(one);
        }
        let naming = core.blobs.name_all(files);
        for one in told.iter().skip(1).take(naming.syncs().len().saturating_sub(1)) {
            say(one, Word::Help(naming.syncs().clone()));
        }
        let named = naming.finish();
        drop(successor);
        for (one, outcome) in told.into_iter().zip(refer(core, named, references)) {
            say(&one, Word::Done(outcome));
        }
    }
}

fn say(to: &SyncSender<Word>, word: Word) {
    // Whoever waits cannot be gone.
    drop(to.send(word));
}

/// Makes the first that waits the leader, or lets the next that comes lead.
struct Successor<'a>(&'a Publishing);

impl Drop for Successor<'_> {
    fn drop(&mut self) {
        let mut line = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.led = line.waiting.front().is_some_and(|first| first.told.send(Word::Lead).is_ok());
    }
}

/// Name, size, description, and how it is stored, where that is new.
type Reference = (BlobRefKey, u64, Vec<u8>, Option<StoredRecord>);

/// Refers to the blobs whose names are durable, all in one commit; one outcome for each.
fn refer(core: &Core, named: Vec<Result<(), BlobError>>, references: Vec<Reference>) -> Vec<Outcome> {
    let stored_ms = core.now_ms();
    let mut changes = Vec::with_capacity(references.len());
    let mut refer = |(key, size, description, stored): Reference| {
        let record = BlobRecord { size, stored_ms, description };
        if let Some(stored) = stored {
            changes.push((StateKeyspace::State, Change::put(&StateKey::Stored(key.hash), &stored)));
        }
        changes.push((StateKeyspace::State, Change::put(&StateKey::BlobRef(key), &record)));
        record
    };
    let outcomes: Vec<Outcome> =
        named.into_iter().zip(references).map(|(named, reference)| named.map(|()| refer(reference))).collect();
    match core.change_wait(changes, true) {
        Ok(()) => outcomes,
        Err(error) => outcomes.into_iter().map(|outcome| outcome.and_then(|_| Err(error.clone().into()))).collect(),
    }
}
