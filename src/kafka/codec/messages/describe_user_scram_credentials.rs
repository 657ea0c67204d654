//! DescribeUserScramCredentials (50): which SCRAM credentials exist.

use crate::kafka::codec::{Str, schema::message};
use crate::kafka::error::ErrorCode;

message! {
    /// Users asked for.
    pub struct DescribeUserScramCredentialsRequest[0..=0, flexible 0] {
        users: Option<Vec<UserName>> = Some(Vec::new()),
    }

    /// One user.
    pub struct UserName {
        name: Str,
    }

    /// What they have.
    pub struct DescribeUserScramCredentialsResponse[0..=0, flexible 0] {
        throttle_time_ms: i32,
        error_code: ErrorCode,
        error_message: Option<Str>,
        results: Vec<DescribeUserScramCredentialsResult>,
    }

    /// What one user has.
    pub struct DescribeUserScramCredentialsResult {
        user: Str,
        error_code: ErrorCode,
        error_message: Option<Str>,
        credential_infos: Vec<CredentialInfo>,
    }

    /// One credential, without its secret.
    pub struct CredentialInfo {
        /// 1: SCRAM-SHA-256; 2: SCRAM-SHA-512.
        mechanism: i8,
        iterations: i32,
    }
}
