//! The store writes group metadata by hand; here the same records are declared, and both have to agree.

use azulite_storage::membership::{GroupMetadata, decode_metadata_key, encode_metadata_key};
use bytes::{BufMut, Bytes, BytesMut};

use super::encoded;
use crate::kafka::codec::random::{Random, Rng};
use crate::kafka::codec::{Message, Str, schema::message};

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

/// What every record of `__consumer_offsets` opens with.
fn versioned<M: Message>(message: &M, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(version);
    bytes.put(encoded(message, version));
    bytes.freeze()
}

#[test]
fn the_store_writes_group_metadata_as_the_schema_says() {
    let key = versioned(&GroupMetadataKey { group: "g".into() }, 2);
    assert_eq!((encode_metadata_key("g"), decode_metadata_key(&key)), (key, Some("g".into())));
    for seed in 0..200 {
        let value = GroupMetadataValue::random(&mut Rng(seed), GroupMetadataValue::layout(3));
        let bytes = versioned(&value, 3);
        let stored = GroupMetadata::decode(&bytes).unwrap_or_else(|| panic!("seed {seed}: {value:?}"));
        assert_eq!(stored.encode(), bytes, "seed {seed}: {value:?}");
    }
}
