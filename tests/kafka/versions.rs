//! Every API in every version we advertise: asked with something to say, and the answer read to its last byte.

use azulite::kafka::codec::messages::{
    alter_configs, api_versions, create_acls, create_partitions, create_topics, delete_acls, delete_groups,
    delete_records, delete_topics, describe_acls, describe_client_quotas, describe_cluster, describe_configs,
    describe_groups, describe_log_dirs, describe_producers, describe_topic_partitions, describe_transactions,
    elect_leaders, find_coordinator, heartbeat, incremental_alter_configs, init_producer_id, join_group, leave_group,
    list_config_resources, list_groups, list_offsets, list_partition_reassignments, list_transactions, metadata,
    offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch, sync_group,
};
use azulite::kafka::codec::{ApiKey, Reader, Request, RequestHeader, Response, ResponseHeader, Str, Uuid, Writer};

use crate::wire::{self, Wire, batch};

fn some<T>(one: T) -> Option<Vec<T>> {
    Some(vec![one])
}

fn topic() -> Str {
    "t".into()
}

/// A request with something in every list, where that does no harm.
#[expect(clippy::too_many_lines, reason = "one arm for each API")]
fn request(key: ApiKey, version: i16, topic_id: Uuid) -> Option<Request> {
    let id = if version >= 13 { topic_id } else { Uuid::ZERO };
    let group = || Str::from("g");
    Some(match key {
        ApiKey::Produce => {
            let mut request = wire::produce("t", 0, batch(&[b"v"]), -1);
            request.topic_data[0].topic_id = id;
            request.into()
        }
        ApiKey::Fetch => {
            let mut request = wire::fetch("t", 0, 0);
            request.topics[0].topic_id = id;
            request.into()
        }
        ApiKey::ListOffsets => {
            let partitions = vec![list_offsets::ListOffsetsPartition { timestamp: 5, ..Default::default() }];
            let topics = vec![list_offsets::ListOffsetsTopic { name: topic(), partitions }];
            list_offsets::ListOffsetsRequest { topics, ..Default::default() }.into()
        }
        ApiKey::Metadata => {
            let asked = metadata::MetadataRequestTopic { name: Some(topic()), ..Default::default() };
            metadata::MetadataRequest { topics: some(asked), ..Default::default() }.into()
        }
        ApiKey::OffsetCommit => {
            let partitions = vec![offset_commit::OffsetCommitRequestPartition::default()];
            let topics = vec![offset_commit::OffsetCommitRequestTopic { name: topic(), partitions }];
            offset_commit::OffsetCommitRequest { group_id: group(), topics, ..Default::default() }.into()
        }
        ApiKey::OffsetFetch => {
            let topics = some(offset_fetch::OffsetFetchRequestTopic { name: topic(), partition_indexes: vec![0, 1] });
            let many = offset_fetch::OffsetFetchRequestGroup {
                group_id: group(),
                topics: topics.clone(),
                ..Default::default()
            };
            let all = offset_fetch::OffsetFetchRequestGroup { group_id: "h".into(), topics: None, ..many.clone() };
            let groups = vec![many, all];
            offset_fetch::OffsetFetchRequest { group_id: group(), topics, groups, ..Default::default() }.into()
        }
        ApiKey::FindCoordinator => find_coordinator::FindCoordinatorRequest {
            key: group(),
            coordinator_keys: vec![group(), "h".into()],
            ..Default::default()
        }
        .into(),
        ApiKey::JoinGroup => join_group::JoinGroupRequest {
            group_id: format!("join{version}").into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![join_group::JoinGroupRequestProtocol { name: "range".into(), metadata: "x".into() }],
            ..Default::default()
        }
        .into(),
        ApiKey::Heartbeat => heartbeat::HeartbeatRequest { group_id: group(), ..Default::default() }.into(),
        ApiKey::LeaveGroup => leave_group::LeaveGroupRequest {
            group_id: group(),
            members: vec![leave_group::MemberIdentity::default()],
            ..Default::default()
        }
        .into(),
        ApiKey::SyncGroup => sync_group::SyncGroupRequest {
            group_id: group(),
            assignments: vec![sync_group::SyncGroupRequestAssignment::default()],
            ..Default::default()
        }
        .into(),
        ApiKey::DescribeGroups => {
            describe_groups::DescribeGroupsRequest { groups: vec![group(), "none".into()], ..Default::default() }.into()
        }
        ApiKey::ListGroups => list_groups::ListGroupsRequest::default().into(),
        ApiKey::ApiVersions => api_versions::ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
        }
        .into(),
        ApiKey::CreateTopics => {
            let new = |name: String| create_topics::CreatableTopic {
                name: name.into(),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            };
            let topics = vec![new(format!("new{version}")), new("bad name".to_owned())];
            create_topics::CreateTopicsRequest { topics, ..Default::default() }.into()
        }
        ApiKey::DeleteTopics => delete_topics::DeleteTopicsRequest {
            topics: vec![delete_topics::DeleteTopicState { name: Some("none".into()), topic_id: Uuid::ZERO }],
            topic_names: vec!["none".into()],
            ..Default::default()
        }
        .into(),
        ApiKey::DeleteRecords => {
            let partitions = vec![delete_records::DeleteRecordsPartition::default()];
            let topics = vec![delete_records::DeleteRecordsTopic { name: topic(), partitions }];
            delete_records::DeleteRecordsRequest { topics, ..Default::default() }.into()
        }
        ApiKey::InitProducerId => init_producer_id::InitProducerIdRequest::default().into(),
        ApiKey::OffsetForLeaderEpoch => {
            let partitions = vec![offset_for_leader_epoch::OffsetForLeaderPartition::default()];
            let topics = vec![offset_for_leader_epoch::OffsetForLeaderTopic { topic: topic(), partitions }];
            offset_for_leader_epoch::OffsetForLeaderEpochRequest { topics, ..Default::default() }.into()
        }
        ApiKey::DescribeAcls => describe_acls::DescribeAclsRequest::default().into(),
        ApiKey::CreateAcls => {
            create_acls::CreateAclsRequest { creations: vec![create_acls::AclCreation::default()] }.into()
        }
        ApiKey::DeleteAcls => {
            delete_acls::DeleteAclsRequest { filters: vec![delete_acls::DeleteAclsFilter::default()] }.into()
        }
        ApiKey::DescribeConfigs => {
            let resource = |resource_type, name: &str| describe_configs::DescribeConfigsResource {
                resource_type,
                resource_name: name.to_owned().into(),
                configuration_keys: None,
            };
            let resources = [(2, "t"), (2, "none"), (4, "1"), (8, "1"), (16, ""), (32, "g"), (99, "")];
            let resources = resources.map(|(kind, name)| resource(kind, name)).into();
            describe_configs::DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true }
                .into()
        }
        ApiKey::AlterConfigs => {
            let configs =
                vec![alter_configs::AlterableConfig { name: "retention.ms".into(), value: Some("86400000".into()) }];
            let resources =
                vec![alter_configs::AlterConfigsResource { resource_type: 2, resource_name: topic(), configs }];
            alter_configs::AlterConfigsRequest { resources, ..Default::default() }.into()
        }
        ApiKey::IncrementalAlterConfigs => {
            let configs = vec![incremental_alter_configs::AlterableConfig {
                name: "retention.ms".into(),
                config_operation: 1,
                value: None,
            }];
            let resources = vec![incremental_alter_configs::AlterConfigsResource {
                resource_type: 2,
                resource_name: topic(),
                configs,
            }];
            incremental_alter_configs::IncrementalAlterConfigsRequest { resources, ..Default::default() }.into()
        }
        ApiKey::DescribeLogDirs => {
            let asked = describe_log_dirs::DescribableLogDirTopic { topic: topic(), partitions: vec![0] };
            describe_log_dirs::DescribeLogDirsRequest { topics: some(asked) }.into()
        }
        ApiKey::CreatePartitions => {
            let topics = vec![create_partitions::CreatePartitionsTopic { name: topic(), count: 1, assignments: None }];
            create_partitions::CreatePartitionsRequest { topics, ..Default::default() }.into()
        }
        ApiKey::DeleteGroups => delete_groups::DeleteGroupsRequest { groups_names: vec!["none".into()] }.into(),
        ApiKey::ElectLeaders => {
            let asked = elect_leaders::TopicPartitions { topic: topic(), partitions: vec![0, 5] };
            elect_leaders::ElectLeadersRequest { topic_partitions: some(asked), ..Default::default() }.into()
        }
        ApiKey::ListPartitionReassignments => {
            list_partition_reassignments::ListPartitionReassignmentsRequest::default().into()
        }
        ApiKey::OffsetDelete => {
            let partitions = vec![offset_delete::OffsetDeleteRequestPartition::default()];
            let topics = vec![offset_delete::OffsetDeleteRequestTopic { name: topic(), partitions }];
            offset_delete::OffsetDeleteRequest { group_id: group(), topics }.into()
        }
        ApiKey::DescribeClientQuotas => describe_client_quotas::DescribeClientQuotasRequest::default().into(),
        ApiKey::DescribeCluster => describe_cluster::DescribeClusterRequest::default().into(),
        ApiKey::DescribeProducers => {
            let topics = vec![describe_producers::TopicRequest { name: topic(), partition_indexes: vec![0, 9] }];
            describe_producers::DescribeProducersRequest { topics }.into()
        }
        ApiKey::DescribeTransactions => {
            describe_transactions::DescribeTransactionsRequest { transactional_ids: vec!["x".into()] }.into()
        }
        ApiKey::ListTransactions => list_transactions::ListTransactionsRequest {
            state_filters: vec!["Ongoing".into(), "Odd".into()],
            ..Default::default()
        }
        .into(),
        ApiKey::ListConfigResources => list_config_resources::ListConfigResourcesRequest::default().into(),
        ApiKey::DescribeTopicPartitions => {
            let topics = vec![describe_topic_partitions::TopicRequest { name: topic() }];
            describe_topic_partitions::DescribeTopicPartitionsRequest { topics, ..Default::default() }.into()
        }
        ApiKey::SaslHandshake
        | ApiKey::AddPartitionsToTxn
        | ApiKey::AddOffsetsToTxn
        | ApiKey::EndTxn
        | ApiKey::TxnOffsetCommit
        | ApiKey::SaslAuthenticate
        | ApiKey::AlterClientQuotas
        | ApiKey::DescribeUserScramCredentials
        | ApiKey::AlterUserScramCredentials
        | ApiKey::ConsumerGroupHeartbeat
        | ApiKey::ConsumerGroupDescribe => return None,
    })
}

#[test]
fn every_served_api_answers_in_every_version() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    let topic_id = wire.create("t", 1, &[]);
    let hello = api_versions::ApiVersionsRequest::default();
    let served = wire.ask(&hello, 0).api_keys;
    assert!(served.len() >= 38, "{served:?}");
    let mut exchanges = 0;
    for api in served {
        let key = ApiKey::try_from(api.api_key).unwrap();
        let (min, max) = key.versions();
        assert_eq!(key.advertised(), (api.min_version, api.max_version), "{key:?}");
        for version in min..=max {
            let request = request(key, version, topic_id).unwrap_or_else(|| panic!("no request for {key:?}"));
            exchange(&mut wire, &request, version);
            exchanges += 1;
        }
    }
    assert!(exchanges > 150, "{exchanges}");
}

fn exchange(wire: &mut Wire, request: &Request, version: i16) {
    let (key, correlation_id) = (request.key(), 1000 + i32::from(version));
    let mut writer = Writer::new();
    RequestHeader { api_key: key, api_version: version, correlation_id, client_id: Some("test".into()) }
        .write(&mut writer);
    request.write(&mut writer, version);
    wire.raw(&writer.finish_frame().unwrap().into_bytes());
    let mut reader = Reader::new(wire.frame().unwrap_or_else(|e| panic!("{key:?} {version}: {e}")));
    let header = ResponseHeader::read(&mut reader, key, version).unwrap();
    assert_eq!(header.correlation_id, correlation_id, "{key:?} {version}");
    Response::read(key, &mut reader, version).unwrap_or_else(|e| panic!("{e}"));
    reader.finish().unwrap_or_else(|e| panic!("{key:?} {version}: {e}"));
}
