//! `bench kafka` against our own server, and against none.

use std::process::Stdio;

use crate::support::process::{azulite, run, signal, wait_for_exit};
use crate::support::{Config, PATIENCE, Server, await_that};

#[test]
fn a_server_is_measured_and_nothing_is_left_on_it() {
    let server = Server::with(&Config::with_kafka());
    let address = server.kafka_address().to_string();
    let flags = ["bench", "kafka", "--seconds", "1", "--partitions", "2", "--codec", "lz4", "--rate", "200", "--json"];
    let ran = run(flags.into_iter().chain(["--bootstrap", &address])).expect_code(0);
    let figures = ran.json();
    for key in ["produce_mb_s", "produce_rec_s", "consume_mb_s", "consume_rec_s", "e2e_p50_ms", "e2e_p99_ms"] {
        assert!(figures[key].as_f64().unwrap() > 0.0, "{key} in {figures}");
        assert_eq!(figures["spread"][key].as_array().unwrap().len(), 2, "{key} in {figures}");
    }
    assert_eq!(figures["server_pid"], server.pid(), "{figures}");
    assert!(figures["server_rss_mib"].as_f64().unwrap() > 1.0, "{figures}");
    assert!(figures["produce_cpu_s_per_gb"].as_f64().unwrap() > 0.0, "{figures}");
    let list = server.cli(["topics", "list"]).expect_code(0);
    assert!(!list.stdout.contains("azulite-bench"), "{list:?}");
}

#[test]
fn a_bench_that_is_interrupted_leaves_nothing_behind() {
    let server = Server::with(&Config::with_kafka());
    let address = server.kafka_address().to_string();
    let flags = ["bench", "kafka", "--seconds", "60", "--bootstrap", &address];
    let mut bench = azulite().args(flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let topics = || server.client().get("/api/azulite/v1/topics").expect_status(200).text();
    await_that("the bench's topic", || topics().contains("azulite-bench"));
    signal(bench.id(), "INT");
    let ended = wait_for_exit(&mut bench, PATIENCE).expect("it ends by itself");
    assert_eq!(ended.code(), Some(1));
    assert!(!topics().contains("azulite-bench"), "{}", topics());
}

#[test]
fn nobody_there_is_said_with_the_reason() {
    let ran = run(["bench", "kafka", "--bootstrap", "127.0.0.1:1"]).expect_code(1);
    assert!(ran.stderr.contains("no Kafka server answers at 127.0.0.1:1"), "{ran:?}");
    assert!(ran.stderr.contains("Connection refused"), "{ran:?}");
    for (flag, bad) in [("--codec", "brotli"), ("--acks", "2"), ("--partitions", "0"), ("--seconds", "0")] {
        let ran = run(["bench", "kafka", "--bootstrap", "127.0.0.1:1", flag, bad]).expect_code(2);
        assert!(ran.stderr.contains(flag) && ran.stderr.contains(bad), "{ran:?}");
    }
    let ran = run(["bench", "kafka", "--bootstrap", "127.0.0.1:1", "--size", "1"]).expect_code(2);
    assert!(ran.stderr.contains("16 bytes to 16 MiB"), "{ran:?}");
}
