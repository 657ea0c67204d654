//! `POST`, `GET` and `DELETE /api/azulite/v1/reprocess`: a run is begun, looked at and stopped. Spec: cli.md 4.

use std::sync::Arc;

use serde::Serialize;
use warp::reply::Response;

use super::azulite::json;
use super::body::BodyLimits;
use super::router::Call;
use super::{Services, error};
use crate::admin::reprocess::Jobs;

/// Largest body of a request.
const BODY_BYTES: u64 = 1 << 20;

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
    let limits = BodyLimits {
        bytes: Some(BODY_BYTES),
        pause: services.limits.body_timeout,
        min_rate: services.limits.body_min_rate,
    };
    let body = match call.body.collect(limits, &call.budget).await {
        Ok(body) => body,
        Err(problem) => return error::event_body(&problem),
    };
    match serde_json::from_slice(&body.bytes).map(|request| jobs.begin(request)) {
        Ok(Ok(progress)) => json(&progress),
        Ok(Err(problem)) => error::reprocess(&problem),
        Err(problem) => error::bad_json(&problem),
    }
}
