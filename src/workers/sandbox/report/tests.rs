use serde_json::{Value, json};

use super::super::options::{Kind, Parser};
use super::*;

fn reading_of(kind: Kind, calls_max: u64, report: &Value) -> (Reading, Value) {
    let mut copy = Vec::new();
    let text = report.to_string();
    let reading = read(&mut text.as_bytes(), &mut copy, Collector::new(kind, &Parser::ALL, calls_max)).unwrap();
    (reading, serde_json::from_slice(&copy).unwrap())
}

fn values(reading: &Reading, feature: &str) -> Vec<(String, String)> {
    let kept = reading.findings.features.get(feature);
    kept.into_iter().flat_map(|kept| kept.iter().map(|found| (found.value.clone(), found.label.clone()))).collect()
}

fn texts(reading: &Reading, feature: &str) -> Vec<String> {
    values(reading, feature).into_iter().map(|(value, _)| value).collect()
}

#[test]
fn every_signature_keeps_its_own_name_and_severity() {
    let report = json!({"signatures": [
        {"name": "low", "description": "a", "severity": 1},
        {"name": "high", "description": "b", "severity": 3, "confidence": 80, "ttp": ["T1055"]},
    ], "ttps": [{"signature": "high", "ttps": ["T1055", "T1112"]}, {"signature": "low", "ttp": "T1003"}]});
    let (reading, _) = reading_of(Kind::Cape, 10, &report);
    let expected = [("high", "b (Severity: 3 Confidence: 80)"), ("low", "a (Severity: 1)")];
    assert_eq!(values(&reading, "behaviour_signature"), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let expected = [("T1003", "low"), ("T1055", "high"), ("T1112", "high")];
    assert_eq!(values(&reading, "attack"), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn cuckoo_2_names_techniques_as_members() {
    let report = json!({"signatures": [{"name": "s", "severity": 2, "description": "d",
        "ttp": {"T1055": {"short": "x", "long": "y"}}, "marks": [{"call": {"api": "x"}}]}]});
    let (reading, _) = reading_of(Kind::Cuckoo, 10, &report);
    assert_eq!(texts(&reading, "attack"), ["T1055"]);
}

#[test]
fn the_three_summary_lists_of_cuckoo_1_do_not_tell_what_was_done() {
    let report = json!({"info": {"machine": "vm1", "started": "2026-01-02 03:04:05", "id": 4},
        "behavior": {"summary": {"files": ["C:\\a"], "keys": ["HKLM\\a"], "mutexes": ["m"]},
        "processes": [{"process_name": "a.exe", "process_id": 4, "parent_id": 2, "first_seen": "t", "calls": []},
            {"process_name": "b.exe", "process_id": 5, "parent_id": 4}]}});
    let (reading, _) = reading_of(Kind::Cuckoo, 10, &report);
    assert_eq!(texts(&reading, "file_accessed"), ["C:\\a"]);
    assert_eq!(texts(&reading, "registry_key"), ["HKLM\\a"]);
    assert_eq!(texts(&reading, "mutex"), ["m"]);
    assert_eq!(texts(&reading, "command_executed"), ["a.exe", "b.exe"]);
    assert_eq!(reading.findings.sandbox["machine"], "vm1");
    assert_eq!(reading.findings.sandbox["started"], "2026-01-02 03:04:05");
    let tree = &reading.findings.info["process_tree"];
    assert_eq!(tree[0], json!({"name": "a.exe", "process_id": "4", "parent_id": "2", "first_seen": "t"}));
    assert_eq!(tree[1], json!({"name": "b.exe", "process_id": "5", "parent_id": "4"}));
}

#[test]
fn finer_summary_lists_say_what_was_done() {
    let report = json!({"info": {"machine": {"name": "win10"}}, "malscore": 7.5,
        "behavior": {"summary": {"files": ["r", "w", "x"], "read_files": ["r"], "file_written": ["w"], "delete_files": ["d"],
            "regkey_read": ["kr"], "write_keys": ["kw"], "regkey_deleted": ["kd"], "keys": ["kr", "ko"],
            "mutex": ["m"], "executed_commands": ["cmd /c x"]},
        "processes": [{"process_name": "a.exe", "environ": {"CommandLine": "a.exe -x"}}, {"process_name": "b", "command_line": "b 1"}]}});
    let (reading, _) = reading_of(Kind::Cape, 10, &report);
    for (feature, expected) in [
        ("file_read", vec!["r"]),
        ("file_written", vec!["w"]),
        ("file_deleted", vec!["d"]),
        ("file_accessed", vec!["x"]),
        ("registry_read", vec!["kr"]),
        ("registry_key_set", vec!["kw"]),
        ("registry_key_deleted", vec!["kd"]),
        ("registry_key", vec!["ko"]),
        ("mutex", vec!["m"]),
        ("command_executed", vec!["a.exe -x", "b 1", "cmd /c x"]),
        ("cape_malscore", vec!["7.5"]),
    ] {
        assert_eq!(texts(&reading, feature), expected, "{feature}");
    }
    assert_eq!(reading.findings.info["CAPE_machine"], "win10");
}

#[test]
fn calls_beyond_the_limit_leave_the_copy_over_all_processes_and_are_counted() {
    let calls = |count: usize| (0..count).map(|id| json!({"id": id, "api": "NtOpenFile"})).collect::<Vec<_>>();
    let report = json!({"behavior": {"processes": [{"process_name": "a", "calls": calls(3)}, {"process_name": "b", "calls": calls(5)}]}});
    let (reading, copy) = reading_of(Kind::Cuckoo, 4, &report);
    assert_eq!((reading.calls, reading.calls_left_out), (8, 4));
    assert_eq!(copy["behavior"]["processes"][0]["calls"].as_array().unwrap().len(), 3);
    assert_eq!(copy["behavior"]["processes"][1]["calls"], json!([{"id": 0, "api": "NtOpenFile"}]));
    assert_eq!(reading.findings.notes, ["behavior: 4 of 8 API calls are not in the report stream"]);
    assert_eq!(texts(&reading, "command_executed"), ["a", "b"]);
}

#[test]
fn network_talks_are_hosts_ports_addresses_and_names() {
    let report = json!({"network": {
        "hosts": ["10.0.0.9", {"ip": "10.0.0.8", "country_name": "x"}],
        "domains": [{"domain": "evil.example", "ip": "10.1.1.1"}],
        "dns": [{"request": "other.example", "answers": [{"type": "A", "data": "10.1.1.1"}, {"type": "TXT", "data": "t"}]}],
        "tcp": [{"dst": "10.1.1.1", "dport": 443}, {"dst": "10.0.0.7", "dport": 80}, {"dst": "10.0.0.7", "dport": 81}],
        "udp": [{"dst": "10.0.0.7", "dport": 53}, {"dst": "x", "dport": "high"}],
        "http": [{"uri": "http://evil.example/a", "method": "GET", "count": 2, "user-agent": "curl"}],
        "http_ex": [{"protocol": "http", "host": "h.example", "uri": "/b", "method": "POST"}]}});
    let (reading, _) = reading_of(Kind::Cape, 1, &report);
    let hosts = [("10.0.0.7", "tcp:80 tcp:81 udp:53"), ("10.0.0.8", ""), ("10.0.0.9", "")];
    assert_eq!(values(&reading, "contacted_host"), hosts.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(texts(&reading, "ip_address"), ["10.0.0.7", "10.0.0.8", "10.0.0.9"]);
    assert_eq!(texts(&reading, "domain"), ["evil.example", "other.example"]);
    let ports = [("443", "tcp"), ("53", "udp"), ("80", "tcp"), ("81", "tcp")];
    assert_eq!(values(&reading, "contacted_port"), ports.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let urls = [("http://evil.example/a", "GET, count=2, user-agent=curl"), ("http://h.example/b", "POST")];
    assert_eq!(values(&reading, "contacted_url"), urls.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn the_log_of_either_form_becomes_text() {
    let (reading, _) = reading_of(Kind::Cape, 1, &json!({"debug": {"log": "one\ntwo"}}));
    assert_eq!(reading.log, "one\ntwo\n");
    let (reading, _) = reading_of(Kind::Cuckoo, 1, &json!({"debug": {"log": ["one\n", "two\n"]}}));
    assert_eq!(reading.log, "one\ntwo\n");
}

#[test]
fn only_the_parsers_of_a_stage_find_something() {
    let report = json!({"info": {"machine": "m"}, "signatures": [{"name": "s"}], "network": {"domains": [{"domain": "d"}]},
        "behavior": {"summary": {"mutexes": ["m"]}}});
    let mut copy = Vec::new();
    let collector = Collector::new(Kind::Cuckoo, &[Parser::Signatures], 1);
    let reading = read(&mut report.to_string().as_bytes(), &mut copy, collector).unwrap();
    assert_eq!(reading.findings.features.keys().collect::<Vec<_>>(), ["behaviour_signature"]);
    assert!(reading.findings.sandbox.is_empty());
}

#[test]
fn members_of_other_types_are_as_good_as_absent() {
    for odd in [
        json!(null),
        json!(true),
        json!(7),
        json!("text"),
        json!([[[]]]),
        json!({"a": {"b": [1]}}),
        json!([{"name": {"x": 1}}]),
    ] {
        let report = json!({"info": odd, "signatures": odd, "ttps": odd, "behavior": {"processes": odd, "summary": odd},
            "network": {"hosts": odd, "dns": odd, "tcp": odd, "http": odd}, "malscore": odd, "debug": odd});
        let (reading, copy) = reading_of(Kind::Cape, 10, &report);
        assert_eq!(copy, report, "the copy is whole");
        assert!(reading.findings.errors.is_empty(), "{:?}", reading.findings.errors);
        for whole in [odd.clone(), json!([odd])] {
            reading_of(Kind::Cape, 10, &whole);
        }
    }
}

/// Writes a report of a million signatures, processes and hosts without holding it.
struct Endless {
    line: u64,
    rest: Vec<u8>,
}

impl std::io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() {
            let n = self.line;
            self.line += 1;
            self.rest = match n {
                0 => b"{\"signatures\":[{}".to_vec(),
                1..=300_000 => format!(",{{\"name\":\"s{n}\",\"severity\":{},\"ttp\":[\"T{n}\"]}}", n % 7).into_bytes(),
                300_001 => b"],\"behavior\":{\"processes\":[{}".to_vec(),
                300_002..=400_000 => format!(",{{\"process_name\":\"p{n}\",\"calls\":[1,2]}}").into_bytes(),
                400_001 => b"]},\"network\":{\"tcp\":[{}".to_vec(),
                400_002..=500_000 => {
                    format!(",{{\"dst\":\"10.{}.{}.1\",\"dport\":{}}}", n % 251, n % 241, n % 60_000).into_bytes()
                }
                500_001 => b"]}}".to_vec(),
                _ => Vec::new(),
            };
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Ok(count)
    }
}

#[test]
fn a_report_without_measure_leaves_a_bounded_result_and_says_so() {
    let mut input = Endless { line: 0, rest: Vec::new() };
    let reading = read(&mut input, &mut std::io::sink(), Collector::new(Kind::Cape, &Parser::ALL, 1000)).unwrap();
    for (name, kept) in &reading.findings.features {
        assert!(kept.iter().count() <= 1000, "{name}");
    }
    let signatures = &reading.findings.features["behaviour_signature"];
    assert!(signatures.iter().all(|found| found.rank == -6), "the most severe stay");
    assert_eq!(signatures.lost().0, 299_000);
    assert!(reading.findings.info["process_tree"].as_array().unwrap().len() <= 500);
    assert_eq!(reading.findings.errors.len(), 2, "{:?}", reading.findings.errors);
}
