//! The magic rules, cut into small databases of which a file needs only a few.
//!
//! Called by `magic`. `pure-magic` evaluates every rule of a database, nearly four thousand, and of those hardly one in
//! a hundred can match a given file. So each rule gets a database of its own, or shares one with the rules that use the
//! same named rules, and [`super::gates`] tells which are worth a look. What comes out is what the whole database would
//! have said, in its order.
//!
//! A rule may start over with all rules at another place of the file (`indirect`). That needs the whole database, which
//! is loaded when a file first comes so far.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};
use std::ops::Range;
use std::sync::OnceLock;

use bincode::config::standard;
use bincode::serde::{decode_from_slice, encode_into_std_write, encode_to_vec};
use pure_magic::{Magic, MagicDb, MagicRule};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::LoadError;
use super::gates::{Builder, Gates};
use super::shape::{Direct, Offset, Shape, StreamGate};
use super::view::View;

/// The loaded rules.
#[derive(Debug)]
pub(super) struct Engine {
    /// Rules without a gate; also says what kind of file it is, and knows the formats that need no rule.
    always: MagicDb,
    parts: Vec<Part>,
    /// Parts without a gate that are not in `always`.
    always_parts: Vec<usize>,
    gates: Gates,
    /// By rule: its part, and the files it is not for.
    rules: Vec<Option<(usize, StreamGate)>>,
    source: Source,
    whole: OnceLock<MagicDb>,
}

/// A few rules, put together when a file first needs them.
#[derive(Debug)]
struct Part {
    group: Group,
    db: OnceLock<MagicDb>,
}

/// Rules that share a database.
#[derive(Debug, Default)]
struct Group {
    rules: Vec<usize>,
    named: BTreeSet<String>,
    /// A rule of it may ask for all rules. The sentinel comes first then.
    indirect: bool,
}

/// The serialized rules that the parts are cut from.
#[derive(Debug)]
struct Source {
    bytes: Vec<u8>,
    /// Where each rule is in `bytes`.
    rules: Vec<Range<usize>>,
    named: BTreeMap<String, Range<usize>>,
    /// A rule that looks at the end of the file and does little else.
    sentinel: usize,
}

/// What is known of the rules while they are cut.
struct Shapes {
    rules: Vec<Shape>,
    named: BTreeMap<String, Shape>,
}

/// A named rule as it is serialized. Rules themselves are looked at only through `pure-magic`.
#[derive(Deserialize, Serialize)]
struct Named {
    name: String,
    rule: MagicRule,
}

impl Engine {
    /// Loads the built-in rules and cuts them up.
    pub(super) fn load() -> Result<Self, LoadError> {
        // The loaded rules are gone before anything is made that stays, so that their memory goes back in one piece.
        let rules = serialized(&load()?)?;
        Self::cut(rules)
    }

    /// Cuts up a serialized database.
    fn cut(rules: Vec<u8>) -> Result<Self, LoadError> {
        let (source, shapes) = Source::of(rules)?;
        let mut builder = Builder::default();
        let (mut always, mut always_groups) = (Group::default(), Vec::new());
        let mut groups: BTreeMap<(BTreeSet<String>, usize), Group> = BTreeMap::new();
        for (number, shape) in shapes.rules.iter().enumerate() {
            let (named, indirect) = shapes.reach(shape)?;
            match shape.root.as_ref().and_then(|root| builder.add(number, root)) {
                Some(()) => {
                    // Rules without named rules stay alone.
                    let alone = if named.is_empty() { number } else { 0 };
                    groups.entry((named.clone(), alone)).or_default().add(number, named, indirect);
                }
                None if indirect => always_groups.push(Group { rules: vec![number], named, indirect }),
                None => always.add(number, named, indirect),
            }
        }
        let gated = groups.len();
        let parts: Vec<Part> = groups.into_values().chain(always_groups).map(Part::of).collect();
        let mut rules = vec![None; shapes.rules.len()];
        for (at, number) in
            parts.iter().enumerate().flat_map(|(at, part)| part.group.rules.iter().map(move |rule| (at, rule)))
        {
            let gate = shapes.rules.get(*number).and_then(|shape| Some(shape.root.as_ref()?.stream_gate));
            if let Some(rule) = rules.get_mut(*number) {
                *rule = Some((at, gate.unwrap_or_default()));
            }
        }
        Ok(Self {
            always: source.database(&always)?,
            always_parts: (gated..parts.len()).collect(),
            parts,
            gates: builder.build(rules.len()).map_err(load_error)?,
            rules,
            source,
            whole: OnceLock::new(),
        })
    }

    /// All matches of a file that begins with `head`, strongest first, and a default one among them.
    ///
    /// # Errors
    ///
    /// The engine's trouble in words.
    pub(super) fn matches<R: Read + Seek>(
        &self,
        view: &mut View<'_, R>,
        head: &[u8],
    ) -> Result<Vec<Magic<'_>>, String> {
        match self.by_parts(view, head) {
            Some(found) => Ok(found),
            // Also for an error, whose text names the rule.
            None => {
                view.restart();
                self.whole().map_err(|error| error.to_string())?.all_magics(view).map_err(|error| error.to_string())
            }
        }
    }

    /// Every rule, one by one.
    fn whole(&self) -> Result<&MagicDb, LoadError> {
        if let Some(whole) = self.whole.get() {
            return Ok(whole);
        }
        let loaded = load()?;
        Ok(self.whole.get_or_init(|| loaded))
    }

    /// `None`: it takes the whole database.
    fn by_parts<R: Read + Seek>(&self, view: &mut View<'_, R>, head: &[u8]) -> Option<Vec<Magic<'_>>> {
        let mut found: Vec<_> =
            self.always.all_magics(view).ok()?.into_iter().map(|magic| (place(&magic), magic)).collect();
        let is_text =
            found.iter().any(|(_, magic)| magic.is_default() && magic.stream_kind().is_some_and(|kind| kind.is_text()));
        let not_for = if is_text { StreamGate::SkipOnText } else { StreamGate::SkipOnBinary };
        let open = self.gates.open(head, view.is_all(head));
        let open = open.iter().filter_map(|rule| self.rules.get(*rule).copied().flatten());
        let mut parts: Vec<_> = open.filter(|(_, gate)| *gate != not_for).map(|(part, _)| part).collect();
        parts.extend(&self.always_parts);
        parts.sort_unstable();
        parts.dedup();
        view.pretend(is_text);
        for part in parts.iter().filter_map(|part| self.parts.get(*part)) {
            view.ends.set(0);
            let magics = part.db(&self.source).ok()?.all_magics(view).ok()?;
            if part.group.indirect && view.ends.get() > 1 {
                return None;
            }
            let by_rule = magics.into_iter().map(|magic| (place(&magic), magic));
            found.extend(by_rule.filter(|(place, _)| matches!(place, Place::Rule(_))));
        }
        found.sort_by_key(|(place, magic)| (Reverse(magic.strength()), *place));
        Some(found.into_iter().map(|(_, magic)| magic).collect())
    }
}

/// Where the whole database has a match among those of the same strength.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Found without a rule.
    First,
    Rule(usize),
    Default,
}

/// The parts name rules by their number.
fn place(magic: &Magic) -> Place {
    match magic.source().map(str::parse) {
        Some(Ok(number)) => Place::Rule(number),
        Some(Err(_)) | None if magic.is_default() => Place::Default,
        Some(Err(_)) | None => Place::First,
    }
}

impl Group {
    fn add(&mut self, rule: usize, named: BTreeSet<String>, indirect: bool) {
        self.rules.push(rule);
        self.named.extend(named);
        self.indirect |= indirect;
    }
}

impl Part {
    fn of(group: Group) -> Self {
        Self { group, db: OnceLock::new() }
    }

    fn db(&self, source: &Source) -> Result<&MagicDb, LoadError> {
        if let Some(db) = self.db.get() {
            return Ok(db);
        }
        let db = source.database(&self.group)?;
        Ok(self.db.get_or_init(|| db))
    }
}

impl Source {
    fn of(bytes: Vec<u8>) -> Result<(Self, Shapes), LoadError> {
        let ((_, count), mut at): ((usize, usize), usize) =
            decode_from_slice(&bytes, standard()).map_err(load_error)?;
        let mut rules = Vec::with_capacity(count.min(bytes.len()));
        let mut shapes = Shapes { rules: Vec::with_capacity(count.min(bytes.len())), named: BTreeMap::new() };
        for _ in 0..count {
            let (rule, range): (MagicRule, _) = next(&bytes, at)?;
            at = range.end;
            rules.push(range);
            shapes.rules.push(Shape::of(&rule).map_err(load_error)?);
        }
        let (count, range): (usize, _) = next(&bytes, at)?;
        at = range.end;
        let mut named = BTreeMap::new();
        for _ in 0..count {
            let (name, range): (String, _) = next(&bytes, at)?;
            let (rule, range): (Named, _) = next(&bytes, range.end)?;
            at = range.end;
            shapes.named.insert(name.clone(), Shape::of(&rule.rule).map_err(load_error)?);
            named.insert(name, range);
        }
        let (_, range): (usize, _) = next(&bytes, at)?;
        if range.end != bytes.len() {
            return Err(LoadError("the rules are not serialized as they used to be".into()));
        }
        let sentinel = shapes.rules.iter().position(Shape::is_sentinel);
        let sentinel = sentinel.ok_or_else(|| LoadError("no rule looks at the end of a file".into()))?;
        Ok((Self { bytes, rules, named, sentinel }, shapes))
    }

    /// A database of these rules, put together in its serialized form.
    fn database(&self, group: &Group) -> Result<MagicDb, LoadError> {
        let count = group.rules.len() + usize::from(group.indirect);
        let mut bytes = encoded((self.rules.len(), count))?;
        if group.indirect {
            bytes.extend(self.renamed(self.sentinel, "sentinel")?);
        }
        for number in &group.rules {
            bytes.extend(self.renamed(*number, &number.to_string())?);
        }
        bytes.extend(encoded(group.named.len())?);
        for (name, range) in group.named.iter().filter_map(|name| Some((name, self.named.get(name)?))) {
            bytes.extend(encoded(name)?);
            bytes.extend(self.bytes.get(range.clone()).unwrap_or_default());
        }
        bytes.extend(encoded(count)?);
        let (db, read): (MagicDb, _) = decode_from_slice(&bytes, standard()).map_err(load_error)?;
        if read != bytes.len() || db.rules().len() != count {
            return Err(LoadError("a part of the rules is not what it was made from".into()));
        }
        Ok(db)
    }

    /// A serialized rule with another name of the file it comes from, which the engine tells of each match.
    fn renamed(&self, number: usize, name: &str) -> Result<Vec<u8>, LoadError> {
        let rule = self.rules.get(number).and_then(|range| self.bytes.get(range.clone())).unwrap_or_default();
        let ((id, _), read): ((usize, Option<String>), usize) =
            decode_from_slice(rule, standard()).map_err(load_error)?;
        let mut renamed = encoded((id, Some(name)))?;
        renamed.extend(rule.get(read..).unwrap_or_default());
        Ok(renamed)
    }
}

/// What is serialized at `at`, and where it is.
fn next<T: DeserializeOwned>(bytes: &[u8], at: usize) -> Result<(T, Range<usize>), LoadError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let (value, read) = decode_from_slice(rest, standard()).map_err(load_error)?;
    Ok((value, at..at + read))
}

impl Shapes {
    /// Named rules that a rule needs, and whether it may start over.
    fn reach(&self, shape: &Shape) -> Result<(BTreeSet<String>, bool), LoadError> {
        let (mut reached, mut indirect) = (BTreeSet::new(), shape.indirect);
        let mut next = shape.uses.clone();
        while let Some(name) = next.pop() {
            let shape = self.named.get(&name).ok_or_else(|| LoadError(format!("no rule {name}")))?;
            if reached.insert(name) {
                next.extend(shape.uses.iter().cloned());
                indirect |= shape.indirect;
            }
        }
        Ok((reached, indirect))
    }
}

impl Shape {
    /// Evaluating it asks for the end of the file once, and leads nowhere else.
    fn is_sentinel(&self) -> bool {
        let Some(root) = &self.root else { return false };
        matches!(root.offset, Offset::Direct(Direct::End(_)))
            && root.stream_gate == StreamGate::Never
            && self.uses.is_empty()
            && !self.indirect
    }
}

fn load() -> Result<MagicDb, LoadError> {
    magic_db::load().map_err(load_error)
}

fn load_error(error: impl std::fmt::Display) -> LoadError {
    LoadError(error.to_string())
}

fn encoded(value: impl Serialize) -> Result<Vec<u8>, LoadError> {
    encode_to_vec(value, standard()).map_err(load_error)
}

/// A database in its serialized form.
fn serialized(db: &MagicDb) -> Result<Vec<u8>, LoadError> {
    // Enough for all of it, and large enough for the C library to give it back.
    let mut bytes = Vec::with_capacity(4 << 20);
    encode_into_std_write(db, &mut bytes, standard()).map_err(load_error)?;
    bytes.shrink_to_fit();
    Ok(bytes)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
