//! The workers of this process with what waits for them.

use serde::{Deserialize, Serialize};

use super::{Admin, GroupSummary};
use crate::broker::ReadError;
use crate::dispatcher::plugin_key::Flow;
use crate::workers::WorkerView;

/// The workers of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerList {
    /// In the order of the configuration.
    pub workers: Vec<WorkerView>,
}

impl Admin {
    /// Adds to each view what its groups have before them, as the queue of its first stage. Blocks on the index.
    ///
    /// # Errors
    /// The index failed.
    pub fn with_queues(&self, views: Vec<WorkerView>) -> Result<WorkerList, ReadError> {
        let registered = self.registered();
        let queue = |view: &WorkerView| -> Result<Option<u64>, ReadError> {
            let mut total = None;
            for listed in &registered {
                let params = &listed.consumer.params;
                let ours = params.name == view.name && params.version == view.consumer_version;
                if ours && listed.consumer.task {
                    let groups = self.groups_of(listed)?;
                    let lag = |flow: Flow| -> i64 {
                        let of_flow = |group: &&GroupSummary| group.name.ends_with(&format!("-{flow}"));
                        groups.iter().filter(of_flow).map(|group| group.lag).sum()
                    };
                    // What is still to come of the past is behind both groups.
                    let lag = lag(Flow::Expedite) + lag(Flow::Error) + lag(Flow::Live).max(lag(Flow::Historic));
                    *total.get_or_insert(0) += u64::try_from(lag).unwrap_or(0);
                }
            }
            Ok(total)
        };
        let with = |mut view: WorkerView| {
            let queue = queue(&view)?;
            if let Some((first, queue)) = view.stages.first_mut().zip(queue) {
                *first = std::mem::take(first).with_queue(queue);
            }
            Ok(view)
        };
        Ok(WorkerList { workers: views.into_iter().map(with).collect::<Result<_, ReadError>>()? })
    }
}
