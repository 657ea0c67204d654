//! `azulite dead`: events that plugins could not work on: list, show, put back, carry to another machine, remove.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use azulite_storage::clock::now_ms;
use azulite_storage::fs::{Fs, RealFs, create_dir_durably, read_small, replace_durably};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::args::{DeadCommand, Global, Which};
use super::exit::Exit;
use super::interrupt::Interrupt;
use super::lost_tasks::age;
use super::output::{self, Refusal, Table, complain, printable};
use super::target::{Opened, Target};
use crate::admin::dead::{DeadError, DeadList, DeadReport, DeadView, MOST, PurgeRequest, RequeueRequest};
use crate::admin::{Admin, BuryRequest};
use crate::client::{Client, Payload, RequestError, encoded};
use crate::config::Config;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::dead::{After, Count, Filter, Head, TEXT_LIMIT};

const ROUTE: &str = "/api/azulite/v1/dead";
const JSON: &str = "application/json";
/// Letters that are put back in one call.
const AT_ONCE: usize = 100;
/// Characters of a reason in a table.
const REASON_CHARS: usize = 60;

/// Does what `command` says.
pub(super) fn run(global: &Global, config: &Config, command: &DeadCommand) -> Exit {
    output::finish(dead(global, config, command))
}

fn dead(global: &Global, config: &Config, command: &DeadCommand) -> Result<Exit, Refusal> {
    let access = Access::new(config)?;
    let exit = match command {
        DeadCommand::List { which, since, source, sha256, limit } => {
            let (source, sha256) = (source.clone(), sha256.clone());
            let filter = Filter { since_ms: *since, source, sha256, ..filter(which) };
            list(global, &access, &filter, *limit)
        }
        DeadCommand::Show { id } => show(global, &access, id),
        DeadCommand::Requeue { ids, which, file, dry_run, rate, expedite, all: _ } => {
            let request = RequeueRequest { dry_run: *dry_run, expedite: *expedite, ..RequeueRequest::default() };
            let pace = Pace::new(*rate)?;
            match (file.is_empty(), ids.is_empty()) {
                (false, _) => requeue_files(global, &access, file, request, pace),
                (true, false) => requeue_ids(global, &access, ids, request, pace),
                (true, true) => requeue_all(global, &access, filter(which), request, pace),
            }
        }
        DeadCommand::Export { dir, which } => export(global, &access, dir, &filter(which)),
        DeadCommand::Import { paths, dry_run } => import(global, &access, paths, *dry_run),
        DeadCommand::Bury { consumer, version, dry_run } => {
            let (consumer, version) = (consumer.clone(), version.clone());
            bury(global, &access, &BuryRequest { consumer, version, dry_run: *dry_run })
        }
        DeadCommand::Purge { ids, older_than, yes } => purge(global, &access, ids, *older_than, *yes),
    }?;
    access.settle();
    Ok(exit)
}

fn filter(which: &Which) -> Filter {
    Filter { consumer: which.consumer.clone(), status: which.status.clone(), ..Filter::default() }
}

/// Where the letters are.
enum Access {
    Server(Client),
    Store { admin: Box<Admin>, dispatcher: Arc<Dispatcher>, _store: Box<Opened> },
}

impl Access {
    fn new(config: &Config) -> Result<Self, Refusal> {
        Ok(match Target::for_reading(config)? {
            Target::Server(client) => Self::Server(client),
            Target::Store(store) => {
                let dispatcher = store.dispatcher(config)?;
                let admin = Box::new(store.admin.clone().with_dispatcher(dispatcher.clone()));
                Self::Store { admin, dispatcher, _store: Box::new(store) }
            }
        })
    }

    fn page(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<DeadList, Refusal> {
        match self {
            Self::Server(client) => {
                let mut path = format!("{ROUTE}?limit={limit}");
                let since = filter.since_ms.map(|since| format!("@{since}"));
                for (name, value) in [
                    ("consumer", filter.consumer.as_deref()),
                    ("status", filter.status.as_deref()),
                    ("since", since.as_deref()),
                    ("source", filter.source.as_deref()),
                    ("sha256", filter.sha256.as_deref()),
                    ("after", after),
                ] {
                    if let Some(value) = value {
                        path.push_str(&format!("&{name}={}", encoded(value)));
                    }
                }
                client.get_json(&path).map_err(refused)?.ok_or_else(super::topics::no_such_api)
            }
            Self::Store { admin, .. } => {
                let after = after.map(str::parse::<After>).transpose();
                let after = after.map_err(|reason| Refusal::failed(format!("after {reason}")))?;
                admin.dead_list(filter, after.as_ref(), limit).map_err(refusal)
            }
        }
    }

    fn one(&self, id: &str) -> Result<Option<DeadView>, Refusal> {
        match self {
            Self::Server(client) => Ok(client.get_json(&format!("{ROUTE}/{}", encoded(id)))?),
            Self::Store { admin, .. } => admin.dead_letter(id).map_err(refusal),
        }
    }

    fn requeue(&self, request: &RequeueRequest) -> Result<DeadReport, Refusal> {
        match self {
            Self::Server(client) => post(client, &format!("{ROUTE}/requeue"), &body(request)?),
            Self::Store { admin, .. } => admin.dead_requeue(request).map_err(refusal),
        }
    }

    fn import(&self, text: &[u8], dry_run: bool) -> Result<DeadReport, Refusal> {
        match self {
            Self::Server(client) => post(client, &format!("{ROUTE}/import?dry_run={dry_run}"), text),
            Self::Store { admin, .. } => admin.dead_import(text, dry_run).map_err(refusal),
        }
    }

    fn bury(&self, request: &BuryRequest) -> Result<DeadReport, Refusal> {
        match self {
            Self::Server(client) => post(client, &format!("{ROUTE}/bury"), &body(request)?),
            Self::Store { admin, .. } => admin.dead_bury(request, "command line").map_err(refusal),
        }
    }

    fn purge(&self, request: &PurgeRequest) -> Result<DeadReport, Refusal> {
        match self {
            Self::Server(client) => post(client, &format!("{ROUTE}/purge"), &body(request)?),
            Self::Store { admin, .. } => admin.dead_purge(request, "command line").map_err(refusal),
        }
    }

    /// Brings the files up to date where no server does.
    fn settle(&self) {
        if let Self::Store { dispatcher, .. } = self
            && let Err(error) = dispatcher.dead().settle_files()
        {
            complain(&format!("files of dead letters will follow when a server runs: {error}"));
        }
    }
}

fn body(request: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(request).map_err(|error| Refusal::failed(error.to_string()))
}

fn post(client: &Client, path: &str, body: &[u8]) -> Result<DeadReport, Refusal> {
    client.post(path, JSON, &Payload::Bytes(body)).map_err(refused)
}

fn refused(error: RequestError) -> Refusal {
    match &error {
        RequestError::NotOk(answer) if answer.is_no_such_page() => super::topics::no_such_api(),
        RequestError::NotOk(answer) if answer.is_bad_request() => Refusal::failed(answer.problem.detail.clone()),
        RequestError::NotOk(_) | RequestError::Transport(_) => error.into(),
    }
}

pub(super) fn refusal(error: DeadError) -> Refusal {
    Refusal::failed(error.to_string())
}

/// The result of `list` with `--json`.
#[derive(Default, Serialize)]
struct Listed {
    counts: Vec<Count>,
    letters: Vec<Head>,
    more: u64,
}

fn list(global: &Global, access: &Access, filter: &Filter, limit: usize) -> Result<Exit, Refusal> {
    let mut listed = Listed::default();
    let mut after: Option<String> = None;
    let mut all = 0_u64;
    // What the server counts knows nothing of these.
    let count_here = filter.since_ms.is_some() || filter.source.is_some() || filter.sha256.is_some();
    loop {
        let page = access.page(filter, after.as_deref(), MOST)?;
        all += u64::try_from(page.letters.len()).unwrap_or(0);
        if count_here {
            page.letters.iter().for_each(|head| count(&mut listed.counts, head));
        } else {
            listed.counts = page.counts;
        }
        let room = limit.saturating_sub(listed.letters.len());
        listed.letters.extend(page.letters.into_iter().take(room));
        after = page.next;
        if after.is_none() || listed.letters.len() >= limit && !count_here {
            break;
        }
    }
    let counted = |count: &Count| match filter.status.as_deref() {
        Some("requeued") => count.requeued,
        Some(_) => count.dead,
        None => count.dead + count.requeued,
    };
    let total = if count_here { all } else { listed.counts.iter().map(counted).sum() };
    listed.more = total.saturating_sub(u64::try_from(listed.letters.len()).unwrap_or(0));
    let out = &mut output::stdout();
    match global.json {
        true => output::print_json(out, &listed)?,
        false => print_list(&listed, now_ms(), out)?,
    }
    Ok(Exit::Done)
}

fn count(counts: &mut Vec<Count>, head: &Head) {
    let (dead, requeued) = if head.requeued.is_some() { (0, 1) } else { (1, 0) };
    match counts.iter_mut().find(|count| count.consumer == head.consumer && count.status == head.status) {
        Some(count) => {
            count.dead += dead;
            count.requeued += requeued;
        }
        None => {
            counts.push(Count { consumer: head.consumer.clone(), status: head.status.clone(), dead, requeued });
        }
    }
}

fn print_list(listed: &Listed, now_ms: i64, out: &mut impl Write) -> io::Result<()> {
    if listed.counts.is_empty() {
        return writeln!(out, "no dead letters").and_then(|()| out.flush());
    }
    let text = |text: &str| printable(text).into_owned();
    let mut table = Table::new(&["CONSUMER", "STATUS", "DEAD", "REQUEUED"]);
    for Count { consumer, status, dead, requeued } in &listed.counts {
        table.row([text(consumer), text(status), dead.to_string(), requeued.to_string()]);
    }
    table.print(out)?;
    writeln!(out)?;
    let mut table = Table::new(&["ID", "AGE", "CONSUMER", "VERSION", "STATUS", "SOURCE", "ENTITY", "REASON"]);
    for head in &listed.letters {
        let status = if head.requeued.is_some() { format!("{} (requeued)", head.status) } else { head.status.clone() };
        let reason: String = head.reason.chars().take(REASON_CHARS).collect();
        let entity: String = head.sha256.chars().take(12).collect();
        let age = age(now_ms, head.time_ms);
        let [consumer, version, source] = [&head.consumer, &head.version, &head.source].map(|name| text(name));
        table.row([head.id.clone(), age, consumer, version, text(&status), source, text(&entity), text(&reason)]);
    }
    table.print(out)?;
    if listed.more > 0 {
        writeln!(out, "and {} more", listed.more)?;
    }
    out.flush()
}

/// What people are shown of a letter.
#[derive(Deserialize)]
struct Shown {
    id: String,
    time: String,
    consumer: String,
    version: String,
    stage: String,
    attempts: Vec<ShownAttempt>,
    topic: String,
    partition: i32,
    offset: i64,
    kafka_key: String,
    sha256: String,
    source: String,
    filename: String,
    context: serde_json::Value,
    #[serde(default)]
    withheld: Vec<String>,
}

#[derive(Deserialize)]
struct ShownAttempt {
    time: String,
    status: String,
    error: String,
    message: String,
    runtime: f64,
}

fn show(global: &Global, access: &Access, id: &str) -> Result<Exit, Refusal> {
    let view = access.one(id)?.ok_or_else(|| Refusal::failed(format!("there is no dead letter {id}")))?;
    let out = &mut output::stdout();
    if global.json {
        output::print_json(out, &view)?;
        return Ok(Exit::Done);
    }
    let shown: Shown = serde_json::from_str(view.letter.get())
        .map_err(|error| Refusal::failed(format!("the letter cannot be read: {error}")))?;
    print_letter(&shown, &view, out)?;
    Ok(Exit::Done)
}

fn print_letter(shown: &Shown, view: &DeadView, out: &mut impl Write) -> io::Result<()> {
    let place = match shown.offset {
        offset if offset < 0 => printable(&shown.topic).into_owned(),
        offset => format!("{}-{} offset {offset}", printable(&shown.topic), shown.partition),
    };
    let requeued = view.requeued.as_ref().map_or(String::new(), |requeued| {
        let since = crate::dispatcher::model::Timestamp::from_millis(requeued.time_ms);
        format!("at {since} for version {}", requeued.version)
    });
    let context = if shown.context.is_null() { String::new() } else { shown.context.to_string() };
    for (name, value) in [
        ("id", shown.id.as_str()),
        ("time", &shown.time),
        ("consumer", &shown.consumer),
        ("version", &shown.version),
        ("stage", &shown.stage),
        ("event", &shown.kafka_key),
        ("read from", &place),
        ("source", &shown.source),
        ("file name", &shown.filename),
        ("sha256", &shown.sha256),
        ("entity", &view.entity),
        ("file", &view.file),
        ("left out", &shown.withheld.join(", ")),
        ("context", &context),
        ("requeued", &requeued),
    ] {
        if !value.is_empty() {
            writeln!(out, "{name:<10} {}", printable(value))?;
        }
    }
    for (number, attempt) in shown.attempts.iter().enumerate() {
        let ShownAttempt { time, status, error, message, runtime } = attempt;
        writeln!(out, "attempt {}  {} {} after {runtime:.1} s", number + 1, printable(time), printable(status))?;
        for (name, text) in [("error", error), ("message", message)].into_iter().filter(|(_, text)| !text.is_empty()) {
            text.lines().try_for_each(|line| writeln!(out, "  {name}: {}", printable(line)))?;
        }
    }
    out.flush()
}

/// No more than so many in a second.
struct Pace {
    rate: Option<f64>,
    begun: Instant,
    done: u64,
    interrupt: Interrupt,
}

impl Pace {
    fn new(rate: Option<f64>) -> Result<Self, Refusal> {
        Ok(Self { rate, begun: Instant::now(), done: 0, interrupt: Interrupt::listen()? })
    }

    /// How many may be put back now.
    fn room(&self) -> usize {
        match self.rate {
            Some(rate) if rate < 100.0 => 1,
            Some(_) | None => AT_ONCE,
        }
    }

    /// Waits for its turn behind `more`; false when it is told to stop.
    fn wait(&mut self, more: u64) -> bool {
        self.done += more;
        let Some(rate) = self.rate else { return !self.interrupt.asked() };
        let done = f64::from(u32::try_from(self.done).unwrap_or(u32::MAX));
        let due = self.begun + Duration::try_from_secs_f64(done / rate).unwrap_or(Duration::MAX);
        while Instant::now() < due && !self.interrupt.asked() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)));
        }
        !self.interrupt.asked()
    }
}

fn requeue_ids(
    global: &Global,
    access: &Access,
    ids: &[String],
    mut request: RequeueRequest,
    mut pace: Pace,
) -> Result<Exit, Refusal> {
    let dry_run = request.dry_run;
    let mut report = DeadReport::default();
    let mut parts = ids.chunks(pace.room()).peekable();
    while let Some(part) = parts.next() {
        request.ids = part.to_vec();
        let done = match access.requeue(&request) {
            Ok(done) => done,
            Err(error) => return broken_off(global, &report, dry_run, error),
        };
        let count = done.requeued;
        report.add(done);
        if parts.peek().is_some() && !dry_run && !pace.wait(count) {
            return interrupted(global, &report);
        }
    }
    tell(global, &report, dry_run)
}

fn requeue_all(
    global: &Global,
    access: &Access,
    filter: Filter,
    mut request: RequeueRequest,
    mut pace: Pace,
) -> Result<Exit, Refusal> {
    let dry_run = request.dry_run;
    let mut report = DeadReport::default();
    request.filter = Some(filter);
    request.limit = Some(if dry_run { MOST } else { pace.room() });
    loop {
        let done = match access.requeue(&request) {
            Ok(done) => done,
            Err(error) => return broken_off(global, &report, dry_run, error),
        };
        let count = done.requeued;
        report.add(done);
        let Some(next) = report.next.take() else { break };
        request.after = Some(next);
        if !dry_run && !pace.wait(count) {
            return interrupted(global, &report);
        }
    }
    tell(global, &report, dry_run)
}

fn requeue_files(
    global: &Global,
    access: &Access,
    files: &[PathBuf],
    mut request: RequeueRequest,
    mut pace: Pace,
) -> Result<Exit, Refusal> {
    let dry_run = request.dry_run;
    let mut report = DeadReport::default();
    let mut bad = 0;
    let mut files = files.iter().peekable();
    while let Some(path) = files.next() {
        let done = read_letter(path).and_then(|text| {
            request.letters = vec![text];
            access.requeue(&request)
        });
        let count = match done {
            Ok(done) => {
                let count = done.requeued;
                report.add(done);
                count
            }
            Err(error) => {
                bad += 1;
                complain(&format!("{}: {error}", path.display()));
                0
            }
        };
        if files.peek().is_some() && !dry_run && !pace.wait(count) {
            return interrupted(global, &report);
        }
    }
    let exit = tell(global, &report, dry_run)?;
    Ok(if bad > 0 { Exit::Failed } else { exit })
}

/// A file as JSON, no larger than a letter may be.
fn read_letter(path: &Path) -> Result<Box<RawValue>, Refusal> {
    let text = read_text(path)?;
    serde_json::from_slice(&text).map_err(|error| Refusal::failed(format!("it is no dead letter: {error}")))
}

fn read_text(path: &Path) -> Result<Vec<u8>, Refusal> {
    match RealFs.meta(path)? {
        Some(meta) if meta.is_dir => Err(Refusal::failed("it is a directory")),
        // A pipe or a device would be waited for without end.
        Some(_) if !std::fs::metadata(path)?.is_file() => Err(Refusal::failed("it is no regular file")),
        Some(_) => Ok(read_small(&RealFs, path, TEXT_LIMIT)?),
        None => Err(Refusal::failed("there is no such file")),
    }
}

/// Tells what was done before an error, and then the error.
fn broken_off(global: &Global, report: &DeadReport, dry_run: bool, error: Refusal) -> Result<Exit, Refusal> {
    tell(global, report, dry_run)?;
    Err(error)
}

fn interrupted(global: &Global, report: &DeadReport) -> Result<Exit, Refusal> {
    tell(global, report, false)?;
    Err(Refusal::failed("interrupted; the same command goes on from here"))
}

/// Prints what was done; something that was asked for and is not there is a failure.
pub(super) fn tell(global: &Global, report: &DeadReport, dry_run: bool) -> Result<Exit, Refusal> {
    let out = &mut output::stdout();
    if global.json {
        output::print_json(out, report)?;
    } else {
        for skipped in &report.skipped {
            writeln!(out, "skipped {}: {}", printable(&skipped.id), printable(&skipped.reason))?;
        }
        report.missing.iter().try_for_each(|id| writeln!(out, "missing {}", printable(id)))?;
        report.notes.iter().try_for_each(|note| writeln!(out, "note {}", printable(note)))?;
        let would = if dry_run { "would be " } else { "" };
        let (skipped, missing) = (report.skipped.len(), report.missing.len());
        let done = [(report.imported, "imported"), (report.purged, "purged")];
        let done = done.into_iter().filter(|(count, _)| *count > 0);
        let done: Vec<String> = done.map(|(count, what)| format!("{count} {would}{what}")).collect();
        let requeued = format!("{} {would}requeued", report.requeued);
        let first = if done.is_empty() || report.requeued > 0 { Some(requeued) } else { None };
        let all: Vec<String> = first.into_iter().chain(done).collect();
        writeln!(out, "{}, {skipped} skipped, {missing} missing", all.join(", "))?;
        out.flush()?;
    }
    Ok(if report.missing.is_empty() { Exit::Done } else { Exit::Failed })
}

fn export(global: &Global, access: &Access, dir: &Path, filter: &Filter) -> Result<Exit, Refusal> {
    let named = |error| Refusal::failed(format!("{}: {error}", dir.display()));
    create_dir_durably(&RealFs, dir).map_err(named)?;
    let (mut written, mut after) = (0_u64, None::<String>);
    loop {
        let page = access.page(filter, after.as_deref(), AT_ONCE)?;
        for head in &page.letters {
            // Gone meanwhile is gone.
            let Some(view) = access.one(&head.id)? else { continue };
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let is_plain = !view.file.is_empty() && !view.file.starts_with('.') && view.file.chars().all(plain);
            let name = if is_plain { view.file.clone() } else { format!("{}.json", head.id.replace('/', "_")) };
            let path = dir.join(name);
            let text = format!("{}\n", view.letter.get());
            replace_durably(&RealFs, &path, text.as_bytes())
                .map_err(|error| Refusal::failed(format!("{}: {error}", path.display())))?;
            written += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let out = &mut output::stdout();
    match global.json {
        true => output::print_json(out, &serde_json::json!({"exported": written}))?,
        false => writeln!(out, "{written} exported to {}", dir.display())?,
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn import(global: &Global, access: &Access, paths: &[PathBuf], dry_run: bool) -> Result<Exit, Refusal> {
    let mut report = DeadReport::default();
    let mut bad = 0_u64;
    let mut take = |path: &Path| match read_text(path).and_then(|text| access.import(&text, dry_run)) {
        Ok(done) => report.add(done),
        Err(error) => {
            bad += 1;
            complain(&format!("{}: {error}", path.display()));
        }
    };
    for path in paths {
        match RealFs.meta(path)? {
            Some(meta) if meta.is_dir => {
                let files =
                    RealFs.list(path)?.into_iter().filter(|entry| !entry.is_dir && entry.name.ends_with(".json"));
                files.for_each(|entry| take(&path.join(entry.name)));
            }
            Some(_) | None => take(path),
        }
    }
    if global.json {
        output::print_json(&mut output::stdout(), &report)?;
    } else {
        let out = &mut output::stdout();
        for skipped in &report.skipped {
            writeln!(out, "skipped {}: {}", printable(&skipped.id), printable(&skipped.reason))?;
        }
        report.notes.iter().try_for_each(|note| writeln!(out, "note {}", printable(note)))?;
        let would = if dry_run { "would be " } else { "" };
        writeln!(out, "{} {would}imported, {} skipped, {bad} bad", report.imported, report.skipped.len())?;
        out.flush()?;
    }
    Ok(if bad == 0 { Exit::Done } else { Exit::Failed })
}

fn bury(global: &Global, access: &Access, request: &BuryRequest) -> Result<Exit, Refusal> {
    let mut report = access.bury(request)?;
    while report.next.take().is_some() {
        // The last part may have been all of it.
        report.add(DeadReport { missing: Vec::new(), ..access.bury(request)? });
    }
    let out = &mut output::stdout();
    if global.json {
        output::print_json(out, &report)?;
    } else {
        report.missing.iter().try_for_each(|who| writeln!(out, "nothing waits for {}", printable(who)))?;
        report.notes.iter().try_for_each(|note| writeln!(out, "note {}", printable(note)))?;
        let would = if request.dry_run { "would be " } else { "" };
        writeln!(out, "{} {would}buried", report.buried)?;
    }
    out.flush()?;
    Ok(if report.missing.is_empty() { Exit::Done } else { Exit::Failed })
}

fn purge(
    global: &Global,
    access: &Access,
    ids: &[String],
    older_than: Option<Duration>,
    yes: bool,
) -> Result<Exit, Refusal> {
    let before_ms = older_than.map(|age| {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        now_ms().saturating_sub(age)
    });
    let what = match older_than {
        Some(age) => format!("all dead letters older than {}", crate::config::format_duration(age)),
        None if ids.len() == 1 => "one dead letter".to_owned(),
        None => format!("{} dead letters", ids.len()),
    };
    if !yes && !confirmed(&what)? {
        return Err(Refusal::failed("nothing was removed"));
    }
    let mut report = DeadReport::default();
    if before_ms.is_some() {
        loop {
            report.add(access.purge(&PurgeRequest { ids: Vec::new(), before_ms })?);
            if report.next.take().is_none() {
                break;
            }
        }
    }
    for part in ids.chunks(MOST) {
        report.add(access.purge(&PurgeRequest { ids: part.to_vec(), before_ms: None })?);
    }
    let out = &mut output::stdout();
    match global.json {
        true => output::print_json(out, &report)?,
        false => {
            report.missing.iter().try_for_each(|id| writeln!(out, "missing {}", printable(id)))?;
            for skipped in &report.skipped {
                writeln!(out, "skipped {}: {}", printable(&skipped.id), printable(&skipped.reason))?;
            }
            let (skipped, missing) = (report.skipped.len(), report.missing.len());
            writeln!(out, "{} purged, {skipped} skipped, {missing} missing", report.purged)?;
        }
    }
    out.flush()?;
    Ok(if report.missing.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Asks a person.
fn confirmed(what: &str) -> Result<bool, Refusal> {
    if !io::stdin().is_terminal() {
        return Err(Refusal::usage(format!("{what} would be removed for good: --yes says that this is meant")));
    }
    write!(io::stderr(), "Remove {what} for good? [y/N] ")?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_counts_and_nothing_in_it_steers_a_terminal() {
        let head = Head {
            id: "0123456789abcdef0123-0123456789ab".to_owned(),
            time_ms: 1_000,
            consumer: "Carver\u{1b}".to_owned(),
            version: "1".to_owned(),
            stage: String::new(),
            status: "error-input".to_owned(),
            reason: "no content".to_owned(),
            attempts: 1,
            kafka_key: "k".to_owned(),
            sha256: "a".repeat(64),
            source: "lab".to_owned(),
            filename: String::new(),
            file: "f.json".to_owned(),
            requeued: None,
        };
        let mut listed = Listed { more: 2, ..Listed::default() };
        count(&mut listed.counts, &head);
        count(&mut listed.counts, &head);
        listed.letters.push(head);
        let mut out = Vec::new();
        print_list(&listed, 61_000, &mut out).unwrap();
        let want = "CONSUMER        STATUS       DEAD  REQUEUED\n\
                    Carver\\u{1b}   error-input     2         0\n\n\
                    ID                                 AGE  CONSUMER        VERSION  STATUS       SOURCE  \
                    ENTITY        REASON\n\
                    0123456789abcdef0123-0123456789ab  1m   Carver\\u{1b}         1  error-input  lab     \
                    aaaaaaaaaaaa  no content\nand 2 more\n";
        let got = String::from_utf8(out).unwrap();
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(&got), squeeze(want));
    }
}
