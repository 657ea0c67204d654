//! AlterUserScramCredentials (51): SCRAM credentials set and removed.

use bytes::Bytes;

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Credentials to remove and to set.
    pub struct AlterUserScramCredentialsRequest[0..=0, flexible 0] {
        deletions: Vec<ScramCredentialDeletion>,
        upsertions: Vec<ScramCredentialUpsertion>,
    }

    /// A credential to remove.
    pub struct ScramCredentialDeletion {
        name: Str,
        /// 1: SCRAM-SHA-256; 2: SCRAM-SHA-512.
        mechanism: i8,
    }

    /// A credential to set.
    pub struct ScramCredentialUpsertion {
        name: Str,
        /// 1: SCRAM-SHA-256; 2: SCRAM-SHA-512.
        mechanism: i8,
        iterations: i32,
        salt: Bytes,
        salted_password: Bytes,
    }

    /// What became of them.
    pub struct AlterUserScramCredentialsResponse[0..=0, flexible 0] {
        throttle_time_ms: i32,
        results: Vec<AlterUserScramCredentialsResult>,
    }

    /// Outcome for one user.
    pub struct AlterUserScramCredentialsResult {
        user: Str,
        error_code: ErrorCode,
        error_message: Option<Str>,
    }
}
