//! What one task brought, as it is kept until the job is over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::kept::Kept;

/// Name, type and meaning of every feature, in the order in which they are kept when a result has room for no more.
pub(crate) const FEATURES: [(&str, &str, &str); 20] = [
    ("behaviour_signature", "string", "Behavioural signature that the file triggered"),
    ("attack", "string", "Technique id of MITRE ATT&CK"),
    ("cape_malscore", "float", "How malicious CAPE takes the file to be"),
    ("contacted_url", "string", "Address that was requested"),
    ("contacted_host", "string", "Network endpoint that was talked to"),
    ("contacted_port", "integer", "Destination port; the label is the protocol"),
    ("domain", "string", "Domain name that was looked up"),
    ("ip_address", "string", "IP address that was talked to"),
    ("command_executed", "string", "Command line, or name, of a process that was started"),
    ("mutex", "string", "Name of a mutex"),
    ("file_written", "string", "Path of a file that was written"),
    ("file_deleted", "string", "Path of a file that was deleted"),
    ("file_read", "string", "Path of a file that was read"),
    ("file_accessed", "string", "Path of a file that was used in a way the report does not tell"),
    ("registry_key_set", "string", "Registry key that was set"),
    ("registry_key_deleted", "string", "Registry key that was deleted"),
    ("registry_read", "string", "Registry key that was read"),
    ("registry_key", "string", "Registry key that was used in a way the report does not tell"),
    ("filename", "filepath", "Name of a file that was left behind"),
    ("tag", "string", "Mark on files that need a look"),
];

/// What one task brought.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// By name.
    #[serde(default)]
    pub(crate) features: BTreeMap<String, Kept>,
    /// Member `sandbox` of the info block.
    #[serde(default)]
    pub(crate) sandbox: Map<String, Value>,
    /// Members beside it.
    #[serde(default)]
    pub(crate) info: Map<String, Value>,
    /// Streams on the file, as the upload answered, in JSON.
    #[serde(default)]
    pub(crate) streams: Vec<Value>,
    /// What people should know; the job is complete all the same.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
    /// What did not work, or was cut.
    #[serde(default)]
    pub(crate) errors: Vec<String>,
}

impl Findings {
    /// Adds a value to a feature.
    pub(crate) fn add(&mut self, feature: &str, rank: i64, value: &str, label: &str) {
        self.features.entry(feature.to_owned()).or_default().add(rank, value, label);
    }

    /// Takes all of what another reading of the same task brought.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, kept) in &other.features {
            self.features.entry(name.clone()).or_default().merge(kept);
        }
        self.sandbox.extend(other.sandbox);
        self.info.extend(other.info);
        for stream in other.streams {
            if !self.streams.contains(&stream) {
                self.streams.push(stream);
            }
        }
        for (texts, more) in [(&mut self.notes, other.notes), (&mut self.errors, other.errors)] {
            for text in more {
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
        }
    }
}
