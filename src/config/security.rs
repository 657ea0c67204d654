//! `[security]`: the labels that security markings are made of (`events.md` 5.5.3).
//!
//! Member names are those of the label configuration that other parts of Azul read, so that one list can serve both.

use super::topics::Elsewhere;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Longest label.
const NAME_MAX_BYTES: usize = 100;
/// Longest prefix of groups.
const PREFIX_MAX_BYTES: usize = 20;
/// Labels of one kind, at most.
const OPTIONS_MAX: usize = 1_000;
/// Other spellings of one label, at most.
const ALIASES_MAX: usize = 20;

/// `[security]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// All labels.
    pub labels: SecurityLabels,
}

/// `[security.labels]`: the labels by kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityLabels {
    /// Rising; a marking needs one, and the reader's must be at least as high.
    pub classification: LabelOptions,
    /// The reader must hold all of those in a marking.
    pub caveat: LabelOptions,
    /// Groups: the reader must hold one of those in a marking.
    pub releasability: Releasability,
    /// Markings: the reader must hold one of those in a marking that are enforced.
    pub tlp: TlpOptions,
}

/// Labels of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelOptions {
    /// Used by the user interface.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub title: Elsewhere,
    /// The labels, from the least to the most restrictive.
    pub options: Vec<LabelOption>,
}

/// One label.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelOption {
    /// What is written in a marking, in any case.
    pub name: String,
    /// What may be written instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// May not fall from one classification to the next.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub priority: Option<i64>,
    /// Checked where markings are entered.
    #[serde(default, skip_serializing_if = "Elsewhere::is_absent")]
    pub min_priority: Elsewhere,
    /// Checked where markings are entered.
    #[serde(default, skip_serializing_if = "Elsewhere::is_absent")]
    pub max_priority: Elsewhere,
}

/// `[security.labels.releasability]`: groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Releasability {
    /// Used by the user interface.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub title: Elsewhere,
    /// The group that markings get where they are entered.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub origin: Elsewhere,
    /// Used by the user interface.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub origin_alt_name: Elsewhere,
    /// What every group begins with; behind it several may be joined by commas.
    pub prefix: String,
    /// The groups, with their prefix.
    pub options: Vec<LabelOption>,
}

impl Default for Releasability {
    fn default() -> Self {
        let [title, origin, origin_alt_name] = [const { Elsewhere::ABSENT }; 3];
        Self { title, origin, origin_alt_name, prefix: "REL:".to_owned(), options: Vec::new() }
    }
}

/// `[security.labels.tlp]`: markings of the traffic light protocol.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlpOptions {
    /// Used by the user interface.
    #[serde(skip_serializing_if = "Elsewhere::is_absent")]
    pub title: Elsewhere,
    /// The markings.
    pub options: Vec<TlpOption>,
}

/// One marking of the traffic light protocol.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlpOption {
    /// What is written in a marking, in any case.
    pub name: String,
    /// What may be written instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Used where markings are entered.
    #[serde(default, skip_serializing_if = "Elsewhere::is_absent")]
    pub priority: Elsewhere,
    /// Whether the reader must hold it; else it is only shown.
    #[serde(default, deserialize_with = "flag")]
    pub enforce_security: bool,
}

/// A whole number that may be written as text, as other parts of Azul allow.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let number = match Json::deserialize(deserializer)? {
        Json::Number(number) => number.as_i64(),
        Json::String(text) => text.trim().parse().ok(),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    number.map(Some).ok_or_else(|| D::Error::custom("a whole number for priority"))
}

/// True or false, which may be written as text, as other parts of Azul allow.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let flag = match Json::deserialize(deserializer)? {
        Json::Bool(flag) => Some(flag),
        Json::String(text) => text.trim().to_ascii_lowercase().parse().ok(),
        Json::Null | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
    };
    flag.ok_or_else(|| D::Error::custom("true or false for enforce_security"))
}

const CLASSIFICATION: &str = "security.labels.classification.options";
const CAVEAT: &str = "security.labels.caveat.options";
const GROUP: &str = "security.labels.releasability.options";
const PREFIX: &str = "security.labels.releasability.prefix";
const TLP: &str = "security.labels.tlp.options";

/// One mistake: key, value, what is wrong.
pub(super) type Mistake = (&'static str, String, String);

/// Everything wrong with the labels.
pub(super) fn mistakes(security: &Security) -> Vec<Mistake> {
    let SecurityLabels { classification, caveat, releasability, tlp } = &security.labels;
    let mut check = Check { prefix: releasability.prefix.to_uppercase(), seen: BTreeMap::new(), mistakes: Vec::new() };
    let options = |options: &[LabelOption]| {
        options.iter().map(|option| (option.name.clone(), option.aliases.clone())).collect::<Vec<_>>()
    };
    check.prefix_is_good(&releasability.prefix);
    check.labels(CLASSIFICATION, options(&classification.options));
    check.labels(CAVEAT, options(&caveat.options));
    check.labels(GROUP, options(&releasability.options));
    check.labels(TLP, tlp.options.iter().map(|option| (option.name.clone(), option.aliases.clone())).collect());
    let mut highest = i64::MIN;
    for option in &classification.options {
        let priority = option.priority.unwrap_or(highest);
        if priority < highest {
            let message =
                "has a lower priority than the one before: classifications stand from the lowest to the highest";
            check.mistake(CLASSIFICATION, &option.name, message);
        }
        highest = highest.max(priority);
    }
    let others = [(CAVEAT, caveat.options.len()), (GROUP, releasability.options.len()), (TLP, tlp.options.len())];
    if classification.options.is_empty()
        && let Some((key, _)) = others.into_iter().find(|(_, count)| *count > 0)
    {
        let message = format!("means nothing without {CLASSIFICATION}: every marking needs a classification");
        check.mistakes.push((key, "[ .. ]".to_owned(), message));
    }
    check.mistakes
}

struct Check {
    /// In upper case.
    prefix: String,
    /// Labels in upper case, with the key they stand in.
    seen: BTreeMap<String, &'static str>,
    mistakes: Vec<Mistake>,
}

impl Check {
    fn mistake(&mut self, key: &'static str, name: &str, message: impl Into<String>) {
        let shown: String = name.chars().take(NAME_MAX_BYTES).collect();
        self.mistakes.push((key, format!("{shown:?}"), message.into()));
    }

    fn prefix_is_good(&mut self, prefix: &str) {
        let legal = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | '\\' | ',');
        if prefix.is_empty() || prefix.len() > PREFIX_MAX_BYTES || !prefix.chars().all(legal) {
            let message = format!("allowed are 1 to {PREFIX_MAX_BYTES} characters without space, comma, / and \\");
            self.mistake(PREFIX, prefix, message);
        }
    }

    fn labels(&mut self, key: &'static str, options: Vec<(String, Vec<String>)>) {
        if options.len() > OPTIONS_MAX {
            let message = format!("has {} labels, allowed are at most {OPTIONS_MAX}", options.len());
            self.mistakes.push((key, "[ .. ]".to_owned(), message));
            return;
        }
        for (name, aliases) in options {
            if aliases.len() > ALIASES_MAX {
                self.mistake(key, &name, format!("has {} aliases, allowed are at most {ALIASES_MAX}", aliases.len()));
                continue;
            }
            [name].into_iter().chain(aliases).for_each(|name| self.label(key, &name));
        }
    }

    fn label(&mut self, key: &'static str, name: &str) {
        if let Some(message) = self.problem(key, name) {
            self.mistake(key, name, message);
            return;
        }
        if let Some(other) = self.seen.insert(name.to_uppercase(), key) {
            let message = if other == key { "is there twice".to_owned() } else { format!("is also in {other}") };
            self.mistake(key, name, format!("{message}: a label has one meaning, whatever its case"));
        }
    }

    fn problem(&self, key: &str, name: &str) -> Option<String> {
        if name.is_empty() || name.len() > NAME_MAX_BYTES {
            return Some(format!("a label has 1 to {NAME_MAX_BYTES} bytes"));
        }
        if name.split(' ').any(str::is_empty) {
            return Some("a label has single spaces, and none at its ends".to_owned());
        }
        if name.chars().any(|c| matches!(c, '/' | '\\') || c.is_control() || (c.is_whitespace() && c != ' ')) {
            return Some("a label has no / and \\, which separate labels, and no control characters".to_owned());
        }
        let group = name.to_uppercase().strip_prefix(&self.prefix).map(str::to_owned);
        match (key == GROUP, group) {
            (true, None) => Some(format!("a group begins with {:?}, as {PREFIX} says", self.prefix)),
            (true, Some(rest)) if rest.is_empty() || rest.contains([' ', ',']) => {
                Some("a group is one word without a comma".to_owned())
            }
            (false, Some(_)) => Some(format!("only a group may begin with {:?}, as {PREFIX} says", self.prefix)),
            (true, Some(_)) | (false, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(labels: serde_json::Value) -> Vec<String> {
        let security: Security = serde_json::from_value(serde_json::json!({ "labels": labels })).unwrap();
        mistakes(&security).into_iter().map(|(key, value, message)| format!("{key} = {value}: {message}")).collect()
    }

    fn options(names: &[&str]) -> serde_json::Value {
        let options: Vec<_> = names.iter().map(|name| serde_json::json!({ "name": name })).collect();
        serde_json::json!({ "options": options })
    }

    /// A label configuration as other parts of Azul read it, with numbers and booleans as text.
    #[test]
    fn the_document_of_other_parts_is_good() {
        let labels = serde_json::json!({
            "classification": {"title": "Classifications", "options": [
                {"name": "LOW", "priority": "10"}, {"name": "LOW: LY", "priority": "20"}, {"name": "TOP HIGH", "priority": 50}]},
            "caveat": {"title": "Required", "options": [{"name": "MOD1"}, {"name": "R", "min_priority": "10", "max_priority": "10"}]},
            "releasability": {"title": "Groups", "origin": "REL:APPLE", "origin_alt_name": "APPLEO", "prefix": "REL:",
                "options": [{"name": "REL:APPLE"}]},
            "tlp": {"title": "TLP", "options": [{"name": "TLP:CLEAR"}, {"name": "TLP:AMBER+STRICT", "enforce_security": "true"}]}
        });
        assert_eq!(said(labels.clone()), Vec::<String>::new());
        let labels: SecurityLabels = serde_json::from_value(labels).unwrap();
        assert_eq!(labels.tlp.options.iter().map(|option| option.enforce_security).collect::<Vec<_>>(), [false, true]);
        assert_eq!(labels.classification.options[1].priority, Some(20));
    }

    #[test]
    fn mistakes_are_named_with_key_and_label() {
        let low = options(&["LOW"]);
        let long = "x".repeat(101);
        let cases: [(serde_json::Value, &str); 13] = [
            (options(&["LOW", "low"]), "classification.options = \"low\": is there twice"),
            (options(&[""]), "classification.options = \"\": a label has 1 to 100 bytes"),
            (options(&[&long]), "a label has 1 to 100 bytes"),
            (options(&[" LOW"]), "single spaces"),
            (options(&["TOP  HIGH"]), "single spaces"),
            (options(&["A/B"]), "no / and"),
            (options(&["A\tB"]), "no / and"),
            (options(&["REL:A"]), "only a group may begin with \"REL:\""),
            (
                serde_json::json!({"options": [{"name": "A", "priority": 2}, {"name": "B", "priority": 1}]}),
                "lower priority",
            ),
            (serde_json::json!({"options": [{"name": "A", "aliases": ["a"]}]}), "is there twice"),
            (serde_json::json!({"options": [{"name": "A", "aliases": [""]}]}), "1 to 100 bytes"),
            (serde_json::json!({"options": [{"name": "A", "aliases": vec!["b"; 21]}]}), "at most 20"),
            (options(&vec!["A"; 1001]), "at most 1000"),
        ];
        for (classification, expected) in cases {
            let got = said(serde_json::json!({ "classification": classification }));
            assert!(got.len() == 1 && got[0].contains(expected), "{expected}: {got:?}");
        }
        let kinds = [
            (
                serde_json::json!({"classification": low, "caveat": options(&["Low"])}),
                "caveat.options = \"Low\": is also in security.labels.classification",
            ),
            (
                serde_json::json!({"classification": low, "releasability": options(&["APPLE"])}),
                "a group begins with \"REL:\"",
            ),
            (
                serde_json::json!({"classification": low, "releasability": options(&["REL:A B"])}),
                "one word without a comma",
            ),
            (
                serde_json::json!({"classification": low, "releasability": options(&["REL:A,B"])}),
                "one word without a comma",
            ),
            (
                serde_json::json!({"classification": low, "releasability": options(&["REL:"])}),
                "one word without a comma",
            ),
            (
                serde_json::json!({"classification": low, "releasability": {"prefix": ""}}),
                "releasability.prefix = \"\": allowed are",
            ),
            (serde_json::json!({"tlp": options(&["TLP:CLEAR"])}), "tlp.options = [ .. ]: means nothing without"),
        ];
        for (labels, expected) in kinds {
            let got = said(labels);
            assert!(got.iter().any(|got| got.contains(expected)), "{expected}: {got:?}");
        }
    }
}
