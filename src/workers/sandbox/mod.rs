//! The sandbox worker: sends files to a Cuckoo or CAPE, waits for what they find, and publishes it (workers.md 3).
//!
//! One [`Sandbox`] per `[[workers.sandbox]]`. A job is leased once and stays open until its final status, with heartbeats,
//! through stages whose state is on disk ([`store`]): a restart goes on where it was. Each stage is a thread:
//!
//! | thread    | does                                                                              |
//! |-----------|-----------------------------------------------------------------------------------|
//! | `intake`  | leases events while the stage `submit` has room; opts out of what is not for it   |
//! | `submit`  | waits for room on the sandbox, creates tasks; looks whether a sandbox is up again |
//! | `check`   | asks for the state of one task after the other                                    |
//! | `parse`   | fetches and reads reports and files, publishes                                    |
//! | `finish`  | reports final statuses                                                            |
//! | `cleanup` | deletes tasks                                                                     |
//! | `beat`    | heartbeats                                                                        |
//!
//! **One task per file.** Before a file is sent, the item says so on disk and the form field `custom` carries a mark of this
//! submission; after a kill in between, the sandbox is asked for a task with that mark (CAPE: search by hash, Cuckoo: task
//! list) before anything is sent again. What remains: a sandbox on which that call is switched off may get the file a
//! second time, and one that takes an upload in only after it was asked.

mod api;
mod beat;
mod check;
pub mod crits;
mod dropped;
mod finish;
mod health;
mod http;
mod intake;
mod job;
mod multipart;
mod options;
mod parse;
mod rate;
mod report;
mod stop;
mod store;
mod submit;
mod token;
mod worker;

pub use options::{Kind, Options, Parser};
pub use worker::Sandbox;
