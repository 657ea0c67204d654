//! The files of a measurement, and computing over all of them on a few threads.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use crate::cli::walk::{Found, Walked, open, walk};
use crate::identify::{Digester, Identifier, Mode, ssdeep_reader};

/// Bytes that are read and hashed at once.
const PIECE: u64 = 128 << 10;

/// What is done with each file.
#[derive(Clone, Copy)]
pub(super) enum Work<'a> {
    /// ssdeep, the slowest digest, and nothing else.
    Ssdeep,
    /// All digests.
    Digests,
    /// What the file is.
    Identify(&'a Identifier),
    /// All digests, and what the file is.
    All(&'a Identifier),
}

/// Every regular file below `paths`.
pub(super) fn files(paths: &[PathBuf]) -> Vec<Found> {
    let mut files = Vec::new();
    for path in paths {
        walk(path, None, &mut |walked| {
            if let Walked::File(found) = walked {
                files.push(found);
            }
            true
        });
    }
    files
}

/// Does the work on `jobs` threads; tells the bytes of all files and the time it took.
pub(super) fn compute(files: &[Found], jobs: u16, work: Work<'_>) -> anyhow::Result<(u64, Duration)> {
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || -> anyhow::Result<()> {
        while let Some(found) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let size = one(found, work).with_context(|| found.path.display().to_string())?;
            bytes.fetch_add(size, Ordering::Relaxed);
        }
        Ok(())
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok((bytes.into_inner(), begun.elapsed()))
}

fn one(found: &Found, work: Work<'_>) -> anyhow::Result<u64> {
    let mut file = open(found)?;
    let size = file.metadata()?.len();
    match work {
        Work::Ssdeep => ssdeep_reader(&file).map(|_| size).map_err(Into::into),
        Work::Digests => digested(&mut file, size),
        Work::Identify(identifier) => identifier.identify(&file).map(|_| size).map_err(Into::into),
        Work::All(identifier) => {
            let size = digested(&mut file, size)?;
            file.seek(SeekFrom::Start(0))?;
            identifier.identify(&file)?;
            Ok(size)
        }
    }
}

fn digested(file: &mut std::fs::File, size: u64) -> anyhow::Result<u64> {
    let mut left = size;
    let mut digester = Digester::new(Mode::Full);
    loop {
        let mut piece = Vec::with_capacity(usize::try_from((left + 1).min(PIECE))?);
        let read = u64::try_from(file.by_ref().take(PIECE).read_to_end(&mut piece)?)?;
        if read == 0 {
            break;
        }
        left = left.saturating_sub(read);
        digester.update(piece.into());
    }
    Ok(digester.finish()?.size)
}
