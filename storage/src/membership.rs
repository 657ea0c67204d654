//! Records of `__consumer_offsets`, in Kafka's own format: group metadata (key version 2, value version 3).
//!
//! Layout: the message schemas `GroupMetadataKey` and `GroupMetadataValue` of Apache Kafka. What protocol metadata and
//! assignments mean is the business of the group's members; here they are bytes.

use bytes::{BufMut, Bytes};

use crate::keys::take;
use crate::offsets::{MAX_STRING, put_string, take_string};

/// What outlives a restart of a group that members join.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GroupMetadata {
    /// What its members do together, `consumer` for consumers.
    pub protocol_type: String,
    /// Its generation; 0 before the first.
    pub generation: i32,
    /// The protocol its members agreed on; `None` without members.
    pub protocol: Option<String>,
    /// The member that assigns; `None` without members.
    pub leader: Option<String>,
    /// When it came into its present state, milliseconds since 1970; -1 for unknown.
    pub state_since_ms: i64,
    /// Its members.
    pub members: Vec<StoredMember>,
}

/// One member of a stored group.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredMember {
    /// Its id.
    pub member_id: String,
    /// Its own lasting name; `None` for a dynamic member.
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it connected from.
    pub client_host: String,
    /// How long a rebalance waits for it, milliseconds.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent, milliseconds.
    pub session_timeout_ms: i32,
    /// What it said under the protocol agreed on.
    pub subscription: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

/// What the keys of all group metadata start with.
pub const METADATA_KEYS: [u8; 2] = [0, 2];

const VALUE_VERSION: [u8; 2] = [0, 3];

/// Key of a group's metadata.
#[must_use]
pub fn encode_metadata_key(group: &str) -> Bytes {
    let mut key = METADATA_KEYS.to_vec();
    put_string(&mut key, group);
    key.into()
}

/// Reads a group metadata key; `None` for other kinds of keys.
#[must_use]
pub fn decode_metadata_key(mut bytes: &[u8]) -> Option<String> {
    let version: [u8; 2] = take(&mut bytes)?;
    let group = take_string(&mut bytes)?;
    (version == METADATA_KEYS && bytes.is_empty()).then_some(group)
}

impl GroupMetadata {
    /// The first text that is longer than a record can hold: what it is, and its length.
    pub(crate) fn too_long(&self) -> Option<(&'static str, usize)> {
        let member = |m: &StoredMember| {
            [
                ("member id", m.member_id.len()),
                ("instance id", m.instance_id.as_ref().map_or(0, String::len)),
                ("client id", m.client_id.len()),
                ("client host", m.client_host.len()),
            ]
        };
        let own = [
            ("protocol type", self.protocol_type.len()),
            ("protocol", self.protocol.as_ref().map_or(0, String::len)),
            ("leader", self.leader.as_ref().map_or(0, String::len)),
        ];
        let mut texts = own.into_iter().chain(self.members.iter().flat_map(member));
        texts.find(|(_, len)| *len > MAX_STRING)
    }

    /// The record's value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut value = VALUE_VERSION.to_vec();
        put_string(&mut value, &self.protocol_type);
        value.put_i32(self.generation);
        put_nullable(&mut value, self.protocol.as_deref());
        put_nullable(&mut value, self.leader.as_deref());
        value.put_i64(self.state_since_ms);
        value.put_i32(i32::try_from(self.members.len()).unwrap_or(i32::MAX));
        for member in &self.members {
            put_string(&mut value, &member.member_id);
            put_nullable(&mut value, member.instance_id.as_deref());
            put_string(&mut value, &member.client_id);
            put_string(&mut value, &member.client_host);
            value.put_i32(member.rebalance_timeout_ms);
            value.put_i32(member.session_timeout_ms);
            put_bytes(&mut value, &member.subscription);
            put_bytes(&mut value, &member.assignment);
        }
        value.into()
    }

    /// Reads a value written by [`GroupMetadata::encode`].
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let version: [u8; 2] = take(&mut bytes)?;
        if version != VALUE_VERSION {
            return None;
        }
        let mut metadata = Self {
            protocol_type: take_string(&mut bytes)?,
            generation: i32::from_be_bytes(take(&mut bytes)?),
            protocol: take_nullable(&mut bytes)?,
            leader: take_nullable(&mut bytes)?,
            state_since_ms: i64::from_be_bytes(take(&mut bytes)?),
            members: Vec::new(),
        };
        for _ in 0..i32::from_be_bytes(take(&mut bytes)?) {
            metadata.members.push(StoredMember {
                member_id: take_string(&mut bytes)?,
                instance_id: take_nullable(&mut bytes)?,
                client_id: take_string(&mut bytes)?,
                client_host: take_string(&mut bytes)?,
                rebalance_timeout_ms: i32::from_be_bytes(take(&mut bytes)?),
                session_timeout_ms: i32::from_be_bytes(take(&mut bytes)?),
                subscription: take_bytes(&mut bytes)?,
                assignment: take_bytes(&mut bytes)?,
            });
        }
        bytes.is_empty().then_some(metadata)
    }
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

fn take_nullable(bytes: &mut &[u8]) -> Option<Option<String>> {
    match bytes.strip_prefix(&[0xff, 0xff]) {
        Some(rest) => {
            *bytes = rest;
            Some(None)
        }
        None => take_string(bytes).map(Some),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    out.put_slice(bytes);
}

fn take_bytes(bytes: &mut &[u8]) -> Option<Bytes> {
    let len = usize::try_from(i32::from_be_bytes(take(bytes)?)).ok()?;
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(Bytes::copy_from_slice(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> GroupMetadata {
        let member = |id: &str, instance: Option<&str>| StoredMember {
            member_id: id.into(),
            instance_id: instance.map(Into::into),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 3,
            session_timeout_ms: 2,
            subscription: Bytes::from_static(b"su"),
            assignment: Bytes::new(),
        };
        GroupMetadata {
            protocol_type: "consumer".into(),
            generation: 5,
            protocol: Some("range".into()),
            leader: Some("m".into()),
            state_since_ms: 256,
            members: vec![member("m", None), member("n", Some("i"))],
        }
    }

    #[test]
    fn golden_bytes_are_kafkas() {
        assert_eq!(&encode_metadata_key("g")[..], b"\x00\x02\x00\x01g");
        assert_eq!(decode_metadata_key(b"\x00\x02\x00\x01g"), Some("g".into()));
        assert_eq!(decode_metadata_key(b"\x00\x01\x00\x01g"), None, "an offset's");
        let golden = [
            &b"\x00\x03\x00\x08consumer\x00\x00\x00\x05\x00\x05range\x00\x01m\x00\x00\x00\x00\x00\x00\x01\x00"[..],
            b"\x00\x00\x00\x02",
            b"\x00\x01m\xff\xff\x00\x01c\x00\x02/h\x00\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00\x02su\x00\x00\x00\x00",
            b"\x00\x01n\x00\x01i\x00\x01c\x00\x02/h\x00\x00\x00\x03\x00\x00\x00\x02\x00\x00\x00\x02su\x00\x00\x00\x00",
        ]
        .concat();
        assert_eq!(&example().encode()[..], &golden[..]);
        assert_eq!(GroupMetadata::decode(&golden), Some(example()));
        let empty = GroupMetadata { state_since_ms: -1, ..GroupMetadata::default() };
        assert_eq!(GroupMetadata::decode(&empty.encode()), Some(empty));
    }

    #[test]
    fn cut_or_longer_records_are_refused() {
        let value = example().encode();
        (0..value.len()).for_each(|len| assert_eq!(GroupMetadata::decode(&value[..len]), None, "{len}"));
        assert_eq!(GroupMetadata::decode(&[&value[..], b"\0"].concat()), None);
        let many = b"\x00\x03\x00\x00\x00\x00\x00\x05\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x01\x00\x7f\xff\xff\xff";
        assert_eq!(GroupMetadata::decode(many), None, "a count without members");
    }
}
