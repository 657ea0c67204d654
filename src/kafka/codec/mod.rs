//! Messages of the Kafka protocol: each is declared once, with the versions of its fields, and read and written from that.
//!
//! [`Reader`] takes a frame apart without copying, [`Writer`] collects one in pieces. [`messages`] has one file per API
//! key, [`ApiKey`] the table of keys and versions, [`header`] what stands before each message. All of it works in both
//! directions, so that tests and tools can be clients. Nothing here knows what a message means.

pub mod api;
mod fault;
mod field;
pub mod header;
pub mod messages;
mod reader;
mod schema;
mod writer;

pub use api::{ApiKey, Request, Response};
pub use fault::{DecodeError, EncodeError, Fault};
pub use field::{Field, Layout, Message, Nullable, Records, RequestMessage, Str, Uuid};
pub use header::{RequestHeader, ResponseHeader};
pub use reader::{ARRAY_BUDGET_BYTES, Reader};
pub use writer::{Frame, PIECE_BYTES, Writer};

#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
mod tests;
