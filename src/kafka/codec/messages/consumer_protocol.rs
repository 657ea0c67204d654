//! What consumers of the classic protocol tell each other through JoinGroup and SyncGroup, opaque to the coordinator.

use bytes::Bytes;

use crate::kafka::codec::{DecodeError, Field, Message, Reader, Str, schema::message};

message! {
    /// A member's metadata: what it wants to read and what it has.
    pub struct ConsumerProtocolSubscription[0..=3] {
        topics: Vec<Str>,
        user_data: Option<Bytes>,
        owned_partitions: Vec<TopicPartitions> [1..],
        generation_id: i32 [2..] = -1,
        rack_id: Option<Str> [3..],
    }

    /// What the leader gives a member.
    pub struct ConsumerProtocolAssignment[0..=3] {
        assigned_partitions: Vec<TopicPartitions>,
        user_data: Option<Bytes>,
    }

    /// Partitions of one topic.
    pub struct TopicPartitions {
        topic: Str,
        partitions: Vec<i32>,
    }
}

/// Reads a subscription or an assignment, which open with their version. Later versions are read as the latest known,
/// because they may only add fields at the end.
///
/// # Errors
/// What was wrong with the bytes.
pub fn read_versioned<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = i16::decode(&mut reader, M::layout(0))?;
    M::read_message(&mut reader, version.min(M::VERSIONS.1))
}
