//! Workers and every other plugin that takes tasks: what waits for each, what is under way, what came of it lately.
//!
//! A worker of this process says itself how it stands; of all others it is known what they ask for, hold and answer. Consumers
//! that nobody runs any more are listed as long as events wait for them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Admin, GroupSummary};
use crate::broker::ReadError;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::leases::{Balance, Standing};
use crate::dispatcher::model::Timestamp;
use crate::dispatcher::plugin_key::Flow;
use crate::dispatcher::registry::Listed;
use crate::workers::overseer::{OUTSIDE, SERVER, StageView, WorkerView};

/// Who has not been heard of for so long is not there: plugins ask every minute at least, and send a heartbeat about every
/// half minute while they work.
pub(super) const SILENT_MS: i64 = 5 * 60_000;
/// Consumers that are listed at most.
const MOST: usize = 1000;

/// The workers of a server, and the plugins that take tasks from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerList {
    /// Those inside of the server in the order of the configuration, then all others in order of name and version.
    pub workers: Vec<WorkerView>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Name and version.
type Who = (String, String);

/// What is known of one consumer beside what it says itself.
#[derive(Default)]
struct Known {
    seen_ms: Option<i64>,
    /// What its groups have before them; `None` when none is known.
    lag: Option<u64>,
    /// What of that it has not looked at yet.
    left: Option<u64>,
    user_agents: BTreeSet<String>,
    models: BTreeSet<String>,
    standing: Option<Standing>,
}

impl Known {
    fn balance(&self) -> Option<&Balance> {
        self.standing.as_ref().map(|standing| &standing.balance)
    }

    fn waiting(&self) -> u64 {
        self.balance().map_or(0, |balance| balance.waiting)
    }

    /// Whether events are under way or wait for another run.
    fn is_open(&self) -> bool {
        self.balance().is_some_and(|balance| balance.leases + balance.waiting > 0)
    }

    fn last_seen_ms(&self) -> Option<i64> {
        self.seen_ms.max(self.standing.as_ref().and_then(|standing| standing.lately.heard_ms))
    }

    /// The first stage, with what waits before it.
    fn fill(&self, stage: StageView) -> StageView {
        let (lag, waiting) = (self.lag, Some(self.waiting()));
        let stage = match self.left.or(lag) {
            Some(left) => stage.with_queue(left.saturating_add(self.waiting())),
            None => stage.with_queue(self.waiting()),
        };
        StageView { lag, waiting, ..stage }
    }
}

impl Admin {
    /// How every worker of this process stands, whose views are given, and every other consumer of tasks that was there in
    /// the last day or has events open. Blocks on the index.
    ///
    /// # Errors
    /// The index failed.
    pub fn workers(&self, views: Vec<WorkerView>, now_ms: i64) -> Result<WorkerList, ReadError> {
        let mut known = self.known_consumers(now_ms)?;
        let names: BTreeSet<String> = views.iter().map(|view| view.name.clone()).collect();
        let mut workers = Vec::new();
        for mut view in views {
            if let Some(known) = known.remove(&(view.name.clone(), view.consumer_version.clone())) {
                view.last_seen_ms = known.last_seen_ms();
                if let Some(first) = view.stages.first_mut() {
                    *first = known.fill(std::mem::take(first));
                }
            }
            workers.push(view);
        }
        let mut others: Vec<(Who, Known)> =
            known.into_iter().filter(|(_, known)| known.seen_ms.is_some() || known.is_open()).collect();
        let left_out = others.len().saturating_sub(MOST);
        // Those with open events stay, and then those that were there last.
        others.sort_by_key(|(_, known)| std::cmp::Reverse((known.is_open(), known.last_seen_ms())));
        others.truncate(MOST);
        others.sort_by(|a, b| a.0.cmp(&b.0));
        for (who, mut known) in others {
            if known.last_seen_ms().is_none() {
                known.seen_ms = self.last_move_ms(&who)?;
            }
            let place = if names.contains(&who.0) { SERVER } else { OUTSIDE };
            workers.push(view_of(who, known, place, now_ms));
        }
        Ok(WorkerList { workers, left_out: u64::try_from(left_out).unwrap_or(u64::MAX) })
    }

    fn known_consumers(&self, now_ms: i64) -> Result<BTreeMap<Who, Known>, ReadError> {
        let mut all: BTreeMap<Who, Known> = BTreeMap::new();
        for listed in self.registered().into_iter().filter(|listed| listed.consumer.task) {
            let params = &listed.consumer.params;
            let known = all.entry((params.name.clone(), params.version.clone())).or_default();
            known.seen_ms = known.seen_ms.max(Some(listed.seen_ms));
            let lag = self.lag_of(&listed)?;
            let left = self.dispatcher.as_deref().and_then(|dispatcher| dispatcher.left(params)).unwrap_or(lag);
            *known.lag.get_or_insert(0) += lag;
            *known.left.get_or_insert(0) += left;
            known.models.insert(params.model.to_string());
            if !listed.consumer.user_agent.is_empty() {
                known.user_agents.insert(listed.consumer.user_agent.clone());
            }
        }
        for standing in self.dispatcher.as_deref().map(|d| d.leases().standings(now_ms)).unwrap_or_default() {
            let who = (standing.balance.name.clone(), standing.balance.version.clone());
            all.entry(who).or_default().standing = Some(standing);
        }
        Ok(all)
    }

    /// Events between the durable positions of its groups and the end.
    fn lag_of(&self, listed: &Listed) -> Result<u64, ReadError> {
        let groups = self.groups_of(listed)?;
        let lag = |flow: Flow| -> i64 {
            let of_flow = |group: &&GroupSummary| group.name.ends_with(&format!("-{flow}"));
            groups.iter().filter(of_flow).map(|group| group.lag).sum()
        };
        // What is still to come of the past is behind both groups.
        let lag = lag(Flow::Expedite) + lag(Flow::Error) + lag(Flow::Live).max(lag(Flow::Historic));
        Ok(u64::try_from(lag).unwrap_or(0))
    }

    /// When a group of a consumer that asks no more moved last.
    fn last_move_ms(&self, (name, version): &Who) -> Result<Option<i64>, ReadError> {
        let start = format!("{}-azul-{name}-{version}-", self.topic_prefix);
        let mut last_ms = None;
        for group in self.broker.log().groups()?.into_iter().filter(|group| group.starts_with(&start)) {
            let positions = self.broker.group_lag(&group)?;
            last_ms = last_ms.max(positions.values().map(|position| position.committed.commit_time_ms).max());
        }
        Ok(last_ms)
    }

    /// Whether a consumer has asked for tasks, or said something of one, in the last minutes; when, if so.
    pub(super) fn heard_of_lately(&self, dispatcher: &Dispatcher, who: (&str, &str), now_ms: i64) -> Option<i64> {
        let of = |params: &crate::dispatcher::params::GetParams| (params.name.as_str(), params.version.as_str()) == who;
        let asked = self.registered().into_iter().filter(|listed| listed.consumer.task && of(&listed.consumer.params));
        let standings = dispatcher.leases().standings(now_ms).into_iter();
        let said = standings.filter(|s| (s.balance.name.as_str(), s.balance.version.as_str()) == who);
        let last = asked.map(|listed| listed.seen_ms).chain(said.filter_map(|standing| standing.lately.heard_ms)).max();
        last.filter(|ms| now_ms.saturating_sub(*ms) < SILENT_MS)
    }
}

/// Another consumer than a worker of this process.
fn view_of((name, version): Who, known: Known, place: &str, now_ms: i64) -> WorkerView {
    let last_seen_ms = known.last_seen_ms();
    let in_flight = known.balance().map_or(0, |balance| balance.leases);
    let lately = known.standing.as_ref().map(|standing| standing.lately.clone()).unwrap_or_default();
    let (state, reason) = state_of(last_seen_ms, in_flight, lately.ended_ms, now_ms);
    let stage = StageView { name: "run".to_owned(), in_flight, ..StageView::of(lately) };
    let mut facts = BTreeMap::new();
    let joined = |set: &BTreeSet<String>| set.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    for (fact, set) in [("model", &known.models), ("client", &known.user_agents)] {
        if !set.is_empty() {
            facts.insert(fact.to_owned(), joined(set));
        }
    }
    if let Some(Balance { taken_in, finished, dead, deleted, leases, waiting, .. }) = known.balance() {
        let open = leases + waiting;
        let text = format!("{taken_in} taken in = {finished} finished + {open} open + {dead} dead + {deleted} deleted");
        facts.insert("account".to_owned(), text);
    }
    if state == NOT_SEEN && known.waiting() > 0 {
        let text = format!("{} wait for another run; `azulite dead bury` makes dead letters of them", known.waiting());
        facts.insert("warning".to_owned(), text);
    }
    WorkerView {
        name,
        consumer_version: version.clone(),
        version,
        place: place.to_owned(),
        state: state.to_owned(),
        reason,
        last_seen_ms,
        stages: vec![known.fill(stage)],
        facts,
    }
}

const NOT_SEEN: &str = "not seen";

/// The state, and since when.
fn state_of(last_seen_ms: Option<i64>, in_flight: u64, ended_ms: Option<i64>, now_ms: i64) -> (&'static str, String) {
    let since = |ms: i64| format!("since {}", Timestamp::from_millis(ms));
    match last_seen_ms {
        None => (NOT_SEEN, "for more than a day".to_owned()),
        Some(ms) if now_ms.saturating_sub(ms) >= SILENT_MS => (NOT_SEEN, since(ms)),
        Some(_) if in_flight > 0 => ("active", String::new()),
        Some(_) => ("idle", ended_ms.map(since).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_says_since_when() {
        let now = 10 * SILENT_MS;
        assert_eq!(state_of(None, 3, None, now), ("not seen", "for more than a day".to_owned()));
        let gone = state_of(Some(0), 1, Some(0), now);
        assert_eq!(gone, ("not seen", "since 1970-01-01T00:00:00Z".to_owned()), "a lease alone is no sign of life");
        assert_eq!(state_of(Some(now), 1, None, now), ("active", String::new()));
        assert_eq!(state_of(Some(now), 0, Some(1000), now), ("idle", "since 1970-01-01T00:00:01Z".to_owned()));
        assert_eq!(state_of(Some(now), 0, None, now), ("idle", String::new()));
    }
}
