//! Fetching: bounds, long polls and what ends them.

use std::time::{Duration, Instant};

use azulite::kafka::codec::messages::fetch::{FetchRequest, FetchResponse};
use azulite::kafka::error::ErrorCode;

use crate::support::{Config, Server, await_that};
use crate::wire::{self, Wire, batch, fetch, large, produce};

fn parked(topic: &str, from: i64, max_wait_ms: i32) -> FetchRequest {
    FetchRequest { max_wait_ms, ..fetch(topic, 0, from) }
}

fn outcome(answer: &FetchResponse) -> (ErrorCode, usize) {
    let partition = &answer.responses[0].partitions[0];
    (partition.error_code, wire::values(partition).len())
}

#[test]
fn a_parked_fetch_lasts_as_long_as_it_may_and_is_woken_by_what_it_waits_for() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 1, &[]);
    for wait in [30, 150, 700] {
        let start = Instant::now();
        assert_eq!(outcome(&wire.ask(&parked("t", 0, wait), 11)), (ErrorCode::None, 0));
        let took = start.elapsed();
        let wait = Duration::from_millis(u64::try_from(wait).unwrap());
        assert!(took >= wait && took < wait + Duration::from_millis(250), "{wait:?}: {took:?}");
    }
    let start = Instant::now();
    let id = wire.send(&parked("t", 0, 20_000), 11);
    server.await_readers(1);
    Wire::to(&server).produce("t", batch(&[b"v"]));
    assert_eq!(outcome(&wire.answer::<FetchRequest>(id, 11)), (ErrorCode::None, 1));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_fetch_waits_until_there_is_as_much_as_it_wants() {
    let server = wire::start();
    let (mut wire, mut producer) = (Wire::to(&server), Wire::to(&server));
    wire.create("t", 1, &[]);
    producer.produce("t", batch(&[&[0; 500]]));
    let id = wire.send(&FetchRequest { min_bytes: 3000, ..parked("t", 0, 20_000) }, 11);
    wire.patience(Duration::from_millis(100));
    for _ in 0..3 {
        assert!(wire.frame().is_err(), "too little yet");
        producer.produce("t", batch(&[&[0; 500]]));
    }
    wire.patience(Duration::from_secs(10));
    producer.produce("t", batch(&[&[0; 2000]]));
    assert_eq!(outcome(&wire.answer::<FetchRequest>(id, 11)), (ErrorCode::None, 5));
    let start = Instant::now();
    let little = FetchRequest { min_bytes: 1 << 20, ..parked("t", 0, 200) };
    assert_eq!(outcome(&wire.ask(&little, 11)), (ErrorCode::None, 5), "what there is, when the time is up");
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < Duration::from_secs(2));
}

#[test]
fn what_does_not_suffice_is_not_read() {
    let server = wire::start();
    let (mut wire, mut producer) = (Wire::to(&server), Wire::to(&server));
    wire.create("t", 1, &[]);
    let id = wire.send(&FetchRequest { min_bytes: 1 << 20, ..parked("t", 0, 20_000) }, 11);
    server.await_readers(1);
    let before = server.metric("azulite_log_read_bytes_total");
    let read = || server.metric("azulite_log_read_bytes_total") - before;
    for _ in 0..20 {
        producer.produce("t", large(40_000));
    }
    assert_eq!(read(), 0, "800 kB are less than a MiB");
    producer.produce("t", large(300_000));
    assert_eq!(outcome(&wire.answer::<FetchRequest>(id, 11)), (ErrorCode::None, 21));
    assert!((1_100_000..1_200_000).contains(&read()), "once: {}", read());
}

#[test]
fn a_topic_that_is_deleted_wakes_whoever_waits_for_it() {
    let server = wire::start();
    let (mut by_name, mut by_id, mut admin) = (Wire::to(&server), Wire::to(&server), Wire::to(&server));
    let topic_id = admin.create("t", 1, &[]);
    let start = Instant::now();
    let name = by_name.send(&parked("t", 0, 20_000), 11);
    let mut request = parked("", 0, 20_000);
    request.topics[0].topic_id = topic_id;
    let id = by_id.send(&request, 17);
    server.await_readers(2);
    assert_eq!(admin.delete("t"), ErrorCode::None);
    let unknown = (ErrorCode::UnknownTopicOrPartition, 0);
    assert_eq!(outcome(&by_name.answer::<FetchRequest>(name, 11)), unknown);
    assert_eq!(outcome(&by_id.answer::<FetchRequest>(id, 17)), (ErrorCode::UnknownTopicId, 0));
    assert!(start.elapsed() < Duration::from_secs(5));
    let again = admin.create("t", 1, &[]);
    assert_ne!(again, topic_id);
    assert_eq!(outcome(&by_id.ask(&request, 17)), (ErrorCode::UnknownTopicId, 0), "the id is another one now");
    assert_eq!(by_name.fetch("t", 0).high_watermark, 0);
}

#[test]
fn offsets_and_epochs_that_are_not_there_are_said_at_once() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 1, &[]);
    wire.produce("t", batch(&[b"1", b"2", b"3"]));
    let start = Instant::now();
    for (from, expected) in [(-1, ErrorCode::OffsetOutOfRange), (4, ErrorCode::OffsetOutOfRange)] {
        let answer = wire.ask(&parked("t", from, 20_000), 11);
        assert_eq!(outcome(&answer), (expected, 0));
        assert_eq!(answer.responses[0].partitions[0].high_watermark, 3);
    }
    let mut request = parked("t", 0, 20_000);
    request.topics[0].partitions[0].current_leader_epoch = 5;
    assert_eq!(outcome(&wire.ask(&request, 11)), (ErrorCode::UnknownLeaderEpoch, 0));
    request.topics[0].partitions[0].partition = 9;
    assert_eq!(outcome(&wire.ask(&request, 11)), (ErrorCode::UnknownTopicOrPartition, 0));
    let session = FetchRequest { session_id: 7, session_epoch: 1, ..parked("t", 0, 20_000) };
    assert_eq!(wire.ask(&session, 11).error_code, ErrorCode::FetchSessionIdNotFound);
    assert!(
        wire.ask(&FetchRequest { max_wait_ms: 20_000, min_bytes: 1, ..Default::default() }, 11).responses.is_empty()
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(wire.values("t", 1), [b"2", b"3"]);
    assert_eq!(wire.fetch("t", 2).records.unwrap().to_bytes()[..8], [0; 8], "the whole batch that holds the offset");
}

#[test]
fn the_first_batch_is_answered_whatever_its_size_and_no_partition_starves() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 2, &[]);
    for partition in 0..2 {
        assert_eq!(wire::only(wire.ask(&produce("t", partition, large(3 << 20), -1), 9)).error_code, ErrorCode::None);
    }
    let mut request = FetchRequest { max_bytes: 1, ..fetch("t", 0, 0) };
    let second = request.topics[0].partitions[0].clone();
    request.topics[0].partitions.push(second);
    request.topics[0].partitions[1].partition = 1;
    let mut others = Wire::to(&server);
    let mut seen = [0, 0];
    for _ in 0..6 {
        let answer = wire.ask(&request, 11);
        let sizes: Vec<_> =
            answer.responses[0].partitions.iter().map(|p| p.records.as_ref().map_or(0, |r| r.len())).collect();
        assert!(sizes.iter().sum::<usize>() > 3 << 20, "one whole batch: {sizes:?}");
        assert_eq!(sizes.iter().filter(|size| **size > 0).count(), 1, "and only one: {sizes:?}");
        let with = sizes.iter().position(|size| *size > 0).unwrap();
        seen[with] += 1;
        // Somebody else asks in between each time.
        others.ask(&request, 11);
    }
    assert_eq!(seen, [3, 3], "they take turns");
}

#[test]
fn clients_that_take_no_answers_do_not_keep_others_from_theirs() {
    let bounds =
        Config::with_kafka().set("kafka", "fetch_max_bytes", "\"24Mi\"").set("kafka", "fetch_memory", "\"24Mi\"");
    let mut server = Server::with(&bounds);
    server.announce("a Kafka connection was closed");
    let mut wire = Wire::to(&server);
    wire.create("t", 1, &[]);
    wire.create("wide", 4000, &[]);
    for _ in 0..4 {
        assert_eq!(wire.produce("t", large(6 << 20)).error_code, ErrorCode::None);
    }
    let mut slow: Vec<_> = (0..4).map(|_| Wire::to(&server)).collect();
    for wire in &mut slow {
        wire.send(&fetch("t", 0, 0), 11);
    }
    let read = || usize::try_from(server.metric("azulite_log_read_bytes_total")).unwrap();
    await_that("an answer that nobody takes", || read() >= 24 << 20);
    assert_eq!(wire.metadata(&["wide"])[0].2, 4000, "a large answer of another kind takes room as well");
    let start = Instant::now();
    while outcome(&wire.ask(&parked("t", 0, 500), 11)).1 == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "no records");
    }
}

#[test]
fn a_parked_fetch_outlasts_the_idle_time_and_others_do_not() {
    let server = Server::with(&Config::with_kafka().set("kafka", "idle_timeout", "\"1s\""));
    let (mut parking, mut idle) = (Wire::to(&server), Wire::to(&server));
    parking.create("t", 1, &[]);
    let start = Instant::now();
    assert_eq!(outcome(&parking.ask(&parked("t", 0, 2500), 11)), (ErrorCode::None, 0));
    assert!(start.elapsed() >= Duration::from_millis(2500));
    assert!(idle.is_closed() && parking.is_closed());
    assert!(start.elapsed() < Duration::from_secs(8));
}
