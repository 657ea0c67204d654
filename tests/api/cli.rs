//! The command line: results, exit codes, and the same commands with and without a running server.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::events::{carved, e1, id};
use crate::support::process::{run, run_with_input};
use crate::support::{Config, Server};

const T1: &[u8] = b"azulite sample line one\n";
const T1_SHA256: &str = "7fb5af0ab20332773c5553f3f940141bd933e205e8c192505fad4ab9e59f8dcb";
const SHELL_SHA256: &str = "299001868fb8c02fd431c336c6d058f5558c5dff5b5af5e6fe04b870a6a9cbba";
const JSON_SHA256: &str = "7a64612f24d0733c549c16e10c94aab1ff2e0d6f61795a14fe454ed85f496f13";
const PDF_SHA256: &str = "b8274cd2f933ba897ac5a626e96063aa6ed45d4389b105279661a55aedd2bc6f";

/// A folder with four files of different types, one of them twice, and one with a name that is not UTF-8.
fn files(folder: &Path) -> PathBuf {
    let root = folder.join("files");
    std::fs::create_dir_all(root.join("deeper/still")).unwrap();
    let put = |name: OsString, bytes: &[u8]| std::fs::write(root.join(name), bytes).unwrap();
    put("a.txt".into(), T1);
    put("deeper/copy of a.txt".into(), T1);
    put("deeper/run.sh".into(), b"#!/bin/sh\necho hi\n");
    put("deeper/still/list.json".into(), br#"{"a": [1,2,3], "b": "x"}"#);
    put(OsString::from_vec(b"caf\xe9.pdf".to_vec()), b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n%%EOF\n");
    root
}

fn ingest(server: &Server, paths: &[&Path], extra: &[&str]) -> crate::support::process::Ran {
    let mut arguments: Vec<OsString> = vec!["ingest".into()];
    arguments.extend(paths.iter().map(OsString::from));
    let fixed = ["--source", "lab", "--ref", "user=amy", "--timestamp", "2026-01-02T03:04:05Z", "--quiet"];
    arguments.extend(fixed.iter().chain(extra).map(OsString::from));
    server.cli(arguments)
}

fn all_events(server: &Server, version: &str) -> Vec<Value> {
    let query = format!("name=all&version={version}&count=1000&deadline=0&r-historic=true");
    server.fetch("binary/passive", &query).events
}

/// The four files are there: announced as sourced events, with their bytes and their types.
fn files_are_ingested(server: &Server, version: &str) {
    let events = all_events(server, version);
    let formats: BTreeSet<(String, String)> = events
        .iter()
        .map(|event| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&event["entity"]["sha256"]), text(&event["entity"]["file_format"]))
        })
        .collect();
    let wanted = [
        (JSON_SHA256, "text/json"),
        (PDF_SHA256, "document/pdf"),
        (SHELL_SHA256, "code/shell"),
        (T1_SHA256, "text/plain"),
    ];
    assert_eq!(formats, wanted.map(|(hash, format)| (hash.to_owned(), format.to_owned())).into(), "{events:#?}");
    for event in &events {
        assert_eq!(event["action"], "sourced");
        assert_eq!(event["source"]["name"], "lab");
        assert_eq!(event["source"]["references"]["user"], "amy");
        assert_eq!(event["source"]["timestamp"], "2026-01-02T03:04:05Z");
        assert_eq!(event["entity"]["datastreams"][0]["label"], "content");
        assert_eq!(event["entity"]["datastreams"][0]["sha256"], event["entity"]["sha256"]);
    }
    let names: BTreeSet<String> = events
        .iter()
        .map(|event| event["source"]["path"][0]["filename"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(names.iter().any(|name| name.ends_with("run.sh")), "{names:?}");
    let blob = server.client().get(&format!("/api/v3/stream/lab/content/{T1_SHA256}")).expect_status(200);
    assert_eq!(blob.body, T1);
}

#[test]
fn ingest_works_straight_on_the_store_and_twice_is_as_once() {
    let mut server = Server::prepared(&Config::examples());
    let root = files(server.folder());
    ingest(&server, &[&root], &[]).expect_code(0);
    ingest(&server, &[&root], &[]).expect_code(0);
    server.launch();
    files_are_ingested(&server, "1");
    let once = all_events(&server, "2").len();
    ingest(&server, &[&root], &[]).expect_code(0);
    assert_eq!(all_events(&server, "3").len(), once, "a third time, through the server, adds nothing");
    assert!((4..=5).contains(&once), "{once} events");
}

#[test]
fn ingest_goes_through_a_running_server() {
    let server = Server::start();
    let root = files(server.folder());
    let ran = ingest(&server, &[&root], &["--json"]).expect_code(0);
    assert!(ran.json().is_object(), "{ran:?}");
    files_are_ingested(&server, "1");
    let once = all_events(&server, "2").len();
    ingest(&server, &[&root], &["--resume"]).expect_code(0);
    assert_eq!(all_events(&server, "3").len(), once);
}

#[test]
fn ingest_names_what_it_cannot_read_and_takes_the_rest() {
    let server = Server::start();
    let root = files(server.folder());
    let missing = server.folder().join("no such file");
    let unreadable = Path::new("/proc/self/mem");
    let ran = ingest(&server, &[&root, &missing, unreadable], &[]).expect_code(1);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("no such file"), "{ran:?}");
    assert!(said.contains("/proc/self/mem"), "{ran:?}");
    files_are_ingested(&server, "1");
}

#[test]
fn ingest_reads_a_list_of_paths_from_its_standard_input() {
    let server = Server::start();
    let root = files(server.folder());
    let mut list = root.join("a.txt").into_os_string().into_vec();
    list.push(0);
    list.extend(root.join("deeper/run.sh").into_os_string().into_vec());
    list.push(0);
    let config = server.config_path();
    let arguments: [OsString; 8] = [
        "ingest".into(),
        "-".into(),
        "--source".into(),
        "lab".into(),
        "--config".into(),
        config.into(),
        "--data-dir".into(),
        server.data_dir().into(),
    ];
    run_with_input(arguments, &list).expect_code(0);
    let mut hashes: Vec<String> = all_events(&server, "1").iter().map(|e| e["entity"]["sha256"].to_string()).collect();
    hashes.sort();
    assert_eq!(hashes, [SHELL_SHA256, T1_SHA256].map(|hash| json!(hash).to_string()));
}

#[test]
fn ingest_needs_a_source() {
    let server = Server::prepared(&Config::examples());
    let root = files(server.folder());
    let ran = server.cli([OsString::from("ingest"), root.into()]).expect_code(2);
    assert!(ran.stderr.contains("--source"), "{ran:?}");
}

#[test]
fn get_writes_a_blob_and_wraps_it_when_asked() {
    let mut server = Server::start();
    server.client().post("/api/v3/stream/lab/content", T1).expect_status(200);
    let both_ways = |server: &Server, name: &str| {
        let out = server.folder().join(name);
        let to = |out: &Path| vec![OsString::from("get"), T1_SHA256.into(), "-o".into(), out.into()];
        server.cli(to(&out)).expect_code(0);
        assert_eq!(std::fs::read(&out).unwrap(), T1);
        let cart = out.with_extension("cart");
        let mut arguments = to(&cart);
        arguments.push("--cart".into());
        server.cli(arguments).expect_code(0);
        let wrapped = std::fs::read(&cart).unwrap();
        assert!(wrapped.starts_with(b"CART"), "{wrapped:?}");
        assert!(!wrapped.windows(7).any(|window| window == b"azulite"), "wrapped bytes cannot be scanned or run");
    };
    both_ways(&server, "with-server");
    server.stop();
    both_ways(&server, "without-server");
}

#[test]
fn get_of_an_unknown_hash_fails_and_leaves_no_file() {
    let server = Server::start();
    let out = server.folder().join("nothing");
    let ran =
        server.cli([OsString::from("get"), "ab".repeat(32).into(), "-o".into(), out.clone().into()]).expect_code(1);
    assert!(ran.stderr.contains(&"ab".repeat(32)), "{ran:?}");
    assert!(!out.exists());
}

#[test]
fn filetype_prints_three_columns_and_goes_on_after_what_it_cannot_open() {
    let folder = tempfile::tempdir().unwrap();
    let root = files(folder.path());
    let missing = folder.path().join("gone");
    let ran = run([OsString::from("filetype"), missing.clone().into(), root.clone().into()]).expect_code(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{ran:?}");
    assert!(lines[0].starts_with("*Unable to ") && lines[0].contains(&*missing.to_string_lossy()), "{ran:?}");
    let shell = format!("{}\t\tcode/shell\ttext/x-shellscript", root.join("deeper/run.sh").display());
    assert!(lines.contains(&shell.as_str()), "{ran:?}");
    let text = format!("{}\t\ttext/plain\ttext/plain", root.join("a.txt").display());
    assert!(lines.contains(&text.as_str()), "{ran:?}");
}

#[test]
fn filetype_tells_everything_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let root = files(folder.path());
    let ran = run([OsString::from("filetype"), "--json".into(), root.join("a.txt").into()]).expect_code(0);
    let text = ran.json().to_string();
    for wanted in [T1_SHA256, "fda3f9e82ff20fa60fc98f20759ba409", "ASCII text", "text/plain", "txt"] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
}

/// Both with a running server and on the bare store.
fn with_and_without_a_server(check: impl Fn(&Server)) {
    let mut server = Server::start();
    server.publish_ok("binary", &json!([e1(), carved(&e1())]));
    let query = "name=idx&version=1&count=1&deadline=0&r-historic=true";
    assert_eq!(server.fetch("binary/passive", query).events.len(), 1);
    check(&server);
    server.stop();
    check(&server);
}

#[test]
fn topics_are_listed_and_described() {
    with_and_without_a_server(|server| {
        let list = server.cli(["topics", "list"]).expect_code(0);
        assert!(list.stdout.contains("azul.t1.lab.binary.sourced"), "{list:?}");
        assert!(list.stdout.contains("azul.t1.system.delete"), "{list:?}");
        let list = server.cli(["topics", "list", "--json"]).expect_code(0).json().to_string();
        assert!(list.contains("azul.t1.lab.binary.extracted") && list.contains("azul.t1.system.expedite"), "{list}");
        let topic = server.cli(["--json", "topics", "describe", "azul.t1.lab.binary.sourced"]).expect_code(0).json();
        assert!(topic.to_string().contains("compact"), "lab never expires: {topic}");
        let partition = &topic["partitions"][0];
        assert_eq!(partition["log_start_offset"], 0, "{topic}");
        assert_eq!(partition["high_watermark"], 1, "{topic}");
        let short = server.cli(["topics", "describe", "azul.t1.short.binary.sourced", "--json"]).expect_code(0);
        let short = short.json().to_string();
        assert!(short.contains("172800000") && short.contains("delete"), "two days: {short}");
        let unknown = server.cli(["topics", "describe", "azul.t1.nope"]).expect_code(1);
        assert!(unknown.stderr.contains("azul.t1.nope"), "{unknown:?}");
    });
}

#[test]
fn groups_are_listed_and_described_with_their_lag() {
    with_and_without_a_server(|server| {
        let group = "t1-azul-idx-1-binary-allsrc-alltype-H-historic";
        let list = server.cli(["groups", "list"]).expect_code(0);
        assert!(list.stdout.contains(group), "{list:?}");
        let list = server.cli(["groups", "list", "--json"]).expect_code(0).json().to_string();
        assert!(list.contains(group), "{list}");
        let described = server.cli(["groups", "describe", group, "--json"]).expect_code(0).json().to_string();
        assert!(described.contains("azul.t1.lab.binary.sourced") && described.contains("\"lag\""), "{described}");
        let unknown = server.cli(["groups", "describe", "no-such-group"]).expect_code(1);
        assert!(unknown.stderr.contains("no-such-group"), "{unknown:?}");
    });
}

#[test]
fn groups_are_reset_and_deleted() {
    with_and_without_a_server(|server| {
        let (topic, place) = ("azul.t1.lab.binary.sourced", "azul.t1.lab.binary.sourced:0");
        let reset = |to: &str, more: &[&str]| {
            let arguments = ["groups", "reset", "by-hand", "--to", to, "--json", "--topic", topic];
            let ran = server.cli(arguments.iter().chain(more)).expect_code(0).json();
            let moved = &ran["positions"][0];
            assert_eq!((&ran["name"], &moved["topic"]), (&json!("by-hand"), &json!(topic)), "{ran}");
            (moved["old_offset"].as_i64(), moved["new_offset"].as_i64().unwrap())
        };
        assert_eq!(reset("latest", &["--dry-run"]), (None, 1));
        assert_eq!(reset("latest", &[]), (None, 1));
        assert_eq!(reset("earliest", &["--dry-run"]), (Some(1), 0));
        assert_eq!(reset("earliest", &[]), (Some(1), 0));
        assert_eq!(reset("77", &[]), (Some(0), 1), "what is beyond the end becomes the end");
        assert_eq!(reset("2000-01-01T00:00:00Z", &[]), (Some(1), 0));
        assert_eq!(reset("@99999999999999", &[]), (Some(0), 1));
        let table = server.cli(["groups", "reset", "by-hand", "--to", "0", "--topic", place]).expect_code(0);
        let row: Vec<_> = table.stdout.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(row, [topic, "0", "1", "0"], "{table:?}");
        let whole = server.cli(["groups", "reset", "by-hand", "--to", "latest"]).expect_code(0);
        assert!(whole.stdout.contains(topic), "wherever it has a position: {whole:?}");
        for (arguments, code, said) in [
            (&["by-hand", "--to", "yesterday"][..], 2, "earliest, latest"),
            (&["by-hand", "--to", "0", "--topic", "t:x"], 2, "number from 0 on"),
            (&["by-hand"], 2, "--to"),
            (&["by-hand", "--to", "0", "--topic", "no-such-topic"], 1, "no-such-topic"),
            (&["by-hand", "--to", "0", "--topic", "azul.t1.lab.binary.sourced:99"], 1, "none is 99"),
            (&["nobody", "--to", "0"], 1, "no group \"nobody\""),
        ] {
            let ran = server.cli(["groups", "reset"].iter().chain(arguments)).expect_code(code);
            assert!(ran.stderr.contains(said), "{ran:?}");
        }
        let gone = server.cli(["groups", "delete", "by-hand", "--json"]).expect_code(0).json();
        assert_eq!(gone, json!({"name": "by-hand", "partitions": 1}));
        let again = server.cli(["groups", "delete", "by-hand"]).expect_code(1);
        assert!(again.stderr.contains("by-hand"), "{again:?}");
    });
}

#[test]
fn a_reader_over_http_goes_on_where_its_group_was_reset_to() {
    let server = Server::start();
    server.publish_ok("binary", &e1());
    let query = "name=idx&version=1&count=10&deadline=0&r-historic=true";
    let group = "t1-azul-idx-1-binary-allsrc-alltype-H-historic";
    assert_eq!(server.fetch("binary/passive", query).events.len(), 1);
    assert_eq!(server.fetch("binary/passive", query).events.len(), 0);
    server.cli(["groups", "reset", group, "--to", "earliest"]).expect_code(0);
    assert_eq!(server.fetch("binary/passive", query).events.len(), 1, "once more");
    server.cli(["groups", "delete", group]).expect_code(0);
    assert_eq!(server.fetch("binary/passive", query).events.len(), 1, "as if it never was");
}

#[test]
fn events_get_tells_everything_about_one_entity() {
    with_and_without_a_server(|server| {
        let ran = server.cli(["events", "get", &id('a'), "--json"]).expect_code(0);
        let text = ran.json().to_string();
        assert!(text.contains("419d55d8a85cf11e3b9bd17486279a68"), "{text}");
        let ran = server.cli(["events", "get", &id('b')]).expect_code(0);
        assert!(ran.stdout.contains("Carver"), "{ran:?}");
        server.cli(["events", "get", &id('c')]).expect_code(1);
    });
}

#[test]
fn config_show_tells_values_and_where_they_come_from() {
    let server = Server::prepared(&Config::examples());
    let ran = server.cli(["config", "show"]).expect_code(0);
    assert!(ran.stdout.contains("topic_prefix") && ran.stdout.contains("t1"), "{ran:?}");
    assert!(ran.stdout.contains("azulite.toml"), "the file is named as origin: {ran:?}");
    let ran = server.cli(["config", "show", "--json"]).expect_code(0);
    assert!(ran.json().to_string().contains("t1"), "{ran:?}");
}

#[test]
fn the_environment_is_stronger_than_the_file() {
    let server = Server::prepared(&Config::examples()).env("AZULITE_EVENTS__TOPIC_PREFIX", "env1").started();
    server.publish_ok("binary", &e1());
    let query = "name=idx&version=1&count=1&deadline=0&r-historic=true";
    assert_eq!(server.fetch("binary/passive", query).events.len(), 1);
    let list = server.cli(["groups", "list"]).expect_code(0);
    assert!(list.stdout.contains("env1-azul-idx-1-binary-allsrc-alltype-H-historic"), "{list:?}");
}

#[test]
fn config_check_accepts_a_good_file_and_names_what_is_wrong_with_a_bad_one() {
    let server = Server::prepared(&Config::examples());
    server.cli(["config", "check"]).expect_code(0);
    server.configure(&Config::examples().set("events", "topic_prefix", "7"));
    let ran = server.cli(["config", "check"]).expect_code(2);
    assert!(ran.stderr.contains("topic_prefix") && ran.stderr.contains("azulite.toml"), "{ran:?}");
    server.configure(&Config::examples().set("sources.odd", "expire_events_after", "\"2 fortnights\""));
    let ran = server.cli(["config", "check"]).expect_code(2);
    assert!(ran.stderr.contains("expire_events_after") && ran.stderr.contains("2 fortnights"), "{ran:?}");
}

#[test]
fn what_cannot_be_measured_is_a_usage_error() {
    let server = Server::prepared(&Config::examples());
    for (arguments, said) in [
        (&["bench", "events", "--url", "nonsense"][..], "allowed is http://HOST:PORT"),
        (&["bench", "events", "--url", "http://127.0.0.1:1", "--size", "1"], "a size from 1 KiB"),
        (&["bench", "log", "--size", "0"], "a size from 1 byte"),
    ] {
        let ran = server.cli(arguments.iter().copied()).expect_code(2);
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
}

#[test]
fn a_store_of_a_newer_format_asks_for_the_newer_program() {
    let mut server = Server::start();
    server.stop();
    std::fs::write(server.data_dir().join("FORMAT"), "azulite 9\n").expect("write the stamp");
    let ran = server.cli(["serve"]).expect_code(2);
    assert!(ran.stderr.contains("newer version") && !ran.stderr.contains("azulite migrate"), "{ran:?}");
}

#[test]
fn migrate_has_nothing_to_do() {
    let mut server = Server::start();
    server.publish_ok("binary", &e1());
    server.stop();
    let ran = server.cli(["migrate"]).expect_code(0);
    let said = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
    assert!(said.contains("nothing to do"), "{ran:?}");
    server.cli(["migrate", "--dry-run"]).expect_code(0);
    server.launch();
    assert_eq!(all_events(&server, "1").len(), 1);
}

#[test]
fn usage_errors_have_exit_code_two() {
    for arguments in [&["--no-such-flag"][..], &["no-such-command"], &["get"], &["topics", "describe"]] {
        run(arguments).expect_code(2);
    }
    assert!(run(["--help"]).expect_code(0).stdout.contains("serve"));
    assert!(run(["--version"]).expect_code(0).stdout.contains("azulite"));
}
