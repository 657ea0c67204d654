//! What survives the end of the process, however it ended.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::events::{carver_status, e1, id, sourced};
use crate::support::random::Random;
use crate::support::{Client, Config, PATIENCE, Server, await_that, process};

const PASSIVE: &str = "binary/passive";
const GROUP: &str = "name=keep&version=1&deadline=0&r-historic=true";

fn numbered(number: usize) -> String {
    format!("{number:064}")
}

/// Events, a half-read group and blobs of both kinds; then `end`; everything is as it was.
fn everything_survives(end: fn(&mut Server)) {
    let mut server = Server::start();
    let mut stored = Vec::new();
    for number in 0..10 {
        stored.extend(server.publish_ok("binary", &sourced(&numbered(number), "lab")));
    }
    assert_eq!(server.fetch(PASSIVE, &format!("{GROUP}&count=4")).ids(), (0..4).map(numbered).collect::<Vec<_>>());
    let mut random = Random::new(3);
    let blobs: Vec<(String, Vec<u8>)> = [1, 100, 65_536, 65_537, 200_000]
        .map(|length| {
            let bytes = random.bytes(length);
            let answer = server.client().post("/api/v3/stream/lab/content", &bytes).expect_status(200);
            (answer.json()["data"]["sha256"].as_str().unwrap().to_owned(), bytes)
        })
        .into();

    end(&mut server);

    for (hash, bytes) in &blobs {
        let path = format!("/api/v3/stream/lab/content/{hash}");
        assert_eq!(&server.client().get(&path).expect_status(200).body, bytes, "{hash}");
    }
    let fresh = server.fetch(PASSIVE, "name=fresh&version=1&deadline=0&r-historic=true&count=100");
    assert_eq!(fresh.events, stored, "every event, exactly as acknowledged, in order");
    let rest = server.fetch(PASSIVE, &format!("{GROUP}&count=100"));
    assert_eq!(rest.ids(), (4..10).map(numbered).collect::<Vec<_>>(), "the group goes on where it was");
    server.publish_ok("binary", &sourced(&numbered(10), "lab"));
    assert_eq!(server.fetch(PASSIVE, &format!("{GROUP}&count=100")).ids(), [numbered(10)]);
}

#[test]
fn events_positions_and_blobs_survive_a_stop() {
    everything_survives(Server::restart);
}

#[test]
fn events_and_blobs_survive_a_kill() {
    let mut server = Server::start();
    let mut stored = Vec::new();
    for number in 0..10 {
        stored.extend(server.publish_ok("binary", &sourced(&numbered(number), "lab")));
    }
    let bytes = Random::new(4).bytes(100_000);
    let answer = server.client().post("/api/v3/stream/lab/content", &bytes).expect_status(200);
    let hash = answer.json()["data"]["sha256"].as_str().unwrap().to_owned();
    server.crash();
    let fresh = server.fetch(PASSIVE, "name=fresh&version=1&deadline=0&r-historic=true&count=100");
    assert_eq!(fresh.events, stored);
    let path = format!("/api/v3/stream/lab/content/{hash}");
    assert_eq!(server.client().get(&path).expect_status(200).body, bytes);
}

#[test]
fn a_group_skips_nothing_after_a_kill() {
    let mut server = Server::start();
    for number in 0..10 {
        server.publish_ok("binary", &sourced(&numbered(number), "lab"));
    }
    let first = server.fetch(PASSIVE, &format!("{GROUP}&count=4")).ids();
    server.crash();
    let rest = server.fetch(PASSIVE, &format!("{GROUP}&count=100")).ids();
    assert!(rest.ends_with(&(4..10).map(numbered).collect::<Vec<_>>()), "after {first:?} came {rest:?}");
    assert!(rest.len() == 6 || rest.len() == 10, "at most the last answer comes again: {rest:?}");
}

#[test]
fn a_live_reader_sees_everything_since_its_first_answer_even_after_a_kill() {
    for end in [Server::crash, Server::restart] {
        let mut server = Server::start();
        server.publish_ok("binary", &sourced(&numbered(0), "lab"));
        let live = "name=live&version=1&count=10&deadline=0&r-live=true&r-expedite=true";
        assert!(server.fetch(PASSIVE, live).events.is_empty());
        server.publish_ok("binary", &sourced(&numbered(1), "lab"));
        end(&mut server);
        server.publish_ok("binary", &sourced(&numbered(2), "lab"));
        let expedited = json!({"expedite": true});
        let urgent = crate::support::events::with(sourced(&numbered(3), "lab"), "/flags", expedited);
        server.publish_ok("binary", &urgent);
        let mut seen = server.fetch(PASSIVE, live).ids();
        seen.sort();
        assert_eq!(seen, [numbered(1), numbered(2), numbered(3)]);
    }
}

#[test]
fn deletes_are_remembered_after_a_kill() {
    let mut server = Server::start();
    let key = server.publish_ok("binary", &e1())[0]["kafka_key"].clone();
    let delete = json!({"model_version": 6, "timestamp": "2026-01-03T00:00:00Z", "author": {"name": "admin"},
        "action": "ids", "entity": {"reason": "test", "ids": {"ids": [key]}}});
    server.publish_ok("delete", &delete);
    server.crash();
    server.publish("binary", "", &e1()).expect_any_error(425);
    let batch = server.fetch(PASSIVE, "name=after&version=1&count=1&deadline=1&r-historic=true");
    assert!(batch.events.is_empty());
}

#[test]
fn a_task_taken_before_a_kill_can_still_be_completed() {
    let mut server = Server::start();
    server.publish_ok("binary", &e1());
    let task = server.fetch("binary/active", "name=Carver&version=1.2&count=1&deadline=1&r-historic=true");
    // The position is written once the answer is out: a kill before that may hand the task out again.
    let group = "/api/azulite/v1/groups/t1-azul-Carver-1.2-binary-allsrc-alltype-H-historic";
    await_that("the position is durable", || server.client().get(group).json()["lag"] == 0);
    server.crash();
    server.publish_ok("status", &carver_status(task.only(), "completed", &[]));
    let again = server.fetch("binary/active", "name=Carver&version=1.2&count=1&deadline=1&r-historic=true");
    assert!(again.events.is_empty(), "closed tasks are not handed out again: {again:?}");
}

#[test]
fn stopping_answers_the_requests_that_wait() {
    let mut server = Server::start();
    let mut client = server.client();
    let address = server.address();
    let waiter = std::thread::spawn(move || {
        let query = "/api/v2/event/binary/passive?name=w&version=1&count=1&deadline=60&r-historic=true";
        client.try_get(query)
    });
    // The waiting GET is on its way once the plugin key is registered; another connection proves the server is up.
    crate::support::Client::new(address).get("/healthz").expect_status(200);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(10));
    if let Ok(answer) = waiter.join().unwrap() {
        assert!([200, 503].contains(&answer.status), "{answer:?}");
    }
}

#[test]
fn a_server_that_never_got_data_starts_again() {
    let mut server = Server::start();
    server.restart();
    server.crash();
    server.publish_ok("binary", &e1());
    server.crash();
    assert_eq!(server.fetch(PASSIVE, "name=x&version=1&deadline=0&r-historic=true").ids(), [id('a')]);
}

#[test]
fn the_service_manager_is_told_when_the_server_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = Server::prepared(&Config::examples()).env("NOTIFY_SOCKET", &path).started();
    let mut message = [0; 4096];
    loop {
        let length = socket.recv(&mut message).expect("READY=1 is sent");
        if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == "READY=1") {
            break;
        }
    }
    server.client().get("/readyz").expect_status(200);
}

#[test]
fn a_server_whose_log_nobody_reads_any_more_still_stops() {
    let server = Server::prepared(&Config::examples());
    let mut command = process::azulite();
    command.args(["serve", "--config"]).arg(server.config_path()).arg("--data-dir").arg(server.data_dir());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.contains("listening on http://")).expect("it listens");
    let (_, address) = line.rsplit_once('/').expect("an address");
    let address = address.parse().expect("an address");
    // The pipe is closed by now, and the signals are listened to when it answers.
    await_that("an answer", || Client::new(address).try_get("/readyz").is_ok_and(|answer| answer.status == 200));
    process::signal(child.id(), "TERM");
    let status = process::wait_for_exit(&mut child, Duration::from_secs(10));
    if status.is_none() {
        child.kill().unwrap();
    }
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}
