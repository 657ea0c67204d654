//! Child processes for code that reads hostile bytes: bounded in number, memory and time, and of no use to an attacker.
//!
//! The process that owns the store never runs a parser written in C. It keeps a [`Pool`] of children, which are this
//! same program started with a hidden command; a request is a small value and the bytes it is about, the answer a small
//! value, with any number of others before it ([`Pieces`]). A child gets no path, no network and no file of ours: it has
//! one end of a socket pair, and on request a file in memory, in which its parent leaves large bodies; before it reads
//! the first request it gives up everything else ([`serve`]). What all its requests have in common, such as compiled
//! rules, it is told once ([`Options::setup`]). What goes wrong in a child, a crash, a hang, an answer that is none, is a
//! [`CallError`] of that one call, and the next call has another child.
//!
//! `identify` scans content through it, the YARA worker compiles rules and scans with them.

mod confine;
mod frame;
mod pool;
mod serve;
mod worker;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use pool::{Counts, Options, Patience, Pool};
pub use serve::{Pieces, Service, serve};

/// What a child may use. The child sets it for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space.
    pub memory_bytes: u64,
    /// Processor time of its whole life. A child that has had half of it gets no other call, but for one that it has already.
    pub cpu_seconds: u64,
    /// Size of the bytes of one request.
    pub body_bytes: u64,
    /// Size of what it is told once; 0 for a service that is told nothing.
    pub setup_bytes: u64,
}

/// How a child is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file to run.
    pub path: PathBuf,
    /// What it is told.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// This program, also when its file has been replaced since it was started.
    #[must_use]
    pub fn this(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { path: "/proc/self/exe".into(), arguments: arguments.into_iter().map(Into::into).collect() }
    }
}

/// Why a call has no answer. The child it had is gone, but for [`CallError::Busy`], and for [`CallError::Source`] when the
/// child was at work on something else.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The bytes to send could not be read.
    #[error("the content cannot be read: {0}")]
    Source(#[source] io::Error),
    /// Every child was at work for too long.
    #[error("every scanner is busy")]
    Busy,
    /// No child could be started, or it could not give up what it must not have.
    #[error("the scanner cannot be started: {0}")]
    Start(String),
    /// The child ended.
    #[error("the scanner stopped")]
    Died,
    /// The child needed more memory than it may have.
    #[error("the scanner ran out of memory")]
    OutOfMemory,
    /// There was no answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It said nothing for too long in the middle of an answer.
    #[error("the scanner said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// What came back is no answer.
    #[error("the scanner's answer is garbled: {0}")]
    Garbled(&'static str),
}
