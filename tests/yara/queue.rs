//! More jobs than scanners: the next object is with a scanner before it is done with the last one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use azulite::workers::{Outcome, Status};
use rustix::process::{Pid, Signal, kill_process};

use super::support::{Bench, rule, scanners};

/// Large enough to be read while it goes to the scanner.
const LARGE: usize = 20 << 20;

/// A worker with so many scanners, which are copies of the program, so that those of other tests are left alone. A file of
/// the name `slow` keeps one for a minute.
fn bench(threads: usize) -> (Arc<Bench>, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("azulite");
    std::fs::copy(env!("CARGO_BIN_EXE_azulite"), &program).unwrap();
    let slow = "rule slow { condition: filename == \"slow\" and for all i in (0..1000000000) : (uint8(i % 100) >= 0) }";
    let bench = Bench::with(&[("a.yar", &format!("{slow}\n{}", rule("found", "needle", "")))], |options| {
        options.threads = threads;
        options.file_timeout = Duration::from_secs(60);
        options.children.path.clone_from(&program);
    });
    (Arc::new(bench), program, folder)
}

fn kill_all(program: &Path) {
    for pid in scanners(program) {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}

/// Scans an object in a thread of its own; `then` is called when some of its content was read.
fn scan(
    bench: &Arc<Bench>,
    name: &'static str,
    size: usize,
    then: impl Fn() + Send + Sync + 'static,
) -> JoinHandle<Outcome> {
    let mut bytes = vec![b'x'; size];
    bytes.extend(b"needle");
    let event = bench.event(name, bytes);
    let (told, is_there): (Sender<()>, Receiver<()>) = channel();
    let once = AtomicBool::new(false);
    *bench.memory.hook.lock().unwrap() = Some(Arc::new(move |place| {
        told.send(()).ok();
        if place > 0 && !once.swap(true, Ordering::Relaxed) {
            then();
        }
    }));
    let running = Arc::clone(bench);
    let scan = thread::spawn(move || running.run(event));
    is_there.recv().unwrap();
    scan
}

#[test]
fn a_scanner_that_is_lost_to_one_object_costs_the_next_one_nothing() {
    let (bench, program, _folder) = bench(1);
    let slow = scan(&bench, "slow", LARGE / 4, || {});
    let next = scan(&bench, "next", LARGE, move || kill_all(&program));
    let outcome = slow.join().unwrap();
    assert_eq!((outcome.status, outcome.error.as_str()), (Status::ErrorRunner, "the scanner failed"));
    assert_eq!(next.join().unwrap().status, Status::Completed);
}

#[test]
fn an_object_behind_a_slow_one_goes_to_the_scanner_that_is_free_first() {
    let (bench, program, _folder) = bench(2);
    let slow = scan(&bench, "slow", LARGE / 4, || {});
    let (release, released) = channel();
    let (begun, has_begun) = channel();
    let released = std::sync::Mutex::new(released);
    let other = scan(&bench, "other", LARGE, move || {
        begun.send(()).unwrap();
        released.lock().unwrap().recv().unwrap();
    });
    has_begun.recv().unwrap();
    let next = scan(&bench, "next", LARGE, move || release.send(()).unwrap());
    assert_eq!(next.join().unwrap().status, Status::Completed);
    assert_eq!(other.join().unwrap().status, Status::Completed);
    assert!(!slow.is_finished());
    kill_all(&program);
    assert_eq!(slow.join().unwrap().status, Status::ErrorRunner);
}
