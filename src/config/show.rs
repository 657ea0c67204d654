//! Printing a configuration: every key with its value and where it came from (`azulite config show`).

use super::layer::{KeyPath, Origin};
use super::{Config, Loaded};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

/// One line of `config show`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The key with dots, as it could be written in `appliance.toml`.
    pub key: String,
    /// The value as it could be written there; secrets are hidden.
    pub value: Json,
    /// Where the value came from.
    pub origin: Origin,
}

impl Loaded {
    /// Every key with its value, in the order of the sections.
    pub fn entries(&self) -> Vec<Entry> {
        leaves(&self.config)
            .into_iter()
            .map(|(key, value)| Entry {
                value: if key.is_secret() { Json::from("(hidden)") } else { value },
                origin: self.origins.of(&key).clone(),
                key: key.to_string(),
            })
            .collect()
    }

    /// The text of `config show`: TOML that can be used as a configuration file, with the origins as comments.
    pub fn to_text(&self) -> String {
        let entries = self.entries();
        let width = entries.iter().map(|entry| line(entry).chars().count()).max().unwrap_or_default();
        entries.iter().map(|entry| format!("{:width$}  # {}\n", line(entry), entry.origin)).collect()
    }

    /// The object of `config show --json`.
    pub fn to_json(&self) -> Json {
        json!({ "file": self.file, "settings": self.entries(), "warnings": self.warnings })
    }
}

fn line(entry: &Entry) -> String {
    format!("{} = {}", entry.key, toml(&entry.value))
}

/// JSON scalars and lists are TOML already; only tables inside lists look different.
fn toml(value: &Json) -> String {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => value.to_string(),
        Json::Array(values) => format!("[{}]", values.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Json::Object(table) => {
            let members = table.iter().map(|(name, value)| format!("{} = {}", Json::from(name.as_str()), toml(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Every value of `config` with its key; a table without members has none.
pub(super) fn leaves(config: &Config) -> Vec<(KeyPath, Json)> {
    let mut found = Vec::new();
    // A configuration consists of texts, numbers and maps with text keys: it always has a JSON form.
    if let Ok(Json::Object(sections)) = serde_json::to_value(config) {
        walk(&mut Vec::new(), sections, &mut found);
    }
    found
}

fn walk(above: &mut Vec<String>, table: Map<String, Json>, found: &mut Vec<(KeyPath, Json)>) {
    for (name, value) in table {
        above.push(name);
        match value {
            Json::Object(inner) => walk(above, inner, found),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                found.push((KeyPath::new(above.clone()), value));
            }
        }
        above.pop();
    }
}
