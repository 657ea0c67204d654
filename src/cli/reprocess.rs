//! `azulite reprocess`: events of a previous prefix are copied to the current one.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use azulite_storage::clock::now_ms;
use indicatif::{ProgressBar, ProgressStyle};

use super::args::{Global, Reprocess};
use super::exit::Exit;
use super::interrupt::Interrupt;
use super::output::{self, Refusal, Table, complain, printable};
use super::target::{Opened, Target};
use super::topics::no_such_api;
use crate::admin::reprocess::{self, BeginError, Hold, Profile, Progress, Request, Run, Stage};
use crate::client::{Client, Payload, RequestError};
use crate::config::Config;
use crate::dispatcher::pause::Pause;
use crate::dispatcher::prepare_topics;
use crate::metrics::Metrics;
use crate::serve::{dispatcher_options, reprocess_options};

const ROUTE: &str = "/api/azulite/v1/reprocess";
/// Between two looks at the progress.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Copies what `args` and the configuration ask for.
pub(super) fn run(global: &Global, config: &Config, args: &Reprocess) -> Exit {
    output::finish(reprocess(global, config, args))
}

fn reprocess(global: &Global, config: &Config, args: &Reprocess) -> Result<Exit, Refusal> {
    let request = request(config, args)?;
    let interrupt = Interrupt::listen()?;
    let watch = Watch::new(global, interrupt);
    let progress = match target(config, args, request.dry_run)? {
        Target::Server(client) => through_server(&client, &request, &watch)?,
        Target::Store(opened) => on_store(config, &opened, request, &watch)?,
    };
    watch.bar.finish_and_clear();
    tell(global, &progress, &mut output::stdout())
}

fn target(config: &Config, args: &Reprocess, dry_run: bool) -> Result<Target, Refusal> {
    match &args.url {
        Some(url) => Target::for_writing(config, Some(url)),
        None if dry_run => Target::for_reading(config),
        None => Target::for_writing(config, None),
    }
}

/// The configuration with what the flags change.
fn request(config: &Config, args: &Reprocess) -> Result<Request, Refusal> {
    let given = &config.reprocess;
    let (sources, system) = match args.sources || args.system {
        true => (args.sources, args.system),
        false => (given.upgrade_sources, given.upgrade_system),
    };
    let profile = match (sources, system) {
        (true, false) => Profile::Sources,
        (false, true) => Profile::System,
        (true, true) => return Err(Refusal::usage("sources and system topics cannot be reprocessed in one run")),
        (false, false) => {
            let message = "no configured profile for reprocessor: give --sources or --system, or set \
                           reprocess.upgrade_sources or reprocess.upgrade_system";
            return Err(Refusal::usage(message));
        }
    };
    let or = |flags: &[String], given: &[String]| if flags.is_empty() { given.to_vec() } else { flags.to_vec() };
    Ok(Request {
        previous_prefix: args.previous_prefix.clone().unwrap_or_else(|| given.previous_prefix.clone()),
        profile,
        deny_topics: or(&args.deny_topic, &given.deny_topics),
        include_system: or(&args.include_system, &given.include_system),
        legacy_json: args.legacy_json || given.legacy_json,
        dry_run: args.dry_run,
    })
}

/// Whoever looks on.
struct Watch {
    interrupt: Interrupt,
    bar: ProgressBar,
}

impl Watch {
    fn new(global: &Global, interrupt: Interrupt) -> Self {
        let bar = if output::progress_allowed(global.quiet) { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} records, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { interrupt, bar }
    }

    fn show(&self, progress: &Progress) {
        let (passed, total) = progress.passed();
        self.bar.set_length(total);
        self.bar.set_position(passed);
    }
}

fn through_server(client: &Client, request: &Request, watch: &Watch) -> Result<Progress, Refusal> {
    let body = serde_json::to_vec(request).map_err(|error| Refusal::failed(error.to_string()))?;
    let begun = client.post(ROUTE, "application/json", &Payload::Bytes(&body));
    let mut progress: Progress = begun.map_err(|error| match &error {
        // What is refused for what it says is no failure of the server's.
        RequestError::NotOk(answer) if answer.is_bad_request() => Refusal::usage(error.message()),
        RequestError::NotOk(_) | RequestError::Transport(_) => error.into(),
    })?;
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

/// Plugins that come when a server runs again leave the copies out.
fn hold(config: &Config, opened: &Opened) -> Result<Hold, Refusal> {
    let (log, prefix) = (opened.broker.log().clone(), config.events.topic_prefix.clone());
    let pause = Pause::load(log.as_ref(), &prefix, now_ms());
    let pause = pause.map_err(|error| Refusal::failed(format!("the store cannot be read: {error}")))?;
    Ok(Arc::new(move || pause.request(log.as_ref(), &prefix, now_ms())))
}

fn on_store(config: &Config, opened: &Opened, request: Request, watch: &Watch) -> Result<Progress, Refusal> {
    let options = dispatcher_options(config).map_err(|error| Refusal::usage(error.to_string()))?;
    let reprocess = reprocess::Options { hold: Some(hold(config, opened)?), ..reprocess_options(&options) };
    let metrics = Arc::new(Metrics::new());
    let dry_run = request.dry_run;
    let run = Run::begin(opened.broker.clone(), metrics, reprocess, request);
    let run = run.map_err(|error| match error {
        BeginError::NoPrefix | BeginError::SamePrefix(_) => Refusal::usage(error.to_string()),
        BeginError::NoTopics(_) => Refusal::failed(error.to_string()),
    })?;
    if !dry_run {
        let made = prepare_topics(&options, &opened.broker);
        made.map_err(|error| Refusal::failed(format!("the topics cannot be made: {error}")))?;
    }
    let worker = run.clone();
    let worker = std::thread::Builder::new().name("azulite-reprocess".to_owned()).spawn(move || worker.work())?;
    while !worker.is_finished() {
        watch.show(&run.progress());
        if watch.interrupt.asked() {
            run.stop();
        }
        std::thread::sleep(LOOK_EVERY.min(Duration::from_millis(20)));
    }
    if worker.join().is_err() {
        return Err(Refusal::failed("the copying stopped by an internal fault"));
    }
    if let Some(reason) = opened.fatal() {
        return Err(Refusal::new(Exit::Stopped, format!("the store has stopped itself: {reason}")));
    }
    Ok(run.progress())
}

/// Names what could not be copied, and prints the summary.
fn tell(global: &Global, progress: &Progress, out: &mut impl Write) -> Result<Exit, Refusal> {
    for topic in &progress.topics {
        for bad in &topic.bad_records {
            let reason = printable(&bad.reason);
            complain(&format!(
                "not copied: {}, partition {}, offset {}: {reason}",
                topic.topic, bad.partition, bad.offset
            ));
        }
        let named = u64::try_from(topic.bad_records.len()).unwrap_or(u64::MAX);
        if topic.bad > named {
            complain(&format!("not copied: {} more of {}", topic.bad - named, topic.topic));
        }
    }
    if global.json {
        output::print_json(out, progress)?;
    } else {
        let mut table = Table::new(&["TOPIC", "COPIED", "DELETIONS", "BAD", "LEFT"]);
        for topic in &progress.topics {
            let left = topic.total.saturating_sub(topic.passed);
            let counts = [topic.copied, topic.deletions, topic.bad, left].map(|count| count.to_string());
            table.row([topic.topic.clone()].into_iter().chain(counts));
        }
        table.print(out)?;
    }
    match (progress.stage, progress.bad()) {
        (Stage::Done, 0) => Ok(Exit::Done),
        (Stage::Done, _) => Ok(Exit::Failed),
        (Stage::Running | Stage::Stopped, _) => Err(Refusal::failed("interrupted; the same command goes on from here")),
        (Stage::Failed, _) => {
            let error = progress.error.as_deref().unwrap_or("unknown");
            Err(Refusal::failed(format!("Error performing reprocess: {error}; the same command goes on from here")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser;

    fn asked(config: &Config, flags: &[&str]) -> Result<Request, Refusal> {
        let cli = Cli::try_parse_from([&["azulite", "reprocess"], flags].concat()).unwrap();
        let Command::Reprocess(args) = cli.command else { panic!("another command") };
        request(config, &args)
    }

    #[test]
    fn flags_are_stronger_than_the_configuration() {
        let mut config = Config::default();
        assert!(asked(&config, &[]).unwrap_err().message().contains("no configured profile for reprocessor"));
        config.reprocess.upgrade_sources = true;
        config.reprocess.previous_prefix = "a".to_owned();
        config.reprocess.deny_topics = vec!["x".to_owned()];
        let request = asked(&config, &[]).unwrap();
        assert_eq!((request.profile, request.previous_prefix.as_str()), (Profile::Sources, "a"));
        let flags =
            ["--system", "--previous-prefix", "b", "--deny-topic", "y,z", "--include-system", "status", "--dry-run"];
        let request = asked(&config, &flags).unwrap();
        let expected = Request {
            previous_prefix: "b".to_owned(),
            profile: Profile::System,
            deny_topics: vec!["y".to_owned(), "z".to_owned()],
            include_system: vec!["status".to_owned()],
            legacy_json: false,
            dry_run: true,
        };
        assert_eq!(request, expected);
        config.reprocess.upgrade_system = true;
        assert!(asked(&config, &[]).unwrap_err().message().contains("in one run"));
    }
}
