//! A stop or a kill in each stage: the next start goes on where it was.

use std::path::Path;
use std::time::Duration;

use super::stand_in::Fault;
use azulite::workers::sandbox::Parser;

use super::bench::*;
use super::stand_in::Kind;

/// The folder as a kill leaves it: every file as it is now.
fn copy_of(folder: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() && entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Runs until `call` is at the stand-in, which holds it back; what a kill leaves at that moment is what the next start
/// finds. What the killed one would still have done is cut off.
fn killed_at(call: &'static str, kind: Kind) -> Bench {
    let mut bench = Bench::new(kind);
    bench.options.reuse_existing = false;
    bench.options.cleanup = true;
    bench.options.parse_stages = vec![vec![Parser::Info, Parser::Signatures], vec![Parser::Network]];
    bench.stand_in.state().held.insert(call);
    bench.submit(b"MZ");
    let sandbox = bench.start();
    bench.await_call(call, 1);
    copy_of(&bench.jobs(), &bench.folder.path().join("killed"));
    // The killed one sees nothing but a dispatcher and a sandbox that are gone.
    bench.hub.held().is_down = true;
    if call == "create" {
        // The file arrived, the answer did not.
        bench.stand_in.state().held.clear();
        await_that("the task", || !bench.stand_in.state().tasks.is_empty());
    }
    sandbox.stop(Duration::ZERO);
    bench.stand_in.switch_off();
    bench.stand_in.state().held.clear();
    bench.stand_in.switch_on();
    bench.hub.held().is_down = false;
    bench
}

#[test]
fn after_a_kill_in_any_stage_there_is_one_task_and_one_final_status() {
    for kind in [Kind::Cuckoo, Kind::Cape] {
        for call in ["capacity", "create", "view", "report", "delete"] {
            if kind == Kind::Cape && call == "view" {
                continue;
            }
            let bench = killed_at(call, kind);
            let created = bench.stand_in.count("create");
            let sandbox = bench.start_in(bench.folder.path().join("killed"));
            await_that("the job is gone", || sandbox.open_jobs() == 0);
            sandbox.stop(GRACE);
            let finals = &bench.hub.held().finals;
            assert_eq!(finals.len(), 1, "{kind:?} killed at {call}: {finals:?}");
            assert_eq!(finals[0].entity.status, "completed", "{kind:?} killed at {call}");
            assert_eq!(bench.stand_in.count("create"), created.max(1), "{kind:?} killed at {call}");
            let state = bench.stand_in.state();
            assert_eq!((state.tasks.len(), state.deleted.len()), (0, 1), "{kind:?} killed at {call}");
        }
    }
}

#[test]
fn a_stop_gives_back_what_was_not_sent_and_keeps_the_rest() {
    let mut bench = Bench::new(Kind::Cuckoo);
    bench.options.submit_prefetch = 2;
    bench.stand_in.state().script = vec!["running"];
    bench.submit(b"MZ one");
    let sandbox = bench.start();
    bench.await_call("view", 1);
    bench.stand_in.state().pending = 10;
    let second = bench.submit(b"MZ two");
    await_that("two jobs", || sandbox.open_jobs() == 2);
    sandbox.stop(GRACE);
    drop(sandbox);
    assert_eq!(bench.hub.held().released, [second.dequeued]);
    bench.stand_in.state().tasks.values_mut().for_each(|task| task.states = ["reported".to_owned()].into());
    let sandbox = bench.start();
    assert_eq!(bench.await_finals(1)[0].entity.status, "completed");
    await_that("the job is gone", || sandbox.open_jobs() == 0);
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.count("create"), 1);
}

#[test]
fn a_redelivery_after_a_lost_lease_joins_the_job_that_is_open() {
    let bench = Bench::new(Kind::Cuckoo);
    bench.stand_in.state().script = vec!["running"];
    let mut event = bench.submit(b"MZ");
    let sandbox = bench.start();
    bench.await_call("view", 1);
    event.dequeued = format!("{}.sandbox-box.1.1767329999", event.kafka_key);
    event.retries = 1;
    bench.hub.held().waiting.push_back(event.clone());
    let id = event.dequeued.clone();
    await_that("heartbeats of the new task", || {
        bench.hub.held().heartbeats.iter().any(|beat| beat.entity.input.dequeued == id)
    });
    bench.stand_in.state().tasks.values_mut().for_each(|task| task.states = ["reported".to_owned()].into());
    let finals = bench.await_finals(1);
    assert_eq!((finals.len(), &finals[0].entity.input.dequeued), (1, &event.dequeued));
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.count("create"), 1);
}

#[test]
fn two_tasks_of_the_dispatcher_for_one_event_both_get_their_final_status() {
    let bench = Bench::new(Kind::Cuckoo);
    bench.stand_in.state().script = vec!["running"];
    let mut event = bench.submit(b"MZ");
    let sandbox = bench.start();
    bench.await_call("view", 1);
    event.dequeued = format!("{}.sandbox-box.1.1767329999", event.kafka_key);
    bench.hub.held().waiting.push_back(event.clone());
    await_that("it is taken", || bench.hub.held().waiting.is_empty());
    await_that("heartbeats of the new task", || {
        bench.hub.held().heartbeats.iter().any(|beat| beat.entity.input.dequeued == event.dequeued)
    });
    bench.stand_in.state().tasks.values_mut().for_each(|task| task.states = ["reported".to_owned()].into());
    let finals = bench.await_finals(2);
    let told: Vec<(&str, usize)> =
        finals.iter().map(|status| (status.entity.status.as_str(), status.entity.results.len())).collect();
    assert_eq!(told, [("completed", 0), ("completed", 2)]);
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.count("create"), 1);
}

#[test]
fn an_unsure_upload_on_a_sandbox_that_cannot_be_asked_is_sent_again() {
    let bench = Bench::new(Kind::Cuckoo);
    bench.stand_in.state().off.insert("list");
    bench.stand_in.state().faults.insert("create", [Fault::DisconnectAfter].into());
    bench.submit(b"MZ");
    let sandbox = bench.start();
    assert_eq!(bench.await_finals(1)[0].entity.status, "completed");
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.count("create"), 2);
}

#[test]
fn a_submission_that_the_sandbox_lists_late_is_not_sent_again() {
    let mut bench = Bench::new(Kind::Cuckoo);
    bench.options.capacity_recheck = Duration::from_millis(500);
    bench.stand_in.state().unlisted_looks = 1;
    bench.stand_in.state().faults.insert("create", [Fault::DisconnectAfter].into());
    bench.submit(b"MZ");
    let sandbox = bench.start();
    assert_eq!(bench.await_finals(1)[0].entity.status, "completed");
    sandbox.stop(GRACE);
    assert_eq!(bench.stand_in.count("create"), 1);
}
