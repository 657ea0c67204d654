//! What every black-box test needs: a server of its own, a raw HTTP client, strict readers of the answers.
//!
//! Used by `tests/api` and `tests/crash` through `#[path]`. Nothing here looks inside the product: it starts the
//! binary, talks to its sockets and reads its log lines.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of this module")]

pub(crate) mod batch;
pub(crate) mod config;
pub(crate) mod events;
pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod server;
pub(crate) mod worker;

pub(crate) use batch::Batch;
pub(crate) use config::Config;
pub(crate) use http::{Body, Client, Response};
pub(crate) use server::Server;
pub(crate) use worker::WorkerProcess;

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen before it calls that a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `ready` again and again until it says so; fails the test with `what` when [`PATIENCE`] runs out.
pub(crate) fn await_that(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "gave up waiting for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
