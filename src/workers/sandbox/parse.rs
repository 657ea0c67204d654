//! The stage `parse`: reports and files are fetched and read, one of `parse_stages` after the other, each published on its
//! own.

use std::io::{BufReader, Read};
use std::time::Duration;

use azulite_storage::clock::now_ms;
use serde_json::{Value, json};

use super::api::ApiError;
use super::dropped;
use super::finish::{results_of, stream_json};
use super::health::Counted;
use super::http::{TempFile, Trouble, local, shown};
use super::job::{Failure, Job, Stage, SubmitState};
use super::options::{Kind, Parser};
use super::report::{self, Collector, Findings, Reading, ScanError};
use super::worker::{HubError, Shared, Verdict};
use crate::dispatcher::model::{BinaryEvent, Datastream};

/// The longest wait between two looks at what is due.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of a configuration in the info block.
const CONFIG_MAX_BYTES: usize = 64 << 10;

/// Runs until the stop.
pub(super) fn run(shared: &Shared) {
    loop {
        let seen = shared.stop.nudges();
        if shared.wait_until_up() {
            return;
        }
        let wait = match next(shared) {
            Some((event, id, stage)) => parse(shared, &event, id, stage),
            None => LOOK,
        };
        if !wait.is_zero() && shared.stop.wait_for_news(seen, wait) {
            return;
        }
    }
}

/// The task that is due the longest.
fn next(shared: &Shared) -> Option<(String, u64, usize)> {
    let now = now_ms();
    let due = shared.store.pick(|job| {
        let due = job.tasks.iter().filter_map(|(id, task)| match task.stage {
            Stage::Parse(stage) if task.next_ms <= now => Some((task.next_ms, job.event.clone(), *id, stage)),
            Stage::Parse(_) | Stage::Check | Stage::Done | Stage::Failed => None,
        });
        due.min()
    });
    due.into_iter().min().map(|(_, event, id, stage)| (event, id, stage))
}

/// One run; how long to wait after it.
fn parse(shared: &Shared, event: &str, id: u64, stage: usize) -> Duration {
    let Some(job) = shared.store.get(event) else { return Duration::ZERO };
    let failures = job.tasks.get(&id).map_or(0, |task| task.parse_failures);
    shared.health.begun(Counted::Parse, now_ms(), failures > 0);
    let error = match Run::new(shared, event, id, stage).and_then(Run::finish) {
        Ok(()) => {
            shared.health.done(Counted::Parse, now_ms());
            return Duration::ZERO;
        }
        Err(error) => error,
    };
    let failure = match error {
        RunError::Failed(failure) => failure,
        RunError::Api(error) => match shared.verdict(error) {
            Verdict::Stopped | Verdict::Down => return Duration::ZERO,
            Verdict::Later(wait) => {
                shared.stop.wait(wait);
                return Duration::ZERO;
            }
            Verdict::Failed(failure) => failure,
        },
    };
    shared.health.failed(Counted::Parse, &failure, &job.sha256, now_ms());
    let retry = shared.retry();
    shared.change(event, |job| job.task_failed(id, &failure, &retry));
    Duration::ZERO
}

/// Why a run ended without a result.
pub(super) enum RunError {
    Api(ApiError),
    Failed(Failure),
}

impl From<ApiError> for RunError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<std::io::Error> for RunError {
    fn from(error: std::io::Error) -> Self {
        Self::Api(ApiError::Trouble(local(&error)))
    }
}

/// One of `parse_stages` of one task.
pub(super) struct Run<'a> {
    pub(super) shared: &'a Shared,
    job: Job,
    pub(super) input: BinaryEvent,
    pub(super) id: u64,
    stage: usize,
    pub(super) brought: Findings,
}

impl<'a> Run<'a> {
    fn new(shared: &'a Shared, event: &str, id: u64, stage: usize) -> Result<Self, RunError> {
        let gone = || RunError::Api(ApiError::Trouble(Trouble::Stopped));
        let job = shared.store.get(event).ok_or_else(gone)?;
        let input = shared.store.event(event)?;
        let mut brought = Findings::default();
        brought.sandbox.insert("kind".to_owned(), json!(shared.options.kind.as_str()));
        brought.sandbox.insert("name".to_owned(), json!(shared.options.name));
        brought.sandbox.insert("task_id".to_owned(), json!(id));
        Ok(Self { shared, job, input, id, stage, brought })
    }

    /// Runs the parsers, keeps what they bring, publishes it unless that is left to the final status, and goes on.
    fn finish(mut self) -> Result<(), RunError> {
        let parsers = self.shared.options.parse_stages.get(self.stage).cloned().unwrap_or_default();
        if self.stage == 0 || parsers.iter().any(|parser| parser.reads_report()) {
            self.report(&parsers)?;
        }
        for parser in &parsers {
            let done = match parser {
                Parser::Info | Parser::Signatures | Parser::Behavior | Parser::Network => Ok(()),
                Parser::Dropped => dropped::dropped(&mut self),
                Parser::Screenshot => dropped::screenshots(&mut self),
                Parser::Pcap => self.pcap(),
                Parser::Config => self.config(),
            };
            match done {
                Ok(()) => {}
                // Nothing was dropped, photographed or sent: the parser has run.
                Err(RunError::Api(ApiError::Refused(text) | ApiError::Unknown(text)))
                    if self.shared.options.kind == Kind::Cape && is_nothing(*parser, &text) => {}
                // The parser fails, the others go on.
                Err(RunError::Api(error)) if !is_trouble(&error) => {
                    self.brought.errors.push(format!(
                        "{}: {}",
                        parser.as_str(),
                        report::first_chars(&error.text(), 300).0
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        let Self { shared, job, input, id, stage, brought } = self;
        let mut found = shared.store.findings(&job.event, id)?;
        found.merge(brought);
        shared.store.keep(&job.event, id, &found)?;
        let is_last = stage + 1 >= shared.options.parse_stages.len();
        let over = |task: &super::job::Task| matches!(task.stage, Stage::Done | Stage::Failed);
        let others_over = job.tasks.iter().all(|(other, task)| *other == id || over(task));
        if !(is_last && others_over && job.submit.state == SubmitState::Done) {
            let (events, _, _) = results_of(shared, &job, &input)?;
            publish(shared, &events)?;
        }
        let next = if is_last { Stage::Done } else { Stage::Parse(stage + 1) };
        shared.change(&job.event, |job| job.advance(id, next, now_ms()));
        Ok(())
    }

    fn report(&mut self, parsers: &[Parser]) -> Result<(), RunError> {
        let options = &self.shared.options;
        let file = match self.shared.api.report(self.id) {
            Ok(file) => file,
            Err(ApiError::Trouble(Trouble::TooLarge(limit))) => {
                self.brought.errors.push(format!("report: it has more than {limit} bytes and is not read"));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let collector = Collector::new(options.kind, parsers, options.push_api_calls_max);
        let (copy, mut copied) = TempFile::create(self.shared.api.temporary())?;
        let reading = match report::read(&mut BufReader::new(file.open()?), &mut copied, collector) {
            Ok(reading) => reading,
            Err(ScanError::Write(error) | ScanError::Read(error)) => return Err(error.into()),
            Err(error @ (ScanError::Syntax { .. } | ScanError::TooDeep { .. })) => {
                let mut beginning = Vec::new();
                file.open()?.take(4096).read_to_end(&mut beginning)?;
                let failure = Failure::new("error-exception", format!("the report is {error}"), shown(&beginning));
                return Err(RunError::Failed(failure));
            }
        };
        drop(copied);
        let Reading { findings, log, .. } = reading;
        let machine = findings.sandbox.get("machine").and_then(Value::as_str);
        if options.kind == Kind::Cape && machine == Some("FAILED") {
            let error = "the report names no guest: nothing was run";
            return Err(RunError::Failed(Failure::new("error-exception", error, "")));
        }
        self.brought.merge(findings);
        if self.stage == 0 {
            let label = match options.kind {
                Kind::Cape => "cape_report",
                Kind::Cuckoo => "report",
            };
            self.stream(label, || boxed(copy.open()))?;
            if !log.is_empty() {
                self.stream("text", || Ok(Box::new(std::io::Cursor::new(log.clone().into_bytes()))))?;
            }
        }
        Ok(())
    }

    fn pcap(&mut self) -> Result<(), RunError> {
        let file = self.shared.api.pcap(self.id)?;
        if file.open()?.metadata()?.len() > 0 {
            self.stream("pcap", || boxed(file.open()))?;
        }
        Ok(())
    }

    fn config(&mut self) -> Result<(), RunError> {
        let config = self.shared.api.config(self.id)?;
        let length = config.to_string().len();
        if length > CONFIG_MAX_BYTES {
            let text = format!("config: it has {length} bytes, {CONFIG_MAX_BYTES} have room in the info block");
            self.brought.errors.push(text);
        } else {
            self.brought.info.insert("config".to_owned(), config);
        }
        Ok(())
    }

    /// Uploads a stream of the file.
    pub(super) fn stream(
        &mut self,
        label: &str,
        open: impl Fn() -> std::io::Result<Box<dyn Read>>,
    ) -> Result<Datastream, RunError> {
        let stream = upload(self.shared, &self.input.source.name, label, open)?;
        self.brought.streams.push(stream_json(&stream));
        Ok(stream)
    }
}

fn boxed(file: std::io::Result<std::fs::File>) -> std::io::Result<Box<dyn Read>> {
    Ok(Box::new(file?))
}

/// True for how CAPE says that a task has none of what was asked for.
fn is_nothing(parser: Parser, text: &str) -> bool {
    let words = match parser {
        Parser::Dropped => "No files dropped",
        Parser::Screenshot => "No screenshots created",
        Parser::Pcap => "PCAP does not exist",
        Parser::Info | Parser::Signatures | Parser::Behavior | Parser::Network | Parser::Config => return false,
    };
    text.starts_with(words)
}

/// True for what says nothing about a parser: the attempt as a whole ends.
fn is_trouble(error: &ApiError) -> bool {
    match error {
        ApiError::Trouble(Trouble::TooLarge(_)) => false,
        ApiError::Trouble(_) => true,
        ApiError::Off(_) | ApiError::Unknown(_) | ApiError::Refused(_) => false,
    }
}

/// Uploads what `open` gives, which may be asked more than once.
pub(super) fn upload(
    shared: &Shared,
    source: &str,
    label: &str,
    open: impl Fn() -> std::io::Result<Box<dyn Read>>,
) -> Result<Datastream, RunError> {
    let stream = shared.hub(|hub| {
        let mut bytes = open().map_err(|error| crate::workers::UpstreamError::Refused(error.to_string()))?;
        hub.upload(source, label, &mut bytes)
    });
    let stream = stream.map_err(hub_error)?;
    Ok(Datastream { label: label.to_owned(), ..stream })
}

/// Publishes results before the job is over.
pub(super) fn publish(shared: &Shared, events: &[BinaryEvent]) -> Result<(), RunError> {
    if events.is_empty() {
        return Ok(());
    }
    shared.hub(|hub| hub.publish(events)).map_err(hub_error)
}

fn hub_error(error: HubError) -> RunError {
    match error {
        HubError::Stopped => RunError::Api(ApiError::Trouble(Trouble::Stopped)),
        HubError::Refused(reason) => {
            RunError::Failed(Failure::new("error-output", "the dispatcher refused a result", reason))
        }
    }
}
