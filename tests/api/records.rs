//! `produce` and `consume`: one topic by hand, with and without a running server, and the routes behind them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::events::e1;
use crate::support::process::{Ran, azulite, run_with_input, signal, wait_for_exit};
use crate::support::{Config, PATIENCE, Server};

fn produce(server: &Server, arguments: &[&str], input: &[u8]) -> Ran {
    let config = server.config_path();
    let (config, data) = (config.to_str().unwrap(), server.data_dir().to_str().unwrap());
    let fixed = ["--config", config, "--data-dir", data];
    run_with_input(["produce"].iter().chain(arguments).chain(&fixed), input)
}

fn consume(server: &Server, arguments: &[&str]) -> Ran {
    server.cli(["consume"].iter().chain(arguments).copied())
}

/// Both with a running server and on the bare store, each time on an empty one.
fn with_and_without_a_server(check: impl Fn(&Server)) {
    check(&Server::start());
    check(&Server::prepared(&Config::examples()));
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lines_become_records_and_come_back() {
    with_and_without_a_server(|server| {
        let ran = produce(server, &["by.hand"], b"one\n\nthree").expect_code(0);
        assert_eq!(ran.stdout, "3 records written to by.hand\n");
        assert!(ran.stderr.contains("by.hand did not exist and was created"), "{ran:?}");
        let ran = produce(server, &["by.hand", "--json"], b"four\n").expect_code(0);
        let want = json!({
            "topic": "by.hand", "records": 1, "created": false,
            "partitions": [{"partition": 0, "first_offset": 3, "last_offset": 3}],
        });
        assert_eq!(ran.json(), want);
        assert_eq!(consume(server, &["by.hand"]).expect_code(0).stdout, "one\n\nthree\nfour\n");
        assert_eq!(consume(server, &["by.hand", "--raw"]).expect_code(0).stdout, "one\n\nthree\nfour\n");
        assert_eq!(consume(server, &["by.hand", "--count", "1"]).expect_code(0).stdout, "one\n");
        assert_eq!(consume(server, &["by.hand", "--from", "2"]).expect_code(0).stdout, "three\nfour\n");
        assert_eq!(consume(server, &["by.hand", "--from", "latest"]).expect_code(0).stdout, "");
        assert_eq!(consume(server, &["by.hand", "--from", "@0", "--count", "2"]).expect_code(0).stdout, "one\n\n");
        assert_eq!(consume(server, &["by.hand", "--from", "2999-01-01T00:00:00Z"]).expect_code(0).stdout, "");
    });
}

#[test]
fn keys_headers_and_null_values_are_kept() {
    with_and_without_a_server(|server| {
        let flags = ["t", "--key-separator", ":", "--null", "--header", "by=hand", "--header", "by=two"];
        produce(server, &flags, b"a:1\nb:\n:3\n").expect_code(0);
        assert_eq!(consume(server, &["t", "-K", "\\t"]).expect_code(0).stdout, "a\t1\nb\tnull\nnull\t3\n");
        let records = lines(&consume(server, &["t", "--json"]).expect_code(0));
        let keys: Vec<_> = records.iter().map(|record| (&record["key"], &record["value"])).collect();
        let (null, text) = (Value::Null, |text: &str| json!(text));
        assert_eq!(keys, [(&text("a"), &text("1")), (&text("b"), &null), (&null, &text("3"))]);
        assert_eq!(records[0]["headers"], json!([{"name": "by", "value": "hand"}, {"name": "by", "value": "two"}]));
        assert_eq!((&records[2]["partition"], &records[2]["offset"]), (&json!(0), &json!(2)));
        assert!(records[2]["timestamp_ms"].as_i64().unwrap() > 1_700_000_000_000);
    });
}

#[test]
fn files_are_records_whatever_they_hold() {
    with_and_without_a_server(|server| {
        let file = server.folder().join("value");
        // Larger than a chunk, not UTF-8, with newlines.
        let bytes: Vec<u8> =
            (0..3_000_000_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
        std::fs::write(&file, &bytes).unwrap();
        let path = file.to_str().unwrap();
        produce(server, &["t", "--file", path, "--file", path, "--key", "k"], b"").expect_code(0);
        let config = server.config_path();
        let out = azulite()
            .args(["consume", "t", "--raw", "--delimiter", "", "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(server.data_dir())
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stdout == [bytes.clone(), bytes].concat(), "the bytes differ");
        let lossy = consume(server, &["t", "--count", "1"]).expect_code(0);
        assert!(lossy.stderr.contains("are no text"), "{}", lossy.stderr);
    });
}

#[test]
fn many_records_go_through_in_order() {
    with_and_without_a_server(|server| {
        let input: String = (0..50_000).map(|n| format!("record number {n} {}\n", "x".repeat(100))).collect();
        let ran = produce(server, &["t"], input.as_bytes()).expect_code(0);
        assert_eq!(ran.stdout, "50000 records written to t\n");
        assert!(consume(server, &["t"]).expect_code(0).stdout == input, "what came back differs");
    });
}

#[test]
fn event_topics_are_shown_as_json() {
    let mut server = Server::start();
    server.publish_ok("binary", &e1());
    let check = |server: &Server| {
        let topic = "azul.t1.lab.binary.sourced";
        let event: Value = serde_json::from_str(&consume(server, &[topic]).expect_code(0).stdout).unwrap();
        assert_eq!(event["action"], "sourced");
        let record = lines(&consume(server, &[topic, "--json"]).expect_code(0)).remove(0);
        assert_eq!(record["event"], event);
        assert_eq!(record["key"], event["kafka_key"]);
        let raw = consume(server, &[topic, "--raw"]).expect_code(0);
        assert!(serde_json::from_str::<Value>(&raw.stdout).is_err(), "Avro is no JSON");
    };
    check(&server);
    server.stop();
    check(&server);
    produce(&server, &["azul.t1.lab.binary.sourced", "--key", "k"], b"junk\n").expect_code(0);
    let ran = consume(&server, &["azul.t1.lab.binary.sourced"]).expect_code(1);
    assert!(ran.stdout.ends_with("\njunk\n") && ran.stderr.contains("offsets 1 to 1: no event"), "{ran:?}");
}

#[test]
fn a_follower_sees_what_comes_and_ends_at_sigint() {
    let server = Server::start();
    produce(&server, &["t"], b"first\n").expect_code(0);
    let config = server.config_path();
    let mut child = azulite()
        .args(["consume", "t", "--follow", "--config"])
        .arg(config)
        .arg("--data-dir")
        .arg(server.data_dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(next(), "first\n");
    for line in ["second\n", "third\n"] {
        produce(&server, &["t"], line.as_bytes()).expect_code(0);
        assert_eq!(next(), line);
    }
    signal(child.id(), "INT");
    assert_eq!(wait_for_exit(&mut child, PATIENCE).expect("it ends").code(), Some(0));
}

#[test]
fn lines_that_come_slowly_are_written_as_they_come() {
    let server = Server::start();
    let mut child = azulite()
        .args(["produce", "t", "--config"])
        .arg(server.config_path())
        .arg("--data-dir")
        .arg(server.data_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"now\n").unwrap();
    input.flush().unwrap();
    let begun = std::time::Instant::now();
    while consume(&server, &["t"]).stdout != "now\n" {
        assert!(begun.elapsed() < PATIENCE, "the line was not written while more may come");
    }
    drop(input);
    assert_eq!(wait_for_exit(&mut child, PATIENCE).expect("it ends").code(), Some(0));
}

#[test]
fn what_cannot_be_done_is_named() {
    with_and_without_a_server(|server| {
        produce(server, &["t"], b"one\n").expect_code(0);
        let says = |ran: Ran, code: i32, what: &str| {
            let ran = ran.expect_code(code);
            assert!(ran.stderr.contains(what), "{what}: {ran:?}");
        };
        says(consume(server, &["nope"]), 1, "nope");
        says(consume(server, &["t", "--from", "7"]), 1, "no offset 7");
        says(consume(server, &["t", "--partition", "3"]), 1, "no partition 3");
        says(consume(server, &["t", "--from", "yesterday"]), 2, "--from");
        says(consume(server, &["t", "--count", "0"]), 2, "--count");
        says(consume(server, &["t", "--raw", "--json"]), 2, "--raw");
        says(consume(server, &["t", "-D", "\\q"]), 2, "backslash");
        says(produce(server, &["t", "-K", ":"], b"a:b\nno key\n"), 1, "line 2");
        says(produce(server, &["t", "--partition", "9"], b"x\n"), 1, "there is no partition 9");
        says(produce(server, &["__consumer_offsets"], b"x\n"), 1, "internal");
        says(produce(server, &["a/b"], b"x\n"), 1, "a/b");
        says(produce(server, &["t", "--file", "/no/such/file"], b""), 1, "/no/such/file");
        says(produce(server, &["t", "--key", "k", "-K", ":"], b""), 2, "--key");
        assert_eq!(produce(server, &["t"], b"").expect_code(0).stdout, "0 records written to t\n");
    });
    let nowhere = Server::prepared(&Config::examples());
    let ran = consume(&nowhere, &["t"]).expect_code(1);
    assert!(ran.stderr.contains("there is no store"), "{ran:?}");
    produce(&nowhere, &["t"], b"x\n").expect_code(0);
    let ran = consume(&nowhere, &["t", "--follow"]).expect_code(1);
    assert!(ran.stderr.contains("running server"), "{ran:?}");
}

#[test]
fn damage_is_named_and_the_rest_is_read() {
    let server = Server::prepared(&Config::examples());
    let values = ["in front of it".repeat(20), "the damaged one".repeat(20), "behind it all".repeat(20)];
    for value in &values {
        produce(&server, &["t"], format!("{value}\n").as_bytes()).expect_code(0);
    }
    flip_a_byte(&server, values[1].as_bytes());
    let ran = consume(&server, &["t"]).expect_code(1);
    assert_eq!(ran.stdout, format!("{}\n{}\n", values[0], values[2]));
    assert!(ran.stderr.contains("t-0: offsets 1 to 1"), "{ran:?}");
}

/// Changes one byte in the middle of the place where a file of the data directory holds `bytes`.
fn flip_a_byte(server: &Server, bytes: &[u8]) {
    let mut folders = vec![server.data_dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let mut content = std::fs::read(entry.path()).unwrap();
            if let Some(place) = content.windows(bytes.len()).position(|window| window == bytes) {
                content[place + bytes.len() / 2] ^= 0x20;
                std::fs::write(entry.path(), content).unwrap();
                return;
            }
        }
    }
    panic!("no file holds the bytes");
}

#[test]
fn bodies_that_do_not_read_are_refused_as_a_whole() {
    let server = Server::start();
    let path = "/api/azulite/v1/topics/t/records";
    let post = |body: &str| server.client().post(path, body.as_bytes());
    let answer = post("{\"value\":\"a\"}\n{\"value\":{\"base64\":\"/w==\"}}\n").expect_status(200).json();
    assert_eq!(answer["records"], 2, "{answer}");
    for body in ["{}\n[]", "nonsense", "{\"value\":7}", "{\"vlaue\":\"\"}", "{\"value\":{\"base64\":\"?\"}}"] {
        post(body).expect_any_error(400);
    }
    server.client().post("/api/azulite/v1/topics/__consumer_offsets/records", b"{}").expect_any_error(403);
    server.client().post("/api/azulite/v1/topics/__new/records", b"{}").expect_any_error(404);
    let large = format!("{{\"value\":\"{}\"}}", "x".repeat(9 << 20));
    post(&large).expect_any_error(413);
    let get = |query: &str| server.client().get(&format!("{path}?{query}"));
    for query in ["from=yesterday", "positions=0", "wait=soon", "events=maybe"] {
        get(query).expect_any_error(400);
    }
    get("from=3").expect_any_error(416);
    get("partition=1").expect_any_error(404);
    server.client().get("/api/azulite/v1/topics/nope/records").expect_any_error(404);
    server.client().delete(path).expect_no_such_page();
    let page = get("count=1").expect_status(200).text();
    let lines: Vec<Value> = page.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{page}");
    assert_eq!(lines[1], json!({"end": [{"partition": 0, "next": 1, "end": 2}]}));
}
