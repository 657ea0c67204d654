//! The store writes group metadata by hand; here the same records are declared, and both have to agree.

use azulite_storage::membership::{GroupMetadata, decode_metadata_key, encode_metadata_key};
use bytes::Bytes;

use crate::kafka::codec::random::{Random, Rng};
use crate::kafka::codec::{Message, Reader, Str, Writer, schema::message};

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

/// The record as the schema says: its version, then what `write` writes.
fn versioned(version: i16, write: impl FnOnce(&mut Writer, i16)) -> Bytes {
    let mut writer = Writer::new();
    writer.slice(&version.to_be_bytes());
    write(&mut writer, version);
    writer.finish().unwrap().into_bytes()
}

#[test]
fn the_store_writes_group_metadata_as_the_schema_says() {
    let key = GroupMetadataKey { group: "g".into() };
    let bytes = versioned(2, |writer, version| key.write(writer, version));
    assert_eq!((encode_metadata_key("g"), decode_metadata_key(&bytes)), (bytes.clone(), Some("g".into())));
    assert_eq!(GroupMetadataKey::read(&mut Reader::new(bytes.slice(2..)), 2).unwrap(), key);
    for seed in 0..200 {
        let value = GroupMetadataValue::random(&mut Rng(seed), GroupMetadataValue::layout(3));
        let bytes = versioned(3, |writer, version| value.write(writer, version));
        let stored = GroupMetadata::decode(&bytes).unwrap_or_else(|| panic!("seed {seed}: {value:?}")).encode();
        assert_eq!(stored, bytes, "seed {seed}: {value:?}");
        assert_eq!(GroupMetadataValue::read(&mut Reader::new(stored.slice(2..)), 3).unwrap(), value);
    }
}
