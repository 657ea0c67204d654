//! What clients ask of a group and what they get, without anything of the wire.

use azulite_storage::{Offset, TopicPartition};
use bytes::Bytes;

use super::GroupError;

/// How a member names itself: its id, and its lasting name if it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRef {
    /// The id it was given; empty for none.
    pub member_id: String,
    /// Its lasting name; `None` for a dynamic member.
    pub instance_id: Option<String>,
}

/// A member wants to take part in the next generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinRequest {
    /// Who; the member id is empty the first time.
    pub member: MemberRef,
    /// The id a new member gets. The coordinator fills it in.
    pub new_member_id: String,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// How long it may be silent, milliseconds.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for it, milliseconds; `None` for as long as the session.
    pub rebalance_timeout_ms: Option<i32>,
    /// What the members do together.
    pub protocol_type: String,
    /// The protocols it knows, best first, with what it has to say under each.
    pub protocols: Vec<(String, Bytes)>,
    /// True when a new dynamic member is to come back with the id it is given.
    pub member_id_required: bool,
    /// True when the client understands [`Joined::skip_assignment`].
    pub skip_assignment_understood: bool,
}

/// The member takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// What the members do together.
    pub protocol_type: String,
    /// The protocol agreed on.
    pub protocol: String,
    /// The member that assigns.
    pub leader: String,
    /// The member's own id.
    pub member_id: String,
    /// All members, for the leader; empty for others.
    pub members: Vec<JoinedMember>,
    /// True for a leader that is back and must not assign anew.
    pub skip_assignment: bool,
}

/// One member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Who.
    pub member: MemberRef,
    /// What it said under the protocol agreed on.
    pub metadata: Bytes,
}

/// A member wants its assignment; the leader brings everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncRequest {
    /// Who.
    pub member: MemberRef,
    /// The generation it belongs to.
    pub generation: i32,
    /// What it believes the members do together; `None` when it does not say.
    pub protocol_type: Option<String>,
    /// The protocol it believes was agreed on; `None` when it does not say.
    pub protocol: Option<String>,
    /// By member id; empty for all but the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What the members do together.
    pub protocol_type: String,
    /// The protocol agreed on.
    pub protocol: String,
    /// What the leader assigned; empty when it left the member out.
    pub assignment: Bytes,
}

/// Who commits offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committer {
    /// Who; empty for somebody who is no member.
    pub member: MemberRef,
    /// The generation it belongs to; `None` for somebody who is no member.
    pub generation: Option<i32>,
}

/// One offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// Where.
    pub place: TopicPartition,
    /// Offset of the next record wanted.
    pub offset: Offset,
    /// Leader epoch of the last record consumed; -1 for unknown.
    pub leader_epoch: i32,
    /// Free text; comes back as it is.
    pub metadata: String,
}

/// One answer per partition.
pub type PerPartition = Vec<(TopicPartition, Result<(), GroupError>)>;

/// The state of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// No members; offsets may be kept.
    Empty,
    /// Waits for members to join.
    PreparingRebalance,
    /// Waits for the leader's assignments.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
    /// Deleted.
    Dead,
}

impl GroupState {
    /// Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// Kafka's name for the type of every group there is so far.
pub const CLASSIC: &str = "classic";

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub group: String,
    /// Its state.
    pub state: GroupState,
    /// What its members do together; empty for a group that only has offsets.
    pub protocol_type: String,
    /// Kafka's name for the type of the group.
    pub group_type: &'static str,
}

/// A group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its state.
    pub state: GroupState,
    /// What its members do together; empty for a group that only has offsets.
    pub protocol_type: String,
    /// The protocol agreed on; empty unless stable.
    pub protocol: String,
    /// Its generation.
    pub generation: i32,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member of a described group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Who.
    pub member: MemberRef,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connected from.
    pub client_host: String,
    /// What it said under the protocol agreed on; empty unless stable.
    pub metadata: Bytes,
    /// What it was assigned; empty unless stable.
    pub assignment: Bytes,
}
