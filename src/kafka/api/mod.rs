//! What each request means: from messages to calls of the broker and back. One file per family of APIs.
//!
//! Nothing here knows sockets; errors of the broker become codes here and nowhere else.

mod admin;
mod cluster;
mod configs;
mod fetch;
mod groups;
mod list_offsets;
mod offsets;
mod produce;
mod topics;
mod versions;

use std::collections::HashSet;
use std::future::Future;
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use azulite_storage::ids::TopicId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::codec::{ApiKey, Request, RequestHeader, Response, Str, Uuid};
use super::complaints::Complaints;
use super::error::ErrorCode;
use super::frame::{Budget, Room};
use crate::broker::groups::Coordinator;
use crate::broker::{Broker, Lane, Topic};

/// For which topics a replication factor above 1 is taken as 1; for others it is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClampReplication {
    /// For none.
    None,
    /// For event topics, so that other people's tooling can make them.
    #[default]
    Events,
    /// For all.
    All,
}

/// What the cluster looks like to clients, and bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// The one broker's id.
    pub node_id: i32,
    /// Stable for the life of the data directory.
    pub cluster_id: String,
    /// Host and port clients are told.
    pub advertised: (String, u16),
    /// Where the data lies.
    pub data_dir: PathBuf,
    /// Begin of the names of event topics, with the dot behind it.
    pub events_prefix: String,
    /// Which topics may ask for more replicas than there are brokers.
    pub clamp_replication: ClampReplication,
    /// Whether a metadata request may make a topic.
    pub auto_create_topics: bool,
    /// Partitions of a topic that does not say.
    pub default_partitions: i32,
    /// Most bytes of records in one answer.
    pub fetch_max_bytes: usize,
    /// Bytes of records in answers under way, of all connections together; at least one largest answer.
    pub fetch_memory: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node_id: 1,
            cluster_id: "azulite-cluster-000000".to_owned(),
            advertised: ("127.0.0.1".to_owned(), 9092),
            data_dir: PathBuf::new(),
            events_prefix: "azul.".to_owned(),
            clamp_replication: ClampReplication::Events,
            auto_create_topics: true,
            default_partitions: 1,
            fetch_max_bytes: 16 << 20,
            fetch_memory: 64 << 20,
        }
    }
}

/// Answers of unknown size that are built at once.
const BUILT_AT_ONCE: usize = 4;
/// Longest name of a client that is kept, bytes.
const MAX_CLIENT_ID: usize = 1024;
/// Longest message to a client, bytes: parts of it may be the client's own words.
const MAX_MESSAGE: usize = 4096;

/// Who asks.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where from.
    pub(super) address: SocketAddr,
    /// What the client calls itself.
    pub(super) client_id: String,
    /// Its turn among those that append.
    pub(super) lane: Lane,
    /// Which partition of its next fetch comes first, so that none starves.
    pub(super) turn: AtomicUsize,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, lane: Lane) -> Self {
        Self { address, client_id: String::new(), lane, turn: AtomicUsize::new(0) }
    }

    /// Takes note of what a request says of its client.
    pub(super) fn note(&mut self, header: &RequestHeader) {
        let said = header.client_id.as_deref().unwrap_or_default();
        let said = said.get(..said.floor_char_boundary(MAX_CLIENT_ID)).unwrap_or_default();
        if self.client_id != said {
            said.clone_into(&mut self.client_id);
        }
    }
}

/// An answer that waits for the log: `None` when the request wants none, an error when it wants none and failed.
pub(super) type Later = Pin<Box<dyn Future<Output = Result<Option<Response>, String>> + Send>>;

/// What a request comes to.
pub(super) enum Reply {
    /// An answer.
    Now(Response),
    /// An answer that holds memory until it has left.
    Held(Response, Room),
    /// No answer: it is not in [`Api::serves`].
    Unserved,
}

impl<R: Into<Response>> From<R> for Reply {
    fn from(response: R) -> Self {
        Self::Now(response.into())
    }
}

/// The Kafka side of the broker.
pub struct Api {
    broker: Broker,
    coordinator: Arc<Coordinator>,
    options: Options,
    fetch_memory: Budget,
    /// Turns to build answers that may be large.
    building: Arc<Semaphore>,
    /// About damage that clients meet again and again.
    complaints: Complaints<String>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Api {
    /// An API over a broker.
    #[must_use]
    pub fn new(broker: Broker, coordinator: Arc<Coordinator>, options: Options) -> Self {
        let fetch_memory = Budget::new(options.fetch_memory);
        let building = Arc::new(Semaphore::new(BUILT_AT_ONCE));
        Self { broker, coordinator, options, fetch_memory, building, complaints: Complaints::default() }
    }

    /// Who knows the members of groups.
    #[must_use]
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Works on one request whose version has been checked; [`Api::produce`] is on its own, because it does not wait for
    /// its answer.
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing half done; what was handed to the log stays there.
    pub(super) async fn handle(&self, peer: &Peer, version: i16, request: Request) -> Reply {
        match request {
            Request::Fetch(request) => self.fetch(peer, request, version).await,
            Request::ListOffsets(request) => self.list_offsets(request, version).await.into(),
            Request::Metadata(request) => self.metadata(request, version).await.into(),
            Request::OffsetCommit(request) => self.offset_commit(request).await.into(),
            Request::OffsetFetch(request) => self.offset_fetch(request, version).await.into(),
            Request::FindCoordinator(request) => self.find_coordinator(request, version).into(),
            Request::JoinGroup(request) => self.join_group(peer, request, version).await.into(),
            Request::Heartbeat(request) => self.heartbeat(&request).into(),
            Request::LeaveGroup(request) => self.leave_group(request, version).into(),
            Request::SyncGroup(request) => self.sync_group(request).await.into(),
            Request::DescribeGroups(request) => self.describe_groups(request, version).await.into(),
            Request::ListGroups(request) => self.list_groups(request).await.into(),
            Request::ApiVersions(request) => self.api_versions(&request, version).into(),
            Request::CreateTopics(request) => self.create_topics(request).await.into(),
            Request::DeleteTopics(request) => self.delete_topics(request).await.into(),
            Request::DeleteRecords(request) => self.delete_records(request).await.into(),
            Request::InitProducerId(request) => self.init_producer_id(request).await.into(),
            Request::OffsetForLeaderEpoch(request) => self.offset_for_leader_epoch(request).into(),
            Request::DescribeAcls(_) => Self::describe_acls().into(),
            Request::CreateAcls(request) => Self::create_acls(&request).into(),
            Request::DeleteAcls(request) => Self::delete_acls(&request).into(),
            Request::DescribeConfigs(request) => self.describe_configs(request).await.into(),
            Request::AlterConfigs(request) => self.alter_configs(request).await.into(),
            Request::DescribeLogDirs(request) => self.describe_log_dirs(request).await.into(),
            Request::CreatePartitions(request) => self.create_partitions(request).await.into(),
            Request::DeleteGroups(request) => self.delete_groups(request).await.into(),
            Request::ElectLeaders(request) => self.elect_leaders(&request).into(),
            Request::IncrementalAlterConfigs(request) => self.incremental_alter_configs(request).await.into(),
            Request::ListPartitionReassignments(_) => Self::list_partition_reassignments().into(),
            Request::DescribeClientQuotas(_) => Self::describe_client_quotas().into(),
            Request::DescribeProducers(request) => self.describe_producers(request).await.into(),
            Request::DescribeTransactions(request) => Self::describe_transactions(request).into(),
            Request::ListTransactions(request) => Self::list_transactions(&request).into(),
            Request::ListConfigResources(request) => self.list_config_resources(&request, version).into(),
            Request::OffsetDelete(request) => self.offset_delete(request).await.into(),
            Request::DescribeCluster(request) => self.describe_cluster(&request).into(),
            Request::DescribeTopicPartitions(request) => self.describe_topic_partitions(request).into(),
            Request::Produce(_)
            | Request::SaslHandshake(_)
            | Request::SaslAuthenticate(_)
            | Request::AddPartitionsToTxn(_)
            | Request::AddOffsetsToTxn(_)
            | Request::EndTxn(_)
            | Request::TxnOffsetCommit(_)
            | Request::AlterClientQuotas(_)
            | Request::DescribeUserScramCredentials(_)
            | Request::AlterUserScramCredentials(_)
            | Request::ConsumerGroupHeartbeat(_)
            | Request::ConsumerGroupDescribe(_) => Reply::Unserved,
        }
    }

    /// Whether requests of this API are answered. Only these are advertised.
    #[expect(clippy::unused_self, reason = "what is served will depend on the configuration")]
    pub(super) fn serves(&self, key: ApiKey) -> bool {
        matches!(
            key,
            ApiKey::Produce
                | ApiKey::Fetch
                | ApiKey::ListOffsets
                | ApiKey::Metadata
                | ApiKey::OffsetCommit
                | ApiKey::OffsetFetch
                | ApiKey::FindCoordinator
                | ApiKey::JoinGroup
                | ApiKey::Heartbeat
                | ApiKey::LeaveGroup
                | ApiKey::SyncGroup
                | ApiKey::DescribeGroups
                | ApiKey::ListGroups
                | ApiKey::ApiVersions
                | ApiKey::CreateTopics
                | ApiKey::DeleteTopics
                | ApiKey::DeleteRecords
                | ApiKey::InitProducerId
                | ApiKey::OffsetForLeaderEpoch
                | ApiKey::DescribeAcls
                | ApiKey::CreateAcls
                | ApiKey::DeleteAcls
                | ApiKey::DescribeConfigs
                | ApiKey::AlterConfigs
                | ApiKey::DescribeLogDirs
                | ApiKey::CreatePartitions
                | ApiKey::ElectLeaders
                | ApiKey::IncrementalAlterConfigs
                | ApiKey::ListPartitionReassignments
                | ApiKey::DescribeClientQuotas
                | ApiKey::DescribeProducers
                | ApiKey::DescribeTransactions
                | ApiKey::ListTransactions
                | ApiKey::ListConfigResources
                | ApiKey::DeleteGroups
                | ApiKey::OffsetDelete
                | ApiKey::DescribeCluster
                | ApiKey::DescribeTopicPartitions
        )
    }

    /// A turn to build an answer that may be large, to be kept until there is room for it.
    pub(super) async fn turn_to_build(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.building.clone().acquire_owned().await.ok()
    }

    /// Room for a large answer, to be kept until it has left.
    pub(super) async fn room_to_answer(&self, bytes: usize) -> Room {
        self.fetch_memory.take(bytes).await
    }

    /// True while fetches wait for memory that answers under way take.
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.fetch_memory.is_short()
    }

    /// A lane of its own for a connection's appends.
    pub(super) fn new_lane(&self) -> Lane {
        self.broker.new_lane()
    }

    /// Runs on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Broker) -> T + Send + 'static,
    ) -> Result<T, topics::Failure> {
        let broker = self.broker.clone();
        let failed = |error| (ErrorCode::UnknownServerError, format!("the broker failed: {error}"));
        tokio::task::spawn_blocking(move || work(broker)).await.map_err(failed)
    }

    /// A topic by name, or by id where there is one.
    fn topic(&self, name: &str, id: Uuid) -> Option<Arc<Topic>> {
        match id {
            Uuid::ZERO => self.broker.log().topic(name),
            Uuid(id) => self.broker.log().topic_by_id(TopicId(id)),
        }
    }
}

/// A text of ours in a message.
fn text(text: &str) -> Str {
    Str::from(text.to_owned())
}

/// What is said of a failure, cut to what every version can say.
fn message(mut message: String) -> Option<Str> {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    Some(message.into())
}

/// The code for a topic that is not there: it was named by its id from this version of Produce and Fetch on.
fn unknown_topic(version: i16) -> ErrorCode {
    if version >= 13 { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition }
}

/// Keeps the first of each: an answer to the same question twice is memory for nothing.
fn keep_first<T, K: Eq + Hash>(asked: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = HashSet::with_capacity(asked.len());
    asked.retain(|one| seen.insert(key(one)));
}
