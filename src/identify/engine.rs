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
use bincode::serde::{decode_from_slice, encode_to_vec};
use pure_magic::{Magic, MagicDb, MagicRule};
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
    named: BTreeMap<String, Vec<u8>>,
    /// A rule that looks at the end of the file and does little else.
    sentinel: Vec<u8>,
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
        Self::cut(&load()?)
    }

    fn cut(db: &MagicDb) -> Result<Self, LoadError> {
        let (source, shapes) = Source::of(db)?;
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
    fn of(db: &MagicDb) -> Result<(Self, Shapes), LoadError> {
        let mut source = Self { bytes: Vec::new(), rules: Vec::new(), named: BTreeMap::new(), sentinel: Vec::new() };
        let mut shapes = Shapes { rules: Vec::with_capacity(db.rules().len()), named: BTreeMap::new() };
        let mut length = 0;
        for (number, rule) in db.rules().iter().enumerate() {
            let shape = Shape::of(rule).map_err(load_error)?;
            let bytes = encoded(rule)?;
            length += bytes.len();
            if source.sentinel.is_empty() && shape.is_sentinel() {
                source.sentinel = renamed(rule, &bytes, "sentinel")?;
            }
            let start = source.bytes.len();
            source.bytes.extend(renamed(rule, &bytes, &number.to_string())?);
            source.rules.push(start..source.bytes.len());
            shapes.rules.push(shape);
        }
        for (name, named) in named(db, length)? {
            shapes.named.insert(name.clone(), Shape::of(&named.rule).map_err(load_error)?);
            source.named.insert(name, encoded(&named)?);
        }
        if source.sentinel.is_empty() {
            return Err(LoadError("no rule looks at the end of a file".into()));
        }
        Ok((source, shapes))
    }

    /// A database of these rules, put together in its serialized form.
    fn database(&self, group: &Group) -> Result<MagicDb, LoadError> {
        let rules = group.rules.iter().filter_map(|number| self.bytes.get(self.rules.get(*number)?.clone()));
        let rules: Vec<_> = group.indirect.then_some(self.sentinel.as_slice()).into_iter().chain(rules).collect();
        let mut bytes = encoded((self.rules.len(), rules.len()))?;
        bytes.extend(rules.concat());
        bytes.extend(encoded(group.named.len())?);
        for (name, named) in group.named.iter().filter_map(|name| Some((name, self.named.get(name)?))) {
            bytes.extend(encoded(name)?);
            bytes.extend(named);
        }
        bytes.extend(encoded(rules.len())?);
        let (db, read): (MagicDb, _) = decode_from_slice(&bytes, standard()).map_err(load_error)?;
        if read != bytes.len() || db.rules().len() != rules.len() {
            return Err(LoadError("a part of the rules is not what it was made from".into()));
        }
        Ok(db)
    }
}

/// The named rules of a database whose other rules have `length` bytes, serialized.
fn named(db: &MagicDb, length: usize) -> Result<BTreeMap<String, Named>, LoadError> {
    let bytes = encoded(db)?;
    let ((_, rules), start): ((usize, usize), usize) = decode_from_slice(&bytes, standard()).map_err(load_error)?;
    let rest = bytes.get(start + length..).unwrap_or_default();
    let ((named, _), read): ((_, usize), usize) = decode_from_slice(rest, standard()).map_err(load_error)?;
    if rules != db.rules().len() || read != rest.len() {
        return Err(LoadError("the rules are not serialized as they used to be".into()));
    }
    Ok(named)
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

/// A serialized rule with another name of the file it comes from, which the engine tells of each match.
fn renamed(rule: &MagicRule, bytes: &[u8], name: &str) -> Result<Vec<u8>, LoadError> {
    let ((id, source), read): ((usize, Option<String>), usize) =
        decode_from_slice(bytes, standard()).map_err(load_error)?;
    if source.as_deref() != rule.source() {
        return Err(LoadError("a rule does not begin with its number and source".into()));
    }
    let mut renamed = encoded((id, Some(name)))?;
    renamed.extend(bytes.get(read..).unwrap_or_default());
    Ok(renamed)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
