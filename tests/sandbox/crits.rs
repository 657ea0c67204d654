//! The CRITs sink against a stand-in of CRITs.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use azulite::config::CritsSink;
use azulite::dispatcher::model::BinaryEvent;
use azulite::workers::Upstream;
use azulite::workers::frame::{Job, Outcome, Status, Worker};
use azulite::workers::sandbox::crits::Crits;
use serde_json::{Value, json};

use super::bench::*;
use super::memory::{Memory, sha256};
use super::stand_in;

/// What came: the request line, the header `authorization`, the body.
type Came = Vec<(String, String, String)>;

struct Service {
    address: std::net::SocketAddr,
    came: Arc<Mutex<Came>>,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
}

impl Service {
    fn start() -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service =
            Service { address: listener.local_addr().unwrap(), came: Arc::default(), answers: Arc::default() };
        let (came, answers) = (Arc::clone(&service.came), Arc::clone(&service.answers));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (came, answers) = (Arc::clone(&came), Arc::clone(&answers));
                std::thread::spawn(move || while serve(&stream, &came, &answers).is_some() {});
            }
        });
        service
    }

    fn came(&self) -> MutexGuard<'_, Came> {
        self.came.lock().unwrap()
    }
}

fn serve(stream: &TcpStream, came: &Mutex<Came>, answers: &Mutex<VecDeque<(u16, Value)>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => value.clone_into(&mut authorization),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    came.lock().unwrap().push((line, authorization, String::from_utf8_lossy(&body).into_owned()));
    let next = answers.lock().unwrap().pop_front();
    let (status, answer) = next.unwrap_or((200, json!({"return_code": 0, "id": "s1", "message": ""})));
    let text = answer.to_string();
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}", text.len()).ok()
}

fn sink(service: &Service, folder: &std::path::Path) -> Crits {
    let key = folder.join("key");
    std::fs::write(&key, "k3y").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = CritsSink {
        enabled: true,
        url: format!("http://{}", service.address),
        username: "amy".to_owned(),
        api_key_file: key,
        sink_pause: Duration::from_millis(1),
        ..CritsSink::default()
    };
    Crits::new(&config).unwrap()
}

fn run(sink: &Crits, hub: &Arc<Memory>, event: BinaryEvent) -> Outcome {
    let hub: Arc<dyn Upstream> = hub.clone();
    let author = sink.announce().author;
    sink.run(&Job::new(event, author, hub, Duration::from_secs(20), Arc::new(AtomicBool::new(false))))
}

/// An event of a sandbox about a submission that names a CRITs object.
fn result(action: &str, label: &str, bytes: &[u8], hub: &Memory) -> BinaryEvent {
    let mut event = event(bytes);
    event.author.name = "sandbox-box".to_owned();
    event.action = action.to_owned();
    for (name, value) in [("crits_analysis_id", "a1"), ("crits_object_id", "o1")] {
        event.source.references.insert(name.to_owned(), value.to_owned());
    }
    event.entity.datastreams[0].label = label.to_owned();
    event.entity.md5 = "m5".to_owned();
    hub.held().streams.insert(sha256(bytes), bytes.to_vec());
    event
}

fn decoded(form: &str) -> BTreeMap<String, String> {
    let text = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, after @ ..] = rest {
            if *first == b'%' {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
                rest = &after[2..];
            } else {
                bytes.push(*first);
                rest = after;
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    form.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (text(name), text(value))).collect()
}

#[test]
fn the_rows_of_a_report_are_sent_in_batches_and_the_last_says_that_it_is_the_last() {
    let (service, folder, hub) = (Service::start(), tempfile::tempdir().unwrap(), Arc::new(Memory::default()));
    let mut report = stand_in::report();
    report["behavior"]["summary"]["files"] = (0..700).map(|number| number.to_string()).collect::<Vec<_>>().into();
    let event = result("augmented", "report", report.to_string().as_bytes(), &hub);
    let outcome = run(&sink(&service, folder.path()), &hub, event);
    assert_eq!((outcome.status, outcome.message.as_str()), (Status::CompletedEmpty, ""));
    let came = service.came();
    assert_eq!(came.len(), 2);
    let forms: Vec<BTreeMap<String, String>> = came.iter().map(|(_, _, body)| decoded(body)).collect();
    assert!(came.iter().all(|(line, ..)| line == "POST /api/v1/services/"));
    assert_eq!((forms[0].get("finish"), forms[1].get("finish").map(String::as_str)), (None, Some("true")));
    let list = |form: &BTreeMap<String, String>, name: &str| serde_json::from_str::<Vec<String>>(&form[name]).unwrap();
    for form in &forms {
        let (results, subtypes, types) =
            (list(form, "result"), list(form, "result_subtype"), list(form, "result_type"));
        assert!(results.len() == subtypes.len() && results.len() == types.len() && results.len() <= 500);
        assert!(types.iter().all(|text| serde_json::from_str::<Value>(text).unwrap().is_object()));
        for (name, value) in [
            ("analysis_id", "a1"),
            ("object_id", "o1"),
            ("object_type", "Sample"),
            ("username", "amy"),
            ("api_key", "k3y"),
        ] {
            assert_eq!(form[name], value);
        }
        assert_eq!(form["result_is_batch"], "true");
    }
    assert_eq!(
        (list(&forms[0], "result")[0].as_str(), list(&forms[0], "result_subtype")[0].as_str()),
        ("win10", "info")
    );
}

#[test]
fn a_file_becomes_a_related_sample() {
    let (service, folder, hub) = (Service::start(), tempfile::tempdir().unwrap(), Arc::new(Memory::default()));
    let event = result("extracted", "content", b"left behind", &hub);
    let already = (200, json!({"return_code": 1, "message": "Relationship already exists"}));
    *service.answers.lock().unwrap() = [(200, json!({"return_code": 0, "id": "s9"})), already].into();
    let outcome = run(&sink(&service, folder.path()), &hub, event);
    assert_eq!(outcome.status, Status::CompletedEmpty, "{}", outcome.message);
    let came = service.came();
    let lines: Vec<&str> = came.iter().map(|(line, ..)| line.as_str()).collect();
    assert_eq!(lines, ["POST /api/v1/samples/", "PATCH /api/v1/samples/o1/", "POST /api/v1/services/"]);
    assert!(came[0].2.contains("left behind") && came[0].2.contains("name=\"filedata\"; filename=\"dir/a.exe\""));
    let relation = decoded(&came[1].2);
    assert_eq!((came[1].1.as_str(), relation["right_id"].as_str()), ("ApiKey amy:k3y", "s9"));
    assert_eq!((relation["action"].as_str(), relation["rel_type"].as_str()), ("forge_relationship", "Related To"));
    let row = decoded(&came[2].2);
    assert!(row["result_type"].contains("m5"));
    assert_eq!(row.get("finish"), None, "the report says when the analysis is finished");
}

#[test]
fn what_is_not_for_crits_is_opted_out_of() {
    let (service, folder, hub) = (Service::start(), tempfile::tempdir().unwrap(), Arc::new(Memory::default()));
    let sink = sink(&service, folder.path());
    let mut other = result("augmented", "report", b"{}", &hub);
    other.author.name = "yara".to_owned();
    let mut unnamed = result("augmented", "report", b"{}", &hub);
    unnamed.source.references.clear();
    let bare = result("augmented", "text", b"{}", &hub);
    for event in [other, unnamed, bare] {
        assert_eq!(run(&sink, &hub, event).status, Status::OptOut);
    }
    assert_eq!(service.came().len(), 0);
}

#[test]
fn a_crits_that_fails_is_tried_again_by_the_dispatcher_and_no_text_holds_the_key() {
    let (service, folder, hub) = (Service::start(), tempfile::tempdir().unwrap(), Arc::new(Memory::default()));
    let sink = sink(&service, folder.path());
    for (answer, status) in [
        ((503, json!({})), Status::ErrorNetwork),
        ((500, json!({"error": "x"})), Status::ErrorException),
        ((200, json!({"return_code": 1, "message": "no such analysis"})), Status::ErrorException),
    ] {
        service.answers.lock().unwrap().push_back(answer);
        let outcome = run(&sink, &hub, result("augmented", "report", b"{}", &hub));
        assert_eq!(outcome.status, status);
        assert!(!format!("{outcome:?}").contains("k3y"));
    }
}
