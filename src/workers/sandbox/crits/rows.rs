//! Rows of a report as CRITs shows them: a text, a subtype, and further members as JSON text.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::report::first_chars;
use super::super::report::scan::{Scalar, Sink, Step};

/// Rows of one report.
const ROWS_MAX: usize = 20_000;
const TEXT_MAX_CHARS: usize = 2000;
const FIELDS_MAX: usize = 64;

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) result: String,
    pub(super) subtype: &'static str,
    pub(super) data: Map<String, Value>,
}

impl Row {
    /// The row of a file that an analysis left behind.
    pub(super) fn file_added(name: &str, md5: &str) -> Self {
        let data = [("md5".to_owned(), Value::from(md5))].into_iter().collect();
        Self { result: name.to_owned(), subtype: "file_added", data }
    }
}

/// Takes a report in.
#[derive(Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    left_out: u64,
    /// Members of the element at hand, of the API call inside it, and of the whole.
    element: BTreeMap<String, String>,
    call: BTreeMap<String, String>,
    info: BTreeMap<String, String>,
    argument: (String, String),
    arguments: Vec<String>,
    /// Calls come before the name of their process: they get it when that is known.
    calls_from: usize,
}

impl Rows {
    /// The rows, the one about the whole first, and how many had no room.
    pub(super) fn finish(mut self) -> (Vec<Row>, u64) {
        let machine = self.info.remove("machine").or_else(|| self.info.remove("machine.name"));
        let data = pick(&self.info, &[("started", "started"), ("ended", "ended"), ("analysis_id", "id")]);
        let first = Row { result: machine.unwrap_or_else(|| "FAILED".to_owned()), subtype: "info", data };
        self.rows.insert(0, first);
        (self.rows, self.left_out)
    }

    fn push(&mut self, result: &str, subtype: &'static str, data: Map<String, Value>) {
        if self.rows.len() >= ROWS_MAX {
            self.left_out += 1;
            return;
        }
        self.rows.push(Row { result: first_chars(result, TEXT_MAX_CHARS).0, subtype, data });
    }

    fn process(&mut self) {
        let fields = std::mem::take(&mut self.element);
        let name = fields.get("process_name").cloned().unwrap_or_default();
        for row in self.rows.iter_mut().skip(self.calls_from).filter(|row| row.subtype == "api_call") {
            row.data.insert("process".to_owned(), Value::from(name.as_str()));
        }
        let members = [
            ("process_id", "process_id"),
            ("process_id", "pid"),
            ("parent_id", "parent_id"),
            ("parent_id", "ppid"),
            ("first_seen", "first_seen"),
        ];
        self.push(&name, "process", pick(&fields, &members));
        self.calls_from = self.rows.len();
    }

    fn call(&mut self) {
        let fields = std::mem::take(&mut self.call);
        let names = ["category", "status", "return", "timestamp", "thread_id", "repeated", "api", "id"];
        let mut data = pick(&fields, &names.map(|name| (name, name)));
        data.insert("arguments".to_owned(), Value::from(std::mem::take(&mut self.arguments).join(", ")));
        let api = fields.get("api").cloned().unwrap_or_default();
        self.push(&api, "api_call", data);
    }

    fn signature(&mut self) {
        let fields = std::mem::take(&mut self.element);
        let description = fields.get("description").cloned().unwrap_or_default();
        self.push(&description, "signature", pick(&fields, &[("severity", "severity"), ("name", "name")]));
    }
}

/// Some members under the names of the rows.
fn pick(fields: &BTreeMap<String, String>, names: &[(&str, &str)]) -> Map<String, Value> {
    let one = |(name, member): &(&str, &str)| Some(((*name).to_owned(), Value::from(fields.get(*member)?.as_str())));
    names.iter().filter_map(one).collect()
}

fn keep(fields: &mut BTreeMap<String, String>, name: &str, text: &str) {
    if fields.len() < FIELDS_MAX {
        fields.insert(name.to_owned(), first_chars(text, TEXT_MAX_CHARS).0);
    }
}

fn names(path: &[Step]) -> Vec<&str> {
    if path.len() > 8 { Vec::new() } else { path.iter().map(Step::name).collect() }
}

impl Sink for Rows {
    fn leaves_out(&mut self, _path: &[Step]) -> bool {
        false
    }

    fn scalar(&mut self, path: &[Step], value: Scalar<'_>) {
        // Booleans become text, as CRITs wants them.
        let text = match value {
            Scalar::Text(text) | Scalar::Number(text) => text,
            Scalar::Bool(true) => "true",
            Scalar::Bool(false) => "false",
            Scalar::Null => return,
        };
        match names(path).as_slice() {
            ["info", name] => keep(&mut self.info, name, text),
            ["info", "machine", "name"] => keep(&mut self.info, "machine.name", text),
            ["signatures", "[]", name] | ["behavior", "processes", "[]", name] => keep(&mut self.element, name, text),
            ["behavior", "processes", "[]", "calls", "[]", name] => keep(&mut self.call, name, text),
            ["behavior", "processes", "[]", "calls", "[]", "arguments", "[]", "name"] => {
                self.argument.0 = first_chars(text, TEXT_MAX_CHARS).0;
            }
            ["behavior", "processes", "[]", "calls", "[]", "arguments", "[]", "value"] => {
                self.argument.1 = first_chars(text, TEXT_MAX_CHARS).0;
            }
            ["behavior", "processes", "[]", "calls", "[]", "arguments", name] if self.arguments.len() < FIELDS_MAX => {
                self.arguments.push(format!("{name}={}", first_chars(text, TEXT_MAX_CHARS).0));
            }
            ["behavior", "summary", list, "[]"] => {
                let subtype = match *list {
                    "files" | "file_read" | "file_written" | "file_deleted" | "file_created" => "file",
                    "keys" | "regkey_read" | "regkey_written" | "regkey_deleted" => "registry_key",
                    "mutex" | "mutexes" => "mutex",
                    _ => return,
                };
                self.push(text, subtype, Map::new());
            }
            _ => {}
        }
    }

    fn closed(&mut self, path: &[Step]) {
        match names(path).as_slice() {
            ["signatures", "[]"] => self.signature(),
            ["behavior", "processes", "[]"] => self.process(),
            ["behavior", "processes", "[]", "calls", "[]"] => self.call(),
            ["behavior", "processes", "[]", "calls", "[]", "arguments", "[]"] => {
                let (name, value) = std::mem::take(&mut self.argument);
                if self.arguments.len() < FIELDS_MAX {
                    self.arguments.push(format!("{name}={value}"));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::report::scan::scan;
    use super::*;

    fn of(report: &Value) -> (Vec<Row>, u64) {
        let mut rows = Rows::default();
        scan(&mut report.to_string().as_bytes(), &mut std::io::sink(), &mut rows).unwrap();
        rows.finish()
    }

    #[test]
    fn every_row_has_its_own_values() {
        let (rows, left_out) = of(&json!({
            "info": {"id": 7, "machine": {"name": "vm"}, "started": "s", "ended": "e"},
            "signatures": [{"name": "a", "description": "does a", "severity": 1}, {"name": "b", "description": "does b", "severity": 3}],
            "behavior": {"processes": [
                {"process_name": "p.exe", "process_id": 4, "parent_id": 2, "calls": [
                    {"api": "NtOpenFile", "status": true, "arguments": [{"name": "path", "value": "C:\\x"}]}]},
                {"process_name": "q.exe", "pid": 5, "calls": [{"api": "NtClose"}]}],
                "summary": {"files": ["C:\\x"], "keys": ["HKLM"], "mutexes": ["m"]}}}));
        let told: Vec<(&str, &str, Value)> =
            rows.iter().map(|row| (row.subtype, row.result.as_str(), Value::Object(row.data.clone()))).collect();
        let expected = [
            ("info", "vm", json!({"started": "s", "ended": "e", "analysis_id": "7"})),
            ("signature", "does a", json!({"severity": "1", "name": "a"})),
            ("signature", "does b", json!({"severity": "3", "name": "b"})),
            (
                "api_call",
                "NtOpenFile",
                json!({"api": "NtOpenFile", "status": "true", "arguments": "path=C:\\x", "process": "p.exe"}),
            ),
            ("process", "p.exe", json!({"process_id": "4", "parent_id": "2"})),
            ("api_call", "NtClose", json!({"api": "NtClose", "arguments": "", "process": "q.exe"})),
            ("process", "q.exe", json!({"process_id": "5"})),
            ("file", "C:\\x", json!({})),
            ("registry_key", "HKLM", json!({})),
            ("mutex", "m", json!({})),
        ];
        let mut told = told;
        // Members are in the order of their names: behavior comes before info and signatures.
        told.sort_by_key(|(subtype, ..)| !matches!(*subtype, "info" | "signature"));
        assert_eq!((told, left_out), (expected.to_vec(), 0));
    }

    #[test]
    fn rows_are_bounded_and_the_rest_is_counted() {
        let files: Vec<String> = (0..25_000).map(|number| number.to_string()).collect();
        let (rows, left_out) = of(&json!({"behavior": {"summary": {"files": files}}}));
        assert_eq!((rows.len(), left_out), (ROWS_MAX + 1, 5000));
        assert_eq!(rows[0].result, "FAILED");
    }
}
