//! Upkeep: what has to be done from time to time and is in nobody's way: retention, sweeping.
//!
//! One thread gives each [`Task`] its turns, one bounded step at a time, and rests after a step for as long as it took,
//! so that upkeep never has more than half a processor and half a disk. Tests and tools give the turns by hand, with a
//! clock of their own ([`Store::maintain`]).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::PartitionNumber;
use crate::index::IndexError;
use crate::retention::Retention;
use crate::store::{AppendError, Core, Store};
use crate::sweep::Sweep;

/// The two clocks at the beginning of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, milliseconds since 1970.
    pub wall_ms: i64,
    /// Milliseconds since the store was opened; only grows.
    pub up_ms: i64,
}

/// What a task wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Another step, when the others have had theirs.
    More,
    /// Nothing for this many milliseconds of uptime, or until something is asked for.
    Idle(i64),
}

/// Why a step ended early. What it was about to do is done in a later one.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The index failed: the store stops.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A change could not be committed now.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Something done in the background, in bounded steps. Nothing but its own pace is remembered between two runs of the
/// process: a task finds out from the store what is left to do.
pub(crate) trait Task: Send {
    /// For the log.
    fn name(&self) -> &'static str;

    /// Something it depends on has changed: the next step looks at everything again.
    fn ask(&mut self) {}

    /// Does up to some thousand rows' worth of work.
    fn step(&mut self, core: &Core, now: Now) -> Result<Turn, MaintenanceError>;
}

struct Due {
    task: Box<dyn Task>,
    at_ms: i64,
}

#[derive(Default)]
struct Asked {
    again: bool,
    wake: bool,
    stopped: bool,
    news: News,
}

impl Asked {
    fn pending(&self) -> bool {
        self.again || self.wake
    }
}

/// What has been left to be swept.
#[derive(Default)]
pub(crate) struct News {
    /// Partitions whose topics have been deleted.
    pub(crate) dead: Vec<PartitionNumber>,
    /// True when log starts have moved.
    pub(crate) moved: bool,
}

/// The tasks of a store, and what they are told.
pub(crate) struct Maintenance {
    tasks: Mutex<Vec<Due>>,
    asked: Mutex<Asked>,
    work: Condvar,
}

/// How long after a failure a task is tried again.
const RETRY_MS: i64 = 10_000;
/// The shortest rest after a step that leaves more to do.
const SHORTEST_REST: Duration = Duration::from_millis(1);

impl Maintenance {
    /// With the tasks every store has.
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        let tasks: [Box<dyn Task>; 2] = [Box::<Sweep>::default(), Box::new(Retention::new(interval))];
        let due = |task| Due { task, at_ms: 0 };
        Self { tasks: Mutex::new(tasks.into_iter().map(due).collect()), asked: Mutex::default(), work: Condvar::new() }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed that upkeep depends on: every task looks again at once.
    pub(crate) fn ask(&self) {
        self.asked().again = true;
        self.work.notify_all();
    }

    /// Every task gets a step at once.
    pub(crate) fn wake(&self) {
        self.asked().wake = true;
        self.work.notify_all();
    }

    /// The topics of these partitions have been deleted.
    pub(crate) fn dead(&self, partitions: &[PartitionNumber]) {
        let mut asked = self.asked();
        asked.news.dead.extend(partitions);
        asked.wake = true;
        drop(asked);
        self.work.notify_all();
    }

    /// Log starts have moved.
    pub(crate) fn moved(&self) {
        let mut asked = self.asked();
        (asked.news.moved, asked.wake) = (true, true);
        drop(asked);
        self.work.notify_all();
    }

    /// Hands over what is to be swept.
    pub(crate) fn take_news(&self) -> News {
        std::mem::take(&mut self.asked().news)
    }

    /// Ends the thread; it finishes its step.
    pub(crate) fn stop(&self) {
        self.asked().stopped = true;
        self.work.notify_all();
    }

    fn stopped(&self) -> bool {
        self.asked().stopped
    }

    /// The maintenance thread: returns when stopped, or with the error that ends the store.
    pub(crate) fn run(&self, core: &Core) -> Result<(), IndexError> {
        while !self.stopped() {
            let began = Instant::now();
            let now = Now { wall_ms: core.now_ms(), up_ms: millis(core.opened.elapsed()) };
            let due_ms = self.round(core, now, RETRY_MS)?;
            let rest = match u64::try_from(due_ms - now.up_ms) {
                Ok(wait @ 1..) => Duration::from_millis(wait),
                Ok(0) | Err(_) => began.elapsed().max(SHORTEST_REST),
            };
            let asked = self.asked();
            let idle = |asked: &mut Asked| !asked.stopped && !asked.pending();
            drop(self.work.wait_timeout_while(asked, rest, idle).unwrap_or_else(PoisonError::into_inner));
        }
        Ok(())
    }

    /// One step of every task that is due. Returns the uptime at which the next one is.
    fn round(&self, core: &Core, now: Now, retry_ms: i64) -> Result<i64, IndexError> {
        let (again, wake) = {
            let mut asked = self.asked();
            (std::mem::take(&mut asked.again), std::mem::take(&mut asked.wake))
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for due in tasks.iter_mut() {
            if again {
                due.task.ask();
            }
            if again || wake {
                due.at_ms = now.up_ms;
            }
            if due.at_ms > now.up_ms || self.stopped() {
                continue;
            }
            due.at_ms = match due.task.step(core, now) {
                Ok(Turn::More) => now.up_ms,
                Ok(Turn::Idle(wait_ms)) => now.up_ms.saturating_add(wait_ms.max(1)),
                Err(MaintenanceError::Index(error)) => return Err(error),
                Err(MaintenanceError::Append(error)) => {
                    if !matches!(error, AppendError::Closed | AppendError::Poisoned { .. }) {
                        tracing::warn!(task = due.task.name(), %error, "upkeep could not go on and is tried again");
                    }
                    now.up_ms.saturating_add(retry_ms)
                }
            };
        }
        let next = tasks.iter().map(|due| due.at_ms).min().unwrap_or(i64::MAX);
        Ok(if self.asked().pending() { now.up_ms } else { next })
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Store {
    /// Does all the upkeep that is due at `now`, as the maintenance thread would, and returns when nothing is left.
    ///
    /// # Errors
    /// The index failed.
    pub fn maintain(&self, now: Now) -> Result<(), IndexError> {
        let core = &self.core;
        core.maintenance.ask();
        // A store that has stopped itself does no more steps.
        while !core.maintenance.stopped() && core.maintenance.round(core, now, RETRY_MS)? <= now.up_ms {}
        Ok(())
    }
}
