//! Children that crash, hang, babble or are killed cost one call; the real one has given up what it should have.

use std::fs;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use azulite::identify::Identifier;
use azulite::identify::content::{ContentScanner, Facts, Scan};
use azulite::isolate::{CallError, Counts, Limits, Options, Pool, Program};
use rustix::process::{Pid, Signal, kill_process};

use super::{await_that, scanner, scanner_of};

const RUST: &[u8] = b"pub struct A;\nfn f(&self) {}\n";

/// What a child says first: number 0, one byte, all is well.
const GREETING: &str = r"printf '\0\0\0\0\0\0\0\0\1\0\0\0\0' >&0;";

fn size() -> u64 {
    u64::try_from(RUST.len()).unwrap()
}

fn facts() -> Facts {
    Facts { mime: "text/plain".into(), magic: "ASCII text".into(), file_type: "text/plain".into() }
}

/// A pool whose children are a shell that does this.
fn shell(workers: usize, script: &str) -> Pool {
    let arguments = vec!["-c".into(), script.into()];
    let program = Program { path: "/bin/sh".into(), arguments };
    let limits = Limits { memory_bytes: 0, cpu_seconds: 3600, body_bytes: 0, setup_bytes: 0 };
    let (idle, wait) = (Duration::from_millis(50), Duration::from_millis(50));
    Pool::start(Options { program, limits, workers, idle, wait, setup: None, shared: false }).unwrap()
}

fn call(pool: &Pool, limit: Duration) -> Result<u32, CallError> {
    pool.call(&1_u32, &mut Cursor::new(vec![0; 5_000_000]), 5_000_000, limit)
}

/// This process's children with `marker` in their command line.
fn children(marker: &str) -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let marked = |pid: &str| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(marker)
    };
    let pids = tasks.flatten().map(of_task).collect::<Vec<_>>().join(" ");
    pids.split_whitespace().filter(|pid| marked(pid)).filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Content that does something when it is first read.
struct Trap<F: FnMut()>(Cursor<Vec<u8>>, F);

impl<F: FnMut()> Read for Trap<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.position() == 0 {
            self.1();
        }
        self.0.read(buffer)
    }
}

#[test]
fn a_child_that_ends_costs_one_call_each_time() {
    let pool = shell(1, &format!("{GREETING} exit 1"));
    for lost in 1..=3 {
        let got = call(&pool, Duration::from_secs(20));
        assert!(matches!(got, Err(CallError::Died)), "{got:?}");
        assert_eq!(pool.counts(), Counts { started: lost, lost });
    }
}

#[test]
fn a_child_that_hangs_is_ended_when_its_time_is_over() {
    for script in ["exec sleep 1000", "cat <&0 >/dev/null; exec sleep 1000"] {
        let pool = shell(1, &format!("{GREETING} {script}"));
        let begun = Instant::now();
        let got = call(&pool, Duration::from_millis(300));
        assert!(matches!(got, Err(CallError::TimedOut(_))), "{got:?}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(pool.counts().lost, 1);
    }
}

#[test]
fn answers_that_are_none_are_refused() {
    let take = "head -c 5000000 <&0 >/dev/null;";
    for (said, wanted) in [
        (r"\1\0\0\0\0\0\0\0\377\377\377\377", "it is too long"),
        (r"\2\0\0\0\0\0\0\0\1\0\0\0\5", "it is of another request"),
        (r"\1\0\0\0\0\0\0\0\1\0\0\0\5\5", "something follows it"),
        (r"\1\0\0\0\0\0\0\0\2\0\0\0\5\5", "it is no answer to this request"),
    ] {
        let pool = shell(1, &format!("{GREETING} {take} printf '{said}' >&0; exec sleep 1000"));
        let got = call(&pool, Duration::from_secs(20));
        assert!(matches!(got, Err(CallError::Garbled(why)) if why == wanted), "{wanted}: {got:?}");
        assert_eq!(pool.counts().lost, 1);
    }
    let pool =
        shell(1, &format!("{GREETING} {take} printf '\\1\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\5' >&0; exec sleep 1000"));
    assert_eq!(call(&pool, Duration::from_secs(20)).unwrap(), 5);
    assert_eq!(pool.counts().lost, 0);
}

#[test]
fn babble_without_end_is_no_answer() {
    let pool = shell(1, &format!("{GREETING} exec cat /dev/urandom >&0"));
    let got: Result<u32, _> = pool.call(&1_u32, &mut io::empty(), 0, Duration::from_secs(20));
    // It may begin within the greeting.
    assert!(matches!(got, Err(CallError::Garbled(_) | CallError::Died | CallError::Start(_))), "{got:?}");
    let got = call(&shell(1, "exec cat /dev/zero >&0"), Duration::from_secs(20));
    assert!(matches!(got, Err(CallError::Start(_))), "{got:?}");
}

#[test]
fn a_child_that_cannot_be_started_or_confined_is_named() {
    let program = Program { path: "/nonexistent".into(), arguments: Vec::new() };
    let limits = Limits { memory_bytes: 0, cpu_seconds: 1, body_bytes: 0, setup_bytes: 0 };
    let (idle, wait) = (Duration::from_secs(1), Duration::from_secs(1));
    let pool = Pool::start(Options { program, limits, workers: 1, idle, wait, setup: None, shared: false }).unwrap();
    for _ in 0..3 {
        let got = call(&pool, Duration::from_secs(20));
        assert!(matches!(&got, Err(CallError::Start(why)) if why.contains("No such file")), "{got:?}");
    }
    let got = call(&shell(1, r"printf '\0\0\0\0\0\0\0\0\4\0\0\0\1\2no' >&0"), Duration::from_secs(20));
    assert!(matches!(&got, Err(CallError::Start(why)) if why == "no"), "{got:?}");
}

#[test]
fn children_are_bounded_and_a_call_waits_only_so_long() {
    let pool = shell(1, &format!("{GREETING} exec sleep 1000"));
    let mut inner = None;
    let mut body = Trap(Cursor::new(vec![0; 10]), || inner = Some(call(&pool, Duration::from_secs(20))));
    let outer: Result<u32, _> = pool.call(&1_u32, &mut body, 10, Duration::from_millis(300));
    assert!(matches!(outer, Err(CallError::TimedOut(_))), "{outer:?}");
    assert!(matches!(inner, Some(Err(CallError::Busy))), "{inner:?}");
    assert_eq!(pool.counts(), Counts { started: 1, lost: 1 });
}

#[test]
fn content_that_cannot_be_read_or_is_too_short_is_the_callers_error() {
    let scanner = scanner(1);
    let got = scanner.scan(&facts(), 100, &mut Cursor::new(RUST));
    assert_eq!(got.map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
    let got = scanner.scan(&facts(), size(), &mut Cursor::new(RUST)).unwrap();
    assert_eq!(got, Scan::Type("code/rust".into()));
}

#[test]
fn the_scanner_is_confined_replaced_when_killed_and_gone_with_its_pool() {
    // A size of its own, to know its children by.
    let pool = scanner_of(1, 7_654_321);
    let own = || children("__scanner\x007654321");
    let scan = |content: &mut dyn Read| pool.scan(&facts(), size(), content).unwrap();
    assert_eq!(scan(&mut Cursor::new(RUST)), Scan::Type("code/rust".into()));
    let first = own();
    assert!(first.len() == 1 && is_confined(first[0]), "{first:?}");

    let mut trap = Trap(Cursor::new(RUST.to_vec()), || kill_process(own()[0], Signal::KILL).unwrap());
    assert_eq!(scan(&mut trap), Scan::Failed("the scanner stopped".into()));
    assert_eq!(pool.counts().lost, 1);
    assert_eq!(scan(&mut Cursor::new(RUST)), Scan::Type("code/rust".into()));
    assert!(own().len() == 1 && own() != first);
    // Killed while it had nothing to do: no file pays for that.
    let idle = own()[0];
    kill_process(idle, Signal::KILL).unwrap();
    let state = || fs::read_to_string(format!("/proc/{}/stat", idle.as_raw_nonzero())).unwrap();
    await_that("the end of the child", || state().contains(") Z "));
    assert_eq!(scan(&mut Cursor::new(RUST)), Scan::Type("code/rust".into()));
    assert_eq!(pool.counts(), Counts { started: 3, lost: 1 });
    drop(pool);
    assert_eq!(own(), []);
}

/// Whether the child has a filter of system calls, no privileges to gain, and no files or processes to open.
fn is_confined(pid: Pid) -> bool {
    let pid = pid.as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let none = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().filter(|word| *word == "0").count() == 2
    };
    let filtered = cfg!(not(any(target_arch = "x86_64", target_arch = "aarch64"))) || status.contains("\nSeccomp:\t2");
    let limits = ["Max open files", "Max processes", "Max core file size", "Max file size"];
    filtered && status.contains("\nNoNewPrivs:\t1") && limits.into_iter().all(none)
}

#[test]
fn children_with_nothing_to_do_are_stopped() {
    let pool = shell(
        1,
        &format!(
            "{GREETING} head -c 21 <&0 >/dev/null; printf '\\1\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\5' >&0; exec sleep 4242"
        ),
    );
    let got: Result<u32, _> = pool.call(&1_u32, &mut io::empty(), 0, Duration::from_secs(20));
    assert_eq!(got.unwrap(), 5);
    await_that("the end of the child", || children("sleep\x004242").is_empty());
    assert_eq!(pool.counts(), Counts { started: 1, lost: 0 });
}

/// What `file` says, in its words.
#[cfg(feature = "libmagic")]
#[test]
fn the_text_comes_from_the_library_of_the_system() {
    let found = super::identifier().identify(Cursor::new(b"#!/bin/sh\necho hi\n")).unwrap();
    assert_eq!(found.magic, "POSIX shell script text executable");
    assert_eq!((found.mime.as_str(), found.file_format.as_str()), ("text/x-shellscript", "code/shell"));
    assert_eq!(super::identifier().identify(Cursor::new(RUST)).unwrap().file_format, "code/rust");
}

/// With libmagic the first to fail would be that.
#[cfg(not(feature = "libmagic"))]
#[test]
fn a_failed_scan_keeps_the_type_and_says_so_in_magic() {
    let program = Program { path: "/bin/sh".into(), arguments: vec!["-c".into(), "exit 1".into()] };
    let broken = azulite::identify::content::Isolated::with_program(program, 1, 1 << 20).unwrap();
    let identifier = Identifier::load(Arc::new(broken)).unwrap();
    let (found, notes) = identifier.identify_noting(Cursor::new(RUST)).unwrap();
    assert_eq!((found.file_format.as_str(), found.mime.as_str()), ("text/plain", "text/x-rust"));
    assert!(found.magic.starts_with("error - content rules: the scanner cannot be started: "), "{}", found.magic);
    assert!(matches!(notes.content, Some(Scan::Failed(_))));
    // A file that is known without them does not need them.
    let script = identifier.identify(Cursor::new(b"#!/bin/sh\necho hi\n")).unwrap();
    assert_eq!(script.file_format, "code/shell");
    let large = identifier.identify_noting(Cursor::new(vec![b'a'; (1 << 20) + 1])).unwrap();
    assert_eq!(large.1.content, Some(Scan::Skipped));
}
