//! Built-in workers: ordinary Azul plugins that happen to run in this process, or in one of their own.
//!
//! A worker sees a dispatcher only through [`Upstream`], so its results cannot look different from those posted over
//! HTTP. `serve` starts what `[workers]` switches on; `azulite worker` runs one against the address of a dispatcher.
//! Spec: workers.md 1.

pub mod frame;
mod local;
pub mod overseer;
mod remote;
pub mod results;
mod run;
pub mod sandbox;
pub mod start;
pub mod upstream;
mod wire;
pub mod yara;

#[cfg(test)]
mod upstream_tests;

pub use frame::{Job, Outcome, Status, Worker};
pub use local::{LocalUpstream, Release};
pub use overseer::{LastError, Overseen, StageView, WorkerView};
pub use remote::RemoteUpstream;
pub use run::{Frame, Options};
pub use upstream::{Content, Fetched, Upstream, UpstreamError};
