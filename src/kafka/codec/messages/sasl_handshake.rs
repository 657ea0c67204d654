//! SaslHandshake (17): choice of a SASL mechanism.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// The mechanism the client wants.
    pub struct SaslHandshakeRequest[0..=1] {
        /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
        mechanism: Str,
    }

    /// The mechanisms on offer.
    pub struct SaslHandshakeResponse[0..=1] {
        error_code: ErrorCode,
        mechanisms: Vec<Str>,
    }
}
