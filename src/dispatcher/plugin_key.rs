//! Plugin keys: which requests share read positions, under which group names, and what each group reads.
//!
//! Contract events.md 5.1 and 5.2. A reader asks [`subscriptions`] once per plugin key and keeps the result; new
//! topics are offered to [`TopicSelector::matches`] as they appear.

use std::fmt;

use super::model::Model;
use super::params::GetParams;
use super::topic::{Action, TopicRef, error_topic, expedite_topic, system_topic};

/// The identity of a reader: two GETs with an equal key share their read positions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginKey(String);

impl PluginKey {
    /// The key of a request; its bytes come from the client and are not restricted, its length is (see `params`).
    pub fn of(params: &GetParams) -> PluginKey {
        let mut key = plugin_prefix(params);
        if params.model == Model::Binary {
            push_joined(&mut key, params.sources.iter().map(String::as_str), "allsrc");
            push_joined(&mut key, params.actions.iter().map(|action| action.as_str()), "alltype");
        }
        key.push('-');
        let expedite = params.expedite && params.model == Model::Binary;
        let flow = [(expedite, 'E'), (params.live, 'L'), (params.historic, 'H'), (params.debug, 'D')];
        key.extend(flow.into_iter().filter_map(|(on, letter)| on.then_some(letter)));
        PluginKey(key)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the consumer group of one flow of this key.
    pub fn group(&self, topic_prefix: &str, flow: Flow) -> String {
        format!("{topic_prefix}-azul-{self}-{flow}")
    }
}

impl fmt::Display for PluginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `<name>-<version>-<model>`: what the groups of one consumer begin with, kept under its deployment key.
pub fn plugin_prefix(params: &GetParams) -> String {
    format!("{}-{}-{}", params.name, params.version, params.model.as_str())
}

fn push_joined<'a>(key: &mut String, parts: impl Iterator<Item = &'a str>, none: &str) {
    let mut separator = '-';
    for part in parts {
        key.push(separator);
        key.push_str(part);
        separator = '.';
    }
    if separator == '-' {
        key.push('-');
        key.push_str(none);
    }
}

/// One of the queues behind a plugin key, in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flow {
    /// Expedited binaries.
    Expedite,
    /// Binaries that clients have flagged as tried before. A plugin key has no letter for it, and clients know nothing of
    /// it: every consumer of binaries has it. Events that wait for another run come with it, before those of its topic.
    Error,
    /// What was appended since the first request.
    Live,
    /// Everything from the beginning.
    Historic,
}

impl Flow {
    /// Its name in group names and in `consumers_not_ready`.
    pub fn as_str(self) -> &'static str {
        match self {
            Flow::Expedite => "expedite",
            Flow::Error => "error",
            Flow::Live => "live",
            Flow::Historic => "historic",
        }
    }

    /// Where a new group of this flow starts.
    pub fn start(self) -> Start {
        match self {
            Flow::Expedite | Flow::Error | Flow::Live => Start::Latest,
            Flow::Historic => Start::Earliest,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a group starts that has no position yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the log start offset.
    Earliest,
    /// At the high watermark.
    Latest,
}

/// One group inside a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which queue it is.
    pub flow: Flow,
    /// Name of its group.
    pub group: String,
    /// Where it starts when the group is new.
    pub start: Start,
    /// What it reads.
    pub topics: TopicSelector,
}

/// The topics that one subscription reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicSelector {
    /// Exactly this topic (full name).
    One(String),
    /// Topics `<source>.binary.<action>`.
    Binaries {
        /// Source names, taken literally; empty means every source.
        sources: Vec<String>,
        /// Actions; empty means every action.
        actions: Vec<Action>,
    },
}

impl TopicSelector {
    /// Whether the topic `topic` (full name) of the prefix belongs to the subscription.
    pub fn matches(&self, topic: &str, topic_prefix: &str) -> bool {
        match self {
            TopicSelector::One(name) => name == topic,
            TopicSelector::Binaries { sources, actions } => match TopicRef::parse(topic_prefix, topic) {
                Some(TopicRef::Binary { source, action }) => {
                    (sources.is_empty() || sources.iter().any(|wanted| wanted == source))
                        && (actions.is_empty() || actions.contains(&action))
                }
                Some(TopicRef::System { .. }) | None => false,
            },
        }
    }
}

/// The subscriptions of a request in order of precedence: 1 to 4, the first that has an event gives the next one.
pub fn subscriptions(params: &GetParams, topic_prefix: &str) -> Vec<Subscription> {
    let key = PluginKey::of(params);
    let binary = params.model == Model::Binary;
    let flows = [
        (params.expedite && binary, Flow::Expedite),
        (binary, Flow::Error),
        (params.live, Flow::Live),
        (params.historic, Flow::Historic),
    ];
    let topics = |flow| match flow {
        Flow::Expedite => TopicSelector::One(expedite_topic(topic_prefix)),
        Flow::Error => TopicSelector::One(error_topic(topic_prefix)),
        Flow::Live | Flow::Historic if binary => {
            TopicSelector::Binaries { sources: params.sources.clone(), actions: params.actions.clone() }
        }
        Flow::Live | Flow::Historic => TopicSelector::One(system_topic(topic_prefix, params.model.as_str())),
    };
    let subscription = |flow: Flow| Subscription {
        flow,
        group: key.group(topic_prefix, flow),
        start: flow.start(),
        topics: topics(flow),
    };
    flows.into_iter().filter(|(on, _)| *on).map(|(_, flow)| subscription(flow)).collect()
}

/// Names of the flows that cannot be read yet, as `consumers_not_ready` lists them.
pub fn join_flows(flows: &[Flow]) -> String {
    let mut text = String::new();
    for flow in flows {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(flow.as_str());
    }
    text
}

#[cfg(test)]
mod tests;
