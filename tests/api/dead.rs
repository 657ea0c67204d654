//! Dead letters: what a plugin fails at for good, and what a person does about it. Contract workers.md 5.2 to 5.4.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::events::{carver_status, sourced, with};
use crate::support::{Config, Server, await_that, process};

/// SHA-256 of `hello`.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const CARVER: &str = "name=Carver&version=1.2&count=1&deadline=5&r-historic=true&r-action=sourced";
const LETTER: &str = "an event is a dead letter";

fn config() -> Config {
    Config::examples().set("delivery", "retry_delay", "\"0s\"")
}

/// A server that has `hello` and an event about it.
fn server() -> Server {
    server_with(&config())
}

fn server_with(config: &Config) -> Server {
    let mut server = Server::with(config);
    server.announce(LETTER);
    server.client().post("/api/v3/stream/lab/content", b"hello").expect_status(200);
    server.publish_ok(
        "binary",
        &json!([with(sourced(HELLO, "lab"), "/source/settings", json!({"passwords": "hunter2"}))]),
    );
    server
}

/// Takes the next task and reports `word` about it; the number of its attempt.
fn report(server: &Server, word: &str) -> u64 {
    let task = server.fetch("binary/active", CARVER).only().clone();
    server.publish_ok("status", &json!([carver_status(&task, word, &[])]));
    task["retries"].as_u64().unwrap_or(0)
}

fn list(server: &Server) -> Vec<Value> {
    let listed = server.client().get("/api/azulite/v1/dead").expect_status(200).json();
    listed["letters"].as_array().unwrap().clone()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

fn dead_dir(server: &Server) -> PathBuf {
    server.data_dir().join("dead")
}

/// A server with one dead letter, and the letter's id.
fn with_letter() -> (Server, String) {
    let server = server();
    assert_eq!(report(&server, "error-input"), 0);
    let letters = list(&server);
    assert_eq!(letters.len(), 1, "{letters:?}");
    (server, letters[0]["id"].as_str().unwrap().to_owned())
}

fn requeue(server: &Server, body: &Value) -> Value {
    server.client().post("/api/azulite/v1/dead/requeue", body.to_string().as_bytes()).expect_status(200).json()
}

#[test]
fn what_always_fails_is_one_record_and_one_file_until_a_run_succeeds() {
    let server = server();
    for attempt in 0..4 {
        assert!(list(&server).is_empty());
        assert_eq!(report(&server, "error-exception"), attempt);
    }
    let letters = list(&server);
    assert_eq!((letters.len(), &letters[0]["attempts"], &letters[0]["consumer"]), (1, &json!(4), &json!("Carver")));
    let id = letters[0]["id"].as_str().unwrap();
    await_that("the file", || !files(&dead_dir(&server)).is_empty());
    let [file] = &files(&dead_dir(&server))[..] else { panic!("one file") };
    let text: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((text["id"].as_str(), text["attempts"].as_array().unwrap().len()), (Some(id), 4));
    assert_eq!((&text["sha256"], &text["event"]["entity"]["sha256"]), (&json!(HELLO), &json!(HELLO)));
    assert!(!text.to_string().contains("hunter2") && text["withheld"] == json!(["event.source.settings.passwords"]));
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.contains("Z_Carver_") && name.contains(&text["kafka_key"].as_str().unwrap()[..12]), "{name}");
    let topic = server.cli(["consume", "azul.t1.system.dead"]).expect_code(0).stdout;
    assert_eq!(topic.lines().count(), 1, "{topic}");
    assert_eq!(serde_json::from_str::<Value>(&topic).unwrap(), text);
    let metrics = server.client().get("/metrics").expect_status(200).text();
    assert!(metrics.contains("azulite_dead_letters{consumer=\"Carver\",status=\"error-exception\"} 1"), "{metrics}");

    let ran = server.cli(["dead", "requeue", id]).expect_code(0).stdout;
    assert!(ran.contains("1 requeued, 0 skipped, 0 missing"), "{ran}");
    let again = server.cli(["dead", "requeue", id, "0123456789abcdef0123-0123456789ab"]).expect_code(1).stdout;
    assert!(again.contains("0 requeued, 1 skipped, 1 missing") && again.contains("not over"), "{again}");
    let task = server.fetch("binary/active", CARVER).only().clone();
    assert_eq!(
        (task["retries"].as_u64().unwrap_or(0), &task["source"]["settings"]["passwords"]),
        (0, &json!("hunter2"))
    );
    server.publish_ok("status", &json!([carver_status(&task, "completed-empty", &[])]));
    assert!(list(&server).is_empty());
    await_that("the end of the file", || files(&dead_dir(&server)).is_empty());
}

#[test]
fn a_run_that_was_put_back_and_fails_is_one_letter_again() {
    let (server, id) = with_letter();
    assert_eq!(requeue(&server, &json!({"ids": [id]}))["requeued"], 1);
    assert!(list(&server)[0]["requeued"].is_object());
    assert_eq!(report(&server, "error-input"), 0);
    let letters = list(&server);
    assert_eq!((letters.len(), &letters[0]["id"], &letters[0]["requeued"]), (1, &json!(id), &Value::Null));
    await_that("one file", || files(&dead_dir(&server)).len() == 1);
}

#[test]
fn everything_works_without_a_server_too() {
    let (mut server, id) = with_letter();
    server.stop();
    let listed = server.cli(["dead", "list", "--json"]).expect_code(0).json();
    assert_eq!((&listed["letters"][0]["id"], &listed["counts"][0]["dead"]), (&json!(id), &json!(1)));
    let shown = server.cli(["dead", "show", &id]).expect_code(0).stdout;
    assert!(shown.contains(HELLO) && shown.contains("attempt 1") && shown.contains("error-input"), "{shown}");
    assert!(
        server.cli(["dead", "list", "--status", "error-timeout"]).expect_code(0).stdout.contains("no dead letters")
    );
    let dry = server.cli(["dead", "requeue", "--all", "--dry-run"]).expect_code(0).stdout;
    assert!(dry.contains("1 would be requeued"), "{dry}");
    assert!(server.cli(["dead", "requeue", "--consumer", "Other"]).expect_code(0).stdout.contains("0 requeued"));
    let ran = server.cli(["dead", "requeue", "--consumer", "Carver", "--rate", "100/s"]).expect_code(0).stdout;
    assert!(ran.contains("1 requeued"), "{ran}");
    server.launch();
    assert_eq!(report(&server, "completed-empty"), 0);
    assert!(list(&server).is_empty());
}

#[test]
fn removal_asks_and_is_written_down() {
    let (server, id) = with_letter();
    let refused = server.cli(["dead", "purge", &id]).expect_code(2);
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    assert!(server.cli(["dead", "purge", "--older-than", "1h", "--yes"]).expect_code(0).stdout.contains("0 purged"));
    assert_eq!(list(&server).len(), 1);
    assert!(server.cli(["dead", "purge", &id, "--yes"]).expect_code(0).stdout.contains("1 purged"));
    assert!(list(&server).is_empty());
    let audit = server.cli(["consume", "azul.t1.system.audit"]).expect_code(0).stdout;
    let line: Value = serde_json::from_str(audit.trim()).unwrap();
    assert_eq!((&line["action"], &line["ids"]), (&json!("dead.purge"), &json!([id])));
    await_that("the end of the file", || files(&dead_dir(&server)).is_empty());
    let mut client = server.client();
    client.delete(&format!("/api/azulite/v1/dead/{id}")).expect_any_error(404);
    client.get(&format!("/api/azulite/v1/dead/{id}")).expect_any_error(404);
    for (path, body) in
        [("requeue", "{"), ("requeue", "{}"), ("requeue", "{\"x\":1}"), ("purge", "{}"), ("import", "[]")]
    {
        client.post(&format!("/api/azulite/v1/dead/{path}"), body.as_bytes()).expect_any_error(400);
    }
    client.get("/api/azulite/v1/dead?limit=x").expect_any_error(400);
    client.get("/api/azulite/v1/dead?after=x").expect_any_error(400);
    client.get("/api/azulite/v1/dead?since=x").expect_any_error(400);
}

#[test]
fn letters_are_carried_to_another_machine() {
    let (here, id) = with_letter();
    let carried = here.folder().join("carried");
    here.cli(["dead", "export", carried.to_str().unwrap()]).expect_code(0);
    let [file] = &files(&carried)[..] else { panic!("one file") };
    let there = Server::with(&config());
    let path = file.to_str().unwrap();
    let refused = there.cli(["dead", "requeue", "--file", path]).expect_code(0).stdout;
    assert!(refused.contains("is not stored here") && refused.contains("0 requeued, 1 skipped"), "{refused}");
    assert!(list(&there).is_empty());
    there.client().post("/api/v3/stream/lab/content", b"hello").expect_status(200);
    let ran = there.cli(["dead", "requeue", "--file", path]).expect_code(0).stdout;
    assert!(ran.contains("1 requeued") && ran.contains("leaves out event.source.settings.passwords"), "{ran}");
    assert_eq!(report(&there, "completed-empty"), 0);
    assert!(list(&there).is_empty());
    // Taken in without being run.
    let imported = there.cli(["dead", "import", carried.to_str().unwrap()]).expect_code(0).stdout;
    assert!(imported.contains("1 imported, 0 skipped, 0 bad"), "{imported}");
    let imported = there.cli(["dead", "import", path]).expect_code(0).stdout;
    assert!(imported.contains("0 imported, 1 skipped, 0 bad"), "{imported}");
    assert_eq!(list(&there)[0]["id"], json!(id));
}

#[test]
fn files_that_are_no_letters_are_named_and_do_no_harm() {
    let (server, _) = with_letter();
    let folder = server.folder().join("hostile");
    std::fs::create_dir(&folder).unwrap();
    await_that("the file", || !files(&dead_dir(&server)).is_empty());
    let good: Value = serde_json::from_slice(&std::fs::read(&files(&dead_dir(&server))[0]).unwrap()).unwrap();
    let bad = [
        ("empty", String::new()),
        ("text", "no JSON".to_owned()),
        ("list", "[]".to_owned()),
        ("deep", "[".repeat(100_000)),
        ("types", with(good.clone(), "/attempts", json!("none")).to_string()),
        ("event", with(good.clone(), "/event", json!({"a": 1})).to_string()),
        ("time", with(good.clone(), "/time", json!("0000")).to_string()),
    ];
    for (name, text) in &bad {
        std::fs::write(folder.join(format!("{name}.json")), text).unwrap();
    }
    let huge = std::fs::File::create(folder.join("huge.json")).unwrap();
    huge.set_len(1 << 40).unwrap();
    std::fs::write(folder.join("climbing.json"), with(good, "/consumer", json!("../../climbed")).to_string()).unwrap();
    let ran = server.cli(["dead", "import", folder.to_str().unwrap()]).expect_code(1);
    assert!(ran.stdout.contains(&format!("1 imported, 0 skipped, {} bad", bad.len() + 1)), "{ran:?}");
    for (name, _) in &bad {
        assert!(ran.stderr.contains(&format!("{name}.json")), "{name}: {ran:?}");
    }
    await_that("a file with a name that is safe", || {
        files(&dead_dir(&server)).iter().any(|file| file.to_str().unwrap().contains("Z_.._.._climbed_"))
    });
    assert!(!server.folder().join("climbed").exists());
}

#[test]
fn a_letter_whose_file_was_not_written_before_a_crash_has_it_after() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("letters");
    let shown = format!("{:?}", dir.to_str().unwrap());
    let mut server = Server::with(&config().set("dead_letter", "dir", &shown));
    server.announce(LETTER);
    server.announce("files of dead letters are not written");
    server.client().post("/api/v3/stream/lab/content", b"hello").expect_status(200);
    server.publish_ok("binary", &json!([sourced(HELLO, "lab")]));
    std::fs::remove_dir(&dir).unwrap();
    std::fs::write(&dir, b"in the way").unwrap();
    report(&server, "error-input");
    await_that("a warning", || {
        server.client().get("/readyz").text().contains("the file of one dead letter is not written")
    });
    server.kill();
    std::fs::remove_file(&dir).unwrap();
    server.launch();
    await_that("the file", || files(&dir).len() == 1);
    assert_eq!(list(&server).len(), 1);
}

#[test]
fn a_directory_that_cannot_be_used_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("letters");
    std::fs::write(&dir, b"in the way").unwrap();
    let shown = format!("{:?}", dir.to_str().unwrap());
    let server = Server::prepared(&config().set("dead_letter", "dir", &shown));
    let ran = server.cli(["serve"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("dead_letter.dir") && ran.stderr.contains(dir.to_str().unwrap()), "{ran:?}");
}

#[test]
fn an_entity_is_run_again_whatever_came_of_it() {
    let server = server();
    assert_eq!(report(&server, "completed-empty"), 0);
    assert!(server.fetch("binary/active", &CARVER.replace("deadline=5", "deadline=0")).events.is_empty());
    let ran = server.cli(["retry", HELLO, "--plugin", "Carver"]).expect_code(0).stdout;
    assert!(ran.contains("1 requeued"), "{ran}");
    assert_eq!(report(&server, "error-input"), 0);
    assert!(server.cli(["retry", HELLO, "--plugin", "Nobody"]).expect_code(1).stdout.contains("missing Nobody"));
    assert!(server.cli(["retry", &"0".repeat(64)]).expect_code(1).stdout.contains("1 missing"));
    let explained = server.cli(["explain", HELLO, "--plugin", "Carver"]).expect_code(0).stdout;
    assert!(explained.contains("dead letter ") && explained.contains("error-input"), "{explained}");
    // The letter is put back by a retry, and gone with its success.
    assert!(server.cli(["retry", HELLO]).expect_code(0).stdout.contains("1 requeued"));
    assert!(list(&server)[0]["requeued"].is_object());
    assert_eq!(report(&server, "completed-empty"), 0);
    assert!(list(&server).is_empty());
}

#[test]
fn no_status_keeps_an_entity_from_being_run_again() {
    let server = server();
    assert_eq!(report(&server, "opt-out"), 0);
    for word in ["completed", "completed-with-errors", "opt-out", "error-output", "completed-empty"] {
        let ran = server.cli(["retry", HELLO, "--plugin", "Carver"]).expect_code(0).stdout;
        assert!(ran.contains("1 requeued, 0 skipped"), "{ran}");
        assert_eq!(report(&server, word), 0, "{word}");
    }
    assert!(list(&server).is_empty(), "the last run was a success");
}

#[test]
fn what_is_put_back_twice_is_run_once() {
    let (server, id) = with_letter();
    let many = json!({"filter": {}});
    let by_id = json!({"ids": [id, id]});
    let reports: Vec<Value> = std::thread::scope(|scope| {
        let (server, bodies) = (&server, [&many, &by_id, &many, &by_id]);
        let threads = bodies.map(|body| scope.spawn(move || requeue(server, body)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |name: &str| reports.iter().map(|report| report[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("requeued"), 1, "{reports:?}");
    let skipped = reports.iter().map(|report| report["skipped"].as_array().unwrap().len()).sum::<usize>();
    assert_eq!(skipped, 3, "{reports:?}");
    let again = server.cli(["dead", "requeue", "--all"]).expect_code(0).stdout;
    assert!(again.contains("0 requeued, 1 skipped, 0 missing"), "{again}");
    assert_eq!(report(&server, "completed-empty"), 0);
    assert!(server.fetch("binary/active", &CARVER.replace("deadline=5", "deadline=0")).events.is_empty());
}

#[test]
fn a_full_disk_keeps_an_event_waiting_until_its_letter_can_be_written() {
    let short = || config().set("delivery", "lease", "\"1s\"").set("events", "lost_tasks_check", "\"10ms\"");
    let config = || short().set("delivery", "max_attempts", "1");
    let mut server = server_with(&config());
    let task = server.fetch("binary/active", CARVER).only().clone();
    server.publish_ok("status", &json!([carver_status(&task, "error-exception", &[])]));
    let task = server.fetch("binary/active", CARVER).only().clone();
    server.stop();
    server.configure(&config().set("storage", "reserve", "\"1000TB\""));
    for text in ["reserve", "disk", "space", "leases that have ended could not be looked for"] {
        server.announce(text);
    }
    server.launch();
    // Neither the status that makes it a letter nor the end of its lease can be written.
    let refused = server.publish("status", "", &json!([carver_status(&task, "error-exception", &[])]));
    refused.expect_any_error(507);
    server.client().post("/api/azulite/v1/dead/import", b"{}").expect_any_error(400);
    let explained = || server.cli(["explain", HELLO, "--plugin", "Carver"]).expect_code(0).stdout;
    assert!(explained().contains(", attempt 2, ends in "), "{}", explained());
    assert!(list(&server).is_empty() && files(&dead_dir(&server)).is_empty());
    server.stop();
    server.configure(&config());
    server.launch();
    await_that("the letter", || list(&server).len() == 1);
    await_that("its file", || files(&dead_dir(&server)).len() == 1);
    assert_eq!(list(&server)[0]["attempts"], 2);
}

#[test]
fn what_cannot_be_asked_for_is_refused_and_what_can_be_is_named() {
    let (server, id) = with_letter();
    for (asked, named) in
        [("?status=bogus", "error-timeout, filtered, requeued"), ("?statsu=error-input", "consumer, status, since")]
    {
        let refused = server.client().get(&format!("/api/azulite/v1/dead{asked}"));
        let text = refused.expect_any_error(400).text();
        assert!(text.contains(named), "{text}");
    }
    for good in ["error-input", "error-timeout", "filtered", "requeued"] {
        server.client().get(&format!("/api/azulite/v1/dead?status={good}")).expect_status(200);
    }
    let body = json!({"filter": {"status": "bogus"}}).to_string();
    server.client().post("/api/azulite/v1/dead/requeue", body.as_bytes()).expect_any_error(400);
    for command in [&["dead", "list", "--status", "bogus"][..], &["dead", "requeue", "--status", "bogus"]] {
        let ran = server.cli(command.iter().copied()).expect_code(1);
        assert!(ran.stderr.contains("\"bogus\"") && ran.stderr.contains("error-timeout"), "{ran:?}");
    }
    for (command, named) in [("requeue", "--consumer"), ("purge", "--older-than")] {
        let ran = server.cli(["dead", command]).expect_code(2);
        assert!(ran.stderr.contains(named), "{ran:?}");
    }
    // One name and one form of time everywhere.
    let record = server.cli(["consume", "azul.t1.system.dead"]).expect_code(0).stdout;
    let time = serde_json::from_str::<Value>(&record).unwrap()["time"].clone();
    let listed = server.cli(["dead", "list", "--json"]).expect_code(0).json();
    let shown = server.cli(["dead", "show", &id, "--json"]).expect_code(0).json();
    assert_eq!([&listed["letters"][0]["time"], &shown["letter"]["time"], &list(&server)[0]["time"]], [&time; 3]);
    requeue(&server, &json!({"ids": [id]}));
    let requeued = list(&server)[0]["requeued"]["time"].clone();
    assert!(requeued.as_str().is_some_and(|text| text.ends_with('Z')), "{requeued}");
}

#[test]
fn a_run_that_waits_is_brought_forward_and_never_doubled() {
    let server = server_with(&Config::examples().set("delivery", "retry_delay", "\"1h\""));
    let retry = || server.cli(["retry", HELLO, "--plugin", "Carver"]).stdout;
    let none_left = || {
        let left = server.fetch("binary/active", &CARVER.replace("deadline=5", "deadline=0")).events;
        assert!(left.is_empty(), "{left:?}");
    };
    assert_eq!(report(&server, "error-exception"), 0);
    none_left();
    for _ in 0..2 {
        let ran = retry();
        assert!(ran.contains("1 requeued, 0 skipped") && ran.contains("due now"), "{ran}");
    }
    let task = server.fetch("binary/active", CARVER).only().clone();
    assert_eq!(task["retries"], 1);
    let ran = retry();
    assert!(ran.contains("0 requeued, 1 skipped") && ran.contains("is being run"), "{ran}");
    server.publish_ok("status", &json!([carver_status(&task, "completed-empty", &[])]));
    none_left();
    // Nothing waits now; asked for twice, it is run once.
    assert!(retry().contains("1 requeued"));
    assert!(retry().contains("due now"));
    assert_eq!(report(&server, "completed-empty"), 0);
    none_left();
}

#[test]
fn two_consumers_count_apart_and_counts_survive_a_restart() {
    let mut server = server();
    let other = CARVER.replace("Carver", "Other");
    assert_eq!(report(&server, "error-exception"), 0);
    server.crash();
    assert_eq!(report(&server, "error-exception"), 1);
    let task = server.fetch("binary/active", &other).only().clone();
    assert_eq!(task["retries"].as_u64().unwrap_or(0), 0);
    let status = with(carver_status(&task, "error-input", &[]), "/author/name", json!("Other"));
    server.publish_ok("status", &json!([status]));
    let letters = list(&server);
    assert_eq!((letters.len(), &letters[0]["consumer"]), (1, &json!("Other")));
    server.crash();
    assert_eq!(report(&server, "error-exception"), 2);
    assert_eq!(report(&server, "error-exception"), 3);
    let counts = server.client().get("/api/azulite/v1/dead?limit=1").expect_status(200).json();
    assert_eq!(counts["counts"].as_array().unwrap().len(), 2, "{counts}");
    let after = counts["next"].as_str().unwrap();
    let rest = server.client().get(&format!("/api/azulite/v1/dead?limit=1&after={after}")).expect_status(200).json();
    assert_eq!(rest["letters"].as_array().unwrap().len(), 1, "{rest}");
    process::signal(server.pid(), "TERM");
    assert!(server.exited(Duration::from_secs(10)).is_some());
}
