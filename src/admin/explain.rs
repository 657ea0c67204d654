//! Why a consumer did or did not get an entity: where its groups stand beside each event, and what the filters say.
//! Spec: cli.md 2, workers.md 5.5.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::entity::About;
use super::open_tasks::{TaskView, WaitingView};
use super::scan::{DamagedRange, Flow};
use super::{Admin, GroupSummary};
use crate::broker::{CommittedOffset, GroupRecord, Offset, ReadError, TopicPartition};
use crate::dispatcher::Dispatcher;
use crate::dispatcher::dead::Head;
use crate::dispatcher::filter::{verdicts, why};
use crate::dispatcher::leases;
use crate::dispatcher::model::Event;
use crate::dispatcher::plugin_key::{Flow as Queue, Subscription, subscriptions};
use crate::dispatcher::registry::Listed;

/// Events that are explained at most, and gaps that are listed.
const MOST: usize = 1000;
/// Plugin keys that are looked at, at most: those that asked last.
const MOST_CONSUMERS: usize = 100;
/// Events times plugin keys at most.
const MOST_FATES: usize = 10_000;
/// Open tasks that are listed of one event at one plugin key.
const MOST_TASKS: usize = 20;
/// Waiting events of a consumer that are looked at for one event.
const MOST_WAITING: usize = 10_000;

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The entity.
    pub sha256: String,
    /// The name of the consumer.
    pub plugin: String,
    /// Whether task consumers are told to wait at present.
    pub paused: bool,
    /// The plugin keys under which it asked in the last day.
    pub consumers: Vec<ExplainedConsumer>,
    /// Whether there are more plugin keys than are listed, which are those that asked last.
    #[serde(default)]
    pub more_consumers: bool,
    /// Groups of that name that nobody has asked for in the last day.
    pub idle_groups: Vec<String>,
    /// What is stored about the entity, topic by topic in order of name, each in order of offset.
    pub events: Vec<ExplainedEvent>,
    /// Whether there are more events than are listed.
    pub more: bool,
    /// Offsets that cannot be read, so that events may be missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<DamagedRange>,
}

/// One plugin key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedConsumer {
    /// The plugin key.
    pub key: String,
    /// Its version.
    pub version: String,
    /// The model it reads.
    pub model: String,
    /// Whether it takes tasks.
    pub task: bool,
    /// When it asked last, milliseconds since 1970.
    pub seen_ms: i64,
    /// Its groups, in order of precedence.
    pub groups: Vec<GroupSummary>,
}

/// One stored event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedEvent {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: Offset,
    /// Its model.
    pub model: String,
    /// Its key.
    pub kafka_key: String,
    /// Its author.
    pub author: String,
    /// What became of it at each plugin key, in the order of [`Explanation::consumers`].
    pub consumers: Vec<Fate>,
}

/// What becomes of one event at one plugin key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// The plugin key.
    pub key: String,
    /// Where the groups that read its topic stand; empty when none does.
    pub groups: Vec<Standing>,
    /// The filters that drop it, as the consumer asked last.
    pub filters: Vec<FilteredBy>,
    /// Tasks of it that are open, the first few.
    pub tasks: Vec<TaskView>,
    /// Where it waits for another run, the first few of those that are due first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingView>,
    /// Dead letters of it, of any version of the consumer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead: Vec<Head>,
}

/// One plugin key with all that is looked up about it, once for all events.
struct Asked {
    listed: Listed,
    queues: Vec<AskedQueue>,
}

/// One of its groups.
struct AskedQueue {
    subscription: Subscription,
    offsets: BTreeMap<TopicPartition, CommittedOffset>,
    record: Option<GroupRecord>,
}

/// One group beside one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// `expedite`, `error`, `live` or `historic`.
    pub subscription: String,
    /// The group.
    pub group: String,
    /// The offset it reads next; absent before it has read its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Offset>,
    /// What that means for the event.
    pub state: Place,
}

/// An event as seen from a group's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Read: handed out, or dropped by a filter.
    Read,
    /// Still to come.
    ToCome,
    /// It was there before the group began.
    BeforeStart,
    /// The group ends before it; the live one of the same key has it.
    LeftToLive,
    /// The group has no position in that partition yet.
    NotBegun,
}

/// A filter that drops the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilteredBy {
    /// Stage and reason, as in `info.filters`.
    pub filter: String,
    /// The value and the limit, in words.
    pub because: String,
}

impl Admin {
    /// Explains what becomes of every stored event about an entity at the consumers of one name. Reads every event topic
    /// from end to end.
    ///
    /// # Errors
    /// The operating system or the index failed; damage is part of the answer.
    pub fn explain(&self, dispatcher: &Dispatcher, sha256: &str, plugin: &str) -> Result<Explanation, ReadError> {
        dispatcher.follow_purges()?;
        let registered = dispatcher.registry().consumers(dispatcher.now_ms());
        let mut consumers: Vec<Listed> =
            registered.into_iter().filter(|listed| listed.consumer.params.name == plugin).collect();
        let more_consumers = consumers.len() > MOST_CONSUMERS;
        if more_consumers {
            consumers.sort_by_key(|listed| std::cmp::Reverse(listed.seen_ms));
            consumers.truncate(MOST_CONSUMERS);
            consumers.sort_by(|one, other| one.key.cmp(&other.key));
        }
        let consumers = consumers.into_iter().map(|listed| self.asked(listed)).collect::<Result<Vec<_>, _>>()?;
        let most_events = MOST.min(MOST_FATES / consumers.len().max(1));
        let mut explanation = Explanation {
            sha256: sha256.to_owned(),
            plugin: plugin.to_owned(),
            paused: dispatcher.is_paused(),
            consumers: consumers.iter().map(|asked| self.explained(&asked.listed)).collect::<Result<_, _>>()?,
            more_consumers,
            ..Explanation::default()
        };
        explanation.idle_groups = self.idle_groups(plugin, &explanation.consumers)?;
        let mut failed = Ok(());
        self.about_entity(sha256, &mut |about| {
            let Explanation { events, damage, more, .. } = &mut explanation;
            if events.len() >= most_events || damage.len() >= MOST {
                *more = true;
                return Flow::Break(());
            }
            match about {
                About::Damage(range) => damage.push(range),
                About::Event(event, place, offset) => {
                    match self.explained_event(dispatcher, &consumers, &event, &place, offset) {
                        Ok(event) => events.push(event),
                        Err(error) => {
                            failed = Err(error);
                            return Flow::Break(());
                        }
                    }
                }
            }
            Flow::Continue(())
        })?;
        failed.map(|()| explanation)
    }

    fn asked(&self, listed: Listed) -> Result<Asked, ReadError> {
        let log = self.broker.log();
        let queue = |subscription: Subscription| {
            let offsets = log.group_offsets(&subscription.group)?;
            let record = GroupRecord::of(log.as_ref(), &subscription.group)?;
            Ok(AskedQueue { subscription, offsets, record })
        };
        let queues = subscriptions(&listed.consumer.params, &self.topic_prefix).into_iter().map(queue);
        Ok(Asked { queues: queues.collect::<Result<_, ReadError>>()?, listed })
    }

    fn explained(&self, listed: &Listed) -> Result<ExplainedConsumer, ReadError> {
        let params = &listed.consumer.params;
        Ok(ExplainedConsumer {
            key: listed.key.clone(),
            version: params.version.clone(),
            model: params.model.to_string(),
            task: listed.consumer.task,
            seen_ms: listed.seen_ms,
            groups: self.groups_of(listed)?,
        })
    }

    /// Groups that begin with the name and belong to no key that is listed.
    fn idle_groups(&self, plugin: &str, consumers: &[ExplainedConsumer]) -> Result<Vec<String>, ReadError> {
        let prefix = format!("{}-azul-{plugin}-", self.topic_prefix);
        let listed: BTreeSet<&str> =
            consumers.iter().flat_map(|c| &c.groups).map(|group| group.name.as_str()).collect();
        let groups = self.broker.log().groups()?;
        let idle = groups.into_iter().filter(|name| name.starts_with(&prefix) && !listed.contains(name.as_str()));
        Ok(idle.take(MOST).collect())
    }

    fn explained_event(
        &self,
        dispatcher: &Dispatcher,
        consumers: &[Asked],
        event: &Event,
        place: &TopicPartition,
        offset: Offset,
    ) -> Result<ExplainedEvent, ReadError> {
        let fate = |asked: &Asked| self.fate(dispatcher, asked, event, place, offset);
        Ok(ExplainedEvent {
            topic: place.topic.clone(),
            partition: place.partition,
            offset,
            model: event.model().to_string(),
            kafka_key: event.kafka_key().to_owned(),
            author: event.author().name.clone(),
            consumers: consumers.iter().map(fate).collect::<Result<_, _>>()?,
        })
    }

    fn fate(
        &self,
        dispatcher: &Dispatcher,
        Asked { listed, queues }: &Asked,
        event: &Event,
        place: &TopicPartition,
        offset: Offset,
    ) -> Result<Fate, ReadError> {
        let params = &listed.consumer.params;
        let mut fate = Fate {
            key: listed.key.clone(),
            groups: Vec::new(),
            filters: Vec::new(),
            tasks: Vec::new(),
            waiting: Vec::new(),
            dead: dispatcher.dead().of_event(event.kafka_key(), &params.name)?,
        };
        let mut live_start = None;
        for AskedQueue { subscription, offsets, record } in queues {
            if !subscription.topics.matches(&place.topic, &self.topic_prefix) {
                continue;
            }
            let position = offsets.get(place).map(|committed| committed.offset);
            let index = usize::try_from(place.partition).unwrap_or(usize::MAX);
            // A partition that was made later began at its first offset.
            let start = record.as_ref().map(|record| {
                record.starts.get(&place.topic).and_then(|starts| starts.get(index)).copied().unwrap_or(0)
            });
            let end = if subscription.flow == Queue::Historic { live_start } else { None };
            if subscription.flow == Queue::Live {
                live_start = start;
            }
            fate.groups.push(Standing {
                subscription: subscription.flow.to_string(),
                group: subscription.group.clone(),
                position,
                state: placed(offset, start, position, end),
            });
        }
        if fate.groups.is_empty() {
            return Ok(fate);
        }
        fate.filters = dispatcher.for_consumer(params, listed.consumer.task, dispatcher.now_ms(), |consumer| {
            let filtered = |key| FilteredBy { filter: format!("{key}"), because: why(key, event, consumer) };
            verdicts(event, consumer).into_iter().map(filtered).collect()
        });
        let id = format!("{}.{}.{}.", event.kafka_key(), params.name, params.version);
        let log = self.broker.log().as_ref();
        leases::each(log, &id, |lease| {
            fate.tasks.push(lease.into());
            fate.tasks.len() < MOST_TASKS
        })?;
        let mut looked_at = 0;
        leases::each_waiting(log, &params.name, &params.version, |waiting| {
            looked_at += 1;
            if waiting.work.kafka_key == event.kafka_key() {
                fate.waiting.push(waiting.into());
            }
            fate.waiting.len() < MOST_TASKS && looked_at < MOST_WAITING
        })?;
        Ok(fate)
    }
}

/// Where an event lies for a group that began at `start`, reads `position` next and ends at `end`.
fn placed(offset: Offset, start: Option<Offset>, position: Option<Offset>, end: Option<Offset>) -> Place {
    match (start, position) {
        _ if end.is_some_and(|end| offset >= end) => Place::LeftToLive,
        // A tool may have moved the position below the start.
        (Some(start), Some(position)) if offset < start.min(position) => Place::BeforeStart,
        (_, Some(position)) if offset < position => Place::Read,
        (_, Some(_)) => Place::ToCome,
        (_, None) => Place::NotBegun,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_lies_before_the_start_behind_the_position_or_beyond_the_end() {
        let at = |offset| placed(offset, Some(3), Some(5), Some(9));
        assert_eq!(at(2), Place::BeforeStart);
        assert_eq!(at(3), Place::Read);
        assert_eq!(at(4), Place::Read);
        assert_eq!(at(5), Place::ToCome);
        assert_eq!(at(9), Place::LeftToLive);
        assert_eq!(placed(1, Some(3), Some(1), None), Place::ToCome, "moved back by a tool");
        assert_eq!(placed(1, None, None, None), Place::NotBegun);
    }
}
