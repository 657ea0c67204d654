//! The event routes: publish, fetch and simulate. Spec: events.md 1.3 to 1.8.

use std::convert::Infallible;
use std::time::Instant;

use http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::body::BodyLimits;
use super::router::{Call, pieces_of, reply, reply_in_pieces};
use super::server::Delivery;
use super::url::{first, parse_query};
use super::{Services, error};
use crate::dispatcher::hub::{GetAnswer, GetRequest, PostError, PostRequest, SimulateRequest};

/// `POST /api/v2/event`.
pub(super) async fn post(services: &Services, call: Call) -> Response {
    let query = match parse_query(&call.query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let user_agent = call.user_agent();
    services.hub.begin_post(&query).await;
    let started = Instant::now();
    let body = match call.body.collect(limits(services), &call.budget).await {
        Ok(body) => body,
        Err(problem) => return error::event_body(&problem),
    };
    services.metrics.produce_duration.observe(["buffer"], started.elapsed());
    let request = PostRequest { query, body: body.bytes.clone(), user_agent };
    // The room for the body is given back when nobody needs the body any more, and not when the client has gone.
    let hub = services.hub.clone();
    let posting = tokio::spawn(async move {
        let posted = hub.post(request).await;
        drop(body);
        posted
    });
    match posting.await {
        Ok(Ok(answer)) => reply(StatusCode::OK, "application/json", answer.body),
        Ok(Err(problem)) => error::post(&problem),
        Err(_) => error::post(&PostError::Stopping),
    }
}

fn limits(services: &Services) -> BodyLimits {
    BodyLimits {
        bytes: Some(services.limits.event_body_bytes),
        pause: services.limits.body_timeout,
        min_rate: services.limits.body_min_rate,
    }
}

/// `POST /api/v2/event/simulate`; `extended=true` lists every filter.
pub(super) async fn simulate(services: &Services, call: Call) -> Response {
    let query = match parse_query(&call.query) {
        Ok(query) => query,
        Err(bad) => return error::bad_query(&bad),
    };
    let extended = match first(&query, "extended") {
        None | Some("" | "false" | "0") => false,
        Some("true" | "1") => true,
        Some(other) => {
            let other: String = other.chars().take(80).collect();
            return error::bad_parameter(&format!("extended = {other:?}: allowed is true, 1, false or 0"));
        }
    };
    let body = match call.body.collect(limits(services), &call.budget).await {
        Ok(body) => body,
        Err(problem) => return error::event_body(&problem),
    };
    match services.hub.simulate(SimulateRequest { body: body.bytes.clone(), extended }).await {
        Ok(answer) => reply(StatusCode::OK, "application/json", answer),
        Err(problem) => error::simulate(&problem),
    }
}

/// `GET /api/v2/event/:model/passive` and `active`.
pub(super) async fn get(services: &Services, call: Call, model: String, task: bool) -> Response {
    let query = match parse_query(&call.query) {
        Ok(query) => query,
        Err(bad) => return error::bad_fetch_query(&bad),
    };
    let user_agent = call.user_agent();
    match services.hub.get(GetRequest { model, task, query, user_agent, in_process: false }).await {
        Ok(answer) => fetched(answer),
        Err(problem) => error::get(&problem),
    }
}

fn fetched(answer: GetAnswer) -> Response {
    let length = answer.body.iter().map(|piece| u64::try_from(piece.len()).unwrap_or(u64::MAX)).sum();
    let content_type = match HeaderValue::try_from(answer.content_type) {
        Ok(content_type) => content_type,
        Err(bad) => return error::internal("bad content type", &bad.to_string()),
    };
    let mut response = reply_in_pieces::<_, Infallible>(StatusCode::OK, content_type, length, pieces_of(answer.body));
    if let Some(guard) = answer.delivery {
        response.extensions_mut().insert(Delivery::new(guard));
    }
    response
}
