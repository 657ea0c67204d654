//! Group offsets and group metadata: committed as records of `__consumer_offsets`, looked up in the index.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::ids::TopicPartition;
use crate::index::{IndexError, StateKeyspace};
use crate::membership::{GroupMetadata, METADATA_KEYS, decode_metadata_key, encode_metadata_key};
use crate::offsets::{
    CommittedOffset, MAX_STRING, OFFSET_KEYS, decode_key, decode_offset, encode_key, encode_offset, group_prefix,
};
use crate::queue::Done;
use crate::state::Change;
use crate::store::{AppendError, Store, wait};

/// New positions of one group: `None` removes one.
pub type OffsetChanges = Vec<(TopicPartition, Option<CommittedOffset>)>;

/// Everything that is changed about a group at once.
#[derive(Clone, Debug, Default)]
pub struct GroupChanges {
    /// New positions.
    pub offsets: OffsetChanges,
    /// Values of the caller's own; `None` removes one.
    pub values: Vec<(Vec<u8>, Option<Bytes>)>,
    /// New group metadata (`Some(None)` removes it); `None` leaves what is there.
    pub metadata: Option<Option<GroupMetadata>>,
}

/// Why group offsets could not be committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitOffsetsError {
    /// A name or text is longer than a record can hold.
    #[error("group {group:.80}: the {what} has {len} bytes, at most {MAX_STRING} are allowed")]
    TooLong {
        /// The group.
        group: String,
        /// Which text.
        what: &'static str,
        /// Its length.
        len: usize,
    },
    /// There is no such topic.
    #[error("group {group:.80}: there is no topic {topic:.80}")]
    UnknownTopic {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
    /// The change could not be committed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Store {
    /// Commits a group's positions, and values of the caller's own with them, all or nothing.
    ///
    /// # Durability
    /// `done` gets `Ok` only once they are durable.
    /// # Errors
    /// [`CommitOffsetsError::TooLong`] and [`CommitOffsetsError::UnknownTopic`] at once, with nothing queued; the rest
    /// through `done`.
    pub fn commit_offsets(
        &self,
        group: &str,
        offsets: &OffsetChanges,
        values: Vec<(Vec<u8>, Option<Bytes>)>,
        done: Done,
    ) -> Result<(), CommitOffsetsError> {
        self.change_group(group, GroupChanges { offsets: offsets.clone(), values, metadata: None }, done)
    }

    /// Changes what is known of a group, all or nothing.
    ///
    /// # Durability
    /// `done` gets `Ok` only once it is durable. Changes are made in the order of the calls.
    /// # Errors
    /// [`CommitOffsetsError::TooLong`] at once, with nothing queued; the rest through `done`.
    pub fn change_group(&self, group: &str, changed: GroupChanges, done: Done) -> Result<(), CommitOffsetsError> {
        let GroupChanges { offsets, values, metadata } = changed;
        let too_long = |what, len: usize| match len {
            len if len > MAX_STRING => Err(CommitOffsetsError::TooLong { group: group.to_owned(), what, len }),
            _ => Ok(()),
        };
        too_long("group name", group.len())?;
        let mut changes = Vec::with_capacity(offsets.len() + values.len() + 1);
        for (place, committed) in &offsets {
            too_long("topic name", place.topic.len())?;
            too_long("metadata", committed.as_ref().map_or(0, |c| c.metadata.len()))?;
            let (key, value) = (encode_key(group, place), committed.as_ref().map(encode_offset));
            changes.push((StateKeyspace::Groups, Change { key, value }));
        }
        if let Some(metadata) = &metadata {
            let longest = metadata.as_ref().and_then(GroupMetadata::too_long);
            longest.map_or(Ok(()), |(what, len)| too_long(what, len))?;
            let (key, value) = (encode_metadata_key(group), metadata.as_ref().map(GroupMetadata::encode));
            changes.push((StateKeyspace::Groups, Change { key, value }));
        }
        for (name, value) in values {
            changes.push((StateKeyspace::State, Change::kv(&name, value)));
        }
        // Held until the change is queued: a topic that is deleted leaves the registry first, then its positions are
        // removed behind whatever is queued.
        let topics = self.core.topics.read();
        let unknown = |place: &&TopicPartition| !topics.by_name.contains_key(&place.topic);
        let mut kept = offsets.iter().filter(|(_, committed)| committed.is_some()).map(|(place, _)| place);
        if let Some(TopicPartition { topic, .. }) = kept.find(unknown) {
            return Err(CommitOffsetsError::UnknownTopic { group: group.to_owned(), topic: topic.clone() });
        }
        self.core.change(changes, false, done);
        Ok(())
    }

    /// [`Store::commit_offsets`], waited for.
    ///
    /// # Errors
    /// See [`CommitOffsetsError`].
    pub fn commit_offsets_wait(
        &self,
        group: &str,
        offsets: &OffsetChanges,
        values: Vec<(Vec<u8>, Option<Bytes>)>,
    ) -> Result<(), CommitOffsetsError> {
        let mut refused = Ok(());
        let outcome = wait(|done| refused = self.commit_offsets(group, offsets, values, done));
        refused?;
        outcome?;
        Ok(())
    }

    /// A group's position in one partition.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn committed(&self, group: &str, place: &TopicPartition) -> Result<Option<CommittedOffset>, IndexError> {
        let key = encode_key(group, place);
        let Some(bytes) = self.core.state(StateKeyspace::Groups, &key)? else { return Ok(None) };
        decode_offset(&bytes).map(Some).ok_or_else(|| damaged(&key))
    }

    /// All positions of a group.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn group_offsets(&self, group: &str) -> Result<BTreeMap<TopicPartition, CommittedOffset>, IndexError> {
        let rows = self.core.state_prefix(StateKeyspace::Groups, &group_prefix(group))?;
        let row = |(key, bytes): (Bytes, Bytes)| {
            let place = decode_key(&key).map(|(_, place)| place);
            place.zip(decode_offset(&bytes)).ok_or_else(|| damaged(&key))
        };
        rows.into_iter().map(row).collect()
    }

    /// Names of all groups that have a position.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn groups(&self) -> Result<BTreeSet<String>, IndexError> {
        let rows = self.core.state_prefix(StateKeyspace::Groups, &OFFSET_KEYS)?;
        rows.keys().map(|key| decode_key(key).map(|(group, _)| group).ok_or_else(|| damaged(key))).collect()
    }

    /// Metadata of all groups that have any.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub fn group_metadata(&self) -> Result<BTreeMap<String, GroupMetadata>, IndexError> {
        let rows = self.core.state_prefix(StateKeyspace::Groups, &METADATA_KEYS)?;
        let row = |(key, bytes): (Bytes, Bytes)| {
            let group = decode_metadata_key(&key);
            group.zip(GroupMetadata::decode(&bytes)).ok_or_else(|| damaged(&key))
        };
        rows.into_iter().map(row).collect()
    }
}

fn damaged(key: &[u8]) -> IndexError {
    IndexError::Row { keyspace: "groups", key: key.iter().map(|b| format!("{b:02x}")).collect() }
}
