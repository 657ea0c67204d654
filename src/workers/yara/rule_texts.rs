//! The texts of rules that hit, as they are published.

use std::collections::BTreeMap;

use super::compile::RuleSet;
use super::scanner::FileHits;
use super::score::weight;

/// Most texts that are published for one object.
const TEXTS_MAX: usize = 200;
/// Longest of them.
const TEXT_MAX: usize = 1 << 20;

/// Texts of rules.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// Each with a line before it that names its rules; each once.
    pub(super) texts: Vec<String>,
    /// Rules that hit.
    pub(super) rules: usize,
    /// Those whose text is not there: too many, or too long.
    pub(super) left_out: usize,
}

/// The texts of the rules that hit any of `files`: those of the greatest weight first, then in the order of their names.
pub(super) fn of(files: &[FileHits], set: &RuleSet) -> Texts {
    let hits = files.iter().flat_map(|file| &file.hits).map(|hit| ((&hit.namespace, &hit.name), weight(hit)));
    let mut rules: Vec<_> = BTreeMap::from_iter(hits).into_iter().collect();
    rules.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    let mut names: Vec<(&str, Vec<String>)> = Vec::new();
    let mut left_out = 0;
    for ((namespace, name), _) in &rules {
        let rule = format!("{namespace}.{name}");
        let Some(text) = set.text(namespace, name).filter(|text| text.len() <= TEXT_MAX) else {
            left_out += 1;
            continue;
        };
        if let Some((_, rules)) = names.iter_mut().find(|(known, _)| *known == text) {
            rules.push(rule);
        } else if names.len() < TEXTS_MAX {
            names.push((text, vec![rule]));
        } else {
            left_out += 1;
        }
    }
    let texts = names.into_iter().map(|(text, rules)| format!("// {}\n{text}\n", rules.join(", "))).collect();
    Texts { texts, rules: rules.len(), left_out }
}
