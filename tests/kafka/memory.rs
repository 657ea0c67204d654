//! Memory under many connections and under requests that are larger than what is kept of them.

use azulite::kafka::codec::Str;
use azulite::kafka::codec::header::request_frame;
use azulite::kafka::codec::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use azulite::kafka::error::ErrorCode;

use crate::groups::join;
use crate::support::Server;
use crate::wire::{self, Wire, batch, produce};

const MIB: usize = 1 << 20;

/// Resident memory of the server, bytes.
fn resident(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// How many of `wanted` connections this machine lets us open twice: here and in the server.
fn connections(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    wanted.min(soft.saturating_sub(150))
}

#[test]
fn idle_connections_cost_next_to_nothing() {
    let server = wire::start();
    let address = server.kafka_address();
    Wire::to(&server).create("t", 1, &[]);
    let (before, count) = (resident(&server), connections(2000));
    let mut wires: Vec<_> = (0..count).map(|_| Wire::at(address)).collect();
    for wire in &mut wires {
        assert_eq!(wire.end("t"), 0);
    }
    let (after, each) = (resident(&server), resident(&server).saturating_sub(before) / count);
    assert!(each < 12 << 10, "{count} idle connections took {each} bytes each");
    assert!(after < 100 * MIB, "{after}");
}

#[test]
fn a_thousand_connections_that_promise_requests_and_stop_are_bounded() {
    let mut server = wire::start_for_hostile();
    server.announce("no room for a request");
    let address = server.kafka_address();
    let mut honest = Wire::to(&server);
    honest.create("t", 1, &[]);
    let count = connections(1000);
    let mut promise = (100_u32 << 20).to_be_bytes().to_vec();
    promise.resize(100_000, 1);
    let hostile: Vec<_> = (0..count)
        .map(|_| {
            let mut wire = Wire::at(address);
            wire.raw(&promise);
            wire
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let taken = resident(&server);
    assert!(taken < 150 * MIB, "{count} connections took {taken} bytes");
    assert_eq!(honest.produce("t", batch(&[b"small"])).error_code, ErrorCode::None);
    assert_eq!(honest.values("t", 0), [b"small"]);
    drop(hostile);
    assert_eq!(honest.produce("t", wire::large(4 * MIB)).error_code, ErrorCode::None);
}

#[test]
fn what_is_kept_of_a_request_does_not_keep_all_of_it() {
    let server = wire::start();
    let mut wire = Wire::to(&server).nameless();
    let id = wire.create("t", 1, &[]);
    let before = resident(&server);
    for n in 0..12 {
        join(&mut wire, &format!("g{n}"), Some(Str::from("x".repeat(8 * MIB))));
    }
    let groups = resident(&server).saturating_sub(before);
    assert!(groups < 40 * MIB, "a group of a small request took {groups} bytes");
    let mut request = produce("", 0, batch(&[b"v"]), -1);
    request.topic_data[0].topic_id = id;
    for _ in 0..12 {
        let frame = request_frame(&request, 13, 1, None).unwrap().into_bytes();
        let len = u32::try_from(frame.len() - 4 + 8 * MIB).unwrap();
        // Bytes behind the request, which nobody looks at.
        wire.raw(&[&len.to_be_bytes()[..], &frame[4..], &vec![1; 8 * MIB]].concat());
        wire.frame().unwrap();
    }
    assert_eq!(wire.end("t"), 12);
    let batches = resident(&server).saturating_sub(before);
    assert!(batches < 50 * MIB, "small batches took {batches} bytes");
}

#[test]
fn a_request_for_thirty_thousand_partitions_is_answered_within_bounds() {
    let server = wire::start();
    let mut wire = Wire::to(&server);
    wire.create("t", 1, &[]);
    wire.produce("t", wire::large(MIB));
    let partitions = vec![FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() }; 30_000];
    let topics = vec![FetchTopic { topic: "t".into(), partitions, ..Default::default() }];
    let request = FetchRequest { max_bytes: 8 << 20, min_bytes: 1, topics, ..Default::default() };
    let answer = wire.ask(&request, 11);
    assert_eq!(answer.responses[0].partitions.len(), 30_000);
    let mut many: Vec<_> = (0..8).map(|_| Wire::to(&server)).collect();
    let ids: Vec<_> = many.iter_mut().map(|wire| wire.send(&request, 11)).collect();
    let peak = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            for (wire, id) in many.iter_mut().zip(ids) {
                assert_eq!(wire.answer::<FetchRequest>(id, 11).responses[0].partitions.len(), 30_000);
            }
        });
        while !reading.is_finished() {
            peak.fetch_max(resident(&server), std::sync::atomic::Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    let peak = peak.into_inner();
    assert!(peak < 250 * MIB, "eight requests took {peak} bytes at once");
}
