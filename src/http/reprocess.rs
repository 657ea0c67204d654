//! `POST`, `GET` and `DELETE /api/azulite/v1/reprocess`: a run is begun, looked at and stopped. Spec: cli.md 4.

use std::sync::Arc;

use serde::Serialize;
use warp::reply::Response;

use super::azulite::json;
use super::router::Call;
use super::topics::body;
use super::{Services, error};
use crate::admin::reprocess::Jobs;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reprocess {
    Begin,
    Look,
    Stop,
}

impl Reprocess {
    pub(super) async fn answer(self, services: &Services, call: Call) -> Response {
        let Some(jobs) = services.reprocess.clone() else { return error::no_such_page() };
        match self {
            Self::Begin => begin(jobs, services, call).await,
            Self::Look => found(jobs.progress()),
            Self::Stop => found(jobs.stop()),
        }
    }
}

fn found(progress: Option<impl Serialize>) -> Response {
    progress.map_or_else(|| error::unknown("run of", "reprocess"), |progress| json(&progress))
}

async fn begin(jobs: Arc<Jobs>, services: &Services, call: Call) -> Response {
    match body(services, call).await.map(|request| jobs.begin(request)) {
        Ok(Ok(progress)) => json(&progress),
        Ok(Err(problem)) => error::reprocess(&problem),
        Err(refusal) => refusal,
    }
}
