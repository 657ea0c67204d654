//! The service name, liveness and readiness.

use http::StatusCode;
use warp::reply::Response;

use super::router::text;

/// Tells how far the parts of the appliance are.
pub trait Readiness: Send + Sync + 'static {
    /// Every part that must be ready before requests make sense, in the order they are shown.
    fn subsystems(&self) -> Vec<Subsystem>;
}

/// State of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsystem {
    /// Its name.
    pub name: String,
    /// True when it can be used.
    pub ready: bool,
    /// What it is doing, or what is worth knowing; may be empty.
    pub detail: String,
}

/// `GET /`.
pub(super) fn name() -> Response {
    text(StatusCode::OK, "Azul Dispatcher")
}

/// `GET /healthz`: the process answers.
pub(super) fn health() -> Response {
    text(StatusCode::OK, "ok\n")
}

/// `GET /readyz`: one line per part, 503 until all of them are ready.
pub(super) fn readiness(subsystems: &[Subsystem]) -> Response {
    let mut page = String::new();
    for part in subsystems {
        let state = if part.ready { "ready" } else { "not ready" };
        let gap = match part.detail.is_empty() {
            true => "",
            false if part.ready => ", ",
            false => ": ",
        };
        page.push_str(&format!("{}: {state}{gap}{}\n", part.name, part.detail));
    }
    let all_ready = subsystems.iter().all(|part| part.ready);
    text(if all_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &page)
}
