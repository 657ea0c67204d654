//! ListOffsets: ends of partitions and offsets by time, exact to the record.

use std::sync::Arc;

use super::Api;
use super::fetch::check_epoch;
use crate::broker::{Offset, Partition};
use crate::kafka::codec::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use crate::kafka::error::ErrorCode;

/// The special timestamps and the first version that has each.
mod special {
    pub(super) const LATEST: i64 = -1;
    pub(super) const EARLIEST: i64 = -2;
    pub(super) const MAX_TIMESTAMP: i64 = -3;
    pub(super) const EARLIEST_LOCAL: i64 = -4;
    pub(super) const LATEST_TIERED: i64 = -5;

    pub(super) fn since(timestamp: i64) -> i16 {
        match timestamp {
            MAX_TIMESTAMP => 7,
            EARLIEST_LOCAL => 8,
            LATEST_TIERED => 9,
            _ => 1,
        }
    }
}

impl Api {
    /// `kafka.md` 3.4.
    pub(super) async fn list_offsets(&self, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
        let committed_only = request.isolation_level == 1;
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let found = self.broker.log().topic(&topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let partition = found.as_ref().and_then(|topic| topic.partition(asked.partition_index));
                let looked = match partition {
                    None => Err(ErrorCode::UnknownTopicOrPartition),
                    Some(_) if asked.timestamp < special::LATEST_TIERED => Err(ErrorCode::UnsupportedVersion),
                    Some(_) if version < special::since(asked.timestamp) => Err(ErrorCode::UnsupportedVersion),
                    Some(partition) => match check_epoch(asked.current_leader_epoch, partition) {
                        Ok(()) => self.offset_at(partition, asked.timestamp, committed_only).await,
                        Err(error) => Err(error),
                    },
                };
                let leader_epoch = partition.map_or(-1, |partition| partition.leader_epoch());
                let partition_index = asked.partition_index;
                partitions.push(match looked {
                    Ok(Some((offset, timestamp))) => ListOffsetsPartitionResponse {
                        partition_index,
                        error_code: ErrorCode::None,
                        timestamp,
                        offset,
                        leader_epoch,
                    },
                    Ok(None) => ListOffsetsPartitionResponse { partition_index, ..Default::default() },
                    Err(error_code) => {
                        ListOffsetsPartitionResponse { partition_index, error_code, ..Default::default() }
                    }
                });
            }
            topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
        }
        ListOffsetsResponse { topics, ..Default::default() }
    }

    /// Offset and timestamp; the timestamp of an end is -1.
    async fn offset_at(
        &self,
        partition: &Arc<Partition>,
        timestamp: i64,
        committed_only: bool,
    ) -> Result<Option<(Offset, i64)>, ErrorCode> {
        let offsets = partition.offsets();
        match timestamp {
            special::LATEST if committed_only => Ok(Some((offsets.last_stable, -1))),
            special::LATEST => Ok(Some((offsets.high_watermark, -1))),
            special::EARLIEST | special::EARLIEST_LOCAL => Ok(Some((offsets.log_start, -1))),
            special::LATEST_TIERED => Ok(None),
            timestamp => {
                let (broker, partition) = (self.broker.clone(), partition.clone());
                let look = move || match timestamp {
                    special::MAX_TIMESTAMP => broker.log().newest_record(&partition),
                    timestamp => broker.log().offset_for_time(&partition, timestamp),
                };
                let looked = tokio::task::spawn_blocking(look).await;
                looked.map_err(|_| ErrorCode::UnknownServerError)?.map_err(|error| self.read_code(&error))
            }
        }
    }
}
