//! Who reads events and how far behind they are: registered consumers, deployments, backlog per group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Admin, GroupSummary};
use crate::broker::ReadError;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::plugin_key::{plugin_prefix, subscriptions};
use crate::dispatcher::registry::Listed;

/// Groups that [`Admin::backlog`] lists at most.
const MOST_GROUPS: usize = crate::metrics::MAX_SERIES;

/// The consumers that asked for events in the last day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerList {
    /// In order of key.
    pub consumers: Vec<ConsumerView>,
}

/// One consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerView {
    /// Its plugin key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The model it reads.
    pub model: String,
    /// Whether it takes tasks.
    pub task: bool,
    /// Its deployment; empty for none.
    pub deployment_key: String,
    /// What it called itself.
    pub user_agent: String,
    /// When it asked last, milliseconds since 1970.
    pub seen_ms: i64,
    /// Events it has before it, over all groups.
    pub backlog: i64,
    /// Its groups, in order of precedence.
    pub groups: Vec<GroupSummary>,
}

/// The deployments that asked for events in the last day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentList {
    /// In order of key.
    pub deployments: Vec<DeploymentView>,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentView {
    /// Its key.
    pub key: String,
    /// What the plugin keys of its consumer begin with: `<name>-<version>-<model>`.
    pub kafka_prefix: String,
    /// When it was seen last, milliseconds since 1970.
    pub seen_ms: i64,
    /// Events it has before it, over all groups.
    pub backlog: i64,
    /// The groups of consumers with that prefix.
    pub groups: Vec<GroupSummary>,
}

impl Admin {
    /// With the dispatcher that serves, for what only it knows.
    #[must_use]
    pub fn with_dispatcher(self, dispatcher: Arc<Dispatcher>) -> Self {
        Self { dispatcher: Some(dispatcher), ..self }
    }

    /// The dispatcher, where one runs.
    #[must_use]
    pub fn dispatcher(&self) -> Option<&Arc<Dispatcher>> {
        self.dispatcher.as_ref()
    }

    /// Every consumer of the last day with its groups.
    ///
    /// # Errors
    /// The index failed.
    pub fn consumers(&self) -> Result<ConsumerList, ReadError> {
        let view = |listed: Listed| {
            let groups = self.groups_of(&listed)?;
            let backlog = groups.iter().map(|group| group.lag).sum();
            let Listed { key, seen_ms, consumer } = listed;
            let params = &consumer.params;
            Ok(ConsumerView {
                key,
                name: params.name.clone(),
                version: params.version.clone(),
                model: params.model.to_string(),
                task: consumer.task,
                deployment_key: params.deployment_key.clone(),
                user_agent: consumer.user_agent.clone(),
                seen_ms,
                backlog,
                groups,
            })
        };
        Ok(ConsumerList { consumers: self.registered().into_iter().map(view).collect::<Result<_, ReadError>>()? })
    }

    /// Every deployment of the last day with the groups behind it.
    ///
    /// # Errors
    /// The index failed.
    pub fn deployments(&self) -> Result<DeploymentList, ReadError> {
        let Some(dispatcher) = &self.dispatcher else { return Ok(DeploymentList { deployments: Vec::new() }) };
        let mut by_prefix: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
        for listed in self.registered() {
            by_prefix.entry(plugin_prefix(&listed.consumer.params)).or_default().push(listed);
        }
        let mut deployments = Vec::new();
        for deployment in dispatcher.registry().deployments(dispatcher.now_ms()) {
            let mut groups = Vec::new();
            for listed in by_prefix.get(&deployment.kafka_prefix).into_iter().flatten() {
                groups.extend(self.groups_of(listed)?);
            }
            deployments.push(DeploymentView {
                key: deployment.key,
                kafka_prefix: deployment.kafka_prefix,
                seen_ms: deployment.seen_ms,
                backlog: groups.iter().map(|group| group.lag).sum(),
                groups,
            });
        }
        Ok(DeploymentList { deployments })
    }

    /// Backlog of every group of a registered consumer, the first [`MOST_GROUPS`] in order of name.
    ///
    /// # Errors
    /// The index failed.
    pub fn backlog(&self) -> Result<Vec<GroupSummary>, ReadError> {
        let registered = self.registered();
        let names: BTreeSet<String> = registered.iter().flat_map(|listed| self.group_names(listed)).collect();
        names.into_iter().take(MOST_GROUPS).map(|name| self.group_summary(name)).collect()
    }

    pub(super) fn registered(&self) -> Vec<Listed> {
        self.dispatcher.as_ref().map_or_else(Vec::new, |d| d.registry().consumers(d.now_ms()))
    }

    fn group_names(&self, listed: &Listed) -> Vec<String> {
        let subscriptions = subscriptions(&listed.consumer.params, &self.topic_prefix);
        subscriptions.into_iter().map(|subscription| subscription.group).collect()
    }

    pub(super) fn groups_of(&self, listed: &Listed) -> Result<Vec<GroupSummary>, ReadError> {
        self.group_names(listed).into_iter().map(|name| self.group_summary(name)).collect()
    }

    pub(super) fn group_summary(&self, name: String) -> Result<GroupSummary, ReadError> {
        let positions = self.broker.group_lag(&name)?;
        let lag = positions.values().filter_map(|position| position.lag).sum();
        Ok(GroupSummary { name, partitions: positions.len(), lag })
    }
}
