use std::io::Cursor;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::super::gates::{bytes_of, literals};
use super::super::shape::{Test, Wanted};
use super::super::tests::examples;
use super::*;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::load().unwrap());

fn view(bytes: &[u8]) -> View<'_, Cursor<&[u8]>> {
    let deadline = Instant::now() + Duration::from_secs(600);
    View::new(Cursor::new(bytes), u64::try_from(bytes.len()).unwrap(), bytes, deadline)
}

/// Everything a match says, one line each.
fn told(magics: &[Magic]) -> Vec<String> {
    let line = |magic: &Magic| {
        let mut extensions: Vec<_> = magic.extensions().iter().map(ToString::to_string).collect();
        extensions.sort();
        let parts: Vec<_> = magic.message_parts().collect();
        let kind = magic.stream_kind().map(|kind| kind.is_text());
        format!(
            "{} {parts:?} {} {extensions:?} {:?} {kind:?}",
            magic.strength(),
            magic.mime_type(),
            magic.creator_code()
        )
    };
    magics.iter().filter(|magic| !magic.is_default()).map(line).collect()
}

fn assert_same(name: &str, bytes: &[u8]) {
    let got = ENGINE.matches(&mut view(bytes), bytes).map(|magics| told(&magics));
    let want = ENGINE.whole().unwrap().all_magics(&mut view(bytes)).map(|magics| told(&magics));
    assert_eq!(got, want.map_err(|error| error.to_string()), "{name}: {}", bytes[..bytes.len().min(64)].escape_ascii());
}

/// The beginning of a file that the first test of a rule accepts, or nearly.
fn sample(root: &super::super::shape::Root, filler: u8) -> Option<Vec<u8>> {
    let Offset::Direct(Direct::Start(start)) = root.offset else { return None };
    let text = match &root.test {
        Test::Scalar(test) => match &test.test_val {
            Wanted::Value(value) => bytes_of(&test.ty, value)?,
            Wanted::Any => return None,
        },
        Test::String(test) => match &test.test_val {
            Wanted::Value(text) => text.clone(),
            Wanted::Any => return None,
        },
        Test::Search(test) => test.str.clone(),
        Test::Regex(test) => literals(&test.re.s)?.texts.pop()?,
    };
    let mut bytes = vec![filler; usize::try_from(start).unwrap()];
    bytes.extend(text);
    bytes.extend([filler; 200]);
    Some(bytes)
}

#[test]
fn parts_say_what_the_whole_database_says() {
    assert_same("empty", b"");
    for (name, mut bytes, _) in examples() {
        bytes.truncate(100_000);
        assert_same(&name, &bytes);
        for cut in [1, 2, 7, 60, 300] {
            assert_same(&format!("{name} cut at {cut}"), &bytes[..bytes.len().min(cut)]);
        }
    }
}

#[test]
fn a_rule_that_matches_has_its_gate_open() {
    let (_, shapes) = Source::of(serialized(ENGINE.whole().unwrap()).unwrap()).unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    let mut matched = 0;
    for (number, shape) in shapes.rules.iter().enumerate() {
        let filler = [0, b' ', b'\n', b'a', 0xff][number % 5];
        let Some(bytes) = shape.root.as_ref().and_then(|root| sample(root, filler)) else { continue };
        let mut cut = bytes.clone();
        cut.truncate(random(bytes.len()) + 1);
        let moved = [b"\n ".repeat(random(5)), bytes.clone()].concat();
        let mut flipped = bytes.clone();
        *flipped.get_mut(random(bytes.len().min(200))).unwrap() ^= 1 << random(8);
        let mut upper = bytes.clone();
        upper.make_ascii_uppercase();
        for bytes in [bytes, cut, moved, flipped, upper] {
            matched += usize::from(assert_open(number, &bytes));
            if number % 32 == 0 {
                assert_same(&format!("rule {number}"), &bytes);
            }
        }
    }
    assert!(matched > 5000, "{matched}");
}

/// Whether the rule matches; then its gate must be open.
fn assert_open(number: usize, bytes: &[u8]) -> bool {
    let Some((part, _)) = ENGINE.rules[number] else { return false };
    let found = ENGINE.parts[part].db(&ENGINE.source).unwrap().all_magics(&mut view(bytes)).unwrap();
    let matched = found.iter().any(|magic| place(magic) == Place::Rule(number));
    let is_open = ENGINE.always_parts.contains(&part) || ENGINE.gates.open(bytes, true).contains(&number);
    assert!(is_open || !matched, "rule {number}: {}", bytes[..bytes.len().min(64)].escape_ascii());
    matched
}

#[test]
fn long_files_are_searched_as_far_as_the_rules_do() {
    for (at, text) in
        [(8_191, "<html>"), (8_192, "<svg"), (8_000, "\nimport x;\n"), (60_000, "DWARFS"), (9_000, "\n.globl x\n")]
    {
        for filler in [b" \n".as_slice(), b"x\0"] {
            let mut bytes = filler.repeat(40_000);
            bytes.splice(at..at + text.len(), text.bytes()).for_each(drop);
            assert_same(&format!("{text} at {at}"), &bytes);
        }
    }
}

#[test]
fn nearly_all_rules_have_a_gate() {
    assert!(ENGINE.always.rules().len() < 100, "{}", ENGINE.always.rules().len());
    assert!(ENGINE.always_parts.len() < 5, "{}", ENGINE.always_parts.len());
    let open = ENGINE.gates.open(b"#!/bin/sh\necho hello\n", true);
    assert!(!open.is_empty() && open.len() < 100, "{}", open.len());
}

#[test]
fn a_rule_that_starts_over_gets_the_whole_database() {
    let mut backup = [b"SBMBAKUP_2.00__".as_slice(), &[0; 2048]].concat();
    backup.splice(535..537, [0x55, 0xaa]).for_each(drop);
    for (bytes, whole) in
        [(backup.as_slice(), true), (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", false), (b"plain text\n", false)]
    {
        assert_eq!(ENGINE.by_parts(&mut view(bytes), bytes).is_none(), whole, "{}", bytes[..9].escape_ascii());
        assert_same("starts over", bytes);
    }
}
