//! Exit codes (`cli.md` section 2). Scripts and the unit file depend on them.

use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// Something failed; each failure has been named.
    Failed,
    /// The command line or the configuration is wrong. Not restarted by the unit.
    Usage,
    /// Another process holds the store. Not restarted by the unit.
    Locked,
    /// The store is damaged. Not restarted by the unit.
    Damaged,
    /// The process stopped itself after a failed sync or an internal fault: starting it again recovers.
    Stopped,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Locked => 3,
            Self::Damaged => 4,
            Self::Stopped => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
