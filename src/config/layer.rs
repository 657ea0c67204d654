//! Layers of settings, each setting with the place it came from.
//!
//! Every layer is a flat list of [`Setting`]s. Each one is tried alone against [`Config`], so that all mistakes of all
//! layers come out together; what passes is merged by figment, later layers winning.

use super::Config;
use super::problem::{Problem, explain};
use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Origin {
    /// Built in.
    Default,
    /// The configuration file.
    File {
        /// The file as it was named or found.
        path: PathBuf,
        /// The line of the key, counted from 1; `None` when there is nothing to read.
        line: Option<usize>,
    },
    /// An environment variable.
    Environment {
        /// Its whole name.
        name: String,
    },
    /// A flag of the command line.
    Flag {
        /// The flag with its dashes.
        name: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment { name } => write!(f, "environment {name}"),
            Self::Flag { name } => write!(f, "flag {name}"),
        }
    }
}

/// The name of a setting, outermost table first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(Vec<String>);

impl KeyPath {
    /// Takes the parts as they are, but joins what lies below a topic's `config`, whose names contain dots.
    pub(super) fn new(mut parts: Vec<String>) -> Self {
        if parts == ["events", "lost_tasks_after"] {
            // As it was called when a lost task was only told of.
            parts = ["delivery", "lease"].map(str::to_owned).to_vec();
        }
        let below = match parts.first().map(String::as_str) {
            Some("topics") if parts.get(2).is_some_and(|part| part == "config") => Some(3),
            Some("sources")
                if parts.get(2).is_some_and(|p| p == "kafka") && parts.get(3).is_some_and(|p| p == "config") =>
            {
                Some(4)
            }
            _ => None,
        };
        if let Some(below) = below.filter(|below| *below < parts.len()) {
            let name = parts.split_off(below).join(".");
            parts.push(name);
        }
        Self(parts)
    }

    /// A name written with dots, none of whose parts contains one.
    pub(super) fn of(dotted: &str) -> Self {
        Self::new(dotted.split('.').map(str::to_owned).collect())
    }

    pub(super) fn parts(&self) -> &[String] {
        &self.0
    }

    /// Whether the last part names something that must not be shown.
    pub(super) fn is_secret(&self) -> bool {
        let last = self.0.last().map(|part| part.to_ascii_lowercase()).unwrap_or_default();
        // The path of a file is none, nor are the words that archives are tried with.
        if last.ends_with("_file") || self.0.iter().map(String::as_str).eq(["workers", "yara", "passwords"]) {
            return false;
        }
        ["password", "secret", "token", "access_key", "aes_key", "private_key"].iter().any(|word| last.contains(word))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            let bare = !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
            if bare { f.write_str(part)? } else { write!(f, "{part:?}")? }
        }
        Ok(())
    }
}

/// One value that somebody gave, with the place.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) key: KeyPath,
    pub(super) given: Given,
    pub(super) origin: Origin,
}

/// How a value was written.
#[derive(Debug, Clone)]
pub(super) enum Given {
    /// With a type, as in a file.
    Typed(serde_json::Value),
    /// As text that becomes whatever the key needs, as in a variable or a flag.
    Text(String),
}

impl Setting {
    pub(super) fn typed(key: KeyPath, value: serde_json::Value, origin: Origin) -> Self {
        Self { key, given: Given::Typed(value), origin }
    }

    pub(super) fn text(key: KeyPath, value: impl Into<String>, origin: Origin) -> Self {
        Self { key, given: Given::Text(value.into()), origin }
    }

    /// The value as it was given, for a message.
    pub(super) fn shown(&self) -> String {
        match &self.given {
            _ if self.key.is_secret() => "(hidden)".to_owned(),
            Given::Typed(value) => value.to_string(),
            Given::Text(text) => format!("{text:?}"),
        }
    }

    /// The first reading of the value that its key accepts, or why there is none.
    pub(super) fn checked(&self) -> Result<Accepted, Problem> {
        let readings = match &self.given {
            Given::Typed(value) => vec![value.clone()],
            Given::Text(text) => readings(text),
        };
        let mut refused = None;
        for value in readings {
            let accepted = Accepted { key: self.key.clone(), value, origin: self.origin.clone() };
            match accepted.extract_alone() {
                Ok(()) => return Ok(accepted),
                Err(error) => refused = Some(error),
            }
        }
        let key = self.key.to_string();
        let message = refused.map_or_else(String::new, |error| explain(&key, &error));
        Err(Problem { origin: self.origin.clone(), key, value: self.shown(), message })
    }
}

/// Text as text first, then as the number, boolean or list that it may look like.
fn readings(text: &str) -> Vec<serde_json::Value> {
    let mut readings = vec![serde_json::Value::String(text.to_owned())];
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text)
        && !value.is_string()
        && !value.is_null()
        && !value.is_object()
    {
        readings.push(value);
    }
    readings
}

/// A setting whose key exists and whose value has the right type.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) key: KeyPath,
    pub(super) value: serde_json::Value,
    pub(super) origin: Origin,
}

impl Accepted {
    fn extract_alone(&self) -> Result<(), Box<figment::Error>> {
        Figment::from(Serialized::defaults(Config::default()))
            .merge(self)
            .extract::<Config>()
            .map(drop)
            .map_err(Box::new)
    }
}

impl Provider for &Accepted {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let leaf = Value::serialize(&self.value)?;
        let nested = self.key.parts().iter().rev().fold(leaf, |inner, part| {
            let mut table = Dict::new();
            table.insert(part.clone(), inner);
            Value::from(table)
        });
        Ok(Map::from([(Profile::Default, nested.into_dict().unwrap_or_default())]))
    }
}

/// All settings merged over the defaults, the last one winning.
pub(super) fn merge(settings: &[Accepted]) -> Result<Config, Box<figment::Error>> {
    let defaults = Figment::from(Serialized::defaults(Config::default()));
    settings.iter().fold(defaults, |figment, setting| figment.merge(setting)).extract().map_err(Box::new)
}
