//! Open tasks as people see them.

use serde::{Deserialize, Serialize};

use super::{Admin, Flow};
use crate::broker::ReadError;
use crate::dispatcher::tasks::{self, OpenTask};

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
}

impl From<OpenTask> for TaskView {
    fn from(task: OpenTask) -> Self {
        let OpenTask { id, name, version, sha256, since_ms, heard_ms, .. } = task;
        Self { id, name, version, sha256, since_ms, heard_ms }
    }
}

impl Admin {
    /// Hands over every open task of the consumer `name` (`None`: of all), in order of id, until `take` says stop. Memory
    /// is bounded by one page.
    ///
    /// # Errors
    /// The index failed.
    pub fn open_tasks(&self, name: Option<&str>, take: &mut dyn FnMut(TaskView) -> Flow) -> Result<(), ReadError> {
        let wanted = |task: &OpenTask| name.is_none_or(|name| name == task.name);
        let each =
            tasks::each(self.broker.log().as_ref(), "", |task| !wanted(&task) || take(task.into()).is_continue());
        each.map_err(ReadError::from)
    }
}
