//! `POST`, `GET` and `DELETE` of `/api/azulite/v1/reprocess` and `.../reidentify`: a run is begun, looked at and stopped.
//! Spec: cli.md 4.

use http::Method;
use serde::Serialize;
use warp::reply::Response;

use super::azulite::json;
use super::router::Call;
use super::topics::body;
use super::{Services, error};

/// What takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reprocess,
    Reidentify,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Begin,
    Look,
    Stop,
}

/// A request about long work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    kind: Kind,
    verb: Verb,
}

impl Job {
    pub(super) fn find(method: &Method, name: &str) -> Option<Self> {
        let kind = match name {
            "reprocess" => Kind::Reprocess,
            "reidentify" => Kind::Reidentify,
            _ => return None,
        };
        let verb = match *method {
            Method::POST => Verb::Begin,
            Method::GET => Verb::Look,
            Method::DELETE => Verb::Stop,
            _ => return None,
        };
        Some(Self { kind, verb })
    }

    pub(super) fn template(self) -> &'static str {
        match self.kind {
            Kind::Reprocess => "/api/azulite/v1/reprocess",
            Kind::Reidentify => "/api/azulite/v1/reidentify",
        }
    }

    pub(super) async fn answer(self, services: &Services, call: Call) -> Response {
        match self.kind {
            Kind::Reprocess => self.reprocess(services, call).await,
            Kind::Reidentify => self.reidentify(services, call).await,
        }
    }

    async fn reprocess(self, services: &Services, call: Call) -> Response {
        let Some(jobs) = services.reprocess.clone() else { return error::no_such_page() };
        match self.verb {
            Verb::Begin => match body(services, call).await.map(|request| jobs.begin(request)) {
                Ok(Ok(progress)) => json(&progress),
                Ok(Err(problem)) => error::reprocess(&problem),
                Err(refusal) => refusal,
            },
            Verb::Look => found("reprocess", jobs.progress()),
            Verb::Stop => found("reprocess", jobs.stop()),
        }
    }

    async fn reidentify(self, services: &Services, call: Call) -> Response {
        let Some(jobs) = services.reidentify.clone() else { return error::no_such_page() };
        match self.verb {
            Verb::Begin => {
                let request = match body(services, call).await {
                    Ok(request) => request,
                    Err(refusal) => return refusal,
                };
                // That it is wanted becomes durable first.
                match tokio::task::spawn_blocking(move || jobs.begin(request)).await {
                    Ok(Ok(progress)) => json(&progress),
                    Ok(Err(problem)) => error::reidentify(&problem),
                    Err(stopped) => error::internal("identifying anew did not begin", &stopped.to_string()),
                }
            }
            Verb::Look => found("reidentify", jobs.progress()),
            Verb::Stop => found("reidentify", jobs.stop()),
        }
    }
}

fn found(name: &str, progress: Option<impl Serialize>) -> Response {
    progress.map_or_else(|| error::unknown("run of", name), |progress| json(&progress))
}
