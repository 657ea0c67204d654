//! `azulite events get`: everything the log holds about one entity.

use std::io::{self, Write};

use super::args::{EventsCommand, Global};
use super::exit::Exit;
use super::output::{self, Refusal};
use super::target::Target;
use crate::admin::{DamagedRange, Finding, Flow};
use crate::client::encoded;
use crate::config::Config;

/// Prints what `command` asks for.
pub(super) fn run(global: &Global, config: &Config, command: &EventsCommand) -> Exit {
    let EventsCommand::Get { sha256 } = command;
    output::finish(get(global.json, config, sha256))
}

fn get(json: bool, config: &Config, sha256: &str) -> Result<Exit, Refusal> {
    let mut printer = Printer::new(output::stdout(), json, sha256);
    match Target::for_reading(config)? {
        Target::Server(client) => {
            let path = format!("/api/azulite/v1/entities/{}/events", encoded(sha256));
            client.get_lines(&path, |finding: Finding| printer.take(finding).is_continue())?;
        }
        Target::Store(store) => {
            let scanned = store.admin.entity_events(sha256, &mut |finding| printer.take(finding));
            scanned.map_err(|error| Refusal::failed(format!("the log cannot be read: {error}")))?;
        }
    }
    let (events, damage) = printer.finish()?;
    for range in &damage {
        let DamagedRange { topic, partition, from_offset, last_offset, reason } = range;
        output::complain(&format!("{topic}-{partition}: offsets {from_offset} to {last_offset} are missing: {reason}"));
    }
    match (damage.is_empty(), events) {
        (false, _) => Ok(Exit::Damaged),
        (true, 0) => Err(Refusal::failed(format!("the log holds no event about {sha256}"))),
        (true, _) => Ok(Exit::Done),
    }
}

/// Prints events while they come: one per line, or all of them as one JSON object.
struct Printer<'a, W> {
    out: W,
    json: bool,
    sha256: &'a str,
    events: u64,
    damage: Vec<DamagedRange>,
    failed: io::Result<()>,
}

impl<'a, W: Write> Printer<'a, W> {
    fn new(out: W, json: bool, sha256: &'a str) -> Self {
        Self { out, json, sha256, events: 0, damage: Vec::new(), failed: Ok(()) }
    }

    fn take(&mut self, finding: Finding) -> Flow {
        match finding {
            Finding::Event(event) => {
                self.failed =
                    self.before_event().and_then(|()| serde_json::to_writer(&mut self.out, &event).map_err(Into::into));
                if !self.json && self.failed.is_ok() {
                    self.failed = writeln!(self.out);
                }
                self.events += 1;
            }
            Finding::Damage { damage } => self.damage.push(damage),
        }
        if self.failed.is_ok() { Flow::Continue(()) } else { Flow::Break(()) }
    }

    fn before_event(&mut self) -> io::Result<()> {
        match (self.json, self.events) {
            (false, _) => Ok(()),
            (true, 0) => writeln!(self.out, "{{\"sha256\":\"{}\",\"events\":[", self.sha256),
            (true, _) => writeln!(self.out, ","),
        }
    }

    fn finish(mut self) -> io::Result<(u64, Vec<DamagedRange>)> {
        self.failed?;
        if self.json && (self.events > 0 || !self.damage.is_empty()) {
            if self.events == 0 {
                write!(self.out, "{{\"sha256\":\"{}\",\"events\":[", self.sha256)?;
            }
            write!(self.out, "\n],\"damage\":")?;
            serde_json::to_writer(&mut self.out, &self.damage)?;
            writeln!(self.out, "}}")?;
        }
        self.out.flush()?;
        Ok((self.events, self.damage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::FoundEvent;
    use serde_json::value::RawValue;

    fn event(offset: i64) -> Finding {
        let event = RawValue::from_string("{\"a\":1}".to_owned()).unwrap();
        Finding::Event(FoundEvent { topic: "t".to_owned(), partition: 0, offset, event })
    }

    fn damage() -> Finding {
        let (topic, reason) = ("t".to_owned(), "gone".to_owned());
        Finding::Damage { damage: DamagedRange { topic, partition: 0, from_offset: 1, last_offset: 2, reason } }
    }

    fn printed(json: bool, findings: impl IntoIterator<Item = Finding>) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, json, "ab");
        findings.into_iter().for_each(|finding| assert!(printer.take(finding).is_continue()));
        printer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_one_event_each() {
        let line = |offset| format!("{{\"topic\":\"t\",\"partition\":0,\"offset\":{offset},\"event\":{{\"a\":1}}}}\n");
        assert_eq!(printed(false, [event(3), damage(), event(4)]), line(3) + &line(4));
    }

    #[test]
    fn json_is_one_value_with_or_without_damage() {
        for (findings, events, damaged) in
            [(vec![event(3), event(4)], 2, 0), (vec![damage()], 0, 1), (vec![event(1), damage()], 1, 1)]
        {
            let value: serde_json::Value = serde_json::from_str(&printed(true, findings)).unwrap();
            assert_eq!(value["events"].as_array().unwrap().len(), events, "{value}");
            assert_eq!(value["damage"].as_array().unwrap().len(), damaged, "{value}");
            assert_eq!(value["sha256"], "ab");
        }
        assert_eq!(printed(true, []), "");
    }
}
