//! Producing: order, acknowledgements, bad batches, back-pressure, and what survives a kill.

use azulite::kafka::codec::messages::init_producer_id::InitProducerIdRequest;
use azulite::kafka::codec::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use azulite::kafka::codec::{Records, Uuid};
use azulite::kafka::error::ErrorCode;
use azulite_storage::batch::Producer;
use azulite_storage::{BatchBuilder, Codec};
use bytes::{Bytes, BytesMut};

use crate::support::{Config, Server, await_that};
use crate::wire::{self, Wire, batch, only, produce};

#[test]
fn sixty_four_requests_in_flight_are_answered_in_their_order() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 1, &[]);
    let ids: Vec<_> = (0..64_i64).map(|n| wire.send(&produce("t", 0, batch(&[&n.to_be_bytes()]), -1), 9)).collect();
    let other = wire.send(&wire::fetch("t", 0, 0), 11);
    for (n, id) in (0..).zip(ids) {
        let answer = only(wire.answer::<ProduceRequest>(id, 9));
        assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::None, n));
    }
    let fetched = wire.answer::<azulite::kafka::codec::messages::fetch::FetchRequest>(other, 11);
    let values = wire::values(&fetched.responses[0].partitions[0]);
    let expected: Vec<_> = (0..64_i64).map(|n| (n, n.to_be_bytes().to_vec())).collect();
    assert_eq!(values, expected, "a request behind them sees all of them");
}

#[test]
fn a_request_without_acknowledgement_gets_no_answer_and_disturbs_none() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 1, &[]);
    let mut ids = Vec::new();
    for n in 0..20_u8 {
        let acks = if n % 2 == 0 { 0 } else { 1 };
        let id = wire.send(&produce("t", 0, batch(&[&[n]]), acks), 7);
        ids.extend((acks == 1).then_some(id));
    }
    for (n, id) in (0..).zip(ids) {
        assert_eq!(only(wire.answer::<ProduceRequest>(id, 7)).base_offset, 2 * n + 1);
    }
    assert_eq!(wire.end("t"), 20);
}

#[test]
fn what_was_sent_before_the_client_stops_sending_is_answered() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 1, &[]);
    let first = wire.send(&produce("t", 0, batch(&[b"1"]), 1), 7);
    wire.send(&produce("t", 0, batch(&[b"2"]), 0), 7);
    let third = wire.send(&produce("t", 0, batch(&[b"3"]), 1), 7);
    wire.finish();
    assert_eq!(only(wire.answer::<ProduceRequest>(first, 7)).base_offset, 0);
    assert_eq!(only(wire.answer::<ProduceRequest>(third, 7)).base_offset, 2);
    assert!(wire.is_closed());
}

#[test]
fn without_acknowledgement_an_error_closes_the_connection() {
    let server = wire::start_for_hostile();
    let mut wire = Wire::to(&server);
    wire.send(&produce("nowhere", 0, batch(&[b"1"]), 0), 7);
    assert!(wire.is_closed());
    await_that("a line that says why", || server.log_text().contains("there is no such topic"));
}

#[test]
fn a_bad_batch_is_refused_by_name_and_its_neighbours_are_not() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 2, &[("max.message.bytes", "2000")]);
    let changed = |change: fn(&mut BytesMut)| {
        let mut bytes = BytesMut::from(&batch(&[b"value", b"other"])[..]);
        change(&mut bytes);
        bytes.freeze()
    };
    let reckoned = |bytes: &mut BytesMut| {
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    };
    let count: fn(&mut BytesMut) = |bytes| bytes[57..61].copy_from_slice(&3_i32.to_be_bytes());
    let mut count = changed(count);
    let mut fixed = BytesMut::from(&count[..]);
    reckoned(&mut fixed);
    count = fixed.freeze();
    let two = [batch(&[b"1"]), batch(&[b"2"])].concat().into();
    let cases: [(&str, Bytes, ErrorCode); 9] = [
        ("nothing", Bytes::new(), ErrorCode::InvalidRecord),
        ("one bit", changed(|bytes| bytes[70] ^= 1), ErrorCode::CorruptMessage),
        ("crc", changed(|bytes| bytes[17] ^= 1), ErrorCode::CorruptMessage),
        ("length", changed(|bytes| bytes[11] += 1), ErrorCode::CorruptMessage),
        ("cut", batch(&[b"value"]).slice(..40), ErrorCode::CorruptMessage),
        ("magic", changed(|bytes| bytes[16] = 1), ErrorCode::UnsupportedForMessageFormat),
        ("count", count, ErrorCode::InvalidRecord),
        ("two batches", two, ErrorCode::InvalidRecord),
        ("size", wire::large(3000), ErrorCode::MessageTooLarge),
    ];
    for (n, (what, records, expected)) in (0..).zip(cases) {
        let part = |index, records| PartitionProduceData { index, records: Some(Records::from(vec![records])) };
        let partition_data = vec![part(0, records), part(1, batch(&[b"good"])), part(7, batch(&[b"nowhere"]))];
        let topic_data = vec![TopicProduceData { name: "t".into(), partition_data, ..Default::default() }];
        let answer = wire.ask(&ProduceRequest { acks: -1, topic_data, ..Default::default() }, 9);
        let outcomes: Vec<_> =
            answer.responses[0].partition_responses.iter().map(|p| (p.error_code, p.base_offset)).collect();
        let unknown = (ErrorCode::UnknownTopicOrPartition, -1);
        assert_eq!(outcomes, [(expected, -1), (ErrorCode::None, n), unknown], "{what}: {answer:?}");
    }
    assert_eq!(wire.end("t"), 0);
    let answer = wire.ask(&produce("t", 0, batch(&[b"1"]), 2), 9);
    assert_eq!(only(answer).error_code, ErrorCode::InvalidRequiredAcks);
}

#[test]
fn a_bomb_on_a_compacted_topic_is_refused_and_others_are_served_meanwhile() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("c", 1, &[("cleanup.policy", "compact")]);
    wire.create("t", 1, &[]);
    let value = vec![0; 100 << 20];
    for codec in [Codec::Gzip, Codec::Zstd] {
        let mut bomb = BatchBuilder::default().codec(codec);
        bomb.push(0, Some(b"k"), Some(&value));
        let bomb = Bytes::copy_from_slice(bomb.build().unwrap().as_bytes());
        assert!(bomb.len() < 1 << 20, "{codec:?}: {}", bomb.len());
        assert_eq!(wire.produce("t", bomb.clone()).error_code, ErrorCode::None, "nobody looks inside there");
        let answer = wire.produce("c", bomb);
        assert_eq!(answer.error_code, ErrorCode::MessageTooLarge, "{codec:?}: {answer:?}");
    }
    let mut no_key = BatchBuilder::default();
    no_key.push(0, Some(b"k"), Some(b"v"));
    no_key.push(0, None, Some(b"v"));
    let answer = wire.produce("c", Bytes::copy_from_slice(no_key.build().unwrap().as_bytes()));
    assert_eq!(answer.error_code, ErrorCode::InvalidRecord);
    assert_eq!(answer.record_errors[0].batch_index, 1);
}

#[test]
fn a_topic_is_named_by_its_id_from_version_13_on() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    let id = wire.create("t", 1, &[]);
    let named = |topic_id| {
        let mut request = produce("", 0, batch(&[b"v"]), -1);
        request.topic_data[0].topic_id = topic_id;
        request
    };
    assert_eq!(only(wire.ask(&named(id), 13)).error_code, ErrorCode::None);
    assert_eq!(only(wire.ask(&named(Uuid([7; 16])), 13)).error_code, ErrorCode::UnknownTopicId);
    assert_eq!(wire.values("t", 0), [b"v"]);
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let mut server = wire::start();
    let mut wire = Wire::to(&server);
    let id = wire.create("t", 1, &[]);
    for n in 0..50_u8 {
        assert_eq!(wire.produce("t", batch(&[&[n]])).base_offset, i64::from(n));
    }
    server.crash();
    let mut wire = Wire::to(&server);
    assert_eq!(wire.metadata(&["t"]), [(ErrorCode::None, id, 1)]);
    let expected: Vec<_> = (0..50_u8).map(|n| vec![n]).collect();
    assert_eq!(wire.values("t", 0), expected);
    assert_eq!(wire.produce("t", batch(&[b"x"])).base_offset, 50);
}

/// A queue that is always full: every batch waits for its turn, none is refused, none overtakes another.
#[test]
fn a_full_queue_makes_producers_wait_and_loses_no_order() {
    let small =
        Config::with_kafka().set("storage", "queue_bytes", "\"1Mi\"").set("storage", "commit_bytes", "\"64Ki\"");
    let server = Server::with(&small.set("events", "message_max_bytes", "\"64Ki\""));
    Wire::to(&server).create("t", 6, &[]);
    std::thread::scope(|scope| {
        for partition in 0..6 {
            let server = &server;
            scope.spawn(move || idempotent(server, partition));
        }
    });
}

fn idempotent(server: &Server, partition: i32) {
    const BATCHES: i32 = 24;
    let mut wire = Wire::to(server);
    let given = wire.ask(&InitProducerIdRequest::default(), 4);
    assert_eq!(given.error_code, ErrorCode::None);
    let value = vec![7; 300_000];
    let mut ids = Vec::new();
    for base_sequence in 0..BATCHES {
        let producer = Producer { id: given.producer_id, epoch: given.producer_epoch, base_sequence };
        let mut batch = BatchBuilder::default().producer(producer);
        batch.push(0, None, Some(&value));
        let batch = Bytes::copy_from_slice(batch.build().unwrap().as_bytes());
        ids.push(wire.send(&produce("t", partition, batch, -1), 9));
    }
    for (n, id) in (0..).zip(ids) {
        let answer = only(wire.answer::<ProduceRequest>(id, 9));
        assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::None, n), "{partition}: {answer:?}");
    }
}
