//! azulite: a Kafka-compatible log, a content-addressed blob store and the Azul Dispatcher's HTTP API in one process.
//!
//! | room | what it is for |
//! |---|---|
//! | [`cli`] | one file per command |
//! | `client` | HTTP to a running server |
//! | [`config`], [`serve`] | `appliance.toml` to a checked configuration; start, listeners, stop |
//! | [`http`] | routes and status codes |
//! | [`kafka`] | messages of the Kafka protocol |
//! | [`dispatcher`] | event models, choice of topic, filters, readers |
//! | [`streams`], [`identify`] | blobs over HTTP; digests and file types |
//! | [`isolate`] | child processes for parsers of hostile bytes |
//! | [`archive`] | members of archives, out of bytes in memory |
//! | [`workers`] | plugins that run in this process |
//! | [`admin`] | what a person may ask about a store |
//! | [`broker`] | the one door to the log |
//! | [`metrics`], [`log_files`] | what is counted; files of requests and refused events |
//!
//! Arrows point down: edges call the dispatcher and the streams service, those call the broker and the store
//! (`azulite-storage`), never the other way.

pub mod admin;
pub mod archive;
pub mod broker;
pub mod cli;
mod client;
pub mod config;
pub mod dispatcher;
pub mod http;
pub mod identify;
pub mod isolate;
pub mod kafka;
pub mod log_files;
pub mod metrics;
mod notify;
pub mod serve;
pub mod streams;
pub mod workers;
