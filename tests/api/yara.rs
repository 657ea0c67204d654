//! The YARA worker inside a real server: from a submission to its results, and a change of the rules.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::events::{sourced, with};
use crate::support::process::signal;
use crate::support::{Config, Server, await_that};

fn rule(name: &str) -> String {
    format!("rule {name} {{ meta: weight = 3 strings: $text = \"needle\" condition: $text }}\n")
}

/// A server with this file of rules; a second one does not compile.
fn server(rules: &str) -> (Server, tempfile::TempDir) {
    server_with(rules, "rescan")
}

/// One for which new rules mean this.
fn server_with(rules: &str, rules_change: &str) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yar"), rules).unwrap();
    fs::write(folder.path().join("broken.yar"), "rule broken {\n condition: $missing }").unwrap();
    let literal = |path: &Path| format!("{:?}", path.to_str().unwrap());
    let config = Config::examples()
        .set("workers.yara", "enabled", "true")
        .set("workers.yara", "reload_settle", "\"1h\"")
        .set("workers.yara", "rules_change", &format!("{rules_change:?}"))
        .set("workers.yara", "rules_dir", &literal(folder.path()));
    let mut server = Server::with(&config);
    server.announce("a rule file is left out");
    (server, folder)
}

/// Submits a file; its hash.
fn submit(server: &Server, bytes: &[u8]) -> String {
    let path = server.folder().join("sample");
    fs::write(&path, bytes).unwrap();
    let arguments = ["ingest", "--source", "incidents", "--ref", "package_name=p", "--ref", "package_version=1"];
    let ran = server.cli(arguments.into_iter().map(Into::into).chain([path.into_os_string()]));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Final statuses of the worker about an entity: version and word.
fn statuses(server: &Server, sha256: &str) -> Vec<(String, String)> {
    let answer = server.client().get(&format!("/api/azulite/v1/entities/{sha256}/events"));
    let lines = answer.text();
    let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_worker = events.filter(|line| line["event"]["author"]["name"] == "yara");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found =
        of_worker.map(|line| (text(&line["event"]["author"]["version"]), text(&line["event"]["entity"]["status"])));
    found.filter(|(_, word)| word.starts_with("completed") || word.starts_with("error") || word == "opt-out").collect()
}

#[test]
fn history_is_scanned_once_with_each_set_of_rules() {
    let (server, folder) = server(&rule("old"));
    let listing = server.client().get("/api/azulite/v1/rules").expect_status(200).json();
    assert_eq!((&listing["rules"], &listing["errors"][0]["path"]), (&1.into(), &"broken.yar".into()));
    assert_eq!(listing["errors"][0]["line"], 2);
    let ready = server.client().get("/readyz").text();
    assert!(ready.contains("1 rule file is left out: broken.yar line 2"), "{ready}");
    let metrics = server.client().get("/metrics").text();
    assert!(metrics.contains("azulite_yara_rule_files{state=\"left out\"} 1"), "{metrics}");
    assert!(metrics.contains("azulite_yara_rule_file_left_out{file=\"broken.yar\"} 1"), "{metrics}");
    let sha256 = submit(&server, b"a needle");
    await_that("the first scan", || statuses(&server, &sha256).len() == 1);
    let (old, word) = statuses(&server, &sha256).remove(0);
    assert_eq!(word, "completed");
    assert!(old.ends_with(&listing["hash"].as_str().unwrap()[..8]), "{old}");

    fs::write(folder.path().join("a.yar"), rule("new")).unwrap();
    let reloaded = server.client().post("/api/azulite/v1/rules/reload", b"").expect_status(200).json();
    assert_ne!(reloaded["hash"], listing["hash"]);
    await_that("the second scan", || statuses(&server, &sha256).len() == 2);
    let later = submit(&server, b"another needle");
    await_that("the next one", || statuses(&server, &later).len() == 1);
    let versions: Vec<_> = statuses(&server, &sha256).into_iter().map(|(version, _)| version).collect();
    assert_eq!((versions.len(), &versions[0]), (2, &old));
    assert_eq!(statuses(&server, &later), [(versions[1].clone(), "completed".to_owned())]);

    let report = server.client().get("/api/azulite/v1/rules/packages/p/1").expect_status(200).json();
    assert_eq!((&report["score"], &report["rules_matched"]), (&3.into(), &serde_json::json!(["a.new"])));
    assert_eq!(report["distributions"].as_array().unwrap().len(), 2);
    server.client().get("/api/azulite/v1/rules/packages/p/2").expect_status(404);
}

#[test]
fn only_what_comes_later_is_scanned_with_new_rules_if_they_are_for_what_comes() {
    let (server, folder) = server_with(&rule("old"), "forward");
    let before = submit(&server, b"a needle");
    await_that("the first scan", || statuses(&server, &before).len() == 1);
    let old = statuses(&server, &before);
    fs::write(folder.path().join("a.yar"), rule("new")).unwrap();
    server.client().post("/api/azulite/v1/rules/reload", b"").expect_status(200);
    // The last of these is taken after everything that history could bring.
    for number in 0..3 {
        let later = submit(&server, format!("needle {number}").as_bytes());
        await_that("the scan of what comes later", || statuses(&server, &later).len() == 1);
        assert_ne!(statuses(&server, &later)[0].0, old[0].0);
    }
    assert_eq!(statuses(&server, &before), old);
}

#[test]
fn a_hangup_signal_reads_the_rules_again() {
    let (server, folder) = server(&rule("old"));
    let rules = || server.client().get("/api/azulite/v1/rules").expect_status(200).json();
    let old = rules()["hash"].clone();
    fs::write(folder.path().join("a.yar"), rule("new")).unwrap();
    fs::remove_file(folder.path().join("broken.yar")).unwrap();
    signal(server.pid(), "HUP");
    await_that("the new rules", || rules()["hash"] != old);
    let named = || server.client().get("/metrics").text().contains("azulite_yara_rule_file_left_out{");
    await_that("metrics of the new rules", || !named());
    let sha256 = submit(&server, b"a needle");
    await_that("a scan", || statuses(&server, &sha256).len() == 1);
    let hash = rules()["hash"].as_str().unwrap().to_owned();
    assert!(statuses(&server, &sha256)[0].0.ends_with(&hash[..8]));
}

#[test]
fn rules_are_shown_checked_and_reloaded_by_the_command_line() {
    let (mut server, folder) = server(&rule("old"));
    let listed = server.cli(["rules", "list"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.stdout.contains("broken.yar:2: undefined string"), "{listed:?}");
    let checked = server.cli(["rules".into(), "check".into(), folder.path().as_os_str().to_owned()]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.stdout.contains("1 file, 1 rule, set ") && checked.stdout.contains(", 1 error\n"), "{checked:?}");
    let one = server.cli(["rules".into(), "check".into(), folder.path().join("a.yar").into_os_string()]);
    assert!(one.code == Some(0) && one.stdout.contains("1 file, 1 rule, set "), "{one:?}");
    let sha256 = submit(&server, b"a needle");
    await_that("a scan", || statuses(&server, &sha256).len() == 1);
    let report = server.cli(["rules", "report", "p", "1"]);
    assert!(report.stdout.contains("p 1: score 3, rules a.old, most malicious "), "{report:?}");
    fs::remove_file(folder.path().join("broken.yar")).unwrap();
    assert_eq!(server.cli(["rules".into(), "check".into(), folder.path().as_os_str().to_owned()]).code, Some(0));
    let reloaded = server.cli(["rules", "reload"]);
    assert!(reloaded.code == Some(0) && reloaded.stdout.contains("0 files left out"), "{reloaded:?}");
    fs::write(folder.path().join("a.yar"), "rule").unwrap();
    server.announce("the rules stay as they are");
    server.announce("a rule file does not compile");
    let refused = server.cli(["rules", "reload"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("no rule file compiles"), "{refused:?}");
}

#[test]
fn an_object_with_other_streams_beside_its_content_is_scanned() {
    let (server, _folder) = server(&rule("found"));
    let upload = |label: &str, bytes: &[u8]| -> Value {
        let answer = server.client().post(&format!("/api/v3/stream/testing/{label}"), bytes).expect_status(200).json();
        with(answer["data"].clone(), "/label", label.into())
    };
    let content = upload("content", b"a needle");
    let sha256 = content["sha256"].as_str().unwrap().to_owned();
    let streams = json!([content, upload("password_dictionary", b"letmein")]);
    let event = with(sourced(&sha256, "testing"), "/entity/datastreams", streams);
    server.publish_ok("binary", &json!([event]));
    await_that("the scan", || !statuses(&server, &sha256).is_empty());
    assert_eq!(statuses(&server, &sha256)[0].1, "completed");
}
