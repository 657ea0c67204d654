//! `azulite produce`: writes records to one topic by hand.

use std::fs;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};

use memchr::memmem;

use super::args::{Global, Produce};
use super::exit::Exit;
use super::output::{self, Refusal};
use super::target::{Opened, Target};
use super::topics::no_such_api;
use crate::admin::records::{AppendRecordsError, Data, HeaderLine, NewRecord, Produced};
use crate::broker::AppendError;
use crate::client::{Client, Payload, RequestError, encoded};
use crate::config::Config;

/// Bytes of records sent at once, about.
const CHUNK_BYTES: usize = 1 << 20;
/// Records sent at once, at most.
const CHUNK_RECORDS: usize = 10_000;
/// The longest record that is read.
const RECORD_BYTES: u64 = 64 << 20;

/// Writes what standard input or files hold, and says how many records that were.
pub(super) fn run(global: &Global, config: &Config, args: &Produce) -> Exit {
    output::finish(produce(global, config, args))
}

fn produce(global: &Global, config: &Config, args: &Produce) -> Result<Exit, Refusal> {
    let mut writer = Writer::new(Target::for_writing(config, None)?, args)?;
    let written = match args.file.as_slice() {
        [] => lines(&mut BufReader::with_capacity(CHUNK_BYTES, io::stdin().lock()), args, &mut writer),
        files => files.iter().try_for_each(|path| {
            let file = fs::File::open(path).map_err(|error| Refusal::failed(format!("{}: {error}", path.display())))?;
            let value = read_whole(file).map_err(|reason| Refusal::failed(format!("{}: {reason}", path.display())))?;
            writer.add(record(args, None, value))
        }),
    };
    let written = written.and_then(|()| writer.send());
    let Produced { topic, records, created, .. } = &writer.produced;
    if *created {
        output::complain(&format!("topic {topic} did not exist and was created"));
    }
    if let Err(refusal) = written {
        output::complain(&format!("{records} records were written before this failed"));
        return Err(refusal);
    }
    let out = &mut output::stdout();
    if global.json {
        output::print_json(out, &writer.produced)?;
    } else {
        writeln!(out, "{records} records written to {topic}")?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

fn read_whole(file: fs::File) -> Result<Vec<u8>, String> {
    let mut value = Vec::new();
    file.take(RECORD_BYTES + 1).read_to_end(&mut value).map_err(|error| error.to_string())?;
    if u64::try_from(value.len()).is_ok_and(|length| length > RECORD_BYTES) {
        return Err(format!("a record has at most {RECORD_BYTES} bytes"));
    }
    Ok(value)
}

/// One record for each piece of `input` between delimiters; what can be read without waiting goes together.
fn lines(input: &mut BufReader<impl io::Read>, args: &Produce, writer: &mut Writer<'_>) -> Result<(), Refusal> {
    let mut number = 0_u64;
    while let Some(line) = next_line(input, &args.delimiter).map_err(|reason| at(number + 1, &reason))? {
        number += 1;
        let (key, value) = match &args.key_separator {
            None => (None, line),
            Some(separator) => {
                let place = memmem::find(&line, separator);
                let place = place.ok_or_else(|| at(number, "it has no key: the separator is not in it"))?;
                let value = line.get(place + separator.len()..).unwrap_or_default().to_vec();
                (Some(line.get(..place).unwrap_or_default().to_vec()), value)
            }
        };
        writer.add(record(args, key, value))?;
        if input.buffer().is_empty() {
            writer.send()?;
        }
    }
    Ok(())
}

fn at(number: u64, reason: &str) -> Refusal {
    Refusal::failed(format!("line {number} of standard input: {reason}"))
}

/// The bytes up to the next delimiter, without it; `None` at the end. An empty delimiter is in nothing.
fn next_line(input: &mut impl BufRead, delimiter: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    loop {
        let left = RECORD_BYTES.saturating_sub(u64::try_from(line.len()).unwrap_or(u64::MAX));
        let mut some = input.take(left + 1);
        let read = match delimiter.last() {
            Some(last) => some.read_until(*last, &mut line),
            None => some.read_to_end(&mut line),
        };
        let read = read.map_err(|error| error.to_string())?;
        if u64::try_from(line.len()).is_ok_and(|length| length > RECORD_BYTES) {
            return Err(format!("a record has at most {RECORD_BYTES} bytes"));
        }
        if !delimiter.is_empty() && line.ends_with(delimiter) {
            line.truncate(line.len() - delimiter.len());
            return Ok(Some(line));
        }
        if read == 0 {
            return Ok((!line.is_empty()).then_some(line));
        }
    }
}

fn record(args: &Produce, key: Option<Vec<u8>>, value: Vec<u8>) -> NewRecord {
    let key = key.or_else(|| args.key.clone().map(String::into_bytes));
    let data = |bytes: Vec<u8>| (!(args.null && bytes.is_empty())).then(|| Data::of(bytes));
    let header = |(name, value): &(String, String)| HeaderLine {
        name: Data::Text(name.clone()),
        value: Some(Data::Text(value.clone())),
    };
    NewRecord {
        partition: args.partition,
        timestamp_ms: None,
        key: key.and_then(data),
        value: data(value),
        headers: args.header.iter().map(header).collect(),
    }
}

/// Gathers records and sends them; each sending is durable before the next.
struct Writer<'a> {
    target: Target,
    /// For a store of our own.
    runtime: tokio::runtime::Runtime,
    topic: &'a str,
    chunk: Vec<NewRecord>,
    bytes: usize,
    produced: Produced,
}

impl<'a> Writer<'a> {
    fn new(target: Target, args: &'a Produce) -> Result<Self, Refusal> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let topic = args.topic.as_str();
        let produced = Produced { topic: topic.to_owned(), ..Produced::default() };
        Ok(Self { target, runtime, topic, chunk: Vec::new(), bytes: 0, produced })
    }

    fn add(&mut self, record: NewRecord) -> Result<(), Refusal> {
        let length = |data: &Option<Data>| match data {
            Some(Data::Text(text) | Data::Binary { base64: text }) => text.len(),
            None => 0,
        };
        self.bytes += length(&record.key) + length(&record.value) + 64;
        self.chunk.push(record);
        if self.bytes >= CHUNK_BYTES || self.chunk.len() >= CHUNK_RECORDS { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Refusal> {
        self.bytes = 0;
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.is_empty() {
            return Ok(());
        }
        let produced = match &self.target {
            Target::Server(client) => to_server(client, self.topic, &chunk)?,
            Target::Store(opened) => to_store(opened, &self.runtime, self.topic, chunk)?,
        };
        self.produced.add(produced);
        Ok(())
    }
}

fn to_server(client: &Client, topic: &str, chunk: &[NewRecord]) -> Result<Produced, Refusal> {
    let mut body = Vec::new();
    for record in chunk {
        crate::admin::write_line(&mut body, record)?;
    }
    let path = format!("/api/azulite/v1/topics/{}/records", encoded(topic));
    client.post(&path, "application/x-ndjson", &Payload::Bytes(&body)).map_err(|error| match error {
        RequestError::NotOk(answer) if answer.is_no_such_page() => no_such_api(),
        error @ (RequestError::NotOk(_) | RequestError::Transport(_)) => error.into(),
    })
}

fn to_store(
    opened: &Opened,
    runtime: &tokio::runtime::Runtime,
    topic: &str,
    chunk: Vec<NewRecord>,
) -> Result<Produced, Refusal> {
    let prepared = opened.admin.prepare_records(topic, chunk).map_err(|error| refused(opened, &error))?;
    let appended = runtime.block_on(opened.admin.append_records(prepared));
    appended.map_err(|error: AppendError| refused(opened, &error.into()))
}

fn refused(opened: &Opened, error: &AppendRecordsError) -> Refusal {
    match opened.fatal() {
        Some(reason) => Refusal::new(Exit::Stopped, format!("the store has stopped itself: {reason}")),
        None => Refusal::failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(input: &[u8], delimiter: &[u8]) -> Vec<Vec<u8>> {
        let mut input = BufReader::with_capacity(3, input);
        std::iter::from_fn(|| next_line(&mut input, delimiter).unwrap()).collect()
    }

    #[test]
    fn records_end_at_the_delimiter_or_the_end() {
        assert_eq!(split(b"a\n\nb", b"\n"), [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
        assert_eq!(split(b"a\nb;\nc;\n", b";\n"), [b"a\nb".to_vec(), b"c".to_vec()]);
        assert_eq!(split(b"a\nb\n", b""), [b"a\nb\n".to_vec()]);
        assert_eq!(split(b"a\0b\0", b"\0"), [b"a".to_vec(), b"b".to_vec()]);
        assert!(split(b"", b"\n").is_empty());
    }
}
