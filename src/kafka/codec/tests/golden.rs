//! Literal bytes of one message per way of writing things, in both directions.

use std::fmt::Debug;

use bytes::Bytes;

use super::{decoded, encoded, hex};
use crate::kafka::codec::header::{read_response, request_frame, response_frame};
use crate::kafka::codec::messages::{
    api_versions::*, consumer_group_heartbeat::*, consumer_protocol::*, describe_client_quotas::*,
    describe_topic_partitions::*, fetch::*, heartbeat::*, list_offsets::*, metadata::*, produce::*,
};
use crate::kafka::codec::{ApiKey, Message, Reader, RequestHeader, Uuid};
use crate::kafka::error::ErrorCode;

fn golden<M: Message + Debug + PartialEq>(message: &M, version: i16, text: &str) {
    assert_eq!(encoded(message, version), hex(text), "{} {version} written", M::NAME);
    assert_eq!(&decoded::<M>(hex(text), version), message, "{} {version} read", M::NAME);
}

#[test]
fn old_layout_has_wide_lengths() {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "é".into(),
            partitions: vec![ListOffsetsPartition { partition_index: 7, timestamp: -2, ..Default::default() }],
        }],
        ..Default::default()
    };
    let text = "ffffffff 00000001 0002c3a9 00000001 00000007 fffffffffffffffe";
    golden(&request, 1, text);
    let text = "ffffffff 00 00000001 0002c3a9 00000001 00000007 ffffffff fffffffffffffffe";
    golden(&request, 5, text);
}

#[test]
fn flexible_layout_has_compact_lengths_and_tag_counts() {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "é".into(),
            partitions: vec![ListOffsetsPartition { partition_index: 7, timestamp: -2, ..Default::default() }],
        }],
        timeout_ms: 258,
        ..Default::default()
    };
    golden(&request, 10, "ffffffff 00 02 03c3a9 02 00000007 ffffffff fffffffffffffffe 00 00 00000102 00");
}

#[test]
fn null_depends_on_the_version() {
    let all = MetadataRequest { topics: None, ..Default::default() };
    golden(&all, 1, "ffffffff");
    golden(&all, 9, "00 01 00 00 00");
    let none = MetadataRequest { topics: Some(vec![]), ..Default::default() };
    golden(&none, 0, "00000000");
    golden(&none, 13, "01 01 00 00");
    assert_eq!(encoded(&all, 0), hex("00000000"), "a null that version 0 lacks is written as empty");
}

#[test]
fn topic_ids_are_sixteen_bytes() {
    let topic = MetadataRequestTopic { topic_id: Uuid(*b"0123456789abcdef"), name: None };
    let request = MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: false, ..Default::default() };
    golden(&request, 12, "02 30313233343536373839616263646566 00 00 00 00 00");
}

#[test]
fn tagged_fields_come_in_order_and_only_if_set() {
    let mut response = ApiVersionsResponse {
        api_keys: vec![ApiVersion { api_key: 18, min_version: 0, max_version: 4 }],
        ..Default::default()
    };
    golden(&response, 0, "0000 00000001 0012 0000 0004");
    golden(&response, 3, "0000 02 0012 0000 0004 00 00000000 00");
    response.finalized_features_epoch = 5;
    response.finalized_features =
        vec![FinalizedFeatureKey { name: "g".into(), max_version_level: 1, min_version_level: 1 }];
    golden(&response, 4, "0000 02 0012 0000 0004 00 00000000 02 01 08 0000000000000005 02 08 02 0267 0001 0001 00");
}

#[test]
fn a_struct_can_be_null() {
    let mut request = DescribeTopicPartitionsRequest { response_partition_limit: 2000, ..Default::default() };
    golden(&request, 0, "01 000007d0 ff 00");
    request.cursor = Some(Cursor { topic_name: "t".into(), partition_index: 3 });
    golden(&request, 0, "01 000007d0 01 0274 00000003 00 00");
    let answer = ConsumerGroupHeartbeatResponse {
        error_code: ErrorCode::FencedMemberEpoch,
        assignment: Some(Assignment::default()),
        ..Default::default()
    };
    golden(&answer, 1, "00000000 006e 00 00 00000000 00000000 01 01 00 00");
}

#[test]
fn floats_are_big_endian_doubles() {
    let value = ValueData { key: "k".into(), value: 1.5 };
    let answer = DescribeClientQuotasResponse {
        entries: Some(vec![EntryData { entity: vec![], values: vec![value] }]),
        ..Default::default()
    };
    golden(&answer, 0, "00000000 0000 ffff 00000001 00000000 00000001 00016b 3ff8000000000000");
}

#[test]
fn records_are_opaque_bytes() {
    let data = PartitionProduceData { index: 1, records: Some(vec![Bytes::from_static(b"batch")].into()) };
    let request = ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData { name: "t".into(), partition_data: vec![data], ..Default::default() }],
    };
    let text = "ffff ffff 00007530 00000001 000174 00000001 00000001 00000005 6261746368";
    golden(&request, 3, text);
    golden(&request, 9, "00 ffff 00007530 02 0274 02 00000001 06 6261746368 00 00 00");
}

#[test]
fn runs_of_records_become_one_field() {
    let runs = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
    let data =
        PartitionData { records: Some(runs.into()), high_watermark: 3, last_stable_offset: 3, ..Default::default() };
    let answer = FetchResponse {
        responses: vec![FetchableTopicResponse { topic: "t".into(), partitions: vec![data], ..Default::default() }],
        ..Default::default()
    };
    let text =
        "00000000 00000001 000174 00000001 00000000 0000 0000000000000003 0000000000000003 ffffffff 00000003 616263";
    golden(&answer, 4, text);
}

#[test]
fn a_later_subscription_is_read_as_the_latest_known() {
    let text = "0009 00000001 000174 ffffffff 00000000 00000002 ffff 1234";
    let got: ConsumerProtocolSubscription = read_versioned(hex(text)).unwrap();
    assert_eq!((got.topics[0].as_str(), got.generation_id), ("t", 2));
}

#[test]
fn request_header_keeps_the_old_client_id_at_flexible_versions() {
    let request = HeartbeatRequest { group_id: "g".into(), generation_id: 1, ..Default::default() };
    let old = request_frame(&request, 3, 9, Some("me".into())).unwrap().into_bytes();
    assert_eq!(old, hex("00000017 000c 0003 00000009 00026d65 000167 00000001 0000 ffff"));
    let new = request_frame(&request, 4, 9, Some("me".into())).unwrap().into_bytes();
    assert_eq!(new, hex("00000016 000c 0004 00000009 00026d65 00 0267 00000001 01 00 00"));
    let mut reader = Reader::new(new.slice(4..));
    let header = RequestHeader::read(&mut reader).unwrap();
    assert_eq!((header.api_key, header.api_version, header.correlation_id), (ApiKey::Heartbeat, 4, 9));
    assert_eq!(header.client_id.as_deref(), Some("me"));
    assert_eq!(HeartbeatRequest::read(&mut reader, 4).unwrap(), request);
}

#[test]
fn answers_have_tagged_headers_except_those_of_api_versions() {
    let answer = HeartbeatResponse { error_code: ErrorCode::RebalanceInProgress, ..Default::default() };
    let frame = response_frame(ApiKey::Heartbeat, &answer, 4, 9).unwrap().into_bytes();
    assert_eq!(frame, hex("0000000c 00000009 00 00000000 001b 00"));
    assert_eq!(read_response::<HeartbeatRequest>(frame.slice(4..), 4).unwrap(), (9, answer));
    let frame = response_frame(ApiKey::ApiVersions, &ApiVersionsResponse::default(), 3, 9).unwrap().into_bytes();
    assert_eq!(frame, hex("0000000c 00000009 0000 01 00000000 00"));
}
