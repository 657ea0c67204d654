//! `azulite worker yara` and `sandbox`: one worker in a process of its own, against any dispatcher; `azulite workers`:
//! how those inside a server stand, and all other plugins that take tasks.

use std::io::{self, Write};
use std::sync::Arc;

use azulite_storage::clock::now_ms;

use super::args::{Global, Worker, WorkerCommand};
use super::exit::Exit;
use super::lost_tasks::age;
use super::output::{self, Refusal, Table, printable};
use super::target::Target;
use super::topics::no_such_api;
use crate::admin::WorkerList;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::serve::{Signals, lease_time};
use crate::workers::start::{self, Setting, Workers};
use crate::workers::{RemoteUpstream, StageView, Upstream, WorkerView};

/// Runs a worker until SIGTERM or SIGINT.
pub(super) fn run(config: &Config, args: &Worker) -> Exit {
    output::finish(work(config, args))
}

fn work(config: &Config, args: &Worker) -> Result<Exit, Refusal> {
    let remote = RemoteUpstream::new(&args.url).map_err(Refusal::usage)?;
    let connect = |_in_process: bool| -> Arc<dyn Upstream> { Arc::new(remote.another()) };
    let setting = Setting {
        config: &config.workers,
        data_dir: &config.storage.data_dir,
        connect: &connect,
        metrics: Arc::new(Metrics::new()),
        lease: lease_time(config),
    };
    // Before anything is started, so that no signal is missed.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::new()
    };
    let started = match &args.command {
        WorkerCommand::Yara => start::yara(&setting),
        WorkerCommand::Sandbox { name } => {
            let section = config.workers.sandbox.iter().find(|section| section.name == *name);
            let known = || config.workers.sandbox.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            let section = section.ok_or_else(|| {
                Refusal::usage(format!("--name {name}: no [[workers.sandbox]] has that name; there are: {}", known()))
            })?;
            start::sandbox(&setting, section)
        }
    };
    let workers = Arc::new(Workers::new(vec![started.map_err(Refusal::failed)?]));
    tracing::info!("working for {}", args.url);
    loop {
        match runtime.block_on(signals.next()) {
            "SIGHUP" => {
                let workers = workers.clone();
                // Rules take minutes to compile, and a stop signal does not wait for them.
                let aside = std::thread::Builder::new().name("reload".to_owned());
                if let Err(error) = aside.spawn(move || tell_reloaded(&workers)) {
                    tracing::error!(%error, "SIGHUP: no thread to reload with");
                }
            }
            name => {
                tracing::info!("{name}: finishing what is under way");
                break;
            }
        }
    }
    workers.stop(config.workers.shutdown_grace);
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Reloads and logs what came of it.
pub(crate) fn tell_reloaded(workers: &Workers) {
    for (worker, told) in workers.reload() {
        match told {
            Ok(told) => tracing::info!(worker, "SIGHUP: {told}"),
            Err(reason) => tracing::error!(worker, "SIGHUP: everything stays as it is: {reason}"),
        }
    }
}

/// Prints how the workers inside the server stand, and every other plugin that takes tasks.
pub(super) fn list(global: &Global, config: &Config) -> Exit {
    output::finish(print_list(global, config, &mut output::stdout()))
}

fn print_list(global: &Global, config: &Config, out: &mut impl Write) -> Result<Exit, Refusal> {
    let (list, note) = match Target::for_reading(config)? {
        Target::Server(client) => {
            let list = client.get_json::<WorkerList>("/api/azulite/v1/workers")?;
            (list.ok_or_else(no_such_api)?, None)
        }
        Target::Store(store) => {
            let dispatcher = store.dispatcher(config)?;
            let now_ms = dispatcher.now_ms();
            let list = store.admin.clone().with_dispatcher(dispatcher).workers(Vec::new(), now_ms);
            let list = list.map_err(|error| Refusal::failed(format!("the workers cannot be read: {error}")))?;
            (list, Some(no_server(config)))
        }
    };
    match global.json {
        true => output::print_json(out, &list)?,
        false => print(&list, note.as_deref(), now_ms(), out)?,
    }
    Ok(Exit::Done)
}

/// That no server was found, and how another one is.
pub(super) fn no_server(config: &Config) -> String {
    let root = config.storage.data_dir.display();
    format!("no server runs on the store at {root} (--data-dir names another store, whose server is found by its lock)")
}

fn print(list: &WorkerList, note: Option<&str>, now_ms: i64, out: &mut impl Write) -> io::Result<()> {
    if let Some(note) = note {
        writeln!(out, "{note}: what is stored is shown")?;
    }
    if list.workers.is_empty() {
        writeln!(out, "no worker is configured, and no plugin has asked for events in the last day")?;
        return out.flush();
    }
    let mut table = Table::new(&COLUMNS);
    for worker in &list.workers {
        for stage in &worker.stages {
            table.row(row(worker, stage, now_ms));
        }
    }
    table.print(out)?;
    if list.left_out > 0 {
        writeln!(out, "and {} more", list.left_out)?;
    }
    for worker in &list.workers {
        let WorkerView { name, version, reason, .. } = worker;
        writeln!(out, "{} {}", printable(name), printable(version))?;
        if !reason.is_empty() {
            writeln!(out, "  {}: {}", worker.state, printable(reason))?;
        }
        for (fact, value) in &worker.facts {
            writeln!(out, "  {}: {}", printable(fact), printable(value))?;
        }
        for (stage, error) in worker.stages.iter().filter_map(|stage| Some((&stage.name, stage.last_error.as_ref()?))) {
            let what = format!("{} {}: {} {}", error.status, error.sha256, error.error, error.message);
            let age = age(now_ms, error.time_ms);
            writeln!(out, "  last failure in {}, {age} ago: {}", printable(stage), printable(&what))?;
        }
    }
    out.flush()
}

/// A time that something took.
fn took(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

const COLUMNS: [&str; 16] = [
    "WORKER",
    "VERSION",
    "WHERE",
    "STAGE",
    "STATE",
    "SEEN",
    "QUEUE",
    "WAITING",
    "IN FLIGHT",
    "SLOTS",
    "ENDED",
    "FAILED",
    "RETRIED",
    "PER MIN",
    "MEDIAN",
    "TO FINISH",
];

fn row(worker: &WorkerView, stage: &StageView, now_ms: i64) -> [String; 16] {
    let failed: u64 = stage.ended.iter().filter(|(status, _)| status.starts_with("error")).map(|(_, n)| n).sum();
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    [
        printable(&worker.name).into_owned(),
        printable(&worker.version).into_owned(),
        worker.place.clone(),
        printable(&stage.name).into_owned(),
        worker.state.clone(),
        worker.last_seen_ms.map_or_else(|| "-".to_owned(), |ms| age(now_ms, ms)),
        number(stage.queue),
        number(stage.waiting),
        stage.in_flight.to_string(),
        number(stage.slots),
        stage.ended.values().sum::<u64>().to_string(),
        failed.to_string(),
        stage.retried.to_string(),
        format!("{:.1}", stage.rate * 60.0),
        stage.median_s.map_or_else(|| "-".to_owned(), took),
        stage.time_to_finish_s.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::LastError;
    use std::collections::BTreeMap;

    #[test]
    fn a_worker_is_shown_with_its_figures_and_its_last_failure() {
        let stage = StageView {
            name: "run".into(),
            in_flight: 2,
            slots: Some(4),
            median_s: Some(2.0),
            ended: BTreeMap::from([("completed".into(), 7), ("error-timeout".into(), 1)]),
            rate: 0.5,
            last_error: Some(LastError { time_ms: 50_000, status: "error-timeout".into(), ..LastError::default() }),
            ..StageView::default()
        };
        let worker = WorkerView {
            name: "yara".into(),
            version: "1-ab".into(),
            place: "server".into(),
            last_seen_ms: Some(50_000),
            state: "down".into(),
            reason: "no rules".into(),
            stages: vec![stage.with_queue(10)],
            facts: BTreeMap::from([("rule set".into(), "ab".into())]),
            ..WorkerView::default()
        };
        let mut out = Vec::new();
        print(&WorkerList { workers: vec![worker], left_out: 2 }, None, 61_000, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let want = "yara 1-ab server run down 11s 10 - 2 4 8 1 0 30.0 2.0 s 20 s";
        assert_eq!(row.join(" "), want, "{text}");
        for want in [
            "yara 1-ab\n",
            "  down: no rules\n",
            "  rule set: ab\n",
            "  last failure in run, 11s ago: error-timeout",
            "and 2 more\n",
        ] {
            assert!(text.contains(want), "{text}");
        }
    }
}
