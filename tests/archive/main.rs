//! Hostile archives: each has its end, within memory and time.

#![cfg(test)]
#![expect(clippy::as_conversions, clippy::indexing_slicing, clippy::unwrap_used, reason = "sizes in tests are small")]

mod build;
mod cases;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use azulite::archive::{Limits, Options, walk};

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

/// The peak of this process since it was last reset, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// Sets the peak to what is in use now.
fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// The only test of this program: a second one beside it would count into its memory.
#[test]
fn hostile_archives_end_as_the_table_says_within_memory_and_time() {
    let cases = cases::all();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let mut ends: BTreeMap<&str, &str> = ENDS.lines().filter_map(|line| line.split_once(" => ")).collect();
    let mut wrong = Vec::new();
    let mut most = 0;
    for case in &cases {
        let passwords: Vec<String> = case.passwords.iter().map(|password| (*password).to_owned()).collect();
        reset_peak();
        let (before, started) = (peak(), Instant::now());
        let told = told(&case.bytes, &passwords);
        let (memory, took) = (peak().saturating_sub(before), started.elapsed());
        let end = ends.remove(case.name).unwrap_or("unknown");
        if told != end {
            wrong.push(format!("{} => {told}\n  not: {end}", case.name));
        }
        most = most.max(memory);
        assert!(memory <= MEMORY_MAX, "{}: {memory} bytes", case.name);
        assert!(took <= TIME_MAX, "{}: {took:?}", case.name);
    }
    println!("{} archives, at most {} KiB each", cases.len(), most >> 10);
    assert!(ends.is_empty(), "ends of no case: {ends:?}");
    assert!(wrong.is_empty(), "{} of {} end differently:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
