//! `azulite reidentify`: what earlier rules have identified is identified anew.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::{Global, Reidentify};
use super::exit::Exit;
use super::interrupt::Interrupt;
use super::output::{self, Refusal, Table, complain, printable};
use super::target::{Opened, Target};
use super::topics::no_such_api;
use crate::client::{Client, Payload};
use crate::config::Config;
use crate::identify::{Identifier, content};
use crate::metrics::Metrics;
use crate::serve::identifications;
use crate::streams::reidentify::{Progress, Request, Run, Stage};
use crate::streams::{self, Engine, Streams};

const ROUTE: &str = "/api/azulite/v1/reidentify";
/// Between two looks at the progress.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Identifies what `args` ask for, in a running server or straight on the store.
pub(super) fn run(global: &Global, config: &Config, args: &Reidentify) -> Exit {
    output::finish(reidentify(global, config, args))
}

fn reidentify(global: &Global, config: &Config, args: &Reidentify) -> Result<Exit, Refusal> {
    let request = Request { dry_run: args.dry_run };
    let watch = Watch::new(global, Interrupt::listen()?);
    let target = match &args.url {
        Some(url) => Target::for_writing(config, Some(url))?,
        None => Target::for_reading(config)?,
    };
    let progress = match target {
        Target::Server(client) => through_server(&client, request, &watch)?,
        Target::Store(opened) => on_store(config, &opened, request, &watch)?,
    };
    watch.bar.finish_and_clear();
    tell(global, &progress, &mut output::stdout())
}

/// Whoever looks on.
struct Watch {
    interrupt: Interrupt,
    bar: ProgressBar,
}

impl Watch {
    fn new(global: &Global, interrupt: Interrupt) -> Self {
        let bar =
            if output::progress_allowed(global.quiet) { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} {human_pos} blobs, {msg}, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { interrupt, bar }
    }

    fn show(&self, progress: &Progress) {
        self.bar.set_position(progress.passed);
        self.bar.set_message(format!("{} identified anew, {} changed", progress.identified, progress.changed));
    }
}

fn through_server(client: &Client, request: Request, watch: &Watch) -> Result<Progress, Refusal> {
    let body = serde_json::to_vec(&request).map_err(|error| Refusal::failed(error.to_string()))?;
    let mut progress: Progress = client.post(ROUTE, "application/json", &Payload::Bytes(&body))?;
    let mut stopped = false;
    while progress.stage == Stage::Running {
        watch.show(&progress);
        if watch.interrupt.asked() && !stopped {
            stopped = true;
            progress = client.delete(ROUTE)?;
            continue;
        }
        std::thread::sleep(LOOK_EVERY);
        progress = client.get_json(ROUTE)?.ok_or_else(no_such_api)?;
    }
    Ok(progress)
}

fn on_store(config: &Config, opened: &Opened, request: Request, watch: &Watch) -> Result<Progress, Refusal> {
    let scanner = content::scanner(identifications(config), config.identify.content_max_bytes);
    let identifier = scanner.and_then(Identifier::load).map_err(|error| Refusal::failed(error.to_string()))?;
    let metrics = Arc::new(Metrics::new());
    let engine = Arc::new(Engine::new(Arc::new(identifier), metrics.clone()));
    let streams = Streams::new(opened.admin.blobs().clone(), engine, metrics, streams::Options::default());
    let run = Arc::new(Run::new(streams, request));
    let working = run.clone();
    let worker = std::thread::Builder::new().name("azulite-reidentify".to_owned()).spawn(move || working.work())?;
    while !worker.is_finished() {
        watch.show(&run.progress());
        if watch.interrupt.asked() {
            run.stop();
        }
        std::thread::sleep(LOOK_EVERY.min(Duration::from_millis(20)));
    }
    if worker.join().is_err() {
        return Err(Refusal::failed("identifying stopped by an internal fault"));
    }
    if let Some(reason) = opened.fatal() {
        return Err(Refusal::new(Exit::Stopped, format!("the store has stopped itself: {reason}")));
    }
    Ok(run.progress())
}

/// Names what failed, and prints what changed.
fn tell(global: &Global, progress: &Progress, out: &mut impl Write) -> Result<Exit, Refusal> {
    for failure in &progress.failures {
        complain(&format!("not identified: {}: {}", failure.sha256, printable(&failure.reason)));
    }
    let named = u64::try_from(progress.failures.len()).unwrap_or(u64::MAX);
    if progress.failed > named {
        complain(&format!("not identified: {} more", progress.failed - named));
    }
    if global.json {
        output::print_json(out, progress)?;
    } else {
        if !progress.changes.is_empty() {
            let mut table = Table::new(&["SHA256", "BEFORE", "AFTER"]);
            for change in &progress.changes {
                table.row([&change.sha256, &change.before, &change.after].map(|text| printable(text).into_owned()));
            }
            table.print(out)?;
        }
        let Progress { passed, current, skipped, identified, changed, .. } = progress;
        let rehearsal = if progress.request.dry_run { " (nothing was stored)" } else { "" };
        writeln!(
            out,
            "{passed} blobs: {identified} identified anew, {changed} of them changed{rehearsal}; {current} were current, \
             {skipped} never identified"
        )?;
    }
    match (progress.stage, progress.failed) {
        (Stage::Done, 0) => Ok(Exit::Done),
        (Stage::Done, _) => Ok(Exit::Failed),
        (Stage::Running | Stage::Stopped, _) => Err(Refusal::failed("interrupted; the same command goes on from here")),
        (Stage::Failed, _) => {
            let error = progress.error.as_deref().unwrap_or("unknown");
            Err(Refusal::failed(format!("{error}; the same command goes on from here")))
        }
    }
}
