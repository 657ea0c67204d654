//! A blob store in memory and an analyzer that can be told to fail, for tests.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use azulite_storage::clock::now_ms;
use azulite_storage::ids::Sha256;
use bytes::Bytes;
use sha2::Digest as _;

use super::analyze::{Analyzer, DigestMode, DigestSink, Digests, Identified};
use super::store::{
    BlobReader, BlobRecord, BlobStore, Deleted, Listed, Place, ReadSeek, Staged, Stat, StoreError, is_older,
};

/// What a call of [`MemoryStore`] is told to fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Io,
    Full,
}

#[derive(Default)]
struct Inner {
    blobs: HashMap<Sha256, Arc<Vec<u8>>>,
    references: BTreeMap<(Place, [u8; 32]), (BlobRecord, i64)>,
    failing: HashMap<&'static str, Failure>,
}

#[derive(Default)]
pub(crate) struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
    /// Staging files that exist right now.
    pub(crate) staged: Arc<AtomicUsize>,
    /// Largest piece written at once, and bytes written over all.
    pub(crate) largest_write: Arc<AtomicUsize>,
    pub(crate) written: Arc<AtomicUsize>,
}

impl MemoryStore {
    pub(crate) fn fail(&self, call: &'static str, failure: Failure) {
        self.inner.lock().unwrap().failing.insert(call, failure);
    }

    pub(crate) fn mend(&self, call: &'static str) {
        self.inner.lock().unwrap().failing.remove(call);
    }

    pub(crate) fn blobs(&self) -> usize {
        self.inner.lock().unwrap().blobs.len()
    }

    pub(crate) fn places(&self) -> Vec<String> {
        self.inner.lock().unwrap().references.keys().map(|(place, _)| place.to_string()).collect()
    }

    /// Puts a blob directly.
    pub(crate) fn put(&self, place: Place, bytes: &[u8]) -> Sha256 {
        let hash = Sha256(sha2::Sha256::digest(bytes).into());
        let mut inner = self.inner.lock().unwrap();
        inner.blobs.insert(hash, Arc::new(bytes.to_vec()));
        inner.references.insert((place, hash.0), (BlobRecord::default(), now_ms()));
        hash
    }

    fn check(&self, call: &'static str) -> Result<(), StoreError> {
        check(&self.inner, call)
    }
}

fn check(inner: &Mutex<Inner>, call: &'static str) -> Result<(), StoreError> {
    match inner.lock().unwrap().failing.get(call) {
        None => Ok(()),
        Some(Failure::Full) => Err(StoreError::Full),
        Some(Failure::Io) => Err(StoreError::Io(std::io::Error::other("told to fail"))),
    }
}

impl BlobStore for MemoryStore {
    fn stage(&self) -> Result<Box<dyn Staged>, StoreError> {
        self.check("stage")?;
        self.staged.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(MemoryStaged {
            inner: Arc::clone(&self.inner),
            staged: Arc::clone(&self.staged),
            largest_write: Arc::clone(&self.largest_write),
            written: Arc::clone(&self.written),
            bytes: Vec::new(),
        }))
    }

    fn stat(&self, place: &Place, hash: &Sha256) -> Result<Option<Stat>, StoreError> {
        self.check("stat")?;
        let inner = self.inner.lock().unwrap();
        let Some((_, stored_ms)) = inner.references.get(&(place.clone(), hash.0)) else { return Ok(None) };
        let size = inner.blobs.get(hash).map_or(0, |blob| blob.len().try_into().unwrap());
        Ok(Some(Stat { size, stored_ms: *stored_ms }))
    }

    fn known(&self, hash: &Sha256) -> Result<Option<BlobRecord>, StoreError> {
        self.check("known")?;
        let inner = self.inner.lock().unwrap();
        let records = inner.references.iter().filter(|((_, h), _)| *h == hash.0).map(|(_, (record, _))| record);
        Ok(records.max_by_key(|record| record.identify_version).cloned())
    }

    fn open(&self, hash: &Sha256) -> Result<Option<Arc<dyn BlobReader>>, StoreError> {
        self.check("open")?;
        let inner = Arc::clone(&self.inner);
        let blob = self.inner.lock().unwrap().blobs.get(hash).map(Arc::clone);
        let Some(bytes) = blob else { return Ok(None) };
        Ok(Some(Arc::new(MemoryReader { bytes, inner })))
    }

    fn copy(&self, from: &Place, to: &Place, hash: &Sha256) -> Result<bool, StoreError> {
        self.check("copy")?;
        let mut inner = self.inner.lock().unwrap();
        let Some((record, _)) = inner.references.get(&(from.clone(), hash.0)).cloned() else { return Ok(false) };
        inner.references.insert((to.clone(), hash.0), (record, now_ms()));
        Ok(true)
    }

    fn delete(&self, place: &Place, hash: &Sha256, older_than: Option<i64>) -> Result<Deleted, StoreError> {
        self.check("delete")?;
        let mut inner = self.inner.lock().unwrap();
        let key = (place.clone(), hash.0);
        let Some((_, stored_ms)) = inner.references.get(&key) else { return Ok(Deleted::NotFound) };
        if !is_older(*stored_ms, older_than) {
            return Ok(Deleted::TooYoung);
        }
        inner.references.remove(&key);
        if !inner.references.keys().any(|(_, h)| *h == hash.0) {
            inner.blobs.remove(hash);
        }
        Ok(Deleted::Yes)
    }

    fn all(&self) -> Listed {
        let inner = self.inner.lock().unwrap();
        let listed = inner.references.iter().map(|((place, hash), (record, _))| (Sha256(*hash), place.clone(), record));
        let mut listed: Vec<_> = listed.map(|(hash, place, record)| (hash, place, Some(record.clone()))).collect();
        listed.sort_by_key(|(hash, ..)| *hash);
        Box::new(listed.into_iter().map(Ok))
    }

    fn redescribe(&self, place: &Place, hash: &Sha256, record: &BlobRecord) -> Result<bool, StoreError> {
        let mut inner = self.inner.lock().unwrap();
        let Some(found) = inner.references.get_mut(&(place.clone(), hash.0)) else { return Ok(false) };
        found.0 = record.clone();
        Ok(true)
    }
}

struct MemoryStaged {
    inner: Arc<Mutex<Inner>>,
    staged: Arc<AtomicUsize>,
    largest_write: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
    bytes: Vec<u8>,
}

impl Staged for MemoryStaged {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        check(&self.inner, "write")?;
        self.largest_write.fetch_max(bytes.len(), Ordering::SeqCst);
        self.written.fetch_add(bytes.len(), Ordering::SeqCst);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.bytes.len().try_into().unwrap()
    }

    fn reader(&mut self) -> Result<Box<dyn ReadSeek>, StoreError> {
        Ok(Box::new(Cursor::new(self.bytes.clone())))
    }

    fn publish(mut self: Box<Self>, hash: &Sha256, place: &Place, record: &BlobRecord) -> Result<(), StoreError> {
        check(&self.inner, "publish")?;
        let bytes = std::mem::take(&mut self.bytes);
        assert_eq!(sha2::Sha256::digest(&bytes).as_slice(), hash.0, "BLOB-HASH");
        let mut inner = self.inner.lock().unwrap();
        inner.blobs.entry(*hash).or_insert_with(|| Arc::new(bytes));
        inner.references.insert((place.clone(), hash.0), (record.clone(), now_ms()));
        Ok(())
    }
}

impl Drop for MemoryStaged {
    fn drop(&mut self) {
        self.staged.fetch_sub(1, Ordering::SeqCst);
    }
}

struct MemoryReader {
    bytes: Arc<Vec<u8>>,
    inner: Arc<Mutex<Inner>>,
}

impl BlobReader for MemoryReader {
    fn len(&self) -> u64 {
        self.bytes.len().try_into().unwrap()
    }

    fn read_exact_at(&self, buf: &mut [u8], position: u64) -> Result<(), StoreError> {
        check(&self.inner, "read")?;
        if position > 0 {
            check(&self.inner, "read on")?;
        }
        let start = usize::try_from(position).unwrap();
        let end = start + buf.len();
        let part = self.bytes.get(start..end).ok_or_else(|| StoreError::Damaged("too short".to_owned()))?;
        buf.copy_from_slice(part);
        Ok(())
    }
}

/// Real SHA-256, made-up other digests, everything is text. Content that begins with `FAIL` or `PANIC` does so; content
/// that begins with `TROUBLE` is identified in part, that with `WAIT` waits until [`TestAnalyzer::release`].
#[derive(Default)]
pub(crate) struct TestAnalyzer {
    pub(crate) identified: AtomicUsize,
    pub(crate) running: AtomicUsize,
    pub(crate) most_running: AtomicUsize,
    released: Mutex<bool>,
    release: Condvar,
}

impl TestAnalyzer {
    pub(crate) fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.release.notify_all();
    }
}

impl Analyzer for TestAnalyzer {
    fn version(&self) -> u32 {
        2
    }

    fn digester(&self, mode: DigestMode) -> Box<dyn DigestSink> {
        Box::new(TestDigester { mode, sha256: sha2::Sha256::new() })
    }

    fn identify(&self, mut input: Box<dyn ReadSeek>) -> Result<Identified, String> {
        let mut head = Vec::new();
        input.read_to_end(&mut head).unwrap();
        self.identified.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        if head.starts_with(b"WAIT") {
            let released = self.released.lock().unwrap();
            drop(self.release.wait_while(released, |released| !*released).unwrap());
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        assert!(!head.starts_with(b"PANIC"), "told to panic");
        if head.starts_with(b"FAIL") {
            return Err("told to fail".to_owned());
        }
        let text = str::to_owned;
        if head.starts_with(b"TROUBLE") {
            let magic = text("error - content rules: told to fail");
            return Ok(Identified { magic, file_format: text("unknown"), ..Identified::default() });
        }
        Ok(Identified {
            mime: text("text/plain"),
            magic: text("ASCII text"),
            file_format: text("text/plain"),
            file_extension: text("txt"),
        })
    }
}

struct TestDigester {
    mode: DigestMode,
    sha256: sha2::Sha256,
}

impl DigestSink for TestDigester {
    fn update(&mut self, bytes: Bytes) {
        self.sha256.update(&bytes);
    }

    fn finish(self: Box<Self>) -> Result<Digests, String> {
        let sha256 = Sha256(self.sha256.finalize().into()).to_string();
        Ok(match self.mode {
            DigestMode::Sha256Only => Digests { sha256, ..Digests::default() },
            DigestMode::Full => Digests {
                sha512: "5".repeat(128),
                sha256,
                sha1: "1".repeat(40),
                md5: "d".repeat(32),
                ssdeep: String::new(),
                tlsh: "T1".to_owned(),
            },
        })
    }
}
