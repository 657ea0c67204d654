//! Digests of a stream of bytes in one pass: SHA-2, SHA-1, MD5, ssdeep, TLSH (streams.md 7).
//!
//! Called by the upload route, by ingest and by the command line. Small inputs are hashed where they are; past
//! [`SPREAD_AT`] bytes the slow digests move to threads of their own, fed through bounded channels.

use std::io::Read;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use sha2::Digest as _;
use tlsh::{GeneratorType as _, TlshGenerator, generate::GeneratorOptions};

use super::ssdeep::Ssdeep;

/// Inputs up to this many bytes never start a thread.
pub const SPREAD_AT: u64 = 256 << 10;
/// Chunks under way to one thread at most.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Smaller chunks are gathered up to this size before they go to the threads.
const GATHER: usize = 32 << 10;
/// ssdeep is reported from this size on.
const SSDEEP_MIN: usize = 4096;
/// TLSH is reported from this size on: strictly more than 50.
const TLSH_MIN: usize = 51;

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything that the upload answer reports.
    Full,
    /// Size and SHA-256 only, for `skip-identify`.
    Sha256Only,
}

/// Digests as the upload answer shows them; all hex is in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Bytes.
    pub size: u64,
    /// Empty in [`Mode::Sha256Only`].
    pub sha512: String,
    pub sha256: String,
    /// Empty in [`Mode::Sha256Only`].
    pub sha1: String,
    /// Empty in [`Mode::Sha256Only`].
    pub md5: String,
    /// Only from 4096 bytes on.
    pub ssdeep: Option<String>,
    /// Only above 50 bytes, and not for input with too little variety.
    pub tlsh: Option<String>,
}

/// Why there are no digests. None of this is the input's doing.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// A thread of this digest panicked; the process goes on.
    #[error("computing {0} failed")]
    Panicked(&'static str),
    /// A thread could not be started.
    #[error("starting a thread for {0}: {1}")]
    Thread(&'static str, std::io::Error),
    /// The input could not be read (only from [`digest_reader`]).
    #[error("reading: {0}")]
    Read(std::io::Error),
}

/// Streaming digests. Memory is bounded: a few chunks per thread, whatever the size of the input.
///
/// `update` blocks while the threads are behind, so call it where blocking is allowed. Dropping it ends the threads.
pub struct Digester {
    size: u64,
    sha256: sha2::Sha256,
    full: Option<Full>,
}

struct Full {
    sha1: sha1::Sha1,
    slow: Slow,
    failed: Option<DigestError>,
}

/// The digests that are worth a thread.
enum Slow {
    Inline(Box<Parts>),
    Spread(Spread),
    /// A thread could not be started; the error is in `Full::failed`.
    Lost,
}

#[derive(Default)]
struct Parts {
    wide: Wide,
    fuzzy: Fuzzy,
    locality: Locality,
}

struct Spread {
    wide: Lane<Wide>,
    fuzzy: Lane<Fuzzy>,
    locality: Lane<Locality>,
    gathered: BytesMut,
}

impl Digester {
    pub fn new(mode: Mode) -> Self {
        let full = match mode {
            Mode::Sha256Only => None,
            Mode::Full => Some(Full { sha1: sha1::Sha1::new(), slow: Slow::Inline(Box::default()), failed: None }),
        };
        Self { size: 0, sha256: sha2::Sha256::new(), full }
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes; chunks may have any size. Blocks while the threads are behind.
    pub fn update(&mut self, chunk: Bytes) {
        self.size = self.size.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        self.sha256.update(&chunk);
        let Some(full) = &mut self.full else { return };
        full.sha1.update(&chunk);
        if self.size > SPREAD_AT {
            full.spread();
        }
        full.slow.feed(chunk);
    }

    /// All digests of what `update` was given.
    ///
    /// # Errors
    ///
    /// [`DigestError::Panicked`] or [`DigestError::Thread`]: the digests are unknown, the process is fine.
    pub fn finish(self) -> Result<Digests, DigestError> {
        let mut digests = Digests { size: self.size, sha256: hex(&self.sha256.finalize()), ..Digests::default() };
        let Some(full) = self.full else { return Ok(digests) };
        if let Some(error) = full.failed {
            return Err(error);
        }
        let parts = match full.slow {
            Slow::Inline(parts) => *parts,
            Slow::Spread(spread) => spread.join()?,
            Slow::Lost => return Err(DigestError::Panicked("digests")),
        };
        digests.sha1 = hex(&full.sha1.finalize());
        digests.sha512 = hex(&parts.wide.sha512.finalize());
        digests.md5 = hex(&parts.wide.md5.finalize());
        digests.ssdeep = parts.fuzzy.0.hasher.as_ref().and_then(Ssdeep::finish);
        digests.tlsh = parts.locality.0.hasher.as_ref().and_then(tlsh_text);
        Ok(digests)
    }
}

/// Digests everything that `reader` gives.
///
/// # Errors
///
/// As [`Digester::finish`], and [`DigestError::Read`].
pub fn digest_reader(mut reader: impl Read, mode: Mode) -> Result<Digests, DigestError> {
    const CHUNK: u64 = 128 << 10;
    let mut digester = Digester::new(mode);
    loop {
        let mut chunk = Vec::new();
        let read = reader.by_ref().take(CHUNK).read_to_end(&mut chunk).map_err(DigestError::Read)?;
        if read == 0 {
            return digester.finish();
        }
        digester.update(Bytes::from(chunk));
    }
}

/// ssdeep of everything that `reader` gives, and nothing else: what the other digests are measured against.
///
/// # Errors
///
/// As `reader` reports them.
pub fn ssdeep_reader(mut reader: impl Read) -> std::io::Result<Option<String>> {
    let mut fuzzy = Fuzzy::default();
    let mut chunk = vec![0; 128 << 10];
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            return Ok(fuzzy.0.hasher.as_ref().and_then(Ssdeep::finish));
        }
        fuzzy.update(chunk.get(..read).unwrap_or_default());
    }
}

impl Full {
    /// Moves the slow digests to threads, once.
    fn spread(&mut self) {
        if !matches!(self.slow, Slow::Inline(_)) {
            return;
        }
        let Slow::Inline(parts) = std::mem::replace(&mut self.slow, Slow::Lost) else { return };
        match Spread::start(*parts) {
            Ok(spread) => self.slow = Slow::Spread(spread),
            Err(error) => self.failed = Some(error),
        }
    }
}

impl Slow {
    fn feed(&mut self, chunk: Bytes) {
        match self {
            Slow::Inline(parts) => {
                parts.wide.update(&chunk);
                parts.fuzzy.update(&chunk);
                parts.locality.update(&chunk);
            }
            Slow::Spread(spread) => spread.feed(chunk),
            Slow::Lost => {}
        }
    }
}

impl Spread {
    fn start(parts: Parts) -> Result<Self, DigestError> {
        Ok(Self {
            wide: Lane::start(parts.wide)?,
            fuzzy: Lane::start(parts.fuzzy)?,
            locality: Lane::start(parts.locality)?,
            gathered: BytesMut::new(),
        })
    }

    fn feed(&mut self, chunk: Bytes) {
        if chunk.len() < GATHER {
            self.gathered.extend_from_slice(&chunk);
            if self.gathered.len() >= GATHER {
                self.flush();
            }
        } else {
            self.flush();
            self.send(&chunk);
        }
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            let chunk = self.gathered.split().freeze();
            self.send(&chunk);
        }
    }

    fn send(&mut self, chunk: &Bytes) {
        self.wide.send(chunk);
        self.fuzzy.send(chunk);
        self.locality.send(chunk);
    }

    fn join(mut self) -> Result<Parts, DigestError> {
        self.flush();
        // All end before any is waited for.
        self.wide.end();
        self.fuzzy.end();
        self.locality.end();
        Ok(Parts { wide: self.wide.join()?, fuzzy: self.fuzzy.join()?, locality: self.locality.join()? })
    }
}

/// A part of the work that can run on a thread of its own.
trait Part: Send + 'static {
    /// Name of its thread and in errors.
    const NAME: &'static str;
    fn update(&mut self, data: &[u8]);
}

/// One part on its thread.
struct Lane<P> {
    chunks: Option<SyncSender<Bytes>>,
    thread: JoinHandle<P>,
}

impl<P: Part> Lane<P> {
    fn start(mut part: P) -> Result<Self, DigestError> {
        let (sender, receiver) = sync_channel::<Bytes>(CHUNKS_IN_FLIGHT);
        let work = move || {
            for chunk in receiver {
                part.update(&chunk);
            }
            part
        };
        let started = std::thread::Builder::new().name(P::NAME.into()).spawn(work);
        let thread = started.map_err(|error| DigestError::Thread(P::NAME, error))?;
        Ok(Self { chunks: Some(sender), thread })
    }

    /// Blocks while the thread is behind. After a panic there it does nothing: `join` reports it.
    fn send(&mut self, chunk: &Bytes) {
        if let Some(chunks) = &self.chunks
            && chunks.send(chunk.clone()).is_err()
        {
            self.chunks = None;
        }
    }

    fn end(&mut self) {
        self.chunks = None;
    }

    fn join(mut self) -> Result<P, DigestError> {
        self.end();
        self.thread.join().map_err(|_panic| DigestError::Panicked(P::NAME))
    }
}

/// SHA-512 and MD5, together about as slow as TLSH alone.
#[derive(Default)]
struct Wide {
    sha512: sha2::Sha512,
    md5: md5::Md5,
}

impl Part for Wide {
    const NAME: &'static str = "digest-sha512";
    fn update(&mut self, data: &[u8]) {
        self.sha512.update(data);
        self.md5.update(data);
    }
}

/// ssdeep, once it will be reported.
struct Fuzzy(Late<Ssdeep>);

impl Default for Fuzzy {
    fn default() -> Self {
        Self(Late::new(SSDEEP_MIN))
    }
}

impl Part for Fuzzy {
    const NAME: &'static str = "digest-ssdeep";
    fn update(&mut self, data: &[u8]) {
        self.0.update(data, Ssdeep::new, Ssdeep::update);
    }
}

/// TLSH, once it will be reported.
struct Locality(Late<TlshGenerator>);

impl Default for Locality {
    fn default() -> Self {
        Self(Late::new(TLSH_MIN))
    }
}

impl Part for Locality {
    const NAME: &'static str = "digest-tlsh";
    fn update(&mut self, data: &[u8]) {
        self.0.update(data, TlshGenerator::new, TlshGenerator::update);
    }
}

/// Holds the first bytes back until there are enough of them for the digest to be reported at all.
struct Late<H> {
    min: usize,
    held: Vec<u8>,
    hasher: Option<H>,
}

impl<H> Late<H> {
    fn new(min: usize) -> Self {
        Self { min, held: Vec::new(), hasher: None }
    }

    fn update(&mut self, data: &[u8], new: impl FnOnce() -> H, update: impl Fn(&mut H, &[u8])) {
        if let Some(hasher) = &mut self.hasher {
            return update(hasher, data);
        }
        if self.held.len() + data.len() < self.min {
            return self.held.extend_from_slice(data);
        }
        let mut hasher = new();
        update(&mut hasher, &std::mem::take(&mut self.held));
        update(&mut hasher, data);
        self.hasher = Some(hasher);
    }
}

/// `T1` and 70 lower-case digits, or nothing where the third quartile of the buckets is zero.
///
/// Unlike the reference, upstream has no rule that half of the buckets must be filled.
fn tlsh_text(generator: &TlshGenerator) -> Option<String> {
    let options = GeneratorOptions::new().allow_statistically_weak_buckets_half(true);
    let text = generator.finalize_with_options(options).ok()?.to_string();
    Some(format!("T1{}", text.strip_prefix("T1")?.to_ascii_lowercase()))
}

/// Lower-case hex digits.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]).collect()
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
