//! The calls of Cuckoo and CAPE as one interface (workers.md 3.2): what each answers, and what each answer means.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::http::{Download, Http, Reply, SHOWN_BYTES, TempFile, Trouble, shown};
use super::multipart::{FilePart, Multipart};
use super::options::{Kind, Options};
use super::rate::Call;
use super::stop::Stop;

/// Largest report that is read.
const REPORT_MAX_BYTES: u64 = 256 << 20;
/// Largest archive of dropped files or screenshots, and largest capture.
const ARCHIVE_MAX_BYTES: u64 = 128 << 20;
const CAPTURE_MAX_BYTES: u64 = 256 << 20;
/// A download as short as this may be an error in disguise.
const ERROR_MAX_BYTES: u64 = 64 << 10;
/// Tasks that are read from one answer, and tasks one submission may bring.
const TASKS_MAX: usize = 100_000;
const TASKS_OF_ONE_FILE_MAX: usize = 64;

/// Why a call brought nothing.
#[derive(Debug)]
pub(super) enum ApiError {
    /// See [`Trouble`].
    Trouble(Trouble),
    /// The operator of the sandbox has switched this call off.
    Off(String),
    /// It knows no such task.
    Unknown(String),
    /// It says no, or something that makes no sense here; what it said.
    Refused(String),
}

impl ApiError {
    /// What was answered, or why nothing was.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Off(text) | Self::Unknown(text) | Self::Refused(text) => text.clone(),
            Self::Trouble(
                Trouble::Unreachable(text) | Trouble::Refused(text) | Trouble::Unsure(text) | Trouble::Local(text),
            ) => text.clone(),
            Self::Trouble(Trouble::Throttled(_)) => "asked too often".to_owned(),
            Self::Trouble(Trouble::TooLarge(limit)) => format!("the answer is longer than {limit} bytes"),
            Self::Trouble(Trouble::Stopped) => "stopped".to_owned(),
        }
    }
}

impl From<Trouble> for ApiError {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// How busy a sandbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) pending: u64,
    pub(super) running: u64,
    /// Bytes, of the fullest file system; `None` when it does not tell.
    pub(super) free: Option<u64>,
}

/// A task of which a list told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: u64,
    pub(super) status: String,
    /// The form field of that name.
    pub(super) custom: String,
}

/// A file to submit.
pub(super) struct Submission<'a> {
    pub(super) name: &'a str,
    pub(super) size: u64,
    pub(super) bytes: &'a mut dyn std::io::Read,
    /// Form fields.
    pub(super) fields: Vec<(&'a str, &'a str)>,
    /// See [`Multipart::new`].
    pub(super) boundary: String,
}

/// A sandbox, spoken to in its own way.
pub(super) struct Api {
    kind: Kind,
    http: Http,
    /// CAPE: the cheap call for a task's state is switched off.
    status_is_off: AtomicBool,
}

impl Api {
    /// The sandbox of `options`; downloads go to `temporary`.
    ///
    /// # Errors
    /// Text for people: files that `options` names and that cannot be used.
    pub(super) fn new(options: &Options, temporary: PathBuf, stop: Arc<Stop>) -> Result<Self, String> {
        let base = options.url.trim_end_matches('/');
        let (base, word) = match options.kind {
            Kind::Cuckoo => (base.to_owned(), "Bearer"),
            Kind::Cape if base.ends_with("/apiv2") => (base.to_owned(), "Token"),
            Kind::Cape => (format!("{base}/apiv2"), "Token"),
        };
        let http = Http::new(options, base, word, temporary, stop)?;
        Ok(Self { kind: options.kind, http, status_is_off: AtomicBool::new(false) })
    }

    /// Where downloads go.
    pub(super) fn temporary(&self) -> &std::path::Path {
        self.http.temporary()
    }

    /// How busy it is; [`ApiError::Off`] when it does not tell.
    pub(super) fn capacity(&self) -> Result<Capacity, ApiError> {
        let value = match self.kind {
            Kind::Cuckoo => {
                let reply = self.http.get(Call::Capacity, "/cuckoo/status")?;
                match reply.status {
                    200 => json(&reply)?,
                    404 => return Err(ApiError::Off(reply.shown())),
                    _ => return Err(refused(&reply)),
                }
            }
            Kind::Cape => {
                let reply = self.http.get(Call::Capacity, "/cuckoo/status/")?;
                if reply.status == 404 {
                    return Err(ApiError::Off(reply.shown()));
                }
                enveloped(&reply)?
            }
        };
        let tasks = value.get("tasks");
        let count = |name: &str| tasks.and_then(|tasks| tasks.get(name)).and_then(Value::as_u64);
        let pending =
            count("pending").ok_or_else(|| ApiError::Refused(format!("no tasks.pending in {}", brief(&value))))?;
        Ok(Capacity { pending, running: count("running").unwrap_or(0), free: free_bytes(self.kind, &value) })
    }

    /// Tasks of a file, newest first; Cuckoo has no such call.
    pub(super) fn search(&self, sha256: &str) -> Result<Vec<Listed>, ApiError> {
        if self.kind == Kind::Cuckoo {
            return Err(ApiError::Off("Cuckoo has no search by hash".to_owned()));
        }
        let reply = self.http.get(Call::Search, &format!("/tasks/search/sha256/{sha256}/"))?;
        Ok(listed(&enveloped(&reply)?))
    }

    /// Tasks whose field `custom` contains `mark`, to find out whether a submission arrived.
    pub(super) fn marked(&self, sha256: &str, mark: &str) -> Result<Vec<Listed>, ApiError> {
        let tasks = match self.kind {
            Kind::Cape => self.search(sha256)?,
            Kind::Cuckoo => {
                let reply = self.http.get(Call::Search, "/tasks/list")?;
                if reply.status != 200 {
                    return Err(ApiError::Off(reply.shown()));
                }
                listed(json(&reply)?.get("tasks").unwrap_or(&Value::Null))
            }
        };
        Ok(tasks.into_iter().filter(|task| task.custom.contains(mark)).collect())
    }

    /// Submits a file; the ids of its tasks, at least one.
    pub(super) fn create(&self, submission: Submission<'_>) -> Result<Vec<u64>, ApiError> {
        let path = match self.kind {
            Kind::Cuckoo => "/tasks/create/file",
            Kind::Cape => "/tasks/create/file/",
        };
        let Submission { name, size, bytes, fields, boundary } = submission;
        let file = FilePart { field: "file", name, size, bytes };
        let reply = self.http.post(Call::Create, path, &mut Multipart::new(boundary, fields.into_iter(), file))?;
        if reply.status != 200 {
            return Err(refused(&reply));
        }
        let ids = created(&json(&reply)?);
        if ids.is_empty() { Err(ApiError::Refused(reply.shown())) } else { Ok(ids) }
    }

    /// The state of a task, in the sandbox's word.
    pub(super) fn state(&self, id: u64) -> Result<String, ApiError> {
        if self.kind == Kind::Cape && !self.status_is_off.load(Ordering::Relaxed) {
            let reply = self.http.get(Call::Status, &format!("/tasks/status/{id}/"))?;
            match enveloped(&reply) {
                Ok(value) => return state_word(&value),
                Err(ApiError::Off(_)) => self.status_is_off.store(true, Ordering::Relaxed),
                // A server of another version has no such page.
                Err(ApiError::Unknown(_)) if serde_json::from_slice::<Value>(&reply.body).is_err() => {
                    self.status_is_off.store(true, Ordering::Relaxed);
                }
                Err(other) => return Err(other),
            }
        }
        let value = match self.kind {
            Kind::Cape => enveloped(&self.http.get(Call::View, &format!("/tasks/view/{id}/"))?)?,
            Kind::Cuckoo => {
                let reply = self.http.get(Call::View, &format!("/tasks/view/{id}"))?;
                match reply.status {
                    200 => json(&reply)?.get("task").cloned().unwrap_or(Value::Null),
                    404 => return Err(ApiError::Unknown(reply.shown())),
                    _ => return Err(refused(&reply)),
                }
            }
        };
        state_word(&value)
    }

    /// The report of a task.
    pub(super) fn report(&self, id: u64) -> Result<TempFile, ApiError> {
        match self.kind {
            Kind::Cuckoo => self.file(Call::Report, &format!("/tasks/report/{id}"), REPORT_MAX_BYTES),
            Kind::Cape => self.file(Call::Report, &format!("/tasks/get/report/{id}/"), REPORT_MAX_BYTES),
        }
    }

    /// What the analysis left behind: tar.bz2 of Cuckoo, zip of CAPE.
    pub(super) fn dropped(&self, id: u64) -> Result<TempFile, ApiError> {
        match self.kind {
            Kind::Cuckoo => self.file(Call::Dropped, &format!("/tasks/report/{id}/dropped"), ARCHIVE_MAX_BYTES),
            Kind::Cape => self.file(Call::Dropped, &format!("/tasks/get/dropped/{id}/"), ARCHIVE_MAX_BYTES),
        }
    }

    /// A zip of pictures.
    pub(super) fn screenshots(&self, id: u64) -> Result<TempFile, ApiError> {
        match self.kind {
            Kind::Cuckoo => self.file(Call::Screenshot, &format!("/tasks/screenshots/{id}"), ARCHIVE_MAX_BYTES),
            Kind::Cape => self.file(Call::Screenshot, &format!("/tasks/get/screenshot/{id}/"), ARCHIVE_MAX_BYTES),
        }
    }

    /// What went over the wire.
    pub(super) fn pcap(&self, id: u64) -> Result<TempFile, ApiError> {
        match self.kind {
            Kind::Cuckoo => self.file(Call::Pcap, &format!("/pcap/get/{id}"), CAPTURE_MAX_BYTES),
            Kind::Cape => self.file(Call::Pcap, &format!("/tasks/get/pcap/{id}/"), CAPTURE_MAX_BYTES),
        }
    }

    /// Configurations of malware that CAPE took out of memory.
    pub(super) fn config(&self, id: u64) -> Result<Value, ApiError> {
        let reply = self.http.get(Call::Config, &format!("/tasks/get/config/{id}/"))?;
        if reply.status != 200 {
            return Err(refused(&reply));
        }
        let value = json(&reply)?;
        fault_of(&value).map_or(Ok(value), Err)
    }

    /// Removes a task and what belongs to it; one that is gone is no error.
    pub(super) fn delete(&self, id: u64) -> Result<(), ApiError> {
        let done = match self.kind {
            Kind::Cuckoo => {
                let reply = self.http.get(Call::Delete, &format!("/tasks/delete/{id}"))?;
                if reply.status == 200 || reply.status == 404 { Ok(()) } else { Err(refused(&reply)) }
            }
            Kind::Cape => enveloped(&self.http.get(Call::Delete, &format!("/tasks/delete/{id}/"))?).map(|_| ()),
        };
        match done {
            Err(ApiError::Unknown(_)) => Ok(()),
            other => other,
        }
    }

    fn file(&self, call: Call, path: &str, limit: u64) -> Result<TempFile, ApiError> {
        let file = match self.http.download(call, path, limit)? {
            Download::File(file) => file,
            Download::Other(reply) if reply.status == 404 && is_disabled(&reply.shown()) => {
                return Err(ApiError::Off(reply.shown()));
            }
            Download::Other(reply) => return Err(refused(&reply)),
        };
        if self.kind == Kind::Cape {
            let short = file.bytes(ERROR_MAX_BYTES).map_err(|error| Trouble::Local(error.to_string()))?;
            let short = short.filter(|bytes| bytes.trim_ascii_start().first() == Some(&b'{'));
            let fault = short.and_then(|bytes| serde_json::from_slice(&bytes).ok()).and_then(|value| fault_of(&value));
            if let Some(fault) = fault {
                return Err(fault);
            }
        }
        Ok(file)
    }
}

fn refused(reply: &Reply) -> ApiError {
    ApiError::Refused(format!("answered {}: {}", reply.status, reply.shown()))
}

fn json(reply: &Reply) -> Result<Value, ApiError> {
    serde_json::from_slice(&reply.body).map_err(|_| ApiError::Refused(format!("no JSON: {}", reply.shown())))
}

fn brief(value: &Value) -> String {
    shown(value.to_string().as_bytes())
}

/// The member `data` of what CAPE answers, or the fault it reports with status 200.
fn enveloped(reply: &Reply) -> Result<Value, ApiError> {
    let value = serde_json::from_slice::<Value>(&reply.body).ok();
    if let Some(fault) = value.as_ref().and_then(fault_of) {
        return Err(fault);
    }
    match (reply.status, value) {
        (200, Some(mut value)) => Ok(value.get_mut("data").map(Value::take).unwrap_or(Value::Null)),
        (404, _) => Err(ApiError::Unknown(reply.shown())),
        (200, None) => Err(ApiError::Refused(format!("no JSON: {}", reply.shown()))),
        _ => Err(refused(reply)),
    }
}

/// What CAPE calls an error: `error` is true, or a text, or a list that is not empty.
fn fault_of(value: &Value) -> Option<ApiError> {
    let error = value.as_object()?.get("error")?;
    let is_error = match error {
        Value::Bool(error) => *error,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Null | Value::Number(_) => false,
    };
    if !is_error {
        return None;
    }
    let text = match value.get("error_value") {
        Some(Value::String(text)) => text.chars().take(SHOWN_BYTES).collect(),
        _ => brief(value),
    };
    let lower = text.to_lowercase();
    Some(if is_disabled(&lower) {
        ApiError::Off(text)
    } else if lower.contains("not exist") || lower.contains("task not found") || lower.contains("no task found") {
        ApiError::Unknown(text)
    } else {
        ApiError::Refused(text)
    })
}

fn is_disabled(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.contains("disabled") || lower.contains("not enabled")
}

fn free_bytes(kind: Kind, value: &Value) -> Option<u64> {
    match kind {
        Kind::Cuckoo => {
            let disks = value.get("diskspace")?.as_object()?.values();
            disks.filter_map(|disk| disk.get("free").and_then(Value::as_u64)).min()
        }
        Kind::Cape => {
            let free = value.get("server")?.get("storage")?.get("free")?;
            // GB, with a fraction on some versions, as text on others.
            match free.as_str() {
                Some(text) => gigabytes(text.split_whitespace().next()?),
                None => gigabytes(&free.to_string()),
            }
        }
    }
}

/// Bytes of a decimal number of GB, without floating point.
fn gigabytes(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    let thousandths = whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction.parse().ok()?)?;
    thousandths.checked_mul(1 << 30).map(|bytes| bytes / 1000)
}

fn listed(tasks: &Value) -> Vec<Listed> {
    let text = |task: &Value, name: &str| task.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let one = |task: &Value| {
        let id = task.get("id").or_else(|| task.get("task_id")).and_then(Value::as_u64)?;
        Some(Listed { id, status: text(task, "status"), custom: text(task, "custom") })
    };
    tasks.as_array().into_iter().flatten().take(TASKS_MAX).filter_map(one).collect()
}

/// Task ids in the answer to a submission, whichever of the two forms it has.
fn created(value: &Value) -> Vec<u64> {
    let data = value.get("data").unwrap_or(value);
    let many = data.get("task_ids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64);
    let mut ids: Vec<u64> = many.chain(data.get("task_id").and_then(Value::as_u64)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(TASKS_OF_ONE_FILE_MAX);
    ids
}

fn state_word(value: &Value) -> Result<String, ApiError> {
    let word = value.as_str().or_else(|| value.get("status").and_then(Value::as_str));
    word.filter(|word| !word.is_empty() && word.len() <= 64)
        .map(str::to_owned)
        .ok_or_else(|| ApiError::Refused(format!("no state: {}", brief(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, text: &str) -> Reply {
        Reply { status, body: text.as_bytes().to_vec() }
    }

    #[test]
    fn faults_of_cape_are_told_apart() {
        let of = |text: &str| enveloped(&reply(200, text));
        assert!(matches!(of(r#"{"error":true,"error_value":"Task View API is Disabled"}"#), Err(ApiError::Off(_))));
        assert!(matches!(of(r#"{"error":true,"error_value":"Task does not exist"}"#), Err(ApiError::Unknown(_))));
        assert!(matches!(
            of(r#"{"error":true,"error_value":"Task not found in database"}"#),
            Err(ApiError::Unknown(_))
        ));
        assert!(matches!(of(r#"{"error":true,"message":"no"}"#), Err(ApiError::Refused(_))));
        assert!(matches!(of("<html>"), Err(ApiError::Refused(_))));
        assert!(matches!(enveloped(&reply(404, "<html>")), Err(ApiError::Unknown(_))));
        assert_eq!(of(r#"{"error":false,"data":"pending"}"#).unwrap(), "pending");
        assert_eq!(of(r#"{"error":[],"data":{"a":1}}"#).unwrap()["a"], 1);
    }

    #[test]
    fn task_ids_are_read_from_both_forms() {
        let of = |text: &str| created(&serde_json::from_str(text).unwrap());
        assert_eq!(of(r#"{"task_id":7}"#), [7]);
        assert_eq!(of(r#"{"error":[],"data":{"task_ids":[9,3,9],"message":"x"}}"#), [3, 9]);
        assert_eq!(of(r#"{"task_id":null}"#), [0; 0]);
        assert_eq!(of(r#"{"data":{"task_ids":[-1,"x",1.5]}}"#), [0; 0]);
    }

    #[test]
    fn free_space_is_read_in_every_form() {
        let of = |kind, text: &str| free_bytes(kind, &serde_json::from_str(text).unwrap());
        let two = r#"{"diskspace":{"analyses":{"free":5},"binaries":{"free":3},"temporary":{"used":1}}}"#;
        assert_eq!(of(Kind::Cuckoo, two), Some(3));
        assert_eq!(of(Kind::Cuckoo, "{}"), None);
        let cape = |free: &str| of(Kind::Cape, &format!(r#"{{"server":{{"storage":{{"free":{free}}}}}}}"#));
        assert_eq!(cape("2"), Some(2 << 30));
        assert_eq!(cape("\"1.5 GB\""), Some(3 << 29));
        assert_eq!(cape("[]"), None);
    }

    #[test]
    fn a_state_is_a_word() {
        let of = |text: &str| state_word(&serde_json::from_str(text).unwrap());
        assert_eq!(of("\"running\"").unwrap(), "running");
        assert_eq!(of(r#"{"status":"reported"}"#).unwrap(), "reported");
        assert!(of("{}").is_err() && of("3").is_err() && of("null").is_err());
    }

    #[test]
    fn listed_tasks_without_an_id_are_left_out() {
        let tasks =
            serde_json::json!([{"id": 4, "status": "reported", "custom": "x"}, {"status": "x"}, 5, {"task_id": 6}]);
        let ids: Vec<u64> = listed(&tasks).iter().map(|task| task.id).collect();
        assert_eq!(ids, [4, 6]);
        assert_eq!(listed(&Value::Null), []);
    }
}
