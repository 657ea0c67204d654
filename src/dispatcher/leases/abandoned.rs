//! What waits for another run by a consumer that nobody runs any more ends when a person says so: as dead letters, so that
//! nothing is lost and the account holds.

use std::sync::Arc;

use super::super::Dispatcher;
use super::attempt::Attempt;
use super::closing::{Gathered, KeptBack, PlanError};
use super::rows::{Job, Waiting, waiting_prefix};
use crate::broker::AppendError;

/// The status that the dead letters of such events have.
const ABANDONED: &str = "abandoned";
/// Rows of one commit.
const AT_ONCE: usize = 200;

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
    ) -> Result<Buried, BuryError> {
        self.topic(&self.dead_topic()).map_err(PlanError::from)?;
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
    ) -> Result<(u64, Vec<KeptBack>), BuryError> {
        let log = self.broker.log().as_ref();
        let (mut gathered, mut put_back, mut buried) = (Gathered::default(), Vec::new(), 0);
        let mut edit = self.leases.edit(log, false);
        let rows = edit.page(&waiting_prefix(name, version), limit).map_err(PlanError::from)?;
        for (key, bytes) in rows.into_iter().take(limit) {
            let Some(waiting) = Waiting::read(&key, &bytes) else { continue };
            if waiting.fresh {
                put_back.push(KeptBack { waiting, why: reason.to_owned(), for_good: true, elsewhere: false });
                continue;
            }
            let job = edit.get(&waiting.work.job_key()).map_err(PlanError::from)?;
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
        let ending = self.with_letters(edit.finish(), gathered, now_ms).map_err(PlanError::from)?;
        let (plan, appends, ended) = ending.take();
        if plan.is_empty() {
            return Ok((0, put_back));
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.leases.queue(log, vec![plan], |values, settle| {
            let done = move |outcome: Result<_, AppendError>| {
                settle.tell(outcome.is_ok());
                drop(sender.send(outcome.map(drop)));
            };
            log.append_with(self.leases.lane(), appends, values, Box::new(done));
        });
        receiver.recv().unwrap_or(Err(AppendError::Closed))?;
        self.closings_stored(ended, ABANDONED);
        Ok((buried, put_back))
    }
}

/// Why not everything was ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuryError {
    /// It could not be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}
