//! How each consumer stands: its account, and what its runs came to lately.
//!
//! Fed by the change that ends a lease, under the lock that is held for it anyhow, and counted once that change is durable.

use super::super::activity::{Activity, LastError, Lately};
use super::Leases;
use super::closing::Closing;
use super::ledger::Balance;
use super::policy::Outcome;
use super::rows::Lease;
use super::state::Tally;

/// How a run ended, as it is counted.
#[derive(Debug)]
pub(super) struct Run {
    now_ms: i64,
    took_ms: i64,
    status: String,
    is_retry: bool,
    /// Its consumer has said so.
    heard: bool,
    failure: Option<Box<LastError>>,
}

impl Run {
    pub(super) fn of(closing: &Closing<'_>, lease: &Lease, now_ms: i64) -> Self {
        let task = closing.task;
        let failed = Outcome::of(&task.status) != Outcome::Finished;
        let failure = failed.then(|| {
            Box::new(LastError {
                time_ms: now_ms,
                status: task.status.clone(),
                error: task.error.clone(),
                message: task.message.clone(),
                sha256: lease.work.sha256.clone(),
            })
        });
        Self {
            now_ms,
            took_ms: now_ms.saturating_sub(lease.since_ms),
            status: task.status.clone(),
            is_retry: lease.work.attempt > 0,
            heard: !closing.silent,
            failure,
        }
    }

    pub(super) fn note(self, activity: &mut Activity) {
        let Self { now_ms, took_ms, status, is_retry, heard, failure } = self;
        activity.begun(now_ms.saturating_sub(took_ms), is_retry);
        activity.ended(now_ms, &status, Some(took_ms));
        if heard {
            activity.heard(now_ms);
        }
        if let Some(failure) = failure {
            activity.failed(*failure);
        }
    }
}

/// One consumer at one moment.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its account. All counts are of the same moment, so that it holds.
    pub balance: Balance,
    /// What its runs came to lately; nothing is known from before the process began.
    pub lately: Lately,
}

impl Leases {
    /// How every consumer stands that has an account. Holds the lock of leases for a moment.
    #[must_use]
    pub fn standings(&self, now_ms: i64) -> Vec<Standing> {
        let mut standings = Vec::new();
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        self.each_tally(|(name, version), tally: &Tally| {
            let balance = Balance {
                name: name.clone(),
                version: version.clone(),
                taken_in: tally.taken.taken_in,
                finished: tally.ended.finished,
                dead: tally.ended.dead,
                deleted: tally.taken.deleted,
                leases: count(tally.leases),
                waiting: count(tally.waiting),
            };
            standings.push(Standing { balance, lately: tally.activity.lately(now_ms) });
        });
        standings.sort_by(|a, b| (&a.balance.name, &a.balance.version).cmp(&(&b.balance.name, &b.balance.version)));
        standings
    }
}
