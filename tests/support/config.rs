//! The configuration file of a test server, section by section.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Settings by section and key; values are TOML literals (`"\"text\""`, `"7"`, `"true"`).
#[derive(Clone, Debug)]
pub(crate) struct Config {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Config {
    /// The setup of the worked examples in the event contract: prefix `t1`, sources `lab` and `short`, any free port.
    pub(crate) fn examples() -> Config {
        Config { sections: BTreeMap::new() }
            .set("http", "listen", "\"127.0.0.1:0\"")
            .set("kafka", "listen", "\"off\"")
            .set("events", "topic_prefix", "\"t1\"")
            .section("sources.lab")
            .set("sources.short", "expire_events_after", "\"2 days\"")
    }

    /// [`Config::examples`] with a Kafka port.
    pub(crate) fn with_kafka() -> Config {
        Config::examples().set("kafka", "listen", "\"127.0.0.1:0\"")
    }

    /// Adds a section without keys.
    pub(crate) fn section(mut self, section: &str) -> Config {
        self.sections.entry(section.to_owned()).or_default();
        self
    }

    /// Sets one key to a TOML literal, replacing what was there.
    pub(crate) fn set(mut self, section: &str, key: &str, literal: &str) -> Config {
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), literal.to_owned());
        self
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (section, keys) in &self.sections {
            writeln!(text, "[{section}]").unwrap();
            for (key, literal) in keys {
                writeln!(text, "{key} = {literal}").unwrap();
            }
        }
        text
    }
}
