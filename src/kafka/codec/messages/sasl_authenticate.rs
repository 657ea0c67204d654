//! SaslAuthenticate (36): one step of a SASL exchange.

use bytes::Bytes;

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Bytes of the mechanism, from the client.
    pub struct SaslAuthenticateRequest[0..=2, flexible 2] {
        auth_bytes: Bytes,
    }

    /// Bytes of the mechanism, from the server.
    pub struct SaslAuthenticateResponse[0..=2, flexible 2] {
        error_code: ErrorCode,
        error_message: Option<Str>,
        auth_bytes: Bytes,
        /// 0: no end.
        session_lifetime_ms: i64 [1..],
    }
}
