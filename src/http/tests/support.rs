//! A running server, a plain client, and a hub that does what the test says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::dispatcher::hub::{
    Delivery, DeliveryGuard, GetAnswer, GetError, GetRequest, Hub, PostAnswer, PostError, PostRequest, SimulateError,
    SimulateRequest,
};
use crate::http::{Drained, Options, Readiness, RouteLimits, Server, Services, Subsystem};
use crate::identify::{Identifier, content};
use crate::metrics::Metrics;
use crate::streams::memory::{MemoryStore, TestAnalyzer};
use crate::streams::{Analyzer, Streams};

/// What became of fetch requests.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) delivered: AtomicU32,
    pub(super) lost: AtomicU32,
    pub(super) cancelled: AtomicU32,
}

impl Outcome {
    pub(super) fn seen(&self) -> (u32, u32, u32) {
        let read = |n: &AtomicU32| n.load(Ordering::SeqCst);
        (read(&self.delivered), read(&self.lost), read(&self.cancelled))
    }
}

struct Note(Arc<Outcome>);

impl Delivery for Note {
    fn on_delivered(self: Box<Self>) {
        self.0.delivered.fetch_add(1, Ordering::SeqCst);
    }
    fn on_lost(self: Box<Self>) {
        self.0.lost.fetch_add(1, Ordering::SeqCst);
    }
}

/// Answers posts with what they carried, and fetches by what the model says: `big:N` is an answer of N bytes, `wait` never
/// ends.
#[derive(Default)]
pub(super) struct TestHub {
    pub(super) outcome: Arc<Outcome>,
    pub(super) post_error: Mutex<Option<PostError>>,
    pub(super) get_error: Mutex<Option<GetError>>,
    pub(super) posts: Mutex<Vec<PostRequest>>,
    pub(super) gets: Mutex<Vec<GetRequest>>,
}

struct CountCancelled<'a>(Option<&'a Outcome>);

impl Drop for CountCancelled<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.0 {
            outcome.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Hub for TestHub {
    fn begin_post(&self, _query: &[(String, String)]) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn simulate(&self, request: SimulateRequest) -> BoxFuture<'_, Result<bytes::Bytes, SimulateError>> {
        std::future::ready(Ok(request.body)).boxed()
    }

    fn post(&self, request: PostRequest) -> BoxFuture<'_, Result<PostAnswer, PostError>> {
        async move {
            if let Some(error) = self.post_error.lock().unwrap().clone() {
                return Err(error);
            }
            self.posts.lock().unwrap().push(request);
            Ok(PostAnswer { body: "{\"total_ok\":1,\"total_failures\":0,\"failures\":[]}".into() })
        }
        .boxed()
    }

    fn get(&self, request: GetRequest) -> BoxFuture<'_, Result<GetAnswer, GetError>> {
        async move {
            if let Some(error) = self.get_error.lock().unwrap().clone() {
                return Err(error);
            }
            let model = request.model.clone();
            self.gets.lock().unwrap().push(request);
            if model == "wait" {
                let cancelled = CountCancelled(Some(&self.outcome));
                std::future::pending::<()>().await;
                drop(cancelled);
            }
            let size: usize = model.strip_prefix("big:").map_or(0, |n| n.parse().unwrap());
            let body = vec!["head".into(), vec![b'x'; size].into(), "tail".into()];
            let delivery = Some(DeliveryGuard::new(Note(Arc::clone(&self.outcome))));
            Ok(GetAnswer { content_type: "multipart/form-data; boundary=BBB".to_owned(), body, delivery })
        }
        .boxed()
    }
}

pub(super) struct TestReadiness(pub(super) Mutex<Vec<Subsystem>>);

impl Readiness for TestReadiness {
    fn subsystems(&self) -> Vec<Subsystem> {
        self.0.lock().unwrap().clone()
    }
}

/// A server on a free port.
pub(super) struct Running {
    pub(super) addr: SocketAddr,
    pub(super) hub: Arc<TestHub>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) analyzer: Arc<TestAnalyzer>,
    pub(super) readiness: Arc<TestReadiness>,
    pub(super) metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<Drained>,
}

pub(super) fn options() -> Options {
    Options { listen: "127.0.0.1:0".to_owned(), drain_time: Duration::from_millis(500), ..Options::default() }
}

impl Running {
    pub(super) async fn start() -> Self {
        Self::with(options(), RouteLimits::default(), crate::streams::Options::default()).await
    }

    pub(super) async fn with(options: Options, limits: RouteLimits, streams: crate::streams::Options) -> Self {
        let analyzer = Arc::new(TestAnalyzer::default());
        let engine = Arc::clone(&analyzer);
        Self::with_engine(options, limits, streams, analyzer, engine).await
    }

    /// With the identification that is shipped.
    pub(super) async fn with_real_identification() -> Self {
        let scanner = content::scanner(1, content::CONTENT_MAX_BYTES);
        let identifier = Arc::new(scanner.and_then(Identifier::load).unwrap());
        let engine = crate::streams::Engine::new(identifier, Arc::new(Metrics::new()));
        let unused = Arc::new(TestAnalyzer::default());
        Self::with_engine(options(), RouteLimits::default(), Default::default(), unused, Arc::new(engine)).await
    }

    async fn with_engine(
        options: Options,
        limits: RouteLimits,
        streams: crate::streams::Options,
        analyzer: Arc<TestAnalyzer>,
        engine: Arc<dyn Analyzer>,
    ) -> Self {
        let hub = Arc::new(TestHub::default());
        let store = Arc::new(MemoryStore::default());
        let metrics = Arc::new(Metrics::new());
        let readiness = Arc::new(TestReadiness(Mutex::new(Vec::new())));
        let streams = Arc::new(Streams::new(store.clone(), engine, Arc::clone(&metrics), streams));
        let hub_door: Arc<dyn Hub> = hub.clone();
        let readiness_door: Arc<dyn Readiness> = readiness.clone();
        let services = Arc::new(Services {
            hub: hub_door,
            streams,
            reprocess: None,
            reidentify: None,
            workers: None,
            admin: None,
            readiness: readiness_door,
            metrics: Arc::clone(&metrics),
            log_files: None,
            limits,
        });
        let server = Server::bind(options).await.unwrap();
        let addr = server.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(services, async move { stopped.await.unwrap_or_default() }));
        Self { addr, hub, store, analyzer, readiness, metrics, stop, serving }
    }

    pub(super) async fn stop(self) -> Drained {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap()
    }

    /// A connection that has sent `bytes`.
    pub(super) async fn send(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }

    /// One request on a connection of its own; `target` is `METHOD /path`, `headers` are whole lines.
    pub(super) async fn request(&self, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut head = format!("{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        if !body.is_empty() || target.starts_with("POST") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for header in headers {
            head.push_str(&format!("{header}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        let mut stream = self.send(bytes).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        Answer::parse(&answer)
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path}"), &[], b"").await
    }
}

/// An answer, read to the end of its connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no whole head in {:?}", String::from_utf8_lossy(bytes));
        });
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Status, title and detail of an error body, after checking the rest of it.
    pub(super) fn error(&self) -> (u16, String, String) {
        let json = self.json();
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(json["status"], self.status.to_string());
        let part = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        (self.status, part("title"), part("detail"))
    }
}

/// Waits until `true_now` says so; panics after ten seconds.
pub(super) async fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if true_now() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
