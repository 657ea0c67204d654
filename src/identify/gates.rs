//! Which magic rules can match a file at all, told from the first test of each.
//!
//! Used by `engine` alone. A gate never keeps out a rule that would match: it asks for less than the rule's first test
//! does. Most first tests compare bytes at a fixed place; searches and regexes need one of a few literals, and one pass
//! over the beginning of the file looks for all of them. Tests of other kinds have no gate.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex_syntax::hir::literal::{Extractor, Seq};
use regex_syntax::hir::{Hir, HirKind, Look};
use serde_json::Value;

use super::shape::{Direct, Offset, Regex, Root, Scalar, Search, Test, Text, Wanted};

/// Bytes of the beginning that are looked through for literals: regexes go no further, nor do nearly all searches.
const SCAN: usize = 8448;
/// A gate asks for so many bytes of what a rule wants; more make it no sharper, only larger.
const SHARP: usize = 8;
/// What a regex looks at when it does not say.
const REGEX_WINDOW: u64 = 8192;
/// What a regex that counts in lines takes for one.
const LINE: u64 = 80;
/// Searches over at most so many places are tried place by place.
const FEW_PLACES: u64 = 16;
/// Blanks that are skipped before a rule gets the benefit of the doubt.
const BLANKS_MAX: usize = 64;

/// Flags of strings and searches, as `pure-magic` counts them.
const CASES: u8 = 2 | 4;
const COMPACT_BLANKS: u8 = 64;
const OPTIONAL_BLANKS: u8 = 128;
/// Flag of a regex whose length is in lines.
const LINES: u8 = 4;

/// The gates of all rules that can have one. Rules are numbers here.
#[derive(Debug)]
pub(super) struct Gates {
    /// By offset.
    fixed: BTreeMap<usize, Vec<Fixed>>,
    loose: Vec<Loose>,
    literals: AhoCorasick,
    /// What finding the literal of the same number opens.
    opened: Vec<Vec<Opened>>,
    /// Rules that look further than the scan.
    wide: Vec<usize>,
    rules: usize,
}

/// At a place, `wanted` under `mask`; both in memory order, the first byte lowest.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    first: u8,
    mask: u64,
    wanted: u64,
    len: usize,
    rule: usize,
}

/// A text at one of a few places, perhaps in other case or with other blanks.
#[derive(Debug)]
struct Loose {
    start: usize,
    places: usize,
    text: Vec<u8>,
    any_case: bool,
    any_blanks: bool,
    rule: usize,
}

/// A rule, and where the literal must begin to open it.
#[derive(Clone, Debug)]
struct Opened {
    rule: usize,
    from: usize,
    to: usize,
    /// Only at `from` or after a newline.
    at_line_start: bool,
    /// Exactly these bytes: literals are looked for in any case.
    exact: Option<Vec<u8>>,
}

/// Literals of which one is in every match.
#[derive(Debug)]
pub(super) struct Literals {
    pub(super) texts: Vec<Vec<u8>>,
    at_line_start: bool,
}

/// What [`Gates`] are made from.
#[derive(Debug, Default)]
pub(super) struct Builder {
    fixed: BTreeMap<usize, Vec<Fixed>>,
    loose: Vec<Loose>,
    opened: BTreeMap<Vec<u8>, Vec<Opened>>,
    wide: Vec<usize>,
}

impl Builder {
    /// Makes a gate for `rule`. `None`: there is none, the rule may match anything.
    pub(super) fn add(&mut self, rule: usize, root: &Root) -> Option<()> {
        let Offset::Direct(Direct::Start(start)) = root.offset else { return None };
        let start = usize::try_from(start).ok()?;
        match &root.test {
            Test::Scalar(test) => self.scalar(rule, start, test),
            Test::String(test) => self.string(rule, start, test),
            Test::Search(test) => self.search(rule, start, test),
            Test::Regex(test) => self.regex(rule, start, test),
        }
    }

    fn scalar(&mut self, rule: usize, start: usize, test: &Scalar) -> Option<()> {
        let Wanted::Value(wanted) = &test.test_val else { return None };
        let wanted = bytes_of(&test.ty, wanted)?;
        let mask = match &test.transform {
            None => vec![0xff; wanted.len()],
            Some(transform) if transform.op == "And" => bytes_of(&test.ty, &transform.num)?,
            Some(_) => return None,
        };
        (test.cmp_op == "Eq").then(|| self.fix(rule, start, &wanted, &mask))
    }

    fn string(&mut self, rule: usize, start: usize, test: &Text) -> Option<()> {
        let Wanted::Value(text) = &test.test_val else { return None };
        if test.cmp_op != "Eq" || text.is_empty() {
            return None;
        }
        if test.mods & (CASES | COMPACT_BLANKS | OPTIONAL_BLANKS) != 0 {
            return self.loosen(rule, start, 1, text, test.mods);
        }
        let text = text.get(..SHARP).unwrap_or(text);
        self.fix(rule, start, text, &vec![0xff; text.len()]);
        Some(())
    }

    fn search(&mut self, rule: usize, start: usize, test: &Search) -> Option<()> {
        if test.cmp_op != "Eq" || test.str.is_empty() {
            return None;
        }
        if let Some(places) = test.n_pos.filter(|places| *places <= FEW_PLACES) {
            return self.loosen(rule, start, usize::try_from(places).ok()?.checked_add(1)?, &test.str, test.str_mods);
        }
        let text = match test.str_mods {
            mods if mods & OPTIONAL_BLANKS != 0 => return None,
            mods if mods & COMPACT_BLANKS != 0 => test.str.split(|byte| *byte == b' ').next()?,
            _ => &test.str,
        };
        let text = text.get(..SHARP).unwrap_or(text);
        if text.is_empty() {
            return None;
        }
        let exact = (test.str_mods & CASES == 0).then(|| text.to_vec());
        let to = test.n_pos.and_then(|places| usize::try_from(places).ok()?.checked_add(start));
        self.open(text, Opened { rule, from: start, to: to.unwrap_or(usize::MAX), at_line_start: false, exact });
        Some(())
    }

    fn regex(&mut self, rule: usize, start: usize, test: &Regex) -> Option<()> {
        if test.cmp_op != "Eq" {
            return None;
        }
        let line = if test.mods & LINES == 0 { 1 } else { LINE };
        let window = test.length.map_or(Some(REGEX_WINDOW), |length| length.checked_mul(line))?;
        let to = usize::try_from(window).ok()?.checked_add(start)?;
        let Literals { texts, at_line_start } = literals(&test.re.s)?;
        for text in texts {
            let opened = Opened { rule, from: start, to, at_line_start, exact: Some(text.clone()) };
            self.open(&text, opened);
        }
        Some(())
    }

    fn fix(&mut self, rule: usize, start: usize, wanted: &[u8], mask: &[u8]) {
        let (wanted, mask, len) = (word(wanted), word(mask), wanted.len());
        let first = wanted.to_le_bytes().first().copied().unwrap_or_default();
        self.fixed.entry(start).or_default().push(Fixed { first, mask, wanted, len, rule });
    }

    fn loosen(&mut self, rule: usize, start: usize, places: usize, text: &[u8], mods: u8) -> Option<()> {
        let any_blanks = mods & (COMPACT_BLANKS | OPTIONAL_BLANKS) != 0;
        let text: Vec<u8> = text.iter().copied().filter(|byte| !any_blanks || *byte != b' ').take(SHARP).collect();
        if text.is_empty() {
            return None;
        }
        self.loose.push(Loose { start, places, text, any_case: mods & CASES != 0, any_blanks, rule });
        Some(())
    }

    fn open(&mut self, text: &[u8], opened: Opened) {
        if opened.to.saturating_add(text.len()) > SCAN {
            self.wide.push(opened.rule);
        }
        self.opened.entry(text.to_ascii_lowercase()).or_default().push(opened);
    }

    /// The gates, for `rules` rules in all.
    ///
    /// # Errors
    ///
    /// When there are more literals than fit into one automaton.
    pub(super) fn build(self, rules: usize) -> Result<Gates, aho_corasick::BuildError> {
        let Self { mut fixed, loose, opened, wide } = self;
        for here in fixed.values_mut() {
            here.sort_by_key(|gate| (gate.mask.to_le_bytes().first() == Some(&0xff), gate.first));
        }
        let (texts, opened): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        // Under a megabyte, and twice as quick as the choice it would make.
        let literals = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(texts)?;
        Ok(Gates { fixed, loose, literals, opened, wide, rules })
    }
}

impl Gates {
    /// Numbers of the rules whose gate is open, in order, each once. `head` is the beginning of a file, `all` of it or
    /// not.
    pub(super) fn open(&self, head: &[u8], all: bool) -> Vec<usize> {
        if !all && head.len() < SCAN {
            return (0..self.rules).collect();
        }
        let mut open = Set(vec![0; self.rules.div_ceil(64)]);
        for (start, gates) in &self.fixed {
            fixed(head, all, *start, gates, &mut open);
        }
        for loose in self.loose.iter().filter(|loose| loose.is_open(head, all)) {
            open.add(loose.rule);
        }
        if head.len() > SCAN {
            self.wide.iter().for_each(|rule| open.add(*rule));
        }
        let scanned = head.get(..SCAN).unwrap_or(head);
        for found in self.literals.find_overlapping_iter(scanned) {
            for opened in self.opened.get(found.pattern().as_usize()).into_iter().flatten() {
                if !open.has(opened.rule) && opened.by(scanned, found.start()) {
                    open.add(opened.rule);
                }
            }
        }
        open.numbers()
    }
}

/// Opens what is open at one offset.
fn fixed(head: &[u8], all: bool, start: usize, gates: &[Fixed], open: &mut Set) {
    let here = head.get(start..).unwrap_or_default();
    if here.len() < SHARP && !all {
        // The file has bytes there that are not in `head`.
        return gates.iter().for_each(|gate| open.add(gate.rule));
    }
    let Some(first) = here.first() else { return };
    let bytes = word(here);
    let masked = gates.partition_point(|gate| gate.mask.to_le_bytes().first() != Some(&0xff));
    let (masked, whole) = gates.split_at(masked);
    let from = whole.partition_point(|gate| gate.first < *first);
    let same = whole.iter().skip(from).take_while(|gate| gate.first == *first);
    for gate in masked.iter().chain(same) {
        if bytes & gate.mask == gate.wanted && gate.len <= here.len() {
            open.add(gate.rule);
        }
    }
}

impl Loose {
    fn is_open(&self, head: &[u8], all: bool) -> bool {
        (self.start..self.start.saturating_add(self.places)).any(|at| self.matches(head.get(at..), all))
    }

    fn matches(&self, here: Option<&[u8]>, all: bool) -> bool {
        let mut here = here.unwrap_or_default();
        let mut blanks = 0;
        for wanted in &self.text {
            while self.any_blanks
                && let Some((b' ', rest)) = here.split_first()
            {
                (here, blanks) = (rest, blanks + 1);
                if blanks > BLANKS_MAX {
                    return true;
                }
            }
            let Some((byte, rest)) = here.split_first() else { return !all };
            if byte != wanted && !(self.any_case && byte.eq_ignore_ascii_case(wanted)) {
                return false;
            }
            here = rest;
        }
        true
    }
}

impl Opened {
    fn by(&self, scanned: &[u8], at: usize) -> bool {
        (self.from..=self.to).contains(&at)
            && (!self.at_line_start
                || at == self.from
                || at.checked_sub(1).and_then(|at| scanned.get(at)) == Some(&b'\n'))
            && self.exact.as_ref().is_none_or(|exact| scanned.get(at..).is_some_and(|here| here.starts_with(exact)))
    }
}

/// A set of small numbers.
struct Set(Vec<u64>);

impl Set {
    fn add(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    fn has(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn numbers(&self) -> Vec<usize> {
        let set = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        set.flat_map(|(at, word)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit))
            .collect()
    }
}

/// The first eight bytes, zeros where there are fewer.
fn word(bytes: &[u8]) -> u64 {
    if let Some(whole) = bytes.first_chunk() {
        return u64::from_le_bytes(*whole);
    }
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// A number as the bytes of `kind`, a type of the magic rules. `None`: not a plain integer.
pub(super) fn bytes_of(kind: &str, number: &Value) -> Option<Vec<u8>> {
    let number = number.get(kind)?;
    let number = number.as_u64().or_else(|| Some(u64::from_le_bytes(number.as_i64()?.to_le_bytes())))?;
    let unsigned = kind.strip_prefix('u').unwrap_or(kind);
    let (big, size) = match unsigned {
        "byte" => (false, 1),
        "leshort" => (false, 2),
        "lelong" => (false, 4),
        "lequad" => (false, 8),
        "beshort" => (true, 2),
        "belong" => (true, 4),
        "bequad" => (true, 8),
        "short" => (cfg!(target_endian = "big"), 2),
        "long" => (cfg!(target_endian = "big"), 4),
        "quad" => (cfg!(target_endian = "big"), 8),
        _ => return None,
    };
    let mut bytes: Vec<u8> = number.to_le_bytes().into_iter().take(size).collect();
    if big {
        bytes.reverse();
    }
    Some(bytes)
}

/// The sharpest literals of which one is in every match of `pattern`. `None`: a match may hold none.
///
/// Where they must be at the beginning of a line is known too, since the engine matches texts line by line.
pub(super) fn literals(pattern: &str) -> Option<Literals> {
    let whole = regex_syntax::ParserBuilder::new().utf8(false).build().parse(pattern).ok()?;
    let at_line_start = whole.properties().look_set_prefix().contains(Look::Start);
    let mut choices = vec![(Extractor::new().extract(&whole), at_line_start)];
    if let HirKind::Concat(parts) = whole.kind() {
        let rests = (1..parts.len()).filter_map(|at| parts.get(at..));
        choices.extend(rests.map(|rest| (Extractor::new().extract(&Hir::concat(rest.to_vec())), false)));
    }
    let choices = choices.into_iter().filter_map(|(seq, at_line_start)| Literals::of(&seq, at_line_start));
    choices.max_by_key(Literals::sharpness)
}

impl Literals {
    fn of(seq: &Seq, at_line_start: bool) -> Option<Self> {
        let mut texts: Vec<Vec<u8>> =
            seq.literals()?.iter().map(|text| text.as_bytes().iter().copied().take(SHARP).collect()).collect();
        texts.sort();
        texts.dedup();
        (!texts.is_empty() && texts.iter().all(|text| !text.is_empty())).then_some(Self { texts, at_line_start })
    }

    /// The length of the shortest; the beginning of a line is worth a byte. Then, few are better than many.
    fn sharpness(&self) -> (usize, std::cmp::Reverse<usize>) {
        let shortest = self.texts.iter().map(Vec::len).min().unwrap_or_default();
        (shortest + usize::from(self.at_line_start), std::cmp::Reverse(self.texts.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pattern: &str) -> Option<(Vec<String>, bool)> {
        let found = literals(pattern)?;
        Some((found.texts.iter().map(|text| text.escape_ascii().to_string()).collect(), found.at_line_start))
    }

    #[test]
    fn literals_of_a_regex_are_the_longest_that_every_match_has() {
        let some =
            |texts: &[&str], at_line_start| Some((texts.iter().map(ToString::to_string).collect(), at_line_start));
        assert_eq!(texts(r"(?-u)^\.(BEGIN|endif)"), some(&[".BEGIN", ".endif"], true));
        assert_eq!(texts(r"(?-u)^[ \t]{0,50}\.asciiz"), some(&[".asciiz"], false));
        assert_eq!(texts(r"(?-u)\b(impl|fn)\b"), some(&["fn", "impl"], false));
        assert_eq!(texts(r"(?-u)a?[^x]*$"), None);
    }

    fn loose(text: &str, any_case: bool, any_blanks: bool) -> Loose {
        Loose { start: 1, places: 2, text: text.into(), any_case, any_blanks, rule: 0 }
    }

    #[test]
    fn a_loose_text_is_found_at_its_places_only() {
        let exact = loose("ab", false, false);
        let found = [b"ab__".as_slice(), b"_ab_", b"__ab", b"___ab", b"_aB_", b"_a b"];
        assert_eq!(found.map(|head| exact.is_open(head, true)), [false, true, true, false, false, false]);
        assert!(loose("ab", true, false).is_open(b"_aB_", true));
        assert!(loose("ab", false, true).is_open(b"_ a b", true));
        assert!(exact.is_open(b"_a", false) && !exact.is_open(b"_a", true), "the rest of the file may go on with b");
    }

    #[test]
    fn numbers_are_bytes_as_their_type_has_them_in_files() {
        let number = |kind: &str, number: i64| bytes_of(kind, &serde_json::json!({ kind: number }));
        assert_eq!(number("ubeshort", 0x0102), Some(vec![1, 2]));
        assert_eq!(number("lelong", -2), Some(vec![0xfe, 0xff, 0xff, 0xff]));
        assert_eq!(number("bequad", 1), Some(vec![0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(number("bedate", 1), None);
    }

    #[test]
    fn a_short_beginning_of_a_longer_file_opens_everything() {
        let gates = Builder::default().build(70).unwrap();
        assert_eq!(gates.open(b"x", false).len(), 70);
        assert!(gates.open(b"x", true).is_empty());
    }
}
