//! Identifying everything stored anew, after the rules have changed.
//!
//! A run goes through all blobs and looks again at those that an earlier version of the rules has identified; what was
//! found then is replaced under every name, times and bytes stay. Since each record says which rules made it, a run that
//! ends early is taken up by the next where it was. Uploads go on meanwhile: both wait for the same turns. Events are not
//! changed; what has become another type is listed, so that people can decide what to run again.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azulite_storage::ids::Sha256;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::Streams;
use super::analyze::{DigestMode, Identified};
use super::store::{BlobReader, BlobRecord, Place, StoreError};
use super::upload::full;

/// Changes and failures that are named; all of them are counted.
const NAMED: usize = 1000;
/// Bytes read at once where digests are missing.
const PIECE: u64 = 128 << 10;

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Find out and tell, but keep what is stored.
    #[serde(default)]
    pub dry_run: bool,
}

/// Where a long run stands; reprocessing has the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Under way.
    #[default]
    Running,
    /// At the end of everything there was.
    Done,
    /// Stopped by somebody; another run goes on from there.
    Stopped,
    /// Stopped by a failure; another run goes on from there.
    Failed,
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What was asked for.
    pub request: Request,
    /// Where it stands.
    pub stage: Stage,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Version of the rules.
    pub version: u32,
    /// Blobs gone through.
    pub passed: u64,
    /// Of these, identified by today's rules already.
    pub current: u64,
    /// Of these, never identified because their upload did not want it.
    pub skipped: u64,
    /// Of these, identified anew.
    pub identified: u64,
    /// Of those identified anew, of another type than before.
    pub changed: u64,
    /// Of these, not identified, because they could not be read or written.
    pub failed: u64,
    /// The first that changed.
    pub changes: Vec<Change>,
    /// The first that failed.
    pub failures: Vec<Failure>,
}

/// A blob that is of another type by today's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The blob.
    pub sha256: String,
    /// Its type until now; empty when that could not be read.
    pub before: String,
    /// Its type by today's rules.
    pub after: String,
}

/// A blob that could not be identified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The blob.
    pub sha256: String,
    /// Why.
    pub reason: String,
}

/// One run: worked off by [`Run::work`] on a blocking thread, looked at from others.
pub struct Run {
    streams: Streams,
    progress: Mutex<Progress>,
    stop: AtomicBool,
    /// Where turns are waited for, inside a server.
    runtime: Option<Handle>,
}

/// The names of one blob, with what is stored under each.
struct Blob {
    hash: Sha256,
    names: Vec<(Place, Option<BlobRecord>)>,
}

impl Blob {
    /// The record that says most; `None` when none can be read.
    fn record(&self) -> Option<&BlobRecord> {
        self.names.iter().filter_map(|(_, record)| record.as_ref()).max_by_key(|record| record.worth())
    }
}

impl Run {
    /// A run over everything `streams` stores. Made inside a runtime, it shares the turns of identification with uploads.
    #[must_use]
    pub fn new(streams: Streams, request: Request) -> Self {
        let version = streams.analyzer.version();
        let progress = Mutex::new(Progress { request, version, ..Progress::default() });
        Self { streams, progress, stop: AtomicBool::new(false), runtime: Handle::try_current().ok() }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.lock().clone()
    }

    /// Asks it to end behind the blob it is at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes through all blobs, on a thread that belongs to no runtime. Blocks on the store and on turns.
    pub fn work(&self) {
        let fault = Fault(self);
        let outcome = self.all();
        std::mem::forget(fault);
        let mut progress = self.lock();
        progress.stage = match outcome {
            Ok(true) => Stage::Done,
            Ok(false) => Stage::Stopped,
            Err(error) => {
                tracing::error!(%error, "identifying anew has stopped; another run goes on from here");
                progress.error = Some(error.to_string());
                Stage::Failed
            }
        };
        let Progress { identified, changed, failed, .. } = *progress;
        tracing::info!(stage = ?progress.stage, identified, changed, failed, "blobs were identified anew");
    }

    /// False when it was asked to stop.
    fn all(&self) -> Result<bool, StoreError> {
        let mut blob: Option<Blob> = None;
        for found in self.streams.store.all() {
            if self.stop.load(Ordering::Acquire) {
                return Ok(false);
            }
            let (hash, place, record) = found?;
            // Names come in the order of hashes.
            match &mut blob {
                Some(blob) if blob.hash == hash => blob.names.push((place, record)),
                other => {
                    let next = Blob { hash, names: vec![(place, record)] };
                    if let Some(complete) = other.replace(next) {
                        self.one(&complete)?;
                    }
                }
            }
        }
        blob.map_or(Ok(()), |last| self.one(&last)).map(|()| true)
    }

    /// Looks at one blob. Only what would fail for all others too is an error.
    fn one(&self, blob: &Blob) -> Result<(), StoreError> {
        let version = self.streams.analyzer.version();
        let record = blob.record();
        match record {
            Some(best) if best.is_by_rules(version) => {
                self.same_under_every_name(blob, best)?;
                self.lock().current += 1;
            }
            Some(best) if best.identify_version == 0 => self.lock().skipped += 1,
            Some(_) | None => match self.again(blob, record) {
                Ok(change) => change.into_iter().for_each(|change| self.told(change)),
                Err(error @ (StoreError::Full | StoreError::Poisoned)) => return Err(error),
                Err(error) => {
                    tracing::warn!(hash = %blob.hash, %error, "a blob could not be identified anew");
                    let mut progress = self.lock();
                    progress.failed += 1;
                    if progress.failures.len() < NAMED {
                        let failure = Failure { sha256: blob.hash.to_string(), reason: error.to_string() };
                        progress.failures.push(failure);
                    }
                }
            },
        }
        self.lock().passed += 1;
        Ok(())
    }

    fn told(&self, change: Change) {
        let mut progress = self.lock();
        progress.identified += 1;
        if change.before != change.after {
            progress.changed += 1;
            if progress.changes.len() < NAMED {
                progress.changes.push(change);
            }
        }
    }

    /// What one name knows by today's rules, the others know as well: a run may have ended between two of them.
    fn same_under_every_name(&self, blob: &Blob, best: &BlobRecord) -> Result<(), StoreError> {
        let version = self.streams.analyzer.version();
        let is_older = |record: &BlobRecord| record.identify_version != 0 && !record.is_by_rules(version);
        let older = blob.names.iter().filter(|(_, record)| record.as_ref().is_none_or(is_older));
        if self.lock().request.dry_run {
            return Ok(());
        }
        older.into_iter().try_for_each(|(place, _)| self.streams.store.redescribe(place, &blob.hash, best).map(drop))
    }

    /// Identifies one blob, and writes that down under all its names. `None` when it was deleted meanwhile.
    fn again(&self, blob: &Blob, record: Option<&BlobRecord>) -> Result<Option<Change>, StoreError> {
        let streams = &self.streams;
        // Without a runtime nobody else takes turns.
        let turn = self.runtime.as_ref().map(|runtime| runtime.block_on(streams.identifications.acquire()));
        let Some(reader) = streams.store.open(&blob.hash)? else { return Ok(None) };
        let input = Box::new(Whole { reader: reader.clone(), position: 0 });
        let found = streams.analyzer.identify(input).map_err(|error| StoreError::Io(io::Error::other(error)))?;
        if found.had_trouble() {
            // What was known before is worth more.
            return Err(StoreError::Io(io::Error::other(found.magic)));
        }
        let after = found.file_format.clone();
        let fresh = self.described(reader.as_ref(), record, found)?;
        drop(turn);
        if !self.lock().request.dry_run {
            for (place, _) in &blob.names {
                // A name that is gone meanwhile needs no record.
                streams.store.redescribe(place, &blob.hash, &fresh)?;
            }
        }
        let before = record.map(|record| record.file_format.clone()).unwrap_or_default();
        Ok(Some(Change { sha256: blob.hash.to_string(), before, after }))
    }

    /// A record with what was found now; digests do not change, so they are computed only where none are known.
    fn described(
        &self,
        reader: &dyn BlobReader,
        record: Option<&BlobRecord>,
        found: Identified,
    ) -> Result<BlobRecord, StoreError> {
        let analyzer = &self.streams.analyzer;
        let Some(record) = record.filter(|record| !record.sha512.is_empty()) else {
            let mut digester = analyzer.digester(DigestMode::Full);
            let mut position = 0;
            while position < reader.len() {
                let length = (reader.len() - position).min(PIECE);
                let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
                reader.read_exact_at(&mut piece, position)?;
                digester.update(Bytes::from(piece));
                position += length;
            }
            let digests = digester.finish().map_err(|error| StoreError::Io(io::Error::other(error)))?;
            return Ok(full(analyzer.version(), reader.len(), digests, found));
        };
        let Identified { mime, magic, file_format, file_extension } = found;
        let identify_version = analyzer.version();
        Ok(BlobRecord { identify_version, mime, magic, file_format, file_extension, ..record.clone() })
    }
}

/// A blob from its beginning.
struct Whole {
    reader: Arc<dyn BlobReader>,
    position: u64,
}

impl Read for Whole {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.reader.len().saturating_sub(self.position);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let part = buf.get_mut(..length).unwrap_or_default();
        self.reader.read_exact_at(part, self.position).map_err(io::Error::other)?;
        self.position += u64::try_from(length).unwrap_or(0);
        Ok(length)
    }
}

impl Seek for Whole {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = super::store::sought(to, self.position, self.reader.len())?;
        Ok(self.position)
    }
}

/// Dropped by a panic, it does not leave the run under way for ever.
struct Fault<'a>(&'a Run);

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        let mut progress = self.0.lock();
        progress.stage = Stage::Failed;
        progress.error = Some("an internal fault".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::memory::{self, MemoryStore, TestAnalyzer};
    use super::super::store::BlobStore;
    use super::*;
    use crate::metrics::Metrics;

    struct World {
        store: Arc<MemoryStore>,
        analyzer: Arc<TestAnalyzer>,
        streams: Streams,
    }

    fn world() -> World {
        let (store, analyzer) = (Arc::new(MemoryStore::default()), Arc::new(TestAnalyzer::default()));
        let metrics = Arc::new(Metrics::new());
        let streams = Streams::new(store.clone(), analyzer.clone(), metrics, Options::default());
        World { store, analyzer, streams }
    }

    impl World {
        /// Stores a blob as rules of `version` saw it; 0 is not at all.
        fn put(&self, source: &str, bytes: &[u8], version: u32) -> (Place, Sha256) {
            let place = Place::new(source, "content");
            let hash = self.store.put(place.clone(), bytes);
            let known = |text: &str| if version == 0 { String::new() } else { text.to_owned() };
            let record = BlobRecord {
                identify_version: version,
                sha256: hash.to_string(),
                sha512: known("kept"),
                file_format: known("old/type"),
                ..BlobRecord::default()
            };
            assert!(self.store.redescribe(&place, &hash, &record).unwrap());
            (place, hash)
        }

        fn run(&self, dry_run: bool) -> Progress {
            let run = Run::new(self.streams.clone(), Request { dry_run });
            run.work();
            run.progress()
        }

        fn type_of(&self, (_, hash): &(Place, Sha256)) -> String {
            self.store.known(hash).unwrap().unwrap().file_format
        }
    }

    #[test]
    fn what_earlier_rules_identified_is_identified_anew_under_every_name() {
        let world = world();
        let old = world.put("a", b"old", 1);
        world.put("b", b"old", 1);
        let (current, skipped) = (world.put("a", b"current", 2), world.put("a", b"skipped", 0));
        let stored = world.store.stat(&old.0, &old.1).unwrap();
        let rehearsal = world.run(true);
        assert_eq!((rehearsal.identified, rehearsal.changed), (1, 1));
        assert_eq!(world.type_of(&old), "old/type", "a rehearsal changes nothing");

        let done = world.run(false);
        let counts = [done.passed, done.current, done.skipped, done.identified, done.changed, done.failed];
        assert_eq!((done.stage, counts), (Stage::Done, [3, 1, 1, 1, 1, 0]));
        let change = Change { sha256: old.1.to_string(), before: "old/type".into(), after: "text/plain".into() };
        assert_eq!(done.changes, [change]);
        assert_eq!(world.type_of(&old), "text/plain");
        assert_eq!((world.type_of(&current), world.type_of(&skipped)), ("old/type".to_owned(), String::new()));
        let names: Vec<_> = world.store.all().map(Result::unwrap).filter(|(hash, ..)| *hash == old.1).collect();
        assert!(names.len() == 2 && names.iter().all(|(.., record)| record.as_ref().unwrap().identify_version == 2));
        assert!(names.iter().all(|(.., record)| record.as_ref().unwrap().sha512 == "kept"), "digests do not change");
        assert_eq!(world.store.stat(&old.0, &old.1).unwrap(), stored, "nor do times");
    }

    #[test]
    fn a_run_goes_on_where_the_last_one_stopped() {
        let world = world();
        for number in 0..5 {
            world.put("a", format!("blob {number}").as_bytes(), 1);
        }
        world.store.fail("open", memory::Failure::Full);
        let failed = world.run(false);
        assert_eq!((failed.stage, failed.identified), (Stage::Failed, 0));
        assert!(failed.error.unwrap().contains("full"));
        world.store.mend("open");
        let stopped = Run::new(world.streams.clone(), Request::default());
        stopped.stop();
        stopped.work();
        assert_eq!(stopped.progress().stage, Stage::Stopped);
        assert_eq!(world.run(false).identified, 5);
        let again = world.run(false);
        assert_eq!((again.identified, again.current), (0, 5));
        assert_eq!(world.analyzer.identified.load(Ordering::SeqCst), 5);
    }

    #[test]
    fn a_blob_that_cannot_be_identified_is_named_and_does_not_stop_the_others() {
        let world = world();
        let bad = world.put("a", b"FAIL", 1);
        world.put("a", b"good", 1);
        let done = world.run(false);
        assert_eq!((done.stage, done.failed, done.identified), (Stage::Done, 1, 1));
        assert_eq!(done.failures[0].sha256, bad.1.to_string());
        assert!(done.failures[0].reason.contains("told to fail"), "{:?}", done.failures);
        assert_eq!(world.type_of(&bad), "old/type", "it keeps what it had");
    }

    #[test]
    fn what_was_known_is_not_given_up_for_an_identification_in_trouble() {
        let world = world();
        let blob = world.put("a", b"TROUBLE", 1);
        let done = world.run(false);
        assert_eq!((done.failed, done.identified), (1, 0));
        assert!(done.failures[0].reason.contains("content rules"), "{:?}", done.failures);
        assert_eq!(world.type_of(&blob), "old/type");
        // One that was in trouble when it was uploaded is tried again.
        let (place, hash) = world.put("a", b"no trouble any more", 2);
        let record =
            BlobRecord { magic: "error - content rules: killed".into(), ..world.store.known(&hash).unwrap().unwrap() };
        assert!(world.store.redescribe(&place, &hash, &record).unwrap());
        assert_eq!(world.run(false).identified, 1);
        assert_eq!(world.type_of(&(place, hash)), "text/plain");
    }

    #[test]
    fn a_name_that_an_interrupted_run_did_not_reach_gets_what_the_others_know() {
        let world = world();
        let old = world.put("a", b"two names", 1);
        world.put("b", b"two names", 2);
        let done = world.run(false);
        assert_eq!((done.current, done.identified), (1, 0));
        let names: Vec<_> = world.store.all().map(Result::unwrap).filter(|(hash, ..)| *hash == old.1).collect();
        assert!(names.len() == 2 && names.iter().all(|(.., record)| record.as_ref().unwrap().identify_version == 2));
    }

    #[test]
    fn a_fault_inside_ends_the_run_and_is_told() {
        let world = world();
        world.put("a", b"PANIC", 1);
        let run = Run::new(world.streams.clone(), Request::default());
        std::thread::scope(|scope| assert!(scope.spawn(|| run.work()).join().is_err()));
        assert_eq!(run.progress().stage, Stage::Failed);
    }
}
