//! Records of `__consumer_offsets` that keep a group's members (key version 2). Offsets are `azulite_storage::offsets`.

use bytes::Bytes;

use crate::kafka::codec::{Str, schema::message};

message! {
    /// Key of a group's record, behind its version.
    pub struct GroupMetadataKey[2..=2] {
        group: Str,
    }

    /// Value of a group's record, behind its version.
    pub struct GroupMetadataValue[0..=4, flexible 4] {
        protocol_type: Str,
        generation: i32,
        protocol: Option<Str>,
        leader: Option<Str>,
        /// Milliseconds since 1970, -1 for unknown.
        current_state_timestamp: i64 [2..] = -1,
        members: Vec<MemberMetadata>,
    }

    /// One member of the group.
    pub struct MemberMetadata {
        member_id: Str,
        group_instance_id: Option<Str> [3..],
        client_id: Str,
        client_host: Str,
        /// Milliseconds.
        rebalance_timeout: i32 [1..],
        /// Milliseconds.
        session_timeout: i32,
        subscription: Bytes,
        assignment: Bytes,
    }
}
