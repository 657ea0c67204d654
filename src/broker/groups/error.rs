//! Why a group refuses something, in the names of Kafka's errors.

/// A refusal. The Kafka edge chooses the code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group id is empty or too long.
    #[error("the group id is empty or too long")]
    InvalidGroupId,
    /// The session time-out is outside what is allowed.
    #[error("a session time-out of {asked_ms} ms is not allowed: {min_ms} to {max_ms} ms are")]
    InvalidSessionTimeout {
        /// What was asked for.
        asked_ms: i32,
        /// The least that is allowed.
        min_ms: i32,
        /// The most that is allowed.
        max_ms: i32,
    },
    /// The member has to join again under this id.
    #[error("join again as {member_id}")]
    MemberIdRequired {
        /// The id it was given.
        member_id: String,
    },
    /// No such member.
    #[error("the group does not know this member")]
    UnknownMemberId,
    /// The member belongs to another generation.
    #[error("this is not the group's generation")]
    IllegalGeneration,
    /// The protocol type differs, or no protocol is common to all members.
    #[error("the member has no protocol in common with the others")]
    InconsistentGroupProtocol,
    /// The member has to join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// Another member has taken over the instance id.
    #[error("another member has taken over this instance id")]
    FencedInstanceId,
    /// The group, or the list of groups, is full.
    #[error("no more members are taken")]
    GroupMaxSizeReached,
    /// A text or a list in the request is longer than is allowed.
    #[error("the request is larger than is allowed")]
    InvalidRequest,
    /// The change could not be made durable, or the process is stopping. Try again.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// There is no such group.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// The group has members.
    #[error("the group has members")]
    NonEmptyGroup,
    /// The group's members read this topic.
    #[error("the group's members read this topic")]
    GroupSubscribedToTopic,
    /// There is no such partition.
    #[error("there is no such partition")]
    UnknownTopicOrPartition,
    /// The text beside an offset is too long.
    #[error("the metadata is longer than is allowed")]
    OffsetMetadataTooLarge,
}
