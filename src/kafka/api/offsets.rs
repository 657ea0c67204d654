//! Committed offsets of groups: OffsetCommit, OffsetFetch, OffsetDelete.

use azulite_storage::offsets::CommittedOffset;

use super::groups::{member_ref, outcome_code};
use super::{Api, keep_first, text};
use crate::broker::TopicPartition;
use crate::broker::groups::{Committer, OffsetToCommit};
use crate::kafka::codec::Str;
use crate::kafka::codec::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::kafka::codec::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::kafka::codec::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopic, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use crate::kafka::error::ErrorCode;

fn place(topic: &Str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.to_string(), partition }
}

impl Api {
    /// `kafka.md` 4.2.
    pub(super) async fn offset_commit(&self, request: OffsetCommitRequest) -> OffsetCommitResponse {
        let generation = request.generation_id_or_member_epoch;
        let committer = Committer {
            member: member_ref(&request.member_id, request.group_instance_id.as_ref()),
            generation: (generation >= 0 || !request.member_id.is_empty()).then_some(generation),
        };
        let offsets = request.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|p| OffsetToCommit {
                place: place(&topic.name, p.partition_index),
                offset: p.committed_offset,
                leader_epoch: p.committed_leader_epoch,
                metadata: p.committed_metadata.as_deref().unwrap_or_default().to_owned(),
            })
        });
        let outcome = self.coordinator.commit_offsets(&request.group_id, &committer, offsets.collect()).await;
        let (whole, each) = match outcome {
            Ok(each) => (ErrorCode::None, each),
            Err(error) => (ErrorCode::from(&error), Vec::new()),
        };
        let mut each = each.into_iter();
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|p| OffsetCommitResponsePartition {
                partition_index: p.partition_index,
                error_code: each.next().map_or(whole, |(_, outcome)| outcome_code(&outcome)),
            });
            OffsetCommitResponseTopic { partitions: partitions.collect(), name: topic.name }
        });
        OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
    }

    /// `kafka.md` 4.2: one group up to version 7, many after that.
    pub(super) async fn offset_fetch(&self, mut request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
        keep_first(&mut request.groups, |group| group.group_id.clone());
        if version < 8 {
            let (topics, error_code) = self.positions(&request.group_id, request.topics).await;
            return OffsetFetchResponse { topics, error_code, ..Default::default() };
        }
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let (topics, error_code) = self.positions(&group.group_id, group.topics).await;
            groups.push(OffsetFetchResponseGroup { group_id: group.group_id, topics, error_code });
        }
        OffsetFetchResponse { groups, ..Default::default() }
    }

    async fn positions(
        &self,
        group: &Str,
        topics: Option<Vec<OffsetFetchRequestTopic>>,
    ) -> (Vec<OffsetFetchResponseTopic>, ErrorCode) {
        let places = topics.as_ref().map(|topics| {
            let each = topics.iter().flat_map(|t| t.partition_indexes.iter().map(|p| place(&t.name, *p)));
            each.collect::<Vec<_>>()
        });
        let (committed, error_code) = match self.coordinator.fetch_offsets(group, places.clone()).await {
            Ok(committed) => (committed, ErrorCode::None),
            Err(error) => {
                let asked = places.unwrap_or_default().into_iter();
                (asked.map(|place| (place, None)).collect(), ErrorCode::from(&error))
            }
        };
        let mut answers: Vec<OffsetFetchResponseTopic> = Vec::new();
        for (place, committed) in committed {
            let partition = position(place.partition, committed, error_code);
            match answers.last_mut() {
                Some(topic) if topic.name == *place.topic => topic.partitions.push(partition),
                _ => answers.push(OffsetFetchResponseTopic { name: text(&place.topic), partitions: vec![partition] }),
            }
        }
        (answers, error_code)
    }

    /// `kafka.md` 4.2.
    pub(super) async fn offset_delete(&self, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
        let places = request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| place(&t.name, p.partition_index)));
        let outcomes = match self.coordinator.delete_offsets(&request.group_id, places.collect()).await {
            Ok(outcomes) => outcomes,
            Err(error) => return OffsetDeleteResponse { error_code: (&error).into(), ..Default::default() },
        };
        let mut outcomes = outcomes.into_iter();
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|p| OffsetDeleteResponsePartition {
                partition_index: p.partition_index,
                error_code: outcomes.next().map_or(ErrorCode::None, |(_, outcome)| outcome_code(&outcome)),
            });
            OffsetDeleteResponseTopic { partitions: partitions.collect(), name: topic.name }
        });
        OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
    }
}

/// A position as it is answered; offset -1 for none.
fn position(
    partition_index: i32,
    committed: Option<CommittedOffset>,
    error_code: ErrorCode,
) -> OffsetFetchResponsePartition {
    let none = CommittedOffset { offset: -1, leader_epoch: -1, metadata: String::new(), commit_time_ms: -1 };
    let CommittedOffset { offset, leader_epoch, metadata, .. } = committed.unwrap_or(none);
    OffsetFetchResponsePartition {
        partition_index,
        committed_offset: offset,
        committed_leader_epoch: leader_epoch,
        metadata: Some(metadata.into()),
        error_code,
    }
}
