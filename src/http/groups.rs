//! `POST .../reset` and `DELETE` below `/api/azulite/v1/groups`: changes of groups. Spec: cli.md 4.

use std::sync::Arc;

use serde::Serialize;
use warp::reply::Response;

use super::azulite::json;
use super::router::Call;
use super::topics::body;
use super::{Services, error};
use crate::admin::{Admin, GroupRefusal, ResetGroup};

/// A change that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Reset { name: String },
    Delete { name: String },
}

impl Change {
    /// The path as metrics name it.
    pub(super) fn template(&self) -> &'static str {
        match self {
            Self::Reset { .. } => "/api/azulite/v1/groups/:name/reset",
            Self::Delete { .. } => "/api/azulite/v1/groups/:name",
        }
    }

    pub(super) async fn answer(self, services: &Services, call: Call) -> Response {
        let Some(admin) = services.admin.clone() else { return error::no_such_page() };
        match self {
            Self::Delete { name } => change(admin, move |admin| admin.delete_group(&name)).await,
            Self::Reset { name } => match body::<ResetGroup>(services, call).await {
                Ok(reset) => change(admin, move |admin| admin.reset_group(&name, &reset)).await,
                Err(refusal) => refusal,
            },
        }
    }
}

async fn change<T: Serialize + Send + 'static>(
    admin: Arc<Admin>,
    make: impl FnOnce(&Admin) -> Result<T, GroupRefusal> + Send + 'static,
) -> Response {
    let made = tokio::task::spawn_blocking(move || make(&admin)).await;
    match made.unwrap_or_else(|stopped| Err(GroupRefusal::Failed(stopped.to_string()))) {
        Ok(made) => json(&made),
        Err(refusal) => error::group(&refusal),
    }
}
