//! The HTTP edge: sockets, routes, and the translation between requests and the services behind them.
//!
//! `serve.rs` binds a [`Server`] and hands it the [`Services`]. One file per route family; status codes and error bodies
//! are chosen in `error.rs` alone. Knows nothing of storage and of the Kafka port. Spec: events.md 1, streams.md 1 to 3,
//! cli.md 4.

mod azulite;
mod body;
mod connection;
mod dead;
mod error;
mod events;
mod groups;
mod jobs;
mod metrics;
mod records;
mod root;
mod router;
mod rules;
mod server;
mod streams;
mod tasks;
mod topics;
mod url;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::admin::Admin;
use crate::admin::reidentify::Reidentification;
use crate::admin::reprocess::Jobs;
use crate::dispatcher::hub::Hub;
use crate::log_files::LogFiles;
use crate::metrics::Metrics;
use crate::streams::Streams;
use crate::workers::start::Workers;

pub use root::{Readiness, Subsystem};
pub use server::{BindError, Drained, Options, Server};

/// What the routes call.
pub struct Services {
    /// Events.
    pub hub: Arc<dyn Hub>,
    /// Blobs.
    pub streams: Arc<Streams>,
    /// Topics, groups and entities, for people; `None` hides these routes.
    pub admin: Option<Arc<Admin>>,
    /// Copies from a previous prefix; `None` hides these routes.
    pub reprocess: Option<Arc<Jobs>>,
    /// The workers inside this process; `None` hides their route.
    pub workers: Option<Arc<Workers>>,
    /// Identifying everything anew; `None` hides these routes.
    pub reidentify: Option<Arc<Reidentification>>,
    /// What `/readyz` asks.
    pub readiness: Arc<dyn Readiness>,
    /// Where requests are counted, and what `/metrics` prints.
    pub metrics: Arc<Metrics>,
    /// Where requests are written down, if anywhere.
    pub log_files: Option<Arc<LogFiles>>,
    /// Limits of the routes.
    pub limits: RouteLimits,
}

/// Limits of the routes.
#[derive(Clone, Copy, Debug)]
pub struct RouteLimits {
    /// Largest body of an event request.
    pub event_body_bytes: u64,
    /// Memory that the bodies of all event requests may take together.
    pub event_memory_bytes: u64,
    /// Largest upload; `None` for no limit but the disk.
    pub upload_bytes: Option<u64>,
    /// Longest pause between two pieces of a request body.
    pub body_timeout: Duration,
    /// Slowest request body, in bytes per second over its whole time, looked at once `body_timeout` has passed.
    pub body_min_rate: u64,
    /// False hides the DELETE route of the streams.
    pub allow_delete: bool,
    /// False hides `/metrics`.
    pub metrics: bool,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self {
            event_body_bytes: 256 << 20,
            event_memory_bytes: 1 << 30,
            upload_bytes: None,
            body_timeout: Duration::from_secs(30),
            body_min_rate: 1024,
            allow_delete: true,
            metrics: true,
        }
    }
}
