//! What the storage tests share: a disk that loses power, a disk that remembers what was asked of it, and dice.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "test support: each test binary uses a part of it, and a panic is how a test fails"
)]

pub(crate) mod ledger;
pub(crate) mod recorder;
pub(crate) mod rng;
pub(crate) mod session;
pub(crate) mod sim_fs;
pub(crate) mod sim_nodes;
