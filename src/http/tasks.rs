//! `/api/azulite/v1/tasks`: open tasks, and their end by hand. Spec: events.md 7.3, cli.md 4.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use warp::reply::Response;

use super::azulite::{LINES, flow, json, lines};
use super::router::{Call, reply};
use super::url::{first, parse_query};
use super::{Services, error};
use crate::admin::{Admin, write_line};
use crate::dispatcher::tasks::Ends;

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

/// Ends those tasks as if they were lost; says how many.
pub(super) async fn release(services: &Services, call: Call) -> Response {
    let Some(dispatcher) = services.admin.as_ref().and_then(|admin| admin.dispatcher()) else {
        return error::no_such_page();
    };
    let query = match parse_query(&call.query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let ends = Ends { silent_since_ms: None, name: first(&query, "plugin").map(str::to_owned) };
    match dispatcher.look_for_lost_tasks(&ends, dispatcher.now_ms()).await {
        Ok(looked) => json(&looked),
        Err(problem) => error::internal("the tasks cannot be ended", &problem),
    }
}
