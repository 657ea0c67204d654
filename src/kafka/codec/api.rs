//! The table of API keys: names, versions, and which part of the product answers them.

use super::fault::{DecodeError, Fault};
use super::field::{Message, RequestMessage};
use super::messages;
use super::reader::Reader;
use super::writer::Writer;

/// What has to work before an API key may be advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// Topics, records, classic groups and their administration.
    Core,
    /// Authentication switched on.
    Sasl,
    /// Transactions.
    Transactions,
    /// Groups of the `consumer` protocol.
    ConsumerGroups,
    /// Quotas, ACLs and other administration that clients can do without.
    Extras,
}

/// `key Name file::{Request, Response} Needs,` for each API.
macro_rules! apis {
    ($($key:literal $name:ident $file:ident::{$request:ident, $response:ident} $needs:ident,)*) => {
        /// An API of the protocol that this codec can read and write.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ApiKey {
            $(#[doc = concat!("Key ", stringify!($key), ".")] $name,)*
        }

        impl ApiKey {
            /// All of them, by key.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> i16 {
                match self { $(Self::$name => $key,)* }
            }

            /// The name in the protocol guide.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The API with this number.
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// What has to work before this key may be advertised.
            #[must_use]
            pub const fn needs(self) -> Needs {
                match self { $(Self::$name => Needs::$needs,)* }
            }

            /// Lowest and highest version that can be read and written.
            #[must_use]
            pub const fn versions(self) -> (i16, i16) {
                match self { $(Self::$name => messages::$file::$request::VERSIONS,)* }
            }

            /// First version with compact lengths, tagged fields and the longer headers.
            #[must_use]
            pub const fn first_flexible(self) -> Option<i16> {
                match self { $(Self::$name => messages::$file::$request::FIRST_FLEXIBLE,)* }
            }
        }

        $(impl RequestMessage for messages::$file::$request {
            const KEY: ApiKey = ApiKey::$name;
            type Response = messages::$file::$response;
        })*

        apis!(@any Request "A request" $($name $file $request)*);
        apis!(@any Response "An answer" $($name $file $response)*);
    };
    (@any $any:ident $what:literal $($name:ident $file:ident $message:ident)*) => {
        #[doc = concat!($what, " of any API.")]
        #[derive(Clone, Debug, PartialEq)]
        pub enum $any {
            $(#[doc = concat!($what, " of ", stringify!($name), ".")] $name(messages::$file::$message),)*
        }

        impl $any {
            /// Reads one; bytes behind it stay in the reader.
            ///
            /// # Errors
            /// Message, version, field and what was wrong.
            pub fn read(key: ApiKey, reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
                match key { $(ApiKey::$name => messages::$file::$message::read(reader, version).map(Self::$name),)* }
            }

            /// Writes it; fields that this version lacks are left out.
            pub fn write(&self, writer: &mut Writer, version: i16) {
                match self { $(Self::$name(message) => message.write(writer, version),)* }
            }

            /// Which API it belongs to.
            #[must_use]
            pub const fn key(&self) -> ApiKey {
                match self { $(Self::$name(_) => ApiKey::$name,)* }
            }

            #[cfg(test)]
            pub(super) fn random(key: ApiKey, rng: &mut super::random::Rng, version: i16) -> Self {
                match key { $(ApiKey::$name => {
                    let layout = <messages::$file::$message as Message>::layout(version);
                    Self::$name(super::random::Random::random(rng, layout))
                })* }
            }
        }

        $(impl From<messages::$file::$message> for $any {
            fn from(message: messages::$file::$message) -> Self {
                Self::$name(message)
            }
        })*
    };
}

apis! {
0 Produce produce::{ProduceRequest, ProduceResponse} Core,
1 Fetch fetch::{FetchRequest, FetchResponse} Core,
2 ListOffsets list_offsets::{ListOffsetsRequest, ListOffsetsResponse} Core,
3 Metadata metadata::{MetadataRequest, MetadataResponse} Core,
8 OffsetCommit offset_commit::{OffsetCommitRequest, OffsetCommitResponse} Core,
9 OffsetFetch offset_fetch::{OffsetFetchRequest, OffsetFetchResponse} Core,
10 FindCoordinator find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse} Core,
11 JoinGroup join_group::{JoinGroupRequest, JoinGroupResponse} Core,
12 Heartbeat heartbeat::{HeartbeatRequest, HeartbeatResponse} Core,
13 LeaveGroup leave_group::{LeaveGroupRequest, LeaveGroupResponse} Core,
14 SyncGroup sync_group::{SyncGroupRequest, SyncGroupResponse} Core,
15 DescribeGroups describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse} Core,
16 ListGroups list_groups::{ListGroupsRequest, ListGroupsResponse} Core,
17 SaslHandshake sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse} Sasl,
18 ApiVersions api_versions::{ApiVersionsRequest, ApiVersionsResponse} Core,
19 CreateTopics create_topics::{CreateTopicsRequest, CreateTopicsResponse} Core,
20 DeleteTopics delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse} Core,
21 DeleteRecords delete_records::{DeleteRecordsRequest, DeleteRecordsResponse} Core,
22 InitProducerId init_producer_id::{InitProducerIdRequest, InitProducerIdResponse} Core,
23 OffsetForLeaderEpoch offset_for_leader_epoch::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse} Core,
24 AddPartitionsToTxn add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse} Transactions,
25 AddOffsetsToTxn add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse} Transactions,
26 EndTxn end_txn::{EndTxnRequest, EndTxnResponse} Transactions,
28 TxnOffsetCommit txn_offset_commit::{TxnOffsetCommitRequest, TxnOffsetCommitResponse} Transactions,
29 DescribeAcls describe_acls::{DescribeAclsRequest, DescribeAclsResponse} Extras,
30 CreateAcls create_acls::{CreateAclsRequest, CreateAclsResponse} Extras,
31 DeleteAcls delete_acls::{DeleteAclsRequest, DeleteAclsResponse} Extras,
32 DescribeConfigs describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse} Core,
33 AlterConfigs alter_configs::{AlterConfigsRequest, AlterConfigsResponse} Core,
35 DescribeLogDirs describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse} Extras,
36 SaslAuthenticate sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse} Sasl,
37 CreatePartitions create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse} Core,
42 DeleteGroups delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse} Core,
43 ElectLeaders elect_leaders::{ElectLeadersRequest, ElectLeadersResponse} Extras,
44 IncrementalAlterConfigs incremental_alter_configs::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse} Core,
46 ListPartitionReassignments list_partition_reassignments::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse} Extras,
47 OffsetDelete offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse} Core,
48 DescribeClientQuotas describe_client_quotas::{DescribeClientQuotasRequest, DescribeClientQuotasResponse} Extras,
49 AlterClientQuotas alter_client_quotas::{AlterClientQuotasRequest, AlterClientQuotasResponse} Extras,
50 DescribeUserScramCredentials describe_user_scram_credentials::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse} Sasl,
51 AlterUserScramCredentials alter_user_scram_credentials::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse} Sasl,
60 DescribeCluster describe_cluster::{DescribeClusterRequest, DescribeClusterResponse} Core,
61 DescribeProducers describe_producers::{DescribeProducersRequest, DescribeProducersResponse} Extras,
65 DescribeTransactions describe_transactions::{DescribeTransactionsRequest, DescribeTransactionsResponse} Transactions,
66 ListTransactions list_transactions::{ListTransactionsRequest, ListTransactionsResponse} Transactions,
68 ConsumerGroupHeartbeat consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse} ConsumerGroups,
69 ConsumerGroupDescribe consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse} ConsumerGroups,
74 ListConfigResources list_config_resources::{ListConfigResourcesRequest, ListConfigResourcesResponse} Extras,
75 DescribeTopicPartitions describe_topic_partitions::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse} Extras,}

impl ApiKey {
    /// Lowest and highest version to advertise: what can be read, except that Produce begins at 0 as every 4.x broker's
    /// does, because older librdkafka compresses only then. Nobody sends those versions.
    #[must_use]
    pub const fn advertised(self) -> (i16, i16) {
        match (self, self.versions()) {
            (Self::Produce, (_, max)) => (0, max),
            (_, versions) => versions,
        }
    }

    /// Whether a request of this version can be read.
    #[must_use]
    pub const fn has_version(self, version: i16) -> bool {
        let (min, max) = self.versions();
        min <= version && version <= max
    }

    /// Whether this version has compact lengths, tagged fields and the longer headers.
    #[must_use]
    pub fn is_flexible(self, version: i16) -> bool {
        self.first_flexible().is_some_and(|first| version >= first)
    }

    /// Version of the header before a request: 1, or 2 with tagged fields.
    #[must_use]
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the header before an answer: 0, or 1 with tagged fields. Always 0 for ApiVersions, whose caller cannot
    /// know yet what the other side speaks.
    #[must_use]
    pub fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && self != Self::ApiVersions { 1 } else { 0 }
    }
}

impl TryFrom<i16> for ApiKey {
    type Error = Fault;

    fn try_from(code: i16) -> Result<Self, Fault> {
        Self::from_code(code).ok_or(Fault::UnknownApiKey(code))
    }
}
