//! Picks what becomes a feature out of a report, of Cuckoo 1, Cuckoo 2 and CAPE (workers.md 3.2 to 3.4).
//!
//! Everything that is held has a bound: reports may have a million of anything. A member of a type that does not fit is as
//! good as absent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::super::options::{Kind, Parser};
use super::Reading;
use super::kept::first_chars;
use super::scan::{Scalar, Sink, Step};

/// Processes in the info block.
const PROCESSES_MAX: usize = 500;
/// Characters of a text in the info block.
const INFO_TEXT_MAX: usize = 300;
/// Techniques of one signature.
const TECHNIQUES_MAX: usize = 100;
const LOG_MAX_BYTES: usize = 4 << 20;
/// Addresses, and ports of one address, that are looked at together.
const HOSTS_MAX: usize = 2000;
const PORTS_MAX: usize = 64;
const RESOLVED_MAX: usize = 10_000;

/// Fields of the element of a list that is being read, by the path below the element.
type Fields = BTreeMap<String, String>;

/// Takes a report in; see [`super::read`].
pub(crate) struct Collector {
    kind: Kind,
    parsers: BTreeSet<Parser>,
    calls_max: u64,
    reading: Reading,
    element: Fields,
    techniques: BTreeSet<String>,
    processes: Vec<Value>,
    processes_seen: u64,
    machine: String,
    resolved: BTreeSet<String>,
    hosts: BTreeMap<String, BTreeSet<String>>,
    hosts_left_out: u64,
}

impl Collector {
    /// A reader for some parsers, which lets `calls_max` API calls into the copy.
    pub(crate) fn new(kind: Kind, parsers: &[Parser], calls_max: u64) -> Self {
        Self {
            kind,
            parsers: parsers.iter().copied().collect(),
            calls_max,
            reading: Reading::default(),
            element: Fields::new(),
            techniques: BTreeSet::new(),
            processes: Vec::new(),
            processes_seen: 0,
            machine: String::new(),
            resolved: BTreeSet::new(),
            hosts: BTreeMap::new(),
            hosts_left_out: 0,
        }
    }

    /// What was found.
    pub(super) fn finish(mut self) -> Reading {
        self.finish_info();
        self.finish_behavior();
        self.finish_network();
        self.reading
    }

    fn wants(&self, parser: Parser) -> bool {
        self.parsers.contains(&parser)
    }

    fn add(&mut self, feature: &str, value: &str, label: &str) {
        self.reading.findings.add(feature, 0, value, label);
    }

    fn finish_info(&mut self) {
        if !self.wants(Parser::Info) {
            return;
        }
        let machine = if self.machine.is_empty() { "FAILED" } else { &self.machine };
        self.reading.findings.sandbox.insert("machine".to_owned(), json!(machine));
        if self.kind == Kind::Cape && !self.machine.is_empty() {
            self.reading.findings.info.insert("CAPE_machine".to_owned(), json!(self.machine));
        }
    }

    fn info(&mut self, path: &[&str], text: &str) {
        match path {
            ["started" | "ended"] => {
                let name = path.first().copied().unwrap_or_default();
                self.reading.findings.sandbox.insert(name.to_owned(), json!(first_chars(text, INFO_TEXT_MAX).0));
            }
            ["machine"] | ["machine", "name"] => self.machine = first_chars(text, INFO_TEXT_MAX).0,
            _ => {}
        }
    }

    fn finish_behavior(&mut self) {
        if !self.processes.is_empty() {
            let tree = std::mem::take(&mut self.processes);
            self.reading.findings.info.insert("process_tree".to_owned(), Value::Array(tree));
            if self.processes_seen > u64::try_from(PROCESSES_MAX).unwrap_or(u64::MAX) {
                let text =
                    format!("behavior: the first {PROCESSES_MAX} of {} processes are listed", self.processes_seen);
                self.reading.findings.errors.push(text);
            }
        }
        let (calls, left_out) = (self.reading.calls, self.reading.calls_left_out);
        if left_out > 0 {
            let text = format!("behavior: {left_out} of {calls} API calls are not in the report stream");
            self.reading.findings.notes.push(text);
        }
        let features = &mut self.reading.findings.features;
        for (general, special) in [
            ("file_accessed", ["file_read", "file_written", "file_deleted"]),
            ("registry_key", ["registry_read", "registry_key_set", "registry_key_deleted"]),
        ] {
            if let Some(mut kept) = features.remove(general) {
                special.iter().filter_map(|name| features.get(*name)).for_each(|known| kept.subtract(known));
                features.insert(general.to_owned(), kept);
            }
        }
    }

    fn summary(&mut self, list: &str, text: &str) {
        let feature = match list {
            "file_read" | "read_files" => "file_read",
            "file_written" | "file_created" | "file_recreated" | "write_files" => "file_written",
            "file_deleted" | "delete_files" => "file_deleted",
            "files" | "file_opened" => "file_accessed",
            "regkey_read" | "read_keys" => "registry_read",
            "regkey_written" | "write_keys" => "registry_key_set",
            "regkey_deleted" | "delete_keys" => "registry_key_deleted",
            "keys" | "regkey_opened" => "registry_key",
            "mutex" | "mutexes" => "mutex",
            "command_line" | "executed_commands" => "command_executed",
            _ => return,
        };
        self.add(feature, text, "");
    }

    fn process(&mut self) {
        let fields = std::mem::take(&mut self.element);
        let field = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)).map(String::as_str);
        let name = field(&["process_name"]).unwrap_or_default();
        let command = field(&["command_line", "environ.CommandLine"]).filter(|text| !text.trim().is_empty());
        self.add("command_executed", command.unwrap_or(name), "");
        self.processes_seen += 1;
        if self.processes.len() < PROCESSES_MAX {
            let mut node = Map::new();
            let members = [
                ("name", Some(name)),
                ("process_id", field(&["process_id", "pid"])),
                ("parent_id", field(&["parent_id", "ppid"])),
                ("first_seen", field(&["first_seen"])),
            ];
            for (member, text) in members {
                if let Some(text) = text {
                    node.insert(member.to_owned(), json!(first_chars(text, INFO_TEXT_MAX).0));
                }
            }
            self.processes.push(Value::Object(node));
        }
    }

    fn signature(&mut self) {
        let fields = std::mem::take(&mut self.element);
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let severity = field("severity");
        let mut marks = Vec::new();
        for (name, shown) in [("severity", "Severity"), ("confidence", "Confidence")] {
            if !field(name).is_empty() {
                marks.push(format!("{shown}: {}", first_chars(field(name), 20).0));
            }
        }
        let description = first_chars(field("description"), 900).0;
        let label = if marks.is_empty() { description } else { format!("{description} ({})", marks.join(" ")) };
        // Highest severity first; what is no number comes last.
        let rank = severity.split('.').next().and_then(|text| text.parse::<i64>().ok()).map_or(0, i64::saturating_neg);
        self.reading.findings.add("behaviour_signature", rank, field("name"), label.trim());
        for technique in std::mem::take(&mut self.techniques) {
            self.add("attack", &technique, field("name"));
        }
    }

    /// An element of CAPE's list of techniques.
    fn technique_list(&mut self) {
        let fields = std::mem::take(&mut self.element);
        let signature = fields.get("signature").map(String::as_str).unwrap_or_default();
        if let Some(technique) = fields.get("ttp") {
            self.technique(technique);
        }
        for technique in std::mem::take(&mut self.techniques) {
            self.add("attack", &technique, signature);
        }
    }

    fn technique(&mut self, text: &str) {
        if self.techniques.len() < TECHNIQUES_MAX && text.len() <= 64 {
            self.techniques.insert(text.to_owned());
        }
    }

    fn field(&mut self, name: String, text: &str) {
        if self.element.len() < 64 {
            self.element.insert(name, first_chars(text, 4001).0);
        }
    }

    fn network(&mut self, path: &[&str], text: &str) {
        match path {
            ["hosts", "[]"] => self.host(text, ""),
            ["domains", "[]", "domain"] | ["dns", "[]", "request"] => self.add("domain", text, "DNS lookup"),
            ["dns", "[]", "answers", "[]", name @ ("data" | "type")] => self.field((*name).to_owned(), text),
            ["hosts" | "tcp" | "udp" | "http" | "http_ex" | "https_ex", "[]", name] => {
                self.field((*name).to_owned(), text)
            }
            _ => {}
        }
    }

    fn network_closed(&mut self, path: &[&str]) {
        let is_element = matches!(path, [_, "[]"] | ["dns", "[]", "answers", "[]"]);
        if !is_element {
            return;
        }
        let fields = std::mem::take(&mut self.element);
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        match path {
            ["hosts", "[]"] => self.host(field("ip"), ""),
            ["dns", "[]", "answers", "[]"]
                if matches!(field("type"), "A" | "AAAA") && self.resolved.len() < RESOLVED_MAX =>
            {
                self.resolved.insert(field("data").to_owned());
            }
            [protocol @ ("tcp" | "udp"), "[]"] => {
                let port = field("dport");
                if port.parse::<u16>().is_ok() {
                    self.add("contacted_port", port, protocol);
                    self.host(field("dst"), &format!("{protocol}:{port}"));
                }
            }
            ["http", "[]"] => {
                let (method, count, agent) = (field("method"), field("count"), field("user-agent"));
                let label = if method.is_empty() {
                    String::new()
                } else {
                    format!("{method}, count={count}, user-agent={agent}")
                };
                self.add("contacted_url", field("uri"), &label);
            }
            ["http_ex" | "https_ex", "[]"] => {
                let uri = field("uri");
                let whole = if uri.contains("://") || field("host").is_empty() {
                    uri.to_owned()
                } else {
                    format!("{}://{}{uri}", field("protocol"), field("host"))
                };
                self.add("contacted_url", &whole, field("method"));
            }
            _ => {}
        }
    }

    fn host(&mut self, address: &str, port: &str) {
        if address.is_empty() || address.len() > 255 {
            return;
        }
        if !self.hosts.contains_key(address) && self.hosts.len() >= HOSTS_MAX {
            self.hosts_left_out += 1;
            return;
        }
        let ports = self.hosts.entry(address.to_owned()).or_default();
        if !port.is_empty() && ports.len() < PORTS_MAX {
            ports.insert(port.to_owned());
        }
    }

    /// Addresses that came out of a lookup are not talked to on their own account.
    fn finish_network(&mut self) {
        for (address, ports) in std::mem::take(&mut self.hosts) {
            if !self.resolved.contains(&address) {
                self.add("contacted_host", &address, &ports.into_iter().collect::<Vec<_>>().join(" "));
                if address.parse::<std::net::IpAddr>().is_ok() {
                    self.add("ip_address", &address, "");
                }
            }
        }
        if self.hosts_left_out > 0 {
            let text = format!("network: more than {HOSTS_MAX} hosts, {} connections to others", self.hosts_left_out);
            self.reading.findings.errors.push(text);
        }
    }

    fn log(&mut self, text: &str) {
        let log = &mut self.reading.log;
        if log.len() + text.len() < LOG_MAX_BYTES {
            log.push_str(text);
            if !text.ends_with('\n') {
                log.push('\n');
            }
        }
    }
}

/// The names on a path; none when it is longer than anything that is looked at.
fn names(path: &[Step]) -> Vec<&str> {
    if path.len() > 6 { Vec::new() } else { path.iter().map(Step::name).collect() }
}

impl Sink for Collector {
    fn leaves_out(&mut self, path: &[Step]) -> bool {
        if path.len() != 5 || names(path) != ["behavior", "processes", "[]", "calls", "[]"] {
            return false;
        }
        self.reading.calls += 1;
        let leaves_out = self.reading.calls > self.calls_max;
        self.reading.calls_left_out += u64::from(leaves_out);
        leaves_out
    }

    fn scalar(&mut self, path: &[Step], value: Scalar<'_>) {
        let text = match value {
            Scalar::Text(text) | Scalar::Number(text) => text,
            Scalar::Bool(_) | Scalar::Null => return,
        };
        let names = names(path);
        match names.as_slice() {
            ["info", rest @ ..] if self.wants(Parser::Info) => self.info(rest, text),
            ["malscore"] if self.wants(Parser::Info) && self.kind == Kind::Cape => self.add("cape_malscore", text, ""),
            ["signatures", "[]", "ttp" | "ttps", "[]"] if self.wants(Parser::Signatures) => self.technique(text),
            ["signatures", "[]", "ttp", technique, ..] if self.wants(Parser::Signatures) => self.technique(technique),
            ["signatures", "[]", name] | ["ttps", "[]", name] if self.wants(Parser::Signatures) => {
                self.field((*name).to_owned(), text);
            }
            ["ttps", "[]", "ttps", "[]"] if self.wants(Parser::Signatures) => self.technique(text),
            ["behavior", "processes", "[]", name] if self.wants(Parser::Behavior) => {
                self.field((*name).to_owned(), text)
            }
            ["behavior", "processes", "[]", "environ", "CommandLine"] if self.wants(Parser::Behavior) => {
                self.field("environ.CommandLine".to_owned(), text);
            }
            ["behavior", "summary", list, "[]"] if self.wants(Parser::Behavior) => self.summary(list, text),
            ["network", rest @ ..] if self.wants(Parser::Network) => self.network(rest, text),
            ["debug", "log"] | ["debug", "log", "[]"] => self.log(text),
            _ => {}
        }
    }

    fn closed(&mut self, path: &[Step]) {
        let names = names(path);
        match names.as_slice() {
            ["signatures", "[]"] if self.wants(Parser::Signatures) => self.signature(),
            ["ttps", "[]"] if self.wants(Parser::Signatures) => self.technique_list(),
            ["behavior", "processes", "[]"] if self.wants(Parser::Behavior) => self.process(),
            ["network", rest @ ..] if self.wants(Parser::Network) => self.network_closed(rest),
            _ => {}
        }
    }
}
