//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, ListConfigResources.

use super::topics::{Failure, append_code, topic_failure};
use super::{Api, keep_first, message, text};
use crate::broker::topic_config::{self, AlterOp, ConfigError, Described};
use crate::broker::{AlterConfigError, Alteration};
use crate::kafka::codec::Str;
use crate::kafka::codec::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse,
};
use crate::kafka::codec::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::kafka::codec::messages::incremental_alter_configs::{
    self as incremental, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use crate::kafka::codec::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};
use crate::kafka::error::ErrorCode;

/// What a configuration belongs to, as the wire has it.
mod resource {
    pub(super) const TOPIC: i8 = 2;
    pub(super) const BROKER: i8 = 4;
    pub(super) const BROKER_LOGGER: i8 = 8;
    pub(super) const CLIENT_METRICS: i8 = 16;
    pub(super) const GROUP: i8 = 32;
}

fn config_failure(error: &ConfigError) -> Failure {
    let code = if error.is_request() { ErrorCode::InvalidRequest } else { ErrorCode::InvalidConfig };
    (code, error.to_string())
}

fn alter_failure(error: &AlterConfigError) -> Failure {
    match error {
        AlterConfigError::Config(error) => config_failure(error),
        AlterConfigError::Topic(error) => topic_failure(error),
        AlterConfigError::Append(error) => (append_code(error), error.to_string()),
    }
}

fn unknown_kind(kind: i8) -> Failure {
    (ErrorCode::InvalidRequest, format!("resource type {kind} is not one of 2, 4, 8, 16, 32"))
}

impl Api {
    /// `kafka.md` 3.7.
    pub(super) async fn describe_configs(&self, mut request: DescribeConfigsRequest) -> DescribeConfigsResponse {
        keep_first(&mut request.resources, |resource| (resource.resource_type, resource.resource_name.clone()));
        let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
        let describe = |resource: DescribeConfigsResource| {
            let DescribeConfigsResource { resource_type, resource_name, configuration_keys } = resource;
            let keys = configuration_keys.unwrap_or_default();
            let wanted = |described: &Described| keys.is_empty() || keys.iter().any(|key| *key == described.name);
            let described = self.described_configs(resource_type, &resource_name);
            let (error_code, error_message, configs) = match described {
                Ok(described) => {
                    let shown = described.into_iter().filter(wanted).map(|d| shown(d, synonyms, documentation));
                    (ErrorCode::None, None, shown.collect())
                }
                Err((code, said)) => (code, message(said), Vec::new()),
            };
            DescribeConfigsResult { error_code, error_message, resource_type, resource_name, configs }
        };
        let mut results = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            results.push(describe(resource));
            // Some ask for all topics at once, and others are waiting.
            tokio::task::coop::consume_budget().await;
        }
        DescribeConfigsResponse { results, ..Default::default() }
    }

    fn described_configs(&self, kind: i8, name: &Str) -> Result<Vec<Described>, Failure> {
        match kind {
            resource::TOPIC => match self.broker.log().topic(name) {
                Some(topic) => Ok(self.broker.describe_topic_config(&topic)),
                None => Err((ErrorCode::UnknownTopicOrPartition, format!("there is no topic {name:?}"))),
            },
            resource::BROKER => self.is_this_node(name).map(|()| self.broker.broker_config().describe()),
            resource::BROKER_LOGGER => self.is_this_node(name).map(|()| Vec::new()),
            resource::CLIENT_METRICS | resource::GROUP => Ok(Vec::new()),
            kind => Err(unknown_kind(kind)),
        }
    }

    /// Empty stands for all brokers there are.
    fn is_this_node(&self, name: &Str) -> Result<(), Failure> {
        let node = self.options.node_id;
        match name.is_empty() || *name == *node.to_string() {
            true => Ok(()),
            false => Err((ErrorCode::InvalidRequest, format!("broker {name:?} is unknown: this is broker {node}"))),
        }
    }

    /// `kafka.md` 3.7: the legacy call replaces.
    pub(super) async fn alter_configs(&self, request: AlterConfigsRequest) -> AlterConfigsResponse {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let pairs =
                resource.configs.iter().map(|c| (c.name.to_string(), c.value.as_ref().map(ToString::to_string)));
            let outcome = match topic_config::listed(pairs) {
                Ok(config) => {
                    let alteration = Alteration::Replace(config);
                    self.alter(resource.resource_type, &resource.resource_name, alteration, request.validate_only).await
                }
                Err(error) => Err(config_failure(&error)),
            };
            let (error_code, error_message) = said(outcome);
            responses.push(AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
            });
        }
        AlterConfigsResponse { responses, ..Default::default() }
    }

    /// `kafka.md` 3.7.
    pub(super) async fn incremental_alter_configs(
        &self,
        request: IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in request.resources {
            let outcome = match resource.configs.iter().map(step).collect::<Result<Vec<_>, _>>() {
                Ok(steps) => {
                    let alteration = Alteration::Steps(steps);
                    self.alter(resource.resource_type, &resource.resource_name, alteration, request.validate_only).await
                }
                Err(failure) => Err(failure),
            };
            let (error_code, error_message) = said(outcome);
            responses.push(incremental::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
            });
        }
        IncrementalAlterConfigsResponse { responses, ..Default::default() }
    }

    async fn alter(&self, kind: i8, name: &Str, alteration: Alteration, validate_only: bool) -> Result<(), Failure> {
        match kind {
            resource::TOPIC => {
                let name = name.to_string();
                let altered = self.blocking(move |b| b.alter_topic_config(&name, alteration, validate_only)).await?;
                altered.map_err(|error| alter_failure(&error))
            }
            resource::BROKER => {
                self.is_this_node(name)?;
                let altered = self.blocking(move |b| b.alter_broker_config(alteration, validate_only)).await?;
                altered.map_err(|error| alter_failure(&error))
            }
            resource::BROKER_LOGGER | resource::CLIENT_METRICS | resource::GROUP => Err((
                ErrorCode::InvalidRequest,
                format!("resources of type {kind} have nothing that can be changed here"),
            )),
            kind => Err(unknown_kind(kind)),
        }
    }

    /// What has configuration: topics and the broker. Version 0 asks for client metrics alone, and there are none.
    pub(super) fn list_config_resources(
        &self,
        request: &ListConfigResourcesRequest,
        version: i16,
    ) -> ListConfigResourcesResponse {
        let asked =
            |kind: i8| version > 0 && (request.resource_types.is_empty() || request.resource_types.contains(&kind));
        let mut config_resources = Vec::new();
        if asked(resource::TOPIC) {
            let topics = self.broker.log().topics();
            let topic = |name: &str| ConfigResource { resource_name: text(name), resource_type: resource::TOPIC };
            config_resources.extend(topics.iter().map(|t| topic(&t.name)));
        }
        if asked(resource::BROKER) {
            let resource_name = self.options.node_id.to_string().into();
            config_resources.push(ConfigResource { resource_name, resource_type: resource::BROKER });
        }
        ListConfigResourcesResponse { config_resources, ..Default::default() }
    }
}

fn said(outcome: Result<(), Failure>) -> (ErrorCode, Option<Str>) {
    match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err((code, said)) => (code, message(said)),
    }
}

fn step(config: &incremental::AlterableConfig) -> Result<(String, AlterOp), Failure> {
    let name = config.name.to_string();
    let value = || {
        let null = || config_failure(&ConfigError::Null { name: name.clone() });
        config.value.as_ref().map(ToString::to_string).ok_or_else(null)
    };
    let op = match config.config_operation {
        0 => AlterOp::Set(value()?),
        1 => AlterOp::Delete,
        2 => AlterOp::Append(value()?),
        3 => AlterOp::Subtract(value()?),
        other => return Err((ErrorCode::InvalidRequest, format!("operation {other} on {name} is not one of 0 to 3"))),
    };
    Ok((name, op))
}

fn shown(described: Described, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let synonym = |s: topic_config::Synonym| DescribeConfigsSynonym {
        name: s.name.into(),
        value: Some(s.value.into()),
        source: s.source.code(),
    };
    DescribeConfigsResourceResult {
        name: described.name.into(),
        value: Some(described.value.into()),
        read_only: described.read_only,
        config_source: described.source.code(),
        is_sensitive: false,
        synonyms: if synonyms { described.synonyms.into_iter().map(synonym).collect() } else { Vec::new() },
        config_type: described.kind.code(),
        documentation: documentation.then(|| described.about.into()),
    }
}
