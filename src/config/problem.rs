//! Mistakes in the configuration, gathered, each with place, key, value and what is allowed.

use super::check::range_of;
use super::layer::Origin;
use figment::error::{Error, Kind};
use serde::Serialize;
use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where the value came from.
    pub origin: Origin,
    /// The key, as it is written in `appliance.toml`; empty when the file as a whole is meant.
    pub key: String,
    /// The value as it was given; secrets are hidden.
    pub value: String,
    /// What is wrong, or what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{} = {}: ", self.key, self.value)?;
        }
        f.write_str(&self.message)
    }
}

/// Every mistake of one configuration; the process ends with exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct ConfigErrors {
    /// The mistakes in the order file, environment, flags, then what concerns several settings.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "configuration refused, {count} mistake{}:", if count == 1 { "" } else { "s" })?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// What inside the value is meant: `url: `, for a list of tables.
fn below(key: &str, error: &Error) -> String {
    let path = error.path.join(".");
    path.strip_prefix(key).and_then(|rest| rest.strip_prefix('.')).map_or_else(String::new, |rest| format!("{rest}: "))
}

/// What serde found out about the value of `key`, in words for an operator.
pub(super) fn explain(key: &str, error: &Error) -> String {
    match &error.kind {
        Kind::UnknownField(name, known) => {
            let inside = if key.split('.').any(|part| part == name) { String::new() } else { format!("{name}: ") };
            format!("{inside}there is no such key; here are allowed: {}", known.join(", "))
        }
        Kind::MissingField(name) => format!("the key {name} is needed"),
        _ if range_of(key).is_some() => format!("allowed is {}", range_of(key).unwrap_or_default()),
        Kind::Message(allowed) => format!("{}allowed is {allowed}", below(key, error)),
        Kind::UnknownVariant(_, known) => format!("{}allowed is one of {}", below(key, error), known.join(", ")),
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            format!("{}allowed is {}", below(key, error), plain_type(expected))
        }
        Kind::InvalidLength(..)
        | Kind::DuplicateField(_)
        | Kind::ISizeOutOfRange(_)
        | Kind::USizeOutOfRange(_)
        | Kind::Unsupported(_)
        | Kind::UnsupportedKey(..) => error.kind.to_string(),
    }
}

fn plain_type(expected: &str) -> &str {
    match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "a boolean" => "true or false",
        "a string" | "a borrowed string" | "path string" => "text in quotes",
        other if other.starts_with("struct ") || other == "a map" => "a table, written as [section] or with dots",
        other => other,
    }
}
