use std::collections::BTreeSet;

use azulite_storage::fs::RealFs;
use azulite_storage::{Lane, Record, Store};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::*;
use crate::admin::scan::{Flow, Step, scan_partition};
use crate::broker::{CommittedOffset, NewTopic};
use crate::dispatcher::batches::Batches;
use crate::dispatcher::model::{self, Model};
use crate::dispatcher::sources::Sources;
use crate::dispatcher::topic::TopicDefaults;

struct Bench {
    _folder: tempfile::TempDir,
    store: Store,
    broker: Broker,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let options = azulite_storage::Options { segment_bytes: 1 << 20, ..azulite_storage::Options::new(root) };
        let store = Store::open(Arc::new(RealFs), options).unwrap();
        let broker = Broker::new(Arc::new(store.clone()));
        Self { _folder: folder, store, broker }
    }

    fn put(&self, topic: &str, key: &str, value: Option<&[u8]>) {
        let new = || NewTopic { name: topic.to_owned(), partitions: 2, config: Default::default() };
        let topic = self.broker.topic_or_create(topic, new).unwrap();
        let mut batches = Batches::default();
        batches.push(&topic, 1_000, key.as_bytes(), value);
        self.store.append_wait(Lane(0), batches.finish()).unwrap();
    }

    fn options(&self) -> Options {
        let plan = TopicPlan::new("new", &Sources::default(), TopicDefaults::default(), &[]).unwrap();
        Options { topic_prefix: "new".to_owned(), plan, message_max_bytes: 1 << 20, hold: None }
    }

    fn begin(&self, request: Request) -> Result<Arc<Run>, BeginError> {
        Run::begin(self.broker.clone(), Arc::new(Metrics::new()), self.options(), request)
    }

    fn run(&self, request: Request) -> Progress {
        let run = self.begin(request).unwrap();
        run.work();
        run.progress()
    }

    fn records(&self, topic: &str) -> Vec<Record> {
        let Some(topic) = self.broker.log().topic(topic) else { return Vec::new() };
        let mut records = Vec::new();
        for partition in &topic.partitions {
            let scanned = scan_partition(self.broker.log().as_ref(), partition, &mut |step| {
                let Step::Record(record) = step else { panic!("damage") };
                records.push(record);
                Flow::Continue(())
            });
            assert!(scanned.unwrap().is_continue());
        }
        records
    }
}

fn sources() -> Request {
    Request { previous_prefix: "old".to_owned(), ..Request::default() }
}

fn system(include: &[&str]) -> Request {
    let include_system = include.iter().map(|name| (*name).to_owned()).collect();
    Request { profile: Profile::System, include_system, ..sources() }
}

fn vectors() -> Json {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/schemas/vectors.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Model, version, bytes and the event they are, of every single event of an older version.
fn legacy() -> Vec<(Model, u64, Vec<u8>, Json)> {
    let vectors = vectors();
    let single = vectors["legacy"].as_array().unwrap().iter().filter(|vector| vector["form"] == "single");
    single
        .map(|vector| {
            let model = Model::parse(vector["model"].as_str().unwrap()).unwrap();
            let bytes = STANDARD.decode(vector["avro_base64"].as_str().unwrap()).unwrap();
            (model, vector["version"].as_u64().unwrap(), bytes, vector["decoded_json"].clone())
        })
        .collect()
}

/// A binary event of version 5, with its key.
fn binary() -> (Vec<u8>, String) {
    let found = legacy().into_iter().find(|(model, version, ..)| *model == Model::Binary && *version == 5);
    let (_, _, bytes, json) = found.unwrap();
    (bytes, json["kafka_key"].as_str().unwrap().to_owned())
}

const OLD: &str = "azul.old.samples.binary.sourced";
const NEW: &str = "azul.new.samples.binary.sourced";

#[test]
fn events_of_older_versions_come_out_in_the_current_one_with_right_keys() {
    let bench = Bench::new();
    let (mut versions, mut models) = (BTreeSet::new(), BTreeSet::new());
    for (model, version, bytes, json) in legacy() {
        versions.insert(version);
        models.insert(model.as_str());
        let old = match model {
            Model::Binary => format!("azul.old.{}.binary.data", json["source"]["name"].as_str().unwrap()),
            Model::Delete | Model::Download | Model::Insert | Model::Plugin | Model::Retrohunt | Model::Status => {
                format!("azul.old.system.{model}")
            }
        };
        bench.put(&old, "some key of old", Some(&bytes));
    }
    assert_eq!(versions, BTreeSet::from([4, 5]));
    let everything = ["delete", "download", "insert", "plugin", "retrohunt", "status"];
    let [first, second] = [sources(), system(&everything)].map(|request| bench.run(request));
    assert_eq!((first.stage, first.bad()), (Stage::Done, 0), "{first:?}");
    assert_eq!((second.stage, second.bad()), (Stage::Done, 0), "{second:?}");

    let mut expected = BTreeSet::new();
    for (model, _, bytes, json) in legacy() {
        let event = model::decode_avro(model, &bytes).unwrap();
        let topic = crate::dispatcher::topic::route("new", &event).unwrap();
        let records = bench.records(&topic);
        let random = matches!(model, Model::Delete | Model::Download | Model::Retrohunt);
        let key = if random { None } else { Some(model::kafka_key(&event, [0; 32]).unwrap()) };
        let mine = records.iter().find(|record| {
            let stored = model::decode_avro(model, record.value.as_ref().unwrap()).unwrap();
            let mut wanted = event.clone();
            wanted.set_kafka_key(stored.kafka_key().to_owned());
            model::set_tracking(&mut wanted);
            wanted == stored && key.as_deref().is_none_or(|key| key == stored.kafka_key())
        });
        let record = mine.unwrap_or_else(|| panic!("{model} {json} is not in {topic}"));
        let value = record.value.as_ref().unwrap();
        assert_eq!(value[0], 12, "version 6 comes first");
        let stored = model::decode_avro(model, value).unwrap();
        assert_eq!(record.key.as_deref(), Some(stored.kafka_key().as_bytes()));
        expected.insert(topic);
    }
    assert!(expected.len() >= models.len(), "{expected:?}");
    let (bytes, key) = binary();
    let event = model::decode_avro(Model::Binary, &bytes).unwrap();
    assert_eq!(model::kafka_key(&event, [0; 32]).unwrap(), key, "the key of the vectors");
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let bench = Bench::new();
    let (bytes, _) = binary();
    (0..7).for_each(|number| bench.put(OLD, &format!("key {number}"), Some(&bytes)));
    let mut runs = 0;
    loop {
        let run = bench.begin(sources()).unwrap();
        // Told to stop from the beginning, it ends behind the first record.
        run.stop();
        run.work();
        runs += 1;
        let progress = run.progress();
        assert!(progress.topics[0].copied <= 1, "{progress:?}");
        if progress.stage == Stage::Done {
            break;
        }
        assert_eq!(progress.stage, Stage::Stopped);
        assert!(runs < 20);
    }
    assert!(runs >= 7, "{runs}");
    assert_eq!(bench.records(NEW).len(), 7, "no gap, nothing twice");
    bench.put(OLD, "another", Some(&bytes));
    let progress = bench.run(sources());
    assert_eq!((progress.topics[0].copied, progress.topics[0].total), (1, 1), "what has come since");
}

#[test]
fn what_was_copied_without_being_remembered_is_copied_again_under_the_same_key() {
    let bench = Bench::new();
    let delete = legacy().into_iter().find(|(model, ..)| *model == Model::Delete).unwrap().2;
    (0..3).for_each(|_| bench.put("azul.old.system.delete", "k", Some(&delete)));
    bench.run(system(&["delete"]));
    let group = "new-reprocess-earliest";
    let positions = bench.broker.log().group_offsets(group).unwrap();
    let back: Vec<_> = positions
        .into_iter()
        .map(|(place, position)| (place, Some(CommittedOffset { offset: (position.offset - 1).max(0), ..position })))
        .collect();
    bench.broker.log().commit_offsets_wait(group, &back, Vec::new()).unwrap();
    bench.run(system(&["delete"]));
    let records = bench.records("azul.new.system.delete");
    let keys: BTreeSet<_> = records.iter().map(|record| record.key.clone()).collect();
    assert_eq!((records.len(), keys.len()), (4, 3), "only the last one again, and as the same event");
}

#[test]
fn bad_records_are_named_and_counted_and_do_not_stop_it() {
    let bench = Bench::new();
    let (bytes, key) = binary();
    let json = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/schemas/examples/binary_enriched_features_and_info.json"
    ));
    let json = json.unwrap().replace("\"model_version\": 6", "\"model_version\": 5");
    for value in [&b"rubbish"[..], &bytes, json.as_bytes(), b"\x0c"] {
        bench.put(OLD, "k", Some(value));
    }
    let dry = bench.run(Request { dry_run: true, ..sources() });
    assert_eq!((dry.stage, dry.topics[0].copied, dry.bad()), (Stage::Done, 1, 3));
    assert!(bench.broker.log().topic(NEW).is_none(), "a dry run writes nothing");
    assert!(bench.broker.log().group_offsets("new-reprocess-earliest").unwrap().is_empty());

    let progress = bench.run(sources());
    assert_eq!((progress.stage, progress.topics[0].copied, progress.bad()), (Stage::Done, 1, 3));
    let offsets: Vec<_> = progress.topics[0].bad_records.iter().map(|bad| bad.offset).collect();
    assert_eq!(offsets, [0, 2, 3]);
    assert!(progress.topics[0].bad_records[1].reason.contains("legacy_json"), "{progress:?}");
    let records = bench.records(NEW);
    assert_eq!(records.iter().map(|record| record.key.clone().unwrap()).collect::<Vec<_>>(), [key]);

    let other = Bench::new();
    other.put("azul.old.samples.binary.enriched", "k", Some(json.as_bytes()));
    let progress = other.run(Request { legacy_json: true, ..sources() });
    assert_eq!((progress.topics[0].copied, progress.bad()), (1, 0), "{progress:?}");
}

#[test]
fn deletions_are_carried_over_behind_what_they_delete() {
    let bench = Bench::new();
    let (bytes, key) = binary();
    bench.put(OLD, &key, Some(&bytes));
    bench.put(OLD, &key, None);
    bench.put("azul.old.gone.binary.sourced", &key, None);
    let counts = |progress: &Progress| -> Vec<_> {
        progress.topics.iter().map(|topic| (topic.copied, topic.deletions, topic.bad)).collect()
    };
    let rehearsed = counts(&bench.run(Request { dry_run: true, ..sources() }));
    assert!(bench.broker.log().topic(NEW).is_none());
    let counts = counts(&bench.run(sources()));
    assert_eq!(rehearsed, counts, "it says what will be done");
    let records = bench.records(NEW);
    let values: Vec<_> = records.iter().map(|record| record.value.is_some()).collect();
    assert_eq!((counts, values), (vec![(0, 0, 0), (1, 1, 0)], vec![true, false]));
    assert!(records.iter().all(|record| record.key.as_deref() == Some(key.as_bytes())));
}

#[test]
fn a_run_without_sense_does_not_begin() {
    let bench = Bench::new();
    let begin = |previous_prefix: &str| {
        let request = Request { previous_prefix: previous_prefix.to_owned(), ..Request::default() };
        bench.begin(request).unwrap_err()
    };
    assert_eq!(begin(""), BeginError::NoPrefix);
    assert_eq!(begin("new"), BeginError::SamePrefix("new".to_owned()));
    assert_eq!(begin("old"), BeginError::NoTopics("old".to_owned()));
}

#[test]
fn plugins_are_told_to_wait_before_every_partition_and_at_the_end() {
    let bench = Bench::new();
    bench.put(OLD, "k", Some(&binary().0));
    let told = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = told.clone();
    let hold: Hold = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let options = || Options { hold: Some(hold.clone()), ..bench.options() };
    let begin = |request| Run::begin(bench.broker.clone(), Arc::new(Metrics::new()), options(), request).unwrap();
    begin(Request { dry_run: true, ..sources() }).work();
    assert_eq!(told.load(Ordering::Relaxed), 0, "a dry run is of no concern to them");
    begin(sources()).work();
    assert_eq!(told.load(Ordering::Relaxed), 3, "the topic has two partitions");
}

#[test]
fn a_server_does_one_run_at_a_time_and_shows_the_last_one() {
    let bench = Bench::new();
    bench.put(OLD, "k", Some(&binary().0));
    let jobs = Jobs::new(bench.broker.clone(), Arc::new(Metrics::new()), bench.options());
    assert_eq!(jobs.progress(), None);
    assert_eq!(jobs.begin(Request::default()).unwrap_err(), JobError::Begin(BeginError::NoPrefix));
    jobs.begin(sources()).unwrap();
    jobs.close();
    let stage = jobs.progress().unwrap().stage;
    assert!(matches!(stage, Stage::Done | Stage::Stopped), "{stage:?}");
    jobs.begin(sources()).unwrap();
    jobs.close();
    assert!(jobs.stop().is_some());
}
