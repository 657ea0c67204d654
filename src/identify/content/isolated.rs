//! The content rules in child processes.

use std::io::{self, Read};
use std::time::Duration;

use super::rules::{Rules, TIME_LIMIT_S};
use super::{ContentScanner, Facts, Scan};
#[cfg(feature = "libmagic")]
use crate::identify::Lines;
#[cfg(feature = "libmagic")]
use crate::identify::libmagic::{LIBMAGIC, Libmagic};
use crate::isolate::{self, CallError, Counts, Limits, Options, Pieces, Pool, Program, Service};

/// The hidden command that a child is started with; what follows are the limits.
pub const SCANNER: &str = "__scanner";

/// The engine notices its own limit by itself; this is for one that does not.
const LIMIT: Duration = Duration::from_secs(TIME_LIMIT_S + 2);

/// How long a file waits for a scanner that is free.
const WAIT: Duration = Duration::from_secs(60);

/// How long a scanner may have nothing to do before it is stopped.
const IDLE: Duration = Duration::from_secs(60);

/// Program, rules, what the engine remembers of a scan; without the content.
const MEMORY_BYTES: u64 = 1 << 30;

/// Processor time of a scanner's life.
const CPU_SECONDS: u64 = 3600;

/// Content rules in child processes.
#[derive(Debug)]
pub struct Isolated {
    pool: Pool,
    max_bytes: u64,
    #[cfg(feature = "libmagic")]
    libmagic: Libmagic,
}

/// Limits of a child that is to take content of `max_bytes`.
fn limits(max_bytes: u64) -> Limits {
    Limits {
        memory_bytes: max_bytes.saturating_add(MEMORY_BYTES),
        cpu_seconds: CPU_SECONDS,
        body_bytes: max_bytes,
        setup_bytes: 0,
    }
}

impl Isolated {
    /// Over `workers` children of this program at most, which are started when there is something to scan.
    ///
    /// # Errors
    /// The thread that starts them cannot be started.
    pub fn start(workers: usize, max_bytes: u64) -> io::Result<Self> {
        Self::with_program(Program::this([SCANNER, &max_bytes.to_string()]), workers, max_bytes)
    }

    /// Over children of another program.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn with_program(program: Program, workers: usize, max_bytes: u64) -> io::Result<Self> {
        let limits = limits(max_bytes);
        #[cfg(feature = "libmagic")]
        let libmagic = {
            let path = program.path.clone();
            Libmagic::start(Program { path, arguments: [SCANNER, "0", LIBMAGIC].map(Into::into).to_vec() }, workers)?
        };
        let pool =
            Pool::start(Options { program, limits, workers, idle: IDLE, wait: WAIT, setup: None, shared: false })?;
        Ok(Self {
            pool,
            max_bytes,
            #[cfg(feature = "libmagic")]
            libmagic,
        })
    }

    /// How many children there were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.pool.counts()
    }
}

impl ContentScanner for Isolated {
    fn scan(&self, facts: &Facts, size: u64, content: &mut dyn Read) -> io::Result<Scan> {
        if size > self.max_bytes {
            return Ok(Scan::Skipped);
        }
        match self.pool.call::<_, Result<Option<String>, String>>(facts, content, size, LIMIT) {
            Ok(found) => Ok(found.into()),
            Err(CallError::Source(error)) => Err(error),
            Err(error) => Ok(Scan::Failed(error.to_string())),
        }
    }

    #[cfg(feature = "libmagic")]
    fn lines(&self, size: u64, content: &mut dyn Read) -> io::Result<Option<Lines>> {
        self.libmagic.lines(size, content).map(Some)
    }
}

/// Is such a child: scans content of at most `max_bytes` that comes in through standard input.
///
/// # Errors
/// As [`isolate::serve`].
pub fn serve(max_bytes: u64) -> io::Result<()> {
    isolate::serve(&limits(max_bytes), Rules::compile)
}

/// Is a child that asks libmagic.
///
/// # Errors
/// As [`isolate::serve`].
#[cfg(feature = "libmagic")]
pub fn serve_libmagic() -> io::Result<()> {
    crate::identify::libmagic::serve()
}

impl Service for Rules {
    type Request = Facts;
    type Answer = Result<Option<String>, String>;

    fn answer(&mut self, facts: Facts, body: &[u8], _: &mut dyn Pieces) -> Self::Answer {
        self.scan(&facts, body)
    }
}
