//! Security markings: the configured labels, how a marking such as `MEDIUM MOD1 REL:APPLE,BEE` is read, and who may
//! see what.
//!
//! Boot builds one [`Labels`] from `[security]`; the filter `FilterSecurity` asks [`Labels::clearance`] once per
//! request and [`Clearance::allows`] per event. Everything that cannot be read is refused. Contract events.md 5.5.3.

use std::collections::{BTreeMap, BTreeSet};

/// A longer marking is not read: no configured one needs that many labels.
const MARKING_MAX_BYTES: usize = 4096;

/// Names of one kind of label, each with its other spellings, in the order of the configuration.
pub type Names = Vec<Vec<String>>;

/// The labels that markings are made of. Without any no marking can be read, and nothing is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// By name in upper case, words separated by one space.
    by_name: BTreeMap<String, Label>,
    /// The most words that a name has.
    longest: usize,
    /// What a word with groups begins with, in upper case; empty when there are no groups.
    group_prefix: String,
}

/// What a name stands for. Numbers are places in the configuration's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    /// Rising.
    Classification(usize),
    Caveat(usize),
    Group(usize),
    /// A marking that is enforced.
    Enforced(usize),
    /// A marking that is only shown.
    Shown,
}

/// Everything a marking says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Marking {
    /// The highest of those named.
    classification: usize,
    caveats: BTreeSet<usize>,
    groups: BTreeSet<usize>,
    enforced: BTreeSet<usize>,
}

/// What one reader may see.
#[derive(Debug, Clone)]
pub struct Clearance<'a> {
    labels: &'a Labels,
    /// `None` when the reader's own marking cannot be read.
    held: Option<Marking>,
}

impl Labels {
    /// Labels out of a checked configuration: classifications from the lowest to the highest, caveats, groups with
    /// their prefix, and the markings with whether they are enforced.
    pub fn new(
        classifications: Names,
        caveats: Names,
        (group_prefix, groups): (String, Names),
        markings: Vec<(Vec<String>, bool)>,
    ) -> Labels {
        let mut labels = Labels::default();
        if !groups.is_empty() {
            labels.group_prefix = group_prefix.to_uppercase();
        }
        labels.add(classifications, Label::Classification);
        labels.add(caveats, Label::Caveat);
        labels.add(groups, Label::Group);
        for (place, (names, enforced)) in markings.into_iter().enumerate() {
            let label = if enforced { Label::Enforced(place) } else { Label::Shown };
            names.into_iter().for_each(|name| labels.name(&name, label));
        }
        labels
    }

    fn add(&mut self, kind: Names, label: fn(usize) -> Label) {
        for (place, names) in kind.into_iter().enumerate() {
            names.into_iter().for_each(|name| self.name(&name, label(place)));
        }
    }

    fn name(&mut self, name: &str, label: Label) {
        let name = name.to_uppercase();
        self.longest = self.longest.max(name.split(' ').count());
        self.by_name.insert(name, label);
    }

    /// What a reader with this marking may see.
    pub fn clearance(&self, held: &str) -> Clearance<'_> {
        Clearance { labels: self, held: self.read(held) }
    }

    /// Reads a marking; `None` when a part of it is no label, or when it has no classification.
    fn read(&self, text: &str) -> Option<Marking> {
        if text.len() > MARKING_MAX_BYTES {
            return None;
        }
        let text = text.to_uppercase();
        let words: Vec<&str> = text.split([' ', '/', '\\']).filter(|word| !word.is_empty()).collect();
        let mut marking = Marking::default();
        let mut classified = false;
        let mut rest = words.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            if let Some(groups) = self.groups_in(first) {
                marking.groups.extend(groups?);
                rest = behind;
                continue;
            }
            let (label, behind) = self.longest_name(rest)?;
            rest = behind;
            match label {
                Label::Classification(place) => {
                    classified = true;
                    marking.classification = marking.classification.max(place);
                }
                Label::Caveat(place) => drop(marking.caveats.insert(place)),
                Label::Enforced(place) => drop(marking.enforced.insert(place)),
                Label::Shown => {}
                // Only behind the prefix.
                Label::Group(_) => return None,
            }
        }
        classified.then_some(marking)
    }

    /// The groups of a word such as `REL:A,B`; `None` when it is no such word, `Some(None)` when a group is unknown or
    /// there is none.
    fn groups_in(&self, word: &str) -> Option<Option<BTreeSet<usize>>> {
        let list = word.strip_prefix(&self.group_prefix).filter(|_| !self.group_prefix.is_empty())?;
        let group = |name: &str| match self.by_name.get(&format!("{}{name}", self.group_prefix)) {
            Some(Label::Group(place)) => Some(*place),
            Some(Label::Classification(_) | Label::Caveat(_) | Label::Enforced(_) | Label::Shown) | None => None,
        };
        let groups: Option<BTreeSet<usize>> = list.split(',').filter(|name| !name.is_empty()).map(group).collect();
        // No group at all would open the event to everybody.
        Some(groups.filter(|groups| !groups.is_empty()))
    }

    /// The label whose name is the most of the first words, and what comes behind it.
    fn longest_name<'w, 't>(&self, words: &'w [&'t str]) -> Option<(Label, &'w [&'t str])> {
        (1..=self.longest.min(words.len())).rev().find_map(|count| {
            let (name, behind) = words.split_at_checked(count)?;
            Some((*self.by_name.get(&name.join(" "))?, behind))
        })
    }
}

impl Clearance<'_> {
    /// Whether the reader may see what carries the marking `text`: its classification is not above the reader's, the
    /// reader holds all of its caveats, one of its groups if it has any, and one of its enforced markings if it has any.
    pub fn allows(&self, text: &str) -> bool {
        let Some(held) = &self.held else { return false };
        let Some(wanted) = self.labels.read(text) else { return false };
        let one_of = |wanted: &BTreeSet<usize>, held: &BTreeSet<usize>| wanted.is_empty() || !wanted.is_disjoint(held);
        wanted.classification <= held.classification
            && wanted.caveats.is_subset(&held.caveats)
            && one_of(&wanted.groups, &held.groups)
            && one_of(&wanted.enforced, &held.enforced)
    }
}

#[cfg(test)]
pub(super) mod tests;
