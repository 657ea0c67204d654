//! What waits for another run by a consumer that nobody runs any more ends when a person says so: as dead letters, so that
//! nothing is lost and the account holds.

use std::sync::Arc;

use super::super::Dispatcher;
use super::attempt::Attempt;
use super::closing::{Gathered, Kept, KeptBack, PlanError};
use super::rows::{Job, Waiting, waiting_prefix};

/// The status that the dead letters of such events have.
const ABANDONED: &str = "abandoned";
/// Rows of one commit: each may hold an event of 3 MiB, and its letter holds that again.
const AT_ONCE: usize = 16;

/// What was ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buried {
    /// Events that are dead letters now.
    pub buried: u64,
    /// Events that a person had put back and nobody has got yet: they wait no more, and a letter of theirs can be put back
    /// again.
    pub given_up: u64,
}

impl Dispatcher {
    /// Ends up to `most` events that wait for another run by this consumer, and says so as the error of a last attempt.
    /// Fewer than `most` mean that none is left. Blocks for commits.
    ///
    /// # Durability
    /// What is counted in the answer has ended, durably.
    /// # Errors
    /// The index failed, the topic of dead letters cannot be made, or a commit failed: what was ended before stays so.
    pub(crate) fn bury_waiting(
        self: &Arc<Self>,
        (name, version): (&str, &str),
        reason: &str,
        now_ms: i64,
        most: usize,
    ) -> Result<Buried, PlanError> {
        self.topic(&self.dead_topic())?;
        let mut done = Buried::default();
        let total = |done: &Buried| usize::try_from(done.buried + done.given_up).unwrap_or(usize::MAX);
        while total(&done) < most {
            let limit = AT_ONCE.min(most - total(&done));
            let (buried, put_back) = self.bury_some((name, version), reason, now_ms, limit)?;
            let given_up = u64::try_from(put_back.len()).unwrap_or(0);
            // Counted by requests of another order, so a change of its own.
            self.end_kept_back(put_back, now_ms)?;
            if buried + given_up == 0 {
                break;
            }
            done.buried += buried;
            done.given_up += given_up;
        }
        Ok(done)
    }

    /// One commit's worth of it; also those that a person had put back, which are left for the caller.
    fn bury_some(
        &self,
        (name, version): (&str, &str),
        reason: &str,
        now_ms: i64,
        limit: usize,
    ) -> Result<(u64, Vec<KeptBack>), PlanError> {
        let log = self.broker.log().as_ref();
        let (mut gathered, mut put_back, mut buried) = (Gathered::default(), Vec::new(), 0);
        let mut edit = self.leases.edit(log, false);
        let rows = edit.page(&waiting_prefix(name, version), limit)?;
        for (key, bytes) in rows.into_iter().take(limit) {
            let Some(waiting) = Waiting::read(&key, &bytes) else { continue };
            if waiting.fresh {
                put_back.push(KeptBack { waiting, why: reason.to_owned(), kept: Kept::ForGood, filters: 0 });
                continue;
            }
            let job = edit.get(&waiting.work.job_key())?;
            let mut attempts = job.and_then(|bytes| Job::read(&bytes)).unwrap_or_default().attempts;
            attempts.push(Attempt {
                time_ms: now_ms,
                status: ABANDONED.to_owned(),
                error: reason.to_owned(),
                message: String::new(),
                runtime: 0.0,
            });
            edit.remove(waiting.key);
            edit.count(&waiting.work).waiting -= 1;
            Self::bury_work(&mut edit, &waiting.work, attempts, None, now_ms, &mut gathered);
            buried += 1;
        }
        let ending = self.with_letters(edit.finish(), gathered, now_ms)?;
        let (plan, appends, ended) = ending.take();
        if plan.is_empty() {
            return Ok((0, put_back));
        }
        self.commit_closing(plan, appends)?;
        self.closings_stored(ended, ABANDONED);
        Ok((buried, put_back))
    }
}
