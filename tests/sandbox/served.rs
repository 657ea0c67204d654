//! The worker inside `serve`, against the real dispatcher; the process is killed in every stage.

use serde_json::{Value, json};

use super::memory::sha256;
use super::stand_in::{Kind, StandIn};
use super::support::events::{sourced, with};
use super::support::{Config, Server, WorkerProcess, await_that};

fn config(stand_in: &StandIn, kind: &str) -> Config {
    let section = format!(
        "[{{ name = \"box\", kind = \"{kind}\", url = \"{}\", token_file = \"\", capacity_recheck = \"200ms\", \
         wait_between_requests = \"10ms\", settle_delay = \"0s\", retry_delay = \"100ms\", request_timeout = \"2s\", \
         reuse_existing = false, cleanup = true, parsers = [\"info\", \"signatures\"], \
         rate_limits = {{ default = [] }} }}]",
        stand_in.url()
    );
    Config::examples().set("workers", "sandbox", &section)
}

/// The dead letters.
fn letters(server: &Server) -> Vec<Value> {
    let listed = server.cli(["dead", "list", "--json"]).expect_code(0).json();
    listed["letters"].as_array().expect("a list").clone()
}

fn submit(server: &Server, bytes: &[u8]) {
    server.client().post("/api/v3/stream/lab/content", bytes).expect_status(200);
    let format = json!("executable/windows/pe32");
    let event = with(sourced(&sha256(bytes), "lab"), "/entity/datastreams/0/file_format", format);
    server.publish_ok("binary", &event);
}

/// Final statuses of the worker so far.
fn finals(server: &Server, reader: &str) -> Vec<Value> {
    let query = format!("name={reader}&version=1&r-historic=true&count=1000&deadline=0");
    let page = server.fetch("status/passive", &query);
    let mine = page.events.into_iter().filter(|event| event["author"]["name"] == "sandbox-box");
    mine.filter(|event| event["entity"]["status"] != "heartbeat").collect()
}

fn await_final(server: &Server) -> Value {
    let mut found = Vec::new();
    await_that("a final status", || {
        found.extend(finals(server, "waits"));
        !found.is_empty()
    });
    found.remove(0)
}

#[test]
fn after_a_kill_of_the_server_in_any_stage_there_is_one_task_and_one_final_status() {
    for (kind, word) in [(Kind::Cuckoo, "cuckoo"), (Kind::Cape, "cape")] {
        for call in ["capacity", "create", if kind == Kind::Cape { "status" } else { "view" }, "report", "delete"] {
            let stand_in = StandIn::start(kind);
            stand_in.state().held.insert(call);
            let mut server = Server::with(&config(&stand_in, word));
            submit(&server, b"MZ one");
            await_that(call, || stand_in.count(call) > 0);
            server.kill();
            stand_in.state().held.clear();
            if call == "create" {
                await_that("the task", || !stand_in.state().tasks.is_empty());
            }
            server.launch();
            await_that("the cleanup", || stand_in.state().deleted.len() == 1);
            assert_eq!(await_final(&server)["entity"]["status"], "completed", "{word} killed at {call}");
            assert_eq!(stand_in.count("create"), 1, "{word} killed at {call}");
            server.stop();
            server.launch();
            assert_eq!(finals(&server, "again").len(), 1, "{word} killed at {call}");
        }
    }
}

#[test]
fn a_sandbox_worker_is_shown_by_metrics_readiness_and_the_overseer() {
    let mut stand_in = StandIn::start(Kind::Cuckoo);
    let mut server = Server::with(&config(&stand_in, "cuckoo"));
    submit(&server, b"MZ one");
    await_final(&server);
    let page = server.client().get("/metrics").expect_status(200).text();
    for line in [
        "azulite_worker_jobs_total{worker=\"sandbox-box\",status=\"completed\"} 1",
        "azulite_worker_job_seconds_count{worker=\"sandbox-box\"} 1",
        "azulite_worker_in_flight{worker=\"sandbox-box\"} ",
        "azulite_worker_up{worker=\"sandbox-box\"} 1",
        "azulite_worker_stage_runs_total{worker=\"sandbox-box\",stage=\"submit\",status=\"completed\"} 1",
        "azulite_worker_stage_in_flight{worker=\"sandbox-box\",stage=\"parse\"} 0",
    ] {
        assert!(page.lines().any(|l| l.starts_with(line)), "{line} is missing in\n{page}");
    }
    let listed = server.client().get("/api/azulite/v1/workers").expect_status(200).json();
    let view = &listed["workers"][0];
    assert_eq!((&view["where"], &view["stages"][0]["waiting"]), (&json!("server"), &json!(0)));
    assert!(view["last_seen_ms"].is_i64() && view["stages"][0]["median_s"].is_f64(), "{view}");
    server.announce("the sandbox is down");
    stand_in.switch_off();
    submit(&server, b"MZ two");
    await_that("down", || server.client().get("/readyz").text().contains("worker sandbox-box: ready, but down: "));
}

#[test]
fn results_are_events_like_those_of_any_plugin() {
    let stand_in = StandIn::start(Kind::Cuckoo);
    let server = Server::with(&config(&stand_in, "cuckoo"));
    submit(&server, b"MZ one");
    await_final(&server);
    let page = server.fetch("binary/passive", "name=r&version=1&r-historic=true&count=10&deadline=0");
    let actions: Vec<&str> = page.events.iter().filter_map(|event| event["action"].as_str()).collect();
    assert!(actions.contains(&"enriched") && actions.contains(&"augmented"), "{actions:?}");
    let enriched = page.events.iter().find(|event| event["action"] == "enriched").unwrap();
    assert_eq!(enriched["entity"]["info"]["sandbox"]["machine"], "win10");
    assert_eq!(enriched["author"]["name"], "sandbox-box");
}

#[test]
fn an_analysis_that_fails_is_a_dead_letter_with_the_task_id_after_its_retries() {
    let stand_in = StandIn::start(Kind::Cuckoo);
    stand_in.state().script = vec!["pending", "failed_analysis"];
    let mut server = Server::with(&config(&stand_in, "cuckoo"));
    server.announce("dead letter");
    submit(&server, b"MZ one");
    await_that("a dead letter", || !letters(&server).is_empty());
    let check = |letter: &Value| {
        assert_eq!((&letter["consumer"], &letter["stage"]), (&json!("sandbox-box"), &json!("check")), "{letter}");
        assert_eq!((&letter["sha256"], &letter["source"]), (&json!(sha256(b"MZ one")), &json!("lab")), "{letter}");
        assert_eq!(letter["context"]["task_ids"], json!([1]), "{letter}");
        let attempts = letter["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 4, "one run and three retries: {letter}");
        for attempt in attempts {
            assert_eq!((&attempt["status"], &attempt["error"]), (&json!("error-exception"), &json!("failed_analysis")));
        }
    };
    for life in ["first", "second"] {
        let listed = letters(&server);
        assert_eq!(listed.len(), 1, "{life}: {listed:?}");
        let id = listed[0]["id"].as_str().expect("an id");
        let shown = server.cli(["dead", "show", id, "--json"]).expect_code(0).json();
        check(&shown["letter"]);
        let folder = server.data_dir().join("dead");
        let files = || std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let files = || files().filter(|path| path.extension().is_some_and(|end| end == "json")).collect::<Vec<_>>();
        await_that("its file", || !files().is_empty());
        assert_eq!(files().len(), 1, "{life}: {:?}", files());
        check(&serde_json::from_slice(&std::fs::read(&files()[0]).unwrap()).expect("JSON"));
        assert_eq!((finals(&server, life).len(), stand_in.count("create")), (1, 1), "{life}");
        server.restart();
    }
}

#[test]
fn after_a_kill_of_a_worker_of_its_own_process_there_is_one_task_and_one_final_status() {
    for call in ["create", "view", "report"] {
        let stand_in = StandIn::start(Kind::Cuckoo);
        stand_in.state().held.insert(call);
        let server = Server::start();
        let file = server.folder().join("worker.toml");
        std::fs::write(&file, config(&stand_in, "cuckoo").text()).unwrap();
        let data = server.folder().join("worker");
        let mut worker = WorkerProcess::start(&["sandbox", "--name", "box"], &file, &data, server.address());
        submit(&server, b"MZ one");
        await_that(call, || stand_in.count(call) > 0);
        worker.kill();
        stand_in.state().held.clear();
        if call == "create" {
            await_that("the task", || !stand_in.state().tasks.is_empty());
        }
        worker.launch();
        await_that("the cleanup", || stand_in.state().deleted.len() == 1);
        assert_eq!(await_final(&server)["entity"]["status"], "completed", "killed at {call}");
        worker.kill();
        worker.launch();
        // Behind a second file nothing is left to come of the first.
        submit(&server, b"MZ two");
        let mut all = Vec::new();
        await_that("both", || {
            all.extend(finals(&server, "again"));
            all.len() >= 2
        });
        assert_eq!((all.len(), stand_in.count("create")), (2, 2), "killed at {call}: {all:?}");
    }
}
