//! A local blob store of the upstream service, read where it lies: its folders, its two ways to keep bytes, deletions.
//!
//! Nothing is ever added to it. Called by the stream store of the same name, which holds a configured folder against
//! our own blobs. Spec: streams.md 5.2 to 5.4.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::{Fs, FsFile, read_exact_at};
use crate::ids::Sha256;
use crate::upstream::{AES_HEADER, AesStream, xor};

/// Length of the key of an upstream store, in bytes.
pub const AES_KEY_LEN: usize = 24;

/// How a file keeps its bytes, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    suffix: &'static str,
    encrypted: bool,
    masked: bool,
}

/// Masked is what was encrypted, not the other way round.
const FORMS: [Form; 4] = [
    Form { suffix: "", encrypted: false, masked: false },
    Form { suffix: ".xor", encrypted: false, masked: true },
    Form { suffix: ".aesc1", encrypted: true, masked: false },
    Form { suffix: ".aesc1.xor", encrypted: true, masked: true },
];

/// A file of an adopted store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedFile {
    path: PathBuf,
    form: Form,
    /// Length of the plain bytes; never 0, which counts as missing.
    pub size: u64,
    /// When it was stored, milliseconds since 1970.
    pub modified_ms: i64,
    /// It is encrypted, and there is no key to read it with.
    pub locked: bool,
}

impl AdoptedFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True when a key is needed to read it.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.form.encrypted
    }
}

/// The folder of an upstream store.
#[derive(Clone, Debug)]
pub struct AdoptedDir {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    key: Option<AdoptedKey>,
}

/// The key of an upstream store.
#[derive(Clone)]
pub struct AdoptedKey(pub [u8; AES_KEY_LEN]);

impl std::fmt::Debug for AdoptedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdoptedKey")
    }
}

impl AdoptedDir {
    /// The store at `root`. Without its key what is encrypted in it is found and not read.
    ///
    /// # Errors
    /// As the operating system reports them; `NotADirectory` when it is none.
    pub fn open(fs: Arc<dyn Fs>, root: PathBuf, key: Option<AdoptedKey>) -> io::Result<Self> {
        match fs.meta(&root)? {
            Some(meta) if meta.is_dir => Ok(Self { fs, root, key }),
            Some(_) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// `{root}/{source}/{label}/{first digit}/{second digit}/{hash}`, where empty names are left out; `None` for names that
    /// lead elsewhere.
    fn base(&self, source: &str, label: &str, hash: Sha256) -> Option<PathBuf> {
        let mut path = self.root.clone();
        for name in [source, label].into_iter().filter(|name| !name.is_empty()) {
            if name.contains(['/', '\0']) || name == "." || name == ".." {
                return None;
            }
            path.push(name);
        }
        let text = hash.to_string();
        path.extend([text.get(0..1)?, text.get(1..2)?, text.as_str()]);
        Some(path)
    }

    /// The file of a blob under one source and label; one that is locked only when there is no other.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn find(&self, source: &str, label: &str, hash: Sha256) -> io::Result<Option<AdoptedFile>> {
        let Some(base) = self.base(source, label, hash) else { return Ok(None) };
        let mut locked = None;
        for form in FORMS {
            let path = with_suffix(&base, form.suffix);
            let Some(meta) = self.meta(&path)?.filter(|meta| !meta.is_dir) else { continue };
            let header = if form.encrypted { u64::try_from(AES_HEADER).unwrap_or(0) } else { 0 };
            let size = meta.len.saturating_sub(header);
            if size == 0 {
                continue;
            }
            let file = AdoptedFile { path, form, size, modified_ms: meta.modified_ms, locked: false };
            if form.encrypted && self.key.is_none() {
                locked.get_or_insert(AdoptedFile { locked: true, ..file });
            } else {
                return Ok(Some(file));
            }
        }
        Ok(locked)
    }

    /// Folders may be files, of which nothing is below.
    fn meta(&self, path: &Path) -> io::Result<Option<crate::fs::Meta>> {
        match self.fs.meta(path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
            other => other,
        }
    }

    /// Opens a file that was found; `None` when it is gone since.
    ///
    /// # Errors
    /// As the operating system reports them; `PermissionDenied` when it is locked.
    pub fn read(&self, found: &AdoptedFile) -> io::Result<Option<AdoptedBlob>> {
        if found.locked {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is encrypted and there is no key for it"));
        }
        let file = match self.fs.open_read(&found.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut blob = AdoptedBlob { file, masked: found.form.masked, stream: None, len: found.size };
        if let Some(AdoptedKey(key)) = self.key.as_ref().filter(|_| found.form.encrypted) {
            let mut header = [0; AES_HEADER];
            read_exact_at(blob.file.as_ref(), &mut header, 0)?;
            if blob.masked {
                xor(&mut header, 0);
            }
            blob.stream = Some(AesStream::new(key, &header));
        }
        Ok(Some(blob))
    }

    /// Removes a blob in every form it has under one source and label; false when it has none.
    ///
    /// # Durability
    /// On `Ok` it is gone for good.
    /// # Errors
    /// As the operating system reports them; some forms may be gone.
    pub fn remove(&self, source: &str, label: &str, hash: Sha256) -> io::Result<bool> {
        let Some(base) = self.base(source, label, hash) else { return Ok(false) };
        let mut removed = false;
        // Also what there is no key for: it is the same blob.
        for form in FORMS {
            match self.fs.remove_file(&with_suffix(&base, form.suffix)) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                other => {
                    other?;
                    removed = true;
                }
            }
        }
        if removed {
            self.fs.sync_dir(base.parent().unwrap_or(&self.root))?;
        }
        Ok(removed)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    crate::fs::with_suffix(path, suffix)
}

/// A blob of an adopted store, open for reading.
#[derive(Clone, Debug)]
pub struct AdoptedBlob {
    file: Arc<dyn FsFile>,
    masked: bool,
    stream: Option<AesStream>,
    len: u64,
}

impl AdoptedBlob {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// False: a file without bytes counts as missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads plain bytes at `position`; 0 at the end.
    ///
    /// # Errors
    /// As the operating system reports them.
    pub fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let header = if self.stream.is_some() { u64::try_from(AES_HEADER).unwrap_or(0) } else { 0 };
        let at = position.saturating_add(header);
        let read = self.file.read_at(buf, at)?;
        let bytes = buf.get_mut(..read).unwrap_or_default();
        if self.masked {
            xor(bytes, at);
        }
        if let Some(stream) = &self.stream {
            stream.apply(bytes, position);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::RealFs;

    const KEY: [u8; AES_KEY_LEN] = *b"abcdefghijklmnopqrstuvwx";

    fn hash() -> Sha256 {
        Sha256::parse(&"ab".repeat(32)).unwrap()
    }

    /// A file as upstream would have written it.
    fn put(root: &Path, place: &str, suffix: &str, plain: &[u8]) -> PathBuf {
        let form = FORMS.into_iter().find(|form| form.suffix == suffix).unwrap();
        let mut stored = plain.to_vec();
        if form.encrypted {
            let header: [u8; AES_HEADER] = std::array::from_fn(|n| u8::try_from(n).unwrap());
            AesStream::new(&KEY, &header).apply(&mut stored, 0);
            stored = [&header[..], &stored].concat();
        }
        if form.masked {
            xor(&mut stored, 0);
        }
        let path = root.join(place).join(format!("a/b/{}{suffix}", "ab".repeat(32)));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, stored).unwrap();
        path
    }

    #[test]
    fn every_form_is_found_read_in_parts_and_removed_in_every_place() {
        let plain: Vec<u8> = (0..1000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for form in FORMS {
            for (place, source, label) in [("lab/content", "lab", "content"), ("", "", ""), ("lab", "lab", "")] {
                let dir = tempfile::tempdir().unwrap();
                let path = put(dir.path(), place, form.suffix, &plain);
                let open = |key| AdoptedDir::open(Arc::new(RealFs), dir.path().to_owned(), key).unwrap();
                let adopted = open(Some(AdoptedKey(KEY)));
                let found = adopted.find(source, label, hash()).unwrap().unwrap();
                assert_eq!((found.size, found.modified_ms > 0), (1000, true), "{form:?}");
                let blob = adopted.read(&found).unwrap().unwrap();
                for from in [0, 1, 15, 16, 17, 500, 999] {
                    let mut bytes = [0; 100];
                    let read = blob.read_at(&mut bytes, u64::try_from(from).unwrap()).unwrap();
                    assert_eq!(bytes[..read], plain[from..(from + 100).min(1000)], "{form:?} from {from}");
                }
                assert_eq!(blob.read_at(&mut [0; 9], 1000).unwrap(), 0);
                assert_eq!(adopted.find("other", label, hash()).unwrap(), None);
                let without = open(None);
                let found = without.find(source, label, hash()).unwrap().unwrap();
                assert_eq!((found.locked, without.read(&found).is_err()), (form.encrypted, form.encrypted), "{form:?}");
                assert!(without.remove(source, label, hash()).unwrap());
                assert!(!path.exists() && !without.remove(source, label, hash()).unwrap());
                assert_eq!(blob.read_at(&mut [0; 9], 0).unwrap(), 9, "what is open stays readable");
            }
        }
    }

    #[test]
    fn names_that_lead_elsewhere_empty_files_and_folders_are_no_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let outside = put(dir.path(), "", "", b"outside");
        put(&root, "lab/content", "", b"");
        std::fs::create_dir_all(root.join(format!("lab/text/a/b/{}", "ab".repeat(32)))).unwrap();
        std::fs::write(root.join("file"), b"x").unwrap();
        let adopted = AdoptedDir::open(Arc::new(RealFs), root, None).unwrap();
        for (source, label) in [("..", ""), ("lab", "../.."), ("lab/content", ""), ("", ".."), (".", "..")] {
            assert_eq!(adopted.find(source, label, hash()).unwrap(), None, "{source} {label}");
            assert!(!adopted.remove(source, label, hash()).unwrap());
        }
        for (source, label) in [("lab", "content"), ("lab", "text"), ("file", "content")] {
            assert_eq!(adopted.find(source, label, hash()).unwrap(), None, "{source} {label}");
        }
        assert!(!adopted.remove("file", "content", hash()).unwrap());
        assert!(outside.exists());
    }

    #[test]
    fn a_folder_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: PathBuf| AdoptedDir::open(Arc::new(RealFs), path, None).map(drop).map_err(|e| e.kind());
        assert_eq!(open(dir.path().join("none")), Err(io::ErrorKind::NotFound));
        std::fs::write(dir.path().join("file"), b"x").unwrap();
        assert_eq!(open(dir.path().join("file")), Err(io::ErrorKind::NotADirectory));
    }
}
