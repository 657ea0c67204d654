//! A dispatcher over a real store with a clock that tests set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use azulite_storage::Store;
use azulite_storage::fs::RealFs;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::hub::{GetRequest, Hub, PostError, PostRequest, SimulateError, SimulateRequest};
use super::inserts::CopyStreams;
use super::labels::Labels;
use super::leases::Policies;
use super::sources::{Sources, SourcesConfig};
use super::topic::{TopicDefaults, TopicPlan};
use super::{Clock, Dispatcher, Options, SharedDispatcher, caches, params};
use crate::broker::Broker;
use crate::metrics::Metrics;

/// 2026-01-02T03:04:05Z.
pub(super) const START_MS: i64 = 1_767_323_045_000;
pub(super) const MINUTE_MS: i64 = 60_000;

/// See the module.
pub(crate) struct World {
    pub(crate) hub: SharedDispatcher,
    pub(super) clock: Arc<AtomicI64>,
    options: Options,
    store: Store,
    folder: TempDir,
}

/// A blob store without blobs.
#[derive(Debug)]
struct NoStreams;

impl CopyStreams for NoStreams {
    fn copy_stream(&self, _label: &str, _sha256: &str, _from: &str, _to: &str) -> Result<bool, String> {
        Ok(false)
    }
}

/// The answer to one GET.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) info: Value,
    pub(super) events: Vec<Value>,
}

impl Got {
    pub(super) fn ids(&self) -> String {
        self.events.iter().map(|event| &event["entity"]["sha256"].as_str().unwrap()[..1]).collect()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.info["paused"] == true
    }
}

fn options() -> Options {
    let config: SourcesConfig = serde_json::from_str(r#"{"lab":{},"short":{"expire_events_after":"2 days"}}"#).unwrap();
    let sources = Sources::check(&config).unwrap();
    let defaults = TopicDefaults { partitions: 1, replicas: 1 };
    Options {
        topic_prefix: "t1".into(),
        plan: TopicPlan::new("t1", &sources, defaults, &[]).unwrap(),
        sources,
        limits: params::Limits { fetch_limit: 1000, default_wait_secs: 0 },
        message_max_bytes: 1 << 20,
        fetch_max_bytes: 1 << 26,
        fetch_memory: 1 << 26,
        max_waiting: 100,
        group_retention_ms: 30 * 86_400_000,
        historic_share: 20,
        reader_idle_ms: 24 * 60 * MINUTE_MS,
        max_readers: 100,
        labels: Labels::default(),
        ignore_topic_mismatch: true,
        log_files: None,
        caches: caches::Options::default(),
        policies: Policies::default(),
        lost_check: std::time::Duration::from_secs(300),
        dead: super::dead::Options { dir: std::env::temp_dir(), keep: None, warn_per_hour: 20 },
    }
}

fn open(folder: &TempDir, clock: &Arc<AtomicI64>, options: &Options) -> (Store, SharedDispatcher) {
    let storage = azulite_storage::Options {
        segment_bytes: 1 << 20,
        ..azulite_storage::Options::new(folder.path().join("data"))
    };
    let store = Store::open(Arc::new(RealFs), storage).unwrap();
    let (broker, clock) = (Broker::new(Arc::new(store.clone())), clock.clone());
    let clock = Clock::new(move || clock.load(Ordering::SeqCst));
    let dispatcher =
        Dispatcher::start_at(options.clone(), broker, Arc::new(Metrics::new()), Arc::new(NoStreams), clock).unwrap();
    (store, SharedDispatcher(Arc::new(dispatcher)))
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(caches::Options::default())
    }

    pub(super) fn with(caches: caches::Options) -> Self {
        Self::changed(|options| options.caches = caches)
    }

    /// With other options than most.
    pub(super) fn changed(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(START_MS));
        let mut options = options();
        change(&mut options);
        let (store, hub) = open(&folder, &clock, &options);
        Self { hub, clock, options, store, folder }
    }

    /// Another process over the same store; what was only in memory is gone.
    pub(super) fn restart(self) -> Self {
        let Self { hub, clock, options, store, folder } = self;
        hub.0.stop();
        drop(hub);
        store.close();
        drop(store);
        let (store, hub) = open(&folder, &clock, &options);
        Self { hub, clock, options, store, folder }
    }

    /// From now on nothing can be written, as after a failed write.
    pub(super) fn stop_writing(&self) {
        self.store.close();
    }

    pub(super) fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.hub.0
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub(super) fn pass_minutes(&self, minutes: i64) {
        self.clock.fetch_add(minutes * MINUTE_MS, Ordering::SeqCst);
    }

    pub(super) async fn post(&self, query: &str, events: &Value) -> Result<Value, PostError> {
        let request = PostRequest {
            query: pairs(query),
            body: events.to_string().into_bytes().into(),
            user_agent: String::new(),
        };
        self.hub.begin_post(&request.query).await;
        let answer = self.hub.post(request).await?;
        Ok(serde_json::from_slice(&answer.body).unwrap())
    }

    /// Publishes the entity of that letter.
    pub(super) async fn put(&self, letter: char) {
        self.post("model=binary", &json!([sourced(letter)])).await.unwrap();
    }

    /// A GET whose answer arrives.
    pub(super) async fn get(&self, route: &str, query: &str) -> Got {
        self.get_and(route, query, true).await
    }

    /// A GET of a worker inside the process.
    pub(super) async fn get_in_process(&self, route: &str, query: &str) -> Got {
        self.ask(route, query, true, true).await
    }

    /// A GET whose answer arrives or not.
    pub(super) async fn get_and(&self, route: &str, query: &str, arrives: bool) -> Got {
        self.ask(route, query, arrives, false).await
    }

    async fn ask(&self, route: &str, query: &str, arrives: bool, in_process: bool) -> Got {
        let (model, kind) = route.split_once('/').unwrap();
        let request = GetRequest {
            model: model.to_owned(),
            task: kind == "active",
            query: pairs(query),
            user_agent: "test".into(),
            in_process,
        };
        let answer = self.hub.get(request).await.unwrap();
        let head = String::from_utf8(answer.body[0].to_vec()).unwrap();
        let info = head.split("\r\n\r\n").nth(1).unwrap().split("\r\n--").next().unwrap();
        // Between head and tail there is a piece for each pass.
        let events: Value = serde_json::from_slice(&answer.body[1..answer.body.len() - 1].concat()).unwrap();
        let got =
            Got { info: serde_json::from_str(info).unwrap(), events: events["events"].as_array().unwrap().clone() };
        if arrives && let Some(delivery) = answer.delivery {
            delivery.delivered();
        }
        got
    }

    pub(super) async fn simulate(&self, event: &Value, extended: bool) -> Result<Value, SimulateError> {
        let body = event.to_string().into_bytes().into();
        let answer = self.hub.simulate(SimulateRequest { body, extended }).await?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    /// Every stored status, in a reader of its own.
    pub(super) async fn statuses(&self, reader: &str) -> Vec<Value> {
        self.get("status/passive", &format!("name={reader}&count=100&deadline=0&r-historic=true")).await.events
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |piece: &str| {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        (name.to_owned(), value.to_owned())
    };
    query.split('&').filter(|piece| !piece.is_empty()).map(pair).collect()
}

/// E1 of events.md section 11, for the entity of another letter.
pub(super) fn sourced(letter: char) -> Value {
    let (a, amy) = (letter.to_string().repeat(64), json!({"name":"amy","category":"user","security":"OFFICIAL"}));
    json!({"model_version":6,"kafka_key":"tmp","timestamp":"2026-01-02T03:04:06Z","author":amy,
        "source":{"name":"lab","security":"OFFICIAL","references":{"user":"amy"},"timestamp":"2026-01-02T03:04:05Z",
            "path":[{"author":amy,"action":"sourced","sha256":a,"timestamp":"2026-01-02T03:04:05Z",
                "file_format":"text/plain","size":5,"filename":"a.txt"}]},
        "entity":{"sha256":a,"size":5,"file_format":"text/plain","features":[{"name":"f","type":"string","value":"v"}],
            "datastreams":[{"label":"content","size":5,"sha512":"H","sha256":a,"sha1":"H","md5":"H",
                "mime":"text/plain","magic":"ASCII text","file_format":"text/plain"}]},
        "action":"sourced"})
}

/// The status `word` of Carver about the task it got.
pub(super) fn status(task: &Value, word: &str) -> Value {
    let mut input = task.clone();
    let entity = input["entity"].as_object_mut().unwrap();
    ["features", "datastreams", "info"].iter().for_each(|member| drop(entity.remove(*member)));
    json!([{"model_version":6,"timestamp":"2026-01-02T03:05:01Z",
        "author":{"name":"Carver","version":"1.2","category":"plugin"},
        "entity":{"status":word,"runtime":1.5,"input":input}}])
}
