//! Log files of `logging.path`: requests, and events that something was wrong with, one JSON object a line.
//!
//! Contract events.md 9.3. Nobody waits for a disk here: lines go through a bounded queue to one thread, and what does not
//! fit is dropped and counted. Called by the HTTP edge and the dispatcher.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use azulite_storage::fs::{self, Fs, FsFile, RealFs};
use serde::Serialize;

use crate::dispatcher::model::{self, EventOf, Text, Timestamp};
use crate::metrics::Metrics;

/// A file that would grow past this is put aside.
const FILE_BYTES: u64 = 2_000_000;
/// Files put aside that are kept, of each name.
const KEPT_FILES: u32 = 3;
/// What was put aside longer ago goes with the next one.
const KEPT_MS: i64 = 28 * 86_400_000;
/// Lines that may wait for the disk.
const WAITING_LINES: usize = 512;
/// Longest part of a line that comes from outside.
const TEXT_BYTES: usize = 4 << 10;
/// Most of an event that is shown.
const EVENT_BYTES: usize = 16 << 10;

/// The files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    RequestsOk,
    RequestsErr,
    Producer,
    Consumer,
}

const KINDS: [Kind; 4] = [Kind::RequestsOk, Kind::RequestsErr, Kind::Producer, Kind::Consumer];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::RequestsOk => "restapi.ok.log",
            Self::RequestsErr => "restapi.err.log",
            Self::Producer => "producer.err.log",
            Self::Consumer => "consumer.err.log",
        }
    }
}

/// One request and its answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RequestLine {
    /// When it was answered.
    pub time: String,
    /// Seconds until the answer was there.
    pub duration_s: f64,
    /// Status of the answer; 400 and more goes into the other file.
    pub status: u16,
    /// As sent.
    pub method: String,
    /// Template of the path.
    pub route: &'static str,
    /// As sent.
    pub path: String,
    /// As sent.
    pub query: String,
    /// Address of the client.
    pub remote: String,
    /// As sent.
    pub user_agent: String,
    /// The answer to a request that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_body: Option<serde_json::Value>,
    /// The same, when it is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_body_invalid: Option<String>,
}

/// An event that something was wrong with.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EventLine {
    time: String,
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    pipeline: &'static str,
    description: String,
    error: String,
    event_bytes: String,
    event: Option<serde_json::Value>,
}

/// As much of an event as a log shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    text: String,
    whole: bool,
}

impl Excerpt {
    /// Of a decoded event: its JSON.
    pub fn of<T: Text>(event: &EventOf<T>) -> Self {
        Self::of_text(&String::from_utf8_lossy(&model::to_json(event)))
    }

    /// Of the JSON text of an event.
    pub fn of_text(text: &str) -> Self {
        Self { text: cut(text, EVENT_BYTES).to_owned(), whole: text.len() <= EVENT_BYTES }
    }

    /// Of bytes that are no event: base64.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        use base64::Engine as _;
        let shown = bytes.get(..EVENT_BYTES * 3 / 4).unwrap_or(bytes);
        Self { text: base64::engine::general_purpose::STANDARD.encode(shown), whole: false }
    }
}

impl EventLine {
    /// `pipeline` is the stage, `description` what was being done. The whole event is shown as `event`, what is too large
    /// or cannot be decoded is begun in `event_bytes`.
    pub fn new(user_agent: &str, pipeline: &'static str, description: &str, error: &str, excerpt: Excerpt) -> Self {
        let event = excerpt.whole.then(|| serde_json::from_str(&excerpt.text).ok()).flatten();
        Self {
            time: now(),
            user_agent: cut(user_agent, TEXT_BYTES).to_owned(),
            plugin: None,
            version: None,
            pipeline,
            description: cut(description, TEXT_BYTES).to_owned(),
            error: cut(error, TEXT_BYTES).to_owned(),
            event_bytes: if event.is_some() { String::new() } else { excerpt.text },
            event,
        }
    }
}

/// A line on its way, and where to.
type Line = (Kind, Vec<u8>);

/// Where lines go; cheap to share.
pub struct LogFiles {
    lines: Mutex<Option<SyncSender<Line>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for LogFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogFiles")
    }
}

impl LogFiles {
    /// Makes the folder, if it is missing, and opens the files for appending.
    ///
    /// # Errors
    /// What the operating system says, with the path.
    pub fn open(folder: &Path, metrics: Arc<Metrics>) -> io::Result<Self> {
        let system: Arc<dyn Fs> = Arc::new(RealFs);
        let named =
            |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        fs::create_dir_durably(system.as_ref(), folder).map_err(|error| named(folder, error))?;
        let open = |kind: Kind| {
            let path = folder.join(kind.name());
            Rotating::open(system.clone(), path.clone()).map_err(|error| named(&path, error))
        };
        let files = KINDS.into_iter().map(|kind| Ok((kind, open(kind)?))).collect::<io::Result<Vec<_>>>()?;
        let (lines, waiting) = sync_channel(WAITING_LINES);
        let counted = metrics.clone();
        let write = move || write_lines(files, &waiting, &counted);
        let writer = std::thread::Builder::new().name("azulite-log-files".to_owned()).spawn(write)?;
        Ok(Self { lines: Mutex::new(Some(lines)), writer: Mutex::new(Some(writer)), metrics })
    }

    /// Notes a request.
    pub fn request(&self, line: RequestLine) {
        let kind = if line.status >= 400 { Kind::RequestsErr } else { Kind::RequestsOk };
        let [path, query, user_agent] =
            [&line.path, &line.query, &line.user_agent].map(|text| cut(text, TEXT_BYTES).to_owned());
        let method = cut(&line.method, 32).to_owned();
        self.write(kind, &RequestLine { time: now(), method, path, query, user_agent, ..line });
    }

    /// Notes an event that could not be published as it should be.
    pub fn producer(&self, line: &EventLine) {
        self.write(Kind::Producer, line);
    }

    /// Notes an event that could not be handed to `plugin` as it should be.
    pub fn consumer(&self, plugin: &str, version: &str, line: EventLine) {
        let [plugin, version] = [plugin, version].map(|text| Some(cut(text, TEXT_BYTES).to_owned()));
        self.write(Kind::Consumer, &EventLine { plugin, version, ..line });
    }

    fn write(&self, kind: Kind, line: &impl Serialize) {
        let Ok(mut line) = serde_json::to_vec(line) else { return };
        line.push(b'\n');
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.as_ref().is_none_or(|lines| lines.try_send((kind, line)).is_err()) {
            self.metrics.log_lines_dropped.inc([kind.name()]);
        }
    }

    /// Writes what waits and ends the thread. Blocks. Later lines are dropped.
    pub fn close(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that writes log files has panicked");
        }
    }
}

fn now() -> String {
    let mut text = String::new();
    Timestamp::from_millis(azulite_storage::clock::now_ms()).push_rfc3339(&mut text);
    text
}

/// The beginning of `text`, at most so many bytes of whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

fn write_lines(mut files: Vec<(Kind, Rotating)>, lines: &Receiver<Line>, metrics: &Metrics) {
    let mut failing = false;
    for (kind, line) in lines {
        let Some((_, file)) = files.iter_mut().find(|(of, _)| *of == kind) else { continue };
        match file.append(&line, azulite_storage::clock::now_ms()) {
            Ok(()) => failing = false,
            Err(error) => {
                metrics.log_lines_dropped.inc([kind.name()]);
                if !std::mem::replace(&mut failing, true) {
                    let path = file.path.display();
                    tracing::warn!(%path, %error, "a log file cannot be written; lines are dropped until it can");
                }
            }
        }
    }
}

/// A file that is put aside as `<name>.1` when it is full, the one before as `<name>.2`, and so on.
struct Rotating {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    file: Arc<dyn FsFile>,
    len: u64,
}

impl Rotating {
    fn open(fs: Arc<dyn Fs>, path: PathBuf) -> io::Result<Self> {
        let file = match fs.open_write(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs.create(&path)?,
            opened => opened?,
        };
        let len = file.len()?;
        Ok(Self { fs, path, file, len })
    }

    fn append(&mut self, line: &[u8], now_ms: i64) -> io::Result<()> {
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.len > 0 && self.len.saturating_add(bytes) > FILE_BYTES {
            self.put_aside(now_ms)?;
        }
        self.file.write_all_at(&mut [IoSlice::new(line)], self.len)?;
        self.len += bytes;
        Ok(())
    }

    fn aside(&self, number: u32) -> PathBuf {
        fs::with_suffix(&self.path, &format!(".{number}"))
    }

    fn put_aside(&mut self, now_ms: i64) -> io::Result<()> {
        for number in (1..KEPT_FILES).rev() {
            self.rename(&self.aside(number), &self.aside(number + 1))?;
        }
        self.rename(&self.path, &self.aside(1))?;
        self.file = self.fs.create(&self.path)?;
        self.len = 0;
        for old in (1..=KEPT_FILES).map(|number| self.aside(number)) {
            if self.fs.meta(&old)?.is_some_and(|meta| meta.modified_ms.saturating_add(KEPT_MS) < now_ms) {
                self.fs.remove_file(&old)?;
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.fs.rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        RealFs.list(folder).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn a_full_file_is_put_aside_and_three_of_them_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let now_ms = azulite_storage::clock::now_ms();
        let mut file = Rotating::open(Arc::new(RealFs), path.clone()).unwrap();
        let line = |number: u8| [vec![number; 999_998], b"!\n".to_vec()].concat();
        for number in 0..11 {
            file.append(&line(number), now_ms).unwrap();
        }
        assert_eq!(names(folder.path()), ["x.log", "x.log.1", "x.log.2", "x.log.3"]);
        let first = |name: &str| std::fs::read(folder.path().join(name)).unwrap()[0];
        assert_eq!(["x.log", "x.log.1", "x.log.2", "x.log.3"].map(first), [10, 8, 6, 4]);
        let mut again = Rotating::open(Arc::new(RealFs), path.clone()).unwrap();
        again.append(b"after a restart\n", now_ms).unwrap();
        assert!(std::fs::read(&path).unwrap().ends_with(b"!\nafter a restart\n"));
        again.append(&line(11), now_ms + KEPT_MS * 2).unwrap();
        assert_eq!(names(folder.path()), ["x.log"], "older than 28 days");
    }

    #[test]
    fn lines_have_exactly_the_keys_of_the_contract_and_are_bounded() {
        let keys = |line: &dyn erased::Line| -> Vec<String> {
            let json = line.json();
            json.as_object().unwrap().keys().cloned().collect()
        };
        let request = RequestLine { response_body: Some(serde_json::json!({})), ..RequestLine::default() };
        let mut wanted =
            ["duration_s", "method", "path", "query", "remote", "response_body", "route", "status"].to_vec();
        wanted.extend(["time", "user_agent"]);
        assert_eq!(keys(&request), wanted);
        let line = EventLine::new("ua", "InjectId", "what", "why", Excerpt::of_text("{\"a\":1}"));
        let wanted = ["description", "error", "event", "event_bytes", "pipeline", "time", "user_agent"];
        assert_eq!(keys(&line), wanted);
        assert_eq!((&line.event, line.event_bytes.as_str()), (&Some(serde_json::json!({"a": 1})), ""));
        let large = Excerpt::of_text(&format!("\"{}\"", "ä".repeat(EVENT_BYTES)));
        let line = EventLine::new("ua", "InjectId", "what", &"x".repeat(1 << 20), large);
        assert_eq!((line.event, line.error.len()), (None, TEXT_BYTES));
        assert!((EVENT_BYTES - 4..=EVENT_BYTES).contains(&line.event_bytes.len()));
        assert_eq!(Excerpt::of_bytes(&[0; 1 << 20]).text.len(), EVENT_BYTES);
    }

    /// Lines of either kind, as JSON.
    mod erased {
        pub(super) trait Line {
            fn json(&self) -> serde_json::Value;
        }
        impl<T: serde::Serialize> Line for T {
            fn json(&self) -> serde_json::Value {
                serde_json::to_value(self).unwrap()
            }
        }
    }

    #[test]
    fn lines_are_there_after_closing_and_dropped_ones_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let files = LogFiles::open(&folder.path().join("a").join("b"), metrics.clone()).unwrap();
        files.request(RequestLine { status: 200, ..RequestLine::default() });
        files.request(RequestLine { status: 425, ..RequestLine::default() });
        files.consumer("p", "1", EventLine::default());
        files.close();
        files.producer(&EventLine::default());
        let folder = folder.path().join("a").join("b");
        let lines = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap().lines().count();
        assert_eq!(KINDS.map(|kind| lines(kind.name())), [1, 1, 0, 1]);
        assert_eq!(metrics.log_lines_dropped.at(["producer.err.log"]).get(), 1);
        let text = std::fs::read_to_string(folder.join("consumer.err.log")).unwrap();
        assert!(text.contains("\"plugin\":\"p\",\"version\":\"1\""), "{text}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = LogFiles::open(&file.join("logs"), Arc::new(Metrics::new())).unwrap_err();
        assert!(error.to_string().contains("file/logs"), "{error}");
        std::fs::create_dir_all(folder.path().join("restapi.ok.log")).unwrap();
        let error = LogFiles::open(folder.path(), Arc::new(Metrics::new())).unwrap_err();
        assert!(error.to_string().contains("restapi.ok.log"), "{error}");
    }
}
