use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

const CLASSIFICATIONS: [&str; 5] = ["LOW", "LOW: LY", "MEDIUM", "HIGH", "TOP HIGH"];
const CAVEATS: [&str; 5] = ["MOD1", "MOD2", "MOD3", "HANOVERLAP", "OVER"];
const GROUPS: [&str; 3] = ["REL:APPLE", "REL:BEE", "REL:CAR"];
const MARKINGS: [(&str, bool); 4] =
    [("TLP:CLEAR", false), ("TLP:GREEN", false), ("TLP:AMBER", true), ("TLP:AMBER+STRICT", true)];

/// The labels of the contract's table.
pub(in crate::dispatcher) fn contract_labels() -> Labels {
    let names = |names: &[&str]| names.iter().map(|name| vec![(*name).to_owned()]).collect();
    let markings = MARKINGS.iter().map(|(name, enforced)| (vec![(*name).to_owned()], *enforced)).collect();
    Labels::new(names(&CLASSIFICATIONS), names(&CAVEATS), ("REL:".to_owned(), names(&GROUPS)), markings)
}

fn allows(held: &str, wanted: &str) -> bool {
    contract_labels().clearance(held).allows(wanted)
}

/// The table of events.md 5.5.3.
#[test]
fn the_pinned_pairs_are_decided_as_the_contract_says() {
    for wanted in ["LOW", "LOW MOD1", "MEDIUM", "MEDIUM MOD1", "MEDIUM REL:APPLE", "MEDIUM REL:APPLE,BEE"] {
        assert!(allows("MEDIUM MOD1 REL:APPLE", wanted), "{wanted}");
    }
    for wanted in ["HIGH", "TOP HIGH", "HIGH MOD1", "HIGH REL:APPLE", "LOW MOD1", "LOW MOD2", "MEDIUM MOD3"] {
        assert!(!allows("MEDIUM", wanted), "{wanted}");
    }
}

#[test]
fn classifications_rise_in_the_order_of_the_configuration() {
    for (held, may) in CLASSIFICATIONS.iter().zip(1..) {
        for (place, wanted) in (0..).zip(CLASSIFICATIONS) {
            assert_eq!(allows(held, wanted), place < may, "{held} reads {wanted}");
        }
    }
    assert!(!allows("LOW: LY", "LOW MEDIUM"), "the highest counts");
    assert!(allows("LOW MEDIUM", "MEDIUM"), "also for the reader");
}

#[test]
fn all_caveats_one_group_and_one_enforced_marking_are_needed() {
    assert!(allows("HIGH MOD1 MOD2", "LOW MOD2 MOD1"));
    assert!(!allows("HIGH MOD1 MOD2", "LOW MOD1 MOD3"));
    assert!(!allows("HIGH", "MEDIUM REL:APPLE"));
    assert!(allows("HIGH REL:CAR", "MEDIUM REL:APPLE REL:CAR"));
    assert!(!allows("HIGH REL:CAR", "MEDIUM REL:APPLE,BEE"));
    assert!(allows("LOW", "LOW TLP:GREEN TLP:CLEAR"), "only shown");
    assert!(!allows("LOW", "LOW TLP:AMBER"));
    assert!(allows("LOW TLP:AMBER", "LOW TLP:AMBER TLP:AMBER+STRICT"));
    assert!(!allows("LOW TLP:AMBER", "LOW TLP:AMBER+STRICT"));
}

#[test]
fn case_slashes_and_order_do_not_matter() {
    for written in [
        "high mod2 rel:apple,bee",
        "HIGH/MOD2////REL:APPLE,BEE",
        r"REL:BEE\\mod2\HIGH rel:apple",
        "HIGH MOD2 REL:APPLE,,BEE,",
    ] {
        assert!(allows(written, "HIGH MOD2 REL:BEE"), "{written}");
        assert!(allows("HIGH MOD2 REL:BEE", written), "{written}");
        assert!(!allows("HIGH REL:BEE", written), "{written}");
    }
    assert!(allows("top high", "TOP HIGH"));
    assert!(!allows("high", "top high"), "a longer name is not read as a shorter one");
}

#[test]
fn what_cannot_be_read_is_refused_on_either_side() {
    let long = format!("LOW{}", " MOD1".repeat(1000));
    let unreadable = [
        "",
        " ",
        "Random",
        "LOW Random",
        "MOD1",
        "REL:APPLE",
        "TLP:CLEAR",
        "LOW REL:DOG",
        "LOW REL:APPLE,DOG",
        "LOW REL:",
        "LOW REL:,",
        "LOW APPLE",
        "LOWMOD1",
        "LOW\tMOD1",
        "TOP",
        "LOW:LY",
        "HIGHREL:APPLE",
        long.as_str(),
    ];
    for text in unreadable {
        assert!(!allows("TOP HIGH MOD1 REL:APPLE TLP:AMBER", text), "event {text:?}");
        assert!(!allows(text, "LOW"), "reader {text:?}");
        assert!(!allows(text, text), "both {text:?}");
    }
}

#[test]
fn without_labels_nothing_is_allowed() {
    let labels = Labels::default();
    for text in ["", "LOW", "REL:APPLE"] {
        assert!(!labels.clearance(text).allows(text), "{text:?}");
    }
}

#[test]
fn other_spellings_mean_the_same() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let labels = Labels::new(
        vec![names(&["LOW"]), names(&["Top High", "TH"])],
        Vec::new(),
        ("REL:".to_owned(), vec![names(&["REL:APPLE", "REL:APPLEO"])]),
        Vec::new(),
    );
    assert!(labels.clearance("th rel:appleo").allows("TOP HIGH REL:APPLE"));
    assert!(!labels.clearance("low").allows("th"));
}

fn marking() -> impl Strategy<Value = Vec<&'static str>> {
    let markings = MARKINGS.map(|(name, _)| name).to_vec();
    (
        select(CLASSIFICATIONS.to_vec()),
        subsequence(CAVEATS.to_vec(), 0..=5),
        subsequence(GROUPS.to_vec(), 0..=3),
        subsequence(markings, 0..=4),
    )
        .prop_map(|(classification, caveats, groups, markings)| {
            [vec![classification], caveats, groups, markings].concat()
        })
}

proptest! {
    #[test]
    fn access_is_monotone(held in marking(), wanted in marking(), caveat in select(CAVEATS.to_vec())) {
        let with = |marking: &[&str], more: &str| [marking, &[more]].concat().join(" ");
        let (held_text, wanted_text) = (held.join(" "), wanted.join(" "));
        let before = allows(&held_text, &wanted_text);
        prop_assert!(before || !allows(&held_text, &with(&wanted, caveat)), "a caveat of the event allows more");
        prop_assert!(!before || allows(&with(&held, caveat), &wanted_text), "a caveat of the reader allows less");
        let higher = CLASSIFICATIONS[4];
        prop_assert!(before || !allows(&held_text, &with(&wanted, higher)));
        prop_assert!(!before || allows(&with(&held, higher), &wanted_text));
        for more in GROUPS {
            prop_assert!(!before || allows(&with(&held, more), &wanted_text), "a group of the reader allows less");
        }
        for (more, _) in MARKINGS {
            prop_assert!(!before || allows(&with(&held, more), &wanted_text), "a marking of the reader allows less");
        }
    }

    #[test]
    fn what_a_reader_holds_he_may_see(held in marking()) {
        prop_assert!(allows(&held.join(" "), &held.join("/")));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}", other in "[A-Z:,/ ]{0,40}") {
        let labels = contract_labels();
        labels.clearance(&text).allows(&other);
        labels.clearance(&other).allows(&text);
    }
}
