//! Whole documents in one environment variable: upstream's sources and topics in YAML (`events.md` 4.3), and the label
//! configuration in JSON. Each becomes settings as if its members had been given one by one.
//!
//! Members that other parts of Azul act on are passed over, as upstream does.

use super::layer::{KeyPath, Origin, Setting};
use super::problem::Problem;
use serde_json::{Map, Value as Json};
use serde_yaml_ng::Value as Yaml;

/// What a document says, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) settings: Vec<Setting>,
    pub(super) problems: Vec<Problem>,
}

/// Shown of a value in a message, at most.
const SHOWN_CHARS: usize = 80;

/// `DP__EVENTS__SOURCES`: a map `sources` of sources by name.
pub(super) fn sources(variable: &str, text: &str) -> Document {
    let mut reading = Reading::new(variable, "sources");
    let Some(document) = reading.yaml(text) else { return reading.document };
    let sources = match &document {
        Json::Null => return reading.document,
        Json::Object(members) => members.get("sources"),
        Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => None,
    };
    match sources {
        Some(Json::Null) => {}
        Some(Json::Object(sources)) => sources.iter().for_each(|(name, source)| reading.source(name, source)),
        Some(_) | None => {
            reading.problem("sources", &document, "allowed is a YAML document with a map `sources` in it")
        }
    }
    reading.document
}

/// `DP__EVENTS__TOPICS`: a list of topics that differ from their defaults.
pub(super) fn topics(variable: &str, text: &str) -> Document {
    let mut reading = Reading::new(variable, "topics");
    match reading.yaml(text) {
        None | Some(Json::Null) => {}
        Some(Json::Array(entries)) => (1..).zip(&entries).for_each(|(number, entry)| reading.topic(number, entry)),
        Some(other) => reading.problem("topics", &other, "allowed is a YAML list of topics"),
    }
    reading.document
}

/// `security_labels`: the labels by kind.
pub(super) fn labels(variable: &str, text: &str) -> Document {
    const KINDS: [(&str, &[&str]); 4] = [
        ("classification", &["options"]),
        ("caveat", &["options"]),
        ("releasability", &["prefix", "options"]),
        ("tlp", &["options"]),
    ];
    let mut reading = Reading::new(variable, "security.labels");
    let document = match serde_json::from_str(text) {
        Ok(Json::Object(kinds)) => kinds,
        Ok(other) => {
            reading.problem("security.labels", &other, "allowed is a JSON object with labels by kind");
            return reading.document;
        }
        Err(error) => {
            reading.problem("security.labels", &Json::from(text), &format!("not JSON: {error}"));
            return reading.document;
        }
    };
    for (kind, members) in KINDS {
        let path = ["security", "labels", kind];
        match document.get(kind) {
            Some(Json::Object(given)) => reading.members(&path, given, members),
            Some(other) => reading.set(&path, other),
            None => {}
        }
    }
    reading.document
}

struct Reading {
    origin: Origin,
    root: &'static str,
    document: Document,
}

impl Reading {
    fn new(variable: &str, root: &'static str) -> Self {
        let origin = Origin::Environment { name: variable.to_owned() };
        Self { origin, root, document: Document::default() }
    }

    fn problem(&mut self, key: &str, value: &Json, message: &str) {
        let shown = match value {
            Json::Object(_) => "{ .. }".to_owned(),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => value.to_string(),
        };
        let value = match shown.char_indices().nth(SHOWN_CHARS) {
            Some((at, _)) => format!("{} ..", shown.get(..at).unwrap_or_default()),
            None => shown,
        };
        let (origin, key, message) = (self.origin.clone(), key.to_owned(), message.to_owned());
        self.document.problems.push(Problem { origin, key, value, message });
    }

    fn set(&mut self, path: &[&str], value: &Json) {
        let key = KeyPath::new(path.iter().map(|&part| part.to_owned()).collect());
        self.document.settings.push(Setting::typed(key, value.clone(), self.origin.clone()));
    }

    /// Sets those of `given` that mean something here; null is not given.
    fn members(&mut self, path: &[&str], given: &Map<String, Json>, wanted: &[&str]) {
        for name in wanted {
            if let Some(value) = given.get(*name).filter(|value| !value.is_null()) {
                self.set(&[path, &[*name]].concat(), value);
            }
        }
    }

    /// The document, in JSON's terms; `None` after a mistake, which is told with its line.
    fn yaml(&mut self, text: &str) -> Option<Json> {
        let read = serde_yaml_ng::from_str::<Yaml>(text).and_then(|mut document| {
            document.apply_merge()?;
            Ok(document)
        });
        match read {
            Ok(document) => Some(json(document)),
            Err(error) => {
                let line = error.location().map_or(1, |place| place.line());
                // What is missing at the end is missed behind the last line.
                let upto = text.lines().take(line).map(str::trim).filter(|line| !line.is_empty());
                let given = upto.last().unwrap_or_default();
                self.problem(self.root, &Json::from(given), &format!("line {line} is not YAML: {error}"));
                None
            }
        }
    }

    fn source(&mut self, name: &str, source: &Json) {
        let path = ["sources", name];
        match source {
            Json::Null => self.set(&path, &Json::Object(Map::new())),
            Json::Object(members) => {
                self.set(&path, &Json::Object(Map::new()));
                if let Some(expiry) = members.get("expire_events_after").filter(|expiry| !expiry.is_null()) {
                    self.set(&["sources", name, "expire_events_after"], &as_text(expiry));
                }
                match members.get("kafka") {
                    None | Some(Json::Null) => {}
                    Some(Json::Object(kafka)) => self.topic_settings(&["sources", name, "kafka"], kafka),
                    Some(other) => self.set(&["sources", name, "kafka"], other),
                }
            }
            Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => self.set(&path, source),
        }
    }

    fn topic(&mut self, number: usize, entry: &Json) {
        let name = entry.get("topic").map(as_text);
        match (name.as_ref().and_then(Json::as_str), entry) {
            (Some(name), Json::Object(members)) => {
                self.set(&["topics", name], &Json::Object(Map::new()));
                self.topic_settings(&["topics", name], members);
            }
            (Some(_) | None, entry) => {
                let message = "allowed is a map with `topic`, the name without azul.<prefix>., and what differs";
                self.problem(&format!("topics, entry {number}"), entry, message);
            }
        }
    }

    fn topic_settings(&mut self, path: &[&str], given: &Map<String, Json>) {
        self.members(path, given, &["numpartitions", "replicationfactor"]);
        match given.get("config") {
            None | Some(Json::Null) => {}
            Some(Json::Object(config)) => {
                for (name, value) in config {
                    self.set(&[path, &["config", name]].concat(), value);
                }
            }
            Some(other) => self.set(&[path, &["config"]].concat(), other),
        }
    }
}

/// A number or a boolean that stands where a text is meant; YAML needs no quotes.
fn as_text(value: &Json) -> Json {
    match value {
        Json::Bool(_) | Json::Number(_) => Json::from(value.to_string()),
        Json::Null | Json::String(_) | Json::Array(_) | Json::Object(_) => value.clone(),
    }
}

/// YAML in JSON's terms: tags are dropped, keys become text. The loader has bounded depth and the use of aliases.
fn json(value: Yaml) -> Json {
    match value {
        Yaml::Null => Json::Null,
        Yaml::Bool(flag) => Json::from(flag),
        Yaml::Number(number) => serde_json::to_value(number).unwrap_or_default(),
        Yaml::String(text) => Json::from(text),
        Yaml::Sequence(items) => Json::Array(items.into_iter().map(json).collect()),
        Yaml::Mapping(members) => {
            let member = |(name, value): (Yaml, Yaml)| {
                let name = match as_text(&json(name)) {
                    Json::String(name) => name,
                    name @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => {
                        name.to_string()
                    }
                };
                (name, json(value))
            };
            Json::Object(members.into_iter().map(member).collect())
        }
        Yaml::Tagged(tagged) => json(tagged.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(document: &Document) -> Vec<String> {
        assert_eq!(document.problems, []);
        document.settings.iter().map(|setting| format!("{} = {}", setting.key, setting.shown())).collect()
    }

    fn problems(document: &Document) -> Vec<String> {
        document.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_document_of_the_metastore_gives_its_sources() {
        let text = "sources:\n  incidents:\n    description: what came in\n    icon_class: bug\n    elastic: {a: {b: 1}}\n\
            \x20   references: [{name: n, required: true, description: x}]\n    expire_events_after: 2 months\n\
            \x20   kafka:\n      numpartitions: 3\n      config: {segment.bytes: 1073741824, cleanup.policy: compact}\n\
            \x20 forever:\n  2024: {expire_events_after: 0, kafka: null}\nother: 1\n";
        let expected = [
            "sources.incidents = {}",
            "sources.incidents.expire_events_after = \"2 months\"",
            "sources.incidents.kafka.numpartitions = 3",
            "sources.incidents.kafka.config.\"segment.bytes\" = 1073741824",
            "sources.incidents.kafka.config.\"cleanup.policy\" = \"compact\"",
            "sources.forever = {}",
            "sources.2024 = {}",
            "sources.2024.expire_events_after = \"0\"",
        ];
        let mut got = settings(&sources("V", text));
        let mut expected = expected.map(str::to_owned).to_vec();
        got.sort();
        expected.sort();
        assert_eq!(got, expected);
        for empty in ["", "~", "sources:", "sources: {}"] {
            assert_eq!(settings(&sources("V", empty)), Vec::<String>::new(), "{empty:?}");
        }
    }

    #[test]
    fn topics_are_a_list() {
        let text = "- topic: system.status\n  numpartitions: 2\n  replicationfactor: 3\n  config: {retention.ms: 7}\n- topic: x\n";
        let expected = [
            "topics.\"system.status\" = {}",
            "topics.\"system.status\".numpartitions = 2",
            "topics.\"system.status\".replicationfactor = 3",
            "topics.\"system.status\".config.\"retention.ms\" = 7",
            "topics.x = {}",
        ];
        assert_eq!(settings(&topics("V", text)), expected);
        assert_eq!(settings(&topics("V", "[]")), Vec::<String>::new());
    }

    #[test]
    fn anchors_and_merge_keys_are_followed() {
        let text = "base: &b {expire_events_after: 1 days}\nsources:\n  a: {<<: *b}\n";
        let got = settings(&sources("V", text));
        assert_eq!(got, ["sources.a = {}", "sources.a.expire_events_after = \"1 days\""]);
    }

    #[test]
    fn what_is_no_such_document_is_refused_with_its_place() {
        for (text, expected) in [
            ("sources:\n  a: [\n", "environment V: sources = \"a: [\": line"),
            ("sources:\n  a: {}\n  a: {}\n", "duplicate entry"),
            ("- a", "sources = [\"a\"]: allowed is a YAML document with a map `sources`"),
            ("source: {a: {}}", "sources = { .. }: allowed is a YAML document with a map `sources`"),
            ("sources: [a]", "allowed is a YAML document with a map `sources`"),
            ("a: &a [*a]", "line"),
        ] {
            let got = problems(&sources("V", text));
            assert!(got.len() == 1 && got[0].contains(expected), "{text:?}: {got:?}");
        }
        for (text, expected) in [
            ("a: 1", "topics = { .. }: allowed is a YAML list of topics"),
            ("- numpartitions: 3", "topics, entry 1 = { .. }: allowed is a map with `topic`"),
            ("- topic: a\n- b", "topics, entry 2 = \"b\": allowed is a map with `topic`"),
        ] {
            let got = problems(&topics("V", text));
            assert!(got.len() == 1 && got[0].contains(expected), "{text:?}: {got:?}");
        }
    }

    /// Each level of aliases would double the size.
    #[test]
    fn a_document_that_grows_without_end_is_refused() {
        let levels = (1..40).map(|level| format!("a{level}: &a{level} [*a{0}, *a{0}, *a{0}]\n", level - 1));
        let text = ["a0: &a0 [x, x, x]\n".to_owned()].into_iter().chain(levels).collect::<String>();
        assert_eq!(problems(&sources("V", &text)).len(), 1);
        assert_eq!(problems(&sources("V", &"[".repeat(100_000))).len(), 1);
    }

    #[test]
    fn labels_are_taken_without_what_only_others_read() {
        let text = r#"{"classification": {"title": "C", "options": [{"name": "LOW", "priority": "10"}]},
            "releasability": {"prefix": "REL:", "origin": "REL:A", "options": []}, "more": 1}"#;
        let expected = [
            r#"security.labels.classification.options = [{"name":"LOW","priority":"10"}]"#,
            "security.labels.releasability.prefix = \"REL:\"",
            "security.labels.releasability.options = []",
        ];
        assert_eq!(settings(&labels("security_labels", text)), expected);
        for bad in ["", "[]", "{"] {
            assert_eq!(labels("security_labels", bad).problems.len(), 1, "{bad:?}");
        }
    }
}
