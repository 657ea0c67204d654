//! Consumer groups of the classic protocol.
//!
//! A group is a pure state machine (`machine`); the [`Coordinator`] runs one for every group, parks requests, keeps the
//! time and makes what has to last durable. Groups that HTTP readers own have no machine: they are positions that
//! tools may see, move and delete. Contract kafka.md 4.1 and 4.2.

mod coordinator;
mod error;
mod expire;
mod machine;
mod member;
mod offsets;
mod request;
mod subscription;
mod timers;
mod tools;

use std::time::Duration;

pub use coordinator::Coordinator;
pub use error::GroupError;
pub use request::{
    CLASSIC, Committer, DescribedMember, GroupDescription, GroupState, JoinRequest, Joined, JoinedMember, ListedGroup,
    MemberRef, OffsetToCommit, PerPartition, SyncRequest, Synced,
};
pub use tools::{delete_unattended, reset_unattended};

/// What groups allow. Kafka's names in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The shortest session time-out (`group.min.session.timeout.ms`).
    pub min_session_timeout_ms: i32,
    /// The longest session time-out (`group.max.session.timeout.ms`).
    pub max_session_timeout_ms: i32,
    /// How long an empty group waits for more members after the first (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay_ms: i32,
    /// Members of one group (`group.max.size`).
    pub max_members: usize,
    /// Groups with members, or that had some.
    pub max_groups: usize,
    /// Bytes of metadata of all members of one group, and of their assignments.
    pub max_metadata_bytes: usize,
    /// Bytes of text beside an offset (`offset.metadata.max.bytes`).
    pub max_offset_metadata_bytes: usize,
    /// How long offsets outlive their use (`offsets.retention.minutes`).
    pub offsets_retention_ms: i64,
    /// How often it is looked for offsets that have expired (`offsets.retention.check.interval.ms`).
    pub expire_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 0,
            max_members: 1_000,
            max_groups: 10_000,
            max_metadata_bytes: 8 << 20,
            max_offset_metadata_bytes: 4_096,
            offsets_retention_ms: 30 * 86_400_000,
            expire_every: Duration::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests;
