//! How far a reprocessing is, for whoever looks on.

use serde::{Deserialize, Serialize};

use super::Request;
pub use crate::streams::reidentify::Stage;

/// Bad records that are named in the progress of each topic; all of them are counted.
const BAD_NAMED: usize = 20;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What was asked for.
    pub request: Request,
    /// Where it stands.
    pub stage: Stage,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// In order of name; each is looked at when the one before is done.
    pub topics: Vec<TopicProgress>,
}

/// How far one topic is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicProgress {
    /// The topic that is read.
    pub topic: String,
    /// Offsets there were to go through when the run began.
    pub total: u64,
    /// Offsets gone through.
    pub passed: u64,
    /// Events copied.
    pub copied: u64,
    /// Deletions carried over.
    pub deletions: u64,
    /// Records that could not be copied.
    pub bad: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_records: Vec<BadRecord>,
}

/// A record that could not be copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset, or the first of several that cannot be read.
    pub offset: i64,
    /// Why.
    pub reason: String,
}

impl Progress {
    /// The start of a run.
    pub(super) fn new(request: Request) -> Self {
        Self { request, stage: Stage::Running, error: None, topics: Vec::new() }
    }

    /// Offsets gone through and offsets there were, over all topics.
    #[must_use]
    pub fn passed(&self) -> (u64, u64) {
        self.topics.iter().fold((0, 0), |(passed, total), topic| (passed + topic.passed, total + topic.total))
    }

    /// Records that could not be copied, over all topics.
    #[must_use]
    pub fn bad(&self) -> u64 {
        self.topics.iter().map(|topic| topic.bad).sum()
    }
}

impl TopicProgress {
    /// Adds what has happened since.
    pub(super) fn add(&mut self, more: TopicProgress) {
        self.passed += more.passed;
        self.copied += more.copied;
        self.deletions += more.deletions;
        self.bad += more.bad;
        let room = BAD_NAMED.saturating_sub(self.bad_records.len());
        self.bad_records.extend(more.bad_records.into_iter().take(room));
    }

    /// Counts a record that could not be copied.
    pub(super) fn bad(&mut self, record: BadRecord) {
        self.bad += 1;
        if self.bad_records.len() < BAD_NAMED {
            self.bad_records.push(record);
        }
    }
}
