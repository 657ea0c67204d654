//! What waits for a consumer that nobody runs any more is ended by name.

use serde::{Deserialize, Serialize};

use super::Admin;
use super::dead::{DeadError, DeadReport, MOST};
use crate::dispatcher::leases::{self, Buried, PlanError};
use crate::dispatcher::model::Timestamp;

/// Whose waiting events are to become dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuryRequest {
    /// The consumer.
    pub consumer: String,
    /// Its version.
    pub version: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

impl From<PlanError> for DeadError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Index(error) => error.into(),
            PlanError::Topic(error) => Self::Stopped(error.to_string()),
            PlanError::Append(error) => error.into(),
        }
    }
}

impl Admin {
    /// Makes dead letters of the events that wait for another run by a consumer that asks no more, with a line in the audit
    /// log. `next` of the report says that there are more; a consumer that has none is missing.
    ///
    /// # Errors
    /// See [`DeadError`]; also when the consumer asks for events still.
    pub fn dead_bury(&self, request: &BuryRequest, by: &str) -> Result<DeadReport, DeadError> {
        let dispatcher = self.dispatcher.as_ref();
        let dispatcher = dispatcher.ok_or_else(|| DeadError::Bad("nothing serves events here".to_owned()))?;
        let BuryRequest { consumer, version, dry_run } = request;
        let (who, now_ms) = ((consumer.as_str(), version.as_str()), dispatcher.now_ms());
        if let Some(ms) = self.heard_of_lately(dispatcher, who, now_ms) {
            let time = Timestamp::from_millis(ms);
            return Err(DeadError::Bad(format!(
                "{consumer} {version} is there, it was heard of at {time}: stop it, and ask again 5 minutes later"
            )));
        }
        let mut report = DeadReport::default();
        if *dry_run {
            leases::each_waiting(self.broker.log().as_ref(), consumer, version, |_| {
                report.buried += 1;
                true
            })?;
        } else {
            let reason = format!("nobody runs {consumer} {version} any more: its waiting events were ended by hand");
            let Buried { buried, given_up } = dispatcher.bury_waiting(who, &reason, now_ms, MOST)?;
            report.buried = buried + given_up;
            if given_up > 0 {
                report.notes.push(format!(
                    "{given_up} of them had been put back by hand: they wait no more, and their letters are as before"
                ));
            }
            let most = u64::try_from(MOST).unwrap_or(u64::MAX);
            report.next = (report.buried >= most).then(|| "more".to_owned());
        }
        let standings = dispatcher.leases().standings(now_ms);
        let balance = standings.into_iter().map(|standing| standing.balance);
        let under_way = balance.filter(|b| (b.name.as_str(), b.version.as_str()) == who).map(|b| b.leases).sum::<u64>();
        if under_way > 0 {
            report.notes.push(format!("{under_way} more are under way: ask again when their leases have ended"));
        }
        if report.buried == 0 {
            report.missing.push(format!("{consumer} {version}"));
        } else if !dry_run {
            let (topic, key) = dispatcher.audit_line();
            let line = serde_json::json!({
                "time": Timestamp::from_millis(now_ms).to_string(), "action": "dead.bury", "by": by,
                "count": report.buried, "consumer": consumer, "version": version,
            });
            let mut change = dispatcher.dead().change();
            change.note(topic, key, line.to_string().into_bytes());
            dispatcher.commit_dead(change.finish())?;
            tracing::info!(count = report.buried, consumer, version, by, "waiting events were made dead letters");
        }
        Ok(report)
    }
}
