//! The dispatcher of this process and the same one over a socket: what comes of work through either is the same.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::results::{self, Child, Findings, feature};
use super::upstream::{Upstream, UpstreamError};
use super::{Frame, Job, LocalUpstream, Options, Outcome, Release, RemoteUpstream, Worker, wire};
use crate::client::Client;
use crate::dispatcher::model::{Author, PluginEvent, Timestamp};
use crate::dispatcher::world::World;
use crate::http::{self, Readiness, RouteLimits, Server, Services, Subsystem};
use crate::metrics::Metrics;
use crate::streams::Streams;
use crate::streams::memory::{MemoryStore, TestAnalyzer};

const FILES: usize = 6;
/// Several pieces of a range.
const LARGE: usize = (3 << 20) + 12_345;

struct AlwaysReady;

impl Readiness for AlwaysReady {
    fn subsystems(&self) -> Vec<Subsystem> {
        Vec::new()
    }
}

/// A dispatcher with a socket, and both ways to it.
struct Both {
    world: World,
    near: Arc<LocalUpstream>,
    far: Arc<RemoteUpstream>,
    client: Client,
    given_back: Arc<Mutex<Vec<String>>>,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<http::Drained>,
}

async fn both() -> Both {
    let world = World::new();
    let metrics = Arc::new(Metrics::new());
    let store = Arc::new(MemoryStore::default());
    let analyzer = Arc::new(TestAnalyzer::default());
    let streams = Arc::new(Streams::new(store, analyzer, metrics.clone(), Default::default()));
    let services = Services {
        hub: Arc::new(world.hub.clone()),
        streams: streams.clone(),
        admin: None,
        reprocess: None,
        reidentify: None,
        workers: None,
        readiness: Arc::new(AlwaysReady),
        metrics,
        log_files: None,
        limits: RouteLimits::default(),
    };
    let options = http::Options { listen: "127.0.0.1:0".to_owned(), ..http::Options::default() };
    let server = Server::bind(options).await.unwrap();
    let url = format!("http://{}", server.local_addr());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(Arc::new(services), async move { stopped.await.unwrap_or_default() }));
    let given_back = Arc::new(Mutex::new(Vec::new()));
    let noted = given_back.clone();
    let release: Release = Arc::new(move |ids: &[&str]| {
        noted.lock().unwrap().extend(ids.iter().map(|id| (*id).to_owned()));
        Ok(())
    });
    let near = Arc::new(LocalUpstream::new(Arc::new(world.hub.clone()), streams, release, Handle::current()));
    let far = Arc::new(RemoteUpstream::new(&url).unwrap());
    Both { world, near, far, client: Client::new(&url).unwrap(), given_back, stop, serving }
}

fn content(n: usize) -> Vec<u8> {
    let length = if n == 0 { LARGE } else { 100 + n };
    (0..length).map(|at| u8::try_from((at * 31 + n) % 251).unwrap()).collect()
}

/// Everything of a model as JSON, through a reader of its own.
fn everything(client: &Client, model: &str) -> Vec<Value> {
    let query = "name=test&version=1&count=1000&deadline=0&r-historic=true";
    let response = client.get(&format!("/api/v2/event/{model}/passive?{query}")).unwrap();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = client.whole(response, 1 << 26).unwrap();
    let parts = wire::parts(&body, &wire::boundary(&content_type).unwrap()).unwrap();
    let events: Value = serde_json::from_slice(parts[1].1).unwrap();
    events["events"].as_array().unwrap().clone()
}

/// Publishes the files as a submitting client does.
fn announce(upstream: &dyn Upstream, client: &Client) {
    let events: Vec<Value> = (0..FILES)
        .map(|n| {
            let bytes = content(n);
            let stream = upstream.upload("lab", "content", &mut bytes.as_slice()).unwrap();
            let amy = json!({"name": "amy", "category": "user"});
            let at = "2026-01-02T03:04:05Z";
            let node = json!({"author": amy, "action": "sourced", "sha256": stream.sha256, "timestamp": at});
            json!({"model_version": 6, "kafka_key": "tmp", "timestamp": at, "author": amy, "action": "sourced",
                "source": {"name": "lab", "references": {"n": n.to_string()}, "timestamp": at, "path": [node]},
                "entity": {"sha256": stream.sha256, "size": stream.size, "datastreams": [{"label": "content",
                    "size": stream.size, "sha512": stream.sha512, "sha256": stream.sha256, "sha1": stream.sha1,
                    "md5": stream.md5, "mime": stream.mime, "magic": stream.magic}]}})
        })
        .collect();
    let body = Value::Array(events).to_string();
    let posted = client.post::<Value>(
        "/api/v2/event?model=binary&sync=true",
        "application/json",
        &crate::client::Payload::Bytes(body.as_bytes()),
    );
    assert_eq!(posted.unwrap()["total_ok"], FILES);
}

struct Sampler {
    name: &'static str,
    done: Mutex<usize>,
}

impl Sampler {
    fn author(&self) -> Author {
        Author { name: self.name.into(), version: "1".into(), category: "plugin".into(), ..Author::default() }
    }
}

impl Worker for Sampler {
    fn announce(&self) -> PluginEvent {
        results::registration(&self.author(), "d", &[("hash", "string", "")], BTreeMap::new(), Timestamp::zero())
    }

    fn query(&self) -> Vec<(String, String)> {
        [("r-historic", "true"), ("r-live", "true"), ("r-action", "sourced"), ("d-self", "true")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    fn slots(&self) -> usize {
        3
    }

    fn bulk(&self) -> usize {
        20
    }

    fn run(&self, job: &Job) -> Outcome {
        *self.done.lock().unwrap() += 1;
        let work = || -> Result<Vec<_>, Outcome> {
            let mut content = job.content()?;
            let mut whole = Vec::new();
            content.read_to_end(&mut whole).unwrap();
            assert_eq!(u64::try_from(whole.len()).unwrap(), content.size());
            let hash: String = sha2::Sha256::digest(&whole).iter().map(|byte| format!("{byte:02x}")).collect();
            let mut tail = Vec::new();
            content.seek(SeekFrom::End(-7)).unwrap();
            content.read_to_end(&mut tail).unwrap();
            let source = &job.event.source.name;
            let text = job.upstream().upload(source, "text", &mut hash.as_bytes())?;
            let content = job.upstream().upload(source, "content", &mut tail.as_slice())?;
            let features = || Findings { features: vec![feature("hash", "string", &hash, "")], ..Findings::default() };
            let origin = job.origin();
            Ok(vec![
                results::enriched(&origin, features()).unwrap(),
                results::augmented(&origin, vec![text], Findings::default()).unwrap(),
                results::child(&origin, Child { content, findings: features(), ..Child::default() }).unwrap(),
            ])
        };
        work().map_or_else(|outcome| outcome, Outcome::completed)
    }
}

/// Without what differs from run to run, and as if both had one name.
fn comparable(mut event: Value, name: &str) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for gone in ["timestamp", "kafka_key", "dequeued", "runtime"] {
                    members.remove(gone);
                }
                members.retain(|member, _| !member.starts_with("track_"));
                members.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    strip(&mut event);
    serde_json::from_str(&event.to_string().replace(&format!("\"{name}\""), "\"sampler\"")).unwrap()
}

fn work(upstream: Arc<dyn Upstream>, client: &Client, name: &'static str) -> Vec<String> {
    let worker = Arc::new(Sampler { name, done: Mutex::new(0) });
    let frame = Frame::start(worker.clone(), upstream, Options::default(), Arc::default()).unwrap();
    let begun = Instant::now();
    let ours = |model: &str| {
        let all = everything(client, model);
        all.into_iter().filter(|event| event["author"]["name"] == name).collect::<Vec<_>>()
    };
    // A registration, and a status with three results for each file; each reading brings what is new.
    let mut seen = Vec::new();
    while seen.len() < 1 + FILES * 4 {
        let done = *worker.done.lock().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "{done} of {FILES} done, {} events", seen.len());
        for model in ["status", "binary", "plugin"] {
            seen.extend(ours(model));
        }
        std::thread::yield_now();
    }
    frame.stop(Duration::from_secs(5));
    let mut texts: Vec<String> = seen.into_iter().map(|event| comparable(event, name).to_string()).collect();
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_that_come_of_work_are_the_same_in_process_and_over_http() {
    let both = both().await;
    let Both { world, near, far, client, stop, serving, .. } = both;
    let (one, other) = tokio::task::spawn_blocking(move || {
        announce(near.as_ref(), &client);
        everything(&client, "binary");
        (work(near, &client, "near"), work(far, &client, "far"))
    })
    .await
    .unwrap();
    assert_eq!(one.len(), 1 + FILES * 4);
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other);
    }
    assert_eq!(one.len(), other.len());
    stop.send(()).unwrap();
    serving.await.unwrap();
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_answer_alike_when_there_is_nothing_or_something_is_wrong() {
    let both = both().await;
    let Both { world, near, far, stop, serving, given_back, .. } = both;
    let (near, far) = tokio::task::spawn_blocking(move || {
        let upstreams: [&dyn Upstream; 2] = [near.as_ref(), far.as_ref()];
        for upstream in upstreams {
            assert!(upstream.content("lab", "content", &"0".repeat(64)).unwrap().is_none());
            let empty = upstream.upload("lab", "content", &mut std::io::empty());
            assert!(matches!(empty, Err(UpstreamError::Refused(_))), "{empty:?}");
            let nameless = upstream.register(&PluginEvent::default());
            assert!(matches!(nameless, Err(UpstreamError::Refused(_))), "{nameless:?}");
            let bad = upstream.lease(&[("name", "n"), ("version", "1"), ("count", "many")]);
            assert!(matches!(bad, Err(UpstreamError::Refused(_))), "{bad:?}");
            let none = upstream.lease(&[("name", "n"), ("version", "1"), ("r-live", "true"), ("deadline", "0")]);
            assert!(none.unwrap().events.is_empty());
        }
        near.release(&["a", "b"]).unwrap();
        (near, far)
    })
    .await
    .unwrap();
    assert_eq!(*given_back.lock().unwrap(), ["a", "b"]);
    let both: [Arc<dyn Upstream>; 2] = [near.clone(), far.clone()];
    let waits = both.map(|upstream| {
        let waiting = upstream.clone();
        let waiting = std::thread::spawn(move || {
            waiting.lease(&[("name", "n"), ("version", "1"), ("r-live", "true"), ("deadline", "300")])
        });
        (upstream, waiting)
    });
    for (upstream, waiting) in waits {
        tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            while !waiting.is_finished() {
                assert!(begun.elapsed() < Duration::from_secs(30), "an interrupt ends a fetch");
                upstream.interrupt();
                std::thread::yield_now();
            }
            assert!(waiting.join().unwrap().unwrap().events.is_empty());
        })
        .await
        .unwrap();
    }
    // Ends the fetch that was left alone.
    world.hub.0.stop();
    stop.send(()).unwrap();
    serving.await.unwrap();
    let gone = tokio::task::spawn_blocking(move || far.report(&[])).await.unwrap();
    assert!(matches!(gone, Err(UpstreamError::Unavailable(_))), "{gone:?}");
}
