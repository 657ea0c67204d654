//! `azulite bench leases`: how many jobs a dispatcher leases, hears of and closes over HTTP.
//!
//! Each repetition posts events to a source of its own, then clients take them on `binary/active`, send a heartbeat for
//! each answer and then a final status for each job, as plugins do. A job counts when its final status is acknowledged;
//! one that never comes ends the measurement. Topics that this makes are deleted again where the server can do that.

use std::io::{Read as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::args::BenchLeases;
use super::events::{Posted, delete_topics, event, refused, source};
use super::report::{Column, Report, Run, float, ms, percentile};
use super::server::{Server, usage};
use super::{BadRequest, Bounds, Case, Shown};
use crate::client::{Client, Payload, encoded};

const COLUMNS: [Column; 8] = [
    Column { title: "jobs/s", key: "jobs_s", digits: 0 },
    Column { title: "get p50 ms", key: "get_p50_ms", digits: 3 },
    Column { title: "heartbeat p50 ms", key: "heartbeat_p50_ms", digits: 3 },
    Column { title: "final p50 ms", key: "final_p50_ms", digits: 3 },
    Column { title: "final p99 ms", key: "final_p99_ms", digits: 3 },
    Column { title: "server CPU s/million jobs", key: "cpu_s_per_million", digits: 2 },
    Column { title: "server resident MiB", key: "server_rss_mib", digits: 0 },
    Column { title: "jobs", key: "jobs", digits: 0 },
];

/// Events of one POST.
const BATCH: u16 = 100;
/// Size of one event, about.
const EVENT_BYTES: usize = 2048;
/// Work goes on for this long without a job before something is missing.
const SILENCE: Duration = Duration::from_secs(20);
const NAME: &str = "azulite-bench";

/// Measures the dispatcher at `options.url`.
///
/// # Errors
/// A server that does not answer, refuses something or loses a job.
pub fn run(options: &BenchLeases, shown: Shown, out: &mut impl Write) -> anyhow::Result<()> {
    let bounds = Bounds { warm_up: Duration::ZERO, measured: SILENCE, repetitions: options.repetitions, bytes: 0 };
    let client = Client::new(&options.url).map_err(|bad| BadRequest(bad.0))?;
    let address = options.url.trim_end_matches('/').trim_start_matches("http://");
    let server = Server::find(address, options.server_pid)?;
    let case = Case { size_bytes: u32::try_from(EVENT_BYTES)?, producers: options.clients };
    let mut report = Report::new("leases", "clients", &COLUMNS, bounds, None);
    report.note("url", json!(options.url));
    report.note("count", json!(options.count));
    report.note("server", server.as_ref().map_or(json!(null), |server| json!(server.name())));
    let mut run = Run::new(case);
    for repetition in 0..=bounds.repetitions {
        // The first round is not measured.
        let mut warm_up = Run::new(case);
        if repetition > 0 {
            report.progress(shown, case, repetition);
        }
        let round = Round { options, client: &client, server: server.as_ref(), source: source(repetition) };
        let measured = round.run(if repetition == 0 { &mut warm_up } else { &mut run });
        delete_topics(&client, &round.source);
        measured?;
    }
    report.runs.push(run);
    report.print(shown.json, out)
}

/// One repetition.
struct Round<'a> {
    options: &'a BenchLeases,
    client: &'a Client,
    server: Option<&'a Server>,
    source: String,
}

/// How long each kind of request took.
#[derive(Default)]
struct Seen {
    gets: Vec<Duration>,
    heartbeats: Vec<Duration>,
    finals: Vec<Duration>,
}

impl Round<'_> {
    fn run(&self, run: &mut Run) -> anyhow::Result<()> {
        let jobs = u64::from(self.options.jobs).next_multiple_of(BATCH.into());
        for number in 0..jobs / u64::from(BATCH) {
            let events = (0..BATCH).map(|index| event(&self.source, number, index, EVENT_BYTES));
            self.post("binary", &Value::Array(events.collect::<anyhow::Result<_>>()?))?;
        }
        let before = usage(self.server)?;
        let (started, left) = (Instant::now(), AtomicU64::new(jobs));
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.options.clients).map(|_| scope.spawn(|| self.work(&left))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))).collect()
        });
        let took = started.elapsed();
        let after = usage(self.server)?;
        let mut seen = Seen::default();
        for one in outcomes {
            let one = one?;
            seen.gets.extend(one.gets);
            seen.heartbeats.extend(one.heartbeats);
            seen.finals.extend(one.finals);
        }
        run.add("jobs_s", float(jobs) / took.as_secs_f64().max(1e-9));
        for latencies in [&mut seen.gets, &mut seen.heartbeats, &mut seen.finals] {
            latencies.sort_unstable();
        }
        run.add("get_p50_ms", ms(percentile(&seen.gets, 500)));
        run.add("heartbeat_p50_ms", ms(percentile(&seen.heartbeats, 500)));
        run.add("final_p50_ms", ms(percentile(&seen.finals, 500)));
        run.add("final_p99_ms", ms(percentile(&seen.finals, 990)));
        run.add_cpu("cpu_s_per_million", before, after, float(jobs) / 1e6);
        if let Some(usage) = after {
            run.add("server_rss_mib", usage.resident_mib);
        }
        run.add("jobs", float(jobs));
        Ok(())
    }

    /// Takes jobs until none is left.
    fn work(&self, left: &AtomicU64) -> anyhow::Result<Seen> {
        let (mut seen, mut last) = (Seen::default(), Instant::now());
        while left.load(Ordering::Relaxed) > 0 {
            let begun = Instant::now();
            let tasks = self.get()?;
            if tasks.is_empty() {
                ensure!(last.elapsed() < SILENCE, "{} jobs have not come", left.load(Ordering::Relaxed));
                continue;
            }
            seen.gets.push(begun.elapsed());
            let heard = Instant::now();
            self.post("status", &statuses(&tasks, "heartbeat"))?;
            seen.heartbeats.push(heard.elapsed());
            let ended = Instant::now();
            self.post("status", &statuses(&tasks, "completed-empty"))?;
            seen.finals.push(ended.elapsed());
            let count = u64::try_from(tasks.len())?;
            let some = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count));
            ensure!(some.is_ok(), "more jobs came than were posted");
            last = Instant::now();
        }
        Ok(seen)
    }

    fn get(&self) -> anyhow::Result<Vec<Value>> {
        let (source, count) = (encoded(&self.source), self.options.count);
        let path = format!(
            "/api/v2/event/binary/active?name={NAME}&version={source}&count={count}&deadline=0&r-historic=true\
             &r-source={source}"
        );
        let mut body = Vec::new();
        self.client.get(&path).map_err(refused)?.into_body().into_reader().read_to_end(&mut body)?;
        #[derive(Deserialize)]
        struct Events {
            events: Vec<Value>,
        }
        let mark = br#"{"events":["#;
        let Some(at) = memchr::memmem::rfind(&body, mark) else { bail!("an answer has no events part") };
        let events = body.get(at..).unwrap_or_default();
        let events = serde_json::Deserializer::from_slice(events).into_iter::<Events>().next();
        Ok(events.ok_or_else(|| anyhow!("an answer has no events part"))??.events)
    }

    fn post(&self, model: &str, events: &Value) -> anyhow::Result<()> {
        let path = format!("/api/v2/event?model={model}");
        let body = serde_json::to_vec(events)?;
        let posted: Posted = self.client.post(&path, "application/json", &Payload::Bytes(&body)).map_err(refused)?;
        ensure!(posted.total_failures == 0, "{} events were refused", posted.total_failures);
        Ok(())
    }
}

/// One status of this word about each task.
fn statuses(tasks: &[Value], word: &str) -> Value {
    let status = |task: &Value| {
        let mut input = task.clone();
        if let Some(entity) = input.get_mut("entity").and_then(Value::as_object_mut) {
            ["features", "datastreams", "info"].iter().for_each(|member| drop(entity.remove(*member)));
        }
        json!({"model_version": 6, "timestamp": "2026-01-02T03:05:01Z",
            "author": {"name": NAME, "version": "1", "category": "plugin"},
            "entity": {"status": word, "runtime": 0.1, "input": input}})
    };
    tasks.iter().map(status).collect()
}
