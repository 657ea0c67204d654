//! A Cuckoo or a CAPE on loopback: the calls of workers.md 3.2 with their limits and answers, and every fault a test asks
//! for. It keeps what it was sent and counts what was too much.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cuckoo,
    Cape,
}

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status and body.
    Answer(u16, &'static str),
    /// No answer for so long, then none.
    Hang(Duration),
    /// The request is carried out and the connection is closed instead of an answer.
    DisconnectAfter,
    /// Half an answer.
    HalfAnswer,
}

/// A task as the sandbox knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Task {
    pub(crate) sha256: String,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) filename: String,
    pub(crate) bytes: Vec<u8>,
    /// States of the next looks; the last one stays.
    pub(crate) states: VecDeque<String>,
}

/// What a stand-in holds and does.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) tasks: BTreeMap<u64, Task>,
    pub(crate) deleted: BTreeSet<u64>,
    next_id: u64,
    /// What `tasks.pending` says.
    pub(crate) pending: u64,
    pub(crate) free: u64,
    /// States of every new task.
    pub(crate) script: Vec<&'static str>,
    /// Tasks that one submission makes.
    pub(crate) tasks_of_one: u64,
    pub(crate) report: Value,
    /// In place of the report.
    pub(crate) raw_report: Option<Vec<u8>>,
    pub(crate) dropped: Vec<u8>,
    pub(crate) screenshots: Vec<u8>,
    pub(crate) pcap: Vec<u8>,
    /// Calls that are switched off, by name.
    pub(crate) off: BTreeSet<&'static str>,
    /// So many looks at the list find nothing yet.
    pub(crate) unlisted_looks: usize,
    /// Calls that are held back while they are in here, by name.
    pub(crate) held: BTreeSet<&'static str>,
    /// The next faults of a call.
    pub(crate) faults: BTreeMap<&'static str, VecDeque<Fault>>,
    /// Limits of a call: count and window.
    pub(crate) limits: BTreeMap<&'static str, Vec<(usize, Duration)>>,
    /// Requests that were over a limit.
    pub(crate) throttled: u64,
    /// Every request: call, when.
    pub(crate) requests: Vec<(&'static str, Instant)>,
    /// What every request carried as `Authorization`.
    pub(crate) authorizations: BTreeSet<String>,
}

/// A running stand-in.
pub(crate) struct StandIn {
    kind: Kind,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// A port that nobody else gets while the stand-in is switched off: below those that the system gives to whoever asks for
/// any. Among those a client that tries again and again is one day connected to itself.
fn listen() -> TcpListener {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).expect("below 10,000") + 12_000;
    let bind = |_| TcpListener::bind(("127.0.0.1", first + NEXT.fetch_add(1, Ordering::SeqCst) % 10_000)).ok();
    (0..10_000).find_map(bind).expect("a free port")
}

impl StandIn {
    /// One on a free port.
    pub(crate) fn start(kind: Kind) -> StandIn {
        let state = State {
            free: 100 << 30,
            script: vec!["pending", "running", "reported"],
            tasks_of_one: 1,
            report: report(),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        StandIn::over(kind, state, listen())
    }

    fn over(kind: Kind, state: Arc<Mutex<State>>, listener: TcpListener) -> StandIn {
        let address = listener.local_addr().expect("an address");
        let stopped = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (Arc::clone(&state), Arc::clone(&stopped));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), state, ended) = (stream, Arc::clone(&shared), Arc::clone(&ended)) else { return };
                std::thread::spawn(move || serve(kind, &stream, &state, &ended));
            }
        });
        StandIn { kind, address, state, stopped, acceptor: Some(acceptor) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test thread panicked")
    }

    /// How many requests of a call came.
    pub(crate) fn count(&self, call: &str) -> usize {
        self.state().requests.iter().filter(|(name, _)| *name == call).count()
    }

    /// Switches the host off: nobody listens.
    pub(crate) fn switch_off(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor ends");
        }
    }

    /// Switches it on again, with what it knew.
    pub(crate) fn switch_on(&mut self) {
        let listener = TcpListener::bind(self.address).expect("the port is free again");
        let again = StandIn::over(self.kind, Arc::clone(&self.state), listener);
        *self = again;
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if self.acceptor.is_some() {
            self.switch_off();
        }
    }
}

/// A report with something for every parser.
pub(crate) fn report() -> Value {
    json!({
        "info": {"id": 1, "machine": {"name": "win10"}, "started": "2026-01-02 03:04:05", "ended": "2026-01-02 03:06:05"},
        "malscore": 7.5,
        "signatures": [
            {"name": "low_one", "description": "does little", "severity": 1, "confidence": 50},
            {"name": "high_one", "description": "does much", "severity": 3, "confidence": 90},
        ],
        "behavior": {
            "processes": [{"process_name": "a.exe", "process_id": 4, "parent_id": 2, "first_seen": "t",
                "calls": [{"api": "NtOpenFile"}, {"api": "NtClose"}, {"api": "NtClose"}]}],
            "summary": {"files": ["C:\\x"], "keys": ["HKLM\\x"], "mutexes": ["mtx"]},
        },
        "network": {"domains": [{"domain": "evil.example", "ip": "10.0.0.1"}]},
        "debug": {"log": "it ran"},
    })
}

struct Request {
    method: String,
    path: String,
    authorization: String,
    content_type: String,
    body: Vec<u8>,
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut authorization, mut content_type) = (0, String::new(), String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => value.clone_into(&mut authorization),
            "content-type" => value.clone_into(&mut content_type),
            "transfer-encoding" => panic!("old servers read no chunks"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, authorization, content_type, body })
}

fn serve(kind: Kind, stream: &TcpStream, state: &Mutex<State>, stopped: &AtomicBool) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        if stopped.load(Ordering::SeqCst) {
            return;
        }
        let (call, id) = name_of(kind, &request.path);
        let fault = {
            let mut state = state.lock().expect("not poisoned");
            state.requests.push((call, Instant::now()));
            state.authorizations.insert(request.authorization.clone());
            state.faults.get_mut(call).and_then(VecDeque::pop_front)
        };
        while state.lock().expect("not poisoned").held.contains(call) && !stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let answer = match &fault {
            Some(Fault::Answer(status, body)) => (*status, body.as_bytes().to_vec()),
            Some(Fault::Hang(time)) => {
                std::thread::sleep(*time);
                return;
            }
            Some(Fault::DisconnectAfter) => {
                answer(kind, call, id, &request, &mut state.lock().expect("not poisoned"));
                return;
            }
            Some(Fault::HalfAnswer) | None => {
                answer(kind, call, id, &request, &mut state.lock().expect("not poisoned"))
            }
        };
        if write_answer(stream, &answer, matches!(fault, Some(Fault::HalfAnswer))).is_none() {
            return;
        }
    }
}

fn write_answer(mut stream: &TcpStream, (status, body): &(u16, Vec<u8>), half: bool) -> Option<()> {
    let retry = if *status == 429 { "Retry-After: 1\r\n" } else { "" };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{retry}\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    if half {
        stream.write_all(&body[..body.len() / 2]).ok()?;
        return None;
    }
    stream.write_all(body).ok()
}

/// The call that a path is, and the task it is about.
fn name_of(kind: Kind, path: &str) -> (&'static str, u64) {
    let path = match kind {
        Kind::Cuckoo => path,
        // Without the slash at the end Django redirects, which loses a POST.
        Kind::Cape => path.strip_prefix("/apiv2").filter(|path| path.ends_with('/')).unwrap_or("/none"),
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let id = parts.iter().rev().find_map(|part| part.parse().ok()).unwrap_or(0);
    let call = match (kind, parts.as_slice()) {
        (_, ["cuckoo", "status"]) => "capacity",
        (_, ["tasks", "create", "file"]) => "create",
        (Kind::Cuckoo, ["tasks", "list"]) => "list",
        (Kind::Cape, ["tasks", "search", "sha256", _]) => "search",
        (Kind::Cape, ["tasks", "status", _]) => "status",
        (_, ["tasks", "view", _]) => "view",
        (Kind::Cuckoo, ["tasks", "report", _]) | (Kind::Cape, ["tasks", "get", "report", _]) => "report",
        (Kind::Cuckoo, ["tasks", "report", _, "dropped"]) | (Kind::Cape, ["tasks", "get", "dropped", _]) => "dropped",
        (Kind::Cuckoo, ["tasks", "screenshots", _]) | (Kind::Cape, ["tasks", "get", "screenshot", _]) => "screenshot",
        (Kind::Cuckoo, ["pcap", "get", _]) | (Kind::Cape, ["tasks", "get", "pcap", _]) => "pcap",
        (Kind::Cape, ["tasks", "get", "config", _]) => "config",
        (_, ["tasks", "delete", _]) => "delete",
        _ => "none",
    };
    (call, id)
}

fn answer(kind: Kind, call: &'static str, id: u64, request: &Request, state: &mut State) -> (u16, Vec<u8>) {
    if is_over_limit(call, state) {
        state.throttled += 1;
        return (429, br#"{"detail":"Request was throttled."}"#.to_vec());
    }
    if state.off.contains(call) {
        return match kind {
            Kind::Cuckoo => (404, b"Not Found".to_vec()),
            Kind::Cape => text(json!({"error": true, "error_value": format!("Task {call} API is Disabled")})),
        };
    }
    let gone = || match kind {
        Kind::Cuckoo => (404, br#"{"message":"Task not found"}"#.to_vec()),
        Kind::Cape => text(json!({"error": true, "error_value": "Task does not exist"})),
    };
    let known = state.tasks.contains_key(&id);
    match call {
        "capacity" => text(match kind {
            Kind::Cuckoo => json!({"tasks": {"pending": state.pending, "running": 0, "reported": 3},
                "diskspace": {"analyses": {"free": state.free, "total": 1, "used": 1}}}),
            Kind::Cape => json!({"error": false, "data": {"tasks": {"pending": state.pending, "running": 0},
                "server": {"storage": {"free": state.free >> 30}}}}),
        }),
        "create" if request.method == "POST" => create(kind, request, state),
        "list" if state.unlisted_looks > 0 => {
            state.unlisted_looks -= 1;
            text(json!({"tasks": []}))
        }
        "list" => text(json!({"tasks": state.tasks.iter().map(|(id, task)| listed(*id, task)).collect::<Vec<_>>()})),
        "search" => {
            let hash = request.path.split('/').rfind(|part| !part.is_empty()).unwrap_or_default();
            let found = state.tasks.iter().rev().filter(|(_, task)| task.sha256 == hash);
            text(json!({"error": false, "data": found.map(|(id, task)| listed(*id, task)).collect::<Vec<_>>()}))
        }
        "status" | "view" => {
            let Some(task) = state.tasks.get_mut(&id) else { return gone() };
            let word = if task.states.len() > 1 { task.states.pop_front() } else { task.states.front().cloned() };
            let word = word.unwrap_or_default();
            text(match (kind, call) {
                (Kind::Cuckoo, _) => json!({"task": {"id": id, "status": word}}),
                (Kind::Cape, "status") => json!({"error": false, "data": word}),
                (Kind::Cape, _) => json!({"error": false, "data": {"id": id, "status": word}}),
            })
        }
        "delete" if known => {
            state.tasks.remove(&id);
            state.deleted.insert(id);
            text(match kind {
                Kind::Cuckoo => json!({"status": "OK"}),
                Kind::Cape => json!({"data": "has been deleted"}),
            })
        }
        "report" | "dropped" | "screenshot" | "pcap" | "config" | "delete" if !known => gone(),
        "report" => (200, state.raw_report.clone().unwrap_or_else(|| state.report.to_string().into_bytes())),
        "dropped" => (200, state.dropped.clone()),
        "screenshot" => (200, state.screenshots.clone()),
        "pcap" => (200, state.pcap.clone()),
        "config" => text(json!({"configs": [{"Family": {"C2": "10.0.0.1"}}]})),
        _ => (404, b"<html>no such page</html>".to_vec()),
    }
}

fn text(value: Value) -> (u16, Vec<u8>) {
    (200, value.to_string().into_bytes())
}

fn listed(id: u64, task: &Task) -> Value {
    let status = task.states.front().cloned().unwrap_or_default();
    json!({"id": id, "status": status, "custom": task.fields.get("custom"), "sample": {"sha256": task.sha256}})
}

fn is_over_limit(call: &'static str, state: &State) -> bool {
    let limits = state.limits.get(call).map(Vec::as_slice).unwrap_or_default();
    let now = Instant::now();
    limits.iter().any(|(count, window)| {
        let recent = state.requests.iter().filter(|(name, at)| *name == call && now.duration_since(*at) < *window);
        recent.count() > *count
    })
}

fn create(kind: Kind, request: &Request, state: &mut State) -> (u16, Vec<u8>) {
    let boundary = request.content_type.split_once("boundary=").expect("a boundary").1;
    let mut task = Task { states: state.script.iter().map(|word| (*word).to_owned()).collect(), ..Task::default() };
    for (head, body) in parts(&request.body, boundary.as_bytes()) {
        let quoted = |name: &str| {
            let (_, rest) = head.split_once(&format!(" {name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let name = quoted("name").expect("a name");
        if let Some(filename) = quoted("filename") {
            assert_eq!(name, "file");
            task.sha256 = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
            (task.filename, task.bytes) = (filename, body);
        } else {
            task.fields.insert(name, String::from_utf8(body).expect("text"));
        }
    }
    let mut ids = Vec::new();
    for _ in 0..state.tasks_of_one {
        state.next_id += 1;
        state.tasks.insert(state.next_id, task.clone());
        ids.push(state.next_id);
    }
    text(match kind {
        Kind::Cuckoo => json!({"task_id": ids[0]}),
        Kind::Cape => json!({"error": [], "data": {"task_ids": ids, "message": "submitted"}, "errors": []}),
    })
}

/// Heads and bodies of the parts of a form.
fn parts(body: &[u8], boundary: &[u8]) -> Vec<(String, Vec<u8>)> {
    let line = [b"--", boundary].concat();
    let mut found = Vec::new();
    let mut rest = &body[line.len()..];
    while rest.starts_with(b"\r\n") {
        let end = rest.windows(line.len() + 2).position(|w| &w[..2] == b"\r\n" && w[2..] == line[..]).expect("an end");
        let part = &rest[2..end];
        let head = part.windows(4).position(|w| w == b"\r\n\r\n").expect("an empty line");
        found.push((String::from_utf8(part[..head].to_vec()).expect("text"), part[head + 4..].to_vec()));
        rest = &rest[end + 2 + line.len()..];
    }
    assert_eq!(rest, b"--\r\n", "the form ends as it should");
    found
}
