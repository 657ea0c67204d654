//! Open tasks, and events that wait for another run, as people see them.

use serde::{Deserialize, Serialize};

use super::{Admin, Flow};
use crate::broker::ReadError;
use crate::dispatcher::leases::{self, Lease, Waiting};

/// One open task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// The id that the consumer was given.
    pub id: String,
    /// The consumer.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The entity it works on.
    pub sha256: String,
    /// When the event was handed out, milliseconds since 1970.
    pub since_ms: i64,
    /// When the consumer was last heard of, milliseconds since 1970.
    pub heard_ms: i64,
    /// When it ends unless the consumer is heard of, milliseconds since 1970.
    #[serde(default)]
    pub until_ms: i64,
    /// Failed runs before this one.
    #[serde(default)]
    pub attempt: u32,
}

impl From<Lease> for TaskView {
    fn from(lease: Lease) -> Self {
        let Lease { id, work, since_ms, heard_ms, until_ms, .. } = lease;
        let leases::Work { name, version, sha256, attempt, .. } = work;
        Self { id, name, version, sha256, since_ms, heard_ms, until_ms, attempt }
    }
}

/// One event that waits for another run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingView {
    /// Failed runs so far.
    pub attempt: u32,
    /// When the next one may begin, milliseconds since 1970.
    pub due_ms: i64,
    /// The filter that kept it back when it was due last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub held_by: String,
}

impl From<Waiting> for WaitingView {
    fn from(Waiting { work, due_ms, held_by, .. }: Waiting) -> Self {
        Self { attempt: work.attempt, due_ms, held_by }
    }
}

impl Admin {
    /// Hands over every open task of the consumer `name` (`None`: of all), in order of id, until `take` says stop. Memory
    /// is bounded by one page.
    ///
    /// # Errors
    /// The index failed.
    pub fn open_tasks(&self, name: Option<&str>, take: &mut dyn FnMut(TaskView) -> Flow) -> Result<(), ReadError> {
        let wanted = |lease: &Lease| name.is_none_or(|name| name == lease.work.name);
        let each =
            leases::each(self.broker.log().as_ref(), "", |lease| !wanted(&lease) || take(lease.into()).is_continue());
        each.map_err(ReadError::from)
    }
}
