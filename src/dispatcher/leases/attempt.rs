//! One run of an event by a consumer that did not end well.

use serde::{Deserialize, Serialize};

/// What a run ended with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended, milliseconds since 1970.
    pub time_ms: i64,
    /// The word of its status.
    pub status: String,
    /// The error its consumer gave.
    pub error: String,
    /// The message its consumer gave.
    pub message: String,
    /// Seconds that it took, as its consumer said.
    pub runtime: f64,
}
