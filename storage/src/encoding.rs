//! What is done to the bytes of a blob before they are stored, and undone when they are read.
//!
//! Files and frames hold the same: [`Sealer`] makes it, [`Opener`] reads any part of it from a file, and [`open_all`] all
//! of it from memory. Positions are those of the plain bytes everywhere else.
//!
//! `xor` is a mask, so that no scanner eats evidence and nothing runs by accident; it hides nothing from anybody who
//! tries. `aes256` is AES-256 in counter mode, authenticated per chunk (GCM):
//!
//! | 0..16 | then, per 64 KiB of plain bytes (the last chunk is shorter)  |
//! |-------|----------------------------------------------------------------|
//! | salt  | the chunk, encrypted; 16 bytes that authenticate it, its place, and whether it is the last |

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use bincode::{Decode, Encode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fs::{FsFile, read_exact_at};

/// Plain bytes in one chunk.
pub(crate) const CHUNK: usize = 64 << 10;
const SALT_LEN: usize = 16;
const TAG_LEN: usize = 16;
/// Bytes after which the mask repeats.
const PAD_LEN: usize = 4096;

/// What was done to the bytes of a blob before they were stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Nothing.
    #[default]
    Plain,
    /// A mask made from the store's key.
    Xor,
    /// AES-256 in counter mode, authenticated per chunk.
    Aes256,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Xor, Self::Aes256];

    /// The byte that stands for it in a blob frame.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Xor => 1,
            Self::Aes256 => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.code() == code)
    }

    /// What the name of a blob's file ends with.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Xor => ".xor",
            Self::Aes256 => ".aes",
        }
    }

    /// How many bytes are stored for so many plain ones.
    pub(crate) fn stored_len(self, plain: u64) -> u64 {
        match self {
            Self::Plain | Self::Xor => plain,
            Self::Aes256 => to_u64(SALT_LEN) + plain + plain.div_ceil(to_u64(CHUNK)) * to_u64(TAG_LEN),
        }
    }
}

/// The key of a store: 32 random bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// What is derived from it under a name.
    pub(crate) fn derive(&self, name: &str, more: &[u8]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(name.as_bytes());
        hasher.update([0]);
        hasher.update(more);
        hasher.finalize().into()
    }
}

/// What masks and encrypts, made from a store's key.
pub(crate) struct Secrets {
    pad: Vec<u8>,
    key: Key,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    pub(crate) fn new(key: Key) -> Self {
        let blocks = (0_u32..).take(PAD_LEN / 32);
        let pad = blocks.flat_map(|block| key.derive("mask", &block.to_be_bytes())).collect();
        Self { pad, key }
    }

    /// Masks or unmasks bytes that begin at `position` of the blob.
    fn mask(&self, mut bytes: &mut [u8], position: u64) {
        let mut at = usize::try_from(position % to_u64(PAD_LEN)).unwrap_or(0);
        while !bytes.is_empty() {
            let pad = self.pad.get(at..).unwrap_or_default();
            let count = bytes.len().min(pad.len());
            let (now, rest) = std::mem::take(&mut bytes).split_at_mut(count);
            now.iter_mut().zip(pad).for_each(|(byte, pad)| *byte ^= pad);
            (bytes, at) = (rest, 0);
        }
    }

    fn cipher(&self, salt: &[u8; SALT_LEN]) -> Aes256Gcm {
        Aes256Gcm::new(&self.key.derive("aes256", salt).into())
    }
}

/// What a chunk's bytes are authenticated with beside themselves.
fn nonce(chunk: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (index, rest) = nonce.split_at_mut(8);
    index.copy_from_slice(&chunk.to_be_bytes());
    rest.iter_mut().take(1).for_each(|byte| *byte = u8::from(last));
    nonce
}

/// The encodings of a store.
#[derive(Clone, Debug)]
pub(crate) struct Codecs {
    /// That of what is stored from now on.
    newest: Encoding,
    secrets: Option<Arc<Secrets>>,
}

impl Codecs {
    pub(crate) fn new(newest: Encoding, key: Option<Key>) -> Self {
        Self { newest, secrets: key.map(|key| Arc::new(Secrets::new(key))) }
    }

    pub(crate) fn key(&self) -> Option<&Key> {
        self.secrets.as_ref().map(|secrets| &secrets.key)
    }

    /// The encoding of what is stored from now on.
    pub(crate) fn newest(&self) -> Encoding {
        self.newest
    }

    /// What reads and writes an encoding.
    ///
    /// # Errors
    /// `NotFound` when the store has no key.
    pub(crate) fn of(&self, encoding: Encoding) -> io::Result<Codec> {
        let secrets = || {
            let none = || io::Error::new(io::ErrorKind::NotFound, "the data directory has no key for this blob");
            self.secrets.clone().ok_or_else(none)
        };
        Ok(match encoding {
            Encoding::Plain => Codec::Plain,
            Encoding::Xor => Codec::Xor(secrets()?),
            Encoding::Aes256 => Codec::Aes256(secrets()?),
        })
    }
}

/// An encoding with the secrets it needs.
#[derive(Clone, Debug)]
pub(crate) enum Codec {
    Plain,
    Xor(Arc<Secrets>),
    Aes256(Arc<Secrets>),
}

impl Codec {
    pub(crate) fn encoding(&self) -> Encoding {
        match self {
            Self::Plain => Encoding::Plain,
            Self::Xor(_) => Encoding::Xor,
            Self::Aes256(_) => Encoding::Aes256,
        }
    }

    /// All of a blob as it is stored.
    pub(crate) fn seal_all(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut sealer = Sealer::new(self.clone());
        let mut out = Vec::with_capacity(usize::try_from(self.encoding().stored_len(to_u64(plain.len()))).unwrap_or(0));
        sealer.seal(plain, true, &mut out)?;
        Ok(out)
    }

    /// The plain bytes of all that is stored of a blob of `len` bytes; `None` when they are not that.
    pub(crate) fn open_all(&self, stored: Bytes, len: u64) -> Option<Bytes> {
        if to_u64(stored.len()) != self.encoding().stored_len(len) {
            return None;
        }
        match self {
            Self::Plain => Some(stored),
            Self::Xor(secrets) => {
                let mut bytes = stored.to_vec();
                secrets.mask(&mut bytes, 0);
                Some(bytes.into())
            }
            Self::Aes256(secrets) => {
                let (salt, rest) = stored.split_first_chunk()?;
                let cipher = secrets.cipher(salt);
                let count = rest.chunks(CHUNK + TAG_LEN).len();
                let mut plain = Vec::with_capacity(usize::try_from(len).ok()?);
                for (chunk, number) in rest.chunks(CHUNK + TAG_LEN).zip(1..) {
                    let chunk = open_chunk(&cipher, chunk.to_vec(), to_u64(number - 1), number == count)?;
                    plain.extend_from_slice(&chunk);
                }
                Some(plain.into())
            }
        }
    }
}

fn open_chunk(cipher: &Aes256Gcm, mut bytes: Vec<u8>, chunk: u64, last: bool) -> Option<Vec<u8>> {
    let (_, tag) = bytes.split_last_chunk::<TAG_LEN>()?;
    let tag = *tag;
    bytes.truncate(bytes.len() - TAG_LEN);
    let buffer = bytes.as_mut_slice().into();
    cipher.decrypt_inout_detached(&nonce(chunk, last).into(), &[], buffer, &tag.into()).ok()?;
    Some(bytes)
}

/// Makes what is stored of a blob, piece by piece.
#[derive(Debug)]
pub(crate) struct Sealer {
    codec: Codec,
    salt: Option<[u8; SALT_LEN]>,
    /// Plain bytes so far.
    position: u64,
}

impl Sealer {
    pub(crate) fn new(codec: Codec) -> Self {
        Self { codec, salt: None, position: 0 }
    }

    pub(crate) fn codec(&self) -> &Codec {
        &self.codec
    }

    /// True when bytes are stored as they are.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.codec, Codec::Plain)
    }

    /// Adds what is stored for the next plain bytes. All calls but the `last` one are for whole chunks.
    pub(crate) fn seal(&mut self, plain: &[u8], last: bool, out: &mut Vec<u8>) -> io::Result<()> {
        let from = out.len();
        match &self.codec {
            Codec::Plain => out.extend_from_slice(plain),
            Codec::Xor(secrets) => {
                out.extend_from_slice(plain);
                secrets.mask(out.get_mut(from..).unwrap_or_default(), self.position);
            }
            Codec::Aes256(secrets) => {
                let salt = match self.salt {
                    Some(salt) => salt,
                    None => {
                        let mut salt = [0; SALT_LEN];
                        getrandom::fill(&mut salt).map_err(io::Error::other)?;
                        out.extend_from_slice(&salt);
                        *self.salt.insert(salt)
                    }
                };
                let cipher = secrets.cipher(&salt);
                let (first, count) = (self.position / to_u64(CHUNK), plain.chunks(CHUNK).len());
                for (chunk, number) in plain.chunks(CHUNK).zip(1..) {
                    let from = out.len();
                    out.extend_from_slice(chunk);
                    let nonce = nonce(first + to_u64(number - 1), last && number == count);
                    let buffer = out.get_mut(from..).unwrap_or_default().into();
                    let tag = cipher.encrypt_inout_detached(&nonce.into(), &[], buffer).map_err(io::Error::other)?;
                    out.extend_from_slice(&tag);
                }
            }
        }
        self.position += to_u64(plain.len());
        Ok(())
    }
}

/// A chunk that was read last, and its number.
type Newest = Arc<Mutex<Option<(u64, Bytes)>>>;

#[derive(Clone)]
enum Reading {
    Plain,
    Xor(Arc<Secrets>),
    /// The newest chunk is kept: small reads come one after another.
    Aes256(Box<Aes256Gcm>, Newest),
}

/// Reads any part of a blob that is stored in a file.
#[derive(Clone)]
pub(crate) struct Opener {
    file: Arc<dyn FsFile>,
    reading: Reading,
    /// Plain bytes in the file.
    len: u64,
    /// The last chunk is in it.
    whole: bool,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("file", &self.file).field("len", &self.len).finish_non_exhaustive()
    }
}

/// Bytes that are not what was stored.
fn not_authentic(chunk: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("chunk {chunk} is not what was stored"))
}

impl Opener {
    /// `len` plain bytes in a file of this encoding. `whole`: nothing is to come.
    pub(crate) fn new(file: Arc<dyn FsFile>, codec: &Codec, len: u64, whole: bool) -> io::Result<Self> {
        let reading = match codec {
            Codec::Plain => Reading::Plain,
            Codec::Xor(secrets) => Reading::Xor(secrets.clone()),
            Codec::Aes256(secrets) => {
                let mut salt = [0; SALT_LEN];
                if len > 0 {
                    read_exact_at(file.as_ref(), &mut salt, 0)?;
                }
                Reading::Aes256(Box::new(secrets.cipher(&salt)), Newest::default())
            }
        };
        Ok(Self { file, reading, len, whole })
    }

    /// Plain bytes in the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads up to `buf.len()` plain bytes at `position`; 0 at the end.
    ///
    /// # Errors
    /// `InvalidData` when a chunk is not what was stored.
    pub(crate) fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX);
        let count = buf.len().min(left);
        let buf = buf.get_mut(..count).unwrap_or_default();
        match &self.reading {
            Reading::Plain => self.file.read_at(buf, position),
            Reading::Xor(secrets) => {
                let read = self.file.read_at(buf, position)?;
                secrets.mask(buf.get_mut(..read).unwrap_or_default(), position);
                Ok(read)
            }
            Reading::Aes256(..) if buf.is_empty() => Ok(0),
            Reading::Aes256(cipher, newest) => {
                let (chunk, at) = (position / to_u64(CHUNK), position % to_u64(CHUNK));
                let bytes = self.chunk(cipher, newest, chunk)?;
                Ok(copy_at(&bytes, buf, at))
            }
        }
    }

    fn chunk(&self, cipher: &Aes256Gcm, newest: &Newest, chunk: u64) -> io::Result<Bytes> {
        let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = newest.as_ref().filter(|(number, _)| *number == chunk) {
            return Ok(bytes.clone());
        }
        let from = chunk * to_u64(CHUNK);
        let len = usize::try_from(self.len - from).unwrap_or(usize::MAX).min(CHUNK);
        let last = self.whole && from + to_u64(len) == self.len;
        let mut bytes = vec![0; len + TAG_LEN];
        let stored_at = to_u64(SALT_LEN) + chunk * to_u64(CHUNK + TAG_LEN);
        read_exact_at(self.file.as_ref(), &mut bytes, stored_at)?;
        let bytes = Bytes::from(open_chunk(cipher, bytes, chunk, last).ok_or_else(|| not_authentic(chunk))?);
        *newest = Some((chunk, bytes.clone()));
        Ok(bytes)
    }
}

/// Copies what there is of `bytes` from `position` on.
pub(crate) fn copy_at(bytes: &[u8], buf: &mut [u8], position: u64) -> usize {
    let from = usize::try_from(position).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    let count = from.len().min(buf.len());
    if let (Some(to), Some(from)) = (buf.get_mut(..count), from.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::fs::{Fs, RealFs};

    fn codecs() -> [Codec; 3] {
        let secrets = Arc::new(Secrets::new(Key([3; 32])));
        [Codec::Plain, Codec::Xor(secrets.clone()), Codec::Aes256(secrets)]
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|n| u8::try_from(n * 31 % 251).unwrap()).collect()
    }

    fn file(bytes: &[u8]) -> (tempfile::TempDir, Arc<dyn FsFile>) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealFs.create(&dir.path().join("f")).unwrap();
        file.write_all_at(&mut [IoSlice::new(bytes)], 0).unwrap();
        (dir, file)
    }

    fn read(opener: &Opener, from: usize, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            match opener.read_at(&mut bytes[done..], to_u64(from + done))? {
                0 => break,
                read => done += read,
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    #[test]
    fn every_size_and_every_range_comes_back_whatever_the_encoding() {
        for codec in codecs() {
            for len in [0, 1, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 77] {
                let plain = content(len);
                let stored = codec.seal_all(&plain).unwrap();
                assert_eq!(to_u64(stored.len()), codec.encoding().stored_len(to_u64(len)), "{codec:?} {len}");
                assert_eq!(codec.open_all(stored.clone().into(), to_u64(len)).unwrap(), plain, "{codec:?} {len}");
                let hidden =
                    len < 100 || matches!(codec, Codec::Plain) || !stored.windows(32).any(|w| w == &plain[..32]);
                assert!(hidden, "{codec:?} {len}");
                let (_dir, file) = file(&stored);
                let opener = Opener::new(file, &codec, to_u64(len), true).unwrap();
                for from in
                    [0, 1, 15, 16, 4095, CHUNK - 1, CHUNK, CHUNK + 5, 2 * CHUNK, len.saturating_sub(3), len, len + 9]
                {
                    for count in [1, 16, 5000, 2 * CHUNK] {
                        let wanted = plain.get(from..len.min(from + count)).unwrap_or_default();
                        assert_eq!(read(&opener, from, count).unwrap(), wanted, "{codec:?} {len} from {from}");
                    }
                }
            }
        }
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let plain = content(3 * CHUNK + 10);
        for codec in codecs() {
            let mut sealer = Sealer::new(codec.clone());
            let mut stored = Vec::new();
            sealer.seal(&plain[..CHUNK], false, &mut stored).unwrap();
            let (_dir, begun) = file(&stored);
            let opener = Opener::new(begun, &codec, to_u64(CHUNK), false).unwrap();
            assert_eq!(read(&opener, 0, 2 * CHUNK).unwrap(), &plain[..CHUNK], "what is there so far");
            sealer.seal(&plain[CHUNK..3 * CHUNK], false, &mut stored).unwrap();
            sealer.seal(&plain[3 * CHUNK..], true, &mut stored).unwrap();
            assert_eq!(codec.open_all(stored.into(), to_u64(plain.len())).unwrap(), plain, "{codec:?}");
        }
    }

    #[test]
    fn changed_cut_moved_and_foreign_chunks_are_refused() {
        let [_, _, codec] = codecs();
        let plain = content(2 * CHUNK + 100);
        let stored = codec.seal_all(&plain).unwrap();
        let refused = |stored: &[u8], len: usize, what: &str| {
            assert_eq!(codec.open_all(Bytes::copy_from_slice(stored), to_u64(len)), None, "{what}");
            let (_dir, file) = file(stored);
            let opener = Opener::new(file, &codec, to_u64(len), true).unwrap();
            assert!(read(&opener, 0, len).is_err(), "{what}");
        };
        for at in [0, 20, SALT_LEN + CHUNK + 1, stored.len() - 1] {
            let mut bad = stored.clone();
            bad[at] ^= 1;
            refused(&bad, plain.len(), &format!("byte {at}"));
        }
        let whole = SALT_LEN + 2 * (CHUNK + TAG_LEN);
        refused(&stored[..whole], 2 * CHUNK, "the last chunk is cut off");
        let (first, second) = (SALT_LEN..SALT_LEN + CHUNK + TAG_LEN, SALT_LEN + CHUNK + TAG_LEN..whole);
        let swapped = [&stored[..SALT_LEN], &stored[second], &stored[first], &stored[whole..]].concat();
        refused(&swapped, plain.len(), "two chunks are swapped");
        let other = codec.seal_all(&plain).unwrap();
        assert_ne!(other, stored, "a salt for each blob");
        let mixed = [&stored[..whole], &other[whole..]].concat();
        refused(&mixed, plain.len(), "a chunk of another blob");
        let intact = {
            let mut bad = stored.clone();
            bad[SALT_LEN + 5] ^= 1;
            let (_dir, file) = file(&bad);
            read(&Opener::new(file, &codec, to_u64(plain.len()), true).unwrap(), CHUNK + 3, 100).unwrap()
        };
        assert_eq!(intact, &plain[CHUNK + 3..CHUNK + 103], "other chunks are read on");
        let foreign = Codec::Aes256(Arc::new(Secrets::new(Key([4; 32]))));
        assert_eq!(foreign.open_all(stored.into(), to_u64(plain.len())), None, "another key");
    }

    #[test]
    fn golden_mask() {
        let [_, codec, _] = codecs();
        let stored = codec.seal_all(&[0; 8]).unwrap();
        assert_eq!(stored, Key([3; 32]).derive("mask", &[0; 4])[..8]);
        let more = codec.seal_all(&[0; PAD_LEN + 8]).unwrap();
        assert_eq!((&more[..8], &more[PAD_LEN..]), (&stored[..], &stored[..]));
    }
}
