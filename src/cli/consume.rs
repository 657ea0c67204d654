//! `azulite consume`: reads one topic by hand.
//!
//! Pages are fetched on a thread of their own, so that a signal ends the command whatever it waits for.

use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::args::{Consume, Global};
use super::exit::Exit;
use super::interrupt::Interrupt;
use super::output::{self, Refusal};
use super::target::{Opened, Target};
use super::topics::no_such_api;
use crate::admin::records::{Data, Found, Page, RecordLine, Span, Start, Value};
use crate::admin::{DamagedRange, Flow, write_line};
use crate::client::{Client, RequestError, encoded};
use crate::config::Config;

/// Bytes of records asked for at once, about.
const PAGE_BYTES: usize = 4 << 20;
/// Records between the thread that reads and the one that prints.
const IN_FLIGHT: usize = 64;
/// How long a server is asked to wait for the next record.
const WAIT_SECONDS: u32 = 3;
/// How soon a signal is noticed.
const LOOK: Duration = Duration::from_millis(100);

/// Prints the records of a topic.
pub(super) fn run(global: &Global, config: &Config, args: &Consume) -> Exit {
    output::finish(consume(global, config, args))
}

fn consume(global: &Global, config: &Config, args: &Consume) -> Result<Exit, Refusal> {
    if global.json && args.raw {
        return Err(Refusal::usage("--raw and --json contradict each other"));
    }
    let interrupt = Interrupt::listen()?;
    let target = Target::for_reading(config)?;
    if args.follow && matches!(target, Target::Store(_)) {
        let message = "--follow needs a running server: while this command holds the store nothing can be added to it";
        return Err(Refusal::failed(message));
    }
    let on_store = matches!(target, Target::Store(_));
    let pages = Pages::new(target, args);
    let (sender, found) = sync_channel(IN_FLIGHT);
    let reading = std::thread::spawn(move || pages.read(&sender));
    let mut printer = Printer::new(output::stdout(), global.json, args);
    let printed = take(&found, &interrupt, &mut printer);
    drop(found);
    if on_store && reading.join().is_err() {
        return Err(Refusal::failed("the reading thread stopped"));
    }
    printer.out.flush()?;
    printed?;
    Ok(printer.finish())
}

/// What the reading thread hands over.
type Handed = Result<Found, Refusal>;

/// Prints until nothing comes any more, or the process is asked to stop.
fn take(found: &Receiver<Handed>, interrupt: &Interrupt, printer: &mut Printer<impl Write>) -> Result<(), Refusal> {
    while !interrupt.asked() {
        match found.recv_timeout(LOOK) {
            Ok(found) => printer.take(found?)?,
            Err(RecvTimeoutError::Timeout) => printer.out.flush()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

/// Page after page of a topic.
struct Pages {
    target: Target,
    topic: String,
    start: Start,
    records: u64,
    decode: bool,
    follow: bool,
}

impl Pages {
    fn new(target: Target, args: &Consume) -> Self {
        let start = Start::At { from: args.from, partition: args.partition };
        let records = args.count.unwrap_or(u64::MAX);
        Self { target, topic: args.topic.clone(), start, records, decode: !args.raw, follow: args.follow }
    }

    /// Reads to the end as it was at the beginning; on and on when it follows.
    fn read(mut self, sender: &SyncSender<Handed>) {
        let mut wait = 0;
        while self.records > 0 {
            let page = Page { max_records: self.records, max_bytes: PAGE_BYTES, decode: self.decode };
            let mut end = None;
            let mut taken = 0;
            let mut take = |found| match found {
                Found::End { end: spans } => {
                    end = Some(spans);
                    Flow::Continue(())
                }
                found @ (Found::Record(_) | Found::Damage { .. } | Found::Odd { .. }) => {
                    taken += u64::from(matches!(found, Found::Record(_)));
                    if sender.send(Ok(found)).is_ok() { Flow::Continue(()) } else { Flow::Break(()) }
                }
            };
            let read = match &self.target {
                Target::Server(client) => from_server(client, &self.topic, &self.start, page, wait, &mut take),
                Target::Store(opened) => from_store(opened, &self.topic, &self.start, page, &mut take),
            };
            let broken = || Refusal::failed("the server broke off in the middle of its answer");
            let spans = match read.and_then(|()| end.ok_or_else(broken)) {
                Ok(spans) => spans,
                Err(refusal) => {
                    // Nobody listens any more when this fails.
                    sender.send(Err(refusal)).ok();
                    return;
                }
            };
            self.records = self.records.saturating_sub(taken);
            let done = spans.iter().all(|span| span.next >= span.end);
            if done && !self.follow {
                return;
            }
            wait = if done { WAIT_SECONDS } else { 0 };
            self.start = self.after(spans);
        }
    }

    /// Where the next page begins. Who follows has another partition come first each time, so that none waits for ever.
    fn after(&self, mut spans: Vec<Span>) -> Start {
        if self.follow && !spans.is_empty() {
            spans.rotate_left(1);
        }
        let end = |span: &Span| (!self.follow).then_some(span.end);
        Start::Positions(spans.iter().map(|span| (span.partition, span.next, end(span))).collect())
    }
}

fn from_store(
    opened: &Opened,
    topic: &str,
    start: &Start,
    page: Page,
    take: &mut dyn FnMut(Found) -> Flow,
) -> Result<(), Refusal> {
    let (topic, spans) = opened.admin.spans(topic, start).map_err(|error| Refusal::failed(error.to_string()))?;
    let read = opened.admin.read_records(&topic, spans, page, take);
    read.map_err(|error| Refusal::failed(format!("the log cannot be read: {error}")))
}

fn from_server(
    client: &Client,
    topic: &str,
    start: &Start,
    page: Page,
    wait: u32,
    take: &mut dyn FnMut(Found) -> Flow,
) -> Result<(), Refusal> {
    let Page { max_records, max_bytes, decode } = page;
    let path = format!(
        "/api/azulite/v1/topics/{}/records?{start}&count={max_records}&bytes={max_bytes}&events={decode}&wait={wait}",
        encoded(topic)
    );
    client.lines(&path, |found| take(found).is_continue()).map_err(|error| match error {
        RequestError::NotOk(answer) if answer.is_no_such_page() => no_such_api(),
        error @ (RequestError::NotOk(_) | RequestError::Transport(_)) => error.into(),
    })
}

/// Prints records: values, or everything about them as JSON, one a line.
struct Printer<'a, W> {
    out: W,
    json: bool,
    /// Control characters are made visible.
    terminal: bool,
    args: &'a Consume,
    lossy: u64,
    failed: bool,
}

impl<'a, W: Write> Printer<'a, W> {
    fn new(out: W, json: bool, args: &'a Consume) -> Self {
        let terminal = !args.raw && io::stdout().is_terminal();
        Self { out, json, terminal, args, lossy: 0, failed: false }
    }

    fn take(&mut self, found: Found) -> Result<(), Refusal> {
        match found {
            Found::Record(record) if self.json => write_line(&mut self.out, &record)?,
            Found::Record(record) => self.print(*record)?,
            Found::Damage { damage } => self.complain(&damage, "are missing"),
            Found::Odd { odd } => self.complain(&odd, "no event"),
            Found::End { .. } => {}
        }
        Ok(())
    }

    fn complain(&mut self, range: &DamagedRange, what: &str) {
        let DamagedRange { topic, partition, from_offset, last_offset, reason } = range;
        output::complain(&format!("{topic}-{partition}: offsets {from_offset} to {last_offset}: {what}: {reason}"));
        self.failed = true;
    }

    fn print(&mut self, record: RecordLine) -> Result<(), Refusal> {
        if let Some(separator) = &self.args.key_separator {
            self.data(record.key)?;
            self.out.write_all(separator)?;
        }
        match record.value {
            Value::Value(data) => self.data(data)?,
            Value::Event(event) => self.out.write_all(event.get().as_bytes())?,
        }
        self.out.write_all(&self.args.delimiter)?;
        Ok(())
    }

    fn data(&mut self, data: Option<Data>) -> Result<(), Refusal> {
        let bytes = match data {
            // As the console consumer of Kafka prints it; as they are, there are no bytes.
            None if self.args.raw => return Ok(()),
            None => b"null".to_vec(),
            Some(data) => data.into_bytes().map_err(Refusal::failed)?,
        };
        if self.args.raw {
            self.out.write_all(&bytes)?;
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        self.lossy += u64::from(matches!(text, std::borrow::Cow::Owned(_)));
        let text = if self.terminal { output::printable(&text) } else { text };
        self.out.write_all(text.as_bytes())?;
        Ok(())
    }

    fn finish(self) -> Exit {
        if self.lossy > 0 {
            output::complain(&format!("{} keys or values are no text: --raw or --json shows them whole", self.lossy));
        }
        if self.failed { Exit::Failed } else { Exit::Done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::records::StartAt;

    fn args() -> Consume {
        Consume {
            topic: "t".to_owned(),
            from: StartAt::Earliest,
            count: None,
            follow: false,
            raw: false,
            partition: None,
            key_separator: None,
            delimiter: b"\n"[..].into(),
        }
    }

    fn record(key: Option<&[u8]>, value: Option<&[u8]>) -> Found {
        let data = |bytes: Option<&[u8]>| bytes.map(|bytes| Data::of(bytes.to_vec()));
        let (key, value) = (data(key), Value::Value(data(value)));
        let record = RecordLine { partition: 0, offset: 1, timestamp_ms: 2, key, value, headers: Vec::new() };
        Found::Record(Box::new(record))
    }

    fn printed(args: &Consume, json: bool, found: Vec<Found>) -> (Vec<u8>, Exit) {
        let mut out = Vec::new();
        let mut printer = Printer { out: &mut out, json, terminal: false, args, lossy: 0, failed: false };
        found.into_iter().for_each(|found| printer.take(found).unwrap());
        let exit = printer.finish();
        (out, exit)
    }

    #[test]
    fn keys_are_shown_when_they_are_asked_for() {
        let found = || vec![record(Some(b"k"), Some(b"v")), record(None, None)];
        assert_eq!(printed(&args(), false, found()).0, b"v\nnull\n");
        let args = Consume { key_separator: Some(b"="[..].into()), delimiter: b""[..].into(), ..args() };
        assert_eq!(printed(&args, false, found()).0, b"k=vnull=null");
    }

    #[test]
    fn raw_values_are_the_bytes() {
        let raw = Consume { raw: true, ..args() };
        let found = || vec![record(None, Some(b"\xff\x00")), record(None, None)];
        assert_eq!(printed(&raw, false, found()).0, b"\xff\x00\n\n");
        assert_eq!(printed(&args(), false, found()).0, "\u{fffd}\0\nnull\n".as_bytes());
    }

    #[test]
    fn json_has_everything_and_bytes_that_are_no_text_in_base64() {
        let (out, _) = printed(&args(), true, vec![record(Some(b"k"), Some(b"\xff"))]);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let want = serde_json::json!(
            {"partition": 0, "offset": 1, "timestamp_ms": 2, "key": "k", "value": {"base64": "/w=="}}
        );
        assert_eq!(line, want);
    }

    #[test]
    fn damage_makes_the_exit_code_one() {
        let damage = DamagedRange {
            topic: "t".to_owned(),
            partition: 0,
            from_offset: 1,
            last_offset: 2,
            reason: "gone".to_owned(),
        };
        assert_eq!(printed(&args(), false, vec![Found::Damage { damage }]), (Vec::new(), Exit::Failed));
    }
}
