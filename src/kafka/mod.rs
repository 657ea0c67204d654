//! The Kafka listener: frames and messages of the protocol, and what they ask of the broker.
//!
//! | part | what it owns |
//! |---|---|
//! | [`codec`] | bytes to messages and back, for both sides of a connection |
//! | [`error`] | error codes |

pub mod codec;
pub mod error;
