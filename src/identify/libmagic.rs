//! Magic and mime lines from the system's libmagic, for sites that want its words letter by letter (feature `libmagic`).
//!
//! Called by [`super::content::Isolated`]. The library is C code over hostile bytes, so it runs in child processes of its
//! own, which get the beginning of the file as bytes. Its words are those of streams.md only where it is version 5.47.

use std::io::{self, Read};
use std::time::Duration;

use magic::Cookie;
use magic::cookie::{DatabasePaths, Flags, Load};

use super::magic::Lines;
use crate::isolate::{self, CallError, Limits, Options, Pieces, Pool, Program, Service};

/// What follows the hidden command of the scanner for a child that asks libmagic.
pub(super) const LIBMAGIC: &str = "--libmagic";

/// As much of a file as libmagic itself looks at.
const LOOKED_AT: u64 = 7 << 20;

const LIMIT: Duration = Duration::from_secs(12);
const WAIT: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { memory_bytes: 1 << 30, cpu_seconds: 3600, body_bytes: LOOKED_AT, setup_bytes: 0 };

/// libmagic in child processes.
#[derive(Debug)]
pub(super) struct Libmagic {
    pool: Pool,
}

impl Libmagic {
    /// Over `workers` children of `program` at most.
    pub(super) fn start(program: Program, workers: usize) -> io::Result<Self> {
        let options = Options { program, limits: LIMITS, workers, idle: IDLE, wait: WAIT, setup: None, shared: false };
        Ok(Self { pool: Pool::start(options)? })
    }

    /// The lines for a file of `size` bytes. What goes wrong is a line `error - ...`.
    ///
    /// # Errors
    /// Only those of `content`.
    pub(super) fn lines(&self, size: u64, content: &mut dyn Read) -> io::Result<Lines> {
        let size = size.min(LOOKED_AT);
        let answer = self.pool.call::<_, (Vec<String>, Vec<String>)>(&(), content, size, LIMIT);
        match answer {
            Ok((magics, mimes)) => Ok(Lines { magics, mimes }),
            Err(CallError::Source(error)) => Err(error),
            Err(error) => {
                let line = vec![format!("error - {error}")];
                Ok(Lines { magics: line.clone(), mimes: line })
            }
        }
    }
}

/// Is such a child.
///
/// # Errors
/// As [`isolate::serve`].
pub(super) fn serve() -> io::Result<()> {
    isolate::serve(&LIMITS, Cookies::load)
}

/// The loaded database, once for each kind of answer.
struct Cookies {
    magics: Cookie<Load>,
    mimes: Cookie<Load>,
}

impl Cookies {
    fn load() -> Result<Self, String> {
        let cookie = |flags: Flags| {
            let cookie = Cookie::open(flags).map_err(|error| error.to_string())?;
            cookie.load(&DatabasePaths::default()).map_err(|error| error.to_string())
        };
        let all = Flags::RAW | Flags::CONTINUE | Flags::ERROR;
        Ok(Self { magics: cookie(all)?, mimes: cookie(all | Flags::MIME_TYPE)? })
    }
}

impl Service for Cookies {
    type Request = ();
    type Answer = (Vec<String>, Vec<String>);

    fn answer(&mut self, (): (), body: &[u8], _: &mut dyn Pieces) -> Self::Answer {
        let lines = |cookie: &Cookie<Load>| match cookie.buffer(body) {
            Ok(text) => split(&text),
            Err(error) => vec![format!("error - {error}")],
        };
        (lines(&self.magics), lines(&self.mimes))
    }
}

/// One line for each match.
fn split(text: &str) -> Vec<String> {
    text.split('\n').map(|piece| piece.strip_prefix("- ").unwrap_or(piece).trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_matches_are_lines_without_their_dashes() {
        assert_eq!(
            split("ELF 64-bit LSB, version 1\n- (SYSV)\n- data"),
            ["ELF 64-bit LSB, version 1", "(SYSV)", "data"]
        );
    }

    #[test]
    fn the_library_of_the_system_names_what_every_version_names() {
        let mut cookies = Cookies::load().unwrap();
        let (magics, mimes) = cookies.answer((), b"#!/bin/sh\necho hi\n");
        assert_eq!(magics[0], "POSIX shell script text executable");
        assert_eq!(mimes[0], "text/x-shellscript");
    }
}
