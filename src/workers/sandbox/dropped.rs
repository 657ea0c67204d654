//! Files out of the archives of a sandbox: what the analysis left behind, and pictures of the screen.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::ControlFlow;

use serde_json::json;

use super::http::TempFile;
use super::job::Failure;
use super::options::Kind;
use super::parse::{Run, RunError, publish, upload};
use crate::archive::{self, Limits, Member, Report};
use crate::dispatcher::model::BinaryEvent;
use crate::workers::results;

/// Bytes of an archive, which is held in memory.
const ARCHIVE_MAX_BYTES: u64 = 128 << 20;
/// Files of one task that become children.
const CHILDREN_MAX: usize = 1000;
/// Children in one request.
const AT_ONCE: usize = 50;
const SCREENSHOTS_MAX: usize = 10;
const SCREENSHOT_MAX_BYTES: u64 = 8 << 20;
/// Passwords that an event brings and that are tried.
const PASSWORDS_MAX: usize = 1000;

/// Publishes the files that were left behind as children of the file.
pub(super) fn dropped(run: &mut Run<'_>) -> Result<(), RunError> {
    let file = run.shared.api.dropped(run.id)?;
    let (shared, input) = (run.shared, run.input.clone());
    let mut children = Children { run, events: Vec::new(), count: 0, left_out: 0, itself: 0, failed: None };
    let report =
        walk(&file, &input, shared, Limits::default().max_member, &mut |member| match children.take(&member) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                children.failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
    let Children { run, events, count, left_out, itself, failed } = children;
    if let Some(error) = failed {
        return Err(error);
    }
    publish(run.shared, &events)?;
    if left_out > 0 {
        run.brought.errors.push(format!("dropped: the first {count} files are published, {left_out} more were there"));
    }
    if itself > 0 {
        run.brought.notes.push("dropped: the file itself was left behind as well".to_owned());
    }
    if let Some(report) = report {
        let notes = report.notes(Limits::default().max_member);
        run.brought.errors.extend(notes.into_iter().map(|note| format!("dropped: {note}")));
    }
    Ok(())
}

struct Children<'r, 'a> {
    run: &'r mut Run<'a>,
    events: Vec<BinaryEvent>,
    count: usize,
    left_out: u64,
    itself: u64,
    failed: Option<RunError>,
}

impl Children<'_, '_> {
    fn take(&mut self, member: &Member<'_>) -> Result<(), RunError> {
        let shared = self.run.shared;
        let is_other = shared.options.kind == Kind::Cuckoo && !member.path.split('/').any(|part| part == "files");
        if is_other || member.bytes.is_empty() || member.duplicate {
            return Ok(());
        }
        let name = member.path.rsplit(['/', '\\']).next().unwrap_or_default();
        if hex(&member.sha256) == self.run.input.entity.sha256 {
            // Its children would be those of the file, without end.
            self.itself += 1;
            return Ok(());
        }
        if self.count >= CHILDREN_MAX {
            self.left_out += 1;
            return Ok(());
        }
        let bytes = member.bytes.to_vec();
        let content =
            upload(shared, &self.run.input.source.name, "content", || Ok(Box::new(Cursor::new(bytes.clone()))))?;
        let mut features = vec![results::feature("filename", "filepath", name, "")];
        if member.unsafe_path {
            features.push(results::feature("tag", "string", "archive_unsafe_path", member.path));
        }
        let child = results::Child {
            content,
            streams: Vec::new(),
            filename: name.to_owned(),
            relationship: BTreeMap::from([("action".to_owned(), "dropped".to_owned())]),
            findings: results::Findings { features, ..results::Findings::default() },
        };
        match results::child(&shared.origin(&self.run.input), child) {
            Ok(mut event) => {
                self.run.brought.errors.extend(results::cut(&mut event));
                self.events.push(event);
                self.count += 1;
            }
            Err(error) => self.run.brought.errors.push(format!("dropped: {name} is no valid child: {error}")),
        }
        if self.events.len() >= AT_ONCE {
            publish(shared, &std::mem::take(&mut self.events))?;
        }
        Ok(())
    }
}

/// Publishes the first pictures of the screen.
pub(super) fn screenshots(run: &mut Run<'_>) -> Result<(), RunError> {
    let file = run.shared.api.screenshots(run.id)?;
    let mut pictures: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut count = 0_u64;
    walk(&file, &run.input, run.shared, SCREENSHOT_MAX_BYTES, &mut |member| {
        if is_picture(member.bytes) && !member.duplicate {
            count += 1;
            pictures.insert(member.path.to_owned(), member.bytes.to_vec());
            if pictures.len() > SCREENSHOTS_MAX {
                pictures.pop_last();
            }
        }
        ControlFlow::Continue(())
    })?;
    run.brought.info.insert("screenshot_count".to_owned(), json!(count));
    for (number, bytes) in pictures.into_values().enumerate() {
        let stream = run.stream("screenshot", || Ok(Box::new(Cursor::new(bytes.clone()))))?;
        if number == 0 {
            run.brought.info.insert("screenshot_hash".to_owned(), json!(stream.sha256));
        }
    }
    Ok(())
}

fn is_picture(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xff\xd8\xff") || bytes.starts_with(b"\x89PNG\r\n\x1a\n")
}

/// Visits the members of a downloaded archive; `None` when it is empty. Archives among them are not opened.
fn walk(
    file: &TempFile,
    input: &BinaryEvent,
    shared: &super::worker::Shared,
    max_member: u64,
    visit: &mut dyn FnMut(Member<'_>) -> ControlFlow<()>,
) -> Result<Option<Report>, RunError> {
    let Some(bytes) = file.bytes(ARCHIVE_MAX_BYTES)? else {
        return Err(RunError::Failed(Failure::new("error-exception", "the archive is too large", "")));
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    let limits = Limits { max_nesting: 0, max_member, ..Limits::default() };
    let passwords = passwords(input);
    let go_on = || !shared.stop.is_stopped();
    let options = archive::Options { name: "", limits: &limits, passwords: &passwords, go_on: &go_on };
    match archive::walk(&bytes, &options, visit) {
        Some(report) => Ok(Some(report)),
        None => {
            let answer = super::http::shown(&bytes);
            Err(RunError::Api(super::api::ApiError::Refused(format!("no archive: {answer}"))))
        }
    }
}

/// Those of the event come first, as everywhere; sandboxes use `infected`.
fn passwords(input: &BinaryEvent) -> Vec<String> {
    let own = input.source.settings.get("passwords").map(String::as_str).unwrap_or_default();
    let own = own.lines().map(str::trim).filter(|line| !line.is_empty()).take(PASSWORDS_MAX);
    own.chain(["infected", "password"]).map(str::to_owned).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
