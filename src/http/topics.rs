//! `POST`, `PATCH` and `DELETE` below `/api/azulite/v1/topics`: changes of topics. Spec: cli.md 4.

use std::sync::Arc;

use http::StatusCode;
use serde::de::DeserializeOwned;
use warp::reply::Response;

use super::body::BodyLimits;
use super::router::{Call, reply};
use super::{Services, error};
use crate::admin::{Admin, TopicDetail, TopicRefusal};

/// Largest body of a change.
const BODY_BYTES: u64 = 1 << 20;

/// A change that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Create,
    Alter { name: String },
    Delete { name: String },
}

impl Change {
    /// The path as metrics name it.
    pub(super) fn template(&self) -> &'static str {
        match self {
            Self::Create => "/api/azulite/v1/topics",
            Self::Alter { .. } | Self::Delete { .. } => "/api/azulite/v1/topics/:name",
        }
    }

    pub(super) async fn answer(self, services: &Services, call: Call) -> Response {
        let Some(admin) = services.admin.clone() else { return error::no_such_page() };
        let outcome = match self {
            Self::Delete { name } => change(admin, move |admin| admin.delete_topic(&name)).await,
            Self::Create => match body(services, call).await {
                Ok(new) => change(admin, move |admin| admin.create_topic(new)).await,
                Err(refusal) => return refusal,
            },
            Self::Alter { name } => match body(services, call).await {
                Ok(altered) => change(admin, move |admin| admin.alter_topic(&name, altered)).await,
                Err(refusal) => return refusal,
            },
        };
        match outcome.map(|topic| serde_json::to_vec(&topic)) {
            Ok(Ok(topic)) => reply(StatusCode::OK, "application/json", topic),
            Ok(Err(problem)) => error::internal("Marshalling Failed", &problem.to_string()),
            Err(refusal) => error::topic(&refusal),
        }
    }
}

async fn change(
    admin: Arc<Admin>,
    make: impl FnOnce(&Admin) -> Result<TopicDetail, TopicRefusal> + Send + 'static,
) -> Result<TopicDetail, TopicRefusal> {
    let made = tokio::task::spawn_blocking(move || make(&admin)).await;
    made.unwrap_or_else(|stopped| Err(TopicRefusal::Failed(stopped.to_string())))
}

/// The body of a change.
pub(super) async fn body<T: DeserializeOwned>(services: &Services, call: Call) -> Result<T, Response> {
    let limits = BodyLimits {
        bytes: Some(BODY_BYTES),
        pause: services.limits.body_timeout,
        min_rate: services.limits.body_min_rate,
    };
    let body = call.body.collect(limits, &call.budget).await.map_err(|problem| error::event_body(&problem))?;
    serde_json::from_slice(&body.bytes).map_err(|problem| error::bad_json(&problem))
}
