//! Hostile archives: each has its end, within memory and time.

#![cfg(test)]
#![expect(clippy::as_conversions, reason = "sizes in tests are small")]

mod build;
mod cases;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use azulite::archive::{Limits, Options, walk};
use cases::Case;

/// How each walk ends: `case => what was told`.
const ENDS: &str = include_str!("ends.txt");
/// Beyond the object: the members of four levels of 1 MiB each, a bzip2 decoder, and what the allocator keeps.
const MEMORY_MAX: u64 = 20 << 20;
const TIME_MAX: Duration = Duration::from_secs(20);

/// Small limits, so that reaching them is quick.
fn limits() -> Limits {
    Limits {
        max_total_expanded: 32 << 20,
        max_members: 1000,
        max_ratio: 200,
        ratio_from: 2 << 20,
        max_nesting: 3,
        max_member: 1 << 20,
    }
}

/// Everything a walk gave, on one line.
///
/// Members: `!` damaged, `=` bytes seen before, `?` unsafe, `:n` its length when it is not 1.
fn told(bytes: &[u8], passwords: &[String]) -> String {
    let limits = limits();
    let options = Options { name: "object.gz", limits: &limits, passwords, go_on: &|| true };
    let mut members = Vec::new();
    let mut shown = 0;
    let report = walk(bytes, &options, &mut |member| {
        shown += 1;
        if shown <= 6 {
            let mark = |on: bool, mark: &'static str| if on { mark } else { "" };
            let len = if member.bytes.len() == 1 { String::new() } else { format!(":{}", member.bytes.len()) };
            let marks =
                [mark(member.damaged, "!"), mark(member.duplicate, "="), mark(member.unsafe_path, "?")].concat();
            let path = if member.path.len() > 60 { &member.path[..60] } else { member.path };
            let opened = member.encrypted_with.map(|password| format!("({password})")).unwrap_or_default();
            let path = if path.is_empty() { "(none)".to_owned() } else { path.escape_default().to_string() };
            members.push(format!("{path}{len}{opened}{marks}"));
        }
        ControlFlow::Continue(())
    });
    let Some(report) = report else { return "no archive".to_owned() };
    assert_eq!(report.members, shown);
    if shown > 6 {
        members.push(format!("... {shown}"));
    }
    let mut told = vec![format!("{:?} [{}]", report.kind, members.join(" "))];
    for (count, what) in [(report.links, "links"), (report.directories, "dirs"), (report.specials, "specials")] {
        if count > 0 {
            told.push(format!("{count} {what}"));
        }
    }
    told.extend(report.notes(limits.max_member));
    assert_eq!(report.is_troubled(), !report.notes(limits.max_member).is_empty());
    told.join("; ")
}

/// The peak of this process, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// The test that is also the child: a process of its own for each archive, so that a peak belongs to one walk.
const CHILD: &str = "hostile_archives_end_as_the_table_says_within_memory_and_time";
/// Set for the child: the length of the archive on its standard input, and a password per line.
const LEN: &str = "ARCHIVE_TEST_LEN";
const PASSWORDS: &str = "ARCHIVE_TEST_PASSWORDS";

/// Walks what stands on standard input; says what was told and how far the peak rose.
fn child(len: usize) {
    let passwords: Vec<String> = std::env::var(PASSWORDS).unwrap().lines().map(str::to_owned).collect();
    let mut bytes = vec![0xff; len];
    std::io::stdin().read_exact(&mut bytes).unwrap();
    let before = peak();
    let told = told(&bytes, &passwords);
    println!("\ntold {} {told}", peak() - before);
}

/// What a child tells about `case`, and the memory it took.
fn in_child(case: &Case) -> (u64, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--nocapture"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.env(LEN, case.bytes.len().to_string()).env(PASSWORDS, case.passwords.join("\n"));
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&case.bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {}", case.name, output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("told ")).unwrap();
    let (memory, told) = line.split_once(' ').unwrap();
    (memory.parse().unwrap(), told.to_owned())
}

#[test]
fn hostile_archives_end_as_the_table_says_within_memory_and_time() {
    if let Ok(len) = std::env::var(LEN) {
        return child(len.parse().unwrap());
    }
    let cases = cases::all();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let mut ends: BTreeMap<&str, &str> = ENDS.lines().filter_map(|line| line.split_once(" => ")).collect();
    let mut wrong = Vec::new();
    let mut most = (0, "");
    for case in &cases {
        let started = Instant::now();
        let (memory, told) = in_child(case);
        let took = started.elapsed();
        let end = ends.remove(case.name).unwrap_or("unknown");
        if told != end {
            wrong.push(format!("{} => {told}\n  not: {end}", case.name));
        }
        most = most.max((memory, case.name));
        assert!(memory <= MEMORY_MAX, "{}: {memory} bytes", case.name);
        assert!(took <= TIME_MAX, "{}: {took:?}", case.name);
    }
    println!("{} archives, at most {} KiB: {}", cases.len(), most.0 >> 10, most.1);
    // A peak that never rises would be one that is not measured.
    assert!(most.0 >= 1 << 20, "{most:?}");
    assert!(ends.is_empty(), "ends of no case: {ends:?}");
    assert!(wrong.is_empty(), "{} of {} end differently:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
