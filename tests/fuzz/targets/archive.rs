//! Any archive: its walk ends within its limits, and its report agrees with what was visited.
#![no_main]

use std::ops::ControlFlow;

use azulite::archive::{Limits, Options, kind, walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        max_total_expanded: 8 << 20,
        max_members: 200,
        max_ratio: 200,
        ratio_from: 1 << 20,
        max_nesting: 3,
        max_member: 256 << 10,
    };
    let passwords = ["password".to_owned(), "infected".to_owned()];
    let options = Options { name: "object", limits: &limits, passwords: &passwords, go_on: &|| true };
    let mut visited = 0;
    let report = walk(bytes, &options, &mut |member| {
        visited += 1;
        assert!(u64::try_from(member.bytes.len()).is_ok_and(|len| len <= limits.max_member));
        assert!(member.nesting <= limits.max_nesting && member.path.len() < 20_000);
        ControlFlow::Continue(())
    });
    assert_eq!(report.as_ref().map(|report| report.kind), kind(bytes));
    let Some(report) = report else { return };
    assert!(report.members == visited && visited <= limits.max_members && !report.stopped);
    assert_eq!(report.is_troubled(), !report.notes(limits.max_member).is_empty());
});
