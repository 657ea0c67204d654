//! `azulite bench events`: how fast a dispatcher takes events in and hands them out over HTTP.
//!
//! Works against any server with the dispatcher's API. Each repetition registers a consumer, posts to a source of its own
//! for the time given, and reads everything back through that consumer: what was acknowledged and does not come back ends
//! the measurement. Topics that this makes are deleted again where the server can do that.

use std::io::{Read as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::args::BenchEvents;
use super::report::{Column, Report, Run, float, ms, percentile};
use super::server::{Server, usage};
use super::{BadRequest, Bounds, Case, Shown, asked};
use crate::client::{Client, Payload, RequestError, encoded};
use crate::dispatcher::model::{self, Event, Model};

const COLUMNS: [Column; 14] = [
    Column { title: "posted events/s", key: "post_events_s", digits: 0 },
    Column { title: "posts/s", key: "posts_s", digits: 0 },
    Column { title: "post p50 ms", key: "post_p50_ms", digits: 3 },
    Column { title: "post p99 ms", key: "post_p99_ms", digits: 3 },
    Column { title: "post p99.9 ms", key: "post_p99_9_ms", digits: 3 },
    Column { title: "read events/s", key: "get_events_s", digits: 0 },
    Column { title: "gets/s", key: "gets_s", digits: 0 },
    Column { title: "get p50 ms", key: "get_p50_ms", digits: 3 },
    Column { title: "get p99 ms", key: "get_p99_ms", digits: 3 },
    Column { title: "server CPU s/million posted", key: "post_cpu_s_per_million", digits: 2 },
    Column { title: "server CPU s/million read", key: "get_cpu_s_per_million", digits: 2 },
    Column { title: "server resident MiB", key: "server_rss_mib", digits: 0 },
    Column { title: "server resident MiB, most so far", key: "server_peak_rss_mib", digits: 0 },
    Column { title: "events", key: "events", digits: 0 },
];

/// Before posts count.
const RAMP: Duration = Duration::from_millis(300);
/// Bytes of events that one repetition posts, at most.
const MAX_BYTES: u64 = 2 << 30;
/// Bodies that each client sends in turn, at most, and their bytes.
const BODIES: usize = 16;
const BODY_BYTES: usize = 4 << 20;
/// An event without features has about this many bytes.
const MIN_SIZE: u64 = 1024;
const MAX_SIZE: u64 = 1 << 20;
/// Reading goes on for this long without an event before something is missing.
const SILENCE: Duration = Duration::from_secs(20);
/// What is asked for at once when the consumer is registered and when the last events are read.
const DEADLINE_S: u32 = 1;

/// Measures the dispatcher at `options.url`.
///
/// # Errors
/// A server that does not answer, refuses an event or loses one; options out of range.
pub fn run(options: &BenchEvents, shown: Shown, out: &mut impl Write) -> anyhow::Result<()> {
    let size = options.size;
    asked((MIN_SIZE..=MAX_SIZE).contains(&size), || {
        format!("--size {size}: a size from 1 KiB to 1 MiB can be measured")
    })?;
    let bounds = Bounds {
        warm_up: RAMP,
        measured: Duration::from_secs(options.seconds.into()),
        repetitions: options.repetitions.max(3),
        bytes: MAX_BYTES,
    };
    let client = Client::new(&options.url).map_err(|bad| BadRequest(bad.0))?;
    let address = options.url.trim_end_matches('/').trim_start_matches("http://");
    let server = Server::find(address, options.server_pid)?;
    let case = Case { size_bytes: u32::try_from(options.size)?, producers: options.clients };
    let mut report = Report::new("events", "clients", &COLUMNS, bounds, None);
    report.note("url", json!(options.url));
    report.note("server", server.as_ref().map_or(json!(null), |server| json!(server.name())));
    report.note("server_pid", server.as_ref().map_or(json!(null), |server| json!(server.pid())));
    report.note("format", json!(if options.avro { "avro" } else { "json" }));
    report.note("batch", json!(options.batch));
    report.note("count", json!(options.count));
    let mut run = Run::new(case);
    for repetition in 0..=bounds.repetitions {
        // The first round is not measured.
        let (bounds, mut warm_up) = match repetition {
            0 => (Bounds { measured: (bounds.measured / 2).max(Duration::from_secs(1)), ..bounds }, Run::new(case)),
            _ => (bounds, Run::new(case)),
        };
        if repetition > 0 {
            report.progress(shown, case, repetition);
        }
        let round = Round { options, client: &client, server: server.as_ref(), source: source(repetition) };
        round.run(bounds, if repetition == 0 { &mut warm_up } else { &mut run })?;
    }
    report.runs.push(run);
    report.print(shown.json, out)
}

/// A name no other measurement has.
pub(super) fn source(repetition: u32) -> String {
    let micros = azulite_storage::clock::now_ms();
    format!("azulite-bench-{micros}-{}-{repetition}", std::process::id())
}

/// One repetition.
struct Round<'a> {
    options: &'a BenchEvents,
    client: &'a Client,
    server: Option<&'a Server>,
    source: String,
}

/// What all clients together saw of one kind of request.
#[derive(Default)]
struct Seen {
    /// Events of all requests.
    all: u64,
    /// Events of the requests that count, and how long each of those took.
    counted: u64,
    latencies: Vec<Duration>,
    /// When the last request that counts was answered.
    last: Option<Instant>,
}

impl Seen {
    fn join(mut self, other: Self) -> Self {
        self.all += other.all;
        self.counted += other.counted;
        self.latencies.extend(other.latencies);
        self.last = self.last.max(other.last);
        self
    }
}

/// The answer to a POST.
#[derive(Deserialize)]
pub(super) struct Posted {
    total_ok: u64,
    pub(super) total_failures: u64,
}

impl Round<'_> {
    fn run(&self, bounds: Bounds, run: &mut Run) -> anyhow::Result<()> {
        let measured = self.begin().and_then(|()| self.measure(bounds, run));
        delete_topics(self.client, &self.source);
        measured
    }

    fn measure(&self, bounds: Bounds, run: &mut Run) -> anyhow::Result<()> {
        let before = usage(self.server)?;
        let from = Instant::now() + bounds.warm_up;
        let posted = self.post(from, bounds)?;
        let after = usage(self.server)?;
        let million = |events: u64| float(events) / 1e6;
        let [events_s, requests_s] = rates(&posted, from);
        run.add("post_events_s", events_s);
        run.add("posts_s", requests_s);
        for (key, permille) in [("post_p50_ms", 500), ("post_p99_ms", 990), ("post_p99_9_ms", 999)] {
            run.add(key, ms(percentile(&posted.latencies, permille)));
        }
        run.add_cpu("post_cpu_s_per_million", before, after, million(posted.all));

        let from = Instant::now();
        let read = self.read(posted.all)?;
        let end = usage(self.server)?;
        let [events_s, requests_s] = rates(&read, from);
        run.add("get_events_s", events_s);
        run.add("gets_s", requests_s);
        for (key, permille) in [("get_p50_ms", 500), ("get_p99_ms", 990)] {
            run.add(key, ms(percentile(&read.latencies, permille)));
        }
        run.add_cpu("get_cpu_s_per_million", after, end, million(read.all));
        if let Some(usage) = end {
            run.add("server_rss_mib", usage.resident_mib);
            run.add("server_peak_rss_mib", usage.peak_mib);
        }
        run.add("events", float(posted.all));
        Ok(())
    }

    /// Posts once, so that the topic is there, and registers the consumer, which begins behind that.
    fn begin(&self) -> anyhow::Result<()> {
        let sent = self.send(body(self.options, &self.source, u64::MAX)?.numbered(u64::MAX))?;
        ensure!(sent == u64::from(self.options.batch), "{sent} of {} events were taken in", self.options.batch);
        let (events, _) = self.get(1, &mut Vec::new())?;
        ensure!(events == 0, "a consumer of what comes from now on was handed an event from before");
        Ok(())
    }

    fn send(&self, body: &[u8]) -> anyhow::Result<u64> {
        let sync = if self.options.sync { "&sync=true" } else { "" };
        let (format, kind) = match self.options.avro {
            true => ("&avro-format=true", "application/avro"),
            false => ("", "application/json"),
        };
        let path = format!("/api/v2/event?model=binary{sync}{format}");
        let posted: Posted = self.client.post(&path, kind, &Payload::Bytes(body)).map_err(refused)?;
        ensure!(posted.total_failures == 0, "{} events were refused", posted.total_failures);
        Ok(posted.total_ok)
    }

    /// Posts from all clients until the time or the bytes are over.
    fn post(&self, from: Instant, bounds: Bounds) -> anyhow::Result<Seen> {
        let until = from + bounds.measured;
        let left = AtomicU64::new(bounds.bytes);
        let seen = self.clients(|client| {
            let (mut bodies, mut seen) = (self.bodies(client)?, Seen::default());
            for number in 0_u64.. {
                let next = usize::try_from(number)? % bodies.len().max(1);
                let Some(body) = bodies.get_mut(next) else { break };
                let body = body.numbered(u64::from(client) << 48 | number);
                let size = u64::try_from(body.len())?;
                let room = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(size));
                let begun = Instant::now();
                if room.is_err() || begun >= until {
                    break;
                }
                let events = self.send(body)?;
                let now = Instant::now();
                seen.all += events;
                if begun >= from && now <= until {
                    seen.counted += events;
                    seen.latencies.push(now - begun);
                    seen.last = Some(now);
                }
            }
            Ok(seen)
        })?;
        ensure!(!seen.latencies.is_empty(), "not one request was answered in {:?}", bounds.measured);
        Ok(seen)
    }

    fn bodies(&self, client: u16) -> anyhow::Result<Vec<Body>> {
        let mut bodies = Vec::new();
        let mut bytes = 0;
        for number in 0..BODIES {
            if bytes >= BODY_BYTES {
                break;
            }
            let body = body(self.options, &self.source, u64::from(client) << 16 | u64::try_from(number)?)?;
            bytes += body.bytes.len();
            bodies.push(body);
        }
        Ok(bodies)
    }

    /// Reads with all clients until `expected` events have come. Answers with as many events as asked for count.
    fn read(&self, expected: u64) -> anyhow::Result<Seen> {
        let left = AtomicU64::new(expected);
        let count = self.options.count;
        let seen = self.clients(|_| {
            let mut seen = Seen::default();
            let (mut last, mut body) = (Instant::now(), Vec::new());
            while left.load(Ordering::Relaxed) > 0 {
                let begun = Instant::now();
                let (events, now) = self.get(count, &mut body)?;
                if events > 0 {
                    last = now;
                    let some = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(events));
                    ensure!(some.is_ok(), "more events came back than were posted");
                }
                seen.all += events;
                if events == u64::from(count) {
                    seen.counted += events;
                    seen.latencies.push(now - begun);
                    seen.last = Some(now);
                }
                if last.elapsed() > SILENCE {
                    bail!("of {expected} acknowledged events {} have not come back", left.load(Ordering::Relaxed));
                }
            }
            Ok(seen)
        })?;
        Ok(seen)
    }

    /// One GET: how many events came, and when the last byte of them was there. The answer is put in place of `body`.
    fn get(&self, count: u16, body: &mut Vec<u8>) -> anyhow::Result<(u64, Instant)> {
        let format = if self.options.avro { "&avro-format=true" } else { "" };
        let source = encoded(&self.source);
        let path = format!(
            "/api/v2/event/binary/passive?name={source}&version=1&count={count}&deadline={DEADLINE_S}\
             &r-live=true&r-source={source}{format}"
        );
        body.clear();
        self.client.get(&path).map_err(refused)?.into_body().into_reader().read_to_end(body)?;
        Ok((fetched(body)?, Instant::now()))
    }

    /// Runs `work` once per client, on a thread of its own.
    fn clients(&self, work: impl Fn(u16) -> anyhow::Result<Seen> + Sync) -> anyhow::Result<Seen> {
        let work = &work;
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.options.clients).map(|client| scope.spawn(move || work(client))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))).collect()
        });
        let mut seen = outcomes.into_iter().try_fold(Seen::default(), |all, one| one.map(|one| all.join(one)))?;
        seen.latencies.sort_unstable();
        Ok(seen)
    }
}

/// Removes the topics of a source where there is a way to; another server keeps them.
pub(super) fn delete_topics(client: &Client, source: &str) {
    #[derive(Deserialize)]
    struct Topics {
        topics: Vec<Topic>,
    }
    #[derive(Deserialize)]
    struct Topic {
        name: String,
    }
    let Ok(Some(list)) = client.get_json::<Topics>("/api/azulite/v1/topics") else { return };
    let own = format!(".{source}.binary.");
    for topic in list.topics.iter().filter(|topic| topic.name.contains(&own)) {
        let path = format!("/api/azulite/v1/topics/{}", encoded(&topic.name));
        if let Err(error) = client.delete::<Value>(&path) {
            tracing::warn!(topic = topic.name, error = error.message(), "a topic of the measurement stays");
        }
    }
}

pub(super) fn refused(error: RequestError) -> anyhow::Error {
    anyhow!("{}", error.message())
}

/// Events and requests that count, per second.
fn rates(seen: &Seen, from: Instant) -> [f64; 2] {
    let took = seen.last.map_or(Duration::ZERO, |last| last.duration_since(from)).as_secs_f64().max(1e-9);
    let requests = u64::try_from(seen.latencies.len()).unwrap_or(u64::MAX);
    [seen.counted, requests].map(|number| float(number) / took)
}

/// What the info part of a multipart answer says was fetched.
fn fetched(body: &[u8]) -> anyhow::Result<u64> {
    #[derive(Deserialize)]
    struct Info {
        fetched: u64,
    }
    let after = |bytes: &[u8], mark: &[u8]| {
        let at = bytes.windows(mark.len()).position(|window| window == mark)?;
        bytes.get(at + mark.len()..).map(<[u8]>::to_vec)
    };
    let head = body.get(..body.len().min(4096)).unwrap_or_default();
    let info = after(head, b"\r\n\r\n").ok_or_else(|| anyhow!("an answer is not in two parts"))?;
    let info: Info = serde_json::Deserializer::from_slice(&info)
        .into_iter()
        .next()
        .ok_or_else(|| anyhow!("an answer has no info"))??;
    Ok(info.fetched)
}

/// Stands for the number of a request in its events.
const NUMBER: &str = "@@@@@@@@@@@@@@@@";

/// A body that is sent again and again, each time with events that have another key: where topics are compacted, of those
/// with one key only the latest would come back.
struct Body {
    bytes: Vec<u8>,
    /// Where the number stands.
    places: Vec<usize>,
}

impl Body {
    fn numbered(&mut self, number: u64) -> &[u8] {
        let number = format!("{number:016x}");
        for place in &self.places {
            let end = place.saturating_add(number.len());
            if let Some(here) = self.bytes.get_mut(*place..end) {
                here.copy_from_slice(number.as_bytes());
            }
        }
        &self.bytes
    }
}

/// A body of `batch` events of about `size` bytes of JSON each, different from those of every other number.
fn body(options: &BenchEvents, source: &str, number: u64) -> anyhow::Result<Body> {
    let size = usize::try_from(options.size)?;
    let events =
        (0..options.batch).map(|index| event(source, number, index, size)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut bytes = serde_json::to_vec(&events)?;
    if options.avro {
        let elements = model::decode_body_json(Model::Binary, &bytes)?;
        let events: Vec<Event> = elements.into_iter().map(|element| element.event).collect::<Result<_, _>>()?;
        bytes = model::encode_avro_bulk(Model::Binary, &events);
    }
    let places = memchr::memmem::find_iter(&bytes, NUMBER).collect();
    Ok(Body { bytes, places })
}

/// A sourced binary with as many features as its size asks for.
pub(super) fn event(source: &str, number: u64, index: u16, size: usize) -> anyhow::Result<Value> {
    // Spread over all hexadecimal digits.
    let word = |salt: u64| (number ^ u64::from(index) << 48 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let hash = |words: u64| (0..words).map(|salt| format!("{:016x}", word(salt + words))).collect::<String>();
    let sha256 = hash(4);
    let author = json!({"name": "azulite-bench", "version": "1", "category": "user"});
    let time = "2026-01-02T03:04:05Z";
    let mut event = json!({
        "model_version": 6, "kafka_key": "tmp", "timestamp": time, "author": author, "action": "sourced",
        "source": {"name": source, "references": {"user": "bench", "case": NUMBER}, "timestamp": time,
            "path": [{"author": author, "action": "sourced", "sha256": sha256, "timestamp": time,
                "file_format": "executable/windows/pe32", "size": 4096, "filename": "sample.bin"}]},
        "entity": {"sha256": sha256, "sha1": hash(2), "md5": hash(2), "size": 4096, "file_format": "executable/windows/pe32",
            "datastreams": [{"label": "content", "size": 4096, "sha512": hash(8), "sha256": sha256, "sha1": hash(2),
                "md5": hash(2), "mime": "application/x-dosexec", "magic": "PE32 executable (GUI) Intel 80386",
                "file_format": "executable/windows/pe32"}],
            "features": []},
    });
    let mut length = serde_json::to_vec(&event)?.len();
    let mut features = Vec::new();
    while length < size {
        let feature = json!({"name": "bench_feature", "type": "string", "value": format!("{:016x}", word(u64::try_from(length)?))});
        length += serde_json::to_vec(&feature)?.len() + 1;
        features.push(feature);
    }
    if let Some(place) = event.pointer_mut("/entity/features") {
        *place = Value::Array(features);
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(batch: u16, avro: bool) -> BenchEvents {
        BenchEvents {
            url: "http://127.0.0.1:1".to_owned(),
            batch,
            clients: 1,
            count: 100,
            size: 2048,
            avro,
            sync: false,
            seconds: 1,
            repetitions: 3,
            server_pid: None,
        }
    }

    #[test]
    fn events_are_valid_different_and_as_long_as_asked_for() {
        let mut body = body(&options(3, false), "bench-1", 1).unwrap();
        assert!((3 * 2048..3 * 2300).contains(&body.bytes.len()), "{}", body.bytes.len());
        let mut keys = std::collections::BTreeSet::new();
        for number in [1, 2, u64::MAX] {
            let elements = model::decode_body_json(Model::Binary, body.numbered(number)).unwrap();
            keys.extend(elements.into_iter().map(|e| model::kafka_key(&e.event.unwrap(), [0; 32]).unwrap()));
        }
        assert_eq!(keys.len(), 9);
        let mut avro = super::body(&options(3, true), "bench-1", 1).unwrap();
        assert_eq!(avro.places.len(), 3);
        assert_eq!(model::decode_body_avro(Model::Binary, avro.numbered(7)).unwrap().len(), 3);
    }

    #[test]
    fn the_count_is_read_from_the_info_part() {
        let answer = b"--B\r\nContent-Disposition: form-data\r\n\r\n{\"filtered\":0,\"fetched\":42}\r\n--B\r\n\r\n{}";
        assert_eq!(fetched(answer).unwrap(), 42);
        for bad in [&b""[..], b"no parts", b"x\r\n\r\n{\"a\":1}"] {
            assert!(fetched(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_size_out_of_range_is_refused_before_anything_is_sent() {
        let options = BenchEvents { size: 10, ..options(1, false) };
        let said = run(&options, Shown { json: true, progress: false }, &mut Vec::new()).unwrap_err().to_string();
        assert!(said.contains("10"), "{said}");
    }
}
