//! A dispatcher in memory, and rules in a folder of their own.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azulite::dispatcher::model::{
    Author, BinaryEntity, BinaryEvent, Datastream, Feature, PathNode, PluginEvent, Source, StatusEvent, Timestamp,
};
use azulite::workers::yara::{Children, Expand, Options, Publish, Wanted, Yara};
use azulite::workers::{Content, Fetched, Job, Outcome, Upstream, UpstreamError, Worker};
use sha2::{Digest, Sha256};

/// Lower-case digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Called with the place before each read.
type Hook = dyn Fn(u64) + Send + Sync;

/// Label and hash.
type Key = (String, String);

/// Streams by label and hash; none of the fetches.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) streams: Mutex<HashMap<Key, Arc<Vec<u8>>>>,
    pub(crate) hook: Mutex<Option<Arc<Hook>>>,
}

struct Held {
    bytes: Cursor<Vec<u8>>,
    size: u64,
    hook: Option<Arc<Hook>>,
}

impl Read for Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(hook) = &self.hook {
            hook(self.bytes.position());
        }
        self.bytes.read(buffer)
    }
}

impl Seek for Held {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(place)
    }
}

impl Content for Held {
    fn size(&self) -> u64 {
        self.size
    }
}

impl Upstream for Memory {
    fn register(&self, _: &PluginEvent) -> Result<(), UpstreamError> {
        Ok(())
    }

    fn lease(&self, _: &[(&str, &str)]) -> Result<Fetched, UpstreamError> {
        Ok(Fetched::default())
    }

    fn report(&self, _: &[StatusEvent]) -> Result<(), UpstreamError> {
        Ok(())
    }

    fn publish(&self, _: &[BinaryEvent]) -> Result<(), UpstreamError> {
        Ok(())
    }

    fn release(&self, _: &[&str]) -> Result<(), UpstreamError> {
        Ok(())
    }

    fn content(&self, _: &str, label: &str, sha256: &str) -> Result<Option<Box<dyn Content>>, UpstreamError> {
        let held = self.streams.lock().unwrap().get(&(label.to_owned(), sha256.to_owned())).cloned();
        let hook = self.hook.lock().unwrap().clone();
        Ok(held.map(|bytes| {
            let size = u64::try_from(bytes.len()).unwrap();
            let content: Box<dyn Content> = Box::new(Held { bytes: Cursor::new(bytes.to_vec()), size, hook });
            content
        }))
    }

    fn upload(&self, _: &str, label: &str, bytes: &mut dyn Read) -> Result<Datastream, UpstreamError> {
        let mut held = Vec::new();
        bytes.read_to_end(&mut held).unwrap();
        let stream = Datastream {
            label: label.to_owned(),
            sha256: sha256(&held),
            size: u64::try_from(held.len()).unwrap(),
            ..Datastream::default()
        };
        self.streams.lock().unwrap().insert((label.to_owned(), stream.sha256.clone()), Arc::new(held));
        Ok(stream)
    }
}

/// A worker and what it needs.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) memory: Arc<Memory>,
    pub(crate) yara: Yara,
}

impl Bench {
    /// With these rule files.
    pub(crate) fn new(rules: &[(&str, &str)]) -> Self {
        Self::with(rules, |_| {})
    }

    /// With other options.
    pub(crate) fn with(rules: &[(&str, &str)], change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules_dir = folder.path().join("rules");
        fs::create_dir(&rules_dir).unwrap();
        for (path, text) in rules {
            fs::write(rules_dir.join(path), text).unwrap();
        }
        let mut options = Options {
            rules_dir,
            wanted: Wanted::default(),
            children: Children { path: env!("CARGO_BIN_EXE_azulite").into() },
            packages_dir: folder.path().join("packages"),
            bulk_size: 20,
            load_interval: Duration::from_secs(60),
            threads: 2,
            max_scan_size: 128_000_000,
            file_timeout: Duration::from_secs(10),
            job_timeout: Duration::from_secs(600),
            rescan: true,
            reload_settle: Duration::from_secs(3600),
            publish: Publish::Matched,
            metrics: Arc::new(azulite::metrics::Metrics::new()),
            expand: Expand {
                max_total_expanded: 1 << 30,
                max_members: 50_000,
                max_ratio: 200,
                max_nesting: 3,
                max_member: 128_000_000,
                passwords: vec!["password".into(), "infected".into()],
            },
        };
        change(&mut options);
        let yara = Yara::start(options).unwrap();
        Self { folder, memory: Arc::default(), yara }
    }

    pub(crate) fn rules_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("rules")
    }

    /// An event about `bytes`, which are stored.
    pub(crate) fn event(&self, name: &str, bytes: Vec<u8>) -> BinaryEvent {
        let sha256 = sha256(&bytes);
        let size = u64::try_from(bytes.len()).unwrap();
        self.memory.streams.lock().unwrap().insert(("content".into(), sha256.clone()), Arc::new(bytes));
        let author = Author { name: "tester".into(), version: "1".into(), ..Author::default() };
        let now = Timestamp::from_millis(1_700_000_000_000);
        let stream = Datastream { label: "content".into(), sha256: sha256.clone(), size, ..Datastream::default() };
        let filename = Feature {
            name: "filename".into(),
            value: name.into(),
            feature_type: "filepath".into(),
            ..Feature::default()
        };
        let node = PathNode {
            author: author.clone(),
            action: "sourced".into(),
            sha256: sha256.clone(),
            timestamp: now,
            ..PathNode::default()
        };
        BinaryEvent {
            kafka_key: format!("key of {name}"),
            timestamp: now,
            author,
            source: Source { name: "samples".into(), path: vec![node], timestamp: now, ..Source::default() },
            entity: BinaryEntity {
                sha256,
                size,
                datastreams: vec![stream],
                features: vec![filename],
                ..BinaryEntity::default()
            },
            action: "sourced".into(),
            dequeued: format!("task of {name}"),
            ..BinaryEvent::default()
        }
    }

    pub(crate) fn job(&self, event: BinaryEvent) -> Job {
        let author = self.yara.announce().author;
        let upstream: Arc<dyn Upstream> = self.memory.clone();
        Job::new(event, author, upstream, Duration::from_secs(60), Arc::new(AtomicBool::new(false)))
    }

    /// What comes of an event.
    pub(crate) fn run(&self, event: BinaryEvent) -> Outcome {
        self.yara.run(&self.job(event))
    }

    /// What comes of bytes.
    pub(crate) fn scan(&self, name: &str, bytes: Vec<u8>) -> Outcome {
        self.run(self.event(name, bytes))
    }
}

/// Values of a feature of the events with this action, sorted.
pub(crate) fn values(outcome: &Outcome, action: &str, feature: &str) -> Vec<String> {
    let events = outcome.results.iter().filter(|event| event.action == action);
    let features = events.flat_map(|event| &event.entity.features).filter(|held| held.name == feature);
    let mut values: Vec<_> = features.map(|feature| feature.value.clone()).collect();
    values.sort();
    values
}

/// Values of a feature of the object, by their labels.
pub(crate) fn labelled(outcome: &Outcome, feature: &str) -> BTreeMap<String, String> {
    let events = outcome.results.iter().filter(|event| event.action == "enriched");
    let features = events.flat_map(|event| &event.entity.features).filter(|held| held.name == feature);
    features.map(|feature| (feature.label.clone(), feature.value.clone())).collect()
}

/// The hash of the rules that made the results.
pub(crate) fn rules_hash(outcome: &Outcome) -> String {
    let event = outcome.results.iter().find(|event| event.action == "enriched").expect("a hit");
    let info: serde_json::Value = serde_json::from_slice(event.entity.info.as_bytes()).unwrap();
    info["rules_hash"].as_str().unwrap().to_owned()
}

/// A rule that matches a text.
pub(crate) fn rule(name: &str, text: &str, metas: &str) -> String {
    let metas = if metas.is_empty() { String::new() } else { format!("meta: {metas} ") };
    format!("rule {name} {{ {metas}strings: $text = \"{text}\" condition: $text }}\n")
}

/// Process ids of the children of this process that run this program.
pub(crate) fn scanners(of: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        for pid in children.split_whitespace() {
            if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == of) {
                found.push(pid.parse().unwrap());
            }
        }
    }
    found
}
