//! Consumer groups of the classic protocol: joining, staying, leaving, and how they look.

use bytes::Bytes;

use super::{Api, Peer, keep_first, text};
use crate::broker::groups::{GroupDescription, GroupError, JoinRequest, Joined, MemberRef, SyncRequest};
use crate::kafka::codec::Str;
use crate::kafka::codec::messages::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};
use crate::kafka::codec::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use crate::kafka::codec::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::kafka::codec::messages::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use crate::kafka::codec::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};
use crate::kafka::codec::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::kafka::codec::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::kafka::error::ErrorCode;

impl From<&GroupError> for ErrorCode {
    fn from(error: &GroupError) -> Self {
        match error {
            GroupError::InvalidGroupId => Self::InvalidGroupId,
            GroupError::InvalidSessionTimeout { .. } => Self::InvalidSessionTimeout,
            GroupError::MemberIdRequired { .. } => Self::MemberIdRequired,
            GroupError::UnknownMemberId => Self::UnknownMemberId,
            GroupError::IllegalGeneration => Self::IllegalGeneration,
            GroupError::InconsistentGroupProtocol => Self::InconsistentGroupProtocol,
            GroupError::RebalanceInProgress => Self::RebalanceInProgress,
            GroupError::FencedInstanceId => Self::FencedInstanceId,
            GroupError::GroupMaxSizeReached => Self::GroupMaxSizeReached,
            GroupError::InvalidRequest => Self::InvalidRequest,
            GroupError::CoordinatorNotAvailable => Self::CoordinatorNotAvailable,
            GroupError::GroupIdNotFound => Self::GroupIdNotFound,
            GroupError::NonEmptyGroup => Self::NonEmptyGroup,
            GroupError::GroupSubscribedToTopic => Self::GroupSubscribedToTopic,
            GroupError::UnknownTopicOrPartition => Self::UnknownTopicOrPartition,
            GroupError::OffsetMetadataTooLarge => Self::OffsetMetadataTooLarge,
        }
    }
}

/// The code of an outcome that has nothing else to say.
pub(super) fn outcome_code<T>(outcome: &Result<T, GroupError>) -> ErrorCode {
    outcome.as_ref().err().map_or(ErrorCode::None, ErrorCode::from)
}

pub(super) fn member_ref(member_id: &Str, instance_id: Option<&Str>) -> MemberRef {
    MemberRef { member_id: member_id.to_string(), instance_id: instance_id.map(ToString::to_string) }
}

/// A copy of what a group keeps: it must not keep the whole request.
fn kept(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

impl Api {
    /// `kafka.md` 4.1.
    pub(super) async fn join_group(&self, peer: &Peer, request: JoinGroupRequest, version: i16) -> JoinGroupResponse {
        let asked = JoinRequest {
            member: member_ref(&request.member_id, request.group_instance_id.as_ref()),
            new_member_id: String::new(),
            client_id: peer.client_id.clone(),
            client_host: format!("/{}", peer.address.ip()),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: (version > 0 && request.rebalance_timeout_ms >= 0)
                .then_some(request.rebalance_timeout_ms),
            protocol_type: request.protocol_type.to_string(),
            protocols: request.protocols.into_iter().map(|p| (p.name.to_string(), kept(&p.metadata))).collect(),
            member_id_required: version >= 4,
            skip_assignment_understood: version >= 9,
        };
        match self.coordinator.join(&request.group_id, asked).await {
            Ok(joined) => joined_response(joined),
            Err(error) => {
                let member_id = if let GroupError::MemberIdRequired { member_id } = &error {
                    text(member_id)
                } else {
                    request.member_id
                };
                JoinGroupResponse { error_code: (&error).into(), member_id, ..Default::default() }
            }
        }
    }

    /// `kafka.md` 4.1.
    pub(super) async fn sync_group(&self, request: SyncGroupRequest) -> SyncGroupResponse {
        let asked = SyncRequest {
            member: member_ref(&request.member_id, request.group_instance_id.as_ref()),
            generation: request.generation_id,
            protocol_type: request.protocol_type.as_ref().map(ToString::to_string),
            protocol: request.protocol_name.as_ref().map(ToString::to_string),
            assignments: request
                .assignments
                .into_iter()
                .map(|a| (a.member_id.to_string(), kept(&a.assignment)))
                .collect(),
        };
        match self.coordinator.sync(&request.group_id, asked).await {
            Ok(synced) => SyncGroupResponse {
                protocol_type: Some(synced.protocol_type.into()),
                protocol_name: Some(synced.protocol.into()),
                assignment: synced.assignment,
                ..Default::default()
            },
            Err(error) => SyncGroupResponse { error_code: (&error).into(), ..Default::default() },
        }
    }

    /// `kafka.md` 4.1.
    pub(super) fn heartbeat(&self, request: &HeartbeatRequest) -> HeartbeatResponse {
        let member = member_ref(&request.member_id, request.group_instance_id.as_ref());
        let outcome = self.coordinator.heartbeat(&request.group_id, &member, request.generation_id);
        HeartbeatResponse { error_code: outcome_code(&outcome), ..Default::default() }
    }

    /// `kafka.md` 4.1: a list of members from version 3 on.
    pub(super) fn leave_group(&self, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
        let members = match version {
            ..3 => vec![MemberIdentity { member_id: request.member_id, ..Default::default() }],
            _ => request.members,
        };
        let leaving: Vec<_> = members.iter().map(|m| member_ref(&m.member_id, m.group_instance_id.as_ref())).collect();
        let outcomes = match self.coordinator.leave(&request.group_id, &leaving) {
            Ok(outcomes) => outcomes,
            Err(error) => return LeaveGroupResponse { error_code: (&error).into(), ..Default::default() },
        };
        if version < 3 {
            let error_code = outcomes.first().map_or(ErrorCode::None, outcome_code);
            return LeaveGroupResponse { error_code, ..Default::default() };
        }
        let response = |(member, outcome): (MemberIdentity, Result<(), GroupError>)| MemberResponse {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            error_code: outcome_code(&outcome),
        };
        LeaveGroupResponse { members: members.into_iter().zip(outcomes).map(response).collect(), ..Default::default() }
    }

    /// `kafka.md` 4.2.
    pub(super) async fn describe_groups(&self, request: DescribeGroupsRequest, version: i16) -> DescribeGroupsResponse {
        let mut request = request;
        keep_first(&mut request.groups, Str::clone);
        let mut groups = Vec::with_capacity(request.groups.len());
        for group_id in request.groups {
            let described = self.coordinator.describe(&group_id).await;
            groups.push(match described {
                Ok(Some(description)) => described_group(group_id, description),
                // An unknown group is dead, and an error only where there is a message to say so.
                Ok(None) if version < 6 => {
                    DescribedGroup { group_id, group_state: "Dead".into(), ..Default::default() }
                }
                Ok(None) => DescribedGroup {
                    error_code: ErrorCode::GroupIdNotFound,
                    error_message: Some(format!("Group {group_id} not found.").into()),
                    group_id,
                    group_state: "Dead".into(),
                    ..Default::default()
                },
                Err(error) => DescribedGroup {
                    error_code: (&error).into(),
                    error_message: Some(error.to_string().into()),
                    group_id,
                    ..Default::default()
                },
            });
        }
        DescribeGroupsResponse { groups, ..Default::default() }
    }

    /// `kafka.md` 4.2.
    pub(super) async fn list_groups(&self, request: ListGroupsRequest) -> ListGroupsResponse {
        let names = |filter: Vec<Str>| filter.iter().map(ToString::to_string).collect::<Vec<_>>();
        let listed = self.coordinator.list(names(request.states_filter), names(request.types_filter)).await;
        match listed {
            Ok(groups) => {
                let group = |group: crate::broker::groups::ListedGroup| ListedGroup {
                    group_id: group.group.into(),
                    protocol_type: group.protocol_type.into(),
                    group_state: group.state.name().into(),
                    group_type: group.group_type.into(),
                };
                ListGroupsResponse { groups: groups.into_iter().map(group).collect(), ..Default::default() }
            }
            Err(error) => ListGroupsResponse { error_code: (&error).into(), ..Default::default() },
        }
    }

    /// `kafka.md` 4.2.
    pub(super) async fn delete_groups(&self, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for group_id in request.groups_names {
            let outcome = self.coordinator.delete_group(&group_id).await;
            results.push(DeletableGroupResult { group_id, error_code: outcome_code(&outcome) });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    }
}

fn joined_response(joined: Joined) -> JoinGroupResponse {
    let member = |member: crate::broker::groups::JoinedMember| JoinGroupResponseMember {
        member_id: member.member.member_id.into(),
        group_instance_id: member.member.instance_id.map(Str::from),
        metadata: member.metadata,
    };
    JoinGroupResponse {
        generation_id: joined.generation,
        protocol_type: Some(joined.protocol_type.into()),
        protocol_name: Some(joined.protocol.into()),
        leader: joined.leader.into(),
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id.into(),
        members: joined.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}

fn described_group(group_id: Str, description: GroupDescription) -> DescribedGroup {
    let member = |member: crate::broker::groups::DescribedMember| DescribedGroupMember {
        member_id: member.member.member_id.into(),
        group_instance_id: member.member.instance_id.map(Str::from),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    };
    DescribedGroup {
        group_id,
        group_state: description.state.name().into(),
        protocol_type: description.protocol_type.into(),
        protocol_data: description.protocol.into(),
        members: description.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}
