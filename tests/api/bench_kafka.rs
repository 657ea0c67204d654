//! `bench kafka` against our own server, and against none.

use crate::support::process::run;
use crate::support::{Config, Server};

/// Where the log says that Kafka clients are served.
fn kafka_address(server: &Server) -> String {
    let text = server.log_text();
    let said = text.lines().find_map(|line| line.split_once("listening for Kafka clients on ")?.1.split_once(','));
    said.map(|(address, _)| address.to_owned()).unwrap_or_else(|| panic!("no line about Kafka in {text}"))
}

#[test]
fn a_server_is_measured_and_nothing_is_left_on_it() {
    let server = Server::with(&Config::examples().set("kafka", "listen", "\"127.0.0.1:0\""));
    let address = kafka_address(&server);
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
fn nobody_there_is_said_with_the_reason() {
    let ran = run(["bench", "kafka", "--bootstrap", "127.0.0.1:1"]).expect_code(1);
    assert!(ran.stderr.contains("no Kafka server answers at 127.0.0.1:1"), "{ran:?}");
    assert!(ran.stderr.contains("Connection refused"), "{ran:?}");
    for (flag, bad) in [("--codec", "brotli"), ("--acks", "2"), ("--partitions", "0"), ("--seconds", "0")] {
        let ran = run(["bench", "kafka", "--bootstrap", "127.0.0.1:1", flag, bad]).expect_code(2);
        assert!(ran.stderr.contains(flag) && ran.stderr.contains(bad), "{ran:?}");
    }
    let ran = run(["bench", "kafka", "--bootstrap", "127.0.0.1:1", "--size", "1"]).expect_code(1);
    assert!(ran.stderr.contains("16 bytes to 16 MiB"), "{ran:?}");
}
