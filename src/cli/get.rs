//! `azulite get`: writes a stored blob to a file, checked against its hash while it is written.
//!
//! The file appears under its name only when it is whole, with mode 0600: what is stored here is mostly malware, and
//! nothing that this command writes can be run. A file that is there already is never replaced.

use std::io::{self, IoSlice, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use azulite_storage::fs::{Fs, FsFile, RealFs, with_suffix};
use azulite_storage::ids::Sha256;
use sha2::Digest as _;

use super::args::Get;
use super::cart::Cart;
use super::exit::Exit;
use super::output::{self, Refusal};
use super::target::Target;
use crate::admin::{ReadBlobError, read_blob};
use crate::client::{Client, RequestError};
use crate::config::Config;
use crate::streams::{BlobReader, StoreError};

/// Writes the blob that `args` name.
pub(super) fn run(config: &Config, args: &Get) -> Exit {
    output::finish(get(config, args))
}

fn get(config: &Config, args: &Get) -> Result<Exit, Refusal> {
    let to_file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    match to_file {
        None if io::stdout().is_terminal() => {
            Err(Refusal::usage("a blob is not written to a terminal: use -o FILE, or -o - behind a pipe"))
        }
        None => fetch(config, args, &mut io::stdout().lock()),
        Some(path) => {
            if RealFs.meta(path)?.is_some() {
                return Err(Refusal::failed(format!("{} is there already and is not replaced", path.display())));
            }
            let mut file = Partial::create(path)?;
            let exit = fetch(config, args, &mut file)?;
            file.keep()?;
            Ok(exit)
        }
    }
}

/// Writes the blob to `out`, in a container if that is wanted.
fn fetch(config: &Config, args: &Get, out: &mut dyn Write) -> Result<Exit, Refusal> {
    let target = Target::for_reading(config)?;
    let blob = match &target {
        Target::Server(client) => from_server(client, &args.sha256)?,
        Target::Store(store) => {
            let hash = Sha256::parse(&args.sha256).ok_or_else(|| not_found(&args.sha256))?;
            let found = store.admin.blob(&hash).map_err(|error| store_refusal(&error))?;
            Blob::Stored(found.ok_or_else(|| not_found(&args.sha256))?)
        }
    };
    if args.cart {
        let mut cart = Cart::new(out)?;
        copy_checked(blob, &args.sha256, &mut cart)?;
        cart.finish(&args.sha256)?.flush()?;
    } else {
        copy_checked(blob, &args.sha256, out)?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

enum Blob {
    Stored(Arc<dyn BlobReader>),
    Sent(Box<dyn Read>),
}

fn from_server(client: &Client, sha256: &str) -> Result<Blob, Refusal> {
    match client.get(&format!("/api/azulite/v1/blobs/{sha256}")) {
        Ok(response) => Ok(Blob::Sent(Box::new(response.into_body().into_reader()))),
        Err(RequestError::NotOk(answer)) if answer.is_not_found() => Err(not_found(sha256)),
        Err(error) => Err(error.into()),
    }
}

fn not_found(sha256: &str) -> Refusal {
    Refusal::failed(format!("{sha256} is not stored here"))
}

fn store_refusal(error: &StoreError) -> Refusal {
    let exit = match error {
        StoreError::Damaged(_) => Exit::Damaged,
        StoreError::Full | StoreError::Poisoned | StoreError::Io(_) => Exit::Failed,
    };
    Refusal::new(exit, error.to_string())
}

/// Copies the whole blob. What was written is of no use after an error.
fn copy_checked(blob: Blob, sha256: &str, out: &mut dyn Write) -> Result<(), Refusal> {
    let mut hasher = sha2::Sha256::new();
    let mut take = |piece: &[u8]| {
        hasher.update(piece);
        out.write_all(piece)
    };
    let damaged_exit = match blob {
        Blob::Stored(reader) => {
            read_blob(reader.as_ref(), |piece| take(&piece)).map_err(|error| match error {
                ReadBlobError::Store(error) => store_refusal(&error),
                ReadBlobError::Taken(error) => error.into(),
            })?;
            Exit::Damaged
        }
        Blob::Sent(mut reader) => {
            let mut buffer = vec![0; 128 << 10];
            loop {
                let read = reader.read(&mut buffer);
                let read = read.map_err(|error| Refusal::failed(format!("the download broke off: {error}")))?;
                if read == 0 {
                    break Exit::Failed;
                }
                take(buffer.get(..read).unwrap_or_default())?;
            }
        }
    };
    let found = Sha256(hasher.finalize().into()).to_string();
    match found == sha256 {
        true => Ok(()),
        false => Err(Refusal::new(damaged_exit, format!("{sha256} is damaged: its bytes have the hash {found}"))),
    }
}

/// A file under a temporary name; removed again unless it is kept.
struct Partial {
    file: Arc<dyn FsFile>,
    position: u64,
    temporary: PathBuf,
    path: PathBuf,
    kept: bool,
}

impl Partial {
    fn create(path: &Path) -> Result<Self, Refusal> {
        let temporary = with_suffix(path, &format!(".{}.part", std::process::id()));
        let file = RealFs.create(&temporary);
        let file = file.map_err(|error| Refusal::failed(format!("{}: {error}", temporary.display())))?;
        Ok(Self { file, position: 0, temporary, path: path.to_owned(), kept: false })
    }

    /// Gives it its name.
    fn keep(mut self) -> Result<(), Refusal> {
        self.file.sync_data()?;
        RealFs.rename(&self.temporary, &self.path)?;
        self.kept = true;
        Ok(())
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(&mut [IoSlice::new(bytes)], self.position)?;
        self.position += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = RealFs.remove_file(&self.temporary)
        {
            output::complain(&format!("{} could not be removed: {error}", self.temporary.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_is_not_kept_leaves_nothing_and_a_kept_one_cannot_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let mut partial = Partial::create(&path).unwrap();
        partial.write_all(b"half").unwrap();
        drop(partial);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut partial = Partial::create(&path).unwrap();
        partial.write_all(b"wh").unwrap();
        partial.write_all(b"ole").unwrap();
        partial.keep().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn bytes_with_another_hash_are_refused() {
        let blob = || Blob::Sent(Box::new(&b"abc"[..]));
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut out = Vec::new();
        copy_checked(blob(), hash, &mut out).unwrap();
        assert_eq!(out, b"abc");
        let refused = copy_checked(blob(), &"0".repeat(64), &mut Vec::new()).unwrap_err();
        assert!(refused.message().contains(hash), "{}", refused.message());
    }
}
