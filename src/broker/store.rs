//! What the broker needs of a log, in Kafka's terms; the embedded store's side of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use azulite_storage::Store;
use azulite_storage::groups::{CommitOffsetsError, GroupChanges, OffsetChanges};
use azulite_storage::index::IndexError;
use azulite_storage::log::ReadError;
use azulite_storage::membership::GroupMetadata;
use azulite_storage::offsets::CommittedOffset;
use azulite_storage::producers::ProducerState;
use azulite_storage::topics::{ConfigChange, CreateTopicError, DeleteRecordsError, TopicError, TopicSettings};
use azulite_storage::usage::Usage;
use azulite_storage::{
    Append, AppendError, Done, Lane, NewTopic, Offset, Partition, PartitionIndex, PartitionNumber, Topic, TopicId,
    TopicPartition,
};
use bytes::Bytes;

/// Told after each commit which partitions grew, on a storage thread.
pub type CommitListener = Box<dyn Fn(&[PartitionNumber]) + Send + Sync>;

/// A value of the caller's own that is committed together with group offsets; `None` removes it.
pub type Value = (Vec<u8>, Option<Bytes>);

/// A log of topics with group offsets. Calls may block on the disk and are made on blocking threads, except
/// [`LogStore::append`], [`LogStore::append_with`], [`LogStore::try_append`], [`LogStore::queue_kv`],
/// [`LogStore::commit_offsets`], [`LogStore::change_group`], [`LogStore::topic`] and [`LogStore::topics`], which never do.
pub trait LogStore: Send + Sync + 'static {
    /// See [`Store::on_commit`].
    fn on_commit(&self, listener: CommitListener);
    /// See [`Store::topic`].
    fn topic(&self, name: &str) -> Option<Arc<Topic>>;
    /// See [`Store::topics`].
    fn topics(&self) -> Vec<Arc<Topic>>;
    /// See [`Store::topic_by_id`].
    fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>>;
    /// See [`Store::create_topic`].
    ///
    /// # Errors
    /// See [`CreateTopicError`].
    fn create_topic(&self, new: NewTopic) -> Result<Arc<Topic>, CreateTopicError>;
    /// See [`Store::delete_topic`].
    ///
    /// # Errors
    /// See [`TopicError`].
    fn delete_topic(&self, name: &str) -> Result<Arc<Topic>, TopicError>;
    /// See [`Store::delete_topic_by_id`].
    ///
    /// # Errors
    /// See [`TopicError`].
    fn delete_topic_by_id(&self, id: TopicId) -> Result<Arc<Topic>, TopicError>;
    /// See [`Store::grow_partitions`].
    ///
    /// # Errors
    /// See [`TopicError`].
    fn grow_partitions(&self, name: &str, total: PartitionIndex) -> Result<Arc<Topic>, TopicError>;
    /// See [`Store::alter_config`].
    ///
    /// # Errors
    /// See [`TopicError`].
    fn alter_config(&self, name: &str, change: ConfigChange) -> Result<Arc<Topic>, TopicError>;
    /// See [`Store::set_topic_defaults`].
    fn set_topic_defaults(&self, defaults: TopicSettings);
    /// See [`Store::delete_records`].
    ///
    /// # Errors
    /// See [`DeleteRecordsError`].
    fn delete_records(&self, below: &[(TopicPartition, Option<Offset>)]) -> Vec<Result<Offset, DeleteRecordsError>>;
    /// See [`Store::append`].
    fn append(&self, lane: Lane, appends: Vec<Append>, done: Done);
    /// See [`Store::append_with`].
    fn append_with(&self, lane: Lane, appends: Vec<Append>, values: Vec<Value>, done: Done);
    /// See [`Store::try_append`].
    ///
    /// # Errors
    /// What was given, because there is no room for it now.
    fn try_append(&self, lane: Lane, appends: Vec<Append>, done: Done) -> Result<(), (Vec<Append>, Done)>;
    /// See [`Store::read`].
    ///
    /// # Errors
    /// See [`ReadError`].
    fn read(&self, partition: &Partition, from: Offset, max_bytes: usize) -> Result<Vec<Bytes>, ReadError>;
    /// See [`Store::readable_bytes`].
    ///
    /// # Errors
    /// See [`ReadError`].
    fn readable_bytes(&self, partition: &Partition, from: Offset, max_bytes: usize) -> Result<usize, ReadError>;
    /// See [`Store::read_bytes`].
    fn read_bytes(&self) -> u64;
    /// See [`Store::usage`].
    ///
    /// # Errors
    /// As the operating system reports them.
    fn usage(&self) -> std::io::Result<Usage>;
    /// See [`Store::offset_for_time`].
    ///
    /// # Errors
    /// See [`ReadError`].
    fn offset_for_time(&self, partition: &Partition, timestamp: i64) -> Result<Option<(Offset, i64)>, ReadError>;
    /// See [`Store::newest_record`].
    ///
    /// # Errors
    /// See [`ReadError`].
    fn newest_record(&self, partition: &Partition) -> Result<Option<(Offset, i64)>, ReadError>;
    /// See [`Store::init_producer_id`].
    ///
    /// # Errors
    /// See [`AppendError`].
    fn init_producer_id(&self) -> Result<i64, AppendError>;
    /// See [`Store::producers`].
    ///
    /// # Errors
    /// See [`IndexError`].
    fn producers(&self, partition: &Partition, now_ms: i64) -> Result<Vec<ProducerState>, IndexError>;
    /// See [`Store::commit_offsets`].
    ///
    /// # Errors
    /// See [`CommitOffsetsError`].
    fn commit_offsets(
        &self,
        group: &str,
        offsets: &OffsetChanges,
        values: Vec<Value>,
        done: Done,
    ) -> Result<(), CommitOffsetsError>;
    /// See [`Store::change_group`].
    ///
    /// # Errors
    /// See [`CommitOffsetsError`].
    fn change_group(&self, group: &str, changes: GroupChanges, done: Done) -> Result<(), CommitOffsetsError>;
    /// See [`Store::commit_offsets_wait`].
    ///
    /// # Errors
    /// See [`CommitOffsetsError`].
    fn commit_offsets_wait(
        &self,
        group: &str,
        offsets: &OffsetChanges,
        values: Vec<Value>,
    ) -> Result<(), CommitOffsetsError>;
    /// See [`Store::group_offsets`].
    ///
    /// # Errors
    /// See [`IndexError`].
    fn group_offsets(&self, group: &str) -> Result<BTreeMap<TopicPartition, CommittedOffset>, IndexError>;
    /// See [`Store::groups`].
    ///
    /// # Errors
    /// See [`IndexError`].
    fn groups(&self) -> Result<BTreeSet<String>, IndexError>;
    /// See [`Store::group_metadata`].
    ///
    /// # Errors
    /// See [`IndexError`].
    fn group_metadata(&self) -> Result<BTreeMap<String, GroupMetadata>, IndexError>;
    /// See [`Store::kv`].
    ///
    /// # Errors
    /// See [`IndexError`].
    fn kv(&self, name: &[u8]) -> Result<Option<Bytes>, IndexError>;
    /// See [`Store::put_kv`].
    ///
    /// # Errors
    /// See [`AppendError`].
    fn put_kv(&self, values: Vec<Value>) -> Result<(), AppendError>;
    /// See [`Store::queue_kv`].
    fn queue_kv(&self, values: Vec<Value>, done: Done);
    /// See [`Store::kv_page`].
    ///
    /// # Errors
    /// See [`IndexError`].
    fn kv_page(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, IndexError>;
}

impl LogStore for Store {
    fn on_commit(&self, listener: CommitListener) {
        Store::on_commit(self, listener);
    }
    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        Store::topic(self, name)
    }
    fn topics(&self) -> Vec<Arc<Topic>> {
        Store::topics(self)
    }
    fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        Store::topic_by_id(self, id)
    }
    fn create_topic(&self, new: NewTopic) -> Result<Arc<Topic>, CreateTopicError> {
        Store::create_topic(self, new)
    }
    fn delete_topic(&self, name: &str) -> Result<Arc<Topic>, TopicError> {
        Store::delete_topic(self, name)
    }
    fn delete_topic_by_id(&self, id: TopicId) -> Result<Arc<Topic>, TopicError> {
        Store::delete_topic_by_id(self, id)
    }
    fn grow_partitions(&self, name: &str, total: PartitionIndex) -> Result<Arc<Topic>, TopicError> {
        Store::grow_partitions(self, name, total)
    }
    fn alter_config(&self, name: &str, change: ConfigChange) -> Result<Arc<Topic>, TopicError> {
        Store::alter_config(self, name, change)
    }
    fn set_topic_defaults(&self, defaults: TopicSettings) {
        Store::set_topic_defaults(self, defaults);
    }
    fn delete_records(&self, below: &[(TopicPartition, Option<Offset>)]) -> Vec<Result<Offset, DeleteRecordsError>> {
        Store::delete_records(self, below)
    }
    fn offset_for_time(&self, partition: &Partition, timestamp: i64) -> Result<Option<(Offset, i64)>, ReadError> {
        Store::offset_for_time(self, partition, timestamp)
    }
    fn newest_record(&self, partition: &Partition) -> Result<Option<(Offset, i64)>, ReadError> {
        Store::newest_record(self, partition)
    }
    fn init_producer_id(&self) -> Result<i64, AppendError> {
        Store::init_producer_id(self)
    }
    fn producers(&self, partition: &Partition, now_ms: i64) -> Result<Vec<ProducerState>, IndexError> {
        Store::producers(self, partition, now_ms)
    }
    fn append(&self, lane: Lane, appends: Vec<Append>, done: Done) {
        Store::append(self, lane, appends, done);
    }
    fn append_with(&self, lane: Lane, appends: Vec<Append>, values: Vec<Value>, done: Done) {
        Store::append_with(self, lane, appends, values, done);
    }
    fn try_append(&self, lane: Lane, appends: Vec<Append>, done: Done) -> Result<(), (Vec<Append>, Done)> {
        Store::try_append(self, lane, appends, done)
    }
    fn read(&self, partition: &Partition, from: Offset, max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        Store::read(self, partition, from, max_bytes)
    }
    fn readable_bytes(&self, partition: &Partition, from: Offset, max_bytes: usize) -> Result<usize, ReadError> {
        Store::readable_bytes(self, partition, from, max_bytes)
    }
    fn read_bytes(&self) -> u64 {
        Store::read_bytes(self)
    }
    fn usage(&self) -> std::io::Result<Usage> {
        Store::usage(self)
    }
    fn commit_offsets(
        &self,
        group: &str,
        offsets: &OffsetChanges,
        values: Vec<Value>,
        done: Done,
    ) -> Result<(), CommitOffsetsError> {
        Store::commit_offsets(self, group, offsets, values, done)
    }
    fn change_group(&self, group: &str, changes: GroupChanges, done: Done) -> Result<(), CommitOffsetsError> {
        Store::change_group(self, group, changes, done)
    }
    fn commit_offsets_wait(
        &self,
        group: &str,
        offsets: &OffsetChanges,
        values: Vec<Value>,
    ) -> Result<(), CommitOffsetsError> {
        Store::commit_offsets_wait(self, group, offsets, values)
    }
    fn group_offsets(&self, group: &str) -> Result<BTreeMap<TopicPartition, CommittedOffset>, IndexError> {
        Store::group_offsets(self, group)
    }
    fn groups(&self) -> Result<BTreeSet<String>, IndexError> {
        Store::groups(self)
    }
    fn group_metadata(&self) -> Result<BTreeMap<String, GroupMetadata>, IndexError> {
        Store::group_metadata(self)
    }
    fn kv(&self, name: &[u8]) -> Result<Option<Bytes>, IndexError> {
        Store::kv(self, name)
    }
    fn put_kv(&self, values: Vec<Value>) -> Result<(), AppendError> {
        Store::put_kv(self, values)
    }
    fn queue_kv(&self, values: Vec<Value>, done: Done) {
        Store::queue_kv(self, values, done);
    }
    fn kv_page(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, IndexError> {
        Store::kv_page(self, prefix, after, limit)
    }
}
