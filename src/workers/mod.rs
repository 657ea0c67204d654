//! Built-in workers: ordinary Azul plugins that happen to run in this process, or in one of their own.
//!
//! A worker sees a dispatcher only through [`Upstream`], so its results cannot look different from those posted over
//! HTTP. `serve` starts what `[workers]` switches on; `azulite worker` runs one against the address of a dispatcher.
//! Spec: workers.md 1.

pub mod frame;
pub mod results;
pub mod upstream;

pub use frame::{Job, Outcome, Status, Worker};
pub use upstream::{Content, Fetched, Upstream, UpstreamError};
