//! `/api/azulite/v1/dead` and `.../retry`: dead letters, and what is done with them. Spec: workers.md 5.4, cli.md 4.
//!
//! | request                      | body                                                 | answer                       |
//! |------------------------------|------------------------------------------------------|------------------------------|
//! | `GET .../dead`               | query: consumer, status, since, source, sha256, after, limit | counts, letters, next |
//! | `GET .../dead/:id`           |                                                      | the letter, its file         |
//! | `DELETE .../dead/:id`        |                                                      | what was removed             |
//! | `POST .../dead/requeue`      | ids, or filter with after and limit, or letters; dry_run, expedite | what was put back |
//! | `POST .../dead/purge`        | ids, or before_ms                                    | what was removed             |
//! | `POST .../dead/bury`         | consumer, version; dry_run                           | what was made a dead letter  |
//! | `POST .../dead/import`       | the text of one letter; query: dry_run               | whether it was taken         |
//! | `POST .../retry/:sha256`     | query: plugin                                        | what was put back            |

use std::sync::Arc;

use azulite_storage::ids::Sha256;
use bytes::Bytes;
use http::Method;
use serde::Serialize;
use warp::reply::Response;

use super::azulite::json;
use super::body::BodyLimits;
use super::router::Call;
use super::url::{first, parse_query};
use super::{Services, error};
use crate::admin::dead::{DeadError, MOST, PurgeRequest, RequeueRequest, checked_id};
use crate::admin::{Admin, BuryRequest};
use crate::dispatcher::dead::{After, Filter, TEXT_LIMIT};
use crate::dispatcher::model::Timestamp;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dead {
    List,
    One { id: String },
    Remove { id: String },
    Requeue,
    Purge,
    Bury,
    Import,
    Retry { sha256: String },
}

impl Dead {
    /// From the method and the decoded segments behind `/api/azulite/v1`.
    pub(super) fn find(method: &Method, segments: &[&str]) -> Option<Self> {
        let text = |text: &str| text.to_owned();
        Some(match (method.as_str(), segments) {
            ("GET", ["dead"]) => Self::List,
            ("POST", ["dead", "requeue"]) => Self::Requeue,
            ("POST", ["dead", "purge"]) => Self::Purge,
            ("POST", ["dead", "bury"]) => Self::Bury,
            ("POST", ["dead", "import"]) => Self::Import,
            ("GET", ["dead", id]) if !id.is_empty() => Self::One { id: text(id) },
            ("DELETE", ["dead", id]) if !id.is_empty() => Self::Remove { id: text(id) },
            ("POST", ["retry", sha256]) if !sha256.is_empty() => Self::Retry { sha256: text(sha256) },
            _ => return None,
        })
    }

    /// The path as metrics name it.
    pub(super) fn template(&self) -> &'static str {
        match self {
            Self::List => "/api/azulite/v1/dead",
            Self::One { .. } | Self::Remove { .. } => "/api/azulite/v1/dead/:id",
            Self::Requeue => "/api/azulite/v1/dead/requeue",
            Self::Purge => "/api/azulite/v1/dead/purge",
            Self::Bury => "/api/azulite/v1/dead/bury",
            Self::Import => "/api/azulite/v1/dead/import",
            Self::Retry { .. } => "/api/azulite/v1/retry/:sha256",
        }
    }

    pub(super) async fn answer(self, services: &Services, call: Call) -> Response {
        let Some(admin) = services.admin.clone().filter(|admin| admin.dispatcher().is_some()) else {
            return error::no_such_page();
        };
        let by = match call.peer {
            Some(peer) => format!("HTTP from {peer}"),
            None => "HTTP".to_owned(),
        };
        let query = match parse_query(&call.query) {
            Ok(query) => query,
            Err(bad) => return error::bad_query(&bad),
        };
        match self {
            Self::List => list(admin, &query).await,
            Self::One { id } => {
                let asked = id.clone();
                match ask(admin, move |admin| admin.dead_letter(&asked)).await {
                    Ok(Some(view)) => json(&view),
                    Ok(None) => error::unknown("dead letter", &id),
                    Err(problem) => error::dead(&problem),
                }
            }
            Self::Remove { id } => remove(admin, id, by).await,
            Self::Requeue => match read::<RequeueRequest>(services, call).await {
                Ok(request) => answered(ask(admin, move |admin| admin.dead_requeue(&request)).await),
                Err(refusal) => refusal,
            },
            Self::Purge => match read::<PurgeRequest>(services, call).await {
                Ok(request) => answered(ask(admin, move |admin| admin.dead_purge(&request, &by)).await),
                Err(refusal) => refusal,
            },
            Self::Bury => match read::<BuryRequest>(services, call).await {
                Ok(request) => answered(ask(admin, move |admin| admin.dead_bury(&request, &by)).await),
                Err(refusal) => refusal,
            },
            Self::Import => match bytes(services, call).await {
                Ok(text) => {
                    if let Some(refusal) = unknown_name(&query, &["dry_run"]) {
                        return refusal;
                    }
                    let dry_run = query.iter().any(|(name, value)| name == "dry_run" && value != "false");
                    answered(ask(admin, move |admin| admin.dead_import(&text, dry_run)).await)
                }
                Err(refusal) => refusal,
            },
            Self::Retry { sha256 } => {
                let Some(hash) = Sha256::parse(&sha256) else { return error::no_hash(&sha256) };
                if let Some(refusal) = unknown_name(&query, &["plugin"]) {
                    return refusal;
                }
                let plugin = first(&query, "plugin").map(str::to_owned);
                let Ok(turn) = super::azulite::SCANS.try_acquire() else { return error::too_many_scans() };
                let retry = move |admin: &Admin| {
                    let _turn = turn;
                    admin.retry(&hash.to_string(), plugin.as_deref())
                };
                answered(ask(admin, retry).await)
            }
        }
    }
}

/// A parameter that means nothing is a typing mistake: without it, more would be listed than was asked for.
fn unknown_name(query: &[(String, String)], known: &[&str]) -> Option<Response> {
    let (name, _) = query.iter().find(|(name, _)| !known.contains(&name.as_str()))?;
    Some(error::bad_parameter(&format!("unknown parameter {name:?}; allowed: {}", known.join(", "))))
}

async fn list(admin: Arc<Admin>, query: &[(String, String)]) -> Response {
    if let Some(refusal) = unknown_name(query, &["consumer", "status", "since", "source", "sha256", "after", "limit"]) {
        return refusal;
    }
    let asked = |name| first(query, name).map(str::to_owned);
    let since_ms = match first(query, "since").map(since).transpose() {
        Ok(since_ms) => since_ms,
        Err(bad) => return error::bad_parameter(&bad),
    };
    let filter = Filter {
        consumer: asked("consumer"),
        status: asked("status"),
        since_ms,
        source: asked("source"),
        sha256: asked("sha256"),
    };
    let after = match first(query, "after").map(str::parse::<After>).transpose() {
        Ok(after) => after,
        Err(reason) => return error::bad_parameter(&format!("after {reason}")),
    };
    let limit = match first(query, "limit").map(str::parse::<usize>).transpose() {
        Ok(limit) => limit.unwrap_or(100),
        Err(_) => return error::bad_parameter(&format!("limit must be a whole number from 1 to {MOST}")),
    };
    answered(ask(admin, move |admin| admin.dead_list(&filter, after.as_ref(), limit)).await)
}

/// A time, or `@` and milliseconds since 1970.
fn since(text: &str) -> Result<i64, String> {
    let milliseconds = text.strip_prefix('@').map(str::parse::<i64>);
    match (milliseconds, Timestamp::parse(text)) {
        (Some(Ok(milliseconds)), _) => Ok(milliseconds),
        (None, Ok(time)) => Ok(time.millis()),
        _ => Err("since must be a time such as 2026-01-02T03:04:05Z, or @ and milliseconds since 1970".to_owned()),
    }
}

async fn remove(admin: Arc<Admin>, id: String, by: String) -> Response {
    let asked = id.clone();
    let removed = ask(admin, move |admin| {
        checked_id(&asked)?;
        admin.dead_purge(&PurgeRequest { ids: vec![asked], before_ms: None }, &by)
    });
    match removed.await {
        Ok(report) if !report.missing.is_empty() => error::unknown("dead letter", &id),
        outcome => answered(outcome),
    }
}

async fn ask<T: Send + 'static>(
    admin: Arc<Admin>,
    work: impl FnOnce(&Admin) -> Result<T, DeadError> + Send + 'static,
) -> Result<T, DeadError> {
    let done = tokio::task::spawn_blocking(move || work(&admin)).await;
    done.unwrap_or_else(|stopped| Err(DeadError::Stopped(stopped.to_string())))
}

fn answered(outcome: Result<impl Serialize, DeadError>) -> Response {
    match outcome {
        Ok(value) => json(&value),
        Err(problem) => error::dead(&problem),
    }
}

async fn bytes(services: &Services, call: Call) -> Result<Bytes, Response> {
    let limits = BodyLimits {
        bytes: u64::try_from(TEXT_LIMIT).ok(),
        pause: services.limits.body_timeout,
        min_rate: services.limits.body_min_rate,
    };
    let body = call.body.collect(limits, &call.budget).await.map_err(|problem| error::event_body(&problem))?;
    Ok(body.bytes)
}

async fn read<T: serde::de::DeserializeOwned>(services: &Services, call: Call) -> Result<T, Response> {
    let body = bytes(services, call).await?;
    serde_json::from_slice(&body).map_err(|problem| error::bad_json(&problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_one_method() {
        let find = |method: Method, path: &[&str]| Dead::find(&method, path);
        assert_eq!(find(Method::GET, &["dead"]), Some(Dead::List));
        assert_eq!(find(Method::GET, &["dead", "x"]), Some(Dead::One { id: "x".to_owned() }));
        assert_eq!(find(Method::POST, &["dead", "purge"]), Some(Dead::Purge));
        assert_eq!(find(Method::POST, &["dead", "bury"]), Some(Dead::Bury));
        assert_eq!(find(Method::POST, &["retry", "x"]), Some(Dead::Retry { sha256: "x".to_owned() }));
        for (method, path) in [
            (Method::POST, &["dead"][..]),
            (Method::DELETE, &["dead"]),
            (Method::DELETE, &["dead", ""]),
            (Method::GET, &["retry", "x"]),
            (Method::POST, &["dead", "x"]),
        ] {
            assert_eq!(find(method, path), None, "{path:?}");
        }
    }

    #[test]
    fn a_time_is_written_out_or_in_milliseconds() {
        assert_eq!(since("@5"), Ok(5));
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(1000));
        for bad in ["", "5", "@", "@x", "yesterday"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
