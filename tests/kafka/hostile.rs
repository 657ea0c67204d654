//! What no client sends: everything is refused, said once, and nobody else notices.

use std::time::Duration;

use azulite::kafka::codec::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use azulite::kafka::codec::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use azulite::kafka::codec::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use azulite::kafka::codec::{ApiKey, Reader, ResponseHeader};
use azulite::kafka::error::ErrorCode;

use crate::support::random::Random;
use crate::support::{Config, Server, await_that};
use crate::wire::{self, Wire};

/// A frame with the old request header.
fn framed(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len() + 10).unwrap().to_be_bytes().to_vec();
    frame.extend(key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(5_i32.to_be_bytes());
    frame.extend((-1_i16).to_be_bytes());
    frame.extend(body);
    frame
}

fn refused(server: &Server, what: &str, bytes: &[u8], ends: bool) {
    let mut wire = Wire::to(server);
    wire.raw(bytes);
    if ends {
        wire.finish();
    }
    wire.patience(Duration::from_secs(5));
    assert!(wire.is_closed(), "{what}");
}

#[test]
fn whatever_is_not_a_request_closes_the_connection() {
    let server = wire::start_for_hostile();
    let mut honest = Wire::to(&server);
    honest.create("t", 1, &[]);
    refused(&server, "HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false);
    refused(&server, "TLS", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4], false);
    refused(&server, "longer than allowed", &(100_u32 << 20 | 1).to_be_bytes(), false);
    refused(&server, "negative length", &[0xff; 4], false);
    refused(&server, "too short", &[0, 0, 0, 7, 0, 3, 0, 0, 0, 0, 0], false);
    refused(&server, "cut in the length", &[0, 0], true);
    refused(&server, "cut in the frame", &framed(3, 0, &[0; 40])[..30], true);
    refused(&server, "unknown key", &framed(99, 0, &[0; 8]), false);
    refused(&server, "a key of brokers", &framed(4, 0, &[0; 8]), false);
    refused(&server, "SASL, which is off", &framed(17, 1, &[0, 5, b'P', b'L', b'A', b'I', b'N']), false);
    refused(&server, "a version that is advertised for old clients only", &framed(0, 2, &[0; 20]), false);
    refused(&server, "a version too high", &framed(3, 14, &[0; 20]), false);
    refused(&server, "a version too low", &framed(1, 3, &[0; 20]), false);
    for (key, version) in [(3, 1), (1, 4), (0, 3), (2, 1), (8, 2), (19, 2), (32, 1), (11, 0)] {
        for count in [i32::MAX, 0x0100_0000, -2] {
            let body = [&count.to_be_bytes()[..], &[0; 60]].concat().repeat(3);
            let mut wire = Wire::to(&server);
            wire.raw(&framed(key, version, &body));
            wire.finish();
            // Some of it reads as a request for nothing: then there is an answer before the end.
            while wire.frame().is_ok() {}
            assert!(wire.is_closed(), "key {key}, count {count}");
        }
    }
    assert_eq!(honest.end("t"), 0);
    for said in ["the bytes look like HTTP", "the bytes look like TLS", "is not served"] {
        await_that(said, || server.log_text().contains(said));
    }
}

#[test]
fn the_same_complaint_about_the_same_peer_is_made_once() {
    let server = wire::start_for_hostile();
    for _ in 0..50 {
        refused(&server, "HTTP", b"GET / HTTP/1.1\r\n\r\n", false);
    }
    // The end of a connection is written down after the client has seen it; this one comes after all of the others.
    refused(&server, "TLS", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4], false);
    await_that("the last line", || server.log_text().contains("the bytes look like TLS"));
    let log = server.log_text();
    assert_eq!(log.matches("a Kafka connection was closed").count(), 2, "{log}");
}

#[test]
fn random_bytes_and_changed_requests_disturb_nobody() {
    let server = wire::start_for_hostile();
    let mut honest = Wire::to(&server);
    honest.create("t", 1, &[]);
    let mut random = Random::new(7);
    let good = framed(3, 1, &[0, 0, 0, 1, 0, 1, b't']);
    for round in 0..300 {
        let mut wire = Wire::to(&server);
        let mut bytes = good.clone();
        if round % 2 == 0 {
            bytes = (0..1 + random.below(200)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        } else {
            for _ in 0..1 + random.below(4) {
                let at = usize::try_from(random.below(u64::try_from(bytes.len()).unwrap())).unwrap();
                bytes[at] = u8::try_from(random.below(256)).unwrap();
            }
        }
        drop(wire.try_raw(&bytes));
        wire.finish();
        wire.patience(Duration::from_secs(5));
        // An answer or none, but an end.
        while let Ok(frame) = wire.frame() {
            drop(frame);
        }
        if round % 50 == 0 {
            assert_eq!(honest.end("t"), 0);
        }
    }
    assert_eq!(honest.end("t"), 0);
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_as_version_0_with_our_range() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    let named = ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1.0".into() };
    for version in 0..=4 {
        let answer = wire.ask(&named, version);
        assert_eq!(answer.error_code, ErrorCode::None);
        let produce = answer.api_keys.iter().find(|api| api.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
        assert!(answer.api_keys.iter().all(|api| api.api_key != 17 && api.api_key != 68), "{answer:?}");
    }
    for version in [5, 99] {
        wire.raw(&framed(18, version, &[0, 1, 2, 3]));
        let mut reader = Reader::new(wire.frame().unwrap());
        ResponseHeader::read(&mut reader, ApiKey::ApiVersions, 0).unwrap();
        let answer = ApiVersionsResponse::read(&mut reader, 0).unwrap();
        reader.finish().unwrap();
        assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion);
        let ranges: Vec<_> = answer.api_keys.iter().map(|a| (a.api_key, a.min_version, a.max_version)).collect();
        assert_eq!(ranges, [(18, 0, 4)]);
    }
    let bad = ApiVersionsRequest { client_software_name: "-".into(), ..named };
    assert_eq!(wire.ask(&bad, 3).error_code, ErrorCode::InvalidRequest);
}

#[test]
fn a_question_asked_many_times_over_is_answered_once() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 100, &[]);
    let asked = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![asked; 50_000]), ..Default::default() };
    assert_eq!(wire.ask(&request, 12).topics.len(), 1);
}

#[test]
fn one_request_makes_a_bounded_number_of_partitions() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    let topic = |n: i32| CreatableTopic {
        name: format!("t{n}").into(),
        num_partitions: 4000,
        replication_factor: 1,
        ..Default::default()
    };
    let request =
        CreateTopicsRequest { topics: (0..4).map(topic).collect(), validate_only: true, ..Default::default() };
    let codes: Vec<_> = wire.ask(&request, 7).topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::None, ErrorCode::PolicyViolation, ErrorCode::PolicyViolation]);
}

#[test]
fn clients_beyond_the_limit_wait_and_the_log_says_so() {
    let mut server = Server::with(&Config::with_kafka().set("kafka", "max_connections", "2"));
    server.announce("kafka.max_connections are open");
    let (mut first, second) = (Wire::to(&server), Wire::to(&server));
    first.create("t", 1, &[]);
    let mut third = Wire::to(&server);
    await_that("a line in the log", || server.log_text().contains("kafka.max_connections are open"));
    drop(second);
    assert_eq!(third.end("t"), 0);
}
