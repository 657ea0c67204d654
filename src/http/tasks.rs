//! `/api/azulite/v1/tasks`: open tasks, and their end by hand. Spec: events.md 7.3, cli.md 4.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use warp::reply::Response;

use super::azulite::{LINES, flow, json, lines};
use super::router::{Call, reply};
use super::topics::body;
use super::url::{first, parse_query};
use super::{Services, error};
use crate::admin::{Admin, write_line};
use crate::dispatcher::leases::Ends;

/// The tasks of the consumer that `plugin` names, or of all, one a line.
pub(super) async fn list(admin: Arc<Admin>, query: &str) -> Response {
    let query = match parse_query(query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let plugin = first(&query, "plugin").map(str::to_owned);
    let scan = move |out: &mut super::azulite::Lines| {
        let mut sent = Ok(());
        let read = admin.open_tasks(plugin.as_deref(), &mut |task| flow(write_line(out, &task), &mut sent));
        read.map_err(io::Error::other).and(sent)
    };
    match lines(scan).await {
        Ok(Some(response)) => response,
        Ok(None) => reply(StatusCode::OK, LINES, Bytes::new()),
        Err(refusal) => refusal,
    }
}

/// What is given back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    /// Ids of tasks.
    dequeued: Vec<String>,
}

/// Gives tasks back without an attempt counted: `{"dequeued": [..]}`. Says how many there were, and how many were not open.
pub(super) async fn give_back(services: &Services, call: Call) -> Response {
    let Some(dispatcher) = services.admin.as_ref().and_then(|admin| admin.dispatcher()).cloned() else {
        return error::no_such_page();
    };
    let release: Release = match body(services, call).await {
        Ok(release) => release,
        Err(refusal) => return refusal,
    };
    let work = move || {
        let ids: Vec<&str> = release.dequeued.iter().map(String::as_str).collect();
        dispatcher.release(&ids)
    };
    let failed = |problem: String| error::internal("the tasks cannot be given back", &problem);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(released)) => json(&released),
        Ok(Err(problem)) => failed(problem.to_string()),
        Err(stopped) => failed(stopped.to_string()),
    }
}

/// Ends those tasks as if they were lost; says how many.
pub(super) async fn release(services: &Services, call: Call) -> Response {
    let Some(dispatcher) = services.admin.as_ref().and_then(|admin| admin.dispatcher()).cloned() else {
        return error::no_such_page();
    };
    let query = match parse_query(&call.query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let ends = Ends { by_ms: None, name: first(&query, "plugin").map(str::to_owned) };
    // A task of its own: a look that is broken off has not seen when the other leases end, and what follows from a commit
    // follows whether the client waits or not.
    let look = tokio::spawn(async move { dispatcher.look_for_lost_tasks(&ends, dispatcher.now_ms()).await });
    match look.await.unwrap_or_else(|stopped| Err(stopped.to_string())) {
        Ok(looked) => json(&looked),
        Err(problem) => error::internal("the tasks cannot be ended", &problem),
    }
}
